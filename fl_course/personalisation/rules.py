"""What does not go together with a model of one's own, each with a sentence that says what to change."""

from __future__ import annotations

import math

from ..core import CompositionError
from ..federation.interfaces import Attack, Experiment, PersonalTraining, Selector


def check_rate(name: str, value: float | None) -> None:
    if value is not None and not (isinstance(value, int | float) and 0 < value < math.inf):
        raise ValueError(f"{name} must be a positive, finite number, not {value!r}")


def check_share(name: str, value: float) -> None:
    if not (isinstance(value, int | float) and 0 <= value <= 1):
        raise ValueError(f"{name} must be in [0, 1], not {value!r}")


def whole_network(method: PersonalTraining, experiment: Experiment) -> None:
    """For a method that keeps a whole model at home: the network itself must travel."""
    if experiment.model.whole is not experiment.model:
        raise CompositionError(
            f"{type(method).__name__} sends a whole network, but {experiment.model!r} does not; give the experiment "
            f"{experiment.model.whole!r} itself, or train what is split with FedPer(), FedRep(…) or LGFedAvg()."
        )


def own_steps(method: PersonalTraining, experiment: Experiment) -> None:
    """For a method that takes its own steps instead of the trainer's."""
    training, name = experiment.training, type(method).__name__
    if training.correction is not None:
        raise CompositionError(f"{name} takes steps of its own, which know nothing of {training.correction!r}; leave it out.")
    if training.momentum or training.weight_decay:
        raise CompositionError(f"{name} takes plain steps of its own: say momentum=0 and weight_decay=0.")


def no_answers(experiment: Experiment) -> None:
    """Where the server holds no whole model, nobody can be asked how good it is."""
    if experiment.model.speaks:
        return
    selection, attack = type(experiment.selection), experiment.attack
    if (selection.answer is not Selector.answer and selection.sends_model) or selection.tells is not Selector.tells:
        raise CompositionError(
            f"{experiment.selection!r} has clients judge the server's model, and of {experiment.model!r} the server has only a "
            "part; use UniformSelection()."
        )
    if attack is not None and type(attack).measure is not Attack.measure:
        raise CompositionError(
            f"{attack!r} measures what it did to the server's model, and of {experiment.model!r} the server has only a part; "
            "attack a method that sends a whole network, such as Ditto(…)."
        )
