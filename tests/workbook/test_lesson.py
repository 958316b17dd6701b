"""Figures of the lessons: no ground of their own, and nothing on them that vanishes on a white or on a dark page."""

import io

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from fl_course.workbook import lesson


def contrast(one, other):
    """The ratio of WCAG 2.2 between two colours."""
    def light(colour):
        parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
        return np.dot(parts, (0.2126, 0.7152, 0.0722)) + 0.05
    bright, dark = sorted((light(one), light(other)), reverse=True)
    return bright / dark


def test_a_figure_reads_on_a_white_and_on_a_dark_page(monkeypatch):
    shown = []
    monkeypatch.setattr(lesson, "display", lambda data, **more: shown.append(data["image/png"]))
    figure, (left, right) = lesson.canvas(2)
    left.plot([1, 2, 3], label="a line")
    left.plot([3, 2, 1], label="another")
    left.axhline(2, color="black", label="a black line")
    left.set(xlabel="round", ylabel="accuracy", title="title")
    figure.colorbar(right.imshow(np.eye(3)), ax=right, label="count")
    lesson.show(figure, "two lines that cross, and beside them a picture")
    colours = [left.xaxis.label.get_color(), left.title.get_color(), left.get_lines()[2].get_color(),
               left.spines["left"].get_edgecolor(), left.get_xticklabels()[0].get_color(),
               left.get_legend().get_texts()[0].get_color(), *(line.get_color() for line in left.get_lines())]  # fmt: skip
    for colour in colours:
        assert contrast(colour, "white") >= 3, colour
        assert contrast(colour, "#111111") >= 3, colour
    picture = imread(io.BytesIO(shown[0]), format="png")
    assert picture.shape[2] == 4
    assert picture[0, 0, 3] == 0                                     # the corner lets the page through


@pytest.mark.parametrize(("names", "words"), [
    ({"rounds": 0}, "rounds = 0"), ({"x": 0, "seed": 0, "many_clients": -3}, "many_clients = -3"), ({"epochs": False}, "epochs"),
    ({"rounds": 1, "seed": 0, "clients": [], "rounds_done": 0, "repeats": "0"}, ""),
])  # fmt: skip
def test_a_lesson_of_no_rounds_is_refused_whoever_runs_it(names, words):
    if words:
        with pytest.raises(ValueError, match=f"{words}.* does not fit: it is a count"):
            lesson.counts_from_one(names)
    else:
        lesson.counts_from_one(names)
