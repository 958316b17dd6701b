"""What a client sends under secure aggregation: integers of which each alone is a uniform random number.

It lives outside secure_aggregation/ because the wire must know it, and the protocol is built on the wire.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core import whole
from .payloads import Payload


@dataclass(frozen=True, eq=False)
class Masked(Payload):
    """(d + 1,) integers modulo 2^bits: weight · update on the grid, then the weight; all of it under masks.

    `+` adds modulo 2^bits, and that is all that can be done with it: `dense()` refuses. Only payloads of one round add
    up, because only their masks cancel.
    """

    vector: NDArray[np.unsignedinteger]
    bits: int
    round_id: bytes = b""                                     # 16 bytes; empty if there are no masks, for comparisons
    tag = "masked"

    @property
    def size(self) -> int:
        return self.vector.size - 1

    def dense(self) -> Any:
        raise TypeError("a masked update cannot be read, only added to the others of its round")

    def add_to(self, total: np.ndarray) -> np.ndarray:
        return total + self.dense()

    def __mul__(self, factor: float) -> np.ndarray:
        return factor * self.dense()

    __rmul__ = __mul__

    def __add__(self, other: Any) -> Masked:                  # type: ignore[override]
        if not isinstance(other, Masked):
            raise TypeError(f"only masked updates can be added to a masked update, not a {type(other).__name__}")
        if (self.bits, self.round_id, self.vector.shape) != (other.bits, other.round_id, other.vector.shape):
            raise ValueError("masked updates of different rounds or rings do not add up: their masks would not cancel")
        total = self.vector + other.vector                    # wraps modulo the width of the dtype, which 2^bits divides
        return replace(self, vector=total & total.dtype.type((1 << self.bits) - 1))

    def __radd__(self, other: Any) -> Masked:                 # type: ignore[override]
        return self + other

    def to_wire(self) -> list[Any]:
        # Not at the top of the file: the package imports the wire, which imports this.
        from .ring import pack

        return [self.tag, self.round_id, self.bits, self.vector.size, pack(self.vector, self.bits)]

    @classmethod
    def from_wire(cls, wire: Sequence[Any]) -> Masked:
        from .ring import unpack

        _, round_id, bits, size, packed = wire
        if not isinstance(round_id, bytes) or len(round_id) not in (0, 16) or whole(size, "size") < 1:
            raise ValueError(f"a masked vector of {size!r} numbers in round {round_id!r}")
        return cls(unpack(packed, bits, size), bits, round_id)

    def check(self, like: Masked) -> None:
        if (self.bits, self.round_id) != (like.bits, like.round_id):
            raise ValueError(f"it is masked for round {self.round_id.hex() or 'none'} modulo 2^{self.bits}, "
                             f"this is round {like.round_id.hex() or 'none'} modulo 2^{like.bits}")

    def formula(self) -> float:
        """Bytes: bits · (d + 1) / 8. Random numbers cannot be compressed, so this is the bound, too."""
        return self.bits * self.vector.size / 8

    bound = formula
