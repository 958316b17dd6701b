"""Data sets, divisions, and what is refused."""

import hashlib
import re
from importlib import resources

import matplotlib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fl_course.core import stream
from fl_course.data.federated import Dataset, FederatedData, from_clients
from fl_course.data.partition import IID, Dirichlet, QuantitySkew, Shards, Writers
from fl_course.data.sources import digits, mnist, synthetic

matplotlib.use("Agg")

RULES = [IID(), Shards(2), Shards(1), Dirichlet(0.05), Dirichlet(1.0), Dirichlet(1e6), QuantitySkew(0.3), Writers()]


def pool(n: int = 120, classes: int = 4, side: int = 4) -> Dataset:
    rng = stream(0, "test-pool")
    x, y = rng.random((n, side * side), dtype=np.float32), np.arange(n) % classes
    return Dataset("pool", x, y, classes, x[:8] / 2, y[:8])


def federation(**changes) -> FederatedData:
    rows = np.arange(6)
    given = {"name": "six", "x": np.zeros((6, 2), np.float32), "y": rows % 2, "classes": 2, "ids": ("a", "b"),
             "train": (rows[:2], rows[3:5]), "test": (rows[2:3], rows[5:]), "x_test": np.zeros((1, 2)), "y_test": [0]}
    return FederatedData(**(given | changes))


def born_at(clients) -> FederatedData:
    return from_clients("regions", clients, 2, np.zeros((3, 2)), [0, 1, 0])


# --- the pools -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("load", "size", "held", "dim"), [(digits, 1797, 359, 64), (mnist, 5000, 1000, 784)])
def test_a_pool_is_balanced_scaled_fixed_and_apart_from_the_held_out_set(load, size, held, dim):
    data, again = load(), load()
    assert data.x.shape == (size - len(data.y_test), dim)
    assert len(data.y_test) == pytest.approx(held, abs=3)
    assert (data.x.dtype, data.y.dtype) == (np.float32, np.int64)
    assert data.x.min() == 0.0
    assert data.x.max() == 1.0
    assert {row.tobytes() for row in data.x}.isdisjoint({row.tobytes() for row in data.x_test})
    mixes = [np.bincount(labels) / len(labels) for labels in (data.y, data.y_test)]
    np.testing.assert_allclose(*mixes, atol=0.003)
    assert data.x.tobytes() == again.x.tobytes()
    assert data.y_test.tobytes() == again.y_test.tobytes()
    assert len(repr(data)) < 120


def test_vendored_files_are_the_ones_whose_origin_is_written_down():
    folder = resources.files("fl_course").joinpath("data", "datasets")
    rows = re.findall(r"^\| `([\w.]+)` .*`([0-9a-f]{64})` \|$", folder.joinpath("SOURCES.md").read_text("utf-8"), re.M)
    vendored = {file.name for file in folder.iterdir() if not file.name.endswith((".py", ".md")) and file.is_file()}
    assert {name for name, _ in rows} == vendored
    for name, expected in rows:
        content = folder.joinpath(name).read_bytes()
        assert hashlib.sha256(content).hexdigest() == expected
        assert len(content) < 1_000_000


# --- the divisions -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", RULES, ids=repr)
@settings(max_examples=25, deadline=None)
@given(n=st.integers(1, 90), share=st.floats(0, 1), classes=st.integers(2, 7), seed=st.integers(0, 2**40))
def test_every_example_goes_to_exactly_one_client_and_nobody_is_empty(rule, n, share, classes, seed):
    labels = stream(seed, "labels").integers(0, classes, n)
    clients = max(1, round(share * n / getattr(rule, "per_client", 1)))
    if clients * getattr(rule, "per_client", 1) > n:
        return
    parts = rule.split(labels, clients, stream(seed, "split"))
    assert len(parts) == clients
    assert min(map(len, parts)) >= 1
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(n))


@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_a_federation_is_disjoint_complete_and_repeats(rule):
    data = pool()
    fed, again, other = (data.partition(rule, clients=10, seed=seed) for seed in (3, 3, 4))
    rows = np.concatenate([*fed.train, *fed.test])
    np.testing.assert_array_equal(np.sort(rows), np.arange(len(data.y)))
    assert fed.x.tobytes() == again.x.tobytes()
    assert all(np.array_equal(a, b) for a, b in zip(fed.train + fed.test, again.train + again.test, strict=True))
    assert any(not np.array_equal(a, b) for a, b in zip(fed.train, other.train, strict=True))
    assert fed.x_test is data.x_test
    assert fed.sizes.sum() == fed.label_counts().sum()
    assert (fed.sizes >= 1).all()
    if not isinstance(rule, QuantitySkew):
        assert [len(test) for test in fed.test] == [2] * 10          # 12 examples each, a fifth of them


