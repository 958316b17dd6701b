"""Simulated time is exact: ties are ties, what has left is counted, and a job finds what its own version left for it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small import UNIFORM, InOrder, Timed, experiment, federation

from fl_course import (
    Buffered,
    Dirichlet,
    Equal,
    Fleet,
    LocalSGD,
    LogNormal,
    QuantitySkew,
    Stage,
    Synchronous,
    load,
    save,
)
from fl_course.federation.clock import between, exact, later, under_way
from fl_course.federation.fleet import checked_seconds


@dataclass(frozen=True)
class Legs(Fleet):
    """Seconds of download, training and upload, the same for everybody but those in `gone`."""

    legs: tuple = (0.0, 0.0, 0.0)
    gone: tuple = ()

    def download(self, client, nbytes):
        return self.legs[0]

    def compute(self, client, examples, luck):
        return self.legs[1]

    def upload(self, client, nbytes):
        return self.legs[2]

    def drops(self, client, luck):
        return client in self.gone


tiny = {"training": LocalSGD(batch_size=None), "weights": UNIFORM}


# --- exact ----------------------------------------------------------------------------------------------------------


@given(st.lists(st.floats(0, 1e300) | st.decimals(0, 10**6, places=6).map(float), max_size=6))
def test_sums_are_exact_in_any_order(numbers):
    instant = exact(0.0)
    for number in numbers:
        instant = later(instant, exact(number))
    assert Fraction(instant) == sum(Fraction(Decimal(repr(number))) for number in numbers)
    back = exact(0.0)
    for number in reversed(numbers):
        back = later(back, exact(number))
    assert back == instant
    assert between(instant, instant) == 0.0


def test_numpys_numbers_are_the_decimals_that_they_print():
    assert exact(np.float32(0.1)) == exact(np.float64(0.1)) == exact(0.1) == Decimal("0.1")
    assert exact(math.inf) > later(exact(1e300), exact(1e300))


@given(st.lists(st.integers(1, 999), min_size=3, max_size=3), st.integers(0, 3), st.integers(-1, 1))
def test_an_answer_at_the_very_second_counts_however_long_the_clock_has_run(legs, places, off):
    """Random decimals: each round lasts exactly as long as its deadline, a digit less, or a digit more."""
    unit = Decimal(10) ** -places
    total = sum(legs) * unit
    seconds = tuple(float(leg * unit) for leg in legs)
    deadline = float(total + off * unit)
    it = experiment(federation((2, 2, 2), tests=0), schedule=Synchronous(1.0, deadline=deadline), fleet=Legs(seconds), **tiny)
    history = it.train(9)
    answered = 0 if off < 0 else 3
    assert [len(record.clients) for record in history.records] == [answered] * 9
    lasts = min(total, total + off * unit)
    assert [record.clock for record in history.records] == [float(n * lasts) for n in range(1, 10)]
    assert {event for record in history.records for event in record.events if "late" not in event} <= {"no update arrived"}


def test_the_named_example():
    it = experiment(schedule=Synchronous(1.0, deadline=0.6), fleet=Legs((0.0, 0.3, 0.3)))
    assert [len(record.clients) for record in it.train(12).records] == [6] * 12
    it = experiment(schedule=Synchronous(1.0, deadline=0.3), fleet=Legs((0.0, 0.1, 0.2)))
    assert [len(record.clients) for record in it.train(12).records] == [6] * 12


@given(st.lists(st.integers(1, 30), min_size=2, max_size=4), st.integers(1, 4), st.integers(1, 5))
def test_a_running_clock_keeps_ties_in_a_buffer(tenths, buffer, cut):
    """Tenths of seconds and whole seconds are one schedule on two scales: who is heard together does not depend on it."""
    buffer = min(buffer, len(tenths))
    runs = []
    for scale in (1, 10):
        fleet = Timed({k: t / scale for k, t in enumerate(tenths)}, up=2 / scale)
        data = federation((2,) * len(tenths), tests=0)
        it = experiment(data, schedule=Buffered(3, buffer), fleet=fleet, selection=InOrder(), **tiny)
        first = it.train(cut)
        runs.append(first.records + it.train(8, first).records)
    for whole, part in zip(*runs, strict=True):
        assert (whole.clients, whole.staleness) == (part.clients, part.staleness)
        assert part.clock == float(Decimal(repr(whole.clock)) / 10)


def test_a_deadline_counts_from_the_opening_of_its_own_round():
    """Rounds end when all have answered, so the next one opens off any grid of deadlines."""
    fleet = Timed(dict.fromkeys(range(6), 1.0) | {5: 1.9})
    it = experiment(schedule=Synchronous(1.0, deadline=2.0), fleet=fleet)
    history = it.train(4)
    assert [record.clock for record in history.records] == [1.9, 3.8, 5.7, 7.6]
    assert all(len(record.clients) == 6 for record in history.records)


def test_the_seconds_that_are_reported_are_those_of_the_job():
    """Started in the middle of a version, a job lasts from its own beginning, not from the opening of the round."""
    it = experiment(schedule=Buffered(2, 3), selection=InOrder(), fleet=Timed({0: 1, 1: 2, 2: 4, 3: 4, 4: 4, 5: 4}, up=0.5))
    reports = it.train(3).state.reports
    assert {client: reports[client]["seconds"] for client in (0, 1, 2)} == {0: 1.5, 1: 2.5, 2: 4.5}


# --- what has left --------------------------------------------------------------------------------------------------


@given(st.integers(1, 10**9), st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 2 * 10**6))
def test_what_has_left_goes_from_nothing_to_everything(nbytes, began, lasts, now):
    instants = [Decimal(n) / 1000 for n in (max(began, now), began, began + lasts)]
    left = under_way(nbytes, *instants)
    assert 0 <= left <= nbytes
    if instants[0] >= instants[2]:
        assert left == nbytes
    else:
        assert left == math.floor(nbytes * Fraction(max(began, now) - began, lasts))


@pytest.mark.parametrize(("deadline", "share"), [(1.0, 0), (1.5, 0.25), (2.0, 0.5), (2.999, 0.9995), (3.0, None)])
def test_a_deadline_counts_what_has_left_of_a_late_message(deadline, share):
    fleet = Legs((0.0, 1.0, 2.0), gone=(4,))
    it = experiment(schedule=Synchronous(1.0, deadline=deadline), fleet=fleet)
    record = it.train(1).records[0]
    whole = sum(experiment(schedule=Synchronous(1.0), fleet=fleet).train(1).records[0].upload)
    if share is None:
        assert dict(record.bytes_up) == {"update": whole}
        return
    size = whole // 5
    assert dict(record.bytes_up) == ({"late": 5 * math.floor(size * share)} if share else {})


def test_over_selection_counts_what_has_left_of_those_who_are_told_to_stop():
    """At second 3 two have answered; one has sent half of its answer, one is still training, one has vanished."""
    seconds = {0: 1.0, 1: 1.0, 2: 2.0, 3: 9.0, 4: 1.0, 5: 9.0}
    it = experiment(
        schedule=Synchronous(1 / 3, over_selection=1.5), selection=InOrder(), fleet=Timed(seconds, up=2.0, gone=(4,)),
    )  # fmt: skip
    record = it.train(1).records[0]
    assert (record.clock, record.clients) == (3.0, (0, 1))
    assert record.bytes_up["update"] == sum(record.upload)
    assert record.bytes_up["late"] == record.upload[0] // 2
    assert record.bytes_down["model"] % 5 == 0
    free = it.train(1)
    assert free.megabytes == (sum(record.bytes_up.values()) + sum(record.bytes_down.values())) / 1e6


def test_a_buffer_cuts_nobody_off():
    history = experiment(schedule=Buffered(4, 2), fleet=Legs((0.1, 1.0, 2.0))).train(5)
    assert all(set(record.bytes_up) == {"update"} for record in history.records)


def test_every_message_under_way_is_counted_once():
    """Whatever the deadline: answers, late parts and what is never sent add up to what was encoded."""
    fleet = Timed({0: 0.5, 1: 1.0, 2: 1.5, 3: 2.0, 4: 2.5, 5: 3.0}, up=1.0)
    size = experiment(schedule=Synchronous(1.0), fleet=fleet).train(1).records[0].upload[0]
    for deadline in (0.4, 0.5, 1.25, 1.5, 2.75, 3.0, 3.5, 4.0):
        record = experiment(schedule=Synchronous(1.0, deadline=deadline), fleet=fleet).train(1).records[0]
        shares = [min(1, max(0, Fraction(str(deadline)) - Fraction(str(fleet.seconds[k])))) for k in range(6)]
        assert record.bytes_up.get("update", 0) == size * shares.count(1)
        assert record.bytes_up.get("late", 0) == sum(math.floor(size * share) for share in shares if share < 1)


# --- a resumed run goes on counting ---------------------------------------------------------------------------------


@pytest.mark.parametrize("parts", [{}, {"schedule": Buffered(4, 2), "fleet": LogNormal()}], ids=["rounds", "buffered"])
def test_megabytes_go_on_counting_as_the_clock_does(parts, tmp_path):
    it = experiment(**parts)
    whole, first = it.train(6), it.train(2)
    save(tmp_path / "x.ckpt", first.state, it)
    for begin in (first, first.state, load(tmp_path / "x.ckpt", it)):
        rest = it.train(4, begin)
        assert rest.megabytes == whole.megabytes > first.megabytes
        assert rest.records == whole.records[2:]
        again = type(rest).from_json(rest.to_json())
        assert again.megabytes == rest.megabytes
        ax = rest.plot(x="MB")
        assert ax.get_lines()[0].get_xdata()[0] > first.megabytes
        ax.figure.clear()
    assert whole.state.sent == round(whole.megabytes * 1e6)


# --- the session of a version ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Session(Stage):
    """Puts its version and its cohort into the session, and remembers what each client half finds there."""

    found: dict = field(default_factory=dict, repr=False)
    on: int = 0                                   # from this version on

    def begin(self, ctx):
        if ctx.server.version >= self.on:
            ctx.session["version"] = ctx.server.version

    def client(self, update, ctx):
        self.found[update.version, update.client] = ctx.session.get("version"), ctx.cohort
        assert ctx.server.version == update.version
        return update


@given(st.lists(st.sampled_from([1.0, 1.5, 2.0, 3.5, 9.0, 20.0]), min_size=2, max_size=6), st.integers(1, 6),
       st.integers(1, 3), st.integers(0, 3), st.integers(1, 6))  # fmt: skip
def test_a_late_client_finds_the_session_of_its_own_version(seconds, concurrency, buffer, on, cut):
    """However late, over a resumed state too; and nothing, not another version's, where its own put nothing there."""
    stage, fleet = Session(on=on), Timed(dict(enumerate(seconds)), up=0.5)
    data = federation((2,) * len(seconds), tests=0)
    it = experiment(data, schedule=Buffered(concurrency, min(buffer, len(seconds))), fleet=fleet, stages=[stage], **tiny)
    stage.found.clear()
    history = it.train(cut)
    later_records = it.train(8, history).records
    for record in history.records + later_records:
        for client, age in zip(record.clients, record.staleness, strict=True):
            version = record.version - 1 - age
            tag, cohort = stage.found[version, client]
            assert tag == (version if version >= on else None)
            assert client in cohort


