"""Messages ⇄ bytes. What this module returns is what the byte counts of the course count.

    magic "FLC" | format version, 1 byte | kind and body, msgpack | CRC-32 of all before it, 4 bytes

The body is plain data: None, booleans, numbers, strings, bytes, lists, dictionaries with string keys, and arrays.
An array travels as its dtype, its shape and its little-endian bytes. Nothing in a message can run code (no pickle).
A checksum finds accidents, not forgers; authentic messages are chapters 4 and 11.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Mapping
from typing import Any

import msgpack
import numpy as np

from .core import FederatedError, Server, Update

MAGIC = b"FLC"
FORMAT = 1
ARRAY = 1                                     # msgpack extension type of an array
DTYPES = ("<f4", "<f8", "|i1", "|u1", "<i2", "<u2", "<i4", "<u4", "<i8", "<u8", "|b1")


class WireError(FederatedError, ValueError):
    """Bytes that are not a whole, unaltered message of the expected kind. Nothing of them has been applied."""


def frame(kind: str, body: Any) -> bytes:
    """Encode one message of the given kind (a word such as "update") with its body."""
    head = MAGIC + bytes([FORMAT]) + msgpack.packb([kind, body], default=_pack_array, use_bin_type=True)
    return head + struct.pack("<I", zlib.crc32(head))


def unframe(message: bytes, kind: str) -> Any:
    """Decode a message and return its body; lists come back as lists, arrays as read-only views of the message.

    Raises WireError if the bytes are truncated, altered, of another kind or format, or not a message at all.
    """
    if not isinstance(message, bytes | bytearray | memoryview):
        raise WireError(f"a message is bytes, not {type(message).__name__}")
    message = bytes(message)
    if len(message) < 9 or message[:3] != MAGIC:
        raise WireError(f"{len(message)} bytes that do not begin with {MAGIC!r}: not a message of this course")
    if message[3] != FORMAT:
        raise WireError(f"the message has format {message[3]}, this program reads format {FORMAT}")
    if zlib.crc32(message[:-4]) != struct.unpack("<I", message[-4:])[0]:
        raise WireError("the checksum does not match: the message was truncated or altered on its way")
    try:
        found, body = msgpack.unpackb(memoryview(message)[4:-4], ext_hook=_unpack_array, raw=False, strict_map_key=True)
    except WireError:
        raise
    except Exception as error:                # msgpack raises half a dozen types for malformed input
        raise WireError(f"the message cannot be read: {error}") from error
    if found != kind:
        raise WireError(f"a message of kind {found!r} arrived where {kind!r} was expected")
    return body


def _pack_array(value: Any) -> msgpack.ExtType:
    if isinstance(value, np.ndarray):
        little = np.ascontiguousarray(value, dtype=value.dtype.newbyteorder("<"))
        if little.dtype.str not in DTYPES:
            raise TypeError(f"arrays of {value.dtype} do not travel; use one of {', '.join(DTYPES)}")
        head = struct.pack("<BB", DTYPES.index(little.dtype.str), value.ndim) + struct.pack(f"<{value.ndim}I", *value.shape)
        return msgpack.ExtType(ARRAY, head + little.tobytes())
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} does not travel: a message body is plain data and arrays")


def _unpack_array(code: int, data: bytes) -> np.ndarray:
    if code != ARRAY or len(data) < 2:
        raise WireError(f"unknown field of type {code} in the message")
    dtype_index, ndim = data[0], data[1]
    start = 2 + 4 * ndim
    if dtype_index >= len(DTYPES) or len(data) < start:
        raise WireError("an array field of the message has no readable header")
    shape = struct.unpack(f"<{ndim}I", data[2:start])
    dtype = np.dtype(DTYPES[dtype_index])
    if len(data) - start != math.prod(shape) * dtype.itemsize:
        raise WireError(f"an array field says shape {shape} of {dtype} but holds {len(data) - start} bytes")
    return np.frombuffer(data, dtype=dtype, offset=start).reshape(shape)


# --- the two messages of a round -----------------------------------------------------------------------------------


def encode_model(server: Server) -> bytes:
    """The broadcast: the model, its version and what travels beside it. The server's private state stays at home."""
    return frame("model", [server.version, server.params, dict(server.extras)])


def decode_model(message: bytes) -> Server:
    version, params, extras = _fields(unframe(message, "model"), 3)
    return Server(params=params, version=version, extras=extras)


def encode_update(update: Update) -> bytes:
    """A client's answer. `delta` is an array or a payload that knows its own `to_wire()`."""
    body = [update.client, update.version, _payload_to_wire(update.delta), update.weight]
    return frame("update", [*body, dict(update.extras), dict(update.metrics)])


def decode_update(message: bytes) -> Update:
    client, version, delta, weight, extras, metrics = _fields(unframe(message, "update"), 6)
    if not isinstance(client, int | str) or not isinstance(version, int) or not isinstance(weight, int | float):
        raise WireError(f"the head of the update is not (client, version, weight): {client!r}, {version!r}, {weight!r}")
    if not isinstance(extras, Mapping) or not isinstance(metrics, Mapping):
        raise WireError("the update's extras and metrics must be dictionaries")
    return Update(client, version, _payload_from_wire(delta), float(weight), extras, metrics)


def _fields(body: Any, count: int) -> list[Any]:
    if not isinstance(body, list) or len(body) != count:
        raise WireError(f"the message must have {count} fields")
    return body


def _payload_to_wire(payload: Any) -> Any:
    return payload if isinstance(payload, np.ndarray) else payload.to_wire()


def _payload_from_wire(wire: Any) -> Any:
    """An array is itself; [tag, …] is a payload of the class that carries the tag."""
    if isinstance(wire, np.ndarray):
        return wire
    raise WireError("the update's payload is neither an array nor of a known kind")
