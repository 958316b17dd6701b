"""Power-of-Choice, Oort and TiFL: choices that follow losses, utilities and tiers."""

import math
from dataclasses import replace

import numpy as np
import pytest
from small import experiment, federation

from fl_course import (
    Buffered,
    CompositionError,
    Coordinator,
    Equal,
    LocalSGD,
    LogNormal,
    Oort,
    PowerOfChoice,
    SizeWeighted,
    Synchronous,
    TiFL,
    Uniform,
    UniformSelection,
    logistic,
    mlp,
)
from fl_course.core import BudgetSpent, Context, Server, stream
from fl_course.federation.interfaces import Look
from fl_course.selection.oort import utility
from fl_course.selection.tifl import tier_chances, tiers_of
from fl_course.wire.messages import encode_model

IDLE = list(range(10))
X = stream(0, "x")


def look(n=12, seed=0):
    data = federation((n,), seed=seed)
    model = logistic(5, 3)
    params = (0.5 * stream(seed, "params").standard_normal(model.dim)).astype(np.float32)
    return Look(0, Server(params, 4), *data.examples(0), model, 7)


def slow_losses(look):
    """Cross-entropy, one example after the other."""
    out = []
    for x, y in zip(look.x, look.y, strict=True):
        scores = look.model.predict(look.server.params, x[None])[0].astype(float)
        out.append(math.log(sum(math.exp(s) for s in scores)) - scores[y])
    return np.array(out)


# --- Power-of-Choice ----------------------------------------------------------------------------------------------------------


def test_the_answer_is_the_mean_loss_of_the_model_that_was_sent():
    here = look()
    answer = PowerOfChoice().answer(here)
    assert answer["loss"] == pytest.approx(slow_losses(here).mean(), rel=1e-6)
    assert answer["examples"] == 12
    batch = PowerOfChoice(variant="cpow-d", batch=5).answer(here)["loss"]
    rows = np.sort(here.rng("probe batch").permutation(12)[:5])
    assert batch == pytest.approx(slow_losses(here)[rows].mean(), rel=1e-6)
    assert PowerOfChoice(variant="cpow-d", batch=50).answer(here) == answer


def test_the_largest_losses_among_the_candidates_and_nobody_else():
    """The published mistakes: positions among the candidates taken as positions among all, and the smallest for the largest."""
    reports = {c: {"probe_loss": 100.0 - c, "probe_version": 3} for c in IDLE}
    for c in (0, 1, 2):
        reports[c]["probe_version"] = 2                                    # of an older model: no candidates now
    assert PowerOfChoice(7).select(IDLE, 3, X, reports) == [3, 4, 5]
    assert PowerOfChoice(7).select(IDLE[::-1], 3, X, reports) == [3, 4, 5]
    assert PowerOfChoice(7).select([8, 9, 0], 3, X, reports) == [8, 9]
    assert PowerOfChoice(7).select(IDLE, 3, X, {}) == []


@pytest.mark.parametrize(("d", "k", "asked"), [(4, 2, 4), (2, 5, 5), (99, 3, 10), (10, 10, 10)])
def test_so_many_candidates_are_asked(d, k, asked):
    assert len(set(PowerOfChoice(d).asks(IDLE, k, stream(0, "x"), {}))) == asked
    assert PowerOfChoice(d, "rpow-d").asks(IDLE, k, stream(0, "x"), {}) == ()


def test_candidates_are_drawn_by_size_and_with_d_equal_to_k_it_is_sampling_by_size():
    reports = {c: {"probe_examples": c + 1, "examples": float(c + 1)} for c in IDLE}
    for i in range(50):
        same = SizeWeighted().select(IDLE, 3, stream(0, "x", i), reports)
        assert list(PowerOfChoice(3).asks(IDLE, 3, stream(0, "x", i), reports)) == same
        assert sorted(PowerOfChoice(3, "rpow-d").select(IDLE, 3, stream(0, "x", i), reports)) == sorted(same)


