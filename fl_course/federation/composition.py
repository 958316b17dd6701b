"""What an experiment must satisfy before it may run: the right kinds of parts, a model that fits, no unsound combination."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence

import numpy as np
from torch.nn import Module

from ..core import CompositionError, Context, Server, Update, is_whole, stream
from ..data.federated import Dataset, FederatedData
from ..engine.local import LocalSGD
from ..engine.models import Model
from .evaluation import Evaluation
from .interfaces import (
    Aggregation,
    Attack,
    Correction,
    Experiment,
    Fleet,
    PersonalTraining,
    Schedule,
    Selector,
    ServerOptimizer,
    Stage,
)
from .stages import Weighting

KINDS = {
    "data": FederatedData,
    "model": Model,
    "training": LocalSGD,
    "schedule": Schedule,
    "selection": Selector,
    "weights": Stage,
    "aggregation": Aggregation,
    "optimizer": ServerOptimizer,
    "fleet": Fleet,
    "evaluation": Evaluation,
}


def check_composition(experiment: Experiment) -> None:
    """Raise TypeError for a part of the wrong kind, ValueError for a bad value, CompositionError for an unsound whole."""
    parts = [(name, kind, getattr(experiment, name)) for name, kind in KINDS.items()]
    for name, kind, part in parts + [(f"stages[{i}]", Stage, stage) for i, stage in enumerate(experiment.stages)]:
        if not isinstance(part, kind):
            hint = f"; make one: {part.__name__}(…)" if isinstance(part, type) and issubclass(part, kind) else ""
            hint = "; it goes into LocalSGD(correction=…)" if isinstance(part, Correction) else hint
            hint = "; it goes into LocalSGD(personal=…)" if isinstance(part, PersonalTraining) else hint
            hint = "; deal it to clients first: .partition(…)" if isinstance(part, Dataset) else hint
            hint = "; wrap it: Wrapped(module)" if isinstance(part, Module) else hint
            hint = "; make one and wrap it: Wrapped(Net(…))" if isinstance(part, type) and issubclass(part, Module) else hint
            raise TypeError(f"{name} must be of the kind {kind.__name__}, not {part!r}{hint}")
    if not is_whole(experiment.seed, 0):
        raise ValueError(f"seed must be a whole number from 0, not {experiment.seed!r}")
    experiment.model.check(experiment.data)
    experiment.schedule.check(experiment)
    experiment.selection.check(experiment)
    experiment.aggregation.check(experiment)
    try:
        inspect.signature(experiment.aggregation.combine).bind((), (), None)
    except TypeError:
        rule = type(experiment.aggregation).__name__
        raise TypeError(f"{rule}.combine must take three things: combine(self, updates, staleness, ctx=None)") from None
    if experiment.attack is not None:
        _check_attack(experiment)
    if experiment.training.personal is not None:
        experiment.training.personal.check(experiment)
    elif not experiment.model.speaks or experiment.model.whole is not experiment.model:
        raise CompositionError(
            f"{experiment.model!r} says what travels and what stays with the clients, so it needs a method that trains both: "
            "LocalSGD(personal=FedRep(…)) or its like."
        )
    if experiment.training.correction is not None:
        experiment.training.correction.check(experiment)
    if experiment.training.private is not None:
        experiment.training.private.check(experiment)
    _check_weighting(experiment)
    _check_evaluation(experiment)
    _check_disclosures(experiment)
    for stage in experiment.pipeline:
        stage.check(experiment)
    _check_residuals(experiment.pipeline)
    _try_client_halves(experiment)


def _check_attack(experiment: Experiment) -> None:
    attack = experiment.attack
    if not isinstance(attack, Attack):
        raise TypeError(f"attack must be of the kind Attack, not {attack!r}")
    for client in attack.clients:
        if client not in experiment.clients:
            raise ValueError(f"{attack!r} controls client {client!r}, which is no client with training examples")
    attack.check(experiment)


def _check_residuals(pipeline: Sequence[Stage]) -> None:
    """Behind a stage with feedback nothing may vanish: what was sent and what waits is together what was meant."""
    for i, keeper in enumerate(pipeline):
        moved = False                                   # by a stage that the server undoes: a residual knows nothing of it
        for later in pipeline[i + 1 :] if keeper.feedback else ():
            if type(later).client is Stage.client:
                continue
            if not later.exact and (moved or not later.lossy):
                raise CompositionError(
                    f"{type(later).__name__} after {type(keeper).__name__}, which keeps what it did not send: what the later "
                    "stage takes away would be missing in the residual, and would never be sent; put it before, or say "
                    "feedback=False. A class of your own declares exact = True if its server half undoes it, lossy = True if "
                    "it changes no coordinates and its loss may wait."
                )
            moved = moved or not later.lossy


def _check_weighting(experiment: Experiment) -> None:
    """How much a client counts is decided in one field, once; everything that is scaled to it reads it there."""
    for i, stage in enumerate(experiment.stages):
        if isinstance(stage, Weighting):
            raise CompositionError(
                f"stages[{i}] is {stage!r}, which would weigh updates that weights={experiment.weights!r} has weighed already; "
                f"say weights={stage!r} instead."
            )


def _check_evaluation(experiment: Experiment) -> None:
    private = () if experiment.training.private is None else (experiment.training.private,)
    if experiment.evaluation.federated and not experiment.model.speaks:
        raise CompositionError(
            "Evaluation(federated=True) sends every client the server's model to be measured, but here that is only a part of "
            "one; use Evaluation(), and own_measure(experiment, state) for the clients' own models."
        )
    shy = [stage for stage in experiment.pipeline if stage.masks or stage.shields]
    for stage in (*shy, *private):
        if experiment.evaluation.federated:
            raise CompositionError(
                "Evaluation(federated=True) has each client send its accuracy and its number of test examples in clear, to a "
                f"server that is not to learn such things, or {type(stage).__name__} would not be there; use Evaluation(), "
                "which an observer measures who sends nothing."
            )


def _check_disclosures(experiment: Experiment) -> None:
    """What leaves clients for the selector's sake reaches the server in clear. Of what a selector of one's own asks, nothing is
    known, so it counts as such. (Where the server may see it and only the model is protected, the ledger says so: books.py.)"""
    selector, kind = experiment.selection, type(experiment.selection)
    curious = kind.asks is not Selector.asks or kind.tells is not Selector.tells or selector.keeps_updates
    if not (selector.reads or curious):
        return
    private = () if experiment.training.private is None else (experiment.training.private,)
    for part in (*(stage for stage in experiment.pipeline if stage.masks or stage.shields), *private):
        what = " and ".join(selector.reads) or "answers"
        raise CompositionError(
            f"{kind.__name__} reads the {what} of single clients, in clear, and where {type(part).__name__} is the server is not "
            "to learn such things; use UniformSelection() or RoundRobin(), which read nothing of a client's."
        )


def _try_client_halves(experiment: Experiment) -> None:
    """One made-up update through the client halves up to the noise, on copies of the stages: what a private stage refuses
    to send (something beside the update, a payload, a weight above its bound), it refuses here and not in the first round.
    """
    private = [i for i, stage in enumerate(experiment.pipeline) if stage.noisy or stage.shields]
    d, most = experiment.model.dim, max(len(part) for part in experiment.data.train)
    made_up = (0.01 * stream(0, "trial").standard_normal(d)).astype(np.float32)
    reported = {"examples": float(most), "steps": 1.0, "loss_first": 1.0, "loss_last": 1.0}
    server, correction = Server(np.zeros(d, np.float32)), experiment.training.correction
    update = Update("trial", 0, made_up, 1.0, {} if correction is None else correction.sends(server), reported)
    ctx = Context(experiment.seed, server, ("trial",), client="trial", experiment=experiment)
    for i, stage in enumerate(experiment.pipeline[: max(private, default=-1) + 1]):
        weight = update.weight
        try:
            with np.errstate(all="ignore"):
                update = copy.deepcopy(stage).client(update, ctx)
        except CompositionError:
            raise
        except Exception:
            return                                             # it needs more than this, and is seen in the first round
        if not isinstance(update, Update):
            return
        if i and update.weight != weight:
            raise CompositionError(
                f"{type(stage).__name__} changes the weight of an update, which weights={experiment.weights!r} has decided; "
                "a class that weighs is a Weighting (see federation/stages.py) and goes into weights=…"
            )
