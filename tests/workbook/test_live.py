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

from fl_course.workbook.widgets.controls import (
    BarChart,
    Button,
    Chart,
    Choice,
    LogSlider,
    Slider,
    Switch,
    run_labels,
    specification,
)
from fl_course.workbook.widgets.live import MAX_PINS, Live, Point, Run, stop_all

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
    assert frames[-1]["status"] == "stopped"
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
])
def test_points_for_no_chart_are_refused(point, words):
    explorer, _ = live(lambda rate: iter([point]), ONE, LOSS)
    with pytest.raises(ValueError, match=words):
        explorer.run_here()


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
    assert [run["values"][0] for run in runs] == ["8", "3", "4", "5", "6", "7", "8"]      # now, then the newest pins
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
from fl_course.workbook.widgets.controls import Chart, Slider
import torch
def run(n):
    while True:
        torch.randn(200, 200) @ torch.randn(200, 200)
        yield {"c": (0, 1)}
live = Live(run, [Slider("n", 0, 1)], [Chart("c", "x", "y")])
live.move({})
time.sleep(0.2)
""")
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    ended = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60, env=env)
    assert ended.returncode == 0, ended.stderr
