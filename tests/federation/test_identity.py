"""What decides a run and what does not: facts of experiments that are the same, and of experiments that differ in one thing."""

import os
import subprocess
import sys
from dataclasses import dataclass, make_dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from small import UNIFORM, Half, Spy, federation
from small import experiment as small

from fl_course import (
    CrossEntropy,
    Evaluation,
    FedAdam,
    LocalSGD,
    LogNormal,
    Stage,
    Synchronous,
    Wrapped,
    mlp,
)
from fl_course.federation.identity import difference, facts

SGD = LocalSGD(lr=0.1, epochs=2, batch_size=4)
FLAG = 3


def experiment(data=None, model=None, **changes):
    it = small(data, **changes)
    return it if model is None else replace(it, model=model)


def network(activation=torch.nn.ReLU, width=4, **settings):
    return torch.nn.Sequential(torch.nn.Linear(5, width, **settings), activation(), torch.nn.Linear(width, 3))


class Scaled(torch.nn.Module):
    """A module whose only difference is a number in it."""

    def __init__(self, by):
        super().__init__()
        self.by, self.inner = by, torch.nn.Linear(5, 3)

    def forward(self, x):
        return self.inner(x * self.by)


class Otherwise(Scaled):
    def forward(self, x):
        return self.inner(x / self.by)


class Slotted:
    __slots__ = ("__hidden", "_number")

    def __init__(self, number, hidden):
        self._number, self.__hidden = number, hidden


class Private(LocalSGD):
    """A user's own training, with a number that is no field."""

    def __init__(self, number):
        super().__init__(lr=0.1)
        object.__setattr__(self, "_number", number)


class OwnNetwork(Wrapped):
    """A user's own model: what a Wrapped keeps for speed is no fact of it either."""


def namesake(name):
    return make_dataclass("Wrapped", [("name", str)], namespace={"__module__": __name__})(name)


def hooked(*factors):
    module = network()
    for factor in factors:
        module.register_forward_hook(partial(lambda by, module, given, out: out * by, factor))
    return module


def backward(factor):
    module = network()
    module.register_full_backward_hook(partial(lambda by, module, given, out: (given[0] * by,), factor))
    return module


def indexed(number):
    return type("Table", (), {"__getitem__": (lambda self, i: i, lambda self, i: -i)[number], "__module__": __name__})()


@dataclass(frozen=True)
class Holds(Stage):
    """A stage of the user's own that holds anything."""

    thing: object = None


def holding(thing):
    return experiment(stages=[Holds(thing)])


def closure(number):
    return lambda client, rng: number


def default(number):
    return lambda client, rng, n=number: n


def keyword(number):
    return lambda client, rng, *, n=number: n


def long(middle):
    array = np.zeros(5000)
    array[2500] = middle
    return array


def writing(log):
    def client(self, update, ctx):
        log.append(update.client)
        return update

    return client


def counting(count):
    def client(self, update, ctx):
        count[update.client] = count.get(update.client, 0) + 1
        return update

    return client


def stage(body):
    """A class of the same name with another client half."""
    return type("Mine", (Stage,), {"client": body, "__module__": __name__})()


def frozen(value):
    module = network()
    module[2].requires_grad_(False)
    with torch.no_grad():
        for parameter in module[2].parameters():
            parameter.fill_(value)
    return Wrapped(module)


