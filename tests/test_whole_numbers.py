"""A count is a whole number everywhere: Python's and NumPy's are taken as the same, and what is none is refused in a sentence."""

import dataclasses
import importlib
import inspect
import math
import pkgutil
import re

import numpy as np
import pytest
from small import experiment, federation

import fl_course
from fl_course import (
    DPSGD,
    IID,
    QSGD,
    Backdoor,
    Bucketing,
    Buffered,
    Bulyan,
    CentralDP,
    CentredClipping,
    Clusters,
    ConvNet,
    CoordinateMedian,
    Coordinator,
    DayNight,
    Devices,
    DistributedNoise,
    Ditto,
    DivFL,
    Downlink,
    Evaluation,
    FederatedData,
    FedRep,
    FineTune,
    GeometricMedian,
    Krum,
    LabelDiversity,
    LabelFlip,
    LocalDP,
    LocalSGD,
    LogNormal,
    LoRA,
    MultiKrum,
    NormBound,
    Oort,
    OutlierRemoval,
    PerFedAvg,
    PFedMe,
    PowerOfChoice,
    PowerSGD,
    Scaffold,
    SecureSum,
    SemiSynchronous,
    Shards,
    Stragglers,
    Synchronous,
    Ternary,
    TiFL,
    TreeDP,
    Trigger,
    TrimmedMean,
    digits,
    from_clients,
    logistic,
    mlp,
    synthetic,
)
from fl_course.compression.sparse import top_k
from fl_course.data.federated import Dataset
from fl_course.deploy.local import Local
from fl_course.drift.quadratics import Point
from fl_course.engine.models import Dense
from fl_course.federation.aggregation import Discount
from fl_course.personalisation import exact
from fl_course.privacy.accounting import FixedSizeSampled, Gaussian, Repeated, TreeAggregation, noise_for_budget
from fl_course.secure_aggregation.field import PrimeField
from fl_course.secure_aggregation.graph import Setup
from fl_course.secure_aggregation.grid import FixedPointGrid

X, Y = np.zeros((4, 2), np.float32), np.array([0, 1, 0, 1])
NOTHING = np.zeros(3)

