"""The compressors: variance by formula, contraction, limits, error feedback, refusals, and the reproduction cards."""

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fl_course import *
from fl_course.compression import Compression, kept, top_k
from fl_course.layer_payloads import held
from fl_course.payloads import Quantised, Sparse, numbers
from fl_course.quantisation import hadamard, levels_of, quantise
from fl_course.stages import client_half, server_half
from fl_course.wire import decode_update, encode_update

MODEL = mlp(64, 16, 10)
DATA = digits().partition(Shards(2), clients=100, seed=0)
HOW = LocalSGD(lr=0.1, epochs=1, batch_size=10)


def ctx(seed=0, version=0, client=0, d=4, memory=None, **more):
    server = Server(np.zeros(d, np.float32), version)
    return Context(seed, server, client=client, memory={} if memory is None else memory, **more)


def through(stages, x, here, weight=1.0):
    """What the server reads of one update, over the wire."""
    update = decode_update(encode_update(client_half(stages, Update(here.client, 0, x, weight), here)))
    return server_half(stages, Aggregate(update.delta, weight), here).total


def fed(*stages, model=MODEL, **more):
    return Coordinator(DATA, model, more.pop("training", HOW), Synchronous(0.1), stages=stages, **more)


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


@pytest.mark.parametrize("shape", ["normal", "heavy", "sorted", "few values", "spikes that the sample misses"])
@pytest.mark.parametrize("k", [1, 300, 3000, 150_000])
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
        x[1::9] = 2                                          # the sample takes every ninth number: it sees no 2
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


def test_a_threshold_may_send_nothing():
    here = ctx(d=3)
    assert not through([Threshold(5)], np.ones(3, np.float32), here).any()
    assert np.array_equal(here.memory["residual"], np.ones(3))


# --- unbiasedness and variance, against the formulas ----------------------------------------------------------------------


def moments(stage, x, times=2000):
    """Mean and mean squared error over independent draws, one a version."""
    drawn = np.stack([stage.client(Update(0, 0, x), ctx(version=v, d=x.size)).delta.dense() for v in range(times)])
    return drawn.mean(0, dtype=float), np.square(drawn - x.astype(float)).mean(0), drawn


def grid_variance(x, levels, block):
    """f(1-f)·step² for each number, straight from the definition."""
    out = []
    for a in range(0, x.size, block):
        scale = np.abs(x[a : a + block]).max()
        step = 2 * scale / (levels - 1) or 1.0
        f = (x[a : a + block].astype(float) + scale) / step % 1
        out.append(f * (1 - f) * step**2)
    return np.concatenate(out)


@pytest.mark.parametrize(("stage", "levels", "block"), [
    (QSGD(1), 2, 41), (QSGD(2), 3, 41), (Ternary(), 3, 41), (Ternary(block=9), 3, 9), (QSGD(3, block=8), 7, 8),
    (QSGD(8), 255, 41), (QSGD(9), 511, 41), (QSGD(16, block=10), 65535, 10)], ids=repr)  # fmt: skip
def test_rounding_is_unbiased_with_the_variance_of_the_formula(stage, levels, block):
    x = np.random.default_rng(3).standard_normal(41).astype(np.float32)
    mean, error, drawn = moments(stage, x)
    variance = grid_variance(x, levels, block)
    scale = np.abs(x).max()
    assert (np.abs(mean - x) <= 5 * np.sqrt(variance / 2000) + scale * 2e-6).all()
    assert error.sum() == pytest.approx(variance.sum(), rel=0.05)
    assert len({row.tobytes() for row in drawn}) > 1000
    assert (variance <= (2 * scale / (levels - 1)) ** 2 / 4 + 1e-12).all()


def test_random_k_is_unbiased_with_the_variance_of_the_formula():
    x = np.random.default_rng(4).standard_normal(40).astype(np.float32)
    mean, error, _ = moments(RandomK(0.25), x, 4000)
    assert (np.abs(mean - x) <= 5 * np.abs(x) * math.sqrt(3 / 4000)).all()
    assert error.sum() == pytest.approx(3 * np.square(x).sum(), rel=0.05)          # (d/k - 1)·‖x‖²
    _, error, _ = moments(RandomK(0.25, feedback=True), x, 4000)
    assert error.sum() == pytest.approx(0.75 * np.square(x).sum(), rel=0.05)       # (1 - k/d)·‖x‖²


