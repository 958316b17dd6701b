"""What goes wrong at one client costs its own answer; what goes wrong at all of them, or at the server, is said aloud."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small import UNIFORM, InOrder, Lie, Spy, Timed, experiment, federation

from fl_course import (
    Aggregate,
    Aggregation,
    BudgetSpent,
    Buffered,
    ClientFailure,
    Correction,
    Equal,
    FedAdam,
    FedAvg,
    History,
    LocalSGD,
    LogNormal,
    Selector,
    Stage,
    Synchronous,
    TopK,
    Uniform,
)
from fl_course.core import Server
from fl_course.engine.models import Dense
from fl_course.federation.interfaces import PrivateTraining, ServerOptimizer
from fl_course.federation.work import Work

ALL = Synchronous(1.0)
ONE_SECOND = dict.fromkeys(range(6), 1.0)


class Odd(Exception):
    """Of no known kind."""


# --- one client ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Trouble:
    """Raises an exception, or hands back nothing, for some clients; for nobody if there are none."""

    clients: tuple = ()
    kind: type | None = None

    def __call__(self, client, result):
        if client not in self.clients:
            return result
        if self.kind is None:
            return None
        raise self.kind(f"trouble at {client!r}")


class InStage(Stage):
    def __init__(self, trouble):
        self.trouble = trouble

    def client(self, update, ctx):
        return self.trouble(update.client, update)


class InCorrection(Correction):
    def __init__(self, trouble, where):
        self.trouble, self.where = trouble, where

    def rows(self, task):
        return self.trouble(task.client, {}) if self.where == "rows" else {}

    def finish(self, task, delta, steps, lr, gradient):
        return self.trouble(task.client, {}) if self.where == "finish" else {}


class InTrainer(PrivateTraining):
    def __init__(self, trouble):
        self.trouble = trouble

    def check(self, experiment):
        pass

    def train(self, tasks, trainer):
        plain = replace(trainer, how=replace(trainer.how, private=None))
        return [self.trouble(task.client, update) for task, update in zip(tasks, plain.train(tasks), strict=True)]


@dataclass(frozen=True)
class InModel(Dense):
    """Fails on data that hold a mark: the first feature of every example of client k is (k + 1) / 8."""

    trouble: Trouble = Trouble()

    def losses(self, layers, x, y):
        for client in self.trouble.clients:
            if bool((x[..., 0] == (client + 1) / 8).any()):
                self.trouble(client, x)
        return Dense.losses(self, layers, x, y)


def troubled(where: str, trouble: Trouble, **parts):
    """An experiment with this trouble in this place, otherwise the same for every trouble."""
    data, how = federation(), {"lr": 0.1, "epochs": 2, "batch_size": 4, "together": 1}
    if where == "stage":
        return experiment(data, training=LocalSGD(**how), stages=[InStage(trouble)], **parts)
    if where in ("rows", "finish"):
        return experiment(data, training=LocalSGD(correction=InCorrection(trouble, where), **how), **parts)
    if where == "epochs":
        return experiment(data, training=LocalSGD(**how | {"epochs": lambda client, rng: trouble(client, 2)}), **parts)
    if where == "trainer":
        return experiment(data, training=LocalSGD(private=InTrainer(trouble), **how), **parts)
    x = data.x.copy()
    for client in range(6):
        x[data.train[client], 0] = (client + 1) / 8
    return replace(experiment(replace(data, x=x), training=LocalSGD(**how), **parts), model=InModel((5, 3), trouble=trouble))


PLACES = ["stage", "rows", "finish", "epochs", "trainer", "model"]
KINDS = [ValueError, KeyError, ZeroDivisionError, MemoryError, AssertionError, RuntimeError, Odd, None]


@pytest.mark.parametrize("where", PLACES)
@settings(max_examples=8)
@given(st.sets(st.integers(0, 5), min_size=1, max_size=4), st.sampled_from(KINDS), st.booleans())
def test_what_one_client_raises_costs_its_own_answer(where, failing, kind, together):
    """Left out, recorded with type and text, warned of once; the model is that of a run in which they had vanished."""
    kind = Odd if where in ("model", "finish") and kind is None else kind       # None is an answer of its own there
    trouble, rounds, others = Trouble(tuple(failing), kind), 2, tuple(k for k in range(6) if k not in failing)
    parts = {"schedule": ALL if together else Buffered(6, 6), "selection": InOrder()}
    with pytest.warns(RuntimeWarning) as said:
        history = troubled(where, trouble, **parts).train(rounds)
    vanished = troubled(where, Trouble(), fleet=Timed(ONE_SECOND, gone=tuple(failing)), **parts).train(rounds)
    assert len(said) == 1
    assert f"client {min(failing)} failed in version 0: " in str(said[0].message)
    assert [record.clients for record in history.records] == [others] * rounds
    assert history.state.server.params.tobytes() == vanished.state.server.params.tobytes()
    for record in history.records:
        assert record.metrics["failed"] == len(record.events) == len(failing)
        for client, event in zip(sorted(failing), sorted(record.events), strict=True):
            start = f"client {client} failed in version {record.version - 1}: "
            assert event.startswith(start)
            if kind is not None:
                assert event.removeprefix(start).startswith(f"{kind.__name__}: ")
                assert f"trouble at {client}" in event
    (line,) = repr(history).splitlines()[1:]
    assert line.startswith(f"{rounds * len(failing)} clients failed; the first: client {min(failing)} failed in version 0: ")
    assert History.from_json(history.to_json()).lost() == line
    assert all(vanished.records[-1].clients == record.clients for record in history.records)
    assert set(history.state.memory) == set(vanished.state.memory)


@pytest.mark.parametrize("where", PLACES)
def test_what_everybody_raises_is_a_bug_and_raised_as_it_was(where):
    for kind in (Odd, ZeroDivisionError):
        for schedule in (ALL, Buffered(4, 2), Synchronous(0.1)):
            with pytest.raises(kind, match="trouble at") as caught:
                troubled(where, Trouble(tuple(range(6)), kind), schedule=schedule).train(1)
            assert type(caught.value) is kind
            assert "failed in version 0" in caught.value.__notes__[0]


@pytest.mark.parametrize("where", PLACES)
def test_strict_raises_the_exception_itself(where):
    with pytest.raises(Odd, match="trouble at 4") as caught:
        troubled(where, Trouble((4,), Odd), schedule=ALL, strict=True).train(1)
    assert caught.value.__notes__ == ["client 4 failed in version 0: Odd: trouble at 4"]


class InTurn(Selector):
    """One client after the other, whatever became of those before."""

    def __init__(self):
        self.asked = []

    def select(self, idle, k, rng, reports):
        self.asked.append(min(set(idle) - set(self.asked)))
        return [self.asked[-1]]


def test_one_client_asked_alone_is_no_proof_of_a_bug_once_others_have_answered():
    it = troubled("stage", Trouble((2,), Odd), schedule=Synchronous(0.1), selection=InTurn())
    with pytest.warns(RuntimeWarning, match="client 2 failed in version 2"):
        history = it.train(6)
    assert [record.clients for record in history.records] == [(0,), (1,), (), (3,), (4,), (5,)]
    first = replace(it, stages=[InStage(Trouble((0,), Odd))], selection=InTurn())
    with pytest.raises(Odd):                                             # nobody has ever answered
        first.train(1)
    later = replace(it, stages=[InStage(Trouble((1,), Odd))], selection=InTurn())
    state = later.train(1).state
    with pytest.warns(RuntimeWarning, match="client 1"):                 # somebody has, before the run was resumed
        assert later.train(1, state).records[0].clients == ()


def test_what_everybody_raises_later_is_a_bug_too():
    class Later(Stage):
        def client(self, update, ctx):
            if update.version == 2:
                raise Odd("trouble at all")
            return update

    steps = experiment(stages=[Later()], schedule=ALL).run(5)
    assert [len(next(steps)[1].clients) for _ in range(2)] == [6, 6]
    with pytest.raises(Odd, match="trouble at all"):
        next(steps)


def test_failures_said_on_purpose_are_no_bug_and_no_warning():
    class Refuses(Stage):
        def client(self, update, ctx):
            raise ClientFailure("the battery is empty")

    with pytest.warns(RuntimeWarning, match="no update was ever used") as said:
        history = experiment(stages=[Refuses()], schedule=ALL, selection=InOrder()).train(2)
    assert len(said) == 1
    assert history.records[0].events[0] == "client 0 failed in version 0: the battery is empty"
    mixed = experiment(stages=[Refuses2()], schedule=ALL)
    with pytest.warns(RuntimeWarning, match="client 5 failed in version 0: Odd: "):
        assert mixed.train(1).records[0].clients == (4,)


class Refuses2(Stage):
    def client(self, update, ctx):
        if update.client < 4:
            raise ClientFailure("on purpose")
        if update.client == 5:
            raise Odd("by\naccident " + "x" * 1000)
        return update


def test_a_long_exception_is_one_short_line():
    with pytest.warns(RuntimeWarning):
        (event,) = [e for e in experiment(stages=[Refuses2()], schedule=ALL).train(1).records[0].events if "Odd" in e]
    assert "\n" not in event
    assert event.startswith("client 5 failed in version 0: Odd: by accident xxx")
    assert len(event) < 350


def test_a_spent_budget_is_no_failure():
    class Spends(Stage):
        def client(self, update, ctx):
            if update.client == 3 and ctx.server.version == 1:
                raise BudgetSpent("that was all")
            return update

    history = experiment(stages=[Spends()], schedule=ALL).train(5)
    assert (len(history), history.stopped) == (1, "that was all")


def test_a_trainer_that_returns_nothing_or_too_little_is_told_so():
    class Short(InTrainer):
        def train(self, tasks, trainer):
            return InTrainer.train(self, tasks, trainer)[1:]

    class Nothing(InTrainer):
        def train(self, tasks, trainer):
            return None

    for private, message in ((Short(Trouble()), "shorter"), (Nothing(Trouble()), "returned None where Sequence was expected")):
        with pytest.raises((ValueError, TypeError), match=message):
            experiment(training=LocalSGD(batch_size=4, private=private)).train(1)


# --- nobody is heard -----------------------------------------------------------------------------------------------


def test_a_run_in_which_every_answer_is_refused_does_not_look_normal():
    lies = [Lie(k, lambda update: replace(update, weight=-1.0)) for k in range(6)]
    with pytest.warns(RuntimeWarning, match="no update was ever used, so the model has learned nothing, 18 answers were"):
        history = experiment(stages=lies, schedule=ALL, selection=InOrder()).train(3)
    assert repr(history).splitlines()[1] == (
        "no update was ever used, so the model has learned nothing, 18 answers were refused; the first: the answer of client 0 "
        "in version 0 was refused: its weight is -1.0, not a finite number from 0"
    )
    assert "no update was ever used" in history._repr_html_()
    assert [record.metrics["refused"] for record in history.records] == [6] * 3
    assert "no update was ever used" in repr(History.from_json(history.to_json()))


def test_some_refusals_are_told_and_drop_outs_are_ordinary():
    history = experiment(stages=[Lie(2, lambda update: replace(update, weight=-1.0))], schedule=ALL).train(2)
    assert repr(history).splitlines()[1].startswith("2 answers were refused; the first: the answer of client 2 in version 0")
    assert "\n" not in repr(experiment(fleet=Equal(drop=0.4)).train(4))


# --- the server's step ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Explodes(ServerOptimizer):
    """FedAvg, but from one version on something of the step is not finite."""

    what: str
    value: float = math.inf
    at: int = 2

    def step(self, server, aggregate):
        after, bad = FedAvg().step(server, aggregate), np.array([0.0, self.value], np.float32)
        if server.version < self.at:
            return replace(after, state={"m": np.zeros(2, np.float32), "spent": math.inf})
        return {
            "the model": replace(after, params=np.where(np.arange(18) == 7, np.float32(self.value), after.params)),
            "'m'": replace(after, state={"m": bad}),
            "'c'": replace(after, extras={"c": bad}),
        }[self.what]


@pytest.mark.parametrize("what", ["the model", "'m'", "'c'"])
@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("schedule", [Synchronous(0.5), Buffered(4, 2)])
def test_a_step_that_is_not_finite_ends_the_run_with_the_last_good_model(what, value, schedule):
    good = experiment(optimizer=Explodes(what, at=99), schedule=schedule).train(2)
    it = experiment(optimizer=Explodes(what, value), schedule=schedule)
    history = it.train(9)
    assert len(history) == 3
    assert history.stopped.startswith(f"the server's step from version 2 would make {what} infinite or NaN")
    assert history.records[-1].events[-1] == history.stopped
    assert len(history.records[-1].clients) == len(good.records[-1].clients)        # what the round cost is recorded
    assert history.state.server.params.tobytes() == good.state.server.params.tobytes()
    assert (history.state.server.version, history.state.server.extras) == (3, {})
    assert history.state.server.state["m"].tolist() == [0.0, 0.0]
    steps = it.run(9)
    for _ in range(3):
        next(steps)
    with pytest.raises(StopIteration) as end:
        next(steps)
    assert end.value.value == history.stopped


def test_what_overflows_only_when_it_is_added_up_ends_the_run_without_a_warning_of_numpy():
    big = [Lie(k, lambda update: replace(update, delta=update.delta * 0 + np.float32(1e12), weight=1.0)) for k in range(6)]
    history = experiment(stages=big, schedule=ALL, optimizer=FedAvg(lr=1e30)).train(4)
    assert "would make the model infinite or NaN" in history.stopped

    class Steep(Stage):
        def server(self, aggregate, ctx):
            return replace(aggregate, total=aggregate.total * 1e25)

    moments = experiment(stages=[Steep()], schedule=ALL, optimizer=FedAdam()).train(4)
    assert "would make 'v' infinite or NaN" in moments.stopped
    for run in (history, moments):
        assert np.isfinite(run.state.server.params).all()


def test_what_a_stage_broadcasts_is_part_of_the_step():
    class Tells(Stage):
        def server(self, aggregate, ctx):
            ctx.broadcast["hint"] = np.full(2, math.nan if ctx.server.version else 1.0, np.float32)
            return aggregate

    history = experiment(stages=[Tells()]).train(4)
    assert "would make 'hint' infinite or NaN" in history.stopped
    assert history.state.server.extras["hint"].tolist() == [1.0, 1.0]


@pytest.mark.parametrize(("bad", "message"), [
    (lambda server: None, "gave None where a Server"),
    (lambda server: replace(server, params=np.ones(1, np.float32)), r"gave params of shape \(1,\) where"),
])  # fmt: skip
def test_an_optimiser_of_ones_own_is_told_what_it_must_return(bad, message):
    class Wrong(ServerOptimizer):
        def step(self, server, aggregate):
            return bad(server)

    with pytest.raises(TypeError, match=message):
        experiment(optimizer=Wrong()).train(1)


def test_weights_that_are_all_zero_are_an_event():
    history = experiment(stages=[Lie(k, lambda update: replace(update, weight=0.0)) for k in range(6)]).train(1)
    assert history.records[0].events == ("the updates weigh 0 in all: the model stays as it was",)

    class Loses(Stage):
        def server(self, aggregate, ctx):
            return replace(aggregate, weight=math.nan)

    assert experiment(stages=[Loses()]).train(1).records[0].events == ("the updates weigh nan in all: the model stays as it was",)


# --- going on, and being stopped -----------------------------------------------------------------------------------


def test_a_run_goes_on_from_a_history_as_from_its_state():
    it = experiment()
    first = it.train(2)
    assert it.train(2, state=first).records == it.train(2, state=first.state).records == it.train(4).records[2:]
    assert [record for _, record in it.run(2, first)] == it.train(4).records[2:]


@pytest.mark.parametrize("begin", ["history", "its state", "by hand"])
def test_a_history_from_json_says_what_to_hand_on_instead(begin):
    it = experiment()
    back = History.from_json(it.train(2).to_json())
    begin = {"history": back, "its state": back.state, "by hand": History(back.records)}[begin]
    for go_on in (lambda: it.train(2, state=begin), lambda: next(it.run(2, begin))):
        with pytest.raises(ValueError, match=r"keeps the records only.*hand on load\(path, experiment\)"):
            go_on()


def test_what_is_no_state_is_refused():
    for begin in (Server(np.zeros(18, np.float32)), [], 3, "x.ckpt"):
        with pytest.raises(TypeError, match="a run goes on from a State"):
            experiment().train(1, state=begin)


@dataclass(frozen=True)
class Impatient(Spy):
    """Ctrl-C while the server sums a round up."""

    at: int = 2

    def server(self, aggregate, ctx):
        if ctx.server.version == self.at:
            raise KeyboardInterrupt
        return aggregate


@pytest.mark.parametrize("at", [0, 1, 3])
def test_an_interrupt_returns_the_history_so_far(at):
    history = experiment(stages=[Impatient(at=at)], weights=UNIFORM).train(6)
    whole = experiment(weights=Uniform()).train(6)
    assert history.records == whole.records[:at]
    assert (history.stopped, history.state.server.version) == ("interrupted", at)
    assert experiment(weights=UNIFORM).train(6 - at, state=history).records == whole.records[at:]
    with pytest.raises(KeyboardInterrupt):                               # whoever writes the loop decides alone
        list(experiment(stages=[Impatient(at=at)]).run(6))


def test_an_interrupt_in_a_client_half_is_no_failure_of_the_client():
    history = experiment(stages=[InStage(Trouble((2,), KeyboardInterrupt))], schedule=ALL).train(3)
    assert (len(history), history.stopped) == (0, "interrupted")


def test_an_interrupt_in_the_bar_keeps_records_and_state_together(monkeypatch):
    def interrupt(rounds, shown, sent):
        raise_at = iter([False, True])

        class Bar:
            def __enter__(self):
                return self

            def __exit__(self, *args):
                return False

            def __call__(self, record):
                if next(raise_at):
                    raise KeyboardInterrupt

        return Bar()

    monkeypatch.setattr("fl_course.federation.coordinator.progress_bar", interrupt)
    history = experiment().train(5)
    assert len(history) == history.state.server.version == 2


def test_the_warning_is_said_once_a_run_not_once_a_process():
    it = troubled("stage", Trouble((2,), Odd), schedule=ALL)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        it.train(3)
        it.train(3)
    assert len(said) == 2
    assert not Work(None, ()).warned


# --- what a part of one's own may not do silently ---------------------------------------------------------------------


@dataclass(frozen=True)
class Flat(Aggregation):
    """A median over everything: axis=0 was forgotten."""

    shape: tuple = ()

    def combine(self, updates, staleness, ctx=None):
        return Aggregate(np.full(self.shape, np.median(np.stack([u.delta for u in updates]))), float(len(updates)))


@pytest.mark.parametrize("shape", [(), (1,), (3, 1)])
def test_a_sum_of_another_shape_is_not_stretched_over_the_model(shape):
    with pytest.raises(TypeError, match="gave a total of shape"):
        experiment(aggregation=Flat(shape)).train(1)


@dataclass(frozen=True)
class Scalar(Stage):
    weight: float | None = None

    def server(self, aggregate, ctx):
        if self.weight is not None:
            return replace(aggregate, weight=self.weight)
        return replace(aggregate, total=np.mean(aggregate.total))


@pytest.mark.parametrize("stage", [Scalar(), Scalar(weight=math.inf), Scalar(weight=-1.0)])
def test_a_server_half_that_loses_the_shape_or_the_weight_is_told(stage):
    with pytest.raises(TypeError, match=r"gave a (total|weight) of"):
        experiment(stages=[stage]).train(1)


@dataclass(frozen=True)
class InPlace(FedAvg):
    def step(self, server, aggregate):
        np.add(server.params, aggregate.mean, out=server.params)
        return server


def test_an_optimiser_that_writes_into_the_past_is_stopped_and_the_past_is_whole():
    fed = experiment(optimizer=InPlace())
    start = fed.initial()
    before = start.server.params.copy()
    with pytest.raises(ValueError, match="read-only"):
        fed.train(1, start)
    assert np.array_equal(start.server.params, before)


@dataclass(frozen=True)
class BlowsUp(FedAvg):
    def step(self, server, aggregate):
        return replace(server, params=server.params + np.float32(np.inf))


@pytest.mark.parametrize("how", [{"stages": [TopK(0.2)], "optimizer": BlowsUp()}, {"stages": [TopK(0.2), Scalar(weight=0.0)]}])
def test_a_step_that_is_not_taken_renews_nobodys_residual(how):
    """Neither one that would be infinite nor one for which the updates weigh nothing."""
    start = experiment(stages=[TopK(0.2)], schedule=Synchronous(1.0)).train(2).state
    history = experiment(schedule=Synchronous(1.0), **how).train(1, start)
    assert np.array_equal(history.state.server.params, start.server.params)
    for client, drawer in start.memory.items():
        assert np.array_equal(history.state.memory[client]["residual"], drawer["residual"])


@pytest.mark.parametrize("seed", range(4))
def test_a_buffered_state_goes_on_in_rounds_with_deadlines(seed):
    slow = LogNormal(examples_per_second=1.0, speed_spread=1.0, up_mbit=1e-4, link_spread=1.0, seed=seed)
    state = experiment(schedule=Buffered(4, 2), fleet=slow).train(3).state
    for schedule in (Synchronous(0.5, deadline=0.01), Synchronous(0.5, over_selection=0.5)):
        history = experiment(schedule=schedule, fleet=slow).train(3, state)
        assert len(history.records) == 3
