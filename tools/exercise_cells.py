"""An exercise is written once, in fl_course/workbook/exercises/chNN.py; this makes its cells.

In a source of exercises stands one line and the prose under it:

    # %% exercise 02.proximal_step [markdown]
    # One local step of FedProx. The client minimises …

From it and from the entry of that name in EXERCISES come a heading with number, title, difficulty and minutes; the
function, whose signature and docstring the student keeps and whose body becomes a stub; and its check. Code cells tagged
`given` right under the prose stand before the function. What else it needs by name is in `Exercise.given`.

nbgrader reads these cells too: an answer is a "solution", a check a locked test worth a point. In solutions/ its markers stand
around what it takes out, so that `nbgrader generate_assignment` makes of solutions/NN the stubs of exercises/NN. It hands out the
cells that are tagged `solution` too: there stands what uses an answer, never the answer.
"""

from __future__ import annotations

import ast
import builtins
import dis
import importlib
import inspect
import re
import textwrap
from collections.abc import Callable
from types import CodeType

import nbformat
from notebook_sources import SourceError, tags

from fl_course.workbook.grading import checks
from fl_course.workbook.grading.checks import Exercise

STUB = ("# YOUR CODE HERE", "raise NotImplementedError()")
BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"            # nbgrader's words
MARKER = re.compile(r"#\s*(begin|end)\s+solution", re.IGNORECASE)
DIRECTIVE = re.compile(r"exercise\s+(\S+)")
MADE = {"exercise", "check"}                                     # tags that only this file hands out
INTRO = re.compile(r"^([\w-]+) functions?(?:, from ([\w -]+?) to ([\w -]+?))?[.:]", re.MULTILINE)
NUMBERS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
MINUTES = {"half an hour": 30, "an hour": 60, "fifteen": 15, "twenty": 20, "twenty-five": 25, "forty": 40, "forty-five": 45}
PARAGRAPH = re.compile(r"[\w$`*(\"'“]")                          # prose that may go on behind the line of difficulty


def expanded(cells: list[nbformat.NotebookNode], name: str) -> list[nbformat.NotebookNode]:
    """The cells of a source of exercises (`name`: its file name), with every directive replaced by its exercise."""
    try:
        chapter = checks.chapter(name[:2])
    except ValueError as error:
        raise SourceError(f"{name}: {error}") from error
    inspect_source(cells, name)
    asked = [match[1] for cell in cells if (match := _directive(cell))]
    known = [exercise.name for exercise in chapter]
    for one in asked:
        if one not in known:
            raise SourceError(f"{name}: there is no exercise {one!r} in chapter {name[:2]}; there are {', '.join(known)}")
        if asked.count(one) > 1:
            raise SourceError(f"{name}: exercise {one!r} stands here {asked.count(one)} times; once is right")
    for one in known:
        if one not in asked:
            raise SourceError(f"{name}: exercise {one!r} is missing; write `# %% exercise {one} [markdown]` and its prose")
    if asked != known:
        raise SourceError(f"{name}: the order is not that of EXERCISES, which gives the numbers: {', '.join(known)}")
    check_intro(cells, chapter, name)
    given_names = _defined(cells, name)
    made, rest = [], list(cells)
    while rest:
        cell = rest.pop(0)
        if not (match := _directive(cell)):
            made.append(cell)
            continue
        place = known.index(match[1])
        made.append(_heading(chapter[place], place + 1, cell.source.strip()))
        while rest and "given" in tags(rest[0]):
            made.append(nbformat.v4.new_code_cell(rest.pop(0).source))
        made += _function_and_check(chapter[place], given_names, name)
    return made


def inspect_source(cells: list[nbformat.NotebookNode], name: str) -> None:
    """Refuse what is written by hand here and belongs into the chapter of checks, naming file and cell."""
    under_a_directive = False
    for number, cell in enumerate(cells, start=1):
        where = f"{name}, cell {number}"
        home = f"fl_course/workbook/exercises/ch{name[:2]}.py"
        if MARKER.search(cell.source):
            raise SourceError(f"{where}: a solution is the body of its function in {home}; here stands prose only")
        if MADE & set(tags(cell)):
            raise SourceError(f"{where}: tags `exercise` and `check` are for what is made of `# %% exercise NN.name [markdown]`")
        if match := _directive(cell):
            if cell.cell_type != "markdown":
                raise SourceError(f"{where}: write `# %% exercise {match[1]} [markdown]`, so that the lines below are prose")
            if not cell.source.strip():
                raise SourceError(f"{where}: exercise {match[1]!r} has no prose; say what is asked, below its line")
            under_a_directive = True
        elif "given" in tags(cell):
            if cell.cell_type != "code" or not under_a_directive:
                raise SourceError(f"{where}: `given` is for code cells right under the prose of an exercise")
        else:
            under_a_directive = False


def check_intro(cells: list[nbformat.NotebookNode], chapter: tuple[Exercise, ...], name: str) -> None:
    """What the first cell says in words, how many functions and from how many minutes to how many, is what the entries say."""
    said = INTRO.search(cells[0].source) if cells else None
    if said is None:
        return
    count, minutes = said[1].lower(), [exercise.minutes for exercise in chapter]
    if len(chapter) <= len(NUMBERS) and count != NUMBERS[len(chapter) - 1] and count != str(len(chapter)):
        raise SourceError(f"{name}, cell 1: says {said[1]!r} functions; there are {len(chapter)}")
    for words, right, which in ((said[2], min(minutes), "shortest"), (said[3], max(minutes), "longest")):
        if words and "line" not in words and (stated := _minutes(words)) != right:
            raise SourceError(f"{name}, cell 1: says {words!r}, and the {which} exercise takes {right} minutes"
                              + ("" if stated else "; write a number of minutes"))


