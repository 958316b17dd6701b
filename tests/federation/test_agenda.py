"""The order of events: against a clock that ticks, over a thousand random traces; how fast; with ten thousand devices."""

from __future__ import annotations

import gc
import math
import random
import time
import weakref
from collections import deque
from dataclasses import dataclass, field
from decimal import Decimal

import numpy as np
import pytest
from small import experiment, federation

from fl_course import (
    Buffered,
    Coordinator,
    Evaluation,
    Fleet,
    Known,
    LocalSGD,
    LogNormal,
    Mixing,
    SemiSynchronous,
    Synchronous,
    Uniform,
    UniformSelection,
    WeightedMean,
    fedasync,
    from_clients,
    heard,
    logistic,
    rehearse,
    stream,
)
from fl_course.federation.agenda import DUE, START, STEP, Agenda

# --- a clock that ticks --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ticks(Fleet):
    """Whole seconds, so that much happens at the same instant; who vanishes and who is away is written down."""

    down: dict
    train: dict
    up: dict
    gone: frozenset                                         # (client, how many times it was asked before) vanish
    leaves: dict                                            # client -> (from, until) it is away
    asked: dict = field(default_factory=dict, repr=False, compare=False)

    def download(self, client, nbytes):
        return self.down[client]

    def compute(self, client, examples, luck):
        return self.train[client]

    def upload(self, client, nbytes):
        return self.up[client]

    def drops(self, client, luck):
        times = self.asked[client] = self.asked.get(client, 0) + 1
        return (client, times - 1) in self.gone

    def away(self, client, when):
        begins, ends = self.leaves.get(client, (0, 0))
        return ends - when if begins <= when < ends else 0


def ticking(c, fleet, seed, clients, steps):
    """What happens second by second: no heap, no next event, only a list of jobs that is looked at whenever the clock ticks.

    Returns the steps as (second, [(client, τ)]), and all jobs that ended as (client, version, begun, trained, ended, fate).
    """
    now, jobs, order, told, ended, times = 0, [], 0, [], [], {}
    for version in range(steps):
        opened, cohort, arrived = now, [], []
        anybody = False                                                   # was anybody asked since the last step?
        while True:
            ripe = sorted((job for job in jobs if job["next"] == now), key=lambda job: job["order"])
            under_way, count = len(jobs), len(clients)
            if anybody or arrived:
                if c["kind"] == "sync" and (under_way == 0 or (c["over"] > 0 and len(arrived) >= c["goal"])):
                    break
                if c["kind"] == "semi" and under_way == 0:
                    break
                if c["kind"] == "buffer" and len(arrived) >= c["buffer"]:
                    break
            if ripe:
                job = ripe[0]
                if not job["sent"] and not job["gone"]:
                    job["sent"], job["next"] = True, now + fleet.up[job["client"]]
                    continue
                jobs.remove(job)
                fate = "dropped out" if job["gone"] else "used"
                if fate == "used" and c["limit"] is not None and version - job["version"] > c["limit"]:
                    fate = "too stale"
                ended.append((job["client"], job["version"], job["begun"], job["trained"], now, fate))
                if fate == "used":
                    arrived.append((job["client"], version - job["version"]))
                continue
            if c["kind"] == "buffer":
                wanted = min(c["concurrency"], count) - under_way
            else:
                wanted = 0 if anybody else c["asks"] if c["kind"] == "sync" else c["goal"] - under_way
            idle = [k for k in clients if k not in cohort and all(job["client"] != k for job in jobs)]
            here = [k for k in idle if fleet.away(k, now) == 0]
            returns = [now + fleet.away(k, now) for k in idle if k not in here] if wanted > 0 else []
            if wanted > 0 and here and now < opened + c["deadline"]:
                rng = stream(seed, "select", version, len(cohort))
                for k in [here[i] for i in rng.permutation(len(here))[:wanted]]:
                    times[k] = times.get(k, 0) + 1
                    trained = now + fleet.down[k] + fleet.train[k]
                    jobs.append({
                        "client": k, "version": version, "begun": now, "trained": trained, "next": trained, "sent": False,
                        "gone": (k, times[k] - 1) in fleet.gone, "order": order,
                    })  # fmt: skip
                    cohort.append(k)
                    order += 1
                anybody = True
                if any(job["next"] == now for job in jobs):
                    continue
                if c["kind"] != "buffer" or len(jobs) >= min(c["concurrency"], count):
                    returns = []
            if now >= opened + c["deadline"] or (not jobs and not returns):
                break
            now += 1                                                      # and nothing has happened in between
        if c["kind"] == "sync":
            for job in jobs:
                ended.append((job["client"], job["version"], job["begun"], job["trained"], now, "too late"))
            jobs = []
        told.append((now, sorted(arrived)))
    return told, ended


