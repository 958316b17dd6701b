"""Who did what, when: every job of a run as a bar on the simulated clock, above them the server and its steps.

What is drawn are the spans that every record holds, and the jobs that were still at work when the run ended.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from ..core import ClientId, Record, Span
from .state import Job, by_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes

AT_WORK = "at work"                                            # the fate of a job whose end the run has not seen
PARTS = ("download", "training", "upload")                     # of a bar, one after the other
SHADES = ("#A6CEE3", "#0072B2", "#D55E00")                     # … and how they are shown
MARKS = {"left out": "o", "dropped out": "x", "failed": "X", "refused": "s", "too stale": "D", "too late": "v", AT_WORK: ">"}
MOST_ARROWS = 60                                               # jobs; with more, arrows are a tangle and are left out
MOST_ROWS = 40                                                 # clients; of more, so many are shown, unless they are named


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
    return sorted(times, key=lambda c: (math.fsum(times[c]) / len(times[c]), by_name(c)))


def rows_of(spans: Iterable[Span], clients: Sequence[ClientId] | None) -> list[ClientId]:
    """Whom a timeline shows: those that are named, each once, or all that were ever asked, the fastest first; of very many
    some, spread evenly from the fastest to the slowest. ValueError for a name that was never asked."""
    asked = by_speed(spans)
    if clients is None:
        step = max(1.0, (len(asked) - 1) / (MOST_ROWS - 1))
        return asked if len(asked) <= MOST_ROWS else [asked[round(i * step)] for i in range(MOST_ROWS)]
    known = set(asked)
    if strangers := [client for client in clients if client not in known]:
        raise ValueError(f"clients that were never asked have no timeline: {strangers!r}"[:200])
    return list(dict.fromkeys(clients))


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
    from matplotlib.collections import PolyCollection

    row = {client: i + 1 for i, client in enumerate(clients)}
    jobs = [(record, span) for record in records for span in record.spans] + [(None, span) for span in working]
    shown = [(r, s) for r, s in jobs if s.client in row and s.ended >= start and s.begun <= end]
    bars: dict[tuple[str, bool], list[list[tuple[float, float]]]] = {}                  # (part, for nothing?) -> rectangles
    for _, span in shown:
        low, high = row[span.client] - 0.31, row[span.client] + 0.31
        for part, a, b in pieces(span):
            bars.setdefault((part, span.fate not in ("used", AT_WORK)), []).append([(a, low), (b, low), (b, high), (a, high)])
    for (part, wasted), corners in sorted(bars.items(), key=lambda pair: (pair[0][1], PARTS.index(pair[0][0]))):
        ax.add_collection(PolyCollection(
            corners, facecolors=SHADES[PARTS.index(part)], edgecolors="white", linewidths=0.4, alpha=0.45 if wasted else 1.0,
            hatch="////" if wasted else None, label=f"{part}, for nothing" if wasted else part,
        ))  # fmt: skip
    for fate, mark in MARKS.items():
        if ends := [(span.ended, row[span.client]) for _, span in shown if span.fate == fate]:
            ax.plot(*zip(*ends, strict=True), mark, color="black", markersize=6, clip_on=False, zorder=4, label=fate)
    if arrows:
        ways = [(span.begun, row[span.client]) for _, span in shown]
        ax.vlines([x for x, _ in ways], 0, [y for _, y in ways], color="#888888", linewidth=0.5, zorder=0)
        for record, span in shown:
            if span.fate == "used" and record is not None:
                ax.annotate("", (record.clock, 0), (span.ended, row[span.client] - 0.3), zorder=3,
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
