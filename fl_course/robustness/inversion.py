"""Examples out of gradients: what an update tells a curious server.

    closed_form      a dense first layer with biases: dW_i = db_i·x for one example, so x = dW_i / db_i, exactly
    invert "dlg"     look for inputs whose gradient is the one that was seen: least squares, L-BFGS (Zhu et al. 2019)
    invert "cosine"  1 - cosine + tv·total variation, Adam on signs (Geiping et al. 2020)

One step on one example gives it away. More examples in a step are averaged in the sum, more steps are walked at models that the
server has never seen, and noise is amplified by the division: each of them spoils the picture, none is a promise.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..core import Vector, is_whole, stream
from ..data.partition import image_side
from ..engine.models import Model
from .robust import positive


def unit_inputs(model: Model, delta: Any) -> np.ndarray:
    """(units, inputs) float64: dW_i / db_i of each hidden unit i of the first layer, the unit with the largest |db_i| first.

    delta (d,): an update or a gradient; its scale and sign do not matter. Units that saw nothing (db_i = 0) are left out. Of one
    example every row is the example; of a batch, each row is a weighted mean of the examples that moved its unit.
    """
    names = list(model.shapes().items())
    (weight, shape), (bias, units) = names[0], names[1] if len(names) > 1 else ("", ())
    if len(shape) != 2 or units != shape[:1]:
        raise ValueError(f"the closed form needs a dense first layer with biases; {model!r} begins with {weight} {shape}")
    values = as_vector(model, delta)
    slices = model.slices()
    dw, db = values[slices[weight]].reshape(shape), values[slices[bias]]
    order = np.argsort(-np.abs(db), kind="stable")
    order = order[db[order] != 0]
    with np.errstate(over="ignore", invalid="ignore"):
        return dw[order] / db[order, None]


def closed_form(model: Model, delta: Any) -> np.ndarray:
    """(inputs,) float64: x = dW_i / db_i with i = argmax |db_i|, the input of the only example of a single step."""
    rows = unit_inputs(model, delta)
    if not len(rows):
        raise ValueError("no bias of the first layer has moved, so nothing of the input is in this update")
    return rows[0]


def psnr(x: Any, guess: Any, peak: float = 1.0) -> float:
    """Peak signal to noise ratio, 10·log10(peak² / mean squared error), in dB; inf where nothing differs."""
    positive("peak", peak)
    truth, found = np.asarray(x, dtype=np.float64), np.asarray(guess, dtype=np.float64)
    if truth.size != found.size or not truth.size:
        raise ValueError(f"x has {truth.size} numbers and guess {found.size}; they must be as many, and some")
    error = float(np.mean((truth.ravel() - found.ravel()) ** 2))
    return math.inf if error == 0 else 10 * math.log10(peak**2 / error)


def best_psnr(xs: Any, guesses: Any, peak: float = 1.0) -> np.ndarray:
    """(b,) for each of the examples xs (b, *shape) the PSNR of the guess (k, *shape) that comes nearest to it."""
    if not len(guesses):
        raise ValueError("guesses must hold at least one picture to compare with")
    return np.array([max(psnr(x, guess, peak) for guess in guesses) for x in xs])


def gradient_of(model: Model, params: Vector, x: Any, y: Any) -> Vector:
    """(d,) of the mean loss of the examples x (b, *shape), y (b,) at the model params (d,): what one full-batch step sends,
    but for -lr."""
    inputs, targets = np.asarray(x, dtype=np.float32), np.array(y)
    if not len(inputs) or len(inputs) != len(targets):
        raise ValueError(f"x has {len(inputs)} examples and y {len(targets)}; they must be as many, and at least one")
    theta = torch.tensor(as_vector(model, params), dtype=torch.float32)[None]
    gradient = _gradient(model, theta, torch.tensor(inputs)[None], torch.from_numpy(targets)[None], graph=False)
    return gradient.detach().numpy()


def as_gradient(delta: Any, lr: float, steps: int = 1) -> np.ndarray:
    """(d,) float64: -delta / (lr·steps), the mean gradient along the way of so many SGD steps; of one step, the gradient."""
    positive("lr", lr)
    if not is_whole(steps, 1):
        raise ValueError(f"steps must be a whole number from 1, not {steps!r}")
    return -np.asarray(delta, dtype=np.float64) / (lr * steps)


@dataclass(frozen=True)
class Reconstruction:
    """What an attack by optimisation found."""

    x: np.ndarray                       # (b, *shape) float32
    loss: float                         # how far its gradient still is from the one that was seen, in the attack's own measure
    losses: tuple[float, ...]           # the same, step by step


def invert(model: Model, params: Vector, gradient: Any, labels: Any, shape: tuple[int, ...], how: str = "dlg",
           steps: int | None = None, lr: float | None = None, tv: float = 0.0, seed: int = 0) -> Reconstruction:
    """Look for examples (b, *shape) with these labels (b,) whose gradient at params (d,) is `gradient` (d,).

    how "dlg": ‖difference‖² / ‖gradient‖², L-BFGS, `steps` (30) times 20 evaluations, lr 1. how "cosine": 1 - cosine + tv·total
    variation of square images, Adam on the signs of the gradient, `steps` (600), lr 0.1 with three decays, inputs kept in [0, 1].
    Labels of a single example can be read off the gradient first: leaks.leaked_label. The order within a batch is lost.
    """
    if how not in ("dlg", "cosine"):
        raise ValueError(f"how must be 'dlg' or 'cosine', not {how!r}")
    usual = {"dlg": (30, 1.0), "cosine": (600, 0.1)}[how]
    steps, lr = usual[0] if steps is None else steps, usual[1] if lr is None else lr
    if not is_whole(steps, 1):
        raise ValueError(f"steps must be a whole number from 1, not {steps!r}")
    positive("lr", lr)
    if not (tv >= 0 and math.isfinite(tv)):
        raise ValueError(f"tv must be at least 0 and finite, not {tv!r}")
    y, seen = _classes(labels), torch.from_numpy(as_vector(model, gradient).copy())
    size = float(seen.norm())
    if not size > 0:
        raise ValueError("the gradient is all zeros: there is nothing in it to look for")
    outputs = list(model.shapes().values())[-1][0]
    if int(y.max()) >= max(outputs, 2):
        raise ValueError(f"a label is {int(y.max())}; the model knows the classes 0 to {max(outputs, 2) - 1}")
    theta = torch.from_numpy(as_vector(model, params).copy())[None]
    start = stream(seed, "inversion").uniform(0, 1, (len(y), *shape))
    x = torch.tensor(start, dtype=torch.float64, requires_grad=True)

    def away() -> Tensor:
        mine = _gradient(model, theta, x[None], y[None], graph=True)
        if how == "dlg":
            return (mine - seen).square().sum() / size**2
        return 1 - mine @ seen / (mine.norm() * size).clamp_min(1e-300) + (tv * _variation(x, shape) if tv else 0)

    losses = _lbfgs(x, away, steps, lr) if how == "dlg" else _signed_adam(x, away, steps, lr)
    return Reconstruction(x.detach().numpy().astype(np.float32), losses[-1], tuple(losses))


def _lbfgs(x: Tensor, away: Callable[[], Tensor], steps: int, lr: float) -> list[float]:
    optimizer, losses = torch.optim.LBFGS([x], lr=lr, max_iter=20, line_search_fn="strong_wolfe", tolerance_grad=1e-14,
                                          tolerance_change=1e-16), [float(away().detach())]

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = away()
        loss.backward()
        return loss

    for _ in range(steps):
        optimizer.step(closure)
        losses.append(float(away().detach()))
        if not losses[-1] > 1e-20:
            break
    return losses


def _signed_adam(x: Tensor, away: Callable[[], Tensor], steps: int, lr: float) -> list[float]:
    optimizer, losses = torch.optim.Adam([x], lr=lr), []
    decays = {int(steps * part) for part in (3 / 8, 5 / 8, 7 / 8)}
    for step in range(steps):
        if step in decays:
            optimizer.param_groups[0]["lr"] *= 0.1
        optimizer.zero_grad()
        loss = away()
        loss.backward()
        assert x.grad is not None
        x.grad.sign_()
        optimizer.step()
        with torch.no_grad():
            x.clamp_(0, 1)
        losses.append(float(loss.detach()))
    return [*losses, float(away().detach())]


def _gradient(model: Model, theta: Tensor, x: Tensor, y: Tensor, graph: bool) -> Tensor:
    """(d,) of the mean loss; theta (1, d), x (1, b, *shape), y (1, b)."""
    with torch.enable_grad():
        theta = theta.detach().requires_grad_()
        loss = model.losses(model.layers(theta), x, y).mean()
        return torch.autograd.grad(loss, theta, create_graph=graph)[0][0]


def _variation(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Mean absolute difference of neighbouring pixels."""
    side = image_side(shape)
    images = x.reshape(-1, side, side)
    return (images[:, 1:] - images[:, :-1]).abs().mean() + (images[:, :, 1:] - images[:, :, :-1]).abs().mean()


def as_vector(model: Model, values: Any) -> np.ndarray:
    """(d,) float64, finite, as long as the model."""
    vector = np.asarray(values, dtype=np.float64)
    if vector.shape != (model.dim,):
        raise ValueError(f"an update or a gradient of this model has shape ({model.dim},), not {vector.shape}")
    if not np.isfinite(vector).all():
        raise ValueError("the update or gradient holds NaN or infinite values: nothing can be read off it")
    return vector


def _classes(labels: Any) -> Tensor:
    """(b,) int64, from whole numbers."""
    y = np.asarray(labels).reshape(-1)
    if not y.size or y.dtype.kind not in "iu" or y.min() < 0:
        raise ValueError(f"labels must be the classes of the examples, whole numbers from 0, at least one, not {labels!r:.100}")
    return torch.from_numpy(y.astype(np.int64))
