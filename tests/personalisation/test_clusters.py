"""IFCA: the choice, the bytes, the division among themselves, and the start in which it collapses."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from small import CLASSES, DIM, federation

from fl_course import (
    IFCA,
    IID,
    QSGD,
    Buffered,
    Clip,
    Clusters,
    Coordinator,
    Discount,
    FedAdam,
    FedAvg,
    FedProx,
    LocalSGD,
    LogNormal,
    PowerSGD,
    RandomK,
    Synchronous,
    TopK,
    Uniform,
    WeightedMean,
    Wrapped,
    assignments,
    digits,
    load,
    mlp,
    own_measure,
    own_models,
    rotated,
    save,
    stream,
)
from fl_course.core import CompositionError, Server, Task
from fl_course.engine.training import Trainer
from fl_course.federation.evaluation import score

NET = mlp(DIM, 4, CLASSES)
HOW = LocalSGD(lr=0.3, epochs=2, batch_size=4)
DATA = federation((8, 5, 12, 3, 9, 7, 10, 6))
PLAIN = (None, NET)


def experiment(k=3, how=HOW, **changes):
    return Coordinator(DATA, Clusters(NET, k), replace(how, personal=IFCA()), **({"schedule": Synchronous(0.75)} | changes))


def by_hand(start, rounds, cohorts, weights):
    """IFCA as its paper says: choose, train, average each model over those who chose it."""
    models, trainer = [m.copy() for m in start], Trainer(HOW, NET, DATA)
    for version, cohort in zip(range(rounds), cohorts, strict=True):
        chosen, changes = {}, {}
        for client in cohort:
            x, y = DATA.examples(client)
            chosen[client] = int(np.argmin([score(NET, m, x, y)[1] for m in models]))
            changes[client] = trainer.train([Task(client, Server(models[chosen[client]], version))])[0].delta.copy()
        for j in range(len(models)):
            mine = [c for c in cohort if chosen[c] == j]
            if mine:
                total = sum(weights[c] * changes[c].astype(np.float64) for c in mine)
                models[j] = (models[j] + total / sum(weights[c] for c in mine)).astype(np.float32)
    return np.stack(models)


@pytest.mark.parametrize("weights", ["examples", "uniform"])
@pytest.mark.parametrize("k", [2, 3])
def test_a_run_is_the_papers_algorithm(k, weights):
    it = experiment(k) if weights == "examples" else experiment(k, weights=Uniform())
    history = it.train(4)
    n = {c: float(s) if weights == "examples" else 1.0 for c, s in zip(DATA.ids, DATA.sizes, strict=True)}
    expected = by_hand(it.model.each(it.initial().server.params), 4, [r.clients for r in history.records], n)
    np.testing.assert_allclose(it.model.each(history.state.server.params), expected, atol=3e-6)
    assert len(set(assignments(it, history).tolist())) > 1                           # or the test would show nothing


def test_one_model_is_fedavg_to_the_bit():
    plain = Coordinator(DATA, NET, HOW, Synchronous(0.75)).train(3)
    one = experiment(1).train(3)
    assert plain.state.server.params.tobytes() == one.state.server.params.tobytes()
    assert plain.records[-1].metrics["accuracy"] == one.records[-1].metrics["accuracy"]


def test_the_downlink_is_k_models_and_the_uplink_one():
    plain = Coordinator(DATA, NET, HOW, Synchronous(0.75)).train(1).records[0]
    for k in (2, 4):
        record = experiment(k).train(1).records[0]
        down, up = record.bytes_down["model"] / len(record.clients), sum(record.upload) / len(record.clients)
        once = plain.bytes_down["model"] / len(plain.clients)
        assert abs(down - once - 4 * NET.dim * (k - 1)) < 8
        assert up < sum(plain.upload) / len(plain.clients) + 120


def test_ties_go_to_the_first_and_a_start_of_equal_models_collapses():
    it = experiment(3)
    state = it.initial(np.tile(NET.init(stream(0, "init")), 3))
    assert assignments(it, state).tolist() == [0] * len(DATA)
    history = it.train(1, state)
    models = it.model.each(history.state.server.params)
    assert np.array_equal(models[1], models[2])
    assert np.array_equal(models[1], NET.init(stream(0, "init")))                    # nobody has ever trained them
    assert not np.array_equal(models[0], models[1])
    assert history.records[0].metrics["cluster_0"] == 1
    assert history.records[0].metrics["cluster_1"] == 0


def test_the_starts_differ_and_the_first_is_the_networks_own():
    starts = Clusters(NET, 3).each(Clusters(NET, 3).init(stream(0, "init")))
    assert np.array_equal(starts[0], NET.init(stream(0, "init")))
    assert len({start.tobytes() for start in starts}) == 3
    net = Wrapped(torch.nn.Linear(DIM, CLASSES))                                      # which always begins alike
    starts = Clusters(net, 3).each(Clusters(net, 3).init(stream(0, "init")))
    assert len({start.tobytes() for start in starts}) == 3
    assert all(np.array_equal(np.sort(start), np.sort(starts[0])) for start in starts)


def test_everybody_has_the_model_that_suits_it_best():
    it = experiment(3)
    state = it.train(3).state
    models, chosen = it.model.each(state.server.params), assignments(it, state)
    for k, (client, own) in enumerate(zip(DATA.ids, own_models(it, state), strict=True)):
        losses = [score(NET, m, *DATA.examples(client))[1] for m in models]
        assert chosen[k] == int(np.argmin(losses))
        assert np.array_equal(own, models[chosen[k]])


@pytest.mark.parametrize("changes", [
    {"stages": [TopK(0.3)]}, {"stages": [QSGD(8)]}, {"stages": [TopK(0.5), QSGD(8)]}, {"optimizer": FedAdam()},
    {"stages": [Clip(0.5)], "weights": Uniform()},
    {"schedule": Buffered(4, 2), "fleet": LogNormal()}, {"optimizer": FedAvg(0.5)},
    {"schedule": Buffered(4, 2), "fleet": LogNormal(), "aggregation": WeightedMean(Discount())},
])  # fmt: skip
def test_it_goes_with_compression_and_other_timings_and_resumes(tmp_path, changes):
    it = experiment(3, **changes)
    whole = it.train(6).state
    save(tmp_path / "half.fl", it.train(3), it)
    assert whole.server.params.tobytes() == it.train(3, load(tmp_path / "half.fl", it)).state.server.params.tobytes()
    assert np.isfinite(own_measure(it, whole)).all()


@pytest.mark.parametrize("stage", [TopK(0.2), RandomK(0.3, feedback=True), PowerSGD(Clusters(NET, 3), 1)], ids=repr)
def test_what_waited_for_another_model_makes_nobody_a_liar(stage):
    """A client that chooses again must not send what it had kept of its change of the model before."""
    changed = 0
    for seed in range(4):
        it, chosen = experiment(3, stages=[stage], schedule=Synchronous(1.0), seed=seed), {}
        for state, record in it.run(12):
            assert not [event for event in record.events if "refused" in event]
            for client, drawer in state.memory.items():
                waits = it.model.each(drawer["residual"])
                assert not np.delete(waits, drawer["cluster"], axis=0).any()
                changed += chosen.get(client, drawer["cluster"]) != drawer["cluster"]
                chosen[client] = drawer["cluster"]
    assert changed


def test_a_liar_about_its_model_is_refused():
    from small import Lie

    def counts(change):
        return lambda update: replace(update, extras={"clusters": change(update.extras["clusters"])})

    for lie in (lambda c: -c, lambda c: c * 2, lambda c: np.roll(c, 1), np.ones_like):
        how = counts(lie)
        it = experiment(3, stages=[Lie(0, how)], schedule=Synchronous(1.0))
        record = it.train(1).records[0]
        assert 0 not in record.clients
        assert any("was refused" in event for event in record.events)


def test_two_groups_of_turned_digits_are_told_apart():
    data = rotated(digits().partition(IID(), 12, test_fraction=0.5), 2)
    right = 0
    for seed in range(3):
        how = LocalSGD(lr=0.2, epochs=3, personal=IFCA())
        it = Coordinator(data, Clusters(mlp(64, 16, 10), 2), how, Synchronous(1.0), seed=seed)
        chosen = assignments(it, it.train(8))
        right += len(set(chosen[::2])) == len(set(chosen[1::2])) == 1 and chosen[0] != chosen[1]
    assert right >= 2                                                                 # the start decides, see the lesson


def test_what_it_needs_is_asked_for():
    with pytest.raises(CompositionError, match="Clusters"):
        Coordinator(DATA, NET, replace(HOW, personal=IFCA()))
    with pytest.raises(CompositionError, match="correction"):
        experiment(2, replace(HOW, correction=FedProx(0.1)))
    with pytest.raises(CompositionError, match=r"LocalSGD\(personal="):
        Coordinator(DATA, Clusters(NET, 2), HOW)
    with pytest.raises(TypeError, match="network"):
        Clusters(Clusters(NET, 2), 2)
    for k in (0, 1.5, True, "2", None):
        with pytest.raises(ValueError, match="k must be"):
            Clusters(NET, k)


def test_a_client_that_diverges_fails_alone():
    x = DATA.x.copy()
    x[DATA.train[0]] = 1e30
    it = Coordinator(replace(DATA, x=x), Clusters(NET, 2), replace(HOW, personal=IFCA()), Synchronous(1.0))
    record = it.train(1).records[0]
    assert 0 not in record.clients
    assert len(record.clients) == len(DATA) - 1
