"""The table of bad inputs, row by row: updates, clients, data, configuration, weights, asynchrony, selection, checkpoint.

Each row is one test. "Refused" means a deliberate error that names the value; "left out" means that the run goes on
without the client, says so in the record, and ends with the model of a run in which that client had vanished.
"""

import math
import pickle
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
from small import CLASSES, DIM, Half, InOrder, Lie, Spy, Timed, experiment, federation, final

from fl_course import (
    Buffered,
    ByExamples,
    CheckpointError,
    ClientFailure,
    Correction,
    Discount,
    FedAvg,
    LocalSGD,
    LogNormal,
    PoissonSelection,
    Selector,
    Stage,
    Synchronous,
    Uniform,
    WireError,
    from_clients,
    load,
    save,
)
from fl_course.core import Server, Update
from fl_course.privacy.mechanisms import clip, norm
from fl_course.wire.messages import check_update, decode_update, encode_update

ALL = {"schedule": Synchronous(1.0)}
ONE_SECOND = dict.fromkeys(range(6), 1.0)


def left_out(client, history, rounds=1, **parts) -> str:
    """Assert that this client was left out, and return what the last record says about it."""
    others = tuple(k for k in range(6) if k != client)
    assert all(record.clients == others for record in history.records)
    vanished = experiment(fleet=Timed(ONE_SECOND, gone=(client,)), **(ALL | parts)).train(rounds)
    assert history.state.server.params.tobytes() == vanished.state.server.params.tobytes()
    (event,) = history.records[-1].events
    return event


def changed(**fields):
    return lambda update: replace(update, **fields)


# --- updates -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("weights", [ByExamples(), Uniform()])
def test_updates_nan_or_inf_in_one_clients_update(value, weights):
    lie = Lie(4, changed(delta=np.full(18, value, np.float32)))
    event = left_out(4, experiment(stages=[lie], weights=weights, **ALL).train(2), rounds=2, weights=weights)
    assert "client 4 in version 1 was refused" in event
    with pytest.raises(WireError, match="client 4 in version 0"):
        experiment(stages=[lie], weights=weights, strict=True, **ALL).train(1)


@pytest.mark.parametrize("shape", [(1,), (17,), (19,), (1, 18), (18, 1), (), (0,), (2, 18)])
def test_updates_wrong_shape_or_broadcastable_shape(shape):
    event = left_out(4, experiment(stages=[Lie(4, changed(delta=np.zeros(shape, np.float32)))], **ALL).train(1))
    assert f"shape {shape}" in event


@pytest.mark.parametrize(
    "extras",
    [{}, {"a": np.ones(3), "b": np.ones(3)}, {"a": np.ones(1)}, {"c": np.ones(3)}, {"a": np.ones((1, 3))}],
    ids=["missing", "extra", "broadcastable", "other name", "row"],
)
def test_updates_missing_or_extra_tensors(extras):
    class Carries(Stage):
        def client(self, update, ctx):
            return replace(update, extras={"a": np.ones(3, np.float32)})

        def sends(self, example, ctx):
            return replace(example, extras={"a": np.zeros(3, np.float32)})

    event = left_out(4, experiment(stages=[Carries(), Lie(4, changed(extras=extras))], **ALL).train(1), stages=[Carries()])
    assert "extras have shapes" in event


@pytest.mark.parametrize("dtype", ["i1", "i8", "u1", "?"])
def test_updates_dtype_differs(dtype):
    event = left_out(4, experiment(stages=[Lie(4, changed(delta=np.zeros(18, dtype)))], **ALL).train(1))
    assert f"holds {np.dtype(dtype)}" in event
    double = Lie(4, lambda u: replace(u, delta=u.delta.astype(np.float64)))                    # float to float is a cast
    np.testing.assert_allclose(
        experiment(stages=[double], **ALL).train(1).state.server.params, experiment(**ALL).train(1).state.server.params, atol=1e-7
    )  # fmt: skip


@pytest.mark.parametrize("size", [1e20, 1e30, 3e38])
def test_updates_float32_overflow_in_the_norm(size):
    big = np.full(18, size, np.float32)
    assert norm(big) == pytest.approx(size * math.sqrt(18), rel=1e-6)
    clipped = clip(big, 2.0)
    assert np.linalg.norm(clipped.astype(np.float64)) == pytest.approx(2.0, rel=1e-6)


def test_updates_float32_overflow_in_the_weighting():
    """n_k·delta may be too large for float32 though delta is not: refused like any infinite number."""

    class Weighs(Stage):
        def client(self, update, ctx):
            enormous = replace(update, delta=np.full(18, 3e38, np.float32))
            return ByExamples().client(enormous if update.client == 4 else update, ctx)

    assert "infinite" in left_out(4, experiment(weights=Weighs(), **ALL).train(1))


