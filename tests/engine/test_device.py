"""Training on another device: the same text with every tensor there. Tried on the CPU, and on a GPU where there is one."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_training import MODELS, federation, handed

from fl_course import (
    DPSGD,
    IID,
    Coordinator,
    CrossEntropy,
    FedDyn,
    FedProx,
    LocalSGD,
    Scaffold,
    Synchronous,
    digits,
    load,
    logistic,
    mlp,
    save,
)
from fl_course.engine import training
from fl_course.engine.training import Trainer
from fl_course.personalisation.twins import Ditto

GPU = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else None
there = pytest.mark.parametrize("device", ["cpu:0", pytest.param(GPU, marks=pytest.mark.skipif(
    GPU is None, reason="no GPU on this machine: that the text runs on another device is seen on the CPU alone"))])
METHODS = {
    "plain": {}, "momentum": {"momentum": 0.9, "weight_decay": 0.01}, "FedProx": {"correction": FedProx(0.1)},
    "DPSGD": {"private": DPSGD(clip=1.0, noise_multiplier=0.5, noise_seed=0)},
    "DPSGD, shuffled": {"private": DPSGD(clip=0.5, noise_multiplier=0.5, noise_seed=0, sampling="shuffle")},
}  # fmt: skip


def changes(model, how, data=None):
    data = federation() if data is None else data
    return np.stack([update.delta for update in Trainer(how, model, data).train(handed(model, data))])


@there
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("method", METHODS)
def test_another_device_agrees_with_the_cpu(name, method, device):
    how = LocalSGD(lr=0.1, epochs=2, batch_size=10, **METHODS[method])
    here, away = changes(MODELS[name], how), changes(MODELS[name], replace(how, device=device))
    assert np.abs(here - away).max() < (1e-3 if "conv" in name else 1e-4)
    assert np.array_equal(away, changes(MODELS[name], replace(how, device=device)))              # and with itself, to the bit


@there
@pytest.mark.parametrize("correction", [Scaffold(), FedDyn(0.1)], ids=repr)
def test_corrections_with_a_memory_agree_over_rounds(correction, device):
    def final(where):
        how = LocalSGD(lr=0.1, epochs=2, batch_size=10, correction=correction, device=where)
        return Coordinator(federation(), logistic(16, 4), how, Synchronous(1.0)).train(4).state.server.params

    assert np.abs(final("cpu") - final(device)).max() < 1e-4


@there
def test_class_weights_are_on_the_device(device):
    model = replace(mlp(16, 8, 4), loss=CrossEntropy(class_weights=(1.0, 2.0, 0.5, 3.0)))
    how = LocalSGD(lr=0.1, batch_size=5)
    assert np.abs(changes(model, how) - changes(model, replace(how, device=device))).max() < 1e-4


@pytest.mark.parametrize("name", ["conv", "wrapped conv", "mlp", "logistic"])
def test_everybody_trains_together_there_in_parts_that_fit(name, monkeypatch):
    data, how = federation(), LocalSGD(lr=0.1, batch_size=5, device="cpu:0")

    def parts():
        return [len(part.tasks) for part in Trainer(how, MODELS[name], data).planner.parts(handed(MODELS[name], data))]

    whole = sum(parts())
    assert len(parts()) <= 3                                         # one a batch width, whatever the model
    needs = 6 * MODELS[name].dim + 30 * 5 * 16
    monkeypatch.setattr(training, "free_numbers", lambda device: 3 * needs)
    assert max(parts()) == 3
    assert sum(parts()) == whole
    monkeypatch.setattr(training, "free_numbers", lambda device: 1)
    assert set(parts()) == {1}


def test_parts_change_nothing_but_last_digits(monkeypatch):
    how = LocalSGD(lr=0.1, epochs=2, batch_size=5, device="cpu:0")
    whole = changes(MODELS["mlp"], how)
    assert np.abs(whole - changes(MODELS["mlp"], replace(how, together=2))).max() < 1e-6


def test_a_checkpoint_may_go_on_elsewhere(tmp_path):
    def run(where):
        return Coordinator(federation(), logistic(16, 4), LocalSGD(lr=0.1, device=where), Synchronous(0.5))

    save(tmp_path / "run.ckpt", run("cpu").train(2).state, run("cpu"))
    went_on = run("cpu:0").train(2, load(tmp_path / "run.ckpt", run("cpu:0")))
    assert np.abs(went_on.state.server.params - run("cpu").train(4).state.server.params).max() < 1e-5


@pytest.mark.parametrize("device", ["cuda:99", "gpu", "", "tpu", None, 0, "CPU"])
def test_a_device_that_is_not_there_is_told_at_once(device):
    with pytest.raises(ValueError, match=r"is not there.*this machine has 'cpu'"):
        LocalSGD(device=device)


def test_what_does_not_go_there_is_refused():
    with pytest.raises(ValueError, match="Ditto trains on the CPU"):
        LocalSGD(personal=Ditto(), device="cpu:0")
    with pytest.raises(ValueError, match="leave threads=2 out"):
        LocalSGD(threads=2, device="cpu:0")


@pytest.mark.skipif(GPU is None, reason="no GPU on this machine")
def test_a_run_on_the_gpu_learns_as_on_the_cpu():
    def final(where):
        data = digits().partition(IID(), clients=20)
        return Coordinator(data, mlp(64, 32, 10), LocalSGD(lr=0.1, epochs=2, device=where), Synchronous(0.5)).train(5)

    here, away = final("cpu"), final(GPU)
    assert abs(here.records[-1].metrics["accuracy"] - away.records[-1].metrics["accuracy"]) < 0.02
    assert here.records[-1].bytes_up == away.records[-1].bytes_up
