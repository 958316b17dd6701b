"""Who takes part."""

import itertools
import math

import numpy as np
import pytest
from small import InOrder, Spy, Timed, experiment, federation

from fl_course import Buffered, CompositionError, PoissonSelection, Selector, Stage, Synchronous, UniformSelection
from fl_course.core import stream
from fl_course.federation.sampling import checked, largest, reported, weighted_draw

IDLE = ["a", "b", "c", "d", "e"]


def test_every_subset_is_equally_likely():
    draws = 6000
    counts = dict.fromkeys(itertools.combinations(IDLE, 2), 0)
    for i in range(draws):
        chosen = UniformSelection().select(IDLE, 2, stream(0, "test", i), {})
        counts[tuple(sorted(chosen))] += 1
    mean, sigma = draws / 10, math.sqrt(draws * 0.1 * 0.9)
    assert all(abs(count - mean) < 4.5 * sigma for count in counts.values())


def test_the_order_is_random_too():
    first = [UniformSelection().select(IDLE, 3, stream(0, "test", i), {})[0] for i in range(2000)]
    counts = np.unique(first, return_counts=True)[1]
    assert len(counts) == 5
    assert all(abs(count - 400) < 4.5 * math.sqrt(2000 * 0.2 * 0.8) for count in counts)


def test_a_larger_cohort_contains_the_smaller_one():
    some, more = (UniformSelection().select(IDLE, k, stream(0, "x"), {}) for k in (2, 4))
    assert more[:2] == some


@pytest.mark.parametrize(("k", "size"), [(0, 0), (3, 3), (5, 5), (9, 5)])
def test_no_more_than_there_are(k, size):
    chosen = UniformSelection().select(IDLE, k, stream(0, "x"), {})
    assert len(set(chosen)) == len(chosen) == size
    assert UniformSelection().select([], k, stream(0, "x"), {}) == []


def test_poisson_coins_are_independent_with_the_public_probability():
    draws, k = 8000, 2
    coins = np.array([
        [client in chosen for client in IDLE]
        for chosen in (PoissonSelection().select(IDLE, k, stream(0, "test", i), {}) for i in range(draws))
    ])  # fmt: skip
    q = k / len(IDLE)
    assert np.abs(coins.mean(0) - q).max() < 4.5 * math.sqrt(q * (1 - q) / draws)
    assert abs(coins.mean() - q) < 4.5 * math.sqrt(q * (1 - q) / coins.size)
    both = (coins.T.astype(float) @ coins) / draws                                   # (5, 5): how often together
    off = both[~np.eye(5, dtype=bool)]
    assert np.abs(off - q * q).max() < 4.5 * math.sqrt(q * q * (1 - q * q) / draws)  # q²: independent, not (k-1)/(n-1)·q
    assert coins.sum(1).min() == 0
    assert coins.sum(1).max() == 5


def test_poisson_with_everybody_is_everybody_and_with_none_nobody():
    assert PoissonSelection().select(IDLE, 5, stream(0, "x"), {}) == IDLE
    assert PoissonSelection().select(IDLE, 0, stream(0, "x"), {}) == []


def test_an_empty_poisson_cohort_is_a_round_without_update():
    spy = Spy(noisy=True)
    it = experiment(schedule=Synchronous(0.1), selection=PoissonSelection(), stages=[spy])
    records = it.train(12).records
    empty = [record for record in records if not record.clients]
    assert 1 <= len(empty) < 12
    assert all(record.events == ("no update arrived",) and record.bytes_up == {} for record in empty)
    assert len(spy.asked) == len(spy.sums) == 12                     # the stages begin and end those rounds too
    for (state, record), before in zip(it.run(12), [it.initial(), *(s for s, _ in it.run(12))], strict=False):
        if not record.clients:
            assert state.server.params.tobytes() == before.server.params.tobytes()


