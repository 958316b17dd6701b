"""`SecureSum`: secure aggregation as one stage of the training loop. Grid, masks and the sum are one frozen object.

    begin    the cohort exchanges keys and shares            Round.open
    client   update -> integers on the grid -> masked        Round.upload
    server   sum of what arrived -> consistency, unmasking -> sum of the updates        Round.close

    Coordinator(…, weights=Uniform(), stages=[SecureSum(clip=0.1)])
    Coordinator(…, stages=[SecureSum(clip=0.1, max_weight=60)])          weighted by examples, the weights masked too

Only bytes of messages that were really encoded are counted: "update" is the masked vector; "keys", "shares",
"consistency" and "unmask" are the rest of the protocol. All of one round lives in ctx.session and is never saved.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..core import Aggregate, ClientFailure, ClientId, CompositionError, Context, Server, Update, Vector, fingerprint
from ..federation.interfaces import Experiment, Stage
from ..federation.stages import ByExamples, dense
from ..wire.masked import Masked
from ..wire.messages import decode_model, encode_model
from .distributed import DistributedNoise
from .graph import ROUND_ID_BYTES, Setup
from .grid import FixedPointGrid
from .masking import insecure_random
from .messages import SERVER, decode_masked
from .rounds import Round, new_round_id

KEY = "secure sum"                                       # of the round in ctx.session
PURPOSES = {
    "secagg-advertise": "keys", "secagg-roster": "keys", "secagg-shares": "shares", "secagg-inbox": "shares",
    "secagg-survivors": "consistency", "secagg-consistent": "consistency", "secagg-unmask": "unmask",
    "secagg-unmasked": "unmask",
}  # fmt: skip


@dataclass(frozen=True)
class SecureSum(Stage):
    """The server learns Σ weight · update and Σ weight over the clients that answered, and no single one of them.

    clip        every coordinate of an update is sent as an integer for a number in [-clip, clip]; what is outside
                saturates and is counted (metric "saturated", which a simulation can know and a real server cannot)
    bits        of the grid: a step is clip / (2^(bits - 1) - 1), the error at most half a step a coordinate
    threshold   t, the fewest answers that are ever summed; None: floor(2n/3) + 1 of n clients asked (of degree + 1 with
                a degree), which withstands n/3 clients in league with the server. At least more than half is enforced
    ring_bits   sums are modulo 2^ring_bits; 0: as few as the cohort needs
    degree      None: every two clients share a mask. k: SecAgg+, each with k others (Bell et al. 2020)
    max_weight  the largest number of examples of one client, when they weigh (weights=ByExamples())
    rounding    "nearest", or "toward zero", which never lengthens an update, as noise scaled to a clip bound needs
    masked      False: the same integers without masks or protocol. To compare with; it protects nobody
    noise       DistributedNoise(…): every client adds its share of noise, and no single sum is without it
    round_seed  None: secrets come from the operating system. A number: reproducible bytes, and not secure at all

    The weight travels as one more masked coordinate, and what a client would say in the clear (examples, losses) is left
    out, so selectors and plots that live on reports have none. Below the threshold the round is aborted: nothing is
    opened, an event says why, the model stays. One sum still tells something, the difference of two rounds too; what
    bounds that is differential privacy.
    """

    clip: float
    bits: int = 16
    threshold: int | None = None
    ring_bits: int = 32
    degree: int | None = None
    max_weight: int = 1
    rounding: str = "nearest"
    masked: bool = True
    noise: DistributedNoise | None = None
    round_seed: int | None = None
    masks = True

    def __post_init__(self) -> None:
        if self.rounding not in ("nearest", "toward zero"):
            raise ValueError(f"rounding must be 'nearest' or 'toward zero', not {self.rounding!r}")
        self.grid(2)                                     # refuses the numbers that can never do
        if self.threshold is not None and (not isinstance(self.threshold, int) or self.threshold < 2):
            raise ValueError(f"threshold must be None or a whole number from 2, not {self.threshold!r}")

    def grid(self, clients: int) -> FixedPointGrid:
        """The numbers that a cohort of so many clients shares."""
        return FixedPointGrid(self.clip, self.bits, max(clients, 1), self.max_weight, self.ring_bits)

    def least(self, clients: int) -> int:
        """t for a cohort of so many clients."""
        holders = clients if self.degree is None else self.degree + 1
        return 2 * holders // 3 + 1 if self.threshold is None else self.threshold

    def setup(self, cohort: tuple[ClientId, ...], dimension: int, round_id: bytes = bytes(ROUND_ID_BYTES)) -> Setup:
        """The public parameters of a round of this cohort; dimension: d + 1. ValueError if there cannot be one."""
        n = len(cohort)
        return Setup(round_id, cohort, self.least(n), dimension, self.grid(n).ring_bits, self.degree)

    @property
    def lengthens(self) -> bool:
        """What a private stage before this one asks: may the update on the wire be longer than it was handed in?"""
        return self.rounding == "nearest"

    # --- the three halves ----------------------------------------------------------------------------------------------

    def begin(self, ctx: Context) -> None:
        if self.noise is not None:
            self.noise.begin(ctx)                        # ends the run if the budget does not cover the round
        ctx.meter.notes.setdefault("saturated", 0.0)
        if not self.masked:
            return
        version, round_id = ctx.server.version, new_round_id()
        if self.round_seed is not None:
            round_id = insecure_random(self.round_seed, "secure sum", version)(ROUND_ID_BYTES)
        try:
            setup = self.setup(ctx.cohort, ctx.server.params.size + 1, round_id)
        except ValueError as why:                        # a Poisson cohort too small for any threshold
            ctx.session[KEY] = f"the secure round of version {version} could not be opened: {why}"
            ctx.meter.events.append(ctx.session[KEY])
            return
        secure = Round(setup, model_hash=model_hash(_as_received(ctx)), seed=self.round_seed, shared_work=True)
        secure.open()
        ctx.session[KEY] = secure
        _count_bytes(secure, ctx)

    def client(self, update: Update, ctx: Context) -> Update:
        values, weight = dense(update.delta, "SecureSum"), int(update.weight)
        if update.extras:
            raise CompositionError(
                f"client {update.client!r} sends {sorted(update.extras)} beside its update, where no mask covers it; use a "
                "method that sends the update alone, such as FedProx, or leave SecureSum out"
            )
        if weight != update.weight:
            raise ValueError(f"weights under SecureSum are whole numbers, not {update.weight}")
        if not np.isfinite(values).all():
            raise ClientFailure("its update holds NaN or infinite values: refused before masking")
        grid = self.grid(len(ctx.cohort))
        x = values.astype(np.float64) / max(weight, 1)
        if self.noise is not None:
            x = self.noise.shorten(x)
        if self.rounding == "toward zero":
            x = np.trunc(x / grid.step) * grid.step
        codes, saturated = grid.encode_weighted(x, weight)
        ctx.meter.notes["saturated"] += saturated
        if self.noise is not None:
            share = self.noise.share(grid, x.size, self.rounding, self.least(len(ctx.cohort)))
            codes = self.noise.add(codes, share, grid.ring_bits, ctx.server.version, update.client)
        if not self.masked:
            return replace(update, delta=Masked(codes, grid.ring_bits), weight=1.0, metrics={})
        secure = ctx.session[KEY]
        if isinstance(secure, str):
            raise ClientFailure(secure)
        if model_hash(ctx.server) != secure.model_hash:
            raise ClientFailure("it received another model than the others, so its masks would not cancel")
        message = secure.upload(update.client, codes, arrives=False)
        if message is None:
            raise ClientFailure(f"it has left the secure round: {(secure.events or [secure.aborted])[-1]}")
        _, vector = decode_masked(secure.setup, message)
        masked = Masked(vector, grid.ring_bits, secure.setup.round_id)
        return replace(update, delta=masked, weight=1.0, metrics={})

    def server(self, aggregate: Aggregate, ctx: Context) -> Aggregate:
        if not isinstance(aggregate.total, Masked):
            raise TypeError(f"SecureSum was handed a {type(aggregate.total).__name__} to unmask; it must be the last stage")
        total = aggregate.total.vector
        if self.masked:
            secure: Round = ctx.session[KEY]
            opened = secure.close(total, ctx.arrived)
            _count_bytes(secure, ctx, closing=True)
            if opened is None:
                ctx.meter.events.append("there is no secure sum of this round: the model stays as it was")
                return Aggregate(np.zeros(ctx.server.params.shape), 0.0)
            total = opened
        grid = self.grid(len(ctx.cohort))
        if self.noise is not None:
            return self.noise.release(grid, total, ctx)
        values, weight = grid.decode_weighted(total)
        return Aggregate(values, float(weight))

    # --- what it does not go with ----------------------------------------------------------------------------------------

    def check(self, experiment: Experiment) -> None:
        if experiment.schedule.keeps_stragglers:
            raise CompositionError(
                "SecureSum with a buffered schedule: masks cancel among clients that began a round together, and here each "
                "begins by itself, from another version of the model; use Synchronous(…)."
            )
        if not experiment.aggregation.linear or getattr(experiment.aggregation, "discount", None) is not None:
            raise CompositionError(
                f"{experiment.aggregation!r} looks at single updates or rescales them, but under SecureSum only their sum "
                "can be read; use WeightedMean(), or leave SecureSum out."
            )
        self._check_neighbours(experiment)
        self._check_weights(experiment)
        self._check_cohort(experiment)

    def _check_neighbours(self, experiment: Experiment) -> None:
        here = next(i for i, stage in enumerate(experiment.pipeline) if stage is self)
        for i, stage in enumerate(experiment.pipeline):
            name, kind = type(stage).__name__, type(stage)
            if stage is not self and stage.masks:
                raise CompositionError(f"{name} and SecureSum both mask: one of them is enough, and two do not cancel.")
            if i > here and (kind.client is not Stage.client or kind.server is not Stage.server):
                raise CompositionError(
                    f"{name} after SecureSum: masked integers look random and may only be added; put {name} before it."
                )
            if any(getattr(stage, trait, False) for trait in ("picks", "quantises")):
                raise CompositionError(
                    f"{name} before SecureSum: each client would have its own places or its own scale, and integers add up "
                    f"only at the same places on one grid; leave {name} out, SecureSum rounds to {self.bits} bits itself."
                )
            if stage.noisy and self.rounding == "nearest":
                raise CompositionError(
                    f"{name} scales its noise to a clip bound, and rounding to the nearest grid point can lengthen an update "
                    "beyond it; what counts is the norm of what is on the wire. Use SecureSum(…, rounding='toward zero')."
                )

    def _check_weights(self, experiment: Experiment) -> None:
        weights, largest = experiment.weights, 1
        if isinstance(weights, ByExamples):
            if weights.cap is not None and weights.cap != int(weights.cap):
                raise CompositionError(f"ByExamples(cap={weights.cap}): weights under SecureSum are whole numbers.")
            largest = max((len(part) for part in experiment.data.train), default=1)
            largest = int(min(largest, weights.cap or largest))
        if largest > self.max_weight:
            raise CompositionError(
                f"clients weigh up to {largest} examples, SecureSum leaves room for max_weight={self.max_weight}: say "
                f"max_weight={largest} or more (a public bound), or weights=Uniform()."
            )

    def _check_cohort(self, experiment: Experiment) -> None:
        clients, poisson = experiment.clients, experiment.selection.poisson
        asked = len(clients) if poisson else experiment.schedule.start(len(clients), 0, True)
        stage = replace(self, threshold=None, degree=None) if poisson else self          # those are checked in each round
        try:                                             # the largest cohort there can be
            setup = stage.setup(clients[:asked], experiment.model.dim + 1)
        except (ValueError, TypeError) as why:
            raise CompositionError(f"SecureSum cannot work with cohorts of {asked} clients: {why}") from why
        if self.noise is not None:
            self.noise.check(experiment, self.grid(asked), self.max_weight, self.rounding, setup.threshold, asked)
        goal = getattr(experiment.schedule, "goal", lambda count: asked)(len(clients))
        if self.degree is None and not poisson and goal < setup.threshold:
            raise CompositionError(
                f"a step waits for {goal} of {asked} clients, but the secure sum opens nothing below {setup.threshold} "
                "answers, so every round would be aborted; lower over_selection, or set threshold (more than half)."
            )


def model_hash(server: Server) -> bytes:
    """32 bytes: which model, of which version, a client received."""
    params: Vector = np.ascontiguousarray(server.params, dtype="<f4")
    return fingerprint("model", server.version, params.tobytes())


def _as_received(ctx: Context) -> Server:
    """The model of this round as every client decodes it. A stage that sends each client another one makes them refuse."""
    server = ctx.server
    for stage in ctx.experiment.pipeline:
        server = stage.down(server, ctx)
    return server if server is ctx.server else decode_model(encode_model(server))


def _count_bytes(secure: Round, ctx: Context, closing: bool = False) -> None:
    """Meter the protocol's messages of a phase. The masked vector is not among them: the update message carries it."""
    phase = ("consistency", "unmask") if closing else ("keys", "shares")
    for message in secure.messages:
        purpose = PURPOSES.get(message.kind)
        if purpose in phase:
            (ctx.meter.sent_down if message.sender == SERVER else ctx.meter.sent_up)(purpose, message.nbytes)
    if closing:
        ctx.meter.events.extend(secure.events)
