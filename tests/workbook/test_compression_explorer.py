"""The logic behind the controls of lesson 5, without a browser."""

import itertools
import time
from pathlib import Path

import pytest

from fl_course import QSGD, Coordinator, SignSGD, Synchronous, TopK, mlp
from fl_course.workbook.widgets.compression import (
    FRACTION,
    MODEL,
    ROUNDS,
    TRAINING,
    compression,
    compression_explorer,
    one_update,
    stack,
    two_shards,
)


def test_the_controls_make_the_stages_that_they_name():
    assert stack(1, 32, True) == []
    assert stack(0.01, 32, False) == [TopK(0.01, feedback=False)]
    assert stack(0.01, 4, True) == [TopK(0.01), QSGD(4)]
    assert stack(1, 1, True) == [SignSGD(feedback=True)]
    assert stack(0.01, 1, True) == [TopK(0.01), SignSGD(feedback=False)]


@pytest.mark.parametrize("at", list(itertools.product((0.002, 0.05, 1), (1, 2, 8, 32), (False, True))), ids=str)
def test_every_position_builds_and_weighs_an_update(at):
    experiment = Coordinator(two_shards(), MODEL, TRAINING, Synchronous(FRACTION), stages=stack(*at))
    bars = one_update(experiment)
    assert 0 < bars["bound"] <= bars["encoded"] + 1 < bars["message"] + 1
    record = next(iter(experiment.run(1)))[1]
    assert min(record.upload) * 0.8 <= bars["message"] <= max(record.upload) * 1.2


def test_memory_helps_and_the_first_point_comes_at_once():
    two_shards()
    start = time.perf_counter()
    points = compression(0.3, 32, True)
    first = next(points)
    waited = time.perf_counter() - start
    assert waited < 5                                     # 150 ms when nothing else runs; this machine may be busy
    assert len(first.bars["bytes of one update"]) == 4
    runs = {True: [first, *points], False: list(compression(0.3, 32, False))}
    ends = {on: sum(point.lines["accuracy by round"][1] for point in run[-5:]) / 5 for on, run in runs.items()}
    assert len(runs[True]) == ROUNDS
    assert ends[True] > ends[False] + 0.1
    assert [p.lines["accuracy by MB"][0] for p in runs[True]] == sorted(p.lines["accuracy by MB"][0] for p in runs[True])


def test_the_explorer_stores_a_picture_of_its_default_run():
    explorer = compression_explorer()
    bundle, _ = explorer._repr_mimebundle_()
    assert "share of the numbers sent = 1 %, bits a number = 32, error feedback = on" in bundle["text/plain"]
    assert bundle["image/png"]
    explorer.close()


def test_the_explorer_has_the_set_up_and_the_positions_of_the_lesson():
    """The text says 1 % and 0.3 %, and its numbers are those of this federation."""
    lesson = (Path(__file__).parents[2] / "source" / "lessons" / "05_compression.py").read_text("utf-8")
    assert "mlp(64, 64, 10), LocalSGD(lr=0.2, epochs=5, batch_size=10)" in lesson
    assert (MODEL.dim, TRAINING.lr, TRAINING.epochs, TRAINING.batch_size) == (mlp(64, 64, 10).dim, 0.2, 5, 10)
    assert f"Coordinator(data, model, training, Synchronous({FRACTION})" in lesson
    assert f"rounds: int = {ROUNDS}" in lesson
    explorer = compression_explorer()
    texts = explorer.spec["controls"][0]["texts"]
    assert {"0.3 %", "1 %", "100 %"} <= set(texts)
    assert texts[explorer.spec["controls"][0]["start"]] == "1 %"
    assert "10 of 100 clients a round" in explorer.spec["title"]
    explorer.close()
