"""The sockets: the kinds of part that an experiment is made of. Read this page first; every mechanism fills one of them.

    Selector          who is asked                              sampling.py; chapter 6
    Schedule          when to start clients and when to step    schedule.py; chapter 7
    Fleet             how long it takes, who vanishes           fleet.py
    Correction        what a method adds to a local gradient    drift/methods.py
    LocalTraining     what takes the place of local SGD         privacy/dpsgd.py; chapter 8
    Stage             what happens to an update, on both sides  stages.py; chapters 3, 4 and 5
    Aggregation       how the updates become one                aggregation.py; chapters 7 and 9
    ServerOptimizer   how the server follows it                 optimizers.py
    Attack            who is not honest, and what they do       chapter 9

Each has a `check` (but for Fleet and ServerOptimizer), which reads the whole experiment when it is built, as an `Experiment`:
public facts, no results. The model's own socket is engine/models.py, the division of the data's data/partition.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from ..core import Aggregate, ClientId, Context, Server, Task, Update, Vector, stream
from ..data.federated import FederatedData

Reports = Mapping[ClientId, Mapping[str, Any]]    # what the server knows of each client that it ever asked: see state.py
Luck = Callable[[], np.random.Generator]          # makes the job's own random stream, when somebody asks for it
Rows = dict[str, Tensor]
Gradient = Callable[[], Vector]


class Experiment(Protocol):
    """What a part may know of the whole: the fields of the Coordinator, and what follows from them."""

    @property
    def data(self) -> FederatedData: ...
    @property
    def model(self) -> Any: ...                             # engine.models.Model: dim, shapes()
    @property
    def training(self) -> Any: ...                          # engine.local.LocalSGD: lr, momentum, correction, private, personal
    @property
    def schedule(self) -> Schedule: ...
    @property
    def selection(self) -> Selector: ...
    @property
    def weights(self) -> Stage: ...
    @property
    def stages(self) -> Sequence[Stage]: ...
    @property
    def aggregation(self) -> Aggregation: ...
    @property
    def optimizer(self) -> ServerOptimizer: ...
    @property
    def fleet(self) -> Fleet: ...
    @property
    def attack(self) -> Attack | None: ...
    @property
    def evaluation(self) -> Any: ...                        # federation.evaluation.Evaluation
    @property
    def seed(self) -> int: ...
    @property
    def pipeline(self) -> tuple[Stage, ...]: ...            # the weights, what a personal method brings, the stages
    @property
    def clients(self) -> tuple[ClientId, ...]: ...          # those that can be asked: clients with training examples


@dataclass(frozen=True)
class Look:
    """What a client has before it when a selector asks it something: the model as it arrived, and its own examples."""

    client: ClientId
    server: Server                      # params, version and extras as decoded; of the model before, if none is sent
    x: np.ndarray                       # (n, *features)
    y: np.ndarray                       # (n,) classes, or (n, k) numbers
    model: Any                          # engine.models.Model
    seed: int = 0

    def rng(self, *purpose: object) -> np.random.Generator:
        return stream(self.seed, *purpose, self.server.version, self.client)


class Selector:
    """Abstract. `poisson` says that every client is drawn independently with one public probability, the only kind of
    sampling for which the accountants of chapter 3 grant amplification.

    A selector may ask some clients something before it chooses. The question and the answers are real messages, counted under
    the purpose "probe", and the round waits for them; what client k answers, `select` finds in reports[k]["probe_…"].
    """

    poisson = False
    sends_model = True              # the question carries the model
    effort = 1 / 3                  # what an answer costs, in training passes over the client's examples (a forward pass)
    keeps_updates = False           # reports[k]["update"]: client k's last change of the model, (d,) per unit of weight
    reads: tuple[str, ...] = ()     # what leaves clients for this selector's sake, in words: ("loss",), ("labels",), ("update",)

    def asks(self, idle: Sequence[ClientId], k: int, rng: np.random.Generator, reports: Reports) -> Sequence[ClientId]:
        """Whom to ask before k of the idle clients are chosen; the same rng goes on to `select`. Nobody, unless overridden."""
        return ()

    def answer(self, look: Look) -> Mapping[str, Any]:
        """The client half of the question: named numbers and arrays."""
        return {}

    def cost(self, examples: int) -> float:
        """What an answer costs a client with so many examples, counted in examples that it could have trained on instead."""
        return self.effort * examples

    def select(self, idle: Sequence[ClientId], k: int, rng: np.random.Generator, reports: Reports) -> list[ClientId]:
        """Choose from the idle clients, about k of them. reports: what is known about each client (see state.py)."""
        raise NotImplementedError

    def choose(self, idle: Sequence[ClientId], k: int, rng: np.random.Generator, reports: Reports,
               ctx: Context) -> Sequence[ClientId]:
        """`select` as the loop calls it. A selector that remembers more than reports overrides this one: what it writes to
        ctx.state, it finds in ctx.server.state from the next version on."""
        return self.select(idle, k, rng, reports)

    def tells(self, look: Look) -> Mapping[str, float]:
        """What a client that trains adds to its update's metrics for this selector's sake; `reports` has it under that name.
        The numbers must be such as training computes anyway (its losses): the clock does not count them."""
        return {}

    def check(self, experiment: Experiment) -> None:
        """Raise CompositionError if this selector is unsound beside the rest of the experiment."""


class Schedule:
    """Abstract. The loop asks `start` whenever time stands still, and `ready` after every answer."""

    deadline: float = math.inf          # simulated seconds after which a round closes with what has arrived
    max_staleness: int | None = None    # answers older than this many server steps are refused and counted
    keeps_stragglers: bool = False      # whether clients still at work when the server steps are waited for later

    def start(self, clients: int, in_flight: int, first: bool) -> int:
        """How many clients to start now, of `clients` that have data; first: nobody was asked since the last step."""
        raise NotImplementedError

    def ready(self, in_flight: int, arrived: int, clients: int) -> bool:
        """Whether the server takes its step now. Asked after every answer, before anybody else is started."""
        raise NotImplementedError

    def check(self, experiment: Experiment) -> None:
        """Raise ValueError if this schedule cannot work with so many clients."""


class Fleet:
    """Abstract. Times are simulated seconds, finite numbers from 0, which the loop checks."""

    def compute(self, client: ClientId, examples: float, luck: Luck) -> float:
        """Seconds to train on so many examples (all epochs counted)."""
        raise NotImplementedError

    def download(self, client: ClientId, nbytes: int) -> float:
        return 0.0

    def upload(self, client: ClientId, nbytes: int) -> float:
        return 0.0

    def drops(self, client: ClientId, luck: Luck) -> bool:
        """Whether the client vanishes before it answers this job."""
        return False

    def away(self, client: ClientId, when: float) -> float:
        """Seconds from `when` (simulated, since the start of the run) until the client can be asked: 0 now, infinity never."""
        return 0.0


class Correction:
    """What a method adds to each client's gradient, row by row. This one adds nothing; chapter 2 fills it in."""

    keeps_zeros = False    # a number whose gradient is zero stays as it was broadcast. Unknown means no

    def rows(self, task: Task) -> dict[str, Vector]:
        """Vectors (d,) that this client needs beside its gradient, under the same names for every client."""
        return {}

    def correct(self, grad: Tensor, theta: Tensor, anchor: Tensor, rows: Rows) -> Tensor:
        """grad, theta, anchor (the broadcast model): (a, d). Returns the corrected gradient (a, d)."""
        return grad

    def finish(self, task: Task, delta: Vector, steps: int, lr: float, gradient: Gradient) -> dict[str, Vector]:
        """After training: what travels beside delta. May write to task.memory, the client's own drawer. gradient(): (d,) of
        the client's mean loss over all its examples at the broadcast model; one more pass."""
        return {}

    def sends(self, server: Server) -> dict[str, Vector]:
        """What `finish` returns, with zeros for its numbers: the server refuses an answer with other names or shapes."""
        return {}

    def absorb(self, server: Server, aggregate: Aggregate, arrived: int, clients: int) -> Server:
        """The server half, after the optimiser's step: arrived of all clients are in the aggregate."""
        return server

    def check(self, experiment: Experiment) -> None:
        """Raise CompositionError if this method is unsound beside the rest of the experiment."""


