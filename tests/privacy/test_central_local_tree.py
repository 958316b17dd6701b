"""Private stages: noise, sensitivity, public denominators, the ledger, the refusals; equal to no privacy without noise."""

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
from small import UNIFORM, InOrder, Lie, Spy, Timed, experiment, federation, final

from fl_course import (
    QSGD,
    Adaptive,
    Aggregation,
    Buffered,
    ByExamples,
    CentralDP,
    CompositionError,
    Discount,
    FedDyn,
    FedNova,
    FedProx,
    LocalDP,
    LocalSGD,
    PoissonSelection,
    Scaffold,
    SecureSum,
    SignSGD,
    Stage,
    Synchronous,
    TopK,
    TreeDP,
    UniformSelection,
    WeightedMean,
    load,
    mlp,
    save,
)
from fl_course.core import Aggregate, BudgetSpent, Context, Server, Update
from fl_course.privacy.accounting import (
    GDP,
    PLD,
    ChosenBy,
    FixedSizeSampled,
    Gaussian,
    Ledger,
    NonPrivate,
    PoissonSampled,
    Repeated,
    TreeAggregation,
    UnpricedEvent,
)
from fl_course.privacy.auditing import audit_two_worlds, check_noise
from fl_course.privacy.mechanisms import gaussian_epsilon, joint_noise_multiplier, norm
from fl_course.privacy.noise import secret_nodes, seeded_nodes, tree_noise

BIG = mlp(5, 2222, 3)                                            # 20,001 coordinates, to measure deviations on


def private(stage, data=None, **changes):
    return experiment(data, weights=UNIFORM, stages=[stage], **changes)


def release(stage, updates, it, version=0, extras=None, state=None):
    """What leaves both halves of `stage` for updates {client: delta}, as the loop would call it."""
    d = it.model.dim
    server = Server(np.zeros(d, np.float32), version, extras or {}, state or {})
    ctx = Context(0, server, tuple(updates), tuple(updates), experiment=it)
    sent = [stage.client(Update(k, version, delta), replace(ctx, client=k)) for k, delta in updates.items()]
    total = sum((u.delta.astype(float) for u in sent), np.zeros(d))
    names = sent[0].extras if sent else {}
    means = {name: np.mean([u.extras[name] for u in sent], axis=0) for name in names}
    return stage.server(Aggregate(total, float(len(sent)), means), ctx), ctx


# --- without noise it is nothing ----------------------------------------------------------------------------------------


def test_no_noise_and_no_clip_is_no_privacy_to_the_bit():
    stage = CentralDP(math.inf, 0.0)
    history = private(stage).train(3)
    assert final(private(stage)) == final(experiment(weights=UNIFORM))
    assert history.series("epsilon") == [math.inf] * 3
    assert all(any("epsilon is infinite" in event for event in record.events) for record in history.records)


def test_no_noise_local_and_tree_are_no_privacy():
    assert final(private(LocalDP(math.inf, 0.0))) == final(experiment(weights=UNIFORM))
    many = TreeDP(math.inf, 0.0, participations=9)
    assert final(private(many)) == final(experiment(weights=UNIFORM))


def test_no_noise_adds_up_clipped_updates_over_the_planned_cohort():
    it = private(CentralDP(1.0, 0.0))                            # 3 of 6 clients
    long, short = np.full(it.model.dim, 5.0, np.float32), np.full(it.model.dim, 0.01, np.float32)
    out, _ = release(it.stages[0], {0: long, 1: short}, it)
    expected = (long / np.linalg.norm(long) + short) / 3
    assert np.allclose(out.mean, expected, atol=1e-6)


# --- noise --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("noise_seed", [None, 5])
def test_deviation_of_the_noise_on_the_mean(noise_seed):
    stage = CentralDP(0.5, 1.3, noise_seed=noise_seed)
    it = replace(experiment(weights=UNIFORM), model=BIG, stages=[stage])
    rows = [release(stage, {k: np.zeros(BIG.dim, np.float32) for k in range(3)}, it, version)[0].mean for version in range(3)]
    assert check_noise(rows, 1.3 * 0.5 / 3).problems == ()
    noted = release(stage, {}, it)[1].meter.notes["noise_std"]
    assert noted == pytest.approx(1.3 * 0.5 / 3)


