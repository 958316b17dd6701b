"""What may arrive: it follows from the experiment, and every answer is held against it in one place.

An honest answer looks as the experiment's own parts make it: a change of the model, beside it what the correction sends, then
through the client halves of the stages, first to last. Each part shows on zeros what it makes of that (`sends`), and so the
server knows the class of the payload, its form and its round, and the names and shapes of all that travels beside it,
before anybody has answered. The first to answer decides nothing.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..core import Context, Meter, Update
from ..wire.messages import WireError, check_update, decode_update
from .interfaces import Experiment
from .state import Job


def example(experiment: Experiment, ctx: Context) -> Update:
    """An honest answer to what ctx's server broadcast to ctx's cohort, with zeros for numbers, of a client of no name."""
    server, correction = ctx.server, experiment.training.correction
    extras = {} if correction is None else correction.sends(server)
    metrics = {"examples": 1.0, "steps": 1.0, "loss_first": 0.0, "loss_last": 0.0}
    update = Update("", server.version, np.zeros_like(server.params), 1.0, extras, metrics)
    aside = replace(ctx, client="", memory={}, meter=Meter(), state={}, broadcast={})
    for stage in experiment.pipeline:
        update = stage.sends(update, aside)
    return update


def receive(job: Job, ctx: Context, experiment: Experiment) -> Update:
    """Decode the answer to a job and check it. WireError, and nothing else, whatever is wrong with it: what goes wrong
    while a stranger's bytes are read is the stranger's fault."""
    like = _example_of(job, ctx, experiment)
    try:
        update = decode_update(job.message or b"", replace(like, client=job.client))
        check_update(update, job.client, job.base, like)
    except WireError:
        raise
    except Exception as why:
        raise WireError(f"it cannot be read: {type(why).__name__}: {why}"[:300]) from why
    return update


def _example_of(job: Job, ctx: Context, experiment: Experiment) -> Update:
    """Made once for all answers to a version of the model. The session belongs to ctx's version (see work.py)."""
    name, version = f"example of version {job.base.version}", job.base.version
    if name not in ctx.session:
        session = ctx.session if version == ctx.server.version else {}
        here = replace(ctx, server=job.base, cohort=job.cohort, session=session)
        ctx.session[name] = example(experiment, here)
    return ctx.session[name]
