"""Runs with a planted fault: the alarm that is meant for it finds it, and a healthy run is left in peace."""

import math
import re
from dataclasses import dataclass, replace

import numpy as np
import pytest

from fl_course import (
    ALIE,
    IID,
    Attack,
    Buffered,
    CentralDP,
    ClientFailure,
    CoordinateMedian,
    Coordinator,
    Correction,
    Dirichlet,
    Equal,
    Fleet,
    LocalSGD,
    LogNormal,
    MultiKrum,
    Oort,
    OutlierRemoval,
    PoissonSelection,
    QuantitySkew,
    Record,
    Scaffold,
    SecureSum,
    Selector,
    Shards,
    SignFlip,
    Synchronous,
    TopK,
    Uniform,
    digits,
    logistic,
    mlp,
)
from fl_course.federation.explain import ALARMS, Run, explain


def run(rounds=8, clients=12, deal=None, model=None, lr=0.3, seed=1, **how):
    data = digits().partition(deal or IID(), clients=clients, seed=seed - 1)
    how = {"schedule": Synchronous(0.5), **how}
    epochs, correction = how.pop("epochs", 2), how.pop("correction", None)
    fed = Coordinator(data, model or logistic(64, 10), LocalSGD(lr, epochs, 10, correction=correction), seed=seed, **how)
    return fed, fed.train(rounds)


def said(fed, history):
    return {finding.what: finding for finding in history.explain(fed)}


QUIET = {
    "half of them": {},
    "all of them": {"schedule": Synchronous(1.0)},
    "ten of a hundred": {"clients": 100, "schedule": Synchronous(0.1), "rounds": 20},
    "other speeds": {"fleet": LogNormal(speed_spread=0.3)},
    "a buffer": {"schedule": Buffered(6, 3)},
    "some drop out": {"fleet": Equal(drop=0.03)},
    "mild skew": {"deal": Dirichlet(5.0)},
    "some have little": {"deal": QuantitySkew(1.0)},
    "a wider net": {"model": mlp(64, 32, 10)},
    "half of the steps": {"epochs": 1},
    "controls": {"correction": Scaffold()},
    "compressed": {"stages": [TopK(0.1)]},
    "masked": {"weights": Uniform(), "stages": [SecureSum(20.0)], "rounds": 5},
    "private": {"weights": Uniform(), "selection": PoissonSelection(), "clients": 60, "stages": [CentralDP(0.6, 1.0)]},
    "a median": {"aggregation": CoordinateMedian(1)},
    "chosen by speed": {"selection": Oort(), "fleet": LogNormal(speed_spread=0.3)},
}


@pytest.mark.parametrize("name", QUIET)
def test_a_healthy_run_is_left_in_peace(name):
    for seed in range(1, 6):
        fed, history = run(seed=seed, **QUIET[name])
        assert history.explain(fed) == [], seed
        assert history.explain() == [], seed


class Fails(Correction):
    def rows(self, task):
        if task.client == 3:
            raise ClientFailure("its disk is full")
        return {}


class Favourite(Selector):
    def select(self, idle, k, rng, reports):
        return list(idle[:k])


@dataclass(frozen=True)
class OneSlow(Fleet):
    slow: float = 50.0

    def compute(self, client, examples, luck):
        return self.slow if client % 6 == 0 else 1.0


@pytest.mark.parametrize(("what", "how"), [
    ("diverged", {"lr": 3000.0, "rounds": 6, "model": mlp(64, 16, 10), "epochs": 5}),
    ("stands still", {"lr": 1e-5, "rounds": 6}),
    ("answers lost", {"fleet": Equal(drop=0.5)}),
    ("never heard", {"correction": Fails(), "schedule": Synchronous(1.0)}),
    ("pulled apart", {"deal": Shards(1), "clients": 10, "epochs": 20, "schedule": Synchronous(0.3), "rounds": 6}),
    ("served unevenly", {"deal": Shards(1), "clients": 10, "schedule": Synchronous(0.3), "rounds": 20, "epochs": 1, "lr": 0.03}),
    ("starved", {"selection": Favourite(), "rounds": 12}),
    ("waits for the slowest", {"fleet": OneSlow(), "schedule": Synchronous(1.0)}),
    ("old answers", {"schedule": Buffered(10, 1), "rounds": 40}),
    ("weak privacy", {"weights": Uniform(), "selection": PoissonSelection(), "stages": [CentralDP(1.0, 0.3)]}),
    ("budget spent", {"weights": Uniform(), "stages": [CentralDP(1.0, 1.0, budget=6.0)], "rounds": 40}),
    ("saturated", {"weights": Uniform(), "stages": [SecureSum(0.001, round_seed=1)], "rounds": 3}),
    ("left out", {"attack": SignFlip((1, 2), 20.0), "aggregation": MultiKrum(2), "schedule": Synchronous(1.0)}),
    ("not found out", {"attack": ALIE((1, 2)), "aggregation": OutlierRemoval(f=2), "schedule": Synchronous(1.0)}),
    ("nobody heard", {"fleet": Equal(drop=0.999), "rounds": 3}),
    ("much longer", {"attack": SignFlip((1,), 20.0), "schedule": Synchronous(1.0)}),
    ("clip too small", {"weights": Uniform(), "stages": [CentralDP(0.01, 0.1)]}),
    ("clip too large", {"weights": Uniform(), "stages": [CentralDP(9.0, 0.1)]}),
    ("budget nearly spent", {"weights": Uniform(), "stages": [CentralDP(1.0, 2.0, budget=6.0)], "rounds": 5}),
    ("not private", {"weights": Uniform(), "stages": [CentralDP(1.0, 1.0, noise_seed=1)]}),
])  # fmt: skip
def test_the_planted_fault_is_found_and_told_first(what, how):
    found = said(*run(**how))
    assert next(iter(found)) == what, list(found)
    text = str(found[what])
    assert text.endswith(f"(lesson {found[what].chapter})")
    assert re.search(r"\d|no noise", text)                                      # it has its numbers
    assert "nan" not in text