def test_noise_of_a_seed_repeats_and_secret_noise_does_not():
    seeded, other, secret = (CentralDP(1.0, 1.0, noise_seed=s) for s in (1, 2, None))
    assert final(private(seeded)) == final(private(seeded)) != final(private(other))
    assert final(private(secret)) != final(private(secret))
    history = private(seeded).train(2)
    assert any("not private" in event for event in history.records[0].events)
    assert history.series("not_private") == [1.0, 1.0]
    assert "not_private" not in private(secret).train(1).records[0].metrics


def test_the_first_record_says_what_epsilon_does_not_cover():
    first, second = private(CentralDP(1.0, 1.0), selection=PoissonSelection()).train(2).records
    assert any("training losses" in event for event in first.events)
    assert any("do not know" in event for event in first.events)
    assert not any("covers" in event for event in second.events)


@pytest.mark.parametrize("shout", [1e6, -1e6, 1e30])
def test_one_client_moves_the_release_by_one_bound_over_m(shout):
    stage = CentralDP(0.7, 1.0, noise_seed=3)
    it = private(stage)
    quiet = {k: np.full(it.model.dim, 0.01 * k, np.float32) for k in range(3)}
    zero = quiet | {2: np.zeros(it.model.dim, np.float32)}
    loud = quiet | {2: np.full(it.model.dim, shout, np.float32)}
    moved = [release(stage, u, it)[0] for u in (zero, loud, {k: v for k, v in quiet.items() if k != 2})]
    assert {out.weight for out in moved} == {3.0}
    means = [out.total / out.weight for out in moved]
    assert np.linalg.norm(means[1] - means[0]) <= 0.7 / 3 * (1 + 1e-12)
    assert np.linalg.norm(means[1] - means[0]) > 0.69 / 3
    assert np.array_equal(means[2], means[0])                    # absent is the same as zero


def test_clipped_on_the_wire():
    spy = Spy()
    it = experiment(weights=UNIFORM, stages=[CentralDP(1e-3, 1.0)])
    object.__setattr__(it, "stages", (*it.stages, spy))          # a look at the wire, behind the back of the check
    it.train(2)
    assert len(spy.sent) == 6
    assert all(norm(update.delta) <= 1e-3 for update in spy.sent)


def test_capped_weights_are_part_of_the_sensitivity():
    stage = CentralDP(0.5, 1.0, noise_seed=1)
    it = replace(experiment(federation((2, 20, 20, 20)), weights=ByExamples(cap=4), schedule=Synchronous(1.0)), stages=[stage])
    spy = Spy()
    object.__setattr__(it, "stages", (stage, spy))
    record = it.train(1).records[0]
    assert all(norm(u.delta) <= 0.5 * (2 if u.client == 0 else 4) for u in spy.sent)
    assert record.metrics["noise_std"] == pytest.approx(0.5 / 4)          # 4·0.5 on the sum, over m·cap = 16
    out, _ = release(stage, {}, it)
    assert out.weight == 16.0


# --- who comes does not matter ------------------------------------------------------------------------------------------


def test_an_empty_cohort_still_moves_the_model_and_is_charged():
    it = private(CentralDP(1.0, 1.0), fleet=Timed(dict.fromkeys(range(6), 1.0), gone=tuple(range(6))))
    history = it.train(2)
    assert [len(record.clients) for record in history.records] == [0, 0]
    assert not np.array_equal(history.state.server.params, it.initial().server.params)
    assert history.series("epsilon") == [pytest.approx(gaussian_epsilon(1 / math.sqrt(t), 1e-5)) for t in (1, 2)]


