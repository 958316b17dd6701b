"""Lower bounds on epsilon: attack the mechanism and see what the promise would have forbidden.

An accountant proves "at most"; an audit measures "at least". A measured bound *above* the claimed epsilon is a bug,
somewhere (Tramèr et al. 2022 found noise that was too small by the batch size). A bound below it proves little: each
audit says what it can see.

    two worlds      the mechanism thousands of times, with and without a canary     a noise deficit of 10 %, if Gaussian
    direct          the deviation of the noise itself, on an input of zeros         a noise deficit of 3 %
    one run         many canaries in a single training run (Steinke et al. 2023)    a noise deficit of a factor of 4
    membership      the losses of one trained model on canaries in and out          no privacy at all
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import beta, binom, chi2, norm, rankdata

from ..core import whole
from .mechanisms import between, bisect, gaussian_epsilon


def clopper_pearson(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """(low, high) for a probability seen `successes` times in `trials`: exact, (1 - confidence)/2 on each side."""
    between("confidence", confidence)
    if trials < 1 or not 0 <= successes <= trials:
        raise ValueError(f"{successes} successes in {trials} trials: not a count")
    tail = (1 - confidence) / 2
    low = float(beta.ppf(tail, successes, trials - successes + 1)) if successes else 0.0
    high = float(beta.isf(tail, successes + 1, trials - successes)) if successes < trials else 1.0
    return low, high


# --- two worlds ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TwoWorlds:
    """What the releases with and without the canary prove, at the audit's confidence."""

    epsilon: float                                              # lower bound, whatever the mechanism is
    gaussian_epsilon: float                                     # lower bound if the noise is Gaussian: much sharper
    mu: float                                                   # lower bound on shift / deviation behind it
    delta: float
    gaussian: bool = False                                      # whether Gaussian noise was declared: else that bound is idle

    def contradicts(self, claimed_epsilon: float) -> bool:
        """Whether the mechanism cannot have the (epsilon, delta) that it claims."""
        if not claimed_epsilon >= 0:
            raise ValueError(f"the claimed epsilon must be 0 or more, not {claimed_epsilon!r}")
        return (max(self.epsilon, self.gaussian_epsilon) if self.gaussian else self.epsilon) > claimed_epsilon


def audit_two_worlds(
    mechanism: Callable[[bool, int], Any],
    canary: Any,
    trials: int = 4000,
    delta: float = 1e-5,
    confidence: float = 0.9995,
    gaussian: bool = False,
) -> TwoWorlds:
    """Run `mechanism(present, trial)` -> (d,) `trials` times with and `trials` times without the canary client.

    `canary` (d,) is the direction in which the canary pushes. Its update should be far too long, 1000 clip bounds, so
    that a missing clip shows. `trial` is a number that never repeats: name the noise after it.

    Two bounds come back. `epsilon` holds for any mechanism: a threshold chosen on one half of the trials, its error rates
    bounded on the other by Clopper and Pearson. It can never show more than about ln(trials / 10). `gaussian_epsilon` is
    the shift over the deviation of the scores, and sees a deficit of 10 % in 20,000 trials. It holds only if the scores of
    both worlds are Gaussian with one deviation, which the mechanism must declare: gaussian=True. Laplace noise, coins or a
    cohort drawn by chance have other tails, and a correct mechanism of theirs would stand convicted. Declared, each of the
    two bounds gets half of the error.
    """
    between("delta", delta)
    between("confidence", confidence)
    if whole(trials, "trials") < 20:
        raise ValueError(f"trials must be 20 or more, not {trials}")
    direction = np.asarray(canary, dtype=np.float64).ravel()
    length = float(np.linalg.norm(direction))
    if not (length > 0 and math.isfinite(length)):
        raise ValueError("the canary must be a finite vector other than zero")

    def score(present: bool, trial: int) -> float:
        released = np.asarray(mechanism(present, trial), dtype=np.float64).ravel()
        if released.shape != direction.shape or not np.isfinite(released).all():
            raise ValueError(f"the mechanism must release {direction.size} finite numbers, as many as the canary has; "
                             f"in trial {trial} it released {released.size}, {np.isfinite(released).sum()} of them finite")
        return float(released @ direction) / length

    without = np.array([score(False, trial) for trial in range(trials)])
    present = np.array([score(True, trial) for trial in range(trials, 2 * trials)])
    each = (1 + confidence) / 2 if gaussian else confidence
    mu = mu_lower_bound(present, without, each)
    bound = epsilon_lower_bound(present, without, delta, each)
    return TwoWorlds(bound, gaussian_epsilon(1 / mu, delta) if 0 < mu < math.inf else mu, mu, delta, bool(gaussian))


