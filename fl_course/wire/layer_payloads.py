"""Payloads that follow the layers of a model: thin factors of its matrices, and a network with units left out."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..core import Vector
from .bits import log2_choose, pack, unpack
from .payloads import (
    Payload,
    as_bytes,
    as_count,
    check_values,
    numbers,
    values_bound,
    values_formula,
    values_from_wire,
    values_to_wire,
)


@dataclass(frozen=True, eq=False)
class LowRank(Payload):
    """The vector cut into tensors, in order: each is itself, (n,), or P (m, r) and Q (n, r) for the (m, n) matrix P·Qᵀ."""

    parts: tuple[np.ndarray | tuple[np.ndarray, np.ndarray], ...]
    tag = "lowrank"

    @property
    def size(self) -> int:
        return sum(len(part[0]) * len(part[1]) if isinstance(part, tuple) else part.size for part in self.parts)

    def dense(self) -> Vector:
        parts = [(part[0] @ part[1].T).ravel() if isinstance(part, tuple) else part for part in self.parts]
        return np.concatenate([np.zeros(0, np.float32), *parts])

    def to_wire(self) -> list[Any]:
        return [self.tag, *(list(part) if isinstance(part, tuple) else part for part in self.parts)]

    @classmethod
    def from_wire(cls, wire: Sequence[Any]) -> LowRank:
        return cls(tuple(_part(part) for part in wire[1:]))

    def check(self, like: LowRank) -> None:
        mine, theirs = ([[f.shape for f in part] if isinstance(part, tuple) else part.shape for part in payload.parts]
                        for payload in (self, like))  # fmt: skip
        if mine != theirs:
            raise ValueError(f"its factors have shapes {mine}, others' have {theirs}")

    def formula(self) -> float:
        """r·(m + n) numbers for an (m, n) matrix."""
        return 4.0 * sum(sum(f.size for f in part) if isinstance(part, tuple) else part.size for part in self.parts)

    bound = formula


def _part(wire: Any) -> Any:
    """One tensor of the message, or its two factors."""
    factors = wire if isinstance(wire, list) else [wire]
    if not all(isinstance(f, np.ndarray) and f.dtype == np.float32 and np.isfinite(f).all() for f in factors):
        raise ValueError("a factor is not an array of finite float32 numbers")
    match [f.shape for f in factors]:
        case [(_,)]:
            return factors[0]
        case [(_, r), (_, s)] if r == s:
            return tuple(factors)
        case shapes:
            raise ValueError(f"arrays of shape {shapes} are neither a tensor (n,) nor factors (m, r) and (n, r)")


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
        ends = list(itertools.accumulate(sizes[1:-1], initial=0))             # Python's numbers do not overflow
        units = unpack(as_bytes(flags), 1, ends[-1]).astype(bool)
        kept = tuple(units[a:b] for a, b in itertools.pairwise(ends))
        there = [sizes[0], *(int(k.sum()) for k in kept), sizes[-1]]
        count = sum((a + 1) * b for a, b in itertools.pairwise(there))
        values = values_from_wire(sent, count)
        if values.size != count:
            raise ValueError(f"{values.size} values for layers of {there} units")
        return cls(tuple(sizes), kept, values)

    def check(self, like: Submodel) -> None:
        mine, theirs = ([payload.sizes, [int(k.sum()) for k in payload.kept]] for payload in (self, like))
        if mine != theirs:
            raise ValueError(f"it holds {mine[1]} hidden units of layers {mine[0]}, others hold {theirs[1]} of {theirs[0]}")
        check_values(self.values, like.values)

    def formula(self) -> float:
        """The numbers that are held, and a bit for each hidden unit."""
        return values_formula(self.values) + sum(self.sizes[1:-1]) / 8

    def bound(self) -> float:
        return values_bound(self.values) + sum(log2_choose(k.size, int(k.sum())) for k in self.kept) / 8


def held(sizes: Sequence[int], kept: Sequence[np.ndarray]) -> np.ndarray:
    """(d,) boolean: the coordinates between units that are kept. Inputs and outputs all are."""
    units = [np.ones(sizes[0], bool), *kept, np.ones(sizes[-1], bool)]
    layers = itertools.pairwise(units)
    return np.concatenate([part for before, after in layers for part in (np.outer(after, before).ravel(), after)])
