"""Models, cohort first: one forward pass for the models of many clients.

A model is one flat vector (d,). A cohort's models are the rows of theta (n, d); `layers(theta)` cuts it into named
views (n, *shape), and `logits` maps inputs (n, b, *features) to (n, b, classes): row k meets only the parameters of
row k. Therefore the gradient of the *sum* of all losses is, row by row, each client's own gradient. One client is n = 1.
(The word logits comes from classification; a model with another `loss` answers with whatever that loss reads.)

An example must not meet the others of its batch either: a batch that is not full is padded with examples of weight 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..core import Vector, is_whole, plain_counts
from ..data.federated import FederatedData
from .losses import USUAL, Loss, check_loss

Layers = dict[str, Tensor]


def describe_model(model: Any) -> str:
    """The repr of a model: its fields, without the loss if it is the usual one."""
    told = [field.name for field in fields(model) if field.repr and (field.name != "loss" or model.loss != USUAL)]
    return f"{type(model).__qualname__}({', '.join(f'{name}={getattr(model, name)!r}' for name in told)})"


def gradients(loss: Tensor, of: Sequence[Tensor]) -> Sequence[Tensor]:
    """Of a loss, by tensors; zeros for one that it does not depend on."""
    return torch.autograd.grad(loss, of, allow_unused=True, materialize_grads=True)


class Model:
    """Abstract. A model says its parameter shapes, its first values, and its forward pass for a whole cohort.

    loss: what training makes small, see losses.py.
    alone: training always takes its clients one by one, n = 1. The kernels of convolutions choose another algorithm for
    another number of groups, which moves more than last digits, and grouping gains next to nothing.
    """

    loss: Loss = USUAL
    alone = False
    speaks = True          # whether its vector alone answers examples; not so if a part of it stays with the clients

    @property
    def whole(self) -> Model:
        """The network that a client trains: this one, unless only a part of it travels, or several of it (chapter 8)."""
        return self

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape of each parameter tensor, in the order in which they lie in the flat vector."""
        raise NotImplementedError

    def logits(self, layers: Layers, x: Tensor) -> Tensor:
        """layers: name -> (n, *shape); x: (n, b, *features). Returns (n, b, classes)."""
        raise NotImplementedError

    def init(self, rng: np.random.Generator) -> Vector:
        """(d,) float32: uniform in ±1/sqrt(fan in), as torch.nn.Linear and Conv2d begin; norm scales 1 and shifts 0."""
        shapes, parts = self.shapes(), []
        for name, shape in shapes.items():
            layer, kind = name.rsplit(".", 1)
            if kind in ("scale", "shift"):
                parts.append(np.full(math.prod(shape), float(kind == "scale")))
            else:
                bound = 1 / math.sqrt(math.prod(shapes[f"{layer}.weight"][1:]))
                parts.append(rng.uniform(-bound, bound, math.prod(shape)))
        return np.concatenate(parts).astype(np.float32)

    def single(self) -> torch.nn.Module | None:
        """A module of its own that is this model for one client, (b, *features) -> (b, classes), its parameters in the
        order of `shapes` and not filled. None: there is none, so the model trains by its `logits`."""
        return None

    def losses(self, layers: Layers, x: Tensor, y: Tensor) -> Tensor:
        """(n, b): the loss of each example. x: (n, b, *features); y: (n, b) int64 classes, or (n, b, k) float32 numbers."""
        return self.loss.each(self.logits(layers, x), y)

    def check(self, data: FederatedData) -> None:
        """Raise ValueError if it cannot take these examples, or its loss cannot compare its answers with their targets.

        One example goes through a model of zeros.
        """
        try:
            outputs = self.predict(np.zeros(self.dim, np.float32), data.x[:1])
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise ValueError(
                f"{self!r} cannot take the data's examples, which have shape {data.x.shape[1:]}: {reason}"
            ) from error
        if outputs.ndim != 2 or len(outputs) != 1:
            raise ValueError(f"the model answers one example with numbers of shape {outputs.shape}; it must be (1, outputs)")
        self.loss.check(outputs.shape[1], data)

    @property
    def dim(self) -> int:
        """d, the number of parameters."""
        return sum(math.prod(shape) for shape in self.shapes().values())

    def slices(self) -> dict[str, slice]:
        """Name -> where the tensor lies in the flat vector."""
        out, start = {}, 0
        for name, shape in self.shapes().items():
            out[name] = slice(start, start + math.prod(shape))
            start = out[name].stop
        return out

    def layers(self, theta: Tensor) -> Layers:
        """Cut theta (n, d) into views, name -> (n, *shape). Nothing is copied: writing to a view writes to theta."""
        if theta.dim() != 2 or theta.shape[1] != self.dim:
            raise ValueError(f"theta has shape {tuple(theta.shape)}; for this model it must be (clients, {self.dim})")
        shapes = self.shapes()
        return {name: theta[:, where].view(len(theta), *shapes[name]) for name, where in self.slices().items()}

    @torch.no_grad()
    def predict(self, params: Vector, x: np.ndarray, chunk: int = 128) -> np.ndarray:
        """Logits (N, classes) of one model (d,) for inputs x (N, *features), in the precision of the model. So many at a
        time: what a convolution makes of a thousand images is more than the processor's cache holds."""
        theta = torch.tensor(params, device="cpu").unsqueeze(0)
        layers, inputs = self.layers(theta), torch.from_numpy(np.require(x, theta.numpy().dtype, ["C", "W"]))
        with torch.autocast("cpu", enabled=False):              # whatever the caller has switched on
            parts = [self.logits(layers, part.unsqueeze(0))[0] for part in inputs.split(chunk)]
        return torch.cat(parts).numpy()


