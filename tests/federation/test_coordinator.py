"""The loop: the same seed, the same bytes; what does nothing changes nothing; what cannot be used is left out."""

import hashlib
import os
import subprocess
import sys
import textwrap
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
from small import UNIFORM, Half, InOrder, Lie, Spy, Timed, experiment, federation, final

from fl_course import (
    Aggregate,
    Buffered,
    ByExamples,
    ClientFailure,
    Clip,
    CompositionError,
    Coordinator,
    Correction,
    Equal,
    FedAdam,
    LocalSGD,
    LogNormal,
    Server,
    Stage,
    Synchronous,
    Uniform,
    Update,
    WireError,
    logistic,
    mlp,
    stream,
)
from fl_course.core import Task
from fl_course.engine.sgd import train_alone
from fl_course.federation.stages import dense, find, server_half
from fl_course.wire.messages import encode_model, encode_update

# --- the arithmetic of a round -------------------------------------------------------------------------------------


def test_a_round_is_the_weighted_mean_of_lone_trainings():
    """Three rounds of FedAvg, client by client with torch.optim.SGD, in float64 sums."""
    data, model, how = federation((8, 3, 12, 5)), logistic(5, 3), LocalSGD(lr=0.1, epochs=2, batch_size=4)
    history = Coordinator(data, model, how, Synchronous(0.5)).train(3)
    params = model.init(stream(0, "init"))
    for version, record in enumerate(history.records):
        server = Server(params, version)
        sizes = [len(data.examples(client)[1]) for client in record.clients]
        deltas = [train_alone(model, Task(client, server), data, how).astype(np.float64) for client in record.clients]
        params = (params + sum(n * d for n, d in zip(sizes, deltas, strict=True)) / sum(sizes)).astype(np.float32)
    np.testing.assert_allclose(history.state.server.params, params, atol=1e-6)


def test_the_first_model_can_be_given_and_is_not_written_to():
    it, params = experiment(), np.full(18, 0.25, np.float32)
    state = it.initial(params)
    it.train(2, state=state)
    assert (params == 0.25).all()
    assert (state.server.params == 0.25).all()
    assert it.initial().server.params.tobytes() == logistic(5, 3).init(stream(0, "init")).tobytes()


def test_names_do_not_matter():
    """Strings, gaps, any order: full batches, so that nothing but the order of a float64 sum depends on the names."""
    parts = {"training": LocalSGD(lr=0.2, epochs=3, batch_size=None), "schedule": Synchronous(1.0)}
    sizes = (8, 3, 12, 5, 1, 9)
    names = (range(6), [10, 2, 77, 5, 900, 1], ["n", "b", "z", "a", "é", ""], [3, "b", 1, "a", 2, "c"])
    runs = [experiment(federation(sizes, ids=ids), **parts).train(4).state.server.params for ids in names]
    for params in runs[1:]:
        np.testing.assert_allclose(params, runs[0], atol=1e-6)


# --- reproducibility -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parts", [{}, {"schedule": Buffered(4, 2), "fleet": LogNormal(drop=0.2)}], ids=["rounds", "buffered"])
def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(parts):
    first, again, other = (experiment(seed=seed, **parts).train(4) for seed in (3, 3, 4))
    assert first.records == again.records
    assert first.state.server.params.tobytes() == again.state.server.params.tobytes()
    assert first.state.server.params.tobytes() != other.state.server.params.tobytes()


def test_a_numpy_seed_is_a_seed():
    assert final(experiment(seed=np.int64(3))) == final(experiment(seed=3))


@pytest.mark.parametrize("together", [1, 2, 4, None])
def test_the_same_bytes_whether_trained_at_once_in_chunks_or_one_by_one(together):
    how = LocalSGD(lr=0.1, epochs=2, batch_size=4)
    data = federation((8, 3, 12, 5, 8, 8))
    assert final(experiment(data, training=replace(how, together=together))) == final(experiment(data, training=how))


