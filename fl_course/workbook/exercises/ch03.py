"""The exercises of chapter 3: solutions, common mistakes and their hints. How a chapter is written: workbook/grading/checks.py."""

import math

import numpy as np
from scipy.stats import beta, norm

from fl_course.workbook.grading.checks import Exercise, Mistake, agrees_with, expect

# --- 03.clip_update --------------------------------------------------------------------------------------------------


def clip_update(update, bound):
    """update: (d,); bound: the largest L2 norm allowed. Returns the clipped update (d,)."""
    length = np.linalg.norm(update)
    return update * min(1.0, bound / length) if length > 0 else update.copy()


def always_scaled(update, bound):
    length = np.linalg.norm(update)
    return update * (bound / length) if length > 0 else update.copy()


def each_coordinate(update, bound):
    return np.clip(update, -bound, bound)


def by_l1(update, bound):
    length = np.abs(update).sum()
    return update * min(1.0, bound / length) if length > 0 else update.copy()


def thrown_away(update, bound):
    return update if np.linalg.norm(update) <= bound else np.zeros_like(update)


def test_clip(fn, rng):
    for length in (0.3, 3.0, 0.9, 8.0, 1.1):
        direction = rng.normal(size=4)
        update = direction / np.linalg.norm(direction) * length
        kept = update.copy()
        expect(fn(update, 1.0), clip_update(kept, 1.0), f"an update of L2 norm {length}, bound 1")
        expect(update, kept, "the update that was handed in, afterwards: it must not change")
    expect(fn(np.zeros(4), 1.0), np.zeros(4), "an update of zeros, bound 1")


# --- 03.laplace_scale ------------------------------------------------------------------------------------------------


def laplace_scale(epsilon, bound, d):
    """Returns the scale b of the noise on each coordinate of the sum."""
    return math.sqrt(d) * bound / epsilon


def l2_sensitivity(epsilon, bound, d):
    return bound / epsilon


def d_times(epsilon, bound, d):
    return d * bound / epsilon


def upside_down(epsilon, bound, d):
    return math.sqrt(d) * bound * epsilon


def draw_laplace(rng):
    return float(rng.uniform(0.3, 3)), float(rng.uniform(0.5, 2)), int(rng.integers(5, 2000))


# --- 03.gaussian_sigma -----------------------------------------------------------------------------------------------


def gaussian_sigma(epsilon, delta):
    """Returns the smallest sigma that keeps (epsilon, delta), for every epsilon > 0."""
    def delivered(sigma):
        mu = 1 / sigma
        return norm.cdf(mu / 2 - epsilon / mu) - math.exp(epsilon) * norm.cdf(-mu / 2 - epsilon / mu)

    low, high = 1e-3, 1e3
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (low, middle) if delivered(middle) <= delta else (middle, high)
    return high


def classic(epsilon, delta):
    return math.sqrt(2 * math.log(1.25 / delta)) / epsilon


def one_tail(epsilon, delta):
    low, high = 1e-3, 1e3
    for _ in range(100):
        sigma = (low + high) / 2
        enough = norm.cdf(1 / (2 * sigma) - epsilon * sigma) <= delta
        low, high = (low, sigma) if enough else (sigma, high)
    return high


def variance(epsilon, delta):
    return gaussian_sigma(epsilon, delta) ** 2


def draw_promise(rng):
    return float(rng.uniform(0.2, 8)), float(10 ** rng.uniform(-7, -3))


# --- 03.private_mean -------------------------------------------------------------------------------------------------


def private_mean(updates, bound, z, m, rng):
    """updates: (n, d), those who came; m: the planned cohort; noise of deviation z·bound on the sum. Returns (d,)."""
    total = np.zeros(updates.shape[1])
    for update in updates:
        total += update * min(1.0, bound / np.linalg.norm(update))
    total += z * bound * rng.normal(size=total.shape)
    return total / m


def noise_then_clip(updates, bound, z, m, rng):
    loud = updates + z * bound * rng.normal(size=updates.shape[1])
    return sum(u * min(1.0, bound / np.linalg.norm(u)) for u in loud) / m


