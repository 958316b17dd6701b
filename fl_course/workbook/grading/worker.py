"""The process in which one student's notebook is run. It reads a job from stdin and reports to its parent.

    {"cells": [[1, "import numpy"], …], "chapter": "01", "cell_seconds": 10, "seed": 0, "word": "5f…"}

Every cell runs, whatever became of the one before. When the notebook calls check(name, fn), our own check is put to
`fn`; at the end a function that was never handed over is looked up by its name. All that is known is reported after each
exercise, so that whatever kills the process costs only what had not been reached. A report is a line of JSON behind the
word, to a copy of stdout; stdout itself leads nowhere (see referee.py, which reads it). On Linux the process divides first: the
notebook runs in one half, and the other one, which alone knows the word, sees for itself what is solved (judge.py).

What the student's code may not do is refused by an audit hook, which Python code cannot take away: connect anywhere
but to this machine, start or signal another process, open the other submissions or the results. Memory, files and processes
are bounded by the system (fence.py). Shell commands in a cell (`!pip …`) and magics that are not known here are passed over and
named. That is a fence against accidents and idle mischief, not a prison: compiled code can step over it, a host name may still be
looked up, and other files of the account that runs the grading can be read and written.
Grade files of strangers with --sandbox, in a container, or as a user who owns nothing.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

import numpy as np

from . import checks, fence, judge
from .carry import Line
from .compare import Function

PROCESSES = (
    "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty", "os.startfile",
)
FILES = (
    "open", "os.listdir", "os.scandir", "os.chdir", "os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink",
    "os.truncate", "os.chmod", "os.chown", "os.utime", "sqlite3.connect", "ctypes.dlopen",
)  # fmt: skip
OTHER = re.compile(r"/proc/(\d+)")
FEW = 20                                      # commands of one cell that are named


def refuse_network(hidden: Sequence[str] = ()) -> None:
    """From now on connections leave this process for the loopback only, it starts and signals no other process, and it opens
    nothing in the folders `hidden`, in which the other submissions and the results are, nor what is another process's."""
    home, me = os.path.realpath("."), str(os.getpid())

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event in PROCESSES:
            raise PermissionError(f"no other processes while grading ({event})")
        if event in ("os.kill", "os.killpg") and str(args[0]) != me:
            raise PermissionError("no signals to other processes while grading")
        if event in FILES and any(away(path) for path in args[:2]):
            raise PermissionError("not to be opened while grading: what is another's")
        if event in ("socket.connect", "socket.sendto", "socket.sendmsg") and not _is_local(args[-1]):
            raise PermissionError(f"no network while grading: {args[-1]!r}")
        if event in ("socket.getaddrinfo", "socket.gethostbyname") and not _is_local((args[0], 0)):
            raise PermissionError(f"no network while grading: {args[0]!r}")

    def away(path: Any) -> bool:
        if not isinstance(path, str | bytes | os.PathLike):
            return False
        place = os.path.realpath(os.fsdecode(path))
        process = OTHER.match(place)
        if process:
            return process[1] != me
        inside = any(place == folder or place.startswith(folder + os.sep) for folder in hidden)
        return inside or (os.sep + fence.WORK in place and place != home and not place.startswith(home + os.sep))

    sys.addaudithook(hook)


def _is_local(address: Any) -> bool:
    if isinstance(address, str | bytes) or address is None:      # a Unix socket, or a socket already connected
        return True
    host = address[0].decode() if isinstance(address[0], bytes) else address[0]
    if host in ("localhost", "", None):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """KeyboardInterrupt in the main thread after so many seconds; code that swallows it is killed by the parent."""
    gate, main = threading.Lock(), threading.main_thread()
    over = False

    def ring() -> None:
        with gate:
            if over:
                return
            if hasattr(signal, "pthread_kill") and main.ident:
                signal.pthread_kill(main.ident, signal.SIGINT)   # also wakes a sleep
            else:
                signal.raise_signal(signal.SIGINT)

    timer = threading.Timer(seconds, ring)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        with gate:
            over = True


class Marks:
    """What is known of each exercise of the chapter so far, told to the parent whenever it changes."""

    def __init__(self, chapter: str, seed: int, tell: Callable[[str], None], line: Line | None = None) -> None:
        self.tell, self.seed, self.line = tell, seed, line
        self.gate = threading.RLock()                            # a thread of the notebook may call check, too
        self.exercises = {exercise.name: exercise for exercise in checks.chapter(chapter)}
        self.found = {name: {"state": "todo", "message": "no answer found", "hint": ""} for name in self.exercises}
        self.cells: list[dict[str, Any]] = []                    # cells that ended in an error
        self.at = 0                                              # the cell that is running
        self.finished = False

    def put(self, name: str, fn: Function) -> checks.Result:
        """Our check of the student's function. A later answer replaces an earlier one that did not pass."""
        with self.gate:
            return self._put(name, fn)

    def _put(self, name: str, fn: Function) -> checks.Result:
        exercise = self.exercises.get(name) or checks.find(name)
        if name in self.found and self.found[name]["state"] != "pass":
            self.found[name] = {"state": "fail", "message": "did not come back in time", "hint": ""}
            self.save()
        try:
            result = checks.mark(exercise, fn, self.seed)
        except KeyboardInterrupt:
            raise
        except BaseException as error:        # sys.exit() in an answer; a __repr__ that raises
            result = checks.Result(name, "fail", f"the check was left by {type(error).__name__}")
        if result.passed and self.line and name in self.found and self.found[name]["state"] != "pass":
            seen, message = judge.confirmed(self.line, name, fn)
            result = result if seen else checks.Result(name, "fail", f"right in its own process only: {message}")
        if name in self.found and self.found[name]["state"] != "pass":
            self.found[name] = {"state": result.state, "message": result.message, "hint": result.hint}
            self.save()
        return result

    def save(self) -> None:
        self.tell(json.dumps({"exercises": self.found, "cells": self.cells, "at": self.at, "finished": self.finished}))