def test_another_process_with_another_hash_seed_finds_the_same_bytes_and_needs_nothing_slow():
    """What takes longer to import than a small federation takes to train is imported where it is used."""
    program = """
        import hashlib, sys
        from small import experiment, federation, final
        print(hashlib.sha256(final(experiment(federation(ids=list("qwerty"))))).hexdigest())
        print(sorted({"sklearn", "pandas", "matplotlib", "scipy.stats", "scipy.ndimage", "dp_accounting"} & set(sys.modules)))
    """
    here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    environment = {**os.environ, "PYTHONHASHSEED": "77", "PYTHONPATH": os.pathsep.join([here, os.path.dirname(here)])}
    command = [sys.executable, "-c", textwrap.dedent(program)]
    out = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    digest, slow = out.stdout.splitlines()
    assert digest == hashlib.sha256(final(experiment(federation(ids=list("qwerty"))))).hexdigest()
    assert slow == "[]"


IN_FLIGHT = {"schedule": Buffered(3, 2), "selection": InOrder(), "fleet": Timed({0: 1, 1: 1.5, 2: 10, 3: 1, 4: 1, 5: 1})}


@pytest.mark.parametrize("parts", [{}, IN_FLIGHT], ids=["synchronous", "buffered"])
def test_a_state_can_be_continued_twice(parts):
    """Running a cell again gives the same result: a run writes neither to the state nor to the drawers in it."""
    it = experiment(weights=UNIFORM, stages=[Half()], optimizer=FedAdam(), **parts)
    state = it.train(1).state
    assert not parts or {job.message is None for job in state.jobs} == {True, False}   # one trained, one still to train
    first, again = it.train(3, state=state), it.train(3, state=state)
    assert first.records == again.records
    assert first.state.server.params.tobytes() == again.state.server.params.tobytes()
    assert all(drawer["times"] == 1 for drawer in state.memory.values())


def test_every_yielded_state_stays_what_it_was():
    it = experiment(weights=UNIFORM, stages=[Half()], schedule=Buffered(4, 2), fleet=LogNormal(speed_spread=1.0))
    pairs = [(state, repr(state)) for state, _ in it.run(6)]
    assert all(repr(state) == text for state, text in pairs)


# --- stages --------------------------------------------------------------------------------------------------------


def test_a_stage_that_does_nothing_changes_nothing():
    plain = experiment(weights=UNIFORM).train(4)
    for stages in ([Stage()], [Spy()], [Stage(), Spy(), Stage()], [Clip(1e9)], [Clip(1e9, norm=1)]):
        same = experiment(weights=UNIFORM, stages=stages).train(4)
        assert same.records == plain.records
        assert same.state.server.params.tobytes() == plain.state.server.params.tobytes()


def test_default_devices_never_drop_out():
    assert final(experiment(fleet=Equal(drop=0.0))) == final(experiment())


def test_client_halves_run_first_to_last_and_server_halves_last_to_first():
    order = []

    class Named(Stage):
        def __init__(self, name):
            self.name = name

        def client(self, update, ctx):
            order.append(("client", self.name))
            return update

        def server(self, aggregate, ctx):
            order.append(("server", self.name))
            return aggregate

    it = experiment(stages=[Named("a"), Named("b")], schedule=Synchronous(0.1))
    order.clear()                                                        # stages may be tried out when they are put together
    it.train(1)
    assert order == [("client", "a"), ("client", "b"), ("server", "b"), ("server", "a")]


def test_what_the_stages_see():
    seen = {}

    class Look(Stage):
        def begin(self, ctx):
            ctx.session["key"] = ctx.server.version

        def client(self, update, ctx):
            assert ctx.session["key"] == ctx.server.version == update.version
            assert (ctx.client, ctx.server.state) == (update.client, {})             # the server's private state stays at home
            seen.setdefault("draws", {})[ctx.server.version, ctx.client] = ctx.rng("noise").random()
            ctx.meter.sent_up("keys", 5)
            return update

        def server(self, aggregate, ctx):
            assert ctx.client is None
            assert set(ctx.arrived) <= set(ctx.cohort)
            seen["cohort"], seen["arrived"] = ctx.cohort, ctx.arrived
            ctx.meter.notes["spent"] = 0.5
            return aggregate

    history = experiment(stages=[Look()], optimizer=FedAdam(), fleet=Equal(drop=0.4), schedule=Synchronous(1.0)).train(3)
    record = history.records[-1]
    assert seen["arrived"] == record.clients
    assert len(seen["cohort"]) == 6 > len(record.clients)
    assert len(set(seen["draws"].values())) == len(seen["draws"])
    assert record.metrics["spent"] == 0.5
    assert record.bytes_up["keys"] == 5 * len(record.clients)


