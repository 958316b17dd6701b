"""A run without training: who is asked when, who is heard when and how stale, at what cost in bytes and simulated seconds.

The clock does not depend on what is learned, so the schedule, the fleet and the selection of an experiment can be tried out in
a moment, with ten thousand devices. The events come from the same agenda as those of the real loop, and the same named
streams tell the same luck; what is left out is training, encoding, decoding, adding up and evaluating.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import cache, partial

import numpy as np

from ..core import ClientId, Context, Record, Server, Span, Task, is_whole, stream
from ..federation.agenda import START, STEP, Agenda
from ..federation.arrival import example
from ..federation.clock import exact, later, under_way
from ..federation.dispatch import Idle, present
from ..federation.fleet import checked_drop, checked_seconds
from ..federation.history import History, describe
from ..federation.interfaces import Experiment
from ..federation.sampling import PoissonSelection, UniformSelection, checked
from ..federation.state import by_name
from ..wire.messages import encode_model, encode_update


def message_lengths(experiment: Experiment) -> tuple[Callable[[int], int], Callable[[ClientId, int], int]]:
    """Bytes of the model of a version, and of a client's answer to it, where neither depends on what is in them.

    Of compressed updates it is the length of an honest answer whose numbers are all zero.
    """
    server = Server(np.zeros(experiment.model.dim, np.float32))
    like = example(experiment, Context(experiment.seed, server, experiment=experiment))

    @cache
    def model(version: int) -> int:
        return len(encode_model(replace(server, version=version)))

    shortest = len(encode_update(replace(like, client=0, version=0)))
    by_client = cache(lambda client: len(encode_update(replace(like, client=client, version=0))) - shortest)
    by_version = cache(lambda version: len(encode_update(replace(like, client=0, version=version))))
    return model, lambda client, version: by_client(client) + by_version(version)


@dataclass(slots=True)
class Rehearsed:
    """A job of which only the times are known. `sent`: when its answer left, once it has."""

    client: ClientId
    version: int
    begun: Decimal
    there: Decimal
    trained: Decimal
    due: Decimal
    gone: bool
    sent: Decimal | None = None

    def span(self, ended: Decimal, nbytes: int, fate: str) -> Span:
        instants = float(self.begun), float(self.there), float(self.trained), float(ended)
        return Span(self.client, self.version, *instants, nbytes, fate)


def rehearse(experiment: Experiment, steps: int) -> History:
    """The history of so many server steps, without models and metrics: clock, clients, staleness, bytes, spans.

    It is that of the real run where no answer fails or is refused for what it holds, messages have the length that
    `message_lengths` says, and no stage exchanges messages of its own (a secure sum does). ValueError for a selector that needs
    to hear what clients say.
    """
    if not is_whole(steps, 0):
        raise ValueError(f"steps must be a whole number from 0, not {steps!r}")
    if type(experiment.selection) not in (UniformSelection, PoissonSelection):
        raise ValueError(
            f"{experiment.selection!r} may choose by what clients answer, and in a rehearsal nobody trains; use "
            "UniformSelection() or PoissonSelection(), or the real run"
        )
    rehearsal, records, clock = Rehearsal(experiment), [], Decimal(0)
    jobs: dict[int, Rehearsed] = {}
    for version in range(steps):
        record, clock, jobs = rehearsal.step(version, clock, jobs)
        records.append(record)
    return History(records, f"a rehearsal of {describe(experiment)}")


class Rehearsal:
    """What all steps of one rehearsal share."""

    def __init__(self, experiment: Experiment) -> None:
        self.experiment, self.idle, self.tickets = experiment, Idle(experiment.clients), 0
        self.down, self.up = message_lengths(experiment)
        data, how = experiment.data, experiment.training
        sizes = {client: len(data.train[data.position(client)]) for client in experiment.clients}
        nobody = Server(np.zeros(0, np.float32))

        def work(client: ClientId, version: int) -> float:
            if is_whole(how.epochs) and how.personal is None:
                return sizes[client] * how.epochs
            return sizes[client] * how.passes(Task(client, replace(nobody, version=version), experiment.seed), experiment.model)

        self.work = work

    def step(self, version: int, clock: Decimal, jobs: dict[int, Rehearsed]) -> tuple[Record, Decimal, dict[int, Rehearsed]]:
        """From one server step to the next: the record, the clock, and who is still at work."""
        schedule, fleet, seed, old = self.experiment.schedule, self.experiment.fleet, self.experiment.seed, self.tickets
        self.idle.begins(job.client for job in jobs.values())
        agenda = Agenda.opened(schedule, len(self.idle.clients), clock, later(clock, exact(schedule.deadline)),
                               [(job.due, ticket) for ticket, job in jobs.items()])  # fmt: skip
        arrived: list[tuple[ClientId, int, int]] = []
        spans, events, cohort, nbytes, limit = [], [], 0, {"update": 0, "late": 0, "too_stale": 0}, schedule.max_staleness
        while (event := agenda.next())[0] != STEP:
            now = agenda.clock
            if event[0] == START:
                here, back = present(fleet, list(self.idle), now)
                chosen: tuple[ClientId, ...] = ()
                if here:
                    rng = stream(seed, "select", version, cohort)
                    chosen = checked(self.experiment.selection.select(here, event[1], rng, {}), here)
                    self.idle.takes(chosen)
                    for client in chosen:
                        jobs[self.tickets] = job = self._send(client, version, now)
                        agenda.add(job.due, self.tickets)
                        self.tickets += 1
                    cohort += len(chosen)
                agenda.started(len(chosen) if here else None, back)
                continue
            job = jobs[event[1]]
            length = self.up(job.client, job.version)
            if job.sent is None and not job.gone:
                job.sent = now
                job.due = later(now, checked_seconds(fleet, "upload", job.client, fleet.upload(job.client, length)))
                agenda.add(job.due, event[1])
                continue
            del jobs[event[1]]
            agenda.under_way -= 1
            if event[1] < old:
                self.idle.ends(job.client)
            if job.gone:
                events.append(f"client {job.client!r} dropped out")
                spans.append(job.span(now, 0, "dropped out"))
                continue
            nbytes["update"] += length
            fate = "used" if limit is None or version - job.version <= limit else "too stale"
            spans.append(job.span(now, length, fate))
            if fate == "used":
                agenda.arrived += 1
                arrived.append((job.client, version - job.version, length))
            else:
                nbytes["too_stale"] += 1
        if not schedule.keeps_stragglers:
            for job in jobs.values():
                spans.append(job.span(agenda.clock, 0 if job.sent is None else self.up(job.client, job.version), "too late"))
                if job.sent is not None:
                    nbytes["late"] += under_way(self.up(job.client, job.version), agenda.clock, job.sent, job.due)
            jobs = {}
        for job in jobs.values():                           # as a state carries them: at the nearest float
            job.due, job.begun = exact(float(job.due)), exact(float(job.begun))
        return self._record(version, agenda.clock, arrived, nbytes, cohort, spans, events), exact(float(agenda.clock)), jobs

    def _send(self, client: ClientId, version: int, now: Decimal) -> Rehearsed:
        fleet, seed = self.experiment.fleet, self.experiment.seed
        luck = [partial(stream, seed, purpose, version, client) for purpose in ("compute", "drop")]
        there = later(now, checked_seconds(fleet, "download", client, fleet.download(client, self.down(version))))
        seconds = fleet.compute(client, self.work(client, version), luck[0])
        trained = later(there, checked_seconds(fleet, "compute", client, seconds))
        return Rehearsed(client, version, now, there, trained, trained, checked_drop(fleet, client, fleet.drops(client, luck[1])))

    def _record(
        self, version: int, clock: Decimal, arrived: list[tuple[ClientId, int, int]], nbytes: dict[str, int], asked: int,
        spans: list[Span], events: list[str],
    ) -> Record:  # fmt: skip
        arrived.sort(key=lambda one: by_name(one[0]))
        clients, staleness, upload = zip(*arrived, strict=True) if arrived else ((), (), ())
        up = {name: nbytes[name] for name in ("update", "late") if nbytes[name]}
        return Record(
            version + 1, float(clock), clients, staleness, upload, up, {"model": asked * self.down(version)} if asked else {},
            tuple(events), {"too_stale": float(nbytes["too_stale"])} if nbytes["too_stale"] else {}, tuple(spans),
        )  # fmt: skip
