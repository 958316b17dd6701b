"""Grade a folder of students' notebooks: grades.csv, and one page of feedback each.

Each file has a process and a time limit of its own, so that an endless loop, a crash or a broken file costs that
student's row only. Marks come from our own checks on the student's functions, put in that process; whatever the
notebook prints, and its file name, mean nothing. What that process may do: `worker`.
"""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from . import checks
from .cards import card
from .worker import code_cells

MENTION = re.compile(r"""\bcheck\(\s*["'](\d\d)\.[a-z]\w*["']""")
STARTING = 300                                # seconds in which a worker must have imported what it needs


@dataclass(frozen=True)
class Grade:
    """What one file is worth: state and message of every exercise of the chapter."""

    file: str                                 # relative to the folder
    exercises: dict[str, dict[str, str]]      # name -> state, message, hint
    seconds: float
    problem: str = ""                         # of the file as a whole
    cells: list[dict[str, Any]] = field(default_factory=list)    # cells that ended in an error

    @property
    def solved(self) -> int:
        return sum(found["state"] == "pass" for found in self.exercises.values())

    @property
    def percent(self) -> float:
        return round(100 * self.solved / max(1, len(self.exercises)), 1)


def submissions(folder: Path) -> list[Path]:
    """The files to grade: everything that is called a notebook or reads like one, in any subfolder."""
    found = []
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.is_file() and not hidden and (".ipynb" in path.name.lower() or _cells(path) is not None):
            found.append(path)
    return found


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
    seed: int = 0,
) -> Iterator[Grade]:
    """Grade the files, `jobs` at a time; yields each as it is done. `seconds` a file, `cell_seconds` a cell."""
    with ThreadPoolExecutor(max(1, jobs)) as pool:
        waiting = [pool.submit(grade_file, path, folder, chapter, seconds, cell_seconds, seed) for path in files]
        for done in as_completed(waiting):
            yield done.result()


def grade_file(path: Path, folder: Path, chapter: str, seconds: float, cell_seconds: float, seed: int) -> Grade:
    """One file in a process of its own."""
    name, start = path.relative_to(folder).as_posix(), time.monotonic()
    blank = {item.name: {"state": "todo", "message": "no answer found", "hint": ""} for item in checks.chapter(chapter)}
    if _cells(path) is None:
        return Grade(name, blank, 0.0, "not a notebook: the file cannot be read as JSON with cells")
    with tempfile.TemporaryDirectory(prefix="fl-course-grade-", ignore_cleanup_errors=True) as work:
        result = Path(work, "result.json")
        job = {"notebook": str(path.resolve()), "chapter": chapter, "result": str(result), "cell_seconds": cell_seconds}
        problem = _run_worker({**job, "seed": seed}, work, seconds)
        found = _read(result) or {"exercises": blank, "cells": [], "at": 0, "finished": False}
    if problem and found["at"]:
        problem += f" in cell {found['at']}"
    asked = set(MENTION.findall("\n".join(_cells(path) or [])))
    if not problem and asked and chapter not in asked:
        problem = f"a notebook of chapter {', '.join(sorted(asked))}: none of its checks is of chapter {chapter}"
    return Grade(name, found["exercises"], time.monotonic() - start, problem, found["cells"])


def _run_worker(job: dict[str, Any], work: str, seconds: float) -> str:
    """Run the worker; what went wrong with it, or nothing."""
    keep = {name: value for name, value in os.environ.items() if name != "FL_COURSE_STRICT"}
    environment = {**keep, "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg", "IPYTHONDIR": work, "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-m", f"{__package__}.worker"]
    with tempfile.TemporaryFile() as said:
        worker = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, cwd=work, env=environment
        )
        late = threading.Timer(STARTING, worker.kill)
        late.start()
        with worker:
            assert worker.stdin is not None
            assert worker.stdout is not None
            worker.stdin.write(json.dumps(job).encode())
            worker.stdin.close()
            worker.stdout.read(1)             # it is ready, or it died
            late.cancel()
            try:
                worker.wait(seconds)
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()
                return f"stopped after {seconds:g} s"
        if worker.returncode == 0 and (_read(Path(job["result"])) or {}).get("finished"):
            return ""
        said.seek(0, os.SEEK_END)
        said.seek(max(0, said.tell() - 2000))
        last = said.read().decode(errors="replace").strip().splitlines()[-1:]
        return " ".join([f"the process ended with code {worker.returncode}", *(f"({line})" for line in last)])


def write_grades(grades: list[Grade], out: Path) -> Path:
    """grades.csv, a row a file in the order of names, and feedback/NAME.html. Returns the path of the table."""
    (out / "feedback").mkdir(parents=True, exist_ok=True)
    names = list(grades[0].exercises) if grades else []
    table = out / "grades.csv"
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "solved", "exercises", "percent", *names, "seconds", "problem"])
        for grade in sorted(grades, key=lambda grade: grade.file):
            states = [grade.exercises[name]["state"] for name in names]
            row = [grade.file, grade.solved, len(names), grade.percent, *states, round(grade.seconds, 1), grade.problem]
            writer.writerow([_cell(value) for value in row])
            page = re.sub(r"[^\w.-]", "_", grade.file) + ".html"
            (out / "feedback" / page).write_text(feedback(grade), encoding="utf-8")
    return table


def feedback(grade: Grade) -> str:
    """The page for one student."""
    parts = [f"<p><b>{grade.solved} of {len(grade.exercises)}</b> exercises solved ({grade.percent:g} %).</p>"]
    if grade.problem:
        parts.append(f"<p><b>The notebook as a whole:</b> {escape(grade.problem)}</p>")
    for name, found in grade.exercises.items():
        hint = f"<div><b>Hint.</b> {escape(found['hint'])}</div>" if found["hint"] else ""
        parts.append(card(found["state"], name, f"<div>{escape(found['message'])}</div>{hint}"))
    errors = "".join(f"<li>cell {cell['cell']}: <code>{escape(cell['error'])}</code></li>" for cell in grade.cells)
    if errors:
        parts.append(f"<p>Cells that ended in an error:</p><ul>{errors}</ul>")
    title = escape(grade.file)
    head = f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{title}</title></head>'
    return f'{head}<body style="font-family:sans-serif;max-width:50em"><h1>{title}</h1>{"".join(parts)}</body></html>\n'


def _cell(value: Any) -> Any:
    """A text that a spreadsheet would take for a formula gets an apostrophe: file names are chosen by students."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t") else value


def _cells(path: Path) -> list[str] | None:
    """The sources of a notebook's code cells, or None if the file is not a notebook."""
    found = code_cells(path.read_bytes())
    return None if found is None else [source for _, source in found]


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
