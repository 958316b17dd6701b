"""What holds for every selector: dice, counts, names, checkpoints, what it may stand beside, and how long it takes."""

import itertools
import math
import time
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from small import InOrder, experiment, federation, final

from fl_course import (
    DPSGD,
    IFCA,
    Buffered,
    ByExamples,
    CentralDP,
    Clusters,
    CompositionError,
    Coordinator,
    DayNight,
    Devices,
    DistributedNoise,
    Ditto,
    DivFL,
    Equal,
    FedRep,
    LabelDiversity,
    LocalDP,
    LocalSGD,
    LogNormal,
    Oort,
    PoissonSelection,
    PowerOfChoice,
    QualityScore,
    RoundRobin,
    Scaffold,
    SecureSum,
    Selector,
    SizeWeighted,
    Split,
    Stage,
    Synchronous,
    TiFL,
    TreeDP,
    Uniform,
    UniformSelection,
    logistic,
    mlp,
)
from fl_course.core import stream
from fl_course.federation.checkpoint import load, save
from fl_course.privacy.accounting import RDP, ChosenBy, FixedSizeSampled, Gaussian
from fl_course.privacy.central import as_sampled

SELECTORS = [
    UniformSelection(), SizeWeighted(), RoundRobin(), QualityScore(), QualityScore(drawn=True), QualityScore(quality="labels"),
    LabelDiversity(), DivFL(), PowerOfChoice(4), PowerOfChoice(4, "cpow-d", batch=3), PowerOfChoice(4, "rpow-d"), Oort(),
    Oort(pacer_step=2, blacklist=2), TiFL(tiers=3, every=2, credits=50),
]  # fmt: skip
BLIND = (UniformSelection, RoundRobin)                  # they read nothing of a client's
CURIOUS = [s for s in SELECTORS if not isinstance(s, BLIND)]
every = pytest.mark.parametrize("selector", SELECTORS, ids=repr)


def beside(selector):
    """Drawn by n_k, they are not weighed by it too."""
    return {"selection": selector, "weights": Uniform() if isinstance(selector, SizeWeighted) else ByExamples()}



# --- whom it returns ---------------------------------------------------------------------------------------------------------

numbers = st.floats(0, 1e6, allow_nan=False)


@st.composite
def situations(draw):
    """Idle clients with names of both kinds, and reports that say much, little or nothing, also of clients that are not idle."""
    clients = draw(st.lists(st.one_of(st.integers(-3, 60), st.text("abc", min_size=1, max_size=3)), unique=True, max_size=12))
    reports = {}
    for client in clients:
        if not draw(st.booleans()):
            continue
        report = {"asked": draw(st.integers(0, 5)), "asked_version": draw(st.integers(0, 9))}
        if draw(st.booleans()):
            report |= {name: draw(numbers) for name in ("examples", "loss_first", "loss_last", "loss_rms", "seconds",
                                                        "compute_seconds", "download_seconds", "upload_seconds")}  # fmt: skip
            report |= {"version": float(draw(st.integers(0, 9))), "answered": 1, "bytes_up": 7, "bytes_down": 9}
            report["update"] = np.array(draw(st.lists(numbers, min_size=3, max_size=3)), np.float32)
        if draw(st.booleans()):
            labels = draw(st.lists(st.integers(0, 9), min_size=1, max_size=4))
            report |= {"probe_loss": draw(numbers), "probe_accuracy": draw(numbers), "probe_examples": draw(st.integers(1, 99)),
                       "probe_labels": np.array(labels), "probe_version": draw(st.integers(0, 9))}               # fmt: skip
        reports[client] = report
    idle = draw(st.permutations([client for client in clients if draw(st.booleans())]))
    return idle, draw(st.integers(0, 14)), reports, draw(st.integers(0, 3))


