"""A state as plain data and back, exactly: what a message cannot carry as it is travels under a mark, or is refused.

A run must go on bit for bit. A NumPy scalar that came back as a Python float would let NumPy choose another precision, a
tuple would be a list, and an array in Fortran's order would be summed in another one. So

    {"()": [1, 2]}      a tuple
    {"np": array(3.0)}  a NumPy scalar, as an array without dimensions
    {"F": array}        the transposed of an array that lies column by column

and a dictionary with such a key itself, like anything else that does not come back as what it was, is refused by name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from ..core import Server
from .state import COUNTED, Job, State

MARKS = ("()", "np", "F")


def to_plain(state: State) -> dict[str, Any]:
    """A dictionary for `frame`. Clients at work may share the model that they started from; each is stored once.

    ValueError, with the name of the place, for what would not come back.
    """
    bases = list({id(job.base): job.base for job in state.jobs}.values())
    index = {id(base): i for i, base in enumerate(bases)}
    jobs = []
    for job in state.jobs:
        words = {f.name: getattr(job, f.name) for f in fields(Job)} | {"base": index[id(job.base)], "memory": dict(job.memory)}
        jobs.append(_plain(words, f"the job of client {job.client!r}"))
    plain = {f.name: _plain(getattr(state, f.name), f.name) for f in fields(State) if f.name not in OWN}
    for name, word in (("memory", "the drawer of client"), ("reports", "the report of client")):
        plain[name] = [[client, _plain(dict(part), f"{word} {client!r}")] for client, part in getattr(state, name).items()]
    return plain | {"server": _server(state.server), "bases": [_server(base) for base in bases], "jobs": jobs}


OWN = ("server", "memory", "reports", "jobs")                  # the fields of a State that are more than one value


def from_plain(plain: Mapping[str, Any]) -> State:
    """The inverse. KeyError, TypeError or ValueError for what `to_plain` has not made: its fields are not looked at."""
    bases = [Server(**_exact(base)) for base in plain["bases"]]
    jobs = []
    for words in map(_exact, plain["jobs"]):
        jobs.append(Job(**{**words, "base": bases[_place(words["base"], bases)]}))
    parts: dict[str, Any] = {name: {client: _exact(part) for client, part in plain[name]} for name in ("memory", "reports")}
    rest = {name: _exact(value) for name, value in plain.items() if name not in (*OWN, "bases")}
    return State(server=Server(**_exact(plain["server"])), jobs=tuple(jobs), **parts, **rest)


def difference(a: Any, b: Any, where: str = "the state") -> str:
    """Where two states, or parts of them, are not the same in type and to the last bit; "" if nowhere."""
    if isinstance(a, State | Server | Job):
        inside = [(f.name, getattr(a, f.name), getattr(b, f.name, None)) for f in fields(a)]
    elif isinstance(a, Mapping) and isinstance(b, Mapping) and list(a) == list(b):
        inside = [(f"[{key!r}]", a[key], b[key]) for key in a]
    elif isinstance(a, list | tuple) and type(a) is type(b) and len(a) == len(b):
        inside = [(f"[{i}]", u, v) for i, (u, v) in enumerate(zip(a, b, strict=True))]
    elif isinstance(a, np.ndarray | np.generic):
        same = type(a) is type(b) and (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())
        return "" if same else where
    else:
        same = type(a) is type(b) and (repr(a) == repr(b) if isinstance(a, float) else a == b)        # NaN, minus zero
        return "" if same else where
    dots = ((f"{where}{name}" if name[0] == "[" else f"{where}.{name}", u, v) for name, u, v in inside)
    return next((found for name, u, v in dots if (found := difference(u, v, name))), "")


def check(state: State, clients: Callable[[Any], bool], dim: int) -> None:
    """ValueError unless every field of a state that comes from a file has its type and a possible value.

    clients: whether somebody is a client of this experiment; dim: d of its model.
    """
    _check_server(state.server, dim, "the server")
    _require(_seconds(state.clock), f"the clock says {state.clock!r}")
    for name in (f.name for f in fields(State) if f.type == "int"):
        _require(_count(getattr(state, name)), f"{name} is {getattr(state, name)!r}")
    for client in (*state.memory, *state.reports, *(job.client for job in state.jobs)):
        _require(type(client) in (int, str) and clients(client), f"{client!r} is no client of this experiment")
    for client, report in state.reports.items():
        _require(isinstance(report, dict), f"the report of client {client!r} is {report!r}")
        numbers = all(_number(value) or _numbers(value) for value in report.values())
        _require(numbers, f"a number in the report of client {client!r} is none")
        _require(all(_count(report.get(name, 0)) for name in COUNTED), f"a count in the report of client {client!r} is none")
        update = report.get("update", np.zeros(dim, np.float32))
        fits = isinstance(update, np.ndarray) and update.dtype == np.float32 and update.shape == (dim,)
        _require(fits and bool(np.isfinite(update).all()), f"the last update of client {client!r} is no {dim} numbers")
    for client, drawer in state.memory.items():
        _require(isinstance(drawer, dict), f"the drawer of client {client!r} is {drawer!r}")
    for job in state.jobs:
        _check_job(job, state, clients, dim)
    _require(len({job.ticket for job in state.jobs}) == len(state.jobs), "two jobs have one ticket")
    _require(len({job.client for job in state.jobs}) == len(state.jobs), "a client has two jobs at once")


def _check_job(job: Job, state: State, clients: Callable[[Any], bool], dim: int) -> None:
    name = f"the job of client {job.client!r}"
    _check_server(job.base, dim, f"the model of {name}")
    _require(_count(job.ticket) and job.ticket < state.ticket, f"{name} has ticket {job.ticket!r} of {state.ticket!r}")
    _require(job.base.version <= state.server.version, f"{name} is of version {job.base.version}, from the future")
    _require(_seconds(job.due) and _seconds(job.begun), f"{name} lasts from {job.begun!r} to {job.due!r}")
    _require(_seconds(job.downloaded) and _seconds(job.trained) and _count(job.received),
             f"{name} says {job.downloaded!r}, {job.trained!r}, {job.received!r} of its download and training"[:200])  # fmt: skip
    _require(isinstance(job.cohort, tuple) and all(type(c) in (int, str) and clients(c) for c in job.cohort),
             f"{name} is in the cohort {job.cohort!r}"[:200])  # fmt: skip
    _require(isinstance(job.memory, dict), f"the drawer of {name} is {job.memory!r}"[:200])
    _require(isinstance(job.lost, str) and isinstance(job.sent, bool) and isinstance(job.message, bytes | None),
             f"{name} has a fate or a message of another type")  # fmt: skip
    _require(job.begun <= job.due, f"{name} lasts from {job.begun!r} to {job.due!r}")
    _require(job.message is not None or not job.sent, f"{name} has been sent, and there is no message")


def _check_server(server: Server, dim: int, name: str) -> None:
    params = server.params
    _require(isinstance(params, np.ndarray) and params.dtype == np.float32 and params.shape == (dim,),
             f"{name} has no model of {dim} float32 numbers")  # fmt: skip
    _require(bool(np.isfinite(params).all()), f"the parameters of {name} are not all finite")
    _require(_count(server.version), f"the version of {name} is {server.version!r}")
    _require(isinstance(server.extras, dict) and all(isinstance(v, np.ndarray) for v in server.extras.values()),
             f"{name} broadcasts what is no array")  # fmt: skip
    _require(isinstance(server.state, dict), f"the private state of {name} is {server.state!r}"[:200])


def _require(right: bool, otherwise: str) -> None:
    if not right:
        raise ValueError(otherwise)


def _count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, np.complexfloating)


def _numbers(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind in "fiu"


def _seconds(value: Any) -> bool:
    return _number(value) and not isinstance(value, bool) and 0 <= value < math.inf


def _server(server: Server) -> dict[str, Any]:
    values = {"params": server.params, "version": server.version, "extras": dict(server.extras), "state": dict(server.state)}
    return {name: _plain(value, f"the server's {name}") for name, value in values.items()}


def _plain(value: Any, where: str) -> Any:
    """Plain data, marked where the type would be lost; ValueError, with the place, if it would be lost all the same."""
    if value is None or type(value) in (bool, float, str, bytes) or (type(value) is int and -(2**63) <= value < 2**64):
        return value
    if type(value) is list:
        return [_plain(part, f"{where}[{i}]") for i, part in enumerate(value)]
    if type(value) is tuple:
        return {"()": [_plain(part, f"{where}[{i}]") for i, part in enumerate(value)]}
    if type(value) is dict:
        for key in value:
            if type(key) is not str or (key in MARKS and len(value) == 1):
                raise ValueError(f"{where} has the key {key!r}; keys are strings, and no marks of a checkpoint")
        return {key: _plain(part, f"{where}[{key!r}]") for key, part in value.items()}
    if isinstance(value, np.generic):
        return {"np": _array(np.array(value), where)}
    if type(value) is np.ndarray:
        columns = value.flags.f_contiguous and not value.flags.c_contiguous
        return {"F": _array(value.T, where)} if columns else _array(value, where)
    raise ValueError(f"{where} is {value!r}"[:160] + f", and a {type(value).__name__} would not come back as what it is")


def _array(array: np.ndarray, where: str) -> np.ndarray:
    if array.dtype.kind not in "fiub" or array.dtype.itemsize > 8 or not array.dtype.isnative or array.dtype == np.float16:
        raise ValueError(f"{where} is an array of {array.dtype}, which would not come back as what it is")
    return array


def _exact(plain: Any) -> Any:
    if isinstance(plain, list):
        return [_exact(part) for part in plain]
    if not isinstance(plain, dict):
        return plain
    match plain:
        case {"()": list(parts)} if len(plain) == 1:
            return tuple(_exact(part) for part in parts)
        case {"np": np.ndarray() as array} if len(plain) == 1 and array.shape == ():
            return array[()]
        case {"F": np.ndarray() as array} if len(plain) == 1:
            return array.T
    return {key: _exact(part) for key, part in plain.items()}


def _place(index: Any, bases: list[Server]) -> int:
    if type(index) is not int or not 0 <= index < len(bases):
        raise ValueError(f"a job starts from model {index!r} of {len(bases)}")
    return index
