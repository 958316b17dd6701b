"""To end processes and all that they started, and to know that nobody is left.

What Flower starts in turn is in the group of its parent or in a new one (the SuperLink's helper is). So the whole tree is looked
up before anybody is told; on Linux also by a mark in the environment, because a child of the dead has no parent any more.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path

WINDOWS = os.name == "nt"
MARK = "FL_COURSE_DEPLOYMENT"
PATIENT, FORCED = 12.0, 10.0            # seconds to end when asked, and when made to
Popen = subprocess.Popen[bytes]


def stop(processes: Iterable[Popen], patient: float = PATIENT, mark: str = "") -> None:
    """End them all with everything that they started: asked first, together; then made to. Returns when nobody is left. mark:
    what was started with it is found even if whoever started it is dead."""
    running = list(processes)[::-1]
    groups = {process.pid for process in running} | groups_below({process.pid for process in running} | marked(mark))
    for force in (False, True) if patient else (True,):
        tell(groups if not WINDOWS else {process.pid for process in running}, force)
        ends = time.monotonic() + (FORCED if force else patient)
        while time.monotonic() < ends:
            ended = [process.poll() is not None for process in running]
            if all(ended) and not any(map(group_lives, groups)):
                break
            time.sleep(0.1)
        else:
            continue
        break
    for process in running:
        if process.stdout is not None:
            process.stdout.close()


def tell(groups: Iterable[int], force: bool) -> None:
    """Ask these groups to end, or make them; on Windows, the processes of these numbers and those below them."""
    for group in groups:
        if WINDOWS:
            words = ["taskkill", "/T", "/PID", str(group), *(["/F"] if force else [])]
            subprocess.run(words, capture_output=True, check=False)
        else:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(group, signal.SIGKILL if force else signal.SIGTERM)


def groups_below(pids: set[int]) -> set[int]:
    """The process groups of all descendants."""
    rows, below = _table(), set(pids)
    while more := {pid for pid, parent, _, _ in rows if parent in below and pid not in below}:
        below |= more
    return {group for pid, _, group, _ in rows if pid in below} - ({os.getpgrp()} if not WINDOWS else set())


def marked(mark: str) -> set[int]:
    """The processes with this mark in their environment, where the system shows it (Linux)."""
    found = set()
    for file in Path("/proc").glob("[0-9]*/environ") if mark else ():
        with contextlib.suppress(OSError):
            if f"{MARK}={mark}".encode() in file.read_bytes():
                found.add(int(file.parent.name))
    return found - {os.getpid()}


def group_lives(group: int) -> bool:
    """Whether anybody is left of a process group; the dead whom nobody has buried do not count."""
    if WINDOWS:
        return False                        # taskkill /T has ended the tree
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return any(of == group and not state.startswith("Z") for _, _, of, state in _table())


def _table() -> list[tuple[int, int, int, str]]:
    """(pid, parent, group, state) of every process: from /proc, or as `ps` of any Unix prints it."""
    if WINDOWS:
        return []
    rows = []
    for file in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, parent, group, *_ = file.read_text(errors="replace").rpartition(")")[2].split()
            rows.append((int(file.parent.name), int(parent), int(group), state))
    if not rows:
        printed = subprocess.run(["ps", "-A", "-o", "pid=,ppid=,pgid=,stat="], capture_output=True, text=True, check=False).stdout
        words = [line.split() for line in printed.splitlines()]
        rows = [(int(row[0]), int(row[1]), int(row[2]), row[3]) for row in words if len(row) == 4]
    return rows
