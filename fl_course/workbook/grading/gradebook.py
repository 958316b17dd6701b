"""What grading leaves behind: grades.csv, a page of feedback a student, and marks.jsonl, from which a stopped run goes on.

Every file is written when it is known, and so that it is whole or not there (files.py).
"""

from __future__ import annotations

import csv
import datetime
import hashlib
import io
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from html import escape
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ...files import write
from .cards import card
from .intake import read

ABOUT = ("id", "name", "email", "note")       # columns of grades.csv: of the class list, and what is to be known


@dataclass(frozen=True)
class Grade:
    """What one file is worth: state and message of every exercise of the chapter."""

    file: str                                 # relative to the folder
    exercises: dict[str, dict[str, str]]      # name -> state, message, hint
    seconds: float
    problem: str = ""                         # of the file as a whole
    cells: list[dict[str, Any]] = field(default_factory=list)    # cells that ended in an error
    fence: str = ""                           # that stood around it while it ran; empty: it did not run

    @property
    def solved(self) -> int:
        return sum(found["state"] == "pass" for found in self.exercises.values())

    @property
    def page(self) -> str:
        """The name of its page: the file's, in letters that every system takes, and a fingerprint, so that no two files share
        one, however long or alike their names are."""
        word = re.sub(r"[^\w.-]", "_", self.file, flags=re.ASCII)[:60].strip(".") or "_"
        return f"{word}-{hashlib.sha256(self.file.encode('utf-8', 'surrogatepass')).hexdigest()[:12]}.html"


@dataclass
class Gradebook:
    """A folder of results. `settings` is what the marks depend on beside the files; a run with the same goes on.

    What is asked of the table only, as weights and whose a file is, may change between runs.
    """

    out: Path
    settings: dict[str, Any]
    grades: dict[str, Grade] = field(default_factory=dict)       # file -> its grade
    weights: Mapping[str, float] = field(default_factory=dict)   # of exercises; empty: all count the same
    who: Mapping[str, tuple[str, str, str]] = field(default_factory=dict)    # file -> id, name, e-mail
    notes: Mapping[str, str] = field(default_factory=dict)       # file -> late, does not count

    def open(self, again: bool = False) -> None:
        """Try the folder, and read what is done already, unless it shall be done again. OSError if it cannot be written."""
        probe(self.out)
        (self.out / "feedback").mkdir(exist_ok=True)
        if again:
            (self.out / "marks.jsonl").unlink(missing_ok=True)   # what is marked from now on is all that there is to go on from
        self._done = self._read()

    def done(self, path: Path, name: str) -> Grade | None:
        """The grade of this very file, if an earlier run with the same settings came to it."""
        entry = self._done.get(name)
        return entry[1] if entry and entry[0] == fingerprint(path) else None

    def add(self, grade: Grade, path: Path) -> None:
        """Write down one grade: its page, its line, the table."""
        self.keep(grade)
        line = {"settings": self.settings, "print": fingerprint(path), "grade": asdict(grade)}
        with (self.out / "marks.jsonl").open("a", encoding="utf-8", errors="surrogatepass") as file:
            file.write("\n" + json.dumps(line) + "\n")           # a line that a full disk has cut off stays a line of its own
            file.flush()
            os.fsync(file.fileno())                              # table and pages can be made anew of these lines
        self.table()

    def keep(self, grade: Grade) -> None:
        """Take a grade in that is written down already, and write its page."""
        self.grades[grade.file] = grade
        name = self.who.get(grade.file, ("", "", ""))[1]
        page = feedback(grade, self.settings.get("chapter", ""), self.weights, name, self.notes.get(grade.file, ""))
        write(self.out / "feedback" / grade.page, page)

    def table(self) -> Path:
        """grades.csv: a row a file, in the order of names. A spreadsheet that has it open may keep it from being written on
        Windows; then what is known is in marks.jsonl, and the next row writes it."""
        grades = sorted(self.grades.values(), key=lambda grade: grade.file)
        names = list(grades[0].exercises) if grades else []
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        writer.writerow(["file", "solved", "exercises", "percent", *names, "seconds", "problem", "page", "fence", *ABOUT])
        for grade in grades:
            states = [grade.exercises[name]["state"] for name in names]
            mark, about = percent(grade, self.weights), (*self.who.get(grade.file, ("", "", "")), self.notes.get(grade.file, ""))
            row = [grade.file, grade.solved, len(names), mark, *states, round(grade.seconds, 1), grade.problem]
            writer.writerow([guarded(value) for value in (*row, grade.page, grade.fence, *about)])
        try:
            write(self.out / "grades.csv", text.getvalue())
        except PermissionError:
            if os.name != "nt":
                raise
        return self.out / "grades.csv"

    def _read(self) -> dict[str, tuple[str, Grade]]:
        """File -> (fingerprint, grade), from lines of the same settings; lines that are none are passed over."""
        found = {}
        path = self.out / "marks.jsonl"
        for line in path.read_bytes().splitlines() if path.exists() else ():
            try:
                entry = json.loads(line)
                grade = Grade(**entry["grade"])
                if entry["settings"] == self.settings and isinstance(grade.solved, int):
                    found[grade.file] = (str(entry["print"]), grade)
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
                continue
        return found


