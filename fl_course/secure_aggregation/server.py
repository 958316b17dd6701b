"""The server's half of a round: it relays, it sums, and it opens exactly the secrets that the sum needs.

It is written as an honest server; what a lying one could gain is the clients' business (client.py). It believes the sender's
name in a message: lines between a client and its server are authentic, as TLS makes them. The five stages are
advertise → share → upload → consistency → unmask; each `close_…` ends one and returns what to send to whom.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import chain, combinations, islice
from typing import NoReturn

import numpy as np

from ..core import ClientId
from ..wire.ring import RingVector, reduce_ring, ring_dtype
from . import messages as wire
from .graph import Setup, components
from .masking import add_mask, agree, commitment, pair_seed, private_key, public_bytes, signature_ok, usable
from .messages import SERVER, Abort, Keys, Refused
from .shamir import LIMBS, reconstruct_keys

Outgoing = dict[ClientId, bytes]              # receiver -> message
_SECRETS = ("seed", "mask key")               # of each client; `which` is an index into this
_TRIES = 1000                                 # subsets of shares tried for a secret before giving up


class SecureServer:
    """The server in one round. `view` is all it ever holds of the inputs: masked vectors.

    `model_hash` is the hash of the model it sent out; it needs it to take out the masks of clients that dropped.
    """

    def __init__(self, setup: Setup, directory: Mapping[ClientId, bytes], *, model_hash: bytes = b"") -> None:
        self.setup, self.stage = setup, "advertise"
        self._directory, self._model_hash = directory, model_hash
        self.keys: dict[ClientId, Keys] = {}                              # U1
        self.commitments: dict[ClientId, bytes] = {}                      # U2
        self._boxes: dict[ClientId, dict[ClientId, bytes]] = {}           # sender -> receiver -> ciphertext
        self.view: dict[ClientId, RingVector] = {}                        # U3 -> (d,) masked vector
        self.survivors: tuple[ClientId, ...] = ()                         # U3, once announced
        self.dropped: tuple[ClientId, ...] = ()                           # U2 \ U3: their pair masks must be taken out
        self._total: RingVector | None = None
        self._signatures: dict[ClientId, bytes] = {}                      # U4
        self._answers: dict[ClientId, tuple[dict[ClientId, bytes], dict[ClientId, bytes]]] = {}      # U5
        self.opened_seeds: dict[ClientId, bytes] = {}
        self.opened_keys: dict[ClientId, bytes] = {}
        self.liars: set[ClientId] = set()                                 # clients whose shares turned out to be wrong

    # --- round 0 -----------------------------------------------------------------------------------------------------

    def receive_advertise(self, message: bytes) -> None:
        keys = wire.decode_advertise(self.setup, message)
        self._accept("advertise", keys.client, self.setup.position, self.keys)
        if keys.client not in self._directory or not signature_ok(
            self._directory[keys.client], keys.digest(self.setup), keys.signature
        ):
            raise Refused(f"the keys of {keys.client!r} are not signed by {keys.client!r}")
        # The clients check both again, and leave: the round would die of one client's keys.
        taken = {key for other in self.keys.values() for key in (other.cipher, other.mask)}
        if len(taken | {keys.cipher, keys.mask}) < len(taken) + 2:
            raise Refused(f"{keys.client!r} advertises one key twice, or the key of another client")
        if not (usable(keys.cipher) and usable(keys.mask)):
            raise Refused(f"a public key of {keys.client!r} forces a secret that everybody knows")
        self.keys[keys.client] = keys

    def close_advertise(self) -> Outgoing:
        """The roster for each client: its own keys and those of its neighbours."""
        self._close("advertise", self.keys, "share")
        return {
            i: wire.encode_roster(self.setup, [self.keys[j] for j in self.setup.holders(i) if j in self.keys])
            for i in self.setup.in_order(self.keys)
        }

    # --- round 1 -----------------------------------------------------------------------------------------------------

    def receive_shares(self, message: bytes) -> None:
        sender, digest, boxes = wire.decode_shares(self.setup, message)
        self._accept("share", sender, self.keys, self.commitments)
        if set(boxes) != set(self.setup.neighbours(sender)) & set(self.keys):
            raise Refused(f"{sender!r} did not send one box of shares to each of its neighbours on the roster")
        self.commitments[sender], self._boxes[sender] = digest, boxes

    def close_share(self) -> Outgoing:
        """The encrypted shares, handed on. The server cannot read them."""
        self._close("share", self.commitments, "upload")
        return {
            i: wire.encode_inbox(
                self.setup, {j: self._boxes[j][i] for j in self.setup.neighbours(i) if j in self.commitments}
            )
            for i in self.setup.in_order(self.commitments)
        }

    # --- round 2 -----------------------------------------------------------------------------------------------------

    def receive_upload(self, message: bytes) -> None:
        sender, vector = wire.decode_masked(self.setup, message)
        self._accept("upload", sender, self.commitments, self.view)
        self.view[sender] = vector

    def receive_sum(self, total: RingVector, uploaders: Iterable[ClientId]) -> None:
        """Instead of `receive_upload`, for a training loop that has added the masked vectors of `uploaders` itself."""
        self._in("upload")
        dtype = ring_dtype(self.setup.ring_bits)
        named = list(uploaders)
        if total.shape != (self.setup.dimension,) or total.dtype != dtype:
            raise ValueError(f"the sum must be ({self.setup.dimension},) {dtype}, not {total.shape} {total.dtype}")
        if len(set(named)) != len(named) or not set(named) <= set(self.commitments):
            raise ValueError("the uploaders must be clients that shared their secrets, each named once")
        self._total = reduce_ring(total.copy(), self.setup.ring_bits)
        self.survivors = self.setup.in_order(named)

    def close_upload(self) -> Outgoing:
        """Who uploaded, told to all of them."""
        if self._total is None:
            self.survivors = self.setup.in_order(self.view)
        self._close("upload", self.survivors, "consistency")
        if components(self.setup, self.survivors) > 1:
            self._abort("the survivors fall apart into groups without common masks: each group's sum would be visible")
        self.dropped = tuple(
            i for i in self.setup.in_order(self.commitments)
            if i not in self.survivors and set(self.setup.neighbours(i)) & set(self.survivors)
        )  # fmt: skip
        return dict.fromkeys(self.survivors, wire.encode_survivors(self.setup, self.survivors))

    # --- round 3 -----------------------------------------------------------------------------------------------------

    def receive_consistent(self, message: bytes) -> None:
        sender, signature = wire.decode_consistent(self.setup, message)
        self._accept("consistency", sender, self.survivors, self._signatures)
        if not signature_ok(self._directory[sender], wire.survivors_digest(self.setup, self.survivors), signature):
            raise Refused(f"{sender!r} signed another set of survivors")
        self._signatures[sender] = signature

    def close_consistency(self) -> Outgoing:
        """What is asked for: seeds of the survivors, mask keys of those who dropped, with the proof that all agree."""
        self._close("consistency", self._signatures, "unmask")
        return {
            i: wire.encode_unmask(
                self.setup, self.survivors, self.dropped,
                {j: self._signatures[j] for j in self.setup.holders(i) if j in self._signatures},
            )
            for i in self.setup.in_order(self._signatures)
        }  # fmt: skip

    # --- round 4 -----------------------------------------------------------------------------------------------------

    def receive_unmasked(self, message: bytes) -> None:
        sender, digest, seeds, keys = wire.decode_unmasked(self.setup, message)
        self._accept("unmask", sender, self._signatures, self._answers)
        if digest != wire.survivors_digest(self.setup, self.survivors):
            raise Refused(f"{sender!r} answered for another set of survivors")
        known = set(self.setup.holders(sender))
        if not set(seeds) <= known & set(self.survivors) or not set(keys) <= known & set(self.dropped):
            raise Refused(f"{sender!r} sent shares that nobody asked for")
        self._answers[sender] = seeds, keys

    def finish(self) -> RingVector:
        """(d,) the sum of the survivors' inputs modulo R. Abort rather than a partial or a doubtful sum."""
        self._close("unmask", self._answers, "finished")
        if self._total is None:
            if missing := [i for i in self.survivors if i not in self.view]:
                self._abort(f"the uploads of the announced survivors {missing} are missing")
            self._total = np.sum([self.view[i] for i in self.survivors], axis=0, dtype=ring_dtype(self.setup.ring_bits))
        self._open()
        for client in self.survivors:
            add_mask(self._total, self.opened_seeds[client], -1)
        for gone in self.dropped:
            key = private_key(self.opened_keys[gone])
            for peer in set(self.setup.neighbours(gone)) & set(self.survivors):
                first, second = self.setup.in_order((gone, peer))
                secret = agree(key, self.keys[peer].mask)
                seed = pair_seed(secret, self.setup.round_id, (first, second), self._model_hash)
                add_mask(self._total, seed, -1 if peer == first else 1)              # undo what `peer` added
        return reduce_ring(self._total, self.setup.ring_bits)

    def _open(self) -> None:
        """Rebuild the seed of each survivor and the mask key of each client that dropped, and check each of them."""
        wanted = [(i, 0) for i in self.survivors] + [(i, 1) for i in self.dropped]
        groups: dict[tuple[ClientId, ...], list[tuple[ClientId, int]]] = {}
        for owner, which in wanted:
            helpers = self._helpers(owner, which)
            if len(helpers) < self.setup.threshold:
                what = f"{len(helpers)} shares of the {_SECRETS[which]} of {owner!r}"
                self._abort(f"{what} are fewer than the threshold {self.setup.threshold}")
            # Owners with the same helpers at the same points are opened together, with one set of Lagrange weights.
            groups.setdefault((*helpers, *(self.setup.point(owner, j) for j in helpers)), []).append((owner, which))
        for together in groups.values():
            helpers = self._helpers(*together[0])
            secrets = self._reconstruct(helpers, together)
            for (owner, which), secret in zip(together, secrets, strict=True):
                if secret is None or not self._genuine(owner, which, secret):
                    secret = self._search(helpers, owner, which)
                (self.opened_keys if which else self.opened_seeds)[owner] = secret

    def _helpers(self, owner: ClientId, which: int) -> tuple[ClientId, ...]:
        """Whose answers hold a share of this secret."""
        return tuple(j for j in self.setup.holders(owner) if owner in self._answers.get(j, ({}, {}))[which])

    def _reconstruct(self, helpers: Iterable[ClientId], owned: list[tuple[ClientId, int]]) -> list[bytes | None]:
        rows = [b"".join(self._answers[j][which][owner] for owner, which in owned) for j in helpers]
        shares = np.frombuffer(b"".join(rows), dtype="<u4").reshape(len(rows), len(owned), LIMBS)
        points = [self.setup.point(owned[0][0], j) for j in helpers]
        try:
            return reconstruct_keys(points, shares, self.setup.threshold)
        except ValueError:                                                # a share outside the field
            return [None] * len(owned)

    def _genuine(self, owner: ClientId, which: int, secret: bytes) -> bool:
        """A seed must match the commitment its owner sent, a mask key the public key its owner advertised."""
        if which:
            return public_bytes(private_key(secret)) == self.keys[owner].mask
        return commitment(self.setup.round_id, owner, secret) == self.commitments[owner]

    def _search(self, helpers: tuple[ClientId, ...], owner: ClientId, which: int) -> bytes:
        """Somebody sent a wrong share: try other subsets until one opens the genuine secret, then name who lied.

        The secret is certain, the names are not: liars in league can choose errors that cancel and put others in doubt.
        """
        t, trusted = self.setup.threshold, tuple(j for j in helpers if j not in self.liars)
        pool = trusted if len(trusted) >= t else helpers
        windows = [(pool + pool)[i : i + t] for i in range(len(pool))]    # any single liar is outside one of these
        for subset in islice(chain(windows, combinations(helpers, t)), _TRIES):
            (secret,) = self._reconstruct(subset, [(owner, which)])
            if secret is not None and self._genuine(owner, which, secret):
                for other in set(helpers) - set(subset):
                    if self._reconstruct((other, *subset[1:]), [(owner, which)]) != [secret]:
                        self.liars.add(other)
                return secret
        self._abort(f"the shares do not open the {_SECRETS[which]} of {owner!r}: too many of them are wrong")

    # --- small parts -------------------------------------------------------------------------------------------------

    def _in(self, stage: str) -> None:
        if self.stage != stage:
            raise Refused(f"the server is at {self.stage!r}, a message for {stage!r} is too late or too early")

    def _accept(
        self, stage: str, sender: ClientId, expected: Iterable[ClientId], got: Mapping[ClientId, object]
    ) -> None:
        self._in(stage)
        if sender not in expected:
            raise Refused(f"{sender!r} is not expected at {stage!r}: a stranger, or a client that dropped before")
        if sender in got:
            raise Refused(f"{sender!r} has already sent its message for {stage!r}")

    def _close(self, stage: str, present: Iterable[ClientId], following: str) -> None:
        """End a stage and go on with those who are present, if they are at least t."""
        self._in(stage)
        count, t = len(list(present)), self.setup.threshold
        if count < t:
            self._abort(f"{count} clients at {stage!r} are fewer than the threshold {t}; nothing was opened")
        self.stage = following

    def _abort(self, reason: str) -> NoReturn:
        self.stage = "aborted"
        raise Abort(SERVER, reason)
