"""User-level differential privacy as stages: clip on the client, noise on the sum, a ledger that ends the training.

    CentralDP    fresh Gaussian noise on every sum (McMahan et al. 2018, DP-FedAvg); the server is trusted with the sum
    Adaptive     lets its clip bound follow a quantile of the clients' norms (Andrew et al. 2021)
    TreeDP       noise from a binary tree, no sampling needed (Kairouz et al. 2021, DP-FTRL), in tree.py
    LocalDP      noise on every client; the server is not trusted at all, in local.py
    DPSGD        protects examples instead of clients, inside local training, in dpsgd.py

The order is law: clip each update to L2 norm C over all coordinates together, add up, add N(0, (zC)²) to the *sum*, divide
by a *public* number, the cohort m that was planned. Who dropped out, or that nobody came, changes neither noise nor
denominator nor price.

What epsilon covers: the sequence of models. It does not cover the rest of a record (training losses, drift, accuracies,
bytes, who took part), which an observer of a simulation sees and a real server must not publish. The noise is made of
floating-point numbers; see the warning in noise.py.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..core import Aggregate, ClientFailure, CompositionError, Context, Server, Update, is_whole, plain_counts, stream
from ..federation.devices import always_there
from ..federation.interfaces import Experiment, Stage
from ..federation.sampling import PoissonSelection, UniformSelection
from ..federation.schedule import Synchronous
from ..federation.stages import dense
from ..wire.payloads import numbers, on_values
from .accounting import (
    PLD,
    Accountant,
    ChosenBy,
    Event,
    FixedSizeSampled,
    Gaussian,
    Ledger,
    PoissonSampled,
)
from .books import NOT_COVERED, afford, keep_books, longest_under_way, open_ledger, rounds_left
from .mechanisms import clip, norm, positive, remaining_noise_multiplier
from .noise import NoiseSource, gaussian_noise, secure_generator
from .rules import cap_of, expected_cohort, longest_on_wire, refuse_unsound

KNOWN_COINS = ("the cohorts are drawn from the experiment's seed: the amplification in epsilon holds only against those who "
               "do not know it")


@dataclass(frozen=True)
class Adaptive:
    """The clip bound follows the `quantile` of the clients' norms: C ← C·exp(-lr·(share unclipped - quantile)).

    The share is private, too: each client sends ±1/2, the count gets noise of deviation `count_noise` (None: a twentieth
    of the cohort, as in the paper), and the updates get the rest of the budget, so that both together cost exactly the
    noise multiplier z that is claimed (Andrew et al. 2021, algorithm 1 and theorem 1).
    """

    quantile: float = 0.5
    lr: float = 0.2
    count_noise: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.quantile <= 1:
            raise ValueError(f"quantile must be in [0, 1], not {self.quantile!r}")
        positive("lr", self.lr)
        if self.lr > 10:
            raise ValueError(f"lr must be at most 10, not {self.lr!r}: a round would move the clip bound by more than exp(10)")
        if self.count_noise is not None:
            positive("count_noise", self.count_noise)

    def noise(self, cohort: int) -> float:
        """Deviation of the noise on the count, in clients."""
        return cohort / 20 if self.count_noise is None else self.count_noise

    def next_bound(self, bound: float, share: float) -> float:
        """Whatever the noise on the share is, a positive number in float32: a round moves it by exp(20) at most."""
        exponent = min(max(-self.lr * (share - self.quantile), -20.0), 20.0)
        return min(max(bound * math.exp(exponent), min(bound, 1e-30)), max(bound, 1e30))


@dataclass(frozen=True)
class CentralDP(Stage):
    """Clip every update to L2 norm `clip`, add N(0, (noise_multiplier·clip)²) to the sum, divide by the planned cohort.

    budget            epsilon at `delta` that the run may spend; the run ends *before* the round that would exceed it
    accountant        what turns releases into epsilon; PLD() is tight, RDP() the one to read
    noise_seed        None: noise that nobody can predict. A number: reproducible, and for that reason not private
    adaptive          Adaptive(…): `clip` is then only the first bound

    With weights=ByExamples(cap) client k sends n_k·delta, n_k ≤ cap: delta is clipped to `clip`, one client moves the sum
    by cap·clip at most, and the public denominator is m·cap. clip=inf is allowed without noise, to compare with.

    Before SecureSum(…, rounding="toward zero") the server still adds the noise: it is trusted with the sum, not with updates.

    The price depends on how cohorts come about (`event`): amplification only for PoissonSelection() on Synchronous
    rounds; exactly m of n, every other selector, over-selection and buffers are priced as if everybody took part.
    """

    clip: float
    noise_multiplier: float
    delta: float = 1e-5
    budget: float | None = None
    accountant: Accountant = field(default_factory=PLD)
    noise_seed: int | None = None
    adaptive: Adaptive | None = None
    noisy = True
    keeps_zeros = True

    def __post_init__(self) -> None:
        check_settings(self.clip, self.noise_multiplier, self.noise_seed)
        plain_counts(self)
        Ledger(self.budget, self.delta, self.accountant)         # refuses a bad budget or delta
        if self.adaptive is not None and not self.noise_multiplier > 0:
            raise ValueError("adaptive clipping divides the noise between updates and counts: it needs noise_multiplier > 0")

    # --- what happens to an update ------------------------------------------------------------------------------------

    def client(self, update: Update, ctx: Context) -> Update:
        cap = cap_of(ctx.experiment.weights)
        update, fits = clipped(update, self.bound(ctx.server), type(self).__name__, cap)
        if self.adaptive is None:
            return update
        return replace(update, extras={"unclipped": np.array([0.5 if fits else -0.5], dtype=np.float32)})

    def sends(self, example: Update, ctx: Context) -> Update:
        return example if self.adaptive is None else replace(example, extras={"unclipped": np.zeros(1, np.float32)})

    def doubts(self, update: Update, ctx: Context) -> str:
        if self.adaptive is None or abs(float(update.extras["unclipped"][0])) == 0.5:
            return ""
        return f"it says {update.extras['unclipped'][0]:g} about its norm, where 0.5 (fits) or -0.5 (clipped) is expected"

    def begin(self, ctx: Context) -> None:
        """BudgetSpent before anything is broadcast, if the ledger cannot pay for this round."""
        afford(self.ledger(ctx.server), self.event_now(ctx), ctx.server.version)

    def server(self, aggregate: Aggregate, ctx: Context) -> Aggregate:
        """Noise and charge in one step. A buffered step that needed no `begin` is stopped here, before its release."""
        experiment, server = ctx.experiment, ctx.server
        event, ledger, bound = self.event_now(ctx), self.ledger(server), self.bound(server)
        afford(ledger, event, server.version)
        # A buffer can hold two answers of one client: then that client moves the sum twice as far.
        times = max(Counter(ctx.arrived).values(), default=1)
        cap, cohort = cap_of(experiment.weights), expected_cohort(experiment)
        longest = longest_under_way(ctx, longest_on_wire(self, experiment, cap * bound))
        sensitivity = times * longest
        rng, multiplier = self.source(server.version), self.update_multiplier(experiment)
        total = noised(aggregate.total, multiplier, sensitivity, rng)
        if self.adaptive is not None:
            halves = float(np.sum(aggregate.extras.get("unclipped", 0.0))) * len(ctx.arrived)      # the mean was taken
            deviation = self.adaptive.noise(cohort)
            share = (halves + float(gaussian_noise(1, deviation, rng)[0])) / cohort + 0.5
            ctx.broadcast["clip"] = np.array([self.adaptive.next_bound(bound, share)], dtype=np.float32)
        charged = ledger.charge(event)
        keep_books(self, ctx, charged, lambda: rounds_left(charged, self.event(experiment)), longest)
        ctx.meter.notes["clip"] = bound
        ctx.meter.notes["noise_std"] = multiplier * sensitivity / (cohort * cap) if multiplier else 0.0      # on the mean
        if isinstance(event, PoissonSampled) and NOT_COVERED in ctx.meter.events:
            ctx.meter.events.append(KNOWN_COINS)
        return Aggregate(total, float(cohort * cap))

    # --- what it knows ------------------------------------------------------------------------------------------------

    def bound(self, server: Server) -> float:
        """The clip bound of this version, the same on both sides: broadcast if it adapts."""
        adapted = server.extras.get("clip") if self.adaptive is not None else None
        return self.clip if adapted is None else float(adapted[0])

    def update_multiplier(self, experiment: Experiment) -> float:
        """What of the noise multiplier is left for the updates, when the counts have had their share."""
        if self.adaptive is None:
            return self.noise_multiplier
        other = 2 * self.adaptive.noise(expected_cohort(experiment))       # ±1/2 has sensitivity 1/2
        return remaining_noise_multiplier(self.noise_multiplier, other)

    def event(self, experiment: Experiment) -> Event:
        """What one round of this experiment releases, for an accountant."""
        return as_sampled(experiment, Gaussian(float(self.noise_multiplier)))

    def event_now(self, ctx: Context) -> Event:
        """What this round releases. While clients are under way for an earlier experiment, they are in this sum without a
        coin, and the coins of the others are not those that were planned."""
        event = self.event(ctx.experiment)
        if ctx.session.get("under way") and isinstance(event, PoissonSampled):
            return ChosenBy("clients that were under way before", event.event)
        return event

    def ledger(self, server: Server) -> Ledger:
        """What has been released up to this server, whatever stage did it."""
        return open_ledger(Ledger(self.budget, self.delta, self.accountant), server.state, server.version)

    def source(self, version: int) -> NoiseSource:
        return secure_generator() if self.noise_seed is None else stream(self.noise_seed, "central noise", version)

    def check(self, experiment: Experiment) -> None:
        refuse_unsound(self, experiment)
        Ledger(self.budget, self.delta, self.accountant).charge(self.event(experiment))    # refuses what it cannot price
        if self.adaptive is None:
            return
        if not isinstance(experiment.schedule, Synchronous):
            raise CompositionError(
                "an adaptive clip bound changes with every version, and a buffered answer was clipped to an older one, "
                "which the noise of today may not cover; use Synchronous(…), or a fixed clip."
            )
        if any(stage.masks for stage in experiment.pipeline):
            raise CompositionError(
                "adaptive clipping sends a bit beside the update, which the masks do not cover; use a fixed clip."
            )
        if 2 * self.adaptive.noise(expected_cohort(experiment)) <= self.noise_multiplier:
            raise CompositionError(
                f"noise of deviation {self.adaptive.noise(expected_cohort(experiment)):g} on the count of unclipped clients "
                f"alone costs more than noise_multiplier={self.noise_multiplier:g} in all; give it more than "
                f"{self.noise_multiplier / 2:g}: Adaptive(count_noise=…), or a larger cohort."
            )


# --- shared by the private stages -------------------------------------------------------------------------------------


def check_settings(bound: float, noise_multiplier: float, noise_seed: int | None) -> None:
    if not (noise_multiplier >= 0 and math.isfinite(noise_multiplier)):
        raise ValueError(f"noise_multiplier must be 0 or more and finite, not {noise_multiplier!r}")
    if not bound > 0:
        raise ValueError(f"clip must be above 0, not {bound!r}")
    if math.isinf(bound) and noise_multiplier > 0:
        raise ValueError("without a clip bound one client can move the sum without limit, and no noise covers that: give clip")
    if noise_seed is not None and not is_whole(noise_seed, 0):
        raise ValueError(f"noise_seed must be None or a whole number from 0, not {noise_seed!r}")


def clipped(update: Update, bound: float, name: str, cap: float, order: int = 2) -> tuple[Update, bool]:
    """The update clipped to weight·bound, and whether it fitted already. Whatever travels beside it is refused.

    cap: the largest weight, the number that the sensitivity is made of; a client that weighs more is refused.
    """
    if not 0 <= update.weight <= cap:
        raise CompositionError(
            f"client {update.client!r} weighs {update.weight:g}, but the noise of {name} is scaled to weights from 0 to {cap:g}; "
            "weighting belongs into weights=…, and what it hands out must stay within its bound."
        )
    if update.extras:
        raise CompositionError(
            f"{', '.join(update.extras)} would leave beside the update, where {name} adds no noise; use a method that sends the "
            "update alone, such as FedProx, or leave the stage out that sends more."
        )
    values = getattr(update.delta, "values", update.delta)
    if not np.isfinite(dense(values, name)).all():
        raise ClientFailure(f"{name} was given NaN or infinite values, which have no norm")
    limit = bound * update.weight
    short = on_values(update.delta, lambda values: clip(values, limit, order) if limit > 0 else np.zeros_like(values))
    return replace(update, delta=short), norm(values, order) <= limit


def noised(total: Any, noise_multiplier: float, sensitivity: float, rng: NoiseSource) -> np.ndarray:
    """total (d,) + N(0, (noise_multiplier·sensitivity)²), in float64; without noise equal to the bit."""
    values = np.asarray(numbers(total), dtype=np.float64)
    return values + gaussian_noise(values.shape, noise_multiplier * sensitivity, rng) if noise_multiplier else values


def as_sampled(experiment: Experiment, release: Event) -> Event:
    """The release on a cohort as this experiment draws it. Only what the accountants have a theorem for is amplified."""
    schedule, selection, clients = experiment.schedule, experiment.selection, len(experiment.clients)
    # A subclass may start or choose in another way, whatever it inherits: the theorems are about these very classes.
    if not always_there(experiment.fleet):                                # of fewer, each is in the cohort more often
        return ChosenBy(f"{type(experiment.fleet).__name__}: who is there to be asked", release)
    if type(schedule) is Synchronous and not schedule.over_selection:
        if type(selection) is PoissonSelection:
            return PoissonSampled(schedule.goal(clients) / clients, release)
        if type(selection) is UniformSelection:
            return FixedSizeSampled(schedule.goal(clients), clients, release)
        return ChosenBy(type(selection).__name__, release)
    return ChosenBy(f"{type(selection).__name__}, {type(schedule).__name__}: who is fast enough", release)
