"""Sparsifiers, error feedback, odd vectors, whole runs, and the reproduction card."""

import math
from dataclasses import dataclass, replace

import msgpack
import numpy as np
import pytest
from compression_fixtures import HOW, MODEL, ctx, fed, through
from hypothesis import given, settings
from hypothesis import strategies as st

from fl_course import (
    QSGD,
    Aggregate,
    Buffered,
    ClientFailure,
    Clip,
    Coordinator,
    Discount,
    Downlink,
    Equal,
    FederatedDropout,
    LocalSGD,
    PowerSGD,
    RandomK,
    Rotate,
    Shards,
    SignSGD,
    Stage,
    Synchronous,
    Ternary,
    Threshold,
    TopK,
    Update,
    WeightedMean,
    digits,
    load,
    mlp,
    save,
    wire_report,
)
from fl_course.compression.sparse import kept, top_k
from fl_course.federation.stages import client_half, server_half
from fl_course.wire.messages import encode_update

STAGES = [TopK(0.1), TopK(0.1, feedback=False), RandomK(0.1), RandomK(0.1, feedback=True), Threshold(0.5), QSGD(1), QSGD(2),
          QSGD(5, block=7), QSGD(8), QSGD(16), Ternary(), SignSGD(), SignSGD(feedback=False)]  # fmt: skip
ODD = {
    "empty": np.zeros(0), "one": np.array([-3.7]), "zero": np.zeros(13), "constant": np.full(11, -0.3),
    "huge": np.array([3e38, -1e38, 0, 2e38, 1, 3e38, -3e38]), "denormal": np.array([1e-45, -3e-45, 0, 4e-44, 1e-45]),
    "ties": np.tile([1.0, -1.0, 1.0], 5), "mixed": np.array([1e-40, 1e30, -1e-10, 0, 5]),
}  # fmt: skip


@pytest.mark.parametrize("stage", STAGES, ids=repr)
@pytest.mark.parametrize("name", ODD)
def test_odd_vectors_come_through_finite(stage, name):
    x = ODD[name].astype(np.float32)
    with np.errstate(all="raise", under="ignore", over="ignore" if isinstance(stage, RandomK) else "raise"):
        got = client_half([stage], Update(0, 0, x), ctx(d=x.size)).delta.dense()
    assert got.shape == x.shape
    if isinstance(stage, RandomK) and name == "huge":
        return                                               # d/k times 3e38 is no float32; the wire refuses it
    assert np.isfinite(got).all()
    exact = isinstance(stage, QSGD | Ternary | SignSGD) and name in ("zero", "constant", "one", "empty")
    if exact and not (isinstance(stage, SignSGD) and name == "zero"):
        assert np.array_equal(got, x)
    if name == "zero":
        assert not got.any()


@pytest.mark.parametrize("stage", STAGES, ids=repr)
def test_nan_is_the_clients_failure(stage):
    with pytest.raises(ClientFailure, match="NaN"):
        stage.client(Update(0, 0, np.array([1, np.nan], np.float32)), ctx())


def test_an_update_that_overflows_is_left_out_and_the_round_goes_on():
    @dataclass(frozen=True)
    class Blow(Stage):
        def client(self, update, ctx):
            return replace(update, delta=update.delta * np.float32(np.inf if ctx.client == 7 else 1))

    record = fed(Blow(), TopK()).train(1).records[0]
    assert len(record.clients) == 10 - any("client 7 " in event for event in record.events)




# --- sparsification -----------------------------------------------------------------------------------------------------


def top_k_by_sorting(x, k):
    """Stable: among equal magnitudes the first positions."""
    return np.sort(np.argsort(-np.abs(x), kind="stable")[:k])


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 400), st.floats(0, 1), st.sampled_from([0.1, 1, 100]))
def test_top_k_is_exact_with_ties(seed, d, share, coarse):
    x = (np.round(np.random.default_rng(seed).standard_normal(d) * coarse) / coarse).astype(np.float32)
    k = round(share * d)
    assert np.array_equal(top_k(x, k), top_k_by_sorting(x, k))


