"""Bowls: client losses ½·(w - m)ᵀA(w - m), small enough to draw, simple enough to solve, and trained by the same loop.

Everything that a federation does on them has a closed form. After E gradient steps client k has moved from x by

    delta_k = -M_k·(x - m_k),   M_k = I - (I - lr·A_k)^E,

so FedAvg stops moving where Σ M_k·(x - m_k) = 0, while the minimum of the mean loss has Σ A_k·(x - m_k) = 0. They are
the same place if M_k is proportional to A_k: with one step a round, with equal bowls, or in the limit lr → 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from ..core import ClientId, Vector, is_whole, plain_counts
from ..data.federated import FederatedData, from_clients
from ..engine.models import Layers, Model


@dataclass(frozen=True, eq=False)
class Bowls:
    """K clients with one bowl each. centres (K, p): the minima m_k; curvatures (K, p, p): A_k, symmetric, positive."""

    centres: np.ndarray
    curvatures: np.ndarray

    def __post_init__(self) -> None:
        centres, curvatures = np.asarray(self.centres, np.float64), np.asarray(self.curvatures, np.float64)
        if centres.ndim != 2 or curvatures.shape != (*centres.shape, centres.shape[-1]):
            raise ValueError(f"centres are (K, p), curvatures (K, p, p), not {centres.shape} and {curvatures.shape}")
        if not np.allclose(curvatures, curvatures.transpose(0, 2, 1)) or np.linalg.eigvalsh(curvatures).min() <= 0:
            raise ValueError("every curvature must be symmetric with positive eigenvalues, or the bowl has no minimum")
        object.__setattr__(self, "centres", centres)
        object.__setattr__(self, "curvatures", curvatures)

    def data(self) -> FederatedData:
        """The federation: client k holds one example (p + p²,), its centre and its curvature; nothing is held out."""
        x = np.concatenate([self.centres, self.curvatures.reshape(len(self.centres), -1)], axis=1).astype(np.float32)
        y = np.zeros(1, dtype=np.int64)
        owned: dict[ClientId, Any] = {k: (row[None], y) for k, row in enumerate(x)}
        return from_clients("bowls", owned, 1, x[:0], y[:0], test_fraction=0.0)

    def model(self) -> Model:
        """The point w (p,) as a model that the trainer can train."""
        return Point(self.centres.shape[1])

    def losses(self, points: np.ndarray) -> np.ndarray:
        """points (…, p) -> (K, …): each client's loss there."""
        away = points - self.centres.reshape(len(self.centres), *[1] * (np.ndim(points) - 1), -1)      # (K, …, p)
        return 0.5 * np.einsum("k...i,kij,k...j->k...", away, self.curvatures, away)

    def optimum(self) -> np.ndarray:
        """(p,): the minimum of the mean loss, Σ A_k·(x - m_k) = 0."""
        return self._rest(self.curvatures)

    def fixed_point(
        self, lr: float, steps: int | Sequence[int], mu: float = 0.0, normalised: bool = False
    ) -> np.ndarray:  # fmt: skip
        """(p,): where FedAvg stops moving after so many local gradient steps (one number, or one a client).

        mu: that of FedProx. normalised: FedNova's, every client divided by its own number of steps.
        """
        eye = np.eye(self.centres.shape[1])
        matrices = []
        for A, tau in zip(self.curvatures, np.broadcast_to(steps, len(self.centres)), strict=True):
            # The proximal bowl A + mu·I has its minimum (A + mu·I)⁻¹A·(x - m) away from x; then E steps towards it.
            M = (eye - np.linalg.matrix_power(eye - lr * (A + mu * eye), int(tau))) @ np.linalg.solve(A + mu * eye, A)
            matrices.append(M / tau if normalised else M)
        return self._rest(np.stack(matrices))

    def _rest(self, matrices: np.ndarray) -> np.ndarray:
        """x with Σ matrices_k·(x - m_k) = 0."""
        return np.linalg.solve(matrices.sum(0), np.einsum("kij,kj->i", matrices, self.centres))


def two_bowls(distance: float = 2.0, stretch: float = 8.0) -> Bowls:
    """Two clients in the plane whose minima are `distance` apart and whose valleys cross at a right angle.

    Client 0 is `stretch` times steeper along the second axis than along the first, client 1 the other way round.
    distance = 0 is the IID case, stretch = 1 the case of equal bowls.
    """
    if not (distance >= 0 and np.isfinite(distance)):
        raise ValueError(f"distance must be at least 0 and finite, not {distance}")
    if not (stretch >= 1 and np.isfinite(stretch)):
        raise ValueError(f"stretch must be at least 1 and finite, not {stretch}")
    half = distance / 2
    return Bowls(np.array([[-half, -half / 2], [half, half / 2]]) * 2 / np.sqrt(5),
                 np.array([np.diag([1.0, stretch]), np.diag([stretch, 1.0])]) / stretch)


@dataclass(frozen=True)
class Point(Model):
    """The model of `Bowls`: p numbers, beginning at 0. It has no classes; its one "logit" is minus the loss."""

    size: int

    def __post_init__(self) -> None:
        if not is_whole(self.size, 1):
            raise ValueError(f"size must be a whole number of coordinates from 1, not {self.size!r}")
        plain_counts(self)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {"point.w": (self.size,)}

    def init(self, rng: np.random.Generator) -> Vector:
        return np.zeros(self.size, dtype=np.float32)

    def losses(self, layers: Layers, x: Tensor, y: Tensor) -> Tensor:
        """x: (n, b, p + p²), a centre and a curvature each. Returns ½·(w - m)ᵀA(w - m), (n, b)."""
        away = layers["point.w"].unsqueeze(1) - x[..., : self.size]                              # (n, b, p)
        curvature = x[..., self.size :].unflatten(-1, (self.size, self.size))
        return 0.5 * (away * (curvature @ away.unsqueeze(-1)).squeeze(-1)).sum(-1)

    def logits(self, layers: Layers, x: Tensor) -> Tensor:
        return -self.losses(layers, x, x).unsqueeze(-1)
