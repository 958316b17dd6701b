"""The exercises of chapter 9: solutions, common mistakes and their hints. How one is written: workbook/grading/checks.py."""

from functools import partial

import numpy as np

from fl_course.workbook.grading.checks import Exercise, Mistake, Wrong, agrees_with, expect
from fl_course.workbook.grading.compare import short

# --- 09.coordinate_median --------------------------------------------------------------------------------------------


def coordinate_median(updates):
    """updates: (n, d), one row a client. Returns (d,), the median of each coordinate."""
    n, ordered = len(updates), np.sort(updates, axis=0)
    return (ordered[(n - 1) // 2] + ordered[n // 2]) / 2


def lower_middle(updates):
    return np.sort(updates, axis=0)[(len(updates) - 1) // 2]


def upper_middle(updates):
    return np.sort(updates, axis=0)[len(updates) // 2]


def median_of_rows(updates):
    return np.median(updates, axis=1)


def one_median(updates):
    return np.median(updates)


def plain_mean(updates):
    return np.mean(updates, axis=0)


def unsorted_middle(updates):
    n = len(updates)
    return (updates[(n - 1) // 2] + updates[n // 2]) / 2


def middle_by_length(updates):
    n, ordered = len(updates), updates[np.argsort(np.linalg.norm(updates, axis=1))]
    return (ordered[(n - 1) // 2] + ordered[n // 2]) / 2


def without_extremes(updates):
    return np.sort(updates, axis=0)[1:-1].mean(axis=0)


def rows_sorted(updates):
    n, ordered = len(updates), np.sort(updates, axis=1)
    return (ordered[(n - 1) // 2] + ordered[n // 2]) / 2


def middle_added(updates):
    n, ordered = len(updates), np.sort(updates, axis=0)
    return ordered[(n - 1) // 2] + ordered[n // 2]


def sorted_in_place(updates):
    updates.sort(axis=0)
    return coordinate_median(updates)


def middle_of_range(updates):
    return (updates.min(axis=0) + updates.max(axis=0)) / 2


def draw_median(rng, n):
    updates = rng.exponential(size=(n, 3)) * rng.choice([-1, 1], 3)
    updates[[0, 1]] *= np.array([[0.01], [20.0]])                  # neither the order in which they stand nor that of their
    updates[[(n - 1) // 2, n // 2]] *= np.array([[0.2], [6.0]])    # lengths will do, only each coordinate's own
    return (updates,)


def test_median(fn, rng):
    for n in (6, 7, 8, 5):
        agrees_with(coordinate_median, partial(draw_median, n=n), 1)(fn, rng)


# --- 09.krum_scores --------------------------------------------------------------------------------------------------


def krum_scores(updates, f):
    """updates: (n, d); f: how many of the n may be attackers, n >= 2f + 3. Returns (n,), the lower the better."""
    n = len(updates)
    squared = ((updates[:, None] - updates[None]) ** 2).sum(axis=2)
    np.fill_diagonal(squared, np.inf)                            # nobody is his own neighbour
    return np.sort(squared, axis=1)[:, : n - f - 2].sum(axis=1)


def distances(updates):
    return ((updates[:, None] - updates[None]) ** 2).sum(axis=2)


def one_neighbour_more(updates, f):
    return np.sort(distances(updates), axis=1)[:, 1 : len(updates) - f].sum(axis=1)


def own_neighbour(updates, f):
    return np.sort(distances(updates), axis=1)[:, : len(updates) - f - 2].sum(axis=1)


def not_squared(updates, f):
    return np.sort(np.sqrt(distances(updates)), axis=1)[:, 1 : len(updates) - f - 1].sum(axis=1)


def squared_twice(updates, f):
    return np.sort(distances(updates) ** 2, axis=1)[:, 1 : len(updates) - f - 1].sum(axis=1)


def root_of_score(updates, f):
    return np.sqrt(krum_scores(updates, f))


def farthest(updates, f):
    return -np.sort(-distances(updates), axis=1)[:, : len(updates) - f - 2].sum(axis=1)


def everybody(updates, f):
    return distances(updates).sum(axis=1)


def mean_of_neighbours(updates, f):
    return krum_scores(updates, f) / (len(updates) - f - 2)


def the_best(updates, f):
    return int(np.argmin(krum_scores(updates, f)))


def the_best_update(updates, f):
    return updates[np.argmin(krum_scores(updates, f))]


def nearest_f(updates, f):
    return np.sort(distances(updates), axis=1)[:, 1 : f + 1].sum(axis=1)


def to_the_mean(updates, f):
    return ((updates - updates.mean(axis=0)) ** 2).sum(axis=1)


def two_f_left_out(updates, f):
    return np.sort(distances(updates), axis=1)[:, 1 : len(updates) - 2 * f - 1].sum(axis=1)


def absolute(updates, f):
    apart = np.abs(updates[:, None] - updates[None]).sum(axis=2)
    return np.sort(apart, axis=1)[:, 1 : len(updates) - f - 1].sum(axis=1)


def turned_round(updates, f):
    return -krum_scores(updates, f)


def draw_krum(rng):
    f = int(rng.choice([2, 4]))
    return rng.normal(size=(2 * f + 5, 4)) * 0.7, f


def draw_krum_at_the_limit(rng):
    return rng.normal(size=(5, 4)) * 0.7, 1


def test_krum(fn, rng):
    agrees_with(krum_scores, draw_krum, 3)(fn, rng)
    agrees_with(krum_scores, draw_krum_at_the_limit, 1)(fn, rng)


# --- 09.breakdown_point ----------------------------------------------------------------------------------------------


def breakdown_point(rule, updates, far):
    """rule: from (n, d) to (d,); updates: (n, d), all honest; far: (d,), what an attacker sends. Returns a whole number."""
    honest = rule(updates)
    for f in range(1, len(updates) + 1):
        attacked = updates.copy()
        attacked[:f] = far
        if np.linalg.norm(rule(attacked) - honest) > 1000:
            return f


def most_that_are_borne(rule, updates, far):
    return breakdown_point(rule, updates, far) - 1


def as_a_share(rule, updates, far):
    return breakdown_point(rule, updates, far) / len(updates)


def attackers_added(rule, updates, far):
    for f in range(1, 10 * len(updates)):
        if np.linalg.norm(rule(np.vstack([updates, np.tile(far, (f, 1))])) - rule(updates)) > 1000:
            return f


def one_at_a_time(rule, updates, far):
    for f in range(1, len(updates) + 1):
        attacked = updates.copy()
        attacked[f - 1] = far
        if np.linalg.norm(rule(attacked) - rule(updates)) > 1000:
            return f


def any_move(rule, updates, far):
    for f in range(1, len(updates) + 1):
        attacked = updates.copy()
        attacked[:f] = far
        if not np.allclose(rule(attacked), rule(updates)):
            return f


def one_side_only(rule, updates, far):
    for f in range(1, len(updates) + 1):
        attacked = updates.copy()
        attacked[:f] = far
        if (rule(attacked) - rule(updates)).sum() > 1000:
            return f


def honest_spoilt(rule, updates, far):
    honest = rule(updates)
    for f in range(1, len(updates) + 1):
        updates[:f] = far
        if np.linalg.norm(rule(updates) - honest) > 1000:
            return f


def compared_with_itself(rule, updates, far):
    for f in range(1, len(updates) + 1):
        updates[f - 1] = far
        if np.linalg.norm(rule(updates) - rule(updates)) > 1000:
            return f


def always_half(rule, updates, far):
    return (len(updates) + 1) // 2


def more_than_half(rule, updates, far):
    return len(updates) // 2 + 1


def in_steps_of_two(rule, updates, far):
    for f in range(2, len(updates) + 1, 2):
        attacked = updates.copy()
        attacked[:f] = far
        if np.linalg.norm(rule(attacked) - rule(updates)) > 1000:
            return f


def mean_of(updates):
    return updates.mean(axis=0)


def median_of(updates):
    return np.median(updates, axis=0)


def trimmed_by_two(updates):
    return np.sort(updates, axis=0)[2:-2].mean(axis=0)


def second_shortest(updates):
    return updates[np.argsort(np.linalg.norm(updates, axis=1))[1]]


def test_breakdown(fn, rng):
    for n, rule in ((10, mean_of), (10, trimmed_by_two), (9, median_of), (8, median_of), (7, second_shortest)):
        updates, far = rng.normal(size=(n, 3)), rng.choice([-1e6, -1e5], size=3)
        kept, want = updates.copy(), breakdown_point(rule, updates, far)
        expect(fn(rule, updates, far.copy()), want, f"rule = {rule.__name__}, n = {n}, far = {short(far)}")
        if not np.array_equal(updates, kept):
            raise Wrong(f"tried rule = {rule.__name__}, n = {n}: the answer is right, but `updates` was changed in place")


# --- 09.bounded_mean -------------------------------------------------------------------------------------------------


def bounded_mean(updates):
    """updates: (n, d). Returns (d,): the mean, when no update may be longer than the median length of all n."""
    lengths = np.linalg.norm(updates, axis=1)
    bound = np.median(lengths)
    factors = np.minimum(1, bound / np.maximum(lengths, 1e-12))      # an update of length 0 stays what it is
    return (factors[:, None] * updates).mean(axis=0)


def all_of_one_length(updates):
    lengths = np.linalg.norm(updates, axis=1)
    return (np.median(lengths) / np.maximum(lengths, 1e-12) * updates.T).T.mean(axis=0)


def bounded_by_mean(updates):
    lengths = np.linalg.norm(updates, axis=1)
    return (np.minimum(1, lengths.mean() / np.maximum(lengths, 1e-12)) * updates.T).T.mean(axis=0)


def bounded_by_shortest(updates):
    lengths = np.linalg.norm(updates, axis=1)
    return (np.minimum(1, lengths.min() / np.maximum(lengths, 1e-12)) * updates.T).T.mean(axis=0)


def bounded_by_one(updates):
    lengths = np.linalg.norm(updates, axis=1)
    return (np.minimum(1, 1 / np.maximum(lengths, 1e-12)) * updates.T).T.mean(axis=0)


def long_ones_dropped(updates):
    lengths = np.linalg.norm(updates, axis=1)
    return updates[lengths <= np.median(lengths)].mean(axis=0)


def long_ones_made_zero(updates):
    lengths = np.linalg.norm(updates, axis=1)
    return (updates * (lengths <= np.median(lengths))[:, None]).mean(axis=0)


def entries_cut(updates):
    bound = np.median(np.linalg.norm(updates, axis=1))
    return np.clip(updates, -bound, bound).mean(axis=0)


def mean_bounded(updates):
    mean, bound = updates.mean(axis=0), np.median(np.linalg.norm(updates, axis=1))
    return mean * min(1, bound / np.linalg.norm(mean))


def summed(updates):
    return len(updates) * bounded_mean(updates)


def squared_lengths(updates):
    lengths = (updates**2).sum(axis=1)
    return (np.minimum(1, np.median(lengths) / np.maximum(lengths, 1e-12)) * updates.T).T.mean(axis=0)


def only_the_longest(updates):
    lengths = np.linalg.norm(updates, axis=1)
    bounded = updates.copy()
    bounded[lengths.argmax()] *= np.median(lengths) / lengths.max()
    return bounded.mean(axis=0)


def wrong_way(updates):
    lengths = np.linalg.norm(updates, axis=1)
    return (np.maximum(1, np.median(lengths) / np.maximum(lengths, 1e-12)) * updates.T).T.mean(axis=0)


def divided_by_factors(updates):
    lengths = np.linalg.norm(updates, axis=1)
    factors = np.minimum(1, np.median(lengths) / np.maximum(lengths, 1e-12))
    return factors @ updates / factors.sum()


def nan_of_zero(updates):
    lengths = np.linalg.norm(updates, axis=1)
    with np.errstate(all="ignore"):
        factors = np.where(lengths > np.median(lengths), np.median(lengths) / lengths, 1)
        directions = updates / lengths[:, None]
    return (factors[:, None] * lengths[:, None] * directions).mean(axis=0)


def draw_poisoned(rng):
    updates = rng.normal(size=(9, 4)) * rng.uniform(0.5, 1.5, size=(9, 1))
    updates[rng.integers(1, 9)] *= 50
    updates[0] = 0
    return (updates,)


# --- 09.reconstruct --------------------------------------------------------------------------------------------------


def reconstruct(weights, bias):
    """weights: (units, pixels), bias: (units,): how the first layer changed in one step on one image. Returns (pixels,)."""
    unit = np.argmax(np.abs(bias))
    return weights[unit] / bias[unit]


def first_unit(weights, bias):
    with np.errstate(all="ignore"):
        return weights[0] / bias[0]


def last_unit(weights, bias):
    with np.errstate(all="ignore"):
        return weights[-1] / bias[-1]


def mean_over_units(weights, bias):
    with np.errstate(all="ignore"):
        return (weights / bias[:, None]).mean(axis=0)


def largest_signed(weights, bias):
    unit = np.argmax(bias)
    with np.errstate(all="ignore"):
        return weights[unit] / bias[unit]


def least_moved(weights, bias):
    unit = np.argmin(np.abs(bias))
    with np.errstate(all="ignore"):
        return weights[unit] / bias[unit]


def not_divided(weights, bias):
    return weights[np.argmax(np.abs(bias))]


def divided_by_size(weights, bias):
    unit = np.argmax(np.abs(bias))
    return weights[unit] / abs(bias[unit])


def other_way_round(weights, bias):
    unit = np.argmax(np.abs(bias))
    with np.errstate(all="ignore"):
        return bias[unit] / weights[unit]


def a_column(weights, bias):
    unit = np.argmax(np.abs(bias))
    return weights[:, unit] / bias[unit]


def stretched(weights, bias):
    image = reconstruct(weights, bias)
    return (image - image.min()) / (image.max() - image.min())


def scaled_to_one(weights, bias):
    image = reconstruct(weights, bias)
    return image / image.max()


def divided_by_length(weights, bias):
    unit = np.argmax(np.abs(bias))
    return weights[unit] / np.linalg.norm(weights[unit])


def all_units(weights, bias):
    with np.errstate(all="ignore"):
        return weights / bias[:, None]


def bias_taken_off(weights, bias):
    unit = np.argmax(np.abs(bias))
    return weights[unit] - bias[unit]


def moved_by(rng, units, asleep=(), faint=(), signs=(-1, 1)):
    """How far each unit's bias went: some up and some down, or all down; `asleep` not at all, `faint` hardly."""
    change = rng.uniform(0.02, 0.05, size=units) * np.resize(signs, units)
    change[list(asleep)], change[list(faint)] = 0, 3e-6
    return change


def test_reconstruct(fn, rng):
    """Numbers of a message have six decimals: a unit that hardly moved tells nothing, one that slept even less."""
    for change in (moved_by(rng, 6, faint=[2]), moved_by(rng, 7, asleep=[0]), moved_by(rng, 8, asleep=[7]),
                   moved_by(rng, 5, asleep=[2], signs=(-1,))):
        image = rng.uniform(0.1, 0.8, size=12)
        weights, bias = np.outer(change, image).round(6), change.round(6)
        got = fn(weights.copy(), bias.copy())
        tried = f"weights = {short(weights)}, bias = {short(bias)}"
        expect(got if got is None else np.asarray(got), image, tried, rtol=0, atol=1e-3)


# --- 09.other_median -------------------------------------------------------------------------------------------------


def other_median(x):
    """x: (n,), the numbers of n >= 3 clients. Returns (n,) with the same sum and another median."""
    order = np.argsort(x)
    middle = order[(len(x) - 1) // 2 : len(x) // 2 + 1]               # one client, or two if n is even
    y = x.copy()
    y[middle] += x.max() - x.min() + 1                                 # the middle ones leap over all others …
    y[order[0]] -= len(middle) * (x.max() - x.min() + 1)               # … and somebody else pays for it
    return y


def in_another_order(x):
    return x[::-1].copy()


def the_same(x):
    return x.copy()


def everyone_moved(x):
    return x + 1


def doubled(x):
    return 2 * x


def ends_moved(x):
    y = x.copy()
    y[np.argmin(x)] -= 1
    y[np.argmax(x)] += 1
    return y


def middle_moved(x):
    y = x.copy()
    y[np.argsort(x)[len(x) // 2]] += 1 + x.max() - x.min()
    return y


def sorted_only(x):
    return np.sort(x)


def signs_turned(x):
    return -x


def one_client_more(x):
    return np.append(x, 0.0)


def two_medians(x):
    return float(np.median(x)), float(x.mean())


def sum_alone(x):
    return float(x.sum())


def mirrored(x):
    return 2 * x.mean() - x + 1


def answer_is_none(x):
    return None


def same_median(x):
    y = x.copy()
    low, high = np.argsort(x)[[0, -1]]
    y[low], y[high] = x[high], x[low]
    return y


def test_other_median(fn, rng):
    for n in (5, 4, 3, 6):
        x = rng.normal(size=n).round(2) * 3 + 0.5
        x[x.argmax()] += 4 * n                                   # so that the mean is far from the median
        kept, got = x.copy(), fn(x)
        tried = f"tried x = {short(kept)}"
        if got is None:
            raise Wrong(f"{tried}: got None, which is also what a function without `return` gives")
        y = np.asarray(got, float)
        if y.shape != kept.shape:
            raise Wrong(f"{tried}: expected {n} numbers, got shape {y.shape}")
        if not np.array_equal(x, kept):
            raise Wrong(f"{tried}: `x` was changed in place")
        if not np.isclose(y.sum(), kept.sum(), rtol=0, atol=1e-6):
            raise Wrong(f"{tried}: the sum must stay {kept.sum():.4f}, yours is {y.sum():.4f}")
        if not abs(np.median(y) - np.median(kept)) > 1e-3:
            raise Wrong(f"{tried}: the median must change, and is still {np.median(y):.4f}")


# --- 09.mended_filter ------------------------------------------------------------------------------------------------


def mended_filter(lengths):
    """lengths: (n,), the norms of the updates. Returns (n,) of True (keep) and False (remove)."""
    middle = np.median(lengths)
    spread = 1.4826 * np.median(np.abs(lengths - middle))
    return np.abs(lengths - middle) <= 3 * spread


def as_it_was(lengths):
    return np.abs(lengths - lengths.mean()) <= 3 * lengths.std(ddof=1)


def median_and_deviation(lengths):
    return np.abs(lengths - np.median(lengths)) <= 3 * lengths.std()


def mean_and_mad(lengths):
    spread = 1.4826 * np.median(np.abs(lengths - np.median(lengths)))
    return np.abs(lengths - lengths.mean()) <= 3 * spread


def strictly_less(lengths):
    middle = np.median(lengths)
    return np.abs(lengths - middle) < 3 * 1.4826 * np.median(np.abs(lengths - middle))


def without_the_factor(lengths):
    middle = np.median(lengths)
    return np.abs(lengths - middle) <= 3 * np.median(np.abs(lengths - middle))


def one_spread(lengths):
    middle = np.median(lengths)
    return np.abs(lengths - middle) <= 1.4826 * np.median(np.abs(lengths - middle))


def divided_by_the_factor(lengths):
    middle = np.median(lengths)
    return np.abs(lengths - middle) <= 3 * np.median(np.abs(lengths - middle)) / 1.4826


def mean_of_distances(lengths):
    middle = np.median(lengths)
    return np.abs(lengths - middle) <= 3 * 1.4826 * np.mean(np.abs(lengths - middle))


def distances_not_absolute(lengths):
    middle = np.median(lengths)
    return np.abs(lengths - middle) <= 3 * 1.4826 * np.median(lengths - middle)


def only_the_long_ones(lengths):
    middle = np.median(lengths)
    return lengths - middle <= 3 * 1.4826 * np.median(np.abs(lengths - middle))


def turned_over(lengths):
    return ~mended_filter(lengths)


def places(lengths):
    return np.flatnonzero(mended_filter(lengths))


def those_kept(lengths):
    return lengths[mended_filter(lengths)]


def no_median_at_all(lengths):
    return lengths <= 3 * np.median(lengths)


LENGTHS = (11.0, 17.6, 18.7, 19.6, 19.7, 20.1, 20.2, 20.3, 20.7, 20.9, 21.2, 22.1, 22.1, 26.2, 32.8, 43.0, 65.8, 80.8, 86.7)


def draw_many_lengths(rng):
    """Searched for: every other limit and every other centre than the right ones keeps somebody else."""
    return (rng.permutation(LENGTHS) * rng.uniform(0.05, 0.2),)


def draw_lengths(rng):
    """Ten lengths whose median is 10 steps and whose MAD is about 1 step; one is far too long."""
    steps = np.append(rng.normal(10, 1, 9), rng.choice([2e3, 1e6]))
    return (rng.permutation(steps) * rng.uniform(0.2, 2.0),)


def draw_equal_lengths(rng):
    lengths = np.full(7, float(rng.integers(1, 9)) / 4)
    lengths[rng.integers(7)] *= 3
    return (lengths,)


def test_filter(fn, rng):
    agrees_with(mended_filter, draw_many_lengths, 2)(fn, rng)
    agrees_with(mended_filter, draw_lengths, 2)(fn, rng)
    agrees_with(mended_filter, draw_equal_lengths, 2)(fn, rng)          # MAD = 0: the equal ones must stay


# --- 09.mended_geometric_median --------------------------------------------------------------------------------------


def mended_geometric_median(points):
    """points: (n, d). Returns (d,), the point whose distances from all n points have the smallest sum."""
    z = points.mean(axis=0)
    nu = 1e-6 * np.linalg.norm(points - z, axis=1).mean() + 1e-300     # small against the distances, whatever their unit
    for _ in range(1000):
        far = np.maximum(nu, np.linalg.norm(points - z, axis=1))
        z = (points / far[:, None]).sum(axis=0) / (1 / far).sum()
    return z


def weiszfeld(points, nu, steps, power=1.0):
    z = points.mean(axis=0)
    for _ in range(steps):
        far = np.maximum(nu, np.linalg.norm(points - z, axis=1)) ** power
        z = (points / far[:, None]).sum(axis=0) / (1 / far).sum()
    return z


def nu_of_one(points):
    return weiszfeld(points, 1.0, 100)


def nu_of_a_tenth(points):
    return weiszfeld(points, 0.1, 3)


def nu_of_a_tenth_for_long(points):
    return weiszfeld(points, 0.1, 2000)


def three_steps(points):
    return weiszfeld(points, 1e-9, 3)


def one_step(points):
    return weiszfeld(points, 1e-9, 1)


def weighted_by_distance(points):
    return weiszfeld(points, 1e-9, 50, -1.0)


def their_mean(points):
    return points.mean(axis=0)


def median_by_coordinate(points):
    return np.median(points, axis=0)


def the_medoid(points):
    apart = np.linalg.norm(points[:, None] - points[None], axis=2)
    return points[apart.sum(axis=1).argmin()]


def sum_not_divided(points):
    far = np.maximum(1e-9, np.linalg.norm(points - points.mean(axis=0), axis=1))
    return (points / far[:, None]).sum(axis=0)


def divided_by_zero(points):
    z = points[0]
    with np.errstate(all="ignore"):
        for _ in range(100):
            far = np.linalg.norm(points - z, axis=1)
            z = (points / far[:, None]).sum(axis=0) / (1 / far).sum()
    return z


def without_the_longest(points):
    return points[np.argsort(np.linalg.norm(points - np.median(points, axis=0), axis=1))[:-1]].mean(axis=0)


def sum_of_distances(z, points):
    """How far z is from all points, (n, d), together. The geometric median makes this as small as it can be."""
    return np.linalg.norm(points - z, axis=1).sum()


def clouds(rng):
    """Updates as short as clients send them, others of size 1; and four of seven at one place, which then is the answer."""
    for n, scale in ((7, 0.06), (8, 1.0), (6, 0.001)):
        points = rng.normal(size=(n, 3)) * scale
        points[0] += 20 * scale
        yield points
    home = rng.normal(size=3)
    yield np.vstack([np.tile(home, (4, 1)), home + rng.normal(size=(3, 3)) * 2])


def test_geometric_median(fn, rng):
    for points in clouds(rng):
        got, tried = fn(points.copy()), f"points = {short(points)}"
        expect(None if got is None else np.shape(got), points.shape[1:], f"{tried}: the shape of the answer")
        mine = sum_of_distances(np.asarray(got, float), points)
        best = sum_of_distances(mended_geometric_median(points), points)
        if not mine <= best * (1 + 1e-5):
            raise Wrong(f"tried {tried}: the sum of the distances can be {best:.6g}; at your {short(np.asarray(got))} it is "
                        f"{mine:.6g}, and at the mean {sum_of_distances(points.mean(axis=0), points):.6g}")


# --- all of them -----------------------------------------------------------------------------------------------------

EXERCISES = (
    Exercise(
        name="09.coordinate_median",
        title="The median, coordinate by coordinate",
        difficulty=1,
        minutes=5,
        test=test_median,
        hints=(
            "Each coordinate on its own: sort along the clients, `axis=0`.",
            "With five clients the middle one is row 2. With six there are two in the middle, rows 2 and 3.",
            "The mean of rows (n - 1) // 2 and n // 2 of the sorted array is right for both.",
        ),
        solution=coordinate_median,
        mistakes=(
            Mistake(lower_middle, "For an even n you take the lower of the two middle values, as torch.median does. The "
                    "median is their mean."),
            Mistake(upper_middle, "For an even n you take the upper of the two middle values: take the mean of both."),
            Mistake(median_of_rows, "That is one number a client. The clients are the rows, so go along `axis=0`."),
            Mistake(one_median, "That is one number for everything. A median for each coordinate is asked for: `axis=0`."),
            Mistake(plain_mean, "That is the mean: one attacker moves it as far as he likes."),
            Mistake(unsorted_middle, "The rows are in the order in which the clients stand: sort each coordinate first."),
            Mistake(middle_by_length, "You sort whole updates by length. Each coordinate is sorted on its own: `np.sort(…, "
                    "axis=0)`."),
            Mistake(without_extremes, "That is a trimmed mean, without the smallest and the largest. The median leaves only "
                    "the middle."),
            Mistake(rows_sorted, "You sort the numbers *within* each update. Sort along the clients: `axis=0`."),
            Mistake(middle_added, "Two middle values: take their mean, not their sum."),
            Mistake(sorted_in_place, "Right, but `.sort()` changes the caller's array: use `np.sort`, which makes a new one."),
            Mistake(middle_of_range, "Half-way between smallest and largest: one attacker moves that as far as he likes."),
        ),
    ),
    Exercise(
        name="09.krum_scores",
        title="Krum's score",
        difficulty=3,
        minutes=20,
        test=test_krum,
        hints=(
            "All squared distances at once: `((updates[:, None] - updates[None]) ** 2).sum(axis=2)`, an (n, n) table.",
            "Sort each row of the table. Its first entry is 0: the distance from oneself, which does not count.",
            "Add up the next n - f - 2 of each row.",
        ),
        solution=krum_scores,
        mistakes=(
            Mistake(one_neighbour_more, "One neighbour too many: n - f - 2 of them, without the client itself. (Some "
                    "libraries take n - f - 1, and choose another update now and then.)"),
            Mistake(own_neighbour, "One of your n - f - 2 is the client itself, at distance 0. Leave it out."),
            Mistake(not_squared, "The distances are not squared."),
            Mistake(squared_twice, "`((a - b) ** 2).sum()` is the squared distance already: you square it twice."),
            Mistake(root_of_score, "No root: the score is the *sum* of the squares."),
            Mistake(farthest, "These are the farthest. A lonely attacker shall score badly, a colluding crowd not well: "
                    "nearest ones."),
            Mistake(everybody, "You add up all distances: then one attacker far away spoils everybody's score. Only the "
                    "nearest."),
            Mistake(mean_of_neighbours, "The sum is asked for, not the mean. (The choice would be the same.)"),
            Mistake(the_best, "That is whom Krum chooses. The scores of all are asked for, (n,)."),
            Mistake(the_best_update, "That is the update that Krum chooses. The scores of all are asked for, (n,)."),
            Mistake(nearest_f, "f nearest: f attackers who send the same would all score 0. It must be n - f - 2."),
            Mistake(to_the_mean, "The mean is where the attackers want it. Compare the updates with one another."),
            Mistake(two_f_left_out, "Too few neighbours: n - f - 2, not n - 2f - 2."),
            Mistake(absolute, "That is the sum of absolute differences. Krum squares them."),
            Mistake(turned_round, "The lower the better: no minus sign."),
        ),
    ),
    Exercise(
        name="09.breakdown_point",
        title="How many does it take?",
        difficulty=2,
        minutes=15,
        test=test_breakdown,
        hints=(
            "First ask the rule what it says without attackers.",
            "Then, for f = 1, 2, …, put `far` in the place of the first f rows of a *copy*, and ask again.",
            "As soon as `np.linalg.norm(now - honest) > 1000`: return f.",
        ),
        solution=breakdown_point,
        mistakes=(
            Mistake(most_that_are_borne, "That many are still borne. Asked is the first number that is too many, one more."),
            Mistake(as_a_share, "That is the share f/n. The number f is asked for."),
            Mistake(attackers_added, "You add attackers to the honest. They *replace* honest clients: n stays what it is."),
            Mistake(one_at_a_time, "You replace one row only, row f - 1. The first f rows are the attackers': `[:f]`."),
            Mistake(any_move, "Every rule moves a little when somebody lies. Broken is: moved by more than 1000."),
            Mistake(one_side_only, "An attacker may pull down, too: take the norm of the difference."),
            Mistake(honest_spoilt, "Right, but you write into the caller's `updates`: work on a copy."),
            Mistake(compared_with_itself, "You compare the attacked answer with itself. Ask the rule before the attack."),
            Mistake(always_half, "Half of the clients is the best that any rule can do, but not every rule does. Try them one "
                    "by one."),
            Mistake(more_than_half, "More than half breaks every rule; many break sooner. Try f = 1, 2, …"),
            Mistake(in_steps_of_two, "You try every second f only."),
        ),
    ),
    Exercise(
        name="09.bounded_mean",
        title="Stop a backdoor",
        difficulty=2,
        minutes=15,
        test=agrees_with(bounded_mean, draw_poisoned),
        hints=(
            "The norm of each row, `np.linalg.norm(updates, axis=1)`; their median is the bound.",
            "Who is longer is multiplied by bound / norm; who is shorter, by 1.",
            "`np.minimum(1, bound / norms)`, one factor a row; then the plain mean. Mind an update of length 0.",
        ),
        solution=bounded_mean,
        mistakes=(
            Mistake(all_of_one_length, "You also make the short ones longer. They stay as they are: the factor is at most 1."),
            Mistake(bounded_by_mean, "The attacker's own length is in the mean, so he sets the bound. The median does not "
                    "follow him."),
            Mistake(bounded_by_shortest, "The shortest update sets your bound: one client that sends nearly nothing stops the "
                    "training."),
            Mistake(bounded_by_one, "The bound is not 1 but the median of the lengths in this round."),
            Mistake(long_ones_dropped, "You drop half of the clients. Who is too long is shortened, not thrown out."),
            Mistake(long_ones_made_zero, "Who is too long is shortened to the bound, not to nothing."),
            Mistake(entries_cut, "You cut each coordinate: an update of 10,000 small ones is still long. Scale the whole row."),
            Mistake(mean_bounded, "The mean is bounded, but it is the attacker's mean already. Bound each update first."),
            Mistake(summed, "That is the sum. The mean is asked for."),
            Mistake(squared_lengths, "The squared length is not the length: `np.linalg.norm`."),
            Mistake(only_the_longest, "Only the longest one is shortened; a second attacker gets through."),
            Mistake(wrong_way, "Wrong way round: `minimum(1, …)`. Yours makes the short ones longer and leaves the long ones."),
            Mistake(divided_by_factors, "You divide by the sum of the factors, which undoes part of the bound. Divide by n."),
            Mistake(nan_of_zero, "An update of length 0 has no direction: 0/0 is NaN. Multiply by a factor instead."),
        ),
    ),
    Exercise(
        name="09.reconstruct",
        title="Reconstruct a digit",
        difficulty=2,
        minutes=10,
        test=test_reconstruct,
        hints=(
            "Row j of the weights' gradient is g_j · x, and the bias's is g_j.",
            "So each row is the image times a number that you know, unless that number is 0.",
            "Take the unit whose bias moved most, up or down, and divide its row by it.",
        ),
        solution=reconstruct,
        mistakes=(
            Mistake(first_unit, "The first unit may have slept: its bias did not move, and 0/0 is no picture. Look for one "
                    "that moved."),
            Mistake(last_unit, "The last unit may have slept, too. Look for the one that moved most."),
            Mistake(mean_over_units, "Sleeping units give 0/0, and the mean is NaN. One unit that moved is enough."),
            Mistake(largest_signed, "The biases may all have gone *down*: the largest is then 0. Take the largest magnitude."),
            Mistake(least_moved, "That is the unit that moved least: it may have slept. Take the one that moved most."),
            Mistake(not_divided, "That is the image times an unknown number. Divide by the unit's bias."),
            Mistake(divided_by_size, "A negative: both signs belong to it. Divide by the bias itself, not by its magnitude."),
            Mistake(other_way_round, "Wrong way round: weights over bias."),
            Mistake(a_column, "A row is a unit: `weights[unit]`, not `weights[:, unit]`."),
            Mistake(stretched, "The picture is exact already. Stretching it to 0 … 1 falsifies it."),
            Mistake(scaled_to_one, "The picture is exact already; its brightest pixel need not be 1."),
            Mistake(divided_by_length, "The length of the row tells nothing about the brightness. Divide by the bias."),
            Mistake(all_units, "Those are the guesses of all units, and of those that slept. Return one, (pixels,)."),
            Mistake(bias_taken_off, "The row is a *multiple* of the image: divide, do not subtract."),
        ),
    ),
    Exercise(
        name="09.other_median",
        title="No robust rule behind masks",
        difficulty=2,
        minutes=10,
        test=test_other_median,
        hints=(
            "Under masks the server learns the sum, and nothing else of x.",
            "Move the client in the middle (the two, if n is even) past all others.",
            "Take what you added off somebody else, so that the sum is the old one.",
        ),
        solution=other_median,
        mistakes=(
            Mistake(in_another_order, "The median does not care who says what: change the numbers."),
            Mistake(the_same, "These are the same numbers, so they have the same median."),
            Mistake(everyone_moved, "The median moved, but the sum as well: under masks the server would notice."),
            Mistake(doubled, "The sum is doubled, too: it must stay."),
            Mistake(ends_moved, "The sum stays, but so does the median, which does not look at the ends. Move the middle."),
            Mistake(middle_moved, "The median moved. Now take off somebody else what you added, so that the sum stays."),
            Mistake(sorted_only, "Sorted they are the same numbers, with the same median."),
            Mistake(signs_turned, "The sum has changed its sign."),
            Mistake(one_client_more, "The server knows how many clients there are: n numbers."),
            Mistake(two_medians, "Those are two numbers about x. Another x is asked for, n numbers."),
            Mistake(sum_alone, "That is what the server sees. Make another x that gives the same."),
            Mistake(mirrored, "A good idea, but the 1 changes the sum."),
            Mistake(answer_is_none, "Your function returns nothing: return the n numbers."),
            Mistake(same_median, "Swapping two clients changes neither sum nor median: change the numbers."),
        ),
    ),
    Exercise(
        name="09.mended_filter",
        title="What is wrong with this one? (I)",
        difficulty=3,
        minutes=15,
        test=test_filter,
        hints=(
            "One huge value drags the mean and blows up the deviation by which it is judged.",
            "Replace both by what only half of the values together can move: the median, and the median of the distances "
            "from it.",
            "Keep what is at most 3 · 1.4826 · MAD away from the median; *at most*, because the MAD may be 0.",
        ),
        solution=mended_filter,
        mistakes=(
            Mistake(as_it_was, "That is still the broken one: with n values nothing can be more than (n - 1)/√n deviations "
                    "from the mean."),
            Mistake(median_and_deviation, "The centre is mended. The outlier still blows up the deviation by which it is "
                    "judged."),
            Mistake(mean_and_mad, "The spread is mended. The outlier still drags the mean: measure from the median."),
            Mistake(strictly_less, "If most lengths are equal, the MAD is 0 and `<` removes everybody. Use `<=`."),
            Mistake(without_the_factor, "The factor 1.4826 is missing, which makes the MAD of a normal sample its deviation."),
            Mistake(one_spread, "The limit is three spreads, not one."),
            Mistake(divided_by_the_factor, "Multiply by 1.4826, do not divide: the MAD of a normal sample is 0.674 "
                    "deviations."),
            Mistake(mean_of_distances, "The *mean* distance follows the outlier. Take the median of the distances."),
            Mistake(distances_not_absolute, "Without `np.abs` the median of the differences is 0, always."),
            Mistake(only_the_long_ones, "Who is far too short is an outlier as well: look at the distance to either side."),
            Mistake(turned_over, "True means keep. You have it the other way round."),
            Mistake(places, "One True or False a client is asked for, not the places of the kept ones."),
            Mistake(those_kept, "One True or False a client is asked for, not the lengths that are kept."),
            Mistake(no_median_at_all, "Three times the median is no measure of spread: how far do the others lie apart?"),
        ),
    ),
    Exercise(
        name="09.mended_geometric_median",
        title="What is wrong with this one? (II)",
        difficulty=4,
        minutes=25,
        test=test_geometric_median,
        hints=(
            "Print `far` and `nu` side by side for updates of length 0.02. Which of the two is the larger, always?",
            "If all weights are 1/ν, they are equal, and the answer is the mean. ν only guards against 0/0: make it tiny "
            "against the distances at hand.",
            "ν = 1e-6 times the mean distance; and enough steps (hundreds): it comes to rest slowly beside a data point.",
        ),
        solution=mended_geometric_median,
        mistakes=(
            Mistake(nu_of_one, "That is still the broken one: with all distances below ν every weight is the same, and that "
                    "is the mean."),
            Mistake(nu_of_a_tenth, "ν = 0.1 and three steps is a default that is in use. For updates of length 0.02 it is the "
                    "mean, for others not yet at rest."),
            Mistake(nu_of_a_tenth_for_long, "More steps help large updates only: 0.1 is still more than the distances of "
                    "small ones. Make ν relative."),
            Mistake(three_steps, "ν is mended. Three steps are not enough: go on until the point no longer moves."),
            Mistake(one_step, "One step from the mean is not yet the geometric median."),
            Mistake(weighted_by_distance, "You weigh the far ones more. The weights are *one over* the distance."),
            Mistake(their_mean, "The mean makes the sum of the *squared* distances smallest."),
            Mistake(median_by_coordinate, "The coordinate-wise median is another point: it depends on where the axes lie."),
            Mistake(the_medoid, "That is the best of the given points. The best point of the plane may lie between them."),
            Mistake(sum_not_divided, "A weighted mean is divided by the sum of its weights."),
            Mistake(divided_by_zero, "On a data point a distance is 0 and the division NaN. Keep a tiny ν."),
            Mistake(without_the_longest, "That drops one point and averages the rest. The geometric median keeps all of them."),
        ),
    ),
)  # fmt: skip
