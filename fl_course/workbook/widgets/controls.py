"""What a reader can move: plain frozen descriptions of controls, no browser in them.

Every control is a finite row of positions. The browser sends the index of a position, never a number that it computed,
so the experiment receives exactly the values that are listed here and every one of them can be tested beforehand.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Range = tuple[float | None, float | None]       # ends of an axis; None: as far as the points reach


def show(value: object) -> str:
    """A value as a reader writes it: 0.1, 12.35, 33,000, 0.00002, 3.3 · 10⁻⁷. Four digits, but never fewer than stand
    before the point; page.js has the same rule."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, int):
        return f"{value:,}"
    if not isinstance(value, float) or not math.isfinite(value):
        return str(value)
    if value and not 1e-5 <= abs(value) < 1e9:
        number, power = f"{value:.3e}".split("e")
        return f"{float(number):g} · 10{str(int(power)).translate(RAISED)}"
    if abs(value) >= 999.95:
        return f"{math.copysign(math.floor(abs(value) + 0.5), value):,.0f}"          # halves as JavaScript rounds them
    text = f"{value:,.{3 - math.floor(math.log10(abs(value))) if value else 0}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


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
class Steps:
    """A slider over the listed numbers, in their order: for round numbers that no rule makes (0.1, 0.3, 1, 2, 5 …)."""

    name: str
    stops: Sequence[float]
    value: float | None = None
    label: str = ""
    unit: str = ""
    kind = "range"

    def __post_init__(self) -> None:
        if len(self.stops) < 2 or any(a >= b for a, b in zip(self.stops, self.stops[1:], strict=False)):
            raise ValueError(f"{self.name}: needs at least two numbers in rising order, not {list(self.stops)!r}")
        _ = self.start

    @property
    def values(self) -> tuple[Any, ...]:
        return tuple(self.stops)

    @property
    def start(self) -> int:
        return nearest(self.values, self.value, self.name)


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


Control = Slider | LogSlider | Steps | Choice | Switch | Button


def describe(control: Control, value: Any) -> str:
    """"client fraction C = 0.1", with the unit where there is one."""
    return f"{control.label or control.name} = {show(value)}{' ' + control.unit if control.unit else ''}"
