"""A process that has imported everything, and divides into a worker for each submission: the two seconds that PyTorch takes are
spent once and not for every file. Linux only; elsewhere, and in a sandbox, each worker starts from nothing.

The grader hands over a folder and three open files, and hears a line with the worker's number, then one with how it ended.
What is in a submission goes to the worker alone, past the template, so that none finds traces of another. The template waits
for one worker at a time; what a submission left running, in whatever session, comes to be its child and is killed.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from typing import IO, NoReturn

STARTING = 300                                # seconds in which it must have imported what it needs
OF_ONE = ("TMPDIR", "IPYTHONDIR")             # variables that name the folder of a worker
SUBREAPER = 36                                # prctl(2): orphans below come to this process


class Template:
    """The grader's side. Begin one worker, wait for it, begin the next; `works` is False when it cannot be used any more."""

    def __init__(self, chapter: str, environment: Mapping[str, str]) -> None:
        self.channel, theirs = socket.socketpair()
        kept = {name: value for name, value in environment.items() if name not in OF_ONE}
        command = [sys.executable, "-m", __spec__.name, str(theirs.fileno()), chapter]
        with theirs:
            self.process = subprocess.Popen(
                command, cwd="/", env=kept, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        self.works = True

    def begin(self, work: str, stderr: IO[bytes]) -> Worker | None:
        """A worker in the folder `work`, or None if the template does not answer."""
        (stdin, to_it), (from_it, stdout) = os.pipe(), os.pipe()
        try:
            socket.send_fds(self.channel, [os.fsencode(work)], [stdin, stdout, stderr.fileno()])
            number = self.line(STARTING)
        except OSError:
            number = ""
        finally:
            os.close(stdin)
            os.close(stdout)
        if not number:
            self.works = False
            os.close(to_it)
            os.close(from_it)
            return None
        return Worker(self, int(number), os.fdopen(to_it, "wb"), os.fdopen(from_it, "rb"))

    def line(self, seconds: float) -> str:
        """What the template says next; "" if it is gone. TimeoutError."""
        self.channel.settimeout(max(seconds, 0.001))
        said = b""
        while not said.endswith(b"\n"):
            letter = self.channel.recv(1)
            if not letter:
                return ""
            said += letter
        return said.decode().strip()

    def end(self) -> None:
        """It ends when nobody listens any more; killed, in case it does not."""
        self.works = False
        self.channel.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(2)
        self.process.kill()
        self.process.wait()


class Worker:
    """A worker that a template began; what one asks of a `subprocess.Popen` can be asked of it."""

    def __init__(self, template: Template, pid: int, stdin: IO[bytes], stdout: IO[bytes]) -> None:
        self.template, self.pid, self.stdin, self.stdout = template, pid, stdin, stdout
        self.returncode: int | None = None
        self.lock = threading.Lock()          # one may wait for it while another kills it

    def wait(self, seconds: float) -> int:
        """How it ended. subprocess.TimeoutExpired."""
        if not self.lock.acquire(timeout=seconds):
            raise subprocess.TimeoutExpired("a worker", seconds)
        try:
            if self.returncode is None:
                try:
                    said = self.template.line(seconds)
                except TimeoutError as error:
                    raise subprocess.TimeoutExpired("a worker", seconds) from error
                except OSError:
                    said = ""
                self.template.works = bool(said)
                self.returncode = int(said or -signal.SIGKILL)   # it killed its template: that has killed it
            return self.returncode
        finally:
            self.lock.release()

    def kill(self) -> None:
        if self.returncode is None:
            os.kill(self.pid, signal.SIGKILL)


# --- the template's side ---------------------------------------------------------------------------------------------


def serve(channel: socket.socket, chapter: str) -> None:
    """Import everything; then a worker for each message, until there are no more."""
    import IPython.core.interactiveshell  # noqa: F401

    from . import checks, worker

    with contextlib.suppress(Exception):      # an author's own chapter that is broken: each worker says so
        checks.chapter(chapter)
    _adopt()
    gc.collect()
    gc.freeze()                               # what is there stays shared
    while True:
        message, files, _, _ = socket.recv_fds(channel, 1 << 16, 3)
        if not message:
            return
        pid = os.fork()
        if pid == 0:
            channel.close()
            _become(worker.main, os.fsdecode(message), files)
        for file in files:
            os.close(file)
        channel.sendall(b"%d\n" % pid)
        while not (ended := os.waitpid(pid, os.WNOHANG))[0]:
            if select.select([channel], [], [], 0.01)[0]:        # the grader is gone
                _kill_children()
                return
        _kill_children()
        channel.sendall(b"%d\n" % os.waitstatus_to_exitcode(ended[1]))


def _become(main: object, work: str, files: list[int]) -> NoReturn:
    """A worker, as if it had been started in the folder `work` with these files as its standard ones."""
    try:
        os.setsid()
        for number, file in enumerate(files):
            os.dup2(file, number)
            os.close(file)
        os.chdir(work)
        os.environ.update(dict.fromkeys(OF_ONE, work))
        sys.path[0] = work
        main()                                # type: ignore[operator]
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(1)


def _adopt() -> None:
    """Whatever loses its parent below here becomes a child of this process."""
    import ctypes

    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0)


def _kill_children() -> None:
    """All processes below this one, until there are none."""
    for _ in range(100):
        for pid in _children():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(0.01)


def _children() -> list[int]:
    found = []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError), open(f"{entry.path}/stat", "rb") as file:
                parent = file.read().rpartition(b")")[2].split()[1]     # the name in brackets may hold anything
                found += [int(entry.name)] if int(parent) == os.getpid() else []
    return found


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as channel:
        serve(channel, sys.argv[2])
