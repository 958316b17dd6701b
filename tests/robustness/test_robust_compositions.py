"""Beside every other part: a rule is refused when it is built, with a sentence, or its answers lie among what arrived."""

from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from small import experiment, federation
from test_compositions import DATA, MODEL, PRIVATE, STAGES, SURROUNDINGS, build

from fl_course import (
    ALIE,
    DPSGD,
    QSGD,
    Aggregation,
    Bucketing,
    Buffered,
    Bulyan,
    ByExamples,
    CentralDP,
    CentredClipping,
    CompositionError,
    CoordinateMedian,
    Dataset,
    FedDyn,
    FederatedDropout,
    FedNova,
    FLTrust,
    GeometricMedian,
    Krum,
    LocalDP,
    LocalSGD,
    MultiKrum,
    NearestNeighbourMixing,
    NormBound,
    OutlierRemoval,
    PoissonSelection,
    RandomK,
    Rotate,
    Scaffold,
    Schedule,
    SecureSum,
    Stage,
    Synchronous,
    Threshold,
    TopK,
    TreeDP,
    TrimmedMean,
    Uniform,
    stream,
)
from fl_course.federation.interfaces import Attack
from fl_course.wire.payloads import numbers

ROOT = Dataset("root", DATA.x_test, DATA.y_test, 3)
RULES = [
    OutlierRemoval(), CoordinateMedian(), TrimmedMean(0), Krum(0), MultiKrum(0), Bulyan(0), GeometricMedian(),
    CentredClipping(0.5), NormBound(0.5), FLTrust(ROOT), Bucketing(CoordinateMedian()),
    NearestNeighbourMixing(GeometricMedian()),
]  # fmt: skip
LENGTHS = (CentredClipping, NormBound, FLTrust)       # these may answer with something shorter, or longer, than any update


@dataclass(frozen=True)
class Seen(Aggregation):
    """A rule, and what it was given and gave."""

    rule: Aggregation
    steps: list = field(default_factory=list, repr=False, compare=False)

    def combine(self, updates, staleness, ctx=None):
        answer = self.rule.combine(updates, staleness, ctx)
        self.steps.append((updates, answer))
        return answer

    def check(self, experiment):
        self.rule.check(experiment)


def attempt(rule, stages, around):
    """None if it ran, else the sentence with which it was refused."""
    seen = Seen(rule)
    try:
        it = replace(build(stages, around, aggregation=seen), strict=False)
    except CompositionError as why:
        return str(why)
    with np.errstate(all="raise", under="ignore"):
        history = it.train(2)
    assert np.isfinite(history.state.server.params).all()
    events = [event for record in history.records for event in record.events]
    assert not [event for event in events if "failed" in event or "refused" in event], events
    for updates, answer in seen.steps:
        if answer.weight and not isinstance(rule, LENGTHS):
            rows = np.array([numbers(update.delta).astype(float) / update.weight for update in updates])
            room = 1e-5 * (1e-6 + np.abs(rows).max())
            assert (rows.min(axis=0) - room <= answer.mean).all()
            assert (answer.mean <= rows.max(axis=0) + room).all()
        assert set(answer.removed) < {update.client for update in updates} or not answer.weight
    return None


@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_beside_every_stage_and_in_many_surroundings(rule):
    plain = {name: values[0] for name, values in SURROUNDINGS.items()}
    rng, ran = stream(0, "robust sweep", repr(rule)[:20]), 0
    for stage in STAGES:
        around = {name: values[0] if rng.random() < 0.66 else values[rng.integers(len(values))]
                  for name, values in SURROUNDINGS.items()}  # fmt: skip
        for where in (plain, around):
            ran += attempt(rule, (stage,), where) is None
    for name in ("weights", "schedule", "selection", "optimizer", "private", "epochs", "correction"):
        for value in SURROUNDINGS[name]:
            ran += attempt(rule, (), plain | {name: value}) is None
    assert ran >= 20


