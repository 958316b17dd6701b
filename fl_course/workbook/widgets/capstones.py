"""The explorer of lesson 10: how many hospitals share the patients of a trial, whom the noise hides, and at which ε."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache

import numpy as np

from ...core import Vector
from ...data.capstones import actg175
from ...data.federated import FederatedData
from ...data.partition import QuantitySkew
from ...engine.local import LocalSGD
from ...engine.models import logistic
from ...federation.coordinator import Coordinator
from ...federation.evaluation import Evaluation
from ...federation.schedule import Synchronous
from ...federation.stages import Uniform
from ...personalisation.evaluation import local_only, pooled
from ...privacy.accounting import RDP, noise_for_budget
from ...privacy.dpsgd import DPSGD
from ...secure_aggregation import DistributedNoise, SecureSum
from .charts import BarChart, Chart
from .controls import Choice, Steps
from .explorer import Explorer
from .points import Point

STEPS, DELTA = 20, 1e-5                                    # the set-up of the lesson's text: same data, model and training
MODEL, TRAINING = logistic(16, 2), LocalSGD(lr=0.3, epochs=1, batch_size=None)
HIDDEN = {"nobody": 1, "a patient": 1, "a hospital": 4}    # steps of a round, by whom the noise hides
PATIENTS = 1711                                            # to train on


def auc(scores: np.ndarray, labels: np.ndarray) -> float:
    """How often an example of class 1 has a higher score than one of class 0; ties count half."""
    ones, zeros = scores[labels == 1][:, None], scores[labels == 0]
    return float((ones > zeros).mean() + (ones == zeros).mean() / 2)


def worth(w: Vector, data: FederatedData) -> float:
    """The AUC of a model on the held-out patients."""
    outputs = MODEL.predict(w, data.x_test)
    return auc(outputs[:, 1] - outputs[:, 0], data.y_test)


@lru_cache(maxsize=8)
def baselines(hospitals: int) -> tuple[FederatedData, float, float]:
    """The divided patients; what a hospital reaches alone, the mean over hospitals; what one place with all patients would."""
    data = actg175().partition(QuantitySkew(2.0), hospitals, seed=0, test_fraction=0.0)
    fed = Coordinator(data, MODEL, TRAINING, Synchronous(1.0))
    return data, float(np.mean([worth(w, data) for w in local_only(fed, STEPS)])), worth(pooled(fed, STEPS), data)


def stack(data: FederatedData, hidden: str, epsilon: float) -> Coordinator:
    """The lesson's two stacks, without the masks, which change bytes and no number."""
    fed = Coordinator(data, MODEL, TRAINING, Synchronous(1.0), evaluation=Evaluation(every=STEPS))
    if hidden == "nobody":
        return fed
    z = noise_for_budget(epsilon, DELTA, STEPS // HIDDEN[hidden], accountant=RDP())
    if hidden == "a patient":
        private = DPSGD(1.0, z, "shuffle", DELTA, noise_seed=0)
        return replace(fed, training=replace(TRAINING, lr=1.0, private=private))
    noise = DistributedNoise(0.3, z, DELTA, noise_seed=0)
    sums = SecureSum(clip=2.0, masked=False, noise=noise)
    return replace(fed, training=replace(TRAINING, epochs=HIDDEN[hidden]), weights=Uniform(), stages=[sums])


def hospitals(clients: int, hidden: str, epsilon: float) -> Iterator[Point]:
    """AUC on the held-out patients by steps over the data, beside alone and pooled. hidden: whom ε protects."""
    data, alone, ideal = baselines(clients)
    for state, record in stack(data, hidden, epsilon).run(STEPS // HIDDEN[hidden]):
        now = worth(state.server.params, data)
        price = "without noise" if hidden == "nobody" else f"ε = {epsilon:g} for {hidden}"
        yield Point(
            lines={"federated": (record.version * HIDDEN[hidden], now), "alone, mean": (record.version * HIDDEN[hidden], alone),
                   "pooled": (record.version * HIDDEN[hidden], ideal)},
            bars={"AUC": [("alone", alone), ("federated", now), ("pooled", ideal)]},
            text=f"After step {record.version * HIDDEN[hidden]}, {price}: AUC {now:.3f}, alone {alone:.3f}, pooled {ideal:.3f}. "
                 f"{clients} hospitals have {data.sizes.min()} to {data.sizes.max()} patients to train on.",
        )  # fmt: skip


def hospitals_explorer() -> Explorer:
    """Lesson 10: hospitals, whom the noise hides, ε."""
    return Explorer(
        hospitals,
        controls=[
            Steps("clients", (3, 5, 10, 20, 40, 80), 10, "hospitals"),
            Choice("hidden", tuple(HIDDEN), "a patient", label="the noise hides"),
            Steps("epsilon", (0.5, 1.0, 2.0, 4.0, 8.0, 16.0), 4.0, "ε"),
        ],
        charts=[
            Chart("AUC by steps over the data", x="step", y="AUC", x_range=(0, STEPS), y_range=(0.4, 0.75),
                  lines=("federated", "alone, mean", "pooled")),
            BarChart("AUC", y="AUC on held-out patients", y_range=(0, 1)),
        ],
        title=f"{PATIENTS:,} patients of a trial in hospitals: retrained as you move",
    )
