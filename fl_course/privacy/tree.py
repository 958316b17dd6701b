"""DP-FTRL: correlated noise from a binary tree, for when nobody can be sampled (Kairouz et al. 2021).

Fresh noise in T rounds adds up to a deviation of sqrt(T) on the model; a tree's to sqrt(log2 T), with more noise on each
node. No amplification is claimed, so any order of arrival will do, as long as each client takes part only a few times.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field, replace

from ..core import Aggregate, ClientFailure, Context, Server, Update
from ..federation.interfaces import Experiment, Stage
from ..wire.payloads import numbers
from .accounting import PLD, Accountant, Event, Ledger, TreeAggregation
from .central import afford, check_settings, clipped, keep_books, open_ledger
from .noise import secret_nodes, seeded_nodes, tree_noise
from .rules import cap_of, expected_cohort, longest_on_wire, refuse_unsound


@dataclass(frozen=True)
class TreeDP(Stage):
    """Clip to `clip`; noise of deviation noise_multiplier·clip on every node of the tree over rounds.

    Step t adds tree_noise(t) - tree_noise(t - 1) to the sum, so the model after t steps carries the noise of at most
    log2(t) + 1 nodes. A client answers in at most `participations` rounds, and counts them in its drawer. Without a
    noise seed the tree grows from 32 secret bytes in the server's state; a checkpoint that holds them is a secret.
    """

    clip: float
    noise_multiplier: float
    participations: int = 1
    delta: float = 1e-5
    budget: float | None = None
    accountant: Accountant = field(default_factory=PLD)
    noise_seed: int | None = None
    noisy = True

    def __post_init__(self) -> None:
        check_settings(self.clip, self.noise_multiplier, self.noise_seed)
        Ledger(self.budget, self.delta, self.accountant).charge(self.event(1))

    def event(self, steps: int) -> Event:
        """All `steps` prefix sums together, as one release."""
        return TreeAggregation(float(self.noise_multiplier), steps, self.participations)

    def client(self, update: Update, ctx: Context) -> Update:
        times = ctx.memory.get("tree participations", 0) + 1
        if times > self.participations:
            raise ClientFailure(f"it has taken part {self.participations} times, which is all that its privacy allows")
        ctx.memory["tree participations"] = times
        return clipped(update, self.clip, "TreeDP")[0]

    def begin(self, ctx: Context) -> None:
        afford(self.past(ctx.server), self.event(ctx.server.version + 1), ctx.server.version)

    def server(self, aggregate: Aggregate, ctx: Context) -> Aggregate:
        step, cap = ctx.server.version + 1, cap_of(ctx.experiment.weights)
        event, ledger = self.event(step), self.past(ctx.server)
        afford(ledger, event, ctx.server.version)
        if self.noise_seed is None:
            key = ctx.server.state.get("tree key") or secrets.token_bytes(32)
            ctx.state["tree key"] = key
            nodes = secret_nodes(key)
        else:
            nodes = seeded_nodes(self.noise_seed)
        total = numbers(aggregate.total).astype("float64")
        if self.noise_multiplier:
            sigma = self.noise_multiplier * longest_on_wire(self, ctx.experiment, cap * self.clip)
            total = total + tree_noise(step, total.shape, sigma, nodes) - tree_noise(step - 1, total.shape, sigma, nodes)
        keep_books(self, ctx, ledger.charge(event), lambda: self.steps_allowed(ledger) - step)
        return Aggregate(total, expected_cohort(ctx.experiment) * cap)

    def past(self, server: Server) -> Ledger:
        """What was released *beside* the tree, whose price is that of all its steps together."""
        ledger = open_ledger(Ledger(self.budget, self.delta, self.accountant), server.state, server.version)
        return replace(ledger, events=tuple((e, n) for e, n in ledger.events if not isinstance(e, TreeAggregation)))

    def steps_allowed(self, ledger: Ledger, most_levels: int = 40) -> int:
        """The largest T whose tree the budget pays for: a step costs nothing, until the tree grows a level."""
        levels = 0
        while levels < most_levels and ledger.can_afford(self.event(2**levels)):
            levels += 1
        return 2**levels - 1

    def check(self, experiment: Experiment) -> None:
        refuse_unsound(self, experiment)
