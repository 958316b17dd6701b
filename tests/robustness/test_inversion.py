"""Examples out of updates: exact where that is a theorem, and how it ends with noise, batches and epochs."""

import math

import numpy as np
import pytest
import torch

from fl_course import (
    BinaryCrossEntropy,
    ConvNet,
    LocalSGD,
    SquaredError,
    Wrapped,
    as_gradient,
    best_psnr,
    closed_form,
    digits,
    from_clients,
    gradient_of,
    invert,
    leaked_counts,
    leaked_label,
    logistic,
    membership,
    mlp,
    psnr,
    stream,
    unit_inputs,
)
from fl_course.core import Server, Task
from fl_course.engine.training import Trainer
from fl_course.privacy.mechanisms import clip

POOL, MODEL, LINEAR = digits(), mlp(64, 64, 10), logistic(64, 10)
START = MODEL.init(stream(0, "init"))


def sent(rows, lr=0.1, epochs=1, batch_size=None, model=MODEL, params=START):
    """The update of a client that holds these rows of the pool."""
    data = from_clients("one", {0: (POOL.x[rows], POOL.y[rows])}, 10, test_fraction=0.0)
    return Trainer(LocalSGD(lr=lr, epochs=epochs, batch_size=batch_size), model, data).train([Task(0, Server(params))])[0].delta


def test_one_example_in_one_step_is_given_away():
    """At 100 dB the picture differs by one part in 100,000; also from the update itself, whatever it is multiplied by."""
    for i in range(20):
        x = POOL.x[i]
        assert psnr(x, closed_form(MODEL, sent([i]))) > 100
        assert psnr(x, closed_form(MODEL, gradient_of(MODEL, START, POOL.x[i : i + 1], POOL.y[i : i + 1]))) > 120
        assert psnr(x, closed_form(MODEL, -37.0 * sent([i], lr=0.5))) > 100
        assert psnr(x, closed_form(LINEAR, sent([i], model=LINEAR, params=LINEAR.init(stream(1, "init"))))) > 100


