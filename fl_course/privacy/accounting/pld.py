"""The tight accountant: privacy loss distributions, convolved numerically by the library dp-accounting.

The privacy loss of one release is a random variable; the loss of many is their sum, so its distribution is a
convolution (Koskela et al. 2020; Doroshenko et al. 2022). The grid rounds the loss *up*, so the answer is never below
the truth. Probabilities are kept to about 1e-15.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from ..mechanisms import between, gaussian_delta, gaussian_epsilon
from .accountants import exact_mu
from .events import Event, Gaussian, Laplace, NonPrivate, PoissonSampled, Release
from .pricing import Events, check_epsilon, priced

LEAST_DELTA = 1e-12                                              # each convolution cuts off up to 1e-15


@dataclass(frozen=True)
class PLD:
    """The default for the figure that is printed. Gaussians without sampling are not put on a grid: they are exact."""

    def prices(self, event: Event) -> bool:
        match event:
            case NonPrivate() | Gaussian() | Release() | Laplace():
                return True
            case PoissonSampled(_, Gaussian(neighbours="zero-out") | Laplace(neighbours="zero-out")):
                return True
        return False

    def epsilon(self, events: Events, delta: float) -> float:
        if between("delta", delta) < LEAST_DELTA:
            raise ValueError(f"PLD keeps probabilities to 1e-15, so delta = {delta!r} is too small for it: use RDP")
        loss = _total_loss(self, events)
        if isinstance(loss, float):
            return math.inf if math.isinf(loss) else gaussian_epsilon(1 / loss, delta) if loss > 0 else 0.0
        return max(float(loss.get_epsilon_for_delta(delta)), 0.0)

    def delta(self, events: Events, epsilon: float) -> float:
        check_epsilon(epsilon)
        loss = _total_loss(self, events)
        if isinstance(loss, float):
            return 1.0 if math.isinf(loss) else gaussian_delta(1 / loss, epsilon) if loss > 0 else 0.0
        return min(max(float(loss.get_delta_for_epsilon(epsilon)), 0.0), 1.0)


def _total_loss(accountant: PLD, events: Events) -> Any:
    """The distribution of the summed privacy loss; or, if Gaussian, its mu as a float (infinite without noise)."""
    counts = priced(accountant, events)
    if counts is None:
        return math.inf
    if any(_promise(event) > 300 for event in counts):         # e^300: the library overflows, and nobody is protected
        return math.inf
    mu = exact_mu(counts)
    leaves: dict[Event, int] = {event: count for event, count in counts.items() if not isinstance(event, Gaussian)}
    if not leaves or math.isinf(mu):
        return mu
    if mu > 0:                                                  # one Gaussian stands for all of them, see exact_mu
        leaves[Gaussian(1 / mu)] = 1
    interval = _interval(frozenset(leaves))
    total = None
    for event, count in sorted(leaves.items(), key=repr):       # floating-point sums depend on the order
        composed = _distribution(event, interval)
        composed = composed.self_compose(count) if count > 1 else composed
        total = composed if total is None else total.compose(composed)
    return total


@lru_cache(maxsize=64)
def _distribution(event: Event, interval: float) -> Any:
    """The privacy loss distribution of one simplified event on a grid of this interval."""
    # Two seconds to import: only when asked.
    from dp_accounting.pld import privacy_loss_distribution as library

    rate, inner = (event.rate, event.event) if isinstance(event, PoissonSampled) else (1.0, event)
    grid: dict[str, Any] = {"value_discretization_interval": interval}
    match inner:
        case Gaussian():
            return library.from_gaussian_mechanism(inner.ratio, sampling_prob=rate, **grid)
        case Laplace():
            return library.from_laplace_mechanism(inner.ratio, sampling_prob=rate, **grid)
        case Release(epsilon, delta):
            promise = library.common.DifferentialPrivacyParameters(epsilon, delta)
            return library.from_privacy_parameters(promise, **grid)
    raise TypeError(f"no privacy loss distribution for {event!r}")     # `prices` and this function disagree


@lru_cache(maxsize=64)
def _interval(events: frozenset[Event]) -> float:
    """A grid fine against the loss of the gentlest release (1/16 of its deviation) and of bearable length for the
    roughest (2^18 points). It depends on which events there are, not on how many, so more rounds never cost less."""
    shapes = [_shape(event) for event in events]
    finest = min(min(deviation / 16, width / 2**14) for deviation, width in shapes)
    return max(finest, max(width for _, width in shapes) / 2**18, 1e-7)


def _promise(event: Event) -> float:
    """The epsilon of a Laplace release or a fixed promise; 0 for the others."""
    inner = event.event if isinstance(event, PoissonSampled) else event
    return 1 / inner.ratio if isinstance(inner, Laplace) else inner.epsilon if isinstance(inner, Release) else 0.0


def _shape(event: Event) -> tuple[float, float]:
    """(deviation, width) of the privacy loss of one release, roughly: only the grid depends on it."""
    rate, inner = (event.rate, event.event) if isinstance(event, PoissonSampled) else (1.0, event)
    if isinstance(inner, Gaussian):
        steepness = 1 / inner.ratio
        return rate * math.sqrt(math.expm1(min(steepness**2, 50.0))), steepness**2 + 20 * steepness
    epsilon = max(_promise(event), 1e-3)
    return rate * min(epsilon, 1.0), 2 * epsilon