def draw(seed):
    r = random.Random(seed)
    count = r.randint(2, 8)
    clients = list(range(count))
    few = {k: r.choice([0, 0, 1, 2]) for k in clients}
    fleet = Ticks(
        few, {k: r.randint(0, 9) for k in clients}, {k: r.choice([0, 1, 3]) for k in clients},
        frozenset((k, n) for k in clients for n in range(9) if r.random() < r.choice([0.0, 0.0, 0.3])),
        {k: (r.randint(0, 20), r.randint(10, 60)) for k in clients if r.random() < 0.2} if r.random() < 0.5 else {},
    )  # fmt: skip
    c = {"kind": r.choice(["sync", "semi", "buffer", "buffer"]), "limit": None, "deadline": math.inf, "over": 0.0}
    if c["kind"] == "buffer":
        c |= {"concurrency": r.randint(1, count + 1), "buffer": r.randint(1, count), "limit": r.choice([None, None, 0, 1, 3])}
        schedule = Buffered(c["concurrency"], c["buffer"], c["limit"])
    else:
        fraction, deadline = r.choice([0.3, 0.5, 1.0]), r.choice([math.inf, 3.0, 6.0, 15.0])
        c |= {"goal": min(count, max(round(fraction * count), 1)), "deadline": deadline}
        if c["kind"] == "sync":
            c["over"] = r.choice([0.0, 0.5, 1.0])
            c["asks"] = min(count, math.ceil(c["goal"] * (1 + c["over"])))
            schedule = Synchronous(fraction, 1, c["over"], deadline)
        else:
            c["limit"] = r.choice([None, 1, 2])
            schedule = SemiSynchronous(fraction, 1, deadline, c["limit"])
    it = experiment(federation((1,) * count, tests=0), schedule=schedule, fleet=fleet, seed=seed,
                    training=LocalSGD(epochs=1, batch_size=None), evaluation=Evaluation(100))          # fmt: skip
    return it, c, fleet, clients


def agree(seed, run, steps=8):
    it, c, fleet, clients = draw(seed)
    fleet.asked.clear()
    history = run(it, steps)
    told, ended = ticking(c, fleet, seed, clients, steps)
    assert [(r.clock, sorted(zip(r.clients, r.staleness, strict=True))) for r in history.records] == told
    spans = [(s.client, s.version, s.begun, s.trained, s.ended, s.fate) for r in history.records for s in r.spans]
    assert spans == ended                                                  # in this very order, also within one instant
    return history


@pytest.mark.parametrize("first", range(0, 1000, 100))
def test_a_thousand_traces_agree_with_a_clock_that_ticks(first):
    for seed in range(first, first + 100):
        agree(seed, rehearse)


@pytest.mark.parametrize("first", range(0, 60, 20))
def test_and_so_does_the_loop_that_trains(first):
    for seed in range(first, first + 20):
        agree(seed, lambda it, steps: it.train(steps))


def test_the_traces_have_in_them_what_can_happen():
    fates, ties, stale, empty = set(), 0, 0, 0
    for seed in range(200):
        history = agree(seed, rehearse)
        spans = [span for record in history.records for span in record.spans]
        fates |= {span.fate for span in spans}
        ties += len({(span.ended, span.fate) for span in spans}) < len(spans)
        stale += any(any(record.staleness) for record in history.records)
        empty += any(not record.clients for record in history.records)
    assert fates == {"used", "dropped out", "too stale", "too late"}
    assert min(ties, stale, empty) > 20