@every
@settings(max_examples=30, deadline=None, phases=[Phase.generate])
@given(situations())
def test_idle_clients_each_once_and_no_more_than_k(selector, situation):
    idle, k, reports, seed = situation
    before = repr(reports)
    asks = selector.asks(idle, k, stream(seed, "select"), reports)
    assert set(asks) <= set(idle)
    assert len(set(asks)) == len(asks)
    chosen = selector.select(idle, k, stream(seed, "select"), reports)
    assert set(chosen) <= set(idle)
    assert len(set(chosen)) == len(chosen) <= k
    assert {type(client) for client in chosen} <= {int, str}
    assert chosen == selector.select(idle, k, stream(seed, "select"), reports)               # the dice are the argument
    assert repr(reports) == before
    full = not isinstance(selector, TiFL) and not (isinstance(selector, PowerOfChoice) and selector.variant != "rpow-d")
    full &= not (isinstance(selector, Oort) and selector.blacklist)
    assert len(chosen) == min(k, len(idle)) or not full


GOLDEN = (
    [11, 8, 6, 0], [17, 2, 7, 4], [18, 19, 15, 0], [6, 12, 13, 4], [17, 4, 13, 2], [6, 14, 13, 2], [11, 0, 16, 9],
    [18, 19, 16, 12], [17, 8, 7, 16], [17, 8, 7, 16], [4, 17, 2, 7], [5, 6, 19, 18], [6, 3, 18, 19], [19, 18],
)  # fmt: skip


@pytest.mark.parametrize(("selector", "cohort"), list(zip(SELECTORS, GOLDEN, strict=True)), ids=repr)
def test_the_same_seed_gives_the_same_cohort_on_every_machine(selector, cohort):
    reports = {
        c: {"asked": 1 + c % 3, "answered": 1, "asked_version": c % 5, "version": float(c % 5), "seconds": 1.0 + c,
            "examples": 5.0 + c % 4, "loss_first": 1.0 + c % 7, "loss_last": 0.5 + c % 7, "loss_rms": 1.5 + c % 7,
            "compute_seconds": 1.0 + c % 6, "download_seconds": 1.0, "upload_seconds": 1.0 + c % 2, "bytes_up": 50,
            "bytes_down": 60, "probe_loss": 2.0 + c % 9, "probe_accuracy": 0.1 * (c % 8), "probe_examples": 5 + c % 4,
            "probe_version": 4, "probe_labels": np.array([c % 3, c % 4, 1]),
            "update": np.array([c % 3, c % 5, c % 7], np.float32)}
        for c in range(18)
    }  # fmt: skip
    assert selector.select(list(range(20)), 4, stream(3, "golden"), reports) == cohort


@every
def test_nobody_one_client_and_a_client_offered_twice(selector):
    assert selector.select([], 3, stream(0, "x"), {}) == []
    assert selector.select(["a", "b"], 0, stream(0, "x"), {}) == []
    one = experiment(federation((6,)), **beside(selector), schedule=Synchronous(1.0)).train(3)
    assert [record.clients for record in one.records] == [(0,)] * 3
    with pytest.raises(ValueError, match="offered twice"):
        selector.select(["a", "a"], 1, stream(0, "x"), {})
    for k in (-1, 1.5, None):
        with pytest.raises(ValueError, match="k must be a whole number"):
            selector.select(["a", "b"], k, stream(0, "x"), {})


@every
def test_it_moves_no_stream_of_training(selector):
    """Everybody is asked in every round, whoever chooses: then the models are the same to the last bit."""
    if isinstance(selector, TiFL):
        selector = TiFL(tiers=1)
    if isinstance(selector, Oort):
        selector = replace(selector, blacklist=None)
    it = experiment(**beside(selector), schedule=Synchronous(1.0), fleet=LogNormal(jitter=0.3))
    assert final(it) == final(replace(it, selection=UniformSelection()))


@every
def test_a_client_trains_the_same_whoever_chose_it(selector):
    data = federation((8, 5, 6, 7, 4, 9, 6, 5))
    it = experiment(data, **beside(selector), schedule=Synchronous(0.4), fleet=LogNormal(speed_spread=1.0))
    state = it.train(3).state
    step, record = next(it.run(1, state))

    @dataclass(frozen=True)
    class Same(Selector):
        def select(self, idle, k, rng, reports):
            return list(record.clients)

    twin, copy = next(replace(it, selection=Same()).run(1, replace(state, clock=state.clock)))
    assert copy.clients == record.clients
    assert twin.server.params.tobytes() == step.server.params.tobytes()


