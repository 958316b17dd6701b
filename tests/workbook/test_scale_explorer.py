"""The logic behind the controls of lesson 11, without a browser."""

import itertools

import pytest

from fl_course.workbook.widgets.scale import CLIENT_LINK, ROUNDS, SHARES, link_seconds, scale, scale_explorer


def test_links_by_hand():
    assert link_seconds(1000, 250, 40, 1e6, 1e7) == pytest.approx((0.01, 0.04))
    own, everybody = link_seconds(7, 5, 50, 2e6, 1e8)                   # equal at m = r_s / r_k
    assert own == pytest.approx(everybody)


@pytest.mark.parametrize("at", list(itertools.product((2, 100), (SHARES[0], 1.0), (2, 200))), ids=str)
def test_every_corner_runs_and_says_which_link_is_slow(at):
    points = list(itertools.islice(scale(*at), 2))
    seconds = [point.lines["accuracy by seconds of links"][0] for point in points]
    assert 0 < seconds[0] < seconds[1]
    slow = "the server's link" if at[0] * CLIENT_LINK > at[2] * 1e6 else "each client's link"
    assert slow in points[0].text


def test_by_seconds_the_few_are_ahead_behind_a_narrow_server():
    few, many = (list(scale(m, 1.0, 2)) for m in (5, 100))
    assert len(few) == len(many) == ROUNDS
    seconds, reached = few[-1].lines["accuracy by seconds of links"]
    others = [point.lines["accuracy by seconds of links"] for point in many]
    assert reached > max((accuracy for when, accuracy in others if when <= seconds), default=0) + 0.1


def test_the_explorer_stores_a_picture_of_its_default_run():
    explorer = scale_explorer()
    bundle, _ = explorer._repr_mimebundle_()
    assert "clients a round = 10" in bundle["text/plain"]
    assert bundle["image/png"]
    explorer.close()
