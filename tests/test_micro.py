"""The file to be read on paper, function by function against the library."""

import ast
import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from fl_course import (
    IID,
    Clip,
    Context,
    Coordinator,
    LocalSGD,
    Server,
    Synchronous,
    TopK,
    Update,
    digits,
    logistic,
    micro,
)
from fl_course.core import Task, stream
from fl_course.engine.training import Trainer
from fl_course.privacy.accounting import rdp
from fl_course.privacy.accounting.events import Gaussian, PoissonSampled
from fl_course.secure_aggregation import shamir
from fl_course.secure_aggregation.grid import FixedPointGrid

FILE = Path(micro.__file__)
RNG = stream(0, "micro")


def test_it_is_one_sitting_and_stands_on_numpy_and_python_alone():
    text = FILE.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 250
    nodes = list(ast.walk(ast.parse(text)))
    names = {alias.name.split(".")[0] for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module.split(".")[0] for node in nodes if isinstance(node, ast.ImportFrom)}
    assert names <= {"numpy", *sys.stdlib_module_names}


def federation():
    return digits().partition(IID(), clients=12, seed=2)


def mine(theta):
    """The library's logistic has the same order: weight (10, 64), then bias (10,)."""
    return np.asarray(theta, dtype=np.float64)


def test_the_gradient_and_the_accuracy_are_the_models():
    data, model = federation(), logistic(64, 10)
    theta = model.init(stream(1, "init")) * 3
    rows = data.train[3]
    trainer = Trainer(LocalSGD(lr=1.0, batch_size=None), model, data)
    step = trainer.train([Task(3, Server(theta))])[0].delta
    np.testing.assert_allclose(-micro.gradient(mine(theta), data.x[rows], data.y[rows]), step, atol=1e-6)
    record = Coordinator(data, model, LocalSGD()).evaluation.measure(model, data, Server(theta), None)
    assert micro.accuracy(mine(theta), data.x_test, data.y_test) == pytest.approx(record["accuracy"], abs=1e-12)


def test_local_sgd_and_the_average_are_fedavg():
    data, model = federation(), logistic(64, 10)
    fed = Coordinator(data, model, LocalSGD(lr=0.3, epochs=2, batch_size=None), Synchronous(1.0), seed=5)
    begin = fed.initial().server.params
    after = fed.train(1).state.server.params
    shards = [(data.x[rows], data.y[rows]) for rows in data.train]
    deltas = [micro.local_sgd(mine(begin), x, y, 0.3, [slice(None)] * 2) for x, y in shards]
    np.testing.assert_allclose(begin + micro.fedavg(deltas, [len(y) for _, y in shards]), after, atol=1e-6)


def test_with_the_librarys_batches_a_client_walks_the_same_way():
    data, model = federation(), logistic(64, 10)
    trainer = Trainer(LocalSGD(lr=0.1, epochs=3, batch_size=10), model, data)
    task = Task(4, Server(model.init(stream(2, "init"))), seed=7)
    update, (part,) = trainer.train([task])[0], trainer.planner.parts([task])
    batches = [rows[0, : int(count[0])] for rows, count in zip(part.plan.rows, part.plan.count, strict=True)]
    delta = micro.local_sgd(mine(task.server.params), data.x, data.y, 0.1, batches)
    np.testing.assert_allclose(delta, update.delta, atol=1e-6)
    shuffled = micro.batches_of(len(data.train[4]), 3, 10, np.random.default_rng(0))
    assert [len(batch) for batch in shuffled] == [len(batch) for batch in batches]
    for epoch in np.split(np.concatenate(shuffled), 3):
        assert sorted(epoch.tolist()) == list(range(len(data.train[4])))


def test_clip_is_the_stage():
    ctx = Context(0, Server(np.zeros(50, np.float32)), client=0)
    for scale in (0.01, 1.0, 100.0):
        delta = (scale * RNG.standard_normal(50)).astype(np.float32)
        sent = Clip(2.0).client(Update(0, 0, delta), ctx).delta
        np.testing.assert_allclose(micro.clip(delta.astype(np.float64), 2.0), sent, rtol=1e-6)
    assert not micro.clip(np.zeros(3), 1.0).any()


@pytest.mark.parametrize(("q", "sigma", "rounds"), [(0.3, 1.0, 30), (0.01, 0.8, 1000), (1.0, 5.0, 10), (0.4, 2.0, 1)])
def test_epsilon_is_the_librarys_on_whole_orders(q, sigma, rounds):
    orders = np.arange(2.0, 257.0)
    if q < 1:
        curve = rdp.curve(PoissonSampled(q, Gaussian(sigma, neighbours="zero-out")), tuple(orders))
    else:
        curve = rdp.gaussian(sigma, orders)
    delta = 1e-5
    ours = rounds * curve + np.log1p(-1 / orders) - (np.log(delta) + np.log(orders)) / (orders - 1)
    assert micro.rdp_epsilon(q, sigma, rounds, delta) == pytest.approx(max(ours.min(), 0.0), rel=1e-6)


