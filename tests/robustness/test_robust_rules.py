"""Rules by hand: slow oracles, breakdown points, equivariance, what is no number, and the last few updates."""

import itertools
import math

import numpy as np
import pytest
from scipy.optimize import minimize

from fl_course import (
    Aggregate,
    Bucketing,
    Bulyan,
    CentredClipping,
    CoordinateMedian,
    FLTrust,
    GeometricMedian,
    Krum,
    MultiKrum,
    NearestNeighbourMixing,
    NormBound,
    OutlierRemoval,
    TrimmedMean,
    Update,
    digits,
    stream,
)
from fl_course.robustness.before import bucket, mix
from fl_course.robustness.clipping import centred_clipping, norm_bound
from fl_course.robustness.coordinates import TILE, coordinate_median, trimmed_mean
from fl_course.robustness.distances import squared_distances
from fl_course.robustness.fltrust import fltrust, trust
from fl_course.robustness.geometric import geometric_median
from fl_course.robustness.krum import bulyan_selection, krum_scores
from fl_course.robustness.outliers import keep, robust_z


def cloud(seed, n=None, d=None):
    rng = stream(seed, "cloud")
    n, d = n or int(rng.integers(3, 20)), d or int(rng.integers(1, 9))
    return rng.standard_normal((n, d)) * rng.uniform(0.1, 5) + rng.standard_normal(d)


def each(f=2):
    """Every rule that answers without a round."""
    return [
        OutlierRemoval(f=f), OutlierRemoval("norm", f=f), CoordinateMedian(f), TrimmedMean(f), Krum(f), MultiKrum(f),
        MultiKrum(f, 2), Bulyan(f), GeometricMedian(f), CentredClipping(2.0, f=f), NormBound(2.0, f=f),
        Bucketing(TrimmedMean(f)), Bucketing(Krum(f), 1), NearestNeighbourMixing(Krum(f)),
        NearestNeighbourMixing(CoordinateMedian(f)), Bucketing(NearestNeighbourMixing(Krum(f))),
    ]  # fmt: skip


# --- ten-line oracles ------------------------------------------------------------------------------------------------


def slow_krum(x, f):
    out = []
    for i in range(len(x)):
        squares = sorted(sum((a - b) ** 2 for a, b in zip(x[i], x[j], strict=True)) for j in range(len(x)) if j != i)
        out.append(sum(squares[: len(x) - f - 2]))
    return out


def slow_bulyan(x, f):
    left, chosen = list(range(len(x))), []
    while len(chosen) < len(x) - 2 * f:
        def score(i, left=left):
            squares = sorted(float(((x[i] - x[j]) ** 2).sum()) for j in left if j != i)
            return sum(squares[: max(1, len(left) - f - 2)]), sum(squares)

        best = min(left, key=score)
        left.remove(best)
        chosen.append(x[best])
    out = []
    for column in np.array(chosen).T:
        middle = np.median(column)
        out.append(np.mean(sorted(column, key=lambda v, middle=middle: abs(v - middle))[: len(chosen) - 2 * f]))
    return np.array(out)


@pytest.mark.parametrize("seed", range(30))
def test_every_rule_equals_its_ten_line_oracle(seed):
    rng = stream(seed, "oracle")
    f = int(rng.integers(0, 4))
    x = cloud(seed, n=int(rng.integers(4 * f + 3, 4 * f + 9)))
    n = len(x)
    close = {"rtol": 0, "atol": 1e-10}
    np.testing.assert_allclose(CoordinateMedian(f)(x), np.median(x, axis=0), **close)
    np.testing.assert_allclose(TrimmedMean(f)(x), [np.mean(sorted(column)[f : n - f]) for column in x.T], **close)
    scores = slow_krum(x, f)
    np.testing.assert_allclose(krum_scores(x, f), scores, **close)
    np.testing.assert_allclose(Krum(f)(x), x[int(np.argmin(scores))], **close)
    np.testing.assert_allclose(MultiKrum(f)(x), x[np.argsort(scores)[: n - f]].mean(axis=0), **close)
    np.testing.assert_allclose(Bulyan(f)(x), slow_bulyan(x, f), **close)
    nearest = np.array([x[np.argsort([((a - b) ** 2).sum() for b in x])[: n - f]].mean(axis=0) for a in x])
    np.testing.assert_allclose(mix(x, f), nearest, **close)
    v = np.zeros(x.shape[1])
    for _ in range(3):
        v = v + np.mean([(a - v) * min(1, 0.7 / np.linalg.norm(a - v)) for a in x], axis=0)
    np.testing.assert_allclose(CentredClipping(0.7, 3)(x), v, **close)
    np.testing.assert_allclose(norm_bound(x, 0.5), np.mean([a * min(1, 0.5 / np.linalg.norm(a)) for a in x], axis=0), **close)
    root = x.mean(axis=0) + 0.1 * rng.standard_normal(x.shape[1])
    trusted = [max(0, float(a @ root) / np.linalg.norm(a) / np.linalg.norm(root)) for a in x]
    scaled = sum(t * np.linalg.norm(root) / np.linalg.norm(a) * a for t, a in zip(trusted, x, strict=True)) / sum(trusted)
    np.testing.assert_allclose(fltrust(x, root), scaled, **close)