def test_the_closed_form_by_hand():
    """A loop over the units, with torch's own gradient."""
    x, y = torch.from_numpy(POOL.x[3:4]), torch.from_numpy(POOL.y[3:4])
    first, second = torch.nn.Linear(64, 64), torch.nn.Linear(64, 10)
    torch.nn.utils.vector_to_parameters(torch.from_numpy(START), [*first.parameters(), *second.parameters()])
    torch.nn.functional.cross_entropy(second(first(x).relu()), y).backward()
    best = int(first.bias.grad.abs().argmax())
    slow = (first.weight.grad[best] / first.bias.grad[best]).numpy()
    np.testing.assert_allclose(closed_form(MODEL, sent([3])), slow, atol=1e-5)
    rows = unit_inputs(MODEL, sent([3]))
    moved = int((first.bias.grad != 0).sum())
    assert len(rows) == moved
    np.testing.assert_allclose(rows[: moved // 2], np.tile(POOL.x[3], (moved // 2, 1)), atol=1e-3)


def test_any_network_that_begins_dense():
    net = Wrapped(torch.nn.Sequential(torch.nn.Linear(64, 20), torch.nn.Sigmoid(), torch.nn.Linear(20, 10)))
    params = net.init(stream(2, "init"))
    assert psnr(POOL.x[5], closed_form(net, gradient_of(net, params, POOL.x[5:6], POOL.y[5:6]))) > 100


@pytest.mark.parametrize("seed", range(3))
def test_noise_at_a_hundredth_of_the_clip_hides_it(seed):
    found = []
    for i in range(20):
        delta = clip(sent([i]), 0.05, 2)
        assert np.linalg.norm(delta) == pytest.approx(0.05, rel=1e-4)          # the clip bites, and hides nothing
        assert psnr(POOL.x[i], closed_form(MODEL, delta)) > 100
        noise = 0.01 * 0.05 * stream(seed, "noise", i).standard_normal(delta.size)
        found.append(psnr(POOL.x[i], np.clip(closed_form(MODEL, delta + noise), 0, 1)))
    assert max(found) < 20
    assert np.median(found) < 17


def test_why_reconstruction_fails_on_batches_and_epochs():
    """32 examples in a step, or three epochs of small ones: the typical example comes back as little better than the mean image,
    and some, that moved a unit all alone, come back whole. So failing is no promise."""
    middle = np.median([psnr(x, POOL.x.mean(axis=0)) for x in POOL.x[:100]])
    for kwargs in ({}, {"epochs": 3}, {"epochs": 3, "batch_size": 8}):
        found = np.concatenate([best_psnr(POOL.x[r : r + 32], np.clip(unit_inputs(MODEL, sent(range(r, r + 32), **kwargs)), 0, 1))
                                for r in range(0, 320, 32)])  # fmt: skip
        assert np.median(found) < middle + 6
        assert found.max() > 60
    alone = [best_psnr(POOL.x[r : r + 1], unit_inputs(MODEL, sent([r]))[:1])[0] for r in range(10)]
    assert np.median(alone) > 100


def test_two_examples_one_unit_is_a_mixture():
    x = POOL.x[:2]
    row = closed_form(MODEL, sent([0, 1]))
    share, *_ = np.linalg.lstsq(x.T.astype(float), row, rcond=None)
    np.testing.assert_allclose(share @ x, row, atol=1e-4)                       # a mean of the two, with weights that add up to 1
    assert share.sum() == pytest.approx(1, abs=1e-3)


def test_the_strongest_unit_comes_first():
    delta, slices = sent(range(6)).astype(float), MODEL.slices()
    dw, db = delta[slices["dense0.weight"]].reshape(64, 64), delta[slices["dense0.bias"]]
    slow = [dw[i] / db[i] for i in sorted(range(64), key=lambda i: -abs(db[i])) if db[i] != 0]
    np.testing.assert_allclose(unit_inputs(MODEL, delta), slow)
    np.testing.assert_allclose(closed_form(MODEL, -delta), slow[0])


# --- by optimisation -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("how", "steps", "least"), [("dlg", 12, 60), ("cosine", 300, 40)])
def test_optimisation_finds_the_example(how, steps, least):
    g = as_gradient(sent([7]), 0.1)
    found = invert(MODEL, START, g, [leaked_label(MODEL, g)], (64,), how, steps)
    assert psnr(POOL.x[7], found.x[0]) > least
    assert found.x.shape == (1, 64)
    assert found.loss == found.losses[-1] < 1e-4 < found.losses[0]
    again = invert(MODEL, START, g, [leaked_label(MODEL, g)], (64,), how, 3)
    assert again.losses == invert(MODEL, START, g, POOL.y[7:8], (64,), how, 3).losses
    assert again.losses != invert(MODEL, START, g, POOL.y[7:8], (64,), how, 3, seed=1).losses


def test_noise_stops_the_optimiser_too():
    delta = sent([7])
    noise = 0.03 * np.linalg.norm(delta) * stream(0, "noise").standard_normal(delta.size)
    found = invert(MODEL, START, as_gradient(delta + noise, 0.1), POOL.y[7:8], (64,), "dlg", 10)
    assert psnr(POOL.x[7], np.clip(found.x[0], 0, 1)) < 20


def test_total_variation_smooths():
    g = as_gradient(sent([7]), 0.1)
    rough = invert(MODEL, START, g, POOL.y[7:8], (64,), "cosine", 40).x.reshape(8, 8)
    smooth = invert(MODEL, START, g, POOL.y[7:8], (64,), "cosine", 40, tv=0.5).x.reshape(8, 8)
    assert np.abs(np.diff(smooth)).mean() < 0.7 * np.abs(np.diff(rough)).mean()


def test_a_convolutional_network_can_be_looked_into():
    net = ConvNet(8, 10, widths=(4,), groups=2)
    params = net.init(stream(0, "init"))
    g = gradient_of(net, params, POOL.x[:1], POOL.y[:1])
    found = invert(net, params, g, POOL.y[:1], (64,), "dlg", 2)
    assert found.losses[-1] < found.losses[0]


def test_gradient_of_is_torchs_own():
    delta = sent(range(5), lr=0.1)
    np.testing.assert_allclose(as_gradient(delta, 0.1), gradient_of(MODEL, START, POOL.x[:5], POOL.y[:5]), atol=1e-5)
    two = sent(range(5), lr=0.01, epochs=2)
    np.testing.assert_allclose(as_gradient(two, 0.01, steps=2), gradient_of(MODEL, START, POOL.x[:5], POOL.y[:5]), atol=1e-2)


def test_psnr_by_hand():
    assert psnr([0, 0], [0.1, -0.1]) == pytest.approx(20)
    assert psnr([0, 0], [0.1, -0.1], peak=10) == pytest.approx(40)
    assert psnr([1, 2], [[1], [2]]) == math.inf
    np.testing.assert_allclose(best_psnr([[0.0], [1.0]], [[0.1], [0.9], [0.99]]), [20, 40])
    for wrong in (([1], [1, 2]), ([], [])):
        with pytest.raises(ValueError, match="as many"):
            psnr(*wrong)


# --- labels and members ----------------------------------------------------------------------------------------------


def test_labels_leak():
    for i in range(50):
        assert leaked_label(MODEL, as_gradient(sent([i]), 0.1)) == POOL.y[i]
    right = 0
    for r in range(0, 480, 16):
        truth = np.bincount(POOL.y[r : r + 16], minlength=10)
        counts = leaked_counts(MODEL, gradient_of(MODEL, START, POOL.x[r : r + 16], POOL.y[r : r + 16]), 16)
        assert counts.sum() == 16
        right += 16 - np.abs(counts - truth).sum() / 2
    assert right / 480 > 0.95


def test_labels_of_one_logit_leak_by_their_sign():
    net = logistic(64, 1, loss=BinaryCrossEntropy())
    params = net.init(stream(0, "init"))
    for i in range(20):
        y = POOL.y[i : i + 1] % 2
        assert leaked_label(net, gradient_of(net, params, POOL.x[i : i + 1], y)) == y[0]
    with pytest.raises(ValueError, match="single logit"):
        leaked_counts(net, gradient_of(net, params, POOL.x[:4], POOL.y[:4] % 2), 4)
    g = gradient_of(net, params, POOL.x[:1], np.array([1]))
    assert psnr(POOL.x[0], invert(net, params, g, [1], (64,), "dlg", 10).x[0]) > 40


def test_counts_of_a_trained_model_need_what_it_expects():
    """With p_c known the formula is exact."""
    trained = START + sent(range(300), lr=0.3, epochs=20, batch_size=10)
    x, y = POOL.x[400:432], POOL.y[400:432]
    g = gradient_of(MODEL, trained, x, y)
    logits = MODEL.predict(trained, x).astype(float)
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    assert leaked_counts(MODEL, g, 32, p.mean(axis=0)).tolist() == np.bincount(y, minlength=10).tolist()


def test_members_have_smaller_losses():
    inside, outside = (POOL.x[:60], POOL.y[:60]), (POOL.x[60:660], POOL.y[60:660])
    trained = START + sent(range(60), lr=0.5, epochs=200, batch_size=10)
    fresh, fitted = membership(MODEL, START, inside, outside), membership(MODEL, trained, inside, outside)
    assert 0.4 < fresh.auc < 0.6
    assert fitted.auc > 0.65
    slow = np.mean([[a < b for b in losses(trained, *outside)] for a in losses(trained, *inside)])
    assert fitted.auc == pytest.approx(slow, abs=0.01)


def losses(params, x, y):
    logits = MODEL.predict(params, x).astype(float)
    return np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(y)), y]


