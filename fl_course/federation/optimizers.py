"""The server's step: the mean delta is a pseudo-gradient, and any first-order optimiser can follow it.

Reddi et al. (2021), "Adaptive federated optimization", algorithm 2: no bias correction, and τ stands outside the root.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..core import Aggregate, Server, Vector
from .interfaces import ServerOptimizer


def _positive(**numbers: float) -> None:
    for name, value in numbers.items():
        if not (value > 0 and math.isfinite(value)):
            raise ValueError(f"{name} must be positive and finite, not {value!r}")


def _fraction(**numbers: float) -> None:
    for name, value in numbers.items():
        if not 0 <= value < 1:
            raise ValueError(f"{name} must be in [0, 1), not {value!r}")


def _moment(server: Server, name: str, start: float = 0.0) -> Vector:
    return server.state.get(name, np.full_like(server.params, start))


def broken(before: Server, after: Server, broadcast: Mapping[str, Vector]) -> str:
    """Why this step must not be taken, in words, or "": the model, or something new beside it, is infinite or NaN.

    broadcast: what the stages add to server.extras.
    """
    if not isinstance(after, Server) or np.shape(after.params) != before.params.shape:
        given = f"params of shape {np.shape(after.params)}" if isinstance(after, Server) else repr(after)
        raise TypeError(f"the server's step gave {given} where a Server with params {before.params.shape} was expected")
    new: dict[str, Any] = {"the model": after.params}
    pairs: list[tuple[Mapping[str, Any], Mapping[str, Any]]]
    pairs = [(before.extras, after.extras), (before.state, after.state), ({}, broadcast)]
    for old, now in pairs:
        new |= {repr(name): value for name, value in now.items() if value is not old.get(name)}
    for name, value in new.items():
        if isinstance(value, np.ndarray) and value.dtype.kind == "f" and not np.isfinite(value).all():
            return (
                f"the server's step from version {before.version} would make {name} infinite or NaN, so it is not taken and "
                "the model stays as it was; lower the server's or the clients' learning rate, or bound the updates"
            )
    return ""


@dataclass(frozen=True)
class FedAvg(ServerOptimizer):
    """x ← x + lr·Δ. With lr = 1 this is the average of the local models (McMahan et al. 2017)."""

    lr: float = 1.0

    def __post_init__(self) -> None:
        _positive(lr=self.lr)

    def step(self, server: Server, aggregate: Aggregate) -> Server:
        return replace(server, params=server.params + np.float32(self.lr) * aggregate.mean)


@dataclass(frozen=True)
class FedAvgM(ServerOptimizer):
    """m ← β·m + Δ; x ← x + lr·m: server momentum (Hsu et al. 2019). β = 0 is FedAvg."""

    lr: float = 1.0
    momentum: float = 0.9

    def __post_init__(self) -> None:
        _positive(lr=self.lr)
        _fraction(momentum=self.momentum)

    def step(self, server: Server, aggregate: Aggregate) -> Server:
        m = np.float32(self.momentum) * _moment(server, "m") + aggregate.mean
        return replace(server, params=server.params + np.float32(self.lr) * m, state={**server.state, "m": m})


@dataclass(frozen=True)
class AdaptiveOptimizer(ServerOptimizer):
    """m ← β1·m + (1 - β1)·Δ; v ← (by rule, below); x ← x + lr·m / (√v + τ). Abstract: use one of the three below."""

    lr: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.99
    tau: float = 1e-3

    def __post_init__(self) -> None:
        _positive(lr=self.lr, tau=self.tau)
        _fraction(beta1=self.beta1, beta2=self.beta2)

    def second_moment(self, v: Vector, delta: Vector) -> Vector:
        """v (d,) after this round's mean delta (d,): all that tells the three apart."""
        raise NotImplementedError

    def step(self, server: Server, aggregate: Aggregate) -> Server:
        delta = aggregate.mean
        m = np.float32(self.beta1) * _moment(server, "m") + np.float32(1 - self.beta1) * delta
        v = self.second_moment(_moment(server, "v", self.tau**2), delta).astype(np.float32)      # v begins at τ²
        step = np.float32(self.lr) * m / (np.sqrt(v) + np.float32(self.tau))
        return replace(server, params=server.params + step.astype(np.float32), state={**server.state, "m": m, "v": v})


@dataclass(frozen=True)
class FedAdagrad(AdaptiveOptimizer):
    """v ← v + Δ². The paper uses β1 = 0 with it."""

    beta1: float = 0.0

    def second_moment(self, v: Vector, delta: Vector) -> Vector:
        return v + delta**2


@dataclass(frozen=True)
class FedAdam(AdaptiveOptimizer):
    """v ← β2·v + (1 - β2)·Δ²."""

    def second_moment(self, v: Vector, delta: Vector) -> Vector:
        return np.float32(self.beta2) * v + np.float32(1 - self.beta2) * delta**2


@dataclass(frozen=True)
class FedYogi(AdaptiveOptimizer):
    """v ← v - (1 - β2)·Δ²·sign(v - Δ²): v shrinks slowly even when the gradients vanish at once."""

    def second_moment(self, v: Vector, delta: Vector) -> Vector:
        return v - np.float32(1 - self.beta2) * delta**2 * np.sign(v - delta**2)
