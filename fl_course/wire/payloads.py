"""Updates that know how to be small. A payload stands for a vector (d,) and brings its own bytes.

    Sparse      k of d numbers and where they lie            top-k, random-k, threshold
    Quantised   whole numbers on a grid, one scale a block   QSGD, ternary, signs
    LowRank     two thin factors instead of each matrix      in layer_payloads.py
    Submodel    the part of a network that a client holds    likewise

What a payload promises: `dense()` is exactly what the receiver will compute, so a client knows to the bit what got lost;
`from_wire(to_wire())` is the same payload, and ValueError for anything that is not one, without more room than a small
multiple of the message, or of the d that it claims, takes; `+` adds up what payloads stand for, in float64, because the
sum of such updates is as a rule not of the same short form.

`formula()` is what papers count for it and `bound()` what no code can go below, both in bytes; the true length is that of
the encoded message. Numbers that stay float32 count 4 bytes in all three.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from ..core import Vector, stream
from .bits import (
    decode_positions,
    encode_positions,
    entropy,
    log2_choose,
    pack,
    pack_ternary,
    packed_size,
    unpack,
    unpack_ternary,
)

KEYED = 2                                                     # positions drawn from a key, beside BITMAP and GAPS


class Payload:
    """Abstract. `size` is d, the length of the vector that the payload stands for."""

    __array_ufunc__ = None                                    # or NumPy would answer `array + payload` by itself
    tag = ""                                                  # the first word on the wire

    @property
    def size(self) -> int:
        raise NotImplementedError

    def dense(self) -> Vector:
        """(d,) float32, as the receiver sees it."""
        raise NotImplementedError

    def to_wire(self) -> list[Any]:
        """Plain data, the tag first."""
        raise NotImplementedError

    @classmethod
    def from_wire(cls, wire: Sequence[Any]) -> Payload:
        """The inverse of to_wire; may raise anything for what is not a payload of this kind (the wire refuses it then)."""
        raise NotImplementedError

    @classmethod
    def claims(cls, wire: Sequence[Any]) -> int | None:
        """The d that a message names, to be compared before it is unpacked. None: unpacking takes no more room than the
        message does, and `size` is asked then."""
        return None

    def check(self, like: Any) -> None:
        """ValueError unless this has the form of `like`, an honest payload of the same class in the same place."""

    def formula(self) -> float:
        raise NotImplementedError

    def bound(self) -> float:
        raise NotImplementedError

    def add_to(self, total: np.ndarray) -> np.ndarray:
        """total += what this stands for; both (d,)."""
        if total.shape != (self.size,):
            raise ValueError(f"cannot add a {type(self).__name__} of size {self.size} and an array of shape {total.shape}")
        total += self.dense()
        return total

    def __add__(self, other: Any) -> np.ndarray:
        """(d,) float64."""
        return self.add_to(np.array(numbers(other), dtype=np.float64))

    def __radd__(self, other: Any) -> np.ndarray:
        return self.add_to(np.array(other, dtype=np.float64))

    def __mul__(self, factor: float) -> np.ndarray:
        return self.dense() * np.float64(factor)

    __rmul__ = __mul__


def finite(array: np.ndarray) -> bool:
    """Whether all numbers are. Their sum of squares tells as a rule; if it does not, each is asked."""
    return (array.dtype.kind == "f" and math.isfinite(squares(array))) or bool(np.isfinite(array).all())


def squares(array: np.ndarray) -> float:
    """Σ v² in the array's own precision, at one reading: NaN or infinite if some number is, or if they are huge."""
    flat = array.reshape(-1)
    with np.errstate(all="ignore"):
        return float(flat @ flat)


def numbers(values: Any) -> Vector:
    """The numbers behind an array or a payload."""
    return values.dense() if isinstance(values, Payload) else values


def on_values(payload: Any, change: Callable[[Any], Any]) -> Any:
    """`change` the numbers that travel: of an array all of them, of a Sparse or Submodel those that it holds."""
    return replace(payload, values=change(payload.values)) if hasattr(payload, "values") else change(payload)


# --- k of d -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Sparse(Payload):
    """`values` (k,) at `positions` (k,), zero elsewhere.

    With a `key`, everybody can draw the positions (see `drawn`), and its 8 bytes travel in their place.
    """

    length: int                                               # d
    positions: np.ndarray                                     # (k,) int64, rising
    values: Any                                               # (k,) float32, or the same Quantised
    key: int | None = None
    tag = "sparse"

    @property
    def size(self) -> int:
        return self.length

    def dense(self) -> Vector:
        vector = np.zeros(self.length, dtype=np.float32)
        vector[self.positions] = numbers(self.values)
        return vector

    @cached_property
    def _coded(self) -> tuple[int, Any]:
        return encode_positions(self.positions, self.length) if self.key is None else (KEYED, self.key)

    def to_wire(self) -> list[Any]:
        return [self.tag, self.length, *self._coded, values_to_wire(self.values)]

    @classmethod
    def claims(cls, wire: Sequence[Any]) -> int:
        return as_count(wire[1])

    @classmethod
    def from_wire(cls, wire: Sequence[Any]) -> Sparse:
        _, length, code, coded, sent = wire
        values = values_from_wire(sent, as_count(length))
        if as_count(code) == KEYED:
            return cls(length, drawn(as_count(coded), length, values.size), values, coded)
        if len(as_bytes(coded)) > packed_size(length, 1):
            raise ValueError(f"{len(coded)} bytes say where the values lie; a bitmap of {length} takes fewer")
        return cls(length, decode_positions(code, coded, length, values.size), values)

    def check(self, like: Sparse) -> None:
        if (self.key is None) != (like.key is None):
            raise ValueError(f"its positions are {'spelt out' if self.key is None else 'drawn from a key'}, others' are not")
        check_values(self.values, like.values)

    def formula(self) -> float:
        """32 bits a value and ceil(log2 d) for its position, or 64 for the key."""
        bits = len(self.positions) * math.ceil(math.log2(max(2, self.length))) if self.key is None else 64
        return values_formula(self.values) + bits / 8

    def bound(self) -> float:
        """If every choice of positions is equally likely, log2 C(d, k) bits say which one it was."""
        bits = log2_choose(self.length, len(self.positions)) if self.key is None else 64
        return values_bound(self.values) + bits / 8


