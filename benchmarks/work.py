"""One round of federated averaging, by this course and by what one would write instead, in the same process.

Everybody does the same: the same images, clients, batches in the same order, number of SGD steps and first model. A
competitor is a function round(params) -> new params (d,), always called with the first model.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Sampler, Subset, TensorDataset

from fl_course import (
    ConvNet,
    Coordinator,
    Evaluation,
    LocalSGD,
    QuantitySkew,
    Shards,
    Synchronous,
    Task,
    Wrapped,
    logistic,
    mlp,
    mnist,
)
from fl_course.core import Server, stream
from fl_course.data.federated import FederatedData
from fl_course.engine.batches import client_keys, plan_batches, round_key, splitmix, width
from fl_course.engine.models import Dense, Model
from fl_course.engine.training import Trainer
from fl_course.federation.dispatch import Idle
from fl_course.federation.work import Work as Hands

LR = 0.1
Round = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Work:
    """What is computed in a round: so many of 100 clients, E epochs over 40 images each in batches of B.

    ragged: the clients hold unequal amounts, from a few images to some two hundred.
    """

    name: str
    model: Model
    clients: int
    epochs: int = 1
    batch: int = 10
    ragged: bool = False

    def __str__(self) -> str:
        return f"{self.name}, {self.clients} clients, E={self.epochs}, B={self.batch}{', ragged' if self.ragged else ''}"

    def federation(self) -> FederatedData:
        rule = QuantitySkew(1.0) if self.ragged else Shards(2)
        return mnist().partition(rule, clients=100, test_fraction=0.0)

    def first(self) -> np.ndarray:
        """(d,) the model that every round starts from."""
        return self.model.init(stream(0, "init"))


def small_cnn() -> ConvNet:
    """Two 3×3 convolutions of 8 and 16 channels with group norm: 9,146 parameters."""
    return ConvNet(28, 10, widths=(8, 16))


def mcmahan_cnn() -> Wrapped:
    """The CNN of McMahan et al. 2017: two 5×5 convolutions of 32 and 64 channels, 512 hidden units; 1,663,370 parameters."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Wrapped(nn.Sequential(
            nn.Flatten(), nn.Unflatten(1, (1, 28, 28)), nn.Conv2d(1, 32, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(3136, 512), nn.ReLU(),
            nn.Linear(512, 10),
        ))  # fmt: skip


def works() -> list[Work]:
    models = {"logistic": logistic(784, 10), "2NN": mlp(784, 200, 200, 10), "small CNN": small_cnn()}
    out = [Work(name, model, clients) for name, model in models.items() for clients in (10, 100)]
    out += [replace(work, epochs=5) for work in out[:6:2]] + [replace(work, batch=32) for work in out[:6:2]]
    out += [replace(work, ragged=True) for work in (out[1], out[3], out[4])]
    return [*out, Work("McMahan's CNN", mcmahan_cnn(), 10)]


def batches(work: Work, data: FederatedData) -> list[list[torch.Tensor]]:
    """For each client its batches in order: what the course's plan says, unpadded."""
    out = []
    for client, rows in zip(data.ids[: work.clients], data.train, strict=False):
        key = splitmix(client_keys([client]) ^ round_key(0, 0))
        plan = plan_batches([rows], key, np.array([work.epochs]), width(len(rows), work.batch))
        out.append([torch.from_numpy(plan.rows[t, 0, : plan.count[t, 0]]) for t in range(int(plan.steps[0]))])
    return out


def course(work: Work, data: FederatedData, **settings: Any) -> Round:
    """This course: a cohort at once; settings of LocalSGD such as threads or engine. The average is part of the work."""
    trainer = Trainer(LocalSGD(lr=LR, epochs=work.epochs, batch_size=work.batch, **settings), work.model, data)
    sizes = [len(part) for part in data.train[: work.clients]]

    def one_round(params: np.ndarray) -> np.ndarray:
        server = Server(params)
        updates = trainer.train([Task(client, server) for client in data.ids[: work.clients]])
        total = torch.from_numpy(params.copy())
        for size, update in zip(sizes, updates, strict=True):
            total.add_(torch.from_numpy(update.delta), alpha=size / sum(sizes))
        return total.numpy()

    return one_round


def with_threads(threads: int, one_round: Round) -> Round:
    """The same with so many of torch's own threads, which share every product among them."""

    def threaded(params: np.ndarray) -> np.ndarray:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            return one_round(params)
        finally:
            torch.set_num_threads(before)

    return threaded


def whole_loop(work: Work, data: FederatedData) -> Round:
    """A round of the course's Coordinator: also selection, a simulated clock, every message encoded, decoded and checked."""
    some = replace(data, ids=data.ids[: work.clients], train=data.train[: work.clients], test=data.test[: work.clients])
    how = LocalSGD(lr=LR, epochs=work.epochs, batch_size=work.batch)
    experiment = Coordinator(some, work.model, how, Synchronous(1.0), evaluation=Evaluation(every=10**9))
    hands = Hands(Trainer(how, work.model, some), experiment.pipeline, strict=True)

    def one_round(params: np.ndarray) -> np.ndarray:
        state, *_ = experiment._round(experiment.initial(params), hands, Idle(experiment.clients))
        return state.server.params

    return one_round