@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_refused_where_it_would_be_unsound(rule):
    plain = {name: values[0] for name, values in SURROUNDINGS.items()}
    masks = [SecureSum(0.5, max_weight=8), SecureSum(0.5, masked=False)]
    for stage in masks:
        assert "masks" in attempt(rule, (stage,), plain)
    for stage in (CentralDP(0.05, 0.5, **PRIVATE), TreeDP(0.05, 0.5, participations=9, **PRIVATE)):
        assert "sensitivity is not the clip bound over n" in attempt(rule, (stage,), plain)
    assert "another part of the model" in attempt(rule, (FederatedDropout(MODEL),), plain)
    assert "control would travel beside" in attempt(rule, (), plain | {"correction": Scaffold()})
    assert "work would travel beside" in attempt(rule, (FedNova(),), plain)
    assert "mean" in attempt(rule, (), plain | {"correction": FedDyn(0.5)})
    assert attempt(rule, (), plain | {"private": DPSGD(0.5, 0.5, noise_seed=1)}) is None
    assert attempt(rule, (LocalDP(0.05, 0.5, **PRIVATE),), plain) is None
    assert attempt(rule, (QSGD(4),), plain) is None
    for stage in (TopK(0.2), RandomK(0.3), Threshold(0.1)):
        answer = attempt(rule, (stage,), plain)
        assert ("median of mostly zeros" in answer) if not rule.whole else answer is None
    turned = attempt(rule, (Rotate(),), plain)
    assert ("of its own" in turned) if isinstance(rule, FLTrust) else turned is None


def test_a_stage_of_ones_own_that_lets_something_travel_beside_is_seen():
    @dataclass(frozen=True)
    class Chatty(Stage):
        def client(self, update, ctx):
            return replace(update, extras={"mood": np.ones(1, np.float32)})

        def sends(self, example, ctx):
            return self.client(example, ctx)

    with pytest.raises(CompositionError, match="mood would travel beside"):
        experiment(aggregation=CoordinateMedian(), stages=[Chatty()])


# --- too few ------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Own(Schedule):
    """Somebody's own: whom it starts cannot be known."""

    def start(self, clients, in_flight, first):
        return 3 if first else 0

    def ready(self, in_flight, arrived, clients):
        return in_flight == 0


COHORTS = [
    (Synchronous(0.5), None, 3), (Synchronous(0.1, min_clients=5), None, 5), (Synchronous(0.5, over_selection=0.9), None, 3),
    (Synchronous(1.0), None, 6), (Buffered(5, 4), None, 4), (Synchronous(0.5), PoissonSelection(), 6), (Own(), None, 6),
]  # fmt: skip


@pytest.mark.parametrize(("schedule", "selection", "most"), COHORTS, ids=repr)
def test_breakdown_is_refused_where_the_cohort_is_known(schedule, selection, most):
    more = {} if selection is None else {"selection": selection}
    for rule in (TrimmedMean(1), TrimmedMean(2), Krum(0), Krum(1), Bulyan(0), Bulyan(1), Bucketing(TrimmedMean(1))):
        if rule.least <= most:
            experiment(schedule=schedule, aggregation=rule, **more)
        else:
            with pytest.raises(CompositionError, match=f"needs {rule.least} updates in a step, and there are {most} at most"):
                experiment(schedule=schedule, aggregation=rule, **more)


def test_a_round_with_too_few_is_not_stepped_and_says_why():
    it = experiment(schedule=Own(), aggregation=TrimmedMean(2))
    start = it.initial()
    history = it.train(2, start)
    assert history.state.server.version == 2
    assert np.array_equal(history.state.server.params, start.server.params)
    said = [e for record in history.records for e in record.events if "TrimmedMean(f=2) needs 5 updates or more, and 3 can" in e]
    assert len(said) == 2
    assert said[0].endswith("the model stays as it was")
    with pytest.raises(ValueError, match="needs 5 updates"):
        replace(it, strict=True).train(1)


