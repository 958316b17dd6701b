"""The law of the course: a mechanism is one object with a client half and a server half.

    client:   update → first.client → … → last.client → bytes on the wire
    server:   the sum of what arrived → last.server → … → first.server → mean → optimiser

What both sides must agree on (a clip bound and the noise scaled to it, a grid and its rounding, a mask and its removal) is
one frozen object, so the number exists once. The server half sees a *sum*: a stage composes with secure aggregation
exactly when its server half can work on the sum. Unsound combinations are refused when the experiment is built.

What a client keeps for itself (a residual, a control variate) goes into ctx.memory, its drawer, as plain data and arrays.
Put a new array there instead of writing into the old one, which may belong to a saved state. The drawer is kept when the
answer is heard; ctx.memory["books"], what the client has released, already when its message leaves.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import reduce
from typing import TypeVar

import numpy as np

from ..core import Aggregate, CompositionError, Context, Server, Update, changed
from ..wire.payloads import numbers
from .interfaces import Stage

T = TypeVar("T")




def client_half(stages: Sequence[Stage], update: Update, ctx: Context) -> Update:
    """First to last. Behind a stage with feedback, what a lossy one takes away waits in the same residual: what was sent
    and what still waits is together what was meant, for the whole pipeline."""
    keeps_residual = False
    for stage in stages:
        given, update = update, _given(stage.client(update, ctx), Update, stage)
        if keeps_residual and stage.lossy:
            ctx.memory["residual"] = ctx.memory["residual"] + (numbers(given.delta) - numbers(update.delta))
        keeps_residual = keeps_residual or stage.feedback
    return update


def each_its_own(stages: Sequence[Stage]) -> tuple[Stage, ...]:
    """The stages; one that stands in two places becomes two objects, so that `stage is self` says where a stage stands."""
    return tuple(copy(stage) if any(stage is other for other in stages[:i]) else stage for i, stage in enumerate(stages))


def server_half(stages: Sequence[Stage], aggregate: Aggregate, ctx: Context) -> Aggregate:
    """Last to first."""
    return reduce(lambda a, stage: _given(stage.server(a, ctx), Aggregate, stage), reversed(stages), aggregate)


def _given(result: T, kind: type[T], stage: Stage) -> T:
    if not isinstance(result, kind):
        raise TypeError(f"{stage!r} returned {result!r} where an {kind.__name__} was expected; is a `return` missing?")
    return result


def whole_sum(aggregate: Aggregate, shape: tuple[int, ...], maker: object) -> Aggregate:
    """The aggregate, if its numbers have the shape that they must have (NumPy would stretch a single one over the model) and
    its weight can divide it. A payload has its own shape. TypeError names who made it."""
    total = aggregate.total
    if isinstance(total, np.ndarray | np.generic | float | int) and shape and np.shape(total) != shape:
        raise TypeError(f"{maker!r} gave a total of shape {np.shape(total)} where {shape} was expected; over axis=0, perhaps?")
    if aggregate.weight == math.inf or aggregate.weight < 0:               # NaN: nothing was weighed, and no step is taken
        raise TypeError(f"{maker!r} gave a weight of {aggregate.weight}; it must be a finite number from 0")
    return aggregate


def read_only(server: Server) -> Server:
    """The same server, whose model cannot be written to: an optimiser or a stage makes a new one, the old may be somebody's."""
    params = server.params.view()
    params.flags.writeable = False
    return replace(server, params=params)


def find(stages: Sequence[Stage], kind: type) -> Iterator[tuple[int, Stage]]:
    """The stages of a kind, with their positions."""
    return ((i, stage) for i, stage in enumerate(stages) if isinstance(stage, kind))


class PackedUpdate(CompositionError, TypeError):
    """A stage was handed a payload that it cannot read. Tried out when the experiment is built, see composition.py."""


def dense(payload: object, stage: str) -> np.ndarray:
    """The payload as (d,) numbers, or a refusal: a stage that reads coordinates cannot follow one that hid them."""
    if not isinstance(payload, np.ndarray):
        made = type(payload).__name__
        raise PackedUpdate(f"{stage} needs the update as numbers, but an earlier stage made it a {made}; put {stage} before it")
    return payload


# --- weighting -------------------------------------------------------------------------------------------------------


class Weighting(Stage):
    """Abstract: the only kind of part that may change how much a client counts. It goes into weights=…, which is first in
    the pipeline: delta becomes weight·delta, and nothing after it weighs again."""

    @property
    def largest(self) -> float | None:
        """The largest weight that a client can have, whatever its data; None if nothing bounds it."""
        return None


@dataclass(frozen=True)
class ByExamples(Weighting):
    """FedAvg's weights: client k counts in proportion to its n_k training examples (McMahan et al. 2017, algorithm 1).

    The client sends n_k·delta and n_k, so that the server needs nothing but sums. `cap` bounds n_k from above, which
    limits how far one client can move the mean.
    """

    cap: float | None = None
    exact = True
    keeps_zeros = True

    def __post_init__(self) -> None:
        if self.cap is not None and not self.cap > 0:
            raise ValueError(f"cap must be a positive number of examples or None, not {self.cap}")

    @property
    def largest(self) -> float | None:
        return self.cap

    def client(self, update: Update, ctx: Context) -> Update:
        examples = min(update.metrics["examples"], self.cap or math.inf)
        with np.errstate(over="ignore"):                       # what overflows float32 is infinite, and refused on receipt
            delta = dense(update.delta, "ByExamples") * np.float32(examples)
        return changed(update, delta=delta, weight=float(examples))


@dataclass(frozen=True)
class Uniform(Weighting):
    """Every client counts once. The sensitivity of the mean is then known, which is what privacy needs."""

    exact = True
    keeps_zeros = True

    @property
    def largest(self) -> float:
        return 1.0

    def client(self, update: Update, ctx: Context) -> Update:
        return replace(update, weight=1.0)


# --- clipping --------------------------------------------------------------------------------------------------------


