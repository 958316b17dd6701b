"""Send k of d numbers: the largest, a random choice, or all above a threshold. The law they share is in feedback.py."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..core import Context, Vector
from ..wire.payloads import Sparse, drawn
from .feedback import Compression


def kept(ratio: float, d: int) -> int:
    """How many of d numbers a ratio keeps: rounded, and at least one."""
    return min(d, max(1, round(ratio * d)))


def _check_ratio(ratio: float) -> None:
    if isinstance(ratio, bool) or not 0 < ratio <= 1:
        raise ValueError(f"ratio, the share of the numbers that is sent, must be in (0, 1], not {ratio!r}")


def top_k(x: Vector, k: int) -> np.ndarray:
    """(k,) rising positions of the k largest magnitudes of x (d,); among equal ones the first positions.

    Exact. On long vectors a sample says where the k-th magnitude lies, about; only what is above a slightly lower
    threshold is then sorted out. If that is less than k, everything is.
    """
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or not 0 <= k <= x.size:
        raise ValueError(f"k must be a whole number from 0 to {x.size}, not {k!r}")
    if k in (0, x.size):
        return np.arange(k)
    magnitude, candidates = np.abs(x), None
    sample = magnitude[:: max(1, x.size >> 15)]                  # some 2^15 to 2^16 of them
    rank = k * sample.size / x.size
    rank = int(rank + 4 * np.sqrt(rank) + 4)                     # four deviations on the safe side
    if 4 * rank < sample.size:
        threshold = np.partition(sample, sample.size - rank)[sample.size - rank]
        candidates = np.flatnonzero(magnitude >= threshold)
        magnitude = magnitude[candidates]
        if candidates.size < k:
            candidates, magnitude = None, np.abs(x)
    least = np.partition(magnitude, magnitude.size - k)[magnitude.size - k]
    chosen = magnitude > least
    chosen[np.flatnonzero(magnitude == least)[: k - np.count_nonzero(chosen)]] = True
    return np.flatnonzero(chosen) if candidates is None else candidates[chosen]


@dataclass(frozen=True)
class TopK(Compression):
    """The share `ratio` of largest magnitude, at least one number; the rest waits in the residual (Aji & Heafield 2017;
    Stich et al. 2018).

    A contraction: ‖x - C(x)‖² ≤ (1 - k/d)·‖x‖² (Stich et al. 2018, lemma A.1). Biased: without feedback the average of
    many clients' largest entries need not even point downhill.
    """

    ratio: float = 0.01
    feedback: bool = True
    picks = True

    def __post_init__(self) -> None:
        _check_ratio(self.ratio)

    def compress(self, x: Vector, ctx: Context) -> Sparse:
        positions = top_k(x, kept(self.ratio, x.size))
        return Sparse(x.size, positions, x[positions])


@dataclass(frozen=True)
class RandomK(Compression):
    """A random share `ratio` of the coordinates. The receiver draws the same positions from a key of 8 bytes.

    Without feedback scaled by d/k, which makes it unbiased: E C(x) = x, E ‖C(x) - x‖² = (d/k - 1)·‖x‖² (Konečný et al.
    2016). With feedback unscaled, a contraction in expectation: E ‖x - C(x)‖² = (1 - k/d)·‖x‖².
    """

    ratio: float = 0.01
    feedback: bool = False
    picks = True

    def __post_init__(self) -> None:
        _check_ratio(self.ratio)

    @property
    def lengthens(self) -> bool:                                 # type: ignore[override]
        return not self.feedback

    def longest(self, bound: float, size: int) -> float:
        """The largest norm of what is sent for an update (size,) of norm `bound`."""
        return bound * size / kept(self.ratio, size) if self.lengthens else bound

    def compress(self, x: Vector, ctx: Context) -> Sparse:
        k = kept(self.ratio, x.size)
        key = int(ctx.rng("random-k").integers(2**63))
        positions = drawn(key, x.size, k)
        values = x[positions] if self.feedback else x[positions] * np.float32(x.size / max(k, 1))
        return Sparse(x.size, positions, values, key)


@dataclass(frozen=True)
class Threshold(Compression):
    """Every number of magnitude at least `value`, in the units of what it compresses (with ByExamples, of n_k·delta).

    How much is sent follows from the data: much at first, little near the optimum (Strom 2015). It may be nothing at all.
    """

    value: float = 0.01
    feedback: bool = True
    picks = True

    def __post_init__(self) -> None:
        if not (self.value > 0 and np.isfinite(self.value)):
            raise ValueError(f"value must be a positive, finite magnitude, not {self.value!r}")

    def compress(self, x: Vector, ctx: Context) -> Sparse:
        positions = np.flatnonzero(np.abs(x) >= self.value)
        return Sparse(x.size, positions, x[positions])





