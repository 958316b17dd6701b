"""An experiment as a Flower app: the loop runs in the ServerApp, the clients live on SuperNodes, and a `Grid` is the post.

    # server_app.py                                       # client_app.py
    from fl_course.deploy.flower import server_app        from fl_course.deploy.flower import client_app
    app = server_app(experiment)                          app = client_app(experiment)

`experiment` is a function that builds the Coordinator, the same on both sides; a node with another one is turned away. SuperNode
i of n (its --node-config "partition-id=i num-partitions=n") is the home of clients i, i + n, i + 2n, …

What travels inside a Flower message are our own bytes (orders.py), one message a node and moment. The drawers of a node's
clients stay in its `Context.state`. Flower is imported when an app is made, so that all else here works without it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..core import ClientId, FederatedError
from ..federation.checkpoint import save
from ..federation.coordinator import Coordinator
from ..federation.elsewhere import Elsewhere
from ..federation.history import History, describe
from ..federation.identity import difference, facts
from ..federation.node import Node
from ..federation.orders import (
    Answer,
    Order,
    decode_answers,
    decode_drawers,
    decode_orders,
    encode_answers,
    encode_drawers,
    encode_orders,
)
from ..wire.messages import WireError, frame, unframe
from .secure import WHAT, SecureHome, far_round

Make = Callable[[], Coordinator]
KEY = "fl_course"                       # of our record in a Flower message, and in a node's Context.state
POLL = 0.1                              # seconds between two looks into the mailbox


# --- the server ----------------------------------------------------------------------------------------------------------


@dataclass
class GridPost:
    """Flower's push and pull of messages as a post. lost_after: seconds after which an unanswered order is given up."""

    grid: Any                                                   # flwr.serverapp.Grid
    experiment: Coordinator
    lost_after: float = 600.0
    say: Callable[[str], None] = print
    homes: dict[ClientId, int] = field(default_factory=dict, init=False)            # client → node id
    asked: dict[str, int] = field(default_factory=dict, init=False)                 # message that asks who lives there → node
    claims: dict[int, list[ClientId]] = field(default_factory=dict, init=False)     # node → clients that live on another so far
    turned_away: set[int] = field(default_factory=set, init=False)
    seen: tuple[float, frozenset[int]] = field(default=(0.0, frozenset()), init=False)
    open: dict[str, tuple[int, list[int], float]] = field(default_factory=dict, init=False)  # message → node, tickets, when
    silent: dict[str, int] = field(default_factory=dict, init=False)                # message that was given up → its node

    def nodes(self) -> frozenset[int]:
        """The nodes that are connected, at most a second ago. Those that are new are asked who lives there."""
        when, known = self.seen
        if time.monotonic() - when > 1.0:
            known = frozenset(self.grid.get_node_ids())
            self.seen = time.monotonic(), known
            fresh = known - set(self.homes.values()) - self.turned_away - set(self.asked.values()) - self.claims.keys()
            names = self.grid.push_messages([self._message(b"", "query", node) for node in fresh]) if fresh else []
            self.asked |= dict(zip(names, fresh, strict=True))
            for reply in self.grid.pull_messages(list(self.asked)) if self.asked else []:
                if (node := self.asked.pop(reply.metadata.reply_to_message_id, None)) is not None:
                    self._welcome(node, reply)
            self.claims = {node: named for node, named in self.claims.items() if node in known and not self._moved(node, named)}
        return known

    def gather(self, nodes: int, seconds: float) -> None:
        """Wait until so many nodes have said who lives there; FederatedError if they do not come."""
        ends = time.monotonic() + seconds
        while len(set(self.homes.values()) & self.nodes()) < nodes:
            if time.monotonic() > ends:
                raise FederatedError(f"{len(set(self.homes.values()))} of {nodes} nodes have come in {seconds:g} seconds")
            time.sleep(POLL)

    def _welcome(self, node: int, reply: Any) -> None:
        try:
            clients, theirs = unframe(_content(reply), "home")
            if not isinstance(clients, list):
                raise WireError(f"its clients are no list but {clients!r}"[:200])
            if found := difference(theirs, facts(self.experiment)):
                name, there, here = found
                raise WireError(f"it has another experiment: {name} is {there} there and {here} here")
            if strangers := [client for client in clients if client not in self.experiment.clients]:
                raise WireError(f"nobody knows its clients {strangers[:5]}")
            if not clients:
                raise WireError("no client lives on it; start no more nodes than there are clients")
        except (WireError, ValueError, TypeError, AttributeError) as why:
            self.turned_away.add(node)
            self.say(f"node {node} is turned away: {why}")
        else:
            if not self._moved(node, clients):
                self.claims[node] = clients
                self.say(f"node {node} says that clients {clients[:5]} live on it, but they do on another that is here: it waits "
                         "until that one is gone. Has every node a partition-id of its own?")     # fmt: skip

    def _moved(self, node: int, clients: list[ClientId]) -> bool:
        """They live on this node from now on, unless one of them lives on another that is connected."""
        if any(self.homes.get(client, node) in self.seen[1] - {node} for client in clients):
            return False
        self.homes |= dict.fromkeys(clients, node)
        self.say(f"node {node} is here with {len(clients)} clients")
        return True

    def _message(self, content: bytes, kind: str, node: int) -> Any:
        from flwr.app import ConfigRecord, Message, RecordDict

        return Message(RecordDict({KEY: ConfigRecord({"message": content})}), message_type=kind, dst_node_id=node)

    # --- a post (orders.py) ----------------------------------------------------------------------------------------------

    def here(self) -> set[ClientId]:
        """A node that owes an answer for too long is not asked again before it has spoken."""
        connected = self.nodes() - set(self.silent.values())
        return {client for client, node in self.homes.items() if node in connected}

    def send(self, orders: Sequence[Order]) -> None:
        bags: dict[int, list[Order]] = {}
        for order in orders:
            bags.setdefault(self.homes[order.client], []).append(order)
        for node, bag in bags.items():
            content = encode_orders(bag)
            (name,) = self.grid.push_messages([self._message(content, "train", node)])
            self.open[name] = node, [order.ticket for order in bag], time.monotonic()

    def answers(self, seconds: float) -> Sequence[Answer]:
        ends = time.monotonic() + seconds
        come: list[Answer] = []
        while True:
            names = [*self.open, *self.silent]
            for reply in self.grid.pull_messages(names) if names else []:
                if not reply.has_error():
                    self.silent.pop(reply.metadata.reply_to_message_id, None)
                if (sent := self.open.pop(reply.metadata.reply_to_message_id, None)) is not None:
                    come += self._read(reply, sent[1])
            connected = self.nodes()
            self.silent = {name: node for name, node in self.silent.items() if node in connected}
            for name, (node, tickets, when) in list(self.open.items()):
                gone = "its node is gone" if node not in connected else ""
                late = f"no answer in {self.lost_after:g} seconds" if time.monotonic() - when > self.lost_after else ""
                if gone or late:
                    del self.open[name]
                    if late:
                        self.silent[name] = node
                    come += [Answer(ticket, lost=gone or late) for ticket in tickets]
            if come or time.monotonic() >= ends:
                return come
            time.sleep(POLL)

    def _read(self, reply: Any, tickets: list[int]) -> list[Answer]:
        """The answers to these jobs. A node cannot answer for another's."""
        try:
            given = {answer.ticket: answer for answer in decode_answers(_content(reply))}
        except WireError as why:
            return [Answer(ticket, lost=str(why)) for ticket in tickets]
        return [given.get(ticket, Answer(ticket, lost="its node did not answer for it")) for ticket in tickets]

    def ask(self, what: str, questions: Mapping[ClientId, bytes]) -> Mapping[ClientId, bytes]:
        bags: dict[int, dict[ClientId, bytes]] = {}
        for client, question in questions.items():
            bags.setdefault(self.homes[client], {})[client] = question
        asked = sorted(bags.keys() & self.nodes())
        messages = [self._message(frame(what, list(map(list, bags[node].items()))), "query.ask", node) for node in asked]
        waiting = dict(zip(self.grid.push_messages(messages), asked, strict=True))
        given: dict[ClientId, bytes] = {}
        ends = time.monotonic() + self.lost_after
        while waiting and time.monotonic() < ends:
            for reply in self.grid.pull_messages(list(waiting)):
                node = waiting.pop(reply.metadata.reply_to_message_id, None)
                if node is None or reply.has_error():
                    continue
                try:
                    answered = {client: data for client, data in unframe(_content(reply), what) if isinstance(data, bytes)}
                except (WireError, ValueError, TypeError) as why:
                    self.say(f"node {node} was asked, and its answer cannot be read: {why}"[:300])
                    continue
                given |= {client: answered[client] for client in questions.keys() & answered if self.homes[client] == node}
            connected = self.nodes()
            waiting = {name: node for name, node in waiting.items() if node in connected}
            time.sleep(POLL if waiting else 0)
        return given


