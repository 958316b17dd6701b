"""Keys and masks: from a key agreement of two clients to the d pseudo-random numbers that hide their inputs.

    X25519 (RFC 7748)      two key pairs -> the same 32 secret bytes at both ends, unknown to who relays the public keys
    HKDF-SHA256 (RFC 5869) those bytes and the names of what they are for -> a 256-bit key for that purpose only
    AES-256 in CTR mode    a 256-bit seed -> as many uniform bytes as are needed, 4 to 5 GB/s on one core

Never NumPy's generators: they are made for statistics, their state can be computed from their output, and a 32-bit seed
is found by trying all of them.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field

import numpy as np
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from ..core import ClientId, fingerprint
from ..wire.ring import RingVector, reduce_ring, ring_dtype
from .field import RandomBytes

SEED_BYTES = 32
_CHUNK = 1 << 16                              # bytes expanded at a time: they are added while still in the cache
_ZEROS = bytes(_CHUNK)


def hkdf(secret: bytes, salt: bytes, info: bytes) -> bytes:
    """32 bytes bound to `salt` and `info`: extract, then one block of expand (RFC 5869, sections 2.2 and 2.3)."""
    return hmac.digest(hmac.digest(salt, secret, "sha256"), info + b"\x01", "sha256")


def add_mask(total: RingVector, seed: bytes, sign: int = 1) -> None:
    """total += sign · PRG(seed), in place and modulo the width of its dtype; `sign` is 1 or −1.

    AES-CTR encrypts zeros: its key is the whole 256-bit seed, and the counter starts at 0 because a seed serves once.
    The bytes are read as little-endian words, uniform on all of [0, 2^width), the largest value included.
    """
    if len(seed) != SEED_BYTES:
        raise ValueError(f"a mask seed is {SEED_BYTES} bytes, not {len(seed)}")
    encryptor = Cipher(algorithms.AES(seed), modes.CTR(bytes(16))).encryptor()
    scratch = np.empty(_CHUNK + 16, dtype=np.uint8)
    combine = np.add if sign > 0 else np.subtract
    words = _CHUNK // total.dtype.itemsize
    little = total.dtype.newbyteorder("<")
    for start in range(0, total.size, words):
        part = total[start : start + words]
        nbytes = part.size * part.dtype.itemsize
        encryptor.update_into(_ZEROS if nbytes == _CHUNK else _ZEROS[:nbytes], scratch.data)
        combine(part, scratch[:nbytes].view(little), out=part)


def mask(seed: bytes, size: int, bits: int) -> RingVector:
    """(size,) the numbers PRG(seed) modulo 2^bits."""
    total = np.zeros(size, dtype=ring_dtype(bits))
    add_mask(total, seed)
    return reduce_ring(total, bits)


def private_key(secret: bytes) -> X25519PrivateKey:
    """The key pair made from 32 random bytes."""
    return X25519PrivateKey.from_private_bytes(secret)


def public_bytes(private: X25519PrivateKey) -> bytes:
    """The 32 bytes to advertise."""
    return private.public_key().public_bytes_raw()


def agree(private: X25519PrivateKey, public: bytes) -> bytes:
    """32 secret bytes that both ends compute alike. ValueError for a public key that would force a known secret."""
    return private.exchange(X25519PublicKey.from_public_bytes(public))


def usable(public: bytes) -> bool:
    """False for the few public keys of small order, with which every secret would be 32 zeros (RFC 7748, section 6.1)."""
    try:
        agree(private_key(bytes(SEED_BYTES)), public)
    except ValueError:
        return False
    return True


def pair_seed(secret: bytes, round_id: bytes, pair: tuple[ClientId, ClientId], model_hash: bytes) -> bytes:
    """The seed of the mask of two clients (in cohort order) that agreed on `secret`.

    It depends on the round and on the model each of them received: ends that were sent different models derive
    different masks, which do not cancel, so the server learns nothing from training them apart.
    """
    return hkdf(secret, round_id, fingerprint("secagg-mask", *pair, model_hash))


def share_label(round_id: bytes, sender: ClientId, receiver: ClientId, model_hash: bytes) -> bytes:
    """Names the one message of shares from sender to receiver in a round: it makes the message's key, and is its
    associated data, so that the decryption fails if the receiver believes anything else about it."""
    return fingerprint("secagg-share", round_id, sender, receiver, model_hash)


def commitment(round_id: bytes, owner: ClientId, seed: bytes) -> bytes:
    """Hides a 256-bit seed and binds its owner to it."""
    return fingerprint("secagg-seed", round_id, owner, seed)


def signature_ok(public: bytes, message: bytes, signature: bytes) -> bool:
    """Whether the Ed25519 signature of `message` was made by the owner of `public`."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except InvalidSignature:
        return False
    return True


def insecure_random(seed: int, *purpose: object) -> RandomBytes:
    """Reproducible random bytes, for tests and printed examples: whoever knows `seed` can unmask everybody."""
    stream = Cipher(algorithms.AES(fingerprint(seed, "insecure", *purpose)), modes.CTR(bytes(16))).encryptor()
    return lambda count: stream.update(bytes(count))


@dataclass
class SharedWork:
    """Work that two honest ends of a pair do alike, done once. For simulations in one process; the same bits result.

    Outside a simulation there is no such thing: each client computes its own half, and must. What is remembered: the
    secret two key pairs agree on, signatures found good, and the pair's mask, which the first of the two to need it
    also puts aside, with the opposite sign, for the other. (n, d) integers of memory at most.
    """

    agreed: dict[frozenset[bytes], bytes] = field(default_factory=dict)
    verified: set[tuple[bytes, bytes, bytes]] = field(default_factory=set)
    aside: dict[ClientId, RingVector] = field(default_factory=dict)
    seeds: dict[tuple[ClientId, ClientId], bytes] = field(default_factory=dict)

    def agree(self, private: X25519PrivateKey, own_public: bytes, public: bytes) -> bytes:
        pair = frozenset((own_public, public))
        if pair not in self.agreed:
            self.agreed[pair] = agree(private, public)
        return self.agreed[pair]

    def signature_ok(self, public: bytes, message: bytes, signature: bytes) -> bool:
        claim = (public, message, signature)
        if claim not in self.verified and signature_ok(*claim):
            self.verified.add(claim)
        return claim in self.verified

    def add_pair_masks(self, total: RingVector, me: ClientId, pairs: dict[ClientId, tuple[bytes, int]]) -> None:
        """total += Σ sign · PRG(seed) over `pairs`: peer -> (seed, sign)."""
        fresh = np.zeros_like(total)
        for peer, (seed, sign) in pairs.items():
            done = self.seeds.get((peer, me))
            if done is None:
                self.seeds[me, peer] = seed
                fresh[...] = 0
                add_mask(fresh, seed, sign)
                total += fresh
                waiting = self.aside.setdefault(peer, np.zeros_like(total))
                waiting -= fresh
            elif done != seed:
                raise ValueError(f"{me!r} and {peer!r} derived different masks: shared work is for honest rounds only")
        if me in self.aside:
            total += self.aside.pop(me)
