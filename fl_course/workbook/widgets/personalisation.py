"""The explorer of lesson 8: what stays at home, how long is fine-tuned, on how tight a rope; and who is better off than alone."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np

from ...core import Server, Task, Vector, stream
from ...data.federated import FederatedData
from ...data.partition import Dirichlet, Shards, Writers
from ...data.sources import mnist
from ...drift.methods import FedProx
from ...engine.local import LocalSGD
from ...engine.models import mlp
from ...engine.training import Trainer
from ...federation.coordinator import Coordinator
from ...federation.evaluation import Evaluation
from ...federation.schedule import Synchronous
from ...personalisation.evaluation import measure_each, own_models
from ...personalisation.layers import FedPer
from ...personalisation.split import Split
from .charts import BarChart, Chart
from .controls import Choice, Steps
from .explorer import Explorer
from .points import Point

CLIENTS, FRACTION, ROUNDS, TENTH = 50, 0.2, 50, 5          # the set-up of the lesson's text: same data, model and training
DEALS = {"own taste": Dirichlet(0.15), "own hand": Writers(), "two digits": Shards(2)}
LAYERS = {"none": (), "the last": ("dense1",), "the first": ("dense0",)}
MODEL, LR, BATCH = mlp(784, 64, 10), 0.1, 10
SHOWN = {1, 2, 3, *range(5, ROUNDS + 1, 5)}                # the rounds after which everybody is measured
LOW = tuple(range(50, 100, 5))                             # lower ends of the bins, in per cent; what is below 50 goes to "< 50"


@lru_cache(maxsize=len(DEALS))
def clients(deal: str) -> FederatedData:
    """4,000 images among 50 clients: 40 to train on and 40 to test with, each."""
    return mnist().partition(DEALS[deal], CLIENTS, seed=0, test_fraction=0.5)


def at_home(data: FederatedData, models: Vector, epochs: int, lam: float = 0.0) -> Vector:
    """(K, d): each client's model (K, d) after so many epochs at home, on a rope of strength lam to where it began.

    The rope makes the loss steeper, by lam, so the steps are smaller by 1 + lam.
    """
    how = LocalSGD(LR / (1 + lam), epochs, BATCH, correction=FedProx(lam) if lam else None)
    tasks = [Task(client, Server(own)) for client, own in zip(data.ids, models, strict=True)]
    return models + np.stack([update.delta for update in Trainer(how, MODEL, data).train(tasks)])


@lru_cache(maxsize=len(DEALS))
def alone(deal: str) -> np.ndarray:
    """(K,) accuracies of clients that train alone, for as many epochs as the federation gives a client on average."""
    data = clients(deal)
    start = np.tile(MODEL.init(stream(0, "init")), (CLIENTS, 1))
    return measure_each(MODEL, at_home(data, start, round(2 * FRACTION * ROUNDS)), data)


def bars(each: np.ndarray) -> list[tuple[str, float]]:
    """How many clients have an accuracy from 50, 55 … 95 per cent, or below 50."""
    counts = np.histogram(100 * each + 1e-9, bins=[0, *LOW, 101])[0]
    return list(zip(("< 50", *map(str, LOW)), counts.astype(float), strict=True))


def personalisation(deal: str, layers: str, epochs: int, lam: float) -> Iterator[Point]:
    """Everybody's own model on its own tests while a federation trains. layers: at home; epochs, lam: of the fine-tuning."""
    data, without = clients(deal), alone(deal)
    split = Split(MODEL, personal=LAYERS[layers])
    how = LocalSGD(LR, 2, BATCH, personal=FedPer())        # with no layer at home it is FedAvg
    fed = Coordinator(data, split, how, Synchronous(FRACTION), evaluation=Evaluation(every=2 * ROUNDS))
    for state, record in fed.run(ROUNDS):
        if record.version not in SHOWN:
            continue
        models = own_models(fed, state)
        each = measure_each(MODEL, at_home(data, models, epochs, lam) if epochs else models, data)
        mean, worst = each.mean(), np.sort(each)[:TENTH].mean()
        sent = sum(record.bytes_up.values()) / len(record.clients)
        yield Point(
            lines={"own models, mean": (record.version, mean), "own models, worst tenth": (record.version, worst),
                   "local only, mean": (record.version, without.mean()),
                   "local only, worst tenth": (record.version, np.sort(without)[:TENTH].mean())},
            bars={"own models": bars(each), "local only": bars(without)},
            text=f"After round {record.version}: {mean:.1%} on the clients' own tests, {worst:.1%} in the worst tenth; "
                 f"{np.sum(each > without)} of {CLIENTS} clients are better off than alone, {np.sum(each < without)} worse. "
                 f"A client sends {sent:,.0f} bytes a round.",
        )  # fmt: skip


def personalisation_explorer() -> Explorer:
    """Lesson 8: which layers are personal, how many epochs of fine-tuning, how tight the rope to what was downloaded."""
    for deal in DEALS:
        alone(deal)                                        # so that a move to another deal need not wait for it
    return Explorer(
        personalisation,
        controls=[
            Choice("deal", tuple(DEALS), label="the clients differ in"),
            Choice("layers", tuple(LAYERS), label="layers at home"),
            Steps("epochs", (0, 1, 2, 5, 10, 20), 0, "fine-tuning", "epochs"),
            Steps("lam", (0.0, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0), 0.0, "rope λ meanwhile"),
        ],
        charts=[
            BarChart("clients by the accuracy of their model", x="accuracy from … %", y="clients", y_range=(0, None),
                     series=("own models", "local only")),
            Chart("by round", x="round", y="accuracy", x_range=(0, ROUNDS), y_range=(0, 1),
                  lines=("own models, mean", "own models, worst tenth", "local only, mean", "local only, worst tenth")),
        ],
        title=f"A model for each of {CLIENTS} clients, {round(FRACTION * CLIENTS)} a round: retrained as you move",
    )
