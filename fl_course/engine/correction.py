"""Corrections that are affine in the model: FedProx, SCAFFOLD and FedDyn (drift/methods.py). The fused engine knows them, too."""

from __future__ import annotations

from torch import Tensor

from ..core import Task, Vector
from ..federation.interfaces import Correction, Rows


class Affine(Correction):
    """Abstract: adds pull·(theta - anchor) + shift. Most corrections have this form, and the fused engine knows it too."""

    def pull(self) -> float:
        """How strongly theta is drawn back to the anchor; 0: not at all."""
        return 0.0

    def shift(self, task: Task) -> Vector | None:
        """(d,) the same in every step of this round; None, and then for every client: nothing."""
        return None

    def rows(self, task: Task) -> dict[str, Vector]:
        shift = self.shift(task)
        return {} if shift is None else {"shift": shift}

    def correct(self, grad: Tensor, theta: Tensor, anchor: Tensor, rows: Rows) -> Tensor:
        if self.pull():
            grad = grad + self.pull() * (theta - anchor)
        return grad + rows["shift"] if rows else grad
