"""What does not go together with a model of one's own, each with a sentence that says what to change."""

from __future__ import annotations

from numbers import Real
from typing import Any

from ..core import CompositionError
from ..federation.interfaces import Attack, Experiment, PersonalTraining, Selector


def check_number(part: Any, name: str, least: float = 0.0, most: float = 1e30, positive: bool = False) -> None:
    """ValueError unless this field of a frozen dataclass is a number in [least, most], and not 0 if it must be positive.
    NumPy's numbers become Python's."""
    value: Any = getattr(part, name)
    number = float(value) if isinstance(value, Real) and not isinstance(value, bool) else float("nan")
    if not least <= number <= most or (positive and not number):
        bounds = f"a number from {least:g}" + (f" to {most:g}" if most < 1e30 else "")
        raise ValueError(f"{name} must be {'a positive, finite number' if positive else bounds}, not {value!r}")
    if type(value) is not int:
        object.__setattr__(part, name, number)


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