def test_dropouts_change_neither_noise_nor_denominator_nor_price():
    calm = private(CentralDP(1e-6, 1.0, noise_seed=1))
    gone = replace(calm, fleet=Timed(dict.fromkeys(range(6), 1.0), gone=(0, 1, 2)))
    a, b = calm.train(3), gone.train(3)
    assert [len(r.clients) for r in a.records] != [len(r.clients) for r in b.records]
    assert a.series("epsilon") == b.series("epsilon")
    assert a.series("noise_std") == b.series("noise_std")
    # With so small a bound everything is noise, and the noise is the same.
    assert np.allclose(a.state.server.params, b.state.server.params, atol=1e-5)


def test_a_client_that_answers_twice_in_one_buffer_is_covered():
    stage = CentralDP(1.0, 1.0, noise_seed=1)
    it = replace(experiment(weights=UNIFORM, schedule=Buffered(2, 2)), model=BIG, stages=[stage])
    server = Server(np.zeros(BIG.dim, np.float32))
    once, twice = ((stage.server(Aggregate(np.zeros(BIG.dim), 2.0), Context(0, server, arrived=who, experiment=it)))
                   for who in ((0, 1), (0, 0)))
    assert np.allclose(twice.total, 2 * once.total)


# --- the price ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "event"),
    [
        ({"selection": PoissonSelection()}, PoissonSampled(0.5, Gaussian(1.5))),
        ({}, FixedSizeSampled(3, 6, Gaussian(1.5))),
        ({"selection": InOrder()}, ChosenBy("InOrder", Gaussian(1.5))),
        ({"schedule": Synchronous(0.5, over_selection=0.5)}, ChosenBy),
        ({"schedule": Buffered(3, 2)}, ChosenBy),
    ],
)
def test_only_poisson_cohorts_are_amplified(changes, event):
    it = private(CentralDP(1.0, 1.5), **changes)
    got = it.stages[0].event(it)
    assert type(got) is event if isinstance(event, type) else got == event
    epsilon = it.train(2).series("epsilon")[-1]
    unsampled = gaussian_epsilon(1.5 / math.sqrt(2), 1e-5)
    amplified = it.selection.poisson
    assert epsilon < 0.9 * unsampled if amplified else epsilon == pytest.approx(unsampled)


def test_epsilon_is_that_of_the_accountant_and_grows_every_round():
    history = private(CentralDP(1.0, 2.0), selection=PoissonSelection()).train(5)
    expected = [PLD().epsilon(Repeated(PoissonSampled(0.5, Gaussian(2.0)), t), 1e-5) for t in range(1, 6)]
    assert history.series("epsilon") == pytest.approx(expected)
    assert np.all(np.diff(history.series("epsilon")) > 0)


def test_the_budget_ends_the_run_before_the_round_that_would_exceed_it():
    it = private(CentralDP(1.0, 2.0, budget=4.0, noise_seed=0))
    spy = Spy()
    object.__setattr__(it, "stages", (*it.stages, spy))
    history = it.train(100)
    assert 0 < len(history) < 100
    assert "budget" in history.stopped
    assert f"after {len(history)} rounds" in history.stopped
    assert history.last("epsilon") <= 4.0 < PLD().epsilon(Repeated(Gaussian(2.0), len(history) + 1), 1e-5)
    assert history.series("rounds_left") == list(range(len(history) - 1, -1, -1))
    assert len(spy.sent) == 3 * len(history)                     # nobody trained in vain
    again = it.train(5, history.state)
    assert len(again) == 0
    assert again.stopped == history.stopped


def test_no_round_at_all_if_not_even_one_is_affordable():
    history = private(CentralDP(1.0, 0.5, budget=0.1)).train(5)
    assert len(history) == 0
    assert "after 0 rounds" in history.stopped
    assert len(private(CentralDP(1.0, 0.0, budget=9.0)).train(5)) == 0     # no noise: no budget is enough


