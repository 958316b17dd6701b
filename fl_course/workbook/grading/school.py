"""Into the school's system: weights of exercises, which of several files of one person counts, and the tables for import.

Moodle (Grades, Import, CSV file) asks which column is whose: map "Email address" or "ID number", and "Grade" to the assignment.
Canvas (Gradebook, Import) knows its own columns Student … Section and takes the sixth for an assignment: name it with --column
as Canvas's own export does, with its number in brackets, or a new one is made. Both get per cent.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ...files import write
from . import checks, intake
from .collect import chapters_of
from .gradebook import Grade, guarded, percent
from .roster import Owner, Person

FORMATS = ("csv", "moodle", "canvas")
BOM = "\ufeff"                                # tells Excel that the file is UTF-8; the two systems need none


def weights_of(chapter: str, asked: str) -> dict[str, float]:
    """What each exercise counts. "" is all the same, "difficulty" what the exercise states, else a CSV of exercise,weight."""
    exercises = checks.chapter(chapter)
    if not asked:
        return {one.name: 1.0 for one in exercises}
    if asked == "difficulty":
        return {one.name: float(one.difficulty) for one in exercises}
    try:
        text = Path(asked).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        said = f"{asked} cannot be read: {getattr(error, 'strerror', None) or error}"
        raise ValueError(f"--weights takes the word difficulty or a CSV of exercise,weight; {said}") from error
    found: dict[str, float] = {}
    delimiter = max(",;\t", key=text.partition("\n")[0].count)
    for number, row in enumerate(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter), start=1):
        if not any(map(str.strip, row)) or (number == 1 and row[0].strip().casefold() == "exercise"):
            continue
        name = row[0].strip()
        name = name if name in {one.name for one in exercises} else f"{chapter}.{name}"
        try:
            value = float(row[1].replace(",", ".") if delimiter != "," else row[1])
        except (IndexError, ValueError) as error:
            said = ",".join(row)[:80]
            raise ValueError(f"{asked}, line {number}: an exercise and a number are needed, not {said!r}") from error
        if name not in {one.name for one in exercises}:
            raise ValueError(f"{asked}, line {number}: no exercise {row[0].strip()!r} in chapter {chapter}")
        if name in found or not math.isfinite(value) or value < 0:
            raise ValueError(f"{asked}, line {number}: {name} is given twice, or its weight is not a number from 0")
        found[name] = value
    missing = [one.name for one in exercises if one.name not in found]
    if missing:
        raise ValueError(f"{asked} has no weight for {', '.join(missing)}")
    if not sum(found.values()) > 0:
        raise ValueError(f"{asked}: all weights are 0, so nobody could have a mark")
    return found


def counting(paths: Mapping[str, Path], whose: Mapping[str, Owner], chapter: str) -> dict[str, str]:
    """File → "" if it counts, else the file that counts in its place: of one person the newest that can be graded.

    Newer is the later attempt that the name states, else the later date of the file.
    """
    groups: dict[str, list[str]] = {}
    for name in paths:
        if whose[name].key:
            groups.setdefault(whose[name].key, []).append(name)
    instead = dict.fromkeys(paths, "")
    for names in groups.values():
        best = max(names, key=lambda name: (_fit(paths[name], chapter), whose[name].attempt, intake.date(paths[name]), name))
        instead.update({name: best for name in names if name != best})
    return instead


def _fit(path: Path, chapter: str) -> int:
    about = chapters_of(path)
    return 2 if chapter in about else 1 if about else 0


def notes(name: str, whose: Mapping[str, Owner], instead: Mapping[str, str]) -> str:
    """What a teacher should know beside the mark: handed in late, or replaced by a newer file."""
    owner = whose.get(name, Owner())
    late = "late" if owner.late else ""
    return "; ".join(filter(None, [late, f"does not count: {instead[name]} is newer" if instead.get(name) else ""]))


def export(
    kind: str, out: Path, grades: Iterable[Grade], whose: Mapping[str, Owner], instead: Mapping[str, str],
    people: Sequence[Person], weights: Mapping[str, float], column: str,
) -> Path:
    """Write the table that the system imports: a row a person. Who handed in nothing has a row without a mark."""
    rows: list[tuple[Person, Owner, Grade | None]] = []
    for grade in sorted(grades, key=lambda one: one.file):
        owner = whose.get(grade.file, Owner())
        if not instead.get(grade.file):
            rows.append((owner.person or Person("", owner.name or grade.file), owner, grade))
    there = {person.id for person, _, _ in rows}
    rows += [(person, Owner(person=person), None) for person in people if person.id not in there]
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    marks = [(person, owner, done, "" if done is None else f"{percent(done, weights):g}") for person, owner, done in rows]
    if kind == "moodle":
        writer.writerow(["ID number", "Full name", "Email address", "Grade", "Feedback comments"])
        for person, _, done, mark in marks:
            writer.writerow([guarded(value) for value in (person.id, person.name, person.email, mark, _comment(done))])
    elif kind == "canvas":
        writer.writerow(["Student", "ID", "SIS User ID", "SIS Login ID", "Section", column])
        writer.writerow(["    Points Possible", "", "", "", "", 100])
        for person, owner, _, mark in marks:
            number = owner.system_id if owner.system == "canvas" else ""
            login = person.email or person.login
            writer.writerow([guarded(value) for value in (person.name, number, person.id, login, "", mark)])
    else:
        text.write(BOM)
        writer.writerow(["id", "name", "email", "percent", "solved", "file", "note"])
        for person, _, done, mark in marks:
            solved, file = (done.solved, done.file) if done else ("", "")
            note = notes(done.file, whose, instead) if done else "nothing handed in"
            writer.writerow([guarded(value) for value in (person.id, person.name, person.email, mark, solved, file, note)])
    path = out / {"csv": "marks.csv"}.get(kind, f"{kind}.csv")
    write(path, text.getvalue())
    return path


def _comment(grade: Grade | None) -> str:
    return "" if grade is None else f"{grade.solved} of {len(grade.exercises)} exercises solved"
