"""Coordinator.run against the slow, plain loop of reference_loop.py, in random configurations."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from reference_loop import quickest, seconds, simulate
from small import federation

from fl_course import (
    Buffered,
    ByExamples,
    Coordinator,
    Correction,
    Discount,
    Evaluation,
    FedAvg,
    Fleet,
    LocalSGD,
    LogNormal,
    PoissonSelection,
    Selector,
    Stage,
    Synchronous,
    Uniform,
    UniformSelection,
    WeightedMean,
    logistic,
)


@dataclass(frozen=True)
class Decimals(Fleet):
    """Seconds with one digit behind the point, so that many things happen at the same instant."""

    down: dict[Any, float]
    train: dict[Any, float]
    up: dict[Any, float]
    drop: float

    def download(self, client, nbytes):
        return self.down[client]

    def compute(self, client, examples, luck):
        return float(seconds(self.train[client]) + seconds(int(luck().integers(0, 3)) / 10))

    def upload(self, client, nbytes):
        return self.up[client]

    def drops(self, client, luck):
        return bool(luck().random() < self.drop)


class Quickest(Selector):
    def select(self, idle, k, rng, reports):
        return quickest(idle, k, reports)


@dataclass(frozen=True)
class Watch(Stage):
    """What a client half sees: the cohort, and in the session what its own version put there. May keep half for later."""

    residual: bool
    seen: dict = field(default_factory=dict, repr=False)

    def begin(self, ctx):
        ctx.session["version"] = ctx.server.version

    def client(self, update, ctx):
        self.seen[ctx.server.version, ctx.client] = (ctx.cohort, ctx.session["version"])
        if not self.residual:
            return update
        whole = update.delta + ctx.memory.get("rest", np.float32(0))
        ctx.memory["rest"] = whole / 2
        return replace(update, delta=whole / 2)


class Absorbs(Correction):
    """Remembers what it was told."""

    def absorb(self, server, aggregate, arrived, clients):
        return replace(server, state={**server.state, "absorbed": (arrived, clients)})


def draw(seed: int) -> tuple[dict, list[int], list]:
    """A configuration, the clients' numbers of examples, and their names."""
    r = random.Random(seed)
    count = r.randint(2, 10)
    sizes = [r.choice([0, 0, 1, 3, 8]) for _ in range(count)]
    sizes[r.randrange(count)] = 5
    able = sum(size > 0 for size in sizes)
    ids = r.sample([0, 1, 2, 300, 70000, "a", "b", "ward 7", "é", "0"], count)
    tenths = lambda most: {client: r.randint(0, most) / 10 for client in ids}                     # noqa: E731
    drop = r.choice([0.0, 0.0, 0.2, 0.5])
    fleet = {"kind": "decimals", "down": tenths(3), "compute": tenths(9), "up": tenths(9), "drop": drop}
    if r.random() < 0.3:
        fleet = {"kind": "lognormal", "spread": r.choice([0.0, 0.5, 2.0]), "jitter": r.choice([0.0, 0.3]), "drop": drop}
    c = {
        "seed": r.randrange(100), "fleet": fleet, "max_staleness": None, "deadline": math.inf, "discount": 0.0,
        "by_examples": r.random() < 0.5, "residual": r.random() < 0.4, "lr": 0.1, "lr_decay": r.choice([1.0, 0.9]),
        "epochs": r.randint(1, 3), "server_lr": r.choice([1.0, 0.5]), "selection": r.choice(["uniform", "uniform", "quickest"]),
        "correction": r.random() < 0.3,
    }  # fmt: skip
    if r.random() < 0.5:
        c |= {"fraction": r.choice([0.1, 0.3, 0.4, 0.6, 0.75, 1.0]), "min_clients": r.choice([1, 1, 1, able])}
        c["over_selection"] = r.choice([0.0, 0.1, 0.3, 0.5, 1.0])
        if r.random() < 0.6:
            c["deadline"] = seconds(r.randint(1, 20) / 10 if fleet["kind"] == "decimals" else r.choice([0.01, 0.05, 0.2]))
        if c["over_selection"] == 0 and r.random() < 0.3:
            c["selection"] = "poisson"
    else:
        c |= {"concurrency": r.randint(1, count + 1), "buffer": r.randint(1, able), "discount": r.choice([0.0, 0.5])}
        c["max_staleness"] = r.choice([None, None, 0, 1, 2])
    return c, sizes, ids


