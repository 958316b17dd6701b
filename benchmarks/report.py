"""docs/performance.md, its tables as CSV and its figure, from the rows that were measured."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from matplotlib.figure import Figure

from fl_course.workbook.widgets.plots import draw_bars

SHOWN = {                # columns of the first table, and what they are called
    "idiomatic loop": "idiomatic loop", "optimised loop": "optimised loop", "vmap": "vmap", "pfl": "pfl", "fedjax": "FedJAX",
    "flower": "Flower", "course, plain text": "our plain text", "course, whole loop": "our whole loop",
    "course, threads=2": "ours, threads=2", "course, torch's 2 threads": "ours, torch's 2 threads",
}  # fmt: skip
OTHERS = {name: label for name, label in SHOWN.items() if not name.startswith("course")}
PAGE = """# Performance

One round of federated averaging on MNIST: by this course, by what one would write instead, and by three libraries.
Everything on this page was written by

    python -m benchmarks performance

which makes the libraries' environments in `.bench/` first. Measured on {machine}, Python {python}, torch {torch}.

**How.** Everybody does the same work: the same images (40 a client), first model, number of SGD steps, and batches in
the same order, and must end in the same model (1e-4 in every parameter; 1e-3 for convolutions, where torch's own
float32 is that far from its float64). The libraries take part where E = 1, B = 10 and the clients are equal, and must
reach the course's accuracy after five rounds, too, within two points. The competitors take turns in short blocks,
each after a round that does not count. A turn counts only if nobody else kept more than 0.15 cores busy
(`/proc/stat`); what is quoted is the median over turns of the ratio within a turn. Without three quiet turns nothing
is quoted (–); the tables of memory, first rounds and the busy neighbour are single runs and say what they are. One
thread, unless a column says otherwise; FedJAX prepares steps on a second one, and Flower's server and workers are
processes of their own.

`idiomatic loop`: deepcopy, Subset, DataLoader, `torch.optim.SGD`, an average of state dicts. `optimised loop`: one
module, tensors sliced by hand, foreach updates. `vmap`: `torch.func` over stacked parameters. *Our plain text* is
`LocalSGD(engine="rows")`, the loop that is read in class; *our whole loop* is a round of the `Coordinator`, which
also encodes, decodes and checks every message.

## A round as a user waits for it

A round of `Coordinator.run` in milliseconds, and every other as a multiple of it: more than 1 is slower. The course
and Flower encode and decode every message; pfl, FedJAX, vmap and the loops hand arrays over. *the engine alone* is the
course's local training and the average. Nobody evaluates here.

{whole}

An evaluation of 1,000 held-out images, which the course makes after every round unless `Evaluation(every=…)` says
otherwise, and the training of the round beside it. Small federations of small models spend as much on the one as on
the other: `Evaluation(every=10)` is for long runs of such. Clients' own tests come on top, where clients hold some out.

{evaluation}

## Times as long as this course's engine takes

The first number is the engine's in milliseconds; every other is a multiple of it, so more than 1 is slower.

{ratios}

