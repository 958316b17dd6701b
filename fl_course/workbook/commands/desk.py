"""The commands of `fl-course` for a reader's and a teacher's desk: start, lab, doctor, grade, test."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from .terminal import OUT, Jobs, refuse, say, table


def grade(
    folder: Annotated[Path, typer.Argument(help="Folder of students' notebooks, whatever their names.")],
    chapter: Annotated[str, typer.Option(help="Chapter, as 01. Default: what most of the files are about.")] = "",
    out: Annotated[Path, OUT] = Path("reports/grades"),
    seconds: Annotated[float, typer.Option(min=1, help="Time limit of one file.")] = 120,
    cell_seconds: Annotated[float, typer.Option(min=0.1, help="Time limit of one cell.")] = 15,
    jobs: Jobs = 2,
    seed: Annotated[int, typer.Option(help="Seed of the inputs, the same for every student.")] = 0,
) -> None:
    """Grade a folder of notebooks: grades.csv, and one page of feedback a student.

    Runs the students' code: without network and other processes, but otherwise as you. For strangers use a container.

    Example: `fl-course grade handed-in --chapter 01 --out grades`
    """
    from ..grading import checks, classroom

    files = classroom.submissions(folder) if folder.is_dir() else []
    if not files:
        refuse(f"there are no notebooks in {folder}")
    try:
        chapter = chapter or classroom.majority_chapter(files)
        checks.chapter(chapter)
    except ValueError as error:               # said before anything runs
        refuse(str(error))
    grades = []
    for one in classroom.grade_files(folder, files, chapter, seconds, cell_seconds, jobs, seed):
        grades.append(one)
        say(f"[{len(grades)}/{len(files)}] {one.file}: {one.solved} of {len(one.exercises)} solved. {one.problem}".rstrip())
    written = classroom.write_grades(grades, out)
    total = len(checks.chapter(chapter))
    grades.sort(key=lambda grade: grade.file)
    rows = [(one.file, f"{one.solved}/{total}", f"{one.percent:g} %", one.problem) for one in grades]
    table(f"Chapter {chapter}", ["file", "solved", "mark", "problem"], rows)
    say(f"Table: {written}  Feedback: {out / 'feedback'}")


def start(
    folder: Annotated[Path, typer.Argument(help="A folder of your own; it is made if need be.")],
    solutions: Annotated[bool, typer.Option("--solutions", help="Copy the solutions too.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite notebooks that are there already.")] = False,
) -> None:
    """Copy the workbook to a folder in which you can work. Files that are there already are kept.

    Example: `fl-course start my-course`
    """
    from . import places

    written, kept = places.copy_workbook(folder, solutions, force)
    say(f"{written} notebooks copied to {folder}")
    if kept:
        say(f"{len(kept)} were there already and stay as they are (--force overwrites them)")
    say(f"Next: fl-course lab --dir {folder}")


def lab(
    context: typer.Context,
    folder: Annotated[Path | None, typer.Option("--dir", help="Folder made by `fl-course start`.")] = None,
) -> None:
    """Open JupyterLab on the first notebook. Further options go to JupyterLab, e.g. --no-browser.

    Example: `fl-course lab --dir my-course`
    """
    from . import places

    root = folder or places.here()
    if root.is_relative_to(places.PACKAGE):   # the installed copy: work on one of your own
        root = Path.cwd() / "my-course"
        places.copy_workbook(root)
    first = next(iter(sorted((root / "notebooks").glob("[0-9]*.ipynb"))), None)
    if first is None:
        refuse(f"there are no notebooks in {root / 'notebooks'}; make a copy: fl-course start {root}")
    command = [sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={root.resolve()}", *context.args]
    environment = {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    raise typer.Exit(subprocess.call([*command, str(first.resolve())], env=environment))


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
