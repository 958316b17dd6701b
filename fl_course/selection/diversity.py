"""Choices that want clients unlike each other: by their labels, and by their gradients.

    LabelDiversity   greedy max-min over the shares of labels: each next client is the farthest from those chosen
    DivFL            greedy facility location over updates: those that stand for everybody (Balakrishnan et al. 2022)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..core import ClientId, is_whole, plain_counts
from ..federation.interfaces import Experiment, Look, Reports, Selector
from ..federation.sampling import NOTHING, check_draw
from .looks import label_counts, label_shares, label_table, needs_classes


def max_min(points: np.ndarray, k: int, first: int = 0) -> list[int]:
    """k rows of points (n, c), greedily: after `first` always the row whose nearest chosen one is farthest away.

    The distance is half the sum of absolute differences: of shares, the part of the labels that would have to change. The
    smallest distance among the chosen is at least half of the best that k rows can have together with `first` (Gonzalez
    1985). Of equally far rows the first is taken.
    """
    columns = np.ascontiguousarray(np.asarray(points, dtype=np.float64).T)             # (c, n)
    nearest, chosen = np.full(columns.shape[1], np.inf), [first] if k > 0 and columns.shape[1] else []
    while 0 < len(chosen) < min(k, columns.shape[1]):
        away = np.abs(columns - columns[:, chosen[-1], None]).sum(0) / 2
        nearest = np.minimum(nearest, away)
        nearest[chosen[-1]] = -1.0                            # smaller than any distance: nobody twice
        chosen.append(int(nearest.argmax()))
    return chosen


def facility_location(distances: np.ndarray, k: int) -> list[int]:
    """k of n, greedily, so that Σ_i min over the chosen j of distances[i, j] is small (DivFL, eq. 4 and algorithm 1).

    The gain is counted from a stand-in that is as far from everybody as the two farthest are from each other; the greedy one
    is at least 1 - 1/e of the best (Nemhauser et al. 1978). Of equally good ones the first is taken.
    """
    distances = np.asarray(distances, dtype=np.float64)
    covered, chosen = np.full(len(distances), distances.max(initial=0.0)), list[int]()
    while len(chosen) < min(k, len(distances)):
        gains = np.maximum(covered[:, None] - distances, 0.0).sum(0)
        gains[chosen] = -1.0
        chosen.append(int(gains.argmax()))
        covered = np.minimum(covered, distances[:, chosen[-1]])
    return chosen


def distances_between(vectors: np.ndarray) -> np.ndarray:
    """(n, n) Euclidean distances between the rows of vectors (n, d)."""
    rows = torch.from_numpy(np.asarray(vectors, dtype=np.float64))
    products = (rows @ rows.T).numpy()                         # by torch, whose number of threads this package sets
    squares = np.diag(products)
    between = np.maximum(squares[:, None] + squares[None] - 2 * products, 0.0)
    np.fill_diagonal(between, 0.0)
    return np.sqrt(between)


def _pool_checked(selector: Any) -> None:
    if not is_whole(selector.pool, 1):
        raise ValueError(f"pool must be a whole number from 1, not {selector.pool!r}")
    plain_counts(selector)


@dataclass(frozen=True)
class LabelDiversity(Selector):
    """The first client by chance, then greedily who differs most in its labels from all that are chosen.

    Each client is asked once how many examples it has of each class, in a message without a model: bytes that are counted, and
    a disclosure. Who did not answer is taken only when the others do not suffice. pool: the farthest is sought among a
    uniform sample of so many idle clients (or of k, who are then taken). Priced at q = 1.
    """

    pool: int = 1_000
    sends_model = False
    effort = 0.0
    reads = ("labels",)

    def __post_init__(self) -> None:
        _pool_checked(self)

    def asks(self, idle: Sequence[ClientId], k: int, rng: np.random.Generator, reports: Reports) -> Sequence[ClientId]:
        return [client for client in idle if "probe_labels" not in reports.get(client, {})]

    def answer(self, look: Look) -> Mapping[str, Any]:
        return {"labels": label_counts(look)}

    def select(self, idle: Sequence[ClientId], k: int, rng: np.random.Generator, reports: Reports) -> list[ClientId]:
        check_draw(idle, k)
        known, unknown = _split(idle, reports, "probe_labels", rng)
        known = known[: max(self.pool, k)]
        if k >= len(known):
            return (known + unknown)[:k]
        shares = label_shares(label_table(known, reports))
        return [known[i] for i in max_min(shares, k)]

    def check(self, experiment: Experiment) -> None:
        needs_classes("LabelDiversity", experiment)


@dataclass(frozen=True)
class DivFL(Selector):
    """k clients whose last updates stand for everybody's: greedy facility location (Balakrishnan et al. 2022).

    The cheap variant of the paper: a client's gradient is its last reported update, however old, so that nothing is asked and
    only those that train refresh theirs. Clients that were never asked come first, by chance; those that were asked and never
    heard come last. pool: the choice is among, and stands for, a uniform sample of so many idle clients (or of k), since all
    pairs are compared. Priced at q = 1.
    """

    pool: int = 128
    keeps_updates = True
    reads = ("update",)

    def __post_init__(self) -> None:
        _pool_checked(self)

    def select(self, idle: Sequence[ClientId], k: int, rng: np.random.Generator, reports: Reports) -> list[ClientId]:
        check_draw(idle, k)
        known, unknown = _split(idle, reports, "update", rng)
        fresh = [client for client in unknown if not reports.get(client, {}).get("asked")][:k]
        lost = [client for client in unknown if reports.get(client, {}).get("asked")]
        known = known[: max(self.pool, k)]
        if len(fresh) == k or len(known) <= k - len(fresh):
            return (fresh + known + lost)[:k]
        updates = np.stack([reports[client]["update"] for client in known])
        if len(bad := np.flatnonzero(~np.isfinite(updates).all(1))):
            raise ValueError(f"the last update of client {known[bad[0]]!r} is not finite, and cannot be compared with the others")
        best = facility_location(distances_between(updates), k - len(fresh))
        return (fresh + [known[i] for i in best] + lost)[:k]


def _split(
    idle: Sequence[ClientId], reports: Reports, name: str, rng: np.random.Generator
) -> tuple[list[ClientId], list[ClientId]]:
    """Those whose report has something under this name, and the others, both in random order."""
    known, unknown = list[ClientId](), list[ClientId]()
    for i in rng.permutation(len(idle)).tolist():
        (known if name in reports.get(idle[i], NOTHING) else unknown).append(idle[i])
    return known, unknown
