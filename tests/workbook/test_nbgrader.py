"""nbgrader, the real thing: its assignment, its autograder and its gradebook give the marks that ours give.

FL_COURSE_NBGRADER names a Python that has nbgrader (in an environment of its own: `pip install nbgrader`); the notebooks run in a
kernel of this one. Without it, what the built notebooks carry is compared with what nbgrader's documentation asks for.
"""

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from workbook_fixtures import ROOT, built

from fl_course.workbook.grading import checks, classroom

pytestmark = pytest.mark.timeout(900)
PYTHON = os.environ.get("FL_COURSE_NBGRADER", "")
BUILT = [(ROOT, path.name) for path in sorted((ROOT / "exercises").glob("[0-9]*.ipynb"))]


def cells(root, folder, name="99_tiny.ipynb"):
    return json.loads((root / folder / name).read_text(encoding="utf-8"))["cells"]


def tagged(found, tag):
    return [cell for cell in found if tag in cell["metadata"].get("tags", ()) and cell["cell_type"] == "code"]


# --- what the notebooks carry ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("root", "name"), [(None, "99_tiny.ipynb"), *BUILT])
@pytest.mark.parametrize("folder", ["exercises", "solutions"])
def test_every_check_is_a_locked_test_worth_a_point(root, name, folder):
    found = cells(root or built(), folder, name)
    names = [exercise.name for exercise in checks.chapter(name[:2])]
    tests = [cell["metadata"]["nbgrader"] for cell in tagged(found, "check")]
    assert [test["grade_id"] for test in tests] == [f"check-{one.replace('.', '-')}" for one in names]
    for test in tests:
        assert (test["grade"], test["locked"], test["solution"], test["task"]) == (True, True, False, False)
        assert test["points"] == 1
    every = [cell["metadata"]["nbgrader"] for cell in found if "nbgrader" in cell["metadata"]]
    ids = [one["grade_id"] for one in every]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[\w-]+", one["grade_id"]) and one["schema_version"] == 3 for one in every)
    answers = [one for one in every if one["solution"]]
    assert all(not one["grade"] and not one["locked"] and "points" not in one for one in answers)
    assert [cell["metadata"]["nbgrader"] for cell in tagged(found, "exercise")] == answers
    assert len(answers) == len(names)


@pytest.mark.parametrize("how", ["autograde", "validate"])
def test_under_nbgrader_a_check_is_an_error_or_a_word(monkeypatch, capsys, how):
    monkeypatch.delenv("FL_COURSE_STRICT", raising=False)
    assert not checks.check("99.clip", len).passed
    monkeypatch.setenv("NBGRADER_EXECUTION", how)
    for wrong in (len, checks.find("99.clip").solution, "not a function"):
        with pytest.raises(checks.CheckFailed):
            checks.check("99.clip", wrong)

    def clip(delta, bound):
        print("a warning that nbgrader would take for an error", file=sys.stderr)
        return delta * min(1, bound / (delta @ delta) ** 0.5)

    assert checks.check("99.clip", clip) is None, "a value would be read as a part of the point"
    said = capsys.readouterr()
    assert "PASS" in said.out
    assert not said.err


# --- the real thing --------------------------------------------------------------------------------------------------


def nbgrader(course, *words):
    place = os.pathsep.join([str(Path(PYTHON).parent), os.environ["PATH"]])      # it calls alembic by its name
    jupyter = {f"JUPYTER_{name}": str(course / "jupyter") for name in ("CONFIG_DIR", "DATA_DIR", "RUNTIME_DIR", "PATH")}
    kept = {name: value for name, value in os.environ.items() if name not in ("FL_COURSE_STRICT", "PYTHONPATH")}
    done = subprocess.run([PYTHON, "-m", "nbgrader", *words], cwd=course, capture_output=True, text=True, check=False,
                          env={**kept, **jupyter, "PATH": place})  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stderr


def hand_in(course, name, found, sheet="99_tiny.ipynb"):
    path = course / "submitted" / name / "ps1" / sheet
    path.parent.mkdir(parents=True)
    about = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    path.write_text(json.dumps({"cells": found, "metadata": about, "nbformat": 4, "nbformat_minor": 5}), encoding="utf-8")


def released_from(course, path):
    """What nbgrader hands out of a notebook, by cells; its kernel is this Python."""
    kernel = course / "jupyter" / "kernels" / "python3" / "kernel.json"
    kernel.parent.mkdir(parents=True)
    start = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    variables = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
    kernel.write_text(json.dumps({"argv": start, "display_name": "course", "language": "python", "env": variables}))
    place = course / "source" / "ps1"
    place.mkdir(parents=True)
    (place / path.name).write_bytes(path.read_bytes())
    nbgrader(course, "generate_assignment", "ps1", "--create")
    return cells(course / "release", "ps1", path.name)


