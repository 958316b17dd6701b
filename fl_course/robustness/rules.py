"""What may stand beside a robust rule: the refusals of chapter 9. A rule is sound where single updates can be read, each as
a whole, where nothing that a client sends goes past it, and where nobody has counted on a plain sum."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np

from ..compression.submodels import FederatedDropout
from ..core import CompositionError, Context, Server
from ..federation.arrival import example
from ..federation.interfaces import Experiment
from ..federation.schedule import Buffered, Synchronous


def most_updates(experiment: Experiment) -> int:
    """How many clients' updates a step of this experiment can have at most."""
    schedule, clients = experiment.schedule, len(experiment.clients)
    if type(schedule) is Synchronous and not experiment.selection.poisson:
        return schedule.goal(clients)
    if type(schedule) is Buffered:
        return min(schedule.buffer, clients)
    return clients


def refuse_unsound(rule: Any, experiment: Experiment) -> None:
    name = type(rule).__name__
    for stage in experiment.pipeline:
        theirs = type(stage).__name__
        if stage.masks:
            raise CompositionError(
                f"{name} compares single updates, but under the masks of {theirs} the server can read nothing but their sum: "
                f"behind masks nobody can be told from the others; use WeightedMean(), or leave {theirs} out."
            )
        if stage.noisy:
            raise CompositionError(
                f"{theirs} adds noise for a sum that one client moves by one clip bound at most. The answer of {name} can move "
                "further, or jump, when one update changes: its sensitivity is not the clip bound over n. Use WeightedMean(), or "
                "LocalDP, whose noise is in each update before the rule sees it."
            )
        if isinstance(stage, FederatedDropout):
            raise CompositionError(
                f"under FederatedDropout every client holds another part of the model, so what {name} would compare is who holds "
                "what, and the division by how many hold it is made for a sum; leave one of the two out."
            )
        if not rule.whole and getattr(stage, "picks", False):
            raise CompositionError(
                f"{name} looks at each number by itself, and {theirs} has most clients send none: the median of mostly zeros is "
                "zero; use a rule that compares whole updates, such as GeometricMedian() or MultiKrum(f), or QSGD."
            )
    if beside := _beside(experiment):
        raise CompositionError(
            f"{beside} would travel beside the update, past {name}: a single client could set it at will; leave out what "
            "sends it. (FedProx(…) sends nothing more than the update.)"
        )
    if (most := most_updates(experiment)) < rule.least:
        raise CompositionError(
            f"{rule!r} needs {rule.least} updates in a step, and there are {most} at most: with fewer, those who lie can "
            "outvote the others; ask more clients, or lower f."
        )


def _beside(experiment: Experiment) -> str:
    """Names of what an honest answer carries beside its update, or ""."""
    server = Server(np.zeros(experiment.model.dim, np.float32))
    correction = experiment.training.correction
    names = [] if correction is None else list(correction.sends(server))
    with suppress(Exception):                                 # it may need more than this: such an answer is refused then
        names = list(example(experiment, Context(experiment.seed, server, experiment=experiment)).extras) or names
    return ", ".join(names)
