"""What must be refused, and what must be survived: two tables, a case a row, each named in the table's own words.

"Refused" is a deliberate error whose sentence names the value or the part; an accidental ZeroDivisionError, IndexError or NaN is
a failure. Most rows have a test of their own where they belong, with more values; here stands the whole of it on one page.
"""

import math
import pickle
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
from compression_fixtures import ctx, through
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from small import CLASSES, DIM, Half, InOrder, Lie, Spy, Timed, damaged, experiment, federation

from fl_course import (
    DPSGD,
    IFCA,
    QSGD,
    Aggregation,
    Buffered,
    Bulyan,
    ByExamples,
    CentralDP,
    CheckpointError,
    ClientFailure,
    Clip,
    CompositionError,
    CoordinateMedian,
    Correction,
    Discount,
    DistributedNoise,
    Ditto,
    Downlink,
    FederatedDropout,
    FedProx,
    FedRep,
    GeometricMedian,
    Krum,
    LocalDP,
    LocalSGD,
    LogNormal,
    MultiKrum,
    Oort,
    OutlierRemoval,
    PerFedAvg,
    PoissonSelection,
    PowerOfChoice,
    PowerSGD,
    RandomK,
    Rotate,
    RoundRobin,
    Scaffold,
    SecureSum,
    Selector,
    SemiSynchronous,
    SignSGD,
    SizeWeighted,
    Split,
    Stage,
    Synchronous,
    Ternary,
    Threshold,
    TopK,
    TreeDP,
    TrimmedMean,
    Uniform,
    UniformSelection,
    Update,
    WeightedMean,
    WireError,
    fedasync,
    fedbuff,
    from_clients,
    load,
    logistic,
    mlp,
    save,
)
from fl_course.federation.archive import difference
from fl_course.federation.sampling import largest, weighted_draw
from fl_course.personalisation.split import handed_out
from fl_course.privacy.accounting import (
    PLD,
    RDP,
    ChosenBy,
    FixedSizeSampled,
    Gaussian,
    Ledger,
    PoissonSampled,
    Release,
    Repeated,
    noise_for_budget,
    rounds_for_budget,
)
from fl_course.privacy.mechanisms import (
    clip,
    gaussian_epsilon,
    gaussian_sigma,
    gaussian_sigma_classic,
    laplace_scale,
    norm,
)
from fl_course.secure_aggregation.field import PrimeField
from fl_course.secure_aggregation.shamir import reconstruct, share
from fl_course.wire.messages import decode_update, encode_update
from fl_course.wire.payloads import numbers

ALL, ONE_SECOND = Synchronous(1.0), dict.fromkeys(range(6), 1.0)
RULES = [CoordinateMedian(), TrimmedMean(1), Krum(1), MultiKrum(1), Bulyan(0), GeometricMedian(), OutlierRemoval()]
BAD = (math.nan, math.inf, -math.inf)
NOISE = {"accountant": RDP(), "noise_seed": 1}
ROWS: dict[str, Callable[..., None]] = {}


def row(words: str):
    def keep(test):
        assert words not in ROWS
        ROWS[words] = test
        return test

    return keep


def refused(*makers, of=(), words=(), kind=(ValueError, TypeError)):
    """Each maker, of each of the values, raises a deliberate error, in a sentence of some length that holds all the words."""
    calls = [partial(make, value) for make in makers for value in of] if of else makers
    for i, call in enumerate(calls):
        try:
            made = call()
        except kind as why:
            sentence = str(why)
            assert len(sentence) >= 20, (i, sentence)
            assert all(word in sentence for word in ([words] if isinstance(words, str) else words)), (i, sentence)
        else:
            raise AssertionError(f"number {i} was taken, and gave {made!r}"[:300])


def unsound(words, **parts):
    """Refused as the experiment is built, in a sentence of at least forty characters."""
    with pytest.raises(CompositionError) as why:
        experiment(**parts)
    assert len(str(why.value)) >= 40
    assert all(word in str(why.value) for word in ([words] if isinstance(words, str) else words)), str(why.value)


def left_out(client, **parts):
    """This client's answer is left out, by name, and the others' average is that of a run in which it had vanished."""
    history = experiment(**{"schedule": ALL} | parts).train(2)
    fair = {k: v for k, v in parts.items() if k != "stages"}
    vanished = experiment(fleet=Timed(ONE_SECOND, gone=(client,)), **{"schedule": ALL} | fair).train(2)
    assert history.state.server.params.tobytes() == vanished.state.server.params.tobytes()
    for record in history.records:
        assert client not in record.clients
        assert len(record.clients) == 5
        assert f"client {client}" in record.events[0]
        assert f"version {record.version - 1}" in record.events[0]


class Quiet(Spy):
    """May stand behind a clip: it says that it makes nothing longer."""

    lengthens = False


def changed(**fields):
    return lambda update: replace(update, **fields)


def prices(**parts):
    """What a round of an experiment with central noise is booked as."""
    stage = CentralDP(0.1, 1.0, **NOISE)
    it = experiment(federation((8,) * 20), weights=Uniform(), stages=[stage], **parts)
    return stage.event(it)


# --- what goes together -----------------------------------------------------------------------------------------------


@row("DP + fixed-size, loss-based or async selection: no amplification (q = 1), or refused")
def _():
    one = RDP().epsilon(Gaussian(1.0), 1e-5)
    assert isinstance(prices(selection=PoissonSelection()), PoissonSampled)
    for parts in ({}, {"selection": Oort()}, {"selection": PowerOfChoice()}, {"selection": SizeWeighted()},
                  {"selection": RoundRobin()}, {"schedule": Buffered(4, 2)}, {"schedule": Synchronous(0.5, over_selection=0.4)}):
        event = prices(**parts)
        assert isinstance(event, FixedSizeSampled | ChosenBy)
        assert RDP().epsilon(event, 1e-5) == pytest.approx(one)
    unsound("Poisson", selection=PoissonSelection(), schedule=Buffered(4, 2))
    unsound("Poisson", selection=PoissonSelection(), schedule=SemiSynchronous(0.5))

    class Claims(UniformSelection):
        poisson = True

    assert not isinstance(prices(selection=Claims()), PoissonSampled)


