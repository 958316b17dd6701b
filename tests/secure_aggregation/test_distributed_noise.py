"""Noise in shares: the distribution, the deviation of the sum, what one client can change, the price, and the refusals."""

import dataclasses
import math

import numpy as np
import pytest
from scipy.stats import chisquare
from small import UNIFORM, Spy, Timed, experiment, federation, final

from fl_course import (
    ByExamples,
    CentralDP,
    CompositionError,
    Context,
    DistributedNoise,
    LocalSGD,
    PoissonSelection,
    Scaffold,
    SecureSum,
    Synchronous,
    Update,
    load,
    save,
)
from fl_course.federation.interfaces import Correction
from fl_course.privacy.accounting import PLD, RDP, ZCDP, Gaussian, Ledger, Repeated
from fl_course.secure_aggregation import FixedPointGrid, discrete_gaussian

NOISE = DistributedNoise(norm=1.0, noise_multiplier=2.0, noise_seed=1)
STAGE = SecureSum(0.5, noise=NOISE, round_seed=1)


class Counting(Correction):
    """Uses the true number of answers, which the noise does not hide."""

    def absorb(self, server, aggregate, arrived, clients):
        return server


def run(stage=STAGE, **changes):
    return experiment(**({"schedule": Synchronous(1.0), "weights": UNIFORM, "stages": [stage]} | changes))


# --- the distribution ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("deviation", [0.7, 3.0, 4.6, 20.0])
def test_the_sampler_has_the_probabilities_of_the_formula(deviation):
    n, far = 40_000, int(3 * deviation) + 1
    drawn = discrete_gaussian(n, deviation, np.random.default_rng(0))
    points = np.arange(-40 * far, 40 * far + 1)
    weights = np.exp(-(points**2) / (2 * deviation**2))
    weights /= weights.sum()
    inside = np.abs(points) <= far
    expected = [weights[~inside].sum() * n, *(weights[inside] * n)]
    observed = [(np.abs(drawn) > far).sum(), *(np.count_nonzero(drawn == k) for k in points[inside])]
    assert chisquare(observed, expected).pvalue > 1e-4
    assert drawn.std() == pytest.approx(math.sqrt((weights * points**2).sum()), rel=0.03)


def test_sizes_and_bad_deviations():
    rng = np.random.default_rng(0)
    assert [discrete_gaussian(n, 5.0, rng).size for n in (0, 1, 7)] == [0, 1, 7]
    for bad in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="deviation"):
            discrete_gaussian(3, bad, rng)


# --- the sum ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("asked", "arrived", "rounding"), [(9, 9, "nearest"), (9, 7, "nearest"), (6, 5, "toward zero")])
def test_the_sum_has_the_deviation_that_was_promised(asked, arrived, rounding):
    """t of them suffice for z·C'; more clients only make it larger, by sqrt(arrived / t)."""
    d = 20_000
    stage = dataclasses.replace(STAGE, clip=0.1, masked=False, rounding=rounding)
    cohort, threshold = tuple(range(asked)), 2 * asked // 3 + 1
    total, ctx = None, Context(0, experiment().initial().server, cohort=cohort)
    ctx.meter.notes["saturated"] = 0.0
    for client in range(arrived):
        sent = stage.client(Update(client, 0, np.zeros(d, np.float32)), ctx).delta
        total = sent if total is None else total + sent
    grid = stage.grid(asked)
    values, weight = NOISE.decode(grid, total.vector)
    longest = 1.0 + (grid.step * math.sqrt(d) / 2 if rounding == "nearest" else 0.0)
    promised = 2.0 * longest
    assert weight == arrived
    assert values.std() == pytest.approx(promised * math.sqrt(arrived / threshold), rel=0.03)
    assert values.std() > promised * 0.97
    assert abs(values.mean()) < 5 * values.std() / math.sqrt(d)


@pytest.mark.parametrize(("bits", "rounding"), [(4, "nearest"), (8, "nearest"), (4, "toward zero"), (16, "toward zero")])
def test_no_client_is_longer_on_the_grid_than_the_noise_is_made_for(bits, rounding):
    rng = np.random.default_rng(0)
    stage = SecureSum(1.0, bits, rounding=rounding, masked=False)
    grid = stage.grid(2)
    ctx = Context(0, None, cohort=(1, 2))
    ctx.meter.notes["saturated"] = 0.0
    longest = 0.0
    for scale in (1e-3, 0.05, 1.0, 1e6):
        for _ in range(20):
            x = NOISE.shorten(scale * rng.standard_normal(60))
            values, _ = grid.decode_weighted(stage.client(Update(1, 0, x), ctx).delta.vector)
            longest = max(longest, float(np.linalg.norm(values)))
    assert longest <= NOISE.longest(grid, 60, rounding) * (1 + 1e-9)
    assert rounding == "toward zero" or bits > 4 or longest > 1.0         # it really can be longer than the clip


