"""What happened: one record a server step, as a table, a figure, a file, and a progress bar while it happens."""

from __future__ import annotations

import csv
import html
import io
import json
import math
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core import ClientId, Record, Span
from ..files import write
from .explain import Finding, Run, explain
from .notebook import to_notebook
from .replay import replayed
from .state import State
from .telemetry import record_of
from .timeline import AT_WORK, MOST_ARROWS, at_work, draw_timeline, rows_of

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

MB = 1e6      # bytes in a megabyte, here and in every figure (decimal, as networks are sold)


def describe(experiment: object) -> str:
    """The repr of an experiment without what changes from one process to the next: the addresses of its functions."""
    return re.sub(r" at 0x[0-9A-Fa-f]+", "", repr(experiment))


class Unsaved:
    """Stands in a history that comes from JSON, which keeps the records only, where its state was."""

    def __repr__(self) -> str:
        return "Unsaved()"


@dataclass
class History:
    """The records of a run, its description, and the state from which it can go on."""

    records: list[Record] = field(default_factory=list)
    experiment: str = ""
    state: Any = None                     # State; None or Unsaved if there is none to go on from
    stopped: str = ""                     # why the run ended early, or ""
    before: int = 0                       # bytes sent before the first record, if the run is a resumed one

    def __len__(self) -> int:
        return len(self.records)

    def series(self, metric: str) -> list[float]:
        """One value a record; NaN where it was not measured. Raises ValueError for a metric that no record has."""
        known = {name: None for record in self.records for name in record.metrics}
        if self.records and metric not in known:
            raise ValueError(f"no record has the metric {metric!r}; there are {', '.join(known)}")
        return [record.metrics.get(metric, math.nan) for record in self.records]

    @property
    def megabytes(self) -> float:
        """Sent so far, both ways, all purposes, in MB (10^6 bytes). Like the clock it goes on counting in a resumed run."""
        return (self.before + sum(record.nbytes for record in self.records)) / MB

    def last(self, metric: str) -> float:
        """The newest measured value, or NaN."""
        return next((r.metrics[metric] for r in reversed(self.records) if metric in r.metrics), math.nan)

    def rounds_to(self, target: float, metric: str = "accuracy", falling: bool | None = None) -> int | None:
        """The first version at which the metric reached this value, or None; ValueError for a metric that no record has.

        falling: it is reached from above, by default if "loss", "error" or "mse" is in its name. McMahan et al. (2017,
        tables 1 and 2) count so too, but interpolate between two rounds.
        """
        down = any(word in metric for word in ("loss", "error", "mse")) if falling is None else falling
        values = zip(self.records, self.series(metric), strict=True)
        return next((r.version for r, value in values if (value <= target if down else value >= target)), None)

    # --- out and in ------------------------------------------------------------------------------------------------

    def to_pandas(self) -> pd.DataFrame:
        """One row a record: version, clock (s), clients, staleness, bytes by direction and purpose, every metric."""
        return _table(self._rows())

    def _rows(self) -> list[dict[str, Any]]:
        """Flat rows with equal columns; what a record lacks is NaN, or 0 for bytes."""
        up = sorted({purpose for r in self.records for purpose in r.bytes_up})
        down = sorted({purpose for r in self.records for purpose in r.bytes_down})
        names = list(dict.fromkeys(name for r in self.records for name in r.metrics))
        return [
            {
                "version": r.version,
                "clock": r.clock,
                "clients": len(r.clients),
                "staleness": sum(r.staleness) / len(r.staleness) if r.staleness else 0.0,
                **{f"up_{purpose}": r.bytes_up.get(purpose, 0) for purpose in up},
                **{f"down_{purpose}": r.bytes_down.get(purpose, 0) for purpose in down},
                "events": len(r.events),
                **{name: r.metrics.get(name, math.nan) for name in names},
            }
            for r in self.records
        ]

    def to_json(self, path: str | Path | None = None) -> str:
        """All of it but the state (see checkpoint.save), as JSON text; written to `path` if given.

        JSON has no infinity, so an infinite metric (an ε without noise) is written as the string "inf" or "-inf".
        """
        rows = [asdict(r) for r in self.records]
        for row in rows:
            row["metrics"] = {k: v if math.isfinite(v) else str(v) for k, v in row["metrics"].items() if v == v}
        body = {"experiment": self.experiment, "stopped": self.stopped, "before": self.before, "records": rows}
        text = json.dumps(body, indent=1, allow_nan=False)
        if path is not None:
            write(path, text + "\n")
        return text

    @classmethod
    def from_json(cls, source: str | Path) -> History:
        """From the text that to_json returned, or from the file that it wrote."""
        is_text = isinstance(source, str) and source.lstrip().startswith("{")
        try:
            body = json.loads(str(source) if is_text else Path(source).read_text(encoding="utf-8"))
            records = [record_of(row) for row in body["records"]]
            state = Unsaved() if records else None
            return cls(records, body["experiment"], state, body["stopped"], body.get("before", 0))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ValueError(f"this is not a history that to_json wrote: {error}") from error

    def to_csv(self, path: str | Path) -> None:
        """The flat rows of to_pandas, numbers in full precision."""
        rows, table = self._rows(), io.StringIO(newline="")
        writer = csv.DictWriter(table, fieldnames=list(rows[0]) if rows else ["version"])
        writer.writeheader()
        writer.writerows(rows)
        write(path, table.getvalue())

    @staticmethod
    def read_csv(path: str | Path) -> pd.DataFrame:
        """The table that to_csv wrote, equal to to_pandas()."""
        with open(path, newline="", encoding="utf-8") as file:
            return _table([{name: _number(text) for name, text in row.items()} for row in csv.DictReader(file)])

    # --- to look at ------------------------------------------------------------------------------------------------

    def plot(self, metric: str = "accuracy", ax: Axes | None = None, x: str = "round", label: str | None = None) -> Axes:
        """Draw a metric by "round", "MB" (sent so far, both ways) or "seconds" (simulated)."""
        import matplotlib.pyplot as plt

        if x not in ("round", "MB", "seconds"):
            raise ValueError(f"x must be 'round', 'MB' or 'seconds', not {x!r}")
        ax = plt.subplots(figsize=(5, 3), layout="constrained")[1] if ax is None else ax
        total, at = self.before, []
        for r in self.records:
            total += r.nbytes
            at.append({"round": r.version, "MB": total / MB, "seconds": r.clock}[x])
        points = [(u, v) for u, v in zip(at, self.series(metric), strict=True) if v == v]
        ax.plot([u for u, _ in points], [v for _, v in points], label=label or metric, marker="." if len(points) < 40 else "")
        names = {"round": "round", "MB": "MB sent, both ways", "seconds": "simulated seconds"}
        units = {"accuracy": "accuracy (held-out)", "loss": "loss (nats, held-out)"}
        ax.set_xlabel(names[x])
        ax.set_ylabel(units.get(metric, metric.replace("_", " ")))
        ax.grid(alpha=0.3)
        return ax

    def spans(self) -> list[Span]:
        """Every job of the run: those that ended, step by step, and with the fate "at work" those that were under way at the
        end, as far as they had come (a history from JSON does not have these)."""
        jobs, now = getattr(self.state, "jobs", ()), getattr(self.state, "clock", 0.0)
        return [span for record in self.records for span in record.spans] + at_work(jobs, now)

    def timeline(
        self, ax: Axes | None = None, start: float | None = None, end: float | None = None,
        clients: Sequence[ClientId] | None = None, arrows: bool | None = None,
    ) -> Axes:  # fmt: skip
        """Draw who did what between two instants (simulated s, by default all that is known): a bar a job, see timeline.py.

        clients: whom, in this order; else all that were ever asked, the fastest first (of more than 40 some, from all speeds).
        arrows: the ways of models and answers; None draws them where they are few.
        """
        import matplotlib.pyplot as plt

        jobs = self.spans()
        whom = rows_of(jobs, clients)
        begin = min((span.begun for span in jobs), default=0.0) if start is None else start
        until = max((span.ended for span in jobs), default=0.0) if end is None else end
        if not -math.inf < begin < until < math.inf:
            raise ValueError(f"a timeline goes from an earlier to a later second, not from {begin!r} to {until!r}")
        shown = [span for span in jobs if span.client in whom and span.ended >= begin and span.begun <= until]
        if ax is None:
            ax = plt.subplots(figsize=(8, 1.2 + 0.28 * len(whom)), layout="constrained")[1]
        few = len(shown) <= MOST_ARROWS if arrows is None else arrows
        draw_timeline(ax, self.records, [span for span in jobs if span.fate == AT_WORK], begin, until, whom, few)
        return ax

    def __repr__(self) -> str:
        if not self.records:
            return "History(no rounds yet)"
        measure = next((name for name in ("accuracy", "rmse") if self.last(name) == self.last(name)), "accuracy")
        value, seconds = self.last(measure), self.records[-1].clock
        end = f", stopped: {self.stopped}" if self.stopped else ""
        text = f"History({len(self)} rounds, {measure} {value:.3f}, {self.megabytes:.2f} MB, {seconds:.1f} simulated s{end})"
        return text + (f"\n{lost}" if (lost := self.lost()) else "")

    def lost(self) -> str:
        """One line on answers that failed or were refused, and whether any arrived at all; "" if nothing is wrong."""
        parts, first = [], ""
        for what, text, word in (("failed", "clients failed", " failed in "), ("refused", "answers were refused", " refused")):
            if count := int(sum(record.metrics.get(what, 0) for record in self.records)):
                parts.append(f"{count} {text}")
                events = (event for record in self.records for event in record.events if word in event)
                first = first or next((f"; the first: {event}" for event in events), "")
        if self.records and not any(record.clients for record in self.records):
            parts.insert(0, "no update was ever used, so the model has learned nothing")
        return ", ".join(parts) + first

    def explain(self, experiment: Any = None) -> list[Finding]:
        """Why it went so: what the alarms of explain.py have to say, the gravest first. With the experiment they also know who
        was never asked, and what is chance. print(*history.explain(fed), sep="\\n")"""
        return explain(Run.of(experiment, self.records, self.stopped))

    def replay(self, experiment: Any, state: State | None = None) -> History:
        """The same run once more, from `state` or its beginning: this history with the state that it ends in, which one from JSON
        has lost. ValueError at the first round that is not the same to the bit, with what differs: see replay.py."""
        return replace(self, records=list(self.records), state=replayed(self.records, self.state, experiment, state))

    def to_notebook(self, path: str | Path, experiment: Any) -> None:
        """This run as a notebook that makes it again and checks it to the bit. Data that were not made by a call that they know,
        and arrays, are saved beside it as .npz, whoever's they are. ValueError, with its place, for a part that cannot be written
        down, or if the experiment's first round is another one: see notebook.py."""
        to_notebook(path, self.records, self.state, experiment, f"`{self!r}`".split("\n")[0].rstrip("`") + "`")

    def _repr_html_(self) -> str:
        """The last rounds as a table: what was learned, from whom, and what it cost."""
        if not self.records:
            return "<p>no rounds yet</p>"
        head = ("round", "clients", "accuracy", "loss", "MB up", "MB down", "simulated s", "events")
        rows = []
        for r in self.records[-8:]:
            numbers = (r.metrics.get("accuracy", math.nan), r.metrics.get("loss", math.nan))
            up, down = sum(r.bytes_up.values()) / MB, sum(r.bytes_down.values()) / MB
            cells = (r.version, len(r.clients), f"{numbers[0]:.3f}", f"{numbers[1]:.3f}", f"{up:.3f}", f"{down:.3f}")
            rows.append((*cells, f"{r.clock:.1f}", html.escape("; ".join(r.events[:2])) or "–"))
        table = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
        titles = "".join(f'<th scope="col">{name}</th>' for name in head)
        caption = html.escape(repr(self))
        return f"<table><caption>{caption}</caption><thead><tr>{titles}</tr></thead><tbody>{table}</tbody></table>"


