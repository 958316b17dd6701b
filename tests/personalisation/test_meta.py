"""Per-FedAvg: its gradient is that of a function which finite differences can see."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from small import CLASSES, DIM, federation

from fl_course import (
    ConvNet,
    Coordinator,
    FedProx,
    LocalSGD,
    PerFedAvg,
    Synchronous,
    Task,
    Wrapped,
    digits,
    mlp,
    own_models,
    stream,
)
from fl_course.core import CompositionError, Server
from fl_course.data.partition import IID
from fl_course.engine.training import Trainer
from fl_course.personalisation.meta import meta_gradient
from fl_course.personalisation.steps import loss_at

NET = mlp(DIM, 4, CLASSES)
DATA = federation((8, 12, 9, 16, 4, 3))
HOW = LocalSGD(lr=0.3, epochs=2, batch_size=4)
X, Y = torch.tensor(DATA.x, dtype=torch.float64), torch.tensor(DATA.y)
SUPPORT, QUERY = (X[:9], Y[:9]), (X[9:15], Y[9:15])
TANH = Wrapped(torch.nn.Sequential(torch.nn.Linear(DIM, 4), torch.nn.Tanh(), torch.nn.Linear(4, CLASSES)))


def theta_of(net, seed=0):
    return torch.tensor(net.init(stream(seed, "init")) + 0.3 * stream(seed, "x").standard_normal(net.dim), dtype=torch.float64)


def after_a_step(net, theta, alpha):
    """The query's loss after one step on the support, in double precision."""
    leaf = theta[None].clone().requires_grad_()
    grad = torch.autograd.grad(loss_at(net, leaf, *SUPPORT).sum(), leaf)[0]
    return float(loss_at(net, theta[None] - alpha * grad, *QUERY))


@pytest.mark.parametrize("net", [NET, TANH])
@pytest.mark.parametrize("alpha", [0.05, 0.5])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_exact_gradient_is_that_of_finite_differences(net, alpha, seed):
    theta, h = theta_of(net, seed), 1e-6
    grad, value = meta_gradient(net, theta, SUPPORT, QUERY, alpha, "exact")
    assert float(value) == pytest.approx(after_a_step(net, theta, alpha), rel=1e-9)
    slopes = [(after_a_step(net, theta + h * e, alpha) - after_a_step(net, theta - h * e, alpha)) / (2 * h)
              for e in torch.eye(len(theta), dtype=torch.float64)]
    np.testing.assert_allclose(grad.numpy(), slopes, atol=1e-4 * float(grad.abs().max()))
    first = meta_gradient(net, theta, SUPPORT, QUERY, alpha, "first")[0]
    assert np.abs(first.numpy() - slopes).max() > 1e-2 * alpha * float(grad.abs().max())      # the test can see a difference


@pytest.mark.parametrize("net", [NET, TANH])
def test_hessian_free_comes_close_to_exact_and_closer_with_a_smaller_delta(net):
    theta = theta_of(net)
    exact = meta_gradient(net, theta, SUPPORT, QUERY, 0.3, "exact")[0]
    errors = [float((meta_gradient(net, theta, SUPPORT, QUERY, 0.3, "hessian-free", delta)[0] - exact).norm())
              for delta in (1e-1, 1e-2, 1e-4)]
    assert errors[0] > errors[1] >= errors[2]
    assert errors[2] < 1e-5 * float(exact.norm())
    first = float((meta_gradient(net, theta, SUPPORT, QUERY, 0.3, "first")[0] - exact).norm())
    assert errors[1] < 0.1 * first


@pytest.mark.parametrize("order", ["first", "exact", "hessian-free"])
def test_at_inner_rate_0_it_is_the_gradient_of_the_query(order):
    theta = theta_of(NET)
    leaf = theta[None].clone().requires_grad_()
    plain = torch.autograd.grad(loss_at(NET, leaf, *QUERY).sum(), leaf)[0][0]
    assert torch.equal(meta_gradient(NET, theta, SUPPORT, QUERY, 0.0, order)[0], plain)


@pytest.mark.parametrize("order", ["first", "exact", "hessian-free"])
def test_at_inner_rate_0_a_run_is_fedavgs(order):
    data = federation((8, 12, 9, 16, 5, 7))                                          # more than a batch for everybody
    meta, plain = (Coordinator(data, NET, replace(HOW, personal=p), Synchronous(0.5)).train(3)
                   for p in (PerFedAvg(0.0, order), None))
    np.testing.assert_allclose(meta.state.server.params, plain.state.server.params, atol=2e-6)
    for one, other in zip(meta.records, plain.records, strict=True):
        assert one.metrics["train_loss_last"] == pytest.approx(other.metrics["train_loss_last"], abs=1e-5)