@dataclass(frozen=True)
class Dense(Model):
    """Fully connected layers of the given sizes with ReLU between them. No hidden layer: logistic regression."""

    sizes: tuple[int, ...]
    loss: Loss = USUAL
    __repr__ = describe_model

    def __post_init__(self) -> None:
        check_loss(self.loss)
        if len(self.sizes) < 2 or not all(is_whole(size, 1) for size in self.sizes):
            raise ValueError(f"sizes = {self.sizes!r}; they must be positive whole numbers: inputs, hidden …, classes")
        object.__setattr__(self, "sizes", tuple(int(size) for size in self.sizes))

    def shapes(self) -> dict[str, tuple[int, ...]]:
        out: dict[str, tuple[int, ...]] = {}
        for l, (inputs, outputs) in enumerate(zip(self.sizes, self.sizes[1:], strict=False)):
            out[f"dense{l}.weight"], out[f"dense{l}.bias"] = (outputs, inputs), (outputs,)
        return out

    def logits(self, layers: Layers, x: Tensor) -> Tensor:
        h = x.flatten(2)                                                        # (n, b, inputs)
        if h.shape[2] != self.sizes[0]:
            raise ValueError(f"examples of {h.shape[2]} numbers; this model takes {self.sizes[0]}")
        for l in range(len(self.sizes) - 1):
            weight, bias = layers[f"dense{l}.weight"], layers[f"dense{l}.bias"]  # (n, out, in), (n, out)
            h = torch.baddbmm(bias.unsqueeze(1), h if l == 0 else h.relu(), weight.transpose(1, 2))
        return h


def logistic(inputs: int, classes: int, loss: Loss = USUAL) -> Dense:
    """Multinomial logistic regression: d = (inputs + 1)·classes. With loss=SquaredError() it is linear regression."""
    return Dense((inputs, classes), loss)


def mlp(*sizes: int, loss: Loss = USUAL) -> Dense:
    """mlp(784, 64, 10): 784 inputs, 64 hidden units, 10 classes. McMahan et al.'s 2NN is mlp(784, 200, 200, 10)."""
    return Dense(sizes, loss)


def is_softmax_network(model: Model) -> bool:
    """Whether the gradient at the last layer is softmax - onehot, through nothing but dense layers and ReLU: the steps that
    the fused engine and DP-SGD have written out."""
    return type(model) is Dense and model.loss == USUAL


