"""Lesson 10: the orderings that it claims hold on other seeds, and the logic behind its controls, without a browser."""

import itertools
import re
import time
from dataclasses import replace
from pathlib import Path

import nbformat
import numpy as np
import pytest

from fl_course import (
    DPSGD,
    IID,
    QSGD,
    CentralDP,
    Coordinator,
    CrossEntropy,
    DistributedNoise,
    Downlink,
    Evaluation,
    LocalSGD,
    LogNormal,
    MultiKrum,
    PoissonSelection,
    QuantitySkew,
    SecureSum,
    SignFlip,
    SquaredError,
    Synchronous,
    TopK,
    Uniform,
    actg175,
    baselines,
    fedbuff,
    german_credit,
    heard,
    local_only,
    logistic,
    mlp,
    own_measure,
    pooled,
    reached,
    rehearse,
    shakespeare,
    vehicles,
)
from fl_course.federation.evaluation import metrics_of
from fl_course.privacy.accounting import RDP, noise_for_budget
from fl_course.workbook.widgets import capstones
from fl_course.workbook.widgets.capstones import HIDDEN, MODEL, STEPS, TRAINING, hospitals, hospitals_explorer, stack

ROOT = Path(__file__).parents[2]
LESSON = (ROOT / "source" / "lessons" / "10_capstones.py").read_text("utf-8")
SEEDS = (0, 1, 2)


def slow_auc(model, w, pool):
    """Pair by pair."""
    outputs = model.predict(w, pool.x_test).astype(float)
    scores = outputs[:, 1] - outputs[:, 0]
    pairs = list(itertools.product(scores[pool.y_test == 1], scores[pool.y_test == 0]))
    return sum((a > b) + 0.5 * (a == b) for a, b in pairs) / len(pairs)


def final(fed, rounds):
    return replace(fed, evaluation=Evaluation(every=rounds)).train(rounds).state.server.params


# --- alone < federated <= pooled within a band, and what each stack costs ------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
def test_hospitals_gain_and_hiding_patients_is_cheap(seed):
    pool, how = actg175(), LocalSGD(lr=0.3, epochs=1, batch_size=None)
    data = pool.partition(QuantitySkew(2.0), 10, seed=seed, test_fraction=0.0)
    fed = Coordinator(data, MODEL, how, Synchronous(1.0), seed=seed)
    alone = np.mean([slow_auc(MODEL, w, pool) for w in local_only(fed, 20)])
    together, ideal = slow_auc(MODEL, final(fed, 20), pool), slow_auc(MODEL, pooled(fed, 20), pool)
    assert alone + 0.01 < together < ideal + 0.01

    z = noise_for_budget(4.0, 1e-5, 20, accountant=RDP())
    private = replace(how, lr=1.0, private=DPSGD(1.0, z, "shuffle", noise_seed=seed))
    patient = replace(fed, training=private, stages=[SecureSum(clip=2.0, max_weight=1711, masked=False)])
    kept = slow_auc(MODEL, final(patient, 20), pool)
    assert together - 0.03 < kept < together + 0.01
    assert kept > alone

    z = noise_for_budget(1.0, 1e-5, 5, accountant=RDP())
    sums = [SecureSum(clip=2.0, masked=False, noise=DistributedNoise(0.3, z, noise_seed=seed))]
    hidden = replace(fed, training=replace(how, epochs=4), weights=Uniform(), stages=sums)
    assert slow_auc(MODEL, final(hidden, 5), pool) < kept - 0.005


@pytest.mark.parametrize("seed", SEEDS)
def test_branches_gain_and_a_rule_saves_them_from_two_liars(seed):
    pool, model = german_credit(), logistic(46, 2, loss=CrossEntropy(class_weights=(1.0, 5.0)))
    data = pool.partition(IID(), 10, seed=seed, test_fraction=0.0)
    fed = Coordinator(data, model, LocalSGD(lr=0.1, epochs=2, batch_size=None), Synchronous(1.0), seed=seed)
    alone = np.mean([slow_auc(model, w, pool) for w in local_only(fed, 30)])
    together, ideal = slow_auc(model, final(fed, 30), pool), slow_auc(model, pooled(fed, 30), pool)
    assert alone + 0.03 < together < ideal + 0.01

    robust = replace(fed, weights=Uniform(), aggregation=MultiKrum(2))
    lies = SignFlip((0, 1), 5.0)
    assert together - slow_auc(model, final(robust, 30), pool) < 0.03
    assert slow_auc(model, final(replace(fed, weights=Uniform(), attack=lies), 30), pool) < 0.6
    assert slow_auc(model, final(replace(robust, attack=lies), 30), pool) > alone + 0.02


