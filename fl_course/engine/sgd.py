"""Stochastic gradient descent, three times: for a whole cohort, for one client with a module, and as in a textbook.

`train_rows` is the text of the method, for every model and correction: the models of n clients are the rows of theta
(n, d); rows do not interact, so one backward pass through the sum of the clients' losses gives every client its own
gradient. `SingleEngine` is plain SGD for a model whose clients gain nothing from sharing a tensor. `train_alone` is a
loop over torch.optim.SGD that shares nothing with the others but the batches; the tests hold them all against it.

The last digits of `train_rows` can depend on who else is in the cohort, where a layer's width is no multiple of 16: torch's
products round by where a result begins in memory. `fused` sees to that. `LocalSGD` gives other models to `train_rows` one
client at a time, unless it is asked for engine="rows" or `together`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import torch
from torch import Tensor

from ..core import Task, Vector
from ..data.federated import FederatedData
from ..federation.interfaces import Correction
from .batches import Plan, client_keys, plan_batches, round_key, splitmix, width
from .local import LocalSGD
from .losses import Loss
from .models import Model, gradients


def stack(tasks: Sequence[Task], vectors: Sequence[Vector | None]) -> np.ndarray:
    """(n, d) from one vector a client."""
    for task, vector in zip(tasks, vectors, strict=True):
        if vector is None:
            raise ValueError(f"the correction has no vector for client {task.client!r}, but it has one for others")
    return np.stack([vector for vector in vectors if vector is not None])


def train_rows(model: Model, theta: Tensor, anchor: Tensor, x: Tensor, y: Tensor, plan: Plan, lr: float, how: LocalSGD,
               tasks: Sequence[Task], frozen: Collection[str] = ()) -> Tensor:
    """SGD for n clients, in place on theta (n, d). Returns the mean loss of each batch (S, n).

    x: (N, *features), y: (N,) or (N, k): the examples that plan.rows counts; anchor: (n, d), where the clients began.
    Step t moves the first plan.active[t] rows; the rows of clients that have finished stay untouched, bit for bit, and so
    do the layers whose names are frozen. All tensors are on one device, whichever.
    """
    correction = how.correction or Correction()
    named = [correction.rows(task) for task in tasks]
    names = {name: None for vectors in named for name in vectors}
    rows = {name: torch.from_numpy(stack(tasks, [vectors.get(name) for vectors in named])).to(theta.device) for name in names}
    velocity = torch.zeros_like(theta)
    weight = torch.from_numpy(plan.weight).to(theta.device, theta.dtype)
    index = torch.from_numpy(plan.rows).to(theta.device)
    losses = torch.zeros(plan.count.shape, dtype=theta.dtype, device=theta.device)
    alive = -1
    for t, a in enumerate(plan.active):
        if a != alive:                                                             # views of the clients still at work
            alive, layers = a, {name: view.requires_grad_() for name, view in model.layers(theta[:a].detach()).items()}
        each = model.losses(layers, x[index[t, :a]], y[index[t, :a]])              # (a, B)
        batch = (each * weight[t, :a]).sum(1)                                      # (a,) the mean over real examples
        grads = gradients(batch.sum(), list(layers.values()))
        with torch.no_grad():
            if how.plain:
                for name, gradient in zip(layers, grads, strict=True):
                    if name not in frozen:
                        layers[name].sub_(lr * gradient)
            else:
                grad = torch.cat([g.reshape(a, -1) for g in grads], dim=1)       # (a, d)
                grad = correction.correct(grad, theta[:a], anchor[:a], {name: r[:a] for name, r in rows.items()})
                if how.weight_decay:
                    grad = grad + how.weight_decay * theta[:a]
                if how.momentum:
                    grad = velocity[:a].mul_(how.momentum).add_(grad)
                if frozen:
                    grad = grad.clone()
                    for name in frozen:
                        grad[:, model.slices()[name]] = 0
                theta[:a].sub_(lr * grad)
        losses[t, :a] = batch.detach()
    return losses


class SingleEngine:
    """Plain SGD for one client after the other with an ordinary module, (b, *features) -> (b, outputs).

    The cohort's tensors save nothing when a single step keeps the processor busy; this loop has the least around it.
    Parameters that need no gradient stay what they are.
    """

    def __init__(self, module: torch.nn.Module, loss: Loss, dtype: torch.dtype = torch.float32) -> None:
        self.module, self.loss = module.to(dtype), loss
        self.parameters = [p for p in self.module.parameters() if p.requires_grad]
        self.flat = torch.empty(sum(p.numel() for p in self.parameters), dtype=dtype, device="cpu")      # (d,)
        torch.nn.utils.vector_to_parameters(self.flat, self.parameters)            # the parameters are views of flat

    def train(self, theta: Tensor, x: Tensor, y: Tensor, plan: Plan, lr: float) -> Tensor:
        """In place on theta (1, d). Returns the mean losses (S, 1). x, y, plan: as in train_rows."""
        self.flat.copy_(theta[0])
        losses = []
        for t, count in enumerate(plan.count[:, 0]):
            rows = torch.from_numpy(plan.rows[t, 0, :count])
            loss = self.loss.mean(self.module(x[rows]), y[rows])
            grads = gradients(loss, self.parameters)
            with torch.no_grad():
                for parameter, gradient in zip(self.parameters, grads, strict=True):
                    parameter.sub_(gradient, alpha=lr)
            losses.append(loss.detach())
        theta[0].copy_(self.flat)
        return torch.stack(losses)[:, None]


def train_alone(model: Model, task: Task, data: FederatedData, how: LocalSGD,
                dtype: torch.dtype = torch.float32) -> np.ndarray:
    """One client, as in a textbook, with torch.optim.SGD: the slow reference that the engines are tested against.

    Returns the delta (d,), computed in dtype. It follows the same batch plan, one batch after the other, nothing padded.
    """
    mine = data.train[data.position(task.client)]
    keys = splitmix(client_keys([task.client]) ^ round_key(task.seed, task.server.version))
    plan = plan_batches([mine], keys, np.array([how.epochs_of(task)]), width(len(mine), how.batch_size))
    anchor = torch.tensor(task.server.params, dtype=dtype)[None]                   # (1, d)
    theta, correction = anchor.clone().requires_grad_(), how.correction or Correction()
    rows = {name: torch.tensor(vector, dtype=dtype)[None] for name, vector in correction.rows(task).items()}
    optimizer = torch.optim.SGD([theta], how.lr_at(task.server.version), how.momentum, weight_decay=how.weight_decay)
    for t in range(int(plan.steps[0])):
        batch = plan.rows[t, 0, : plan.count[t, 0]]
        x, y = torch.tensor(data.x[batch], dtype=dtype)[None], torch.tensor(data.y[batch])[None]
        loss = model.losses(model.layers(theta), x, y).mean()
        theta.grad = correction.correct(torch.autograd.grad(loss, theta)[0], theta.detach(), anchor, rows)
        optimizer.step()
    return (theta.detach() - anchor)[0].numpy()