@pytest.mark.parametrize(
    "shape", ["normal", "heavy", "sorted", "few values", "spikes that the sample misses", "spikes that it takes for all"]
)
@pytest.mark.parametrize("k", [1, 300, 3000, 60_000, 150_000])
def test_the_sampled_threshold_is_exact_too(shape, k):
    rng = np.random.default_rng(1)
    x = rng.standard_normal(300_000).astype(np.float32)
    if shape == "heavy":
        x = x**5
    elif shape == "sorted":
        x = np.sort(x)
    elif shape == "few values":
        x = np.round(x)
    elif shape.startswith("spikes"):
        x[:] = 1
        x["misses" in shape :: 9] = 2                        # the sample takes every ninth number: it sees no 2, or no 1
    assert np.array_equal(top_k(x, k), top_k_by_sorting(x, k))


@pytest.mark.parametrize("k", [-1, 6, 2.0, True, None])
def test_top_k_refuses(k):
    with pytest.raises(ValueError, match="k must be"):
        top_k(np.ones(5, np.float32), k)


@pytest.mark.parametrize("make", [TopK, RandomK])
@pytest.mark.parametrize("ratio", [0, -0.1, 1.01, math.nan, True, 2])
def test_ratios_are_refused(make, ratio):
    with pytest.raises(ValueError, match="ratio"):
        make(ratio)


@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf])
def test_thresholds_are_refused(value):
    with pytest.raises(ValueError, match="value"):
        Threshold(value)


def test_how_many_are_kept():
    assert [kept(ratio, 1000) for ratio in (1e-9, 0.001, 0.0015, 0.5, 1)] == [1, 1, 2, 500, 1000]
    assert kept(0.5, 0) == 0


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 60), st.floats(0.01, 1))
def test_top_k_contracts(seed, d, ratio):
    x = np.random.default_rng(seed).standard_cauchy(d).astype(np.float32)
    k, lost = kept(ratio, d), x - through([TopK(ratio, feedback=False)], x, ctx(d=d))
    assert np.square(lost).sum() <= (1 - k / d) * np.square(x, dtype=float).sum() * (1 + 1e-6)
    assert np.count_nonzero(x - lost) == k


def test_everything_kept_is_everything():
    x = np.random.default_rng(0).standard_normal(101).astype(np.float32)
    for stage in (TopK(1.0), RandomK(1.0), RandomK(1.0, feedback=True), Threshold(1e-30)):
        assert np.array_equal(through([stage], x, ctx(d=101)), x)
    assert np.array_equal(fed(TopK(1.0)).train(2).state.server.params, fed().train(2).state.server.params)


def test_a_threshold_is_met_by_what_equals_it():
    got = through([Threshold(0.5)], np.array([0.5, -0.5, 0.49, -3], np.float32), ctx())
    assert np.array_equal(got, np.array([0.5, -0.5, 0, -3], np.float32))


def test_a_threshold_may_send_nothing():
    here = ctx(d=3)
    assert not through([Threshold(5)], np.ones(3, np.float32), here).any()
    assert np.array_equal(here.memory["residual"], np.ones(3))


# --- error feedback -------------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Steady(Stage):
    exact = lossy = True


FEEDBACK = [[TopK(0.1)], [RandomK(0.1, feedback=True)], [Threshold(0.5)], [SignSGD()], [TopK(0.1), QSGD(4)],
            [TopK(0.1), Ternary()], [TopK(0.1), SignSGD(feedback=False)], [Rotate(), TopK(0.1)],
            [TopK(0.5), Clip(1.0)], [TopK(0.5), Clip(1.0, norm=1), QSGD(4)], [SignSGD(), Steady()],
            [RandomK(0.3, feedback=True), Clip(9.0), Steady(), Ternary()],
            [PowerSGD(mlp(8, 6, 3), 1)]]  # fmt: skip


@pytest.mark.parametrize("stages", FEEDBACK, ids=repr)
def test_what_was_sent_plus_the_residual_is_what_was_meant(stages):
    d = mlp(8, 6, 3).dim
    rng, memory, meant, sent = np.random.default_rng(8), {}, np.zeros(d), np.zeros(d)
    for version in range(30):
        delta = rng.standard_normal(d).astype(np.float32)
        here = ctx(version=version, d=d, memory=memory)
        meant += delta
        sent += through(stages, delta, here)
    residual = server_half([s for s in stages if isinstance(s, Rotate)], Aggregate(memory["residual"], 1.0), here).total
    scale = np.abs(meant).max() + np.abs(sent).max()
    assert np.abs(sent + residual - meant).max() <= 1e-6 * scale
    assert np.abs(residual).max() > 0.01                     # there was something to lose
    alone = [replace(s, feedback=False) if getattr(s, "feedback", False) else s for s in stages]
    forgot = np.zeros(d)
    rng = np.random.default_rng(8)
    for version in range(30):
        forgot += through(alone, rng.standard_normal(d).astype(np.float32), ctx(version=version, d=d))
    assert np.abs(forgot - meant).max() > 1e-3 * scale


