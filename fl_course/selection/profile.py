"""The quality score of the design document, over profiles that are measured from what clients did, never typed in.

    score = 0.3 data quality + 0.2 compute + 0.2 bandwidth + 0.2 availability + 0.1 (1 - staleness)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..core import ClientId
from ..federation.interfaces import Experiment, Look, Reports, Selector
from ..federation.sampling import largest, reported, weighted_draw
from .looks import entropies, label_counts, label_table, needs_classes

PARTS = ("data quality", "compute", "bandwidth", "availability", "1 - staleness")
SEEN = ("examples", "loss_first", "compute_seconds", "download_seconds", "upload_seconds", "bytes_down", "bytes_up",
        "asked", "answered", "asked_version")  # fmt: skip


def profiles(idle: Sequence[ClientId], reports: Reports, quality: str = "loss", prior: float = 0.5) -> np.ndarray:
    """(n, 5) in [0, 1], columns PARTS. Where nothing was measured stands `prior`, also for clients that were never asked.

        data quality    "loss": the loss before its last training, as a share of the largest among these clients: the most is
                        to be learned where the model does worst. "labels": entropy of its labels over ln(classes)
        compute         examples / second of its last training, as a share of the fastest's (epochs are taken to be equal)
        bandwidth       bytes / second of its last transfers, both ways, as a share of the fastest's
        availability    answers / times asked
        1 - staleness   staleness: rounds since it was asked, 0 if that was in the last round and 1 if in the first
    """
    table = reported(idle, reports, *SEEN)
    examples, loss, compute, down, up, bytes_down, bytes_up, asked, answered, last = table
    rounds = max((report.get("asked_version", 0) for report in reports.values()), default=0)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        columns = [
            _labels(idle, reports) if quality == "labels" else _share(loss),
            _share(examples / compute),
            _share((bytes_down + bytes_up) / (down + up)),
            np.clip(answered / asked, 0.0, 1.0),
            1.0 - np.clip((rounds - last) / max(rounds, 1), 0.0, 1.0),
        ]
    out = np.column_stack(columns)
    out[np.isnan(out)] = prior
    return out


def _share(values: np.ndarray) -> np.ndarray:
    """(n,) of the largest; NaN stays. What took no time at all is as good as the best, and zeros are no share of zero."""
    known = values[np.isfinite(values)]
    top = max(known.max(initial=0.0), 0.0)
    shares = np.clip(values / top, 0.0, 1.0) if top > 0 else np.where(np.isnan(values), np.nan, 0.0)
    return np.where(np.isposinf(values), 1.0, shares)


def _labels(idle: Sequence[ClientId], reports: Reports) -> np.ndarray:
    out = np.full(len(idle), np.nan)
    known = [i for i, client in enumerate(idle) if "probe_labels" in reports.get(client, {})]
    if known:
        out[known] = entropies(label_table([idle[i] for i in known], reports))
    return out


@dataclass(frozen=True)
class QualityScore(Selector):
    """The k clients with the best score, or k drawn in proportion to it (`drawn`).

    The five weights are those of the document. Taking the best again and again starves the others, whose profiles grow old;
    what they might have become is never seen (exercise and lesson 06). Ties are broken by the dice, so that scores that are
    all equal, or all zero, are a uniform choice. quality: what "data quality" is, "loss" or "labels" (each client is asked
    once for its counts of labels); prior: what is assumed of a client of which nothing was measured. Priced at q = 1.
    """

    data: float = 0.3
    compute: float = 0.2
    bandwidth: float = 0.2
    availability: float = 0.2
    freshness: float = 0.1
    quality: str = "loss"
    prior: float = 0.5
    drawn: bool = False
    sends_model = False
    effort = 0.0

    def __post_init__(self) -> None:
        for name in ("data", "compute", "bandwidth", "availability", "freshness"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} is a weight of the score: a finite number from 0, not {getattr(self, name)}")
        if self.quality not in ("loss", "labels"):
            raise ValueError(f"quality must be 'loss' or 'labels', not {self.quality!r}")
        if not 0 <= self.prior <= 1:
            raise ValueError(f"prior is what is assumed of the unknown, from 0 to 1, not {self.prior}")

    @property
    def reads(self) -> tuple[str, ...]:                                                        # type: ignore[override]
        return ("labels",) if self.quality == "labels" else ("loss",)

    @property
    def weights(self) -> np.ndarray:
        """(5,) in the order of PARTS."""
        return np.array([self.data, self.compute, self.bandwidth, self.availability, self.freshness], dtype=np.float64)

    def score(self, profiles: np.ndarray) -> np.ndarray:
        """(n,) from profiles (n, 5)."""
        return np.asarray(profiles, dtype=np.float64) @ self.weights

    def asks(self, idle: Sequence[ClientId], k: int, rng: np.random.Generator, reports: Reports) -> Sequence[ClientId]:
        if self.quality != "labels":
            return ()
        return [client for client in idle if "probe_labels" not in reports.get(client, {})]

    def answer(self, look: Look) -> Mapping[str, Any]:
        return {"labels": label_counts(look)}

    def select(self, idle: Sequence[ClientId], k: int, rng: np.random.Generator, reports: Reports) -> list[ClientId]:
        scores = self.score(profiles(idle, reports, self.quality, self.prior))
        return (weighted_draw if self.drawn else largest)(idle, scores, k, rng)

    def check(self, experiment: Experiment) -> None:
        if self.quality == "labels":
            needs_classes("QualityScore(quality='labels')", experiment)
