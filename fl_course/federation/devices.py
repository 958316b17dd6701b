"""Devices that come and go: who is there over the day, and who fails.

    Devices(LogNormal(), DayNight(), failure=0.1)          a fleet put together from speeds, a presence and failures
    Devices(LogNormal(), Trace.read("phones.csv"))         … there when a file says so, see traces.py

A client that is away is not asked; whoever has begun goes on, and may fail. All times are simulated seconds since the start.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ..core import ClientId, stream, whole
from .fleet import LogNormal
from .interfaces import Fleet, Luck
from .traces import Trace

PATIENCE = 10_000     # attempts to find a client there in two ways at once
RAREST = 1e-4         # the smallest chance to be there that is not 0: who comes less often is never


@dataclass(frozen=True)
class DayNight:
    """On and off, by day and by night. Time is cut into slots; in each, every client is there by a coin of its own.

    The chance is `by_night` in the first `night` share of the client's own day, and `by_day` in the rest. So at any hour the
    share of clients that are there has exactly that mean, and a client that is there stays for a geometric number of slots,
    1 / (1 - chance) on average. zones: the clocks of the clients differ by up to that share of a day, evenly (0: all live in
    one time zone, 1: round the globe). A run begins at the beginning of the night of those who are first.
    """

    by_day: float = 0.1             # chance to be there: charging, on Wi-Fi, not in use
    by_night: float = 0.7
    night: float = 0.375            # share of the day: 9 of 24 hours
    day: float = 86_400.0           # s
    slot: float = 1_800.0           # s
    zones: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("by_day", "by_night"):
            if not (getattr(self, name) == 0 or RAREST <= getattr(self, name) <= 1):
                raise ValueError(f"{name} is a probability: 0, or from {RAREST:g} to 1, not {getattr(self, name)}")
        for name in ("night", "zones"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a share of the day, from 0 to 1, not {getattr(self, name)}")
        for name in ("day", "slot"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be a positive number of seconds, not {getattr(self, name)}")
        if self.slots < 1 or self.slots > 100_000 or not math.isclose(self.slots * self.slot, self.day, rel_tol=1e-9):
            raise ValueError(f"a day of {self.day:g} s must be a whole number of slots (at most 100,000), not of {self.slot:g} s")
        if not self.chances.any():
            raise ValueError(f"{self!r} has nobody there at any hour; make by_day or by_night larger")
        object.__setattr__(self, "seed", whole(self.seed, "seed"))

    @property
    def slots(self) -> int:
        """Slots of a day."""
        return round(self.day / self.slot)

    @property
    def chances(self) -> np.ndarray:
        """(slots,) the chance to be there in each slot of the client's own day."""
        return np.where(np.arange(self.slots) < round(self.night * self.slots), self.by_night, self.by_day)

    def chance(self, client: ClientId, when: float) -> float:
        """The probability that this client is there at this second."""
        return float(self.chances[(int(when // self.slot) + self._zone(client)) % self.slots])

    def there(self, client: ClientId, when: float) -> bool:
        return self.away(client, when) == 0

    def away(self, client: ClientId, when: float) -> float:
        """Seconds from `when` until the client is there; 0 if it is."""
        now = int(when // self.slot)                                     # slots since the start of the run
        day = now // self.slots
        while True:
            free = _slots_there(self, client, day)
            if (i := bisect_left(free, now)) < len(free):
                return 0.0 if free[i] == now else max(free[i] * self.slot - when, math.ulp(when))
            day += 1

    def _zone(self, client: ClientId) -> int:
        spread = round(self.zones * self.slots)
        return int(stream(self.seed, "zone", client).integers(spread)) if spread > 1 else 0


@lru_cache(maxsize=32_768)
def _slots_there(presence: DayNight, client: ClientId, day: int) -> list[int]:
    """The slots of this day in which the client is there, rising, counted from the start of the run."""
    coins = stream(presence.seed, "presence", client, day).random(presence.slots)
    there = coins < np.roll(presence.chances, -presence._zone(client))
    return [i + day * presence.slots for i in np.flatnonzero(there).tolist()]


@dataclass(frozen=True)
class Devices(Fleet):
    """A fleet put together: times and links of `speed`, comings and goings of `presence`, and failures.

    failure: how many jobs are never answered, on average over the clients, beside those that `speed` drops.
    failure_spread: standard deviation of the clients' own probabilities, which are drawn once from a Beta distribution with
    that mean: 0 is the same for all.
    """

    speed: Fleet = LogNormal()
    presence: DayNight | Trace | None = None        # None: always there
    failure: float = 0.0
    failure_spread: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.speed, Fleet):
            raise TypeError(f"speed must be a Fleet such as LogNormal(), not {self.speed!r}"[:200])
        if not isinstance(self.presence, DayNight | Trace | None):
            raise TypeError(f"presence must be DayNight(…), a Trace or None, not {self.presence!r}"[:200])
        if not 0 <= self.failure < 1:
            raise ValueError(f"failure must be a probability in [0, 1), not {self.failure}")
        if not (self.failure_spread == 0 or 0 < self.failure_spread**2 < self.failure * (1 - self.failure)):
            most = math.sqrt(self.failure * (1 - self.failure))
            raise ValueError(f"failure_spread: probabilities with mean {self.failure:g} spread by less than {most:.3g}, not by "
                             f"{self.failure_spread}")
        object.__setattr__(self, "seed", whole(self.seed, "seed"))

    def failure_of(self, client: ClientId) -> float:
        """The probability that this client does not answer a job."""
        if not self.failure_spread:
            return self.failure
        size = self.failure * (1 - self.failure) / self.failure_spread**2 - 1              # a + b of the Beta distribution
        rng = stream(self.seed, "failure", client)
        return float(rng.beta(self.failure * size, (1 - self.failure) * size))

    def compute(self, client: ClientId, examples: float, luck: Luck) -> float:
        if isinstance(self.presence, Trace) and self.presence.rated:
            rate = self.presence.rate(client)
            return examples / rate if rate else math.inf
        return self.speed.compute(client, examples, luck)

    def download(self, client: ClientId, nbytes: int) -> float:
        return self.speed.download(client, nbytes)

    def upload(self, client: ClientId, nbytes: int) -> float:
        return self.speed.upload(client, nbytes)

    def drops(self, client: ClientId, luck: Luck) -> bool:
        if not self.failure:
            return self.speed.drops(client, luck)
        rng = luck()                                                                       # one stream, two draws
        lost = self.speed.drops(client, lambda: rng)
        return bool(rng.random() < self.failure_of(client)) or lost

    def away(self, client: ClientId, when: float) -> float:
        if self.presence is None:
            return self.speed.away(client, when)
        wait = 0.0
        for _ in range(PATIENCE):                                # both must be there at once; usually one of them always is
            more = max(self.speed.away(client, when + wait), self.presence.away(client, when + wait))
            if more == 0 or more == math.inf:
                return wait + more
            wait = max(wait + more, math.nextafter(wait, math.inf))
        return math.inf


def always_there(fleet: Fleet) -> bool:
    """Whether nobody is ever away. Of a fleet of one's own that has a word on it, that cannot be known."""
    if type(fleet) is Devices:
        return fleet.presence is None and always_there(fleet.speed)
    return type(fleet).away is Fleet.away
