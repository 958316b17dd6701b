"""Attacks and defences: the reproduction cards of chapter 9, and how fast the rules are beside other libraries.

    python -m benchmarks.robust bucketing [seeds]      robust rules lose when nobody attacks and clients differ; buckets mend it
    python -m benchmarks.robust backdoor [seeds]       one round of model replacement, and how long it lasts
    python -m benchmarks.robust inversion              PSNR against noise, examples in a step, epochs
    python -m benchmarks.robust speed                  n = 100, d = 100,000, beside byzfl where it can be imported
    python -m benchmarks.robust flower                 300 draws against flwr's own functions, where they can be imported

byzfl and flwr are no dependencies: put them on PYTHONPATH (pip install --target DIR byzfl flwr; byzfl also needs torchvision,
unless its aggregators are imported alone, as here).
"""

from __future__ import annotations

import importlib.util
import sys
import time
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from fl_course import (
    ALIE,
    IPM,
    Backdoor,
    Bucketing,
    Bulyan,
    CentredClipping,
    CoordinateMedian,
    Coordinator,
    Dirichlet,
    Evaluation,
    FederatedData,
    GeometricMedian,
    Krum,
    LabelFlip,
    LocalSGD,
    Mimic,
    MultiKrum,
    OutlierRemoval,
    Shards,
    Synchronous,
    TrimmedMean,
    Uniform,
    best_psnr,
    closed_form,
    digits,
    from_clients,
    mlp,
    psnr,
    stream,
    unit_inputs,
)
from fl_course.core import Server, Task
from fl_course.engine.training import Trainer

RULES: dict[str, Callable[[int], Any]] = {
    "mean": lambda f: TrimmedMean(0), "centred clipping": lambda f: CentredClipping(0.5), "RFA": GeometricMedian,
    "median": CoordinateMedian, "Krum": Krum,
}  # fmt: skip


def company(seed: int, good: int, liars: int) -> FederatedData:
    """Clients with about two classes each; and liars, who hold copies of examples of all kinds, so that
    nothing is lost when nobody listens to them."""
    data = digits().partition(Shards(2), clients=good, seed=seed, test_fraction=0.0)
    clients: dict[Any, Any] = {client: data.examples(client) for client in data.ids}
    rows = stream(seed, "liars").permutation(len(data.x))
    clients |= {good + k: (data.x[rows[60 * k : 60 * k + 60]], data.y[rows[60 * k : 60 * k + 60]]) for k in range(liars)}
    return from_clients("digits", clients, 10, data.x_test, data.y_test, test_fraction=0.0)


def bucketing(seeds: int, rounds: int = 200) -> dict[str, list[tuple[float, ...]]]:
    """Accuracy in percent after so many rounds of one full-batch step: alone → in buckets of two; mean [least, most] of seeds."""
    bad = range(20, 25)
    settings = {
        "nobody attacks, n 24": (24, 0, None), "mimic, n 25, f 5": (20, 5, Mimic(bad)), "IPM 0.1": (20, 5, IPM(bad, 0.1)),
        "ALIE": (20, 5, ALIE(bad)), "ALIE z 1.5": (20, 5, ALIE(bad, 1.5)), "label flip": (20, 5, LabelFlip(bad)),
    }  # fmt: skip
    table = {}
    for name, (good, f, attack) in settings.items():
        table[name] = [tuple(100 * accuracy(rule, attack, seed, good, f, rounds) for seed in range(seeds))
                       for make in RULES.values() for rule in (make(f), Bucketing(make(f), 2))]  # fmt: skip
        cells = [f"{np.mean(cell):5.1f} [{min(cell):.0f}, {max(cell):.0f}]" for cell in table[name]]
        pairs = [f"{rule}: {cells[2 * i]} → {cells[2 * i + 1]}" for i, rule in enumerate(RULES)]
        print(f"{name:22}", " | ".join(pairs), flush=True)
    return table