def _minutes(words: str) -> int | None:
    """Of "ten", "five minutes", "half an hour" or "25 minutes"; None for what is no time."""
    plain = re.sub(r" minutes?$", "", words.strip().lower())
    known = {**{word: number for number, word in enumerate(NUMBERS, start=1)}, **MINUTES}
    return int(plain) if plain.isdigit() else known.get(plain)


def _directive(cell: nbformat.NotebookNode) -> re.Match[str] | None:
    return DIRECTIVE.fullmatch(cell.metadata.get("title", "").strip())


def _heading(exercise: Exercise, number: int, prose: str) -> nbformat.NotebookNode:
    facts = f"*Difficulty {exercise.difficulty} of 5 · {exercise.minutes} minutes.*"
    join = " " if PARAGRAPH.match(prose) else "\n\n"
    title = f"## {int(exercise.chapter)}.{number} {exercise.title}"
    return nbformat.v4.new_markdown_cell(f"{title}\n{facts}{join}{prose}", metadata={"tags": ["exercise"]})


def _function_and_check(exercise: Exercise, known: set[str], name: str) -> list[nbformat.NotebookNode]:
    where = f"{name}, exercise {exercise.name}"
    helpers = [text_of(function) for function in exercise.given]
    source = text_of(exercise.solution)
    if MARKER.search("\n".join([source, *helpers])):
        raise SourceError(f"{where}: no markers in the function; the build sets them around its body")
    function = exercise.solution.__name__
    if function != exercise.name[3:]:
        raise SourceError(f"{where}: the solution is called {function!r}; call it {exercise.name[3:]!r}, as the check does")
    known = known | {helper.__name__ for helper in exercise.given}
    for text in [source, *helpers]:
        if strange := sorted(names_asked(text) - names_set(text, where) - known - set(dir(builtins))):
            raise SourceError(f"{where}: its code uses {', '.join(strange)}, which the notebook does not have; import it in the "
                              "notebook's own cell, or hand a function over in `given`")
    cell = "\n\n\n".join([*helpers, marked(source, where)])
    check = f'check("{exercise.name}", {function})'
    number = exercise.name.replace(".", "-")
    test = nbgrader(f"check-{number}", grade=True, locked=True, points=1)
    return [
        nbformat.v4.new_code_cell(cell, metadata={"tags": ["exercise"], "nbgrader": nbgrader(f"answer-{number}", solution=True)}),
        nbformat.v4.new_code_cell(check, metadata={"tags": ["check"], "nbgrader": test}),
    ]


def nbgrader(name: str, cell_type: str = "code", **kind: bool | int) -> dict:
    """What nbgrader has to know of a cell, in version 3 of its schema."""
    no = {"grade": False, "solution": False, "task": False, "locked": False}
    return {**no, **kind, "grade_id": name, "cell_type": cell_type, "schema_version": 3}


def text_of(function: Callable) -> str:
    return textwrap.dedent(inspect.getsource(function)).rstrip()


def marked(source: str, where: str) -> str:
    """The source of a function with the markers around its body: all below the docstring."""
    (function,) = ast.parse(source).body
    assert isinstance(function, ast.FunctionDef)
    if not ast.get_docstring(function) or len(function.body) < 2:
        raise SourceError(f"{where}: the solution needs a docstring (shapes and units, the learner reads it) and a body")
    lines, docstring = source.splitlines(), function.body[0]
    indent = " " * docstring.col_offset
    end = docstring.end_lineno
    return "\n".join([*lines[:end], indent + BEGIN, *lines[end:], indent + END])


def stubbed(source: str) -> str:
    """The source with every solution region replaced by the stub, at the region's own indentation."""
    lines, inside = [], False
    for line in source.splitlines():
        if line.strip() == BEGIN:
            inside = True
            indent = line[: len(line) - len(line.lstrip())]
            lines += [indent + text for text in STUB]
        elif line.strip() == END:
            inside = False
        elif not inside:
            lines.append(line)
    return "\n".join(lines)


# --- names: a solution runs in the notebook with what the notebook has ------------------------------------------------


def _defined(cells: list[nbformat.NotebookNode], name: str) -> set[str]:
    """What the source's own cells import and define. Other exercises do not count: for the student they are stubs."""
    return set().union(*(names_set(cell.source, name) for cell in cells if cell.cell_type == "code"))


def names_set(source: str, where: str) -> set[str]:
    """The names that this code binds at its top level, those of `from x import *` included."""
    tree = ast.parse(source)
    code = compile(tree, where, "exec", dont_inherit=True)
    found = {step.argval for step in dis.get_instructions(code) if step.opname in ("STORE_NAME", "STORE_GLOBAL")}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.names[0].name == "*":
            module = importlib.import_module(str(node.module))
            found |= set(getattr(module, "__all__", [name for name in vars(module) if not name.startswith("_")]))
    return found


def names_asked(source: str) -> set[str]:
    """The names that this code looks up outside of its own functions, however deep they are nested."""

    def walk(code: CodeType) -> set[str]:
        here = {step.argval for step in dis.get_instructions(code) if step.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
        return here.union(*(walk(inner) for inner in code.co_consts if isinstance(inner, CodeType)))

    return walk(compile(source, "exercise", "exec", dont_inherit=True))
