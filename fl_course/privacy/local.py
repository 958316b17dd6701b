"""Local differential privacy: every client adds noise to its own update, and trusts nobody.

The price is accuracy: the sum of m clients carries m noises, so its noise is sqrt(m) times that of CentralDP at the same
noise multiplier; and the neighbours are any two data sets of the same client, who moves its message by *two* clip bounds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from ..core import Aggregate, ClientFailure, CompositionError, Context, Update, plain_counts, stream
from ..federation.interfaces import Experiment, Stage
from ..federation.stages import ByExamples, dense
from .accounting import PLD, Accountant, Event, Gaussian, Laplace, Ledger
from .books import keep_own, own_ledger, spent, tell_known_seed
from .central import check_settings, clipped
from .noise import gaussian_noise, laplace_noise, secure_generator
from .rules import cap_of, refuse_side_channels


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
    shields = True
    says = ("local epsilon",)
    keeps_zeros = True                                           # noise around them

    def __post_init__(self) -> None:
        check_settings(self.clip, self.noise_multiplier, self.noise_seed)
        plain_counts(self)
        if self.mechanism not in ("gaussian", "laplace"):
            raise ValueError(f"mechanism must be 'gaussian' or 'laplace', not {self.mechanism!r}")
        Ledger(self.budget, self.delta, self.accountant).charge(self.event)

    @property
    def event(self) -> Event:
        """One message, for any two data sets of its sender."""
        kind = Gaussian if self.mechanism == "gaussian" else Laplace
        return kind(float(self.noise_multiplier), "replace-one")

    def begin(self, ctx: Context) -> None:
        self._note(ctx)

    def client(self, update: Update, ctx: Context) -> Update:
        ledger = own_ledger(Ledger(self.budget, self.delta, self.accountant), ctx.memory, "messages")
        if not ledger.can_afford(self.event):
            raise ClientFailure(spent(ledger, self.event))
        update, _ = clipped(update, self.clip, "LocalDP", 1.0, order=2 if self.mechanism == "gaussian" else 1)
        version = update.version
        rng = secure_generator() if self.noise_seed is None else stream(self.noise_seed, "local noise", version, update.client)
        draw = gaussian_noise if self.mechanism == "gaussian" else laplace_noise
        scale = self.noise_multiplier * self.clip if self.noise_multiplier else 0.0
        noisy = dense(update.delta, "LocalDP")
        if scale:
            noisy = (noisy + draw(noisy.shape, scale, rng)).astype(noisy.dtype)
        ledger = ledger.charge(self.event)
        keep_own(ctx.memory, "messages", ledger)
        ctx.state["local epsilon"] = max(ctx.state.get("local epsilon", 0.0), ledger.spent())
        ctx.meter.notes["epsilon"] = ctx.state["local epsilon"]
        return replace(update, delta=noisy, metrics={})          # losses and counts are data, too

    def server(self, aggregate: Aggregate, ctx: Context) -> Aggregate:
        """Nothing to do but to report: no client has spent more than this."""
        self._note(ctx)
        ctx.meter.notes.update({"epsilon": ctx.state["local epsilon"], "delta": self.delta})
        return aggregate

    def _note(self, ctx: Context) -> None:
        """The largest epsilon so far; infinite if there were rounds without this noise, which somebody answered in clear."""
        before, version = ctx.server.state, ctx.server.version
        most = before.get("local epsilon", 0.0) if before.get("local version", 0) == version else math.inf
        ctx.state["local epsilon"] = max(ctx.state.get("local epsilon", 0.0), most)
        ctx.state["local version"] = version + 1
        tell_known_seed(ctx, self.noise_seed is not None)

    def check(self, experiment: Experiment) -> None:
        if isinstance(experiment.weights, ByExamples):
            raise CompositionError(
                "ByExamples tells the server how many examples each client has, without noise; use weights=Uniform() under "
                "LocalDP."
            )
        if cap_of(experiment.weights) != 1:
            raise CompositionError(
                f"the noise of LocalDP is scaled to updates that count once, and {experiment.weights!r} makes them count up to "
                f"{cap_of(experiment.weights):g}; use weights=Uniform()."
            )
        refuse_side_channels("LocalDP", experiment)
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
