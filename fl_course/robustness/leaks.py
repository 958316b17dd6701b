"""Smaller leaks: the labels out of a gradient, and who was in the training set out of a model's losses.

    leaked_label      one example: the only output whose bias is pushed up is the label's (iDLG, Zhao et al. 2020)
    leaked_counts     a batch: how many of each class, from the same biases (Wainakh et al. 2022)
    membership        losses on what was trained on are smaller (Yeom et al. 2018)
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..core import Vector, is_whole
from ..data.partition import _round_to_sum
from ..engine.models import Model
from .inversion import as_vector


def output_bias(model: Model, gradient: Any) -> np.ndarray:
    """(classes,) float64: the part of a gradient (d,) that belongs to the biases of the last layer."""
    name, shape = list(model.shapes().items())[-1]
    vector = as_vector(model, gradient)
    if len(shape) != 1:
        raise ValueError(f"the labels leak through the biases of the last layer; {model!r} ends with {name} {shape}")
    return vector[model.slices()[name]]


def leaked_label(model: Model, gradient: Any) -> int:
    """The class of the only example of a step. gradient (d,) = -delta/lr: the sign matters.

    With cross-entropy the gradient of an output's bias is p_c - 1 for the label, below zero, and p_c, above zero, for others.
    """
    bias = output_bias(model, gradient)
    return int(np.argmin(bias)) if len(bias) > 1 else int(bias[0] < 0)           # one logit: p - y


def leaked_counts(model: Model, gradient: Any, batch: int, expected: Any = None) -> np.ndarray:
    """(classes,) whole numbers that add up to `batch`: how many examples of each class were in a step.

    The gradient of an output's bias is the mean of p_c - [y = c], so count_c = batch·(p_c - gradient_c). expected (classes,): the
    mean p_c that the model gives; None: as many as there are classes, each the same, as an untrained model does.
    """
    if not is_whole(batch, 1):
        raise ValueError(f"batch must be a whole number of examples from 1, not {batch!r}")
    bias = output_bias(model, gradient)
    if len(bias) < 2:
        raise ValueError("counts are read off one output a class; this model has a single logit")
    mean = np.full(len(bias), 1 / len(bias)) if expected is None else np.asarray(expected, dtype=np.float64)
    if mean.shape != bias.shape or not np.isfinite(mean).all():
        raise ValueError(f"expected must hold a finite number for each of the {len(bias)} classes, not {expected!r:.100}")
    share = np.maximum(mean - bias, 0)
    if not share.sum() > 0:
        raise ValueError("no output's bias was pushed up: no class can be read off this gradient; is its sign that of -delta/lr?")
    return _round_to_sum(share / share.sum(), int(batch))


def membership(model: Model, params: Vector, inside: tuple[Any, Any], outside: tuple[Any, Any]) -> Any:
    """How well a threshold on the loss of one model (d,) tells the examples that it was trained on, inside (x, y), from others of
    the same kind, outside (x, y). AUC 0.5: not at all. Returns privacy.auditing's Membership: auc, advantage, epsilon."""
    from ..privacy.auditing import membership_attack  # here, because scipy.stats takes long to import

    def losses(x: Any, y: Any) -> np.ndarray:
        if not len(x) or len(x) != len(y):
            raise ValueError(f"{len(x)} examples with {len(y)} labels; inside and outside must hold some, and as many of each")
        return model.loss.judge(model.predict(params, np.asarray(x, dtype=np.float32)).astype(np.float64), np.asarray(y))[1]

    return membership_attack(losses(*inside), losses(*outside))
