"""Who trains together: the tasks of a cohort → its parts, each of which one executor trains in one tensor.

Clients share a tensor if they have the same batch width, learning rate and room (see fused.py), and no more of them than
fit the processor's cache. All of it depends on each client alone, so nobody's numbers depend on company.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..core import ClientId, Task
from ..data.federated import FederatedData
from .batches import Plan, client_keys, plan_batches, round_key, splitmix, width
from .fused import DenseEngine
from .local import LocalSGD
from .models import Model


@dataclass(frozen=True)
class Part:
    """Clients that one executor trains in one tensor, in the order of their plan: most steps first."""

    places: list[int]           # (n,) where they stand in the list of tasks
    tasks: list[Task]           # (n,)
    plan: Plan
    lr: float
    room: int                   # rows that the fused engine keeps for each client, 0: none


@dataclass
class Planner:
    """Plans the cohorts of one federation. fused: the engine for dense networks, if these clients have it."""

    how: LocalSGD
    model: Model
    data: FederatedData
    fused: DenseEngine | None
    memory: int = 0             # numbers that a device other than the CPU has room for
    keys: np.ndarray = field(init=False, repr=False)                 # (K,) uint64
    place: dict[ClientId, int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.keys = client_keys(self.data.ids)
        self.place = {client: k for k, client in enumerate(self.data.ids)}

    def parts(self, tasks: Sequence[Task]) -> Iterator[Part]:
        """All tasks, each in one part."""
        for (batch, room, lr), group in self.groups(tasks).items():
            plan = self.plan([tasks[i] for i in group], batch)
            for some in self.cut(plan, batch, room):
                places = [group[k] for k in some.order]
                yield Part(places, [tasks[i] for i in places], some, lr, room)

    def groups(self, tasks: Sequence[Task]) -> dict[tuple[int, int, float], list[int]]:
        """(batch width, room, learning rate) -> positions of the tasks that have them in common."""
        groups: dict[tuple[int, int, float], list[int]] = {}
        for i, task in enumerate(tasks):
            if task.client not in self.place:
                self.data.position(task.client)                                        # raises, naming the client
            examples = len(self.data.train[self.place[task.client]])
            if examples == 0:
                raise ValueError(f"client {task.client!r} has no training examples, so it cannot be asked to train")
            room = self.fused.room(examples, self.how.epochs_of(task)) if self.fused is not None and self.how.plain else 0
            key = (width(examples, self.how.batch_size), room, self.how.lr_at(task.server.version))
            groups.setdefault(key, []).append(i)
        return groups

    def plan(self, tasks: Sequence[Task], batch: int) -> Plan:
        """The batches of these clients, in batches of so many slots."""
        clients = [self.place[task.client] for task in tasks]
        versions = {(task.seed, task.server.version) for task in tasks}
        start_from = {version: round_key(*version) for version in versions}
        keys = splitmix(self.keys[clients] ^ [start_from[task.seed, task.server.version] for task in tasks])
        epochs = np.array([self.how.epochs_of(task) for task in tasks])
        return plan_batches([self.data.train[k] for k in clients], keys, epochs, batch)

    def cut(self, plan: Plan, batch: int, room: int) -> list[Plan]:
        """The plan in pieces for one tensor each: about a million numbers fit the processor's cache, and every thread
        gets a piece unless that would be too small to be worth its while."""
        clients, how = len(plan.steps), self.how
        if self.memory:                                   # a step keeps model, anchor, gradient and change, and activations
            numbers = 6 * self.model.dim + 30 * batch * math.prod(self.data.shape)
            together = how.together or max(1, self.memory // numbers)
            return [plan.part(start, min(start + together, clients)) for start in range(0, clients, together)]
        if self.model.alone or (self.fused is None and how.engine == "auto" and how.together is None):
            return [plan.part(k, k + 1) for k in range(clients)]
        if self.fused is not None and room:
            numbers = self.fused.numbers(room)                                         # of one client
        else:
            numbers = max(self.model.dim, batch * math.prod(self.data.shape))
        together = how.together or max(1, 1_000_000 // numbers)
        if how.threads > 1:
            together = min(together, max(-(-clients // how.threads), -(-100_000 // numbers)))
        if together >= clients:
            return [plan]
        return [plan.part(start, min(start + together, clients)) for start in range(0, clients, together)]
