"""Jobs on their way to clients elsewhere, what comes back, and who carries them. All of it as bytes, too.

    frame "orders"     [[ticket, client, cohort, model message, drawer or None], …]
    frame "answers"    [[ticket, update message or None, why there is none, bug, keeps, {what it says}], …]
    frame "drawers"    what a node remembers of its clients, between two messages
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from ..core import ClientId, Server
from ..wire.messages import WireError, frame, unframe
from .archive import from_plain, to_plain
from .state import State


@dataclass(frozen=True)
class Order:
    """A job, as it is sent out: the client starts from the decoded model, like everybody else."""

    ticket: int                         # names the job, once a run
    client: ClientId
    cohort: tuple[ClientId, ...]        # who was asked beside it
    model: bytes                        # wire.messages.encode_model, for this client
    drawer: int | None = None           # go on from the drawer as it was after the job of this number; None: from an empty one


@dataclass(frozen=True)
class Answer:
    """What comes back: the encoded update, or why there is none."""

    ticket: int
    message: bytes | None = None        # wire.messages.encode_update
    lost: str = ""                      # "its node is gone", "ValueError: …"
    bug: bool = False                   # it was an exception that nobody foresaw; if everybody has one, it is the program's
    keeps: bool = False                 # whether the client's drawer holds anything now
    says: Mapping[str, float] = field(default_factory=dict)     # what its client halves wrote to ctx.state, each a largest


class Post(Protocol):
    """Carries orders to clients. Who answers twice, late, or what nobody ordered costs nothing: only its ticket counts."""

    def here(self) -> set[ClientId]:
        """The clients that can be sent something now."""

    def send(self, orders: Sequence[Order]) -> None: ...

    def answers(self, seconds: float) -> Sequence[Answer]:
        """What has come in. Waits for the first at most so many real seconds. A client that will not answer any more is
        answered for, with `lost`."""

    def ask(self, what: str, questions: Mapping[ClientId, bytes]) -> Mapping[ClientId, bytes]:
        """Put a question each to some clients and wait. Who does not answer is missing. Only some parts ask anything."""


def encode_orders(orders: Sequence[Order]) -> bytes:
    return frame("orders", [[o.ticket, o.client, list(o.cohort), o.model, o.drawer] for o in orders])


def decode_orders(message: bytes) -> list[Order]:
    """WireError for anything else."""
    rows = _rows(unframe(message, "orders"), 5)
    for ticket, client, cohort, model, drawer in rows:
        names = type(client) in (int, str) and isinstance(cohort, list) and all(type(c) in (int, str) for c in cohort)
        if not (_count(ticket) and names and isinstance(model, bytes) and (drawer is None or _count(drawer))):
            raise WireError(f"an order for client {client!r} is none"[:200])
    return [Order(ticket, client, tuple(cohort), model, drawer) for ticket, client, cohort, model, drawer in rows]


def encode_answers(answers: Sequence[Answer]) -> bytes:
    return frame("answers", [[a.ticket, a.message, a.lost, a.bug, a.keeps, dict(a.says)] for a in answers])


def decode_answers(message: bytes) -> list[Answer]:
    """WireError for anything else. The update messages are as they are: whoever uses one decodes and checks it."""
    rows = _rows(unframe(message, "answers"), 6)
    for ticket, update, lost, bug, keeps, says in rows:
        numbers = isinstance(says, dict) and all(type(v) is float and not math.isnan(v) for v in says.values())
        form = _count(ticket) and isinstance(update, bytes | None) and isinstance(lost, str)
        if not (form and type(bug) is type(keeps) is bool and numbers and len(says) < 100):
            raise WireError(f"the answer to job {ticket!r} is none"[:200])
    return [Answer(ticket, update, lost[:500], *rest) for ticket, update, lost, *rest in rows]


def encode_drawers(drawers: Mapping[ClientId, Mapping[str, Any]]) -> bytes:
    """As a checkpoint keeps them, exactly. ValueError, naming the place, for what would not come back as what it is."""
    return frame("drawers", to_plain(State(Server(np.zeros(0, np.float32)), memory={k: dict(v) for k, v in drawers.items()})))


def decode_drawers(message: bytes) -> dict[ClientId, dict[str, Any]]:
    return {client: dict(drawer) for client, drawer in from_plain(unframe(message, "drawers")).memory.items()}


def _rows(body: Any, width: int) -> list[list[Any]]:
    if not isinstance(body, list) or not all(isinstance(row, list) and len(row) == width for row in body):
        raise WireError(f"the message does not hold rows of {width} fields")
    return body


def _count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63
