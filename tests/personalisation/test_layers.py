"""FedPer, FedRep and LG-FedAvg against a textbook: torch.optim.SGD on one client after the other."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from small import CLASSES, DIM, federation

from fl_course import (
    Coordinator,
    FedPer,
    FedProx,
    FedRep,
    LGFedAvg,
    LocalSGD,
    Split,
    Synchronous,
    Task,
    Wrapped,
    local_only,
    mlp,
    own_models,
    stream,
)
from fl_course.core import CompositionError, Server
from fl_course.engine.batches import client_keys, plan_batches, round_key, splitmix, width
from fl_course.engine.training import Trainer

NET = mlp(DIM, 4, CLASSES)
HOW = LocalSGD(lr=0.3, epochs=2, batch_size=4)
DATA = federation((8, 5, 12, 3, 9, 7))


def textbook(theta, data, k, version, how, epochs, moving, seed=0):
    """(d,) after so many epochs of torch.optim.SGD on the tensors `moving`, on the batches that the library would take."""
    mine = data.train[k]
    keys = splitmix(client_keys([data.ids[k]]) ^ round_key(seed, version))
    plan = plan_batches([mine], keys, np.array([epochs]), width(len(mine), how.batch_size))
    tensors = {name: torch.tensor(theta[where].reshape(NET.shapes()[name]), dtype=torch.float64)
               for name, where in NET.slices().items()}
    for name in moving:
        tensors[name].requires_grad_()
    optimizer = torch.optim.SGD([tensors[name] for name in moving], how.lr, how.momentum, weight_decay=how.weight_decay)
    for t in range(int(plan.steps[0])):
        rows = plan.rows[t, 0, : plan.count[t, 0]]
        h = torch.tensor(data.x[rows], dtype=torch.float64) @ tensors["dense0.weight"].T + tensors["dense0.bias"]
        out = torch.relu(h) @ tensors["dense1.weight"].T + tensors["dense1.bias"]
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(out, torch.tensor(data.y[rows])).backward()
        optimizer.step()
    return np.concatenate([tensors[name].detach().numpy().ravel() for name in NET.shapes()])


def by_hand(personal, phases, rounds, how=HOW):
    """All clients in every round; phases: (epochs, tensors that move), one after the other. Returns shared, {client: whole}."""
    split = Split(NET, personal)
    theta = NET.init(stream(0, "init")).astype(np.float64)
    shared, own = theta[split.shared], [theta[split.own] for _ in DATA.ids]
    sizes = DATA.sizes
    for version in range(rounds):
        changes = []
        for k in range(len(DATA)):
            whole = np.empty(NET.dim)
            whole[split.shared], whole[split.own] = shared, own[k]
            for epochs, moving in phases:
                whole = textbook(whole, DATA, k, version, how, epochs, moving)
            changes.append(whole[split.shared] - shared)
            own[k] = whole[split.own]
        shared = shared + sum(n * c for n, c in zip(sizes, changes, strict=True)) / sizes.sum()
    return shared, own


ALL, BASE, HEAD = tuple(NET.shapes()), ("dense0.weight", "dense0.bias"), ("dense1.weight", "dense1.bias")


@pytest.mark.parametrize("engine", ["auto", "rows"])
@pytest.mark.parametrize(("method", "personal", "phases"), [
    (FedPer(), "dense1", [(2, ALL)]),
    (LGFedAvg(), "dense0", [(2, ALL)]),
    (FedRep(3), "dense1", [(3, HEAD), (2, BASE)]),
    (FedRep(1), ("dense0.bias", "dense1.weight"), [(1, ("dense0.bias", "dense1.weight")), (2, ("dense0.weight", "dense1.bias"))]),
])  # fmt: skip
@pytest.mark.parametrize("settings", [{}, {"momentum": 0.5, "weight_decay": 0.05}])
def test_three_rounds_as_in_a_textbook(method, personal, phases, engine, settings):
    how = replace(HOW, engine=engine, personal=method, **settings)
    it = Coordinator(DATA, Split(NET, personal), how, Synchronous(1.0))
    state = it.train(3).state
    shared, own = by_hand(personal, phases, 3, how)
    np.testing.assert_allclose(state.server.params, shared, atol=2e-6)
    for k, client in enumerate(DATA.ids):
        np.testing.assert_allclose(state.memory[client]["personal"], own[k], atol=2e-6)
    for k, theta in enumerate(own_models(it, state)):
        np.testing.assert_allclose(theta, it.model.join(shared, own[k]), atol=2e-6)


@pytest.mark.parametrize("method", [FedPer(), LGFedAvg(), FedRep(2)])
def test_with_nothing_but_personal_layers_everybody_trains_alone(method):
    it = Coordinator(DATA, Split(NET, tuple(NET.shapes())), replace(HOW, personal=method), Synchronous(1.0))
    history = it.train(3)
    assert it.model.dim == 0
    assert own_models(it, history).tobytes() == local_only(it, 3).tobytes()
    assert max(history.records[0].upload) < 200                                           # a name, a weight, the metrics


def test_fedreps_head_moves_before_the_base_and_not_with_it():
    split, seen = Split(NET, "dense1"), []

    class Watched(Trainer):
        def steps(self, tasks):
            updates = Trainer.steps(self, tasks)
            seen.append((self.frozen, self.how.epochs, [u.delta.copy() for u in updates]))
            return updates

    trainer = Watched(replace(HOW, personal=FedRep(4)), split, DATA)
    theta = NET.init(stream(0, "init"))
    tasks = [Task(client, Server(theta[split.shared])) for client in DATA.ids]
    updates = trainer.train(tasks)
    (first, epochs_1, heads), (second, epochs_2, bases) = seen
    assert (first, epochs_1, second, epochs_2) == (BASE, 4, HEAD, 2)
    for head, base, task, update in zip(heads, bases, tasks, updates, strict=True):
        assert not head[split.shared].any()
        assert head[split.own].any()
        assert not base[split.own].any()
        assert np.array_equal(update.delta, base[split.shared])
        assert np.array_equal(task.memory["personal"], theta[split.own] + head[split.own])


def test_the_company_and_its_order_change_no_bit():
    split = Split(NET, "dense1")
    for method in (FedPer(), FedRep(2)):
        trainer = Trainer(replace(HOW, personal=method), split, DATA)
        start = split.init(stream(0, "init"))
        together = trainer.train([Task(client, Server(start)) for client in DATA.ids])
        for k in (4, 0, 3):
            alone = trainer.train([Task(DATA.ids[k], Server(start))])[0]
            assert alone.delta.tobytes() == together[k].delta.tobytes()


@pytest.mark.parametrize("method", [FedPer(), FedRep(2)])
def test_threads_and_the_size_of_tensors_change_no_bit(method):
    start = Split(NET, "dense1").init(stream(0, "init"))
    runs = []
    for settings in ({}, {"threads": 2}, {"together": 2}):
        trainer = Trainer(replace(HOW, personal=method, **settings), Split(NET, "dense1"), DATA)
        tasks = [Task(client, Server(start)) for client in DATA.ids]
        runs.append([u.delta.tobytes() for u in trainer.train(tasks)] + [t.memory["personal"].tobytes() for t in tasks])
    assert runs[0] == runs[1] == runs[2]


def test_a_module_of_torch_is_split_by_its_own_names():
    net = torch.nn.Sequential(torch.nn.Linear(DIM, 4), torch.nn.ReLU(), torch.nn.Linear(4, CLASSES))
    it = Coordinator(DATA, Split(Wrapped(net), "2"), replace(HOW, personal=FedRep(2)), Synchronous(1.0))
    assert list(it.model.shapes()) == ["0.weight", "0.bias"]
    state = it.train(2).state
    assert all(drawer["personal"].shape == (4 * CLASSES + CLASSES,) for drawer in state.memory.values())
    first = net[0].weight.detach().numpy().ravel()
    assert not np.allclose(state.server.params[: first.size], first)


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "3", None, np.float64(2)])
def test_head_epochs_are_whole(value):
    with pytest.raises(ValueError, match="head_epochs"):
        FedRep(value)


@pytest.mark.parametrize("method", [FedPer(), FedRep(), LGFedAvg()])
def test_what_they_need_is_asked_for(method):
    with pytest.raises(CompositionError, match="Split"):
        Coordinator(DATA, NET, replace(HOW, personal=method))
    with pytest.raises(CompositionError, match="correction"):
        Coordinator(DATA, Split(NET, "dense1"), replace(HOW, personal=method, correction=FedProx(0.1)))
    with pytest.raises(CompositionError, match="LocalSGD\\(personal="):
        Coordinator(DATA, Split(NET, "dense1"), HOW)
