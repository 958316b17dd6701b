"""A state in a file, written so that a crash at any moment leaves the old file or the new one, never a torn one.

The file is one message of the wire format (plain data and arrays, a checksum, no pickle), so a damaged or foreign file is
refused, and opening one cannot run code. It also holds the facts that decide its run (identity.py): another experiment
refuses it, and says which fact differs. What a run carries is secret where its noise or its clients' drawers are; so is the
file.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..core import FederatedError, Server
from ..files import write
from ..wire.messages import frame, unframe
from .archive import check, from_plain, to_plain
from .archive import difference as state_difference
from .coordinator import Coordinator
from .entries import check_entries
from .history import History, describe, state_of
from .identity import difference, facts
from .state import Job, State

FORMAT = 2                # 1 was a list without this number, and told experiments apart by their repr


class CheckpointError(FederatedError):
    """The file is damaged, foreign, or of another experiment. Nothing has been changed."""


def save(path: str | Path, state: State | History, experiment: Coordinator) -> None:
    """Write the state atomically (files.py): a crash leaves the older file or the new one. A link is followed.

    Before, the file is read back and compared to the last bit and
    type: CheckpointError, with the name of the place, for a drawer that holds what would not come back.

    A private run must not be branched: a state that is resumed twice releases twice, while each branch's ledger charges
    once. A secret tree draws new noise for each branch, a seeded one repeats it. Save before a model leaves the house; go on
    from the newest file only, and from each file once.
    """
    _check_experiment(experiment)
    state = _state_of(state)
    try:
        plain = to_plain(state)
        message = frame("checkpoint", {"format": FORMAT, "facts": facts(experiment), "state": plain})
        back = from_plain(unframe(message, "checkpoint")["state"])
        if where := state_difference(state, back):
            raise ValueError(f"{where} would not come back as what it is")
        _check(back, experiment)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise CheckpointError(f"the state cannot be saved: {error}; drawers hold plain data and arrays") from error
    target = Path(os.path.realpath(path))
    if _kind(target) not in ("nothing", "a file"):
        raise CheckpointError(f"{path} is {_kind(target)}, and a checkpoint would take its place; give the name of a file")
    write(path, message, secret=True)


def load(path: str | Path, experiment: Coordinator) -> State:
    """Read a state that `save` wrote for an experiment of which everything is equal that decides a run: its data, model,
    parts, numbers and functions. Raises CheckpointError otherwise, and says what differs.

    A private run goes on from it once: see `save`.
    """
    _check_experiment(experiment)
    try:
        if _kind(Path(path)) not in ("nothing", "a file"):
            raise CheckpointError(f"{path} cannot be read: it is {_kind(Path(path))}")
        content = Path(path).read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
    try:
        body = unframe(content, "checkpoint")
        if isinstance(body, list):
            description, data, packed = body
            state, parted = _unpack_old(packed), _old_difference(description, data, experiment)
        else:
            if body["format"] != FORMAT:
                raise ValueError(f"its format is {body['format']!r}, this program writes {FORMAT}")
            state, parted = from_plain(body["state"]), difference(_texts(body["facts"]), facts(experiment))
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError) as error:
        hint = "; it looks like a history: that holds records, and no state" if content[:1] == b"{" else ""
        raise CheckpointError(f"{path} is not a whole checkpoint of this course: {error}{hint}"[:600]) from error
    if parted:
        name, saved, here = (text[:200] for text in parted)
        elsewhere = ", on other data or with another model" if name.split(".")[0] in ("data", "model") else ""
        shown = f" of {experiment.data!r}"[:200] if name.startswith("data") else ""
        raise CheckpointError(
            f"{path} belongs to another experiment{elsewhere}:\n  saved: {name}={saved}\n  this:  {name}={here}{shown}"
        )
    try:
        _check(state, experiment)
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{path} is not a whole checkpoint of this course: {error}") from error
    return state


def _check(state: State, experiment: Coordinator) -> None:
    known = set(experiment.data.ids)
    check(state, known.__contains__, experiment.model.dim)
    check_entries(state, experiment)


def _check_experiment(given: Any) -> None:
    if not isinstance(given, Coordinator):
        raise TypeError(f"experiment must be the Coordinator whose run this is, not {given!r}"[:200])


def _state_of(given: Any) -> State:
    """What is to be saved, or a sentence about what was given instead."""
    try:
        state = state_of(given)
    except ValueError as why:
        raise CheckpointError(str(why)) from why
    if state is None:
        raise TypeError("state is None: there is nothing to save; give the State or the History that run or train gave")
    return state


def _kind(path: Path) -> str:
    """What a path leads to, in words."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return "nothing"
    except OSError as error:
        return f"no way to a file ({error.strerror})"
    kinds = ((stat.S_ISREG, "a file"), (stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"))
    return next((word for is_kind, word in kinds if is_kind(mode)), "a device")


def _texts(facts: Any) -> dict[str, str]:
    if not isinstance(facts, dict) or not all(isinstance(text, str) for fact in facts.items() for text in fact):
        raise ValueError("its experiment has no facts")
    return facts


# --- files of format 1 -----------------------------------------------------------------------------------------------


def _old_difference(description: Any, data: Any, experiment: Coordinator) -> tuple[str, str, str] | None:
    """As far as a repr can tell: what both descriptions name must be equal. Fields that only one of them has are newer."""
    if not isinstance(description, str) or not isinstance(data, bytes):
        raise ValueError("it holds no description of an experiment")
    if data != _old_fingerprint(experiment):
        return "data", data.hex()[:16], _old_fingerprint(experiment).hex()[:16]
    return _parted("experiment", description, describe(experiment))


def _parted(name: str, saved: str, here: str) -> tuple[str, str, str] | None:
    """The first field whose text differs, in two reprs of the same kind of object."""
    if saved == here:
        return None
    (kind, old), (other, new) = _call(saved), _call(here)
    if kind != other or not old or not new:
        return name, saved[:200], here[:200]
    return next((found for field in old if field in new and field not in ("strict", "evaluation", "together")
                 and (found := _parted(field, old[field], new[field]))), None)  # fmt: skip


def _call(text: str) -> tuple[str, dict[str, str]]:
    """("Dense", {"sizes": "(5, 3)"}) for "Dense(sizes=(5, 3))"; no fields if it is nothing of that form."""
    if not (match := re.fullmatch(r"(\w+)\((\w+=.*)\)", text, re.DOTALL)):
        return text, {}
    fields, depth, start, quote = [], 0, 0, ""
    inside = match[2]
    for i, letter in enumerate(inside):
        if quote or letter in "'\"":
            quote = "" if letter == quote else quote or letter
        depth += (letter in "([{") - (letter in ")]}") if not quote else 0
        if letter == "," and not depth and not quote:
            fields.append(inside[start:i])
            start = i + 2
    pairs = (field.partition("=") for field in [*fields, inside[start:]])
    return match[1], {name: value for name, _, value in pairs}


def _old_fingerprint(experiment: Coordinator) -> bytes:
    """32 bytes that depend on every example, on who holds it, and on the model's shapes, which a repr only summarises."""
    data, digest = experiment.data, hashlib.sha256()
    layout = (data.ids, [len(rows) for rows in (*data.train, *data.test)], data.x.shape, experiment.model.shapes())
    digest.update(repr(layout).encode())
    for array in (data.x, data.y, data.x_test, data.y_test, *data.train, *data.test):
        digest.update(np.ascontiguousarray(array).data)
    return digest.digest()


def _unpack_old(body: Mapping[str, Any]) -> State:
    bases = [Server(*base) for base in body["bases"]]
    jobs = tuple(
        Job(due, ticket, client, tuple(cohort), bases[base], memory, begun, lost, message, sent)
        for due, ticket, client, cohort, base, memory, begun, lost, message, sent in body["jobs"]
    )
    memory, reports = dict(map(tuple, body["memory"])), dict(map(tuple, body["reports"]))
    return State(Server(*body["server"]), body["clock"], body["ticket"], memory, reports, jobs)
