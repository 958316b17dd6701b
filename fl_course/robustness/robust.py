"""What all robust rules share. A rule reads single updates, and a client may send whatever it likes.

    one client, one vote     an update is divided by the weight that it came with, and every client counts once: a weight is
                             what a client says of itself. Two answers of one client in a buffer are averaged to one vote
    what is no number        NaN, infinite, or no float32 once it is divided: removed and named, never averaged. Whoever is
                             removed so was one of the f, and so was whose answer was refused on receipt: rubbish stalls no round
    too few                  a rule that withstands f needs `least` updates. Where the cohort is known, the experiment is
                             refused; in a round with fewer the model stays as it was, and the record says why
    float64                  inside. The numbers are those on the wire: behind Rotate() of the rotated update, which changes
                             nothing for lengths and distances, and makes a median another one

What a rule leaves out stands in Aggregate.removed. A rule that moves or weighs updates, and drops nobody, accuses nobody.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..core import Aggregate, ClientId, Context, Update, is_whole, plain_counts
from ..federation.interfaces import Aggregation, Experiment
from ..wire.payloads import numbers
from .rules import refuse_unsound

LARGEST = float(np.finfo(np.float32).max)


class Robust(Aggregation):
    """Abstract. A rule has a field or attribute f, how many of a step's updates may lie, and overrides `weigh`."""

    f: int = 0
    accuses = True      # it leaves out whole updates, so whom it leaves out can be held against the truth
    whole = False       # it compares whole updates, so that most may send nothing for most numbers. Unknown means no

    @property
    def least(self) -> int:
        """The fewest updates that this rule works with: n > 2f, unless it needs more."""
        return 2 * self.f + 1

    def weigh(self, x: np.ndarray, ctx: Context | None) -> tuple[np.ndarray, np.ndarray]:
        """x (n, d) float64, finite, n ≥ least. Returns the answer (d,), and which rows are in it at all, (n,) bool."""
        raise NotImplementedError

    def facing(self, found: int) -> Robust:
        """The same rule when so many of the f have already been found out."""
        return replace(self, f=max(0, self.f - found)) if found and self.f else self             # type: ignore[type-var]

    def __call__(self, x: Any) -> np.ndarray:
        """The answer (d,) float64 to the rows of x (n, d), by hand."""
        rows = np.asarray(x)
        if rows.ndim != 2 or not rows.size or rows.dtype.kind not in "fiu":
            raise ValueError(f"x must have a row of numbers for each client, (n, d), not the shape {rows.shape} of {rows.dtype}")
        rows = rows.astype(np.float64, copy=False)
        good = readable(rows)
        rule = self.facing(int((~good).sum()))
        rule.refuse_few(int(good.sum()))
        return rule.weigh(rows if good.all() else rows[good], None)[0]

    def combine(self, updates: Sequence[Update], staleness: Sequence[int], ctx: Context | None = None) -> Aggregate:
        clients, x = votes(updates)
        good = readable(x)
        removed = [client for client, fine in zip(clients, good, strict=True) if not fine]
        if ctx is not None:
            ctx.meter.events.extend(f"the update of client {client!r} is left out: not all are numbers" for client in removed)
        rule = self.facing(len(removed) + (0 if ctx is None else ctx.meter.counts.get("refused", 0)))
        try:
            rule.refuse_few(int(good.sum()))
        except ValueError as why:
            if ctx is None or getattr(ctx.experiment, "strict", False):
                raise
            ctx.meter.events.append(f"{why}; the model stays as it was")
            return Aggregate(np.zeros(x.shape[1]), 0.0, removed=tuple(removed))
        answer, inside = rule.weigh(x if good.all() else x[good], ctx)
        good[good] = inside
        count = float(inside.sum())
        return Aggregate(answer * count, count,
                         removed=tuple(client for client, stays in zip(clients, good, strict=True) if not stays))

    def refuse_few(self, n: int) -> None:
        if n < self.least:
            raise ValueError(f"{self!r} needs {self.least} updates or more, and {n} can be read")

    def check(self, experiment: Experiment) -> None:
        refuse_unsound(self, experiment)


def votes(updates: Sequence[Update]) -> tuple[list[ClientId], np.ndarray]:
    """The clients, each once, and their rows (n, d) float64: delta / weight, averaged where a client answered twice."""
    if not updates:
        raise ValueError("nothing to combine: no update arrived")
    rows: dict[ClientId, list[np.ndarray]] = {}
    for update in updates:
        if update.extras:
            raise ValueError(
                f"client {update.client!r} sent {', '.join(update.extras)} beside its update; what travels beside goes past a "
                "robust rule, so a single client could set it at will: leave the method out that sends it"
            )
        delta = numbers(update.delta)
        if not isinstance(delta, np.ndarray) or delta.ndim != 1 or delta.dtype.kind not in "fiu":
            sent = repr(update.delta)[:200]
            raise TypeError(f"a robust rule reads single updates, (d,) numbers; client {update.client!r} sent {sent}")
        with np.errstate(all="ignore"):
            row = delta.astype(np.float64) / update.weight if update.weight > 0 else np.full(delta.size, np.nan)
        rows.setdefault(update.client, []).append(row)
    size = len(next(iter(rows.values()))[0])
    for client, mine in rows.items():
        if any(len(row) != size for row in mine):
            raise ValueError(f"client {client!r} sent an update of another length than {size}")
    with np.errstate(all="ignore"):
        return list(rows), np.array([mine[0] if len(mine) == 1 else np.mean(mine, axis=0) for mine in rows.values()])


def readable(x: np.ndarray) -> np.ndarray:
    """(n,) bool: which rows of x (n, d) are numbers, as far as float32 goes, so that squares can be added in float64."""
    return np.maximum(x.max(axis=1), -x.min(axis=1)) <= LARGEST                # NaN is not


def check_liars(rule: Any) -> None:
    """f is a whole number from 0; NumPy's become Python's."""
    if not is_whole(rule.f, 0):
        raise ValueError(f"f, how many of the updates may lie, must be a whole number from 0, not {rule.f!r}")
    plain_counts(rule)


def everybody(x: np.ndarray) -> np.ndarray:
    """(n,) bool: a rule that drops nobody."""
    return np.ones(len(x), dtype=bool)


def positive(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating) or not 0 < value < math.inf:
        raise ValueError(f"{name} must be a positive, finite number, not {value!r}")
