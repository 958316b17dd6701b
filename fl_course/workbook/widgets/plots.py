"""Pictures as pure functions: `draw_…(ax, data)` draws plain data on a matplotlib axis and changes nothing else.

Colours are chosen once, here, for pictures and widgets alike. The first four are of Okabe & Ito (2008); the others were searched
for one thing more: every colour has a contrast of at least 3:1 on white and on the dark theme's page (WCAG 2.1, 1.4.11), and
stays as far from the others as that allows, seen with full colour vision and without one of the cones. Lines differ in dashes
too, so that a black-and-white print can be read. No pyplot and no global settings: any thread may draw.
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

from .charts import AnyChart, BarChart, ImageChart, PlaneChart, TimelineChart, axis
from .controls import Range

# blue, vermillion, green, pink, lavender, purple, brown, magenta, olive, fuchsia, rose, leaf
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#A078F0", "#8C3CF0",
           "#8C6450", "#C814A0", "#648C3C", "#F000C8", "#F06478", "#64A050")  # fmt: skip
DASHES = ((), (6, 3), (2, 2), (8, 3, 2, 3), (4, 2, 1, 2, 1, 2))     # points on, off, on, off …; () is solid
MARKERS = "*XPDsv"
COLOURS = len(PALETTE) ** 2                    # so many series before two share a colour


def colour(number: int) -> str:
    """The colour of the n-th series: the palette, then its mixtures, three parts of one colour and one of another.

    Light is mixed, not paint, so the luminance lies between those of the two, and the contrast holds.
    """
    first, step = number % len(PALETTE), number // len(PALETTE) % len(PALETTE)
    if step == 0:
        return PALETTE[first]
    pair = np.array([[int(PALETTE[i % len(PALETTE)][k : k + 2], 16) for k in (1, 3, 5)] for i in (first, first + step)])
    mixed = np.array([0.75, 0.25]) @ (pair / 255) ** 2.2
    return "#" + "".join(f"{round(255 * light ** (1 / 2.2)):02X}" for light in mixed)


def line_style(number: int) -> dict[str, Any]:
    """Colour and dashes of the n-th line, as matplotlib keywords."""
    dash = DASHES[number % len(DASHES)]
    return {"color": colour(number), "linestyle": (0, dash) if dash else "-"}


def draw_lines(ax: Axes, lines: Mapping[str, Sequence[tuple[float | None, float | None]]], x: str, y: str,
               title: str = "", x_range: Range | None = None, y_range: Range | None = None,
               x_log: bool = False, y_log: bool = False) -> None:
    """One line for each label, through its (x, y) points; None is a gap. `x`, `y`: axis labels with units."""
    for number, (label, points) in enumerate(lines.items()):
        xs, ys = np.array([[np.nan if v is None else v for v in point] for point in points], float).reshape(-1, 2).T
        marker = "o" if len(points) <= 60 else ""            # the dots of a long line are a thicker line
        ax.plot(xs, ys, label=label if len(points) else None, linewidth=1.8, marker=marker, markersize=2.5, **line_style(number))
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
               color=colour(number), hatch=("", "//", "..", "xx", "--")[number % 5])
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
                color=colour(klass), label=str(klass) if names is None else names[klass])
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
    if legend and len(ax.get_legend_handles_labels()[1]) > 4:        # many entries would lie over the curves
        ax.legend(fontsize=8, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.22), ncols=2)
    elif legend and ax.get_legend_handles_labels()[1]:               # nothing is drawn before a run has begun
        ax.legend(fontsize=8, frameon=False)


def draw_images(axes: Sequence[Axes], images: Mapping[str, Sequence[Sequence[float | None]]]) -> None:
    """One grey picture an axis, 0 white to 1 black, its name above it."""
    for ax, (name, rows) in zip(axes, images.items(), strict=True):
        grey = np.array([[np.nan if v is None else v for v in row] for row in rows], float)
        ax.imshow(grey, cmap="gray_r", vmin=0, vmax=1, interpolation="nearest")
        ax.set_title(name, fontsize=9)
        ax.set(xticks=[], yticks=[])


def draw_plane(ax: Axes, chart: PlaneChart, lines: Mapping[str, Sequence[Any]], marks: Mapping[str, Any],
               outlines: Mapping[str, Sequence[Any]]) -> None:
    """Paths with a dot a step, marks as symbols, letters as letters, outlines thin and grey; None is a gap."""
    for name in chart.outlines:
        for number, curve in enumerate(outlines.get(name, ())):
            ax.plot(*np.array(curve, float).T, color="#999999", linewidth=0.8, label=None if number else name)
    for number, (label, points) in enumerate(lines.items()):
        xs, ys = np.array([[np.nan if v is None else v for v in point] for point in points], float).reshape(-1, 2).T
        ax.plot(xs, ys, label=label if len(points) else None, linewidth=1.5, marker="o", markersize=3, **line_style(number))
    for number, name in enumerate(name for name in chart.marks if None not in marks.get(name, (None,))):
        ax.plot(*marks[name], label=name, linestyle="", marker=MARKERS[number % len(MARKERS)], markersize=8, zorder=4,
                color=colour(len(lines) + number), markeredgecolor="white")
    for name in chart.letters:
        if None not in marks.get(name, (None,)):
            letter(ax, name, marks[name])
    _dress(ax, axis(chart.x, chart.x_unit), axis(chart.y, chart.y_unit), chart.title, True, chart.x_range, chart.y_range)
    ax.set_aspect("equal", adjustable="box")


def draw_timeline(ax: Axes, chart: TimelineChart, jobs: Sequence[tuple[str, Sequence[float | None], str, Any]]) -> None:
    """A row a name; each job's phases one after the other, hollow with a cross where it came to nothing; instants as lines."""
    place = {row: number for number, row in enumerate(chart.rows)}
    own = [(place[row], np.array(instants, float), end in chart.fine) for row, instants, end, _ in jobs if row in place]
    for n, phase in enumerate(chart.phases):
        thick = 0.8 if n == len(chart.phases) // 2 else 0.45
        for full in (True, False):
            found = [(row, at[n], at[n + 1]) for row, at, fine in own if fine == full]
            rows, begin, stop = np.array(found).reshape(-1, 3).T
            tint = colour((n - 1) % len(chart.phases))                 # the long phase in the middle is blue
            look: dict[str, Any] = {"color": tint, "label": phase} if full else {"facecolor": "none", "edgecolor": tint}
            ax.barh(rows, stop - begin, left=begin, height=thick, linewidth=0.8 * (not full), **look)
    if lost := [(at[-1], row) for row, at, fine in own if not fine]:
        ax.plot(*zip(*lost, strict=True), marker="x", markersize=5, color="#444444", linestyle="", zorder=5, label="not used")
    if whole := [x for row, (x, *_), _, _ in jobs if row not in place and x is not None]:
        ax.vlines(whole, -0.6, len(place) - 0.4, color="#999999", linewidth=0.7, linestyle=":", zorder=0, label=chart.instant)
    ax.set_yticks(range(len(place)), list(place), fontsize=7 if len(place) > 12 else 9)
    _dress(ax, axis(chart.x, chart.x_unit), chart.y, chart.title, False, chart.x_range, (len(place) - 0.4, -0.6))
    ax.grid(False, axis="y")
    ax.legend(fontsize=8, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=3)


