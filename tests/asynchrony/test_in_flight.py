"""Jobs in flight: trained now or later the same bytes, cut anywhere and resumed the same run, and no stranger's answer."""

import re
from dataclasses import replace

import numpy as np
import pytest
from small import Half, Lie, Timed, experiment, federation

import fl_course.federation.coordinator as loop
from fl_course import (
    QSGD,
    Buffered,
    CompositionError,
    Equal,
    FedProx,
    LocalSGD,
    LogNormal,
    PoissonSelection,
    Scaffold,
    SecureSum,
    SemiSynchronous,
    Stragglers,
    Synchronous,
    TopK,
    Uniform,
    WeightedMean,
    fedasync,
    fedbuff,
    load,
    save,
)
from fl_course.federation.agenda import Agenda
from fl_course.federation.archive import difference
from fl_course.federation.work import Work

DATA = federation((3, 8, 5, 8, 4, 6), ids=["a", 7, "c", 300, 70000, 5])
FLEET = LogNormal(speed_spread=1.0, jitter=0.3, drop=0.15, up_mbit=0.05)
HOW = LocalSGD(lr=0.1, epochs=2, batch_size=4)
RUNS = {
    "fedasync": fedasync(4),
    "fedasync, bounded": fedasync(5, max_staleness=2),
    "fedasync with a proximal term": fedasync(4) | {"training": replace(HOW, correction=FedProx(0.5))},
    "fedbuff": fedbuff(4, 2, by_examples=True),
    "fedbuff, residuals": fedbuff(4, 3) | {"stages": [TopK(0.4), QSGD(6)]},
    "fedbuff, drawers": fedbuff(5, 2) | {"stages": [Half()]},
    "stragglers": fedbuff(4, 2) | {"training": replace(HOW, epochs=Stragglers(0.5, 3))},
    "semi-synchronous": {"schedule": SemiSynchronous(0.7, deadline=0.12)},
    "over-selected": {"schedule": Synchronous(0.4, over_selection=0.6)},
}  # fmt: skip


def build(name, **more):
    return experiment(DATA, fleet=FLEET, **({"training": HOW} | RUNS[name] | more))


def equal(one, other):
    assert one.records == other.records
    assert not difference(replace(one.state, jobs=()), replace(other.state, jobs=()))
    assert [(j.ticket, j.client, j.base.params.tobytes()) for j in one.state.jobs] == [
        (j.ticket, j.client, j.base.params.tobytes()) for j in other.state.jobs]                       # fmt: skip


# --- lazy and eager ----------------------------------------------------------------------------------------------------


def eager(monkeypatch, run):
    """The same run, with every client trained, alone, at the very moment when it is asked."""
    works, broadcast = [], loop.broadcast

    def remembered(*args):
        works.append(Work(*args))
        return works[-1]

    def at_once(experiment, ctx, chosen, *rest):
        for ends, job, message in broadcast(experiment, ctx, chosen, *rest):
            yield ends, works[-1].finish({job.ticket: job}, ctx, True)[job.ticket], message

    with monkeypatch.context() as patch:
        patch.setattr(loop, "Work", remembered)
        patch.setattr(loop, "broadcast", at_once)
        return run()


@pytest.mark.parametrize("name", RUNS)
def test_trained_at_once_or_when_it_is_due_the_same_bytes(name, monkeypatch):
    calls, finish = [], Work.finish
    it = build(name)
    with monkeypatch.context() as patch:
        patch.setattr(Work, "finish", lambda self, jobs, *args: calls.append(
            sum(job.message is None and not job.lost for job in jobs.values())) or finish(self, jobs, *args))      # fmt: skip
        lazy = it.train(10)
    assert max(calls) > 1                                                  # cohorts, not one by one
    equal(lazy, eager(monkeypatch, lambda: it.train(10)))


def test_all_who_are_untrained_train_together_when_the_first_of_them_is_due(monkeypatch):
    """Six clients at work from second 0, of 1, 2 … 6 s. Whoever starts later waits until somebody untrained is due."""
    trained, finish = [], Work.finish

    def told(self, jobs, ctx, heard):
        trained.append(sorted(job.client for job in jobs.values() if job.message is None and not job.lost))
        return finish(self, jobs, ctx, heard)

    monkeypatch.setattr(Work, "finish", told)
    experiment(fleet=Timed({k: 1.0 + k for k in range(6)}), **fedasync(6)).train(6)
    assert trained[0] == [0, 1, 2, 3, 4, 5]
    assert trained[1] == [0]                                               # nobody else is untrained at second 2
    assert trained[2] == [0, 1]                                            # 0 and 1 began at 2, 0 is due at 3


# --- cut anywhere --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RUNS)
def test_a_run_cut_after_any_step_goes_on_to_the_bit(name, tmp_path):
    it, steps = build(name), 9
    whole = it.train(steps)
    for cut in range(1, steps):
        first = it.train(cut)
        save(tmp_path / "state", first, it)
        state = load(tmp_path / "state", it)
        assert not difference(state, first.state)                          # with the versions in flight
        rest = it.train(steps - cut, state)
        assert first.records + rest.records == whole.records
        assert rest.state.server.params.tobytes() == whole.state.server.params.tobytes()
        assert not difference(rest.state, whole.state)


