'''Exercises that answer at once: check, hint, reveal, progress.

For students, in a notebook:

    check("01.weighted_average", weighted_average)   what was tried, and how the answer differs
    hint("01.weighted_average")                      one step more at each call, three steps
    reveal("01.weighted_average")                    asks first, then shows the reference solution
    progress()                                       what is solved in this notebook so far

For authors: the exercises of chapter NN are the tuple EXERCISES of `fl_course/workbook/exercises/chNN.py`; the name of
an exercise begins with its chapter. A whole chapter of one exercise:

    from fl_course.workbook.grading.checks import Exercise, Mistake, agrees_with

    def double(x):                                   # signature and docstring: what the learner starts from
        """x: (d,). Returns (d,)."""
        return 2 * x                                 # the body: what reveal() and solutions/ show, a stub in exercises/

    def square(x):                                   # a wrong answer that students really give
        return x ** 2

    def draw(rng):                                   # fresh arguments for one call, drawn at every check
        return (rng.normal(size=4),)

    EXERCISES = (
        Exercise(
            name="01.double", title="Twice as much", difficulty=1, minutes=5, solution=double,
            test=agrees_with(double, draw),
            hints=("Look at the sign.", "One operation is enough.", "Multiply by 2."),
            mistakes=(Mistake(square, "That is x times x, not 2 times x."),),
        ),
    )

- `test(fn, rng)` calls `fn` on fresh inputs drawn from `rng` and raises `Wrong(message)` if an answer is wrong.
  `agrees_with(reference, draw, times=5)` is such a test; for an invariant write your own, with
  `expect(got, want, tried)` where an answer is compared.
- A failing answer is recognised as a `Mistake` when the stored function, given the very same arguments, answers the
  same in every call of the test; then its own hint is shown. So randomness must come in through the arguments (a
  `rng` argument is copied with its state), and a mistake must differ from the solution on nearly every drawn input.
- The solution is written here and nowhere else. Its function bears the name of the exercise, and its docstring says
  shapes and units. In `source/exercises` stands `# %% exercise 01.double [markdown]` with the prose below it; the build
  makes heading, difficulty, minutes, stub, solution and check of it (tools/exercise_cells.py).
- The solution runs in the notebook: it uses what the notebook imports, and functions handed over as
  `given=(helper,)`, which stand above the stub. The build refuses any other name.

tests/workbook/test_checks.py puts every exercise through the gate: the stub is "not yet", every mistake fails with its own
hint, the solution passes. With FL_COURSE_STRICT=1 (builds, solutions/, continuous integration) a check that does not
pass raises `CheckFailed`, so that a wrong solution turns the run red. So it does when nbgrader runs the notebook: an error
is what costs the point there; the inputs are those of `fl-course grade`.
'''

from __future__ import annotations

import contextlib
import difflib
import hashlib
import importlib
import inspect
import io
import os
import pkgutil
import textwrap
from pathlib import Path

import numpy as np

from ...core import stream
from .. import exercises
from .cards import SIGNS, WORDS, Note, Result
from .compare import Function
from .exercise import Exercise, Mistake, Wrong, agrees_with, examine, expect

__all__ = [
    "CheckFailed", "Exercise", "Mistake", "Wrong", "agrees_with", "chapter", "chapters", "check", "examine", "expect",
    "find", "hint", "progress", "reveal",
]


FAMILY = "fl_course."                         # the modules of the course


class CheckFailed(AssertionError):
    """A check that did not pass while FL_COURSE_STRICT is set, or nbgrader runs the notebook."""


# --- finding exercises ---------------------------------------------------------------------------------------------


def chapters() -> tuple[str, ...]:
    """The chapters that have exercises: ("01", "02", …)."""
    found = {module.name[2:] for module in pkgutil.iter_modules(exercises.__path__)}
    return tuple(sorted(number for number in found if number.isdigit()))


def chapter(number: str) -> tuple[Exercise, ...]:
    """The exercises of one chapter. ValueError names the chapters that exist."""
    if number not in chapters():
        raise ValueError(f"no exercises for chapter {number!r}; there are chapters {', '.join(chapters()) or '(none)'}")
    return importlib.import_module(f"{exercises.__name__}.ch{number}").EXERCISES


