"""An audit must catch the broken mechanism and leave the correct one alone, on twenty seeds."""

import math
from statistics import NormalDist

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import binom

from fl_course.core import stream
from fl_course.privacy.accounting import GDP, PLD, Gaussian, PoissonSampled
from fl_course.privacy.auditing import (
    TwoWorlds,
    audit_one_run,
    audit_two_worlds,
    check_noise,
    clopper_pearson,
    epsilon_lower_bound,
    membership_attack,
    mu_lower_bound,
    one_run_bound,
    one_run_p_value,
)
from fl_course.privacy.mechanisms import clip, gaussian_epsilon
from fl_course.privacy.noise import gaussian_noise, laplace_noise
from fl_course.secure_aggregation import discrete_gaussian

D, Z = 8, 1.0
CANARY = np.eye(D)[0] * 1000.0                                  # a thousand clip bounds long
OTHERS = np.full((5, D), 0.1)
CLAIMED = GDP().epsilon(Gaussian(Z), 1e-5)
SEEDS = range(20)


def mechanism(seed, share=1.0, clipped=True, reused=False):
    """One round of client-level DP: clip, sum, add noise. `share` of the noise; with the usual three bugs."""

    def run(present, trial):
        rows = [*OTHERS, CANARY] if present else OTHERS
        total = np.sum([clip(row, 1.0) if clipped else row for row in rows], axis=0)
        return total + gaussian_noise(D, share * Z, stream(seed, "noise", 0 if reused else trial))

    return run


# --- two worlds ----------------------------------------------------------------------------------------------------


def test_correct_mechanism_is_not_flagged_on_twenty_seeds_and_the_audit_has_power():
    for seed in SEEDS:
        audit = audit_two_worlds(mechanism(seed), CANARY, trials=600, gaussian=True)
        assert not audit.contradicts(CLAIMED)
        assert audit.mu > 0.5 / Z                               # more than half of the truth is seen
        assert 0 < audit.epsilon < audit.gaussian_epsilon < CLAIMED


@pytest.mark.parametrize("bug", [{"share": 0.5}, {"clipped": False}, {"reused": True}], ids=str)
def test_broken_mechanism_is_flagged_on_every_seed(bug):
    for seed in SEEDS:
        assert audit_two_worlds(mechanism(seed, **bug), CANARY, trials=200, gaussian=True).contradicts(CLAIMED)


@pytest.mark.parametrize(("share", "trials"), [(0.85, 4_000), (0.9, 20_000)])
def test_a_small_deficit_is_seen_with_enough_trials(share, trials):
    """Scores drawn directly: the shift of the canary is one clip bound, along one coordinate."""
    for seed in SEEDS:
        rng = stream(seed, "deficit")
        assert mu_lower_bound(rng.normal(1, share * Z, trials), rng.normal(0, share * Z, trials)) > 1 / Z
        assert mu_lower_bound(rng.normal(1, Z, trials), rng.normal(0, Z, trials)) < 1 / Z


def test_a_tenth_too_little_noise_is_caught_by_the_whole_audit():
    assert audit_two_worlds(mechanism(0, share=0.9), CANARY, trials=20_000, gaussian=True).contradicts(CLAIMED)
    assert not audit_two_worlds(mechanism(1), CANARY, trials=20_000, gaussian=True).contradicts(CLAIMED)


def test_noise_before_clipping_is_flagged():
    """Noise first and clip after: the canary drowns the noise before the clip cuts both."""

    def wrong(present, trial):
        noisy = (CANARY if present else 0) + gaussian_noise(D, Z, stream(0, "noise", trial))
        return clip(noisy, 1.0)

    assert audit_two_worlds(wrong, CANARY, trials=400, gaussian=True).contradicts(CLAIMED)


def test_the_bound_without_assumptions_is_valid_for_laplace_noise():
    epsilon = 1.5
    for seed in SEEDS:
        rng = stream(seed, "laplace")
        present, without = 1 + laplace_noise(4000, 1 / epsilon, rng), laplace_noise(4000, 1 / epsilon, rng)
        assert 0.6 * epsilon < epsilon_lower_bound(present, without, 1e-9, 0.999) <= epsilon


