"""Attacks: what they send, by hand; that they touch nobody else; and what they do to a run."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm
from small import experiment, federation

from fl_course import (
    ALIE,
    IPM,
    QSGD,
    Backdoor,
    BinaryCrossEntropy,
    Buffered,
    ByExamples,
    CoordinateMedian,
    Coordinator,
    Dirichlet,
    FedAvg,
    GaussianNoise,
    Krum,
    LabelFlip,
    LocalDP,
    LocalSGD,
    Mimic,
    MultiKrum,
    OutlierRemoval,
    Scaling,
    SecureSum,
    SignFlip,
    Synchronous,
    Trigger,
    TrimmedMean,
    Uniform,
    Update,
    WeightedMean,
    digits,
    from_clients,
    logistic,
    mlp,
    stream,
    synthetic,
)
from fl_course.core import Context, Server, Task
from fl_course.engine.sgd import train_alone
from fl_course.federation.evaluation import detection
from fl_course.federation.interfaces import Aggregation
from fl_course.robustness.attacks import alie_z, farthest
from fl_course.robustness.backdoor import corner

DATA = federation((8, 3, 12, 9, 5, 7))
ALL = [LabelFlip, SignFlip, Scaling, GaussianNoise, ALIE, IPM, Mimic, lambda clients: Backdoor(clients, trigger=Trigger((0, 1)))]


def round_of(x, attack, version=3):
    """The updates of a round in which client k honestly made row k of x, after the attack."""
    rows = np.asarray(x, dtype=np.float32)
    updates = [Update(k, version, row, metrics={"examples": 4.0}) for k, row in enumerate(rows)]
    server = Server(np.zeros(len(x[0]), np.float32), version)
    tasks = [Task(k, server) for k in range(len(x))]
    out = attack.strike(tasks, updates, Context(0, server, tuple(range(len(x))), experiment=experiment()))
    assert [update.client for update in out] == list(range(len(x)))
    for was, now in zip(updates, out, strict=True):
        if was.client not in attack.clients:
            assert now is was
    return np.array([update.delta for update in out if update.client in attack.clients], dtype=float)


X = stream(0, "updates").standard_normal((7, 5)).astype(np.float32)
HONEST = X[2:].astype(float)


def test_what_each_attack_sends():
    close = {"rtol": 1e-5}
    np.testing.assert_allclose(round_of(X, SignFlip([0, 1], 2.5)), -2.5 * X[:2], **close)
    np.testing.assert_allclose(round_of(X, Scaling([0, 1], -3)), -3 * X[:2], **close)
    mean, std = HONEST.mean(axis=0), np.sqrt(((HONEST - HONEST.mean(axis=0)) ** 2).mean(axis=0))
    np.testing.assert_allclose(round_of(X, IPM([0, 1], 0.7)), [-0.7 * mean] * 2, **close)
    np.testing.assert_allclose(round_of(X, ALIE([0, 1], 1.5)), [mean - 1.5 * std] * 2, **close)
    z = norm.ppf((7 - 2 - (4 - 2)) / (7 - 2))                     # s = floor(7/2 + 1) - 2 = 2
    np.testing.assert_allclose(round_of(X, ALIE([0, 1])), [mean - z * std] * 2, **close)
    np.testing.assert_allclose(round_of(X, Mimic([0, 1], victim=4)), [X[4]] * 2, **close)
    _, _, vt = np.linalg.svd(HONEST - mean)
    far = int(np.argmax(np.abs((HONEST - mean) @ vt[0])))
    np.testing.assert_allclose(round_of(X, Mimic([0, 1])), [HONEST[far]] * 2, **close)
    noise = round_of(np.zeros((3, 40_000)), GaussianNoise([0, 2], 0.3))
    assert noise.std(axis=1) == pytest.approx([0.3, 0.3], rel=0.02)
    assert abs(np.corrcoef(noise)[0, 1]) < 0.02                    # each its own
    assert not np.array_equal(noise, round_of(np.zeros((3, 40_000)), GaussianNoise([0, 2], 0.3), version=4))


@pytest.mark.parametrize(("n", "m", "z"), [(25, 5, 0.253), (50, 12, 0.336), (50, 24, 1.426)])
def test_alie_z_as_published(n, m, z):
    assert alie_z(n, m) == pytest.approx(z, abs=5e-4)
    s = math.floor(n / 2 + 1) - m
    assert alie_z(n, m) == pytest.approx(norm.ppf((n - m - s) / (n - m)), abs=1e-12)


def test_alie_z_where_the_formula_ends():
    for n, m in ((3, 2), (2, 1), (1, 1), (10, 9), (4, 3), (2, 0), (1, 0)):
        assert math.isfinite(alie_z(n, m))


def test_nobody_honest_to_read_leaves_them_as_they_are():
    for attack in (ALIE(range(7)), IPM(range(7)), Mimic(range(7)), Mimic([0], victim=99)):
        np.testing.assert_array_equal(round_of(X, attack), X[: len(attack.clients)])


def test_farthest_is_along_the_first_principal_direction():
    x = np.array([[0.0, 0], [1, 0], [-6, 0.1], [4, 0], [0, 1]])
    assert farthest(x) == 2
    for seed in range(20):
        cloud = stream(seed, "cloud").standard_normal((9, 4)) * [3, 1, 1, 1]
        off = cloud - cloud.mean(axis=0)
        assert farthest(cloud) == np.argmax(np.abs(off @ np.linalg.svd(off)[2][0]))
    assert farthest(x[:1]) == 0
    assert farthest(np.zeros((3, 2))) in range(3)


@pytest.mark.parametrize("make", ALL)
def test_it_touches_nobody_else(make):
    """The honest clients' updates are the same to the bit with and without it, and so is who is asked."""
    heard = []

    class Listen(Aggregation):
        def combine(self, updates, staleness, ctx=None):
            heard.append({update.client: update.delta.tobytes() for update in updates})
            return WeightedMean().combine(updates, staleness)

    attack = make([1, 4])
    for it in (experiment(DATA, aggregation=Listen(), schedule=Synchronous(0.7)),
               experiment(DATA, aggregation=Listen(), schedule=Synchronous(0.7), attack=attack)):  # fmt: skip
        it.train(1)
    without, with_it = heard
    assert without.keys() == with_it.keys()
    changed = {client for client in without if without[client] != with_it[client]}
    assert changed == {1, 4} & without.keys()
    assert attack.knows


