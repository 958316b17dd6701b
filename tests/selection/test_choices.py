"""Selectors that look at nobody's results, the quality score, and how evenly a run chose."""

import itertools
import math

import numpy as np
import pytest
from small import experiment, federation

from fl_course import (
    ByExamples,
    CompositionError,
    Equal,
    LogNormal,
    QualityScore,
    RoundRobin,
    SizeWeighted,
    Synchronous,
    Uniform,
    gini,
    participation,
)
from fl_course.core import stream
from fl_course.selection.fair import sizes
from fl_course.selection.fairness import asked
from fl_course.selection.looks import entropies, label_table
from fl_course.selection.profile import PARTS, profiles

IDLE = ["a", "b", "c", "d", "e"]
X = stream(0, "x")


def frequencies(selector, k, reports, times, idle=IDLE):
    counts = dict.fromkeys(idle, 0)
    for i in range(times):
        for client in selector.select(idle, k, stream(0, "test", "often", i), reports):
            counts[client] += 1
    return np.array(list(counts.values()))


def chi_square(counts, expected):
    """p-value of the counts against their expectation, cells of one draw each."""
    from scipy.stats import chi2

    return chi2.sf(((counts - expected) ** 2 / expected).sum(), len(counts) - 1)


# --- by size, and in turn ----------------------------------------------------------------------------------------------------


def test_the_first_is_drawn_in_proportion_to_its_examples():
    reports = {client: {"probe_examples": n} for client, n in zip(IDLE, (1, 2, 3, 4, 10), strict=True)}
    counts = frequencies(SizeWeighted(), 1, reports, 8000)
    assert chi_square(counts, np.array([1, 2, 3, 4, 10]) / 20 * 8000) > 1e-4
    assert chi_square(counts, np.full(5, 1600)) < 1e-9                  # and the test can tell


def test_sizes_are_what_clients_said_and_the_mean_stands_for_the_others():
    reports = {"a": {"probe_examples": 4, "examples": 9.0}, "b": {"examples": 8.0}}
    assert sizes(IDLE, reports).tolist() == [4, 8, 6, 6, 6]
    assert sizes(IDLE, {}).tolist() == [1] * 5


@pytest.mark.parametrize("weights", [{}, {"weights": ByExamples()}, {"weights": ByExamples(cap=5)}], ids=repr)
def test_what_is_drawn_by_size_is_not_weighed_by_size_too(weights):
    with pytest.raises(CompositionError, match=r"twice the examples would count four times; use weights=Uniform\(\)"):
        experiment(selection=SizeWeighted(), **weights)
    assert experiment(selection=SizeWeighted(), weights=Uniform()).train(1).records[0].clients


def test_sizes_are_asked_once_without_a_model_and_counted():
    it = experiment(federation((4, 8, 6, 20, 5, 5)), selection=SizeWeighted(), weights=Uniform(), fleet=Equal(drop=0.2))
    history = it.train(6)
    first, rest = history.records[0], history.records[1:]
    assert 0 < first.bytes_down["probe"] < 6 * 120                       # a question is no model
    assert first.bytes_up["probe"] > 0
    assert "probe" not in rest[-1].bytes_down
    known = {c: r["probe_examples"] for c, r in history.state.reports.items() if "probe_examples" in r}
    assert known == dict(zip(range(6), (4, 8, 6, 20, 5, 5), strict=True))


@pytest.mark.parametrize(("clients", "k"), [(10, 3), (7, 7), (5, 1), (6, 4)])
def test_in_turn_nobody_starves(clients, k):
    data = federation((4,) * clients)
    it = experiment(data, selection=RoundRobin(), schedule=Synchronous(k / clients))
    turns = math.ceil(clients / k)
    history = it.train(3 * turns)
    counts = list(asked(history, data.ids).values())
    assert max(counts) - min(counts) <= 1
    for r in range(0, 3 * turns - turns + 1):                            # in any row of so many rounds
        seen = {client for record in history.records[r : r + turns] for client in record.clients}
        assert seen == set(data.ids)


def test_in_turn_the_longest_waiting_first_then_the_dice():
    reports = {c: {"asked": n, "asked_version": v} for c, n, v in (("a", 2, 1), ("b", 1, 8), ("c", 1, 3))}
    assert RoundRobin().select(["a", "b", "c"], 3, X, reports) == ["c", "b", "a"]
    assert set(RoundRobin().select(IDLE, 2, X, reports)) == {"d", "e"}
    counts = frequencies(RoundRobin(), 1, {}, 4000)
    assert chi_square(counts, np.full(5, 800)) > 1e-4


