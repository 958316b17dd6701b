"""The doctor: each thing that it looks at, well and ill; what is ill comes with its cure. Packages and kernels: test_cli.py."""

import importlib.metadata
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from fl_course.deploy import environment
from fl_course.workbook.commands import doctor, optional

POSIX = pytest.mark.skipif(os.name == "nt", reason="the stand-ins are shell scripts")


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """The only folder in which programs are looked for; write(name, text) puts a shell script there."""
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def write(name, text):
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
        return folder / name

    return write


def test_what_is_installed_is_named_with_its_version():
    (finding,) = doctor._course()
    assert finding.ok
    assert finding.found == f"{importlib.metadata.version('fl-course')} in {doctor.PACKAGE}"


def test_a_course_that_is_not_installed_for_this_python_is_mended_by_a_command(monkeypatch):
    def nothing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(doctor.metadata, "version", nothing)
    (finding,) = doctor._course()
    assert finding.mend == "python3 course.py setup"


def test_what_is_asked_for_is_read_from_the_checkout_and_else_from_the_package(monkeypatch):
    here = dict(doctor.requirements())
    assert here["torch"].startswith(">=2.6")
    assert {name for name, _ in doctor.requirements("docs")} == {"sphinx", "myst-parser", "furo"}
    assert list(doctor.requirements("no such extra")) == []
    said = ["numpy>=1.26", 'pytest<10,>=8.2; extra == "test"', "ruff<1; extra == 'test'", 'sphinx>=8; extra == "docs"']
    monkeypatch.setattr(doctor, "_in_checkout", lambda: False)
    monkeypatch.setattr(doctor.metadata, "requires", lambda name: said)
    assert list(doctor.requirements()) == [("numpy", ">=1.26")]
    assert list(doctor.requirements("test")) == [("pytest", "<10,>=8.2"), ("ruff", "<1")]


# --- torch -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("says", "gpu", "part", "ok"), [
    ("2.13.0+cpu None 0 6.0", False, "for the CPU, all that the lessons need", True),
    ("2.13.0+cpu None 0 6.0", True, "pip's default build would use the GPU", True),
    ("2.13.0 12.8 1 6.0", True, "with CUDA, and it sees a GPU", True),
    ("2.13.0 12.8 0 6.0", False, "with CUDA; there is no GPU", True),
    ("2.13.0 12.8 0 6.0", True, "cannot use the GPU that is here", False),
])  # fmt: skip
def test_the_build_of_torch_is_held_against_the_machine(monkeypatch, says, gpu, part, ok):
    monkeypatch.setattr(doctor, "_gpu", lambda: gpu)
    monkeypatch.setattr(doctor, "TORCH", f"print({says!r})")
    (finding,) = doctor._torch()
    assert part in finding.found
    assert finding.ok == ok
    assert ok or "driver" in finding.mend


@pytest.mark.parametrize("program", ["raise OSError('libtorch: illegal')", "import os; os._exit(9)", "print('2 None 0 nan')", ""])
def test_a_torch_that_cannot_compute_is_ill(monkeypatch, program):
    monkeypatch.setattr(doctor, "TORCH", program)
    (finding,) = doctor._torch()
    assert (finding.subject, finding.ok) == ("torch computes", False)
    assert finding.found
    assert "course.py setup" in finding.mend


def test_this_torch_computes():
    (finding,) = doctor._torch()
    assert finding.ok
    assert finding.found.startswith(importlib.metadata.version("torch"))


@POSIX
@pytest.mark.parametrize(("script", "there"), [
    ("echo 'GPU 0: NVIDIA H100'", True), ("echo 'No devices found.'", False), ("exit 9", False), (None, False),
])  # fmt: skip
def test_a_gpu_is_one_that_nvidia_smi_finds(programs, script, there):
    if script:
        programs("nvidia-smi", script)
    assert doctor._gpu() == there


# --- what nobody needs -----------------------------------------------------------------------------------------------


def asked(extra):
    docs = [("no-such-package", ">=1"), ("msgpack", "<0.1")]
    return {"test": [("pytest", ">=8.2,<10")], "browser": [("tqdm", ">=4")], "docs": docs}[extra]