# --- what is refused -------------------------------------------------------------------------------------------------

G = gradient_of(MODEL, START, POOL.x[:1], POOL.y[:1])
WRONG = [
    lambda: closed_form(MODEL, np.zeros(MODEL.dim)), lambda: closed_form(MODEL, G[:-1]), lambda: closed_form(ConvNet(8, 10), G),
    lambda: unit_inputs(MODEL, 3.0), lambda: as_gradient(G, 0), lambda: as_gradient(G, math.nan), lambda: as_gradient(G, 0.1, 0),
    lambda: invert(MODEL, START, G, [1], (64,), "magic"), lambda: invert(MODEL, START, 0 * G, [1], (64,)),
    lambda: invert(MODEL, START, G, [], (64,)), lambda: invert(MODEL, START, G, [1], (64,), steps=0),
    lambda: invert(MODEL, START, G, [1], (64,), lr=-1), lambda: invert(MODEL, START, G, [1], (64,), tv=-1),
    lambda: invert(MODEL, START, G * math.nan, [1], (64,)), lambda: leaked_label(MODEL, G[1:]),
    lambda: leaked_counts(MODEL, G, 0), lambda: leaked_counts(MODEL, G * math.nan, 4), lambda: leaked_counts(MODEL, G, 2.0),
]  # fmt: skip


@pytest.mark.parametrize("make", WRONG)
def test_bad_values_are_refused_in_a_sentence(make):
    with pytest.raises((ValueError, TypeError)) as why:
        make()
    assert len(str(why.value)) > 25


def test_a_loss_on_numbers_has_gradients_too():
    net = logistic(3, 2, loss=SquaredError())
    g = gradient_of(net, net.init(stream(0, "init")), np.ones((1, 3), np.float32), np.ones((1, 2), np.float32))
    np.testing.assert_allclose(closed_form(net, g), 1, atol=1e-6)
