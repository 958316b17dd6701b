"""Local training: against gradient descent by hand, against torch.optim.SGD, and to the byte against itself."""

import hashlib
import itertools
import os
import subprocess
import sys
import time
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from small import named
from torch import nn

from fl_course.core import Server, Task, Update, stream
from fl_course.data.federated import FederatedData
from fl_course.drift.methods import FedProx
from fl_course.engine import fused
from fl_course.engine.batches import client_keys, plan_batches, round_key, splitmix, width
from fl_course.engine.correction import Affine
from fl_course.engine.fused import DenseEngine, implicit_room
from fl_course.engine.local import LocalSGD
from fl_course.engine.models import ConvNet, Dense, Model, logistic, mlp
from fl_course.engine.sgd import SingleEngine, train_alone, train_rows
from fl_course.engine.training import Trainer
from fl_course.engine.wrapped import Wrapped
from fl_course.federation.coordinator import Coordinator
from fl_course.federation.evaluation import Evaluation, score
from fl_course.federation.interfaces import Correction, Stage
from fl_course.federation.schedule import Synchronous

SIZES = (12, 1, 30, 7, 10, 23, 8, 2)
IDS = ("b", 40, "a", 3, 7, "client-9", 0, "0")
FEATURES, CLASSES = 16, 4


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    monkeypatch.setattr(fused, "LARGE", FEATURES * 70)                # so that "wide" counts as large
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def federation(sizes=SIZES, ids=IDS, seed=0) -> FederatedData:
    """Clients with as many examples as `sizes` says, each leaning towards labels of its own."""
    rng, total = stream(seed, "test-federation"), sum(sizes)
    owner = np.repeat(np.arange(len(sizes)), sizes)
    y = np.where(rng.random(total) < 0.5, owner % CLASSES, rng.integers(0, CLASSES, total))
    centres = rng.standard_normal((CLASSES, FEATURES))
    x = (centres[y] + rng.standard_normal((total, FEATURES))).astype(np.float32)
    place = rng.permutation(total)                                    # clients hold rows scattered over the pool
    train = tuple(np.flatnonzero(owner[place] == k) for k in range(len(sizes)))
    x, y = x[place], y[place]
    nothing = tuple(np.arange(0) for _ in sizes)
    return FederatedData("test", x, y, CLASSES, tuple(ids), train, nothing, x[:40].copy(), y[:40].copy())


def wrapped() -> Wrapped:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Wrapped(nn.Sequential(nn.Linear(FEATURES, 6), nn.Tanh(), nn.LayerNorm(6), nn.Linear(6, CLASSES)))


def wrapped_convolution() -> Wrapped:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Wrapped(nn.Sequential(nn.Unflatten(1, (1, 4, 4)), nn.Conv2d(1, 4, 3, padding=1), nn.Tanh(), nn.Flatten(),
                                     nn.Linear(64, CLASSES)))


MODELS = {"logistic": logistic(FEATURES, CLASSES), "mlp": mlp(FEATURES, 9, CLASSES), "2nn": mlp(FEATURES, 20, 12, CLASSES),
          "wide": mlp(FEATURES, 70, 9, CLASSES),                       # its first layer is kept implicit
          "conv": ConvNet(4, CLASSES, widths=(4, 8)), "wrapped": wrapped(), "wrapped conv": wrapped_convolution()}
each_model = pytest.mark.parametrize("name", MODELS)


def handed(model: Model, data: FederatedData, clients=None, version=0, seed=0) -> list[Task]:
    server = Server(model.init(stream(version, "test-init")), version)
    return [Task(client, server, seed) for client in (data.ids if clients is None else clients)]


def trained(model: Model, data: FederatedData, how: LocalSGD, tasks=None) -> list[Update]:
    return Trainer(how, model, data).train(handed(model, data) if tasks is None else tasks)


def digest(updates) -> dict:
    """For each client and version the bytes of its change and the exact value of every number that it reports."""
    return {(u.client, u.version): (hashlib.sha256(u.delta.tobytes()).hexdigest(), dict(u.metrics)) for u in updates}


# --- against gradient descent, by hand -----------------------------------------------------------------------------


