"""The run of a room once more, in one process: whoever was heard in a step is heard in it again, from the same model.

When an answer comes is decided by people and their machines, so a run on the real clock cannot be repeated; but its records say
whose answers each step used and how stale they were, and from there on everything is arithmetic.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ... import Coordinator, Elsewhere, History
from ...core import ClientId, Record
from ...federation.history import describe
from ...federation.node import Node
from ...federation.orders import Answer, Order
from ...federation.state import State

SAME = ("clients", "staleness", "upload")        # of a record; instants, events and what came too late belong to the first time


@dataclass
class Recorded:
    """A post (federation/orders.py) whose clients begin and answer when the records say so."""

    node: Node
    records: Sequence[Record]
    step: int = 0                                                # of the records, under way
    idle: int = 0                                                # how often in a row there was nothing to hand out
    jobs: dict[ClientId, list[tuple[int, int]]] = field(init=False)          # those to come: (version it begins with, its step)
    waiting: dict[ClientId, tuple[Order, int]] = field(default_factory=dict)                   # begun: the order and its step

    def __post_init__(self) -> None:
        self.jobs = {client: [] for client in self.node.clients}
        for step, record in enumerate(self.records):
            for client, stale in sorted(zip(record.clients, record.staleness, strict=True), key=lambda pair: -pair[1]):
                self.jobs[client].append((record.version - 1 - stale, step))

    def beginning(self) -> set[ClientId]:
        """Who will begin a job with the model of the moment."""
        version = self.records[self.step].version - 1 if self.step < len(self.records) else -1
        return {client for client, jobs in self.jobs.items() if jobs and jobs[0][0] == version}

    def here(self) -> set[ClientId]:
        return self.beginning() - self.waiting.keys()

    def send(self, orders: Sequence[Order]) -> None:
        for order in orders:
            self.waiting[order.client] = order, self.jobs[order.client].pop(0)[1]

    def answers(self, seconds: float) -> list[Answer]:
        """The answers of this step: first of those who begin again before it ends, and when all have begun, of the others."""
        begin = self.beginning()
        ready = [client for client, (_, step) in self.waiting.items() if step == self.step and (not begin or client in begin)]
        if not begin:
            self.step += 1
        self.idle = 0 if ready else self.idle + 1
        if self.idle > 1000:
            raise ValueError(f"step {self.step + 1} cannot be made again: its answers do not begin where the records say")
        return self.node.obey([self.waiting.pop(client)[0] for client in ready])

    def ask(self, what: str, questions: Mapping[ClientId, bytes]) -> Mapping[ClientId, bytes]:
        raise NotImplementedError("pages in the room answer orders and nothing else")


def again(experiment: Coordinator, history: History, state: State | None = None) -> History:
    """The same run in this process. experiment: the room's, `room.experiment`; state: where it began, if not at the beginning.
    ValueError if a step or the last model is another one."""
    noisy = [stage for stage in experiment.pipeline if getattr(stage, "noise_multiplier", 0)]
    if secret := [stage for stage in noisy if getattr(stage, "noise_seed", None) is None]:
        raise ValueError(f"{secret[0]!r} draws noise that nobody can predict, so this run cannot be made again")
    heard = [record for record in history.records if record.clients]
    if not heard:
        raise ValueError("nobody was heard in this run, so there is nothing to make again")
    now = experiment.initial() if state is None else state
    out = History(experiment=describe(experiment), state=now)
    post = Recorded(Node(experiment, experiment.clients), history.records)
    run = experiment.run(len(history), now, work=Elsewhere(post, real=True))
    for want, (after, record) in zip(history.records, run, strict=True):
        out.records.append(record)
        out.state = after
        if other := [name for name in SAME if _plain(getattr(want, name)) != _plain(getattr(record, name))]:
            raise ValueError(f"step {want.version} is another one: its {other[0]} were {getattr(want, other[0])!r}"[:300])
    if isinstance(history.state, State):
        apart = float(np.abs(history.state.server.params - out.state.server.params).max())
        if not apart < 1e-6:
            raise ValueError(f"the steps are the same, and the last model is not: a number differs by {apart:.1e}")
    return out


def _plain(value: Any) -> Any:
    return sorted(value) if isinstance(value, tuple) else value
