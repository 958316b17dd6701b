"""States in files: bit for bit there and back, never torn, never somebody else's, never code."""

import collections
import enum
import json
import os
import pickle
import socket
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small import Half, experiment, federation

from fl_course import (
    DPSGD,
    QSGD,
    Adaptive,
    Buffered,
    CentralDP,
    CheckpointError,
    Clip,
    Coordinator,
    Dirichlet,
    Evaluation,
    FedAdagrad,
    FedAdam,
    FedAvgM,
    FedDyn,
    FedYogi,
    History,
    LocalDP,
    LocalSGD,
    LogNormal,
    PowerSGD,
    Scaffold,
    SecureSum,
    SignSGD,
    Stage,
    Synchronous,
    TopK,
    TreeDP,
    Uniform,
    Wrapped,
    digits,
    load,
    logistic,
    save,
)
from fl_course.federation import checkpoint
from fl_course.wire.messages import frame, unframe

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
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
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


# --- what is saved is what comes back ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Remembers(Stage):
    """Its drawer holds a NumPy scalar, whose type decides in which precision the next update is computed, and a tuple."""

    def client(self, update, ctx):
        factor, seen = ctx.memory.get("factor", np.float64(0.9)), ctx.memory.get("seen", ())
        ctx.memory["factor"], ctx.memory["seen"] = factor * np.float64(0.99), (*seen, update.version)
        return replace(update, delta=update.delta * factor)              # float64, because the factor is NumPy's


def test_a_drawer_with_numpys_scalars_and_tuples_goes_on_bit_for_bit(tmp_path):
    it = experiment(stages=[Remembers()], weights=Uniform(), schedule=Synchronous(1.0))
    first, whole = it.train(3), it.train(6)
    save(tmp_path / "x", first.state, it)
    rest = it.train(3, state=load(tmp_path / "x", it))
    assert same(rest.state, whole.state)
    assert type(rest.state.memory[0]["factor"]) is np.float64


EXACT = [
    np.float32(0.1), np.float64("nan"), np.int64(-3), np.uint8(255), np.bool_(True), (), (1, (2.0, [3, ("x",)])), -0.0, 2**64 - 1,
    float("-inf"), b"", "é", None, True, {}, {"()": 1, "np": 2}, {"a": {"F": (1,), "b": ()}}, np.array(2.5), np.zeros((0, 3)),
    np.asfortranarray(np.arange(6.0).reshape(2, 3)), np.arange(12, dtype=np.int16).reshape(3, 4)[:, ::2], np.ones(3, bool),
]  # fmt: skip


@pytest.mark.parametrize("thing", EXACT, ids=repr)
def test_what_a_drawer_holds_comes_back_in_type_and_to_the_bit(thing, tmp_path):
    it = experiment()
    state = replace(it.initial(), memory={0: {"x": thing}}, server=replace(it.initial().server, state={"x": [thing]}))
    save(tmp_path / "x", state, it)
    back = load(tmp_path / "x", it)
    for there in (back.memory[0]["x"], back.server.state["x"][0]):
        assert repr(there) == repr(thing)
        assert type(there) is type(thing)
        if isinstance(thing, np.ndarray):
            assert same(there, thing)
            assert there.flags.f_contiguous == thing.flags.f_contiguous or thing.base is not None


@pytest.mark.parametrize("change", [{"clock": 0}, {"clock": -0.0}, {"ticket": 1}, {"memory": {0: {}}}, {"jobs": ()}], ids=str)
def test_what_is_read_back_is_compared(saved, change, monkeypatch):
    it, path = saved
    before, state = path.read_bytes(), it.train(2).state if "jobs" in change else it.initial()
    monkeypatch.setattr(checkpoint, "from_plain", lambda plain: replace(state, **change))
    with pytest.raises(CheckpointError, match=f"the state.{next(iter(change))} would not come back"):
        save(path, state, it)
    assert path.read_bytes() == before


class Colour(enum.IntEnum):
    RED = 1


