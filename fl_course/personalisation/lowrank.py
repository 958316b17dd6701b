"""LoRA (Hu et al. 2022): a layer W + s·B·A, where B (out, r) and A (r, in) are thin. Personal adapters are thin personal layers.

    network = LoRA(mlp(784, 64, 10), "dense0", rank=2)
    Coordinator(data, Split(network, personal=("dense0.lora_a", "dense0.lora_b")), LocalSGD(personal=FedPer()))

The trap, if adapters travel and are averaged: the mean of products is not the product of means. The server gets B̄·Ā, and
the clients' mean change of the layer was the mean of B_k·A_k. What is missing is exactly their covariance, see `product_gap`; it
vanishes where all clients share one of the two factors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch

from ..core import Vector, is_whole, plain_counts
from ..engine.models import Dense, Layers, Model, Tensor
from .rules import check_number


@dataclass(frozen=True)
class LoRA(Model):
    """`model` with adapters of rank r at the named dense layers, which lie behind its own numbers as dense0.lora_a and .lora_b.

    B begins with zeros, so this begins as the model does. base: (d of the model,) numbers for its own layers, which then stay as
    they are and are no part of the vector: only the adapters are trained.
    """

    model: Dense
    at: str | Sequence[str] = "dense0"
    rank: int = 2
    scale: float = 1.0
    base: Vector | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        if type(self.model) is not Dense:
            raise TypeError(f"LoRA takes a dense network such as mlp(64, 32, 10), not {self.model!r}")
        if not is_whole(self.rank, 1):
            raise ValueError(f"rank must be a whole number from 1, not {self.rank!r}")
        check_number(self, "scale", least=-1e30)
        plain_counts(self)
        names = (self.at,) if isinstance(self.at, str) else tuple(self.at)
        known = [name.removesuffix(".weight") for name in self.model.shapes() if name.endswith(".weight")]
        if not names or any(name not in known for name in names) or len(set(names)) < len(names):
            raise ValueError(f"at = {self.at!r}; it must name some of {', '.join(known)}, each once")
        object.__setattr__(self, "at", names)
        object.__setattr__(self, "loss", self.model.loss)
        if self.base is not None:
            base = np.array(self.base, dtype=np.float32)
            if base.shape != (self.model.dim,) or not np.isfinite(base).all():
                raise ValueError(f"base must be {self.model.dim} finite numbers for {self.model!r}; it has shape {base.shape}")
            object.__setattr__(self, "base", base)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        shapes = self.model.shapes()
        out = dict(shapes) if self.base is None else {}
        for name in self.at:
            outputs, inputs = shapes[f"{name}.weight"]
            out[f"{name}.lora_a"], out[f"{name}.lora_b"] = (self.rank, inputs), (outputs, self.rank)
        return out

    def init(self, rng: np.random.Generator) -> Vector:
        """The model's first values; A uniform in ±1/√inputs, B zero."""
        parts: list[Any] = [self.model.init(rng)] if self.base is None else []
        for name, shape in self.shapes().items():
            if name.endswith(".lora_a"):
                parts.append(rng.uniform(-1, 1, math.prod(shape)) / math.sqrt(shape[1]))
            elif name.endswith(".lora_b"):
                parts.append(np.zeros(math.prod(shape)))
        return np.concatenate(parts).astype(np.float32)

    @cached_property
    def _still(self) -> Tensor:
        return torch.from_numpy(np.zeros(0, np.float32) if self.base is None else self.base)

    def logits(self, layers: Layers, x: Tensor) -> Tensor:
        return self.model.logits(self._merged(layers), x)

    def _merged(self, layers: Layers) -> Layers:
        if self.base is None:
            plain = {name: view for name, view in layers.items() if ".lora_" not in name}
        else:
            some = next(iter(layers.values()))
            plain = self.model.layers(self._still.to(some.dtype).expand(len(some), -1))
        for name in self.at:
            change = torch.bmm(layers[f"{name}.lora_b"], layers[f"{name}.lora_a"])
            plain[f"{name}.weight"] = plain[f"{name}.weight"] + self.scale * change
        return plain

    @torch.no_grad()
    def merged(self, theta: Vector) -> Vector:
        """(d,) → (d of the model,): the dense network that answers alike, with s·B·A added to its weights."""
        layers = self._merged(self.layers(torch.tensor(theta)[None]))
        return torch.cat([layers[name].flatten() for name in self.model.shapes()]).numpy()

    def beginning_with(self, base: Vector) -> LoRA:
        """The same adapters on a model (d,) that stays as it is."""
        return replace(self, base=base)


def product_gap(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For A (n, r, in) and B (n, out, r) of n clients: the mean of the products B_k·A_k, the product of the means, and what is
    between them, 1/n·Σ (B_k - B̄)(A_k - Ā); (out, in) each, in double precision. The first is the second plus the third."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.ndim != 3 or b.ndim != 3 or len(a) != len(b) or not len(a) or a.shape[1] != b.shape[2]:
        raise ValueError(f"A has shape {a.shape} and B {b.shape}; they must be (n, r, in) and (n, out, r), for the same clients")
    mean_a, mean_b = a.mean(0), b.mean(0)
    return (b @ a).mean(0), mean_b @ mean_a, ((b - mean_b) @ (a - mean_a)).mean(0)
