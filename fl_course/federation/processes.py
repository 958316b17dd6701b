"""A post to processes of this machine: a simulation on more cores, with the same bytes.

    with Processes(experiment, 4) as post:
        history = experiment.train(rounds=30, work=Elsewhere(post))

Each process holds every fourth client, its drawers included. Worth it where a round of training takes much longer than a message
of the model: a few milliseconds. The experiment is pickled once for each process, so its own functions and classes must be
importable: those of a notebook are not.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import pickle
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

from ..core import ClientId, CompositionError, is_whole
from ..wire.messages import WireError
from .interfaces import Experiment
from .node import Node
from .orders import Answer, Order, decode_answers, decode_orders, encode_answers, encode_orders


class Processes:
    """Starts the processes when it is made, and ends them when it is closed. A process that dies costs its clients' answers."""

    def __init__(self, experiment: Experiment, processes: int | None = None) -> None:
        count = (os.cpu_count() or 1) if processes is None else processes
        if not is_whole(count, 1) or count > 256:
            raise ValueError(f"processes must be a whole number from 1 to 256, not {processes!r}")
        if any(stage.masks for stage in experiment.pipeline):
            raise CompositionError(
                "the clients of a secure sum exchange keys, which no message to these processes carries; train in one process, "
                "or deploy over Flower"
            )
        try:
            pickled = pickle.dumps(experiment)
        except Exception as why:
            raise ValueError(
                f"this experiment cannot be sent to another process ({why}); put its own functions and classes into a file and "
                "import them"
            ) from why
        count = min(int(count), len(experiment.clients))
        context = multiprocessing.get_context("spawn")          # torch's threads do not survive a fork
        self.homes: dict[ClientId, int] = {client: i % count for i, client in enumerate(experiment.clients)}
        self.pipes: dict[int, Any] = {}
        self.owed: dict[int, list[list[int]]] = {number: [] for number in range(count)}           # tickets, a list a message
        self.lost: list[Answer] = []
        self.workers = []
        for number in range(count):
            ours, theirs = context.Pipe()
            worker = context.Process(target=_serve, args=(theirs, pickled, number, count), daemon=True)
            worker.start()
            theirs.close()
            self.pipes[number] = ours
            self.workers.append(worker)

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the processes."""
        for pipe in self.pipes.values():
            pipe.close()
        for worker in self.workers:
            worker.join(5)
            if worker.is_alive():
                worker.kill()
                worker.join()
        self.pipes = {}

    # --- a post (orders.py) ----------------------------------------------------------------------------------------------

    def here(self) -> set[ClientId]:
        return {client for client, number in self.homes.items() if number in self.pipes}

    def send(self, orders: Sequence[Order]) -> None:
        bags: dict[int, list[Order]] = {}
        for order in orders:
            bags.setdefault(self.homes[order.client], []).append(order)
        for number, bag in bags.items():
            self.owed[number].append([order.ticket for order in bag])
            try:
                self.pipes[number].send_bytes(encode_orders(bag))
            except (OSError, KeyError):
                self._died(number)

    def answers(self, seconds: float) -> Sequence[Answer]:
        come, self.lost = self.lost, []
        ready = multiprocessing.connection.wait(list(self.pipes.values()), 0 if come else seconds)
        for number, pipe in list(self.pipes.items()):
            if pipe in ready:
                try:
                    come += decode_answers(pipe.recv_bytes())
                    self.owed[number].pop(0)
                except (EOFError, OSError, WireError):         # it has ended, or its code writes to the pipe, too
                    self._died(number)
        come, self.lost = [*come, *self.lost], []
        return come

    def ask(self, what: str, questions: Mapping[ClientId, bytes]) -> Mapping[ClientId, bytes]:
        return {}

    def _died(self, number: int) -> None:
        if pipe := self.pipes.pop(number, None):
            pipe.close()
        tickets = [ticket for message in self.owed[number] for ticket in message]
        self.lost += [Answer(ticket, lost="its process has ended") for ticket in tickets]
        self.owed[number] = []


def _serve(pipe: Any, pickled: bytes, number: int, count: int) -> None:
    """What a process does until its pipe is closed."""
    import torch

    torch.set_num_threads(1)
    experiment = pickle.loads(pickled)
    node = Node(experiment, experiment.clients[number::count])
    while True:
        try:
            pipe.send_bytes(encode_answers(node.obey(decode_orders(pipe.recv_bytes()))))
        except (EOFError, OSError, KeyboardInterrupt):
            return
