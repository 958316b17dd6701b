"""PowerSGD: instead of each weight matrix two thin factors, found by a power iteration that goes on from round to round."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .compression import Compression, check_model
from .core import Context, Vector, stream
from .models import Model
from .payloads import Payload


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


@dataclass(frozen=True)
class PowerSGD(Compression):
    """Each (m, n) matrix M of the update as P·Qᵀ of rank r: 4r(m + n) bytes (Vogels et al. 2019, algorithm 1).

    One step of power iteration, P ← M·Q made orthonormal, Q ← Mᵀ·P, starts from the Q of the client's last round, which
    waits in its drawer: what keeps coming is found better from round to round, and the residual brings the rest back.
    The paper averages M·Q and Mᵀ·P over the workers in two all-reduces; a server that hears each client once gets the
    product of that client's own factors. Convolutions count as (out, rest) matrices; biases, and matrices that the
    factors would not make smaller, travel whole.
    """

    model: Model                                              # it says where the matrices lie
    rank: int = 2
    feedback: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.rank, int) or isinstance(self.rank, bool) or self.rank < 1:
            raise ValueError(f"rank must be a whole number from 1, not {self.rank!r}")

    def compress(self, x: Vector, ctx: Context) -> LowRank:
        before = ctx.memory.get("factors", {})
        parts: list[Any] = []
        after: dict[str, Vector] = {}
        for name, shape in self.model.shapes().items():
            m, n = (shape[0], math.prod(shape[1:])) if len(shape) > 1 else (math.prod(shape), 1)
            matrix = x[self.model.slices()[name]].reshape(m, n)
            if self.rank * (m + n) >= m * n:
                parts.append(matrix.ravel())
                continue
            q = before.get(name)
            if q is None:                                     # the same for all clients; any q not orthogonal to M will do
                q = stream(ctx.seed, "powersgd", name).standard_normal((n, self.rank)).astype(np.float32)
            p = np.linalg.qr(matrix @ q)[0]
            after[name] = matrix.T @ p
            parts.append((np.ascontiguousarray(p), after[name]))
        ctx.memory["factors"] = after
        return LowRank(tuple(parts))

    def check(self, experiment: Any) -> None:
        Compression.check(self, experiment)
        check_model(self, self.model, experiment)
