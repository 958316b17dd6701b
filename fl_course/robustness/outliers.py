"""Removing outliers, with a definition: a robust z-score of a client's norm, or of its distance from the middle.

A z-score by mean and standard deviation cannot find anybody in a small cohort: the outlier is in both, and |z| ≤ (n - 1)/√n
whatever it sends, 2.85 for n = 10. So the middle is the median, and the spread the median absolute deviation (MAD).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..core import Context
from .coordinates import coordinate_median
from .distances import lengths
from .robust import Robust, check_liars, positive

GAUSSIAN = 1.482602218505602        # 1/Φ⁻¹(3/4): MAD times this is the standard deviation, where values are normal


def robust_z(scores: Any) -> np.ndarray:
    """(n,) (score - median) / (1.4826·MAD); if more than half of the scores are equal, 0 for those and ±inf for others."""
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 1 or not values.size or not np.isfinite(values).all():
        raise ValueError(f"scores must be finite numbers (n,), at least one, not {scores!r:.100}")
    off = values - np.median(values)
    spread = GAUSSIAN * np.median(np.abs(off))
    if spread > 0:
        return off / spread
    return np.where(off == 0, 0.0, np.copysign(np.inf, off))


def keep(x: np.ndarray, by: str = "distance", cutoff: float = 3.5) -> np.ndarray:
    """(n,) bool: the rows of x (n, d) whose score is no further above the median than `cutoff` deviations.

    by "norm": ‖x_i‖; "distance": ‖x_i - the coordinate median‖. Half of the rows lie at the median or below, so never all go.
    Differences that are rounding (a millionth of the median norm) remove nobody.
    """
    x = np.asarray(x, dtype=np.float64)
    norms = lengths(x)
    score = norms if by == "norm" else lengths(x - coordinate_median(x))
    return (robust_z(score) <= cutoff) | (score <= np.median(score) + 1e-6 * np.median(norms))


@dataclass(frozen=True)
class OutlierRemoval(Robust):
    """Leave out whose score is more than `cutoff` robust deviations above the median, and average the others. n > 2f.

    by          "norm": ‖x_i‖, which finds scaling; "distance": ‖x_i - coordinate median‖, which also finds directions
    cutoff      deviations; 3.5 as in Iglewicz & Hoaglin (1993)

    It removes nobody when all are alike, and accuses an honest client now and then when they differ. What stays in is averaged
    whole, so an attacker just below the cut-off has all of its way.
    """

    by: str = "distance"
    cutoff: float = 3.5
    f: int = 0
    whole = True

    def __post_init__(self) -> None:
        check_liars(self)
        if self.by not in ("norm", "distance"):
            raise ValueError(f"by must be 'norm' or 'distance', not {self.by!r}")
        positive("cutoff", self.cutoff)

    def weigh(self, x: np.ndarray, ctx: Context | None) -> tuple[np.ndarray, np.ndarray]:
        inside = keep(x, self.by, self.cutoff)
        return x[inside].mean(axis=0), inside
