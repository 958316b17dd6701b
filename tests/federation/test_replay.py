"""A run once more is the same run, and two that are not are told apart at the first message that differs."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from small import experiment, federation

from fl_course import (
    QSGD,
    Buffered,
    CentralDP,
    Clip,
    Downlink,
    Evaluation,
    FedAvg,
    FedAvgM,
    History,
    LocalSGD,
    LogNormal,
    PowerOfChoice,
    Scaffold,
    SecureSum,
    Synchronous,
    TopK,
    Uniform,
    first_difference,
)
from fl_course.federation.replay import unlike
from fl_course.wire.frames import overheard


def training(lr=0.1, **more):
    return LocalSGD(lr=lr, epochs=2, batch_size=4, **more)


RUNS = {
    "plain": {},
    "drop-outs, momentum": {"fleet": LogNormal(drop=0.3), "optimizer": FedAvgM()},
    "buffers, residuals": {"schedule": Buffered(4, 2), "stages": [TopK(0.5)]},
    "controls, questions": {"training": training(correction=Scaffold()), "selection": PowerOfChoice(4)},
    "seeded noise": {"weights": Uniform(), "stages": [CentralDP(1.0, 1.0, noise_seed=1)]},
    "seeded masks": {"weights": Uniform(), "stages": [SecureSum(2.0, round_seed=1)]},
    "secret masks": {"weights": Uniform(), "stages": [SecureSum(2.0)]},
}


@pytest.mark.parametrize("name", RUNS)
def test_a_run_is_replayed_to_the_bit_and_never_parts_from_itself(name):
    history = experiment(**RUNS[name]).train(4)
    again = history.replay(experiment(**RUNS[name]))
    assert again.records == history.records
    assert again.state.server.params.tobytes() == history.state.server.params.tobytes()
    assert first_difference(experiment(**RUNS[name]), experiment(**RUNS[name]), 4) is None


def test_a_history_from_json_gets_its_state_back_and_goes_on():
    fed = experiment()
    whole = fed.train(5)
    bare = History.from_json(fed.train(3).to_json())
    assert fed.train(2, bare.replay(fed)).records == whole.records[3:]


def test_the_rest_of_a_resumed_run_is_replayed_from_its_state_or_from_the_beginning():
    fed = experiment()
    first = fed.train(2)
    rest = fed.train(2, first)
    assert rest.replay(fed).records == rest.replay(fed, first.state).records == rest.records
    with pytest.raises(ValueError, match=r"nothing to replay from version 2: the records are of versions \[1, 2\]"):
        first.replay(fed, first.state)
    with pytest.raises(ValueError, match="nothing to replay"):
        History().replay(fed)


def test_a_replay_says_in_which_round_it_is_another_run_and_in_what():
    history = experiment().train(4)
    with pytest.raises(ValueError, match=r"round 1 is another one: metrics\['train_loss_first'\] was .* and is now"):
        history.replay(experiment(training=training(0.11)))
    changed = replace(history.records[2], metrics={**history.records[2].metrics, "loss": np.nextafter(history.last("loss"), 9)})
    forged = replace(history, records=[*history.records[:2], changed, history.records[3]])
    with pytest.raises(ValueError, match=r"round 3 is another one: metrics\['loss'\] was"):
        forged.replay(experiment())
    params = history.state.server.params.copy()
    params[4] = np.nextafter(params[4], np.float32(9))
    other = replace(history.state, server=replace(history.state.server, params=params))
    with pytest.raises(ValueError, match=r"the last model is not: params\[4\] was"):
        replace(history, state=other).replay(experiment())
    private = {"weights": Uniform(), "stages": [CentralDP(1.0, 1.0, budget=8.0)]}
    with pytest.raises(ValueError, match="CentralDP: noise that nobody can predict"):
        experiment(**private).train(2).replay(experiment(**private))
    seeded = experiment(weights=Uniform(), schedule=Synchronous(1.0), stages=[CentralDP(1.0, 1.0, noise_seed=1, budget=8.0)])
    ended = seeded.train(200)
    assert ended.replay(seeded).stopped == ended.stopped != ""
    longer = replace(ended, records=[*ended.records, replace(ended.records[-1], version=len(ended) + 1)])
    with pytest.raises(ValueError, match=f"ends after round {len(ended)}, and the records go to {len(ended) + 1}"):
        longer.replay(seeded)


# --- two runs -------------------------------------------------------------------------------------------------------


def test_another_seed_begins_with_another_model():
    found = first_difference(experiment(), experiment(seed=1), 3)
    one, two = (experiment(seed=seed).initial().server.params for seed in (0, 1))
    assert (found.version, found.purpose, found.message, found.place) == (1, "model", 1, "params[0]")
    assert f"params[0] is {one[0]!s} in the first run and {two[0]!s} in the second" in str(found)


@pytest.mark.parametrize("client", range(6))
def test_another_label_of_one_client_is_found_in_the_first_answer_of_that_client(client):
    data = federation()
    y = data.y.copy()
    y[data.train[client][0]] = (y[data.train[client][0]] + 1) % 3
    found = first_difference(experiment(data), experiment(replace(data, y=y)), 8)
    history = experiment(data).train(8)
    first = next(record.version for record in history.records if client in record.clients)
    assert (found.version, found.purpose, found.client) == (first, "update", client)
    assert found.place.startswith("delta[")
    assert f"the answer of client {client}" in str(found)


def test_another_learning_rate_is_in_the_first_answer():
    found = first_difference(experiment(), experiment(training=training(0.10001)), 2)
    assert (found.version, found.purpose, found.message, found.place) == (1, "update", 2, "delta[0]")


def test_another_stage_is_another_kind_of_payload():
    found = first_difference(experiment(), experiment(stages=[QSGD(4)]), 2)
    assert (found.version, found.purpose, found.place) == (1, "update", "delta")
    assert "delta is ndarray in the first run and Quantised in the second" in str(found)
    found = first_difference(experiment(stages=[TopK(0.5)]), experiment(stages=[TopK(0.2)]), 2)
    assert found.place.startswith("delta[")                                     # the numbers that a payload stands for
    assert " bytes and " in str(found)


def test_every_message_that_is_compared_crosses_the_network_and_is_counted():
    """What is overheard is, byte for byte, what the record counts."""
    for parts in ({}, {"stages": [Downlink(8)]}, {"selection": PowerOfChoice(4)}, {"evaluation": Evaluation(federated=True)}):
        steps = experiment(**parts).run(3)
        for _ in range(3):
            with overheard() as messages:
                record = next(steps)[1]
            sizes = Counter()
            for kind, message in messages:
                sizes[kind] += len(message)
            alone = {kind: sizes[kind] for kind in ("update", "probe", "evaluation") if sizes[kind]}
            assert alone == {name: record.bytes_up[name] for name in record.bytes_up}
            models = [len(message) for kind, message in messages if kind == "model"]
            asked = len(record.spans)
            assert len(models) == (asked if "stages" in parts else 1 + ("selection" in parts or "evaluation" in parts))
            assert record.bytes_down["model"] == (sum(models) if "stages" in parts else asked * models[-1])


def test_one_bit_of_the_library_is_found_where_it_was_changed(monkeypatch):
    """As after an upgrade: the second run's clipping rounds one coordinate of one client the other way."""
    fed = experiment(weights=Uniform(), stages=[Clip(0.1)])
    upgraded, as_it_was = replace(fed), Clip.client
    client, version = next((c, r.version) for r in fed.train(6).records[2:] for c in r.clients)

    def rounds_up(stage, update, ctx):
        update = as_it_was(stage, update, ctx)
        if ctx.experiment is not upgraded or (update.client, update.version) != (client, version - 1):
            return update
        delta = update.delta.copy()
        delta[7] = np.nextafter(delta[7], np.float32(1))
        return replace(update, delta=delta)

    monkeypatch.setattr(Clip, "client", rounds_up)
    found = first_difference(fed, upgraded, 6)
    assert (found.version, found.client, found.place) == (version, client, "delta[7]")
    assert first_difference(upgraded, fed, version - 1) is None


