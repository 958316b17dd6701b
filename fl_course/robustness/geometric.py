"""The geometric median: the point whose distances to all updates add up to least (RFA, Pillutla et al. 2022).

Weiszfeld's iteration is a weighted mean with weights 1/distance. It always stays a weighted mean Σ λ_i·x_i of the updates,
whose distance to each of them follows from λ and the table of distances between the updates:

    ‖Σ λ_j·x_j - x_i‖² = Σ_j λ_j·d_ij² - ½·Σ_jk λ_j·λ_k·d_jk²

So a step costs n² numbers and not n·d, and the iteration can go on until it has converged. Where far outliers have eaten the
digits of the table, the last steps are taken with the updates themselves.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..core import Context
from .distances import lengths, squared_distances
from .robust import Robust, check_liars, everybody

STEPS, ENOUGH = 20_000, 1e-10       # at most so many steps; at rest, when a step moves no weight by more than that share


def geometric_median(x: np.ndarray, nu: float = 1e-6) -> np.ndarray:
    """(d,) float64: argmin over z of Σ_i ‖z - x_i‖ for the rows of x (n, d).

    nu: distances count as at least that share of a typical one (the median distance between two updates). It keeps 1/0 out of
    the weights; it must be small: with ν above all distances every weight is the same, and the answer is the mean. Where an
    update itself is the median, it is returned. On a line between two middle updates every point is one; ours lies between.
    """
    x = np.asarray(x, dtype=np.float64)
    if len(x) == 1:
        return x[0].copy()
    table = squared_distances(x)
    typical = math.sqrt(float(np.median(table[np.triu_indices(len(x), 1)])))
    own = _at_an_update(table)
    if own is not None:
        return x[own].copy()
    floor = nu * typical if typical > 0 else nu * math.sqrt(float(table.max()))
    return _polished(x, _weights(table, floor), floor)


def _at_an_update(table: np.ndarray) -> int | None:
    """The update that is the median, if one is: the others' pull, one unit vector each, is not stronger than what lies
    there (Vardi & Zhang 2000, eq. 2.6). Only the one with the least sum of distances can be."""
    distance = np.sqrt(table)
    k = int(np.argmin(distance.sum(axis=1)))
    here = distance[k] == 0                                                     # it and its equals
    away = np.flatnonzero(~here)
    if not len(away):
        return k
    inner = (table[k, away][:, None] + table[k, away][None, :] - table[np.ix_(away, away)]) / 2      # (x_i - x_k)·(x_j - x_k)
    unit = 1 / distance[k, away]
    return k if unit @ inner @ unit < float(here.sum()) ** 2 * (1 - 1e-12) else None


def _weights(table: np.ndarray, floor: float) -> np.ndarray:
    """(n,) λ, by Weiszfeld's iteration in the table of squared distances."""
    share = np.full(len(table), 1 / len(table))
    for _ in range(STEPS):
        far = table @ share
        pull = 1 / np.maximum(np.sqrt(np.maximum(far - share @ far / 2, 0)), floor)
        new = pull / pull.sum()
        still = np.abs(new - share).max() <= ENOUGH * new.max()
        share = new
        if still:
            break
    return share


def _polished(x: np.ndarray, share: np.ndarray, floor: float) -> np.ndarray:
    """Weiszfeld's steps with the updates themselves, until the sum of distances falls no more."""
    z = share @ x
    best, least = z, math.inf
    for _ in range(STEPS):
        distance = lengths(x - z)
        total = float(distance.sum())
        if not total < least * (1 - 1e-12):
            break
        best, least = z, total
        pull = 1 / np.maximum(distance, floor)
        z = (pull / pull.sum()) @ x
    return best


@dataclass(frozen=True)
class GeometricMedian(Robust):
    """The point with the least sum of distances to all updates, converged (RFA, Pillutla et al. 2022). n > 2f.

    f is only what it is held to. nu, a share of the typical distance between two updates, keeps 1/0 out of the weights; RFA's
    ν is the same as an absolute length, and must be small against the distances, or the answer is the mean.
    """

    f: int = 0
    nu: float = 1e-6

    def __post_init__(self) -> None:
        check_liars(self)
        if not 0 < self.nu <= 0.1:
            raise ValueError(
                f"nu must be in (0, 0.1], not {self.nu!r}: a share of the typical distance between two updates. With ν as large "
                "as the distances all weights are equal, and the answer is the mean"
            )

    def weigh(self, x: np.ndarray, ctx: Context | None) -> tuple[np.ndarray, np.ndarray]:
        return geometric_median(x, self.nu), everybody(x)
