"""The logic of the explorer without a browser: latest wish wins, no backlog, nothing swallowed."""

from __future__ import annotations

import itertools
import json
import logging
import math
import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from fl_course.workbook.widgets import (
    BarChart,
    Button,
    Chart,
    Choice,
    ImageChart,
    LogSlider,
    PlaneChart,
    Slider,
    Steps,
    Switch,
)
from fl_course.workbook.widgets import (
    live as module,
)
from fl_course.workbook.widgets.charts import run_labels, specification, table_head, table_row
from fl_course.workbook.widgets.controls import show
from fl_course.workbook.widgets.live import MAX_PINS, Live, stop_all
from fl_course.workbook.widgets.points import BUCKETS, Drawn, Point, Run, extremes

CONTROLS = (Slider("rate", 1, 9), Choice("rule", ["mean", "median"]), Switch("noise"), Button("again"))
CHARTS = (Chart("loss", x="round", y="loss"), BarChart("shares", y="share"))


def experiment(rate, rule, noise, again):
    """A recurrence whose end depends on every value: fast, and exact to compare."""
    state = 1.0
    for number in range(1, 6):
        state = state * 0.5 + rate + 10 * (rule == "median") + 100 * noise + 1000 * again
        yield Point({"loss": (number, state)}, {"shares": [("a", rate), ("b", 1)]}, f"round {number}", number / 5)


def live(run=experiment, controls=CONTROLS, charts=CHARTS, **more) -> tuple[Live, list[dict]]:
    frames: list[dict] = []
    return Live(run, controls, charts, frames.append, **more), frames


def expected(**values) -> list[tuple[float, float]]:
    return [(float(p.lines["loss"][0]), float(f"{p.lines['loss'][1]:.6g}")) for p in experiment(**values)]


# -- controls --------------------------------------------------------------------------------------------------------


def test_positions_are_the_numbers_a_reader_expects():
    assert Slider("c", 0.05, 1.0, 0.05).values[:3] == (0.05, 0.1, 0.15)
    assert Slider("c", 0.05, 1.0, 0.05).values[-1] == 1.0
    assert len(Slider("c", 0.05, 1.0, 0.05).values) == 20
    assert Slider("e", 1, 10, 3).values == (1, 4, 7, 10)
    assert all(type(v) is int for v in Slider("e", 1, 10).values)
    assert Slider("c", 0.05, 1.0, 0.05, value=0.3).start == 5
    alpha = LogSlider("alpha", 0.01, 100, 13, value=1)
    assert alpha.values[0] == 0.01
    assert alpha.values[-1] == 100
    assert alpha.values[alpha.start] == 1
    steps = np.diff(np.log(alpha.values))
    assert steps.min() > 0.6 * steps.mean()
    assert steps.max() < 1.4 * steps.mean()
    assert Choice("rule", ["mean", "median"], "median").start == 1
    assert Switch("noise", True).start == 1


@pytest.mark.parametrize(("build", "words"), [
    (lambda: Slider("c", 1, 1), "low < high"),
    (lambda: Slider("c", 0, 1, -0.1), "step > 0"),
    (lambda: Slider("c", 0, math.inf), "low < high"),
    (lambda: Slider("c", 0, 1, 1e-6), "at most 1001"),
    (lambda: Slider("c", 0.0, 1.0, 0.1, value=0.25), "none of its positions"),
    (lambda: LogSlider("a", 0, 1), "0 < low"),
    (lambda: LogSlider("a", 0.1, 1, value=3), "outside"),
    (lambda: Choice("rule", ["mean"]), "at least two"),
    (lambda: Steps("percent", [1]), "at least two numbers in rising order"),
    (lambda: Steps("percent", [1, 3, 2]), "rising order"),
    (lambda: Steps("percent", [1, 2, 3], 5), "percent = 5 is none of its positions 1, 2, 3"),
    (lambda: Live(experiment, CONTROLS, [Chart("c", "x", "y", lines=tuple("abcdefghijklm"))]), "more than 12 on one chart"),
    (lambda: Choice("rule", ["mean", "median"], "krum"), "krum"),
    (lambda: Live(experiment, CONTROLS, []), "at least one Chart"),
    (lambda: Live(experiment, [*CONTROLS, Switch("rate")], CHARTS), "two controls are named rate"),
    (lambda: Live(experiment, CONTROLS, [*CHARTS, Chart("again", "x", "y", lines=("loss",))]), "draw the line loss"),
])
def test_bad_declarations_are_refused_with_their_name(build, words):
    with pytest.raises(ValueError, match=words):
        build()