def test_a_probe_is_a_model_down_and_a_number_up():
    data = federation((8, 8, 8, 8, 8, 8))
    fleet = LogNormal(examples_per_second=10.0, speed_spread=0.0, down_mbit=0.01, up_mbit=0.01, link_spread=0.0)
    full, batch, none = (
        experiment(data, selection=PowerOfChoice(4, variant, batch=2), weights=Uniform(), fleet=fleet, schedule=Synchronous(0.34))
        .train(1).records[0] for variant in ("pow-d", "cpow-d", "rpow-d"))                                       # fmt: skip
    message = len(encode_model(experiment(data).initial().server))
    assert full.bytes_down == {"probe": 4 * message, "model": 2 * message}
    assert none.bytes_down == {"model": 2 * message}
    assert 4 * 15 < full.bytes_up["probe"] < 4 * 100
    answer = full.bytes_up["probe"] / 4
    waited = message * 8 / 1e4 + 8 / 3 / 10 + answer * 8 / 1e4                # down, a third of a pass over 8 examples, up
    assert full.clock - none.clock == pytest.approx(waited, rel=1e-3)
    assert full.clock - batch.clock == pytest.approx((8 - 2) / 3 / 10, rel=1e-6)


def test_rpow_takes_the_unseen_first_and_then_what_was_last_reported():
    reports = {c: {"loss_first": 2.0 * c + 2.0 * (c == 5), "loss_last": float(c % 2), "examples": 4.0} for c in range(8)}
    assert set(PowerOfChoice(10, "rpow-d").select(IDLE, 2, X, reports)) == {8, 9}
    assert PowerOfChoice(10, "rpow-d").select(list(range(8)), 3, X, reports) == [7, 5, 6]
    firsts = {PowerOfChoice(10, "rpow-d").select(IDLE, 1, stream(0, "x", i), {})[0] for i in range(150)}
    assert firsts == set(IDLE)


def test_more_candidates_more_bias():
    data = federation((6, 6, 6, 6, 6, 6, 6, 6))
    picked = [
        np.mean([np.mean([r["probe_loss"] for r in state.reports.values() if r.get("asked_version") == record.version - 1])
                 for state, record in experiment(data, selection=PowerOfChoice(d), schedule=Synchronous(0.25)).run(12)])
        for d in (2, 8)
    ]  # fmt: skip
    assert picked[1] > picked[0]


def test_candidates_that_drop_out_are_not_chosen():
    it = experiment(selection=PowerOfChoice(3), fleet=Equal(drop=0.5), schedule=Synchronous(0.5))
    history = it.train(12)
    assert any("dropped out before it answered" in event for record in history.records for event in record.events)
    assert any(len(record.spans) < 3 for record in history.records)
    gone = experiment(selection=PowerOfChoice(3), fleet=Equal(drop=0.99), schedule=Synchronous(0.5)).train(2)
    assert gone.records[0].clients == ()


@pytest.mark.parametrize(
    "bad", [{"candidates": 0}, {"candidates": 2.0}, {"batch": 0}, {"batch": True}, {"variant": "pow"}, {"candidates": math.nan}]
)
def test_what_is_no_power_of_choice_is_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        PowerOfChoice(**bad)


# --- Oort ---------------------------------------------------------------------------------------------------------------------


def test_the_utility_by_hand():
    assert utility(30, 2.0, 5.0, 10.0, 1, 1) == 60.0                          # fast enough, and ln 1 = 0
    assert utility(30, 2.0, 20.0, 10.0, 1, 1) == pytest.approx(60 / 4)       # twice as slow, α = 2
    assert utility(30, 2.0, 20.0, 10.0, 1, 1, alpha=1.0) == pytest.approx(30.0)
    assert utility(10, 1.0, 5.0, 10.0, 50, 4) == pytest.approx(10 + math.sqrt(0.1 * math.log(50) / 4))
    assert utility(10, 1.0, 5.0, math.inf, 8, 8) == pytest.approx(10 + math.sqrt(0.1 * math.log(8) / 8))
    for now, last in ((5, 0), (5, 6), (0, 0)):
        with pytest.raises(ValueError, match="rounds are counted from 1"):
            utility(1, 1, 1, 1, now, last)


