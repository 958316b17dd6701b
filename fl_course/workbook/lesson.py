"""What every lesson uses: a canvas with the course's colours, a picture with a description, a refusal shown as a sentence."""

from __future__ import annotations

import difflib
import io
import os
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from cycler import cycler
from IPython import get_ipython
from IPython.display import display
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.spines import Spine
from matplotlib.text import Text

from .commands.parameters import COUNT
from .widgets.plots import DASHES, PALETTE

DPI = 80
GREY = "#767676"                              # 4.5 : 1 on white, 4.1 : 1 on a dark page
SENTENCE = 20                                 # characters; what is shorter describes nothing
KEY = re.compile(r"(\d\d)\.([a-z][a-z0-9_]*)")    # "02.two_bowls": the text `two_bowls` of chapter 02


def counts_from_one(names: Mapping[str, Any]) -> None:
    """ValueError for a parameter such as rounds that is below 1. `fl-course run` says so by itself; papermill alone does not."""
    for name, value in names.items():
        if COUNT.search(name) and isinstance(value, int) and value < 1:
            raise ValueError(f"{name} = {value!r} does not fit: it is a count, a whole number from 1")


counts_from_one(shell.user_ns if (shell := get_ipython()) else {})     # a lesson imports this below its parameters


def canvas(columns: int = 1, width: float = 4.6, height: float = 3.1) -> tuple[Figure, list[Axes]]:
    """A figure with so many axes side by side; width and height of each in inches. Not known to pyplot, so nothing leaks."""
    figure = Figure(figsize=(columns * width, height), layout="constrained", dpi=DPI)
    FigureCanvasAgg(figure)
    axes = list(np.atleast_1d(figure.subplots(1, columns)))
    styles = [PALETTE[i % len(PALETTE)] for i in range(10)], [(0, DASHES[i % len(DASHES)] or (1, 0)) for i in range(10)]
    for ax in axes:
        ax.set_prop_cycle(cycler(color=styles[0]) + cycler(linestyle=styles[1]))
    return figure, axes


def show(figure: Figure, description: str) -> None:
    """Display the figure as a PNG with an alternative text: what one would say about it to somebody on the phone.

    `description` is the key of a text in `fl_course/workbook/alt/NN.toml`, as in show(figure, "02.two_bowls"), so that the
    answer does not stand above the picture. Elsewhere than in a lesson it may be the text itself.
    """
    description = describe(description) if KEY.fullmatch(description) else description
    if len(description) < SENTENCE:
        raise ValueError(f"describe the picture in a sentence, not {description!r}")
    for ax in figure.axes:
        if ax.get_legend() is None and len(ax.get_legend_handles_labels()[1]) > 1:
            ax.legend(fontsize=8)
    for_any_page(figure)
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=DPI, transparent=True, metadata={"Software": None})
    data = {"image/png": png.getvalue(), "text/plain": f"Picture: {description}"}
    display(data, raw=True, metadata={"image/png": {"alt": description}})


def for_any_page(figure: Figure) -> None:
    """Black text and lines become a grey that is legible on white and on a dark page: the picture has no ground of its own."""
    for text in figure.findobj(Text):
        _grey(text.get_color(), text.set_color)
    for line in figure.findobj(Line2D):
        _grey(line.get_color(), line.set_color)
    for spine in figure.findobj(Spine):
        _grey(spine.get_edgecolor(), spine.set_edgecolor)
    for ax in figure.axes:
        ax.tick_params(which="both", colors=GREY)
        if (legend := ax.get_legend()) is not None:
            legend.get_frame().set(facecolor="none", edgecolor="none")


def _grey(colour: Any, paint: Callable[[str], None]) -> None:
    if to_rgba(colour)[:3] == (0.0, 0.0, 0.0):
        paint(GREY)


def descriptions(chapter: str) -> dict[str, str]:
    """The alternative texts of a chapter by key: its alt/NN.toml here, or in a folder of FL_COURSE_CHAPTERS."""
    texts: dict[str, str] = {}
    elsewhere = [Path(folder) for folder in os.environ.get("FL_COURSE_CHAPTERS", "").split(os.pathsep) if folder]
    for folder in (Path(__file__).parent, *elsewhere):
        path = folder / "alt" / f"{chapter}.toml"
        if path.is_file():
            for key, text in tomllib.loads(path.read_text(encoding="utf-8")).items():
                if not isinstance(text, str):
                    raise ValueError(f'{path.name}: {key} is no text; write {key} = """…"""')
                texts[key] = " ".join(text.split())
    return texts


def describe(key: str) -> str:
    """The alternative text of a key such as "02.two_bowls". ValueError suggests the nearest one."""
    chapter, _, name = key.partition(".")
    texts = descriptions(chapter)
    if name not in texts:
        near = difflib.get_close_matches(name, texts, n=1)
        advice = f"did you mean '{chapter}.{near[0]}'?" if near else f"write it in alt/{chapter}.toml"
        raise ValueError(f"no alternative text {key!r}; {advice}")
    return texts[name]


@contextmanager
def refusal(*kinds: type[Exception]) -> Iterator[None]:
    """`with refusal():` runs something that must be refused and prints the reason. If it is not refused, that is an error."""
    kinds = kinds or (ValueError, TypeError)
    try:
        yield
    except kinds as error:
        print(f"Refused ({type(error).__name__}): {error}")
    else:
        raise AssertionError("this was meant to be refused, and it was not")
