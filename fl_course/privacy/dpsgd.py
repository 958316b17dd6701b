"""DP-SGD (Abadi et al. 2016): protect each *example* of a client, inside its local training.

    LocalSGD(lr=0.1, batch_size=16, private=DPSGD(clip=1.0, noise_multiplier=1.1))

Every step clips each example's own gradient to L2 norm C, adds them up, adds N(0, (zC)²), and divides by the batch size
that was planned. What a client sends is then private by itself, and so is every model made of it: the unit is the example,
not the client. A client with a thousand similar examples still shows what they have in common.

Per-example gradients are exact. For `Dense` models they never exist: the gradient of example i in a layer is the outer
product of its error delta_i and its input h_i, whose squared norm is ‖delta_i‖²·(‖h_i‖² + 1) (Goodfellow 2015; "ghost
clipping", Li et al. 2022), so one weighted matrix product gives the clipped sum. Other models pay with a row for each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..core import ClientFailure, CompositionError, Context, Task, Update, plain_counts, stream
from ..engine.batches import client_keys, plan_batches, round_key, splitmix
from ..engine.models import Dense, Model, gradients, is_softmax_network
from ..engine.training import Trainer
from ..federation.interfaces import Experiment, PrivateTraining
from .accounting import RDP, Accountant, Event, Gaussian, Ledger, PoissonSampled, Repeated
from .books import keep_own, own_ledger, spent, tell_known_seed
from .central import check_settings
from .noise import gaussian_noise, secure_generator


@dataclass(frozen=True)
class DPSGD(PrivateTraining):
    """Give it to LocalSGD(private=…). A client makes epochs·ceil(n/B) steps in a round, B the batch size, n its examples.

    sampling "poisson": every example is in a batch by its own coin, B/n, which the price amplifies. "shuffle": the fixed
    batches of plain LocalSGD; each example is in one batch an epoch, so an epoch costs one Gaussian release for everybody
    together. Each client keeps its own ledger in its drawer, and drops out when its budget is spent. Its epsilon travels
    in its report, `history.state.reports[client]["epsilon"]`; its losses do not, for they have no noise.
    """

    clip: float
    noise_multiplier: float
    sampling: str = "poisson"
    delta: float = 1e-5
    budget: float | None = None
    accountant: Accountant = field(default_factory=RDP)          # every size of client is another event: PLD takes longer
    noise_seed: int | None = None

    def __post_init__(self) -> None:
        check_settings(self.clip, self.noise_multiplier, self.noise_seed)
        plain_counts(self)
        if self.sampling not in ("poisson", "shuffle"):
            raise ValueError(f"sampling must be 'poisson' or 'shuffle', not {self.sampling!r}")
        Ledger(self.budget, self.delta, self.accountant).charge(self.event(8, 4, 1))

    def event(self, examples: int, batch: int, epochs: int) -> Event:
        """What one round of a client with so many examples releases about each of them."""
        release = Gaussian(float(self.noise_multiplier))
        if self.sampling == "shuffle":
            return Repeated(release, epochs)
        return Repeated(PoissonSampled(batch / examples, release), epochs * -(-examples // batch))

    def begin(self, ctx: Context) -> None:
        tell_known_seed(ctx, self.noise_seed is not None)

    def train(self, tasks: Sequence[Task], trainer: Trainer) -> list[Update]:
        """The tasks one after the other. ClientFailure if one of them cannot afford its round."""
        return [self.train_one(task, trainer) for task in tasks]

    def train_one(self, task: Task, trainer: Trainer) -> Update:
        how, mine = trainer.how, trainer.data.train[trainer.data.position(task.client)]
        n, epochs = len(mine), how.epochs_of(task)
        if not n:
            raise ValueError(f"client {task.client!r} has no training examples, so it cannot be asked to train")
        batch = min(n, how.batch_size or n)
        event = self.event(n, batch, epochs)
        ledger = own_ledger(Ledger(self.budget, self.delta, self.accountant), task.memory, "examples")
        if not ledger.can_afford(event):
            raise ClientFailure(f"for its examples {spent(ledger, event)}")
        words = ("dpsgd", task.server.version, task.client)
        rng = secure_generator() if self.noise_seed is None else stream(self.noise_seed, *words)
        if self.sampling == "shuffle":
            keys = splitmix(client_keys([task.client]) ^ round_key(task.seed, task.server.version))
            plan = plan_batches([mine], keys, np.array([epochs]), batch)
            batches = [plan.rows[t, 0, : plan.count[t, 0]] for t in range(int(plan.steps[0]))]
        else:
            batches = [mine[rng.random(n) * n < batch] for _ in range(epochs * -(-n // batch))]
        anchor = torch.tensor(task.server.params, device=trainer.device)
        theta, lr = anchor.clone(), how.lr_at(task.server.version)
        for rows in batches:
            total = clipped_sum(trainer.model, theta, trainer.x[rows], trainer.y[rows], self.clip)
            if self.noise_multiplier:
                noise = gaussian_noise(theta.shape[0], self.noise_multiplier * self.clip, rng)
                total = total + torch.from_numpy(noise).to(total.dtype).to(total.device)
            # A public number again: the planned batch, or the size of this fixed one.
            planned = batch if self.sampling == "poisson" else len(rows)
            theta = theta - lr * (total / planned + how.weight_decay * theta)
        ledger = ledger.charge(event)
        keep_own(task.memory, "examples", ledger)
        metrics = {"examples": float(n), "steps": float(len(batches)), "epsilon": ledger.spent()}
        return Update(task.client, task.server.version, (theta - anchor).cpu().numpy(), 1.0, {}, metrics)

    def check(self, experiment: Experiment) -> None:
        training = experiment.training
        if training.correction is not None or training.momentum:
            raise CompositionError(
                "DPSGD is plain SGD: corrections and momentum may use gradients that have no noise; use LocalSGD(…, "
                "private=DPSGD(…)) without them."
            )


# --- the sum of clipped per-example gradients ---------------------------------------------------------------------------


def clipped_sum(model: Model, theta: Tensor, x: Tensor, y: Tensor, bound: float) -> Tensor:
    """(d,): the gradients of the b examples x (b, *features), y (b,), each scaled down to L2 norm `bound`, summed."""
    if not len(x):
        return torch.zeros_like(theta)
    if isinstance(model, Dense) and is_softmax_network(model):
        return _ghost(model, theta, x, y, bound)
    grads = example_gradients(model, theta, x, y)                # (b, d)
    return _factors(grads.double().norm(dim=1), bound).to(grads.dtype) @ grads


def example_gradients(model: Model, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """(b, d): every example is a client of its own, with the same model; one backward pass, see models.py."""
    rows = theta.detach().expand(len(x), -1)
    layers = {name: view.contiguous().requires_grad_() for name, view in model.layers(rows).items()}
    losses = model.losses(layers, x.unsqueeze(1), y.unsqueeze(1))
    return torch.cat([g.reshape(len(x), -1) for g in gradients(losses.sum(), list(layers.values()))], dim=1)


def _factors(norms: Tensor, bound: float) -> Tensor:
    """min(1, bound / norm); a hair less where it clips, which pays for rounding in float32."""
    return torch.where(norms <= bound, torch.ones_like(norms), bound * (1 - 1e-6) / norms)


@torch.no_grad()
def _ghost(model: Dense, theta: Tensor, x: Tensor, y: Tensor, bound: float) -> Tensor:
    layers = {name: view[0] for name, view in model.layers(theta.unsqueeze(0)).items()}
    depth = len(model.sizes) - 1
    inputs = [x.flatten(1)]                                      # h_l: (b, inputs of layer l)
    for l in range(depth):
        out = F.linear(inputs[l], layers[f"dense{l}.weight"], layers[f"dense{l}.bias"])
        inputs.append(out.relu() if l < depth - 1 else out)
    error = torch.softmax(inputs[-1], 1) - F.one_hot(y, model.sizes[-1]).to(theta.dtype)
    errors = [error]                                             # delta_l: (b, outputs of layer l), last layer first
    for l in range(depth - 1, 0, -1):
        error = (error @ layers[f"dense{l}.weight"]) * (inputs[l] > 0)
        errors.append(error)
    errors.reverse()
    pairs = list(zip(errors, inputs, strict=False))
    squares = sum((e.double() ** 2).sum(1) * ((h.double() ** 2).sum(1) + 1) for e, h in pairs)
    factor = _factors(torch.as_tensor(squares, device=theta.device).sqrt(), bound).to(theta.dtype).unsqueeze(1)
    parts = []
    for e, h in pairs:
        scaled = e * factor
        parts += [(scaled.T @ h).flatten(), scaled.sum(0)]
    return torch.cat(parts)
