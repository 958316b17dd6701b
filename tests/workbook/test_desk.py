"""The teacher's desk: whatever is handed in, the class ends with one row a file, and nothing that is done is lost."""

import csv
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from workbook_fixtures import built

from fl_course.workbook.grading import checks, classroom
from fl_course.workbook.grading.compare import same
from fl_course.workbook.grading.gradebook import Grade, Gradebook, feedback, mistakes
from fl_course.workbook.grading.referee import Marks, end, environment
from fl_course.workbook.grading.template import Template

pytestmark = pytest.mark.timeout(600)
NAMES = [exercise.name for exercise in checks.chapter("99")]


def notebook(*sources):
    return json.dumps({"cells": [{"cell_type": "code", "source": source} for source in sources]})


ANSWER = """
import numpy as np
def clip(delta, bound):
    return delta * min(1, bound / np.linalg.norm(delta))
check("99.clip", clip)
"""
EVERYWHERE = """
import os
for fd in range(3, 64):
    try:
        os.write(fd, {!r})
    except OSError:
        pass
"""
START = "from fl_course.workbook import check"


def graded(tmp_path, *sources, seconds=20.0):
    path = tmp_path / "one.ipynb"
    path.write_text(notebook(*sources), encoding="utf-8")
    return classroom.grade_file(path, tmp_path, "99", seconds, 4.0, 0)


# --- a submission cannot mark itself ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_an_honest_one(tmp_path):
    grade = graded(tmp_path, START, ANSWER)
    assert grade.solved == 1
    assert not grade.problem


PASSES = json.dumps({"exercises": {name: {"state": "pass", "message": "", "hint": ""} for name in NAMES}, "finished": True})


@pytest.mark.slow
@pytest.mark.parametrize("trick", [
    "open('result.json', 'w').write('[1]')\nimport os\nos._exit(0)",
    f"open('result.json', 'w').write({PASSES!r})\nimport os\nos._exit(0)",
    EVERYWHERE.format(f"\n{PASSES}\n".encode()),
    EVERYWHERE.format(b"garbage without an end"),
])  # fmt: skip
def test_a_submission_does_not_mark_itself(tmp_path, trick):
    grade = graded(tmp_path, START, f"# check(\"99.clip\", clip)\n{trick}")
    assert grade.solved == 0
    assert set(grade.exercises) == set(NAMES)


@pytest.mark.slow
def test_garbage_on_its_channel_costs_nobody_anything(tmp_path):
    assert graded(tmp_path, START, EVERYWHERE.format(b"no end"), ANSWER).solved == 1


@pytest.mark.slow
def test_shell_commands_are_passed_over_and_the_names_of_the_cell_are_there(tmp_path):
    grade = graded(tmp_path, "!pip install numpy\nfrom fl_course.workbook import check\nfiles = !ls", ANSWER)
    assert grade.solved == 1
    assert "was not run" in grade.cells[0]["error"]


@pytest.mark.slow
@pytest.mark.parametrize(("magics", "named"), [
    ("%matplotlib inline\n%config InlineBackend.figure_format = 'svg'\n%load_ext autoreload\n%autoreload 2", []),
    ("%matplotlib widget\n%matplotlib notebook\n%autosave 60", ["%autosave 60"]),
])  # fmt: skip
def test_what_only_a_notebooks_own_page_can_do_stops_no_cell(tmp_path, magics, named):
    grade = graded(tmp_path, START, f"{magics}\n{ANSWER}")
    assert grade.solved == 1
    assert [cell["error"].split(": ")[1] for cell in grade.cells] == named


@pytest.mark.slow
def test_an_error_under_a_magic_and_a_magic_called_wrongly_are_still_errors(tmp_path):
    inside = "def f():\n    y = 3\n    %time y + x\nf()"
    grade = graded(tmp_path, START, f"%time 1/0\n{ANSWER}", "%load_ext", inside)
    assert grade.solved == 0
    assert [cell["error"].split(":")[0] for cell in grade.cells] == ["ZeroDivisionError", "UsageError", "NameError"]
    assert "'x'" in grade.cells[2]["error"], "the names of the function are there"


@pytest.mark.slow
def test_of_a_loop_over_shell_commands_the_first_few_are_named(tmp_path):
    cells = ["for i in range(9000):\n    !true", *["for i in range(9000):\n    get_ipython().system(str(i))"] * 2]
    grade = graded(tmp_path, START, *cells, *["x = 1"] * 150, ANSWER, seconds=60)
    assert (grade.solved, grade.problem) == (1, "")
    assert [cell["cell"] for cell in grade.cells] == [2, *[3] * 20, *[4] * 20]