def test_the_share_goes_with_the_place_and_the_rest_with_the_name():
    data = pool()
    by_number, by_name = data.partition(Writers(), 3), data.partition(Writers(), ["z", 7, "a"])
    for place in range(3):
        share = [np.union1d(fed.train[place], fed.test[place]) for fed in (by_number, by_name)]
        np.testing.assert_array_equal(*share)
        assert not np.array_equal(by_number.x[share[0]], by_name.x[share[0]])
    grown = data.partition(Writers(), ["z", 7, "a"], test_fraction=0.5)
    np.testing.assert_array_equal(grown.x, by_name.x)                # a larger test part changes nobody's writing


def test_equal_division_and_shards_count_what_they_promise():
    data = digits()
    fed = data.partition(IID(), clients=10, test_fraction=0.0)
    assert np.ptp(fed.sizes) <= 1
    assert (fed.label_counts() > 0).all()
    for per_client in (1, 2, 3):
        labels = (data.partition(Shards(per_client), clients=100).label_counts() > 0).sum(axis=1)
        assert labels.max() <= 2 * per_client
        assert labels.mean() < per_client + 0.5


def test_dirichlet_goes_from_one_class_to_the_mix_of_the_pool():
    data = mnist()

    def largest_share(alpha):
        counts = data.partition(Dirichlet(alpha), clients=20, test_fraction=0.0).label_counts()
        return counts.max(axis=1) / counts.sum(axis=1)

    assert largest_share(1e-9).mean() > 0.95
    assert largest_share(0.1).mean() > largest_share(1.0).mean() > largest_share(10.0).mean()
    assert np.median(largest_share(1e9)) < 0.16                      # 200 examples of 10 classes: 0.10 ± 0.02 each


def test_dirichlet_has_the_spread_of_a_dirichlet():
    """Var(q_c) = (1/C)(1 - 1/C) / (C·alpha + 1) for C balanced classes, to which counting m examples adds its own."""
    labels, alpha, classes, clients, m = np.arange(48_000) % 4, 0.7, 4, 480, 100
    parts = Dirichlet(alpha).split(labels, clients, stream(0, "spread"))
    shares = np.stack([np.bincount(labels[part], minlength=classes) / m for part in parts])
    mixes = (1 / classes) * (1 - 1 / classes) / (classes * alpha + 1)
    counting = ((1 / classes) * (1 - 1 / classes) - mixes) / m       # E[q(1-q)] / m
    np.testing.assert_allclose(shares.mean(axis=0), 1 / classes)
    assert shares.var(axis=0).mean() == pytest.approx(mixes + counting, rel=0.1)


def test_quantity_skew_changes_amounts_and_not_the_mix():
    data = mnist()
    unequal, equal = (data.partition(QuantitySkew(alpha), 10, test_fraction=0.0) for alpha in (0.3, 1e6))
    assert np.ptp(equal.sizes) <= 8
    assert unequal.sizes.max() > 3 * np.median(unequal.sizes)
    big = unequal.label_counts()[unequal.sizes > 300]
    np.testing.assert_allclose(big / big.sum(axis=1, keepdims=True), 0.1, atol=0.06)


def test_writers_leave_labels_alone_differ_from_each_other_and_vanish_at_zero():
    data = digits()
    fed = data.partition(Writers(), clients=6)
    assert np.shares_memory(fed.y, data.y)
    assert np.shares_memory(data.partition(IID(), 6).x, data.x)          # nothing changed, nothing copied
    assert 0.0 <= fed.x.min() <= fed.x.max() <= 1.0
    assert not np.array_equal(fed.x, data.x)
    page = data.x[:20]
    hands = [Writers().view(page, stream(0, "hand", k)) for k in range(3)]
    assert min(np.abs(hands[a] - hands[b]).mean() for a, b in ((0, 1), (0, 2), (1, 2))) > 0.02
    np.testing.assert_allclose(Writers(0.0, 0.0, 0.0).view(page, stream(0, "hand")), page, atol=1e-6)
    for shape in ((20, 8, 8), (20, 1, 8, 8)):                        # stored otherwise, the same pixels
        assert np.array_equal(Writers().view(page.reshape(shape), stream(0, "hand", 0)).reshape(20, 64), hands[0])