# --- clients -------------------------------------------------------------------------------------------------------


def test_clients_empty_list():
    with pytest.raises(ValueError, match="at least one client"):
        replace(federation(), ids=(), train=(), test=())


@pytest.mark.parametrize("ids", [[0, 1, 2, 3, 4, 0], list("abcdea"), [0, 1, 2, 3, np.int64(1), 5]])
def test_clients_duplicate_ids(ids):
    with pytest.raises(ValueError, match="given twice"):
        federation(ids=ids)


@pytest.mark.parametrize("name", [6, -1, "0", "mallory"])
def test_clients_unknown_id_in_an_update_or_a_selection(name):
    assert repr(name) in left_out(4, experiment(stages=[Lie(4, changed(client=name))], **ALL).train(1))

    class Chooses(Selector):
        def select(self, idle, k, rng, reports):
            return [name]

    with pytest.raises(ValueError, match=f"client {name!r}, which is not one of the 6"):
        experiment(selection=Chooses()).train(1)
    with pytest.raises(ValueError, match="unknown client"):
        federation().position(name)


@pytest.mark.parametrize("ids", [["c", "a", "f", "b", "d", "e"], [5, 300, 2, 70000, 0, 9], [1, "1", 0, "0", 2, "2"]])
def test_clients_ids_are_strings_gaps_unsorted(ids):
    parts = ALL | {"training": LocalSGD(lr=0.2, epochs=3, batch_size=None)}
    named, plain = (experiment(data, **parts).train(3) for data in (federation(ids=ids), federation()))
    np.testing.assert_allclose(named.state.server.params, plain.state.server.params, atol=1e-6)
    assert set(named.records[0].clients) == set(ids)
    shuffled = federation(ids=ids, order=[3, 1, 5, 0, 2, 4])
    assert final(experiment(shuffled, **ALL)) == final(experiment(federation(ids=ids), **ALL))


@pytest.mark.parametrize("where", ["correction", "stage"])
def test_clients_crash_inside_one_clients_training(where):
    class Breaks(Correction):
        def finish(self, task, delta, steps, lr, gradient):
            if task.client == 4 and where == "correction":
                raise ClientFailure("out of memory")
            return {}

    class Refuses(Stage):
        def client(self, update, ctx):
            if update.client == 4 and where == "stage":
                raise ClientFailure("out of memory")
            return update

    parts = {"training": LocalSGD(lr=0.1, epochs=2, batch_size=4, correction=Breaks()), "stages": [Refuses()]} | ALL
    rows = {"training": LocalSGD(lr=0.1, epochs=2, batch_size=4, engine="rows")}
    assert left_out(4, experiment(**parts).train(2), 2, **rows) == "client 4 failed in version 1: out of memory"
    with pytest.raises(ClientFailure, match="client 4 failed in version 0: out of memory"):
        experiment(strict=True, **parts).train(1)


@pytest.mark.parametrize("why", ["they drop out", "they diverge", "they lie"])
def test_clients_all_fail(why):
    data = federation()
    parts = {
        "they drop out": {"fleet": Timed(ONE_SECOND, gone=tuple(range(6)))},
        "they diverge": {"data": replace(data, x=data.x * np.float32(1e38))},
        "they lie": {"stages": [Lie(k, changed(weight=math.nan)) for k in range(6)]},
    }[why]
    it = experiment(**(parts | ALL))
    with nullcontext() if why == "they drop out" else pytest.warns(RuntimeWarning, match="no update was ever used"):
        history = it.train(2)
    assert "no update was ever used" in repr(history)
    assert history.state.server.params.tobytes() == it.initial().server.params.tobytes()
    heard = [[event for event in r.events if "scale your features" not in event] for r in history.records]
    assert [(r.clients, len(heard), heard[-1]) for r, heard in zip(history.records, heard, strict=True)] == [
        ((), 7, "no update arrived")] * 2


def test_clients_returns_none():
    with pytest.warns(RuntimeWarning, match="client 4 failed in version 0: TypeError: .*is a `return` missing"):
        event = left_out(4, experiment(stages=[Lie(4, lambda update: None)], **ALL).train(1))
    assert "is a `return` missing" in event
    with pytest.raises(TypeError, match="is a `return` missing"):
        experiment(stages=[Lie(4, lambda update: None)], strict=True, **ALL).train(1)
    with pytest.raises(TypeError, match="delta must be an array or a payload"):
        experiment(stages=[Lie(k, changed(delta=None)) for k in range(6)]).train(1)


