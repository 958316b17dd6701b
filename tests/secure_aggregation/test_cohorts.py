"""What is opened, of which cohorts: the same rules with and without masks, and every cohort that can occur is checked."""

import dataclasses
import math
import random

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from small import UNIFORM, InOrder, Timed, experiment, federation, final

from fl_course import CompositionError, DistributedNoise, PoissonSelection, SecureSum, Synchronous
from fl_course.secure_aggregation import FixedPointGrid, Round, Setup, insecure_random
from fl_course.secure_aggregation.distributed import margin
from fl_course.secure_aggregation.graph import check_numbers, why_closed

NOISE = DistributedNoise(norm=1.0, noise_multiplier=2.0, noise_seed=1)
EVERYBODY = Synchronous(1.0)


def run(stage, **changes):
    return experiment(**({"schedule": EVERYBODY, "weights": UNIFORM, "stages": [stage]} | changes))


def possible(n, threshold, degree):
    """By itself, from the sentences of the docstring: Setup's numbers that can be."""
    holders = n if degree is None else degree + 1
    regular = degree is None or (2 <= degree < n and degree * n % 2 == 0)
    return n >= 2 and regular and 2 <= threshold <= holders < 2 * threshold


# --- one rule, twice ------------------------------------------------------------------------------------------------------


@given(st.integers(0, 12), st.integers(0, 14), st.none() | st.integers(0, 13))
def test_which_numbers_can_be(n, threshold, degree):
    if possible(n, threshold, degree):
        check_numbers(n, threshold, degree)
        Setup(bytes(16), tuple(range(n)), threshold, 1, 32, degree)
    else:
        for build in (lambda: check_numbers(n, threshold, degree),
                      lambda: Setup(bytes(16), tuple(range(n)), threshold, 1, 32, degree)):  # fmt: skip
            with pytest.raises(ValueError, match=r"threshold|degree|at least 2"):
                build()


@settings(max_examples=60)
@given(st.integers(2, 9), st.integers(2, 9), st.none() | st.integers(2, 8), st.integers(0, 2**32), st.floats(0, 0.7))
def test_what_the_protocol_opens_is_what_the_rule_says(n, threshold, degree, seed, gone):
    """The whole protocol, message by message, against the rule in one function that unmasked sums go by."""
    assume(possible(n, threshold, degree))
    chance = random.Random(seed)
    survivors = [i for i in range(n) if chance.random() >= gone]
    setup = Setup(insecure_random(seed, "id")(16), tuple(range(n)), threshold, 2, 32, degree)
    made = Round(setup, {i: "upload" for i in range(n) if i not in survivors}, seed=seed, shared_work=True)
    made.open()
    for i in survivors:
        made.upload(i, np.array([i, 1]))
    total = made.close()
    assert (total is not None) == (why_closed(setup, survivors) == "")
    if total is not None:
        assert total.tolist() == [sum(survivors), len(survivors)]


@settings(max_examples=12)
@given(st.integers(2, 8), st.none() | st.sampled_from([4, 5]), st.booleans(), st.sets(st.integers(0, 7), max_size=6),
       st.booleans())  # fmt: skip
def test_a_run_without_masks_opens_what_a_run_with_masks_opens(threshold, degree, poisson, gone, noisy):
    parts = {"data": federation((8,) * 8), "fleet": Timed(dict.fromkeys(range(8), 1.0), gone=tuple(gone))}
    if poisson:
        parts |= {"schedule": Synchronous(0.6), "selection": PoissonSelection(), "seed": threshold}
    stage = SecureSum(0.5, threshold=threshold, degree=degree, round_seed=2, noise=NOISE if noisy else None)
    try:
        masked = run(stage, **parts)
    except CompositionError:
        with pytest.raises(CompositionError):
            run(dataclasses.replace(stage, masked=False), **parts)
        return
    plain = run(dataclasses.replace(stage, masked=False), **parts)
    for (one_state, one), (other_state, other) in zip(plain.run(3), masked.run(3), strict=True):
        assert one_state.server.params.tobytes() == other_state.server.params.tobytes()
        assert one.metrics.get("epsilon") == other.metrics.get("epsilon")
        for words in ("no secure sum", "could not be opened", "no update arrived"):
            assert any(words in event for event in one.events) == any(words in event for event in other.events)


# --- a threshold without masks ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arrived", range(1, 13))
def test_noise_in_shares_is_released_only_if_enough_shares_are_in_it(arrived):
    """Each share is 1/sqrt(t) of the noise that epsilon claims: below t answers nothing may be opened, masked or not."""
    gone = Timed(dict.fromkeys(range(12), 1.0), gone=tuple(range(arrived, 12)))
    it = run(SecureSum(0.5, noise=NOISE, masked=False), data=federation((8,) * 12), fleet=gone)
    history = it.train(1)
    opened = arrived >= 2 * 12 // 3 + 1
    assert ("epsilon" in history.records[0].metrics) == opened
    assert (history.state.server.params.tobytes() != it.initial().server.params.tobytes()) == opened
    said = [e for e in history.records[0].events if "fewer than the threshold 9" in e]
    assert bool(said) != opened
    assert opened or said[0].startswith(f"the server aborted: {arrived} clients at 'upload'")


