"""One round of FedAvg by this course's engines and by what one would write instead, side by side.

    python -m benchmarks.engine                  all works; writes docs/performance.md and docs/performance.{csv,png}
    python -m benchmarks.engine --quick          one small work, nothing written: shows that the programs agree

Everybody does the same work: the same images, clients, batches, number of SGD steps and first model, and must end in the
same model (1e-4). The competitors take turns in short blocks; a block counts only if other processes were quiet meanwhile
(/proc/stat), and what is quoted is the median over rounds of turns of the *ratio* within one turn. Without three quiet
turns nothing is quoted.
"""

from __future__ import annotations

import argparse
import copy
import csv
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from fl_course import ConvNet, Dirichlet, LocalSGD, Shards, Task, logistic, mlp, mnist
from fl_course.batches import client_keys, plan_batches, round_key, splitmix, width
from fl_course.core import Server, stream
from fl_course.data import FederatedData
from fl_course.models import Model

QUIET = 0.15           # cores that others may keep busy during a block that counts
LR = 0.1


@dataclass(frozen=True)
class Work:
    """What is computed in a round."""

    name: str
    model: Model
    clients: int           # that train in a round, of 100
    epochs: int = 1
    batch: int = 10
    ragged: bool = False

    def federation(self) -> FederatedData:
        return mnist().partition(Dirichlet(0.3) if self.ragged else Shards(2), clients=100, test_fraction=0.0)


def works() -> list[Work]:
    small = ConvNet(28, 10, widths=(8, 16))
    models = {"logistic": logistic(784, 10), "2NN": mlp(784, 200, 200, 10), "small CNN": small}
    out = [Work(name, model, n) for name, model in models.items() for n in (10, 100) if (name, n) != ("small CNN", 100)]
    out += [Work(f"{name}, E = 5", model, 10, epochs=5) for name, model in list(models.items())[:2]]
    out += [Work(f"{name}, B = 32", model, 10, batch=32) for name, model in list(models.items())[:2]]
    return out


# --- the competitors: each makes a function round(params) -> new params (d,) ------------------------------------------

Round = Callable[[np.ndarray], np.ndarray]


def course(work: Work, data: FederatedData, engine: str) -> Round:
    """This course: a cohort at once; engine "auto" or "rows". The average is part of the work."""
    trainer = LocalSGD(lr=LR, epochs=work.epochs, batch_size=work.batch, engine=engine).prepare(work.model, data)
    weights = np.array([len(part) for part in data.train[: work.clients]], dtype=np.float32)
    weights /= weights.sum()

    def one_round(params: np.ndarray) -> np.ndarray:
        server = Server(params)
        updates = trainer.train([Task(client, server) for client in data.ids[: work.clients]])
        total = np.zeros_like(params)
        for weight, update in zip(weights, updates, strict=True):
            total += weight * update.delta
        return params + total

    return one_round


