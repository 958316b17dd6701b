"""The books: whose ledger it is, what it prices, and up to when it is complete. Released if and only if charged.

    prices       kept in                            complete up to            by
    "sums"       server.state["ledger"]             a version of the model    CentralDP, TreeDP, DistributedNoise
    "messages"   the client's memory["books"]       one of its messages       LocalDP
    "examples"   the client's memory["books"]       one of its messages       DPSGD

A state can come from another experiment, whose rounds these books have not seen: plain ones, or those of a stage that prices
something else. That a ledger is there says nothing about them, so each says up to where it knows everything, and whoever opens
it later charges what lies between as NonPrivate, which costs infinity. The loop counts a client's messages when they leave it,
in memory["books"]["sent"], and keeps the books of a drawer from then on, whether or not the server hears or accepts them.

A ledger knows the way to its own state and no other. Whoever goes on twice from one state releases twice, and each of the two
ledgers books one: save a state *before* its model leaves the house, and let one run go on from it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

from ..core import BudgetSpent, Context, Memory
from ..federation.sampling import PoissonSelection, UniformSelection
from .accounting import Event, Ledger, NonPrivate

NOT_COVERED = ("epsilon covers the models, not what else this record shows: training losses, drift, per-client accuracy, "
               "byte counts and who took part")
MAY_READ = "may read what clients reported"
OWN_CHOICE = "{} chooses whom to ask, and " + MAY_READ + ": epsilon covers the sums for a given choice, not the choice"
KNOWN_SEED = "the noise seed is known: this run is not private, for whoever knows the seed can subtract the noise"
NO_NOISE = "epsilon is infinite: something was released without noise, and nobody is protected"


def opened(blank: Ledger, plain: dict[str, Any] | None, prices: str, now: int, gap: str, ahead: int = 0) -> Ledger:
    """The blank ledger with the events of `plain`, which must price the same; `gap` says what was missed up to `now`."""
    complete = 0
    if plain is not None and plain.get("prices") == prices:
        complete = plain["complete"]
        blank = replace(blank, events=Ledger.from_plain(plain).events)
    if not isinstance(complete, int) or not 0 <= complete <= now + ahead:
        raise ValueError(f"the ledger of the {prices} is complete up to {complete!r}, in a state at {now}: they do not belong "
                         "together")
    return blank.charge(NonPrivate(gap), now - complete) if now > complete else blank


def written(ledger: Ledger, prices: str, complete: int) -> dict[str, Any]:
    """The ledger as plain data, with what it prices and up to where it is complete."""
    return ledger.to_plain() | {"prices": prices, "complete": complete}


# --- the server's: one line a version --------------------------------------------------------------------------------------


def open_ledger(blank: Ledger, state: Mapping[str, Any], version: int = 0) -> Ledger:
    """The ledger of the sums up to this version of the model. What other stages, or none, released is NonPrivate."""
    return opened(blank, state.get("ledger"), "sums", version, "versions of the model that this ledger has not seen")


def nothing_yet(ctx: Context, ledger: Ledger) -> None:
    """To be written when a round begins that may be aborted: up to here the books are complete, and nothing is charged."""
    ctx.state["ledger"] = written(ledger, "sums", ctx.server.version + 1)


def keep_books(stage: Any, ctx: Context, ledger: Ledger, rounds_left: Callable[[], int], longest: float = 0.0) -> None:
    """Write the charged ledger where checkpoints find it, and tell what it says.

    longest: the largest norm of an answer that may still be under way when this round is over; see `longest_under_way`.
    """
    longest = longest if ctx.experiment.schedule.keeps_stragglers else 0.0
    before = ctx.server.state.get("ledger", {})
    ctx.state["ledger"] = written(ledger, "sums", ctx.server.version + 1) | {"longest": longest}
    ctx.meter.notes.update({"epsilon": ledger.spent(), "delta": ledger.delta})
    if ledger.budget_epsilon is not None:
        ctx.meter.notes["rounds_left"] = float(rounds_left())
    if before.get("prices") != "sums" or before["complete"] != ctx.server.version or not before["events"]:
        ctx.meter.events.append(NOT_COVERED)                     # the first of these rounds, or the first after others
        if type(selector := ctx.experiment.selection) not in (UniformSelection, PoissonSelection):
            told = f"reads their {' and '.join(selector.reads)}" if selector.reads else MAY_READ
            ctx.meter.events.append(OWN_CHOICE.format(type(selector).__name__).replace(MAY_READ, told))
    tell_known_seed(ctx, stage.noise_seed is not None)
    if math.isinf(ledger.spent()):
        ctx.meter.events.append(NO_NOISE)


def longest_under_way(ctx: Context, bound: float) -> float:
    """The largest norm with which an answer can enter this sum: `bound`, or that of an earlier experiment, for the answers
    that were under way when the run went on with another clip bound."""
    return max(bound, ctx.server.state.get("ledger", {}).get("longest", 0.0))


def afford(ledger: Ledger, event: Event, version: int) -> None:
    """BudgetSpent, unless one more `event` stays within the budget."""
    if not ledger.can_afford(event):
        raise BudgetSpent(f"after {version} rounds {spent(ledger, event)}")


def spent(ledger: Ledger, event: Event) -> str:
    """Why `event` cannot be afforded."""
    return (f"the privacy budget is spent: epsilon is {ledger.spent():.3f}, and one more round would make it "
            f"{ledger.charge(event).spent():.3f}, above the budget of {ledger.budget_epsilon:g} at delta {ledger.delta:g}")


def tell_known_seed(ctx: Context, known: bool) -> None:
    """A round whose noise can be drawn again, now or on the way to this state: no later round makes up for it."""
    before = bool(ctx.server.state.get("known seed"))
    if known or before:
        ctx.state["known seed"] = True
        ctx.meter.notes["not_private"] = 1.0
        if not before and KNOWN_SEED not in ctx.meter.events:
            ctx.meter.events.append(KNOWN_SEED)


def rounds_left(ledger: Ledger, event: Event) -> int:
    """How many more of `event` the budget pays for; the search is made once for a run of equal events."""
    used = dict(ledger.events).get(event, 0)
    others = tuple((past, count) for past, count in ledger.events if past != event)
    return max(_total_rounds(replace(ledger, events=others), event) - used, 0)


@lru_cache(maxsize=64)
def _total_rounds(ledger: Ledger, event: Event) -> int:
    return ledger.rounds_remaining(event)


# --- a client's own: one line a message ------------------------------------------------------------------------------------


def own_ledger(blank: Ledger, memory: Memory, prices: str) -> Ledger:
    """What this client has released so far. Messages that these books have not seen are NonPrivate."""
    books = memory.get("books", {})
    gap = f"messages that this ledger of {prices} has not seen"
    return opened(blank, books.get(prices), prices, books.get("sent", 0), gap, ahead=1)      # one may not have left yet


def keep_own(memory: Memory, prices: str, ledger: Ledger) -> None:
    """Write the ledger, charged with the message that is about to leave. If it never does, the drawer is not kept."""
    books = memory.get("books", {})
    memory["books"] = {**books, prices: written(ledger, prices, books.get("sent", 0) + 1)}
