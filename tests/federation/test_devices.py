"""Devices that come and go, and fail; traces."""

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from small import InOrder, experiment, federation

from fl_course import (
    CompositionError,
    Coordinator,
    DayNight,
    Devices,
    Equal,
    LocalSGD,
    LogNormal,
    PoissonSelection,
    Synchronous,
    Trace,
    logistic,
)
from fl_course.core import stream
from fl_course.federation.devices import always_there
from fl_course.wire.messages import encode_model

HOUR = 3600.0


def rng(*words):
    return stream(0, "test", *words)


# --- day and night --------------------------------------------------------------------------------------------------------


def share(presence, when, clients=4000):
    return np.mean([presence.there(client, when) for client in range(clients)])


@pytest.mark.parametrize(("hour", "chance"), [(0, 0.7), (8.9, 0.7), (9.1, 0.1), (23.9, 0.1), (24.1, 0.7), (24 * 300 + 12, 0.1)])
def test_at_any_hour_the_share_that_is_there_is_the_stated_one(hour, chance):
    presence = DayNight()
    assert {presence.chance(client, hour * HOUR) for client in range(9)} == {chance}
    assert share(presence, hour * HOUR) == pytest.approx(chance, abs=4 * math.sqrt(chance * (1 - chance) / 4000))


def test_round_the_globe_the_share_is_the_same_at_all_hours():
    presence = DayNight(zones=1.0)
    mean = 0.375 * 0.7 + 0.625 * 0.1
    for hour in (0, 6.5, 13, 20):
        assert share(presence, hour * HOUR) == pytest.approx(mean, abs=4 * math.sqrt(mean / 4000))
    half = replace(presence, zones=0.5)                       # nobody's clock is more than twelve hours ahead
    chances = [{half.chance(client, hour * HOUR) for client in range(500)} for hour in (0, 22)]
    assert chances[0] == {0.1, 0.7}
    assert chances[1] == {0.1, 0.7}


def test_a_stay_lasts_a_geometric_number_of_slots():
    presence = DayNight(by_day=0.6, by_night=0.6, slot=1800.0)
    stays = []
    for client in range(60):
        there = [presence.there(client, slot * 1800.0) for slot in range(480)]
        run = 0
        for now in there:
            if now:
                run += 1
            elif run:
                stays.append(run)
                run = 0
    p = 0.6
    assert np.mean(stays) == pytest.approx(1 / (1 - p), rel=0.05)
    assert np.mean(np.array(stays) == 1) == pytest.approx(1 - p, abs=0.03)


