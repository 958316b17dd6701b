"""What may stand beside a private stage: the public facts of an experiment, and the refusals of chapter 3."""

from __future__ import annotations

import math
from typing import Any

from ..core import CompositionError
from ..federation.aggregation import WeightedMean
from ..federation.interfaces import Aggregation, Correction, Experiment, Stage
from ..federation.schedule import Buffered, Synchronous
from ..federation.stages import ByExamples, Weighting


def expected_cohort(experiment: Experiment) -> int:
    """m, the public denominator: answers that a server step is planned for, whoever comes in the end."""
    schedule = experiment.schedule
    if isinstance(schedule, Synchronous):
        return schedule.goal(len(experiment.clients))
    if isinstance(schedule, Buffered):
        return schedule.buffer
    raise CompositionError(
        f"{type(schedule).__name__} does not say how many answers a step waits for, but the noisy sum must be divided by a "
        "public number; use Synchronous(…) or Buffered(…)."
    )


def cap_of(weights: Stage) -> float:
    """The largest weight that a client can have: what the sensitivity is made of, and what `clipped` holds it to."""
    if type(weights) is Stage:
        return 1.0
    largest = weights.largest if isinstance(weights, Weighting) else None
    if largest is None and isinstance(weights, ByExamples):
        raise CompositionError(
            "data-size weights without a bound let one client move the sum as far as it has examples, and no clip bound "
            "covers that; use weights=Uniform(), or ByExamples(cap=…)."
        )
    if largest is None or not 0 < largest < math.inf:
        raise CompositionError(
            f"{type(weights).__name__} has no weight bound that is known here; use weights=Uniform(), or ByExamples(cap=…)."
        )
    return float(largest)


def longest_on_wire(stage: Stage, experiment: Experiment, bound: float) -> float:
    """The largest L2 norm that can be on the wire if `stage` clips to `bound`: later stages may declare that they stretch.

    A later stage says `lengthens = False` as a class attribute, or has a method longest(bound, size) for what its rounding
    adds, e.g. bound + step·sqrt(size). It speaks for both halves: the server half of a later stage runs before the noise.
    """
    for later in _after(stage, experiment):
        if hasattr(later, "longest"):
            bound = float(later.longest(bound, experiment.model.dim))
    return bound


def refuse_unsound(stage: Stage, experiment: Experiment) -> None:
    """CompositionError unless one client moves the sum on the wire by at most what the noise of `stage` is scaled to."""
    name = type(stage).__name__
    cap_of(experiment.weights)
    expected_cohort(experiment)
    if not experiment.aggregation.linear:
        raise CompositionError(
            f"{name} adds noise to a sum, whose sensitivity is one clip bound; {type(experiment.aggregation).__name__} is no "
            "sum, and one client can move it further; use WeightedMean()."
        )
    if type(experiment.aggregation) is not WeightedMean and not _says(experiment.aggregation, "combine", Aggregation):
        raise CompositionError(
            f"{type(experiment.aggregation).__name__} adds up in its own way before the noise of {name}, which is scaled to a "
            "plain sum; use WeightedMean(), or let the class that has `combine` declare lengthens = False: every update counts "
            "at most once."
        )
    if getattr(experiment.aggregation, "discount", None) is not None:
        raise CompositionError(
            f"the noise of {name} is made for updates that count once; a staleness discount shortens the old ones and leaves "
            "the noise as it is; drop the discount, or bound the age with max_staleness."
        )
    refuse_side_channels(name, experiment)
    if sum(hasattr(other, "noise_multiplier") and other.noisy for other in experiment.pipeline) > 1:
        raise CompositionError("two private stages: the second would clip the update of the first; use one.")
    for other in experiment.pipeline:
        if getattr(other, "feedback", False):
            raise CompositionError(
                f"error feedback in {type(other).__name__}: the residual carries what earlier rounds held back into this one, "
                f"which the price of a round in {name} does not cover; say feedback=False."
            )
    for other in _before(stage, experiment):
        if getattr(other, "quantises", False):
            raise CompositionError(f"{type(other).__name__} before {name}: a packed update cannot be clipped; put it after.")
    refuse_stretching(stage, experiment)


def refuse_stretching(stage: Stage, experiment: Experiment) -> None:
    name = type(stage).__name__
    for other in _after(stage, experiment):
        stretches = not hasattr(other, "longest") and getattr(other, "lengthens", True)
        if stretches and type(other).client is not Stage.client:
            advice = f"put it before {name}, or let its class declare lengthens = False, or longest(bound, size)."
            raise CompositionError(
                f"{type(other).__name__} after {name} may send an update that is longer than the clip bound, and noise is "
                f"scaled to what is on the wire; {'use rounding=' + repr('toward zero') + '.' if other.masks else advice}"
            )
        said = all(_says(other, half, Stage) for half in HALVES)
        if (stretches and type(other).server is not Stage.server) or not said:
            raise CompositionError(
                f"{type(other).__name__} after {name} has a half of its own, and its server half works on the sum before the "
                f"noise is added, which is scaled to the clip bound; put it before {name}, or let the very class that has the "
                "half declare lengthens = False, or longest(bound, size), for both halves."
            )


HALVES = ("client", "server")


def _says(part: Stage | Aggregation, half: str, blank: type) -> bool:
    """Whether who wrote this half, here or in the library, has said how far it stretches: what a base class declares was
    said of the half of the base class."""
    for kind in type(part).__mro__:
        if "lengthens" in vars(kind) or "longest" in vars(kind):
            return hasattr(part, "longest") or not getattr(part, "lengthens", True)
        if half in vars(kind):
            return kind is blank
    return True


def refuse_side_channels(name: str, experiment: Experiment) -> None:
    """Methods that send more than the update, or count who arrived, release that without noise."""
    correction: Any = experiment.training.correction
    if correction is not None and type(correction).absorb is not Correction.absorb:
        raise CompositionError(
            f"{type(correction).__name__} also uses what {name} adds no noise to (vectors beside the update, the true size of "
            "the cohort); use FedProx(…), which sends nothing more, or no correction."
        )


def _place(stage: Stage, experiment: Experiment) -> int:
    for i, other in enumerate(experiment.pipeline):
        if other is stage:
            return i
    raise ValueError(f"{stage!r} is not a stage of this experiment")


def _before(stage: Stage, experiment: Experiment) -> tuple[Stage, ...]:
    return experiment.pipeline[: _place(stage, experiment)]


def _after(stage: Stage, experiment: Experiment) -> tuple[Stage, ...]:
    return experiment.pipeline[_place(stage, experiment) + 1 :]