@every
def test_a_run_goes_on_from_a_checkpoint_bit_for_bit(selector, tmp_path):
    data = federation((8, 5, 6, 7, 4, 9, 6, 5), ids=["a", 1, "b", 2, 30, "z", 4, "x"])
    fleet = Devices(LogNormal(speed_spread=1.0, jitter=0.2), DayNight(by_day=0.4, slot=900.0), failure=0.2, failure_spread=0.1)
    it = experiment(data, **beside(selector), schedule=Synchronous(0.4), fleet=fleet)
    states = [(state, record) for state, record in it.run(9)]
    for cut in (1, 4, 7):
        save(tmp_path / "state", states[cut - 1][0], it)
        again = list(it.run(9 - cut, load(tmp_path / "state", it)))
        assert [record for _, record in again] == [record for _, record in states[cut:]]
        assert again[-1][0].server.params.tobytes() == states[-1][0].server.params.tobytes()
        assert repr(again[-1][0].reports) == repr(states[-1][0].reports)


@pytest.mark.parametrize("selector", [s for s in SELECTORS if not isinstance(s, TiFL)], ids=repr)
def test_a_buffer_restarts_clients_one_by_one(selector, tmp_path):
    it = experiment(**beside(selector), schedule=Buffered(4, 2), fleet=LogNormal(speed_spread=1.0))
    states = list(it.run(8))
    assert states[-1][0].server.version == 8
    save(tmp_path / "state", states[3][0], it)
    assert [r for _, r in it.run(4, load(tmp_path / "state", it))] == [r for _, r in states[4:]]


@pytest.mark.parametrize("selector", [s for s in SELECTORS if isinstance(s, QualityScore | RoundRobin | PowerOfChoice)
                                      and not getattr(s, "drawn", False)], ids=repr)                         # fmt: skip
def test_the_order_in_which_clients_are_listed_decides_nothing_but_names_of_equals(selector):
    """With reports that differ in everything, another order of the idle clients changes no choice of the best."""
    reports = {c: {"asked": 3, "asked_version": c, "examples": 5.0 + c, "loss_first": 1.0 + c, "loss_last": 1.0 + c,
                   "compute_seconds": 1.0, "probe_loss": 1.0 + c, "probe_version": 9, "probe_labels": np.array([1, c])}
               for c in range(4)}                                                                           # fmt: skip
    chosen = {tuple(selector.select(list(order), 2, stream(0, "x"), reports)) for order in itertools.permutations(range(4))}
    assert len(chosen) == 1


@every
def test_with_everybody_away_or_too_few(selector):
    few = Devices(LogNormal(), DayNight(by_day=0.02, by_night=0.02, slot=3600.0, seed=5))
    history = experiment(**beside(selector), fleet=few, schedule=Synchronous(0.5, min_clients=4)).train(6)
    assert len(history) == 6
    assert history.records[-1].clock > 3600.0
    late = experiment(**beside(selector), fleet=few, schedule=Synchronous(0.5, deadline=10.0)).train(4)
    assert [(record.clock, record.clients) for record in late.records] == [(10.0 * i, ()) for i in range(1, 5)]


# --- what it may stand beside ------------------------------------------------------------------------------------------------

PRIVATE = {"accountant": RDP(), "noise_seed": 3}


def central(selector, stage, schedule=None, **more):
    return experiment(selection=selector, weights=Uniform(), stages=[stage], schedule=schedule or Synchronous(0.5), **more)