MATTERS = {
    "a closure's number": lambda i: experiment(training=replace(SGD, epochs=closure(1 + i))),
    "a default argument": lambda i: experiment(training=replace(SGD, epochs=default(1 + i))),
    "a default that has a name": lambda i: experiment(training=replace(SGD, epochs=keyword(1 + i))),
    "a closure's table": lambda i: experiment(training=replace(SGD, epochs=closure({0: 1, 1: 2 + i}))),
    "code": lambda i: experiment(training=replace(SGD, epochs=(lambda c, rng: 2, lambda c, rng: 3)[i])),
    "code of the same constants": lambda i: experiment(training=replace(SGD, epochs=(lambda c, r: c + 3, lambda c, r: c * 3)[i])),
    "a name that code reaches": lambda i: experiment(training=replace(SGD, epochs=(lambda c, r: min(c), lambda c, r: max(c))[i])),
    "a partial": lambda i: experiment(training=replace(SGD, epochs=partial(lambda n, client, rng: n, 1 + i))),
    "a function in a function": lambda i: holding(lambda: closure(1 + i)),
    "a set in code": lambda i: holding((lambda c: c in {"a", "b"}, lambda c: c in {"a", "c"})[i]),
    "a bound method": lambda i: holding(Holds(i).check),
    "ReLU or Tanh": lambda i: experiment(model=Wrapped(network((torch.nn.ReLU, torch.nn.Tanh)[i]))),
    "a slope": lambda i: experiment(model=Wrapped(network(partial(torch.nn.LeakyReLU, 0.1 + i)))),
    "a width": lambda i: experiment(model=Wrapped(network(width=4 + i))),
    "a bias": lambda i: experiment(model=Wrapped(network(bias=bool(i)))),
    "a module's number": lambda i: experiment(model=Wrapped(Scaled(1.0 + i))),
    "a module's code": lambda i: experiment(model=Wrapped((Scaled, Otherwise)[i](2.0))),
    "what is frozen": lambda i: experiment(model=frozen(float(i))),
    "whether it is frozen": lambda i: experiment(model=(frozen(1.0), Wrapped(network()))[i]),
    "the middle of a long array": lambda i: holding(long(i)),
    "one bit of an array": lambda i: holding(np.array([0.0, -0.0])[[0, i]]),
    "the type of an array": lambda i: holding(np.zeros(3, ("f4", "f8")[i])),
    "a NumPy scalar's type": lambda i: holding((np.float32(1), 1.0)[i]),
    "a long tuple's middle": lambda i: holding((0,) * 50 + (i,) + (0,) * 50),
    "a tensor": lambda i: holding(torch.full((3,), float(i))),
    "a stage's code": lambda i: experiment(stages=[stage((lambda s, u, c: u, lambda s, u, c: replace(u, weight=2.0))[i])]),
    "an example": lambda i: experiment(replace(federation(), x=federation().x + np.float32(i))),
    "who holds it": lambda i: experiment(federation(order=[0, 1, 2, 3, 4, 5] if i else [1, 0, 2, 3, 4, 5])),
    "a learning rate": lambda i: experiment(training=replace(SGD, lr=0.1 + 1e-16 + i * 1e-15)),
    "what a slot holds": lambda i: holding(Slotted(i, 0)),
    "what a hidden slot holds": lambda i: holding(Slotted(0, i)),
    "a number of one's own training that is no field": lambda i: experiment(training=Private(i)),
    "the first of two hooks": lambda i: holding(hooked(1 + i, 3)),
    "a hook on the gradient": lambda i: holding(backward(1 + i)),
    "a field of a class of one's own that is called like ours": lambda i: holding(namesake(str(i))),
    "what an index means": lambda i: holding(indexed(i)),
    "an array of one object": lambda i: holding(np.array({"a": i}, dtype=object)),
    "a seed": lambda i: experiment(seed=i),
    "an engine": lambda i: experiment(training=replace(SGD, engine=("auto", "rows")[i])),
    "a fleet": lambda i: experiment(fleet=LogNormal(drop=0.1 * i)),
    "the loss": lambda i: experiment(model=replace(mlp(5, 3), loss=CrossEntropy(class_weights=(1.0, 1.0, 1.0 + i)))),
    "a field more": lambda i: experiment(optimizer=FedAdam(lr=0.1, tau=1e-3 * (1 + i))),
}  # fmt: skip
SAME = {
    "together": lambda i: experiment(training=replace(SGD, together=(None, 2)[i])),
    "threads": lambda i: experiment(training=replace(SGD, threads=1 + i)),
    "where it trains": lambda i: experiment(training=replace(SGD, device=("cpu", "cpu:0")[i])),
    "how often it is evaluated": lambda i: experiment(evaluation=Evaluation(every=1 + i)),
    "strict": lambda i: experiment(strict=bool(i)),
    "what the data are called": lambda i: experiment(replace(federation(), name=str(i), made="by hand")),
    "a list for a tuple of stages": lambda i: experiment(stages=([Holds()], (Holds(),))[i]),
    "the same function again": lambda i: experiment(training=replace(SGD, epochs=closure(2))),
    "the same class again": lambda i: experiment(stages=[stage(lambda s, u, c: u)]),
    "where a module begins": lambda i: experiment(model=Wrapped(network())),
    "a recurrent module again": lambda i: holding(torch.nn.LSTM(3, 4)),
    "the order of a table": lambda i: holding(({"a": 1, "b": 2}, {"b": 2, "a": 1})[i]),
    "what a spy has seen": lambda i: experiment(stages=[Spy(sent=[1] * i)]),
    "a log that a stage writes": lambda i: experiment(stages=[stage(writing([0] * i))]),
    "a count that a stage keeps": lambda i: experiment(stages=[stage(counting({0: i}))]),
    "print options": lambda i: holding(np.linspace(0, 1, 5)),
}  # fmt: skip