@row("DP + sample-count weights: uniform, or bounded weights in the sensitivity")
def _():
    for private in (CentralDP(0.1, 1.0), TreeDP(0.1, 1.0)):
        unsound(("weights", "Uniform()", "cap"), stages=[private])
    stds = []
    for weights, cap in ((Uniform(), 1), (ByExamples(cap=4), 4)):
        first, second = Spy(), Quiet()
        experiment(weights=weights, stages=[first, CentralDP(0.1, 2.0, **NOISE), second]).train(1)
        noise = first.sums[0].total - numbers(second.sums[0].total)
        stds.append(np.std(noise) / cap)
        assert first.sums[0].weight == 3 * cap                       # the public cohort, by the public cap
    assert stds[0] == pytest.approx(stds[1], rel=1e-6)               # the same dice, scaled to what one client can move


@row("DP + error feedback or personalised tuning: clip last; the personal part never leaves the client")
def _():
    for compress in (TopK(0.2), SignSGD(), RandomK(0.2, feedback=True), PowerSGD(logistic(DIM, CLASSES), 1)):
        for private in (CentralDP(0.1, 1.0), TreeDP(0.1, 1.0)):
            unsound("feedback", weights=Uniform(), stages=[compress, private])
        unsound("LocalDP", weights=Uniform(), stages=[compress, LocalDP(0.1, 1.0)])
    unsound("packed", weights=Uniform(), stages=[QSGD(4), CentralDP(0.1, 1.0)])
    spy, model = Spy(), Split(mlp(DIM, 4, CLASSES), personal="dense1")
    it = replace(experiment(weights=Uniform(), training=LocalSGD(lr=0.1, batch_size=4)), model=model,
                 training=LocalSGD(lr=0.1, batch_size=4, personal=FedRep()), stages=[spy, CentralDP(0.1, 1.0, **NOISE)])
    state = it.train(2).state
    assert {update.delta.size for update in spy.sent} == {model.dim}
    assert model.dim + len(model.own) == mlp(DIM, 4, CLASSES).dim
    assert all(len(drawer["personal"]) == len(model.own) for drawer in state.memory.values())


@row("SecAgg + Krum, median, outlier filter, per-client metrics: refused")
def _():
    for rule in RULES:
        unsound("mask", aggregation=rule, schedule=ALL, weights=Uniform(), stages=[SecureSum(0.5)])
    for selection in (Oort(), PowerOfChoice()):
        unsound("in clear", selection=selection, weights=Uniform(), stages=[SecureSum(0.5)])
    arrived = []

    class Tap(Aggregation):
        linear = True

        def combine(self, updates, staleness, ctx=None):
            arrived.extend(updates)
            return WeightedMean().combine(updates, staleness)

    spy = Spy()
    experiment(schedule=ALL, weights=Uniform(), stages=[spy, SecureSum(0.5)], aggregation=Tap()).train(1)
    assert all(update.metrics for update in spy.sent)
    assert [update.metrics for update in arrived] == [{}] * 6         # what training knows of a client stays there


@row("SecAgg + compression: a shared fixed grid, dense; index sets leak")
def _():
    for stage in (TopK(0.2), TopK(0.2, feedback=False), RandomK(0.2), Threshold(0.1), QSGD(4), Ternary(), SignSGD()):
        unsound(("SecureSum", "places" if hasattr(stage, "ratio") or hasattr(stage, "value") else "scale"), schedule=ALL,
                weights=Uniform(), stages=[stage, SecureSum(0.5)])
    for stage in (TopK(0.2), QSGD(4)):
        unsound("masked integers", schedule=ALL, weights=Uniform(), stages=[SecureSum(0.5), stage])


@row("SecAgg + DP: by the server on the decoded sum, or distributed, on the grid, calibrated to t of n")
def _():
    unsound("toward zero", schedule=ALL, weights=Uniform(), stages=[CentralDP(0.1, 1.0), SecureSum(0.5)])
    first = Spy()
    experiment(schedule=ALL, weights=Uniform(), stages=[
        first, CentralDP(0.1, 1.0, **NOISE), SecureSum(0.5, rounding="toward zero", masked=False)]).train(1)
    assert np.std(first.sums[0].total) > 0.05
    unsound("two private", schedule=ALL, weights=Uniform(), stages=[
        CentralDP(0.1, 1.0), SecureSum(0.5, rounding="toward zero", noise=DistributedNoise(0.1, 1.0))])
    stds = []
    for threshold in (4, 6):                                          # fewer must carry the whole of the noise: each adds more
        summed = Spy()
        secure = SecureSum(0.5, masked=False, threshold=threshold, noise=DistributedNoise(0.1, 1.0, noise_seed=1))
        experiment(schedule=ALL, weights=Uniform(), training=LocalSGD(lr=1e-6), stages=[summed, secure]).train(1)
        stds.append(float(np.std(numbers(summed.sums[0].total))))
    assert stds[0] > stds[1] > 0.05
    refused(lambda: DistributedNoise(0.1, -1.0), lambda: DistributedNoise(0.0, 1.0), lambda: DistributedNoise(math.nan, 1.0))


@row("SecAgg + async: rounds of those that began together only")
def _():
    for parts in ({"schedule": Buffered(4, 2)}, {"schedule": SemiSynchronous(0.5)}, fedbuff(4, 2, discount=None)):
        unsound("began a round together", **{"weights": Uniform(), "stages": [SecureSum(0.5)]} | parts)
    for parts in (fedbuff(4, 2), fedasync(4)):
        unsound("mask", stages=[SecureSum(0.5)], **parts)


