"""The pictures and explorers of lesson 2, without a browser."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from fl_course import two_bowls
from fl_course.workbook.widgets.drift import (
    RESTS,
    ROUNDS,
    draw_drift,
    drift,
    drift_explorer,
    method_runs,
    proximal,
    proximal_explorer,
    rings,
    still_life,
)


def points_of(experiment, line):
    return np.array([point.lines[line] for point in experiment if line in point.lines])


@pytest.mark.parametrize(("distance", "epochs", "lr", "mu"), [(4.0, (8, 8), 0.5, 0.5), (3.0, (3, 12), 0.4, 1.0)])
def test_what_runs_live_comes_to_rest_on_the_drawn_closed_forms(distance, epochs, lr, mu):
    bowls, points = two_bowls(distance), list(drift(distance, *epochs, lr, mu))
    names = ["FedAvg", "FedProx", "SCAFFOLD", *["FedNova"] * (epochs[0] != epochs[1])]
    ends = {name: points_of(points, name)[-1] for name in names}
    assert len(points_of(points, "FedAvg")) == ROUNDS + 1                          # the start, and one a round
    assert ends["FedAvg"] == pytest.approx(bowls.fixed_point(lr, epochs), abs=0.02)
    assert ends["FedProx"] == pytest.approx(bowls.fixed_point(lr, epochs, mu), abs=0.05)
    assert ends["SCAFFOLD"] == pytest.approx(bowls.optimum(), abs=0.02)
    marks = next(point.marks for point in points if point.marks)
    assert marks["FedAvg must rest"] == pytest.approx(ends["FedAvg"], abs=0.02)
    assert marks["FedProx must rest"] == pytest.approx(ends["FedProx"], abs=0.05)
    assert marks["the optimum"] == pytest.approx(bowls.optimum(), abs=1e-6)
    assert (marks["A"], marks["B"]) == (pytest.approx(bowls.centres[0]), pytest.approx(bowls.centres[1]))
    if "FedNova" in names:
        assert marks["FedNova must rest"] == pytest.approx(ends["FedNova"], abs=0.02)


def test_fednova_is_shown_where_it_differs_from_fedavg():
    """With equal steps it divides and multiplies by one number; the lesson has not introduced it yet."""
    explorer = drift_explorer()
    assert "FedNova" not in explorer.live.shown.lines
    assert "FedNova must rest" not in explorer.live.shown.marks
    assert "With equal steps FedNova is FedAvg" in explorer.live.shown.text
    bowls = two_bowls(4.0)
    assert bowls.fixed_point(0.5, (10, 10)) == pytest.approx(bowls.fixed_point(0.5, (10, 10), normalised=True))
    assert any("FedNova" in point.lines for point in drift(4.0, 3, 4, 0.5, 0.5))
    explorer.close()


@pytest.mark.parametrize("at", [(0.0, 1, 1, 0.6, 2.0), (6.0, 30, 1, 0.6, 2.0), (6.0, 1, 30, 0.05, 0.0)])
def test_the_corners_of_the_drift_sliders_run(at):
    points = list(drift(*at))
    for name in ("FedAvg", "FedProx", "SCAFFOLD", *["FedNova"] * (at[1] != at[2])):
        gaps = points_of(points, f"{name}'s gap")[:, 1]
        assert len(gaps) == ROUNDS
        assert gaps.min() > 0                                                      # the axis is logarithmic
        assert np.isfinite(gaps).all()
        assert gaps.max() < 20 or name in ("SCAFFOLD", "FedNova")   # 30 steps beside 1 step: these two overshoot


def test_outlines_are_contours_of_each_bowl_and_of_the_average_loss():
    bowls = two_bowls(4.0)
    (ring,) = rings(bowls.centres[1], bowls.curvatures[1], (0.3,))
    assert bowls.losses(ring)[1] == pytest.approx(np.full(len(ring), 0.3))
    outlines = still_life(bowls, (5, 5), 0.1, 0.5).outlines
    floor, levels = bowls.losses(bowls.optimum()).mean(), []
    for curve in outlines["average loss"]:
        above = bowls.losses(np.asarray(curve)).mean(0) - floor                    # level, all around the optimum
        assert above == pytest.approx(np.full(len(curve), above[0]))
        levels.append(above[0])
    assert levels == sorted(levels)
    assert len(levels) >= 5


def test_a_drawing_shows_what_it_was_given_and_changes_nothing():
    bowls, ax = two_bowls(4.0), Figure().subplots()
    path = np.array([[0.0, 0.0], [1.0, -1.0]])
    draw_drift(ax, bowls, {"client A": path}, {"optimum": bowls.optimum()}, "drift")
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == ["client A", "optimum"]
    assert np.array_equal(ax.lines[0].get_xydata(), path)
    assert "w₁" in ax.get_xlabel()
    assert ax.get_title() == "drift"
    assert [text.get_text() for text in ax.texts] == ["A", "B"]
    paths = {f"client {i}": path + i for i in range(4)}
    draw_drift(ax := Figure().subplots(), bowls, paths, {name: bowls.optimum() for name in RESTS})
    colours = [line.get_color() for line in ax.lines]
    assert len(set(colours)) == len(colours) == 8                                  # marks take no path's colour


def test_the_methods_are_the_librarys():
    runs = method_runs(two_bowls(2.0), (2, 3), 0.5, 0.7)
    assert "FedProx(mu=0.7)" in repr(runs["FedProx"])
    assert "FedNova()" in repr(runs["FedNova"])
    assert "Scaffold" in repr(runs["SCAFFOLD"])


def test_fedprox_without_mu_is_fedavg_on_the_digits_too():
    points = list(proximal(0.0, 1, 1.0))
    assert np.array_equal(points_of(points, "FedAvg"), points_of(points, "FedProx"))
    megabytes = [points_of(points, f"{name} by MB")[-1, 0] for name in ("FedAvg", "SCAFFOLD")]
    assert 1.9 < megabytes[1] / megabytes[0] < 2.1


def test_the_digits_explorer_draws_every_line_that_its_experiment_yields():
    explorer = proximal_explorer()
    run = explorer.result(60)
    assert {name for chart in explorer.live.charts for name in chart.names} == set(run.lines)
    assert all(len(line) == 20 for line in run.lines.values())
    explorer.close()
