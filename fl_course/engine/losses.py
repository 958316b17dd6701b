"""What training makes small, and what a model is judged by.

    CrossEntropy         one output a class                          accuracy
    BinaryCrossEntropy   one output, the logit of class 1            accuracy, by its sign
    SquaredError         as many outputs as numbers to hit           rmse, r2

Every loss is written twice: in torch, one number an example, for the engine; and in NumPy in double precision, for the
evaluation. A batch's loss is the mean of its examples', always over their number: class weights do not change the divisor
(torch's own reduction divides by the sum of the weights in the batch), so a client's step is the sum of its examples' shares.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..data.federated import FederatedData


class Loss:
    """Abstract. outputs (…, k) are a model's answers, targets (…) int64 their classes or (…, k) float32 the numbers to hit.

    measure: the name of what says how good a model is, for everybody and for each client; rising: whether more is better.
    """

    measure = "accuracy"
    rising = True

    def each(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """(…): the loss of each example."""
        raise NotImplementedError

    def mean(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The mean over the examples, a scalar."""
        return self.each(outputs, targets).mean()

    def judge(self, outputs: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """For outputs (N, k) in double precision: (N,) what `measure` is a mean of, and (N,) each example's loss."""
        raise NotImplementedError

    def measured(self, mean: np.ndarray) -> np.ndarray:
        """The measure, from the mean of what `judge` says of single examples."""
        return mean

    def extra(self, outputs: np.ndarray, targets: np.ndarray) -> dict[str, float]:
        """Further metrics of the held-out set, by name."""
        return {}

    def guesses(self, metrics: Mapping[str, float], classes: int) -> bool:
        """Whether a model with these metrics does no better than one that has not looked at its examples."""
        return False

    def check(self, outputs: int, data: FederatedData) -> None:
        """Raise ValueError if a model with so many outputs cannot learn these targets by this loss."""


@dataclass(frozen=True)
class CrossEntropy(Loss):
    """-log softmax(outputs)[target], in nats; times the weight of the target's class, if there are class_weights."""

    class_weights: Sequence[float] | None = None

    def __post_init__(self) -> None:
        check_weights(self)

    def each(self, outputs: Tensor, targets: Tensor) -> Tensor:
        weight = None
        if self.class_weights is not None:
            weight = torch.tensor(self.class_weights, dtype=outputs.dtype, device=outputs.device)
        each = F.cross_entropy(outputs.flatten(0, -2), targets.flatten(), weight, reduction="none")
        return each.view(targets.shape)

    def mean(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs, targets) if self.class_weights is None else self.each(outputs, targets).mean()

    def judge(self, outputs: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with np.errstate(invalid="ignore", over="ignore"):
            outputs = outputs - outputs.max(axis=1, keepdims=True)
            loss = np.log(np.exp(outputs).sum(axis=1)) - outputs[np.arange(len(targets)), targets]
        return outputs.argmax(axis=1) == targets, weighted(self, loss, targets)

    def guesses(self, metrics: Mapping[str, float], classes: int) -> bool:
        return self.class_weights is None and not metrics["loss"] < 0.95 * math.log(classes)        # NaN, too

    def check(self, outputs: int, data: FederatedData) -> None:
        if not data.classes:
            raise ValueError("the data hold numbers to hit, not classes; give the model loss=SquaredError()")
        if outputs != data.classes:
            cure = "; for one logit give the model loss=BinaryCrossEntropy()" if (outputs, data.classes) == (1, 2) else ""
            raise ValueError(f"the model answers with ({outputs},) numbers, the data has {data.classes} classes{cure}")
        count_weights(self, data.classes)


@dataclass(frozen=True)
class BinaryCrossEntropy(Loss):
    """log(1 + e^z) - target·z for one output z, the log-odds of class 1, in nats; a positive z says class 1."""

    class_weights: Sequence[float] | None = None

    def __post_init__(self) -> None:
        check_weights(self)

    def each(self, outputs: Tensor, targets: Tensor) -> Tensor:
        logits = outputs.squeeze(-1)
        each = F.binary_cross_entropy_with_logits(logits, targets.to(logits.dtype), reduction="none")
        if self.class_weights is None:
            return each
        return each * torch.tensor(self.class_weights, dtype=logits.dtype, device=logits.device)[targets]

    def judge(self, outputs: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        logits = outputs[:, 0]
        with np.errstate(invalid="ignore"):
            loss = np.logaddexp(0.0, logits) - targets * logits
        return (logits > 0) == targets, weighted(self, loss, targets)

    def guesses(self, metrics: Mapping[str, float], classes: int) -> bool:
        return self.class_weights is None and not metrics["loss"] < 0.95 * math.log(2)

    def check(self, outputs: int, data: FederatedData) -> None:
        if data.classes != 2:
            raise ValueError(f"BinaryCrossEntropy tells two classes apart; the data has {data.classes}"
                             f"{'' if data.classes else ': numbers to hit, for which SquaredError() is made'}")
        if outputs != 1:
            raise ValueError(f"the model answers with ({outputs},) numbers; BinaryCrossEntropy reads one logit: make the "
                             "last layer 1 wide, or leave the loss as it is, which takes one output a class")
        count_weights(self, 2)


@dataclass(frozen=True)
class SquaredError(Loss):
    """The mean over an example's outputs of (output - target)², in squared units of the targets.

    Judged by rmse, the root of the mean squared error, in units of the targets; and by r2 (the coefficient of
    determination): 1 is perfect, 0 as good as always saying the mean of the held-out targets; several outputs are averaged.
    """

    measure = "rmse"
    rising = False

    def each(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs - targets).square().mean(-1)

    def judge(self, outputs: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with np.errstate(over="ignore", invalid="ignore"):
            squares = ((outputs - targets) ** 2).mean(axis=1)
        return squares, squares

    def measured(self, mean: np.ndarray) -> np.ndarray:
        return np.sqrt(mean)

    def extra(self, outputs: np.ndarray, targets: np.ndarray) -> dict[str, float]:
        targets = targets.astype(np.float64)
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            missed = ((outputs - targets) ** 2).sum(axis=0)
            spread = ((targets - targets.mean(axis=0)) ** 2).sum(axis=0)
            return {"r2": float(np.mean(np.where(spread > 0, 1 - missed / spread, np.nan)))}

    def guesses(self, metrics: Mapping[str, float], classes: int) -> bool:
        return not metrics["r2"] > 0.05

    def check(self, outputs: int, data: FederatedData) -> None:
        if data.classes:
            raise ValueError(f"SquaredError hits numbers, and the data has {data.classes} classes; say classes=0 where the "
                             "data are made, if their labels are numbers")
        if outputs != data.y.shape[1]:
            raise ValueError(f"the model answers with ({outputs},) numbers, the data has {data.y.shape[1]} to hit an example")


# --- class weights --------------------------------------------------------------------------------------------------------


def check_weights(loss: CrossEntropy | BinaryCrossEntropy) -> None:
    """Bring class_weights to a tuple of floats, and refuse what is none."""
    weights = loss.class_weights
    if weights is None:
        return
    try:
        numbers = tuple(float(weight) for weight in weights)
    except (TypeError, ValueError):
        raise ValueError(f"class_weights must be one number a class, such as (1.0, 5.0), not {weights!r}") from None
    if not numbers or not all(0 <= number < math.inf for number in numbers) or not any(numbers):
        raise ValueError(f"class_weights must be finite numbers from 0, not all of them 0, not {weights!r}")
    object.__setattr__(loss, "class_weights", numbers)


def count_weights(loss: CrossEntropy | BinaryCrossEntropy, classes: int) -> None:
    if loss.class_weights is not None and len(loss.class_weights) != classes:
        raise ValueError(f"class_weights has {len(loss.class_weights)} numbers for {classes} classes; it needs one a class")


def weighted(loss: CrossEntropy | BinaryCrossEntropy, each: np.ndarray, targets: np.ndarray) -> np.ndarray:
    return each if loss.class_weights is None else each * np.array(loss.class_weights)[targets]


USUAL: Loss = CrossEntropy()


# --- of a model -----------------------------------------------------------------------------------------------------------


def check_loss(loss: object) -> None:
    """Raise TypeError for what is not a loss."""
    if not isinstance(loss, Loss):
        hint = f"; make one: {loss.__name__}()" if isinstance(loss, type) and issubclass(loss, Loss) else ""
        raise TypeError(f"loss must be CrossEntropy(), BinaryCrossEntropy() or SquaredError(), not {loss!r}{hint}")