@pytest.mark.parametrize("seed", range(30))
def test_geometric_median_has_the_least_sum_of_distances(seed):
    x = cloud(seed)

    def total(z):
        return np.linalg.norm(x - z, axis=1).sum()

    mine = GeometricMedian()(x)
    starts = [x.mean(axis=0), np.median(x, axis=0), mine]
    found = min(minimize(total, start, method="Nelder-Mead", options={"xatol": 1e-12, "fatol": 1e-12, "maxfev": 20000}).fun
                for start in starts)  # fmt: skip
    assert total(mine) <= min(found, min(total(row) for row in x)) * (1 + 1e-7)


@pytest.mark.parametrize("far", [1e3, 1e8, 1e20, 1e30])
def test_geometric_median_is_converged_beside_far_outliers(far):
    honest = cloud(1, n=11, d=4)
    x = np.concatenate([honest, far * (1 + cloud(2, n=9, d=4))])
    z = geometric_median(x)
    pull = sum((row - z) / np.linalg.norm(row - z) for row in x)
    assert np.linalg.norm(pull) < 1e-3                       # at the optimum the unit pulls cancel
    assert np.linalg.norm(z - honest.mean(axis=0)) < 40


def test_geometric_median_where_it_is_known():
    np.testing.assert_array_equal(GeometricMedian()([[1, 2, 3], [4, 5, 6], [7, 8, 9]]), [4, 5, 6])
    corners = [[0, 0], [4, 0], [4, 4], [0, 4]]
    np.testing.assert_allclose(GeometricMedian()(corners), [2, 2], atol=1e-9)               # where the diagonals cross
    np.testing.assert_allclose(GeometricMedian()([[0.0], [1.0], [2.0], [9.0]]), [1.5], atol=0.5)
    np.testing.assert_allclose(GeometricMedian()([[0.0, 0], [2, 2]]), [1, 1], atol=1e-12)
    triangle = np.array([[0, 0], [1, 0], [0.5, math.sqrt(3) / 2]])
    np.testing.assert_allclose(GeometricMedian()(triangle), triangle.mean(axis=0), atol=1e-8)
    np.testing.assert_array_equal(GeometricMedian()([[0, 0], [0, 0], [0, 0], [5, 1], [7, 7.0]]), [0, 0])      # three of five
    flat = [[0, 0], [10, 0], [5, 0.1]]                                                        # an angle beyond 120 degrees
    np.testing.assert_array_equal(GeometricMedian()(flat), [5, 0.1])


def test_a_large_nu_is_the_mean_and_therefore_refused():
    x = cloud(3, n=9, d=3)
    np.testing.assert_allclose(geometric_median(x, nu=1e3), x.mean(axis=0), atol=1e-9)
    assert np.linalg.norm(GeometricMedian()(x) - x.mean(axis=0)) > 1e-3
    for nu in (0, -1, 0.2, 1, math.nan, math.inf):
        with pytest.raises(ValueError, match="nu"):
            GeometricMedian(nu=nu)


FLOWER = {
    "krum": [0.123, -0.244, 0.361, -0.472, 0.577],
    "multi": [0.1, 0.001, 0.024, -0.2076667, 0.4507778],
    "bulyan": [0.2033333, -0.173, 0.4166667, -0.559, 0.698],
    "trimmed": [0.1535714, -0.0068571, 0.0147143, -0.0592857, 0.3147143],
    "median": [0.184, -0.062, 0.361, -0.062, 0.577],
}  # fmt: skip


