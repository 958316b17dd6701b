"""Personal layers: the clients share a part of the network and keep the rest.

    FedPer      all layers are trained together, the personal ones stay           (Arivazhagan et al. 2019)
    FedRep      first the personal layers, then the shared ones, one after the other   (Collins et al. 2021)
    LGFedAvg    as FedPer, but what stays is the representation, what travels the head (Liang et al. 2020)

All three need a `Split`, which says which layers those are. Nothing personal is on the wire; a client that is asked again finds
its layers as it left them, when its answer was last heard. Under differential privacy or secure sums the guarantee is about
what travels. What is tuned to private data afterwards and stays at the client is not covered by it, and is not released either:
do not publish it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..core import CompositionError, Task, Update, Vector, is_whole, plain_counts
from ..engine.training import Trainer
from ..federation.interfaces import Experiment, PersonalTraining
from .rules import no_answers
from .split import Split, at_home, ends, kept, moved


def _split(trainer: Trainer) -> Split:
    assert isinstance(trainer.travels, Split)                    # `_check` has seen to it
    return trainer.travels


def _together(method: PersonalTraining, tasks: Sequence[Task], trainer: Trainer) -> list[Update]:
    split = _split(trainer)
    whole = at_home(tasks, split)
    updates = trainer.like(trainer.how).steps(whole)
    return _keep(tasks, updates, ends(whole, updates), split)


def _keep(tasks: Sequence[Task], updates: Sequence[Update], ended: Sequence[Vector], split: Split) -> list[Update]:
    """Put the personal layers of where training ended (d,) into the drawers, hand back the change of the shared ones."""
    for task, theta in zip(tasks, ended, strict=True):
        if split.own.size:
            kept(task, theta[split.own])
    return [replace(update, delta=update.delta[split.shared]) for update in updates]


def _own(method: PersonalTraining, tasks: Sequence[Task], trainer: Trainer) -> Vector:
    return np.stack([task.server.params for task in at_home(tasks, _split(trainer))])


def _check(method: PersonalTraining, experiment: Experiment) -> None:
    name = type(method).__name__
    if not isinstance(experiment.model, Split):
        raise CompositionError(f"{name} must be told which layers stay at home: model=Split({experiment.model!r}, personal=…).")
    idle = [*experiment.stages, *([] if experiment.aggregation.linear else [experiment.aggregation])]
    if idle and not experiment.model.dim:
        raise CompositionError(
            f"every layer of {experiment.model!r} is personal, so nothing travels, and {type(idle[0]).__name__} has nothing to "
            "do; leave it out, or let some layers be shared."
        )
    if experiment.training.correction is not None:
        raise CompositionError(
            f"{name} trains a whole network of which a part travels, but {experiment.training.correction!r} speaks of one vector "
            "on both sides; leave the correction out."
        )
    no_answers(experiment)


@dataclass(frozen=True)
class FedPer(PersonalTraining):
    """Every step moves all layers; the shared ones are sent. Without personal layers this is FedAvg, with nothing else it is
    training alone."""

    train, own, check = _together, _own, _check


@dataclass(frozen=True)
class LGFedAvg(PersonalTraining):
    """Local representations, global head: Split(model, personal=<the first layers>). See `handed_out` for how it begins."""

    train, own, check = _together, _own, _check


@dataclass(frozen=True)
class FedRep(PersonalTraining):
    """head_epochs passes that move the personal layers only, then LocalSGD.epochs that move the shared ones only, against the
    personal layers that were just found (Collins et al. 2021, algorithm 1)."""

    head_epochs: int = 5

    def __post_init__(self) -> None:
        if not is_whole(self.head_epochs, 1):
            raise ValueError(f"head_epochs must be a whole number of passes from 1, not {self.head_epochs!r}")
        plain_counts(self)

    def passes(self, epochs: int, model: Any) -> float:
        return epochs + self.head_epochs

    def train(self, tasks: Sequence[Task], trainer: Trainer) -> list[Update]:
        split = _split(trainer)
        whole, updates = at_home(tasks, split), []
        for epochs, moving, frozen in (
            (self.head_epochs, split.layers_at_home, split.layers_shared),
            (trainer.how.epochs, split.layers_shared, split.layers_at_home),
        ):
            if moving:
                updates = trainer.like(replace(trainer.how, epochs=epochs), frozen).steps(whole)
                whole = [moved(task, theta) for task, theta in zip(whole, ends(whole, updates), strict=True)]
        return _keep(tasks, updates, [task.server.params for task in whole], split)

    own, check = _own, _check