def test_a_cohort_too_small_is_not_opened_without_masks_either():
    it = run(SecureSum(0.5, masked=False), data=federation((8,) * 12), schedule=Synchronous(0.2), selection=PoissonSelection(),
             seed=5)  # fmt: skip
    small = [r for r in it.train(12).records if any("could not be opened: 1 clients" in e for e in r.events)]
    assert small
    assert all(r.clients == () for r in small)


# --- every cohort that can occur -----------------------------------------------------------------------------------------


def poisson(stage, clients):
    return run(stage, data=federation((4,) * clients, tests=0), schedule=Synchronous(0.5), selection=PoissonSelection())


@settings(max_examples=60)
@given(st.integers(2, 30), st.integers(4, 20), st.sampled_from([0, *range(8, 33)]), st.floats(0.05, 50.0),
       st.none() | st.integers(2, 12), st.none() | st.sampled_from([2, 4, 5]),
       st.sampled_from(["nearest", "toward zero"]))  # fmt: skip
def test_an_accepted_experiment_has_room_for_the_noise_of_every_cohort(clients, bits, ring_bits, z, threshold, degree, rounding):
    """Worked out again, cohort by cohort: R >= n(2^b − 1) + 2·10·sigma·sqrt(n), and at least three steps for each share."""
    noise = DistributedNoise(1.0, z)
    d = experiment().model.dim
    bad, sizes = [], 0
    for n in range(2, clients + 1):
        t = threshold or 2 * (n if degree is None else degree + 1) // 3 + 1
        if not possible(n, t, degree):
            continue
        sizes += 1
        needed = max(8, (n * (2**bits - 1)).bit_length())
        ring = ring_bits or needed
        step = 0.5 / (2 ** (bits - 1) - 1)
        share = z * (1.0 + (step * math.sqrt(d) / 2 if rounding == "nearest" else 0.0)) / step / math.sqrt(t)
        room = (2**ring - n * (2**bits - 1)) // 2
        if ring < needed or share < 3 or room < 10 * share * math.sqrt(n):
            bad.append(n)
    stage_of = {"bits": bits, "ring_bits": ring_bits, "threshold": threshold, "degree": degree, "rounding": rounding}
    largest_fits = not ring_bits or 2**ring_bits > clients * (2**bits - 1)
    try:
        poisson(SecureSum(0.5, noise=noise, **stage_of), clients)
    except (CompositionError, ValueError):
        assert bad or not sizes or not largest_fits
    else:
        assert not bad
        assert sizes


def test_a_ring_made_for_the_largest_cohort_can_be_too_small_for_a_smaller_one():
    """With ring_bits=0 the ring shrinks with the cohort: 40 clients have room on either side, 32 have none at all."""
    stage = SecureSum(0.5, 8, ring_bits=0, noise=DistributedNoise(1.0, 0.07))
    roomy, tight = stage.grid(40), stage.grid(32)
    assert margin(roomy) > 10 * math.sqrt(40) * stage.noise.share(roomy, 18, "nearest", 27)
    assert margin(tight) == 16
    run(stage, data=federation((4,) * 40, tests=0))                              # forty, always
    with pytest.raises(CompositionError, match=r"a cohort of 3[0-9] clients, which can occur: .* would wrap around"):
        poisson(stage, 40)
    assert poisson(dataclasses.replace(stage, ring_bits=20), 40)


def test_a_selector_that_asks_fewer_than_were_planned_opens_no_sum_that_could_wrap():
    class Few(InOrder):
        def select(self, idle, k, rng, reports):
            return list(idle[:32])

    stage = SecureSum(0.5, 8, ring_bits=0, noise=DistributedNoise(1.0, 0.07))
    it = run(stage, data=federation((4,) * 40, tests=0), selection=Few())
    state, record = next(it.run(1))
    assert any("could not be opened" in e and "wrap around" in e for e in record.events)
    assert state.server.params.tobytes() == it.initial().server.params.tobytes()


def test_a_selector_that_asks_more_than_were_planned_opens_no_sum_that_could_wrap():
    class Many(InOrder):
        def select(self, idle, k, rng, reports):
            return list(idle)

    for masked in (True, False):
        stage = SecureSum(0.5, 8, ring_bits=12, masked=masked)           # room for 16 clients of 8 bits
        it = run(stage, data=federation((4,) * 40, tests=0), schedule=Synchronous(0.4), selection=Many())
        state, record = next(it.run(1))
        assert any("could not be opened: ring_bits = 12 is too small for 40 clients" in e for e in record.events)
        assert record.clients == ()
        assert state.server.params.tobytes() == it.initial().server.params.tobytes()


@pytest.mark.parametrize(("threshold", "degree", "clients"), [(20, None, 12), (4, 12, 12), (6, 4, 12), (2, 2, 2)])
def test_numbers_that_open_no_cohort_at_all_are_refused(threshold, degree, clients):
    with pytest.raises(CompositionError, match="open none"):
        poisson(SecureSum(0.5, threshold=threshold, degree=degree), clients)


