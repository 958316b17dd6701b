"""`Dashboard`: a federation that is watched while it runs.

    dashboard = Dashboard(fed, rounds=20).start()       training goes on off the main thread, the notebook stays usable
    dashboard                                           shown: Start, Pause and Stop, the charts, and what the alarms say
    history = dashboard.wait()                          a History like any other; also while it runs: dashboard.history

A pause ends after the round at hand, and Start goes on from there to the bit as if there had been none. After Stop, Start begins
again. `Watch` makes charts of records and knows nothing of pages; the page is an Explorer's.
"""

from __future__ import annotations

import base64
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from IPython.display import update_display

from ...core import FATES, ClientId, Record, is_whole
from ...federation.coordinator import Coordinator
from ...federation.explain import Finding, Run, explain
from ...federation.history import MB, History, describe, state_of
from ...federation.state import State
from .cells import VIEW, display_stored
from .charts import AnyChart, BarChart, Chart
from .controls import Button
from .explorer import Explorer
from .plots import explorer_png
from .points import Point

MOST_BARS = 16                                 # clients; of more it is counted how many were heard how often
NAMED = 6                                      # clients named in the line of text, of each fate
SHORT = {"dropped out": "dropped", "too stale": "stale", "too late": "late"}          # under a bar


@dataclass
class Watch:
    """What has been seen of a run, and the charts of it. Records and states in, points out."""

    experiment: Coordinator
    rounds: int                                # wanted in all
    begin: int = 0                             # the version from which it began
    records: list[Record] = field(default_factory=list)
    lines: list[dict[str, tuple[float, float]]] = field(default_factory=list)      # of each record
    up: Counter[str] = field(default_factory=Counter)                              # bytes so far, by purpose
    down: Counter[str] = field(default_factory=Counter)
    heard: Counter[ClientId] = field(default_factory=Counter)
    fates: Counter[str] = field(default_factory=Counter)

    @property
    def measure(self) -> str:
        return self.experiment.model.loss.measure

    @property
    def budget(self) -> float | None:
        """The ε that may be spent, if a part says so."""
        budgets = (getattr(part, "budget", None) for part in (*self.experiment.pipeline, self.experiment.training.private))
        return next((budget for budget in budgets if budget is not None), None)

    @property
    def private(self) -> bool:
        return any(hasattr(part, "noise_seed") for part in (*self.experiment.pipeline, self.experiment.training.private))

    def charts(self) -> list[AnyChart]:
        """Small multiples: what this experiment can show. Privacy only if a part has a noise, staleness if no round waits."""
        across: Any = {"x": "round", "x_range": (self.begin, self.begin + self.rounds)}
        from_0: Any = {**across, "y_range": (0, None)}
        clip = (("updates clipped",), ("clip bound",)) if self.private else ((), ())
        charts: list[AnyChart] = [
            Chart(self.measure, y=self.measure, lines=("held out", "clients' mean", "worst tenth"),
                  **{**across, "y_range": (0, 1) if self.measure == "accuracy" else (0, None)}),
            Chart("loss over clients", y="loss", lines=("lowest loss", "mean loss", "highest loss", "held-out loss"), **from_0),
            Chart("how the clients differ", y="share", lines=("drift", *clip[0]), y_range=(0, 1), **across),
            Chart("length of the updates", y="norm", lines=("median norm", "largest norm", *clip[1]), **from_0),
        ]  # fmt: skip
        if self.private:
            lines = ("ε spent",) if self.budget is None else ("ε spent", "budget")
            charts.append(Chart("privacy spent", y="ε", lines=lines, **from_0))
        charts.append(BarChart("bytes so far", x="purpose", y="sent", y_unit="MB", y_range=(0, None), series=("up", "down")))
        who = "client" if len(self.experiment.clients) <= MOST_BARS else "times heard"
        what = "times heard" if who == "client" else "clients"
        charts.append(BarChart("participation", x=who, y=what, y_range=(0, None), series=(what,)))
        if self.experiment.schedule.keeps_stragglers:
            charts.append(Chart("age of the answers", y="staleness τ", y_unit="steps", lines=("mean age", "oldest"), **from_0))
        charts.append(BarChart("what became of the jobs", x="fate", y="jobs", y_range=(0, None), series=("jobs",)))
        return charts

    def add(self, state: State, record: Record) -> None:
        """One more round: the record, and the state after it, which knows each client's own loss."""
        told, at, metrics = state.reports, record.version, record.metrics
        losses = [told[client]["loss_last"] for client in dict.fromkeys(record.clients) if "loss_last" in told.get(client, {})]
        ages = record.staleness
        values = {
            "held out": metrics.get(self.measure), "clients' mean": metrics.get(f"client_{self.measure}"),
            "worst tenth": metrics.get(f"client_{self.measure}_worst10"), "held-out loss": metrics.get("loss"),
            "lowest loss": min(losses, default=None), "mean loss": sum(losses) / len(losses) if losses else None,
            "highest loss": max(losses, default=None), "drift": metrics.get("drift"), "updates clipped": metrics.get("clipped"),
            "median norm": metrics.get("update_norm"), "largest norm": metrics.get("update_norm_max"),
            "clip bound": metrics.get("clip"), "ε spent": metrics.get("epsilon"), "budget": self.budget,
            "mean age": sum(ages) / len(ages) if ages else None, "oldest": max(ages, default=None),
        }  # fmt: skip
        drawn = {name for chart in self.charts() for name in chart.draws.get("lines", ())}
        self.records.append(record)
        self.lines.append({name: (at, value) for name, value in values.items() if value is not None and name in drawn})
        self.up.update(record.bytes_up)
        self.down.update(record.bytes_down)
        self.heard.update(record.clients)
        self.fates.update(span.fate for span in record.spans)

    def alarms(self, stopped: str = "") -> list[Finding]:
        return explain(Run.of(self.experiment, self.records, stopped))

    def bars(self) -> dict[str, Sequence[tuple[str, float]]]:
        purposes = sorted({*self.up, *self.down})
        clients = self.experiment.clients
        if len(clients) <= MOST_BARS:
            turns = {"times heard": [(str(client), float(self.heard[client])) for client in clients]}
        else:
            counts = Counter(self.heard[client] for client in clients)
            turns = {"clients": [(str(times), float(counts[times])) for times in range(max(counts) + 1)]}
        return {
            "up": [(purpose, self.up[purpose] / MB) for purpose in purposes],
            "down": [(purpose, self.down[purpose] / MB) for purpose in purposes],
            **turns, "jobs": [(SHORT.get(fate, fate), float(self.fates[fate])) for fate in FATES],
        }  # fmt: skip

    def words(self) -> str:
        """The newest round in a line: how good, who was heard, and whose answers are not in it."""
        if not self.records:
            return f"no round of {self.rounds} yet"
        record = self.records[-1]
        good = f", {self.measure} {record.metrics[self.measure]:.3f}" if self.measure in record.metrics else ""
        at = f"round {record.version - self.begin} of {self.rounds}, {record.clock:.1f} simulated s"
        text = f"{at}{good}, {len(record.clients)} heard"
        for fate in FATES[1:]:
            if whom := [span.client for span in record.spans if span.fate == fate]:
                more = f" and {len(whom) - NAMED} others" if len(whom) > NAMED else ""
                text += f"; {fate}: {', '.join(map(str, whom[:NAMED]))}{more}"
        return text

    def point(self, said: str = "", end: str = "", stopped: str = "") -> Point:
        """All of it as the page shows it now; with end, when a run is over, nothing new. The alarms are asked in each of the
        first rounds, later every fiftieth of the run."""
        n, notes = len(self.records), None
        if end or n == self.rounds or n % max(1, n // 50) == 0:
            notes = [(finding.text, f"lesson {finding.chapter}", lesson(finding.chapter)) for finding in self.alarms(stopped)]
        text = f"{self.words()}{'. ' if said else ''}{said}"
        return Point({} if end else self.lines[-1], self.bars(), text, n / self.rounds, notes=notes, end=end)


def lesson(chapter: str, here: Path | None = None) -> str:
    """Where a notebook's link to this lesson leads, as seen from its folder; "" if the lesson is not there."""
    for folder in ("", "../notebooks/"):
        if found := sorted(((here or Path.cwd()) / folder).glob(f"{chapter}_*.ipynb")):
            return folder + found[0].name
    return ""


class Dashboard:
    """Watch a federation while it runs: `fed.run(rounds, state)` with a page.

    history    what has happened so far: a History, to be explained, saved and gone on from like any other
    wait()     … when it has ended or is paused; raises what the run raised

    Charts: the measure, the loss over clients, drift and clipping, norms, privacy spent, bytes by purpose, participation, ages,
    and what became of the jobs. Below them the alarms of explain.py, each with its chapter.
    """

    def __init__(self, fed: Coordinator, rounds: int, state: State | History | None = None, title: str = "") -> None:
        if not isinstance(fed, Coordinator):
            raise TypeError(f"a dashboard watches a federation, a Coordinator(…), not {fed!r}"[:300])
        if not is_whole(rounds, 1):
            raise ValueError(f"rounds must be a whole number from 1, not {rounds!r}")
        self.fed, self.rounds, self.begin = fed, int(rounds), state_of(state) or fed.initial()
        self._again()
        controls = [Button("start", label="Start"), Button("pause", label="Pause")]
        self.explorer = Explorer(self._run, controls, self.watch.charts(), title or "A federation at work", eager=False)
        self._names: list[str] = []                         # of stored pictures
        self._stored = ("", 0, 0)                           # status, pictures and rounds when they were made
        self._tell = self.explorer.live.publish
        self.explorer.live.publish = self._publish

    def _again(self) -> None:
        self.history = History(experiment=describe(self.fed), state=self.begin, before=self.begin.sent)
        self.watch, self.over = Watch(self.fed, self.rounds, self.begin.server.version), False

    # -- what a reader does ------------------------------------------------------------------------------------------

    def start(self) -> Dashboard:
        """Begin, or go on after a pause."""
        self.explorer.live.move({}, "start")
        return self

    def pause(self) -> Dashboard:
        """End after the round at hand; start goes on from there."""
        self.explorer.live.move({}, "pause")
        return self

    def stop(self) -> Dashboard:
        """End after the round at hand, for good."""
        self.explorer.live.stop()
        return self

    def wait(self, timeout: float | None = None) -> History:
        """The history when nothing runs any more: it is done, paused or stopped. Raises what the run raised."""
        self.explorer.result(timeout)
        return self.history

    def close(self) -> None:
        self.explorer.close()

    # -- training ----------------------------------------------------------------------------------------------------

    def _run(self, start: bool, pause: bool) -> Iterator[Point]:
        """What was so far, and then the rounds that are still wanted."""
        if not pause and not (start and self.history.records and not self.over):
            self._again()
        history, watch = self.history, self.watch
        yield from (Point(lines, progress=len(watch.records) / self.rounds) for lines in watch.lines)
        if pause:
            if not self.over:
                history.stopped = f"paused after round {watch.records[-1].version}" if watch.records else ""
            yield watch.point(*(("", "done") if self.over else ("Start goes on from here", "paused")))
            return
        history.stopped = ""
        try:
            for state, record in self._steps(history):
                history.records.append(record)
                history.state = state
                watch.add(state, record)
                yield watch.point()
        except GeneratorExit:
            if self.explorer.live.status == "stopping":
                history.stopped, self.over = f"stopped by hand after round {history.state.server.version}", True
            raise
        self.over = True
        yield watch.point(history.stopped, "ended early" if history.stopped else "done", history.stopped)

    def _steps(self, history: History) -> Iterator[tuple[State, Record]]:
        history.stopped = yield from self.fed.run(self.rounds - len(history), history.state)

    # -- what a notebook stores --------------------------------------------------------------------------------------

    def _bundle(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """A picture of the run so far, and in words its last round and what the alarms say."""
        alarms = "".join(f"\n- {finding}" for finding in self.watch.alarms(self.history.stopped))
        text = f"{self.explorer.spec['title']}: {self.watch.words()}.{alarms or ' No alarm.'}"
        picture = explorer_png(self.watch.words(), self.explorer.live.charts, self.explorer.live.frame()["runs"][:1])
        return {"text/plain": text, "image/png": base64.b64encode(picture).decode()}, {"image/png": {"alt": text}}

    def _ipython_display_(self) -> None:
        self._stored = (self.explorer.live.status, len(self._names) + 1, len(self.watch.records))
        data, metadata = self._bundle()
        view, name = {"version_major": 2, "version_minor": 0, "model_id": self.explorer.model_id}, uuid.uuid4().hex
        display_stored({**data, VIEW: view}, metadata, name)
        self._names.append(name)
        self._redraw(self.explorer.live.status)             # the run may have ended while the picture was made

    def _publish(self, frame: dict[str, Any]) -> None:
        self._tell(frame)
        self._redraw(frame["status"])

    def _redraw(self, status: str) -> None:
        """When a run has ended, the stored pictures become those of all its rounds."""
        now = (status, len(self._names), len(self.watch.records))
        if status in ("done", "stopped", "error") and self._names and now != self._stored:
            self._stored, (data, metadata) = now, self._bundle()
            for name in self._names:
                update_display(data, metadata=metadata, display_id=name, raw=True)

    def __repr__(self) -> str:
        return f"Dashboard: {self.watch.words()}"
