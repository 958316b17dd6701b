"""What runs before the noise, who is amplified, and what one client's numbers can do: each kind, not each example."""

import itertools
import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
from small import UNIFORM, InOrder, experiment

from fl_course import (
    DPSGD,
    QSGD,
    Adaptive,
    Buffered,
    CentralDP,
    Clip,
    CompositionError,
    Evaluation,
    LocalSGD,
    PoissonSelection,
    RandomK,
    SecureSum,
    Stage,
    Synchronous,
    TopK,
    TreeDP,
    UniformSelection,
    WeightedMean,
)
from fl_course.privacy.accounting import ChosenBy, Gaussian, PoissonSampled
from fl_course.privacy.books import OWN_CHOICE

PRIVATE = [CentralDP(0.01, 1.0), TreeDP(0.01, 1.0)]


def times(self, aggregate, ctx):
    return replace(aggregate, total=aggregate.total * 100)


def same(self, update, ctx):
    return update


LIBRARY = {Stage: {}, Clip: {"bound": 1.0}, TopK: {"feedback": False}, QSGD: {}, RandomK: {},
           SecureSum: {"clip": 1.0, "rounding": "toward zero"}}  # fmt: skip
HALF_SETS = [{"server": times}, {"client": same}, {"client": same, "server": times}]


@pytest.mark.parametrize("stage", PRIVATE)
@pytest.mark.parametrize("base", LIBRARY)
def test_a_half_before_the_noise_says_itself_how_far_it_stretches(stage, base):
    for halves, deep in itertools.product(HALF_SETS, (False, True)):
        mine = type("Mine", (base,), dict(halves))
        mine = type("Heir", (mine,), {}) if deep else mine
        with pytest.raises(CompositionError, match="lengthens = False"):
            experiment(weights=UNIFORM, stages=[stage, mine(**LIBRARY[base])])
    declared = type("Declared", (Stage,), {"server": lambda self, aggregate, ctx: aggregate, "lengthens": False})
    experiment(weights=UNIFORM, stages=[stage, declared()])
    experiment(weights=UNIFORM, stages=[type("Times", (Stage,), {"server": times})(), stage])     # after the noise: as it likes


@pytest.mark.parametrize("stage", PRIVATE)
def test_an_aggregation_before_the_noise_too(stage):
    class Loud(WeightedMean):
        def combine(self, updates, staleness, ctx=None):
            return times(self, WeightedMean().combine(updates, staleness), None)

    class Heir(Loud):
        pass

    class Quiet(Loud):
        lengthens = False

        def combine(self, updates, staleness, ctx=None):
            return WeightedMean().combine(updates, staleness)

    for aggregation in (Loud(), Heir()):
        with pytest.raises(CompositionError, match="WeightedMean"):
            experiment(weights=UNIFORM, stages=[stage], aggregation=aggregation)
        experiment(aggregation=aggregation)
    experiment(weights=UNIFORM, stages=[stage], aggregation=Quiet())


# --- amplification ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class All(Synchronous):
    def start(self, clients, in_flight, first):
        return clients if first else 0


@dataclass(frozen=True)
class Top(PoissonSelection):
    def select(self, idle, k, rng, reports):
        return list(idle[:k])


class Claims(InOrder):
    poisson = True


@pytest.mark.parametrize("schedule", [Synchronous(0.5), All(0.5), Synchronous(0.2, min_clients=2), All(0.2)])
@pytest.mark.parametrize("selection", [PoissonSelection(), Top(), Claims(), UniformSelection(), InOrder()])
def test_only_the_very_classes_of_the_theorem_are_amplified(schedule, selection):
    it = experiment(weights=UNIFORM, stages=[CentralDP(1.0, 1.5)], schedule=schedule, selection=selection)
    event = it.stages[0].event(it)
    proven = type(schedule) is Synchronous and type(selection) is PoissonSelection
    assert isinstance(event, PoissonSampled) == proven
    told = [text for text in it.train(2).records[0].events if text == OWN_CHOICE.format(type(selection).__name__)]
    assert bool(told) == (type(selection) not in (UniformSelection, PoissonSelection))


@pytest.mark.parametrize("rounds", [1, 3])
def test_nobody_is_amplified_while_clients_are_under_way(rounds):
    parts = {"weights": UNIFORM, "stages": [CentralDP(1.0, 1.5)]}
    before = experiment(schedule=Buffered(4, 2), **parts).train(rounds)
    assert before.state.jobs
    it = experiment(schedule=Synchronous(0.5), selection=PoissonSelection(), **parts)
    after = it.train(3, state=before.state)
    events = dict(it.stages[0].ledger(after.state.server).events)
    assert events[ChosenBy("clients that were under way before", Gaussian(1.5))] == 1
    assert events[PoissonSampled(0.5, Gaussian(1.5))] == 2
    fresh = it.train(3)
    assert dict(it.stages[0].ledger(fresh.state.server).events) == {PoissonSampled(0.5, Gaussian(1.5)): 3}


# --- bounds that adapt, and what DPSGD does not cover -----------------------------------------------------------------------


def test_a_bound_that_adapts_stays_a_positive_number_in_float32():
    for lr in (10.01, 1e4, math.inf):
        with pytest.raises(ValueError, match="lr must be"):
            Adaptive(lr=lr)
    rng = np.random.default_rng(1)
    for _ in range(300):
        how = Adaptive(rng.random(), 10 ** rng.uniform(-3, 1))
        bound = 10 ** rng.uniform(-6, 6)
        for share in rng.standard_normal(20) * 10 ** rng.uniform(-2, 300):
            bound = how.next_bound(bound, share)
            assert 0 < np.float32(bound) < np.inf
    assert Adaptive().next_bound(2.0, 0.75) == 2.0 * math.exp(-0.2 * 0.25)


def test_dpsgd_beside_what_is_reported_in_clear():
    with pytest.raises(CompositionError, match=r"Evaluation\(federated=True\).*DPSGD"):
        experiment(training=LocalSGD(private=DPSGD(1.0, 1.0)), evaluation=Evaluation(federated=True))