def test_slant_moves_the_top_one_way_and_the_bottom_the_other():
    upright = np.zeros((1, 9, 9), np.float32)
    upright[0, :, 4] = 1.0
    for k in range(5):
        leaning = Writers(slant=0.5, thickness=0.0, noise=0.0).view(upright, stream(0, "lean", k))[0]
        lean = np.array([(row * np.arange(9)).sum() / row.sum() for row in leaning]) - 4
        drawn = stream(0, "lean", k).uniform(-1.0, 1.0) * 0.5
        np.testing.assert_allclose(lean, -drawn * (np.arange(9) - 4), atol=1e-5)


# --- data that were born at the clients ----------------------------------------------------------------------------


def test_from_clients_keeps_every_example_with_its_owner():
    owned = {"north": (np.full((5, 2), 1.0), [0] * 5), 12: (np.full((1, 2), 2.0), [1]), "empty": (np.zeros((0, 2)), [])}
    fed = born_at(owned)
    assert fed.ids == ("north", 12, "empty")
    assert fed.sizes.tolist() == [4, 1, 0]                           # a single example is kept for training
    assert [len(rows) for rows in fed.test] == [1, 0, 0]
    for place, value in enumerate((1.0, 2.0)):
        assert (fed.x[np.concatenate([fed.train[place], fed.test[place]])] == value).all()
    x, y = fed.examples("north", "test")
    assert (x.shape, y.tolist()) == ((1, 2), [0])
    assert fed.position(12) == 1
    greedy = from_clients("regions", owned, 2, np.zeros((3, 2)), [0, 1, 0], test_fraction=0.95)
    assert greedy.sizes.tolist() == [1, 1, 0]                        # whatever the fraction, one example trains
    assert (len(fed), fed.shape) == (3, (2,))


def test_synthetic_follows_its_model():
    """Zero spread: all clients' inputs centre on N(0, 1) draws with Σ_jj = j^-1.2; with it, clients lie apart."""
    fed = synthetic(0.0, 0.0, clients=12, seed=1, least=400, log_mean=0.0, log_std=0.0)
    assert fed.sizes.tolist() == [321] * 12                          # 400 + int(e^0) = 401, a fifth kept for the test
    within = np.mean([fed.examples(k)[0].var(axis=0, ddof=1) for k in fed.ids], axis=0)
    np.testing.assert_allclose(within, np.arange(1, 61) ** -1.2, rtol=0.15)
    centres = np.stack([fed.examples(k)[0].mean(axis=0) for k in fed.ids])
    assert centres.std() == pytest.approx(1.0, abs=0.1)
    apart = synthetic(0.0, 5.0, clients=12, seed=1, least=400, log_mean=0.0, log_std=0.0)
    spread = np.std([apart.examples(k)[0].mean() for k in apart.ids])
    assert spread > 2.0 > 5 * np.std(centres.mean(axis=1))
    once, again, other = (synthetic(1, 1, seed=seed).x.tobytes() for seed in (5, 5, 6))
    assert once == again != other


def test_a_synthetic_client_does_not_depend_on_how_many_there_are():
    few, many = synthetic(0.5, 0.5, clients=3), synthetic(0.5, 0.5, clients=9)
    for client in few.ids:
        np.testing.assert_array_equal(few.examples(client)[0], many.examples(client)[0])


