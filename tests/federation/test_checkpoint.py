"""States in files: bit for bit there and back, never torn, never somebody else's, never code."""

import json
import os
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small import Half, experiment, federation

from fl_course import (
    Buffered,
    CheckpointError,
    Clip,
    Coordinator,
    Dirichlet,
    FedAdam,
    FedAvgM,
    LocalSGD,
    LogNormal,
    Scaffold,
    Synchronous,
    TopK,
    Uniform,
    Wrapped,
    digits,
    load,
    logistic,
    save,
)
from fl_course.wire.messages import frame

EXPERIMENTS = {
    "synchronous with server moments": {"optimizer": FedAdam(lr=0.05)},
    "over-selection, drop-outs, residuals": {
        "schedule": Synchronous(0.5, over_selection=0.5), "fleet": LogNormal(drop=0.2), "weights": Uniform(), "stages": [Half()],
    },
    "buffered with jobs in flight": {
        "schedule": Buffered(4, 2, max_staleness=3), "fleet": LogNormal(speed_spread=1.0, jitter=0.2, drop=0.1),
        "optimizer": FedAvgM(lr=0.5), "weights": Uniform(), "stages": [Half()],
    },
    "control variates": {"training": LocalSGD(lr=0.1, epochs=1, batch_size=4, correction=Scaffold()), "weights": Uniform()},
    "epochs by a function": {"training": LocalSGD(lr=0.1, epochs=lambda client, rng: int(rng.integers(1, 4)), batch_size=4)},
}  # fmt: skip
BUFFERED = EXPERIMENTS["buffered with jobs in flight"]


def same(a, b) -> bool:
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())
    if hasattr(a, "__dataclass_fields__"):
        return type(a) is type(b) and all(same(getattr(a, name), getattr(b, name)) for name in a.__dataclass_fields__)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, tuple | list):
        return len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


@pytest.mark.parametrize("parts", EXPERIMENTS.values(), ids=EXPERIMENTS)
def test_three_rounds_a_file_and_three_rounds_are_six_rounds_to_the_bit(parts, tmp_path):
    it = experiment(federation(ids=[3, "b", 11, "ward 7", 0, "z"]), **parts)
    whole, first = it.train(6), it.train(3)
    save(tmp_path / "half.ckpt", first.state, it)
    again = experiment(federation(ids=[3, "b", 11, "ward 7", 0, "z"]), **parts)        # another object, the same experiment
    rest = again.train(3, state=load(tmp_path / "half.ckpt", again))
    assert first.records + rest.records == whole.records
    assert same(rest.state, whole.state)


@pytest.mark.parametrize("parts", EXPERIMENTS.values(), ids=EXPERIMENTS)
def test_what_is_saved_is_loaded(parts, tmp_path):
    it = experiment(**parts)
    for state, _ in it.run(4):
        save(tmp_path / "x.ckpt", state, it)
        assert same(load(tmp_path / "x.ckpt", it), state)
    save(tmp_path / "x.ckpt", it.initial(), it)
    assert same(load(tmp_path / "x.ckpt", it), it.initial())


def test_jobs_in_flight_share_their_model_in_the_file(tmp_path):
    it = experiment(**BUFFERED)
    state = it.train(3).state
    assert len(state.jobs) >= 2
    save(tmp_path / "x.ckpt", state, it)
    back = load(tmp_path / "x.ckpt", it)
    assert len({id(job.base) for job in back.jobs}) == len({id(job.base) for job in state.jobs})


# --- what is refused -----------------------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path):
    it = experiment(**BUFFERED)
    save(tmp_path / "run.ckpt", it.train(2).state, it)
    return it, tmp_path / "run.ckpt"


def test_every_truncation_is_refused(saved):
    it, path = saved
    whole = path.read_bytes()
    for cut in [*range(0, len(whole), 97), len(whole) - 1]:
        path.write_bytes(whole[:cut])
        with pytest.raises(CheckpointError, match=r"run\.ckpt is not a whole checkpoint"):
            load(path, it)


def test_every_flipped_bit_is_refused(saved):
    it, path = saved
    whole = path.read_bytes()
    for place in range(0, len(whole), 61):
        altered = bytearray(whole)
        altered[place] ^= 1 << place % 8
        path.write_bytes(altered)
        with pytest.raises(CheckpointError):
            load(path, it)


@pytest.mark.parametrize(
    "content",
    [
        b"", b"not a checkpoint", frame("update", [1]), frame("checkpoint", None), frame("checkpoint", ["x", b"", {}]),
        frame("checkpoint", ["x", b"", {"bases": [], "jobs": [[1]], "memory": [], "reports": []}]),
        frame("checkpoint", ["x", b"", {"bases": [], "jobs": [[0.0, 0, 0, [], 5, {}, 0.0, "", None, False]]}]),
        json.dumps({"version": 3}).encode(),
    ],
)  # fmt: skip
def test_foreign_files_are_refused(content, tmp_path):
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(CheckpointError, match="not a whole checkpoint"):
        load(tmp_path / "x", experiment())


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    for path in (tmp_path / "nothing", tmp_path):
        with pytest.raises(CheckpointError, match="cannot be read"):
            load(path, experiment())


def touch(path):
    Path(path).touch()


