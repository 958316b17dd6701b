"""Who takes part. A selector draws clients from those that are idle; chapter 6 adds selectors that learn from reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .core import ClientId, CompositionError
from .schedule import Synchronous

if TYPE_CHECKING:
    from .coordinator import Coordinator

Reports = Mapping[ClientId, Mapping[str, float]]


class Selector:
    """Abstract. `poisson` says that every client is drawn independently with one public probability, the only kind of
    sampling for which the accountants of chapter 3 grant amplification."""

    poisson = False

    def select(self, idle: Sequence[ClientId], k: int, rng: np.random.Generator, reports: Reports) -> list[ClientId]:
        """Choose from the idle clients, about k of them. reports: what each client's last answer said about it."""
        raise NotImplementedError

    def check(self, experiment: Coordinator) -> None:
        """Raise CompositionError if this selector is unsound beside the rest of the experiment."""


def _check_draw(idle: Sequence[ClientId], k: int) -> None:
    if k < 0:
        raise ValueError(f"cannot select {k} clients")
    if len(set(idle)) != len(idle):
        raise ValueError("the same client is offered twice")


@dataclass(frozen=True)
class UniformSelection(Selector):
    """Exactly k clients, every subset equally likely (McMahan et al. 2017: a random set of max(C·K, 1) clients)."""

    def select(self, idle: Sequence[ClientId], k: int, rng: np.random.Generator, reports: Reports) -> list[ClientId]:
        _check_draw(idle, k)
        chosen = rng.choice(len(idle), size=min(k, len(idle)), replace=False)
        return [idle[i] for i in sorted(chosen)]


@dataclass(frozen=True)
class PoissonSelection(Selector):
    """Every client by its own coin, with probability k / (idle clients): k on average, sometimes none at all."""

    poisson = True

    def select(self, idle: Sequence[ClientId], k: int, rng: np.random.Generator, reports: Reports) -> list[ClientId]:
        _check_draw(idle, k)
        coins = rng.random(len(idle))
        return [client for client, coin in zip(idle, coins, strict=True) if coin * len(idle) < k]

    def check(self, experiment: Coordinator) -> None:
        if not isinstance(experiment.schedule, Synchronous):
            raise CompositionError(
                "Poisson sampling draws from all clients at once, but this schedule restarts clients one by one as they "
                "finish; use Synchronous(…), or UniformSelection()."
            )
