"""The explorer of lesson 5: how much of an update is sent, in how many bits, and whether the rest is remembered."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from ...compression.feedback import wire_report
from ...compression.quantisation import QSGD, SignSGD
from ...compression.sparse import TopK
from ...core import Context, Task
from ...data.federated import FederatedData
from ...data.partition import Shards
from ...data.sources import digits
from ...engine.local import LocalSGD
from ...engine.models import mlp
from ...engine.training import Trainer
from ...federation.coordinator import Coordinator
from ...federation.interfaces import Stage
from ...federation.schedule import Synchronous
from ...federation.stages import client_half
from .charts import BarChart, Chart
from .controls import Choice, Steps, Switch
from .explorer import Explorer
from .points import Point
from .recipe import By, Recipe

CLIENTS, FRACTION, ROUNDS = 100, 0.1, 40                   # the set-up of the lesson's text: same data, model and training
MODEL = mlp(64, 64, 10)
TRAINING = LocalSGD(lr=0.2, epochs=5, batch_size=10)


@lru_cache(maxsize=1)
def two_shards() -> FederatedData:
    """1,797 handwritten digits among 100 clients with about two kinds of digit each."""
    return digits().partition(Shards(2), CLIENTS, seed=0)


def stack(ratio: float, bits: int, feedback: bool) -> list[Stage]:
    """The stages behind the controls: top-k below 100 %, then a quantiser below 32 bits; one bit is the sign."""
    sparse: list[Stage] = [TopK(ratio, feedback)] if ratio < 1 else []
    if bits == 1:
        return [*sparse, SignSGD(feedback=feedback and not sparse)]
    return [*sparse, QSGD(bits)] if bits < 32 else sparse


def one_update(experiment: Coordinator) -> dict[str, float]:
    """Bytes of the first update of client 0: by formula, at least, as encoded, and of the whole message."""
    server = experiment.initial().server
    client = experiment.clients[0]
    trainer = Trainer(experiment.training, experiment.model, experiment.data)
    update = trainer.train([Task(client, server, experiment.seed)])[0]
    report = wire_report(client_half(experiment.pipeline, update, Context(experiment.seed, server, client=client)))
    return {"formula": report["formula"], "bound": report["bound"], "encoded": report["payload"], "message": report["message"]}


def compression(percent: float, bits: int, feedback: bool) -> Iterator[Point]:
    """Accuracy on the held-out digits by round and by megabyte sent up, and what one update weighs. percent: of the numbers."""
    experiment = Coordinator(two_shards(), MODEL, TRAINING, Synchronous(FRACTION), stages=stack(percent / 100, bits, feedback))
    bars, sent = one_update(experiment), 0
    for _, record in experiment.run(ROUNDS):
        sent += sum(record.bytes_up.values())
        accuracy = record.metrics["accuracy"]
        yield Point(
            lines={"accuracy by round": (record.version, accuracy), "accuracy by MB": (sent / 1e6, accuracy)},
            bars={"bytes of one update": list(bars.items())},
            text=TEXT.format(round=record.version, accuracy=accuracy, MB_up=sent / 1e6, message=bars["message"]),
        )


TEXT = ("After round {round}: {accuracy:.1%} of the held-out digits are read rightly, {MB_up:.3f} MB sent up in all. An update "
        f"weighs {{message:,.0f}} bytes; uncompressed, its numbers alone weigh {4 * MODEL.dim:,}.")
RECIPE = Recipe(
    data=By((), of=two_shards), model=MODEL, rounds=ROUNDS, lr=TRAINING.lr, epochs=5, fraction=FRACTION,
    keep=By("percent", of=lambda percent: percent / 100), bits=By("bits"), feedback=By("feedback"),
    lines={"accuracy by round": ("round", "accuracy"), "accuracy by MB": ("MB_up", "accuracy")},
    bars={"bytes of one update": ("formula", "bound", "encoded", "message")}, text=TEXT,
)  # fmt: skip


def compression_explorer() -> Explorer:
    """Lesson 5: the share of the numbers that is sent, the bits of each, and the residual."""
    return Explorer(
        compression,
        controls=[
            Steps("percent", (0.1, 0.2, 0.3, 0.5, 1, 2, 3, 5, 10, 20, 30, 50, 100), 1, "share of the numbers sent", "%"),
            Choice("bits", (1, 2, 4, 8, 16, 32), value=32, label="bits a number"),
            Switch("feedback", True, label="error feedback"),
        ],
        charts=[
            Chart("accuracy by round", x="round", y="accuracy", x_range=(0, ROUNDS), y_range=(0, 1)),
            Chart("accuracy by MB", x="sent up", x_unit="MB", y="accuracy", x_range=(0, None), y_range=(0, 1)),
            BarChart("bytes of one update", y="length", y_unit="bytes", y_range=(0, None)),
        ],
        title=f"Compressed updates on handwritten digits, {round(FRACTION * CLIENTS)} of {CLIENTS} clients a round, "
              f"{ROUNDS} rounds: retrained as you move",
        recipe=RECIPE,
    )