SELF = []
SELF.append(SELF)


@pytest.mark.parametrize("thing", [
    {1: 2.0}, {2: 3}, {"()": [1]}, {"np": 1}, {1, 2}, range(3), Colour.RED, collections.OrderedDict(a=1), 1j, np.complex64(1),
    np.ones(2, ">f8"), np.float16(1), np.array(["a"]), np.array([None]), 2**64, SELF, np.longdouble(1), np.datetime64("2020"),
    np.ma.masked_array([1.0]), collections.namedtuple("Point", "x")(1), torch.zeros(1), object(), "\ud800",
], ids=lambda thing: type(thing).__name__)  # fmt: skip
@pytest.mark.parametrize("where", ["the drawer of client 3", "server's state"])
def test_what_would_come_back_as_something_else_is_refused_by_name(thing, where, tmp_path):
    it = experiment()
    state = it.initial()
    odd = {"fine": 1, "odd": [0, thing]}
    state = replace(state, memory={3: odd}) if "drawer" in where else replace(state, server=replace(state.server, state=odd))
    with pytest.raises(CheckpointError, match="the state cannot be saved") as caught:
        save(tmp_path / "x", state, it)
    assert f"{where}['odd'][1]" in str(caught.value) or thing is SELF or thing == "\ud800"
    assert list(tmp_path.iterdir()) == []


# --- whose file it is -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [
    {"strict": True}, {"evaluation": Evaluation(every=3)},
    {"training": LocalSGD(lr=0.1, epochs=2, batch_size=4, together=2, threads=2)},
])  # fmt: skip
def test_ones_own_file_is_loaded_where_the_difference_does_not_matter(changes, tmp_path):
    it = experiment()
    save(tmp_path / "x", it.train(2).state, it)
    other = experiment(**changes)
    with np.printoptions(precision=2):
        rest = other.train(2, state=load(tmp_path / "x", other))
    assert same(rest.state.server, it.train(4).state.server)


def test_another_function_of_the_same_look_is_refused_and_named(tmp_path):
    def walks(epochs):
        return experiment(training=LocalSGD(lr=0.1, epochs=lambda client, rng: epochs, batch_size=4))

    save(tmp_path / "x", walks(2).train(1).state, walks(2))
    assert load(tmp_path / "x", walks(2)).server.version == 1
    with pytest.raises(CheckpointError, match=r"another experiment:\n  saved: training\.epochs=a function"):
        load(tmp_path / "x", walks(3))


def other_facts(change):
    """The old file with another description, sealed again."""
    folder = Path(__file__).parents[1] / "fixtures" / "before_the_move"
    description, data, packed = unframe((folder / "buffered.ckpt").read_bytes(), "checkpoint")
    return frame("checkpoint", [change(description), data, packed])


@pytest.mark.parametrize(("change", "named"), [
    (lambda text: text.replace("strict=False", "strict=True"), None),
    (lambda text: text.replace("Evaluation(every=1", "Evaluation(every=7"), None),
    (lambda text: text.replace("together=None", "together=4"), None),
    (lambda text: text.replace("strict=False", "newer=Thing(a=1, b='x, (y'), strict=False"), None),
    (lambda text: text.replace("lr=0.1", "lr=0.2", 1), "lr=0.2"),
    (lambda text: text.replace("seed=5", "seed=6"), "seed=6"),
    (lambda text: text.replace("TopK", "RandomK"), "stages="),
    (lambda text: text.replace("Buffered", "Synchronous"), "schedule="),
    (lambda text: "something else", "something else"),
])  # fmt: skip
def test_a_file_of_the_old_format_is_compared_field_by_field(change, named, tmp_path):
    data = digits().partition(Dirichlet(0.5), clients=8, seed=3)
    it = Coordinator(
        data, logistic(64, 10), LocalSGD(lr=0.1, epochs=1, batch_size=16), Buffered(concurrency=4, buffer=2),
        stages=[TopK(0.1)], optimizer=FedAdam(), fleet=LogNormal(speed_spread=0.8), seed=5,
    )  # fmt: skip
    (tmp_path / "x").write_bytes(other_facts(change))
    if named is None:
        assert load(tmp_path / "x", it).server.version == 3
        return
    with pytest.raises(CheckpointError, match="another experiment") as caught:
        load(tmp_path / "x", it)
    assert named in str(caught.value).split("this:")[0]


