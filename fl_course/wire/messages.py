"""Messages ⇄ bytes. What this module returns is what the byte counts of the course count.

    magic "FLC" | format version, 1 byte | kind and body, msgpack | CRC-32 of all before it, 4 bytes

The body is plain data: None, booleans, numbers, strings, bytes, lists, dictionaries with string keys, and arrays.
An array travels as its little-endian bytes, and behind them its shape and dtype, so that the numbers lie where a
processor likes to read them. Tuples arrive as lists. Nothing in a message can run code (no pickle).
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

from ..core import ClientId, FederatedError, Server, Update
from .layer_payloads import LowRank, Submodel
from .masked import Masked
from .payloads import Payload, Quantised, Sparse

MAGIC = b"FLC"
FORMAT = 1
ARRAY = 1                                     # msgpack extension type of an array
DTYPES = ("<f4", "<f8", "|i1", "|u1", "<i2", "<u2", "<i4", "<u4", "<i8", "<u8", "|b1")
PAYLOADS: Mapping[str, type[Payload]] = {
    "sparse": Sparse,
    "quantised": Quantised,
    "lowrank": LowRank,
    "submodel": Submodel,
    "masked": Masked,
}


class WireError(FederatedError, ValueError):
    """Bytes that are not a whole, unaltered message of the expected kind. Nothing of them has been applied."""


def frame(kind: str, body: Any) -> bytes:
    """Encode one message of the given kind (a word such as "update") with its body."""
    head = MAGIC + bytes([FORMAT])
    packed = msgpack.packb([kind, body], default=_pack_array, use_bin_type=True)
    return b"".join((head, packed, struct.pack("<I", zlib.crc32(packed, zlib.crc32(head)))))


def unframe(message: bytes, kind: str) -> Any:
    """Decode a message and return its body; arrays are read-only.

    Raises WireError if the bytes are truncated, altered, of another kind or format, or not a message at all.
    """
    if not isinstance(message, bytes | bytearray | memoryview):
        raise WireError(f"a message is bytes, not {type(message).__name__}")
    view = memoryview(bytes(message))         # no copy if the message is bytes already
    if len(view) < 9 or view[:3] != MAGIC:
        raise WireError(f"{len(view)} bytes, not a message of this course, which begins with {MAGIC!r}")
    if view[3] != FORMAT:
        raise WireError(f"the message has format {view[3]}, this program reads format {FORMAT}")
    if zlib.crc32(view[:-4]) != struct.unpack("<I", view[-4:])[0]:
        raise WireError("the checksum does not match: the message was truncated or altered on its way")
    try:
        found, body = msgpack.unpackb(view[4:-4], ext_hook=_unpack_array, raw=False, strict_map_key=True)
    except WireError:
        raise
    except Exception as error:                # msgpack raises half a dozen types for malformed input
        raise WireError(f"the message cannot be read: {error}") from error
    if not isinstance(found, str) or found != kind:
        raise WireError(f"a message of kind {found!r} arrived where {kind!r} was expected")
    return body


def _pack_array(value: Any) -> msgpack.ExtType:
    if isinstance(value, np.ndarray):
        little = np.ascontiguousarray(value, dtype=value.dtype.newbyteorder("<"))
        if little.dtype.str not in DTYPES:
            raise TypeError(f"arrays of {value.dtype} do not travel; use one of {', '.join(DTYPES)}")
        shape = struct.pack(f"<{value.ndim}I", *value.shape)
        return msgpack.ExtType(ARRAY, little.tobytes() + shape + bytes([value.ndim, DTYPES.index(little.dtype.str)]))
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} does not travel: a message body is plain data and arrays")


def _unpack_array(code: int, data: bytes) -> np.ndarray:
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
    return np.frombuffer(data, dtype=dtype, count=math.prod(shape)).reshape(shape)


# --- the two messages of a round -----------------------------------------------------------------------------------


def encode_model(server: Server) -> bytes:
    """The broadcast: the model, its version and what travels beside it. The server's private state stays at home."""
    return frame("model", [server.version, _payload_to_wire(server.params), dict(server.extras)])


