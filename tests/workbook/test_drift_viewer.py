"""The pictures and explorers of lesson 2, without a browser."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from fl_course import two_bowls
from fl_course.workbook.widgets.drift import (
    ROUNDS,
    cross,
    draw_drift,
    drift,
    ellipses,
    method_runs,
    proximal,
    proximal_explorer,
)


def points_of(experiment, line):
    return np.array([point.lines[line] for point in experiment if line in point.lines])


@pytest.mark.parametrize(("distance", "epochs", "lr", "mu"), [(4.0, (8, 8), 0.5, 0.5), (3.0, (3, 12), 0.4, 1.0)])
def test_what_runs_live_comes_to_rest_on_the_drawn_closed_forms(distance, epochs, lr, mu):
    bowls, points = two_bowls(distance), list(drift(distance, *epochs, lr, mu))
    ends = {name: points_of(points, name)[-1] for name in ("FedAvg", "FedProx", "SCAFFOLD", "FedNova")}
    assert len(points_of(points, "FedAvg")) == ROUNDS + 1                          # the start, and one a round
    assert ends["FedAvg"] == pytest.approx(bowls.fixed_point(lr, epochs), abs=0.02)
    assert ends["FedProx"] == pytest.approx(bowls.fixed_point(lr, epochs, mu), abs=0.05)
    assert ends["FedNova"] == pytest.approx(bowls.fixed_point(lr, epochs, normalised=True), abs=0.02)
    assert ends["SCAFFOLD"] == pytest.approx(bowls.optimum(), abs=0.02)
    crosses = points_of(points, "closed forms").reshape(3, 6, 2)                   # FedAvg's, FedProx's, FedNova's
    assert np.nanmean(crosses[0], axis=0) == pytest.approx(bowls.fixed_point(lr, epochs), abs=1e-6)
    assert np.nanmean(points_of(points, "the optimum"), axis=0) == pytest.approx(bowls.optimum(), abs=1e-6)


@pytest.mark.parametrize("at", [(0.0, 1, 1, 0.6, 2.0), (6.0, 30, 1, 0.6, 2.0), (6.0, 1, 30, 0.05, 0.0)])
def test_the_corners_of_the_drift_sliders_run(at):
    points = list(drift(*at))
    for name in ("FedAvg", "FedProx", "SCAFFOLD", "FedNova"):
        gaps = points_of(points, f"{name}'s gap")[:, 1]
        assert len(gaps) == ROUNDS
        assert gaps.min() > 0                                                      # the axis is logarithmic
        assert np.isfinite(gaps).all()
        assert gaps.max() < 20 or name in ("SCAFFOLD", "FedNova")   # 30 steps beside 1 step: these two overshoot


def test_ellipses_are_contours_and_crosses_are_centred():
    bowls = two_bowls(4.0)
    ring = np.array(ellipses(bowls.centres[1], bowls.curvatures[1], (0.3,))[:-1])
    assert bowls.losses(ring)[1] == pytest.approx(np.full(len(ring), 0.3))
    assert np.nanmean(cross(np.array([1.0, 2.0]), 0.5), axis=0) == pytest.approx([1.0, 2.0])


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
