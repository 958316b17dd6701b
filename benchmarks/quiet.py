"""Timing side by side: competitors take turns in short blocks, and a turn counts only if nobody else was at work.

What is quoted is the median, over the turns that count, of the ratio of two competitors within one turn. With fewer than
three quiet turns nothing is quoted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

QUIET = 0.15           # cores that others may keep busy during a block that counts
Block = Callable[[], tuple[float, float]]


def busy_seconds() -> float:
    """Core seconds that this machine has worked since it started, or NaN where /proc/stat does not exist."""
    try:
        ticks = [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    except OSError:
        return float("nan")
    return (sum(ticks) - ticks[3] - ticks[4]) / 100


def others(busy: float, mine: float, wall: float) -> float:
    """Cores that others kept busy; NaN if the machine does not tell (max() would make a number of it)."""
    return float(np.maximum(0.0, busy - mine)) / wall


def block(work: Callable[[], object], seconds: float) -> tuple[float, float]:
    """(seconds a call, cores that others kept busy) over a block of about so many seconds.

    A call before it does not count: it takes back from the system the memory that the one before had returned.
    """
    work()
    before, mine, began, calls = busy_seconds(), time.process_time(), time.perf_counter(), 0
    while time.perf_counter() - began < seconds or not calls:
        work()
        calls += 1
    wall = time.perf_counter() - began
    return wall / calls, others(busy_seconds() - before, time.process_time() - mine, wall)


def turns(players: Mapping[str, Block], wanted: int = 5, limit: int = 15) -> list[dict[str, float]]:
    """Up to `wanted` quiet turns, each {player: seconds a call}; gives up after `limit` turns.

    Where /proc/stat does not exist nothing is known about others, so no turn is quiet.
    """
    quiet: list[dict[str, float]] = []
    for _ in range(limit):
        taken = {name: play() for name, play in players.items()}
        if all(company < QUIET for _, company in taken.values()):                  # never true of NaN
            quiet.append({name: wall for name, (wall, _) in taken.items()})
        if len(quiet) == wanted:
            break
    return quiet if len(quiet) >= 3 else []


def median(quiet: list[dict[str, float]], player: str, over: str = "") -> float:
    """Median over turns of a player's seconds, or of their ratio to another player's. NaN without quiet turns."""
    values = [turn[player] / (turn[over] if over else 1.0) for turn in quiet if player in turn]
    return float(np.median(values)) if values else float("nan")