def test_a_buffered_step_that_begins_with_nobody_new_cannot_overspend():
    it = private(CentralDP(1.0, 1.0, budget=6.0), schedule=Buffered(6, 2))
    allowed = Ledger(6.0, 1e-5).rounds_remaining(Gaussian(1.0))
    assert len(it.train(50)) == allowed
    stage, server = it.stages[0], Server(np.zeros(it.model.dim, np.float32), 1, state={
        "ledger": Ledger(6.0, 1e-5).charge(Gaussian(1.0), allowed).to_plain()})
    with pytest.raises(BudgetSpent):
        stage.server(Aggregate(np.zeros(it.model.dim), 2.0), Context(0, server, experiment=it))


def test_the_ledger_is_in_the_checkpoint(tmp_path):
    it = private(CentralDP(1.0, 2.0, budget=4.0, noise_seed=0))
    whole, half = it.train(100), it.train(2)
    save(tmp_path / "half", half.state, it)
    resumed = it.train(100, load(tmp_path / "half", it))
    assert len(half) + len(resumed) == len(whole)
    assert resumed.state.server.params.tobytes() == whole.state.server.params.tobytes()
    assert resumed.series("epsilon") == whole.series("epsilon")[2:]


def test_what_was_released_before_is_not_forgotten():
    before = experiment(weights=UNIFORM).train(2).state          # two rounds without noise
    assert private(CentralDP(1.0, 2.0)).train(1, before).last("epsilon") == math.inf
    assert len(private(CentralDP(1.0, 2.0, budget=8.0)).train(1, before)) == 0
    first = private(CentralDP(1.0, 2.0)).train(2).state          # then more noise, and another clip bound
    second = private(CentralDP(0.5, 3.0)).train(1, first)
    joint = joint_noise_multiplier(2.0, 2.0, 3.0)
    assert second.last("epsilon") == pytest.approx(gaussian_epsilon(joint, 1e-5))
    assert NonPrivate not in [type(e) for e, _ in Ledger.from_plain(second.state.server.state["ledger"]).events]


# --- audits -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class HalfNoise(CentralDP):
    """A bug that nobody sees in the results."""

    def update_multiplier(self, experiment):
        return self.noise_multiplier / 2


@pytest.mark.parametrize(("kind", "caught"), [(CentralDP, False), (HalfNoise, True)])
def test_an_audit_of_the_stage_itself(kind, caught):
    it = private(kind(1.0, 1.0, noise_seed=7))
    canary = np.full(it.model.dim, 300.0, np.float32)
    others = {k: np.zeros(it.model.dim, np.float32) for k in range(2)}

    def mechanism(present, trial):
        return release(it.stages[0], others | ({9: canary} if present else {}), it, version=trial)[0].total

    found = audit_two_worlds(mechanism, canary, trials=600, gaussian=True)
    assert found.contradicts(gaussian_epsilon(1.0, 1e-5)) == caught


# --- adaptive clipping --------------------------------------------------------------------------------------------------


def test_the_bound_follows_the_median():
    stage = CentralDP(100.0, 0.5, noise_seed=1, adaptive=Adaptive(lr=1.0, count_noise=0.3))
    it = private(stage, schedule=Synchronous(1.0))
    lengths = np.array([1, 2, 3, 4, 5, 6])
    unit = np.eye(it.model.dim, dtype=np.float32)[0]
    extras, bounds = {}, []
    for version in range(60):
        _, ctx = release(stage, {k: unit * np.float32(x) for k, x in enumerate(lengths)}, it, version, extras)
        extras = dict(ctx.broadcast)
        bounds.append(stage.bound(Server(np.zeros(1, np.float32), extras=extras)))
    assert 2.0 < np.median(bounds[30:]) < 5.0                    # from 100 down to the median, 3.5


def test_updates_and_counts_together_cost_what_is_claimed():
    stage = CentralDP(1.0, 1.1, adaptive=Adaptive(count_noise=1.0))
    it = private(stage)
    assert joint_noise_multiplier(stage.update_multiplier(it), 2.0) == pytest.approx(1.1)
    assert stage.event(it) == FixedSizeSampled(3, 6, Gaussian(1.1))
    history = it.train(3)
    assert len(set(history.series("clip"))) == 3
    assert "clip" in history.state.server.extras