def letter(ax: Axes, name: str, place: Sequence[float]) -> None:
    """A name in a white disc at (x, y)."""
    ax.annotate(name, (place[0], place[1]), ha="center", va="center", fontweight="bold", fontsize=9, zorder=5,
                bbox={"boxstyle": "circle,pad=0.2", "facecolor": "white", "edgecolor": "black"})


def named(chart: AnyChart, runs: Sequence[Mapping[str, Any]], kind: str) -> dict[str, Any]:
    """What the runs hold of a chart's names of this kind, by a label that says which and, among several runs, of which:
    "FedAvg, pin 1", or, where there is one name, what differs: "pin 1: C = 0.5"."""
    names, found = chart.draws.get(kind, ()), {}
    for run in runs:
        which = run["label"].split(":")[0] if len(names) > 1 else run["label"]
        for name in names:
            words = [name] * (len(names) > 1) + [which] * (len(runs) > 1)
            found[", ".join(words) or name] = run[kind].get(name, [])
    return found


def draw_chart(ax: Axes, chart: AnyChart, runs: Sequence[Mapping[str, Any]]) -> None:
    """One chart of an explorer, for the runs of a frame (`Run.picture` and a "label"), the current run first."""
    if isinstance(chart, BarChart):
        draw_bars(ax, named(chart, runs, "bars"), chart.x, axis(chart.y, chart.y_unit), chart.title, chart.y_range)
    elif isinstance(chart, ImageChart):
        images = {name: rows for name, rows in named(chart, runs[:1], "images").items() if rows}
        ax.set_title(chart.title, fontsize=10)
        ax.set_axis_off()
        width = 1 / max(len(images), 1)
        draw_images([ax.inset_axes((i * width + 0.02, 0.05, width - 0.04, 0.8)) for i in range(len(images))], images)
    elif isinstance(chart, PlaneChart):
        draw_plane(ax, chart, named(chart, runs, "lines"), runs[0]["marks"], runs[0]["outlines"])
    elif isinstance(chart, TimelineChart):
        draw_timeline(ax, chart, runs[0]["jobs"].get(chart.title, []))
    else:
        draw_lines(ax, named(chart, runs, "lines"), axis(chart.x, chart.x_unit), axis(chart.y, chart.y_unit), chart.title,
                   chart.x_range, chart.y_range, chart.x_log, chart.y_log)


def explorer_png(caption: str, charts: Sequence[AnyChart], runs: Sequence[Mapping[str, Any]]) -> bytes:
    """The still picture of an explorer: its charts side by side under a caption. Equal runs give equal bytes."""
    columns = 2 if len(charts) == 4 else min(len(charts), 3)
    rows = -(-len(charts) // columns)
    times = {"lines": len(runs), "marks": 1, "outlines": 1}
    most = max(sum(count * len(chart.draws.get(kind, ())) for kind, count in times.items()) for chart in charts)
    legend = 0.08 * most if most > 4 else 0.0                # inches under the axes, see _dress
    figure = Figure(figsize=(4.2 * columns, 0.35 + (3.0 + legend) * rows), dpi=90, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    for number, chart in enumerate(charts):
        draw_chart(figure.add_subplot(rows, columns, number + 1), chart, runs)
    figure.suptitle(caption, fontsize=9, color="#444444")
    buffer = io.BytesIO()
    canvas.print_png(buffer, metadata={"Software": None})    # no version and no date in the file
    return buffer.getvalue()