@row("FedBuff or FedAsync + SCAFFOLD: refused")
def _():
    training = LocalSGD(lr=0.1, correction=Scaffold())
    for parts in (fedbuff(4, 2), fedasync(4), {"schedule": SemiSynchronous(0.5)}):
        unsound("Scaffold", training=training, **parts)


# --- updates ----------------------------------------------------------------------------------------------------------


@row("updates: NaN or Inf in one client's update")
def _():
    for value in BAD:
        left_out(4, stages=[Lie(4, changed(delta=np.full(18, value, np.float32)))])
        one = np.zeros(18, np.float32)
        one[7] = value
        left_out(4, stages=[Lie(4, changed(delta=one))], weights=Uniform())
        with pytest.raises(WireError, match="client 4"):
            experiment(stages=[Lie(4, changed(delta=one))], schedule=ALL, strict=True).train(1)


@row("updates: wrong shape, missing or extra tensor, broadcastable shape")
def _():
    for shape in ((1,), (17,), (19,), (1, 18), (18, 1), (), (0,)):
        left_out(4, stages=[Lie(4, changed(delta=np.zeros(shape, np.float32)))])
    left_out(4, stages=[Lie(4, changed(extras={"more": np.zeros(18, np.float32)}))])


@row("updates: dtype differs (float64 for float32, int)")
def _():
    for kind in ("i1", "i4", "i8", "?", "u2"):
        left_out(4, stages=[Lie(4, changed(delta=np.zeros(18, kind)))])
    double = experiment(stages=[Lie(4, lambda u: replace(u, delta=u.delta.astype(np.float64)))], schedule=ALL).train(1)
    plain = experiment(schedule=ALL).train(1)
    np.testing.assert_allclose(double.state.server.params, plain.state.server.params, atol=1e-7)
    assert double.state.server.params.dtype == np.float32


@row("updates: float32 overflow in the norm (1e30)")
def _():
    for size in (1e20, 1e30, 3e38):
        big = np.full(18, size, np.float32)
        assert norm(big) == pytest.approx(size * math.sqrt(18), rel=1e-6)
        assert np.linalg.norm(clip(big, 2.0).astype(np.float64)) == pytest.approx(2.0, rel=1e-6)
        lie = Lie(4, changed(delta=big))
        history = experiment(stages=[lie, CentralDP(0.5, 0.0)], weights=Uniform(), schedule=ALL).train(1)
        moved = history.state.server.params - experiment().initial().server.params
        assert np.linalg.norm(moved) <= 0.5 + 1e-6


# --- clients ----------------------------------------------------------------------------------------------------------


@row("clients: empty list")
def _():
    refused(lambda: replace(federation(), ids=(), train=(), test=()), words="client")
    refused(lambda: from_clients("none", {}, CLASSES, np.zeros((1, DIM)), [0]), words="client")


@row("clients: duplicate ids")
def _():
    refused(lambda: federation(ids=[0, 1, 2, 3, 4, 0]), lambda: federation(ids=list("abcdea")), words="given twice")


@row("clients: unknown id in an update or a selection")
def _():
    class Chooses(Selector):
        def select(self, idle, k, rng, reports):
            return ["mallory"]

    left_out(4, stages=[Lie(4, changed(client="mallory"))])
    refused(lambda: experiment(selection=Chooses()).train(1), lambda: federation().position("mallory"), words="mallory",
            kind=(ValueError, KeyError))


@row("clients: ids are strings, have gaps, are unsorted")
def _():
    how = {"training": LocalSGD(lr=0.2, epochs=2, batch_size=None), "schedule": ALL}
    plain = experiment(**how).train(2).state.server.params
    for ids in (list("cafbde"), [5, 300, 2, 70000, 0, 9], [1, "1", 0, "0", 2, "2"]):
        for order in (None, [3, 1, 5, 0, 2, 4]):
            here = experiment(federation(ids=ids, order=order), **how).train(2).state.server.params
            np.testing.assert_allclose(here, plain, atol=1e-6)


@row("clients: crash inside one client's training")
def _():
    class Breaks(Correction):
        def finish(self, task, delta, steps, lr, gradient):
            if task.client == 4:
                raise ClientFailure("out of memory")
            return {}

    training = {"lr": 0.1, "batch_size": 4, "together": 1}
    history = experiment(training=LocalSGD(correction=Breaks(), **training), schedule=ALL).train(2)
    vanished = experiment(training=LocalSGD(correction=Correction(), **training), schedule=ALL,
                          fleet=Timed(ONE_SECOND, gone=(4,))).train(2)
    assert [record.events for record in history.records] == [
        (f"client 4 failed in version {version}: out of memory",) for version in (0, 1)]
    assert history.state.server.params.tobytes() == vanished.state.server.params.tobytes()


@row("clients: all clients fail")
def _():
    lies = [Lie(k, changed(weight=math.nan)) for k in range(6)]
    with pytest.warns(RuntimeWarning, match="no update was ever used"):
        history = experiment(stages=lies).train(2)
    start = experiment().initial().server.params
    assert history.state.server.params.tobytes() == start.tobytes()
    assert [record.events[-1] for record in history.records] == ["no update arrived"] * 2
    gone = experiment(fleet=Timed(ONE_SECOND, gone=tuple(range(6)))).train(2)
    assert gone.state.server.params.tobytes() == start.tobytes()


@row("clients: returns None")
def _():
    with pytest.warns(RuntimeWarning, match="client 4 failed in version 0"):
        left_out(4, stages=[Lie(4, lambda update: None)])


# --- data -------------------------------------------------------------------------------------------------------------


