"""Clip, calibrate, sample: reference values, high-precision and Monte Carlo checks, floating-point corners."""

import math

import mpmath
import numpy as np
import pytest
from scipy.stats import kstest

from fl_course.core import stream
from fl_course.privacy.mechanisms import (
    clip,
    gaussian_delta,
    gaussian_epsilon,
    gaussian_sigma,
    gaussian_sigma_classic,
    joint_noise_multiplier,
    laplace_scale,
    norm,
    remaining_noise_multiplier,
)
from fl_course.privacy.noise import (
    SecureGenerator,
    gaussian_noise,
    impossible_outputs,
    laplace_noise,
    next_keys,
    secret_nodes,
    secure_generator,
    seeded_nodes,
    tree_nodes,
    tree_noise,
    tree_variance,
)

# epsilon, delta, sensitivity, sigma exact, sigma classic, delta that the classic sigma really delivers
CALIBRATION = [
    (0.2, 1e-5, 1, 16.304133, 24.224026, 5.5e-9),
    (0.9, 1e-6, 1, 4.658846, 5.887558, 2.7e-9),
    (3, 1e-6, 2, 3.087723, 3.532535, 2.5e-8),
    (10, 1e-5, 1, 0.499889, 0.484481, 2.27e-5),
    (20, 1e-5, 1, 0.290041, 0.242240, 1.53e-3),
]


# --- clip ----------------------------------------------------------------------------------------------------------


def test_clip_is_the_identity_within_the_bound():
    vector = stream(1, "clip").standard_normal(50).astype(np.float32)
    for bound in (norm(vector), 100.0, math.inf):
        clipped = clip(vector, bound)
        assert clipped.tobytes() == vector.tobytes()
        assert clipped is not vector
    assert not clip(np.zeros(4, np.float32), 1.0).any()
    assert clip(np.zeros(0), 1.0).shape == (0,)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("order", [1, 2])
def test_clipped_norm_is_never_above_the_bound(dtype, order):
    for trial in range(200):
        rng = stream(2, "clip", trial)
        vector = (rng.standard_normal(rng.integers(1, 300)) * 10 ** rng.uniform(-1, 3)).astype(dtype)
        bound = float(10 ** rng.uniform(-1, 1))
        before, clipped = vector.copy(), clip(vector, bound, order)
        exact = float(np.linalg.norm(clipped.astype(np.longdouble), order))
        assert exact <= bound
        assert clipped.dtype == dtype
        assert (vector == before).all()                         # the input is not touched
        if norm(vector, order) > bound:
            assert exact == pytest.approx(bound, rel=3 * np.sqrt(len(vector)) * np.finfo(dtype).eps + 1e-11)
            direction = clipped.astype(float) @ vector.astype(float)
            cosine = direction / (np.linalg.norm(clipped.astype(float)) * np.linalg.norm(vector.astype(float)))
            assert cosine > 1 - 1e-3


def test_clip_survives_huge_and_tiny_numbers():
    huge = np.full(100, 1e30, np.float32)
    assert norm(huge) == pytest.approx(1e31)
    assert norm(clip(huge, 1.0)) == pytest.approx(1.0, rel=1e-6)
    assert norm(clip(np.full(4, 1e300), 1.0)) == pytest.approx(1.0)
    assert norm(np.full(4, 1e-300)) == pytest.approx(2e-300)
    assert norm(clip(np.full(4, 1e-300), 1e-300)) == pytest.approx(1e-300)


def test_clip_measures_all_tensors_together_and_keeps_the_shape():
    matrix = np.full((3, 4), 2.0)
    assert clip(matrix, 1.0).shape == (3, 4)
    assert norm(clip(matrix, 1.0)) == pytest.approx(1.0)
    assert np.abs(clip(matrix, 1.0, norm=1)).sum() == pytest.approx(1.0)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_clip_refuses_what_it_cannot_bound(bad):
    with pytest.raises(ValueError, match="NaN or infinity"):
        clip(np.array([1.0, bad]), 1.0)
    for bound in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="clip bound"):
            clip(np.ones(3), bound)
    with pytest.raises(ValueError, match="norm must be 1"):
        clip(np.ones(3), 1.0, norm=3)
    with pytest.raises(TypeError, match="floating-point"):
        clip(np.array([1, 2]), 1.0)


