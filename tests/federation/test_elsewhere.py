"""Clients elsewhere: the same model, bytes and records as in one process, whatever the post does; drawers stay with them."""

from dataclasses import dataclass, field

import pytest
from small import Half, experiment, federation

from fl_course import (
    Buffered,
    CentralDP,
    Downlink,
    Elsewhere,
    FedAdam,
    FedAvgM,
    FedYogi,
    LocalDP,
    LocalSGD,
    LogNormal,
    Scaffold,
    Synchronous,
    TopK,
    Uniform,
)
from fl_course.federation.node import Node
from fl_course.federation.orders import (
    decode_answers,
    decode_drawers,
    decode_orders,
    encode_answers,
    encode_drawers,
    encode_orders,
)


@dataclass
class Bags:
    """A post in this process: every message as bytes, and every node made anew for it, with nothing but its drawers."""

    experiment: object
    nodes: int = 2
    spoil: object = None                # orders → orders that arrive
    bags: dict = field(default_factory=dict)
    back: list = field(default_factory=list)
    sent: int = 0
    orders: list = field(default_factory=list)

    def homes(self):
        return {client: i % self.nodes for i, client in enumerate(self.experiment.clients)}

    def here(self):
        return set(self.homes())

    def send(self, orders):
        self.orders += orders
        for number in range(self.nodes):
            mine = [order for order in orders if self.homes()[order.client] == number]
            if self.spoil is not None:
                mine, lost = self.spoil(mine)
                self.back += lost
            if not mine:
                continue
            message = encode_orders(mine)
            self.sent += len(message)
            clients = tuple(client for client, home in self.homes().items() if home == number)
            node = Node(self.experiment, clients, decode_drawers(self.bags.get(number, encode_drawers({}))))
            answers = encode_answers(node.obey(decode_orders(message)))
            self.bags[number] = encode_drawers(node.drawers)
            self.back += reversed(decode_answers(answers))

    def answers(self, seconds):
        come, self.back = self.back, []
        return come


UNIFORM = Uniform()
EXPERIMENTS = {
    "plain": {},
    "everybody, momentum": {"schedule": Synchronous(1.0), "optimizer": FedAvgM(lr=0.5)},
    "moments": {"optimizer": FedAdam(lr=0.05)},
    "drop-outs, residuals": {"fleet": LogNormal(drop=0.2), "weights": UNIFORM, "stages": [Half()]},
    "over-selection": {"schedule": Synchronous(0.5, over_selection=0.5), "fleet": LogNormal(jitter=0.5)},
    "a deadline": {"schedule": Synchronous(0.8, deadline=1.0), "fleet": LogNormal(speed_spread=1.0)},
    "buffered, jobs in flight": {
        "schedule": Buffered(4, 2, max_staleness=3), "fleet": LogNormal(speed_spread=1.0, jitter=0.2, drop=0.1),
        "optimizer": FedYogi(lr=0.05), "weights": UNIFORM, "stages": [Half()],
    },
    "top-k with its residual": {"stages": [TopK(0.2)]},
    "control variates": {"training": LocalSGD(lr=0.1, epochs=1, batch_size=4, correction=Scaffold()), "weights": UNIFORM},
    "another model for each on the way down": {"stages": [Downlink(4)]},
    "central noise": {"weights": UNIFORM, "stages": [CentralDP(1.0, 0.5, noise_seed=3)], "schedule": Synchronous(1.0)},
    "the clients' own noise": {"weights": UNIFORM, "stages": [LocalDP(1.0, 0.5, noise_seed=3)]},
}  # fmt: skip


def both(parts, rounds=5, **post):
    it = experiment(federation(ids=[3, "b", 11, "ward 7", 0, "z"]), **parts)
    bags = Bags(it, **post)
    return it.train(rounds), it.train(rounds, work=Elsewhere(bags)), bags


@pytest.mark.parametrize("nodes", [1, 2, 6])
@pytest.mark.parametrize("parts", EXPERIMENTS.values(), ids=EXPERIMENTS)
def test_the_same_records_and_the_same_model_to_the_bit(parts, nodes):
    here, there, _ = both(parts, nodes=nodes)
    assert there.records == here.records
    assert there.state.server.params.tobytes() == here.state.server.params.tobytes()
    assert there.state.reports == here.state.reports
