"""From what people have to what a model can use: examples as float32, classes as int64 or numbers to hit as float32.

What would lose its meaning on the way is refused with the cure: text, ragged images, missing values, whole numbers that
float32 cannot hold, tables whose columns stand in another order. What comes out shares no memory with what was handed over.
`where(row)` says in words whose example a row is, for the sentence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np

from ..core import is_whole

Where = Callable[[int], str]
EXACT = 2**24                    # from here on float32 has no place for every whole number


def nowhere(row: int) -> str:
    return ""


@dataclass(frozen=True)
class Brought:
    """An array that is as a model takes it and nobody else's, so it need not be looked at or copied again."""

    array: np.ndarray


def brought(array: np.ndarray) -> Any:
    return Brought(array)


def examples(value: Any, name: str, where: Where = nowhere) -> np.ndarray:
    """(N, *shape) float32. ValueError or TypeError, with a sentence, for what has no such form."""
    x = to_array(value, name, where)
    if x.ndim < 2 and x.shape != (0,):
        raise ValueError(f"{name} has shape {x.shape}; examples come as (N, features), so one feature is {name}[:, None]")
    return to_float32(x, name, where, columns(value))


def targets(value: Any, name: str, classes: int, where: Where = nowhere) -> np.ndarray:
    """(N,) int64 classes from 0 to classes - 1; or, with classes = 0, (N, k) float32 numbers to hit."""
    y = to_array(value, name, where, text_cure="number the classes: names, y = np.unique(y, return_inverse=True)")
    if y.ndim not in (1, 2):
        raise ValueError(f"{name} has shape {y.shape}; it must be (N,), one label an example, or (N, k) numbers to hit")
    if not classes:
        return to_float32(y[:, None] if y.ndim == 1 else y, name, where, columns(value))
    if y.ndim > 1:
        cure = f"np.ravel({name})" if y.shape[1] == 1 else f"np.argmax({name}, axis=1) if these are one-hot rows"
        raise ValueError(f"{name} has shape {y.shape}; labels are (N,), one whole number an example: {cure}")
    with np.errstate(invalid="ignore"):
        whole = y.astype(np.int64)
    wrong = np.flatnonzero((whole != y) | (whole < 0) | (whole >= classes))
    if len(wrong):
        row = int(wrong[0])
        number = "" if y[row] == whole[row] else "; for numbers to hit (regression) say classes=0"
        raise ValueError(f"label {y[row]} of example {row} in {name}{where(row)}; "
                         f"labels are whole numbers from 0 to {classes - 1}{number}")
    return whole


def count_classes(classes: Any, labels: list[Any]) -> int:
    """`classes` as an int; None counts them: the largest of these labels, plus 1."""
    if classes is None:
        arrays = [to_array(part, "y", text_cure="number the classes: names, y = np.unique(y, return_inverse=True)")
                  for part in labels if len(part)]
        if any(part.dtype.kind not in "iub" for part in arrays):
            raise ValueError("the labels are not whole numbers (integers), so their classes cannot be counted; say how many "
                             "classes there are, or classes=0 for numbers to hit (regression)")
        return max((int(part.max()) + 1 for part in arrays), default=1)
    if not is_whole(classes, 0):
        raise ValueError(f"classes = {classes!r}; it must be a whole number >= 1, 0 if y holds numbers to hit (regression), or "
                         "None to count them")
    return int(classes)


def rows_of(value: Any, name: str) -> np.ndarray:
    """(n,) int64 row numbers."""
    rows = np.asarray(value)
    if rows.size and (rows.dtype.kind not in "iu" or rows.ndim != 1):
        cure = ": np.flatnonzero(mask) makes them of a mask" if rows.dtype.kind == "b" else ""
        raise ValueError(f"{name} must hold row numbers, (n,) whole numbers a client, not {rows.dtype} {rows.shape}{cure}")
    return rows.astype(np.int64).reshape(-1)


# --- any array ------------------------------------------------------------------------------------------------------------


def columns(value: Any) -> list[Any]:
    """The names of a table's columns, or nothing."""
    return list(getattr(value, "columns", ()))


def same_columns(tables: Iterable[tuple[str, Any]]) -> None:
    """ValueError unless all tables that name their columns name the same ones in one order: they are joined by position.

    tables: whose it is, in words, and the table. Columns that are only numbered, 0, 1, …, have no names.
    """
    told: list[tuple[str, list[Any]]] = []
    for whose, table in tables:
        names = columns(table)
        if not names or names == list(range(len(names))):
            continue
        told.append((whose, names))
        first, like = told[0]
        if names != like:
            here, there = next(((a, b) for a, b in zip(names, like, strict=False) if a != b), (len(names), len(like)))
            why = (f"the columns of {whose} stand in another order" if set(names) == set(like) and len(names) == len(like) else
                   f"the columns of {whose} are others")
            what = (f"{here!r} where {first} has {there!r}" if len(names) == len(like) else
                    f"{here} columns, and {first} has {there}")
            raise ValueError(f"{why}: {what}. Columns are joined by position; bring every table to one list of names, "
                             f"table[{str(like[:3])[:60]}{'' if len(like) <= 3 else ' …'}]")


