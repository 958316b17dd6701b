"""Secure sum over real processes: the server's `Round` talks to clients on other machines, who keep their secrets there.

    server    far_round(post): makes the Round whose clients are elsewhere; each stage of the protocol is one question a node
    node      SecureHome: the clients' half. Between two messages no process of theirs is alive, so what a client drew and heard
              in the round lies in the node's own state, and the client is rebuilt from it; after its last word it is forgotten

The stage itself is as ever: `SecureSum.client` masks on the node, `SecureSum.server` unmasks the sum. Which clients have which
identity key the server says, at the beginning of each round: that is enough against a server that reads, not against one that
lies about keys. Those need a directory from somebody trusted (chapter 4).
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ..core import ClientId, Context
from ..federation.interfaces import Experiment
from ..federation.orders import Post
from ..federation.stages import find
from ..secure_aggregation.client import SecureClient
from ..secure_aggregation.graph import Setup
from ..secure_aggregation.masking import insecure_random
from ..secure_aggregation.messages import Abort, Refused
from ..secure_aggregation.rounds import Round
from ..secure_aggregation.stage import KEY, SecureSum
from ..wire.messages import WireError, frame, unframe

WHAT = "secure"                         # the kind of our questions and answers
Row = tuple[bool, bytes]                # whether it went well; the message, or why not


# --- the server ----------------------------------------------------------------------------------------------------------


@dataclass
class FarClient:
    """Stands for a client elsewhere in the server's Round. What it would say was asked ahead, of all clients together."""

    me: ClientId
    said: dict[tuple[str, ClientId], Row] = field(repr=False)
    stage: str = "new"

    def _say(self, step: str) -> bytes:
        well, data = self.said.pop((step, self.me), (False, b"its node did not answer"))
        if not well:
            raise Refused(data.decode(errors="replace"))
        self.stage = "ready" if step == "receive" else step
        return data

    def advertise(self) -> bytes:
        return self._say("advertise")

    def share_keys(self, roster: bytes) -> bytes:
        return self._say("share")

    def receive_shares(self, inbox: bytes) -> None:
        self._say("receive")

    def sign_survivors(self, message: bytes) -> bytes:
        return self._say("consistency")

    def unmask(self, request: bytes) -> bytes:
        return self._say("unmask")


def _row(answer: bytes) -> Row:
    """What a node says about a step of one of its clients. Rubbish is that client's failure, and nobody else's."""
    try:
        well, data = unframe(answer, WHAT)
        if type(well) is bool and isinstance(data, bytes):
            return well, data
        raise WireError("its answer is not whether it went well and a message")
    except (WireError, ValueError, TypeError) as why:
        return False, f"its node's answer cannot be read: {why}".encode()[:500]


def far_round(post: Post) -> Callable[..., Round]:
    """What makes the Round of a version, in the place of the class: its clients are reached through the post."""

    def make(setup: Setup, *, model_hash: bytes, seed: int | None, shared_work: bool) -> Round:
        said: dict[tuple[str, ClientId], Row] = {}
        head = [setup.round_id, list(setup.cohort), model_hash]
        directory: dict[ClientId, bytes] = {}

        def ahead(step: str, given: Mapping[ClientId, bytes]) -> None:
            if step == "share":                          # the directory travels with the roster
                keys = frame("directory", list(map(list, directory.items())))
                given = {client: frame("share", [keys, data]) for client, data in given.items()}
            questions = {client: frame(WHAT, [*head, step, data]) for client, data in given.items()}
            for client, answer in post.ask(WHAT, questions).items() if questions else ():
                said[step, client] = _row(answer)

        ahead("advertise", dict.fromkeys(setup.cohort, b""))
        for client in setup.cohort:
            well, data = said.get(("advertise", client), (False, b""))
            if well:
                directory[client], said["advertise", client] = data[:32], (True, data[32:])
        clients = {client: FarClient(client, said) for client in setup.cohort}
        return Round(setup, model_hash=model_hash, clients=clients, directory=directory, ahead=ahead)

    return make


# --- a node ----------------------------------------------------------------------------------------------------------------


