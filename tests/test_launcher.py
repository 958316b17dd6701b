"""course.py: when it installs, what it refuses, what a verb runs. Nothing is installed and no network is touched."""

import ast
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def course(tmp_path):
    """The launcher as it stands in a fresh folder of its own, so that its ROOT and .venv are there."""
    for name in ("course.py", "pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    spec = importlib.util.spec_from_file_location("course_in_a_folder", tmp_path / "course.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Installer:
    """Stands in for subprocess.check_call: notes each command, makes the folder, fails at one command if told to."""

    def __init__(self, course, fail_at=None):
        self.course, self.fail_at, self.calls = course, fail_at, []

    def __call__(self, argv):
        self.calls.append(argv)
        Path(self.course.VENV).mkdir(exist_ok=True)
        if self.fail_at == len(self.calls):
            raise subprocess.CalledProcessError(1, argv)


@pytest.mark.parametrize("version", ["2.7", "3.6", "3.8", "3.10"])
def test_a_python_that_is_too_old_can_read_the_file_and_says_so(version):
    """Tried with the real ones where a machine has them, as pyenv lays them down."""
    home = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = next((path for path in sorted(home.glob(f"{version}.*/bin/python"))), None)
    if found is None:
        pytest.skip(f"no Python {version} on this machine")
    said = subprocess.run([found, ROOT / "course.py", "run"], capture_output=True, text=True, check=False)
    assert said.returncode == 2
    assert said.stderr.startswith(f"The course needs Python 3.11 or newer; this is Python {version}.")
    assert "Traceback" not in said.stderr


def test_the_file_keeps_to_what_python_2_can_read():
    tree = ast.parse((ROOT / "course.py").read_text("utf-8"))
    newer = (ast.JoinedStr, ast.AnnAssign, ast.NamedExpr, ast.AsyncFunctionDef, ast.Nonlocal, ast.YieldFrom)
    lists = [node for node in ast.walk(tree) if isinstance(node, ast.List | ast.Tuple | ast.Set)]
    assert [node.lineno for node in lists if any(isinstance(part, ast.Starred) for part in node.elts)] == []
    assert [node.lineno for node in ast.walk(tree) if isinstance(node, newer)] == []
    assert [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Raise) and node.cause] == []
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    assert not any(f.returns or f.args.kwonlyargs or any(arg.annotation for arg in f.args.args) for f in functions)


@pytest.mark.parametrize("version", [(3, 8, 1), (3, 10, 14), (2, 7, 18)])
def test_an_old_python_gets_a_plain_sentence_and_no_set_up(course, capsys, version):
    assert course.main(["run"], version=version) == 2
    assert f"needs Python 3.11 or newer; this is Python {version[0]}.{version[1]}." in capsys.readouterr().err
    assert not Path(course.VENV).exists()
    assert course.too_old((3, 11, 0)) == course.too_old((3, 14, 2)) == ""


def test_it_imports_nothing_but_the_standard_library():
    tree = ast.parse((ROOT / "course.py").read_text("utf-8"))
    names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert names
    assert {name.split(".")[0] for name in names} <= sys.stdlib_module_names


def test_it_installs_once_torch_first_and_with_the_constraints(course, monkeypatch):
    first, second = Installer(course), Installer(course)
    monkeypatch.setattr(course, "answers", lambda code: second is not None and Path(course.STAMP).exists())
    course.set_up(first)
    course.set_up(second)
    assert second.calls == []
    make, torch, rest = first.calls
    assert make[1:4] == ["-m", "venv", "--clear"]
    assert torch[-1].startswith("torch>=")
    assert rest[-2:] == ["-e", f"{course.ROOT}[test,browser]"]
    assert all(call[call.index("-c") + 1] == str(Path(course.ROOT) / "constraints.txt") for call in (torch, rest))


def test_torch_is_asked_for_in_the_same_words_as_in_the_package(course):
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    assert f'"{course.INSTALLS[0][0]}"' in project
    for extra in ("test", "browser"):
        assert re.search(rf"^{extra} = \[", project, re.M)


@pytest.mark.parametrize("fail_at", [1, 2, 3])
def test_a_failed_install_leaves_no_stamp_and_is_made_good(course, fail_at):
    Path(course.VENV).mkdir()
    Path(course.STAMP).write_text("an older one")
    with pytest.raises(subprocess.CalledProcessError):
        course.set_up(Installer(course, fail_at))
    assert not Path(course.STAMP).exists()
    again = Installer(course)
    course.set_up(again)
    assert len(again.calls) == 3                                     # this .venv has no Python: it is made anew
    assert Path(course.STAMP).read_text() == course.wanted(course.ROOT)


def test_an_environment_is_kept_if_it_has_a_pip_and_this_python(course, monkeypatch):
    assert not course.answers("True")                                # there is none
    monkeypatch.setattr(course, "PYTHON", sys.executable)
    assert course.answers(course.same_python() + " and find_spec('pip')")
    Path(course.VENV).mkdir()
    (Path(course.VENV) / "pyvenv.cfg").write_text(f"command = python -m venv {course.VENV}\n")
    installer = Installer(course)
    course.set_up(installer)
    assert len(installer.calls) == 2                                 # nothing but the two installs
    monkeypatch.setattr(course.sys, "version_info", (3, 99))
    assert not course.answers(course.same_python())


