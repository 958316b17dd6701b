"""Grading: thirty notebooks of all kinds get the marks they deserve, and nobody pays for another one's mistakes."""

import csv
import json
import os
import re
import subprocess
import sys

import pytest
from workbook_fixtures import built

from fl_course.workbook.grading import checks, classroom
from fl_course.workbook.grading.gradebook import Gradebook
from fl_course.workbook.grading.intake import code_cells

pytestmark = pytest.mark.timeout(1200)       # thirty processes: on a busy machine that takes its time

CHAPTER = checks.chapter("99")
DEFINITION = {exercise.name: f"def {exercise.solution.__name__}(" for exercise in CHAPTER}
WRONG = {
    "plain_mean": "def weighted_average(updates, counts):\n    return updates.mean(axis=0)",
    "forgot_to_divide": "def weighted_average(updates, counts):\n    return np.asarray(counts) @ updates",
    "with_replacement": "def sample_clients(clients, count, rng):\n    return rng.choice(clients, size=count)",
    "always_the_first": "def sample_clients(clients, count, rng):\n    return np.arange(count)",
    "clip_always": "def clip(delta, bound):\n    return delta * (bound / np.linalg.norm(delta))",
    "clip_in_place": "def clip(delta, bound):\n    delta *= min(1, bound / np.linalg.norm(delta))\n    return delta",
}
CLIP = {                                      # what one student wrote instead of clip(): the other two stay solved
    "loop_outside": "while True:\n    pass",
    "loop_inside": "def clip(delta, bound):\n    while True:\n        pass",
    "sleep": "import time\ntime.sleep(1000)",
    "deaf": "import time\nwhile True:\n    try:\n        time.sleep(0.02)\n    except BaseException:\n        pass",
    "exit": "import os\nos._exit(0)",
    "segfault": "import ctypes\nctypes.string_at(0)",
    "sys_exit": "import sys\nsys.exit()",
    "syntax": "def clip(delta, bound:\n    return",
    "raises": "def clip(delta, bound):\n    return 1 / 0",
    "asks": "clip = input('which function? ')",
    "network": "import socket\nsocket.create_connection(('192.0.2.1', 80), timeout=60)",
    "name_server": "import socket\nsocket.getaddrinfo('example.org', 80)",
    "shell": "!echo hello\nimport subprocess\nsubprocess.run(['echo'])",
    "borrowed": "from fl_course.workbook.grading.checks import find\nclip = find('99.clip').solution",
    "boasts": "print('PASS 99.clip')\ncheck = lambda name, fn: 'PASS'\ndef clip(delta, bound):\n    return delta",
    "flood": "while True:\n    print('x' * 10_000)",
}


def change(cells, old, new):
    """The cells with the one that contains `old` replaced."""
    changed = [dict(cell, source=new) if old in "".join(cell["source"]) else cell for cell in cells]
    assert changed != cells
    return changed


def holding(notebook, text):
    """(number, cell) of the one that contains `text`."""
    return next((i, cell) for i, cell in enumerate(notebook["cells"], start=1) if text in "".join(cell["source"]))


