"""What an exercise is and how an answer is examined. How to write a chapter of them: `fl_course.workbook.grading.checks`."""

from __future__ import annotations

import inspect
import linecache
import os
import re
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from .cards import Result
from .compare import Call, Function, clone, recorded, repeats, same, short

Test = Callable[[Function, np.random.Generator], None]
NAME = re.compile(r"\d\d\.[a-z][a-z0-9_]*")


class Wrong(AssertionError):
    """Raised by a test: the answer is wrong, and the message says what was tried and how it differs."""


@dataclass(frozen=True)
class Mistake:
    """A common wrong answer, and the hint that mends it."""

    fn: Function
    hint: str


@dataclass(frozen=True)
class Exercise:
    """One exercise: how it is tested, three hints, the solution, and the mistakes that are recognised."""

    name: str                                 # "NN.function_name", NN the chapter
    title: str
    difficulty: int                           # 1 (three lines) … 5 (an evening)
    minutes: int
    test: Test
    hints: tuple[str, str, str]
    solution: Function                        # signature, docstring and body: the build makes stub and solution of it
    mistakes: tuple[Mistake, ...]
    given: tuple[Function, ...] = ()          # functions that stand above the stub; the solution may call them

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise ValueError(f"an exercise is named like '01.weighted_average', not {self.name!r}")
        if not 1 <= self.difficulty <= 5 or self.minutes < 1:
            raise ValueError(f"{self.name}: difficulty is 1 to 5 and minutes at least 1")
        if len(self.hints) != 3 or not all(self.hints):
            raise ValueError(f"{self.name}: exactly three hints, one step more each")
        if not self.mistakes or len({mistake.hint for mistake in self.mistakes}) < len(self.mistakes):
            raise ValueError(f"{self.name}: at least one mistake, and each with its own hint")

    @property
    def chapter(self) -> str:
        return self.name[:2]


def expect(got: Any, want: Any, tried: str, rtol: float = 1e-5, atol: float = 1e-8) -> None:
    """Raise Wrong unless `got` is `want` up to rounding; `tried` says in a few words what the function was given."""
    if got is None and want is not None:
        raise Wrong(f"tried {tried}: expected {short(want)}, got None, which is also what a function without `return` gives")
    shape, wanted = getattr(got, "shape", None), getattr(want, "shape", None)
    if shape is not None and wanted is not None and tuple(shape) != tuple(wanted):
        raise Wrong(f"tried {tried}: expected shape {tuple(wanted)}, got shape {tuple(shape)}")
    if not same(got, want, rtol, atol):
        raise Wrong(f"tried {tried}: expected {short(want)}, got {short(got)}")


def agrees_with(reference: Function, draw: Callable[[np.random.Generator], tuple[Any, ...]], times: int = 5) -> Test:
    """A test: on `times` fresh draws of arguments the function answers as `reference` and leaves them as they were."""

    def test(fn: Function, rng: np.random.Generator) -> None:
        for _ in range(times):
            args = draw(rng)
            mine, kept = clone(args), clone(args)
            tried = _call_text(reference, args)
            got = fn(*mine)
            expect(got, reference(*clone(args)), tried)
            for i, (new, old) in enumerate(zip(mine, kept, strict=True), start=1):
                if not _is_rng(old) and not same(new, old):
                    raise Wrong(f"tried {tried}: the answer is right, but argument {i} was changed in place")

    return test


def examine(exercise: Exercise, fn: Function, rng: np.random.Generator) -> Result:
    """Put a student's function through the test of an exercise. Never raises for what the function does."""
    if not callable(fn):
        message = f"hand over the function itself, without brackets; this is {type(fn).__name__} {short(fn, 40)}"
        return Result(exercise.name, "fail", message)
    spy, calls = recorded(fn)
    try:
        exercise.test(spy, rng)
    except NotImplementedError as error:
        if not error.args:                    # the stub's own; torch raises NotImplementedError too, with a text
            return Result(exercise.name, "todo", "not written yet")
        message = _explain(error, fn, calls)
    except Wrong as wrong:
        message = str(wrong)
    except Exception as error:
        message = _explain(error, fn, calls)
    else:
        return Result(exercise.name, "pass", f"{exercise.title}: right on fresh random inputs")
    for mistake in exercise.mistakes:
        if calls and all(repeats(call, mistake.fn) for call in calls):
            return Result(exercise.name, "fail", message, mistake.hint)
    return Result(exercise.name, "fail", message)


def _explain(error: Exception, fn: Function, calls: list[Call]) -> str:
    """What was tried, type, message, and the line of the student's own code in which it happened."""
    said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    tried = f"tried {_call_text(fn, *calls[-1].given)}: " if calls else ""
    home = getattr(getattr(inspect.unwrap(fn), "__code__", None), "co_filename", None)
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == home]
    if not frames and calls and calls[-1].raised is not None:    # before its first line: a parameter too few
        return f"{tried}your function raised {said}"
    if not frames:
        answer = f" {short(calls[-1].answer)}" if calls and calls[-1].raised is None else ""
        return f"{tried}the answer{answer} cannot be used: {said}"
    line = frames[-1].lineno or 0
    place = os.path.basename(str(home)) if os.path.isfile(str(home)) else "its cell"
    return f"{tried}your function raised {said} in line {line} of {place}: {linecache.getline(str(home), line).strip()}"


def _call_text(fn: Function, args: tuple[Any, ...], kwargs: Mapping[str, Any] = MappingProxyType({})) -> str:
    """`x = 3, y = [1 2]`: the arguments by the names that the function gives them; generators say nothing."""
    try:
        names = list(inspect.signature(fn).parameters)
    except (TypeError, ValueError):
        names = []
    names += [f"argument {i + 1}" for i in range(len(names), len(args))]
    named = [*zip(names, args, strict=False), *kwargs.items()]
    return ", ".join(f"{name} = {short(value, 70)}" for name, value in named if not _is_rng(value))


def _is_rng(value: Any) -> bool:
    return isinstance(value, np.random.Generator)
