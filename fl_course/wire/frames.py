"""Plain data ⇄ the bytes of a message. What `frame` returns is what the byte counts of the course count.

    magic "FLC" | format version, 1 byte | kind and body, msgpack | CRC-32 of all before it, 4 bytes

The body is plain data: None, booleans, numbers, strings, bytes, lists, dictionaries with string keys, and arrays.
An array travels as its little-endian bytes, and behind them its shape and dtype, so that the numbers lie where a
processor likes to read them. Tuples arrive as lists. Nothing in a message can run code (no pickle).
A checksum finds accidents, not forgers; authentic messages are chapters 4 and 11.

A model of a million numbers is four million bytes, and moving them costs more than all the rest. So a long array is
written once, from where it lies into its message, and read where it lies in the message.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from ctypes import addressof, c_char
from typing import Any

import msgpack
import numpy as np

from ..core import FederatedError
from .lengths import count_objects

try:
    from zlib_ng.zlib_ng import crc32  # the same checksum, several times faster
except ImportError:                           # no wheel for this machine
    from zlib import crc32

MAGIC = b"FLC"
FORMAT = 1
HEAD = MAGIC + bytes([FORMAT])
ARRAY = 1                                     # msgpack extension type of an array
HOLE = 2                                      # … of the place of a long array; within `unframe` alone, it never travels
LONG = 1 << 16                                # bytes from which an array is long
DTYPES = ("<f4", "<f8", "|i1", "|u1", "<i2", "<u2", "<i4", "<u4", "<i8", "<u8", "|b1")


class WireError(FederatedError, ValueError):
    """Bytes that are not a whole, unaltered message of the expected kind. Nothing of them has been applied."""


class Rooms:
    """Memory for long messages that is used again: new memory must be got from the system, page by page.

    Who reads a message holds on to its room, and Python refuses to change the length of a bytearray that somebody reads.
    That tells whether a room is free. The rooms are as many as messages were read at one time.
    """

    def __init__(self) -> None:
        self.length, self.rooms, self.next = 0, [], 0           # type: int, list[bytearray], int

    def write(self, pieces: list[bytes | memoryview]) -> bytes | memoryview:
        """The pieces, one behind the other. In a long message, the first long one begins with a cache line."""
        size = sum(map(len, pieces))
        if size < LONG:
            return b"".join(pieces)
        before = 0
        for piece in pieces:
            if len(piece) >= LONG:
                break
            before += len(piece)
        room = self._free(size + 64)
        begin = at = -(addressof(c_char.from_buffer(room)) + before) % 64
        with memoryview(room) as whole:
            for piece in pieces:
                whole[at : at + len(piece)] = piece
                at += len(piece)
        return memoryview(room).toreadonly()[begin:at]

    def _free(self, size: int) -> bytearray:
        if not self.length / 2 <= size <= self.length:
            self.length, self.rooms = size, []
        for _ in self.rooms:
            self.next = (self.next + 1) % len(self.rooms)
            room = self.rooms[self.next]
            try:
                room.pop()
            except BufferError:                                 # somebody reads it
                continue
            room.append(0)
            return room
        self.rooms.append(bytearray(self.length))
        self.next = len(self.rooms) - 1
        return self.rooms[-1]


def frame(kind: str, body: Any, rooms: Rooms | None = None) -> Any:
    """Encode one message of the given kind (a word such as "update") with its body. bytes; or, in `rooms`, a memoryview."""
    long: list[np.ndarray] = []

    def pack(value: Any) -> Any:
        if isinstance(value, np.ndarray) and value.nbytes >= LONG:
            return long.append(value)         # None in its place: then this is a trial
        return _pack_array(value)

    check = 0
    packed = msgpack.packb([kind, body], default=pack, use_bin_type=True)
    pieces: list[bytes | memoryview] = _merged([HEAD, *_pieces([kind, body])]) if long else [HEAD, packed]
    for piece in pieces:
        check = crc32(piece, check)
    pieces.append(struct.pack("<I", check))
    message = b"".join(pieces) if rooms is None else rooms.write(pieces)
    if (heard := _HEARD.get()) is not None:
        heard.append((kind, bytes(message)))
    return message


_HEARD: ContextVar[list[tuple[str, bytes]] | None] = ContextVar("what is overheard", default=None)


@contextmanager
def overheard() -> Iterator[list[tuple[str, bytes]]]:
    """All messages that are encoded inside, as (kind, bytes) in the order in which they are made."""
    heard: list[tuple[str, bytes]] = []
    before = _HEARD.set(heard)
    try:
        yield heard
    finally:
        _HEARD.reset(before)


def unframe(message: bytes | bytearray | memoryview, kind: str, objects: int | None = None) -> Any:
    """Decode a message and return its body; arrays are read-only, and long ones lie in the message.

    Raises WireError if the bytes are truncated, altered, of another kind or format, or not a message at all, or if it is
    made of more than so many `objects`. Whatever it says, it takes no more room than some ten times its own bytes and
    some hundred bytes an object.
    """
    if not isinstance(message, bytes | bytearray | memoryview):
        raise WireError(f"a message is bytes, not {type(message).__name__}")
    view = memoryview(message if isinstance(message, bytes) or (isinstance(message, memoryview) and message.readonly)
                      else bytes(message))    # what others may write to is copied
    if len(view) < 9 or view[:3] != MAGIC:
        raise WireError(f"{len(view)} bytes, not a message of this course, which begins with {MAGIC!r}")
    if view[3] != FORMAT:
        raise WireError(f"the message has format {view[3]}, this program reads format {FORMAT}")
    if crc32(view[:-4]) != struct.unpack("<I", view[-4:])[0]:
        raise WireError("the checksum does not match: the message was truncated or altered on its way")
    try:
        found, body = _unpacked(view[4:-4], objects)
    except WireError:
        raise
    except Exception as error:                # msgpack raises half a dozen types for malformed input
        raise WireError(f"the message cannot be read: {error}") from error
    if not isinstance(found, str) or found != kind:
        raise WireError(f"a message of kind {found!r} arrived where {kind!r} was expected")
    return body


def _pieces(value: Any) -> Iterator[bytes | memoryview]:
    """msgpack's bytes of a value, in pieces: a long array is a piece by itself, which lies where the array lies."""
    if not _has_long(value):
        yield msgpack.packb(value, default=_pack_array, use_bin_type=True)
    elif isinstance(value, np.ndarray):
        little, form = _little(value)
        yield struct.pack(">BIb", 0xC9, little.nbytes + len(form), ARRAY)
        yield little.reshape(-1).view(np.uint8).data
        yield form
    elif isinstance(value, dict):
        yield msgpack.Packer().pack_map_header(len(value))
        for key, item in value.items():
            yield msgpack.packb(key, use_bin_type=True)
            yield from _pieces(item)
    else:
        yield msgpack.Packer().pack_array_header(len(value))
        for item in value:
            yield from _pieces(item)


