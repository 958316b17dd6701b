"""Known times, groups of speed, how many answers a second; who is heard, and what schedules are compared at."""

import heapq
import itertools
import math
import random

import numpy as np
import pytest
from small import Timed, experiment, federation

from fl_course import (
    Buffered,
    Ditto,
    Evaluation,
    History,
    Known,
    LocalSGD,
    LogNormal,
    Stragglers,
    Synchronous,
    answer_rate,
    answer_rates,
    fedasync,
    fedbuff,
    heard,
    job_seconds,
    reached,
    rehearse,
    speed_groups,
    staleness_counts,
    within,
)
from fl_course.asynchrony.devices import _busy, _busy_of_many

# --- what a job takes --------------------------------------------------------------------------------------------------


def test_known_times_are_those_of_every_job():
    it = experiment(fleet=Known({k: 1.0 + k for k in range(6)}, down=0.25, up=0.5), **fedbuff(4, 2))
    assert job_seconds(it) == {k: 1.75 + k for k in range(6)}
    for span in (span for record in it.train(5).records for span in record.spans):
        assert span.ended - span.begun == 1.75 + span.client
        assert (span.downloaded - span.begun, span.ended - span.trained) == (0.25, 0.5)


def test_the_trace_is_the_same_whatever_the_schedule():
    fleet = Known({k: 1.0 + k for k in range(6)}, spread=0.5)
    spans = []
    for schedule in (Synchronous(1.0), Buffered(6, 6), Buffered(3, 2)):
        jobs = experiment(fleet=fleet, schedule=schedule).train(6).spans()
        spans.append({(job.client, job.version): round(job.trained - job.begun, 9) for job in jobs if job.fate == "used"})
    for one, other in itertools.combinations(spans, 2):
        assert one.keys() & other.keys()
        assert all(one[job] == other[job] for job in one.keys() & other.keys())


def test_the_luck_of_a_job_is_normal_and_never_takes_it_below_nought():
    fleet = Known({0: 100.0, 1: 0.5}, spread=5.0)
    lucks = [lambda i=i: np.random.default_rng(i) for i in range(2000)]
    long = np.array([fleet.compute(0, 1, luck) for luck in lucks])
    assert abs(long.mean() - 100) < 0.5
    assert abs(long.std() - 5) < 0.3
    assert min(fleet.compute(1, 1, luck) for luck in lucks) == 0.0


def test_some_jobs_are_never_answered_and_which_is_luck_with_a_name():
    it = experiment(fleet=Known(dict.fromkeys(range(6), 1.0), drop=0.3), **fedbuff(4, 2))
    spans = rehearse(it, 300).spans()
    share = sum(span.fate == "dropped out" for span in spans) / len(spans)
    assert share == pytest.approx(0.3, abs=0.05)
    assert [span.fate for span in it.train(9).spans() if span.fate != "at work"] == [s.fate for s in rehearse(it, 9).spans()]


@pytest.mark.parametrize("fleet", [LogNormal(speed_spread=1.0), LogNormal(up_mbit=0.01), Known(dict.fromkeys(range(6), 2.5))])
@pytest.mark.parametrize("epochs", [1, 3])
def test_what_a_job_takes_is_told_without_training(fleet, epochs):
    it = experiment(federation((3, 8, 5, 8, 4, 6)), training=LocalSGD(epochs=epochs), fleet=fleet, schedule=Synchronous(1.0))
    told = job_seconds(it)
    for span in it.train(1).records[0].spans:
        assert told[span.client] == pytest.approx(span.ended - span.begun, rel=1e-6)


@pytest.mark.parametrize("epochs", [2, Stragglers(0.5, 3)], ids=repr)
def test_what_a_personal_method_trains_beside_it_takes_its_time_there_too(epochs):
    training = LocalSGD(lr=0.1, batch_size=4, epochs=epochs, personal=Ditto(1.0))
    it = experiment(training=training, fleet=LogNormal(examples_per_second=10.0), schedule=Synchronous(1.0))
    told, real, quick = job_seconds(it), it.train(2), rehearse(it, 2)
    for span in real.records[0].spans:
        assert told[span.client] == pytest.approx(span.ended - span.begun, rel=1e-3)
    assert [record.clock for record in quick.records] == [record.clock for record in real.records]
    assert [record.spans for record in quick.records] == [record.spans for record in real.records]


