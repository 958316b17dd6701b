"""The work by pfl (Granqvist et al. 2024, "pfl-research"): its SimulatedBackend and FederatedAveraging on PyTorch.

    python pfl_peer.py WORK.npz THREADS
"""

from __future__ import annotations

import itertools
import logging
import sys

import numpy as np
import protocol
import torch
import torch.nn.functional as F
from networks import fill, network
from pfl.aggregate.simulate import SimulatedBackend
from pfl.aggregate.weighting import WeightByDatapoints
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.data.federated_dataset import FederatedDataset
from pfl.data.pytorch import PyTorchTensorDataset
from pfl.hyperparam.base import NNTrainHyperParams
from pfl.model.pytorch import PyTorchModel
from torch import nn


class Classifier(nn.Module):
    """pfl asks a module for its loss and its metrics."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def loss(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(self.net(x), y)

    def metrics(self, x: torch.Tensor, y: torch.Tensor) -> dict[str, object]:
        return {}


def main() -> None:
    path, threads, _ = protocol.command_line()
    logging.disable(logging.WARNING)
    torch.set_num_threads(threads)
    work = protocol.load(path)

    # pfl visits a user's tensors in order, epoch after epoch, so the order of the work is the order of the tensors.
    users = [PyTorchTensorDataset((torch.from_numpy(work.x[rows]), torch.from_numpy(work.y[rows])), user_id=str(user))
             for user, rows in enumerate(work.clients)]  # fmt: skip
    everybody = itertools.cycle(range(len(users)))
    data = FederatedDataset(users.__getitem__, lambda: next(everybody))
    backend = SimulatedBackend(data, data, postprocessors=[WeightByDatapoints()])

    module = Classifier(network(work.model))
    model = PyTorchModel(module, torch.optim.SGD, torch.optim.SGD(module.parameters(), lr=1.0))
    local = NNTrainHyperParams(local_num_epochs=work.epochs, local_learning_rate=work.lr, local_batch_size=work.batch)
    algorithm, numbers = FederatedAveraging(), itertools.count(1)

    def one_round(params: np.ndarray) -> np.ndarray:
        # An algorithm that ran before goes on from its last iteration, so this is one more. Only iteration 0 evaluates.
        central = NNAlgorithmParams(central_num_iterations=next(numbers), evaluation_frequency=sys.maxsize,
                                    train_cohort_size=len(users), val_cohort_size=None)  # fmt: skip
        fill(module, params)
        algorithm.run(central, backend, model, local, send_metrics_to_platform=False)
        return nn.utils.parameters_to_vector(module.parameters()).detach().numpy()

    protocol.serve(work.init, one_round, lambda params: params)


if __name__ == "__main__":
    main()
