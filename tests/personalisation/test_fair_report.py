"""Each client's own model on its own held-out examples, and the three beside it, against loops over clients."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from small import CLASSES, DIM, federation

from fl_course import (
    Buffered,
    Coordinator,
    Ditto,
    Evaluation,
    FedPer,
    FedRep,
    FineTune,
    LocalSGD,
    PerFedAvg,
    PowerOfChoice,
    SecureSum,
    Split,
    SquaredError,
    Synchronous,
    Task,
    Uniform,
    Wrapped,
    baselines,
    compare,
    from_clients,
    global_model,
    local_only,
    logistic,
    luck,
    mlp,
    newcomers,
    own_measure,
    own_models,
    pooled,
    set_apart,
    stream,
)
from fl_course.core import Server
from fl_course.engine.training import Trainer
from fl_course.federation.evaluation import score
from fl_course.personalisation import evaluation
from fl_course.personalisation.evaluation import Comparison, measure_each

NET = mlp(DIM, 4, CLASSES)
HOW = LocalSGD(lr=0.3, epochs=2, batch_size=4)
DATA = federation((8, 5, 12, 3, 9, 7), tests=11)
DITTO = Coordinator(DATA, NET, replace(HOW, personal=Ditto(0.2)), Synchronous(0.5))


def one_by_one(model, models, data):
    return np.array([score(model, theta, *data.examples(client, "test"))[0] if len(data.examples(client)[0]) else np.nan
                     for client, theta in zip(data.ids, models, strict=True)])


def ragged():
    """Clients with test sets of 0 … 9 examples, and one that has nothing to train on."""
    data = federation((8, 5, 12, 3, 9, 7), tests=9)
    test = tuple(rows[: 2 * k] if k < 5 else rows for k, rows in enumerate(data.test))
    return replace(data, test=test, train=(*data.train[:2], data.train[2][:0], *data.train[3:]))


# --- the measure ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("room", [1, 200, evaluation.ROOM])
@pytest.mark.parametrize("data", [DATA, ragged()])
def test_it_is_what_a_loop_over_clients_measures(monkeypatch, room, data):
    monkeypatch.setattr(evaluation, "ROOM", room)
    models = np.stack([NET.init(stream(k, "init")) for k in range(6)])
    np.testing.assert_array_equal(measure_each(NET, models, data), one_by_one(NET, models, data))


def test_numbers_to_hit_are_measured_by_their_error():
    rng = stream(0, "x")
    data = from_clients("n", {c: (rng.standard_normal((20, 3)), rng.standard_normal((20, 2))) for c in "abc"}, classes=0)
    net = logistic(3, 2, SquaredError())
    models = np.stack([net.init(stream(k, "init")) for k in range(3)])
    np.testing.assert_allclose(measure_each(net, models, data), one_by_one(net, models, data), rtol=1e-5)
    it = Coordinator(data, net, LocalSGD(lr=0.1, personal=Ditto(1.0)))
    told = compare(it, it.train(2))
    assert told.measure == "rmse"
    row = told.rows()[0]
    assert row["worst tenth"] == told.scores["own"].max()
    assert "luck" not in row


def test_a_client_without_test_or_training_examples_is_not_measured():
    data = ragged()
    it = Coordinator(data, NET, replace(HOW, personal=FineTune()), Synchronous(1.0))
    measured = own_measure(it, it.train(2))
    assert np.isnan(measured).tolist() == [True, False, True, False, False, False]
    told = compare(it, None, 1)
    assert all(np.array_equal(np.isnan(each), np.isnan(measured)) for each in told.scores.values())   # of the same clients
    for row in told.rows():
        assert math.isfinite(row["mean"])
        assert math.isfinite(row["luck"])


def test_own_models_of_some_clients_and_of_a_history_a_state_or_the_beginning():
    history = DITTO.train(3)
    every = own_models(DITTO, history)
    assert own_models(DITTO, history.state).tobytes() == every.tobytes()
    assert own_models(DITTO, history, [4, 1, 4]).tobytes() == every[[4, 1, 4]].tobytes()
    assert own_models(DITTO, history, []).shape == (0, NET.dim)
    assert (own_models(DITTO, None) == DITTO.initial().server.params).all()
    with pytest.raises(ValueError, match="unknown client"):
        own_models(DITTO, history, ["x"])


def test_without_a_personal_method_everybody_has_the_global_model():
    it = Coordinator(DATA, NET, HOW)
    history = it.train(2)
    assert (own_models(it, history) == history.state.server.params).all()


@pytest.mark.parametrize("personal", [None, FineTune(), Ditto(1.0), PerFedAvg(), FedPer(), FedRep()])
def test_looking_changes_nothing(personal):
    net = Split(NET, "dense1") if isinstance(personal, FedPer | FedRep) else NET
    it = Coordinator(DATA, net, replace(HOW, personal=personal), Synchronous(0.5))
    quiet = it.train(4).state
    state = None
    for state, _ in it.run(4):
        before = own_models(it, state).tobytes()
        compare(it, state, {})
        assert own_models(it, state).tobytes() == before
    assert state.server.params.tobytes() == quiet.server.params.tobytes()
    assert own_models(it, state).tobytes() == own_models(it, quiet).tobytes()


def test_gradients_and_inference_mode_of_the_caller_do_not_matter():
    history = DITTO.train(2)
    with torch.inference_mode():
        tuned = Coordinator(DATA, NET, replace(HOW, personal=FineTune(2)))
        one = own_measure(tuned, history.state.__class__(history.state.server))
    two = own_measure(tuned, history.state.__class__(history.state.server))
    assert one.tobytes() == two.tobytes()


# --- beside it ------------------------------------------------------------------------------------------------------------


def test_local_only_is_training_alone_again_and_again():
    models = local_only(DITTO, 3)
    trainer = Trainer(HOW, NET, DATA)
    for k, client in enumerate(DATA.ids):
        theta = NET.init(stream(0, "init"))
        for version in range(3):
            theta = theta + trainer.train([Task(client, Server(theta, version))])[0].delta
        assert theta.tobytes() == models[k].tobytes()


def test_pooled_is_one_client_that_has_everything():
    x, y = np.concatenate([DATA.x[r] for r in DATA.train]), np.concatenate([DATA.y[r] for r in DATA.train])
    alone = from_clients("all", {"everybody": (x, y, x[:1] + 9, y[:1])}, CLASSES)
    trainer, theta = Trainer(HOW, NET, alone), NET.init(stream(0, "init"))
    for version in range(2):
        theta = theta + trainer.train([Task("everybody", Server(theta, version))])[0].delta
    np.testing.assert_allclose(pooled(DITTO, 2), theta, atol=1e-6)


@pytest.mark.parametrize("net", [NET, Split(NET, "dense1")])
def test_global_is_fedavg_and_no_baseline_depends_on_the_method(net):
    it = Coordinator(DATA, net, replace(HOW, personal=Ditto(0.2) if net is NET else FedRep(2)), Synchronous(0.5))
    plain = Coordinator(DATA, NET, HOW, Synchronous(0.5)).train(3).state.server.params
    assert global_model(it, 3).tobytes() == plain.tobytes()
    beside = baselines(it, 3)
    assert beside["global"].tolist() == one_by_one(NET, np.stack([plain] * 6), DATA).tolist()
    assert beside["local only"].tolist() == one_by_one(NET, local_only(it, 3), DATA).tolist()
    assert beside["pooled"].tolist() == one_by_one(NET, np.stack([pooled(it, 3)] * 6), DATA).tolist()
    assert baselines(it, 3, alone=1)["local only"].tolist() == one_by_one(NET, local_only(it, 1), DATA).tolist()


def test_epochs_that_differ_by_client_are_no_hindrance():
    how = replace(HOW, epochs={c: 1 + k % 3 for k, c in enumerate(DATA.ids)}, personal=Ditto(1.0))
    beside = baselines(Coordinator(DATA, NET, how), 1)
    assert set(beside) == {"local only", "global", "pooled"}
    assert all(each.shape == (6,) for each in beside.values())


def test_a_comparison_says_mean_worst_tenth_luck_and_who_is_better_off():
    tests = np.full(20, 100)
    own, alone = np.linspace(0.5, 0.88, 20), np.full(20, 0.7)
    told = Comparison({"own": own, "local only": alone}, tests)
    row, other = told.rows()
    assert row["mean"] == pytest.approx(own.mean())
    assert row["worst tenth"] == pytest.approx(own[:2].mean())
    assert row["wins"] == pytest.approx((own > 0.7).mean())
    assert other["wins"] == 0
    assert other["luck"] == pytest.approx(math.sqrt(0.7 * 0.3 / 99))
    text = repr(told)
    assert all(word in text for word in ("own", "local only", "worst tenth", "luck", "wins"))
    assert set(compare(DITTO, DITTO.train(2)).scores) == {"own", "local only", "global", "pooled"}


def test_luck_is_the_std_over_clients_that_are_all_alike():
    rng = stream(1, "luck")
    tests = rng.integers(10, 60, 4000)
    measured = rng.binomial(tests, 0.8) / tests
    row = Comparison({"own": measured}, tests).rows()[0]
    assert row["luck"] == pytest.approx(row["std"], rel=0.03)


def test_a_model_that_has_diverged_counts_as_wrong_and_not_as_missing():
    it = Coordinator(DATA, NET, replace(HOW, personal=FineTune(2, lr=1e20)), Synchronous(1.0))
    assert own_measure(it, it.train(1)).tolist() == [0.0] * 6
    models = np.stack([NET.init(stream(0, "init"))] * 6)
    models[2] = np.nan
    assert measure_each(NET, models, DATA)[2] == 0
    assert measure_each(NET, models, DATA)[3] == one_by_one(NET, models, DATA)[3]


def test_luck_is_the_spread_of_repeated_measurements():
    rng = stream(0, "luck")
    for p, n in ((0.9, 40), (0.5, 200)):
        measured = rng.binomial(n, p, 20_000) / n
        assert luck(p, n) == pytest.approx(measured.std(), rel=0.03)
    assert np.isnan(luck(0.9, 0)) or np.isinf(luck(0.9, 0))
    np.testing.assert_allclose(luck(np.array([0.5, 1.0]), np.array([100, 5])), [0.05, 0.0])


@pytest.mark.parametrize("rounds", [-1, 1.5, True, "2"])
def test_rounds_are_whole(rounds):
    for ask in (lambda: baselines(DITTO, rounds), lambda: newcomers(DITTO, None, DATA, rounds)):
        with pytest.raises((ValueError, TypeError)):
            ask()


# --- newcomers ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("personal", [None, FineTune(2), Ditto(0.3), PerFedAvg(0.1), FedPer(), FedRep(3)])
def test_newcomers_do_at_home_what_the_method_does_and_nobody_hears_of_it(personal):
    old, new = set_apart(DATA, 2)
    net = Split(NET, "dense1") if isinstance(personal, FedPer | FedRep) else NET
    it = Coordinator(old, net, replace(HOW, personal=personal), Synchronous(0.5))
    history = it.train(3)
    before = history.state.server.params.tobytes()
    measured = newcomers(it, history, new)
    assert history.state.server.params.tobytes() == before
    assert set(history.state.memory) <= set(old.ids)
    assert ("as downloaded" in measured) == net.speaks
    there = replace(it, data=new)
    trainer, server = Trainer(it.training, it.model, new), replace(history.state.server, state={})
    tasks = [Task(client, server) for client in new.ids]
    trainer.train(tasks)
    assert measured["own"].tolist() == one_by_one(NET, trainer.own(tasks), new).tolist()
    assert measured["local only"].tolist() == one_by_one(NET, local_only(there, 3), new).tolist()
    if personal is None:
        assert measured["own"].tolist() == measured["as downloaded"].tolist()


@pytest.mark.parametrize("changes", [
    {"schedule": Buffered(5, 4)}, {"schedule": Synchronous(1.0, min_clients=4)}, {"selection": PowerOfChoice(4)},
    {"stages": [SecureSum(0.5, masked=False, max_weight=20)], "schedule": Synchronous(1.0)},
])  # fmt: skip
def test_newcomers_need_not_make_up_a_federation(changes):
    old, new = set_apart(DATA, 1)
    it = Coordinator(old, NET, replace(HOW, personal=Ditto(0.2)), **changes)
    measured = newcomers(it, it.train(2), new)
    assert set(measured) == {"as downloaded", "own", "local only"}
    assert all(each.shape == (1,) for each in measured.values())


def test_a_state_of_another_experiment_is_refused():
    it = Coordinator(DATA, Split(NET, "dense1"), replace(HOW, personal=FedPer()))
    theirs, mine = DITTO.train(1), it.train(1)
    for ask in (lambda: own_models(it, theirs), lambda: own_measure(DITTO, mine), lambda: compare(it, theirs, {})):
        with pytest.raises(ValueError, match="numbers, this experiment's"):
            ask()


def test_newcomers_meet_the_models_of_those_who_took_part():
    old, new = set_apart(DATA, 2)
    it = Coordinator(old, Split(NET, "dense1"), replace(HOW, personal=FedRep(2)))
    one = global_model(it, 2)
    measured = newcomers(it, it.train(2), new, beside={"global": one, "pooled": pooled(it, 2)})
    assert list(measured) == ["own", "local only", "global", "pooled"]
    assert measured["global"].tolist() == one_by_one(NET, np.stack([one] * 2), new).tolist()


def test_who_took_part_is_no_newcomer():
    history = DITTO.train(3)
    with pytest.raises(ValueError, match="took part"):
        newcomers(DITTO, history, DATA)


def test_experiments_with_stages_are_measured_alike():
    it = Coordinator(DATA, NET, replace(HOW, personal=Ditto(0.2)), Synchronous(1.0), weights=Uniform(),
                     stages=[SecureSum(threshold=4, clip=1.0)])
    told = compare(it, it.train(1))
    assert np.isfinite(told.scores["own"]).all()
    assert Evaluation().due(1)


def test_a_module_of_torch_is_measured_in_company():
    net = Wrapped(torch.nn.Sequential(torch.nn.Linear(DIM, 4), torch.nn.Tanh(), torch.nn.Linear(4, CLASSES)))
    rng = stream(0, "x")
    models = np.stack([(net.init(rng) + rng.standard_normal(net.dim)).astype(np.float32) for _ in range(6)])
    np.testing.assert_array_equal(measure_each(net, models, DATA), one_by_one(net, models, DATA))
