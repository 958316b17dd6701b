"""Build your own: a library that you wrote yourself, judged by the checks of chapters 1 to 5, as they stand there.

    fl-course judge my_fl.py                    in a terminal; in a notebook:

    from fl_course.workbook.own import judge
    judge("my_fl.py")          a file (read anew each time), a module, an object, or a class that can be made without arguments

`fl-course start` puts a template, my_fl.py, beside the exercises. It is a thin adapter: nine functions under the names below,
each of which calls your library, whatever that looks like inside. A part that is missing is said; none stops the others.
"""

from __future__ import annotations

import difflib
import inspect
import linecache
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from .. import micro
from .grading.cards import Result, card
from .grading.checks import find
from .grading.exercise import examine

PARTS = {                                     # a part of the adapter -> the exercise whose check it has to pass
    "average": "01.weighted_average",
    "local_step": "01.local_step",
    "clip": "03.clip_update",
    "private_mean": "03.private_mean",
    "epsilon": "03.composed_epsilon",
    "split": "04.share",
    "join": "04.reconstruct",
    "top_k": "05.top_k",
    "remember": "05.error_feedback",
}
TEMPLATE = Path(__file__).with_name("my_fl.py")


@dataclass(frozen=True, repr=False)
class Verdict:
    """A card a part, in the order of PARTS."""

    results: tuple[Result, ...]

    @property
    def passed(self) -> bool:
        return all(result.passed for result in self.results)

    @property
    def summary(self) -> str:
        right = sum(result.passed for result in self.results)
        open_parts = [result.name.split()[0] for result in self.results if not result.passed]
        rest = f"; still to do: {', '.join(open_parts)}" if open_parts else ""
        return f"{right} of {len(self.results)} parts stand{rest}"

    def __repr__(self) -> str:
        return "\n".join([*map(repr, self.results), self.summary])

    def _repr_html_(self) -> str:
        state = "pass" if self.passed else "info"
        return "".join([*(result._repr_html_() for result in self.results), card(state, "your library", self.summary)])


def judge(mine: Any, rng: np.random.Generator | None = None) -> Verdict:
    """Put every part through its exercise's check, on fresh random inputs. Never raises for what a part does.

    ValueError or TypeError if there is no library to look at: no such file, a file or class that cannot be run.
    """
    rng = np.random.default_rng() if rng is None else rng
    with running(Path(mine)) if isinstance(mine, str | Path) else nullcontext(handed_over(mine)) as library:
        return Verdict(tuple(part_judged(library, name, rng) for name in PARTS))


def handed_over(mine: Any) -> Any:
    """The object that holds the parts, of whatever is no file."""
    if isinstance(mine, type):
        try:
            return mine()
        except Exception as error:
            raise TypeError(f"{mine.__name__}() fails: {type(error).__name__}: {error}; hand over an object") from error
    if mine is None or (callable(mine) and not any(_has(mine, name) for name in PARTS)):
        said = f"hand over a file, a module or an object with the functions {', '.join(PARTS)}"
        raise TypeError(f"{said}; this is {str(mine)[:60]}")
    return mine


@contextmanager
def running(path: Path) -> Iterator[ModuleType]:
    """The module that a file makes, run anew, as is what it imports from beside it, at once or later. In the end Python knows
    of these modules those that it knew before."""
    if not path.is_file():
        raise ValueError(f"there is no file {str(path)!r} in {Path.cwd()}; `fl-course start FOLDER` puts a template, my_fl.py, "
                         "into its exercises")
    if path.suffix == ".ipynb":
        raise ValueError(f"{path} is a notebook: write the functions into a file of Python, as my_fl.py, or hand over an object "
                         "in a cell of it, judge(MyLibrary())")
    module, folder = ModuleType(path.stem), path.resolve().parent
    module.__file__ = str(path)
    before = _beside(folder) | {name: sys.modules[name] for name in [path.stem] if name in sys.modules}
    for name in before:
        del sys.modules[name]
    sys.modules[path.stem] = module           # dataclasses look up there what their annotations mean
    sys.path.insert(0, str(folder))
    linecache.checkcache(str(path))
    try:
        try:
            exec(compile(path.read_bytes(), str(path), "exec"), module.__dict__)
        except (Exception, SystemExit) as error:
            raise ValueError(f"{path} cannot be run: {type(error).__name__}: {error}") from error
        yield module
    finally:
        with suppress(ValueError):            # it may have tidied up itself
            sys.path.remove(str(folder))
        mine = {path.stem}
        with suppress(OSError):               # or have removed its folder
            mine |= set(_beside(folder))
        for name in mine:
            sys.modules.pop(name, None)
        sys.modules.update(before)