@row("data: zero samples on a client")
def _():
    spy = Spy()
    history = experiment(federation((8, 8, 0, 8, 8, 8)), stages=[spy], schedule=ALL).train(2)
    assert all(record.clients == (0, 1, 3, 4, 5) for record in history.records)
    assert np.isfinite(history.state.server.params).all()


@row("data: zero samples everywhere")
def _():
    refused(lambda: federation((0,) * 6), words="no client has a training example")
    refused(lambda: from_clients("none", {"a": (np.zeros((0, DIM)), [])}, CLASSES, np.zeros((1, DIM)), [0]))


@row("data: X and y lengths differ, feature count differs")
def _():
    data = federation()
    refused(lambda: replace(data, y=data.y[:-1]), lambda: replace(data, x_test=np.zeros((20, DIM + 1))),
            lambda: replace(data, y_test=data.y_test[:3]), words="shape")
    refused(lambda: from_clients("x", {"a": (np.zeros((3, DIM)), [0, 1])}, CLASSES, np.zeros((1, DIM)), [0]),
            lambda: from_clients("x", {"a": (np.zeros((2, DIM)), [0, 1]), "b": (np.zeros((2, DIM + 1)), [0, 1])}, CLASSES,
                                 np.zeros((1, DIM)), [0]))
    refused(lambda: replace(experiment(), model=logistic(DIM + 1, CLASSES)))


@row("data: a single class, a single sample")
def _():
    for sizes in ((1,) * 6, (1, 0, 0, 0, 0, 0)):
        data = federation(sizes)
        for y in (data.y, np.zeros_like(data.y)):
            history = experiment(replace(data, y=y), schedule=ALL).train(2)
            assert np.isfinite(history.state.server.params).all()
            assert history.records[-1].events == ()


# --- configuration ----------------------------------------------------------------------------------------------------


@row("config: lr NaN or negative, rounds < 0, local steps < 1, fraction <= 0 or > 1, mu < 0, unknown algorithm")
def _():
    refused(LocalSGD, of=(*BAD, -0.1, 0), words="lr")
    refused(experiment().train, of=(-1, 2.5, "3", None, True), words="rounds")
    refused(lambda v: LocalSGD(epochs=v), of=(0, -1, 1.5), words="epochs")
    refused(Synchronous, SemiSynchronous, of=(0, -0.1, 1.01, math.nan), words="fraction")
    refused(FedProx, of=(-1, *BAD), words="mu")
    for name in ("schedule", "selection", "weights", "aggregation", "optimizer", "fleet", "evaluation", "model"):
        refused(partial(replace, experiment(), **{name: "fedsomething"}), words=(name, "fedsomething"))


@row("config: fraction so small that fraction · n < 1")
def _():
    for fraction in (1e-9, 0.01, 0.08):
        assert [len(r.clients) for r in experiment(schedule=Synchronous(fraction)).train(2).records] == [1, 1]


@row("config: w0 NaN or wrong size")
def _():
    bad = (np.full(18, np.nan), np.full(18, np.inf), np.zeros(17), np.zeros(1), np.zeros((1, 18)), np.zeros(()))
    refused(experiment().initial, of=bad, words="params")
    split = replace(experiment(training=LocalSGD()), model=Split(mlp(DIM, 4, CLASSES), "dense1"),
                    training=LocalSGD(personal=FedRep()))
    refused(partial(handed_out, split), of=(np.zeros(3), np.full(split.model.model.dim, np.nan)))


# --- weights ----------------------------------------------------------------------------------------------------------


@row("weights: all zero, negative, NaN, wrong count")
def _():
    it = experiment(stages=[Lie(k, changed(weight=0.0)) for k in range(6)], schedule=ALL)
    history = it.train(1)
    assert history.state.server.params.tobytes() == it.initial().server.params.tobytes()
    assert "weigh 0 in all" in history.records[0].events[-1]
    for weight in (-1.0, *BAD):
        left_out(4, stages=[Lie(4, changed(weight=weight))])
    left_out(4, stages=[Lie(4, changed(weight=9.0))])                 # it has eight examples
    refused(ByExamples, of=(0, -1, math.nan), words="cap")
    refused(lambda: weighted_draw([1, 2], [1.0], 1, np.random.default_rng(0)), words="one each")


@row("weights: 0 · NaN (a client of weight zero with NaN)")
def _():
    left_out(4, stages=[Lie(4, changed(weight=0.0, delta=np.full(18, np.nan, np.float32)))])


# --- differential privacy ---------------------------------------------------------------------------------------------


@row("dp: eps <= 0, NaN, Inf")
def _():
    private = (CentralDP, TreeDP, LocalDP, DPSGD)
    refused(lambda e: gaussian_sigma(e, 1e-5), lambda e: gaussian_sigma_classic(e, 1e-5), laplace_scale,
            lambda e: noise_for_budget(e, 1e-5, 3), lambda e: rounds_for_budget(e, 1e-5, Gaussian(1.0)),
            lambda e: Ledger(e, 1e-5), *(lambda e, kind=kind: kind(1.0, 1.0, budget=e) for kind in private),
            of=(0, -1, *BAD), words="epsilon")
    refused(Release, of=(-1, math.nan), words="epsilon")


@row("dp: delta <= 0, >= 1, NaN")
def _():
    private = (CentralDP, TreeDP, LocalDP, DPSGD)
    refused(lambda d: gaussian_sigma(1.0, d), lambda d: gaussian_epsilon(1.0, d), lambda d: noise_for_budget(1.0, d, 3),
            lambda d: Ledger(1.0, d), lambda d: RDP().epsilon([], d), lambda d: PLD().epsilon([], d),
            *(lambda d, kind=kind: kind(1.0, 1.0, delta=d) for kind in private), of=(0, -0.1, 1, 1.5, math.nan), words="delta")


