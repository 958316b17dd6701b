"""The exercises of chapter 3: solutions, common mistakes and their hints. How one is written: workbook/grading/checks.py."""

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


def by_largest(update, bound):
    length = np.abs(update).max()
    return update * min(1.0, bound / length) if length > 0 else update.copy()


def by_square(update, bound):
    length = np.sum(update**2)
    return update * min(1.0, bound / length) if length > 0 else update.copy()


def thrown_away(update, bound):
    return update if np.linalg.norm(update) <= bound else np.zeros_like(update)


def to_unit_norm(update, bound):
    length = np.linalg.norm(update)
    return update / length if length > bound else update


def not_clipped(update, bound):
    return update


def the_factor(update, bound):
    length = np.linalg.norm(update)
    return min(1.0, bound / length) if length > 0 else 1.0


def in_place(update, bound):
    length = np.linalg.norm(update)
    if length > bound:
        update *= bound / length
    return update


def test_clip(fn, rng):
    for length in (3.0, 0.3, 8.0, 0.9, 1.1):
        bound = float(rng.uniform(0.5, 4))
        direction = rng.normal(size=4)
        update = direction / np.linalg.norm(direction) * length * bound
        kept = update.copy()
        tried = f"an update of L2 norm {length * bound:.3g}, bound {bound:.3g}"
        expect(fn(update, bound), clip_update(kept, bound), tried)
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


def replaced_client(epsilon, bound, d):
    return 2 * math.sqrt(d) * bound / epsilon


def epsilon_forgotten(epsilon, bound, d):
    return math.sqrt(d) * bound


def clip_forgotten(epsilon, bound, d):
    return math.sqrt(d) / epsilon


def divided_by_root(epsilon, bound, d):
    return bound / (math.sqrt(d) * epsilon)


def its_deviation(epsilon, bound, d):
    return math.sqrt(2 * d) * bound / epsilon


def its_variance(epsilon, bound, d):
    return 2 * d * bound**2 / epsilon**2


def root_of_all(epsilon, bound, d):
    return math.sqrt(d * bound) / epsilon


def split_epsilon(epsilon, bound, d):
    return math.sqrt(d) * bound / (epsilon / d)


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


def halved(delivered, delta, times=100, low=1e-3, high=1e3):
    for _ in range(times):
        middle = (low + high) / 2
        low, high = (low, middle) if delivered(middle) <= delta else (middle, high)
    return high


def exact(sigma, epsilon):
    mu = 1 / sigma
    return norm.cdf(mu / 2 - epsilon / mu) - math.exp(epsilon) * norm.cdf(-mu / 2 - epsilon / mu)


def classic(epsilon, delta):
    return math.sqrt(2 * math.log(1.25 / delta)) / epsilon


def one_tail(epsilon, delta):
    return halved(lambda sigma: norm.cdf(1 / (2 * sigma) - epsilon * sigma), delta)


def factor_forgotten(epsilon, delta):
    return halved(lambda s: norm.cdf(1 / (2 * s) - epsilon * s) - norm.cdf(-1 / (2 * s) - epsilon * s), delta)


def tails_added(epsilon, delta):
    return halved(
        lambda s: norm.cdf(1 / (2 * s) - epsilon * s) + math.exp(epsilon) * norm.cdf(-1 / (2 * s) - epsilon * s), delta
    )


def variance(epsilon, delta):
    return gaussian_sigma(epsilon, delta) ** 2


def the_mu(epsilon, delta):
    return 1 / gaussian_sigma(epsilon, delta)


def wrong_half(epsilon, delta):
    low, high = 1e-3, 1e3
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if exact(middle, epsilon) <= delta else (low, middle)
    return high


def ten_halvings(epsilon, delta):
    return halved(lambda sigma: exact(sigma, epsilon), delta, times=10)


def twenty_halvings(epsilon, delta):
    return halved(lambda sigma: exact(sigma, epsilon), delta, times=20)


def epsilon_times_mu(epsilon, delta):
    return halved(
        lambda s: norm.cdf(1 / (2 * s) - epsilon / s) - math.exp(epsilon) * norm.cdf(-1 / (2 * s) - epsilon / s), delta
    )


def draw_promise(rng):
    return float(rng.uniform(0.2, 8)), float(10 ** rng.uniform(-7, -3))