def test_the_bound_without_assumptions_is_zero_for_equal_worlds():
    for seed in SEEDS:
        rng = stream(seed, "same")
        assert epsilon_lower_bound(rng.normal(size=1000), rng.normal(size=1000), 1e-5, 0.999) == 0.0


def test_mu_of_noiseless_scores():
    assert mu_lower_bound(np.ones(50), np.zeros(50)) == math.inf
    assert mu_lower_bound(np.ones(50), np.ones(50)) == 0.0


# --- whatever the noise is: a correct mechanism is left alone, one with half its noise is not ---------------------------------


def flipped(bits, lie, rng):
    """Randomized response: each bit is turned over with probability `lie` (Warner 1965)."""
    return np.where(rng.random(bits.shape) < lie, 1 - bits, bits).astype(float)


def sampled(q, z):
    """A cohort by independent coins: the canary is in it with probability q."""
    return lambda there, noise, rng: there * (rng.random(len(there)) < q) + noise * z * rng.standard_normal(len(there))


# name: (scores of worlds `there` (n,) of zeros or ones, with a share of the noise), delta, the epsilon that is proved for it
LIE = 1 / (1 + math.exp(1.0))
MECHANISMS = {
    "Gaussian": (lambda there, noise, rng: there + noise * rng.standard_normal(len(there)), 1e-2, gaussian_epsilon(1.0, 1e-2)),
    "Laplace": (lambda there, noise, rng: there + laplace_noise(len(there), noise, rng), 1e-9, 1.0),
    "steep Laplace": (lambda there, noise, rng: there + laplace_noise(len(there), noise / 2, rng), 1e-5, 2.0),
    "discrete Gaussian": (
        lambda there, noise, rng: 4 * there + discrete_gaussian(len(there), 4 * noise, rng), 1e-2, gaussian_epsilon(1.0, 1e-2)),
    "randomized response": (lambda there, noise, rng: flipped(there, LIE * noise, rng), 1e-9, 1.0),
    "subsampled Gaussian": (sampled(0.3, 1.0), 1e-2, PLD().epsilon(PoissonSampled(0.3, Gaussian(1.0)), 1e-2)),
}  # fmt: skip


def audit_of(name, seed, trials, noise=1.0, **options):
    score, delta, claimed = MECHANISMS[name]
    rng = stream(seed, "mechanism", name)
    worlds = {present: score(np.full(2 * trials, float(present)), noise, rng) for present in (False, True)}
    found = audit_two_worlds(lambda present, trial: worlds[present][trial], 1.0, trials, delta, **options)
    return found.contradicts(claimed)


@pytest.mark.parametrize("name", MECHANISMS)
def test_no_correct_mechanism_is_convicted_more_often_than_the_audit_says(name):
    assert sum(audit_of(name, seed, 200) for seed in range(200)) == 0                            # 1 in 2,000
    loose = sum(audit_of(name, seed, 100, confidence=0.9) for seed in range(200))
    assert loose <= binom.isf(1e-4, 200, 0.1)


@pytest.mark.parametrize("name", MECHANISMS)
def test_half_the_noise_is_convicted_whatever_its_shape(name):
    assert all(audit_of(name, seed, 8000, noise=0.5) for seed in range(5))


def test_the_shape_of_gaussian_noise_counts_only_where_it_is_declared():
    """Laplace noise of epsilon 2 has deviation 0.71, as a Gaussian of epsilon 6.6 has at delta = 1e-5: not its own promise."""
    assert not any(audit_of("steep Laplace", seed, 1000) for seed in range(20))
    assert all(audit_of("steep Laplace", seed, 1000, gaussian=True) for seed in range(20))       # a false declaration
    assert not any(audit_of("Gaussian", seed, 300, gaussian=True) for seed in range(200))
    assert sum(audit_of("Gaussian", seed, 300, gaussian=True, confidence=0.9) for seed in range(200)) <= binom.isf(1e-4, 200, 0.1)
    assert all(audit_of("Gaussian", seed, 300, noise=0.5, gaussian=True) for seed in range(20))


