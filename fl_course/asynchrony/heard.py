"""Who is heard, how stale, and what schedules are compared at: equal updates, equal simulated seconds, equal bytes.

Without rounds a fast device answers more often than a slow one, and pulls the model towards its own data. So beside every
speed-up stands, per group of speed: its share of the updates, how stale they were, and how good the model is for its clients.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..core import ClientId, Record
from ..federation.evaluation import client_measure
from ..federation.history import MB, History
from ..federation.interfaces import Experiment
from .devices import job_seconds, speed_groups


@dataclass(frozen=True)
class Heard:
    """One group of speed in one run."""

    group: str                       # "1 of 3" is the fastest
    clients: tuple[ClientId, ...]
    seconds: float                   # simulated, of a job, mean over its clients
    updates: int                     # its answers that were used
    share: float                     # … of all that were used
    fair: float                      # its share of the clients
    staleness: float                 # mean τ of its answers; NaN if there was none
    measure: float                   # the model's accuracy (or rmse) on its clients' own tests, mean over clients; NaN without


@dataclass(frozen=True)
class Cost:
    """What it took to get somewhere."""

    steps: int
    updates: int
    seconds: float                   # simulated
    megabytes: float                 # 10^6 bytes, both ways, all purposes


def heard(
    experiment: Experiment, history: History, groups: int | Sequence[Sequence[ClientId]] = 3,
    measured: Sequence[float] | None = None,
) -> list[Heard]:  # fmt: skip
    """One line a group of speed, the fastest first. groups: how many, or the groups themselves.

    measured: (K,) what each client of the data measured, in their order, NaN for nothing: own_measure(experiment, state) where
    clients have models of their own. By default the accuracy of the model in the history's state on each client's own tests; a
    history from JSON has no state, and then nothing is measured.
    """
    seconds = job_seconds(experiment, draws=8)
    split = speed_groups(seconds, groups) if isinstance(groups, int | np.integer) else [tuple(group) for group in groups]
    known, named = set(seconds), [client for group in split for client in group]
    if any(client not in known for client in named) or not all(split) or len(set(named)) != len(named):
        raise ValueError(f"groups are made of clients that have training examples, each in one group; not {split!r}"[:300])
    ages: dict[ClientId, list[int]] = {}
    for client, age in ((c, a) for record in history.records for c, a in zip(record.clients, record.staleness, strict=True)):
        ages.setdefault(client, []).append(age)
    total = sum(map(len, ages.values()))
    server = getattr(history.state, "server", None)
    if measured is None and server is not None:
        measured = client_measure(experiment.model, server.params, experiment.data).tolist()
    if measured is not None and len(measured) != len(experiment.data.ids):
        raise ValueError(f"measured has {len(measured)} numbers, the data have {len(experiment.data.ids)} clients")
    of_all = {} if measured is None else {c: float(v) for c, v in zip(experiment.data.ids, measured, strict=True)}
    lines = []
    for i, group in enumerate(split):
        theirs = [age for client in group for age in ages.get(client, ())]
        own = [of_all[client] for client in group if client in of_all and of_all[client] == of_all[client]]
        lines.append(Heard(
            f"{i + 1} of {len(split)}", tuple(group), math.fsum(seconds[client] for client in group) / len(group), len(theirs),
            len(theirs) / total if total else math.nan, len(group) / len(seconds), _mean(theirs), _mean(own),
        ))  # fmt: skip
    return lines


def staleness_counts(history: History) -> dict[int, int]:
    """{τ: how many used answers were so many server steps old}, from 0 to the oldest, also where none was."""
    ages = [age for record in history.records for age in record.staleness]
    return dict(enumerate(np.bincount(ages).tolist())) if ages else {}


def within(
    history: History, updates: float | None = None, seconds: float | None = None, megabytes: float | None = None,
) -> History:  # fmt: skip
    """The history up to a budget: the records of all steps by which no more than so many answers were used, simulated
    seconds had passed, or MB had been sent. Its state is that of the last record only where nothing was cut off."""
    if all(budget is None for budget in (updates, seconds, megabytes)):
        raise ValueError("within a budget of what? say updates=…, seconds=… or megabytes=…")
    for name, budget in (("updates", updates), ("seconds", seconds), ("megabytes", megabytes)):
        if budget is not None and not budget >= 0:
            raise ValueError(f"{name} must be a number from 0, not {budget!r}")
    kept = [
        record for record, cost in _costs(history)
        if all(budget is None or spent <= budget for spent, budget in
               ((cost.updates, updates), (cost.seconds, seconds), (cost.megabytes, megabytes)))
    ]  # fmt: skip
    return replace(history, records=kept, state=history.state if len(kept) == len(history.records) else None)


def reached(history: History, target: float, metric: str = "accuracy", falling: bool | None = None) -> Cost | None:
    """What it took until the metric reached the target, as `History.rounds_to` decides it; None if it never did."""
    version = history.rounds_to(target, metric, falling)
    return None if version is None else next(cost for record, cost in _costs(history) if record.version == version)


def _costs(history: History) -> Iterator[tuple[Record, Cost]]:
    """Each record, and what was spent up to it. Bytes of a resumed run count from its beginning, updates from the history's."""
    updates, sent = 0, history.before
    for i, record in enumerate(history.records):
        updates, sent = updates + len(record.clients), sent + record.nbytes
        yield record, Cost(i + 1, updates, record.clock, sent / MB)


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan
