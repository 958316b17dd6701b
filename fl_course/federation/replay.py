"""Was it so? A run once more, held against its records; and the first message in which two runs part.

    history.replay(fed)                                 the same again, or a ValueError that says where it is another run
    print(first_difference(one, other, rounds=20))      "In round 3, message 7 of 12, the answer of client 5: delta[17] is …"

To the bit, as long as no part draws numbers that nobody can predict: secret noise makes every run another one, on purpose.
Secret masks do not, for they cancel out; what they hide is not compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import numpy as np

from ..core import ClientId, Record, is_whole
from ..wire.frames import overheard, unframe
from ..wire.masked import Masked
from ..wire.messages import decode_update
from ..wire.payloads import Payload, numbers
from .state import State

Message = tuple[str, bytes]                                     # kind, and what crossed the network
NAMES = {
    "model": ("version", "params", "extras"),
    "update": ("client", "version", "delta", "weight", "extras", "metrics"),
    "probe": ("client", "version", "answers"),
    "evaluation": ("client", "version", "examples", "measure"),
}
WORDS = {"model": "the model", "update": "the answer", "probe": "the answer to the selector's question",
         "evaluation": "the measure", "question": "the selector's question"}  # fmt: skip
SECAGG = tuple(f"secagg-{step}" for step in ("advertise", "shares", "masked", "consistent", "unmasked"))      # a client's
FIRST = ("clients", "staleness", "events", "metrics")           # of a record: what says most stands before what follows from it


@dataclass(frozen=True)
class Difference:
    """Where two runs part. A number of a message or record is named as Python would: delta[17], metrics['loss']."""

    version: int                        # the round, counted as in the records: of the model after it
    text: str                           # the sentence
    purpose: str = ""                   # of the first message that differs: "model", "update" …; "" if no message does
    client: ClientId | None = None      # who sent it, if one did
    message: int | None = None          # its number in the round, from 1
    place: str = ""                     # in the message, or else in the record

    def __str__(self) -> str:
        return self.text


def replayed(records: Sequence[Record], final: Any, experiment: Any, state: State | None = None) -> State:
    """The state after the same rounds, taken once more from `state`, or from the beginning. ValueError at the first record that
    is not the same to the bit, or if the last model is not (final: the state that the run left, where it is known)."""
    want = {record.version: record for record in records}
    begin = experiment.initial() if state is None else state
    start = begin.server.version
    if not records or not start < records[0].version:
        raise ValueError(f"there is nothing to replay from version {start}: the records are of versions {sorted(want)}"[:300])
    now = begin
    for after, record in experiment.run(records[-1].version - start, begin):
        now = after
        if found := unlike(want.get(record.version, record), record):
            raise ValueError(f"round {record.version} is another one: {_then(found)}{_secret(experiment)}")
    if now.server.version < records[-1].version:
        raise ValueError(f"the run ends after round {now.server.version}, and the records go to {records[-1].version}")
    if isinstance(final, State) and (found := unlike(final.server.params, now.server.params, "params")):
        raise ValueError(f"the records are the same and the last model is not: {_then(found)}{_secret(experiment)}")
    return now


def first_difference(one: Any, other: Any, rounds: int, state: State | None = None) -> Difference | None:
    """Where two experiments first part when they run so many rounds, each for itself; None if they never do.

    state: where both begin; by default each at its own beginning. Every message that either of them encodes is compared with
    the other's of the same number, and every record.
    """
    if not is_whole(rounds, 1):
        raise ValueError(f"rounds must be a whole number from 1, not {rounds!r}")
    runs = [_listen(fed.run(rounds, state)) for fed in (one, other)]
    secret, masks = _secret(one) or _secret(other), any(_draws(fed, "round_seed") for fed in (one, other))
    early: Difference | None = None                            # a record that differs behind messages that do not
    for (mine, messages, why), (its, others, reason) in zip(*runs, strict=False):
        last = mine or its
        if last is None:
            break
        said = f"{early.text} " if early else ""
        if mine is None or its is None:
            ended, cause = ("first", why) if mine is None else ("second", reason)
            return Difference(last.version, f"{said}The {ended} run ends before round {last.version}: {cause}.")
        if masks:
            messages, others = ([message for message in some if not _masked(message)] for some in (messages, others))
        if found := _first_message(last.version, messages, others, secret):
            return replace(found, text=said + found.text)
        if early is None and (parted := unlike(mine, its)):
            text = f"The messages of round {last.version} are the same and its records are not: {_both(*parted)}."
            early = Difference(last.version, text, place=parted[0])
    return early and replace(early, text=f"{early.text} No later message differs{secret}.")


def _listen(run: Any) -> Iterator[tuple[Record | None, list[Message], str]]:
    """Each round's record and all its messages; after the last one (None, what was sent all the same, why it ended)."""
    while True:
        with overheard() as messages:
            try:
                record, why = next(run)[1], ""
            except StopIteration as end:
                record, why = None, end.value or "all its rounds are taken"
        yield record, messages, why
        if record is None:
            return


