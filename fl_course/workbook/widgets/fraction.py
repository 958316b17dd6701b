"""The explorers of the lessons: each a function without arguments that builds one, and the experiment behind it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from ...data.federated import FederatedData
from ...data.partition import Dirichlet
from ...data.sources import digits
from ...engine.local import LocalSGD
from ...engine.models import mlp
from ...federation.coordinator import Coordinator
from ...federation.schedule import Synchronous
from .charts import Chart
from .controls import LogSlider, Slider
from .explorer import Explorer
from .points import Point
from .recipe import By, Recipe

CLIENTS, ROUNDS = 100, 20


pool = lru_cache(maxsize=1)(digits)


@lru_cache(maxsize=8)
def digit_clients(alpha: float) -> FederatedData:
    """1,797 digits of 8 × 8 pixels among 100 clients; the smaller alpha, the fewer kinds of digit each has."""
    return pool().partition(Dirichlet(alpha), CLIENTS, seed=0)


def client_fraction(fraction: float, epochs: int, alpha: float) -> Iterator[Point]:
    """FedAvg (McMahan et al. 2017): accuracy on the held-out digits after each round, and after each megabyte."""
    federation = Coordinator(digit_clients(alpha), mlp(64, 32, 10), LocalSGD(lr=0.1, epochs=epochs, batch_size=10),
                             Synchronous(fraction=fraction))
    sent = 0                                                # bytes of the encoded messages, both ways
    for _, record in federation.run(ROUNDS):
        sent += sum(record.bytes_up.values()) + sum(record.bytes_down.values())
        accuracy = record.metrics["accuracy"]
        yield Point(
            lines={"accuracy by round": (record.version, accuracy), "accuracy by MB": (sent / 1e6, accuracy)},
            text=TEXT.format(round=record.version, accuracy=accuracy, clients=len(record.clients), MB=sent / 1e6),
        )


TEXT = ("After round {round}: {accuracy:.1%} of the held-out digits are read rightly, {clients} clients a round, "
        "{MB:.2f} MB sent in all.")
RECIPE = Recipe(
    data=By("alpha", of=digit_clients), model=mlp(64, 32, 10), rounds=ROUNDS, epochs=By("epochs"), fraction=By("fraction"),
    lines={"accuracy by round": ("round", "accuracy"), "accuracy by MB": ("MB", "accuracy")}, text=TEXT,
)  # fmt: skip


def client_fraction_explorer() -> Explorer:
    """Lesson 1: how many clients take part in a round, how long each trains, how alike their data are."""
    return Explorer(
        client_fraction,
        controls=[
            Slider("fraction", 0.05, 1.0, 0.05, value=0.1, label="client fraction C"),
            Slider("epochs", 1, 10, value=5, label="local epochs E"),
            LogSlider("alpha", 0.01, 100, 25, value=1.0, label="Dirichlet α"),
        ],
        charts=[
            Chart("accuracy by round", x="round", y="accuracy", x_range=(0, ROUNDS), y_range=(0, 1)),
            Chart("accuracy by MB", x="sent, both ways", x_unit="MB", y="accuracy",
                  x_range=(0, None), y_range=(0, 1)),
        ],
        title=f"FedAvg on handwritten digits, {CLIENTS} clients, {ROUNDS} rounds: retrained as you move",
        recipe=RECIPE,
    )