def clipped_average(updates, bound, z, m, rng):
    mean = updates.sum(axis=0) / m
    mean = mean * min(1.0, bound / np.linalg.norm(mean))
    return mean + z * bound / m * rng.normal(size=mean.shape)


def realised_cohort(updates, bound, z, m, rng):
    return private_mean(updates, bound, z, len(updates), rng)


def noise_of_one(updates, bound, z, m, rng):
    clean = private_mean(updates, bound, 0.0, m, np.random.default_rng(0))
    return clean + z * bound * rng.normal(size=clean.shape)


def bound_forgotten(updates, bound, z, m, rng):
    clean = private_mean(updates, bound, 0.0, m, np.random.default_rng(0))
    return clean + z / m * rng.normal(size=clean.shape)


def draw_cohort(rng):
    n = int(rng.integers(3, 7))
    updates = rng.normal(size=(n, 4)) * rng.uniform(0.2, 3, size=(n, 1))
    noise = np.random.default_rng(int(rng.integers(2**31)))
    return updates, float(rng.uniform(0.4, 0.8)), float(rng.uniform(0.5, 2)), n + 2, noise


# --- 03.composed_epsilon ---------------------------------------------------------------------------------------------


def composed_epsilon(z, rounds, delta):
    """Returns the smallest epsilon at this delta that the integer orders 2 … 199 can prove."""
    orders = np.arange(2, 200)
    rdp = rounds * orders / (2 * z**2)
    return float(np.min(rdp + np.log(1 / delta) / (orders - 1)))


def one_round_only(z, rounds, delta):
    return composed_epsilon(z, 1, delta)


def not_squared(z, rounds, delta):
    orders = np.arange(2, 200)
    return float(np.min(rounds * orders / (2 * z) + np.log(1 / delta) / (orders - 1)))


def added_afterwards(z, rounds, delta):
    return rounds * composed_epsilon(z, 1, delta)


def order_two(z, rounds, delta):
    return float(rounds * 2 / (2 * z**2) + np.log(1 / delta))


def draw_rounds(rng):
    return float(rng.uniform(2, 6)), int(rng.integers(5, 100)), float(10 ** rng.uniform(-7, -4))


# --- 03.amplified ----------------------------------------------------------------------------------------------------


def amplified(epsilon, q):
    """Returns the amplified epsilon."""
    return math.log(1 + q * (math.exp(epsilon) - 1))


def linear(epsilon, q):
    return q * epsilon


def one_forgotten(epsilon, q):
    return math.log(1 + q * math.exp(epsilon))


def q_in_front(epsilon, q):
    return q * (math.exp(epsilon) - 1)


def draw_sampled(rng):
    return float(rng.uniform(0.3, 4)), float(rng.uniform(0.01, 0.6))


# --- 03.audited_epsilon ----------------------------------------------------------------------------------------------


def audited_epsilon(hits, alarms, trials, delta):
    """Returns a lower bound on epsilon, 0 or more."""
    hit = beta.ppf(0.025, hits, trials - hits + 1)              # Clopper-Pearson: at least this, at most that
    alarm = beta.ppf(0.975, alarms + 1, trials - alarms)
    return max(math.log((hit - delta) / alarm), 0.0) if hit > delta else 0.0


def no_margins(hits, alarms, trials, delta):
    return max(math.log((hits / trials - delta) / (alarms / trials)), 0.0)


def margins_swapped(hits, alarms, trials, delta):
    hit, alarm = beta.ppf(0.975, hits + 1, trials - hits), beta.ppf(0.025, alarms, trials - alarms + 1)
    return max(math.log((hit - delta) / alarm), 0.0)


def delta_forgotten(hits, alarms, trials, delta):
    return audited_epsilon(hits, alarms, trials, 0.0)


def draw_audit(rng):
    trials = int(rng.integers(500, 2000))
    return int(trials * rng.uniform(0.6, 0.9)), int(trials * rng.uniform(0.02, 0.2)), trials, float(rng.uniform(0.01, 0.1))