@pytest.mark.parametrize("run", [lambda rate: iter(()), lambda rate, rule, noise, again, more: iter(())])
def test_experiment_must_take_one_argument_a_control(run):
    with pytest.raises(TypeError, match="one argument for each control \\(rate, rule, noise, again\\)"):
        live(run)


def test_labels_say_what_differs_and_nothing_else():
    controls = (Slider("c", 0.1, 1.0, 0.1, label="fraction C"), LogSlider("mb", 1, 100, unit="MB"))
    runs = [{"c": 0.1, "mb": 1.0}, {"c": 0.1, "mb": 10.0}]
    assert run_labels(controls, runs) == ["now: mb = 1 MB", "pin 1: mb = 10 MB"]
    assert run_labels(controls, runs[:1]) == ["now"]
    assert run_labels(controls, [runs[0], runs[0]]) == ["now", "pin 1"]


# -- values over the whole grid --------------------------------------------------------------------------------------


def test_every_position_reaches_the_experiment_as_declared():
    explorer, frames = live()
    grid = list(itertools.product(range(9), range(2), range(2)))
    for rate, rule, noise in grid:
        explorer.move({"rate": rate, "rule": rule, "noise": noise})
        run = explorer.result(5)
        assert run.values == {"rate": rate + 1, "rule": ["mean", "median"][rule], "noise": bool(noise), "again": False}
        assert run.lines["loss"] == expected(**run.values)
        assert frames[-1]["status"] == "done"
        assert frames[-1]["at"] == {"rate": rate, "rule": rule, "noise": noise, "again": 0}
    assert len(frames) >= len(grid)


def test_a_thread_and_the_callers_thread_give_the_same_run():
    explorer, frames = live()
    explorer.run_here()
    here = json.dumps(frames[-1]["runs"])
    explorer.move({})
    explorer.wait(5)
    assert json.dumps(frames[-1]["runs"]) == here


def test_a_button_is_true_in_its_own_run_only():
    explorer, _ = live()
    explorer.move({}, pressed="again")
    assert explorer.result(5).values["again"] is True
    explorer.move({})
    assert explorer.result(5).values["again"] is False
    with pytest.raises(ValueError, match="no button 'rate'"):
        explorer.move({}, pressed="rate")


@pytest.mark.parametrize("at", [
    {"rate": 9}, {"rate": -1}, {"rate": 1.0}, {"rate": True}, {"rate": "1"}, {"other": 0}, {"again": 1},
])
def test_positions_that_do_not_exist_change_nothing(at):
    explorer, frames = live()
    before = explorer.values()
    with pytest.raises(ValueError, match=r"positions 0 to 8|no control"):
        explorer.move({"noise": 1, **at})
    assert explorer.values() == before
    assert explorer.wait(0)
    assert not frames


# -- the latest wish wins --------------------------------------------------------------------------------------------


class Slow:
    """An experiment of 20 steps that says what happened to it."""

    def __init__(self, step: float = 0.01) -> None:
        self.step, self.begun, self.ended, self.closed = step, [], [], []
        self.at_once, self.most, self.lock = 0, 0, threading.Lock()

    def __call__(self, rate):
        with self.lock:
            self.at_once += 1
            self.most = max(self.most, self.at_once)
        self.begun.append(rate)
        try:
            for number in range(20):
                time.sleep(self.step)
                yield {"loss": (number, rate)}
            self.ended.append(rate)
        except GeneratorExit:
            self.closed.append(rate)
            raise
        finally:
            with self.lock:
                self.at_once -= 1


ONE = (Slider("rate", 0, 99),)
LOSS = (Chart("loss", x="round", y="loss"),)


def test_a_newer_move_closes_the_older_run():
    slow = Slow()
    explorer, frames = live(slow, ONE, LOSS)
    explorer.move({"rate": 1})
    time.sleep(0.05)
    explorer.move({"rate": 2}, move="page:2")
    assert explorer.result(5).values == {"rate": 2}
    assert slow.closed == [1]
    assert slow.ended == [2]
    assert slow.most == 1
    assert frames[-1]["move"] == "page:2"
    assert len(explorer.result().lines["loss"]) == 20