@pytest.mark.parametrize("liars", [(1,), (1, 7)])
@pytest.mark.parametrize("strength", [8.0, 50.0])
def test_under_liars_the_first_sentence_is_about_them_and_not_about_the_steps(liars, strength):
    fed, history = run(attack=SignFlip(liars, strength), schedule=Synchronous(1.0), rounds=6)
    first, *others = history.explain(fed)
    assert first.what == "much longer"
    named = re.search(r"mostly that of clients? ([\d, ]+)\)", first.text)
    assert {int(name) for name in named[1].split(",")} <= set(liars)             # the longest of the two, or both in turn
    last = history.records[-1].metrics
    assert f"{last['update_norm_max'] / last['update_norm']:.1f} times" in first.text
    assert history.records[-1].clients[int(last["update_norm_at"])] in liars
    assert not [finding.text for finding in others if "steps are too long" in finding.text]


def test_records_that_do_not_tell_whose_the_longest_was():
    metrics = {"update_norm": 1.0, "update_norm_max": 20.0}
    for more in ({}, {"update_norm_at": 7.0}):
        (finding,) = explain(Run([Record(1, 1.0, (3, 4), (0, 0), (1, 1), {}, {}, (), metrics | more)]))
        assert "20.0 times" in finding.text
        assert "that of" not in finding.text


def test_what_a_rule_left_out_pulls_nothing():
    fed, history = run(attack=SignFlip((1,), 20.0), aggregation=MultiKrum(1), schedule=Synchronous(1.0))
    assert list(said(fed, history)) == ["left out"]


def test_nobody_is_told_that_nobody_was_never_heard():
    heard = [(k,) for k in range(12)] + [(0,)] * 60
    records = [Record(v + 1, float(v), clients, (0,), (1,), {}, {}) for v, clients in enumerate(heard)]
    (finding,) = explain(Run(records, "", range(12)))
    assert finding.text.startswith("Half of the 12 clients were heard 1 time or less and the busiest 61 times")
    (finding,) = explain(Run(records, "", range(14)))
    assert finding.text.startswith("2 of 14 clients were never heard and the busiest 61 times")


def test_a_rule_that_accuses_nobody_is_not_blamed_for_finding_nobody():
    fed, history = run(attack=SignFlip((1, 2), 1.0), aggregation=CoordinateMedian(2), schedule=Synchronous(1.0))
    assert not [name for record in history.records for name in record.metrics if name.startswith("detection")]
    assert "not found out" not in said(fed, history)


def test_who_is_always_left_out_was_heard():
    fed, history = run(attack=SignFlip((1, 2), 20.0), aggregation=MultiKrum(2), schedule=Synchronous(1.0))
    fates = {(span.client, span.fate) for record in history.records for span in record.spans}
    assert {client for client, fate in fates if fate == "left out"} == {1, 2}
    assert fates == {(k, "left out" if k in (1, 2) else "used") for k in range(12)}
    found = said(fed, history)
    assert "clients 1, 2 in more than half" in found["left out"].text
    assert "never heard" not in found


def test_whose_jobs_they_were():
    fed, history = run(correction=Fails(), schedule=Synchronous(1.0), fleet=Equal())
    found = said(fed, history)
    assert "client 3 was asked" in found["never heard"].text


def test_without_the_experiment_nobody_is_called_starved_and_nothing_is_told_from_chance():
    _, history = run(selection=Favourite(), rounds=12, deal=Shards(1))
    assert not {"starved", "served unevenly"} & {finding.what for finding in history.explain()}


def test_alarms_are_functions_of_records_whatever_these_hold():
    odd = [
        Record(1, 0.0, (), (), (), {}, {}),
        Record(2, 1.0, ("a",), (0,), (10,), {}, {}, ("left out by Krum: 'a'",), dict.fromkeys(("loss", "epsilon"), math.inf)),
        *(Record(v, 1.0, ("a", 2), (0, 5), (1, 1), {}, {}, (), {"loss": 1.0, "accuracy": 0.5}) for v in (3, 4, 5)),
    ]
    for some in ([], odd[:1], odd, odd[::-1]):
        for alarm in ALARMS:
            for finding in alarm(Run(some, "", ("a", 2))):
                assert finding.text
    assert explain(Run([])) == []


def test_an_attack_socket_of_ones_own_is_scored():
    class Liar(Attack):
        clients = (1,)

        def strike(self, tasks, updates, ctx):
            return [replace(u, delta=u.delta + np.float32(100)) if u.client == 1 else u for u in updates]

    fed, history = run(attack=Liar(), aggregation=MultiKrum(1), schedule=Synchronous(1.0))
    assert history.last("detection_recall") == 1.0
    assert "client 1 " in said(fed, history)["left out"].text
