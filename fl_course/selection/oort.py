"""Oort (Lai et al. 2021, OSDI): clients that are useful and fast, and some that nobody knows yet.

    utility of client k = |B_k| · √(mean of its squared losses)      statistical utility, clipped at a quantile
                          · (T / t_k)^α if t_k > T                   system utility: slower than the preferred T seconds
                          + √(0.1 · ln R / L_k)                      it was last heard in round L_k, and this is round R

The constants are those of the authors' program. It also scales the first term to [0, 1], and multiplies the third by the
second; here stands the formula.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..core import ClientId, Context, Server, is_whole, plain_counts
from ..federation.interfaces import Look, Reports, Selector
from ..federation.sampling import check_draw, check_scores, reported, weighted_draw
from .looks import losses

KEPT = "oort"         # where the server keeps the pacer


def utility(
    examples: float, rms: float, seconds: float, preferred: float, now: int, last: int, alpha: float = 2.0
) -> float:
    """U_k of one client. rms: root of the mean of *squared* losses; seconds: t_k; preferred: T; now, last: R, L_k from 1."""
    if not 1 <= last <= now:
        raise ValueError(f"rounds are counted from 1: it was heard in round {last}, and this is round {now}")
    slow = (preferred / seconds) ** alpha if seconds > preferred else 1.0
    return examples * rms * slow + math.sqrt(0.1 * math.log(now) / last)


@dataclass(frozen=True)
class Oort(Selector):
    """(1 - ε)·k clients by utility, ε·k that were never asked; ε = exploration · decay^round, at least least_exploration.

    Exploited are those whose utility is at least cutoff × that of the last among the best (1 - ε)·k, drawn in proportion to
    it. The paper explores the fast first; here no speed is known before a client was asked, so the dice decide. Losses are
    those at the model that the client was sent, which training computes anyway.

    T is the duration below which `threshold` percent of the known ones lie. Every pacer_step rounds, if the clients heard in
    them were of less utility in all than those of the pacer_step rounds before, threshold grows by pacer_delta: slow clients
    get their turn. blacklist: whoever was asked more often is left out, at most blacklist_share of the idle ones, the most
    asked first; None: nobody. Priced at q = 1.
    """

    alpha: float = 2.0
    exploration: float = 0.9
    decay: float = 0.95
    least_exploration: float = 0.2
    clip: float = 0.98
    cutoff: float = 0.7
    threshold: float = 30.0             # percent
    pacer_step: int = 20                # rounds
    pacer_delta: float = 5.0            # percent
    blacklist: int | None = None
    blacklist_share: float = 0.3
    reads = ("loss",)

    def __post_init__(self) -> None:
        for name in ("exploration", "decay", "least_exploration", "clip", "cutoff", "blacklist_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be from 0 to 1, not {getattr(self, name)}")
        for name in ("threshold", "pacer_delta"):
            if not 0 <= getattr(self, name) <= 100:
                raise ValueError(f"{name} is a percentage, from 0 to 100, not {getattr(self, name)}")
        if not 0 <= self.alpha < math.inf:
            raise ValueError(f"alpha must be a finite number from 0, not {self.alpha}")
        if not is_whole(self.pacer_step, 1):
            raise ValueError(f"pacer_step must be a whole number of rounds from 1, not {self.pacer_step!r}")
        if self.blacklist is not None and not is_whole(self.blacklist, 1):
            raise ValueError(f"blacklist must be None or a whole number from 1, not {self.blacklist!r}")
        plain_counts(self)

    def tells(self, look: Look) -> Mapping[str, float]:
        return {"loss_rms": float(np.sqrt(np.mean(np.square(losses(look)))))}

    def select(self, idle: Sequence[ClientId], k: int, rng: np.random.Generator, reports: Reports) -> list[ClientId]:
        """By hand: the round after the last in which anybody was asked or heard, with a pacer that has seen nothing."""
        rounds = [int(report.get(name, -1)) for report in reports.values() for name in ("version", "asked_version")]
        return self.choose(idle, k, rng, reports, Context(0, Server(np.zeros(0, np.float32), max(rounds, default=-1) + 1)))

    def choose(
        self, idle: Sequence[ClientId], k: int, rng: np.random.Generator, reports: Reports, ctx: Context
    ) -> list[ClientId]:
        check_draw(idle, k)
        version = ctx.server.version
        preferred = self._preferred(reports, self._pace(reports, ctx))
        known, fresh, lost = self._divided(idle, reports)
        epsilon = max(self.least_exploration, self.exploration * self.decay**version)
        exploit = min(math.floor(k * (1 - epsilon) + 1e-9), len(known))
        exploit = min(max(exploit, k - len(fresh)), len(known))                # where too few are new, more are known
        chosen = self._exploited(known, exploit, preferred, version + 1, rng, reports)
        explored = [client[i] for client in (fresh, lost) for i in rng.permutation(len(client))]
        return (chosen + explored)[:k]

    def utilities(self, known: Sequence[ClientId], preferred: float, now: int, reports: Reports) -> np.ndarray:
        """(n,) for clients that were heard. preferred: T in s; now: R, this round, from 1."""
        examples, rms, seconds, version = reported(known, reports, "examples", "loss_rms", "seconds", "version")
        value = examples * rms
        value = np.minimum(value, np.quantile(value, self.clip)) if len(value) else value
        with np.errstate(over="ignore"):
            slow = np.where(seconds > preferred, preferred / np.maximum(seconds, 1e-300), 1.0) ** self.alpha
        return check_scores(known, value * slow + np.sqrt(0.1 * math.log(max(now, 1)) / np.maximum(version + 1, 1)), "utility")

    def _divided(self, idle: Sequence[ClientId], reports: Reports) -> tuple[list[ClientId], list[ClientId], list[ClientId]]:
        """Those that were heard, never asked, and asked in vain; the blacklist in none of them."""
        asked = np.nan_to_num(reported(idle, reports, "asked")[0])
        out = set[int]()
        if self.blacklist is not None:
            most = np.argsort(-asked, kind="stable")[: math.floor(self.blacklist_share * len(idle))]
            out = {int(i) for i in most if asked[i] > self.blacklist}
        divided: tuple[list[ClientId], list[ClientId], list[ClientId]] = ([], [], [])
        for i, client in enumerate(idle):
            if i not in out:
                divided[0 if "loss_rms" in reports.get(client, {}) else 2 if asked[i] else 1].append(client)
        return divided

    def _exploited(
        self, known: Sequence[ClientId], k: int, preferred: float, now: int, rng: np.random.Generator, reports: Reports
    ) -> list[ClientId]:
        if k == 0:
            return []
        values = self.utilities(known, preferred, now, reports)
        least = self.cutoff * np.sort(values)[-k]
        near = np.flatnonzero(values >= least)
        return weighted_draw([known[int(i)] for i in near], values[near], k, rng)

    def _preferred(self, reports: Reports, percent: float) -> float:
        """T in seconds."""
        seconds = sorted(report["seconds"] for report in reports.values() if "seconds" in report)
        return seconds[min(int(len(seconds) * percent / 100), len(seconds) - 1)] if seconds and percent < 100 else math.inf

    def _pace(self, reports: Reports, ctx: Context) -> float:
        """The percentage that T stands for, brought up to this version and written down for the next."""
        version = ctx.server.version
        kept: dict[str, Any] = ctx.state.get(KEPT) or ctx.server.state.get(KEPT) or {}
        percent, sums = float(kept.get("threshold", self.threshold)), list(kept.get("utilities", []))
        if kept.get("version") != version:
            heard = [report for report in reports.values() if "loss_rms" in report and report["version"] == version - 1]
            sums.append(math.fsum(report["examples"] * report["loss_rms"] for report in heard))
            before, lately = sums[-2 * self.pacer_step : -self.pacer_step], sums[-self.pacer_step :]
            if version % self.pacer_step == 0 and len(before) == self.pacer_step and math.fsum(before) > math.fsum(lately):
                percent = min(100.0, percent + self.pacer_delta)
            ctx.state[KEPT] = {"version": version, "threshold": percent, "utilities": sums[-2 * self.pacer_step :]}
        return percent