# --- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("make", "says"), [
    (lambda: Dirichlet(0.0), "alpha = 0.0; it must be a finite number > 0"),
    (lambda: Dirichlet(float("nan")), "alpha = nan"),
    (lambda: Dirichlet(float("inf")), "alpha = inf"),
    (lambda: QuantitySkew(-1.0), "alpha = -1.0; it must be a finite number > 0"),
    (lambda: Shards(0), "per_client = 0; it must be a whole number >= 1"),
    (lambda: Shards(1.5), "per_client = 1.5"),
    (lambda: Writers(noise=-0.1), "noise = -0.1; it must be in [0, 1.0]"),
    (lambda: Writers(thickness=float("nan")), "thickness = nan"),
    (lambda: pool().partition(IID(), 121), "clients = 121; it must be a whole number from 1 to 120"),
    (lambda: pool().partition(Dirichlet(1.0), 0), "clients = 0; it must be a whole number >= 1, or the ids"),
    (lambda: pool().partition(IID(), -3), "clients = -3"),
    (lambda: pool().partition(IID(), 2.5), "clients = 2.5"),
    (lambda: pool().partition(QuantitySkew(1.0), []), "clients = 0"),
    (lambda: pool().partition(Shards(13), 10), "per_client must be <= 12"),
    (lambda: pool().partition(IID(), 3, test_fraction=1.0), "test_fraction = 1.0; it must be in [0, 1)"),
    (lambda: pool().partition(IID(), 3, test_fraction=float("nan")), "test_fraction = nan"),
    (lambda: pool().partition(IID(), ["a", "b", "a"]), "client id 'a' is given twice"),
    (lambda: synthetic(-1.0, 0.0), "alpha = -1.0; it must be a finite number >= 0"),
    (lambda: synthetic(0.0, float("nan")), "beta = nan"),
    (lambda: synthetic(0.0, 0.0, clients=0), "clients = 0; it must be a whole number >= 1"),
    (lambda: federation(ids=(), train=(), test=()), "at least one client"),
    (lambda: federation(train=(np.arange(2),)), "train has 1 arrays for 2 clients"),
    (lambda: federation(test=(np.array([1]), np.array([5]))), "given to client 'a' and client 'a'"),
    (lambda: federation(test=(np.array([4]), np.array([5]))), "given to client 'b' and client 'a'"),
    (lambda: federation(train=(np.array([0, 0]), np.array([3]))), "twice to client 'a'"),
    (lambda: federation(train=(np.array([0, 6]), np.array([3]))), "x has rows 0..5"),
    (lambda: federation(train=([], []), test=([], [])), "no client has a training example"),
    (lambda: federation(y=np.zeros(5)), "x has shape (6, 2) and y (5,)"),
    (lambda: federation(y=[0, 1, 0, 1, 2, 0]), "label 2 of example 4 in y of client 'b'; labels are whole"),
    (lambda: federation(y=[0, 0.5, 0, 1, 1, 0]), "label 0.5 of example 1 in y of client 'a'"),
    (lambda: federation(x_test=np.zeros((1, 3))), "x_test has examples of shape (3,); those of x have shape (2,)"),
    (lambda: born_at({"k": (np.zeros((3, 2)), [0])}), "client 'k' has 3 examples and 1 labels"),
    (lambda: born_at({"k": (np.zeros((1, 3)), [0])}), "client 'k' has examples of shape (3,)"),
    (lambda: born_at({}), "none of the 0 clients has an example"),
    (lambda: federation().position("c"), "unknown client 'c'; the 2 clients are 'a', 'b'"),
    (lambda: federation().examples("a", "both"), "part = 'both'"),
    (lambda: Writers().view(np.zeros((2, 60)), stream(0)), "examples of shape (60,) are not square grey images"),
])
def test_bad_input_is_named_with_what_is_allowed(make, says):
    with pytest.raises(ValueError, match=re.escape(says)):
        make()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_none_is_traced_to_its_client(bad):
    x = np.zeros((6, 2), np.float32)
    x[4, 1] = bad
    with pytest.raises(ValueError, match="example 4 in x of client 'b' holds NaN or Inf"):
        federation(x=x)
    with pytest.raises(ValueError, match="example 0 in x_test holds NaN or Inf"):
        federation(x_test=np.full((1, 2), bad))


# --- the pictures --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clients", [5, 23, 200])
def test_the_picture_shows_the_counts(clients):
    import matplotlib.pyplot as plt

    fed = digits().partition(Dirichlet(0.5), clients=clients)
    ax = fed.plot()
    ax.figure.canvas.draw()
    shown = ax.images[0].get_array()
    np.testing.assert_array_equal(np.ma.filled(np.ma.masked_invalid(shown), 0), fed.label_counts().T)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("client", "class")
    assert len(ax.get_xticks()) <= 20
    plt.close(ax.figure)


def test_the_gallery_shows_the_clients_own_images():
    import matplotlib.pyplot as plt

    fed = digits().partition(Writers(), clients=["ann", "bob"])
    ax = fed.gallery(clients=5, examples=3)
    ax.figure.canvas.draw()
    sheet = np.asarray(ax.images[0].get_array())
    assert sheet.shape == (2 * 8, 3 * 8)
    np.testing.assert_allclose(sheet[8:, 8:16], fed.examples("bob")[0][1].reshape(8, 8))
    assert [label.get_text() for label in ax.get_yticklabels()] == ["ann", "bob"]
    plt.close(ax.figure)
    with pytest.raises(ValueError, match="not square"):
        synthetic(0, 0, clients=2).gallery()


def test_alpha_moves_no_label_as_the_docstring_says():
    """u_k is added to every class's weights and bias, so it shifts all scores of an example alike (Li et al. 2020, sec. 5.1)."""
    one, other = synthetic(0.0, 1.0, clients=4), synthetic(5.0, 1.0, clients=4)
    assert np.array_equal(one.x, other.x)
    assert np.mean(one.y == other.y) > 0.999
