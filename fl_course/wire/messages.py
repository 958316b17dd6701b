"""The two messages of a round, the model and an update, and what may be in them. How they lie in bytes says frames.py."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..core import ClientId, Server, Update
from .frames import Rooms, WireError, frame, unframe
from .layer_payloads import LowRank, Submodel
from .masked import Masked
from .payloads import Payload, Quantised, Sparse, numbers, squares

OBJECTS = 100_000                             # the most numbers, names, lists … that a model or an update is made of
UNSAID = 1 << 24                              # the longest vector that a short message may stand for if nobody says which
METRICS = 256                                 # the most metrics that a client may report
LARGEST = float(np.finfo(np.float32).max)
ABSURD = 1e15                                 # the most by which an answer may change a number: see check_update
PAYLOADS: Mapping[str, type[Payload]] = {
    "sparse": Sparse,
    "quantised": Quantised,
    "lowrank": LowRank,
    "submodel": Submodel,
    "masked": Masked,
}


def encode_model(server: Server) -> bytes:
    """The broadcast: the model, its version and what travels beside it. The server's private state stays at home."""
    return frame("model", [server.version, _payload_to_wire(server.params), dict(server.extras)])


def decode_model(message: bytes, size: int | None = None) -> Server:
    """What a client makes of the broadcast. size: d of its model; another one is refused before there is room for it."""
    version, model, extras = _fields(unframe(message, "model", OBJECTS), 3)
    if type(version) is not int or not 0 <= version < 2**63 or not _arrays(extras):
        raise WireError("a model message must hold a version, a model (d,) and named arrays")
    params = _payload_from_wire(model, size)
    if isinstance(params, Payload):
        params = _dense(params)
    if params.ndim != 1 or params.dtype != np.float32 or size not in (None, params.size):
        raise WireError(f"the model is {params.dtype} of shape {params.shape}, not ({size or 'd'},) float32 numbers")
    return Server(params=params, version=version, extras=extras)


def encode_update(update: Update, rooms: Rooms | None = None) -> bytes | memoryview:
    """A client's answer. `delta` is an array or a payload that knows its own `to_wire()`. rooms: see frames.Rooms."""
    body = [update.client, update.version, _payload_to_wire(update.delta), update.weight]
    return frame("update", [*body, dict(update.extras), dict(update.metrics)], rooms)


def decode_update(message: bytes | memoryview, like: Update | None = None) -> Update:
    """A client's answer. like: an example of the answer that is expected; what is longer gets no room (check_update says
    whether it is right)."""
    if like is not None:
        numbers_expected = np.size(like.delta) if isinstance(like.delta, np.ndarray) else like.delta.size
        most = 8 * (numbers_expected + sum(map(np.size, like.extras.values()))) + 8 * len(str(like.client)) + 65_536
        if len(message) > most:
            raise WireError(f"{len(message)} bytes, where no answer takes more than {most}")
    client, version, delta, weight, extras, metrics = _fields(unframe(message, "update", OBJECTS), 6)
    if type(client) not in (int, str) or type(version) is not int or type(weight) not in (int, float):
        raise WireError(f"the head of the update is not (client, version, weight): {client!r}, {version!r}, {weight!r}"[:300])
    if not _arrays(extras):
        raise WireError("the update's extras must be named arrays")
    _check_metrics(metrics)
    payload = _payload_from_wire(delta, None if like is None else like.delta.size)
    return Update(client, version, payload, float(weight), extras, metrics)


