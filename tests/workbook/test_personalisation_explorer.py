"""The logic behind the controls of lesson 8, without a browser."""

import itertools
import time
from pathlib import Path

import numpy as np
import pytest

from fl_course import Dirichlet, Shards, Synchronous, Writers
from fl_course.workbook.widgets.personalisation import (
    CLIENTS,
    DEALS,
    FRACTION,
    LAYERS,
    MODEL,
    ROUNDS,
    alone,
    at_home,
    bars,
    clients,
    personalisation,
    personalisation_explorer,
)

GRID = [
    *itertools.product(["own taste"], LAYERS, [(0, 0.0), (2, 0.1), (2, 10.0)]),
    *itertools.product(["own hand", "two digits"], ["none", "the first"], [(1, 0.0)]),
]


@pytest.mark.parametrize(("deal", "layers", "tuning"), GRID, ids=str)
def test_a_position_measures_every_client(deal, layers, tuning):
    at = (deal, layers, *tuning)
    points = list(itertools.islice(personalisation(*at), 2))
    assert len(points) == 2
    for point in points:
        assert sum(count for _, count in point.bars["own models"]) == CLIENTS
        assert sum(count for _, count in point.bars["local only"]) == CLIENTS
        assert 0 <= point.lines["own models, worst tenth"][1] <= point.lines["own models, mean"][1] <= 1
        assert point.lines["local only, mean"][1] == alone(at[0]).mean()
    sent = int(points[-1].text.split("sends ")[1].split(" bytes")[0].replace(",", ""))
    numbers = {"none": MODEL.dim, "the last": MODEL.dim - 650, "the first": 650}[at[1]]
    assert 4 * numbers < sent < 4 * numbers + 200                     # what is at home is not sent


def test_a_rope_holds_and_without_fine_tuning_nothing_moves():
    data = clients("own taste")
    start = np.tile(MODEL.init(np.random.default_rng(0)), (CLIENTS, 1))
    far = [np.abs(at_home(data, start, 2, lam) - start).max() for lam in (0.0, 1.0, 100.0)]
    assert far[0] > far[1] > far[2] > 0
    loose, none = at_home(data, start, 2, 1e-9), at_home(data, start, 2, 0.0)
    assert np.allclose(loose, none, atol=1e-5)


def test_bars_count_each_client_once_where_it_belongs():
    each = np.array([0.0, 0.49, 0.5, 0.549, 0.55, 0.95, 1.0, 0.675])
    counts = dict(bars(each))
    assert counts["< 50"] == 2
    assert (counts["50"], counts["55"], counts["65"], counts["95"]) == (2, 1, 1, 2)
    assert sum(counts.values()) == len(each)
    assert dict(bars(np.array([22 / 40])))["55"] == 1                 # 55 % is 55 %, whatever a float says


def test_the_default_run_is_quick_and_shows_what_the_lesson_says():
    for deal in DEALS:
        alone(deal)
    start = time.perf_counter()
    points = personalisation("own taste", "none", 0, 0.0)
    first = next(points)
    assert time.perf_counter() - start < 5                            # 150 ms when nothing else runs; this machine may be busy
    plain = [first, *points]
    xs = [point.lines["own models, mean"][0] for point in plain]
    assert xs == sorted(xs)
    assert (xs[0], xs[-1]) == (1, ROUNDS)

    def end(*at):
        return list(personalisation(*at))[-1].lines["own models, mean"][1]

    assert end("own taste", "none", 5, 0.0) > plain[-1].lines["own models, mean"][1] + 0.03
    assert end("own hand", "none", 5, 0.0) < end("own hand", "none", 5, 10.0)         # the rope is what it needs
    assert end("two digits", "none", 5, 0.0) > end("two digits", "none", 0, 0.0) + 0.05


def test_a_run_repeats():
    one, two = ([p.lines for p in itertools.islice(personalisation("two digits", "the last", 1, 0.1), 4)] for _ in range(2))
    assert one == two


def test_the_explorer_has_the_set_up_of_the_lesson_and_stores_a_picture():
    lesson = (Path(__file__).parents[2] / "source" / "lessons" / "08_personalisation.py").read_text("utf-8")
    assert 'deals = {"own hand": Writers(), "own taste": Dirichlet(0.15), "two digits": Shards(2)}' in lesson
    assert {"own hand": Writers(), "own taste": Dirichlet(0.15), "two digits": Shards(2)} == DEALS
    assert f"rounds: int = {ROUNDS}" in lesson
    assert f"Synchronous({FRACTION})" in lesson
    assert Synchronous(FRACTION).goal(CLIENTS) == 10
    assert "mlp(784, 64, 10), LocalSGD(lr=0.1, epochs=2, batch_size=10)" in lesson
    explorer = personalisation_explorer()
    bundle, _ = explorer._repr_mimebundle_()
    assert "layers at home = none, fine-tuning = 0 epochs" in bundle["text/plain"]
    assert bundle["image/png"]
    assert explorer.spec["charts"][0]["bars"] == ["own models", "local only"]
    explorer.close()