# --- 03.private_mean: what is wrong with this one? -------------------------------------------------------------------


def private_mean(updates, bound, z, m, rng):
    """updates: (n, d), those who came; m: the planned cohort; noise of deviation z·bound on the sum. Returns (d,)."""
    total = np.zeros(updates.shape[1])
    for update in updates:
        total += update * min(1.0, bound / max(np.linalg.norm(update), 1e-12))
    total += z * bound * rng.normal(size=total.shape)
    return total / m


def as_it_was(updates, bound, z, m, rng):
    mean = updates.sum(axis=0) / m
    mean = mean * min(1.0, bound / np.linalg.norm(mean))
    return mean + z * bound / m * rng.normal(size=mean.shape)


def no_clip_at_all(updates, bound, z, m, rng):
    return (updates.sum(axis=0) + z * bound * rng.normal(size=updates.shape[1])) / m


def clipped_sum(updates, bound, z, m, rng):
    total = updates.sum(axis=0)
    total = total * min(1.0, bound / np.linalg.norm(total))
    return (total + z * bound * rng.normal(size=total.shape)) / m


def noise_for_the_average(updates, bound, z, m, rng):
    mean = updates.sum(axis=0) / m
    mean = mean * min(1.0, bound / np.linalg.norm(mean))
    return mean + z * bound * rng.normal(size=mean.shape)


def noise_then_clip(updates, bound, z, m, rng):
    loud = updates + z * bound * rng.normal(size=updates.shape[1])
    return sum(u * min(1.0, bound / np.linalg.norm(u)) for u in loud) / m


def noise_then_clipped_average(updates, bound, z, m, rng):
    mean = (updates.sum(axis=0) + z * bound * rng.normal(size=updates.shape[1])) / m
    return mean * min(1.0, bound / np.linalg.norm(mean))


def realised_cohort(updates, bound, z, m, rng):
    return private_mean(updates, bound, z, len(updates), rng)


def noise_of_one(updates, bound, z, m, rng):
    clean = private_mean(updates, bound, 0.0, m, np.random.default_rng(0))
    return clean + z * bound * rng.normal(size=clean.shape)


def bound_forgotten(updates, bound, z, m, rng):
    clean = private_mean(updates, bound, 0.0, m, np.random.default_rng(0))
    return clean + z / m * rng.normal(size=clean.shape)


def noise_forgotten(updates, bound, z, m, rng):
    return private_mean(updates, bound, 0.0, m, rng)


def not_divided(updates, bound, z, m, rng):
    return m * private_mean(updates, bound, z, m, rng)


def all_one_length(updates, bound, z, m, rng):
    total = sum(update * bound / np.linalg.norm(update) for update in updates)
    return (total + z * bound * rng.normal(size=updates.shape[1])) / m


def clipped_coordinates(updates, bound, z, m, rng):
    total = np.clip(updates, -bound, bound).sum(axis=0)
    return (total + z * bound * rng.normal(size=updates.shape[1])) / m


def noise_divided_twice(updates, bound, z, m, rng):
    clean = private_mean(updates, bound, 0.0, m, np.random.default_rng(0))
    return clean + z * bound / m**2 * rng.normal(size=clean.shape)


def the_same_noise_each(updates, bound, z, m, rng):
    clean = private_mean(updates, bound, 0.0, m, np.random.default_rng(0))
    return clean + len(updates) * z * bound / m * rng.normal(size=clean.shape)


def noise_on_every_update(updates, bound, z, m, rng):
    clean = private_mean(updates, bound, 0.0, m, np.random.default_rng(0))
    return clean + (z * bound * rng.normal(size=updates.shape)).sum(axis=0) / m


def variance_for_deviation(updates, bound, z, m, rng):
    clean = private_mean(updates, bound, 0.0, m, np.random.default_rng(0))
    return clean + math.sqrt(z * bound) / m * rng.normal(size=clean.shape)


def draw_cohort(rng):
    """Updates that point one way, so that their mean is longer than the bound, and one that is short."""
    n = int(rng.integers(3, 7))
    updates = rng.normal(size=(n, 4)) * 0.5 + 3 * np.sign(rng.normal(size=4))
    updates[rng.integers(n)] *= 0.02
    noise = np.random.default_rng(int(rng.integers(2**31)))
    return updates, float(rng.uniform(0.4, 0.8)), float(rng.uniform(0.5, 2)), n + 2, noise


