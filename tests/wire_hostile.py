"""Bytes that a stranger might send: messages taken apart, changed in one place, and sealed again with a right checksum."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import msgpack
import numpy as np

from fl_course.wire.frames import ARRAY, FORMAT, MAGIC, frame, unframe

JUNK: list[Any] = [
    None, True, False, -1, 0, 1, 2, 3, 255, 2**31, 2**40, 2**62, 2**63, 2**64 - 1, -(2**63), 0.5, 1e300, -1e39, float("nan"),
    float("inf"), "", "x", "sparse", "masked", "control", b"", b"\0" * 4, b"\xff" * 9, b"r" * 16, [], [None], [[]], {}, {"a": 1},
    np.zeros(0, np.float32), np.zeros(2), np.zeros((2, 2), np.float32), np.float32(1), np.full(3, np.nan, np.float32),
    np.full(18, 1e300), np.ones(18, np.int8), np.ones(18, bool), np.zeros((2**31, 0), np.float32),
    np.full((3, 1), 1e30, np.float32),
]  # fmt: skip


def seal(packed: bytes) -> bytes:
    """Whatever a forger put in, with a right head and checksum."""
    whole = MAGIC + bytes([FORMAT]) + packed
    return whole + struct.pack("<I", zlib.crc32(whole))


def places(body: Any, path: tuple = ()) -> list[tuple]:
    """Every place of a nested body, as the keys that lead to it."""
    keys = range(len(body)) if isinstance(body, list) else list(body) if isinstance(body, dict) else ()
    return [path, *(place for key in keys for place in places(body[key], (*path, key)))]


def put(body: Any, path: tuple, value: Any) -> Any:
    """A copy of the body with another value in one place."""
    if not path:
        return value
    copy = list(body) if isinstance(body, list) else dict(body)
    copy[path[0]] = put(body[path[0]], path[1:], value)
    return copy


def at(body: Any, path: tuple) -> Any:
    for key in path:
        body = body[key]
    return body


def replaced(message: bytes, kind: str, rng: np.random.Generator) -> bytes:
    """One or two of its fields are junk, or fields of another place."""
    body = unframe(message, kind)
    for _ in range(int(rng.integers(1, 3))):
        spots = places(body)
        value = JUNK[rng.integers(len(JUNK))] if rng.random() < 0.8 else at(body, spots[rng.integers(len(spots))])
        body = put(body, spots[rng.integers(len(spots))], value)
    return frame(kind, body)


def scrambled(message: bytes, rng: np.random.Generator) -> bytes:
    """Some bytes changed, cut out, doubled, or made a length that nobody could hold."""
    packed = bytearray(message[4:-4])
    for _ in range(int(rng.integers(1, 4))):
        i, j = sorted(int(v) for v in rng.integers(0, len(packed) + 1, 2))
        match int(rng.integers(6)):
            case 0 if packed:
                packed[int(rng.integers(len(packed)))] = int(rng.integers(256))
            case 1:
                del packed[i : min(j, i + 8)]
            case 2:
                packed[i:i] = packed[i : min(j, i + 16)]
            case 3:
                head = (b"\xdd", b"\xdf", b"\xc6", b"\xdb", b"\xc9")[rng.integers(5)]
                packed[i : i + 5] = head + rng.choice([2**32 - 1, 2**31, 2**24, len(packed)]).astype(">u4").tobytes()
            case 4:
                packed[i:i] = bytes([(0x90, 0x80, 0x91, 0xDC)[rng.integers(4)]]) * int(rng.integers(1, 2000))
            case _:
                shape = rng.choice([0, 1, 2**31, 2**32 - 1], int(rng.integers(1, 4))).astype("<u4").tobytes()
                field = msgpack.packb(msgpack.ExtType(ARRAY, shape + bytes([len(shape) // 4, int(rng.integers(13))])))
                packed[i:i] = field
    return seal(bytes(packed))