def check_update(update: Update, client: ClientId, server: Server, like: Update | None = None) -> None:
    """Whether a decoded update answers what this client was asked: WireError otherwise, and nothing is ever broadcast.

    server: as that client received it; like: an example of an honest answer (see federation/arrival.py), of which this
    one must have the payload's class and form and the extras' names and shapes. Numbers are looked at as they will be
    added: decoded, in float32. No number of delta, per unit of weight, or of the extras may exceed ABSURD: no training that
    goes well walks so far, and what the server makes of it (means, squares, moments, a learning rate times it) stays finite,
    so that no single answer can end the run.
    """
    if type(update.client) is not type(client) or update.client != client or update.version != server.version:
        raise WireError(f"it claims to be of client {update.client!r}, version {update.version}"[:300])
    if not 0 <= update.weight <= LARGEST:
        raise WireError(f"its weight is {update.weight}, not a finite number from 0")
    for name, array in update.extras.items():
        _check_numbers(array, f"extra {name!r}"[:100], ABSURD)
    if like is not None and (update.extras or like.extras):
        shapes, others = ({name: v.shape for name, v in u.extras.items()} for u in (update, like))
        if shapes != others:
            raise WireError(f"its extras have shapes {shapes}"[:300] + f", {others} are expected (a part says what it `sends`)")
    delta = update.delta
    if isinstance(delta, np.ndarray):
        if delta.shape != server.params.shape:
            raise WireError(f"its delta has shape {delta.shape}, the model has {server.params.shape}")
    elif delta.size != server.params.size:
        raise WireError(f"its payload stands for {delta.size} numbers, the model has {server.params.size}")
    if like is not None and type(delta) is not type(like.delta):
        raise WireError(f"its payload is {type(delta).__name__}, where {type(like.delta).__name__} is expected")
    if like is not None and isinstance(delta, Payload):
        try:
            delta.check(like.delta)
        except ValueError as error:
            raise WireError(str(error)) from error
    if not isinstance(delta, Masked):                            # a masked one cannot be read: any integers of its ring do
        delta = _dense(delta) if isinstance(delta, Payload) else delta
        _check_numbers(delta, "delta", min(ABSURD * (update.weight or 1.0), LARGEST))


def _check_numbers(array: np.ndarray, name: str, largest: float = LARGEST) -> None:
    """WireError unless these are floating-point numbers that are finite in float32, and at most so large."""
    if array.dtype.kind != "f":
        raise WireError(f"its {name} holds {array.dtype}, not floating-point numbers")
    if squares(array) * (1 + 1e-6) <= largest**2:      # no number is larger than the root of the sum of all squares
        return
    with np.errstate(over="ignore"):
        if not np.isfinite(array.astype(np.float32, copy=False)).all():
            raise WireError(f"its {name} holds NaN or infinite values")
    if array.size and np.abs(array).max() > largest:
        raise WireError(f"its {name} holds numbers above {largest:g}, which no honest training reaches")


def _check_metrics(metrics: Any) -> None:
    """What a client reports about itself is read by selectors and plots: numbers, not too many, under short names.

    One that spends a budget without noise says so by an infinite epsilon.
    """
    if not isinstance(metrics, Mapping) or not all(isinstance(value, int | float) for value in metrics.values()):
        raise WireError("the update's metrics must be named numbers")
    if len(metrics) > METRICS or any(len(name) > 100 for name in metrics):
        raise WireError(f"the update has more than {METRICS} metrics, or names of more than 100 letters")
    for name, value in metrics.items():
        if not abs(value) <= LARGEST and not (name == "epsilon" and value == math.inf):
            raise WireError(f"the update's metric {name!r} is {value}, no finite number")


def _dense(payload: Payload) -> np.ndarray:
    """The numbers behind a payload, once its length is known to be the right one."""
    try:
        with np.errstate(all="ignore"):                          # what overflows is infinite, and refused as such
            return numbers(payload)
    except Exception as error:
        raise WireError(f"the {payload.tag} payload cannot be read: {error}"[:300]) from error


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


def _payload_from_wire(wire: Any, size: int | None) -> Any:
    """An array is itself; [tag, …] is a payload of the class that carries the tag, and stands for `size` numbers."""
    if isinstance(wire, np.ndarray):
        return wire
    if not isinstance(wire, list) or not wire or not isinstance(wire[0], str) or wire[0] not in PAYLOADS:
        raise WireError("the update's payload is neither an array nor of a known kind")
    kind, limit = PAYLOADS[wire[0]], f"at most {UNSAID}" if size is None else size
    try:
        claimed = kind.claims(wire)
        if claimed is not None and (claimed > UNSAID if size is None else claimed != size):
            raise ValueError(f"it stands for {claimed} numbers, where {limit} fit")
        payload = kind.from_wire(wire)
        if payload.size > UNSAID if size is None else payload.size != size:
            raise ValueError(f"it stands for {payload.size} numbers, where {limit} fit")
        return payload
    except Exception as error:                # whatever is wrong with the fields of a stranger's payload
        raise WireError(f"the {wire[0]} payload cannot be read: {error}"[:300]) from error