def test_ninety_moves_leave_no_backlog_and_the_last_value():
    slow = Slow(step=0.005)
    explorer, frames = live(slow, ONE, LOSS)
    longest = 0.0
    for rate in range(90):
        began = time.perf_counter()
        explorer.move({"rate": rate})
        longest = max(longest, time.perf_counter() - began)
        time.sleep(0.003)
    assert explorer.result(5).values == {"rate": 89}
    assert slow.ended == [89]
    assert slow.most == 1
    assert len(slow.begun) < 90                            # waiting wishes were replaced, not queued
    assert {tuple(p) for p in frames[-1]["runs"][0]["lines"]["loss"]} == {(float(n), 89.0) for n in range(20)}
    assert longest < 0.25                                  # a move waits for a lock, never for training


def test_a_dropped_run_never_draws_over_a_newer_one():
    explorer, frames = live(Slow(step=0.002), ONE, LOSS, every=0.0)
    for rate in range(40):
        explorer.move({"rate": rate})
        time.sleep(0.005)
    explorer.wait(5)
    drawn = [frame["runs"][0]["lines"]["loss"][-1][1] for frame in frames if frame["runs"][0]["lines"]]
    assert drawn == sorted(drawn)
    assert drawn[-1] == 39
    for frame in frames:
        assert len({y for _, y in frame["runs"][0]["lines"].get("loss", [])}) <= 1


def test_old_curve_stays_until_the_new_one_has_a_point():
    gate = threading.Event()

    def run(rate):
        if rate:
            gate.wait(5)
        yield {"loss": (0, rate)}

    explorer, frames = live(run, ONE, LOSS)
    explorer.run_here()
    explorer.move({"rate": 7})
    explorer.tell()
    assert frames[-1]["status"] == "running"
    assert frames[-1]["runs"][0]["lines"]["loss"] == [(0.0, 0.0)]
    gate.set()
    explorer.wait(5)
    assert frames[-1]["runs"][0]["lines"]["loss"] == [(0.0, 7.0)]


def test_frames_are_few_and_the_last_is_complete():
    def run(rate):
        for number in range(500):
            yield {"loss": (number, rate)}

    explorer, frames = live(run, ONE, LOSS, every=10.0)
    explorer.move({})
    explorer.wait(5)
    assert len(frames) == 3                                # it begins, the first point, the end
    assert [frame["status"] for frame in frames][-1] == "done"
    assert len(frames[-1]["runs"][0]["lines"]["loss"]) == 500


def test_a_run_is_announced_before_its_first_point():
    gate = threading.Event()

    def run(rate):
        gate.wait(5)
        yield {"loss": (0, rate)}

    explorer, frames = live(run, ONE, LOSS)
    explorer.move({"rate": 1}, move="page:1")
    assert [(frame["status"], frame["move"]) for frame in frames] == [("running", "page:1")]
    gate.set()
    assert explorer.wait(5)


def test_stop_and_close_end_the_run_and_keep_the_curve():
    slow = Slow()
    explorer, frames = live(slow, ONE, LOSS)
    explorer.move({"rate": 3})
    time.sleep(0.06)
    explorer.stop()
    assert explorer.wait(5)
    assert slow.closed == [3]
    assert [frame["status"] for frame in frames][-2:] == ["stopping", "stopped"]
    assert frames[-1]["runs"][0]["lines"]["loss"]
    explorer.move({"rate": 4})
    time.sleep(0.03)
    stop_all()                                             # what an interrupt of the kernel does
    assert explorer.wait(5)
    assert slow.closed == [3, 4]
    explorer.close()
    with pytest.raises(RuntimeError, match="closed; run its cell again"):
        explorer.move({"rate": 5})


def test_interrupt_in_the_callers_thread_closes_the_run_and_is_raised():
    def run(rate):
        yield {"loss": (0, 1)}
        raise KeyboardInterrupt

    explorer, frames = live(run, ONE, LOSS)
    with pytest.raises(KeyboardInterrupt):
        explorer.run_here()
    assert frames[-1]["status"] == "stopped"


def test_no_thread_is_left_when_nothing_runs():
    explorer, _ = live(Slow(0.001), ONE, LOSS)
    for _ in range(3):
        explorer.move({})
        assert explorer.wait(5)
    time.sleep(0.05)
    assert not [thread for thread in threading.enumerate() if thread.name == "explorer"]


# -- errors ----------------------------------------------------------------------------------------------------------


def broken(rate):
    yield {"loss": (0, rate)}
    if rate == 5:
        raise ZeroDivisionError("the learning rate is 5")
    yield {"loss": (1, rate)}


