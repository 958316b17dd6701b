"""The exercises of chapter 6: solutions, common mistakes and their hints. How one is written: workbook/grading/checks.py."""

from itertools import combinations

import numpy as np

from fl_course.workbook.grading.checks import Exercise, Mistake, Wrong, agrees_with, expect
from fl_course.workbook.grading.compare import short

TRIES = 600                                   # cohorts that a frequency is counted over


def fresh(rng):
    """A random stream of its own for one call."""
    return np.random.default_rng(int(rng.integers(2**32)))


def names_of(answer, tried):
    """The answer as a list; Wrong unless it is a list of names."""
    if answer is None:
        raise Wrong(f"tried {tried}: got None, which is also what a function without `return` gives")
    if not isinstance(answer, list | tuple | np.ndarray):
        raise Wrong(f"tried {tried}: expected a list of clients, got {short(answer)}")
    return [name.item() if isinstance(name, np.generic) else name for name in answer]


def often(counts, shares, tried):
    """Wrong unless every count out of TRIES is within five standard deviations of its share; a name that is missing is 0."""
    for name, share in shares.items():
        got, band = counts.get(name, 0) / TRIES, 5 * np.sqrt(share * (1 - share) / TRIES) + 1e-9
        if abs(got - share) > band:
            raise Wrong(f"tried {tried}, {TRIES} times: {name} should be in {share:.0%} of the answers, and is in {got:.0%}")


# --- 06.ask_fraction --------------------------------------------------------------------------------------------------


def ask_fraction(idle, clients, fraction, min_clients, rng):
    """idle: the names of those that are there; clients: K, how many there are in all. Returns a list of different names."""
    m = min(max(round(fraction * clients), min_clients), len(idle))
    return [idle[i] for i in rng.permutation(len(idle))[:m]]


def with_replacement(idle, clients, fraction, min_clients, rng):
    m = min(max(round(fraction * clients), min_clients), len(idle))
    return list(rng.choice(idle, size=m))


def fraction_of_the_idle(idle, clients, fraction, min_clients, rng):
    return ask_fraction(idle, len(idle), fraction, min_clients, rng)


def no_least(idle, clients, fraction, min_clients, rng):
    return ask_fraction(idle, clients, fraction, 1, rng)


def least_is_most(idle, clients, fraction, min_clients, rng):
    m = min(round(fraction * clients), min_clients, len(idle))
    return [idle[i] for i in rng.permutation(len(idle))[:m]]


def more_than_there_are(idle, clients, fraction, min_clients, rng):
    return list(rng.choice(idle, size=max(round(fraction * clients), min_clients), replace=False))


def the_first_ones(idle, clients, fraction, min_clients, rng):
    return idle[: max(round(fraction * clients), min_clients)]


def rounded_down(idle, clients, fraction, min_clients, rng):
    m = min(max(int(fraction * clients), min_clients), len(idle))
    return [idle[i] for i in rng.permutation(len(idle))[:m]]


def rounded_up(idle, clients, fraction, min_clients, rng):
    m = min(max(int(np.ceil(fraction * clients)), min_clients), len(idle))
    return [idle[i] for i in rng.permutation(len(idle))[:m]]


def places_of_them(idle, clients, fraction, min_clients, rng):
    m = min(max(round(fraction * clients), min_clients), len(idle))
    return [int(i) for i in rng.permutation(len(idle))[:m]]


def how_many(idle, clients, fraction, min_clients, rng):
    return min(max(round(fraction * clients), min_clients), len(idle))


def own_coins(idle, clients, fraction, min_clients, rng):
    m = min(max(round(fraction * clients), min_clients), len(idle))
    return [name for name in idle if rng.random() * len(idle) < m]


def neighbours(idle, clients, fraction, min_clients, rng):
    m, start = min(max(round(fraction * clients), min_clients), len(idle)), int(rng.integers(len(idle)))
    return [idle[(start + i) % len(idle)] for i in range(m)]


def shuffled_in_place(idle, clients, fraction, min_clients, rng):
    rng.shuffle(idle)
    return idle[: max(round(fraction * clients), min_clients)]


def everybody(idle, clients, fraction, min_clients, rng):
    return [idle[i] for i in rng.permutation(len(idle))]


def test_fraction(fn, rng):
    """The number, no name twice, nobody who is away; then every pair equally often, which neighbours are not."""
    cases = ((25, 40, 0.5, 1), (30, 62, 0.1, 2), (12, 36, 0.1, 5), (3, 40, 0.2, 2), (8, 57, 0.1, 1))
    for there, clients, fraction, least in cases:
        idle = [f"c{number:02}" for number in rng.choice(99, there, replace=False)]
        tried = f"{there} idle clients of {clients}, fraction {fraction}, min_clients {least}"
        given, want = list(idle), min(max(round(fraction * clients), least), there)
        got = names_of(fn(given, clients, fraction, least, fresh(rng)), tried)
        if strange := [name for name in got if name not in idle]:
            raise Wrong(f"tried {tried}: {short(strange[0])} is none of their names {short(idle)}")
        expect(len(got), want, f"{tried}: how many")
        expect(len(set(got)), want, f"{tried}: how many different ones")
        if given != idle:
            raise Wrong(f"tried {tried}: a good draw, but the list `idle` was changed in place; copy it")
    idle, counts, pairs = list("ABCDEF"), dict[str, int](), dict[str, int]()
    for _ in range(TRIES):
        got = sorted(names_of(fn(list(idle), 12, 0.25, 1, fresh(rng)), "6 idle clients"))
        expect(len(got), 3, "6 idle clients of 12, fraction 0.25: how many")
        for name in got:
            counts[name] = counts.get(name, 0) + 1
        for pair in combinations(got, 2):
            pairs["".join(pair)] = pairs.get("".join(pair), 0) + 1
    often(counts, dict.fromkeys(idle, 1 / 2), "3 of the 6 clients A to F")
    often(pairs, {"".join(pair): 1 / 5 for pair in combinations(idle, 2)}, "3 of the 6 clients A to F, pair by pair")


# --- 06.quality_score -------------------------------------------------------------------------------------------------


def quality_score(profiles, weights, prior):
    """profiles: (n, 5), weights: (5,), prior: a number in [0, 1]. Returns the scores (n,)."""
    parts = np.array(profiles)
    parts[:, 4] = 1 - parts[:, 4]
    return np.where(np.isnan(parts), prior, parts) @ weights


