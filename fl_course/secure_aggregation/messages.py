"""The nine messages of a round, as bytes. Nothing else passes between clients and server.

    up    secagg-advertise    round, sender, two public keys, signature
    down  secagg-roster       round, [client, two public keys, signature] of the receiver and its neighbours
    up    secagg-shares       round, sender, commitment to the self-mask seed, [receiver, ciphertext of BOX bytes]
    down  secagg-inbox        round, [sender, ciphertext] for this receiver
    up    secagg-masked       round, sender, the masked vector, `ring_bits` a number
    down  secagg-survivors    round, the set of those whose vector arrived
    up    secagg-consistent   round, sender, signature of that set
    down  secagg-unmask       round, survivors (seeds asked), dropped (mask keys asked), [signer, signature]
    up    secagg-unmasked     round, sender, digest of the survivors, [client, seed share], [client, key share]

A set of clients is a bitmap over the cohort: it cannot name anybody twice, nor a stranger. What cannot be decoded
raises WireError and has changed nothing; what can be decoded and is against the protocol raises Abort or Refused.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..core import ClientId, FederatedError, fingerprint
from ..wire.messages import WireError, frame, unframe
from ..wire.ring import RingVector, pack, unpack
from .graph import ROUND_ID_BYTES, Setup
from .masking import SEED_BYTES
from .shamir import SHARE_BYTES

SERVER = "server"
KEY, SIGNATURE, DIGEST = 32, 64, 32           # bytes of a public key, an Ed25519 signature, a SHA-256 digest
NONCE, TAG = 12, 16                           # bytes that AES-GCM puts before and behind what it hides
BOX = NONCE + 2 * SHARE_BYTES + TAG           # two shares, encrypted for one client


class Abort(FederatedError):
    """This participant has left the round for good, for `reason`; its secrets of the round are erased."""

    def __init__(self, who: ClientId, reason: str) -> None:
        self.who, self.reason = who, reason
        super().__init__(f"{who}: {reason}")


class Refused(FederatedError):
    """One message came out of turn (too early, twice, from a stranger) and was ignored; the round goes on."""


@dataclass(frozen=True)
class Message:
    """One message on its way, as whoever taps the line sees it."""

    sender: ClientId
    receiver: ClientId
    kind: str
    data: bytes

    @property
    def nbytes(self) -> int:
        return len(self.data)


@dataclass(frozen=True)
class Keys:
    """The advertised public keys of one client: one to encrypt shares, one to agree on masks. 32 bytes each."""

    client: ClientId
    cipher: bytes
    mask: bytes
    signature: bytes

    def digest(self, setup: Setup) -> bytes:
        """What `signature` signs."""
        return fingerprint("secagg-advertise", setup.round_id, self.client, self.cipher, self.mask)


def survivors_digest(setup: Setup, survivors: Iterable[ClientId]) -> bytes:
    """What the consistency round signs: this set of survivors in this round, of this cohort in this order.

    The bitmap alone would not do: a server that tells two clients two orders could have both sign the same bits for two
    different sets. So `setup.digest` is signed with it, which also says that both believe in the same threshold.
    """
    return fingerprint("secagg-survivors", setup.digest, encode_set(setup, survivors))


# --- client to server ------------------------------------------------------------------------------------------------


def encode_advertise(setup: Setup, keys: Keys) -> bytes:
    return frame("secagg-advertise", [setup.round_id, keys.client, keys.cipher, keys.mask, keys.signature])


def decode_advertise(setup: Setup, message: bytes) -> Keys:
    return _keys(_body(setup, message, "secagg-advertise", 4))


def encode_shares(setup: Setup, sender: ClientId, commitment: bytes, boxes: dict[ClientId, bytes]) -> bytes:
    return frame("secagg-shares", [setup.round_id, sender, commitment, _from_dict(boxes)])


def decode_shares(setup: Setup, message: bytes) -> tuple[ClientId, bytes, dict[ClientId, bytes]]:
    sender, commitment, boxes = _body(setup, message, "secagg-shares", 3)
    return _id(sender), _bytes(commitment, DIGEST), _to_dict(boxes, BOX)


def encode_masked(setup: Setup, sender: ClientId, vector: RingVector) -> bytes:
    return frame("secagg-masked", [setup.round_id, sender, pack(vector, setup.ring_bits)])


def decode_masked(setup: Setup, message: bytes) -> tuple[ClientId, RingVector]:
    """The sender and its (d,) masked vector. A number out of [0, R) cannot be written, a short vector is refused."""
    sender, packed = _body(setup, message, "secagg-masked", 2)
    try:
        return _id(sender), unpack(_bytes(packed), setup.ring_bits, setup.dimension)
    except ValueError as error:
        raise WireError(f"the masked vector of {sender!r} does not fit the round: {error}") from error


def encode_consistent(setup: Setup, sender: ClientId, signature: bytes) -> bytes:
    return frame("secagg-consistent", [setup.round_id, sender, signature])


def decode_consistent(setup: Setup, message: bytes) -> tuple[ClientId, bytes]:
    sender, signature = _body(setup, message, "secagg-consistent", 2)
    return _id(sender), _bytes(signature, SIGNATURE)


def encode_unmasked(
    setup: Setup, sender: ClientId, digest: bytes, seeds: dict[ClientId, bytes], keys: dict[ClientId, bytes]
) -> bytes:
    return frame("secagg-unmasked", [setup.round_id, sender, digest, _from_dict(seeds), _from_dict(keys)])


def decode_unmasked(
    setup: Setup, message: bytes
) -> tuple[ClientId, bytes, dict[ClientId, bytes], dict[ClientId, bytes]]:
    sender, digest, seeds, keys = _body(setup, message, "secagg-unmasked", 4)
    return _id(sender), _bytes(digest, DIGEST), _to_dict(seeds, SHARE_BYTES), _to_dict(keys, SHARE_BYTES)


# --- server to client ------------------------------------------------------------------------------------------------


def encode_roster(setup: Setup, roster: Iterable[Keys]) -> bytes:
    rows = [[keys.client, keys.cipher, keys.mask, keys.signature] for keys in roster]
    return frame("secagg-roster", [setup.round_id, rows])


def decode_roster(setup: Setup, message: bytes) -> list[Keys]:
    (rows,) = _body(setup, message, "secagg-roster", 1)
    return [_keys(row) for row in _list(rows)]


def encode_inbox(setup: Setup, boxes: dict[ClientId, bytes]) -> bytes:
    return frame("secagg-inbox", [setup.round_id, _from_dict(boxes)])


def decode_inbox(setup: Setup, message: bytes) -> dict[ClientId, bytes]:
    return _to_dict(*_body(setup, message, "secagg-inbox", 1))


def encode_survivors(setup: Setup, survivors: Iterable[ClientId]) -> bytes:
    return frame("secagg-survivors", [setup.round_id, encode_set(setup, survivors)])


def decode_survivors(setup: Setup, message: bytes) -> frozenset[ClientId]:
    return decode_set(setup, *_body(setup, message, "secagg-survivors", 1))


def encode_unmask(
    setup: Setup, survivors: Iterable[ClientId], dropped: Iterable[ClientId], signatures: dict[ClientId, bytes]
) -> bytes:
    sets = [encode_set(setup, survivors), encode_set(setup, dropped)]
    return frame("secagg-unmask", [setup.round_id, *sets, _from_dict(signatures)])


def decode_unmask(
    setup: Setup, message: bytes
) -> tuple[frozenset[ClientId], frozenset[ClientId], dict[ClientId, bytes]]:
    survivors, dropped, signatures = _body(setup, message, "secagg-unmask", 3)
    return decode_set(setup, survivors), decode_set(setup, dropped), _to_dict(signatures, SIGNATURE)


def encode_set(setup: Setup, clients: Iterable[ClientId]) -> bytes:
    """One bit a cohort member. ValueError for a stranger or a client named twice."""
    named, bits = list(clients), np.zeros(len(setup.cohort), dtype=np.uint8)
    for client in named:
        if client not in setup.position:
            raise ValueError(f"client {client!r} is not in the cohort")
        bits[setup.position[client]] = 1
    if int(bits.sum()) != len(named):
        raise ValueError(f"a client is named twice in {named}")
    return np.packbits(bits, bitorder="little").tobytes()


def decode_set(setup: Setup, data: Any) -> frozenset[ClientId]:
    n = len(setup.cohort)
    bits = np.unpackbits(np.frombuffer(_bytes(data, -(-n // 8)), dtype=np.uint8), bitorder="little")
    if bits[n:].any():
        raise WireError(f"the set names clients beyond the {n} of the cohort")
    return frozenset(client for client, bit in zip(setup.cohort, bits, strict=False) if bit)


# --- what every decoder checks: no field is believed before its type and length have been seen ---------------------


def _body(setup: Setup, message: bytes, kind: str, count: int) -> list[Any]:
    """The fields after the round id, which must be this round's: a message of another round is not for us."""
    body = _list(unframe(message, kind))
    if len(body) != count + 1:
        raise WireError(f"a {kind} message has {count + 1} fields, not {len(body)}")
    if _bytes(body[0], ROUND_ID_BYTES) != setup.round_id:
        raise WireError(f"a {kind} message of another round: replayed, or misrouted")
    return body[1:]


