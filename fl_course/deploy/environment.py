"""Flower's own environment: in Jupyter's it would take typer, rich, packaging and protobuf back to older versions. Made once.

Beside the course's .venv, as .venv-flower, if this is a checkout, else in the user's cache. FL_COURSE_FLOWER names a Python that
has Flower, if you have one. What computes (torch, numpy …) is installed in the very versions that run here: the same numbers.
"""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import fl_course

from ..core import FederatedError

FLOWER = "flwr>=1.40,<2"
SAME = ("torch", "numpy", "scipy", "scikit-learn", "cryptography", "msgpack", "dp-accounting")
VARIABLE = "FL_COURSE_FLOWER"
CPU_INDEX = "https://download.pytorch.org/whl/cpu"                                       # as course.py does, and for its reasons
SOURCES = ("index-url", "extra-index-url", "find-links", "no-index")                    # a user's own settings of pip decide


class NoFlower(FederatedError):
    """There is no environment with Flower, and none could be made; the message says why and what to do."""


def place() -> Path:
    """Where the environment is, or will be."""
    package = Path(fl_course.__file__).resolve().parent
    if (package.parent / "course.py").exists() and os.access(package.parent, os.W_OK):
        return package.parent / ".venv-flower"
    cache = os.environ.get("LOCALAPPDATA") or os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "fl-course" / "venv-flower"


def python_of(folder: Path) -> Path:
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def works(python: str | Path) -> bool:
    """Whether this Python has Flower and can import this very package."""
    probe = "import flwr, fl_course.deploy, sys; sys.exit(0)"
    try:
        return subprocess.run([str(python), "-c", probe], capture_output=True, timeout=120).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def flower(say: Callable[[str], None] = print) -> Path:
    """The Python that has Flower; made now if there is none yet, which needs a package registry. NoFlower says why not."""
    if named := os.environ.get(VARIABLE):
        if works(named):
            return Path(shutil.which(named) or named)            # Flower's tools are looked for beside it
        raise NoFlower(f"{VARIABLE} names {named}, which cannot import flwr and fl_course; mend it, or unset the variable")
    folder = place()
    python = python_of(folder)
    if (folder / "installed").exists() and works(python):
        return python
    say(f"Making Flower's own environment in {folder}, once: some minutes, most of them for downloading torch …")
    pins = [f"{name}=={importlib.metadata.version(name).partition('+')[0]}" for name in SAME]
    try:
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True, capture_output=True, text=True)
        for what in ([*pins[:1], *_small_torch(python)], [*pins[1:], FLOWER]):
            say("  " + " ".join(what))
            subprocess.run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *what], check=True,
                           capture_output=True, text=True)                         # fmt: skip
        _lend(folder, python)
    except (OSError, subprocess.CalledProcessError) as why:
        lines = [line for line in str(getattr(why, "stderr", "") or why).splitlines() if line.strip()]
        shutil.rmtree(folder, ignore_errors=True)
        raise NoFlower(
            f"Flower's environment could not be made ({lines[-1][:300] if lines else why}). It needs a package registry once: go "
            f"online and try again, or set {VARIABLE} to a Python in which flwr, torch and numpy are installed"
        ) from why
    (folder / "installed").write_text("\n".join([FLOWER, *pins]) + "\n")
    if not works(python):
        raise NoFlower(f"{python} was made and cannot import flwr and fl_course; delete {folder} and try again")
    say("  done.")
    return python


def _small_torch(python: Path) -> list[str]:
    """Where torch's build for CPUs is to be had, if that is what runs here and pip is told nothing else."""
    told = subprocess.run([str(python), "-m", "pip", "config", "list"], capture_output=True, text=True, check=False).stdout
    own = any(f".{name}=" in told for name in SOURCES)
    small = "+cpu" in importlib.metadata.version("torch")
    return ["--extra-index-url", CPU_INDEX, "--retries", "1"] if small and not own else []


def _lend(folder: Path, python: Path) -> None:
    """Let the environment import this package, and nothing else of the one it is installed in."""
    where = subprocess.run([str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], check=True,
                           capture_output=True, text=True).stdout.strip()          # fmt: skip
    package = Path(fl_course.__file__).resolve().parent
    if (package.parent / "pyproject.toml").exists():
        (Path(where) / "fl_course.pth").write_text(f"{package.parent}\n")
    else:
        shutil.copytree(package, Path(where) / "fl_course", dirs_exist_ok=True)