# --- data ----------------------------------------------------------------------------------------------------------


def test_data_zero_samples_on_a_client():
    spy = Spy()
    history = experiment(federation((8, 8, 0, 8, 8, 8)), stages=[spy], **ALL).train(2)
    assert all(record.clients == (0, 1, 3, 4, 5) for record in history.records)
    assert np.isfinite(history.state.server.params).all()
    assert all(2 not in cohort for _, cohort in spy.asked)


def test_data_zero_samples_everywhere():
    with pytest.raises(ValueError, match="no client has a training example"):
        federation((0,) * 6)
    with pytest.raises(ValueError, match="at least one must"):
        from_clients("none", {"a": (np.zeros((0, DIM)), [])}, CLASSES, np.zeros((1, DIM)), [0])


@pytest.mark.parametrize("changes", [{"y": np.zeros(65, int)}, {"x_test": np.zeros((20, DIM + 1))}, {"y_test": np.zeros(3, int)}])
def test_data_lengths_or_feature_counts_differ(changes):
    with pytest.raises(ValueError, match="shape"):
        replace(federation(), **changes)


@pytest.mark.parametrize("sizes", [(1, 1, 1, 1, 1, 1), (1, 0, 0, 0, 0, 0), (5, 1, 9, 1, 2, 16)])
@pytest.mark.parametrize("one_class", [True, False])
def test_data_a_single_class_or_a_single_sample(sizes, one_class):
    data = federation(sizes)
    data = replace(data, y=np.ones_like(data.y)) if one_class else data
    history = experiment(data, **ALL).train(3)
    assert np.isfinite(history.state.server.params).all()
    assert history.records[-1].events == ()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_data_nan_in_the_examples(value):
    data = federation(ids=list("abcdef"))
    x = data.x.copy()
    x[data.train[2][1], 0] = value
    with pytest.raises(ValueError, match="of client 'c' holds NaN or Inf"):
        replace(data, x=x)


# --- configuration -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "name"),
    [
        *[(lambda v=v: LocalSGD(lr=v), "lr") for v in (math.nan, -0.1, 0, math.inf)],
        *[(lambda v=v: LocalSGD(epochs=v), "epochs") for v in (0, -1, 1.5)],
        *[(lambda v=v: LocalSGD(batch_size=v), "batch_size") for v in (0, -1, 2.5)],
        *[(lambda v=v: Synchronous(v), "fraction") for v in (0, -0.1, 1.01, math.nan)],
        *[(lambda v=v: experiment().train(v), "rounds") for v in (-1, 2.5, "3", None)],
        *[(lambda v=v: FedAvg(lr=v), "lr") for v in (0, -1, math.nan)],
        *[(lambda v=v: experiment(seed=v), "seed") for v in (-1, 1.5, None, "0")],
    ],
)
def test_config_numbers_out_of_range(make, name):
    with pytest.raises(ValueError, match=rf"\b{name}\b"):
        make()


@pytest.mark.parametrize("name", ["schedule", "selection", "weights", "aggregation", "optimizer", "fleet", "evaluation", "model"])
def test_config_unknown_algorithm(name):
    with pytest.raises(TypeError, match=f"{name} must be of the kind .* not 'fedsomething'"):
        replace(experiment(), **{name: "fedsomething"})


@pytest.mark.parametrize("fraction", [1e-9, 0.01, 0.08])
def test_config_fraction_so_small_that_it_means_less_than_one_client(fraction):
    assert [len(record.clients) for record in experiment(schedule=Synchronous(fraction)).train(3).records] == [1, 1, 1]


@pytest.mark.parametrize(
    "params", [np.full(18, np.nan), np.full(18, np.inf), np.zeros(17), np.zeros(1), np.zeros((1, 18)), np.zeros(())]
)
def test_config_first_model_nan_or_of_the_wrong_size(params):
    with pytest.raises(ValueError, match="params"):
        experiment().initial(params)


# --- weights -------------------------------------------------------------------------------------------------------


def test_weights_all_zero():
    it = experiment(stages=[Lie(k, changed(weight=0.0)) for k in range(6)], **ALL)
    assert final(it, 2) == it.initial().server.params.tobytes()


@pytest.mark.parametrize("weight", [-1.0, math.nan, math.inf, -math.inf])
def test_weights_negative_or_nan(weight):
    assert f"weight is {weight}" in left_out(4, experiment(stages=[Lie(4, changed(weight=weight))], **ALL).train(1))


