"""The dashboard without a browser: what it makes of records, and that watching changes nothing of a run."""

import base64
import threading
import time
from dataclasses import dataclass

import nbclient
import nbformat
import numpy as np
import pytest
from small import experiment, federation

from fl_course import (
    Buffered,
    CentralDP,
    Coordinator,
    FedAvgM,
    LocalSGD,
    LogNormal,
    MultiKrum,
    SignFlip,
    SquaredError,
    Stage,
    Synchronous,
    TopK,
    Uniform,
    digits,
    load,
    logistic,
    save,
    vehicles,
)
from fl_course.core import FATES
from fl_course.workbook.widgets.dashboard import Dashboard, Watch, lesson

KINDS = {
    "plain": {},
    "momentum, drop-outs": {"optimizer": FedAvgM(), "fleet": LogNormal(drop=0.3)},
    "buffers, residuals": {"schedule": Buffered(4, 2, max_staleness=1), "stages": [TopK(0.5)], "fleet": LogNormal()},
    "noise": {"weights": Uniform(), "stages": [CentralDP(0.3, 1.0, noise_seed=1)]},
    "attack": {"attack": SignFlip((1,), 9.0), "aggregation": MultiKrum(1), "schedule": Synchronous(1.0)},
}


def watched(fed, rounds):
    watch = Watch(fed, rounds)
    for state, record in fed.run(rounds):
        watch.add(state, record)
    return watch


# --- records in, charts out ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_every_number_drawn_is_one_of_the_records(kind):
    fed = experiment(**KINDS[kind])
    watch, history = watched(fed, 6), fed.train(6)
    charts = {chart.title: chart for chart in watch.charts()}
    assert ("privacy spent" in charts) == (kind == "noise")
    assert ("age of the answers" in charts) == (kind == "buffers, residuals")
    known = {name for chart in charts.values() for name in chart.draws.get("lines", ())}
    for record, lines in zip(history.records, watch.lines, strict=True):
        assert set(lines) <= known
        assert {x for x, _ in lines.values()} == {record.version}
        for name, metric in {"held out": "accuracy", "worst tenth": "client_accuracy_worst10", "held-out loss": "loss",
                             "drift": "drift", "largest norm": "update_norm_max", "ε spent": "epsilon"}.items():  # fmt: skip
            if name in lines:
                assert lines[name][1] == record.metrics[metric]
            else:
                assert metric not in record.metrics or name not in known
        if "oldest" in lines:
            assert lines["oldest"][1] == max(record.staleness)
    bars = watch.bars()
    for way in ("up", "down"):
        sent = sum(sum(getattr(record, f"bytes_{way}").values()) for record in history.records)
        assert sum(height for _, height in bars[way]) == pytest.approx(sent / 1e6)
    assert {int(k): times for k, times in bars["times heard"]} == {
        k: sum(record.clients.count(k) for record in history.records) for k in fed.clients
    }
    assert sum(height for _, height in bars["jobs"]) == sum(len(record.spans) for record in history.records)
    assert dict(bars["jobs"])["left out"] == (6 if kind == "attack" else 0)


def test_the_losses_are_those_of_the_clients_that_were_heard():
    fed = experiment(schedule=Synchronous(0.5))
    watch = Watch(fed, 4)
    for state, record in fed.run(4):
        watch.add(state, record)
        losses = [state.reports[client]["loss_last"] for client in record.clients]
        assert len(losses) == 3
        drawn = [watch.lines[-1][name][1] for name in ("lowest loss", "mean loss", "highest loss")]
        assert drawn == pytest.approx([min(losses), np.mean(losses), max(losses)])
        weighed = np.average(losses, weights=[len(fed.data.examples(k)[1]) for k in record.clients])
        assert record.metrics["train_loss_last"] == pytest.approx(weighed)


def test_who_is_late_or_left_out_is_named():
    words = watched(experiment(attack=SignFlip((1,), 9.0), aggregation=MultiKrum(1), schedule=Synchronous(1.0)), 3).words()
    assert words.startswith("round 3 of 3, 3.0 simulated s, accuracy 0.")
    assert words.endswith("6 heard; left out: 1")
    late = watched(experiment(schedule=Synchronous(1.0, deadline=0.05), fleet=LogNormal(speed_spread=2.0)), 2)
    gone = [span.client for span in late.records[-1].spans if span.fate == "too late"]
    assert gone
    assert f"too late: {', '.join(map(str, gone))}" in late.words()
    assert Watch(experiment(), 5).words() == "no round of 5 yet"