def test_values_of_flowers_own_functions():
    """flwr 1.41.0, x = np.round(np.sin(np.outer(np.arange(1, 12), np.arange(1, 6)) * 7.7), 3), f = 2, results = [([row], 1) ...]:
    aggregate_krum(results, 2, 0), aggregate_krum(results, 2, 9), aggregate_bulyan(results, 2, aggregate_krum, to_keep=0),
    aggregate_trimmed_avg(results, 2 / 11 + 1e-9), aggregate_median(results). 300 more draws: benchmarks/robust.py."""
    x = np.round(np.sin(np.outer(np.arange(1, 12), np.arange(1, 6)) * 7.7), 3)
    for name, rule in {"krum": Krum(2), "multi": MultiKrum(2), "bulyan": Bulyan(2), "trimmed": TrimmedMean(2),
                       "median": CoordinateMedian(2)}.items():  # fmt: skip
        np.testing.assert_allclose(rule(x), FLOWER[name], atol=1e-5, err_msg=name)


def test_krum_counts_n_minus_f_minus_2_squared_distances_to_others():
    """Six on a line, f = 1: with n - f - 1 neighbours, or with distances that are not squared, or squared twice, another wins."""
    x = np.array([[0.0], [1], [2.1], [3.3], [7], [8.2]])
    assert krum_scores(x, 1)[0] == pytest.approx(1 + 2.1**2 + 3.3**2)
    differ = 0
    for seed in range(200):
        x = cloud(seed, n=7, d=2)
        table = np.sort(squared_distances(x), axis=1)[:, 1:]
        differ += np.argmin(table[:, :3].sum(axis=1)) != np.argmin(table[:, :4].sum(axis=1))
    assert differ > 10
    np.testing.assert_array_equal(krum_scores([[1.0]] * 3 + [[2.0], [3.0]], 0), [1, 1, 1, 3, 1 + 4 + 4])     # equals are others


def test_tiles_and_shapes_do_not_matter():
    x = stream(0, "wide").standard_normal((9, 3 * TILE + 17))
    np.testing.assert_allclose(coordinate_median(x), np.median(x, axis=0), atol=1e-15)
    single = x.astype(np.float32)
    np.testing.assert_allclose(trimmed_mean(single, 2), np.sort(single, axis=0)[2:7].mean(axis=0, dtype=float), atol=1e-15)
    np.testing.assert_allclose(Bulyan(1)(x), slow_bulyan(x, 1), atol=1e-12)


@pytest.mark.parametrize("offset", [0, 1, 1e4, 1e8])
def test_distances_of_near_rows_do_not_cancel(offset):
    x = cloud(5, n=8, d=6) * 1e-2
    x[3] = x[2]
    table, slow = squared_distances(x + offset), np.array([[((a - b) ** 2).sum() for b in x + offset] for a in x + offset])
    np.testing.assert_allclose(table, slow, rtol=1e-6)
    assert table[2, 3] == 0
    assert (np.diag(table) == 0).all()


@pytest.mark.parametrize("rule", each(1), ids=repr)
def test_arrays_of_any_kind(rule):
    x = cloud(0, n=rule.least + 2, d=4).astype(np.float32).astype(float)
    locked = x.copy()
    locked.flags.writeable = False
    expected = rule(x)
    turned = x[::-1].copy()[::-1], x[:, ::-1].copy()[:, ::-1]
    for same in (locked, x.tolist(), *turned, np.asfortranarray(x), x.astype(np.float32)):
        np.testing.assert_allclose(rule(same), expected, atol=1e-9)
    assert np.isfinite(rule(np.ones((rule.least, 1), dtype=int))).all()


# --- breakdown points, on both sides ---------------------------------------------------------------------------------

