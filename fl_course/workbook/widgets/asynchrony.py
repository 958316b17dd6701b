"""The explorer of lesson 7: no rounds beside rounds on the same devices, with a timeline and who is heard."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from statistics import NormalDist
from typing import Any

import numpy as np

from ...asynchrony.devices import Known
from ...asynchrony.schedules import fedbuff
from ...core import Record, Span
from ...data.federated import FederatedData
from ...data.partition import Shards
from ...data.sources import digits
from ...engine.local import LocalSGD
from ...engine.models import mlp
from ...federation.aggregation import Discount
from ...federation.coordinator import Coordinator
from ...federation.evaluation import client_measure
from ...federation.schedule import Synchronous
from ...federation.stages import Uniform
from ...federation.state import State
from ...federation.timeline import at_work
from .charts import BarChart, Chart, TimelineChart
from .controls import Slider, Switch
from .explorer import Explorer
from .points import Point

DEVICES, ANSWERS, WINDOW = 20, 200, 120.0                   # as many answers for both; simulated seconds that the timeline shows
MODEL, TRAINING = mlp(64, 32, 10), LocalSGD(lr=0.2, epochs=5, batch_size=20)
DOWN, MEDIAN, UP = 0.5, 10.0, 1.5                           # seconds of a job
THIRDS = {"fast": range(7), "middle": range(7, 13), "slow": range(13, DEVICES)}
OLDEST, MOST_STEPS = 12, 60                                 # the last bar of the ages; more lines than that hide the jobs
TIMELINE = "who works when, without rounds"


@lru_cache(maxsize=2)
def twenty(linked: bool) -> FederatedData:
    """1,797 digits among 20 clients with two shards each. linked: client 0, the fastest, has the lowest digits."""
    data = digits().partition(Shards(2), DEVICES, seed=0)
    if not linked:
        return data
    order = np.argsort([data.y[rows].mean() for rows in data.train], kind="stable")
    return replace(data, train=tuple(data.train[k] for k in order), test=tuple(data.test[k] for k in order))


def devices(spread: float) -> Known:
    """Log-normal times at even quantiles, device 0 the fastest. spread: deviation of the logarithm."""
    normal = NormalDist()
    ranks = [(i + 0.5) / DEVICES for i in range(DEVICES)]
    return Known({i: MEDIAN * float(np.exp(spread * normal.inv_cdf(rank))) for i, rank in enumerate(ranks)}, down=DOWN, up=UP)


def experiments(buffer: int, concurrency: int, exponent: float, spread: float, linked: bool) -> tuple[Coordinator, Coordinator]:
    """Without rounds, and in rounds of as many as are at work there."""
    data, fleet = twenty(linked), devices(spread)
    how = fedbuff(concurrency, buffer, discount=Discount("polynomial", exponent))
    free = Coordinator(data, MODEL, TRAINING, fleet=fleet, **how)
    return free, Coordinator(data, MODEL, TRAINING, Synchronous(concurrency / DEVICES), weights=Uniform(), fleet=fleet)


def job_of(span: Span, used_in: int) -> tuple[str, tuple[float, ...], str, list[str]]:
    """One job for the timeline. used_in: the version that its step made, 0 if it was not used (yet)."""
    age = used_in - 1 - span.version
    end = f"used in step {used_in}, {age} step{'s' * (age != 1)} old" if used_in else f"still {span.fate}"
    times = f"{span.begun:.1f} s to {span.ended:.1f} s, trained until {span.trained:.1f} s"
    words = [f"device {span.client}", times, f"started from model {span.version}", end]
    return str(span.client), (span.begun, span.downloaded, span.trained, span.ended), span.fate, words


def timeline(records: Sequence[Record], state: State) -> list[Any]:
    """The jobs that began in the window, those at work included, and the server's steps while they are few."""
    jobs = [job_of(span, record.version) for record in records for span in record.spans]
    jobs += [job_of(span, 0) for span in at_work(state.jobs, state.clock)]
    steps = [("", (r.clock,), "", [f"step {r.version} of the server", f"at {r.clock:.1f} s", f"with {len(r.clients)} answers"])
             for r in records if r.clock <= WINDOW]
    shown = [job for job in jobs if job[1][0] < WINDOW]
    return sorted(shown, key=lambda job: job[1][0]) + (steps if len(steps) <= MOST_STEPS else [])


