"""The work by Flower's simulation engine on Ray, with its FedAvg strategy and one worker a thread.

    python flower_peer.py WORK.npz THREADS [noop]        noop: clients send the model back untrained, Flower's own cost

Two things differ from `flwr run` and `strategy.start`: `run_simulation` starts the same engine inside this process, and
the three steps of a round are called one by one, because only the benchmark knows how many rounds there will be.
"""

from __future__ import annotations

import itertools
import os

import protocol

os.environ |= {"FLWR_TELEMETRY_ENABLED": "0", "RAY_USAGE_STATS_ENABLED": "0"}        # read when they are imported

import logging

import numpy as np
from flower_client import app as client_app
from flwr.app import ArrayRecord, ConfigRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation
from networks import fill, network


def main() -> None:
    path, threads, rest = protocol.command_line()
    logging.getLogger("flwr").setLevel(logging.WARNING)
    work = protocol.load(path)
    clients = len(work.clients)
    server_app = ServerApp()

    @server_app.main()
    def rounds(grid: Grid, context: Context) -> None:
        strategy = FedAvg(fraction_evaluate=0.0, min_train_nodes=clients, min_available_nodes=clients)
        config = ConfigRecord({"work": path, "noop": "noop" in rest})
        numbers = itertools.count(1)

        def one_round(arrays: ArrayRecord) -> ArrayRecord:
            number = next(numbers)
            replies = list(grid.send_and_receive(strategy.configure_train(number, arrays, config, grid)))
            if failed := [reply.error.reason for reply in replies if reply.has_error()]:
                raise RuntimeError(f"{len(failed)} of {clients} clients failed: {failed[0]}")
            return strategy.aggregate_train(number, replies)[0]

        def flat(arrays: ArrayRecord) -> np.ndarray:
            return np.concatenate([array.ravel() for array in arrays.to_numpy_ndarrays()])

        protocol.serve(ArrayRecord(fill(network(work.model), work.init).state_dict()), one_round, flat)

    resources = {"client_resources": {"num_cpus": 1, "num_gpus": 0.0}, "init_args": {"num_cpus": threads}}
    run_simulation(server_app, client_app, num_supernodes=clients, backend_config=resources)


if __name__ == "__main__":
    main()
