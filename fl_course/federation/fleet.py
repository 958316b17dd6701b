"""The devices: how long training and transfers take on the simulated clock, and who disappears half-way.

A device's speed belongs to the client for the whole run; the luck of one job belongs to the job. Both come from named
streams, so changing the model or the schedule does not change the devices.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from numbers import Real

import numpy as np

from ..core import ClientId, Meter, stream, whole
from .clock import exact
from .interfaces import Fleet, Luck

LONGEST = 1e300       # seconds: more would take the clock to infinity
WIDEST = 50.0         # of a spread: e^50 ≈ 5·10^21; more would make devices that take for ever, or no time at all


def checked_seconds(fleet: Fleet, what: str, client: ClientId, seconds: float) -> Decimal:
    """What a fleet said, exactly; ValueError unless it is a number of seconds by which a clock can go on."""
    if type(seconds) is float and 0 <= seconds <= LONGEST:             # the usual case, three times for every job
        return exact(seconds)
    if isinstance(seconds, Real) and not isinstance(seconds, bool | np.bool_):
        number = seconds if isinstance(seconds, int) else float(seconds)
        if 0 <= number <= LONGEST:
            return exact(seconds if isinstance(seconds, np.floating) else number)
    raise ValueError(
        f"{fleet!r} says that the {what} of client {client!r} takes {seconds!r} seconds; it must be a finite number from 0"
    )


def waited(meter: Meter) -> Decimal:
    """The seconds for which stages have kept everybody waiting since this was last asked: they exchange messages of their own
    before the broadcast (`begin`) or after the last answer (`server`), and say in meter.seconds how long that took."""
    seconds, meter.seconds = meter.seconds, 0.0
    if not isinstance(seconds, Real | Decimal) or not 0 <= float(seconds) <= LONGEST:
        raise ValueError(f"a stage's own messages took {seconds!r} seconds (meter.seconds); it must be a finite number from 0")
    return exact(seconds)


def checked_away(fleet: Fleet, client: ClientId, seconds: float) -> float:
    """What a fleet said about a client's absence: 0 or more seconds, or infinity."""
    if isinstance(seconds, Real) and not isinstance(seconds, bool | np.bool_) and 0 <= seconds <= math.inf:
        return min(float(seconds), LONGEST) if seconds < math.inf else math.inf
    raise ValueError(f"{fleet!r} says that client {client!r} is away for {seconds!r} seconds; 0 is here, infinity is for ever")


def checked_drop(fleet: Fleet, client: ClientId, drops: bool) -> bool:
    if not isinstance(drops, bool | np.bool_ | int):
        raise TypeError(f"{fleet!r} says {drops!r} to whether client {client!r} drops out; it must be True or False")
    return bool(drops)


def _check_drop(drop: float) -> None:
    if not 0 <= drop < 1:
        raise ValueError(f"drop must be a probability in [0, 1), not {drop}")


@dataclass(frozen=True)
class Equal(Fleet):
    """Every job takes the same time, whatever its work, and transfers take none."""

    seconds: float = 1.0
    drop: float = 0.0

    def __post_init__(self) -> None:
        _check_drop(self.drop)
        if not 0 <= self.seconds <= LONGEST:
            raise ValueError(f"seconds must be at least 0 and finite, not {self.seconds}")

    def compute(self, client: ClientId, examples: float, luck: Luck) -> float:
        return self.seconds

    def drops(self, client: ClientId, luck: Luck) -> bool:
        return self.drop > 0 and bool(luck().random() < self.drop)


@dataclass(frozen=True)
class LogNormal(Fleet):
    """Devices whose speeds and links differ by log-normal factors: most are alike, a few are many times slower.

    examples_per_second, down_mbit, up_mbit: medians over the fleet; *_spread: standard deviation of the natural
    logarithm (0: all equal; 1: one device in six is more than e ≈ 2.7 times slower than the median); jitter: the same
    for one job of one device; drop: probability that a job is never answered.
    """

    examples_per_second: float = 100.0
    speed_spread: float = 0.5
    down_mbit: float = 20.0
    up_mbit: float = 5.0
    link_spread: float = 0.5
    jitter: float = 0.0
    drop: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        _check_drop(self.drop)
        for name in ("examples_per_second", "down_mbit", "up_mbit"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, not {getattr(self, name)}")
        for name in ("speed_spread", "link_spread", "jitter"):
            if not 0 <= getattr(self, name) <= WIDEST:
                raise ValueError(f"{name} must be at least 0 and finite (at most {WIDEST:g}), not {getattr(self, name)}")
        object.__setattr__(self, "seed", whole(self.seed, "seed"))

    def _factor(self, client: ClientId, what: str, spread: float) -> float:
        return _device_factor(self.seed, what, client, spread)

    def compute(self, client: ClientId, examples: float, luck: Luck) -> float:
        speed = self.examples_per_second * self._factor(client, "speed", self.speed_spread)
        return _quotient(examples, speed) * (float(np.exp(self.jitter * luck().standard_normal())) if self.jitter else 1.0)

    def download(self, client: ClientId, nbytes: int) -> float:
        return _quotient(nbytes * 8e-6, self.down_mbit * self._factor(client, "link", self.link_spread))

    def upload(self, client: ClientId, nbytes: int) -> float:
        return _quotient(nbytes * 8e-6, self.up_mbit * self._factor(client, "link", self.link_spread))

    def drops(self, client: ClientId, luck: Luck) -> bool:
        return self.drop > 0 and bool(luck().random() < self.drop)


@lru_cache(maxsize=100_000)                     # asked for at every job, and a named stream takes longer than all the rest
def _device_factor(seed: int, what: str, client: ClientId, spread: float) -> float:
    return float(np.exp(spread * stream(seed, "device", what, client).standard_normal()))


def _quotient(amount: float, rate: float) -> float:
    """Seconds; infinite, which the loop refuses with a sentence, for a rate so small that it is 0."""
    return amount / rate if rate else math.inf