def by_hand(params: np.ndarray, x: np.ndarray, y: np.ndarray, lr: float, steps: int) -> np.ndarray:
    """Gradient descent on the mean cross-entropy of logistic regression, in NumPy and double precision."""
    inputs, classes = x.shape[1], CLASSES
    W, b = params[: inputs * classes].reshape(classes, inputs).astype(float), params[inputs * classes:].astype(float)
    for _ in range(steps):
        scores = x @ W.T + b
        p = np.exp(scores - scores.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        p[np.arange(len(y)), y] -= 1
        W, b = W - lr * p.T @ x / len(y), b - lr * p.mean(0)
    return np.concatenate([W.ravel(), b])


def federated(data: FederatedData, rounds: int, how=None, **settings) -> np.ndarray:
    how = how or LocalSGD(lr=0.3, epochs=1, batch_size=None)
    experiment = Coordinator(data, MODELS["logistic"], how, Synchronous(1.0), **settings)
    return experiment.train(rounds).state.server.params


@pytest.mark.parametrize("engine", ["auto", "rows"])
def test_one_client_with_its_whole_data_in_a_batch_is_gradient_descent(engine):
    data = federation(sizes=(57,), ids=("only",))
    first = MODELS["logistic"].init(stream(0, "init"))
    kept = first.copy()
    expected = by_hand(first, data.x, data.y, 0.3, steps=6)
    one_step_a_round = federated(data, 6, LocalSGD(lr=0.3, batch_size=None, engine=engine))
    all_in_a_round = federated(data, 1, LocalSGD(lr=0.3, epochs=6, batch_size=None, engine=engine))
    np.testing.assert_allclose(one_step_a_round, expected, atol=1e-6)
    np.testing.assert_allclose(all_in_a_round, expected, atol=1e-6)
    assert np.array_equal(first, kept)


@pytest.mark.parametrize("sizes", [(20, 20, 20, 20), SIZES, (1, 60), (3, 0, 9)])
def test_any_split_with_one_full_batch_step_is_centralised_gradient_descent(sizes):
    data = federation(sizes, ids=range(len(sizes)))
    expected = by_hand(MODELS["logistic"].init(stream(0, "init")), data.x, data.y, 0.3, steps=4)
    np.testing.assert_allclose(federated(data, 4), expected, atol=1e-6)


def test_equal_iid_clients_equal_one_pooled_gradient_step():
    rng = stream(0, "test-iid")
    x, y = rng.standard_normal((80, FEATURES)).astype(np.float32), rng.integers(0, CLASSES, 80)
    rows, none = np.split(rng.permutation(80), 8), (np.arange(0),) * 8
    data = FederatedData("iid", x, y, CLASSES, tuple(range(8)), tuple(rows), none, x[:9], y[:9])
    expected = by_hand(MODELS["logistic"].init(stream(0, "init")), x, y, 0.3, steps=1)
    np.testing.assert_allclose(federated(data, 1), expected, atol=1e-6)


class Tripled(Stage):
    """Data-size weights in another currency: 3 n_k."""

    def client(self, update: Update, ctx: object) -> Update:
        n = np.float32(3 * update.metrics["examples"])
        return Update(update.client, update.version, update.delta * n, float(n), update.extras, update.metrics)


def test_order_names_and_the_scale_of_weights_do_not_matter():
    data = federation()
    expected = federated(data, 3)
    turned = FederatedData("turned", data.x, data.y, CLASSES, data.ids[::-1], data.train[::-1], data.test[::-1],
                           data.x_test, data.y_test)
    renamed = FederatedData("renamed", data.x, data.y, CLASSES, tuple(100 - 7 * k for k in range(len(SIZES))), data.train,
                            data.test, data.x_test, data.y_test)
    assert np.array_equal(federated(turned, 3), expected)              # summed in the order of names: to the bit
    np.testing.assert_allclose(federated(renamed, 3), expected, atol=1e-6)
    np.testing.assert_allclose(federated(data, 3, weights=Tripled()), expected, atol=1e-6)


@each_model
def test_the_broadcast_model_is_not_written_to(name):
    model, data = MODELS[name], federation()
    tasks = handed(model, data)
    before = tasks[0].server.params.copy()
    updates = trained(model, data, LocalSGD(epochs=2), tasks)
    assert np.array_equal(tasks[0].server.params, before)
    assert all(u.delta.any() and u.delta.dtype == np.float32 and u.delta.shape == (model.dim,) for u in updates)
    assert [u.client for u in updates] == list(data.ids)


# --- against torch.optim.SGD, a client at a time -------------------------------------------------------------------

EPOCHS = {client: 1 + k % 3 for k, client in enumerate(IDS)}
HOWS = {"plain": LocalSGD(lr=0.2, epochs=2, batch_size=5), "decay": LocalSGD(lr=0.2, epochs=2, batch_size=5, weight_decay=0.1),
        "momentum": LocalSGD(lr=0.1, epochs=2, batch_size=5, momentum=0.9),
        "both, mixed epochs": LocalSGD(lr=0.1, epochs=EPOCHS, batch_size=10, momentum=0.5, weight_decay=0.05),
        "mixed epochs": LocalSGD(lr=0.2, epochs=EPOCHS, batch_size=10, weight_decay=0.01),
        "full batch": LocalSGD(lr=0.5, epochs=3, batch_size=None), "one by one": LocalSGD(lr=0.05, batch_size=1)}


def in_double(model: Model, data: FederatedData, how: LocalSGD, tasks: list[Task], engine: str) -> dict:
    """{client: delta (d,) float64}: the executors themselves, on plans of the clients that share a batch width.

    engine "rows", "fused", "implicit" (fused, with an implicit first layer) or "single" (one client after the other).
    """
    x, y, out = torch.tensor(data.x).double(), torch.tensor(data.y), {}
    dense = DenseEngine(model.sizes, x, y) if engine in ("fused", "implicit") else None
    rows_of = {task.client: data.train[data.position(task.client)] for task in tasks}
    groups = [[task] for task in tasks] if engine == "single" else [
        [task for task in tasks if width(len(rows_of[task.client]), how.batch_size) == batch]
        for batch in {width(len(rows), how.batch_size) for rows in rows_of.values()}]
    for group in groups:
        batch = width(len(rows_of[group[0].client]), how.batch_size)
        keys = splitmix(client_keys([task.client for task in group]) ^ round_key(0, 0))
        plan = plan_batches([rows_of[task.client] for task in group], keys, np.array([how.epochs_of(t) for t in group]), batch)
        group = [group[k] for k in plan.order]
        anchor = torch.tensor(np.stack([task.server.params for task in group])).double()
        theta, change = anchor.clone(), torch.full_like(anchor, torch.nan)
        if dense:
            room = max(len(rows_of[task.client]) for task in group) + 3 if engine == "implicit" else 0
            for lr in (0.5 * how.lr, how.lr):                          # buffers must not remember another run
                dense.train(anchor, plan, lr, change, how.momentum, how.weight_decay, room=room)
        elif engine == "single":
            SingleEngine(model.single(), model.loss, torch.float64).train(theta, x, y, plan, how.lr)
            change = theta - anchor
        else:
            train_rows(model, theta, anchor, x, y, plan, how.lr, how, group)
            change = theta - anchor
        out.update(zip([task.client for task in group], change.numpy(), strict=True))
    return out


PLAIN = [name for name, how in HOWS.items() if not how.momentum and not how.weight_decay]
EXECUTORS = [("rows", name, how) for name in MODELS for how in HOWS]
EXECUTORS += [("fused", name, how) for name in ("logistic", "mlp", "2nn", "wide") for how in HOWS]
EXECUTORS += [("implicit", name, how) for name in ("mlp", "2nn", "wide") for how in PLAIN]
EXECUTORS += [("single", name, how) for name in ("conv", "wrapped", "wrapped conv") for how in PLAIN]


@pytest.mark.parametrize(("engine", "name", "how"), EXECUTORS)
def test_every_executor_equals_a_loop_over_torch_sgd(engine, name, how):
    """Also the implicit first layer: W = W₀ - lr·DᵀX, never written down, takes the same steps as W."""
    model, data = MODELS[name], federation()
    tasks = handed(model, data)
    deltas = in_double(model, data, HOWS[how], tasks, engine)
    for task in tasks:
        expected = train_alone(model, task, data, HOWS[how], torch.float64)
        np.testing.assert_allclose(deltas[task.client], expected, rtol=0, atol=1e-12)


def test_when_the_first_layer_is_kept_implicit():
    """Where it saves work: wide enough, and few examples or many epochs; and its table has room, with little padding."""
    two_nn = (784, 200, 200, 10)
    assert [implicit_room(two_nn, m, 1) for m in (1, 7, 40, 79, 80, 600)] == [4, 8, 40, 80, 0, 0]
    assert [implicit_room(two_nn, m, 5) for m in (40, 600, 922, 923)] == [40, 640, 1024, 0]
    assert implicit_room((784, 10), 40, 5) == implicit_room((16, 60, 10), 40, 5) == 0
    for m in range(1, 900):
        room = implicit_room(two_nn, m, 5)
        assert m <= room < m + max(4, m / 4 + 1)


@each_model
@pytest.mark.parametrize("how", HOWS.values(), ids=HOWS)
def test_in_single_precision_they_agree_to_its_rounding(name, how):
    model, data = MODELS[name], federation()
    tasks = handed(model, data)
    tolerance = 1e-6 if name == "logistic" else 1e-4                   # one flipped ReLU is visible
    for task, update in zip(tasks, trained(model, data, how, tasks), strict=True):
        np.testing.assert_allclose(update.delta, train_alone(model, task, data, how), rtol=0, atol=tolerance)


class Pull(Correction):
    """Half of FedProx: the gradient plus 0.3·(theta - anchor) + a vector of the client's own."""

    def rows(self, task: Task) -> dict:
        return {"own": np.full(task.server.params.shape, 0.01 * len(str(task.client)), np.float32)}

    def correct(self, grad, theta, anchor, rows):
        return grad + 0.3 * (theta - anchor) + rows["own"]


def test_a_correction_reaches_each_row_with_its_own_vectors():
    model, data = MODELS["mlp"], federation()
    how = LocalSGD(lr=0.1, epochs=EPOCHS, batch_size=5, momentum=0.5, weight_decay=0.1, correction=Pull())
    tasks = handed(model, data)
    deltas = in_double(model, data, how, tasks, "rows")
    for task in tasks:
        np.testing.assert_allclose(deltas[task.client], train_alone(model, task, data, how, torch.float64), rtol=0, atol=1e-8)
        # 1e-8: the vectors are float32 in one and widened in the other


class Lean(Affine):
    """Towards the anchor, and by a vector of the client's own; what the fused engine can follow."""

    def pull(self) -> float:
        return 0.7

    def shift(self, task: Task) -> np.ndarray:
        return stream(0, "test-shift", task.client).standard_normal(task.server.params.shape).astype(np.float32) / 20


@pytest.mark.parametrize("name", ["logistic", "2nn"])
@pytest.mark.parametrize("together", [None, 3, 1])
def test_an_affine_correction_in_the_fused_engine_equals_the_slow_loop(name, together):
    model, data = MODELS[name], federation()
    how = LocalSGD(lr=0.1, epochs=EPOCHS, batch_size=5, weight_decay=0.1, correction=Lean(), together=together)
    tasks = handed(model, data)
    assert Trainer(how, model, data).fused is not None
    for task, update in zip(tasks, trained(model, data, how, tasks), strict=True):
        np.testing.assert_allclose(update.delta, train_alone(model, task, data, how), rtol=0, atol=2e-6)


@pytest.mark.parametrize("engine", ["auto", "rows"])
def test_a_correction_that_forgets_a_client_is_refused(engine):
    class Forgetful(Affine):
        def shift(self, task: Task) -> np.ndarray | None:
            return None if task.client == "b" else np.zeros_like(task.server.params)

    with pytest.raises(ValueError, match="no vector for client 'b'"):
        trained(MODELS["mlp"], federation(), LocalSGD(correction=Forgetful(), engine=engine, batch_size=1))


def test_the_reference_itself_equals_an_ordinary_torch_program():
    """nn.Sequential, nn.Linear, torch.optim.SGD and the batches of the plan: nothing of this package's models."""
    data, how = federation(), LocalSGD(lr=0.2, epochs=3, batch_size=5, momentum=0.9, weight_decay=0.01)
    model = MODELS["2nn"]
    for task in handed(model, data):
        net = nn.Sequential(nn.Linear(FEATURES, 20), nn.ReLU(), nn.Linear(20, 12), nn.ReLU(), nn.Linear(12, CLASSES)).double()
        nn.utils.vector_to_parameters(torch.tensor(task.server.params).double(), net.parameters())
        optimizer = torch.optim.SGD(net.parameters(), lr=0.2, momentum=0.9, weight_decay=0.01)
        mine = data.train[data.position(task.client)]
        plan = plan_batches([mine], splitmix(client_keys([task.client]) ^ round_key(0, 0)), np.array([3]), width(len(mine), 5))
        for t, count in enumerate(plan.count[:, 0]):
            rows = plan.rows[t, 0, :count]
            optimizer.zero_grad()
            F.cross_entropy(net(torch.tensor(data.x[rows]).double()), torch.tensor(data.y[rows])).backward()
            optimizer.step()
        local = nn.utils.parameters_to_vector(net.parameters()).detach().numpy()
        expected = train_alone(model, task, data, how, torch.float64)
        np.testing.assert_allclose(local - task.server.params, expected, rtol=0, atol=1e-12)


def test_the_learning_rate_decays_with_the_version():
    data, model = federation(), MODELS["logistic"]
    tasks = handed(model, data, version=3)
    decayed = trained(model, data, LocalSGD(lr=0.8, lr_decay=0.5), tasks)
    assert digest(decayed) == digest(trained(model, data, LocalSGD(lr=0.1), tasks))


# --- the same seed, the same bytes ---------------------------------------------------------------------------------

REPEATED = LocalSGD(lr=0.1, epochs=EPOCHS, batch_size=10)


WHOLE_LINES = mlp(FEATURES, 64, 16, CLASSES)


@pytest.mark.parametrize(("name", "engine"), [(name, "auto") for name in MODELS] +
                         [(name, "rows") for name in MODELS if name != "wide"] + [("whole lines", "rows")])
def test_company_order_and_chunks_change_no_byte(name, engine):
    """The plain text keeps this only where torch's products do, see sgd.py; "wide" is a case where they need not."""
    model, data = {**MODELS, "whole lines": WHOLE_LINES}[name], federation()
    tasks = handed(model, data)

    def bits(tasks, together=None, threads=1):
        how = LocalSGD(lr=0.1, epochs=EPOCHS, batch_size=10, engine=engine, together=together, threads=threads)
        return digest(trained(model, data, how, tasks))

    expected = bits(tasks)
    assert len({bits for bits, _ in expected.values()}) == len(tasks)
    assert bits(tasks) == expected                                     # run to run
    for together in () if name == "wrapped" and engine == "auto" else (1, 2, 3, 100):    # then vmap, instead of the module
        assert bits(tasks, together) == expected
        assert bits(tasks, together, threads=2) == expected
    for threads in (2, 3):
        assert bits(tasks, threads=threads) == expected
    for turned in (tasks[::-1], tasks[3:] + tasks[:3]):
        assert bits(turned) == expected
    alone = {}
    for task in tasks:
        alone |= bits([task])
    assert alone == expected
    for some in (tasks[:3], tasks[2:7:2]):
        assert bits(some) == {(task.client, 0): expected[task.client, 0] for task in some}


@pytest.mark.parametrize("name", ["logistic", "2nn", "conv", "wrapped"])
@pytest.mark.parametrize("decay", [1.0, 0.9])
def test_tasks_of_several_versions_may_be_trained_together(name, decay):
    model, data = MODELS[name], federation()
    how = LocalSGD(lr=0.1, epochs=2, batch_size=10, lr_decay=decay)
    lists = [handed(model, data, data.ids[k::3], version=k) for k in range(3)]
    mixed = [task for several in itertools.zip_longest(*lists) for task in several if task]
    separate = {}
    for tasks in lists:
        separate |= digest(trained(model, data, how, tasks))
    assert digest(trained(model, data, how, mixed)) == separate


def test_seeds_and_versions_change_the_batches():
    model, data = MODELS["logistic"], federation()
    server = Server(model.init(stream(0, "init")))
    later = Server(server.params, version=1)
    results = [trained(model, data, REPEATED, [Task("a", who, seed)])[0].delta.tobytes()
               for who, seed in ((server, 0), (server, 1), (later, 0), (later, 1))]
    assert len(set(results)) == 4


CORNERS = (1, 2, 15, 16, 17, 32, 33)              # around the 16 numbers of a cache line, where products change their way
FULL = (64, 16, 33, 48, 17, 32, 15, 1)            # clients who fill such batches
sizes_of_things = st.sampled_from(CORNERS) | st.integers(1, 90)


def resized(sizes, features: int, classes: int = CLASSES) -> FederatedData:
    """A federation of examples of so many numbers, with so many classes."""
    plain = federation(sizes)
    x, x_test = (np.resize(x, (len(x), features)) for x in (plain.x, plain.x_test))
    return replace(plain, x=x, x_test=x_test, y=plain.y % classes, y_test=plain.y_test % classes, classes=classes)


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_networks_of_any_width_keep_their_bits_in_any_company(draw):
    """torch's products round by where a matrix begins in a cache line; the fused engine begins each with a line."""
    hidden = draw.draw(st.lists(sizes_of_things, max_size=2), "hidden")
    features, classes = draw.draw(sizes_of_things, "features"), draw.draw(sizes_of_things, "classes")
    implicit = draw.draw(st.booleans(), "implicit where it can be")
    model, data = mlp(features, *hidden, classes), resized(draw.draw(st.sampled_from([SIZES, FULL]), "sizes"), features, classes)
    how = LocalSGD(lr=0.1, epochs=EPOCHS, batch_size=draw.draw(st.none() | sizes_of_things, "batch"),
                   momentum=draw.draw(st.sampled_from([0, 0.5]), "momentum"),
                   weight_decay=draw.draw(st.sampled_from([0, 0.1]), "decay"))
    tasks = handed(model, data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fused, "LARGE", 0 if implicit else 10**9)
        _same_bits(model, data, how, tasks)


@pytest.mark.parametrize("large", [0, 10**9], ids=["implicit", "written down"])
@pytest.mark.parametrize("hidden", CORNERS)
@pytest.mark.parametrize("batch", [*CORNERS, 48, 64, None])
def test_every_corner_of_width_and_batch_keeps_its_bits_in_any_company(hidden, batch, large, monkeypatch):
    """No luck of the draw: a hidden layer of one unit once failed for batches of 16, 32, 48, 64 and all."""
    monkeypatch.setattr(fused, "LARGE", large)
    model, data = mlp(17, hidden, CLASSES), resized(FULL, 17)
    _same_bits(model, data, LocalSGD(lr=0.1, epochs=EPOCHS, batch_size=batch), handed(model, data))


def _same_bits(model, data, how, tasks):
    expected = digest(trained(model, data, how, tasks))
    for together, others in ((1, tasks), (3, tasks), (None, tasks[::-1]), (None, tasks[2:5])):
        got = digest(trained(model, data, replace(how, together=together), others))
        assert got == {key: expected[key] for key in got}


@pytest.mark.parametrize("settings", [{}, {"correction": Correction()}, {"momentum": 0.5}], ids=named)
def test_modules_of_any_width_train_one_by_one_and_keep_their_bits(settings):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Wrapped(nn.Sequential(nn.Linear(FEATURES, 33), nn.ReLU(), nn.Linear(33, CLASSES)))
    data = federation()
    for some in (model, mlp(FEATURES, 33, CLASSES)):
        how, tasks = LocalSGD(lr=0.1, epochs=EPOCHS, batch_size=10, **settings), handed(some, data)
        expected = digest(trained(some, data, how, tasks))
        for others in (tasks[::-1], tasks[1:2], tasks[2:6]):
            got = digest(trained(some, data, how, others))
            assert got == {key: expected[key] for key in got}


@pytest.mark.parametrize("name", ["logistic", "2nn", "conv"])
def test_updates_that_somebody_keeps_are_never_overwritten(name):
    """The trainer uses the memory of a round again, but only when nobody refers to its updates."""
    model, data = MODELS[name], federation()
    trainer, tasks = Trainer(REPEATED, model, data), handed(model, data)
    first = trainer.train(tasks)
    one = first[3].delta
    before = digest(first)
    others = trainer.train(handed(model, data, version=1))
    assert digest(first) == before
    assert not any(np.shares_memory(a.delta, b.delta) for a in first for b in others)
    kept = one.copy()
    del first, others
    again = trainer.train(handed(model, data, version=2))              # one row of the first round is still in use
    assert np.array_equal(one, kept)
    place = again[0].delta.ctypes.data
    del again, one
    assert trainer.train(tasks)[0].delta.ctypes.data == place          # and now nothing is


def test_a_subclass_with_another_forward_pass_trains_what_it_says():
    class Doubled(ConvNet):
        def logits(self, layers, x):
            return 2 * super().logits(layers, x)

    data, how = federation(), LocalSGD(lr=0.1, batch_size=5)
    model = Doubled(4, CLASSES, widths=(4, 8))
    for task, update in zip(handed(model, data), trained(model, data, how), strict=True):
        np.testing.assert_allclose(update.delta, train_alone(model, task, data, how), rtol=0, atol=1e-4)


def test_a_dense_network_with_another_forward_pass_is_not_given_to_the_fused_engine():
    class Halved(Dense):
        def logits(self, layers, x):
            return Dense.logits(self, layers, x) / 2

    data, how, model = federation(), LocalSGD(lr=0.1, batch_size=5), Halved((FEATURES, 9, CLASSES))
    for task, update in zip(handed(model, data), trained(model, data, how), strict=True):
        np.testing.assert_allclose(update.delta, train_alone(model, task, data, how), rtol=0, atol=1e-5)


def test_an_implicit_first_layer_refuses_what_it_does_not_follow():
    data, model = federation(), MODELS["wide"]
    engine = DenseEngine(model.sizes, torch.tensor(data.x), torch.tensor(data.y))
    anchor = torch.zeros(1, model.dim)
    plan = plan_batches([data.train[0]], client_keys(["b"]), np.array([1]), 8)
    for extra in ({"momentum": 0.5}, {"decay": 0.1}, {"constant": anchor}):
        with pytest.raises(ValueError, match="plain SGD only"):
            engine.train(anchor, plan, 0.1, torch.empty_like(anchor), room=12, **extra)


def test_a_trainer_that_has_seen_other_widths_and_cohorts_trains_as_a_new_one():
    data = federation()
    for name, extra in (("2nn", {}), ("wide", {}), ("wide", {"momentum": 0.5, "weight_decay": 0.1}), ("logistic", {})):
        model, how = MODELS[name], LocalSGD(lr=0.1, epochs=2, batch_size=10, **extra)
        tasks, used = handed(model, data), Trainer(how, model, data)
        for some in (tasks, tasks[:1], tasks[4:6], tasks[::-1], tasks[2:3]):
            assert digest(used.train(some)) == digest(Trainer(how, model, data).train(some))


def test_every_matrix_of_a_cohort_begins_with_a_cache_line():
    data = federation()
    engine = DenseEngine((FEATURES, 33, CLASSES), torch.tensor(data.x), torch.tensor(data.y))
    for rows, columns in ((10, 33), (7, 5), (1, 1), (16, 3), (12, 20)):
        matrices = engine._matrices("test", 6, rows, columns)
        assert matrices.shape == (6, rows, columns)
        assert {matrix.data_ptr() % 64 for matrix in matrices} == {0}
        assert matrices.is_contiguous() == (rows * columns % 16 == 0)  # no more padding than that takes
    deltas = [update.delta for update in trained(mlp(FEATURES, 33, CLASSES), data, LocalSGD())]
    assert {delta.ctypes.data % 64 for delta in deltas} == {0}


def test_every_thread_gets_a_part_of_a_large_cohort_and_small_ones_stay_whole():
    data = federation(sizes=(20,) * 30, ids=range(30))
    large, small = Dense((FEATURES, 300, CLASSES)), logistic(FEATURES, CLASSES)

    def parts(model, **settings) -> list[int]:
        trainer = Trainer(LocalSGD(batch_size=10, weight_decay=0.1, **settings), model, data)
        plan = trainer.planner.plan(handed(model, data), 10)
        return [len(part.steps) for part in trainer.planner.cut(plan, 10, 0)]

    assert parts(large) == [30]
    assert parts(large, threads=2) == [16, 14]                         # at least 100,000 numbers each
    assert parts(small, threads=2) == [30]
    assert parts(large, together=4) == [4] * 7 + [2]


@each_model
@pytest.mark.parametrize("settings", [{}, {"momentum": 0.5, "weight_decay": 0.1}, {"momentum": 0.5, "correction": FedProx(0.3)},
                                      {"threads": 2}], ids=str)  # fmt: skip
def test_a_trainer_may_be_used_again_after_a_client_diverged(name, settings):
    """The engine keeps its buffers; a client that ended in NaN must leave nothing behind in them."""
    model, data, how = MODELS[name], federation(), replace(REPEATED, **settings)
    tasks = handed(model, data)
    trainer = Trainer(how, model, data)
    poison = Server(np.full(model.dim, np.inf, np.float32))
    assert not np.isfinite(trainer.train([Task(c, poison) for c in data.ids])[0].delta).any()
    assert digest(trainer.train(tasks)) == digest(trained(model, data, how, tasks))
    mixed = trainer.train([Task("b", poison), *tasks[1:]])
    expected = digest(trained(model, data, how, tasks[1:]))
    assert digest(mixed[1:]) == expected                               # nor may it touch those who train beside it


@pytest.mark.parametrize(("name", "threads"), [("mlp", 1), ("conv", 1), ("conv", 3), ("wrapped conv", 2)])
def test_global_random_state_is_neither_read_nor_changed(name, threads):
    model, data = MODELS[name], federation()
    results = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
        results.append(digest(trained(model, data, replace(REPEATED, threads=threads))))
        assert torch.equal(torch.get_rng_state(), before[0])
        assert np.array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002
    assert results[0] == results[1]


def all_bits() -> str:
    data = federation()
    return repr([digest(trained(model, data, REPEATED)) for model in MODELS.values()])


def test_a_fresh_process_computes_the_same_bytes():
    here = os.path.dirname(os.path.abspath(__file__))
    program = (f"import sys; sys.path[:0] = [{here!r}, {os.path.dirname(here)!r}]; import test_training as t; "
               f"t.fused.LARGE = {FEATURES * 70}; print(t.all_bits())")
    environment = os.environ | {"FL_COURSE_THREADS": "1", "PYTHONHASHSEED": "7"}
    answer = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True,
                            timeout=120)
    assert answer.stdout.strip() == all_bits()