def test_support_and_query_never_meet_and_all_take_their_turn_as_query():
    seen = []

    class Watched(PerFedAvg):
        def divide(self, mine, batch, rng):
            seen.append((mine, *PerFedAvg.divide(self, mine, batch, rng)))
            return seen[-1][1:]

    for support in (None, 3):
        seen.clear()
        trainer = Trainer(replace(HOW, epochs=1, personal=Watched(0.1, support=support)), NET, DATA)
        trainer.train([Task(2, Server(NET.init(stream(0, "init"))))])
        asked = np.concatenate([query for _, _, query in seen])
        assert sorted(asked.tolist()) == sorted(DATA.train[2].tolist())
        for mine, some, query in seen:
            assert not set(some) & set(query)
            assert set(some) <= set(mine)
            assert len(some) == (3 if support else len(mine) - len(query))


@pytest.mark.parametrize(("mine", "batch"), [([5], [5]), ([5, 6], [6, 5]), ([1, 2, 3], [3, 1, 2])])
def test_who_has_no_others_halves_its_batch(mine, batch):
    support, query = PerFedAvg().divide(np.array(mine), np.array(batch), stream(0, "x"))
    assert len(support)
    assert len(query)
    assert set(support) | set(query) == set(mine)
    assert len(mine) == 1 or not set(support) & set(query)


def test_one_step_of_the_trainer_is_the_step_of_the_formula():
    how = replace(HOW, batch_size=4, personal=PerFedAvg(0.2, "exact"))
    start = NET.init(stream(0, "init"))
    update = Trainer(how, NET, DATA).train([Task(4, Server(start))])[0]             # four examples, one batch, twice
    rows = [DATA.train[4], DATA.train[4]]
    assert update.metrics["steps"] == 2
    theta = torch.tensor(start, dtype=torch.float64)
    from fl_course.engine.batches import client_keys, plan_batches, round_key, splitmix

    keys = splitmix(client_keys([4]) ^ round_key(0, 0))
    rows = plan_batches([DATA.train[4]], keys, np.array([2]), 4).rows[:, 0]
    for batch in rows:
        support, query = PerFedAvg().divide(DATA.train[4], batch, stream(0, "x"))
        theta = theta - 0.3 * meta_gradient(NET, theta, (X[support], Y[support]), (X[query], Y[query]), 0.2)[0]
    np.testing.assert_allclose(start + update.delta, theta.numpy(), atol=1e-6)


def test_the_own_model_is_so_many_steps_from_the_downloaded_one():
    it = Coordinator(DATA, NET, replace(HOW, personal=PerFedAvg(0.2, steps=2)), Synchronous(0.5))
    state = it.train(2).state
    for k, theta in enumerate(own_models(it, state)):
        expected = torch.tensor(state.server.params, dtype=torch.float64)
        for _ in range(2):
            leaf = expected[None].clone().requires_grad_()
            rows = DATA.train[k]
            expected = expected - 0.2 * torch.autograd.grad(loss_at(NET, leaf, X[rows], Y[rows]).sum(), leaf)[0][0]
        np.testing.assert_allclose(theta, expected.numpy(), atol=2e-6)


@pytest.mark.parametrize("order", ["first", "exact", "hessian-free"])
def test_convolutions_learn_to_learn_as_well(order):
    data = digits().partition(IID(), 40)
    how = LocalSGD(lr=0.05, personal=PerFedAvg(0.05, order))
    it = Coordinator(data, ConvNet(8, 10, widths=(4,), groups=2), how, Synchronous(0.05))
    assert np.isfinite(own_models(it, it.train(1), [0, 1])).all()


def test_company_changes_no_bit():
    trainer = Trainer(replace(HOW, personal=PerFedAvg(0.1, "exact", support=3)), NET, DATA)
    start = NET.init(stream(0, "init"))
    together = trainer.train([Task(client, Server(start)) for client in DATA.ids])
    assert trainer.train([Task(DATA.ids[3], Server(start))])[0].delta.tobytes() == together[3].delta.tobytes()


@pytest.mark.parametrize("settings", [
    {"inner_lr": -0.1}, {"inner_lr": float("nan")}, {"inner_lr": float("inf")}, {"order": "second"}, {"support": 0},
    {"support": 1.5},
    {"steps": 0}, {"steps": True}, {"delta": 0}, {"delta": float("inf")}, {"inner_lr": "0.1"}, {"order": None},
])  # fmt: skip
def test_what_is_out_of_range_is_refused(settings):
    with pytest.raises(ValueError, match="must be"):
        PerFedAvg(**settings)


def test_its_steps_know_no_corrections():
    for how in (replace(HOW, correction=FedProx(0.1)), replace(HOW, momentum=0.5), replace(HOW, weight_decay=0.1)):
        with pytest.raises(CompositionError, match=r"plain steps|steps of its own"):
            Coordinator(DATA, NET, replace(how, personal=PerFedAvg()))