# --- 03.composed_epsilon ---------------------------------------------------------------------------------------------


def composed_epsilon(zs, delta):
    """zs: (T,), the noise multiplier of each round. Returns the smallest epsilon that the orders 2 … 199 prove."""
    orders = np.arange(2, 200)
    rdp = sum(orders / (2 * z**2) for z in zs)
    return float(np.min(rdp + np.log(1 / delta) / (orders - 1)))


def converted(price_at_order_one, delta, logarithm=None):
    orders = np.arange(2, 200)
    return orders * price_at_order_one + (np.log(1 / delta) if logarithm is None else logarithm) / (orders - 1)


def price(zs):
    return float(np.sum(1 / (2 * np.asarray(zs) ** 2)))


def one_round_only(zs, delta):
    return composed_epsilon(zs[:1], delta)


def last_round_only(zs, delta):
    return composed_epsilon(zs[-1:], delta)


def not_squared(zs, delta):
    return float(converted(np.sum(1 / (2 * np.asarray(zs))), delta).min())


def not_halved(zs, delta):
    return float(converted(2 * price(zs), delta).min())


def added_afterwards(zs, delta):
    return sum(composed_epsilon([z], delta) for z in zs)


def order_two(zs, delta):
    return float(converted(price(zs), delta)[0])


def mean_noise(zs, delta):
    return float(converted(len(zs) / (2 * np.mean(zs) ** 2), delta).min())


def root_of_time(zs, delta):
    return float(converted(price(zs) / math.sqrt(len(zs)), delta).min())


def root_of_epsilon(zs, delta):
    return math.sqrt(len(zs)) * composed_epsilon([float(np.mean(zs))], delta)


def delta_not_inverted(zs, delta):
    return float(converted(price(zs), delta, logarithm=np.log(delta)).min())


def divided_by_the_order(zs, delta):
    orders = np.arange(2, 200)
    return float(np.min(orders * price(zs) + np.log(1 / delta) / orders))


def conversion_forgotten(zs, delta):
    return float(2 * price(zs))


def largest_order(zs, delta):
    return float(converted(price(zs), delta).max())


def the_best_order(zs, delta):
    return int(np.arange(2, 200)[np.argmin(converted(price(zs), delta))])


def draw_rounds(rng):
    return rng.uniform(1.5, 6, size=int(rng.integers(5, 60))), float(10 ** rng.uniform(-7, -4))


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


def the_ratio(epsilon, q):
    return 1 + q * (math.exp(epsilon) - 1)


def others_forgotten(epsilon, q):
    return math.log(q * math.exp(epsilon))


def sides_swapped(epsilon, q):
    return math.log(q + (1 - q) * math.exp(epsilon))


def log_of_linear(epsilon, q):
    return math.log(1 + q * epsilon)


def decimal_log(epsilon, q):
    return math.log10(1 + q * (math.exp(epsilon) - 1))


def root_of_q(epsilon, q):
    return math.sqrt(q) * epsilon


def squared_q(epsilon, q):
    return math.log(1 + q**2 * (math.exp(epsilon) - 1))


def not_amplified(epsilon, q):
    return epsilon


def draw_sampled(rng):
    return float(rng.uniform(0.3, 4)), float(rng.uniform(0.01, 0.9))


# --- 03.audited_epsilon ----------------------------------------------------------------------------------------------


def audited_epsilon(hits, alarms, trials, delta):
    """Returns a lower bound on epsilon, 0 or more."""
    hit = beta.ppf(0.025, hits, trials - hits + 1) if hits > 0 else 0.0          # at least this, says Clopper-Pearson …
    alarm = beta.ppf(0.975, alarms + 1, trials - alarms) if alarms < trials else 1.0          # … and at most that
    return max(math.log((hit - delta) / alarm), 0.0) if hit > delta else 0.0


def ends(hits, alarms, trials, tail=0.025):
    hit = beta.ppf(tail, hits, trials - hits + 1) if hits > 0 else 0.0
    return hit, beta.ppf(1 - tail, alarms + 1, trials - alarms) if alarms < trials else 1.0


def proved(hit, alarm, delta):
    return max(math.log((hit - delta) / alarm), 0.0) if hit > delta else 0.0


def no_margins(hits, alarms, trials, delta):
    return proved(hits / trials, alarms / trials, delta)


