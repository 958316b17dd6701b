"""Chapter 3's checks: right answers written in another way pass, slips that learners make are named."""

import math

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import log_ndtr
from scipy.stats import binomtest, norm

from fl_course.privacy.accounting import RDP, Gaussian
from fl_course.workbook.grading.checks import examine, find

SEEDS = range(4)


def vectorised_clip(update, bound):
    return list(update / max(1.0, math.sqrt(sum(update**2)) / bound))


def clip_in_float32(update, bound):
    return (update * min(1.0, bound / max(np.linalg.norm(update), 1e-9))).astype(np.float32)


def sigma_by_brent(epsilon, delta):
    def too_much(sigma):
        a, b = 0.5 / sigma - epsilon * sigma, -0.5 / sigma - epsilon * sigma
        return math.exp(log_ndtr(a)) - math.exp(epsilon + log_ndtr(b)) - delta

    return brentq(too_much, 1e-2, 1e3, xtol=1e-13)


def forty_halvings(epsilon, delta):
    low, high = 0.001, 1000.0
    for _ in range(40):
        s = (low + high) / 2
        if norm.cdf(0.5 / s - epsilon * s) - np.exp(epsilon) * norm.cdf(-0.5 / s - epsilon * s) > delta:
            low = s
        else:
            high = s
    return low


def vectorised_mean(updates, bound, z, m, rng):
    factors = np.minimum(1, bound / np.linalg.norm(updates, axis=1))
    return (factors @ updates + rng.normal(0, z * bound, updates.shape[1])) / m


def mean_then_noise(updates, bound, z, m, rng):
    clipped = [u if np.linalg.norm(u) <= bound else u * bound / np.linalg.norm(u) for u in updates]
    return (sum(clipped) / m + rng.standard_normal(updates.shape[1]) * z * bound / m).tolist()


def epsilon_by_library(zs, delta):
    return RDP("classic", tuple(range(2, 200))).epsilon([Gaussian(float(z)) for z in zs], delta)


def amplified_otherwise(epsilon, q):
    return np.log1p(q * np.expm1(epsilon))


def audited_by_binomtest(hits, alarms, trials, delta):
    hit = binomtest(hits, trials).proportion_ci(0.95, "exact").low
    alarm = binomtest(alarms, trials).proportion_ci(0.95, "exact").high
    return 0 if hit <= delta or hit - delta < alarm else np.log(hit - delta) - np.log(alarm)


@pytest.mark.parametrize(("name", "answer"), [
    ("03.clip_update", vectorised_clip), ("03.clip_update", clip_in_float32),
    ("03.laplace_scale", lambda epsilon, bound, d: np.linalg.norm(np.ones(d)) * bound / epsilon),
    ("03.gaussian_sigma", sigma_by_brent), ("03.gaussian_sigma", forty_halvings),
    ("03.private_mean", vectorised_mean), ("03.private_mean", mean_then_noise),
    ("03.composed_epsilon", epsilon_by_library), ("03.amplified", amplified_otherwise),
    ("03.audited_epsilon", audited_by_binomtest),
    ("03.whole_promise", lambda epsilon, delta, rounds: [rounds * epsilon, rounds * delta]),
])  # fmt: skip
def test_a_right_answer_in_other_words_passes(name, answer):
    for seed in SEEDS:
        result = examine(find(name), answer, np.random.default_rng(seed))
        assert result.passed, result


def only_above(update, bound):
    return update / np.linalg.norm(update) if np.linalg.norm(update) > bound else update


def never_clipped(updates, bound, z, m, rng):
    return (np.sum(updates, axis=0) + rng.normal(0, z * bound, updates.shape[1])) / m


def rate_below_delta(hits, alarms, trials, delta):
    hit = binomtest(hits, trials).proportion_ci(0.95, "exact").low
    return max(0, math.log((hit - delta) / binomtest(alarms, trials).proportion_ci(0.95, "exact").high))


def root_of_rounds(zs, delta):
    return find("03.composed_epsilon").solution([np.mean(zs)], delta) * len(zs) ** 0.5


def one_sided(hits, alarms, trials, delta):
    hit = binomtest(hits, trials, alternative="greater").proportion_ci(0.95, "exact").low
    alarm = binomtest(alarms, trials, alternative="less").proportion_ci(0.95, "exact").high
    return max(0, math.log((hit - delta) / alarm))


@pytest.mark.parametrize(("name", "answer", "word"), [
    ("03.clip_update", only_above, "must end at norm `bound`"),
    ("03.clip_update", lambda update, bound: update, "comes out as long as it was"),
    ("03.laplace_scale", lambda epsilon, bound, d: 2 * bound * d**0.5 / epsilon, "in or out"),
    ("03.private_mean", never_clipped, "Nothing is clipped now"),
    ("03.composed_epsilon", root_of_rounds, "sqrt(T)"),
    ("03.audited_epsilon", one_sided, "One-sided"),
    ("03.audited_epsilon", rate_below_delta, "rarer than delta"),
    ("03.whole_promise", lambda epsilon, delta, rounds: (epsilon * rounds**0.5, delta * rounds), "advanced"),
])  # fmt: skip
def test_a_slip_gets_its_own_hint(name, answer, word):
    for seed in SEEDS:
        result = examine(find(name), answer, np.random.default_rng(seed))
        assert result.state == "fail"
        assert word in result.hint, result
