"""Is the own model worth it? Every client's own model on its own held-out examples, beside the three that it must beat.

    local only    the client trains alone, as often as the federation has rounds: what it has without anybody
    global        one model for all, by FedAvg
    pooled        one model, trained on everybody's examples in one place: what no federation is allowed to do

Ordinary functions of an experiment and a state, for the body of the caller's own `for`. The examples are held out from all
training; what is tuned at home is tuned on the client's training examples only. With n test examples, an accuracy p is known to
√(p(1 - p)/n), however good the method: see `luck`. The figures are an observer's, who sees everything and sends nothing; no
privacy guarantee covers them, for they are made of models and examples that never leave their clients.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from ..core import ClientId, Server, Task, Vector, is_whole, stream
from ..data.federated import FederatedData
from ..engine.models import Model
from ..engine.training import Trainer
from ..federation.coordinator import Coordinator
from ..federation.elsewhere import all_here
from ..federation.evaluation import Evaluation, fairness
from ..federation.history import state_of
from ..federation.state import State
from .split import ends, moved

ROOM = 4_000_000                    # numbers of test examples that are looked at together


def tasks_for(experiment: Coordinator, state: Any, data: FederatedData) -> tuple[list[Task], list[int], Trainer]:
    """What each of data's clients would be handed now; only those that have training examples.

    Returns the tasks, their places among the clients, and a trainer.
    """
    state = all_here(state_of(state) or experiment.initial())
    if state.server.params.shape != (experiment.model.dim,):
        raise ValueError(f"the state's model has {state.server.params.size} numbers, this experiment's {experiment.model.dim}")
    server = replace(state.server, state={})
    rows = [k for k, mine in enumerate(data.train) if len(mine)]
    tasks = [Task(data.ids[k], server, experiment.seed, dict(state.memory.get(data.ids[k], {}))) for k in rows]
    return tasks, rows, Trainer(experiment.training, experiment.model, data)


def own_models(experiment: Coordinator, state: Any, clients: Sequence[ClientId] | None = None) -> Vector:
    """(K, d): each client's own model (of all, if not said), made of what it downloads now and what lies in its drawer.

    state: a State, a History or None for the beginning. A client without training examples has none: its row is NaN.
    """
    data = experiment.data
    places = list(range(len(data))) if clients is None else [data.position(client) for client in clients]
    tasks, rows, trainer = tasks_for(experiment, state, data)
    wanted = {row: task for row, task in zip(rows, tasks, strict=True) if row in places}
    models = trainer.own(list(wanted.values())) if wanted else np.zeros((0, trainer.model.dim))
    return _rows(len(data), list(wanted), models)[places]


def _rows(clients: int, rows: Sequence[int], models: Any) -> Vector:
    """(K, d): the models in their clients' rows, NaN in the others."""
    every = np.full((clients, np.shape(models)[1]), np.nan, dtype=np.float32)
    every[rows] = models
    return every


def own_measure(experiment: Coordinator, state: Any) -> np.ndarray:
    """(K,): the accuracy (or rmse) of each client's own model on its own held-out examples; NaN without any."""
    return measure_each(experiment.model.whole, own_models(experiment, state), experiment.data)


