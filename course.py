#!/usr/bin/env python3
# -*- coding: utf-8 -*-
"""Sets up the course in .venv beside this file, once, and hands over to it. Needs Python 3.11 or newer, and pip.

    python3 course.py run          train a federation on real data, print a table, take the tour, leave reports/index.html
    python3 course.py lab          open JupyterLab on the first notebook
    python3 course.py test         run every test; with arguments, pytest on tests/ with these: test -k shamir
    python3 course.py setup        set up only
    python3 course.py VERB ...     fl-course's: doctor, start, check, judge, grade, sweep, export, train, classroom, deploy
"""

# Also Python 2.7 must be able to read this file, or it could not say what is wrong: no annotations, no f-strings.
from __future__ import print_function

import hashlib
import os
import signal
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.abspath(__file__))
VENV = os.path.join(ROOT, ".venv")
BIN = os.path.join(VENV, "Scripts" if os.name == "nt" else "bin")
PYTHON = os.path.join(BIN, "python.exe" if os.name == "nt" else "python")
STAMP = os.path.join(VENV, "installed")        # what was installed and where; written last, so a failed install leaves none
# torch goes first and alone: this range takes the wheel for CPUs where pip is pointed at one, an open range never does.
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
SOURCES = ("index-url", "extra-index-url", "find-links", "no-index")           # settings of pip that say where packages are
CUDA = "pip's default, which on Linux brings CUDA: 2.7 GB to download for torch 2.13, and more on the disk"
INSTALLS = (["torch>=2.6,<2.14"], ["-e", ROOT + "[test,browser]"])
PARALLEL = ["-p", "no:cacheprovider", "-n", "auto", "--dist", "loadfile"]
NBVAL = ["--nbval-lax", "--nbval-current-env", "--nbval-sanitize-with", "tests/nbval_sanitize.cfg",
         "--nbval-cell-timeout", "120"]


class SetupError(Exception):
    """The course cannot be set up here; the message says why and what to do."""


def too_old(version):
    """A sentence if this Python cannot run the course, else nothing."""
    if tuple(version[:2]) >= (3, 11):
        return ""
    return "The course needs Python 3.11 or newer; this is Python {}.{}. Newer ones: https://www.python.org".format(*version[:2])


def wanted(root=ROOT, version=sys.version):
    """The stamp of an environment that is up to date: what is asked for, this Python, and where the checkout lies."""
    digest = hashlib.sha256()
    for name in ("pyproject.toml", "constraints.txt"):
        with open(os.path.join(root, name), "rb") as file:
            digest.update(file.read() + b"\0")
    digest.update(version.encode())
    return digest.hexdigest() + "\n" + root + "\n"


def stamp():
    """What the last complete set-up wrote, or nothing."""
    try:
        with open(STAMP, encoding="utf-8") as file:
            return file.read()
    except (OSError, ValueError):
        return ""


def answers(code):
    """Whether .venv's own Python runs and says yes to `code`: a moved folder or an upgraded Python leaves one that does not."""
    probe = "import sys; from importlib.util import find_spec; sys.exit(not ({}))".format(code)
    try:
        return subprocess.call([PYTHON, "-c", probe], stderr=subprocess.DEVNULL) == 0
    except OSError:
        return False


def same_python():
    return "sys.version_info[:2] == {!r}".format(tuple(sys.version_info[:2]))


def ready():
    """Whether there is nothing to set up: the stamp is right, and the environment really finds this checkout's package."""
    package = os.path.join(ROOT, "fl_course", "__init__.py")
    finds = "find_spec('fl_course') and find_spec('fl_course').origin == {!r} and find_spec('torch')".format(package)
    return stamp() == wanted() and answers(same_python() + " and " + finds)


def set_up(call):
    """Make .venv and install into it, unless that was done. What was moved, renamed or broken is made anew."""
    if ready():
        return
    print("Setting up .venv, once: a few minutes, most of them for downloading torch ...", flush=True)
    try:
        if os.path.exists(STAMP):
            os.remove(STAMP)
        with tempfile.TemporaryFile(dir=ROOT):
            pass
    except OSError as error:
        sentence = "{} cannot be written to ({}). Copy the course to a folder of your own, and run it there."
        raise SetupError(sentence.format(ROOT, error.strerror))  # noqa: B904  (Python 2.7 must be able to read this file)
    moved = os.path.exists(VENV) and not _made_here()
    if moved or not answers(same_python() + " and find_spec('pip')"):
        call([sys.executable, "-m", "venv", "--clear", VENV])
    flags, sentence = which_torch()
    print("  torch: " + sentence, flush=True)
    for number, what in enumerate(INSTALLS, 1):
        print("  {} of {}: {}".format(number, len(INSTALLS), " ".join(what)), flush=True)
        install(call, what, flags if number == 1 else [])
    with open(STAMP, "w", encoding="utf-8") as file:
        file.write(wanted())
    print("  done.", flush=True)


