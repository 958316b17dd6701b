"""Clip, then noise: how one release is made private, as plain mathematics.

    sensitivity S   how far one client can move the released sum; after a clip to norm C and removal of a client, S = C
    sigma, scale    of the noise added to the *sum*, in the units of the sum
    (epsilon, delta)   the promise (Dwork & Roth 2014, definition 2.4)

Many releases are the business of `accounting`; where the noise comes from, of `noise`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np


def positive(name: str, value: float) -> float:
    """`value` if it is a finite number above 0; ValueError with its name otherwise."""
    if not (value > 0 and math.isfinite(value)):
        raise ValueError(f"{name} must be a finite number above 0, not {value!r}")
    return float(value)


def between(name: str, value: float) -> float:
    """`value` if it lies strictly between 0 and 1; ValueError with its name otherwise."""
    if not 0 < value < 1:
        raise ValueError(f"{name} must lie strictly between 0 and 1, not {value!r}")
    return float(value)


# --- clip ----------------------------------------------------------------------------------------------------------


def norm(vector: Any, order: int = 2) -> float:
    """The L2 (or L1) norm of all coordinates together, in float64 and scaled, so that 1e30 in float32 is no problem.

    Raises ValueError for NaN or infinity: a clip that lets them through protects nobody.
    """
    if order not in (1, 2):
        raise ValueError(f"norm must be 1 (Laplace noise) or 2 (Gaussian noise), not {order!r}")
    values = np.abs(np.asarray(vector, dtype=np.float64)).ravel()
    largest = float(values.max(initial=0.0))
    if not math.isfinite(largest):
        raise ValueError("the vector holds NaN or infinity: exclude it before clipping")
    if largest == 0.0:
        return 0.0
    values = values / largest
    return largest * float(values.sum() if order == 1 else math.sqrt(values @ values))


def clip(vector: Any, bound: float, norm: int = 2) -> np.ndarray:
    """`vector` scaled down to norm at most `bound`, over all its coordinates together (Abadi et al. 2016, algorithm 1).

    A copy of the same shape and dtype; equal to the input to the bit if its norm is within the bound (or the bound is
    infinite), zero for zero. The result is rounded *towards zero*, so that its norm is never above the bound, also in
    float32 on the wire. L2 goes with Gaussian noise, L1 (`norm=1`) with Laplace noise.
    """
    array = np.array(vector)
    if array.dtype.kind != "f":
        raise TypeError(f"clipping needs floating-point numbers, not {array.dtype}")
    if not bound > 0:                                           # also catches NaN
        raise ValueError(f"the clip bound must be above 0, not {bound!r}")
    length = _norm(array, norm)
    if length <= bound:
        return array
    # 1e-12 pays for the rounding of the float64 norm itself.
    exact = array.astype(np.float64) / length * (bound * (1 - 1e-12))
    rounded = exact.astype(array.dtype)
    too_long = np.abs(rounded.astype(np.float64)) > np.abs(exact)
    return np.where(too_long, np.nextafter(rounded, array.dtype.type(0)), rounded)


_norm = norm                                                    # inside `clip` the word is the argument


# --- Gaussian ------------------------------------------------------------------------------------------------------


def gaussian_delta(sigma: float, epsilon: float, sensitivity: float = 1.0) -> float:
    """The smallest delta for which N(0, sigma²) is (epsilon, delta)-private: exact (Balle & Wang 2018, theorem 8)."""
    positive("sensitivity", sensitivity)
    if not epsilon >= 0:
        raise ValueError(f"epsilon must be 0 or more, not {epsilon!r}")
    if not sigma >= 0:
        raise ValueError(f"sigma must be 0 or more, not {sigma!r}")
    if math.isinf(epsilon) or math.isinf(sigma):
        return 0.0
    mu = sensitivity / sigma if sigma > 0 else math.inf
    if math.isinf(mu) or mu * mu == math.inf:
        return 1.0
    from scipy.special import log_ndtr  # here, because it takes longer to import than all the rest of the package

    # delta = Φ(μ/2 − ε/μ) − e^ε Φ(−μ/2 − ε/μ), with the first term factored out: e^ε alone would overflow.
    first = float(log_ndtr(mu / 2 - epsilon / mu)) if mu > 0 else -math.inf
    if first == -math.inf:
        return 0.0
    second = float(log_ndtr(-mu / 2 - epsilon / mu))
    return -math.exp(first) * math.expm1(min(epsilon + second - first, 0.0))


def gaussian_epsilon(sigma: float, delta: float, sensitivity: float = 1.0) -> float:
    """The smallest epsilon for which N(0, sigma²) is (epsilon, delta)-private; infinite for sigma = 0."""
    between("delta", delta)
    if gaussian_delta(sigma, 0.0, sensitivity) <= delta:
        return 0.0
    if sigma == 0 or gaussian_delta(sigma, 1e300, sensitivity) > delta:
        return math.inf
    return bisect(lambda epsilon: gaussian_delta(sigma, epsilon, sensitivity) <= delta)


def gaussian_sigma(epsilon: float, delta: float, sensitivity: float = 1.0) -> float:
    """The smallest sigma that keeps (epsilon, delta), for every epsilon > 0 (Balle & Wang 2018, algorithm 1)."""
    positive("epsilon", epsilon)
    between("delta", delta)
    positive("sensitivity", sensitivity)
    return sensitivity * bisect(lambda sigma: gaussian_delta(sigma, epsilon) <= delta)


def gaussian_sigma_classic(epsilon: float, delta: float, sensitivity: float = 1.0) -> float:
    """sqrt(2 ln(1.25/delta)) S / epsilon (Dwork & Roth 2014, theorem A.1). Proved for epsilon <= 1, refused above.

    Up to there it wastes noise (26 % to 58 % more than `gaussian_sigma` at epsilon 0.1 to 1); far above (from 6.8 at
    delta = 1e-2, from 8.45 at 1e-5) it delivers a larger delta than it promises.
    """
    positive("epsilon", epsilon)
    between("delta", delta)
    positive("sensitivity", sensitivity)
    if epsilon > 1:
        raise ValueError(f"the classic formula is proved for epsilon <= 1, not {epsilon!r}: use gaussian_sigma")
    return math.sqrt(2 * math.log(1.25 / delta)) * sensitivity / epsilon


# --- Laplace -------------------------------------------------------------------------------------------------------


def laplace_scale(epsilon: float, sensitivity: float = 1.0) -> float:
    """b = S1 / epsilon, with the **L1** sensitivity (Dwork & Roth 2014, theorem 3.6): pure epsilon, no delta.

    Clip with `norm=1`. A vector of L2 norm C in d dimensions can have L1 norm C·sqrt(d), and so can its sensitivity.
    """
    return positive("sensitivity", sensitivity) / positive("epsilon", epsilon)


# --- several Gaussians at once -------------------------------------------------------------------------------------


def joint_noise_multiplier(*noise_multipliers: float) -> float:
    """Gaussians released together about the same clients cost as much as one Gaussian with this noise multiplier.

    1/z² adds up (Dong, Roth & Su 2022, corollary 3.3). 0 (no noise) for any of them makes the whole 0.
    """
    if not noise_multipliers or any(not z >= 0 for z in noise_multipliers):
        raise ValueError(f"noise multipliers must be 0 or more, and at least one: {noise_multipliers!r}")
    if 0 in noise_multipliers:
        return 0.0
    precision = math.fsum(z**-2 for z in noise_multipliers)
    return 1 / math.sqrt(precision) if precision > 0 else math.inf


def remaining_noise_multiplier(total: float, other: float) -> float:
    """The z that, released beside a Gaussian of multiplier `other`, costs `total` in all: 1/z² = 1/total² − 1/other².

    Adaptive clipping (Andrew et al. 2021, theorem 1): the count of unclipped clients, shifted to ±1/2, has sensitivity
    1/2, so noise of deviation s on the count is the multiplier 2s, and the updates need the rest.
    """
    positive("total", total)
    if not other > total:
        raise ValueError(f"a release of multiplier {other!r} costs more than {total!r} in all: give it more noise")
    return 1 / math.sqrt(total**-2 - other**-2)


def bisect(enough: Callable[[float], bool], low: float = 0.0, high: float = 1.0, tolerance: float = 1e-12) -> float:
    """The smallest x > 0 with `enough(x)`, for a test that stays true once true; errs on the safe (true) side.

    `high` is a first guess, doubled until it is enough; `tolerance` is relative.
    """
    while not enough(high):
        low, high = high, 2 * high
        if high > 1e300:
            raise ValueError("no finite value is enough")
    while high - low > tolerance * high and low < (middle := (low + high) / 2) < high:
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