LEAST = [(CoordinateMedian, 5), (TrimmedMean, 5), (Krum, 7), (MultiKrum, 7), (Bulyan, 11), (GeometricMedian, 5),
         (lambda f: OutlierRemoval(f=f), 5), (lambda f: CentredClipping(1.0, f=f), 5), (lambda f: NormBound(1.0, f=f), 5),
         (lambda f: Bucketing(CoordinateMedian(f)), 9), (lambda f: Bucketing(Krum(f), 3), 19),
         (lambda f: Bucketing(Krum(f), 1), 7), (lambda f: NearestNeighbourMixing(TrimmedMean(f)), 5),
         (lambda f: NearestNeighbourMixing(Bulyan(f)), 11)]  # fmt: skip


@pytest.mark.parametrize(("make", "least"), LEAST)
def test_breakdown_points_on_both_sides(make, least):
    rule = make(2)
    assert rule.least == least
    assert np.isfinite(rule(cloud(0, n=least, d=3))).all()
    with pytest.raises(ValueError, match=f"needs {least} updates or more, and {least - 1}"):
        rule(cloud(0, n=least - 1, d=3))
    with pytest.raises(ValueError, match="needs"):
        rule.combine(updates(cloud(0, n=least - 1, d=3)), [0] * (least - 1))


BOUNDED = [CoordinateMedian, TrimmedMean, Krum, MultiKrum, Bulyan, GeometricMedian, lambda f: OutlierRemoval(f=f),
           lambda f: OutlierRemoval("norm", f=f), lambda f: NearestNeighbourMixing(CoordinateMedian(f)),
           lambda f: Bucketing(GeometricMedian(f)), lambda f: NearestNeighbourMixing(Krum(f))]  # fmt: skip


@pytest.mark.parametrize("make", BOUNDED)
@pytest.mark.parametrize("lie", ["huge", "apart", "flip", "alie", "ipm"])
@pytest.mark.parametrize("f", [1, 3])
def test_with_f_liars_the_answer_stays_among_the_honest(make, lie, f):
    rule = make(f)
    n = rule.least + 2
    honest = stream(f, "honest").standard_normal((n - f, 30)) + 1
    mean, std = honest.mean(axis=0), honest.std(axis=0)
    lies = {"huge": np.full((f, 30), 1e8), "apart": 1e8 * stream(0, "apart").standard_normal((f, 30)),
            "flip": np.tile(-10 * mean, (f, 1)), "alie": np.tile(mean - 1.5 * std, (f, 1)),
            "ipm": np.tile(-0.1 * mean, (f, 1))}[lie]  # fmt: skip
    x = np.concatenate([honest, lies])
    off = np.linalg.norm(rule(x) - mean)
    assert off < 4 * np.sqrt((std**2).sum())
    if lie in ("huge", "apart"):
        assert np.linalg.norm(x.mean(axis=0) - mean) > 1e6                     # and the mean breaks


@pytest.mark.parametrize("rule", [CoordinateMedian(1), TrimmedMean(1), GeometricMedian(1)], ids=repr)
def test_one_liar_too_many_breaks_it(rule):
    """n = 3, f = 1 holds; two of three do not."""
    honest = np.zeros((1, 2))
    assert np.linalg.norm(rule(np.concatenate([honest, honest, [[1e9, 1e9]]]))) < 1
    assert np.linalg.norm(rule(np.concatenate([honest, [[1e9, 1e9], [1e9, 1e9]]]))) > 1e8


def test_bucketing_keeps_f_times_s_below_the_limit_of_its_rule():
    x = np.concatenate([stream(0, "honest").standard_normal((13, 4)), np.full((4, 4), 1e9)])
    assert np.linalg.norm(Bucketing(CoordinateMedian(4))(x)) < 10               # 9 buckets, at most 4 spoilt
    with pytest.raises(ValueError, match="needs 17"):
        Bucketing(CoordinateMedian(4))(x[1:])                                   # 8 buckets: 4 spoilt would be half
    with pytest.raises(ValueError, match="needs 25"):
        Bucketing(CoordinateMedian(4), 3)(x)


# --- equivariance ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", each(), ids=repr)
@pytest.mark.parametrize("seed", range(3))
def test_the_order_does_not_matter(rule, seed):
    x = cloud(seed, n=rule.least + 4)
    if isinstance(rule, Bucketing) and rule.s > 1:                              # whose shuffle follows the places
        assert np.linalg.norm(rule(x) - x.mean(axis=0)) < np.linalg.norm(x - x.mean(axis=0), axis=1).max()
        return
    shuffled = x[stream(seed, "order").permutation(len(x))]
    np.testing.assert_allclose(rule(shuffled), rule(x), atol=1e-8)