def settled(course, monkeypatch):
    """An environment that a complete set-up has left here; its Python is this one, and finds what it should."""
    monkeypatch.setattr(course, "answers", lambda code: True)
    Path(course.VENV).mkdir(exist_ok=True)
    (Path(course.VENV) / "pyvenv.cfg").write_text(f"command = python -m venv {course.VENV}\n")
    Path(course.STAMP).write_text(course.wanted(course.ROOT))
    assert course.ready()


BROKEN = {
    "the Python under it was upgraded": lambda course, patch: patch.setattr(course, "answers", lambda code: False),
    "it finds another package": lambda course, patch: patch.setattr(course, "answers", lambda code: "origin" not in code),
    "the stamp is cut off": lambda course, patch: Path(course.STAMP).write_text(course.wanted(course.ROOT)[:20]),
    "the stamp is not text": lambda course, patch: Path(course.STAMP).write_bytes(b"\xff\xfe"),
    "the stamp is of another folder": lambda course, patch: Path(course.STAMP).write_text(course.wanted(course.ROOT) + "-old"),
}


@pytest.mark.parametrize("how", BROKEN)
def test_what_is_broken_is_set_up_again_whatever_the_stamp_says(course, monkeypatch, how):
    settled(course, monkeypatch)
    BROKEN[how](course, monkeypatch)
    assert not course.ready()
    installer = Installer(course)
    course.set_up(installer)
    assert len(installer.calls) >= 2


def test_a_moved_environment_is_made_anew_for_its_scripts_hold_the_old_place(course, monkeypatch):
    settled(course, monkeypatch)
    (Path(course.VENV) / "pyvenv.cfg").write_text("command = python -m venv /somewhere/else/.venv\n")
    Path(course.STAMP).write_text("what stood in the old place")
    installer = Installer(course)
    course.set_up(installer)
    assert "--clear" in installer.calls[0]


def test_a_real_checkout_that_was_moved_is_noticed(course, tmp_path):
    """A real environment, without what it installs: its Python answers here, and after a move it does not find the package."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", course.VENV], check=True)
    assert course.answers(course.same_python())
    assert not course.ready()
    assert course._made_here()
    moved = tmp_path.with_name(tmp_path.name + "-moved")
    tmp_path.rename(moved)
    spec = importlib.util.spec_from_file_location("course_moved", moved / "course.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert not module._made_here()


def test_a_folder_that_cannot_be_written_to_is_named_and_nothing_else_is_advised(course, capsys, monkeypatch):
    def refuse(dir):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(course.tempfile, "TemporaryFile", refuse)
    assert course.main(["run"], call=Installer(course)) == 1
    said = capsys.readouterr().err
    assert course.ROOT in said
    assert "cannot be written to (Permission denied)" in said
    assert "apt" not in said


@pytest.mark.parametrize(("fail_at", "step"), [(1, "venv"), (2, "pip install"), (3, "pip install")])
def test_a_failed_step_is_named_in_words(course, capsys, fail_at, step):
    assert course.main(["run"], call=Installer(course, fail_at)) == 1
    assert f"Setting up failed at {step};" in capsys.readouterr().err


def test_the_stamp_follows_what_is_asked_for_and_python(course):
    before = course.wanted(course.ROOT)
    assert course.wanted(course.ROOT, "3.99") != before
    for name in ("pyproject.toml", "constraints.txt"):
        (Path(course.ROOT) / name).write_text("changed")
        after = course.wanted(course.ROOT)
        assert after != before
        before = after


def test_a_verb_goes_to_the_installed_command_with_its_arguments(course):
    [run] = course.commands("run", ["--rounds", "3"])
    assert run == [course.PYTHON, "-m", "fl_course", "run", "--rounds", "3"]       # a script would hold an absolute path
    assert course.commands("setup", []) == []


def test_the_tests_are_those_of_the_package_and_every_notebook(course):
    assert [step[3] for step in course.commands("test", [])] == ["tests"]
    for folder in ("notebooks", "solutions"):
        (Path(course.ROOT) / folder).mkdir()
        (Path(course.ROOT) / folder / "00.ipynb").write_text("{}")
    unit, books = course.commands("test", [], course.ROOT)
    assert unit[1:] == ["-m", "pytest", "tests", *course.PARALLEL]
    assert {"--nbval-lax", "--nbval-current-env", "notebooks", "solutions"} <= set(books)
    assert course.commands("test", ["-k", "shamir"], course.ROOT) == [[*unit[:4], "-k", "shamir"]]


def test_the_counts_of_all_steps_are_added_up_and_a_failure_is_kept(course, tmp_path, capfd):
    (tmp_path / "test_first.py").write_text("def test_a():\n    assert False\n\ndef test_b():\n    pass\n")
    (tmp_path / "test_second.py").write_text("def test_c():\n    pass\n")
    plain = [sys.executable, "-m", "pytest", "-q", "-c", "none.ini", "--rootdir", ".", "-p", "no:cacheprovider"]
    (tmp_path / "none.ini").write_text("[pytest]\n")
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    env["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"                      # plugins take longer to import than this takes
    assert course.run_tests([[*plain, "test_first.py"], [*plain, "test_second.py"]], env) == 1
    assert capfd.readouterr().out.endswith("2 passed, 1 failed, 0 skipped\n")


def test_without_a_verb_it_says_what_there_is(course, capsys):
    assert course.main([]) == 2
    assert "course.py test" in capsys.readouterr().out
    assert not Path(course.VENV).exists()