def test_it_is_the_mean_of_squares_at_the_model_that_was_sent():
    here = look()
    each = slow_losses(here)
    rms = Oort().tells(here)["loss_rms"]
    assert rms == pytest.approx(math.sqrt((each**2).mean()), rel=1e-6)
    assert abs(rms - each.mean()) > 0.01


def test_a_client_that_trains_tells_it_beside_its_update():
    """One epoch, one batch of everything: the training's own loss is then at the same model, and its mean is the mean."""
    data = federation((8, 5, 6))
    it = Coordinator(data, logistic(5, 3), LocalSGD(lr=0.1, epochs=1, batch_size=8), Synchronous(1.0), selection=Oort())
    start = it.initial()
    history = it.train(1, start)
    for client, report in history.state.reports.items():
        here = Look(client, start.server, *data.examples(client), it.model)
        assert report["loss_rms"] == pytest.approx(math.sqrt((slow_losses(here) ** 2).mean()), rel=1e-6)
        assert report["loss_first"] == pytest.approx(slow_losses(here).mean(), rel=1e-5)
    other = replace(it, selection=UniformSelection()).train(1, start)
    assert history.records[0].clock == other.records[0].clock == 1.0          # on the clock it is free
    assert all("loss_rms" not in report for report in other.state.reports.values())


def heard(**of):
    base = {"examples": 10.0, "loss_rms": 1.0, "seconds": 1.0, "version": 0.0, "asked": 1, "answered": 1, "asked_version": 0}
    return base | of


def test_utilities_follow_the_formula_and_are_clipped():
    reports = {0: heard(), 1: heard(loss_rms=3.0), 2: heard(seconds=4.0), 3: heard(version=6.0), 4: heard(loss_rms=900.0)}
    oort = Oort(clip=0.75)
    got = oort.utilities(list(range(5)), 2.0, 9, reports)
    clip = np.quantile([10, 30, 10, 10, 9000], 0.75)
    for client, report in reports.items():
        value = min(report["examples"] * report["loss_rms"], clip)
        assert got[client] == pytest.approx(utility(1, value, report["seconds"], 2.0, 9, int(report["version"]) + 1))
    assert got[4] == got[1]


def at(version, **state):
    return Context(0, Server(np.zeros(1, np.float32), version, {}, state))


def test_exploration_decays_to_its_floor():
    idle = list(range(200))
    reports = {c: heard() for c in range(100)}
    for version, share in ((0, 0.9), (10, 0.9 * 0.95**10), (300, 0.2)):
        chosen = Oort().choose(idle, 40, stream(0, "x"), reports, at(version))
        assert sum(c >= 100 for c in chosen) == 40 - math.floor(40 * (1 - share) + 1e-9)
        assert len(set(chosen)) == 40


def test_where_too_few_are_new_or_known_the_others_fill():
    reports = {c: heard() for c in range(9)}
    assert len(set(Oort().choose(IDLE, 8, X, reports, at(0)))) == 8
    assert len(set(Oort().choose(IDLE, 8, X, {0: heard()}, at(500)))) == 8
    assert set(Oort().choose(IDLE, 10, X, reports, at(500))) == set(IDLE)
    assert Oort().choose([], 3, X, reports, at(5)) == Oort().choose(IDLE, 0, X, reports, at(5)) == []
    silent = reports | {9: {"asked": 3, "asked_version": 2}}
    assert Oort().choose(IDLE, 10, X, silent, at(500))[-1] == 9               # asked in vain: after all others
    assert Oort(exploration=0.0, least_exploration=0.0).choose(IDLE, 3, X, {}, at(5))


