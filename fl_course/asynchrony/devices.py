"""Devices whose times are known, what one job takes on them, and how many answers a second that makes.

Rates add. Devices that need t_1 … t_n seconds a job, all of them always at work, give Σ 1/t_i answers a second, which is
n divided by the *harmonic* mean of the t_i: with 105, 205 and 405 s one answer every 59.3 s, where n and the arithmetic mean
would say 79.4 s. And the device of 105 s is heard 3.9 times as often as that of 405 s.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np

from ..core import ClientId, Context, Server, Task, is_whole, stream
from ..federation.arrival import example
from ..federation.fleet import LONGEST, checked_seconds
from ..federation.interfaces import Experiment, Fleet, Luck
from ..federation.state import by_name
from ..wire.messages import encode_model, encode_update


def _seconds(what: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not 0 <= value <= LONGEST:
        raise ValueError(f"{what} must be a finite number of seconds from 0, not {value!r}")
    return float(value)


@dataclass(frozen=True)
class Known(Fleet):
    """Known seconds of training for every client, the same whatever the schedule: one fleet, on which schedules compare.

    seconds: {client: seconds of one job}, whatever its examples; down, up: seconds of every transfer; spread: standard
    deviation (s) of what luck adds to one job, normal, never below 0 in all; drop: probability that a job is never answered.
    """

    seconds: Mapping[ClientId, float]
    down: float = 0.0
    up: float = 0.0
    spread: float = 0.0
    drop: float = 0.0

    def __post_init__(self) -> None:
        if not isinstance(self.seconds, Mapping) or not self.seconds:
            raise TypeError(f"seconds says how long each client takes, as {{client: seconds}}, not {self.seconds!r}")
        known = {client: _seconds(f"the time of client {client!r}", value) for client, value in self.seconds.items()}
        object.__setattr__(self, "seconds", known)
        for name in ("down", "up", "spread"):
            object.__setattr__(self, name, _seconds(name, getattr(self, name)))
        if not 0 <= self.drop < 1:
            raise ValueError(f"drop must be a probability in [0, 1), not {self.drop}")

    def compute(self, client: ClientId, examples: float, luck: Luck) -> float:
        if client not in self.seconds:
            raise ValueError(f"it is not known how long client {client!r} takes")
        more = self.spread * float(luck().standard_normal()) if self.spread else 0.0
        return max(0.0, self.seconds[client] + more)

    def download(self, client: ClientId, nbytes: int) -> float:
        return self.down

    def upload(self, client: ClientId, nbytes: int) -> float:
        return self.up

    def drops(self, client: ClientId, luck: Luck) -> bool:
        return self.drop > 0 and bool(luck().random() < self.drop)


def job_seconds(experiment: Experiment, draws: int = 1) -> dict[ClientId, float]:
    """{client: simulated seconds of one job}: download, training and upload, as the experiment's fleet says. Nobody trains.

    The messages have the length that they will have (of an update: that of one whose numbers are all zero). draws: the mean
    over so many lucks of the device, which only a fleet with jitter needs.
    """
    if not is_whole(draws, 1):
        raise ValueError(f"draws must be a whole number from 1, not {draws!r}")
    server, fleet = Server(np.zeros(experiment.model.dim, np.float32)), experiment.fleet
    down = len(encode_model(server))
    up = len(encode_update(example(experiment, Context(experiment.seed, server, experiment=experiment))))
    out = {}
    for client in experiment.clients:
        passes = experiment.training.passes(Task(client, server, experiment.seed), experiment.model)
        examples = len(experiment.data.train[experiment.data.position(client)]) * passes
        lucks = [partial(stream, experiment.seed, "forecast", i, client) for i in range(draws)]
        times = [checked_seconds(fleet, "compute", client, fleet.compute(client, examples, luck)) for luck in lucks]
        ways = (("download", fleet.download(client, down)), ("upload", fleet.upload(client, up)))
        there_and_back = math.fsum(float(checked_seconds(fleet, name, client, way)) for name, way in ways)
        out[client] = math.fsum(map(float, times)) / draws + there_and_back
    return out


def speed_groups(seconds: Mapping[ClientId, float], groups: int = 3) -> list[tuple[ClientId, ...]]:
    """The clients by seconds of a job, the fastest group first, as equal in number as can be; ties by name."""
    if not is_whole(groups, 1) or groups > len(seconds):
        raise ValueError(f"groups must be a whole number from 1 to the {len(seconds)} clients, not {groups!r}")
    order = sorted(seconds, key=lambda client: (seconds[client], by_name(client)))
    ends = [round(i * len(order) / groups) for i in range(groups + 1)]
    return [tuple(order[a:b]) for a, b in pairwise(ends)]


def answer_rates(seconds: Mapping[ClientId, float], concurrency: int | None = None) -> dict[ClientId, float]:
    """{client: answers per simulated second, in the long run} if `concurrency` of the clients are at work at any time, the next
    being drawn evenly from those that are idle; None: all of them, and client i is heard 1/t_i times a second.

    With c of n at work the set S is at work with probability ∝ Π_{i∈S} t_i (each set turns into each neighbour as often as
    back: detailed balance), so client i is heard e_{c-1}(t without t_i) / e_c(t) times a second, e_k being the elementary
    symmetric polynomial. c = n gives 1/t_i; c = 1 gives everybody the same, 1 / Σ t. It is exact for times without memory
    (exponential ones) and close for others. Of more than 400 clients it gives the limit of many.
    """
    names, t = list(seconds), _positive(seconds)
    n, c = len(t), len(t) if concurrency is None else concurrency
    if not is_whole(c, 1):
        raise ValueError(f"concurrency must be a whole number from 1, not {concurrency!r}")
    c = min(int(c), n)
    busy = np.ones(n) if c == n else _busy(t, c) if n <= 400 else _busy_of_many(t, c)
    return dict(zip(names, (busy / t).tolist(), strict=True))


def _busy(t: np.ndarray, c: int) -> np.ndarray:
    """(n,) how much of the time each client is at work: t_i·e_{c-1}(without t_i) / e_c(t)."""
    t = t / t.mean() * c / (len(t) - c)                      # any unit will do; with this one the largest e_k is near k = c
    e = np.zeros((len(t) + 1, c + 1))                        # row i: e_0 … e_c of all but t_i; the last row: of all
    e[:, 0] = 1.0
    for j, value in enumerate(t):
        grown = e.copy()
        grown[:, 1:] += value * e[:, :-1]
        grown[j] = e[j]
        e = grown / grown.max()                              # one factor for all rows, which cancels
    return t * e[:-1, c - 1] / e[-1, c]


def _busy_of_many(t: np.ndarray, c: int) -> np.ndarray:
    """(n,) The same for n → ∞: everybody at work with odds λ·t_i, and λ such that c are, by bisection."""
    low, high = 0.0, c / ((len(t) - c) * t.min())
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if (middle * t / (1 + middle * t)).sum() < c else (low, middle)
    return high * t / (1 + high * t)


def answer_rate(seconds: Mapping[ClientId, float] | Sequence[float], concurrency: int | None = None) -> float:
    """Answers per simulated second, all clients together: see `answer_rates`. seconds: by client, or a list."""
    by_name: dict[ClientId, float] = dict(seconds) if isinstance(seconds, Mapping) else dict(enumerate(seconds))
    return math.fsum(answer_rates(by_name, concurrency).values())


def _positive(seconds: Mapping[ClientId, float]) -> np.ndarray:
    t = np.array([_seconds(f"the time of client {client!r}", value) for client, value in seconds.items()], dtype=np.float64)
    if len(t) == 0 or not (t > 0).all():
        raise ValueError("every client needs a positive number of seconds a job; without time there is no rate")
    return t
