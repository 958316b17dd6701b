"""Rounds that leave nobody behind, and the two algorithms as lists of parts."""

import math

import numpy as np
import pytest
from small import InOrder, Spy, Timed, experiment, federation

from fl_course import (
    Buffered,
    ByExamples,
    CentralDP,
    CompositionError,
    Discount,
    Equal,
    FedAvg,
    LocalSGD,
    LogNormal,
    Mixing,
    Scaffold,
    SecureSum,
    SemiSynchronous,
    Synchronous,
    Uniform,
    WeightedMean,
    fedasync,
    fedbuff,
)


def same(one, other, rounds=6):
    a, b = (experiment(**parts).train(rounds) for parts in (one, other))
    assert a.records == b.records
    assert a.state.server.params.tobytes() == b.state.server.params.tobytes()
    return a


@pytest.mark.parametrize("fleet", [Equal(), Equal(0.0), LogNormal(speed_spread=1.0), LogNormal(drop=0.3)], ids=repr)
@pytest.mark.parametrize("fraction", [0.2, 0.5, 1.0])
def test_a_deadline_that_everybody_meets_makes_it_synchronous_to_the_bit(fleet, fraction):
    for deadline in (math.inf, 1e6):
        semi = SemiSynchronous(fraction, deadline=deadline)
        same({"schedule": semi, "fleet": fleet}, {"schedule": Synchronous(fraction), "fleet": fleet})


def test_at_the_very_second_is_in_time():
    same({"schedule": SemiSynchronous(0.5, deadline=1.0)}, {"schedule": Synchronous(0.5, deadline=1.0)})


def test_who_is_late_is_heard_in_a_later_round():
    """Round 1: 0, 1, 2 are asked, 2 needs 2.5 s. It goes on, and its answer is two versions old in the third round."""
    it = experiment(
        schedule=SemiSynchronous(0.5, deadline=1.0), selection=InOrder(),
        fleet=Timed({0: 1.0, 1: 1.0, 2: 2.5, 3: 0.5, 4: 9, 5: 9}),
    )  # fmt: skip
    history = it.train(4)
    assert [(r.clock, r.clients, r.staleness) for r in history.records] == [
        (1.0, (0, 1), (0, 0)), (2.0, (0, 1), (0, 0)), (3.0, (0, 1, 2), (0, 0, 2)), (4.0, (0, 1), (0, 0)),
    ]  # fmt: skip
    assert [span.client for span in history.spans() if span.fate == "at work"] == [2]


def test_nobody_in_time_is_a_step_that_changes_nothing_and_makes_the_late_staler():
    it = experiment(schedule=SemiSynchronous(0.5, deadline=1.0), selection=InOrder(), fleet=Equal(2.5))
    states = list(it.run(3))
    assert [(r.clock, r.clients, r.staleness) for _, r in states] == [(1.0, (), ()), (2.0, (), ()), (2.5, (0, 1, 2), (2, 2, 2))]
    assert states[1][0].server.params.tobytes() == it.initial().server.params.tobytes()
    assert states[0][1].events == ("no update arrived",)


def test_if_all_are_still_at_work_the_first_to_answer_makes_room():
    fleet = Timed({0: 3, 1: 9, 2: 9, 3: 0.5, 4: 9, 5: 9})
    it = experiment(schedule=SemiSynchronous(0.5, deadline=2.0), selection=InOrder(), fleet=fleet)
    first, second = it.train(2).records
    assert (first.clock, first.clients) == (2.0, ())
    assert (second.clock, second.clients) == (4.0, (0,))                   # 0 again, from second 3 on, is now at work


def test_max_staleness_refuses_and_counts():
    it = experiment(
        schedule=SemiSynchronous(0.5, deadline=1.0, max_staleness=1), selection=InOrder(),
        fleet=Timed({0: 1.0, 1: 1.0, 2: 2.5, 3: 0.5, 4: 9, 5: 9}),
    )  # fmt: skip
    third = it.train(3).records[2]
    assert (third.clients, third.metrics["too_stale"]) == ((0, 1), 1)
    assert third.bytes_up["update"] > sum(third.upload)


def by_hand(seconds, m, deadline, rounds):
    """Clock, clients and staleness: lists, no heap, the first idle client started next."""
    now, out, working = 0.0, [], []
    for version in range(rounds):
        opened, asked, heard = now, [], []
        may_start = True
        while True:
            if may_start and len(working) < m and now < opened + deadline:
                idle = [k for k in seconds if k not in asked and all(k != job[1] for job in working)]
                for k in idle[: m - len(working)]:
                    working.append((now + seconds[k], k, version))
                    asked.append(k)
                may_start = not idle
            if not working:
                break
            soon = min(job[0] for job in working)
            if soon > opened + deadline:
                now = opened + deadline
                break
            now = soon
            for job in [job for job in working if job[0] == soon]:
                working.remove(job)
                heard.append((job[1], version - job[2]))
            if not working and (asked or heard):
                break
        heard.sort()
        out.append((now, tuple(k for k, _ in heard), tuple(a for _, a in heard)))
    return out