def test_poisson_refuses_what_would_make_its_coins_dependent():
    with pytest.raises(CompositionError, match="over_selection=0 with Poisson"):
        experiment(schedule=Synchronous(0.5, over_selection=0.3), selection=PoissonSelection())
    with pytest.raises(CompositionError, match="restarts clients one by one"):
        experiment(schedule=Buffered(), selection=PoissonSelection())


def test_selectors_see_what_the_last_answers_said():
    seen = []

    class Curious(Selector):
        def select(self, idle, k, rng, reports):
            seen.append({client: dict(report) for client, report in reports.items()})
            return list(idle[:k])

    fleet = Timed({0: 2.0, 1: 3.0, 2: 1.0, 3: 1.0, 4: 1.0, 5: 1.0}, up=0.5)
    experiment(schedule=Synchronous(1 / 3), selection=Curious(), fleet=fleet).train(2)
    assert seen[0] == {}
    assert set(seen[1]) == {0, 1}
    assert (seen[1][1]["seconds"], seen[1][1]["version"], seen[1][1]["examples"]) == (3.5, 0.0, 8.0)


def test_names_are_those_of_the_data_whatever_the_selector_returns():
    assert checked(np.array([2, 0]), [0, 1, 2]) == (2, 0)
    assert all(type(client) is int for client in checked(np.array([2, 0]), [0, 1, 2]))
    record = experiment(selection=InOrder(), data=federation(ids=list("fedcba"))).train(1).records[0]
    assert record.clients == ("d", "e", "f")


@pytest.mark.parametrize(
    ("chosen", "message"), [([7], "client 7, which is not one of the 3"), ([1, 1], "client 1 twice"), (["1"], "'1'")]
)
def test_a_selector_may_only_choose_whom_it_was_offered(chosen, message):
    with pytest.raises(ValueError, match=message):
        checked(chosen, [0, 1, 2])


@pytest.mark.parametrize("selector", [UniformSelection(), PoissonSelection()])
def test_bad_offers_are_refused(selector):
    with pytest.raises(ValueError, match="cannot select -1"):
        selector.select(IDLE, -1, stream(0, "x"), {})
    with pytest.raises(ValueError, match="offered twice"):
        selector.select(["a", "a"], 1, stream(0, "x"), {})


def test_mechanisms_and_devices_do_not_change_who_is_sampled():
    """Clip, drop-outs, devices, evaluation: the cohorts of a run stay the same."""
    from fl_course import Clip, Equal, Evaluation, LocalSGD, LogNormal, Uniform

    def cohorts(**changes):
        spy = Spy()
        stages: list[Stage] = [*changes.pop("stages", []), spy]
        experiment(**({"weights": Uniform(), "stages": stages} | changes)).train(5)
        return spy.asked

    plain = cohorts()
    assert len({cohort for _, cohort in plain}) > 2
    assert cohorts(stages=[Clip(0.01)]) == plain
    assert cohorts(fleet=Equal(drop=0.5)) == plain
    assert cohorts(fleet=LogNormal(jitter=0.5, drop=0.3)) == plain
    assert cohorts(training=LocalSGD(lr=0.3, epochs=3, batch_size=2)) == plain
    assert cohorts(evaluation=Evaluation(every=3, federated=True)) == plain
    assert cohorts(seed=1) != plain


# --- draws by weight and by score ------------------------------------------------------------------------------------------


def succession(weights, k):
    """P(client i is among k), by going through all orders: the slow way."""
    total = np.zeros(len(weights))
    for order in itertools.permutations(range(len(weights)), k):
        left, chance = sum(weights), 1.0
        for i in order:
            chance *= weights[i] / left
            left -= weights[i]
        total[list(order)] += chance
    return total


