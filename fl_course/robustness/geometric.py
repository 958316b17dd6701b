"""The geometric median: the point whose distances to all updates add up to least (RFA, Pillutla et al. 2022).

Weiszfeld's iteration is a weighted mean with weights 1/distance. It always stays a weighted mean Σ λ_i·x_i of the updates,
whose distance to each of them follows from λ and the table of distances between the updates:

    ‖Σ λ_j·x_j - x_i‖² = Σ_j λ_j·d_ij² - ½·Σ_jk λ_j·λ_k·d_jk²

So a step costs n² numbers and not n·d, and the iteration can go on until it has converged. Where far outliers would eat the
digits of the table, they are brought nearer for a start, and the last steps are taken with the updates themselves.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..core import Context
from .distances import lengths, product, squared_distances
from .robust import Robust, check_liars, everybody

STEPS, ENOUGH = 20_000, 1e-10       # at most so many steps; at rest, when a step moves nothing by more than that share
FAR = 1e4                           # times the typical distance: from there on, only the direction of an update matters


def geometric_median(x: np.ndarray, nu: float = 1e-6) -> np.ndarray:
    """(d,) float64: argmin over z of Σ_i ‖z - x_i‖ for the rows of x (n, d).

    nu: distances count as at least that share of a typical one. It keeps 1/0 out of the weights; it must be small: with ν above
    all distances every weight is the same, and the answer is the mean. Where an update itself is the median, it is returned. On
    a line between two middle updates every point is one; ours lies between.
    """
    x = np.asarray(x, dtype=np.float64)
    table = squared_distances(x)
    each = np.median(np.sqrt(table), axis=1)             # how far the nearer half of all is
    middle = int(np.argmin(each))
    typical = float(each[middle])                        # of an honest update, as long as more than half are honest
    own = _at_an_update(x, table)
    if own is not None:
        return x[own].copy()
    reach = np.sqrt(table[middle])
    if (reach > FAR * typical).any():
        near = (x - x[middle]) * np.minimum(1, FAR * typical / np.maximum(reach, FAR * typical))[:, None]
        table = squared_distances(near)
        return _polished(x, x[middle] + product(_weights(table, nu * typical), near), nu * typical, typical)
    return product(_weights(table, nu * typical), x)


def _at_an_update(x: np.ndarray, table: np.ndarray) -> int | None:
    """The update that is the median, if one is: the others' pull, one unit vector each, is weaker than what lies there (Vardi &
    Zhang 2000, eq. 2.6). Only the one with the least sum of distances can be."""
    distance = np.sqrt(table)
    k = int(np.argmin(distance.sum(axis=1)))
    apart = distance[k] > 0
    unit = np.divide(1, distance[k], out=np.zeros(len(x)), where=apart)
    pull = np.linalg.norm(product(unit, x) - unit.sum() * x[k])
    return k if pull < (~apart).sum() * (1 - 1e-12) else None


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


def _polished(x: np.ndarray, z: np.ndarray, floor: float, typical: float) -> np.ndarray:
    """Weiszfeld's steps with the updates themselves, until a step is short."""
    for _ in range(STEPS):
        pull = 1 / np.maximum(lengths(x - z), floor)
        new = product(pull / pull.sum(), x)
        step, z = float(np.linalg.norm(new - z)), new
        if step <= 1e-7 * typical or step <= 1e-14 * float(np.linalg.norm(z)):
            break
    return z


@dataclass(frozen=True)
class GeometricMedian(Robust):
    """The point with the least sum of distances to all updates, converged (RFA, Pillutla et al. 2022). n > 2f.

    f is only what it is held to. nu, a share of the typical distance between two updates, keeps 1/0 out of the weights; RFA's
    ν is the same as an absolute length, and must be small against the distances, or the answer is the mean.
    """

    f: int = 0
    nu: float = 1e-6
    whole, accuses = True, False

    def __post_init__(self) -> None:
        check_liars(self)
        if not 0 < self.nu <= 0.1:
            raise ValueError(
                f"nu must be in (0, 0.1], not {self.nu!r}: a share of the typical distance between two updates. With ν as large "
                "as the distances all weights are equal, and the answer is the mean"
            )

    def weigh(self, x: np.ndarray, ctx: Context | None) -> tuple[np.ndarray, np.ndarray]:
        return geometric_median(x, self.nu), everybody(x)
