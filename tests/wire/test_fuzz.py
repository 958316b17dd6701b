"""Hostile bytes with a right checksum: accepted, or refused with WireError or CheckpointError, in little memory."""

import collections
import struct
import time
import tracemalloc

import msgpack
import numpy as np
import pytest
from small import UNIFORM, Half, experiment, federation
from wire_hostile import replaced, scrambled, seal

from fl_course import Buffered, CheckpointError, FedAdam, LogNormal, load, save, stream
from fl_course.compression.quantisation import quantise
from fl_course.core import Server, Update
from fl_course.federation.aggregation import add_up
from fl_course.wire.frames import ARRAY, WireError, frame, unframe
from fl_course.wire.layer_payloads import LowRank, Submodel
from fl_course.wire.lengths import count_objects
from fl_course.wire.masked import Masked
from fl_course.wire.messages import check_update, decode_model, decode_update, encode_model, encode_update
from fl_course.wire.payloads import Quantised, Sparse, drawn

D, F, MB = 18, np.float32, 1 << 20
RNG = stream(0, "fuzz")
X = RNG.standard_normal(D).astype(F)
PAYLOADS = {
    "array": X,
    "sparse": Sparse(D, np.array([1, 4, 17]), X[:3]),
    "sparse by key": Sparse(D, drawn(5, D, 4), X[:4], 5),
    "sparse, quantised": Sparse(D, np.array([0, 9]), quantise(X[:2], 15, None, RNG)),
    "quantised": quantise(X, 255, 4, RNG),
    "ternary": quantise(X, 3, None, RNG),
    "signs": quantise(X, 2, None, RNG),
    "lowrank": LowRank(((X[:4].reshape(4, 1), X[:3].reshape(3, 1)), X[:6])),
    "submodel": Submodel.cut((2, 3, 2), [np.array([True, False, True])], X[:17]),
    "masked": Masked(np.arange(D + 1, dtype=np.uint32), 32, b"r" * 16),
}
METRICS = {"examples": 8.0, "loss_last": 0.5}
UPDATES = {name: Update(3, 1, payload, 2.0, {"control": X}, METRICS) for name, payload in PAYLOADS.items()}


def judge_update(message, like):
    """As the server does, then added up: what is accepted must be finite."""
    update = decode_update(message, like)
    check_update(update, 3, Server(np.zeros(like.delta.size, F), 1), like)
    if not isinstance(update.delta, Masked):
        with np.errstate(over="raise"):
            mean = add_up([update.delta, np.zeros(like.delta.size)]) / max(update.weight, 1)
        assert np.isfinite(mean.astype(F)).all()
    assert np.isfinite([*update.metrics.values(), update.weight]).all() or update.metrics.get("epsilon") == np.inf


def judge_blindly(message):
    """By somebody who does not know what to expect, such as a notebook that looks at a message."""
    update = decode_update(message)
    assert isinstance(update.delta, np.ndarray) or update.delta.size >= 0


def judge_model(message, size):
    server = decode_model(message, size)
    assert server.params.dtype == F
    assert server.params.ndim == 1
    assert size in (None, server.params.size)
    assert server.version >= 0


def judge_file(content, path, it):
    path.write_bytes(content)
    state = load(path, it)
    assert state.server.params.shape == (it.model.dim,)
    save(path, state, it)                                                # whatever is loaded is a state like any other


def outcome(judge, *arguments):
    """"accepted" or the name of the refusal; anything else is an error of the test. Under 256 MB."""
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    try:
        judge(*arguments)
        found = "accepted"
    except (WireError, CheckpointError) as refusal:
        found = type(refusal).__name__ if len(str(refusal)) < 2000 else "a sermon"
    assert tracemalloc.get_traced_memory()[1] - before < 256 * MB
    return found


@pytest.fixture
def traced():
    tracemalloc.start()
    yield
    tracemalloc.stop()


@pytest.fixture
def saved(tmp_path):
    it = experiment(
        federation(), schedule=Buffered(4, 2), fleet=LogNormal(speed_spread=1.0), optimizer=FedAdam(), weights=UNIFORM,
        stages=[Half()],
    )  # fmt: skip
    path = tmp_path / "x.ckpt"
    save(path, it.train(3).state, it)
    return it, path, path.read_bytes()


def fuzz(seed, saved, counts):
    """One message, mutated: of the wire or a file."""
    it, path, content = saved
    rng = stream(seed, "a hostile message")
    kind = ("update", "blind", "model", "blind model", "file")[rng.integers(5)]
    name = list(PAYLOADS)[rng.integers(len(PAYLOADS))]
    if "model" in kind:
        whole, word = encode_model(Server(PAYLOADS[name], 1, {"c": X})), "model"
    elif kind == "file":
        whole, word = content, "checkpoint"
    else:
        whole, word = encode_update(UPDATES[name]), "update"
    mutated = replaced(whole, word, rng) if rng.random() < 0.6 else scrambled(whole, rng)
    judge = {
        "update": (judge_update, mutated, UPDATES[name]), "blind": (judge_blindly, mutated),
        "file": (judge_file, mutated, path, it),
        "model": (judge_model, mutated, PAYLOADS[name].size), "blind model": (judge_model, mutated, None),
    }[kind]  # fmt: skip
    counts[kind, outcome(*judge)] += 1


