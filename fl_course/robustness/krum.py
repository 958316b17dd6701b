"""Krum and its kin: choose the updates that have close neighbours.

    Krum         the one update whose n - f - 2 nearest others lie nearest        n ≥ 2f + 3
    MultiKrum    the mean of the m best                                           n ≥ 2f + 3
    Bulyan       Krum again and again, then a trimmed mean around the median      n ≥ 4f + 3

Blanchard et al. (2017, section 4) sum *squared* distances over the n - f - 2 *closest others*: f may lie, one is the update
itself, and one more is left out, which the proof needs. Published code that counts itself, or one more, or squares twice,
chooses another client now and then.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..core import Context, is_whole
from .coordinates import by_coordinate
from .distances import squared_distances
from .robust import Robust, check_liars


def krum_scores(x: np.ndarray, f: int) -> np.ndarray:
    """(n,) the score of each row of x (n, d): the sum of the squared distances to its n - f - 2 nearest others."""
    x = np.asarray(x, dtype=np.float64)
    if not len(x) - f - 2 >= 1:
        raise ValueError(f"with {len(x)} updates of which {f} may lie, nobody has n - f - 2 neighbours; n must be f + 3 or more")
    return scores(squared_distances(x), f)


def scores(table: np.ndarray, f: int) -> np.ndarray:
    """The same from a table of squared distances (n, n). At least one neighbour counts, if there is one."""
    n = len(table)
    others = np.sort(table + np.diag(np.full(n, -1.0)), axis=1)[:, 1:]           # whoever equals it is another, not itself
    return others[:, : max(1, n - f - 2)].sum(axis=1)


def ranking(table: np.ndarray, f: int) -> np.ndarray:
    """(n,) rows by their scores, the best first. Two nearest neighbours have the same score where one neighbour makes it; then
    the one with the smaller sum of distances to all goes first, so that the order of the updates decides nothing."""
    return np.lexsort((np.sort(table, axis=1).sum(axis=1), scores(table, f)))


def bulyan_selection(x: np.ndarray, f: int) -> np.ndarray:
    """(n - 2f,) rows of x (n, d), in the order in which Krum chooses them, each out of those that are left."""
    table = squared_distances(x)
    left, chosen = list(range(len(x))), []
    for _ in range(len(x) - 2 * f):
        best = left[int(ranking(table[np.ix_(left, left)], f)[0])]
        left.remove(best)
        chosen.append(best)
    return np.array(chosen)


def mean_around_median(x: np.ndarray, m: int) -> np.ndarray:
    """(d,) per coordinate the mean of the m of n values that are closest to the median of all n."""
    n = len(x)

    def answer(tile: np.ndarray) -> np.ndarray:
        middle = (tile[:, (n - 1) // 2] + tile[:, n // 2])[:, None] / 2
        # The m closest are neighbours in the sorted column: of all windows of m, the one that reaches least far.
        reach = np.maximum(middle - tile[:, : n - m + 1], tile[:, m - 1 :] - middle)        # (t, n - m + 1)
        first = np.argmin(reach, axis=1)
        sums = np.concatenate([np.zeros((len(tile), 1)), np.cumsum(tile - middle, axis=1)], axis=1)
        rows = np.arange(len(tile))
        return middle[:, 0] + (sums[rows, first + m] - sums[rows, first]) / m

    return by_coordinate(x, answer)


@dataclass(frozen=True)
class Krum(Robust):
    """The update with the lowest score: Σ over its n - f - 2 nearest others of ‖x_i - x_j‖² (Blanchard et al. 2017, eq. 4).

    The answer is one client's own update; everybody else is left out, so a step is as noisy as one client, and says nothing
    for those who differ from the crowd.
    """

    f: int
    whole = True

    def __post_init__(self) -> None:
        check_liars(self)

    @property
    def least(self) -> int:
        return 2 * self.f + 3

    def weigh(self, x: np.ndarray, ctx: Context | None) -> tuple[np.ndarray, np.ndarray]:
        best = int(ranking(squared_distances(x), self.f)[0])
        return x[best].copy(), np.arange(len(x)) == best


@dataclass(frozen=True)
class MultiKrum(Robust):
    """The mean of the m updates with the lowest scores (Blanchard et al. 2017, section 5). m=None: n - f; m = 1 is Krum."""

    f: int
    m: int | None = None
    whole = True

    def __post_init__(self) -> None:
        check_liars(self)
        if self.m is not None and not is_whole(self.m, 1):
            raise ValueError(f"m, how many updates are averaged, must be a whole number from 1 or None, not {self.m!r}")

    @property
    def least(self) -> int:
        """n ≥ 2f + 3, and m of them must be those of honest clients: n ≥ m + f."""
        return max(2 * self.f + 3, self.f + (self.m or 0))

    def weigh(self, x: np.ndarray, ctx: Context | None) -> tuple[np.ndarray, np.ndarray]:
        best = ranking(squared_distances(x), self.f)[: self.m or len(x) - self.f]
        inside = np.isin(np.arange(len(x)), best)
        return x[inside].mean(axis=0), inside


@dataclass(frozen=True)
class Bulyan(Robust):
    """θ = n - 2f updates by repeated Krum, then per coordinate the mean of the θ - 2f closest to their median
    (El Mhamdi et al. 2018, section 4). n ≥ 4f + 3.

    Krum looks at whole updates, so one coordinate can hide in many; the second step closes that. With f of 1 or 2 the nearest
    neighbour alone makes the last scores, so that two updates always tie, see `ranking`; flwr takes whichever came first.
    """

    f: int

    def __post_init__(self) -> None:
        check_liars(self)

    @property
    def least(self) -> int:
        return 4 * self.f + 3

    def weigh(self, x: np.ndarray, ctx: Context | None) -> tuple[np.ndarray, np.ndarray]:
        chosen = np.sort(bulyan_selection(x, self.f))
        return mean_around_median(x[chosen], len(chosen) - 2 * self.f), np.isin(np.arange(len(x)), chosen)