def test_a_file_of_the_old_format_on_other_data_is_refused(tmp_path):
    data = digits().partition(Dirichlet(0.5), clients=8, seed=3)
    it = Coordinator(
        replace(data, y=(data.y + 1) % 10), logistic(64, 10), LocalSGD(lr=0.1, epochs=1, batch_size=16),
        Buffered(concurrency=4, buffer=2), stages=[TopK(0.1)], optimizer=FedAdam(), fleet=LogNormal(speed_spread=0.8), seed=5,
    )  # fmt: skip
    (tmp_path / "x").write_bytes(other_facts(lambda text: text))
    with pytest.raises(CheckpointError, match="on other data or with another model"):
        load(tmp_path / "x", it)


# --- a file whose fields are right in form and impossible -----------------------------------------------------------------


FORGED = {
    "clock": [float("nan"), -1.0, float("inf"), "0", None, True], "ticket": [-1, 1.0, True, 2**63, None], "sent": [-1, 0.5, "x"],
    ("server", "version"): [-1, 2**63, 1.0, True, None], ("server", "params"): [None, [], np.zeros(3, np.float32), np.zeros(18)],
    ("server", "extras"): [None, [], {"c": 1.0}], ("server", "state"): [None, [], 1],
    "memory": [None, [[99, {}]], [[0, 1]], [[0]]],
    "reports": [[[0, {"loss": "x"}]], [["0", {}]], [[True, {}]], [[[], {}]], 3], "bases": [[], None, [{}]], "other": [1],
    ("jobs", 0, "base"): [-1, 99, True, None], ("jobs", 0, "due"): [float("nan"), "x", None],
    ("jobs", 0, "ticket"): [-1, 10**6, 0.5],
    ("jobs", 0, "client"): [99, [], None], ("jobs", 0, "cohort"): [None, [0], {"()": [99]}, {"()": [[]]}],
    ("jobs", 0, "memory"): [None, []], ("jobs", 0, "lost"): [None, 1], ("jobs", 0, "message"): ["x", 1],
    ("jobs", 0, "sent"): [1, None],
    ("jobs", 0, "begun"): [-1.0, float("inf")], ("bases", 0, "version"): [-1, 50],
    ("bases", 0, "params"): [np.zeros(17, np.float32), np.zeros(18, np.int8)], "server": [None, {}, []],
}  # fmt: skip


@pytest.mark.parametrize("place", FORGED, ids=str)
def test_impossible_values_are_refused_whoever_sealed_them(saved, place):
    it, path = saved
    body = unframe(path.read_bytes(), "checkpoint")
    for value in FORGED[place]:
        copy = pickle.loads(pickle.dumps(body))
        *way, last = ("state", *((place,) if isinstance(place, str) else place))
        target = copy
        for step in way:
            target = target[step]
        target[last] = value
        path.write_bytes(frame("checkpoint", copy))
        with pytest.raises(CheckpointError, match="not a whole checkpoint"):
            load(path, it)
    path.write_bytes(frame("checkpoint", body))
    assert load(path, it).server.version == 2


