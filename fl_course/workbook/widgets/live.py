"""Train while a slider moves: the latest wish wins, older runs are dropped, every point is shown as it comes.

    experiment    a generator function `run(**values)`: trains for real and yields a `Point` after each round
    a move        starts a run on the worker thread; the run before it is closed at its next `yield`
    a frame       all that the page shows, as plain JSON data, handed to `publish` at most some 30 times a second

No browser and no Jupyter in this file. One experiment runs at a time; the caller's thread never waits for it.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import math
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .controls import BarChart, Chart, Control, bar_names, check_experiment, line_names, run_labels, show

log = logging.getLogger(__name__)
MAX_PINS = 6                                   # more colours and dashes than that cannot be told apart


@dataclass(frozen=True)
class Point:
    """What an experiment yields after a round: one more (x, y) for some lines, new bars, one line of text."""

    lines: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    bars: Mapping[str, Sequence[tuple[str, float]]] = field(default_factory=dict)
    text: str = ""
    progress: float | None = None              # 0 … 1, for runs that take seconds


@dataclass
class Run:
    """The values of one run and what it has shown so far. NaN and ±inf become None: a gap in the line."""

    values: dict[str, Any]
    lines: dict[str, list[tuple[float | None, float | None]]] = field(default_factory=dict)
    bars: dict[str, list[tuple[str, float | None]]] = field(default_factory=dict)
    text: str = ""
    progress: float | None = None

    def add(self, point: Point | Mapping[str, tuple[float, float]]) -> None:
        point = point if isinstance(point, Point) else Point(lines=point)
        for name, (x, y) in point.lines.items():
            self.lines.setdefault(name, []).append((plain(x), plain(y)))
        for name, bars in point.bars.items():
            self.bars[name] = [(str(label), plain(height)) for label, height in bars]
        self.text, self.progress = point.text or self.text, point.progress


def plain(number: Any) -> float | None:
    """A Python float of six significant digits (NumPy and torch scalars welcome), None if it is not finite."""
    number = float(number)
    return float(f"{number:.6g}") if math.isfinite(number) else None


class Live:
    """The state of one explorer: where its controls stand, the run on show, the pinned runs, and its worker thread."""

    def __init__(self, run: Callable[..., Iterable[Any]], controls: Sequence[Control],
                 charts: Sequence[Chart | BarChart], publish: Callable[[dict[str, Any]], None] = lambda frame: None,
                 every: float = 1 / 30) -> None:
        check_experiment(run, controls, charts)
        self.run, self.controls, self.charts = run, tuple(controls), tuple(charts)
        self.publish, self.every = publish, every
        self.error: BaseException | None = None
        self.status = "idle"                                # idle, running, done, stopped, error
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
        self._train(ticket, values)
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
            idle = self._worker is None
            if idle:
                self._worker = threading.Thread(target=self._work, name="explorer", daemon=True)
                self._worker.start()
        if idle:
            self.tell()                                     # "training …", and Stop works, before the first point

    def pin(self, move: str = "") -> None:
        """Keep the run on show, as far as it has come, for comparison; beyond MAX_PINS the oldest goes."""
        with self._change:
            self._move = move
            if self.shown.lines or self.shown.bars:
                copy = Run(dict(self.shown.values), {name: list(line) for name, line in self.shown.lines.items()},
                           dict(self.shown.bars), self.shown.text)
                self._pins = [*self._pins, copy][-MAX_PINS:]
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
            self.status = "stopped" if self.status == "running" else self.status
        self.tell()

    def close(self) -> None:
        self.stop()
        self._closed = True

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
        while True:
            with self._change:
                if self._wanted is None:
                    self._worker = None
                    self._change.notify_all()
                    return
                (ticket, values), self._wanted = self._wanted, None
            with contextlib.suppress(BaseException):        # kept in self.error; the worker lives for the next wish
                self._train(ticket, values)
            if self.error is not None and self._ticket == ticket:
                log.error("the experiment failed at %s", values, exc_info=self.error)

    def _train(self, ticket: int, values: dict[str, Any]) -> None:
        run, end = Run(values), "done"
        failure: BaseException | None = None
        try:
            with contextlib.ExitStack() as stack:
                points = iter(self.run(**values))
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
            self._check(point)
            run.add(point)
            self.shown = run                               # the old curve stays until the new one has its first point
        now = time.monotonic()
        if now - self._sent >= self.every:                  # a skipped point goes with the next, or with the end
            self._sent = now
            self.tell()
        return True

    def _check(self, point: Any) -> None:
        lines = point.lines if isinstance(point, Point) else point
        bars = point.bars if isinstance(point, Point) else {}
        for kind, given, known in (("line", lines, line_names(self.charts)),
                                   ("bar chart", bars, bar_names(self.charts))):
            if strange := [name for name in given if name not in known]:
                raise ValueError(f"the experiment yields the {kind} {strange[0]!r}, which no chart draws; "
                                 f"the charts draw {', '.join(known) or 'none'}")

    # -- what the page shows -----------------------------------------------------------------------------------------

    def frame(self) -> dict[str, Any]:
        """Everything that the page shows, as plain JSON data; the current run first, then the pinned ones."""
        with self._change:
            runs = [self.shown, *self._pins]
            moved = [control.name for control in self.controls if control.kind != "button"]
            labels = run_labels(self.controls, [run.values for run in runs])
            return {
                "move": self._move, "at": dict(self._at), "status": self.status, "text": self.shown.text,
                "progress": self.shown.progress if self.status == "running" else None,
                "error": f"{type(self.error).__name__}: {self.error}" if self.error is not None else "",
                "runs": [{"label": label, "values": [show(run.values[name]) for name in moved],
                          "lines": {name: list(line) for name, line in run.lines.items()}, "bars": dict(run.bars)}
                         for label, run in zip(labels, runs, strict=True)],
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
    """Python must not end while a thread is inside torch: stop, and give the step at hand two seconds."""
    for live in list(_alive):
        live.publish = lambda frame: None
        live.stop()
    for live in list(_alive):
        live.wait(2)