@row("dp: sensitivity or clip <= 0, NaN")
def _():
    private = (CentralDP, TreeDP, LocalDP, DPSGD)
    refused(partial(clip, np.ones(3)), partial(gaussian_sigma, 1.0, 1e-5), partial(laplace_scale, 1.0),
            *(lambda c, kind=kind: kind(c, 1.0) for kind in private), of=(0, -1, math.nan))


@row("dp: noise multiplier < 0, NaN; = 0 means an infinite epsilon, and is said")
def _():
    kinds = (CentralDP, TreeDP, LocalDP, DPSGD, DistributedNoise)
    refused(*(partial(kind, 1.0) for kind in kinds), of=(-1, *BAD))
    refused(Gaussian, of=(-1, math.nan))
    record = experiment(weights=Uniform(), stages=[CentralDP(1.0, 0.0)]).train(1).records[0]
    assert record.metrics["epsilon"] == math.inf
    assert any("without noise" in event for event in record.events)


@row("dp: q < 0, > 1, NaN; steps < 0 or fractional")
def _():
    refused(lambda q: PoissonSampled(q, Gaussian(1.0)), of=(-0.1, 1.1, math.nan), words="rate")
    refused(lambda n: Repeated(Gaussian(1.0), n), of=(-1, 2.5, math.nan, "3"), words="count")
    refused(lambda n: Ledger(1.0, 1e-5).charge(Gaussian(1.0), n), of=(-1, 2.5), words="count")


@row("dp: no releases, zero steps")
def _():
    for accountant in (RDP(), PLD()):
        for nothing in ([], [Repeated(Gaussian(1.0), 0)], [PoissonSampled(0.0, Gaussian(1.0))]):
            assert accountant.epsilon(nothing, 1e-5) == 0


@row("dp: zero update (norm 0)")
def _():
    for order in (1, 2):
        assert np.array_equal(clip(np.zeros(4, np.float32), 0.5, order), np.zeros(4))
    still = [Lie(k, changed(delta=np.zeros(18, np.float32))) for k in range(6)]
    it = experiment(weights=Uniform(), stages=[*still, CentralDP(0.1, 0.0)])
    assert np.array_equal(it.train(1).state.server.params, it.initial().server.params)


@row("dp: budget exhausted before the first round")
def _():
    for stage in (CentralDP(0.1, 0.1, budget=0.01, accountant=RDP()), TreeDP(0.1, 0.1, budget=0.01, accountant=RDP())):
        it = experiment(weights=Uniform(), stages=[stage])
        history = it.train(3)
        assert (len(history), history.state.server.version) == (0, 0)
        assert "budget is spent" in history.stopped
        assert np.array_equal(history.state.server.params, it.initial().server.params)


@row("dp: budget exhausted mid-training: stop before the exceeding round, keep the last model, say why")
def _():
    affordable = RDP().epsilon(Repeated(Gaussian(2.0), 3), 1e-5)
    stage = CentralDP(0.1, 2.0, budget=affordable * 1.001, **NOISE)
    it = experiment(weights=Uniform(), stages=[stage])
    history = it.train(9)
    assert len(history) == 3
    assert history.last("epsilon") == pytest.approx(affordable)
    assert "after 3 rounds the privacy budget is spent" in history.stopped
    free = replace(it, stages=[replace(stage, budget=None)]).train(3)
    assert history.state.server.params.tobytes() == free.state.server.params.tobytes()
    assert len(it.train(9, history.state)) == 0                      # resuming spends no more


@row("dp: empty Poisson cohort: noise still released, round charged")
def _():
    it = experiment(weights=Uniform(), schedule=Synchronous(0.2), selection=PoissonSelection(),
                    stages=[CentralDP(0.5, 1.0, **NOISE)])
    history = it.train(8)
    empty = [i for i, record in enumerate(history.records) if not record.clients]
    assert empty
    states = [it.initial(), *(state for state, _ in it.run(8))]
    for i in empty:
        assert not np.array_equal(states[i].server.params, states[i + 1].server.params)
    spent = history.series("epsilon")
    assert all(before < after for before, after in pairwise(spent))


@row("dp: dropout after sampling: noise on the sum and denominator unchanged")
def _():
    sums = []
    for gone in ((), (0, 1, 2, 3, 4)):
        outer, inner = Spy(), Quiet()
        experiment(weights=Uniform(), schedule=ALL, fleet=Timed(ONE_SECOND, gone=gone),
                   stages=[outer, CentralDP(0.5, 1.0, **NOISE), inner]).train(1)
        sums.append((outer.sums[0].weight, outer.sums[0].total - numbers(inner.sums[0].total)))
    assert sums[0][0] == sums[1][0] == 6
    np.testing.assert_allclose(sums[0][1], sums[1][1], atol=1e-6)


@row("dp: fixed-size or loss-based selection, asynchronous arrival: no Poisson amplification claimed")
def _():
    for selection in (UniformSelection(), Oort(), PowerOfChoice()):
        event = prices(selection=selection)
        assert not isinstance(event, PoissonSampled)
        assert RDP().epsilon(event, 1e-5) == pytest.approx(RDP().epsilon(Gaussian(1.0), 1e-5))
    assert isinstance(prices(schedule=Buffered(4, 2)), ChosenBy)


# --- robust rules -----------------------------------------------------------------------------------------------------


@row("robust: f < 0, 2f >= n, Krum with n < 2f + 3")
def _():
    refused(TrimmedMean, Krum, MultiKrum, Bulyan, CoordinateMedian, GeometricMedian, of=(-1, 1.5, math.nan), words="f")
    x = np.arange(12.0).reshape(4, 3)
    for rule, bound in ((TrimmedMean(2), 5), (CoordinateMedian(2), 5), (Krum(1), 5), (MultiKrum(1), 5), (Bulyan(1), 7)):
        refused(partial(rule, x), words=f"needs {bound}")
        unsound((f"needs {bound}", "3 at most"), aggregation=rule)
    refused(lambda: CoordinateMedian()(np.zeros((0, 3))), lambda: CoordinateMedian()(np.zeros(3)))


