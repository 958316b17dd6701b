"""Clients that train somewhere else: jobs go out as orders, encoded answers come back. Nothing of the loop changes.

A `Post` (orders.py) carries them: over Flower (deploy/), to other processes (processes.py), to pages in a browser.
`Elsewhere` stands in the loop where `Work` stands in a simulation, on one of two clocks:

    simulated   the fleet says who is done when. Same seed, same bytes, same model as without a post, wherever clients train
    real        seconds since the start. Answers come when they come, the schedule decides as ever, a deadline is a real one

    post = …
    history = experiment.train(rounds=10, work=Elsewhere(post))
    history = experiment.train(rounds=10, work=Elsewhere(post, real=True))

Drawers (residuals, control variates, personal layers) stay with the clients. Where the loop would put one back or not, the
server keeps the number of the job after which it was written; the next order says which of them to go on from.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

from ..core import ClientFailure, ClientId, CompositionError, Context, FederatedError
from ..data.federated import FederatedData
from ..wire.messages import encode_model
from .agenda import DUE, START, STEP
from .clock import exact, later
from .fleet import Equal
from .interfaces import Experiment, Schedule, Selector
from .orders import Answer, Order, Post
from .state import Job, State
from .work import planned

KEPT = "kept elsewhere"                 # in the server's copy of a drawer: the job after which the real one was written


def all_here(state: State) -> State:
    """The same state; ValueError if some of its drawers are with clients elsewhere: without them it is only half of it."""
    away = [client for client, drawer in state.memory.items() if KEPT in drawer]
    if away:
        raise ValueError(
            f"the drawers of {len(away)} clients ({away[0]!r} …) are kept where they trained, and this state has only their "
            "numbers; go on with work=Elsewhere(…) and the same post"
        )
    return state


@dataclass
class Elsewhere:
    """In the place of `Work`: hands out jobs and waits for their answers. patience: real seconds without any client."""

    post: Post
    real: bool = False
    patience: float = 60.0
    session: Mapping[str, Any] = field(default_factory=dict)            # what the session of every version begins with
    data: FederatedData = field(init=False, repr=False)
    strict: bool = field(default=False, init=False)
    origin: float | None = field(default=None, init=False)              # the real instant at which the run's clock was 0
    outbox: list[Order] = field(default_factory=list, init=False, repr=False)
    waiting: set[int] = field(default_factory=set, init=False, repr=False)          # sent, or about to be; no answer yet
    inbox: dict[int, Answer] = field(default_factory=dict, init=False, repr=False)

    def opened(self, experiment: Experiment, strict: bool) -> Elsewhere:
        """For one run. CompositionError for what cannot be carried out by others."""
        if experiment.attack is not None:
            raise CompositionError(
                f"{experiment.attack!r} sees the updates of all clients at once, which are elsewhere now; simulate attacks"
            )
        if type(experiment.selection).asks is not Selector.asks:
            raise CompositionError(
                f"{type(experiment.selection).__name__} asks clients something before it chooses, and that question is not "
                "carried to clients elsewhere; choose by reports (Oort) or UniformSelection()"
            )
        if self.real and type(experiment.fleet) is not Equal:
            raise CompositionError(
                f"on the real clock devices are as fast as they are, and {experiment.fleet!r} says otherwise; leave fleet out, "
                "or use the simulated clock"
            )
        run = Elsewhere(self.post, self.real, self.patience, self.session)
        run.data, run.strict = experiment.data, strict
        return run

    # --- the parts of Work ------------------------------------------------------------------------------------------------

    def agenda(self, schedule: Schedule, clients: int, opened: Decimal, jobs: Sequence[Job]) -> Any:
        """What comes next: see agenda.py. On the real clock, what really comes."""
        for job in jobs:
            if job.message is None and not job.lost and job.ticket not in self.waiting | self.inbox.keys():    # resumed
                self.hand(job, encode_model(job.base))
        if not self.real:
            return planned(schedule, clients, opened, jobs)
        if self.origin is None:
            self.origin = time.monotonic() - float(opened)
        return RealAgenda(self, schedule, clients, opened, later(opened, exact(schedule.deadline)), len(jobs),
                          deque(job.ticket for job in jobs if job.message is not None or job.lost or job.ticket in self.inbox))

    def here(self, idle: Sequence[ClientId]) -> list[ClientId]:
        """Those of the idle clients that are connected; on the simulated clock, wait until there is one."""
        ends = time.monotonic() + self.patience
        while idle:
            connected = self.post.here()
            found = [client for client in idle if client in connected]
            if found or self.real:
                return found
            if time.monotonic() > ends:
                raise FederatedError(f"none of {len(idle)} idle clients is connected, for {self.patience:g} seconds now")
            time.sleep(0.05)
        return []

    def hand(self, job: Job, message: bytes) -> None:
        """A job was made; message: the broadcast. It leaves with the others of its moment."""
        if not job.lost:
            drawer = job.memory.get(KEPT)
            self.outbox.append(Order(job.ticket, job.client, job.cohort, message, drawer))
            self.waiting.add(job.ticket)

    def forget(self, jobs: Sequence[Job]) -> None:
        """Nobody waits for these any more."""
        for job in jobs:
            self.waiting.discard(job.ticket)
            self.inbox.pop(job.ticket, None)

    def finish(self, jobs: Mapping[int, Job], ctx: Context, heard: bool) -> dict[int, Job]:
        """With the answers that are there; on the simulated clock, with all of them."""
        todo = [job for job in jobs.values() if job.message is None and not job.lost]
        while not self.real and any(job.ticket in self.waiting for job in todo):
            self.collect(1.0)
        done, lost = dict(jobs), []
        for job in todo:
            if (answer := self.inbox.pop(job.ticket, None)) is None:
                continue
            if self.real:                               # how long it trained is known now, and how long it was on its way is not
                job = replace(job, trained=float(self.now()))
            if answer.message is None:
                why = f"client {job.client!r} failed in version {job.base.version}: {answer.lost}"
                if self.strict:
                    raise ClientFailure(why)
                lost += [why] if answer.bug else []
                done[job.ticket] = replace(job, lost=why)
                continue
            for name in (name for stage in ctx.experiment.pipeline for name in stage.says if name in answer.says):
                ctx.state[name] = max(ctx.state.get(name, 0.0), answer.says[name])
            books = {"books": job.memory["books"]} if "books" in job.memory else {}
            memory = {**books, KEPT: job.ticket} if answer.keeps else books
            done[job.ticket] = replace(job, message=answer.message, memory=memory)
        if 1 < len(lost) == len(todo):                   # as in work.py: a bug, and no client's; but one stranger proves nothing
            raise FederatedError(f"everybody who was asked failed in a way that nobody foresaw: {lost[0]}")
        return done

    def now(self) -> Decimal:
        """The real clock: seconds since the run's was 0."""
        return exact(round(time.monotonic() - (self.origin or 0.0), 6))

    def collect(self, seconds: float) -> list[int]:
        """Send what waits to be sent, and take in what has come: the tickets, of jobs that somebody waits for."""
        if self.outbox:
            orders, self.outbox = [order for order in self.outbox if order.ticket in self.waiting], []
            self.post.send(orders)
        come = []
        for answer in self.post.answers(seconds):
            if answer.ticket in self.waiting:
                self.waiting.discard(answer.ticket)
                self.inbox[answer.ticket] = answer
                come.append(answer.ticket)
        return come