def epsilon_lower_bound(present: np.ndarray, without: np.ndarray, delta: float, confidence: float = 0.95) -> float:
    """A lower bound on epsilon from scores (n,) of each world that an attacker thresholds; high means "present".

    (epsilon, delta) demands  P(hit) <= e^eps P(false alarm) + delta,  and the same for the complements (Kairouz, Oh &
    Viswanath 2015). The threshold comes from the even trials and the rates from the odd ones, so that choosing it
    cannot flatter the bound. A union bound pays for reading four rates.
    """
    present, without = np.asarray(present, dtype=np.float64), np.asarray(without, dtype=np.float64)
    if np.isnan(present).any() or np.isnan(without).any():
        raise ValueError("a score is NaN, which lies on neither side of a threshold")
    shared = 1 - (1 - confidence) / 2                           # two directions, each two one-sided rates
    best = 0.0
    for hits, alarms in ((present, without), (-without, -present)):
        threshold = _best_threshold(hits[::2], alarms[::2], delta)
        hit = clopper_pearson(int(np.sum(hits[1::2] >= threshold)), len(hits[1::2]), shared)[0]
        alarm = clopper_pearson(int(np.sum(alarms[1::2] >= threshold)), len(alarms[1::2]), shared)[1]
        if hit > delta:
            best = max(best, math.log((hit - delta) / alarm))
    return best


def _best_threshold(hits: np.ndarray, alarms: np.ndarray, delta: float) -> float:
    """The threshold with the largest cautious log ratio; the added counts keep it away from the empty tails."""
    candidates = np.unique(np.concatenate([hits, alarms]))
    hit = 1 - np.searchsorted(np.sort(hits), candidates) / len(hits)
    alarm = 1 - np.searchsorted(np.sort(alarms), candidates) / len(alarms)
    cautious_hit = np.maximum(hit - 3 * np.sqrt(hit * (1 - hit) / len(hits)) - delta, 1e-12)
    cautious_alarm = alarm + 3 * np.sqrt(alarm * (1 - alarm) / len(alarms)) + 8 / len(alarms)
    return float(candidates[np.argmax(cautious_hit / cautious_alarm)])


def mu_lower_bound(present: np.ndarray, without: np.ndarray, confidence: float = 0.9995) -> float:
    """A lower bound on the mu of Gaussian DP, |shift| / deviation, from Gaussian scores (n,), (k,) of one deviation.

    Exact for every n and k: half of the error pays for the deviation (its square is a chi-squared variable), half for the
    two sides of the shift. Infinite if the scores show a shift and no noise at all.
    """
    error = 1 - between("confidence", confidence)
    n, k = len(present), len(without)
    squares = float(np.var(present)) * n + float(np.var(without)) * k
    shift = abs(float(np.mean(present) - np.mean(without)))
    if math.sqrt(squares / (n + k)) <= 1e-12 * max(shift, 1e-300):
        return math.inf if shift > 0 else 0.0
    largest = math.sqrt(squares / float(chi2.ppf(error / 2, n + k - 2)))                # the deviation is hardly above this
    return max(shift / largest - float(norm.isf(error / 4)) * math.sqrt(1 / n + 1 / k), 0.0)


# --- the noise itself ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class NoiseCheck:
    """`problems` is empty if the noise has the deviation that it should and never repeats."""

    ratio: float                                                # measured deviation / claimed deviation
    problems: tuple[str, ...]


