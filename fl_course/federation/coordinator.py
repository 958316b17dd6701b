"""The loop: select → broadcast → train → encode → sum → step → evaluate → record, on one simulated clock.

There is no second loop in this package. Synchronous rounds, over-selection, FedBuff and FedAsync differ in the `Schedule`;
every mechanism is a `Stage`; what the caller wants to do after each round is the body of the caller's own `for`:

    for state, record in experiment.run(rounds=30):
        print(record.version, record.metrics["accuracy"])
"""

from __future__ import annotations

import heapq
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from ..core import (
    Aggregate,
    BudgetSpent,
    ClientFailure,
    ClientId,
    Context,
    Memory,
    Record,
    Server,
    Task,
    Update,
    stream,
)
from ..data.federated import FederatedData
from ..engine.local import LocalSGD
from ..engine.models import Model
from ..engine.training import Trainer
from ..wire.messages import WireError, check_update, decode_model, decode_update, encode_model, encode_update
from .aggregation import WeightedMean
from .composition import check_composition
from .evaluation import Evaluation, drift, training_metrics
from .fleet import Equal
from .history import History, describe, progress_bar
from .interfaces import Aggregation, Fleet, Schedule, Selector, ServerOptimizer, Stage
from .optimizers import FedAvg
from .sampling import UniformSelection, checked
from .schedule import Synchronous
from .stages import ByExamples, client_half, server_half
from .state import Job, State


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
    strict: bool = False                # raise at the first invalid update instead of going on without it

    def __post_init__(self) -> None:
        if isinstance(self.stages, Stage):
            raise TypeError(f"stages is a list, also of one: stages=[{self.stages!r}]")
        object.__setattr__(self, "stages", tuple(self.stages))
        check_composition(self)
        object.__setattr__(self, "seed", int(self.seed))

    @property
    def pipeline(self) -> tuple[Stage, ...]:
        return (self.weights, *self.stages)

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

    def run(self, rounds: int, state: State | None = None) -> Generator[tuple[State, Record], None, str]:
        """Take so many server steps, from a state or from the beginning; yield the state and the record of each.

        Ends early, returning the reason, when a stage's budget does not cover another round.
        """
        if not isinstance(rounds, int | np.integer) or rounds < 0:
            raise ValueError(f"rounds must be a whole number from 0, not {rounds!r}")
        state = state or self.initial()
        if state.server.params.shape != (self.model.dim,):
            raise ValueError(f"the state's model has {state.server.params.size} numbers, this experiment's {self.model.dim}")
        trainer = Trainer(self.training, self.model, self.data)
        for _ in range(rounds):
            try:
                state, record = self._round(state, trainer)
            except BudgetSpent as reason:
                return str(reason)
            yield state, record
        return ""

    def _round(self, state: State, trainer: Trainer) -> tuple[State, Record]:
        server, clock, ticket = state.server, state.clock, state.ticket
        jobs = {job.ticket: job for job in state.jobs}
        due = [(job.due, job.ticket) for job in state.jobs]
        heapq.heapify(due)
        ctx = Context(self.seed, server, experiment=self)
        memory, reports = dict(state.memory), dict(state.reports)
        arrived: list[tuple[Update, int]] = []
        opened, first, clients = clock, True, self.clients
        while True:
            # 1. Step now? Nobody is started with a model that is about to be replaced.
            if (arrived or not first) and self.schedule.ready(len(jobs), len(arrived), len(clients)):
                break
            # 2. Select and broadcast. Clients that finish at this very instant are heard first.
            wanted = self.schedule.start(len(clients), len(jobs), first)
            if wanted and not (due and due[0][0] <= clock):
                busy = {job.client for job in jobs.values()} | set(ctx.cohort)      # asked at most once a version
                if idle := [client for client in clients if client not in busy]:
                    rng = stream(self.seed, "select", server.version, len(ctx.cohort))
                    chosen = checked(self.selection.select(idle, wanted, rng, reports), idle)
                    ctx = replace(ctx, cohort=ctx.cohort + chosen)
                    for job in self._broadcast(server, chosen, clock, ticket, memory, ctx):
                        jobs[job.ticket] = job
                        heapq.heappush(due, (job.due, job.ticket))
                    ticket, first = ticket + len(chosen), False
            # 3. Time passes until somebody finishes, or the deadline comes, or nobody is left to wait for.
            if not due:
                break
            clock = min(due[0][0], opened + self.schedule.deadline)
            if due[0][0] > clock:
                break
            # 4. A client has finished training: train everybody who is still untrained, then send. Or: an answer arrives.
            job = jobs[heapq.heappop(due)[1]]
            if not job.lost and not job.sent:
                jobs = self._train(jobs, trainer, ctx) if job.message is None else jobs
                job = jobs[job.ticket]
                if job.message is not None:
                    job = replace(job, due=clock + self.fleet.upload(job.client, len(job.message)), sent=True)
                    jobs[job.ticket] = job
                    heapq.heappush(due, (job.due, job.ticket))
                    continue
            del jobs[job.ticket]
            if job.lost:
                ctx.meter.events.append(job.lost)
                continue
            update = self._receive(job, ctx, like=arrived[0][0] if arrived else None)
            if update is not None:
                arrived.append((update, len(job.message or b"")))
                memory[job.client] = job.memory
                reports[job.client] = {**update.metrics, "seconds": clock - job.begun, "version": float(update.version)}
        return self._close(state, ctx, arrived, clock, ticket, memory, reports, tuple(jobs.values()))

    def _broadcast(
        self, server: Server, chosen: Sequence[ClientId], clock: float, ticket: int,
        memory: Mapping[ClientId, Memory], ctx: Context,
    ) -> Iterator[Job]:  # fmt: skip
        """Send the model to the chosen clients: one message for all, unless a stage makes each its own."""
        for stage in self.pipeline:
            stage.begin(ctx)
        private = [stage for stage in self.pipeline if type(stage).down is not Stage.down]
        message = encode_model(server)
        base = decode_model(message)
        for i, client in enumerate(chosen):
            drawer = dict(memory.get(client, {}))
            if private:
                own, here = server, replace(ctx, client=client, memory=drawer)
                for stage in private:
                    own = stage.down(own, here)
                message = encode_model(own)
                base = decode_model(message)
            ctx.meter.sent_down("model", len(message))
            epochs = self.training.epochs_of(Task(client, base, self.seed))
            examples = len(self.data.train[self.data.position(client)]) * epochs
            seconds = self.fleet.download(client, len(message))
            seconds += self.fleet.compute(client, examples, partial(stream, self.seed, "compute", server.version, client))
            gone = self.fleet.drops(client, partial(stream, self.seed, "drop", server.version, client))
            lost = f"client {client!r} dropped out" if gone else ""
            yield Job(clock + seconds, ticket + i, client, ctx.cohort, base, drawer, clock, lost)

    def _train(self, jobs: Mapping[int, Job], trainer: Trainer, ctx: Context) -> dict[int, Job]:
        """Local training and the client halves of the stages, for all jobs that have not been trained yet, together."""
        todo = [job for job in jobs.values() if job.message is None and not job.lost]
        done = dict(jobs)
        for job, (task, update) in zip(todo, self._train_cohort(todo, trainer), strict=True):
            here = replace(ctx, server=job.base, cohort=job.cohort, client=job.client, memory=task.memory)
            try:
                if isinstance(update, ClientFailure):
                    raise update
                if not np.isfinite(update.delta).all():
                    raise ClientFailure("its update is not finite: the training diverged; lower the learning rate")
                message = encode_update(client_half(self.pipeline, update, here))
                done[job.ticket] = replace(job, message=message, memory=task.memory)
            except ClientFailure as why:
                lost = f"client {job.client!r} failed in version {job.base.version}: {why}"
                if self.strict:
                    raise ClientFailure(lost) from why
                done[job.ticket] = replace(job, lost=lost)
        return done

    def _train_cohort(self, jobs: Sequence[Job], trainer: Trainer) -> list[tuple[Task, Update | ClientFailure]]:
        """All together. If somebody among them cannot go on, each alone: nobody's result depends on who else trains."""
        tasks = [Task(job.client, job.base, self.seed, dict(job.memory)) for job in jobs]
        try:
            return list(zip(tasks, trainer.train(tasks), strict=True))
        except ClientFailure as why:
            if len(jobs) == 1:
                return [(tasks[0], why)]
            return [pair for job in jobs for pair in self._train_cohort([job], trainer)]

    def _receive(self, job: Job, ctx: Context, like: Update | None) -> Update | None:
        """Decode an answer and check it. An invalid or too old one is recorded and left out."""
        version, meter = ctx.server.version, ctx.meter
        meter.sent_up("update", len(job.message or b""))
        try:
            update = decode_update(job.message or b"")
            check_update(update, job.client, job.base, like)
        except WireError as why:
            event = f"the answer of client {job.client!r} in version {version} was refused: {why}"
            if self.strict:
                raise WireError(event) from why
            meter.events.append(event)
            return None
        age, limit = version - update.version, self.schedule.max_staleness
        if limit is not None and age > limit:
            meter.events.append(f"the answer of client {job.client!r} was refused: {age} versions old, the limit is {limit}")
            meter.notes["too_stale"] = meter.notes.get("too_stale", 0.0) + 1
            return None
        return update

    def _close(
        self, before: State, ctx: Context, arrived: list[tuple[Update, int]], clock: float, ticket: int,
        memory: dict[ClientId, Memory], reports: dict[ClientId, Any], jobs: tuple[Job, ...],
    ) -> tuple[State, Record]:  # fmt: skip
        """Sum, undo the stages in reverse, step, evaluate, record. The order of the sum is that of the names."""
        server = before.server
        arrived = sorted(arrived, key=lambda pair: (isinstance(pair[0].client, str), pair[0].client))
        updates = [update for update, _ in arrived]
        staleness = tuple(server.version - update.version for update in updates)
        ctx = replace(ctx, server=server, arrived=tuple(update.client for update in updates))
        if updates:
            aggregate = server_half(self.pipeline, self.aggregation.combine(updates, staleness), ctx)
        else:
            ctx.meter.events.append("no update arrived")
            noisy = [stage for stage in self.pipeline if stage.noisy]
            aggregate = server_half(noisy, Aggregate(np.zeros(server.params.shape), 0.0), ctx)
        after = server
        if aggregate.weight > 0:
            after = self.optimizer.step(server, aggregate)
            if updates and self.training.correction is not None:
                after = self.training.correction.absorb(after, aggregate, len(updates), len(self.clients))
        extras, private = {**after.extras, **ctx.broadcast}, {**after.state, **ctx.state}
        after = replace(after, version=server.version + 1, extras=extras, state=private)
        if not self.schedule.keeps_stragglers:
            ctx.meter.events.extend(f"the answer of client {job.client!r} was too late" for job in jobs)
            jobs = ()
        metrics = {**training_metrics(updates), "drift": drift(updates), **ctx.meter.notes}
        if self.evaluation.due(after.version):
            metrics |= self.evaluation.measure(self.model, self.data, after, ctx.meter)
        record = Record(
            version=after.version, clock=clock, clients=ctx.arrived, staleness=staleness,
            upload=tuple(nbytes for _, nbytes in arrived), bytes_up=ctx.meter.up, bytes_down=ctx.meter.down,
            events=tuple(ctx.meter.events), metrics={name: value for name, value in metrics.items() if value == value},
        )  # fmt: skip
        return State(after, clock, ticket, memory, reports, jobs), record

    def train(self, rounds: int, state: State | None = None, progress: bool = False) -> History:
        """The for loop, written once: run so many rounds and return their history. A bar shows how it goes."""
        history = History(experiment=describe(self), state=state or self.initial())
        steps = self.run(rounds, history.state)
        with progress_bar(rounds, shown=progress) as bar:
            while True:
                try:
                    history.state, record = next(steps)
                except StopIteration as end:
                    history.stopped = end.value or ""
                    return history
                history.records.append(record)
                bar(record)
