"""Federated dropout: each client is sent, trains and returns a part of the network, so messages shrink both ways."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..core import Aggregate, CompositionError, Context, Server, Update, Vector
from ..engine.models import Dense
from ..federation.interfaces import Experiment, Stage
from ..federation.stages import dense
from ..wire.layer_payloads import Submodel
from ..wire.payloads import numbers
from .feedback import Compression, check_model, refuse_unsound


@dataclass(frozen=True)
class FederatedDropout(Compression):
    """Each client of a round holds a random part of the hidden units of a dense network (Caldas et al. 2018, section 3.2).

    Of h hidden units, round((1 - rate)·h) stay, at least one: drawn for each client and version from a named stream, so
    that the choice needs no memory; the message names the units all the same. The trainer need not know: a ReLU unit whose
    weights and bias are all zero says nothing, gets no gradient and stays zero.

    The server divides each coordinate of the *sum* by the probability p that a client holds it (p is known, since the
    number of units is fixed; Horvitz & Thompson 1952). So the mean over the draws is what whole updates would have given,
    and no count has to be sent: it needs nothing but the sum. Averaging over those who hold a coordinate would be less
    noisy in small cohorts, and would need a count for each coordinate.
    """

    model: Dense
    rate: float = 0.5
    picks = True
    lengthens = True

    def __post_init__(self) -> None:
        if not 0 <= self.rate < 1:
            raise ValueError(f"rate, the share of hidden units that a client misses, must be in [0, 1), not {self.rate!r}")
        if type(self.model) is not Dense or len(self.model.sizes) < 3:
            raise ValueError(f"FederatedDropout needs dense layers with hidden units, as mlp(64, 32, 10), not {self.model!r}")

    def kept(self, ctx: Context) -> tuple[np.ndarray, ...]:
        """The hidden units of this client in this version: (units,) boolean for each hidden layer."""
        rng, out = ctx.rng("sub-model"), []
        for units, stay in zip(self.model.sizes[1:-1], self._stay(), strict=True):
            out.append(np.isin(np.arange(units), rng.choice(units, stay, replace=False)))
        return tuple(out)

    def _stay(self) -> list[int]:
        return [max(1, round((1 - self.rate) * units)) for units in self.model.sizes[1:-1]]

    def probabilities(self) -> Vector:
        """(d,) float64: how likely a client holds each coordinate."""
        sizes, stay = self.model.sizes, [self.model.sizes[0], *self._stay(), self.model.sizes[-1]]
        share = [k / units for k, units in zip(stay, sizes, strict=True)]
        parts = [
            np.full(units, p)
            for l in range(len(sizes) - 1)
            for units, p in ((sizes[l] * sizes[l + 1], share[l] * share[l + 1]), (sizes[l + 1], share[l + 1]))
        ]
        return np.concatenate(parts)

    def longest(self, bound: float, size: int) -> float:
        """The largest norm with which a client of norm `bound` enters the sum after the division by p."""
        return bound / float(self.probabilities().min())

    def down(self, server: Server, ctx: Context) -> Server:
        part: Any = self.compress(dense(server.params, "FederatedDropout"), ctx)      # decoded to (d,) on arrival
        return replace(server, params=part)

    def compress(self, x: Vector, ctx: Context) -> Submodel:
        return Submodel.cut(self.model.sizes, self.kept(ctx), x)

    def client(self, update: Update, ctx: Context) -> Update:
        return replace(update, delta=self.compress(dense(update.delta, "FederatedDropout"), ctx))

    def server(self, aggregate: Aggregate, ctx: Context) -> Aggregate:
        return replace(aggregate, total=numbers(aggregate.total) / self.probabilities())

    def check(self, experiment: Experiment) -> None:
        refuse_unsound(self, experiment)
        check_model(self, self.model, experiment)
        training = experiment.training
        for method in (training.correction, training.private, training.personal):
            if method is not None and not method.keeps_zeros:
                raise CompositionError(
                    f"{type(method).__name__} moves every coordinate, also of hidden units that the client does not hold; "
                    "use FedProx(…), or LocalSGD as it is, with FederatedDropout."
                )
        here = next(i for i, stage in enumerate(experiment.pipeline) if stage is self)
        for earlier in experiment.pipeline[:here]:
            if type(earlier).client is not Stage.client and not earlier.keeps_zeros:
                raise CompositionError(
                    f"{type(earlier).__name__} before FederatedDropout may move a part of the update to coordinates that the "
                    "client does not hold, and they are cut off; leave one of the two out. A class of your own declares "
                    "keeps_zeros = True if what is zero stays zero."
                )