@pytest.mark.parametrize("name", ["logistic", "2nn"])
def test_a_second_thread_may_change_the_last_digits_but_not_the_model(name):
    """This documents what is not promised: equal bytes need equal thread counts. Close they are in any case."""
    model, data = MODELS[name], federation()
    one = trained(model, data, REPEATED)
    torch.set_num_threads(2)
    two = trained(model, data, REPEATED)
    for a, b in zip(one, two, strict=True):
        np.testing.assert_allclose(a.delta, b.delta, rtol=0, atol=1e-5)
    start = model.init(stream(0, "test-init"))
    means = [start + np.mean([u.delta for u in updates], axis=0) for updates in (one, two)]
    assert score(model, means[0], data.x, data.y)[0] == score(model, means[1], data.x, data.y)[0]


# --- what a client reports -----------------------------------------------------------------------------------------


@each_model
@pytest.mark.parametrize("engine", ["auto", "rows"])
def test_reported_losses_are_means_over_the_examples_as_they_were_met(name, engine):
    model, data = MODELS[name], federation()
    how = LocalSGD(lr=0.2, epochs=EPOCHS, batch_size=5, engine=engine)
    tasks = handed(model, data)
    for task, update in zip(tasks, trained(model, data, how, tasks), strict=True):
        mine = data.train[data.position(task.client)]
        plan = plan_batches([mine], splitmix(client_keys([task.client]) ^ round_key(0, 0)), np.array([EPOCHS[task.client]]),
                            width(len(mine), 5))
        theta, met = torch.tensor(task.server.params).double()[None].requires_grad_(), []
        for t, count in enumerate(plan.count[:, 0]):
            rows = plan.rows[t, 0, :count]
            x, y = torch.tensor(data.x[rows]).double()[None], torch.tensor(data.y[rows])[None]
            losses = model.losses(model.layers(theta), x, y)
            met += losses.detach()[0].tolist()
            theta = (theta - 0.2 * torch.autograd.grad(losses.mean(), theta)[0]).detach().requires_grad_()
        assert len(met) == EPOCHS[task.client] * len(mine)
        assert update.metrics["examples"] == len(mine)
        assert update.metrics["steps"] == plan.steps[0]
        assert update.metrics["loss_first"] == pytest.approx(np.mean(met[: len(mine)]), abs=2e-5)
        assert update.metrics["loss_last"] == pytest.approx(np.mean(met[-len(mine):]), abs=2e-5)


