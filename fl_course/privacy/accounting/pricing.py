"""What an accountant is, and who has a theorem for which event: the ground under accountants.py, composition.py and pld.py."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from ...core import FederatedError
from .events import Event, FixedSizeSampled, Gaussian, Laplace, NonPrivate, PoissonSampled, Release
from .simplify import tally

Events = Event | Iterable[Event]


class Accountant(Protocol):
    """What the ledger and the calibration need of an accountant."""

    def epsilon(self, events: Events, delta: float) -> float: ...

    def delta(self, events: Events, epsilon: float) -> float: ...

    def prices(self, event: Event) -> bool:
        """Whether a simplified event has a price here (see simplify.py)."""
        ...


class UnpricedEvent(FederatedError, ValueError):
    """An accountant was asked about something that it has no theorem for."""


def who_prices(event: Event) -> tuple[str, ...]:
    """The accountants that have a theorem for a simplified event, by name. A test holds this against their `prices`."""
    match event:
        case NonPrivate() | Gaussian():
            return "Basic", "Advanced", "RDP", "ZCDP", "GDP", "PLD"
        case Laplace() | Release(_, 0):
            return "Basic", "Advanced", "RDP", "ZCDP", "PLD"
        case Release():
            return "Basic", "Advanced", "PLD"
        case PoissonSampled(_, Gaussian(neighbours="zero-out")):
            return "Basic", "Advanced", "RDP", "PLD"
        case PoissonSampled(_, Laplace(neighbours="zero-out")):
            return "Basic", "Advanced", "PLD"
        case PoissonSampled(_, Release(neighbours="zero-out")):
            return "Basic", "Advanced"
        case FixedSizeSampled(_, _, Gaussian(neighbours="replace-one")):
            return "Basic", "Advanced", "RDP"
        case FixedSizeSampled(_, _, Laplace(neighbours="replace-one") | Release(neighbours="replace-one")):
            return "Basic", "Advanced"
    return ()


def priced(accountant: Accountant, events: Events) -> dict[Event, int] | None:
    """The tally of events that `accountant` can price; None if one of them is without noise."""
    counts = tally(events)
    for event in counts:
        if not accountant.prices(event):
            others = who_prices(event)
            advice = f"{' or '.join(others)} can" if others else _advice(event)
            raise UnpricedEvent(f"{type(accountant).__name__} cannot price {event!r}: {advice}")
    return None if any(isinstance(event, NonPrivate) for event in counts) else counts


def _advice(event: Event) -> str:
    if isinstance(event, PoissonSampled):
        return "amplification is known for one Gaussian or Laplace release per cohort, under zero-out neighbours"
    return "no accountant here can; drop the sampling to price it as if everybody took part"


def check_epsilon(epsilon: float) -> None:
    if not epsilon >= 0:
        raise ValueError(f"epsilon must be 0 or more, not {epsilon!r}")
