"""Two problems whose answers are known, for the methods to find.

    points   every client estimates a point of its own, close to the others': how strong should Ditto's rope be?
    plane    every client has a line of its own in a plane that all share: who finds the plane?
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..core import Vector, is_whole, plain_counts, stream
from ..data.federated import FederatedData
from ..engine.local import LocalSGD
from ..engine.losses import Loss, SquaredError
from ..engine.models import Layers, Model, logistic
from ..federation.coordinator import Coordinator
from ..federation.evaluation import Evaluation
from ..federation.schedule import Synchronous
from ..federation.stages import Uniform
from .evaluation import own_models
from .rules import check_number
from .twins import Ditto

# --- points: Ditto's best lambda (Li et al. 2021, section 3.2 and appendix) ---------------------------------------------------


@dataclass(frozen=True)
class HalfSquares(SquaredError):
    """½‖output - target‖², whose gradient is output - target: the loss of the point estimation."""

    def each(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return 0.5 * (outputs - targets).square().sum(-1)


@dataclass(frozen=True)
class Points:
    """Client k has n examples y ~ N(θ_k, σ²), with θ_k ~ N(0, τ²) for the honest and N(0, τ_a²) for the m malicious ones; in
    `dim` independent problems at once, so that one run shows a mean over draws. All that a model can learn is its bias."""

    clients: int = 16
    examples: int = 30
    sigma: float = 0.8
    tau: float = 0.1
    malicious: int = 0
    tau_a: float = 0.5
    dim: int = 2000
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("clients", 2), ("examples", 1), ("malicious", 0), ("dim", 1), ("seed", 0)):
            if not is_whole(getattr(self, name), least):
                raise ValueError(f"{name} must be a whole number from {least}, not {getattr(self, name)!r}")
        if self.malicious >= self.clients:
            raise ValueError(f"malicious = {self.malicious} of {self.clients} clients; somebody must be honest")
        for name in ("sigma", "tau", "tau_a"):
            check_number(self, name, positive=True)
        plain_counts(self)

    def best(self) -> float:
        """λ* = (σ²/n)·K / (Kτ² + m(τ_a² - τ²)/(K - 1))."""
        K, rest = self.clients, self.malicious * (self.tau_a**2 - self.tau**2) / (self.clients - 1)
        return self.sigma**2 / self.examples * K / (K * self.tau**2 + rest)

    def centres(self) -> np.ndarray:
        """(K, dim): the θ_k, the malicious ones last."""
        spread = np.full(self.clients, self.tau)
        spread[self.clients - self.malicious :] = self.tau_a
        return stream(self.seed, "points", "centres").standard_normal((self.clients, self.dim)) * spread[:, None]

    def data(self) -> FederatedData:
        noise = stream(self.seed, "points", "noise").standard_normal((self.clients, self.examples, self.dim))
        y = (self.centres()[:, None] + self.sigma * noise).reshape(-1, self.dim)
        rows = tuple(np.split(np.arange(len(y)), self.clients))
        none = tuple(rows[0][:0] for _ in rows)
        return FederatedData("points", np.zeros((len(y), 1)), y, 0, tuple(range(self.clients)), rows, none)

    def experiment(self, lam: float) -> Coordinator:
        """Ditto on it: full batches and enough steps for both trainings to come to rest."""
        ditto = Ditto(lam, lr=min(0.5, 0.9 / (1 + lam)), epochs=12)
        training = LocalSGD(lr=0.5, epochs=8, batch_size=None, personal=ditto)
        model, seldom = logistic(1, self.dim, loss=HalfSquares()), Evaluation(every=100)
        return Coordinator(self.data(), model, training, Synchronous(1.0), weights=Uniform(), evaluation=seldom)

    def error(self, lam: float, rounds: int = 3) -> float:
        """The mean of (v_k - θ_k)² over honest clients and problems, of the models that Ditto has found."""
        experiment = self.experiment(lam)
        bias = own_models(experiment, experiment.train(rounds))[:, self.dim :]              # the weights meet a zero
        honest = self.clients - self.malicious
        return float(((bias - self.centres())[:honest] ** 2).mean())

    def found(self, lams: Sequence[float] | None = None) -> tuple[float, np.ndarray, np.ndarray]:
        """The λ with the least error, and the curve: λ (L,), errors (L,). Between the points of the grid a parabola decides."""
        grid = np.geomspace(self.best() / 3, self.best() * 3, 9) if lams is None else np.array(lams, float)
        errors = np.array([self.error(float(lam)) for lam in grid])
        i = int(np.clip(errors.argmin(), 1, len(grid) - 2))
        a, b, _ = np.polyfit(np.log(grid[i - 1 : i + 2]), errors[i - 1 : i + 2], 2)
        return math.exp(-b / (2 * a)), grid, errors


# --- a shared plane: FedRep's linear model (Collins et al. 2021, section 5.1) --------------------------------------------------


@dataclass(frozen=True)
class TwoLayers(Model):
    """y = head·base·x, without biases: base.weight (rank, dim), head.weight (1, rank)."""

    dim_in: int = 20
    rank: int = 2
    loss: Loss = SquaredError()

    def __post_init__(self) -> None:
        for name in ("dim_in", "rank"):
            if not is_whole(getattr(self, name), 1):
                raise ValueError(f"{name} must be a whole number from 1, not {getattr(self, name)!r}")
        plain_counts(self)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {"base.weight": (self.rank, self.dim_in), "head.weight": (1, self.rank)}

    def logits(self, layers: Layers, x: Tensor) -> Tensor:
        return torch.bmm(torch.bmm(x, layers["base.weight"].transpose(1, 2)), layers["head.weight"].transpose(1, 2))


def plane(
    clients: int = 100, dim: int = 20, rank: int = 2, examples: int = 10, seed: int = 0
) -> tuple[FederatedData, np.ndarray]:
    """Client k has y = ⟨B·w_k, x⟩, x ~ N(0, I), w_k ~ N(0, I) its own, B (dim, rank) orthonormal, everybody's. Data, and B."""
    rng = stream(seed, "plane")
    basis, _ = np.linalg.qr(rng.standard_normal((dim, rank)))
    heads = rng.standard_normal((clients, rank))
    x = rng.standard_normal((clients, examples, dim))
    y = np.einsum("kni,ir,kr->kn", x, basis, heads)
    rows = tuple(np.split(np.arange(clients * examples), clients))
    none = tuple(part[:0] for part in rows)
    return FederatedData("plane", x.reshape(-1, dim), y.reshape(-1, 1), 0, tuple(range(clients)), rows, none), basis


def angle(one: Vector, other: Vector) -> float:
    """The sine of the largest principal angle between the spans of the columns (d, r) of two matrices: 0, they are the same."""
    q1, q2 = (np.linalg.qr(np.asarray(columns, float))[0] for columns in (one, other))
    return float(np.linalg.norm(q2 - q1 @ (q1.T @ q2), 2))
