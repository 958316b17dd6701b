"""Greedy choices against all subsets."""

import itertools
import math

import numpy as np
import pytest
from small import experiment, federation

from fl_course import DivFL, LabelDiversity, LogNormal, Synchronous
from fl_course.core import stream
from fl_course.selection.diversity import distances_between, facility_location, label_shares, max_min

IDLE = list(range(8))


def total_variation(p, q):
    return float(np.abs(p - q).sum() / 2)


@pytest.mark.parametrize("seed", range(6))
def test_max_min_takes_the_farthest_each_time_and_is_half_as_good_as_the_best(seed):
    points = stream(seed, "points").dirichlet(np.full(4, 0.4), 8)
    chosen = max_min(points, 4, first=2)
    assert chosen[0] == 2
    for step in range(1, 4):                                             # by hand, one after the other
        rest = [i for i in range(8) if i not in chosen[:step]]
        gap = {i: min(total_variation(points[i], points[j]) for j in chosen[:step]) for i in rest}
        assert gap[chosen[step]] == pytest.approx(max(gap.values()))
    def smallest(subset):
        return min(total_variation(points[i], points[j]) for i, j in itertools.combinations(subset, 2))

    best = max(smallest((2, *others)) for others in itertools.combinations([i for i in range(8) if i != 2], 3))
    assert smallest(chosen) >= best / 2 - 1e-12


def test_max_min_never_takes_a_row_twice():
    same = np.ones((5, 3)) / 3
    assert sorted(max_min(same, 5, 0)) == [0, 1, 2, 3, 4]
    assert sorted(max_min(same, 9, 3)) == [0, 1, 2, 3, 4]
    assert max_min(same, 0, 0) == []
    assert max_min(np.zeros((0, 3)), 2, 0) == []


def test_label_shares():
    assert label_shares(np.array([[1, 3], [0, 0]])).tolist() == [[0.25, 0.75], [0.0, 0.0]]


def gain(distances, subset):
    far = distances.max()
    return sum(far - min([far, *(row[j] for j in subset)]) for row in distances)


@pytest.mark.parametrize("seed", range(8))
def test_facility_location_is_greedy_and_near_the_best(seed):
    vectors = stream(seed, "vectors").standard_normal((9, 3)) * stream(seed, "scales").exponential(size=(9, 1))
    distances = np.linalg.norm(vectors[:, None] - vectors[None], axis=2)
    assert distances_between(vectors) == pytest.approx(distances, abs=1e-6)
    chosen = facility_location(distances, 3)
    for step in range(3):
        gains = {i: gain(distances, [*chosen[:step], i]) for i in range(9) if i not in chosen[:step]}
        assert gains[chosen[step]] == pytest.approx(max(gains.values()))
    best = max(gain(distances, subset) for subset in itertools.combinations(range(9), 3))
    assert gain(distances, chosen) >= (1 - 1 / math.e) * best
    shift = distances + np.full((9, 9), 5.0)                                 # what it makes small is the sum of the minima
    assert facility_location(shift, 1) == facility_location(distances, 1)