# --- 03.whole_promise ------------------------------------------------------------------------------------------------


def whole_promise(epsilon, delta, rounds):
    """A round keeps (epsilon, delta). Returns the pair that `rounds` rounds keep by basic composition."""
    return rounds * epsilon, rounds * delta


def never_grows(epsilon, delta, rounds):
    return epsilon, delta


def delta_stays(epsilon, delta, rounds):
    return rounds * epsilon, delta


def root_of_rounds(epsilon, delta, rounds):
    return math.sqrt(rounds) * epsilon, math.sqrt(rounds) * delta


def draw_plan(rng):
    return float(rng.uniform(0.1, 2)), float(10 ** rng.uniform(-6, -4)), int(rng.integers(2, 200))


EXERCISES = (
    Exercise(
        name="03.clip_update",
        title="Clip",
        difficulty=1,
        minutes=5,
        test=test_clip,
        hints=(
            "Scaling keeps the direction; only the length changes, and only if it is too long.",
            "The factor is min(1, bound / norm) with the L2 norm of all coordinates together.",
            "`update * min(1.0, bound / np.linalg.norm(update))`, and zeros stay zeros.",
        ),
        solution=clip_update,
        mistakes=(
            Mistake(always_scaled, "Short updates are stretched to the bound. Clipping never makes an update longer."),
            Mistake(each_coordinate, "You clip coordinate by coordinate: the norm may still be sqrt(d) times the bound."),
            Mistake(by_l1, "That is the L1 norm, for Laplace noise. Here the L2 norm is bounded."),
            Mistake(thrown_away, "A long update is not an invalid one: scale it down, do not drop it."),
        ),
    ),
    Exercise(
        name="03.laplace_scale",
        title="Laplace noise for an L2 clip",
        difficulty=2,
        minutes=10,
        test=agrees_with(laplace_scale, draw_laplace),
        hints=(
            "Laplace noise needs the *L1* sensitivity: b = S1 / epsilon.",
            "What is the largest L1 norm of a vector in d dimensions whose L2 norm is `bound`? All coordinates equal.",
            "sqrt(d) · bound (Cauchy-Schwarz).",
        ),
        solution=laplace_scale,
        mistakes=(
            Mistake(l2_sensitivity, "That uses the L2 bound as if it were an L1 bound: too little noise by a factor of sqrt(d)."),
            Mistake(d_times, "Too careful: if every coordinate were as large as the bound, the L2 norm would be too."),
            Mistake(upside_down, "A stronger promise (smaller epsilon) needs more noise: divide by epsilon."),
        ),
    ),
    Exercise(
        name="03.gaussian_sigma",
        title="The exact Gaussian mechanism",
        difficulty=3,
        minutes=20,
        test=agrees_with(gaussian_sigma, draw_promise),
        hints=(
            "With mu = 1/sigma, noise sigma delivers delta = Φ(mu/2 - eps/mu) - e^eps·Φ(-mu/2 - eps/mu).",
            "The more noise, the smaller delta: bisect between a sigma that is too small and one that is large enough.",
            "Start from (0.001, 1000); 100 halvings; return the end that is large enough.",
        ),
        solution=gaussian_sigma,
        mistakes=(
            Mistake(classic, "That is the classic formula, proved for epsilon <= 1 only and wasteful. Bisect the exact one."),
            Mistake(one_tail, "The second term, e^eps·Φ(-mu/2 - eps/mu), is missing: this adds more noise than needed."),
            Mistake(variance, "That is the variance. Return sigma, the standard deviation."),
        ),
    ),
    Exercise(
        name="03.private_mean",
        title="Clip, add up, noise, divide: the order",
        difficulty=2,
        minutes=15,
        test=agrees_with(private_mean, draw_cohort),
        hints=(
            "Clip each update, one by one, before anything is added.",
            "The noise goes on the sum, once: z·bound in every coordinate, `rng.normal(size=d)`.",
            "Divide by the public m, whoever came.",
        ),
        solution=private_mean,
        mistakes=(
            Mistake(noise_then_clip, "Clipping after the noise cuts the noise away with the rest. Clip first."),
            Mistake(clipped_average, "You clip the average: one client who shouts still sets its direction. Clip every update."),
            Mistake(realised_cohort, "How many came is private, too: divide by the public m."),
            Mistake(noise_of_one, "The noise belongs on the sum, before dividing by m."),
            Mistake(bound_forgotten, "The noise must be measured in clip bounds: its deviation is z·bound."),
        ),
    ),
    Exercise(
        name="03.composed_epsilon",
        title="Many rounds, by Rényi",
        difficulty=3,
        minutes=20,
        test=agrees_with(composed_epsilon, draw_rounds),
        hints=(
            "One Gaussian round at order alpha costs alpha / (2 z²), and rounds add up order by order.",
            "Any order gives a valid epsilon: total + ln(1/delta) / (alpha - 1).",
            "Try alpha = 2, 3, …, 199 and take the smallest.",
        ),
        solution=composed_epsilon,
        mistakes=(
            Mistake(one_round_only, "Rounds are not counted: a printed epsilon that never grows is the classic bug."),
            Mistake(not_squared, "The price falls with the *square* of the noise multiplier."),
            Mistake(added_afterwards, "Valid, but wasteful: add the Rényi prices first and convert once, at the end."),
            Mistake(order_two, "One order is not enough: each is valid, so take the smallest over alpha = 2 … 199."),
        ),
    ),
    Exercise(
        name="03.amplified",
        title="Hidden in the crowd",
        difficulty=1,
        minutes=5,
        test=agrees_with(amplified, draw_sampled),
        hints=(
            "With probability 1 - q the client is not even there, and nothing depends on it.",
            "The likelihood ratio becomes 1 - q + q·e^eps.",
            "Epsilon is the logarithm of it.",
        ),
        solution=amplified,
        mistakes=(
            Mistake(linear, "q·eps is an approximation for small eps, and below the truth: an accountant must not do that."),
            Mistake(one_forgotten, "For eps = 0 the answer must be 0: with probability 1 - q the ratio is 1."),
            Mistake(q_in_front, "That is the ratio minus 1; epsilon is the logarithm of the ratio."),
        ),
    ),
    Exercise(
        name="03.audited_epsilon",
        title="Audit a mechanism",
        difficulty=3,
        minutes=20,
        test=agrees_with(audited_epsilon, draw_audit),
        hints=(
            "(eps, delta) demands P(hit) <= e^eps·P(alarm) + delta. Solve for eps.",
            "To be on the safe side take the lower end of the interval for hits, the upper end for alarms.",
            "`beta.ppf(0.025, k, n - k + 1)` and `beta.ppf(0.975, k + 1, n - k)`; never below 0.",
        ),
        solution=audited_epsilon,
        mistakes=(
            Mistake(no_margins, "Luck looks like a leak: use the ends of the Clopper-Pearson intervals, not the frequencies."),
            Mistake(margins_swapped, "The margins point the wrong way: hits at least …, alarms at most …"),
            Mistake(delta_forgotten, "Take delta off the hits before dividing: so much was allowed."),
        ),
    ),
    Exercise(
        name="03.whole_promise",
        title="What 'epsilon = 1 a round' adds up to",
        difficulty=1,
        minutes=5,
        test=agrees_with(whole_promise, draw_plan),
        hints=(
            "The simplest theorem: promises add up, both numbers.",
            "After T rounds of (epsilon, delta) each …",
            "`return rounds * epsilon, rounds * delta`",
        ),
        solution=whole_promise,
        mistakes=(
            Mistake(never_grows, "That is the promise of one round. Everyone is asked again and again: the leaks add up."),
            Mistake(delta_stays, "The deltas add up, too."),
            Mistake(root_of_rounds, "sqrt(T) is the shape of *advanced* composition, with more terms. Basic composition adds."),
        ),
    ),
)