def test_errors_of_the_callers_thread_are_raised_there():
    explorer, frames = live(broken, (Slider("rate", 0, 9, value=5),), LOSS)
    with pytest.raises(ZeroDivisionError, match="rate is 5"):
        explorer.run_here()
    assert frames[-1]["error"] == "ZeroDivisionError: the learning rate is 5"


def test_errors_of_the_worker_are_shown_logged_kept_and_raised_then_forgotten(caplog):
    explorer, frames = live(broken, ONE, LOSS)
    with caplog.at_level(logging.ERROR):
        explorer.move({"rate": 5})
        explorer.wait(5)
    assert frames[-1]["status"] == "error"
    assert frames[-1]["error"] == "ZeroDivisionError: the learning rate is 5"
    assert frames[-1]["runs"][0]["lines"]["loss"] == [(0.0, 5.0)]
    assert "ZeroDivisionError" in caplog.text
    assert isinstance(explorer.error, ZeroDivisionError)
    with pytest.raises(ZeroDivisionError):
        explorer.result()
    explorer.move({"rate": 4})
    assert explorer.result(5).lines["loss"] == [(0.0, 4.0), (1.0, 4.0)]
    assert explorer.error is None
    assert frames[-1]["error"] == ""


def test_even_an_exit_in_the_worker_leaves_a_working_explorer(caplog):
    def run(rate):
        yield {"loss": (0, rate)}
        if rate == 1:
            raise SystemExit("done")

    explorer, _ = live(run, ONE, LOSS)
    explorer.move({"rate": 1})
    assert explorer.wait(5)
    with pytest.raises(SystemExit):
        explorer.result()
    explorer.move({"rate": 2})
    assert explorer.result(5).values == {"rate": 2}


@pytest.mark.parametrize(("point", "words"), [
    ({"losss": (0, 1)}, "yields the line 'losss', which no chart draws; the charts draw loss"),
    (Point(bars={"loss": [("a", 1)]}), "bar chart 'loss'"),
    (Point(images={"loss": [[1]]}), "image 'loss', which no chart draws; the charts draw none"),
    (Point(marks={"loss": (1, 1)}), "mark 'loss'"),
    (Point(outlines={"loss": []}), "outline 'loss'"),
    (0.5, r"yields 0\.5; it must yield a Point, or \{name of a line: \(x, y\)\}"),
    ({"loss": 0.5}, r"yields 0\.5 for 'loss'; it must be \(x, y\)"),
    ({"loss": (1, 2, 3)}, r"yields \(1, 2, 3\) for 'loss'"),
])
def test_points_that_nothing_draws_are_refused_with_a_sentence(point, words):
    explorer, _ = live(lambda rate: iter([point]), ONE, LOSS)
    with pytest.raises((ValueError, TypeError), match=words):
        explorer.run_here()


def test_an_experiment_that_forgets_to_yield_is_told_so():
    explorer, frames = live(lambda rate: None, ONE, LOSS)
    with pytest.raises(TypeError, match=r"returned None; it must yield a Point after each round: write `yield Point"):
        explorer.run_here()
    assert "yield" in frames[-1]["error"]


def test_result_says_when_it_waited_long_enough():
    explorer, _ = live(Slow(), ONE, LOSS)
    explorer.move({})
    with pytest.raises(TimeoutError, match=r"0\.01 s"):
        explorer.result(0.01)
    explorer.close()


# -- pins, frames ----------------------------------------------------------------------------------------------------


def test_pin_keeps_runs_and_reset_drops_them():
    explorer, frames = live()
    for rate in range(MAX_PINS + 2):
        explorer.move({"rate": rate})
        explorer.result(5)
        explorer.pin()
    runs = frames[-1]["runs"]
    assert [run["row"][1][:8] for run in runs] == [f"rate = {i}" for i in (8, 3, 4, 5, 6, 7, 8)]   # now, then the newest pins
    assert runs[1]["label"] == "pin 1: rate = 3"
    assert runs[1]["lines"]["loss"] == expected(rate=3, rule="mean", noise=False, again=False)
    explorer.reset()
    explorer.wait(5)
    assert len(frames[-1]["runs"]) == 1
    assert frames[-1]["at"] == {"rate": 0, "rule": 0, "noise": 0, "again": 0}


def test_a_pin_of_a_growing_run_does_not_grow():
    explorer, frames = live(Slow(), ONE, LOSS)
    explorer.move({"rate": 1})
    time.sleep(0.06)
    explorer.pin()
    kept = len(frames[-1]["runs"][1]["lines"]["loss"])
    explorer.wait(5)
    assert 0 < kept < 20
    assert len(frames[-1]["runs"][1]["lines"]["loss"]) == kept
    assert len(frames[-1]["runs"][0]["lines"]["loss"]) == 20