@pytest.mark.skipif(os.name != "posix", reason="names of folders that long")
def test_a_tree_that_is_deep_and_shut_costs_no_marks_and_is_gone_afterwards(tmp_path, monkeypatch):
    def referee(job, names, work, *rest):
        home = os.open(".", os.O_RDONLY)
        os.chdir(work)
        for _ in range(3000):
            os.mkdir("deep")
            os.chdir("deep")
        os.mkdir("shut", 0)
        os.symlink(tmp_path, "link")
        os.fchdir(home)
        os.close(home)
        os.chmod(work, 0)
        places.append(Path(work))
        return Marks("", names), ""

    places = []
    monkeypatch.setattr(classroom, "referee", referee)
    grade = graded(tmp_path, START, ANSWER)
    assert not grade.problem
    assert not places[0].exists()
    assert (tmp_path / "one.ipynb").exists(), "a link is removed, not what it leads to"


@pytest.mark.slow
def test_a_changed_open_stops_no_later_cell(tmp_path):
    assert graded(tmp_path, START, "import builtins, sys\nbuiltins.open = None\nsys.stdout.close()", ANSWER).solved == 1


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="processes are found by /proc")
def test_nothing_that_it_started_lives_on(tmp_path, monkeypatch):
    monkeypatch.setenv("FL_MARK", f"desk-{os.getpid()}")
    spawn = (
        "import multiprocessing, time, os\n"
        "for start in (lambda: multiprocessing.get_context('spawn').Process(target=time.sleep, args=(77,)).start(),\n"
        "              lambda: os.fork() or time.sleep(77)):\n"
        "    try:\n        start()\n    except BaseException as error:\n        print(error)\n"
    )
    grade = graded(tmp_path, START, spawn, ANSWER)
    assert grade.solved == 1
    assert not [path for path in Path("/proc").glob("[0-9]*/environ") if f"FL_MARK=desk-{os.getpid()}" in _read(path)]


def _read(path):
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


WORDS = [*["exercises", "cells", "at", "finished", "state", "message", "hint", "cell", "error"], *NAMES]


@given(st.binary(max_size=200) | st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=9) | st.integers(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(
        st.sampled_from(WORDS), inner, max_size=6),
    max_leaves=12,
).map(lambda value: json.dumps(value).encode()))  # fmt: skip
def test_whatever_comes_back_is_a_grade(line):
    marks = Marks("w", NAMES)
    marks.hear(line)
    grade = Grade("a", marks.exercises, 0.0, "", marks.cells)
    assert set(grade.exercises) == set(NAMES)
    assert 0 <= grade.solved <= len(NAMES)
    assert isinstance(marks.at, int)
    assert feedback(grade).endswith("</html>\n")


LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a template divides on Linux")
ESCAPES = """
import ctypes, os, time
libc = ctypes.CDLL(None)
if libc.fork() == 0:
    libc.setsid()
    if libc.fork() == 0:
        time.sleep(77)
    os._exit(0)
"""


@LINUX
@pytest.mark.slow
def test_what_leaves_its_session_is_killed_too(tmp_path, monkeypatch):
    monkeypatch.setenv("FL_MARK", f"escapes-{os.getpid()}")
    for name in "ab":
        (tmp_path / f"{name}.ipynb").write_text(notebook(START, ESCAPES, ANSWER))
    files = classroom.submissions(tmp_path)
    assert [grade.solved for grade in classroom.grade_files(tmp_path, files, "99", jobs=1)] == [1, 1]
    assert not [path for path in Path("/proc").glob("[0-9]*/environ") if f"FL_MARK=escapes-{os.getpid()}" in _read(path)]


@LINUX
@pytest.mark.slow
def test_a_template_that_died_is_replaced(tmp_path):
    template = Template("99", environment("/"))
    with tempfile.TemporaryFile() as said:
        worker = template.begin(str(tmp_path), said)
        with pytest.raises(subprocess.TimeoutExpired):
            worker.wait(0.1)
        template.process.kill()
        assert worker.wait(20) == -signal.SIGKILL
        assert not template.works
        end(worker)
        assert template.begin(str(tmp_path), said) is None
    (tmp_path / "a.ipynb").write_text(notebook(START, ANSWER))
    assert classroom.grade_file(tmp_path / "a.ipynb", tmp_path, "99", 20, 5, 0, (), False, template).solved == 1
    template.end()
    worker.stdin.close()
    worker.stdout.close()


# --- with our own eyes -----------------------------------------------------------------------------------------------


class Yes:
    def __eq__(self, other):
        return True

    def __ne__(self, other):
        return False

    __hash__ = None

    def __len__(self):
        return 3

    def __iter__(self):
        return iter([Yes()] * 3)


