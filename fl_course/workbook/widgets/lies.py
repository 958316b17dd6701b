"""The lies of the theatre: what a server (or a client) may try, on whom, at which message, and whether this round comes to it.

A lie is told by changing messages on their way, so the clients that catch it are the real ones of `secure_aggregation`, with
the checks of the protocol. The server object is honest; where it would see through its own lie, it is shown what it expects.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ...secure_aggregation import Message, Setup, insecure_random, messages

LIES = {                                       # {subject}: about whom; {victim}: to whom, or who lies
    "": "is honest",                           # the server …
    "both": "asks for both secrets of {subject}",
    "sets": "tells {victim} that {subject} has dropped out",
    "key": "puts its own key in {subject}'s place",
    "share": "alters the share of {subject} on its way to {victim}",
    "model": "sends {victim} another model",
    "client": "is honest, but client {victim} sends wrong shares",
}
SECRET = 1                                     # the seed of the theatre: a stage, not a vault


@dataclass
class Lie:
    """One lie in one round, as the network between clients and server: `network(message)` returns what is delivered."""

    setup: Setup
    key: str
    subject: str
    victim: str
    told: list[int] = field(default_factory=list)          # numbers of the messages that were changed
    count: int = 0
    signature: bytes = b""                                 # what the victim really signed
    survivors: frozenset = frozenset()                     # those that everybody else was told

    @property
    def text(self) -> str:
        return LIES[self.key].format(subject=self.subject, victim=self.victim)

    def network(self, message: Message) -> bytes:
        data = self.changed(message.kind.removeprefix("secagg-"), message)
        if data != message.data and not (self.key == "sets" and message.receiver == "server"):
            self.told.append(self.count)
        self.count += 1
        return data

    def changed(self, kind: str, message: Message) -> bytes:
        setup, data, victim = self.setup, message.data, self.victim
        match self.key, kind:
            case "both", "unmask":
                survivors, dropped, signatures = messages.decode_unmask(setup, data)
                return messages.encode_unmask(setup, survivors, dropped | {self.subject}, signatures)
            case "key", "roster" if message.receiver != self.subject:
                forged = messages.Keys(self.subject, bytes(range(32)), bytes(range(1, 33)), bytes(64))
                rows = messages.decode_roster(setup, data)
                return messages.encode_roster(setup, [forged if row.client == self.subject else row for row in rows])
            case "share", "inbox" if message.receiver == victim:
                boxes = messages.decode_inbox(setup, data)
                box = boxes[self.subject]
                return messages.encode_inbox(setup, boxes | {self.subject: bytes([box[0] ^ 1]) + box[1:]})
            case "client", "unmasked" if message.sender == victim:
                sender, digest, seeds, keys = messages.decode_unmasked(setup, data)
                wrong = {i: bytes([share[0] ^ 1]) + share[1:] for i, share in seeds.items()}
                return messages.encode_unmasked(setup, sender, digest, wrong, keys)
            case "sets", "survivors":
                self.survivors = messages.decode_survivors(setup, data)
                return messages.encode_survivors(setup, self.survivors - {self.subject}) if message.receiver == victim else data
            case "sets", "consistent" if message.sender == victim:
                sender, self.signature = messages.decode_consistent(setup, data)
                digest = messages.survivors_digest(setup, self.survivors)
                return messages.encode_consistent(setup, sender, identity(setup, victim).sign(digest))
            case "sets", "unmask":                         # each is told its own story; the signatures are the real ones
                survivors, dropped, signatures = messages.decode_unmask(setup, data)
                signatures = {**signatures, victim: self.signature}
                if message.receiver != victim:
                    return messages.encode_unmask(setup, survivors, dropped, signatures)
                signatures = {i: signed for i, signed in signatures.items() if i != self.subject}
                return messages.encode_unmask(setup, survivors - {self.subject}, dropped | {self.subject}, signatures)
        return data


def identity(setup: Setup, client: str) -> Ed25519PrivateKey:
    """The key with which a client of the theatre signs: the first 32 of its random bytes (Round)."""
    return Ed25519PrivateKey.from_private_bytes(insecure_random(SECRET, setup.round_id, "client", client)(32))


def roles(key: str, cast: Sequence[str], said: Mapping[str, set[str]], heard: Mapping[str, set[str]]) -> tuple[str, str] | None:
    """(subject, victim) of a lie in a round in which these clients sent and heard these kinds of messages; None: impossible.

    Where the honest round has no such message, or nobody to be lied to, there is nothing to lie about.
    """
    uploaded, there = said["masked"], {"both": heard["unmask"], "sets": said["consistent"], "key": said["shares"],
                                       "share": heard["inbox"], "model": said["shares"], "client": said["unmasked"]}
    about = {"both": uploaded, "sets": uploaded, "key": said["advertise"], "share": said["shares"], "model": set(cast),
             "client": set(cast)}
    # Whoever stays longest is lied to, so that there is something to see; among equals the second of the cast, about the first.
    order = sorted(cast, key=lambda name: (name not in said["unmasked"], name not in uploaded, name == cast[0]))
    for victim in (name for name in order if name in there[key]):
        for subject in (name for name in cast if name in about[key] and name != victim):
            return subject, victim
    return None
