"""Federated dropout: each client is sent, trains and returns a part of the network, so messages shrink both ways."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .bits import log2_choose, pack, unpack
from .compression import Compression, check_model
from .core import Aggregate, CompositionError, Context, Server, Update, Vector
from .drift import FedProx
from .models import Dense
from .payloads import Payload, as_count, numbers, values_bound, values_formula, values_from_wire, values_to_wire
from .stages import dense


@dataclass(frozen=True, eq=False)
class Submodel(Payload):
    """A dense network of layer `sizes` of which only some hidden units exist: the weights between these, and their biases."""

    sizes: tuple[int, ...]
    kept: tuple[np.ndarray, ...]                              # for each hidden layer: (units,) boolean
    values: Any                                               # (m,) float32 in the order of the flat vector, or Quantised
    tag = "submodel"

    @classmethod
    def cut(cls, sizes: Sequence[int], kept: Sequence[np.ndarray], vector: Vector) -> Submodel:
        """The part of the whole vector (d,) that belongs to these units."""
        return cls(tuple(sizes), tuple(kept), vector[held(sizes, kept)])

    @property
    def size(self) -> int:
        return sum((inputs + 1) * outputs for inputs, outputs in zip(self.sizes, self.sizes[1:], strict=False))

    def dense(self) -> Vector:
        """(d,) with zeros where a unit is missing."""
        vector = np.zeros(self.size, dtype=np.float32)
        vector[held(self.sizes, self.kept)] = numbers(self.values)
        return vector

    def to_wire(self) -> list[Any]:
        flags = pack(np.concatenate([np.zeros(0, bool), *self.kept]), 1)
        return [self.tag, list(self.sizes), flags, values_to_wire(self.values)]

    @classmethod
    def from_wire(cls, wire: Sequence[Any]) -> Submodel:
        _, sizes, flags, sent = wire
        if not isinstance(sizes, list) or len(sizes) < 2 or min(as_count(size) for size in sizes) < 1:
            raise ValueError(f"{sizes!r} are not the sizes of layers")
        ends = np.cumsum([0, *sizes[1:-1]])
        units = unpack(flags, 1, int(ends[-1])).astype(bool)
        kept = tuple(units[a:b] for a, b in zip(ends, ends[1:], strict=False))
        there = [sizes[0], *(int(k.sum()) for k in kept), sizes[-1]]
        values = values_from_wire(sent)
        if values.size != sum((a + 1) * b for a, b in zip(there, there[1:], strict=False)):
            raise ValueError(f"{values.size} values for layers of {there} units")
        return cls(tuple(sizes), kept, values)

    def formula(self) -> float:
        """The numbers that are held, and a bit for each hidden unit."""
        return values_formula(self.values) + sum(self.sizes[1:-1]) / 8

    def bound(self) -> float:
        return values_bound(self.values) + sum(log2_choose(k.size, int(k.sum())) for k in self.kept) / 8


def held(sizes: Sequence[int], kept: Sequence[np.ndarray]) -> np.ndarray:
    """(d,) boolean: the coordinates between units that are kept. Inputs and outputs all are."""
    units = [np.ones(sizes[0], bool), *kept, np.ones(sizes[-1], bool)]
    layers = zip(units, units[1:], strict=False)
    return np.concatenate([part for before, after in layers for part in (np.outer(after, before).ravel(), after)])


@dataclass(frozen=True)
class FederatedDropout(Compression):
    """Each client of a round holds a random part of the hidden units of a dense network (Caldas et al. 2018, section 3.2).

    Of h hidden units, round((1 - rate)·h) stay, at least one: drawn for each client and version from a named stream, so
    that the choice needs no memory; the message names the units all the same. With `down`, the sub-model alone is sent
    and trained. The trainer need not know: a ReLU unit whose weights and bias are zero says nothing, gets no gradient
    and stays zero.

    The server divides each coordinate of the *sum* by the probability p that a client holds it (p is known, since the
    number of units is fixed; Horvitz & Thompson 1952). So the mean over the draws is what whole updates would have given,
    and no count has to be sent: it needs nothing but the sum. Averaging over those who hold a coordinate would be less
    noisy in small cohorts, and would need a count for each coordinate.
    """

    model: Dense
    rate: float = 0.5
    down_too: bool = True
    lengthens = True

    def __post_init__(self) -> None:
        if not 0 <= self.rate < 1:
            raise ValueError(f"rate must be in [0, 1): the share of hidden units that a client misses, not {self.rate!r}")
        if type(self.model) is not Dense or len(self.model.sizes) < 3:
            raise ValueError(f"federated dropout needs hidden units between dense layers, such as mlp(64, 32, 10), not {self.model!r}")

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

    def down(self, server: Server, ctx: Context) -> Server:
        return replace(server, params=self.compress(dense(server.params, "FederatedDropout"), ctx)) if self.down_too else server

    def compress(self, x: Vector, ctx: Context) -> Submodel:
        return Submodel.cut(self.model.sizes, self.kept(ctx), x)

    def client(self, update: Update, ctx: Context) -> Update:
        return replace(update, delta=self.compress(dense(update.delta, "FederatedDropout"), ctx))

    def server(self, aggregate: Aggregate, ctx: Context) -> Aggregate:
        return replace(aggregate, total=numbers(aggregate.total) / self.probabilities())

    def check(self, experiment: Any) -> None:
        Compression.check(self, experiment)
        check_model(self, self.model, experiment)
        correction = experiment.training.correction
        if correction is not None and not isinstance(correction, FedProx):
            raise CompositionError(
                f"{type(correction).__name__} moves every coordinate of a client, also those of hidden units that the client "
                "does not hold; use FedProx(…) or no correction with FederatedDropout."
            )
