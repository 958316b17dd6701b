"""A backdoor: the model does its work, and says what the attacker wants where it sees a trigger (Bagdasaryan et al. 2020).

The attacker trains on its own examples, some of them stamped with a trigger and labelled with its target, and sends

    L = γ·(X - G) + G,   γ = n/η                                                                      (equation 3)

so that the mean of n updates, times the server's rate η, puts its model X in the place of G: model replacement. It takes one
client and one round. How long the backdoor stays after that is up to what the others learn over it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..core import ClientId, Context, Server, Task, Update, is_whole, plain_counts, stream
from ..data.federated import FederatedData
from ..data.partition import image_side
from ..engine.training import Trainer
from ..federation.interfaces import Attack, Experiment
from ..federation.stages import ByExamples
from .attacks import finite, take_clients


@dataclass(frozen=True)
class Trigger:
    """Features (in the flattened example) that are set to a value."""

    pixels: Sequence[int]
    value: float = 1.0

    def __post_init__(self) -> None:
        pixels = tuple(self.pixels) if isinstance(self.pixels, Iterable) else ()
        if not pixels or not all(is_whole(pixel, 0) for pixel in pixels):
            raise ValueError(f"pixels must be numbers of features from 0, at least one, not {self.pixels!r}")
        object.__setattr__(self, "pixels", tuple(int(pixel) for pixel in pixels))
        finite("value", self.value)

    def stamp(self, x: np.ndarray) -> np.ndarray:
        """A copy of x (n, *shape) with the trigger on every example."""
        flat = np.array(x, dtype=np.float32).reshape(len(x), -1)
        if len(x) and max(self.pixels) >= flat.shape[1]:
            raise ValueError(f"the trigger sets feature {max(self.pixels)}; an example has {flat.shape[1]}, counted from 0")
        flat[:, list(self.pixels)] = self.value
        return flat.reshape(np.shape(x))


def corner(shape: tuple[int, ...], side: int = 2, value: float = 1.0) -> Trigger:
    """The lower right corner, side × side, of a square image of that shape."""
    width = image_side(shape)
    if not is_whole(side, 1) or side > width:
        raise ValueError(f"side must be a whole number from 1 to {width}, not {side!r}")
    rows = range(width - side, width)
    return Trigger(tuple(row * width + column for row in rows for column in rows), value)


@dataclass(frozen=True)
class Backdoor(Attack):
    """Model replacement with a trigger.

    target      the class that a stamped example shall be given
    trigger     None: the lower right corner, 2 × 2, of a square image
    share       of its own examples that are stamped and relabelled, all of its training through
    gamma       what its change is multiplied by; None: n/η of the cohort, shared among the controlled clients of the round;
                1.0: no boost, data poisoning alone
    versions    of the model with which it strikes, e.g. (10,); honest in all others. None: always
    epochs      passes of its training; None: as the others

    The record has "backdoor_success": the share of held-out examples of other classes that the model takes for the target once
    they are stamped. It knows its own data, and how many the others are.
    """

    clients: Sequence[ClientId]                                                              # type: ignore[assignment]
    target: int = 0
    trigger: Trigger | None = None
    share: float = 0.5
    gamma: float | None = None
    versions: Sequence[int] | None = None
    epochs: int | None = None
    knows = "its own data, and how many the others are"

    def __post_init__(self) -> None:
        take_clients(self)
        if not is_whole(self.target, 0):
            raise ValueError(f"target must be a class, a whole number from 0, not {self.target!r}")
        if self.trigger is not None and not isinstance(self.trigger, Trigger):
            raise TypeError(f"trigger must be a Trigger(pixels) or None, not {self.trigger!r}")
        finite("share", self.share)
        if not 0 < self.share <= 1:
            raise ValueError(f"share of stamped examples must be in (0, 1], not {self.share!r}")
        if self.gamma is not None:
            finite("gamma", self.gamma)
        if self.versions is not None:
            versions = tuple(self.versions) if isinstance(self.versions, Iterable) else (None,)
            if not all(is_whole(version, 0) for version in versions):
                raise ValueError(f"versions must be whole numbers from 0 or None, such as (10,), not {self.versions!r}")
            object.__setattr__(self, "versions", tuple(int(version) for version in versions if version is not None))
        if self.epochs is not None and not is_whole(self.epochs, 1):
            raise ValueError(f"epochs must be a whole number from 1 or None, not {self.epochs!r}")
        plain_counts(self)

    def trigger_of(self, data: FederatedData) -> Trigger:
        return corner(data.shape) if self.trigger is None else self.trigger

    def stamped(self, data: FederatedData, seed: int = 0) -> FederatedData:
        """The data with a share of the controlled clients' training examples stamped and labelled `target`."""
        x, y = data.x.copy(), data.y.copy()
        for client in self.clients:
            rows = data.train[data.position(client)]
            chosen = stream(seed, "backdoor", client).permutation(rows)[: max(1, round(self.share * len(rows)))]
            x[chosen], y[chosen] = self.trigger_of(data).stamp(x[chosen]), self.target
        return replace(data, x=x, y=y)

    def strike(self, tasks: Sequence[Task], updates: Sequence[Update], ctx: Context) -> Sequence[Update]:
        mine = [task for task in tasks if task.client in self.clients
                and (self.versions is None or task.server.version in self.versions)]
        if not mine:
            return updates
        experiment = ctx.experiment
        how = replace(experiment.training, private=None, personal=None)
        if self.epochs is not None:
            how = replace(how, epochs=self.epochs)
        trained = Trainer(how, experiment.model, self.stamped(experiment.data, ctx.seed)).train(
            [replace(task, memory={}) for task in mine])                              # its drawer stays an honest client's
        gamma = self.boost(updates, ctx) if self.gamma is None else self.gamma
        lies = {task.client: update.delta for task, update in zip(mine, trained, strict=True)}
        with np.errstate(over="ignore"):
            return [replace(update, delta=np.float32(gamma) * lies[update.client]) if update.client in lies else update
                    for update in updates]

    def boost(self, updates: Sequence[Update], ctx: Context) -> float:
        """γ: what the clients of the round weigh in all over what the controlled ones weigh, over the server's rate η."""
        weights = ctx.experiment.weights
        cap = weights.cap or np.inf if isinstance(weights, ByExamples) else 1.0
        counts = {update.client: min(update.metrics.get("examples", 1.0), cap) for update in updates}
        total, schedule = sum(counts.values()), ctx.experiment.schedule
        if schedule.keeps_stragglers:                       # those who train now are not those of a step: a buffer of their like
            total *= getattr(schedule, "buffer", len(counts)) / len(counts)
        rate = float(getattr(ctx.experiment.optimizer, "lr", 1.0))
        return total / sum(count for client, count in counts.items() if client in self.clients) / rate

    def measure(self, experiment: Experiment, server: Server) -> Mapping[str, float]:
        x, y = experiment.data.x_test, experiment.data.y_test
        others = y != self.target
        if not others.any():
            return {}
        said = experiment.model.predict(server.params, self.trigger_of(experiment.data).stamp(x[others])).astype(np.float64)
        as_wished, _ = experiment.model.loss.judge(said, np.full(len(said), self.target))
        return {"backdoor_success": float(np.mean(as_wished))}

    def check(self, experiment: Experiment) -> None:
        data: Any = experiment.data
        if not data.classes:
            raise ValueError("Backdoor has stamped examples taken for a class, and these data hold numbers to hit")
        if not self.target < data.classes:
            raise ValueError(f"Backdoor's target is class {self.target}; the data have {data.classes} classes, counted from 0")
        self.trigger_of(data).stamp(data.x[:1])
