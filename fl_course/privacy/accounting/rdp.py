"""Rényi differential privacy, readable: the curve alpha -> epsilon of each mechanism, and the way back to (eps, delta).

A mechanism is (alpha, rho)-RDP if the Rényi divergence of order alpha between its outputs on neighbours is at most rho
(Mironov 2017). Curves of successive releases add up, order by order (proposition 1): that is all of composition.
Every function takes `orders` (k,) and returns a curve (k,). `sigma` is deviation / sensitivity.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np

from .events import Event, FixedSizeSampled, Gaussian, Laplace, NonPrivate, PoissonSampled, Release

Curve = np.ndarray                                               # (k,) float64, one value an order

FRACTIONS = (1.25, *(k / 10 for k in range(11, 160) if k % 10))    # 1.1, 1.2, 1.25, 1.3 … 15.9
INTEGERS = (*range(2, 64), *range(64, 128, 4), *range(128, 256, 8), *range(256, 513, 16))
ORDERS = tuple(sorted((*FRACTIONS, *map(float, INTEGERS))))


def _special() -> Any:
    """scipy.special, imported at first use: it takes longer than all the rest of the package."""
    from scipy import special

    return special


def curve(event: Event, orders: tuple[float, ...] = ORDERS) -> Curve | None:
    """The RDP curve of one simplified event (see simplify.py), or None if this module has no theorem for it."""
    return _curve(event, orders)


@lru_cache(maxsize=256)
def _curve(event: Event, orders: tuple[float, ...]) -> Curve | None:
    alpha = np.asarray(orders, dtype=np.float64)
    match event:
        case NonPrivate():
            rho = np.full(alpha.shape, np.inf)
        case Gaussian():
            rho = gaussian(event.ratio, alpha)
        case Laplace():
            rho = laplace(event.ratio, alpha)
        case Release(epsilon, 0):
            rho = pure(epsilon, alpha)
        case PoissonSampled(rate, Gaussian(neighbours="zero-out") as inner):
            rho = poisson_gaussian(rate, inner.ratio, alpha)
        case FixedSizeSampled(cohort, clients, Gaussian(neighbours="replace-one") as inner):
            rho = fixed_size_gaussian(cohort / clients, inner.ratio, alpha)
        case _:
            return None
    rho.flags.writeable = False                                 # the cache hands out the same array again and again
    return rho


# --- curves --------------------------------------------------------------------------------------------------------


def gaussian(sigma: float, orders: Curve) -> Curve:
    """alpha / (2 sigma²) (Mironov 2017, proposition 7)."""
    return orders / sigma / sigma / 2


def laplace(scale: float, orders: Curve) -> Curve:
    """Mironov 2017, proposition 6, with scale = b / L1 sensitivity."""
    first = np.log(orders / (2 * orders - 1)) + (orders - 1) / scale
    second = np.log((orders - 1) / (2 * orders - 1)) - orders / scale
    return np.maximum(np.logaddexp(first, second), 0.0) / (orders - 1)


def pure(epsilon: float, orders: Curve) -> Curve:
    """An epsilon-private release: min(epsilon, alpha epsilon² / 2) (Bun & Steinke 2016, proposition 3.3)."""
    return np.minimum(epsilon, orders * epsilon**2 / 2)


def poisson_gaussian(rate: float, sigma: float, orders: Curve) -> Curve:
    """The sampled Gaussian mechanism (Mironov, Talwar & Zhang 2019, theorem 4): ln A(alpha) / (alpha - 1), where

        A(alpha) = E[((1 - q) + q exp((2x - 1) / (2 sigma²)))^alpha],   x ~ N(0, sigma²).

    Exact for every order: the binomial sum for integers, one-dimensional quadrature between them.
    """
    log_moments = np.empty(orders.shape)
    whole = orders == np.floor(orders)
    log_moments[whole] = _binomial_moments(rate, sigma, tuple(orders[whole].astype(int)))
    if not whole.all():
        log_moments[~whole] = _quadrature_moments(rate, sigma, orders[~whole])
    return np.maximum(log_moments, 0.0) / (orders - 1)


def _binomial_moments(rate: float, sigma: float, orders: tuple[int, ...]) -> Curve:
    """ln sum_k C(alpha, k) (1-q)^(alpha-k) q^k exp(k(k-1) / (2 sigma²)) (Mironov, Talwar & Zhang 2019, section 3.3)."""
    log_binomials, k, alpha = _binomials(orders)
    terms = log_binomials + k * (math.log(rate) - math.log1p(-rate)) + k * (k - 1) / sigma / sigma / 2
    return _special().logsumexp(terms, axis=1) + alpha[:, 0] * math.log1p(-rate)


@lru_cache(maxsize=8)
def _binomials(orders: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """ln C(alpha, k), -inf for k > alpha, as a matrix (orders, k); and k (1, k) and alpha (orders, 1)."""
    alpha, k = np.array(orders, dtype=np.float64)[:, None], np.arange(max(orders, default=0) + 1.0)[None, :]
    log_binomials = _special().gammaln(alpha + 1) - _special().gammaln(k + 1) - _special().gammaln(np.maximum(alpha - k, 0) + 1)
    return np.where(k <= alpha, log_binomials, -np.inf), k, alpha


def _quadrature_moments(rate: float, sigma: float, orders: Curve) -> Curve:
    """ln A(alpha) by the trapezoidal rule, which converges exponentially fast for a function analytic in a strip.

    The logarithm branches at distance pi sigma² from the real axis and the Gaussian has width sigma, so a step of
    min(sigma, sigma²) / 3 leaves an error of e^(-2 pi² · 3) at most, 1e-25. Below sigma = 0.05 this takes too many
    points and the next integer order is used: the curve rises with the order, so the bound holds.
    """
    if sigma < 0.05:
        above = np.ceil(orders)
        return _binomial_moments(rate, sigma, tuple(above.astype(int))) * (orders - 1) / (above - 1)
    step = min(sigma, sigma**2) / 3
    # The integrand lives between the humps at 0 and at alpha; 10 deviations beyond them is 1e-23 of it.
    x = np.arange(-10 * sigma, orders.max() + 10 * sigma, step)
    log_ratio = np.logaddexp(math.log1p(-rate), math.log(rate) + (2 * x - 1) / (2 * sigma**2))
    log_density = -((x / sigma) ** 2) / 2 + math.log(step / sigma / math.sqrt(2 * math.pi))
    return _special().logsumexp(orders[:, None] * log_ratio + log_density, axis=1)


def fixed_size_gaussian(rate: float, sigma: float, orders: Curve) -> Curve:
    """Exactly m of n, replace-one neighbours (Wang, Balle & Kasiviswanathan 2019, theorem 9, with epsilon(inf) = inf).

    The theorem has integer orders; in between, the next one up is used. Never worse than no sampling at all.
    """
    above = tuple(np.maximum(np.ceil(orders), 2).astype(int))
    log_binomials, j, alpha = _binomials(above)
    squares = np.exp(np.minimum(gaussian(sigma, np.array([2.0]))[0], 700.0))     # e^epsilon(2)
    second = math.log(min(4 * (squares - 1), 2 * squares))
    terms = log_binomials + j * math.log(rate) + np.maximum(j - 1, 0) * gaussian(sigma, j) + math.log(2)
    terms[:, :3] = 0.0, -np.inf, 0.0                            # j = 0 is 1, j = 1 is absent, j = 2 has its own factor
    terms[:, 2] = log_binomials[:, 2] + 2 * math.log(rate) + second
    return np.minimum(_special().logsumexp(terms, axis=1) / (alpha[:, 0] - 1), gaussian(sigma, orders))


# --- back to (epsilon, delta) --------------------------------------------------------------------------------------


def to_epsilon(rho: Curve, delta: float, orders: Curve, conversion: str = "improved") -> float:
    """The smallest epsilon over the orders. `rho` may hold infinities; an all-zero curve costs nothing.

    "classic":  rho + ln(1/delta) / (alpha - 1)                                        (Mironov 2017, proposition 3)
    "improved": rho + ln(1 - 1/alpha) - (ln delta + ln alpha) / (alpha - 1)            (Canonne, Kamath & Steinke 2020,
                proposition 12; Balle et al. 2020, theorem 21): never worse, and free.
    """
    if not rho.any():
        return 0.0
    epsilons = rho - math.log(delta) / (orders - 1)
    if conversion == "improved":
        epsilons = epsilons + np.log1p(-1 / orders) - np.log(orders) / (orders - 1)
    return max(float(epsilons.min()), 0.0)


def to_delta(rho: Curve, epsilon: float, orders: Curve, conversion: str = "improved") -> float:
    """The smallest delta over the orders: `to_epsilon` solved for delta."""
    if not rho.any():
        return 0.0
    log_deltas = (orders - 1) * (rho - epsilon)
    if conversion == "improved":
        log_deltas = log_deltas + (orders - 1) * np.log1p(-1 / orders) - np.log(orders)
    return math.exp(min(float(log_deltas.min()), 0.0))