class LocalTraining:
    """Abstract. Takes the place of the trainer's own steps."""

    keeps_zeros = False               # as a Correction's

    def train(self, tasks: Sequence[Task], trainer: Any) -> list[Update]:
        """One update a task, of what travels. trainer: the engine.training.Trainer whose place this takes, with the data."""
        raise NotImplementedError

    def check(self, experiment: Experiment) -> None:
        """Raise CompositionError if it is unsound beside the rest of the experiment."""


class PrivateTraining(LocalTraining):
    """Abstract. What a client sends is private before any stage sees it."""

    def begin(self, ctx: Context) -> None:
        """Server and cohort, before anybody trains: as a Stage's, for what the record shall say."""


class PersonalTraining(LocalTraining):
    """Abstract. Leaves every client with a model of its own, in task.memory, its drawer."""

    brings: tuple[Stage, ...] = ()    # stages that the method needs, right behind the weights

    def passes(self, epochs: int, model: Any) -> float:
        """How many passes of plain SGD over its data cost a client as much as its part in a round of so many epochs."""
        return epochs

    def own(self, tasks: Sequence[Task], trainer: Any) -> Vector:
        """(n, d): each client's own model of the whole network, for the model that it is handed now. Writes to no drawer."""
        raise NotImplementedError


class Stage:
    """Does nothing, on both sides. A mechanism overrides the halves that it needs."""

    masks = False    # single updates cannot be read afterwards, only their sum
    noisy = False    # the server half adds noise, and must do so even when nobody arrived
    shields = False  # nothing that leaves a client shall tell the server about it, and its own noise sees to that
    says: tuple[str, ...] = ()    # the numbers in ctx.state that its client half may raise; no other does so from elsewhere
    # What a neighbour may have to rely on. Unknown means no: a stage of your own says yes where it is so.
    feedback = False       # what it did not send waits in ctx.memory["residual"], and is added to the client's next update
    lossy = False          # its client half changes no coordinates: what it takes away may wait in an earlier stage's residual
    exact = False          # its server half hands on the very sum that its client halves were given, to float32
    keeps_zeros = False    # where an update is zero, what it hands on is zero, too, or noise around zero

    def begin(self, ctx: Context) -> None:
        """Server and cohort, before anybody trains: exchange keys (ctx.meter.seconds: for how long), draw a public mask. Scratch
        goes to ctx.session, which belongs to this version of the model and ends with its step."""

    def down(self, server: Server, ctx: Context) -> Server:
        """What one client is sent: the identity, unless the mechanism compresses or cuts the model on the way down."""
        return server

    def client(self, update: Update, ctx: Context) -> Update:
        return update

    def sends(self, example: Update, ctx: Context) -> Update:
        """What leaves the client half, shown by an example whose numbers are all zero: the server refuses an answer of
        another form. A stage that makes a payload of the update or lets something travel beside it says so here."""
        return example

    def doubts(self, update: Update, ctx: Context) -> str:
        """Why what travels beside this answer cannot be honest, or "": the form is right, the numbers are a stranger's. The
        answer is refused. ctx: the client, its cohort and the server that it was sent."""
        return ""

    def server(self, aggregate: Aggregate, ctx: Context) -> Aggregate:
        return aggregate

    def check(self, experiment: Experiment) -> None:
        """Raise CompositionError if this stage is unsound beside the rest of the experiment."""


