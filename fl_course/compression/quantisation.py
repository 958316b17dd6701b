"""Fewer bits a number: unbiased rounding to a grid, three values, signs, and a rotation that makes any of them work better.

    QSGD(8)     2^8 - 1 levels between -max and max, rounded at random so that the mean is right      8 bits
    Ternary()   three levels                                                                         1.6 bits
    SignSGD()   two, the sign, and one magnitude; wrong on purpose, mended by error feedback          1 bit
    Rotate()    before one of them: spreads large entries over all coordinates; costs no byte

A grid that each client scales by its own largest entry is not shared, so none of these can be summed under masks.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from ..core import Aggregate, CompositionError, Context, Server, Update, Vector, is_whole, plain_counts, stream
from ..federation.interfaces import Experiment, Stage
from ..federation.stages import dense
from ..wire.payloads import Quantised, on_values
from .feedback import Compression, refuse_unsound

TILE = 1 << 15                                                   # numbers that stay in the processor's cache
STEP = 1 << 16                                                   # a grid step is cut into so many parts for the dice


def quantise(x: Vector, levels: int, block: int | None, rng: np.random.Generator) -> Quantised:
    """Round x (d,), finite float32, to `levels` values evenly spaced in [-max|x|, max|x|] of its block; unbiased.

    A number that lies a share f of a step above a level goes up with probability f, so its mean is itself and its variance
    f·(1 - f)·step², at most step²/4, with step = 2·max|x| / (levels - 1) (Alistarh et al. 2017, section 3.1, with
    buckets and the maximum for a norm as in their experiments). f is exact to 2^-16 of a step.

    In fixed point: number·2^16 steps plus a random 16-bit number, the lower 16 bits dropped.
    """
    block = max(1, block or x.size)
    count = -(-x.size // block)
    whole = x.size // block * block
    scales = np.zeros(count, dtype=np.float32)
    if whole:
        body = x[:whole].reshape(-1, block)
        scales[: whole // block] = np.maximum(body.max(axis=1), -body.min(axis=1))
    if whole < x.size:
        scales[-1] = np.abs(x[whole:]).max()
    half = (levels - 1) / 2 * STEP                               # zero, in fixed point
    fine = levels > 256 or (0 < scales[scales > 0].min(initial=1) < 1e-30)     # float32 would not do
    real, integer = (np.float64, np.int64) if fine else (np.float32, np.int32)
    with np.errstate(divide="ignore"):
        per_unit: np.ndarray = np.where(scales > 0, half / scales.astype(np.float64), 0).astype(real)
    codes = np.empty(x.size, dtype=np.uint8 if levels <= 256 else np.uint16)
    dice = np.random.Generator(np.random.SFC64(rng.integers(2**63)))           # the fastest; its seed has the name
    for a, b in _tiles(x.size, block):
        fixed = np.repeat(per_unit[a // block : -(-b // block)], min(block, b - a))[: b - a]
        fixed *= x[a:b]
        fixed += real(half)
        whole_steps = np.rint(fixed, out=fixed).astype(integer)
        whole_steps += dice.integers(2**64, size=-(-(b - a) // 4), dtype=np.uint64).view(np.uint16)[: b - a]
        whole_steps >>= 16
        codes[a:b] = whole_steps
    return Quantised(codes, levels, scales, block)


def _tiles(d: int, block: int) -> Iterator[tuple[int, int]]:
    """0 … d in pieces of about TILE numbers: several whole blocks, or a part of one."""
    piece = TILE // block * block or TILE
    for start in range(0, d, max(block, piece)):
        end = min(start + max(block, piece), d)
        yield from ((a, min(a + piece, end)) for a in range(start, end, piece))


def _check_block(block: int | None) -> None:
    if block is not None and not is_whole(block, 1):
        raise ValueError(f"block, how many numbers share a scale, must be a whole number from 1 or None for all, not {block!r}")


def _check_bits(bits: int) -> None:
    if not is_whole(bits, 1) or bits > 16:
        raise ValueError(f"bits must be a whole number from 1 to 16, not {bits!r}")


def stretched(bound: float, size: int, levels: int, block: int | None) -> float:
    """The largest norm that `quantise` can make of a vector of norm `bound`, whatever the dice say.

    No number moves by more than a step, 2·max/(levels - 1) of its block, nor beyond max; and over blocks of B numbers
    Σ B·max² ≤ B·‖x‖².
    """
    root = math.sqrt(min(block or size, size))
    return bound * min(1 + 2 * root / (levels - 1), max(1.0, root)) * (1 + 1e-6)            # float32


def levels_of(bits: int) -> int:
    """2^bits - 1 levels, an odd number, so that zero is one of them; two, without zero, for one bit."""
    return max(2, 2**bits - 1)


@dataclass(frozen=True)
class QSGD(Compression):
    """Unbiased rounding to `bits` bits a number (Alistarh et al. 2017); see `quantise`.

    block: how many numbers share a scale (4 bytes each); None for one scale. Smaller blocks have smaller steps where the
    numbers are small. It needs no feedback, being unbiased: the average over clients takes the error away.
    """

    bits: int = 8
    block: int | None = None
    quantises = True
    lengthens = True

    def __post_init__(self) -> None:
        _check_bits(self.bits)
        _check_block(self.block)
        plain_counts(self)

    def compress(self, x: Vector, ctx: Context) -> Quantised:
        return quantise(x, levels_of(self.bits), self.block, ctx.rng("quantise"))

    def longest(self, bound: float, size: int) -> float:
        """What noise must be scaled to if updates (size,) are clipped to `bound` before they are rounded."""
        return stretched(bound, size, levels_of(self.bits), self.block)

    def check(self, experiment: Experiment) -> None:
        refuse_unsound(self, experiment)
        if self.bits == 1 and any(getattr(stage, "feedback", False) for stage in experiment.pipeline):
            raise CompositionError(
                "QSGD(bits=1) has no level for zero, so its error is larger than most numbers, and a residual that is fed "
                "back with more than it took grows without end; use SignSGD(feedback=False) behind a sparsifier, or bits=2."
            )


@dataclass(frozen=True)
class Ternary(Compression):
    """-max, 0 or max, unbiased, five numbers a byte (TernGrad; Wen et al. 2017, equation 2). It is QSGD(bits=2)."""

    block: int | None = None
    quantises = True
    lengthens = True

    def __post_init__(self) -> None:
        _check_block(self.block)
        plain_counts(self)

    def compress(self, x: Vector, ctx: Context) -> Quantised:
        return quantise(x, 3, self.block, ctx.rng("quantise"))

    def longest(self, bound: float, size: int) -> float:
        """As QSGD's."""
        return stretched(bound, size, 3, self.block)


