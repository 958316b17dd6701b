"""course.py: when it installs, what it refuses, what a verb runs. Nothing is installed, and nothing beyond loopback is asked."""

import ast
import importlib.util
import os
import re
import signal
import subprocess
import sys
import threading
import time
import zipfile
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import typer

from fl_course.workbook.commands.cli import app

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def course(tmp_path):
    """The launcher as it stands in a fresh folder of its own, so that its ROOT and .venv are there."""
    for name in ("course.py", "pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    spec = importlib.util.spec_from_file_location("course_in_a_folder", tmp_path / "course.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.CPU_INDEX = "http://127.0.0.1:9/whl/cpu"                    # the discard port: refused, here and everywhere
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


def test_it_names_every_verb_that_there_is(course):
    said = course.__doc__
    named = re.findall(r"course\.py ([a-z]+)", said) + re.findall(r"[a-z]+", said.partition("fl-course's:")[2])
    assert set(named) - {"setup"} == set(typer.main.get_command(app).commands)


def test_without_a_verb_it_says_what_there_is(course, capsys):
    assert course.main([]) == 2
    assert "course.py test" in capsys.readouterr().out
    assert not Path(course.VENV).exists()


# --- which torch -----------------------------------------------------------------------------------------------------


@contextmanager
def index(answer):
    """A package index on loopback. `answer(request)` writes what it likes; nobody waits for the ones that hang."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            with suppress(OSError):                                    # the launcher has gone away, as it should
                answer(self)

        def log_message(self, *_):
            pass

        def page(self, body, status=200, **headers):
            self.send_response(status)
            for name, value in {"Content_Type": "text/html", "Content_Length": len(body), **headers}.items():
                self.send_header(name.replace("_", "-"), str(value))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads, server.block_on_close = True, False
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def bare(course, monkeypatch, tmp_path):
    """A Linux machine without a GPU and without any settings of pip."""
    for name in list(os.environ):
        if name.startswith("PIP_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PATH", str(tmp_path / "programs"))
    monkeypatch.setattr(course.sys, "platform", "linux")
    monkeypatch.setattr(course, "PYTHON", sys.executable)
    (tmp_path / "programs").mkdir()
    return course


def program(folder, name, text):
    path = folder / "programs" / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


LISTED = b'<a href="torch-2.13.0%2Bcpu-cp311-cp311-linux_x86_64.whl">torch-2.13.0+cpu-cp311-cp311-linux_x86_64.whl</a><br/>'


def trickle(request):
    request.send_response(200)
    request.end_headers()
    for byte in LISTED * 20:
        request.wfile.write(bytes([byte]))
        time.sleep(0.05)


def endless(request):
    request.send_response(200)
    request.end_headers()
    while True:
        request.wfile.write(b"torch- .whl " * 1000)


SILENT = {
    "says 404": lambda request: request.page(b"torch-2.whl is not here", 404),
    "says 503": lambda request: request.page(LISTED, 503),
    "is slow": lambda request: (time.sleep(9), request.page(LISTED)),
    "hangs": lambda request: time.sleep(9),
    "trickles": trickle,
    "breaks off": lambda request: request.page(LISTED[:20], Content_Length=len(LISTED)),
    "hangs up": lambda request: request.connection.close(),
    "speaks no HTTP": lambda request: request.wfile.write(b"torch- .whl\n\n"),
    "is the hotel's page": lambda request: request.page(b"<html>Please accept the conditions of this network.</html>"),
    "is empty": lambda request: request.page(b""),
    "lists other things": lambda request: request.page(LISTED.replace(b"torch", b"numpy")),
    "lists no wheels": lambda request: request.page(LISTED.replace(b".whl", b".tar.gz")),
    "sends round in a circle": lambda request: request.page(b"", 302, Location="/whl/cpu/torch/"),
    "sends where nobody is": lambda request: request.page(b"", 302, Location="http://127.0.0.1:9/torch/"),
}


@pytest.mark.parametrize("how", SILENT)
def test_an_index_that_gives_no_answer_costs_its_seconds_and_nothing_else(bare, how):
    with index(SILENT[how]) as url:
        bare.CPU_INDEX = url + "/whl/cpu"
        start = time.monotonic()
        assert not bare.cpu_index_answers(0.3)
        assert time.monotonic() - start < 5                            # also on a machine that has other things to do


@pytest.mark.parametrize("place", ["http://127.0.0.1:9/whl", "http://name.invalid/whl", "nonsense", "http://[::1", "ftp://127.0.0.1:9/"])
def test_an_index_that_is_nowhere_is_no_answer(bare, place):
    bare.CPU_INDEX = place
    assert not bare.cpu_index_answers(0.5)


def test_an_index_has_three_seconds():
    assert "def cpu_index_answers(seconds=3):" in (ROOT / "course.py").read_text("utf-8")


@pytest.mark.parametrize("answer", [lambda request: request.page(LISTED), endless,
                                    lambda request: (time.sleep(0.2), request.page(b"<br/>" * 100 + LISTED * 2000))])  # fmt: skip
def test_without_a_gpu_an_index_that_answers_gives_the_small_build(bare, answer):
    with index(answer) as url:
        bare.CPU_INDEX = url + "/whl/cpu"
        flags, sentence = bare.which_torch("linux")
    assert flags == ["--extra-index-url", url + "/whl/cpu"]
    assert "no GPU here, so the CPU build, about 190 MB, from " + url in sentence


def test_it_asks_for_the_page_of_torch(bare):
    asked = []
    with index(lambda request: (asked.append(request.path), request.page(LISTED))) as url:
        bare.CPU_INDEX = url + "/whl/cpu"
        assert bare.cpu_index_answers()
    assert asked == ["/whl/cpu/torch/"]


def test_without_a_gpu_and_without_an_index_the_default_comes_and_its_size_is_said(bare):
    flags, sentence = bare.which_torch("linux")
    assert flags == []
    assert bare.CPU_INDEX in sentence
    assert "CUDA: 2.7 GB to download" in sentence


@pytest.mark.skipif(os.name == "nt", reason="the stand-ins are shell scripts")
@pytest.mark.parametrize(("script", "there"), [
    ("echo 'GPU 0: NVIDIA H100 (UUID: GPU-1)'", True), ("exit 0", True), ("echo 'No devices found.'", False),
    ("echo 'NVIDIA-SMI has failed: it could not communicate with the driver.'; exit 9", False), ("/bin/sleep 30", False),
])  # fmt: skip
def test_a_gpu_is_there_if_nvidia_smi_answers(bare, tmp_path, monkeypatch, script, there):
    program(tmp_path, "nvidia-smi", script)
    said = bare.said
    monkeypatch.setattr(bare, "said", lambda argv, seconds: said(argv, 2 if argv[0] == "nvidia-smi" else seconds))
    with index(lambda request: request.page(LISTED)) as url:
        bare.CPU_INDEX = url
        flags, sentence = bare.which_torch("linux")
    assert flags == ([] if there else ["--extra-index-url", url])
    assert ("finds a GPU" in sentence) == there == ("2.7 GB" in sentence)


def test_an_nvidia_smi_that_cannot_be_started_is_none(bare, tmp_path):
    (tmp_path / "programs" / "nvidia-smi").write_text("not a program")
    assert bare.which_torch("linux")[1].startswith("no GPU here")


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_elsewhere_there_is_nothing_to_choose_and_nobody_is_asked(bare, monkeypatch, platform):
    monkeypatch.setattr(bare, "cpu_index_answers", lambda: pytest.fail("asked an index"))
    flags, sentence = bare.which_torch(platform)
    assert flags == []
    assert "without CUDA" in sentence


HERE = "http://name:secret@127.0.0.1:9/simple"
OWN = [("PIP_INDEX_URL", HERE, "index-url"), ("PIP_EXTRA_INDEX_URL", HERE, "extra-index-url"),
       ("PIP_FIND_LINKS", "/opt/wheels", "find-links"), ("PIP_NO_INDEX", "1", "no-index")]  # fmt: skip


@pytest.mark.parametrize("place", ["variable", "[global]", "[install]"])
@pytest.mark.parametrize(("variable", "value", "name"), OWN)
def test_a_users_own_settings_decide_and_stay_unseen(bare, monkeypatch, tmp_path, variable, value, name, place):
    if place == "variable":
        monkeypatch.setenv(variable, value)
    else:
        (tmp_path / "pip.conf").write_text(f"{place}\n{name} = {value}\n")
        monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    monkeypatch.setattr(bare, "cpu_index_answers", lambda: pytest.fail("asked an index"))
    flags, sentence = bare.which_torch("linux")
    assert flags == []
    assert f"({name})" in sentence
    assert value == "1" or value not in sentence                       # an address may hold a password
    assert ("PIP_EXTRA_INDEX_URL=" in sentence) == (name in ("index-url", "find-links"))


@pytest.mark.parametrize("text", ["[global]\ntimeout = 60\n", "[download]\nindex-url = http://127.0.0.1:9\n", "no section\n",
                                  "[global]\nno-index = false\n", "[global]\nextra-index-url =\n"])  # fmt: skip
def test_settings_that_say_nothing_about_where_packages_are_leave_the_choice(bare, monkeypatch, tmp_path, text):
    (tmp_path / "pip.conf").write_text(text)
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    assert bare.own_sources() == []


def test_the_choice_is_said_and_holds_for_torch_alone(bare, monkeypatch, capsys):
    monkeypatch.setattr(bare, "which_torch", lambda: (["--extra-index-url", "http://small"], "the small one."))
    monkeypatch.setattr(bare, "PYTHON", "none")
    installer = Installer(bare)
    bare.set_up(installer)
    assert ["--extra-index-url" in call for call in installer.calls] == [False, True, False]
    assert "  torch: the small one.\n" in capsys.readouterr().out


def test_an_index_that_breaks_off_later_does_not_stop_the_set_up(bare, monkeypatch, capsys):
    monkeypatch.setattr(bare, "which_torch", lambda: (["--extra-index-url", "http://small"], "the small one."))
    monkeypatch.setattr(bare, "PYTHON", "none")
    installer = Installer(bare, fail_at=2)
    bare.set_up(installer)
    assert ["--extra-index-url" in call for call in installer.calls] == [False, True, False, False]
    assert "failed with http://small. Once more without it: pip's default" in capsys.readouterr().out
    assert Path(bare.STAMP).exists()


def wheel(path, version):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("torch/__init__.py", f"__version__ = {version!r}\n")
        file.writestr(f"torch-{version}.dist-info/METADATA", f"Metadata-Version: 2.1\nName: torch\nVersion: {version}\n")
        file.writestr(f"torch-{version}.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"torch-{version}.dist-info/RECORD", "")
    return path.read_bytes()


@pytest.mark.parametrize("wheel_is_there", [True, False])
def test_the_real_pip_takes_the_small_build_and_the_default_when_that_cannot_be_had(bare, monkeypatch, tmp_path, wheel_is_there):
    pinned = re.search(r"^torch==(.+)$", (ROOT / "constraints.txt").read_text(), re.M)[1]
    builds = {"/cpu/torch/": f"{pinned}+cpu", "/pypi/torch/": pinned}
    files = {f"/torch-{version}-py3-none-any.whl": wheel(tmp_path / f"{number}.whl", version)
             for number, version in enumerate(builds.values())}  # fmt: skip

    def answer(request):
        path = request.path.replace("%2B", "+")
        if path in builds:
            name = f"/torch-{builds[path]}-py3-none-any.whl"
            request.page(f'<!DOCTYPE html><html><body><a href="{name}">{name[1:]}</a></body></html>'.encode())
        elif path in files and (wheel_is_there or "+cpu" not in path):
            request.page(files[path], Content_Type="application/zip")
        else:
            request.page(b"", 404)

    with index(answer) as url:
        bare.CPU_INDEX = url + "/cpu"
        flags, _ = bare.which_torch("linux")
        assert flags
        monkeypatch.setenv("PIP_INDEX_URL", url + "/pypi")             # now, in place of the real one
        monkeypatch.setenv("PIP_RETRIES", "0")
        bare.install(lambda argv: subprocess.check_call([*argv, "--no-cache-dir", "--target", str(tmp_path / "there")],
                                                        stderr=subprocess.DEVNULL), bare.INSTALLS[0], flags)  # fmt: skip
    assert f"'{pinned}{'+cpu' if wheel_is_there else ''}'" in (tmp_path / "there" / "torch" / "__init__.py").read_text()


# --- Ctrl-C ----------------------------------------------------------------------------------------------------------

STUBBORN = """
import pathlib, signal, sys, time
try:
    pathlib.Path("begun").write_text("")                   # from here on Ctrl-C may come
    time.sleep(60)
except KeyboardInterrupt:
    time.sleep(1)                                          # longer than subprocess waits before it kills
    pathlib.Path("tidied").write_text("")
    sys.exit(7)
"""
BY = {
    "course.py": "import course; course.set_up = lambda call: None; course.commands = lambda verb, rest: [{argv}]\n"
                 "sys.exit(course.main(['any']))",
    "lab": "from fl_course.workbook.commands.orphans import hand_over\nsys.exit(hand_over({argv}, os.environ))",
}  # fmt: skip


@pytest.mark.skipif(os.name != "posix", reason="Ctrl-C is sent to a group of processes")
@pytest.mark.parametrize("by", BY)
def test_what_is_running_answers_ctrl_c_itself_and_may_take_its_time(tmp_path, by):
    code = f"import os, sys\nsys.path.insert(0, {str(ROOT)!r})\n" + BY[by].format(argv=[sys.executable, "-c", STUBBORN])
    process = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, start_new_session=True)
    deadline = time.monotonic() + 60
    while not (tmp_path / "begun").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(60) == 7
    assert (tmp_path / "tidied").exists()


@pytest.mark.skipif(os.name != "posix", reason="no signals elsewhere: a killed process ends with a code of its own")
def test_a_killed_verb_ends_as_a_shell_says_it(course):
    assert course.hand_over([sys.executable, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGTERM)"], os.environ) == 143
