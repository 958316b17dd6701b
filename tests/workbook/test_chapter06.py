"""Chapter 6's checks: right answers written in another way pass, slips that learners make are named, and the oracle tells."""

from pathlib import Path

import numpy as np
import pytest

from fl_course.selection.diversity import label_shares, max_min
from fl_course.selection.fairness import gini
from fl_course.selection.oort import utility
from fl_course.workbook.grading.checks import examine, find

SEEDS = range(2)
SOURCE = Path(__file__).parents[2] / "source" / "exercises" / "06_selection.py"


def drawn_by_choice(idle, clients, fraction, min_clients, rng):
    m = min(max(int(fraction * clients + 0.5), min_clients), len(idle))
    return rng.choice(idle, size=m, replace=False)


def scored_one_by_one(profiles, weights, prior):
    scores = []
    for row in profiles:
        parts = [*row[:4], 1 - row[4]]
        scores.append(sum(w * (prior if np.isnan(part) else part) for w, part in zip(weights, parts, strict=True)))
    return scores


def spread_by_library(counts, k):
    return max_min(label_shares(counts), k, first=int(np.argmax(counts.sum(axis=1))))


def power_one_by_one(sizes, ask, d, m, rng):
    """Successive draws, and a sorted list of pairs."""
    left, told = list(range(len(sizes))), []
    for _ in range(d):
        p = np.array([sizes[k] for k in left])
        k = left.pop(rng.choice(len(left), p=p / p.sum()))
        told.append((-ask(k), k))
    return [k for _, k in sorted(told)[:m]]


def utility_by_library(losses, seconds, preferred, version, last, alpha=2.0):
    return utility(len(losses), float(np.sqrt(np.mean(losses**2))), seconds, preferred, version, last, alpha)


def bias_by_library(cohorts, values):
    counts = [sum(cohort.count(k) for cohort in cohorts) for k in range(len(values))]
    return [gini(counts), sum(sum(values[k] for k in c) / len(c) for c in cohorts) / len(cohorts) - sum(values) / len(values)]


def starve_in_two_lists(scores, waited, k, patience):
    late = [int(i) for i in np.argsort(-waited, kind="stable") if waited[i] >= patience]
    return np.array([*late, *(i for i in np.argsort(-scores) if i not in late)][:k], dtype=int)


def mended_with_lexsort(idle, reports, d, m, rng):
    candidates = [idle[i] for i in rng.permutation(len(idle))[:d]]
    return sorted(candidates, key=lambda name: reports.get(name, np.inf), reverse=True)[:m]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("name", "answer"), [
    ("06.ask_fraction", drawn_by_choice), ("06.quality_score", scored_one_by_one), ("06.spread_labels", spread_by_library),
    ("06.power_of_choice", power_one_by_one), ("06.oort_utility", utility_by_library), ("06.selection_bias", bias_by_library),
    ("06.starve_nobody", starve_in_two_lists), ("06.mended_choice", mended_with_lexsort),
])  # fmt: skip
def test_other_right_answers_pass(name, answer, seed):
    result = examine(find(name), answer, np.random.default_rng(seed))
    assert result.passed, repr(result)


@pytest.mark.parametrize(("name", "answer", "words"), [
    ("06.ask_fraction", lambda idle, *rest: None, "without `return`"),
    ("06.ask_fraction", lambda idle, *rest: 3, "a list of clients"),
    ("06.power_of_choice", lambda sizes, ask, d, m, rng: [ask(0), ask(0)][:0], "how many questions"),
    ("06.spread_labels", lambda counts, k: [0] * k, "expected ["),
    ("06.mended_choice", lambda idle, reports, d, m, rng: idle[0], "a list of clients"),
])  # fmt: skip
def test_what_is_wrong_is_said(name, answer, words):
    result = examine(find(name), answer, np.random.default_rng(0))
    assert not result.passed
    assert words in result.message


def test_the_oracle_shows_the_fault_and_passes_the_mended_one(capsys):
    """What the notebook hands out: the careless function never names a client from the end of the list, the mended one does."""
    source = SOURCE.read_text("utf-8")
    given = source[source.index('# %% tags=["given"]') : source.index('# %% tags=["solution"]')]
    space = {"np": np}
    exec(given, space)
    careless = rows_of(capsys.readouterr().out)
    space["oracle"](find("06.mended_choice").solution)
    mended = rows_of(capsys.readouterr().out)
    assert careless[9][0] == 0 < careless[0][0]
    assert max(abs(chosen - should) for chosen, should in mended.values()) < 0.05
    assert max(abs(chosen - should) for chosen, should in careless.values()) > 0.3
    assert sum(should for _, should in mended.values()) == pytest.approx(2, abs=0.01)


def rows_of(text):
    """{client: (chosen, should be)} of the oracle's table."""
    return {int(row[0]): (float(row[2]), float(row[3])) for row in (line.split() for line in text.splitlines()[1:])}
