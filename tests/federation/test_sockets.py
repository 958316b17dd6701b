"""What the loop does for a selector that asks, a fleet that is away, an attack, and a rule that leaves clients out."""

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest

from fl_course import (
    IID,
    Aggregation,
    Attack,
    Buffered,
    Coordinator,
    Equal,
    Fleet,
    History,
    LocalSGD,
    LogNormal,
    Selector,
    Server,
    Synchronous,
    Update,
    WeightedMean,
    WireError,
    digits,
    logistic,
)
from fl_course.core import FATES
from fl_course.federation import archive
from fl_course.federation.checkpoint import CheckpointError, load, save
from fl_course.wire.messages import encode_model, frame


def small(**how):
    data = digits().partition(IID(), clients=6, seed=0)
    how = {"schedule": Synchronous(0.5), **how}
    return Coordinator(data, logistic(64, 10), LocalSGD(lr=0.1, batch_size=None), seed=3, **how)


@dataclass(frozen=True)
class Curious(Selector):
    """Asks the first three idle clients for their loss, and takes the two with the largest."""

    sends_model: bool = True
    nonsense: float = 0.0

    def asks(self, idle, k, rng, reports):
        return idle[:3]

    def answer(self, look):
        theta = look.server.params
        losses = look.model.loss.judge(look.model.predict(theta, look.x).astype(np.float64), look.y)[1]
        return {"loss": float(losses.mean()) + self.nonsense, "labels": np.bincount(look.y, minlength=10)}

    def select(self, idle, k, rng, reports):
        known = [client for client in idle if "probe_loss" in reports.get(client, {})]
        return sorted(known, key=lambda client: -reports[client]["probe_loss"])[:2]


def test_a_probe_is_bytes_and_seconds_and_the_answers_are_there_for_the_choice():
    links = LogNormal(speed_spread=0, link_spread=0)
    fed = small(selection=Curious(), fleet=links)
    history = fed.train(2)
    model, one = len(encode_model(fed.initial().server)), history.records[0]
    assert one.bytes_down["probe"] == 3 * model
    assert one.bytes_down["model"] == 2 * model
    assert set(history.state.reports) >= {0, 1, 2}
    assert history.state.reports[0]["probe_version"] == 1
    labels = np.bincount(fed.data.y[fed.data.train[1]], minlength=10)
    np.testing.assert_array_equal(history.state.reports[1]["probe_labels"], labels)
    one_answer = len(frame("probe", [0, 0, {"loss": 0.5, "labels": np.zeros(10, np.int64)}]))
    assert one.bytes_up["probe"] == 3 * one_answer
    # By hand: the slowest of three answers, then the slowest of two trainings (all devices are equal but for their examples).
    n = [len(part) for part in fed.data.train]
    asked = max(links.download(k, model) + links.compute(k, n[k] / 3, None) + links.upload(k, one_answer) for k in range(3))
    assert min(span.begun for span in one.spans) == pytest.approx(asked, abs=1e-12)
    assert {span.client for span in one.spans} == set(one.clients)
    assert all(c in (0, 1, 2) for c in one.clients)


def test_a_selector_that_asks_moves_no_other_stream():
    """The same two clients, asked about or not: the same model."""
    picks = small(selection=Curious()).train(1)

    class Same(Selector):
        def select(self, idle, k, rng, reports):
            return list(picks.records[0].clients)

    assert small(selection=Same()).train(1).state.server.params.tobytes() == picks.state.server.params.tobytes()


def test_nan_is_refused_and_named_and_if_all_fail_it_is_raised():
    with pytest.raises(WireError, match="'loss' is nan, not finite"):
        small(selection=Curious(nonsense=math.nan)).train(1)

    class Sometimes(Curious):
        def answer(self, look):
            return {"loss": math.nan if look.client == 1 else 1.0}

    record = small(selection=Sometimes()).train(1).records[0]
    assert any("client 1 failed to answer" in event and "'loss' is nan" in event for event in record.events)
    assert record.clients == (0, 2)