def test_noise_larger_than_the_grid_does_not_wrap():
    """Sums below zero and above the largest code come back as what they are."""
    stage = SecureSum(1e-3, 8, noise=dataclasses.replace(NOISE, noise_multiplier=50.0), masked=False)
    d, cohort = 5000, tuple(range(5))
    ctx = Context(0, experiment().initial().server, cohort=cohort)
    ctx.meter.notes["saturated"] = 0.0
    sent = [stage.client(Update(i, 0, np.zeros(d, np.float32)), ctx).delta for i in cohort]
    grid = stage.grid(5)
    values, _ = stage.noise.decode(grid, sum(sent[1:], start=sent[0]).vector)
    shares = [stage.noise.decode(grid, s.vector)[0] for s in sent]
    np.testing.assert_allclose(values, np.sum(shares, axis=0), atol=1e-9)
    assert values.min() < -5 * grid.clip * 10 < 0 < 5 * grid.clip * 10 < values.max()


def test_masked_and_open_runs_with_one_noise_are_the_same_bit_for_bit():
    gone = Timed(dict.fromkeys(range(6), 1.0), gone=(2,))
    masked, plain = (run(dataclasses.replace(STAGE, masked=m), fleet=gone) for m in (True, False))
    assert final(masked) == final(plain) != final(run(dataclasses.replace(STAGE, noise=None), fleet=gone))


def test_the_denominator_is_the_planned_cohort_whoever_drops_out():
    after = Spy()
    gone = Timed(dict.fromkeys(range(6), 1.0), gone=(2,))
    next(experiment(schedule=Synchronous(1.0), weights=UNIFORM, stages=[after, STAGE], fleet=gone).run(1))
    assert after.sums[0].weight == 6.0


def test_a_poisson_cohort_too_small_to_open_is_not_charged():
    it = run(data=federation((8,) * 12), schedule=Synchronous(0.2), selection=PoissonSelection(), seed=5)
    records = it.train(12).records
    opened = [r for r in records if "epsilon" in r.metrics]
    assert 0 < len(opened) < 12
    assert opened[-1].metrics["epsilon"] == pytest.approx(RDP().epsilon([Repeated(Gaussian(2.0), len(opened))], 1e-5))


def test_without_a_seed_the_noise_is_another_every_time():
    stage = dataclasses.replace(STAGE, noise=dataclasses.replace(NOISE, noise_seed=None), round_seed=None)
    assert final(run(stage), 1) != final(run(stage), 1)
    assert "not_private" not in run(stage).train(1).records[0].metrics
    assert run().train(1).records[0].metrics["not_private"] == 1.0


def test_a_share_is_the_noise_that_is_promised_divided_by_the_root_of_the_threshold():
    for bits, size in ((4, 60), (16, 5)):
        grid = SecureSum(0.5, bits).grid(9)
        half = 0.5 / (2 ** (bits - 1) - 1) * math.sqrt(size) / 2           # each of d coordinates, half a step at most
        assert NOISE.longest(grid, size, "nearest") == pytest.approx(1.0 + half, rel=1e-12)
        assert NOISE.longest(grid, size, "toward zero") == 1.0
        for rounding in ("nearest", "toward zero"):
            longest = NOISE.longest(grid, size, rounding)
            assert NOISE.share(grid, size, rounding, 7) * grid.step * math.sqrt(7) == pytest.approx(2.0 * longest, rel=1e-12)


def test_the_ring_has_room_for_ten_deviations_of_the_whole_sum_on_either_side():
    """40 clients of 8 bits in 14 bits leave 3092 steps; a share of 48.89 steps makes 10·48.89·sqrt(40) = 3092 of them."""
    grid = FixedPointGrid(0.5, 8, 40, 1, 14)
    for share, fits in ((0.999 * 3092 / 10 / math.sqrt(40), True), (1.001 * 3092 / 10 / math.sqrt(40), False)):
        noise = DistributedNoise(1.0, share * grid.step * math.sqrt(27))
        assert noise.share(grid, 18, "toward zero", 27) == pytest.approx(share)
        if fits:
            noise.fit(grid, 18, "toward zero", 27)
        else:
            with pytest.raises(ValueError, match=r"3092 steps on either side .* wrap around"):
                noise.fit(grid, 18, "toward zero", 27)
    with pytest.raises(ValueError, match="62 at most"):
        NOISE.fit(FixedPointGrid(0.5, 16, 3, 1, 63), 18, "nearest", 3)
    NOISE.fit(FixedPointGrid(0.5, 16, 3, 1, 62), 18, "nearest", 3)


