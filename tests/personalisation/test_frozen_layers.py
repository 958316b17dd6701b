"""Layers that training leaves alone: to the bit, on every engine, and the others move as they would beside a constant."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from small import CLASSES, DIM, federation

from fl_course import ConvNet, FedProx, LocalSGD, Scaffold, Task, Wrapped, digits, mlp, stream
from fl_course.core import Server
from fl_course.data.partition import IID
from fl_course.engine.training import Trainer

DATA = federation((8, 5, 12, 3, 9, 7))
HOW = LocalSGD(lr=0.2, epochs=3, batch_size=4)
NET = mlp(DIM, 6, 4, CLASSES)
LAYERS = [("dense0.weight", "dense0.bias"), ("dense1.weight", "dense1.bias"), ("dense2.weight", "dense2.bias"),
          ("dense0.weight", "dense0.bias", "dense2.weight", "dense2.bias"), ("dense0.bias",), ("dense1.weight", "dense2.bias"),
          tuple(NET.shapes()), ()]  # fmt: skip


def changes(net, data, how, frozen, clients=None):
    trainer = Trainer(how, net, data).like(how, frozen)
    start = net.init(stream(0, "init"))
    tasks = [Task(client, Server(start), 0, {"control": start * np.float32(0.1)}) for client in clients or data.ids]
    return trainer, [update.delta.copy() for update in trainer.steps(tasks)]


@pytest.mark.parametrize("frozen", LAYERS)
@pytest.mark.parametrize("settings", [
    {}, {"momentum": 0.9}, {"weight_decay": 0.1}, {"momentum": 0.5, "weight_decay": 0.1, "correction": FedProx(0.3)},
    {"correction": Scaffold()},
])  # fmt: skip
def test_they_stay_to_the_bit_and_the_engines_agree(frozen, settings):
    how = replace(HOW, **settings)
    fused, fast = changes(NET, DATA, how, frozen)
    text, slow = changes(NET, DATA, replace(how, engine="rows", together=1), frozen)
    whole = all(f"{name.split('.')[0]}.{kind}" in frozen for name in frozen for kind in ("weight", "bias"))
    assert (fused.fused is not None) == whole
    assert text.fused is None
    for one, two in zip(fast, slow, strict=True):
        np.testing.assert_allclose(one, two, atol=3e-6)
        for name, where in NET.slices().items():
            assert one[where].any() == (name not in frozen), name


@pytest.mark.parametrize("frozen", [("dense0.weight", "dense0.bias"), ("dense1.weight", "dense1.bias"), ()])
def test_a_large_first_layer_that_is_kept_implicit(frozen):
    rng = stream(0, "x")
    data = replace(DATA, x=rng.standard_normal((len(DATA.x), 900)).astype(np.float32), x_test=None, y_test=None)
    net = mlp(900, 64, CLASSES)
    fused, fast = changes(net, data, HOW, frozen)
    assert fused.fused.room(8, 3) > 0
    _, slow = changes(net, data, replace(HOW, engine="rows", together=1), frozen)
    for one, two in zip(fast, slow, strict=True):
        np.testing.assert_allclose(one, two, atol=2e-5)
        for name, where in net.slices().items():
            assert one[where].any() == (name not in frozen), name


def test_company_changes_no_bit():
    for frozen in LAYERS[:5]:
        _, together = changes(NET, DATA, HOW, frozen)
        for k in (5, 1):
            assert changes(NET, DATA, HOW, frozen, [DATA.ids[k]])[1][0].tobytes() == together[k].tobytes()


def test_convolutions_and_modules_of_torch():
    images = digits().partition(IID(), 60)
    net = ConvNet(8, 10, widths=(4,), groups=2)
    module = Wrapped(torch.nn.Sequential(torch.nn.Linear(DIM, 4), torch.nn.Tanh(), torch.nn.Linear(4, CLASSES)))
    for model, data, frozen in ((net, images, ("head.weight", "head.bias")), (module, DATA, ("0.weight", "0.bias"))):
        _, moved = changes(model, data, HOW, frozen, data.ids[:2])
        for name, where in model.slices().items():
            assert moved[0][where].any() == (name not in frozen), name
        _, free = changes(model, data, HOW, (), data.ids[:2])
        assert Trainer(HOW, model, data).train([Task(data.ids[0], Server(model.init(stream(0, "init"))))])[0].delta.tobytes() == (
            free[0].tobytes())


def test_a_trainer_of_other_settings_is_made_once_and_shares_what_is_large():
    trainer = Trainer(HOW, NET, DATA)
    one = trainer.like(replace(HOW, lr=0.5), ("dense0.weight", "dense0.bias"))
    assert trainer.like(replace(HOW, lr=0.5), ["dense0.weight", "dense0.bias"]) is one
    assert trainer.like(replace(HOW, lr=0.5)) is not one
    assert one.fused is trainer.fused
    assert one.x.data_ptr() == trainer.x.data_ptr()
    assert trainer.how.lr == HOW.lr
    assert trainer.frozen == ()