def test_state_and_broadcast_of_a_stage_reach_the_next_round():
    history = experiment(weights=UNIFORM, stages=[Half()]).train(3)
    assert history.state.server.state["sums"] == 3
    np.testing.assert_array_equal(history.state.server.extras["hint"], [3, 3])
    downs = [record.bytes_down["model"] for record in history.records]
    assert downs[0] < downs[1] == downs[2]                                             # the hint travels from then on


def test_a_residual_is_kept_only_if_the_answer_arrives():
    fleet = Timed(dict.fromkeys(range(6), 1.0) | {2: 9.0}, gone=(1,))
    it = experiment(schedule=Synchronous(0.5, deadline=5.0), selection=InOrder(), weights=UNIFORM, stages=[Half()], fleet=fleet)
    state = it.train(3).state
    assert set(state.memory) == {0}
    assert state.memory[0]["times"] == 3


def test_a_stage_without_return_is_told_so():
    class Forgetful(Stage):
        def client(self, update, ctx):
            replace(update, weight=2.0)

        def __repr__(self):
            return "Forgetful()"

    with pytest.raises(TypeError, match=r"Forgetful\(\) returned None where an Update was expected; is a `return` missing"):
        experiment(stages=[Forgetful()]).train(1)

    class Sum(Stage):
        def server(self, aggregate, ctx):
            return aggregate.total

    with pytest.raises(TypeError, match="where an Aggregate was expected"):
        experiment(stages=[Sum()]).train(1)


def test_helpers_for_stages():
    stages = [Stage(), Clip(1.0), Clip(2.0)]
    assert [(i, stage.bound) for i, stage in find(stages, Clip)] == [(1, 1.0), (2, 2.0)]
    with pytest.raises(TypeError, match="Clip needs the update as numbers, but an earlier stage made it a dict"):
        dense({}, "Clip")
    aggregate = Aggregate(np.zeros(2), 1.0)
    assert server_half([], aggregate, None) is aggregate


@pytest.mark.parametrize(("make", "message"), [
    (lambda: Clip(0), "clip bound"), (lambda: Clip(-1), "clip bound"), (lambda: Clip(float("nan")), "clip bound"),
    (lambda: Clip(float("inf")), "clip bound"), (lambda: Clip(1.0, norm=3), "norm must be 1 or 2"),
])  # fmt: skip
def test_bounds_are_checked(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_clipping_weighted_updates_is_refused_unless_the_weights_are_bounded():
    with pytest.raises(CompositionError, match="use weights=Uniform"):
        experiment(stages=[Clip(1.0)])
    experiment(stages=[Clip(1.0)], weights=ByExamples(cap=10))


# --- bytes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parts", [
    {}, {"stages": [Half()]}, {"fleet": Equal(drop=0.3)},
    {"schedule": Synchronous(0.5, over_selection=0.5), "fleet": LogNormal()},
    {"schedule": Buffered(4, 2, max_staleness=1), "fleet": LogNormal(speed_spread=1.5)},
], ids=["plain", "extras", "drop-outs", "over-selection", "buffered"])  # fmt: skip
def test_bytes_are_those_of_the_messages_encoded_again(parts):
    spy = Spy()
    stages = [*parts.get("stages", []), spy]
    it = experiment(federation(ids=[0, "b", 300, "ward", 70000, 5]), weights=UNIFORM, **(parts | {"stages": stages}))
    before, asked_before, total = it.initial(), 0, 0
    for state, record in it.run(6):
        sent = {(u.client, u.version): len(encode_update(u)) for u in spy.sent}
        asked = state.ticket - before.ticket
        assert record.bytes_down == ({"model": asked * len(encode_model(before.server))} if asked else {})
        versions = [before.server.version - age for age in record.staleness]
        assert record.upload == tuple(sent[client, version] for client, version in zip(record.clients, versions, strict=True))
        refused = [e for e in record.events if "refused" in e]
        assert len(record.upload) == len(record.clients)
        total = record.bytes_up.get("update", 0)
        assert total == sum(record.upload) if not refused else total > sum(record.upload)
        before, asked_before = state, asked_before + asked
    assert asked_before == before.ticket


