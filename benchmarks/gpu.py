"""One round of local training with every tensor on a GPU: a cohort at once, beside what one would write instead.

    python -m benchmarks gpu                  on the GPU that is there; writes its table into docs/performance.md
    python -m benchmarks gpu --quick          small works on any machine, nothing written: shows that the programs agree

Everybody does the same steps (E = 1, B = 10, 40 images a client) and must end in the same model. *cohort*: the course,
`LocalSGD(device="cuda")`, with the updates back on the CPU; *whole loop*: a round of the Coordinator; *module after
module*: one module on the GPU, its data there too; *idiomatic*: deepcopy, DataLoader, `torch.optim.SGD`, on the GPU and
on one core of the CPU. Loops over clients do the first 20 of them, and their time is multiplied. Medians of five.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from fl_course import Coordinator, Evaluation, LocalSGD, Synchronous, Task, logistic, mlp, mnist
from fl_course.core import Server, stream
from fl_course.data.federated import FederatedData
from fl_course.engine.models import Model
from fl_course.engine.training import Trainer

from .report import GPUS
from .work import LR, Work, as_module, batches, mcmahan_cnn, small_cnn

FEW = 20                # clients that a loop trains
WORKS = [(name, model, n) for name, model, counts in (
    ("logistic", logistic(784, 10), (100, 1_000, 10_000)), ("2NN", mlp(784, 200, 200, 10), (100, 1_000)),
    ("small CNN", small_cnn(), (100, 1_000)), ("McMahan's CNN", mcmahan_cnn(), (100,))) for n in counts]  # fmt: skip
QUICK = [("logistic", logistic(784, 10), 30), ("2NN", mlp(784, 20, 10), 25), ("small CNN", small_cnn(), 20)]


def federation(clients: int) -> FederatedData:
    """Each client with 40 images by lot: there may be more clients than images to be dealt, so some images come twice."""
    data, rng = mnist(), stream(0, "benchmark clients")
    drawn = np.concatenate([np.sort(rng.choice(len(data.x), 40, replace=False)) for _ in range(clients)])
    rows = tuple(np.split(np.arange(len(drawn)), clients))
    nothing = tuple(np.arange(0) for _ in rows)
    x, y = data.x[drawn], data.y[drawn]
    return FederatedData("mnist, by lot", x, y, 10, tuple(range(clients)), rows, nothing, data.x_test, data.y_test)



def seconds(device: str, work: Callable[[], object], turns: int = 5) -> float:
    """Median of so many calls after one that does not count, the device having finished."""

    def once() -> float:
        began = time.perf_counter()
        work()
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        return time.perf_counter() - began

    once()
    return statistics.median(once() for _ in range(turns))


def one_after_another(work: Work, data: FederatedData, device: str) -> Callable[[], torch.Tensor]:
    """(FEW, d): the first clients by one module whose data and parameters are on the device."""
    module, x, y = as_module(work.model).to(device), torch.tensor(data.x, device=device), torch.tensor(data.y, device=device)
    first = torch.tensor(work.first(), device=device)
    order = [[rows.to(device) for rows in mine] for mine in batches(replace(work, clients=FEW), data)]
    parameters = list(module.parameters())

    def train() -> torch.Tensor:
        ends = []
        for mine in order:
            with torch.no_grad():
                nn.utils.vector_to_parameters(first.clone(), parameters)
            for rows in mine:
                gradients = torch.autograd.grad(F.cross_entropy(module(x[rows]), y[rows]), parameters)
                with torch.no_grad():
                    torch._foreach_add_(parameters, gradients, alpha=-LR)
            ends.append(nn.utils.parameters_to_vector(parameters).detach().clone())
        return torch.stack(ends)

    return train


def idiomatic(work: Work, data: FederatedData, device: str) -> Callable[[], torch.Tensor]:
    """(FEW, d): the first clients as in a tutorial; batches come from a DataLoader and go to the device."""
    module = as_module(work.model)
    nn.utils.vector_to_parameters(torch.from_numpy(work.first()), module.parameters())
    module.to(device)
    order = [torch.cat(mine) for mine in batches(replace(work, clients=FEW), data)]

    def train() -> torch.Tensor:
        ends = []
        for rows in order:
            local = copy.deepcopy(module)
            optimizer = torch.optim.SGD(local.parameters(), lr=LR)
            mine = TensorDataset(torch.from_numpy(data.x[rows]), torch.from_numpy(data.y[rows]))
            for images, labels in DataLoader(mine, work.batch):
                optimizer.zero_grad()
                F.cross_entropy(local(images.to(device)), labels.to(device)).backward()
                optimizer.step()
            ends.append(nn.utils.parameters_to_vector(local.parameters()).detach())
        return torch.stack(ends)

    return train


def measure(name: str, model: Model, clients: int, device: str, turns: int = 5) -> dict[str, object]:
    """A row of the table: milliseconds a round."""
    work, data = Work(name, model, clients), federation(clients)
    how, first = LocalSGD(lr=LR, batch_size=work.batch, device=device), work.first()
    trainer, tasks = Trainer(how, model, data), [Task(client, Server(first)) for client in data.ids]
    experiment = Coordinator(data, model, how, Synchronous(1.0), evaluation=Evaluation(every=10**9))
    rounds = experiment.run(turns + 1, experiment.initial(first))
    loops = {"module after module": one_after_another(work, data, device),
             "idiomatic, same device": idiomatic(work, data, device),
             "idiomatic, one CPU core": idiomatic(work, data, "cpu")}  # fmt: skip
    changes = np.stack([update.delta for update in trainer.train(tasks)[:FEW]])
    for loop, train in loops.items():
        gap = float(np.abs(train().cpu().numpy() - first - changes).max())
        if not gap < (1e-3 if "CNN" in name else 1e-4):
            raise AssertionError(f"{work}: {loop} ends {gap:.1e} from the cohort; they do not do the same work")
    many = clients / min(FEW, clients)
    times = {"cohort": seconds(device, lambda: trainer.train(tasks), turns),
             "whole loop": seconds(device, lambda: next(rounds), turns)}  # fmt: skip
    times |= {loop: many * seconds(device if "CPU" not in loop else "cpu", train, turns) for loop, train in loops.items()}
    row: dict[str, object] = {"work": f"{name}, {clients:,} clients"} | {what: round(1e3 * t, 1) for what, t in times.items()}
    return row | {"times the idiomatic loop": round(times["idiomatic, same device"] / times["cohort"])}


def table(rows: list[dict[str, object]], card: str) -> str:
    head = list(rows[0])
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(map(str, row.values())) + " |" for row in rows]
    title = f"### {card}, torch {torch.__version__}\n\nMilliseconds a round, `python -m benchmarks gpu`."
    return title + "\n\n" + "\n".join(lines) + "\n"


def write(page: Path, text: str, card: str) -> None:
    """Put a card's table into the page, in the place of its older one."""
    whole = page.read_text(encoding="utf-8")
    before, _, after = whole.partition(GPUS) if GPUS in whole else (whole.rstrip() + "\n\n", "", "")
    sections = [part for part in after.split("\n### ")[1:] if not part.startswith(card)]
    body = "\n\n".join([GPUS, *("### " + part.strip() for part in sections), text.strip()])
    page.write_text(before + body + "\n", encoding="utf-8")


def main(page: Path, quick: bool) -> int:
    torch.set_num_threads(1)
    device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu:0"
    if quick:
        for work in QUICK:
            print(measure(*work, device, turns=1))
        print("the programs agree")
        return 0
    if device == "cpu:0":
        print("there is no GPU on this machine, torch sees none; --quick shows that the programs agree")
        return 1
    card = torch.cuda.get_device_name(0) if device == "cuda" else "Apple GPU (mps)"
    rows = []
    for work in WORKS:
        rows.append(measure(*work, device))
        print(rows[-1], flush=True)
        write(page, table(rows, card), card)
    return 0
