"""The explorer of lesson 6: how many are asked, how they are chosen, how different the phones are, and who is starved."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache

import numpy as np

from ...core import ClientId
from ...data.federated import FederatedData
from ...data.partition import Shards
from ...data.sources import digits
from ...engine.local import LocalSGD
from ...engine.models import mlp
from ...federation.coordinator import Coordinator
from ...federation.evaluation import client_measure
from ...federation.fleet import LogNormal
from ...federation.interfaces import Selector
from ...federation.sampling import UniformSelection
from ...federation.schedule import Synchronous
from ...selection.diversity import DivFL, LabelDiversity
from ...selection.fair import RoundRobin
from ...selection.fairness import gini
from ...selection.oort import Oort
from ...selection.power import PowerOfChoice
from ...selection.profile import QualityScore
from ...selection.tifl import TiFL
from .charts import BarChart, Chart
from .controls import Choice, Slider, Steps
from .explorer import Explorer
from .points import Point

CLIENTS, ROUNDS, TENTHS = 100, 40, 10                      # the set-up of the lesson's text: same data, model and training
MODEL = mlp(64, 32, 10)
TRAINING = LocalSGD(lr=0.1, epochs=5, batch_size=10)
WAYS = ("uniform", "in turn", "quality score", "drawn by score", "diverse labels", "DivFL", "Power-of-Choice", "Oort", "TiFL")
LINES = ("accuracy by round", "worst tenth by round")
HEARD, ACCURACY = "who was heard", "accuracy on their own tests"


def phones(spread: float) -> LogNormal:
    return LogNormal(examples_per_second=20, speed_spread=spread)


@lru_cache(maxsize=1)
def slow_phones_hold_high_digits() -> tuple[FederatedData, tuple[ClientId, ...]]:
    """The federation of the lesson, and its clients from the fastest phone to the slowest, which any spread leaves in order."""
    deal, fleet = digits().partition(Shards(2), CLIENTS, seed=0), phones(1.0)
    by_speed = sorted(deal.ids, key=lambda client: fleet.compute(client, 1, lambda: np.random.default_rng(0)))
    ids = np.empty(CLIENTS, dtype=int)
    ids[np.argsort([deal.examples(client)[1].mean() for client in deal.ids], kind="stable")] = by_speed
    return replace(deal, ids=tuple(ids.tolist())), tuple(by_speed)


def selector(how: str, quality: float, speed: float) -> Selector:
    """quality: the score's weight of data quality; speed: its weight of compute and bandwidth together."""
    score = QualityScore(data=quality, compute=speed / 2, bandwidth=speed / 2)
    ways = {"uniform": UniformSelection(), "in turn": RoundRobin(), "quality score": score,
            "drawn by score": replace(score, drawn=True), "diverse labels": LabelDiversity(), "DivFL": DivFL(),
            "Power-of-Choice": PowerOfChoice(20), "Oort": Oort(), "TiFL": TiFL()}
    return ways[how]


def experiment(fraction: float, over: int, how: str, quality: float, speed: float, spread: float) -> Coordinator:
    """over: so many per cent more are asked than are waited for."""
    schedule = Synchronous(fraction, over_selection=over / 100)
    data, _ = slow_phones_hold_high_digits()
    return Coordinator(data, MODEL, TRAINING, schedule, selector(how, quality, speed), fleet=phones(spread))


def by_tenth(values: np.ndarray) -> list[tuple[str, float]]:
    """Means (10) of values (K,), one a client from the fastest phone to the slowest; a tenth without a test is NaN."""
    parts = np.array_split(np.asarray(values, dtype=np.float64), TENTHS)
    return [(str(i + 1), float(np.nanmean(part)) if np.isfinite(part).any() else float("nan")) for i, part in enumerate(parts)]


def selection(fraction: float, over: int, how: str, quality: float, speed: float, spread: float) -> Iterator[Point]:
    """Accuracy and the worst tenth by round, accuracy by seconds and by MB, and who was heard and is served."""
    data, by_speed = slow_phones_hold_high_digits()
    counts, sent = dict.fromkeys(data.ids, 0), 0
    order = [data.position(client) for client in by_speed]
    for state, record in experiment(fraction, over, how, quality, speed, spread).run(ROUNDS):
        sent += record.nbytes
        for client in record.clients:
            counts[client] += 1
        accuracy, worst = record.metrics["accuracy"], record.metrics["client_accuracy_worst10"]
        own = client_measure(MODEL, state.server.params, data)[order]
        heard = np.array([counts[client] for client in by_speed])
        yield Point(
            lines={LINES[0]: (record.version, accuracy), LINES[1]: (record.version, worst),
                   "accuracy by seconds": (record.clock, accuracy), "accuracy by MB": (sent / 1e6, accuracy)},
            bars={HEARD: by_tenth(heard), ACCURACY: by_tenth(own)},
            text=f"After round {record.version}: {accuracy:.1%} of the held-out digits are read rightly, and {worst:.1%} on the "
                 f"tests of the worst tenth of the clients. {record.clock:,.0f} simulated seconds, {sent / 1e6:.2f} MB. Gini "
                 f"coefficient of participation {gini(heard):.2f}; {np.count_nonzero(heard == 0)} of {CLIENTS} phones were never "
                 "heard.",
        )


def selection_explorer() -> Explorer:
    """Lesson 6: C, over-selection, the way to choose, two weights of the score, and the spread of the speeds."""
    tenths = "tenth of the phones, fastest first"
    return Explorer(
        selection,
        controls=[
            Slider("fraction", 0.05, 0.5, 0.05, value=0.1, label="client fraction C"),
            Steps("over", (0, 10, 20, 30, 50, 100), 0, "asked beyond that", "%"),
            Choice("how", WAYS, "uniform", label="who is asked"),
            Slider("quality", 0.0, 1.0, 0.1, value=0.3, label="score: weight of data quality"),
            Slider("speed", 0.0, 1.0, 0.1, value=0.4, label="score: weight of compute and bandwidth"),
            Steps("spread", (0.0, 0.5, 1.0, 1.5, 2.0), 1.0, "spread of the phones' speeds"),
        ],
        charts=[
            Chart("by round", x="round", y="accuracy", x_range=(0, ROUNDS), y_range=(0, 1), lines=LINES),
            Chart("accuracy by seconds", x="simulated time", x_unit="s", y="accuracy", x_range=(0, None), y_range=(0, 1)),
            Chart("accuracy by MB", x="sent, both ways", x_unit="MB", y="accuracy", x_range=(0, None), y_range=(0, 1)),
            BarChart(HEARD, x=tenths, y="answers used, mean of a phone", y_range=(0, None)),
            BarChart(ACCURACY, x=tenths, y="accuracy", y_range=(0, 1)),
        ],
        title=f"Slow phones hold the high digits, {CLIENTS} clients, {ROUNDS} rounds: retrained as you move",
    )
