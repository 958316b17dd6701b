"""The ledger: what was released so far, what it has cost, and whether the next round may start.

    if not ledger.can_afford(event): stop        # asked *before* the round, so the budget is never exceeded
    release the noisy sum
    ledger = ledger.charge(event)                # in the same step: released if and only if charged

A ledger is a value. It travels in the server's state, is saved with the checkpoint, and a resumed run cannot forget.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from typing import Any

from ...core import is_whole
from ..mechanisms import between, positive
from .accountants import GDP, RDP, ZCDP
from .calibration import MANY, rounds_for_budget
from .composition import Advanced, Basic
from .events import Event, Repeated, event_from_plain, event_to_plain
from .pld import PLD
from .pricing import Accountant, priced

ACCOUNTANTS = {kind.__name__: kind for kind in (Basic, Advanced, RDP, ZCDP, GDP, PLD)}


@dataclass(frozen=True)
class Ledger:
    """`budget_epsilon=None` keeps the books without a limit. Thousands of equal rounds are one line of `events`.

    The events may be chosen as training goes on (a noise that depends on earlier, noisy results): for Gaussian noise
    the same sums remain valid as a stopping rule (Feldman & Zrnic 2021 for RDP).
    """

    budget_epsilon: float | None
    delta: float
    accountant: Accountant = field(default_factory=PLD)
    events: tuple[tuple[Event, int], ...] = ()                   # (event, how often), in order of first appearance

    def __post_init__(self) -> None:
        if self.budget_epsilon is not None:
            positive("budget_epsilon", self.budget_epsilon)
        between("delta", self.delta)
        if not isinstance(self.accountant, tuple(ACCOUNTANTS.values())):
            raise ValueError(f"accountant must be one of {', '.join(ACCOUNTANTS)}, such as PLD(), not {self.accountant!r}")
        self.accountant.epsilon((), self.delta)                 # refuses a delta that it has no answer for
        priced(self.accountant, [Repeated(event, count) for event, count in self.events])

    def charge(self, event: Event, count: int = 1) -> Ledger:
        """The ledger after `count` more releases of `event`. What happened is booked, also beyond the budget."""
        count = _count(count)
        counts = dict(self.events)
        counts[event] = counts.get(event, 0) + count
        return replace(self, events=tuple(counts.items()))

    def spent(self) -> float:
        """Epsilon so far, at the ledger's delta."""
        return _spent(self.accountant, self.events, self.delta)              # type: ignore[arg-type]

    def remaining(self) -> float:
        """Epsilon left; infinite without a budget. Epsilons of rounds do not add, so do not divide this by a round."""
        return math.inf if self.budget_epsilon is None else max(self.budget_epsilon - self.spent(), 0.0)

    def can_afford(self, event: Event, count: int = 1) -> bool:
        """Whether `count` more releases of `event` stay within the budget."""
        after = self.charge(event, count)                       # refuses an event without a price, also without a budget
        return self.budget_epsilon is None or after.spent() <= self.budget_epsilon

    def rounds_remaining(self, event: Event, limit: int = MANY) -> int:
        """How many more releases of `event` the budget allows, `limit` at most (and without a budget)."""
        if self.budget_epsilon is None:
            return limit
        past = [Repeated(earlier, count) for earlier, count in self.events]
        return rounds_for_budget(self.budget_epsilon, self.delta, event, self.accountant, past, limit)

    def to_plain(self) -> dict[str, Any]:
        """Numbers, strings, lists and dictionaries: for a checkpoint."""
        accountant = {"kind": type(self.accountant).__name__}
        accountant |= {item.name: getattr(self.accountant, item.name) for item in fields(self.accountant)}   # type: ignore[arg-type]
        events = [[event_to_plain(event), count] for event, count in self.events]
        return {"budget_epsilon": self.budget_epsilon, "delta": self.delta, "accountant": accountant, "events": events}

    @staticmethod
    def from_plain(plain: dict[str, Any]) -> Ledger:
        """The inverse of `to_plain`. Raises ValueError for anything that is not a whole ledger."""
        try:
            settings = dict(plain["accountant"])
            accountant = ACCOUNTANTS[settings.pop("kind")](**settings)
            events = tuple((event_from_plain(event), _count(count)) for event, count in plain["events"])
            return Ledger(plain["budget_epsilon"], plain["delta"], accountant, events)
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a privacy ledger: {plain!r}") from error


@lru_cache(maxsize=1024)
def _spent(accountant: Accountant, events: tuple[tuple[Event, int], ...], delta: float) -> float:
    """Remembered, since `can_afford` before a round and `spent` after it are the same sum."""
    return accountant.epsilon([Repeated(event, count) for event, count in events], delta)


def _count(value: int) -> int:
    if not is_whole(value, 0):
        raise ValueError(f"count must be an integer, 0 or more, not {value!r}")
    return int(value)
