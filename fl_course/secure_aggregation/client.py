"""The client's half of a round: a state machine that reads and writes encoded messages, and only moves forward.

    new → advertised → shared → ready → uploaded → signed → answered          or, from anywhere, → aborted

Line references are to Bonawitz et al. (2017), figure 4.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from typing import NoReturn

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from numpy.typing import NDArray

from ..core import ClientId
from ..wire.ring import reduce_ring, ring_dtype
from . import masking
from . import messages as wire
from .field import P31, RandomBytes
from .graph import Setup, components
from .masking import SEED_BYTES, SharedWork, add_mask, commitment, hkdf, pair_seed, private_key, share_label
from .messages import NONCE, Abort, Keys, Refused
from .shamir import LIMBS, SHARE_BYTES, share_keys


class SecureClient:
    """One client in one round. A new object, with new keys, for every round.

    setup         the public parameters of the round
    me            this client's id
    identity      its long-term signing key
    directory     everybody's long-term public keys (Ed25519, 32 bytes), known beforehand from somebody trusted
    model_hash    hash of the model this client received: masks cancel only among clients that received the same
    random_bytes  the source of every secret; leave it alone outside tests
    shared        simulations only, see `SharedWork`
    used_rounds   ids of the rounds this client took part in; it never takes part in one of them again
    """

    def __init__(
        self, setup: Setup, me: ClientId, identity: Ed25519PrivateKey, directory: Mapping[ClientId, bytes], *,
        model_hash: bytes = b"", random_bytes: RandomBytes = secrets.token_bytes, shared: SharedWork | None = None,
        used_rounds: set[bytes] | None = None,
    ) -> None:  # fmt: skip
        if me not in setup.position:
            raise ValueError(f"client {me!r} is not in the cohort")
        if used_rounds is not None:
            if setup.round_id in used_rounds:
                raise Abort(me, "this round id was used before: a server that repeats a round can subtract two answers")
            used_rounds.add(setup.round_id)
        self.setup, self.me, self.stage, self._t = setup, me, "new", setup.threshold
        self._identity, self._directory, self._model_hash = identity, directory, model_hash
        self._random, self._shared = random_bytes, shared
        self._mask_secret = self._seed = b""                              # 32 bytes each: the two that are shared
        self._cipher_key: X25519PrivateKey | None = None
        self._mask_key: X25519PrivateKey | None = None                    # made from _mask_secret
        self._keys: dict[ClientId, Keys] = {}                             # the roster: neighbours and this client
        self._seed_shares: dict[ClientId, bytes] = {}                     # of the peers in U2 and of this client
        self._key_shares: dict[ClientId, bytes] = {}
        self._survivors: frozenset[ClientId] = frozenset()                # the one set that this client signed

    # --- round 0: advertise keys ---------------------------------------------------------------------------------

    def advertise(self) -> bytes:
        """Two fresh key pairs, signed: one to encrypt shares, one to agree on masks."""
        self._expect("new")
        self._cipher_key, self._mask_secret = private_key(self._random(32)), self._random(32)
        self._mask_key = private_key(self._mask_secret)
        keys = Keys(self.me, masking.public_bytes(self._cipher_key), masking.public_bytes(self._mask_key), b"")
        keys = Keys(self.me, keys.cipher, keys.mask, self._identity.sign(keys.digest(self.setup)))
        self._keys = {self.me: keys}
        self.stage = "advertised"
        return wire.encode_advertise(self.setup, keys)

    # --- round 1: share keys -------------------------------------------------------------------------------------

    def share_keys(self, roster: bytes) -> bytes:
        """Shares of the mask key and of the self-mask seed, encrypted for each neighbour on the roster."""
        self._expect("advertised")
        rows = wire.decode_roster(self.setup, roster)
        self._check_roster(rows)
        self._keys = {row.client: row for row in rows}
        self._seed = self._random(SEED_BYTES)
        holders = self.setup.holders(self.me)
        pair = [self._seed, self._mask_secret]
        shares = share_keys(pair, self.setup.threshold, len(holders), self._random)                     # (h, 2, 9)
        boxes = {}
        for holder, both in zip(holders, shares.astype("<u4"), strict=True):
            if holder == self.me:
                self._keep(self.me, both.tobytes())
            elif holder in self._keys:
                label = share_label(self.setup.round_id, self.me, holder, self._model_hash)
                nonce = self._random(NONCE)
                boxes[holder] = nonce + AESGCM(self._share_key(holder, label)).encrypt(nonce, both.tobytes(), label)
        self.stage = "shared"
        return wire.encode_shares(self.setup, self.me, commitment(self.setup.round_id, self.me, self._seed), boxes)

    def _check_roster(self, rows: list[Keys]) -> None:
        names = [row.client for row in rows]
        if len(set(names)) != len(names):
            self._abort("the roster names a client twice")
        if strangers := set(names) - set(self.setup.holders(self.me)):
            self._abort(f"strangers on the roster: {_names(strangers)} are not neighbours of this client")
        if self._keys[self.me] not in rows:
            self._abort("the roster does not hold this client's own keys as it sent them: somebody replaced them")
        if len(rows) < self._t:
            self._abort(f"{len(rows)} clients on the roster are fewer than the threshold {self._t}")
        if len({key for row in rows for key in (row.cipher, row.mask)}) != 2 * len(rows):
            self._abort("two keys on the roster are equal: one party is playing two clients")
        for row in rows:
            if row.client not in self._directory or not self._verify(row.client, row.digest(self.setup), row.signature):
                self._abort(f"the keys of {row.client!r} are not signed by {row.client!r}")

    # --- round 2: masked input -----------------------------------------------------------------------------------

    def receive_shares(self, inbox: bytes) -> None:
        """Open the shares of the neighbours. Those who sent some are U2: exactly they enter the masks."""
        self._expect("shared")
        boxes = wire.decode_inbox(self.setup, inbox)
        if foreign := [sender for sender in boxes if sender == self.me or sender not in self._keys]:
            self._abort(f"shares arrived from {foreign}, who are not this client's neighbours on the roster")
        if len(boxes) < self._t - 1:
            self._abort(f"shares of {len(boxes)} neighbours and its own are fewer than the threshold {self._t}")
        for sender, box in boxes.items():
            label = share_label(self.setup.round_id, sender, self.me, self._model_hash)
            try:
                both = AESGCM(self._share_key(sender, label)).decrypt(box[:NONCE], box[NONCE:], label)
            except (InvalidTag, ValueError):
                self._abort(
                    f"the shares from {sender!r} do not decrypt: altered, replayed, meant for somebody else, "
                    "or from a client that received another model"
                )
            if len(both) != 2 * SHARE_BYTES or (np.frombuffer(both, dtype="<u4") >= P31).any():
                self._abort(f"the shares from {sender!r} are not 2 x {LIMBS} elements of the field")
            self._keep(sender, both)
        self.stage = "ready"

    def upload(self, vector: NDArray[np.integer]) -> bytes:
        """(d,) integers in [0, R) -> y = x + PRG(b) + Σ ± PRG(s), once. Wrong input is refused and nothing is sent."""
        self._expect("ready")
        modulus = 1 << self.setup.ring_bits
        x = np.asarray(vector)
        if x.dtype.kind not in "ui":
            raise TypeError(f"{self.me!r}: the input must be integers on the grid, not {x.dtype}: encode it first")
        if x.shape != (self.setup.dimension,):
            raise ValueError(f"{self.me!r}: the input has shape {x.shape}, this round sums ({self.setup.dimension},)")
        if int(x.min()) < 0 or int(x.max()) >= modulus:
            raise ValueError(f"{self.me!r}: the input must lie in [0, {modulus}), it spans {x.min()} … {x.max()}")
        total = x.astype(ring_dtype(self.setup.ring_bits))
        add_mask(total, self._seed)                                                       # the self mask PRG(b_u)
        pairs = {peer: self._pair_seed(peer) for peer in self._seed_shares if peer != self.me}
        if self._shared is not None:
            self._shared.add_pair_masks(total, self.me, pairs)
        else:
            for seed, sign in pairs.values():
                add_mask(total, seed, sign)
        self.stage = "uploaded"
        return wire.encode_masked(self.setup, self.me, reduce_ring(total, self.setup.ring_bits))

    # --- round 3: consistency check --------------------------------------------------------------------------------

    def sign_survivors(self, message: bytes) -> bytes:
        """Sign the set of survivors, so that the others can see that everybody was told the same."""
        self._expect("uploaded")
        survivors = wire.decode_survivors(self.setup, message)
        mine = survivors.intersection(self.setup.holders(self.me))
        if self.me not in survivors:
            self._abort("the server lists this client as dropped, although it uploaded")
        if unknown := mine - set(self._seed_shares):
            self._abort(f"{_names(unknown)} are called survivors, but never shared their secrets")
        if len(mine) < self._t:
            self._abort(f"{len(mine)} survivors are fewer than the threshold {self._t}: their sum would tell too much")
        if components(self.setup, survivors) > 1:
            self._abort("the survivors fall apart into groups without common masks: each group's sum would be visible")
        self._survivors = survivors
        self.stage = "signed"
        signature = self._identity.sign(wire.survivors_digest(self.setup, survivors))
        return wire.encode_consistent(self.setup, self.me, signature)

    # --- round 4: unmasking ----------------------------------------------------------------------------------------

    def unmask(self, request: bytes) -> bytes:
        """One share a neighbour: of its seed if its input is in the sum, of its key if not. Never both, and once."""
        self._expect("signed")
        survivors, dropped, signatures = wire.decode_unmask(self.setup, request)
        if both := survivors & dropped:
            self._abort(f"{_names(both)} are listed both as survivors and as dropped: both secrets unmask an input")
        if survivors != self._survivors:
            self._abort("the set of survivors has changed since this client signed it")
        if unknown := dropped.intersection(self.setup.holders(self.me)) - set(self._key_shares):
            self._abort(f"{_names(unknown)} are called dropped, but never shared their secrets")
        if outside := set(signatures) - survivors:
            self._abort(f"signatures of {_names(outside)}, who are not survivors")
        signers = [signer for signer in signatures if signer in self._keys]      # the neighbours, whose keys it checked
        if len(signers) < self._t:
            self._abort(f"{len(signers)} signatures of neighbours are fewer than the threshold {self._t}")
        digest = wire.survivors_digest(self.setup, survivors)
        for signer in signers:
            if not self._verify(signer, digest, signatures[signer]):
                self._abort(f"{signer!r} signed another set of survivors: the server tells different stories")
        seeds = {peer: share for peer, share in self._seed_shares.items() if peer in survivors}
        keys = {peer: share for peer, share in self._key_shares.items() if peer in dropped}
        self.stage = "answered"
        self._forget()
        return wire.encode_unmasked(self.setup, self.me, digest, seeds, keys)

    # --- small parts -------------------------------------------------------------------------------------------------

    def _expect(self, stage: str) -> None:
        if self.stage == "aborted":
            raise Refused(f"{self.me!r} has left this round")
        if self.stage != stage:
            raise Refused(f"{self.me!r} is {self.stage!r}; this step comes once a round, to a client that is {stage!r}")

    def _abort(self, reason: str) -> NoReturn:
        self.stage = "aborted"
        self._forget()
        raise Abort(self.me, reason)

    def _forget(self) -> None:
        self._mask_secret = self._seed = b""
        self._cipher_key = self._mask_key = None
        self._seed_shares, self._key_shares = {}, {}

    def _keep(self, owner: ClientId, both: bytes) -> None:
        self._seed_shares[owner], self._key_shares[owner] = both[:SHARE_BYTES], both[SHARE_BYTES:]

    def _verify(self, signer: ClientId, digest: bytes, signature: bytes) -> bool:
        check = masking.signature_ok if self._shared is None else self._shared.signature_ok
        return check(self._directory[signer], digest, signature)

    def _secret_with(self, private: X25519PrivateKey | None, own: bytes, public: bytes) -> bytes:
        assert private is not None
        try:
            return masking.agree(private, public) if self._shared is None else self._shared.agree(private, own, public)
        except ValueError:
            self._abort("a public key on the roster forces a secret that everybody knows")

    def _share_key(self, peer: ClientId, label: bytes) -> bytes:
        """The key of one message of shares, from or to `peer`."""
        secret = self._secret_with(self._cipher_key, self._keys[self.me].cipher, self._keys[peer].cipher)
        return hkdf(secret, self.setup.round_id, label)

    def _pair_seed(self, peer: ClientId) -> tuple[bytes, int]:
        """The seed of the mask shared with `peer`; +1 for the earlier of the two in the cohort, −1 for the later."""
        first, second = self.setup.in_order((self.me, peer))
        secret = self._secret_with(self._mask_key, self._keys[self.me].mask, self._keys[peer].mask)
        return pair_seed(secret, self.setup.round_id, (first, second), self._model_hash), 1 if first == self.me else -1


def _names(clients: Iterable[ClientId]) -> str:
    return ", ".join(sorted(map(repr, clients)))