def test_weights_zero_times_nan():
    """A zero-weight client whose update is NaN must not get its NaN into the sum through 0 · NaN."""
    nan = np.full(18, np.nan, np.float32)
    history = experiment(stages=[Lie(4, changed(weight=0.0, delta=nan))], **ALL).train(1)
    assert "NaN" in left_out(4, history)


# --- asynchrony ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("staleness", [-1, -5])
@pytest.mark.parametrize("kind", ["polynomial", "exponential", "hinge"])
def test_async_negative_staleness(staleness, kind):
    with pytest.raises(ValueError, match=f"staleness {staleness} < 0"):
        Discount(kind)(staleness)


def test_async_staleness_above_the_bound():
    fleet = Timed({0: 1.0, 1: 3.5} | dict.fromkeys(range(2, 6), 1.0))
    it = experiment(schedule=Buffered(2, 1, max_staleness=2), selection=InOrder(), fleet=fleet)
    records = it.train(6).records
    assert sum(record.metrics.get("too_stale", 0) for record in records) == 1
    assert max(age for record in records for age in record.staleness) <= 2
    (event,) = [event for record in records for event in record.events]
    assert event == "the answer of client 1 was refused: 3 versions old, the limit is 2"


def test_async_run_ends_with_clients_at_work():
    """Documented: what is in flight stays in the state, is not applied, and is heard when the run goes on."""
    it = experiment(schedule=Buffered(4, 3), fleet=LogNormal())
    part = it.train(2)
    assert len(part.state.jobs) == 3
    rest = it.train(2, state=part.state)
    assert {job.client for job in part.state.jobs} & {client for record in rest.records for client in record.clients}
    assert part.records + rest.records == it.train(4).records


@pytest.mark.parametrize("off", [-1, 1, 100])
def test_async_update_for_an_unknown_or_future_version(off):
    lies = [Lie(k, lambda update: replace(update, version=update.version + off)) for k in range(6)]
    it = experiment(schedule=Buffered(1, 1), stages=lies)
    with pytest.warns(RuntimeWarning, match="no update was ever used"):
        record = it.train(1).records[0]
    assert record.clients == ()
    assert len(record.events) == 7
    assert f"version {off}" in record.events[0]
    update = Update(0, 5 + off, np.zeros(2, np.float32))
    with pytest.raises(WireError, match=f"version {5 + off}"):
        check_update(decode_update(encode_update(update)), 0, Server(np.zeros(2, np.float32), 5))


# --- selection -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [
    lambda: experiment(schedule=Synchronous(0.5, min_clients=7)),
    lambda: experiment(schedule=Buffered(2, 7)),
    lambda: experiment(schedule=Synchronous(0.5, over_selection=0.5), selection=PoissonSelection()),
    lambda: PoissonSelection().select([1, 2], -1, np.random.default_rng(0), {}),
    lambda: PoissonSelection().select([1, 1], 1, np.random.default_rng(0), {}),
], ids=["more than there are", "a buffer that never fills", "poisson and over-selection", "k < 0", "duplicates"])  # fmt: skip
def test_selection_numbers_out_of_range(make):
    with pytest.raises(ValueError, match=r"7|over_selection|cannot select -1|twice"):
        make()


@pytest.mark.parametrize("chosen", [[], [0, 0], [9], None])
def test_selection_returns_nobody_or_nonsense(chosen):
    class Chooses(Selector):
        def select(self, idle, k, rng, reports):
            return chosen

    if chosen == []:
        assert experiment(selection=Chooses()).train(2).records[1].events == ("no update arrived",)
    else:
        with pytest.raises((ValueError, TypeError), match=r"the selector (chose client|returned None)"):
            experiment(selection=Chooses()).train(1)


# --- checkpoint ----------------------------------------------------------------------------------------------------


def test_checkpoint_pickle_bomb(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (exec, ("raise SystemExit('executed')",))

    (tmp_path / "x").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(CheckpointError):
        load(tmp_path / "x", experiment())


def test_checkpoint_interrupted_run(tmp_path):
    """Killed after any round: random streams, moments, residuals and jobs in flight go on bit for bit."""
    it = experiment(schedule=Buffered(4, 2), fleet=LogNormal(jitter=0.5, drop=0.1), weights=Uniform(), stages=[Half()])
    whole = list(it.run(5))
    for stop in range(1, 5):
        save(tmp_path / "x", whole[stop - 1][0], it)
        rest = list(it.run(5 - stop, load(tmp_path / "x", it)))
        assert [record for _, record in rest] == [record for _, record in whole[stop:]]
        assert rest[-1][0].server.params.tobytes() == whole[-1][0].server.params.tobytes()
