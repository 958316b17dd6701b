"""A state in a file, written so that a crash at any moment leaves the old file or the new one, never a torn one.

The file is one message of the wire format (plain data and arrays, a checksum, no pickle), so a damaged or foreign file is
refused, and opening one cannot run code. It also holds the description of its experiment: another one refuses it. What a
run carries is secret where its noise or its clients' drawers are; treat the file accordingly.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .coordinator import Coordinator, Job, State
from .core import FederatedError, Server
from .wire import WireError, frame, unframe


class CheckpointError(FederatedError):
    """The file is damaged, foreign, or of another experiment. Nothing has been changed."""


def save(path: str | Path, state: State, experiment: Coordinator) -> None:
    """Write the state atomically: to a temporary file beside `path`, flushed to disk, then renamed over it."""
    path = Path(path)
    message = frame("checkpoint", [repr(experiment), _pack(state)])
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
        description, packed = unframe(Path(path).read_bytes(), "checkpoint")
        state = _unpack(packed)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
    except (WireError, ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"{path} is not a whole checkpoint of this course: {error}") from error
    if description != repr(experiment):
        raise CheckpointError(f"{path} belongs to another experiment:\n  saved: {description}\n  this:  {experiment!r}")
    return state


def _pack(state: State) -> dict[str, Any]:
    """Plain data. Clients at work may share the model that they started from, so each such model is stored once."""
    bases = list({id(job.base): job.base for job in state.jobs}.values())
    index = {id(base): i for i, base in enumerate(bases)}
    return {
        "server": _pack_server(state.server),
        "clock": state.clock,
        "ticket": state.ticket,
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
    return State(_unpack_server(body["server"]), body["clock"], body["ticket"], memory, reports, jobs)


def _pack_server(server: Server) -> list[Any]:
    return [server.params, server.version, dict(server.extras), dict(server.state)]


def _unpack_server(body: list[Any]) -> Server:
    params, version, extras, state = body
    return Server(params, version, extras, state)