@pytest.mark.parametrize("what", MATTERS)
def test_one_thing_that_decides_a_run_is_one_difference(what):
    one, other, again = facts(MATTERS[what](0)), facts(MATTERS[what](1)), facts(MATTERS[what](0))
    assert difference(one, again) is None
    path, here, there = difference(one, other)
    assert here != there
    assert not path.startswith("experiment")
    assert all(len(text) < 130 for text in one.values())


@pytest.mark.parametrize("what", SAME)
def test_what_changes_no_number_of_a_run_is_no_difference(what):
    one = facts(SAME[what](0))
    with np.printoptions(precision=1, threshold=2):
        torch.set_printoptions(precision=1)
        assert difference(one, facts(SAME[what](1))) is None
        torch.set_printoptions(profile="default")


@pytest.mark.parametrize("kind", [Wrapped, OwnNetwork])
def test_a_run_itself_changes_no_fact(kind):
    it = experiment(model=kind(network()), stages=[Half(), Spy()], weights=UNIFORM, optimizer=FedAdam())
    before = facts(it)
    it.train(2)
    assert difference(before, facts(it)) is None


def test_a_global_number_that_a_function_reads_decides(monkeypatch):
    it = experiment(training=replace(SGD, epochs=lambda client, rng: FLAG))
    before = facts(it)
    monkeypatch.setattr(sys.modules[__name__], "FLAG", 4)
    assert difference(before, facts(it))[0] == "training.epochs"


def test_a_fact_that_only_one_side_has_is_a_difference():
    assert difference({"a": "1"}, {"a": "1"}) is None
    assert difference({"a": "1", "b": "2"}, {"a": "1"}) == ("b", "2", "nothing")
    assert difference({"a": "1"}, {"a": "1", "b": "2"}) == ("b", "nothing", "2")


def test_what_holds_itself_ends():
    ring = [1]
    ring.append(ring)
    assert facts(holding(ring))["stages[0].thing[1]"] == "itself"


def test_the_place_of_the_difference_is_named():
    for one, other, path in [
        (experiment(), experiment(schedule=Synchronous(1 / 3)), "schedule.fraction"),
        (experiment(), experiment(stages=[Half()]), "stages"),
        (experiment(model=Wrapped(network())), experiment(model=Wrapped(network(torch.nn.Tanh))), "model.module.1"),
        (experiment(), experiment(replace(federation(), x_test=federation().x_test + 1)), "data.x_test"),
    ]:
        assert difference(facts(one), facts(other))[0] == path


def two():
    return facts(MATTERS["a set in code"](0)), facts(
        experiment(federation(), Wrapped(network()), training=replace(SGD, epochs=closure(2)), stages=[Half()])
    )


def test_another_process_with_another_hash_seed_finds_the_same_facts():
    here = Path(__file__).parent
    path = os.pathsep.join(map(str, (here, here.parent, here.parents[1])))
    environment = {**os.environ, "PYTHONHASHSEED": "77", "PYTHONPATH": path}
    command = [sys.executable, "-c", "from test_identity import two; print(two())"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == f"{two()}\n"
