"""`SecureSum`: secure aggregation as one stage of the training loop. Grid, masks and the sum are one frozen object.

    begin    the cohort exchanges keys and shares            Round.open
    client   update -> integers on the grid -> masked        Round.upload
    server   sum of what arrived -> consistency, unmasking -> sum of the updates        Round.close

    Coordinator(…, weights=Uniform(), stages=[SecureSum(clip=0.1)])
    Coordinator(…, stages=[SecureSum(clip=0.1, max_weight=60)])          weighted by examples, the weights masked too

Only bytes of messages that were really encoded are counted: "update" is the masked vector; "keys", "shares",
"consistency" and "unmask" are the rest of the protocol. Everybody waits for the slowest at each of its steps: these seconds
are the fleet's, too. All of one round lives in ctx.session and is never saved.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal

import numpy as np

from ..core import (
    Aggregate,
    ClientFailure,
    ClientId,
    CompositionError,
    Context,
    Server,
    Update,
    Vector,
    fingerprint,
    whole,
)
from ..federation.clock import exact, later
from ..federation.fleet import checked_seconds
from ..federation.interfaces import Experiment, Stage
from ..federation.stages import dense
from ..wire.masked import Masked
from ..wire.messages import decode_model, encode_model
from ..wire.ring import RingVector, ring_dtype
from .distributed import DistributedNoise
from .graph import ROUND_ID_BYTES, Setup, why_closed
from .grid import FixedPointGrid
from .masking import insecure_random
from .messages import SERVER, decode_masked
from .rounds import Round, new_round_id
from .rules import check_cohorts, check_neighbours, check_timing, check_weights

KEY = "secure sum"                                       # of the round in ctx.session
NO_MASKS = "masked=False: the server sees what every single client sends, and nobody is protected"
KNOWN_MASKS = "round_seed is known: this run is not private, for whoever knows the seed can take off every mask"
PURPOSES = {
    "secagg-advertise": "keys", "secagg-roster": "keys", "secagg-shares": "shares", "secagg-inbox": "shares",
    "secagg-survivors": "consistency", "secagg-consistent": "consistency", "secagg-unmask": "unmask",
    "secagg-unmasked": "unmask",
}  # fmt: skip
STEPS = (                                                # what a client reads and then answers, between two steps of the server
    ("secagg-advertise",), ("secagg-roster", "secagg-shares"), ("secagg-inbox",),
    ("secagg-survivors", "secagg-consistent"), ("secagg-unmask", "secagg-unmasked"),
)  # fmt: skip


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
    masked      False: the same integers, opened by the same rules, without masks or protocol. To compare with; it
                protects nobody, and every record says so ("not_private")
    noise       DistributedNoise(…): every client adds its share of noise, and no single sum is without it
    round_seed  None: secrets come from the operating system. A number: reproducible bytes, and not secure at all, which
                every record says

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
        grid = self.grid(2)                              # refuses the numbers that can never do
        for name in ("clip", "bits", "max_weight"):      # Python's numbers, if they were NumPy's
            object.__setattr__(self, name, getattr(grid, name))
        object.__setattr__(self, "ring_bits", whole(self.ring_bits, "ring_bits"))
        for name, least in (("threshold", 2), ("degree", 2), ("round_seed", 0)):
            value = getattr(self, name)
            if value is not None and whole(value, name) < least:
                raise ValueError(f"{name} must be None or a whole number from {least}, not {value!r}")
            object.__setattr__(self, name, value if value is None else int(value))

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
        self._say_who_is_protected(ctx)
        version, round_id = ctx.server.version, new_round_id()
        if self.round_seed is not None:
            round_id = insecure_random(self.round_seed, "secure sum", version)(ROUND_ID_BYTES)
        try:
            setup = self.setup(ctx.cohort, ctx.server.params.size + 1, round_id)
            if self.noise is not None:                   # a selector of one's own may ask fewer clients than were planned
                self.noise.fit(self.grid(len(ctx.cohort)), ctx.server.params.size, self.rounding, setup.threshold)
        except ValueError as why:                        # a Poisson cohort too small for any threshold
            ctx.session[KEY] = f"the secure round of version {version} could not be opened: {why}"
            ctx.meter.events.append(ctx.session[KEY])
            return
        if not self.masked:
            ctx.session[KEY] = setup
            return
        make = ctx.session.get("secure round", Round)    # whose clients are elsewhere, if whoever runs this has put it there
        secure = make(setup, model_hash=model_hash(_as_received(ctx)), seed=self.round_seed, shared_work=True)
        secure.open()
        ctx.session[KEY] = secure
        _count(secure, ctx, "keys", "shares")

    def client(self, update: Update, ctx: Context) -> Update:
        secure = ctx.session.get(KEY)
        if isinstance(secure, str):                      # there is no round, and perhaps no grid
            raise ClientFailure(secure)
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
        assert isinstance(secure, Round)
        if model_hash(ctx.server) != secure.model_hash:
            raise ClientFailure("it received another model than the others, so its masks would not cancel")
        message = secure.upload(update.client, codes, arrives=False)
        if message is None:
            raise ClientFailure(f"it has left the secure round: {secure.events[-1] if secure.events else secure.aborted}")
        _, vector = decode_masked(secure.setup, message)
        masked = Masked(vector, grid.ring_bits, secure.setup.round_id)
        return replace(update, delta=masked, weight=1.0, metrics={})

    def sends(self, example: Update, ctx: Context) -> Update:
        grid, secure = self.grid(len(ctx.cohort)), ctx.session.get(KEY)
        zeros = np.zeros(example.delta.size + 1, ring_dtype(grid.ring_bits))
        return replace(example, delta=Masked(zeros, grid.ring_bits, secure.setup.round_id if isinstance(secure, Round) else b""))

    def server(self, aggregate: Aggregate, ctx: Context) -> Aggregate:
        if not isinstance(aggregate.total, Masked):
            raise TypeError(f"SecureSum was handed a {type(aggregate.total).__name__} to unmask; it must be the last stage")
        total = self._open(aggregate.total.vector, ctx)
        if total is None:
            ctx.meter.events.append("there is no secure sum of this round: the model stays as it was")
            return Aggregate(np.zeros(ctx.server.params.shape), 0.0)
        grid = self.grid(len(ctx.cohort))
        if self.noise is not None:
            return self.noise.release(grid, total, ctx)
        try:
            values, weight = grid.decode_weighted(total)
        except ValueError as why:                        # somebody sent other integers than it should; the masks hide who
            ctx.meter.events.append(f"the secure sum of this round cannot be used: {why}; the model stays as it was")
            return Aggregate(np.zeros(ctx.server.params.shape), 0.0)
        return Aggregate(values, float(weight))

    def _open(self, total: RingVector, ctx: Context) -> RingVector | None:
        """(d + 1,) the sum modulo R, or None if too few answered: by the same rules with and without masks."""
        secure = ctx.session[KEY]
        if isinstance(secure, Round):
            opened = secure.close(total, ctx.arrived)
            _count(secure, ctx, "consistency", "unmask")
            ctx.meter.events.extend(secure.events)
            return opened
        if why := why_closed(secure, ctx.arrived):
            ctx.meter.events.append(f"the server aborted: {why}")
            return None
        return total

    def _say_who_is_protected(self, ctx: Context) -> None:
        """A run whose masks are off, or can be taken off, says so: in every record, and once in words."""
        reasons = [NO_MASKS] * (not self.masked) + [KNOWN_MASKS] * (self.masked and self.round_seed is not None)
        if reasons:
            ctx.meter.notes["not_private"] = 1.0
        if ctx.server.version == 0:
            ctx.meter.events.extend(reasons)

    # --- what it does not go with ----------------------------------------------------------------------------------------

    def check(self, experiment: Experiment) -> None:
        check_timing(experiment)
        check_neighbours(self, experiment)
        check_weights(self, experiment)
        check_cohorts(self, experiment)


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


def _count(secure: Round, ctx: Context, *purposes: str) -> None:
    """Meter the protocol's messages of a phase, bytes and seconds. The masked vector is not among them: the update message
    carries it. The server takes its next step when the slowest client has read what it was sent and has answered."""
    fleet = ctx.experiment.fleet
    for step in STEPS:
        took: dict[ClientId, Decimal] = {}
        for message in secure.messages:
            if message.kind not in step or (purpose := PURPOSES[message.kind]) not in purposes:
                continue
            down = message.sender == SERVER
            way, client = ("download", message.receiver) if down else ("upload", message.sender)
            (ctx.meter.sent_down if down else ctx.meter.sent_up)(purpose, message.nbytes)
            seconds = (fleet.download if down else fleet.upload)(client, message.nbytes)
            took[client] = later(took.get(client, Decimal(0)), checked_seconds(fleet, way, client, seconds))
        ctx.meter.seconds = later(exact(ctx.meter.seconds), max(took.values(), default=Decimal(0)))
