"""The other verbs: a full or shut disk costs a sentence, a killed command leaves nobody behind, small wrong calls are told so."""

import os
import re
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner
from workbook_fixtures import ROOT, built, with_small_files, write_notebook

from fl_course.workbook import check, hint, reveal
from fl_course.workbook.commands import cli, export, parameters, places

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def course(monkeypatch):
    monkeypatch.setattr(places, "course", built)
    return built()


# --- start -----------------------------------------------------------------------------------------------------------


def test_what_was_cut_off_is_copied_again_and_what_a_reader_wrote_is_kept(course, tmp_path):
    places.copy_workbook(tmp_path)
    exercise, lesson = tmp_path / "exercises" / "99_tiny.ipynb", tmp_path / "notebooks" / "99_tiny.ipynb"
    whole, mine = lesson.read_bytes(), exercise.read_bytes() + b"\n"
    for cut in (b"", whole[:100], whole[:-1]):
        lesson.write_bytes(cut)
        exercise.write_bytes(mine)
        written, kept = places.copy_workbook(tmp_path)
        assert (written, kept) == (1, [exercise])
        assert lesson.read_bytes() == whole
        assert exercise.read_bytes() == mine
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(".")]


def test_a_copy_that_is_interrupted_leaves_no_half_of_a_file(course, tmp_path, monkeypatch):
    def full(handle):
        os.ftruncate(handle, 50)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        places.copy_workbook(tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="bounds on the size of files")
def test_start_on_a_full_disk(tmp_path):
    done = with_small_files(20_000, "start", tmp_path / "mine")
    assert done.returncode == 2
    assert "fl-course: this could not be read or written: File too large" in done.stdout
    assert "Traceback" not in done.stderr
    assert all(path.stat().st_size < 20_000 for path in (tmp_path / "mine").rglob("*.ipynb"))
    assert not list((tmp_path / "mine").rglob("*.part"))


@pytest.mark.parametrize("words", [
    ["start", "{}"], ["run", "{lesson}", "--out", "{}"], ["export", "{lesson}", "--out", "{}"], ["run", "--out", "{}"],
    ["train", "--rounds", "1", "--out", "{}"], ["sweep", "{lesson}", "-p", "rounds=1,2", "--out", "{}"],
    ["grade", "{box}", "--chapter", "99", "--out", "{}"],
])  # fmt: skip
def test_a_target_that_cannot_be_written_is_a_sentence(tmp_path, words, run):
    (tmp_path / "file").write_text("in the way")
    shut = tmp_path / "shut"
    shut.mkdir(mode=stat.S_IRUSR | stat.S_IXUSR)
    lesson = write_notebook(tmp_path / "box" / "lesson.ipynb", "print(rounds)", parameters="rounds: int = 3")
    for target in [tmp_path / "file", tmp_path / "file" / "below", *([shut] if os.name == "posix" and os.geteuid() else [])]:
        code, said = run(*(word.format(target, lesson=lesson, box=lesson.parent) for word in words))
        assert code == 2
        assert re.search(r"fl-course: .*cannot be written", said), said
    assert (tmp_path / "file").read_text() == "in the way"


# --- nobody is left behind -------------------------------------------------------------------------------------------


def _marked(mark):
    """The processes in whose environment the mark stands."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if mark.encode() in Path(f"/proc/{pid}/environ").read_bytes() and Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(int(pid))
        except OSError:
            continue
    return found


def _wait(condition, seconds):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.3)
    return condition()


def _killed(command, mark, cwd, ready, how):
    """Start a command, wait until it is ready, kill it; nothing that bears the mark may be alive soon after."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "FL_MARK": mark}
    with (cwd / "said").open("wb") as said:
        process = subprocess.Popen(command, cwd=cwd, env=environment, stdout=said, stderr=said, start_new_session=True)
    try:
        assert _wait(lambda: ready() or process.poll() is not None, 240)
        assert process.poll() is None, (cwd / "said").read_text()
        assert len(_marked(mark)) > 1
        process.send_signal(how)
        process.wait(60)
        assert _wait(lambda: not _marked(mark), 60), [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in _marked(mark)]
    finally:
        process.kill()
        for pid in _marked(mark):
            os.kill(pid, signal.SIGKILL)


linux = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="processes are found by /proc")