def stale_is_good(profiles, weights, prior):
    return np.where(np.isnan(profiles), prior, profiles) @ weights


def unknown_is_nothing(profiles, weights, prior):
    return quality_score(profiles, weights, 0.0)


def unknown_is_half(profiles, weights, prior):
    return quality_score(profiles, weights, 0.5)


def unknown_stays(profiles, weights, prior):
    known = np.array(profiles)
    known[:, 4] = 1 - known[:, 4]
    return known @ weights


def prior_before_turning(profiles, weights, prior):
    known = np.where(np.isnan(profiles), prior, profiles)
    known[:, 4] = 1 - known[:, 4]
    return known @ weights


def plain_mean_of_five(profiles, weights, prior):
    return quality_score(profiles, np.full(5, 0.2), prior)


def whole_client_unknown(profiles, weights, prior):
    return quality_score(np.where(np.isnan(profiles).any(axis=1, keepdims=True), np.nan, profiles), weights, prior)


def staleness_subtracted(profiles, weights, prior):
    parts = np.array(profiles)
    parts[:, 4] = -parts[:, 4]
    return np.where(np.isnan(parts), prior, parts) @ weights


def one_for_all(profiles, weights, prior):
    return quality_score(profiles, weights, prior).sum()


def best_client(profiles, weights, prior):
    return int(np.argmax(quality_score(profiles, weights, prior)))


def by_rank(profiles, weights, prior):
    return np.argsort(-quality_score(profiles, weights, prior))


def made_to_sum_to_one(profiles, weights, prior):
    scores = quality_score(profiles, weights, prior)
    return scores / scores.sum()


def prior_is_the_score(profiles, weights, prior):
    known = np.array(profiles)
    known[:, 4] = 1 - known[:, 4]
    scores = known @ weights
    return np.where(np.isnan(scores), prior, scores)


def draw_profiles(rng):
    profiles = rng.uniform(0.1, 0.9, size=(5, 5))
    profiles[1] = np.nan                                          # never asked
    profiles[2, int(rng.integers(0, 4))] = profiles[3, 4] = np.nan
    weights = rng.dirichlet(np.full(5, 3.0)) + 0.02
    return profiles, weights, float(rng.choice([0.2, 0.3, 0.7, 0.8]))


# --- 06.spread_labels -------------------------------------------------------------------------------------------------


def spread_labels(counts, k):
    """counts: (n, c), examples of each client and class, k <= n. Returns k different row numbers, in the order of choice."""
    shares = counts / counts.sum(axis=1, keepdims=True)
    chosen = [int(np.argmax(counts.sum(axis=1)))][:k]             # nobody if k = 0
    while len(chosen) < k:
        nearest = np.abs(shares[:, None] - shares[chosen]).sum(axis=2).min(axis=1)
        nearest[chosen] = -1
        chosen.append(int(np.argmax(nearest)))
    return chosen


def greedily(counts, k, histograms, score, first=None):
    """The same loop with another idea of far; what several mistakes share."""
    chosen = [int(np.argmax(counts.sum(axis=1)) if first is None else first)][:k]
    while len(chosen) < k:
        scores = score(np.abs(histograms[:, None] - histograms[chosen]).sum(axis=2)).astype(float)
        scores[chosen] = -np.inf
        chosen.append(int(np.argmax(scores)))
    return chosen


def shares_of(counts):
    return counts / counts.sum(axis=1, keepdims=True)


def farthest_from_any(counts, k):
    return greedily(counts, k, shares_of(counts), lambda far: far.max(axis=1))


def farthest_on_average(counts, k):
    return greedily(counts, k, shares_of(counts), lambda far: far.mean(axis=1))


def farthest_from_the_last(counts, k):
    return greedily(counts, k, shares_of(counts), lambda far: far[:, -1])


def farthest_from_the_first(counts, k):
    return greedily(counts, k, shares_of(counts), lambda far: far[:, 0])


def nearest_ones(counts, k):
    return greedily(counts, k, shares_of(counts), lambda far: -far.min(axis=1))


def counts_for_shares(counts, k):
    return greedily(counts, k, counts.astype(float), lambda far: far.min(axis=1))


def begins_with_row_zero(counts, k):
    return greedily(counts, k, shares_of(counts), lambda far: far.min(axis=1), first=0)


def begins_with_the_smallest(counts, k):
    return greedily(counts, k, shares_of(counts), lambda far: far.min(axis=1), first=np.argmin(counts.sum(axis=1)))


def shares_of_a_class(counts, k):
    return greedily(counts, k, counts / np.maximum(1, counts.sum(axis=0)), lambda far: far.min(axis=1))


def the_largest_clients(counts, k):
    return [int(i) for i in np.argsort(-counts.sum(axis=1), kind="stable")[:k]]


def sorted_rows(counts, k):
    return sorted(spread_labels(counts, k))


def one_too_few(counts, k):
    return spread_labels(counts, max(0, k - 1))


def first_one_always(counts, k):
    return spread_labels(counts, max(1, k))


def rows_themselves(counts, k):
    return counts[spread_labels(counts, k)]


def one_again(counts, k):
    """The chosen ones are not taken out: the clients that are like one of them have distance 0, and so has it."""
    shares, chosen = shares_of(counts), [int(np.argmax(counts.sum(axis=1)))][:k]
    while len(chosen) < k:
        chosen.append(int(np.argmax(np.abs(shares[:, None] - shares[chosen]).sum(axis=2).min(axis=1))))
    return chosen


SPREADS = (farthest_from_any, farthest_on_average, farthest_from_the_last, farthest_from_the_first, nearest_ones,
           counts_for_shares, begins_with_row_zero, begins_with_the_smallest, shares_of_a_class, the_largest_clients, sorted_rows,
           one_too_few)  # fmt: skip


def draw_histograms(rng):
    """Counts on which every slip gives another answer, and no two distances are nearly equal."""
    while True:
        counts = np.array([rng.multinomial(int(size), mix) for size, mix in
                           zip(rng.permutation(np.arange(9) * 7 + 11), rng.dirichlet(np.full(4, 0.7), size=9), strict=True)])
        answers = [tuple(rule(counts, 5)) for rule in (spread_labels, *SPREADS)]
        shares = shares_of(counts)
        far = np.abs(shares[:, None] - shares).sum(axis=2)[np.triu_indices(9, 1)]
        if len(set(answers)) == len(answers) and np.diff(np.sort(far)).min() > 1e-6:
            return counts, 5