def test_missing_extras_are_said_and_only_wrong_versions_are_ill(programs):
    test, browser, docs = optional.extras(asked, doctor._fits)
    assert test[2] == ""
    assert f"pytest {importlib.metadata.version('pytest')}" in test[1]
    assert "not there: Chromium (Debian: apt-get install chromium)" in browser[1]
    assert browser[2] == ""
    assert "not there: no-such-package" in docs[1]
    assert f"msgpack {importlib.metadata.version('msgpack')} for <0.1" in docs[1]
    assert 'fl-course[docs]' in docs[2]


@POSIX
def test_a_browser_that_is_there_is_not_missed(programs):
    programs("chromium", "exit 0")
    _, browser, _ = optional.extras(asked, doctor._fits)
    assert "not there" not in browser[1]


def test_every_extra_that_is_named_exists():
    for extra in optional.EXTRAS:
        assert list(doctor.requirements(extra))


def test_without_flower_the_command_that_brings_it_is_named(monkeypatch, tmp_path):
    monkeypatch.delenv(environment.VARIABLE, raising=False)
    monkeypatch.setattr(environment, "place", lambda: tmp_path / "none")
    subject, found, mend = optional.flower(doctor._fits)
    assert (subject, mend) == ("Flower", "")
    assert "`fl-course deploy local`" in found


@POSIX
@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize(("script", "ok"), [("echo 1.42.0", True), ("echo 1.20.0", False), ("exit 1", False), (None, False)])
def test_a_flower_that_is_there_is_tried(monkeypatch, tmp_path, programs, named, script, ok):
    python = programs("python", script) if script else tmp_path / "programs" / "python"
    monkeypatch.setattr(environment, "place", lambda: tmp_path / "programs")
    monkeypatch.setattr(environment, "python_of", lambda folder: folder / "python")
    monkeypatch.delenv(environment.VARIABLE, raising=False)
    if named:
        monkeypatch.setenv(environment.VARIABLE, str(python))
    _, found, mend = optional.flower(doctor._fits)
    assert str(python) in found
    assert (mend == "") == ok
    if not ok:
        assert ("unset FL_COURSE_FLOWER" in mend) == named
        assert (f"remove {tmp_path / 'programs'}" in mend) == (not named)


@POSIX
def test_a_sandbox_is_named_and_missing_it_is_no_illness(programs, monkeypatch):
    assert optional.sandbox()[1].startswith("none")
    path = programs("bwrap", "exit 0")
    monkeypatch.setattr(optional.sys, "platform", "linux")
    assert optional.sandbox()[1].startswith(str(path))
    monkeypatch.setattr(optional.sys, "platform", "darwin")
    _, found, mend = optional.sandbox()
    assert found.startswith("none")
    assert mend == ""


def test_where_the_course_cannot_be_imported_the_rest_is_still_looked_at(monkeypatch):
    monkeypatch.setitem(sys.modules, "fl_course.workbook.commands.optional", None)
    monkeypatch.delattr("fl_course.workbook.commands.optional", raising=False)
    (finding,) = doctor._optional()
    assert finding.ok
    assert "cannot be imported" in finding.found


# --- the machine -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("variable", "value", "ill"), [
    ("OMP_NUM_THREADS", "1", []), ("OMP_NUM_THREADS", None, []), ("OMP_NUM_THREADS", "8", ["threads"]),
    ("FL_COURSE_THREADS", "2", []), *(("FL_COURSE_THREADS", bad, ["FL_COURSE_THREADS"]) for bad in ("two", "0", "-1", "")),
])  # fmt: skip
def test_threads(monkeypatch, variable, value, ill):
    for name in ("OMP_NUM_THREADS", "FL_COURSE_THREADS"):
        monkeypatch.delenv(name, raising=False)
    if value is not None:
        monkeypatch.setenv(variable, value)
    found = [finding for finding in doctor._threads() if not finding.ok]
    assert [finding.subject for finding in found] == ill
    assert all("set" in finding.mend for finding in found)