@dataclass(frozen=True)
class ConvNet(Model):
    """A small convolutional network: per width a 3×3 convolution, group norm, ReLU and 2×2 max-pooling; one dense layer.

    Images come as (n, b, channels·side·side) or in any other shape of as many numbers, channels first.
    Group norm, not batch norm: batch statistics mix the examples of a batch, and averaging them over clients with
    different data is a known trap (Hsieh et al. 2020).
    """

    side: int                       # images are side × side
    classes: int
    channels: int = 1
    widths: tuple[int, ...] = (16, 32)
    groups: int = 4
    loss: Loss = USUAL
    alone = True
    __repr__ = describe_model

    def __post_init__(self) -> None:
        check_loss(self.loss)
        numbers = (self.side, self.classes, self.channels, self.groups, *self.widths)
        if not self.widths or not all(is_whole(number, 1) for number in numbers):
            raise ValueError(f"side, classes, channels, groups and widths must be positive whole numbers, not {self}")
        plain_counts(self)
        object.__setattr__(self, "widths", tuple(int(width) for width in self.widths))
        if self.side // 2 ** len(self.widths) < 1:
            raise ValueError(f"{len(self.widths)} poolings leave nothing of an image of side {self.side}")
        if any(width % self.groups for width in self.widths):
            raise ValueError(f"every width must be a multiple of groups={self.groups}, got {self.widths}")

    def shapes(self) -> dict[str, tuple[int, ...]]:
        out: dict[str, tuple[int, ...]] = {}
        inputs = self.channels
        for l, width in enumerate(self.widths):
            out[f"conv{l}.weight"], out[f"conv{l}.bias"] = (width, inputs, 3, 3), (width,)
            out[f"norm{l}.scale"], out[f"norm{l}.shift"] = (width,), (width,)
            inputs = width
        side = self.side // 2 ** len(self.widths)
        out["head.weight"], out["head.bias"] = (self.classes, inputs * side * side), (self.classes,)
        return out

    def single(self) -> torch.nn.Module | None:
        return OneConvNet(self) if type(self) is ConvNet else None                               # a subclass's logits may differ

    def logits(self, layers: Layers, x: Tensor) -> Tensor:
        n, b = x.shape[:2]
        if math.prod(x.shape[2:]) != self.channels * self.side**2:
            raise ValueError(f"examples of shape {tuple(x.shape[2:])}; this model takes {self.channels} channels "
                             f"of {self.side} × {self.side} numbers")
        h = x.reshape(n, b, self.channels, self.side, self.side).transpose(0, 1).flatten(1, 2)    # (b, n·c, s, s)
        for l in range(len(self.widths)):
            weight, bias = layers[f"conv{l}.weight"].flatten(0, 1), layers[f"conv{l}.bias"].flatten()
            h = F.conv2d(h, weight, bias, padding=1, groups=n)                                    # one group a client
            scale, shift = layers[f"norm{l}.scale"].flatten(), layers[f"norm{l}.shift"].flatten()
            h = F.group_norm(h, n * self.groups, scale, shift)
            h = F.max_pool2d(h.relu(), 2)                                                         # (b, n·width, s/2, s/2)
        h = h.unflatten(1, (n, -1)).flatten(2).transpose(0, 1)                                    # (n, b, features)
        return torch.baddbmm(layers["head.bias"].unsqueeze(1), h, layers["head.weight"].transpose(1, 2))


class OneConvNet(torch.nn.Module):
    """A ConvNet of one client, (b, *features) -> (b, classes). A small step spends a twentieth of its time on a module a
    layer, so the layers are called here one by one."""

    def __init__(self, net: ConvNet) -> None:
        super().__init__()
        self.net, shapes = net, net.shapes()
        self.layers = [torch.nn.Parameter(torch.empty(shape)) for shape in shapes.values()]
        for name, layer in zip(shapes, self.layers, strict=True):
            self.register_parameter(name.replace(".", "_"), layer)

    def forward(self, x: Tensor) -> Tensor:
        *convolutions, weight, bias = self.layers
        h = x.reshape(-1, self.net.channels, self.net.side, self.net.side)
        for l in range(0, len(convolutions), 4):
            kernel, offset, scale, shift = convolutions[l : l + 4]
            h = F.group_norm(F.conv2d(h, kernel, offset, padding=1), self.net.groups, scale, shift)
            h = torch.max_pool2d(h.relu(), 2)                                                    # (b, width, s/2, s/2)
        return F.linear(h.flatten(1), weight, bias)