PARTS = {
    "FedAvgM": {"optimizer": FedAvgM()}, "FedAdam": {"optimizer": FedAdam()}, "FedYogi": {"optimizer": FedYogi()},
    "FedAdagrad": {"optimizer": FedAdagrad()}, "FedDyn": {"training": LocalSGD(lr=0.1, correction=FedDyn(0.1))},
    "SCAFFOLD": {"training": LocalSGD(lr=0.1, correction=Scaffold()), "weights": Uniform()},
    "TopK": {"stages": [TopK(0.3)]}, "rounded residuals": {"stages": [TopK(0.3), QSGD(4)], "optimizer": FedAvgM()},
    "SignSGD": {"stages": [SignSGD()]}, "PowerSGD": {"stages": [PowerSGD(logistic(5, 3), 1)]},
    "CentralDP": {"stages": [CentralDP(1.0, 1.0)], "weights": Uniform(), "optimizer": FedAvgM()},
    "adaptive clipping": {"stages": [CentralDP(1.0, 1.0, adaptive=Adaptive(count_noise=2.0))], "weights": Uniform()},
    "TreeDP": {"stages": [TreeDP(1.0, 1.0, participations=9)], "weights": Uniform(), "optimizer": FedAdam()},
    "a seeded tree": {"stages": [TreeDP(1.0, 1.0, participations=9, noise_seed=1)], "weights": Uniform()},
    "LocalDP": {"stages": [LocalDP(1.0, 1.0)], "weights": Uniform(), "optimizer": FedYogi()},
    "DPSGD": {"training": LocalSGD(lr=0.1, private=DPSGD(1.0, 1.0))},
    "SecureSum": {"stages": [SecureSum(clip=1.0)], "weights": Uniform(), "optimizer": FedAvgM()},
    "buffered": {"schedule": Buffered(4, 2), "fleet": LogNormal(jitter=1.0, up_mbit=0.01), "stages": [TopK(0.3)]},
    "buffered in private": {"schedule": Buffered(4, 2), "fleet": LogNormal(jitter=1.0, up_mbit=0.01, drop=0.2),
                            "stages": [LocalDP(1.0, 1.0)], "weights": Uniform()},
}  # fmt: skip


@pytest.mark.parametrize("name", PARTS)
def test_what_a_part_of_the_library_keeps_is_never_refused(name, tmp_path):
    it = experiment(**PARTS[name])
    for state, _ in it.run(7):
        save(tmp_path / "x.ckpt", state, it)
        assert same(load(tmp_path / "x.ckpt", it), state)


WRONG = [np.ones(1, np.float32), np.ones(0, np.float32), "x", None, 3.0, [1.0]]


def vectors_of(state):
    """The arrays of a plain state as long as its model, and where they are."""
    def walk(value, way):
        if isinstance(value, np.ndarray) and value.shape == state["server"]["params"].shape:
            yield way
        for key, part in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
            yield from walk(part, (*way, key))

    return list(walk(state, ()))


@pytest.mark.parametrize("name", PARTS)
def test_no_vector_of_another_shape_type_or_without_a_value_is_taken(name, tmp_path):
    """One number would spread over the whole model, and nobody would hear of it."""
    it, path = experiment(**PARTS[name]), tmp_path / "x.ckpt"
    save(path, it.train(3).state, it)
    body = unframe(path.read_bytes(), "checkpoint")
    for way in vectors_of(body["state"]):
        settled = way[0] != "jobs"                                      # what is still under way may be refused on arrival
        dim = it.model.dim
        for value in [*WRONG, np.zeros(dim), np.zeros((1, dim), np.float32), *([np.full(dim, np.nan, np.float32)] * settled)]:
            refused(path, it, body, way, value)


def refused(path, it, body, way, value):
    copy = pickle.loads(pickle.dumps(body))
    target = copy["state"]
    for step in way[:-1]:
        target = target[step]
    target[way[-1]] = value
    path.write_bytes(frame("checkpoint", copy))
    with pytest.raises(CheckpointError, match="not a whole checkpoint"):
        load(path, it)


