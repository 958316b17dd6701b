"""What is drawn, and from which stream: divisions, handwritings and synthetic clients, each written out a second time."""

import hashlib

import numpy as np
import pytest

from fl_course import Dirichlet, Shards, Writers, digits, mnist, synthetic
from fl_course.core import stream
from fl_course.data.partition import _round_to_sum


def test_the_examples_of_a_label_are_shuffled_before_they_are_cut_into_shards():
    for part in Shards(1).split(np.zeros(40, int), 2, stream(0, "deal")):
        assert np.ptp(part) > 20
        assert len(part) == 20


def test_dirichlet_keeps_to_the_mix_of_an_unbalanced_pool():
    labels = np.repeat([0, 1], [1800, 200])
    shares = [labels[part].mean() for part in Dirichlet(1e6).split(labels, 20, stream(0, "deal"))]
    np.testing.assert_allclose(shares, 0.1, atol=0.08)               # 100 examples each: 0.10 ± 0.03


def test_whole_numbers_near_shares_go_up_where_the_remainder_is_largest():
    assert _round_to_sum(np.array([0.5, 0.3, 0.2]), 9).tolist() == [4, 3, 2]
    rng = stream(0, "test")
    for total in (0, 1, 7, 100):
        shares = rng.dirichlet(np.ones(6))
        sizes = _round_to_sum(shares, total)
        assert sizes.sum() == total
        assert (abs(sizes - shares * total) < 1).all()


def test_a_writer_has_a_thickness_and_a_noise_of_its_own():
    page = digits().x[:20]
    spreads = []
    for k in range(6):
        hand = stream(0, "hand", k)
        _, thick = hand.uniform(-1.0, 1.0, size=2)
        ink = Writers(0.0, 1.0, 0.0).view(page, stream(0, "hand", k)).mean() - page.mean()
        assert np.sign(ink) == np.sign(thick)                        # drawn above 0: more ink; below: less
        grey = Writers(0.0, 0.0, 0.5).view(np.full((50, 64), 0.5, np.float32), stream(0, "hand", k))
        level = hand.uniform(0.0, 0.5)
        assert grey.std() == pytest.approx(min(level, 0.5), rel=0.5)
        spreads.append(grey.std())
    assert max(spreads) > 2 * min(spreads)


def test_a_page_is_written_image_by_image():
    page, plain = digits().x[:6], Writers(noise=0.0)
    whole = plain.view(page, stream(0, "hand"))
    for k, image in enumerate(whole):
        assert np.array_equal(plain.view(page[k : k + 1], stream(0, "hand"))[0], image)


def test_synthetic_is_the_program_of_its_docstring():
    alpha, beta, dim, classes, least = 0.7, 2.0, 5, 3, 20
    data = synthetic(alpha, beta, clients=4, dim=dim, classes=classes, seed=9, test_fraction=0.0, least=least)
    held = 0
    for k in data.ids:
        rng = stream(9, "partition", "synthetic", k)
        u = alpha * rng.standard_normal()
        v = beta * rng.standard_normal() + rng.standard_normal(dim)
        W, b = u + rng.standard_normal((dim, classes)), u + rng.standard_normal(classes)
        size = least + int(np.exp(4 + 2 * rng.standard_normal()))
        more = -(-size // 4)                                         # a quarter as many, rounded up, is held out
        x = v + rng.standard_normal((size + more, dim)) * np.sqrt(np.arange(1.0, dim + 1) ** -1.2)
        y = [max(range(classes), key=lambda c, one=one: one @ W[:, c] + b[c]) for one in x]
        np.testing.assert_allclose(data.examples(k)[0], x[:size], rtol=1e-6, atol=1e-6)
        assert data.examples(k)[1].tolist() == y[:size]
        np.testing.assert_allclose(data.x_test[held : held + more], x[size:], rtol=1e-6, atol=1e-6)
        held += more
    assert len(data.y_test) == held


@pytest.mark.parametrize(("load", "kept", "held"), [
    (digits, "b65f989e00425159", "999fcb07bd308fc2"),
    (mnist, "b9d0a581457ce344", "c2e5a4f73c460bd8"),
])
def test_the_pools_are_the_same_in_every_version_of_the_course(load, kept, held):
    """Which examples are held out, and the order of the others, decide every curve that anybody has drawn."""
    data = load()
    assert hashlib.sha256((data.x * 255).round().astype(np.uint8).tobytes() + bytes(data.y.tolist())).hexdigest()[:16] == kept
    assert hashlib.sha256(bytes(data.y_test.tolist())).hexdigest()[:16] == held
