"""Median and trimmed mean, each number by itself (Yin et al. 2018). Up to f of n values can be anything, as long as n > 2f."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..core import Context
from .robust import Robust, check_liars, everybody

TILE = 128          # coordinates at a time: a tile of some hundred clients stays in the processor's cache


def by_coordinate(x: np.ndarray, answer: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """(d,): `answer` of the sorted columns of x (n, d), handed over as rows (TILE, n), ascending."""
    out = np.empty(x.shape[1])
    for start in range(0, x.shape[1], TILE):
        tile = np.ascontiguousarray(x[:, start : start + TILE].T, dtype=np.float64)
        tile.sort(axis=1)
        out[start : start + TILE] = answer(tile)
    return out


def coordinate_median(x: np.ndarray) -> np.ndarray:
    """(d,) float64: the middle value of each column of x (n, d), or the mean of the middle two (torch.median: the lower)."""
    low, high = (len(x) - 1) // 2, len(x) // 2
    return by_coordinate(x, lambda tile: tile[:, low] if low == high else tile[:, low] / 2 + tile[:, high] / 2)


def trimmed_mean(x: np.ndarray, f: int) -> np.ndarray:
    """(d,) float64: the mean of each column of x (n, d) without its f smallest and f largest values; n > 2f."""
    n = len(x)
    if not n > 2 * f:
        raise ValueError(f"trimming {f} of {n} values at both ends leaves nothing; f must be below n/2")
    share = np.zeros(n)
    share[f : n - f] = 1 / (n - 2 * f)
    return by_coordinate(x, lambda tile: tile[:, f : n - f] @ share[f : n - f])


@dataclass(frozen=True)
class CoordinateMedian(Robust):
    """The median of each coordinate (Yin et al. 2018, option I). It needs to know nothing; f is only what it is held to.

    Equivariant under shifts and scales, but not under rotations. No update need lie where it answers, and where clients
    differ much it answers close to zero: the mean of opposite updates is between them, their median may be neither.
    """

    f: int = 0
    accuses = False

    def __post_init__(self) -> None:
        check_liars(self)

    def weigh(self, x: np.ndarray, ctx: Context | None) -> tuple[np.ndarray, np.ndarray]:
        return coordinate_median(x), everybody(x)


@dataclass(frozen=True)
class TrimmedMean(Robust):
    """The mean of each coordinate without its f largest and f smallest values (Yin et al. 2018, option II), n > 2f.

    f = 0 is the plain mean; the largest f that is allowed gives the median.
    """

    f: int
    accuses = False

    def __post_init__(self) -> None:
        check_liars(self)

    def weigh(self, x: np.ndarray, ctx: Context | None) -> tuple[np.ndarray, np.ndarray]:
        return trimmed_mean(x, self.f), everybody(x)