def edition(number: str) -> str:
    """A fingerprint of a chapter's exercises as they stand in their file, and of what grades them: marks of one edition are
    none of another."""
    chapter_file = Path(inspect.getfile(importlib.import_module(f"{exercises.__name__}.ch{number}")))
    files = [chapter_file, *sorted(Path(__file__).parent.glob("*.py"))]
    return hashlib.sha256("".join(file.read_text(encoding="utf-8") for file in files).encode()).hexdigest()[:12]


def find(name: str) -> Exercise:
    """The exercise of that name. ValueError suggests the nearest one; TypeError for what is no name."""
    if not isinstance(name, str):
        said = f"the function {name.__name__}" if callable(name) and hasattr(name, "__name__") else repr(name)[:60]
        raise TypeError(f'the name of an exercise comes first, as a text: check("01.shards", shards); got {said}')
    known = {exercise.name: exercise for exercise in chapter(name.partition(".")[0])}
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        advice = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
        raise ValueError(f"no exercise {name!r}; {advice}")
    return known[name]


# --- for students --------------------------------------------------------------------------------------------------

_states: dict[str, str] = {}                  # what this kernel has seen of each exercise; nothing is written to disk
_hints: dict[str, int] = {}
_asked: set[str] = set()


def check(name: str, fn: Function) -> Result | None:
    """Try your function on fresh random inputs and say how its answers differ from the right ones.

    Where nbgrader runs the notebook a right answer is printed, since a value would count as part of a point.
    """
    exercise, nbgrader = find(name), bool(os.environ.get("NBGRADER_EXECUTION"))
    result = _for_nbgrader(exercise, fn) if nbgrader else examine(exercise, fn, np.random.default_rng())
    _states[name] = result.state
    if not result.passed and (nbgrader or os.environ.get("FL_COURSE_STRICT") == "1"):
        raise CheckFailed(repr(result))
    if not nbgrader:
        return result
    print(result)
    return None


def mark(exercise: Exercise, fn: Function, seed: int = 0) -> Result:
    """What an answer is worth: as `check`, with the same inputs for everybody, and the course's own function is nobody's."""
    try:
        home = str(getattr(inspect.unwrap(fn) if callable(fn) else fn, "__module__", ""))
    except Exception:                         # wrapped in itself; an object that raises at every look
        home = ""
    if home.startswith(FAMILY):
        return Result(exercise.name, "fail", "this is a function of the course; hand in one of your own")
    return examine(exercise, fn, stream(seed, "grade", exercise.name))


def _for_nbgrader(exercise: Exercise, fn: Function) -> Result:
    """The mark, without a word on stderr: nbgrader takes a warning there for an error."""
    with contextlib.redirect_stderr(io.StringIO()), np.errstate(all="ignore"):
        return mark(exercise, fn)


def hint(name: str) -> Note:
    """The next of three hints."""
    exercise = find(name)
    step = _hints[name] = min(_hints.get(name, 0) + 1, len(exercise.hints))
    more = "" if step < len(exercise.hints) else f' That was the last hint; reveal("{name}") shows a solution.'
    return Note(f"{name}, hint {step} of {len(exercise.hints)}", exercise.hints[step - 1] + more)


def reveal(name: str) -> Note:
    """A solution. The first call only asks whether you want to see it; the second one shows it."""
    exercise = find(name)
    if name not in _asked:
        _asked.add(name)
        return Note(name, f'Sure? hint("{name}") may be enough. Run this cell once more to see a solution.')
    source = textwrap.dedent(inspect.getsource(exercise.solution)).rstrip()
    return Note(f"{name}, a solution", exercise.title, source)


def progress(number: str | None = None) -> Note:
    """What is solved in this notebook: all exercises of the chapters checked so far, or of chapter `number`."""
    seen = [number] if number else sorted({name[:2] for name in _states})
    rows = [(exercise, _states.get(exercise.name, "todo")) for part in seen for exercise in chapter(part)]
    if not rows:
        return Note("progress", "nothing has been checked yet")
    solved = sum(state == "pass" for _, state in rows)
    lines = (f"{SIGNS[state]} {WORDS[state]:<8} {item.name}  {item.title} ({item.minutes} min)" for item, state in rows)
    return Note("progress", f"{solved} of {len(rows)} solved", "\n".join(lines))
