"""The parent of one worker: what the worker says is read here, checked, and believed as far as it makes sense.

What counts are lines on the worker's first standard output that begin with a word drawn for this file alone; each is checked
field by field, and what is missing or absurd is "not reached". On Linux only the half of the worker in which nothing of the
submission runs has that word (judge.py); elsewhere who looks for it in memory finds it. The worker leads a session of its own,
which is killed whole when its time is over, so that nothing that a submission started lives on.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from . import fence
from .template import Template, Worker

Process: TypeAlias = "subprocess.Popen[bytes] | Worker"
STARTING = 300                                # seconds in which a worker must have imported what it needs
STATES = ("pass", "fail", "todo")
MOST = 1 << 26                                # bytes that a worker may say; a chapter's marks take some thousand a line
LETTERS = 4000                                # of a message that are kept
LIVE: set[Process] = set()                    # the workers of this moment


class Marks:
    """What is known of the exercises `names`, from the lines of a worker that begin with `word`."""

    def __init__(self, word: str, names: Iterable[str]) -> None:
        self.word = word.encode()
        self.exercises = {name: {"state": "todo", "message": "no answer found", "hint": ""} for name in names}
        self.cells: list[dict[str, Any]] = []                    # those that ended in an error
        self.at = 0                                              # the cell that was running
        self.finished = False

    def listen(self, worker: Process) -> None:
        """Until it says no more, or far too much."""
        assert worker.stdout is not None
        rest, total = b"", 0
        while chunk := worker.stdout.read1(1 << 16):             # type: ignore[attr-defined]
            total += len(chunk)
            if total > MOST:
                return end(worker)
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                if line.startswith(self.word):
                    self.hear(line[len(self.word) :])

    def hear(self, line: bytes) -> None:
        """One line, as JSON. Of what it says, that counts which a worker could have said."""
        try:
            said = json.loads(line)
        except (ValueError, RecursionError):
            return
        if not isinstance(said, dict):
            return
        given = said.get("exercises")
        for name, known in self.exercises.items():
            entry = given.get(name) if isinstance(given, dict) else None
            if isinstance(entry, dict) and entry.get("state") in STATES:
                known |= {"state": str(entry["state"]), "message": text(entry.get("message")), "hint": text(entry.get("hint"))}
        cells = said.get("cells")
        if isinstance(cells, list):
            good = [cell for cell in cells[:1000] if isinstance(cell, dict) and type(cell.get("cell")) is int]
            self.cells = [{"cell": cell["cell"], "error": text(cell.get("error"), 500)} for cell in good]
        self.at = said["at"] if type(said.get("at")) is int and 0 <= said["at"] < 1_000_000 else self.at
        self.finished = said.get("finished") is True


def text(value: Any, letters: int = LETTERS) -> str:
    return value[:letters] if isinstance(value, str) else ""


def referee(
    job: dict[str, Any], names: Iterable[str], work: str, seconds: float, hidden: Sequence[Path] | None = None,
    template: Template | None = None,
) -> tuple[Marks, str]:
    """Run a worker on a job, in the folder `work`. Returns what it found, and what went wrong with the file as a whole, or "".

    With `hidden` it runs in a sandbox, in which these folders are empty; else a template may begin it.
    """
    command = [sys.executable, "-m", f"{__package__}.worker"]
    command = command if hidden is None else fence.in_room(command, work, hidden)
    marks = Marks(secrets.token_hex(16), names)
    with tempfile.TemporaryFile() as said:
        worker: Process = (template and hidden is None and template.begin(work, said)) or subprocess.Popen(
            command, cwd=work, env=environment(work), stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=said, start_new_session=True,
        )  # fmt: skip
        assert worker.stdin is not None
        assert worker.stdout is not None
        LIVE.add(worker)
        late = threading.Timer(STARTING, end, [worker])
        late.start()
        listener = threading.Thread(target=marks.listen, args=[worker], daemon=True)
        try:
            with contextlib.suppress(BrokenPipeError):
                worker.stdin.write(json.dumps({**job, "word": marks.word.decode()}).encode())
                worker.stdin.close()
            worker.stdout.read(1)             # it is ready, or it died
            late.cancel()
            listener.start()
            try:
                worker.wait(seconds)
                over = ""
            except subprocess.TimeoutExpired:
                over = f"stopped after {seconds:g} s"
        finally:
            late.cancel()
            end(worker)
            LIVE.discard(worker)
        listener.join(10)
        if not listener.is_alive():
            worker.stdout.close()
        if over or (worker.returncode == 0 and marks.finished):
            return marks, over
        said.seek(0, os.SEEK_END)
        said.seek(max(0, said.tell() - 2000))
        last = said.read().decode(errors="replace").strip().splitlines()[-1:]
        return marks, " ".join([f"the process ended with code {worker.returncode}", *(f"({text(line, 300)})" for line in last)])


def environment(work: str) -> dict[str, str]:
    """The variables of a worker in the folder `work`."""
    kept = {name: value for name, value in os.environ.items() if name not in ("FL_COURSE_STRICT", "NBGRADER_EXECUTION")}
    ours = {"OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg", "PYTHONWARNINGS": "ignore"}
    return {**kept, **ours, "IPYTHONDIR": work, "TMPDIR": work}


def end(worker: Process) -> None:
    """Kill a worker and whatever it has started."""
    if os.name == "posix":
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(worker.pid, signal.SIGKILL)                # its session's first group has its number
    elif isinstance(worker, subprocess.Popen) and worker.poll() is None:
        subprocess.run(["taskkill", "/F", "/T", "/PID", str(worker.pid)], capture_output=True, check=False)
    with contextlib.suppress(OSError):
        worker.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):
        worker.wait(10)


def end_all() -> None:
    for worker in list(LIVE):
        end(worker)
