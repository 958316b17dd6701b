"""What a change of speed must not change: the models and the bytes of some runs, stored when they were slower.

The numbers were made by running this file at the commit before messages were written once:

    python tests/federation/test_same_bits.py
"""

import hashlib

import numpy as np
import pytest
import torch

from fl_course import (
    IID,
    CentralDP,
    ConvNet,
    Coordinator,
    Dirichlet,
    FedAdam,
    LocalSGD,
    LogNormal,
    PoissonSelection,
    Scaffold,
    Shards,
    Synchronous,
    TopK,
    Uniform,
    digits,
    fedbuff,
    logistic,
    mlp,
    mnist,
)

CAPABILITY, TORCH = "AVX512", "2.13.0+cpu"         # of the machine that made them


def runs():
    even = digits().partition(IID(), clients=20)
    return {
        "2NN, shards": Coordinator(
            mnist().partition(Shards(2), clients=20, test_fraction=0.0), mlp(784, 40, 10), LocalSGD(lr=0.1, epochs=2),
            Synchronous(0.5),
        ),
        "top-k with memory, Adam": Coordinator(
            digits().partition(Dirichlet(0.3), clients=20), mlp(64, 32, 10), LocalSGD(lr=0.1), Synchronous(0.5),
            stages=[TopK(0.1)], optimizer=FedAdam(lr=0.01),
        ),
        "clip and noise": Coordinator(
            even, logistic(64, 10), LocalSGD(lr=0.1), Synchronous(), PoissonSelection(), Uniform(),
            [CentralDP(clip=1.0, noise_multiplier=1.0, noise_seed=0)],
        ),
        "buffered": Coordinator(
            even, ConvNet(8, 10, widths=(4, 8)), LocalSGD(lr=0.05), fleet=LogNormal(1.0), **fedbuff(concurrency=6, buffer=3)
        ),
        "SCAFFOLD": Coordinator(
            digits().partition(Shards(2), clients=20), mlp(64, 32, 10), LocalSGD(lr=0.1, epochs=2, correction=Scaffold()),
            Synchronous(0.3),
        ),
    }  # fmt: skip


STORED = {  # SHA-256 of the model, its products with three random vectors, bytes of all messages
    "2NN, shards": ("e0a642b2faccb5f8", [4.304280445, 3.739723011, 6.067236626], 12731200),
    "top-k with memory, Adam": ("2808b3b137aae0aa", [-6.627255185, 6.790855672, 3.335889248], 544913),
    "clip and noise": ("c5bb26dc13228a38", [38.275386514, 12.025626815, -13.837444435], 42720),
    "buffered": ("b4d218a908a4d971", [7.580588116, -0.088402574, 2.184012756], 98840),
    "SCAFFOLD": ("bcace54561cbf688", [-7.114568473, 8.830423495, 4.215980885], 1104132),
}


def told(experiment):
    history = experiment.train(5)
    params = history.state.server.params
    directions = np.random.default_rng(0).standard_normal((3, len(params)))
    products = (directions @ params.astype(float)).round(9).tolist()
    return hashlib.sha256(params.tobytes()).hexdigest()[:16], products, sum(record.nbytes for record in history.records)


@pytest.mark.parametrize("name", STORED)
def test_a_run_ends_in_the_model_that_it_ended_in(name):
    digest, products, nbytes = STORED[name]
    now, these, sent = told(runs()[name])
    assert sent == nbytes
    assert np.abs(np.array(these) - products).max() < (1e-2 if name == "buffered" else 1e-3)     # another processor's last digits
    if (torch.backends.cpu.get_cpu_capability(), torch.__version__) == (CAPABILITY, TORCH):
        assert now == digest


if __name__ == "__main__":
    for name, experiment in runs().items():
        print(f"    {name!r}: {told(experiment)},")
