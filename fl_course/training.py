"""Local training of a whole cohort at once.

`LocalSGD` says what a client does: E epochs of mini-batch SGD from the broadcast model (McMahan et al. 2017,
ClientUpdate). `Trainer` puts the clients that can share a tensor together and picks who computes: `sgd.train_rows`, the
text of the method, for every model; `fused.DenseEngine` for dense networks, several times faster; `sgd.SingleEngine`
for models that gain nothing from company.

The same seed gives the same bytes, whoever trains together with whom and on however many `threads`, each of which trains
other clients; but not the same as another engine, and `train_rows` keeps it only for a client by itself (see sgd.py).
torch's own threads (torch.set_num_threads, 1 here by default) share one product among them and add in another order, as
does another kind of processor: last digits differ, and a ReLU that flips can make that visible.
"""

from __future__ import annotations

import math
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from .batches import Plan, client_keys, plan_batches, round_key, splitmix, width
from .core import ClientId, Task, Update, Vector
from .correction import Affine, Correction
from .data import FederatedData
from .fused import DenseEngine, implicit_room, large_first_layer, padded
from .models import Dense, Model
from .sgd import SingleEngine, stack, train_rows

if TYPE_CHECKING:
    from .dpsgd import DPSGD

Epochs = int | Mapping[ClientId, int] | Callable[[ClientId, np.random.Generator], int]


@dataclass(frozen=True)
class LocalSGD:
    """E epochs of SGD on mini-batches of B, learning rate lr·lr_decay^version, torch.optim.SGD's momentum and decay.

    epochs: one number for all, a mapping client -> number, or a function (client, rng) -> number (devices that manage
    less than others). batch_size None means all of a client's examples at once (B = ∞). `together` bounds how many
    clients train in one tensor (None: as many as pay, which is one for models that are not dense networks); `threads`
    share the tensors out. Both change speed and memory, not the result: see training.py for the last digits. Two threads
    pay for large cohorts on an idle machine, see docs/performance.md.
    engine "auto" takes the fused engine where it applies, "rows" always the plain one; they agree but for rounding.
    private: DPSGD(…) clips and noises the gradient of every example (chapter 3).
    """

    lr: float = 0.1
    epochs: Epochs = 1
    batch_size: int | None = 10
    lr_decay: float = 1.0
    momentum: float = 0.0
    weight_decay: float = 0.0
    correction: Correction | None = None
    together: int | None = None
    threads: int = field(default=1, repr=False)
    engine: str = "auto"
    private: DPSGD | None = None

    def __post_init__(self) -> None:
        if not (self.lr > 0 and math.isfinite(self.lr)):
            raise ValueError(f"lr must be positive and finite, not {self.lr}")
        if not callable(self.epochs) and not isinstance(self.epochs, int | Mapping):
            raise ValueError(f"epochs must be a whole number, a mapping or a function, not {self.epochs!r}")
        some = self.epochs.items() if isinstance(self.epochs, Mapping) else [("everybody", self.epochs)]
        for client, epochs in some:
            if not callable(epochs):
                _check_epochs(client, epochs)
        if self.batch_size is not None and (not isinstance(self.batch_size, int) or self.batch_size < 1):
            raise ValueError(f"batch_size must be a whole number from 1, or None for all, not {self.batch_size!r}")
        if self.correction is not None and not isinstance(self.correction, Correction):
            raise TypeError(f"correction must be FedProx(…) or its like, not {self.correction!r}; a stage goes into stages=[…]")
        if not 0 < self.lr_decay <= 1:
            raise ValueError(f"lr_decay must be in (0, 1], not {self.lr_decay}")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum must be in [0, 1), not {self.momentum}")
        if not (self.weight_decay >= 0 and math.isfinite(self.weight_decay)):
            raise ValueError(f"weight_decay must be at least 0 and finite, not {self.weight_decay}")
        if self.together is not None and (not isinstance(self.together, int) or self.together < 1):
            raise ValueError(f"together must be a whole number of clients from 1, or None, not {self.together!r}")
        if not isinstance(self.threads, int) or self.threads < 1:
            raise ValueError(f"threads must be a whole number from 1, not {self.threads!r}")
        if self.engine not in ("auto", "rows"):
            raise ValueError(f"engine must be 'auto' or 'rows', not {self.engine!r}")

    def epochs_of(self, task: Task) -> int:
        """Passes over its data that this client makes."""
        if isinstance(self.epochs, int):
            return self.epochs
        if isinstance(self.epochs, Mapping):
            if task.client not in self.epochs:
                raise ValueError(f"epochs has no entry for client {task.client!r}; it needs one for every client")
            return int(self.epochs[task.client])
        return _check_epochs(task.client, self.epochs(task.client, task.rng("epochs")))

    def lr_at(self, version: int) -> float:
        """The learning rate of clients that start from this version of the model."""
        return self.lr * self.lr_decay**version

    def prepare(self, model: Model, data: FederatedData) -> Trainer:
        """The data as tensors and the engine with its buffers, made once for a run."""
        return Trainer(self, model, data)


