"""What an experiment must satisfy before it may run: the right kinds of parts, a model that fits, no unsound combination."""

from __future__ import annotations

import numpy as np
from torch.nn import Module

from ..data.federated import Dataset, FederatedData
from ..engine.local import LocalSGD
from ..engine.models import Model
from .evaluation import Evaluation
from .interfaces import Aggregation, Correction, Experiment, Fleet, Schedule, Selector, ServerOptimizer, Stage

KINDS = {
    "data": FederatedData,
    "model": Model,
    "training": LocalSGD,
    "schedule": Schedule,
    "selection": Selector,
    "weights": Stage,
    "aggregation": Aggregation,
    "optimizer": ServerOptimizer,
    "fleet": Fleet,
    "evaluation": Evaluation,
}


def check_composition(experiment: Experiment) -> None:
    """Raise TypeError for a part of the wrong kind, ValueError for a bad value, CompositionError for an unsound whole."""
    parts = [(name, kind, getattr(experiment, name)) for name, kind in KINDS.items()]
    for name, kind, part in parts + [(f"stages[{i}]", Stage, stage) for i, stage in enumerate(experiment.stages)]:
        if not isinstance(part, kind):
            hint = f"; make one: {part.__name__}(…)" if isinstance(part, type) and issubclass(part, kind) else ""
            hint = "; it goes into LocalSGD(correction=…)" if isinstance(part, Correction) else hint
            hint = "; deal it to clients first: .partition(…)" if isinstance(part, Dataset) else hint
            hint = "; wrap it: Wrapped(module)" if isinstance(part, Module) else hint
            hint = "; make one and wrap it: Wrapped(Net(…))" if isinstance(part, type) and issubclass(part, Module) else hint
            raise TypeError(f"{name} must be of the kind {kind.__name__}, not {part!r}{hint}")
    if not isinstance(experiment.seed, int | np.integer) or experiment.seed < 0:
        raise ValueError(f"seed must be a whole number from 0, not {experiment.seed!r}")
    experiment.model.check(experiment.data)
    experiment.schedule.check(experiment)
    experiment.selection.check(experiment)
    experiment.aggregation.check(experiment)
    if experiment.training.correction is not None:
        experiment.training.correction.check(experiment)
    if experiment.training.private is not None:
        experiment.training.private.check(experiment)
    for stage in experiment.pipeline:
        stage.check(experiment)
