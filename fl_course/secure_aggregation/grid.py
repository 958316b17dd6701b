"""Numbers that can be summed under masks: integers modulo R = 2^b, and the fixed-point grid that makes them.

Masks hide perfectly only in a finite group, where every element is equally likely, so updates travel as integers modulo
R = 2^ring_bits. NumPy's unsigned integers wrap modulo 2^8, 2^16, 2^32 or 2^64, and 2^b divides the width chosen for it:
additions may wrap freely, and one `&` at the end gives the sum modulo R.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..core import whole
from ..wire.ring import RingVector, ring_dtype


@dataclass(frozen=True)
class FixedPointGrid:
    """The grid that all clients share: floats in [−clip, clip] ⇄ integers 0 … 2^bits − 2, zero in the middle.

    clip        largest magnitude of a coordinate; what is larger saturates and is counted, it never wraps
    bits        of one client's coordinate, 2 … 32
    clients     most clients that one sum may hold; the ring is made large enough for all of them at the maximum
    max_weight  largest weight (such as a sample count) of one client in a weighted sum, >= 1
    ring_bits   0: as few as are needed. Otherwise that many, refused if a sum could overflow
    """

    clip: float
    bits: int
    clients: int
    max_weight: int = 1
    ring_bits: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.clip, np.floating | np.integer):
            object.__setattr__(self, "clip", self.clip.item())
        if isinstance(self.clip, bool) or not isinstance(self.clip, int | float) or not 1e-30 <= self.clip <= 1e30:
            raise ValueError(f"clip = {self.clip!r} must be a positive number, from 1e-30 to 1e30, as float32 needs it")
        for name in ("bits", "clients", "max_weight", "ring_bits"):      # NumPy's integers overflow where Python's grow
            object.__setattr__(self, name, whole(getattr(self, name), name))
        if not 2 <= self.bits <= 32:
            raise ValueError(f"bits = {self.bits} must lie between 2 and 32")
        if self.clients < 1 or self.max_weight < 1:
            raise ValueError(f"clients = {self.clients} and max_weight = {self.max_weight} must be at least 1")
        # R >= n W (2^bits − 1) + 1: the largest sum must still be smaller than the modulus
        largest = self.clients * self.max_weight * ((1 << self.bits) - 1)
        needed = max(8, largest.bit_length())
        if needed > 64:
            raise ValueError(
                f"{self.clients} clients of {self.bits} bits, weight up to {self.max_weight}, need a ring of {needed} "
                "bits, NumPy has 64: lower bits or max_weight"
            )
        if self.ring_bits == 0:
            object.__setattr__(self, "ring_bits", needed)
        elif not needed <= self.ring_bits <= 64:
            raise ValueError(
                f"ring_bits = {self.ring_bits} is too small for {self.clients} clients: their sum can reach {largest}, "
                f"which needs {needed} bits (at most 64); a sum that wraps is wrong without anybody noticing"
            )

    @property
    def offset(self) -> int:
        """The integer that stands for zero."""
        return (1 << (self.bits - 1)) - 1

    @property
    def step(self) -> float:
        """The distance of two grid points, in the unit of the update."""
        return self.clip / self.offset

    def encode(self, x: NDArray[np.floating], rng: np.random.Generator | None = None) -> tuple[RingVector, int]:
        """(d,) floats -> (d,) integers, and how many coordinates saturated.

        Nearest grid point (error <= step / 2); with `rng`, rounded up or down at random without bias (error < step).
        NaN and Inf are refused: as an integer a NaN is an ordinary number, and would spoil the sum unseen.
        """
        x = np.asarray(x)
        if x.dtype.kind != "f" or x.ndim != 1:
            raise TypeError(f"an update is a (d,) array of floats, not {x.dtype} of shape {x.shape}")
        if not np.isfinite(x).all():
            bad = int((~np.isfinite(x)).sum())
            raise ValueError(f"{bad} of {x.size} coordinates are NaN or infinite: refused before masking")
        saturated = int((np.abs(x) > self.clip).sum())
        scaled = np.clip(x.astype(np.float64), -self.clip, self.clip) / self.step
        rounded = np.rint(scaled) if rng is None else np.floor(scaled + rng.random(x.size))
        codes = np.clip(rounded, -self.offset, self.offset).astype(np.int64) + self.offset
        return codes.astype(ring_dtype(self.ring_bits)), saturated

    def decode(self, total: RingVector, count: int) -> NDArray[np.float64]:
        """(d,) sum of `count` encodings -> (d,) float64 sum of the updates on the grid."""
        self._room_for(count)
        return (total.astype(np.float64) - float(count * self.offset)) * self.step

    def encode_weighted(
        self, x: NDArray[np.floating], weight: int = 1, rng: np.random.Generator | None = None
    ) -> tuple[RingVector, int]:
        """(d,) floats -> (d + 1,) integers weight · code, then the weight itself, so that it is never sent in clear."""
        if not 0 <= whole(weight, "weight") <= self.max_weight:
            raise ValueError(f"weight = {weight} must lie in [0, max_weight = {self.max_weight}]")
        codes, saturated = self.encode(x, rng)
        return np.append(codes, codes.dtype.type(1)) * codes.dtype.type(weight), saturated

    def decode_weighted(self, total: RingVector) -> tuple[NDArray[np.float64], int]:
        """(d + 1,) sum of weighted encodings -> (d,) float64 Σ weight · x on the grid, and Σ weight."""
        weight = int(total[-1])
        if weight > self.clients * self.max_weight:
            raise ValueError(f"the weights add up to {weight}, more than {self.clients} clients · {self.max_weight}")
        return (total[:-1].astype(np.float64) - float(weight * self.offset)) * self.step, weight

    def _room_for(self, count: int) -> None:
        if not 0 <= whole(count, "count") <= self.clients:
            raise ValueError(f"count = {count} must lie in [0, clients = {self.clients}]")
