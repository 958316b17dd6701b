"""Quantisers: unbiasedness and variance against the formulas, limits, and the rotation."""

import math
from dataclasses import replace

import numpy as np
import pytest
from compression_fixtures import ctx, through

from fl_course import QSGD, Aggregate, Downlink, RandomK, Rotate, SignSGD, Ternary, Update
from fl_course.compression.quantisation import hadamard, levels_of, quantise
from fl_course.federation.stages import client_half
from fl_course.wire.messages import encode_update

# --- unbiasedness and variance, against the formulas ----------------------------------------------------------------------


def moments(stage, x, times=2000):
    """Mean and mean squared error over independent draws, one a version."""
    drawn = np.stack([stage.client(Update(0, 0, x), ctx(version=v, d=x.size)).delta.dense() for v in range(times)])
    return drawn.mean(0, dtype=float), np.square(drawn - x.astype(float)).mean(0), drawn


def grid_variance(x, levels, block):
    """f(1-f)·step² for each number, straight from the definition."""
    out = []
    for a in range(0, x.size, block):
        scale = np.abs(x[a : a + block]).max()
        step = 2 * scale / (levels - 1) or 1.0
        f = (x[a : a + block].astype(float) + scale) / step % 1
        out.append(f * (1 - f) * step**2)
    return np.concatenate(out)


@pytest.mark.parametrize(("stage", "levels", "block"), [
    (QSGD(1), 2, 41), (QSGD(2), 3, 41), (Ternary(), 3, 41), (Ternary(block=9), 3, 9), (QSGD(3, block=8), 7, 8),
    (QSGD(8), 255, 41), (QSGD(9), 511, 41), (QSGD(16, block=10), 65535, 10)], ids=repr)  # fmt: skip
def test_rounding_is_unbiased_with_the_variance_of_the_formula(stage, levels, block):
    x = np.random.default_rng(3).standard_normal(41).astype(np.float32)
    mean, error, drawn = moments(stage, x)
    variance = grid_variance(x, levels, block)
    scale = np.abs(x).max()
    assert (np.abs(mean - x) <= 5 * np.sqrt(variance / 2000) + scale * 2e-6).all()
    assert error.sum() == pytest.approx(variance.sum(), rel=0.05)
    assert len({row.tobytes() for row in drawn}) > 1000
    assert (variance <= (2 * scale / (levels - 1)) ** 2 / 4 + 1e-12).all()


def test_random_k_is_unbiased_with_the_variance_of_the_formula():
    x = np.random.default_rng(4).standard_normal(40).astype(np.float32)
    mean, error, _ = moments(RandomK(0.25), x, 4000)
    assert (np.abs(mean - x) <= 5 * np.abs(x) * math.sqrt(3 / 4000)).all()
    assert error.sum() == pytest.approx(3 * np.square(x).sum(), rel=0.05)          # (d/k - 1)·‖x‖²
    _, error, _ = moments(RandomK(0.25, feedback=True), x, 4000)
    assert error.sum() == pytest.approx(0.75 * np.square(x).sum(), rel=0.05)       # (1 - k/d)·‖x‖²


def test_sixteen_bits_are_nearly_exact_and_two_bits_are_ternary():
    x = np.random.default_rng(5).standard_normal(1003).astype(np.float32)
    assert np.abs(through([QSGD(16)], x, ctx(d=1003)) - x).max() <= 2 * np.abs(x).max() / 65534 * 1.001
    two, three = (client_half([s], Update(0, 0, x), ctx(d=1003)).delta for s in (QSGD(2), Ternary()))
    assert np.array_equal(two.codes, three.codes)
    assert len(encode_update(Update(0, 0, three))) < 1003 / 5 + 60


def test_numbers_on_the_grid_stay():
    x = np.arange(-127, 128).astype(np.float32) * np.float32(0.25)
    assert np.array_equal(quantise(x, 255, None, np.random.default_rng(0)).dense(), x)