def test_adaptive_clipping_survives_a_checkpoint(tmp_path):
    it = private(CentralDP(1.0, 1.1, noise_seed=4, adaptive=Adaptive(count_noise=1.0)))
    save(tmp_path / "two", it.train(2).state, it)
    assert it.train(2, load(tmp_path / "two", it)).state.server.params.tobytes() == final(it, 4)


# --- local --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mechanism", ["gaussian", "laplace"])
def test_local_noise_and_clip(mechanism):
    stage = LocalDP(2.0, 0.5, mechanism)
    server = Server(np.zeros(20_000, np.float32))
    sent = stage.client(Update(0, 0, np.zeros(20_000, np.float32), metrics={"loss_last": 1.0}), Context(0, server, client=0))
    claimed = 0.5 * 2.0 * (math.sqrt(2) if mechanism == "laplace" else 1)
    assert check_noise(sent.delta, claimed, tolerance=0.05).problems == ()
    assert sent.metrics == {}
    quiet = replace(stage, noise_multiplier=0.0)
    long = quiet.client(Update(0, 0, np.ones(400, np.float32)), Context(0, Server(np.zeros(400, np.float32)), client=0))
    assert norm(long.delta, 1 if mechanism == "laplace" else 2) == pytest.approx(2.0)


def test_each_client_keeps_its_own_books_and_stops_by_itself():
    stage = LocalDP(1.0, 4.0, budget=3.5, noise_seed=1)
    it = private(stage, selection=InOrder())                     # clients 0, 1, 2 every round
    history = it.train(8)
    allowed = Ledger(3.5, 1e-5).rounds_remaining(stage.event)
    assert [len(r.clients) for r in history.records] == [3] * allowed + [0] * (8 - allowed)
    assert any("budget is spent" in event for event in history.records[-1].events)
    assert history.last("epsilon") == pytest.approx(gaussian_epsilon(4.0 / 2 / math.sqrt(allowed), 1e-5))
    assert set(history.state.memory) == {0, 1, 2}
    assert np.all(np.diff(history.series("epsilon")[:allowed]) > 0)


def test_laplace_by_the_book():
    assert PLD().epsilon(LocalDP(1.0, 4.0, "laplace").event, 1e-9) == pytest.approx(0.5, rel=1e-3)


# --- the tree -----------------------------------------------------------------------------------------------------------


def test_the_model_carries_the_tree_noise_of_its_step():
    stage = TreeDP(1e-9, 1e9, participations=9, noise_seed=3)    # noise of deviation 1 and nothing else
    it = private(stage)
    for steps in (1, 2, 5):
        moved = it.train(steps).state.server.params - it.initial().server.params
        assert np.allclose(moved, tree_noise(steps, it.model.dim, 1.0, seeded_nodes(3)) / 3, atol=1e-5)


def test_tree_price_participations_and_budget():
    stage = TreeDP(1.0, 6.0, participations=2, budget=2.6)
    it = private(stage, selection=InOrder())
    history = it.train(20)
    assert [len(r.clients) for r in history.records[:3]] == [3, 3, 0]
    steps = len(history)
    assert steps in (1, 3, 7, 15)                                # a step is free until the tree grows a level
    assert history.last("rounds_left") == 0
    assert history.last("epsilon") == pytest.approx(PLD().epsilon(TreeAggregation(6.0, steps, 2), 1e-5))
    assert len(it.train(3, history.state)) == 0


def carried(state, it):
    """(d,) the noise on the model after so many steps of a secret tree, from the keys in its state."""
    tree = state.server.state["tree"]
    return tree_noise(tree["steps"], it.model.dim, 1.0, secret_nodes(tree["keys"], tree["steps"])) / 3


def test_a_secret_tree_is_a_tree_in_one_go_and_after_every_checkpoint(tmp_path):
    it = private(TreeDP(1e-9, 1e9, participations=99))           # noise of deviation 1 and nothing else
    begin, state = it.initial().server.params, None
    for step in range(1, 14):
        state = it.train(1, state).state
        assert len(state.server.state["tree"]["keys"]) == step.bit_count()           # what has ended is forgotten
        assert np.allclose(state.server.params - begin, carried(state, it), atol=1e-5)
        if step % 3 == 0:
            save(tmp_path / "file", state, it)
            state = load(tmp_path / "file", it)