def test_spread(fn, rng):
    agrees_with(spread_labels, draw_histograms, 3)(fn, rng)
    counts, _ = draw_histograms(rng)
    for k in (1, 0, 9):
        expect(fn(counts.copy(), k), spread_labels(counts, k), f"counts = {short(counts)}, k = {k}")
    twins = np.repeat(counts[:2], 3, axis=0)                        # six clients, two kinds: all the same it takes each once
    expect(fn(twins.copy(), 6), spread_labels(twins, 6), f"counts = {short(twins)}, k = 6, where clients are alike")


# --- 06.power_of_choice -----------------------------------------------------------------------------------------------


def power_of_choice(sizes, ask, d, m, rng):
    """sizes: (K,); ask(k): the loss of client k; m <= d <= K. Returns m client numbers, the one of largest loss first."""
    candidates = rng.choice(len(sizes), size=d, replace=False, p=sizes / sizes.sum())
    losses = np.array([ask(k) for k in candidates])
    return [int(k) for k in candidates[np.argsort(-losses)[:m]]]


def candidates_of(sizes, d, rng):
    return rng.choice(len(sizes), size=d, replace=False, p=sizes / sizes.sum())


def smallest_losses(sizes, ask, d, m, rng):
    candidates = candidates_of(sizes, d, rng)
    return [int(k) for k in candidates[np.argsort([ask(k) for k in candidates])[:m]]]


def asks_all(sizes, ask, d, m, rng):
    losses = np.array([ask(k) for k in range(len(sizes))])
    return [int(k) for k in np.argsort(-losses)[:m]]


def asks_all_for_candidates(sizes, ask, d, m, rng):
    losses = np.array([ask(k) for k in range(len(sizes))])
    candidates = candidates_of(sizes, d, rng)
    return [int(k) for k in candidates[np.argsort(-losses[candidates])[:m]]]


def all_alike(sizes, ask, d, m, rng):
    candidates = rng.choice(len(sizes), size=d, replace=False)
    return [int(k) for k in candidates[np.argsort([-ask(k) for k in candidates])[:m]]]


def drawn_again(sizes, ask, d, m, rng):
    candidates = rng.choice(len(sizes), size=d, p=sizes / sizes.sum())
    return [int(k) for k in candidates[np.argsort([-ask(k) for k in candidates])[:m]]]


def nobody_asked(sizes, ask, d, m, rng):
    return [int(k) for k in candidates_of(sizes, d, rng)[:m]]


def no_choice_left(sizes, ask, d, m, rng):
    candidates = candidates_of(sizes, m, rng)
    return [int(k) for k in candidates[np.argsort([-ask(k) for k in candidates])]]


def where_they_stand(sizes, ask, d, m, rng):
    candidates = candidates_of(sizes, d, rng)
    return [int(i) for i in np.argsort([-ask(k) for k in candidates])[:m]]


def all_candidates(sizes, ask, d, m, rng):
    candidates = candidates_of(sizes, d, rng)
    return [int(k) for k in candidates[np.argsort([-ask(k) for k in candidates])]]


def largest_last(sizes, ask, d, m, rng):
    return power_of_choice(sizes, ask, d, m, rng)[::-1]


def sizes_not_shares(sizes, ask, d, m, rng):
    candidates = rng.choice(len(sizes), size=d, replace=False, p=sizes)
    return [int(k) for k in candidates[np.argsort([-ask(k) for k in candidates])[:m]]]


def losses_only(sizes, ask, d, m, rng):
    return sorted((ask(k) for k in candidates_of(sizes, d, rng)), reverse=True)[:m]


def drawn_by_loss(sizes, ask, d, m, rng):
    candidates = candidates_of(sizes, d, rng)
    losses = np.array([ask(k) for k in candidates])
    return [int(k) for k in rng.choice(candidates, size=m, replace=False, p=losses / losses.sum())]


def largest_sizes(sizes, ask, d, m, rng):
    candidates = np.argsort(-sizes)[:d]
    return [int(k) for k in candidates[np.argsort([-ask(k) for k in candidates])[:m]]]


def test_power(fn, rng):
    """Who is asked is as important as who is chosen: each question is a model on its way down."""
    for d, m, clients in ((12, 4, 12), (6, 2, 40), (7, 7, 25), (1, 1, 9)):
        sizes, losses, asked = rng.permutation(clients) + 5.0, rng.permutation(clients) / clients + 0.1, list[int]()

        def ask(k, losses=losses, asked=asked):
            asked.append(int(k))
            return float(losses[k])

        tried = f"{clients} clients, d = {d}, m = {m}"
        got = names_of(fn(sizes.copy(), ask, d, m, fresh(rng)), tried)
        expect(len(asked), d, f"{tried}: how many questions were asked")
        expect(len(set(asked)), d, f"{tried}: how many different clients were asked")
        if strange := [k for k in got if k not in asked]:
            raise Wrong(f"tried {tried}: {short(strange[0])} was chosen and never asked; asked were {short(sorted(asked))}")
        want = sorted(asked, key=lambda k: -losses[k])[:m]
        expect(got, want, f"{tried}, asked were {short(sorted(asked))} with losses {short([losses[k] for k in sorted(asked)])}")
    counts = dict[int, int]()
    for _ in range(TRIES):
        got = names_of(fn(np.array([1.0, 2.0, 3.0, 10.0]), float, 1, 1, fresh(rng)), "4 clients, d = m = 1")
        for k in got:
            counts[k] = counts.get(k, 0) + 1
    often(counts, {0: 1 / 16, 1: 2 / 16, 2: 3 / 16, 3: 10 / 16}, "clients of sizes 1, 2, 3 and 10, d = m = 1")


# --- 06.oort_utility --------------------------------------------------------------------------------------------------


def oort_utility(losses, seconds, preferred, version, last, alpha=2.0):
    """losses: (n,), one of each example; seconds, preferred > 0; 1 <= last <= version. Returns one number."""
    useful = len(losses) * np.sqrt(np.mean(losses**2))
    if seconds > preferred:
        useful *= (preferred / seconds) ** alpha
    return useful + np.sqrt(0.1 * np.log(version) / last)


def utility(losses, seconds, preferred, version, last, alpha=2.0, *, useful=None, factor=None, bonus=None):
    """The same with parts exchanged; what several mistakes share."""
    useful = len(losses) * np.sqrt(np.mean(losses**2)) if useful is None else useful
    slow = (preferred / seconds) ** alpha if seconds > preferred else 1.0
    return useful * (slow if factor is None else factor) + (np.sqrt(0.1 * np.log(version) / last) if bonus is None else bonus)