def test_every_client_draws_its_own_noise_in_every_round():
    drawn = [tuple(NOISE.add(np.zeros(20, np.uint32), 50.0, 32, version, client)) for version in (0, 1) for client in (1, 2, "1")]
    assert len(set(drawn)) == 6
    assert drawn[0] == tuple(NOISE.add(np.zeros(20, np.uint32), 50.0, 32, 0, 1))


def test_the_stage_shortens_every_update_before_it_adds_noise():
    """With a known seed the noise can be taken off again: what is left is the update, clipped to norm C, on the grid."""
    stage = dataclasses.replace(STAGE, masked=False, clip=40.0, bits=24, ring_bits=40)
    ctx = Context(0, experiment().initial().server, cohort=(1, 2))
    ctx.meter.notes["saturated"] = 0.0
    x = np.random.default_rng(0).standard_normal(30).astype(np.float32) * 30
    sent, zeros = (stage.noise.decode(stage.grid(2), stage.client(Update(1, 0, v), ctx).delta.vector)[0] for v in (x, 0 * x))
    np.testing.assert_allclose(sent - zeros, x / np.linalg.norm(x), atol=stage.grid(2).step)


# --- the price -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("accountant", [RDP(), ZCDP()])
def test_every_opened_sum_is_charged_and_nothing_else(accountant):
    stage = dataclasses.replace(STAGE, noise=dataclasses.replace(NOISE, accountant=accountant))
    history = run(stage).train(3)
    expected = accountant.epsilon([Repeated(Gaussian(2.0), 3)], 1e-5)
    assert history.last("epsilon") == pytest.approx(expected)
    aborted = run(stage, fleet=Timed(dict.fromkeys(range(6), 1.0), gone=(1, 3))).train(2)
    assert "epsilon" not in aborted.records[-1].metrics
    assert aborted.state.server.state["ledger"]["events"] == []


def test_the_run_ends_before_the_budget_is_exceeded_also_after_a_restart(tmp_path):
    blank = Ledger(4.0, 1e-5, RDP())
    allowed = blank.rounds_remaining(Gaussian(2.0))
    it = run(dataclasses.replace(STAGE, noise=dataclasses.replace(NOISE, budget=4.0)))
    assert 1 < allowed < 20
    history = it.train(allowed + 5)
    assert len(history.records) == allowed
    assert "budget is spent" in history.stopped
    assert history.last("epsilon") <= 4.0
    save(tmp_path / "state", it.train(2).state, it)
    resumed = it.train(allowed + 5, load(tmp_path / "state", it))
    assert len(resumed.records) == allowed - 2
    assert resumed.state.server.params.tobytes() == history.state.server.params.tobytes()


# --- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [
    {"norm": 0.0}, {"noise_multiplier": 0.0}, {"noise_multiplier": float("nan")}, {"delta": 0.0}, {"budget": -1.0},
    {"accountant": PLD()},
])  # fmt: skip
def test_bad_numbers_are_refused(bad):
    with pytest.raises((ValueError, TypeError)):
        DistributedNoise(**({"norm": 1.0, "noise_multiplier": 1.0} | bad))


@pytest.mark.parametrize(("changes", "words"), [
    ({"stage": dataclasses.replace(STAGE, max_weight=8), "weights": ByExamples()}, "count once"),
    ({"stages": [CentralDP(1.0, 1.0), dataclasses.replace(STAGE, rounding="toward zero")]}, "two private stages"),
    ({"stage": dataclasses.replace(STAGE, bits=3, noise=DistributedNoise(1.0, 0.2))}, "steps of the grid"),
    ({"stage": dataclasses.replace(STAGE, ring_bits=20)}, "wrap around"),
    ({"stage": dataclasses.replace(STAGE, ring_bits=64)}, "62 at most"),
    ({"training": LocalSGD(correction=Counting())}, "DistributedNoise adds no noise to"),
    ({"training": LocalSGD(correction=Scaffold())}, "Scaffold"),
])  # fmt: skip
def test_unsound_combinations_are_refused(changes, words):
    with pytest.raises(CompositionError, match=words):
        run(**changes)


def test_it_trains():
    """Little noise, many rounds: about where the run without noise ends."""
    data = federation((40,) * 6)
    quiet = dataclasses.replace(STAGE, noise=DistributedNoise(1.0, 0.05, noise_seed=0))
    with_noise, without = run(quiet, data=data).train(4), run(dataclasses.replace(STAGE, noise=None), data=data).train(4)
    gap = np.linalg.norm(with_noise.state.server.params - without.state.server.params)
    assert 0 < gap < 0.5 * np.linalg.norm(without.state.server.params)
