"""Messages: what goes in comes out, and nothing else is ever taken for a message."""

import pickle
import struct
import zlib
from pathlib import Path

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fl_course.core import Server, Update
from fl_course.wire.frames import ARRAY, DTYPES, FORMAT, MAGIC, WireError, frame, unframe
from fl_course.wire.layer_payloads import LowRank, Submodel
from fl_course.wire.masked import Masked
from fl_course.wire.messages import check_update, decode_model, decode_update, encode_model, encode_update
from fl_course.wire.payloads import Quantised, Sparse, drawn

arrays = st.sampled_from(DTYPES).flatmap(
    lambda dtype: hnp.arrays(np.dtype(dtype), hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
)
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary() | arrays,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


def same(a, b) -> bool:
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())
    if isinstance(a, list):
        return isinstance(b, list) and len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    return type(a) is type(b) and (a == b or (a != a and b != b))


def seal(packed: bytes, version: int = FORMAT) -> bytes:
    """A message with a right checksum around whatever a forger put in."""
    head = MAGIC + bytes([version]) + packed
    return head + struct.pack("<I", zlib.crc32(head))


def small_update(**changes) -> Update:
    fields = {"client": 3, "version": 1, "delta": np.array([1, 2], np.float32), "weight": 2.0, "metrics": {"examples": 2.0}}
    return Update(**(fields | changes))


@given(st.text(max_size=8), plain)
def test_what_is_framed_comes_out_again(kind, body):
    assert same(unframe(frame(kind, body), kind), body)


@pytest.mark.parametrize(
    "array",
    [
        np.ones((2, 3), ">f8"),
        np.arange(24, dtype=np.float32).reshape(4, 6)[::2, ::-3],
        np.asfortranarray(np.eye(3)),
        np.array(2.5),
    ],
    ids=["big-endian", "strided", "fortran", "scalar"],
)
def test_any_memory_layout_travels(array):
    back = unframe(frame("x", array), "x")
    np.testing.assert_array_equal(back, array)
    assert back.shape == array.shape


def test_arrays_arrive_aligned_and_read_only():
    body = unframe(frame("x", ["odd", np.arange(5.0), np.arange(6.0, dtype=np.float32).reshape(2, 3)]), "x")
    for array in body[1:]:
        assert array.flags.aligned
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


def test_numpy_scalars_and_tuples_become_plain():
    assert unframe(frame("x", {"a": np.float64(0.5), "b": (np.int32(3), True)}), "x") == {"a": 0.5, "b": [3, True]}


@pytest.mark.parametrize("body", [object(), {1, 2}, np.array(["a"]), np.array([1j]), np.zeros(2, np.float16), [lambda: 0]])
def test_what_is_not_plain_data_does_not_travel(body):
    with pytest.raises(TypeError, match="travel"):
        frame("x", body)


@given(st.sampled_from(["update", "model"]), st.data())
def test_every_truncation_and_every_extension_is_refused(kind, data):
    whole = encode_update(small_update()) if kind == "update" else encode_model(Server(np.arange(3, dtype=np.float32)))
    decode = decode_update if kind == "update" else decode_model
    for cut in range(len(whole)):
        with pytest.raises(WireError):
            decode(whole[:cut])
    with pytest.raises(WireError):
        decode(whole + data.draw(st.binary(min_size=1, max_size=8)))


def test_every_flipped_bit_and_every_changed_byte_is_refused():
    whole = encode_update(small_update())
    for place in range(len(whole)):
        for flip in (1, 2, 4, 8, 16, 32, 64, 128, 255):
            altered = bytearray(whole)
            altered[place] ^= flip
            with pytest.raises(WireError):
                decode_update(bytes(altered))


@given(st.binary(max_size=60))
def test_foreign_bytes_are_refused(junk):
    for message in (junk, MAGIC + junk, MAGIC + bytes([FORMAT]) + junk):
        with pytest.raises(WireError):
            unframe(message, "update")


@given(st.binary(max_size=60))
def test_a_right_checksum_does_not_make_junk_readable(junk):
    with pytest.raises(WireError):
        decode_update(seal(junk))


@pytest.mark.parametrize("message", [None, "text", 7, [1, 2], np.zeros(4)])
def test_only_bytes_are_messages(message):
    with pytest.raises(WireError, match="a message is bytes"):
        unframe(message, "update")


def test_bytearrays_and_views_are_messages():
    message = frame("x", [1, np.arange(3)])
    for form in (bytearray(message), memoryview(message)):
        assert same(unframe(form, "x")[1], np.arange(3))


def test_another_format_version_is_named():
    with pytest.raises(WireError, match=f"format 9, this program reads format {FORMAT}"):
        unframe(seal(msgpack.packb(["x", 1]), version=9), "x")


