"""Simulated devices."""

import math
from functools import partial

import numpy as np
import pytest
from small import experiment

from fl_course import Equal, LogNormal, Synchronous
from fl_course.core import stream

CLIENTS = range(4000)


def rng(*words):
    return stream(0, "test", *words)


def test_equal_devices_take_equal_time_whatever_the_work():
    fleet = Equal(2.5)
    assert {fleet.compute(k, n, partial(rng, k)) for k in range(5) for n in (1, 1000)} == {2.5}
    assert (fleet.download(0, 10**9), fleet.upload(0, 10**9)) == (0.0, 0.0)


def test_speeds_are_log_normal_with_the_stated_median_and_spread():
    fleet = LogNormal(examples_per_second=100.0, speed_spread=0.5)
    logs = np.log([fleet.compute(k, 300.0, partial(rng, k)) for k in CLIENTS])
    assert np.median(logs) == pytest.approx(math.log(3.0), abs=0.04)
    assert logs.std() == pytest.approx(0.5, abs=0.03)


def test_transfers_take_bits_over_bits_per_second():
    fleet = LogNormal(down_mbit=20.0, up_mbit=5.0, link_spread=0.0)
    assert fleet.download(0, 2_500_000) == pytest.approx(1.0)         # 20 Mbit
    assert fleet.upload(0, 2_500_000) == pytest.approx(4.0)
    spread = LogNormal(link_spread=1.0)
    logs = np.log([spread.upload(k, 625_000) for k in CLIENTS])
    assert (np.median(logs), logs.std()) == (pytest.approx(0, abs=0.08), pytest.approx(1, abs=0.05))
    assert spread.upload(3, 1000) / spread.download(3, 1000) == pytest.approx(4.0)      # one link, two directions


def test_a_device_stays_itself_and_jitter_belongs_to_the_job():
    steady, shaky = LogNormal(), LogNormal(jitter=0.4)
    assert steady.compute("a", 10, partial(rng, 1)) == steady.compute("a", 10, partial(rng, 2))
    assert steady.compute("a", 20, partial(rng, 1)) == pytest.approx(2 * steady.compute("a", 10, partial(rng, 1)))
    logs = np.log([shaky.compute("a", 10, partial(rng, i)) / steady.compute("a", 10, partial(rng, i)) for i in range(4000)])
    assert (logs.mean(), logs.std()) == (pytest.approx(0, abs=0.03), pytest.approx(0.4, abs=0.02))


def test_speed_and_link_are_independent_and_seeds_make_other_fleets():
    fleet = LogNormal()
    speeds = np.log([fleet.compute(k, 1, partial(rng, k)) for k in CLIENTS])
    links = np.log([fleet.upload(k, 1) for k in CLIENTS])
    assert abs(np.corrcoef(speeds, links)[0, 1]) < 0.06
    assert LogNormal(seed=1).compute(0, 1, partial(rng, 0)) != fleet.compute(0, 1, partial(rng, 0))


@pytest.mark.parametrize("fleet", [Equal(drop=0.3), LogNormal(drop=0.3)])
def test_drop_outs_come_at_the_stated_rate(fleet):
    rate = np.mean([fleet.drops(k, partial(rng, k)) for k in CLIENTS])
    assert rate == pytest.approx(0.3, abs=0.03)


def test_drop_outs_are_recorded_and_left_out():
    history = experiment(schedule=Synchronous(1.0), fleet=Equal(drop=0.4)).train(10)
    gone = [sum("dropped out" in event for event in record.events) for record in history.records]
    assert [len(record.clients) for record in history.records] == [6 - n for n in gone]
    assert 10 < sum(gone) < 40
    assert all(len(record.upload) == len(record.clients) for record in history.records)


def test_devices_change_the_clock_but_not_the_model():
    equal, spread = experiment().train(3), experiment(fleet=LogNormal()).train(3)
    assert equal.state.server.params.tobytes() == spread.state.server.params.tobytes()
    assert equal.records[-1].clock != spread.records[-1].clock


@pytest.mark.parametrize("value", [-0.1, 1.0, 1.5, math.nan])
@pytest.mark.parametrize("fleet", [Equal, LogNormal])
def test_a_probability_to_drop_out_is_checked(fleet, value):
    with pytest.raises(ValueError, match=f"drop must be a probability .* not {value}"):
        fleet(drop=value)


@pytest.mark.parametrize(
    ("fleet", "name", "value"),
    [(Equal, "seconds", v) for v in (-1.0, math.inf, math.nan)]
    + [(LogNormal, name, v) for name in ("examples_per_second", "down_mbit", "up_mbit") for v in (0.0, -1.0, math.nan)]
    + [(LogNormal, name, v) for name in ("speed_spread", "link_spread", "jitter") for v in (-0.1, math.inf, math.nan)],
)
def test_what_is_no_speed_is_refused(fleet, name, value):
    with pytest.raises(ValueError, match=f"{name} must be .*{value}"):
        fleet(**{name: value})
