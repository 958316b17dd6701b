"""Federations of a handful of examples, and parts with simple, known behaviour, for the tests of the loop."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from fl_course import Coordinator, FederatedData, Fleet, LocalSGD, Selector, Stage, Synchronous, Uniform, logistic
from fl_course.core import stream

DIM, CLASSES = 5, 3


def federation(sizes=(8, 8, 8, 8, 8, 8), ids=None, tests: int = 3, seed: int = 0, order=None) -> FederatedData:
    """Clients of the given numbers of training examples. `order`: the same clients, listed in another order."""
    rng = stream(seed, "test-federation")
    ids = list(range(len(sizes)) if ids is None else ids)
    ends = np.cumsum([size + tests for size in sizes])
    x = rng.standard_normal((ends[-1], DIM)).astype(np.float32)
    y = rng.integers(0, CLASSES, ends[-1])
    parts = np.split(np.arange(ends[-1]), ends[:-1])
    train, test = [part[tests:] for part in parts], [part[:tests] for part in parts]
    places = range(len(ids)) if order is None else order
    x_test, y_test = rng.standard_normal((20, DIM)).astype(np.float32), rng.integers(0, CLASSES, 20)
    return FederatedData(
        "small", x, y, CLASSES, tuple(ids[k] for k in places), tuple(train[k] for k in places),
        tuple(test[k] for k in places), x_test, y_test, made=f"seed {seed}",
    )  # fmt: skip


def experiment(data: FederatedData | None = None, **changes: Any) -> Coordinator:
    """Logistic regression, two epochs of batches of 4, half of the clients a round."""
    parts = {"training": LocalSGD(lr=0.1, epochs=2, batch_size=4), "schedule": Synchronous(0.5)} | changes
    return Coordinator(data or federation(), logistic(DIM, CLASSES), **parts)


def final(it: Coordinator, rounds: int = 4) -> bytes:
    """The model after so many rounds, as bytes."""
    return it.train(rounds).state.server.params.tobytes()


@dataclass(frozen=True)
class Timed(Fleet):
    """Known seconds of training by client, one number for every upload, and clients that always vanish."""

    seconds: dict[Any, float]
    up: float = 0.0
    gone: tuple[Any, ...] = ()

    def compute(self, client, examples, luck):
        return self.seconds[client]

    def upload(self, client, nbytes):
        return self.up

    def drops(self, client, luck):
        return client in self.gone


@dataclass(frozen=True)
class InOrder(Selector):
    """The first k of those that are idle."""

    def select(self, idle, k, rng, reports):
        return list(idle[:k])


@dataclass(frozen=True)
class Spy(Stage):
    """Changes nothing and remembers what passes: cohorts asked, updates sent, sums received."""

    asked: list = field(default_factory=list, repr=False)
    sent: list = field(default_factory=list, repr=False)
    sums: list = field(default_factory=list, repr=False)
    noisy: bool = False

    def begin(self, ctx):
        self.asked.append((ctx.server.version, ctx.cohort))

    def client(self, update, ctx):
        self.sent.append(update)
        return update

    def server(self, aggregate, ctx):
        self.sums.append(aggregate)
        return aggregate


@dataclass(frozen=True)
class Half(Stage):
    """Sends half of the update and keeps the rest for next time: a residual in the client's drawer, a count at the server."""

    def client(self, update, ctx):
        whole = update.delta + ctx.memory.get("residual", np.float32(0))
        ctx.memory["residual"] = whole / 2
        ctx.memory["times"] = ctx.memory.get("times", 0) + 1
        return replace(update, delta=whole / 2)

    def server(self, aggregate, ctx):
        ctx.state["sums"] = ctx.server.state.get("sums", 0) + 1
        ctx.broadcast["hint"] = np.full(2, ctx.state["sums"], np.float32)
        return aggregate


@dataclass(frozen=True)
class Lie(Stage):
    """One client's answer, changed on the client by any function of it."""

    client_id: Any
    how: Any = field(repr=False)

    def client(self, update, ctx):
        return self.how(update) if update.client == self.client_id else update


UNIFORM = Uniform()


def named(value: object) -> str:
    """The name of a case. Workers that share the tests among them must find the same, so no object's address is in it."""
    return re.sub(r" at 0x[0-9A-Fa-f]+", "", str(value))


def damaged(whole):
    """The bytes of a checkpoint, damaged in five ways: name -> bytes."""
    flipped, newer = bytearray(whole), bytearray(whole)
    flipped[len(whole) // 2] ^= 4
    newer[3] += 1                            # the format's number stands behind the magic
    return {"truncated": whole[:-7], "bit-flipped": flipped, "empty": b"", "foreign": b"PK\x03\x04" + whole,
            "other version": newer}  # fmt: skip