def test_shares_are_shamirs():
    for n, threshold in ((1, 1), (3, 2), (7, 4)):
        secret = int.from_bytes(RNG.bytes(60), "big")
        shares = micro.share(secret, threshold, n)
        for some in itertools.combinations(shares, threshold):
            assert micro.reconstruct(some) == shamir.reconstruct(some, threshold) == secret
        theirs = shamir.share(secret, threshold, n)
        assert micro.reconstruct(theirs[-threshold:]) == secret
    assert micro.reconstruct(micro.share(5, 3, 4)[:2]) != 5                 # too few: nonsense (but once in 2^521)


def test_the_key_agreement_is_rfc_7748():
    for _ in range(5):
        a, b = (int.from_bytes(RNG.bytes(32), "little") for _ in range(2))
        theirs = X25519PrivateKey.from_private_bytes(a.to_bytes(32, "little"))
        public = theirs.public_key().public_bytes_raw()
        assert micro.x25519(a).to_bytes(32, "little") == public
        other = X25519PublicKey.from_public_bytes(micro.x25519(b).to_bytes(32, "little"))
        assert micro.x25519(b, micro.x25519(a)).to_bytes(32, "little") == theirs.exchange(other)


def test_the_masks_cancel_whoever_vanishes_and_hide_who_stays():
    vectors = {k: RNG.integers(0, 2**32, 5, dtype=np.uint32) for k in range(4)}
    for gone in [(), (0,), (3,), (1, 2)]:
        alive = [k for k in vectors if k not in gone]
        expected = sum(vectors[k].astype(object) for k in alive) % 2**32
        np.testing.assert_array_equal(micro.secure_sum(vectors, 2, gone).astype(object), expected)
    with pytest.raises(ValueError, match="must help"):
        micro.secure_sum(vectors, 3, (0, 1))
    public = {k: micro.x25519(k + 1) for k in vectors}
    bits = np.unpackbits(micro.masked(0, np.zeros(2000, np.uint32), 1, 7, public).view(np.uint8)).mean()
    assert abs(bits - 0.5) < 6 * 0.5 / np.sqrt(64_000)


def test_the_grid_is_the_librarys_grid():
    """The same step, and rounding towards zero: sums agree with the sum of the rounded numbers exactly."""
    grid = FixedPointGrid(clip=(2**30 - 1) / micro.GRID, bits=31, clients=2)
    assert grid.step == pytest.approx(1 / micro.GRID, rel=1e-6)
    some = RNG.standard_normal((6, 40))
    total = sum(micro.to_grid(x) for x in some)
    np.testing.assert_array_equal(micro.from_grid(total), (np.trunc(some * micro.GRID) / micro.GRID).sum(axis=0))
    assert np.linalg.norm(micro.from_grid(micro.to_grid(some[0]))) <= np.linalg.norm(some[0])


def test_top_k_with_memory_is_the_stage():
    ctx = Context(0, Server(np.zeros(60, np.float32)), client=0, memory={})
    stage, memory = TopK(0.1), np.zeros(60, np.float32)
    for _ in range(5):
        delta = RNG.standard_normal(60).astype(np.float32)
        sent = stage.client(Update(0, 0, delta), ctx).delta
        positions, values, memory = micro.top_k(delta, memory, 6)
        np.testing.assert_array_equal(sent.positions, positions)
        np.testing.assert_array_equal(sent.values, values)
        np.testing.assert_array_equal(ctx.memory["residual"], memory)


def test_one_loop_runs_them_all():
    x, y = micro.digits()
    data = digits()
    every = np.concatenate([data.x, data.x_test])
    assert sorted(map(bytes, x.astype(np.float32))) == sorted(map(bytes, every.astype(np.float32)))
    shards = [(x[part], y[part]) for part in np.array_split(np.arange(300), 6)]
    test = (x[300:500], y[300:500])
    plain = micro.federate(shards, test, rounds=4, fraction=0.9)
    masked = micro.federate(shards, test, rounds=4, fraction=0.9, secure=True)
    np.testing.assert_allclose(masked[0], plain[0], atol=4 * 6 * 2 / micro.GRID)       # but for the grid the same
    whole = micro.federate(shards, test, rounds=4, fraction=0.9, ratio=1.0)
    np.testing.assert_allclose(whole[0], plain[0], atol=1e-12)
    assert whole[2] == 2 * plain[2]                                                    # a position beside every number
    noisy = micro.federate(shards, test, rounds=4, fraction=0.9, sigma=1e-9, bound=1e9)
    assert noisy[1][-1] > 0.5
    assert plain[1][-1] > 0.6


@pytest.mark.slow
def test_it_runs_alone(tmp_path):
    copy = tmp_path / "micro.py"
    copy.write_bytes(FILE.read_bytes())
    done = subprocess.run([sys.executable, "-I", str(copy)], capture_output=True, text=True, encoding="utf-8", check=True)
    lines = done.stdout.splitlines()
    assert len(lines) == 4
    assert all(float(line.split("accuracy")[1].split()[0]) > 0.85 for line in lines)