def test_one_client_that_cannot_answer_ends_no_run_that_others_have_answered():
    class Later(Curious):
        """From the second round on it asks client 1 alone, which cannot answer."""

        def asks(self, idle, k, rng, reports):
            return [1] if any("answered" in report for report in reports.values()) else idle[:3]

        def answer(self, look):
            return {"loss": 1 / 0 if look.client == 1 else 1.0}

    history = small(selection=Later()).train(3)
    assert len(history) == 3
    assert any("client 1 failed to answer" in event and "ZeroDivisionError" in event for event in history.records[2].events)
    with pytest.raises(ZeroDivisionError):
        small(selection=Later(), strict=True).train(1)


def test_who_drops_out_does_not_answer_and_a_question_may_go_without_the_model():
    record = small(selection=Curious(), fleet=Equal(drop=0.9)).train(1).records[0]
    assert sum("dropped out before it answered" in event for event in record.events) >= 2
    short = small(selection=Curious(sends_model=False)).train(1).records[0]
    assert short.bytes_down["probe"] == 3 * len(frame("question", [0]))


@pytest.mark.parametrize("asks", [[99], [0, 0]])
def test_whom_a_selector_asks_is_checked_as_whom_it_chooses(asks):
    class Wrong(Curious):
        def asks(self, idle, k, rng, reports):
            return asks

    with pytest.raises(ValueError, match="the selector asks client"):
        small(selection=Wrong()).train(1)


def test_reports_count_who_was_asked_and_what_each_way_took():
    links = LogNormal(drop=0.4, seed=1)
    history = small(fleet=links).train(8)
    reports = history.state.reports
    spans = [span for record in history.records for span in record.spans]
    for client, report in reports.items():
        mine = [span for span in spans if span.client == client]
        used = [span for span in mine if span.fate == "used"]
        assert report["asked"] == len(mine)
        assert report.get("answered", 0) == len(used)
        if used:
            last = used[-1]
            assert report["download_seconds"] == pytest.approx(links.download(client, report["bytes_down"]))
            assert report["upload_seconds"] == pytest.approx(last.ended - last.trained)
            assert report["compute_seconds"] == pytest.approx(last.trained - last.downloaded)
            assert report["bytes_up"] == last.nbytes
    assert {span.fate for span in spans} <= set(FATES)
    assert any(span.fate == "dropped out" for span in spans)


def test_every_job_ends_in_one_span_or_is_still_at_work():
    fed = small(schedule=Buffered(concurrency=4, buffer=2, max_staleness=0), fleet=LogNormal(drop=0.2, seed=2))
    history = fed.train(10)
    spans = [span for record in history.records for span in record.spans]
    assert len(spans) + len(history.state.jobs) == history.state.ticket
    assert all(s.begun <= s.downloaded <= s.trained <= s.ended for s in spans)
    assert {"used", "dropped out", "too stale"} <= {s.fate for s in spans}
    again = History.from_json(history.to_json())
    assert [r.spans for r in again.records] == [r.spans for r in history.records]


def test_a_metric_of_a_client_cannot_pass_for_an_answer_or_a_count():
    from fl_course.federation.state import Job, answered

    job = Job(1.0, 0, 0, (0,), Server(np.zeros(2, np.float32)), {}, 0.0, message=b"abc")
    lies = Update(0, 0, np.zeros(2), metrics={"asked": 1e6, "answered": 99.0, "probe_loss": 9.0, "version": 7.0})
    report = answered({"asked": 2, "asked_version": 5, "probe_loss": 0.5}, lies, job, 1.0, 0.5)
    assert (report["asked"], report["answered"], report["probe_loss"], report["version"]) == (2, 1, 0.5, 0.0)


# --- a fleet that is away --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shift(Fleet):
    """Client k is there from second begins[k] on; each job takes a second."""

    begins: tuple[float, ...]

    def compute(self, client, examples, luck):
        return 1.0

    def away(self, client, when):
        return max(0.0, self.begins[client] - when)


def test_only_who_is_there_is_asked_and_if_nobody_is_the_clock_goes_on():
    fed = small(fleet=Shift((0, 0, 7, 7, 7, math.inf)), schedule=Synchronous(1.0))
    history = fed.train(9)
    assert history.records[0].clients == (0, 1)
    assert history.records[0].clock == 1
    assert history.records[7].clients == (0, 1, 2, 3, 4)
    late = small(fleet=Shift((5, 6, 9, 9, 9, 9)), schedule=Synchronous(1.0)).train(1).records[0]
    assert late.clients == (0,)
    assert late.events == ("nobody was there to ask at second 0; the first is back at 5",)
    assert late.clock == 6.0