@pytest.mark.parametrize("name", ["fedasync, bounded", "fedbuff, residuals", "semi-synchronous"])
def test_a_run_interrupted_at_any_event_goes_on_to_the_bit(name, monkeypatch):
    """Also in the middle of a step: what that step had done so far is done again, the same."""
    it, steps, events, following = build(name), 5, 0, Agenda.next

    def stopping(at):
        def next_event(self):
            nonlocal events
            events += 1
            if events == at:
                raise KeyboardInterrupt
            return following(self)

        return next_event

    monkeypatch.setattr(Agenda, "next", stopping(0))
    whole = it.train(steps)
    total, cuts = events, set()
    for at in range(1, total + 1):
        events = 0
        monkeypatch.setattr(Agenda, "next", stopping(at))
        first = it.train(steps)
        assert first.stopped == "interrupted"
        monkeypatch.setattr(Agenda, "next", following)
        rest = it.train(steps - len(first), first.state)
        assert first.records + rest.records == whole.records
        assert not difference(rest.state, whole.state)
        cuts.add(len(first))
    assert cuts == set(range(steps))
    assert total > 3 * steps


def test_versions_in_flight_are_in_the_file():
    state = build("fedasync").train(8).state
    versions = {job.base.version for job in state.jobs}
    assert len(versions) > 1
    assert min(versions) < state.server.version


def test_what_is_in_flight_when_a_run_ends_is_used_later():
    it = experiment(DATA, fleet=LogNormal(speed_spread=1.0), **fedbuff(4, 2))
    first = it.train(4)
    waiting = {(job.client, job.base.version) for job in first.state.jobs}
    assert len(waiting) == 3
    rest = it.train(25, first.state)
    assert waiting <= {(span.client, span.version) for span in rest.spans() if span.fate == "used"}
    assert waiting == {(span.client, span.version) for span in first.spans() if span.fate == "at work"}


# --- the limits of the buffer -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fleet", [Equal(), Equal(0.0)], ids=repr)
@pytest.mark.parametrize("count", [1, 4, 6])
def test_equal_speeds_and_buffer_as_cohort_is_synchronous_to_the_bit(fleet, count):
    rounds = experiment(DATA, fleet=fleet, schedule=Synchronous(count / 6), weights=Uniform()).train(5)
    mixing = fedasync(count, 1.0) | {"schedule": Buffered(count, count)}
    for parts in (fedbuff(count, count), fedbuff(count, count, discount=None), mixing):
        other = experiment(DATA, fleet=fleet, **parts).train(5)
        assert other.records == rounds.records
        assert other.state.server.params.tobytes() == rounds.state.server.params.tobytes()


def test_who_finishes_at_the_same_instant_is_heard_before_anybody_is_started():
    """Three devices of 1 s: nobody starts from a version that the answers of that very instant are about to replace."""
    history = experiment(federation((4, 4, 4)), fleet=Equal(1.0), **fedbuff(3, 3)).train(4)
    assert [(r.clock, r.clients, r.staleness) for r in history.records] == [
        (second, (0, 1, 2), (0, 0, 0)) for second in (1.0, 2.0, 3.0, 4.0)]                             # fmt: skip
    one_by_one = experiment(federation((4, 4, 4)), fleet=Equal(1.0), **fedbuff(3, 1)).train(6)
    assert [record.clock for record in one_by_one.records] == [1.0, 1.0, 1.0, 2.0, 2.0, 2.0]
    assert [record.staleness for record in one_by_one.records] == [(0,), (1,), (2,), (0,), (1,), (2,)]


# --- strangers ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parts", [fedasync(3), fedbuff(3, 2), {"schedule": SemiSynchronous(0.5, deadline=0.1)}], ids=list("abs"))
@pytest.mark.parametrize(
    ("lie", "word"),
    [
        (lambda update: replace(update, version=update.version + 1), "version"),          # from the future
        (lambda update: replace(update, version=update.version + 10**6), "version"),
        (lambda update: replace(update, version=max(update.version - 1, 0) if update.version else 3), "version"),
        (lambda update: replace(update, version=-1), "version|head"),
        (lambda update: replace(update, client=99), "claims to be of client 99"),         # nobody knows it
        (lambda update: replace(update, client="3"), "claims to be of client '3'"),
        (lambda update: replace(update, client=4), "claims to be of client 4"),           # somebody else
    ],
)
def test_answers_that_cannot_be_are_refused_and_cost_nobody_else_anything(parts, lie, word):
    it = experiment(stages=[Lie(3, lie)], fleet=LogNormal(speed_spread=0.2), **parts)
    history = it.train(25)
    refused = [event for record in history.records for event in record.events if "was refused" in event]
    assert refused
    assert all("of client 3 " in event for event in refused)
    assert all(re.search(word, event) for event in refused)
    spans = [span for record in history.records for span in record.spans if span.fate == "refused"]
    assert len(spans) == len(refused) == sum(record.metrics.get("refused", 0) for record in history.records)
    assert not any(3 in record.clients for record in history.records)
    assert sum(record.bytes_up.get("update", 0) for record in history.records) == sum(
        span.nbytes for record in history.records for span in record.spans if span.fate in ("used", "refused"))   # fmt: skip
    assert np.isfinite(history.state.server.params).all()


# --- beside what it is unsound ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parts", [fedasync(3), fedbuff(3, 2)], ids=["fedasync", "fedbuff"])
@pytest.mark.parametrize(
    "unsound",
    [{"training": LocalSGD(correction=Scaffold())}, {"training": LocalSGD(correction=Scaffold(1))}, {"stages": [SecureSum(1.0)]},
     {"stages": [SecureSum(1.0, masked=False)]}, {"selection": PoissonSelection()}],
    ids=["scaffold", "scaffold 1", "secure", "secure, plain", "amplification"],
)  # fmt: skip
def test_refused(parts, unsound):
    with pytest.raises(CompositionError):
        experiment(**(parts | unsound))
    if "stages" not in unsound:
        with pytest.raises(CompositionError):
            experiment(**(parts | {"aggregation": WeightedMean()} | unsound))