@pytest.mark.parametrize("seed", SEEDS)
def test_keyboards_gain_and_bytes_are_cheap(seed):
    data, model, how = shakespeare(), mlp(128, 48, 32), LocalSGD(lr=0.5, epochs=2, batch_size=20)
    fed = Coordinator(data, model, how, Synchronous(0.1), evaluation=Evaluation(every=30), seed=seed)
    means = {name: np.nanmean(each) for name, each in baselines(fed, 30, alone=3).items()}
    assert means["local only"] + 0.05 < means["global"] < means["pooled"] + 0.015
    small = replace(fed, stages=[TopK(0.1), QSGD(8), Downlink(8)])
    history = small.train(30)
    assert history.megabytes < 0.2 * 30 * 12 * 2 * 4 * model.dim / 1e6
    assert means["local only"] + 0.05 < own_measure(small, history.state).mean() < means["global"] + 0.01


@pytest.mark.parametrize("seed", SEEDS)
def test_noise_that_hides_a_person_takes_most_of_what_a_hundred_gain_and_little_in_a_crowd(seed):
    data, model, how = shakespeare(), mlp(128, 48, 32), LocalSGD(lr=0.5, epochs=2, batch_size=20)
    fed = Coordinator(data, model, how, Synchronous(0.1), evaluation=Evaluation(every=50), seed=seed)
    means = {name: np.nanmean(each) for name, each in baselines(fed, 50, alone=5).items()}
    z, gain, kept = noise_for_budget(4.0, 1e-3, 50, 0.1, RDP()), means["global"] - means["local only"], {}
    for clip, crowd in ((0.3, 1), (1.0, 10)):
        noise = CentralDP(clip, z / crowd, 1e-3, accountant=RDP(), noise_seed=seed)
        private = replace(fed, selection=PoissonSelection(), weights=Uniform(), stages=[noise])
        history = private.train(50)
        kept[crowd] = (own_measure(private, history.state).mean() - means["local only"]) / gain
        assert (history.last("epsilon") <= 4) == (crowd == 1)
    assert kept[1] < 0.25 < 0.5 < kept[10]


@pytest.mark.parametrize("seed", SEEDS)
def test_answers_come_faster_without_rounds_because_devices_are_unequal(seed):
    data, how = vehicles(home=1.0, seed=seed), LocalSGD(lr=0.05, epochs=2, batch_size=16)
    times = []
    for spread in (0.8, 0.4, 0.0):
        fleet = LogNormal(examples_per_second=5, speed_spread=spread, drop=0.1, seed=seed)
        fed = Coordinator(data, mlp(5, 32, 1, loss=SquaredError()), how, Synchronous(0.3), fleet=fleet, seed=seed)
        rounds, without = rehearse(fed, 60), rehearse(replace(fed, **fedbuff(9, 3, by_examples=True)), 180)
        rates = [sum(len(record.clients) for record in run.records) / run.records[-1].clock for run in (rounds, without)]
        times.append(rates[1] / rates[0])
    assert times[0] > 1.3 * times[1] > 1.3 * 1.3 * times[2]
    assert 0.9 < times[2] < 1.2


@pytest.mark.parametrize("seed", SEEDS)
def test_cars_gain_and_without_rounds_they_need_not_wait(seed):
    data, model = vehicles(home=1.0, seed=seed), mlp(5, 32, 1, loss=SquaredError())
    how = LocalSGD(lr=0.05, epochs=2, batch_size=16)

    def error(w):
        return metrics_of(model, w, data.x_test, data.y_test)["rmse"]

    fed = Coordinator(data, model, how, Synchronous(1.0), seed=seed)
    alone = np.mean([error(w) for w in local_only(fed, 18)])
    together, ideal = error(final(fed, 18)), error(pooled(fed, 18))
    assert ideal - 0.02 < together < 0.75 * alone

    fleet = LogNormal(examples_per_second=5, speed_spread=0.8, drop=0.1, seed=seed)
    parts = {"rounds": (30, {"schedule": Synchronous(0.3)}), "FedBuff": (90, fedbuff(9, 3, by_examples=True))}
    runs = {name: replace(fed, fleet=fleet, **more).train(steps) for name, (steps, more) in parts.items()}
    seconds = {name: reached(history, 1.2, "rmse").seconds for name, history in runs.items()}
    assert seconds["FedBuff"] < 0.7 * seconds["rounds"]
    fast, _, slow = heard(replace(fed, fleet=fleet, **parts["FedBuff"][1]), runs["FedBuff"], 3)
    assert fast.share > slow.share + 0.05                           # the price: the slow are heard less


