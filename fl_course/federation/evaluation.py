"""How good is the model, for everybody and for each: accuracy, loss, fairness, drift."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..core import ClientId, Meter, Notes, Server, Update, Vector, is_whole
from ..data.federated import FederatedData
from ..engine.models import Model
from ..wire.messages import encode_model, frame, unframe
from .interfaces import Experiment

UNUSUAL = 50.0      # features that reach so far have mostly never been scaled: pixels to 255, incomes, years


@dataclass(frozen=True)
class Evaluation:
    """Measured every `every` rounds on the held-out examples, by an observer who sees everything and sends nothing. On a
    thousand of them that costs nearly as much as ten small clients' training (docs/performance.md): every=10 is for long runs.

    The model's loss says what is measured: accuracy, or for numbers to hit rmse and r2, see engine/losses.py.
    federated=True measures the clients' own tests as a real federation would: every client with test examples
    downloads the model and sends back how many it has and its accuracy (or rmse) on them. These messages are encoded,
    decoded and counted under the purpose "evaluation".
    """

    every: int = 1
    federated: bool = False

    def __post_init__(self) -> None:
        if not is_whole(self.every, 1):
            raise ValueError(f"every must be a whole number of rounds from 1, not {self.every}")
        object.__setattr__(self, "every", int(self.every))

    def due(self, version: int) -> bool:
        return version % self.every == 0

    def measure(self, model: Model, data: FederatedData, server: Server, meter: Meter) -> dict[str, float]:
        """The measure and the loss on the global held-out set, and the spread of the measure over clients' own tests."""
        loss = model.loss
        if not model.speaks:
            if server.version == self.every:
                meter.events.append("the server holds only a part of a model: own_measure(experiment, state) asks the clients'")
            return {}
        metrics = metrics_of(model, server.params, data.x_test, data.y_test)
        each = client_measure(model, server.params, data)
        if self.federated:
            each = _ask_clients(each, data, server, meter)
        if server.version == self.every:                             # once a run
            if not len(data.y_test):
                meter.events.append(f"nothing is held out (x_test), so {' and '.join(metrics)} are not measured")
            elif data.reach > UNUSUAL and loss.guesses(metrics, data.classes):
                meter.events.append(f"the features reach {data.reach:g} and the model is no better than guessing: scale your "
                                    f"features, e.g. x / {data.reach:g}")
        return {**metrics, **fairness(each, loss.measure, loss.rising)}


def _ask_clients(measured: np.ndarray, data: FederatedData, server: Server, meter: Meter) -> np.ndarray:
    """(K,) The same measures, after they have crossed the network: every message encoded, counted and decoded."""
    received = np.full(len(measured), np.nan)
    question = encode_model(server)
    for k, (client, part) in enumerate(zip(data.ids, data.test, strict=True)):
        if len(part):
            meter.sent_down("evaluation", len(question))
            answer = frame("evaluation", [client, server.version, len(part), float(measured[k])])
            meter.sent_up("evaluation", len(answer))
            received[k] = unframe(answer, "evaluation")[3]
    return received