def test_only_near_the_best_is_exploited_and_in_proportion():
    reports = {c: heard(loss_rms=float(c + 1)) for c in IDLE}
    oort = Oort(exploration=0.0, least_exploration=0.0, clip=1.0, cutoff=0.7)
    counts = np.zeros(10)
    for i in range(4000):
        counts[oort.choose(IDLE, 1, stream(0, "exploit", i), reports, at(0))] += 1
    assert not counts[:6].any()                                                # below 0.7 × the best, which is 100
    expected = np.array([70, 80, 90, 100]) / 340 * 4000
    assert ((counts[6:] - expected) ** 2 / expected).sum() < 21               # χ², 3 degrees of freedom: p = 1e-4


def test_the_preferred_seconds_are_a_percentile_and_slow_clients_lose():
    reports = {c: heard(seconds=float(c + 1)) for c in IDLE}
    assert [Oort()._preferred(reports, p) for p in (0, 30, 95, 100)] == [1.0, 4.0, 10.0, math.inf]
    assert Oort()._preferred({}, 30) == math.inf
    oort = Oort(exploration=0.0, least_exploration=0.0)
    counts = np.zeros(10)
    for i in range(300):
        counts[oort.choose(IDLE, 4, stream(0, "slow", i), reports, at(400))] += 1
    assert counts[:4].sum() > 0.9 * counts.sum()


def test_the_pacer_gives_slow_clients_their_turn_when_utility_falls():
    oort, state, chosen = Oort(pacer_step=3, pacer_delta=20.0), {}, []
    for version in range(12):
        falls = 10.0 - version if version < 8 else 50.0
        reports = {c: heard(loss_rms=falls, version=float(version - 1)) for c in (1, 2)}
        ctx = at(version, **state)
        oort.choose([1, 2], 1, X, reports, ctx)
        state = {**state, **ctx.state}
        chosen.append(state["oort"]["threshold"])
    assert chosen == [30, 30, 30, 30, 30, 30, 50, 50, 50, 50, 50, 50]          # at 6 it fell; by 9 it had risen again


def test_near_the_best_is_near_the_last_of_them():
    reports = {c: heard(loss_rms=float(c + 1)) for c in IDLE}
    oort, seen = Oort(exploration=0.0, least_exploration=0.0, clip=1.0, cutoff=0.7), set()
    for i in range(200):
        seen |= set(oort.choose(IDLE, 3, stream(0, "near", i), reports, at(0)))
    assert seen == {5, 6, 7, 8, 9}                                             # 0.7 × 80 = 56: those with 60 and more


def test_the_never_asked_come_before_those_asked_in_vain():
    reports = {c: {"asked": 1, "asked_version": 0} for c in range(5)}
    for i in range(20):
        assert all(c >= 5 for c in Oort().choose(IDLE, 5, stream(0, "vain", i), reports, at(1)))


def test_the_pacer_sums_those_heard_in_the_last_round_only():
    ctx = at(5)
    Oort().choose([1, 2, 3], 1, X, {1: heard(version=4.0), 2: heard(version=3.0), 3: heard(version=4.0, loss_rms=2.0)}, ctx)
    assert ctx.state["oort"]["utilities"] == [30.0]


def test_the_pacer_counts_a_version_once():
    oort, ctx = Oort(), at(4)
    reports = {1: heard(version=3.0)}
    for _ in range(3):
        oort.choose([1], 1, X, reports, ctx)
    assert ctx.state["oort"] == {"version": 4, "threshold": 30.0, "utilities": [10.0]}


def test_a_blacklist_leaves_out_the_most_asked_but_not_too_many():
    reports = {c: heard(asked=c) for c in IDLE}
    for share, out in ((0.3, {9, 8, 7}), (0.29, {9, 8}), (1.0, {9, 8, 7, 6, 5}), (0.0, set())):
        chosen = Oort(blacklist=4, blacklist_share=share).choose(IDLE, 10, X, reports, at(500))
        assert set(IDLE) - set(chosen) == out
    assert len(Oort().choose(IDLE, 10, X, reports, at(500))) == 10


