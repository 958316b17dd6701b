"""The sweep: whatever is put together is refused when it is built, with a sentence, or it runs and keeps its promises.

Between any two stages of a stack that was accepted stands a `Watch`, which changes nothing and sees what passes. What was
promised is then read off what passed and what arrived, not off what the library says about itself:

    error feedback    what was sent and what waits is together what was meant
    Clip              nothing on the wire is longer
    central noise     as strong as the longest contribution that arrived, by the multiplier
    local noise       other noise, other numbers; nothing beside them
    masks             a masked vector and nothing beside it, unlike the same vector without masks
    controls          the server's is the mean of the clients'
    sub-models        nothing is cut off
    exact stages      as if there were no stage
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any

import numpy as np
import pytest
from compression_fixtures import ctx, through
from small import federation

from fl_course import (
    DPSGD,
    QSGD,
    Aggregate,
    Aggregation,
    Buffered,
    ByExamples,
    CentralDP,
    Clip,
    Coordinator,
    DistributedNoise,
    DivFL,
    Downlink,
    Evaluation,
    FedAdam,
    FedAvg,
    FedDyn,
    FederatedDropout,
    FedNova,
    FedProx,
    LabelDiversity,
    LocalDP,
    LocalSGD,
    LogNormal,
    Oort,
    PoissonSelection,
    PowerOfChoice,
    PowerSGD,
    RandomK,
    Rotate,
    RoundRobin,
    Scaffold,
    SecureSum,
    SignSGD,
    Stage,
    Stragglers,
    Synchronous,
    Ternary,
    Threshold,
    TopK,
    TreeDP,
    Uniform,
    UniformSelection,
    WeightedMean,
    mlp,
    stream,
)
from fl_course.compression.feedback import Compression
from fl_course.federation.stages import server_half
from fl_course.privacy.accounting import RDP
from fl_course.wire.masked import Masked
from fl_course.wire.payloads import Sparse, numbers

MODEL, DATA, ROUNDS = mlp(5, 6, 3), federation((4, 6, 5, 8, 4, 7)), 3
HOW = LocalSGD(lr=0.3, epochs=2, batch_size=4)
Z = 0.5                                              # every noise multiplier here

# --- stages of the user's own, one of each kind --------------------------------------------------------------------------


@dataclass(frozen=True)
class Unknown(Stage):
    """Doubles what is sent, halves the sum, and tells nobody what it is."""

    def client(self, update, ctx):
        return replace(update, delta=2 * numbers(update.delta))

    def server(self, aggregate, ctx):
        return replace(aggregate, total=numbers(aggregate.total) / 2)

    def sends(self, example, ctx):
        return self.client(example, ctx)


@dataclass(frozen=True)
class Flip(Stage):
    exact = keeps_zeros = True
    lengthens = False

    def client(self, update, ctx):
        return replace(update, delta=-numbers(update.delta))

    def server(self, aggregate, ctx):
        return replace(aggregate, total=-numbers(aggregate.total))

    def sends(self, example, ctx):
        return self.client(example, ctx)


@dataclass(frozen=True)
class Shuffle(Stage):
    """The numbers the other way round: exact, and no zero stays where it was."""

    exact = True
    lengthens = False

    def client(self, update, ctx):
        return replace(update, delta=numbers(update.delta)[::-1].copy())

    def server(self, aggregate, ctx):
        return replace(aggregate, total=numbers(aggregate.total)[::-1].copy())

    def sends(self, example, ctx):
        return self.client(example, ctx)


@dataclass(frozen=True)
class Shrink(Stage):
    lossy = keeps_zeros = True
    lengthens = False

    def client(self, update, ctx):
        return replace(update, delta=numbers(update.delta) * np.float32(0.5))

    def sends(self, example, ctx):
        return self.client(example, ctx)


@dataclass(frozen=True)
class EveryOther(Compression):
    feedback: bool = True
    picks = True

    def compress(self, x, ctx):
        places = np.arange(ctx.server.version % 2, x.size, 2)
        return Sparse(x.size, places, x[places])


@dataclass(frozen=True)
class Tenths(Compression):
    """Rounds toward zero, to plain numbers."""

    quantises = True

    def compress(self, x, ctx):
        return np.trunc(x * 10) / np.float32(10)


@dataclass(frozen=True)
class Longer(Compression):
    lengthens = True

    def longest(self, bound, size):
        return 3 * bound

    def compress(self, x, ctx):
        return 3 * x

    def server(self, aggregate, ctx):
        return replace(aggregate, total=numbers(aggregate.total) / 1)


@dataclass(frozen=True)
class Masks(Stage):
    masks = True


@dataclass(frozen=True)
class Noisy(Stage):
    noisy = True

    def server(self, aggregate, ctx):
        noise = stream(1, "noise", ctx.server.version).standard_normal(ctx.server.params.size)
        return replace(aggregate, total=numbers(aggregate.total) + 0.01 * noise)


@dataclass(frozen=True)
class HalfModel(Stage):
    """Sends float16 numbers down."""

    def down(self, server, ctx):
        return replace(server, params=numbers(server.params).astype(np.float16).astype(np.float32))


PRIVATE = {"accountant": RDP(), "noise_seed": 3}
STAGES: tuple[Stage, ...] = (
    Clip(0.1), Clip(0.3, norm=1), CentralDP(0.05, Z, **PRIVATE), TreeDP(0.05, Z, participations=9, **PRIVATE),
    LocalDP(0.05, Z, **PRIVATE), LocalDP(0.05, Z, "laplace", **PRIVATE),
    SecureSum(0.5, masked=False, max_weight=8), SecureSum(0.5, masked=False, rounding="toward zero"),
    SecureSum(0.5, masked=False, noise=DistributedNoise(0.1, Z, noise_seed=1)), SecureSum(0.5, max_weight=8),
    TopK(0.2), TopK(0.2, feedback=False), RandomK(0.3), RandomK(0.3, feedback=True), Threshold(0.1), QSGD(1), QSGD(4),
    QSGD(8, block=8), Ternary(), SignSGD(), SignSGD(feedback=False), Rotate(), PowerSGD(MODEL, 1),
    PowerSGD(MODEL, 1, feedback=False), FederatedDropout(MODEL), Downlink(), FedNova(), Unknown(), Flip(), Shuffle(), Shrink(),
    EveryOther(), Tenths(), Longer(), Masks(), Noisy(), HalfModel(),
)  # fmt: skip

SURROUNDINGS: dict[str, tuple[Any, ...]] = {
    "weights": (Uniform(), ByExamples(), ByExamples(cap=5)),
    "correction": (None, FedProx(0.1), Scaffold(), Scaffold(1), FedDyn(0.5)),
    "schedule": (Synchronous(0.7), Synchronous(1.0), Synchronous(0.5, over_selection=0.5), Synchronous(0.8, deadline=0.5),
                 Buffered(4, 2)),
    "selection": (UniformSelection(), PoissonSelection(), RoundRobin(), PowerOfChoice(4), LabelDiversity(), DivFL(), Oort()),
    "private": (None, DPSGD(0.5, 0.5, accountant=RDP(), noise_seed=2)),
    "optimizer": (FedAvg(), FedAdam(0.01)),
    "epochs": (2, Stragglers(0.5, 3)),
}  # fmt: skip
PLAIN = {name: values[0] for name, values in SURROUNDINGS.items()}


def surroundings(rng):
    """Each part is as usual two times in three, or every stack would meet some part that it does not go with."""
    return {name: part[0] if rng.random() < 0.66 else part[rng.integers(len(part))] for name, part in SURROUNDINGS.items()}


# --- what passes ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Watch(Stage):
    sent: dict = field(default_factory=dict, repr=False, compare=False)      # (client, version) -> Update
    sums: list = field(default_factory=list, repr=False, compare=False)      # (Aggregate, Context) of every step
    exact = lossy = keeps_zeros = True                                       # it loses nothing, and moves nothing
    lengthens = False

    def client(self, update, ctx):
        self.sent[update.client, update.version] = update
        return update

    def server(self, aggregate, ctx):
        self.sums.append((aggregate, ctx))
        return aggregate


@dataclass(frozen=True)
class Tap(Aggregation):
    """The mean, and what arrived, step by step."""

    heard: list = field(default_factory=list, repr=False, compare=False)
    linear = True
    lengthens = False

    def combine(self, updates, staleness, ctx=None):
        self.heard.append(tuple(updates))
        return WeightedMean().combine(updates, staleness)


def build(stages, around, **more):
    how = replace(HOW, correction=around["correction"], private=around["private"], epochs=around["epochs"])
    parts = {name: around[name] for name in ("weights", "schedule", "selection", "optimizer")}
    return Coordinator(DATA, MODEL, how, stages=stages, evaluation=Evaluation(every=100), fleet=LogNormal(jitter=0.5),
                       strict=True, **(parts | more))  # fmt: skip


def verdict(stages, around):
    """None if the stack is accepted; else the sentence, which must teach."""
    try:
        build(stages, around)
    except (ValueError, TypeError) as why:
        sentence = str(why)
    else:
        return None
    parts = [part for part in (*stages, *around.values()) if is_dataclass(part)]
    names = [type(part).__name__ for part in parts] + [f.name for part in parts for f in fields(part)]
    assert len(sentence) >= 40, sentence
    assert any(name in sentence for name in [*names, *around, "stages"]), sentence
    return sentence


def watched(stages):
    """The stages with a Watch before each and after the last; behind a secure sum nothing can be watched."""
    out = []
    for stage in (*stages, None):
        out += [Watch()] * (not any(isinstance(other, SecureSum) for other in out)) + [stage] * (stage is not None)
    return out


def run(stages, around, rounds=ROUNDS):
    tap, pipeline = Tap(), watched(stages)
    it = build(pipeline, around, aggregation=tap)
    with np.errstate(all="raise", under="ignore"):
        history = it.train(rounds)
    return it, pipeline, tap, history


# --- what must hold -----------------------------------------------------------------------------------------------------------


def hold(stages, around):
    it, pipeline, tap, history = run(stages, around)
    state = history.state
    assert state.server.version == ROUNDS
    assert np.isfinite(state.server.params).all()
    events = [event for record in history.records for event in record.events]
    assert not [event for event in events if "refused" in event or "failed" in event], events
    controls_are_means(it, state)
    for i, stage in enumerate(pipeline):
        before = pipeline[i - 1] if i else None
        if stage.feedback:
            nothing_is_lost(stage, before, pipeline[i + 1 :], tap, state)
        if isinstance(stage, Clip):
            nothing_is_longer(stage, pipeline[i + 1 :], tap)
        if isinstance(stage, CentralDP | TreeDP):
            noise_covers_contributions(stage, before, pipeline[i + 1 :], tap)
        if isinstance(stage, FederatedDropout) and not any(isinstance(other, LocalDP) for other in pipeline[:i]):
            nothing_is_cut_off(stage, before)
        if isinstance(stage, LocalDP):
            nothing_is_clear(stages, around, tap)
        if isinstance(stage, SecureSum):
            nothing_is_readable(stage, stages, around, tap)
    if stages and all(stage.exact for stage in stages):
        _, _, _, plain = run((), around)
        assert np.allclose(plain.state.server.params, state.server.params, atol=1e-5)


def controls_are_means(it, state):
    name, drawer = {Scaffold: ("control", state.server.extras), FedDyn: ("h", state.server.state)}.get(
        type(it.training.correction), ("", {}))  # fmt: skip
    if name:
        zero = np.zeros(MODEL.dim)
        counts = np.array([1.0 if isinstance(it.weights, Uniform) or name == "control" else
                           min(len(part), it.weights.cap or math.inf) for part in DATA.train])  # fmt: skip
        mine = [state.memory.get(client, {}).get(name, zero) for client in DATA.ids]
        assert np.allclose(drawer.get(name, zero), np.average(mine, axis=0, weights=counts), atol=2e-6), name


def alone(update, after, ctx):
    """What one answer adds to the sum, where the stages `after` have undone what they did."""
    quiet = [stage for stage in after if not isinstance(stage, Watch) and not stage.noisy]
    return numbers(server_half(quiet, Aggregate(update.delta, update.weight, update.extras), ctx).total).astype(float)


def nothing_is_lost(stage, before, after, tap, state):
    place = [other for other in after if isinstance(other, Watch)]
    sent, meant = {}, {}
    for step, updates in enumerate(tap.heard):
        for update in updates:
            ctx = place[0].sums[step][1]
            given = before.sent[update.client, update.version]
            sent[update.client] = sent.get(update.client, 0) + alone(update, after, ctx)
            meant[update.client] = meant.get(update.client, 0) + numbers(given.delta).astype(float)
    assert sent
    for client, total in sent.items():
        waits = state.memory[client]["residual"]
        assert np.allclose(total + waits, meant[client], atol=1e-5 * (1 + np.abs(meant[client]).max())), stage


def nothing_is_longer(stage, after, tap):
    """On the wire, unless something behind it may add, or says that it lengthens."""
    quiet = [other for other in after if not isinstance(other, Downlink | HalfModel | Noisy)]
    if all(not getattr(other, "lengthens", True) and not other.feedback and not other.masks for other in quiet):
        longest = max(np.linalg.norm(numbers(u.delta).astype(float), stage.norm) for updates in tap.heard for u in updates)
        assert longest <= stage.bound * (1 + 1e-4) * (1 if stage.norm == 2 else math.sqrt(MODEL.dim))


def noise_covers_contributions(stage, before, after, tap):
    """The noise that was added, by comparing the sums on both sides of the stage, against what came over the wire."""
    inside = next(other for other in after if isinstance(other, Watch))
    steps = 1 if isinstance(stage, TreeDP) else len(tap.heard)               # a tree's later noise is a difference
    noise = [before.sums[t][0].total - numbers(inside.sums[t][0].total) for t in range(steps)]
    deviation = float(np.sqrt(np.mean(np.square(noise))))
    longest = max(float(np.linalg.norm(alone(update, after, inside.sums[t][1])))
                  for t, updates in enumerate(tap.heard) for update in updates)  # fmt: skip
    assert deviation >= Z * longest * 0.65, (deviation / Z, longest)         # 57 numbers: a deviation of 0.09


def nothing_is_cut_off(stage, before):
    for given in before.sent.values():
        ctx = replace(before.sums[0][1], server=replace(before.sums[0][1].server, version=given.version), client=given.client)
        inside = stage.compress(np.ones(MODEL.dim, np.float32), ctx).dense() > 0
        assert not numbers(given.delta)[~inside].any()


def nothing_is_clear(stages, around, tap):
    other = [replace(stage, noise_seed=4) if isinstance(stage, LocalDP) else stage for stage in stages]
    _, _, twin, _ = run(other, around, rounds=1)
    for one, two in zip(tap.heard[0], twin.heard[0], strict=True):
        assert (one.client, one.metrics, dict(one.extras), one.weight) == (two.client, {}, {}, 1.0)
        one, two = (u.delta.vector if isinstance(u.delta, Masked) else numbers(u.delta) for u in (one, two))
        said = (one != 0) | (two != 0)
        assert not said.any() or np.mean(one[said] == two[said]) < 0.9


def nothing_is_readable(stage, stages, around, tap):
    for updates in tap.heard:
        for update in updates:
            assert isinstance(update.delta, Masked)
            assert (update.metrics, dict(update.extras), update.weight) == ({}, {}, 1.0)
    if stage.masked:
        bare = [replace(other, masked=False) if isinstance(other, SecureSum) else other for other in stages]
        _, _, twin, _ = run(bare, around, rounds=1)
        for one, two in zip(tap.heard[0], twin.heard[0], strict=True):
            assert np.mean(one.delta.vector == two.delta.vector) < 0.1


def judge(stacks, rng, times=2):
    """Each stack in plain surroundings, and then in others; how many were accepted."""
    accepted = 0
    for stages in stacks:
        for around in [PLAIN] + [surroundings(rng) for _ in range(times - 1)]:
            if verdict(stages, around) is None:
                try:
                    hold(stages, around)
                except Exception as why:
                    raise AssertionError(f"{list(stages)} was accepted beside {around}: {why!r}") from why
                accepted += 1
    return accepted


def short(stage):
    return repr(stage).replace(repr(RDP()), "RDP()")


@pytest.mark.parametrize("first", range(len(STAGES)), ids=lambda i: short(STAGES[i]))
def test_a_stage_alone_and_every_pair_that_begins_with_it(first):
    rng = stream(first, "sweep")
    judge([(STAGES[first],)], rng, 12)
    judge([(STAGES[first], other) for other in STAGES], rng)


def test_no_stage_in_many_surroundings():
    rng, varied = stream(0, "surroundings"), ("weights", "correction", "schedule", "private")
    for values in itertools.product(*(SURROUNDINGS[name] for name in varied)):
        around = surroundings(rng) | dict(zip(varied, values, strict=True))
        if verdict((), around) is None:
            hold((), around)


@pytest.mark.parametrize("seed", range(4))
def test_a_sample_of_triples(seed):
    rng = stream(seed, "triples")
    judge([tuple(STAGES[i] for i in rng.integers(len(STAGES), size=3)) for _ in range(150)], rng)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(len(STAGES)), ids=lambda i: short(STAGES[i]))
def test_every_triple(first):
    judge([(STAGES[first], *others) for others in itertools.product(STAGES, repeat=2)], stream(first, "all triples"), 1)


def test_the_sweep_accepts_enough_to_mean_something():
    """Were everything refused, every promise would be kept."""
    kinds = {type(stage) for stage in STAGES if verdict((stage,), PLAIN) is None}
    assert len(kinds) >= 22
    assert sum(verdict(pair, PLAIN) is None for pair in itertools.product(STAGES, repeat=2)) > 400


# --- unbiased where that is claimed -------------------------------------------------------------------------------------------

UNBIASED = [
    [RandomK(0.3)], [QSGD(1)], [QSGD(4)], [Ternary(8)], [FederatedDropout(MODEL)], [Rotate(), QSGD(2)], [Rotate(), RandomK(0.3)],
    [RandomK(0.3), QSGD(3)], [FederatedDropout(MODEL), Ternary()], [Flip(), Rotate(), Shuffle(), QSGD(3, block=8)],
]  # fmt: skip


@pytest.mark.parametrize("stages", UNBIASED, ids=repr)
def test_the_mean_over_many_draws_is_the_update(stages):
    x = stream(1, "update").standard_normal(MODEL.dim).astype(np.float32)
    times = 600
    got = np.stack([through(stages, x, ctx(version=v, d=x.size)) for v in range(times)]).astype(float)
    rare = 10 * np.abs(got - x).max() / times                                # what is so rare that it shows in no deviation
    assert (np.abs(got.mean(0) - x) <= 5 * got.std(0) / math.sqrt(times) + rare).all()
    assert got.std(0).max() > 0
