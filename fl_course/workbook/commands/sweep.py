"""Run one notebook over a grid of parameters, in parallel, resuming where it was interrupted: one table, one figure.

A point of the grid is one executed notebook in `points/`, which appears under its name only when it has run through.
Its name holds a hash of the notebook's code and all its parameters, so a second call runs only what is missing.
The numbers are those that the notebook hands to `fl_course.workbook.report(…)`.
"""

from __future__ import annotations

import csv
import hashlib
import io
import itertools
import json
import multiprocessing
import re
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...files import write
from ..grading.cards import reported
from .orphans import die_with_parent
from .parameters import BadParameter, inspect, listing, parse
from .runner import Outcome, run_notebook


@dataclass(frozen=True)
class Point:
    """One choice of the swept parameters, and where its executed notebook belongs."""

    parameters: dict[str, Any]
    output: Path


def grid(notebook: Path, swept: list[tuple[str, str]], out: Path) -> list[Point]:
    """The points of the grid that `swept` spans: (name, "1,2,4") pairs. BadParameter for what the notebook has not."""
    import nbformat

    known = inspect(notebook)
    axes: dict[str, list[Any]] = {}
    for name, text in swept:
        if name not in known:
            raise BadParameter(f"no parameter {name!r} in {notebook.name}. Allowed: {listing(known)}")
        if name in axes:
            raise BadParameter(f"parameter {name!r} is given twice; list its values in one: -p {name} 1,2,4")
        values = [parse(known[name], part.strip()) for part in text.split(",")]
        axes[name] = list(dict.fromkeys(values))
    if not axes:
        raise BadParameter(f"a sweep needs at least one -p NAME VALUES. Allowed: {listing(known)}")
    code = [cell.source for cell in nbformat.read(notebook, as_version=4).cells if cell.cell_type == "code"]
    points = []
    for combination in itertools.product(*axes.values()):
        chosen = dict(zip(axes, combination, strict=True))
        digest = hashlib.sha256(json.dumps([code, chosen], sort_keys=True).encode()).hexdigest()[:10]
        label = re.sub(r"[^\w.=,+-]", "_", ",".join(f"{name}={value}" for name, value in chosen.items()))[:80]
        points.append(Point(chosen, out / "points" / f"{notebook.stem}__{label}__{digest}.ipynb"))
    return points


def run_points(notebook: Path, points: list[Point], jobs: int = 1) -> Iterator[tuple[Point, Outcome]]:
    """Run the points whose notebook is not there yet; yields each as it finishes. A failed point leaves no notebook."""
    missing = [point for point in points if not point.output.exists()]
    if jobs == 1 or len(missing) < 2:
        for point in missing:
            yield point, _run(notebook, point)
        return
    spawn = multiprocessing.get_context("spawn")                 # the same on every system; no forked threads
    with ProcessPoolExecutor(min(jobs, len(missing)), mp_context=spawn, initializer=die_with_parent) as pool:
        waiting = {pool.submit(_run, notebook, point): point for point in missing}
        try:
            for done in as_completed(waiting):
                yield waiting[done], done.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _run(notebook: Path, point: Point) -> Outcome:
    failed = point.output.with_suffix(".failed.ipynb")
    failed.unlink(missing_ok=True)
    outcome = run_notebook(notebook, failed, point.parameters)
    if outcome.ok:
        failed.replace(point.output)                             # atomic: a point of this name is finished
    return outcome


def gather(points: list[Point]) -> list[dict[str, Any]]:
    """One row a finished point: its parameters, then the numbers that it reported."""
    import nbformat

    rows = []
    for point in points:
        if point.output.exists():
            rows.append({**point.parameters, **reported(nbformat.read(point.output, as_version=4))})
    return rows


def write_table(rows: list[dict[str, Any]], path: Path) -> None:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(table := io.StringIO(newline=""), columns, restval="")
    writer.writeheader()
    writer.writerows(rows)
    write(path, table.getvalue())


def draw(rows: list[dict[str, Any]], swept: list[str], path: Path, title: str) -> None:
    """One panel a reported number against the first swept parameter, one line for each choice of the others."""
    from matplotlib.figure import Figure

    numbers = [name for name in dict.fromkeys(name for row in rows for name in row) if name not in swept]
    numbers = [name for name in numbers if any(_number(row.get(name)) for row in rows)]
    figure = Figure(figsize=(5.0 * max(1, len(numbers)), 3.6), layout="constrained")
    figure.suptitle(title)
    first, others = swept[0], swept[1:]
    series: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        series.setdefault(", ".join(f"{name} = {row[name]}" for name in others), []).append(row)
    for place, name in enumerate(numbers, start=1):
        axes = figure.add_subplot(1, len(numbers), place)
        for (label, members), marker in zip(series.items(), itertools.cycle("osD^vP*X")):
            numeric = all(_number(row[first]) for row in rows)
            members = sorted(members, key=lambda row: row[first]) if numeric else members
            shown = [row for row in members if _number(row.get(name))]
            x = [row[first] if numeric else str(row[first]) for row in shown]
            axes.plot(x, [row[name] for row in shown], marker=marker, label=label or None)
        axes.set(xlabel=first, ylabel=name)
        if others:
            axes.legend()
    figure.savefig(image := io.BytesIO(), dpi=110)
    write(path, image.getvalue())


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