COUNTS = {  # who, which parameter -> (a good value, how to make it)
    "Dense.sizes": (3, lambda n: Dense((n, 2))),
    "mlp.sizes": (3, lambda n: mlp(4, n, 2)),
    "mlp.classes": (3, lambda n: mlp(4, n)),
    "logistic.inputs": (3, lambda n: logistic(n, 2)),
    "logistic.classes": (3, lambda n: logistic(2, n)),
    "ConvNet.side": (8, lambda n: ConvNet(n, 2)),
    "ConvNet.classes": (3, lambda n: ConvNet(8, n)),
    "ConvNet.channels": (2, lambda n: ConvNet(8, 2, n)),
    "ConvNet.widths": (8, lambda n: ConvNet(8, 2, widths=(n,))),
    "ConvNet.groups": (2, lambda n: ConvNet(8, 2, groups=n)),
    "Point.size": (2, Point),
    "LocalSGD.epochs": (2, lambda n: LocalSGD(epochs=n)),
    "LocalSGD.epochs of one": (2, lambda n: LocalSGD(epochs={"a": n})),
    "LocalSGD.batch_size": (4, lambda n: LocalSGD(batch_size=n)),
    "LocalSGD.together": (3, lambda n: LocalSGD(together=n)),
    "LocalSGD.threads": (2, lambda n: LocalSGD(threads=n)),
    "Evaluation.every": (2, Evaluation),
    "Synchronous.min_clients": (2, lambda n: Synchronous(0.5, min_clients=n)),
    "Buffered.concurrency": (3, lambda n: Buffered(n, 2)),
    "Buffered.buffer": (2, lambda n: Buffered(3, n)),
    "Buffered.max_staleness": (2, lambda n: Buffered(3, 2, max_staleness=n)),
    "Coordinator.seed": (5, lambda n: experiment(seed=n)),
    "run.rounds": (1, lambda n: experiment().train(n)),
    "LogNormal.seed": (3, lambda n: LogNormal(seed=n)),
    "Discount.b": (3, lambda n: Discount("hinge", b=n)),
    "Stragglers.epochs": (3, lambda n: Stragglers(epochs=n)),
    "Scaffold.option": (2, lambda n: Scaffold(option=n)),
    "Shards.per_client": (2, Shards),
    "partition.clients": (3, lambda n: digits().partition(IID(), n)),
    "Dataset.classes": (3, lambda n: Dataset("d", X, Y, n)),
    "from_clients.classes": (3, lambda n: from_clients("d", {0: (X, Y)}, n)),
    "FederatedData.classes": (3, lambda n: FederatedData("d", X, Y, n, (0,), (range(4),), ([],), X, Y)),
    "synthetic.clients": (2, lambda n: synthetic(0, 0, clients=n)),
    "synthetic.dim": (3, lambda n: synthetic(0, 0, 2, dim=n)),
    "synthetic.classes": (3, lambda n: synthetic(0, 0, 2, classes=n)),
    "synthetic.least": (9, lambda n: synthetic(0, 0, 2, least=n)),
    "synthetic.seed": (1, lambda n: synthetic(0, 0, 2, seed=n)),
    "QSGD.bits": (4, QSGD),
    "QSGD.block": (16, lambda n: QSGD(4, block=n)),
    "Ternary.block": (16, lambda n: Ternary(block=n)),
    "Downlink.bits": (4, Downlink),
    "Downlink.block": (16, lambda n: Downlink(4, block=n)),
    "PowerSGD.rank": (2, lambda n: PowerSGD(mlp(4, 3), n)),
    "top_k.k": (2, lambda n: top_k(NOTHING, n)),
    "CentralDP.noise_seed": (2, lambda n: CentralDP(1.0, 1.0, noise_seed=n)),
    "LocalDP.noise_seed": (2, lambda n: LocalDP(1.0, 1.0, noise_seed=n)),
    "DPSGD.noise_seed": (2, lambda n: DPSGD(1.0, 1.0, noise_seed=n)),
    "TreeDP.noise_seed": (2, lambda n: TreeDP(1.0, 1.0, noise_seed=n)),
    "TreeDP.participations": (2, lambda n: TreeDP(1.0, 1.0, participations=n)),
    "DistributedNoise.noise_seed": (2, lambda n: DistributedNoise(1.0, 1.0, noise_seed=n)),
    "TreeAggregation.steps": (4, lambda n: TreeAggregation(1.0, n)),
    "TreeAggregation.participations": (2, lambda n: TreeAggregation(1.0, 4, n)),
    "FixedSizeSampled.cohort": (2, lambda n: FixedSizeSampled(n, 9, Gaussian(1.0))),
    "FixedSizeSampled.clients": (9, lambda n: FixedSizeSampled(2, n, Gaussian(1.0))),
    "Repeated.count": (3, lambda n: Repeated(Gaussian(1.0), n)),
    "noise_for_budget.rounds": (3, lambda n: noise_for_budget(1.0, 1e-5, rounds=n)),
    "PrimeField.prime": (7, PrimeField),
    "FixedPointGrid.bits": (8, lambda n: FixedPointGrid(1.0, n, 4)),
    "FixedPointGrid.clients": (4, lambda n: FixedPointGrid(1.0, 8, n)),
    "FixedPointGrid.max_weight": (4, lambda n: FixedPointGrid(1.0, 8, 4, n)),
    "FixedPointGrid.ring_bits": (32, lambda n: FixedPointGrid(1.0, 8, 4, 1, n)),
    "Setup.threshold": (3, lambda n: Setup(bytes(16), (1, 2, 3, 4), n, 5, 32)),
    "Setup.dimension": (5, lambda n: Setup(bytes(16), (1, 2, 3, 4), 3, n, 32)),
    "Setup.ring_bits": (32, lambda n: Setup(bytes(16), (1, 2, 3, 4), 3, 5, n)),
    "SecureSum.bits": (12, lambda n: SecureSum(1.0, bits=n)),
    "SecureSum.threshold": (3, lambda n: SecureSum(1.0, threshold=n)),
    "SecureSum.ring_bits": (32, lambda n: SecureSum(1.0, ring_bits=n)),
    "SecureSum.degree": (4, lambda n: SecureSum(1.0, degree=n)),
    "SecureSum.max_weight": (4, lambda n: SecureSum(1.0, max_weight=n)),
    "SecureSum.round_seed": (2, lambda n: SecureSum(1.0, round_seed=n)),
    "Setup.degree": (2, lambda n: Setup(bytes(16), (1, 2, 3, 4), 3, 5, 32, n)),
    "DayNight.seed": (3, lambda n: DayNight(seed=n)),
    "Devices.seed": (3, lambda n: Devices(seed=n)),
    "LabelDiversity.pool": (3, LabelDiversity),
    "DivFL.pool": (3, DivFL),
    "PowerOfChoice.candidates": (3, PowerOfChoice),
    "PowerOfChoice.batch": (3, lambda n: PowerOfChoice(batch=n)),
    "Oort.pacer_step": (3, lambda n: Oort(pacer_step=n)),
    "Oort.blacklist": (3, lambda n: Oort(blacklist=n)),
    "TiFL.tiers": (3, TiFL),
    "TiFL.credits": (3, lambda n: TiFL(credits=n)),
    "TiFL.every": (3, lambda n: TiFL(every=n)),
    "TiFL.patience": (3, lambda n: TiFL(patience=n)),
    "SemiSynchronous.min_clients": (2, lambda n: SemiSynchronous(min_clients=n)),
    "SemiSynchronous.max_staleness": (2, lambda n: SemiSynchronous(max_staleness=n)),
    "Clusters.k": (2, lambda n: Clusters(mlp(4, 3), n)),
    "Points.clients": (4, lambda n: exact.Points(clients=n)),
    "Points.examples": (4, lambda n: exact.Points(examples=n)),
    "Points.malicious": (2, lambda n: exact.Points(malicious=n)),
    "Points.dim": (2, lambda n: exact.Points(dim=n)),
    "Points.seed": (2, lambda n: exact.Points(seed=n)),
    "TwoLayers.dim_in": (4, lambda n: exact.TwoLayers(n, 2)),
    "TwoLayers.rank": (2, lambda n: exact.TwoLayers(4, n)),
    "FedRep.head_epochs": (2, FedRep),
    "LoRA.rank": (2, lambda n: LoRA(mlp(4, 3), "dense0", n)),
    "PerFedAvg.support": (2, lambda n: PerFedAvg(support=n)),
    "PerFedAvg.steps": (2, lambda n: PerFedAvg(steps=n)),
    "FineTune.epochs": (2, FineTune),
    "Ditto.epochs": (2, lambda n: Ditto(epochs=n)),
    "PFedMe.steps": (2, lambda n: PFedMe(steps=n)),
    "LabelFlip.source": (2, lambda n: LabelFlip([1], n, 3)),
    "LabelFlip.target": (2, lambda n: LabelFlip([1], 3, n)),
    "Trigger.pixels": (2, lambda n: Trigger([n])),
    "Backdoor.target": (2, lambda n: Backdoor([1], n)),
    "Backdoor.versions": (2, lambda n: Backdoor([1], versions=[n])),
    "Backdoor.epochs": (2, lambda n: Backdoor([1], epochs=n)),
    "Bucketing.s": (2, lambda n: Bucketing(CoordinateMedian(1), n)),
    "NormBound.f": (2, lambda n: NormBound(1.0, f=n)),
    "CentredClipping.iterations": (2, lambda n: CentredClipping(1.0, iterations=n)),
    "CentredClipping.f": (2, lambda n: CentredClipping(1.0, f=n)),
    "CoordinateMedian.f": (2, lambda n: CoordinateMedian(f=n)),
    "TrimmedMean.f": (2, lambda n: TrimmedMean(f=n)),
    "GeometricMedian.f": (2, lambda n: GeometricMedian(f=n)),
    "Krum.f": (2, lambda n: Krum(f=n)),
    "MultiKrum.f": (2, lambda n: MultiKrum(f=n)),
    "MultiKrum.m": (2, lambda n: MultiKrum(1, m=n)),
    "Bulyan.f": (2, lambda n: Bulyan(f=n)),
    "OutlierRemoval.f": (2, lambda n: OutlierRemoval(f=n)),
    "Local.nodes": (2, lambda n: Local("python", n)),
}  # fmt: skip
# What the loop makes itself, and never takes from the user; Clip.norm is an order of a norm: 1, 2 or inf.
MADE_INSIDE = {"Server", "Task", "Update", "Context", "Meter", "Record", "Plan", "Part", "Job", "State", "History", "Ledger",
               "Clip", "Tree", "Round", "Submodel", "Masked", "Sparse", "Quantised", "Heard", "Cost", "Rehearsed",
               "Span", "Agenda", "Look", "Run", "Difference", "Order", "Answer", "RealAgenda", "Planner"}  # fmt: skip


