"""Example-level DP-SGD: the fast clipped sum against a plain loop, the noise, the ledger of each client, the limit case."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from small import CLASSES, DIM, UNIFORM, experiment, federation

from fl_course import (
    DPSGD,
    CompositionError,
    ConvNet,
    LocalSGD,
    Scaffold,
    Synchronous,
    load,
    logistic,
    mlp,
    save,
    stream,
)
from fl_course.core import ClientFailure, Server, Task
from fl_course.engine.training import Trainer
from fl_course.privacy.accounting import RDP, Gaussian, PoissonSampled, Repeated
from fl_course.privacy.dpsgd import clipped_sum, example_gradients


def by_hand(model, theta, x, y, bound):
    """One example after the other, by autograd, in float64."""
    total = torch.zeros(len(theta), dtype=torch.float64)
    for one, label in zip(x, y, strict=True):
        row = theta.double().unsqueeze(0).requires_grad_()
        loss = model.losses(model.layers(row), one.double()[None, None], label[None, None]).sum()
        grad = torch.autograd.grad(loss, row)[0][0]
        total += grad * min(1.0, bound / float(grad.norm()))
    return total


def some(model, shape, examples=7, classes=3):
    rng = stream(1, "dpsgd-test")
    theta = torch.from_numpy(model.init(rng)) * 3
    x = torch.from_numpy(rng.standard_normal((examples, *shape)).astype(np.float32))
    return theta, x, torch.from_numpy(rng.integers(0, classes, examples))


@pytest.mark.parametrize("bound", [0.5, 2.0, math.inf])
@pytest.mark.parametrize(
    ("model", "shape"), [(logistic(5, 3), (5,)), (mlp(5, 8, 6, 3), (5,)), (ConvNet(8, 3, widths=(4,)), (64,))]
)
def test_the_clipped_sum_is_that_of_a_plain_loop(model, shape, bound):
    theta, x, y = some(model, shape)
    expected = by_hand(model, theta, x, y, bound)
    assert torch.allclose(clipped_sum(model, theta, x, y, bound).double(), expected, atol=3e-5, rtol=1e-4)


def test_ghost_norms_are_the_norms_of_the_rows():
    model = mlp(5, 8, 3)
    theta, x, y = some(model, (5,))
    rows = example_gradients(model, theta, x, y)
    for row, one, label in zip(rows, x, y, strict=True):
        assert torch.allclose(clipped_sum(model, theta, one[None], label[None], math.inf), row, atol=1e-5)
        short = clipped_sum(model, theta, one[None], label[None], 0.1)
        assert float(short.double().norm()) <= 0.1


def test_no_example_moves_the_sum_further_than_the_bound():
    model = mlp(5, 8, 3)
    theta, x, y = some(model, (5,))
    loud = x.clone()
    loud[3] *= 1e6
    without = clipped_sum(model, theta, torch.cat([x[:3], x[4:]]), torch.cat([y[:3], y[4:]]), 0.25)
    assert float((clipped_sum(model, theta, loud, y, 0.25) - without).double().norm()) <= 0.25 + 1e-6
    assert torch.equal(clipped_sum(model, theta, x[:0], y[:0], 0.25), torch.zeros_like(theta))


def test_no_noise_no_clip_and_fixed_batches_are_plain_sgd():
    plain = LocalSGD(lr=0.2, epochs=3, batch_size=3, weight_decay=0.01)
    nothing = replace(plain, private=DPSGD(math.inf, 0.0, sampling="shuffle"))
    for model in (logistic(DIM, CLASSES), mlp(DIM, 6, CLASSES)):
        a, b = (replace(experiment(federation((8, 5, 7, 4))), training=how, model=model) for how in (plain, nothing))
        assert np.allclose(a.train(3).state.server.params, b.train(3).state.server.params, atol=2e-5)


def one_step(data, z, noise_seed=None, clip=1.0):
    how = LocalSGD(lr=1.0, epochs=1, batch_size=4, private=DPSGD(clip, z, noise_seed=noise_seed))
    model = mlp(DIM, 2222, CLASSES)
    task = Task(0, Server(np.zeros(model.dim, np.float32)))
    return Trainer(how, model, data).train([task])[0].delta


def test_deviation_of_the_noise():
    """With every example clipped to nearly nothing, what is left of one step is noise: z·C / B."""
    delta = one_step(federation((4,)), 1.5, clip=1e-3) * 4 / (1.5e-3)
    assert len(delta) == 20_001
    assert abs(delta.std() - 1) < 0.03


def test_poisson_batches_and_public_denominator():
    """z = 0 and clip inf: the mean over coins of a step is the full gradient, though batches differ in size."""
    data, model = federation((8,)), logistic(DIM, CLASSES)
    params = model.init(stream(0, "w"))
    task, mine = Task(0, Server(params)), data.train[0]
    whole = by_hand(model, torch.from_numpy(params), torch.from_numpy(data.x[mine]), torch.from_numpy(data.y[mine]), math.inf)
    deltas = []
    for seed in range(300):
        how = LocalSGD(lr=1e-3, batch_size=4, private=DPSGD(math.inf, 0.0, noise_seed=seed))
        deltas.append(Trainer(how, model, data).train([task])[0].delta)
    two_steps = -1e-3 * whole.numpy() / 8 * 2
    assert np.linalg.norm(np.mean(deltas, axis=0) - two_steps) < 0.1 * np.linalg.norm(two_steps)
    assert len({float(delta.sum()) for delta in deltas}) > 250                 # the coins do fall differently


def test_seeds():
    data = federation((8,))
    assert np.array_equal(one_step(data, 1.0, 5), one_step(data, 1.0, 5))
    assert not np.array_equal(one_step(data, 1.0, 5), one_step(data, 1.0, 6))
    assert not np.array_equal(one_step(data, 1.0), one_step(data, 1.0))


def test_the_price_of_a_round():
    it = DPSGD(1.0, 1.1)
    assert it.event(10, 4, 2) == Repeated(PoissonSampled(0.4, Gaussian(1.1)), 6)
    assert replace(it, sampling="shuffle").event(10, 4, 2) == Repeated(Gaussian(1.1), 2)


def test_each_client_pays_for_its_own_examples_and_stops_at_its_budget(tmp_path):
    how = LocalSGD(lr=0.1, epochs=1, batch_size=4, private=DPSGD(1.0, 2.0, budget=3.0, noise_seed=0))
    it = experiment(federation((8, 40)), training=how, schedule=Synchronous(1.0))
    history = it.train(6)
    event = how.private.event(8, 4, 1)
    price = [RDP().epsilon(Repeated(event, t), 1e-5) for t in range(1, 7)]
    rounds = sum(epsilon <= 3.0 for epsilon in price)
    assert 0 < rounds < 6
    assert [0 in r.clients for r in history.records] == [True] * rounds + [False] * (6 - rounds)
    assert history.state.reports[0]["epsilon"] == pytest.approx(price[rounds - 1])
    assert history.state.reports[1]["epsilon"] < history.state.reports[0]["epsilon"]      # more examples, a smaller rate
    assert any("budget is spent" in event for event in history.records[rounds].events)
    save(tmp_path / "half", it.train(rounds).state, it)
    resumed = it.train(6 - rounds, load(tmp_path / "half", it))
    assert resumed.state.server.params.tobytes() == history.state.server.params.tobytes()
    assert "train_loss_last" not in history.records[0].metrics


def test_a_client_without_budget_says_so():
    how = LocalSGD(private=DPSGD(1.0, 0.3, budget=0.1))
    trainer = Trainer(how, logistic(DIM, CLASSES), federation())
    with pytest.raises(ClientFailure, match="for its examples the privacy budget is spent"):
        trainer.train([Task(0, Server(np.zeros(18, np.float32)))])


@pytest.mark.parametrize(
    ("training", "changes", "words"),
    [
        ({"momentum": 0.9}, {}, "momentum"),
        ({"correction": Scaffold()}, {}, "corrections"),
    ],
)
def test_refusals(training, changes, words):
    with pytest.raises(CompositionError, match=words):
        experiment(weights=UNIFORM, training=LocalSGD(private=DPSGD(1.0, 1.0), **training), **changes)


@pytest.mark.parametrize(
    ("settings", "words"),
    [((0.0, 1.0), "clip"), ((math.inf, 1.0), "without limit"), ((1.0, -1.0), "noise"), ((1.0, 1.0, "all"), "sampling")],
)
def test_bad_settings(settings, words):
    with pytest.raises(ValueError, match=words):
        DPSGD(*settings)