@row("robust: identical updates, single client, zero spread")
def _():
    one = np.array([1.0, -2.0, 3e-9])
    for rule in (CoordinateMedian(), TrimmedMean(1), Krum(1), MultiKrum(1), Bulyan(1), GeometricMedian(), OutlierRemoval()):
        same = np.tile(one, (max(7, rule.least), 1))
        np.testing.assert_allclose(rule(same), one, rtol=1e-12)
        assert rule.weigh(same, None)[1].any()
    assert OutlierRemoval().weigh(np.tile(one, (7, 1)), None)[1].all()                  # keeps all
    for rule in (CoordinateMedian(), GeometricMedian(), OutlierRemoval(), TrimmedMean(0)):
        np.testing.assert_allclose(rule(one[None]), one, rtol=1e-12)


# --- compression ------------------------------------------------------------------------------------------------------


@row("compress: ratio 0, < 0, > 1, NaN; k = 0, k > d")
def _():
    for kind in (TopK, RandomK):
        refused(kind, of=(0, -0.1, 1.01, math.nan, math.inf, True), words="ratio")
        sent = kind(1e-9).client(Update(0, 0, np.arange(9, dtype=np.float32), 1.0), ctx(d=9))
        assert len(sent.delta.positions) == 1                         # a tiny ratio keeps one entry
    refused(Threshold, of=(0, -1, *BAD), words="value")
    refused(partial(PowerSGD, logistic(DIM, CLASSES)), of=(0, -1, 1.5), words="rank")


@row("compress: bits 0, 33, -1, 2.5, None")
def _():
    refused(QSGD, lambda bits: SecureSum(0.5, bits=bits), of=(0, 33, -1, 2.5, None), words="bits")


@row("compress: constant or zero vector, one element, empty")
def _():
    for stage in (TopK(0.3), RandomK(0.3), QSGD(4), Ternary(), SignSGD(), Threshold(0.1), QSGD(8, block=2)):
        for x in (np.zeros(5), np.full(5, 0.25), np.full(1, -3.0), np.zeros(0), np.full(5, 1e-40)):
            back = through([replace(stage, feedback=False) if hasattr(stage, "feedback") and stage.feedback else stage],
                           x.astype(np.float32), ctx(d=x.size))
            assert back.shape == x.shape
            assert np.isfinite(back).all()
            if not x.any():
                assert not back.any()
    np.testing.assert_array_equal(through([QSGD(4)], np.full(5, 0.25, np.float32), ctx(d=5)), np.full(5, 0.25))


@row("compress: truncated or corrupted payload")
def _():
    x = np.linspace(-1, 1, 18, dtype=np.float32)
    for stage in (TopK(0.3), RandomK(0.3), QSGD(4), Ternary(), SignSGD()):
        sent = stage.client(Update(0, 0, x, 1.0), ctx(d=18))
        message = encode_update(sent)
        damaged = [message[:cut] for cut in range(0, len(message), 3)]
        for place in range(0, len(message), 5):
            damaged.append(bytes([*message[:place], message[place] ^ 1 << place % 8, *message[place + 1 :]]))
        refused(partial(decode_update, like=sent), of=damaged, kind=WireError)


@row("compress: dropout rate 1 or < 0")
def _():
    refused(partial(FederatedDropout, mlp(5, 6, 3)), of=(1, 1.5, -0.1, math.nan), words="rate")


# --- secret sharing ---------------------------------------------------------------------------------------------------


@row("shamir: t > n, t < 1, n >= p, secret outside the field, floats")
def _():
    small = PrimeField(11)
    refused(lambda: share(5, 4, 3), lambda: share(5, 0, 3), lambda: share(5, 2, 11, small), lambda: share(11, 2, 3, small),
            lambda: share(-1, 2, 3, small), lambda: share(5.0, 2, 3), lambda: share(5, 2.0, 3), lambda: share(5, 2, 3.5),
            lambda: share(5, 2, 3, small, [1.0]), lambda: share(5, 2, 3, small, [11]), lambda: PrimeField(10))


@row("shamir: fewer than t, duplicate, x = 0, out-of-field shares")
def _():
    small = PrimeField(11)
    three = share(7, 3, 5, small)
    assert reconstruct(three[1:4], 3, small) == 7
    refused(lambda: reconstruct(three[:2], 3, small), lambda: reconstruct([three[0], three[0], three[1]], 3, small),
            lambda: reconstruct([(0, 7), *three[:2]], 3, small), lambda: reconstruct([(1, 11), *three[1:3]], 3, small),
            lambda: reconstruct([(12, 3), *three[1:3]], 3, small), lambda: reconstruct([(1, 2.0), *three[1:3]], 3, small),
            lambda: reconstruct([], 3, small))


# --- asynchrony -------------------------------------------------------------------------------------------------------


@row("async: negative staleness")
def _():
    refused(lambda kind: Discount(kind)(-1), of=("polynomial", "exponential", "hinge"), words="staleness -1 < 0")


@row("async: staleness above the bound: dropped and counted")
def _():
    fleet = Timed({0: 1.0, 1: 3.5} | dict.fromkeys(range(2, 6), 1.0))
    records = experiment(schedule=Buffered(2, 1, max_staleness=2), selection=InOrder(), fleet=fleet).train(6).records
    assert sum(record.metrics.get("too_stale", 0) for record in records) == 1
    assert max(age for record in records for age in record.staleness) <= 2


