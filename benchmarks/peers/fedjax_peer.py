"""The work by FedJAX (Ro, Suresh & Wu 2021): its federated averaging, its jit backend, a haiku model.

    python fedjax_peer.py WORK.npz THREADS

THREADS = 1 leaves XLA one thread to compute with. jax prepares the next step meanwhile, as it does by default, so the
process may keep a little more than one core busy: see cpu_seconds.
"""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

import protocol

os.environ["XLA_FLAGS"] = f"--xla_cpu_multi_thread_eigen={'false' if sys.argv[2] == '1' else 'true'}"
os.environ["NPROC"] = sys.argv[2]                                   # the threads of XLA's pool; read when jax starts

import fedjax
import haiku as hk
import jax
import numpy as np
from fedjax.algorithms import fed_avg

jax.tree_map = jax.tree_util.tree_map           # FedJAX 0.0.17 calls it by the name that jax dropped since
TO_HAIKU = {1: (0,), 2: (1, 0), 4: (2, 3, 1, 0)}           # weights (out, in, …) become (…, in, out), and biases stay
FROM_HAIKU = {2: (1, 0), 4: (3, 2, 0, 1)}
Batch = dict[str, Any]


class InOrder(fedjax.ClientDataset):
    """Every epoch ends with its own last batch, padded and masked. FedJAX would fill that batch from the next epoch."""

    def shuffle_repeat_batch(self, hparams: fedjax.ShuffleRepeatBatchHParams) -> Iterator[Batch]:
        epoch = self.padded_batch(batch_size=hparams.batch_size)
        return itertools.chain.from_iterable(itertools.repeat(epoch, hparams.num_epochs))


def network(model: dict[str, Any]) -> hk.Sequential:
    """The work's model."""
    layers: list[Callable[[jax.Array], jax.Array]] = []
    if model["kind"] == "dense":
        for l, size in enumerate(model["sizes"][1:]):
            layers += [hk.Linear(size, name=f"dense{l}"), jax.nn.relu]
        return hk.Sequential(layers[:-1])
    layers.append(hk.Reshape((model["channels"], model["side"], model["side"])))
    for l, width in enumerate(model["widths"]):
        layers += [
            hk.Conv2D(width, 3, data_format="NCHW", name=f"conv{l}"),
            hk.GroupNorm(model["groups"], data_format="channels_first", name=f"norm{l}"),
            jax.nn.relu,
            hk.MaxPool(2, 2, "VALID", channel_axis=1),
        ]
    return hk.Sequential([*layers, hk.Flatten(), hk.Linear(model["classes"], name="head")])


def places(model: dict[str, Any]) -> list[tuple[str, str]]:
    """Where haiku keeps the tensors of the flat vector, in its order."""
    if model["kind"] == "dense":
        return [(f"dense{l}", name) for l in range(len(model["sizes"]) - 1) for name in ("w", "b")]
    stage = (("conv", "w"), ("conv", "b"), ("norm", "scale"), ("norm", "offset"))
    stages = [(f"{layer}{l}", name) for l in range(len(model["widths"])) for layer, name in stage]
    return [*stages, ("head", "w"), ("head", "b")]


def main() -> None:
    path, _, _ = protocol.command_line()
    work = protocol.load(path)

    ragged = any(len(rows) % work.batch for rows in work.clients)
    dataset = InOrder if ragged else fedjax.ClientDataset
    examples = [{"x": work.x[rows], "y": work.y[rows].astype(np.int32)} for rows in work.clients]
    clients = [(client, dataset(own), jax.random.PRNGKey(client)) for client, own in enumerate(examples)]
    model = fedjax.create_model_from_haiku(
        hk.transform(lambda batch: network(work.model)(batch["x"])),
        sample_batch=examples[0],
        train_loss=lambda batch, logits: fedjax.metrics.unreduced_cross_entropy_loss(batch["y"], logits),
    )
    algorithm = fed_avg.federated_averaging(
        fedjax.model_grad(model),
        client_optimizer=fedjax.optimizers.sgd(work.lr),
        server_optimizer=fedjax.optimizers.sgd(1.0),
        client_batch_hparams=fedjax.ShuffleRepeatBatchHParams(work.batch, num_epochs=work.epochs, skip_shuffle=True),
    )

    spots = list(zip(places(work.model), protocol.shapes(work.model), strict=True))
    haiku = model.init(jax.random.PRNGKey(0))

    def from_flat(params: np.ndarray) -> hk.Params:
        out: hk.Params = {}
        for ((layer, name), shape), value in zip(spots, protocol.tensors(params, work.model), strict=True):
            turned = value.transpose(TO_HAIKU[len(shape)]).reshape(haiku[layer][name].shape)
            out.setdefault(layer, {})[name] = jax.numpy.asarray(turned)
        return out

    def flat(state: fed_avg.ServerState) -> np.ndarray:
        parts = []
        for (layer, name), shape in spots:
            value = np.asarray(state.params[layer][name])
            parts.append(value.reshape(shape) if len(shape) == 1 else value.transpose(FROM_HAIKU[len(shape)]))
        return np.concatenate([part.ravel() for part in parts])

    def one_round(state: fed_avg.ServerState) -> fed_avg.ServerState:
        state, _ = algorithm.apply(state, clients)
        jax.block_until_ready(state.params)
        return state

    protocol.serve(algorithm.init(from_flat(work.init)), one_round, flat)


if __name__ == "__main__":
    main()
