"""What may stand beside a secure sum: the refusals of chapter 4. `secure` is the `SecureSum` that asks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..core import CompositionError
from ..federation.interfaces import Experiment, Stage
from ..federation.stages import ByExamples
from .graph import check_numbers


def check_timing(experiment: Experiment) -> None:
    if experiment.schedule.keeps_stragglers:
        raise CompositionError(
            "SecureSum with a buffered schedule: masks cancel among clients that began a round together, and here each "
            "begins by itself, from another version of the model; use Synchronous(…)."
        )
    if not experiment.aggregation.linear or getattr(experiment.aggregation, "discount", None) is not None:
        raise CompositionError(
            f"{experiment.aggregation!r} looks at single updates or rescales them, but under SecureSum only their sum "
            "can be read; use WeightedMean(), or leave SecureSum out."
        )


def check_neighbours(secure: Any, experiment: Experiment) -> None:
    here = next(i for i, stage in enumerate(experiment.pipeline) if stage is secure)
    for i, stage in enumerate(experiment.pipeline):
        name, kind = type(stage).__name__, type(stage)
        if stage is not secure and stage.masks:
            raise CompositionError(f"{name} and SecureSum both mask: one of them is enough, and two do not cancel.")
        if i > here and (kind.client is not Stage.client or kind.server is not Stage.server):
            raise CompositionError(
                f"{name} after SecureSum: masked integers look random and may only be added; put {name} before it."
            )
        if any(getattr(stage, trait, False) for trait in ("picks", "quantises")):
            raise CompositionError(
                f"{name} before SecureSum: each client would have its own places or its own scale, and integers add up "
                f"only at the same places on one grid; leave {name} out, SecureSum rounds to {secure.bits} bits itself."
            )
        if stage.noisy and secure.rounding == "nearest":
            raise CompositionError(
                f"{name} scales its noise to a clip bound, and rounding to the nearest grid point can lengthen an update "
                "beyond it; what counts is the norm of what is on the wire. Use SecureSum(…, rounding='toward zero')."
            )


def check_weights(secure: Any, experiment: Experiment) -> None:
    weights, largest = experiment.weights, 1
    if isinstance(weights, ByExamples):
        if weights.cap is not None and weights.cap != int(weights.cap):
            raise CompositionError(f"ByExamples(cap={weights.cap}): weights under SecureSum are whole numbers.")
        largest = max((len(part) for part in experiment.data.train), default=1)
        largest = int(min(largest, weights.cap or largest))
    if largest > secure.max_weight:
        raise CompositionError(
            f"clients weigh up to {largest} examples, SecureSum leaves room for max_weight={secure.max_weight}: say "
            f"max_weight={largest} or more (a public bound), or weights=Uniform()."
        )


def check_cohorts(secure: Any, experiment: Experiment) -> None:
    clients, poisson = experiment.clients, experiment.selection.poisson
    asked = len(clients) if poisson else experiment.schedule.start(len(clients), 0, True)
    stage = replace(secure, threshold=None, degree=None) if poisson else secure        # those are for `_can_open`
    try:                                             # the largest cohort there can be
        stage.setup(clients[:asked], experiment.model.dim + 1)
    except (ValueError, TypeError) as why:
        raise CompositionError(f"SecureSum cannot work with cohorts of {asked} clients: {why}") from why
    sizes = [n for n in range(asked, 1, -1) if _can_open(secure, n)] if poisson else [asked]
    if not sizes:
        raise CompositionError(
            f"whatever cohort of up to {asked} clients is drawn, threshold={secure.threshold} and degree={secure.degree} open "
            "none; lower them, or leave them out."
        )
    if secure.noise is not None:
        cohorts = ((secure.grid(n), secure.least(n)) for n in sizes)
        secure.noise.check(experiment, secure.max_weight, secure.rounding, cohorts)
    goal, least = getattr(experiment.schedule, "goal", lambda count: asked)(len(clients)), secure.least(asked)
    if not poisson and goal < least:
        raise CompositionError(
            f"a step waits for {goal} of {asked} clients, but the secure sum opens nothing below {least} "
            "answers, so every round would be aborted; lower over_selection, or set threshold (more than half)."
        )


def _can_open(secure: Any, clients: int) -> bool:
    try:
        check_numbers(clients, secure.least(clients), secure.degree)
    except ValueError:
        return False
    return True
