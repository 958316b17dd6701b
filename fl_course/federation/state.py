"""What a run carries from one step to the next: the server, every client's drawer, and the clients still at work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..core import ClientId, Memory, Server


@dataclass(frozen=True)
class Job:
    """A client at work: due when its training ends, and again when its answer has crossed the network.

    It keeps what belongs to its version: the model, the cohort, a copy of the drawer. The session of its version needs no
    keeping: who may find something there trains before the server steps.
    """

    due: float
    ticket: int
    client: ClientId
    cohort: tuple[ClientId, ...]
    base: Server                        # as the client decoded it
    memory: Memory                      # a copy of the client's drawer; put back when the answer arrives, its books before
    begun: float
    lost: str = ""                      # why it will never answer
    message: bytes | None = None        # the encoded update, once trained
    sent: bool = False                  # it is on its way, and due is when it arrives

    @property
    def dropped_out(self) -> str:
        """What `lost` says of a client that vanished; any other text says how it failed."""
        return f"client {self.client!r} dropped out"

    @property
    def vanished(self) -> bool:
        return self.lost == self.dropped_out


@dataclass(frozen=True)
class State:
    """Everything that a run carries from one step to the next. Saved to a file, it continues bit for bit."""

    server: Server
    clock: float = 0.0
    ticket: int = 0                                                    # jobs started so far
    memory: Mapping[ClientId, Memory] = field(default_factory=dict)    # each client's own drawer
    reports: Mapping[ClientId, Mapping[str, float]] = field(default_factory=dict)
    jobs: tuple[Job, ...] = ()                                         # clients still at work (buffered schedules)
    sent: int = 0                                                      # bytes so far, both ways, all purposes


def booked(drawer: Memory) -> Memory:
    """The drawer when a message leaves its client: its books count one more, whatever becomes of the message."""
    books = drawer.get("books", {})
    return {**drawer, "books": {**books, "sent": books.get("sent", 0) + 1}}
