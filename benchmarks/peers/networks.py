"""The work's model as an ordinary torch module, for the two peers that train with torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn


def network(model: dict[str, Any]) -> nn.Sequential:
    """A module of logits whose parameters lie in the order of the flat vector."""
    layers: list[nn.Module] = []
    if model["kind"] == "dense":
        for inputs, outputs in zip(model["sizes"], model["sizes"][1:], strict=False):
            layers += [nn.Linear(inputs, outputs), nn.ReLU()]
        return nn.Sequential(*layers[:-1])
    inputs, side = model["channels"], model["side"]
    layers.append(nn.Unflatten(1, (inputs, side, side)))
    for width in model["widths"]:
        layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.GroupNorm(model["groups"], width)]
        layers += [nn.ReLU(), nn.MaxPool2d(2)]
        inputs, side = width, side // 2
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(inputs * side * side, model["classes"]))


def fill(module: nn.Module, flat: np.ndarray) -> nn.Module:
    """Give the module the parameters (d,)."""
    nn.utils.vector_to_parameters(torch.from_numpy(flat.copy()), module.parameters())
    return module