def install(call, what, flags):
    """Install by pip; if that fails with flags of our own choosing, as when an index breaks off, once more without them."""
    pip = [PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-c", os.path.join(ROOT, "constraints.txt")]
    try:
        call(pip + flags + what)
    except subprocess.CalledProcessError:
        if not flags:
            raise
        print("  That failed with {}. Once more without it: {}.".format(flags[-1], CUDA), flush=True)
        call(pip + what)


def which_torch(platform=sys.platform):
    """(flags for pip, a sentence): which build of torch is installed. A user's own settings of pip come before any choice."""
    own = own_sources()
    if own:
        free = not {"no-index", "extra-index-url"} & set(own)
        hint = " The small CPU build comes with PIP_EXTRA_INDEX_URL=" + CPU_INDEX if free else ""
        return [], "from where your own settings of pip say ({}).{}".format(", ".join(own), hint)
    if not platform.startswith("linux"):
        return [], "pip's default, which here is the small build, without CUDA."
    gpus = said(["nvidia-smi", "-L"], 10)
    if gpus is not None and "No devices" not in gpus:
        return [], "nvidia-smi finds a GPU, so {}.".format(CUDA)
    if cpu_index_answers():
        return ["--extra-index-url", CPU_INDEX], "no GPU here, so the CPU build, about 190 MB, from {}".format(CPU_INDEX)
    return [], "no GPU here, but {} gives no answer, so {}.".format(CPU_INDEX, CUDA)


def own_sources():
    """Which settings say where packages are, in PIP_... variables and pip.conf, as pip itself lists them."""
    found = set()
    for line in (said([PYTHON, "-m", "pip", "config", "list"], 60) or "").splitlines():
        key, _, value = line.partition("=")
        section, _, name = key.rpartition(".")
        if section in (":env:", "global", "install") and value.strip("'\" ").lower() not in ("", "0", "false", "no", "off"):
            found.add(name)
    return [name for name in SOURCES if name in found]


def said(argv, seconds):
    """What a program prints; nothing if there is none, it fails, or it takes too long."""
    try:
        return subprocess.check_output(argv, stderr=subprocess.DEVNULL, timeout=seconds).decode("utf-8", "replace")
    except (OSError, subprocess.SubprocessError):
        return None


def cpu_index_answers(seconds=3):
    """Whether CPU_INDEX shows wheels of torch in time. In a thread: a dead name server or a trickle outlasts any time-out."""
    from contextlib import suppress
    from threading import Thread
    from urllib.request import urlopen

    pages = []

    def ask():
        with suppress(Exception):                                    # whatever it is, it is no answer
            pages.append(urlopen(CPU_INDEX + "/torch/", timeout=seconds).read(50000))

    thread = Thread(target=ask)
    thread.daemon = True
    thread.start()
    thread.join(seconds)
    return bool(pages) and b"torch-" in pages[0] and b".whl" in pages[0]


def _made_here():
    """Whether .venv was made at this very place. Its scripts hold absolute paths, so a moved one is of no use."""
    try:
        with open(os.path.join(VENV, "pyvenv.cfg"), encoding="utf-8") as file:
            made = [line for line in file if line.startswith("command")]
    except OSError:
        return False
    return not made or made[0].rstrip().endswith(VENV)


def commands(verb, rest, root=ROOT):
    """What a verb runs inside the environment, one argv a step."""
    if verb == "setup":
        return []
    if verb == "doctor" and not rest:          # by its file: it must also work where the package cannot be imported
        return [[PYTHON, os.path.join(root, "fl_course", "workbook", "commands", "doctor.py")]]
    if verb != "test":
        return [[PYTHON, "-m", "fl_course", verb] + rest]
    pytest = [PYTHON, "-m", "pytest"]
    if rest:
        return [pytest + ["tests"] + rest]
    books = [folder for folder in ("notebooks", "solutions") if _holds_notebooks(os.path.join(root, folder))]
    return [pytest + ["tests"] + PARALLEL] + ([pytest + NBVAL + PARALLEL + books] if books else [])


def _holds_notebooks(folder):
    return os.path.isdir(folder) and any(name.endswith(".ipynb") for name in os.listdir(folder))


def run_tests(steps, env):
    """Run pytest step by step, all of them even after a failure, and add up what they counted."""
    from xml.etree import ElementTree

    total, status = {"tests": 0, "failures": 0, "errors": 0, "skipped": 0}, 0
    with tempfile.TemporaryDirectory() as folder:
        for number, step in enumerate(steps):
            counts = os.path.join(folder, "{}.xml".format(number))
            status = subprocess.call(step + ["--junitxml=" + counts], env=env, cwd=ROOT) or status
            for suite in ElementTree.parse(counts).iter("testsuite") if os.path.exists(counts) else ():
                total = {name: total[name] + int(suite.get(name, 0)) for name in total}
    failed = total["failures"] + total["errors"]
    passed = total["tests"] - failed - total["skipped"]
    print("{} passed, {} failed, {} skipped".format(passed, failed, total["skipped"]))
    return status


def hand_over(argv, env):
    """Run it, and leave Ctrl-C to it alone: it may have marks to write or processes to stop, and would be killed at that."""
    before = signal.signal(signal.SIGINT, lambda number, frame: None)        # a child does not inherit this, as it would SIG_IGN
    try:
        status = subprocess.call(argv, env=env)
    finally:
        signal.signal(signal.SIGINT, before)
    return 128 - status if status < 0 else status                            # as a shell says it


def main(argv, version=sys.version_info, call=None):
    if too_old(version):
        print(too_old(version), file=sys.stderr)
        return 2
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(__doc__.strip())
        return 0 if argv else 2
    for stream in (sys.stdout, sys.stderr):
        getattr(stream, "reconfigure", dict)(errors="replace")   # a folder whose name this terminal cannot write costs a "?"
    try:
        set_up(call or subprocess.check_call)
    except SetupError as error:
        print(error, file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:
        step = "venv" if "venv" in error.cmd else "pip install"
        hint = " On Debian and Ubuntu, `apt install python3-venv` provides it." if step == "venv" else ""
        print("Setting up failed at {}; its message is above.{} The same command goes on from here.".format(step, hint),
              file=sys.stderr)
        return 1
    env = dict({"OMP_NUM_THREADS": "1"}, **os.environ)           # two threads on tiny steps are slower than one
    steps = commands(argv[0], argv[1:])
    if argv[0] == "test":
        return run_tests(steps, env)
    return hand_over(steps[0], env) if steps else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
