"""Local training of a whole cohort at once: tasks → plan → parts → executor → updates, once down and once up.

`cohort.Planner` puts the clients together that can share a tensor. `Trainer.execute` picks who computes a part:

    fused.DenseEngine    dense networks, several times faster than the text
    sgd.SingleEngine     plain SGD of one client, for models that gain nothing from company
    sgd.train_rows       the text of the method, for every model and every correction; on a GPU for everything

The same seed gives the same bytes, whoever trains together with whom and on however many `threads`, each of which trains
other clients; but not the same as another engine, and `train_rows` keeps it only for a client by itself (see sgd.py).
torch's own threads (torch.set_num_threads, 1 here by default) share one product among them and add in another order, as
does another kind of processor: last digits differ, and a ReLU that flips can make that visible.
"""

from __future__ import annotations

import copy
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..core import Task, Update, Vector
from ..data.federated import FederatedData
from .cohort import Part, Planner
from .correction import Affine
from .fused import DenseEngine, padded
from .local import LocalSGD
from .models import Model, is_softmax_network
from .sgd import SingleEngine, stack, train_rows


@dataclass
class Trainer:
    """Trains cohorts of one federation. Holds tensors and buffers, but nothing that a result depends on.

    model: the network that clients train, the `whole` of what travels. frozen: layers, by name, that training leaves alone.
    """

    how: LocalSGD
    model: Model
    data: FederatedData
    frozen: tuple[str, ...] = ()
    x: Tensor = field(init=False, repr=False)               # (N, *features)
    y: Tensor = field(init=False, repr=False)               # (N,) classes, or (N, k) numbers
    device: torch.device = field(init=False, repr=False)    # where x, y and the models are while they train
    away: bool = field(init=False, repr=False)              # not on the CPU: the plain text, everybody together
    fused: DenseEngine | None = field(init=False, repr=False)
    planner: Planner = field(init=False, repr=False)
    pool: ThreadPoolExecutor | None = field(init=False, repr=False)
    mine: threading.local = field(init=False, repr=False)   # each thread's own SingleEngine
    spare: np.ndarray | None = field(default=None, init=False, repr=False)
    travels: Model = field(init=False, repr=False)          # what the server has: the network, or the part that is shared
    kin: list[Trainer] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        self.travels, self.model = self.model, self.model.whole
        x, y = (np.require(part, requirements=["C", "W"]) for part in (self.data.x, self.data.y))   # as torch needs it
        self.device = torch.device(self.how.device)
        self.away = self.how.device != "cpu"
        self.x, self.y = torch.from_numpy(x).to(self.device), torch.from_numpy(y).to(self.device)
        self.fused = DenseEngine(self.model.sizes, self.x, self.y) if self._dense() else None        # type: ignore[attr-defined]
        self.planner = Planner(self.how, self.model, self.data, self.fused, free_numbers(self.device) if self.away else 0)
        self.mine, self.pool = threading.local(), None
        if self.how.threads > 1:                               # a new thread would use as many of torch's as there are cores
            self.pool = ThreadPoolExecutor(self.how.threads, "train", torch.set_num_threads, (torch.get_num_threads(),))

    def like(self, how: LocalSGD, frozen: Sequence[str] = ()) -> Trainer:
        """A trainer of the same network and data with other settings, for plain steps: `steps(tasks)`. Made once for each."""
        how, frozen = replace(how, private=None, personal=None), tuple(frozen)
        for other in self.kin:
            if other.how == how and other.frozen == frozen:
                return other
        other = copy.copy(self)
        other.how, other.frozen, other.mine, other.spare, other.kin = how, frozen, threading.local(), None, []
        if not other._dense():
            other.fused = None
        elif self.fused is None:
            other.fused = DenseEngine(self.model.sizes, self.x, self.y)                              # type: ignore[attr-defined]
        other.planner = Planner(how, self.model, self.data, other.fused, self.planner.memory)
        self.kin.append(other)
        return other

    def _dense(self) -> bool:
        """Whether the fused engine applies: softmax on dense layers, an affine correction, layers frozen whole or not at all."""
        pairs = [f"{name.rsplit('.', 1)[0]}.{kind}" for name in self.frozen for kind in ("weight", "bias")]
        affine = isinstance(self.how.correction, Affine | None)
        quick = self.how.engine == "auto" and not self.away
        return is_softmax_network(self.model) and affine and quick and set(pairs) == set(self.frozen)

    @torch.inference_mode(False)                            # and so with gradients, whatever the caller has switched off
    def train(self, tasks: Sequence[Task]) -> list[Update]:
        """Train every task from the model that it was handed. Returns the updates in the order of the tasks."""
        with torch.autocast("cpu", enabled=False), exact_convolutions():     # … or on
            method = self.how.private or self.how.personal
            return self.steps(tasks) if method is None else method.train(tasks, self)

    @torch.inference_mode(False)
    def own(self, tasks: Sequence[Task]) -> Vector:
        """(n, d): each client's own model, or the one that it is handed if the method leaves it none."""
        with torch.autocast("cpu", enabled=False):
            if self.how.personal is None:
                return np.stack([task.server.params for task in tasks])
            return self.how.personal.own(tasks, self)

    def steps(self, tasks: Sequence[Task]) -> list[Update]:
        """The trainer's own steps, whatever takes their place in `train`: the text of LocalSGD."""
        anchors = {id(task.server.params): task.server.params for task in tasks}                    # usually one
        models = {key: torch.tensor(params, device=self.device) for key, params in anchors.items()}
        changes, parts, done = self._rows(len(tasks)), [], 0
        for part in self.planner.parts(tasks):
            parts.append((part, changes[done : done + len(part.tasks)]))
            done += len(part.tasks)

        def train_part(part_and_room: tuple[Part, Tensor]) -> list[Update]:
            part, out = part_and_room
            rows = [models[id(task.server.params)] for task in part.tasks]
            same = all(row is rows[0] for row in rows)
            anchor = rows[0].expand(len(rows), -1) if same else torch.stack(rows)                   # (n, d)
            return self._updates(part, out.numpy(), self.execute(part, anchor, out).cpu().numpy())

        updates: dict[int, Update] = {}
        for (part, _), some in zip(parts, (self.pool.map if self.pool else map)(train_part, parts), strict=True):
            updates.update(zip(part.places, some, strict=True))
        return [updates[i] for i in range(len(tasks))]

    def execute(self, part: Part, anchor: Tensor, out: Tensor) -> Tensor:
        """Train the clients of a part from anchor (n, d); out (n, d): their changes. Returns mean losses (S, n)."""
        if self.fused is not None:
            pull, constant = self._affine(part.tasks, anchor)
            decay = self.how.weight_decay + pull
            names = list(self.model.shapes())                                      # two tensors a layer
            still: dict[str, Any] = {"frozen": frozenset(names.index(name) // 2 for name in self.frozen)} if self.frozen else {}
            return self.fused.train(anchor, part.plan, part.lr, out, self.how.momentum, decay, constant, part.room, **still)
        theta = anchor.clone()
        if (single := self._single(len(part.tasks))) is not None:
            losses = single.train(theta, self.x, self.y, part.plan, part.lr)
        else:
            rest = (part.plan, part.lr, self.how, part.tasks, self.frozen)
            losses = train_rows(self.model, theta, anchor, self.x, self.y, *rest)
        out.copy_(theta - anchor) if self.away else torch.sub(theta, anchor, out=out)
        return losses

    def _updates(self, part: Part, changes: np.ndarray, losses: np.ndarray) -> list[Update]:
        """What the clients of a part hand back. changes: (n, d); losses: (S, n), the mean of each batch."""
        plan, correction = part.plan, self.how.correction
        seen = losses * plan.count.astype(np.float64)                              # (S, n) summed over the batch
        sizes = plan.count.sum(0, where=plan.first)
        loss_first, loss_last = (seen.sum(0, where=epoch) / sizes for epoch in (plan.first, plan.last))
        names = ("examples", "steps", "loss_first", "loss_last")
        reports = np.stack([sizes, plan.steps, loss_first, loss_last], axis=1).tolist()
        updates = []
        for task, change, report in zip(part.tasks, changes, reports, strict=True):
            metrics, extras = dict(zip(names, report, strict=True)), {}
            if correction is not None:
                gradient = partial(self._full_gradient, task)
                extras = correction.finish(task, change, int(metrics["steps"]), part.lr, gradient)
            updates.append(Update(task.client, task.server.version, change, 1.0, extras, metrics))
        return updates

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

    def _single(self, clients: int) -> SingleEngine | None:
        """This thread's engine for one client, if that is how it is done: plain SGD of a model that has a module."""
        if clients > 1 or self.away or not self.how.plain or self.frozen or self.how.engine == "rows":
            return None
        if not hasattr(self.mine, "single"):
            module = self.model.single()
            self.mine.single = None if module is None else SingleEngine(module, self.model.loss)
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
        rows = torch.from_numpy(self.data.train[self.data.position(task.client)]).to(self.device)
        theta = torch.tensor(task.server.params, device=self.device)[None].requires_grad_()  # (1, d)
        loss = self.model.losses(self.model.layers(theta), self.x[rows][None], self.y[rows][None]).mean()
        return torch.autograd.grad(loss, theta)[0][0].cpu().numpy()


def free_numbers(device: torch.device) -> int:
    """float32 numbers that half of the device's free memory holds, as a power of two, so that small changes of what others
    keep there do not change who trains with whom."""
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 1 << 32
    return 1 << max(free // 8, 1).bit_length() - 1


def exact_convolutions() -> AbstractContextManager[None]:
    """The same bits every time, and full float32 also in convolutions, where torch rounds to tf32 unless it is told."""
    if not torch.backends.cudnn.is_available():
        return nullcontext()
    tf32 = torch.backends.cuda.matmul.allow_tf32
    return torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=tf32)
