"""The nouns of federated learning, and random streams that have a name.

    d        number of trainable parameters
    (d,)     a model, or a change of a model, flattened, float32   -> `Vector`
    bytes    what crosses the network, measured on the message that was really encoded
    seconds  simulated wall clock, never the real one              -> `clock`

Sign convention, everywhere: delta = local - broadcast, so that the server *adds* the mean delta (Reddi et al. 2021).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field, fields
from decimal import Decimal
from numbers import Real
from typing import Any, TypeGuard, TypeVar

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float32]
ClientId = int | str
T = TypeVar("T")
Memory = dict[str, Any]


class FederatedError(Exception):
    """Base of the errors that this package raises on purpose, beside ValueError and TypeError for bad arguments."""


class CompositionError(FederatedError, ValueError):
    """Mechanisms that are each fine and unsound together. Raised when the experiment is built, never during a run."""


class ClientFailure(FederatedError):
    """One client cannot answer (bad data, non-finite update). The round goes on without it and records why.

    Raise it on purpose, in a correction or in the client half of a stage. Any other exception there, and None where an
    update should be, costs that client's answer just so, and the event has its type and text; because it may also be a bug
    in the program, Python warns once a run, and if everybody who is asked fails so, the first one is raised as it was.
    Coordinator(strict=True) raises at the first failure of either kind.
    """


class BudgetSpent(FederatedError):
    """A stage cannot afford another round. The run ends before the round, with the last model and this reason."""


def is_whole(value: object, least: int | None = None) -> TypeGuard[int]:
    """Whether it is a whole number, from `least` on: Python's or NumPy's; 3.0, True and "3" are none."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        return False
    return least is None or int(value) >= least


def plain_counts(part: Any) -> None:
    """NumPy's whole numbers in the fields of a frozen dataclass become Python's: equal parts have equal reprs."""
    for name in (each.name for each in fields(part)):
        if isinstance(value := getattr(part, name), np.integer):
            object.__setattr__(part, name, int(value))


def whole(value: object, name: str) -> int:
    """`value` as a Python int; floats, booleans and strings are refused (TypeError), even 3.0."""
    if not is_whole(value):
        raise TypeError(f"{name} must be a whole number, not {value!r}")
    return int(value)


def fingerprint(*words: object) -> bytes:
    """32 bytes that depend on every word: the SHA-256 of their canonical text.

    A word is an int, bool, str, bytes, None, or a tuple of words. NumPy integers and strings count as Python's, so that
    `fingerprint(np.int64(3)) == fingerprint(3)`; the type is part of the text, so that 3, "3" and b"3" differ.
    """
    return hashlib.sha256(repr(tuple(_canonical(word) for word in words)).encode()).digest()


def _canonical(word: object) -> object:
    if isinstance(word, tuple | list):
        return tuple(_canonical(part) for part in word)
    if isinstance(word, bool) or word is None:
        return word
    if isinstance(word, str | bytes):
        return str(word) if isinstance(word, str) else bytes(word)
    if isinstance(word, int | np.integer):
        return int(word)
    raise TypeError(f"a random stream is named by whole numbers, strings, bytes, None and tuples of them, not by {word!r}")


def stream(seed: int, *purpose: object) -> np.random.Generator:
    """An independent random stream named by its purpose, e.g. `stream(0, "select", version)`.

    The words are hashed into the 128-bit key of a counter-based generator (Philox; Salmon et al. 2011), so two names share
    a stream only if 128 bits of SHA-256 collide, and asking for one changes no other. Do not draw secrets from it.
    """
    key = np.frombuffer(fingerprint(seed, *purpose)[:16], dtype="<u8").astype(np.uint64)
    return np.random.Generator(np.random.Philox(key=key))


def changed(record: T, **fields: Any) -> T:
    """The record with some fields changed: `dataclasses.replace` for records that check nothing when they are made. The loop
    does this several times for every client."""
    other = object.__new__(type(record))
    words, before = other.__dict__, record.__dict__
    words.update(before)
    words.update(fields)
    if len(words) > len(before):
        raise TypeError(f"{type(record).__name__} has no field {(fields.keys() - before.keys()).pop()!r}")
    return other