def margins_swapped(hits, alarms, trials, delta):
    return proved(beta.ppf(0.975, hits + 1, trials - hits), beta.ppf(0.025, alarms, trials - alarms + 1), delta)


def one_sided(hits, alarms, trials, delta):
    hit, alarm = ends(hits, alarms, trials, 0.05)
    return proved(hit, alarm, delta)


def margin_of_hits_only(hits, alarms, trials, delta):
    return proved(ends(hits, alarms, trials)[0], alarms / trials, delta)


def margin_of_alarms_only(hits, alarms, trials, delta):
    return proved(hits / trials, ends(hits, alarms, trials)[1], delta)


def normal_intervals(hits, alarms, trials, delta):
    hit, alarm = hits / trials, alarms / trials
    hit -= 1.96 * math.sqrt(hit * (1 - hit) / trials)
    alarm += 1.96 * math.sqrt(alarm * (1 - alarm) / trials)
    return proved(hit, alarm, delta)


def delta_forgotten(hits, alarms, trials, delta):
    return audited_epsilon(hits, alarms, trials, 0.0)


def delta_added(hits, alarms, trials, delta):
    return audited_epsilon(hits, alarms, trials, -delta)


def delta_off_the_alarms(hits, alarms, trials, delta):
    hit, alarm = ends(hits, alarms, trials)
    return max(math.log(hit / (alarm + delta)), 0.0)


def delta_off_epsilon(hits, alarms, trials, delta):
    hit, alarm = ends(hits, alarms, trials)
    return max(math.log(hit / alarm) - delta, 0.0)


def ratio_upside_down(hits, alarms, trials, delta):
    hit, alarm = ends(hits, alarms, trials)
    return max(math.log(alarm / (hit - delta)), 0.0)


def log_forgotten(hits, alarms, trials, delta):
    hit, alarm = ends(hits, alarms, trials)
    return max((hit - delta) / alarm, 0.0)


def wrong_beta(hits, alarms, trials, delta):
    return proved(beta.ppf(0.025, hits + 1, trials - hits), beta.ppf(0.975, alarms + 1, trials - alarms), delta)


def below_zero(hits, alarms, trials, delta):
    hit, alarm = ends(hits, alarms, trials)
    return math.log((hit - delta) / alarm)


def below_delta(hits, alarms, trials, delta):
    hit, alarm = ends(hits, alarms, trials)
    return max(math.log((hit - delta) / alarm), 0.0)


def nothing_counted(hits, alarms, trials, delta):
    hit = beta.ppf(0.025, hits, trials - hits + 1)
    alarm = beta.ppf(0.975, alarms + 1, trials - alarms)
    return 0.0 if hit <= delta else max(math.log((hit - delta) / alarm), 0.0)


def draw_audit(rng):
    trials = int(rng.integers(500, 2000))
    return int(trials * rng.uniform(0.6, 0.9)), int(trials * rng.uniform(0.02, 0.2)), trials, float(rng.uniform(0.01, 0.1))


def test_audit(fn, rng):
    """Counts as they come; then those with a corner: nothing proved, a rate below delta, none and all."""
    corners = [(300, 350, 500, 0.01), (30, 2, 1000, 0.1), (0, 4, 800, 0.01), (800, 0, 800, 0.01), (50, 500, 500, 0.01)]
    for hits, alarms, trials, delta in [draw_audit(rng) for _ in range(5)] + corners:
        tried = f"hits = {hits}, alarms = {alarms}, trials = {trials}, delta = {delta:.4g}"
        expect(fn(hits, alarms, trials, delta), audited_epsilon(hits, alarms, trials, delta), tried)


# --- 03.whole_promise ------------------------------------------------------------------------------------------------


def whole_promise(epsilon, delta, rounds):
    """A round keeps (epsilon, delta). Returns the pair that `rounds` rounds keep by basic composition."""
    return rounds * epsilon, rounds * delta


def never_grows(epsilon, delta, rounds):
    return epsilon, delta


def delta_stays(epsilon, delta, rounds):
    return rounds * epsilon, delta


def epsilon_stays(epsilon, delta, rounds):
    return epsilon, rounds * delta


def root_of_rounds(epsilon, delta, rounds):
    return math.sqrt(rounds) * epsilon, math.sqrt(rounds) * delta