@pytest.mark.parametrize("before", [0, 1, 2, 3, 6, 7])
def test_two_branches_of_a_secret_tree_share_their_past_and_no_noise_to_come(before, tmp_path):
    """Once the difference of two runs from one state was the noiseless difference of their data."""
    it = replace(private(TreeDP(1e-9, 1e9, participations=99)), model=BIG)
    state = it.train(before).state
    save(tmp_path / "file", state, it)
    branches = [it.train(1, begin).state for begin in (state, load(tmp_path / "file", it), state)]
    shared = before + 1 & before                                 # the last version whose tree is a part of the next one's
    for first, second in ((0, 1), (0, 2), (1, 2)):
        apart = 3 * (branches[first].server.params - branches[second].server.params)
        assert apart.std() == pytest.approx(math.sqrt(2), rel=0.05)                   # two fresh nodes, one in each
        mine, theirs = (branches[i].server.state["tree"]["keys"] for i in (first, second))
        assert mine[:-1] == theirs[:-1] == state.server.state.get("tree", {"keys": []})["keys"][: shared.bit_count()]
        assert mine[-1] != theirs[-1]


def test_a_seeded_tree_goes_on_bit_for_bit(tmp_path):
    it = private(TreeDP(1.0, 1.0, participations=99, noise_seed=3))
    save(tmp_path / "two", it.train(3).state, it)
    assert it.train(4, load(tmp_path / "two", it)).state.server.params.tobytes() == final(it, 7)


# --- refusals -----------------------------------------------------------------------------------------------------------


class Middle(Aggregation):
    def combine(self, updates, staleness, ctx=None):
        return Aggregate(np.median([u.delta for u in updates], axis=0), 1.0)


@dataclass(frozen=True)
class Doubler(Stage):
    def client(self, update, ctx):
        return replace(update, delta=2 * update.delta)


@dataclass(frozen=True)
class Rounded(Doubler):
    """A stage that declares how far it stretches."""

    def longest(self, bound, size):
        return 2 * bound


@pytest.mark.parametrize("stage", [CentralDP(1.0, 1.0), TreeDP(1.0, 1.0)])
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"weights": ByExamples()}, "cap"),
        ({"weights": Doubler()}, "weight bound"),
        ({"aggregation": Middle()}, "no sum"),
        ({"aggregation": WeightedMean(Discount()), "schedule": Buffered(3, 2)}, "discount"),
        ({"training": LocalSGD(correction=Scaffold())}, "control"),
        ({"training": LocalSGD(correction=FedDyn())}, "FedDyn"),
        ({"before": [TopK(0.5)]}, "residual"),
        ({"after": [TopK(0.5)]}, "residual"),
        ({"before": [SignSGD(feedback=False)]}, "packed"),
        ({"after": [Doubler()]}, "longer"),
        ({"after": [CentralDP(1.0, 1.0)]}, "two private stages"),
        ({"after": [FedNova()]}, "longer|neither masks nor noises"),
    ],
)
def test_refusals(stage, changes, words):
    parts = {"weights": UNIFORM, "before": [], "after": []} | changes
    stages = [*parts.pop("before"), stage, *parts.pop("after")]
    with pytest.raises(CompositionError, match=words):
        experiment(stages=stages, **parts)


def test_sound_neighbours_are_allowed():
    for changes in ({"training": LocalSGD(correction=FedProx(0.1))}, {"weights": ByExamples(cap=5)}):
        experiment(**{"weights": UNIFORM, "stages": [CentralDP(1.0, 1.0)], **changes}).train(1)
    for stages in ([TopK(0.5, feedback=False), CentralDP(1.0, 1.0)], [CentralDP(1.0, 1.0), SignSGD(feedback=False)]):
        history = experiment(weights=UNIFORM, stages=stages).train(2)
        assert np.isfinite(history.state.server.params).all()


