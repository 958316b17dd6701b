"""What may arrive: it follows from the experiment, and every answer is held against it in one place.

An honest answer looks as the experiment's own parts make it: a change of the model, beside it what the correction sends, then
through the client halves of the stages, first to last. Each part shows on zeros what it makes of that (`sends`), and so the
server knows the class of the payload, its form and its round, and the names and shapes of all that travels beside it,
before anybody has answered. The first to answer decides nothing. How much a client may count is known as well, and a stage
whose server half trusts numbers beside the update says which of them no honest client sends (`doubts`).
"""

from __future__ import annotations

import math

import numpy as np

from ..core import Context, Meter, Update, changed
from ..wire.masked import Masked
from ..wire.messages import WireError, check_update, decode_update
from .interfaces import Experiment, Stage
from .stages import ByExamples, Uniform, Weighting
from .state import Job


def example(experiment: Experiment, ctx: Context) -> Update:
    """An honest answer to what ctx's server broadcast to ctx's cohort, with zeros for numbers, of a client of no name."""
    server, correction = ctx.server, experiment.training.correction
    extras = {} if correction is None else correction.sends(server)
    metrics = {"examples": 1.0, "steps": 1.0, "loss_first": 0.0, "loss_last": 0.0}
    update = Update("", server.version, np.zeros_like(server.params), 1.0, extras, metrics)
    aside = changed(ctx, client="", memory={}, meter=Meter(), state={}, broadcast={})
    for stage in experiment.pipeline:
        update = stage.sends(update, aside)
    return update


def receive(job: Job, ctx: Context, experiment: Experiment) -> Update:
    """Decode the answer to a job and check it. WireError, and nothing else, whatever is wrong with it: what goes wrong
    while a stranger's bytes are read is the stranger's fault."""
    like = _example_of(job, ctx, experiment)
    try:
        update = decode_update(job.message or b"", changed(like, client=job.client))
        check_update(update, job.client, job.base, like)
        least, most = weights_of(experiment, update)
        if not least <= update.weight <= most:
            may = f"{least:g}" if least == most else f"{least:g} to {most:g}"
            raise WireError(f"it weighs {update.weight:g}, where {experiment.weights!r} lets this client weigh {may}"[:300])
        for stage in experiment.pipeline:
            if type(stage).doubts is not Stage.doubts:
                here = changed(ctx, server=job.base, cohort=job.cohort, client=job.client)
                if why := stage.doubts(update, here):
                    raise WireError(why)
    except WireError:
        raise
    except Exception as why:
        raise WireError(f"it cannot be read: {type(why).__name__}: {why}"[:300]) from why
    return update


def weights_of(experiment: Experiment, update: Update) -> tuple[float, float]:
    """The least and the largest weight that this client's answer can have."""
    weights = experiment.weights
    if isinstance(update.delta, Masked):
        return 1.0, 1.0                                    # the true one is under the mask, and bounded there
    if type(weights) is Uniform:
        return 1.0, 1.0
    most = weights.largest if isinstance(weights, Weighting) else None
    most = math.inf if most is None else float(most)
    if type(weights) is ByExamples:
        most = min(most, float(len(experiment.data.train[experiment.data.position(update.client)])))
    return 0.0, 1.0 if type(weights) is Stage else most


def _example_of(job: Job, ctx: Context, experiment: Experiment) -> Update:
    """Made once for all answers to a version of the model. The session belongs to ctx's version (see work.py)."""
    name, version = f"example of version {job.base.version}", job.base.version
    if name not in ctx.session:
        session = ctx.session if version == ctx.server.version else {}
        here = changed(ctx, server=job.base, cohort=job.cohort, session=session)
        ctx.session[name] = example(experiment, here)
    return ctx.session[name]