# --- clients that cannot be used -----------------------------------------------------------------------------------


def without(client, rounds=1, **parts):
    """The run in which this client vanishes: whoever is excluded must leave exactly this model behind."""
    fleet = Timed(dict.fromkeys(range(6), 1.0), gone=(client,))
    return experiment(schedule=Synchronous(1.0), fleet=fleet, **parts).train(rounds)


def spoil(value):
    def how(update):
        delta = update.delta.copy()
        delta[3] = value
        return replace(update, delta=delta)

    return how


LIES = {
    "NaN": (spoil(np.nan), "delta holds NaN"),
    "infinite": (spoil(np.inf), "delta holds NaN or infinite"),
    "large": (lambda u: replace(u, delta=u.delta * 0 + np.float32(7e15)), None),                    # it weighs 8
    "absurd": (lambda u: replace(u, delta=u.delta * 0 + np.float32(9e15)), "which no honest training reaches"),
    "overflow": (lambda u: replace(u, delta=u.delta * 0 + np.float32(3e38)), "which no honest training reaches"),
    "too long": (lambda u: replace(u, delta=np.zeros(19, np.float32)), r"shape (19,), the model has (18,)"),
    "broadcastable": (lambda u: replace(u, delta=np.ones(1, np.float32)), "shape (1,)"),
    "a row": (lambda u: replace(u, delta=u.delta[None]), "shape (1, 18)"),
    "integers": (lambda u: replace(u, delta=np.ones(18, np.int32)), "int32"),
    "another's name": (lambda u: replace(u, client=0), "claims to be of client 0"),
    "a stranger": (lambda u: replace(u, client="mallory"), "client 'mallory'"),
    "the future": (lambda u: replace(u, version=u.version + 1), "version 1"),
    "the past": (lambda u: replace(u, version=-1), "version -1"),
    "negative weight": (lambda u: replace(u, weight=-8.0), "weight is -8.0"),
    "NaN weight": (lambda u: replace(u, weight=float("nan")), "weight is nan"),
    "no number": (lambda u: replace(u, metrics={"loss_last": "low"}), "metrics must be named numbers"),
    "more extras": (lambda u: replace(u, extras={"c": np.ones(3, np.float32)}), "extras have shapes"),
    "NaN in extras": (lambda u: replace(u, extras={"c": np.full(3, np.nan, np.float32)}), "extra 'c' holds NaN"),
}


@pytest.mark.parametrize("lie", LIES)
def test_an_invalid_update_is_left_out_recorded_and_the_mean_renormalised(lie):
    how, message = LIES[lie]
    history = experiment(schedule=Synchronous(1.0), stages=[Lie(4, how)]).train(1)
    (record,) = history.records
    if message is None:                                                  # large, and of no danger to the run
        assert record.clients == (0, 1, 2, 3, 4, 5)
        assert np.isfinite(history.state.server.params).all()
        return
    assert record.clients == (0, 1, 2, 3, 5)
    (event,) = record.events
    assert event.startswith("the answer of client 4 in version 0 was refused: ")
    assert message in event
    assert history.state.server.params.tobytes() == without(4).state.server.params.tobytes()
    assert record.bytes_up["update"] > sum(record.upload)                # its bytes were sent all the same


@pytest.mark.parametrize("lie", [lie for lie in LIES if LIES[lie][1]])
def test_strict_raises_and_names_the_client(lie):
    with pytest.raises(WireError, match="the answer of client 4 in version 0 was refused"):
        experiment(schedule=Synchronous(1.0), stages=[Lie(4, LIES[lie][0])], strict=True).train(1)


