"""Chapter 9's checks: right answers written in another way pass, slips that learners make are named, the mistakes are real."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import median_abs_deviation, trim_mean

from fl_course import Bulyan, CoordinateMedian, GeometricMedian, Krum, closed_form, mlp
from fl_course.robustness.krum import krum_scores as scores_of_the_library
from fl_course.workbook.exercises import ch09
from fl_course.workbook.grading.checks import examine, find

SEEDS = range(4)


def krum_by_loops(updates, f):
    out = []
    for i, mine in enumerate(updates):
        far = sorted(sum((a - b) ** 2 for a, b in zip(mine, other, strict=True)) for j, other in enumerate(updates) if j != i)
        out.append(sum(far[: len(updates) - f - 2]))
    return out


def breakdown_from_the_end(rule, updates, far):
    for f in range(1, len(updates) + 1):
        attacked = np.vstack([updates[: len(updates) - f], np.tile(far, (f, 1))])
        if np.abs(rule(attacked) - rule(updates)).max() > 1000:
            return f


def bounded_row_by_row(updates):
    lengths = [np.sqrt(row @ row) for row in updates]
    bound = sorted(lengths)[len(lengths) // 2]
    rows = [row * (bound / size) if size > bound else row for row, size in zip(updates, lengths, strict=True)]
    return list(sum(rows) / len(rows))


def least_squares_image(weights, bias):
    return weights.T @ bias / (bias @ bias)


def everybody_the_mean(x):
    return np.full(len(x), x.mean())


def by_simplex(points):
    """Not Weiszfeld at all."""
    scale = np.ptp(points)
    start = np.median(points, axis=0) / scale
    best = minimize(lambda z: np.linalg.norm(points / scale - z, axis=1).sum(), start, method="Nelder-Mead",
                    options={"xatol": 1e-9, "fatol": 1e-12, "maxiter": 20_000, "maxfev": 20_000})
    return best.x * scale


@pytest.mark.parametrize(("name", "answer"), [
    ("09.coordinate_median", lambda updates: np.median(updates, axis=0)),
    ("09.coordinate_median", lambda updates: [sorted(column)[len(column) // 2] if len(column) % 2 else
                                              sum(sorted(column)[len(column) // 2 - 1:][:2]) / 2 for column in updates.T]),
    ("09.krum_scores", krum_by_loops), ("09.krum_scores", scores_of_the_library),
    ("09.breakdown_point", breakdown_from_the_end),
    ("09.bounded_mean", bounded_row_by_row),
    ("09.reconstruct", least_squares_image),
    ("09.reconstruct", lambda weights, bias: (np.sign(bias) @ weights) / np.abs(bias).sum()),
    ("09.other_median", everybody_the_mean),
    ("09.other_median", lambda x: np.append(np.zeros(len(x) - 1), x.sum())),
    ("09.mended_filter", lambda a: np.abs(a - np.median(a)) <= 3 * 1.4826 * median_abs_deviation(a)),
    ("09.mended_geometric_median", GeometricMedian()), ("09.mended_geometric_median", by_simplex),
])  # fmt: skip
def test_a_right_answer_in_other_words_passes(name, answer):
    for seed in SEEDS:
        result = examine(find(name), answer, np.random.default_rng(seed))
        assert result.passed, result


@pytest.mark.parametrize(("name", "answer", "word"), [
    ("09.coordinate_median", lambda updates: np.sort(updates, axis=0)[len(updates) // 2], "upper of the two"),
    ("09.coordinate_median", lambda updates: trim_mean(updates, 1 / len(updates)), "trimmed mean"),
    ("09.krum_scores", lambda x, f: scores_of_the_library(x, f - 1), "One neighbour too many"),
    ("09.breakdown_point", lambda rule, updates, far: -(-len(updates) // 2), "not every rule does"),
    ("09.bounded_mean", lambda updates: updates.mean(axis=0) * min(1, np.median(np.linalg.norm(updates, axis=1))
                                                                   / np.linalg.norm(updates.mean(axis=0))), "Bound each update"),
    ("09.reconstruct", lambda weights, bias: weights[0] / bias[0] if bias[0] else np.full(weights.shape[1], np.nan),
     "first unit may have slept"),
    ("09.other_median", lambda x: x + 1, "the sum as well"),
    ("09.mended_filter", lambda a: abs(a - a.mean()) / a.std(ddof=1) <= 3, "still the broken one"),
    ("09.mended_geometric_median", lambda points: np.mean(points, axis=0), "*squared*"),
])  # fmt: skip
def test_a_slip_gets_its_own_hint(name, answer, word):
    for seed in SEEDS:
        result = examine(find(name), answer, np.random.default_rng(seed))
        assert result.state == "fail"
        assert word in result.hint, result


def test_every_exercise_has_eight_mistakes_or_more():
    assert all(len(exercise.mistakes) >= 8 for exercise in ch09.EXERCISES)


def test_the_solutions_are_the_librarys_rules():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(11, 5))
    assert np.allclose(ch09.coordinate_median(x), CoordinateMedian(2)(x))
    assert np.allclose(x[np.argmin(ch09.krum_scores(x, 2))], Krum(2)(x))
    assert np.allclose(ch09.mended_geometric_median(x), GeometricMedian()(x), atol=1e-5)
    assert ch09.breakdown_point(lambda y: Bulyan(2)(y), x, np.full(5, 1e6)) > 2
    model = mlp(12, 6, 3)
    delta = rng.normal(size=model.dim)
    cuts = model.slices()
    weights, bias = delta[cuts["dense0.weight"]].reshape(6, 12), delta[cuts["dense0.bias"]]
    assert np.allclose(ch09.reconstruct(weights, bias), closed_form(model, delta))


@pytest.mark.parametrize("n", [4, 7, 10])
def test_no_number_is_more_than_its_share_of_deviations_from_the_mean(n):
    """The published mistake: with n <= 10 a rule of three deviations never fires."""
    values = np.append(np.ones(n - 1), 1e9)
    z = (values - values.mean()) / values.std(ddof=1)
    assert z.max() == pytest.approx((n - 1) / np.sqrt(n))
    assert ch09.as_it_was(values).all()
    assert list(ch09.mended_filter(values)) == [True] * (n - 1) + [False]


def test_a_large_nu_makes_the_geometric_median_the_mean():
    points = np.random.default_rng(1).normal(size=(7, 3)) * 0.01
    assert np.allclose(ch09.nu_of_one(points), points.mean(axis=0))