def test_sensitivity_of_a_clipped_sum():
    """Removing one client, however loud, moves the sum by at most the bound; replacing it by at most twice that."""
    rng = stream(3, "sensitivity")
    cohort = rng.standard_normal((20, 30)) * 5
    cohort[7] = 1e6
    clipped = np.array([clip(row, 0.5) for row in cohort])
    for absent in range(20):
        moved = clipped.sum(axis=0) - np.delete(clipped, absent, axis=0).sum(axis=0)
        assert norm(moved) <= 0.5 + 1e-12
    opposite = clip(np.full(30, 1e6), 0.5) - clip(np.full(30, -1e6), 0.5)
    assert norm(opposite) == pytest.approx(1.0)


def test_an_l2_clip_does_not_bound_the_l1_norm():
    d = 400
    row = clip(np.ones(d), 1.0)
    assert norm(row, 1) == pytest.approx(math.sqrt(d))  # Laplace noise scaled to 1 would be 20 times too small
    assert norm(clip(np.ones(d), 1.0, norm=1), 1) == pytest.approx(1.0)


# --- calibration of one release ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("epsilon", "delta", "sensitivity", "exact", "classic", "delivered"), CALIBRATION)
def test_calibration_table(epsilon, delta, sensitivity, exact, classic, delivered):
    sigma = gaussian_sigma(epsilon, delta, sensitivity)
    assert sigma == pytest.approx(exact, abs=1e-6)
    assert gaussian_delta(sigma, epsilon, sensitivity) <= delta  # never below
    assert gaussian_delta(classic, epsilon, sensitivity) == pytest.approx(delivered, rel=0.02)
    if epsilon <= 1:
        assert gaussian_sigma_classic(epsilon, delta, sensitivity) == pytest.approx(classic, rel=1e-6)
    else:
        with pytest.raises(ValueError, match=f"proved for epsilon <= 1, not {epsilon}"):
            gaussian_sigma_classic(epsilon, delta, sensitivity)


def test_gaussian_delta_against_high_precision():
    with mpmath.workdps(60):
        for sigma in (0.05, 0.3, 1.0, 4.0, 60.0):
            for epsilon in (0.0, 0.01, 1.0, 12.0, 90.0):
                mu, e = 1 / mpmath.mpf(sigma), mpmath.mpf(epsilon)
                exact = mpmath.ncdf(mu / 2 - e / mu) - mpmath.exp(e) * mpmath.ncdf(-mu / 2 - e / mu)
                assert gaussian_delta(sigma, epsilon) == pytest.approx(float(exact), rel=1e-8, abs=1e-300)


def test_the_classic_formula_fails_only_far_above_one():
    for delta, fails_from in ((1e-2, 6.8), (1e-5, 8.45), (1e-8, 9.4)):
        for epsilon, broken in ((fails_from - 0.1, False), (fails_from + 0.1, True)):
            classic = math.sqrt(2 * math.log(1.25 / delta)) / epsilon
            assert (gaussian_delta(classic, epsilon) > delta) is broken


def test_epsilon_sigma_and_delta_agree():
    for epsilon, delta in ((0.01, 1e-3), (1.0, 1e-9), (30.0, 1e-5)):
        sigma = gaussian_sigma(epsilon, delta)
        assert gaussian_epsilon(sigma, delta) == pytest.approx(epsilon, rel=1e-9)
        assert gaussian_sigma(epsilon, delta, 3.0) == pytest.approx(3 * sigma)
    assert gaussian_epsilon(0.0, 1e-5) == math.inf
    assert gaussian_delta(0.0, 3.0) == 1.0
    assert gaussian_epsilon(1e9, 1e-5) == 0.0
    assert gaussian_delta(math.inf, 0.0) == 0.0
    assert gaussian_epsilon(1e-3, 1e-5) > 1e5                   # no overflow of e^epsilon


def test_delta_is_what_an_attacker_sees():
    """Monte Carlo: E[max(0, 1 - e^(eps - loss))] over the privacy loss of a release (Balle & Wang 2018, section 3)."""
    sigma, epsilon = 1.2, 0.7
    x = stream(4, "loss").normal(1.0, sigma, 2_000_000)
    loss = (2 * x - 1) / (2 * sigma**2)
    estimate = np.maximum(0, -np.expm1(epsilon - loss)).mean()
    assert gaussian_delta(sigma, epsilon) == pytest.approx(estimate, rel=0.005)


