"""Pictures as pure functions: `draw_…(ax, data)` draws plain data on a matplotlib axis and changes nothing else.

Colours are those of Okabe & Ito (2008), which stay apart for colour-blind readers; lines differ in dashes too, so that
a black-and-white print can be read. No pyplot and no global settings: any thread may draw.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .controls import BarChart, Chart, Range, axis

# blue, vermillion, bluish green, reddish purple, orange, sky blue, black
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ((), (6, 3), (2, 2), (8, 3, 2, 3), (4, 2, 1, 2, 1, 2))     # points on, off, on, off …; () is solid


def line_style(number: int) -> dict[str, Any]:
    """Colour and dashes of the n-th line, as matplotlib keywords; 35 lines before a pair repeats."""
    dash = DASHES[number % len(DASHES)]
    return {"color": PALETTE[number % len(PALETTE)], "linestyle": (0, dash) if dash else "-"}


def draw_lines(ax: Axes, lines: Mapping[str, Sequence[tuple[float | None, float | None]]], x: str, y: str,
               title: str = "", x_range: Range | None = None, y_range: Range | None = None,
               x_log: bool = False, y_log: bool = False) -> None:
    """One line for each label, through its (x, y) points; None is a gap. `x`, `y`: axis labels with units."""
    for number, (label, points) in enumerate(lines.items()):
        xs, ys = np.array([[np.nan if v is None else v for v in point] for point in points], float).reshape(-1, 2).T
        ax.plot(xs, ys, label=label, linewidth=1.8, marker="o", markersize=2.5, **line_style(number))
    if x_log:
        ax.set_xscale("log")
    else:
        ax.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))        # rounds are whole: no tick at 2.5
    if y_log:
        ax.set_yscale("log")
    _dress(ax, x, y, title, len(lines) > 1, x_range, y_range)


def draw_bars(ax: Axes, groups: Mapping[str, Sequence[tuple[str, float | None]]], x: str, y: str, title: str = "",
              y_range: Range | None = None) -> None:
    """One bar for each (label, height); several groups stand side by side, each with its own colour and hatching."""
    labels = list(dict.fromkeys(label for bars in groups.values() for label, _ in bars))
    width = 0.8 / max(len(groups), 1)
    for number, (group, bars) in enumerate(groups.items()):
        places = [labels.index(label) - 0.4 + width * (number + 0.5) for label, _ in bars]
        ax.bar(places, [height or 0.0 for _, height in bars], width * 0.92, label=group, edgecolor="white", linewidth=0,
               color=PALETTE[number % len(PALETTE)], hatch=("", "//", "..", "xx", "--")[number % 5])
    turned = 45 if len(labels) > 6 and max(map(len, labels)) > 3 else 0
    ax.set_xticks(range(len(labels)), labels, rotation=turned, ha="right" if turned else "center")
    _dress(ax, x, y, title, len(groups) > 1, None, y_range)


def draw_shares(ax: Axes, counts: np.ndarray, x: str = "examples", y: str = "client", title: str = "",
                names: Sequence[str] | None = None) -> None:
    """Which client holds what: `counts` (clients, classes) as one stacked horizontal bar a client."""
    counts = np.asarray(counts)
    left = np.zeros(len(counts))
    for klass in range(counts.shape[1]):
        ax.barh(np.arange(len(counts)), counts[:, klass], left=left, height=0.85, edgecolor="white", linewidth=0.3,
                color=PALETTE[klass % len(PALETTE)], hatch=("", "//")[klass // len(PALETTE) % 2],
                label=str(klass) if names is None else names[klass])
        left += counts[:, klass]
    ax.invert_yaxis()
    _dress(ax, x, y, title, False, None, None)
    ax.legend(fontsize=7, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0), title="class", title_fontsize=7)


def _dress(ax: Axes, x: str, y: str, title: str, legend: bool, x_range: Range | None, y_range: Range | None) -> None:
    ax.set_xlabel(x)
    ax.set_ylabel(y)
    ax.set_title(title, fontsize=10)
    if x_range is not None:
        ax.set_xlim(*x_range)
    if y_range is not None:
        ax.set_ylim(*y_range)
    ax.grid(True, color="#dddddd", linewidth=0.6)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    if legend:
        ax.legend(fontsize=8, frameon=False)


def draw_chart(ax: Axes, chart: Chart | BarChart, runs: Sequence[Mapping[str, Any]]) -> None:
    """One chart of an explorer, for the runs of a frame: {"label": …, "lines": …, "bars": …}, the current run first."""
    if isinstance(chart, BarChart):
        bars = {run["label"]: run["bars"].get(chart.title, []) for run in runs}
        draw_bars(ax, bars, chart.x, axis(chart.y, chart.y_unit), chart.title, chart.y_range)
        return
    lines = {}
    for run in runs:
        for name in chart.names:
            words = [name] * (len(chart.names) > 1) + [run["label"]] * (len(runs) > 1)
            lines[", ".join(words) or name] = run["lines"].get(name, [])
    draw_lines(ax, lines, axis(chart.x, chart.x_unit), axis(chart.y, chart.y_unit), chart.title,
               chart.x_range, chart.y_range, chart.x_log, chart.y_log)


def explorer_png(caption: str, charts: Sequence[Chart | BarChart], runs: Sequence[Mapping[str, Any]]) -> bytes:
    """The still picture of an explorer: its charts side by side under a caption. Equal runs give equal bytes."""
    columns = min(len(charts), 3)
    rows = -(-len(charts) // columns)
    figure = Figure(figsize=(4.2 * columns, 0.35 + 3.0 * rows), dpi=90, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    for number, chart in enumerate(charts):
        draw_chart(figure.add_subplot(rows, columns, number + 1), chart, runs)
    figure.suptitle(caption, fontsize=9, color="#444444")
    buffer = io.BytesIO()
    canvas.print_png(buffer, metadata={"Software": None})    # no version and no date in the file
    return buffer.getvalue()