def _check_epochs(client: ClientId, epochs: object) -> int:
    if not isinstance(epochs, int | np.integer) or epochs < 1:
        raise ValueError(f"epochs of {client!r} must be a whole number from 1, not {epochs!r}")
    return int(epochs)


@dataclass
class Trainer:
    """Trains cohorts of one federation. Holds tensors and buffers, but nothing that a result depends on."""

    how: LocalSGD
    model: Model
    data: FederatedData
    x: Tensor = field(init=False, repr=False)               # (N, *features)
    y: Tensor = field(init=False, repr=False)               # (N,)
    keys: np.ndarray = field(init=False, repr=False)        # (K,) uint64
    place: dict[ClientId, int] = field(init=False, repr=False)
    plain: bool = field(init=False, repr=False)             # SGD and nothing else
    fused: DenseEngine | None = field(init=False, repr=False)
    pool: ThreadPoolExecutor | None = field(init=False, repr=False)
    mine: threading.local = field(init=False, repr=False)
    spare: np.ndarray | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        x, y = (np.require(part, requirements=["C", "W"]) for part in (self.data.x, self.data.y))   # as torch needs it
        self.x, self.y = torch.from_numpy(x), torch.from_numpy(y)
        self.keys = client_keys(self.data.ids)
        self.place = {client: k for k, client in enumerate(self.data.ids)}
        self.plain = not self.how.momentum and not self.how.weight_decay and self.how.correction is None
        self.fused = None
        self.mine = threading.local()
        self.pool = None
        if self.how.threads > 1:                               # a new thread would use as many of torch's as there are cores
            self.pool = ThreadPoolExecutor(self.how.threads, "train", torch.set_num_threads, (torch.get_num_threads(),))
        affine = isinstance(self.how.correction, Affine | None)
        if type(self.model) is Dense and affine and self.how.engine == "auto":
            self.fused = DenseEngine(self.model.sizes, self.x, self.y)

    def train(self, tasks: Sequence[Task]) -> list[Update]:
        """Train every task from the model that it was handed. Returns the updates in the order of the tasks."""
        if self.how.private is not None:
            return self.how.private.train(tasks, self)
        anchors = {id(task.server.params): task.server.params for task in tasks}                    # usually one
        tensors = {key: torch.tensor(params) for key, params in anchors.items()}
        changes = self._rows(len(tasks))
        parts, done = [], 0
        for (batch, room, _), group in self._groups(tasks).items():
            plan = self._plan([tasks[i] for i in group], batch)
            for part in self._cut(plan, batch, room):
                who = [group[k] for k in part.order]
                parts.append((who, part, room, changes[done : done + len(who)]))
                done += len(who)

        def train_part(part: tuple[list[int], Plan, int, Tensor]) -> list[Update]:
            who, plan, room, out = part
            return self._train_part([tasks[i] for i in who], plan, room, tensors, out)

        updates: dict[int, Update] = {}
        for (who, *_), some in zip(parts, (self.pool.map if self.pool else map)(train_part, parts), strict=True):
            updates.update(zip(who, some, strict=True))
        return [updates[i] for i in range(len(tasks))]

    def _rows(self, n: int) -> Tensor:
        """(n, d) float32, not filled, each row beginning with a cache line (see fused.padded).

        The same memory as in the last round if nobody refers to the updates of that round any more: fresh memory must be
        got from the system, page by page.
        """
        width = padded(self.model.dim)
        if self.spare is None or len(self.spare) < n * width + 16 or sys.getrefcount(self.spare) > 2:
            self.spare = np.empty(n * width + 16, dtype=np.float32)
        begin = -self.spare.ctypes.data % 64 // 4
        return torch.from_numpy(self.spare[begin : begin + n * width]).view(n, width)[:, : self.model.dim]

    def _groups(self, tasks: Sequence[Task]) -> dict[tuple[int, int, float], list[int]]:
        """Positions of tasks that can share a tensor: the same batch width, room (see fused.py) and learning rate."""
        groups: dict[tuple[int, int, float], list[int]] = {}
        for i, task in enumerate(tasks):
            if task.client not in self.place:
                self.data.position(task.client)                                        # raises, naming the client
            examples = len(self.data.train[self.place[task.client]])
            if examples == 0:
                raise ValueError(f"client {task.client!r} has no training examples, so it cannot be asked to train")
            room = self._room(task, examples)
            key = (width(examples, self.how.batch_size), room, self.how.lr_at(task.server.version))
            groups.setdefault(key, []).append(i)
        return groups

    def _plan(self, tasks: list[Task], batch: int) -> Plan:
        """The batches of these clients, in batches of so many slots."""
        clients = [self.place[task.client] for task in tasks]
        versions = {(task.seed, task.server.version) for task in tasks}
        start_from = {version: round_key(*version) for version in versions}
        keys = splitmix(self.keys[clients] ^ [start_from[task.seed, task.server.version] for task in tasks])
        epochs = np.array([self.how.epochs_of(task) for task in tasks])
        return plan_batches([self.data.train[k] for k in clients], keys, epochs, batch)

    def _cut(self, plan: Plan, batch: int, room: int) -> list[Plan]:
        """The plan in parts that are trained in one tensor each: about a million numbers fit the processor's cache, and
        every thread gets a part unless that would be too small to be worth its while."""
        if self.fused is not None and room:
            numbers = self.fused.numbers(room)                                         # of one client
        else:
            numbers = max(self.model.dim, batch * math.prod(self.data.shape))
        clients, how = len(plan.steps), self.how
        if self.model.alone or (self.fused is None and how.engine == "auto" and how.together is None):
            return [plan.part(k, k + 1) for k in range(clients)]
        together = how.together or max(1, 1_000_000 // numbers)
        if how.threads > 1:
            together = min(together, max(-(-clients // how.threads), -(-100_000 // numbers)))
        if together >= clients:
            return [plan]
        return [plan.part(start, min(start + together, clients)) for start in range(0, clients, together)]

    def _room(self, task: Task, examples: int) -> int:
        """Rows that the fused engine keeps for the examples of this client, 0 for none. It depends on this client alone."""
        if self.fused is None or not self.plain or not large_first_layer(self.fused.sizes):
            return 0
        return implicit_room(self.fused.sizes, examples, self.how.epochs_of(task))

    def _train_part(self, tasks: list[Task], plan: Plan, room: int, models: dict[int, Tensor], out: Tensor) -> list[Update]:
        """Train these clients in one tensor. models: id(params) -> (d,); out (n, d): where the changes go."""
        rows = [models[id(task.server.params)] for task in tasks]
        anchor = rows[0].expand(len(rows), -1) if all(row is rows[0] for row in rows) else torch.stack(rows)     # (n, d)
        lr = self.how.lr_at(tasks[0].server.version)
        if self.fused is not None:
            pull, constant = self._affine(tasks, anchor)
            decay = self.how.weight_decay + pull
            losses = self.fused.train(anchor, plan, lr, out, self.how.momentum, decay, constant, room)
        else:
            theta = anchor.clone()
            if (single := self._single(len(tasks))) is not None:
                losses = single.train(theta, self.x, self.y, plan, lr)
            else:
                losses = train_rows(self.model, theta, anchor, self.x, self.y, plan, lr, self.how, tasks)
            torch.sub(theta, anchor, out=out)
        delta = out.numpy()
        seen = losses.numpy() * plan.count.astype(np.float64)                      # (S, n) summed over the batch
        sizes = plan.count.sum(0, where=plan.first)
        loss_first, loss_last = (seen.sum(0, where=epoch) / sizes for epoch in (plan.first, plan.last))
        names = ("examples", "steps", "loss_first", "loss_last")
        reports = np.stack([sizes, plan.steps, loss_first, loss_last], axis=1).tolist()
        updates = []
        for task, change, report in zip(tasks, delta, reports, strict=True):
            metrics, extras = dict(zip(names, report, strict=True)), {}
            if self.how.correction is not None:
                gradient = partial(self._full_gradient, task)
                extras = self.how.correction.finish(task, change, int(metrics["steps"]), lr, gradient)
            updates.append(Update(task.client, task.server.version, change, 1.0, extras, metrics))
        return updates

    def _single(self, clients: int) -> SingleEngine | None:
        """This thread's engine for one client, if that is how it is done: plain SGD of a model that has a module."""
        if clients > 1 or not self.plain or self.how.engine == "rows":
            return None
        if not hasattr(self.mine, "single"):
            module = self.model.single()
            self.mine.single = None if module is None else SingleEngine(module)
        return self.mine.single

    def _affine(self, tasks: list[Task], anchor: Tensor) -> tuple[float, Tensor | None]:
        """An affine correction as the fused engine takes it: pull, and shift - pull·anchor (n, d) or None."""
        correction = self.how.correction
        if not isinstance(correction, Affine):
            return 0.0, None
        pull = correction.pull()
        constant = anchor * -pull if pull else None
        shifts = [correction.shift(task) for task in tasks]
        if any(shift is not None for shift in shifts):
            shift = torch.from_numpy(stack(tasks, shifts))
            constant = shift if constant is None else constant + shift
        return pull, constant

    def _full_gradient(self, task: Task) -> Vector:
        """(d,) of the client's mean loss over all its training examples, at the model that it was handed."""
        rows = torch.from_numpy(self.data.train[self.data.position(task.client)])
        theta = torch.tensor(task.server.params)[None].requires_grad_()                # (1, d)
        loss = self.model.losses(self.model.layers(theta), self.x[rows][None], self.y[rows][None]).mean()
        return torch.autograd.grad(loss, theta)[0][0].numpy()
