"""The commands of `fl-course` for a reader's and a teacher's desk: start, lab, judge, doctor, grade, test."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from .terminal import DAY, OUT, Jobs, counted, refuse, say, table, writable


def grade(
    folder: Annotated[Path, typer.Argument(help="Folder of students' notebooks, whatever their names.")],
    chapter: Annotated[str, typer.Option(help="Chapter, as 01. Default: what most of the files are about.")] = "",
    out: Annotated[Path, OUT] = Path("reports/grades"),
    seconds: Annotated[float, typer.Option(min=1, max=DAY, help="Time limit of one file.")] = 120,
    cell_seconds: Annotated[float, typer.Option(min=0.1, max=DAY, help="Time limit of one cell.")] = 15,
    jobs: Jobs = 2,
    seed: Annotated[int, typer.Option(help="Seed of the inputs, the same for every student.")] = 0,
    again: Annotated[bool, typer.Option("--again", help="Grade all anew, also what an earlier run has done.")] = False,
    roster: Annotated[Path | None, typer.Option(help="Class list: CSV with id, name, email.")] = None,
    weights: Annotated[str, typer.Option(help="What exercises count: difficulty, or a CSV of exercise,weight.")] = "",
    format: Annotated[str, typer.Option("--format", help="A table to import: moodle, canvas, or csv for Excel.")] = "",
    column: Annotated[str, typer.Option(help="Canvas: title of the assignment, as in its export.")] = "",
    sandbox: Annotated[bool, typer.Option("--sandbox", help="Linux: run each file in a room of its own, by bwrap.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before a folder of several levels is run.")] = False,
) -> None:
    """Grade a folder of notebooks: grades.csv, and one page of feedback a student.

    Runs the students' code: without network and other processes, but otherwise as you. For strangers use --sandbox (Linux),
    or a container.
    Each grade is written when it is known; a run that was stopped goes on where it was.

    Example: `fl-course grade handed-in --chapter 01 --out grades`
    """
    from ..grading import checks, classroom, fence, school
    from ..grading import roster as rosters
    from ..grading.gradebook import Gradebook, percent

    if sandbox and (reason := fence.why_not()):
        refuse(reason)
    if format not in ("", *school.FORMATS):
        refuse(f"--format takes {', '.join(school.FORMATS)}, not {format!r}")
    files = classroom.submissions(folder) if folder.is_dir() else []
    if not files:
        refuse(f"there are no notebooks in {folder}")
    try:
        chapter = chapter or classroom.majority_chapter(files)
        checks.chapter(chapter)
        people = rosters.read_roster(roster) if roster else []
        weighing = school.weights_of(chapter, weights)
    except ValueError as error:               # said before anything runs
        refuse(str(error))
    _agree(folder, files, chapter, yes)
    paths = {path.relative_to(folder).as_posix(): path for path in files}
    whose = rosters.owners(list(paths), people)
    instead = school.counting(paths, whose, chapter)
    settings = {"chapter": chapter, "seconds": seconds, "cell_seconds": cell_seconds, "seed": seed, "sandbox": sandbox,
                "checks": checks.edition(chapter)}
    how_on = f"the same command{' without --again' if again else ''} goes on from there"
    book = Gradebook(out, settings, weights=weighing)
    book.who = {name: (one.person.id, one.person.name, one.person.email) if one.person else ("", one.name, "")
                for name, one in whose.items()}
    book.notes = {name: school.notes(name, whose, instead) for name in paths}
    done = 0
    try:
        book.open(again)
        for one in classroom.grade_files(folder, files, chapter, seconds, cell_seconds, jobs, seed, book, sandbox):
            done += 1
            say(f"[{done}/{len(files)}] {one.file}: {one.solved} of {len(one.exercises)} solved. {one.problem}".rstrip())
        book.table()
        column = column or f"Chapter {chapter}"
        made = _for_the_teacher(book, chapter, whose, instead, people, format, column, fence.words(sandbox))
    except OSError as error:
        refuse(f"the results cannot be written to {out}: {error.strerror or error}; {done} of {len(files)} are done, and "
               f"{how_on}")
    except KeyboardInterrupt:
        say(f"stopped: {done} of {len(files)} are graded, see {out / 'grades.csv'}; {how_on}")
        raise typer.Exit(130) from None
    total = len(checks.chapter(chapter))
    grades = sorted(book.grades.values(), key=lambda grade: grade.file)
    rows = []
    for one in grades:
        said = "; ".join(filter(None, [book.notes.get(one.file, ""), one.problem]))
        rows.append((one.file, book.who[one.file][1], f"{one.solved}/{total}", f"{percent(one, weighing):g} %", said))
    table(f"Chapter {chapter}", ["file", "name", "solved", "mark", "problem"], rows)
    if others := classroom.skipped(folder, files):
        say(f"{len(others)} files are no notebooks and were skipped: {', '.join(others[:10])}{' …' if len(others) > 10 else ''}")
    if people and (unknown := [name for name, one in whose.items() if one.person is None]):
        say(f"{len(unknown)} files belong to nobody of the class list for sure: {', '.join(unknown[:10])}"
            f"{' …' if len(unknown) > 10 else ''}")
    say(f"Fence: {fence.words(sandbox)}")
    say(f"Table: {out / 'grades.csv'}  Feedback: {out / 'feedback'}  The class: {out / 'index.html'}"
        f"{f'  To import: {made}' if made else ''}")


def _for_the_teacher(
    book: Any, chapter: str, whose: Any, instead: Any, people: Any, kind: str, column: str, fence: str
) -> Path | None:
    """The page of the class, and the table for import if one was asked for."""
    from ...files import write
    from ..grading import school
    from ..grading.overview import overview

    grades = list(book.grades.values())
    there = {one.person.id for one in whose.values() if one.person}
    missing = [one.name or one.id for one in people if one.id not in there]
    names = {name: who[1] for name, who in book.who.items()}
    write(book.out / "index.html", overview(grades, chapter, book.weights, names, book.notes, instead, missing, fence))
    return school.export(kind, book.out, grades, whose, instead, people, book.weights, column) if kind else None


def _agree(folder: Path, files: list[Path], chapter: str, yes: bool) -> None:
    """Say what was found, and where it lies on several levels ask before other people's code is run."""
    from ..grading import classroom

    about = [classroom.chapters_of(path) for path in files]
    mine, none = sum(chapter in found for found in about), sum(not found for found in about)
    others = len(files) - mine - none
    say(f"{counted(len(files), 'notebook')} in {folder}: {mine} of chapter {chapter}, {others} of other chapters, {none} of none "
        "(those are not run).")
    deep = any(len(path.relative_to(folder).parts) > 2 for path in files)
    if deep and not yes:
        if not sys.stdin.isatty():
            refuse("the notebooks lie on several levels of folders; say --yes if it is the right folder")
        typer.confirm("They lie on several levels of folders. Run them all?", abort=True)


