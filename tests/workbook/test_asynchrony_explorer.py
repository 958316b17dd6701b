"""The logic behind the controls of lesson 7, without a browser."""

import itertools
import time

import numpy as np
import pytest

from fl_course.workbook.widgets.asynchrony import (
    ANSWERS,
    DEVICES,
    DOWN,
    MEDIAN,
    THIRDS,
    TIMELINE,
    UP,
    WINDOW,
    ages,
    asynchrony,
    asynchrony_explorer,
    devices,
    experiments,
    job_of,
    timeline,
    twenty,
)


@pytest.mark.parametrize("at", list(itertools.product((1, 7, 20), (1, 10, 20), (0.0, 2.0), (0.0, 1.5), (False, True))), ids=str)
def test_every_position_begins_at_once_and_shows_jobs(at):
    points = asynchrony(*at)
    first = next(point for point in points if point.jobs)
    (jobs,) = first.jobs.values()
    rows = {row for row, *_ in jobs}
    assert rows <= {"", *map(str, range(DEVICES))}
    assert len([row for row in rows if row]) <= min(DEVICES, at[0] + at[1])
    for _, instants, end, words in jobs:
        assert list(instants) == sorted(instants)
        assert all(words)
        assert end in ("", "used", "at work")


def test_the_timeline_has_every_job_of_the_window_and_says_where_it_went():
    free, _ = experiments(3, 10, 0.5, 1.0, False)
    history = free.train(60)
    jobs = timeline(history.records, history.state)
    spans = [(span, record.version) for record in history.records for span in record.spans]
    begun = [job for job in jobs if job[0]]
    held = [job for job in history.state.jobs if job.begun < WINDOW]
    assert len(begun) == sum(span.begun < WINDOW for span, _ in spans) + len(held)
    assert [job[1][0] for job in begun] == sorted(job[1][0] for job in begun)
    span, version = spans[-1]
    assert job_of(span, version)[3][-1].startswith(f"used in step {version}, {version - 1 - span.version} step")
    assert job_of(span, span.version + 2)[3][-1].endswith(", 1 step old")
    staleness = sorted(version - 1 - span.version for span, version in spans)
    assert staleness == sorted(age for record in history.records for age in record.staleness)
    assert sum(count for _, count in ages(history.records)) == len(staleness)


def test_devices_are_log_normal_and_the_first_is_the_fastest():
    seconds = list(devices(1.0).seconds.values())
    assert seconds == sorted(seconds)
    logs = np.log(seconds) - np.log(MEDIAN)
    assert abs(logs.mean()) < 1e-9
    assert abs(logs.std() - 1) < 0.1
    assert len(set(devices(0.0).seconds.values())) == 1
    assert sorted(k for third in THIRDS.values() for k in third) == list(range(DEVICES))


def test_linked_data_go_from_low_digits_to_high_and_nobody_loses_any():
    apart, linked = twenty(False), twenty(True)
    means = [linked.y[rows].mean() for rows in linked.train]
    assert means == sorted(means)
    assert sorted(map(len, apart.train)) == sorted(map(len, linked.train))


def test_both_use_as_many_answers_and_the_clock_runs_forward():
    points = list(asynchrony(5, 10, 0.5, 1.0, False))
    lines = {name: [point.lines[name] for point in points if name in point.lines] for name in ("no rounds", "rounds")}
    assert (len(lines["no rounds"]), len(lines["rounds"])) == (ANSWERS // 5, ANSWERS // 10)
    assert lines["no rounds"][-1][0] < 0.5 * lines["rounds"][-1][0]               # what the lesson is about
    assert all(line == sorted(line, key=lambda place: place[0]) for line in lines.values())
    last = next(point for point in reversed(points) if point.bars)
    assert sum(share for _, share in last.bars["share of the answers"]) == pytest.approx(1)


def test_equal_speeds_and_a_buffer_as_large_as_the_team_are_rounds():
    points = list(asynchrony(20, 20, 0.5, 0.0, False))
    no_rounds, rounds = ([p.lines[name] for p in points if name in p.lines] for name in ("no rounds", "rounds"))
    assert no_rounds == rounds == [(pytest.approx((MEDIAN + DOWN + UP) * (i + 1)), y) for i, (_, y) in enumerate(rounds)]


def test_who_is_slow_and_knows_other_digits_is_not_served_when_all_are_at_work():
    share, accuracy = {}, {}
    for linked in (False, True):
        last = [point for point in asynchrony(5, DEVICES, 0.5, 1.5, linked) if point.bars][-1]
        share[linked], accuracy[linked] = dict(last.bars["share of the answers"]), dict(last.bars["accuracy for them"])
    assert share[False]["slow"] < 0.1
    assert share[True]["slow"] < 0.1
    assert accuracy[True]["slow"] < accuracy[True]["fast"] - 0.3


def test_the_first_point_comes_at_once():
    twenty(False)
    start = time.perf_counter()
    next(asynchrony(5, 10, 0.5, 1.0, False))
    assert time.perf_counter() - start < 3                # 150 ms when nothing else runs; this machine may be busy


def test_the_explorer_stores_a_picture_of_its_default_run():
    explorer = asynchrony_explorer()
    bundle, _ = explorer._repr_mimebundle_()
    assert "buffer K = 5, devices at work c = 10, discount exponent a = 0.5, spread of the speeds = 1" in bundle["text/plain"]
    assert bundle["image/png"]
    chart = next(chart for chart in explorer.spec["charts"] if chart["kind"] == "timeline")
    assert chart["title"] == TIMELINE
    assert chart["rows"] == [str(k) for k in range(DEVICES)]
    assert (UP, DOWN) == (1.5, 0.5)                       # as in the lesson
    explorer.close()