def test_the_named_example_of_a_late_client():
    stage = Session()
    fleet = Timed({0: 1.0, 1: 1.0, 2: 7.5, 3: 1.0, 4: 1.0, 5: 1.0})
    it = experiment(schedule=Buffered(3, 1), selection=InOrder(), fleet=fleet, stages=[stage], weights=UNIFORM)
    stage.found.clear()
    history = it.train(24)
    late = [(c, age) for r in history.records for c, age in zip(r.clients, r.staleness, strict=True) if age > 3]
    assert late[0][0] == 2
    assert all(tag == version for (version, _), (tag, _) in stage.found.items())
    assert stage.found[0, 2] == (0, (0, 1, 2))                           # its own version's cohort, not today's


def test_an_untrained_job_of_an_earlier_version_finds_no_session_of_a_later_one():
    """Such a job stands in a state that was made without a session, here by the same experiment without the stage."""
    stage, fleet = Session(), Timed({0: 1, 1: 1.5, 2: 10, 3: 1, 4: 1, 5: 1})
    parts = {"schedule": Buffered(3, 2), "selection": InOrder(), "fleet": fleet, "weights": UNIFORM}
    state = experiment(**parts).train(1).state
    (old,) = [job.client for job in state.jobs if job.message is None]
    it = experiment(stages=[stage], **parts)
    stage.found.clear()
    it.train(2, state)
    assert stage.found[0, old][0] is None
    assert {tag for (version, _), (tag, _) in stage.found.items() if version == 1} == {1}


