"""Flower's grid as a post, against a grid of ours that forgets, repeats, fails and lies. No Flower is needed."""

import time
from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import pytest
from small import experiment, federation

from fl_course import Buffered, Elsewhere, FederatedError, LocalSGD, Synchronous, TopK
from fl_course.deploy.flower import KEY, GridPost, serve
from fl_course.federation.identity import facts
from fl_course.federation.node import Node
from fl_course.federation.orders import Answer, decode_orders, encode_answers
from fl_course.wire.messages import frame


class Reply:
    def __init__(self, to, node, content=b"", error=""):
        self.metadata = SimpleNamespace(reply_to_message_id=to, src_node_id=node)
        self.content, self.error = {KEY: {"message": content}}, SimpleNamespace(reason=error)

    def has_error(self):
        return bool(self.error.reason)


@dataclass
class FakeGrid:
    """Two nodes; spoil(node, kind, content of the reply) → the reply's content, None for none yet, or an exception."""

    experiment: object
    spoil: object = None
    up: set = field(default_factory=lambda: {11, 22})
    waiting: dict = field(default_factory=dict)
    nodes: dict = field(default_factory=dict)
    theirs: object = None
    says: dict = field(default_factory=dict)                # node → the clients that it says live on it

    def __post_init__(self):
        homes = {11: self.experiment.clients[0::2], 22: self.experiment.clients[1::2]}
        self.nodes = {node: Node(self.experiment, clients) for node, clients in homes.items()}

    def get_node_ids(self):
        return sorted(self.up)

    def push_messages(self, messages):
        names = [f"m{len(self.waiting) + i}" for i in range(len(messages))]
        self.waiting |= dict(zip(names, messages, strict=True))
        return names

    def pull_messages(self, names):
        replies = []
        for name in names:
            message = self.waiting.get(name)
            if message is None or message.node not in self.up:
                continue
            node = self.nodes[message.node]
            if message.kind == "query":
                theirs = facts(self.theirs or self.experiment) if message.node == 22 else facts(self.experiment)
                content = frame("home", [list(self.says.get(message.node, node.clients)), theirs])
            elif message.kind == "query.ask":
                content = frame("riddle", [[client, b"yes"] for client in node.clients])
            else:
                content = encode_answers(node.obey(decode_orders(message.content)))
            spoilt = self.spoil(message.node, message.kind, content) if self.spoil else content
            if spoilt is None:
                continue
            self.waiting[name] = None
            sound = isinstance(spoilt, bytes)
            replies.append(Reply(name, message.node, spoilt if sound else b"", "" if sound else str(spoilt)))
        return replies


def post_for(it, **settings):
    lost_after, nodes = settings.pop("lost_after", 600.0), settings.pop("nodes", 2)
    post = GridPost(FakeGrid(it, **settings), it, lost_after, say=lambda line: said.append(line))
    said = post.said = []
    post._message = lambda content, kind, node: SimpleNamespace(content=content, kind=kind, node=node)
    post.gather(nodes, 5)
    return post


PARTS = {"stages": [TopK(0.3)], "schedule": Synchronous(1.0)}


def test_a_run_over_a_grid_is_the_simulated_run():
    it = experiment(**PARTS)
    here, there = it.train(3), it.train(3, work=Elsewhere(post_for(it)))
    assert there.records == here.records
    it = experiment(schedule=Buffered(4, 2))
    assert it.train(6, work=Elsewhere(post_for(it))).records == it.train(6).records


def test_a_node_with_another_experiment_is_turned_away_with_the_fact_that_differs():
    it = experiment(**PARTS)
    post = post_for(it, theirs=replace(it, training=LocalSGD(lr=0.2, epochs=2, batch_size=4)), nodes=1)
    assert post.turned_away == {22}
    assert any("another experiment: training.lr is 0.2 there and 0.1 here" in line for line in post.said)
    assert post.here() == {0, 2, 4}


@pytest.mark.parametrize(
    ("spoilt", "event"),
    [
        (ValueError("out of memory"), "its node failed: out of memory"),
        (b"rubbish", "not a message"),
        (frame("answers", []), "did not answer for it"),
    ],
)
def test_what_a_node_does_wrong_costs_its_own_clients_answers(spoilt, event):
    it = experiment(**PARTS)
    post = post_for(it, spoil=lambda node, kind, content: spoilt if (node, kind) == (22, "train") else content)
    record = it.train(1, work=Elsewhere(post)).records[0]
    assert record.clients == (0, 2, 4)
    assert sum(event in text for text in record.events) == 3


def test_a_node_cannot_answer_for_the_clients_of_another():
    """Node 22 answers for every job there is; only those that were sent to it count."""
    def greedy(node, kind, content):
        return encode_answers([Answer(k, b"mine") for k in range(6)]) if (node, kind) == (22, "train") else content

    it = experiment(**PARTS)
    record = it.train(1, work=Elsewhere(post_for(it, spoil=greedy))).records[0]
    assert record.clients == (0, 2, 4)
    assert sum("was refused" in text for text in record.events) == 3


