"""What a run carries from one step to the next: the server, every client's drawer, and the clients still at work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..core import ClientId, Memory, Server, Span, Update


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
    message: bytes | memoryview | None = None   # the encoded update, once trained
    sent: bool = False                  # it is on its way, and due is when it arrives
    downloaded: float = 0.0             # when the model had arrived
    trained: float = 0.0                # when its training ends, or would have
    received: int = 0                   # bytes of the broadcast

    @property
    def dropped_out(self) -> str:
        """What `lost` says of a client that vanished; any other text says how it failed."""
        return f"client {self.client!r} dropped out"

    @property
    def vanished(self) -> bool:
        return self.lost == self.dropped_out

    def span(self, ended: float, fate: str = "") -> Span:
        """Its line in the record: what became of it, and when."""
        fate = fate or ("dropped out" if self.vanished else "failed")
        nbytes = len(self.message or b"") if self.sent else 0
        return Span(self.client, self.base.version, self.begun, self.downloaded, self.trained, ended, nbytes, fate)


@dataclass(frozen=True)
class State:
    """Everything that a run carries from one step to the next. Saved to a file, it continues bit for bit."""

    server: Server
    clock: float = 0.0
    ticket: int = 0                                                    # jobs started so far
    memory: Mapping[ClientId, Memory] = field(default_factory=dict)    # each client's own drawer
    reports: Mapping[ClientId, Mapping[str, Any]] = field(default_factory=dict)    # what a selector may know, see below
    jobs: tuple[Job, ...] = ()                                         # clients still at work (buffered schedules)
    sent: int = 0                                                      # bytes so far, both ways, all purposes


def by_name(client: ClientId) -> tuple[bool, ClientId]:
    """The order of clients: numbers first, then words. `sorted(clients, key=by_name)`"""
    return isinstance(client, str), client


def booked(drawer: Memory) -> Memory:
    """The drawer when a message leaves its client: its books count one more, whatever becomes of the message."""
    books = drawer.get("books", {})
    return {**drawer, "books": {**books, "sent": books.get("sent", 0) + 1}}


# What the server knows of a client that it ever asked, as a selector reads it in reports[client]:
#
#     asked, answered     how often it was asked to train, how many of its answers were used
#     asked_version       the last version for which it was asked to train
#     and of its last answer that was used:
#     version, seconds    the model that it started from, and how long it took in all (simulated)
#     download_seconds, compute_seconds, upload_seconds, bytes_down, bytes_up
#     its own metrics     examples, steps, loss_first, loss_last: a client's word
#     update              its change of the model (d,), per unit of weight, if the selector says keeps_updates
#     probe_…             what it last answered to the selector's question, at probe_version

COUNTED = ("asked", "answered", "asked_version")


def asked(report: Mapping[str, Any], version: int) -> dict[str, Any]:
    """The report of a client that is asked to train."""
    return {**report, "asked": report.get("asked", 0) + 1, "asked_version": version}


def answered(report: Mapping[str, Any], update: Update, job: Job, seconds: float, upload: float) -> dict[str, Any]:
    """The report of a client whose answer was used. seconds: since the broadcast; upload: of them for the way back."""
    kept = {name: value for name, value in report.items() if name in COUNTED or name.startswith("probe_")}
    said = {name: value for name, value in update.metrics.items() if not name.startswith("probe_") and name != "update"}
    return {
        **said, **kept, "answered": report.get("answered", 0) + 1, "version": float(update.version), "seconds": seconds,
        "download_seconds": job.downloaded - job.begun, "compute_seconds": job.trained - job.downloaded,
        "upload_seconds": upload, "bytes_down": job.received, "bytes_up": len(job.message or b""),
    }  # fmt: skip


def heard(reports: Mapping[ClientId, Mapping[str, Any]]) -> bool:
    """Whether anybody has ever answered."""
    return any("version" in report for report in reports.values())
