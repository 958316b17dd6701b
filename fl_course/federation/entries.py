"""What the library's own parts keep in a state, looked at when it comes from a file: by name, where such a part reads it.

A vector that should be as long as the model and has one number would spread over the model without a word; a ledger without
its events would price rounds at nothing. What other people's parts keep is theirs, and is not looked at.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from .state import State

VECTORS = {"FedAvgM": ("m",), "AdaptiveOptimizer": ("m", "v"), "Scaffold": ("control",), "FedDyn": ("h",)}
MAY_BE_INFINITE = ("v", "residual")                     # squares of large numbers, differences of large ones


def check_entries(state: State, experiment: Any) -> None:
    """ValueError, naming the place, for an entry that the parts of this experiment would misread."""
    mine = {kind for part in _parts(experiment) for kind in type(part).__mro__ if kind.__module__.startswith("fl_course.")}
    kinds = {kind.__name__ for kind in mine}
    names = {name for kind in kinds for name in VECTORS.get(kind, ())}
    names |= {"residual"} if any(getattr(part, "feedback", False) is True for part in _parts(experiment)) else set()
    for where, entries, settled in _drawers(state):
        for name in sorted(names & entries.keys()):
            _check_vector(entries[name], name, f"{name} in {where}", experiment.model.dim, settled)
    private = any(type(part).__module__.startswith(("fl_course.privacy.", "fl_course.secure_aggregation."))
                  for part in _parts(experiment))                                                    # fmt: skip
    for where, entries, _ in _drawers(state):
        if where.startswith("the drawer"):
            _check_books(entries.get("books", {}), f"the books in {where}", private)
    if private:
        _check_server(state)
        adaptive = any(getattr(part, "adaptive", None) is not None for part in _parts(experiment))
        if adaptive and (clip := state.server.extras.get("clip")) is not None:
            right = clip.shape == (1,) and clip.dtype.kind == "f" and bool(np.isfinite(clip[0])) and clip[0] > 0
            _require(right, f"the clip bound that is broadcast is {clip!r}, not one positive number")


def _parts(experiment: Any) -> list[Any]:
    training = experiment.training
    parts = [experiment.optimizer, *experiment.stages, getattr(training, "correction", None), getattr(training, "private", None)]
    return [part for part in parts if part is not None]


def _drawers(state: State) -> Iterator[tuple[str, Mapping[str, Any], bool]]:
    """Where it is, what is in it, and whether its round is over: what a client at work has not sent may still be refused."""
    bases = ((f"the model of client {job.client!r}", job.base) for job in state.jobs)
    for name, server in (("the server", state.server), *bases):
        yield f"the state of {name}", server.state, True
        yield f"the broadcast of {name}", server.extras, True
    yield from ((f"the drawer of client {client!r}", drawer, True) for client, drawer in state.memory.items())
    yield from ((f"the drawer of the job of client {job.client!r}", job.memory, False) for job in state.jobs)


def _check_vector(value: Any, name: str, what: str, dim: int, settled: bool) -> None:
    right = isinstance(value, np.ndarray) and value.dtype == np.float32 and value.shape == (dim,)
    _require(right, f"{what} is not {dim} float32 numbers, one a parameter")
    bad = np.isnan(value).any() if name in MAY_BE_INFINITE else not np.isfinite(value).all()
    _require(not (settled and bad), f"{what} holds NaN or infinite values")


def _check_server(state: State) -> None:
    kept, version = state.server.state, state.server.version
    if (ledger := kept.get("ledger")) is not None:
        _check_ledger(ledger, "the ledger of the server", version, given_up=True)
    if (tree := kept.get("tree")) is not None:
        _check_tree(tree, version, ledger)
    epsilon, upto, seed = kept.get("local epsilon", 0.0), kept.get("local version", 0), kept.get("known seed", True)
    _require(_number(epsilon) and epsilon >= 0, f"the epsilon of the clients is {epsilon!r}")                     # NaN fails
    _require(_count(upto) and upto <= version, f"the epsilon of the clients is of version {upto!r}, this is {version}")
    _require(isinstance(seed, bool), f"whether a noise seed is known is {seed!r}")


def _check_ledger(ledger: Any, what: str, now: int, given_up: bool = False) -> None:
    """It has an event for each release up to which it is complete. `given_up`: rounds that were given up released nothing, so
    only the last one, which says `longest` if it was not, is sure to be there."""
    _require(isinstance(ledger, dict), f"{what} is {ledger!r}"[:120])
    complete, events, longest = ledger.get("complete"), ledger.get("events"), ledger.get("longest", 0.0)
    _require(_count(complete) and complete <= now, f"{what} is complete up to {complete!r}, in a state at {now}")
    lines = isinstance(events, list) and all(isinstance(e, list) and len(e) == 2 and isinstance(e[0], dict) and _count(e[1])
                                             for e in events)                                        # fmt: skip
    _require(lines, f"{what} has no list of events and counts")
    _require(_number(longest) and 0 <= longest < math.inf, f"{what} says {longest!r} of the longest answer under way")
    told, least = sum(count for _, count in events), int("longest" in ledger) if given_up else complete
    _require(told >= least, f"{what} is complete up to {complete} and has only {told} events")


def _check_tree(tree: Any, version: int, ledger: Any) -> None:
    _require(isinstance(tree, dict), f"the tree is {tree!r}"[:120])
    settings, began, steps, keys = (tree.get(name) for name in ("settings", "began", "steps", "keys"))
    _require(isinstance(settings, list | tuple) and len(settings) == 4, f"the tree has the settings {settings!r}"[:120])
    right = _count(began) and _count(steps) and steps > 0 and began + steps <= version
    _require(right, f"the tree has {steps!r} steps from {began!r}, in a state at {version}")
    secret = steps.bit_count() if settings[3] is None else 0                # living nodes: one a binary digit
    right = isinstance(keys, list | tuple) and len(keys) == secret and all(isinstance(k, bytes) and len(k) == 32 for k in keys)
    _require(right, f"the tree has not the {secret} keys of 32 bytes of its {steps} steps")
    events = ledger["events"] if ledger is not None else []
    priced = any(event.get("kind") == "TreeAggregation" and event.get("steps") == steps and count for event, count in events)
    _require(priced, f"the ledger does not know a tree of {steps} steps")


def _check_books(books: Any, what: str, private: bool) -> None:
    _require(isinstance(books, dict), f"{what} are {books!r}"[:120])
    for name in ("sent", "tree participations"):
        _require(_count(books.get(name, 0)), f"{what} count {books.get(name)!r} messages ({name})"[:120])
    for prices in ("messages", "examples"):
        if private and books.get(prices) is not None:
            _check_ledger(books[prices], f"the ledger of {prices} in {what}", books.get("sent", 0) + 1)


def _require(right: Any, otherwise: str) -> None:
    if not right:
        raise ValueError(otherwise)


def _count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _number(value: Any) -> bool:
    return isinstance(value, int | float | np.floating) and not isinstance(value, bool)