@dataclass(frozen=True)
class Server:
    """The server's own part of a run: the model, its version, and what belongs to them. The whole is coordinator.State."""

    params: Vector                                               # (d,)
    version: int = 0                                             # server steps taken so far
    extras: Mapping[str, Vector] = field(default_factory=dict)   # broadcast beside the model: SCAFFOLD's c
    state: Mapping[str, Any] = field(default_factory=dict)       # private: optimiser moments, clip bound, ledger


@dataclass(frozen=True)
class Task:
    """What a client is handed when a round begins."""

    client: ClientId
    server: Server                                               # as broadcast: params, version and extras only
    seed: int = 0
    memory: Memory = field(default_factory=dict)                 # the client's own drawer: residuals, personal layers

    def rng(self, *purpose: object) -> np.random.Generator:
        return stream(self.seed, *purpose, self.server.version, self.client)


@dataclass(frozen=True)
class Update:
    """What a client hands back."""

    client: ClientId
    version: int                                                 # of the model that it started from
    delta: Any                                                   # (d,) local - broadcast, or a payload with a `+`
    weight: float = 1.0
    extras: Mapping[str, Vector] = field(default_factory=dict)   # averaged beside delta: control variates
    metrics: Mapping[str, float] = field(default_factory=dict)   # examples, loss_first, loss_last, steps


@dataclass(frozen=True)
class Aggregate:
    """What the server halves of the stages see: a sum, never the updates one by one."""

    total: Any                                                   # (d,) float64, or a payload
    weight: float
    extras: Mapping[str, Vector] = field(default_factory=dict)   # plain means over the clients that arrived
    removed: tuple[ClientId, ...] = ()                           # whose updates a robust rule left out

    @property
    def mean(self) -> Vector:
        """(d,) float32: total / weight. ValueError if nothing arrived, or with weight 0 only."""
        if not self.weight > 0:
            raise ValueError(f"the updates weigh {self.weight} in all, so they have no mean")
        return np.asarray(self.total / self.weight, dtype=np.float32)


@dataclass
class Context:
    """The surroundings of a stage: who was asked, who arrived, named randomness, the client's drawer, the round's meter."""

    seed: int
    server: Server
    cohort: tuple[ClientId, ...] = ()                            # the clients that were asked
    arrived: tuple[ClientId, ...] = ()                           # the clients whose updates are in the sum
    starts: tuple[Vector, ...] = ()                              # (d,) the models that these began with, in the same order
    client: ClientId | None = None                               # None in a server half
    memory: Memory = field(default_factory=dict)                 # its drawer; kept if its update arrives ("books": once sent)
    session: dict[str, Any] = field(default_factory=dict)        # shared by all halves of one version; ends with its step
    meter: Meter = field(default_factory=lambda: Meter())
    state: dict[str, Any] = field(default_factory=dict)          # a server half writes what server.state shall keep
    broadcast: dict[str, Vector] = field(default_factory=dict)   # … and what server.extras shall tell the clients
    experiment: Any = None                                       # the Coordinator: public facts such as the cohort size

    def rng(self, *purpose: object) -> np.random.Generator:
        """A stream that belongs to this purpose, model version and client (or the server)."""
        return stream(self.seed, *purpose, self.server.version, self.client)


# Names that a record, or its row in a table, already uses.
TAKEN = frozenset({
    "version", "clock", "clients", "staleness", "upload", "bytes_up", "bytes_down", "events", "metrics", "accuracy", "loss",
    "client_accuracy", "client_accuracy_std", "client_accuracy_worst10", "train_loss_first", "train_loss_last", "drift",
    "update_norm", "update_norm_max", "update_norm_at", "clipped",
    "rmse", "r2", "client_rmse", "client_rmse_std", "client_rmse_worst10", "failed", "refused", "too_stale", "spans",
})  # fmt: skip


