"""How good is the model, for everybody and for each: accuracy, loss, fairness, drift."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..core import Meter, Server, Update, Vector
from ..data.federated import FederatedData
from ..engine.models import Model
from ..wire.messages import encode_model, frame, unframe


@dataclass(frozen=True)
class Evaluation:
    """Measured every `every` rounds on the held-out examples, by an observer who sees everything and sends nothing.

    federated=True measures the per-client accuracies as a real federation would: every client with test examples
    downloads the model and sends back how many it has and its accuracy on them. These messages are encoded, decoded and
    counted under the purpose "evaluation".
    """

    every: int = 1
    federated: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.every, int) or self.every < 1:
            raise ValueError(f"every must be a whole number of rounds from 1, not {self.every}")

    def due(self, version: int) -> bool:
        return version % self.every == 0

    def measure(self, model: Model, data: FederatedData, server: Server, meter: Meter) -> dict[str, float]:
        """accuracy and loss (nats) on the global held-out set, and the spread of the accuracy over clients' own tests."""
        accuracy, loss = score(model, server.params, data.x_test, data.y_test)
        accuracies = client_accuracy(model, server.params, data)
        if self.federated:
            accuracies = _ask_clients(accuracies, data, server, meter)
        return {"accuracy": accuracy, "loss": loss, **fairness(accuracies)}


def _ask_clients(accuracies: np.ndarray, data: FederatedData, server: Server, meter: Meter) -> np.ndarray:
    """(K,) The same accuracies, after they have crossed the network: every message encoded, counted and decoded."""
    received = np.full(len(accuracies), np.nan)
    question = encode_model(server)
    for k, (client, part) in enumerate(zip(data.ids, data.test, strict=True)):
        if len(part):
            meter.sent_down("evaluation", len(question))
            answer = frame("evaluation", [client, server.version, len(part), float(accuracies[k])])
            meter.sent_up("evaluation", len(answer))
            received[k] = unframe(answer, "evaluation")[3]
    return received


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

    0: all agree; 1: the updates cancel out; √(1 - 1/n): n updates of one length at right angles. NaN when the server cannot
    read single updates (compressed or masked ones).
    """
    if not updates or any(not isinstance(u.delta, np.ndarray) or not u.weight for u in updates):
        return float("nan")
    total, squares = np.zeros(len(updates[0].delta)), 0.0
    for u in updates:
        delta = u.delta.astype(np.float64) / u.weight
        total += delta
        squares += float(delta @ delta)
    # Σ ‖Δ_k - mean‖² = Σ ‖Δ_k‖² - ‖Σ Δ_k‖² / n, which needs no second pass.
    return math.sqrt(max(0.0, 1 - float(total @ total) / (len(updates) * squares))) if squares > 0 else 0.0


def training_metrics(updates: Sequence[Update]) -> dict[str, float]:
    """The clients' own reports, weighted by examples: mean loss over their first and their last local epoch."""
    out = {}
    for name in ("loss_first", "loss_last"):
        known = [(u.metrics[name], u.metrics["examples"]) for u in updates if {name, "examples"} <= u.metrics.keys()]
        if sum(examples for _, examples in known) > 0:
            losses, examples = zip(*known, strict=True)
            out[f"train_{name}"] = float(np.average(losses, weights=examples))
    return out
