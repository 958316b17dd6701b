"""The fast engine for dense networks: a cohort's forward and backward pass written out as batched matrix products.

It computes what `sgd.train_rows` computes for a `Dense` model, with four tricks:
the bias is one more column of the weights, which meets a column of ones in the input; the gradient of softmax and
cross-entropy is softmax - onehot; a layer's gradient is added to its weights by the very product that computes it,
W ← W - lr·dᵀh, so it never exists on its own; and a large first layer need not exist either, see `implicit_room`.
"""

from __future__ import annotations

import math
import threading
from itertools import accumulate, pairwise

import numpy as np
import torch
from torch import Tensor

from .batches import Plan

LARGE = 50_000            # weights of a first layer below which keeping it implicit is not worth its own group of clients


def padded(columns: int, rows: int = 1) -> int:
    """So many columns or a few more, until a matrix of so many rows fills whole cache lines of 16 numbers.

    A matrix product's last digits depend on where its result begins in a line. So every result of a cohort begins with
    one, and a client's bits do not depend on its place among the others. (Products of the form A·Bᵀ were seen to need it
    for results of one column only, so the last layer's, `e`, is padded for batches of one.) Never one column: torch would
    take the columns of a whole cohort for one long vector, and go another way through it than for a client alone.
    """
    lines = 16 // math.gcd(rows, 16)
    return max(2, -(-columns // lines) * lines)


def large_first_layer(sizes: tuple[int, ...]) -> bool:
    """Whether there is a hidden layer, and enough weights before it that keeping them implicit can pay."""
    return len(sizes) > 2 and sizes[0] * sizes[1] >= LARGE


def implicit_room(sizes: tuple[int, ...], examples: int, epochs: int) -> int:
    """For a client with so many examples: rows of its table if its first layer is kept implicit, else 0.

    SGD moves the first layer only along its inputs: after any number of steps W = W₀ - lr·DᵀX, where X are the client's
    m examples and D (m, units) sums the errors d that each of them has caused. So a step needs only X·W₀ᵀ and the inner
    products X·Xᵀ, both computed once, and it changes D, which is m / inputs as large as W. Both ways are counted in
    products an example; the new ones are fewer and larger, so the old ones are charged a quarter more.
    (The same fact, seen from the server: an update gives away the space that the client's examples span.)
    """
    inputs, units = sizes[:2]
    once, every_epoch = inputs * (2 * units + examples), units * examples
    if not large_first_layer(sizes) or once + every_epoch * epochs > 1.25 * 2 * inputs * units * epochs:
        return 0
    step = max(4, 1 << max(0, examples.bit_length() - 3))                          # from 9 on at most a quarter is padding
    return -(-examples // step) * step


class DenseEngine:
    """Trains dense networks of the given sizes on examples x (N, *features), labels y (N,).

    Its buffers live as long as it does, for fresh memory costs page faults.
    """

    def __init__(self, sizes: tuple[int, ...], x: Tensor, y: Tensor) -> None:
        if x[0].numel() != sizes[0]:
            raise ValueError(f"examples of {x[0].numel()} numbers; this model takes {sizes[0]}")
        self.sizes, self.y = sizes, y
        self.starts = [0, *accumulate(o * (i + 1) for i, o in pairwise(sizes))]    # of each layer in the flat vector
        self.x = x.new_zeros(len(x), padded(sizes[0] + 1))                         # (N, inputs + 1, padded)
        self.x[:, : sizes[0]] = x.flatten(1)
        self.x[:, sizes[0]] = 1
        self.mine = threading.local()                                              # buffers by name, of each thread

    def room(self, examples: int, epochs: int) -> int:
        """Rows for the examples of one client whose first layer stays implicit, 0 for one whose does not."""
        return implicit_room(self.sizes, examples, epochs) if large_first_layer(self.sizes) else 0

    def numbers(self, room: int) -> int:
        """Numbers that one client with an implicit first layer needs in memory."""
        inputs, units, *_ = self.sizes
        kept = sum(i * o for i, o in zip(self.sizes[1:], self.sizes[2:], strict=False))
        return room * (inputs + 2 * units + room) + kept

    def _buffer(self, name: str, *shape: int) -> Tensor:
        """(shape) of memory that is filled with what was there, the same for the same name as long as it is large enough."""
        numbers = math.prod(shape)
        buffers = self.mine.__dict__
        if name not in buffers or buffers[name].numel() < numbers:
            buffers[name] = self.x.new_zeros(numbers)
        return buffers[name][:numbers].view(shape)

    def _matrices(self, name: str, n: int, rows: int, columns: int) -> Tensor:
        """(n, rows, columns), each of which begins with a cache line."""
        return self._buffer(name, n, rows, padded(columns, rows))[:, :, :columns]

    def _layer(self, theta: Tensor, l: int) -> tuple[Tensor, Tensor]:
        """Views of layer l of the flat rows theta (n, d): weight (n, outputs, inputs) and bias (n, outputs, 1)."""
        inputs, outputs = self.sizes[l : l + 2]
        start, middle, end = self.starts[l], self.starts[l] + outputs * inputs, self.starts[l + 1]
        return theta[:, start:middle].unflatten(1, (outputs, inputs)), theta[:, middle:end].unsqueeze(2)

    def _padded(self, name: str, theta: Tensor, l: int) -> Tensor:
        """(n, outputs, padded inputs + 1): layer l of the rows theta, its bias, and zeros."""
        n = len(theta)
        W = self._buffer(f"{name}{l}", n, self.sizes[l + 1], padded(self.sizes[l] + 1))
        if theta.stride(0) == 0 and n > 1:                                         # one model for all: pad it once
            return W.copy_(self._padded("one", theta[:1], l))
        (weight, bias), inputs = self._layer(theta, l), self.sizes[l]
        W[:, :, :inputs], W[:, :, inputs : inputs + 1], W[:, :, inputs + 1 :] = weight, bias, 0
        return W

    @torch.inference_mode()
    def train(self, anchor: Tensor, plan: Plan, lr: float, out: Tensor, momentum: float = 0.0, decay: float = 0.0,
              constant: Tensor | None = None, room: int = 0, exact: bool = False,
              frozen: frozenset[int] = frozenset()) -> Tensor:
        """SGD from anchor (n, d); writes the changes to out (n, d). Returns the mean loss of each batch (S, n), in nats.

        Every step adds decay·theta + constant to the gradient; constant: (n, d), or None for nothing.
        frozen: layers, counted from 0, that stay as they are.
        room: rows for the examples of a client whose first layer is implicit (plain SGD only), or 0.
        Elementwise sums are never fused with a factor (`alpha=`): torch rounds those once in whole vector registers and
        twice in the rest, and where the rest begins depends on the company.
        The loss is read off the softmax. That ends at 87 nats, where a probability of 1e-38 becomes 0; when one does, all
        is done once more, `exact`, with a logarithm of the softmax in every step: the same changes, and the true losses.
        """
        if room and (momentum or decay or constant is not None):
            raise ValueError("an implicit first layer follows plain SGD only: no momentum, decay or constant")
        (steps, n, b), top, sizes = plan.rows.shape, len(self.sizes) - 2, self.sizes
        first = _Implicit(self, anchor, plan, lr, room) if room else None
        layers = range(1 if room else 0, top + 1)                                  # those that exist as weights
        all_W = {l: self._padded("W", anchor, l) for l in layers}
        all_V = {l: self._buffer(f"V{l}", *W.shape).zero_() for l, W in all_W.items() if momentum}     # lr·velocity
        all_c = {} if constant is None else {l: self._padded("c", constant * lr, l) for l in layers}
        all_h = {l: self._buffer(f"h{l}", n, b, padded(sizes[l] + 1)) for l in layers}  # inputs of each layer
        for l in range(1, top + 1):
            all_h[l][:, :, sizes[l]], all_h[l][:, :, sizes[l] + 1 :] = 1, 0
        all_z = {l: self._matrices(f"z{l}", n, b, sizes[l + 1]) for l in range(top)}    # results of the hidden layers
        all_d = {l: self._matrices(f"d{l}", n, b, sizes[l + 1]) for l in range(top)}    # … their errors
        all_e = self._buffer("e", n, sizes[-1], b) if b > 1 else self._matrices("e", n, sizes[-1], b)   # … the last layer's
        rows = torch.from_numpy(plan.rows).view(steps, n * b)
        weight = torch.from_numpy(plan.weight).to(anchor.dtype).view(steps, n, 1, b)
        likelihood = anchor.new_ones(steps, n, 1, b)
        logs = torch.zeros_like(likelihood) if exact else likelihood               # of the likelihoods
        all_minus_one = anchor.new_full((1,), -1.0).expand(n, 1, b)
        by_step = [x.unbind() for x in (rows, self.y[rows].view(steps, n, 1, b), weight, likelihood)]
        alive = -1
        for t, a in enumerate(plan.active):
            if a != alive:                                                         # views of the clients still at work
                W, V, c = first_clients(all_W, a), first_clients(all_V, a), first_clients(all_c, a)
                h, z, d = first_clients(all_h, a), first_clients(all_z, a), first_clients(all_d, a)
                alive, e, minus_one = a, all_e[:a], all_minus_one[:a]              # e: (a, classes, b)
                d[top] = e.transpose(1, 2)
                W_in = {l: w[:, :, : sizes[l]] for l, w in W.items()}
                units = {l: x[:, :, : sizes[l]] for l, x in h.items()}
                dT = {l: x.transpose(1, 2) for l, x in d.items()}
            batch, label, share, likely = [x[t] for x in by_step]
            if a < n:
                batch, label, share, likely = batch[: a * b], label[:a], share[:a], likely[:a]
            # forward
            if first is not None:
                torch.clamp_min(first.forward(t, a, z[0]), 0, out=units[1])
            else:
                torch.index_select(self.x, 0, batch, out=h[0].view(a * b, -1))
            for l in range(layers.start, top):
                torch.clamp_min(torch.bmm(h[l], W[l].transpose(1, 2), out=z[l]), 0, out=units[l + 1])
            torch.bmm(W[top], h[top].transpose(1, 2), out=e)
            if exact:
                torch.gather(torch.log_softmax(e, 1), 1, label, out=logs[t, :a])
            torch.softmax(e, 1, out=e)
            torch.gather(e, 1, label, out=likely)
            e.scatter_add_(1, label, minus_one).mul_(share)                        # (softmax - onehot) / batch
            # backward, and the step
            for l in reversed(layers):
                if l > 0:
                    torch.bmm(d[l], W_in[l], out=d[l - 1])
                    torch.ops.aten.threshold_backward.grad_input(d[l - 1], units[l], 0, grad_input=d[l - 1])   # ReLU's
                if l in frozen:
                    continue
                if momentum:
                    V[l].baddbmm_(dT[l], h[l], beta=momentum, alpha=lr)
                    if decay:
                        V[l].add_(torch.mul(W[l], lr * decay, out=self._buffer("decay", *W[l].shape)))
                    W[l].sub_(V[l].add_(c[l]) if c else V[l])
                else:
                    W[l].baddbmm_(dT[l], h[l], beta=1 - lr * decay, alpha=-lr)
                    if c:
                        W[l].sub_(c[l])
            if first is not None and 0 not in frozen:
                first.step(t, a, d[0])
        for l, w in all_W.items():
            (weight_out, bias_out), (weight_0, bias_0) = self._layer(out, l), self._layer(anchor, l)
            torch.sub(w[:, :, : sizes[l]], weight_0, out=weight_out)
            torch.sub(w[:, :, sizes[l], None], bias_0, out=bias_out)
        if first is not None:
            first.change(*self._layer(out, 0))
        vanished = likelihood < torch.finfo(anchor.dtype).tiny
        if vanished.any() and not exact:
            return self.train(anchor, plan, lr, out, momentum, decay, constant, room, True, frozen)
        # Only where it vanished: nobody's last digits depend on who diverges beside him. A padded place may hold -inf.
        logs = torch.where(vanished, logs, likelihood.log()).mul_(weight) if exact else likelihood.log_().mul_(weight)
        return -torch.where(weight > 0, logs, 0).sum((2, 3))


def first_clients(tensors: dict[int, Tensor], a: int) -> dict[int, Tensor]:
    """The first a clients of each layer's tensor."""
    return {l: tensor[:a] for l, tensor in tensors.items()}


class _Implicit:
    """The first layer of a cohort as W₀ - lr·DᵀX, see `implicit_room`."""

    def __init__(self, engine: DenseEngine, anchor: Tensor, plan: Plan, lr: float, room: int) -> None:
        (steps, n, b), units, columns = plan.place.shape, engine.sizes[1], engine.x.shape[1]
        table = np.repeat(plan.examples[:, :1], room, axis=1)                      # padded with a client's own first example
        table[:, : plan.examples.shape[1]] = plan.examples
        self.lr, self.place = lr, torch.from_numpy(plan.place + (np.arange(n) * room)[:, None]).view(steps, n * b)
        self.X = engine._buffer("X", n, room, columns)
        torch.index_select(engine.x, 0, torch.from_numpy(table.reshape(-1)), out=self.X.view(n * room, columns))
        (weight, bias), inputs = engine._layer(anchor, 0), engine.sizes[0]
        self.Z, self.G = engine._matrices("Z", n, room, units), engine._matrices("G", n, room, room)
        torch.bmm(self.X[:, :, :inputs], weight.transpose(1, 2), out=self.Z).add_(bias.transpose(1, 2))
        torch.bmm(self.X, self.X.transpose(1, 2), out=self.G)
        self.D = engine._matrices("D", n, room, units).zero_()
        self.g, self.z = engine._buffer("g", n, b, room), engine._buffer("z", n, b, units)

    def forward(self, t: int, a: int, out: Tensor) -> Tensor:
        """(a, b, units) of step t: X·W₀ᵀ - lr·(X·Xᵀ)·D, for the rows of the batch."""
        g, z = self.g[:a], self.z[:a]
        mine = self.place[t, : a * g.shape[1]]
        torch.index_select(self.Z.flatten(0, 1), 0, mine, out=z.view(len(mine), -1))
        torch.index_select(self.G.flatten(0, 1), 0, mine, out=g.view(len(mine), -1))
        return torch.bmm(g, self.D[:a], out=out).add_(z)

    def step(self, t: int, a: int, d: Tensor) -> None:
        """d: (a, b, units), the errors of the batch. D is kept with its factor - lr."""
        mine = self.place[t, : a * d.shape[1]]
        self.D.flatten(0, 1).index_add_(0, mine, (d * -self.lr).flatten(0, 1))

    def change(self, weight: Tensor, bias: Tensor) -> None:
        """Writes - lr·DᵀX into views of the change, (n, units, inputs) and (n, units, 1)."""
        torch.bmm(self.D.transpose(1, 2), self.X[:, :, : weight.shape[2]], out=weight)
        torch.sum(self.D, 1, out=bias.squeeze(2))
