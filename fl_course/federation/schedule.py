"""When to start clients and when to step the server: the only place where synchronous and asynchronous training differ."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..core import is_whole, plain_counts
from .interfaces import Experiment, Schedule


@dataclass(frozen=True)
class Synchronous(Schedule):
    """Rounds. Ask m = max(C·K, min_clients) clients (McMahan et al. 2017) and step when all have answered.

    over_selection: ask that much more than m, for example 0.3, and step as soon as m have answered; the others are told
    to stop, and are recorded as too late (Bonawitz et al. 2019). deadline: close the round after so many simulated seconds,
    whoever is missing; an answer at that very second counts (exactly, see clock.py). What had left by then of an answer that
    is too late is counted under the purpose "late".
    """

    fraction: float = 0.1
    min_clients: int = 1
    over_selection: float = 0.0
    deadline: float = math.inf

    def __post_init__(self) -> None:
        if not 0 < self.fraction <= 1:
            raise ValueError(f"fraction must be in (0, 1], not {self.fraction}: a share of the clients, not their number")
        if not is_whole(self.min_clients, 1):
            raise ValueError(f"min_clients must be a whole number from 1, not {self.min_clients}")
        if not (self.over_selection >= 0 and math.isfinite(self.over_selection)):
            raise ValueError(f"over_selection must be at least 0, not {self.over_selection}")
        if not self.deadline > 0:
            raise ValueError(f"deadline must be a positive number of seconds, not {self.deadline}")
        plain_counts(self)

    def goal(self, clients: int) -> int:
        """m: answers that a step waits for."""
        return min(clients, max(round(self.fraction * clients), self.min_clients))

    def start(self, clients: int, in_flight: int, first: bool) -> int:
        return min(clients, math.ceil(self.goal(clients) * (1 + self.over_selection) - 1e-9)) if first else 0

    def ready(self, in_flight: int, arrived: int, clients: int) -> bool:
        return in_flight == 0 or (self.over_selection > 0 and arrived >= self.goal(clients))

    def check(self, experiment: Experiment) -> None:
        if self.min_clients > len(experiment.clients):
            raise ValueError(f"min_clients is {self.min_clients}, but only {len(experiment.clients)} clients have training data")


@dataclass(frozen=True)
class Buffered(Schedule):
    """Keep `concurrency` clients at work and step on every `buffer` answers (FedBuff, Nguyen et al. 2022).

    With buffer = 1 every answer is a step, as in FedAsync (Xie et al. 2019), whose rule is asynchrony's `Mixing`. Each client
    starts from the model of the moment, so answers are stale by the server steps taken meanwhile, counted when they are used.
    A client has one job at a time and is asked at most once with the same model; if all have been and the buffer is still not
    full, because some dropped out, the server steps with what it has. Of clients that finish at the same instant all are heard
    before anybody new is started. A step empties the buffer, so what is in flight when a run ends is jobs: they stay in the
    state, each with the model that it started from (at most `concurrency` models), and are heard when the run is resumed.
    Answers that are more than max_staleness steps old (bounded delay) are refused and counted as "too_stale", their bytes too.
    """

    concurrency: int = 10
    buffer: int = 1
    max_staleness: int | None = None
    keeps_stragglers = True

    def __post_init__(self) -> None:
        for name, value in (("concurrency", self.concurrency), ("buffer", self.buffer)):
            if not is_whole(value, 1):
                raise ValueError(f"{name} must be a whole number from 1, not {value}")
        if self.max_staleness is not None and not is_whole(self.max_staleness, 0):
            raise ValueError(f"max_staleness must be None or a whole number from 0, not {self.max_staleness}")
        plain_counts(self)

    def start(self, clients: int, in_flight: int, first: bool) -> int:
        return max(0, min(self.concurrency, clients) - in_flight)

    def ready(self, in_flight: int, arrived: int, clients: int) -> bool:
        return arrived >= self.buffer

    def check(self, experiment: Experiment) -> None:
        if self.buffer > len(experiment.clients):
            raise ValueError(
                f"a buffer of {self.buffer} answers never fills: only {len(experiment.clients)} clients have training data, "
                "and each is asked at most once with the same model"
            )