def test_the_mean_over_many_lucks():
    it = experiment(fleet=LogNormal(jitter=0.5, speed_spread=0, link_spread=0), training=LocalSGD(epochs=Stragglers(0.0, 2)))
    plain = job_seconds(experiment(fleet=LogNormal(speed_spread=0, link_spread=0), training=LocalSGD(epochs=2)))
    mean = job_seconds(it, draws=2000)
    for client, seconds in plain.items():                                  # E exp(jitter·z) = exp(jitter²/2)
        assert mean[client] == pytest.approx(seconds * math.exp(0.125), rel=0.06)


def test_groups_are_equal_in_number_and_the_fastest_come_first():
    assert speed_groups({"a": 3, "b": 1, 7: 2, 2: 2}, 2) == [("b", 2), (7, "a")]
    assert speed_groups({k: -k for k in range(7)}, 3) == [(6, 5), (4, 3, 2), (1, 0)]
    assert speed_groups({0: 1}, 1) == [(0,)]


# --- answers a second ----------------------------------------------------------------------------------------------------


def test_rates_add():
    """The published example: 105, 205 and 405 s, and a prediction with the wrong mean."""
    t = [105, 205, 405]
    assert 3 / answer_rate(t) == pytest.approx(177.8, abs=0.05)            # the harmonic mean, not 238.3
    assert 1 / answer_rate(t) == pytest.approx(59.27, abs=0.01)
    rates = answer_rates(dict(enumerate(t)))
    assert rates == {k: pytest.approx(1 / t[k]) for k in range(3)}
    assert rates[0] / rates[2] == pytest.approx(3.86, abs=0.01)


def by_sets(t, c):
    """How often each is heard, from the chance of every set of c clients to be the one at work."""
    total, rates = 0.0, [0.0] * len(t)
    for at_work in itertools.combinations(range(len(t)), c):
        chance = math.prod(t[i] for i in at_work)
        total += chance
        for i in at_work:
            rates[i] += chance / t[i]
    return [rate / total for rate in rates]


@pytest.mark.parametrize("c", range(1, 7))
def test_the_rates_are_those_of_the_sum_over_all_sets(c):
    t = [1.0, 2.0, 3.0, 7.0, 20.0, 0.5]
    np.testing.assert_allclose(list(answer_rates(dict(enumerate(t)), c).values()), by_sets(t, c), rtol=1e-12)


def test_one_at_a_time_the_arithmetic_mean_is_right_and_everybody_is_heard_alike():
    t = [1.0, 2.0, 9.0]
    assert answer_rate(t, 1) == pytest.approx(1 / 4)
    assert len(set(np.round(list(answer_rates(dict(enumerate(t)), 1).values()), 12))) == 1
    assert answer_rate(t, 3) == answer_rate(t, 99) == answer_rate(t)


@pytest.mark.parametrize("c", [2, 4])
def test_the_rates_are_those_of_devices_without_memory(c):
    t, rng = [1.0, 2.0, 4.0, 0.5, 3.0], random.Random(c)
    idle, heap, now, count = list(range(5)), [], 0.0, [0] * 5
    for _ in range(60_000 + c):
        if len(heap) == c:
            now, i = heapq.heappop(heap)
            count[i] += 1
            idle.append(i)
        i = idle.pop(rng.randrange(len(idle)))
        heapq.heappush(heap, (now + rng.expovariate(1 / t[i]), i))
    np.testing.assert_allclose([n / now for n in count], list(answer_rates(dict(enumerate(t)), c).values()), rtol=0.04)


