#!/usr/bin/env python3
"""Sets up the course in .venv beside this file, once, and hands over to it. Needs Python 3.11 or newer, and pip.

    python3 course.py run          train a federation on real data, print a table, write reports/
    python3 course.py lab          open JupyterLab on the first notebook
    python3 course.py test         run every test; with arguments, pytest on tests/ with these: test -k shamir
    python3 course.py setup        set up only
    python3 course.py VERB …       any other verb of fl-course: doctor, sweep, check, grade, start, export, train
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
BIN = VENV / ("Scripts" if os.name == "nt" else "bin")
PYTHON = BIN / ("python.exe" if os.name == "nt" else "python")
STAMP = VENV / "installed"                     # what was installed; written last, so a failed install leaves none
# torch goes first and alone: this range takes the wheel for CPUs where pip is pointed at one, an open range never does.
INSTALLS = (["torch>=2.6,<2.14"], ["-e", f"{ROOT}[test,browser]"])
PARALLEL = ["-p", "no:cacheprovider", "-n", "auto", "--dist", "loadfile"]
NBVAL = ["--nbval-lax", "--nbval-current-env", "--nbval-sanitize-with", "tests/nbval_sanitize.cfg",
         "--nbval-cell-timeout", "120"]


def too_old(version) -> str:
    """A sentence if this Python cannot run the course, else nothing."""
    found = "{}.{}".format(*version[:2])
    return "" if tuple(version[:2]) >= (3, 11) else f"The course needs Python 3.11 or newer; this is Python {found}."


def wanted(root: Path = ROOT, version: str = sys.version) -> str:
    """The stamp of an environment that is up to date: it changes with what is asked for and with Python."""
    asked = [root / "pyproject.toml", root / "constraints.txt"]
    return hashlib.sha256(b"\0".join([file.read_bytes() for file in asked] + [version.encode()])).hexdigest()


def set_up(call) -> None:
    """Make .venv and install into it, unless the stamp says that this was done."""
    if STAMP.is_file() and STAMP.read_text() == wanted():
        return
    print("Setting up .venv, once: a few minutes, most of them for downloading torch …", flush=True)
    STAMP.unlink(missing_ok=True)
    if not usable():
        call([sys.executable, "-m", "venv", "--clear", str(VENV)])
    for number, what in enumerate(INSTALLS, 1):
        print(f"  {number} of {len(INSTALLS)}: {' '.join(what)}", flush=True)
        call([str(PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
              "-c", str(ROOT / "constraints.txt"), *what])
    STAMP.write_text(wanted())
    print("  done.", flush=True)


def usable() -> bool:
    """Whether .venv has a pip and the Python that runs this file; if not, it is made anew."""
    probe = f"import pip, sys; sys.exit(sys.version_info[:2] != {tuple(sys.version_info[:2])})"
    return PYTHON.exists() and subprocess.call([str(PYTHON), "-c", probe], stderr=subprocess.DEVNULL) == 0


def commands(verb: str, rest: list, root: Path = ROOT) -> list:
    """What a verb runs inside the environment, one argv a step."""
    if verb == "setup":
        return []
    if verb != "test":
        return [[str(BIN / "fl-course"), verb, *rest]]
    pytest = [str(PYTHON), "-m", "pytest"]
    books = [folder for folder in ("notebooks", "solutions") if any((root / folder).glob("*.ipynb"))]
    if rest:
        return [[*pytest, "tests", *rest]]
    return [[*pytest, "tests", *PARALLEL]] + ([[*pytest, *NBVAL, *PARALLEL, *books]] if books else [])


def run_tests(steps: list, env: dict) -> int:
    """Run pytest step by step, all of them even after a failure, and add up what they counted."""
    total, status = {"tests": 0, "failures": 0, "errors": 0, "skipped": 0}, 0
    with tempfile.TemporaryDirectory() as folder:
        for number, step in enumerate(steps):
            counts = Path(folder) / f"{number}.xml"
            status = subprocess.call([*step, f"--junitxml={counts}"], env=env, cwd=str(ROOT)) or status
            for suite in ElementTree.parse(counts).iter("testsuite") if counts.exists() else ():
                total = {name: total[name] + int(suite.get(name, 0)) for name in total}
    failed = total["failures"] + total["errors"]
    print(f"{total['tests'] - failed - total['skipped']} passed, {failed} failed, {total['skipped']} skipped")
    return status


def main(argv: list, version=sys.version_info, call=subprocess.check_call) -> int:
    if too_old(version):
        print(too_old(version), file=sys.stderr)
        return 2
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(__doc__.strip())
        return 0 if argv else 2
    try:
        set_up(call)
    except subprocess.CalledProcessError as error:
        step = "venv" if "venv" in error.cmd else "pip install"
        hint = " On Debian and Ubuntu, `apt install python3-venv` provides it." if step == "venv" else ""
        print(f"Setting up failed at {step}; its message is above.{hint} The same command goes on from here.",
              file=sys.stderr)
        return 1
    env = {"OMP_NUM_THREADS": "1", **os.environ}                 # two threads on tiny steps are slower than one
    steps = commands(argv[0], argv[1:])
    if argv[0] == "test":
        return run_tests(steps, env)
    return subprocess.call(steps[0], env=env) if steps else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
