"""A run as a notebook that makes it again: each part of the experiment is written as the call that makes it.

    history.to_notebook("run.ipynb", fed)

Before anything is written the code is tried: what it makes must have the same facts (identity.py) as the experiment. Data that
know the call that made them (data/recalled.py) are that call; others, and arrays, are saved beside the notebook as run.npz. What
another process could not make, such as a stage that was defined in a notebook, is refused by its name. The last cell of the
notebook holds every record, and the last model, to the bit.
"""

from __future__ import annotations

import hashlib
import io
import math
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from pathlib import Path
from types import BuiltinFunctionType, FunctionType
from typing import Any

import numpy as np
import torch

from ..core import Record
from ..data.federated import Dataset, FederatedData
from ..files import write_all
from .identity import INSTALLED, difference, facts
from .replay import replayed
from .state import State
from .telemetry import json_line

FACE = "fl_course"                       # where the public names are


@dataclass
class Page:
    """What the code needs around it."""

    names: dict[str, Any] = field(default_factory=dict)             # as they are imported
    lines: dict[str, str] = field(default_factory=dict)             # name -> the line that imports it
    stored: dict[str, np.ndarray] = field(default_factory=dict)     # what is saved beside the notebook
    known: list[tuple[Any, str]] = field(default_factory=list)      # things that a variable holds already

    def name(self, thing: Any, place: str) -> str:
        """The name of a class or function, which is imported from the face of the package if it is there."""
        module, name = thing.__module__ or "", thing.__qualname__
        if getattr(sys.modules[FACE], name, None) is thing:
            module = FACE
        elif not (_to_be_had(module) and _found(module, name) is thing):
            raise ValueError(
                f"{place} is {_short(thing)} of {module or 'nowhere'}, which a notebook in another process could not import: "
                "put it in a package that is installed (pip install -e .), or write this run's notebook by hand"
            )
        first = name.split(".")[0]
        if self.names.setdefault(first, getattr(sys.modules[module], first)) is not getattr(sys.modules[module], first):
            raise ValueError(f"{place} is {_short(thing)}, and another part of the experiment has the same name {first!r}")
        self.lines[first] = f"from {module} import {first}"
        return name

    def keep(self, array: np.ndarray, place: str) -> str:
        if array.dtype.hasobject:
            raise ValueError(f"{place} is an array of Python objects, which cannot be saved; arrays of numbers can")
        self.stored.setdefault(place, array)
        return f"stored[{place!r}]"


def call(value: Any, page: Page, place: str) -> str:
    """An expression that makes the same once more. ValueError, with the name of the place, for what none can."""
    for thing, variable in page.known:
        if thing is value:
            return variable
    if isinstance(value, float) and not isinstance(value, np.generic) and not math.isfinite(value):
        page.names["math"], page.lines["math"] = math, "import math"
        return "math.nan" if math.isnan(value) else f"{'-' if value < 0 else ''}math.inf"
    if value is None or (isinstance(value, bool | int | float | str | bytes | range) and not isinstance(value, np.generic)):
        return repr(value)
    if isinstance(value, np.ndarray | np.generic):
        text = page.keep(np.asarray(value), place)
        return text if isinstance(value, np.ndarray) else f"{text}[()]"
    if isinstance(value, list | tuple | set | frozenset):
        inside = [call(part, page, f"{place}[{i}]") for i, part in enumerate(value)]
        kind = "" if type(value) in (list, tuple) else type(value).__name__
        comma = "," if type(value) is tuple and len(inside) == 1 else ""
        text = f"({', '.join(inside)}{comma})" if type(value) is tuple else f"[{', '.join(inside)}]"
        return f"{kind}({text})" if kind else text
    if type(value) is dict:
        pairs = [f"{call(key, page, place)}: {call(part, page, f'{place}[{key!r}]')}" for key, part in value.items()]
        return f"{{{', '.join(pairs)}}}"
    if isinstance(value, type | FunctionType | BuiltinFunctionType):
        return page.name(value, place)
    if isinstance(value, Dataset | FederatedData):
        return _data(value, page, place)
    if is_dataclass(value):
        name = page.name(type(value), place)
        given = [f for f in fields(value) if f.init and not _is_default(f, getattr(value, f.name))]
        words = [f"{f.name}={call(getattr(value, f.name), page, f'{place}.{f.name}')}" for f in given]
        return f"{name}({', '.join(words)})"
    raise ValueError(
        f"{place} is {_short(value)}, of which nobody knows the call that made it: only dataclasses, functions and classes of "
        "installed packages, numbers, text and arrays can be written down"
    )


