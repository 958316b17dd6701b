"""The other end of a post: takes orders, trains with the same `Work`, and hands back encoded answers.

A node holds one or more clients: their examples, and their drawers. The experiment is the same object on both ends; what a
node uses of it is its own clients' part.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..core import ClientId, Context, Memory
from ..engine.training import Trainer
from ..wire.messages import decode_model
from .interfaces import Experiment, Stage
from .orders import Answer, Order
from .state import Job, booked
from .work import Work, in_words

Session = Callable[[Context], dict[str, Any]]


@dataclass
class Node:
    """Trains some clients of an experiment.

    drawers     client → {"books": …, "after 7": its drawer after job 7}: all that a node remembers
    """

    experiment: Experiment
    clients: tuple[ClientId, ...]
    drawers: dict[ClientId, dict[str, Any]] = field(default_factory=dict)
    work: Work = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if strangers := set(self.clients) - set(self.experiment.clients):
            raise ValueError(f"{sorted(map(repr, strangers))[:5]} have no examples in this experiment")
        trainer = Trainer(self.experiment.training, self.experiment.model, self.experiment.data)
        self.work = Work(trainer, self.experiment.pipeline)

    def obey(self, orders: Sequence[Order], session: Session | None = None) -> list[Answer]:
        """An answer each, in their order. What goes wrong with a client is its answer. session: what `begin` would have put
        there for the client halves of a version (secure sum), if anything."""
        answers: dict[int, Answer] = {}
        jobs: dict[int, list[Job]] = {}
        for order in orders:
            try:
                job = self._job(order)
                jobs.setdefault(job.base.version, []).append(job)
            except Exception as why:
                answers[order.ticket] = Answer(order.ticket, lost=in_words(why))
        for together in jobs.values():
            answers |= {answer.ticket: answer for answer in self._train(together, session)}
        return [answers[order.ticket] for order in orders]

    def _job(self, order: Order) -> Job:
        if order.client not in self.clients:
            raise ValueError(f"client {order.client!r} does not live here")
        base = decode_model(order.model, self.experiment.model.dim)
        return Job(0.0, order.ticket, order.client, order.cohort, base, self._drawer(order), 0.0)

    def _drawer(self, order: Order) -> Memory:
        """The drawer that the server means, with all that has been booked since. The others are of no use any more."""
        kept, name = self.drawers.get(order.client, {}), f"after {order.drawer}"
        if order.drawer is not None and name not in kept:
            raise ValueError("its drawer is lost: its node was started anew, and what it had put aside is gone")
        drawer = dict(kept.get(name, {}))
        if "books" in kept:
            drawer["books"] = kept["books"]
        self.drawers[order.client] = {key: kept[key] for key in ("books", name) if key in kept}
        return drawer

    def _train(self, jobs: list[Job], session: Session | None) -> Iterable[Answer]:
        """Jobs of one version, together."""
        first = jobs[0]
        ctx = Context(self.experiment.seed, first.base, first.cohort, experiment=self.experiment)
        try:
            if session is not None:
                ctx.session.update(session(ctx))
            for stage in self.experiment.pipeline:
                if type(stage).begin is not Stage.begin and not type(stage).__module__.startswith("fl_course."):
                    stage.begin(replace(ctx, state={}))         # a stage of one's own may put something there for its clients
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)               # the server hears of failures, and warns
                done = self.work.finish({job.ticket: job for job in jobs}, ctx, True)
        except Exception as why:
            if len(jobs) > 1:
                return [answer for job in jobs for answer in self._train([job], session)]
            return [Answer(first.ticket, lost=in_words(why))]
        return [self._answer(done[job.ticket], ctx) for job in jobs]

    def _answer(self, job: Job, ctx: Context) -> Answer:
        if job.message is None:
            return Answer(job.ticket, lost=job.lost.partition(": ")[2] or job.lost, bug=job.ticket in self.work.crashed)
        drawer, kept = booked(job.memory), self.drawers.setdefault(job.client, {})
        kept["books"] = drawer.pop("books")
        if drawer:
            kept[f"after {job.ticket}"] = drawer
        told = {name: float(ctx.state[name]) for stage in self.experiment.pipeline for name in stage.says if name in ctx.state}
        says = {name: value for name, value in told.items() if not math.isnan(value)}
        return Answer(job.ticket, bytes(job.message), keeps=bool(drawer), says=says)
