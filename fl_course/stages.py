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
from functools import partial, reduce
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from .core import Aggregate, CompositionError, Context, Server, Update
from .mechanisms import clip
from .payloads import on_values

if TYPE_CHECKING:
    from .coordinator import Coordinator

T = TypeVar("T")


class Stage:
    """Does nothing, on both sides. A mechanism overrides the halves that it needs."""

    masks = False    # single updates cannot be read afterwards, only their sum
    noisy = False    # the server half adds noise, and must do so even when nobody arrived

    def begin(self, ctx: Context) -> None:
        """Server and cohort, before anybody trains: exchange keys, draw a public mask. Scratch goes to ctx.session."""

    def down(self, server: Server, ctx: Context) -> Server:
        """What one client is sent: the identity, unless the mechanism compresses or cuts the model on the way down."""
        return server

    def client(self, update: Update, ctx: Context) -> Update:
        return update

    def server(self, aggregate: Aggregate, ctx: Context) -> Aggregate:
        return aggregate

    def check(self, experiment: Coordinator) -> None:
        """Raise CompositionError if this stage is unsound beside the rest of the experiment."""


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


@dataclass(frozen=True)
class Clip(Stage):
    """Scale delta down so that its L2 (or L1) norm over all coordinates together is at most `bound`; never up."""

    bound: float
    norm: int = 2
    lengthens = False                                          # so it may also stand after the clip of a private stage

    def __post_init__(self) -> None:
        if not (self.bound > 0 and math.isfinite(self.bound)):
            raise ValueError(f"the clip bound must be positive and finite, not {self.bound}")
        if self.norm not in (1, 2):
            raise ValueError(f"norm must be 1 or 2, not {self.norm}")

    def client(self, update: Update, ctx: Context) -> Update:
        shorter = partial(clip, bound=self.bound, norm=self.norm)
        return replace(update, delta=on_values(update.delta, lambda values: shorter(dense(values, "Clip"))))

    def check(self, experiment: Coordinator) -> None:
        if isinstance(experiment.weights, ByExamples) and experiment.weights.cap is None:
            raise CompositionError(
                f"Clip(bound={self.bound}) after data-size weights clips n_k·delta, so clients with much data lose most "
                "of their step; use weights=Uniform(), or ByExamples(cap=…) with a bound meant for the weighted update."
            )
