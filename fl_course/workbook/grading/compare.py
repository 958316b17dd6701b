"""Is the student's answer the expected one? Comparing, describing and replaying answers of any shape."""

from __future__ import annotations

import copy
import dataclasses
import functools
import reprlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Function = Callable[..., Any]
PLAIN: tuple[Any, ...] = (str, bytes, set, frozenset)
EXACT, NUMBERS = "biu", "biufc"               # NumPy's kinds: booleans and integers; these, floats and complex numbers


def same(a: Any, b: Any, rtol: float = 1e-5, atol: float = 1e-8) -> bool:
    """Equal up to rounding. Integers agree exactly, lists count as arrays, tensors and dataclasses are looked into.

    b is the expected value: an object whose == is always true equals nothing but itself.
    """
    a, b = _plain(a), _plain(b)
    if a is b:
        return True
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return len(a) == len(b) and all(key in a and same(a[key], b[key], rtol, atol) for key in b)
    x, y = _array(a), _array(b)
    if x is not None and y is not None:
        if x.shape != y.shape:
            return False
        if x.dtype.kind in EXACT and y.dtype.kind in EXACT:
            return bool(np.array_equal(x, y))
        return bool(np.allclose(x, y, rtol=rtol, atol=atol, equal_nan=True))
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(same(p, q, rtol, atol) for p, q in zip(a, b, strict=True))
    for kind in PLAIN:                        # by our own eyes: what an object says about itself is not asked
        if isinstance(a, kind) and isinstance(b, kind):
            return kind.__eq__(a, b) is True
    try:
        return type(a) is type(b) and bool(a == b)
    except Exception:                         # a comparison that has no single truth value is not equality
        return False


def short(value: Any, width: int = 110, depth: int = 4) -> str:
    """`value` in one line for a message: four digits, long arrays abridged, and no deeper than `depth` lists in lists."""
    value = _plain(value)
    if isinstance(value, np.generic):
        value = value.item()
    with np.printoptions(precision=4, threshold=12, edgeitems=3, suppress=True, linewidth=10_000):
        if isinstance(value, np.ndarray):
            text = str(value.tolist()) if value.size <= 6 and value.dtype.kind in EXACT else str(value)
            text = f"shape {value.shape} {' '.join(text.split())}" if value.ndim != 1 else " ".join(text.split())
        elif isinstance(value, float):
            text = f"{value:.6g}"
        elif isinstance(value, list | tuple) and len(value) <= 8 and depth:
            inner = ", ".join(short(part, width, depth - 1) for part in value)
            text = f"[{inner}]" if isinstance(value, list) else f"({inner})"
        elif callable(value) and hasattr(value, "__name__"):
            text = f"the function {value.__name__}"            # not where it lies in memory
        else:
            text = reprlib.repr(value)
    return text if len(text) <= width else text[: width - 1] + "…"


@dataclasses.dataclass(frozen=True)
class Call:
    """One call of a function: what it was given, and what came of it."""

    given: tuple[tuple[Any, ...], dict[str, Any]]
    after: Any = None                         # the arguments when it returned: some mistakes are made in place
    answer: Any = None
    raised: type[Exception] | None = None


def recorded(fn: Function) -> tuple[Function, list[Call]]:
    """`fn` with a notebook beside it: the same function, and the growing list of its calls."""
    calls: list[Call] = []

    def spy(*args: Any, **kwargs: Any) -> Any:
        given = clone((args, kwargs))
        try:
            answer = fn(*args, **kwargs)
        except Exception as error:
            calls.append(Call(given, raised=type(error)))
            raise
        calls.append(Call(given, clone((args, kwargs)), clone(answer)))
        return answer

    return functools.update_wrapper(spy, fn), calls


def repeats(call: Call, fn: Function) -> bool:
    """Does `fn`, given the same arguments, do exactly what was seen in `call`?"""
    args, kwargs = clone(call.given)
    try:
        answer = fn(*args, **kwargs)
    except Exception as error:
        return type(error) is call.raised
    return call.raised is None and same(answer, call.answer) and same((args, kwargs), call.after)


def clone(value: Any) -> Any:
    """A deep copy where there can be one (random generators included); a generator or an open file stays itself."""
    try:
        return copy.deepcopy(value)
    except Exception:
        return value


def _plain(value: Any) -> Any:
    if isinstance(value, np.random.Generator):
        return value.bit_generator.state
    if hasattr(value, "detach"):              # a torch tensor, without importing torch for it
        return value.detach().cpu().numpy()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return value


def _array(value: Any) -> np.ndarray | None:
    if not isinstance(value, bool | int | float | complex | np.ndarray | np.generic | list | tuple):
        return None
    try:
        array = np.asarray([_plain(part) for part in value] if isinstance(value, list | tuple) else value)
    except ValueError:                        # ragged: compared part by part
        return None
    return array if array.dtype.kind in NUMBERS else None
