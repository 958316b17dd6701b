"""PowerSGD: instead of each weight matrix two thin factors, found by a power iteration that goes on from round to round."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..core import Context, Vector, is_whole, plain_counts, stream
from ..engine.models import Model
from ..federation.interfaces import Experiment
from ..wire.layer_payloads import LowRank
from .feedback import Compression, check_model, refuse_unsound


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
        if not is_whole(self.rank, 1):
            raise ValueError(f"rank must be a whole number from 1, not {self.rank!r}")
        plain_counts(self)

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

    def check(self, experiment: Experiment) -> None:
        refuse_unsound(self, experiment)
        check_model(self, self.model, experiment)
