"""The timeline: what is drawn is what the records say."""

import math
from itertools import pairwise

import matplotlib
import pytest
from small import InOrder, Timed, experiment, federation

from fl_course import Buffered, History, LogNormal, SemiSynchronous, Synchronous, rehearse
from fl_course.core import FATES, Span
from fl_course.federation.timeline import AT_WORK, MARKS, PARTS, by_speed, pieces

matplotlib.use("agg")
import matplotlib.pyplot as plt
from matplotlib.collections import PolyCollection

IT = experiment(
    federation((4, 4, 4, 4, 4), ids=["a", 1, "b", 2, 30]), schedule=Buffered(4, 2, max_staleness=1), selection=InOrder(),
    fleet=LogNormal(speed_spread=1.5, drop=0.2, up_mbit=0.02, down_mbit=0.05),
)  # fmt: skip


@pytest.fixture(autouse=True)
def _closed():
    yield
    plt.close("all")


def bars(ax):
    """(row, from, to) of every bar."""
    boxes = [path.get_extents() for kind in ax.collections if isinstance(kind, PolyCollection) for path in kind.get_paths()]
    return sorted((round((box.y0 + box.y1) / 2), round(box.x0, 9), round(box.x1, 9)) for box in boxes)


def rows(ax):
    return [label.get_text() for label in ax.get_yticklabels()]


def test_every_bar_is_a_piece_of_a_job_and_the_rows_are_the_clients():
    history = IT.train(9)
    ax = history.timeline()
    whom = by_speed(history.spans())
    assert rows(ax) == ["server", *map(str, whom)]
    told = sorted((whom.index(s.client) + 1, round(a, 9), round(b, 9)) for s in history.spans() for _, a, b in pieces(s))
    assert bars(ax) == told
    assert ax.get_xlabel() == "simulated seconds"


def test_a_piece_lies_before_the_end_of_its_job():
    job = Span("a", 0, 1.0, 2.0, 5.0, 6.0)
    assert pieces(job) == [("download", 1.0, 2.0), ("training", 2.0, 5.0), ("upload", 5.0, 6.0)]
    assert pieces(Span("a", 0, 1.0, 2.0, 5.0, 3.5, 0, "too late")) == [("download", 1.0, 2.0), ("training", 2.0, 3.5)]
    assert pieces(Span("a", 0, 1.0, 2.0, 5.0, 1.5, 0, "too late")) == [("download", 1.0, 1.5)]
    assert pieces(Span("a", 0, 1.0, 1.0, 1.0, 1.0)) == []
    for fate in ("dropped out", "failed"):
        assert [part for part, *_ in pieces(Span("a", 0, 1.0, 2.0, 5.0, 6.0, 0, fate))] == list(PARTS[:2])


@pytest.mark.parametrize("schedule", [Buffered(4, 2), SemiSynchronous(0.6, deadline=0.3), Synchronous(0.6)], ids=repr)
def test_the_jobs_of_a_run_are_all_there_each_once(schedule):
    it = experiment(schedule=schedule, fleet=LogNormal(speed_spread=1.0))
    history = it.train(7)
    spans = history.spans()
    assert len({(span.client, span.version, span.begun) for span in spans}) == len(spans) == history.state.ticket
    working = [span for span in spans if span.fate == AT_WORK]
    assert [(span.client, span.version) for span in working] == [(job.client, job.base.version) for job in history.state.jobs]
    for span in spans:
        assert span.begun <= span.downloaded <= span.trained or span.fate == AT_WORK
        assert span.begun <= span.ended <= history.state.clock
    for client in it.clients:                                              # a client has one job at a time
        mine = sorted((span.begun, span.ended) for span in spans if span.client == client)
        assert all(ended <= begun for (_, ended), (begun, _) in pairwise(mine))


def test_every_fate_has_its_mark_and_its_word_in_the_legend():
    assert set(MARKS) == {*FATES, AT_WORK} - {"used"}
    history = IT.train(30)
    ax = history.timeline()
    words = {text.get_text() for text in ax.get_legend().get_texts()}
    fates = {span.fate for span in history.spans()} - {"used"}
    assert {"dropped out", "too stale", AT_WORK} <= fates <= words
    assert {"download", "training", "upload", "training, for nothing", "server's step"} <= words


def test_a_window_and_some_of_the_clients():
    history = IT.train(12)
    begin, end = history.records[2].clock, history.records[6].clock
    ax = history.timeline(start=begin, end=end, clients=[30, "a", 30])
    assert ax.get_xlim() == (begin, end)
    assert rows(ax) == ["server", "30", "a"]
    shown = [s for s in history.spans() if s.client in (30, "a") and s.ended >= begin and s.begun <= end]
    assert len(bars(ax)) == sum(len(pieces(span)) for span in shown)


def test_arrows_lead_from_an_answer_to_the_step_that_used_it():
    history = IT.train(5)
    arrows = [child for child in history.timeline(arrows=True).texts if getattr(child, "arrow_patch", None) is not None]
    used = {(record.clock, span.ended) for record in history.records for span in record.spans if span.fate == "used"}
    assert {(arrow.xy[0], arrow.xyann[0]) for arrow in arrows} == used
    assert not [child for child in history.timeline(arrows=False).texts if getattr(child, "arrow_patch", None) is not None]


def test_a_history_from_json_draws_what_it_has():
    history = IT.train(8)
    again = History.from_json(history.to_json())
    assert again.spans() == [span for span in history.spans() if span.fate != AT_WORK]
    again.timeline()


def test_a_resumed_run_begins_where_it_began():
    first = IT.train(4)
    rest = IT.train(4, first)
    assert rest.timeline().get_xlim()[0] == min(span.begun for span in rest.spans())


def test_of_very_many_clients_some_of_all_speeds_are_drawn():
    it = experiment(federation((1,) * 90, tests=0), fleet=LogNormal(speed_spread=1.0), schedule=Buffered(30, 5))
    history = rehearse(it, 60)
    order, shown = by_speed(history.spans()), rows(history.timeline())[1:]
    assert len(order) > 60
    assert (len(shown), len(set(shown))) == (40, 40)
    assert (shown[0], shown[-1]) == (str(order[0]), str(order[-1]))
    assert len(rows(history.timeline(clients=order))) == len(order) + 1


def test_it_draws_where_it_is_told():
    ax = plt.subplots()[1]
    assert IT.train(2).timeline(ax) is ax


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: History().timeline(), "from an earlier to a later second"),
        (lambda: IT.train(2).timeline(start=5, end=1), "from an earlier to a later second"),
        (lambda: IT.train(2).timeline(end=math.inf), "from an earlier to a later second"),
        (lambda: IT.train(2).timeline(start=math.nan), "from an earlier to a later second"),
        (lambda: IT.train(2).timeline(clients=["nobody"]), "never asked have no timeline"),
        (lambda: experiment(fleet=Timed(dict.fromkeys(range(6), 0.0))).train(2).timeline(), "from an earlier to a later second"),
    ],
)
def test_what_cannot_be_drawn_is_refused(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()
