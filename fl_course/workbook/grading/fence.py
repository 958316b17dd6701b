"""The fence around one submission: bounds of the system, and on Linux a room of its own by `bwrap` when it is asked for.

Without a room: connections leave for this machine only and no process is started (an audit hook, worker.py), memory, the size
of a file and the number of processes are bounded where the system has such bounds, and all processes are killed together.
With one, there is no network at all, nothing but the folder of the work can be written, and neither the other submissions nor
the results can be read.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

MEMORY = 6 << 30                              # bytes of private data; PyTorch with its threads takes less than one GiB
FILE = 256 << 20                              # bytes of one file
WORK = "fl-course-grade-"                     # begins the name of the folder in which a submission runs
PROCESSES = 256                               # more than this account runs when the submission starts, threads counted


def limit(processes: bool = True) -> None:
    """Bound this process and its children, where the system has bounds. What it has not is passed over, as `words` says."""
    resource = _resource()
    if resource is None:
        return
    bounds = {"RLIMIT_DATA": MEMORY, "RLIMIT_FSIZE": FILE, "RLIMIT_CORE": 0}
    if processes and sys.platform.startswith("linux"):
        bounds["RLIMIT_NPROC"] = _tasks() + PROCESSES
    for name, most in bounds.items():
        kind = getattr(resource, name, None)
        if kind is not None:
            with contextlib.suppress(ValueError, OSError):       # an administrator's bound is narrower still
                hard = resource.getrlimit(kind)[1]
                most = most if hard == resource.RLIM_INFINITY else min(most, hard)
                resource.setrlimit(kind, (most, most))


def end_with_parent() -> None:
    """Whoever kills the grading outright ends this process too. Windows gives it no new parent, so there it cannot tell."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    if os.name == "posix":
        threading.Thread(target=watch, daemon=True).start()


def words(sandbox: bool) -> str:
    """Which fence is up, for the table and the pages."""
    if sandbox:
        room = "bwrap: no network, no writing outside its folder, neither results nor other submissions in sight"
    else:
        room = "no sandbox: no connections to other machines, no new processes; files as the account that grades"
    if _resource() is None:
        return f"{room}; no bounds on memory, files and processes on this system"
    count = ", processes" if sys.platform.startswith("linux") else ""
    return f"{room}; memory {MEMORY >> 30} GiB, a file {FILE >> 20} MiB{count} bounded"


def why_not() -> str:
    """Why there can be no sandbox on this machine, or ""."""
    if not sys.platform.startswith("linux"):
        return "--sandbox needs Linux with bwrap (bubblewrap); here grade in a virtual machine, or without --sandbox"
    if shutil.which("bwrap") is None:
        return "--sandbox needs bwrap; install the package bubblewrap, or grade in a container, or without --sandbox"
    tried = subprocess.run([*_room(), "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        said = " ".join(tried.stderr.split())[:200]
        return f"--sandbox: bwrap may not make a room on this system ({said}); grade in a container, or without --sandbox"
    return ""


def in_room(command: Sequence[str], work: str, hidden: Sequence[Path]) -> list[str]:
    """The command, run by bwrap: it can write to the folder `work` and nowhere else, and finds the folders `hidden` empty."""
    masks = [word for folder in out_of_sight(hidden) for word in ("--tmpfs", folder)]
    return [*_room(), *masks, "--bind", work, work, "--chdir", work, *command]


def out_of_sight(folders: Sequence[Path]) -> list[str]:
    """Those of the folders that can be kept from a submission: not one in which Python, the course or all temporary files are."""
    needed = [Path(sys.prefix), Path(sys.base_prefix), Path(__file__), Path(sys.executable), Path(tempfile.gettempdir())]
    needed += [Path(place) for place in sys.path if place]
    found = []
    for folder in dict.fromkeys(folder.resolve() for folder in folders):
        if folder.is_dir() and not any(path.resolve().is_relative_to(folder) or path.is_relative_to(folder) for path in needed):
            found.append(str(folder))
    return found


def _room() -> list[str]:
    alone = ["--unshare-all", "--die-with-parent", "--new-session"]
    return ["bwrap", *alone, "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc"]


def _tasks() -> int:
    """Processes and threads of this account, which is what the system counts."""
    count, me = 0, os.getuid()
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError):                   # it has ended since
                count += len(os.listdir(f"{entry.path}/task")) if entry.stat().st_uid == me else 0
    return count


def _resource() -> Any:
    try:
        import resource
    except ImportError:                       # Windows
        return None
    return resource