@pytest.mark.parametrize("rule", each(), ids=repr)
@pytest.mark.parametrize("seed", range(3))
def test_shifts_and_scales_carry_over(rule, seed):
    """Not for rules with a length in them; a bound on norms, and norms themselves, also know where zero is."""
    x = cloud(seed, n=rule.least + 4)
    move = stream(seed, "move").standard_normal(x.shape[1])
    lengths_in_it = isinstance(rule, CentredClipping | NormBound)
    knows_zero = lengths_in_it or (isinstance(rule, OutlierRemoval) and rule.by == "norm")
    if not knows_zero:
        np.testing.assert_allclose(rule(x + move), rule(x) + move, atol=1e-8)
        np.testing.assert_allclose(rule(x + 1e3), rule(x) + 1e3, atol=1e-7)
    if not lengths_in_it:
        np.testing.assert_allclose(rule(37 * x), 37 * rule(x), rtol=1e-8, atol=1e-8)
        np.testing.assert_allclose(rule(1e-6 * x), 1e-6 * rule(x), rtol=1e-8, atol=1e-12)


def test_rules_with_a_length_scale_with_it():
    x = cloud(0, n=9)
    np.testing.assert_allclose(norm_bound(3 * x, 1.5), 3 * norm_bound(x, 0.5), atol=1e-12)
    np.testing.assert_allclose(centred_clipping(3 * x, 3 * x[0], 1.5, 2), 3 * centred_clipping(x, x[0], 0.5, 2), atol=1e-12)
    np.testing.assert_allclose(centred_clipping(x + 1, x[0] + 1, 0.5, 2), centred_clipping(x, x[0], 0.5, 2) + 1, atol=1e-12)
    np.testing.assert_allclose(centred_clipping(x, 0 * x[0], 1e9), x.mean(axis=0), atol=1e-12)
    np.testing.assert_allclose(norm_bound(x, 1e9), x.mean(axis=0), atol=1e-12)


@pytest.mark.parametrize("rule", each(), ids=repr)
@pytest.mark.parametrize("value", [0.0, 1.5, -3e-20, 1e30])
def test_identical_updates_come_back(rule, value):
    x = np.full((rule.least + 2, 5), value)
    if isinstance(rule, CentredClipping | NormBound):
        reach = 2.0 / max(2.0, np.linalg.norm(x[0]))
        np.testing.assert_allclose(rule(x), reach * x[0], rtol=1e-12)
    else:
        np.testing.assert_allclose(rule(x), x[0], rtol=1e-12)
        assert rule.combine(updates(x), [0] * len(x)).removed == () or isinstance(rule, NO_MEAN) or "Krum" in repr(rule)


NO_MEAN = (Krum, MultiKrum, Bulyan)


@pytest.mark.parametrize("rule", each(0), ids=repr)
def test_with_nobody_to_fear_it_is_the_mean_or_close(rule):
    """f = 0: what averages averages all."""
    x = cloud(7, n=15, d=4)
    plain = x.mean(axis=0)
    same = isinstance(rule, TrimmedMean | Bulyan) or (isinstance(rule, MultiKrum) and rule.m is None)
    np.testing.assert_allclose(rule(x), plain, atol=1e-9 if same else 4 * x.std())


@pytest.mark.parametrize("rule", each(0), ids=repr)
def test_a_single_update_comes_back(rule):
    x = np.array([[0.5, -1.0, 0.25]])
    if rule.least == 1:
        np.testing.assert_allclose(rule(x), x[0], atol=1e-12)
    else:
        with pytest.raises(ValueError, match="needs"):
            rule(x)


# --- what is no number -----------------------------------------------------------------------------------------------


def updates(x, weights=None, clients=None):
    weights = [1.0] * len(x) if weights is None else weights
    clients = range(len(x)) if clients is None else clients
    return [Update(c, 0, np.asarray(row, np.float32) * np.float32(w), w) for c, row, w in zip(clients, x, weights, strict=True)]


BAD = [math.nan, math.inf, -math.inf]


