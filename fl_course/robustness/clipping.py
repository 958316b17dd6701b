"""Nobody is left out, but nobody reaches far: a bound on every norm, and clipping around where the last step went.

    NormBound          x_i·min(1, bound/‖x_i‖), then the mean (Sun et al. 2019)
    CentredClipping    v ← v + mean of (x_i - v)·min(1, radius/‖x_i - v‖), v = the last answer (Karimireddy et al. 2021)

Both have a length in them, so that twice the updates do not give twice the answer; the lengths belong to the experiment.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..core import Context, is_whole
from .distances import lengths
from .robust import Robust, check_liars, everybody, positive

CENTRE = "clipping_centre"      # in server.state: (d,) float64


def norm_bound(x: np.ndarray, bound: float) -> np.ndarray:
    """(d,) float64: the mean of the rows of x (n, d), each of which is at most `bound` long."""
    return _short(np.asarray(x, dtype=np.float64), bound).mean(axis=0)


def centred_clipping(x: np.ndarray, centre: np.ndarray, radius: float, iterations: int = 1) -> np.ndarray:
    """(d,) float64: from the centre (d,), `iterations` steps of v + mean of the clipped differences of x (n, d) from v."""
    x, v = np.asarray(x, dtype=np.float64), np.array(centre, dtype=np.float64)
    for _ in range(iterations):
        v = v + _short(x - v, radius).mean(axis=0)
    return v


def _short(x: np.ndarray, bound: float) -> np.ndarray:
    return x * np.minimum(1, bound / np.maximum(lengths(x), np.finfo(float).tiny))[:, None]


@dataclass(frozen=True)
class NormBound(Robust):
    """Every update is shortened to norm `bound`, then the plain mean: whoever lies moves the model by bound/n at most."""

    bound: float
    f: int = 0
    whole, accuses = True, False

    def __post_init__(self) -> None:
        check_liars(self)
        positive("bound", self.bound)

    def weigh(self, x: np.ndarray, ctx: Context | None) -> tuple[np.ndarray, np.ndarray]:
        return norm_bound(x, self.bound), everybody(x)


@dataclass(frozen=True)
class CentredClipping(Robust):
    """v ← v + mean of (x_i - v)·min(1, radius/‖x_i - v‖), `iterations` times, from v = the answer of the last step, at first 0
    (Karimireddy et al. 2021, algorithm 2). The centre lives in server.state, so that a run goes on as if it had never stopped.

    Who lies moves the answer by radius/n at most a step and an iteration. A radius below what honest updates differ by makes
    it slow: it then needs some steps to arrive. A radius beyond all distances is the mean.
    """

    radius: float
    iterations: int = 1
    f: int = 0
    whole, accuses = True, False

    def __post_init__(self) -> None:
        check_liars(self)
        positive("radius", self.radius)
        if not is_whole(self.iterations, 1):
            raise ValueError(f"iterations must be a whole number from 1, not {self.iterations!r}")

    def weigh(self, x: np.ndarray, ctx: Context | None) -> tuple[np.ndarray, np.ndarray]:
        last = None if ctx is None else ctx.server.state.get(CENTRE)
        centre = np.zeros(x.shape[1]) if last is None else last
        answer = centred_clipping(x, centre, self.radius, self.iterations)
        if ctx is not None:
            ctx.state[CENTRE] = answer
        return answer, everybody(x)