def test_a_step_of_the_server_is_found_in_the_record_and_in_the_next_model():
    found = first_difference(experiment(), experiment(optimizer=FedAvg(0.5)), 3)
    assert (found.version, found.purpose, found.message) == (2, "model", 1)
    assert str(found).startswith("The messages of round 1 are the same and its records are not: metrics['")
    alone = first_difference(experiment(), experiment(optimizer=FedAvg(0.5)), 1)
    assert (alone.version, alone.message, alone.client) == (1, None, None)
    assert str(alone).endswith("No later message differs.")


def test_somebody_else_is_asked_or_one_run_is_shorter():
    found = first_difference(experiment(), experiment(selection=PowerOfChoice(6)), 2)
    assert "message 2 of" in str(found)
    assert "the answer to the selector's question of client" in str(found)
    found = first_difference(experiment(), experiment(schedule=Synchronous(1.0)), 2)
    assert found.message is not None
    private = {"weights": Uniform(), "schedule": Synchronous(1.0)}
    one, two = (experiment(**private, stages=[CentralDP(1.0, 1.0, noise_seed=1, budget=b)]) for b in (None, 9.0))
    rounds = len(two.train(200))
    found = first_difference(one, two, 200)
    assert found.version == rounds + 1
    assert f"The second run ends before round {rounds + 1}: " in str(found)
    assert f"The first run ends before round {rounds + 1}: " in str(first_difference(two, one, 200))


def test_secret_noise_is_named_and_secret_masks_are_not_compared():
    noisy = {"weights": Uniform(), "stages": [CentralDP(1.0, 1.0)]}
    assert "noise_seed=0 repeats it" in str(first_difference(experiment(**noisy), experiment(**noisy), 2))
    masked = [experiment(weights=Uniform(), training=training(lr), stages=[SecureSum(2.0)]) for lr in (0.1, 0.2)]
    found = first_difference(*masked, 3)
    assert (found.version, found.purpose) == (2, "model")
    for bad in (0, True, 1.5):
        with pytest.raises(ValueError, match="rounds must be"):
            first_difference(experiment(), experiment(), bad)


def test_the_first_unlike_place():
    a = {"x": [1, np.array([[1, 2], [3, 4]], np.float32)], "y": 0.0}
    b = {"x": [1, np.array([[1, 2], [9, 4]], np.float32)], "y": 0.0}
    assert unlike(a, a) is None
    assert unlike(a, b) == ("['x'][1][1, 0]", 3, 9)
    assert unlike(0.0, -0.0, "z") == ("z", 0.0, -0.0)
    assert unlike(float("nan"), float("nan")) is None
    assert unlike([1], [1, 2])[0] == "[1]"
    assert unlike({"k": 1}, {})[0] == "['k']"
    assert unlike(np.zeros(2, np.float32), np.zeros(2), "v")[0] == "v"
    assert unlike(1, 1.0, "n") == ("n", 1, 1.0)