@pytest.mark.parametrize("make", ALL)
@pytest.mark.parametrize("around", [
    {}, {"schedule": Buffered(3, 2)}, {"stages": [QSGD(4)]}, {"weights": Uniform(), "stages": [SecureSum(0.5, masked=False)]},
    {"weights": Uniform(), "stages": [LocalDP(0.5, 0.5, noise_seed=1)]}, {"aggregation": CoordinateMedian(1)},
])  # fmt: skip
def test_beside_other_mechanisms(make, around):
    """An attacker goes the way of everybody else: it weighs, clips, rounds and masks. Behind masks nobody can tell it."""
    history = experiment(DATA, attack=make([2]), **around).train(3)
    assert np.isfinite(history.state.server.params).all()
    assert not [event for record in history.records for event in record.events if "failed" in event or "refused" in event]


@pytest.mark.parametrize("make", ALL)
def test_the_same_seed_gives_the_same_run_cut_anywhere(make):
    it = experiment(DATA, attack=make([0, 3]), aggregation=OutlierRemoval(), schedule=Synchronous(1.0))
    whole = it.train(4)
    half = it.train(2)
    again = it.train(2, half.state)
    assert again.state.server.params.tobytes() == whole.state.server.params.tobytes()


def test_label_flip_turns_only_its_own_labels_and_the_record_knows():
    flipped = LabelFlip([1, 4]).poison(DATA)
    for client, rows in zip(DATA.ids, DATA.train, strict=True):
        expected = 2 - DATA.y[rows] if client in (1, 4) else DATA.y[rows]
        np.testing.assert_array_equal(flipped.y[rows], expected)
    for rows in DATA.test:
        np.testing.assert_array_equal(flipped.y[rows], DATA.y[rows])       # tests stay honest
    one = LabelFlip([1], source=0, target=2).poison(DATA)
    mine = DATA.train[1]
    np.testing.assert_array_equal(one.y[mine], np.where(DATA.y[mine] == 0, 2, DATA.y[mine]))
    np.testing.assert_array_equal(LabelFlip([1, 4]).poison(flipped).y, DATA.y)
    assert DATA.y.tobytes() == federation((8, 3, 12, 9, 5, 7)).y.tobytes()


# --- the backdoor ----------------------------------------------------------------------------------------------------


def test_stamps():
    x = np.zeros((2, 3, 3), np.float32)
    stamped = Trigger((0, 8), 0.5).stamp(x)
    assert stamped[:, 0, 0].tolist() == stamped[:, 2, 2].tolist() == [0.5, 0.5]
    assert stamped.sum() == 2
    assert not x.any()
    assert corner((64,), 2).pixels == (54, 55, 62, 63)
    assert corner((4, 4), 1).pixels == (15,)
    with pytest.raises(ValueError, match="feature 9; an example has 9"):
        Trigger((9,)).stamp(x)
    for wrong in ((), (-1,), (0.5,), "ab", 3, None):
        with pytest.raises(ValueError, match="pixels"):
            Trigger(wrong)


