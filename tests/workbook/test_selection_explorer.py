"""The logic behind the controls of lesson 6, without a browser."""

import itertools
import re
import time
from pathlib import Path

import numpy as np
import pytest

from fl_course import QualityScore, Synchronous, UniformSelection, mlp
from fl_course.workbook.widgets.selection import (
    ACCURACY,
    CLIENTS,
    HEARD,
    MODEL,
    ROUNDS,
    TRAINING,
    WAYS,
    by_tenth,
    experiment,
    phones,
    selection,
    selection_explorer,
    selector,
    slow_phones_hold_high_digits,
)

DEFAULT = {"fraction": 0.1, "over": 0, "how": "uniform", "quality": 0.3, "speed": 0.4, "spread": 1.0}


def test_the_controls_make_what_they_name():
    assert selector("uniform", 0.3, 0.4) == UniformSelection()
    assert selector("quality score", 0.3, 0.4) == QualityScore()                     # the weights of the document
    assert selector("drawn by score", 1.0, 0.0) == QualityScore(data=1.0, compute=0.0, bandwidth=0.0, drawn=True)
    assert len({type(selector(how, 0.3, 0.4)).__name__ for how in WAYS}) == len(WAYS) - 1
    built = experiment(0.2, 30, "uniform", 0.3, 0.4, 0.5)
    assert built.schedule == Synchronous(0.2, over_selection=0.3)
    assert built.fleet == phones(0.5)


def test_slow_phones_hold_the_high_digits_whatever_the_spread():
    data, by_speed = slow_phones_hold_high_digits()
    means = [data.examples(client)[1].mean() for client in by_speed]
    assert means == sorted(means)
    for spread in (0.5, 1.0, 2.0):
        seconds = [phones(spread).compute(client, 1, np.random.default_rng) for client in by_speed]
        assert seconds == sorted(seconds)


@pytest.mark.parametrize(("how", "corner"), list(itertools.product(WAYS, (
    (0.05, 0, 0.0, 0.0, 0.0), (0.05, 100, 1.0, 0.0, 2.0), (0.5, 0, 0.0, 1.0, 2.0), (0.5, 100, 1.0, 1.0, 0.0),
))), ids=str)  # fmt: skip
def test_every_corner_builds_and_takes_a_step(how, corner):
    fraction, over, quality, speed, spread = corner
    state, record = next(experiment(fraction, over, how, quality, speed, spread).run(1))
    assert record.clients
    assert np.isfinite(state.server.params).all()


@pytest.mark.parametrize("how", WAYS)
def test_every_way_runs_to_its_end(how):
    points = list(selection(**{**DEFAULT, "how": how}))
    assert len(points) == ROUNDS
    heard = dict(points[-1].bars[HEARD])
    assert sum(heard.values()) * CLIENTS / 10 == pytest.approx(10 * ROUNDS)          # ten answers a round
    assert all(0 <= value <= 1 for _, value in points[-1].bars[ACCURACY])


def test_the_first_point_comes_at_once():
    slow_phones_hold_high_digits()
    start = time.perf_counter()
    next(selection(**DEFAULT))
    assert time.perf_counter() - start < 5                # 150 ms when nothing else runs; this machine may be busy


def never_heard(point):
    return int(re.search(r"(\d+) of 100 phones were never heard", point.text)[1])


def test_what_the_text_says_is_what_the_sliders_show():
    """Asking 30 % more is faster and starves the slow, who hold the high digits; with equal phones it does neither."""
    uniform, more = (list(selection(**{**DEFAULT, "over": over}))[-1] for over in (0, 30))
    assert more.lines["accuracy by seconds"][0] < 0.7 * uniform.lines["accuracy by seconds"][0]
    slow = {name: dict(point.bars[HEARD])["10"] for name, point in (("uniform", uniform), ("more", more))}
    assert slow["more"] < 0.5 * slow["uniform"]
    assert dict(more.bars[ACCURACY])["10"] < dict(uniform.bars[ACCURACY])["10"]
    equal = [list(selection(**{**DEFAULT, "over": over, "spread": 0.0}))[-1] for over in (0, 30)]
    assert equal[1].lines["accuracy by seconds"][0] > 0.8 * equal[0].lines["accuracy by seconds"][0]
    best = list(selection(**{**DEFAULT, "how": "quality score"}))[-1]
    assert never_heard(best) > 60 > 10 > never_heard(uniform)


def test_tenths():
    assert by_tenth(np.arange(20.0)) == [(str(i + 1), 2 * i + 0.5) for i in range(10)]
    values = np.full(100, np.nan)
    values[5] = 0.5
    assert by_tenth(values)[0] == ("1", 0.5)
    assert np.isnan(by_tenth(values)[1][1])


def test_the_explorer_has_the_set_up_of_the_lesson_and_stores_a_picture():
    lesson = (Path(__file__).parents[2] / "source" / "lessons" / "06_selection.py").read_text("utf-8")
    assert "mlp(64, 32, 10), LocalSGD(lr=0.1, epochs=5, batch_size=10)" in lesson
    assert (MODEL.dim, TRAINING.lr, TRAINING.epochs, TRAINING.batch_size) == (mlp(64, 32, 10).dim, 0.1, 5, 10)
    assert f"rounds: int = {ROUNDS}" in lesson
    assert "LogNormal(examples_per_second=20, speed_spread=1.0" in lesson
    explorer = selection_explorer()
    bundle, _ = explorer._repr_mimebundle_()
    assert "client fraction C = 0.1, asked beyond that = 0 %, who is asked = uniform" in bundle["text/plain"]
    assert bundle["image/png"]
    explorer.close()
