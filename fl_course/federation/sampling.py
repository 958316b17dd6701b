"""Who takes part. A selector draws clients from those that are idle; selection/ has those that learn from reports."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..core import ClientId, CompositionError, is_whole
from .devices import always_there
from .interfaces import Experiment, Reports, Selector
from .schedule import Synchronous

MISSING = -np.inf     # stands for what a report does not say
NOTHING: Mapping[str, Any] = MappingProxyType({})


def checked(chosen: Sequence[ClientId], idle: Sequence[ClientId], verb: str = "chose") -> tuple[ClientId, ...]:
    """What a selector returned, under the names that the data use; ValueError unless all are idle clients, each once."""
    if chosen is None:
        raise TypeError("the selector returned None; is a `return` missing?")
    if not isinstance(chosen, Iterable):
        raise TypeError(f"the selector returned {chosen!r}, not a list of clients")
    chosen = list(chosen)
    few = len(chosen) < 9                                   # looked up one by one: a dictionary of 10,000 takes longer
    names = {client: client for client in ([idle[idle.index(c)] for c in chosen if c in idle] if few else idle)}
    out = []
    for client in chosen:
        if client not in names:
            twice = client in idle
            why = "twice" if twice else f"which is not one of the {len(idle)} idle clients that it was offered"
            raise ValueError(f"the selector {verb} client {client!r}{' ' if twice else ', '}{why}")
        out.append(names.pop(client))
    return tuple(out)


def check_draw(idle: Sequence[ClientId], k: int) -> None:
    if not is_whole(k, 0):
        raise ValueError(f"cannot select {k!r} clients; k must be a whole number from 0")
    if len(set(idle)) != len(idle):
        raise ValueError("the same client is offered twice")


def reported(idle: Sequence[ClientId], reports: Reports, *names: str) -> np.ndarray:
    """(names, n) float64: what each idle client's report says under these names, NaN where it says nothing.

    ValueError, with the client's name, for something reported that is not a finite number.
    """
    table = np.empty((len(names), len(idle)))
    mine = [reports.get(client, NOTHING) for client in idle]
    for column, name in zip(table, names, strict=True):
        said = [report.get(name, MISSING) for report in mine]
        try:
            column[:] = np.fromiter(said, np.float64, len(idle))
        except (ValueError, TypeError):
            odd = next(i for i, value in enumerate(said) if not isinstance(value, Real))
            raise ValueError(f"client {idle[odd]!r} reports {said[odd]!r} as its {name!r}; it must be a number"[:300]) from None
        missing = column == MISSING
        if len(bad := np.flatnonzero(~np.isfinite(column) & ~missing)):
            raise ValueError(f"client {idle[bad[0]]!r} reports {column[bad[0]]} as its {name!r}; it must be a finite number")
        column[missing] = np.nan
    return table


def check_scores(idle: Sequence[ClientId], scores: ArrayLike, what: str = "score") -> np.ndarray:
    """(n,) float64. ValueError, with the client's name, unless every score is a finite number."""
    scores = np.asarray(scores, dtype=np.float64)
    if scores.shape != (len(idle),):
        raise ValueError(f"there are {len(idle)} idle clients, and {what}s of shape {scores.shape}; there must be one each")
    if len(bad := np.flatnonzero(~np.isfinite(scores))):
        raise ValueError(f"the {what} of client {idle[bad[0]]!r} is {scores[bad[0]]}, and cannot be compared with the others")
    return scores


def weighted_draw(idle: Sequence[ClientId], weights: ArrayLike, k: int, rng: np.random.Generator) -> list[ClientId]:
    """k clients one after the other, each time with chances in proportion to the weights (n,) of those that are left.

    By the race of Efraimidis and Spirakis (2006): every client draws Exp(1) / weight, the k smallest win. So a larger k adds
    clients and takes nobody away. Weights of 0 come last, all alike; if all are 0, the draw is uniform. ValueError, with the
    client's name, for a weight that is negative, infinite or NaN.
    """
    check_draw(idle, k)
    weights = check_scores(idle, weights, "weight")
    if len(bad := np.flatnonzero(weights < 0)):
        raise ValueError(f"the weight of client {idle[bad[0]]!r} is {weights[bad[0]]}; it must be at least 0")
    times, some = rng.standard_exponential(len(idle)), weights > 0
    finish = np.full(len(idle), np.inf)
    with np.errstate(over="ignore", divide="ignore"):                                     # however small a weight, it is before 0
        finish[some] = np.minimum(times[some] / (weights[some] / weights.max(initial=0.0)), np.finfo(np.float64).max)
    return [idle[i] for i in np.lexsort((times, finish))[:k]]


def largest(idle: Sequence[ClientId], scores: ArrayLike, k: int, rng: np.random.Generator) -> list[ClientId]:
    """The k clients with the largest scores (n,), largest first; among equal ones the dice decide, never the order of names."""
    check_draw(idle, k)
    scores = check_scores(idle, scores)
    return [idle[i] for i in np.lexsort((rng.random(len(idle)), -scores))[:k]]


@dataclass(frozen=True)
class UniformSelection(Selector):
    """Exactly k clients, every subset equally likely (McMahan et al. 2017: a random set of max(C·K, 1) clients).

    They are the first k of a shuffled list. So a larger k adds clients and takes nobody away, and where several finish at
    the same instant and not all are needed, no name is favoured.
    """

    def select(self, idle: Sequence[ClientId], k: int, rng: np.random.Generator, reports: Reports) -> list[ClientId]:
        check_draw(idle, k)
        return [idle[i] for i in rng.permutation(len(idle))[:k]]


@dataclass(frozen=True)
class PoissonSelection(Selector):
    """Every client by its own coin, with probability k / (idle clients): k on average, sometimes none at all."""

    poisson = True

    def select(self, idle: Sequence[ClientId], k: int, rng: np.random.Generator, reports: Reports) -> list[ClientId]:
        check_draw(idle, k)
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
        if not always_there(experiment.fleet):
            raise CompositionError(
                f"the coins of Poisson sampling are thrown by those who are there; with {type(experiment.fleet).__name__} that "
                "changes by the hour: nobody's chance is the public one that the accountants count with; use a fleet that is "
                "always there, such as LogNormal(), or UniformSelection(), which is priced without amplification."
            )