def test_oort_prefers_the_fast_in_a_run_and_takes_less_time():
    data = federation((6,) * 20)
    fleet = LogNormal(speed_spread=1.2, seed=3)
    runs = [experiment(data, selection=s, fleet=fleet, schedule=Synchronous(0.2)).train(40) for s in (PowerOfChoice(4), Oort())]
    assert runs[1].records[-1].clock < runs[0].records[-1].clock
    assert experiment(data, selection=Oort(), fleet=fleet, schedule=Buffered(4, 2)).train(10).records[-1].version == 10


@pytest.mark.parametrize(
    "bad",
    [{"exploration": 1.5}, {"decay": -0.1}, {"least_exploration": math.nan}, {"clip": 2.0}, {"cutoff": -1.0},
     {"threshold": 101.0}, {"pacer_delta": -5.0}, {"alpha": math.inf}, {"pacer_step": 0}, {"pacer_step": 2.5},
     {"blacklist": 0}, {"blacklist": 1.5}, {"blacklist_share": 3.0}],
)  # fmt: skip
def test_what_is_no_oort_is_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        Oort(**bad)


# --- TiFL ---------------------------------------------------------------------------------------------------------------------


def test_tiers_are_equal_parts_from_fast_to_slow():
    assert tiers_of([5.0, 1.0, 4.0, 2.0, 3.0, 9.0], 3).tolist() == [2, 0, 1, 0, 1, 2]
    assert np.bincount(tiers_of(stream(0, "t").random(23), 5)).tolist() == [5, 5, 5, 4, 4]
    assert tiers_of([], 3).tolist() == []
    assert tiers_of([1.0, 2.0], 5).tolist() == [0, 1]


def test_chances_follow_the_rank_low_first():
    assert tier_chances([0.9, 0.1, 0.5]).tolist() == pytest.approx([2 / 12, 6 / 12, 4 / 12])
    for n in (1, 2, 5, 9):
        assert tier_chances(stream(0, n).random(n)).sum() == pytest.approx(1.0)
    assert tier_chances([0.5, 0.5, 0.5, 0.5]).tolist() == pytest.approx([0.25] * 4)
    assert tier_chances([0.5, 0.2, 0.5]).tolist() == pytest.approx([1 / 4, 1 / 2, 1 / 4])