def _content(message: Any) -> bytes:
    """Our bytes in a Flower message; WireError if it says that something went wrong, or holds none."""
    if message.has_error():
        raise WireError(f"its node failed: {message.error.reason}"[:300])
    try:
        content = message.content[KEY]["message"]
    except (KeyError, TypeError) as why:
        raise WireError("the Flower message holds no message of this course") from why
    if not isinstance(content, bytes):
        raise WireError("the Flower message holds no message of this course")
    return content


def server_app(make: Make) -> Any:
    """flwr.serverapp.ServerApp. In the run's configuration: rounds, nodes, clock ("simulated" or "real"), out (a folder for
    history.json and model.ckpt), lost-after and gather-for (seconds)."""
    from flwr.serverapp import ServerApp

    app = ServerApp()

    @app.main()
    def main(grid: Any, context: Any) -> None:
        told = context.run_config
        serve(make(), grid, rounds=int(told["rounds"]), nodes=int(told["nodes"]), real=told.get("clock") == "real",
              out=str(told.get("out", "")), lost_after=float(told.get("lost-after", 600.0)),
              gather_for=float(told.get("gather-for", 300.0)))                     # fmt: skip

    return app


def serve(
    experiment: Coordinator, grid: Any, *, rounds: int, nodes: int, real: bool = False, out: str = "",
    lost_after: float = 600.0, gather_for: float = 300.0,
) -> History:  # fmt: skip
    """The server's side of a run: gather the nodes, train, say a line a round, write what came out."""
    if nodes > len(experiment.clients):
        raise ValueError(f"{nodes} nodes cannot share {len(experiment.clients)} clients; start at most one node a client")
    post = GridPost(grid, experiment, lost_after, say=_say)
    post.gather(nodes, gather_for)
    history = History(experiment=describe(experiment), state=experiment.initial())
    work = Elsewhere(post, real, session={"secure round": far_round(post)})
    for state, record in experiment.run(rounds, work=work):
        history.records.append(record)
        history.state = state
        metrics = "  ".join(f"{name} {record.metrics[name]:.3f}" for name in ("accuracy", "loss") if name in record.metrics)
        _say(f"round {record.version} of {rounds}: {len(record.clients)} clients, {record.nbytes:,} bytes  {metrics}")
        for event in record.events:
            _say(f"  {event}")
    if out:
        folder = Path(out)
        folder.mkdir(parents=True, exist_ok=True)
        save(folder / "model.ckpt", history.state, experiment)
        history.to_json(folder / "history.json")
    _say("done")
    return history


