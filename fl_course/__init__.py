"""A federated-learning system small enough to read, and the notebooks that teach it.

    from fl_course import *
    experiment = Coordinator(digits().partition(Shards(2), clients=100), mlp(64, 32, 10), LocalSGD(lr=0.1, epochs=5))
    history = experiment.train(rounds=20, progress=True)

Torch runs on one thread by default: the products of a cohort are small, and a second thread that spins for work costs more
than it brings on a busy machine. Set FL_COURSE_THREADS to change it.
"""

import os

import torch

from .aggregation import Aggregation, Discount, WeightedMean
from .checkpoint import CheckpointError, load, save
from .compression import RandomK, Threshold, TopK, wire_report
from .coordinator import Coordinator, State
from .core import (
    Aggregate,
    BudgetSpent,
    ClientFailure,
    CompositionError,
    Context,
    FederatedError,
    Record,
    Server,
    Task,
    Update,
    stream,
)
from .correction import Correction
from .data import (
    IID,
    Dataset,
    Dirichlet,
    FederatedData,
    QuantitySkew,
    Shards,
    Writers,
    digits,
    from_clients,
    mnist,
    synthetic,
)
from .dpsgd import DPSGD
from .drift import FedDyn, FedNova, FedProx, Scaffold, Stragglers
from .evaluation import Evaluation
from .fleet import Equal, Fleet, LogNormal
from .history import History
from .local_privacy import LocalDP
from .lowrank import PowerSGD
from .models import ConvNet, Dense, Model, Wrapped, logistic, mlp
from .optimizers import FedAdagrad, FedAdam, FedAvg, FedAvgM, FedYogi
from .privacy import Adaptive, CentralDP
from .quadratics import Bowls, two_bowls
from .quantisation import QSGD, Downlink, Rotate, SignSGD, Ternary
from .schedule import Buffered, Schedule, Synchronous
from .secure_aggregation import DistributedNoise, SecureSum
from .selection import PoissonSelection, Selector, UniformSelection
from .stages import ByExamples, Clip, Stage, Uniform
from .submodels import FederatedDropout
from .training import LocalSGD
from .tree_privacy import TreeDP
from .wire import WireError

__version__ = "0.1.0"

torch.set_num_threads(int(os.environ.get("FL_COURSE_THREADS", "1")))

# What `from fl_course import *` gives: the names above, and no modules, so that a variable `data` stays what it was.
__all__ = [name for name, value in list(globals().items()) if not name.startswith("_") and not hasattr(value, "__path__")
           and type(value) is not type(os)]