def accuracy(rule: Any, attack: Any, seed: int, good: int, f: int, rounds: int) -> float:
    it = Coordinator(company(seed, good, f), mlp(64, 32, 10), LocalSGD(lr=0.5, batch_size=None), Synchronous(1.0),
                     weights=Uniform(), seed=seed, aggregation=rule, attack=attack, evaluation=Evaluation(every=rounds))
    return it.train(rounds).records[-1].metrics["accuracy"]


def backdoor(seeds: int, before: int = 20, after: int = 40) -> None:
    """One attacker of 20, one round, γ = n/η; then it behaves. Success and accuracy, round by round."""
    for name, rule in (("mean", TrimmedMean(0)), ("median", CoordinateMedian(1)), ("Multi-Krum", MultiKrum(1)),
                       ("outliers", OutlierRemoval())):  # fmt: skip
        curves = []
        for seed in range(seeds):
            data = digits().partition(Dirichlet(1.0), clients=20, seed=seed)
            it = Coordinator(data, mlp(64, 32, 10), LocalSGD(lr=0.1, epochs=1), Synchronous(1.0), weights=Uniform(), seed=seed,
                             aggregation=rule, attack=Backdoor([3], epochs=5, versions=(before,)))  # fmt: skip
            records = it.train(before + after).records
            curves.append([(r.metrics["backdoor_success"], r.metrics["accuracy"]) for r in records])
        mean = np.array(curves)                                                                     # (seeds, rounds, 2)
        print(f"{name:11} rounds after the attack: success [least, most] / accuracy")
        for late in (-1, 0, 1, 2, 3, 5, 10, 20, 39):
            success, right = mean[:, before + late].T
            print(f"   {late + 1:3}  {success.mean():.2f} [{success.min():.2f}, {success.max():.2f}] / {right.mean():.2f}")
        half = [next((k for k, (s, _) in enumerate(curve[before:]) if s < 0.5), after) for curve in curves]
        print(f"   rounds until fewer than half of the stamped examples are taken for the target: {half}", flush=True)


def inversion() -> None:
    pool, model = digits(), mlp(64, 64, 10)
    start = model.init(stream(0, "init"))

    def sent(rows: Any, epochs: int = 1, batch: int | None = None) -> np.ndarray:
        data = from_clients("one", {0: (pool.x[rows], pool.y[rows])}, 10, test_fraction=0.0)
        how = LocalSGD(lr=0.1, epochs=epochs, batch_size=batch)
        return np.asarray(Trainer(how, model, data).train([Task(0, Server(start))])[0].delta)

    print("noise on every number, as a share of the clip bound (the update's own norm): median PSNR of 50 examples")
    for z in (0, 1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1):
        found = []
        for i in range(50):
            delta = sent([i])
            noise = z * np.linalg.norm(delta) * stream(1, "noise", i).standard_normal(delta.size)
            found.append(psnr(pool.x[i], np.clip(closed_form(model, delta + noise), 0, 1)))
        print(f"   {z:7g}: {np.median(found):6.1f} dB, {min(found):.1f} to {max(found):.1f}")
    print("examples in the update, epochs, batch: PSNR of the best unit for each of 320 examples: median, share above 30 dB")
    for count, epochs, batch in ((1, 1, None), (2, 1, None), (4, 1, None), (8, 1, None), (16, 1, None), (32, 1, None),
                                 (32, 3, None), (32, 1, 8), (32, 3, 8), (32, 10, 8)):  # fmt: skip
        found = [best_psnr(pool.x[r : r + count], np.clip(unit_inputs(model, sent(range(r, r + count), epochs, batch)), 0, 1))
                 for r in range(0, 320, count)]  # fmt: skip
        every = np.concatenate(found)
        print(f"   {count:3}, {epochs:2}, {batch or 'all':>3}: {np.median(every):6.1f} dB, {np.mean(every > 30):5.1%}")


def fastest(run: Callable[[], Any], repeats: int = 7) -> float:
    """Seconds of one core, of the fastest run: other programs on the machine do not count."""
    best = float("inf")
    for _ in range(repeats):
        start = time.process_time()
        run()
        best = min(best, time.process_time() - start)
    return best