def profiled(accuracies=(0.9, 0.7, 0.5, 0.3, 0.1)):
    """Ten clients, two a tier by their numbers."""
    return {c: {"asked": 1, "asked_version": 3, "seconds": c + 1.0, "probe_accuracy": accuracies[c // 2]} for c in IDLE}


def test_one_tier_a_round_with_the_chances_of_its_accuracy():
    tifl, counts = TiFL(), np.zeros(5)
    for i in range(5000):
        chosen = tifl.select(IDLE, 2, stream(0, "tiers", i), profiled())
        assert len(chosen) == 2
        assert chosen[0] // 2 == chosen[1] // 2
        counts[chosen[0] // 2] += 1
    expected = 2 * (5 - np.array([4, 3, 2, 1, 0])) / 30 * 5000
    assert ((counts - expected) ** 2 / expected).sum() < 23.5                  # χ², 4 degrees of freedom: p = 1e-4


def test_first_everybody_is_measured():
    reports = {0: {"asked": 1, "asked_version": 0, "seconds": 2.0}, 1: {"asked": 1, "asked_version": 0}, 2: {"asked": 2}}
    chosen = TiFL(patience=2).select(IDLE, 9, X, reports)
    assert set(chosen) == {1, 3, 4, 5, 6, 7, 8, 9}
    assert 1 not in chosen[:7]                                                  # the never asked before the silent
    assert TiFL().asks(IDLE, 2, X, reports) == ()


def test_who_does_not_answer_is_in_the_slowest_tier():
    reports = {c: r for c, r in profiled().items() if c != 0} | {0: {"asked": 2, "asked_version": 3}}
    ctx = at(9, **{"tifl credits": [0, 0, 0, 0, 9]})
    assert set(TiFL().choose(IDLE, 2, X, reports, ctx)) == {0, 9}


def test_a_round_that_asks_nobody_to_train_is_no_reason_to_ask_all_again():
    reports = {c: r | {"asked_version": 9, "probe_version": 9 + c} for c, r in profiled().items()}
    assert TiFL(every=10).asks(IDLE, 2, X, reports) == [0]                      # the others have told since


def test_all_are_asked_how_good_the_model_is_every_so_many_rounds():
    asks = [bool(TiFL(every=4).asks(IDLE, 2, X, {c: r | {"asked_version": v} for c, r in profiled().items()})) for v in range(9)]
    assert asks == [False, False, False, True, False, False, False, True, False]          # before rounds 4 and 8
    here = look()
    right = np.mean(here.model.predict(here.server.params, here.x).argmax(1) == here.y)
    assert TiFL().answer(here) == {"accuracy": pytest.approx(right)}


def test_credits_end_the_run_and_no_tier_is_chosen_more_often():
    data = federation((4,) * 10)
    it = experiment(data, selection=TiFL(tiers=3, credits=2, every=4), fleet=LogNormal(), schedule=Synchronous(0.2))
    history = it.train(100)
    assert len(history) == 5 + 3 * 2                                            # ten clients measured by twos, then the credits
    assert "TiFL has spent the 2 credits of each of its 3 tiers" in history.stopped
    assert history.state.server.state["tifl credits"] == [0, 0, 0]
    with pytest.raises(BudgetSpent):
        TiFL(tiers=3).choose(IDLE, 2, X, profiled(), at(5, **{"tifl credits": [0, 0, 0]}))


def test_credits_of_tiers_that_have_no_members_do_not_keep_it_alive():
    with pytest.raises(BudgetSpent):
        TiFL(tiers=5).choose([0, 2], 1, X, {c: profiled()[c] for c in (0, 2)}, at(9, **{"tifl credits": [0, 0, 7, 7, 7]}))


def test_tiers_without_credits_or_anybody_there_are_not_chosen():
    ctx = at(9, **{"tifl credits": [1, 0, 0, 0, 1]})
    assert all(c in (8, 9) for c in TiFL().choose([2, 3, 8, 9], 2, X, profiled(), ctx))
    assert ctx.state["tifl credits"] == [1, 0, 0, 0, 0]
    assert TiFL().choose([2, 3], 2, X, profiled(), at(9, **{"tifl credits": [1, 0, 0, 0, 1]})) == []
    assert len(TiFL().choose([0, 1], 5, X, profiled(), at(9))) == 2             # fewer than asked for


def test_a_measure_that_falls_is_turned_round():
    from fl_course import SquaredError

    here = look()
    better = replace(here, model=mlp(5, 4, 1, loss=SquaredError()), y=np.zeros((12, 1), np.float32),
                     server=Server(np.zeros(mlp(5, 4, 1).dim, np.float32)))                              # fmt: skip
    worse = replace(better, y=np.ones((12, 1), np.float32))
    assert TiFL().answer(better)["accuracy"] == 0.0
    assert TiFL().answer(worse)["accuracy"] == pytest.approx(-1.0)


def test_a_buffer_has_no_rounds():
    with pytest.raises(CompositionError, match="TiFL asks one tier a round"):
        experiment(selection=TiFL(), schedule=Buffered(3, 2))


@pytest.mark.parametrize("bad", [{"tiers": 0}, {"credits": 1.5}, {"every": 0}, {"patience": True}])
def test_what_is_no_tifl_is_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        TiFL(**bad)