class Aggregation:
    """Abstract: updates in, a sum out. `linear` says that the rule needs nothing but the sum of the payloads."""

    linear = False

    def combine(self, updates: Sequence[Update], staleness: Sequence[int], ctx: Context | None = None) -> Aggregate:
        """updates: in the order of their client names; staleness: server steps since each was sent out.

        ctx: the step's surroundings, None when called by hand. ctx.server and ctx.starts (the model that each update began
        with) are there to read; what is written to ctx.state the server keeps."""
        raise NotImplementedError

    def check(self, experiment: Experiment) -> None:
        """Raise CompositionError if this rule is unsound beside the rest of the experiment."""


class ServerOptimizer:
    """Abstract: from the server's state and the mean delta (d,) to the next state. Counting versions is the loop's."""

    def step(self, server: Server, aggregate: Aggregate) -> Server:
        """The server after its step: new params (d,), and in state the moments that the next step needs."""
        raise NotImplementedError


class Attack:
    """Some clients that are not honest. It says whom it controls; what it may know is what its methods are handed."""

    clients: tuple[ClientId, ...] = ()

    def poison(self, data: FederatedData) -> FederatedData:
        """The data as the clients train on it: only the controlled clients' own examples may differ. Once a run."""
        return data

    def strike(self, tasks: Sequence[Task], updates: Sequence[Update], ctx: Context) -> Sequence[Update]:
        """The updates of all clients that train together, as honest training made them, with the controlled ones replaced.
        Before the client halves of the stages, which an attacker follows like everybody else. tasks: in the same order."""
        return updates

    def measure(self, experiment: Experiment, server: Server) -> Mapping[str, float]:
        """What the record shall say about its success, when the evaluation is due. Nobody in the federation sees it."""
        return {}

    def check(self, experiment: Experiment) -> None:
        """Raise ValueError if it cannot be carried out in this experiment."""