@pytest.mark.parametrize("c", [1, 7, 150, 399])
def test_the_limit_of_many_is_close_and_beyond_400_it_is_told(c):
    t = np.exp(np.random.default_rng(0).standard_normal(400))
    np.testing.assert_allclose(_busy(t, c), _busy_of_many(t, c), rtol=0.04)
    assert _busy(t, c).sum() == pytest.approx(c)
    many = dict(enumerate(np.tile(t, 25).tolist()))                        # 10,000 devices
    assert answer_rate(many, 25 * c) == pytest.approx(25 * answer_rate(t.tolist(), c), rel=0.03)


def test_the_clock_agrees_with_the_prediction():
    """NVFLARE's kind of fleet, 16 devices of 100, 200 or 400 s: everybody at work, and 6 of them."""
    seconds = {k: (100.0, 200.0, 400.0)[k % 3] for k in range(16)}
    data = federation((2,) * 16, tests=0)
    for concurrency in (16, 6):
        it = experiment(data, fleet=Known(seconds, spread=5.0), **fedasync(concurrency))
        history = rehearse(it, 3000)
        measured = 3000 / history.records[-1].clock
        assert measured == pytest.approx(answer_rate(job_seconds(it), concurrency), rel=0.05)
        wrong = concurrency / np.mean(list(seconds.values()))
        assert concurrency < 16 or measured > 1.2 * wrong                  # the arithmetic mean promises too little


# --- who is heard --------------------------------------------------------------------------------------------------------


def test_the_lines_add_up_and_the_fast_are_heard_more_often():
    it = experiment(federation((8,) * 9), fleet=Known({k: 1.0 + 2 * k for k in range(9)}), **fedbuff(9, 3))
    history = it.train(20)
    lines = heard(it, history)
    assert [line.group for line in lines] == ["1 of 3", "2 of 3", "3 of 3"]
    assert [line.clients for line in lines] == [(0, 1, 2), (3, 4, 5), (6, 7, 8)]
    assert [line.seconds for line in lines] == [3.0, 9.0, 15.0]
    assert sum(line.updates for line in lines) == 60
    assert sum(line.share for line in lines) == pytest.approx(1)
    assert [line.fair for line in lines] == [pytest.approx(1 / 3)] * 3
    assert lines[0].share > 2 * lines[2].share
    assert lines[0].staleness < lines[2].staleness
    for line in lines:                                                     # by hand, from the records
        ages = [a for r in history.records for c, a in zip(r.clients, r.staleness, strict=True) if c in line.clients]
        assert (line.updates, line.staleness) == (len(ages), pytest.approx(sum(ages) / len(ages)))
        own = [np.mean(it.model.predict(history.state.server.params, it.data.x[rows]).argmax(1) == it.data.y[rows])
               for k, rows in enumerate(it.data.test) if k in line.clients]  # fmt: skip
        assert line.measure == pytest.approx(np.mean(own))
    assert heard(it, history, [(8, 0), (4,)])[0].clients == (8, 0)


def test_in_rounds_with_everybody_all_are_heard_alike():
    it = experiment(fleet=LogNormal(speed_spread=2.0), schedule=Synchronous(1.0))
    assert [line.share for line in heard(it, it.train(3), 2)] == [0.5, 0.5]


def test_a_history_without_a_model_or_without_anybody_is_told_as_it_is():
    it = experiment(federation((8,) * 4, tests=0), fleet=LogNormal(), **fedasync(2))
    lines = heard(it, History.from_json(it.train(3).to_json()), 2)
    assert all(math.isnan(line.measure) for line in lines)
    empty = heard(it, History(), 2)
    assert [(line.updates, math.isnan(line.share), math.isnan(line.staleness)) for line in empty] == [(0, True, True)] * 2


def test_what_was_measured_elsewhere_is_taken():
    it = experiment(federation((8,) * 4), fleet=Known({0: 1.0, 1: 2.0, 2: 3.0, 3: 4.0}), **fedasync(2))
    history = it.train(3)
    lines = heard(it, history, 2, np.array([0.5, 1.0, math.nan, 0.25]))
    assert [line.measure for line in lines] == [0.75, 0.25]
    with pytest.raises(ValueError, match="measured has 3 numbers, the data have 4"):
        heard(it, history, 2, [0.5, 1.0, 1.0])


