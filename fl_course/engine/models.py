"""Models, cohort first: one forward pass for the models of many clients.

A model is one flat vector (d,). A cohort's models are the rows of theta (n, d); `layers(theta)` cuts it into named
views (n, *shape), and `logits` maps inputs (n, b, *features) to (n, b, classes): row k meets only the parameters of
row k. Therefore the gradient of the *sum* of all losses is, row by row, each client's own gradient. One client is n = 1.

An example must not meet the others of its batch either: a batch that is not full is padded with examples of weight 0.
"""

from __future__ import annotations

import copy
import math
import threading
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..core import Vector

Layers = dict[str, Tensor]
LENT = threading.Lock()            # functional_call puts other parameters into the module meanwhile: one thread at a time


class Model:
    """Abstract. A model says its parameter shapes, its first values, and its forward pass for a whole cohort.

    alone: training always takes its clients one by one, n = 1. The kernels of convolutions choose another algorithm for
    another number of groups, which moves more than last digits, and grouping gains next to nothing.
    """

    alone = False

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
        """(n, b): the cross-entropy of each example, in nats. x: (n, b, *features), y: (n, b) int64."""
        logits = self.logits(layers, x)
        return F.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="none").view(y.shape)

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
    def predict(self, params: Vector, x: np.ndarray, chunk: int = 2048) -> np.ndarray:
        """Logits (N, classes) of one model (d,) for inputs x (N, *features), in the precision of the model."""
        theta = torch.tensor(params).unsqueeze(0)
        layers, inputs = self.layers(theta), torch.tensor(x, dtype=theta.dtype)
        parts = [self.logits(layers, part.unsqueeze(0))[0] for part in inputs.split(chunk)]
        return torch.cat(parts).numpy()


@dataclass(frozen=True)
class Dense(Model):
    """Fully connected layers of the given sizes with ReLU between them. No hidden layer: logistic regression."""

    sizes: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.sizes) < 2 or any(not isinstance(size, int) or size < 1 for size in self.sizes):
            raise ValueError(f"sizes = {self.sizes!r}; they must be positive whole numbers: inputs, hidden …, classes")

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


def logistic(inputs: int, classes: int) -> Dense:
    """Multinomial logistic regression: d = (inputs + 1)·classes."""
    return Dense((inputs, classes))


def mlp(*sizes: int) -> Dense:
    """mlp(784, 64, 10): 784 inputs, 64 hidden units, 10 classes. McMahan et al.'s 2NN is mlp(784, 200, 200, 10)."""
    return Dense(sizes)


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
    alone = True

    def __post_init__(self) -> None:
        numbers = (self.side, self.classes, self.channels, self.groups, *self.widths)
        if not self.widths or any(not isinstance(number, int) or number < 1 for number in numbers):
            raise ValueError(f"side, classes, channels, groups and widths must be positive whole numbers, not {self}")
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
        if type(self) is not ConvNet:                                                            # its logits may be others
            return None
        with torch.device("meta"):                                                               # draws no first values
            parts: list[torch.nn.Module] = [torch.nn.Flatten(), torch.nn.Unflatten(1, (self.channels, self.side, self.side))]
            for inputs, width in zip((self.channels, *self.widths), self.widths, strict=False):
                convolution, norm = torch.nn.Conv2d(inputs, width, 3, padding=1), torch.nn.GroupNorm(self.groups, width)
                parts += [convolution, norm, torch.nn.ReLU(), torch.nn.MaxPool2d(2)]
            head = torch.nn.Linear(math.prod(self.shapes()["head.weight"][1:]), self.classes)
        return torch.nn.Sequential(*parts, torch.nn.Flatten(), head).to_empty(device="cpu")

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


@dataclass(frozen=True)
class Wrapped(Model):
    """Any torch.nn.Module that maps (b, *features) to (b, classes), run for a whole cohort by torch.func.

    The module's present parameters are the initial model, and all of them are trained, as float32. Refused: batch norm,
    where the examples of a batch meet; anything else that keeps buffers, which have no place in a parameter vector; and
    active dropout, which would draw from torch's global generator.
    """

    module: torch.nn.Module = field(repr=False)
    name: str = ""

    def __post_init__(self) -> None:
        for part in self.module.modules():
            if isinstance(part, torch.nn.modules.batchnorm._BatchNorm):
                raise ValueError(f"{part} mixes the examples of a batch, and its running statistics are not part of the "
                                 "model vector; use GroupNorm or LayerNorm")
            if isinstance(part, torch.nn.modules.dropout._DropoutNd) and part.training and part.p > 0:
                raise ValueError(f"{part} draws from torch's global generator, so runs would not repeat; remove it")
        if buffers := [name for name, _ in self.module.named_buffers()]:
            raise ValueError(f"the module keeps buffers ({', '.join(buffers[:3])}), which are not part of the model "
                             "vector and would not be averaged; make them constants or parameters")
        parameters = list(self.module.parameters())
        if not parameters:
            raise ValueError(f"{self.module} has no parameters to train")
        object.__setattr__(self, "name", self.name or type(self.module).__name__)
        object.__setattr__(self, "alone", any(p.dim() > 2 for p in parameters))       # kernels of convolutions

    def single(self) -> torch.nn.Module | None:
        if type(self) is not Wrapped:
            return None
        with LENT:
            return copy.deepcopy(self.module).requires_grad_()

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: tuple(p.shape) for name, p in self.module.named_parameters()}

    def init(self, rng: np.random.Generator) -> Vector:
        flat = torch.cat([p.detach().flatten() for p in self.module.parameters()])
        return flat.to(torch.float32).numpy().copy()

    def logits(self, layers: Layers, x: Tensor) -> Tensor:
        def one_client(parameters: Layers, batch: Tensor) -> Tensor:
            return torch.func.functional_call(self.module, parameters, (batch,))

        with LENT:
            return torch.func.vmap(one_client)(layers, x)