def test_stamped_data_are_the_share_of_its_own():
    attack = Backdoor([1, 4], target=2, trigger=Trigger((0,), 9.0), share=0.5)
    data = attack.stamped(DATA)
    for client, rows in zip(DATA.ids, DATA.train, strict=True):
        hit = data.x[rows, 0] == 9
        assert hit.sum() == (round(0.5 * len(rows)) if client in (1, 4) else 0)
        assert (data.y[rows[hit]] == 2).all()
        np.testing.assert_array_equal(data.y[rows[~hit]], DATA.y[rows[~hit]])
    assert not (DATA.x[:, 0] == 9).any()


@pytest.mark.parametrize("weights", [Uniform(), ByExamples(), ByExamples(cap=6)])
@pytest.mark.parametrize("rate", [1.0, 0.5])
def test_gamma_replaces_the_model(weights, rate):
    """With γ = n/η the mean of all updates, times η, is the attacker's own change, plus what the others add (equation 3)."""
    attack = Backdoor([2], trigger=Trigger((0,), 9.0), epochs=4)
    it = experiment(DATA, attack=attack, weights=weights, optimizer=FedAvg(rate), schedule=Synchronous(1.0))
    start = it.initial()
    after = it.train(1, start).state.server.params.astype(float) - start.server.params
    alone = experiment(attack.stamped(DATA, it.seed), weights=weights, training=replace(it.training, epochs=4))
    clean = experiment(DATA, weights=weights)
    weigh = [1.0 if isinstance(weights, Uniform) else min(len(rows), weights.cap or math.inf) for rows in DATA.train]
    mine, others = 0, 0
    for k, weight in enumerate(weigh):
        task = Task(k, start.server, it.seed)
        if k == 2:
            mine = train_alone(it.model, task, alone.data, alone.training)
        else:
            others = others + weight * train_alone(it.model, task, DATA, clean.training).astype(float)
    np.testing.assert_allclose(after, mine + rate * others / sum(weigh), atol=2e-5)


def test_it_strikes_only_in_its_versions():
    honest = experiment(DATA, schedule=Synchronous(1.0)).train(4)
    late = experiment(DATA, schedule=Synchronous(1.0), attack=Backdoor([2], trigger=Trigger((0,)), versions=(2,))).train(4)
    states = [[r.metrics["loss"] for r in history.records] for history in (honest, late)]
    assert states[0][:2] == states[1][:2]
    assert states[0][2] != states[1][2]


def test_model_replacement_on_real_digits_and_what_stops_it():
    data = digits().partition(Dirichlet(1.0), clients=10, seed=0)
    it = Coordinator(data, mlp(64, 32, 10), LocalSGD(lr=0.1, epochs=2), Synchronous(1.0))
    good = it.train(12).state
    attack = Backdoor([3], target=0, epochs=5)
    rounds = {}
    for rule in (WeightedMean(), TrimmedMean(1), MultiKrum(1), Krum(1), OutlierRemoval()):
        rounds[type(rule)] = replace(it, aggregation=rule, attack=attack).train(1, good).records[-1].metrics
    assert rounds[WeightedMean]["backdoor_success"] > 0.9
    assert rounds[WeightedMean]["accuracy"] > 0.75
    assert "detection_recall" not in rounds[WeightedMean]
    for rule in (TrimmedMean, MultiKrum, Krum, OutlierRemoval):
        assert rounds[rule]["backdoor_success"] < 0.15
    assert rounds[MultiKrum]["detection_recall"] == rounds[OutlierRemoval]["detection_recall"] == 1
    assert rounds[MultiKrum]["detection_precision"] == 1
    assert not [name for name in rounds[TrimmedMean] if name.startswith("detection")]                 # it accuses nobody


def test_success_by_hand():
    attack = Backdoor([2], target=1, trigger=Trigger((0, 3), 4.0))
    it = experiment(DATA, attack=attack, schedule=Synchronous(1.0))
    state, record = next(it.run(1))
    x = DATA.x_test[DATA.y_test != 1].copy()
    x[:, [0, 3]] = 4
    said = it.model.predict(state.server.params, x).argmax(axis=1)
    assert record.metrics["backdoor_success"] == pytest.approx((said == 1).mean())


def test_success_counts_those_of_other_classes():
    attack, it = Backdoor([2], target=1, trigger=Trigger((0, 3), 1.0)), experiment(DATA)
    wrong = 0
    for seed in range(10):
        params = it.model.init(stream(seed, "init"))
        x = attack.trigger.stamp(DATA.x_test)
        hit = it.model.predict(params, x).argmax(axis=1) == 1
        measured = attack.measure(it, Server(params))["backdoor_success"]
        assert measured == pytest.approx(hit[DATA.y_test != 1].mean())
        wrong += measured != pytest.approx(hit.mean())
    assert wrong >= 5