@pytest.mark.parametrize(("n", "mu"), [(10, 0.0), (10, 1.0), (10, 8.0), (300, 0.0), (300, 0.2), (300, 3.0)])
def test_the_bound_on_mu_is_below_the_truth_as_often_as_it_says(n, mu):
    """Also for ten trials, where the deviation is hardly known, and for no shift at all, which has two sides."""
    rng = stream(n, "mu", int(10 * mu))
    above = sum(mu_lower_bound(rng.normal(mu, 1, n), rng.normal(0, 1, n), 0.8) > mu for _ in range(1000))
    assert above <= binom.isf(1e-5, 1000, 0.2)
    close = [mu_lower_bound(rng.normal(mu, 1, 40_000), rng.normal(0, 1, 40_000), 0.8) for _ in range(10)]
    assert min(close) >= mu * 0.97 - 0.03
    assert mu_lower_bound(rng.normal(-3, 1, 500), rng.normal(0, 1, 500)) > 2                     # a shift to the other side


def test_a_bound_holds_at_the_confidence_that_is_asked_for():
    rng = stream(0, "confidence")
    present, without = rng.normal(1, 1, 1000), rng.normal(0, 1, 1000)
    for bound in (lambda c: mu_lower_bound(present, without, c), lambda c: epsilon_lower_bound(present, without, 1e-5, c)):
        values = [bound(c) for c in (0.5, 0.9, 0.999, 0.99999)]
        assert values == sorted(values, reverse=True)
        assert values[0] > values[-1]
    scores = {True: present, False: without}
    run = {declared: audit_two_worlds(lambda there, trial: scores[there][trial % 1000], 1.0, 1000, gaussian=declared)
           for declared in (False, True)}
    assert run[True].mu == mu_lower_bound(present, without, 0.99975) < run[False].mu == mu_lower_bound(present, without, 0.9995)
    assert run[True].epsilon == epsilon_lower_bound(present, without, 1e-5, 0.99975)
    assert run[False].epsilon == epsilon_lower_bound(present, without, 1e-5, 0.9995)


def test_the_bound_without_assumptions_by_hand():
    """Worlds that a threshold tells apart without error: all that is left is Clopper and Pearson, whose ends are powers."""
    n, confidence = 400, 0.99
    tail = (1 - confidence) / 4                                 # four rates are read, each may be wrong on one side
    low, high = tail ** (2 / n), 1 - tail ** (2 / n)            # 200 of 200, and 0 of 200: the other half chose the threshold
    for delta in (1e-5, 0.2):
        expected = math.log((low - delta) / high)
        assert epsilon_lower_bound(np.ones(n), np.zeros(n), delta, confidence) == pytest.approx(expected, rel=1e-9)
    assert epsilon_lower_bound(np.ones(n), np.ones(n), 0.999, confidence) == 0.0                # no rate above delta


