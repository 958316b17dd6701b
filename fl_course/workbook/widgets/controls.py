"""What a reader can move (controls) and what is drawn (charts): plain frozen descriptions, no browser in them.

Every control is a finite row of positions. The browser sends the index of a position, never a number that it computed,
so the experiment receives exactly the values that are listed here and every one of them can be tested beforehand.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Range = tuple[float | None, float | None]       # ends of an axis; None: as far as the points reach


def show(value: object) -> str:
    """A value in at most four significant digits: 0.1, 12.35, 1.2e-05; anything but a number is `str(value)`."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, int):
        return str(value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def nearest(values: Sequence[Any], value: Any, name: str) -> int:
    """The index of `value` among the positions (None: the first one). Refuses a value that is none of them."""
    if value is None:
        return 0
    for index, position in enumerate(values):
        if position == value or (isinstance(position, float) and math.isclose(position, value, rel_tol=5e-3)):
            return index
    raise ValueError(f"{name} = {value!r} is none of its positions {', '.join(map(show, values))}")


@dataclass(frozen=True)
class Slider:
    """Equal steps from `low` to `high`, both included; integers when both `low` and `step` are. `value`: the start."""

    name: str
    low: float
    high: float
    step: float = 1
    value: float | None = None
    label: str = ""
    unit: str = ""
    kind = "range"

    def __post_init__(self) -> None:
        if not (self.step > 0 and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(f"{self.name}: needs low < high and step > 0, not {self.low}, {self.high}, {self.step}")
        if self.count > 1001:
            raise ValueError(f"{self.name}: {self.count} positions; a hand can tell apart at most 1001")
        _ = self.start                                      # refuses a start between two positions

    @property
    def count(self) -> int:
        return math.floor((self.high - self.low) / self.step + 1e-9) + 1

    @property
    def values(self) -> tuple[Any, ...]:
        if isinstance(self.low, int) and isinstance(self.step, int):
            return tuple(self.low + i * self.step for i in range(self.count))
        return tuple(round(self.low + i * self.step, 10) for i in range(self.count))   # 0.15, not 0.15000000000000002

    @property
    def start(self) -> int:
        return nearest(self.values, self.value, self.name)


@dataclass(frozen=True)
class LogSlider:
    """`count` positions from `low` to `high` in equal ratios, rounded to two significant digits (0.1, 0.13, 0.18 …)."""

    name: str
    low: float
    high: float
    count: int = 21
    value: float | None = None
    label: str = ""
    unit: str = ""
    kind = "range"

    def __post_init__(self) -> None:
        if not (0 < self.low < self.high < math.inf and 2 <= self.count <= 1001):
            raise ValueError(f"{self.name}: needs 0 < low < high and 2 to 1001 positions, not {self.low}, {self.high}, "
                             f"{self.count}")
        _ = self.start

    @property
    def values(self) -> tuple[float, ...]:
        ratio = (self.high / self.low) ** (1 / (self.count - 1))
        return tuple(dict.fromkeys(float(f"{self.low * ratio**i:.2g}") for i in range(self.count)))

    @property
    def start(self) -> int:
        """The position whose logarithm is nearest to that of `value`: round numbers need not be on the scale."""
        value = self.low if self.value is None else self.value
        if not self.low <= value <= self.high:
            raise ValueError(f"{self.name} = {value} is outside {self.low} … {self.high}")
        return min(range(len(self.values)), key=lambda i: abs(math.log(self.values[i] / value)))


@dataclass(frozen=True)
class Choice:
    """One of a few named options."""

    name: str
    options: Sequence[Any]
    value: Any = None
    label: str = ""
    unit: str = ""
    kind = "choice"

    def __post_init__(self) -> None:
        if len(self.options) < 2:
            raise ValueError(f"{self.name}: a choice needs at least two options, not {list(self.options)!r}")
        _ = self.start

    @property
    def values(self) -> tuple[Any, ...]:
        return tuple(self.options)

    @property
    def start(self) -> int:
        return nearest(self.values, self.value, self.name)


@dataclass(frozen=True)
class Switch:
    """Off or on."""

    name: str
    value: bool = False
    label: str = ""
    unit: str = ""
    kind = "switch"
    values = (False, True)

    @property
    def start(self) -> int:
        return int(self.value)


@dataclass(frozen=True)
class Button:
    """True in the run that a press starts, False in every other: `rounds = 200 if thorough else 20`."""

    name: str
    label: str = ""
    unit: str = ""
    kind = "button"
    values = (False, True)
    start = 0


Control = Slider | LogSlider | Choice | Switch | Button


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


@dataclass(frozen=True)
class BarChart:
    """Labelled bars; the points carry them under the chart's title, each point replaces the one before."""

    title: str
    y: str
    y_unit: str = ""
    x: str = ""
    y_range: Range | None = None
    kind = "bars"


def check_experiment(run: Callable[..., Any], controls: Sequence[Control], charts: Sequence[Chart | BarChart]) -> None:
    """Refuse an experiment that cannot work, before anything is trained."""
    names = [control.name for control in controls]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"two controls are named {', '.join(twice)}; each needs a name of its own")
    if not charts:
        raise ValueError("an explorer needs at least one Chart or BarChart")
    drawn = [name for chart in charts for name in line_names([chart])]
    if twice := sorted({name for name in drawn if drawn.count(name) > 1}):
        raise ValueError(f"two charts draw the line {', '.join(twice)}; each line belongs to one chart")
    try:
        inspect.signature(run).bind(**dict.fromkeys(names))
    except TypeError as error:
        wanted = f"one argument for each control ({', '.join(names)})"
        raise TypeError(f"the experiment must take {wanted}: {error}") from None


def line_names(charts: Sequence[Chart | BarChart]) -> list[str]:
    return [name for chart in charts if isinstance(chart, Chart) for name in chart.names]


def bar_names(charts: Sequence[Chart | BarChart]) -> list[str]:
    return [chart.title for chart in charts if isinstance(chart, BarChart)]


def describe(control: Control, value: Any) -> str:
    """"client fraction C = 0.1", with the unit where there is one."""
    return f"{control.label or control.name} = {show(value)}{' ' + control.unit if control.unit else ''}"


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


def specification(title: str, controls: Sequence[Control], charts: Sequence[Chart | BarChart]) -> dict[str, Any]:
    """All that the browser needs to build the page, as plain JSON data."""
    return {
        "title": title,
        "controls": [{"name": c.name, "kind": c.kind, "label": c.label or c.name, "start": c.start,
                      "texts": [f"{show(v)} {c.unit}".strip() for v in c.values]} for c in controls],
        "charts": [{"title": c.title, "kind": c.kind,
                    "x": axis(c.x, getattr(c, "x_unit", "")), "y": axis(c.y, c.y_unit),
                    "lines": list(c.names) if isinstance(c, Chart) else [],
                    "xRange": getattr(c, "x_range", None), "yRange": c.y_range,
                    "xLog": getattr(c, "x_log", False), "yLog": getattr(c, "y_log", False)} for c in charts],
    }


def axis(name: str, unit: str) -> str:
    return f"{name} ({unit})" if unit else name
