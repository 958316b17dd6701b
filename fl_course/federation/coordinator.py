"""The loop: select → broadcast → train → encode → sum → step → evaluate → record, on one simulated clock.

There is no second loop in this package. Synchronous rounds, over-selection and buffers differ in the `Schedule`;
every mechanism is a `Stage`; what the caller wants to do after each round is the body of the caller's own `for`:

    for state, record in experiment.run(rounds=30):
        print(record.version, record.metrics["accuracy"])
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

import numpy as np

from ..core import Aggregate, BudgetSpent, ClientId, Context, Memory, Record, Server, Span, Update, changed, stream
from ..data.federated import FederatedData
from ..engine.local import LocalSGD
from ..engine.models import Model
from ..engine.training import Trainer
from ..wire.messages import WireError
from ..wire.payloads import numbers
from .agenda import START, STEP
from .aggregation import WeightedMean
from .arrival import receive
from .clock import between, exact, later, under_way
from .composition import check_composition
from .dispatch import Idle, ask, broadcast, present
from .elsewhere import Elsewhere, all_here
from .evaluation import Evaluation, detection, metrics_of_step
from .fleet import Equal, checked_seconds, waited
from .history import History, describe, progress_bar, state_of, warn_if_unheard
from .interfaces import Aggregation, Attack, Fleet, Schedule, Selector, ServerOptimizer, Stage
from .optimizers import FedAvg, broken
from .sampling import UniformSelection, checked
from .schedule import Synchronous
from .stages import ByExamples, each_its_own, read_only, server_half, whole_sum
from .state import Job, State, answered, asked, booked, by_name, heard
from .work import Work, poisoned


@dataclass(frozen=True)
class Coordinator:
    """An experiment. Its fields are the configuration, its repr the description; unsound combinations are refused here."""

    data: FederatedData
    model: Model
    training: LocalSGD = LocalSGD()
    schedule: Schedule = Synchronous()
    selection: Selector = UniformSelection()
    weights: Stage = ByExamples()
    stages: Sequence[Stage] = ()
    aggregation: Aggregation = WeightedMean()
    optimizer: ServerOptimizer = FedAvg()
    fleet: Fleet = Equal()
    evaluation: Evaluation = Evaluation()
    seed: int = 0
    strict: bool = False                # raise at the first failure or invalid answer instead of going on without it
    attack: Attack | None = None        # some clients that are not honest

    def __post_init__(self) -> None:
        if isinstance(self.stages, Stage):
            raise TypeError(f"stages is a list, also of one: stages=[{self.stages!r}]")
        object.__setattr__(self, "stages", each_its_own(tuple(self.stages)))
        check_composition(self)
        if not self.schedule.deadline > 0:
            raise ValueError(f"{self.schedule!r} has a deadline of {self.schedule.deadline!r}, not a positive number of seconds")
        object.__setattr__(self, "seed", int(self.seed))

    @property
    def pipeline(self) -> tuple[Stage, ...]:
        personal = self.training.personal
        return (self.weights, *(personal.brings if personal is not None else ()), *self.stages)

    @property
    def clients(self) -> tuple[ClientId, ...]:
        """Those that can be asked: clients with training examples."""
        return tuple(client for client, part in zip(self.data.ids, self.data.train, strict=True) if len(part))

    def initial(self, params: np.ndarray | None = None) -> State:
        """The state before the first round: the given model (d,), or one drawn from the seed."""
        params = self.model.init(stream(self.seed, "init")) if params is None else np.array(params, dtype=np.float32)
        if params.shape != (self.model.dim,):
            raise ValueError(f"params must have shape ({self.model.dim},) for this model, not {params.shape}")
        if not np.isfinite(params).all():
            raise ValueError("params hold NaN or infinite values; training must begin with a finite model")
        return State(Server(params))

    def run(
        self, rounds: int, state: State | History | None = None, work: Elsewhere | None = None,
    ) -> Generator[tuple[State, Record], None, str]:  # fmt: skip
        """Take so many server steps, from a state, a history's last or the beginning; yield the state and record of each.

        Ends early, returning the reason, when a stage's budget does not cover another round, or after a step that would
        have made the model infinite: that round is recorded with what it cost, and its state has the last good model.
        work: who trains, if not this process (elsewhere.py).
        """
        if isinstance(rounds, bool) or not isinstance(rounds, int | np.integer) or rounds < 0:
            raise ValueError(f"rounds must be a whole number from 0, not {rounds!r}")
        state = state_of(state) or self.initial()
        state = all_here(state) if work is None else state
        if state.server.params.shape != (self.model.dim,):
            raise ValueError(f"the state's model has {state.server.params.size} numbers, this experiment's {self.model.dim}")
        data = self.data if self.attack is None else poisoned(self.data, self.attack)
        doing = work.opened(self, self.strict) if work is not None else Work(
            Trainer(self.training, self.model, data), self.pipeline, self.strict, self.attack)  # fmt: skip
        free = Idle(self.clients)
        for _ in range(rounds):
            try:
                state, record, reason = self._round(state, doing, free)
            except BudgetSpent as spent:
                return str(spent)
            yield state, record
            if reason:
                return reason
        return ""

    def _round(self, state: State, work: Work | Elsewhere, free: Idle) -> tuple[State, Record, str]:
        server, ticket = state.server, state.ticket
        opened = exact(state.clock)
        jobs = {job.ticket: job for job in state.jobs}
        free.begins(job.client for job in state.jobs)
        agenda = work.agenda(self.schedule, len(free.clients), opened, state.jobs)
        uploads: dict[int, tuple[Decimal, Decimal]] = {}                            # ticket -> when it begins and arrives
        spans: list[Span] = []
        ctx = Context(self.seed, server, session={**work.session, "under way": len(jobs)}, experiment=self)
        memory, reports = dict(state.memory), dict(state.reports)
        arrived: list[tuple[Update, Job]] = []
        while (event := agenda.next())[0] != STEP:
            clock = agenda.clock
            # Select and broadcast.
            if event[0] == START:
                idle, back = present(self.fleet, work.here(list(free)), clock)
                count = None
                if idle:
                    rng = stream(self.seed, "select", server.version, len(ctx.cohort))
                    begins = later(clock, ask(self, work.data, ctx, idle, event[1], rng, reports))
                    chosen = checked(self.selection.choose(idle, event[1], rng, reports, ctx), idle)
                    free.takes(chosen)
                    ctx = changed(ctx, cohort=ctx.cohort + chosen)
                    reports.update({client: asked(reports.get(client, {}), server.version) for client in chosen})
                    for ends, job, message in broadcast(self, ctx, chosen, begins, ticket, memory):
                        jobs[job.ticket] = job
                        agenda.add(ends, job.ticket)
                        work.hand(job, message)
                    ticket, count = ticket + len(chosen), len(chosen)
                elif back is not None and not jobs and not arrived:
                    now, then = f"{float(clock):.10g}", f"{float(back):.10g}"
                    ctx.meter.events.append(f"nobody was there to ask at second {now}; the first is back at {then}")
                agenda.started(count, back)
                continue
            # A client has finished training: train everybody who is still untrained, then send. Or: an answer arrives.
            job = jobs[event[1]]
            if not job.lost and not job.sent:
                jobs = work.finish(jobs, ctx, heard(reports)) if job.message is None else jobs
                job = jobs[job.ticket]
                if job.message is not None:
                    seconds = self.fleet.upload(job.client, len(job.message))
                    ends = later(clock, checked_seconds(self.fleet, "upload", job.client, seconds))
                    uploads[job.ticket] = clock, ends
                    job = changed(job, due=float(ends), sent=True, memory=booked(job.memory))
                    jobs[job.ticket] = job
                    memory[job.client] = {**memory.get(job.client, {}), "books": job.memory["books"]}
                    agenda.add(ends, job.ticket)
                    continue
            del jobs[job.ticket]
            agenda.under_way -= 1
            if job.ticket < state.ticket:                                           # asked at most once a version
                free.ends(job.client)
            if job.lost:
                ctx.meter.events.append(job.lost)
                if not job.vanished:
                    ctx.meter.count("failed")
                spans.append(job.span(float(clock)))
                continue
            update, fate = self._receive(job, ctx)
            spans.append(job.span(float(clock), fate))
            if update is not None:
                arrived.append((update, job))
                agenda.arrived += 1
                memory[job.client] = job.memory
                sent = uploads[job.ticket][0] if job.ticket in uploads else exact(job.trained)
                total, upload = between(exact(job.begun), clock), between(sent, clock)
                report = answered(reports.get(job.client, {}), update, job, total, upload)
                if self.selection.keeps_updates:
                    report["update"] = (numbers(update.delta) / (update.weight or 1.0)).astype(np.float32)
                reports[job.client] = report
        clock = agenda.clock
        if not self.schedule.keeps_stragglers:
            # Whoever is late is told to stop; what has left by now was sent all the same.
            work.forget(tuple(jobs.values()))
            for job in jobs.values():
                spans.append(job.span(float(clock), "too late"))
                if job.sent:                        # an upload that was under way before this step is counted whole
                    nbytes, when = len(job.message or b""), uploads.get(job.ticket)
                    ctx.meter.sent_up("late", under_way(nbytes, clock, *when) if when else nbytes)
        elif any(type(stage).begin is not Stage.begin or type(stage).down is not Stage.down for stage in self.pipeline):
            # A session ends with its version. Where a stage may have put something there, clients train before the step.
            jobs = work.finish(jobs, ctx, heard(reports))
        kept = tuple(changed(job, message=bytes(job.message)) if job.message else job for job in jobs.values())
        return self._close(state, ctx, arrived, clock, ticket, memory, reports, kept, tuple(spans))

    def _receive(self, job: Job, ctx: Context) -> tuple[Update | None, str]:
        """Decode an answer and check it. An invalid or too old one is recorded and left out. Beside it, its fate."""
        version, meter = ctx.server.version, ctx.meter
        meter.sent_up("update", len(job.message or b""))
        try:
            update = receive(job, ctx, self)
        except WireError as why:
            event = f"the answer of client {job.client!r} in version {version} was refused: {why}"
            if self.strict:
                raise WireError(event) from why
            meter.events.append(event)
            meter.count("refused")
            return None, "refused"
        age, limit = version - update.version, self.schedule.max_staleness
        if limit is not None and age > limit:
            meter.events.append(f"the answer of client {job.client!r} was refused: {age} versions old, the limit is {limit}")
            meter.count("too_stale")
            return None, "too stale"
        return update, "used"

    def _close(
        self, before: State, ctx: Context, arrived: list[tuple[Update, Job]], clock: Decimal, ticket: int,
        memory: dict[ClientId, Memory], reports: dict[ClientId, Any], jobs: tuple[Job, ...], spans: tuple[Span, ...],
    ) -> tuple[State, Record, str]:  # fmt: skip
        """Sum, undo the stages in reverse, step, evaluate, record. The order of the sum is that of the names."""
        server = read_only(before.server)
        arrived = sorted(arrived, key=lambda pair: by_name(pair[0].client))
        updates = [update for update, _ in arrived]
        staleness = tuple(server.version - update.version for update in updates)
        starts = tuple(job.base.params for _, job in arrived)
        ctx = changed(ctx, server=server, arrived=tuple(update.client for update in updates), starts=starts)
        after, reason, events = before.server, "", ctx.meter.events
        with np.errstate(over="ignore", invalid="ignore"):             # a step that is not finite is not taken, see below
            if updates:
                combined = self.aggregation.combine(updates, staleness, ctx)
                combined = whole_sum(combined, np.shape(updates[0].delta), self.aggregation)
                spans = self._note_removed(combined.removed, ctx, spans)
                aggregate = whole_sum(server_half(self.pipeline, combined, ctx), server.params.shape, "the server halves")
            else:
                events.append("no update arrived")
                # Noise goes the way of a full round, or the release would tell that nobody came; there is nothing to unmask.
                # A stage that shields is asked too: its books know every version, also one without a message.
                noisy = any(s.noisy for s in self.pipeline)
                way = [s for s in self.pipeline if (not s.masks if noisy else s.shields)]
                aggregate = server_half(way, Aggregate(np.zeros(server.params.shape), 0.0), ctx)
            if aggregate.weight > 0:
                after = self.optimizer.step(server, aggregate)
                if updates and self.training.correction is not None:
                    after = self.training.correction.absorb(after, aggregate, len(updates), len(self.clients))
                if reason := broken(server, after, ctx.broadcast):
                    after = before.server
                    ctx.broadcast.clear()
                    events.append(reason)
            elif updates and not (events and events[-1].endswith("stays as it was")):       # a stage may have said why
                events.append(f"the updates weigh {aggregate.weight:g} in all: the model stays as it was")
        if after is before.server:                      # nobody's residual pays for a step that is not taken; what left is booked
            for client in ctx.arrived:
                books = {"books": memory[client]["books"]} if "books" in memory[client] else {}
                memory[client] = {**before.memory.get(client, {}), **books}
        extras, private = {**after.extras, **ctx.broadcast}, {**after.state, **ctx.state}
        after = replace(after, version=server.version + 1, extras=extras, state=private)
        ended = float(later(clock, waited(ctx.meter)))
        if not self.schedule.keeps_stragglers:
            ctx.meter.events.extend(f"the answer of client {job.client!r} was too late" for job in jobs)
            jobs = ()
        metrics = metrics_of_step(self, after, updates, ctx.meter)
        record = Record(
            version=after.version, clock=ended, clients=ctx.arrived, staleness=staleness,
            upload=tuple(len(job.message or b"") for _, job in arrived), bytes_up=ctx.meter.up, bytes_down=ctx.meter.down,
            events=tuple(map(str, ctx.meter.events)), metrics=metrics, spans=spans,
        )  # fmt: skip
        return State(after, ended, ticket, memory, reports, jobs, before.sent + record.nbytes), record, reason

    def _note_removed(self, removed: Sequence[ClientId], ctx: Context, spans: tuple[Span, ...]) -> tuple[Span, ...]:
        """Whom a robust rule left out, also in the spans; and if an attack is known, how well a rule that accuses found it."""
        if removed:
            ctx.meter.events.append(f"left out by {type(self.aggregation).__name__}: " + ", ".join(map(repr, removed)))
        if self.attack is not None and (removed or getattr(self.aggregation, "accuses", False)):
            ctx.meter.notes.update(detection(removed, ctx.arrived, self.attack.clients))
        return tuple(replace(s, fate="left out") if s.fate == "used" and s.client in removed else s for s in spans)

    def train(
        self, rounds: int, state: State | History | None = None, progress: bool = False, work: Elsewhere | None = None,
    ) -> History:  # fmt: skip
        """The for loop, written once: run so many rounds and return their history. A bar shows how it goes.

        An interrupt (Ctrl-C, a notebook's stop button) ends it with the history so far, whose `stopped` says so. An error
        that ends it carries the history so far as its attribute `history`.
        """
        begin = state_of(state) or self.initial()
        history = History(experiment=describe(self), state=begin, before=begin.sent)
        steps = self.run(rounds, begin, work)
        with progress_bar(rounds, progress, begin.sent) as bar:
            try:
                while True:
                    now, record = next(steps)
                    history.records.append(record)
                    history.state = now
                    bar(record)
            except StopIteration as end:
                history.stopped = end.value or ""
            except KeyboardInterrupt:
                history.stopped = "interrupted"
                if history.records and history.state.server.version < history.records[-1].version:
                    del history.records[-1]                            # caught between the two lines that belong together
            except Exception as error:
                if history.records:
                    vars(error)["history"] = history
                    error.add_note(f"what the {len(history)} rounds before it did is not lost: see the error's .history")
                raise
        warn_if_unheard(history)
        return history
