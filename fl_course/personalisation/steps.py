"""The steps of SGD, for methods that need two gradients where plain training has one. They follow the trainer's batch plan."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ..core import Task
from ..engine.cohort import Part
from ..engine.models import Model, gradients
from ..engine.training import Trainer


def parts_alone(tasks: Sequence[Task], trainer: Trainer) -> Iterator[tuple[int, Task, Part]]:
    """(place among the tasks, task, part) of each client by itself, so that nobody's last digits depend on company."""
    by_itself = trainer.like(replace(trainer.how, together=1))
    for part in by_itself.planner.parts(tasks):
        yield part.places[0], part.tasks[0], part


def batches(part: Part, trainer: Trainer) -> Iterator[Tensor]:
    """The rows (b,) of the pool that each step of a client by itself sees."""
    for t, count in enumerate(part.plan.count[:, 0]):
        yield torch.from_numpy(part.plan.rows[t, 0, :count])


def loss_at(model: Model, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """(n,) mean losses of the models theta (n, d), on examples x (b, *features), y (b,) that all of them see."""
    each = model.losses(model.layers(theta), x.expand(len(theta), *x.shape), y.expand(len(theta), *y.shape))
    return each.mean(1)


def gradients_at(model: Model, theta: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """(n,) mean losses and (n, d) gradients, at theta (n, d), on the same examples."""
    theta = theta.detach().requires_grad_()
    losses = loss_at(model, theta, x, y)
    return losses.detach(), gradients(losses.sum(), [theta])[0]


def examples_of(task: Task, trainer: Trainer) -> tuple[Tensor, Tensor]:
    """(x (n, *features), y (n,)): all training examples of a client."""
    rows = torch.from_numpy(trainer.data.train[trainer.data.position(task.client)])
    return trainer.x[rows], trainer.y[rows]


def report(part: Part, losses: Sequence[float]) -> dict[str, float]:
    """What a client says of its training: examples, steps, the mean loss of its first and its last epoch. losses: (S,)."""
    count, told = part.plan.count[:, 0], {}
    for name, epoch in (("loss_first", part.plan.first[:, 0]), ("loss_last", part.plan.last[:, 0])):
        told[name] = float((count * losses)[epoch].sum() / count[epoch].sum())
    return {"examples": float(count[part.plan.first[:, 0]].sum()), "steps": float(len(count)), **told}