def decode_model(message: bytes) -> Server:
    version, model, extras = _fields(unframe(message, "model"), 3)
    params = _payload_from_wire(model)
    params = params if isinstance(params, np.ndarray) else params.dense()
    if not isinstance(version, int) or not isinstance(params, np.ndarray) or params.ndim != 1 or not _arrays(extras):
        raise WireError("a model message must hold a version, a model (d,) and named arrays")
    return Server(params=params, version=version, extras=extras)


def encode_update(update: Update) -> bytes:
    """A client's answer. `delta` is an array or a payload that knows its own `to_wire()`."""
    body = [update.client, update.version, _payload_to_wire(update.delta), update.weight]
    return frame("update", [*body, dict(update.extras), dict(update.metrics)])


def decode_update(message: bytes) -> Update:
    client, version, delta, weight, extras, metrics = _fields(unframe(message, "update"), 6)
    if not isinstance(client, int | str) or not isinstance(version, int) or not isinstance(weight, int | float):
        raise WireError(f"the head of the update is not (client, version, weight): {client!r}, {version!r}, {weight!r}")
    if not _arrays(extras):
        raise WireError("the update's extras must be named arrays")
    if not isinstance(metrics, Mapping) or not all(isinstance(value, int | float) for value in metrics.values()):
        raise WireError("the update's metrics must be named numbers")
    return Update(client, version, _payload_from_wire(delta), float(weight), extras, metrics)


def check_update(update: Update, client: ClientId, server: Server, like: Update | None = None) -> None:
    """Whether a decoded update answers what this client was asked: WireError otherwise, and nothing is ever broadcast.

    server: as that client received it; like: another client's update of the same step, whose extras have the same shapes.
    """
    if update.client != client or update.version != server.version:
        raise WireError(f"it claims to be of client {update.client!r}, version {update.version}")
    if not 0 <= update.weight < math.inf:
        raise WireError(f"its weight is {update.weight}, not a finite number from 0")
    arrays = {f"extra {name!r}": value for name, value in update.extras.items()}
    if isinstance(update.delta, np.ndarray):
        if update.delta.shape != server.params.shape:
            raise WireError(f"its delta has shape {update.delta.shape}, the model has {server.params.shape}")
        arrays["delta"] = update.delta
    elif isinstance(update.delta, Payload) and update.delta.size != server.params.size:
        raise WireError(f"its payload stands for {update.delta.size} numbers, the model has {server.params.size}")
    for name, array in arrays.items():
        if array.dtype.kind != "f":
            raise WireError(f"its {name} holds {array.dtype}, not floating-point numbers")
        if not np.isfinite(array).all():
            raise WireError(f"its {name} holds NaN or infinite values")
    shapes, others = ({name: v.shape for name, v in u.extras.items()} for u in (update, like or update))
    if shapes != others:
        raise WireError(f"its extras have shapes {shapes}, those of client {like and like.client!r} have {others}")


def _arrays(extras: Any) -> bool:
    return isinstance(extras, Mapping) and all(isinstance(value, np.ndarray) for value in extras.values())


def _fields(body: Any, count: int) -> list[Any]:
    if not isinstance(body, list) or len(body) != count:
        raise WireError(f"the message must have {count} fields")
    return body


def _payload_to_wire(payload: Any) -> Any:
    if isinstance(payload, np.ndarray):
        return payload
    if not hasattr(payload, "to_wire"):
        raise TypeError(f"delta must be an array or a payload with a to_wire() method, not {payload!r}")
    return payload.to_wire()


def _payload_from_wire(wire: Any) -> Any:
    """An array is itself; [tag, …] is a payload of the class that carries the tag."""
    if isinstance(wire, np.ndarray):
        return wire
    if not isinstance(wire, list) or not wire or not isinstance(wire[0], str) or wire[0] not in PAYLOADS:
        raise WireError("the update's payload is neither an array nor of a known kind")
    try:
        return PAYLOADS[wire[0]].from_wire(wire)
    except Exception as error:                # whatever is wrong with the fields of a stranger's payload
        raise WireError(f"the {wire[0]} payload cannot be read: {error}") from error
