"""What a method adds to each client's gradient: the interface of FedProx, SCAFFOLD and FedDyn (drift.py) to local training."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from torch import Tensor

from .core import Aggregate, Server, Task, Vector

if TYPE_CHECKING:
    from .coordinator import Coordinator

Rows = dict[str, Tensor]
Gradient = Callable[[], Vector]


class Correction:
    """What a method adds to each client's gradient, row by row. This one adds nothing; chapter 2 fills it in."""

    def rows(self, task: Task) -> dict[str, Vector]:
        """Vectors (d,) that this client needs beside its gradient, under the same names for every client."""
        return {}

    def correct(self, grad: Tensor, theta: Tensor, anchor: Tensor, rows: Rows) -> Tensor:
        """grad, theta, anchor (the broadcast model): (a, d). Returns the corrected gradient (a, d)."""
        return grad

    def finish(self, task: Task, delta: Vector, steps: int, lr: float, gradient: Gradient) -> dict[str, Vector]:
        """After training: what travels beside delta. May write to task.memory, the client's own drawer.

        gradient(): (d,) of the client's mean loss over all its examples at the broadcast model; one more pass.
        """
        return {}

    def absorb(self, server: Server, aggregate: Aggregate, arrived: int, clients: int) -> Server:
        """The server half, after the optimiser's step: arrived of all clients are in the aggregate."""
        return server

    def check(self, experiment: Coordinator) -> None:
        """Raise CompositionError if this method is unsound beside the rest of the experiment."""


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
