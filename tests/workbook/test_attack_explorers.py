"""The logic behind the two explorers of lesson 9, without a browser."""

import itertools
import time
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from fl_course import CompositionError, CoordinateMedian, GeometricMedian, Krum
from fl_course.workbook.widgets.robustness import (
    ANSWERS,
    ATTACKS,
    BEFORE,
    CLIENTS,
    HONEST,
    IN_TRAINING,
    LIE,
    PLACES,
    ROUNDS,
    answers,
    attack_explorer,
    draw_updates,
    federation,
    honest_points,
    honest_updates,
    playground,
    playground_explorer,
    under_attack,
)

FAR = "how far from the honest mean"


def point(x, y, f, where=PLACES[0]):
    (only,) = playground(x, y, f, where)
    return only


# --- the playground ---


@pytest.mark.parametrize("where", PLACES)
@pytest.mark.parametrize("f", [1, 3, 6, HONEST])
def test_every_rule_answers_or_says_that_there_are_too_many(where, f):
    for x, y in itertools.product((-6.0, 0.0, 4.0), (-4.5, 0.25)):
        told = point(x, y, f, where)
        assert set(told.marks) == {LIE, *ANSWERS}
        bars = dict(told.bars[FAR])
        assert list(bars) == list(ANSWERS)
        refused = {name for name, value in bars.items() if np.isnan(value)}
        assert refused == {name for name in ANSWERS if np.isnan(told.marks[name][0])}
        assert all(name in told.text for name in refused)
        assert "nan" not in told.text
        assert "mean" not in refused
        assert ("Krum" in refused) == (HONEST + f < 2 * f + 3)
        assert ("Bulyan" in refused) == (HONEST + f < 4 * f + 3)
        assert ("median" in refused) == (HONEST + f <= 2 * f)


def test_the_mean_follows_the_lie_without_limit_and_the_median_does_not():
    near, far = (dict(point(x, 0.0, 3).bars[FAR]) for x in (2.0, 8.0))
    assert far["mean"] == pytest.approx(4 * near["mean"])
    assert far["mean"] == pytest.approx(8 * 3 / (HONEST + 3))
    for name in ("median", "Krum", "Multi-Krum", "geometric median"):
        assert far[name] < 1.2
    assert "Krum has chosen the lie" in point(0.5, 0.5, 6).text
    assert "Krum has chosen" not in point(8.0, 0.0, 3).text


def test_answers_are_those_of_the_rules_and_marks_where_they_lie():
    honest, lie = honest_points(), np.array([4.0, 2.5])
    assert honest.shape == (HONEST, 2)
    assert np.abs(honest.mean(axis=0)).max() < 1e-12
    x = np.vstack([honest, [lie] * 3])
    found, _ = answers(honest, lie, 3)
    for name, rule in (("median", CoordinateMedian(3)), ("Krum", Krum(3)), ("geometric median", GeometricMedian(3))):
        assert np.array_equal(found[name], rule(x))
        assert tuple(found[name]) == pytest.approx(point(4.0, 2.5, 3).marks[name])


def test_real_updates_are_seen_along_their_two_principal_directions():
    honest, plane = honest_updates()
    assert honest.shape[0] == HONEST
    assert np.allclose(plane @ plane.T, np.eye(2))
    spread = (honest @ plane.T).std(axis=0)
    assert spread[0] == pytest.approx(1)
    assert 0 < spread[1] <= 1
    assert (honest @ np.random.default_rng(0).permutation(plane[0])).std() < spread[1]
    told = point(3.0, 1.0, 2, PLACES[1])
    x = np.vstack([honest, [np.array([3.0, 1.0]) @ plane] * 2])
    assert told.marks["mean"] == pytest.approx(tuple(plane @ x.mean(axis=0)))


def test_the_playground_opens_with_a_lie_that_the_mean_follows():
    explorer = playground_explorer()
    assert explorer.spec["charts"][0]["drag"]["mark"] == LIE
    start = time.perf_counter()
    explorer.live.place({"x": 3, "y": 5})
    explorer.live.run_here()
    assert time.perf_counter() - start < 3                    # 5 ms when nothing else runs
    assert explorer.live.shown.marks[LIE] == (-5.25, -3.25)
    bundle, _ = explorer._repr_mimebundle_()
    assert "the lie, across = -5.25" in bundle["text/plain"]
    assert bundle["image/png"]
    explorer.close()


def test_a_picture_of_updates_shows_everybody():
    ax = Figure().subplots()
    draw_updates(ax, honest_points(), np.ones((2, 2)), {"mean": np.zeros(2), "median": np.ones(2)})
    assert ax.get_legend_handles_labels()[1] == ["honest", "attackers", "mean", "median"]


# --- a federation under attack ---


@pytest.mark.parametrize("rule", ["mean", *IN_TRAINING])
def test_every_position_builds_an_experiment_or_says_why_not(rule):
    for f, attack, before in itertools.product((0, 5, 8), ("ALIE", "backdoor"), BEFORE):
        at, refused = (f, attack, rule, before, 0.3), ""
        try:
            experiment = federation(*at)
        except CompositionError as why:
            refused = f"Refused: {why}"
        if refused:
            (only,) = under_attack(*at)
            assert only.text == refused
            assert not only.lines
        else:
            assert len(experiment.clients) == CLIENTS
            assert (experiment.attack is None) == (f == 0)
            assert rule == "mean" or experiment.aggregation.least <= CLIENTS


@pytest.mark.parametrize("attack", ATTACKS)
def test_every_attack_runs_and_says_whom_it_controls(attack):
    experiment = federation(5, attack, "Multi-Krum", "nothing", 0.3)
    assert experiment.attack.clients == (0, 1, 2, 3, 4)
    record = next(iter(experiment.run(1)))[1]
    assert ("backdoor_success" in record.metrics) == (attack == "backdoor")
    assert 0 <= record.metrics["detection_recall"] <= 1


def test_the_default_run_shows_a_loss_and_what_bucketing_mends():
    runs = {before: list(under_attack(5, "IPM", "median", before, 0.3)) for before in ("nothing", "bucketing, s = 2")}
    ends = {before: [point.lines["accuracy"][1] for point in run if "accuracy" in point.lines] for before, run in runs.items()}
    best = [point.lines["mean, nobody lies"][1] for point in runs["nothing"] if "mean, nobody lies" in point.lines]
    assert len(best) == len(ends["nothing"]) == ROUNDS
    assert best[-1] > ends["nothing"][-1] + 0.2
    assert ends["bucketing, s = 2"][-1] > ends["nothing"][-1] + 0.02


def test_a_backdoor_is_seen_in_its_own_line():
    *_, last = (point for point in under_attack(1, "backdoor", "mean", "nothing", 100) if "backdoor success" in point.lines)
    assert last.lines["backdoor success"][1] > 0.8
    assert "of the stamped ones as the attacker wants" in last.text
    *_, last = (point for point in under_attack(1, "backdoor", "Krum", "nothing", 100) if "backdoor success" in point.lines)
    assert last.lines["backdoor success"][1] < 0.2


def test_the_explorer_has_the_set_up_of_the_lesson():
    lesson = (Path(__file__).parents[2] / "source" / "lessons" / "09_attacks.py").read_text("utf-8")
    assert "mlp(64, 32, 10), LocalSGD(lr=0.1, epochs=1, batch_size=10)" in lesson
    explorer = attack_explorer()
    bundle, _ = explorer._repr_mimebundle_()
    assert f"{CLIENTS} clients with handwritten digits" in bundle["text/plain"]
    assert f"clients={CLIENTS}" in lesson
    assert not explorer.error
    explorer.close()
