"""Secure sum with the clients elsewhere: the same sum and bytes as in one process; secrets stay, and are spent once."""

from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from small import experiment, federation

from fl_course import Elsewhere, SecureSum, Synchronous, Uniform
from fl_course.deploy.secure import WHAT, SecureHome, far_round
from fl_course.federation.node import Node
from fl_course.federation.orders import (
    decode_answers,
    encode_answers,
)
from fl_course.wire.messages import frame, unframe

UNIFORM = Uniform()


@dataclass
class Nodes:
    """Two nodes whose processes end after each message: what they know travels in bytes from one to the next."""

    experiment: object
    dead: set = field(default_factory=set)               # (step, node)
    kept: dict = field(default_factory=dict)
    back: list = field(default_factory=list)
    asked: list = field(default_factory=list)

    def homes(self, number):
        return self.experiment.clients[number::2]

    def here(self):
        return set(self.experiment.clients)

    def ask(self, what, questions):
        given = {}
        step = unframe(next(iter(questions.values())), WHAT)[3]
        self.asked.append(step)
        for number in (0, 1):
            if (step, number) in self.dead:
                continue
            home = SecureHome.found(self.experiment, self.homes(number), self.kept.get(number, b""))
            given |= {c: home.answer(c, q) for c, q in questions.items() if c in self.homes(number)}
            self.kept[number] = home.kept()
        return given

    def send(self, orders):
        for number in (0, 1):
            mine = [order for order in orders if order.client in self.homes(number)]
            home = SecureHome.found(self.experiment, self.homes(number), self.kept.get(number, b""))
            if ("train", number) in self.dead:
                self.back += [type(answer)(answer.ticket, lost="its node is gone") for answer in Node(
                    self.experiment, self.homes(number)).obey(mine, home.session)]
                continue
            self.back += decode_answers(encode_answers(Node(self.experiment, self.homes(number)).obey(mine, home.session)))
            self.kept[number] = home.kept()

    def answers(self, seconds):
        come, self.back = self.back, []
        return come


def runs(rounds=3, dead=(), clients=6, schedule=None, **settings):
    it = experiment(federation((8,) * clients), weights=UNIFORM, schedule=schedule or Synchronous(1.0),
                    stages=[SecureSum(clip=1.0, **settings)])                       # fmt: skip
    nodes = Nodes(it, set(dead))
    return it.train(rounds), it.train(rounds, work=Elsewhere(nodes, session={"secure round": far_round(nodes)})), nodes


@pytest.mark.parametrize("settings", [{}, {"round_seed": 5}, {"masked": False}, {"degree": 4}], ids=str)
def test_the_same_model_and_the_same_bytes(settings):
    here, there, _ = runs(**settings)
    assert there.state.server.params.tobytes() == here.state.server.params.tobytes()
    for one, other in zip(here.records, there.records, strict=True):
        assert (one.bytes_up, one.bytes_down, one.events) == (other.bytes_up, other.bytes_down, other.events)


@pytest.mark.filterwarnings("ignore:no update was ever used")
@pytest.mark.parametrize("step", ["advertise", "share", "receive", "train", "consistency", "unmask"])
def test_half_of_the_clients_vanish_at_any_step_and_nothing_is_opened(step):
    """Three of six are fewer than the threshold of five: no sum, the model stays, the run goes on."""
    _, there, nodes = runs(2, {(step, 1)})
    assert len(there.records) == 2
    np.testing.assert_array_equal(there.state.server.params, nodes.experiment.initial().server.params)
    assert any("abort" in event or "no update" in event for event in there.records[0].events), there.records[0].events


@pytest.mark.filterwarnings("ignore:no update was ever used")
@pytest.mark.parametrize(
    "lie",
    [b"rubbish", *(frame(WHAT, it) for it in (5, [1, 2, 3], [True, 5], [False, b"\xff"], [True, b"short"], [True, bytes(2000)]))],
    ids=repr,
)
@pytest.mark.parametrize("step", ["advertise", "share", "receive", "consistency", "unmask"])
def test_a_node_that_lies_about_a_step_does_not_end_the_run(step, lie):
    """Whatever one node says, the server goes on, with the sum of the others or without one."""
    it = experiment(federation((8,) * 6), weights=UNIFORM, schedule=Synchronous(1.0), stages=[SecureSum(clip=1.0)])

    @dataclass
    class Lies(Nodes):
        def ask(self, what, questions):
            given = super().ask(what, questions)
            return {c: lie if self.asked[-1] == step and c in self.homes(1) else data for c, data in given.items()}

    post = Lies(it)
    there = it.train(1, work=Elsewhere(post, session={"secure round": far_round(post)}))
    assert step in post.asked
    assert len(there.records) == 1
    assert there.records[0].events or set(there.records[0].clients) == set(it.clients)


def test_a_client_that_vanishes_after_its_keys_is_left_out_of_the_sum_and_the_others_are_opened():
    """Its masks are taken out again: the sum is that of the other four, as if it had never been asked."""
    it = experiment(federation((8,) * 5), weights=UNIFORM, schedule=Synchronous(1.0), stages=[SecureSum(clip=1.0)])

    @dataclass
    class Loses(Nodes):
        def answers(self, seconds):
            return [a if a.ticket != 4 else type(a)(a.ticket, lost="its node is gone") for a in super().answers(seconds)]

    post = Loses(it)
    record = it.train(1, work=Elsewhere(post, session={"secure round": far_round(post)}))
    assert len(record.records[0].clients) == 4
    (gone,) = set(it.clients) - set(record.records[0].clients)
    assert f"client {gone} failed in version 0: its node is gone" in record.records[0].events
    four = it.data.train
    others = replace(it.data, train=tuple(rows[:0] if k == gone else rows for k, rows in zip(it.data.ids, four, strict=True)))
    alone = replace(it, data=others).train(1)
    np.testing.assert_array_equal(record.state.server.params, alone.state.server.params)


def test_what_is_kept_on_a_node_is_forgotten_when_the_round_is_over():
    _, _, nodes = runs(1)
    for kept in nodes.kept.values():
        for _, mine in unframe(kept, "secrets"):
            assert mine["key"] == b""
            assert mine["heard"] == []


def question(it, client, step, data=b"", round_id=bytes(16), cohort=None):
    return frame(WHAT, [round_id, list(cohort or it.clients), bytes(32), step, data])


def test_a_round_is_opened_once_and_a_step_is_taken_once():
    it = experiment(federation((8,) * 3), weights=UNIFORM, schedule=Synchronous(1.0), stages=[SecureSum(clip=1.0)])
    home = SecureHome(it, it.clients)
    first = unframe(home.answer(0, question(it, 0, "advertise")), WHAT)
    assert first[0] is True
    again = unframe(home.answer(0, question(it, 0, "advertise")), WHAT)
    assert again[0] is False
    assert b"used before" in again[1]
    for step in ("unmask", "consistency", "receive", "nonsense"):
        assert unframe(home.answer(0, question(it, 0, step)), WHAT)[0] is False
    assert unframe(home.answer(99, question(it, 99, "advertise")), WHAT)[0] is False
    assert unframe(home.answer(0, b"no message"), WHAT)[0] is False


def test_two_clients_and_two_rounds_draw_other_keys():
    it = experiment(federation((8,) * 3), weights=UNIFORM, schedule=Synchronous(1.0), stages=[SecureSum(clip=1.0)])
    home = SecureHome(it, it.clients)
    said = [home.answer(client, question(it, client, "advertise", round_id=bytes([n] * 16))) for n in (1, 2) for client in (0, 1)]
    assert len(set(said)) == 4