def test_the_noise_of_a_cohort_is_checked_with_the_threshold_that_it_will_have():
    """t = 9 of at most 12: a share is 1/3 of the noise. Checked with floor(2n/3) + 1 of a smaller n it would look larger."""
    z = 3.0 * 3.1 / 2 ** 7 * 0.5                         # 3.1 steps for t = 9, with 8 bits, if C' were C
    stage = SecureSum(0.5, 8, threshold=9, noise=DistributedNoise(1.0, z), rounding="toward zero")
    assert 3.0 < stage.noise.share(stage.grid(12), 18, "toward zero", 9) < 3.2
    assert poisson(stage, 12)
    with pytest.raises(CompositionError, match="steps of the grid"):
        poisson(dataclasses.replace(stage, threshold=11), 12)


def test_with_a_degree_too_a_step_must_wait_for_enough():
    with pytest.raises(CompositionError, match="opens nothing below 5"):
        experiment(data=federation((8,) * 12), schedule=Synchronous(0.25, over_selection=3.0), weights=UNIFORM,
                   stages=[SecureSum(0.5, degree=6)])  # fmt: skip


# --- who is protected ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("changes", "words"), [
    ({}, None), ({"round_seed": 0}, "round_seed is known"), ({"masked": False}, "sees what every single client sends"),
    ({"masked": False, "round_seed": 4}, "sees what every single client sends"),
    ({"noise": dataclasses.replace(NOISE, noise_seed=None)}, None),
    ({"noise": dataclasses.replace(NOISE, noise_seed=None), "round_seed": 1}, "round_seed is known"),
    ({"noise": dataclasses.replace(NOISE, noise_seed=None), "masked": False}, "sees what every single client sends"),
    ({"noise": NOISE}, "noise seed is known"),
])  # fmt: skip
def test_a_run_that_protects_nobody_says_so_in_every_record_and_once_in_words(changes, words):
    records = run(SecureSum(0.5, **changes)).train(2).records
    assert [r.metrics.get("not_private") for r in records] == [None if words is None else 1.0] * 2
    told = [e for r in records for e in r.events if "not private" in e or "nobody is protected" in e]
    assert (told == []) if words is None else (len(told) == 1 and words in told[0])
    assert words is None or told[0] in records[0].events


@pytest.mark.parametrize("bad", [
    {"round_seed": 1.5}, {"round_seed": -1}, {"round_seed": "a"}, {"threshold": 2.0}, {"threshold": True}, {"degree": 1},
    {"degree": 4.0}, {"ring_bits": 8.5}, {"bits": "16"}, {"clip": True}, {"clip": "1"},
])  # fmt: skip
def test_bad_numbers_are_refused_at_once_and_not_in_the_first_round(bad):
    with pytest.raises((ValueError, TypeError), match=next(iter(bad))):
        SecureSum(**{"clip": 0.5} | bad)


def test_the_threshold_is_two_thirds_of_those_who_hold_shares_and_one_more():
    assert [SecureSum(0.5).least(n) for n in (2, 3, 4, 6, 12, 100)] == [2, 3, 3, 5, 9, 67]
    assert [SecureSum(0.5, degree=k).least(100) for k in (2, 4, 5, 6, 11)] == [3, 4, 5, 5, 9]       # k neighbours and itself
    assert SecureSum(0.5, threshold=8, degree=9).least(100) == SecureSum(0.5, threshold=8).least(12) == 8


def test_numbers_of_numpy_are_numbers():
    stage = SecureSum(np.float32(0.5), np.int64(16), np.int32(4), np.uint8(32), None, np.int64(1), round_seed=np.int64(3))
    assert repr(stage) == repr(SecureSum(0.5, threshold=4, round_seed=3))
    assert repr(FixedPointGrid(np.float64(1), np.int8(32), np.int64(2**15), np.int32(2**15))) == repr(
        FixedPointGrid(1.0, 32, 2**15, 2**15))
    assert type(FixedPointGrid(1.0, 8, 3, ring_bits=np.int64(20)).ring_bits) is int
    setup = Setup(bytes(16), (1, 2, 3), np.int64(2), np.int64(5), np.uint8(63), np.int8(2))
    assert setup == Setup(bytes(16), (1, 2, 3), 2, 5, 63, 2)
    assert type(setup.ring_bits) is int
    assert final(run(stage), 1) == final(run(SecureSum(0.5, threshold=4, round_seed=3)), 1)
    for bad in (1.5, -1, "seed", True):
        with pytest.raises((ValueError, TypeError), match="noise_seed"):
            DistributedNoise(1.0, 1.0, noise_seed=bad)
    assert DistributedNoise(1.0, 1.0, noise_seed=np.int64(1)).add(np.zeros(3, np.uint32), 5.0, 32, 0, 1).tolist() == (
        DistributedNoise(1.0, 1.0, noise_seed=1).add(np.zeros(3, np.uint32), 5.0, 32, 0, 1).tolist())