@pytest.mark.parametrize("name", COUNTS)
def test_numpys_whole_numbers_are_whole_numbers(name):
    good, make = COUNTS[name]
    expected = make(good)
    for kind in (np.int64, np.int32, np.uint8):
        got = make(kind(good))
        assert repr(got) == repr(expected)                              # and so the description of the experiment
        assert "np." not in repr(got).replace("np.random", "")


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize("bad", [2.5, "same", math.nan, math.inf, True, np.True_, "text", [3]], ids=repr)
def test_what_is_no_whole_number_is_refused_in_a_sentence(name, bad):
    good, make = COUNTS[name]
    if bad == [3] and name == "partition.clients":
        return                                                          # a list of ids
    value = {"same": float(good), "text": str(good)}.get(bad, bad) if isinstance(bad, str) else bad
    with pytest.raises((ValueError, TypeError), match=r"\w+ \w+ \w+") as caught:
        make(value)
    assert re.search(r"whole|number|from|must", str(caught.value)), caught.value


def test_no_count_is_forgotten():
    """Every field of a dataclass that is annotated as a whole number stands in the table."""
    missing = []
    for module in pkgutil.walk_packages(fl_course.__path__, "fl_course."):
        if ".workbook" in module.name or ".__main__" in module.name:
            continue
        for name, kind in vars(importlib.import_module(module.name)).items():
            here = inspect.isclass(kind) and dataclasses.is_dataclass(kind) and kind.__module__ == module.name
            if here and name not in MADE_INSIDE:
                missing += [f"{name}.{field.name}" for field in dataclasses.fields(kind)
                            if field.init and re.search(r"\bint\b", str(field.type)) and f"{name}.{field.name}" not in COUNTS]
    assert missing == []


def test_the_largest_label_plus_one_makes_a_model():
    data = federation()
    model = mlp(data.shape[0], np.int64(8), data.y.max() + 1)
    assert len(Coordinator(data, model, LocalSGD(batch_size=np.int16(4), epochs=np.uint8(2))).train(np.int64(2))) == 2