@dataclass
class SecureHome:
    """The secrets of a node's clients in the round that is open: what each drew, and what it heard, step by step."""

    experiment: Experiment
    clients: tuple[ClientId, ...]
    open: dict[ClientId, dict[str, Any]] = field(default_factory=dict, repr=False)

    @classmethod
    def found(cls, experiment: Experiment, clients: tuple[ClientId, ...], kept: bytes) -> SecureHome:
        return cls(experiment, clients, dict(map(tuple, unframe(kept, "secrets"))) if kept else {})

    def kept(self) -> bytes:
        return frame("secrets", list(map(list, self.open.items())))

    def answer(self, client: ClientId, question: bytes) -> bytes:
        """One step of one client. Its refusal is an answer, too."""
        try:
            if client not in self.clients:
                raise Refused(f"client {client!r} does not live here")
            return frame(WHAT, [True, self._step(client, *unframe(question, WHAT))])
        except (Abort, Refused, WireError, ValueError, TypeError) as why:
            if isinstance(why, Abort):                   # who leaves a round forgets it, and cannot be asked again
                self.open[client] |= {"key": b"", "heard": []}
            return frame(WHAT, [False, str(getattr(why, "reason", why)).encode()[:500]])

    def _step(
        self, client: ClientId, round_id: bytes, cohort: list[ClientId], model_hash: bytes, step: str, data: bytes,
    ) -> bytes:  # fmt: skip
        if step == "advertise":
            if self.open.get(client, {}).get("round") == round_id:
                raise Refused("this round id was used before: a server that repeats a round can subtract two answers")
            self.open[client] = {"round": round_id, "cohort": cohort, "hash": model_hash, "heard": [],
                                 "key": secrets.token_bytes(32)}                    # fmt: skip
        mine = self.open.get(client, {})
        if mine.get("round") != round_id:
            raise Refused("this client has no such round open")
        it, directory, public = self._rebuilt(client)
        said = _hear(it, directory, step, data)
        mine["heard"] = [*mine["heard"], [step, data]]
        if step == "unmask":
            mine |= {"key": b"", "heard": []}            # only that the round is over is remembered
        return public + said if step == "advertise" else said

    def _stage(self) -> SecureSum | None:
        return next((stage for _, stage in find(self.experiment.pipeline, SecureSum) if isinstance(stage, SecureSum)), None)

    def _rebuilt(self, client: ClientId) -> tuple[SecureClient, dict[ClientId, bytes], bytes]:
        """The client as it was after what it heard last: it draws the same again, from a key that only this node knows. With
        its directory and its public identity key."""
        mine, stage = self.open[client], self._stage()
        if stage is None or not mine["key"]:
            raise Refused("this client has no secure round open")
        setup = stage.setup(tuple(mine["cohort"]), self.experiment.model.dim + 1, mine["round"])
        key = int.from_bytes(mine["key"]) if stage.round_seed is None else stage.round_seed
        source = insecure_random(key, setup.round_id, "client", client)
        identity = Ed25519PrivateKey.from_private_bytes(source(32))
        directory: dict[ClientId, bytes] = {}
        it = SecureClient(setup, client, identity, directory, model_hash=mine["hash"], random_bytes=source)
        for step, data in mine["heard"]:
            _hear(it, directory, step, data)
        return it, directory, identity.public_key().public_bytes_raw()

    def session(self, ctx: Context) -> dict[str, Any]:
        """What `SecureSum.client` looks for: the round, with this node's clients in it."""
        if (stage := self._stage()) is None:
            return {}
        ctx.meter.notes.setdefault("saturated", 0.0)
        mine = [client for client in self.clients if client in ctx.cohort and self.open.get(client, {}).get("key")]
        if not stage.masked:
            return {}
        if not mine:
            return {KEY: "there is no secure round open for it"}
        first = self.open[mine[0]]
        setup = stage.setup(tuple(first["cohort"]), self.experiment.model.dim + 1, first["round"])
        clients = {client: _Uploads(self, client) for client in mine}
        return {KEY: Round(setup, model_hash=first["hash"], clients=dict(clients))}


@dataclass
class _Uploads:
    """A client of the node's Round: rebuilt when it is its turn, and remembered as one that has uploaded."""

    home: SecureHome
    me: ClientId

    def upload(self, vector: Any) -> bytes:
        message = self.home._rebuilt(self.me)[0].upload(vector)
        mine = self.home.open[self.me]
        mine["heard"] = [*mine["heard"], ["upload", b""]]
        return message


def _hear(it: SecureClient, directory: dict[ClientId, bytes], step: str, data: bytes) -> bytes:
    if step == "advertise":
        return it.advertise()
    if step == "share":
        keys, roster = unframe(data, "share")
        directory.update(dict(map(tuple, unframe(keys, "directory"))))
        return it.share_keys(roster)
    if step == "receive":
        it.receive_shares(data)
        return b""
    if step == "upload":                                 # what it sent is gone; that it was sent is what counts
        it._expect("ready")
        it.stage = "uploaded"
        return b""
    if step == "consistency":
        return it.sign_survivors(data)
    if step == "unmask":
        return it.unmask(data)
    raise Refused(f"there is no step {step!r}")
