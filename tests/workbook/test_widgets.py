"""The widget around the runner: what it stores in a notebook, what it hears, how it dies, what it raises in batch."""

from __future__ import annotations

import base64
import gc
import json
import logging
import re
import signal
import weakref
from pathlib import Path
from types import SimpleNamespace

import matplotlib.pyplot as plt
import nbclient
import nbformat
import numpy as np
import pytest
from ipywidgets.widgets.widget import _instances
from matplotlib.figure import Figure

from fl_course.workbook.widgets import (
    BarChart,
    Button,
    Chart,
    Choice,
    Explorer,
    ImageChart,
    LogSlider,
    PlaneChart,
    Point,
    Slider,
    TimelineChart,
    cells,
)
from fl_course.workbook.widgets import (
    explorer as widgets,
)
from fl_course.workbook.widgets.cells import VIEW
from fl_course.workbook.widgets.charts import MOST_LINES, specification
from fl_course.workbook.widgets.explorer import growth
from fl_course.workbook.widgets.live import MAX_PINS
from fl_course.workbook.widgets.plots import (
    COLOURS,
    PALETTE,
    colour,
    draw_bars,
    draw_chart,
    draw_lines,
    draw_shares,
    explorer_png,
    line_style,
)
from fl_course.workbook.widgets.points import Run

HERE = Path(widgets.__file__).parent
CONTROLS = [Slider("rate", 1, 9, label="step size", unit="/s"), LogSlider("alpha", 0.1, 10, 5), Button("again")]
CHARTS = [Chart("loss", x="round", y="loss", y_unit="nats"), BarChart("shares", y="share")]


def experiment(rate, alpha, again):
    for number in range(1, 21):
        yield Point({"loss": (number, rate / number + alpha)}, {"shares": [("a", rate), ("b", 1.0)]})


def build(run=experiment, **more) -> Explorer:
    return Explorer(run, CONTROLS, CHARTS, title="A test", **more)


# -- what a notebook stores ------------------------------------------------------------------------------------------


def test_stored_outputs_are_the_same_for_the_same_experiment_and_small():
    (first, metadata), (second, _) = build()._repr_mimebundle_(), build()._repr_mimebundle_()
    assert first.keys() == {"text/plain", "image/png", VIEW}
    assert first["image/png"] == second["image/png"]
    assert first["text/plain"] == second["text/plain"] == (
        "A test. At step size = 1 /s, alpha = 0.1: loss (loss against round); shares (share); 20 points.")
    assert metadata["image/png"]["alt"] == first["text/plain"]
    assert len(json.dumps(first)) < 100_000
    png = base64.b64decode(first["image/png"])
    assert png.startswith(b"\x89PNG")
    assert b"tIME" not in png
    assert b"matplotlib" not in png.lower()


def test_the_picture_shows_the_run_that_is_on_show():
    explorer = build()
    before = explorer._repr_mimebundle_()[0]["image/png"]
    explorer.live.move({"rate": 8})
    explorer.result(5)
    assert explorer._repr_mimebundle_()[0]["image/png"] != before


def test_state_is_strict_json_and_small():
    explorer = build()
    for _ in range(6):
        explorer.live.pin()
    state = explorer.get_state()
    assert len(json.dumps({name: state[name] for name in ("spec", "frame", "_esm", "_css")}, allow_nan=False)) < 60_000
    assert repr(explorer) == explorer._repr_mimebundle_()[0]["text/plain"]


def test_the_page_asks_nobody_for_anything():
    module = Explorer._esm
    assert set(re.findall(r"https?://[^\s\"']+", module)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"\b(import|fetch|XMLHttpRequest|eval|innerHTML)\b", module)
    assert "url(" not in (HERE / "explorer.css").read_text(encoding="utf-8")


# -- what it hears ---------------------------------------------------------------------------------------------------


def test_messages_of_the_page_move_pin_reset_and_stop():
    explorer = build()
    explorer._heard(explorer, {"do": "move", "at": {"rate": 4}, "press": "", "move": "p:1"}, [])
    assert explorer.result(5).values == {"rate": 5, "alpha": 0.1, "again": False}
    assert explorer.frame["move"] == "p:1"
    explorer._heard(explorer, {"do": "pin", "move": "p:2"}, [])
    assert [run["label"] for run in explorer.frame["runs"]] == ["now", "pin 1"]
    explorer._heard(explorer, {"do": "move", "at": {}, "press": "again", "move": "p:3"}, [])
    assert explorer.result(5).values["again"] is True
    explorer._heard(explorer, {"do": "reset", "move": "p:4"}, [])
    assert explorer.result(5).values["rate"] == 1
    assert len(explorer.frame["runs"]) == 1
    explorer._heard(explorer, {"do": "stop", "move": "p:5"}, [])
    assert explorer.frame["move"] == "p:5"