def test_facility_location_at_its_limits():
    assert sorted(facility_location(np.zeros((4, 4)), 4)) == [0, 1, 2, 3]
    assert sorted(facility_location(np.zeros((4, 4)), 9)) == [0, 1, 2, 3]
    assert facility_location(np.zeros((0, 0)), 3) == []
    assert facility_location(np.ones((3, 3)), 0) == []
    two = np.array([[0.0], [0.1], [0.2], [9.0], [9.1]])                       # two groups: one of each
    chosen = facility_location(distances_between(two), 2)
    assert {min(i, 3) // 3 for i in chosen} == {0, 1}


def labelled(rows):
    return {i: {"probe_labels": np.array(row)} for i, row in enumerate(rows)}


def test_one_client_of_each_kind():
    reports = labelled([[9, 0, 0]] * 3 + [[0, 9, 0]] * 3 + [[0, 0, 5]] * 2)
    for i in range(30):
        chosen = LabelDiversity().select(IDLE, 3, stream(0, "kinds", i), reports)
        assert {0 if c < 3 else 1 if c < 6 else 2 for c in chosen} == {0, 1, 2}
    firsts = {LabelDiversity().select(IDLE, 2, stream(0, "first", i), reports)[0] for i in range(100)}
    assert firsts == set(IDLE)                                               # no name is favoured


def test_who_told_no_labels_comes_last():
    reports = labelled([[1, 0], [0, 1], [2, 2]])
    chosen = LabelDiversity().select(IDLE, 5, stream(0, "x"), reports)
    assert set(chosen[:3]) == {0, 1, 2}
    assert len(set(chosen)) == 5
    assert len(LabelDiversity().select(IDLE, 3, stream(0, "x"), {})) == 3


def test_a_pool_is_a_uniform_sample():
    reports = labelled([[1, 0]] * 4 + [[0, 1]] * 4)
    chosen = [LabelDiversity(pool=2).select(IDLE, 1, stream(0, "pool", i), reports)[0] for i in range(800)]
    assert all(abs(chosen.count(c) - 100) < 45 for c in IDLE)
    assert len(LabelDiversity(pool=1).select(IDLE, 6, stream(0, "x"), reports)) == 6


def test_divfl_takes_those_that_stand_for_the_others():
    updates = [[0.0, 0.0], [0.1, 0.0], [0.0, 0.1], [9.0, 9.0], [9.1, 9.0], [-9.0, 9.0], [-9.0, 9.1], [-9.1, 9.0]]
    reports = {i: {"update": np.array(u, np.float32), "asked": 1} for i, u in enumerate(updates)}
    for i in range(20):
        chosen = DivFL().select(IDLE, 3, stream(0, "x", i), reports)
        assert {0 if c < 3 else 1 if c < 5 else 2 for c in chosen} == {0, 1, 2}


def test_divfl_asks_the_new_first_and_the_silent_last():
    reports = {i: {"update": np.full(2, i, np.float32), "asked": 1} for i in range(5)} | {5: {"asked": 2}}
    assert set(DivFL().select(IDLE, 2, stream(0, "x"), reports)) == {6, 7}
    assert set(DivFL().select(IDLE, 4, stream(0, "x"), reports)[:2]) == {6, 7}
    assert 5 not in DivFL().select(IDLE, 7, stream(0, "x"), reports)
    assert DivFL().select([0, 1, 5], 3, stream(0, "x"), reports)[2] == 5
    with pytest.raises(ValueError, match="update of client 3 is not finite"):
        DivFL().select([0, 1, 3], 2, stream(0, "x"), reports | {3: {"update": np.full(2, np.nan), "asked": 1}})


def test_divfl_in_a_run_keeps_the_last_updates_and_asks_nothing():
    data = federation((4, 6, 5, 8, 4, 7))
    history = experiment(data, selection=DivFL(), schedule=Synchronous(0.5), fleet=LogNormal()).train(4)
    assert all(set(record.bytes_up) == {"update"} for record in history.records)
    assert {r.shape for r in (report["update"] for report in history.state.reports.values())} == {(18,)}
    assert {c for record in history.records[:2] for c in record.clients} == set(data.ids)


def test_label_histograms_are_counted_once():
    history = experiment(selection=LabelDiversity()).train(3)
    assert history.records[0].bytes_up["probe"] > 6 * 3
    assert all("probe" not in record.bytes_up for record in history.records[1:])


@pytest.mark.parametrize("kind", [LabelDiversity, DivFL])
@pytest.mark.parametrize("pool", [0, -1, 1.5, True])
def test_a_pool_is_a_whole_number(kind, pool):
    with pytest.raises(ValueError, match="pool must be a whole number from 1"):
        kind(pool=pool)