NAN, BOOKS = float("nan"), ("memory", 0, 1, "books")
LEDGER, TREE = ("server", "state", "ledger"), ("server", "state", "tree")
UNTRUE = [
    ("CentralDP", LEDGER, [{}, "x", 3]), ("CentralDP", (*LEDGER, "events"), [[], "x", None, [[1, 2]], [["x"]], {}]),
    ("CentralDP", (*LEDGER, "events", 0, 1), [0, -1, 0.5, True, "3"]),
    ("CentralDP", (*LEDGER, "complete"), [-1, 99, "3", None, 3.0]),
    ("CentralDP", (*LEDGER, "longest"), [-5.0, NAN, float("inf"), "a", None, True]),
    ("adaptive clipping", ("server", "extras", "clip"),
     [np.array(v, np.float32) for v in ([-1.0], [0.0], [], [NAN], [float("inf")], [1.0, 1.0], 1.0)]),
    ("TreeDP", TREE, ["x", {}, [1]]), ("TreeDP", (*TREE, "keys"), [[], "x", ["a", "b"], [b"a", b"b"], [bytes(32)] * 3]),
    ("TreeDP", (*TREE, "steps"), [2**40, 0, -1, 2, 1.0, None]), ("TreeDP", (*TREE, "began"), [2**40, -1, None, 0.5]),
    ("TreeDP", (*TREE, "settings"), [None, [], [1.0]]), ("a seeded tree", (*TREE, "steps"), [1, 2, 4]),
    ("TreeDP", (*BOOKS, "tree participations"), [-1, "x", None, 1.0]),
    ("LocalDP", BOOKS, ["x", [], 1]), ("LocalDP", (*BOOKS, "sent"), ["x", -5, None, 0.5]),
    ("LocalDP", (*BOOKS, "messages"), ["x", {}, 1]), ("LocalDP", (*BOOKS, "messages", "events"), [[], None]),
    ("LocalDP", (*BOOKS, "messages", "events", 0, 1), [0, -1, 0.5]),
    ("DPSGD", (*BOOKS, "examples", "complete"), [99, -1, None]),
    ("LocalDP", ("server", "state", "local epsilon"), ["x", NAN, -1.0, None]),
    ("LocalDP", ("server", "state", "local version"), ["x", 99, -1, None]),
    ("a seeded tree", ("server", "state", "known seed"), [1, "x", None]), ("FedAvgM", (*BOOKS, "sent"), ["x", -5]),
    ("buffered", ("jobs", 0, "begun"), [1e9]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "way", "values"), UNTRUE, ids=[f"{name}: {way[-1]}" for name, way, _ in UNTRUE])
def test_books_that_cannot_be_true_are_refused_at_once(name, way, values, tmp_path):
    it, path = experiment(**PARTS[name]), tmp_path / "x.ckpt"
    save(path, it.train(3).state, it)
    body = unframe(path.read_bytes(), "checkpoint")
    for value in values:
        refused(path, it, body, way, value)


def test_what_a_part_of_ones_own_keeps_under_the_same_name_is_its_own(tmp_path):
    it = experiment(stages=[Keeper()])
    state = it.train(2).state
    save(tmp_path / "x.ckpt", state, it)
    assert same(load(tmp_path / "x.ckpt", it), state)


@dataclass(frozen=True)
class Keeper(Stage):
    def server(self, aggregate, ctx):
        ctx.state.update(m=np.ones(1), ledger="mine", tree=[1])
        return aggregate


def test_a_client_is_at_work_once_and_has_sent_something(saved):
    it, path = saved
    body = unframe(path.read_bytes(), "checkpoint")
    refused(path, it, body, ("jobs", 0, "client"), body["state"]["jobs"][1]["client"])
    refused(path, it, body, ("jobs", 0), {**body["state"]["jobs"][0], "sent": True, "message": None})


def test_two_jobs_with_one_ticket_are_refused(saved):
    it, path = saved
    body = unframe(path.read_bytes(), "checkpoint")
    jobs = body["state"]["jobs"]
    jobs[0]["ticket"] = jobs[1]["ticket"]
    path.write_bytes(frame("checkpoint", body))
    with pytest.raises(CheckpointError, match="two jobs have one ticket"):
        load(path, it)