@dataclass(frozen=True)
class SignSGD(Compression):
    """sign(x)·mean|x|, one bit a number (EF-signSGD; Karimireddy et al. 2019, algorithm 1, with C(x) of its section 4).

    A contraction, ‖x - C(x)‖² = (1 - ‖x‖₁²/(d·‖x‖²))·‖x‖², and biased: without feedback it can fail to converge
    (their counter-examples). The magnitude carries the client's weight; a plain vote of signs could not be weighted.
    """

    feedback: bool = True
    quantises = True
    lengthens = False                                            # ‖C(x)‖² = ‖x‖₁²/d ≤ ‖x‖²

    def compress(self, x: Vector, ctx: Context) -> Quantised:
        total = sum(np.abs(x[a:b]).astype(np.float64).sum() for a, b in _tiles(x.size, max(1, x.size)))
        scale = np.full(min(1, x.size), total / max(1, x.size), dtype=np.float32)
        return Quantised((x >= 0).view(np.uint8), 2, scale, max(1, x.size))


# --- a rotation that all clients share ----------------------------------------------------------------------------------


def hadamard(x: Vector) -> Vector:
    """H·x for the orthonormal Hadamard matrix H of size n, a power of two; H·H = 1. n·log2(n) additions."""
    x, h = np.array(x, dtype=np.float32), 1
    while h < x.size:
        pairs = x.reshape(-1, 2, h)
        x = np.stack([pairs[:, 0] + pairs[:, 1], pairs[:, 0] - pairs[:, 1]], axis=1).ravel()
        h *= 2
    return x * np.float32(x.size**-0.5)