def square_of_the_mean(losses, *rest):
    return utility(losses, *rest, useful=len(losses) * np.mean(losses))


def root_of_the_sum(losses, *rest):
    return utility(losses, *rest, useful=np.sqrt(np.sum(losses**2)))


def not_times_n(losses, *rest):
    return utility(losses, *rest, useful=np.sqrt(np.mean(losses**2)))


def no_root(losses, *rest):
    return utility(losses, *rest, useful=len(losses) * np.mean(losses**2))


def fast_ones_paid(losses, seconds, preferred, version, last, alpha=2.0):
    return utility(losses, seconds, preferred, version, last, alpha, factor=(preferred / seconds) ** alpha)


def slow_ones_paid(losses, seconds, preferred, version, last, alpha=2.0):
    factor = (seconds / preferred) ** alpha if seconds > preferred else 1.0
    return utility(losses, seconds, preferred, version, last, alpha, factor=factor)


def fast_ones_fined(losses, seconds, preferred, version, last, alpha=2.0):
    factor = (seconds / preferred) ** alpha if seconds < preferred else 1.0
    return utility(losses, seconds, preferred, version, last, alpha, factor=factor)


def nobody_fined(losses, seconds, preferred, version, last, alpha=2.0):
    return utility(losses, seconds, preferred, version, last, alpha, factor=1.0)


def fined_without_alpha(losses, seconds, preferred, version, last, alpha=2.0):
    return utility(losses, seconds, preferred, version, last, 1.0)


def no_bonus(losses, seconds, preferred, version, last, alpha=2.0):
    return utility(losses, seconds, preferred, version, last, alpha, bonus=0.0)


def bonus_upside_down(losses, seconds, preferred, version, last, alpha=2.0):
    return utility(losses, seconds, preferred, last, version, alpha)


def rounds_since(losses, seconds, preferred, version, last, alpha=2.0):
    bonus = np.sqrt(0.1 * np.log(version) / max(1, version - last))
    return utility(losses, seconds, preferred, version, last, alpha, bonus=bonus)


def bonus_not_rooted(losses, seconds, preferred, version, last, alpha=2.0):
    return utility(losses, seconds, preferred, version, last, alpha, bonus=0.1 * np.log(version) / last)


def tenths(losses, seconds, preferred, version, last, alpha=2.0):
    return utility(losses, seconds, preferred, version, last, alpha, bonus=np.sqrt(0.1 * np.log10(version) / last))


def tenth_outside(losses, seconds, preferred, version, last, alpha=2.0):
    return utility(losses, seconds, preferred, version, last, alpha, bonus=0.1 * np.sqrt(np.log(version) / last))


def bonus_fined(losses, seconds, preferred, version, last, alpha=2.0):
    slow = (preferred / seconds) ** alpha if seconds > preferred else 1.0
    return slow * utility(losses, seconds, preferred, version, last, alpha, factor=1.0)


def test_oort(fn, rng):
    """A fast client, a slow one, one that is just in time, a very slow one."""
    for pace in (0.6, 1.7, 1.0, 2.4):
        losses, preferred = rng.uniform(0.1, 3.0, size=int(rng.integers(4, 8))), float(rng.uniform(10, 40))
        version, last, alpha = int(rng.integers(30, 60)), int(rng.integers(2, 9)), float(rng.choice([2.0, 3.0]))
        args = losses, preferred * pace, preferred, version, last, alpha
        words = ", ".join(f"{name} = {short(value)}" for name, value in
                          zip(("losses", "seconds", "preferred", "version", "last", "alpha"), args, strict=True))
        expect(fn(losses.copy(), *args[1:]), oort_utility(*args), words)


# --- 06.selection_bias ------------------------------------------------------------------------------------------------


def selection_bias(cohorts, values):
    """cohorts: a list of lists of client numbers, a list a round, none empty; values: (K,). Returns two numbers: gini, bias."""
    K = len(values)
    counts = np.bincount([k for cohort in cohorts for k in cohort], minlength=K)
    gini = np.abs(counts[:, None] - counts).sum() / (2 * K**2 * counts.mean())
    bias = np.mean([values[cohort].mean() for cohort in cohorts]) - values.mean()
    return gini, bias


def bias_first(cohorts, values):
    return selection_bias(cohorts, values)[::-1]


def gini_of_the_asked(cohorts, values):
    _, counts = np.unique(np.concatenate(cohorts), return_counts=True)
    gini = np.abs(counts[:, None] - counts).sum() / (2 * len(counts) ** 2 * counts.mean())
    return gini, selection_bias(cohorts, values)[1]


def gini_twice(cohorts, values):
    gini, bias = selection_bias(cohorts, values)
    return 2 * gini, bias


def gini_of_pairs(cohorts, values):
    gini, bias = selection_bias(cohorts, values)
    return gini * len(values) / (len(values) - 1), bias


def gini_in_counts(cohorts, values):
    K = len(values)
    counts = np.bincount([k for cohort in cohorts for k in cohort], minlength=K)
    return np.abs(counts[:, None] - counts).sum() / (2 * K**2), selection_bias(cohorts, values)[1]


def spread_for_gini(cohorts, values):
    counts = np.bincount([k for cohort in cohorts for k in cohort], minlength=len(values))
    return counts.std() / counts.mean(), selection_bias(cohorts, values)[1]


def picks_pooled(cohorts, values):
    return selection_bias(cohorts, values)[0], values[[k for cohort in cohorts for k in cohort]].mean() - values.mean()


def against_the_asked(cohorts, values):
    gini, bias = selection_bias(cohorts, values)
    return gini, bias + values.mean() - values[np.unique(np.concatenate(cohorts))].mean()


def other_sign(cohorts, values):
    gini, bias = selection_bias(cohorts, values)
    return gini, -bias


def without_sign(cohorts, values):
    gini, bias = selection_bias(cohorts, values)
    return gini, abs(bias)


def mean_of_the_chosen(cohorts, values):
    gini, bias = selection_bias(cohorts, values)
    return gini, bias + values.mean()


def sums_of_cohorts(cohorts, values):
    return selection_bias(cohorts, values)[0], np.mean([values[cohort].sum() for cohort in cohorts]) - values.mean()


def relative_bias(cohorts, values):
    gini, bias = selection_bias(cohorts, values)
    return gini, bias / values.mean()