@pytest.mark.parametrize("rule", each(1), ids=repr)
@pytest.mark.parametrize("bad", BAD)
def test_updates_that_are_no_numbers_are_named_and_never_averaged(rule, bad):
    x = cloud(4, n=rule.least + 3, d=4).astype(np.float32)
    spoilt = x.copy()
    spoilt[2, 1] = bad
    answer = rule.combine(updates(spoilt), [0] * len(x))
    assert 2 in answer.removed
    assert np.isfinite(answer.mean).all()
    others = np.delete(x, 2, axis=0)
    if not isinstance(rule, Bucketing):
        np.testing.assert_allclose(answer.mean, rule.facing(1)(others), atol=1e-5)
    np.testing.assert_allclose(rule(spoilt), rule.facing(1)(others), atol=1e-12)


def test_whoever_is_found_out_so_is_one_of_the_f():
    x = np.concatenate([cloud(4, n=5, d=4), np.full((2, 4), np.nan)])
    answer = Krum(2).combine(updates(x), [0] * 7)                              # five are left, and nobody else lies
    assert {5, 6} <= set(answer.removed)
    assert Krum(2).facing(2) == Krum(0)
    assert Bucketing(Krum(2)).facing(1) == Bucketing(Krum(1))
    with pytest.raises(ValueError, match="needs 3 updates"):
        Krum(2).combine(updates(np.full((7, 2), np.nan)), [0] * 7)


def test_nothing_but_rubbish_is_refused():
    for rule in each(0):
        with pytest.raises(ValueError, match="needs"):
            rule(np.full((9, 2), np.nan))
        with pytest.raises(ValueError, match="no update"):
            rule.combine([], [])
        for wrong in (np.zeros(3), np.zeros((0, 3)), np.zeros((3, 0)), np.zeros((2, 2, 2)), 1.0, [["a"]], [[1j]], [[None]]):
            with pytest.raises(ValueError, match=r"\(n, d\)"):
                rule(wrong)


def test_numbers_beyond_float32_are_no_numbers():
    """Large ones, and a tiny weight that makes them large; squares of what is left do not overflow."""
    x = np.concatenate([cloud(1, n=8, d=3), np.full((1, 3), 3e38)])
    for rule in each(1):
        if rule.least <= 9:
            assert np.linalg.norm(rule(x)) < 1e2 or isinstance(rule, CentredClipping | NormBound | Bucketing)
            assert np.isfinite(rule(x)).all()
    sent = [*updates(x[:8]), Update(8, 0, np.full(3, 1e30, np.float32), 1e-30)]
    assert CoordinateMedian(1).combine(sent, [0] * 9).removed == (8,)
    for weight in (0.0, -1.0, math.nan):
        sent[8] = Update(8, 0, np.ones(3, np.float32), weight)
        assert CoordinateMedian(1).combine(sent, [0] * 9).removed == (8,)


# --- weights, names, payloads ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", each(1), ids=repr)
def test_a_weight_is_divided_out_and_gives_no_say(rule):
    x = cloud(8, n=rule.least + 3, d=5)
    n = len(x)
    plain = rule.combine(updates(x), [0] * n)
    heavy = rule.combine(updates(x, weights=[float(k + 1) ** 2 for k in range(n)]), [0] * n)
    np.testing.assert_allclose(heavy.mean, plain.mean, rtol=1e-4, atol=1e-5)
    assert heavy.removed == plain.removed
    assert heavy.weight == n - len(plain.removed)
    assert isinstance(plain, Aggregate)
    np.testing.assert_allclose(plain.mean, rule(np.array([u.delta for u in updates(x)])), atol=1e-6)


def test_two_answers_of_one_client_are_one_vote():
    x = np.array([[1.0], [2], [3], [100], [102]])
    twice = CoordinateMedian().combine(updates(x, clients=["a", "b", "c", "d", "d"]), [0, 0, 0, 1, 0])
    assert twice.mean == pytest.approx(2.5)
    alike = TrimmedMean(0).combine(updates(x, clients=["a", "b", "c", "d", "d"]), [0, 0, 0, 1, 0])
    assert alike.mean == pytest.approx((1 + 2 + 3 + 101) / 4)
    assert Krum(0).combine(updates(x, clients=["a", "b", "c", "d", "d"]), [0] * 5).removed == ("a", "c", "d")


