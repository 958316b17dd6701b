"""The tour: its sliders over their whole grid, its bounds, its picture; what lesson 0 says is what its widget does."""

import itertools
import re
from itertools import islice
from pathlib import Path

import nbformat
import numpy as np
import pytest
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.text import Text

from fl_course.workbook.lesson import GREY, for_any_page
from fl_course.workbook.widgets import tour

ROOT = Path(__file__).parents[2]
LESSON = (ROOT / "source" / "lessons" / "00_tour.py").read_text("utf-8")
WORDS_A_MINUTE = 150                                     # of somebody who reads slowly; code and printed numbers count as words


def positions():
    explorer = tour.tour_explorer()
    controls = {control.name: control.values for control in explorer.live.controls}
    explorer.close()
    return controls


def first(count, **at):
    """The first points of the run at these positions, as {line: [y, …]}."""
    found = {}
    for point in islice(tour.tour(**at), count):
        for name, (_, y) in point.lines.items():
            found.setdefault(name, []).append(y)
    return found


def test_every_corner_and_every_position_of_each_slider_trains():
    """A round each; the run costs what its slider says and not more, and fewer numbers are fewer bytes."""
    at = positions()
    corners = set(itertools.product(*((values[0], values[-1]) for values in at.values())))
    middle = {name: values[len(values) // 2] for name, values in at.items()}
    along = {tuple({**middle, name: value}.values()) for name, values in at.items() for value in values}
    for epsilon, percent, fraction in sorted(corners | along):
        lines = first(1, epsilon=epsilon, percent=percent, fraction=fraction)
        assert 0 < lines["ε spent"][0] <= epsilon
        assert 0 <= lines[tour.TOGETHER][0] <= 1


@pytest.mark.parametrize("epsilon", [0.25, 4, 1024])
def test_the_whole_run_spends_what_was_asked_for(epsilon):
    *_, last = tour.tour(epsilon, 10, 0.05)
    assert 0.99 * epsilon <= last.lines["ε spent"][1] <= epsilon
    assert f"After round {tour.ROUNDS}" in last.text
    assert "15 people a round" in last.text


def test_each_slider_costs_what_the_lesson_says():
    """Fewer numbers: fewer bytes. Less noise, more people: more accuracy. All against the run at the start."""
    at = {"epsilon": 4, "percent": 10, "fraction": 0.2}
    *_, start = tour.tour(**at)
    (sent, accuracy), (_, alone), (_, pooled) = (start.lines[name] for name in ("accuracy by megabyte", tour.ALONE, tour.POOLED))
    assert alone + 0.3 < accuracy < pooled
    *_, whole = tour.tour(**{**at, "percent": 100})
    assert whole.lines["accuracy by megabyte"][0] > 5 * sent
    *_, few = tour.tour(**{**at, "fraction": 0.05})
    *_, noisy = tour.tour(**{**at, "epsilon": 0.25})
    assert max(few.lines[tour.TOGETHER][1], noisy.lines[tour.TOGETHER][1]) < accuracy - 0.03


def test_the_widget_is_the_federation_of_the_text():
    explorer = tour.tour_explorer()
    assert f"clients={tour.CLIENTS}" in LESSON
    assert f"rounds: int = {tour.ROUNDS} " in LESSON
    assert "logistic(64, 10)" in LESSON
    how = tour.TRAINING
    assert f"LocalSGD(lr={how.lr}, epochs={how.epochs}, batch_size={how.batch_size})" in LESSON
    assert f"noise_for_budget(4, 1e-3, rounds, {tour.FRACTION}, RDP())" in LESSON
    assert (tour.DELTA, tour.CLIP) == (1e-3, 0.5)
    assert f"CentralDP({tour.CLIP}, noise, 1e-3" in LESSON
    for part in (f"Synchronous({tour.FRACTION}),", "PoissonSelection(),", "Uniform(),"):
        assert f"\n    {part} " in LESSON
    assert "fleet=LogNormal(speed_spread=1.0)" in LESSON
    assert explorer.live.values() == {"epsilon": 4, "percent": 10, "fraction": tour.FRACTION}
    explorer.close()


def test_alone_is_an_average_over_clients_and_pooled_is_one_model():
    fed = tour.federation(tour.FRACTION)
    alone, pooled = tour.alone_and_pooled(fed, 2)
    own = tour.local_only(fed, 2)
    right = [np.mean(fed.model.predict(theta, fed.data.x_test).argmax(axis=1) == fed.data.y_test) for theta in own]
    assert alone == pytest.approx(np.mean(right))
    assert alone < pooled


def test_the_picture_has_a_circle_a_chapter_and_reads_on_any_page():
    figure = Figure(figsize=(9, 4.4))
    ax = figure.subplots()
    tour.draw_whole(ax, np.zeros((3, 2, 8, 8)))
    for_any_page(figure)
    texts = [text for text in ax.findobj(Text) if text.get_text()]
    assert sorted(int(text.get_text()) for text in texts if text.get_text().isdigit()) == list(range(1, 10))
    assert {to_rgba(text.get_color()) for text in texts} == {to_rgba(GREY)}
    assert tour.GREY == GREY
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in texts]
    lying = [(a.get_text(), b.get_text()) for (a, one), (b, two) in itertools.combinations(zip(texts, boxes, strict=True), 2)
             if one.overlaps(two)]  # fmt: skip
    assert lying == []


def to_read(path):
    """How many words of a notebook stand there unfolded: text without answers and references, code, what it prints."""
    count = 0
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "markdown":
            text = re.sub(r"<details>.*?</details>|<[^>]+>|\]\([^)]*\)|\*\*References\*\*.*", " ", cell.source, flags=re.S)
            count += len(re.findall(r"\w+(?:['’.]\w+)*", text))
        elif not {"proof", "parameters"} & set(cell.metadata.get("tags", ())):
            printed = [output.text for output in cell.outputs if output.output_type == "stream"]
            count += sum(len(text.split()) for text in (cell.source, *printed))
    return count


def test_the_tour_takes_the_minutes_that_are_said_everywhere():
    minutes = int(re.search(r"^# About (\d+) minutes", LESSON, re.M)[1])
    assert to_read(ROOT / "notebooks" / "00_tour.ipynb") <= minutes * WORDS_A_MINUTE
    for page in ("README.md", "README.zh-CN.md", "docs/teaching.md"):
        row = re.search(r"^\| \[?00\b.*?\| (\d+) \|.*$", (ROOT / page).read_text("utf-8"), re.M)
        assert int(row[1]) == minutes, page
        assert not re.search("five minutes|五分钟", row[0]), page


def test_the_prices_are_bars_of_their_length_between_the_two_levels():
    panels = Figure().subplots(1, 3)
    prices = {"one": {"accuracy": 0.9, "MB up": 5.0, "seconds": 3.0}, "two": {"accuracy": 0.1, "MB up": 2.0, "seconds": 30.0}}
    tour.draw_prices(panels, prices, {"alone": 0.2, "pooled": 0.95})
    for ax, column in zip(panels, ("accuracy", "MB up", "seconds"), strict=True):
        assert [bar.get_width() for bar in ax.patches] == [row[column] for row in prices.values()]
        assert ax.get_xlabel() == column
    assert [text.get_text() for text in panels[0].get_yticklabels()] == ["one", "two"]
    assert {line.get_label(): line.get_xdata()[0] for line in panels[0].lines} == {"alone": 0.2, "pooled": 0.95}


def test_the_lesson_links_to_every_chapter_that_the_picture_numbers():
    rows = re.findall(r"^# \| (\d+) \| .* \| \[.*\]\((\d\d)_\w+\.ipynb\) \|$", LESSON, re.M)
    assert [int(number) for number, _ in rows] == [int(name) for _, name in rows] == list(range(1, 13))
    assert set(tour.STOPS) == set(range(1, 10))