def check_noise(releases: Any, claimed_deviation: float, tolerance: float = 0.03) -> NoiseCheck:
    """Releases (rounds, d) of a mechanism that was fed nothing but zeros, so that all one sees is noise.

    Looks at the deviation of each round, which may be off by six of its standard errors, and by `tolerance` if that is more
    (it is from d = 20,000 Gaussian coordinates on; heavier tails need more of them); at the likeness of rounds to one
    another; and at blocks that come back within a round, as they do if a generator is re-seeded for each tensor. Single
    values may come back: whole numbers and coins do. Laplace noise of scale b has the deviation b·sqrt(2).
    """
    noise = np.atleast_2d(np.asarray(releases, dtype=np.float64))
    if not (claimed_deviation > 0 and noise.shape[1] >= 100 and np.isfinite(noise).all()):
        given = f"{noise.shape} and {claimed_deviation!r}"
        raise ValueError(f"needs finite releases (rounds, d >= 100) and a deviation above 0, not {given}")
    rounds, d = noise.shape
    ratios = np.sqrt(np.mean(noise**2, axis=1)) / claimed_deviation
    problems = []
    # A deviation measured on d numbers has a relative standard error of sqrt((kurtosis - 1) / 4d); Gaussian: kurtosis 3.
    kurtosis = np.mean(noise**4) / max(float(np.mean(noise**2)) ** 2, 1e-300)
    margin = max(tolerance, 6 * math.sqrt((max(float(kurtosis), 3.0) - 1) / (4 * d)))
    if ratios.max() > 1 + margin or ratios.min() < max(1 - margin, 1 / (1 + margin)):
        problems.append(f"the deviation is {ratios[np.abs(ratios - 1).argmax()]:.3f} of what is claimed")
    unit = noise / np.maximum(np.linalg.norm(noise, axis=1, keepdims=True), 1e-300)
    likeness = np.abs(unit @ unit.T - np.eye(rounds)).max() if rounds > 1 else 0.0
    if likeness > 6 / math.sqrt(d):
        problems.append(f"two rounds have noise with a correlation of {likeness:.2f}: it is not fresh")
    repeats = max(_repeats(row) for row in noise)
    if repeats > 0.01:
        problems.append(f"{repeats:.0%} of the values within one round are repeats: tensors share their draws")
    return NoiseCheck(float(ratios.mean()), tuple(problems))


def _repeats(row: np.ndarray) -> float:
    """The share of places in (d,) where a block begins that came before, of a length that chance does not repeat.

    Two places hold one value with probability q, two blocks of w independent values agree with q^w: w is so long that
    among all d²/2 pairs of places that happens once in 10^9 rounds. Windows of twice the width are pairs of windows.
    """
    d = len(row)
    _, window, counts = np.unique(row, return_inverse=True, return_counts=True)
    q = float(np.sum(counts * (counts - 1.0))) / (d * (d - 1.0))
    width, length = 1, math.inf if q >= 1 else 0.0 if q == 0 else math.log(1e9 * d * d) / -math.log(q)
    while width < length and 2 * width <= len(row):
        _, window = np.unique(window[:-width] * (d + 1) + window[width:], return_inverse=True)
        width *= 2
    return 1 - len(np.unique(window)) / len(window) if width >= length or math.isinf(length) else 0.0


# --- one run -------------------------------------------------------------------------------------------------------


def audit_one_run(scores: Any, included: Any, guesses: int, delta: float = 1e-6, p: float = 0.05) -> float:
    """A lower bound on epsilon from a single run, right with probability 1 - p (Steinke, Nasr & Jagielski 2023).

    scores (m,)     high means "was in", one for each canary
    included (m,)   boolean: a fair coin decided for each canary, independently
    guesses         the attacker calls the `guesses`/2 highest "in", the `guesses`/2 lowest "out", and abstains else

    Weak by design: m canaries share one run and one noise. It overlooks a mechanism with half its noise, so it must not
    be sold as verification; the two audits above belong beside it.
    """
    scores, included = np.asarray(scores, dtype=np.float64), np.asarray(included, dtype=bool)
    if scores.ndim != 1 or scores.shape != included.shape or not np.isfinite(scores).all():
        raise ValueError(f"scores and included must be finite and of one length, not {scores.shape}, {included.shape}")
    if not 2 <= whole(guesses, "guesses") <= len(scores):
        raise ValueError(f"guesses must lie between 2 and the {len(scores)} canaries, not {guesses}")
    # Ties are broken by lot: whoever lists the members first must not have the order guess for the attacker.
    shuffled = np.random.Generator(np.random.Philox(key=0)).permutation(len(scores))
    scores, included = scores[shuffled], included[shuffled]
    order = np.argsort(scores, kind="stable")
    half = guesses // 2
    correct = int(included[order[-half:]].sum() + (~included[order[:half]]).sum())
    return one_run_bound(len(scores), 2 * half, correct, delta, p)