@pytest.mark.parametrize("message", [
    {}, {"do": "close"}, {"do": "move"}, {"do": "move", "at": {"rate": 99}, "press": "", "move": ""},
    {"do": "move", "at": [0], "press": "", "move": ""}, {"do": "move", "at": {"rate": None}, "press": "", "move": ""},
    {"do": "_train", "move": ""},
])
def test_messages_that_mean_nothing_are_said_in_red_and_change_nothing(message, caplog):
    explorer = build()
    before = explorer.live.values()
    with caplog.at_level(logging.CRITICAL):
        explorer._heard(explorer, message, [])
    assert explorer.frame["status"] == "error"
    assert explorer.frame["error"].startswith("ValueError")
    assert explorer.live.values() == before


# -- errors, re-runs, interrupts -------------------------------------------------------------------------------------


def test_an_error_in_the_default_run_is_the_cells_error():
    def run(rate, alpha, again):
        yield {"loss": (0, 1)}
        raise ZeroDivisionError("by design")

    with pytest.raises(ZeroDivisionError, match="by design"):
        build(run)
    assert build(run, eager=False).error is None


def run_book(*cells: str) -> nbformat.NotebookNode:
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nbclient.NotebookClient(book, timeout=60, kernel_name="python3", store_widget_state=False).execute()
    return book


SETUP = """\
from fl_course.workbook.widgets import Chart, Explorer, Slider
def run(rate):
    for number in range(5):
        if rate == 3:
            raise ArithmeticError("the rate is three")
        yield {"loss": (number, rate)}"""


def test_in_batch_the_default_runs_once_and_leaves_picture_mark_and_view():
    show = 'Explorer(run, [Slider("rate", 1, 9)], [Chart("loss", x="round", y="loss")], title="T")'
    book = run_book(SETUP, show)
    picture, mark, view = book.cells[1].outputs
    assert picture.data["text/plain"] == "T. At rate = 1: loss (loss against round); 5 points."
    assert picture.metadata["image/png"]["alt"] == picture.data["text/plain"]
    assert set(mark.data) == {"text/html"}
    assert set(view.data) == {VIEW, "text/plain"}
    assert view.data["text/plain"] == ""


def test_in_batch_an_error_in_training_fails_the_cell():
    show = 'Explorer(run, [Slider("rate", 1, 9, value=3)], [Chart("loss", x="round", y="loss")])'
    with pytest.raises(nbclient.exceptions.CellExecutionError, match="the rate is three"):
        run_book(SETUP, show)


class Shell:
    """As much of an IPython kernel's shell as the widget looks at."""

    def __init__(self) -> None:
        self.cell, self.execution, self.hooks, self.later = "a", 0, [], []
        self.user_ns, self.displayhook = {"_oh": {}}, SimpleNamespace(_="", __="", ___="")
        self.events = SimpleNamespace(register=lambda name, hook: self.hooks.append(hook))
        loop = SimpleNamespace(call_later=lambda seconds, call: self.later.append(call))
        self.kernel = SimpleNamespace(io_loop=loop)

    def get_parent(self):
        metadata = {"cellId": self.cell} if self.cell else {}
        return {"metadata": metadata, "header": {"msg_id": self.execution}, "content": {"code": "the same"}}

    def result(self, number: int, value) -> None:
        """What IPython keeps of the last expression of a cell."""
        self.user_ns |= {"_": value, f"_{number}": value}
        self.user_ns["_oh"][number] = self.displayhook._ = value


@pytest.fixture
def shell(monkeypatch):
    fake = Shell()
    monkeypatch.setattr(cells, "get_ipython", lambda: fake)
    monkeypatch.setattr(cells, "_cells", {})
    return fake


def test_running_a_cell_again_closes_its_explorers_and_no_others(shell):
    first, second = build(), build()                        # two in one cell live together
    shell.cell = "b"
    other = build()
    assert first.comm is not None
    shell.cell, shell.execution = "a", 1
    third = build()
    assert first.comm is None
    assert second.comm is None
    assert other.comm is not None
    assert third.comm is not None
    with pytest.raises(RuntimeError, match="run its cell again"):
        first.live.move({})
    shell.execution = 2
    with pytest.raises(ValueError, match="at least one Chart"):
        Explorer(experiment, CONTROLS, [])
    assert third.comm is None                               # also when the cell fails this time


