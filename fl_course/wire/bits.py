"""Whole numbers in as few bytes as they need: packed bits, packed ternary digits, and the positions of a sparse vector.

    pack, unpack                        n codes of b bits each         → ceil(n·b / 8) bytes
    pack_ternary, unpack_ternary        n digits 0, 1, 2, five a byte  → ceil(n / 5) bytes, 1.6 bits a digit (log2 3 = 1.585)
    encode_positions, decode_positions  k of d positions               → a bitmap or Rice-coded gaps, whichever is shorter
    entropy, log2_choose                what no code can go below, in bits

Every decoder raises ValueError for bytes that no encoder here has written for the given sizes.
"""

from __future__ import annotations

import math
import sys

import numpy as np
from numpy.typing import NDArray

Codes = NDArray[np.unsignedinteger]
BITMAP, GAPS = 0, 1                                          # how positions are coded


def pack(codes: Codes, bits: int) -> bytes:
    """(n,) whole numbers below 2^bits, 1 ≤ bits ≤ 32 → ceil(n·bits / 8) bytes, lowest bit first.

    Eight numbers fill `bits` bytes exactly, so the same few shifts serve all groups of eight at once.
    """
    _check_bits(bits)
    _check_range(codes, 1 << bits, f"{bits} bits")
    if bits == 1:
        return np.packbits(codes.astype(np.uint8, copy=False), bitorder="little").tobytes()
    if bits in (8, 16, 32):
        return codes.astype(f"<u{bits // 8}", copy=False).tobytes()
    groups = -(-codes.size // 8)
    numbers = np.zeros((groups, 8), dtype=np.uint32)
    numbers.reshape(-1)[: codes.size] = codes
    out = np.zeros((groups, bits), dtype=np.uint8)
    for i, byte, shift in _overlaps(bits):
        part = numbers[:, i] << np.uint32(shift) if shift >= 0 else numbers[:, i] >> np.uint32(-shift)
        out[:, byte] |= (part & np.uint32(255)).astype(np.uint8)
    return out.tobytes()[: packed_size(codes.size, bits)]


def unpack(data: bytes, bits: int, size: int) -> Codes:
    """The inverse of `pack`: (size,) unsigned numbers. ValueError unless `data` is exactly as long as they need."""
    _check_bits(bits)
    if len(data) != packed_size(size, bits):
        raise ValueError(f"{size} numbers of {bits} bits take {packed_size(size, bits)} bytes, not {len(data)}")
    raw = np.frombuffer(data, dtype=np.uint8)
    if bits == 1:
        return np.unpackbits(raw, bitorder="little", count=size)
    if bits in (8, 16, 32):
        codes = np.frombuffer(data, dtype=f"<u{bits // 8}")
        return codes if sys.byteorder == "little" else codes.astype(codes.dtype.newbyteorder("="))
    groups = -(-size // 8)
    padded = np.zeros((groups, bits), dtype=np.uint8)
    padded.reshape(-1)[: raw.size] = raw
    numbers = np.zeros((groups, 8), dtype=np.uint32)
    for i, byte, shift in _overlaps(bits):
        part = padded[:, byte].astype(np.uint32)
        numbers[:, i] |= part >> np.uint32(shift) if shift >= 0 else part << np.uint32(-shift)
    return numbers.reshape(-1)[:size] & np.uint32((1 << bits) - 1)


def packed_size(size: int, bits: int) -> int:
    """Bytes that `size` numbers of `bits` bits take."""
    return -(-size * bits // 8)


def _check_bits(bits: int) -> None:
    if isinstance(bits, bool) or not isinstance(bits, int) or not 1 <= bits <= 32:
        raise ValueError(f"bits must be a whole number from 1 to 32, not {bits!r}")


def _check_range(codes: NDArray[np.integer], end: int, room: str) -> None:
    """A number that is too large would be cut, or written into its neighbour; a fraction would lose its fraction."""
    if codes.dtype.kind not in "uib" or codes.ndim != 1:
        raise TypeError(f"what is packed is a (n,) array of whole numbers, not {codes.dtype} of shape {codes.shape}")
    if codes.dtype.kind == "b" or (codes.dtype.kind == "u" and end > np.iinfo(codes.dtype).max):
        return                                                               # no number can be too large
    if codes.size and not 0 <= int(codes.min()) <= int(codes.max()) < end:
        raise ValueError(f"the numbers span {codes.min()} … {codes.max()}, and {room} hold 0 … {end - 1}")


def _overlaps(bits: int) -> list[tuple[int, int, int]]:
    """(i, byte, shift): of eight packed numbers, number i meets this byte after so many shifts to the left."""
    spans = ((i, range(i * bits // 8, -(-(i + 1) * bits // 8))) for i in range(8))
    return [(i, byte, i * bits - 8 * byte) for i, touched in spans for byte in touched]


# --- three values: five digits a byte, since 3^5 = 243 fits in 256 ----------------------------------------------------

POWERS = np.array([1, 3, 9, 27, 81], dtype=np.uint8)
DIGITS = (np.arange(243)[:, None] // POWERS % 3).astype(np.uint8)            # (243, 5): byte → its five digits


def pack_ternary(digits: Codes) -> bytes:
    """(n,) digits 0, 1 or 2 → ceil(n / 5) bytes, the first digit of a byte counting 1, the last 81."""
    _check_range(digits, 3, "ternary digits")
    padded = np.zeros((-(-digits.size // 5), 5), dtype=np.uint8)
    padded.reshape(-1)[: digits.size] = digits
    return (padded @ POWERS).tobytes()


def unpack_ternary(data: bytes, size: int) -> Codes:
    """The inverse of `pack_ternary`: (size,) uint8."""
    raw = np.frombuffer(data, dtype=np.uint8)
    if raw.size != -(-size // 5) or (raw.size and raw.max() > 242):
        raise ValueError(f"{len(data)} bytes are not {size} ternary digits, five a byte")
    return DIGITS[raw].reshape(-1)[:size]


# --- the positions of a sparse vector ---------------------------------------------------------------------------------


def encode_positions(positions: NDArray[np.int64], size: int) -> tuple[int, bytes]:
    """(k,) rising positions below size → (BITMAP or GAPS, bytes), whichever is shorter.

    Gaps between positions are small where positions are many. A Rice code (Golomb 1966) with parameter r writes a gap g
    as r low bits and, in a stream of its own, g >> r zeros and a one; the best r is found by trying.
    """
    _check_range(positions, size, f"vectors of {size} numbers")
    gaps = np.diff(positions, prepend=-1) - 1                                # (k,) ≥ 0
    if gaps.size and gaps.min() < 0:
        raise ValueError("positions must rise: each place is named once, and in order")
    mean = float(gaps.mean()) if gaps.size else 0.0
    near = min(30, max(0, math.floor(math.log2(mean * math.log(2) + 1))))     # the optimum for random positions
    cost = {
        r: packed_size(gaps.size, r) + packed_size(int((gaps >> r).sum()) + gaps.size, 1)
        for r in range(max(0, near - 1), near + 3)
    }
    r = min(cost, key=cost.__getitem__)
    if packed_size(size, 1) < 1 + cost[r]:
        bitmap = np.zeros(size, dtype=np.uint8)
        bitmap[positions] = 1
        return BITMAP, pack(bitmap, 1)
    high = gaps >> r
    unary = np.zeros(int(high.sum()) + gaps.size, dtype=np.uint8)
    unary[np.cumsum(high + 1) - 1] = 1
    low = pack((gaps & ((1 << r) - 1)).astype(np.uint32), r) if r else b""
    return GAPS, bytes([r]) + low + pack(unary, 1)


def decode_positions(code: int, data: bytes, size: int, count: int) -> NDArray[np.int64]:
    """The inverse of `encode_positions`: (count,) rising positions below size."""
    if code == BITMAP:
        positions = np.flatnonzero(unpack(data, 1, size))
    elif code == GAPS and data and data[0] <= 32:
        r = data[0]
        split = 1 + packed_size(count, r)
        low = unpack(data[1:split], r, count).astype(np.int64) if r else np.zeros(count, np.int64)
        ones = np.flatnonzero(unpack(data[split:], 1, 8 * len(data[split:])))
        if ones.size != count or packed_size(int(ones[-1]) + 1 if count else 0, 1) != len(data) - split:
            raise ValueError(f"the coded positions are not {count} gaps")
        high = np.diff(ones, prepend=-1) - 1
        positions = np.cumsum((high << r) + low + 1) - 1
    else:
        raise ValueError(f"positions in an unknown code {code!r}")
    if positions.size != count or (count and not positions[-1] < size):
        raise ValueError(f"the message does not hold {count} positions below {size}")
    return positions


# --- what no code can go below ----------------------------------------------------------------------------------------


def entropy(codes: Codes) -> float:
    """Bits in all that (n,) codes need at least if each is coded by itself: n·H of their frequencies (Shannon 1948)."""
    if codes.size == 0:
        return 0.0
    counts = np.unique(codes, return_counts=True)[1]
    return float(-(counts * np.log2(counts / codes.size)).sum()) + 0.0       # no minus zero


def log2_choose(d: int, k: int) -> float:
    """log2 of the number of ways to choose k of d positions: the bits that naming a random choice costs."""
    return (math.lgamma(d + 1) - math.lgamma(k + 1) - math.lgamma(d - k + 1)) / math.log(2)
