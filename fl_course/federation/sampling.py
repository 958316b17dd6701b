"""Who takes part. A selector draws clients from those that are idle; chapter 6 adds selectors that learn from reports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..core import ClientId, CompositionError
from .interfaces import Experiment, Reports, Selector
from .schedule import Synchronous


def checked(chosen: Sequence[ClientId], idle: Sequence[ClientId], verb: str = "chose") -> tuple[ClientId, ...]:
    """What a selector returned, under the names that the data use; ValueError unless all are idle clients, each once."""
    if chosen is None:
        raise TypeError("the selector returned None; is a `return` missing?")
    names = {client: client for client in idle}
    out = []
    for client in chosen:
        if client not in names:
            twice = client in idle
            why = "twice" if twice else f"which is not one of the {len(idle)} idle clients that it was offered"
            raise ValueError(f"the selector {verb} client {client!r}{' ' if twice else ', '}{why}")
        out.append(names.pop(client))
    return tuple(out)


def _check_draw(idle: Sequence[ClientId], k: int) -> None:
    if k < 0:
        raise ValueError(f"cannot select {k} clients")
    if len(set(idle)) != len(idle):
        raise ValueError("the same client is offered twice")


@dataclass(frozen=True)
class UniformSelection(Selector):
    """Exactly k clients, every subset equally likely (McMahan et al. 2017: a random set of max(C·K, 1) clients).

    They are the first k of a shuffled list. So a larger k adds clients and takes nobody away, and where several finish at
    the same instant and not all are needed, no name is favoured.
    """

    def select(self, idle: Sequence[ClientId], k: int, rng: np.random.Generator, reports: Reports) -> list[ClientId]:
        _check_draw(idle, k)
        return [idle[i] for i in rng.permutation(len(idle))[:k]]


@dataclass(frozen=True)
class PoissonSelection(Selector):
    """Every client by its own coin, with probability k / (idle clients): k on average, sometimes none at all."""

    poisson = True

    def select(self, idle: Sequence[ClientId], k: int, rng: np.random.Generator, reports: Reports) -> list[ClientId]:
        _check_draw(idle, k)
        coins = rng.random(len(idle))
        return [client for client, coin in zip(idle, coins, strict=True) if coin * len(idle) < k]

    def check(self, experiment: Experiment) -> None:
        if not isinstance(experiment.schedule, Synchronous):
            raise CompositionError(
                "Poisson sampling draws from all clients at once, but this schedule restarts clients one by one as they "
                "finish; use Synchronous(…), or UniformSelection()."
            )
        if experiment.schedule.over_selection > 0:
            raise CompositionError(
                f"with over_selection={experiment.schedule.over_selection} the fastest of the drawn clients make the step, so "
                "whether one is in it depends on the others and is no independent coin; use over_selection=0 with Poisson "
                "sampling, and a larger fraction."
            )
