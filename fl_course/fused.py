"""The fast engine for dense networks: a cohort's forward and backward pass written out as batched matrix products.

It computes exactly what `training.train_rows` computes for a `Dense` model without momentum and corrections, with three
tricks: the bias is one more column of the weights, which meets a column of ones in the input; the gradient of softmax and
cross-entropy is softmax - onehot; and a layer's gradient is added to its weights by the very product that computes it,
W ← W - lr·dᵀh, so it never exists on its own. Buffers live as long as the engine.
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
        self.sizes = sizes
        self.y = y
        self.x = torch.zeros(len(x), padded(sizes[0]), dtype=x.dtype)              # (N, inputs + 1, padded)
        self.x[:, : sizes[0]] = x.flatten(1)
        self.x[:, sizes[0]] = 1
        self.room: tuple[int, int] = (0, 0)                                        # clients, batch width

    def _make_room(self, n: int, b: int) -> None:
        """Buffers for n clients and batches of b: weights W, inputs h of each layer, errors d of each layer."""
        if n <= self.room[0] and b == self.room[1]:
            return
        self.room = (max(n, self.room[0]), b)
        n, like = self.room[0], self.x
        pairs = list(zip(self.sizes, self.sizes[1:], strict=False))
        self.W = [like.new_zeros(n, outputs, padded(inputs)) for inputs, outputs in pairs]
        self.d = [like.new_empty(n, b, outputs) for _, outputs in pairs]
        self.dh = [like.new_empty(n, b, padded(inputs)) for inputs, _ in pairs]
        self.h = [like.new_zeros(n, b, padded(inputs)) for inputs, _ in pairs]
        for h, inputs in zip(self.h, self.sizes, strict=False):
            h[:, :, inputs] = 1

    def _copy_weights(self, theta: Tensor, back: bool = False) -> None:
        """Between the flat rows theta (n, d) and the padded layers, one way or the other."""
        start, n = 0, len(theta)
        for W, inputs, outputs in zip(self.W, self.sizes, self.sizes[1:], strict=False):
            flat = theta[:, start : start + outputs * inputs].view(n, outputs, inputs)
            bias = theta[:, start + outputs * inputs : start + outputs * (inputs + 1)]
            for mine, theirs in ((W[:n, :, :inputs], flat), (W[:n, :, inputs], bias)):
                (theirs.copy_(mine) if back else mine.copy_(theirs))
            start += outputs * (inputs + 1)

    @torch.no_grad()
    def train(self, theta: Tensor, plan: Plan, lr: float, weight_decay: float = 0.0) -> Tensor:
        """SGD in place on theta (n, d). Returns the mean loss of each batch (S, n), in nats.

        The loss is read off the softmax, so a single example's loss is reported as at most 87 (its probability ≥ 1e-38).
        """
        steps, n, b = plan.rows.shape
        self._make_room(n, b)
        self._copy_weights(theta)
        top = len(self.W) - 1
        decay = 1 - lr * weight_decay
        weight = torch.from_numpy(plan.weight).to(theta.dtype).unsqueeze(-1)       # (S, n, B, 1)
        index = torch.from_numpy(plan.rows)
        likelihood = theta.new_ones(steps, n, b, 1)
        minus_one = theta.new_full((1,), -1.0).expand(n, b, 1)
        block = max(1, 4_000_000 // (n * b * self.x.shape[1]))                     # steps whose examples are fetched at once
        alive = -1
        for t, a in enumerate(plan.active):
            if t % block == 0:
                here = index[t : t + block]
                xs = self.x.index_select(0, here.reshape(-1)).view(len(here), n, b, -1)
                ys = self.y.index_select(0, here.reshape(-1)).view(len(here), n, b, 1)
            if a != alive:                                                         # views of the clients still at work
                alive = a
                W, d, dh, h = ([buffer[:a] for buffer in buffers] for buffers in (self.W, self.d, self.dh, self.h))
                WT, dT = [w.transpose(1, 2) for w in W], [e.transpose(1, 2) for e in d]
                out = [h[l][:, :, : self.sizes[l]] for l in range(top + 1)]
                dout = [dh[l][:, :, : self.sizes[l]] for l in range(top + 1)]
            h[0] = xs[t % block, :a]
            label = ys[t % block, :a]
            for l in range(top):                                                   # forward
                torch.bmm(h[l], WT[l], out=d[l])
                torch.clamp_min(d[l], 0, out=out[l + 1])
            torch.bmm(h[top], WT[top], out=d[top])
            error = torch.softmax(d[top], -1, out=d[top])
            torch.gather(error, 2, label, out=likelihood[t, :a])
            error.scatter_add_(2, label, minus_one[:a]).mul_(weight[t, :a])        # (softmax - onehot) / batch
            for l in range(top, -1, -1):                                           # backward, and the step
                if l > 0:
                    torch.bmm(d[l], W[l], out=dh[l])
                W[l].baddbmm_(dT[l], h[l], beta=decay, alpha=-lr)
                if l > 0:
                    torch.mul(dout[l], out[l] > 0, out=d[l - 1])
        self._copy_weights(theta, back=True)
        tiny = torch.finfo(theta.dtype).tiny
        return -(likelihood.clamp_min(tiny).log() * weight).sum((2, 3))
