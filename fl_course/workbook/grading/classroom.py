"""Grade a folder of students' notebooks: which files there are, what chapter they are about, and one grade each.

Each file has a process and a time limit of its own, so that an endless loop, a crash or a broken file costs that
student's row only. Marks come from our own checks on the students' functions; whatever the notebook prints, and its file
name, mean nothing. Who runs the process and what is believed of it: referee.py; what it may do: worker.py; who says what is
solved: judge.py; what is left on the disk: gradebook.py.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from pathlib import Path

from . import checks, fence
from .collect import cells, chapters_of, majority_chapter, skipped, submissions
from .gradebook import Grade, Gradebook
from .referee import Marks, end_all, environment, referee
from .template import Template

__all__ = ["chapters_of", "grade_file", "grade_files", "majority_chapter", "skipped", "submissions"]


def grade_files(
    folder: Path, files: list[Path], chapter: str, seconds: float = 120, cell_seconds: float = 15, jobs: int = 2,
    seed: int = 0, book: Gradebook | None = None, sandbox: bool = False,
) -> Iterator[Grade]:
    """Grade the files, `jobs` at a time; yields each as it is done. `seconds` a file, `cell_seconds` a cell.

    With an open gradebook each grade is written down before it is yielded, and files that it knows already are not run. Whoever
    stops listening, or interrupts, ends all processes at once; what was yielded is done.
    """
    hidden = [folder, *([book.out] if book else [])]
    pool = ThreadPoolExecutor(max(1, jobs))
    free: list[Template] = []                                    # templates that nobody uses now, one a job at most

    def one(path: Path) -> Grade:
        template = None
        if sys.platform == "linux" and not sandbox:
            template = free.pop() if free else Template(chapter, environment("/"))
        try:
            return grade_file(path, folder, chapter, seconds, cell_seconds, seed, hidden, sandbox, template)
        finally:
            if template and template.works:
                free.append(template)
            elif template:
                template.end()

    try:
        waiting = {}
        for path in files:
            known = book.done(path, path.relative_to(folder).as_posix()) if book else None
            if book and known:
                book.keep(known)
                yield known
            else:
                waiting[pool.submit(one, path)] = path
        for done in as_completed(waiting):
            grade = _result(done, waiting[done].relative_to(folder).as_posix(), chapter)
            if book:
                book.add(grade, waiting[done])
            yield grade
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        end_all()
        pool.shutdown()
        for template in free:
            template.end()


def grade_file(
    path: Path, folder: Path, chapter: str, seconds: float, cell_seconds: float, seed: int,
    hidden: Sequence[Path] = (), sandbox: bool = False, template: Template | None = None,
) -> Grade:
    """One file in a process of its own, from which the folders `hidden` are kept; without a sandbox a template may begin it."""
    name, start = path.relative_to(folder).as_posix(), time.monotonic()
    names = [item.name for item in checks.chapter(chapter)]
    nothing = Marks("", names).exercises
    found, said = cells(path)
    if found is None:
        return Grade(name, nothing, 0.0, said)
    about = chapters_of(path)
    if not about:
        return Grade(name, nothing, 0.0, "not run: it calls no check of this course, and defines none of its functions")
    away = [] if sandbox else fence.out_of_sight(hidden)         # in a sandbox they are empty
    job = {"cells": found, "chapter": chapter, "cell_seconds": cell_seconds, "seed": seed, "hidden": away}
    with _workplace() as work:
        marks, problem = referee(job, names, work, seconds, hidden if sandbox else None, template)
    if problem and marks.at:
        problem += f" in cell {marks.at}"
    if not problem and chapter not in about:
        problem = f"a notebook of chapter {', '.join(sorted(about))}: none of its checks is of chapter {chapter}"
    problem = "; ".join(filter(None, [said, problem]))
    up = fence.words(sandbox)
    return Grade(name, marks.exercises, time.monotonic() - start, problem, marks.cells, up)


@contextlib.contextmanager
def _workplace() -> Iterator[str]:
    """A folder for one submission, which is gone afterwards, whatever the submission has made of it."""
    work = tempfile.mkdtemp(prefix=fence.WORK)
    try:
        yield work
    finally:
        with contextlib.suppress(OSError):    # it has removed the folder itself; a file that Windows still holds
            _flatten(work)
        shutil.rmtree(work, ignore_errors=True)


def _flatten(folder: str) -> None:
    """Every folder below it comes up into it, open: a tree may be shut, and deeper than rmtree can go."""
    os.chmod(folder, 0o700)
    name, pending = secrets.token_hex(8), [folder]
    number = itertools.count()
    while pending:
        for entry in list(os.scandir(pending.pop())):
            if entry.is_dir(follow_symlinks=False):
                os.chmod(entry.path, 0o700)
                pending.append(os.path.join(folder, f"{name}-{next(number)}"))
                os.rename(entry.path, pending[-1])


def _result(done: Future[Grade], name: str, chapter: str) -> Grade:
    """The grade; or a row that says so, if we could not make one: one file's trouble is never the class's."""
    try:
        return done.result()
    except Exception as error:
        nothing = Marks("", [item.name for item in checks.chapter(chapter)]).exercises
        return Grade(name, nothing, 0.0, f"not graded, {type(error).__name__}: {str(error)[:200]}")