def as_module(model: Model) -> nn.Module:
    """The same network as one writes it in torch: a module a layer, whose parameters lie in the same order."""
    layers: list[nn.Module] = []
    if isinstance(model, ConvNet):
        for inputs, outputs in zip((model.channels, *model.widths), model.widths, strict=False):
            convolution, norm = nn.Conv2d(inputs, outputs, 3, padding=1), nn.GroupNorm(model.groups, outputs)
            layers += [convolution, norm, nn.ReLU(), nn.MaxPool2d(2)]
        head = nn.Linear(model.shapes()["head.weight"][1], model.classes)
        return nn.Sequential(nn.Unflatten(1, (model.channels, model.side, model.side)), *layers, nn.Flatten(), head)
    if not isinstance(model, Dense):
        module = model.single()
        assert module is not None
        return module
    for inputs, outputs in zip(model.sizes, model.sizes[1:], strict=False):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def load(module: nn.Module, params: np.ndarray) -> None:
    nn.utils.vector_to_parameters(torch.from_numpy(params.copy()), module.parameters())


class InOrder(Sampler[int]):
    """Stands where shuffle=True would: each epoch visits the client's examples in the order that was planned for it."""

    def __init__(self, epochs: list[list[int]]) -> None:
        self.epochs, self.next = epochs, 0

    def __iter__(self) -> Iterator[int]:
        self.next += 1
        return iter(self.epochs[self.next - 1])


def idiomatic(work: Work, data: FederatedData) -> Round:
    """As in a tutorial: deepcopy, Subset, DataLoader, torch.optim.SGD, an average of state dicts."""
    module, everything = as_module(work.model), TensorDataset(torch.from_numpy(data.x), torch.from_numpy(data.y))
    mine = [[int(row) for row in part] for part in data.train[: work.clients]]
    orders = []
    for rows, planned in zip(mine, batches(work, data), strict=True):
        place, order = {row: k for k, row in enumerate(rows)}, torch.cat(planned).tolist()
        orders.append([[place[row] for row in order[e : e + len(rows)]] for e in range(0, len(order), len(rows))])

    def one_round(params: np.ndarray) -> np.ndarray:
        load(module, params)
        states = []
        for rows, epochs in zip(mine, orders, strict=True):
            local = copy.deepcopy(module)
            optimizer = torch.optim.SGD(local.parameters(), lr=LR)
            loader = DataLoader(Subset(everything, rows), batch_size=work.batch, sampler=InOrder(epochs))
            local.train()
            for _ in range(work.epochs):
                for images, labels in loader:
                    optimizer.zero_grad()
                    loss = F.cross_entropy(local(images), labels)
                    loss.backward()
                    optimizer.step()
            states.append(local.state_dict())
        weights = [len(rows) / sum(map(len, mine)) for rows in mine]
        average = {name: sum(w * s[name] for w, s in zip(weights, states, strict=True)) for name in states[0]}
        module.load_state_dict(average)
        return nn.utils.parameters_to_vector(module.parameters()).detach().numpy()

    return one_round


def optimised(work: Work, data: FederatedData) -> Round:
    """The same without the comfort: one module, tensors sliced by hand, no optimiser object, foreach updates."""
    module, x, y = as_module(work.model), torch.from_numpy(data.x), torch.from_numpy(data.y)
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


def vmapped(work: Work, data: FederatedData, together: int = 10) -> Round:
    """torch.func: vmap over clients of the gradient of one client, so many at a time. Equal clients only."""
    module, x, y = as_module(work.model), torch.from_numpy(data.x), torch.from_numpy(data.y)
    order = batches(work, data)
    stacked = [torch.stack([mine[t] for mine in order]) for t in range(len(order[0]))]
    names = [name for name, _ in module.named_parameters()]
    gradient = torch.func.vmap(torch.func.grad(
        lambda p, images, labels: F.cross_entropy(torch.func.functional_call(module, p, (images,)), labels)))

    def one_round(params: np.ndarray) -> np.ndarray:
        load(module, params)
        first = {name: p.detach() for name, p in module.named_parameters()}
        total = {name: torch.zeros_like(p) for name, p in first.items()}
        for start in range(0, len(order), together):
            some = slice(start, min(start + together, len(order)))
            local = {name: p.expand(some.stop - start, *p.shape).clone() for name, p in first.items()}
            for rows in stacked:
                gradients = gradient(local, x[rows[some]], y[rows[some]])
                torch._foreach_add_([local[n] for n in names], [gradients[n] for n in names], alpha=-LR)
            for name in names:
                total[name] += local[name].sum(0) / len(order)
        return torch.cat([total[name].flatten() for name in names]).numpy()

    return one_round


def competitors(work: Work) -> dict[str, Round]:
    """Everybody who can do this work in this process, the course first."""
    data = work.federation()
    out = {"course": course(work, data), "course, threads=2": course(work, data, threads=2)}
    out["course, torch's 2 threads"] = with_threads(2, course(work, data))
    out |= {"course, plain text": course(work, data, engine="rows"), "course, whole loop": whole_loop(work, data)}
    out |= {"idiomatic loop": idiomatic(work, data), "optimised loop": optimised(work, data)}
    if not work.ragged:
        out["vmap"] = vmapped(work, data, together=100 if work.model.dim < 10_000 else 10)
    return out


def export(work: Work, file: Path) -> None:
    """The work as the peers read it, see peers/protocol.py: the same order in every epoch, that of the first."""
    data, sizes = work.federation(), [len(part) for part in work.federation().train[: work.clients]]
    rows = [torch.cat(mine).numpy()[:size] for mine, size in zip(batches(work, data), sizes, strict=True)]
    model = work.model
    if isinstance(model, Dense):
        kind: dict[str, Any] = {"kind": "dense", "sizes": model.sizes}
    else:
        assert isinstance(model, ConvNet)
        kind = {"kind": "conv", **{name: getattr(model, name) for name in ("side", "classes", "channels", "widths", "groups")}}
    meta = json.dumps({"model": kind, "epochs": work.epochs, "batch": work.batch, "lr": LR})
    np.savez(file, x=data.x.reshape(len(data.x), -1), y=data.y, rows=np.concatenate(rows), sizes=np.array(sizes),
             init=work.first(), meta=meta)  # fmt: skip
