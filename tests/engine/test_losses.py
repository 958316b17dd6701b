"""Every loss against the textbook: training by a slow loop in double precision, metrics by scikit-learn."""

import math
import re
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk
from test_training import HOWS, PLAIN, digest, handed, in_double, trained
from torch import nn

from fl_course import (
    IID,
    BinaryCrossEntropy,
    ConvNet,
    Coordinator,
    CrossEntropy,
    Dataset,
    Dirichlet,
    Evaluation,
    FederatedData,
    LocalSGD,
    Shards,
    SquaredError,
    Synchronous,
    Wrapped,
    logistic,
    mlp,
)
from fl_course.core import stream
from fl_course.engine.losses import Loss
from fl_course.engine.models import Dense
from fl_course.engine.sgd import train_alone
from fl_course.engine.training import Trainer
from fl_course.federation.evaluation import client_measure, metrics_of
from fl_course.privacy.dpsgd import clipped_sum

FEATURES, SIZES = 16, (12, 1, 30, 7, 10)
LOSSES = {
    "squared, 1 number": (SquaredError(), 0, 1), "squared, 3 numbers": (SquaredError(), 0, 3),
    "one logit": (BinaryCrossEntropy(), 2, 1), "one logit, weighted": (BinaryCrossEntropy((0.5, 3.0)), 2, 1),
    "classes": (CrossEntropy(), 3, 3), "classes, weighted": (CrossEntropy((1.0, 0.0, 4.5)), 3, 3),
}  # fmt: skip
each_loss = pytest.mark.parametrize("name", LOSSES)


def federation(name, sizes=SIZES, tests=0) -> FederatedData:
    """Targets that a network can learn: numbers that follow the features, or classes that follow their signs."""
    _, classes, outputs = LOSSES[name]
    rng, total = stream(0, "test-losses"), sum(sizes)
    x = rng.standard_normal((total + 40, FEATURES)).astype(np.float32)
    hidden = x @ rng.standard_normal((FEATURES, 3)) / 4
    y = hidden[:, :outputs] + 0.1 * rng.standard_normal((total + 40, outputs)) if not classes else hidden[:, :classes].argmax(1)
    parts = np.split(np.arange(total), np.cumsum(sizes)[:-1])
    test, train = tuple(part[:tests] for part in parts), tuple(part[tests:] for part in parts)
    return FederatedData(name, x[:total], y[:total], classes, tuple(range(len(sizes))), train, test, x[total:], y[total:])