@pytest.mark.parametrize(
    ("epsilon", "delta", "sensitivity"),
    [
        (0.0, 1e-5, 1.0), (-1.0, 1e-5, 1.0), (math.nan, 1e-5, 1.0), (math.inf, 1e-5, 1.0), (0.5, 0.0, 1.0),
        (0.5, 1.0, 1.0), (0.5, math.nan, 1.0), (0.5, 1e-5, 0.0), (0.5, 1e-5, -1.0), (0.5, 1e-5, math.nan),
    ],
)  # fmt: skip
def test_calibration_refuses_bad_numbers(epsilon, delta, sensitivity):
    for calibrate in (gaussian_sigma, gaussian_sigma_classic):
        with pytest.raises(ValueError, match="must"):
            calibrate(epsilon, delta, sensitivity)
    if delta == 1e-5:
        with pytest.raises(ValueError, match="must"):
            laplace_scale(epsilon, sensitivity)


def test_laplace_scale_is_a_ratio_bound():
    scale = laplace_scale(0.5, 3.0)
    assert scale == 6.0
    x = np.linspace(-40, 40, 2001)
    assert np.max(np.abs(np.abs(x - 3) - np.abs(x)) / scale) == pytest.approx(0.5)  # the largest privacy loss


def test_noise_is_shared_between_two_releases():
    assert joint_noise_multiplier(2.0) == 2.0
    assert joint_noise_multiplier(2.0, 2.0, 2.0, 2.0) == pytest.approx(1.0)
    assert joint_noise_multiplier(1.0, 0.0) == 0.0
    assert joint_noise_multiplier(math.inf, 3.0) == pytest.approx(3.0)
    assert joint_noise_multiplier(remaining_noise_multiplier(1.1, 20.0), 20.0) == pytest.approx(1.1)
    with pytest.raises(ValueError, match="costs more"):
        remaining_noise_multiplier(1.0, 0.9)
    for bad in ((), (-1.0,), (math.nan,)):
        with pytest.raises(ValueError, match="noise multipliers"):
            joint_noise_multiplier(*bad)


# --- samplers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rng", [stream(5, "noise"), SecureGenerator(bytes(range(32)))], ids=["numpy", "aes"])
def test_measured_deviation_and_shape_of_the_noise(rng):
    gaussian, laplace = gaussian_noise(200_000, 2.5, rng), laplace_noise(200_000, 2.5, rng)
    assert gaussian.std() == pytest.approx(2.5, rel=0.01)
    assert laplace.std() == pytest.approx(2.5 * math.sqrt(2), rel=0.015)
    assert abs(gaussian.mean()) < 0.03
    assert abs(laplace.mean()) < 0.04
    assert kstest(gaussian[:20_000] / 2.5, "norm").pvalue > 1e-4
    assert kstest(laplace[:20_000] / 2.5, "laplace").pvalue > 1e-4
    assert gaussian.dtype == laplace.dtype == np.float64
    assert abs(np.corrcoef(gaussian[:-1], gaussian[1:])[0, 1]) < 0.012


def test_zero_noise_is_zero_and_bad_noise_is_refused():
    assert not gaussian_noise((2, 3), 0.0, stream(0, "z")).any()
    assert gaussian_noise((2, 3), 0.0, stream(0, "z")).shape == (2, 3)
    assert not laplace_noise(4, 0.0, secure_generator()).any()
    for bad in (-1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="sigma"):
            gaussian_noise(3, bad, stream(0, "z"))
        with pytest.raises(ValueError, match="scale"):
            laplace_noise(3, bad, stream(0, "z"))


def test_secure_generator():
    key = bytes(range(32))
    same = [SecureGenerator(key, "round", 3).standard_normal(8).tobytes() for _ in range(2)]
    assert same[0] == same[1]
    others = [SecureGenerator(key, "round", 4), SecureGenerator(key), SecureGenerator(bytes(32), "round", 3)]
    others += [secure_generator(), secure_generator()]
    draws = [same[0], *(other.standard_normal(8).tobytes() for other in others)]
    assert len(set(draws)) == len(draws)
    generator = SecureGenerator(key)
    assert generator.standard_normal().shape == ()
    assert generator.random((2, 5)).shape == (2, 5)
    uniform = generator.random(100_000)
    assert 0 <= uniform.min() < 1e-3
    assert 1 - 1e-3 < uniform.max() < 1
    assert kstest(uniform, "uniform").pvalue > 1e-4
    assert generator.normal(5.0, 0.1, 1000).mean() == pytest.approx(5.0, abs=0.02)
    for bad in (b"short", "0" * 32):
        with pytest.raises(ValueError, match="32 bytes"):
            SecureGenerator(bad)