@dataclass
class RealAgenda:
    """The agenda's part on the real clock (agenda.py): steps and starts as the schedule says, answers as they come."""

    work: Elsewhere
    schedule: Schedule
    clients: int
    clock: Decimal
    closes: Decimal
    under_way: int
    due: deque[int]
    arrived: int = 0
    first: bool = True
    asked: bool = False
    answered: set[int] = field(default_factory=set)

    def add(self, instant: Decimal, ticket: int) -> None:
        """When a job is started nobody knows when it will end; when its answer is here, it is here."""
        if ticket in self.answered:
            self.due.append(ticket)

    def started(self, count: int | None, back: Decimal | None) -> None:
        if count is not None:
            self.under_way, self.first = self.under_way + count, False

    def next(self) -> tuple[str, int]:
        """("step", 0), ("start", how many), or ("due", a ticket), at `clock`."""
        schedule = self.schedule
        while True:
            self.clock = max(self.clock, self.work.now())
            if (self.arrived or not self.first) and schedule.ready(self.under_way, self.arrived, self.clients):
                return STEP, 0
            may_start = not self.asked and not self.due and self.clock < self.closes
            if may_start and (wanted := schedule.start(self.clients, self.under_way, self.first)):
                self.asked = True
                return START, wanted
            if self.due:
                self.asked = False
                ticket = self.due.popleft()
                self.answered.add(ticket)
                return DUE, ticket
            if self.clock >= self.closes or (self.arrived and not self.under_way):       # too late, or nobody is left
                return STEP, 0
            self.due.extend(self.work.collect(min(0.25, float(self.closes - self.clock))))
            self.asked = False
