"""How fast an explorer answers, seen from the kernel: no browser, but every frame is encoded as it would be sent.

    python benchmarks/widget_latency.py                     the client-fraction explorer of lesson 1
    python benchmarks/widget_latency.py some_module:build   any function without arguments that returns an Explorer

Prints each figure beside its limit and ends with 1 if one is missed. Other work on the machine counts against it: read
the minimum as the machine's speed and the worst as the reader's experience.
"""

from __future__ import annotations

import importlib
import json
import statistics
import sys
import time
from collections.abc import Callable

from fl_course.workbook.widgets.explorer import Explorer


def timed_publish(explorer: Explorer) -> list[tuple[float, bool]]:
    """Collect (time, whether a run that began later is on show) of every frame from now on, encoded as if it were sent."""
    sent: list[tuple[float, bool]] = []
    before = explorer.live.shown

    def publish(frame: dict) -> None:
        json.dumps(frame, allow_nan=False)
        sent.append((time.perf_counter(), explorer.live.shown is not before))

    explorer.live.publish = publish
    return sent


def positions(explorer: Explorer, count: int) -> list[dict[str, int]]:
    """Moves over the whole of the first control, there and back."""
    control = explorer.live.controls[0]
    last = len(control.values) - 1
    return [{control.name: round(last * abs(1 - 2 * ((i / count * 3) % 1)))} for i in range(count)]


def first_points(explorer: Explorer, moves: int = 20) -> tuple[list[float], list[float]]:
    """Seconds from a move to its first new point, and to the end of its run; one move at a time."""
    first, whole = [], []
    for at in positions(explorer, moves):
        sent = timed_publish(explorer)
        began = time.perf_counter()
        explorer.live.move(at)
        explorer.result()
        first.append(next(when for when, new in sent if new) - began)
        whole.append(sent[-1][0] - began)
    return first, whole


def interrupted_points(explorer: Explorer, moves: int = 20) -> list[float]:
    """Seconds from a move to its first new point while the run before it is still training."""
    waits = []
    for at in positions(explorer, moves):
        sent = timed_publish(explorer)
        began = time.perf_counter()
        explorer.live.move(at)
        while not any(new for _, new in list(sent)):
            time.sleep(0.0005)
        waits.append(next(when for when, new in sent if new) - began)
    explorer.result()
    return waits


def settle(explorer: Explorer, moves: int = 90, seconds: float = 3.0) -> tuple[float, bool, int]:
    """(seconds from the last of many moves to the end of its run, whether it shows the last value, frames sent)."""
    sent = timed_publish(explorer)
    at = positions(explorer, moves)
    begin = time.perf_counter()
    for number, place in enumerate(at):
        time.sleep(max(0.0, begin + seconds * number / moves - time.perf_counter()))
        explorer.live.move(place)
    last = time.perf_counter()
    run = explorer.result()
    return sent[-1][0] - last, run.values == explorer.live.values(), len(sent)


def stored(explorer: Explorer) -> tuple[int, int]:
    """Bytes of the notebook's outputs, and of the state that a notebook may store beside them."""
    state = explorer.get_state()
    return (len(json.dumps(explorer._repr_mimebundle_()[0])),
            len(json.dumps({name: state[name] for name in ("spec", "frame", "_esm", "_css")})))


def main(build: Callable[[], Explorer]) -> int:
    began = time.perf_counter()
    explorer = build()
    missed = 0

    def line(what: str, value: float, limit: float | None, unit: str) -> None:
        nonlocal missed
        bad = limit is not None and value > limit
        missed += bad
        bound = "" if limit is None else f"limit {limit:g} {unit}{'   MISSED' if bad else ''}"
        print(f"{what:58}{value:10.0f} {unit:6}{bound}")

    line("built, with its default run", 1e3 * (time.perf_counter() - began), None, "ms")
    first, whole = first_points(explorer)
    line("first new point after a move, median", 1e3 * statistics.median(first), 150, "ms")
    line("first new point after a move, worst of 20", 1e3 * max(first), 150, "ms")
    busy = interrupted_points(explorer)
    line("first new point while the last run trains, worst of 20", 1e3 * max(busy), 150, "ms")
    line("whole run, median over the control", 1e3 * statistics.median(whole), 1000, "ms")
    line("whole run, worst over the control", 1e3 * max(whole), 1000, "ms")
    late, right, frames = settle(explorer)
    line("after 90 moves in 3 s, settled on the last value after", 1e3 * late, 1200, "ms")
    line("frames sent in that time", frames, None, "")
    outputs, state = stored(explorer)
    line("outputs in a saved notebook", outputs / 1e3, 100, "KB")
    line("outputs and stored widget state", (outputs + state) / 1e3, 100, "KB")
    if not right:
        print("the last value did NOT win")
    return int(missed > 0 or not right)


if __name__ == "__main__":
    where = sys.argv[1] if len(sys.argv) > 1 else "fl_course.workbook.widgets.explorer.fraction:client_fraction_explorer"
    module, _, name = where.partition(":")
    sys.exit(main(getattr(importlib.import_module(module), name)))
