"""IFCA (Ghosh et al. 2020): k models for k kinds of client, and nobody says who is of which kind.

    Coordinator(data, Clusters(mlp(784, 64, 10), k=4), LocalSGD(lr=0.1, personal=IFCA()))

Every client is sent all k models (they are the vector that travels, so the downlink counts them), takes the one with the least
loss on its training examples, and trains that one. The server averages the answers to each model among themselves.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from ..core import Aggregate, CompositionError, Context, Server, Task, Update, Vector, is_whole, plain_counts, stream
from ..data.federated import FederatedData
from ..engine.models import Layers, Model, Tensor
from ..engine.training import Trainer
from ..federation.coordinator import Coordinator
from ..federation.interfaces import Experiment, PersonalTraining, Stage
from ..federation.stages import dense
from ..wire.payloads import Sparse, numbers
from .evaluation import tasks_for
from .rules import no_answers
from .split import moved
from .steps import examples_of, loss_at


@dataclass(frozen=True)
class Clusters(Model):
    """k networks in one vector (k·d,), one after the other.

    They begin differently, the first as the network itself would. If they began alike, everybody would choose the first, and the
    others would never move.
    """

    model: Model
    k: int = 2

    def __post_init__(self) -> None:
        if not isinstance(self.model, Model) or self.model.whole is not self.model:
            raise TypeError(f"Clusters takes a network such as mlp(64, 32, 10), not {self.model!r}")
        if not is_whole(self.k, 1):
            raise ValueError(f"k must be a whole number of models from 1, not {self.k!r}")
        plain_counts(self)
        object.__setattr__(self, "loss", self.model.loss)
        object.__setattr__(self, "speaks", self.k == 1)

    @property
    def whole(self) -> Model:
        return self.model

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {f"{j}.{name}": shape for j in range(self.k) for name, shape in self.model.shapes().items()}

    def init(self, rng: np.random.Generator) -> Vector:
        """(k·d,): k draws; where the network always begins with the same numbers, they change places within their layer."""
        starts = [self.model.init(rng) for _ in range(self.k)]
        for start in starts[1:]:
            if np.array_equal(start, starts[0]):
                for where in self.model.slices().values():
                    start[where] = rng.permutation(start[where])
        return np.concatenate(starts)

    def logits(self, layers: Layers, x: Tensor) -> Tensor:
        if self.k > 1:
            raise ValueError(f"{self!r} is {self.k} models; own_models(experiment, state) has each client choose one")
        return self.model.logits({name.removeprefix("0."): view for name, view in layers.items()}, x)

    def check(self, data: FederatedData) -> None:
        self.model.check(data)

    def each(self, params: Vector) -> Vector:
        """(k, d): the networks by themselves."""
        return params.reshape(self.k, -1)


@dataclass(frozen=True)
class PerCluster(Stage):
    """Says which model an answer is about, and divides each block of the sum by the weight of those who answered about it:
    θ_j ← θ_j + Σ n_i·Δ_i / Σ n_i over the clients of cluster j (IFCA, option II, model averaging)."""

    keeps_zeros = True

    def client(self, update: Update, ctx: Context) -> Update:
        clusters, chosen = ctx.experiment.model, int(ctx.memory.get("cluster", 0))
        counts = np.zeros(clusters.k, dtype=np.float32)
        counts[chosen] = update.weight
        if "residual" in ctx.memory:                    # what waits for a model that it does not train now is of no use to that
            kept = np.zeros_like(clusters.each(ctx.memory["residual"]))
            kept[chosen] = clusters.each(ctx.memory["residual"])[chosen]
            ctx.memory["residual"] = kept.ravel()
        return replace(update, delta=self._packed(update.delta, chosen, ctx), extras={**update.extras, "clusters": counts})

    def sends(self, example: Update, ctx: Context) -> Update:
        return self.client(example, replace(ctx, memory={}))

    def _packed(self, delta: Vector, chosen: int, ctx: Context) -> Sparse | Vector:
        """Only the model that was trained travels, if no later stage needs the vector as numbers."""
        experiment, delta = ctx.experiment, dense(delta, "IFCA")
        if not isinstance(experiment.pipeline[-1], PerCluster):
            return delta
        d = delta.size // experiment.model.k
        where = np.arange(chosen * d, chosen * d + d)
        return Sparse(delta.size, where, delta[where])

    def doubts(self, update: Update, ctx: Context) -> str:
        counts, delta = update.extras["clusters"], numbers(update.delta)
        amiss = abs(float(counts.sum()) - update.weight)
        if (counts < 0).any() or (counts > 0).sum() > 1 or amiss > 1e-3 * update.weight:
            return f"it counts {counts.tolist()} for its models, and weighs {update.weight:g}"
        if delta.reshape(len(counts), -1)[counts == 0].any():
            return "it changes a model that it did not choose"
        return ""

    def server(self, aggregate: Aggregate, ctx: Context) -> Aggregate:
        counts = aggregate.extras["clusters"].astype(np.float64) * len(ctx.arrived)               # Σ n_i of each model
        blocks = np.array(numbers(aggregate.total), dtype=np.float64).reshape(len(counts), -1)
        share = np.divide(aggregate.weight, counts, out=np.zeros_like(counts), where=counts > 0)
        if len(counts) == 1:
            share[:] = 1                                                           # to the bit
        for j, n in enumerate(counts):
            ctx.meter.notes[f"cluster_{j}"] = n / counts.sum() if counts.sum() > 0 else float("nan")
        return replace(aggregate, total=(blocks * share[:, None]).ravel())

    def check(self, experiment: Experiment) -> None:
        for stage in experiment.stages:
            if stage.noisy or stage.masks or stage.shields:
                raise CompositionError(
                    f"IFCA divides the sum for each model by the weight of those who chose it, and {type(stage).__name__} must "
                    "not let the server know who or how many those are; leave one of the two out."
                )
        if not experiment.aggregation.linear:
            raise CompositionError(
                f"{experiment.aggregation!r} would compare answers about different models, coordinate by coordinate; IFCA needs "
                "a sum: WeightedMean()."
            )
        self._try_zeros(experiment)

    def _try_zeros(self, experiment: Experiment) -> None:
        """A made-up update of the first model through copies of the later stages: the others must stay as they are."""
        clusters, here = experiment.model, experiment.pipeline.index(self)
        if not isinstance(clusters, Clusters) or clusters.k == 1:
            return
        made_up = np.zeros((clusters.k, clusters.model.dim), dtype=np.float32)
        made_up[0] = 0.01 * stream(0, "trial").standard_normal(clusters.model.dim)
        server = Server(np.zeros(clusters.dim, np.float32))
        ctx = Context(experiment.seed, server, ("trial",), client="trial", experiment=experiment)
        update = self.client(Update("trial", 0, made_up.ravel(), 1.0, {}, {"examples": 1.0, "steps": 1.0}), ctx)
        for stage in experiment.pipeline[here + 1 :]:
            try:
                update = copy.deepcopy(stage).client(update, ctx)
            except Exception:
                return                                             # its own check says why, or the first round
            if clusters.each(numbers(update.delta))[1:].any():
                raise CompositionError(
                    f"{type(stage).__name__} changes the models that a client did not choose, where its update is zero; leave it "
                    "out, or take TopK(…) or QSGD(…), which keep a zero."
                )


@dataclass(frozen=True)
class IFCA(PersonalTraining):
    """k̂ = argmin_j F_k(θ_j) over a client's training examples; it trains θ_k̂ as LocalSGD says and remembers the choice.

    With k = 1 this is FedAvg. What a round says of it: the notes cluster_0, cluster_1 …, the share of the weight that each had.
    """

    brings = (PerCluster(),)

    def passes(self, epochs: int, model: Any) -> float:
        """Looking at k models is k forward passes, a third of a training pass each."""
        return epochs + model.k / 3

    def train(self, tasks: Sequence[Task], trainer: Trainer) -> list[Update]:
        starts = _chosen(tasks, trainer)
        begin = [moved(task, models[j]) for task, (models, j) in zip(tasks, starts, strict=True)]
        updates = trainer.like(trainer.how).steps(begin)
        answers = []
        for task, update, (models, j) in zip(tasks, updates, starts, strict=True):
            task.memory["cluster"] = j
            delta = np.zeros(np.shape(models), dtype=np.float32)
            delta[j] = update.delta
            answers.append(replace(update, delta=delta.ravel()))
        return answers

    def own(self, tasks: Sequence[Task], trainer: Trainer) -> Vector:
        return np.stack([models[j] for models, j in _chosen(tasks, trainer)])

    def check(self, experiment: Experiment) -> None:
        if not isinstance(experiment.model, Clusters):
            raise CompositionError(f"IFCA sends several models to choose from: model=Clusters({experiment.model!r}, k=…).")
        if experiment.training.correction is not None:
            raise CompositionError(
                f"IFCA trains one model of several, but {experiment.training.correction!r} speaks of one vector on both sides; "
                "leave the correction out."
            )
        no_answers(experiment)


def _chosen(tasks: Sequence[Task], trainer: Trainer) -> list[tuple[list[Vector], int]]:
    """For each task the k models that it was sent, (d,) each, and which of them suits it best; the first if several do."""
    clusters: Any = trainer.travels
    sent = {id(task.server.params): list(clusters.each(task.server.params)) for task in tasks}
    out = []
    for task in tasks:
        models = sent[id(task.server.params)]
        x, y = examples_of(task, trainer)
        with torch.no_grad():
            losses = loss_at(trainer.model, torch.from_numpy(np.stack(models)), x, y).numpy()
        out.append((models, int(np.argmin(np.where(np.isnan(losses), np.inf, losses)))))
    return out


def assignments(experiment: Coordinator, state: object) -> np.ndarray:
    """(K,) int64: the model that each client would choose now; -1 for one without training examples."""
    tasks, rows, trainer = tasks_for(experiment, state, experiment.data)
    chosen = np.full(len(experiment.data), -1)
    chosen[rows] = [j for _, j in _chosen(tasks, trainer)]
    return chosen