def fingerprint(path: Path) -> str:
    """Of the bytes of a file; of its name, if it cannot be read."""
    try:
        return hashlib.sha256(read(path)).hexdigest()
    except OSError:
        return f"unreadable {path.name}"


def probe(folder: Path) -> None:
    """Make the folder and try it. OSError if nothing can be written there."""
    trial = folder / f".writable.{os.getpid()}"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        trial.write_bytes(b"?" * 4096)
    finally:
        trial.unlink(missing_ok=True)


def percent(grade: Grade, weights: Mapping[str, float]) -> float:
    """The mark: what the solved exercises weigh, of what all weigh. Without weights all count the same."""
    solved = sum(weights.get(name, 1.0) for name, found in grade.exercises.items() if found["state"] == "pass")
    return round(100 * solved / (sum(weights.get(name, 1.0) for name in grade.exercises) or 1.0), 1)


def feedback(
    grade: Grade, chapter: str = "", weights: Mapping[str, float] = MappingProxyType({}), name: str = "", note: str = ""
) -> str:
    """The page for one student."""
    today = datetime.date.today().isoformat()
    about = f"chapter {escape(chapter)}, " if chapter else ""
    parts = [f"<p>{escape(name + ', ') if name else ''}{about}graded {today}</p>"]
    mark = f"{percent(grade, weights):g} %{', weighted' if len(set(weights.values())) > 1 else ''}"
    parts.append(f"<p><b>{grade.solved} of {len(grade.exercises)}</b> exercises solved ({mark}).</p>")
    if note:
        parts.append(f"<p><b>Note:</b> {escape(note)}</p>")
    if grade.problem:
        parts.append(f"<p><b>The notebook as a whole:</b> {escape(grade.problem)}</p>")
    for exercise, found in grade.exercises.items():
        hint = f"<div><b>Hint.</b> {escape(found['hint'])}</div>" if found["hint"] else ""
        parts.append(card(found["state"], exercise, f"<div>{escape(found['message'])}</div>{hint}"))
    errors = "".join(f"<li>cell {cell['cell']}: <code>{escape(cell['error'])}</code></li>" for cell in grade.cells)
    if errors:
        parts.append(f"<p>Cells that ended in an error:</p><ul>{errors}</ul>")
    if grade.fence:
        parts.append(f"<p><small>It ran behind this fence: {escape(grade.fence)}.</small></p>")
    title = escape(grade.file)
    head = f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{title}</title></head>'
    return f'{head}<body style="font-family:sans-serif;max-width:50em"><h1>{title}</h1>{"".join(parts)}</body></html>\n'


def mistakes(grades: Sequence[Grade]) -> list[tuple[str, str, int]]:
    """(exercise, hint, how many students) of what went wrong, the commonest first: what to talk about in class."""
    counts: dict[tuple[str, str], int] = {}
    for grade in grades:
        for name, found in grade.exercises.items():
            if found["state"] == "fail":
                key = (name, found["hint"] or "another mistake")
                counts[key] = counts.get(key, 0) + 1
    return [(name, hint, count) for (name, hint), count in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))]


def guarded(value: Any) -> Any:
    """A text that a spreadsheet would take for a formula gets an apostrophe: file names are chosen by students."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value
