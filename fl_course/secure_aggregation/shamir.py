"""Shamir's secret sharing (Shamir 1979): any `threshold` of n shares give the secret, fewer say nothing about it.

The secret is f(0) of a random polynomial of degree threshold − 1; share x is f(x). Through threshold − 1 known points
and *any* value at 0 there is exactly one such polynomial, so those shares fit every secret equally well.

    share, reconstruct              one integer, Python ints, any prime: the textbook
    share_keys, reconstruct_keys    many 32-byte keys at once, NumPy, nine limbs modulo 2^31 − 1: what the protocol uses
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from ..core import whole
from .field import P31, P521, Elements, PrimeField, RandomBytes, fold, multiply31, reduce31, uniform31

KEY_BYTES = 32
LIMB_BITS = 30
LIMBS = 9                                     # 9 · 30 = 270 >= 256 bits
SHARE_BYTES = 4 * LIMBS                       # one share of one key: nine 4-byte numbers
FIELD = PrimeField(P521)
FIELD31 = PrimeField(P31)
_COLUMNS = 448                                # limbs worked on at once: two buffers of 51 rows stay in the cache


def share(
    secret: int, threshold: int, n: int, field: PrimeField = FIELD, coefficients: Sequence[int] | None = None
) -> list[tuple[int, int]]:
    """Cut `secret` into n shares (x, f(x)), x = 1 … n, of which any `threshold` suffice.

    `coefficients` (threshold − 1 of them, of x, x², …) exist for tests and exercises only; by default they come from
    the operating system's cryptographic generator, and no other source is safe.
    """
    _check(threshold, n, field)
    if coefficients is None:
        coefficients = [secrets.randbelow(field.prime) for _ in range(threshold - 1)]
    if len(coefficients) != threshold - 1:
        raise ValueError(f"{threshold - 1} coefficients are needed beside the secret, got {len(coefficients)}")
    poly = [field.element(secret, "secret"), *(field.element(c, "a coefficient") for c in coefficients)]
    return [(x, field.polynomial(poly, x)) for x in range(1, n + 1)]


def reconstruct(shares: Iterable[tuple[int, int]], threshold: int, field: PrimeField = FIELD) -> int:
    """The secret, from at least `threshold` shares (x, y). Spare shares must agree with the others, or ValueError.

    Refused: fewer shares than the threshold, two with the same x, x = 0, values outside the field, floats.
    """
    pairs = [(field.element(x, "x of a share"), field.element(y, "y of a share")) for x, y in shares]
    if whole(threshold, "threshold") < 1:
        raise ValueError(f"threshold = {threshold} must be at least 1")
    if len(pairs) < threshold:
        raise ValueError(f"{len(pairs)} shares are fewer than the threshold {threshold}: they say nothing")
    field.points([x for x, _ in pairs])
    chosen, spare = pairs[:threshold], pairs[threshold:]
    xs, ys = [x for x, _ in chosen], [y for _, y in chosen]
    for x, y in spare:
        if _dot(field.lagrange(xs, at=x), ys, field) != y:
            raise ValueError(f"the share at x = {x} does not fit the first {threshold}: one of these shares is wrong")
    return _dot(field.lagrange(xs), ys, field)


def share_keys(
    keys: Sequence[bytes], threshold: int, n: int, random_bytes: RandomBytes = secrets.token_bytes
) -> NDArray[np.uint32]:
    """(n, s, 9) shares of s keys of 32 bytes; row x − 1 belongs to the holder of point x = 1 … n.

    A difference engine. For consecutive points, f(x + 1) = f(x) + Δf(x), Δf(x + 1) = Δf(x) + Δ²f(x), …, and the last
    difference of a polynomial is constant: additions are all it takes. The differences at 0 are drawn uniformly, which
    is the same as drawing the coefficients uniformly, because one determines the other (k! is invertible for k < P31).
    """
    _check(threshold, n, FIELD31)
    limbs = _to_limbs(keys).reshape(-1)                                                      # (9 s,)
    width = limbs.size
    differences = uniform31(threshold * width, random_bytes).reshape(threshold, width)
    differences[0] = limbs                                                                   # f(0) is the secret
    shares = np.empty((n, width), dtype=np.uint32)
    for start in range(0, width, _COLUMNS):
        now = differences[:, start : start + _COLUMNS].copy()
        then, values = now.copy(), np.empty((n, now.shape[1]), dtype=np.uint64)      # the last row stays as it is
        for x in range(n):
            if x % 30 == 29:                  # 32 bits at most after a fold, one more with each of 30 additions: 62
                now = fold(now)
            rows = min(threshold - 1, n - x)  # the higher differences come too late to reach f(n)
            np.add(now[:rows], now[1 : rows + 1], out=then[:rows])
            now, then = then, now
            values[x] = now[0]
        shares[:, start : start + _COLUMNS] = reduce31(values)
    return shares.reshape(n, len(keys), LIMBS)


def reconstruct_keys(points: Sequence[int], shares: NDArray[np.uint32], threshold: int) -> list[bytes | None]:
    """s keys of 32 bytes from the first `threshold` rows of `shares` (m, s, 9), which belong to `points` (m,).

    None stands for a key whose limbs do not form one: some share of it was wrong. A wrong share need not show here,
    so whoever asked for the key also compares it with a commitment or a public key. Refused as in `reconstruct`.
    """
    shares = np.asarray(shares)
    if shares.dtype.kind not in "ui" or shares.ndim != 3 or shares.shape[2] != LIMBS:
        raise TypeError(f"shares must be integers of shape (m, s, {LIMBS}), not {shares.dtype} of shape {shares.shape}")
    if len(points) != len(shares):
        raise ValueError(f"{len(points)} points for {len(shares)} shares")
    if whole(threshold, "threshold") < 1:
        raise ValueError(f"threshold = {threshold} must be at least 1")
    if len(shares) < threshold:
        raise ValueError(f"{len(shares)} shares are fewer than the threshold {threshold}: they say nothing")
    if shares.size and (int(shares.min()) < 0 or int(shares.max()) >= P31):
        raise ValueError(f"a share is outside the field [0, {P31})")
    xs = FIELD31.points(points)[:threshold]
    weights = np.array(FIELD31.lagrange(xs), dtype=np.uint64)
    limbs = np.zeros(shares.shape[1:], dtype=np.uint64)
    for weight, row in zip(weights, shares[:threshold].astype(np.uint64), strict=True):
        limbs = fold(limbs + multiply31(row, weight))
    return [_from_limbs(row) for row in reduce31(limbs).tolist()]


def _check(threshold: int, n: int, field: PrimeField) -> None:
    t, n = whole(threshold, "threshold"), whole(n, "n")
    if not 1 <= t <= n:
        raise ValueError(f"threshold = {t} must lie between 1 and n = {n}, or nobody could ever reconstruct")
    if n >= field.prime:
        raise ValueError(f"n = {n} shares need n points other than 0, but the field has {field.prime} elements")


def _dot(weights: Sequence[int], values: Sequence[int], field: PrimeField) -> int:
    return sum(w * y for w, y in zip(weights, values, strict=True)) % field.prime


def _to_limbs(keys: Sequence[bytes]) -> Elements:
    """(s, 9) limbs below 2^30 of s keys, lowest first."""
    rows = []
    for key in keys:
        if not isinstance(key, bytes) or len(key) != KEY_BYTES:
            raise ValueError(f"a key is {KEY_BYTES} bytes, not {type(key).__name__} of length {len(key)}")
        number = int.from_bytes(key, "little")
        rows.append([number >> (LIMB_BITS * i) & ((1 << LIMB_BITS) - 1) for i in range(LIMBS)])
    return np.array(rows, dtype=np.uint64).reshape(len(rows), LIMBS)


def _from_limbs(limbs: Sequence[int]) -> bytes | None:
    number = sum(limb << (LIMB_BITS * i) for i, limb in enumerate(limbs))
    if max(limbs) >> LIMB_BITS or number >> (8 * KEY_BYTES):
        return None
    return number.to_bytes(KEY_BYTES, "little")
