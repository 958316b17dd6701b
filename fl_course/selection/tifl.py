"""TiFL (Chai et al. 2020, arXiv:2001.09249): each round asks one tier of equally fast clients, so that nobody waits for the slow.

Tiers are measured: first everybody is asked once, and its seconds are its profile. Every few rounds all clients say how good
the model is on their data; the lower a tier's rank in that, the more often it is chosen. Each tier has credits, so that a
slow tier with bad accuracy is not chosen for ever; when all are spent, the run ends.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..core import BudgetSpent, ClientId, CompositionError, Context, Server, is_whole, plain_counts
from ..federation.interfaces import Experiment, Look, Reports, Selector
from ..federation.sampling import NOTHING, check_draw, reported
from .looks import standing

KEPT = "tifl credits"         # where the server keeps what each tier has left


def tiers_of(seconds: Sequence[float] | np.ndarray, tiers: int) -> np.ndarray:
    """(n,) the tier of each client, 0 the fastest: sorted by seconds (n,) and cut into parts as equal as can be."""
    order, out = np.argsort(np.asarray(seconds, dtype=np.float64), kind="stable"), np.zeros(len(seconds), dtype=np.int64)
    for tier, places in enumerate(np.array_split(order, tiers)):
        out[places] = tier
    return out


def tier_chances(accuracies: Sequence[float] | np.ndarray) -> np.ndarray:
    """(n,) chances of n tiers, lowest accuracy first: the i-th from below, i = 0, 1, …, has 2(n - i) / (n(n + 1)).

    Tiers of equal accuracy share what they would have together.
    """
    values = np.asarray(accuracies, dtype=np.float64)
    n = len(values)
    by_rank = 2 * (n - np.arange(n)) / (n * (n + 1))
    return np.array([by_rank[(values < value).sum() : (values <= value).sum()].mean() for value in values])


@dataclass(frozen=True)
class TiFL(Selector):
    """k clients of one tier, drawn uniformly from those of its members that are there.

    tiers: of equal size by measured seconds; credits: how often each can be chosen (BudgetSpent when all are spent, which ends
    the run); every: rounds between two questions how good the model is, which go to all idle clients; patience: who has not
    answered after being asked so often counts as slowest. Rounds in which clients are asked for the first time cost no credit.
    Priced at q = 1.
    """

    tiers: int = 5
    credits: int = 100
    every: int = 10             # rounds
    patience: int = 2
    reads = ("accuracy",)

    def __post_init__(self) -> None:
        for name in ("tiers", "credits", "every", "patience"):
            if not is_whole(getattr(self, name), 1):
                raise ValueError(f"{name} must be a whole number from 1, not {getattr(self, name)!r}")
        plain_counts(self)

    def asks(self, idle: Sequence[ClientId], k: int, rng: np.random.Generator, reports: Reports) -> Sequence[ClientId]:
        now = 1 + max((report.get("asked_version", -1) for report in reports.values()), default=-1)
        if not now or now % self.every or self._unknown(idle, reports):
            return ()
        return [client for client in idle if reports.get(client, NOTHING).get("probe_version", -1) < now]

    def answer(self, look: Look) -> Mapping[str, Any]:
        return {"accuracy": standing(look)}

    def select(self, idle: Sequence[ClientId], k: int, rng: np.random.Generator, reports: Reports) -> list[ClientId]:
        """By hand: with all credits."""
        return self.choose(idle, k, rng, reports, Context(0, Server(np.zeros(0, np.float32))))

    def choose(
        self, idle: Sequence[ClientId], k: int, rng: np.random.Generator, reports: Reports, ctx: Context
    ) -> list[ClientId]:
        check_draw(idle, k)
        if unknown := self._unknown(idle, reports):
            asked = np.nan_to_num(reported(unknown, reports, "asked")[0])
            return [unknown[i] for i in np.lexsort((rng.random(len(unknown)), asked))[:k]]
        everybody = list(dict.fromkeys([*reports, *idle]))
        tier = dict(zip(everybody, tiers_of(self._seconds(everybody, reports), self.tiers).tolist(), strict=True))
        left = list(ctx.state.get(KEPT) or ctx.server.state.get(KEPT) or ())
        left = left if len(left) == self.tiers else [self.credits] * self.tiers
        if everybody and not any(left[t] for t in set(tier.values())):
            raise BudgetSpent(f"TiFL has spent the {self.credits} credits of each of its {self.tiers} tiers; for a longer run "
                              "say credits=…")
        there = {tier[client] for client in idle}
        open_ = np.array([left[t] > 0 and t in there for t in range(self.tiers)])
        if not open_.any() or k == 0:
            return []                                                    # who has credits left is away
        chances = np.where(open_, tier_chances(self._accuracies(everybody, tier, reports)), 0.0)
        chosen = int(rng.choice(self.tiers, p=chances / chances.sum()))
        left[chosen] -= 1
        ctx.state[KEPT] = left
        members = [client for client in idle if tier[client] == chosen]
        return [members[i] for i in rng.permutation(len(members))[:k]]

    def _unknown(self, idle: Sequence[ClientId], reports: Reports) -> list[ClientId]:
        """Those whose speed is not measured yet, and who are worth another try."""
        asked, seconds = reported(idle, reports, "asked", "seconds")
        some = np.isnan(seconds) & ~(asked >= self.patience)
        return [client for client, new in zip(idle, some, strict=True) if new]

    def _seconds(self, clients: Sequence[ClientId], reports: Reports) -> np.ndarray:
        return np.nan_to_num(reported(clients, reports, "seconds")[0], nan=np.inf)

    def _accuracies(self, clients: Sequence[ClientId], tier: Mapping[ClientId, int], reports: Reports) -> np.ndarray:
        """(tiers,) mean over the members that have told; of a tier that has not, the mean over the others."""
        told, of = reported(clients, reports, "probe_accuracy")[0], np.array([tier[client] for client in clients])
        means = np.array([told[(of == t) & ~np.isnan(told)].mean() if (~np.isnan(told[of == t])).any() else np.nan
                          for t in range(self.tiers)])  # fmt: skip
        return np.where(np.isnan(means), means[~np.isnan(means)].mean() if (~np.isnan(means)).any() else 0.0, means)

    def check(self, experiment: Experiment) -> None:
        if experiment.schedule.keeps_stragglers:
            raise CompositionError(
                f"TiFL asks one tier a round, and {type(experiment.schedule).__name__} has no rounds: it replaces clients one by "
                "one as they finish, so that nobody waits for the slow anyway; use Synchronous(…), or UniformSelection()."
            )
