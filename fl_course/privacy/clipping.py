"""Bound how far one client can move the sum: the stage on its own, without noise. (`mechanisms.clip` is its mathematics.)"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial

from ..core import CompositionError, Context, Update
from ..federation.interfaces import Experiment, Stage
from ..federation.stages import ByExamples, dense
from ..wire.payloads import on_values
from .mechanisms import clip


@dataclass(frozen=True)
class Clip(Stage):
    """Scale delta down so that its L2 (or L1) norm over all coordinates together is at most `bound`; never up.

    Behind a stage with error feedback what is cut off waits in its residual, and a bound below what rounds mean lets that
    grow. Before one, the bound is that of what a round means: the residual is added afterwards, so more may be sent.
    """

    bound: float
    norm: int = 2
    lengthens = False                                          # so it may also stand after the clip of a private stage
    lossy = True
    keeps_zeros = True

    def __post_init__(self) -> None:
        if not (self.bound > 0 and math.isfinite(self.bound)):
            raise ValueError(f"the clip bound must be positive and finite, not {self.bound}")
        if self.norm not in (1, 2):
            raise ValueError(f"norm must be 1 or 2, not {self.norm}")

    def client(self, update: Update, ctx: Context) -> Update:
        shorter = partial(clip, bound=self.bound, norm=self.norm)
        return replace(update, delta=on_values(update.delta, lambda values: shorter(dense(values, "Clip"))))

    def check(self, experiment: Experiment) -> None:
        if isinstance(experiment.weights, ByExamples) and experiment.weights.cap is None:
            raise CompositionError(
                f"Clip(bound={self.bound}) after data-size weights clips n_k·delta, so clients with much data lose most "
                "of their step; use weights=Uniform(), or ByExamples(cap=…) with a bound meant for the weighted update."
            )