def _keys(row: Any) -> Keys:
    if not isinstance(row, list) or len(row) != 4:
        raise WireError("advertised keys are (client, key, key, signature)")
    return Keys(_id(row[0]), _bytes(row[1], KEY), _bytes(row[2], KEY), _bytes(row[3], SIGNATURE))


def _id(value: Any) -> ClientId:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise WireError(f"a client id is an int or a string, not {value!r}")
    return value


def _bytes(value: Any, length: int | None = None) -> bytes:
    if not isinstance(value, bytes) or (length is not None and len(value) != length):
        raise WireError(f"a field that should be {'' if length is None else length} bytes is not")
    return value


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise WireError(f"a list was expected, not {type(value).__name__}")
    return value


def _from_dict(items: dict[ClientId, bytes]) -> list[list[Any]]:
    return [[client, data] for client, data in items.items()]


def _to_dict(value: Any, length: int | None = None) -> dict[ClientId, bytes]:
    items: dict[ClientId, bytes] = {}
    for row in _list(value):
        if not isinstance(row, list) or len(row) != 2 or _id(row[0]) in items:
            raise WireError("a list of (client, bytes) is malformed or names a client twice")
        items[row[0]] = _bytes(row[1], length)
    return items


assert SEED_BYTES == KEY == DIGEST
