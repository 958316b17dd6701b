"""Local differential privacy: every client adds noise to its own update, and trusts nobody.

The price is accuracy: the sum of m clients carries m noises, so its noise is sqrt(m) times that of CentralDP at the same
noise multiplier; and the neighbours are any two data sets of the same client, who moves its message by *two* clip bounds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from ..core import Aggregate, ClientFailure, CompositionError, Context, Update, stream
from ..federation.interfaces import Experiment, Stage
from ..federation.stages import ByExamples, dense
from .accounting import PLD, Accountant, Event, Gaussian, Laplace, Ledger
from .central import KNOWN_SEED, check_settings, clipped, open_ledger, spent
from .noise import gaussian_noise, laplace_noise, secure_generator
from .rules import refuse_side_channels


@dataclass(frozen=True)
class LocalDP(Stage):
    """Clip to norm `clip` and add noise to every coordinate, on the client, before anything leaves it.

    mechanism "gaussian": L2 clip, N(0, (noise_multiplier·clip)²). "laplace": **L1** clip, Laplace noise of scale
    noise_multiplier·clip, and delta = 0 in truth. Each client keeps its own ledger in its drawer, refuses to answer when
    its budget is spent, and leaves losses and counts out of its message. Sampling earns nothing: the server sees who
    speaks. The metric "epsilon" is the largest that any client has spent.
    """

    clip: float
    noise_multiplier: float
    mechanism: str = "gaussian"
    delta: float = 1e-5
    budget: float | None = None
    accountant: Accountant = field(default_factory=PLD)
    noise_seed: int | None = None

    def __post_init__(self) -> None:
        check_settings(self.clip, self.noise_multiplier, self.noise_seed)
        if self.mechanism not in ("gaussian", "laplace"):
            raise ValueError(f"mechanism must be 'gaussian' or 'laplace', not {self.mechanism!r}")
        Ledger(self.budget, self.delta, self.accountant).charge(self.event)

    @property
    def event(self) -> Event:
        """One message, for any two data sets of its sender."""
        kind = Gaussian if self.mechanism == "gaussian" else Laplace
        return kind(float(self.noise_multiplier), "replace-one")

    def client(self, update: Update, ctx: Context) -> Update:
        ledger = open_ledger(Ledger(self.budget, self.delta, self.accountant), ctx.memory)
        if not ledger.can_afford(self.event):
            raise ClientFailure(spent(ledger, self.event))
        update, _ = clipped(update, self.clip, "LocalDP", order=2 if self.mechanism == "gaussian" else 1)
        version = update.version
        rng = secure_generator() if self.noise_seed is None else stream(self.noise_seed, "local noise", version, update.client)
        draw = gaussian_noise if self.mechanism == "gaussian" else laplace_noise
        scale = self.noise_multiplier * self.clip if self.noise_multiplier else 0.0
        noisy = dense(update.delta, "LocalDP")
        if scale:
            noisy = (noisy + draw(noisy.shape, scale, rng)).astype(noisy.dtype)
        ledger = ledger.charge(self.event)
        ctx.memory["ledger"] = ledger.to_plain()                 # released if and only if charged: see `check`
        ctx.meter.notes["epsilon"] = max(ctx.meter.notes.get("epsilon", 0.0), ledger.spent())
        return replace(update, delta=noisy, metrics={})          # losses and counts are data, too

    def server(self, aggregate: Aggregate, ctx: Context) -> Aggregate:
        """Nothing to do but to report: no client has spent more than this."""
        most = max(ctx.meter.notes.get("epsilon", 0.0), ctx.server.state.get("local epsilon", 0.0))
        ctx.state["local epsilon"] = most
        ctx.meter.notes |= {"epsilon": most, "delta": self.delta}
        if self.noise_seed is not None:
            ctx.meter.notes["not_private"] = 1.0
            if ctx.server.version == 0:
                ctx.meter.events.append(KNOWN_SEED)
        return aggregate

    def check(self, experiment: Experiment) -> None:
        if isinstance(experiment.weights, ByExamples):
            raise CompositionError(
                "ByExamples tells the server how many examples each client has, without noise; use weights=Uniform() under "
                "LocalDP."
            )
        refuse_side_channels("LocalDP", experiment)
        refuse_lost_answers("LocalDP", experiment)
        place = next(i for i, stage in enumerate(experiment.pipeline) if stage is self)
        for earlier in experiment.pipeline[:place]:
            if getattr(earlier, "picks", False) or getattr(earlier, "quantises", False):
                raise CompositionError(
                    f"{type(earlier).__name__} before LocalDP: which numbers were kept depends on the data and would travel "
                    "without noise; put it after LocalDP."
                )
        for later in experiment.pipeline[place + 1 :]:
            if type(later).client is not Stage.client and not hasattr(later, "lengthens") and not later.masks:
                raise CompositionError(
                    f"{type(later).__name__} after LocalDP could send what has no noise; put it before LocalDP. Only "
                    "compression and masks, which see nothing but the noisy numbers, may come after."
                )


def refuse_lost_answers(name: str, experiment: Experiment) -> None:
    """A client's drawer is kept when its answer is heard; an answer that was sent and ignored would be forgotten."""
    schedule = experiment.schedule
    thrown = {"over_selection": getattr(schedule, "over_selection", 0) > 0, "deadline": schedule.deadline < math.inf,
              "max_staleness": schedule.max_staleness is not None}
    if any(thrown.values()):
        what = next(word for word, is_set in thrown.items() if is_set)
        raise CompositionError(
            f"{what} throws away answers that were already sent, and a client that is not heard would forget in its ledger "
            f"what it has released; {name} needs a schedule without {what}."
        )