# --- the quality score ---------------------------------------------------------------------------------------------------------

REPORTS = {
    "a": {"loss_first": 2.0, "examples": 10.0, "compute_seconds": 1.0, "download_seconds": 1.0, "upload_seconds": 1.0,
          "bytes_down": 100, "bytes_up": 100, "asked": 4, "answered": 3, "asked_version": 8},
    "b": {"loss_first": 1.0, "examples": 10.0, "compute_seconds": 4.0, "download_seconds": 3.0, "upload_seconds": 1.0,
          "bytes_down": 100, "bytes_up": 100, "asked": 1, "answered": 1, "asked_version": 0},
    "c": {"asked": 2, "asked_version": 4},
}  # fmt: skip


def test_profiles_are_measured():
    table = profiles(["a", "b", "c", "d"], REPORTS)
    assert len(PARTS) == table.shape[1] == 5
    assert table.tolist() == [[1.0, 1.0, 1.0, 0.75, 1.0], [0.5, 0.25, 0.5, 1.0, 0.0], [0.5, 0.5, 0.5, 0.5, 0.5], [0.5] * 5]
    assert profiles(["d", "c"], REPORTS, prior=0.2).tolist() == [[0.2] * 5, [0.2, 0.2, 0.2, 0.2, 0.5]]


def test_who_was_asked_and_never_answered_is_unavailable():
    assert profiles(["c"], {"c": {"asked": 3, "answered": 0, "asked_version": 2}})[0, 3] == 0.0


def test_the_score_is_the_documents():
    score = QualityScore().score(np.array([[0.9, 0.8, 0.7, 0.6, 1 - 0.4], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]]))
    assert score == pytest.approx([0.3 * 0.9 + 0.2 * 0.8 + 0.2 * 0.7 + 0.2 * 0.6 + 0.1 * (1 - 0.4), 0, 1])


def test_the_best_are_taken_or_drawn():
    idle = ["a", "b", "c", "d"]
    assert QualityScore().select(idle, 1, X, REPORTS) == ["a"]
    values = QualityScore().score(profiles(idle, REPORTS))
    counts = frequencies(QualityScore(drawn=True), 1, REPORTS, 6000, idle)
    assert chi_square(counts, values / values.sum() * 6000) > 1e-4


def test_each_weight_counts_its_own_part():
    names = ("data", "compute", "bandwidth", "availability", "freshness")
    zero = dict.fromkeys(names, 0.0)
    for i, name in enumerate(names):
        only = QualityScore(**(zero | {name: 1.0}))
        assert only.score(np.eye(5)).tolist() == np.eye(5)[i].tolist()
    nothing = QualityScore(**zero)                                        # all scores zero: a uniform choice
    for selector in (nothing, QualityScore(**zero, drawn=True)):
        assert chi_square(frequencies(selector, 1, REPORTS, 3000), np.full(5, 600)) > 1e-4


def test_extreme_reports_give_finite_profiles():
    odd = {
        "a": {"loss_first": 0.0, "examples": 5.0, "compute_seconds": 0.0, "download_seconds": 0.0, "upload_seconds": 0.0,
              "bytes_down": 9, "bytes_up": 9, "asked": 1, "answered": 1, "asked_version": 0},
        "b": {"loss_first": 0.0, "examples": 5.0, "compute_seconds": 1e-300, "asked": 1, "answered": 1, "asked_version": 0},
    }  # fmt: skip
    table = profiles(["a", "b"], odd)
    assert ((table >= 0) & (table <= 1)).all()
    assert table[0].tolist() == [0.0, 1.0, 1.0, 1.0, 1.0]
    assert profiles([], odd).shape == (0, 5)
    assert (profiles(IDLE, {c: {"loss_first": -3.0} for c in IDLE}) >= 0).all()


def test_a_report_that_is_nan_is_refused_by_name():
    with pytest.raises(ValueError, match="client 'b' reports nan as its 'loss_first'"):
        QualityScore().select(IDLE, 2, X, {"b": {"loss_first": math.nan}})