def one_run_bound(canaries: int, guesses: int, correct: int, delta: float, p: float = 0.05) -> float:
    """The largest epsilon that `correct` of `guesses` contradicts at level p."""
    between("p", p)
    if one_run_p_value(canaries, guesses, correct, 0.0, delta) >= p:
        return 0.0
    innocent = bisect(lambda epsilon: one_run_p_value(canaries, guesses, correct, epsilon, delta) >= p, tolerance=1e-9)
    return innocent * (1 - 1e-8)                                # `bisect` errs upwards; a hair below is contradicted


def one_run_p_value(canaries: int, guesses: int, correct: int, epsilon: float, delta: float) -> float:
    """How likely, at most, `correct` guesses of an (epsilon, delta)-private run come true (Steinke et al., thm 5.2).

    Under pure epsilon every guess is right with probability e^eps / (1 + e^eps) at most, as if independent. Delta adds
    2 m delta · max_i P(correct - i <= Binomial < correct) / i.
    """
    if not (0 <= correct <= guesses <= canaries and epsilon >= 0 and 0 <= delta < 1):
        raise ValueError(f"not an outcome: {correct} of {guesses} guesses, {canaries} canaries, {epsilon=}, {delta=}")
    right = 1 / (1 + math.exp(-epsilon))
    tail = float(binom.sf(correct - 1, guesses, right))
    below = np.cumsum(binom.pmf(np.arange(correct - 1, -1, -1), guesses, right))
    slope = float(np.max(below / np.arange(1, correct + 1))) if correct else 0.0
    return min(tail + 2 * canaries * delta * slope, 1.0)


# --- membership ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Membership:
    """How well a threshold on the loss tells canaries that were trained on from canaries that were not."""

    auc: float                                                  # 0.5 is a coin, 1 is every member found
    advantage: float                                            # max over thresholds of hit rate - false alarm rate
    epsilon: float                                              # lower bound by `audit_one_run`, 0 if nothing is proved


def membership_attack(
    losses_in: Any, losses_out: Any, guesses: int | None = None, delta: float = 1e-6, p: float = 0.01
) -> Membership:
    """Losses (n,) of one trained model on canaries it has seen and (k,) on canaries it has not (Yeom et al. 2018).

    Mislabelled examples make the best canaries: only memory explains a low loss on them. A fair coin must have decided
    which canary went where, or the epsilon means nothing. `guesses` is 40 % of the canaries by default, and has to be
    fixed before one looks.
    """
    inside, outside = np.asarray(losses_in, dtype=np.float64), np.asarray(losses_out, dtype=np.float64)
    if inside.ndim != 1 or outside.ndim != 1 or not len(inside) or not len(outside):
        raise ValueError(f"losses must be two vectors that are not empty, not {inside.shape} and {outside.shape}")
    scores = -np.concatenate([inside, outside])
    included = np.arange(len(scores)) < len(inside)
    ranks = rankdata(scores)                                    # ties count half: AUC is the Mann-Whitney statistic
    auc = (ranks[included].sum() - len(inside) * (len(inside) + 1) / 2) / (len(inside) * len(outside))
    thresholds = np.unique(scores)
    hit = 1 - np.searchsorted(np.sort(scores[included]), thresholds) / len(inside)
    alarm = 1 - np.searchsorted(np.sort(scores[~included]), thresholds) / len(outside)
    count = guesses if guesses is not None else max(2, 2 * (len(scores) // 5))
    bound = audit_one_run(scores, included, count, delta, p)
    return Membership(float(auc), float(np.max(hit - alarm, initial=0.0)), bound)
