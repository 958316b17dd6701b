"""When clients start and when the server steps, on the clock, against a slow simulation by hand."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small import UNIFORM, InOrder, Spy, Timed, experiment, federation, final

from fl_course import (
    Buffered,
    Coordinator,
    Equal,
    LocalSGD,
    LogNormal,
    PoissonSelection,
    Synchronous,
    Uniform,
    logistic,
)
from fl_course.core import Server, Task, stream
from fl_course.engine.sgd import train_alone


def steps(it: Coordinator, rounds: int):
    """(clock, clients, staleness) of every step."""
    return [(r.clock, r.clients, r.staleness) for r in it.train(rounds).records]


# --- synchronous ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schedule", "clients", "goal", "start"),
    [
        (Synchronous(0.1), 100, 10, 10),
        (Synchronous(1.0), 7, 7, 7),
        (Synchronous(0.001), 100, 1, 1),                                 # at least one client
        (Synchronous(0.1, min_clients=5), 20, 5, 5),
        (Synchronous(0.1, over_selection=0.3), 100, 10, 13),
        (Synchronous(0.1, over_selection=0.25), 100, 10, 13),            # rounded up
        (Synchronous(1.0, over_selection=0.3), 9, 9, 9),                 # there are not more
        (Synchronous(0.1, over_selection=0.1), 100, 10, 11),             # 10 · 1.1 in floating point is a little over 11
    ],
)
def test_how_many_are_asked_and_how_many_are_awaited(schedule, clients, goal, start):
    assert schedule.goal(clients) == goal
    assert schedule.start(clients, in_flight=0, first=True) == start
    assert schedule.start(clients, in_flight=0, first=False) == 0


def test_a_round_lasts_as_long_as_its_slowest_client():
    it = experiment(schedule=Synchronous(0.5), selection=InOrder(), fleet=Timed({0: 1, 1: 4, 2: 2, 3: 9, 4: 9, 5: 9}, up=0.5))
    assert steps(it, 2) == [(4.5, (0, 1, 2), (0, 0, 0)), (9.0, (0, 1, 2), (0, 0, 0))]


def test_over_selection_steps_at_the_goal_and_records_the_late_ones():
    it = experiment(
        federation((8,) * 4), schedule=Synchronous(0.5, over_selection=0.5), selection=InOrder(),
        fleet=Timed({0: 5, 1: 1, 2: 2, 3: 1}),
    )  # fmt: skip
    (record,) = it.train(1).records
    assert (record.clock, record.clients, len(record.upload)) == (2, (1, 2), 2)
    assert record.events == ("the answer of client 0 was too late",)
    assert record.bytes_up["update"] == sum(record.upload)
    assert it.train(1).state.jobs == ()


def test_over_selection_replaces_those_who_drop_out():
    it = experiment(
        federation((8,) * 4), schedule=Synchronous(0.5, over_selection=0.5), selection=InOrder(),
        fleet=Timed({0: 5, 1: 1, 2: 2, 3: 1}, gone=(1,)),
    )  # fmt: skip
    (record,) = it.train(1).records
    assert (record.clock, record.clients, record.events) == (5, (0, 2), ("client 1 dropped out",))


def test_over_selection_among_equals_favours_no_name():
    it = experiment(federation((4,) * 10), schedule=Synchronous(0.5, over_selection=0.6), training=LocalSGD(batch_size=None))
    taken = [client for record in it.train(60).records for client in record.clients]
    assert len(taken) == 300
    assert 17 <= min(np.bincount(taken)) <= max(np.bincount(taken)) <= 43         # 30 each, ± 3.4 standard deviations


def test_over_selection_adds_clients_and_takes_nobody_away():
    asked = []
    for extra in (0.0, 0.4, 1.0):
        spy = Spy()
        final(experiment(federation((4,) * 10), schedule=Synchronous(0.5, over_selection=extra), stages=[spy]), 5)
        asked.append([set(cohort) for _, cohort in spy.asked])
    for few, more, all_ in zip(*asked, strict=True):
        assert few < more < all_


def test_a_deadline_closes_the_round_with_what_has_arrived():
    fleet = Timed({0: 1, 1: 3, 2: 3.5, 3: 9, 4: 9, 5: 9})
    it = experiment(schedule=Synchronous(0.5, deadline=3.0), selection=InOrder(), fleet=fleet)
    first, second = it.train(2).records
    assert (first.clock, first.clients) == (3.0, (0, 1))                          # at the very second counts
    assert first.events == ("the answer of client 2 was too late",)
    assert (second.clock, second.clients) == (6.0, (0, 1))


def test_a_deadline_that_nobody_meets_changes_nothing_but_the_clock():
    it = experiment(schedule=Synchronous(0.5, deadline=0.5), fleet=Equal(1.0))
    before = it.initial().server.params
    history = it.train(2)
    assert np.array_equal(history.state.server.params, before)
    assert [(r.clock, r.clients) for r in history.records] == [(0.5, ()), (1.0, ())]


def test_a_deadline_does_not_wait_when_all_have_answered():
    assert steps(experiment(schedule=Synchronous(0.5, deadline=50.0)), 2)[1][0] == 2.0


# --- buffered ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 3, 6])
@pytest.mark.parametrize("seconds", [1.0, 0.0])
def test_equal_speeds_with_buffer_cohort_and_concurrency_alike_are_synchronous_to_the_bit(count, seconds):
    parts = {"fleet": Equal(seconds), "weights": Uniform()}
    rounds = experiment(schedule=Synchronous(count / 6), **parts).train(5)
    buffered = experiment(schedule=Buffered(count, count), **parts).train(5)
    assert rounds.records == buffered.records
    assert rounds.state.server.params.tobytes() == buffered.state.server.params.tobytes()


def test_one_at_a_time_is_sequential_training():
    """One client at work and every answer a step: w ← w + delta, as a plain loop over torch.optim.SGD."""
    data, model, how = federation(), logistic(5, 3), LocalSGD(lr=0.1, epochs=2, batch_size=4)
    spy = Spy()
    history = Coordinator(data, model, how, Buffered(1, 1), weights=UNIFORM, stages=[spy]).train(6)
    params = model.init(stream(0, "init"))
    for version, record in enumerate(history.records):
        (client,), staleness = record.clients, record.staleness
        assert staleness == (0,)
        params = params + train_alone(model, Task(client, Server(params, version)), data, how)
    np.testing.assert_allclose(history.state.server.params, params, atol=1e-6)
    assert len({record.clients for record in history.records}) > 1


def by_hand(seconds: dict, concurrency: int, buffer: int, rounds: int, limit: int | None, gone=()):
    """The event timeline of FedBuff with the first idle client started next: lists, no heap, nothing of the library."""
    now, version, working, asked, buffered, started = 0.0, 0, [], set(), [], 0
    out, too_old, over = [], 0, []
    while len(out) < rounds:
        for client in sorted(seconds):                                            # start whom we can
            busy = {job["client"] for job in working}
            if len(working) < min(concurrency, len(seconds)) and client not in busy | asked:
                working.append({"client": client, "from": version, "end": now + seconds[client], "n": started})
                asked.add(client)
                started += 1
        if working:
            ending = min(job["end"] for job in working)
            now = ending
            ended = sorted((job for job in working if job["end"] == ending), key=lambda job: job["n"])
        else:
            ended = []
        for job in ended:
            working.remove(job)
            age = version - job["from"]
            if job["client"] in gone:
                pass
            elif limit is not None and age > limit:
                too_old += 1
            else:
                buffered.append((job["client"], age))
            if len(buffered) >= buffer:
                over.append(too_old)
                out.append((now, tuple(c for c, _ in sorted(buffered)), tuple(a for _, a in sorted(buffered))))
                buffered, asked, version, too_old = [], set(), version + 1, 0
        if not ended:                                                             # all were asked, nobody is left
            over.append(too_old)
            out.append((now, tuple(c for c, _ in sorted(buffered)), tuple(a for _, a in sorted(buffered))))
            buffered, asked, version, too_old = [], set(), version + 1, 0
    return out[:rounds], over[:rounds]


@settings(max_examples=40)
@given(
    st.lists(st.sampled_from([1.0, 1.5, 2.0, 2.25, 3.0, 5.125, 9.0]), min_size=2, max_size=7),
    st.integers(1, 7), st.integers(1, 7), st.none() | st.integers(0, 2), st.booleans(),
)  # fmt: skip
def test_the_timeline_is_that_of_a_simulation_by_hand(times, concurrency, buffer, limit, drop):
    """Clocks, clients and staleness of every step, with ties, refusals and drop-outs."""
    seconds, buffer, gone = dict(enumerate(times)), min(buffer, len(times)), (0,) if drop else ()
    it = experiment(
        federation((2,) * len(times), tests=0), schedule=Buffered(concurrency, buffer, limit), selection=InOrder(),
        fleet=Timed(seconds, gone=gone), training=LocalSGD(epochs=1, batch_size=None),
    )  # fmt: skip
    history = it.train(8)
    expected, too_old = by_hand(seconds, concurrency, buffer, 8, limit, gone)
    assert [(r.clock, r.clients, r.staleness) for r in history.records] == expected
    assert [r.metrics.get("too_stale", 0) for r in history.records] == too_old


def test_a_slow_client_is_stale_by_the_steps_taken_meanwhile():
    it = experiment(federation((8, 8, 8)), schedule=Buffered(2, 1), selection=InOrder(), fleet=Timed({0: 1.0, 1: 2.5, 2: 1.0}))
    assert steps(it, 4) == [(1.0, (0,), (0,)), (2.0, (0,), (0,)), (2.5, (1,), (2,)), (3.0, (0,), (1,))]


def test_too_old_answers_are_refused_and_counted_and_their_bytes_too():
    it = experiment(
        federation((8, 8, 8)), schedule=Buffered(2, 1, max_staleness=1), selection=InOrder(),
        fleet=Timed({0: 1.0, 1: 2.5, 2: 1.0}),
    )  # fmt: skip
    record = it.train(3).records[2]
    assert (record.clock, record.clients, record.staleness) == (3.0, (0,), (0,))
    assert record.events == ("the answer of client 1 was refused: 2 versions old, the limit is 1",)
    assert record.metrics["too_stale"] == 1
    assert len(record.upload) == 1
    assert record.bytes_up["update"] > sum(record.upload)


def test_nothing_is_applied_before_the_buffer_is_full():
    it = experiment(schedule=Buffered(3, 4), fleet=LogNormal())
    assert all(len(record.clients) == 4 for record in it.train(6).records)


def test_what_is_in_flight_when_a_run_ends_is_heard_when_it_goes_on():
    it = experiment(schedule=Buffered(3, 2), fleet=LogNormal(speed_spread=1.0))
    whole, part = it.train(6), it.train(3)
    assert len(part.state.jobs) > 0
    rest = it.train(3, state=part.state)
    assert part.records + rest.records == whole.records
    assert rest.state.server.params.tobytes() == whole.state.server.params.tobytes()


def test_a_buffer_that_drop_outs_leave_unfilled_is_used_as_it_is():
    it = experiment(schedule=Buffered(6, 6), fleet=Timed(dict.fromkeys(range(6), 1.0), gone=(2, 3)))
    assert [record.clients for record in it.train(3).records] == [(0, 1, 4, 5)] * 3


def test_one_cohort_seen_from_the_stages():
    """Everybody who is asked with one version is of its cohort, and nobody is asked twice."""
    spy = Spy()
    experiment(schedule=Buffered(2, 3), fleet=LogNormal(), stages=[spy]).train(5)
    for _, cohort in spy.asked:
        assert len(set(cohort)) == len(cohort)


# --- refusals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Synchronous(0), "fraction must be in"),
        (lambda: Synchronous(1.5), "not 1.5"),
        (lambda: Synchronous(-0.1), "fraction"),
        (lambda: Synchronous(math.nan), "not nan"),
        (lambda: Synchronous(min_clients=0), "min_clients"),
        (lambda: Synchronous(min_clients=1.5), "min_clients"),
        (lambda: Synchronous(over_selection=-0.1), "over_selection"),
        (lambda: Synchronous(over_selection=math.inf), "over_selection"),
        (lambda: Synchronous(deadline=0), "deadline"),
        (lambda: Synchronous(deadline=math.nan), "deadline"),
        (lambda: Buffered(0, 1), "concurrency"),
        (lambda: Buffered(1, 0), "buffer"),
        (lambda: Buffered(2.5, 1), "concurrency"),
        (lambda: Buffered(1, 1, max_staleness=-1), "max_staleness"),
        (lambda: experiment(schedule=Synchronous(0.1, min_clients=7)), "only 6 clients"),
        (lambda: experiment(schedule=Buffered(3, 7)), "buffer of 7 answers never fills: only 6"),
        (lambda: experiment(schedule=Buffered(3, 3), selection=PoissonSelection()), "draws from all clients at once"),
    ],
)
def test_values_that_make_no_schedule_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
