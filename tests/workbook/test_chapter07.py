"""What the lesson and the exercises of chapter 7 say, held against the library."""

import re
from collections import deque
from math import pi, sin
from pathlib import Path

import numpy as np
import pytest

from fl_course import (
    IID,
    Buffered,
    Coordinator,
    Discount,
    Known,
    LocalSGD,
    Uniform,
    Update,
    WeightedMean,
    answer_rate,
    answer_rates,
    digits,
    logistic,
    rehearse,
)
from fl_course.workbook.exercises import ch07
from fl_course.workbook.grading.checks import examine, find

ROOT = Path(__file__).parents[2]
EXERCISES = (ROOT / "source" / "exercises" / "07_asynchrony.py").read_text("utf-8")
JOBS = [6.0, 7.0, 8.0, 10.0, 12.0, 15.0, 22.0, 42.0]


def given() -> dict:
    """What the exercise hands out beside the fault: its cell tagged `given`, executed."""
    code = EXERCISES.split('# %% tags=["given"]')[1].split("# %%")[0]
    names = {"np": np}
    exec(code, names)
    return names


@pytest.fixture(scope="module")
def eight() -> Coordinator:
    team = digits().partition(IID(), clients=8, seed=0)
    fleet = Known({k: s - 2.0 for k, s in enumerate(JOBS)}, down=0.5, up=1.5)
    return Coordinator(team, logistic(64, 10), LocalSGD(0.1), Buffered(8, 1), weights=Uniform(), fleet=fleet)


def test_the_oracle_finds_both_faults_and_is_content_with_the_mended_server(capsys):
    names = given()
    assert re.findall(r"counts (\S+)", capsys.readouterr().out) == ["0.500", "0.414", "0.366", "0.333"]
    assert [round(names["weight_of"](ch07.serve, age), 3) for age in range(4)] == [1, 0.707, 0.577, 0.5]
    assert round(names["weight_of"](ch07.order_mended_only, 3), 2) == 0.37                # as its hint says
    arguments = ch07.draw_arrivals(np.random.default_rng(0))
    assert np.allclose(names["careless_serve"](*arguments), ch07.as_it_was(*arguments))


@pytest.mark.parametrize("kind", ["polynomial", "exponential", "hinge"])
def test_the_three_curves_are_the_librarys(kind):
    for age in range(12):
        assert ch07.staleness_weight(age, kind, 0.7, 4) == pytest.approx(Discount(kind, 0.7, 4)(age))


def test_the_hinge_of_the_papers_example():
    assert ch07.staleness_weight(5, "hinge", 10, 4) == pytest.approx(0.0909, abs=1e-4)


def test_the_step_is_the_librarys():
    rng = np.random.default_rng(0)
    w, deltas, ages, lr = ch07.draw_buffer(rng)
    updates = [Update(k, 0, delta.astype(np.float32), weight=1.0) for k, delta in enumerate(deltas)]
    total = WeightedMean(Discount("polynomial", 0.5)).combine(updates, ages.tolist())
    assert np.allclose(ch07.fedbuff_step(w, deltas, ages, lr), w + lr * total.total / total.weight, atol=1e-6)


def test_throughput_is_the_librarys_forecast():
    an_hour, shares = ch07.throughput(np.array(JOBS))
    assert an_hour == pytest.approx(3600 * answer_rate(JOBS))
    rates = answer_rates(dict(enumerate(JOBS)))
    assert np.allclose(shares, [rate / sum(rates.values()) for rate in rates.values()])


def test_the_clock_is_the_librarys_where_all_are_at_work(eight):
    """With ties the order differs: there the exercise hears the lowest number first, the library who was asked first."""
    for seconds in (JOBS, [6.1, 7.3, 8.7, 10.9, 12.3, 15.1, 22.7, 42.9]):
        fleet = Known({k: s - 2.0 for k, s in enumerate(seconds)}, down=0.5, up=1.5)
        run = rehearse(Coordinator(eight.data, eight.model, eight.training, Buffered(8, 1), weights=Uniform(), fleet=fleet), 60)
        ours = ch07.replay(seconds, 8, run.records[-1].clock + 1)[:60]
        theirs = [(r.clock, r.clients[0], r.staleness[0]) for r in run.records]
        assert np.allclose([now for now, *_ in ours], [now for now, *_ in theirs])
        if seconds is not JOBS:
            assert [rest for _, *rest in ours] == [rest for _, *rest in theirs]