def drawn(key: int, size: int, k: int) -> np.ndarray:
    """(k,) rising positions below size, the same for all who know the key."""
    return np.sort(stream(key, "positions").choice(size, k, replace=False, shuffle=False))


# --- whole numbers on a grid ------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Quantised(Payload):
    """Code c of L levels stands for scale·(2c/(L - 1) - 1), in [-scale, scale]; every `block` of numbers has its scale.

    Codes travel in as many bits as L - 1 has, packed; three levels as ternary digits, five in a byte.
    """

    codes: np.ndarray                                         # (d,) unsigned, below levels
    levels: int                                               # L, 2 … 65536
    scales: Vector                                            # (blocks,) float32
    block: int                                                # numbers a block; the last one may be shorter
    tag = "quantised"

    @property
    def size(self) -> int:
        return self.codes.size

    def dense(self) -> Vector:
        grid = (2 * np.arange(self.levels) / (self.levels - 1) - 1).astype(np.float32)     # its ends are exactly ±1
        vector = np.take(grid, self.codes)
        block = min(self.block, max(1, self.size))
        whole = self.size // block * block
        vector[:whole].reshape(-1, block)[:] *= self.scales[: whole // block, None]
        vector[whole:] *= self.scales[-1:]
        return vector

    def to_wire(self) -> list[Any]:
        packed = pack_ternary(self.codes) if self.levels == 3 else pack(self.codes, bits_of(self.levels))
        return [self.tag, self.size, self.levels, self.block, self.scales.astype("<f4").tobytes(), packed]

    @classmethod
    def claims(cls, wire: Sequence[Any]) -> int:
        return as_count(wire[1])

    @classmethod
    def from_wire(cls, wire: Sequence[Any]) -> Quantised:
        _, size, levels, block, scales, packed = wire
        if not 2 <= as_count(levels) <= 65536 or as_count(block) < 1:
            raise ValueError(f"{levels} levels in blocks of {block}")
        as_count(size), as_bytes(packed)
        codes = unpack_ternary(packed, size) if levels == 3 else unpack(packed, bits_of(levels), size)
        if size and codes.max() >= levels:
            raise ValueError(f"a code beyond the {levels} levels")
        values = floats(scales)
        if values.size != -(-size // block) or (values < 0).any():
            raise ValueError(f"{values.size} scales, or a negative one, for {size} numbers in blocks of {block}")
        return cls(codes, levels, values, block)

    def check(self, like: Quantised) -> None:
        if self.levels != like.levels:
            raise ValueError(f"its grid has {self.levels} levels, others' have {like.levels}")

    def formula(self) -> float:
        """log2 L bits a number, 32 a scale."""
        return self.size * math.log2(self.levels) / 8 + 4 * len(self.scales)

    def bound(self) -> float:
        """The entropy of the codes, each by itself, and the scales: what an entropy coder behind it could reach."""
        return entropy(self.codes) / 8 + 4 * len(self.scales)


def bits_of(levels: int) -> int:
    return (levels - 1).bit_length()


# --- pieces of messages, shared by the payloads -----------------------------------------------------------------------


def values_to_wire(values: Any) -> Any:
    return values.to_wire() if isinstance(values, Quantised) else values.astype("<f4").tobytes()


def values_from_wire(wire: Any, most: int) -> Any:
    """The values that a message holds, at most so many."""
    count = as_count(wire[1]) if isinstance(wire, list) else len(as_bytes(wire)) // 4
    if count > most:
        raise ValueError(f"{count} values for a vector of {most}")
    return Quantised.from_wire(wire) if isinstance(wire, list) else floats(wire)


def check_values(values: Any, like: Any) -> None:
    """ValueError unless the numbers inside a payload travel as they do in `like`."""
    if type(values) is not type(like):
        raise ValueError(f"its values travel as {type(values).__name__}, others' as {type(like).__name__}")
    if isinstance(values, Quantised):
        values.check(like)


def values_formula(values: Any) -> float:
    return values.formula() if isinstance(values, Quantised) else 4.0 * values.size


def values_bound(values: Any) -> float:
    return values.bound() if isinstance(values, Quantised) else 4.0 * values.size


def floats(data: bytes) -> Vector:
    """The float32 numbers of a message; ValueError if one is not finite."""
    values = np.frombuffer(as_bytes(data), dtype="<f4").astype(np.float32, copy=False)
    if not np.isfinite(values).all():
        raise ValueError("NaN or infinite values")
    return values


def as_bytes(value: Any) -> bytes:
    """A string of bytes, and no array, which has a length, too, and another one."""
    if not isinstance(value, bytes):
        raise ValueError(f"a {type(value).__name__} where bytes belong")
    return value


def as_count(value: Any) -> int:
    """A whole number that may be a length: messages come from strangers."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
        raise ValueError(f"{value!r} is not a length")
    return value