def _merged(pieces: list[bytes | memoryview]) -> list[bytes | memoryview]:
    """The same with one piece of bytes between two long arrays."""
    merged, short = [], []                    # type: list[bytes | memoryview], list[bytes]
    for piece in pieces:
        if isinstance(piece, bytes):
            short.append(piece)
        else:
            merged += [b"".join(short), piece]
            short = []
    return [*merged, b"".join(short)]


def _has_long(value: Any) -> bool:
    if isinstance(value, np.ndarray):
        return value.nbytes >= LONG
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list | tuple):
        return False
    return any(map(_has_long, value))


def _little(array: np.ndarray) -> tuple[np.ndarray, bytes]:
    """The array as it travels, and the bytes behind it: shape, number of dimensions, dtype."""
    little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    if little.dtype.str not in DTYPES:
        raise TypeError(f"arrays of {array.dtype} do not travel; use one of {', '.join(DTYPES)}")
    return little, struct.pack(f"<{array.ndim}I", *array.shape) + bytes([array.ndim, DTYPES.index(little.dtype.str)])


def _pack_array(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        little, form = _little(value)
        return msgpack.ExtType(ARRAY, little.tobytes() + form)
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} does not travel: a message body is plain data and arrays")


def _unpacked(packed: memoryview, objects: int | None) -> Any:
    """The value of msgpack's bytes. Long arrays are read where they lie: msgpack gets the text with holes in their places."""
    holes: list[tuple[int, int, int]] = []                     # where its head begins, where its content begins, where it ends
    count_objects(packed, objects, (LONG, holes))
    arrays, text, at = [], [], 0
    for begin, content, end in holes:
        arrays.append(_unpack_array(packed[content - 1], packed[content:end]))
        text += [packed[at:begin], msgpack.packb(msgpack.ExtType(HOLE, b"-"))]
        at = end

    def unpack(code: int, data: bytes) -> np.ndarray:          # in the order in which they stand in the text
        return arrays.pop(0) if code == HOLE and data == b"-" and arrays else _unpack_array(code, data)

    value = msgpack.unpackb(b"".join([*text, packed[at:]]) if holes else packed, ext_hook=unpack, raw=False, strict_map_key=True)
    if arrays:
        raise WireError(f"unknown field of type {HOLE} in the message")
    return value


def _unpack_array(code: int, data: bytes | memoryview) -> np.ndarray:
    if code != ARRAY or len(data) < 2:
        raise WireError(f"unknown field of type {code} in the message")
    ndim, dtype_index = data[-2:]
    size = len(data) - 2 - 4 * ndim           # bytes of the numbers
    if dtype_index >= len(DTYPES) or size < 0:
        raise WireError("an array field of the message has no readable shape and dtype")
    shape = struct.unpack_from(f"<{ndim}I", data, size)
    dtype = np.dtype(DTYPES[dtype_index])
    if size != math.prod(shape) * dtype.itemsize:
        raise WireError(f"an array field says shape {shape} of {dtype} but holds {size} bytes")
    array = np.frombuffer(data, dtype=dtype, count=math.prod(shape)).reshape(shape)
    if not array.flags.aligned:               # a message from elsewhere may lie anywhere
        array = array.copy()
        array.flags.writeable = False
    return array
