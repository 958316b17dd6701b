"""What the machine allows, and how the engine's cost grows: limits, stages, memory, clients, parameters, a busy neighbour.

Each function returns rows for a table of docs/performance.md. What needs a process of its own is run as
`python -m benchmarks.machine NAME …`, which prints one line of JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fl_course import Coordinator, LocalSGD, Synchronous, Task, WeightedMean, logistic, mlp, mnist
from fl_course.core import Server, stream
from fl_course.data.federated import FederatedData
from fl_course.engine import fused
from fl_course.engine.models import Dense
from fl_course.engine.training import Trainer
from fl_course.federation.evaluation import metrics_of
from fl_course.wire.messages import decode_update, encode_update

from .quiet import block, median, turns
from .work import LR, Round, Work, course, idiomatic, optimised, small_cnn, vmapped, whole_loop

Rows = list[dict[str, Any]]
SECONDS = 0.25


def compare(players: dict[str, Callable[[], object]], wanted: int = 5) -> list[dict[str, float]]:
    return turns({name: partial(block, play, SECONDS) for name, play in players.items()}, wanted)


# --- against the machine ---------------------------------------------------------------------------------------------


def products(work: Work) -> Callable[[], None]:
    """The matrix products of the textbook's algorithm alone: per step and layer forward, backward and weight gradient.

    About a million weights at a time; without the bias. Equal clients of 40 images in whole batches.
    """
    assert isinstance(work.model, Dense)
    assert 40 % work.batch == 0
    assert not work.ragged
    n, b, layers = work.clients, work.batch, list(pairwise(work.model.sizes))
    n = min(n, max(1, 10**6 // work.model.dim))
    W = [torch.randn(n, outputs, inputs) for inputs, outputs in layers]
    h = [torch.randn(n, b, inputs) for inputs, _ in layers]
    d = [torch.randn(n, b, outputs) for _, outputs in layers]
    out, back = [torch.empty_like(part) for part in d], [torch.empty_like(part) for part in h]

    def play() -> None:
        for _ in range(work.clients // n * work.epochs * 40 // b):
            for l in range(len(layers)):
                torch.bmm(h[l], W[l].transpose(1, 2), out=out[l])
            for l in reversed(range(len(layers))):
                if l > 0:
                    torch.bmm(d[l], W[l], out=back[l])
                W[l].baddbmm_(d[l].transpose(1, 2), h[l], alpha=-1e-9)

    return play


def operations(work: Work) -> tuple[float, float]:
    """(floating-point operations, bytes of weights read or written) of a round by the textbook's algorithm."""
    assert isinstance(work.model, Dense)
    assert 40 % work.batch == 0
    assert not work.ragged
    pairs = list(pairwise(work.model.sizes))
    examples, steps = work.clients * work.epochs * 40, work.clients * work.epochs * 40 // work.batch
    passes = [2 if l == 0 else 3 for l in range(len(pairs))]                        # no error is sent to the inputs
    flops = sum(2 * k * i * o for k, (i, o) in zip(passes, pairs, strict=True)) * examples
    moved = sum(4 * (k + 1) * i * o for k, (i, o) in zip(passes, pairs, strict=True)) * steps    # the step reads and writes
    return float(flops), float(moved)


def limits(works: list[Work]) -> Rows:
    """The course's round as a multiple of the products alone, of the operations at the GEMM rate, of the copied bytes."""
    A, B, C = (torch.randn(1024, 1024) for _ in range(3))
    big, copy = torch.randn(2**25), torch.empty(2**25)                              # 128 MB: far beyond the caches
    rows = []
    for work in works:
        data, first = work.federation(), work.first()
        quiet = compare({"course": partial(course(work, data), first), "products": products(work),
                         "idiomatic": partial(idiomatic(work, data), first),
                         "gemm": partial(torch.mm, A, B, out=C), "copy": partial(copy.copy_, big)})  # fmt: skip
        rate, speed = 2 * 1024**3 / median(quiet, "gemm"), 2 * 4 * 2**25 / median(quiet, "copy")    # flop/s, bytes/s
        flops, moved = operations(work)
        ms = 1e3 * median(quiet, "course")
        rows.append({"work": work.name, "clients": work.clients, "epochs": work.epochs, "ms": ms,
                     "products alone ms": 1e3 * median(quiet, "products"),
                     "course / products": median(quiet, "course", over="products"),
                     "idiomatic loop / products": median(quiet, "idiomatic", over="products"),
                     "operations at GEMM rate ms": 1e3 * flops / rate, "bytes at copy rate ms": 1e3 * moved / speed,
                     "GEMM Gflop/s": rate / 1e9, "copy GB/s": speed / 1e9, "turns": len(quiet)})  # fmt: skip
    return rows


