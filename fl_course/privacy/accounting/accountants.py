"""What it costs: six accountants, one pair of questions.

    epsilon(events, delta)     the smallest epsilon they can prove at this delta
    delta(events, epsilon)     the smallest delta they can prove at this epsilon

`events` is an event or any iterable of events; their order and grouping do not matter. No events cost 0, a release
without noise costs infinity (delta 1). An accountant that has no theorem for an event raises `UnpricedEvent`, which
names the event and who can price it.

    accountant   theorem                                       Gaussian   Poisson sampling   (eps, delta) releases
    Basic        sums of epsilons and deltas                   yes        yes                yes
    Advanced     Dwork, Rothblum & Vadhan                      yes        yes                yes
    RDP          ours, see rdp.py                              yes        Gaussian           delta = 0
    ZCDP         Bun & Steinke 2016                            yes        no                 delta = 0
    GDP          Dong, Roth & Su 2022                          exact      no                 no
    PLD          numerical, by dp-accounting; the tight one    exact      Gaussian, Laplace  yes
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from ..mechanisms import between, gaussian_delta, gaussian_epsilon
from . import rdp
from .events import Event, Gaussian, Laplace, NonPrivate, Release
from .pricing import Events, check_epsilon, priced

# --- composition of curves -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RDP:
    """Rényi DP (Mironov 2017): curves add, order by order. The readable accountant of the course, see rdp.py."""

    conversion: Literal["improved", "classic"] = "improved"
    orders: tuple[float, ...] = rdp.ORDERS

    def __post_init__(self) -> None:
        if self.conversion not in ("improved", "classic"):
            raise ValueError(f"conversion must be 'improved' or 'classic', not {self.conversion!r}")
        object.__setattr__(self, "orders", tuple(float(order) for order in self.orders))
        if not self.orders or not all(1 < order < math.inf for order in self.orders):
            raise ValueError(f"orders must be finite and above 1, and at least one: {self.orders!r}")

    def prices(self, event: Event) -> bool:
        return rdp.curve(event, self.orders) is not None

    def curve(self, events: Events) -> np.ndarray:
        """(len(orders),): the total RDP at each order."""
        total = np.zeros(len(self.orders))
        counts = priced(self, events)
        if counts is None:
            return np.full(len(self.orders), np.inf)
        for event, count in counts.items():
            rho = rdp.curve(event, self.orders)
            total += count * rho if rho is not None else np.inf
        return total

    def epsilon(self, events: Events, delta: float) -> float:
        between("delta", delta)
        return rdp.to_epsilon(self.curve(events), delta, np.array(self.orders), self.conversion)

    def delta(self, events: Events, epsilon: float) -> float:
        check_epsilon(epsilon)
        return rdp.to_delta(self.curve(events), epsilon, np.array(self.orders), self.conversion)


@dataclass(frozen=True)
class ZCDP:
    """Zero-concentrated DP: one number rho for each release, rho = 1 / (2 sigma²) for a Gaussian (Bun & Steinke 2016).

    An RDP curve that is a straight line through 0, rho · alpha, so that every order may be tried.
    """

    ORDERS: ClassVar[np.ndarray] = 1 + np.geomspace(1e-4, 1e8, 2401)

    def prices(self, event: Event) -> bool:
        return isinstance(event, NonPrivate | Gaussian | Laplace) or (isinstance(event, Release) and event.delta == 0)

    def rho(self, events: Events) -> float:
        counts = priced(self, events)
        return math.inf if counts is None else math.fsum(count * _rho(event) for event, count in counts.items())

    def epsilon(self, events: Events, delta: float) -> float:
        between("delta", delta)
        return rdp.to_epsilon(self.rho(events) * self.ORDERS, delta, self.ORDERS)

    def delta(self, events: Events, epsilon: float) -> float:
        check_epsilon(epsilon)
        return rdp.to_delta(self.rho(events) * self.ORDERS, epsilon, self.ORDERS)


def _rho(event: Event) -> float:
    match event:
        case Gaussian():
            return 1 / event.ratio / event.ratio / 2            # Bun & Steinke 2016, proposition 1.6
        case Laplace():
            return 1 / event.ratio / event.ratio / 2            # pure epsilon: epsilon² / 2, proposition 1.4
        case Release(epsilon, 0):
            return epsilon**2 / 2
    return math.inf


@dataclass(frozen=True)
class GDP:
    """Gaussian DP (Dong, Roth & Su 2022): Gaussians compose to a Gaussian, mu² = sum 1/sigma², and the price is exact.

    For sampled releases there is only a limit theorem here, which may fall below the truth: refused.
    """

    def prices(self, event: Event) -> bool:
        return isinstance(event, NonPrivate | Gaussian)

    def mu(self, events: Events) -> float:
        counts = priced(self, events)
        return math.inf if counts is None else exact_mu(counts)

    def epsilon(self, events: Events, delta: float) -> float:
        between("delta", delta)
        return _from_mu(self.mu(events), lambda sigma: gaussian_epsilon(sigma, delta), math.inf)

    def delta(self, events: Events, epsilon: float) -> float:
        check_epsilon(epsilon)
        return _from_mu(self.mu(events), lambda sigma: gaussian_delta(sigma, epsilon), 1.0)


def exact_mu(counts: dict[Event, int]) -> float:
    """mu of the Gaussian releases in a tally (Dong, Roth & Su 2022, corollary 3.3)."""
    squares = [count / event.ratio / event.ratio for event, count in counts.items() if isinstance(event, Gaussian)]
    return math.sqrt(math.fsum(squares))


def _from_mu(mu: float, price: Callable[[float], float], unbounded: float) -> float:
    if mu == 0:
        return 0.0
    return unbounded if math.isinf(mu) else price(1 / mu)