@pytest.mark.parametrize("seed", range(30))
def test_the_timeline_is_that_of_a_simulation_by_hand(seed):
    rng = np.random.default_rng(seed)
    count = int(rng.integers(2, 8))
    seconds = {k: float(rng.choice([0.25, 0.5, 1.0, 1.5, 2.25, 4.0])) for k in range(count)}
    fraction, deadline = float(rng.choice([0.25, 0.5, 1.0])), float(rng.choice([0.25, 1.0, 1.75, 3.0]))
    schedule = SemiSynchronous(fraction, deadline=deadline)
    it = experiment(federation((2,) * count, tests=0), schedule=schedule, selection=InOrder(), fleet=Timed(seconds),
                    training=LocalSGD(epochs=1, batch_size=None))  # fmt: skip
    told = [(r.clock, r.clients, r.staleness) for r in it.train(8).records]
    assert told == by_hand(seconds, schedule.goal(count), deadline, 8)


def test_what_is_in_flight_is_heard_when_the_run_goes_on():
    it = experiment(schedule=SemiSynchronous(0.7, deadline=0.1), fleet=LogNormal(speed_spread=1.0))
    whole = it.train(8)
    for cut in range(1, 8):
        part = it.train(cut)
        rest = it.train(8 - cut, part.state)
        assert part.records + rest.records == whole.records
        assert rest.state.server.params.tobytes() == whole.state.server.params.tobytes()


# --- the two algorithms ----------------------------------------------------------------------------------------------


def test_the_algorithms_are_lists_of_parts():
    assert fedasync(7, 0.4, None, 5) == {
        "schedule": Buffered(7, 1, 5), "weights": Uniform(), "aggregation": Mixing(0.4), "optimizer": FedAvg(),
    }  # fmt: skip
    assert fedbuff(7, 3, 0.5, Discount("hinge", 10, 4), 2, True) == {
        "schedule": Buffered(7, 3, 2), "weights": ByExamples(), "aggregation": WeightedMean(Discount("hinge", 10, 4)),
        "optimizer": FedAvg(0.5),
    }  # fmt: skip
    assert fedbuff(5)["aggregation"].discount(3) == 0.5


@pytest.mark.parametrize("by_examples", [False, True])
def test_fedbuff_divides_by_k_and_not_by_the_discounts(by_examples):
    """w + lr/K·Σ s(τ)·Δ, as the sum written out; a mean weighted by s would give another model."""
    spy, data = Spy(), federation((3, 8, 5, 8, 4, 6))
    it = experiment(data, stages=[spy], fleet=LogNormal(speed_spread=1.0), **fedbuff(4, 3, 0.5, by_examples=by_examples))
    before, stale = it.initial().server.params, 0
    for state, record in it.run(6):
        sent = {(u.client, u.version): u for u in spy.sent}
        used = [sent[client, record.version - 1 - age] for client, age in zip(record.clients, record.staleness, strict=True)]
        n = [len(data.train[client]) if by_examples else 1 for client in record.clients]
        total = sum((1 + age) ** -0.5 * u.delta.astype(float) for u, age in zip(used, record.staleness, strict=True))
        np.testing.assert_allclose(state.server.params, before + 0.5 * total / sum(n), atol=1e-6)
        assert len(used) == 3
        before, stale = state.server.params, stale + sum(record.staleness)
    assert stale > 0


# --- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SemiSynchronous(0), "fraction must be in"),
        (lambda: SemiSynchronous(math.nan), "fraction must be in"),
        (lambda: SemiSynchronous(1.0, min_clients=0), "min_clients"),
        (lambda: SemiSynchronous(deadline=0), "deadline must be a positive"),
        (lambda: SemiSynchronous(deadline=math.nan), "deadline must be a positive"),
        (lambda: SemiSynchronous(max_staleness=-1), "max_staleness must be None"),
        (lambda: SemiSynchronous(max_staleness=1.5), "max_staleness must be None"),
        (lambda: experiment(schedule=SemiSynchronous(min_clients=7)), "only 6 clients"),
        (lambda: fedbuff(3, 0), "buffer"),
        (lambda: fedasync(0), "concurrency"),
        (lambda: fedasync(3, 1.1), "alpha"),
        (lambda: fedbuff(3, 2, lr=0), "lr must be positive"),
    ],
)
def test_values_that_make_no_schedule_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    "parts",
    [{"stages": [SecureSum(1.0)]}, {"training": LocalSGD(correction=Scaffold())}, {"stages": [CentralDP(1, 1, noise_seed=1)]}],
    ids=["secure", "scaffold", "central"],
)
def test_what_needs_clients_that_began_together_is_refused(parts):
    with pytest.raises(CompositionError):
        experiment(schedule=SemiSynchronous(0.5, deadline=1.0), weights=Uniform(), **parts)