def test_sixteen_bits_are_nearly_exact_and_two_bits_are_ternary():
    x = np.random.default_rng(5).standard_normal(1003).astype(np.float32)
    assert np.abs(through([QSGD(16)], x, ctx(d=1003)) - x).max() <= 2 * np.abs(x).max() / 65534 * 1.001
    two, three = (client_half([s], Update(0, 0, x), ctx(d=1003)).delta for s in (QSGD(2), Ternary()))
    assert np.array_equal(two.codes, three.codes)
    assert len(encode_update(Update(0, 0, three))) < 1003 / 5 + 60


def test_numbers_on_the_grid_stay():
    x = np.arange(-127, 128).astype(np.float32) * np.float32(0.25)
    assert np.array_equal(quantise(x, 255, None, np.random.default_rng(0)).dense(), x)


def test_blocks_have_their_own_scale_and_long_vectors_are_as_short_ones():
    x = np.random.default_rng(6).standard_normal(100_003).astype(np.float32)
    x[:64] *= 1e6
    blocks = quantise(x, 255, 64, np.random.default_rng(1))
    assert blocks.scales.size == -(-100_003 // 64)
    steps = np.repeat(2 * blocks.scales / 254, 64)[: x.size]
    assert (np.abs(blocks.dense() - x) <= steps * 1.0001).all()
    coarse = quantise(x, 255, None, np.random.default_rng(1)).dense()
    assert np.abs(coarse - x)[64:].mean() > 50 * np.abs(blocks.dense() - x)[64:].mean()


def test_tiny_numbers_are_rounded_as_well_as_large_ones():
    x = np.array([1.0, -0.4, 0.1, 0.7], np.float32)
    for scale in (1e-38, 1e-31, 1e-20, 1e38):
        mean = np.mean([quantise(x * np.float32(scale), 15, None, np.random.default_rng(s)).dense() / scale for s in range(800)], 0)
        assert np.abs(mean - x).max() < 0.02


def test_signs_are_the_contraction_of_the_paper():
    x = np.random.default_rng(7).standard_normal(77).astype(np.float32)
    got = through([SignSGD(feedback=False)], x, ctx(d=77))
    assert np.array_equal(np.sign(got), np.sign(x))
    want = (1 - np.abs(x).sum() ** 2 / (77 * np.square(x).sum())) * np.square(x).sum()
    assert np.square(x - got).sum() == pytest.approx(want, rel=1e-5)
    assert np.square(got).sum() <= np.square(x).sum()


@pytest.mark.parametrize("bits", [0, 17, -1, 2.5, None, True, 33])
def test_bits_are_refused(bits):
    for make in (QSGD, Downlink):
        with pytest.raises(ValueError, match="bits"):
            make(bits)


@pytest.mark.parametrize("block", [0, -1, 2.5, True])
def test_blocks_are_refused(block):
    for make in (Ternary, lambda block: QSGD(8, block)):
        with pytest.raises(ValueError, match="block"):
            make(block)


# --- the rotation ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("d", [1, 2, 3, 8, 100, 650])
def test_rotation_keeps_lengths_and_is_undone_on_the_sum(d):
    rng, here = np.random.default_rng(d), ctx(d=d)
    a, b = rng.standard_normal((2, d)).astype(np.float32)
    ra, rb = (Rotate().client(Update(0, 0, x), here).delta for x in (a, b))
    assert np.linalg.norm(ra) == pytest.approx(np.linalg.norm(a), rel=1e-5)
    back = Rotate().server(Aggregate(ra.astype(float) + rb, 2.0), replace(here, client=None)).total
    assert np.allclose(back, a + b, atol=1e-5)


def test_hadamard_by_its_definition():
    h = np.array([[1.0]])
    for _ in range(3):
        h = np.block([[h, h], [h, -h]])
    x = np.random.default_rng(0).standard_normal(8).astype(np.float32)
    assert np.allclose(hadamard(x), h @ x / math.sqrt(8), atol=1e-6)


def test_rotation_spreads_a_spike_and_saves_the_quantiser():
    x = np.random.default_rng(1).standard_normal(1000).astype(np.float32) * np.float32(0.01)
    x[17] = 10
    spread = Rotate().client(Update(0, 0, x), ctx(d=1000)).delta
    assert np.abs(spread).max() < 10 * math.sqrt(2 * math.log(2000) / 1000)
    straight, rotated = (np.square(through(s, x, ctx(d=1000)) - x).sum() for s in ([QSGD(4)], [Rotate(), QSGD(4)]))
    assert rotated < straight / 5


# --- error feedback -------------------------------------------------------------------------------------------------------

FEEDBACK = [[TopK(0.1)], [RandomK(0.1, feedback=True)], [Threshold(0.5)], [SignSGD()], [TopK(0.1), QSGD(4)], [TopK(0.1), Ternary()],
            [TopK(0.1), SignSGD(feedback=False)], [Rotate(), TopK(0.1)], [PowerSGD(mlp(8, 6, 3), 1)]]  # fmt: skip


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


@pytest.mark.parametrize("stage", [TopK(), RandomK(0.1), QSGD(4), SignSGD(), PowerSGD(MODEL), FederatedDropout(MODEL), Downlink()],
                         ids=lambda stage: type(stage).__name__)  # fmt: skip
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
    for stages in ((), (TopK(0.01),), (QSGD(8),), (QSGD(4),), (Ternary(),), (SignSGD(),), (RandomK(0.01),), (TopK(0.01), QSGD(4))):
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


def test_wire_report_stands_side_by_side():
    x = np.random.default_rng(0).standard_normal(10_000).astype(np.float32)
    # A few large numbers stretch the grid, so most codes are near zero: an entropy coder could still halve coarse grids.
    loose = {TopK(0.01): 1.05, RandomK(0.01): 1.05, SignSGD(): 1.02, QSGD(8): 1.15, QSGD(3): 1.8, Ternary(): 2.4}
    for stage, slack in loose.items():
        report = wire_report(client_half([stage], Update(0, 0, x), ctx(d=x.size)))
        assert report["bound"] <= report["payload"] <= slack * report["bound"] + 40
        assert report["payload"] < report["message"] < report["payload"] + 40
        assert report["float32"] == 40_000
    plain = wire_report(Update(0, 0, x))
    assert plain["formula"] == plain["bound"] == 40_000 <= plain["payload"] <= 40_020


# --- low rank -------------------------------------------------------------------------------------------------------------


def test_full_rank_is_exact_and_low_rank_converges_to_the_best():
    model, rng = mlp(20, 15, 3), np.random.default_rng(0)
    x = rng.standard_normal(model.dim).astype(np.float32)
    assert np.allclose(through([PowerSGD(model, 15)], x, ctx(d=x.size)), x, atol=1e-5)
    stage, memory = PowerSGD(model, 2, feedback=False), {}
    w = (rng.standard_normal((15, 20)) * 0.1 + np.outer(rng.standard_normal(15), rng.standard_normal(20)) * 2).astype(np.float32)
    x[:300] = w.ravel()
    errors = [np.linalg.norm((through([stage], x, ctx(d=x.size, memory=memory)) - x)[:300]) for _ in range(30)]
    u, s, vt = np.linalg.svd(w.astype(float))
    best = math.sqrt(np.square(s[2:]).sum())                  # Eckart and Young
    assert errors[-1] == pytest.approx(best, rel=0.02)
    assert errors[0] > errors[-1]


def test_a_zero_update_does_not_end_the_power_iteration():
    model, memory = mlp(20, 15, 3), {}
    stage, d = PowerSGD(model, 2, feedback=False), mlp(20, 15, 3).dim
    assert not through([stage], np.zeros(d, np.float32), ctx(d=d, memory=memory)).any()
    x = np.outer(np.arange(1, 16), np.arange(1, 21)).astype(np.float32)
    whole = np.concatenate([x.ravel(), np.zeros(d - 300, np.float32)])
    for _ in range(3):
        got = through([stage], whole, ctx(d=d, memory=memory))
    assert np.allclose(got, whole, rtol=1e-3, atol=1e-2)


# --- federated dropout ------------------------------------------------------------------------------------------------------


def dropout_ctx(model, version=0, client=0):
    return replace(ctx(version=version, client=client), server=Server(np.zeros(model.dim, np.float32), version))


@pytest.mark.parametrize("engine", ["auto", "rows"])
def test_units_that_were_not_sent_are_not_trained(engine):
    """A ReLU unit of zero weights and bias has zero gradient, so the ordinary trainer trains the sub-model alone."""
    model = mlp(64, 16, 12, 10)
    stage, seen = FederatedDropout(model, 0.5), []

    @dataclass(frozen=True)
    class Watch(Stage):
        def client(self, update, ctx):
            seen.append((update.delta, held(model.sizes, stage.kept(ctx)), ctx.server.params))
            return update

    training = LocalSGD(lr=0.3, epochs=3, batch_size=5, weight_decay=0.01, momentum=0.0 if engine == "auto" else 0.5)
    fed(Watch(), stage, model=model, training=training).train(2)
    assert len(seen) == 20
    for delta, inside, params in seen:
        assert not delta[~inside].any()
        assert not params[~inside].any()
        assert delta[inside].any()
    assert len({inside.tobytes() for _, inside, _ in seen}) > 10


def test_training_a_submodel_is_training_the_smaller_network():
    model, kept_units = mlp(64, 16, 10), np.arange(16) % 2 == 0
    inside = held(model.sizes, [kept_units])
    start = model.init(stream(0, "x"))
    small = Coordinator(DATA, mlp(64, 8, 10), HOW, Synchronous(0.1))
    large = Coordinator(DATA, model, HOW, Synchronous(0.1))
    a = small.train(2, small.initial(start[inside])).state.server.params
    b = large.train(2, large.initial(np.where(inside, start, 0))).state.server.params
    assert np.allclose(b[inside], a, atol=1e-6)
    assert not b[~inside].any()


def test_federated_dropout_is_unbiased():
    model = mlp(5, 8, 6, 3)
    stage = FederatedDropout(model, 0.5)
    x = np.random.default_rng(2).standard_normal(model.dim).astype(np.float32)
    got = np.mean([through([stage], x, dropout_ctx(model, v)) for v in range(4000)], axis=0)
    p = stage.probabilities()
    assert sorted(set(np.round(p, 6))) == [0.25, 0.5, 1.0]
    assert (np.abs(got - x) <= 5 * np.abs(x) * np.sqrt((1 / p - 1) / 4000) + 1e-6).all()


def test_rate_zero_changes_nothing():
    assert np.array_equal(fed(FederatedDropout(MODEL, 0.0)).train(2).state.server.params, fed().train(2).state.server.params)


def test_messages_shrink_both_ways():
    model = mlp(64, 128, 10)
    plain, half = (fed(*stages, model=model).train(1).records[0] for stages in ((), (FederatedDropout(model, 0.5),)))
    assert half.bytes_down["model"] < 0.51 * plain.bytes_down["model"]
    assert max(half.upload) < 0.51 * max(plain.upload)


def test_dropout_refusals():
    for rate in (1, -0.1, math.nan, 1.5):
        with pytest.raises(ValueError, match="rate"):
            FederatedDropout(MODEL, rate)
    with pytest.raises(ValueError, match="hidden units"):
        FederatedDropout(logistic(64, 10))
    with pytest.raises(ValueError, match="hidden units"):
        FederatedDropout(ConvNet(8, 10))
    with pytest.raises(CompositionError, match="Scaffold"):
        fed(FederatedDropout(MODEL), training=LocalSGD(lr=0.1, correction=Scaffold()))
    fed(FederatedDropout(MODEL), training=LocalSGD(lr=0.1, correction=FedProx(0.1)))


# --- what does not go together ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SecureSum(Stage):
    masks = True


@dataclass(frozen=True)
class CentralNoise(Stage):
    noisy = True


REFUSED = [
    ([TopK(), SecureSum()], "places"), ([QSGD(8), SecureSum()], "shared grid"), ([PowerSGD(MODEL), SecureSum()], "before SecureSum"),
    ([SignSGD(), SecureSum()], "before SecureSum"), ([FederatedDropout(MODEL), SecureSum()], "before SecureSum"),
    ([SecureSum(), TopK()], "look random"), ([SecureSum(), Rotate()], "Rotate after SecureSum"),
    ([TopK(), CentralNoise()], "residual"), ([CentralNoise(), TopK()], "residual"), ([SignSGD(), CentralNoise()], "residual"),
    ([CentralNoise(), QSGD(8)], "norm of what is on the wire"), ([QSGD(8), CentralNoise()], "norm"),
    ([CentralNoise(), RandomK()], "longer"), ([CentralNoise(), Ternary()], "longer"),
    ([QSGD(8), Ternary()], "both round"), ([QSGD(8), TopK()], "has packed it"), ([TopK(), RandomK()], "has packed it"),
    ([TopK(), TopK()], "both keep a residual"), ([TopK(feedback=False), SignSGD()], "hands it a part"),
    ([TopK(), SignSGD()], "both keep a residual"), ([PowerSGD(MODEL), QSGD(8)], "has packed it"),
    ([TopK(), QSGD(1)], "no level for zero"), ([TopK(), Rotate()], "put Rotate"), ([QSGD(8), Clip(1.0)], "put Clip before"),
    ([TopK(), FedNova()], "put FedNova before"), ([PowerSGD(mlp(64, 8, 10))], "cuts the layers"),
    ([FederatedDropout(mlp(64, 8, 10))], "cuts the layers"),
]  # fmt: skip


@pytest.mark.parametrize(("stages", "why"), REFUSED, ids=lambda v: " → ".join(type(s).__name__ for s in v) if isinstance(v, list) else "")
def test_unsound_stacks_are_refused_when_built(stages, why):
    with pytest.raises(CompositionError, match=why):
        fed(*stages, weights=Uniform())


same = TopK()
SOUND = [
    [Rotate(), QSGD(4)], [Rotate(), SecureSum()], [CentralNoise(), TopK(feedback=False)], [TopK(feedback=False), CentralNoise()],
    [TopK(), QSGD(8)], [TopK(), Clip(1.0), QSGD(8)], [FederatedDropout(MODEL), QSGD(8), Downlink()], [Clip(1.0), QSGD(8)],
    [CentralNoise(), SignSGD(feedback=False)], [TopK(), SignSGD(feedback=False)], [FedNova(), TopK()],
]  # fmt: skip


@pytest.mark.parametrize("stages", SOUND, ids=lambda v: " → ".join(type(s).__name__ for s in v))
def test_sound_stacks_run(stages):
    assert np.isfinite(fed(*stages, weights=Uniform()).train(2).state.server.params).all()


def test_the_same_object_twice_is_seen():
    with pytest.raises(CompositionError, match="both keep"):
        fed(same, same)


def test_clipping_a_sparse_update_clips_what_is_sent():
    x = np.array([3, 0.1, -4, 0.2], np.float32)
    update = client_half([TopK(0.5, feedback=False), Clip(1.0)], Update(0, 0, x), ctx())
    assert isinstance(update.delta, Sparse)
    assert np.allclose(update.delta.dense(), [0.6, 0, -0.8, 0])


def test_every_stage_answers_for_itself():
    for stage in STAGES:
        assert isinstance(stage, Compression)
        assert type(stage).check is Compression.check or isinstance(stage, QSGD)
    assert [levels_of(bits) for bits in (1, 2, 3, 8, 16)] == [2, 3, 7, 255, 65535]
    assert isinstance(numbers(Quantised(np.zeros(3, np.uint8), 2, np.ones(1, np.float32), 3)), np.ndarray)


# --- reproduction cards -----------------------------------------------------------------------------------------------------


def test_top_one_percent_with_feedback_reaches_85_with_a_25th_of_the_bytes_and_ends_higher():
    """Digits, two shards, 100 clients, 10 a round, E = 5; the same learning rate for all three."""
    model, training = mlp(64, 64, 10), LocalSGD(lr=0.5, epochs=5, batch_size=10)
    stacks = {"plain": [], "memory": [TopK(0.01)], "no memory": [TopK(0.01, feedback=False)]}
    spent, ends = {name: 0 for name in stacks}, {name: 0.0 for name in stacks}
    for seed in (0, 1, 2):
        data = digits().partition(Shards(2), clients=100, seed=seed)
        for name, stages in stacks.items():
            history = Coordinator(data, model, training, Synchronous(0.1), stages=stages, seed=seed).train(100)
            up = np.cumsum([sum(record.bytes_up.values()) for record in history.records])
            spent[name] += up[history.rounds_to(0.85) - 1]
            ends[name] += np.mean(history.series("accuracy")[-10:]) / 3
    assert spent["memory"] <= spent["plain"] / 25
    assert ends["memory"] >= ends["no memory"] + 0.03
