"""DP-FTRL: correlated noise from a binary tree, for when nobody can be sampled (Kairouz et al. 2021).

Fresh noise in T rounds adds up to a deviation of sqrt(T) on the model; a tree's to sqrt(log2 T), with more noise on each
node. No amplification is claimed, so any order of arrival will do, as long as each client takes part only a few times.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from ..core import Aggregate, ClientFailure, Context, Update, plain_counts
from ..federation.interfaces import Experiment, Stage
from ..wire.payloads import numbers
from .accounting import PLD, Accountant, Event, Ledger, TreeAggregation
from .books import afford, keep_books, longest_under_way, open_ledger
from .central import check_settings, clipped
from .noise import NoiseSource, next_keys, secret_nodes, seeded_nodes, tree_noise
from .rules import cap_of, expected_cohort, longest_on_wire, refuse_unsound


@dataclass(frozen=True)
class Tree:
    """A tree as far as it has grown, in server.state["tree"]: whose it is, when it began, and the keys of its nodes."""

    settings: tuple[float | None, ...]          # two stages with other settings never share a tree
    began: int                                  # the version before its first step
    steps: int = 0
    keys: tuple[bytes, ...] = ()                # secrets of tree_nodes(steps); none if the noise has a seed

    def grown(self, secret: bool) -> Tree:
        return replace(self, steps=self.steps + 1, keys=tuple(next_keys(self.keys, self.steps + 1)) if secret else ())

    def nodes(self, seed: int | None) -> Callable[[int, int], NoiseSource]:
        if seed is None:
            return secret_nodes(self.keys, self.steps)
        return seeded_nodes(seed, self.began) if self.began else seeded_nodes(seed)

    def to_plain(self) -> dict[str, Any]:
        return {"settings": list(self.settings), "began": self.began, "steps": self.steps, "keys": list(self.keys)}


@dataclass(frozen=True)
class TreeDP(Stage):
    """Clip to `clip`; noise of deviation noise_multiplier·clip on every node of the tree over rounds.

    Step t adds tree_noise(t) - tree_noise(t - 1) to the sum, so the model after t steps carries the noise of at most
    log2(t) + 1 nodes. A client answers in at most `participations` rounds, and counts them in its drawer.

    A run that goes on from the state of the same TreeDP continues its tree; after any other round, or with another clip,
    noise or number of participations, a new tree begins beside the old one, which stays in the ledger. Without a noise seed
    each node has a secret key, drawn when the node is first released: a checkpoint that holds them is a secret, and two runs
    that go on from it share the past, but no noise that is still to come (see noise.next_keys). With a seed they share
    all of it, bit for bit, and are not private.
    """

    clip: float
    noise_multiplier: float
    participations: int = 1
    delta: float = 1e-5
    budget: float | None = None
    accountant: Accountant = field(default_factory=PLD)
    noise_seed: int | None = None
    noisy = True
    keeps_zeros = True

    def __post_init__(self) -> None:
        check_settings(self.clip, self.noise_multiplier, self.noise_seed)
        plain_counts(self)
        Ledger(self.budget, self.delta, self.accountant).charge(self.event(1))

    def event(self, steps: int) -> Event:
        """All `steps` prefix sums together, as one release."""
        return TreeAggregation(float(self.noise_multiplier), steps, self.participations)

    def client(self, update: Update, ctx: Context) -> Update:
        books = ctx.memory.get("books", {})
        times = books.get("tree participations", 0) + 1
        if times > self.participations:
            raise ClientFailure(f"it has taken part {self.participations} times, which is all that its privacy allows")
        ctx.memory["books"] = {**books, "tree participations": times}
        return clipped(update, self.clip, "TreeDP", cap_of(ctx.experiment.weights))[0]

    def begin(self, ctx: Context) -> None:
        tree = self.living(ctx)
        afford(self.past(ctx, tree), self.event(tree.steps + 1), ctx.server.version)

    def server(self, aggregate: Aggregate, ctx: Context) -> Aggregate:
        before, cap = self.living(ctx), cap_of(ctx.experiment.weights)
        after, ledger = before.grown(secret=self.noise_seed is None), self.past(ctx, before)
        event = self.event(after.steps)
        afford(ledger, event, ctx.server.version)
        total, longest = numbers(aggregate.total).astype("float64"), self.longest(ctx)
        if self.noise_multiplier:
            sigma, seed, shape = self.noise_multiplier * longest, self.noise_seed, total.shape
            total = total + tree_noise(after.steps, shape, sigma, after.nodes(seed))
            total = total - tree_noise(before.steps, shape, sigma, before.nodes(seed))
        ctx.state["tree"] = after.to_plain()
        keep_books(self, ctx, ledger.charge(event), lambda: self.steps_allowed(ledger) - after.steps, longest)
        return Aggregate(total, expected_cohort(ctx.experiment) * cap)

    def longest(self, ctx: Context) -> float:
        """L2: how far one answer moves the sum."""
        bound = cap_of(ctx.experiment.weights) * self.clip
        return longest_under_way(ctx, longest_on_wire(self, ctx.experiment, bound))

    def living(self, ctx: Context) -> Tree:
        """The tree that this round continues: the state's, if it is this stage's own and the last round was its last step."""
        settings = (self.noise_multiplier, self.participations, self.longest(ctx), self.noise_seed)
        plain, version = ctx.server.state.get("tree"), ctx.server.version
        if plain and plain["began"] + plain["steps"] == version and tuple(plain["settings"]) == settings:
            return Tree(settings, plain["began"], plain["steps"], tuple(plain["keys"]))
        return Tree(settings, version)

    def past(self, ctx: Context, tree: Tree) -> Ledger:
        """What was released *beside* this tree, whose price is that of all its steps together."""
        ledger = open_ledger(Ledger(self.budget, self.delta, self.accountant), ctx.server.state, ctx.server.version)
        if not tree.steps:
            return ledger
        counts = dict(ledger.events)
        counts[self.event(tree.steps)] -= 1                      # an earlier tree may have ended with the very same event
        return replace(ledger, events=tuple((event, count) for event, count in counts.items() if count))

    def steps_allowed(self, ledger: Ledger, most_levels: int = 40) -> int:
        """The largest T whose tree the budget pays for; `ledger` is without it. A step is free until a level grows."""
        levels = 0
        while levels < most_levels and ledger.can_afford(self.event(2**levels)):
            levels += 1
        return 2**levels - 1

    def check(self, experiment: Experiment) -> None:
        refuse_unsound(self, experiment)