def test_who_does_not_answer_in_time_is_given_up():
    it = experiment(**PARTS)
    post = post_for(it, spoil=lambda node, kind, content: None if (node, kind) == (11, "train") else content, lost_after=0.3)
    record = it.train(1, work=Elsewhere(post)).records[0]
    assert record.clients == (1, 3, 5)
    assert sum("no answer in 0.3 seconds" in text for text in record.events) == 3


def test_a_silent_node_is_not_asked_again_before_it_has_spoken():
    late = {"yet": False}

    def spoil(node, kind, content):
        return None if (node, kind) == (11, "train") and not late["yet"] else content

    it = experiment(**PARTS)
    post = post_for(it, spoil=spoil, lost_after=2.0)
    steps = it.run(4, work=Elsewhere(post))
    assert next(steps)[1].clients == (1, 3, 5)
    started = time.monotonic()
    assert next(steps)[1].clients == (1, 3, 5)                          # at once: nobody waits for the silent
    assert time.monotonic() - started < 2.0
    late["yet"] = True                                                  # its old answer comes, is not used, and it is asked again
    next(steps)
    record = next(steps)[1]
    assert record.clients == (0, 1, 2, 3, 4, 5)
    assert set(record.staleness) == {0}


def test_a_node_that_is_gone_is_not_waited_for_and_may_come_back():
    it = experiment(federation((8,) * 6), **PARTS)
    post = post_for(it)
    steps = it.run(3, work=Elsewhere(post))
    assert len(next(steps)[1].clients) == 6
    post.grid.up.discard(22)
    post.seen = (0.0, frozenset())
    assert next(steps)[1].clients == (0, 2, 4)
    post.grid.up.add(22)
    post.seen = (0.0, frozenset())
    assert len(next(steps)[1].clients) == 6


def test_nodes_that_do_not_come_are_told():
    it = experiment(**PARTS)
    post = GridPost(FakeGrid(it, up=set()), it, say=lambda line: None)
    with pytest.raises(FederatedError, match=r"0 of 2 nodes have come in 0\.2 seconds"):
        post.gather(2, 0.2)


def test_two_nodes_that_say_the_same_clients_live_on_them_do_not_take_them_from_each_other():
    """Both were started with partition-id=0. The second waits, is asked once, and moves in when the first is gone."""
    it = experiment(**PARTS)
    post = post_for(it, says={22: it.clients[0::2]}, nodes=1)
    grid, said = post.grid, post.said
    with pytest.raises(FederatedError, match="1 of 2 nodes have come"):
        post.gather(2, 2.5)                                 # three looks at who is connected
    first, second = sorted(grid.up, key=lambda node: node not in post.homes.values())
    assert set(post.homes.values()) == {first}
    assert len(grid.waiting) == 2                           # each was asked once
    assert [line for line in said if "partition-id of its own" in line and f"node {second} says" in line] == said[1:]
    grid.up.discard(first)
    post.seen = (0.0, frozenset())
    assert post.here() == {0, 2, 4}
    assert set(post.homes.values()) == {second}


@pytest.mark.parametrize("clients", [{"a": 1}, "ab", 5, None], ids=repr)
def test_what_a_node_calls_its_clients_must_be_a_list(clients):
    it = experiment(replace(federation(), ids=tuple("abcdef")), **PARTS)

    def spoil(node, kind, content):
        return frame("home", [clients, facts(it)]) if (node, kind) == (22, "query") else content

    post = post_for(it, spoil=spoil, says={11: tuple("abc")}, nodes=1)
    assert post.turned_away == {22}
    assert set(post.homes) == set("abc")


def test_more_nodes_than_clients_are_told_at_once_and_a_node_without_clients_is_asked_once():
    it = experiment(**PARTS)
    with pytest.raises(ValueError, match="7 nodes cannot share 6 clients"):
        serve(it, FakeGrid(it), rounds=1, nodes=7)
    post = post_for(it, says={22: ()}, nodes=1)
    assert post.turned_away == {22}
    assert any("no client lives on it" in line for line in post.said)


@pytest.mark.parametrize(
    "lie",
    [b"rubbish", frame("other", []), *(frame("riddle", it) for it in (5, [5], [[1, "words"], [1, 2, 3]], [[[1], b"x"]]))],
    ids=repr,
)
def test_a_node_that_answers_a_question_with_rubbish_costs_its_own_clients_answers(lie):
    it = experiment(**PARTS)
    post = post_for(it, spoil=lambda node, kind, content: lie if (node, kind) == (22, "query.ask") else content)
    assert post.ask("riddle", dict.fromkeys(it.clients, b"?")) == dict.fromkeys(it.clients[0::2], b"yes")
    assert "its answer cannot be read" in post.said[-1]