def _data(data: Dataset | FederatedData, page: Page, place: str) -> str:
    """The call that made them, if it makes the same again; else their arrays, saved beside."""
    face = vars(sys.modules[FACE])
    if data.source:
        try:
            again = eval(data.source, {**face, "np": np})     # our own text (recalled.py), of this process
        except Exception:                                     # a rule of somebody's own, an argument whose repr is no call
            again = None
        if type(again) is type(data) and difference(facts(data), facts(again)) is None:
            used = {name for name in compile(data.source, "", "eval").co_names if name in face}
            page.names.update({name: face[name] for name in used} | {"np": np})
            page.lines.update({name: f"from {FACE} import {name}" for name in used})
            return data.source
    page.names["np"] = np
    x, y, x_test, y_test = (page.keep(getattr(data, name), f"{place}.{name}") for name in ("x", "y", "x_test", "y_test"))
    if isinstance(data, Dataset):
        return f"{page.name(Dataset, place)}({data.name!r}, {x}, {y}, {data.classes}, {x_test}, {y_test})"
    train, test = (_rows(getattr(data, part), page, f"{place}.{part}") for part in ("train", "test"))
    ids = f"range({len(data)})" if data.ids == tuple(range(len(data))) else repr(data.ids)
    words = f"{data.name!r}, {x}, {y}, {data.classes}, {ids}, {train}, {test}, {x_test}, {y_test}, made={data.made!r}"
    return f"{page.name(FederatedData, place)}({words})"


def _rows(parts: Sequence[np.ndarray], page: Page, place: str) -> str:
    ends = page.keep(np.cumsum([len(rows) for rows in parts])[:-1], f"{place} ends")
    return f"np.split({page.keep(np.concatenate(parts).astype(np.int64), place)}, {ends})"


def written(experiment: Any, path: Path) -> tuple[list[str], dict[str, np.ndarray]]:
    """The cells of code that make the experiment as `fed`, tried; and the arrays that they read from beside `path`."""
    page = Page()
    data = call(experiment.data, page, "data")
    page.known.append((experiment.data, "data"))
    name = page.name(type(experiment), "the experiment")
    given = [f for f in fields(experiment) if f.init and not _is_default(f, getattr(experiment, f.name))]
    parts = [f"    {f.name}={call(getattr(experiment, f.name), page, f.name)},\n" for f in given]
    fed = f"{name}(\n{''.join(parts)})"
    space = {**page.names, "np": np, "stored": page.stored}
    space["data"] = eval(data, space)
    again = eval(fed, space)
    hidden = [(part, repr(getattr(one, part))) for part in ("strict", "evaluation") for one in (experiment, again)]
    if (found := difference(facts(experiment), facts(again))) or len(set(hidden)) > 2:
        place, was, now = found or ("evaluation", hidden[2][1], hidden[3][1])
        raise ValueError(f"this experiment cannot be written down: {place} would be {now} and is {was}")
    load = [f'with np.load("{path.with_suffix(".npz").name}") as file:', "    stored = dict(file)"] if page.stored else []
    lines = _imports(page.lines, bool(page.stored) or "np." in data)
    return ["\n".join(lines), "\n".join([*load, f"data = {data}"]), f"fed = {fed}"], page.stored


