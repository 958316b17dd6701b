"""What happened: one frozen dataclass for each kind of release. What it costs is the business of the accountants.

A noise multiplier is z = (deviation of the noise on the sum) / (clip bound), a fact about the mechanism. What one
client can change depends on whom the promise protects against, so every release names its neighbouring relation:

    "zero-out"      one client's contribution is there, or is all zeros: the sum moves by at most 1 clip bound. With a
                    public denominator and Poisson cohorts this is what most papers call add/remove.
    "replace-one"   one client's contribution becomes any other: 2 clip bounds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from ...core import is_whole, plain_counts

Neighbours = Literal["zero-out", "replace-one"]


@dataclass(frozen=True)
class NonPrivate:
    """Something left the clients without noise. Its price is infinite, and saying so is the point."""

    what: str = "a release without noise"


@dataclass(frozen=True)
class Gaussian:
    """A sum of contributions clipped to L2 norm C, plus N(0, (noise_multiplier · C)²) in every coordinate."""

    noise_multiplier: float
    neighbours: Neighbours = "zero-out"

    def __post_init__(self) -> None:
        _at_least_zero("noise_multiplier", self.noise_multiplier)
        _relation(self.neighbours)

    @property
    def ratio(self) -> float:
        """Deviation of the noise / sensitivity: what the theorems call sigma."""
        return self.noise_multiplier / moves(self.neighbours)


@dataclass(frozen=True)
class Laplace:
    """A sum of contributions clipped to **L1** norm C, plus Laplace noise of scale `scale_over_clip · C`."""

    scale_over_clip: float
    neighbours: Neighbours = "zero-out"

    def __post_init__(self) -> None:
        _at_least_zero("scale_over_clip", self.scale_over_clip)
        _relation(self.neighbours)

    @property
    def ratio(self) -> float:
        """Scale / L1 sensitivity, so that the release is 1/ratio-private."""
        return self.scale_over_clip / moves(self.neighbours)


@dataclass(frozen=True)
class Release:
    """A mechanism known only by its promise (epsilon, delta)."""

    epsilon: float
    delta: float = 0.0
    neighbours: Neighbours = "zero-out"

    def __post_init__(self) -> None:
        _at_least_zero("epsilon", self.epsilon)
        if not 0 <= self.delta < 1:
            raise ValueError(f"delta must lie in [0, 1), not {self.delta!r}")
        _relation(self.neighbours)


@dataclass(frozen=True)
class TreeAggregation:
    """All noisy prefix sums of `steps` steps, `noise_multiplier · C` on every node of a binary tree (DP-FTRL).

    A client in at most `participations` steps. No sampling is assumed, which is the charm of it: any order of
    arrival will do (Kairouz et al. 2021).
    """

    noise_multiplier: float
    steps: int
    participations: int = 1
    neighbours: Neighbours = "zero-out"

    def __post_init__(self) -> None:
        _at_least_zero("noise_multiplier", self.noise_multiplier)
        _count("steps", self.steps, 1)
        _count("participations", self.participations, 1)
        plain_counts(self)
        _relation(self.neighbours)

    @property
    def as_gaussian(self) -> Gaussian:
        """A step enters at most one node a level, floor(log2(steps)) + 1 levels, so the tree as one long vector has the
        sensitivity C·sqrt(levels) (Dwork et al. 2010). k participations multiply it by at most k."""
        levels = self.steps.bit_length()
        return Gaussian(self.noise_multiplier / (self.participations * math.sqrt(levels)), self.neighbours)


@dataclass(frozen=True)
class PoissonSampled:
    """`event` on a cohort into which every client came by its own coin of probability `rate`, in secret.

    Only this sampling has the amplification that the accountants compute. The cohort may be empty; noise is released
    and charged all the same.
    """

    rate: float
    event: Event

    def __post_init__(self) -> None:
        if not 0 <= self.rate <= 1:
            raise ValueError(f"rate must lie in [0, 1], not {self.rate!r}")
        check_event(self.event)


@dataclass(frozen=True)
class FixedSizeSampled:
    """`event` on exactly `cohort` of `clients`, uniformly drawn. **Not** Poisson: its price can be twice as high.

    Under "zero-out" nobody knows a good general bound, so it is priced as if everybody took part (Lebeda et al. 2024
    show how wrong the Poisson figure is); under "replace-one" `RDP` knows the theorem of Wang et al. (2019).
    """

    cohort: int
    clients: int
    event: Event

    def __post_init__(self) -> None:
        _count("clients", self.clients, 1)
        _count("cohort", self.cohort, 1)
        plain_counts(self)
        if self.cohort > self.clients:
            raise ValueError(f"a cohort of {self.cohort} cannot come from {self.clients} clients")
        check_event(self.event)


@dataclass(frozen=True)
class ChosenBy:
    """`event` on a cohort that a rule chose: by loss, by score, by diversity, by who arrived first. No amplification.

    The price covers the noisy sum for a given choice. That the choice itself depends on what clients reported is *not*
    covered: noise the reports and charge them, or say so.
    """

    rule: str
    event: Event

    def __post_init__(self) -> None:
        check_event(self.event)


@dataclass(frozen=True)
class Composed:
    """Several releases, each on the same clients. Inside a sampling event: on the same *cohort*."""

    events: tuple[Event, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "events", tuple(self.events))
        for event in self.events:
            check_event(event)


@dataclass(frozen=True)
class Repeated:
    """`event`, `count` times, each with fresh noise (and, if it samples, a fresh cohort)."""

    event: Event
    count: int

    def __post_init__(self) -> None:
        _count("count", self.count, 0)
        plain_counts(self)
        check_event(self.event)


Event = (
    NonPrivate | Gaussian | Laplace | Release | TreeAggregation | PoissonSampled | FixedSizeSampled | ChosenBy
    | Composed | Repeated
)  # fmt: skip
KINDS = {kind.__name__: kind for kind in Event.__args__}


def moves(neighbours: Neighbours) -> int:
    """How many clip bounds one client can move the sum."""
    return 2 if neighbours == "replace-one" else 1


# --- events as plain data, for checkpoints -------------------------------------------------------------------------


def event_to_plain(event: Event) -> dict[str, Any]:
    """The event as a dictionary of numbers, strings, lists and dictionaries; `event_from_plain` is its inverse."""
    plain: dict[str, Any] = {"kind": type(event).__name__}
    for name, value in vars(event).items():
        if isinstance(value, tuple):
            plain[name] = [event_to_plain(part) for part in value]
        else:
            plain[name] = event_to_plain(value) if isinstance(value, Event) else value
    return plain


def event_from_plain(plain: dict[str, Any]) -> Event:
    """Raises ValueError if the data describe no event of this course."""
    if not isinstance(plain, dict) or plain.get("kind") not in KINDS:
        raise ValueError(f"not a privacy event: {plain!r}")
    fields: dict[str, Any] = {}
    for name, value in plain.items():
        if isinstance(value, list):
            fields[name] = tuple(event_from_plain(part) for part in value)
        else:
            fields[name] = event_from_plain(value) if isinstance(value, dict) else value
    try:
        return KINDS[fields.pop("kind")](**fields)
    except TypeError as error:
        raise ValueError(f"not a privacy event: {plain!r}") from error


# --- refusals ------------------------------------------------------------------------------------------------------


def _at_least_zero(name: str, value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
        raise ValueError(f"{name} must be a number, 0 or more, not {value!r}")


def _count(name: str, value: int, least: int) -> None:
    if not is_whole(value, least):
        raise ValueError(f"{name} must be an integer, {least} or more, not {value!r}")


def _relation(value: str) -> None:
    if value not in ("zero-out", "replace-one"):
        raise ValueError(f"neighbours must be 'zero-out' or 'replace-one', not {value!r}")


def check_event(value: object) -> None:
    if not isinstance(value, Event):
        raise TypeError(f"not a privacy event: {value!r}")
