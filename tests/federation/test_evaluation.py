"""Accuracy, loss, fairness and drift, each against a slow loop that needs no library."""

import math
from dataclasses import replace

import numpy as np
import pytest
from small import CLASSES, DIM, Half, experiment, federation, final

from fl_course import CentralDP, Evaluation, LocalSGD, Synchronous, Uniform, logistic, mlp
from fl_course.core import Update, stream
from fl_course.federation import evaluation
from fl_course.federation.evaluation import client_measure, drift, fairness, norm_metrics, score, training_metrics
from fl_course.wire.messages import encode_model, frame

MODEL = logistic(DIM, CLASSES)


def params_of(seed: int) -> np.ndarray:
    return stream(seed, "test").standard_normal(MODEL.dim).astype(np.float32)


def slow_logits(params, x):
    """One example after the other, one class after the other."""
    weight, bias = params[: CLASSES * DIM].reshape(CLASSES, DIM), params[CLASSES * DIM :]
    rows = list(zip(weight, bias, strict=True))
    return [[math.fsum(float(w) * float(v) for w, v in zip(row, one, strict=True)) + float(b) for row, b in rows] for one in x]


def slow_score(params, x, y):
    right, loss = 0, 0.0
    for logits, label in zip(slow_logits(params, x), y, strict=True):
        right += logits.index(max(logits)) == label
        loss += math.log(math.fsum(math.exp(z) for z in logits)) - logits[label]
    return right / len(y), loss / len(y)