def test_names_of_any_kind_in_the_order_in_which_they_came():
    x = np.concatenate([cloud(0, n=6, d=3), np.full((2, 3), 1e7)])
    names = [3, "b", -7, "zz", 10**12, "ü", "liar", 0]
    assert OutlierRemoval().combine(updates(x, clients=names), [0] * 8).removed == ("liar", 0)


def test_what_goes_past_the_rule_is_refused():
    good = updates(cloud(0, n=5, d=3))
    with pytest.raises(ValueError, match="'a' sent control beside"):
        CoordinateMedian().combine([*good, Update("a", 0, np.zeros(3, np.float32), 1.0, {"control": np.zeros(3)})], [0] * 6)
    with pytest.raises(TypeError, match="reads single updates"):
        CoordinateMedian().combine([*good, Update("a", 0, object())], [0] * 6)
    for wrong in (np.zeros(2, np.float32), np.zeros(4, np.float32), np.zeros(1, np.float32)):
        with pytest.raises(ValueError, match="'a' sent an update of another length than 3"):
            CoordinateMedian().combine([*good, Update("a", 0, wrong)], [0] * 6)
    with pytest.raises(TypeError, match="reads single updates"):
        CoordinateMedian().combine([*good, Update("a", 0, np.zeros((3, 1), np.float32))], [0] * 6)


# --- outliers --------------------------------------------------------------------------------------------------------


def test_a_z_score_cannot_find_one_of_ten_and_ours_can():
    norms = np.array([1.0, 1.1, 0.9, 1.05, 0.95, 1.0, 1.02, 0.98, 1.01, 1e9])
    z = (norms - norms.mean()) / norms.std(ddof=1)
    assert z.max() < (10 - 1) / math.sqrt(10) + 1e-9 < 3
    assert robust_z(norms)[-1] > 1e6
    assert keep(norms[:, None]).sum() == 9


@pytest.mark.parametrize("by", ["norm", "distance"])
@pytest.mark.parametrize("f", [1, 2, 4])
def test_outliers_are_removed_and_named(by, f):
    x = np.concatenate([cloud(0, n=10, d=6), np.full((f, 6), 1e8)])
    answer = OutlierRemoval(by).combine(updates(x), [0] * len(x))
    assert set(range(10, 10 + f)) <= set(answer.removed)
    assert len(answer.removed) <= f + 3
    kept = [k for k in range(10 + f) if k not in answer.removed]
    np.testing.assert_allclose(answer.mean, x[kept].mean(axis=0), rtol=1e-5)


@pytest.mark.parametrize("by", ["norm", "distance"])
def test_alike_keep_all_and_never_is_nobody_left(by):
    for x in (np.ones((5, 3)), np.zeros((4, 2)), np.ones((1, 1)), np.array([[1.0], [1 + 1e-12], [1], [1 - 1e-12], [1]])):
        assert keep(x, by).all()
    assert keep(np.array([[1.0, 1], [1, 1], [1, 1], [9, 9]]), by).tolist() == [True, True, True, False]        # MAD = 0
    for n, seed in itertools.product(range(1, 9), range(20)):
        x = np.exp(3 * cloud(seed, n=n, d=2))
        for cutoff in (1e-9, 0.5, 3.5):
            assert keep(x, by, cutoff).sum() >= n / 2


def test_robust_z_by_hand():
    np.testing.assert_allclose(robust_z([1, 2, 3, 4, 100]), (np.array([1, 2, 3, 4, 100]) - 3) / 1.482602218505602)
    assert robust_z([5, 5, 5, 7, 1]).tolist() == [0, 0, 0, math.inf, -math.inf]
    for wrong in ([], [[1.0]], [math.nan, 1], [math.inf]):
        with pytest.raises(ValueError, match="scores"):
            robust_z(wrong)


# --- before a rule ---------------------------------------------------------------------------------------------------