def test_a_cell_that_is_run_again_leaves_nothing_behind(shell):
    """No comm, no object in Out: a slider that is moved for an hour must not fill the kernel."""
    before = set(_instances)
    for execution in range(3):
        shell.execution = execution
        explorer = build()
        reference = weakref.ref(explorer)
        shell.result(execution + 1, explorer)
        if execution < 2:
            del explorer
            shell.execution = execution + 0.5
            last = build()                                  # the same cell again
            gc.collect()
            assert reference() is None
            assert not shell.user_ns["_oh"]
            assert shell.user_ns["_"] == shell.displayhook._ == ""
            cells.close(last)
    cells.close(explorer)
    assert set(_instances) == before


def test_two_cells_with_the_same_text_live_where_the_host_names_no_cell(shell):
    shell.cell = None
    first = build()
    shell.execution = 1
    second = build()
    assert first.comm is not None
    assert second.comm is not None


def test_an_interrupt_stops_training_in_a_cell_and_between_cells(shell):
    explorer = build()
    explorer.live.run = lambda rate, alpha, again: iter(lambda: Point({"loss": (0, 1)}), None)      # never ends
    assert len(shell.hooks) == 1
    explorer.live.move({})
    shell.hooks[0](SimpleNamespace(error_in_exec=None))
    assert explorer.live.status == "running"
    shell.hooks[0](SimpleNamespace(error_in_exec=KeyboardInterrupt()))
    assert explorer.live.wait(5)
    assert explorer.live.status == "stopped"

    before = signal.signal(signal.SIGINT, signal.SIG_IGN)   # as ipykernel between cells
    try:
        shell.later[0]()
        explorer.live.move({})
        signal.raise_signal(signal.SIGINT)
        assert explorer.live.wait(5)
        assert explorer.live.status == "stopped"
    finally:
        signal.signal(signal.SIGINT, before)


def test_while_a_cell_runs_its_own_handler_is_left_alone(shell):
    build()
    shell.hooks[0](SimpleNamespace(error_in_exec=None))
    before = signal.getsignal(signal.SIGINT)
    shell.later[0]()
    assert signal.getsignal(signal.SIGINT) is before


# -- pictures --------------------------------------------------------------------------------------------------------


def axis_of(draw, *args, **more):
    ax = Figure().add_subplot()
    draw(ax, *args, **more)
    return ax


def test_lines_have_labels_units_gaps_and_differ_in_colour_and_dashes():
    lines = {"a": [(1, 2), (2, None), (3, 4)], "b": [(1, 1)]}
    ax = axis_of(draw_lines, lines, "round", "loss (nats)", y_range=(0, None))
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_ylim()[0]) == ("round", "loss (nats)", 0)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["a", "b"]
    assert np.isnan(ax.lines[0].get_ydata()[1])
    assert len({str(line_style(n)["linestyle"]) for n in range(5)}) == 5


def luminance(colour: str) -> float:
    """Of sRGB, as WCAG 2.1 defines it."""
    light = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    return float(np.dot([c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in light], [0.2126, 0.7152, 0.0722]))


