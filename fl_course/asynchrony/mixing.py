"""FedAsync's rule: the server mixes *models*, the client's whole one into its own (Xie et al. 2019, algorithm 1).

    w ← (1 - α_t)·w + α_t·w_k        α_t = α·s(τ)        w_k = the model that client k started from + its change

That is not the same as adding α_t times the change (which is FedBuff with a buffer of one). Two clients start from
w = (0, 0); the first walks to (1, 0), the second to (0, 1), one step stale when it is used. With α = 0.6, s = (τ + 1)^-½:

    adding the stale change    (0.6, 0) + 0.424·(0, 1)              = (0.6,   0.424)
    mixing the stale model     (1 - 0.424)·(0.6, 0) + 0.424·(0, 1)  = (0.345, 0.424)

The stale model has never heard of the first client's step, and mixing it in takes part of that step back. So the server
must know what each client started from: the versions in flight, which a run keeps with its jobs (`ctx.starts`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real

import numpy as np

from ..core import Aggregate, CompositionError, Context, Update, Vector
from ..federation.aggregation import Discount, add_up, check_discount, mean_of_extras
from ..federation.interfaces import Aggregation, Correction, Experiment, Stage
from ..federation.optimizers import FedAvg
from ..privacy.local import LocalDP


def mixed(w: Vector, local: Vector, rate: float) -> Vector:
    """(1 - rate)·w + rate·local, both models (d,); rate in [0, 1]. Returns (d,) float32."""
    w, local = np.asarray(w, dtype=np.float64), np.asarray(local, dtype=np.float64)
    if w.shape != local.shape:
        raise ValueError(f"cannot mix models of shape {w.shape} and {local.shape}")
    if not 0 <= rate <= 1:
        raise ValueError(f"rate must be in [0, 1], not {rate}: a share of the new model")
    return ((1 - rate) * w + rate * local).astype(np.float32)


@dataclass(frozen=True)
class Mixing(Aggregation):
    """FedAsync (Xie et al. 2019): w ← (1 - α_t)·w + α_t·w_k with α_t = alpha·s(τ), τ counted before the version is raised.

    How many examples a client has plays no part, as published. Where several answers make one step, it is the mean of what
    each alone would mix, weighted by what the clients weigh: with alpha = 1 and fresh answers, FedAvg. The step is alpha's,
    so the optimiser is FedAvg().
    """

    alpha: float = 0.6
    discount: Discount | None = None

    def __post_init__(self) -> None:
        if isinstance(self.alpha, bool) or not isinstance(self.alpha, Real) or not 0 < self.alpha <= 1:
            raise ValueError(f"alpha must be in (0, 1], not {self.alpha!r}: the share of the client's model in the next one")
        check_discount(self.discount)

    def rate(self, staleness: int) -> float:
        """α_t of an answer that is so many server steps old."""
        return self.alpha * (1.0 if self.discount is None else self.discount(staleness))

    def combine(self, updates: Sequence[Update], staleness: Sequence[int], ctx: Context | None = None) -> Aggregate:
        """Σ α_i·(n_i·Δ_i + n_i·(start_i - w)) and Σ n_i: w plus their quotient is w mixed with every w_i = start_i + Δ_i.

        A fresh answer has start = w, and is left as it is, to the bit.
        """
        if ctx is None:
            raise ValueError("mixing needs the server's model and what each client started from: give ctx, with its starts")
        w = ctx.server.params.astype(np.float64)
        steps = []
        for update, age, start in zip(updates, staleness, ctx.starts, strict=True):
            if np.shape(update.delta) != w.shape or np.shape(start) != w.shape:
                raise ValueError(f"client {update.client!r} has a change of shape {np.shape(update.delta)} from a start of shape "
                                 f"{np.shape(start)}, the model has {w.shape}")  # fmt: skip
            steps.append(self.rate(age) * (update.delta.astype(np.float64) + update.weight * (start - w)))
        return Aggregate(add_up(steps), sum(update.weight for update in updates), mean_of_extras(updates))

    def check(self, experiment: Experiment) -> None:
        optimizer, correction = experiment.optimizer, experiment.training.correction
        if type(optimizer) is not FedAvg or optimizer.lr != 1:
            raise CompositionError(
                f"Mixing(alpha={self.alpha}) is itself the server's step, to (1 - α)·w + α·w_k, and {optimizer!r} would walk "
                "another way or a part of it; use optimizer=FedAvg() and choose alpha, or WeightedMean(Discount()) with this "
                "optimizer."
            )
        for stage in experiment.pipeline:
            _refuse_unreadable(stage)
        kind = type(correction)
        if correction is not None and (kind.absorb is not Correction.absorb or kind.sends is not Correction.sends):
            raise CompositionError(
                f"Mixing mixes models and nothing beside them, but {kind.__name__} lets the server follow the mean of *changes* "
                "of clients that started together; use FedProx(…), or WeightedMean() in synchronous rounds."
            )


def _refuse_unreadable(stage: Stage) -> None:
    """w_k = start + Δ can be added up only where what arrives is the change itself, in the numbers of the model."""
    name = type(stage).__name__
    if stage.masks or stage.noisy:
        why = "masks single changes" if stage.masks else "adds noise that is scaled to one clipped change"
        raise CompositionError(
            f"{name} {why}, but Mixing adds to each the distance from the model that its client started from, and weighs it "
            "by its age; use WeightedMean() in synchronous rounds, or leave the stage out."
        )
    if type(stage).server is not Stage.server and type(stage) is not LocalDP:           # whose server half only reports
        raise CompositionError(
            f"{name} has the server decode or change the *sum* of what arrives, but Mixing must add to each change the model "
            "that its client started from, before that; use WeightedMean(Discount()), FedBuff's rule, which adds changes."
        )
    if type(stage).down is not Stage.down:
        raise CompositionError(
            f"{name} changes the model on its way down, and Mixing would mix that change into the server's model; use "
            "WeightedMean(Discount()), FedBuff's rule, or leave the stage out."
        )