def test_the_bound_without_assumptions_looks_in_both_directions():
    """Only the complement tells: without the canary half of the scores are low, with it none is."""
    present, without = np.zeros(1000), -(np.arange(1000) // 2 % 2)
    assert epsilon_lower_bound(present, without, 1e-5, 0.99) > 3
    assert epsilon_lower_bound(-without, present, 1e-5, 0.99) > 3


def test_the_threshold_is_chosen_without_a_look_at_the_trials_that_judge_it():
    """In the even trials the worlds are alike, so no threshold can be found, however the odd ones differ."""
    present, without = np.zeros(400), np.zeros(400)
    present[1::2], without[1::2] = 5.0, 1.0
    assert epsilon_lower_bound(present, without, 1e-5, 0.99) == 0.0


def test_the_bound_on_mu_by_hand():
    """Three and two scores: 3 degrees of freedom, of whose chi-squared distribution the tail is known in closed form."""
    present, without, confidence = np.array([9.0, 10.0, 11.0]), np.array([0.5, -0.5]), 0.6
    def below(x):                                               # P(chi² < x) for 3 degrees of freedom
        return math.erf(math.sqrt(x / 2)) - math.sqrt(2 * x / math.pi) * math.exp(-x / 2)
    x = brentq(lambda x: below(x) - 0.2, 1e-9, 50)
    z = -NormalDist().inv_cdf(0.1)
    assert mu_lower_bound(present, without, confidence) == pytest.approx(
        10 / math.sqrt((2 + 0.5) / x) - z * math.sqrt(1 / 3 + 1 / 2), rel=1e-9)
    assert mu_lower_bound(np.array([0.0, 1.0]), np.array([0.0, 1.1]), 0.99) == 0.0


def test_a_declared_shape_does_not_hide_what_any_mechanism_would_show():
    """Declared Gaussian, and one release in five is the bare canary: a shift that is small beside the deviation, and an event
    that never happens without it."""
    rng = stream(0, "bare")
    worlds = {present: np.where((rng.random(8000) < 0.2) & present, 40.0, 9 * rng.standard_normal(8000))
              for present in (False, True)}
    found = audit_two_worlds(lambda present, trial: worlds[present][trial], 1.0, 4000, gaussian=True)
    assert found.epsilon > found.gaussian_epsilon + 0.5
    assert found.contradicts((found.epsilon + found.gaussian_epsilon) / 2)


def test_no_trial_has_the_number_of_another():
    numbers = []
    audit_two_worlds(lambda present, trial: numbers.append(trial) or float(trial % 7), 1.0, 50)
    assert len(set(numbers)) == len(numbers) == 100


def test_an_audit_of_no_numbers_is_no_acquittal():
    """NaN is neither above nor below a threshold: counted as nothing, it would acquit whatever produced it."""
    for release in (np.nan, np.inf, [1.0, 2.0]):
        with pytest.raises(ValueError, match="1 finite numbers"):
            audit_two_worlds(lambda present, trial, release=release: release, 1.0)
    with pytest.raises(ValueError, match="NaN"):
        epsilon_lower_bound(np.array([np.nan] * 40), np.zeros(40), 1e-5)
    for claimed in (math.nan, -1.0):
        with pytest.raises(ValueError, match="claimed epsilon"):
            TwoWorlds(1.0, 1.0, 0.5, 1e-5).contradicts(claimed)


def test_clopper_pearson_by_its_definition():
    for successes, trials in ((0, 30), (3, 30), (29, 30), (30, 30)):
        low, high = clopper_pearson(successes, trials, 0.9)
        assert low == 0 if successes == 0 else binom.sf(successes - 1, trials, low) == pytest.approx(0.05)
        assert high == 1 if successes == trials else binom.cdf(successes, trials, high) == pytest.approx(0.05)
    covered = 0
    for seed in range(400):
        low, high = clopper_pearson(int(stream(seed, "cp").binomial(40, 0.2)), 40, 0.95)
        covered += low <= 0.2 <= high
    assert covered >= 0.95 * 400 - 9


# --- the noise itself ----------------------------------------------------------------------------------------------


def test_noise_check_passes_correct_noise_on_twenty_seeds():
    for seed in SEEDS:
        rounds = [gaussian_noise(20_000, 1.7, stream(seed, "noise", k)).astype(np.float32) for k in range(3)]
        check = check_noise(rounds, 1.7)
        assert check.problems == ()
        assert check.ratio == pytest.approx(1.0, abs=0.02)


def test_noise_check_names_what_is_wrong():
    fresh = stream(9, "noise").standard_normal((2, 20_000))
    for share in (0.5, 0.95, 1.05):
        assert any("deviation" in problem for problem in check_noise(share * fresh, 1.0).problems)
    assert any("not fresh" in problem for problem in check_noise(fresh[[0, 0]], 1.0).problems)
    assert any("not fresh" in problem for problem in check_noise(np.array([fresh[0], -fresh[0]]), 1.0).problems)
    likely = 0.2 * fresh[0] + math.sqrt(1 - 0.2**2) * fresh[1]   # a fifth of the old noise in the new
    assert any("not fresh" in problem for problem in check_noise(np.array([fresh[0], likely]), 1.0).problems)
    second = np.array([fresh[0], np.tile(fresh[1, :5000], 4)])
    assert any("tensors share" in problem for problem in check_noise(second, 1.0).problems)
    tiled = np.tile(fresh[0, :5000], 4)                         # one generator, re-seeded for each of four tensors
    assert any("tensors share" in problem for problem in check_noise(tiled, 1.0).problems)
    assert check_noise(np.zeros(20_000), 1.0).problems
    laplace = laplace_noise(20_000, 1.0, stream(9, "laplace"))
    assert check_noise(laplace, math.sqrt(2)).problems == ()


NOISES = {
    "Gaussian": (lambda shape, rng: rng.standard_normal(shape), 1.0),
    "Laplace": (lambda shape, rng: laplace_noise(shape, 1.0, rng), math.sqrt(2)),
    "discrete Gaussian": (lambda shape, rng: discrete_gaussian(math.prod(shape), 3.0, rng).reshape(shape), 3.0),
    "discrete Gaussian, narrow": (lambda shape, rng: discrete_gaussian(math.prod(shape), 1.0, rng).reshape(shape), 1.0),
    "coins": (lambda shape, rng: rng.choice([-1.0, 1.0], shape), 1.0),
    "rounded": (lambda shape, rng: np.round(rng.standard_normal(shape), 1), math.sqrt(1 + 0.01 / 12)),
}


@pytest.mark.parametrize("name", NOISES)
@pytest.mark.parametrize("d", [100, 1000, 20_000])
def test_noise_of_any_shape_and_size_passes_and_half_of_it_does_not(name, d):
    draw, deviation = NOISES[name]
    for seed in range(200 if d < 20_000 else 10):
        noise = draw((3, d), stream(seed, "shape", name, d))
        assert check_noise(noise, deviation).problems == ()
        assert any("deviation" in p for p in check_noise(noise / 2, deviation).problems) or (name, d) == ("Laplace", 100)
        assert any("deviation" in p for p in check_noise(2 * noise, deviation).problems)


@pytest.mark.parametrize("name", NOISES)
def test_a_block_that_comes_back_is_found_also_among_whole_numbers_and_coins(name):
    draw, deviation = NOISES[name]
    fresh = draw((1, 20_000), stream(0, "blocks", name))[0]
    for row in (np.tile(fresh[:5000], 4), np.concatenate([fresh[:19_000], fresh[:1000]]), np.tile(fresh[:200], 100)):
        assert any("tensors share" in problem for problem in check_noise(row, deviation).problems)
    assert any("tensors share" in problem for problem in check_noise(np.ones(500), 1.0).problems)


# --- one run -------------------------------------------------------------------------------------------------------


def test_one_run_figures_of_the_paper():
    """Steinke, Nasr & Jagielski 2023: v = 75 of r = m = 100 at eps = ln 3 has p = 0.553; the example of appendix D."""
    assert one_run_p_value(100, 100, 75, math.log(3), 0.0) == pytest.approx(0.553, abs=1e-3)
    assert one_run_bound(1000, 100, 75, 1e-4, 0.05) == pytest.approx(0.67298, abs=1e-4)
    assert one_run_bound(120, 120, 120, 0.0, 0.01) == pytest.approx(math.log(1 / (0.01 ** (-1 / 120) - 1)), abs=1e-6)


@pytest.mark.parametrize(("correct", "delta"), [(75, 1e-4), (90, 0.0), (60, 1e-6), (100, 1e-6)])
def test_the_bound_of_one_run_is_contradicted_and_what_is_above_it_is_not(correct, delta):
    bound = one_run_bound(1000, 100, correct, delta, 0.05)
    assert bound > 0
    below, above = (one_run_p_value(1000, 100, correct, epsilon, delta) for epsilon in (bound, bound * (1 + 1e-6)))
    assert below < 0.05 <= above


def test_one_run_p_value_by_a_loop():
    canaries, guesses, correct, epsilon, delta = 60, 30, 24, 0.4, 1e-3
    right = math.exp(epsilon) / (1 + math.exp(epsilon))
    mass = [math.comb(guesses, k) * right**k * (1 - right) ** (guesses - k) for k in range(guesses + 1)]
    worst = max(sum(mass[correct - i : correct]) / i for i in range(1, correct + 1))
    expected = sum(mass[correct:]) + 2 * canaries * delta * worst
    assert one_run_p_value(canaries, guesses, correct, epsilon, delta) == pytest.approx(expected)


def one_run_scores(seed, z, canaries=2000):
    """Orthogonal canaries of one clip bound each in one noisy sum: the attacker's score of each is included + noise."""
    rng = stream(seed, "one run")
    included = rng.random(canaries) < 0.5
    return included + z * rng.standard_normal(canaries), included


def test_one_run_audit_is_valid_and_weak():
    z, claimed = 2.0, gaussian_epsilon(2.0, 1e-6)
    bounds = [audit_one_run(*one_run_scores(seed, z), 500, 1e-6, 1e-3) for seed in SEEDS]
    assert max(bounds) <= claimed
    assert np.mean(bounds) > 0.2                                # it sees something
    half = [audit_one_run(*one_run_scores(seed, z / 2), 500, 1e-6, 1e-3) for seed in SEEDS]
    assert max(half) < claimed                                  # half the noise: not seen
    eighth = [audit_one_run(*one_run_scores(seed, z / 8), 500, 1e-6, 1e-3) for seed in SEEDS]
    assert min(eighth) > claimed


# --- membership ----------------------------------------------------------------------------------------------------


def test_membership_attack():
    rng = stream(10, "losses")
    memorised = membership_attack(rng.normal(0.1, 0.1, 150), rng.normal(6.0, 1.0, 150))
    assert memorised.auc > 0.99
    assert memorised.advantage > 0.95
    assert memorised.epsilon == pytest.approx(3.24, abs=0.01)   # 120 of 120 right at p = 0.01
    for seed in SEEDS:
        rng = stream(seed, "losses")
        private = membership_attack(rng.normal(3, 1, 150), rng.normal(3, 1, 150))
        assert 0.35 < private.auc < 0.65
        assert private.epsilon < 0.5


@pytest.mark.parametrize("members_first", [True, False])
def test_ties_are_broken_by_lot_and_not_by_the_order_of_the_list(members_first):
    included = np.arange(200) < 100
    included = included if members_first else ~included
    assert audit_one_run(np.zeros(200), included, 100, 1e-6, 0.05) == 0.0
    coins = stream(0, "ties").random(200) < 0.5
    assert audit_one_run(coins.astype(float), coins, 100, 1e-6, 0.05) > 1.0                      # scores that tell all


def test_membership_of_equal_losses_is_a_coin():
    nothing = membership_attack(np.ones(100), np.ones(100))
    assert nothing.auc == 0.5
    assert nothing.advantage == 0.0
    assert nothing.epsilon == 0.0
    assert membership_attack([0.0, 1.0], [0.5, 2.0]).auc == 0.75
    assert membership_attack([0.0, 1.0], [0.5, 2.0]).advantage == 0.5


@pytest.mark.parametrize(
    "build",
    [
        lambda: clopper_pearson(3, 2), lambda: clopper_pearson(0, 0), lambda: clopper_pearson(1, 2, 1.0),
        lambda: audit_two_worlds(mechanism(0), np.zeros(D)), lambda: audit_two_worlds(mechanism(0), CANARY, trials=3),
        lambda: audit_two_worlds(mechanism(0), CANARY, delta=0.0), lambda: check_noise(np.zeros(5), 1.0),
        lambda: check_noise(np.full(500, np.nan), 1.0), lambda: check_noise(np.ones(500), 0.0),
        lambda: audit_one_run([1.0, np.nan], [True, False], 2), lambda: audit_one_run([1.0], [True, False], 2),
        lambda: audit_one_run([1.0, 2.0], [True, False], 3), lambda: audit_one_run([1.0, 2.0], [True, False], 2, p=0.0),
        lambda: one_run_p_value(10, 5, 6, 1.0, 0.0), lambda: membership_attack([], [1.0]),
        lambda: membership_attack([math.inf, 1.0], [1.0]),
    ],
)  # fmt: skip
def test_bad_inputs_are_refused(build):
    with pytest.raises(ValueError, match=r".{10}"):
        build()