class Bomb:
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (touch, (self.path,))


def test_pickles_are_never_executed(tmp_path):
    mark, it = tmp_path / "executed", experiment()
    (tmp_path / "a").write_bytes(pickle.dumps(Bomb(mark)))
    torch.save(Bomb(mark), tmp_path / "b")
    np.save(tmp_path / "c.npy", np.array([Bomb(mark)], dtype=object), allow_pickle=True)
    for name in ("a", "b", "c.npy"):
        with pytest.raises(CheckpointError):
            load(tmp_path / name, it)
    assert not mark.exists()
    pickle.loads((tmp_path / "a").read_bytes())
    assert mark.exists()                                                 # the bomb was live


def other_module(width: int) -> Wrapped:
    return Wrapped(torch.nn.Sequential(torch.nn.Linear(5, width), torch.nn.ReLU(), torch.nn.Linear(width, 3)))


def test_another_experiments_file_is_refused_and_the_difference_named(tmp_path):
    it = experiment(weights=Uniform())
    save(tmp_path / "x", it.train(1).state, it)
    for changes, named in [
        ({"seed": 1}, "seed=1"), ({"schedule": Synchronous(1 / 3)}, "fraction=0.33"), ({"optimizer": FedAdam()}, "FedAdam"),
        ({"stages": [Clip(1.0)]}, "Clip"), ({"data": federation(seed=1)}, "seed 1"), ({"training": LocalSGD(lr=0.2)}, "lr=0.2"),
    ]:  # fmt: skip
        with pytest.raises(CheckpointError, match="another experiment") as caught:
            load(tmp_path / "x", experiment(**({"weights": Uniform()} | changes)))
        assert named in str(caught.value).split("this:")[1]
        assert len(str(caught.value)) < 500 + len(str(tmp_path))


def test_data_and_models_with_one_description_are_told_apart(tmp_path):
    data = federation()
    it = experiment(data)
    save(tmp_path / "x", it.initial(), it)
    changed = data.x.copy()
    changed[3, 0] += 1e-3
    swapped = (data.train[1], data.train[0], *data.train[2:])
    for other in (replace(data, x=changed), replace(data, train=swapped), replace(data, y=(data.y + 1) % 3),
                  replace(data, x_test=data.x_test + 1)):  # fmt: skip
        assert repr(other) == repr(data)
        with pytest.raises(CheckpointError, match="other data or with another model"):
            load(tmp_path / "x", experiment(other))
    small, large = (replace(it, model=other_module(width)) for width in (2, 3))
    save(tmp_path / "y", small.initial(), small)
    with pytest.raises(CheckpointError, match="another model"):
        load(tmp_path / "y", large)


# --- a crash while saving ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["fsync", "replace", "fdopen"])
def test_a_save_that_fails_midway_leaves_the_previous_file(saved, monkeypatch, step):
    it, path = saved
    before, state = path.read_bytes(), it.train(3).state

    def fail(*args, **kwargs):
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, step, fail)
        with pytest.raises(OSError, match="no space left"):
            save(path, state, it)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["run.ckpt"]
    save(path, state, it)
    assert same(load(path, it), state)


def test_the_file_is_on_disk_before_it_gets_its_name(saved, monkeypatch):
    it, path = saved
    order = []
    fsync, rename = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (order.append("fsync"), fsync(handle)))
    monkeypatch.setattr(os, "replace", lambda a, b: (order.append("replace"), rename(a, b)))
    save(path, it.initial(), it)
    assert order == ["fsync", "replace"]


@pytest.mark.parametrize("thing", [{1: 2.0}, {"f": lambda: 0}, {"big": 2**70}, {"names": np.array(["a"])}])
def test_a_drawer_that_would_not_come_back_is_refused_before_the_old_file_is_gone(saved, thing):
    it, path = saved
    before = path.read_bytes()
    state = replace(it.initial(), memory={0: {"drawer": thing}})
    with pytest.raises(CheckpointError, match="the state cannot be saved"):
        save(path, state, it)
    assert path.read_bytes() == before


@pytest.mark.skipif(os.name == "nt", reason="Windows has no permission bits")
def test_only_the_owner_may_read_what_may_be_secret(saved):
    assert saved[1].stat().st_mode & 0o077 == 0


def test_a_checkpoint_written_before_the_rooms_still_loads_and_goes_on():
    """Written by the flat package of 36 files: clients at work, residuals in drawers, moments of FedAdam."""
    data = digits().partition(Dirichlet(0.5), clients=8, seed=3)
    old = Coordinator(
        data, logistic(64, 10), LocalSGD(lr=0.1, epochs=1, batch_size=16), Buffered(concurrency=4, buffer=2),
        stages=[TopK(0.1)], optimizer=FedAdam(), fleet=LogNormal(speed_spread=0.8), seed=5,
    )  # fmt: skip
    folder = Path(__file__).parents[1] / "fixtures" / "before_the_move"
    state = load(folder / "buffered.ckpt", old)
    assert state.server.version == 3
    assert len(state.jobs) == 3
    later = old.train(rounds=2, state=state).state.server.params
    np.testing.assert_allclose(later, np.load(folder / "two_rounds_later.npy"), rtol=0, atol=1e-5)
