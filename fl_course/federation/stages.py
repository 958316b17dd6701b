"""The law of the course: a mechanism is one object with a client half and a server half.

    client:   update → first.client → … → last.client → bytes on the wire
    server:   the sum of what arrived → last.server → … → first.server → mean → optimiser

What both sides must agree on (a clip bound and the noise scaled to it, a grid and its rounding, a mask and its removal) is
one frozen object, so the number exists once. The server half sees a *sum*: a stage composes with secure aggregation
exactly when its server half can work on the sum. Unsound combinations are refused when the experiment is built.

What a client keeps for itself (a residual, a control variate) goes into ctx.memory, its drawer, as plain data and arrays.
Put a new array there instead of writing into the old one, which may belong to a saved state.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import TypeVar

import numpy as np

from ..core import Aggregate, Context, Update
from .interfaces import Stage

T = TypeVar("T")




def client_half(stages: Sequence[Stage], update: Update, ctx: Context) -> Update:
    """First to last."""
    return reduce(lambda u, stage: _given(stage.client(u, ctx), Update, stage), stages, update)


def server_half(stages: Sequence[Stage], aggregate: Aggregate, ctx: Context) -> Aggregate:
    """Last to first."""
    return reduce(lambda a, stage: _given(stage.server(a, ctx), Aggregate, stage), reversed(stages), aggregate)


def _given(result: T, kind: type[T], stage: Stage) -> T:
    if not isinstance(result, kind):
        raise TypeError(f"{stage!r} returned {result!r} where an {kind.__name__} was expected; is a `return` missing?")
    return result


def find(stages: Sequence[Stage], kind: type) -> Iterator[tuple[int, Stage]]:
    """The stages of a kind, with their positions."""
    return ((i, stage) for i, stage in enumerate(stages) if isinstance(stage, kind))


def dense(payload: object, stage: str) -> np.ndarray:
    """The payload as (d,) numbers, or a refusal: a stage that reads coordinates cannot follow one that hid them."""
    if not isinstance(payload, np.ndarray):
        raise TypeError(f"{stage} needs the update as numbers, but an earlier stage made it a {type(payload).__name__}")
    return payload


# --- weighting -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ByExamples(Stage):
    """FedAvg's weights: client k counts in proportion to its n_k training examples (McMahan et al. 2017, algorithm 1).

    The client sends n_k·delta and n_k, so that the server needs nothing but sums. `cap` bounds n_k from above, which
    limits how far one client can move the mean.
    """

    cap: float | None = None

    def __post_init__(self) -> None:
        if self.cap is not None and not self.cap > 0:
            raise ValueError(f"cap must be a positive number of examples or None, not {self.cap}")

    def client(self, update: Update, ctx: Context) -> Update:
        examples = min(update.metrics["examples"], self.cap or math.inf)
        with np.errstate(over="ignore"):                       # what overflows float32 is infinite, and refused on receipt
            delta = dense(update.delta, "ByExamples") * np.float32(examples)
        return replace(update, delta=delta, weight=float(examples))


@dataclass(frozen=True)
class Uniform(Stage):
    """Every client counts once. The sensitivity of the mean is then known, which is what privacy needs."""

    def client(self, update: Update, ctx: Context) -> Update:
        return replace(update, weight=1.0)


# --- clipping --------------------------------------------------------------------------------------------------------