@every
@pytest.mark.parametrize("stage", [CentralDP(0.1, 1.0, **PRIVATE), TreeDP(0.1, 1.0, participations=9, **PRIVATE)])
def test_beside_central_noise_it_is_priced_without_amplification_and_said(selector, stage):
    history = central(selector, stage).train(3)
    assert history.records[-1].clients
    told = [event for event in history.records[0].events if "chooses whom to ask" in event]
    plain = central(InOrder(), stage).train(3)
    assert history.last("epsilon") == plain.last("epsilon")                    # q = 1
    if type(selector) is UniformSelection:
        assert not told
    else:
        assert len(told) == 1
        assert all(word in told[0] for word in (type(selector).__name__, *selector.reads))
    if isinstance(stage, CentralDP):
        poisson = central(PoissonSelection(), stage).train(3)
        assert poisson.last("epsilon") < history.last("epsilon")


SHY = [
    LocalDP(0.1, 1.0, **PRIVATE), SecureSum(0.5, max_weight=8), SecureSum(0.5, masked=False),
    SecureSum(0.5, masked=False, noise=DistributedNoise(0.1, 1.0, noise_seed=1)),
]  # fmt: skip


@pytest.mark.parametrize("selector", CURIOUS, ids=repr)
def test_where_the_server_must_not_see_single_clients_it_is_refused(selector):
    weights = {"weights": Uniform()}
    for stage in SHY:
        with pytest.raises(CompositionError, match=r"reads the .* of single clients") as why:
            experiment(selection=selector, stages=[stage], **weights)
        assert all(word in str(why.value) for word in (type(selector).__name__, type(stage).__name__))
    training = LocalSGD(lr=0.1, batch_size=4, private=DPSGD(0.5, 1.0, **PRIVATE))
    with pytest.raises(CompositionError, match="where DPSGD is"):
        Coordinator(federation(), logistic(5, 3), training, Synchronous(0.5), **beside(selector))


@pytest.mark.parametrize("selector", [UniformSelection(), RoundRobin()], ids=repr)
def test_what_reads_nothing_may_stand_beside_all_of_them(selector):
    for stage in SHY:
        assert experiment(selection=selector, stages=[stage], weights=Uniform(), schedule=Synchronous(0.7)).train(2).records
    training = LocalSGD(lr=0.1, batch_size=4, private=DPSGD(0.5, 1.0, **PRIVATE))
    it = Coordinator(federation(), logistic(5, 3), training, Synchronous(0.5), **beside(selector))
    assert it.train(1).records[0].clients


@dataclass(frozen=True)
class Asks(Selector):
    """Of one's own, and says nothing of what it reads."""

    def asks(self, idle, k, rng, reports):
        return idle

    def answer(self, look):
        return {"x": look.x}

    def select(self, idle, k, rng, reports):
        return list(idle[:k])


@dataclass(frozen=True)
class Keeps(InOrder):
    keeps_updates = True


@dataclass(frozen=True)
class Tells(InOrder):
    def tells(self, look):
        return {"first label": float(look.y[0])}


@dataclass(frozen=True)
class Quiet(PowerOfChoice):
    reads = ()


@dataclass(frozen=True)
class Shields(Stage):
    shields = True


@pytest.mark.parametrize("selector", [Asks(), Keeps(), Tells(), Quiet(3)], ids=repr)
@pytest.mark.parametrize("stage", [*SHY, Shields()], ids=repr)
def test_of_ones_own_nothing_is_taken_for_granted(selector, stage):
    with pytest.raises(CompositionError, match="reads the answers of single clients"):
        experiment(selection=selector, stages=[stage], weights=Uniform())


class PoissonInName(PowerOfChoice):
    poisson = True


def test_a_subclass_that_calls_itself_poisson_is_not_believed():
    history = central(PoissonInName(3), CentralDP(0.1, 1.0, **PRIVATE)).train(2)
    assert history.last("epsilon") == central(InOrder(), CentralDP(0.1, 1.0, **PRIVATE)).train(2).last("epsilon")


