"""Before any rule: make honest updates alike, so that the rule has less to confuse.

    Bucketing                  shuffle, and average groups of s                      (Karimireddy et al. 2022)
    NearestNeighbourMixing     replace each update by the mean of its n - f nearest  (NNM, Allouah et al. 2023)

Robust rules take what differs for a lie. When clients differ and nobody lies, a median or Krum forgets the minority, and
training suffers. A mean of s updates differs s times less (in squares) from the mean of all; the price is that one liar spoils
a whole bucket, so f liars are f of n/s rows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..core import Context, is_whole, plain_counts, stream
from ..federation.interfaces import Experiment
from .distances import product, squared_distances
from .robust import Robust
from .rules import refuse_unsound


def groups(n: int, s: int, rng: np.random.Generator) -> list[np.ndarray]:
    """n numbers, shuffled, in groups of s; the last may be smaller."""
    order = rng.permutation(n)
    return [order[start : start + s] for start in range(0, n, s)]


def bucket(x: np.ndarray, s: int, rng: np.random.Generator) -> np.ndarray:
    """(ceil(n/s), d): the rows of x (n, d), shuffled, averaged in groups of s."""
    x = np.asarray(x, dtype=np.float64)
    return np.stack([x[group].mean(axis=0) for group in groups(len(x), s, rng)])


def nearest(x: np.ndarray, f: int) -> np.ndarray:
    """(n, n - f) the rows nearest to each row of x (n, d), itself the first."""
    table = squared_distances(x)
    np.fill_diagonal(table, -1.0)
    return np.argsort(table, axis=1, kind="stable")[:, : len(x) - f]


def mix(x: np.ndarray, f: int) -> np.ndarray:
    """(n, d): each row of x (n, d) replaced by the mean of its n - f nearest, itself included."""
    x = np.asarray(x, dtype=np.float64)
    return _averaged(x, nearest(x, f))


def _averaged(x: np.ndarray, rows: np.ndarray) -> np.ndarray:
    share = np.zeros((len(x), len(x)))
    np.put_along_axis(share, rows, 1 / rows.shape[1], axis=1)
    return product(share, x)


@dataclass(frozen=True)
class Before(Robust):
    """Abstract: what stands before another rule, and withstands what that one does."""

    rule: Robust

    def __post_init__(self) -> None:
        name, rule = type(self).__name__, self.rule
        if not isinstance(rule, Robust):
            raise TypeError(f"{name} stands before a robust rule, such as {name}(CoordinateMedian(f=2)), not before {rule!r}")

    @property
    def f(self) -> int:                                                                     # type: ignore[override]
        return self.rule.f

    @property
    def whole(self) -> bool:                                                                # type: ignore[override]
        return self.rule.whole

    @property
    def accuses(self) -> bool:                                                              # type: ignore[override]
        return self.rule.accuses

    def facing(self, found: int) -> Robust:
        return replace(self, rule=self.rule.facing(found))

    def check(self, experiment: Experiment) -> None:
        refuse_unsound(self, experiment)
        self.rule.check(experiment)


@dataclass(frozen=True)
class Bucketing(Before):
    """Shuffle the updates, average them in buckets of s, and hand the ceil(n/s) means to `rule` (Karimireddy et al. 2022,
    algorithm 1). The shuffle is new in each step, from a named stream. s = 1 is the rule alone.

    A bucket with one liar is a lie, so the rule faces f of ceil(n/s): it needs its `least` in buckets. If the rule leaves a
    bucket out, all whose updates are in it are left out.
    """

    s: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if not is_whole(self.s, 1):
            raise ValueError(f"s, the size of a bucket, must be a whole number from 1, not {self.s!r}")
        plain_counts(self)

    @property
    def least(self) -> int:
        """The fewest updates that fill as many buckets as the rule needs."""
        return self.s * (self.rule.least - 1) + 1

    def weigh(self, x: np.ndarray, ctx: Context | None) -> tuple[np.ndarray, np.ndarray]:
        rng = stream(0, "bucketing") if ctx is None else stream(ctx.seed, "bucketing", ctx.server.version)
        parts = groups(len(x), self.s, rng)
        answer, kept = self.rule.weigh(np.stack([x[part].mean(axis=0) for part in parts]), ctx)
        inside = np.zeros(len(x), dtype=bool)
        for part, stays in zip(parts, kept, strict=True):
            inside[part] = stays
        return answer, inside


@dataclass(frozen=True)
class NearestNeighbourMixing(Before):
    """Replace each update by the mean of its n - f nearest, itself included, and hand these n means to `rule` (NNM, Allouah et
    al. 2023, algorithm 1). f is the rule's.

    A liar far away is in nobody's mean but its own; one nearby moves many means, each by little. Left out is whoever is in none
    of the means that the rule keeps.
    """

    @property
    def least(self) -> int:
        return max(self.rule.least, 2 * self.f + 1)

    def weigh(self, x: np.ndarray, ctx: Context | None) -> tuple[np.ndarray, np.ndarray]:
        rows = nearest(x, self.f)
        answer, kept = self.rule.weigh(_averaged(x, rows), ctx)
        inside = np.zeros(len(x), dtype=bool)
        inside[rows[kept].ravel()] = True
        return answer, inside
