"""The two accountants of the textbook: each release is a promise (epsilon, delta), and promises are added up.

A release with a fixed promise keeps it. A Gaussian has a promise for every delta, so the delta that the fixed ones
leave is shared equally among the Gaussians.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..mechanisms import between, bisect, gaussian_epsilon
from .events import Event, FixedSizeSampled, Gaussian, Laplace, NonPrivate, PoissonSampled, Release
from .pricing import Accountant, Events, check_epsilon, priced

Promise = tuple[float, float]                                    # (epsilon, delta)


@dataclass(frozen=True)
class Basic:
    """Epsilons add, deltas add (Dwork & Roth 2014, theorem 3.16)."""

    def prices(self, event: Event) -> bool:
        return promise(event, 0.5) is not None

    def epsilon(self, events: Events, delta: float) -> float:
        between("delta", delta)
        counts = priced(self, events)
        return math.inf if counts is None else _plain_sum(_promises(counts, delta))

    def delta(self, events: Events, epsilon: float) -> float:
        return _smallest_delta(self, events, epsilon)


@dataclass(frozen=True)
class Advanced:
    """sqrt(2 ln(1/slack) Σ eps²) + Σ eps (e^eps - 1), or the plain sum if less (Dwork & Roth 2014, theorem 3.20).

    The theorem is stated for equal epsilons; its proof (Azuma's inequality) holds for unequal ones. It spends `slack`
    of the delta: all that is left when every release has a fixed promise, half of it when some need a share.
    """

    def prices(self, event: Event) -> bool:
        return promise(event, 0.5) is not None

    def epsilon(self, events: Events, delta: float) -> float:
        between("delta", delta)
        counts = priced(self, events)
        if counts is None:
            return math.inf
        plain = _plain_sum(_promises(counts, delta))
        slack = (delta - _fixed_delta(counts)) * (0.5 if _sharers(counts) else 1.0)
        promises = _promises(counts, delta - slack) if slack > 0 else None
        if promises is None or any(epsilon > 700 for (epsilon, _), _ in promises):
            return plain
        squares = math.fsum(count * epsilon**2 for (epsilon, _), count in promises)
        drift = math.fsum(count * epsilon * math.expm1(epsilon) for (epsilon, _), count in promises)
        return min(plain, math.sqrt(2 * math.log(1 / slack) * squares) + drift)

    def delta(self, events: Events, epsilon: float) -> float:
        return _smallest_delta(self, events, epsilon)


def promise(event: Event, delta: float) -> Promise | None:
    """(epsilon, delta) of one simplified event, which may spend `delta` if its promise is not fixed.

    Sampling turns (eps, delta) into (ln(1 + q (e^eps - 1)), q delta), each kind for its own neighbours: Poisson for
    zero-out, m of n for replace-one (Balle, Barthe & Gaboardi 2018, theorems 8 and 9). None: no theorem here.
    """
    match event:
        case NonPrivate():
            return math.inf, 1.0
        case Release(epsilon, fixed):
            return epsilon, fixed
        case Laplace():
            return 1 / event.ratio, 0.0
        case Gaussian():
            return gaussian_epsilon(event.ratio, delta), delta
        case PoissonSampled(rate, Gaussian() | Laplace() | Release() as inner) if inner.neighbours == "zero-out":
            return _amplified(rate, inner, delta)
        case FixedSizeSampled(cohort, clients, Gaussian() | Laplace() | Release() as inner):
            return _amplified(cohort / clients, inner, delta)
    return None


def _amplified(rate: float, inner: Event, delta: float) -> Promise | None:
    found = promise(inner, min(delta / rate, 0.5))
    if found is None:
        return None
    epsilon, spent = found
    return (math.log1p(rate * math.expm1(epsilon)) if epsilon < 700 else epsilon), rate * spent


def _shares(event: Event) -> bool:
    """Whether the release has no promise of its own and needs a share of delta."""
    return isinstance(event.event if isinstance(event, PoissonSampled | FixedSizeSampled) else event, Gaussian)


def _sharers(counts: dict[Event, int]) -> int:
    return sum(count for event, count in counts.items() if _shares(event))


def _fixed_delta(counts: dict[Event, int]) -> float:
    fixed = [(promise(event, 0.5), count) for event, count in counts.items() if not _shares(event)]
    return math.fsum(count * found[1] for found, count in fixed if found)


def _promises(counts: dict[Event, int], delta: float) -> list[tuple[Promise, int]] | None:
    """A promise and a count for every event, with deltas that add up to at most `delta`; None if that cannot be."""
    left = delta - _fixed_delta(counts)
    sharers = _sharers(counts)
    if left < 0 or (sharers and left == 0):
        return None
    share = left / sharers if sharers else 0.5
    return [(found, count) for event, count in counts.items() if (found := promise(event, share))]


def _plain_sum(promises: list[tuple[Promise, int]] | None) -> float:
    return math.inf if promises is None else math.fsum(count * epsilon for (epsilon, _), count in promises)


def _smallest_delta(accountant: Accountant, events: Events, epsilon: float) -> float:
    """The smallest delta whose price is within `epsilon`, from above to 1e-9 of its logarithm; 1 if there is none."""
    check_epsilon(epsilon)
    counts = priced(accountant, events)
    if counts is None or accountant.epsilon(events, 1 - 1e-9) > epsilon:
        return 1.0
    fixed = _fixed_delta(counts)
    if not _sharers(counts) and _plain_sum(_promises(counts, fixed)) <= epsilon:
        return fixed

    def at(x: float) -> float:                                  # delta from 0 to 1 as x goes from 0 to infinity
        return max(math.exp(-1 / x), 1e-300)

    return at(bisect(lambda x: accountant.epsilon(events, at(x)) <= epsilon, tolerance=1e-9))
