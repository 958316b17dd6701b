"""The explorer of lesson 11: the measured bytes of a real run, on links that are not the laptop's."""

from __future__ import annotations

from collections.abc import Iterator

from ...compression.sparse import TopK
from ...engine.local import LocalSGD
from ...engine.models import mlp
from ...federation.coordinator import Coordinator
from ...federation.schedule import Synchronous
from .charts import Chart
from .controls import Steps
from .explorer import Explorer
from .fraction import CLIENTS, digit_clients
from .points import Point

ROUNDS, CLIENT_LINK = 30, 1e6            # bits a second, both ways
SHARES = (0.01, 0.05, 0.2, 1.0)


def link_seconds(down: float, up: float, clients: int, client_link: float, server_link: float) -> tuple[float, float]:
    """Seconds of a round that the links take: a client's own (bytes down and up), and the server's for all of them."""
    bits = 8 * (down + up)
    return bits / client_link, clients * bits / server_link


def scale(clients: int, share: float, server: float) -> Iterator[Point]:
    """Accuracy on the held-out digits by seconds that links alone take. clients: a round, of 100; share: of an update's numbers
    that are sent; server: Mbit/s of its link."""
    stages = [] if share == 1 else [TopK(share)]
    experiment = Coordinator(digit_clients(0.5), mlp(64, 32, 10), LocalSGD(lr=0.1, epochs=5, batch_size=10),
                             Synchronous(clients / CLIENTS), stages=stages)                            # fmt: skip
    waited = 0.0
    for _, record in experiment.run(ROUNDS):
        m = len(record.clients)
        down, up = (sum(sent.values()) / m for sent in (record.bytes_down, record.bytes_up))
        own, all_of_them = link_seconds(down, up, m, CLIENT_LINK, server * 1e6)
        waited += max(own, all_of_them)
        slow = "the server's link" if all_of_them > own else "each client's link"
        accuracy = record.metrics["accuracy"]
        yield Point(
            lines={"accuracy by seconds of links": (waited, accuracy), "accuracy by round": (record.version, accuracy)},
            text=f"After round {record.version}: {accuracy:.1%} of the held-out digits, {waited:.1f} s of links. "
                 f"A round waits for {slow}: {own:.2f} s a client, {all_of_them:.2f} s for all {m} through the server.",
        )  # fmt: skip


def scale_explorer() -> Explorer:
    """Lesson 11: clients a round, share of the numbers sent, the server's link."""
    return Explorer(
        scale,
        controls=[
            Steps("clients", (2, 5, 10, 20, 50, 100), 10, "clients a round"),
            Steps("share", SHARES, 1.0, "share of the numbers sent"),
            Steps("server", (2, 5, 10, 20, 50, 100, 200), 10, "server's link", unit="Mbit/s"),
        ],
        charts=[
            Chart("accuracy by seconds of links", x="seconds of links", y="accuracy", x_range=(0, None), y_range=(0, 1)),
            Chart("accuracy by round", x="round", y="accuracy", x_range=(0, ROUNDS), y_range=(0, 1)),
        ],
        title="Clients with 1 Mbit/s each, and one server",
    )