def heard(records: Sequence[Record], state: State, data: FederatedData) -> dict[str, list[tuple[str, float]]]:
    """Of each third of the devices: its share of the answers used so far, and the model's accuracy on its clients' own tests."""
    turns = Counter(client for record in records for client in record.clients)
    own = client_measure(MODEL, state.server.params, data)
    total = max(1, turns.total())
    return {"share of the answers": [(name, sum(turns[k] for k in third) / total) for name, third in THIRDS.items()],
            "accuracy for them": [(name, float(own[list(third)].mean())) for name, third in THIRDS.items()]}


def ages(records: Sequence[Record]) -> list[tuple[str, float]]:
    """How many of the answers used so far were 0, 1, 2 … steps old."""
    count = Counter(min(age, OLDEST) for record in records for age in record.staleness)
    last = max(count, default=0)
    return [(f"{OLDEST}+" if age == OLDEST else str(age), float(count[age])) for age in range(last + 1)]


def asynchrony(buffer: int, concurrency: int, exponent: float, spread: float, linked: bool) -> Iterator[Point]:
    """Both federations on one simulated clock: at each turn the one that is behind takes a step. Each uses 200 answers."""
    free, in_rounds = experiments(buffer, concurrency, exponent, spread, linked)
    runs = {"no rounds": free.run(ANSWERS // buffer), "rounds": in_rounds.run(ANSWERS // concurrency)}
    clock, ends, records = dict.fromkeys(runs, 0.0), dict.fromkeys(runs, (0.0, 0.0)), list[Record]()
    open_window = True
    while clock:
        name = min(clock, key=lambda which: clock[which])
        step = next(runs[name], None)
        if step is None:
            del clock[name]
            continue
        state, record = step
        clock[name], ends[name] = record.clock, (record.clock, record.metrics["accuracy"])
        said = "; ".join(f"{which}: {value:.1%} after {second:.0f} simulated s" for which, (second, value) in ends.items())
        lines = {name: ends[name]}
        if name == "rounds":
            yield Point(lines, text=said)
            continue
        records.append(record)
        jobs = {TIMELINE: timeline(records, state)} if open_window else {}
        open_window = any(job.begun < WINDOW for job in state.jobs)
        yield Point(lines, {"answers": ages(records), **heard(records, state, free.data)}, said, jobs=jobs)


def asynchrony_explorer() -> Explorer:
    """Lesson 7: how many answers make a step, how many devices are at work, the discount, and how unequal the devices are."""
    return Explorer(
        asynchrony,
        controls=[
            Slider("buffer", 1, 20, value=5, label="buffer K"),
            Slider("concurrency", 1, DEVICES, value=10, label="devices at work c"),
            Slider("exponent", 0.0, 2.0, 0.25, value=0.5, label="discount exponent a"),
            Slider("spread", 0.0, 1.5, 0.25, value=1.0, label="spread of the speeds"),
            Switch("linked", False, label="slow devices have the high digits"),
        ],
        charts=[
            Chart("accuracy by the clock", x="simulated time", x_unit="s", y="accuracy", lines=("no rounds", "rounds"),
                  x_range=(0, None), y_range=(0, 1)),
            TimelineChart(TIMELINE, tuple(map(str, range(DEVICES))), y="device, the fastest on top", x_range=(0, WINDOW)),
            BarChart("how old the answers are", x="staleness τ, steps", y="answers", y_range=(0, None), series=("answers",)),
            BarChart("who is heard", x="third of the devices", y="share", y_range=(0, 1),
                     series=("share of the answers", "accuracy for them")),
        ],
        title=f"{DEVICES} devices with two shards of the digits each, about {ANSWERS} answers: retrained as you move",
    )