def modules(outputs):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        dense = nn.Sequential(nn.Linear(FEATURES, 6), nn.Tanh(), nn.Linear(6, outputs))
        conv = nn.Sequential(nn.Unflatten(1, (1, 4, 4)), nn.Conv2d(1, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(16, outputs))
    return dense, conv


def models(name) -> dict:
    loss, _, outputs = LOSSES[name]
    dense, conv = modules(outputs)
    return {"linear": logistic(FEATURES, outputs, loss), "mlp": mlp(FEATURES, 9, outputs, loss=loss),
            "conv": ConvNet(4, outputs, widths=(4,), loss=loss), "wrapped": Wrapped(dense, loss=loss),
            "wrapped conv": Wrapped(conv, loss=loss)}  # fmt: skip


EXECUTORS = [("rows", model, how) for model in ("linear", "mlp", "conv", "wrapped") for how in HOWS]
EXECUTORS += [("single", model, how) for model in ("conv", "wrapped", "wrapped conv") for how in PLAIN]


@each_loss
@pytest.mark.parametrize(("engine", "model", "how"), EXECUTORS)
def test_every_executor_equals_a_loop_over_torch_sgd(engine, model, how, name):
    model, data = models(name)[model], federation(name)
    mixed = {"epochs": {k: 1 + k % 3 for k in data.ids}} if "mixed" in how else {}
    how = replace(HOWS[how], lr=HOWS[how].lr / 5, **mixed)              # squared errors are steeper than logarithms
    tasks = handed(model, data)
    deltas = in_double(model, data, how, tasks, engine)
    for task in tasks:
        expected = train_alone(model, task, data, how, torch.float64)
        assert expected.any() or name == "classes, weighted"            # the only example of a client may weigh 0
        np.testing.assert_allclose(deltas[task.client], expected, rtol=0, atol=1e-12)


@each_loss
def test_the_reference_itself_equals_gradient_descent_by_hand(name):
    """A linear model and one full batch: θ - lr·mean of (what the loss pulls at each output)·x, in NumPy."""
    loss, classes, outputs = LOSSES[name]
    model, data = models(name)["linear"], federation(name)
    weights = np.array(getattr(loss, "class_weights", None) or np.ones(max(classes, 1)))
    for task, rows in zip(handed(model, data), data.train, strict=True):
        x, y, theta = data.x[rows].astype(float), data.y[rows], task.server.params.astype(float)
        z = x @ theta[: FEATURES * outputs].reshape(outputs, FEATURES).T + theta[FEATURES * outputs:]
        if isinstance(loss, SquaredError):
            pull = 2 * (z - y) / outputs
        elif isinstance(loss, BinaryCrossEntropy):
            pull = (weights[y] * (1 / (1 + np.exp(-z[:, 0])) - y))[:, None]
        else:
            p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
            pull = weights[y][:, None] * (p - np.eye(classes)[y])
        change = -0.3 * np.concatenate([(pull.T @ x / len(y)).ravel(), pull.mean(0)])
        how = LocalSGD(lr=0.3, batch_size=None)
        np.testing.assert_allclose(train_alone(model, task, data, how, torch.float64), change, atol=1e-12)
        np.testing.assert_allclose(trained(model, data, how, [task])[0].delta, change, atol=1e-6)


@each_loss
@pytest.mark.parametrize("kind", ["linear", "mlp", "conv", "wrapped"])
def test_clients_report_the_loss_that_they_make_small(name, kind):
    model, data = models(name)[kind], federation(name)
    how = LocalSGD(lr=0.02, epochs=3, batch_size=None)
    for task, update in zip(handed(model, data), trained(model, data, how), strict=True):
        x, y = data.examples(task.client)
        first = model.losses(model.layers(torch.tensor(task.server.params)[None]), torch.tensor(x)[None], torch.tensor(y)[None])
        assert update.metrics["loss_first"] == pytest.approx(first.mean().item(), rel=1e-5)
        assert update.metrics["loss_last"] <= update.metrics["loss_first"]


@each_loss
def test_the_fused_engine_is_for_plain_cross_entropy_only(name):
    trainer = Trainer(LocalSGD(), models(name)["mlp"], federation(name))
    assert (trainer.fused is not None) == (name == "classes")


@each_loss
def test_company_and_order_change_no_byte(name):
    model, data = models(name)["mlp"], federation(name)
    how, tasks = LocalSGD(lr=0.1, epochs=2, batch_size=5), handed(models(name)["mlp"], federation(name))
    expected = digest(trained(model, data, how, tasks))
    for others in (tasks[::-1], tasks[2:4]):
        got = digest(trained(model, data, how, others))
        assert got == {key: expected[key] for key in got}


@each_loss
@pytest.mark.parametrize("kind", ["mlp", "wrapped"])
def test_dp_sgd_clips_each_examples_gradient_of_this_loss(name, kind):
    model, data = models(name)[kind], federation(name)
    theta, slow = torch.tensor(model.init(stream(0, "init"))).double(), 0
    x, y = torch.tensor(data.x[:9]).double(), torch.tensor(data.y[:9])
    for one, target in zip(x, y, strict=True):
        row = theta.clone()[None].requires_grad_()
        gradient = torch.autograd.grad(model.losses(model.layers(row), one[None, None], target[None, None]).sum(), row)[0][0]
        slow = slow + gradient * min(1.0, 0.4 / max(gradient.norm().item(), 1e-9))
    torch.testing.assert_close(clipped_sum(model, theta, x, y, 0.4), slow, rtol=0, atol=1e-5)


# --- limits that are known ---------------------------------------------------------------------------------------------------


def test_linear_regression_reaches_the_least_squares_solution():
    name = "squared, 3 numbers"
    data, model = federation(name, sizes=(40, 40, 40)), models(name)["linear"]
    history = Coordinator(data, model, LocalSGD(lr=0.2, batch_size=None), Synchronous(1.0)).train(300)
    best, *_ = np.linalg.lstsq(np.c_[data.x, np.ones(len(data.x))].astype(float), data.y, rcond=None)
    np.testing.assert_allclose(history.state.server.params[: 3 * FEATURES].reshape(3, FEATURES), best[:-1].T, atol=1e-4)
    assert history.last("r2") > 0.9
    assert history.last("rmse") == pytest.approx(math.sqrt(history.last("loss")))


@given(st.lists(st.floats(-90, 90), min_size=1, max_size=9), st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_one_logit_is_two_of_which_one_is_0_and_equal_weights_are_none(logits, seed):
    z = torch.tensor(logits, dtype=torch.float64)[:, None]
    y = torch.tensor(stream(seed, "test").integers(0, 2, len(z)))
    both = torch.cat([torch.zeros_like(z), z], 1)
    torch.testing.assert_close(BinaryCrossEntropy().each(z, y), CrossEntropy().each(both, y), rtol=1e-12, atol=1e-12)
    for kind, outputs in ((BinaryCrossEntropy, z), (CrossEntropy, both)):
        torch.testing.assert_close(2 * kind().each(outputs, y), kind((2, 2)).each(outputs, y))
    for loss, outputs in ((BinaryCrossEntropy((3, 0.5)), z), (CrossEntropy((3, 0.5)), both), (CrossEntropy(), both)):
        _, slow = loss.judge(outputs.numpy(), y.numpy())           # the same, written a second time
        torch.testing.assert_close(loss.each(outputs, y), torch.tensor(slow), rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(loss.mean(outputs, y), torch.tensor(slow.mean()), rtol=1e-9, atol=1e-12)


@each_loss
def test_metrics_are_those_of_scikit_learn(name):
    loss, classes, _ = LOSSES[name]
    model, data = models(name)["mlp"], federation(name)
    params = model.init(stream(3, "init")) * 3
    outputs, y = model.predict(params, data.x_test).astype(float), data.y_test
    got = metrics_of(model, params, data.x_test, y)
    if not classes:
        assert list(got) == ["rmse", "loss", "r2"]
        assert got["loss"] == pytest.approx(sk.mean_squared_error(y, outputs))
        assert got["rmse"] == pytest.approx(math.sqrt(sk.mean_squared_error(y, outputs)))
        assert got["r2"] == pytest.approx(sk.r2_score(y, outputs))
        return
    weights = np.array(getattr(loss, "class_weights", None) or np.ones(classes))
    share = torch.tensor(outputs).softmax(1).numpy() if outputs.shape[1] > 1 else 1 / (1 + np.exp(-outputs[:, 0]))
    says = share.argmax(1) if share.ndim > 1 else share > 0.5
    assert list(got) == ["accuracy", "loss"]
    assert got["accuracy"] == pytest.approx(sk.accuracy_score(y, says))
    mean = sk.log_loss(y, share, sample_weight=weights[y], labels=range(classes)) * weights[y].sum() / len(y)
    assert got["loss"] == pytest.approx(mean)


@pytest.mark.parametrize(("loss", "classes", "metrics", "guesses"), [
    (CrossEntropy(), 3, {"loss": math.log(3)}, True), (CrossEntropy(), 3, {"loss": 0.9 * math.log(3)}, False),
    (CrossEntropy(), 3, {"loss": 1.2 * math.log(3)}, True), (CrossEntropy(), 3, {"loss": math.nan}, True),
    (CrossEntropy((9.0, 9.0, 9.0)), 3, {"loss": math.log(3)}, False),                  # weighted nats say nothing of guessing
    (BinaryCrossEntropy(), 2, {"loss": math.log(2)}, True), (BinaryCrossEntropy(), 2, {"loss": 0.9 * math.log(2)}, False),
    (BinaryCrossEntropy((9.0, 9.0)), 2, {"loss": math.log(2)}, False),
    (SquaredError(), 0, {"r2": 0.0}, True), (SquaredError(), 0, {"r2": 0.2}, False), (SquaredError(), 0, {"r2": math.nan}, True),
])  # fmt: skip
def test_what_is_no_better_than_guessing(loss, classes, metrics, guesses):
    assert loss.guesses(metrics, classes) is guesses


def test_r2_of_targets_that_never_change_is_not_measured():
    assert math.isnan(SquaredError().extra(np.zeros((3, 1)), np.ones((3, 1), np.float32))["r2"])


@each_loss
def test_the_clients_own_tests_are_judged_by_the_models_measure(name):
    loss, classes, _ = LOSSES[name]
    model, data = models(name)["mlp"], federation(name, sizes=(12, 6, 30, 7, 10), tests=5)
    measure = loss.measure
    plain, federated = (Coordinator(data, model, LocalSGD(lr=0.05), Synchronous(1.0), evaluation=evaluation).train(2)
                        for evaluation in (Evaluation(), Evaluation(federated=True)))
    assert plain.records[-1].metrics == federated.records[-1].metrics
    assert federated.records[-1].bytes_up["evaluation"] > 0
    each = client_measure(model, plain.state.server.params, data)
    slow = [metrics_of(model, plain.state.server.params, *data.examples(client, "test"))[measure] for client in data.ids]
    np.testing.assert_allclose(each, slow, rtol=1e-6)
    got = plain.records[-1].metrics
    assert got[f"client_{measure}"] == pytest.approx(np.mean(slow), rel=1e-6)
    assert got[f"client_{measure}_worst10"] == pytest.approx(min(slow) if classes else max(slow), rel=1e-6)
    assert ("accuracy" in got, "rmse" in got) == (classes > 0, classes == 0)


# --- the description ---------------------------------------------------------------------------------------------------------


def test_the_usual_loss_is_not_told_and_another_is():
    assert repr(mlp(4, 3)) == repr(Dense((4, 3), CrossEntropy())) == "Dense(sizes=(4, 3))"
    assert repr(ConvNet(8, 4)) == "ConvNet(side=8, classes=4, channels=1, widths=(16, 32), groups=4)"
    assert repr(logistic(4, 1, BinaryCrossEntropy())) == "Dense(sizes=(4, 1), loss=BinaryCrossEntropy(class_weights=None))"
    assert repr(Wrapped(nn.Linear(2, 1), loss=SquaredError())) == "Wrapped(name='Linear', loss=SquaredError())"
    assert repr(CrossEntropy(np.array([1, 2]))) == "CrossEntropy(class_weights=(1.0, 2.0))"
    assert mlp(4, 3) == Dense((4, 3))
    assert mlp(4, 3) != mlp(4, 3, loss=CrossEntropy((1, 1, 1)))


@dataclass(frozen=True)
class Huber(Loss):
    """A loss of the user's own."""

    measure = "mean_error"
    rising = False

    def each(self, outputs, targets):
        return nn.functional.huber_loss(outputs, targets, reduction="none").mean(-1)

    def judge(self, outputs, targets):
        away = abs(outputs - targets).mean(1)
        return away, np.where(away < 1, away**2 / 2, away - 0.5)


def test_a_loss_of_ones_own_goes_through_everything():
    data = federation("squared, 1 number", sizes=(12, 6, 30), tests=3)
    history = Coordinator(data, mlp(FEATURES, 8, 1, loss=Huber()), LocalSGD(lr=0.1, batch_size=5), Synchronous(1.0)).train(20)
    assert history.last("mean_error") < history.records[0].metrics["mean_error"]
    assert history.last("client_mean_error_worst10") >= history.last("client_mean_error")


# --- what does not fit ---------------------------------------------------------------------------------------------------------


def build(name, model):
    return lambda: Coordinator(federation(name), model)


@pytest.mark.parametrize(("make", "says"), [
    (build("squared, 1 number", logistic(FEATURES, 1)), "hold numbers to hit, not classes; give the model loss=SquaredError()"),
    (build("squared, 3 numbers", logistic(FEATURES, 1, SquaredError())), "answers with (1,) numbers, the data has 3 to hit"),
    (build("squared, 1 number", logistic(FEATURES, 3, SquaredError())), "answers with (3,) numbers, the data has 1 to hit"),
    (build("one logit", logistic(FEATURES, 1)), "for one logit give the model loss=BinaryCrossEntropy()"),
    (build("one logit", logistic(FEATURES, 2, BinaryCrossEntropy())), "make the last layer 1 wide"),
    (build("classes", logistic(FEATURES, 1, BinaryCrossEntropy())), "tells two classes apart; the data has 3"),
    (build("squared, 1 number", logistic(FEATURES, 1, BinaryCrossEntropy())), "for which SquaredError() is made"),
    (build("classes", logistic(FEATURES, 3, SquaredError())), "say classes=0 where the data are made"),
    (build("classes", logistic(FEATURES, 3, CrossEntropy((1.0, 2.0)))), "class_weights has 2 numbers for 3 classes"),
    (build("one logit", logistic(FEATURES, 1, BinaryCrossEntropy((1.0, 2.0, 3.0)))), "class_weights has 3 numbers for 2"),
    (lambda: CrossEntropy((1.0, -1.0)), "class_weights must be finite numbers from 0"),
    (lambda: CrossEntropy((1.0, math.nan)), "class_weights must be finite numbers from 0"),
    (lambda: BinaryCrossEntropy((0.0, 0.0)), "not all of them 0"),
    (lambda: CrossEntropy(5.0), "must be one number a class, such as (1.0, 5.0), not 5.0"),
    (lambda: federation("squared, 1 number").label_counts(), "no classes to count"),
    (lambda: Dataset("x", np.zeros((9, 2)), np.arange(9) / 9, 0).partition(Dirichlet(1.0), 3), "Dirichlet mixes classes"),
])  # fmt: skip
def test_a_loss_that_does_not_fit_is_refused_with_the_cure(make, says):
    with pytest.raises(ValueError, match=re.escape(says)):
        make()


@pytest.mark.parametrize("make", [lambda loss: mlp(2, 2, loss=loss), lambda loss: ConvNet(8, 2, loss=loss),
                                  lambda loss: logistic(2, 1, loss)])  # fmt: skip
@pytest.mark.parametrize(("loss", "says"), [(SquaredError, "make one: SquaredError()"), ("mse", "not 'mse'"), (None, "not None")])
def test_what_is_no_loss_is_refused(make, loss, says):
    with pytest.raises(TypeError, match=re.escape(says)):
        make(loss)


@pytest.mark.parametrize("shape", [(9,), (9, 1), (9, 3)])
def test_numbers_to_hit_are_columns_whatever_shape_they_come_in(shape):
    """A vector (b,) against outputs (b, 1) would silently make a table (b, b) of differences."""
    y = np.arange(np.prod(shape)).reshape(shape) / 10
    pool = Dataset("numbers", np.eye(9), y, 0)
    assert pool.y.shape == (9, shape[1] if len(shape) > 1 else 1)
    assert pool.y.dtype == np.float32
    assert "numbers to hit" in repr(pool)
    data = pool.partition(IID(), 3)
    sent = Coordinator(data, logistic(9, pool.y.shape[1], SquaredError()), LocalSGD(lr=0.1, batch_size=None)).train(1)
    assert sent.records[0].metrics["train_loss_first"] == pytest.approx(float((pool.y ** 2).mean()), rel=1.0)


def test_shards_of_numbers_are_dealt_in_order_of_size():
    y = stream(0, "test").permutation(60) / 60
    data = Dataset("numbers", np.zeros((60, 2)), y, 0).partition(Shards(1), 6, test_fraction=0)
    spans = sorted((data.examples(k)[1].min(), data.examples(k)[1].max()) for k in data.ids)
    assert all(high < low for (_, high), (low, _) in pairwise(spans))
