"""What every lesson uses: a canvas with the course's colours, a picture with a description, a refusal shown as a sentence."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from cycler import cycler
from IPython.display import display
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from .widgets.plots import DASHES, PALETTE

DPI = 80


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
    """Display the figure as a PNG whose alternative text is the description: what one would say to somebody on the phone."""
    if len(description) < 20:
        raise ValueError(f"describe the picture in a sentence, not {description!r}")
    for ax in figure.axes:
        if ax.get_legend() is None and len(ax.get_legend_handles_labels()[1]) > 1:
            ax.legend(fontsize=8)
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=DPI, metadata={"Software": None})
    data = {"image/png": png.getvalue(), "text/plain": f"Picture: {description}"}
    display(data, raw=True, metadata={"image/png": {"alt": description}})


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
