"""Against client drift: FedProx, SCAFFOLD and FedDyn correct each local gradient, FedNova weighs the steps.

Clients with different data walk towards different minima, the further the more local steps they take, and the average
of where they end is not the minimum of the average loss. The four methods mend that in four places:

    method     each local step adds to the gradient g          server                                   beside the model
    FedProx    mu·(theta - anchor)                             as before                                nothing
    Scaffold   c - c_k                                         c is the mean of all clients' c_k        c down, Δc_k up
    FedDyn     alpha·(theta - anchor) - h_k                    the mean model - h/alpha                 nothing
    FedNova    nothing                                         mean of delta per step, times steps      the steps up

The first three are an `Affine` correction of the one local trainer; FedNova is a `Stage`. `Stragglers` says which devices do
only part of their epochs. theta, anchor (the broadcast model), c and h are (d,) float32.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from ..core import Aggregate, ClientId, CompositionError, Context, Server, Task, Update, Vector, is_whole, plain_counts
from ..engine.correction import Affine
from ..federation.fleet import Equal, LogNormal
from ..federation.interfaces import Experiment, Gradient, Stage
from ..federation.optimizers import FedAvg
from ..federation.sampling import UniformSelection
from ..federation.schedule import Synchronous
from ..federation.stages import ByExamples, Uniform, dense


def _at_least_zero(name: str, value: float) -> None:
    if not (value >= 0 and math.isfinite(value)):
        raise ValueError(f"{name} must be at least 0 and finite, not {value}")


@dataclass(frozen=True)
class Stragglers:
    """Devices that do not manage all their epochs: LocalSGD(epochs=Stragglers(share=0.9, epochs=20)).

    In every round each client is a straggler with probability `share`, and then does a whole number of epochs drawn
    evenly from 1 … epochs - 1 (Li et al. 2020, section 5.2, as in the authors' program); the others do all `epochs`.
    """

    share: float = 0.5
    epochs: int = 20

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ValueError(f"share must be a probability in [0, 1], not {self.share}")
        if not is_whole(self.epochs, 2):
            raise ValueError(f"epochs must be a whole number from 2 (stragglers do fewer), not {self.epochs}")
        plain_counts(self)

    def __call__(self, client: ClientId, rng: np.random.Generator) -> int:
        late = rng.random() < self.share
        partial_work = int(rng.integers(1, self.epochs))
        return partial_work if late else self.epochs


@dataclass(frozen=True)
class FedProx(Affine):
    """The client minimises L_k(w) + mu/2·‖w - w_global‖²: its gradient gains mu·(w - w_global) (Li et al. 2020, eq. 2).

    mu = 0 is FedAvg. Large mu keeps clients near the broadcast model: less drift, and less progress a round; mu·lr must
    stay below 2, or the proximal term itself diverges.
    """

    mu: float = 0.1
    keeps_zeros = True

    def __post_init__(self) -> None:
        _at_least_zero("mu", self.mu)

    def pull(self) -> float:
        return self.mu

    def check(self, experiment: Experiment) -> None:
        lr = experiment.training.lr
        if self.mu * lr >= 2:
            raise CompositionError(
                f"FedProx(mu={self.mu}) with lr={lr} has mu·lr = {self.mu * lr:g}: every step overshoots the broadcast "
                f"model by at least as much as it was away from it; choose lr below {2 / self.mu:g} or a smaller mu."
            )


@dataclass(frozen=True)
class Scaffold(Affine):
    """SCAFFOLD (Karimireddy et al. 2020, algorithm 1): y ← y - lr·(g_k(y) - c_k + c).

    c_k is client k's last word on its own gradient, c the mean of all c_k, so the sum corrects g_k towards the gradient
    of everybody. `option` is how a client renews c_k after its K steps from x to y (algorithm 1, line 12):

        1   c_k ← g_k(x), the full gradient at the broadcast model: exact, one more pass over the data
        2   c_k ← c_k - c + (x - y)/(K·lr), the mean of the gradients that it has just walked along: free

    The first round, with zero controls, is FedAvg. Everything doubles on the wire. c counts clients, not examples, so
    the fixed point is the minimum of the plain mean of the clients' losses, whatever the weights of the model average;
    with clients of unequal size say weights=Uniform() so that both agree.
    """

    option: int = 2

    def __post_init__(self) -> None:
        if not is_whole(self.option, 1) or self.option > 2:
            raise ValueError(f"option must be 1 (full gradient) or 2 (from the steps taken), not {self.option!r}")
        plain_counts(self)

    def shift(self, task: Task) -> Vector:
        return _zero_or(task.server.extras.get("control"), task) - _zero_or(task.memory.get("control"), task)

    def finish(self, task: Task, delta: Vector, steps: int, lr: float, gradient: Gradient) -> dict[str, Vector]:
        mine = _zero_or(task.memory.get("control"), task)
        if self.option == 1:
            renewed = gradient()
        else:
            renewed = mine - _zero_or(task.server.extras.get("control"), task) - delta / np.float32(steps * lr)
        task.memory["control"] = renewed
        return {"control": renewed - mine}

    def sends(self, server: Server) -> dict[str, Vector]:
        return {"control": np.zeros_like(server.params)}

    def absorb(self, server: Server, aggregate: Aggregate, arrived: int, clients: int) -> Server:
        """c ← c + |S|/N·mean Δc_k (algorithm 1, line 17): those who have never taken part count with c_k = 0."""
        change = np.float32(arrived / clients) * aggregate.extras["control"]
        return replace(server, extras={**server.extras, "control": server.extras.get("control", 0) + change})

    def check(self, experiment: Experiment) -> None:
        _refuse_stale("Scaffold", experiment)
        _refuse_leak("Scaffold", "control variates Δc_k, which are gradients,", experiment)
        if self.option == 2 and experiment.training.momentum:
            raise CompositionError(
                f"Scaffold(option=2) reads the mean gradient off the way walked, (x - y)/(K·lr), but momentum="
                f"{experiment.training.momentum} lengthens that way; use momentum=0, or Scaffold(option=1)."
            )


@dataclass(frozen=True)
class FedDyn(Affine):
    """FedDyn (Acar et al. 2021, algorithm 1): the client minimises L_k(w) - ⟨h_k, w⟩ + alpha/2·‖w - w_global‖².

    Afterwards h_k ← h_k - alpha·delta, so that at rest h_k is the client's own gradient and the client stays put. The
    server keeps h, the mean of all h_k, in its private state and sends out the mean model - h/alpha. It reads h off the mean
    delta, so that must be the mean of what the clients walked: no clipping, rounding or leaving out on the way, and clients
    that count alike (weights=Uniform()), or all of them in every step; h is then the weighted mean.

    alpha = 0 is FedAvg by definition. It is not the limit of small alpha: -h/alpha is then the sum of all mean steps so
    far, a momentum that never fades, so a very small alpha diverges.
    """

    alpha: float = 0.1

    def __post_init__(self) -> None:
        _at_least_zero("alpha", self.alpha)

    def pull(self) -> float:
        return self.alpha

    def shift(self, task: Task) -> Vector:
        return -_zero_or(task.memory.get("h"), task)

    def finish(self, task: Task, delta: Vector, steps: int, lr: float, gradient: Gradient) -> dict[str, Vector]:
        task.memory["h"] = _zero_or(task.memory.get("h"), task) - np.float32(self.alpha) * delta
        return {}

    def absorb(self, server: Server, aggregate: Aggregate, arrived: int, clients: int) -> Server:
        if self.alpha == 0:
            return server
        h = server.state.get("h", 0) - np.float32(self.alpha * arrived / clients) * aggregate.mean
        return replace(server, params=server.params - h / np.float32(self.alpha), state={**server.state, "h": h})

    def check(self, experiment: Experiment) -> None:
        _refuse_stale("FedDyn", experiment)
        if self.alpha and experiment.optimizer != FedAvg():
            raise CompositionError(
                f"FedDyn brings its own server step, the mean model - h/alpha, and cannot follow "
                f"{experiment.optimizer!r}; use optimizer=FedAvg(), or another correction with this optimizer."
            )
        if self.alpha:
            _refuse_inexact_mean(experiment)


@dataclass(frozen=True)
class FedNova(Stage):
    """FedNova (Wang et al. 2020): x ← x + τ_eff·Σ p_k·delta_k/τ_k, τ_eff = Σ p_k·τ_k.

    Client k took τ_k SGD steps. In a plain mean whoever takes more steps counts more, so the average loss that FedAvg
    descends is not the one that the weights p_k name. Here each client hands in its mean step, and the server walks the
    mean number of steps. With equal τ_k this is FedAvg. It removes the bias of unequal work, not each client's drift.
    """

    keeps_zeros = True

    def client(self, update: Update, ctx: Context) -> Update:
        steps = np.float32(update.metrics["steps"])
        work = np.array([update.weight * steps, update.weight], dtype=np.float32)    # p_k·τ_k and p_k, for τ_eff
        return replace(update, delta=dense(update.delta, "FedNova") / steps, extras={**update.extras, "work": work})

    def sends(self, example: Update, ctx: Context) -> Update:
        return replace(example, extras={**example.extras, "work": np.zeros(2, np.float32)})

    def doubts(self, update: Update, ctx: Context) -> str:
        """p_k is the weight of the answer, and τ_k from 1 to the steps that the experiment asks this client for."""
        how, data = ctx.experiment.training, ctx.experiment.data
        examples = len(data.train[data.position(update.client)])
        epochs = how.epochs_of(Task(update.client, ctx.server, ctx.experiment.seed))
        most = epochs * -(-examples // min(how.batch_size or examples, examples))
        (work, weight), room = update.extras["work"].astype(float).tolist(), 1e-5 * update.weight
        if abs(weight - update.weight) <= room and weight - room <= work <= most * (weight + room):
            return ""
        return f"its work is {work:g} at weight {weight:g}, where it weighs {update.weight:g} and was asked for {most} steps"

    def server(self, aggregate: Aggregate, ctx: Context) -> Aggregate:
        steps, weight = aggregate.extras["work"].astype(float)
        return replace(aggregate, total=aggregate.total * (steps / weight))

    def check(self, experiment: Experiment) -> None:
        _refuse_leak("FedNova", "step counts", experiment)
        if sum(isinstance(stage, FedNova) for stage in experiment.pipeline) > 1:
            raise CompositionError("FedNova twice divides by the number of steps twice, and is undone by the second; use one.")
        if experiment.training.momentum or experiment.training.correction is not None:
            raise CompositionError(
                "FedNova divides by the number of plain SGD steps; momentum and corrections change how far a step "
                "reaches (Wang et al. 2020 give the general weights); use LocalSGD without them, or leave FedNova out."
            )


def _zero_or(vector: Vector | None, task: Task) -> Vector:
    """What was stored, or zeros (d,) before anything was."""
    return np.zeros_like(task.server.params) if vector is None else vector


def _refuse_stale(name: str, experiment: Experiment) -> None:
    if experiment.schedule.keeps_stragglers:
        raise CompositionError(
            f"{name} assumes that all clients of a step started from the same model: an answer from an older version "
            "corrects for a place that the model has left; use Synchronous(…), or FedProx(…) with this schedule."
        )


def _refuse_inexact_mean(experiment: Experiment) -> None:
    """FedDyn's h is the mean of all h_k only if the mean delta that the server sees is the mean of what clients walked."""
    for stage in experiment.pipeline:
        changes = type(stage).client is not Stage.client or type(stage).server is not Stage.server
        if changes and not stage.exact:
            raise CompositionError(
                f"{type(stage).__name__} changes updates on their way, but FedDyn's server reads the mean of all h_k off them, "
                "while each client keeps its own h_k from what it walked, and the two would drift apart; use Scaffold(…), whose "
                "control variates travel untouched, or FedProx(…). A class of your own whose server half gives back the very "
                "sum declares exact = True."
            )
    if not experiment.aggregation.linear:
        raise CompositionError(
            f"FedDyn's server reads the mean of all h_k off the mean update, and {type(experiment.aggregation).__name__} is no "
            "mean; use WeightedMean(), or FedProx(…) with this rule."
        )
    if not _count_alike(experiment) and not _all_take_part(experiment):
        raise CompositionError(
            "FedDyn's server reads the mean of all h_k off the mean update: with clients that count differently and of which "
            "only some answer, that is the mean of no fixed weights; use weights=Uniform(), or Synchronous(1.0)."
        )


def _count_alike(experiment: Experiment) -> bool:
    weights = experiment.weights
    if isinstance(weights, ByExamples):
        return len({min(len(part), weights.cap or math.inf) for part in experiment.data.train if len(part)}) == 1
    return isinstance(weights, Uniform) or type(weights) is Stage


def _all_take_part(experiment: Experiment) -> bool:
    """Whether every step is made of all clients' answers: all are asked, and neither a deadline nor the fleet loses one. Of a
    schedule, selector or fleet of one's own that cannot be known. (Nor can it of a client that fails: see the record.)"""
    schedule, clients, fleet = experiment.schedule, len(experiment.clients), experiment.fleet
    if not isinstance(schedule, Synchronous) or type(schedule) is not Synchronous:
        return False
    whole = schedule.goal(clients) == clients and schedule.deadline == math.inf and not schedule.over_selection
    steady = isinstance(fleet, Equal | LogNormal) and type(fleet) in (Equal, LogNormal) and not fleet.drop
    return whole and steady and type(experiment.selection) is UniformSelection


def _refuse_leak(name: str, what: str, experiment: Experiment) -> None:
    for stage in experiment.pipeline:
        if stage.masks or stage.noisy:
            raise CompositionError(
                f"{name} sends {what} beside the update, where {type(stage).__name__} neither masks nor noises them, "
                "so they would leave the client in the clear; use FedProx(…), which sends nothing more, or leave the "
                "stage out."
            )
