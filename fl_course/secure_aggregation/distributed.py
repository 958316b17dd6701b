"""Noise that nobody has to be trusted with: every client adds a share of it before masking, and only the sum is opened.

Kairouz, Liu & Steinke, "The Distributed Discrete Gaussian Mechanism for Federated Learning with Secure Aggregation",
ICML 2021. The order: clip to L2 norm C, round to the grid, add integers from a discrete Gaussian, mask. At least t clients
are in any sum that is opened (the threshold), so each adds noise of deviation z·C' / sqrt(t), and the sum has z·C' or more.

C' is what can be on the grid: rounding to nearest moves each of d coordinates by half a step at most, so
C' = C + step·sqrt(d) / 2; toward zero it adds nothing. The price is that of a Gaussian of noise multiplier z: the discrete
Gaussian obeys the same Rényi bound (Canonne, Kamath & Steinke 2020, theorem 4 and proposition 5), and a sum of discrete
Gaussians of deviation s is one, but for a divergence of some 10·n·exp(-π²·s²) (Kairouz et al., theorem 1), which is below
1e-30 for the s >= 3 steps that are required. Clients in league with the server know their own shares: k of them leave
sqrt((t - k) / t) of the deviation.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core import Aggregate, ClientId, CompositionError, Context, plain_counts, stream, whole
from ..federation.interfaces import Experiment
from ..privacy.accounting import RDP, ZCDP, Accountant, Gaussian, Ledger
from ..privacy.books import afford, keep_books, nothing_yet, open_ledger, rounds_left
from ..privacy.mechanisms import clip, positive
from ..privacy.noise import NoiseSource, secure_generator
from ..privacy.rules import expected_cohort, refuse_side_channels
from ..wire.ring import RingVector
from .grid import FixedPointGrid

LEAST = 3.0                                   # steps: deviation of one client's share


@dataclass(frozen=True)
class DistributedNoise:
    """Used as SecureSum(…, noise=DistributedNoise(norm, noise_multiplier)), with weights=Uniform().

    norm               C, the L2 bound to which each client clips its update
    noise_multiplier   z, deviation of the noise on the sum / C'
    budget             epsilon at `delta`; the run ends before the round that would exceed it
    accountant         RDP() or ZCDP(): what is proved for the discrete Gaussian. No amplification by sampling is claimed,
                       since the server knows who takes part
    noise_seed         None: noise that nobody can predict. A number: reproducible, and for that reason not private
    """

    norm: float
    noise_multiplier: float
    delta: float = 1e-5
    budget: float | None = None
    accountant: Accountant = field(default_factory=RDP)
    noise_seed: int | None = None

    def __post_init__(self) -> None:
        positive("norm", self.norm)
        positive("noise_multiplier", self.noise_multiplier)
        if self.noise_seed is not None and whole(self.noise_seed, "noise_seed") < 0:
            raise ValueError(f"noise_seed must be None or a whole number from 0, not {self.noise_seed!r}")
        plain_counts(self)
        if not isinstance(self.accountant, RDP | ZCDP):
            raise ValueError(f"{self.accountant!r} prices the continuous Gaussian; for the discrete one use RDP() or ZCDP()")
        Ledger(self.budget, self.delta, self.accountant)

    # --- client ----------------------------------------------------------------------------------------------------------

    def longest(self, grid: FixedPointGrid, size: int, rounding: str) -> float:
        """C', the largest L2 norm of (size,) numbers on the grid."""
        return self.norm + (grid.step * math.sqrt(size) / 2 if rounding == "nearest" else 0.0)

    def share(self, grid: FixedPointGrid, size: int, rounding: str, threshold: int) -> float:
        """Deviation of one client's noise, in steps of the grid."""
        return self.noise_multiplier * self.longest(grid, size, rounding) / (grid.step * math.sqrt(threshold))

    def shorten(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        return clip(x, self.norm)

    def add(self, codes: RingVector, deviation: float, ring_bits: int, version: int, client: ClientId | None) -> RingVector:
        """(d + 1,) codes and a weight -> the same with noise on the d codes, modulo R."""
        rng = secure_generator() if self.noise_seed is None else stream(self.noise_seed, "distributed noise", version, client)
        noised = codes.astype(np.int64)
        noised[:-1] += discrete_gaussian(codes.size - 1, deviation, rng)
        return (noised & ((1 << ring_bits) - 1)).astype(codes.dtype)

    # --- server ----------------------------------------------------------------------------------------------------------

    def decode(self, grid: FixedPointGrid, total: RingVector) -> tuple[NDArray[np.float64], int]:
        """Like `grid.decode_weighted`, for a sum that noise may have carried below zero or above the largest code."""
        below = margin(grid)
        shifted = (total[:-1].astype(np.int64) + below) & ((1 << grid.ring_bits) - 1)
        weight = int(total[-1])
        return (shifted - below - weight * grid.offset).astype(np.float64) * grid.step, weight

    def event(self) -> Gaussian:
        return Gaussian(float(self.noise_multiplier))

    def begin(self, ctx: Context) -> None:
        """BudgetSpent if the ledger cannot pay for this round."""
        ledger = self._ledger(ctx)
        afford(ledger, self.event(), ctx.server.version)
        nothing_yet(ctx, ledger)                         # an aborted round stays so

    def release(self, grid: FixedPointGrid, total: RingVector, ctx: Context) -> Aggregate:
        """A noisy sum has been opened: decode it and write it down. An aborted round releases nothing and costs nothing.

        The denominator is the cohort that was planned, a public number: who dropped out changes neither it nor the price.
        """
        charged = self._ledger(ctx).charge(self.event())
        keep_books(self, ctx, charged, lambda: rounds_left(charged, self.event()))
        return Aggregate(self.decode(grid, total)[0], float(expected_cohort(ctx.experiment)))

    def _ledger(self, ctx: Context) -> Ledger:
        return open_ledger(Ledger(self.budget, self.delta, self.accountant), ctx.server.state, ctx.server.version)

    # --- what it does not go with ------------------------------------------------------------------------------------------

    def check(
        self, experiment: Experiment, max_weight: int, rounding: str, cohorts: Iterable[tuple[FixedPointGrid, int]]
    ) -> None:
        """cohorts: the grid and the threshold of every cohort that can occur and be opened, as in `fit`."""
        refuse_side_channels("DistributedNoise", experiment)
        if max_weight != 1:
            raise CompositionError(
                "DistributedNoise is scaled to updates that count once; use weights=Uniform() and leave max_weight at 1."
            )
        if any(hasattr(other, "noise_multiplier") for other in experiment.pipeline):
            raise CompositionError("two private stages: use DistributedNoise or the other one.")
        for grid, threshold in cohorts:
            try:
                self.fit(grid, experiment.model.dim, rounding, threshold)
            except ValueError as why:
                raise CompositionError(f"a cohort of {grid.clients} clients, which can occur: {why}") from why

    def fit(self, grid: FixedPointGrid, size: int, rounding: str, threshold: int) -> None:
        """ValueError unless the noise of a cohort of grid.clients can be priced, and its sum cannot wrap around.

        size: d; threshold: answers at least in a sum that is opened. Neither the ring nor the shares of a small cohort
        follow from those of a large one, so this is asked of every cohort.
        """
        if grid.ring_bits > 62:
            raise ValueError(f"ring_bits = {grid.ring_bits}: DistributedNoise works with 62 at most.")
        share = self.share(grid, size, rounding, threshold)
        if share < LEAST:
            raise ValueError(
                f"one client's noise is {share:.2g} steps of the grid, too few for a discrete Gaussian to be priced as a "
                f"Gaussian ({LEAST:g} are needed); use more bits, or more noise."
            )
        deviation = share * math.sqrt(grid.clients)
        if margin(grid) < 10 * deviation:
            raise ValueError(
                f"a ring of {grid.ring_bits} bits leaves {margin(grid)} steps on either side of the sum for noise of deviation "
                f"{deviation:.3g}, and 10 deviations are needed: it would wrap around; say a larger ring_bits (62 at most), "
                "or use fewer bits."
            )


def margin(grid: FixedPointGrid) -> int:
    """Steps of the ring that no sum of codes uses, on either side."""
    return ((1 << grid.ring_bits) - grid.clients * (2 * grid.offset + 1)) // 2


def discrete_gaussian(size: int, deviation: float, rng: NoiseSource) -> NDArray[np.int64]:
    """(size,) integers k with probability proportional to exp(-k² / (2·deviation²)).

    Rejection from a discrete Laplace distribution of scale floor(deviation) + 1 (Canonne et al. 2020, algorithm 3), with
    floating-point coins in place of exact ones: probabilities are right to some 1e-15.
    """
    positive("deviation", deviation)
    scale = math.floor(deviation) + 1
    kept: list[Any] = []
    missing = size
    while missing > 0:
        n = 2 * missing + 16
        one, other = (np.floor(-scale * np.log1p(-rng.random(n))) for _ in range(2))      # geometric; their difference is
        k = one - other                                                                   # discrete Laplace
        accept = np.exp(-((np.abs(k) - deviation**2 / scale) ** 2) / (2 * deviation**2))
        kept.append(k[rng.random(n) < accept].astype(np.int64)[:missing])
        missing -= kept[-1].size
    return np.concatenate(kept) if kept else np.zeros(0, np.int64)