def run(job: dict[str, Any], tell: Callable[[str], None], ready: Callable[[], None], line: Line | None = None) -> None:
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    import fl_course.workbook as workbook

    marks = Marks(job["chapter"], job["seed"], tell, line)
    workbook.check = checks.check = marks.put
    settings = Config()
    settings.HistoryManager.enabled = False
    shell = InteractiveShell.instance(config=settings)
    shell.user_ns["__name__"] = "__main__"
    signal.signal(signal.SIGINT, signal.default_int_handler)     # a parent may have had it ignored
    _pass_over(shell, marks)
    fence.end_with_parent()
    fence.limit()
    refuse_processes()
    refuse_network(job["hidden"])
    ready()
    for number, source in job["cells"]:
        marks.at = number
        marks.save()
        if error := _run_cell(shell, source, job["cell_seconds"]):
            marks.cells.append({"cell": number, "error": error})
    for name, exercise in marks.exercises.items():
        fn = shell.user_ns.get(exercise.solution.__name__)
        if marks.found[name]["state"] != "pass" and callable(fn) and not _same_trouble(marks.found[name]):
            with contextlib.suppress(KeyboardInterrupt, SystemExit), time_limit(job["cell_seconds"]):
                marks.put(name, fn)
    marks.finished = True
    marks.save()


def _pass_over(shell: Any, marks: Marks) -> None:
    """Shell commands, pictures' windows and what only a notebook's own kernel or page can do stop no cell; what was left out is
    named, of a loop the first few."""
    from IPython.core.error import UsageError

    def passed_over(what: str) -> None:
        entry = {"cell": marks.at, "error": what[:500]}
        if entry not in marks.cells and sum(one["cell"] == marks.at for one in marks.cells) < FEW:
            marks.cells.append(entry)

    def line_magic(name: str, line: str, _stack_depth: int = 1) -> Any:
        try:
            return run_line_magic(name, line, _stack_depth=_stack_depth + 1)
        except UsageError:
            if shell.find_line_magic(name):
                raise
            return passed_over(f"the magic was not run, there is none of this name: %{name} {line}")

    run_line_magic, shell.run_line_magic = shell.run_line_magic, line_magic
    shell.enable_matplotlib = lambda gui=None: (None, "agg")
    for name in ("system", "system_piped", "system_raw"):
        setattr(shell, name, lambda command: passed_over(f"the shell command was not run: {command}"))
    shell.getoutput = lambda command, **_: shell.system(command) or []


def write(channel: int, data: bytes) -> None:
    while data:
        data = data[os.write(channel, data) :]


def refuse_processes() -> None:
    """Of `multiprocessing`, too, which starts them past the audit events."""
    def refuse(*_: Any, **__: Any) -> Any:
        raise PermissionError("no other processes while grading")

    with contextlib.suppress(ImportError):
        import _posixsubprocess

        _posixsubprocess.fork_exec = refuse
    with contextlib.suppress(ImportError):
        import _winapi

        _winapi.CreateProcess = refuse                            # type: ignore[attr-defined]


def _take_stdout() -> int:
    """A copy of stdout, which leads nowhere from now on."""
    channel, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
    return channel


def _same_trouble(found: dict[str, str]) -> bool:
    return found["message"] == "did not come back in time"


def _run_cell(shell: Any, source: str, seconds: float) -> str:
    """What went wrong in a cell, in one line; empty if nothing did."""
    for name in ("stdout", "stderr"):                            # an earlier cell may have closed them
        if getattr(getattr(sys, name, None), "closed", True):
            nowhere = os.open(os.devnull, os.O_WRONLY)           # `open` may be anything by now
            setattr(sys, name, os.fdopen(nowhere, "w", encoding="utf-8", errors="replace"))
    try:
        with time_limit(seconds):
            result = shell.run_cell(source, store_history=False)
    except KeyboardInterrupt:                                    # rang just as the cell came to its end
        return f"stopped after {seconds:g} s"
    except Exception as trouble:                                 # IPython could not even say what was wrong
        return f"{type(trouble).__name__}: {trouble}"[:500]
    error = result.error_before_exec or result.error_in_exec
    if error is None or (isinstance(error, NotImplementedError) and not error.args):
        return ""
    if isinstance(error, KeyboardInterrupt):
        return f"stopped after {seconds:g} s"
    return f"{type(error).__name__}: {error}"[:500]


def main() -> NoReturn:
    np.seterr(all="ignore")                                      # warnings of student code are nobody's business here
    word: list[bytes] = []                                       # what a line begins with; where they divide, one half has it

    def read() -> dict[str, Any]:
        job: dict[str, Any] = json.load(sys.stdin)
        word.append(job.pop("word").encode())
        return job

    def tell(text: str) -> None:
        write(channel, b"\n" + word[0] + text.encode() + b"\n")

    def ready() -> None:                                         # the clock may start: importing is not the student's time
        write(channel, b"r")

    channel = 1 if judge.CAN else _take_stdout()
    if judge.CAN:
        line, job = judge.divide(tell, ready, read)
        run(job, lambda text: line.send({"known": text}), lambda: line.send({"ready": True}), line)
    else:
        run(read(), tell, ready)
    os._exit(0)                                                  # threads that the notebook left running end here


if __name__ == "__main__":
    main()