@pytest.mark.parametrize("selector", [PowerOfChoice(3), PowerOfChoice(3, "cpow-d"), Oort(), TiFL()], ids=repr)
@pytest.mark.parametrize("method", ["part", "several", "own"])
def test_nobody_measures_a_part_of_a_model(selector, method):
    net = mlp(5, 4, 3)
    model, personal = {"part": (Split(net, "dense1"), FedRep(1)), "several": (Clusters(net, 2), IFCA()),
                       "own": (net, Ditto(1.0))}[method]                                                   # fmt: skip
    how = {"training": LocalSGD(lr=0.1, batch_size=4, personal=personal), "schedule": Synchronous(0.5)}
    if method == "own":
        assert len(Coordinator(federation(), model, **beside(selector), **how).train(2)) == 2
    else:
        with pytest.raises(CompositionError, match="judge the server's model"):
            Coordinator(federation(), model, **beside(selector), **how)
        for blind in (RoundRobin(), DivFL(), LabelDiversity(), QualityScore()):
            assert len(Coordinator(federation(), model, selection=blind, **how).train(2)) == 2


@pytest.mark.parametrize("selector", SELECTORS, ids=repr)
def test_with_controls_and_deadlines(selector):
    data = federation((8, 5, 6, 7, 4, 9))
    how = LocalSGD(lr=0.1, batch_size=4, correction=Scaffold())
    it = Coordinator(data, logistic(5, 3), how, Synchronous(0.5, over_selection=0.5, deadline=9.0), **beside(selector),
                     fleet=LogNormal(examples_per_second=4.0, speed_spread=1.5, drop=0.2), strict=True)          # fmt: skip
    history = it.train(6)
    assert np.isfinite(history.state.server.params).all()


# --- time --------------------------------------------------------------------------------------------------------------------


def crowd(n=10_000):
    rng = stream(0, "crowd")
    table = rng.random((n, 12))
    labels, updates = rng.integers(0, 50, (n, 10)), rng.standard_normal((n, 16)).astype(np.float32)
    names = ("examples", "loss_first", "loss_last", "loss_rms", "seconds", "compute_seconds", "download_seconds",
             "upload_seconds", "bytes_up", "bytes_down", "probe_loss", "probe_accuracy")  # fmt: skip
    return {
        client: dict(zip(names, row.tolist(), strict=True)) | {
            "asked": 2, "answered": 1, "asked_version": client % 9, "version": float(client % 9), "probe_version": 9,
            "probe_examples": 8, "probe_labels": labels[client], "update": updates[client]}
        for client, row in enumerate(table)
    }  # fmt: skip


CROWD = crowd()


@every
def test_ten_thousand_clients_in_twenty_milliseconds(selector):
    idle, best = list(CROWD), math.inf
    for i in range(25):
        begin = time.process_time()
        selector.asks(idle, 100, stream(0, "time", i), CROWD)
        chosen = selector.select(idle, 100, stream(0, "time", i), CROWD)
        best = min(best, time.process_time() - begin)
        if best < 0.02:
            break
    assert len(chosen) == 100
    assert best < 0.02


def test_a_fleet_of_ten_thousand_says_quickly_who_is_there():
    fleet, best = Devices(LogNormal(), DayNight(zones=1.0)), math.inf
    for _ in range(3):
        begin = time.process_time()
        for client in range(10_000):
            fleet.away(client, 5000.0)
        best = min(best, time.process_time() - begin)
    assert best < 0.2
    assert Equal().away(0, 1.0) == 0.0


def test_who_is_away_makes_the_others_chances_larger_and_so_nothing_is_amplified():
    here = {"schedule": Synchronous(0.5), "selection": UniformSelection()}
    release = Gaussian(1.0)
    assert isinstance(as_sampled(experiment(**here), release), FixedSizeSampled)
    assert isinstance(as_sampled(experiment(fleet=Devices(failure=0.1), **here), release), FixedSizeSampled)
    for fleet in (Devices(presence=DayNight()), Devices(Devices(presence=DayNight()))):
        event = as_sampled(experiment(fleet=fleet, **here), release)
        assert isinstance(event, ChosenBy)
        assert "who is there" in str(event)
    seen = [central(UniformSelection(), CentralDP(0.1, 1.0, **PRIVATE), fleet=fleet).train(3).last("epsilon")
            for fleet in (LogNormal(), Devices(presence=DayNight()))]                                         # fmt: skip
    assert seen[1] >= seen[0]