def test_some_hundred_hostile_messages(traced, saved):
    counts = collections.Counter()
    for seed in range(700):
        fuzz(seed, saved, counts)
    for kind in ("update", "blind", "model", "blind model", "file"):
        refused = counts[kind, "CheckpointError" if kind == "file" else "WireError"]
        assert refused > 20
        assert kind == "file" or counts[kind, "accepted"] > 0            # the mutations are not all hopeless


@pytest.mark.slow
def test_a_minute_of_hostile_messages(traced, saved):
    counts, end, seed = collections.Counter(), time.monotonic() + 60, 1_000_000
    while time.monotonic() < end:
        fuzz(seed, saved, counts)
        seed += 1
    assert counts.total() > 2000


# --- the corpus: one message of each kind that once took gigabytes, another exception, or was believed -------------------


def update_of(payload, weight=1.0, extras=None, metrics=None):
    return frame("update", [3, 1, payload, weight, extras or {}, metrics or {}])


def nested(head, depth):
    """Lists in lists, each of which announces as many entries as the message has bytes."""
    return seal(b"\x92\xa6update" + (head + struct.pack(">I", 5 * depth)) * depth)


EMPTY = np.zeros((2**30, 0), F)
CORPUS = {
    "54 bytes that stand for 3 GB": frame("model", [0, ["lowrank", [EMPTY, np.zeros((1, 0), F)]], {}]),
    "a product of shapes": frame("model", [0, ["lowrank", [EMPTY, EMPTY]], {}]),
    "a network of two layers": frame("model", [0, ["submodel", [2**40, 2**40], b"", b""], {}]),
    "layers that overflow": frame("model", [0, ["submodel", [1, 2**62, 2**62, 2**62, 2**62, 1], b"", b""], {}]),
    "a long sparse model": frame("model", [0, ["sparse", 2**40, 2, 7, b""], {}]),
    "positions drawn from a huge vector": update_of(
        ["sparse", 2**33, 2, 7, ["quantised", 2**26, 2, 2**26, b"\0" * 4, bytes(2**23)]]
    ),
    "positions longer than a bitmap": update_of(["sparse", D, 1, b"\0" + b"\xff" * 4_000_000, b"\0" * 72]),
    "blocks of 2^62": update_of(["quantised", 2, 3, 2**62, b"\0\0\x80\x3f", b"\0"]),
    "lists in lists": nested(b"\xdd", 1000),
    "dictionaries in lists": nested(b"\xdf", 1000),
    "a heap empty lists": update_of([[]] * 300_000),
    "a heap metrics": update_of(X, metrics={str(i): 0.0 for i in range(100_000)}),
    "a model of truth values": frame("model", [0, np.ones(D, bool), {}]),
    "a model of bytes": frame("model", [0, np.ones(D, np.int8), {}]),
    "a model in float64": frame("model", [0, np.ones(D), {}]),
    "a version of true": frame("model", [True, X, {}]),
    "a version before the first": frame("model", [-1, X, {}]),
    "an array of 70 dimensions": seal(msgpack.packb(["update", msgpack.ExtType(ARRAY, bytes(280) + bytes([70, 0]))])),
    "a weight of true": update_of(X, weight=True),
}


@pytest.mark.parametrize("name", CORPUS)
def test_the_corpus(traced, name):
    message = CORPUS[name]
    like = UPDATES["array"]
    kept = "blocks" in name                                              # odd, and nothing wrong with it: two numbers
    assert outcome(judge_update, message, like) == "WireError"
    assert outcome(judge_blindly, message) == ("accepted" if kept else "WireError")
    for size in (D, None):
        assert outcome(judge_model, message, size) == "WireError"


def test_a_payload_of_wide_blocks_is_what_it_says():
    payload = decode_update(CORPUS["blocks of 2^62"]).delta
    assert isinstance(payload, Quantised)
    assert payload.dense().tolist() == [-1.0, -1.0]


def objects(part):
    """How many there are, the slow way: the body taken apart."""
    if isinstance(part, dict):
        return 1 + sum(1 + objects(value) for value in part.values())
    return 1 + sum(map(objects, part)) if isinstance(part, list) else 1


@pytest.mark.parametrize("body", [
    None, [], {}, [1, [2, {"a": [b"x", 2.0]}]], list(range(70_000)), {str(i): i for i in range(70_000)}, "é" * 300, bytes(70_000),
    [2**40, -1, -200, -70_000, -(2**40), 2**63, 0.5, True], ["x" * 40, b"y" * 300, X, np.zeros(70_000), np.int8(1)],
], ids=range(10))  # fmt: skip
def test_objects_are_counted_as_the_unpacker_makes_them(body):
    packed, rng = frame("", body)[4:-4], stream(1, "count")
    assert count_objects(packed) == 2 + objects(body)
    for _ in range(10):
        with pytest.raises(ValueError, match=r"announced|takes?|begins"):
            count_objects(packed[: int(rng.integers(len(packed)))])
    with pytest.raises(ValueError, match="its objects take"):
        count_objects(packed + b"\0")


@pytest.mark.parametrize("body", [[[]] * 8, [1] * 8, {str(i): i for i in range(4)}, [[[[[[[[]]]]]]]]], ids=range(4))
def test_more_objects_than_expected_are_not_unpacked(body):
    count = 2 + objects(body)
    assert unframe(frame("x", body), "x", objects=count) == body
    with pytest.raises(WireError, match=f"where at most {count - 1} are expected"):
        unframe(frame("x", body), "x", objects=count - 1)