def _say(line: str) -> None:
    print(f"[fl-course] {line}", flush=True)


# --- the nodes -----------------------------------------------------------------------------------------------------------


def client_app(make: Make) -> Any:
    """flwr.clientapp.ClientApp for the clients at home on this node."""
    from flwr.app import ConfigRecord, Message, RecordDict
    from flwr.clientapp import ClientApp

    app = ClientApp()

    def reply(content: bytes, to: Any) -> Any:
        return Message(RecordDict({KEY: ConfigRecord({"message": content})}), reply_to=to)

    def kept(context: Any) -> dict[str, Any]:
        return dict(context.state[KEY]) if KEY in context.state else {}

    @app.query()
    def home(message: Any, context: Any) -> Any:
        experiment = make()
        return reply(frame("home", [list(at_home(experiment, context.node_config)), facts(experiment)]), message)

    @app.query("ask")
    def ask(message: Any, context: Any) -> Any:
        experiment, bag = make(), kept(context)
        secure = SecureHome.found(experiment, at_home(experiment, context.node_config), bag.get("secrets", b""))
        answered = [[client, secure.answer(client, question)] for client, question in unframe(_content(message), WHAT)]
        context.state[KEY] = ConfigRecord({**bag, "secrets": secure.kept()})
        return reply(frame(WHAT, answered), message)

    @app.train()
    def train(message: Any, context: Any) -> Any:
        experiment, bag = make(), kept(context)
        drawers = decode_drawers(bag["drawers"]) if "drawers" in bag else {}
        clients = at_home(experiment, context.node_config)
        node, secure = Node(experiment, clients, drawers), SecureHome.found(experiment, clients, bag.get("secrets", b""))
        begun = time.process_time()
        answers = node.obey(decode_orders(_content(message)), secure.session)
        ended = time.process_time()
        _say(f"{len(answers)} jobs took {ended - begun:.3f} s of the {ended:.2f} s of processor time of this process")
        context.state[KEY] = ConfigRecord({"drawers": encode_drawers(node.drawers), "secrets": secure.kept()})
        return reply(encode_answers(answers), message)

    return app


def at_home(experiment: Coordinator, node_config: Mapping[str, Any]) -> tuple[ClientId, ...]:
    """The clients of node `partition-id` of `num-partitions`."""
    try:
        place, nodes = int(node_config["partition-id"]), int(node_config["num-partitions"])
    except (KeyError, TypeError, ValueError):
        raise ValueError('which node of how many is it? Start it with --node-config "partition-id=0 num-partitions=2"') from None
    if not 0 <= place < nodes:
        raise ValueError(f"partition-id must lie in 0 … {nodes - 1}, not {place}")
    return experiment.clients[place::nodes]