def gini_alone(cohorts, values):
    return selection_bias(cohorts, values)[0]


def bias_alone(cohorts, values):
    return selection_bias(cohorts, values)[1]


def values_for_counts(cohorts, values):
    K = len(values)
    return np.abs(values[:, None] - values).sum() / (2 * K**2 * values.mean()), selection_bias(cohorts, values)[1]


def draw_cohorts(rng, sign=1):
    """Cohorts of unequal size that favour the high values (sign -1: the low ones), and some client that nobody asked."""
    values = np.sort(rng.uniform(0.2, 0.9, size=8))[::-sign]
    chance = np.array([9, 8, 7, 5, 4, 2, 1, 0], dtype=float)
    sizes = rng.permutation([1, 2, 3, 4, 5])
    cohorts = [[int(k) for k in rng.choice(8, size=size, replace=False, p=chance / chance.sum())] for size in sizes]
    if sign * selection_bias(cohorts, values)[1] > 0.01 and len({k for cohort in cohorts for k in cohort}) < 8:
        order = rng.permutation(8)
        return [[int(order[k]) for k in cohort] for cohort in cohorts], values[np.argsort(order)]
    return draw_cohorts(rng, sign)


def draw_cohorts_of_the_low(rng):
    return draw_cohorts(rng, -1)


def test_bias(fn, rng):
    agrees_with(selection_bias, draw_cohorts, 2)(fn, rng)
    agrees_with(selection_bias, draw_cohorts_of_the_low, 2)(fn, rng)


# --- 06.starve_nobody -------------------------------------------------------------------------------------------------


def starve_nobody(scores, waited, k, patience):
    """scores: (n,), no two alike; waited: (n,), whole rounds since each was asked. Returns k row numbers in order."""
    rows = range(len(scores))
    return sorted(rows, key=lambda i: (-waited[i], i) if waited[i] >= patience else (0, -scores[i]))[:k]


def in_line(scores, waited, k, late, line):
    """Those that are `late`, by `line`, then the others by score; what several mistakes share."""
    first = sorted((i for i in range(len(scores)) if late(i)), key=line)
    return [*first, *(int(i) for i in np.argsort(-scores) if not late(i))][:k]


def by_score_alone(scores, waited, k, patience):
    return [int(i) for i in np.argsort(-scores)[:k]]


def one_round_more(scores, waited, k, patience):
    return starve_nobody(scores, waited, k, patience + 1)


def late_by_score(scores, waited, k, patience):
    return in_line(scores, waited, k, lambda i: waited[i] >= patience, lambda i: -scores[i])


def shortest_wait_first(scores, waited, k, patience):
    return in_line(scores, waited, k, lambda i: waited[i] >= patience, lambda i: (waited[i], i))


def late_by_number(scores, waited, k, patience):
    return in_line(scores, waited, k, lambda i: waited[i] >= patience, lambda i: i)


def all_by_wait(scores, waited, k, patience):
    return sorted(range(len(scores)), key=lambda i: (-waited[i], i))[:k]


def only_the_late(scores, waited, k, patience):
    return sorted((i for i in range(len(scores)) if waited[i] >= patience), key=lambda i: (-waited[i], i))[:k]


def late_on_top(scores, waited, k, patience):
    first = [i for i in range(len(scores)) if waited[i] >= patience]
    return starve_nobody(scores, waited, len(first) + k, patience)


def asked_twice(scores, waited, k, patience):
    first = sorted((i for i in range(len(scores)) if waited[i] >= patience), key=lambda i: (-waited[i], i))
    return [*first, *(int(i) for i in np.argsort(-scores))][:k]


def lowest_scores(scores, waited, k, patience):
    return starve_nobody(-scores, waited, k, patience)


def ties_backwards(scores, waited, k, patience):
    return in_line(scores, waited, k, lambda i: waited[i] >= patience, lambda i: (-waited[i], -i))


def late_last(scores, waited, k, patience):
    order = starve_nobody(scores, waited, len(scores), patience)
    late = [i for i in order if waited[i] >= patience]
    return [*(i for i in order if i not in late), *late][:k]


def by_their_number(scores, waited, k, patience):
    return sorted(starve_nobody(scores, waited, k, patience))


def scores_plus_wait(scores, waited, k, patience):
    return [int(i) for i in np.argsort(-(scores + waited / patience))[:k]]


def one_late_one(scores, waited, k, patience):
    late = np.flatnonzero(waited >= patience)
    first = [int(late[np.argmax(waited[late])])] if len(late) else []
    return [*first, *(int(i) for i in np.argsort(-scores) if i not in first)][:k]


STARVED = (by_score_alone, one_round_more, late_by_score, shortest_wait_first, late_by_number, all_by_wait, only_the_late,
           late_on_top, asked_twice, lowest_scores, ties_backwards, late_last, by_their_number, scores_plus_wait,
           one_late_one)  # fmt: skip


def draw_waiting(rng):
    """Nine clients of whom four have waited too long, two of these equally long; every slip gives another answer."""
    while True:
        patience = int(rng.integers(4, 8))
        waited = rng.permutation([patience, patience + 2, patience + 2, patience + 5, 0, 1, 2, 2, 3])
        scores = rng.uniform(0.1, 0.9, size=9)
        answers = [tuple(rule(scores, waited, 7, patience)) for rule in (starve_nobody, *STARVED)]
        if len(set(answers)) == len(answers):
            return scores, waited, 7, patience


def test_starve(fn, rng):
    agrees_with(starve_nobody, draw_waiting, 3)(fn, rng)
    scores, waited, _, patience = draw_waiting(rng)
    for k in (2, 9, 0):
        said = f"scores = {short(scores)}, waited = {short(waited)}, k = {k}, patience = {patience}"
        expect(fn(scores.copy(), waited.copy(), k, patience), starve_nobody(scores, waited, k, patience), said)


# --- 06.mended_choice -------------------------------------------------------------------------------------------------


def mended_choice(idle, reports, d, m, rng):
    """idle: names, whole numbers; reports: {name: its last loss}; m <= d <= len(idle). Returns m names, largest loss first."""
    candidates = rng.choice(idle, size=d, replace=False)
    losses = [reports.get(int(name), np.inf) for name in candidates]
    return [int(candidates[place]) for place in np.argsort(losses)[::-1][:m]]