def test_a_timeline_is_read_as_the_records_say(eight):
    run = rehearse(eight, 60)
    spans = [(span.client, span.begun, span.ended) for record in run.records for span in record.spans]
    steps = sorted({record.clock for record in run.records})
    by_hand, busy = ch07.read_timeline(spans, steps)
    several = [clock for clock in steps if sum(r.clock == clock for r in run.records) > 1]
    first = {}
    for (client, begun, ended), age in zip(spans, by_hand, strict=True):
        if not any(begun <= clock <= ended for clock in several):            # one instant, one step: the counts agree
            first[client, ended] = age
    said = {(record.clients[0], record.clock): record.staleness[0] for record in run.records}
    assert first
    assert all(said[key] == age for key, age in first.items())
    assert all(0 < share <= 1 for share in busy.values())


@pytest.mark.parametrize("delay", [0, 1, 2, 5])
def test_up_to_which_rate_late_changes_arrive(delay):
    """2·sin(π / (2·(2τ + 1))), as the exercise says."""
    limit = 2 * sin(pi / (2 * (2 * delay + 1)))
    near, far = (ch07.delayed_walk(0.0, 1.0, rate * limit, delay, 4000)[-50:] for rate in (0.99, 1.01))
    assert np.abs(near - 1).max() < 0.1
    assert np.abs(far - 1).max() > 10
    if delay == 2:
        assert round(limit, 3) == 0.618


# --- right answers written in another way pass ---


def by_powers(age, kind, a, b):
    return {"polynomial": np.exp(-a * np.log1p(age)), "exponential": np.power(a, age),
            "hinge": 1 / (a * max(age - b, 0) + 1)}[kind]


def step_by_step(w, deltas, ages, lr):
    new = w.copy()
    for delta, age in zip(deltas, ages, strict=True):
        new += lr * delta / np.sqrt(1 + age) / len(deltas)
    return list(new)


def by_masks(answers, version, max_delay):
    age = version - np.array([started for started, _ in answers])
    good = (age >= 0) & (age <= max_delay)
    return np.flatnonzero(good), int(np.array([n for _, n in answers])[~good].sum())


def minute_by_list(seconds, at_work, until):
    """No heap: a plain list of jobs, searched for the earliest."""
    queue, jobs, version, now, heard = deque(range(len(seconds))), [], 0, 0, []
    while now <= until:
        while queue and len(jobs) < at_work:
            device = queue.popleft()
            jobs.append({"end": now + seconds[device], "device": device, "version": version})
        now = min(job["end"] for job in jobs)
        if now > until:
            break
        for job in sorted((job for job in jobs if job["end"] == now), key=lambda job: job["device"]):
            heard.append([now, job["device"], version - job["version"]])
            version += 1
            queue.append(job["device"])
            jobs.remove(job)
    return heard


def walk_by_array(w, target, rate, delay, steps):
    models = np.full(steps + 1, w)
    for t in range(steps):
        models[t + 1] = models[t] + rate * (target - (models[t - delay] if t > delay else w))
    return models


def by_harmonic_mean(seconds):
    n, mean = len(seconds), len(seconds) / sum(1 / s for s in seconds)
    return n * 3600 / mean, [mean / (n * s) for s in seconds]


def by_search(spans, steps):
    at = np.asarray(steps)
    ages = [int(np.searchsorted(at, ended, "left") - np.searchsorted(at, begun, "right")) for _, begun, ended in spans]
    names = {device for device, _, _ in spans}
    return tuple(ages), {d: sum(e - b for who, b, e in spans if who == d) / at[-1] for d in names}


def in_slices(w, answers, K, lr):
    w = w.copy()
    for version in range(len(answers) // K):
        batch = answers[version * K : (version + 1) * K]
        w += lr * np.mean([delta / np.sqrt(1 + version - began) for began, delta in batch], axis=0)
    return w


RIGHT = {"staleness_weight": by_powers, "fedbuff_step": step_by_step, "bounded_delay": by_masks, "replay": minute_by_list,
         "delayed_walk": walk_by_array, "throughput": by_harmonic_mean, "read_timeline": by_search, "serve": in_slices}


@pytest.mark.parametrize("name", RIGHT)
def test_right_answers_in_another_form_pass(name):
    for seed in range(4):
        result = examine(find(f"07.{name}"), RIGHT[name], np.random.default_rng(seed))
        assert result.passed, result.message


def test_every_exercise_is_tried_in_another_form():
    assert {f"07.{name}" for name in RIGHT} == {exercise.name for exercise in ch07.EXERCISES}