class YesText(str):
    __slots__ = ()

    def __eq__(self, other):
        return True

    __hash__ = str.__hash__


@pytest.mark.parametrize("expected", [
    3, 2.5, "word", b"x", None, [1, 2, 3], (1, 2.0), np.ones(3), {"a": 1}, {1, 2}, True, object(),
])  # fmt: skip
@pytest.mark.parametrize("given_", [Yes(), [Yes()] * 3, (Yes(), Yes()), {"a": Yes()}, YesText("other")])
def test_an_object_that_says_it_is_equal_is_not(given_, expected):
    assert not same(given_, expected)


# --- nothing is lost -------------------------------------------------------------------------------------------------


def entry(name, state="pass", hint=""):
    return Grade(name, {one: {"state": state, "message": "m", "hint": hint} for one in NAMES}, 1.0)


@given(st.lists(st.text(alphabet="aAbB _-./é日=\n", min_size=1, max_size=300), min_size=2, max_size=8, unique=True))
def test_no_two_files_share_a_page(names):
    pages = [entry(name).page for name in names]
    assert len({page.casefold() for page in pages}) == len(names)
    assert all(len(page) < 100 and "/" not in page and page == page.encode("ascii").decode() for page in pages)


def test_rows_and_pages_are_there_as_soon_as_they_are_known_and_a_second_run_goes_on(tmp_path):
    paths = {}
    for name in ("b", "a" * 240, "Anna/01", "Anna_01"):
        paths[name] = tmp_path / "in" / f"{name}.x"
        paths[name].parent.mkdir(parents=True, exist_ok=True)
        paths[name].write_text(name)
    book = Gradebook(tmp_path / "out", {"chapter": "99", "seed": 0})
    book.open()
    for i, (name, path) in enumerate(paths.items(), start=1):
        book.add(entry(name), path)
        with (tmp_path / "out" / "grades.csv").open(encoding="utf-8", newline="") as file:
            assert len(list(csv.DictReader(file))) == i
        assert len(list((tmp_path / "out" / "feedback").iterdir())) == i
    with (tmp_path / "out" / "marks.jsonl").open("a") as file:
        file.write('{"settings": {"chapter": "99", "seed": 0}, "gra')                 # the power went off here
    second = Gradebook(tmp_path / "out", {"chapter": "99", "seed": 0})
    second.open()
    assert all(second.done(path, name) == book.grades[name] for name, path in paths.items())
    paths["b"].write_text("changed since")
    assert second.done(paths["b"], "b") is None
    for other in (Gradebook(tmp_path / "out", {"chapter": "99", "seed": 1}), second):
        other.open(again=other is second)
        assert other.done(paths["Anna/01"], "Anna/01") is None
    second.add(entry("Anna/01", "fail"), paths["Anna/01"])      # anew, and interrupted: it goes on here
    third = Gradebook(tmp_path / "out", {"chapter": "99", "seed": 0})
    third.open()
    assert third.done(paths["Anna/01"], "Anna/01").solved == 0
    assert third.done(paths["Anna_01"], "Anna_01") is None


def test_changed_checks_are_another_edition():
    editions = {checks.edition(number) for number in checks.chapters()}
    assert len(editions) == len(checks.chapters())


def test_a_changed_judge_is_another_edition(tmp_path, monkeypatch):
    before = checks.edition("99")
    shutil.copytree(Path(checks.__file__).parent, tmp_path / "grading")
    monkeypatch.setattr(checks, "__file__", str(tmp_path / "grading" / "checks.py"))
    assert checks.edition("99") == before
    with (tmp_path / "grading" / "judge.py").open("a", encoding="utf-8") as judge:
        judge.write("# otherwise\n")
    assert checks.edition("99") != before


def test_a_folder_that_cannot_be_written_is_refused_before_anything_runs(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError):
        Gradebook(tmp_path / "file", {}).open()
    if os.name == "posix" and os.geteuid() != 0:
        (tmp_path / "shut").mkdir(mode=stat.S_IRUSR | stat.S_IXUSR)
        with pytest.raises(OSError):
            Gradebook(tmp_path / "shut", {}).open()