# --- the lesson as it was built --------------------------------------------------------------------------------------------


def test_every_sector_has_its_page_with_alone_and_pooled():
    node = nbformat.read(ROOT / "notebooks" / "10_capstones.ipynb", as_version=4)
    texts = ["".join(output.get("text", "") for output in cell.outputs) for cell in node.cells
             if cell.cell_type == "code" and re.search(r"^page = ", cell.source, re.M)]
    assert len(texts) == 4
    for text in texts:
        rows = [line.split("  ")[0] for line in text.splitlines()]
        assert {"alone", "pooled"} < set(rows), text
        assert any(row.startswith("federated") for row in rows), text
        assert len(rows) >= 5                                       # and with the stack
    assert sorted(re.findall(r'bill\["([\w ]+)"\]', LESSON)) == ["bank group", "cars", "hospitals", "keyboards"]


# --- the explorer --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", list(itertools.product((3, 10, 80), HIDDEN, (0.5, 4.0, 16.0))), ids=str)
def test_every_position_trains_and_is_measured(at):
    points = list(itertools.islice(hospitals(*at), 2))
    assert len(points) == 2
    for number, point in enumerate(points, start=1):
        assert point.lines["federated"][0] == number * HIDDEN[at[1]]
        assert 0.3 < point.lines["federated"][1] < 0.75
        assert point.lines["alone, mean"][1] < point.lines["pooled"][1]
        assert dict(point.bars["AUC"])["federated"] == point.lines["federated"][1]
        assert ("without noise" in point.text) == (at[1] == "nobody")


def test_the_auc_is_that_of_all_pairs_and_the_noise_is_what_epsilon_asks_for():
    data, alone, ideal = capstones.baselines(10)
    assert ideal == pytest.approx(slow_auc(MODEL, pooled(stack(data, "nobody", 4.0), STEPS), data))
    assert capstones.auc(np.array([1.0, 1.0, 0.0]), np.array([1, 0, 0])) == 0.75
    for hidden, book in (("a patient", None), ("a hospital", "epsilon")):
        history = stack(data, hidden, 4.0).train(STEPS // HIDDEN[hidden])
        spent = history.last(book) if book else max(report["epsilon"] for report in history.state.reports.values())
        assert 3.9 < spent <= 4.0
    runs = {hidden: list(hospitals(10, hidden, 1.0))[-1].lines["federated"][1] for hidden in HIDDEN}
    assert runs["nobody"] == pytest.approx(ideal, abs=0.01)
    assert runs["a patient"] > runs["a hospital"] + 0.02
    assert alone == capstones.baselines(10)[1]


def test_the_explorer_has_the_set_up_of_the_lesson_and_stores_its_picture():
    assert 'LocalSGD(lr=0.3, epochs=1, batch_size=None)' in LESSON
    assert "logistic(16, 2, loss=Order())" in LESSON
    assert "QuantitySkew(2.0), clients=10" in LESSON
    assert f"hospital_rounds: int = {STEPS}" in LESSON
    assert (TRAINING.lr, TRAINING.epochs, TRAINING.batch_size) == (0.3, 1, None)
    capstones.baselines(10)
    start = time.perf_counter()
    first = next(hospitals(10, "a patient", 4.0))
    assert time.perf_counter() - start < 5                          # 150 ms when nothing else runs; this machine may be busy
    assert first.lines
    explorer = hospitals_explorer()
    bundle, _ = explorer._repr_mimebundle_()
    assert "hospitals = 10, the noise hides = a patient, ε = 4" in bundle["text/plain"]
    assert bundle["image/png"]
    explorer.close()
