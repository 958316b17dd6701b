"""The judge of one submission: a process that runs none of its code, and the only one that speaks to the grader (Linux).

A worker divides into two. The student's side runs the notebook and tells what it finds; whatever it says, that an exercise is
solved is believed only if the judge has seen it: it puts the same check to the function itself, by questions and answers over
a socket. So nothing that a notebook changes in its own process (the checks, NumPy, `builtins`), finds in memory or writes
anywhere makes a mark. A function among the arguments stays with the judge, who calls it when it is asked to. A check whose
arguments cannot be sent over would have to be believed; no exercise of the course has one.
"""

from __future__ import annotations

import builtins
import contextlib
import inspect
import io
import json
import os
import pickle
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from types import FunctionType, MethodType
from typing import Any, NoReturn

from ...core import stream
from . import checks, fence
from .carry import Line, merged, packed, unpacked
from .compare import Function
from .exercise import Wrong, examine

CAN = sys.platform == "linux"
DUMPABLE = 4                                  # prctl(2): whether others of this account may look into the process


class Gone(BaseException):
    """The student's side has ended, or says something else than an answer."""


class NotSent(BaseException):
    """An argument that cannot be sent over."""


# --- the student's side ----------------------------------------------------------------------------------------------


def confirmed(line: Line, name: str, fn: Function) -> tuple[bool, str]:
    """Ask the judge to see for itself, and answer its questions. Returns its verdict and a message."""
    line.send({"claim": name, "names": _names(fn)})
    while True:
        head, body = line.receive()
        if "verdict" in head:
            return head["verdict"], head["message"]
        args, kwargs = Question(line, body).load()
        try:
            answer = fn(*args, **kwargs)
        except Exception as error:
            kind = type(error)
            line.send({"raised": [kind.__module__, kind.__name__, *map(str, error.args[:3])]}, packed(args, kwargs, None))
        else:
            line.send({"answered": True}, packed(args, kwargs, answer))


class Question(pickle.Unpickler):
    """What the judge has sent. A function in it asks the judge."""

    def __init__(self, line: Line, body: bytes) -> None:
        pickle.Unpickler.__init__(self, io.BytesIO(body))
        self.line = line

    def persistent_load(self, number: int) -> Function:
        def fn(*args: Any, **kwargs: Any) -> Any:
            self.line.send({"ask": number}, packed(args, kwargs, None))
            head, body = self.line.receive()
            if "raised" in head:
                raise raised(head["raised"])
            return Question(self.line, body).load()

        return fn


def _names(fn: Function) -> list[str]:
    try:
        return list(inspect.signature(fn).parameters)
    except (TypeError, ValueError):
        return []


# --- the judge's side ------------------------------------------------------------------------------------------------


class Sent(pickle.Pickler):
    """What goes to the student's side; `functions` stay here."""

    def __init__(self, value: Any, functions: list[Function]) -> None:
        self.held, self.functions = io.BytesIO(), functions
        pickle.Pickler.__init__(self, self.held)
        try:
            self.dump(value)
        except Exception as error:
            raise NotSent from error

    def persistent_id(self, value: Any) -> int | None:
        home = sys.modules.get(str(getattr(value, "__module__", "")))
        if not isinstance(value, FunctionType | MethodType) or getattr(home, value.__name__, None) is value:
            return None                       # no function, or one that both sides have
        self.functions.append(value)
        return len(self.functions) - 1


