"""A state in a file, written so that a crash at any moment leaves the old file or the new one, never a torn one.

The file is one message of the wire format (plain data and arrays, a checksum, no pickle), so a damaged or foreign file is
refused, and opening one cannot run code. It also holds the description of its experiment and a fingerprint of its data:
another one refuses it. What a run carries is secret where its noise or its clients' drawers are; so is the file.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..core import FederatedError, Server
from ..wire.messages import frame, unframe
from .coordinator import Coordinator
from .history import describe
from .state import Job, State


class CheckpointError(FederatedError):
    """The file is damaged, foreign, or of another experiment. Nothing has been changed."""


def save(path: str | Path, state: State, experiment: Coordinator) -> None:
    """Write the state atomically: to a temporary file beside `path`, flushed to disk, then renamed over it.

    Before, it is read back, because a drawer might hold what does not survive the trip: CheckpointError then.
    """
    path = Path(path)
    try:
        message = frame("checkpoint", [describe(experiment), _fingerprint(experiment), _pack(state)])
        _unpack(unframe(message, "checkpoint")[2])
    except (TypeError, ValueError, OverflowError) as error:
        raise CheckpointError(f"the state cannot be saved: {error}; drawers hold plain data and arrays") from error
    handle, temporary = tempfile.mkstemp(prefix=path.name, suffix=".part", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(message)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def load(path: str | Path, experiment: Coordinator) -> State:
    """Read a state that `save` wrote for an experiment of the same description. Raises CheckpointError otherwise."""
    try:
        description, data, packed = unframe(Path(path).read_bytes(), "checkpoint")
        state = _unpack(packed)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, TypeError, LookupError) as error:      # WireError is a ValueError
        raise CheckpointError(f"{path} is not a whole checkpoint of this course: {error}") from error
    if description != describe(experiment):
        saved, here = _difference(description, describe(experiment))
        raise CheckpointError(f"{path} belongs to another experiment:\n  saved: {saved}\n  this:  {here}")
    if data != _fingerprint(experiment):
        raise CheckpointError(f"{path} belongs to an experiment on other data or with another model of the same name")
    return state


def _fingerprint(experiment: Coordinator) -> bytes:
    """32 bytes that depend on every example, on who holds it, and on the model's shapes, which a repr only summarises."""
    data, digest = experiment.data, hashlib.sha256()
    layout = (data.ids, [len(rows) for rows in (*data.train, *data.test)], data.x.shape, experiment.model.shapes())
    digest.update(repr(layout).encode())
    for array in (data.x, data.y, data.x_test, data.y_test, *data.train, *data.test):
        digest.update(np.ascontiguousarray(array).data)
    return digest.digest()


def _difference(a: str, b: str, width: int = 100) -> tuple[str, str]:
    """The two texts from shortly before they part, so that a reader of two long descriptions sees what is not equal."""
    parted = next((i for i, (u, v) in enumerate(zip(a, b, strict=False)) if u != v), min(len(a), len(b)))
    some = slice(max(0, parted - width // 2), parted + width // 2)
    return f"… {a[some]} …", f"… {b[some]} …"


def _pack(state: State) -> dict[str, Any]:
    """Plain data. Clients at work may share the model that they started from, so each such model is stored once."""
    bases = list({id(job.base): job.base for job in state.jobs}.values())
    index = {id(base): i for i, base in enumerate(bases)}
    return {
        "server": _pack_server(state.server),
        "clock": state.clock,
        "ticket": state.ticket,
        "sent": state.sent,
        "memory": [[client, dict(drawer)] for client, drawer in state.memory.items()],
        "reports": [[client, dict(report)] for client, report in state.reports.items()],
        "bases": [_pack_server(base) for base in bases],
        "jobs": [
            [j.due, j.ticket, j.client, list(j.cohort), index[id(j.base)], j.memory, j.begun, j.lost, j.message, j.sent]
            for j in state.jobs
        ],
    }


def _unpack(body: Mapping[str, Any]) -> State:
    bases = [_unpack_server(base) for base in body["bases"]]
    jobs = tuple(
        Job(due, ticket, client, tuple(cohort), bases[base], memory, begun, lost, message, sent)
        for due, ticket, client, cohort, base, memory, begun, lost, message, sent in body["jobs"]
    )
    memory, reports = dict(map(tuple, body["memory"])), dict(map(tuple, body["reports"]))
    return State(_unpack_server(body["server"]), body["clock"], body["ticket"], memory, reports, jobs, body.get("sent", 0))


def _pack_server(server: Server) -> list[Any]:
    return [server.params, server.version, dict(server.extras), dict(server.state)]


def _unpack_server(body: list[Any]) -> Server:
    params, version, extras, state = body
    return Server(params, version, extras, state)