def test_another_kind_is_named():
    with pytest.raises(WireError, match="kind 'model' arrived where 'update' was expected"):
        decode_update(encode_model(Server(np.zeros(2, np.float32))))


def array_field(data: bytes) -> bytes:
    return seal(msgpack.packb(["x", msgpack.ExtType(ARRAY, data)]))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00",
        bytes([1, 99]),                                                # no such dtype
        bytes([200, 0]),                                               # 200 dimensions, and not one of them there
        struct.pack("<I", 2**31) + bytes([1, 0]),                      # 8 GiB claimed, nothing held
        struct.pack("<4I", *[2**32 - 1] * 4) + bytes([4, 0]),          # more than any machine has
        struct.pack("<4I", 0, *[2**32 - 1] * 3) + bytes([4, 0]),       # empty, with dimensions that NumPy cannot hold
        b"\x00" * 7 + struct.pack("<I", 2) + bytes([1, 0]),            # one byte short
        b"\x00" * 9 + struct.pack("<I", 2) + bytes([1, 0]),            # one byte over
        struct.pack("<70I", *[1] * 70) + bytes([70, 1]),               # more dimensions than NumPy has
    ],
)
def test_arrays_that_lie_about_themselves_are_refused(data):
    with pytest.raises(WireError):
        unframe(array_field(data), "x")


@pytest.mark.parametrize(
    "packed",
    [
        msgpack.packb(7),
        msgpack.packb(["x"]),
        msgpack.packb(["x", 1, 2]),
        msgpack.packb({"x": 1}),
        msgpack.packb([["x"], 1]),
        msgpack.packb([msgpack.ExtType(ARRAY, b"\x00\x00"), 1]),       # an array where the kind belongs
        msgpack.packb(["x", {1: 2}]),                                  # a key that is no string
        msgpack.packb(["x", msgpack.ExtType(5, b"abc")]),
        msgpack.packb(["x", 1]) + b"\x00",
        b"\x92\xa1x\xdd\xff\xff\xff\xff",                              # a list of four thousand million
        b"\x92\xa1x" + b"\x91" * 5000,                                 # lists in lists in lists
        b"\x92\xa1x\xa2\xff\xfe",                                      # no UTF-8
        b"\xc1",
    ],
)
def test_malformed_bodies_are_refused(packed):
    with pytest.raises(WireError):
        unframe(seal(packed), "x")


class Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_pickles_are_never_executed(tmp_path):
    path = tmp_path / "executed"
    bomb = pickle.dumps(Bomb(path))
    for message in (bomb, MAGIC + bytes([FORMAT]) + bomb, seal(bomb), array_field(bomb), seal(msgpack.packb(["x", bomb]))):
        try:
            body = unframe(message, "x")
        except WireError:
            continue
        assert body == bomb                                            # bytes stay bytes
    assert not path.exists()
    pickle.loads(bomb)
    assert path.exists()                                               # the bomb was live


# --- the two messages of a round -----------------------------------------------------------------------------------


def test_a_model_message_leaves_the_private_state_at_home():
    server = Server(np.arange(4, dtype=np.float32), 7, {"c": np.ones(4, np.float32)}, {"moments": np.full(4, 3.25)})
    message = encode_model(server)
    back = decode_model(message)
    assert (back.version, back.params.tobytes(), dict(back.state)) == (7, server.params.tobytes(), {})
    assert same(dict(back.extras), dict(server.extras))
    assert b"moments" not in message
    assert np.full(1, 3.25).tobytes() not in message


@given(st.integers(0, 99) | st.text(max_size=5), hnp.arrays(np.float32, 6), st.floats(0, 1e9))
def test_an_update_message_is_the_update(client, delta, weight):
    update = Update(client, 5, delta, weight, {"c": np.ones(2, np.float32)}, {"examples": 3.0, "loss_last": 0.5})
    back = decode_update(encode_update(update))
    assert (back.client, back.version, back.weight, back.metrics) == (client, 5, weight, update.metrics)
    assert same(back.delta, delta)
    assert same(dict(back.extras), dict(update.extras))


def test_a_large_update_costs_its_numbers_and_a_few_bytes():
    delta = np.zeros(100_000, np.float32)
    assert delta.nbytes < len(encode_update(small_update(delta=delta))) < delta.nbytes + 100


