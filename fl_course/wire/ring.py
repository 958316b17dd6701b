"""Integers modulo R = 2^b, as bytes: what travels under masks.

NumPy's unsigned integers wrap modulo 2^8, 2^16, 2^32 or 2^64, and 2^b divides the width chosen for it: additions may wrap
freely, and one `&` at the end gives the sum modulo R.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..core import whole

RingVector = NDArray[np.unsignedinteger]                 # (d,) integers in [0, R), dtype ring_dtype(bits)


def ring_dtype(bits: int) -> np.dtype[np.unsignedinteger]:
    """The narrowest unsigned NumPy type that holds `bits` bits, 8 <= bits <= 64."""
    if not 8 <= whole(bits, "ring_bits") <= 64:
        raise ValueError(f"ring_bits = {bits} must lie between 8 and 64")
    return np.dtype(f"u{1 if bits == 8 else 2 if bits <= 16 else 4 if bits <= 32 else 8}")


def reduce_ring(vector: RingVector, bits: int) -> RingVector:
    """`vector` modulo 2^bits, in place."""
    if bits < 8 * vector.dtype.itemsize:
        vector &= vector.dtype.type((1 << int(bits)) - 1)
    return vector


def pack(vector: RingVector, bits: int) -> bytes:
    """(d,) integers below 2^bits -> ceil(d bits / 8) bytes, lowest bit first, nothing wasted between the numbers.

    Eight numbers fill `bits` bytes exactly, so byte j of a group comes from the same one or two of its numbers in every
    group, and the loop over j handles all groups at once. Refused: what is not a (d,) array of integers (TypeError) and an
    integer outside [0, 2^bits) (ValueError), which would be cut, or written into its neighbour.
    """
    dtype, bits = ring_dtype(bits), int(bits)
    vector = np.asarray(vector)
    if vector.dtype.kind not in "ui" or vector.ndim != 1:
        raise TypeError(f"what is packed is a (d,) array of integers, not {vector.dtype} of shape {vector.shape}")
    full = vector.dtype.kind == "u" and 8 * vector.dtype.itemsize <= bits               # no value is too large
    if not full and vector.size and not 0 <= int(vector.min()) <= int(vector.max()) < 1 << bits:
        raise ValueError(f"the numbers span {vector.min()} … {vector.max()}, and {bits} bits hold [0, {1 << bits})")
    if bits == 8 * dtype.itemsize:
        return np.ascontiguousarray(vector, dtype=dtype.newbyteorder("<")).tobytes()
    groups = -(-vector.size // 8)
    numbers = np.zeros((groups, 8), dtype=dtype)
    numbers.reshape(-1)[: vector.size] = vector
    out = np.empty((groups, bits), dtype=np.uint8)
    for j in range(bits):
        i, offset = divmod(8 * j, bits)
        byte = numbers[:, i] >> dtype.type(offset)
        if offset + 8 > bits:                            # the rest of this byte is the beginning of the next number
            byte = byte | numbers[:, i + 1] << dtype.type(bits - offset)
        out[:, j] = (byte & dtype.type(255)).astype(np.uint8)
    return out.tobytes()[: -(-vector.size * bits // 8)]


def unpack(data: bytes, bits: int, size: int) -> RingVector:
    """The inverse of `pack`. ValueError unless `data` has exactly the length that `size` numbers take."""
    dtype, bits = ring_dtype(bits), int(bits)
    if not isinstance(data, bytes):                      # an array of bytes has a length, too, and other rules
        raise TypeError(f"packed numbers are bytes, not {type(data).__name__}")
    if len(data) != -(-size * bits // 8):
        raise ValueError(f"{size} numbers of {bits} bits take {-(-size * bits // 8)} bytes, not {len(data)}")
    if bits == 8 * dtype.itemsize:
        return np.frombuffer(data, dtype=dtype.newbyteorder("<")).astype(dtype)
    groups = -(-size // 8)
    packed = np.frombuffer(data.ljust(groups * bits, b"\0"), dtype=np.uint8).reshape(groups, bits)
    out = np.zeros((groups, 8), dtype=dtype)
    for j in range(bits):
        i, offset = divmod(8 * j, bits)
        byte = packed[:, j].astype(dtype)
        out[:, i] |= byte << dtype.type(offset)
        if offset + 8 > bits:
            out[:, i + 1] |= byte >> dtype.type(bits - offset)
    return reduce_ring(out.reshape(-1)[:size].copy(), bits)