def metrics_of(model: Model, params: Vector, x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """What one model (d,) is worth on x (N, *features), y (N,) or (N, k): the model's own measure, its mean loss, and more.

    Without examples all are NaN, and so is the loss of a model that has diverged.
    """
    if len(y) == 0:
        return {model.loss.measure: float("nan"), "loss": float("nan")}
    outputs = model.predict(params, x).astype(np.float64)
    judged, losses = model.loss.judge(outputs, y)
    measured = float(model.loss.measured(judged.mean()))
    return {model.loss.measure: measured, "loss": float(losses.mean()), **model.loss.extra(outputs, y)}


def score(model: Model, params: Vector, x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """(share of right answers, mean cross-entropy in nats); in general (the model's measure, its mean loss)."""
    metrics = metrics_of(model, params, x, y)
    return metrics[model.loss.measure], metrics["loss"]


def client_measure(model: Model, params: Vector, data: FederatedData) -> np.ndarray:
    """(K,) one model's accuracy (or rmse) on each client's own test examples; NaN for a client that has none."""
    sizes = np.array([len(part) for part in data.test])
    if sizes.sum() == 0:
        return np.full(len(sizes), np.nan)
    rows = np.concatenate(data.test)
    owner = np.repeat(np.arange(len(sizes)), sizes)
    judged, _ = model.loss.judge(model.predict(params, data.x[rows]).astype(np.float64), data.y[rows])
    with np.errstate(invalid="ignore"):
        return model.loss.measured(np.bincount(owner, weights=judged, minlength=len(sizes)) / sizes)


def fairness(measured: np.ndarray, measure: str = "accuracy", rising: bool = True) -> dict[str, float]:
    """How evenly a model serves: mean, standard deviation, and the mean of the worst tenth of the clients.

    measured: (K,), NaN for a client that measured nothing; rising: whether more is better.
    """
    known = np.sort(measured[~np.isnan(measured)])
    if len(known) == 0:
        return {}
    tenth = max(1, len(known) // 10)
    worst = known[:tenth] if rising else known[-tenth:]
    return {
        f"client_{measure}": float(known.mean()),
        f"client_{measure}_std": float(known.std()),
        f"client_{measure}_worst10": float(worst.mean()),
    }


def drift(updates: Sequence[Update]) -> float:
    """How far the clients pull apart: the root mean square of ‖Δ_k - mean Δ‖, as a share of that of ‖Δ_k‖.

    0: all agree; 1: the updates cancel out; √(1 - 1/n): n updates of one length at right angles. NaN when the server cannot
    read single updates (compressed or masked ones).
    """
    return lengths_of(updates)[0]


def lengths_of(updates: Sequence[Update]) -> tuple[float, np.ndarray]:
    """The drift, and (n,) the norms ‖Δ_k‖ per unit of weight. NaN and no norms where single updates cannot be read."""
    if not updates or any(not isinstance(u.delta, np.ndarray) or not u.weight for u in updates):
        return float("nan"), np.zeros(0)
    apart, norms = _lengths(updates, np.float32)
    sure = 0.01 < apart <= 1                                                # nearly one: float32 would show its own rounding
    return (apart, norms) if sure else _lengths(updates, np.float64)


def _lengths(updates: Sequence[Update], dtype: type) -> tuple[float, np.ndarray]:
    """The same in this precision. Σ ‖Δ_k - mean‖² = Σ ‖Δ_k‖² - ‖Σ Δ_k‖² / n, which needs no second pass. A weight that all
    have in common changes no share."""
    total: np.ndarray = np.zeros(len(updates[0].delta), dtype)
    squares, weights = np.zeros(len(updates)), np.array([u.weight for u in updates])
    common = weights[0] if (weights == weights[0]).all() else 1.0
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):    # float32 may be too short
        for k, u in enumerate(updates):
            delta: np.ndarray = np.asarray(u.delta, dtype)
            if u.weight != common:
                delta = delta / dtype(u.weight)
            total += delta
            squares[k] = delta @ delta
        whole = sum(squares.tolist())
        apart = 1 - float(total @ total) / (len(updates) * whole) if whole > 0 else 0.0
    return math.sqrt(max(0.0, apart)), np.sqrt(squares) / common


def norm_metrics(updates: Sequence[Update], clip: float) -> dict[str, float]:
    """The drift; the norm of half of the updates and of the longest, per unit of weight, and which of them that is, from 0; and
    what share of those that arrived is as long as the clip bound (NaN: none) lets it be."""
    apart, norms = lengths_of(updates)
    if not len(norms):
        return {"drift": apart}
    sent = norms * [u.weight for u in updates]
    clipped = math.nan if math.isnan(clip) else float(np.mean(sent >= clip * (1 - 1e-5)))
    longest = int(norms.argmax())
    return {"drift": apart, "update_norm": statistics.median(norms.tolist()), "update_norm_max": float(norms[longest]),
            "update_norm_at": float(longest), "clipped": clipped}  # fmt: skip


def training_metrics(updates: Sequence[Update]) -> dict[str, float]:
    """The clients' own reports, weighted by examples: mean loss over their first and their last local epoch."""
    out = {}
    for name in ("loss_first", "loss_last"):
        known = [(u.metrics[name], u.metrics["examples"]) for u in updates if {name, "examples"} <= u.metrics.keys()]
        if sum(examples for _, examples in known) > 0:
            losses, examples = zip(*known, strict=True)
            out[f"train_{name}"] = float(np.multiply(losses, examples).sum() / np.sum(examples))
    return out


def detection(removed: Sequence[ClientId], arrived: Sequence[ClientId], attackers: Sequence[ClientId]) -> dict[str, float]:
    """How well a rule found the attackers among those that arrived. precision: the share of the removed that are attackers;
    recall: the share of the attackers that were removed; NaN where there is nothing to share."""
    bad = set(attackers) & set(arrived)
    caught = len(bad & set(removed))
    return {
        "detection_precision": caught / len(removed) if removed else math.nan,
        "detection_recall": caught / len(bad) if bad else math.nan,
    }


def metrics_of_step(experiment: Experiment, after: Server, updates: Sequence[Update], meter: Meter) -> dict[str, float]:
    """What a record says in numbers: the clients' reports, what was counted and noted, and the evaluation when it is due.

    What was not measured (NaN) is left out.
    """
    norms = norm_metrics(updates, float(meter.notes.get("clip", math.nan)))
    metrics = {**training_metrics(updates), **norms, **meter.counts, **Notes(meter.notes)}
    if experiment.evaluation.due(after.version):
        measured = experiment.evaluation.measure(experiment.model, experiment.data, after, meter)
        if clash := measured.keys() & meter.notes.keys():
            raise ValueError(f"a stage notes {sorted(clash)}, which the evaluation measures: give the note another name")
        metrics |= measured
        if experiment.attack is not None:
            metrics |= Notes(experiment.attack.measure(experiment, after))
    return {name: float(value) for name, value in metrics.items() if value == value}