def test_many_clients_are_counted_and_not_listed():
    watch = watched(experiment(federation(sizes=(3,) * 40), schedule=Synchronous(0.25)), 5)
    bars = watch.bars()["clients"]
    assert sum(height for _, height in bars) == 40
    assert sum(int(times) * height for times, height in bars) == sum(len(record.clients) for record in watch.records)
    assert len(watch.bars()["jobs"]) == len(FATES)                              # a fate without a bar would not be seen
    (chart,) = (chart for chart in watch.charts() if chart.title == "participation")
    assert (chart.x, chart.y) == ("times heard", "clients")


def test_alarms_are_sentences_with_a_link_to_their_lesson(tmp_path, monkeypatch):
    fed = experiment(attack=SignFlip((1,), 30.0), schedule=Synchronous(1.0))
    point = watched(fed, 5).point()
    text, name, link = next(note for note in point.notes if "times as long" in note[0])
    assert (name, link) == ("lesson 09", "")                                    # no notebooks beside it
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "09_attacks.ipynb").write_text("{}")
    assert lesson("09", tmp_path / "notebooks") == "09_attacks.ipynb"
    (tmp_path / "exercises").mkdir()
    assert lesson("09", tmp_path / "exercises") == "../notebooks/09_attacks.ipynb"
    assert lesson("04", tmp_path / "exercises") == ""
    monkeypatch.chdir(tmp_path / "notebooks")
    assert (text, name, "09_attacks.ipynb") in watched(fed, 5).point().notes


def test_numbers_to_hit_have_their_own_measure():
    fed = Coordinator(vehicles(6, 20), logistic(5, 1, loss=SquaredError()), LocalSGD(0.05, 1))
    watch = watched(fed, 2)
    assert watch.charts()[0].title == "rmse"
    assert watch.charts()[0].y_range == (0, None)
    assert watch.lines[-1]["held out"] == (2, watch.records[-1].metrics["rmse"])


# --- while it runs ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Gate(Stage):
    """Lets one round after another through, when the test says so."""

    times: int = 1000

    def begin(self, ctx):
        THREADS.append(threading.current_thread())
        assert TURNS.acquire(timeout=20)


TURNS, THREADS = threading.Semaphore(0), []


@pytest.fixture
def gate():
    while TURNS.acquire(blocking=False):
        pass
    THREADS.clear()
    yield TURNS
    for _ in range(100):
        TURNS.release()


def until(true):
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end
        time.sleep(0.002)


@pytest.mark.parametrize("kind", KINDS)
def test_a_watched_run_is_the_run(kind):
    fed = experiment(**KINDS[kind])
    history, alone = Dashboard(fed, 6).start().wait(20), fed.train(6)
    assert history.records == alone.records
    assert history.state.server.params.tobytes() == alone.state.server.params.tobytes()
    assert (history.stopped, history.experiment, history.before) == (alone.stopped, alone.experiment, alone.before)
    assert history.replay(fed)


def test_it_runs_off_the_main_thread_and_pauses_between_two_rounds(gate):
    fed = experiment(stages=[Gate()], fleet=LogNormal(), optimizer=FedAvgM())
    dashboard = Dashboard(fed, 8).start()
    for _ in range(3):
        gate.release()
    until(lambda: len(THREADS) == 4)                        # in the middle of round 4
    dashboard.pause()                                       # comes through when the round at hand ends
    gate.release()
    assert dashboard.wait(20).stopped == "paused after round 4"
    assert len(dashboard.history) == 4
    frame = dashboard.explorer.live.frame()
    assert (frame["status"], frame["end"]) == ("done", "paused")
    assert frame["text"].endswith("Start goes on from here")
    assert [x for x, _ in frame["runs"][0]["lines"]["held out"]] == [1, 2, 3, 4]
    assert threading.current_thread() not in THREADS

    for _ in range(100):
        gate.release()
    assert dashboard.start().wait(20).stopped == ""
    assert dashboard.history.records == fed.train(8).records
    frame = dashboard.explorer.live.frame()
    assert [x for x, _ in frame["runs"][0]["lines"]["held out"]] == list(range(1, 9))
    assert frame["end"] == "done"
    assert dashboard.pause().wait(20).stopped == ""         # there is nothing left to pause
    assert dashboard.explorer.live.frame()["end"] == "done"


