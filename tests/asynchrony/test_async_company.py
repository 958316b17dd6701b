"""Beside every other mechanism: refused with a sentence that teaches, or it runs and keeps its promise."""

import itertools
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from test_compositions import PLAIN, STAGES, SURROUNDINGS, build, hold, short, verdict

from fl_course import (
    Attack,
    Buffered,
    CompositionError,
    Discount,
    LocalDP,
    Mixing,
    SemiSynchronous,
    Stage,
    Synchronous,
    TopK,
    WeightedMean,
    fedasync,
    fedbuff,
)

SEMI = SemiSynchronous(0.8, deadline=0.12)


@dataclass(frozen=True)
class Sent(Stage):
    """What leaves the clients. It has no server half, which mixing would not go with."""

    seen: dict = field(default_factory=dict, repr=False, compare=False)
    exact = lossy = keeps_zeros = True
    lengthens = False

    def client(self, update, ctx):
        self.seen[update.client, update.version] = update
        return update


# --- semi-synchronous rounds: the sweep of test_compositions.py, with late answers ---------------------------------------


@pytest.mark.parametrize("stage", STAGES, ids=short)
def test_every_stage_in_rounds_that_leave_nobody_behind(stage):
    around = PLAIN | {"schedule": SEMI}
    if (sentence := verdict((stage,), around)) is None:
        hold((stage,), around)
    else:                                                                  # what no buffer goes with, these rounds do not either
        assert verdict((stage,), PLAIN | {"schedule": Buffered(4, 2)}) or "how many answers a step waits for" in sentence


def test_late_answers_are_in_the_sweep():
    history = build((), PLAIN | {"schedule": SEMI}).train(6)
    assert any(age for record in history.records for age in record.staleness)


@pytest.mark.parametrize("name", ["weights", "correction", "private", "optimizer", "epochs"])
def test_every_surrounding_in_rounds_that_leave_nobody_behind(name):
    for value in SURROUNDINGS[name]:
        around = PLAIN | {"schedule": SEMI, name: value}
        if verdict((), around) is None:
            hold((), around)


# --- mixing --------------------------------------------------------------------------------------------------------------


def mixes(it, sent, steps=6):
    """Every step is the mean of mixtures of what was sent and what it began from, written out."""
    rule, models, stale = it.aggregation, {0: it.initial().server.params.astype(float)}, 0
    for state, record in it.run(steps):
        w, version = models[record.version - 1], record.version - 1
        events = [event for event in record.events if "refused" in event or "failed" in event]
        assert not events, events
        total, weight = np.zeros_like(w), 0.0
        for client, age in zip(record.clients, record.staleness, strict=True):
            update = sent.seen[client, version - age]
            local = models[version - age] + update.delta.astype(float) / update.weight
            total += update.weight * rule.rate(age) * (local - w)
            weight, stale = weight + update.weight, stale + age
        np.testing.assert_allclose(state.server.params, w + total / weight if weight else w, atol=1e-4)
        models[record.version] = state.server.params.astype(float)
    return stale


ROUND_ABOUT = [
    fedasync(4), {"schedule": Buffered(5, 3), "aggregation": Mixing(0.5, Discount("hinge", 2.0, 1))},
    {"schedule": SEMI, "aggregation": Mixing(0.7)}, {"schedule": Synchronous(0.7), "aggregation": Mixing(0.7)},
]  # fmt: skip


def try_mixing(stages, around, parts):
    """The experiment, or the sentence."""
    sent, sentence = Sent(), ""
    try:
        it = build((*stages, sent), around | {"schedule": parts["schedule"]}, aggregation=parts["aggregation"])
    except CompositionError as why:
        sentence = str(why)
    if sentence:
        assert len(sentence) >= 60, sentence
        assert ";" in sentence or ", or" in sentence, sentence
        return None
    return it, sent


@pytest.mark.parametrize("stage", STAGES, ids=short)
def test_every_stage_is_refused_beside_mixing_or_mixed(stage):
    accepted = 0
    for parts in ROUND_ABOUT:
        if found := try_mixing((stage,), PLAIN, parts):
            mixes(*found)
            accepted += 1
    decodes = type(stage).server is not Stage.server or type(stage).down is not Stage.down or stage.masks
    assert accepted == (0 if decodes and not isinstance(stage, LocalDP) else len(ROUND_ABOUT))


def test_every_surrounding_beside_mixing():
    accepted = 0
    names = ("weights", "correction", "private", "epochs")
    for values in itertools.product(*(SURROUNDINGS[name] for name in names)):
        around = PLAIN | dict(zip(names, values, strict=True))
        if found := try_mixing((), around, ROUND_ABOUT[0]):
            mixes(*found, steps=4)
            accepted += 1
            assert around["correction"] is None or type(around["correction"]).__name__ == "FedProx"
    assert accepted >= 12


def test_stale_answers_are_in_the_sweep():
    assert mixes(*try_mixing((), PLAIN, ROUND_ABOUT[0]), steps=12) > 6


# --- an attack ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Flips(Attack):
    clients: tuple = (0, 3)

    def strike(self, tasks, updates, ctx):
        return [replace(u, delta=-5 * u.delta) if u.client in self.clients else u for u in updates]


@pytest.mark.parametrize("parts", [fedasync(4), fedbuff(4, 2)], ids=["fedasync", "fedbuff"])
def test_an_attack_strikes_jobs_in_flight_too(parts):
    parts = {name: parts[name] for name in ("schedule", "aggregation")}
    sent = Sent()
    it = build((sent,), PLAIN | {"schedule": parts["schedule"]}, aggregation=parts["aggregation"], attack=Flips())
    if isinstance(it.aggregation, Mixing):
        mixes(it, sent, 12)
    else:
        it.train(12)
    honest = Sent()
    build((honest,), PLAIN | {"schedule": parts["schedule"]}, aggregation=parts["aggregation"]).train(12)
    both = [job for job in sent.seen.keys() & honest.seen.keys() if job[1] == 0]        # before their models differ
    assert {client for client, _ in both} & {0, 3}
    assert {client for client, _ in both} - {0, 3}
    for client, version in both:
        factor = np.float32(-5 if client in (0, 3) else 1)
        assert np.array_equal(sent.seen[client, version].delta, factor * honest.seen[client, version].delta)


def test_a_residual_waits_where_an_answer_was_too_old():
    """What was refused was never summed; what it did not send must be as if it had not been asked."""
    it = build((TopK(0.2),), PLAIN | {"schedule": Buffered(5, 1, max_staleness=1)}, aggregation=WeightedMean(Discount()))
    before, refused = {}, 0
    for state, record in it.run(30):
        for span in record.spans:
            if span.fate == "too stale" and span.client not in record.clients:     # it may have been asked again, and heard
                refused += 1
                kept, was = (drawers.get(span.client, {}).get("residual") for drawers in (state.memory, before))
                assert (kept is None) == (was is None)
                assert kept is None or np.array_equal(kept, was)
        before = {client: dict(drawer) for client, drawer in state.memory.items()}
    assert refused > 0