def test_what_is_clipped_before_a_residual_is_no_part_of_what_was_meant():
    """[Clip, TopK]: the residual of earlier rounds is none of Clip's business, whatever its place in the drawer."""
    memory, meant, sent = {}, 0, 0
    for version in range(6):
        here = ctx(version=version, d=4, memory=memory)
        sent = sent + through([Clip(1.0), TopK(0.25)], np.array([3, -4, 0, 0], np.float32), here)
        meant = meant + np.array([0.6, -0.8, 0, 0])
    assert np.allclose(sent + memory["residual"], meant, atol=1e-5)


def three_clients(feedback, lr=0.1, steps=300):
    """f_i = ⟨a_i, x⟩² + ‖x‖²/4: each client's largest entry pulls the wrong way, and in the mean they agree."""
    a = np.array([[-3, 2, 2], [2, -3, 2], [2, 2, -3]], float)
    x, memory = np.ones(3), [{}, {}, {}]
    for t in range(steps):
        step = np.zeros(3)
        for i in range(3):
            gradient = 2 * (a[i] @ x) * a[i] + x / 2
            here = ctx(version=t, client=i, d=3, memory=memory[i])
            step += through([TopK(1 / 3, feedback=feedback)], (-lr * gradient).astype(np.float32), here) / 3
        x = x + step
        if np.linalg.norm(x) > 1e6:
            break
    return np.linalg.norm(x)


def test_the_counter_example_of_three_clients():
    """Beznosikov et al. 2020, example 1: plain top-1 moves away exponentially, error feedback converges."""
    assert three_clients(feedback=False) > 1e6
    assert three_clients(feedback=True) < 1e-12
    assert three_clients(feedback=False, lr=0.02) > 1e4
    assert three_clients(feedback=True, lr=0.02) < 0.01


def test_residuals_wait_in_the_drawers_and_survive_a_checkpoint(tmp_path):
    for stages in ((TopK(),), (PowerSGD(MODEL, 1),)):
        experiment = fed(*stages)
        whole = experiment.train(4).state
        half = experiment.train(2).state
        assert set(half.memory) == {c for record in experiment.train(2).records for c in record.clients}
        assert all("residual" in drawer for drawer in half.memory.values())
        save(tmp_path / "state", half, experiment)
        again = experiment.train(2, load(tmp_path / "state", experiment)).state
        assert np.array_equal(again.server.params, whole.server.params)
        assert all(np.array_equal(again.memory[c]["residual"], whole.memory[c]["residual"]) for c in whole.memory)


def test_a_lost_answer_leaves_the_residual_as_it_was():
    experiment = replace(fed(TopK()), fleet=Equal(drop=0.9))
    history = experiment.train(3)
    assert set(history.state.memory) == {c for record in history.records for c in record.clients}
    assert sum(len(record.clients) for record in history.records) < 15


# --- the whole loop -------------------------------------------------------------------------------------------------------


ALL = [TopK(), RandomK(0.1), QSGD(4), SignSGD(), PowerSGD(MODEL), FederatedDropout(MODEL), Downlink()]


@pytest.mark.parametrize("stage", ALL, ids=lambda stage: type(stage).__name__)
def test_runs_repeat_and_need_no_company(stage):
    a, b = (fed(stage).train(2).state.server.params for _ in range(2))
    assert np.array_equal(a, b)
    together, alone = fed(stage, training=replace(HOW, together=10)), fed(stage, training=replace(HOW, together=1))
    assert np.array_equal(together.train(1).state.server.params, alone.train(1).state.server.params)
    buffered = replace(fed(stage), schedule=Buffered(concurrency=10, buffer=5), aggregation=WeightedMean(Discount()))
    assert np.isfinite(buffered.train(3).state.server.params).all()


