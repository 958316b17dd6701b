"""Reading events: the same releases in their simplest form, counted, so that accountants meet few shapes.

What is left: NonPrivate, Gaussian, Laplace, Release, PoissonSampled with 0 < rate < 1, FixedSizeSampled under
replace-one. Here is also where sampling and neighbours are tied: what has no amplification loses its wrapper.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

from ..mechanisms import joint_noise_multiplier
from .events import (
    ChosenBy,
    Composed,
    Event,
    FixedSizeSampled,
    Gaussian,
    Laplace,
    Neighbours,
    NonPrivate,
    PoissonSampled,
    Repeated,
    TreeAggregation,
    check_event,
)


def tally(events: Event | Iterable[Event]) -> dict[Event, int]:
    """Events in their simplest form, each with how often it happened. Order and grouping do not matter to the price.

    Raises ValueError if the releases promise something about different neighbours.
    """
    counts: dict[Event, int] = {}

    def add(event: Event, times: int) -> None:
        event = simplest(event)
        if isinstance(event, Repeated):
            add(event.event, times * event.count)
        elif isinstance(event, Composed):
            for part in event.events:
                add(part, times)
        elif times and not _free(event):
            counts[event] = counts.get(event, 0) + times

    for event in (events,) if isinstance(events, Event) else tuple(events):
        check_event(event)
        add(event, 1)
    relations = {relation for event in counts if (relation := neighbours_of(event))}
    if len(relations) > 1:
        raise ValueError(f"these releases protect against different neighbours, {sorted(relations)}: prices do not add")
    return counts


def _free(event: Event) -> bool:
    """A cohort that is always empty, or noise without bound, tells nothing."""
    if isinstance(event, PoissonSampled):
        return event.rate == 0 or _free(event.event)
    return isinstance(event, Gaussian | Laplace) and math.isinf(event.ratio)


def neighbours_of(event: Event) -> Neighbours | None:
    """The relation that a simplified event speaks about; None for NonPrivate, which protects nobody."""
    if isinstance(event, PoissonSampled | FixedSizeSampled):
        return neighbours_of(event.event)
    return getattr(event, "neighbours", None)


def simplest(event: Event) -> Event:
    """The same release in its simplest form: no noise is NonPrivate, rate 1 is no sampling, a tree is one Gaussian."""
    if isinstance(event, TreeAggregation):
        event = event.as_gaussian
    if isinstance(event, Gaussian | Laplace) and event.ratio < 1e-100:     # beyond what a double can square
        return NonPrivate()
    if isinstance(event, ChosenBy):
        return simplest(unsampled(event.event))
    if isinstance(event, FixedSizeSampled):
        inner = on_one_cohort(event.event)
        everybody = event.cohort == event.clients or neighbours_of(inner) != "replace-one"
        return simplest(inner) if everybody else replace(event, event=inner)
    if isinstance(event, PoissonSampled):
        if chosen(event.event):
            return simplest(unsampled(event.event))             # who else was drawn decides who of them is in
        inner = on_one_cohort(event.event)
        nothing_to_hide = event.rate == 1 or (event.rate > 0 and isinstance(inner, NonPrivate))
        return simplest(inner) if nothing_to_hide else replace(event, event=inner)
    return event


def chosen(event: Event) -> bool:
    """Whether something other than each client's own coin decides who of the cohort is in."""
    if isinstance(event, Composed):
        return any(chosen(part) for part in event.events)
    if isinstance(event, Repeated | PoissonSampled):
        return chosen(event.event)
    return isinstance(event, ChosenBy | FixedSizeSampled)


def unsampled(event: Event) -> Event:
    """The same releases as if everybody took part: no coin amplifies a cohort that was chosen, before or after it."""
    if isinstance(event, Composed):
        return Composed(tuple(unsampled(part) for part in event.events))
    if isinstance(event, Repeated):
        return replace(event, event=unsampled(event.event))
    return unsampled(event.event) if isinstance(event, ChosenBy | PoissonSampled | FixedSizeSampled) else event


def on_one_cohort(event: Event) -> Event:
    """Several Gaussians about one and the same cohort are one Gaussian; a plain list of them would sample anew each."""
    if isinstance(event, TreeAggregation):
        return event                                            # a tree spans many cohorts: left for a refusal
    event = simplest(event)
    if not isinstance(event, Composed | Repeated):
        return event
    parts = tally(event)
    if any(isinstance(part, NonPrivate) for part in parts):
        return NonPrivate()
    gaussians = [part for part in parts if isinstance(part, Gaussian)]
    if not parts or len(gaussians) < len(parts):
        return event                                            # left for the accountant to refuse by name
    joint = joint_noise_multiplier(*(part.noise_multiplier / math.sqrt(parts[part]) for part in gaussians))
    return Gaussian(joint, gaussians[0].neighbours)