def test_pin_before_any_run_pins_nothing():
    explorer, frames = live()
    explorer.pin()
    assert len(frames[-1]["runs"]) == 1


def test_the_table_says_run_settings_and_where_each_curve_ended():
    charts = (Chart("accuracy", "round", "accuracy"), Chart("cost", "round", "ε", y_unit="bits", lines=("a", "b")),
              BarChart("bytes", "length"), ImageChart("pictures", ("p",)),
              PlaneChart("plane", "u", "v", lines=("path",), marks=("optimum",), letters=("A",), outlines=("valley",)))
    assert table_head(charts) == ["run", "settings", "accuracy", "a (bits)", "b (bits)"]
    lines = {"accuracy": [(1, 0.5), (2, 0.88346)], "a": [(1, 1234.5)], "path": [(0, 0)], "b": [(1, 2), (2, None)]}
    assert table_row(0, "C = 0.1", lines, charts) == ["now", "C = 0.1", "0.8835", "1,235", "–"]
    assert table_row(3, "", {}, charts) == ["pin 3", "", "–", "–", "–"]
    explorer, frames = live()
    explorer.run_here()
    assert frames[-1]["runs"][0]["row"] == ["now", "rate = 1, rule = mean, noise = off", "1.969"]


@pytest.mark.parametrize(("value", "text"), [
    (0.1, "0.1"), (12.345, "12.35"), (33000.0, "33,000"), (2e-5, "0.00002"), (3.3e-7, "3.3 · 10⁻⁷"), (1234.5, "1,235"),
    (0.0, "0"), (999999.0, "999,999"), (8388608.0, "8,388,608"), (1e9, "1 · 10⁹"), (-0.5, "-0.5"),
    (99.996, "100"), (1797, "1,797"),
    (True, "on"), ("mean", "mean"), (math.nan, "nan"), (0.99999, "1"), (-0.00001234, "-0.00001234"), (999.96, "1,000"),
])
def test_numbers_are_written_as_a_reader_writes_them(value, text):
    assert show(value) == text


def test_no_position_of_any_slider_shows_an_exponent():
    for slider in (LogSlider("ε", 0.25, 32768, 18), LogSlider("α", 0.01, 100, 25), Slider("n", 0, 100_000, 500)):
        texts = [show(value) for value in slider.values]
        assert not [text for text in texts if "e" in text or "·" in text]
        assert len(set(texts)) == len(texts)


# -- large runs ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, BUCKETS, BUCKETS + 1, 997, 5 * BUCKETS, 40_000])
@pytest.mark.parametrize("gaps", [0, 0.02])
def test_what_is_drawn_of_a_long_line_keeps_its_ends_extremes_and_gaps(count, gaps):
    rng = np.random.default_rng(count)
    points = [(float(i), None if rng.random() < gaps else float(rng.normal())) for i in range(count)]
    line = Drawn()
    for point in points:
        line.add(point)
    drawn, known = line.points(), set(points)
    assert set(drawn) <= known                             # nothing is made up, nothing is moved
    assert drawn == sorted(drawn, key=lambda p: p[0])
    assert (drawn[0], drawn[-1], line.total) == (points[0], points[-1], count)
    assert len(drawn) == count if count <= BUCKETS else len(drawn) <= (4 + 3 * (gaps > 0)) * (BUCKETS + 1)
    finite = [y for _, y in points if y is not None]
    if finite:
        assert {min(finite), max(finite)} <= {y for _, y in drawn}
    assert (None in [y for _, y in drawn]) == (None in [y for _, y in points])
    for start in range(0, count - count % line.width, line.width):      # the slow way: each bucket by itself
        bucket = [y for _, y in points[start : start + line.width] if y is not None]
        shown = [y for x, y in drawn if start <= x < start + line.width and y is not None]
        if bucket:
            assert (min(bucket), max(bucket)) == (min(shown), max(shown))


def test_extremes_of_few_points_are_those_points():
    assert extremes([]) == []
    assert extremes([(0, None)] * 4) == [(0, None)] * 4
    assert extremes([(i, 1.0) for i in range(9)]) == [(0, 1.0), (8, 1.0)]


