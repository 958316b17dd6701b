"""How good is the model, for everybody and for each: accuracy, loss, fairness, drift."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .core import Update, Vector
from .data import FederatedData
from .models import Model


@dataclass(frozen=True)
class Evaluation:
    """Measured every `every` rounds on the held-out examples, by an observer who sees everything and sends nothing.

    federated=True measures the per-client accuracies as a real federation would: every client with test examples
    downloads the model and returns three numbers, and these messages are counted under the purpose "evaluation".
    """

    every: int = 1
    federated: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.every, int) or self.every < 1:
            raise ValueError(f"every must be a whole number of rounds from 1, not {self.every}")

    def due(self, version: int) -> bool:
        return version % self.every == 0

    def measure(self, model: Model, data: FederatedData, params: Vector) -> dict[str, float]:
        """accuracy and loss (nats) on the global held-out set, and the spread of the accuracy over clients' own tests."""
        accuracy, loss = score(model, params, data.x_test, data.y_test)
        return {"accuracy": accuracy, "loss": loss, **fairness(client_accuracy(model, params, data))}


def score(model: Model, params: Vector, x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """(share of right answers, mean cross-entropy in nats) of one model (d,) on x (N, *features), y (N,).

    Without examples both are NaN, and so is the loss of a model that has diverged.
    """
    if len(y) == 0:
        return float("nan"), float("nan")
    logits = model.predict(params, x).astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        logits -= logits.max(axis=1, keepdims=True)
        loss = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(y)), y]
    return float((logits.argmax(axis=1) == y).mean()), float(loss.mean())


def client_accuracy(model: Model, params: Vector, data: FederatedData) -> np.ndarray:
    """(K,) accuracy of one model on each client's own test examples; NaN for a client that has none."""
    sizes = np.array([len(part) for part in data.test])
    if sizes.sum() == 0:
        return np.full(len(sizes), np.nan)
    rows = np.concatenate(data.test)
    owner = np.repeat(np.arange(len(sizes)), sizes)
    right = model.predict(params, data.x[rows]).argmax(axis=1) == data.y[rows]
    with np.errstate(invalid="ignore"):
        return np.bincount(owner, weights=right, minlength=len(sizes)) / sizes


def fairness(accuracies: np.ndarray) -> dict[str, float]:
    """How evenly a model serves: mean, standard deviation, and the mean of the worst tenth of the clients."""
    known = np.sort(accuracies[~np.isnan(accuracies)])
    if len(known) == 0:
        return {}
    worst = known[: max(1, len(known) // 10)]
    return {
        "client_accuracy": float(known.mean()),
        "client_accuracy_std": float(known.std()),
        "client_accuracy_worst10": float(worst.mean()),
    }


def drift(updates: Sequence[Update]) -> float:
    """How far the clients pull apart: the root mean square of ‖Δ_k - mean Δ‖, as a share of that of ‖Δ_k‖.

    0: all agree; 1: the updates cancel out. NaN when the server cannot read single updates (compressed or masked ones).
    """
    if not updates or any(not isinstance(u.delta, np.ndarray) or not u.weight for u in updates):
        return float("nan")
    deltas = [u.delta / np.float32(u.weight) for u in updates]
    square = float(np.mean([np.dot(delta, delta) for delta in deltas]))
    mean = np.mean(deltas, axis=0)
    return float(np.sqrt(max(0.0, 1 - float(np.dot(mean, mean)) / square))) if square > 0 else 0.0


def training_metrics(updates: Sequence[Update]) -> dict[str, float]:
    """The clients' own reports, weighted by examples: mean loss over their first and their last local epoch."""
    examples = np.array([u.metrics.get("examples", 0.0) for u in updates])
    if examples.sum() == 0:
        return {}
    names = ("loss_first", "loss_last")
    return {f"train_{name}": float(np.average([u.metrics[name] for u in updates], weights=examples)) for name in names}
