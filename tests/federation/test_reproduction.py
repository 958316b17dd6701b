"""What the FedAvg paper claims, at our scale, as bands: local work saves rounds, much for IID data and less for shards."""

from __future__ import annotations

import numpy as np
import pytest

from fl_course import IID, Coordinator, LocalSGD, Shards, Synchronous, digits, mlp


def rounds_to_90(how, training: LocalSGD) -> float:
    """Mean over two seeds of the rounds until 90 % on the held-out digits; 100 clients, C = 0.1."""
    data = digits().partition(how, clients=100, test_fraction=0.0)
    runs = [Coordinator(data, mlp(64, 64, 10), training, Synchronous(0.1), seed=seed).train(70) for seed in (0, 1)]
    return float(np.mean([run.rounds_to(0.9) or 70 for run in runs]))


@pytest.mark.parametrize(("how", "at_least"), [(IID(), 3.0), (Shards(2), 1.5)], ids=["IID", "two shards"])
def test_local_work_saves_rounds(how, at_least):
    fedsgd = min(rounds_to_90(how, LocalSGD(lr=lr, epochs=1, batch_size=None)) for lr in (0.5, 1.0))
    fedavg = rounds_to_90(how, LocalSGD(lr=0.1, epochs=5, batch_size=2))
    assert fedsgd >= at_least * fedavg, f"FedSGD {fedsgd} rounds, FedAvg {fedavg}"
