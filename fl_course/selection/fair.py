"""Choices that look at nobody's results: by the number of examples, and in turn.

    SizeWeighted   the clients with more examples more often
    RoundRobin     whoever was asked least often, so that nobody starves
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..core import ClientId, CompositionError
from ..federation.interfaces import Experiment, Look, Reports, Selector
from ..federation.sampling import check_draw, reported, weighted_draw
from ..federation.stages import ByExamples


def sizes(idle: Sequence[ClientId], reports: Reports) -> np.ndarray:
    """(n,) examples, as each client said when it was asked, or when it last trained; of the others the mean of these, or 1."""
    asked, trained = reported(idle, reports, "probe_examples", "examples")
    known = np.where(np.isnan(asked), trained, asked)
    heard = known[~np.isnan(known)]
    return np.where(np.isnan(known), heard.mean() if len(heard) else 1.0, known)


@dataclass(frozen=True)
class SizeWeighted(Selector):
    """k clients, one after the other, each time in proportion to the numbers of examples n_k of those that are left.

    Beside weights=Uniform() this looks at an example of every client equally often, as long as k is small; ByExamples() would
    count n_k twice and is refused. n_k is asked once for each client, in a message without a model. Priced at q = 1: the
    accountants know no amplification for it.
    """

    sends_model = False
    effort = 0.0
    reads = ("number of examples",)

    def asks(self, idle: Sequence[ClientId], k: int, rng: np.random.Generator, reports: Reports) -> Sequence[ClientId]:
        return [client for client in idle if "probe_examples" not in reports.get(client, {})]

    def answer(self, look: Look) -> Mapping[str, Any]:
        return {"examples": len(look.y)}

    def select(self, idle: Sequence[ClientId], k: int, rng: np.random.Generator, reports: Reports) -> list[ClientId]:
        return weighted_draw(idle, sizes(idle, reports), k, rng)

    def check(self, experiment: Experiment) -> None:
        if isinstance(experiment.weights, ByExamples):
            raise CompositionError(
                f"SizeWeighted() draws clients in proportion to n_k, and weights={experiment.weights!r} weighs what they answer "
                "by n_k again: a client with twice the examples would count four times; use weights=Uniform(), or draw all "
                "alike: UniformSelection()."
            )


@dataclass(frozen=True)
class RoundRobin(Selector):
    """The k clients that were asked least often; among them who has waited longest; among these the dice decide.

    Nobody starves: of K clients that are always there, each is asked once in ⌈K / k⌉ rounds. It reads nothing but the server's
    own list of whom it asked. Priced at q = 1.
    """

    def select(self, idle: Sequence[ClientId], k: int, rng: np.random.Generator, reports: Reports) -> list[ClientId]:
        check_draw(idle, k)
        asked, version = np.nan_to_num(reported(idle, reports, "asked", "asked_version"), nan=-1.0)
        asked = np.maximum(asked, 0.0)                        # never asked, or 0 times: the same
        return [idle[i] for i in np.lexsort((rng.random(len(idle)), version, asked))[:k]]