@pytest.mark.parametrize("engine", ["auto", "rows"])
def test_a_diverging_client_still_reports_its_first_epoch(engine):
    data = federation(sizes=(30, 30), ids=(0, 1))
    data.x[data.train[1]] *= np.float32(1e15)
    steady, wild = trained(MODELS["2nn"], data, LocalSGD(lr=0.1, epochs=5, batch_size=None, engine=engine))
    assert np.isfinite(steady.delta).all()
    assert not np.isfinite(wild.delta).all()
    assert np.isfinite(wild.metrics["loss_first"])
    assert not np.isfinite(wild.metrics["loss_last"])


def double_losses(model, task, data, how) -> np.ndarray:
    """The mean loss of each batch of one client, in double precision: train_alone's steps, and cross-entropy by hand."""
    mine = data.train[data.position(task.client)]
    keys = splitmix(client_keys([task.client]) ^ round_key(0, 0))
    plan = plan_batches([mine], keys, np.array([how.epochs_of(task)]), width(len(mine), how.batch_size))
    theta, out = torch.tensor(task.server.params).double()[None].requires_grad_(), []
    for t, count in enumerate(plan.count[:, 0]):
        rows = plan.rows[t, 0, :count]
        logits = model.logits(model.layers(theta), torch.tensor(data.x[rows]).double()[None])[0]
        loss = (logits.logsumexp(1) - logits[torch.arange(count), torch.tensor(data.y[rows])]).mean()
        out.append(loss.item())
        theta = (theta - how.lr * torch.autograd.grad(loss, theta)[0]).detach().requires_grad_()
    return np.array(out)


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_both_engines_report_the_same_loss_however_large_it_is(draw):
    """The fused engine reads losses off the softmax, which ends at 87 nats; what lies beyond is computed once more."""
    hidden = draw.draw(st.sampled_from([(), (9,), (70, 9)]), "hidden")          # (70, 9): the first layer may be implicit
    power, sizes = draw.draw(st.integers(0, 16), "features times a power of ten"), (1, 12, 3, 9)
    data = federation(sizes, ids=IDS[:4])
    data.x[np.concatenate(data.train[:2])] *= np.float32(10.0**power)           # two clients diverge, two do not
    model = mlp(FEATURES, *hidden, CLASSES)
    how = LocalSGD(lr=0.5, epochs=2, batch_size=draw.draw(st.sampled_from([4, None]), "batch"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fused, "LARGE", FEATURES * 70)
        reports = [[u.metrics for u in trained(model, data, replace(how, engine=engine))] for engine in ("auto", "rows")]
    for task, auto, rows in zip(handed(model, data), *reports, strict=True):
        slow = double_losses(model, task, data, replace(how, epochs=1))
        if how.batch_size is None:                                              # one step: no chaos of rounding before it
            assert auto["loss_first"] == pytest.approx(slow[0], rel=1e-4, abs=1e-5)
        for name in ("loss_first", "loss_last"):
            assert np.isfinite(auto[name]) == np.isfinite(rows[name])
            if np.isfinite(rows[name]):                                         # beyond that, one flipped ReLU in front
                assert auto[name] == pytest.approx(rows[name], rel=0.05 if power > 1 else 1e-3, abs=1e-4)


@pytest.mark.parametrize("name", ["logistic", "mlp", "wide"])
def test_who_diverges_changes_no_digit_of_who_trains_beside_him(name):
    model, data = MODELS[name], federation((12, 12, 12), ids=(0, 1, 2))
    calm = digest(trained(model, data, LocalSGD(lr=0.1, epochs=2)))
    data.x[data.train[1]] *= np.float32(1e3)
    mixed = trained(model, data, LocalSGD(lr=0.1, epochs=2))
    assert mixed[1].metrics["loss_first"] > 100
    assert [digest(mixed)[k, 0] == calm[k, 0] for k in range(3)] == [True, False, True]


@each_model
@pytest.mark.parametrize("engine", ["auto", "rows"])
def test_nobodys_batches_are_padded_with_somebody_elses_examples(name, engine):
    """Weight 0 does not help against an example so large that the model answers it with infinity."""
    data, how = federation((12, 9, 7), ids=(0, 1, 2)), LocalSGD(lr=0.1, epochs=2, batch_size=8, engine=engine, together=3)
    calm = digest(trained(MODELS[name], data, how))
    data.x[data.train[0]] *= np.float32(2e37)
    assert [digest(trained(MODELS[name], data, how))[k, 0] == calm[k, 0] for k in range(3)] == [False, True, True]


def test_a_small_client_of_a_wide_network_gets_an_implicit_first_layer_and_a_large_one_does_not():
    data, how = federation((9, 700), ids=(0, 1)), LocalSGD(batch_size=10, epochs=2)
    trainer = Trainer(how, MODELS["wide"], data)
    rooms = {task.client: part.room for part in trainer.planner.parts(handed(MODELS["wide"], data)) for task in part.tasks}
    assert rooms[0] >= 9
    assert rooms[1] == 0


# --- small, lopsided and impossible federations ----------------------------------------------------------------------


@each_model
@pytest.mark.parametrize("batch_size", [1, 10, None])
def test_a_single_sample_and_a_single_class_train(name, batch_size):
    model, data = MODELS[name], federation(sizes=(1, 9), ids=("one", "same"))
    data.y[:] = 2
    single, same = trained(model, data, LocalSGD(lr=0.05, epochs=4, batch_size=batch_size))
    for update in (single, same):
        assert np.isfinite(update.delta).all()
        assert update.metrics["loss_last"] < update.metrics["loss_first"]


def test_no_tasks_no_updates():
    assert trained(MODELS["mlp"], federation(), LocalSGD(), []) == []


def test_examples_that_may_not_be_written_to_can_be_trained_on():
    data = federation()
    expected = digest(trained(MODELS["mlp"], data, REPEATED))
    data.x.flags.writeable = data.y.flags.writeable = False
    assert digest(trained(MODELS["mlp"], data, REPEATED)) == expected


def test_a_client_without_examples_is_refused():
    data = federation(sizes=(5, 0), ids=("full", "empty"))
    with pytest.raises(ValueError, match="client 'empty' has no training examples"):
        trained(MODELS["mlp"], data, LocalSGD())


def test_an_unknown_client_is_refused():
    model, data = MODELS["mlp"], federation()
    with pytest.raises(ValueError, match="unknown client 99"):
        trained(model, data, LocalSGD(), handed(model, data, [99]))


def test_examples_that_do_not_fit_the_model_are_refused():
    data = federation()
    for engine in ("auto", "rows"):
        with pytest.raises(ValueError, match="examples of 16 numbers; this model takes 15"):
            trained(mlp(15, 3, CLASSES), data, LocalSGD(engine=engine))


def test_epochs_per_client_come_from_a_mapping_or_a_function():
    model, data = MODELS["logistic"], federation()
    steps = {u.client: u.metrics["steps"] for u in trained(model, data, LocalSGD(epochs=EPOCHS, batch_size=None))}
    assert steps == EPOCHS
    drawn = LocalSGD(epochs=lambda client, rng: rng.integers(1, 9), batch_size=None)
    first, again = (trained(model, data, drawn) for _ in range(2))
    assert digest(first) == digest(again)
    assert len({u.metrics["steps"] for u in first}) > 2
    assert [u.metrics["steps"] for u in first] == [stream(0, "epochs", 0, client).integers(1, 9) for client in data.ids]
    later = trained(model, data, drawn, handed(model, data, version=1))
    assert [u.metrics["steps"] for u in later] != [u.metrics["steps"] for u in first]


@pytest.mark.parametrize("epochs", [{"a": 2}, {client: 1 for client in IDS if client != "b"}])
def test_a_mapping_that_lacks_a_client_is_refused(epochs):
    with pytest.raises(ValueError, match="epochs has no entry for client 'b'"):
        trained(MODELS["mlp"], federation(), LocalSGD(epochs=epochs))


@pytest.mark.parametrize("answer", [0, -1, 1.5, None, "3"])
def test_a_function_that_answers_nonsense_is_refused(answer):
    with pytest.raises(ValueError, match=r"epochs of 'b' must be a whole number from 1, not"):
        trained(MODELS["mlp"], federation(), LocalSGD(epochs=lambda client, rng: answer))


@pytest.mark.parametrize(("bad", "match"), [
    ({"lr": 0}, "lr must be positive and finite, not 0"),
    ({"lr": -0.1}, "lr must be positive"),
    ({"lr": float("nan")}, "lr must be positive and finite, not nan"),
    ({"lr": float("inf")}, "lr must be positive"),
    ({"epochs": 0}, "whole number from 1, not 0"),
    ({"epochs": -3}, "whole number from 1, not -3"),
    ({"epochs": 2.5}, "epochs must be a whole number, a mapping or a function, not 2.5"),
    ({"epochs": {"a": 0}}, "epochs of 'a' must be a whole number from 1, not 0"),
    ({"batch_size": 0}, "batch_size must be a whole number from 1, or None for all, not 0"),
    ({"batch_size": 2.5}, "batch_size"),
    ({"batch_size": -4}, "batch_size"),
    ({"momentum": 1}, r"momentum must be in \[0, 1\), not 1"),
    ({"momentum": -0.1}, "momentum"),
    ({"momentum": float("nan")}, "momentum"),
    ({"weight_decay": -1}, "weight_decay must be at least 0"),
    ({"weight_decay": float("inf")}, "weight_decay"),
    ({"lr_decay": 0}, r"lr_decay must be in \(0, 1\]"),
    ({"lr_decay": 1.1}, "lr_decay"),
    ({"lr_decay": float("nan")}, "lr_decay"),
    ({"together": 0}, "together must be a whole number of clients from 1"),
    ({"together": 2.5}, "together"),
    ({"threads": 0}, "threads must be a whole number from 1"),
    ({"engine": "fast"}, "engine must be 'auto' or 'rows', not 'fast'"),
])  # fmt: skip
def test_bad_settings_are_refused(bad, match):
    with pytest.raises(ValueError, match=match):
        LocalSGD(**bad)


# --- which engine, how much at once, and what it costs ---------------------------------------------------------------


def test_the_fused_engine_is_taken_exactly_where_it_applies():
    data = federation()

    def taken(model, **settings) -> bool:
        return Trainer(LocalSGD(**settings), model, data).fused is not None

    assert taken(MODELS["logistic"])
    assert taken(MODELS["2nn"], weight_decay=0.1, epochs=3)
    assert taken(MODELS["2nn"], momentum=0.1)
    assert not taken(MODELS["2nn"], correction=Correction())
    assert not taken(MODELS["2nn"], engine="rows")
    assert not any(taken(MODELS[name]) for name in ("conv", "wrapped"))


def test_large_models_and_large_batches_train_in_smaller_groups(monkeypatch):
    data = federation(sizes=(64,) * 30, ids=range(30))
    seen = []
    train = DenseEngine.train
    monkeypatch.setattr(DenseEngine, "train", lambda self, anchor, *rest: seen.append(len(anchor)) or train(self, anchor, *rest))
    for model in (logistic(FEATURES, CLASSES), Dense((FEATURES, 6000, CLASSES))):
        seen.clear()
        trained(model, data, LocalSGD(batch_size=None, weight_decay=0.1))
        assert sum(seen) == 30
        assert max(seen) == min(30, 1_000_000 // model.dim)


def test_ten_thousand_small_clients_are_quick_and_take_no_more_memory_with_time():
    rng = stream(0, "test-many")
    sizes = rng.integers(8, 21, 10_000)
    x = rng.standard_normal((sizes.sum(), 20), dtype=np.float32)
    y = rng.integers(0, 5, len(x))
    rows, nobody = np.split(np.arange(len(x)), np.cumsum(sizes)[:-1]), (np.arange(0),) * 10_000
    data = FederatedData("many", x, y, 5, tuple(range(10_000)), tuple(rows), nobody, x[:50], y[:50])
    trainer = Trainer(LocalSGD(lr=0.1), logistic(20, 5), data)
    params = np.zeros(trainer.model.dim, np.float32)

    def train_round(version):
        chosen = stream(0, "test-chosen", version).choice(10_000, 100, replace=False)
        return trainer.train([Task(int(c), Server(params, version)) for c in chosen])

    tracemalloc.start()
    for version in range(15):                                          # the last few layouts of batches are kept
        train_round(version)
    before = tracemalloc.get_traced_memory()[0]
    numbers = {name: buffer.numel() for name, buffer in trainer.fused.mine.__dict__.items()}
    for version in range(30):
        train_round(version)
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown < 200_000                                             # bytes; one round's plan is larger
    assert {name: buffer.numel() for name, buffer in trainer.fused.mine.__dict__.items()} == numbers
    assert sum(numbers.values()) < 100 * 10 * 100                      # a hundred clients, and nothing for the others
    begun = time.perf_counter()
    experiment = Coordinator(data, trainer.model, trainer.how, Synchronous(0.01), evaluation=Evaluation(every=100))
    history = experiment.train(5)
    assert all(len(record.clients) == 100 for record in history.records)
    assert time.perf_counter() - begun < 20                            # seconds; a fraction of one on a quiet machine