@row("async: run ends with a partly filled buffer: what is in flight waits in the state")
def _():
    it = experiment(schedule=Buffered(4, 3), fleet=LogNormal())
    part = it.train(2)
    assert len(part.state.jobs) == 3
    assert part.records + it.train(2, part.state).records == it.train(4).records


@row("async: update for an unknown or future model version")
def _():
    for off in (-1, 1, 100):
        left_out(4, stages=[Lie(4, lambda update, off=off: replace(update, version=update.version + off))])


# --- selection --------------------------------------------------------------------------------------------------------


@row("selection: m > d, d > N, NaN scores, all-zero scores, k = 0")
def _():
    rng, idle = np.random.default_rng(0), [1, 2, 3]
    refused(PowerOfChoice, of=(0, -1, 2.5, None), words="candidates")
    refused(lambda: largest(idle, [1.0, math.nan, 2.0], 1, rng), lambda: weighted_draw(idle, [1.0, math.nan, 2.0], 1, rng),
            lambda: weighted_draw(idle, [1.0, -1.0, 2.0], 1, rng), lambda: weighted_draw(idle, [1.0, math.inf, 2.0], 1, rng),
            words="client 2")
    refused(lambda by: by.select(idle, -1, rng, {}), of=(UniformSelection(), PoissonSelection(), RoundRobin()), words="-1")
    drawn = [weighted_draw(idle, [0.0, 0.0, 0.0], 1, np.random.default_rng(i))[0] for i in range(200)]
    assert all(drawn.count(client) > 40 for client in idle)           # zero scores fall back to uniform
    for selection in (UniformSelection(), Oort(), PowerOfChoice(2), RoundRobin(), SizeWeighted()):
        assert list(selection.select(idle, 0, rng, {})) == []
        it = experiment(selection=selection, schedule=Synchronous(0.5), weights=Uniform())
        assert len(it.train(2).records[1].clients) == 3
    unsound("four times", selection=SizeWeighted(), weights=ByExamples())
    # more candidates than clients: all are asked; fewer than are wanted: as many as are wanted
    for d in (1, 2, 99):
        assert len(experiment(selection=PowerOfChoice(d)).train(1).records[0].clients) == 3
    refused(lambda: experiment(schedule=Synchronous(0.5, min_clients=7)), lambda: experiment(schedule=Buffered(2, 7)), words="7")


# --- personalisation --------------------------------------------------------------------------------------------------


@row("personal: a prefix that matches no tensor")
def _():
    network = mlp(5, 6, 3)
    refused(partial(Split, network), of=("head", "dense", "dense10", "dense1.wei", "", ("dense1", "haed")), words="dense0.weight")
    assert set(Split(network, "dense1").layers_at_home) == {"dense1.weight", "dense1.bias"}
    refused(Ditto, PerFedAvg, of=(-1, *BAD))
    unsound("personal", training=LocalSGD(personal=FedRep()))
    unsound("Clusters", training=LocalSGD(personal=IFCA()))


# --- checkpoints ------------------------------------------------------------------------------------------------------


@row("checkpoint: truncated, bit-flipped, empty, foreign, other version; the previous one is still there")
def _(tmp_path, monkeypatch):
    it, path = experiment(), tmp_path / "run"
    save(path, it.train(1).state, it)
    whole = path.read_bytes()
    for bad in damaged(whole).values():
        (tmp_path / "bad").write_bytes(bad)
        refused(lambda: load(tmp_path / "bad", it), kind=CheckpointError)

    def full(*paths):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="No space left"):
        save(path, it.train(2).state, it)
    assert path.read_bytes() == whole
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bad", "run"]


@row("checkpoint: pickle bomb: never executed")
def _(tmp_path):
    (tmp_path / "x").write_bytes(pickle.dumps(Bomb(str(tmp_path / "executed"))))
    refused(lambda: load(tmp_path / "x", experiment()), kind=CheckpointError)
    assert not (tmp_path / "executed").exists()


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


@row("checkpoint: an interrupted run goes on bit for bit")
def _(tmp_path):
    it = experiment(schedule=Buffered(4, 2), fleet=LogNormal(jitter=0.5, drop=0.1), weights=Uniform(), stages=[Half()])
    whole = list(it.run(4))
    for stop in (1, 2, 3):
        save(tmp_path / "x", whole[stop - 1][0], it)
        rest = list(it.run(4 - stop, load(tmp_path / "x", it)))
        assert [record for _, record in rest] == [record for _, record in whole[stop:]]
        assert rest[-1][0].server.params.tobytes() == whole[-1][0].server.params.tobytes()


@pytest.mark.parametrize("words", ROWS)
def test_a_row_of_the_tables(words, request):
    test = ROWS[words]
    names = test.__code__.co_varnames[: test.__code__.co_argcount]
    test(**{name: request.getfixturevalue(name) for name in names})


def test_the_tables_are_whole():
    counts = {}
    for words in ROWS:
        component = words.partition(":")[0] if words.partition(":")[0].islower() else "together"
        counts[component] = counts.get(component, 0) + 1
    assert counts == {"together": 8, "updates": 4, "clients": 7, "data": 4, "config": 3, "weights": 2, "dp": 12, "robust": 2,
                      "compress": 5, "shamir": 2, "async": 4, "selection": 1, "personal": 1, "checkpoint": 3}  # fmt: skip


# --- one client's trouble ---------------------------------------------------------------------------------------------


class Odd(Exception):
    """Of no known kind."""


