"""How the updates that arrived become one: the weighted mean. (The robust rules join it in chapter 9.)"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from numbers import Real
from operator import add
from typing import Any

import numpy as np

from ..core import Aggregate, CompositionError, Context, Update, Vector, is_whole, plain_counts
from .interfaces import Aggregation, Experiment


@dataclass(frozen=True)
class Discount:
    """s(τ), how much an update that is τ server steps old still counts; s(0) = 1.

    Xie et al. (2019) have the polynomial and the hinge.

    kind "polynomial": (τ + 1)^-a; "exponential": a^τ with 0 < a ≤ 1; "hinge": 1 up to τ = b, then 1 / (a·(τ - b) + 1).
    """

    kind: str = "polynomial"
    a: float = 0.5
    b: int = 0

    def __post_init__(self) -> None:
        if self.kind not in ("polynomial", "exponential", "hinge"):
            raise ValueError(f"kind must be polynomial, exponential or hinge, not {self.kind!r}")
        if isinstance(self.a, bool) or not isinstance(self.a, Real):
            raise TypeError(f"a must be a number, not {self.a!r}")
        if not (0 <= self.a < math.inf) or (self.kind == "exponential" and not 0 < self.a <= 1):
            raise ValueError(f"a must be at least 0 (for exponential: in (0, 1]), not {self.a}")
        if not is_whole(self.b, 0):
            raise ValueError(f"b must be at least 0, a whole number of steps, not {self.b!r}")
        plain_counts(self)

    def __call__(self, staleness: int) -> float:
        if not is_whole(staleness):
            raise ValueError(f"staleness is a whole number of server steps, not {staleness!r}")
        if staleness < 0:
            raise ValueError(f"an update cannot come from the future: staleness {staleness} < 0")
        if self.kind == "polynomial":
            return float((staleness + 1) ** -self.a)
        if self.kind == "exponential":
            return float(self.a**staleness)
        return 1.0 if staleness <= self.b else 1.0 / (self.a * (staleness - self.b) + 1)


@dataclass(frozen=True)
class WeightedMean(Aggregation):
    """Σ payload and Σ weight: FedAvg's average when the clients weigh their updates themselves (see stages.ByExamples).

    With a `discount`, an update that is τ steps old is multiplied by s(τ) while its weight stays whole, so a stale update
    is a shorter step, not a more careful average (Nguyen et al. 2022, FedBuff, section 5).
    """

    discount: Discount | None = None
    linear = True

    def __post_init__(self) -> None:
        check_discount(self.discount)

    def combine(self, updates: Sequence[Update], staleness: Sequence[int], ctx: Context | None = None) -> Aggregate:
        payloads = [update.delta for update in updates]
        if self.discount is not None:
            payloads = [np.float32(self.discount(age)) * p for age, p in zip(staleness, payloads, strict=True)]
        return Aggregate(add_up(payloads), sum(update.weight for update in updates), mean_of_extras(updates))

    def check(self, experiment: Experiment) -> None:
        if self.discount is not None and any(getattr(stage, "masks", False) for stage in experiment.stages):
            raise CompositionError(
                "a staleness discount multiplies each update on the server, but masked updates are only readable as a sum "
                "in which every one counts once; remove the discount or the secure sum."
            )


def check_discount(discount: object) -> None:
    if discount is not None and not isinstance(discount, Discount):
        raise TypeError(f"discount must be a Discount(…) or None, not {discount!r}")


def add_up(payloads: Sequence[Any]) -> Any:
    """Σ of payloads. Arrays, all of one shape, are added in float64, in the order given, so that the sum of many small
    numbers is exact to float32."""
    if not payloads:
        raise ValueError("nothing to add up: no update arrived")
    if any(not isinstance(payload, np.ndarray) for payload in payloads):
        return reduce(add, payloads)
    total = payloads[0].astype(np.float64)
    longer = np.empty_like(total)                                  # float64 first, then added: quicker than both at once
    for payload in payloads[1:]:
        if np.shape(payload) != total.shape:                       # NumPy would stretch a (1,) over everything
            raise ValueError(f"cannot add arrays of shape {np.shape(payload)} and {total.shape}")
        longer[...] = payload
        total += longer
    return total


def mean_of_extras(updates: Sequence[Update]) -> Mapping[str, Vector]:
    """Plain means, name by name, of what travels beside delta; every update must carry the same names."""
    names = updates[0].extras.keys()
    for update in updates:
        if update.extras.keys() != names:
            raise ValueError(f"client {update.client!r} sent extras {sorted(update.extras)}, others sent {sorted(names)}")
    return {name: (add_up([u.extras[name] for u in updates]) / len(updates)).astype(np.float32) for name in names}