@dataclass(frozen=True)
class Rotate(Stage):
    """A random rotation before quantising, undone on the sum (Suresh et al. 2017, section 3).

    Random signs, then a Hadamard transform: afterwards all coordinates are of about equal size, ‖x‖·sqrt(2·log(2d)/d) at
    most as a rule, and max|x|, hence the step of the grid, is small. No byte more: where d is no power of two, the
    transform is applied to the first 2^m and then to the last 2^m coordinates, both orthonormal.

    All clients share one rotation for the whole run, drawn from the seed, so that the server can undo it on the sum (also
    under masks), an update of an older version needs no other, and a residual kept in rotated coordinates stays right.
    """

    lengthens = False
    exact = True

    def client(self, update: Update, ctx: Context) -> Update:
        x, n = dense(update.delta, "Rotate").copy(), _power(update.delta.size)
        signs = self._signs(ctx, x.size)
        x[:n] = hadamard(x[:n] * signs[0, :n])
        x[-n:] = hadamard(x[-n:] * signs[1, :n])
        return replace(update, delta=x)

    def server(self, aggregate: Aggregate, ctx: Context) -> Aggregate:
        x = np.array(aggregate.total, dtype=np.float32)
        n, signs = _power(x.size), self._signs(ctx, x.size)
        x[-n:] = hadamard(x[-n:]) * signs[1, :n]
        x[:n] = hadamard(x[:n]) * signs[0, :n]
        return replace(aggregate, total=x)

    def _signs(self, ctx: Context, d: int) -> Vector:
        """(2, d) of ±1."""
        return 1 - 2 * stream(ctx.seed, "rotation").integers(2, size=(2, d), dtype=np.int8).astype(np.float32)

    def check(self, experiment: Experiment) -> None:
        before = experiment.pipeline[: next(i for i, stage in enumerate(experiment.pipeline) if stage is self)]
        for stage in before:
            if isinstance(stage, Compression) or stage.masks:
                own_model = type(stage).down is not Stage.down                   # places mean something to it
                raise CompositionError(
                    f"Rotate after {type(stage).__name__}: only plain numbers can be rotated, and a rotated sparse vector is "
                    f"dense again; {'leave one of the two out' if own_model else 'put Rotate() first'}."
                )


def _power(d: int) -> int:
    """The largest power of two that is at most d."""
    return 1 << (d.bit_length() - 1)


# --- the other direction --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Downlink(Stage):
    """The broadcast model rounded to `bits` bits a number, the same for all clients of a version (Tang et al. 2019).

    The server keeps the exact model. Clients start from the rounded one and report how they changed *that*, so no error
    piles up over rounds: the mean change is added to the exact model. Block scales matter here, since layers differ in
    size.
    """

    bits: int = 8
    block: int | None = 64

    def __post_init__(self) -> None:
        _check_bits(self.bits)
        _check_block(self.block)
        plain_counts(self)

    def down(self, server: Server, ctx: Context) -> Server:
        rng = stream(ctx.seed, "downlink", server.version)
        return replace(server, params=on_values(server.params, lambda x: quantise(x, levels_of(self.bits), self.block, rng)))

    def check(self, experiment: Experiment) -> None:
        here = next(i for i, stage in enumerate(experiment.pipeline) if stage is self)
        for later in experiment.pipeline[here + 1 :]:
            if type(later).down is not Stage.down:
                raise CompositionError(
                    f"{type(later).__name__} after Downlink needs the model as numbers, but Downlink has packed it; put "
                    "Downlink last, and once."
                )