def speed(n: int = 100, d: int = 100_000, f: int = 10) -> None:
    """Milliseconds of one core; ours take float32 rows and compute in float64. byzfl's geometric median takes three steps of
    Weiszfeld and stops; ours has converged. OPENBLAS_NUM_THREADS=1 keeps NumPy's threads from spinning."""
    x = stream(0, "speed").standard_normal((n, d)).astype(np.float32)
    peer = byzfl()
    print(f"n {n}, d {d:,}, f {f}, {torch.get_num_threads()} thread")
    for name, rule, theirs in (("Krum", Krum(f), "Krum"), ("Multi-Krum", MultiKrum(f), "MultiKrum"),
                               ("geometric median", GeometricMedian(), "GeometricMedian"),
                               ("median", CoordinateMedian(), "Median"), ("trimmed mean", TrimmedMean(f), "TrMean"),
                               ("Bulyan", Bulyan(f), "")):  # fmt: skip
        mine = fastest(lambda rule=rule: rule(x))                                                   # type: ignore[misc]
        line = f"   {name:17} {1000 * mine:8.1f} ms"
        if peer is not None and theirs:
            other = getattr(peer, theirs)(*([] if theirs in ("GeometricMedian", "Median") else [f]))
            kinds = {"NumPy float32": x, "NumPy float64": x.astype(np.float64), "torch float32": torch.from_numpy(x)}
            for kind, rows in kinds.items():
                seconds = fastest(lambda other=other, rows=rows: other(rows), 3)                    # type: ignore[misc]
                line += f"   byzfl, {kind}: {1000 * seconds:8.1f} ms = {seconds / mine:5.1f} ×"
        print(line, flush=True)


def byzfl() -> Any:
    """Its aggregators alone; the package itself imports torchvision."""
    where = importlib.util.find_spec("byzfl")
    if where is None or where.submodule_search_locations is None:
        print("byzfl cannot be imported: our own times alone")
        return None
    bare = types.ModuleType("byzfl")
    bare.__path__ = list(where.submodule_search_locations)
    sys.modules["byzfl"] = bare
    return importlib.import_module("byzfl.aggregators.aggregators")


def flower(draws: int = 300) -> None:
    """The largest difference between our rules and flwr's own functions. Where two nearest neighbours tie, flwr takes whoever
    came first, and we whoever is nearer to all (Krum of three; Bulyan's last choices with f of 1 or 2): those are left out."""
    theirs = importlib.import_module("flwr.server.strategy.aggregate")
    worst: dict[str, float] = {}
    for seed in range(draws):
        rng = stream(seed, "flower")
        f = int(rng.integers(0, 5))
        x = rng.standard_normal((int(rng.integers(4 * f + 4, 4 * f + 12)), int(rng.integers(1, 9)))) * rng.uniform(0.1, 5)

        def results(x: np.ndarray = x) -> Any:
            return [([row.copy()], 1) for row in x]

        n = len(x)
        pairs = {"median": (CoordinateMedian(f), theirs.aggregate_median(results())),
                 "trimmed mean": (TrimmedMean(f), theirs.aggregate_trimmed_avg(results(), f / n + 1e-9)),
                 "Krum": (Krum(f), theirs.aggregate_krum(results(), f, 0)),
                 "Multi-Krum": (MultiKrum(f), theirs.aggregate_krum(results(), f, n - f))}  # fmt: skip
        if f not in (1, 2):
            pairs["Bulyan"] = (Bulyan(f), theirs.aggregate_bulyan(results(), f, theirs.aggregate_krum, to_keep=0))
        for name, (rule, answer) in pairs.items():
            worst[name] = max(worst.get(name, 0.0), float(np.abs(rule(x) - answer[0]).max()))
    print(f"{draws} draws, largest difference:", {name: f"{value:.1e}" for name, value in worst.items()})


def main(what: str = "", *more: str) -> int:
    known = (bucketing, backdoor, inversion, speed, flower)
    programs: dict[str, Callable[..., Any]] = {program.__name__: program for program in known}
    if what not in programs:
        print(__doc__)
        return 0 if not what else 2
    programs[what](*([int(more[0]) if more else 5] if what in ("bucketing", "backdoor") else []))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