def test_a_wrong_number_of_threads_is_told_even_where_the_course_cannot_be_imported(monkeypatch):
    environment = {**os.environ, "FL_COURSE_THREADS": "many", "OMP_NUM_THREADS": "1"}
    program = f"import runpy; d = runpy.run_path({doctor.__file__!r}); print([f.subject for f in d['_threads']() if not f.ok])"
    said = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert said.stdout.strip() == "['FL_COURSE_THREADS']", said.stderr


@pytest.mark.parametrize("bad", ["abc", "0", ""])
def test_a_wrong_number_of_threads_is_refused_with_a_sentence(bad):
    environment, program = {**os.environ, "FL_COURSE_THREADS": bad}, [sys.executable, "-c", "import fl_course"]
    said = subprocess.run(program, env=environment, capture_output=True, text=True, check=False)
    assert said.returncode == 1
    last = said.stderr.strip().splitlines()[-1]
    assert last.startswith(f"ValueError: the environment variable FL_COURSE_THREADS is {bad!r}; it must be a whole number from 1")


@pytest.fixture
def places(monkeypatch, tmp_path):
    """{subject: finding} of folders and memory; the folder is the temporary one."""
    monkeypatch.chdir(tmp_path)
    return lambda: {finding.subject: finding for finding in doctor._places()}


def test_all_places_are_well(places):
    found = places()
    assert [name for name, finding in found.items() if not finding.ok] == []
    assert {"notebooks", "disk", "this folder", "temporary files", "Jupyter's files"} <= set(found)


@pytest.mark.parametrize(("subject", "word"), [("this folder", "fl-course start"), ("temporary files", "TMPDIR"),
                                               ("Jupyter's files", "JUPYTER_RUNTIME_DIR")])  # fmt: skip
def test_a_folder_that_cannot_be_written_to_is_named(places, monkeypatch, tmp_path, subject, word):
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.setattr(doctor.tempfile, "gettempdir", lambda: str(tmp_path / "temporary"))
    bad = {"this folder": tmp_path, "temporary files": tmp_path / "temporary", "Jupyter's files": tmp_path / "runtime"}[subject]
    real = tempfile.TemporaryFile

    def refuse(dir):
        if Path(dir) == bad:
            raise PermissionError(13, "Permission denied")
        return real(dir=dir)

    monkeypatch.setattr(doctor.tempfile, "TemporaryFile", refuse)
    ill = {name: finding for name, finding in places().items() if not finding.ok}
    assert list(ill) == [subject]
    assert "Permission denied" in ill[subject].found
    assert word in ill[subject].mend


def test_a_full_disk_and_a_small_memory_are_ill(places, monkeypatch):
    monkeypatch.setattr(doctor, "SPACE", 10**18)
    monkeypatch.setattr(doctor, "MEMORY", 10**18)
    ill = {name for name, finding in places().items() if not finding.ok}
    assert ill == {"disk", "memory"} if hasattr(os, "sysconf") else {"disk"}


def test_a_course_without_notebooks_is_built(places, monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "PACKAGE", tmp_path / "fl_course")
    assert "build_notebooks" in places()["notebooks"].mend


class Terminal:
    def __init__(self, encoding):
        self.encoding = encoding


@pytest.mark.parametrize(("encoding", "ok"), [("utf-8", True), ("cp1252", False), ("ascii", False), (None, False)])
def test_a_terminal_without_greek_letters_is_ill(monkeypatch, encoding, ok):
    monkeypatch.setattr(doctor.sys, "stdout", Terminal(encoding))
    terminal, fonts = doctor._signs()
    assert terminal.ok == ok
    assert ok or "PYTHONUTF8=1" in terminal.mend
    assert fonts.ok


@pytest.mark.parametrize("font", ["cmex10", "no such font at all"])
def test_a_font_without_the_signs_is_ill_and_one_that_is_not_there_is_replaced(font):
    import matplotlib as mpl

    with mpl.rc_context({"font.family": font}):
        _, fonts = doctor._signs()
    assert fonts.ok == (font != "cmex10")
    assert fonts.ok or "font.family" in fonts.mend


def test_everything_that_is_looked_at_says_what_it_found_and_cures_have_words():
    for finding in (*doctor._python(), *doctor._course(), *doctor._threads(), *doctor._optional(), *doctor._loopback()):
        assert finding.subject
        assert finding.found
