"""Who did what, when: every job of a run as a bar on the simulated clock, above them the server and its steps.

What is drawn are the spans that every record holds, and the jobs that were still at work when the run ended.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from ..core import ClientId, Record, Span
from .state import Job

if TYPE_CHECKING:
    from matplotlib.axes import Axes

AT_WORK = "at work"                                            # the fate of a job whose end the run has not seen
PARTS = ("download", "training", "upload")                     # of a bar, one after the other
SHADES = ("#A6CEE3", "#0072B2", "#D55E00")                     # … and how they are shown
MARKS = {"dropped out": "x", "failed": "X", "refused": "s", "too stale": "D", "too late": "v", AT_WORK: ">"}
MOST_ARROWS = 60                                               # jobs; with more, arrows are a tangle and are left out


def at_work(jobs: Iterable[Job], now: float) -> list[Span]:
    """What has been seen by now (simulated s) of the jobs that have not ended."""
    out = []
    for job in jobs:
        here, done = min(job.downloaded, now), min(job.trained, now)
        out.append(Span(job.client, job.base.version, job.begun, here, done, max(now, job.begun), 0, AT_WORK))
    return out


def by_speed(spans: Iterable[Span]) -> list[ClientId]:
    """The clients, those first whose jobs take the shortest on the mean; ties by name."""
    times: dict[ClientId, list[float]] = {}
    for span in spans:
        times.setdefault(span.client, []).append(span.ended - span.begun)
    return sorted(times, key=lambda c: (math.fsum(times[c]) / len(times[c]), isinstance(c, str), c))


def pieces(span: Span) -> list[tuple[str, float, float]]:
    """(part, from, to) of a bar: what of download, training and upload lies before its end."""
    ends = (span.begun, *(min(instant, span.ended) for instant in (span.downloaded, span.trained)), span.ended)
    last = 2 if span.fate in ("dropped out", "failed") else 3                         # nothing of theirs was sent
    return [(part, a, b) for part, a, b in list(zip(PARTS, ends[:-1], ends[1:], strict=True))[:last] if b > a]


def draw_timeline(
    ax: Axes, records: Sequence[Record], working: Sequence[Span], start: float, end: float, clients: Sequence[ClientId],
    arrows: bool,
) -> None:  # fmt: skip
    """The bars of these clients between two instants (simulated s), and with arrows the way of every model and answer.

    A line from the server down to a bar is a broadcast, one from a bar up to the server an answer that was used; the server's
    marks are its steps, with the version that each made.
    """
    row = {client: i + 1 for i, client in enumerate(clients)}
    jobs = [(record, span) for record in records for span in record.spans] + [(None, span) for span in working]
    shown = [(r, s) for r, s in jobs if s.client in row and s.ended >= start and s.begun <= end]
    named: set[str] = set()                                    # what the legend has
    for record, span in shown:
        y = row[span.client]
        wasted = span.fate not in ("used", AT_WORK)
        for part, a, b in pieces(span):
            name = f"{part}, for nothing" if wasted else part
            ax.barh(y, b - a, left=a, height=0.62, color=SHADES[PARTS.index(part)], alpha=0.45 if wasted else 1.0,
                    hatch="////" if wasted else "", edgecolor="white", linewidth=0.4,
                    label=None if name in named else name)  # fmt: skip
            named.add(name)
        if span.fate in MARKS:
            ax.plot(span.ended, y, MARKS[span.fate], color="black", markersize=6, clip_on=False, zorder=4,
                    label=None if span.fate in named else span.fate)  # fmt: skip
            named.add(span.fate)
        if arrows:
            ax.plot([span.begun, span.begun], [0, y], color="#888888", linewidth=0.5, zorder=0)
            if span.fate == "used" and record is not None:
                ax.annotate("", (record.clock, 0), (span.ended, y - 0.3), zorder=3,
                            arrowprops={"arrowstyle": "->", "color": "#009E73", "linewidth": 0.8})  # fmt: skip
    steps = [record for record in records if start <= record.clock <= end]
    ax.plot([record.clock for record in steps], [0] * len(steps), "k|", markersize=9, label="server's step" if steps else None)
    for record in steps if len(steps) <= 25 else ():
        ax.annotate(f"{record.version}", (record.clock, 0), (0, 7), textcoords="offset points", ha="center", fontsize=7)
    ax.axhline(0, color="#888888", linewidth=0.5, zorder=0)
    ax.set_yticks([0, *row.values()], ["server", *map(str, row)])
    ax.set_ylim(len(row) + 0.7, -1.0)
    ax.set_xlim(start, end)
    ax.set_xlabel("simulated seconds")
    ax.set_ylabel("client, the fastest on top")
    if ax.get_legend_handles_labels()[1]:
        ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=8, frameon=False)
    ax.spines["right"].set_visible(False)