def test_blocks_have_their_own_scale_and_long_vectors_are_as_short_ones():
    x = np.random.default_rng(6).standard_normal(100_003).astype(np.float32)
    x[:64] *= 1e6
    blocks = quantise(x, 255, 64, np.random.default_rng(1))
    assert blocks.scales.size == -(-100_003 // 64)
    steps = np.repeat(2 * blocks.scales / 254, 64)[: x.size]
    assert (np.abs(blocks.dense() - x) <= steps * 1.0001).all()
    coarse = quantise(x, 255, None, np.random.default_rng(1)).dense()
    assert np.abs(coarse - x)[64:].mean() > 50 * np.abs(blocks.dense() - x)[64:].mean()


def test_tiny_numbers_are_rounded_as_well_as_large_ones():
    x = np.array([1.0, -0.4, 0.1, 0.7], np.float32)
    for scale in (1e-38, 1e-31, 1e-20, 1e38):
        draws = (quantise(x * np.float32(scale), 15, None, np.random.default_rng(s)).dense() for s in range(800))
        assert np.abs(np.mean([draw / scale for draw in draws], axis=0) - x).max() < 0.02


def test_levels_are_odd_so_that_zero_is_one():
    assert [levels_of(bits) for bits in (1, 2, 3, 8, 16)] == [2, 3, 7, 255, 65535]


def test_signs_are_the_contraction_of_the_paper():
    x = np.random.default_rng(7).standard_normal(77).astype(np.float32)
    got = through([SignSGD(feedback=False)], x, ctx(d=77))
    assert np.array_equal(np.sign(got), np.sign(x))
    want = (1 - np.abs(x).sum() ** 2 / (77 * np.square(x).sum())) * np.square(x).sum()
    assert np.square(x - got).sum() == pytest.approx(want, rel=1e-5)
    assert np.square(got).sum() <= np.square(x).sum()


def test_zero_counts_as_positive_where_there_is_only_a_sign():
    assert np.array_equal(through([SignSGD(feedback=False)], np.array([0, 3, -3], np.float32), ctx(d=3)), [2, 2, -2])


@pytest.mark.parametrize("bits", [0, 17, -1, 2.5, None, True, 33])
def test_bits_are_refused(bits):
    for make in (QSGD, Downlink):
        with pytest.raises(ValueError, match="bits"):
            make(bits)


@pytest.mark.parametrize("block", [0, -1, 2.5, True])
def test_blocks_are_refused(block):
    for make in (Ternary, lambda block: QSGD(8, block)):
        with pytest.raises(ValueError, match="block"):
            make(block)


# --- the rotation ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("d", [1, 2, 3, 8, 100, 650])
def test_rotation_keeps_lengths_and_is_undone_on_the_sum(d):
    rng, here = np.random.default_rng(d), ctx(d=d)
    a, b = rng.standard_normal((2, d)).astype(np.float32)
    ra, rb = (Rotate().client(Update(0, 0, x), here).delta for x in (a, b))
    assert np.linalg.norm(ra) == pytest.approx(np.linalg.norm(a), rel=1e-5)
    back = Rotate().server(Aggregate(ra.astype(float) + rb, 2.0), replace(here, client=None)).total
    assert np.allclose(back, a + b, atol=1e-5)


def test_hadamard_by_its_definition():
    h = np.array([[1.0]])
    for _ in range(3):
        h = np.block([[h, h], [h, -h]])
    x = np.random.default_rng(0).standard_normal(8).astype(np.float32)
    assert np.allclose(hadamard(x), h @ x / math.sqrt(8), atol=1e-6)


def test_rotation_spreads_a_spike_and_saves_the_quantiser():
    x = np.random.default_rng(1).standard_normal(1000).astype(np.float32) * np.float32(0.01)
    x[17] = 10
    spread = Rotate().client(Update(0, 0, x), ctx(d=1000)).delta
    assert np.abs(spread).max() < 10 * math.sqrt(2 * math.log(2000) / 1000)
    straight, rotated = (np.square(through(s, x, ctx(d=1000)) - x).sum() for s in ([QSGD(4)], [Rotate(), QSGD(4)]))
    assert rotated < straight / 5
