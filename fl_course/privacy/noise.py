"""Where the noise comes from: samplers, a source that nobody can predict, the tree of DP-FTRL, and a warning.

**The warning.** Every sampler here returns floating-point numbers, and the gaps between these are a fingerprint of the
noiseless value (Mironov 2012; `impossible_outputs` shows it). No choice of random source mends that; it takes noise on
a grid (Canonne, Kamath & Steinke 2020) or snapping. The guarantees of the course are those of real numbers.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Sequence

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from ..core import fingerprint, stream

Shape = int | tuple[int, ...]


class SecureGenerator:
    """Random numbers from AES-256 in counter mode, with the sampling methods of `numpy.random.Generator` used here.

    The bits cannot be told from random ones without the 256-bit key. What is made of them is still floating-point: see
    the warning above. About as fast as NumPy. Two generators with one key and purpose repeat each other, which the
    tree of DP-FTRL needs; with no key, 32 bytes of the operating system's randomness are the key, and forgotten.
    """

    def __init__(self, key: bytes | None = None, *purpose: object) -> None:
        if key is None:
            key = secrets.token_bytes(32)
        if not isinstance(key, bytes) or len(key) != 32:
            raise ValueError(f"the key of a secure generator is 32 bytes, not {len(key)} of {type(key).__name__}")
        # One AES key per purpose, so that counters of different purposes never meet.
        cipher = Cipher(algorithms.AES(fingerprint("secure generator", key, *purpose)), modes.CTR(bytes(16)))
        self._keystream = cipher.encryptor()

    def bits(self, size: Shape = ()) -> np.ndarray:
        """`size` uniform unsigned 64-bit integers."""
        count = math.prod(size) if isinstance(size, tuple) else size
        block = self._keystream.update(bytes(8 * count))
        return np.frombuffer(block, dtype="<u8").reshape(size).astype(np.uint64)

    def random(self, size: Shape = ()) -> np.ndarray:
        """Uniform on the multiples of 2⁻⁵³ in [0, 1): whom a Poisson cohort includes must be secret, too."""
        return (self.bits(size) >> np.uint64(11)) * 2.0**-53

    def standard_normal(self, size: Shape = ()) -> np.ndarray:
        """N(0, 1) through the inverse of Φ, half by half; never beyond 8.3 deviations (probability 2⁻⁵³)."""
        from scipy.special import ndtri  # here, because it takes longer to import than all the rest of the package

        sign, half = self._signed_halves(size)
        return sign * -ndtri(half)

    def normal(self, loc: float = 0.0, scale: float = 1.0, size: Shape = ()) -> np.ndarray:
        return loc + scale * self.standard_normal(size)

    def laplace(self, loc: float = 0.0, scale: float = 1.0, size: Shape = ()) -> np.ndarray:
        """Laplace of scale b (deviation b·√2): an exponential with a random sign."""
        sign, half = self._signed_halves(size)
        return loc - scale * sign * np.log(2 * half)

    def _signed_halves(self, size: Shape) -> tuple[np.ndarray, np.ndarray]:
        """A sign, and a uniform odd multiple of 2⁻⁵⁴ in (0, 1/2): 1 + 52 bits, so that neither 0 nor 1/2 occurs."""
        bits = self.bits(size)
        sign = 1.0 - 2.0 * (bits & np.uint64(1))
        return sign, ((bits >> np.uint64(12)) + 0.5) * 2.0**-53


NoiseSource = np.random.Generator | SecureGenerator


def secure_generator() -> SecureGenerator:
    """A source for noise that must stay secret. A named stream of the course (`core.stream`) is for lessons: whoever
    knows its seed can subtract the noise, and a run that uses one is not private."""
    return SecureGenerator()


def gaussian_noise(shape: Shape, sigma: float, rng: NoiseSource) -> np.ndarray:
    """`shape` float64 draws of N(0, sigma²); sigma = 0 gives zeros and draws all the same (streams stay aligned)."""
    if not (sigma >= 0 and math.isfinite(sigma)):
        raise ValueError(f"sigma must be 0 or more and finite, not {sigma!r}")
    return sigma * rng.standard_normal(shape)


def laplace_noise(shape: Shape, scale: float, rng: NoiseSource) -> np.ndarray:
    """`shape` float64 draws of Laplace(scale), whose deviation is scale·√2; scale = 0 gives zeros."""
    if not (scale >= 0 and math.isfinite(scale)):
        raise ValueError(f"scale must be 0 or more and finite, not {scale!r}")
    return scale * rng.laplace(0.0, 1.0, shape)


# --- DP-FTRL: one noise for every node of a binary tree -------------------------------------------------------------


def tree_nodes(steps: int) -> list[tuple[int, int]]:
    """The nodes (level, index) whose sum is that of steps 1 … `steps`: one for each binary digit 1 of `steps`.

    Node (l, i) covers the 2^l steps after i·2^l, e.g. 6 = 110₂ is (2, 0), steps 1 to 4, and (1, 2), steps 5 and 6.
    """
    if not isinstance(steps, int | np.integer) or steps < 0:
        raise ValueError(f"steps must be an integer, 0 or more, not {steps!r}")
    levels = [level for level in reversed(range(int(steps).bit_length())) if steps >> level & 1]
    return [(level, (steps >> level) - 1) for level in levels]


def tree_variance(steps: int, sigma: float) -> float:
    """Variance of a coordinate of `tree_noise`: at most log2(steps) + 1 nodes, where fresh noise has `steps`."""
    return len(tree_nodes(steps)) * sigma**2


def tree_noise(steps: int, shape: Shape, sigma: float, source: Callable[[int, int], NoiseSource]) -> np.ndarray:
    """`shape` float64: the noise of the *sum* of all updates of steps 1 … `steps` (Kairouz et al. 2021, DP-FTRL).

    Each node has its own N(0, sigma²), made by `source(level, index)` whenever it is needed, so no noise is stored:
    `seeded_nodes(seed)` for lessons, `secret_nodes(keys)` for secrets. The server that moves by increments adds
    `tree_noise(t, …) - tree_noise(t - 1, …)` at step t. Price: `accounting.TreeAggregation`.
    """
    total = np.zeros(shape)
    for level, index in tree_nodes(steps):
        total += gaussian_noise(shape, sigma, source(level, index))
    return total


def seeded_nodes(seed: int, *purpose: object) -> Callable[[int, int], NoiseSource]:
    """Node noise from named streams: reproducible, and for that reason not private."""
    return lambda level, index: stream(seed, "tree", *purpose, level, index)


def secret_nodes(keys: Sequence[bytes], steps: int) -> Callable[[int, int], NoiseSource]:
    """Node noise from AES, one secret key of 32 bytes for each of `tree_nodes(steps)`; a checkpoint that holds them is a
    secret."""
    by_node = dict(zip(tree_nodes(steps), keys, strict=True))
    return lambda level, index: SecureGenerator(by_node[level, index], "tree")


def next_keys(keys: Sequence[bytes], steps: int) -> list[bytes]:
    """The keys of `tree_nodes(steps)` from those of `tree_nodes(steps - 1)`: some nodes end, and exactly one begins.

    Its key is drawn now, when its noise is first released, and from nothing that an earlier state knows. So two runs that go
    on from one state, say after a crash, draw different noise for what each releases; if both derived it from one stored
    secret, the difference of their models would be the noiseless difference of their data. Keys of nodes that end are
    forgotten.
    """
    stay = len(tree_nodes(steps)) - 1                            # the nodes that end are the last: they are the smallest
    return [*keys[:stay], secrets.token_bytes(32)]


# --- the warning, demonstrated ---------------------------------------------------------------------------------------


def impossible_outputs(value: float, other: float, trials: int, rng: np.random.Generator, scale: float = 1.0) -> float:
    """The share of textbook Laplace releases of `value` that no release of `other` could ever produce (Mironov 2012).

    The textbook sampler is `value ± scale·ln(u)` with u a multiple of 2⁻⁵³. Each release y is searched for under
    `other`: invert, try the neighbouring u, and look whether one of them gives y to the last bit. An attacker who sees
    an impossible y knows which value it was: epsilon is infinite, whatever the scale says. Real Laplace noise gives 0.
    """
    u = rng.integers(1, 2**53, trials) * 2.0**-53
    sign = rng.choice([-1.0, 1.0], trials)
    released = value + sign * scale * np.log(u)
    side = np.where(released < other, 1.0, -1.0)
    nearest = np.rint(np.exp(-np.abs(released - other) / scale) * 2.0**53)
    # Within ±8 steps of the grid: the inversion loses a few units in the last place, never more.
    candidates = np.clip(nearest[:, None] + np.arange(-8, 9), 1, 2**53 - 1) * 2.0**-53
    possible = (other + side[:, None] * scale * np.log(candidates) == released[:, None]).any(axis=1)
    return 1.0 - float(possible.mean())
