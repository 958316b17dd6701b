"""From the wish for some clients to jobs under way: who is there, what a selector asks first, and the broadcast."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import partial
from itertools import compress
from typing import Any

import numpy as np

from ..core import ClientId, Context, Memory, Task, changed, stream
from ..data.federated import FederatedData
from ..wire.messages import WireError, decode_model, encode_model, frame, unframe
from .clock import exact, later
from .fleet import checked_away, checked_drop, checked_seconds, waited
from .interfaces import Experiment, Fleet, Look, Stage
from .sampling import checked
from .state import Job, heard
from .work import in_words, no_exit


@dataclass
class Idle:
    """Who of the clients of a run is idle: a mark each, so that ten thousand cost no more than a list of those who are."""

    clients: tuple[ClientId, ...]           # in the order in which selectors are offered them
    marks: bytearray = field(init=False, repr=False)
    place: dict[ClientId, int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.place = {client: i for i, client in enumerate(self.clients)}
        self.marks = bytearray(b"\x01") * len(self.clients)

    def takes(self, busy: Iterable[ClientId]) -> None:
        for client in busy:
            self.marks[self.place[client]] = 0

    def begins(self, busy: Iterable[ClientId]) -> None:
        """A new step: all are idle but these."""
        self.marks = bytearray(b"\x01") * len(self.clients)
        self.takes(busy)

    def ends(self, client: ClientId) -> None:
        self.marks[self.place[client]] = 1

    def __iter__(self) -> Iterator[ClientId]:
        return compress(self.clients, self.marks)


def present(fleet: Fleet, idle: Sequence[ClientId], clock: Decimal) -> tuple[list[ClientId], Decimal | None]:
    """Those of the idle clients who can be asked now, and the instant at which the next of the others can; None: none will."""
    if type(fleet).away is Fleet.away:
        return list(idle), None
    waits = [checked_away(fleet, client, fleet.away(client, float(clock))) for client in idle]
    here = [client for client, wait in zip(idle, waits, strict=True) if wait == 0]
    back = min((wait for wait in waits if 0 < wait < math.inf), default=None)
    return here, None if back is None else max(later(clock, exact(back)), exact(math.nextafter(float(clock), math.inf)))


def ask(
    experiment: Experiment, data: FederatedData, ctx: Context, idle: Sequence[ClientId], wanted: int, rng: np.random.Generator,
    reports: MutableMapping[ClientId, Mapping[str, Any]],
) -> Decimal:  # fmt: skip
    """Put the selector's question to whom it wants to ask, and write the answers into the reports. Returns the simulated
    seconds until the slowest has answered, or would have."""
    selector, fleet, server, meter = experiment.selection, experiment.fleet, ctx.server, ctx.meter
    asked = checked(selector.asks(idle, wanted, rng, reports), idle, "asks")
    if not asked:
        return Decimal(0)
    version, slowest, crashes = server.version, Decimal(0), []
    question = encode_model(server) if selector.sends_model else frame("question", [version])
    base = decode_model(question, experiment.model.dim) if selector.sends_model else replace(server, state={})
    for client in asked:
        luck = [partial(stream, ctx.seed, purpose, version, client) for purpose in ("probe compute", "probe drop")]
        rows = data.train[data.position(client)]
        meter.sent_down("probe", len(question))
        ends = checked_seconds(fleet, "download", client, fleet.download(client, len(question)))
        seconds = fleet.compute(client, selector.cost(len(rows)), luck[0])
        ends = later(ends, checked_seconds(fleet, "compute", client, seconds))
        if checked_drop(fleet, client, fleet.drops(client, luck[1])):
            meter.events.append(f"client {client!r} dropped out before it answered what the selector asked")
        else:
            try:
                with no_exit():
                    answer = selector.answer(Look(client, base, data.x[rows], data.y[rows], experiment.model, ctx.seed))
                message = frame("probe", [client, version, dict(answer)])
                answers = _answers(message, client, version)
            except Exception as why:
                lost = f"client {client!r} failed to answer what the selector asked: {in_words(why)}"
                why.add_note(lost)
                if getattr(experiment, "strict", False):
                    raise
                meter.events.append(lost)
                crashes.append(why)
            else:
                meter.sent_up("probe", len(message))
                ends = later(ends, checked_seconds(fleet, "upload", client, fleet.upload(client, len(message))))
                known = {name: value for name, value in reports.get(client, {}).items() if not name.startswith("probe_")}
                reports[client] = {**known, **answers, "probe_version": version}
        slowest = max(slowest, ends)
    # As in work.py: nobody can, so it is a bug and no client's trouble. One alone proves nothing, unless nobody ever answered.
    if crashes and len(crashes) == len(asked) and (len(asked) > 1 or not heard(reports)):
        raise crashes[0]
    return slowest


def _answers(message: bytes, client: ClientId, version: int) -> dict[str, Any]:
    """What arrived, checked: finite numbers and arrays of numbers under short names, and of whom it should be."""
    body = unframe(message, "probe", 10_000)
    if not isinstance(body, list) or len(body) != 3 or body[:2] != [client, version] or not isinstance(body[2], dict):
        raise WireError("a probe's answer must hold its client, the version and named values")
    for name, value in body[2].items():
        if not isinstance(value, int | float | np.ndarray) or isinstance(value, bool) or not np.isfinite(value).all():
            raise WireError(f"its answer {name!r} is {value!r}, not finite numbers"[:300])
    return {f"probe_{name}": value for name, value in body[2].items()}


def broadcast(
    experiment: Experiment, ctx: Context, chosen: Sequence[ClientId], clock: Decimal, ticket: int,
    memory: Mapping[ClientId, Memory],
) -> Iterator[tuple[Decimal, Job, bytes]]:  # fmt: skip
    """Send the model to the chosen clients: one message for all, unless a stage makes each its own. Yields the jobs, each
    with the exact instant at which its training ends, and the message."""
    server, training, fleet, data = ctx.server, experiment.training, experiment.fleet, experiment.data
    for stage in experiment.pipeline:
        stage.begin(ctx)
    if training.private is not None:
        training.private.begin(ctx)
    clock = later(clock, waited(ctx.meter))
    private = [stage for stage in experiment.pipeline if type(stage).down is not Stage.down]
    message, base = b"", server
    if not private:
        message = encode_model(server)
        base = decode_model(message, experiment.model.dim)
    for i, client in enumerate(chosen):
        drawer = dict(memory.get(client, {}))
        if private:
            own, here = server, changed(ctx, client=client, memory=drawer)
            for stage in private:
                own = stage.down(own, here)
            message = encode_model(own)
            base = decode_model(message, experiment.model.dim)
        ctx.meter.sent_down("model", len(message))
        try:
            passes = training.passes(Task(client, base, ctx.seed), experiment.model)
        except (Exception, SystemExit):         # it will be raised again when this client trains, as its own failure
            passes = 1
        examples = len(data.train[data.position(client)]) * passes
        luck = [partial(stream, ctx.seed, purpose, server.version, client) for purpose in ("compute", "drop")]
        there = later(clock, checked_seconds(fleet, "download", client, fleet.download(client, len(message))))
        ends = later(there, checked_seconds(fleet, "compute", client, fleet.compute(client, examples, luck[0])))
        job = Job(
            float(ends), ticket + i, client, ctx.cohort, base, drawer, float(clock),
            downloaded=float(there), trained=float(ends), received=len(message),
        )  # fmt: skip
        gone = checked_drop(fleet, client, fleet.drops(client, luck[1]))
        yield ends, changed(job, lost=job.dropped_out) if gone else job, message
