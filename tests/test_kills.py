"""A run that is killed, wherever, and goes on from its last file ends as if nobody had killed it: to the bit.

A child process trains, writes down each record, and saves. The parent kills it at random moments (SIGKILL, which no program can
catch; TerminateProcess on Windows), again and again, starts another, and lets the last one finish. What was written down of a
round that was done twice must be the same twice: a killed run repeats itself, it does not branch. The noise has a known seed
here; secret noise is another one each time, and only its books can be compared.
"""

import json
import multiprocessing
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small import experiment, federation

from fl_course import (
    ALIE,
    Adaptive,
    CentralDP,
    CentredClipping,
    DistributedNoise,
    FedAdam,
    FedRep,
    LocalDP,
    LocalSGD,
    LogNormal,
    Oort,
    PoissonSelection,
    Scaffold,
    SecureSum,
    SemiSynchronous,
    Split,
    TopK,
    TreeDP,
    Uniform,
    fedbuff,
    load,
    mlp,
    save,
    stream,
)
from fl_course.federation.archive import difference
from fl_course.federation.telemetry import json_line
from fl_course.privacy.accounting import RDP, Ledger

ROUNDS, KILLS, PATIENCE = 40, 3, 120.0
PRICED, SGD = {"accountant": RDP()}, LocalSGD(lr=0.1, epochs=2, batch_size=4)
FLEET = LogNormal(speed_spread=1.0, jitter=0.3, drop=0.1)
EXPERIMENTS = {
    "a ledger": {"weights": Uniform(), "selection": PoissonSelection(), "stages": [CentralDP(0.1, 1.0, noise_seed=3, **PRICED)]},
    "buffers and jobs in flight": {"fleet": FLEET, **fedbuff(4, 2, max_staleness=5)},
    "late answers": {"fleet": FLEET, "schedule": SemiSynchronous(0.7, deadline=0.1), "stages": [TopK(0.3)]},
    "residuals": {"stages": [TopK(0.2)], "optimizer": FedAdam(0.01)},
    "controls": {"training": replace(SGD, correction=Scaffold()), "weights": Uniform()},
    "personal layers": {"model": Split(mlp(5, 4, 3), "dense1"), "training": replace(SGD, personal=FedRep(1))},
    "an adaptive clip": {"weights": Uniform(), "optimizer": FedAdam(0.01), "stages": [
        CentralDP(0.1, 1.0, adaptive=Adaptive(count_noise=1.0), noise_seed=3, **PRICED)]},
    "a tree": {"weights": Uniform(), "stages": [TreeDP(0.1, 1.0, participations=ROUNDS, noise_seed=3, **PRICED)]},
    "the clients' books": {"weights": Uniform(), "fleet": FLEET, "stages": [LocalDP(0.5, 1.0, noise_seed=3, **PRICED)]},
    "noise of many": {"weights": Uniform(), "stages": [
        SecureSum(0.5, masked=False, noise=DistributedNoise(0.1, 0.5, noise_seed=1, **PRICED))]},
    "reports": {"selection": Oort(), "fleet": FLEET},
    "a centre": {"aggregation": CentredClipping(0.1), "attack": ALIE([1])},
}  # fmt: skip
SECRET = {"weights": Uniform(), "selection": PoissonSelection(), "stages": [CentralDP(0.1, 1.0, **PRICED)]}


def made(name):
    parts = dict(SECRET if name == "secret noise" else EXPERIMENTS[name])
    model = parts.pop("model", None)
    if model is None:
        return experiment(federation((4, 6, 5, 8, 4, 7)), **parts)
    plain = experiment(federation((4, 6, 5, 8, 4, 7)))
    return replace(plain, model=model, **parts)


def work(name, folder, planted=""):
    """The child: go on from the file, if there is one; write down and save after every round."""
    folder = Path(folder)
    it, file = made(name), folder / "run.ckpt"
    state = load(file, it) if file.exists() else it.initial()
    if planted:
        where, calls, original = planted, [], getattr(os, planted)

        def die(*arguments):
            calls.append(arguments)
            if len(calls) == 3:
                os.kill(os.getpid(), getattr(signal, "SIGKILL", 9))
            return original(*arguments)

        setattr(os, where, die)
    with (folder / "records.jsonl").open("a", encoding="utf-8") as log:
        log.write("\n")                                             # the one before may have been killed within a line
        for now, record in it.run(ROUNDS - state.server.version, state):
            print(json_line(record), file=log, flush=True)
            save(file, now, it)