def test_a_declared_stretch_is_noised():
    plain, stretched = ([CentralDP(1.0, 1.0, noise_seed=1)], [CentralDP(1.0, 1.0, noise_seed=1), Rounded()])
    a, b = (experiment(weights=UNIFORM, stages=stages).train(1).last("noise_std") for stages in (plain, stretched))
    assert b == pytest.approx(2 * a)


def test_rounding_is_part_of_the_sensitivity_on_the_wire():
    spy, coarse = Spy(), QSGD(4)
    it = experiment(weights=ByExamples(cap=4), stages=[CentralDP(0.01, 1.0, noise_seed=1), coarse])
    limit = coarse.longest(4 * 0.01, it.model.dim)
    object.__setattr__(it, "stages", (*it.stages, spy))
    assert it.train(2).last("noise_std") == pytest.approx(limit / 12)      # m·cap = 3·4
    norms = [norm(update.delta.dense()) for update in spy.sent]
    assert 0.04 < max(norms) <= limit                                       # rounding did lengthen some


def test_central_noise_on_a_secure_sum():
    stages = [CentralDP(0.5, 1.0, noise_seed=1), SecureSum(clip=1.0, rounding="toward zero", threshold=2)]
    secure, plain = experiment(weights=UNIFORM, stages=stages).train(2), experiment(weights=UNIFORM, stages=stages[:1]).train(2)
    assert np.allclose(secure.state.server.params, plain.state.server.params, atol=2e-4)
    assert secure.series("epsilon") == plain.series("epsilon")
    with pytest.raises(CompositionError, match="toward zero"):
        experiment(weights=UNIFORM, stages=[stages[0], SecureSum(clip=1.0, threshold=2)])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: CentralDP(math.inf, 1.0), "without limit"),
        (lambda: CentralDP(0.0, 1.0), "clip"),
        (lambda: CentralDP(math.nan, 1.0), "clip"),
        (lambda: CentralDP(1.0, -1.0), "noise_multiplier"),
        (lambda: CentralDP(1.0, math.nan), "noise_multiplier"),
        (lambda: CentralDP(1.0, 1.0, delta=0.0), "delta"),
        (lambda: CentralDP(1.0, 1.0, budget=0.0), "budget"),
        (lambda: CentralDP(1.0, 1.0, noise_seed=-1), "noise_seed"),
        (lambda: CentralDP(1.0, 0.0, adaptive=Adaptive()), "noise_multiplier > 0"),
        (lambda: Adaptive(quantile=1.5), "quantile"),
        (lambda: Adaptive(lr=0.0), "lr"),
        (lambda: LocalDP(1.0, 1.0, "uniform"), "mechanism"),
        (lambda: TreeDP(1.0, 1.0, participations=0), "participations"),
        (lambda: private(CentralDP(1.0, 1.0, adaptive=Adaptive(count_noise=0.2))), "more than 0.5"),
        (lambda: private(CentralDP(1.0, 1.0, adaptive=Adaptive(count_noise=9.0)), schedule=Buffered(3, 2)), "older"),
        (lambda: experiment(stages=[LocalDP(1.0, 1.0)]), "Uniform"),
        (lambda: private(LocalDP(1.0, 1.0), training=LocalSGD(correction=Scaffold())), "Scaffold"),
        (lambda: experiment(weights=UNIFORM, stages=[TopK(0.5, feedback=False), LocalDP(1.0, 1.0)]), "after LocalDP"),
        (lambda: experiment(weights=UNIFORM, stages=[LocalDP(1.0, 1.0), Lie(0, None)]), "before LocalDP"),
    ],
)
def test_bad_settings(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_an_accountant_that_cannot_price_the_rounds_is_refused_at_once():
    with pytest.raises(UnpricedEvent, match="GDP cannot price"):
        private(CentralDP(1.0, 1.0, accountant=GDP()), selection=PoissonSelection())
    private(CentralDP(1.0, 1.0, accountant=GDP()), selection=UniformSelection())
