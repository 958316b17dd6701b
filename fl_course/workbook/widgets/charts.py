"""What is drawn (charts) as plain frozen descriptions, the numbers beside them, and all that the page needs to build itself.

    Chart        lines over x                     BarChart     labelled bars
    ImageChart   grey tiles                       PlaneChart   paths, marks, letters and outlines in a plane
    TimelineChart   who did what when

Each kind says which names of a `Point` it draws; an experiment that yields any other name is refused.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .controls import Control, Range, describe, show

HERE = Path(__file__).parent
SCRIPT = ("page.js", "charts.js", "pictures.js", "explorer.js")      # the page side of an explorer
MOST_LINES = 12                                # as many as there are colours that can be told apart


@dataclass(frozen=True)
class Chart:
    """Lines over x. `lines` names what the points carry (default: one line, named like the chart)."""

    title: str
    x: str
    y: str
    x_unit: str = ""
    y_unit: str = ""
    lines: tuple[str, ...] = ()
    x_range: Range | None = None                # (0, None) begins at 0 and ends with the points
    y_range: Range | None = None
    x_log: bool = False
    y_log: bool = False
    kind = "lines"

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.lines) or (self.title,)

    @property
    def draws(self) -> dict[str, tuple[str, ...]]:
        return {"lines": self.names}


@dataclass(frozen=True)
class BarChart:
    """Labelled bars; the points carry them under the chart's title, or under the names in `series`, side by side at each
    label. Each point replaces the one before."""

    title: str
    y: str
    y_unit: str = ""
    x: str = ""
    y_range: Range | None = None
    series: tuple[str, ...] = ()
    kind = "bars"

    @property
    def draws(self) -> dict[str, tuple[str, ...]]:
        return {"bars": tuple(self.series) or (self.title,)}


@dataclass(frozen=True)
class ImageChart:
    """Grey pictures side by side, one a name: (rows, columns) of numbers from 0, white, to 1, black."""

    title: str
    images: tuple[str, ...]
    kind = "images"

    @property
    def draws(self) -> dict[str, tuple[str, ...]]:
        return {"images": self.images}


@dataclass(frozen=True)
class PlaneChart:
    """A plane of two parameters, both to the same scale: `lines` walk in it, a dot a step; `marks` are single points,
    a symbol each; `letters` too, drawn as their name; `outlines` are contours, thin and grey.

    drag    (mark, control of its x, control of its y): the reader moves this mark, by pointer or arrow keys. The controls are
            sliders and go to the nearest of their positions; where the mark then stands, the experiment says
    """

    title: str
    x: str
    y: str
    lines: tuple[str, ...] = ()
    marks: tuple[str, ...] = ()
    letters: tuple[str, ...] = ()
    outlines: tuple[str, ...] = ()
    x_range: tuple[float, float] = (-1, 1)
    y_range: tuple[float, float] = (-1, 1)
    x_unit: str = ""
    y_unit: str = ""
    drag: tuple[str, str, str] | None = None
    kind = "plane"

    @property
    def draws(self) -> dict[str, tuple[str, ...]]:
        return {"lines": self.lines, "marks": self.marks + self.letters, "outlines": self.outlines}


@dataclass(frozen=True)
class TimelineChart:
    """Who did what when: a row a name. A job is (row, instants, end, words): its `phases` lie between its instants, so there is
    one instant more than phases; end: what became of it, drawn full if it is among `fine`, else hollow with a cross; words: the
    lines that hover and keys tell. A job on no row, "", is an instant of the whole: a line from top to bottom."""

    title: str
    rows: tuple[str, ...]
    x: str = "simulated time"
    x_unit: str = "s"
    y: str = ""
    phases: tuple[str, ...] = ("download", "training", "upload")
    fine: tuple[str, ...] = ("used", "at work")
    instant: str = "step of the server"         # what a line from top to bottom means
    x_range: Range | None = (0, None)
    kind = "timeline"

    @property
    def draws(self) -> dict[str, tuple[str, ...]]:
        return {"jobs": (self.title,)}


AnyChart = Chart | BarChart | ImageChart | PlaneChart | TimelineChart


def drawn_names(charts: Sequence[AnyChart]) -> dict[str, list[str]]:
    """Field of Point -> the names that some chart draws."""
    kinds = ("lines", "bars", "images", "marks", "outlines", "jobs")
    return {kind: [name for chart in charts for name in chart.draws.get(kind, ())] for kind in kinds}


def curve_names(charts: Sequence[AnyChart]) -> list[str]:
    """The curves that have a final value: lines over x, not paths in a plane."""
    return [name for chart in charts if isinstance(chart, Chart) for name in chart.names]


def check_experiment(run: Callable[..., Any], controls: Sequence[Control], charts: Sequence[AnyChart]) -> None:
    """Refuse an experiment that cannot work, before anything is trained."""
    names = [control.name for control in controls]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"two controls are named {', '.join(twice)}; each needs a name of its own")
    if not charts:
        raise ValueError("an explorer needs at least one Chart, BarChart, ImageChart, PlaneChart or TimelineChart")
    for kind, drawn in drawn_names(charts).items():
        if twice := sorted({name for name in drawn if drawn.count(name) > 1}):
            raise ValueError(f"two charts draw the {kind.removesuffix('s')} {', '.join(twice)}; each belongs to one chart")
    for chart in charts:
        check_drag(chart, controls)
        series = sum(len(chart.draws.get(kind, ())) for kind in ("lines", "marks"))
        if series > MOST_LINES:
            raise ValueError(f"{chart.title!r} draws {series} lines and marks; more than {MOST_LINES} on one chart cannot be "
                             "told apart: draw two charts")
    try:
        inspect.signature(run).bind(**dict.fromkeys(names))
    except TypeError as error:
        wanted = f"one argument for each control ({', '.join(names)})"
        raise TypeError(f"the experiment must take {wanted}: {error}") from None


def check_drag(chart: AnyChart, controls: Sequence[Control]) -> None:
    """Refuse a mark that cannot be dragged: it must be one of the chart's, and both controls sliders of the explorer."""
    if isinstance(chart, PlaneChart) and chart.drag is not None:
        mark, *names = chart.drag
        if mark not in chart.marks + chart.letters:
            raise ValueError(f"{chart.title!r} has no mark {mark!r} to drag; it has {', '.join(chart.marks + chart.letters)}")
        sliders = [control.name for control in controls if control.kind == "range"]
        if strange := [name for name in names if name not in sliders]:
            raise ValueError(f"{mark!r} is dragged by two sliders, and {strange[0]!r} is none; there are {', '.join(sliders)}")