RAISED = (ValueError, KeyError, MemoryError, RecursionError, StopIteration, AssertionError, SystemExit, ClientFailure, Odd)
RUBBISH = {
    "None": lambda update: None, "a number": lambda update: 3.0, "its class": lambda update: Update,
    "a NaN": lambda update: replace(update, delta=np.where(np.arange(18) == 5, np.float32(np.nan), update.delta)),
    "infinite": lambda update: replace(update, delta=np.full(18, -np.inf, np.float32)),
    "too long": lambda update: replace(update, delta=np.zeros(19, np.float32)),
    "too short": lambda update: replace(update, delta=np.zeros(1, np.float32)),
    "a row": lambda update: replace(update, delta=np.zeros((1, 18), np.float32)),
    "words": lambda update: replace(update, delta=np.array(["a"] * 18)),
    "objects": lambda update: replace(update, delta=np.array([None] * 18)),
    "no delta": lambda update: replace(update, delta=None),
    "something beside": lambda update: replace(update, extras={"more": np.ones(3, np.float32)}),
    "another name": lambda update: replace(update, client="somebody"),
    "another version": lambda update: replace(update, version=update.version + 1),
    "a weight of NaN": lambda update: replace(update, weight=math.nan),
    "a weight of 10^30": lambda update: replace(update, weight=1e30),
    "a metric of NaN": lambda update: replace(update, metrics={"loss_first": math.nan}),
    "hangs": lambda update: update,
} | {kind.__name__: kind for kind in RAISED}
SOME_STAGES = {
    "none": [], "Clip": [Clip(0.5)], "TopK": [TopK(0.3)], "QSGD": [QSGD(4)], "Rotate, QSGD": [Rotate(), QSGD(4)],
    "CentralDP": [CentralDP(0.5, 1.0, **NOISE)], "LocalDP": [LocalDP(0.5, 1.0, **NOISE)], "Downlink": [Downlink()],
    "SecureSum": [SecureSum(0.5, masked=False, threshold=4)],
}
SCHEDULES = (Synchronous(1.0, deadline=5.0), SemiSynchronous(1.0, deadline=5.0), Synchronous(0.7, deadline=5.0),
             Synchronous(1.0, deadline=1e6))  # fmt: skip


def troubled(who, what, **parts):
    """Some clients answer with rubbish, or raise, or never come to an end."""
    seconds = ONE_SECOND | dict.fromkeys(who, 1e9 if what == "hangs" else 1.0)

    class Trouble(Stage):
        exact = lossy = keeps_zeros = True
        lengthens = False

        def client(self, update, ctx):
            if ctx.client not in who:
                return update
            if isinstance(RUBBISH[what], type):
                raise RUBBISH[what](f"trouble at {ctx.client}")
            return RUBBISH[what](update)

    stages = [Trouble(), *parts.pop("stages")]
    return experiment(weights=Uniform(), fleet=Timed(seconds), selection=InOrder(), stages=stages, **parts)


@settings(max_examples=100)
@given(st.sampled_from(list(RUBBISH)), st.sets(st.integers(0, 5), min_size=1, max_size=2), st.sampled_from(list(SOME_STAGES)),
       st.sampled_from(SCHEDULES))  # fmt: skip
def test_what_a_client_does_wrong_costs_its_own_update_only(what, who, stages, schedule):
    parts = {"stages": SOME_STAGES[stages], "schedule": schedule}
    assume(stages not in ("SecureSum", "CentralDP") or not schedule.keeps_stragglers)         # which is refused
    assume(what != "a metric of NaN" or stages not in ("SecureSum", "LocalDP"))                 # which send no metrics
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        history = troubled(who, what, **parts).train(3)
    still = troubled((), what, **parts)
    gone = replace(still, fleet=Timed(ONE_SECOND, gone=tuple(who))).train(3)
    assert len(history) == 3
    for record, other in zip(history.records, gone.records, strict=True):
        assert not who & set(record.clients)
        if schedule.fraction == 1.0 and not schedule.keeps_stragglers:
            assert record.clients == other.clients == tuple(k for k in range(6) if k not in who)
        assert what == "hangs" or all(any(f"client {k}" in event for event in record.events) for k in who & asked_in(record))
    assert history.state.server.params.tobytes() == gone.state.server.params.tobytes()
    for client in set(range(6)) - who:
        assert difference(history.state.memory.get(client), gone.state.memory.get(client)) == ""


def asked_in(record):
    return {span.client for span in record.spans}


@pytest.mark.parametrize("what", [kind for kind in RAISED if kind is not StopIteration])         # which no generator can raise
def test_strict_raises_at_the_first(what):
    kind, words = (RuntimeError, "it called sys.exit") if what is SystemExit else (what, "trouble at 4")
    with pytest.raises(kind, match=words):
        troubled({4}, what.__name__, stages=[], schedule=ALL, strict=True).train(1)


def test_an_interrupt_stops_the_run_and_an_exit_does_not_stop_the_process():
    class Stops(Stage):
        def __init__(self, what):
            self.what = what

        def client(self, update, ctx):
            if update.client == 2 and update.version == 2:
                raise self.what
            return update

    history = experiment(stages=[Stops(KeyboardInterrupt)], schedule=ALL).train(5)
    assert (len(history), history.stopped) == (2, "interrupted")
    with pytest.warns(RuntimeWarning, match=r"client 2 failed in version 2: RuntimeError: it called sys.exit\(None\)"):
        history = experiment(stages=[Stops(SystemExit)], schedule=ALL).train(5)
    assert [len(record.clients) for record in history.records] == [6, 6, 5, 6, 6]

    class Probes(PowerOfChoice):
        def answer(self, look):
            if look.client == 3:
                raise SystemExit(1)
            return super().answer(look)

    history = experiment(selection=Probes(), schedule=Synchronous(0.8)).train(2)
    assert all(3 not in record.clients and "sys.exit(1)" in record.events[0] for record in history.records)


def test_what_everybody_does_wrong_is_raised_and_no_exit():
    for what, kind in (("SystemExit", RuntimeError), ("Odd", Odd)):
        with pytest.raises(kind):
            troubled(set(range(6)), what, stages=[], schedule=ALL).train(1)