![Time of a round as a multiple of the course's, by work and competitor](performance.png)

The same, read from the other side: how many times faster the course is than the idiomatic loop on one thread.

{speedups}

A round of Flower in which no client trains, its own cost: {noop}. Its in-memory grid looks for answers every 0.1 s.

Small convolutions: training a cohort at once gains next to nothing (see vmap), and everybody uses the same kernels of
torch. The course trains such models one client after the other (`sgd.SingleEngine`).

## Against the machine

*products alone*: the matrix products of the textbook's algorithm and nothing else. *GEMM rate*: its operations at the
speed of a 1024 × 1024 product. *copy rate*: the weights it reads and writes at the speed of a large copy. An implicit
first layer (`fused.implicit_room`) does not do all of these operations, so it can stay below them. *idiomatic loop /
products* is how many times faster than that loop an engine could be that does these products and nothing else.

{limits}

## Where a round's time goes

{stages}

## What the engine's choices are worth

{choices}

## Two threads, and a busy neighbour

`LocalSGD(threads=2)` gives each thread clients of its own and changes no bit. torch's own threads share one product
among them and may change the last ones. Medians of five blocks, whatever else the machine did; a busy core is one
endless loop beside.

{neighbour}

## How it grows

Clients of 14 examples with 20 numbers (105 parameters), all in the round; then ten clients on MNIST and more hidden units.

{growth}

## Memory and the first round

Peak resident memory of a process with 100 clients in the round; *before* is Python with torch and the images.

{memory}

10,000 clients of 14 examples, 100 a round, in the `Coordinator`: memory after a tenth of the rounds, and at the end.

{many}

Seconds from the data in memory to the end of the first round, engine and buffers made on the way.

{first}

Of the libraries: their first round, with compilation and the start of their workers, and the sum of their processes' peaks.

{starts}
"""


GPUS = "## On a GPU"


def markdown(rows: list[dict[str, Any]], digits: int = 2) -> str:
    table = pd.DataFrame(rows)
    cells = table.map(lambda value: "–" if pd.isna(value) else f"{value:,.{digits}f}" if isinstance(value, float) else str(value))
    lines = ["| " + " | ".join(map(str, table.columns)) + " |", "|" + "---|" * len(table.columns)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in cells.itertuples(index=False))])


def name_of(row: pd.Series) -> str:
    return f"{row['work']}, {row['clients']} clients, E={row['epochs']}, B={row['batch']}{', ragged' if row['ragged'] else ''}"


def ratios(engine: pd.DataFrame, ours: str, times: str, heading: str, shown: dict[str, str]) -> list[dict[str, Any]]:
    """One line a work: the milliseconds of `ours`, and how many `times` as long each of the others takes."""
    lines = []
    for title, rows in engine.groupby("title", sort=False):
        by_name = rows.set_index("competitor")
        line: dict[str, Any] = {"work": title, heading: by_name["ms"].get(ours, float("nan"))}
        lines.append(line | {label: by_name[times].get(name, float("nan")) for name, label in shown.items()})
    return lines


def against_idiomatic(engine: pd.DataFrame) -> list[dict[str, Any]]:
    ways = {"1 thread": "course", "threads=2": "course, threads=2", "torch's 2 threads": "course, torch's 2 threads"}
    lines = []
    for title, rows in engine.groupby("title", sort=False):
        faster = rows.set_index("competitor")["faster than idiomatic"]
        lines.append({"work": title} | {way: faster[name] for way, name in ways.items()})
    return lines


def draw(engine: pd.DataFrame, file: Path) -> None:
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    ax = figure.subplots()
    shown = engine[(engine["epochs"] == 1) & (engine["batch"] == 10) & ~engine["ragged"]].dropna(subset="times the course")
    groups = {SHOWN[name]: [(row["title"].split(", E=")[0].replace(", ", "\n"), row["times the course"]) for _, row in
                            shown[shown["competitor"] == name].iterrows()] for name in OTHERS}  # fmt: skip
    draw_bars(ax, {name: bars for name, bars in groups.items() if bars}, x="work of a round (E = 1, B = 10)",
              y="time / the course's, one thread")  # fmt: skip
    ax.axhline(1, color="black", linewidth=0.8)
    ax.set_yscale("log")
    ax.tick_params(axis="x", labelsize=7)
    figure.savefig(file, dpi=100, metadata={"Software": None})


def processor() -> str:
    """The processor's name, where the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def write(folder: Path, rows: list[dict[str, Any]], machine: dict[str, list[dict[str, Any]]], cores: int) -> None:
    engine = pd.DataFrame(rows)
    engine.insert(0, "title", engine.apply(name_of, axis=1))
    engine.to_csv(folder / "performance.csv", index=False, float_format="%.5g")
    pd.concat([pd.DataFrame(part).assign(table=name) for name, part in machine.items()]).to_csv(
        folder / "performance_machine.csv", index=False, float_format="%.5g")
    draw(engine, folder / "performance.png")
    noop = engine[engine["competitor"] == "flower noop"]
    starts = engine.dropna(subset="first round s")[["title", "competitor", "first round s", "peak MB"]].to_dict("records")
    whole = ratios(engine, "course, whole loop", "times the whole loop", "our whole loop, ms",
                   {"course": "the engine alone"} | OTHERS)  # fmt: skip
    alone = ratios(engine, "course", "times the course", "ours, ms", SHOWN)
    page = PAGE.format(
        machine=f"{cores} cores of {processor()}", python=platform.python_version(), torch=torch.__version__,
        whole=markdown(whole), evaluation=markdown(machine["evaluation"]),
        ratios=markdown(alone), speedups=markdown(against_idiomatic(engine), 1),
        noop=", ".join(f"{row['ms']:.0f} ms ({row['title']})" for _, row in noop.iterrows()) or "not measured",
        limits=markdown(machine["limits"]), stages=markdown(machine["stages"]), choices=markdown(machine["choices"]),
        neighbour=markdown(machine["neighbour"]),
        growth=markdown(machine["growth"], 3), memory=markdown(machine["memory"], 0), many=markdown(machine["many"], 0),
        first=markdown(machine["first"], 3), starts=markdown(starts) if starts else "Not measured.",
    )  # fmt: skip
    file = folder / "performance.md"
    older = file.read_text(encoding="utf-8") if file.exists() else ""
    cards = older[older.index(GPUS):] if GPUS in older else ""                     # gpu.py writes them, on machines of their own
    file.write_text(page.rstrip() + "\n" + (f"\n{cards}" if cards else ""), encoding="utf-8")
