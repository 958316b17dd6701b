"""What clients do with a job: local training and the client halves of the stages. Who fails costs no answer but its own.

A ClientFailure is said on purpose. Any other exception, or None where an update should be, may be one client's trouble (its
data, its memory) or a bug in the program. It is a bug if it happens to everybody who trains: then the first exception is
raised as it was. Otherwise the run goes on, with an event, and a Python warning at the first one. An interrupt is nobody's
failure: it ends the run.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

import numpy as np

from ..core import BudgetSpent, ClientFailure, ClientId, Context, Task, Update, changed
from ..data.federated import FederatedData
from ..wire.frames import Rooms
from ..wire.messages import encode_update
from ..wire.payloads import finite
from .agenda import Agenda
from .clock import exact, later
from .interfaces import Attack, Look, Schedule, Selector, Stage
from .stages import client_half
from .state import Job


@dataclass
class Work:
    """The local work of one run."""

    trainer: Any                            # engine.training.Trainer: train(tasks) -> updates, in the order of the tasks
    stages: Sequence[Stage]
    strict: bool = False                    # raise at the first failure
    attack: Attack | None = None            # who is not honest
    warned: bool = False
    crashed: set[int] = field(default_factory=set, init=False)      # jobs that were lost to an exception that nobody foresaw
    session: Mapping[str, Any] = field(default_factory=dict)        # what the session of every version begins with
    rooms: Rooms = field(default_factory=Rooms, repr=False)     # where long messages lie

    @property
    def data(self) -> FederatedData:
        return self.trainer.data

    def agenda(self, schedule: Schedule, clients: int, opened: Decimal, jobs: Sequence[Job]) -> Agenda:
        """What comes next, on the simulated clock."""
        return planned(schedule, clients, opened, jobs)

    def here(self, idle: Sequence[ClientId]) -> Sequence[ClientId]:
        """All of them: they are in this process. These three are for clients that are elsewhere (elsewhere.py)."""
        return idle

    def hand(self, job: Job, message: bytes) -> None:
        """A job was made; message: the broadcast."""

    def forget(self, jobs: Sequence[Job]) -> None:
        """Nobody waits for these any more."""

    def finish(self, jobs: Mapping[int, Job], ctx: Context, heard: bool) -> dict[int, Job]:
        """Train and encode, together, all jobs that have not been trained yet. heard: has anybody ever answered?"""
        todo = [job for job in jobs.values() if job.message is None and not job.lost]
        done, crashes = dict(jobs), []
        for job, (task, update) in zip(todo, self._struck(self._train(todo, ctx.seed), ctx), strict=True):
            # The session belongs to ctx's version. A job of an earlier one, whose session was empty, finds it empty.
            session = ctx.session if job.base.version == ctx.server.version else {}
            here = changed(ctx, server=job.base, cohort=job.cohort, client=job.client, memory=task.memory, session=session)
            try:
                if isinstance(update, Exception):
                    raise update
                if not finite(update.delta) and not self._controls(job.client):
                    raise ClientFailure("its update is not finite: the training diverged; lower the learning rate")
                with no_exit():
                    message = encode_update(client_half(self.stages, self._told(update, job, ctx), here), self.rooms)
                done[job.ticket] = changed(job, message=message, memory=task.memory)
            except BudgetSpent:
                raise
            except Exception as why:
                lost = f"client {job.client!r} failed in version {job.base.version}: {in_words(why)}"
                if isinstance(why, ClientFailure):
                    if self.strict:
                        raise ClientFailure(lost) from why
                else:
                    why.add_note(lost)
                    if self.strict:
                        raise
                    crashes.append((why, lost))
                    self.crashed.add(job.ticket)
                done[job.ticket] = changed(job, lost=lost)
        if crashes:
            # One client alone proves nothing, unless nobody has ever answered.
            if len(crashes) == len(todo) and (len(todo) > 1 or not heard):
                raise crashes[0][0]
            self._warn(crashes[0][1])
        return done

    def _train(self, jobs: Sequence[Job], seed: int) -> list[tuple[Task, Update | Exception]]:
        """All together. If somebody among them cannot go on, each alone: nobody's result depends on who else trains."""
        tasks = [Task(job.client, job.base, seed, dict(job.memory)) for job in jobs]
        try:
            with no_exit():
                updates = _given(self.trainer.train(tasks), Sequence)
            return [(task, _given(update, Update)) for task, update in zip(tasks, updates, strict=True)]
        except BudgetSpent:
            raise
        except Exception as why:
            if len(jobs) == 1:
                return [(tasks[0], why)]
            return [pair for job in jobs for pair in self._train([job], seed)]

    def _told(self, update: Update, job: Job, ctx: Context) -> Update:
        """With what the selector wants to hear of those that train, at the model that they were sent."""
        selector = ctx.experiment.selection
        if type(selector).tells is Selector.tells:
            return update
        x, y = self.trainer.data.examples(job.client)
        told = selector.tells(Look(job.client, job.base, x, y, ctx.experiment.model, ctx.seed))
        return replace(update, metrics={**told, **update.metrics})

    def _controls(self, client: ClientId) -> bool:
        return self.attack is not None and client in self.attack.clients

    def _struck(self, pairs: list[tuple[Task, Update | Exception]], ctx: Context) -> list[tuple[Task, Update | Exception]]:
        """The same, with the updates of clients that an attack controls replaced. Who failed to train cannot attack."""
        honest = {i: update for i, (_, update) in enumerate(pairs) if isinstance(update, Update)}
        if self.attack is None or not any(self._controls(update.client) for update in honest.values()):
            return pairs
        struck = _given(self.attack.strike([pairs[i][0] for i in honest], list(honest.values()), ctx), Sequence)
        after = dict(zip(honest, struck, strict=True))
        for i, was in honest.items():
            if after[i] is not was and not (isinstance(after[i], Update) and self._controls(was.client)):
                raise TypeError(f"{self.attack!r} returned {after[i]!r}"[:200] + f" for client {was.client!r}, in its place")
        return [(task, after.get(i, update)) for i, (task, update) in enumerate(pairs)]

    def _warn(self, lost: str) -> None:
        if not self.warned:
            self.warned = True
            warnings.warn(
                f"{lost} (its answer is left out and the run goes on; strict=True raises; said once a run, the rest is in "
                "record.events)", RuntimeWarning, stacklevel=2,
            )  # fmt: skip


