"""One whole round: clients and server wired together in one process, every message recorded, anybody may vanish or lie.

`run_round` is the round in one call. A training loop, whose clients finish one by one, uses `Round` itself:

    round = Round(setup); round.open()              keys and shares, before training
    message = round.upload(client, integers)        each client, when it is done
    total = round.close()                           consistency, unmasking, the sum (or `round.aborted` says why not)
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.typing import NDArray

from ..core import ClientId
from ..wire.messages import WireError
from ..wire.ring import RingVector
from .client import SecureClient
from .field import RandomBytes
from .graph import ROUND_ID_BYTES, Setup
from .masking import SharedWork, insecure_random
from .messages import SERVER, Abort, Message, Refused
from .server import Outgoing, SecureServer

STAGES = ("advertise", "share", "upload", "consistency", "unmask")
T = TypeVar("T")
Tamper = Callable[[Message], bytes | None]               # what is delivered instead of message.data; None: nothing is


@dataclass(frozen=True)
class Transcript:
    """All that happened in a round, and what the server holds at its end."""

    setup: Setup
    sum: RingVector | None                               # (d,) modulo R; None if the round was aborted
    survivors: tuple[ClientId, ...]                      # whose inputs are in the sum
    dropped: tuple[ClientId, ...]                        # who shared secrets and did not upload
    messages: tuple[Message, ...]                        # as delivered, in order
    server_view: Mapping[ClientId, RingVector]           # the masked vectors
    opened_seeds: tuple[ClientId, ...]                   # whose self-mask seed the server rebuilt
    opened_keys: tuple[ClientId, ...]                    # whose mask key it rebuilt; never the same client
    liars: tuple[ClientId, ...]                          # whose shares were found to be wrong
    aborted: str | None                                  # the server's reason, None if there is a sum
    events: tuple[str, ...]                              # drop-outs and refusals, in plain words

    def bytes_by_kind(self) -> dict[str, int]:
        """Bytes that crossed the network, by kind of message."""
        count: Counter[str] = Counter()
        for message in self.messages:
            count[message.kind] += message.nbytes
        return dict(count)


@dataclass
class Round:
    """Clients and server of one round, in one process.

    setup         the public parameters
    drops         client -> the stage before whose message it vanishes: one of STAGES
    model_hash    hash of the model all clients received; `model_hashes` overrides it for single clients
    seed          None: secrets come from the operating system. A number: reproducible, and not secure at all
    shared_work   do once what two ends of a pair do alike (see SharedWork): same bits, half the time
    tamper        sees every message on its way and returns what is delivered: the network, or a lying server
    clients       made here, unless they are elsewhere: then what stands for them, with their public identity keys in
                  `directory`; `ahead` is told all the messages of a stage before they are delivered one by one
    """

    setup: Setup
    drops: Mapping[ClientId, str] = field(default_factory=dict)
    model_hash: bytes = b""
    model_hashes: Mapping[ClientId, bytes] = field(default_factory=dict)
    seed: int | None = None
    shared_work: bool = False
    tamper: Tamper | None = None
    clients: dict[ClientId, Any] = field(default_factory=dict)           # SecureClient
    directory: dict[ClientId, bytes] = field(default_factory=dict)
    ahead: Callable[[str, Mapping[ClientId, bytes]], None] | None = None

    messages: list[Message] = field(default_factory=list, init=False)
    events: list[str] = field(default_factory=list, init=False)
    aborted: str | None = field(default=None, init=False)
    server: SecureServer = field(init=False)
    _present: set[ClientId] = field(default_factory=set, init=False)

    def __post_init__(self) -> None:
        for client, stage in self.drops.items():
            if client not in self.setup.position or stage not in STAGES:
                raise ValueError(f"drops: {client!r} at {stage!r}; name a client of the cohort and one of {STAGES}")
        self._present = set(self.setup.cohort)
        if self.clients:
            self.server = SecureServer(self.setup, self.directory, model_hash=self.model_hash)
            return
        sources = {i: self._random("client", i) for i in self.setup.cohort}
        # Identity keys outlive rounds and are known from somebody trusted; a simulation makes them on the spot.
        identities = {i: Ed25519PrivateKey.from_private_bytes(sources[i](32)) for i in self.setup.cohort}
        directory = {i: key.public_key().public_bytes_raw() for i, key in identities.items()}
        shared = SharedWork() if self.shared_work else None
        self.server = SecureServer(self.setup, directory, model_hash=self.model_hash)
        for i in self.setup.cohort:
            self.clients[i] = SecureClient(
                self.setup, i, identities[i], directory, model_hash=self.model_hashes.get(i, self.model_hash),
                random_bytes=sources[i], shared=shared,
            )  # fmt: skip

    def _random(self, *purpose: object) -> RandomBytes:
        return secrets.token_bytes if self.seed is None else insecure_random(self.seed, self.setup.round_id, *purpose)

    # --- the five stages ---------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Advertise and share keys. Afterwards `ready` can upload, or `aborted` is the reason why nobody can."""
        for i in self.setup.cohort:
            self._up("advertise", i, self.clients[i].advertise)
        rosters = self._close(self.server.close_advertise)
        for i, roster in self._down(rosters, "secagg-roster", "share"):
            self._up("share", i, self.clients[i].share_keys, roster)
        inboxes = self._close(self.server.close_share)
        for i, inbox in self._down(inboxes, "secagg-inbox", "receive"):
            self._try(i, self.clients[i].receive_shares, inbox)

    @property
    def ready(self) -> tuple[ClientId, ...]:
        """The clients that may upload now, in cohort order."""
        return tuple(i for i in self.setup.cohort if i in self._present and self.clients[i].stage == "ready")

    def upload(self, client: ClientId, vector: NDArray[np.integer], arrives: bool = True) -> bytes | None:
        """Mask one client's (d,) integers. Returns its message, None if the client has left the round.

        arrives   False if the loop hands the masked vectors to `close` itself, or lost this one on the way
        """
        return self._up("upload", client, self.clients[client].upload, vector, arrives=arrives)

    def close(self, total: RingVector | None = None, uploaders: tuple[ClientId, ...] = ()) -> RingVector | None:
        """Consistency and unmasking: the (d,) sum modulo R, or None and `aborted` tells why.

        `total` and `uploaders` stand for the uploads if the loop has added the masked vectors itself.
        """
        if self.aborted is None and total is not None:
            self.server.receive_sum(total, uploaders)
        for i, survivors in self._down(self._close(self.server.close_upload), "secagg-survivors", "consistency"):
            self._up("consistency", i, self.clients[i].sign_survivors, survivors)
        for i, request in self._down(self._close(self.server.close_consistency), "secagg-unmask", "unmask"):
            self._up("unmask", i, self.clients[i].unmask, request)
        return self._close(self.server.finish)

    def transcript(self, total: RingVector | None) -> Transcript:
        server = self.server
        return Transcript(
            self.setup, total, server.survivors if total is not None else (), server.dropped, tuple(self.messages),
            dict(server.view), tuple(server.opened_seeds), tuple(server.opened_keys),
            self.setup.in_order(server.liars), self.aborted, tuple(self.events),
        )  # fmt: skip

    # --- the network -------------------------------------------------------------------------------------------------

    def _deliver(self, sender: ClientId, receiver: ClientId, kind: str, data: bytes) -> bytes | None:
        message = Message(sender, receiver, kind, data)
        delivered = data if self.tamper is None else self.tamper(message)
        if delivered is not None:
            self.messages.append(Message(sender, receiver, kind, delivered))
        return delivered

    def _up(
        self, stage: str, client: ClientId, step: Callable[..., bytes], *given: object, arrives: bool = True
    ) -> bytes | None:
        """Let a client make its message of this stage, unless it drops here, and carry it to the server."""
        kind, receive = {
            "advertise": ("secagg-advertise", self.server.receive_advertise),
            "share": ("secagg-shares", self.server.receive_shares),
            "upload": ("secagg-masked", self.server.receive_upload),
            "consistency": ("secagg-consistent", self.server.receive_consistent),
            "unmask": ("secagg-unmasked", self.server.receive_unmasked),
        }[stage]
        if client in self._present and self.drops.get(client) == stage:
            self._present.discard(client)
            self.events.append(f"client {client!r} vanished before {stage}")
        message = self._try(client, step, *given)
        delivered = None if message is None else self._deliver(client, SERVER, kind, message)
        if delivered is None or not arrives:
            return delivered
        try:
            receive(delivered)
        except (Refused, WireError) as refusal:
            self.events.append(f"the server ignored a message of {client!r}: {refusal}")
        return delivered

    def _down(self, outgoing: Outgoing | None, kind: str, stage: str) -> list[tuple[ClientId, bytes]]:
        """Carry the server's messages to the clients that are still there."""
        delivered = [(i, self._deliver(SERVER, i, kind, data)) for i, data in (outgoing or {}).items()]
        arrived = [(i, data) for i, data in delivered if data is not None]
        if self.ahead is not None:
            self.ahead(stage, {i: data for i, data in arrived if i in self._present})
        return arrived

    def _try(self, client: ClientId, step: Callable[..., T], *given: object) -> T | None:
        """One step of a client. If it refuses the server's message it leaves, like any other drop-out."""
        if client not in self._present:
            return None
        try:
            return step(*given)
        except (Abort, Refused, WireError) as refusal:
            self._present.discard(client)
            self.events.append(f"client {client!r} left: {getattr(refusal, 'reason', refusal)}")
            return None

    def _close(self, step: Callable[[], T]) -> T | None:
        if self.aborted is not None:
            return None
        try:
            return step()
        except Abort as abort:
            self.aborted = abort.reason
            self.events.append(f"the server aborted: {abort.reason}")
            return None


def new_round_id() -> bytes:
    return secrets.token_bytes(ROUND_ID_BYTES)


def run_round(
    inputs: Mapping[ClientId, NDArray[np.integer]], threshold: int, *, ring_bits: int = 32, degree: int | None = None,
    drops: Mapping[ClientId, str] | None = None, model_hash: bytes = b"",
    model_hashes: Mapping[ClientId, bytes] | None = None, seed: int | None = None, shared_work: bool = False,
    tamper: Tamper | None = None,
) -> Transcript:  # fmt: skip
    """A round over `inputs`: client -> (d,) integers in [0, 2^ring_bits). Other arguments as in `Setup` and `Round`."""
    first = np.asarray(next(iter(inputs.values()))) if inputs else np.zeros(1)
    round_id = new_round_id() if seed is None else insecure_random(seed, "round")(ROUND_ID_BYTES)
    setup = Setup(round_id, tuple(inputs), threshold, first.size, ring_bits, degree)
    whole_round = Round(setup, drops or {}, model_hash, model_hashes or {}, seed, shared_work, tamper)
    whole_round.open()
    for client, vector in inputs.items():
        whole_round.upload(client, vector)
    return whole_round.transcript(whole_round.close())