CONTEXT = multiprocessing.get_context("forkserver" if hasattr(os, "fork") else "spawn")
if hasattr(os, "fork"):
    CONTEXT.set_forkserver_preload(["fl_course", "test_kills"])     # it imports torch once, and each child is a fork of it


def child(*arguments):
    process = CONTEXT.Process(target=work, args=arguments, daemon=True)
    process.start()
    return process


def size(file):
    return file.stat().st_size if file.exists() else 0


def killed(name, folder, after):
    """Start a child, wait for its next record, and some seconds more; kill it. Whether it was still at work."""
    log = folder / "records.jsonl"
    before, process, patience = size(log) + 1, child(name, str(folder)), time.monotonic() + PATIENCE
    while process.is_alive() and size(log) <= before and time.monotonic() < patience:
        time.sleep(0.002)
    time.sleep(after)
    process.kill()
    process.join(PATIENCE)
    assert process.exitcode in (0, -9, 1), process.exitcode
    return process.exitcode != 0


def finished(name, folder):
    process = child(name, str(folder))
    process.join(PATIENCE)
    assert process.exitcode == 0
    it = made(name)
    return it, load(folder / "run.ckpt", it)


def written(folder):
    """version -> the lines that were written down of it, whole ones only."""
    lines = {}
    for line in (folder / "records.jsonl").read_text(encoding="utf-8").splitlines():
        try:
            lines.setdefault(json.loads(line)["version"], set()).add(line)
        except ValueError:
            continue
    return lines


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_killed_at_random_moments_it_ends_as_if_nobody_had(name, tmp_path):
    rng, kills = stream(0, "kills", name), 0
    for _ in range(3 * KILLS):
        kills += killed(name, tmp_path, float(rng.uniform(0, 0.06)))
        if kills == KILLS:
            break
    assert kills >= KILLS - 1                                       # it may have been done before the last one
    it, state = finished(name, tmp_path)
    whole = it.train(ROUNDS)
    assert difference(state, whole.state) == ""
    assert written(tmp_path) == {record.version: {json_line(record)} for record in whole.records}
    kept, there = state.server.state.get("ledger"), whole.state.server.state.get("ledger")
    assert kept == there
    if kept is not None:
        assert kept["complete"] == ROUNDS
        assert Ledger.from_plain(kept).spent() == whole.last("epsilon")


@pytest.mark.slow
@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_killed_while_it_saves_the_file_before_is_there(step, tmp_path):
    """Between writing and flushing, and between flushing and renaming: in the third save."""
    name = "buffers and jobs in flight"
    process = child(name, str(tmp_path), step)
    process.join(PATIENCE)
    assert process.exitcode in (-9, 9)
    it = made(name)
    assert load(tmp_path / "run.ckpt", it).server.version == 2
    assert len(list(tmp_path.glob("*.part"))) == 1
    _, state = finished(name, tmp_path)
    assert difference(state, it.train(ROUNDS).state) == ""


@pytest.mark.slow
def test_secret_noise_is_drawn_again_and_the_books_are_whole(tmp_path):
    rng = stream(0, "kills", "secret")
    kills = sum(killed("secret noise", tmp_path, float(rng.uniform(0, 0.06))) for _ in range(KILLS))
    assert kills
    it, state = finished("secret noise", tmp_path)
    whole = it.train(ROUNDS)
    ledger = Ledger.from_plain(state.server.state["ledger"])
    assert ledger.spent() == whole.last("epsilon")
    assert [count for _, count in ledger.events] == [ROUNDS]
    assert not np.array_equal(state.server.params, whole.state.server.params)
    for record in whole.records:
        for line in written(tmp_path)[record.version]:
            again = json.loads(line)
            assert tuple(again["clients"]) == record.clients
            assert again["metrics"]["epsilon"] == record.metrics["epsilon"]