def hand_in(folder, name, notebook, cells):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**notebook, "cells": cells}), encoding="utf-8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Thirty submissions."""
    folder = tmp_path_factory.mktemp("handed-in")
    right = json.loads((built() / "solutions" / "99_tiny.ipynb").read_text(encoding="utf-8"))
    stub = json.loads((built() / "exercises" / "99_tiny.ipynb").read_text(encoding="utf-8"))
    hand_in(folder, "right.ipynb", right, right["cells"])
    hand_in(folder, "stub.ipynb", stub, stub["cells"])
    for exercise in CHAPTER:
        for mistake in exercise.mistakes:
            name = mistake.fn.__name__
            cells = change(right["cells"], DEFINITION[exercise.name], WRONG[name])
            hand_in(folder, f"wrong_{name}.ipynb", right, cells)
    for name, source in CLIP.items():
        hand_in(folder, f"{name}.ipynb", right, change(right["cells"], DEFINITION["99.clip"], source))
    hand_in(folder, "=Ana's work (2) FINAL.ipynb.txt", right, right["cells"])
    hand_in(folder, "group b/right.ipynb", right, right["cells"])
    hand_in(folder, "no_checks.ipynb", right, [cell for cell in right["cells"] if "check(" not in "".join(cell["source"])])
    solved = [holding(right, DEFINITION[name])[1] for name in ("99.weighted_average", "99.sample_clients")]
    hand_in(folder, "later.ipynb", stub, [*stub["cells"], *solved])
    (folder / "broken.ipynb").write_text('{"cells": [{"cell_type": "code", ', encoding="utf-8")
    (folder / "list.ipynb").write_text("[1, 2]", encoding="utf-8")
    (folder / "notes.txt").write_text("not a submission", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def grades(folder, tmp_path_factory):
    files = classroom.submissions(folder)
    assert len(files) == 30
    out = tmp_path_factory.mktemp("grades")
    book = Gradebook(out, {"chapter": "99"})
    book.open()
    graded = list(classroom.grade_files(folder, files, "99", seconds=9, cell_seconds=2, jobs=2, book=book))
    return {grade.file: grade for grade in graded}, out


@pytest.mark.slow
def test_thirty_submissions_get_the_expected_marks(grades):
    found, _ = grades
    expected = {"right.ipynb": 3, "group b/right.ipynb": 3, "=Ana's work (2) FINAL.ipynb.txt": 3, "no_checks.ipynb": 3}
    expected |= {"stub.ipynb": 0, "broken.ipynb": 0, "list.ipynb": 0, "later.ipynb": 2}
    expected |= {f"wrong_{name}.ipynb": 2 for name in WRONG}
    expected |= {f"{name}.ipynb": 2 for name in CLIP}
    assert {name: grade.solved for name, grade in found.items()} == expected


@pytest.mark.slow
def test_every_stored_mistake_gets_its_own_hint(grades):
    found, _ = grades
    for exercise in CHAPTER:
        for mistake in exercise.mistakes:
            result = found[f"wrong_{mistake.fn.__name__}.ipynb"].exercises[exercise.name]
            assert (result["state"], result["hint"]) == ("fail", mistake.hint)


def clip_cell():
    """The number of the cell in which a student writes clip()."""
    return holding(json.loads((built() / "solutions" / "99_tiny.ipynb").read_text(encoding="utf-8")), DEFINITION["99.clip"])[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("deaf", "stopped after 9 s in cell {cell}"),
        ("exit", "the process ended with code 0 in cell {cell}"),
        ("segfault", "the process ended with code"),
        ("broken", "not a notebook"),
        ("list", "not a notebook"),
        ("loop_outside", ""),
        ("right", ""),
    ],
)
def test_what_befell_the_file_is_said(grades, name, words):
    problem, words = grades[0][f"{name}.ipynb"].problem, words.format(cell=clip_cell())
    assert words in problem if words else problem == ""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("loop_outside", "stopped after 2 s"),
        ("sleep", "stopped after 2 s"),
        ("flood", "stopped after 2 s"),
        ("network", "no network while grading"),
        ("name_server", "no network while grading"),
        ("shell", "no other processes while grading"),
        ("syntax", "SyntaxError"),
        ("asks", "Error"),
    ],
)
def test_what_befell_a_cell_is_said(grades, name, words):
    cells = grades[0][f"{name}.ipynb"].cells
    assert any(words in cell["error"] for cell in cells)
    assert cells[0]["cell"] == clip_cell()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("loop_inside", "did not come back in time"),
        ("raises", "ZeroDivisionError"),
        ("borrowed", "hand in one of your own"),
        ("boasts", "expected"),
    ],
)
def test_what_is_wrong_with_an_answer_is_said(grades, name, words):
    assert words in grades[0][f"{name}.ipynb"].exercises["99.clip"]["message"]


@pytest.mark.slow
def test_table_and_feedback(grades):
    found, out = grades
    with (out / "grades.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(found)
    assert rows[0]["file"] == "'=Ana's work (2) FINAL.ipynb.txt", "a spreadsheet must not take a file name for a formula"
    assert [row["file"] for row in rows[1:]] == sorted(name for name in found if not name.startswith("="))
    (right,) = [row for row in rows if row["file"] == "right.ipynb"]
    assert (right["solved"], right["exercises"], right["percent"], right["99.clip"]) == ("3", "3", "100.0", "pass")
    pages = list((out / "feedback").glob("*.html"))
    assert len(pages) == len(found)
    page = (out / "feedback" / found["wrong_clip_always.ipynb"].page).read_text(encoding="utf-8")
    assert "Short updates are stretched" in page
    assert "2 of 3" in page
    assert not re.search(r"https?://", page)


def test_the_chapter_is_what_most_files_are_about(folder, tmp_path):
    assert classroom.majority_chapter(classroom.submissions(folder)) == "99"
    (tmp_path / "a.ipynb").write_text('{"cells": []}')
    with pytest.raises(ValueError, match="none of 1 files calls a check"):
        classroom.majority_chapter(classroom.submissions(tmp_path))


@pytest.mark.parametrize("data", [b"", b"[]", b'"x"', b'{"cells": 3}', b"[" * 100_000, b"\xff\xfe"])
def test_what_is_not_a_notebook(data):
    assert code_cells(data) is None


def test_odd_cells_do_not_stop_the_reader():
    cells = [3, {"cell_type": "markdown"}, {"cell_type": "code"}, {"cell_type": "code", "source": ["a", "b"]}]
    assert code_cells(json.dumps({"cells": cells}).encode()) == [(3, ""), (4, "ab")]


def test_loopback_stays_open_and_the_rest_is_shut():
    code = (
        "import socket\n"
        "from fl_course.workbook.grading.worker import refuse_network\n"
        "refuse_network()\n"
        "with socket.create_server(('127.0.0.1', 0)) as server:\n"
        "    socket.create_connection(server.getsockname()).close()\n"
        "    socket.getaddrinfo('localhost', 80)\n"
        "for address in ('192.0.2.1', 80), ('2001:db8::1', 80, 0, 0):\n"
        "    family = socket.AF_INET6 if len(address) == 4 else socket.AF_INET\n"
        "    for kind, send in ((socket.SOCK_STREAM, 'connect'), (socket.SOCK_STREAM, 'connect_ex')):\n"
        "        try:\n"
        "            getattr(socket.socket(family, kind), send)(address)\n"
        "        except PermissionError:\n"
        "            continue\n"
        "        raise SystemExit(f'{send} to {address} went through')\n"
        "try:\n"
        "    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('192.0.2.1', 9))\n"
        "except PermissionError:\n"
        "    print('shut')\n"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.stdout.strip() == "shut", done.stderr