@pytest.mark.parametrize("change", [
    {"format": 1}, {"format": 3}, {"format": None}, {"facts": None}, {"facts": {"a": 1}}, {"state": []},
])  # fmt: skip
def test_a_frame_without_its_parts_is_refused(saved, change):
    it, path = saved
    path.write_bytes(frame("checkpoint", unframe(path.read_bytes(), "checkpoint") | change))
    with pytest.raises(CheckpointError, match="not a whole checkpoint"):
        load(path, it)


# --- where it is written ---------------------------------------------------------------------------------------------------


def test_a_link_is_written_through(saved):
    it, path = saved
    link, chain, dangling = (path.parent / name for name in ("link", "chain", "dangling"))
    link.symlink_to(path)
    chain.symlink_to(link)
    state = it.train(3).state
    save(chain, state, it)
    assert chain.is_symlink()
    assert link.is_symlink()
    assert not path.is_symlink()
    assert same(load(path, it), state)
    dangling.symlink_to(path.parent / "new")
    save(dangling, state, it)
    assert dangling.is_symlink()
    assert same(load(path.parent / "new", it), state)
    assert sorted(p.name for p in path.parent.iterdir()) == ["chain", "dangling", "link", "new", "run.ckpt"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has other devices")
def test_what_is_no_file_is_neither_replaced_nor_read(saved, tmp_path):
    it, state = saved[0], saved[0].initial()
    pipe, folder, link, loop = (tmp_path / name for name in ("pipe", "folder", "link", "loop"))
    os.mkfifo(pipe)
    folder.mkdir()
    link.symlink_to("/dev/null")
    loop.symlink_to(loop)
    here = socket.socket(socket.AF_UNIX)
    here.bind(str(tmp_path / "socket"))
    for path, word in [("/dev/null", "a device"), (link, "a device"), (pipe, "a pipe"), (folder, "a folder"),
                       (tmp_path / "socket", "a socket"), (loop, "no way to a file")]:  # fmt: skip
        before = os.lstat(path)
        with pytest.raises(CheckpointError, match=f"is {word}.*give the name of a file"):
            save(path, state, it)
        with pytest.raises(CheckpointError, match=f"cannot be read: it is {word}"):
            load(path, it)
        assert os.lstat(path).st_ino == before.st_ino
    here.close()


# --- what people hand in ---------------------------------------------------------------------------------------------------


def test_a_history_is_saved_by_its_state(saved):
    it, path = saved
    history = it.train(3)
    save(path, history, it)
    assert same(load(path, it), history.state)


def test_what_holds_no_state_is_refused_with_what_to_pass(saved, tmp_path):
    it, path = saved
    history = it.train(1)
    history.to_json(tmp_path / "h.json")
    without = History.from_json(tmp_path / "h.json")
    with pytest.raises(CheckpointError, match="this history has no state"):
        save(path, without, it)
    with pytest.raises(CheckpointError, match="this history has no state"):
        save(path, without.state, it)
    for thing in (None, {}, it, "x"):
        with pytest.raises(TypeError, match="State"):
            save(path, thing, it)
    for thing in (None, history, history.state):
        with pytest.raises(TypeError, match="experiment must be the Coordinator"):
            save(path, history.state, thing)
        with pytest.raises(TypeError, match="experiment must be the Coordinator"):
            load(path, thing)
    with pytest.raises(CheckpointError, match="looks like a history"):
        load(tmp_path / "h.json", it)
    assert load(path, it).server.version == 2


def test_a_part_that_lies_very_deep_is_found_again(tmp_path):
    """Its path is longer than what a sentence shows of it, and the file's is compared whole."""
    module = torch.nn.Linear(5, 3)
    for _ in range(6):
        module = torch.nn.Sequential(collections.OrderedDict([("a_part_with_a_name_of_some_forty_letters", module)]))
    it = replace(experiment(), model=Wrapped(module))
    save(tmp_path / "x", it.train(1).state, it)
    assert load(tmp_path / "x", it).server.version == 1