def diverging() -> "Coordinator":
    """Client 2's examples are so large that its training overflows."""
    data = federation()
    x = data.x.copy()
    x[data.train[2]] *= np.float32(1e38)
    return experiment(replace(data, x=x), schedule=Synchronous(1.0))


def test_a_client_whose_training_diverges_is_left_out():
    history = diverging().train(2)
    for version, record in enumerate(history.records):
        assert record.clients == (0, 1, 3, 4, 5)
        assert len(record.events) == 1 + (version == 0)                  # and once, that features so large are never scaled
        assert record.events[0].startswith(f"client 2 failed in version {version}: its update is not finite")
    assert history.state.server.params.tobytes() == without(2, rounds=2).state.server.params.tobytes()
    assert "version" not in history.state.reports[2]
    with pytest.raises(ClientFailure, match="client 2 failed in version 0"):
        replace(diverging(), strict=True).train(1)


class Breaks(Correction):
    """Client 3 cannot compute what the method asks for; the others count what they did in their drawers."""

    def finish(self, task, delta, steps, lr, gradient):
        task.memory["times"] = task.memory.get("times", 0) + 1
        if task.client == 3:
            raise ClientFailure("its battery is empty")
        return {}


def test_a_client_that_fails_in_training_does_not_stop_the_others():
    it = experiment(schedule=Synchronous(1.0), training=LocalSGD(lr=0.1, epochs=2, batch_size=4, correction=Breaks()))
    history = it.train(2)
    assert [record.clients for record in history.records] == [(0, 1, 2, 4, 5)] * 2
    assert history.records[1].events == ("client 3 failed in version 1: its battery is empty",)
    assert {client: drawer["times"] for client, drawer in history.state.memory.items()} == dict.fromkeys((0, 1, 2, 4, 5), 2)
    vanished = without(3, rounds=2, training=LocalSGD(lr=0.1, epochs=2, batch_size=4, engine="rows"))
    assert history.state.server.params.tobytes() == vanished.state.server.params.tobytes()
    with pytest.raises(ClientFailure, match="client 3 failed in version 0: its battery"):
        replace(it, strict=True).train(1)


def test_a_bug_is_not_taken_for_a_failing_client():
    class Buggy(Stage):
        def client(self, update, ctx):
            return update.deltas

    with pytest.raises(AttributeError, match="deltas"):
        experiment(stages=[Buggy()]).train(1)


@pytest.mark.parametrize("parts", [
    {"fleet": Timed(dict.fromkeys(range(6), 1.0), gone=tuple(range(6)))},
    {"stages": [Lie(k, spoil(np.nan)) for k in range(6)]},
    {"fleet": Timed(dict.fromkeys(range(6), 1.0), gone=tuple(range(6))), "schedule": Buffered(4, 2)},
], ids=["all drop out", "all refused", "all drop out, buffered"])  # fmt: skip
def test_if_nobody_is_left_the_model_is_unchanged_and_the_round_recorded(parts):
    it = experiment(optimizer=FedAdam(), **parts)
    with pytest.warns(RuntimeWarning, match="no update was ever used") if "stages" in parts else nullcontext():
        history = it.train(3)
    assert repr(history).splitlines()[1].startswith("no update was ever used")
    assert history.state.server.params.tobytes() == it.initial().server.params.tobytes()
    assert history.state.server.version == 3
    for record in history.records:
        assert (record.clients, record.staleness, record.upload) == ((), (), ())
        assert record.events[-1] == "no update arrived"
        assert len(record.events) > 3
        assert record.metrics.keys() & {"accuracy", "drift"} == {"accuracy"}


def test_noise_is_released_even_if_nobody_answers_and_no_method_takes_it_for_answers():
    class Noise(Stage):
        noisy = True

        def server(self, aggregate, ctx):
            return replace(aggregate, total=aggregate.total + ctx.rng("noise").standard_normal(18), weight=3.0)

    class Counts(Correction):
        def absorb(self, server, aggregate, arrived, clients):
            return replace(server, state={**server.state, "absorbed": server.state.get("absorbed", 0) + arrived})

    training = LocalSGD(batch_size=None, correction=Counts())
    it = experiment(stages=[Noise()], fleet=Timed(dict.fromkeys(range(6), 1.0), gone=tuple(range(6))), training=training)
    before = it.initial().server.params
    for state, record in it.run(3):
        noise = stream(0, "noise", record.version - 1, None).standard_normal(18)
        np.testing.assert_allclose(state.server.params - before, noise / 3, atol=1e-6)
        assert "absorbed" not in state.server.state
        before = state.server.params
    assert replace(it, fleet=Equal()).train(3).state.server.state["absorbed"] == 9