def test_secure_generator_is_not_moved_by_global_seeds():
    np.random.seed(0)                                           # noqa: NPY002
    first = secure_generator().standard_normal(4)
    np.random.seed(0)                                           # noqa: NPY002
    assert (secure_generator().standard_normal(4) != first).all()


def test_halves_never_reach_the_ends():
    """All-zero and all-one keystream blocks are the extremes of the inverse-Φ sampler: finite and symmetric."""

    class Extremes(SecureGenerator):
        def bits(self, size=()):
            return np.array([0, 1, 2**64 - 1, 2**64 - 2], dtype=np.uint64)

    normal, laplace = Extremes().standard_normal(4), Extremes().laplace(size=4)
    assert np.isfinite(normal).all()
    assert np.isfinite(laplace).all()
    assert normal[0] == -normal[1] == pytest.approx(8.29, abs=0.02)
    assert laplace[0] == -laplace[1] == pytest.approx(52 * math.log(2) + math.log(2), abs=1e-9)


# --- the tree ------------------------------------------------------------------------------------------------------


def test_nodes_cover_each_prefix_exactly_once():
    for steps in range(1, 70):
        covered = [step for level, index in tree_nodes(steps) for step in range(index << level, (index + 1) << level)]
        assert sorted(covered) == list(range(steps))
        assert len(tree_nodes(steps)) == steps.bit_count() <= math.log2(steps) + 1
    assert tree_nodes(0) == []
    assert tree_nodes(6) == [(2, 0), (1, 2)]
    for bad in (-1, 2.5):
        with pytest.raises(ValueError, match="steps"):
            tree_nodes(bad)


def test_a_step_is_in_as_many_nodes_as_the_price_says():
    """Count, over all prefixes, the nodes that hold one step: at most floor(log2 T) + 1, and step 1 has them all."""
    for steps in (1, 2, 3, 7, 8, 100):
        nodes = {node for prefix in range(1, steps + 1) for node in tree_nodes(prefix)}
        holders = [sum(step >> level == index for level, index in nodes) for step in range(steps)]
        assert max(holders) == holders[0] == steps.bit_length()


def test_tree_noise_equals_explicit_nodes_and_has_its_variance():
    source = seeded_nodes(7)
    explicit = source(2, 0).standard_normal(5) + source(1, 2).standard_normal(5)
    assert tree_noise(6, 5, 1.5, source) == pytest.approx(1.5 * explicit)
    assert (tree_noise(6, 5, 1.5, seeded_nodes(7)) == tree_noise(6, 5, 1.5, source)).all()
    for steps in (1, 7, 64):
        assert tree_noise(steps, 100_000, 2.0, source).var() == pytest.approx(tree_variance(steps, 2.0), rel=0.03)
    assert tree_variance(7, 2.0) == 12.0
    assert not tree_noise(0, 3, 2.0, source).any()
    one, two = next_keys(next_keys([], 1), 2), next_keys(next_keys([], 1), 2)
    assert (tree_noise(2, 4, 1.0, secret_nodes(one, 2)) == tree_noise(2, 4, 1.0, secret_nodes(one, 2))).all()
    assert (tree_noise(2, 4, 1.0, secret_nodes(one, 2)) != tree_noise(2, 4, 1.0, secret_nodes(two, 2))).all()


def test_keys_of_nodes_that_stay_stay_and_one_is_new_in_every_step():
    keys, seen = [], set()
    for step in range(1, 70):
        before, nodes = dict(zip(tree_nodes(step - 1), keys, strict=True)), tree_nodes(step)
        keys = next_keys(keys, step)
        after = dict(zip(nodes, keys, strict=True))
        assert {node: key for node, key in after.items() if node in before} == {n: before[n] for n in nodes if n in before}
        assert [key in seen for node, key in after.items() if node not in before] == [False]
        seen |= set(keys)


# --- the warning ---------------------------------------------------------------------------------------------------


def test_floating_point_noise_has_holes():
    rng = stream(8, "porous")
    assert impossible_outputs(0.0, 0.0, 2000, rng) == 0.0       # the search itself misses nothing
    assert impossible_outputs(0.25, 0.25, 2000, rng, scale=3.0) == 0.0
    assert impossible_outputs(0.0, 1.0, 2000, rng) > 0.3        # real Laplace noise: exactly 0