def contrast(a: str, b: str) -> float:
    low, high = sorted(map(luminance, (a, b)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("page", ["#ffffff", "#212121", "#161616", "#111111"])
def test_every_colour_can_be_seen_on_a_white_and_on_a_dark_page(page):
    assert min(contrast(colour(n), page) for n in range(COLOURS)) >= 3
    assert contrast("#000000", "#ffffff") == pytest.approx(21)


def test_no_two_series_of_one_chart_share_a_colour():
    most = MOST_LINES * (MAX_PINS + 1)
    assert len({colour(n) for n in range(most)}) == most == len(build().spec["palette"])
    assert [colour(n) for n in range(len(PALETTE))] == list(PALETTE)
    names = tuple("abcdefghijkl")
    runs = [{"label": f"run {r}", "lines": {name: [(0, r), (1, 2)] for name in names}, "bars": {}, "images": {}, "marks": {},
             "outlines": {}} for r in range(MAX_PINS + 1)]
    ax = axis_of(draw_chart, Chart("c", "x", "y", lines=names), runs)
    assert len({line.get_color() for line in ax.lines}) == len(ax.lines) == most
    plane = PlaneChart("p", "u", "v", lines=names[:6], marks=names[6:])
    marks = dict.fromkeys(names[6:], (0, 0))
    ax = axis_of(draw_chart, plane, [{**run, "marks": marks} for run in runs])
    assert len({line.get_color() for line in ax.lines}) == len(ax.lines) == 6 * len(runs) + 6
    ax = axis_of(draw_shares, np.ones((2, 10)))
    assert len({bars[0].get_facecolor() for bars in ax.containers}) == 10


def test_a_plane_draws_marks_as_symbols_lines_as_lines_and_says_so_in_its_legend():
    plane = PlaneChart("p", "u", "v", lines=("path",), marks=("optimum",), letters=("A",), outlines=("valley",))
    run = {"label": "now", "lines": {"path": [(0, 0), (1, 1)]}, "bars": {}, "images": {},
           "marks": {"optimum": (0.5, 0), "A": (0, 1)},
           "outlines": {"valley": [[(0, 0), (1, 0), (0, 0)], [(0, 0), (2, 0), (0, 0)]]}}
    ax = axis_of(draw_chart, plane, [run])
    legend = {text.get_text(): line for text, line in zip(ax.get_legend().get_texts(), ax.get_legend().get_lines(), strict=True)}
    assert set(legend) == {"valley", "path", "optimum"}
    assert (legend["optimum"].get_linestyle(), legend["path"].get_linestyle()) == ("None", "-")
    assert legend["optimum"].get_marker() != legend["path"].get_marker()
    assert [text.get_text() for text in ax.texts] == ["A"]
    assert ax.get_aspect() == 1


def test_a_picture_is_drawn_as_grey_tiles():
    image = np.arange(6).reshape(2, 3) / 5
    run = {"label": "now", "lines": {}, "bars": {}, "marks": {}, "outlines": {},
           "images": {"one": image.tolist(), "two": [[None]]}}
    ax = axis_of(draw_chart, ImageChart("pictures", ("one", "two", "three")), [run])
    first, second = ax.child_axes
    assert np.allclose(first.images[0].get_array(), image)
    assert first.images[0].get_clim() == (0, 1)
    assert (first.get_title(), second.get_title()) == ("one", "two")


def test_a_timeline_draws_a_bar_a_phase_and_a_cross_for_what_was_lost():
    chart = TimelineChart("jobs", ("fast", "slow"))
    run = Run({})
    jobs = [("fast", (0, 1, 3, 4), "used", ["a"]), ("slow", (0, 2, 9, 9), "failed", ["b"]), ("", (4,), "", ["c"])]
    run.add(Point(jobs={"jobs": jobs}))
    assert not run.empty
    run.add(Point(text="and what replaces nothing stays"))
    ax = axis_of(draw_chart, chart, [{"label": "now", **run.picture()}])
    filled = [(bar.get_x(), bar.get_width(), bar.get_y() + bar.get_height() / 2) for bars in ax.containers for bar in bars
              if bar.get_facecolor()[3]]
    assert np.allclose(filled, [(0, 1, 0), (1, 2, 0), (3, 1, 0)])
    assert [line.get_xydata().tolist() for line in ax.lines] == [[[9, 1]]]
    assert [text.get_text() for text in ax.get_yticklabels()] == ["fast", "slow"]
    assert {text.get_text() for text in ax.get_legend().get_texts()} == {"download", "training", "upload", "not used",
                                                                        "step of the server"}
    axis_of(draw_chart, chart, [{"label": "now", **Run({}).picture()}])                  # before the first job


# -- only what is new is sent ----------------------------------------------------------------------------------------


def apply(old, news):
    """What the page does with news (explorer.js: grown), once more."""
    if news["after"] != old["number"]:
        return None
    first = {**old["runs"][0], **news["rest"]}
    first["lines"] = {name: line for name, line in first["lines"].items() if name not in news["gone"]}
    for name, (stay, points) in news["lines"].items():
        first["lines"][name] = [*first["lines"].get(name, [])[:stay], *points]
    runs = [{**run, "label": label} for run, label in zip([first, *old["runs"][1:]], news["labels"], strict=True)]
    return {**{key: news[key] for key in old if key != "runs"}, "runs": runs}


@pytest.mark.parametrize("seed", range(4))
def test_news_make_the_new_frame_of_the_old_one_and_are_short(seed):
    """Random experiments of random lengths, moved and pinned at random: a page that gets only messages sees the same."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 1500, 9)

    def run(rate, alpha, again):
        for number in range(lengths[rate - 1]):
            line = {"loss": (number, rate + number % 7)} if number % (rate + 1) == 0 else {}
            yield Point(line, {"shares": [("a", number)]} if number % 50 == 0 else {}, f"point {number}")

    explorer = build(run, eager=False)
    explorer.live.every = 0.0
    sent, page, missed = [], [explorer.frame], []
    explorer.send = sent.append

    def publish(frame):
        explorer._publish(frame)
        if sent:
            missed.append(len(json.dumps(sent[-1])) / len(json.dumps(explorer._last)))
            page[0] = apply(page[0], sent.pop())
        else:
            page[0] = explorer.frame
        assert json.loads(json.dumps(page[0])) == json.loads(json.dumps(explorer._last))

    explorer.live.publish = publish
    for _ in range(6):
        explorer.live.move({"rate": int(rng.integers(9))})
        explorer.live.wait(float(rng.choice([0.001, 0.02])))
        explorer.live.pin()
    assert explorer.live.wait(20)
    assert page[0]["status"] == "done"
    assert page[0] == explorer.frame                        # at the end everybody has been told everything
    assert missed
    explorer.close()


def test_news_are_refused_for_another_frame_and_where_a_run_begins_or_ends():
    frame = {**build().live.frame(), "number": 1}
    running = {**frame, "status": "running"}
    assert growth(frame, running) is None
    assert growth(running, {**frame, "number": 2}) is None
    assert growth(running, {**running, "runs": [*running["runs"], running["runs"][0]]}) is None
    news = growth(running, {**running, "number": 2})
    assert news["lines"] == news["rest"] == {}
    assert len(json.dumps(news)) < 1000


def test_bars_stand_side_by_side_at_their_label():
    ax = axis_of(draw_bars, {"now": [("a", 1.0), ("b", 3.0)], "pin 1": [("b", 2.0)]}, "class", "share")
    places = [(round(bar.get_x() + bar.get_width() / 2, 2), bar.get_height()) for bars in ax.containers for bar in bars]
    assert places == [(-0.2, 1.0), (0.8, 3.0), (1.2, 2.0)]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["a", "b"]


def test_bars_of_several_series_are_named_and_keep_their_own_colour_beside_a_pinned_run():
    chart = BarChart("shares", y="share", series=("own", "alone"))
    nothing = {"lines": {}, "images": {}, "marks": {}, "outlines": {}, "points": {}}
    bars = {"own": [("a", 1.0)], "alone": [("a", 2.0)]}
    runs = [{"label": label, "bars": bars, **nothing} for label in ("now", "pin 1: C = 3")]
    ax = axis_of(draw_chart, chart, runs)
    said = ax.get_legend_handles_labels()[1]
    assert said == ["own, now", "alone, now", "own, pin 1", "alone, pin 1"]
    assert len({bars[0].get_facecolor() for bars in ax.containers}) == 4
    assert specification("", [], [chart])["charts"][0]["bars"] == ["own", "alone"]
    assert specification("", [], [BarChart("shares", y="share")])["charts"][0]["bars"] == ["shares"]


def test_shares_add_up_to_each_clients_examples():
    counts = np.array([[3, 0, 2], [1, 1, 5]])
    ax = axis_of(draw_shares, counts, names=["x", "y", "z"])
    ends = [max(bar.get_x() + bar.get_width() for bar in list(bars)) for bars in zip(*ax.containers, strict=True)]
    assert ends == [5, 7]


def test_drawing_leaves_no_figure_and_no_setting_behind():
    settings, figures = dict(plt.rcParams), plt.get_fignums()
    nothing = {"images": {}, "marks": {}, "outlines": {}}
    runs = [{"label": "now", "lines": {"loss": [(1, 1), (2, None)]}, "bars": {}, **nothing},
            {"label": "pin 1", "lines": {}, "bars": {"shares": [("a", None)]}, **nothing}]
    assert explorer_png("caption", CHARTS, runs) == explorer_png("caption", CHARTS, runs)
    assert plt.get_fignums() == figures
    assert dict(plt.rcParams) == settings


def test_only_a_mark_of_the_chart_is_dragged_and_only_by_two_sliders():
    def here(x, y, rule):
        yield Point(marks={"thief": (x, y)})

    sliders = [Slider("x", -1, 1), Slider("y", -1, 1), Choice("rule", ["mean", "median"])]

    def plane(*drag):
        return Explorer(here, sliders, [PlaneChart("plane", "u", "v", marks=("thief",), drag=drag)])

    assert plane("thief", "x", "y").spec["charts"][0]["drag"] == {
        "mark": "thief", "x": {"control": "x", "values": [-1, 0, 1]}, "y": {"control": "y", "values": [-1, 0, 1]}}
    with pytest.raises(ValueError, match="has no mark 'sheriff' to drag; it has thief"):
        plane("sheriff", "x", "y")
    with pytest.raises(ValueError, match="'rule' is none; there are x, y"):
        plane("thief", "x", "rule")