def test_updates_that_weigh_nothing_change_nothing():
    it = experiment(stages=[Lie(k, lambda u: replace(u, weight=0.0)) for k in range(6)])
    assert final(it, 2) == it.initial().server.params.tobytes()


def test_a_client_without_examples_is_never_asked():
    spy = Spy()
    history = experiment(federation((8, 0, 5, 0, 3, 8)), schedule=Synchronous(1.0), stages=[spy]).train(3)
    assert all(record.clients == (0, 2, 4, 5) for record in history.records)
    assert all(set(cohort) == {0, 2, 4, 5} for _, cohort in spy.asked)
    assert np.isfinite(history.state.server.params).all()


# --- what no experiment can be built from ---------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "value", "kind"), [
    ("data", None, "FederatedData"), ("model", 7, "Model"), ("schedule", 0.1, "Schedule"), ("selection", "uniform", "Selector"),
    ("weights", None, "Stage"), ("aggregation", "mean", "Aggregation"), ("optimizer", "adam", "ServerOptimizer"),
    ("fleet", [], "Fleet"), ("evaluation", 2, "Evaluation"), ("stages", [Uniform(), "clip"], "Stage"),
    ("stages", [Uniform], "Stage"),
])  # fmt: skip
def test_parts_of_the_wrong_kind_are_named(name, value, kind):
    it = {"data": federation(), "model": logistic(5, 3), name: value}
    with pytest.raises(TypeError, match=rf"{name}(\[\d\])? must be of the kind {kind}, not "):
        Coordinator(**it)


@pytest.mark.parametrize(("make", "message"), [
    (lambda: experiment(seed=-1), "seed must be a whole number from 0, not -1"),
    (lambda: experiment(seed=0.5), "seed"),
    (lambda: Coordinator(federation(), logistic(5, 4)), "answers with .4,. numbers, the data has 3 classes"),
    (lambda: Coordinator(federation(), mlp(6, 3)), "examples of 5 numbers; this model takes 6"),
    (lambda: experiment().train(-1), "rounds must be a whole number from 0, not -1"),
    (lambda: experiment().train(1.5), "rounds"),
    (lambda: experiment().initial(np.zeros(17)), r"shape \(18,\) for this model, not \(17,\)"),
    (lambda: experiment().initial(np.zeros((18, 1))), r"not \(18, 1\)"),
    (lambda: experiment().initial(np.full(18, np.nan)), "NaN or infinite"),
    (lambda: experiment().train(1, state=Coordinator(federation(), mlp(5, 4, 3)).initial()), "state's model has 39 numbers"),
])  # fmt: skip
def test_values_that_fit_nothing_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_no_rounds_are_no_rounds():
    history = experiment().train(0)
    assert len(history) == 0
    assert history.state.server.version == 0


def test_the_repr_describes_the_experiment():
    text = repr(experiment(stages=[Half()], weights=UNIFORM, seed=5))
    shown = ("FederatedData('small', 6 clients", "Dense(sizes=(5, 3))", "LocalSGD(lr=0.1", "Synchronous(fraction=0.5", "Half()")
    for part in (*shown, "seed=5"):
        assert part in text


def test_an_update_says_what_it_is():
    spy = Spy()
    experiment(stages=[spy], schedule=Synchronous(1.0)).train(1)
    update = spy.sent[0]
    assert isinstance(update, Update)
    assert (update.delta.dtype, update.delta.shape) == (np.float32, (18,))
    assert update.metrics.keys() == {"examples", "steps", "loss_first", "loss_last"}
    assert (update.metrics["examples"], update.metrics["steps"], update.weight) == (8.0, 4.0, 8.0)