def test_buckets_are_means_of_everybody_once():
    x = cloud(0, n=11, d=3)
    for s in (1, 2, 3, 11, 20):
        rows = bucket(x, s, stream(1, "b"))
        assert len(rows) == math.ceil(11 / s)
        sizes = np.array([s] * (11 // s) + [11 % s] * (11 % s > 0))
        np.testing.assert_allclose((rows * sizes[:, None]).sum(axis=0), x.sum(axis=0), atol=1e-9)
    np.testing.assert_allclose(sorted(bucket(x, 1, stream(1, "b"))[:, 0]), sorted(x[:, 0]))
    np.testing.assert_allclose(Bucketing(CoordinateMedian(), 1)(x), np.median(x, axis=0))
    np.testing.assert_allclose(Bucketing(CoordinateMedian(), 11)(x), x.mean(axis=0), atol=1e-12)


def test_mixing_leaves_far_liars_out_by_name():
    x = np.concatenate([cloud(0, n=9, d=3), np.full((3, 3), 1e6)])
    answer = NearestNeighbourMixing(MultiKrum(3)).combine(updates(x), [0] * 12)
    assert answer.removed == (9, 10, 11)
    np.testing.assert_allclose(mix(x, 0), np.tile(x.mean(axis=0), (12, 1)), rtol=1e-9)


def test_a_bucket_that_is_left_out_takes_its_members_along():
    x = np.concatenate([cloud(0, n=15, d=3), np.full((1, 3), 1e6)])
    answer = Bucketing(OutlierRemoval(f=1), 2).combine(updates(x), [0] * 16)
    assert 15 in answer.removed
    assert len(answer.removed) == 2
    kept = [k for k in range(16) if k not in answer.removed]
    np.testing.assert_allclose(answer.mean, x[kept].mean(axis=0), rtol=1e-5)


# --- FLTrust, and what is refused when it is built -------------------------------------------------------------------


def test_trust_by_hand():
    root = np.array([2.0, 0])
    x = np.array([[1.0, 0], [0, 5], [-1, 0], [3, 4], [0, 0]])
    np.testing.assert_allclose(trust(x, root), [1, 0, 0, 0.6, 0])
    np.testing.assert_allclose(fltrust(x, root), (np.array([2.0, 0]) + 0.6 * np.array([1.2, 1.6])) / 1.6)
    assert fltrust(-x[:1], root).tolist() == [0, 0]
    assert fltrust(x, 0 * root).tolist() == [0, 0]
    np.testing.assert_allclose(fltrust(1e6 * x, root), fltrust(x, root))            # nobody gains by being long
    with pytest.raises(ValueError, match="by hand"):
        FLTrust(digits())(x)


WRONG = [
    lambda: Krum(-1), lambda: Krum(1.0), lambda: Krum(True), lambda: Krum("2"), lambda: Krum(None), lambda: TrimmedMean(-1),
    lambda: MultiKrum(1, 0), lambda: MultiKrum(1, 2.5), lambda: Bulyan(-2), lambda: CoordinateMedian(math.nan),
    lambda: OutlierRemoval("size"), lambda: OutlierRemoval(cutoff=0), lambda: OutlierRemoval(cutoff=math.nan),
    lambda: CentredClipping(0), lambda: CentredClipping(math.inf), lambda: CentredClipping(1, 0), lambda: NormBound(-1),
    lambda: NormBound("1"), lambda: NormBound(True), lambda: Bucketing(Krum(1), 0), lambda: Bucketing(Krum(1), 1.5),
    lambda: Bucketing(Krum), lambda: Bucketing(None), lambda: NearestNeighbourMixing(3), lambda: FLTrust(None),
    lambda: FLTrust(digits(), training=3), lambda: trimmed_mean(np.zeros((4, 1)), 2), lambda: krum_scores(np.zeros((3, 1)), 1),
]  # fmt: skip


@pytest.mark.parametrize("make", WRONG)
def test_bad_values_are_refused_in_a_sentence(make):
    with pytest.raises((ValueError, TypeError)) as why:
        make()
    assert len(str(why.value)) > 25


def test_too_many_chosen_for_the_honest():
    """m of n - f at most: whoever averages more averages a liar for certain."""
    assert MultiKrum(2, 6).least == 8
    with pytest.raises(ValueError, match="needs 8"):
        MultiKrum(2, 6)(cloud(0, n=7))
    assert np.isfinite(MultiKrum(2, 6)(cloud(0, n=8))).all()


def test_bulyan_chooses_theta():
    x = cloud(0, n=11, d=3)
    assert len(set(bulyan_selection(x, 2))) == 7
    assert len(Bulyan(2).combine(updates(x), [0] * 11).removed) == 4