def test_nobody_ever_there_and_nobody_before_the_deadline():
    never = small(fleet=Shift((math.inf,) * 6)).train(1).records[0]
    assert never.clients == ()
    assert "no update arrived" in never.events
    closed = small(fleet=Shift((9.0,) * 6), schedule=Synchronous(0.5, deadline=4.0)).train(1).records[0]
    assert closed.clients == ()
    assert closed.clock == 4.0


def test_a_buffered_server_starts_a_client_at_the_instant_at_which_it_comes_back():
    fed = small(fleet=Shift((0, 0.5, 0.5, 9, 9, 9)), schedule=Buffered(concurrency=3, buffer=3))
    record = fed.train(1).records[0]
    assert {span.client: span.begun for span in record.spans} == {0: 0.0, 1: 0.5, 2: 0.5}


def test_a_run_with_absences_resumes_to_the_bit(tmp_path):
    fed = small(fleet=Shift((0, 1.5, 3, 3, 4, 8)), schedule=Buffered(concurrency=3, buffer=2), selection=Curious())
    whole = fed.train(6)
    save(tmp_path / "half.ckpt", fed.train(3).state, fed)
    half = fed.train(3, load(tmp_path / "half.ckpt", fed))
    assert half.state.server.params.tobytes() == whole.state.server.params.tobytes()
    assert half.records == whole.records[3:]


@pytest.mark.parametrize("away", [-1.0, math.nan, "1", True])
def test_an_absence_that_is_no_number_of_seconds_is_refused(away):
    class Odd(Equal):
        def away(self, client, when):
            return away

    with pytest.raises(ValueError, match="is away for"):
        small(fleet=Odd()).train(1)


def test_a_fleet_that_puts_everybody_off_for_ever_is_asked_what_it_means():
    class Tomorrow(Equal):
        def away(self, client, when):
            return 1.0

    with pytest.raises(ValueError, match="put off the clients"):
        small(fleet=Tomorrow()).train(1)


# --- an attack, and who is left out ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Flip(Attack):
    clients: tuple = (1, 4)

    def strike(self, tasks, updates, ctx):
        return [replace(u, delta=-u.delta) if u.client in self.clients else u for u in updates]

    def measure(self, experiment, server):
        return {"norm": float(np.linalg.norm(server.params))}


class Suspicious(Aggregation):
    """Leaves out client 1, whatever it sends, and client 0."""

    def combine(self, updates, staleness, ctx=None):
        good = [u for u in updates if u.client not in (0, 1)]
        return replace(WeightedMean().combine(good, [0] * len(good)), removed=(0, 1))


def test_an_attack_strikes_its_own_clients_and_is_found_out():
    honest, struck = (small(schedule=Synchronous(1.0), attack=a).train(1) for a in (None, Flip()))
    assert honest.state.server.params.tobytes() != struck.state.server.params.tobytes()
    assert struck.records[0].metrics["norm"] == pytest.approx(np.linalg.norm(struck.state.server.params))
    record = small(schedule=Synchronous(1.0), attack=Flip(), aggregation=Suspicious()).train(1).records[0]
    assert record.metrics["detection_precision"] == 0.5
    assert record.metrics["detection_recall"] == 0.5
    assert "left out by Suspicious: 0, 1" in record.events
    assert "detection_recall" not in struck.records[0].metrics                       # a mean leaves nobody out


def test_an_attack_that_controls_nobody_of_the_cohort_changes_nothing():
    class Stranger(Flip):
        def strike(self, tasks, updates, ctx):
            raise AssertionError("nobody of its clients is here")

    class Others(Selector):
        def select(self, idle, k, rng, reports):
            return [0, 2, 3]

    a, b = (small(selection=Others(), attack=attack).train(2) for attack in (None, Stranger()))
    assert a.state.server.params.tobytes() == b.state.server.params.tobytes()


