"""LoRA: begins as the model does, merges into it, and its products are not averaged by averaging its factors."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from small import CLASSES, DIM, federation

from fl_course import Coordinator, FedPer, LocalSGD, LoRA, Split, Synchronous, mlp, own_models, product_gap, stream
from fl_course.engine.sgd import train_alone

NET = mlp(DIM, 4, CLASSES)
DATA = federation((8, 5, 12, 3))
HOW = LocalSGD(lr=0.3, epochs=2, batch_size=4)


def some(net, seed=0):
    return (net.init(stream(seed, "init")) + 0.3 * stream(seed, "x").standard_normal(net.dim)).astype(np.float32)


def test_it_begins_as_the_model_does():
    lora = LoRA(NET, ("dense0", "dense1"), 2)
    theta = lora.init(stream(0, "init"))
    assert theta[: NET.dim].tobytes() == NET.init(stream(0, "init")).tobytes()
    np.testing.assert_array_equal(lora.predict(theta, DATA.x), NET.predict(theta[: NET.dim], DATA.x))
    assert np.array_equal(lora.merged(theta), theta[: NET.dim])


@pytest.mark.parametrize("at", ["dense0", "dense1", ("dense0", "dense1")])
@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_merged_it_answers_alike_and_the_change_has_its_rank(at, scale):
    lora = LoRA(NET, at, 2, scale)
    theta = some(lora)
    merged = lora.merged(theta)
    np.testing.assert_allclose(lora.predict(theta, DATA.x), NET.predict(merged, DATA.x), atol=1e-5)
    for name in lora.at:
        where = NET.slices()[f"{name}.weight"]
        change = (merged - theta[: NET.dim])[where].reshape(NET.shapes()[f"{name}.weight"])
        a, b = (theta[lora.slices()[f"{name}.lora_{x}"]].reshape(lora.shapes()[f"{name}.lora_{x}"]) for x in "ab")
        np.testing.assert_allclose(change, scale * b @ a, atol=1e-5)
        assert np.linalg.matrix_rank(change.astype(float), tol=1e-4) <= 2


def test_its_training_is_the_textbooks():
    lora = LoRA(NET, "dense0", 2, 0.5)
    theta = some(lora)
    from fl_course.core import Server, Task
    from fl_course.engine.training import Trainer

    task = Task(2, Server(theta))
    update = Trainer(HOW, lora, DATA).train([task])[0]
    np.testing.assert_allclose(update.delta, train_alone(lora, task, DATA, HOW, torch.float64), atol=2e-6)


def test_personal_adapters_stay_and_the_network_under_them_travels():
    lora = LoRA(NET, "dense0", 2)
    split = Split(lora, ("dense0.lora_a", "dense0.lora_b"))
    it = Coordinator(DATA, split, replace(HOW, personal=FedPer()), Synchronous(1.0))
    assert split.dim == NET.dim
    state = it.train(3).state
    assert all(drawer["personal"].shape == (2 * DIM + 2 * 4,) for drawer in state.memory.values())
    models = own_models(it, state)
    assert all(np.array_equal(theta[: NET.dim], state.server.params) for theta in models)
    assert len({theta.tobytes() for theta in models}) == 4


def test_with_a_base_only_the_adapters_are_the_vector_and_the_base_stays():
    base = some(NET)
    lora = LoRA(NET, "dense0", 2).beginning_with(base)
    assert lora.dim == 2 * DIM + 2 * 4
    theta = some(lora)
    merged = lora.merged(theta)
    np.testing.assert_allclose(lora.predict(theta, DATA.x), NET.predict(merged, DATA.x), atol=1e-5)
    rest = np.delete(np.arange(NET.dim), np.arange(NET.dim)[NET.slices()["dense0.weight"]])
    assert np.array_equal(merged[rest], base[rest])
    history = Coordinator(DATA, lora, HOW, Synchronous(1.0)).train(2)
    assert history.state.server.params.shape == (lora.dim,)
    assert base.tobytes() == some(NET).tobytes()


# --- the trap -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 5])
def test_the_mean_of_products_is_the_product_of_means_and_the_covariance(n):
    rng = stream(n, "x")
    a, b = rng.integers(-5, 6, (n, 2, 3)), rng.integers(-5, 6, (n, 4, 2))
    products, means, gap = product_gap(a, b)
    for o in range(4):
        for i in range(3):                                                             # in exact fractions
            mean = sum(Fraction(int(b[k, o] @ a[k, :, i])) for k in range(n)) / n
            of_means = sum(Fraction(int(b[:, o, r].sum()), n) * Fraction(int(a[:, r, i].sum()), n) for r in range(2))
            assert products[o, i] == pytest.approx(float(mean), abs=1e-12)
            assert means[o, i] == pytest.approx(float(of_means), abs=1e-12)
            assert gap[o, i] == pytest.approx(float(mean - of_means), abs=1e-12)
    assert (np.abs(gap).max() > 0.1) == (n > 1)


def test_the_gap_vanishes_where_one_factor_is_shared():
    rng = stream(0, "x")
    a, b = rng.standard_normal((5, 2, 3)), rng.standard_normal((5, 4, 2))
    for one, other in ((np.repeat(a[:1], 5, 0), b), (a, np.repeat(b[:1], 5, 0))):
        products, means, gap = product_gap(one, other)
        np.testing.assert_allclose(products, means, atol=1e-12)
        np.testing.assert_allclose(gap, 0, atol=1e-12)


def test_averaging_the_factors_on_the_server_is_not_averaging_the_layers():
    lora = LoRA(NET, "dense0", 2, base=some(NET))
    start = some(lora)
    it = Coordinator(DATA, lora, HOW, Synchronous(1.0))
    after = it.train(1, it.initial(start)).state.server.params
    from fl_course.core import Server, Task
    from fl_course.engine.training import Trainer

    ends = [start + u.delta for u in Trainer(HOW, lora, DATA).train([Task(c, Server(start)) for c in DATA.ids])]
    weights = DATA.sizes / DATA.sizes.sum()
    layers = np.average([lora.merged(theta) for theta in ends], axis=0, weights=weights)
    assert np.abs(lora.merged(after) - layers).max() > 1e-3


@pytest.mark.parametrize(("a", "b"), [
    ((2, 3), (4, 2)), ((1, 2, 3), (2, 4, 2)), ((1, 2, 3), (1, 4, 3)), ((0, 2, 3), (0, 4, 2)),
])  # fmt: skip
def test_factors_must_fit(a, b):
    with pytest.raises(ValueError, match="same clients"):
        product_gap(np.zeros(a), np.zeros(b))


@pytest.mark.parametrize("make", [
    lambda: LoRA(NET, "dense2"), lambda: LoRA(NET, ()), lambda: LoRA(NET, ("dense0", "dense0")), lambda: LoRA(NET, "dense0", 0),
    lambda: LoRA(NET, "dense0", 1.5), lambda: LoRA(NET, scale=float("nan")), lambda: LoRA(NET, base=np.zeros(3)),
    lambda: LoRA(NET, "dense0.weight"), lambda: LoRA(NET, base=np.full(NET.dim, np.inf)),
])  # fmt: skip
def test_what_is_out_of_range_is_refused(make):
    with pytest.raises(ValueError, match=r"must|finite"):
        make()