def _first_message(version: int, mine: Sequence[Message], others: Sequence[Message], secret: str) -> Difference | None:
    for i in range(max(len(mine), len(others))):
        a, b = (some[i] if i < len(some) else None for some in (mine, others))
        if a == b:
            continue
        kind, message = one = a or b or ("", b"")
        client, place = _sender(one), ""
        where = f"In round {version}, message {i + 1} of {len(mine if a else others)}"
        if a is None or b is None:
            text = f"{where}, {_called(one)}, is one that the {'first' if a is None else 'second'} run does not send"
        elif (kind, client) != (b[0], _sender(b)):
            text = f"{where} is {_called(a)} in the first run and {_called(b)} in the second"
        else:
            size = f"{len(message):,} bytes" + (f" and {len(b[1]):,}" if len(message) != len(b[1]) else "")
            place, *values = _inside(kind, message, b[1])
            text = f"{where}, {_called(one)} ({size}): {_both(place, *values)}"
        return Difference(version, f"{text}{secret}.", kind, client, i + 1, place)
    return None


def _inside(kind: str, message: bytes, other: bytes) -> tuple[str, Any, Any]:
    """The first place in two messages of one kind that differ, and what stands there. A payload is read as the numbers that it
    stands for; if those are the same, as it was encoded."""
    if kind == "update":
        one, two = decode_update(message).delta, decode_update(other).delta
        if type(one) is not type(two):
            return "delta", type(one), type(two)
        if isinstance(one, Payload) and not isinstance(one, Masked) and (found := unlike(numbers(one), numbers(two), "delta")):
            return found
    bodies = []
    for body in (unframe(message, kind), unframe(other, kind)):
        names = NAMES.get(kind, ())
        bodies.append(dict(zip(names, body, strict=True)) if len(names) == len(body) else {"body": body})
    for name in bodies[0]:
        if found := unlike(bodies[0][name], bodies[1].get(name), name):
            return found
    return "its bytes", "one order", "another"


def unlike(a: Any, b: Any, place: str = "") -> tuple[str, Any, Any] | None:
    """The first place where two things made of records, lists, dictionaries, arrays and numbers are not the same to the bit,
    and both values there; None if they are."""
    if type(a) is type(b) and is_dataclass(a):
        names = sorted((f.name for f in fields(a)), key=lambda name: FIRST.index(name) if name in FIRST else len(FIRST))
        dot = f"{place}." if place else ""
        return next((found for name in names if (found := unlike(getattr(a, name), getattr(b, name), dot + name))), None)
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        if (a.dtype, a.shape) != (b.dtype, b.shape):
            return place, f"{a.dtype} of shape {a.shape}", f"{b.dtype} of shape {b.shape}"
        rows = [np.ascontiguousarray(v).reshape(-1).view(np.uint8).reshape(v.size, v.itemsize) for v in (a, b)]
        at = np.flatnonzero((rows[0] != rows[1]).any(axis=1))
        if not len(at):
            return None
        where = tuple(int(i) for i in np.unravel_index(at[0], a.shape))
        return f"{place}[{', '.join(map(str, where))}]", a[where], b[where]
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        keys: Any = [*a, *(key for key in b if key not in a)]
        pairs: Any = ((f"[{key!r}]", a.get(key, NOTHING), b.get(key, NOTHING)) for key in keys)
    elif isinstance(a, list | tuple) and isinstance(b, list | tuple):
        longer = range(max(len(a), len(b)))
        pairs = ((f"[{i}]", *(v[i] if i < len(v) else NOTHING for v in (a, b))) for i in longer)
    else:
        same = repr(a) == repr(b) if isinstance(a, float) else type(a) is type(b) and bool(a == b)      # NaN, minus zero
        return None if same else (place, a, b)
    return next((found for key, u, v in pairs if (found := unlike(u, v, place + key))), None)


class _Nothing:
    def __repr__(self) -> str:
        return "nothing"


NOTHING = _Nothing()


def _both(place: str, a: Any, b: Any) -> str:
    return f"{place} is {_short(a)} in the first run and {_short(b)} in the second"


def _then(found: tuple[str, Any, Any]) -> str:
    place, before, now = found
    return f"{place} was {_short(before)} and is now {_short(now)}"


def _short(value: Any) -> str:
    text = value.__name__ if isinstance(value, type) else str(value) if isinstance(value, np.generic) else repr(value)
    return text if len(text) <= 120 else f"{text[:60]} … {text[-40:]}"


def _called(message: Message) -> str:
    client = _sender(message)
    return WORDS.get(message[0], f"a message {message[0]!r}") + ("" if client is None else f" of client {client!r}")


def _sender(message: Message) -> ClientId | None:
    """Whose message it is; None if it is the server's."""
    kind, body = message[0], unframe(*message[::-1])
    if "client" in NAMES.get(kind, ()):
        return body[0]
    return body[1] if kind in SECAGG else None


def _masked(message: Message) -> bool:
    """Whether the secrets of a secure sum are in it."""
    return message[0].startswith("secagg") or (message[0] == "update" and isinstance(decode_update(message[1]).delta, Masked))


def _draws(experiment: Any, seed: str) -> list[str]:
    """The parts whose numbers nobody can predict, because this seed of theirs is None."""
    parts = [*experiment.pipeline, experiment.training.private]
    return [type(part).__name__ for part in parts if part is not None and getattr(part, seed, 0) is None]


def _secret(experiment: Any) -> str:
    names = ", ".join(_draws(experiment, "noise_seed"))
    return f" ({names}: noise that nobody can predict, so no two runs are the same; noise_seed=0 repeats it)" if names else ""