def _beside(folder: Path) -> dict[str, ModuleType]:
    """The modules known to Python that lie in a folder: not this course, and nothing of an environment that lies in it too."""
    names = {path.stem for path in folder.iterdir() if path.suffix == ".py" or path.is_dir()} - {__package__.partition(".")[0]}
    found = {name: module for name, module in list(sys.modules.items()) if name.partition(".")[0] in names}
    places = {name: getattr(module, "__file__", None) or next(iter(getattr(module, "__path__", ())), "")
              for name, module in found.items()}  # fmt: skip
    return {name: found[name] for name, place in places.items() if place and Path(place).resolve().is_relative_to(folder)}


def part_judged(library: Any, name: str, rng: np.random.Generator) -> Result:
    exercise = find(PARTS[name])
    title = f"{name} (as {exercise.name})"
    try:
        fn = getattr(library, name, None)
        if fn is None:
            return Result(title, "todo", missing(library, name))
        found = examine(exercise, fn, rng)
    except (Exception, SystemExit) as error:                      # an attribute that raises; a part that wants to leave
        return Result(title, "fail", f"{type(error).__name__}: {error}")
    return Result(title, found.state, found.message, found.hint)


def missing(library: Any, name: str) -> str:
    """What to write, and whether something that is there looks like it."""
    solution = find(PARTS[name]).solution
    near = difflib.get_close_matches(name, [one for one in dir(library) if one not in PARTS and not one.startswith("_")], n=1)
    said = f" There is {near[0]!r}: is that it?" if near else ""
    return f"not there: def {name}{inspect.signature(solution)}. {' '.join(str(inspect.getdoc(solution)).split())}{said}"


def _has(library: Any, name: str) -> bool:
    try:
        return getattr(library, name, None) is not None
    except Exception:
        return True


# --- an example: micro.py, adapted ------------------------------------------------------------------------------------


class Micro:
    """fl_course/micro.py behind the adapter. It draws its own dice and has its own prime, so two parts hand it ours."""

    def average(self, deltas, counts):
        return micro.fedavg(list(deltas), list(counts))

    def local_step(self, W, x, y, lr):
        theta = np.concatenate([W.ravel(), np.zeros(len(W))])    # it has a bias, which here is zero and stays behind
        return W - lr * micro.gradient(theta, x, y, len(W))[: W.size].reshape(W.shape)

    def clip(self, update, bound):
        return micro.clip(update, bound)

    def private_mean(self, updates, bound, z, m, rng):
        total = sum((micro.clip(update, bound) for update in updates), np.zeros(updates.shape[1]))
        return (total + rng.normal(0.0, z * bound, updates.shape[1])) / m          # as in micro.federate

    def epsilon(self, zs, delta):
        """micro.rdp_epsilon converts by a tighter formula; the exercise asks for the one of its chapter."""
        rho = sum(1 / (2 * z**2) for z in zs)                     # a round costs a/(2z²) at order a
        return min(rho * a + math.log(1 / delta) / (a - 1) for a in range(2, 200))

    def split(self, secret, coefficients, n, p):
        dice = iter(coefficients)
        with instead(micro, PRIME=p, secrets=SimpleNamespace(randbelow=lambda below: next(dice))):
            return micro.share(secret, len(coefficients) + 1, n)

    def join(self, shares, p):
        with instead(micro, PRIME=p):
            return micro.reconstruct(shares)

    def top_k(self, x, k):
        return micro.top_k(x, np.zeros_like(x), k)[:2]

    def remember(self, delta, residual, compress):
        """What micro.top_k does around its choice of positions, for any compressor."""
        sent = compress(delta + residual)
        return sent, delta + residual - sent


@contextmanager
def instead(module: Any, **values: Any) -> Iterator[None]:
    """Other values for names of a module, for a while."""
    before = {name: getattr(module, name) for name in values}
    try:
        for name, value in values.items():
            setattr(module, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(module, name, value)