@pytest.mark.parametrize(
    ("weights", "k"), [((1, 2, 3, 4, 10), 1), ((1, 2, 3, 4, 10), 2), ((5, 1, 1, 1, 1), 3), ((1, 1, 1, 1, 1), 2)]
)
def test_a_weighted_draw_takes_one_after_the_other(weights, k):
    draws = 12_000
    counts = dict.fromkeys(IDLE, 0)
    for i in range(draws):
        for client in weighted_draw(IDLE, weights, k, stream(0, "test", "weighted", i)):
            counts[client] += 1
    expected = succession(weights, k) * draws
    spread = np.sqrt(expected * (1 - expected / draws))
    assert np.all(np.abs(np.array(list(counts.values())) - expected) < 4.5 * spread)


def test_weights_of_zero_come_last_and_all_zero_is_uniform():
    for i in range(200):
        chosen = weighted_draw(IDLE, [0, 1, 0, 1e-300, 0], 4, stream(0, "test", "zeros", i))
        assert set(chosen[:2]) == {"b", "d"}
    counts = dict.fromkeys(IDLE, 0)
    for i in range(6000):
        for client in weighted_draw(IDLE, np.zeros(5), 2, stream(0, "test", "all zero", i)):
            counts[client] += 1
    assert all(abs(count - 2400) < 4.5 * math.sqrt(6000 * 0.4 * 0.6) for count in counts.values())
    assert {weighted_draw(IDLE, [0, 0, 0, 0, 1], 2, stream(0, "x", i))[1] for i in range(60)} == set("abcd")


def test_a_larger_weighted_draw_contains_the_smaller_one():
    some, more = (weighted_draw(IDLE, [1, 2, 3, 4, 5], k, stream(0, "x")) for k in (2, 4))
    assert more[:2] == some
    assert weighted_draw([], [], 3, stream(0, "x")) == []
    assert weighted_draw(IDLE, [1e308] * 5, 0, stream(0, "x")) == []


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0])
def test_a_weight_that_is_none_is_refused_by_name(value):
    with pytest.raises(ValueError, match=r"weight of client 'c' is"):
        weighted_draw(IDLE, [1, 1, value, 1, 1], 2, stream(0, "x"))
    with pytest.raises(ValueError, match="there must be one each"):
        weighted_draw(IDLE, [1, 1], 2, stream(0, "x"))


def test_the_largest_scores_win_and_the_dice_decide_among_equals():
    assert largest(IDLE, [1, 5, 3, 4, 2], 3, stream(0, "x")) == ["b", "d", "c"]
    firsts = [largest(IDLE, [1, 1, 0, 1, 1], 1, stream(0, "ties", i))[0] for i in range(2000)]
    counts = {client: firsts.count(client) for client in "abde"}
    assert all(abs(count - 500) < 4.5 * math.sqrt(2000 * 0.25 * 0.75) for count in counts.values())
    assert sum(counts.values()) == 2000
    with pytest.raises(ValueError, match="score of client 'e' is nan"):
        largest(IDLE, [1, 1, 1, 1, math.nan], 2, stream(0, "x"))


@pytest.mark.parametrize("k", [-1, 1.5, True, "2"])
def test_k_is_a_whole_number(k):
    with pytest.raises(ValueError, match="k must be a whole number from 0"):
        UniformSelection().select(IDLE, k, stream(0, "x"), {})
    with pytest.raises(ValueError, match="k must be a whole number from 0"):
        largest(IDLE, [1] * 5, k, stream(0, "x"))


def test_what_clients_report_is_read_by_name():
    reports = {"a": {"loss": 1.0, "n": 3}, "c": {"loss": np.float32(2)}, "z": {"loss": math.nan}}
    table = reported(IDLE, reports, "loss", "n")
    assert np.array_equal(table, [[1, np.nan, 2, np.nan, np.nan], [3] + [np.nan] * 4], equal_nan=True)
    assert reported([], reports, "loss").shape == (1, 0)
    for bad, match in ((math.nan, "'d' reports nan"), (math.inf, "reports inf"), ("much", "'d' reports 'much' as its 'loss'"),
                       (np.ones(3), "must be a number"), (None, "reports nan")):                         # fmt: skip
        with pytest.raises(ValueError, match=match):
            reported(IDLE, {**reports, "d": {"loss": bad}}, "loss")
