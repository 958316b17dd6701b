"""Train while a slider moves: the latest wish wins, older runs are dropped, every point is shown as it comes.

    experiment    a generator function `run(**values)`: trains for real and yields a `Point` after each round
    a move        starts a run on the worker thread; the run before it is closed at its next `yield`
    a frame       all that the page shows, as plain JSON data, handed to `publish` at most some 30 times a second
    a stop        asks the run to end at its next `yield`; until then the status is "stopping"

No browser and no Jupyter in this file. One experiment runs at a time; the caller's thread never waits for it.
"""

from __future__ import annotations

import atexit
import contextlib
import copy
import ctypes
import logging
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from .charts import AnyChart, check_experiment, drawn_names, run_labels, settings, table_row
from .controls import Control
from .points import Run, check_point

log = logging.getLogger(__name__)
MAX_PINS = 6                                   # more runs than that cannot be told apart
GRACE = 2.0                                    # seconds that a closed explorer's run has to reach its next `yield`


class Dropped(BaseException):
    """Raised inside an experiment that goes on and on after its widget was closed."""


class Live:
    """The state of one explorer: where its controls stand, the run on show, the pinned runs, and its worker thread."""

    def __init__(self, run: Callable[..., Iterable[Any]], controls: Sequence[Control],
                 charts: Sequence[AnyChart], publish: Callable[[dict[str, Any]], None] = lambda frame: None,
                 every: float = 1 / 30) -> None:
        check_experiment(run, controls, charts)
        self.run, self.controls, self.charts = run, tuple(controls), tuple(charts)
        self.publish, self.every = publish, every
        self.error: BaseException | None = None
        self.status = "idle"                                # idle, running, stopping, done, stopped, error
        self._known = drawn_names(charts)
        self._at = {control.name: control.start for control in controls}
        self.shown, self._pins = Run(self.values()), list[Run]()
        self._ticket = 0                                    # number of the newest wish
        self._wanted: tuple[int, dict[str, Any]] | None = None              # the wish that waits for the worker
        self._worker: threading.Thread | None = None
        self._closed, self._move, self._sent = False, "", 0.0
        self._change = threading.Condition()                # guards everything above
        self._mouth = threading.RLock()                     # frames leave one by one, in order
        _alive.add(self)

    # -- where the controls stand ------------------------------------------------------------------------------------

    def values(self, pressed: str = "") -> dict[str, Any]:
        """The experiment's arguments as the controls stand; a button is True only if it is the one just pressed."""
        return {c.name: c.name == pressed if c.kind == "button" else c.values[self._at[c.name]] for c in self.controls}

    def place(self, at: Mapping[str, int]) -> None:
        """Set controls to positions, {name: index}. All or none: a position that does not exist changes nothing."""
        known = {control.name: control for control in self.controls if control.kind != "button"}
        for name, index in at.items():
            if name not in known:
                raise ValueError(f"there is no control {name!r}; there are {', '.join(known)}")
            if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < len(known[name].values):
                raise ValueError(f"{name} has positions 0 to {len(known[name].values) - 1}, not {index!r}")
        self._at.update(at)

    # -- what a reader does ------------------------------------------------------------------------------------------

    def run_here(self) -> None:
        """Run the experiment as the controls stand in the caller's thread, to its end. Its errors are raised here."""
        with self._change:
            ticket, values = self._wish(), self.values()
        try:
            self._train(ticket, values)
        finally:
            self._rest()
        if self.error is not None:
            raise self.error

    def move(self, at: Mapping[str, int], pressed: str = "", move: str = "") -> None:
        """Set controls, press a button, and start training on the worker thread.

        `move`, here and below: the page's name for this message; the frames that know of it carry it back.
        """
        with self._change:
            if pressed and pressed not in {c.name for c in self.controls if c.kind == "button"}:
                raise ValueError(f"there is no button {pressed!r}")
            self.place(at)
            self._move = move
            self._wanted = (self._wish(), self.values(pressed))
            if self._worker is None:
                self._worker = threading.Thread(target=self._work, name="explorer", daemon=True)
                self._worker.start()
        self.tell()                                         # the page knows that it was heard, however long a step takes

    def pin(self, move: str = "") -> None:
        """Keep the run on show, as far as it has come, for comparison; beyond MAX_PINS the oldest goes."""
        with self._change:
            self._move = move
            if not self.shown.empty:
                self._pins = [*self._pins, copy.deepcopy(self.shown)][-MAX_PINS:]
        self.tell()

    def reset(self, move: str = "") -> None:
        """Drop the pins, put every control back to its start, and run."""
        with self._change:
            self._pins = []
        self.move({control.name: control.start for control in self.controls if control.kind != "button"}, move=move)

    def stop(self, move: str = "") -> None:
        """Drop what runs or waits; what was drawn stays. The run ends at its next `yield`."""
        with self._change:
            self._move = move
            self._ticket, self._wanted = self._ticket + 1, None
            self.status = "stopping" if self.status == "running" else self.status
        self.tell()

    def close(self) -> None:
        """Stop for good. A run that does not come to a `yield` within GRACE seconds is broken off where it is."""
        self.stop()
        self._closed = True
        if self._worker is not None:
            timer = threading.Timer(GRACE, self.break_off)
            timer.daemon = True
            timer.start()

    def break_off(self) -> None:
        """Raise `Dropped` in the worker thread, at its next line of Python: for runs that never yield."""
        with self._change:
            if self._worker is not None and self._worker.ident is not None:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self._worker.ident), ctypes.py_object(Dropped))

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until nothing runs; False if that took longer than `timeout` seconds."""
        with self._change:
            return self._change.wait_for(lambda: self._worker is None, timeout)

    def result(self, timeout: float | None = None) -> Run:
        """The finished run, waiting for it if needed. Raises what the experiment raised."""
        if not self.wait(timeout):
            raise TimeoutError(f"the experiment still runs after {timeout} s")
        if self.error is not None:
            raise self.error
        return self.shown

    # -- training ----------------------------------------------------------------------------------------------------

    def _wish(self) -> int:
        if self._closed:
            raise RuntimeError("this explorer is closed; run its cell again")
        self._ticket, self.status, self.error, self._sent = self._ticket + 1, "running", None, 0.0
        return self._ticket

    def _work(self) -> None:
        """The worker thread: the latest wish, until there is none."""
        try:
            while (wish := self._next()) is not None:
                ticket, values = wish
                with contextlib.suppress(BaseException):    # kept in self.error; the worker lives for the next wish
                    self._train(ticket, values)
                if self.error is not None and self._ticket == ticket:
                    log.error("the experiment failed at %s", values, exc_info=self.error)
        except Dropped:
            pass
        finally:
            with self._change:
                if self._worker is threading.current_thread():              # broken off; else a newer one may be at work
                    self._worker = None
                self._change.notify_all()

    def _next(self) -> tuple[int, dict[str, Any]] | None:
        """The wish that waits; None ends the worker, and the next wish finds none."""
        while True:
            self._rest()
            with self._change:
                if self._wanted is not None:
                    wish, self._wanted = self._wanted, None
                    return wish
                if self.status != "stopping":               # a stop may have come in between: say so first
                    self._worker = None
                    return None

    def _rest(self) -> None:
        """Nothing runs: what was asked to stop has stopped."""
        with self._change:
            stopped = self.status == "stopping"
            self.status = "stopped" if stopped else self.status
        if stopped:
            self.tell()

    def _train(self, ticket: int, values: dict[str, Any]) -> None:
        run, end = Run(values), "done"
        failure: BaseException | None = None
        try:
            with contextlib.ExitStack() as stack:
                points = self.run(**values)
                if not isinstance(points, Iterable):
                    raise TypeError(f"the experiment returned {points!r}; it must yield a Point after each round: write "
                                    "`yield Point(…)` in its loop, and `yield` makes it a generator")
                points = iter(points)
                stack.callback(getattr(points, "close", lambda: None))      # a dropped generator runs its `finally`
                for point in points:
                    if not self._show(ticket, run, point):
                        return
        except Exception as error:
            end, failure = "error", error
        except BaseException as error:
            end, failure = "stopped", error                 # the kernel was interrupted while the cell ran
            raise
        finally:
            with self._change:
                current = ticket == self._ticket
                if current:
                    self.shown, self.status, self.error = run, end, failure
            if current:
                self.tell()

    def _show(self, ticket: int, run: Run, point: Any) -> bool:
        """Add the point to the run and show it; False if a newer wish has come."""
        with self._change:
            if ticket != self._ticket:
                return False
            check_point(point, self._known)
            run.add(point)
            self.shown = run                               # the old curve stays until the new one has its first point
        now = time.monotonic()
        if now - self._sent >= self.every:                  # a skipped point goes with the next, or with the end
            self._sent = now
            self.tell()
        return True

    # -- what the page shows -----------------------------------------------------------------------------------------

    def frame(self) -> dict[str, Any]:
        """Everything that the page shows, as plain JSON data; the current run first, then the pinned ones."""
        with self._change:
            runs = [self.shown, *self._pins]
            labels = run_labels(self.controls, [run.values for run in runs])
            return {
                "move": self._move, "at": dict(self._at), "status": self.status, "text": self.shown.text,
                "notes": list(self.shown.notes), "end": self.shown.end if self.status == "done" else "",
                "progress": self.shown.progress if self.status == "running" else None,
                "error": f"{type(self.error).__name__}: {self.error}" if self.error is not None else "",
                "runs": [{"label": label, **run.picture(),
                          "row": table_row(number, settings(self.controls, run.values), run.lines, self.charts)}
                         for number, (label, run) in enumerate(zip(labels, runs, strict=True))],
            }

    def tell(self) -> None:
        with self._mouth:
            self.publish(self.frame())


_alive: weakref.WeakSet[Live] = weakref.WeakSet()


def stop_all() -> None:
    """Stop every explorer of this process: the kernel was interrupted, or ends."""
    for live in list(_alive):
        live.stop()


@atexit.register
def _leave() -> None:
    """Python must not end while a thread is inside torch: stop, break off what does not, and wait two seconds in all."""
    end = time.monotonic() + GRACE
    for live in list(_alive):
        live.publish = lambda frame: None
        live.stop()
    for patience in (end - GRACE / 2, end):
        for live in list(_alive):
            if not live.wait(max(0.0, patience - time.monotonic())):
                live.break_off()