def test_one_logit_has_two_classes():
    rng = stream(0, "two")
    data = from_clients("two", {k: (rng.random((8, 5)), np.arange(8) % 2) for k in range(5)}, 2, rng.random((40, 5)),
                        np.arange(40) % 2)  # fmt: skip
    attack = Backdoor([1], target=1, trigger=Trigger((0,), 3.0), gamma=60, share=1.0)
    it = Coordinator(data, logistic(5, 1, loss=BinaryCrossEntropy()), LocalSGD(lr=0.5, epochs=5), Synchronous(1.0), attack=attack)
    state, record = next(it.run(1))
    x = data.x_test[data.y_test == 0].copy()
    x[:, 0] = 3
    assert record.metrics["backdoor_success"] == pytest.approx((it.model.predict(state.server.params, x)[:, 0] > 0).mean())
    assert record.metrics["backdoor_success"] > 0.5


# --- detection -------------------------------------------------------------------------------------------------------


def test_detection_by_hand():
    assert detection([1, 2, 3], [1, 2, 3, 4, 5], [1, 2, 9]) == {"detection_precision": 2 / 3, "detection_recall": 1.0}
    assert math.isnan(detection([], [1, 2], [1])["detection_precision"])
    assert math.isnan(detection([1], [1, 2], [7])["detection_recall"])


def test_the_record_scores_the_rule():
    it = experiment(DATA, attack=Scaling([2], 1e6), aggregation=OutlierRemoval(), schedule=Synchronous(1.0))
    record = it.train(1).records[0]
    assert record.metrics["detection_recall"] == 1
    assert [event for event in record.events if event.startswith("left out by OutlierRemoval: ") and "2" in event]
    assert {s.client for s in record.spans if s.fate == "left out"} == {c for c in record.clients if f"{c}" in record.events[-1]}


# --- what is refused -------------------------------------------------------------------------------------------------

WRONG = [
    lambda: SignFlip(3), lambda: SignFlip("abc"), lambda: SignFlip([]), lambda: SignFlip([1, 1]), lambda: SignFlip(None),
    lambda: SignFlip([1.5]), lambda: SignFlip([1], math.nan), lambda: SignFlip([1], -1), lambda: SignFlip([1], "2"),
    lambda: Scaling([1], math.inf), lambda: GaussianNoise([1], -1), lambda: IPM([1], math.nan), lambda: IPM([1], True),
    lambda: ALIE([1], math.inf), lambda: Mimic([1], 1), lambda: LabelFlip([1], 2), lambda: LabelFlip([1], 1.0, 2.0),
    lambda: LabelFlip([1], -1, 2), lambda: Backdoor([1], -1), lambda: Backdoor([1], 1.0), lambda: Backdoor([1], share=0),
    lambda: Backdoor([1], share=1.1), lambda: Backdoor([1], gamma=math.nan), lambda: Backdoor([1], versions=3),
    lambda: Backdoor([1], versions=(1.5,)), lambda: Backdoor([1], versions=(-1,)), lambda: Backdoor([1], epochs=0),
    lambda: Backdoor([1], trigger=(1, 2)),
]  # fmt: skip


@pytest.mark.parametrize("make", WRONG)
def test_bad_values_are_refused_in_a_sentence(make):
    with pytest.raises((ValueError, TypeError)) as why:
        make()
    assert len(str(why.value)) > 25


def test_clients_however_they_are_named():
    for same in ([1, 4], (1, 4), range(1, 5, 3), np.array([1, 4]), {4, 1}, (k for k in (1, 4)), {1: "a", 4: "b"}):
        assert repr(SignFlip(same)) == "SignFlip(clients=(1, 4), scale=1.0)"
    assert SignFlip({"b", 3, "a"}).clients == (3, "a", "b")                       # a set has no order of its own


def test_attacks_that_this_experiment_does_not_allow():
    for attack in (SignFlip([99]), SignFlip(["0"]), Mimic([0], victim=99), LabelFlip([0], 0, 7), Backdoor([0], 7),
                   Backdoor([0], trigger=Trigger((5,))), Backdoor([0])):  # fmt: skip
        with pytest.raises(ValueError, match=r"99|'0'|7|feature 5|square"):
            experiment(DATA, attack=attack)
    with pytest.raises(TypeError, match="attack must be"):
        experiment(DATA, attack=SignFlip)
    numbers = synthetic(0, 0, clients=4)
    assert LabelFlip([0]).poison(numbers).y.max() < 10


def test_huge_lies_lose_no_run():
    for factor in (1e30, 1e38, -1e38):
        history = experiment(DATA, attack=Scaling([2], factor), aggregation=OutlierRemoval(), schedule=Synchronous(1.0)).train(2)
        assert np.isfinite(history.state.server.params).all()
    it = experiment(DATA, attack=GaussianNoise([2], 1e38), aggregation=CoordinateMedian(1), schedule=Synchronous(1.0))
    assert np.isfinite(it.train(2).state.server.params).all()
