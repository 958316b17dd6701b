"""Grade a folder of students' notebooks: which files there are, what chapter they are about, and one grade each.

Each file has a process and a time limit of its own, so that an endless loop, a crash or a broken file costs that
student's row only. Marks come from our own checks on the students' functions, put in that process; whatever the
notebook prints, and its file name, mean nothing. Who runs the process and what is believed of it: referee.py; what it may
do: worker.py; what is left on the disk: gradebook.py.
"""

from __future__ import annotations

import re
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from . import checks
from .gradebook import Grade, Gradebook
from .referee import Marks, end_all, referee
from .worker import code_cells

MENTION = re.compile(r"""\bcheck\(\s*["'](\d\d)\.[a-z]\w*["']""")
DEFINITION = re.compile(r"^\s*def\s+(\w+)\s*\(", re.MULTILINE)


def submissions(folder: Path) -> list[Path]:
    """The files to grade: everything that is called a notebook or reads like one, in any subfolder."""
    found = []
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        named = ".ipynb" in path.name.lower()
        if not hidden and ((named and not path.is_dir()) or (path.is_file() and _cells(path) is not None)):
            found.append(path)
    return found


def skipped(folder: Path, files: list[Path]) -> list[str]:
    """The other files of the folder, which are not graded: their names, relative to it."""
    known = set(files)
    others = (path for path in sorted(folder.rglob("*")) if not path.is_dir() and path not in known)
    names = (path.relative_to(folder) for path in others)
    return [name.as_posix() for name in names if not any(part.startswith(".") for part in name.parts)]


def chapters_of(path: Path) -> set[str]:
    """The chapters of which a notebook calls a check, or defines a function with the name of an exercise."""
    text = "\n".join(_cells(path) or [])
    named = set(MENTION.findall(text)) & set(checks.chapters())
    if named:
        return named
    functions = set(DEFINITION.findall(text))
    return {n for n in checks.chapters() if functions & {item.solution.__name__ for item in checks.chapter(n)}}


def majority_chapter(files: list[Path]) -> str:
    """The chapter whose checks most files call. ValueError if none of them calls any."""
    votes: Counter[str] = Counter()
    for path in files:
        votes.update(set(MENTION.findall("\n".join(_cells(path) or []))) & set(checks.chapters()))
    if not votes:
        raise ValueError(f"none of {len(files)} files calls a check of this course; name the chapter with --chapter")
    return votes.most_common(1)[0][0]


def grade_files(
    folder: Path, files: list[Path], chapter: str, seconds: float = 120, cell_seconds: float = 15, jobs: int = 2,
    seed: int = 0, book: Gradebook | None = None,
) -> Iterator[Grade]:
    """Grade the files, `jobs` at a time; yields each as it is done. `seconds` a file, `cell_seconds` a cell.

    With an open gradebook each grade is written down before it is yielded, and files that it knows already are not run. Whoever
    stops listening, or interrupts, ends all processes at once; what was yielded is done.
    """
    pool = ThreadPoolExecutor(max(1, jobs))
    try:
        waiting = {}
        for path in files:
            known = book.done(path, path.relative_to(folder).as_posix()) if book else None
            if book and known:
                book.grades[known.file] = known
                yield known
            else:
                waiting[pool.submit(grade_file, path, folder, chapter, seconds, cell_seconds, seed)] = path
        for done in as_completed(waiting):
            grade = done.result()
            if book:
                book.add(grade, waiting[done])
            yield grade
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        end_all()
        pool.shutdown()


def grade_file(path: Path, folder: Path, chapter: str, seconds: float, cell_seconds: float, seed: int) -> Grade:
    """One file in a process of its own."""
    name, start = path.relative_to(folder).as_posix(), time.monotonic()
    names = [item.name for item in checks.chapter(chapter)]
    nothing = Marks("", names).exercises
    try:
        data = path.read_bytes()
    except OSError as error:
        return Grade(name, nothing, 0.0, f"the file cannot be read: {error.strerror or error}")
    cells = code_cells(data)
    if cells is None:
        return Grade(name, nothing, 0.0, "not a notebook: the file cannot be read as JSON with cells")
    about = chapters_of(path)
    if not about:
        return Grade(name, nothing, 0.0, "not run: it calls no check of this course, and defines none of its functions")
    with tempfile.TemporaryDirectory(prefix="fl-course-grade-", ignore_cleanup_errors=True) as work:
        job = {"notebook": str(path.resolve()), "chapter": chapter, "cell_seconds": cell_seconds, "seed": seed}
        marks, problem = referee(job, names, work, seconds)
    if problem and marks.at:
        problem += f" in cell {marks.at}"
    if not problem and chapter not in about:
        problem = f"a notebook of chapter {', '.join(sorted(about))}: none of its checks is of chapter {chapter}"
    return Grade(name, marks.exercises, time.monotonic() - start, problem, marks.cells)


def _cells(path: Path) -> list[str] | None:
    """The sources of a notebook's code cells, or None if the file is not a notebook."""
    try:
        found = code_cells(path.read_bytes())
    except OSError:
        return None
    return None if found is None else [source for _, source in found]