def test_what_an_attacker_sends_is_checked_like_any_answer():
    class Poison(Flip):
        def strike(self, tasks, updates, ctx):
            return [replace(u, delta=u.delta * np.nan) if u.client in self.clients else u for u in updates]

    record = small(schedule=Synchronous(1.0), attack=Poison()).train(1).records[0]
    assert record.clients == (0, 2, 3, 5)
    assert record.metrics["refused"] == 2


def test_an_attack_reaches_no_further_than_its_hands():
    class Reach(Flip):
        def strike(self, tasks, updates, ctx):
            return [replace(u, delta=-u.delta) for u in updates]

    class Data(Flip):
        def poison(self, data):
            return replace(data, y=(data.y + 1) % 10)

    for attack in (Reach(), Data()):
        with pytest.raises((TypeError, ValueError), match=r"client 0|controls|its place"):
            small(schedule=Synchronous(1.0), attack=attack).train(1)
    with pytest.raises(ValueError, match="controls client 77"):
        small(attack=Flip((77,)))
    with pytest.raises(TypeError, match="of the kind Attack"):
        small(attack=3)


def test_a_rule_sees_the_models_that_the_updates_began_with():
    seen = []

    class Looks(Aggregation):
        def combine(self, updates, staleness, ctx=None):
            seen.append((staleness, [start.copy() for start in ctx.starts], ctx.server.params.copy()))
            return WeightedMean().combine(updates, staleness)

    fed = small(aggregation=Looks(), schedule=Buffered(concurrency=4, buffer=1), fleet=LogNormal(seed=4))
    models = [fed.initial().server.params] + [state.server.params for state, _ in fed.run(6)]
    assert any(staleness[0] > 0 for staleness, _, _ in seen)
    for version, (staleness, starts, now) in enumerate(seen):
        np.testing.assert_array_equal(now, models[version])
        np.testing.assert_array_equal(starts[0], models[version - staleness[0]])


@pytest.mark.parametrize("report", [
    {"asked": "x"}, {"asked": -1}, {"answered": 1.5}, {"asked_version": None}, {"probe_labels": "abc"}, {"update": 3.0},
    {"update": np.zeros(3, np.float32)}, {"update": np.full(650, np.nan, np.float32)}, {"update": np.zeros(650)},
])  # fmt: skip
def test_a_report_that_no_run_writes_is_refused_on_its_way_through_a_file(tmp_path, report):
    """`save` reads what it has written as `load` does, so a file with such a report is refused by both."""
    fed = small()
    state = fed.train(1).state
    forged = replace(state, reports={**state.reports, 0: {**state.reports.get(0, {}), **report}})
    with pytest.raises(CheckpointError, match="client 0"):
        save(tmp_path / "forged.ckpt", forged, fed)
    with pytest.raises(ValueError, match="client 0"):
        archive.check(forged, set(fed.clients).__contains__, fed.model.dim)


def test_an_error_in_the_middle_brings_the_rounds_before_it_along():
    class Breaks(Selector):
        def choose(self, idle, k, rng, reports, ctx):
            return idle[:2] if ctx.server.version < 2 else 1 // 0

    fed = small(selection=Breaks())
    with pytest.raises(ZeroDivisionError) as caught:
        fed.train(5)
    history = caught.value.history
    assert caught.value.__notes__ == ["what the 2 rounds before it did is not lost: see the error's .history"]
    assert history.state.server.params.tobytes() == fed.train(2).state.server.params.tobytes()


@pytest.mark.parametrize("chosen", [3, 2.5, object()])
def test_a_choice_that_is_no_list_of_clients_is_refused_in_a_sentence(chosen):
    class Odd(Selector):
        def select(self, idle, k, rng, reports):
            return chosen

    with pytest.raises(TypeError, match=r"the selector returned .* a list of clients"):
        small(selection=Odd()).train(1)


def test_a_rule_that_takes_too_little_is_told_so_when_it_is_built():
    class Old(Aggregation):
        def combine(self, updates, staleness):
            return WeightedMean().combine(updates, staleness)

    with pytest.raises(TypeError, match=r"Old.combine must take three things"):
        small(aggregation=Old())

    class Any(Aggregation):
        linear = True

        def combine(self, *things):
            return WeightedMean().combine(*things)

    assert small(aggregation=Any()).train(1).state.server.version == 1