@pytest.mark.parametrize(
    "body",
    [
        [3, 1, np.zeros(2), 1.0, {}],
        [3, 1, np.zeros(2), 1.0, {}, {}, 0],
        [3.5, 1, np.zeros(2), 1.0, {}, {}],
        [3, "1", np.zeros(2), 1.0, {}, {}],
        [3, 1, [0.0, 0.0], 1.0, {}, {}],
        [3, 1, [[1], 0.0], 1.0, {}, {}],
        [3, 1, ["no such payload", 0.0], 1.0, {}, {}],
        [3, 1, [], 1.0, {}, {}],
        [3, 1, None, 1.0, {}, {}],
        [3, 1, np.zeros(2), "1", {}, {}],
        [3, 1, np.zeros(2), 1.0, [], {}],
        [3, 1, np.zeros(2), 1.0, {"c": 1.0}, {}],
        [3, 1, np.zeros(2), 1.0, {}, {"loss_last": "low"}],
        [3, 1, np.zeros(2), 1.0, {}, None],
        {"client": 3},
    ],
)
def test_updates_with_wrong_fields_are_refused(body):
    with pytest.raises(WireError):
        decode_update(frame("update", body))


@pytest.mark.parametrize(
    "body", [[0, [0.0], {}], ["0", np.zeros(2), {}], [0, np.zeros((2, 2)), {}], [0, np.zeros(2), {"c": 1}], [0], None]
)
def test_models_with_wrong_fields_are_refused(body):
    with pytest.raises(WireError):
        decode_model(frame("model", body))


def test_a_payload_must_know_how_to_travel():
    with pytest.raises(TypeError, match="array or a payload"):
        encode_update(small_update(delta=None))


ASKED = Server(np.zeros(2, np.float32), version=1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"client": 4}, "client 4"),
        ({"client": "3"}, "client '3'"),
        ({"version": 2}, "version 2"),
        ({"weight": -1.0}, "weight is -1.0"),
        ({"weight": float("nan")}, "weight is nan"),
        ({"weight": float("inf")}, "weight is inf"),
        ({"delta": np.zeros(3, np.float32)}, r"shape \(3,\)"),
        ({"delta": np.zeros(1, np.float32)}, r"shape \(1,\)"),         # NumPy would broadcast it
        ({"delta": np.zeros((1, 2), np.float32)}, r"shape \(1, 2\)"),
        ({"delta": np.zeros(2, np.int64)}, "int64"),
        ({"delta": np.array([0, np.nan], np.float32)}, "delta holds NaN"),
        ({"delta": np.array([0, -np.inf], np.float32)}, "delta holds NaN or infinite"),
        ({"extras": {"c": np.array([np.nan], np.float32)}}, "extra 'c' holds NaN"),
        ({"extras": {}}, "extras have shapes {}"),
        ({"extras": {"c": np.ones(2, np.float32)}}, "extras have shapes"),
        ({"extras": {"c": np.ones(1, np.float32), "d": np.ones(1, np.float32)}}, "extras have shapes"),
    ],
)
def test_an_answer_must_fit_the_question(changes, message):
    right = small_update(extras={"c": np.ones(1, np.float32)})
    check_update(right, 3, ASKED, like=right)
    wrong = small_update(**({"extras": right.extras} | changes))
    with pytest.raises(WireError, match=message):
        check_update(wrong, 3, ASKED, like=right)


ONE, TWO = np.ones(1, np.float32), np.ones(2, np.float32)
FORMS = [
    np.zeros(2, np.float32), Sparse(2, np.array([1]), ONE), Sparse(2, drawn(5, 2, 1), ONE, 5),
    Quantised(np.zeros(2, np.uint8), 3, ONE, 2), Quantised(np.zeros(2, np.uint8), 7, ONE, 2),
    Sparse(2, np.array([1]), Quantised(np.zeros(1, np.uint8), 3, ONE, 1)), LowRank((TWO,)),
    LowRank(((np.ones((2, 1), np.float32), np.ones((1, 1), np.float32)),)), Submodel((1, 1), (), TWO),
    Masked(np.zeros(3, np.uint32), 32, b"r" * 16), Masked(np.zeros(3, np.uint32), 31),
]  # fmt: skip


@pytest.mark.parametrize("payload", FORMS, ids=range(len(FORMS)))
def test_only_the_form_that_is_expected_passes(payload):
    """Each is honest somewhere: it passes for itself and for no other."""
    for other in FORMS:
        update, like = small_update(delta=payload), small_update(delta=other)
        if other is payload:
            check_update(decode_update(encode_update(update), like), 3, ASKED, like)
            continue
        with pytest.raises(WireError, match=r"expected|others'|masked for"):
            check_update(decode_update(encode_update(update), like), 3, ASKED, like)


def test_a_message_longer_than_any_honest_one_is_not_even_unpacked():
    like = small_update()
    with pytest.raises(WireError, match="no answer takes more than"):
        decode_update(encode_update(small_update(metrics={"x" * 70_000: 1.0})), like)
    assert decode_update(encode_update(like), like).client == 3