@torch.no_grad()
@torch.inference_mode(False)
def measure_each(model: Model, models: Vector, data: FederatedData) -> np.ndarray:
    """(K,): of the models (K, d), one a client, each on that client's own test examples. NaN for a client without test or
    training examples; a model that has diverged has no right answer."""
    sizes = np.array([len(rows) for rows in data.test])
    scores = np.full(len(data), np.nan)
    able = [k for k in np.argsort(-sizes, kind="stable") if sizes[k] and len(data.train[k])]
    together = 1 if model.alone else max(1, ROOM // (max(1, sizes.max()) * math.prod(data.shape)))
    for start in range(0, len(able), together):
        some = able[start : start + together]
        rows = np.zeros((len(some), sizes[some[0]]), dtype=np.int64)               # padded with the first example of all
        for row, k in zip(rows, some, strict=True):
            row[: sizes[k]] = data.test[k]
        layers = model.layers(torch.tensor(models[some]))
        with torch.autocast("cpu", enabled=False):
            outputs = model.logits(layers, torch.from_numpy(data.x[rows])).numpy().astype(np.float64)
        for k, mine, out in zip(some, rows, outputs, strict=True):
            judged, _ = model.loss.judge(out[: sizes[k]], data.y[mine[: sizes[k]]])
            lost = ~np.isfinite(out[: sizes[k]]).all(axis=1)
            scores[k] = model.loss.measured(np.where(lost, 0.0 if model.loss.rising else np.inf, judged).mean())
    return scores


# --- what it must beat ----------------------------------------------------------------------------------------------------


def local_only(experiment: Coordinator, rounds: int) -> Vector:
    """(K, d): every client alone from the network's first values, in every round, with FedAvg's batches. NaN: no examples."""
    return _alone(experiment, experiment.data, rounds)


def _alone(experiment: Coordinator, data: FederatedData, rounds: int) -> Vector:
    trainer = Trainer(_plain_how(experiment), experiment.model.whole, data)
    start = trainer.model.init(stream(experiment.seed, "init"))
    clients = [k for k, rows in enumerate(data.train) if len(rows)]
    tasks = [Task(data.ids[k], Server(start), experiment.seed) for k in clients]
    return _rows(len(data), clients, np.stack(_go_on(trainer, tasks, rounds)))


def pooled(experiment: Coordinator, rounds: int) -> Vector:
    """(d,): one model, trained on the training examples of all clients together, with as many epochs as each client has alone."""
    data, everybody = experiment.data, "everybody"
    whole = replace(data, ids=(everybody,), train=(np.concatenate(data.train),), test=(np.concatenate(data.test),))
    how = _plain_how(experiment)
    if not is_whole(how.epochs):                                                   # the pool is no client: it does the most
        some = [Task(client, Server(np.zeros(1, np.float32)), experiment.seed) for client in experiment.clients]
        how = replace(how, epochs=max(how.epochs_of(task) for task in some))
    trainer = Trainer(how, experiment.model.whole, whole)
    task = Task(everybody, Server(trainer.model.init(stream(experiment.seed, "init"))), experiment.seed)
    return _go_on(trainer, [task], rounds)[0]


def global_model(experiment: Coordinator, rounds: int) -> Vector:
    """(d,): FedAvg's, with the same clients, local training, schedule and selection, and none of the stages."""
    plain = Coordinator(
        experiment.data, experiment.model.whole, _plain_how(experiment), experiment.schedule, experiment.selection,
        experiment.weights, fleet=experiment.fleet, evaluation=Evaluation(every=max(1, rounds)), seed=experiment.seed,
    )  # fmt: skip
    return plain.train(rounds).state.server.params


def baselines(experiment: Coordinator, rounds: int, alone: int | None = None) -> dict[str, np.ndarray]:
    """{"local only": (K,), "global": (K,), "pooled": (K,)}: the measure of each on the clients' own held-out examples.

    alone: the rounds of the first and the last, where everybody works in each; None: as many as the federation has. With
    fraction·rounds, a client takes as many steps alone as it takes on average when a fraction is asked.
    """
    alone = rounds if alone is None else alone
    if not is_whole(rounds, 0) or not is_whole(alone, 0):
        raise ValueError(f"rounds and alone must be whole numbers from 0, not {rounds!r} and {alone!r}")
    model, data = experiment.model.whole, experiment.data
    one, all_ = global_model(experiment, rounds), pooled(experiment, alone)
    models = {"local only": local_only(experiment, alone), "global": one, "pooled": all_}
    return {name: measure_each(model, np.broadcast_to(theta, (len(data), model.dim)), data) for name, theta in models.items()}


def _plain_how(experiment: Coordinator) -> Any:
    return replace(experiment.training, personal=None, private=None, correction=None)


def _go_on(trainer: Trainer, tasks: Sequence[Task], rounds: int) -> list[Vector]:
    """(d,) for each task: after so many rounds without anybody else."""
    for version in range(rounds):
        tasks = [replace(task, server=replace(task.server, version=version)) for task in tasks]
        tasks = [moved(task, theta) for task, theta in zip(tasks, ends(tasks, trainer.steps(tasks)), strict=True)]
    return [task.server.params for task in tasks]


# --- a fair comparison ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Comparison:
    """Distributions over clients, one a model: scores["own"], ["local only"], ["global"], ["pooled"], (K,) each."""

    scores: Mapping[str, np.ndarray]
    tests: np.ndarray                           # (K,) test examples of each client
    measure: str = "accuracy"
    rising: bool = True

    def rows(self) -> list[dict[str, float | str]]:
        """A row a model: mean, std and worst tenth over clients; luck, how much of that std chance alone would bring, since
        nobody has many test examples (a root mean square); wins, the share of clients that are better off than alone."""
        out: list[dict[str, float | str]] = []
        alone = self.scores.get("local only")
        for name, each in self.scores.items():
            spread = fairness(each, self.measure, self.rising)
            mean, std, worst = (spread.get(f"client_{self.measure}{end}", math.nan) for end in ("", "_std", "_worst10"))
            row: dict[str, float | str] = {"model": name, "mean": mean, "std": std, "worst tenth": worst}
            if self.measure == "accuracy":
                row["luck"] = math.sqrt(_mean(each * (1 - each) / np.maximum(self.tests - 1, 1)))     # n - 1: p is measured, too
            if alone is not None:
                better = each > alone if self.rising else each < alone
                row["wins"] = _mean(np.where(np.isnan(each) | np.isnan(alone), np.nan, better))
            out.append(row)
        return out

    def __repr__(self) -> str:
        rows = self.rows()
        lines = ["".join(f"{name:>12}" for name in rows[0])] if rows else []
        for row in rows:
            lines.append("".join(f"{value:>12}" if isinstance(value, str) else f"{value:>12.3f}" for value in row.values()))
        return "\n".join(lines)


def compare(experiment: Coordinator, state: Any, beside: Mapping[str, np.ndarray] | int | None = None) -> Comparison:
    """The clients' own models beside the baselines: those handed over, or those of so many rounds (None: the state's own)."""
    state = state_of(state) or experiment.initial()
    if not isinstance(beside, Mapping):
        beside = baselines(experiment, state.server.version if beside is None else beside)
    loss, tests = experiment.model.whole.loss, np.array([len(rows) for rows in experiment.data.test])
    return Comparison({"own": own_measure(experiment, state), **beside}, tests, loss.measure, loss.rising)


def luck(accuracy: np.ndarray | float, tests: np.ndarray | int) -> Any:
    """The standard deviation of an accuracy that is measured on so many examples, by chance alone: √(p(1 - p)/n)."""
    p, n = np.asarray(accuracy, float), np.asarray(tests, float)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.sqrt(p * (1 - p) / n)


def newcomers(
    experiment: Coordinator, state: Any, data: FederatedData, rounds: int = 1, beside: Mapping[str, Vector] | None = None
) -> dict[str, np.ndarray]:
    """Clients that never took part: data's, all of them. (N,) measures on their own held-out examples:

        as downloaded   the server's model, nothing done to it (not for methods whose server has only a part of one)
        own             after doing at home what the method does, for so many rounds against the same server; nothing is sent
        local only      alone, for as many rounds as the federation had
        beside          further models (d,) by name: {"global": global_model(…), "pooled": pooled(…)}
    """
    if not is_whole(rounds, 0):
        raise ValueError(f"rounds must be a whole number from 0, not {rounds!r}")
    state = state_of(state) or experiment.initial()
    if known := [client for client in data.ids if client in state.memory or client in state.reports]:
        raise ValueError(f"client {known[0]!r} took part; newcomers are clients that never did, see set_apart")
    tasks, rows, trainer = tasks_for(experiment, State(state.server), data)
    for r in range(rounds if experiment.training.personal is not None else 0):
        again = [replace(task, server=replace(task.server, version=state.server.version + r)) for task in tasks]
        trainer.train(again)                                                           # fills the drawers; nobody is told
    models = {"own": _rows(len(data), rows, trainer.own(tasks)), "local only": _alone(experiment, data, state.server.version)}
    if experiment.model.speaks:
        sent = np.broadcast_to(state.server.params, (len(data), trainer.model.dim))
        models = {"as downloaded": sent, **models}
    models |= {name: np.broadcast_to(theta, (len(data), trainer.model.dim)) for name, theta in (beside or {}).items()}
    return {name: measure_each(trainer.model, some, data) for name, some in models.items()}


def _mean(each: np.ndarray) -> float:
    known = each[~np.isnan(each)]
    return float(known.mean()) if len(known) else math.nan