def build(c: dict, sizes: list[int], ids: list) -> tuple[Coordinator, Watch]:
    f, watch = c["fleet"], Watch(c["residual"])
    if "fraction" in c:
        schedule = Synchronous(c["fraction"], c["min_clients"], c["over_selection"], float(c["deadline"]))
    else:
        schedule = Buffered(c["concurrency"], c["buffer"], c["max_staleness"])
    fleet = Decimals(f["down"], f["compute"], f["up"], f["drop"]) if f["kind"] == "decimals" else LogNormal(
        speed_spread=f["spread"], link_spread=f["spread"], jitter=f["jitter"], drop=f["drop"]
    )  # fmt: skip
    it = Coordinator(
        federation(sizes, ids), logistic(5, 3),
        LocalSGD(c["lr"], c["epochs"], None, c["lr_decay"], correction=Absorbs() if c["correction"] else None),
        schedule, {"uniform": UniformSelection(), "poisson": PoissonSelection(), "quickest": Quickest()}[c["selection"]],
        ByExamples() if c["by_examples"] else Uniform(), [watch],
        WeightedMean(Discount("polynomial", c["discount"])) if c["discount"] else WeightedMean(),
        FedAvg(c["server_lr"]), fleet, Evaluation(100), c["seed"],
    )  # fmt: skip
    return it, watch


def kind_of(events, words: str) -> list[str]:
    return sorted(event.split("client ")[1].split(" dropped")[0].split(" was")[0] for event in events if words in event)


def agree(seed: int, rounds: int = 6) -> None:
    c, sizes, ids = draw(seed)
    it, watch = build(c, sizes, ids)
    watch.seen.clear()
    begin = it.initial()
    expected = simulate(c, {client: it.data.examples(client) for client in it.data.ids}, begin.server.params, rounds)
    cut = 1 + seed % rounds                                              # resumed after some of the steps
    pairs = list(it.run(cut, begin))
    pairs += list(it.run(rounds - cut, pairs[-1][0]))
    for row, (state, record) in zip(expected, pairs, strict=True):
        assert record.clock == pytest.approx(row["clock"], rel=1e-12), c
        told = (record.version, record.clients, record.staleness, record.upload)
        assert told == (row["version"], row["clients"], row["staleness"], row["upload"]), c
        assert dict(record.bytes_down) == ({"model": row["down"]} if row["down"] else {}), c
        assert dict(record.bytes_up) == {name: row[name] for name in ("update", "late") if row[name]}, c
        for name, words in (("gone", "dropped out"), ("too_late", "too late"), ("too_old", "versions old")):
            assert kind_of(record.events, words) == sorted(map(repr, row[name])), c
        assert record.metrics.get("too_stale", 0) == len(row["too_old"]), c
        np.testing.assert_allclose(state.server.params, row["params"], atol=2e-5, err_msg=str(c))
        for job, saw in row["seen"].items():
            assert watch.seen[job] == saw, c
        if c["correction"] and row["absorbed"]:
            assert state.server.state["absorbed"] == row["absorbed"], c


@pytest.mark.parametrize("seed", range(60))
def test_the_loop_agrees_with_a_plain_one(seed):
    agree(seed)


@pytest.mark.slow
@pytest.mark.parametrize("start", range(60, 1060, 50))
def test_the_loop_agrees_with_a_plain_one_in_a_thousand_configurations(start):
    for seed in range(start, start + 50):
        agree(seed)


def test_the_configurations_have_in_them_what_can_happen():
    """A reference that never meets a case proves nothing about it."""
    met = dict.fromkeys(("gone", "too_late", "too_old", "late", "stale", "tie at the deadline", "nobody", "several starts"), 0)
    for seed in range(60):
        c, sizes, ids = draw(seed)
        it, _ = build(c, sizes, ids)
        rows = simulate(c, {client: it.data.examples(client) for client in it.data.ids}, it.initial().server.params, 6)
        clock = 0.0
        for row in rows:
            for name in ("gone", "too_late", "too_old", "late"):
                met[name] += bool(row[name])
            met["stale"] += any(row["staleness"])
            met["nobody"] += not row["clients"]
            closes = seconds(clock) + c["deadline"] if c["deadline"] < math.inf else None
            met["tie at the deadline"] += closes is not None and float(closes) == row["clock"] and bool(row["clients"])
            met["several starts"] += len({saw[0] for saw in row["seen"].values()}) > 1
            clock = row["clock"]
    assert min(met.values()) >= 10, met