@dataclass(frozen=True)
class Rubbish(Attack):
    """Sends what is no number."""

    clients: tuple = (0, 4)
    value: float = np.nan

    def strike(self, tasks, updates, ctx):
        return [replace(u, delta=np.full_like(u.delta, self.value)) if u.client in self.clients else u for u in updates]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_rubbish_is_refused_and_stalls_no_round(value):
    """Two of five send no numbers: the three others go on, since both liars have been found out."""
    data = federation((8, 3, 12, 9, 5))
    it = experiment(data, aggregation=TrimmedMean(2), attack=Rubbish(value=value), schedule=Synchronous(1.0), weights=Uniform())
    record = it.train(1).records[0]
    assert record.clients == (1, 2, 3)
    assert len([event for event in record.events if "was refused" in event]) == 2
    seen, start = Seen(TrimmedMean(2)), it.initial()
    replace(it, aggregation=seen, attack=None).train(1, start)
    mean = np.mean([update.delta for update in seen.steps[0][0] if update.client in (1, 2, 3)], axis=0)
    np.testing.assert_allclose(it.train(1, start).state.server.params - start.server.params, mean, atol=1e-6)
    with pytest.raises(CompositionError, match="needs 5"):
        replace(it, schedule=Synchronous(0.8))


def test_two_answers_in_a_buffer_are_one_vote():
    """A fast liar cannot outvote the others by answering twice."""
    heard = []

    @dataclass(frozen=True)
    class Count(Aggregation):
        def combine(self, updates, staleness, ctx=None):
            answer = OutlierRemoval().combine(updates, staleness, ctx)
            heard.append(([update.client for update in updates], answer.weight + len(answer.removed)))
            return answer

    experiment(schedule=Buffered(3, 4), aggregation=Count(), selection=PoissonFree()).train(6)
    assert any(len(set(clients)) < len(clients) for clients, _ in heard)
    assert all(said == len(set(clients)) for clients, said in heard)


class PoissonFree(type(experiment().selection)):
    """The same two first, again and again."""

    def select(self, idle, k, rng, reports):
        return sorted(idle)[:k]


# --- limits, and states that travel ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", [TrimmedMean(0), NormBound(1e9), CentredClipping(1e9), OutlierRemoval(cutoff=1e12), Bulyan(0),
                                  MultiKrum(0), Bucketing(TrimmedMean(0), 3), NearestNeighbourMixing(TrimmedMean(0))],
                         ids=repr)  # fmt: skip
@pytest.mark.parametrize("weights", [Uniform(), ByExamples()], ids=repr)
def test_without_anybody_to_fear_it_is_the_plain_mean(rule, weights):
    data = federation((8, 3, 12, 9, 5, 7))
    plain = experiment(data, weights=Uniform()).train(3).state.server.params
    np.testing.assert_allclose(experiment(data, weights=weights, aggregation=rule).train(3).state.server.params, plain, atol=2e-6)


@pytest.mark.parametrize("rule", [CentredClipping(0.05), Bucketing(CoordinateMedian()), FLTrust(ROOT),
                                  Bucketing(CentredClipping(0.1), 3)], ids=repr)  # fmt: skip
def test_cut_anywhere_and_resumed_it_is_the_same_to_the_bit(rule, tmp_path):
    from fl_course import load, save

    it = experiment(federation((8, 3, 12, 9, 5, 7)), aggregation=rule, attack=ALIE([1]), schedule=Synchronous(1.0))
    whole = it.train(5)
    for cut in (1, 2, 4):
        save(tmp_path / "half", it.train(cut).state, it)
        again = it.train(5 - cut, load(tmp_path / "half", it))
        assert again.state.server.params.tobytes() == whole.state.server.params.tobytes()
        assert again.records[-1] == whole.records[-1]


def test_the_centre_is_the_last_answer():
    seen = Seen(CentredClipping(0.01, 2))
    it = experiment(aggregation=seen, schedule=Synchronous(1.0))
    centre = np.zeros(it.model.dim)
    for step, (state, _) in enumerate(it.run(4)):
        rows = np.array([update.delta.astype(float) / update.weight for update in seen.steps[step][0]])
        for _ in range(2):
            off = rows - centre
            centre = centre + np.mean([a * min(1, 0.01 / np.linalg.norm(a)) for a in off], axis=0)
        np.testing.assert_allclose(state.server.state["clipping_centre"], centre, atol=1e-9)
        np.testing.assert_allclose(seen.steps[step][1].mean, centre, atol=1e-7)