def test_a_frame_stays_small_however_long_the_run_and_all_points_stay_in_the_kernel():
    names = tuple("abcdefghijkl")

    def run(rate):
        for number in range(20_000):
            yield dict.fromkeys(names, (number, math.sin(number)))

    explorer, frames = live(run, ONE, (Chart("c", "x", "y", lines=names),), every=10.0)
    explorer.run_here()
    assert len(json.dumps(frames[-1])) < 200_000
    assert frames[-1]["runs"][0]["points"] == dict.fromkeys(names, 20_000)            # the page says that it was thinned
    assert len(explorer.result().lines["a"]) == 20_000
    assert frames[-1]["runs"][0]["row"][2] == show(math.sin(19_999))                     # the last value is never thinned away


# -- a kernel that is at work is not silent, one that was stopped says when ----------------------------------------------


def test_every_move_is_acknowledged_at_once_even_while_a_step_takes_long():
    gate, begun = threading.Event(), threading.Event()

    def run(rate):
        begun.set()
        gate.wait(10)
        yield {"loss": (0, rate)}

    explorer, frames = live(run, ONE, LOSS)
    explorer.move({"rate": 1}, move="page:1")
    assert begun.wait(5)
    for number in range(2, 6):
        explorer.move({"rate": number}, move=f"page:{number}")
        assert (frames[-1]["move"], frames[-1]["status"]) == (f"page:{number}", "running")
    explorer.stop("page:6")
    assert (frames[-1]["move"], frames[-1]["status"]) == ("page:6", "stopping")     # the thread is still in its step
    assert not explorer.wait(0.1)
    gate.set()
    assert explorer.wait(5)
    assert frames[-1]["status"] == "stopped"


def test_a_move_right_after_a_stop_runs():
    explorer, frames = live(Slow(0.005), ONE, LOSS)
    for rate in range(20):
        explorer.move({"rate": rate})
        time.sleep(0.004 * (rate % 3))
        explorer.stop()
        explorer.move({"rate": rate + 1})
    assert explorer.result(10).values == {"rate": 20}
    assert frames[-1]["status"] == "done"


def test_a_run_that_never_yields_is_broken_off_after_its_explorer_was_closed(monkeypatch):
    monkeypatch.setattr(module, "GRACE", 0.2)
    ended, begun = [], threading.Event()

    def run(rate):
        try:
            while True:
                begun.set()
                sum(range(1000))
        finally:
            ended.append(rate)
        yield

    explorer, _ = live(run, ONE, LOSS)
    explorer.move({"rate": 1})
    assert begun.wait(5)
    explorer.close()
    assert explorer.wait(5)
    assert ended == [1]
    assert not [thread for thread in threading.enumerate() if thread.name == "explorer"]


def test_frames_are_strict_json_whatever_is_measured():
    run = Run({})
    run.add({"loss": (np.float32(1), np.float64("nan"))})
    run.add(Point({"loss": (2, math.inf)}, {"shares": [("a", -math.inf), (7, np.int64(3))]}))
    assert run.lines["loss"] == [(1.0, None), (2.0, None)]
    assert run.bars["shares"] == [("a", None), ("7", 3.0)]
    explorer, frames = live(lambda rate: iter([{"loss": (0, math.nan)}]), ONE, LOSS)
    explorer.run_here()
    json.dumps(frames[-1], allow_nan=False)
    json.dumps(specification("a title", CONTROLS, CHARTS), allow_nan=False)


def test_python_can_end_while_a_run_is_under_way(tmp_path):
    """A daemon thread inside torch when the interpreter goes away would abort the process."""
    script = tmp_path / "leave.py"
    script.write_text("""
import time
from fl_course.workbook.widgets.live import Live
from fl_course.workbook.widgets import Chart, Slider
import torch
def run(n):
    while True:
        torch.randn(200, 200) @ torch.randn(200, 200)
        yield {"c": (0, 1)}
def stuck(n):
    while True:
        torch.randn(200, 200) @ torch.randn(200, 200)
    yield
lives = [Live(run, [Slider("n", 0, 1)], [Chart("c", "x", "y")])]
lives += [Live(stuck, [Slider("n", 0, 1)], [Chart("c", "x", "y")]) for _ in range(5)]
for live in lives:
    live.move({})
time.sleep(0.2)
import atexit
began = time.monotonic()
atexit._run_exitfuncs()
print(time.monotonic() - began)
""")
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    ended = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60, env=env)
    assert ended.returncode == 0, ended.stderr
    assert float(ended.stdout) < 4                         # two seconds in all, not two for each that is stuck
