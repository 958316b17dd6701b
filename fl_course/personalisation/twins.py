"""A whole model of one's own beside the one that travels.

    FineTune    the global model, trained a little more at home whenever it is used
    Ditto       v, drawn to the model as it was downloaded, w^t:      ∇F(v) + λ(v - w^t)      (Li et al. 2021)
    PFedMe      θ ≈ argmin f(θ) + λ/2‖θ - w‖², and w follows θ:       w ← w - ηλ(w - θ)       (Dinh et al. 2020)
    APFL        a mixture, v̄ = αv + (1 - α)w, whose α is learnt                                (Deng et al. 2020)

v, θ and w are (d,). Only w travels. What a guarantee of chapter 3 or 4 covers is what travels: v, θ and α are tuned to private
data afterwards, are not covered, and are not released, as long as they stay with their client.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from ..core import ClientFailure, Task, Update, Vector, is_whole, plain_counts
from ..engine.correction import Affine
from ..engine.training import Trainer
from ..federation.interfaces import Experiment, PersonalTraining
from .rules import check_number, own_steps, whole_network
from .split import ends, kept, moved
from .steps import batches, gradients_at, parts_alone, report


@dataclass(frozen=True)
class FineTune(PersonalTraining):
    """FedAvg to the bit; a client's own model is the global one after `epochs` more at home, with rate lr (None: LocalSGD's)."""

    epochs: int = 1
    lr: float | None = None
    keeps_zeros = True

    def __post_init__(self) -> None:
        if not is_whole(self.epochs, 0):
            raise ValueError(f"epochs must be a whole number of passes from 0, not {self.epochs!r}")
        if self.lr is not None:
            check_number(self, "lr", positive=True)
        plain_counts(self)

    def train(self, tasks: Sequence[Task], trainer: Trainer) -> list[Update]:
        return trainer.steps(tasks)

    def own(self, tasks: Sequence[Task], trainer: Trainer) -> Vector:
        if not self.epochs:
            return np.stack([task.server.params for task in tasks])
        how = replace(trainer.how, epochs=self.epochs, lr=self.lr or trainer.how.lr, correction=None)
        return np.stack(ends(tasks, trainer.like(how).steps(tasks)))

    def check(self, experiment: Experiment) -> None:
        whole_network(self, experiment)


@dataclass(frozen=True)
class _Rope(Affine):
    """λ(v - w^t), where training begins at v = anchor: pull λ, and shift λ(anchor - w^t)."""

    lam: float

    def pull(self) -> float:
        return self.lam

    def shift(self, task: Task) -> Vector:
        return np.float32(self.lam) * (task.server.params - task.memory["downloaded"])


@dataclass(frozen=True)
class Ditto(PersonalTraining):
    """Two trainings on the same batches: that of FedAvg, to the bit, whose change is sent, and one of v (Li et al. 2021, alg. 1):

        v ← v - lr·(∇F_k(v) + lam·(v - w^t))        w^t: the model as it was downloaded, which does not move meanwhile

    lam = 0: v is trained alone. lam → ∞: v is the global model. lr and epochs of v are those of LocalSGD, if not said; where
    lr·lam > 1, a step would jump over the anchor, and lr is 1/lam instead. A client that was never asked has v = w^t.
    """

    lam: float = 1.0
    lr: float | None = None
    epochs: int | None = None

    def __post_init__(self) -> None:
        check_number(self, "lam")
        if self.epochs is not None and not is_whole(self.epochs, 1):
            raise ValueError(f"epochs must be a whole number of passes from 1, or None, not {self.epochs!r}")
        if self.lr is not None:
            check_number(self, "lr", positive=True)
        plain_counts(self)

    def passes(self, epochs: int, model: Any) -> float:
        return epochs + (self.epochs or epochs)

    def train(self, tasks: Sequence[Task], trainer: Trainer) -> list[Update]:
        how = trainer.how
        lr = min(self.lr or how.lr, 1 / self.lam if self.lam else np.inf)
        rope = _Rope(self.lam) if self.lam else None
        own = trainer.like(replace(how, lr=lr, epochs=self.epochs or how.epochs, correction=rope))
        begin = []
        for task in tasks:
            begin.append(replace(moved(task, _mine(task)), memory={"downloaded": task.server.params}))
        for task, start, update in zip(tasks, begin, own.steps(begin), strict=True):
            kept(task, start.server.params + update.delta)
        return trainer.steps(tasks)

    def own(self, tasks: Sequence[Task], trainer: Trainer) -> Vector:
        return np.stack([_mine(task) for task in tasks])

    def check(self, experiment: Experiment) -> None:
        whole_network(self, experiment)


@dataclass(frozen=True)
class PFedMe(PersonalTraining):
    """For each batch, `steps` of rate lr find θ near argmin f(θ) + lam/2·‖θ - w‖²; then w ← w - η·lam·(w - θ), η = LocalSGD's lr.

    θ goes on from batch to batch, begins with the model as downloaded, and stays; w is sent. The paper's β, the server's
    (1 - β)w + β·mean, is optimizer=FedAvg(lr=β). The paper's settings for MNIST: lam 15, η 0.005, lr 0.1, steps 5.
    """

    lam: float = 15.0
    lr: float = 0.1
    steps: int = 5

    def __post_init__(self) -> None:
        check_number(self, "lam")
        check_number(self, "lr", positive=True)
        if not is_whole(self.steps, 1):
            raise ValueError(f"steps must be a whole number of inner steps from 1, not {self.steps!r}")
        if self.lr * self.lam >= 2:
            raise ValueError(f"lr·lam = {self.lr * self.lam:g}: inner steps overshoot w and end further away; stay below 2")
        plain_counts(self)

    def passes(self, epochs: int, model: Any) -> float:
        return self.steps * epochs

    def train(self, tasks: Sequence[Task], trainer: Trainer) -> list[Update]:
        updates: dict[int, Update] = {}
        for place, task, part in parts_alone(tasks, trainer):
            w = torch.tensor(task.server.params)[None]                                            # (1, d)
            theta, losses = w.clone(), []
            for rows in batches(part, trainer):
                for k in range(self.steps):
                    loss, grad = gradients_at(trainer.model, theta, trainer.x[rows], trainer.y[rows])
                    losses += [float(loss)] if k == 0 else []
                    theta = theta - self.lr * (grad + self.lam * (theta - w))
                w = w - part.lr * self.lam * (w - theta)                                         # eq. 7 and line 8
            kept(task, theta[0].numpy())
            updates[place] = _update(task, w[0].numpy() - task.server.params, report(part, losses))
        return [updates[i] for i in range(len(tasks))]

    def own(self, tasks: Sequence[Task], trainer: Trainer) -> Vector:
        return np.stack([_mine(task) for task in tasks])

    def check(self, experiment: Experiment) -> None:
        whole_network(self, experiment)
        own_steps(self, experiment)
        product = experiment.training.lr * self.lam
        if product >= 2:
            raise ValueError(f"LocalSGD's lr·lam = {product:g}: w would jump over θ and end further away; choose lr below "
                             f"{2 / self.lam:g} (the paper has 0.005 for lam = 15)")


@dataclass(frozen=True)
class APFL(PersonalTraining):
    """Every step moves w by ∇f(w), and v by α∇f(v̄), v̄ = αv + (1 - α)w (Deng et al. 2020, algorithm 1).

    adaptive: α ← α - lr·⟨v - w, ∇f(v̄)⟩, kept in [0, 1], with the values before the step; else it stays as it is. The client
    answers with v̄. α = 0: that is the global model. α = 1: v is trained alone. lr of v and α: LocalSGD's, if not said.
    """

    alpha: float = 0.5
    adaptive: bool = True
    lr: float | None = None

    def __post_init__(self) -> None:
        check_number(self, "alpha", most=1.0)
        if self.lr is not None:
            check_number(self, "lr", positive=True)

    def passes(self, epochs: int, model: Any) -> float:
        return 2 * epochs

    def train(self, tasks: Sequence[Task], trainer: Trainer) -> list[Update]:
        updates: dict[int, Update] = {}
        for place, task, part in parts_alone(tasks, trainer):
            w, v = torch.tensor(task.server.params), torch.tensor(_mine(task))                    # (d,) each
            alpha, losses = float(task.memory.get("alpha", self.alpha)), []
            lr = part.lr if self.lr is None else self.lr * part.lr / trainer.how.lr
            for rows in batches(part, trainer):
                mixed = alpha * v + (1 - alpha) * w
                loss, grads = gradients_at(trainer.model, torch.stack([w, mixed]), trainer.x[rows], trainer.y[rows])
                losses.append(float(loss[0]))
                slope = float((v - w) @ grads[1])
                w, v = w - part.lr * grads[0], v - lr * alpha * grads[1]
                if self.adaptive:
                    alpha = min(max(alpha - lr * slope, 0.0), 1.0)
            if not np.isfinite(alpha):
                raise ClientFailure("its mixture is not finite: the training diverged; lower the learning rate")
            kept(task, v.numpy())
            task.memory["alpha"] = alpha
            updates[place] = _update(task, w.numpy() - task.server.params, report(part, losses))
        return [updates[i] for i in range(len(tasks))]

    def own(self, tasks: Sequence[Task], trainer: Trainer) -> Vector:
        alphas = [np.float32(task.memory.get("alpha", self.alpha)) for task in tasks]
        return np.stack([a * _mine(task) + (1 - a) * task.server.params for a, task in zip(alphas, tasks, strict=True)])

    def check(self, experiment: Experiment) -> None:
        whole_network(self, experiment)
        own_steps(self, experiment)


def _mine(task: Task) -> Any:
    """(d,): the model in the drawer, or as long as there is none the one that was downloaded."""
    mine = task.memory.get("personal", task.server.params)
    if np.shape(mine) != np.shape(task.server.params):
        raise ClientFailure(f"its drawer holds a model of {np.size(mine)} numbers, and {np.size(task.server.params)} travel")
    return mine


def _update(task: Task, delta: Vector, metrics: dict[str, float]) -> Update:
    return Update(task.client, task.server.version, delta, 1.0, {}, metrics)
