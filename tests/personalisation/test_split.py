"""Which layers stay at home: names, the shorter vector, and the bytes."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from small import CLASSES, DIM, federation

from fl_course import (
    Coordinator,
    FedAdam,
    FedPer,
    FedRep,
    LGFedAvg,
    LocalSGD,
    Split,
    Synchronous,
    Wrapped,
    handed_out,
    load,
    mlp,
    save,
    stream,
)
from fl_course.federation import dispatch, work
from fl_course.personalisation.split import layers_under

NET = mlp(DIM, 4, CLASSES)
HOW = LocalSGD(lr=0.3, epochs=2, batch_size=4)


def experiment(model, personal, **changes):
    return Coordinator(federation(), model, replace(HOW, personal=personal), **({"schedule": Synchronous(0.5)} | changes))


class Names(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.head, self.header = torch.nn.Linear(DIM, 4), torch.nn.Linear(4, 4)
        self.body = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU(), torch.nn.Linear(4, CLASSES))

    def forward(self, x):
        return self.body(self.header(self.head(x)))


# --- names ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "found"), [
    ("head", ["head.weight", "head.bias"]), ("head.", ["head.weight", "head.bias"]), ("head.bias", ["head.bias"]),
    ("header", ["header.weight", "header.bias"]), ("body.2", ["body.2.weight", "body.2.bias"]),
    ("body", ["body.0.weight", "body.0.bias", "body.2.weight", "body.2.bias"]),
])  # fmt: skip
def test_a_name_is_whole_words_between_dots(name, found):
    assert layers_under(name, Wrapped(Names())) == found


@pytest.mark.parametrize("name", ["hea", "head.w", "weight", "", ".", "body.1", "Head", "head..", "dense1", " head"])
def test_a_name_that_belongs_to_nothing_is_refused_with_the_names_that_there_are(name):
    with pytest.raises(ValueError, match=r"head\.weight, head\.bias, header\.weight"):
        Split(Wrapped(Names()), ("header", name))


@pytest.mark.parametrize("name", [1, None, b"dense1", ("dense1", 3), [None], [["dense1"]]])
def test_names_are_words(name):
    with pytest.raises(TypeError):
        Split(NET, name)


def test_dense1_is_not_dense10():
    deep = mlp(*[3] * 13)
    assert Split(deep, "dense1").layers_at_home == ("dense1.weight", "dense1.bias")


def test_only_networks_are_split_and_only_once():
    with pytest.raises(TypeError, match="already"):
        Split(Split(NET, "dense1"), "dense0")
    with pytest.raises(TypeError, match="Wrapped"):
        Split(Names(), "head")


# --- the vector -----------------------------------------------------------------------------------------------------------


def test_the_vector_is_that_of_the_shared_layers_in_the_networks_order():
    split = Split(NET, ("dense1.bias", "dense0.weight"))
    assert list(split.shapes()) == ["dense0.bias", "dense1.weight"]
    assert split.dim == 4 + 4 * CLASSES
    theta = NET.init(stream(0, "x"))
    slices = NET.slices()
    shared, own = split.cut(theta)
    assert np.array_equal(shared, np.concatenate([theta[slices["dense0.bias"]], theta[slices["dense1.weight"]]]))
    assert np.array_equal(own, np.concatenate([theta[slices["dense0.weight"]], theta[slices["dense1.bias"]]]))
    assert np.array_equal(split.join(shared, own), theta)
    assert np.array_equal(split.init(stream(3, "init")), NET.init(stream(3, "init"))[split.shared])


def test_the_same_split_is_equal_however_it_is_said():
    same = [Split(NET, "dense1"), Split(NET, "dense1."), Split(NET, ["dense1"]), Split(NET, np.array(["dense1"]))]
    assert len(set(same)) == len({repr(split) for split in same}) == 1


def test_overlapping_names_count_once():
    assert Split(NET, ("dense1", "dense1.bias", "dense1.")).own.size == Split(NET, "dense1").own.size


def test_the_shared_part_answers_nothing():
    split = Split(NET, "dense1")
    with pytest.raises(ValueError, match="own_models"):
        split.predict(np.zeros(split.dim, np.float32), federation().x)
    history = experiment(split, FedPer()).train(2)
    assert "accuracy" not in history.records[-1].metrics
    assert "own_measure" in history.records[0].events[-1]


# --- limits ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("personal", [FedPer(), FedRep(3), LGFedAvg()])
def test_without_personal_layers_it_is_fedavg_to_the_bit(personal):
    plain, split = experiment(NET, None).train(4), experiment(Split(NET), personal).train(4)
    assert plain.state.server.params.tobytes() == split.state.server.params.tobytes()
    assert [r.metrics for r in plain.records] == [r.metrics for r in split.records]
    assert [r.nbytes for r in plain.records] == [r.nbytes for r in split.records]


@pytest.mark.parametrize("model", [NET, Wrapped(Names())])
def test_with_momentum_and_another_optimiser_too(model):
    how = replace(HOW, momentum=0.5, weight_decay=0.01)
    runs = [Coordinator(federation(), m, replace(how, personal=p), optimizer=FedAdam()).train(3)
            for m, p in ((model, None), (Split(model), FedPer()))]  # fmt: skip
    assert runs[0].state.server.params.tobytes() == runs[1].state.server.params.tobytes()


# --- nothing personal is on the wire --------------------------------------------------------------------------------------


@pytest.mark.parametrize("personal", [FedPer(), FedRep(2), LGFedAvg()])
@pytest.mark.parametrize("layers", ["dense0", "dense1", ("dense0.bias", "dense1.weight")])
def test_no_personal_number_is_in_any_message_and_none_is_counted(monkeypatch, personal, layers):
    seen = []

    def spy(module, name):
        real = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *a, **k: seen.append(real(*a, **k)) or seen[-1])

    spy(dispatch, "encode_model")
    spy(work, "encode_update")
    split = Split(NET, layers)
    it = experiment(split, personal)
    lengths, secrets = set(), [NET.init(stream(it.seed, "init"))[split.own]]
    for state, record in it.run(4):
        secrets += [drawer["personal"] for drawer in state.memory.values()]
        lengths |= set(record.upload)
    assert len(seen) > 10
    assert len(secrets) > 5
    for secret in secrets:
        for number in secret[secret != 0]:
            assert not any(number.tobytes() in message for message in seen)
    plain = Coordinator(federation(), NET, HOW).train(1).records[0].upload
    assert all(abs(min(plain) - n - 4 * split.own.size) < 40 for n in lengths)                 # the header varies with names


# --- handed out, kept, resumed --------------------------------------------------------------------------------------------


def test_everybody_can_begin_with_a_trained_network():
    theta = experiment(NET, None).train(3).state.server.params
    it = experiment(Split(NET, "dense0"), LGFedAvg())
    state = handed_out(it, theta)
    assert np.array_equal(state.server.params, theta[it.model.shared])
    assert all(np.array_equal(state.memory[c]["personal"], theta[it.model.own]) for c in it.data.ids)
    history = it.train(2, state)
    assert not np.array_equal(history.state.memory[0]["personal"], theta[it.model.own]) or len(history.state.memory) > 0
    for bad in (theta[1:], np.full_like(theta, np.nan), theta[None]):
        with pytest.raises(ValueError, match="finite numbers"):
            handed_out(it, bad)
    with pytest.raises(TypeError, match="no personal layers"):
        handed_out(experiment(NET, None), theta)


def test_personal_layers_survive_rounds_in_which_their_client_is_not_asked():
    it, last, kept = experiment(Split(NET, "dense1"), FedPer(), schedule=Synchronous(0.34)), {}, 0
    for state, record in it.run(8):
        for client, drawer in state.memory.items():
            if client not in record.clients:
                assert np.array_equal(drawer["personal"], last[client])
                kept += 1
        last = {client: drawer["personal"] for client, drawer in state.memory.items()}
    assert kept > 10


@pytest.mark.parametrize("personal", [FedPer(), FedRep(2)])
def test_a_run_that_was_saved_goes_on_bit_for_bit(tmp_path, personal):
    it = experiment(Split(NET, "dense1"), personal)
    whole = it.train(6).state
    save(tmp_path / "half.fl", it.train(3), it)
    rest = it.train(3, load(tmp_path / "half.fl", it)).state
    assert whole.server.params.tobytes() == rest.server.params.tobytes()
    one, two = ({c: d["personal"].tobytes() for c, d in state.memory.items()} for state in (whole, rest))
    assert one == two


def test_a_drawer_of_another_split_costs_its_client_the_answer():
    it, other = experiment(Split(NET, "dense1"), FedPer()), experiment(Split(NET, "dense1.bias"), FedPer())
    memory = it.train(2).state.memory
    state = replace(other.initial(), memory={next(iter(memory)): next(iter(memory.values()))})
    history = other.train(4, state)
    assert any(re.search("drawer holds", event) for record in history.records for event in record.events)
