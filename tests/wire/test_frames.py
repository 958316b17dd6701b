"""How data lies in a message: to the byte as the plain way writes it, wherever it lies, and never in a room that is read."""

import struct
import zlib

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fl_course.core import Context, Server, Task, Update, changed
from fl_course.wire import frames
from fl_course.wire.frames import ARRAY, DTYPES, FORMAT, HOLE, LONG, MAGIC, Rooms, WireError, frame, unframe
from fl_course.wire.payloads import finite

arrays = st.sampled_from(DTYPES).flatmap(
    lambda dtype: hnp.arrays(np.dtype(dtype), hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
)
bodies = st.recursive(
    st.none() | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=5) | st.binary(max_size=40) | arrays,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3) | st.tuples(inner, inner),
    max_leaves=8,
)


def plain_frame(kind, body):
    """The slow obvious way: msgpack packs everything, zlib's own checksum goes over the whole."""

    def pack(value):
        if isinstance(value, np.generic):
            return value.item()
        little = np.ascontiguousarray(value, dtype=value.dtype.newbyteorder("<"))
        shape = struct.pack(f"<{value.ndim}I", *value.shape)
        return msgpack.ExtType(ARRAY, little.tobytes() + shape + bytes([value.ndim, DTYPES.index(little.dtype.str)]))

    text = MAGIC + bytes([FORMAT]) + msgpack.packb([kind, body], default=pack, use_bin_type=True)
    return text + struct.pack("<I", zlib.crc32(text))


def same(a, b):
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())
    if isinstance(a, list | tuple):
        return isinstance(b, list) and len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    return a == b


def long_array(count=LONG // 4, dtype=np.float32, first=0.5):
    return np.arange(count).astype(dtype) + np.asarray(first).astype(dtype)


@given(bodies, st.sampled_from((0, 1, 7, 64, 65, 200, 4096)))
@settings(max_examples=300, deadline=None)
def test_a_message_is_the_plain_one_to_the_byte_and_is_read_wherever_it_lies(body, shift):
    whole = [body, long_array(), {"again": [body, long_array(dtype=np.uint8, count=LONG + 3)]}, (long_array()[::-1], body)]
    plain, rooms = plain_frame("kind", whole), Rooms()
    assert frame("kind", whole) == plain
    assert bytes(frame("kind", whole, rooms)) == plain
    elsewhere = memoryview(bytearray(shift) + plain).toreadonly()[shift:]
    for message in (plain, elsewhere, bytearray(plain), frame("kind", whole, rooms)):
        back = unframe(message, "kind")
        assert same(whole, back)
        assert all(not a.flags.writeable and a.flags.aligned for a in (back[1], back[2]["again"][1], back[3][0]))


def test_a_long_array_lies_in_its_message_and_begins_with_a_cache_line():
    message = frame("kind", ["some words", long_array()], Rooms())
    array = unframe(message, "kind")[1]
    assert array.ctypes.data % 64 == 0
    assert np.shares_memory(array, np.frombuffer(message, np.uint8))


def test_what_others_may_write_to_is_copied():
    mine = bytearray(frame("kind", long_array()))
    array = unframe(mine, "kind")
    before = array.copy()
    mine[:] = bytes(len(mine))
    assert np.array_equal(array, before)


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=40))
@settings(max_examples=100, deadline=None)
def test_a_room_is_used_again_exactly_when_nobody_reads_it(steps):
    """Messages of all ages, dropped in any order: the living say what they said, and rooms are as few as can be."""
    rooms, alive, most = Rooms(), [], 0
    for number, (place, drop) in enumerate(steps):
        if drop and alive:
            del alive[place % len(alive)]
        else:
            body = long_array(first=number)
            message = frame("kind", body, rooms)
            alive.append((unframe(message, "kind") if place % 2 else message, body))    # its array alone holds the room, too
            del message
        most = max(most, len(alive))
        for held, body in alive:
            assert np.array_equal(held if isinstance(held, np.ndarray) else unframe(held, "kind"), body)
        held = None
    assert len(rooms.rooms) <= most


def test_rooms_follow_the_length_of_the_messages():
    rooms = Rooms()
    for count in (LONG, LONG, 4 * LONG, 4 * LONG, LONG):
        frame("kind", long_array(count), rooms)
        assert len(rooms.rooms) == 1
        assert 4 * count <= len(rooms.rooms[0]) <= 8 * count + 200
    assert isinstance(frame("kind", "a short one", rooms), bytes)


def sealed(text):
    return MAGIC + bytes([FORMAT]) + text + struct.pack("<I", zlib.crc32(MAGIC + bytes([FORMAT]) + text))


@pytest.mark.parametrize("content", [b"-", b"", b"--", b"x" * LONG])
@pytest.mark.parametrize("before", [True, False])
def test_the_mark_of_a_hole_from_outside_is_refused(content, before):
    """A stranger's mark must not stand for somebody's array."""
    packed = plain_frame("kind", long_array())[4:-4]
    ext = packed[packed.index(b"\xc9"):]
    hole = msgpack.packb(msgpack.ExtType(HOLE, content))
    parts = [hole, ext] if before else [ext, hole]
    text = msgpack.Packer().pack_array_header(2) + msgpack.packb("kind") + msgpack.Packer().pack_array_header(2) + b"".join(parts)
    with pytest.raises(WireError):
        unframe(sealed(text), "kind")


def test_another_checksum_routine_gives_the_same(monkeypatch):
    for data in (b"", b"a", bytes(range(256)) * 1000):
        assert frames.crc32(data) == zlib.crc32(data)
        assert frames.crc32(data[7:], zlib.crc32(data[:7])) == zlib.crc32(data)
    fast = frame("kind", long_array())
    monkeypatch.setattr(frames, "crc32", zlib.crc32)
    assert frame("kind", long_array()) == fast


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 500, -1])
def test_finite_finds_one_number_among_many(bad, place):
    numbers = np.full(1001, 1e30, np.float32)                   # whose squares overflow
    assert finite(numbers)
    assert finite(np.zeros(0, np.float32))
    assert finite(np.arange(3))
    for scale in (1, 1e-38):
        some = numbers * np.float32(scale)
        some[place] = bad
        assert not finite(some)
    assert not finite(np.array([1.0, bad]))


def test_changed_is_replace_and_finds_a_wrong_name():
    task = Task(3, Server(np.zeros(2, np.float32)), 7)
    assert changed(task, client=4) == Task(4, task.server, 7)
    assert task.client == 3
    ctx = Context(0, task.server)
    assert changed(ctx, client="a").meter is ctx.meter
    with pytest.raises(TypeError, match="no field 'clinet'"):
        changed(Update(1, 0, None), clinet=2)
