"""Per-FedAvg (Fallah et al. 2020): a model that is good *after* one step at home.

    F_k(w) = f_k(w - α∇f_k(w)),     ∇F_k(w) = (I - α∇²f_k(w; D₁)) ∇f_k(w - α∇f_k(w; D₁); D₂)

D₁ is the support: what the step is taken on; D₂ the query: what it is judged by. A client's examples play both parts in turn,
never both in one step. The Hessian meets a vector only, so it is never written down:

    exact           differentiated through the step, torch.func.grad of torch.func.grad
    hessian-free    ∇²f·g ≈ (∇f(w + δg) - ∇f(w - δg)) / 2δ: two more gradients
    first           I - α∇² taken for I: none

The paper draws a third batch for the Hessian; with D₁ in its place the exact gradient is that of one function, which finite
differences can check.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..core import Task, Update, Vector, is_whole, plain_counts
from ..engine.models import Model
from ..engine.training import Trainer
from ..federation.interfaces import Experiment, PersonalTraining
from .rules import check_number, own_steps, whole_network
from .steps import batches, examples_of, gradients_at, loss_at, parts_alone, report

ORDERS = ("exact", "hessian-free", "first")
Examples = tuple[Tensor, Tensor]                    # x (b, *features), y (b,)


@dataclass(frozen=True)
class PerFedAvg(PersonalTraining):
    """In each step the batch is the query; the support is the client's other examples, or so many of them, drawn anew.

    inner_lr is α, LocalSGD's lr is β. A client that has no others (its batch holds all of them) takes one half of the batch to
    support and one to query. Its own model is the downloaded one after `steps` of rate α on all its training examples. With
    α = 0, and batches smaller than what a client has, the steps are those of FedAvg.
    """

    inner_lr: float = 0.05
    order: str = "first"
    support: int | None = None
    steps: int = 1
    delta: float = 1e-2

    def __post_init__(self) -> None:
        check_number(self, "inner_lr")
        if self.order not in ORDERS:
            raise ValueError(f"order must be one of {', '.join(ORDERS)}, not {self.order!r}")
        if self.support is not None and not is_whole(self.support, 1):
            raise ValueError(f"support must be a whole number of examples from 1, or None for all others, not {self.support!r}")
        if not is_whole(self.steps, 1):
            raise ValueError(f"steps must be a whole number from 1, not {self.steps!r}")
        check_number(self, "delta", positive=True)
        plain_counts(self)

    def passes(self, epochs: int, model: Any) -> float:
        """Two gradients a step, or four; a Hessian's product costs about two. As if the support were a batch."""
        return (2 if self.order == "first" else 4) * epochs

    def train(self, tasks: Sequence[Task], trainer: Trainer) -> list[Update]:
        updates: dict[int, Update] = {}
        for place, task, part in parts_alone(tasks, trainer):
            mine, rng = trainer.data.train[trainer.data.position(task.client)], task.rng("support")
            theta, losses = torch.tensor(task.server.params), []
            for rows in batches(part, trainer):
                support, query = self.divide(mine, rows.numpy(), rng)
                one, two = ((trainer.x[some], trainer.y[some]) for some in map(torch.from_numpy, (support, query)))
                grad, loss = meta_gradient(trainer.model, theta, one, two, self.inner_lr, self.order, self.delta)
                theta = theta - part.lr * grad
                losses.append(float(loss))
            metrics = report(part, losses)
            updates[place] = Update(task.client, task.server.version, theta.numpy() - task.server.params, 1.0, {}, metrics)
        return [updates[i] for i in range(len(tasks))]

    def divide(self, mine: np.ndarray, batch: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """The rows of support and query for a batch (b,) of a client that has the rows `mine` (n,)."""
        others = np.setdiff1d(mine, batch)
        if not len(others):
            half = len(batch) // 2
            return (batch[half:], batch[:half]) if half else (batch, batch)
        if self.support is not None and self.support < len(others):
            others = np.sort(rng.choice(others, self.support, replace=False))
        return others, batch

    def own(self, tasks: Sequence[Task], trainer: Trainer) -> Vector:
        adapted = []
        for task in tasks:
            theta, (x, y) = torch.tensor(task.server.params)[None], examples_of(task, trainer)
            for _ in range(self.steps):
                theta = theta - self.inner_lr * gradients_at(trainer.model, theta, x, y)[1]
            adapted.append(theta[0].numpy())
        return np.stack(adapted)

    def check(self, experiment: Experiment) -> None:
        whole_network(self, experiment)
        own_steps(self, experiment)


def meta_gradient(model: Model, theta: Tensor, support: Examples, query: Examples, inner_lr: float, order: str = "exact",
                  delta: float = 1e-2) -> tuple[Tensor, Tensor]:
    """(d,) the gradient of the query's loss after a step on the support, at theta (d,); and the query's loss after that step."""

    def loss(w: Tensor, examples: Examples) -> Tensor:
        return loss_at(model, w[None], *examples)[0]

    def after(w: Tensor) -> Tensor:
        return loss(w - inner_lr * torch.func.grad(loss)(w, support), query)

    if order == "exact" and inner_lr:
        loss(theta, support)                        # the first look that a wrapped module takes must be outside of torch.func
        grad, value = torch.func.grad_and_value(after)(theta)
        return grad, value
    there = theta
    if inner_lr:
        there = theta - inner_lr * gradients_at(model, theta[None], *support)[1][0]
    value, grad = (each[0] for each in gradients_at(model, there[None], *query))
    if order == "hessian-free" and inner_lr:
        beside = torch.stack([theta + delta * grad, theta - delta * grad])
        ahead, behind = gradients_at(model, beside, *support)[1]
        grad = grad - inner_lr * (ahead - behind) / (2 * delta)
    return grad, value