def to_array(value: Any, name: str, where: Where = nowhere, text_cure: str = "") -> np.ndarray:
    """`value` as an array of numbers or booleans, whatever held them: NumPy, pandas, torch, lists."""
    kind = type(value).__name__
    if value is None:
        raise ValueError(f"{name} is None; it must be an array")
    if hasattr(value, "toarray"):
        raise TypeError(f"{name} is a sparse {kind}; hand over {name}.toarray()")
    if not isinstance(value, list | tuple | range) and not hasattr(value, "__array__"):
        if hasattr(value, "__getitem__") and not isinstance(value, str | bytes | dict):
            raise TypeError(f"{name} is a {kind}, which is no array; stack it: pairs = list(dataset), "
                            "x = np.stack([np.asarray(x) for x, _ in pairs]), y = np.array([y for _, y in pairs])")
        raise TypeError(f"{name} is of the kind {kind}; it must be an array with one row an example")
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = value.float() if str(value.dtype) == "torch.bfloat16" else value
    if isinstance(value, list | tuple):
        value = _stacked([part.detach().cpu() if hasattr(part, "detach") else part for part in value], name)
    if isinstance(value, np.ma.MaskedArray) and value.mask.any():
        raise ValueError(f"{name} has masked entries, which would come back as numbers; fill them ({name}.filled(0)) "
                         "or drop them")
    array = np.asarray(value)
    if array.dtype.kind in "OUS":
        array = _numbers(array, name, where, columns(value), text_cure)
    if array.dtype.kind not in "iubf":
        cure = "; for times: seconds since a day of yours, as a float" if array.dtype.kind in "mM" else ""
        raise TypeError(f"{name} holds {array.dtype}; it must hold real numbers{cure}")
    return array


def _stacked(parts: list[Any], name: str) -> np.ndarray:
    """A list as an array, if its parts have one shape."""
    try:
        return np.asarray(parts)
    except ValueError:
        shapes = list(dict.fromkeys(np.shape(np.asarray(part)) for part in parts))
        some = " and ".join(str(shape) for shape in shapes[:2])
        raise ValueError(f"the parts of {name} have different shapes, such as {some}; "
                         "bring them to one: resize or crop images, pad sequences") from None


def _numbers(array: np.ndarray, name: str, where: Where, names: list[Any], text_cure: str) -> np.ndarray:
    """An array of objects or text as numbers; the first thing that is none is named with its row and column."""
    for place, thing in np.ndenumerate(array):
        if isinstance(thing, Real | np.bool_):
            continue
        thing = thing.item() if isinstance(thing, np.generic) else thing
        if isinstance(thing, np.ndarray) or hasattr(thing, "detach"):
            shapes = sorted({np.shape(part) for part in array.flat}, key=str)
            cure = (f"hand over np.stack({name})" if len(shapes) == 1 else
                    "bring them to one shape: resize or crop images, pad sequences")
            raise ValueError(f"{name} holds arrays, of shape {' and '.join(str(shape) for shape in shapes[:2])}; {cure}")
        cure = text_cure or ("encode text as numbers (one-hot, or drop the column)" if isinstance(thing, str | bytes) else
                             "fill in what is missing, or drop it")
        raise ValueError(f"example {place[0] if place else 0} in {name}{where(place[0] if place else 0)} holds {thing!r}"
                         f"{_column(place, names)}, which is no number; {cure}")
    whole = all(isinstance(thing, int | np.integer | np.bool_) for thing in array.flat)
    try:
        return array.astype(np.int64 if whole else np.float64)
    except OverflowError:
        return array.astype(np.float64)


def _column(place: tuple[int, ...], names: list[Any]) -> str:
    if len(place) < 2:
        return ""
    if len(place) == 2:
        return f" in column {names[place[1]]!r}" if names else f" in column {place[1]}"
    return f" at {place[1:]}"


def to_float32(x: np.ndarray, name: str, where: Where, names: list[Any]) -> np.ndarray:
    """The same numbers as float32, or a refusal that names the first one that would not be the same, or is none."""
    if x.dtype == np.float32:
        lost = np.zeros(0, dtype=bool)
        out = x.copy()
    else:
        with np.errstate(over="ignore"):
            out = x.astype(np.float32)
        lost = _changed(x, out)
    if lost.any():
        place = tuple(int(i) for i in np.argwhere(lost)[0])
        value, column = x[place], _column(place, names)
        if np.isinf(out[place]):
            raise ValueError(f"example {place[0]} in {name}{where(place[0])} holds {value:g}{column}, and float32 ends at "
                             f"3.4e38; scale it, or take its logarithm")
        raise ValueError(f"example {place[0]} in {name}{where(place[0])} holds {value}{column}, which float32 turns into "
                         f"{int(out[place])}; whole numbers beyond 2^24 are rarely a feature: drop ids, give times from a day "
                         "of yours, or scale")
    bad = ~np.isfinite(out)
    if bad.any():
        place = tuple(int(i) for i in np.argwhere(bad)[0])
        column = _column(place, names) if names else ""
        raise ValueError(f"example {place[0]} in {name}{where(place[0])} holds NaN or Inf{column}; every number must be finite")
    return out


def _changed(x: np.ndarray, out: np.ndarray) -> np.ndarray:
    """Where a finite number became infinite, or a whole number another one."""
    if not x.size or x.dtype.kind == "b" or x.dtype.itemsize < 4:
        return np.zeros(0, dtype=bool)
    if x.dtype.kind == "f":
        with np.errstate(invalid="ignore"):
            whole = (abs(x) > EXACT) & (abs(x) < 2.0**53) & (x == np.floor(x)) & (out != x)
        return np.asarray(whole | (np.isfinite(x) & np.isinf(out)))
    size = abs(x).astype(np.uint64)                              # |smallest int64| wraps round to itself: 2^63, as it should
    lowest = size & (~size + np.uint64(1))                       # its last bit that is 1
    return size // np.maximum(lowest, np.uint64(1)) > EXACT