@pytest.mark.slow
@linux
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_sweep_leaves_no_orphans(tmp_path, how):
    begun = f"import pathlib, time\npathlib.Path({str(tmp_path)!r}, f'begun{{rounds}}').write_text('')\ntime.sleep(300)"
    slow = write_notebook(tmp_path / "slow.ipynb", begun, parameters="rounds: int = 3")
    command = [sys.executable, "-m", "fl_course", "sweep", slow, "-p", "rounds", "1,2", "--jobs", "2", "--out", tmp_path / "out"]
    _killed(list(map(str, command)), f"sweep-{os.getpid()}-{how}", tmp_path, lambda: len(list(tmp_path.glob("begun*"))) == 2, how)


@pytest.mark.slow
@linux
def test_a_killed_grading_leaves_no_orphans(tmp_path):
    stubborn = (
        f"import pathlib, time\npathlib.Path({str(tmp_path)!r}, 'begun').write_text('')\n"
        "while True:\n    try:\n        time.sleep(9)\n    except BaseException:\n        pass"
    )
    lesson = write_notebook(tmp_path / "in" / "a.ipynb", f"{stubborn}\ncheck('99.clip', len)")
    command = [sys.executable, "-m", "fl_course", "grade", lesson.parent, "--chapter", "99", "--out", tmp_path / "out"]
    command += ["--seconds", "300"]
    mark, begun = f"grade-{os.getpid()}", tmp_path / "begun"
    _killed(list(map(str, command)), mark, tmp_path, begun.exists, signal.SIGKILL)


@pytest.mark.slow
@linux
def test_a_killed_lab_leaves_no_orphans(tmp_path):
    write_notebook(tmp_path / "notebooks" / "01_a.ipynb", "1")
    (tmp_path / "runtime").mkdir()
    os.environ["JUPYTER_RUNTIME_DIR"] = str(tmp_path / "runtime")
    command = [sys.executable, "-m", "fl_course", "lab", "--dir", str(tmp_path), "--no-browser", "--allow-root", "--port=0"]
    try:
        _killed(command, f"lab-{os.getpid()}", tmp_path, lambda: list(tmp_path.glob("runtime/jpserver-*.json")), signal.SIGKILL)
    finally:
        del os.environ["JUPYTER_RUNTIME_DIR"]


# --- small things ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [None, len, 3, ["99.clip"]])
def test_a_check_without_a_name_is_told_so(name):
    for ask in (lambda: check(name, len), lambda: hint(name), lambda: reveal(name)):
        with pytest.raises(TypeError, match="name of an exercise comes first"):
            ask()


@pytest.mark.parametrize(("name", "text", "fits"), [
    ("rounds", "0", False), ("rounds", "-3", False), ("rounds", "1", True), ("card_rounds", "0", False), ("seed", "0", True),
    ("seed", "-1", True), ("background", "0", True),
])  # fmt: skip
def test_counts_begin_at_one(name, text, fits):
    parameter = parameters.Parameter(name, "int", "3")
    if fits:
        assert parameters.parse(parameter, text) == int(text)
    else:
        with pytest.raises(parameters.BadParameter, match="a whole number from 1"):
            parameters.parse(parameter, text)


def test_every_whole_number_that_a_lesson_takes_is_a_count_or_a_seed():
    lessons = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
    taken = {name for lesson in lessons for name, one in parameters.inspect(lesson).items() if one.kind == "int"}
    assert len(lessons) == 13
    assert {name for name in taken if not parameters.COUNT.search(name)} == {"seed"}


def test_the_index_bears_titles(tmp_path, course):
    result = CliRunner().invoke(cli.app, ["export", str(course / "notebooks" / "99_tiny.ipynb"), "--out", str(tmp_path / "site")])
    assert result.exit_code == 0, result.output
    page = (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    heading = places.title(course / "notebooks" / "99_tiny.ipynb")
    assert heading != "99_tiny"
    assert f'<a href="99_tiny.html">{heading}</a> <small>99_tiny.html</small>' in page
    index = export.index_page([('a "b"&#.html', "<b>"), ("c.html", "")], tmp_path / "deep" / "index.html")
    odd = index.read_text(encoding="utf-8")
    assert "<b>" not in odd
    assert 'href="a%20%22b%22%26%23.html"' in odd
    assert '<a href="c.html">c.html</a></li>' in odd