class Notes(MutableMapping[str, float]):
    """Metrics that a stage adds to the record. Checked where they are written, so that every record can be exported.

    A number of any kind (NumPy's and torch's too, a bool) becomes a float. NaN means "not measured" and is left out of the
    record; infinity may stand, as an ε without noise does.
    """

    def __init__(self, notes: Mapping[str, float] | None = None) -> None:
        self._notes: dict[str, float] = {}
        self.update(notes or {})

    def __setitem__(self, name: str, value: float) -> None:
        if not isinstance(name, str) or not name.strip() or not name.isprintable():
            raise ValueError(f"a note is named by a printable word, not by {name!r}")
        if name in TAKEN or name.startswith(("up_", "down_")):
            raise ValueError(f"a note cannot be named {name!r}: the record has something else of that name; choose another")
        self._notes[str(name)] = _as_float(name, value)

    def __getitem__(self, name: str) -> float:
        return self._notes[name]

    def __delitem__(self, name: str) -> None:
        del self._notes[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._notes)

    def __len__(self) -> int:
        return len(self._notes)

    def __ior__(self, other: Mapping[str, float]) -> Notes:
        self.update(other)
        return self

    def __repr__(self) -> str:
        return f"Notes({self._notes!r})"


def _as_float(name: str, value: Any) -> float:
    if getattr(value, "shape", None) == () and hasattr(value, "item"):      # NumPy's scalars, arrays and tensors without axes
        value = value.item()
    if not isinstance(value, Real):
        raise TypeError(f"the note {name!r} must be one number, not {value!r}")
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"the note {name!r} is a number beyond the range of a float") from None


@dataclass
class Meter:
    """Bytes of the messages that were really encoded, by direction and purpose, and events worth a line in the record."""

    up: dict[str, int] = field(default_factory=dict)
    down: dict[str, int] = field(default_factory=dict)
    events: list[str] = field(default_factory=list)
    notes: MutableMapping[str, float] = field(default_factory=Notes)     # extra metrics of the round: epsilon, clip bound
    counts: dict[str, int] = field(default_factory=dict)                 # the loop's own: failed, refused, too_stale
    seconds: float | Decimal = 0.0                                       # simulated, of a stage's own exchanges: see fleet.waited

    def sent_up(self, purpose: str, nbytes: int) -> None:
        _add_bytes(self.up, purpose, nbytes)

    def sent_down(self, purpose: str, nbytes: int) -> None:
        _add_bytes(self.down, purpose, nbytes)

    def count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1


def _add_bytes(sent: dict[str, int], purpose: str, nbytes: int) -> None:
    if not isinstance(purpose, str) or not (purpose in sent or (purpose.strip() and purpose.isprintable())):
        raise ValueError(f"the purpose of a message is a printable word, not {purpose!r}")
    if (size := whole(nbytes, f"bytes of {purpose!r}")) < 0:
        raise ValueError(f"bytes of {purpose!r} cannot be {nbytes}")
    if size:
        sent[purpose] = sent.get(purpose, 0) + size


@dataclass(frozen=True)
class Span:
    """One job, from the broadcast to its end, in simulated seconds since the start. What a timeline is drawn from."""

    client: ClientId
    version: int                                                 # of the model that it started from
    begun: float                                                 # the model leaves the server
    downloaded: float                                            # … has arrived
    trained: float                                               # training ends (or would have)
    ended: float                                                 # the answer is there, or the server gives it up
    nbytes: int = 0                                              # of the answer, if one was sent
    fate: str = "used"                                           # or one of FATES


FATES = ("used", "left out", "dropped out", "failed", "refused", "too stale", "too late")      # left out: by a robust rule


@dataclass(frozen=True)
class Record:
    """One line of history: what one server step did, and what it cost."""

    version: int                                                 # of the model after the step
    clock: float                                                 # simulated seconds since the start
    clients: tuple[ClientId, ...]                                # whose updates are in the step, in summing order
    staleness: tuple[int, ...]                                   # server steps between download and use, one a client
    upload: tuple[int, ...]                                      # bytes of each client's update message
    bytes_up: Mapping[str, int]                                  # by purpose: update, late, keys, shares, evaluation …
    bytes_down: Mapping[str, int]                                # by purpose: model, evaluation …
    events: tuple[str, ...] = ()                                 # drop-outs, refusals, late answers, in plain words
    metrics: Mapping[str, float] = field(default_factory=dict)   # accuracy, loss, train_loss …
    spans: tuple[Span, ...] = ()                                 # the jobs that ended in this step, in the order of their ends

    @property
    def nbytes(self) -> int:
        """Both ways, all purposes."""
        return sum(self.bytes_up.values()) + sum(self.bytes_down.values())