def drag_of(chart: AnyChart, controls: Sequence[Control]) -> dict[str, Any] | None:
    """For the page: the mark, and for x and y the control and the numbers of its positions."""
    if not isinstance(chart, PlaneChart) or chart.drag is None:
        return None
    known = {control.name: control for control in controls}
    mark, *names = chart.drag
    return {"mark": mark, **{axis: {"control": name, "values": [float(v) for v in known[name].values]}
                             for axis, name in zip("xy", names, strict=True)}}


# -- the numbers beside the charts -------------------------------------------------------------------------------------


def run_labels(controls: Sequence[Control], runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """A short name for each run (its values by control name; the current run first, then the pinned ones).

    Only what differs between the runs is said; runs that differ in nothing are told apart by their number.
    """
    telling = [c for c in controls if c.kind != "button" and len({repr(run[c.name]) for run in runs}) > 1]
    labels = []
    for number, run in enumerate(runs):
        words = ", ".join(describe(control, run[control.name]) for control in telling)
        labels.append((f"pin {number}" if number else "now") + (f": {words}" if words else ""))
    return labels


def settings(controls: Sequence[Control], values: Mapping[str, Any]) -> str:
    """Where the controls stood in a run: "client fraction C = 0.1, local epochs E = 5"."""
    return ", ".join(describe(c, values[c.name]) for c in controls if c.kind != "button")


def table_head(charts: Sequence[AnyChart]) -> list[str]:
    """What a reader compares runs by: which run, how it was set, and where each curve ended."""
    units = {name: chart.y_unit for chart in charts if isinstance(chart, Chart) for name in chart.names}
    return ["run", "settings", *(axis(name, units[name]) for name in curve_names(charts))]


def table_row(number: int, setting: str, lines: Mapping[str, Sequence[Any]], charts: Sequence[AnyChart]) -> list[str]:
    """One run for the table; – where a curve has no last value (yet)."""
    ends = [lines[name][-1][1] if lines.get(name) else None for name in curve_names(charts)]
    return [f"pin {number}" if number else "now", setting, *("–" if end is None else show(end) for end in ends)]


def specification(title: str, controls: Sequence[Control], charts: Sequence[AnyChart]) -> dict[str, Any]:
    """All that the browser needs to build the page, as plain JSON data."""
    return {
        "title": title,
        "controls": [{"name": c.name, "kind": c.kind, "label": c.label or c.name, "start": c.start,
                      "texts": [f"{show(v)} {c.unit}".strip() for v in c.values]} for c in controls],
        "charts": [{"title": c.title, "kind": c.kind, "x": axis(getattr(c, "x", ""), getattr(c, "x_unit", "")),
                    "y": axis(getattr(c, "y", ""), getattr(c, "y_unit", "")),
                    "lines": list(c.draws.get("lines", ())), "bars": list(c.draws.get("bars", ())),
                    "images": list(c.draws.get("images", ())), "marks": list(getattr(c, "marks", ())),
                    "letters": list(getattr(c, "letters", ())),
                    "outlines": list(c.draws.get("outlines", ())), "rows": list(getattr(c, "rows", ())),
                    "phases": list(getattr(c, "phases", ())), "fine": list(getattr(c, "fine", ())),
                    "instant": getattr(c, "instant", ""),
                    "drag": drag_of(c, controls), "xRange": getattr(c, "x_range", None), "yRange": getattr(c, "y_range", None),
                    "xLog": getattr(c, "x_log", False), "yLog": getattr(c, "y_log", False)} for c in charts],
        "table": table_head(charts),
    }


def axes(chart: AnyChart) -> str:
    """" (accuracy against round)", in words; nothing for pictures, which have no axes."""
    if isinstance(chart, ImageChart):
        return ""
    return f" ({chart.y}{f' against {chart.x}' if chart.x else ''})"


def axis(name: str, unit: str) -> str:
    return f"{name} ({unit})" if unit else name


def page(*names: str) -> str:
    """Files of this folder as one text. An ES module in one piece: nothing to import, nothing to ask a server for."""
    return "\n".join((HERE / name).read_text("utf-8") for name in names)