def test_label_entropy():
    counts = np.array([[5, 5, 5, 5], [9, 0, 0, 0], [3, 3, 0, 0], [0, 0, 0, 0]])
    assert entropies(counts) == pytest.approx([1.0, 0.0, 0.5, 0.0])
    assert entropies(np.ones((3, 1))).tolist() == [0, 0, 0]
    reports = {"a": {"probe_labels": np.array([5, 5])}, "b": {"probe_labels": np.array([0, 0, 7])}}
    assert profiles(IDLE, reports, "labels")[:3, 0] == pytest.approx([math.log(2) / math.log(3), 0.0, 0.5])


@pytest.mark.parametrize(
    "answer", [np.ones((2, 2)), 3.0, np.array([]), np.array([1, -1]), np.array([1.0, np.nan]), np.array(["a"]), "labels", None]
)
def test_what_is_no_list_of_counts_is_refused_by_name(answer):
    with pytest.raises(ValueError, match=r"client 'b' says .* of its labels"):
        label_table(["a", "b"], {"a": {"probe_labels": np.array([1, 2])}, "b": {"probe_labels": answer}})


def test_label_tables_of_different_lengths_are_filled_up():
    answers = [[1], [1, 2, 3], [4, 5], [0, 0, 1]]
    table = label_table(range(4), {i: {"probe_labels": np.array(row)} for i, row in enumerate(answers)})
    assert table.tolist() == [[1, 0, 0], [1, 2, 3], [4, 5, 0], [0, 0, 1]]


def test_the_score_runs_and_starves():
    data = federation((4,) * 12)
    fleet = LogNormal(speed_spread=1.0)
    greedy, fair = (experiment(data, selection=s, fleet=fleet, schedule=Synchronous(0.25)).train(20)
                    for s in (QualityScore(), RoundRobin()))                                                  # fmt: skip
    counts = [participation(h, data.ids) for h in (greedy, fair)]
    assert gini(counts[0]) > 0.3
    assert gini(counts[1]) == 0.0
    labels = experiment(data, selection=QualityScore(quality="labels")).train(3)
    assert "probe" in labels.records[0].bytes_up
    assert "probe" not in labels.records[2].bytes_up


@pytest.mark.parametrize(
    ("bad", "match"),
    [({"data": -0.1}, "data is a weight"), ({"compute": math.nan}, "compute is a weight"), ({"bandwidth": math.inf}, "bandwidth"),
     ({"quality": "size"}, "quality must be"), ({"prior": 2.0}, "prior is what")],
)  # fmt: skip
def test_what_is_no_weight_is_refused(bad, match):
    with pytest.raises(ValueError, match=match):
        QualityScore(**bad)


def test_labels_need_classes():
    from fl_course import Coordinator, LabelDiversity, SquaredError, from_clients, mlp

    x = stream(0, "x").standard_normal((8, 3)).astype(np.float32)
    data = from_clients("numbers", dict.fromkeys(range(4), (x, x[:, :1])), classes=0)
    for selector in (LabelDiversity(), QualityScore(quality="labels")):
        with pytest.raises(CompositionError, match="no classes"):
            Coordinator(data, mlp(3, 4, 1, loss=SquaredError()), selection=selector)


# --- how even it was -----------------------------------------------------------------------------------------------------------


def test_gini_by_all_pairs():
    rng = stream(0, "gini")
    for n in (1, 2, 7, 30):
        values = rng.integers(0, 9, n)
        pairs = sum(abs(int(a) - int(b)) for a, b in itertools.product(values, repeat=2))
        slow = pairs / (2 * n * n * values.mean()) if values.sum() else 0.0
        assert gini(values) == pytest.approx(slow)
    assert gini([5, 5, 5]) == 0.0
    assert gini([0, 0, 0, 12]) == pytest.approx(3 / 4)
    assert gini({"a": 0, "b": 0}) == 0.0
    assert gini([3, 1, 2]) == gini([1, 2, 3])


@pytest.mark.parametrize("bad", [[], [-1, 2], [math.nan], [math.inf, 1]])
def test_gini_of_what_is_no_count(bad):
    with pytest.raises(ValueError, match="gini needs"):
        gini(bad)


def test_participation_counts_answers_and_asked_counts_jobs():
    it = experiment(schedule=Synchronous(1.0, over_selection=0.0), fleet=Equal(drop=0.3))
    history = it.train(10)
    answers, jobs = participation(history, it.clients), asked(history, it.clients)
    assert list(jobs.values()) == [10] * 6
    assert sum(answers.values()) == sum(len(record.clients) for record in history.records) < 60
    with pytest.raises(ValueError, match="client 5 is in the history"):
        participation(history, range(5))