def test_files_that_cannot_be_read_have_a_row(tmp_path):
    (tmp_path / "gone.ipynb").symlink_to(tmp_path / "nowhere.ipynb")
    (tmp_path / "zip.ipynb").write_bytes(b"PK\x03\x04 rest")
    (tmp_path / "empty.ipynb").write_bytes(b"")
    (tmp_path / "other.ipynb").write_text(notebook("print(1)"))
    (tmp_path / "essay.docx").write_bytes(b"words")
    (tmp_path / "data.npy").write_bytes(b"words")
    files = classroom.submissions(tmp_path)
    found = {grade.file: grade.problem for grade in classroom.grade_files(tmp_path, files, "99")}
    assert set(found) == {"gone.ipynb", "zip.ipynb", "empty.ipynb", "other.ipynb", "essay.docx"}
    assert "cannot be read" in found["gone.ipynb"]
    assert "not run" in found["other.ipynb"]
    assert "'.docx'" in found["essay.docx"]
    assert classroom.skipped(tmp_path, files) == ["data.npy"]


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="sends a Ctrl-C to a process")
def test_ctrl_c_ends_it_at_once_and_the_same_command_goes_on(tmp_path):
    """Four notebooks, of which the third would take a minute. Interrupted, the first two are on the disk."""
    box = tmp_path / "in"
    box.mkdir()
    for name in ("a", "b", "d"):
        (box / f"{name}.ipynb").write_text(notebook(START, ANSWER))
    (box / "c.ipynb").write_text(notebook(START, "import time\ntime.sleep(60)", ANSWER))
    command = [sys.executable, "-m", "fl_course", "grade", str(box), "--chapter", "99", "--out", str(tmp_path / "out"),
               "--jobs", "1", "--cell-seconds", "60"]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    first = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    marks = tmp_path / "out" / "marks.jsonl"
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and (not marks.exists() or marks.read_text().count('"grade"') < 2):
        time.sleep(0.2)
    time.sleep(1)
    begun = time.monotonic()
    first.send_signal(signal.SIGINT)
    said, _ = first.communicate(timeout=60)
    assert time.monotonic() - begun < 15                                              # 2 s on an idle machine
    assert "stopped: 2 of 4" in said
    assert first.returncode == 130
    with (tmp_path / "out" / "grades.csv").open(encoding="utf-8", newline="") as file:
        assert {row["file"] for row in csv.DictReader(file)} == {"a.ipynb", "b.ipynb"}
    (box / "c.ipynb").write_text(notebook(START, ANSWER))
    again = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert again.stdout.count("1 of 3 solved") == 4
    with (tmp_path / "out" / "grades.csv").open(encoding="utf-8", newline="") as file:
        assert [row["99.clip"] for row in csv.DictReader(file)] == ["pass"] * 4


def test_what_went_wrong_most_often_comes_first():
    grades = [entry(str(i), "fail", hint) for i, hint in enumerate(["x", "y", "y"])]
    assert mistakes(grades)[0] == (sorted(NAMES)[0], "y", 2)


def test_built_notebooks_are_of_their_chapter():
    assert built()
    root = Path(__file__).parents[2]
    for path in sorted((root / "exercises").glob("[0-9]*.ipynb")):
        assert classroom.chapters_of(path) == {path.name[:2]}


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0 or not shutil.which("setpriv"), reason="cannot become another user")
def test_a_user_without_rights_grades_too():
    with tempfile.TemporaryDirectory() as place:                 # pytest's own folders are shut to others
        os.chmod(place, 0o755)
        _grade_as_nobody(Path(place), 65534)


def _grade_as_nobody(place, nobody):
    box, out = place / "in", place / "out"
    for folder in (box, out):
        folder.mkdir()
        os.chown(folder, nobody, nobody)
    for name, source in {"a": ANSWER, "b": "def clip(delta, bound):\n    return delta", "c": "import os\nos._exit(1)"}.items():
        (box / f"{name}.ipynb").write_text(notebook(START, source))
    (box / "shut.ipynb").write_text(notebook(START, ANSWER))
    (box / "shut.ipynb").chmod(0)
    become = ["setpriv", f"--reuid={nobody}", f"--regid={nobody}", "--clear-groups"]
    command = [sys.executable, "-m", "fl_course", "grade", str(box), "--chapter", "99", "--out", str(out)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "HOME": str(place)}
    twice = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import typer'], check=True)"
    if subprocess.run([*become, sys.executable, "-c", twice], env=environment, capture_output=True, check=False).returncode:
        pytest.skip("another user may not run this Python")
    done = subprocess.run([*become, *command], env=environment, capture_output=True, text=True, cwd="/", check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    with (out / "grades.csv").open(encoding="utf-8", newline="") as file:
        rows = {row["file"]: row for row in csv.DictReader(file)}
    solved = {name: row["solved"] for name, row in rows.items()}
    assert solved == {"a.ipynb": "1", "b.ipynb": "0", "c.ipynb": "0", "shut.ipynb": "0"}
    assert "cannot be read" in rows["shut.ipynb"]["problem"]
    assert (out / "grades.csv").stat().st_uid == nobody
