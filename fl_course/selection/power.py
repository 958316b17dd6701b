"""Power-of-Choice (Cho, Wang, Joshi 2020, arXiv:2010.01243): ask some for their loss, take those where it is largest.

    pow-d    candidates tell the loss on all their examples under the model that the question brings
    cpow-d   … on one batch, which costs less time
    rpow-d   nobody is asked: the loss that each reported when it last trained, the mean of its first and last epoch; who never
             did counts as infinite. The older the loss, the less it says: where clients differ much, this can do harm

The probe is a model down and a number up for every candidate: bytes, and seconds before the round can begin. Both are counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..core import ClientId, Context, is_whole, plain_counts
from ..federation.interfaces import Look, Reports, Selector
from ..federation.sampling import check_draw, largest, reported, weighted_draw
from .fair import sizes
from .looks import losses

VARIANTS = ("pow-d", "cpow-d", "rpow-d")


@dataclass(frozen=True)
class PowerOfChoice(Selector):
    """Of d candidates, drawn without replacement in proportion to n_k, the k with the largest loss.

    candidates: d; all idle clients if there are no more, k if it is less. With d = k it is SizeWeighted(); the larger d, the
    stronger the bias to clients that the model serves badly, and the larger the error that stays (Cho et al., theorem 3.1).
    The paper averages with equal weights: say weights=Uniform(). n_k is what a client said when it was last asked or trained;
    of others the mean of those is assumed. Ties are broken by the dice. batch: of cpow-d. Priced at q = 1.
    """

    candidates: int = 20
    variant: str = "pow-d"
    batch: int = 16
    reads = ("loss", "number of examples")

    def __post_init__(self) -> None:
        for name in ("candidates", "batch"):
            if not is_whole(getattr(self, name), 1):
                raise ValueError(f"{name} must be a whole number from 1, not {getattr(self, name)!r}")
        if self.variant not in VARIANTS:
            raise ValueError(f"variant must be one of {', '.join(VARIANTS)}, not {self.variant!r}")
        plain_counts(self)

    def asks(self, idle: Sequence[ClientId], k: int, rng: np.random.Generator, reports: Reports) -> Sequence[ClientId]:
        return () if self.variant == "rpow-d" else self._candidates(idle, k, rng, reports)

    def answer(self, look: Look) -> Mapping[str, Any]:
        rows = None
        if self.variant == "cpow-d" and self.batch < len(look.y):
            rows = np.sort(look.rng("probe batch").permutation(len(look.y))[: self.batch])
        return {"loss": float(losses(look, rows).mean()), "examples": len(look.y)}

    def cost(self, examples: int) -> float:
        return self.effort * (min(self.batch, examples) if self.variant == "cpow-d" else examples)

    def select(self, idle: Sequence[ClientId], k: int, rng: np.random.Generator, reports: Reports) -> list[ClientId]:
        """By hand: the candidates are those whose answers are the newest."""
        answers = [reports[client].get("probe_version", -1) for client in idle if client in reports]
        return self._among(max(answers, default=-1), idle, k, rng, reports)

    def choose(
        self, idle: Sequence[ClientId], k: int, rng: np.random.Generator, reports: Reports, ctx: Context
    ) -> Sequence[ClientId]:
        return self._among(ctx.server.version, idle, k, rng, reports)

    def _among(
        self, version: int, idle: Sequence[ClientId], k: int, rng: np.random.Generator, reports: Reports
    ) -> list[ClientId]:
        check_draw(idle, k)
        if self.variant == "rpow-d":
            some = self._candidates(idle, k, rng, reports)
            scores = reported(some, reports, "loss_first", "loss_last").mean(0)
            unseen, known = np.isnan(scores), scores[~np.isnan(scores)]
            scores[unseen] = np.nextafter(known.max(), np.inf) if len(known) else 0.0            # more than any that is known
        else:                                                         # who did not answer is not chosen
            some = [c for c in idle if version >= 0 and reports.get(c, {}).get("probe_version") == version]
            scores = reported(some, reports, "probe_loss")[0]
        return largest(some, scores, k, rng)

    def _candidates(self, idle: Sequence[ClientId], k: int, rng: np.random.Generator, reports: Reports) -> list[ClientId]:
        return weighted_draw(idle, sizes(idle, reports), max(self.candidates, k), rng)