def with_answers(found, sources):
    found = json.loads(json.dumps(found))
    for cell, text in zip(tagged(found, "exercise"), sources, strict=True):
        cell["source"] = text
    return found


def both_marks(course, chapter):
    """(nbgrader's, ours): student → (points, of how many)."""
    nbgrader(course, "autograde", "ps1")
    nbgrader(course, "export")
    with (course / "grades.csv").open(encoding="utf-8", newline="") as file:
        theirs = {row["student_id"]: (float(row["score"]), float(row["max_score"])) for row in csv.DictReader(file)}
    box = course / "submitted"
    graded = classroom.grade_files(box, classroom.submissions(box), chapter)
    return theirs, {Path(one.file).parts[0]: (one.solved, len(one.exercises)) for one in graded}


REAL = pytest.mark.skipif(not PYTHON, reason="FL_COURSE_NBGRADER names no Python with nbgrader")


@pytest.mark.slow
@REAL
@pytest.mark.parametrize("source", ["solutions", "exercises"])
def test_the_marks_are_ours(tmp_path, source):
    released = released_from(tmp_path, built() / source / "99_tiny.ipynb")
    right = tagged(cells(built(), "solutions"), "exercise")
    stubs = [cell["source"] for cell in tagged(cells(built(), "exercises"), "exercise")]
    bare = [["# YOUR CODE HERE\n", "raise NotImplementedError()"]] * 3    # nbgrader empties a cell in which it finds no marker
    assert [cell["source"] for cell in tagged(released, "exercise")] == (stubs if source == "solutions" else bare)
    assert not any("rng.choice" in "".join(cell["source"]) for cell in released)

    def answers(sources, name, change=None):
        found = with_answers(released, sources)
        hand_in(tmp_path, name, change(found) if change else found)

    def boast(found):
        for cell in tagged(found, "check"):
            cell["source"] = "print('PASS')"
        return found

    solved = [cell["source"] for cell in right]
    speak = "warnings.warn('!'); print('?', file=sys.stderr); norm = "
    noisy = "import sys, warnings\n" + "".join(solved[2]).replace("norm = ", speak)
    borrowed = "from fl_course.workbook.grading.checks import find\nclip = find('99.clip').solution"
    answers(solved, "right")
    answers(stubs, "stub")
    answers([solved[0], stubs[1], solved[2]], "half")
    answers([solved[0], solved[1], "def clip(delta, bound):\n    return delta"], "wrong")
    answers([solved[0], "def sample_clients(:", noisy], "noisy")
    answers([solved[0], "raise SystemExit", borrowed], "borrowed")
    answers(stubs, "boasts", boast)
    hand_in(tmp_path, "own-copy", cells(built(), "solutions"))
    hand_in(tmp_path, "own-stubs", cells(built(), "exercises"))
    theirs, ours = both_marks(tmp_path, "99")
    assert theirs == ours
    assert {name: mark[0] for name, mark in ours.items()} == {
        "right": 3, "stub": 0, "half": 2, "wrong": 2, "noisy": 2, "borrowed": 1, "boasts": 0, "own-copy": 3, "own-stubs": 0,
    }  # fmt: skip


@pytest.mark.slow
@REAL
@pytest.mark.parametrize("name", ["01_fedavg.ipynb", "05_compression.ipynb"])   # minutes each
def test_the_marks_of_a_real_chapter_are_ours(tmp_path, name):
    right, stubs = ([cell["source"] for cell in tagged(cells(ROOT, folder, name), "exercise")]
                    for folder in ("solutions", "exercises"))  # fmt: skip
    released = released_from(tmp_path, ROOT / "solutions" / name)
    assert [cell["source"] for cell in tagged(released, "exercise")] == stubs
    half = [pair[i % 2] for i, pair in enumerate(zip(right, stubs, strict=True))]
    for student, found in {"right": with_answers(released, right), "empty": released, "half": with_answers(released, half),
                           "own-copy": cells(ROOT, "solutions", name), "own-stubs": cells(ROOT, "exercises", name)}.items():
        hand_in(tmp_path, student, found, name)
    theirs, ours = both_marks(tmp_path, name[:2])
    assert theirs == ours
    every = len(right)
    assert {student: mark[0] for student, mark in ours.items()} == {
        "right": every, "empty": 0, "half": (every + 1) // 2, "own-copy": every, "own-stubs": 0,
    }  # fmt: skip