def planned(schedule: Schedule, clients: int, opened: Decimal, jobs: Sequence[Job]) -> Agenda:
    """The agenda of a step that begins now, with these jobs under way."""
    due = [(exact(job.due), job.ticket) for job in jobs]
    return Agenda.opened(schedule, clients, opened, later(opened, exact(schedule.deadline)), due)


def poisoned(data: FederatedData, attack: Attack) -> FederatedData:
    """The data as the clients train on it. TypeError or ValueError if the attack reached further than its clients' hands."""
    after = attack.poison(data)
    if not isinstance(after, FederatedData):
        raise TypeError(f"{attack!r} made {after!r}"[:200] + " of the data; is a `return` missing?")
    if after.ids != data.ids or after.x.shape[1:] != data.x.shape[1:]:
        raise ValueError(f"{attack!r} changed who is there or the shape of an example, not only what its clients train on")
    for client, rows, before in zip(data.ids, after.train, data.train, strict=True):
        mine = client in attack.clients
        if not mine and not (np.array_equal(after.x[rows], data.x[before]) and np.array_equal(after.y[rows], data.y[before])):
            raise ValueError(f"{attack!r} changed the examples of client {client!r}, which it does not control")
    return after


@contextmanager
def no_exit() -> Iterator[None]:
    """sys.exit() in a client's code is a failure of that client, and does not end the server's process."""
    try:
        yield
    except SystemExit as left:
        raise RuntimeError(f"it called sys.exit({left.code!r})") from left


def in_words(why: Exception, width: int = 300) -> str:
    """One line: a failure's own words, or the type of an exception that nobody foresaw and what it says."""
    text = str(why) if isinstance(why, ClientFailure) else f"{type(why).__name__}: {why}"
    text = " ".join(text.split())
    return text if len(text) <= width else text[:width] + " …"


def _given(result: Any, kind: type) -> Any:
    if not isinstance(result, kind):
        raise TypeError(f"the training returned {result!r} where {kind.__name__} was expected; is a `return` missing?")
    return result