# --- the rehearsal is the loop without training ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "schedule", [Buffered(4, 2), Buffered(5, 1, 2), Synchronous(0.7, over_selection=0.5), SemiSynchronous(0.7, deadline=0.1)],
    ids=repr,
)
def test_a_rehearsal_has_the_records_of_the_run(schedule):
    it = experiment(federation((3, 8, 5, 8, 4, 6), ids=["a", "ward 7", "c", 300, 70000, 5]), schedule=schedule,
                    fleet=LogNormal(speed_spread=1.0, jitter=0.3, drop=0.2, up_mbit=0.05))             # fmt: skip
    real, quick = it.train(150), rehearse(it, 150)                         # beyond version 127 messages are longer
    for one, other in zip(real.records, quick.records, strict=True):
        for name in ("version", "clock", "clients", "staleness", "upload", "bytes_up", "bytes_down", "spans"):
            assert getattr(one, name) == getattr(other, name), name
        assert one.metrics.get("too_stale", 0) == other.metrics.get("too_stale", 0)
    assert [(line.updates, line.share) for line in heard(it, real)] == [(line.updates, line.share) for line in heard(it, quick)]


def test_what_cannot_be_rehearsed_is_refused():
    class Mine(UniformSelection):
        pass

    with pytest.raises(ValueError, match="may choose by what clients answer"):
        rehearse(experiment(selection=Mine()), 2)
    with pytest.raises(ValueError, match="steps must be a whole number"):
        rehearse(experiment(), 1.5)
    assert rehearse(experiment(), 0).records == []


# --- how fast, how large -------------------------------------------------------------------------------------------------


def test_a_hundred_thousand_events_a_second():
    """Ten thousand devices, a thousand at work: starting, finishing, stepping, without training. Processor time."""
    seconds = [Decimal(1 + k % 97) / 10 for k in range(10_000)]
    idle, jobs, ticket, events = deque(range(10_000)), {}, 0, 0
    agenda = Agenda.opened(Buffered(1000, 10), 10_000, Decimal(0), Decimal("Infinity"), [])
    began = time.process_time()
    while events < 50_000:
        what, number = agenda.next()
        if what == START:
            for _ in range(number):
                jobs[ticket] = idle.popleft()
                agenda.add(agenda.clock + seconds[jobs[ticket]], ticket)
                ticket += 1
            agenda.started(number, None)
        elif what == DUE:
            idle.append(jobs.pop(number))
            agenda.under_way, agenda.arrived, events = agenda.under_way - 1, agenda.arrived + 1, events + 1
        else:
            assert what == STEP
            agenda.arrived, agenda.first = 0, True
    assert events / (time.process_time() - began) >= 100_000


def many(clients, **parts):
    x, y = np.zeros((clients, 2), np.float32), np.arange(clients) % 2
    data = from_clients("many", {k: (x[k : k + 1], y[k : k + 1]) for k in range(clients)}, 2)
    return Coordinator(data, logistic(2, 2), LocalSGD(epochs=1), weights=Uniform(), evaluation=Evaluation(10**6), **parts)


def test_ten_thousand_devices():
    it = many(10_000, schedule=Buffered(1000, 50), fleet=LogNormal(speed_spread=1.0))
    history = it.train(12)
    assert [len(record.clients) for record in history.records] == [50] * 12
    assert len(history.state.jobs) == 999                                    # the fiftieth answer is a step
    assert history.spans()[:600] == rehearse(it, 12).spans()


def test_no_more_versions_are_held_than_jobs_are_in_flight():
    """Whatever a run has been through, a model that nobody started from is let go."""
    it = experiment(fleet=LogNormal(speed_spread=1.5), evaluation=Evaluation(1000), **fedasync(4))
    seen, most = [], 0
    for state, record in it.run(50):
        seen.append(weakref.ref(state.server.params))
        seen += [weakref.ref(job.base.params) for job in state.jobs]
        if record.version % 25 == 0:
            gc.collect()
            alive = {id(ref()) for ref in seen if ref() is not None}
            most = max(most, len(alive))
            assert len({job.base.version for job in state.jobs}) <= 4
    assert len(state.jobs) <= 4
    assert most <= 4 + 3                                                   # the jobs', and the server's of now and before


@pytest.mark.parametrize("aggregation", [WeightedMean(), Mixing(0.5)])
def test_a_long_run_takes_no_more_room_than_a_short_one(aggregation):
    import tracemalloc

    it = many(300, schedule=Buffered(20, 1), aggregation=aggregation, fleet=Known({k: 1.0 + k % 7 for k in range(300)}))
    room = []
    tracemalloc.start()
    try:
        for _, record in it.run(400):
            if record.version in (200, 400):
                gc.collect()
                room.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert room[1] < room[0] * 1.25 + 100_000