@pytest.mark.parametrize("seed", range(4))
def test_accuracy_and_loss(seed):
    data, params = federation(seed=seed), params_of(seed)
    assert score(MODEL, params, data.x_test, data.y_test) == pytest.approx(slow_score(params, data.x_test, data.y_test), abs=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_accuracy_of_each_client_on_its_own_test(seed):
    data, params = federation((4, 9, 1, 7), seed=seed, tests=5), params_of(seed)
    slow = [slow_score(params, *data.examples(client, "test"))[0] for client in data.ids]
    np.testing.assert_allclose(client_measure(MODEL, params, data), slow)


def test_a_client_without_tests_has_no_accuracy():
    data = federation(tests=0)
    assert np.isnan(client_measure(MODEL, params_of(0), data)).all()
    assert fairness(client_measure(MODEL, params_of(0), data)) == {}
    assert "client_accuracy" not in experiment(data).train(1).records[0].metrics


def test_large_logits_do_not_overflow_and_a_diverged_model_has_no_loss():
    x, y = np.eye(DIM, dtype=np.float32), np.zeros(DIM, np.int64)
    accuracy, loss = score(MODEL, np.full(MODEL.dim, 3e37, np.float32), x, y)
    assert loss == pytest.approx(math.log(CLASSES))
    big = np.zeros(MODEL.dim, np.float32)
    big[-1] = 1000.0                                                     # exp(1000) is no number
    assert score(MODEL, big, x, y)[1] == pytest.approx(1000.0)
    accuracy, loss = score(MODEL, np.full(MODEL.dim, np.nan, np.float32), x, y)
    assert 0 <= accuracy <= 1
    assert math.isnan(loss)
    assert all(math.isnan(v) for v in score(MODEL, big, x[:0], y[:0]))


def test_fairness_against_its_definition():
    accuracies = np.array([0.9, np.nan, *np.linspace(0.1, 1.0, 20)])
    out = fairness(accuracies)
    known = sorted(a for a in accuracies if a == a)
    mean = sum(known) / 21
    assert out["client_accuracy"] == pytest.approx(mean)
    assert out["client_accuracy_std"] == pytest.approx(math.sqrt(sum((a - mean) ** 2 for a in known) / 21))
    assert out["client_accuracy_worst10"] == pytest.approx((known[0] + known[1]) / 2)
    assert fairness(np.array([0.25, 0.75]))["client_accuracy_worst10"] == 0.25
    assert fairness(np.full(7, 0.5)) == {"client_accuracy": 0.5, "client_accuracy_std": 0.0, "client_accuracy_worst10": 0.5}


# --- drift ---------------------------------------------------------------------------------------------------------


def updates_of(deltas, weights=None):
    weights = [1.0] * len(deltas) if weights is None else weights
    pairs = enumerate(zip(deltas, weights, strict=True))
    return [Update(k, 0, np.asarray(delta, np.float32) * np.float32(weight), weight) for k, (delta, weight) in pairs]


def test_drift_against_its_definition():
    deltas = stream(0, "test").standard_normal((5, 40)) + 0.5
    mean = sum(deltas) / 5
    spread = math.sqrt(sum(float(sum((d - mean) ** 2)) for d in deltas) / 5)
    size = math.sqrt(sum(float(sum(d**2)) for d in deltas) / 5)
    assert drift(updates_of(deltas)) == pytest.approx(spread / size, rel=1e-6)
    assert drift(updates_of(deltas, [1.0, 7.0, 2.0, 30.0, 5.0])) == pytest.approx(spread / size, rel=1e-5)


def test_drift_is_0_in_agreement_and_1_when_updates_cancel():
    one = stream(0, "test").standard_normal(50)
    assert drift(updates_of([one, one, one])) == pytest.approx(0, abs=1e-6)
    assert drift(updates_of([one, -one])) == 1
    assert drift(updates_of([one])) == pytest.approx(0, abs=1e-6)
    assert drift(updates_of([0 * one, 0 * one])) == 0
    assert drift(updates_of([1e30 * one, -1e30 * one])) == 1             # squares beyond float32


def test_norms_are_those_of_the_middle_and_the_longest_update_and_what_the_bound_cuts():
    deltas = [np.array([3.0, 4.0]), np.array([0.0, 1.0]), np.array([2.0, 0.0])]
    found = norm_metrics(updates_of(deltas), math.nan)
    assert (found["update_norm"], found["update_norm_max"], found["update_norm_at"]) == (2.0, 5.0, 0.0)
    assert norm_metrics(updates_of(deltas[::-1]), math.nan)["update_norm_at"] == 2.0
    assert math.isnan(found["clipped"])
    weighed = updates_of(deltas, [1.0, 5.0, 1.0])                         # the bound is one of what was sent: weight times delta
    assert norm_metrics(weighed, math.nan)["update_norm_max"] == 5.0
    assert norm_metrics(weighed, 5.0)["clipped"] == pytest.approx(2 / 3)
    assert list(norm_metrics([], 1.0)) == ["drift"]                       # nobody, or nobody who can be read


def test_a_private_run_says_what_share_was_cut():
    stages = [CentralDP(0.3, 1.0, noise_seed=1)]
    fed = experiment(weights=Uniform(), schedule=Synchronous(1.0), stages=stages)
    free = replace(fed, stages=()).train(1).records[0].metrics
    assert "clipped" not in free
    bounds = np.linspace(0.5, 1.1, 7) * free["update_norm_max"]
    shares = [replace(fed, stages=[CentralDP(b, 1.0, noise_seed=1)]).train(1).records[0].metrics["clipped"] for b in bounds]
    assert shares == sorted(shares, reverse=True)
    assert shares[-1] == 0
    assert any(0 < share < 1 for share in shares) or shares[0] == 1


def test_drift_is_unknown_where_single_updates_cannot_be_read():
    assert math.isnan(drift([]))
    assert math.isnan(drift([Update(0, 0, object())]))
    assert math.isnan(drift(updates_of([np.ones(2)], [0.0])))


def test_drift_of_a_federation_grows_with_its_unlikeness():
    same = federation((6,) * 3)
    alike = type(same)("copies", np.tile(same.x[3:9], (3, 1)), np.tile(same.y[3:9], 3), CLASSES, (0, 1, 2),
                       tuple(np.split(np.arange(18), 3)), (np.arange(0),) * 3, same.x_test, same.y_test)  # fmt: skip
    how = {"schedule": Synchronous(1.0), "training": LocalSGD(batch_size=None)}
    assert experiment(alike, **how).train(1).records[0].metrics["drift"] == pytest.approx(0, abs=1e-3)
    assert experiment(same, **how).train(1).records[0].metrics["drift"] > 0.1


# --- in the loop ---------------------------------------------------------------------------------------------------


def test_training_metrics_are_weighted_by_examples():
    reports = [{"examples": 1.0, "loss_first": 4.0, "loss_last": 2.0}, {"examples": 3.0, "loss_first": 0.0, "loss_last": 1.0}]
    out = training_metrics([Update(k, 0, None, metrics=r) for k, r in enumerate(reports)])
    assert out == {"train_loss_first": 1.0, "train_loss_last": 1.25}
    assert training_metrics([]) == {}
    assert training_metrics([Update(0, 0, None, metrics={"examples": 0.0, "loss_first": 1.0, "loss_last": 1.0})]) == {}
    assert training_metrics([Update(0, 0, None, metrics={"speed": 1.0})]) == {}
    assert training_metrics([Update(0, 0, None, metrics={"loss_first": 1.0})]) == {}     # of nobody knows how many examples


def test_evaluation_happens_when_it_is_due_and_costs_nothing_unless_federated():
    records = experiment(evaluation=Evaluation(every=3)).train(7).records
    assert [r.version for r in records if "accuracy" in r.metrics] == [3, 6]
    assert all(set(r.bytes_up) == {"update"} and set(r.bytes_down) == {"model"} for r in records)


def test_a_federated_evaluation_is_counted_apart_message_by_message():
    data = federation(ids=[0, 300, 7, "hospital", "ward 7", 70000])
    plain, it = experiment(data), experiment(data, evaluation=Evaluation(every=2, federated=True))
    for (state, record), (_, without) in zip(it.run(4), plain.run(4), strict=True):
        assert record.bytes_up["update"] == without.bytes_up["update"]
        assert record.metrics == without.metrics or record.version % 2
        if record.version % 2:
            assert "evaluation" not in record.bytes_up
            continue
        accuracies = client_measure(it.model, state.server.params, data)
        answers = [frame("evaluation", [c, record.version, 3, float(a)]) for c, a in zip(data.ids, accuracies, strict=True)]
        assert record.bytes_up["evaluation"] == sum(map(len, answers))
        assert record.bytes_down["evaluation"] == 6 * len(encode_model(state.server))
    assert record.metrics["client_accuracy"] == pytest.approx(accuracies.mean())


def test_only_clients_with_tests_are_asked_and_each_says_how_many_it_has(monkeypatch):
    whole = federation((4, 4, 4), tests=3)
    test = (whole.test[0][:1], whole.test[1], np.arange(0))
    said = []
    monkeypatch.setattr(evaluation, "frame", lambda kind, body: said.append(body) or frame(kind, body))
    it = experiment(replace(whole, test=test), evaluation=Evaluation(federated=True), schedule=Synchronous(1.0))
    record = it.train(1).records[0]
    assert [(client, version, examples) for client, version, examples, _ in said] == [(0, 1, 1), (1, 1, 3)]
    assert record.bytes_down["evaluation"] * 3 == record.bytes_down["model"] * 2
    nobody = experiment(federation(tests=0), evaluation=Evaluation(federated=True)).train(1).records[0]
    assert "evaluation" not in {**nobody.bytes_up, **nobody.bytes_down}


def test_evaluating_does_not_change_what_is_learned():
    assert len({final(experiment(evaluation=e)) for e in (Evaluation(), Evaluation(2), Evaluation(1, True))}) == 1


def test_the_residual_stage_of_these_tests_leaves_drift_readable():
    assert 0 < experiment(stages=[Half()], weights=Uniform()).train(1).records[0].metrics["drift"] <= 1


@pytest.mark.parametrize("every", [0, -1, 1.5, None])
def test_evaluation_every_so_many_rounds_is_checked(every):
    with pytest.raises(ValueError, match="every must be a whole number of rounds from 1"):
        Evaluation(every=every)


def test_any_model_can_be_scored():
    data, net = federation(), mlp(DIM, 4, CLASSES)
    accuracy, loss = score(net, net.init(stream(0, "init")), data.x_test, data.y_test)
    assert accuracy in [n / 20 for n in range(21)]
    assert loss == pytest.approx(math.log(3), abs=0.5)


@pytest.mark.parametrize(("clients", "worst"), [(1, 1), (5, 1), (10, 1), (14, 1), (15, 1), (19, 1), (20, 2), (25, 2), (39, 3)])
def test_the_worst_tenth_is_whole_clients_rounded_down_but_at_least_one(clients, worst):
    accuracies = np.arange(clients) / clients
    told = fairness(stream(0, "order").permutation(accuracies))
    assert told["client_accuracy_worst10"] == pytest.approx(accuracies[:worst].mean())
