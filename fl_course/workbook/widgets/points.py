"""What a run has shown so far, and how much of it is drawn.

A line of ten thousand points looks like one of a few hundred on a chart that is four hundred pixels wide, and takes a
hundred times as long to send and to draw. So the page gets a thinned line; all points stay in the kernel, in `Run.lines`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

BUCKETS = 150                                  # a line is drawn with at most four points of each
Place = tuple[float | None, float | None]


@dataclass(frozen=True)
class Point:
    """What an experiment yields after a round: one more (x, y) for some lines, one line of text, and what replaces
    the last of its name: bars; images, (rows, columns) of greys from 0, white, to 1, black; marks, one (x, y) each;
    outlines, each some closed curves of (n, 2) points; jobs, (row, instants, end, words) as TimelineChart says; notes, a list
    of (sentence, what a link behind it says, where it leads or ""); end: a word for the page when the run is over, for "done"."""

    lines: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    bars: Mapping[str, Sequence[tuple[str, float]]] = field(default_factory=dict)
    text: str = ""
    progress: float | None = None              # 0 … 1, for runs that take seconds
    images: Mapping[str, Any] = field(default_factory=dict)
    marks: Mapping[str, Any] = field(default_factory=dict)
    outlines: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    jobs: Mapping[str, Sequence[tuple[str, Sequence[float], str, Sequence[str]]]] = field(default_factory=dict)
    notes: Sequence[tuple[str, str, str]] | None = None
    end: str = ""


class Drawn:
    """The part of a growing line that is drawn: every point of a short one, the four that matter of each bucket of a long one.

    Uwe Jugel et al. (M4, VLDB 2014): the first, the last, the lowest and the highest point of what falls on one column
    of pixels draw that column exactly. A gap (None) in a bucket stays a gap. When there are too many buckets, each two
    neighbours become one, so a point costs a constant number of steps, however long the run.
    """

    def __init__(self) -> None:
        self.total, self.width = 0, 1                       # points seen; points a bucket
        self._buckets: list[list[Place]] = []
        self._open: list[Place] = []                        # the extremes of the bucket at hand …
        self._held = 0                                      # … which has seen so many points

    def add(self, point: Place) -> None:
        self.total, self._held = self.total + 1, self._held + 1
        self._open.append(point)
        if self._held == self.width:
            self._buckets.append(extremes(self._open))
            self._open, self._held = [], 0
        elif len(self._open) > 64:                          # a wide bucket costs no more than a narrow one
            self._open = extremes(self._open)
        if len(self._buckets) > BUCKETS:
            pairs = [self._buckets[i : i + 2] for i in range(0, len(self._buckets) - 1, 2)]
            left = self._buckets[2 * len(pairs):]           # BUCKETS is even, so one bucket is left over
            self._buckets = [extremes([p for bucket in pair for p in bucket]) for pair in pairs]
            self._open, self._held = [p for bucket in left for p in bucket], self.width * len(left)
            self.width *= 2

    def points(self) -> list[Place]:
        return [p for bucket in self._buckets for p in bucket] + extremes(self._open)


def extremes(points: list[Place]) -> list[Place]:
    """First, last, lowest and highest of neighbouring points, in their order, and one gap if there is any among them."""
    if len(points) <= 4:
        return list(points)
    at = [i for i, (x, y) in enumerate(points) if x is not None and y is not None]
    keep = {0, len(points) - 1}
    if at:
        keep |= {at[0], at[-1], min(at, key=lambda i: points[i][1]), max(at, key=lambda i: points[i][1])}  # type: ignore[arg-type, return-value]
    if len(at) < len(points):
        keep.add(next(i for i, (x, y) in enumerate(points) if x is None or y is None))
    return [points[i] for i in sorted(keep)]


@dataclass
class Run:
    """The values of one run and what it has shown so far. NaN and ±inf become None: a gap in the line."""

    values: dict[str, Any]
    lines: dict[str, list[Place]] = field(default_factory=dict)
    bars: dict[str, list[tuple[str, float | None]]] = field(default_factory=dict)
    text: str = ""
    progress: float | None = None
    images: dict[str, list[list[float | None]]] = field(default_factory=dict)
    marks: dict[str, Place] = field(default_factory=dict)
    outlines: dict[str, list[list[Place]]] = field(default_factory=dict)
    jobs: dict[str, list[list[Any]]] = field(default_factory=dict)
    notes: list[list[str]] = field(default_factory=list)
    end: str = ""
    drawn: dict[str, Drawn] = field(default_factory=dict)

    def add(self, point: Point | Mapping[str, tuple[float, float]]) -> None:
        point = point if isinstance(point, Point) else Point(lines=point)
        for name, (x, y) in point.lines.items():
            place = (plain(x), plain(y))
            self.lines.setdefault(name, []).append(place)
            self.drawn.setdefault(name, Drawn()).add(place)
        for name, bars in point.bars.items():
            self.bars[name] = [(str(label), plain(height)) for label, height in bars]
        for name, image in point.images.items():
            self.images[name] = [[plain(grey, 3) for grey in row] for row in np.atleast_2d(image)]
        for name, (x, y) in point.marks.items():
            self.marks[name] = (plain(x), plain(y))
        for name, curves in point.outlines.items():
            self.outlines[name] = [[(plain(x, 4), plain(y, 4)) for x, y in curve] for curve in curves]
        for name, jobs in point.jobs.items():
            self.jobs[name] = [[row, [plain(x) for x in instants], end, list(words)] for row, instants, end, words in jobs]
        self.text, self.progress, self.end = point.text or self.text, point.progress, point.end
        self.notes = self.notes if point.notes is None else [list(note) for note in point.notes]

    @property
    def empty(self) -> bool:
        return not (self.lines or self.bars or self.images or self.marks or self.outlines or self.jobs)

    def picture(self) -> dict[str, Any]:
        """What is drawn of it, as plain JSON data: lines thinned, `points` the number there was of each, if more."""
        return {
            "lines": {name: line.points() for name, line in self.drawn.items()},
            "points": {name: line.total for name, line in self.drawn.items() if line.width > 1},
            "bars": dict(self.bars), "images": dict(self.images), "marks": dict(self.marks), "outlines": dict(self.outlines),
            "jobs": dict(self.jobs),
        }


def plain(number: Any, digits: int = 6) -> float | None:
    """A Python float of so many significant digits (NumPy and torch scalars welcome), None if it is not finite."""
    number = float(number)
    return float(f"{number:.{digits}g}") if math.isfinite(number) else None


def check_point(point: Any, known: Mapping[str, Sequence[str]]) -> None:
    """Refuse what is no point, and points for no chart. `known`: field of Point -> the names that some chart draws."""
    if not isinstance(point, Point | Mapping):
        raise TypeError(f"the experiment yields {point!r}; it must yield a Point, or {{name of a line: (x, y)}}")
    given = {name: getattr(point, name) for name in known} if isinstance(point, Point) else {"lines": point}
    for kind, drawn in known.items():
        if strange := [name for name in given.get(kind, ()) if name not in drawn]:
            raise ValueError(f"the experiment yields the {KINDS[kind]} {strange[0]!r}, which no chart draws; "
                             f"the charts draw {', '.join(drawn) or 'none'}")
    for name, place in [*given.get("lines", {}).items(), *given.get("marks", {}).items()]:
        if len(place) != 2 if hasattr(place, "__len__") else True:
            raise ValueError(f"the experiment yields {place!r} for {name!r}; it must be (x, y)")


KINDS = {"lines": "line", "bars": "bar chart", "images": "image", "marks": "mark", "outlines": "outline", "jobs": "timeline"}
