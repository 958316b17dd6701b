"""Arithmetic modulo a prime, twice: in Python integers of any size, and vectorised for many small secrets at once.

`PrimeField(p)` is the text for class: exact for every p, one number at a time.

The vectorised functions work modulo the Mersenne prime P31 = 2^31 - 1, and a 256-bit key is cut into nine 30-bit limbs
that are shared side by side. Why so small a prime? The product of two elements has 62 bits, so it fits a NumPy uint64
*exactly*, and 2^31 = 1 (mod P31) turns the division into a shift and an addition. With 2^61 - 1 there would be five
limbs instead of nine, but every product (122 bits) would have to be put together from four, which is slower. Floating
point is used nowhere: it is wrong beyond 2^53, and the size of a real-valued share tells something about the secret.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..core import plain_counts, whole

P31 = (1 << 31) - 1
P61 = (1 << 61) - 1
P521 = (1 << 521) - 1                         # the first Mersenne prime above 2^256: a whole key in one element

RandomBytes = Callable[[int], bytes]          # n -> n random bytes; `secrets.token_bytes` unless a test says else
Elements = NDArray[np.uint64]                 # numbers modulo P31, before or after the last reduction

_MASK = np.uint64(P31)
_SHIFT = np.uint64(31)


@dataclass(frozen=True)
class PrimeField:
    """The integers 0 … prime − 1 with + and × modulo the prime. Every element except 0 has an inverse."""

    prime: int

    def __post_init__(self) -> None:
        if whole(self.prime, "prime") < 2 or not _is_prime(self.prime):
            raise ValueError(f"prime = {self.prime} is not a prime number, so some elements would have no inverse")
        plain_counts(self)

    def element(self, value: object, name: str = "value") -> int:
        """`value` as an int in [0, prime); anything else is refused, never reduced silently."""
        number = whole(value, name)
        if not 0 <= number < self.prime:
            raise ValueError(f"{name} = {number} is outside the field: it must lie in [0, {self.prime})")
        return number

    def inverse(self, value: int) -> int:
        """The b with value · b = 1 (mod prime)."""
        if self.element(value) == 0:
            raise ValueError("0 has no inverse")
        return pow(value, -1, self.prime)

    def polynomial(self, coefficients: Sequence[int], x: int) -> int:
        """c0 + c1 x + c2 x² + … by Horner's rule."""
        value = 0
        for coefficient in reversed(coefficients):
            value = (value * x + coefficient) % self.prime
        return value

    def points(self, points: Sequence[int]) -> list[int]:
        """The points as ints. Refused: none at all, duplicates, x = 0 (where the secret is), outside the field."""
        xs = [self.element(x, "a point x") for x in points]
        if not xs:
            raise ValueError("interpolation needs at least one point")
        if 0 in xs:
            raise ValueError("x = 0 is no share: the polynomial at 0 is the secret itself")
        if len(set(xs)) != len(xs):
            raise ValueError(f"duplicate points among {_some(xs)}: two copies of one share count once")
        return xs

    def lagrange(self, points: Sequence[int], at: int = 0) -> list[int]:
        """Weights w with f(at) = Σ w[i] f(points[i]) for every polynomial of degree < len(points)."""
        xs, weights = self.points(points), []
        for x in xs:
            above = math.prod(at - other for other in xs if other != x)
            below = math.prod(x - other for other in xs if other != x)
            weights.append(above * pow(below, -1, self.prime) % self.prime)
        return weights


def fold(x: Elements) -> Elements:
    """One step of reduction modulo P31: x < 2^64 becomes a congruent number below 2^33 + 2^31."""
    return (x & _MASK) + (x >> _SHIFT)


def reduce31(x: Elements) -> Elements:
    """The representative of x in [0, P31), for any x < 2^64."""
    folded = fold(fold(x))
    return np.where(folded >= _MASK, folded - _MASK, folded)


def multiply31(a: Elements, b: Elements) -> Elements:
    """a · b modulo P31, elementwise and exact, for a and b in [0, P31)."""
    return reduce31(a * b)


def uniform31(count: int, random_bytes: RandomBytes) -> Elements:
    """(count,) independent uniform elements of [0, P31), from 4 random bytes each.

    The top bit is dropped; of the 2^31 values left, P31 itself is rejected and drawn again, so that none is favoured.
    """
    words = np.frombuffer(random_bytes(4 * count), dtype="<u4").astype(np.uint64) & _MASK
    if (rejected := words == _MASK).any():
        words[rejected] = uniform31(int(rejected.sum()), random_bytes)
    return words


def _is_prime(n: int) -> bool:
    """Miller-Rabin with the first 13 primes as bases: no composite below 3.3e24 passes, larger ones hardly ever."""
    bases = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41)
    if any(n % base == 0 for base in bases):
        return n in bases
    odd, twos = n - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    for base in bases:
        x = pow(base, odd, n)
        if x != 1 and all(pow(x, 1 << i, n) != n - 1 for i in range(twos)):
            return False
    return True


def _some(values: Sequence[int]) -> str:
    return str(list(values[:8]))[:-1] + (", …]" if len(values) > 8 else "]")