def as_handed_out(idle, reports, d, m, rng):
    candidates = rng.choice(idle, size=d, replace=False)
    losses = [reports.get(int(name), np.inf) for name in candidates]
    return [int(place) for place in np.argsort(losses)[::-1][:m]]


def positions_in_idle(idle, reports, d, m, rng):
    candidates = rng.choice(idle, size=d, replace=False)
    losses = [reports.get(int(name), np.inf) for name in candidates]
    return [idle[place] for place in np.argsort(losses)[::-1][:m]]


def other_end(idle, reports, d, m, rng):
    candidates = rng.choice(idle, size=d, replace=False)
    losses = [reports.get(int(name), np.inf) for name in candidates]
    return [int(candidates[place]) for place in np.argsort(losses)[:m]]


def all_but_the_smallest(idle, reports, d, m, rng):
    candidates = rng.choice(idle, size=d, replace=False)
    losses = [reports.get(int(name), np.inf) for name in candidates]
    return [int(candidates[place]) for place in np.argsort(losses)[m:]]


def strangers_never(idle, reports, d, m, rng):
    candidates = rng.choice(idle, size=d, replace=False)
    losses = [reports.get(int(name), 0.0) for name in candidates]
    return [int(candidates[place]) for place in np.argsort(losses)[::-1][:m]]


def no_candidates(idle, reports, d, m, rng):
    losses = [reports.get(int(name), np.inf) for name in idle]
    return [int(idle[place]) for place in np.argsort(losses)[::-1][:m]]


def losses_unread(idle, reports, d, m, rng):
    return [int(name) for name in rng.choice(idle, size=m, replace=False)]


def drawn_with_replacement(idle, reports, d, m, rng):
    candidates = rng.choice(idle, size=d)
    losses = [reports.get(int(name), np.inf) for name in candidates]
    return [int(candidates[place]) for place in np.argsort(losses)[::-1][:m]]


def every_candidate(idle, reports, d, m, rng):
    candidates = rng.choice(idle, size=d, replace=False)
    losses = [reports.get(int(name), np.inf) for name in candidates]
    return [int(candidates[place]) for place in np.argsort(losses)[::-1]]


def smallest_first(idle, reports, d, m, rng):
    return mended_choice(idle, reports, d, m, rng)[::-1]


def losses_sorted_alone(idle, reports, d, m, rng):
    candidates = rng.choice(idle, size=d, replace=False)
    return sorted((reports.get(int(name), np.inf) for name in candidates), reverse=True)[:m]


def known_ones_only(idle, reports, d, m, rng):
    candidates = rng.choice(idle, size=d, replace=False)
    losses = [reports[int(name)] for name in candidates]
    return [int(candidates[place]) for place in np.argsort(losses)[::-1][:m]]


def places_in_the_draw(idle, reports, d, m, rng):
    places = rng.choice(len(idle), size=d, replace=False)
    losses = [reports.get(int(place), np.inf) for place in places]
    return [int(idle[places[i]]) for i in np.argsort(losses)[::-1][:m]]


def test_mended(fn, rng):
    """All are candidates: one right answer. Then few are, and every client is chosen as often as the odds say."""
    for n, m, strangers in ((40, 3, 0), (12, 4, 1), (8, 2, 1), (7, 7, 0)):
        idle = [int(name) for name in rng.choice(np.arange(50, 98), n, replace=False)]
        reports = {name: float(loss) for name, loss in zip(idle, rng.permutation(n) / n + 0.2, strict=True)}
        for name in idle[:strangers]:
            del reports[name]
        reports[99] = 9.0                                           # known, but away
        want = sorted(idle, key=lambda name: -reports.get(name, np.inf))[:m]
        tried = f"idle = {short(idle)}, reports = {short(reports)}, d = {n}, m = {m}"
        expect(names_of(fn(list(idle), dict(reports), n, m, fresh(rng)), tried), want, tried)
    idle, counts = [4, 2, 7, 5, 0, 1], dict[int, int]()
    reports = {0: 0.5, 1: 1.0, 2: 1.5, 4: 2.0, 5: 2.5, 7: 3.0}
    for _ in range(TRIES):
        got = names_of(fn(list(idle), dict(reports), 3, 1, fresh(rng)), "6 idle clients, d = 3, m = 1")
        expect(len(got), 1, "6 idle clients, d = 3, m = 1: how many are chosen")
        counts[got[0]] = counts.get(got[0], 0) + 1
    ranked = [7, 5, 4, 2, 1, 0]
    odds = {name: np.prod([(5 - rank - i) / (5 - i) for i in range(2)]) / 2 for rank, name in enumerate(ranked)}
    often(counts, odds, "6 idle clients, d = 3, m = 1")


