"""A federated-learning system small enough to read, and the notebooks that teach it.

    from fl_course import *
    experiment = Coordinator(digits().partition(Shards(2), clients=100), mlp(64, 32, 10), LocalSGD(lr=0.1, epochs=5))
    history = experiment.train(rounds=20, progress=True)

Torch runs on one thread by default: the products of a cohort are small, and a second thread that spins for work costs more
than it brings on a busy machine. Set FL_COURSE_THREADS to change it.
"""

import os

try:
    import torch
except (ImportError, OSError) as error:
    doctor = os.path.join(os.path.dirname(__file__), "workbook", "commands", "doctor.py")
    raise ImportError(f"torch is missing or broken ({error}); what to do, says: python {doctor}") from error

from .asynchrony.devices import Known, answer_rate, answer_rates, job_seconds, speed_groups
from .asynchrony.heard import heard, reached, staleness_counts, within
from .asynchrony.mixing import Mixing, mixed
from .asynchrony.rehearsal import rehearse
from .asynchrony.schedules import SemiSynchronous, fedasync, fedbuff
from .compression.feedback import wire_report
from .compression.lowrank import PowerSGD
from .compression.quantisation import QSGD, Downlink, Rotate, SignSGD, Ternary
from .compression.sparse import RandomK, Threshold, TopK
from .compression.submodels import FederatedDropout
from .core import (
    Aggregate,
    BudgetSpent,
    ClientFailure,
    CompositionError,
    Context,
    FederatedError,
    Record,
    Server,
    Span,
    Task,
    Update,
    stream,
)
from .data.capstones import actg175, german_credit, shakespeare, vehicles
from .data.federated import Dataset, FederatedData, from_clients
from .data.groups import few_examples, rotated, set_apart
from .data.partition import IID, Dirichlet, QuantitySkew, Shards, Writers
from .data.sources import digits, mnist, synthetic
from .drift.methods import FedDyn, FedNova, FedProx, Scaffold, Stragglers
from .drift.quadratics import Bowls, two_bowls
from .engine.local import LocalSGD
from .engine.losses import BinaryCrossEntropy, CrossEntropy, SquaredError
from .engine.models import ConvNet, Dense, Model, logistic, mlp
from .engine.wrapped import Wrapped
from .federation.aggregation import Discount, WeightedMean
from .federation.checkpoint import CheckpointError, load, save
from .federation.coordinator import Coordinator
from .federation.devices import DayNight, Devices
from .federation.elsewhere import Elsewhere
from .federation.evaluation import Evaluation
from .federation.fleet import Equal, LogNormal
from .federation.history import History
from .federation.interfaces import (
    Aggregation,
    Attack,
    Correction,
    Fleet,
    Look,
    PersonalTraining,
    Schedule,
    Selector,
    Stage,
)
from .federation.optimizers import FedAdagrad, FedAdam, FedAvg, FedAvgM, FedYogi
from .federation.processes import Processes
from .federation.replay import Difference, first_difference
from .federation.sampling import PoissonSelection, UniformSelection
from .federation.schedule import Buffered, Synchronous
from .federation.stages import ByExamples, Uniform
from .federation.state import State
from .federation.telemetry import from_json_line, json_line, prometheus
from .federation.traces import Trace
from .personalisation.clusters import IFCA, Clusters, assignments
from .personalisation.evaluation import (
    Comparison,
    baselines,
    compare,
    global_model,
    local_only,
    luck,
    newcomers,
    own_measure,
    own_models,
    pooled,
)
from .personalisation.layers import FedPer, FedRep, LGFedAvg
from .personalisation.lowrank import LoRA, product_gap
from .personalisation.meta import PerFedAvg
from .personalisation.split import Split, handed_out
from .personalisation.twins import APFL, Ditto, FineTune, PFedMe
from .privacy.central import Adaptive, CentralDP
from .privacy.clipping import Clip
from .privacy.dpsgd import DPSGD
from .privacy.local import LocalDP
from .privacy.tree import TreeDP
from .robustness.attacks import ALIE, IPM, GaussianNoise, LabelFlip, Mimic, Scaling, SignFlip
from .robustness.backdoor import Backdoor, Trigger
from .robustness.before import Bucketing, NearestNeighbourMixing
from .robustness.clipping import CentredClipping, NormBound
from .robustness.coordinates import CoordinateMedian, TrimmedMean
from .robustness.fltrust import FLTrust
from .robustness.geometric import GeometricMedian
from .robustness.inversion import as_gradient, best_psnr, closed_form, gradient_of, invert, psnr, unit_inputs
from .robustness.krum import Bulyan, Krum, MultiKrum
from .robustness.leaks import leaked_counts, leaked_label, membership
from .robustness.outliers import OutlierRemoval
from .robustness.robust import Robust
from .secure_aggregation import DistributedNoise, SecureSum
from .selection.diversity import DivFL, LabelDiversity
from .selection.fair import RoundRobin, SizeWeighted
from .selection.fairness import gini, participation
from .selection.oort import Oort
from .selection.power import PowerOfChoice
from .selection.profile import QualityScore
from .selection.tifl import TiFL
from .wire.messages import WireError

__version__ = "0.1.0"

_threads = os.environ.get("FL_COURSE_THREADS", "1")
if not (_threads.isdecimal() and int(_threads) > 0):
    raise ValueError(f"the environment variable FL_COURSE_THREADS is {_threads!r}; it must be a whole number from 1 on, or unset")
torch.set_num_threads(int(_threads))

# What `from fl_course import *` gives: the names above, and no modules, so that a variable `data` stays what it was.
__all__ = [name for name, value in list(globals().items()) if not name.startswith("_") and not hasattr(value, "__path__")
           and type(value) is not type(os)]
