"""The fast engine for dense networks: a cohort's forward and backward pass written out as batched matrix products.

It computes what `training.train_rows` computes for a `Dense` model without momentum, with three tricks:
the bias is one more column of the weights, which meets a column of ones in the input; the gradient of softmax and
cross-entropy is softmax - onehot; and a layer's gradient is added to its weights by the very product that computes it,
W ← W - lr·dᵀh, so it never exists on its own. Buffers live as long as the engine, for fresh memory costs page faults.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .batches import Plan


def padded(columns: int) -> int:
    """Inputs plus the bias column, rounded up to a multiple of 8 numbers: whole vector registers."""
    return -(-(columns + 1) // 8) * 8


class DenseEngine:
    """Trains dense networks of the given sizes on examples x (N, *features), labels y (N,)."""

    def __init__(self, sizes: tuple[int, ...], x: Tensor, y: Tensor) -> None:
        if x[0].numel() != sizes[0]:
            raise ValueError(f"examples of {x[0].numel()} numbers; this model takes {sizes[0]}")
        self.sizes, self.y = sizes, y
        self.x = x.new_zeros(len(x), padded(sizes[0]))                             # (N, inputs + 1, padded)
        self.x[:, : sizes[0]] = x.flatten(1)
        self.x[:, sizes[0]] = 1
        self.W: list[Tensor] = []
        self.rooms: dict[int, tuple[list[Tensor], list[Tensor]]] = {}              # by batch width

    def _weights(self, n: int) -> list[Tensor]:
        """For each layer (n, outputs, padded inputs): weights, the bias, zeros."""
        if not self.W or n > len(self.W[0]):
            pairs = zip(self.sizes, self.sizes[1:], strict=False)
            self.W = [self.x.new_zeros(n, outputs, padded(inputs)) for inputs, outputs in pairs]
        return [W[:n] for W in self.W]

    def _room(self, n: int, b: int) -> tuple[list[Tensor], list[Tensor]]:
        """For n clients and batches of b: inputs h (n, b, padded inputs) and errors d (n, b, outputs) of each layer."""
        if b not in self.rooms or n > len(self.rooms[b][0][0]):
            h = [self.x.new_zeros(n, b, padded(inputs)) for inputs in self.sizes[:-1]]
            for inputs, layer in zip(self.sizes, h, strict=False):
                layer[:, :, inputs] = 1
            self.rooms[b] = h, [self.x.new_empty(n, b, outputs) for outputs in self.sizes[1:]]
        return self.rooms[b]

    def _copy(self, theta: Tensor, W: list[Tensor], back: bool = False) -> None:
        """From the flat rows theta (n, d) to the padded layers, or back."""
        start, n = 0, len(theta)
        for layer, inputs, outputs in zip(W, self.sizes, self.sizes[1:], strict=False):
            middle, end = start + outputs * inputs, start + outputs * (inputs + 1)
            weight, bias = theta[:, start:middle].view(n, outputs, inputs), theta[:, middle:end]
            if back:
                weight.copy_(layer[:, :, :inputs])
                bias.copy_(layer[:, :, inputs])
            else:
                layer[:, :, :inputs] = weight
                layer[:, :, inputs] = bias
                layer[:, :, inputs + 1 :] = 0                                      # NaN, if a client diverged here before
            start = end

    @torch.no_grad()
    def train(self, theta: Tensor, plan: Plan, lr: float, decay: float = 0.0, push: Tensor | None = None) -> Tensor:
        """SGD in place on theta (n, d). Returns the mean loss of each batch (S, n), in nats.

        Every step is theta ← (1 - lr·decay)·theta - lr·gradient + push; push: (n, d), or None for nothing.
        The loss is read off the softmax, so that of a single example is at most 87, where its probability is 1e-38.
        """
        steps, n, b = plan.rows.shape
        all_W, (all_h, all_d) = self._weights(n), self._room(n, b)
        self._copy(theta, all_W)
        all_push = [] if push is None else [torch.zeros_like(W) for W in all_W]
        if push is not None:
            self._copy(push, all_push)
        top = len(all_W) - 1
        rows = torch.from_numpy(plan.rows).reshape(steps, n * b)
        labels = self.y[rows].view(steps, n, b, 1)
        weight = torch.from_numpy(plan.weight).to(theta.dtype).unsqueeze(-1)       # (S, n, B, 1)
        likelihood = theta.new_ones(steps, n, b, 1)
        minus_one = theta.new_full((1,), -1.0).expand(n, b, 1)
        alive = -1
        for t, a in enumerate(plan.active):
            if a != alive:                                                         # views of the clients still at work
                alive = a
                W, h, d = ([buffer[:a] for buffer in buffers] for buffers in (all_W, all_h, all_d))
                W_in = [w[:, :, :inputs] for w, inputs in zip(W, self.sizes, strict=False)]
                units = [x[:, :, :inputs] for x, inputs in zip(h, self.sizes, strict=False)]
                WT, dT, x = [w.transpose(1, 2) for w in W], [e.transpose(1, 2) for e in d], h[0].flatten(0, 1)
            torch.index_select(self.x, 0, rows[t, : a * b], out=x)
            for l in range(top):                                                   # forward
                torch.bmm(h[l], WT[l], out=units[l + 1]).clamp_min_(0)
            error = torch.softmax(torch.bmm(h[top], WT[top], out=d[top]), -1, out=d[top])
            torch.gather(error, 2, labels[t, :a], out=likelihood[t, :a])
            error.scatter_add_(2, labels[t, :a], minus_one[:a]).mul_(weight[t, :a])    # (softmax - onehot) / batch
            for l in range(top, -1, -1):                                           # backward, and the step
                if l > 0:
                    torch.bmm(d[l], W_in[l], out=d[l - 1])
                    torch.ops.aten.threshold_backward.grad_input(d[l - 1], units[l], 0, grad_input=d[l - 1])   # ReLU's
                W[l].baddbmm_(dT[l], h[l], beta=1 - lr * decay, alpha=-lr)
            for w, step in zip(W, all_push, strict=False):
                w.add_(step[:a])
        self._copy(theta, all_W, back=True)
        return -(likelihood.clamp_min(torch.finfo(theta.dtype).tiny).log() * weight).sum((2, 3))