def root_of_rounds_epsilon(epsilon, delta, rounds):
    return math.sqrt(rounds) * epsilon, rounds * delta


def delta_multiplied(epsilon, delta, rounds):
    return rounds * epsilon, delta**rounds


def delta_as_luck(epsilon, delta, rounds):
    return rounds * epsilon, 1 - (1 - delta) ** rounds


def other_order(epsilon, delta, rounds):
    return rounds * delta, rounds * epsilon


def first_is_free(epsilon, delta, rounds):
    return (rounds - 1) * epsilon, (rounds - 1) * delta


def shared_out(epsilon, delta, rounds):
    return epsilon / rounds, delta / rounds


def only_epsilon(epsilon, delta, rounds):
    return rounds * epsilon


def as_odds(epsilon, delta, rounds):
    return math.exp(epsilon) ** min(rounds, 100), rounds * delta


def draw_plan(rng):
    return float(rng.uniform(0.1, 2)), float(10 ** rng.uniform(-5, -3.5)), int(rng.integers(20, 200))


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
            Mistake(each_coordinate, "You clip coordinate by coordinate: the norm may still be sqrt(d) times the "
                    "bound."),
            Mistake(by_l1, "That is the L1 norm, for Laplace noise. Here the L2 norm is bounded."),
            Mistake(by_largest, "You measure the largest coordinate. Measure them all together: the L2 norm."),
            Mistake(by_square, "That is the *square* of the L2 norm: take its root."),
            Mistake(thrown_away, "A long update is not an invalid one: scale it down, do not drop it."),
            Mistake(to_unit_norm, "Long updates end at norm 1. They must end at norm `bound`."),
            Mistake(not_clipped, "A long update comes out as long as it was: the factor is min(1, bound / norm)."),
            Mistake(the_factor, "That is the factor. Return the update, times it."),
            Mistake(in_place, "You change the array that was handed in (`*=`). Make a new one."),
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
            Mistake(l2_sensitivity, "That uses the L2 bound as if it were an L1 bound: too little noise by a factor "
                    "of sqrt(d)."),
            Mistake(d_times, "Too careful: if every coordinate were as large as the bound, the L2 norm would be too."),
            Mistake(upside_down, "A stronger promise (smaller epsilon) needs more noise: divide by epsilon."),
            Mistake(replaced_client, "A factor 2: that is for a client who is replaced. Here a client is in or out."),
            Mistake(epsilon_forgotten, "That is the L1 sensitivity. The scale is the sensitivity divided by epsilon."),
            Mistake(clip_forgotten, "The clip bound is missing: whoever may send twice as much needs twice the noise."),
            Mistake(divided_by_root, "The L1 norm is *larger* than the L2 norm, by up to sqrt(d): multiply."),
            Mistake(its_deviation, "That is the standard deviation, b·sqrt(2). Return the scale b."),
            Mistake(its_variance, "That is the variance, 2·b². Return the scale b."),
            Mistake(root_of_all, "The root is of d only; the bound stands outside it."),
            Mistake(split_epsilon, "You share epsilon among the coordinates *and* take sqrt(d): the L1 norm already "
                    "adds them up."),
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
            Mistake(classic, "That is the classic formula, proved for epsilon <= 1 only and wasteful. Bisect the "
                    "exact one."),
            Mistake(one_tail, "The second term, e^eps·Φ(-mu/2 - eps/mu), is missing: this adds more noise than "
                    "needed."),
            Mistake(factor_forgotten, "The factor e^eps before the second Φ is missing."),
            Mistake(tails_added, "The second term is taken *off*: minus e^eps·Φ(…)."),
            Mistake(variance, "That is the variance. Return sigma, the standard deviation."),
            Mistake(the_mu, "That is mu = 1/sigma. Return sigma."),
            Mistake(wrong_half, "The search ran to the end of its range. A middle that is enough becomes the new *upper* end; if "
                    "that is so, look at the signs inside Φ."),
            Mistake(ten_halvings, "Ten halvings of a range of 1,000 leave an error of 1. Halve more often: 50 times "
                    "or more."),
            Mistake(twenty_halvings, "Too few halvings: 20 leave an error of 0.001 in a range of 1,000. Take 50 or "
                    "more."),
            Mistake(epsilon_times_mu, "eps/mu is eps·sigma, not eps/sigma: mu = 1/sigma."),
        ),
    ),
    Exercise(
        name="03.private_mean",
        title="What is wrong with this one? Clip, add up, noise, divide",
        difficulty=2,
        minutes=20,
        test=agrees_with(private_mean, draw_cohort),
        hints=(
            "The noise is what it should be. So look at how far one client can move the sum: what bounds it?",
            "Clip each update, one by one, before anything is added.",
            "Noise on the sum, once: z·bound in every coordinate, `rng.normal(size=d)`. Then divide by the public m.",
        ),
        solution=private_mean,
        mistakes=(
            Mistake(as_it_was, "You clip the average, as it was: one client who shouts still sets its direction. Clip "
                    "every update."),
            Mistake(no_clip_at_all, "Nothing is clipped now, so one client can move the sum without limit. Clip every "
                    "update."),
            Mistake(clipped_sum, "You clip the *sum*: then one client can turn it around, and the others count for "
                    "nothing. Clip each."),
            Mistake(noise_for_the_average, "Still the average is clipped. m times the noise would hide a client, and "
                    "all else: clip each."),
            Mistake(noise_then_clip, "Clipping after the noise cuts the noise away with the rest. Clip first."),
            Mistake(noise_then_clipped_average, "Noise, then a clip of the average: the clip cuts the noise away. "
                    "Clip each update, first."),
            Mistake(realised_cohort, "How many came is private, too: divide by the public m."),
            Mistake(noise_of_one, "The noise belongs on the sum, before dividing by m."),
            Mistake(bound_forgotten, "The noise must be measured in clip bounds: its deviation is z·bound."),
            Mistake(noise_forgotten, "Clipped rightly, but there is no noise any more."),
            Mistake(not_divided, "That is the noisy sum. Divide it by m."),
            Mistake(all_one_length, "Short updates are stretched to the bound. min(1, bound / norm)."),
            Mistake(clipped_coordinates, "You clip coordinate by coordinate. Clip the L2 norm of each update."),
            Mistake(noise_divided_twice, "The noise is divided by m twice. On the sum it is z·bound."),
            Mistake(noise_on_every_update, "Every update gets its own noise: that is *local* DP. Here the server adds it to the sum, once."),
            Mistake(variance_for_deviation, "The *deviation* of the noise is z·bound, not its variance: no root."),
            Mistake(the_same_noise_each, "The noise is added once for each client. It goes on the sum, once."),
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
            Mistake(one_round_only, "Only the first round is counted: a printed epsilon that never grows is the "
                    "classic bug."),
            Mistake(last_round_only, "Only the last round is counted. Add up the prices of all of them."),
            Mistake(not_squared, "The price falls with the *square* of the noise multiplier."),
            Mistake(not_halved, "A factor 2: a round costs alpha / (2 z²)."),
            Mistake(added_afterwards, "Valid, but wasteful: add the Rényi prices first and convert once, at the end."),
            Mistake(order_two, "One order is not enough: each is valid, so take the smallest over alpha = 2 … 199."),
            Mistake(mean_noise, "The mean of the noise multipliers is not what adds up: the prices 1/(2 z²) are. "
                    "Little noise costs much."),
            Mistake(root_of_time, "Rényi prices add, they do not grow like sqrt(T)."),
            Mistake(root_of_epsilon, "sqrt(T) times the epsilon of a round is no theorem. Add the Rényi prices, then "
                    "convert."),
            Mistake(delta_not_inverted, "The sign of the logarithm is turned: ln(1/delta) is positive."),
            Mistake(divided_by_the_order, "Divide the logarithm by alpha - 1, not by alpha."),
            Mistake(conversion_forgotten, "That is the Rényi price at order 2. Convert it: + ln(1/delta) / (alpha - "
                    "1)."),
            Mistake(largest_order, "Each order proves a bound; the *smallest* of them is the best."),
            Mistake(the_best_order, "That is the best order. Return the epsilon that it proves."),
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
            Mistake(linear, "q·eps is an approximation for small eps, and below the truth: an accountant must not do "
                    "that."),
            Mistake(one_forgotten, "For eps = 0 the answer must be 0: with probability 1 - q the ratio is 1."),
            Mistake(q_in_front, "That is the ratio minus 1; epsilon is the logarithm of the ratio."),
            Mistake(the_ratio, "That is the ratio. Epsilon is its logarithm."),
            Mistake(others_forgotten, "With probability 1 - q the client is not there, and the ratio is 1: that part "
                    "is missing."),
            Mistake(sides_swapped, "q and 1 - q are exchanged: e^eps belongs to the coin that says yes."),
            Mistake(log_of_linear, "Use e^eps - 1 in place of eps: they agree for small eps only."),
            Mistake(decimal_log, "Epsilon is a natural logarithm: `math.log`."),
            Mistake(root_of_q, "There is no root: the ratio is a mixture, 1 - q + q·e^eps."),
            Mistake(squared_q, "q counts once: only the world with the client throws this coin."),
            Mistake(not_amplified, "That is epsilon without the coin. Being hidden must make it smaller."),
        ),
    ),
    Exercise(
        name="03.audited_epsilon",
        title="Audit a mechanism",
        difficulty=3,
        minutes=20,
        test=test_audit,
        hints=(
            "(eps, delta) demands P(hit) <= e^eps·P(alarm) + delta. Solve for eps.",
            "To be on the safe side take the lower end of the interval for hits, the upper end for alarms.",
            "`beta.ppf(0.025, k, n - k + 1)` (0 if k = 0) and `beta.ppf(0.975, k + 1, n - k)` (1 if k = n); never below 0.",
        ),
        solution=audited_epsilon,
        mistakes=(
            Mistake(no_margins, "Luck looks like a leak: use the ends of the Clopper-Pearson intervals, not the "
                    "frequencies."),
            Mistake(margins_swapped, "The margins point the wrong way: hits at least …, alarms at most …"),
            Mistake(one_sided, "One-sided: 5 % at one end. Two-sided 95 % intervals leave 2.5 % at each end."),
            Mistake(margin_of_hits_only, "The alarms were counted, too: take the upper end of their interval."),
            Mistake(margin_of_alarms_only, "The hits were counted, too: take the lower end of their interval."),
            Mistake(normal_intervals, "The ± 1.96 deviations of a normal curve are an approximation, bad for rare "
                    "alarms. Take the exact ends."),
            Mistake(delta_forgotten, "Take delta off the hits before dividing: so much was allowed."),
            Mistake(delta_added, "Delta is allowed, so it comes *off* the hits."),
            Mistake(delta_off_the_alarms, "Delta belongs to the hits: P(hit) - delta <= e^eps·P(alarm)."),
            Mistake(delta_off_epsilon, "Delta is a probability: take it off the hits, not off epsilon."),
            Mistake(ratio_upside_down, "Upside down: hits over alarms."),
            Mistake(log_forgotten, "That is e^eps. Take the logarithm."),
            Mistake(wrong_beta, "The lower end is `beta.ppf(0.025, k, n - k + 1)`; your 1 stands at the other place."),
            Mistake(below_zero, "Fewer hits than alarms prove nothing: return 0, never less."),
            Mistake(below_delta, "Where the hits may be rarer than delta there is nothing left to divide: return 0."),
            Mistake(nothing_counted, "At k = 0 or k = n the beta distribution ends (nan): the lower end is 0, the "
                    "upper end 1."),
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
            Mistake(never_grows, "That is the promise of one round. Everyone is asked again and again: the leaks add "
                    "up."),
            Mistake(delta_stays, "The deltas add up, too."),
            Mistake(epsilon_stays, "The epsilons add up, too."),
            Mistake(root_of_rounds, "sqrt(T) is the shape of *advanced* composition, with more terms. Basic "
                    "composition adds."),
            Mistake(root_of_rounds_epsilon, "sqrt(T)·eps is only a part of *advanced* composition. Basic composition "
                    "adds the epsilons."),
            Mistake(delta_multiplied, "delta grows with the rounds: every round may fail. Add, do not multiply."),
            Mistake(delta_as_luck, "Close, but not what *basic* composition says: it adds the deltas."),
            Mistake(other_order, "The pair is turned: epsilon first, then delta."),
            Mistake(first_is_free, "The first round counts, too."),
            Mistake(shared_out, "That is what a round may spend if the whole run has (epsilon, delta). The other way "
                    "round is asked."),
            Mistake(only_epsilon, "Two numbers make the promise: return the pair (epsilon, delta)."),
            Mistake(as_odds, "Those are the odds, e^(T·eps). Epsilon is their logarithm."),
        ),
    ),
)