def evaluation(works: list[Work]) -> Rows:
    """An evaluation on 1,000 held-out images, and the training of a round."""
    rows = []
    for work in works:
        data, first, (x, y) = work.federation(), work.first(), (mnist().x_test[:1000], mnist().y_test[:1000])
        quiet = compare({"training": partial(course(work, data), first),
                         "evaluation": partial(metrics_of, work.model, first, x, y)})  # fmt: skip
        rows.append({"work": str(work), "training, ms": 1e3 * median(quiet, "training"),
                     "evaluation, ms": 1e3 * median(quiet, "evaluation"),
                     "evaluation / training": median(quiet, "evaluation", over="training")})  # fmt: skip
    return rows


def stages(work: Work) -> Rows:
    """Where the time of a round goes: each part timed by itself."""
    data, first = work.federation(), work.first()
    trainer, server = Trainer(LocalSGD(lr=LR, epochs=work.epochs, batch_size=work.batch), work.model, data), Server(first)
    tasks = [Task(client, server) for client in data.ids[: work.clients]]
    updates = trainer.train(tasks)
    messages, whole = [encode_update(update) for update in updates], whole_loop(work, data)
    quiet = compare({
        "plan the batches": lambda: trainer.planner.plan(tasks, work.batch),
        "local training, planning included": lambda: trainer.train(tasks),
        "encode the updates": lambda: [encode_update(update) for update in updates],
        "decode the updates": lambda: [decode_update(message) for message in messages],
        "average": lambda: WeightedMean().combine(updates, [0] * len(updates)),
        "the whole round of the Coordinator": lambda: whole(first),
    })  # fmt: skip
    parts = list(quiet[0]) if quiet else []
    return [{"work": work.name, "clients": work.clients, "stage": part, "ms": 1e3 * median(quiet, part)} for part in parts]


def neighbour(work: Work) -> Rows:
    """One and two threads, with the other core idle and busy: medians of five blocks each, quiet or not."""
    data, first, rows = work.federation(), work.first(), []
    ways = {"one thread": ({}, 1), "LocalSGD(threads=2)": ({"threads": 2}, 1), "torch.set_num_threads(2)": ({}, 2)}
    rounds = {name: (course(work, data, **settings), threads) for name, (settings, threads) in ways.items()}
    kept = torch.get_num_threads()
    for busy in (False, True):
        other = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if busy else None
        time.sleep(0.5)
        try:
            for name, (one_round, threads) in rounds.items():
                torch.set_num_threads(threads)
                one_round(first)
                took = sorted(block(partial(one_round, first), SECONDS)[0] for _ in range(5))
                rows.append({"work": work.name, "clients": work.clients, "way": name,
                             "other core": "busy" if busy else "idle", "ms": 1e3 * took[2]})  # fmt: skip
        finally:
            torch.set_num_threads(kept)
            if other is not None:
                other.kill()
                other.wait()
    return rows


def choices() -> Rows:
    """What the engine's own choices are worth: an implicit first layer, and clients in one tensor (`together`)."""
    rows: Rows = []
    for inputs_units, hidden in ((784 * 32, (32,)), (784 * 64, (64,)), (784 * 200, (200, 200))):
        for epochs in (1, 5):
            work = Work("mlp", mlp(784, *hidden, 10), 10, epochs=epochs)
            data, first, players = work.federation(), work.first(), {}
            for name, large in (("implicit", 0), ("kept", 10**12)):
                players[name] = partial(with_large, large, course(work, data), first)
            quiet = compare(players)
            rows.append({"choice": "implicit first layer", "of": f"{inputs_units:,} weights, E={epochs}",
                         "instead of": "weights that are kept", "takes × as long": median(quiet, "implicit", over="kept")})
    for work in (Work("logistic", logistic(784, 10), 100), Work("2NN", mlp(784, 200, 200, 10), 100)):
        data, first = work.federation(), work.first()
        players = {str(together): partial(course(work, data, together=together), first) for together in (None, 1, 5, 20, 100)}
        quiet = compare(players)
        for name in list(players)[1:]:
            rows.append({"choice": f"together={name}", "of": f"{work.name}, 100 clients", "instead of": "chosen by size",
                         "takes × as long": median(quiet, name, over="None")})
    return rows


def with_large(large: int, one_round: Round, params: np.ndarray) -> None:
    """A round with another threshold fused.LARGE."""
    kept, fused.LARGE = fused.LARGE, large
    try:
        one_round(params)
    finally:
        fused.LARGE = kept


# --- how it grows ----------------------------------------------------------------------------------------------------


