"""Records as a table, a figure, a file, and a bar while they come."""

import json
import math
from html.parser import HTMLParser

import matplotlib
import numpy as np
import pandas as pd
import pytest
from small import experiment, federation

from fl_course import BudgetSpent, Clip, Equal, Evaluation, History, LocalSGD, LogNormal, Stage, Synchronous, Uniform
from fl_course.core import Record
from fl_course.federation.history import MB, describe

matplotlib.use("Agg")
import matplotlib.pyplot as plt


@pytest.fixture(scope="module")
def history() -> History:
    """String names, drop-outs, an empty round, accuracy only every other round, evaluation bytes."""
    data = federation(ids=["a", "b & c", 'd"', "<e>", "f,g", "é"])
    it = experiment(data, fleet=LogNormal(drop=0.4), evaluation=Evaluation(2, federated=True), schedule=Synchronous(0.3))
    return it.train(7)


def record(version: int, **metrics: float) -> Record:
    return Record(version, 1.5 * version, ("a",), (0,), (100,), {"update": 100}, {"model": 300_000}, metrics=metrics)


def test_the_example_has_what_the_tests_below_need(history):
    assert any(not r.clients for r in history.records)
    assert any("accuracy" not in r.metrics for r in history.records)
    assert any(r.events for r in history.records)


# --- numbers -------------------------------------------------------------------------------------------------------


def test_series_last_and_rounds_to():
    short = History([record(1, accuracy=0.2), record(2), record(3, accuracy=0.6), record(4, accuracy=0.5)])
    np.testing.assert_equal(short.series("accuracy"), [0.2, math.nan, 0.6, 0.5])
    assert short.last("accuracy") == 0.5
    assert math.isnan(short.last("speed"))
    assert (short.rounds_to(0.1), short.rounds_to(0.5), short.rounds_to(0.6), short.rounds_to(0.61)) == (1, 3, 3, None)
    assert short.megabytes == pytest.approx(4 * 300_100 / MB)
    assert len(short) == 4


def test_records_hold_no_nan(history):
    assert all(value == value for r in history.records for value in r.metrics.values())


# --- tables and files ----------------------------------------------------------------------------------------------


def test_a_row_a_record(history):
    table = history.to_pandas()
    assert list(table.index) == [1, 2, 3, 4, 5, 6, 7]
    assert table.index.name == "version"
    for row, r in zip(table.itertuples(), history.records, strict=True):
        assert (row.clock, row.clients, row.events) == (r.clock, len(r.clients), len(r.events))
        assert row.up_update == r.bytes_up.get("update", 0)
        assert row.down_model == r.bytes_down.get("model", 0)
        assert row.up_evaluation == r.bytes_up.get("evaluation", 0)
    np.testing.assert_equal(table["accuracy"].to_numpy(), history.series("accuracy"))
    assert table["accuracy"].isna().tolist() == [True, False] * 3 + [True]


def test_csv_there_and_back(history, tmp_path):
    history.to_csv(tmp_path / "run.csv")
    pd.testing.assert_frame_equal(History.read_csv(tmp_path / "run.csv"), history.to_pandas(), check_exact=True)
    text = (tmp_path / "run.csv").read_bytes()
    assert text.startswith(b"version,clock,clients,")


def test_json_there_and_back(history, tmp_path):
    back = History.from_json(history.to_json(tmp_path / "run.json"))
    assert back.records == history.records
    assert (back.experiment, back.stopped) == (history.experiment, history.stopped)
    assert [type(v) for v in back.records[1].clients] == [str] * len(back.records[1].clients)
    for source in (tmp_path / "run.json", str(tmp_path / "run.json")):
        assert History.from_json(source).records == history.records
    pd.testing.assert_frame_equal(back.to_pandas(), history.to_pandas(), check_exact=True)


def test_whole_numbers_and_names_stay_apart_in_json():
    mixed = experiment(federation(ids=[0, "0", 7, "seven", 10**9, "é"]), schedule=Synchronous(1.0)).train(1)
    assert History.from_json(mixed.to_json()).records[0].clients == (0, 7, 10**9, "0", "seven", "é")


def test_json_is_strict_and_infinity_survives():
    odd = History([record(1, epsilon=math.inf, loss=math.nan, gain=-math.inf, small=np.float64(0.1))])
    text = odd.to_json()

    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    json.loads(text, parse_constant=refuse)
    assert History.from_json(text).records[0].metrics == {"epsilon": math.inf, "gain": -math.inf, "small": 0.1}


def test_an_empty_history_is_no_special_case(tmp_path):
    empty = History()
    empty.to_csv(tmp_path / "run.csv")
    assert len(empty.to_pandas()) == len(History.read_csv(tmp_path / "run.csv")) == 0
    assert History.from_json(empty.to_json()) == empty
    assert (repr(empty), empty._repr_html_()) == ("History(no rounds yet)", "<p>no rounds yet</p>")
    assert (empty.megabytes, empty.rounds_to(0.5)) == (0, None)