def test_away_leads_to_the_first_slot_in_which_it_is_there():
    presence = DayNight(by_day=0.02, zones=0.3, seed=4)
    for client in range(40):
        for when in (0.0, 1799.9, 12 * HOUR, 50 * HOUR + 1):
            wait = presence.away(client, when)
            slots = [when] + [1800.0 * slot for slot in range(int(when // 1800) + 1, 400)]       # the slow way
            first = next(t for t in slots if presence.there(client, t))
            assert when + wait == pytest.approx(first)
            assert (wait == 0) == presence.there(client, when)


def test_presence_belongs_to_the_client_and_the_seed():
    one, other = DayNight(), DayNight(seed=1)
    times = np.arange(48) * 1800.0
    pattern = {client: [one.there(client, t) for t in times] for client in (3, "3", 4)}
    assert pattern[3] != pattern["3"] != pattern[4]
    assert [other.there(3, t) for t in times] != pattern[3]
    assert [DayNight().there(np.int64(3), t) for t in times] == pattern[3]


@pytest.mark.parametrize(
    ("field", "value"),
    [("by_day", v) for v in (-0.1, 1.1, 1e-6, math.nan)] + [("by_night", 2.0), ("night", 1.5), ("zones", -1.0), ("day", 0.0)]
    + [("slot", v) for v in (0.0, -5.0, math.inf, 1234.5, 0.1)],
)  # fmt: skip
def test_what_is_no_day_is_refused(field, value):
    with pytest.raises(ValueError, match=r"by_day|by_night|night|zones|day|slot"):
        DayNight(**{field: value})


def test_a_day_without_anybody_is_refused():
    for empty in ({"by_day": 0.0, "by_night": 0.0}, {"by_day": 0.0, "night": 0.001}):
        with pytest.raises(ValueError, match="nobody there at any hour"):
            DayNight(**empty)
    with pytest.raises(TypeError, match="seed must be a whole number"):
        DayNight(seed=1.5)


# --- failures and the whole -------------------------------------------------------------------------------------------------


def test_failures_are_beta_distributed_over_the_clients():
    devices = Devices(failure=0.2, failure_spread=0.1)
    each = np.array([devices.failure_of(client) for client in range(4000)])
    assert (each.mean(), each.std()) == (pytest.approx(0.2, abs=0.006), pytest.approx(0.1, abs=0.005))
    a, b = 0.2 * (0.16 / 0.01 - 1), 0.8 * (0.16 / 0.01 - 1)
    from scipy.stats import beta, kstest

    assert kstest(each, beta(a, b).cdf).pvalue > 1e-3
    assert {Devices(failure=0.2).failure_of(client) for client in range(9)} == {0.2}


def test_a_job_fails_at_its_clients_own_rate_and_independently_of_the_drop_of_the_speed():
    devices = Devices(LogNormal(drop=0.3), failure=0.2)
    lost = np.mean([devices.drops(7, partial(rng, i)) for i in range(5000)])
    assert lost == pytest.approx(1 - 0.7 * 0.8, abs=0.03)            # not max(0.3, 0.2), as with one coin for both
    mine = Devices(failure=0.4, failure_spread=0.2)
    assert np.mean([mine.drops(7, partial(rng, i)) for i in range(5000)]) == pytest.approx(mine.failure_of(7), abs=0.03)


def test_a_fleet_without_presence_or_failures_is_its_speed():
    speed = LogNormal(speed_spread=0.9, jitter=0.3, drop=0.2)
    whole = Devices(speed)
    for client in range(20):
        luck = partial(rng, client)
        assert whole.compute(client, 30, luck) == speed.compute(client, 30, luck)
        assert whole.download(client, 999) == speed.download(client, 999)
        assert whole.upload(client, 999) == speed.upload(client, 999)
        assert whole.drops(client, luck) == speed.drops(client, luck)
        assert whole.away(client, 5.0) == 0.0
    runs = [experiment(fleet=fleet).train(3) for fleet in (speed, whole)]
    assert runs[0].records == runs[1].records


def test_only_those_who_are_there_are_asked_and_the_clock_goes_on_to_the_first_who_comes():
    trace = Trace.parse("client,time,event\n0,0,on\n1,50,on\n2,10,on\n2,20,off\n3,1000,on\n4,70,on\n5,60,on\n")
    it = experiment(schedule=Synchronous(1.0), fleet=Devices(Equal(30.0), trace), selection=InOrder())
    records = it.train(4).records
    assert [(record.clock, record.clients) for record in records] == [
        (30.0, (0,)), (60.0, (0,)), (90.0, (0, 1, 5)), (120.0, (0, 1, 4, 5))]
    late = experiment(schedule=Synchronous(1.0), fleet=Devices(Equal(30.0), Trace(dict.fromkeys(range(6), ((500.0, 1.0),)))))
    assert [record.clock for record in late.train(2).records] == [530.0, 560.0]


def test_everybody_away_for_ever_is_a_round_without_an_update():
    gone = Trace(dict.fromkeys(range(6), ((0.0, 1.0), (40.0, 0.0))))
    history = experiment(schedule=Synchronous(0.5), fleet=Devices(Equal(30.0), gone)).train(4)
    assert [len(record.clients) for record in history.records] == [3, 3, 0, 0]
    assert "no update arrived" in history.records[2].events
    assert history.records[2].clock == 60.0


def test_fewer_there_than_are_asked_for():
    trace = Trace({client: ((0.0, float(client < 2)),) for client in range(6)})
    it = experiment(schedule=Synchronous(0.5, min_clients=5), fleet=Devices(Equal(), trace))
    assert [record.clients for record in it.train(2).records] == [(0, 1), (0, 1)]


def test_presence_moves_neither_training_nor_the_speeds():
    always = Devices(LogNormal(), Trace(dict.fromkeys(range(6), ((0.0, 1.0),))))
    one, other = (experiment(fleet=fleet).train(3) for fleet in (LogNormal(), always))
    assert one.state.server.params.tobytes() == other.state.server.params.tobytes()
    assert one.records == other.records


def test_two_presences_must_both_be_there():
    inner = Devices(Equal(), Trace({0: ((0.0, 1.0), (10.0, 0.0), (30.0, 1.0))}))
    outer = Devices(inner, Trace({0: ((5.0, 1.0), (12.0, 0.0), (40.0, 1.0))}))
    assert [outer.away(0, t) for t in (0.0, 6.0, 10.0, 35.0, 40.0)] == [5.0, 0.0, 30.0, 5.0, 0.0]
    never = Devices(inner, Trace({0: ((10.0, 1.0), (30.0, 0.0))}))
    assert never.away(0, 0.0) == math.inf
    apart = Devices(Devices(Equal(), Trace({0: ((0.0, 1.0), (5.0, 0.0))}, period=10.0)),
                    Trace({0: ((0.0, 0.0), (5.0, 1.0))}, period=10.0))                              # fmt: skip
    assert apart.away(0, 3.0) == math.inf


@pytest.mark.parametrize(
    "bad", [{"failure": -0.1}, {"failure": 1.0}, {"failure": math.nan}, {"failure_spread": 0.1}, {"failure_spread": -1.0},
            {"failure": 0.5, "failure_spread": 0.5}, {"failure": 0.5, "failure_spread": math.nan}]
)  # fmt: skip
def test_what_is_no_probability_is_refused(bad):
    with pytest.raises(ValueError, match="failure"):
        Devices(**bad)


def test_parts_of_the_wrong_kind_are_refused():
    with pytest.raises(TypeError, match="speed must be a Fleet"):
        Devices(DayNight())
    with pytest.raises(TypeError, match="presence must be DayNight"):
        Devices(presence=LogNormal())


def test_poisson_sampling_needs_clients_that_are_always_there():
    poisson = {"selection": PoissonSelection(), "schedule": Synchronous(0.5)}
    with pytest.raises(CompositionError, match="coins of Poisson sampling"):
        experiment(fleet=Devices(presence=DayNight()), **poisson)
    with pytest.raises(CompositionError, match="coins of Poisson sampling"):
        experiment(fleet=Devices(Devices(presence=DayNight())), **poisson)
    experiment(fleet=Devices(failure=0.1), **poisson)

    class Mine(Devices):
        def away(self, client, when):
            return 3.0

    class Other(LogNormal):
        def away(self, client, when):
            return 0.0

    for fleet in (Mine(), Other()):
        assert not always_there(fleet)
        with pytest.raises(CompositionError, match="coins of Poisson sampling"):
            experiment(fleet=fleet, **poisson)


# --- a round, by hand ---------------------------------------------------------------------------------------------------------


def test_seconds_of_a_round_by_hand():
    """10 and 20 examples, 2 epochs, 100 examples a second; 8 Mbit/s down, 1 Mbit/s up: compute 0.2 and 0.4 s."""
    data = federation((10, 20))
    fleet = Devices(LogNormal(examples_per_second=100.0, speed_spread=0.0, down_mbit=8.0, up_mbit=1.0, link_spread=0.0))
    it = Coordinator(data, logistic(5, 3), LocalSGD(lr=0.1, epochs=2, batch_size=5), Synchronous(1.0), fleet=fleet)
    history = it.train(1)
    record = history.records[0]
    down = len(encode_model(it.initial().server))
    up = record.upload[1]
    assert record.bytes_down["model"] == 2 * down
    assert record.clock == pytest.approx(down * 8 / 8e6 + 40 / 100 + up * 8 / 1e6, rel=1e-12)
    span = next(span for span in record.spans if span.client == 1)
    assert (span.downloaded, span.trained) == (pytest.approx(down * 1e-6), pytest.approx(down * 1e-6 + 0.4))
    assert span.nbytes == up
    assert span.ended == record.clock
    report = history.state.reports[0]
    assert report["compute_seconds"] == pytest.approx(0.2)
    assert report["upload_seconds"] == pytest.approx(report["bytes_up"] * 8e-6)
    assert report["download_seconds"] == pytest.approx(report["bytes_down"] * 1e-6)


# --- traces -------------------------------------------------------------------------------------------------------------------

DAY = """client,time,event
7,0,on
7,3600,off
7,7200,on
phone a,100,on
"""


def test_a_trace_says_who_is_there():
    trace = Trace.parse(DAY)
    assert trace.clients == (7, "phone a")
    assert [trace.away(7, t) for t in (0.0, 3599.0, 3600.0, 5000.0, 7200.0, 1e9)] == [0.0, 0.0, 3600.0, 2200.0, 0.0, 0.0]
    assert [trace.away("phone a", t) for t in (0.0, 99.5, 100.0)] == [100.0, 0.5, 0.0]
    assert trace.there(7, 10.0)
    assert not trace.there(7, 4000.0)
    assert Trace.parse("client,time,event\n1,0,on\n1,5,off").away(1, 6.0) == math.inf


def test_a_trace_that_repeats():
    trace = Trace.parse("client,time,event\n1,10,on\n1,20,off\n2,10,off\n2,20,on", period=100.0)
    assert [trace.away(1, t) for t in (0.0, 15.0, 20.0, 99.0, 110.0, 1e6 + 15)] == [10.0, 0.0, 90.0, 11.0, 0.0, 0.0]
    assert [trace.away(2, t) for t in (0.0, 10.0, 20.0, 105.0)] == [0.0, 10.0, 0.0, 0.0]
    assert Trace.parse("client,time,event\n1,10,off", period=50.0).away(1, 3.0) == math.inf


def test_rates_are_speeds_and_presence():
    trace = Trace.parse("client,time,rate\n1,0,10\n1,10,0\n1,20,40\n1,30,0\n2,0,8\n3,5,0")
    assert trace.rated
    assert trace.rate(1) == pytest.approx((10 * 10 + 40 * 10) / 20)
    assert (trace.rate(2), trace.rate(3)) == (8.0, 0.0)
    devices = Devices(LogNormal(), trace)
    assert devices.compute(1, 100.0, partial(rng, 1)) == pytest.approx(4.0)
    assert devices.away(1, 12.0) == 8.0
    assert Devices(LogNormal(), Trace.parse(DAY)).compute(7, 100.0, rng) == LogNormal().compute(7, 100.0, rng)
    assert Trace.parse("client,time,rate\n1,0,10\n1,30,40", period=40.0).rate(1) == pytest.approx((30 * 10 + 10 * 40) / 40)


def test_a_trace_from_a_file(tmp_path):
    path = tmp_path / "day.csv"
    path.write_text("\ufeff" + DAY.replace("\n", "\r\n") + "\n# the end\n\n", encoding="utf-8")
    assert Trace.read(path) == Trace.parse(DAY)
    path.write_bytes(b"client,time,event\n\xff\xfe,0,on\n")
    with pytest.raises(ValueError, match="no text in UTF-8"):
        Trace.read(path)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "line 1: the trace is empty"),
        ("client,time,event\n", "the trace is empty"),
        ("client,when,event\n1,0,on\n", "line 1: the header must be client,time,event"),
        ("client,time,event\n1,0,on\n2,zero,on\n", "line 3: the time is 'zero', no number"),
        ("client,time,event\n1,0,on\n\n1,5,away\n", "line 4: the event is 'away'; it must be on or off"),
        ("client,time,event\n1,0,on\n1,0,off\n", "line 3: the time is 0, and the line before says 0"),
        ("client,time,event\n1,9,on\n2,1,on\n1,8,off\n", "line 4: the time is 8, and the line before says 9"),
        ("client,time,event\n1,-1,on\n", "line 2: the time is -1"),
        ("client,time,event\n1,nan,on\n", "line 2: the time is nan"),
        ("client,time,event\n1,inf,on\n", "line 2: the time is inf"),
        ("client,time,event\n1,0\n", "line 2: it must have a client, a time and one thing more"),
        ("client,time,event\n1,0,on,3\n", "line 2: it must have a client"),
        ("client,time,event\n,0,on\n", "line 2: it must have a client"),
        ('client,time,event\n"1,0,on\n', "line 2: unexpected end of data"),
        ("client,time,rate\n1,0,fast\n", "line 2: the rate is 'fast', no number"),
        ("client,time,rate\n1,0,-3\n", "line 2: the rate is -3"),
        ("client,time,rate\n1,0,nan\n", "line 2: the rate is nan"),
        ("client,time,event\n1,0,__import__('os').abort()\n", "line 2: the event is"),
    ],
)
def test_an_error_names_its_line(text, match):
    with pytest.raises(ValueError, match=match.replace("(", r"\(")):
        Trace.parse(text)


def test_a_period_is_longer_than_its_trace():
    with pytest.raises(ValueError, match=r"line 2: the time is 60, beyond the period of 50 s"):
        Trace.parse("client,time,event\n1,60,on", period=50.0)
    for period in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="period must be a positive number"):
            Trace.parse(DAY, period=period)
    for bad in ([1, 2], {1: 5}, {1: (3.0, 1.0)}, {1: ((1.0, 2.0, 3.0),)}):
        with pytest.raises(TypeError, match=r"mapping of clients|pairs \(time, rate\)"):
            Trace(bad)
    with pytest.raises(ValueError, match="two numbers"):
        Trace({1: (("1", 1.0),)})
    with pytest.raises(ValueError, match="at least one line"):
        Trace({})
    with pytest.raises(ValueError, match="client 1: the time is 3"):
        Trace({1: ((5.0, 1.0), (3.0, 0.0))})


def test_a_client_of_which_the_trace_knows_nothing_is_named():
    with pytest.raises(ValueError, match="the trace has no line of client 1"):
        experiment(fleet=Devices(Equal(), Trace({0: ((0.0, 1.0),)}))).train(1)
