"""Clients that are not honest. An attack says whom it controls and what it knows, and stands in Coordinator(attack=…).

    LabelFlip        trains on wrong labels                             its own data
    SignFlip         -scale·its own update                              its own update
    Scaling          factor·its own update                              its own update
    GaussianNoise    numbers from a normal distribution                 nothing
    ALIE             mean - z·deviation of the honest, just inside      all updates of the round
    IPM              -epsilon·mean of the honest                        all updates of the round
    Mimic            a copy of one honest client                        all updates of the round
    Backdoor         in backdoor.py                                     its own data, and how many others there are

"All updates" is the strongest attacker that the papers allow for: it reads what the others are about to send. Where it sees
none, because no honest client trains at that moment, it sends what honest training made of its own data.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any

import numpy as np

from ..core import ClientId, Context, Task, Update, is_whole, plain_counts, stream
from ..data.federated import FederatedData
from ..data.ids import client_ids
from ..federation.interfaces import Attack, Experiment
from ..federation.state import by_name
from .distances import product


def take_clients(attack: Any) -> None:
    """The ids that the attack controls become a tuple, each once."""
    clients = attack.clients
    if isinstance(clients, str | bytes | int | np.integer) or not isinstance(clients, Iterable):
        raise TypeError(f"clients must be the ids that {type(attack).__name__} controls, such as range(3) or ['a', 'b'], "
                        f"not {clients!r}")
    ids = client_ids(clients)
    if isinstance(clients, set | frozenset):                                     # which has no order that would come again
        ids = tuple(sorted(ids, key=by_name))
    if not ids or len(set(ids)) < len(ids):
        raise ValueError(f"clients = {clients!r}; an attack controls at least one client, and each once")
    object.__setattr__(attack, "clients", ids)


def finite(name: str, value: Any, least: float = -math.inf) -> None:
    good = not isinstance(value, bool) and isinstance(value, int | float | np.integer | np.floating)
    if not (good and math.isfinite(value) and value >= least):
        raise ValueError(f"{name} must be a finite number{'' if least == -math.inf else f' from {least:g}'}, not {value!r}")


def replaced(attack: Attack, updates: Sequence[Update], delta: Any) -> list[Update]:
    """The updates, those of the controlled clients with another delta: delta(update) -> (d,)."""
    out = []
    for update in updates:
        if update.client in attack.clients:
            with np.errstate(over="ignore"):
                update = replace(update, delta=np.asarray(delta(update), dtype=np.float32))
        out.append(update)
    return out


def honest(attack: Attack, updates: Sequence[Update]) -> np.ndarray:
    """(n - m, d) float64: what the others are about to send."""
    return np.array([u.delta for u in updates if u.client not in attack.clients], dtype=np.float64)


@dataclass(frozen=True)
class LabelFlip(Attack):
    """Controlled clients train on wrong labels, by the book (Tolpegin et al. 2020): class c becomes classes - 1 - c, or with
    a source and a target only the source becomes the target."""

    clients: Sequence[ClientId]                                                              # type: ignore[assignment]
    source: int | None = None
    target: int | None = None
    knows = "its own data"

    def __post_init__(self) -> None:
        take_clients(self)
        if (self.source is None) != (self.target is None):
            raise ValueError("source and target belong together: which class becomes which; or give neither, to flip all")
        if self.source is not None and not (is_whole(self.source, 0) and is_whole(self.target, 0)):
            raise ValueError(f"source and target must be classes, whole numbers from 0, not {self.source!r} and {self.target!r}")
        plain_counts(self)

    def poison(self, data: FederatedData) -> FederatedData:
        mine = np.concatenate([data.train[data.position(client)] for client in self.clients])
        y = data.y.copy()
        old = y[mine]
        y[mine] = data.classes - 1 - old if self.source is None else np.where(old == self.source, self.target, old)
        return replace(data, y=y)

    def check(self, experiment: Experiment) -> None:
        classes = experiment.data.classes
        if not classes:
            raise ValueError("LabelFlip turns classes round, and these data hold numbers to hit")
        if self.source is not None and not max(self.source, self.target or 0) < classes:
            raise ValueError(f"LabelFlip turns class {self.source} into {self.target}; the data have classes 0 to {classes - 1}")


@dataclass(frozen=True)
class SignFlip(Attack):
    """-scale times what honest training made: gradient ascent."""

    clients: Sequence[ClientId]                                                              # type: ignore[assignment]
    scale: float = 1.0
    knows = "its own update"

    def __post_init__(self) -> None:
        take_clients(self)
        finite("scale", self.scale, 0)

    def strike(self, tasks: Sequence[Task], updates: Sequence[Update], ctx: Context) -> Sequence[Update]:
        return replaced(self, updates, lambda update: -np.float32(self.scale) * update.delta)


@dataclass(frozen=True)
class Scaling(Attack):
    """factor times what honest training made: in a mean it counts as factor clients."""

    clients: Sequence[ClientId]                                                              # type: ignore[assignment]
    factor: float = 10.0
    knows = "its own update"

    def __post_init__(self) -> None:
        take_clients(self)
        finite("factor", self.factor)

    def strike(self, tasks: Sequence[Task], updates: Sequence[Update], ctx: Context) -> Sequence[Update]:
        return replaced(self, updates, lambda update: np.float32(self.factor) * update.delta)


@dataclass(frozen=True)
class GaussianNoise(Attack):
    """Every number from N(0, std²), in place of the update (Blanchard et al. 2017, section 6, with std = 200)."""

    clients: Sequence[ClientId]                                                              # type: ignore[assignment]
    std: float = 1.0
    knows = "nothing"

    def __post_init__(self) -> None:
        take_clients(self)
        finite("std", self.std, 0)

    def strike(self, tasks: Sequence[Task], updates: Sequence[Update], ctx: Context) -> Sequence[Update]:
        def noise(update: Update) -> np.ndarray:
            rng = stream(ctx.seed, "gaussian attack", update.version, update.client)
            return self.std * rng.standard_normal(update.delta.size)

        return replaced(self, updates, noise)


def alie_z(n: int, m: int) -> float:
    """z = Φ⁻¹((n - m - s)/(n - m)), s = ⌊n/2 + 1⌋ - m: of n clients m lie, and need s more beyond them to be the majority
    (Baruch et al. 2019, algorithm 3). 0 where they are a majority already, or need everybody."""
    others, needed = n - m, n // 2 + 1 - m
    return NormalDist().inv_cdf((others - needed) / others) if 0 < needed < others else 0.0


@dataclass(frozen=True)
class ALIE(Attack):
    """A little is enough: mean - z·deviation of the honest updates, number by number (Baruch et al. 2019).

    z=None takes the largest z at which enough honest clients lie further out, so that no rule can tell: `alie_z`.
    """

    clients: Sequence[ClientId]                                                              # type: ignore[assignment]
    z: float | None = None
    knows = "the honest updates of the round"

    def __post_init__(self) -> None:
        take_clients(self)
        if self.z is not None:
            finite("z", self.z)

    def strike(self, tasks: Sequence[Task], updates: Sequence[Update], ctx: Context) -> Sequence[Update]:
        x = honest(self, updates)
        if not len(x):
            return updates
        z = alie_z(len(updates), len(updates) - len(x)) if self.z is None else self.z
        lie = x.mean(axis=0) - z * x.std(axis=0)
        return replaced(self, updates, lambda update: lie)


@dataclass(frozen=True)
class IPM(Attack):
    """Inner product manipulation: -epsilon·mean of the honest updates (Xie et al. 2020). Small epsilon hides among updates that
    differ, and wins wherever the rule then chooses it; against a plain mean epsilon must exceed (n - m)/m."""

    clients: Sequence[ClientId]                                                              # type: ignore[assignment]
    epsilon: float = 0.1
    knows = "the honest updates of the round"

    def __post_init__(self) -> None:
        take_clients(self)
        finite("epsilon", self.epsilon, 0)

    def strike(self, tasks: Sequence[Task], updates: Sequence[Update], ctx: Context) -> Sequence[Update]:
        x = honest(self, updates)
        if not len(x):
            return updates
        lie = -self.epsilon * x.mean(axis=0)
        return replaced(self, updates, lambda update: lie)


@dataclass(frozen=True)
class Mimic(Attack):
    """All controlled clients copy one honest client, so that a rule hears it more often than it should (Karimireddy et al. 2022,
    section 3.3). Nothing that is sent is false, so nothing can be found out.

    victim=None: in each round the one that lies farthest along the direction of largest variance; else that client, whenever
    it takes part.
    """

    clients: Sequence[ClientId]                                                              # type: ignore[assignment]
    victim: ClientId | None = None
    knows = "the honest updates of the round"

    def __post_init__(self) -> None:
        take_clients(self)
        if self.victim in self.clients:
            raise ValueError(f"Mimic copies an honest client, and controls {self.victim!r}")

    def strike(self, tasks: Sequence[Task], updates: Sequence[Update], ctx: Context) -> Sequence[Update]:
        x, names = honest(self, updates), [update.client for update in updates if update.client not in self.clients]
        if self.victim is not None:
            x = x[[name == self.victim for name in names]]
        if not len(x):
            return updates
        lie = x[farthest(x)]
        return replaced(self, updates, lambda update: lie)

    def check(self, experiment: Experiment) -> None:
        if self.victim is not None and self.victim not in experiment.clients:
            raise ValueError(f"Mimic copies client {self.victim!r}, which is no client with training examples")


def farthest(x: np.ndarray) -> int:
    """The row of x (n, d) that lies farthest from the mean along the direction of largest variance."""
    off = x - x.mean(axis=0)
    _, vectors = np.linalg.eigh(product(off, off.T))              # (n, n): where each row lies along the principal directions
    return int(np.argmax(np.abs(vectors[:, -1])))