def test_how_stale():
    it = experiment(federation((8, 8, 8)), schedule=Buffered(2, 1), fleet=Timed({0: 1.0, 1: 2.5, 2: 1.0}))
    history = it.train(40)
    counts, ages = staleness_counts(history), [age for record in history.records for age in record.staleness]
    assert counts == {age: ages.count(age) for age in range(max(ages) + 1)}
    assert staleness_counts(History()) == {}


# --- at equal cost ---------------------------------------------------------------------------------------------------------


def test_within_a_budget():
    it = experiment(fleet=LogNormal(), **fedbuff(4, 2))
    history = it.train(10)
    assert len(within(history, updates=7)) == 3                            # 2 answers a step
    assert within(history, updates=20).state is history.state
    assert within(history, updates=19).state is None
    clocks = [record.clock for record in history.records]
    assert len(within(history, seconds=clocks[4])) == 5                    # at the very second is within
    sent = np.cumsum([record.nbytes for record in history.records]) / 1e6
    assert len(within(history, megabytes=sent[6])) == 7
    assert len(within(history, updates=7, seconds=clocks[0])) == 1
    assert len(within(history, updates=0)) == 0
    assert within(history, seconds=math.inf).records == history.records


def test_what_it_took():
    it = experiment(fleet=LogNormal(), evaluation=Evaluation(2), **fedbuff(4, 2))
    history = it.train(10)
    best = max(value for value in history.series("accuracy") if value == value)
    cost = reached(history, best)
    record = history.records[cost.steps - 1]
    assert record.metrics["accuracy"] == best
    assert (cost.steps, cost.updates, cost.seconds) == (history.rounds_to(best), 2 * cost.steps, record.clock)
    assert cost.megabytes == pytest.approx(sum(r.nbytes for r in history.records[: cost.steps]) / 1e6)
    assert reached(history, 1.01) is None
    assert reached(history, history.last("loss") + 1e-9, "loss").steps == history.rounds_to(history.last("loss") + 1e-9, "loss")


# --- refusals ----------------------------------------------------------------------------------------------------------------

IT = experiment()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Known({}), "seconds says how long"),
        (lambda: Known([1, 2]), "seconds says how long"),
        (lambda: Known({0: -1}), "client 0 must be a finite number"),
        (lambda: Known({0: math.nan}), "client 0 must be a finite number"),
        (lambda: Known({0: "1"}), "client 0 must be a finite number"),
        (lambda: Known({0: True}), "client 0 must be a finite number"),
        (lambda: Known({0: 1}, spread=math.inf), "spread must be a finite"),
        (lambda: Known({0: 1}, up=-1), "up must be a finite"),
        (lambda: Known({0: 1}, drop=1), "drop must be a probability"),
        (lambda: experiment(fleet=Known({0: 1.0}), schedule=Synchronous(1.0)).train(1), "not known how long client 1 takes"),
        (lambda: job_seconds(IT, 0), "draws must be"),
        (lambda: speed_groups({0: 1}, 2), "groups must be"),
        (lambda: speed_groups({0: 1}, 0), "groups must be"),
        (lambda: answer_rate([]), "positive number of seconds"),
        (lambda: answer_rate([1, 0]), "positive number of seconds"),
        (lambda: answer_rate([1, math.nan]), "finite number of seconds"),
        (lambda: answer_rate([1, 2], 0), "concurrency must be"),
        (lambda: answer_rate([1, 2], 1.5), "concurrency must be"),
        (lambda: heard(IT, History(), 7), "groups must be"),
        (lambda: heard(IT, History(), [(0, 99)]), "groups are made of clients"),
        (lambda: heard(IT, History(), [(0,), ()]), "groups are made of clients"),
        (lambda: heard(IT, History(), [(0, 1), (1, 2)]), "each in one group"),
        (lambda: within(History()), "a budget of what"),
        (lambda: within(History(), updates=-1), "updates must be a number from 0"),
        (lambda: within(History(), seconds=math.nan), "seconds must be a number from 0"),
    ],
)
def test_what_makes_no_sense_is_refused(make, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make()