EXERCISES = (
    Exercise(
        name="06.ask_fraction",
        title="Ask a fraction of the clients",
        difficulty=1,
        minutes=8,
        test=test_fraction,
        hints=(
            "How many? C·K, rounded, but at least `min_clients`, and never more than are there.",
            "K is `clients`, all of them, not the number of those that are idle just now.",
            "`rng.permutation(len(idle))[:m]` are m different places in `idle`, every set equally likely.",
        ),
        solution=ask_fraction,
        mistakes=(
            Mistake(with_replacement, "A client can be drawn twice here: draw without replacement."),
            Mistake(fraction_of_the_idle, "C is a share of *all* clients: C·K, however many happen to be idle."),
            Mistake(no_least, "`min_clients` is the least number to ask: take the larger of it and C·K."),
            Mistake(least_is_most, "`min_clients` is the least, so it is `max(…)` that you need, not `min(…)`."),
            Mistake(more_than_there_are, "Fewer may be there than you want: then ask all who are there."),
            Mistake(the_first_ones, "Always the first of the list: the others never learn anything. Draw at random."),
            Mistake(rounded_down, "`int` cuts off: 5.7 clients are 6. Use `round`."),
            Mistake(rounded_up, "You round up: 6.2 clients are 6. Use `round`."),
            Mistake(places_of_them, "These are places in the list. Their names are asked for: `idle[i]`."),
            Mistake(how_many, "That is how many. Which ones is asked for."),
            Mistake(own_coins, "A coin for each client asks m of them on average only. Exactly m are wanted."),
            Mistake(neighbours, "Neighbours in the list: each client comes equally often, but never with every other one."),
            Mistake(shuffled_in_place, "A good draw, but the caller's list is in another order now: shuffle a copy."),
            Mistake(everybody, "You ask everybody who is there."),
        ),
    ),
    Exercise(
        name="06.quality_score",
        title="The quality score",
        difficulty=1,
        minutes=10,
        test=agrees_with(quality_score, draw_profiles),
        hints=(
            "Four columns are the better the larger, the last is the worse: on a copy, turn it into 1 − staleness.",
            "Then fill the gaps: `np.where(np.isnan(parts), prior, parts)`.",
            "`parts @ weights` multiplies each row by the weights and adds up.",
        ),
        solution=quality_score,
        mistakes=(
            Mistake(stale_is_good, "The last column is staleness, and stale is bad: it enters as 1 − staleness."),
            Mistake(unknown_is_nothing, "What was never measured counts as 0 here, so it is never asked: use `prior`."),
            Mistake(unknown_is_half, "Unknown is `prior`, which need not be 0.5."),
            Mistake(unknown_stays, "NaN is still in it: fill the gaps first."),
            Mistake(prior_before_turning, "A gap in staleness is filled too early: `prior` is for 1 − staleness. Turn first."),
            Mistake(plain_mean_of_five, "The weights are forgotten: a plain mean counts all five alike."),
            Mistake(whole_client_unknown, "One gap does not make the whole client unknown: fill number by number."),
            Mistake(staleness_subtracted, "1 − staleness is not −staleness: the weight itself is missing from every score."),
            Mistake(one_for_all, "A score for each client is asked for: do not add up over the rows."),
            Mistake(best_client, "That is the best client. All scores are asked for."),
            Mistake(by_rank, "That is the order of the clients. Their scores are asked for."),
            Mistake(made_to_sum_to_one, "No need to make them add up to 1: the scores as they are."),
            Mistake(prior_is_the_score, "Its other columns are known: put `prior` in the gap, not in the score's place."),
        ),
    ),
    Exercise(
        name="06.spread_labels",
        title="As different as possible",
        difficulty=3,
        minutes=25,
        test=test_spread,
        hints=(
            "Turn each row of counts into shares that add up to 1. The distance of two clients is `np.abs(a - b).sum()`.",
            "How well is a client covered by those chosen so far? By the *nearest* of them.",
            "In each step take the client whose distance to its nearest chosen one is the largest; the chosen ones are out.",
        ),
        solution=spread_labels,
        mistakes=(
            Mistake(farthest_from_any, "Far from *one* of the chosen is not enough: it may be a twin of another one. Use `min`."),
            Mistake(farthest_on_average, "Far on average is not far from each: a twin of one chosen client can be. Use `min`."),
            Mistake(farthest_from_the_last, "You look at the last chosen one only. All of them count: the nearest decides."),
            Mistake(farthest_from_the_first, "You look at the first chosen one only. All of them count: the nearest decides."),
            Mistake(nearest_ones, "These are the most similar clients. The largest of the smallest distances is wanted."),
            Mistake(counts_for_shares, "With counts a large client is far from all others because it is large. Use shares."),
            Mistake(begins_with_row_zero, "The first is the client with the most examples, not row 0."),
            Mistake(begins_with_the_smallest, "The first is the client with the *most* examples."),
            Mistake(shares_of_a_class, "The shares of a *client* add up to 1: divide along the row, not along the column."),
            Mistake(the_largest_clients, "These are the k largest clients. Only the first is chosen by size."),
            Mistake(sorted_rows, "The right clients; but return them in the order in which they were chosen."),
            Mistake(one_too_few, "One too few: the first one counts as well."),
            Mistake(first_one_always, "k = 0 is nobody."),
            Mistake(rows_themselves, "These are the rows. Their numbers are asked for."),
            Mistake(one_again, "A client is chosen twice. Take the chosen ones out, also where all others are their twins."),
        ),
    ),
    Exercise(
        name="06.power_of_choice",
        title="Power-of-Choice",
        difficulty=2,
        minutes=15,
        test=test_power,
        hints=(
            "Three steps: draw d candidates, ask these d, keep the m with the largest losses.",
            "`rng.choice(len(sizes), size=d, replace=False, p=sizes / sizes.sum())` draws the candidates.",
            "`np.argsort(-losses)[:m]` are places *among the candidates*: `candidates[…]` are their numbers.",
        ),
        solution=power_of_choice,
        mistakes=(
            Mistake(smallest_losses, "These are the smallest losses: `argsort` sorts upwards."),
            Mistake(asks_all, "You ask all K clients: K models down, where d would do. And nobody but the worst ever comes."),
            Mistake(asks_all_for_candidates, "Ask the candidates only: every question is a model on its way down."),
            Mistake(all_alike, "Candidates are drawn in proportion to their sizes: `p=sizes / sizes.sum()`."),
            Mistake(drawn_again, "The same client can be a candidate twice: `replace=False`."),
            Mistake(nobody_asked, "Nobody was asked for a loss: that is sampling by size."),
            Mistake(no_choice_left, "With m candidates there is nothing to choose. Draw d of them."),
            Mistake(where_they_stand, "These are places among the candidates. `candidates[place]` is the client."),
            Mistake(all_candidates, "You return all d candidates: the first m."),
            Mistake(largest_last, "The right ones; but the one of largest loss comes first."),
            Mistake(sizes_not_shares, "Probabilities must add up to 1: divide the sizes by their sum."),
            Mistake(losses_only, "These are the losses. The clients are asked for."),
            Mistake(drawn_by_loss, "The losses are no odds: the m largest are taken."),
            Mistake(largest_sizes, "The candidates are *drawn*, a large client more often; not simply the largest."),
        ),
    ),
    Exercise(
        name="06.oort_utility",
        title="What a client is worth to Oort",
        difficulty=2,
        minutes=15,
        test=test_oort,
        hints=(
            "Three parts: how useful its examples are, a factor if it is too slow, and a bonus that is *added*.",
            "Useful: n·√(mean of the squared losses). The factor (T/t)^α counts only where t > T.",
            "The bonus is `np.sqrt(0.1 * np.log(version) / last)`, whatever the speed.",
        ),
        solution=oort_utility,
        mistakes=(
            Mistake(square_of_the_mean, "The root of the squared mean is the mean. Square each loss *before* you take the mean."),
            Mistake(root_of_the_sum, "n·√(mean of squares) is √n times √(sum of squares)."),
            Mistake(not_times_n, "Times the number of examples: a client with more of them is worth more."),
            Mistake(no_root, "The root over the mean of squares is missing."),
            Mistake(fast_ones_paid, "Who is faster than T gets no reward: the factor counts only for t > T."),
            Mistake(slow_ones_paid, "The factor is upside down: slow clients become worth more."),
            Mistake(fast_ones_fined, "The factor stands on the wrong side: it is for clients slower than T."),
            Mistake(nobody_fined, "A slow client (t > T) is worth less by the factor (T/t)^α."),
            Mistake(fined_without_alpha, "α is forgotten: (T/t)^α."),
            Mistake(no_bonus, "The bonus for those that were not heard for long is missing."),
            Mistake(bonus_upside_down, "The bonus is √(0.1·ln R / L): R is this round, L the last one in which it took part."),
            Mistake(rounds_since, "L is the *number* of the last round, not how many rounds ago it was."),
            Mistake(bonus_not_rooted, "The bonus has a root over all of it."),
            Mistake(tenths, "The natural logarithm: `np.log`."),
            Mistake(tenth_outside, "The 0.1 stands under the root, too."),
            Mistake(bonus_fined, "The bonus is added after the factor: it is not made smaller for slow clients."),
        ),
    ),
    Exercise(
        name="06.selection_bias",
        title="How unfair, and how wrong?",
        difficulty=2,
        minutes=15,
        test=test_bias,
        hints=(
            "Count how often each of the K clients was in a cohort; who never was counts as 0.",
            "gini = Σᵢ Σⱼ |cᵢ − cⱼ| / (2·K²·mean count): `np.abs(c[:, None] - c).sum()` is the double sum.",
            "bias: each round has a mean value of its cohort. The mean of these, minus the mean over all K clients.",
        ),
        solution=selection_bias,
        mistakes=(
            Mistake(bias_first, "The order is gini, bias."),
            Mistake(gini_of_the_asked, "Who was never asked counts, too, with 0: `np.bincount(…, minlength=K)`."),
            Mistake(gini_twice, "The double sum meets each pair twice: divide by 2·K²·mean."),
            Mistake(gini_of_pairs, "Divide by K², not by K·(K − 1)."),
            Mistake(gini_in_counts, "The mean count is missing below the line: gini has no unit."),
            Mistake(spread_for_gini, "That is the standard deviation over the mean. Gini is built of all differences of pairs."),
            Mistake(picks_pooled, "Each *round* counts once, however many it asked: a mean for each cohort first."),
            Mistake(against_the_asked, "Compare with the mean over all K clients, not over those that were ever asked."),
            Mistake(other_sign, "The other way round: cohorts minus all."),
            Mistake(without_sign, "The sign says in which direction: leave it."),
            Mistake(mean_of_the_chosen, "Subtract the mean over all clients."),
            Mistake(sums_of_cohorts, "The *mean* value of each cohort, not its sum."),
            Mistake(relative_bias, "The difference itself, not as a share of the mean."),
            Mistake(gini_alone, "The bias is asked for, too: return (gini, bias)."),
            Mistake(bias_alone, "The Gini coefficient is asked for, too: return (gini, bias)."),
            Mistake(values_for_counts, "That is the inequality of the values. Count how often each client was asked."),
        ),
    ),
    Exercise(
        name="06.starve_nobody",
        title="Starve nobody",
        difficulty=2,
        minutes=15,
        test=test_starve,
        hints=(
            "Two groups: those that have waited `patience` rounds or longer, and all others.",
            "The first group goes by waiting, longest first, equal waits by row number; the second by score, highest first.",
            "`sorted(rows, key=…)` with the key (−waited, row) for the late and (0, −score) for the others puts the late first.",
        ),
        solution=starve_nobody,
        mistakes=(
            Mistake(by_score_alone, "By score alone: who scores low is never asked. The late go first."),
            Mistake(one_round_more, "Who has waited exactly `patience` rounds is late already: `>=`."),
            Mistake(late_by_score, "Among the late the longest wait decides, not the score."),
            Mistake(shortest_wait_first, "The longest wait goes first."),
            Mistake(late_by_number, "Among the late the longest wait decides; the row number only between equal ones."),
            Mistake(all_by_wait, "Waiting decides among the late only. All others go by score."),
            Mistake(only_the_late, "When the late are served, fill up to k by score."),
            Mistake(late_on_top, "k in all, the late among them: they cost others their places."),
            Mistake(asked_twice, "A late client can be in the answer twice: take it out of the rest."),
            Mistake(lowest_scores, "The highest scores are wanted."),
            Mistake(ties_backwards, "Of equal waits the lower row number goes first."),
            Mistake(late_last, "The late go first, not last."),
            Mistake(by_their_number, "The right ones; but return them in the order in which they go."),
            Mistake(scores_plus_wait, "Added to a score, waiting can still lose. A late client goes before every other."),
            Mistake(one_late_one, "All of the late go first, not only one."),
        ),
    ),
    Exercise(
        name="06.mended_choice",
        title="What is wrong with this one?",
        difficulty=3,
        minutes=25,
        test=test_mended,
        hints=(
            "Read the oracle's table: which clients are ever chosen? What have they in common, whatever their losses?",
            "What does `np.argsort(losses)` sort: names, or places in the list of candidates?",
            "Place i belongs to the name `candidates[i]`.",
        ),
        solution=mended_choice,
        mistakes=(
            Mistake(as_handed_out, "As it was handed out: it returns places among the candidates as if they were names."),
            Mistake(positions_in_idle, "The places are among the *candidates*, not in `idle`: these are other clients."),
            Mistake(other_end, "Now these are names; but those of the smallest losses."),
            Mistake(all_but_the_smallest, "`[m:]` leaves out the m smallest. The m largest are the last m: `[-m:]`."),
            Mistake(strangers_never, "Who has never reported counts as infinite, so that it is asked once; with 0 it never is."),
            Mistake(no_candidates, "You look at all of `idle`. Draw d candidates first: else it is always the same clients."),
            Mistake(losses_unread, "That is uniform sampling: the losses are not read at all."),
            Mistake(drawn_with_replacement, "A client can be a candidate twice: `replace=False`."),
            Mistake(every_candidate, "You return all candidates: m of them."),
            Mistake(smallest_first, "The right ones; but the largest loss comes first."),
            Mistake(losses_sorted_alone, "These are the losses. The names that belong to them are asked for."),
            Mistake(known_ones_only, "A client that has never reported has no entry: `reports.get(name, np.inf)`."),
            Mistake(places_in_the_draw, "`reports` goes by names, and you ask it for places in `idle`."),
        ),
    ),
)  # fmt: skip
