"""Stages that follow the layers: PowerSGD's factors, and the sub-models of federated dropout."""

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
from compression_fixtures import DATA, HOW, MODEL, ctx, fed, through

from fl_course import (
    DPSGD,
    CompositionError,
    ConvNet,
    Coordinator,
    Correction,
    FederatedDropout,
    FedProx,
    LocalSGD,
    PowerSGD,
    Scaffold,
    Server,
    Stage,
    Synchronous,
    Update,
    logistic,
    mlp,
    stream,
)
from fl_course.wire.layer_payloads import held

# --- low rank -------------------------------------------------------------------------------------------------------------


def test_full_rank_is_exact_and_low_rank_converges_to_the_best():
    model, rng = mlp(20, 15, 3), np.random.default_rng(0)
    x = rng.standard_normal(model.dim).astype(np.float32)
    assert np.allclose(through([PowerSGD(model, 15)], x, ctx(d=x.size)), x, atol=1e-5)
    stage, memory = PowerSGD(model, 2, feedback=False), {}
    w = (rng.standard_normal((15, 20)) * 0.1 + np.outer(rng.standard_normal(15), rng.standard_normal(20)) * 2).astype(np.float32)
    x[:300] = w.ravel()
    errors = [np.linalg.norm((through([stage], x, ctx(d=x.size, memory=memory)) - x)[:300]) for _ in range(30)]
    s = np.linalg.svd(w.astype(float), compute_uv=False)
    best = math.sqrt(np.square(s[2:]).sum())                  # Eckart and Young
    assert errors[-1] == pytest.approx(best, rel=0.02)
    assert errors[0] > errors[-1]


def test_what_factors_do_not_make_smaller_travels_whole():
    model = mlp(4, 4, 3)                                         # (4, 4) in rank 2: 16 numbers either way; (3, 4): 14 for 12
    x = np.random.default_rng(0).standard_normal(model.dim).astype(np.float32)
    for rank, factors in ((1, [True, False, True, False]), (2, [False] * 4)):
        payload = PowerSGD(model, rank).client(Update(0, 0, x), ctx(d=x.size)).delta
        assert [isinstance(part, tuple) for part in payload.parts] == factors
    assert np.array_equal(payload.dense(), x)


def test_convolutions_are_matrices_of_their_output_channels():
    model = ConvNet(8, 10)
    x = np.random.default_rng(0).standard_normal(model.dim).astype(np.float32)
    payload = PowerSGD(model, 1).client(Update(0, 0, x), ctx(d=x.size)).delta
    want = [(shape[0], math.prod(shape[1:])) for shape in model.shapes().values() if len(shape) > 1]
    assert [(len(part[0]), len(part[1])) for part in payload.parts if isinstance(part, tuple)] == want
    assert any(len(shape) == 4 for shape in model.shapes().values())


def test_all_clients_begin_with_the_same_guess():
    model = mlp(20, 15, 3)
    x = np.random.default_rng(0).standard_normal(model.dim).astype(np.float32)
    here = [through([PowerSGD(model, 1)], x, ctx(d=x.size, client=client, version=client)) for client in (0, 1)]
    assert np.array_equal(*here)


@pytest.mark.parametrize("rank", [0, -1, 1.5, True, None])
def test_ranks_are_refused(rank):
    with pytest.raises(ValueError, match="rank must be"):
        PowerSGD(MODEL, rank)


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
        keeps_zeros = True

        def client(self, update, ctx):
            seen.append((update.delta, held(model.sizes, stage.kept(ctx)), ctx.server.params))
            return update

    training = LocalSGD(lr=0.3, epochs=3, batch_size=5, weight_decay=0.01, momentum=0.0 if engine == "auto" else 0.5)
    experiment = fed(Watch(), stage, model=model, training=training)
    seen.clear()                                             # when it is built, a made-up update may be tried
    experiment.train(2)
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


@pytest.mark.parametrize(("rate", "units", "stay"), [(0.35, 4, 3), (0.5, 6, 3), (0.99, 4, 1), (0.0, 5, 5), (0.7, 7, 2)])
def test_how_many_units_stay(rate, units, stay):
    model = mlp(5, units, 3)
    assert [int(kept.sum()) for kept in FederatedDropout(model, rate).kept(dropout_ctx(model))] == [stay]


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
    class Smooth(type(MODEL)):
        """May have another activation, for which a unit of zeros is not silent."""

    with pytest.raises(ValueError, match="hidden units"):
        FederatedDropout(Smooth(MODEL.sizes))
    with pytest.raises(CompositionError, match="Scaffold"):
        fed(FederatedDropout(MODEL), training=LocalSGD(lr=0.1, correction=Scaffold()))
    fed(FederatedDropout(MODEL), training=LocalSGD(lr=0.1, correction=FedProx(0.1)))
    with pytest.raises(CompositionError, match="DPSGD moves every coordinate"):
        fed(FederatedDropout(MODEL), training=LocalSGD(lr=0.1, private=DPSGD(1.0, 1.0, noise_seed=1)))

    class Own(Correction):
        """Adds something, perhaps everywhere: it does not say."""

    with pytest.raises(CompositionError, match="Own moves every coordinate"):
        fed(FederatedDropout(MODEL), training=LocalSGD(lr=0.1, correction=Own()))