def _table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    import pandas as pd  # here, because training needs no tables

    return pd.DataFrame(rows, columns=None if rows else ["version"]).set_index("version")


def _number(text: str) -> int | float:
    """Exactly the number that was written, which pandas' own reader does not promise."""
    return int(text) if text.isdigit() else float(text)


@contextmanager
def progress_bar(rounds: int, shown: bool, sent: int = 0) -> Iterator[Callable[[Record], None]]:
    """A bar with rounds, accuracy, MB and the time to go. Yields the function that moves it on by one record.

    sent: bytes before the first record.
    """
    if not shown:
        yield lambda record: None
        return
    from tqdm.auto import tqdm

    with tqdm(total=rounds, unit="round", file=sys.stdout, dynamic_ncols=True) as bar:

        def advance(record: Record) -> None:
            nonlocal sent
            sent += record.nbytes
            accuracy = record.metrics.get("accuracy")
            shown = {} if accuracy is None else {"accuracy": f"{accuracy:.3f}"}
            shown["MB"] = f"{sent / MB:.1f}"
            bar.set_postfix(shown, refresh=False)
            bar.update()

        yield advance


def state_of(begin: State | History | None) -> State | None:
    """What a run goes on from: a state, or a history's. ValueError for a history that has none."""
    state = begin.state or Unsaved() if isinstance(begin, History) else begin
    if isinstance(state, Unsaved):
        raise ValueError(
            "this history has no state to go on from: to_json keeps the records only. Keep the state with "
            "save(path, history.state, experiment), and hand on load(path, experiment)"
        )
    if state is not None and not isinstance(state, State):
        raise TypeError(f"a run goes on from a State, such as history.state, or from a History, not from {state!r}")
    return state


def warn_if_unheard(history: History) -> None:
    """A Python warning if answers failed or were refused and not one was ever used: such a run only looks like training."""
    troubles = {name for record in history.records for name in ("failed", "refused") if name in record.metrics}
    if troubles and not any(record.clients for record in history.records):
        warnings.warn(history.lost(), RuntimeWarning, stacklevel=3)
