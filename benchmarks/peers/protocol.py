"""What the three peers share: the work they are given, and how the benchmark talks to them. numpy and stdlib only.

A peer is started as `python X_peer.py WORK.npz THREADS`. It runs its first round, prints one line of JSON, and obeys
the lines that it reads:

    time S          one round that does not count, then rounds for about S seconds, at least one
           {"seconds": a round, "rounds": n, "cpu_seconds": a round, "all_seconds": …, "all_cpu_seconds": with that one}
    train R PATH    R rounds from the first model; the last, (d,) float32, is saved at PATH (.npy)       {"saved": true}
    memory          the peak so far                                                                      {"peak_mb": …}
    quit
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

BEGAN = time.perf_counter()          # a peer imports this file first, so this is when its program began
State = TypeVar("State")             # what the peer's library keeps a model in


@dataclass(frozen=True)
class Work:
    """Every client of the file trains in every round; the average is weighted by numbers of examples."""

    x: np.ndarray                    # (N, 784) float32
    y: np.ndarray                    # (N,) int64
    clients: tuple[np.ndarray, ...]  # for each client its examples, int64, in the order of every epoch
    init: np.ndarray                 # (d,) float32: the first model, tensor after tensor, each row by row
    model: dict[str, Any]            # {"kind": "dense", "sizes"} or {"kind": "conv", "side", "classes", "widths", …}
    epochs: int
    batch: int
    lr: float


@lru_cache(maxsize=1)
def load(path: str) -> Work:
    """Read a work; a process that asks again gets what it has."""
    with np.load(path) as file:
        clients = tuple(np.split(file["rows"], np.cumsum(file["sizes"])[:-1]))
        meta = json.loads(str(file["meta"]))
        return Work(file["x"], file["y"], clients, file["init"], **meta)


def shapes(model: dict[str, Any]) -> list[tuple[int, ...]]:
    """The shapes of the tensors in the order of the flat vector: each layer's weight (out, in, …), then its bias."""
    if model["kind"] == "dense":
        layers = zip(model["sizes"], model["sizes"][1:], strict=False)
        return [shape for inputs, outputs in layers for shape in ((outputs, inputs), (outputs,))]
    out: list[tuple[int, ...]] = []
    inputs, side = model["channels"], model["side"]
    for width in model["widths"]:
        out += [(width, inputs, 3, 3), (width,), (width,), (width,)]      # convolution, then the norm's scale and shift
        inputs, side = width, side // 2
    return [*out, (model["classes"], inputs * side * side), (model["classes"],)]


def tensors(flat: np.ndarray, model: dict[str, Any]) -> list[np.ndarray]:
    """Cut (d,) into the model's tensors."""
    ends = np.cumsum([int(np.prod(shape)) for shape in shapes(model)])
    return [part.reshape(shape) for part, shape in zip(np.split(flat, ends[:-1]), shapes(model), strict=True)]


_answers = sys.stdout


def command_line() -> tuple[str, int, list[str]]:
    """(path of the work, threads, what else was said). From here on stdout is for `serve` alone; logs go to stderr."""
    global _answers
    _answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    path, threads, *rest = sys.argv[1:]
    return os.path.abspath(path), int(threads), rest


def _say(**answer: object) -> None:
    print(json.dumps(answer), file=_answers, flush=True)


def serve(first: State, one_round: Callable[[State], State], flat: Callable[[State], np.ndarray]) -> None:
    """Run the first round, say so, and obey. A round must not alter the state it is given, and be over when it returns.

    seconds_to_ready runs from the start of the program to the first round, whose seconds are told apart: in them
    libraries compile and start workers.
    """
    began = time.perf_counter()
    one_round(first)
    _say(ready=True, seconds_to_ready=began - BEGAN, first_round=time.perf_counter() - began, peak_mb=peak_mb())
    for line in sys.stdin:
        match line.split(maxsplit=2):
            case ["time", seconds]:
                _say(**timed(first, one_round, float(seconds)))
            case ["train", rounds, path]:
                state = first
                for _ in range(int(rounds)):
                    state = one_round(state)
                np.save(path.strip(), np.asarray(flat(state), dtype=np.float32))
                _say(saved=True)
            case ["memory"]:
                _say(peak_mb=peak_mb())
            case ["quit"]:
                return
            case _:
                _say(error=f"{line.strip()!r} is none of: time S, train R PATH, memory, quit")


def timed(first: State, one_round: Callable[[State], State], seconds: float) -> dict[str, float]:
    """Rounds, each from the first model, for about so many seconds."""
    asked, idle = time.perf_counter(), cpu_seconds()
    one_round(first)                                    # does not count: caches, and memory that was given back
    worked, began, rounds = cpu_seconds(), time.perf_counter(), 0
    while time.perf_counter() - began < seconds or not rounds:
        one_round(first)
        rounds += 1
    ended, done = time.perf_counter(), cpu_seconds()
    return {"seconds": (ended - began) / rounds, "rounds": rounds, "cpu_seconds": (done - worked) / rounds,
            "all_seconds": ended - asked, "all_cpu_seconds": done - idle}  # fmt: skip


# --- the peer and the processes that it started, by /proc; elsewhere the peer alone -----------------------------------


def family() -> list[Path]:
    """/proc folders of this process and all that descend from it; empty where there is no /proc."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:                                                                  # it ended meanwhile
            continue
    mine = {os.getpid()} & parents.keys()
    while more := {pid for pid, parent in parents.items() if parent in mine} - mine:
        mine |= more
    return [Path(f"/proc/{pid}") for pid in sorted(mine)]


def peak_mb() -> float | None:
    """The sum of the peak resident sets (MB). Pages that processes share, such as torch's library, count in each."""
    total = 0
    for process in family():
        try:
            lines = (process / "status").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    if total:
        return round(total / 1024, 1)
    try:
        import resource
    except ImportError:                                                                  # Windows
        return None
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit, 1)


def cpu_seconds() -> float:
    """What the processes have worked so far, in steps of a hundredth of a second."""
    ticks = []
    for process in family():
        try:
            ticks.append(sum(map(int, (process / "stat").read_text().rpartition(")")[2].split()[11:13])))
        except OSError:
            continue
    return sum(ticks) / os.sysconf("SC_CLK_TCK") if ticks else time.process_time()
