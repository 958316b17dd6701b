"""Local training of a whole cohort at once.

`LocalSGD` says what a client does: E epochs of mini-batch SGD from the broadcast model (McMahan et al. 2017,
ClientUpdate). The models of n clients are the rows of theta (n, d); rows do not interact, so one backward pass through
the sum of the clients' losses gives every client its own gradient. `train_rows` below is the text of the method, for
every model. `fused.DenseEngine` does the same for dense networks, with the backward pass written out, several times
faster. `train_alone` is a plain loop over torch.optim.SGD, against which the tests hold both.

On one thread the same seed gives the same bytes, whoever trains together with whom. With another number of threads, or
on another kind of processor, torch adds in another order: the last digits differ, and grow where a ReLU flips.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
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
from .fused import DenseEngine
from .models import Dense, Model

if TYPE_CHECKING:
    from .dpsgd import DPSGD

Epochs = int | Mapping[ClientId, int] | Callable[[ClientId, np.random.Generator], int]


@dataclass(frozen=True)
class LocalSGD:
    """E epochs of SGD on mini-batches of B, learning rate lr·lr_decay^version, torch.optim.SGD's momentum and decay.

    epochs: one number for all, a mapping client -> number, or a function (client, rng) -> number (devices that manage
    less than others). batch_size None means all of a client's examples at once (B = ∞). `together` bounds how many
    clients train in one tensor (None: chosen by size); it changes speed and memory, never the result.
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
    fused: DenseEngine | None = field(init=False, repr=False)

    def __post_init__(self) -> None:
        x, y = (np.require(part, requirements=["C", "W"]) for part in (self.data.x, self.data.y))   # as torch needs it
        self.x, self.y = torch.from_numpy(x), torch.from_numpy(y)
        self.keys = client_keys(self.data.ids)
        self.place = {client: k for k, client in enumerate(self.data.ids)}
        self.fused = None
        plain = self.how.momentum == 0 and isinstance(self.how.correction, Affine | None)
        if type(self.model) is Dense and plain and self.how.engine == "auto":
            self.fused = DenseEngine(self.model.sizes, self.x, self.y)

    def train(self, tasks: Sequence[Task]) -> list[Update]:
        """Train every task from the model that it was handed. Returns the updates in the order of the tasks."""
        if self.how.private is not None:
            return self.how.private.train(tasks, self)
        updates: dict[int, Update] = {}
        for positions in self._groups(tasks):
            group = [tasks[i] for i in positions]
            clients = [self.place[task.client] for task in group]
            examples = [self.data.train[k] for k in clients]
            batch = width(len(examples[0]), self.how.batch_size)
            versions = {(task.seed, task.server.version) for task in group}
            start_from = {version: round_key(*version) for version in versions}
            keys = splitmix(self.keys[clients] ^ [start_from[task.seed, task.server.version] for task in group])
            plan = plan_batches(examples, keys, np.array([self.how.epochs_of(task) for task in group]), batch)
            together = self._together(batch)
            for start in range(0, len(group), together):
                part = plan.part(start, min(start + together, len(group)))
                for i, update in zip(part.order, self._train_part([group[i] for i in part.order], part), strict=True):
                    updates[positions[i]] = update
        return [updates[i] for i in range(len(tasks))]

    def _groups(self, tasks: Sequence[Task]) -> list[list[int]]:
        """Positions of tasks that can share a tensor: the same batch width and learning rate."""
        groups: dict[tuple[int, float], list[int]] = {}
        for i, task in enumerate(tasks):
            if task.client not in self.place:
                self.data.position(task.client)                                        # raises, naming the client
            examples = len(self.data.train[self.place[task.client]])
            if examples == 0:
                raise ValueError(f"client {task.client!r} has no training examples, so it cannot be asked to train")
            key = (width(examples, self.how.batch_size), self.how.lr_at(task.server.version))
            groups.setdefault(key, []).append(i)
        return list(groups.values())

    def _together(self, batch: int) -> int:
        """Clients in one tensor: about a million numbers fit the processor's cache; more only cost memory."""
        if self.model.alone:
            return 1
        numbers = max(self.model.dim, batch * math.prod(self.data.shape))              # of one client: model, inputs
        return self.how.together or max(1, 1_000_000 // numbers)

    def _train_part(self, tasks: list[Task], plan: Plan) -> list[Update]:
        first = tasks[0].server.params
        if all(task.server.params is first for task in tasks):
            anchor = torch.tensor(first).expand(len(tasks), -1)
        else:
            anchor = torch.tensor(np.stack([task.server.params for task in tasks]))
        theta = anchor.clone()
        lr = self.how.lr_at(tasks[0].server.version)
        if self.fused is not None:
            pull, push = self._affine(tasks, anchor, lr)
            losses = self.fused.train(theta, plan, lr, self.how.weight_decay + pull, push)
        else:
            losses = train_rows(self.model, theta, anchor, self.x, self.y, plan, lr, self.how, tasks)
        delta = (theta - anchor).numpy()
        seen = losses.numpy() * plan.count.astype(np.float64)                      # (S, n) summed over the batch
        sizes = (plan.count * plan.first).sum(0)
        loss_first, loss_last = (np.where(epoch, seen, 0).sum(0) / sizes for epoch in (plan.first, plan.last))
        out = []
        for i, task in enumerate(tasks):
            steps = int(plan.steps[i])
            gradient = partial(self._full_gradient, task)
            extras = self.how.correction.finish(task, delta[i], steps, lr, gradient) if self.how.correction else {}
            metrics = {
                "examples": float(sizes[i]),
                "steps": float(steps),
                "loss_first": float(loss_first[i]),
                "loss_last": float(loss_last[i]),
            }
            out.append(Update(task.client, task.server.version, delta[i], 1.0, extras, metrics))
        return out

    def _affine(self, tasks: list[Task], anchor: Tensor, lr: float) -> tuple[float, Tensor | None]:
        """An affine correction as the fused engine takes it: pull, and lr·(pull·anchor - shift) (n, d) or None."""
        correction = self.how.correction
        if not isinstance(correction, Affine):
            return 0.0, None
        pull = correction.pull()
        push = anchor * (lr * pull) if pull else None
        shifts = [correction.shift(task) for task in tasks]
        if any(shift is not None for shift in shifts):
            push = (torch.zeros_like(anchor) if push is None else push) - lr * torch.from_numpy(_stack(tasks, shifts))
        return pull, push

    def _full_gradient(self, task: Task) -> Vector:
        """(d,) of the client's mean loss over all its training examples, at the model that it was handed."""
        rows = torch.from_numpy(self.data.train[self.data.position(task.client)])
        theta = torch.tensor(task.server.params)[None].requires_grad_()                # (1, d)
        loss = self.model.losses(self.model.layers(theta), self.x[rows][None], self.y[rows][None]).mean()
        return torch.autograd.grad(loss, theta)[0][0].numpy()


def _stack(tasks: Sequence[Task], vectors: Sequence[Vector | None]) -> np.ndarray:
    """(n, d) from one vector a client."""
    for task, vector in zip(tasks, vectors, strict=True):
        if vector is None:
            raise ValueError(f"the correction has no vector for client {task.client!r}, but it has one for others")
    return np.stack([vector for vector in vectors if vector is not None])


def train_rows(model: Model, theta: Tensor, anchor: Tensor, x: Tensor, y: Tensor, plan: Plan, lr: float, how: LocalSGD,
               tasks: Sequence[Task]) -> Tensor:
    """SGD for n clients, in place on theta (n, d). Returns the mean loss of each batch (S, n), in nats.

    x: (N, *features), y: (N,): the examples that plan.rows counts; anchor: (n, d), where the clients began.
    Step t moves the first plan.active[t] rows; the rows of clients that have finished stay untouched, bit for bit.
    """
    correction = how.correction or Correction()
    named = [correction.rows(task) for task in tasks]
    names = {name: None for vectors in named for name in vectors}
    rows = {name: torch.from_numpy(_stack(tasks, [vectors.get(name) for vectors in named])) for name in names}
    velocity = torch.zeros_like(theta)
    weight = torch.from_numpy(plan.weight).to(theta.dtype)
    index = torch.from_numpy(plan.rows)
    losses = torch.zeros(plan.count.shape, dtype=theta.dtype)
    for t, a in enumerate(plan.active):
        layers = {name: view.requires_grad_() for name, view in model.layers(theta[:a].detach()).items()}
        each = model.losses(layers, x[index[t, :a]], y[index[t, :a]])              # (a, B)
        batch = (each * weight[t, :a]).sum(1)                                      # (a,) the mean over real examples
        gradients = torch.autograd.grad(batch.sum(), list(layers.values()))
        with torch.no_grad():
            grad = torch.cat([g.flatten(1) for g in gradients], dim=1)             # (a, d)
            grad = correction.correct(grad, theta[:a], anchor[:a], {name: r[:a] for name, r in rows.items()})
            if how.weight_decay:
                grad = grad + how.weight_decay * theta[:a]
            if how.momentum:
                grad = velocity[:a].mul_(how.momentum).add_(grad)
            theta[:a].sub_(lr * grad)
        losses[t, :a] = batch.detach()
    return losses


def train_alone(model: Model, task: Task, data: FederatedData, how: LocalSGD,
                dtype: torch.dtype = torch.float32) -> np.ndarray:
    """One client, as in a textbook, with torch.optim.SGD: the slow reference that the engines are tested against.

    Returns the delta (d,), computed in dtype. It follows the same batch plan, one batch after the other, nothing padded.
    """
    mine = data.train[data.position(task.client)]
    keys = splitmix(client_keys([task.client]) ^ round_key(task.seed, task.server.version))
    plan = plan_batches([mine], keys, np.array([how.epochs_of(task)]), width(len(mine), how.batch_size))
    anchor = torch.tensor(task.server.params, dtype=dtype)[None]                   # (1, d)
    theta, correction = anchor.clone().requires_grad_(), how.correction or Correction()
    rows = {name: torch.tensor(vector, dtype=dtype)[None] for name, vector in correction.rows(task).items()}
    optimizer = torch.optim.SGD([theta], how.lr_at(task.server.version), how.momentum, weight_decay=how.weight_decay)
    for t in range(int(plan.steps[0])):
        batch = plan.rows[t, 0, : plan.count[t, 0]]
        x, y = torch.tensor(data.x[batch], dtype=dtype)[None], torch.tensor(data.y[batch])[None]
        loss = model.losses(model.layers(theta), x, y).mean()
        theta.grad = correction.correct(torch.autograd.grad(loss, theta)[0], theta.detach(), anchor, rows)
        optimizer.step()
    return (theta.detach() - anchor)[0].numpy()