def test_the_shuffle_moves_no_other_dice():
    """With buckets as large as the cohort the shuffle does not matter, and nothing else has changed."""
    one = experiment(weights=Uniform(), schedule=Synchronous(0.5)).train(4)
    two = experiment(aggregation=Bucketing(TrimmedMean(0), 99), schedule=Synchronous(0.5)).train(4)
    assert [record.clients for record in one.records] == [record.clients for record in two.records]
    np.testing.assert_allclose(one.state.server.params, two.state.server.params, atol=1e-6)


def test_the_root_update_is_plain_sgd_on_the_root_set():
    from fl_course.core import Context, Server, Task
    from fl_course.engine.sgd import train_alone

    rule = FLTrust(ROOT)
    it = experiment(DATA, training=LocalSGD(lr=0.2, epochs=3, batch_size=6), aggregation=rule, schedule=Synchronous(1.0))
    server = Server(it.model.init(stream(3, "init")))
    own = rule.own(Context(it.seed, server, experiment=it))
    slow = train_alone(it.model, Task("root", server, it.seed), rule._data, it.training)
    np.testing.assert_allclose(own, slow, atol=1e-6)
    assert np.linalg.norm(own) > 0.01


def test_a_root_set_must_fit_the_model():
    from fl_course import digits

    with pytest.raises(ValueError, match="FLTrust's root set does not fit"):
        experiment(aggregation=FLTrust(digits()), schedule=Synchronous(1.0))


def test_a_part_of_a_model_cannot_be_trained_by_the_server():
    from fl_course import FedRep, Split

    parts = {"model": Split(MODEL, personal="dense1"), "training": LocalSGD(personal=FedRep())}
    for rule in (FLTrust(ROOT), FLTrust(ROOT, LocalSGD()), Bucketing(FLTrust(ROOT))):
        with pytest.raises(CompositionError, match="the server has only a part"):
            replace(experiment(DATA, schedule=Synchronous(1.0)), aggregation=rule, **parts)
    it = replace(experiment(DATA, schedule=Synchronous(1.0)), aggregation=CoordinateMedian(1), **parts)
    assert np.isfinite(it.train(2).state.server.params).all()


def test_where_nobody_is_trusted_the_model_stays():
    from fl_course import SignFlip

    data = federation((8, 8, 8, 8))
    names = list(data.ids)
    it = experiment(data, training=LocalSGD(lr=0.5, epochs=3, batch_size=None), aggregation=FLTrust(ROOT), attack=SignFlip(names),
                    schedule=Synchronous(1.0))  # fmt: skip
    root = FLTrust(Dataset("all", data.x, data.y, 3))
    start = it.initial()
    history = replace(it, aggregation=root).train(1, start)
    assert np.array_equal(history.state.server.params, start.server.params)
    assert "FLTrust trusts no update: the model stays as it was" in history.records[0].events


def test_one_client_more_or_less_ids_of_any_kind():
    for ids in ([0], ["a"], [7, "x", -1, "ü"]):
        data = federation([8] * len(ids), ids=ids)
        for rule in (CoordinateMedian(), GeometricMedian(), OutlierRemoval(), TrimmedMean(0), Bucketing(CoordinateMedian())):
            history = experiment(data, aggregation=rule, schedule=Synchronous(1.0)).train(2)
            assert np.isfinite(history.state.server.params).all()


def test_names_in_another_order_give_the_same_model():
    one = federation((8, 3, 12, 9, 5, 7))
    two = federation((8, 3, 12, 9, 5, 7), order=[3, 0, 5, 1, 4, 2])
    for rule in (CoordinateMedian(1), Krum(1), Bulyan(0), GeometricMedian(2), Bucketing(CoordinateMedian(1)),
                 CentredClipping(0.1)):  # fmt: skip
        runs = [experiment(data, aggregation=rule, schedule=Synchronous(1.0), attack=ALIE([0])).train(3) for data in (one, two)]
        assert runs[0].state.server.params.tobytes() == runs[1].state.server.params.tobytes()