def tiny_clients(clients: int) -> FederatedData:
    """Clients of 14 examples with 20 numbers each, in 5 classes."""
    rng = stream(0, "benchmark-tiny")
    x, y = rng.standard_normal((14 * clients, 20), dtype=np.float32), rng.integers(0, 5, 14 * clients)
    rows, nobody = np.split(np.arange(len(x)), clients), (np.arange(0),) * clients
    return FederatedData("tiny", x, y, 5, tuple(range(clients)), tuple(rows), nobody, x[:50], y[:50])


def growth() -> Rows:
    """Milliseconds a round against the number of (tiny) clients, and against the number of parameters."""
    rows: Rows = []
    for clients in (10, 100, 1000, 10_000):
        data = tiny_clients(clients)
        trainer = Trainer(LocalSGD(lr=LR), logistic(20, 5), data)
        server = Server(np.zeros(105, np.float32))
        tasks = [Task(client, server) for client in data.ids]
        ms = 1e3 * median(compare({"course": partial(trainer.train, tasks)}), "course")
        rows.append({"against": "clients", "clients": clients, "d": 105, "ms": ms, "ms a client": ms / clients})
    for hidden in (1, 10, 100, 1000):
        work = Work("mlp", mlp(784, hidden, 10), 10)
        data, first = work.federation(), work.first()
        quiet = compare({"course": partial(course(work, data), first), "loop": partial(optimised(work, data), first)})
        ms = 1e3 * median(quiet, "course")
        rows.append({"against": "d", "clients": 10, "d": work.model.dim, "ms": ms, "ms a client": ms / 10,
                     "optimised loop / course": median(quiet, "loop", over="course")})  # fmt: skip
    return rows


# --- in a process of its own -----------------------------------------------------------------------------------------

MODELS = {"2NN": mlp(784, 200, 200, 10), "logistic": logistic(784, 10), "small CNN": small_cnn()}
WAYS = {"course": course, "idiomatic loop": idiomatic, "vmap": partial(vmapped, together=100), "vmap in tens": vmapped}


def resident_mb(peak: bool) -> float:
    """This process' memory in MB, now or at its peak; NaN without /proc."""
    try:
        with open("/proc/self/status", encoding="ascii") as file:
            lines = dict(line.split(":", 1) for line in file)
    except OSError:
        return float("nan")
    return int(lines["VmHWM" if peak else "VmRSS"].split()[0]) / 1024


def alone_memory(name: str, way: str) -> dict[str, float]:
    """Peak memory of five rounds with 100 clients (McMahan's CNN: of one), and what the process took before."""
    from .work import mcmahan_cnn

    work = Work(name, MODELS.get(name) or mcmahan_cnn(), 100)
    data, first = work.federation(), work.first()
    before = resident_mb(peak=True)
    one_round = WAYS[way](work, data)
    for _ in range(5 if name in MODELS else 1):
        one_round(first)
    return {"before MB": before, "peak MB": resident_mb(peak=True)}


def alone_first(name: str) -> dict[str, float]:
    """Seconds from the data to the end of the first round, everything but `import torch` and the images included."""
    work = Work(name, MODELS[name], 10)
    data, first, began = work.federation(), work.first(), time.perf_counter()
    course(work, data)(first)
    return {"first round s": time.perf_counter() - began}


def alone_many(rounds: str) -> dict[str, float]:
    """10,000 clients of 14 examples, 100 of them a round, in the Coordinator: memory early and late, seconds."""
    experiment = Coordinator(tiny_clients(10_000), logistic(20, 5), LocalSGD(lr=LR), Synchronous(0.01))
    began, early = time.perf_counter(), float("nan")
    for _, record in experiment.run(int(rounds)):
        early = resident_mb(peak=False) if record.version == int(rounds) // 10 else early
    return {"early MB": early, "late MB": resident_mb(peak=False), "seconds": time.perf_counter() - began}


ALONE = {"memory": alone_memory, "first": alone_first, "many": alone_many}


def alone(*words: str) -> dict[str, float]:
    """The answer of `python -m benchmarks.machine words…`."""
    done = subprocess.run([sys.executable, "-m", "benchmarks.machine", *words], capture_output=True, text=True,
                          cwd=Path(__file__).parent.parent)  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"benchmarks.machine {' '.join(words)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout)


def memory() -> Rows:
    asked = [(name, way) for name in ("logistic", "2NN", "small CNN") for way in ("course", "idiomatic loop")]
    asked += [("2NN", "vmap"), ("McMahan's CNN", "course"), ("McMahan's CNN", "vmap in tens"), ("McMahan's CNN", "vmap")]
    return [{"work": name, "clients": 100, "way": way, **alone("memory", name, way)} for name, way in asked]


def first_round() -> Rows:
    return [{"work": name, "clients": 10, **alone("first", name)} for name in MODELS]


if __name__ == "__main__":
    print(json.dumps(ALONE[sys.argv[1]](*sys.argv[2:])))