def start(
    folder: Annotated[Path, typer.Argument(help="A folder of your own; it is made if need be.")],
    solutions: Annotated[bool, typer.Option("--solutions", help="Copy the solutions too.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite notebooks that are there already.")] = False,
) -> None:
    """Copy the workbook to a folder in which you can work. Files that are there already are kept.

    Example: `fl-course start my-course`
    """
    from . import places

    writable(folder)
    written, kept = places.copy_workbook(folder, solutions, force)
    say(f"{counted(written, 'notebook')} copied to {folder}")
    if kept:
        say(f"{len(kept)} were there already and stay as they are (--force overwrites them)")
    named = f'"{folder}"' if " " in str(folder) else folder
    say(f"Next: fl-course lab --dir {named}")
    if shutil.which("fl-course") is None:
        say(f"(Your terminal does not know fl-course: it is in {Path(sys.executable).parent}; or say python3 course.py for it.)")


def lab(
    context: typer.Context,
    folder: Annotated[Path | None, typer.Option("--dir", help="Folder made by `fl-course start`.")] = None,
) -> None:
    """Open JupyterLab on the first notebook. Further options go to JupyterLab, e.g. --no-browser.

    Example: `fl-course lab --dir my-course`
    """
    from . import places
    from .orphans import hand_over, watched_server

    root = folder or places.here()
    if root.is_relative_to(places.PACKAGE):   # the installed copy: work on one of your own
        root = Path.cwd() / "my-course"
        places.copy_workbook(root)
    first = next(iter(sorted((root / "notebooks").glob("[0-9]*.ipynb"))), None)
    if first is None:
        refuse(f"there are no notebooks in {root / 'notebooks'}; make a copy: fl-course start {root}")
    command = [sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={root.resolve()}", *context.args]
    environment = {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    with watched_server() as watched:
        code = hand_over([*command, str(first.resolve())], {**environment, **watched})
    raise typer.Exit(code)


def judge(
    file: Annotated[Path, typer.Argument(help="A file of Python with the nine functions, as the template my_fl.py.")],
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of the inputs. Default: new ones each time.")] = None,
) -> None:
    """Judge a library of your own, part by part, by the checks of chapters 1 to 5. `start` puts its template, my_fl.py, beside
    the exercises; those of chapter 10 say what is asked.

    Example: `fl-course judge my-course/exercises/my_fl.py`
    """
    import numpy as np

    from .. import own

    try:
        verdict = own.judge(file, np.random.default_rng(seed))
    except ValueError as error:
        refuse(str(error))
    say(repr(verdict))
    raise typer.Exit(int(not verdict.passed))


def doctor() -> None:
    """Say what is installed, what is wrong with it, and how to mend it.

    Example: `fl-course doctor`
    """
    from . import doctor as doctoring

    raise typer.Exit(doctoring.main())


def test() -> None:
    """Run every test of the repository: sources against notebooks, unit tests, notebooks by nbval.

    Example: `fl-course test`
    """
    from . import places, validate

    root = places.checkout()
    if root is None:
        refuse("the tests are in the repository, not in the installed package; fl-course check runs the notebooks")
    pytest = [sys.executable, "-m", "pytest", "-q"]
    built = [folder for folder in ("notebooks", "solutions") if any((root / folder).glob("*.ipynb"))]
    steps = [[sys.executable, "tools/build_notebooks.py", "--check"], pytest]
    steps += [[*pytest, *validate.arguments(), *built]] if built else []
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "FL_COURSE_STRICT": "1"}
    codes = [subprocess.call(step, cwd=root, env=environment) for step in steps]
    raise typer.Exit(int(any(codes)))