def test_after_a_stop_it_begins_again(gate):
    fed = experiment(stages=[Gate()])
    dashboard = Dashboard(fed, 5).start()
    for _ in range(2):
        gate.release()
    until(lambda: len(THREADS) == 3)
    dashboard.stop()
    gate.release()
    stopped = dashboard.wait(20)
    assert stopped.stopped == "stopped by hand after round 3"
    assert dashboard.explorer.live.status == "stopped"
    for _ in range(50):
        gate.release()
    again = dashboard.start().wait(20)
    assert again is not stopped
    assert (len(stopped), len(again), again.stopped) == (3, 5, "")
    assert again.records[:3] == stopped.records


def test_a_history_is_saved_and_another_dashboard_goes_on_from_it(tmp_path):
    fed = experiment(schedule=Buffered(4, 2), optimizer=FedAvgM())
    whole = fed.train(7)
    first = Dashboard(fed, 3).start().wait(20)
    save(tmp_path / "run.ckpt", first, fed)
    for state in (first, first.state, load(tmp_path / "run.ckpt", fed)):
        rest = Dashboard(fed, 4, state).start().wait(20)
        assert rest.records == whole.records[3:]
        assert rest.megabytes == whole.megabytes
    dashboard = Dashboard(fed, 4, first)
    assert dashboard.watch.charts()[0].x_range == (3, 7)
    assert "round 4 of 4" in repr((dashboard.start().wait(20), dashboard)[1])


def test_a_budget_ends_it_and_says_so():
    fed = experiment(weights=Uniform(), stages=[CentralDP(0.3, 2.0, noise_seed=1, budget=12.0)])
    dashboard = Dashboard(fed, 200)
    history = dashboard.start().wait(20)
    assert history.stopped == fed.train(200).stopped != ""
    frame = dashboard.explorer.live.frame()
    assert frame["end"] == "ended early"
    assert history.stopped in frame["text"]
    assert any("budget" in text and name == "lesson 03" for text, name, _ in frame["notes"])
    assert {y for _, y in frame["runs"][0]["lines"]["budget"]} == {12.0}


def test_what_fails_is_shown_raised_and_can_be_gone_on_from():
    class Breaks(Stage):
        left = 2

        def begin(self, ctx):
            if ctx.server.version == 2 and Breaks.left:
                Breaks.left -= 1
                raise RuntimeError("the disk is full")

    fed = experiment(stages=[Breaks()])
    dashboard = Dashboard(fed, 4).start()
    with pytest.raises(RuntimeError, match="the disk is full"):
        dashboard.wait(20)
    assert len(dashboard.history) == 2
    Breaks.left = 0
    assert len(dashboard.start().wait(20)) == 4
    assert dashboard.history.records == experiment().train(4).records


def test_bad_arguments_are_refused():
    with pytest.raises(TypeError, match="watches a federation"):
        Dashboard(digits(), 3)
    for rounds in (0, -1, 2.0, True):
        with pytest.raises(ValueError, match="rounds must be"):
            Dashboard(experiment(), rounds)
    assert Dashboard(experiment(), np.int64(3)).rounds == 3


# --- what a notebook stores ------------------------------------------------------------------------------------------


def test_a_notebook_stores_the_picture_of_the_whole_run(tmp_path):
    """Shown before it runs, and stored as it was at its end; twice the same bytes."""
    code = """\
from fl_course import *
from fl_course.workbook.widgets.dashboard import Dashboard
fed = Coordinator(digits().partition(Shards(1), 10), logistic(64, 10), LocalSGD(0.1, 5), Synchronous(0.5))
dashboard = Dashboard(fed, 4).start()
dashboard"""
    cells = [nbformat.v4.new_code_cell(text) for text in (code, "print(len(dashboard.wait(60)))", "dashboard")]
    book = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}})
    nbclient.NotebookClient(book, timeout=120, kernel_name="python3", store_widget_state=False).execute()
    assert book.cells[1].outputs[0].text == "4\n"
    (first, _, view), (last, _, _) = ([out.data for out in book.cells[i].outputs] for i in (0, 2))
    assert first["image/png"] == last["image/png"]
    assert base64.b64decode(first["image/png"]).startswith(b"\x89PNG")
    assert first["text/plain"] == last["text/plain"]
    assert first["text/plain"].startswith("A federation at work: round 4 of 4, 4.0 simulated s, accuracy 0.")
    assert "(lesson 08)" in first["text/plain"] or "(lesson 02)" in first["text/plain"]
    assert "application/vnd.jupyter.widget-view+json" in view