def test_training_before_the_step_changes_nothing_but_the_session():
    """A stage with a session and one without: the same bytes, the same bits, the same records."""
    plain = experiment(schedule=Buffered(4, 2), fleet=LogNormal(speed_spread=1.0), weights=UNIFORM).train(8)
    with_session = experiment(schedule=Buffered(4, 2), fleet=LogNormal(speed_spread=1.0), weights=UNIFORM, stages=[Session()])
    again = with_session.train(8)
    assert again.records == plain.records
    assert again.state.server.params.tobytes() == plain.state.server.params.tobytes()


# --- fleets of the user's own ---------------------------------------------------------------------------------------

BAD = [-1.0, -1e-9, math.inf, -math.inf, math.nan, np.float32(-2), np.float64("nan"), None, "1", True, 1e301, 10**400, [1.0], 1j]


@pytest.mark.parametrize("what", ["download", "compute", "upload"])
@pytest.mark.parametrize("value", BAD, ids=lambda value: repr(value)[:20])
def test_seconds_that_are_none_are_refused_with_fleet_client_and_value(what, value):
    @dataclass(frozen=True)
    class Mine(Fleet):
        def compute(self, client, examples, luck):
            return value if (what, client) == ("compute", "c") else 1.0

        def download(self, client, nbytes):
            return value if (what, client) == ("download", "c") else 0.0

        def upload(self, client, nbytes):
            return value if (what, client) == ("upload", "c") else 0.0

    it = experiment(federation(ids=list("abcdef")), schedule=Synchronous(1.0), fleet=Mine())
    with pytest.raises(ValueError, match=rf"Mine\(\) says that the {what} of client 'c' takes .* seconds; it must be a finite"):
        it.train(2)


