"""Say less: the law that all compressors share, error feedback, and what a message should weigh.

    Compression            client half: update → payload; server half: the sum of payloads → numbers
      TopK, RandomK, Threshold        k of d numbers (sparse.py)
      QSGD, Ternary, SignSGD          fewer bits a number (quantisation.py)
      PowerSGD, FederatedDropout      thin factors, sub-models (lowrank.py, submodels.py)

A sparsifier may be followed by one quantiser, which then rounds the k numbers: stages=[TopK(0.01), QSGD(8)].

The weights come first in the pipeline, so a compressor sees n_k·delta. Nothing is lost by that: n_k is the same in every
round, a residual in the drawer of client k is simply kept in units of n_k, and the server's sum is the weighted sum.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ..core import Aggregate, ClientFailure, CompositionError, Context, Update, Vector
from ..drift.methods import FedNova
from ..federation.interfaces import Experiment, Stage
from ..federation.stages import dense
from ..privacy.clipping import Clip
from ..wire.messages import encode_update, frame
from ..wire.payloads import numbers, on_values


class Compression(Stage):
    """Abstract. A compressor says how numbers become a payload, and four things about itself (`lossy` is true of all):

    feedback    it keeps what it did not send and adds it to the next update
    picks       its payload holds some of the numbers as they are, which a later stage may clip or round
    quantises   it rounds to a grid
    lengthens   what is sent can have a larger norm than what was meant; a method longest(bound, size) then says by how
                much at most, and noise behind a clip is scaled to that
    """

    feedback = False
    lossy = True
    picks = False
    quantises = False
    lengthens = False

    def compress(self, x: Vector, ctx: Context) -> Any:
        """x: (n,) finite float32. Returns the payload that stands for it."""
        raise NotImplementedError

    def client(self, update: Update, ctx: Context) -> Update:
        """Compress what this round meant to say and, with feedback, what earlier rounds left unsaid.

        Error feedback (Seide et al. 2014; Karimireddy et al. 2019, algorithm 2): e ← (delta + e) - C(delta + e). The sum
        of all that was sent plus the residual is the sum of all that was meant. What a later stage of the pipeline rounds
        or clips away joins the same residual (`client_half` sees to it), so the balance holds for the whole pipeline.
        """
        name, meant = type(self).__name__, update.delta
        if self.feedback and "residual" in ctx.memory:
            meant = dense(meant, name) + ctx.memory["residual"]
        if not np.isfinite(numbers(meant)).all():
            raise ClientFailure(f"{name} was given NaN or infinite values to compress")
        sent = on_values(meant, lambda values: self.compress(dense(values, name), ctx))
        if self.feedback:
            ctx.memory["residual"] = numbers(meant) - numbers(sent)
        return replace(update, delta=sent)

    def sends(self, example: Update, ctx: Context) -> Update:
        return replace(example, delta=on_values(example.delta, lambda zeros: self.compress(zeros, ctx)))

    def server(self, aggregate: Aggregate, ctx: Context) -> Aggregate:
        return replace(aggregate, total=numbers(aggregate.total))

    def check(self, experiment: Experiment) -> None:
        refuse_unsound(self, experiment)


def refuse_unsound(stage: Compression, experiment: Experiment) -> None:
    """CompositionError if this compressor does not go with another stage of the experiment."""
    name, pipeline = type(stage).__name__, experiment.pipeline
    here = next(i for i, other in enumerate(pipeline) if other is stage)
    for i, other in enumerate(pipeline):
        theirs = type(other).__name__
        if i == here:
            continue
        if other.masks and i < here:
            raise CompositionError(
                f"{name} after {theirs}: masked numbers look random, so there is nothing to compress, and an entry that is "
                "left out leaves its mask in the sum; compress before masking, on a grid that all clients share."
            )
        if other.masks:
            raise CompositionError(
                f"{name} before {theirs}: masks cancel in a sum of integers at the same places on one grid, but here each "
                "client has its own places or its own scale, and the places alone tell about its data; leave "
                f"{name} out and let {theirs} round to its shared grid (a Rotate() before it is fine)."
            )
        if other.noisy and stage.feedback:
            raise CompositionError(
                f"{name} with error feedback under {theirs}: the residual carries parts of earlier updates past the clip that "
                f"the noise was made for; use {name}(feedback=False) if it has that, or leave one of the two out."
            )
        if other.noisy and i < here and stage.lengthens and not hasattr(stage, "longest"):
            raise CompositionError(
                f"{name} can send an update that is longer than the one it was given, but the noise of {theirs} is scaled to "
                f"the norm before; what counts is the norm of what is on the wire. Let {name} declare longest(bound, size)."
            )
        if other.noisy and i > here and not stage.picks:
            raise CompositionError(f"{theirs} must clip what is on the wire, but {name} has packed it; put {theirs} before it.")
        if isinstance(other, Clip | FedNova) and i > here and not (stage.picks and isinstance(other, Clip)):
            raise CompositionError(f"{theirs} needs the update as numbers, but {name} has packed it; put {theirs} before it.")
        if isinstance(other, Compression):
            _refuse_pair(*((stage, other) if here < i else (other, stage)))


def _refuse_pair(first: Compression, second: Compression) -> None:
    one, two = type(first).__name__, type(second).__name__
    if first.quantises and second.picks and not (first.picks or second.quantises):           # the right two, the wrong way round
        also = f", and say {one}(feedback=False)" if first.feedback else ""
        raise CompositionError(
            f"{two} needs the update as numbers, but {one} has packed it; put {two} before {one}{also}."
        )
    if first.feedback and second.feedback:
        raise CompositionError(
            f"{one} and {two} both keep a residual, so the same loss would be sent twice; say {two}(feedback=False): it "
            f"then adds its error to the residual of {one} by itself."
        )
    if first.quantises and second.quantises:
        raise CompositionError(f"{one} and {two} both round to a grid, the second only what the first left; use one of them.")
    if not (first.picks and second.quantises):
        raise CompositionError(f"{two} needs the update as numbers, but {one} has packed it; use one of the two.")
    if second.feedback:
        raise CompositionError(
            f"{two} keeps a residual of whole updates, but {one} hands it a part of one; give the feedback to {one} and say "
            f"{two}(feedback=False)."
        )


def check_model(stage: Compression, model: Any, experiment: Experiment) -> None:
    """A stage that cuts the vector into layers must know the right ones."""
    if model != experiment.model:
        raise CompositionError(
            f"{type(stage).__name__} cuts the layers of {model!r}, and of {experiment.model!r} other numbers travel; leave it "
            "out, or give both the same network."
        )


# --- what a message should weigh, and what it weighs -------------------------------------------------------------------


def wire_report(update: Update) -> dict[str, float]:
    """Bytes of an update: by formula, at least (entropy), as encoded, with everything around it, and of plain float32."""
    payload = update.delta
    plain = 4.0 * payload.size
    alone = payload if isinstance(payload, np.ndarray) else payload.to_wire()
    return {
        "formula": plain if isinstance(payload, np.ndarray) else payload.formula(),
        "bound": plain if isinstance(payload, np.ndarray) else payload.bound(),
        "payload": float(len(frame("", alone)) - len(frame("", None)) + 1),
        "message": float(len(encode_update(update))),
        "float32": plain,
    }