@pytest.mark.parametrize(
    "text", ["{", "{}", '{"records": [{}]}', '{"records": 3}', '{"records": [], "experiment": ""}', '{"records": [[1]]}']
)
def test_what_is_no_history_is_refused(text, tmp_path):
    with pytest.raises(ValueError, match="not a history that to_json wrote"):
        History.from_json(text)
    (tmp_path / "x.json").write_text("[]", "utf-8")
    with pytest.raises(ValueError, match="not a history"):
        History.from_json(tmp_path / "x.json")


# --- to look at ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("x", "label"), [("round", "round"), ("MB", "MB sent, both ways"), ("seconds", "simulated seconds")])
def test_the_figure_shows_the_measured_points(history, x, label):
    ax = history.plot(x=x, label="ours")
    (line,) = ax.get_lines()
    known = [r for r in history.records if "accuracy" in r.metrics]
    sent = np.cumsum([sum(r.bytes_up.values()) + sum(r.bytes_down.values()) for r in history.records]) / 1e6
    across = {"round": lambda r: r.version, "MB": lambda r: sent[r.version - 1], "seconds": lambda r: r.clock}[x]
    np.testing.assert_allclose(line.get_xdata(), [across(r) for r in known])
    np.testing.assert_allclose(line.get_ydata(), [r.metrics["accuracy"] for r in known])
    assert (ax.get_xlabel(), ax.get_ylabel(), line.get_label()) == (label, "accuracy (held-out)", "ours")
    assert history.plot("train_loss_last", ax=ax) is ax
    assert len(ax.get_lines()) == 2
    plt.close(ax.figure)


def test_only_known_axes(history):
    with pytest.raises(ValueError, match="x must be 'round', 'MB' or 'seconds', not 'time'"):
        history.plot(x="time")


class Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        self.seen: list[str] = []
        self.text = ""
        HTMLParser.__init__(self)
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)

    def handle_data(self, data):
        self.text += data


def test_the_html_shows_the_last_rounds_and_escapes_names(history):
    whole = Tags(history._repr_html_())
    assert set(whole.seen) == {"table", "caption", "thead", "tr", "th", "tbody", "td"}
    assert whole.seen.count("tr") == 1 + 7
    attack = ("client '<script>alert(1)</script>' dropped out",)
    bad = History([Record(1, 0.0, (), (), (), {}, {}, events=attack)], stopped="ε < 1 & done")
    tags = Tags(bad._repr_html_())
    assert "script" not in tags.seen
    assert "<script>alert(1)</script>" in tags.text
    assert "ε < 1 & done" in tags.text
    assert Tags(History([record(v) for v in range(1, 30)])._repr_html_()).seen.count("tr") == 1 + 8


def test_the_repr_is_one_line(history):
    assert repr(history).startswith("History(7 rounds, accuracy 0.")
    assert "\n" not in repr(history)


def test_the_bar_shows_rounds_accuracy_and_megabytes(capsys):
    it = experiment()
    history = it.train(3, progress=True)
    out = capsys.readouterr().out
    assert "3/3" in out
    assert f"accuracy={history.last('accuracy'):.3f}" in out
    assert f"MB={history.megabytes:.1f}" in out
    it.train(2)
    assert capsys.readouterr().out == ""


def test_a_spent_budget_ends_the_run_and_the_bar_with_its_reason(capsys):
    class Allowance(Stage):
        def begin(self, ctx):
            if ctx.server.version == 2:
                raise BudgetSpent("two rounds are all you have")

    it = experiment(stages=[Allowance()])
    history = it.train(9, progress=True)
    assert len(history) == 2
    assert history.stopped == "two rounds are all you have"
    assert "stopped: two rounds" in repr(history)
    assert history.state.server.version == 2
    assert "2/9" in capsys.readouterr().out
    assert History.from_json(history.to_json()).stopped == history.stopped
    again = it.train(9, state=history.state)                              # still spent, and nothing lost
    assert (len(again), again.stopped) == (0, history.stopped)


def test_a_description_holds_no_memory_addresses():
    def half_of_them(client, rng):
        return 1 + client % 2

    how = LocalSGD(epochs=half_of_them, batch_size=4)
    text = experiment(training=how).train(1).experiment
    assert "half_of_them" in text
    assert " at 0x" in repr(how)
    assert " at 0x" not in text
    assert describe(experiment(weights=Uniform(), stages=[Clip(1.0)], fleet=Equal())) == repr(
        experiment(weights=Uniform(), stages=[Clip(1.0)], fleet=Equal())
    )


def test_a_metric_that_nobody_measured_is_named_with_those_there_are():
    history = History([Record(1, 1.0, (0,), (0,), (9,), {"update": 9}, {"model": 9}, (), {"accuracy": 0.5, "loss": 1.0})])
    with pytest.raises(ValueError, match="'acc'; there are accuracy, loss"):
        history.series("acc")
    with pytest.raises(ValueError, match="'acc'"):
        history.plot("acc")
    assert math.isnan(history.last("acc"))