def modules(work: Work) -> nn.Module:
    """The same network as a torch module whose parameters lie in the same order."""
    if isinstance(work.model, ConvNet):
        return _Net(work.model)
    sizes = work.model.sizes                                                                     # type: ignore[attr-defined]
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class _Net(nn.Module):
    def __init__(self, shape: ConvNet) -> None:
        super().__init__()
        self.shape, inputs = shape, shape.channels
        for l, channels in enumerate(shape.widths):
            setattr(self, f"conv{l}", nn.Conv2d(inputs, channels, 3, padding=1))
            setattr(self, f"norm{l}", nn.GroupNorm(shape.groups, channels))
            inputs = channels
        side = shape.side // 2 ** len(shape.widths)
        self.head = nn.Linear(inputs * side * side, shape.classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.view(-1, self.shape.channels, self.shape.side, self.shape.side)
        for l in range(len(self.shape.widths)):
            x = F.max_pool2d(getattr(self, f"norm{l}")(getattr(self, f"conv{l}")(x)).relu(), 2)
        return self.head(x.flatten(1))


def batches(work: Work, data: FederatedData) -> list[list[torch.Tensor]]:
    """For each client its batches in order: what the course's plan says, unpadded."""
    out = []
    for client, rows in zip(data.ids[: work.clients], data.train, strict=False):
        key = splitmix(client_keys([client]) ^ round_key(0, 0))
        plan = plan_batches([rows], key, np.array([work.epochs]), width(len(rows), work.batch))
        out.append([torch.from_numpy(plan.rows[t, 0, : plan.count[t, 0]]) for t in range(int(plan.steps[0]))])
    return out


def load(module: nn.Module, params: np.ndarray) -> None:
    nn.utils.vector_to_parameters(torch.from_numpy(params.copy()), module.parameters())


def idiomatic(work: Work, data: FederatedData) -> Round:
    """As in a tutorial: deepcopy, DataLoader, torch.optim.SGD, an average of state dicts. (Batches in a given order.)"""
    module, x, y = modules(work), torch.from_numpy(data.x), torch.from_numpy(data.y)
    order = batches(work, data)
    sizes = [len(part) for part in data.train[: work.clients]]
    everything = TensorDataset(x, y)

    def one_round(params: np.ndarray) -> np.ndarray:
        load(module, params)
        states = []
        for mine in order:
            local = copy.deepcopy(module)
            optimizer = torch.optim.SGD(local.parameters(), lr=LR)
            loader = DataLoader(everything, batch_sampler=[rows.tolist() for rows in mine])
            local.train()
            for images, labels in loader:
                optimizer.zero_grad()
                F.cross_entropy(local(images), labels).backward()
                optimizer.step()
            states.append(local.state_dict())
        weights = [size / sum(sizes) for size in sizes]
        average = {name: sum(w * s[name] for w, s in zip(weights, states, strict=True)) for name in states[0]}
        module.load_state_dict(average)
        return nn.utils.parameters_to_vector(module.parameters()).detach().numpy()

    return one_round


def sequential(work: Work, data: FederatedData) -> Round:
    """The same without the comfort: one module, tensors sliced by hand, foreach updates."""
    module, x, y = modules(work), torch.from_numpy(data.x), torch.from_numpy(data.y)
    order, parameters = batches(work, data), list(module.parameters())
    sizes = [len(part) for part in data.train[: work.clients]]

    def one_round(params: np.ndarray) -> np.ndarray:
        load(module, params)
        first = [p.detach().clone() for p in parameters]
        total = [torch.zeros_like(p) for p in parameters]
        for mine, size in zip(order, sizes, strict=True):
            with torch.no_grad():
                torch._foreach_copy_(parameters, first)
            for rows in mine:
                gradients = torch.autograd.grad(F.cross_entropy(module(x[rows]), y[rows]), parameters)
                with torch.no_grad():
                    torch._foreach_add_(parameters, gradients, alpha=-LR)
            with torch.no_grad():
                torch._foreach_add_(total, parameters, alpha=size / sum(sizes))
        return nn.utils.parameters_to_vector(total).detach().numpy()

    return one_round


def vmapped(work: Work, data: FederatedData) -> Round:
    """torch.func: vmap over clients of the gradient of one client, all batches stacked. Equal clients only."""
    module, x, y = modules(work), torch.from_numpy(data.x), torch.from_numpy(data.y)
    order = batches(work, data)
    stacked = [torch.stack([mine[t] for mine in order]) for t in range(len(order[0]))]
    names = [name for name, _ in module.named_parameters()]
    gradient = torch.func.vmap(torch.func.grad(
        lambda p, images, labels: F.cross_entropy(torch.func.functional_call(module, p, (images,)), labels)))

    def one_round(params: np.ndarray) -> np.ndarray:
        load(module, params)
        local = {name: p.detach().expand(len(order), *p.shape).clone() for name, p in module.named_parameters()}
        for rows in stacked:
            gradients = gradient(local, x[rows], y[rows])
            torch._foreach_add_([local[n] for n in names], [gradients[n] for n in names], alpha=-LR)
        return torch.cat([local[name].mean(0).flatten() for name in names]).numpy()

    return one_round


def competitors(work: Work) -> dict[str, Round]:
    data = work.federation()
    out = {"course": course(work, data, "auto"), "course, plain text": course(work, data, "rows")}
    out |= {"idiomatic loop": idiomatic(work, data), "optimised loop": sequential(work, data)}
    return out if work.ragged else {**out, "vmap": vmapped(work, data)}


# --- measuring -------------------------------------------------------------------------------------------------------


def busy_seconds() -> float:
    """Core seconds that this machine has worked since it started, or NaN where /proc/stat does not exist."""
    try:
        ticks = [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    except OSError:
        return float("nan")
    return (sum(ticks) - ticks[3] - ticks[4]) / 100


def block(one_round: Round, params: np.ndarray, seconds: float) -> tuple[float, float]:
    """(seconds a round, cores that others kept busy) over a block of about so many seconds."""
    before, mine, began, rounds = busy_seconds(), time.process_time(), time.perf_counter(), 0
    while time.perf_counter() - began < seconds or not rounds:
        one_round(params)
        rounds += 1
    wall = time.perf_counter() - began
    return wall / rounds, max(0.0, busy_seconds() - before - (time.process_time() - mine)) / wall


def measure(work: Work, turns: int, seconds: float) -> dict[str, dict[str, float]]:
    """For each competitor: median milliseconds a round, and the median ratio to the course within a turn."""
    params, players = work.model.init(stream(0, "init")), competitors(work)
    results = {name: play(params) for name, play in players.items()}
    for name, result in results.items():
        gap = float(np.abs(result - results["course"]).max())
        if not gap < 1e-4:
            raise AssertionError(f"{work.name}: {name} ends {gap:.1e} from the course; they do not do the same work")
    quiet: list[dict[str, float]] = []
    for _ in range(turns):
        taken = {name: block(play, params, seconds) for name, play in players.items()}
        if max(others for _, others in taken.values()) < QUIET:
            quiet.append({name: wall for name, (wall, _) in taken.items()})
    if len(quiet) < 3:
        return {}
    return {
        name: {
            "ms": 1e3 * float(np.median([turn[name] for turn in quiet])),
            "ratio": float(np.median([turn[name] / turn["course"] for turn in quiet])),
            "turns": float(len(quiet)),
        }
        for name in players
    }


# --- telling ---------------------------------------------------------------------------------------------------------


def write(rows: list[dict[str, object]], folder: Path, threads: int) -> None:
    """The table, the figure and the page."""
    with open(folder / "performance.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    draw(rows, folder / "performance.png")
    names = list(dict.fromkeys(str(row["competitor"]) for row in rows))
    page = [
        "# Performance", "",
        "Written by `python -m benchmarks.engine`; its docstring says how it measures. One round of FedAvg on MNIST, 100 clients",
        f"with two label shards and 40 images each, on {threads} thread(s), torch {torch.__version__}.",
        "Milliseconds a round, and in brackets how many times longer than the course's own engine in the same turn (medians).",
        "", "![Time of a round as a multiple of the course's engine](performance.png)", "",
        "| work | clients | " + " | ".join(names) + " |", "|---|---|" + "---|" * len(names),
    ]  # fmt: skip
    for work in dict.fromkeys((str(row["work"]), row["clients"]) for row in rows):
        cells = {row["competitor"]: row for row in rows if (row["work"], row["clients"]) == work}
        shown = [f"{cells[n]['ms']:.1f} ({cells[n]['ratio']:.1f}×)" if n in cells else "–" for n in names]
        page.append(f"| {work[0]} | {work[1]} | " + " | ".join(shown) + " |")
    (folder / "performance.md").write_text("\n".join(page) + "\n", encoding="utf-8")


def draw(rows: list[dict[str, object]], file: Path) -> None:
    from matplotlib.figure import Figure

    from fl_course.workbook.plots import draw_bars

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    ax = figure.subplots()
    names = [name for name in dict.fromkeys(str(row["competitor"]) for row in rows) if name != "course"]
    groups = {n: [(f"{r['work']}\n{r['clients']} clients", r["ratio"]) for r in rows if r["competitor"] == n] for n in names}
    draw_bars(ax, groups, x="work of a round", y="time / the course's engine")
    ax.axhline(1, color="black", linewidth=0.8)
    ax.tick_params(axis="x", labelsize=7)
    figure.savefig(file, dpi=100, metadata={"Software": None})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one small work, a fraction of a second; writes nothing")
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=0.4, help="length of a block")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "docs")
    args = parser.parse_args()
    if args.quick:
        figures = measure(Work("logistic", logistic(784, 10), 10), turns=4, seconds=0.1)
        ratios = {name: f"{figure['ratio']:.1f}×" for name, figure in figures.items()}
        print("the programs agree;", ratios or "no quiet turns, nothing to quote")
        return 0
    rows: list[dict[str, object]] = []
    for work in works():
        figures = measure(work, args.turns, args.seconds)
        if not figures:
            print(f"{work.name}, {work.clients} clients: fewer than three quiet turns, nothing to quote", file=sys.stderr)
        for name, figure in figures.items():
            rows.append({"work": work.name, "clients": work.clients, "competitor": name, **figure})
            shown = f"{figure['ms']:8.2f} ms  {figure['ratio']:6.2f}×  {figure['turns']:.0f} turns"
            print(f"{work.name:16} {work.clients:4} {name:20} {shown}", flush=True)
    if rows:
        write(rows, args.out, torch.get_num_threads())
    return 0 if rows else 1


if __name__ == "__main__":
    sys.exit(main())