@given(st.floats(0, 1e300) | st.integers(0, 10**300) | st.fractions(0, 10**9).filter(lambda f: f < 10**9))
def test_every_kind_of_number_of_seconds_is_taken(value):
    assert float(checked_seconds(Equal(), "compute", 0, value)) == float(value)
    for narrow in (np.float32(0.3), np.float16(0.3), np.int64(3), np.uint8(3)):
        assert checked_seconds(Equal(), "compute", 0, narrow) == Decimal(str(narrow))


@pytest.mark.parametrize("value", [None, "no", 0.5, [False]])
def test_whether_a_client_drops_out_is_true_or_false(value):
    class Vague(Fleet):
        def compute(self, client, examples, luck):
            return 1.0

        def drops(self, client, luck):
            return value

        def __repr__(self):
            return "Vague()"

    with pytest.raises(TypeError, match=r"Vague\(\) says .* to whether client \d drops out"):
        experiment(fleet=Vague()).train(1)


@pytest.mark.parametrize("spread", [50.0, 30.0, 1.0, 0.0])
def test_the_widest_fleets_still_have_a_clock(spread):
    fleet = LogNormal(link_spread=spread, speed_spread=spread, jitter=spread)
    record = experiment(fleet=fleet, schedule=Synchronous(1.0)).train(3).records[-1]
    assert 0 < record.clock < math.inf


@pytest.mark.parametrize("name", ["link_spread", "speed_spread", "jitter"])
@pytest.mark.parametrize("value", [800.0, 50.1, math.inf])
def test_wider_ones_are_refused(name, value):
    with pytest.raises(ValueError, match=rf"{name} must be at least 0 and finite \(at most 50\), not {value}"):
        LogNormal(**{name: value})
    it = experiment(fleet=LogNormal(up_mbit=5e-324, link_spread=2.0), schedule=Synchronous(1.0))
    with pytest.raises(ValueError, match=r"upload of client .* takes inf seconds"):
        it.train(1)


@pytest.mark.parametrize("deadline", [0, -1.0, math.nan, -math.inf])
def test_a_schedule_of_ones_own_cannot_turn_the_clock_back(deadline):
    class Mine(Buffered):
        pass

    mine = Mine(3, 2)
    object.__setattr__(mine, "deadline", deadline)
    with pytest.raises(ValueError, match=r"Mine\(.* has a deadline of .*, not a positive number of seconds"):
        experiment(schedule=mine)


def test_the_clock_never_runs_backwards():
    history = experiment(schedule=Buffered(4, 2), fleet=LogNormal(speed_spread=3.0, link_spread=3.0, jitter=1.0)).train(20)
    clocks = [0.0, *(record.clock for record in history.records)]
    assert clocks == sorted(clocks)


@pytest.mark.parametrize("rule", [Dirichlet, QuantitySkew])
def test_a_division_says_how_large_alpha_may_be(rule):
    for alpha in (1e308, 1.1e100, math.inf, math.nan, 0.0):
        with pytest.raises(ValueError, match=r"alpha = .*finite number > 0, and at most 1e100"):
            rule(alpha)
    data = replace(federation(), made="")
    assert [len(part) for part in rule(1e100).split(data.y, 6, np.random.Generator(np.random.Philox(0)))] == [11] * 6
