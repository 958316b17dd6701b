"""Between rounds and no rounds: rounds that leave nobody behind, and the two published algorithms as lists of parts.

    Synchronous(deadline=T)        who is late at T is told to stop, and has worked for nothing     federation/schedule.py
    SemiSynchronous(deadline=T)    who is late at T goes on, and is heard in a later round          here
    Buffered(M, K)                 no rounds: a step on every K answers                             federation/schedule.py

`fedasync(…)` and `fedbuff(…)` return parts for an experiment, so that what the papers call one algorithm is one word, and what
it consists of can be read off it:

    Coordinator(data, model, training, fleet=LogNormal(), **fedbuff(concurrency=20, buffer=5))
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ..core import is_whole, plain_counts
from ..federation.aggregation import Discount, WeightedMean
from ..federation.interfaces import Experiment, Schedule
from ..federation.optimizers import FedAvg
from ..federation.schedule import Buffered
from ..federation.stages import ByExamples, Uniform
from .mixing import Mixing

POLYNOMIAL = Discount("polynomial", 0.5)               # (τ + 1)^-½, in both papers


@dataclass(frozen=True)
class SemiSynchronous(Schedule):
    """Rounds that close at a deadline, after which the late go on working and are heard, stale, in a later round.

    At its beginning a round fills up to m = max(C·K, min_clients) clients at work. It ends when all have answered, or after
    `deadline` simulated seconds, with whatever has arrived, also nothing. If all m are still at work when a round begins,
    the first to answer makes room for another. Answers older than max_staleness steps are refused and counted. A deadline
    that everybody meets makes it Synchronous.
    """

    fraction: float = 0.1
    min_clients: int = 1
    deadline: float = math.inf
    max_staleness: int | None = None
    keeps_stragglers = True

    def __post_init__(self) -> None:
        if not 0 < self.fraction <= 1:
            raise ValueError(f"fraction must be in (0, 1], not {self.fraction}: a share of the clients, not their number")
        if not is_whole(self.min_clients, 1):
            raise ValueError(f"min_clients must be a whole number from 1, not {self.min_clients}")
        if not self.deadline > 0:
            raise ValueError(f"deadline must be a positive number of seconds, not {self.deadline}")
        if self.max_staleness is not None and not is_whole(self.max_staleness, 0):
            raise ValueError(f"max_staleness must be None or a whole number from 0, not {self.max_staleness}")
        plain_counts(self)

    def goal(self, clients: int) -> int:
        """m: clients at work when a round begins."""
        return min(clients, max(round(self.fraction * clients), self.min_clients))

    def start(self, clients: int, in_flight: int, first: bool) -> int:
        return max(0, self.goal(clients) - in_flight) if first else 0

    def ready(self, in_flight: int, arrived: int, clients: int) -> bool:
        return in_flight == 0

    def check(self, experiment: Experiment) -> None:
        if self.min_clients > len(experiment.clients):
            raise ValueError(f"min_clients is {self.min_clients}, but only {len(experiment.clients)} clients have training data")


def fedasync(
    concurrency: int = 10, alpha: float = 0.6, discount: Discount | None = POLYNOMIAL, max_staleness: int | None = None,
) -> dict[str, Any]:  # fmt: skip
    """The parts of FedAsync (Xie et al. 2019, algorithm 1): every answer is a step, and is mixed in with alpha·s(τ).

    Its proximal term belongs to local training: LocalSGD(correction=FedProx(mu)).
    """
    return {
        "schedule": Buffered(concurrency, 1, max_staleness), "weights": Uniform(), "aggregation": Mixing(alpha, discount),
        "optimizer": FedAvg(),
    }  # fmt: skip


def fedbuff(
    concurrency: int = 10, buffer: int = 10, lr: float = 1.0, discount: Discount | None = POLYNOMIAL,
    max_staleness: int | None = None, by_examples: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """The parts of FedBuff (Nguyen et al. 2022, algorithm 1): w ← w + lr/K·Σ s(τ_i)·Δ_i over a buffer of K answers.

    The sum is divided by K (by Σ n_i with by_examples=True, where Δ_i counts n_i times), not by Σ s(τ_i): stale answers
    make the step shorter. If drop-outs leave the buffer unfilled for good, K is the number that came.
    """
    return {
        "schedule": Buffered(concurrency, buffer, max_staleness), "weights": ByExamples() if by_examples else Uniform(),
        "aggregation": WeightedMean(discount), "optimizer": FedAvg(lr),
    }  # fmt: skip