class Judge:
    """What is known of each exercise, told to the grader by `tell`."""

    def __init__(self, line: Line, chapter: str, seed: int, tell: Callable[[str], None]) -> None:
        self.line, self.seed, self.tell = line, seed, tell
        self.exercises = {exercise.name: exercise for exercise in checks.chapter(chapter)}
        self.seen: set[str] = set()           # exercises that it has seen solved
        self.said: dict[str, Any] = {}        # by the student's side, last
        self.next: tuple[dict[str, Any], bytes] | None = None    # a message that came instead of an answer

    def preside(self, ready: Callable[[], None]) -> bool:
        """Until the student's side has said its last. Returns whether it has come to its end."""
        while True:
            try:
                head, _ = self.next or self.line.receive()
                self.next = None
                if "claim" in head:
                    self.rule(str(head["claim"]), head.get("names"))
            except (EOFError, Gone) as end:
                if isinstance(end, Gone) and self.next:
                    continue
                return self.said.get("finished") is True
            except (ValueError, OSError):     # no messages of ours: from now on nothing is heard
                return False
            if "ready" in head:
                ready()
            if isinstance(head.get("known"), str):
                with contextlib.suppress(ValueError, RecursionError):
                    self.said = json.loads(head["known"])
                self.pass_on()

    def rule(self, name: str, names: Any) -> None:
        """Is this exercise solved? Said to both sides."""
        message = "this exercise is of another chapter"
        if exercise := self.exercises.get(name):
            fn = self._asking(names)
            try:
                result = examine(exercise, fn, stream(self.seed, "grade", name))
                if result.passed:
                    self.seen.add(name)
                message = result.message
            except NotSent:
                self.seen.add(name)
                message = exercise.title
        self.line.send({"verdict": name in self.seen, "message": message})

    def _asking(self, names: Any) -> Function:
        """A function that puts each call to the student's."""

        def fn(*args: Any, **kwargs: Any) -> Any:
            functions: list[Function] = []
            question = Sent((args, kwargs), functions).held.getvalue()
            try:
                self.line.send({"call": True}, question)
                while "ask" in (reply := self.line.receive())[0]:
                    self._reply(functions, *reply)
            except (EOFError, OSError, ValueError) as error:
                raise Gone from error
            head, body = reply
            if not {"answered", "raised"} & set(head):
                self.next = head, body
                raise Gone
            try:
                new_args, new_kwargs, answer = unpacked(body)
            except (ValueError, TypeError) as error:
                raise Wrong(str(error)) from error
            with contextlib.suppress(Exception):                 # what is left of an argument that no longer fits
                merged(list(args), list(new_args))
                merged(kwargs, new_kwargs)
            if "raised" in head:
                raise raised(head["raised"])
            return answer

        parameter = inspect.Parameter
        with contextlib.suppress(TypeError, ValueError):
            places = [parameter(name, parameter.POSITIONAL_OR_KEYWORD) for name in names[:20]]
            fn.__signature__ = inspect.Signature(places)         # type: ignore[attr-defined]
        return fn

    def _reply(self, functions: list[Function], head: dict[str, Any], body: bytes) -> None:
        """Call one of the functions that the student's was given."""
        try:
            args, kwargs, _ = unpacked(body)
            answer = functions[head["ask"]](*args, **kwargs)
        except Exception as error:
            kind = type(error)
            return self.line.send({"raised": [kind.__module__, kind.__name__, *map(str, error.args[:3])]})
        self.line.send({"answered": True}, Sent(answer, functions).held.getvalue())

    def pass_on(self) -> None:
        """What the student's side says; of that an exercise is solved, what the judge has seen."""
        said = self.said if isinstance(self.said, dict) else {}
        given = said.get("exercises")
        entries = dict(given) if isinstance(given, dict) else {}
        for name, exercise in self.exercises.items():
            if name in self.seen:
                entries[name] = {"state": "pass", "message": f"{exercise.title}: right on fresh random inputs", "hint": ""}
            elif isinstance(entries.get(name), dict) and entries[name].get("state") == "pass":
                entries[name] = {"state": "fail", "message": "said to be solved, but nobody has seen it", "hint": ""}
        self.tell(json.dumps({**said, "exercises": {name: entries[name] for name in self.exercises if name in entries}}))


def raised(said: Any) -> Exception:
    """The error of the student's function, if it is one of Python's or of the course's own; else one that says its name."""
    try:
        module, name, *args = map(str, said)
    except (TypeError, ValueError):
        return RuntimeError("an error without a name")
    home = builtins if module == "builtins" else sys.modules.get(module) if module.startswith(("fl_course.", "numpy")) else None
    kind = getattr(home, name, None)
    try:
        assert isinstance(kind, type)
        assert issubclass(kind, Exception)
        return kind(*args)
    except Exception:
        return RuntimeError(" ".join([name, *args])[:300])


def divide(
    tell: Callable[[str], None], ready: Callable[[], None], read: Callable[[], dict[str, Any]]
) -> tuple[Line, dict[str, Any]]:
    """Returns in the student's half of this process, with its line to the judge and the job. The judge reads the job, past it."""
    ours, theirs = socket.socketpair()
    student = os.fork()
    if student:
        theirs.close()
        _sit(Line(ours), student, tell, ready, read())
    ours.close()
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 0)
    os.dup2(nowhere, 1)
    os.close(nowhere)
    line = Line(theirs)
    return line, line.receive()[0]


def _sit(line: Line, student: int, tell: Callable[[str], None], ready: Callable[[], None], job: dict[str, Any]) -> NoReturn:
    """The judge: it ends as the student's half has ended."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    _close_the_curtain()
    fence.limit(processes=False)
    fence.end_with_parent()
    line.send(job)
    judge = Judge(line, job["chapter"], job["seed"], tell)

    def watch() -> None:                      # others that it has started may hold its end of the line
        os.waitid(os.P_PID, student, os.WEXITED | os.WNOWAIT)
        line.channel.shutdown(socket.SHUT_RD)

    threading.Thread(target=watch, daemon=True).start()
    finished = judge.preside(ready)
    deadline = time.monotonic() + 2
    while not (ended := os.waitpid(student, os.WNOHANG))[0] and time.monotonic() < deadline:
        time.sleep(0.005)
    if not ended[0]:                          # it has closed its line and goes on
        os.kill(student, signal.SIGKILL)
        ended = os.waitpid(student, 0)
    code = os.waitstatus_to_exitcode(ended[1])
    if code < 0 and not finished:
        signal.signal(-code, signal.SIG_DFL) if -code not in (signal.SIGKILL, signal.SIGSTOP) else None
        os.kill(os.getpid(), -code)
    os._exit(0 if finished else code)


def _close_the_curtain() -> None:
    """Nobody of this account looks into this process, its files and its memory from now on."""
    import ctypes

    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(DUMPABLE, 0, 0, 0, 0)