def test_messages_shrink_as_they_should():
    model = mlp(64, 128, 10)
    up = {}
    one, two = (TopK(0.01), QSGD(8), QSGD(4), Ternary(), SignSGD(), RandomK(0.01)), (TopK(0.01), QSGD(4))
    for stages in ((), *((stage,) for stage in one), two):
        record = fed(*stages, model=model).train(1).records[0]
        up[stages] = max(record.upload)
    d, head = model.dim, 160                                  # bytes around the payload: names, client, version, checksum
    assert up[()] <= 4 * d + head
    assert up[(TopK(0.01),)] <= 96 * 4 + 96 * 8.3 / 8 + head
    assert up[(QSGD(8),)] <= d + head
    assert up[(QSGD(4),)] <= d / 2 + head
    assert up[(Ternary(),)] <= d / 5 + head
    assert up[(SignSGD(),)] <= d / 8 + head
    assert up[(RandomK(0.01),)] <= 96 * 4 + 8 + head
    assert up[(TopK(0.01), QSGD(4))] <= 96 / 2 + 96 * 8.3 / 8 + head


def test_the_downlink_shrinks_and_the_server_keeps_the_exact_model():
    plain, coarse = fed().train(1), fed(Downlink(8, 64)).train(1)
    assert coarse.records[0].bytes_down["model"] < 0.32 * plain.records[0].bytes_down["model"]
    gap = np.abs(coarse.state.server.params - plain.state.server.params)
    assert 0 < gap.max() < 0.02
    fine = fed(Downlink(16, 64)).train(1).state.server.params
    assert np.abs(fine - plain.state.server.params).max() < gap.max() / 20


def test_the_rounded_model_is_one_for_all_clients_and_another_in_every_version():
    experiment = fed()
    models = {}
    for version in (0, 1):
        server = replace(experiment.initial().server, version=version)
        for client in (0, 1):
            sent = Downlink(4).down(server, ctx(version=version, client=client)).params.dense()
            models.setdefault(version, set()).add(sent.tobytes())
    assert [len(sent) for sent in models.values()] == [1, 1]
    assert models[0] != models[1]


def test_wire_report_stands_side_by_side():
    x = np.random.default_rng(0).standard_normal(10_000).astype(np.float32)
    # A few large numbers stretch the grid, so most codes are near zero: an entropy coder could still halve coarse grids.
    loose = {TopK(0.01): 1.05, RandomK(0.01): 1.05, SignSGD(): 1.02, QSGD(8): 1.15, QSGD(3): 1.8, Ternary(): 2.4}
    for stage, slack in loose.items():
        report = wire_report(client_half([stage], Update(0, 0, x), ctx(d=x.size)))
        assert report["bound"] <= report["payload"] <= slack * report["bound"] + 40
        assert report["payload"] < report["message"] < report["payload"] + 40
        assert report["float32"] == 40_000
        update = client_half([stage], Update(0, 0, x), ctx(d=x.size))
        assert report["payload"] == len(msgpack.packb(update.delta.to_wire()))
        assert report["message"] == len(encode_update(update))
    plain = wire_report(Update(0, 0, x))
    assert plain["formula"] == plain["bound"] == 40_000 <= plain["payload"] <= 40_020


# --- reproduction cards -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_top_one_percent_with_feedback_reaches_85_with_a_25th_of_the_bytes_and_ends_higher():
    """Digits, two shards, 100 clients, 10 a round, E = 5; the same learning rate for all three."""
    model, training = mlp(64, 64, 10), LocalSGD(lr=0.5, epochs=5, batch_size=10)
    stacks = {"plain": [], "memory": [TopK(0.01)], "no memory": [TopK(0.01, feedback=False)]}
    spent, ends = dict.fromkeys(stacks, 0), dict.fromkeys(stacks, 0.0)
    for seed in (0, 1, 2):
        data = digits().partition(Shards(2), clients=100, seed=seed)
        for name, stages in stacks.items():
            history = Coordinator(data, model, training, Synchronous(0.1), stages=stages, seed=seed).train(100)
            up = np.cumsum([sum(record.bytes_up.values()) for record in history.records])
            spent[name] += up[history.rounds_to(0.85) - 1]
            ends[name] += np.mean(history.series("accuracy")[-10:]) / 3
    assert spent["memory"] <= spent["plain"] / 25
    assert ends["memory"] >= ends["no memory"] + 0.03