def _imports(lines: Mapping[str, str], numpy: bool) -> list[str]:
    own: dict[str, list[str]] = {FACE: ["json_line"]}
    for line in lines.values():
        if line.startswith("from "):
            module, name = line.removeprefix("from ").split(" import ")
            own.setdefault(module, []).append(name)
    rest = [line for line in ("import math",) if line in lines.values()]
    ours = []
    for module, names in sorted(own.items()):
        text = f"from {module} import {', '.join(sorted(set(names)))}"
        ours.append(text if len(text) <= 100 else f"from {module} import (\n    " + ",\n    ".join(sorted(set(names))) + ",\n)")
    return [*rest, "from hashlib import sha256", "", *(["import numpy as np", ""] if numpy else []), *ours]


def to_notebook(path: str | Path, records: Sequence[Record], final: Any, experiment: Any, story: str) -> None:
    """Write the run as a notebook, and its arrays beside it where it needs some. See History.to_notebook."""
    import nbformat  # here, because training needs no notebooks

    path = Path(path)
    if path.suffix != ".ipynb":
        raise ValueError(f"a notebook's name ends with .ipynb, unlike {path.name!r}")
    if not records:
        raise ValueError("there is no round to write down")
    cells, stored = written(experiment, path)
    try:
        replayed(records[:1], None, experiment)
    except ValueError as error:
        raise ValueError(f"no notebook would make this run again: {error}") from error
    measure = next((name for name in ("accuracy", "rmse", "loss") if name in records[-1].metrics), "drift")
    here = f"torch {torch.__version__} and NumPy {np.__version__} on {platform.machine()}"
    proof = ["# Every record, to the bit. It was made with " + here + ";", "# elsewhere the last digits may differ.",
             'lines = "\\n".join(map(json_line, history.records[-' + str(len(records)) + ':]))',
             f'assert sha256(lines.encode()).hexdigest() == "{_digest(records)}"']  # fmt: skip
    if isinstance(final, State):
        model = hashlib.sha256(final.server.params.tobytes()).hexdigest()
        proof.append(f'assert sha256(history.state.server.params.tobytes()).hexdigest() == "{model}"')
    beside = f" What it needs beside its code is in `{path.with_suffix('.npz').name}`." if stored else ""
    title = f"# A run of {records[-1].version} rounds, to be made again\n\n{story}\n\nMade with {here}.{beside}"
    run = [f"history = fed.train(rounds={records[-1].version})\nhistory", f'history.plot("{measure}");',
           'print(*history.explain(fed), sep="\\n")', "\n".join(proof)]  # fmt: skip
    book = nbformat.v4.new_notebook(
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
        cells=[nbformat.v4.new_markdown_cell(title, id="title"),
               *(nbformat.v4.new_code_cell(text, id=f"cell-{i}") for i, text in enumerate([*cells, *run]))],
    )  # fmt: skip
    files: dict[Path, bytes | str] = {path: nbformat.writes(book) + "\n"}
    if stored:
        np.savez_compressed(arrays := io.BytesIO(), **stored)  # type: ignore[arg-type]
        files[path.with_suffix(".npz")] = arrays.getvalue()
    write_all(files)


def _digest(records: Sequence[Record]) -> str:
    return hashlib.sha256("\n".join(map(json_line, records)).encode()).hexdigest()


def _is_default(part: Field[Any], value: Any) -> bool:
    default = part.default_factory() if part.default_factory is not MISSING else part.default
    return default is not MISSING and type(default) is type(value) and difference(facts(default), facts(value)) is None


def _to_be_had(module: str) -> bool:
    """Whether another process can import it: of this package or of an installed one."""
    top = module.split(".")[0]
    file = getattr(sys.modules.get(module), "__file__", None)
    if top == FACE or (module not in ("", "__main__") and module in sys.modules and (file is None or file.startswith(INSTALLED))):
        return True
    from importlib.metadata import packages_distributions  # here, because it reads every package's list of files

    return top in packages_distributions()


def _found(module: str, name: str) -> Any:
    thing: Any = sys.modules[module]
    for part in name.split("."):
        thing = getattr(thing, part, None)
    return thing


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:97]}…"
