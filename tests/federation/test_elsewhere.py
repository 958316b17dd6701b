"""Clients elsewhere: the same model, bytes and records as in one process, whatever the post does; drawers stay with them."""

import time
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from small import CLASSES, DIM, Half, experiment, federation

from fl_course import (
    DPSGD,
    IFCA,
    Buffered,
    CentralDP,
    ClientFailure,
    Clusters,
    CompositionError,
    Coordinator,
    Ditto,
    Downlink,
    Elsewhere,
    FedAdam,
    FedAvgM,
    FedDyn,
    FederatedDropout,
    FedRep,
    FedYogi,
    Krum,
    LocalDP,
    LocalSGD,
    LogNormal,
    Oort,
    PowerOfChoice,
    PowerSGD,
    Scaffold,
    SemiSynchronous,
    SignFlip,
    Split,
    Stage,
    Synchronous,
    TopK,
    TreeDP,
    Uniform,
    WireError,
    fedasync,
    load,
    mlp,
    own_measure,
    save,
)
from fl_course.core import FederatedError
from fl_course.federation.elsewhere import KEPT
from fl_course.federation.node import Node
from fl_course.federation.orders import (
    Answer,
    Order,
    decode_answers,
    decode_drawers,
    decode_orders,
    encode_answers,
    encode_drawers,
    encode_orders,
)
from fl_course.wire.messages import encode_model, frame


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


NET, HOW = mlp(DIM, 4, CLASSES), LocalSGD(lr=0.1, epochs=1, batch_size=4)
CHAPTERS = {
    "2 FedDyn": {"training": replace(HOW, correction=FedDyn(0.1)), "weights": UNIFORM},
    "3 DP-SGD": {"training": replace(HOW, private=DPSGD(1.0, 1.0, noise_seed=1)), "weights": UNIFORM},
    "3 a tree": {"weights": UNIFORM, "stages": [TreeDP(1.0, 0.5, participations=9, noise_seed=1)]},
    "5 PowerSGD": {"weights": UNIFORM, "stages": [PowerSGD(NET, 1)]},
    "5 sub-models": {"weights": UNIFORM, "stages": [FederatedDropout(NET, 0.5)]},
    "6 Oort": {"selection": Oort()},
    "7 FedAsync": fedasync(4),
    "7 semi-synchronous": {"schedule": SemiSynchronous(0.8, deadline=1.0), "fleet": LogNormal(speed_spread=1.0)},
    "8 Ditto": {"training": replace(HOW, personal=Ditto(0.2))},
    "8 FedRep": {"training": replace(HOW, personal=FedRep()), "model": Split(NET, [list(NET.shapes())[-1].rpartition(".")[0]])},
    "8 IFCA": {"training": replace(HOW, personal=IFCA()), "model": Clusters(NET, 2)},
    "9 Krum": {"aggregation": Krum(1), "schedule": Synchronous(1.0)},
}  # fmt: skip


@pytest.mark.parametrize("parts", CHAPTERS.values(), ids=CHAPTERS)
def test_every_chapters_mechanism_works_elsewhere_as_here(parts):
    data = federation(ids=[3, "b", 11, "ward 7", 0, "z"], tests=11)
    it = Coordinator(data, **({"model": NET, "training": HOW, "schedule": Synchronous(0.5)} | parts))
    here, there = it.train(5), it.train(5, work=Elsewhere(Bags(it)))
    assert there.records == here.records
    assert there.state.server.params.tobytes() == here.state.server.params.tobytes()


def test_drawers_stay_with_the_clients_and_the_server_keeps_their_numbers():
    here, there, bags = both({"weights": UNIFORM, "stages": [Half()]}, rounds=4)
    assert all(set(drawer) == {"residual", "times", "books"} for drawer in here.state.memory.values())
    assert all(set(drawer) == {KEPT, "books"} for drawer in there.state.memory.values())
    at_home = {client: kept for bag in bags.bags.values() for client, kept in decode_drawers(bag).items()}
    for client, drawer in there.state.memory.items():
        mine = at_home[client][f"after {drawer[KEPT]}"] | {"books": at_home[client]["books"]}
        assert mine.keys() == here.state.memory[client].keys()
        np.testing.assert_array_equal(mine["residual"], here.state.memory[client]["residual"])
        assert len(at_home[client]) <= 3                                # its books, the drawer that it went on from, the new one


def test_a_state_whose_drawers_are_elsewhere_is_not_gone_on_with_here():
    it = experiment(weights=UNIFORM, stages=[Half()])
    away = it.train(2, work=Elsewhere(Bags(it)))
    for use in (lambda: it.train(1, away), lambda: own_measure(it, away)):
        with pytest.raises(ValueError, match=r"are kept where they trained.*work=Elsewhere"):
            use()
    it = experiment(weights=UNIFORM)
    assert len(it.train(1, it.train(2, work=Elsewhere(Bags(it))))) == 1          # empty drawers are no loss


def test_a_resumed_run_goes_on_with_the_jobs_that_were_in_flight(tmp_path):
    parts = EXPERIMENTS["buffered, jobs in flight"]
    it = experiment(federation(ids=[3, "b", 11, "ward 7", 0, "z"]), **parts)
    whole, bags = it.train(6), Bags(it)
    first = it.train(3, work=Elsewhere(bags))
    save(tmp_path / "x.ckpt", first.state, it)
    rest = it.train(3, state=load(tmp_path / "x.ckpt", it), work=Elsewhere(bags))           # the nodes have lived on
    assert first.records + rest.records == whole.records
    assert rest.state.server.params.tobytes() == whole.state.server.params.tobytes()


@dataclass
class Liars(Bags):
    """Their answers arrive changed: fields of the answer, or None to hand it on as it is."""

    lie: object = None

    def answers(self, seconds):
        return [replace(answer, **self.lie(answer)) for answer in super().answers(seconds)]


NAMES = ("ledger", "local epsilon", "local version", "known seed", "tree", "moment", "anything", "h")


@pytest.mark.parametrize("name", ["moments", "central noise", "the clients' own noise"])
def test_a_node_says_what_the_stages_let_it_say_and_nothing_else(name):
    fed = experiment(**EXPERIMENTS[name])
    says = dict.fromkeys(NAMES, 7.0)
    honest = fed.train(3, work=Elsewhere(Bags(fed)))
    lied = fed.train(3, work=Elsewhere(Liars(fed, lie=lambda answer: {"says": {**says, **answer.says}})))
    assert lied.state.server.state.keys() == honest.state.server.state.keys()
    assert np.array_equal(lied.state.server.params, honest.state.server.params)
    assert [r.metrics for r in lied.records] == [r.metrics for r in honest.records]
    lied = fed.train(3, work=Elsewhere(Liars(fed, lie=lambda answer: {"says": says})))
    for key, value in honest.state.server.state.items():                     # its own epsilon is its own word
        np.testing.assert_equal(lied.state.server.state[key], 7.0 if key == "local epsilon" else value)


@dataclass(frozen=True)
class Murmurs(Stage):
    """Its client half writes what is no number, and a number that it has not said that it would."""

    says = ("loudest",)

    def client(self, update, ctx):
        ctx.state |= {"loudest": float("nan"), "whisper": 1.0, "words": "no number"}
        return update


def test_what_a_client_half_writes_costs_no_answer():
    fed = experiment(stages=[Murmurs()])
    history = fed.train(2, work=Elsewhere(Bags(fed)))
    assert all(record.clients for record in history.records)
    assert not {"loudest", "whisper", "words"} & history.state.server.state.keys()


def test_one_client_with_a_bug_ends_no_run():
    fed = experiment(schedule=Synchronous(0.01))                            # one client a round, and nobody was heard before
    liars = Liars(fed, lie=lambda answer: {"message": None, "lost": "no", "bug": True})
    with pytest.warns(RuntimeWarning, match="no update was ever used"):
        history = fed.train(2, work=Elsewhere(liars))
    assert [r.clients for r in history.records] == [(), ()]
    assert "failed in version 0: no" in history.records[0].events[0]


def test_a_node_that_was_started_anew_says_that_its_drawers_are_lost():
    it = experiment(weights=UNIFORM, stages=[Half()], schedule=Synchronous(1.0))
    bags = Bags(it, nodes=2)
    states = it.run(2, work=Elsewhere(bags))
    next(states)
    del bags.bags[1]
    _, record = next(states)
    assert len(record.clients) == 3
    assert sum("its drawer is lost" in event for event in record.events) == 3


def test_who_is_lost_costs_its_own_answer_and_strict_raises():
    def gone(orders):
        return orders[1:], [Answer(order.ticket, lost="its node is gone") for order in orders[:1]]

    _, there, _ = both({"schedule": Synchronous(1.0)}, rounds=3, spoil=gone)
    assert [len(record.clients) for record in there.records] == [4, 4, 4]
    assert all("failed in version 0: its node is gone" in event for event in there.records[0].events)
    assert there.records[0].metrics["failed"] == 2
    it = experiment(schedule=Synchronous(1.0), strict=True)
    with pytest.raises(ClientFailure, match="its node is gone"):
        it.train(1, work=Elsewhere(Bags(it, spoil=gone)))


@dataclass(frozen=True)
class Broken(Stage):
    who: tuple = ()

    def client(self, update, ctx):
        if not self.who or update.client in self.who:
            raise TypeError("a bug")
        return update


def test_what_breaks_everybody_is_the_programs_and_what_breaks_one_is_its_own():
    it = experiment(stages=[Broken()], schedule=Synchronous(1.0))
    with pytest.raises(FederatedError, match=r"in a way that nobody foresaw.*a bug"):
        it.train(1, work=Elsewhere(Bags(it)))
    it = experiment(stages=[Broken((2,))], schedule=Synchronous(1.0))
    record = it.train(1, work=Elsewhere(Bags(it))).records[0]
    assert record.clients == (0, 1, 3, 4, 5)
    assert "TypeError: a bug" in record.events[0]


def test_rubbish_and_strangers_cost_their_own_answer():
    def rubbish(orders):
        good = orders[2:]
        return good, [Answer(orders[0].ticket, b"rubbish"), Answer(999, b"x"), *[Answer(o.ticket, b"") for o in orders[1:2]]]

    it = experiment(schedule=Synchronous(1.0))
    record = it.train(1, work=Elsewhere(Bags(it, nodes=1, spoil=rubbish))).records[0]
    assert len(record.clients) == 4
    assert sum("was refused" in event for event in record.events) == 2


@dataclass
class Unruly(Bags):
    """Answers come in any order, some at a time or none, twice, long after they were used, and some that nobody ordered."""

    seed: int = 0
    old: list = field(default_factory=list)
    again: int = 0

    def __post_init__(self):
        self.luck = np.random.default_rng(self.seed)

    def answers(self, seconds):
        self.luck.shuffle(self.back)
        count = int(self.luck.integers(len(self.back) + 1))
        come, self.back = self.back[:count], self.back[count:]
        late = [replace(answer, message=b"too late to matter") for answer in self.old if self.luck.random() < 0.3]
        late += [Answer(int(self.luck.integers(10**6, 10**9)), bytes(20)), Answer(2**62, lost="nobody asked", bug=True)]
        self.old += come
        self.again += len(late)
        return [*come, *late, *(replace(answer, message=b"a second thought") for answer in come)]      # the first one counts


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("name", ["drop-outs, residuals", "over-selection", "buffered, jobs in flight"])
def test_in_whatever_order_and_how_often_answers_come_the_run_is_the_same(name, seed):
    it = experiment(federation(ids=[3, "b", 11, "ward 7", 0, "z"]), **EXPERIMENTS[name])
    post = Unruly(it, nodes=3, seed=seed)
    here, there = it.train(4), it.train(4, work=Elsewhere(post))
    assert post.again > 10
    assert there.records == here.records
    assert there.state.server.params.tobytes() == here.state.server.params.tobytes()


@pytest.mark.parametrize("name", ["the wrong client's", "truncated", "huge"])
def test_an_answer_that_is_not_the_jobs_costs_only_itself(name):
    """A node answers for one client with another's update, with half of one, or with far more than was asked for."""

    class Wrong(Bags):
        def answers(self, seconds):
            come = sorted(super().answers(seconds), key=lambda answer: answer.ticket)
            if come:
                bad = {"the wrong client's": come[1].message, "truncated": come[0].message[:-9],
                       "huge": come[0].message + bytes(10**7)}[name]                            # fmt: skip
                come[0] = replace(come[0], message=bad)
            return come

    it = experiment(schedule=Synchronous(1.0))
    record = it.train(1, work=Elsewhere(Wrong(it, nodes=1))).records[0]
    assert len(record.clients) == len(it.clients) - 1
    assert sum("was refused" in event for event in record.events) == 1
    assert all(len(event) < 400 for event in record.events)


def test_a_node_refuses_other_peoples_clients_and_other_models():
    it = experiment()
    node = Node(it, (0, 1))
    model = encode_model(it.initial().server)
    orders = [Order(1, 5, (5,), model), Order(2, 0, (0,), b"rubbish"), Order(3, 1, (1,), model, drawer=7)]
    orders += [Order(4, 1, (1,), model)]
    lost = [answer.lost for answer in node.obey(orders)]
    assert "does not live here" in lost[0]
    assert "not a message" in lost[1]
    assert "drawer is lost" in lost[2]
    assert lost[3] == ""
    with pytest.raises(ValueError, match="no examples"):
        Node(it, (0, 99))


@pytest.mark.parametrize(
    ("parts", "real", "sentence"),
    [
        ({"attack": SignFlip(clients=(1,))}, False, "simulate attacks"),
        ({"selection": PowerOfChoice()}, False, "asks clients something before"),
        ({"fleet": LogNormal()}, True, "leave fleet out"),
    ],
)
def test_what_others_cannot_carry_out_is_refused(parts, real, sentence):
    it = experiment(**parts)
    with pytest.raises(CompositionError, match=sentence):
        it.train(1, work=Elsewhere(Bags(it), real=real))


RUBBISH = [b"", b"rubbish", frame("orders", 3), frame("orders", [[1, 2, 3, 4, 5]]), frame("answers", [[1]]),
           frame("answers", [[1, 2, "", False, False, {}]]), frame("answers", [[-1, None, "", False, False, {}]]),
           frame("answers", [[1, None, "", False, False, {"a": "b"}]])]                         # fmt: skip


@pytest.mark.parametrize("message", RUBBISH)
def test_bytes_that_are_no_orders_or_answers_are_refused(message):
    with pytest.raises(WireError):
        decode_orders(message)
    with pytest.raises(WireError):
        decode_answers(message)


# --- the real clock ------------------------------------------------------------------------------------------------------


@dataclass
class Live(Bags):
    """Answers of a client come so many real seconds after it was asked; None: never, and nobody says so."""

    seconds: dict = field(default_factory=dict)
    out: list = field(default_factory=list)

    def send(self, orders):
        for order in orders:
            super().send([order])
            (answer,), self.back = self.back, []
            wait = self.seconds.get(order.client, 0.01)
            if wait is not None:
                self.out.append((time.monotonic() + wait, answer))

    def answers(self, seconds):
        ends = time.monotonic() + seconds
        while True:
            come = [answer for when, answer in self.out if when <= time.monotonic()]
            self.out = [(when, answer) for when, answer in self.out if when > time.monotonic()]
            if come or time.monotonic() >= ends:
                return come
            time.sleep(0.002)


def live(rounds, seconds=(), **parts):
    it = experiment(**parts)
    post = Live(it, seconds=dict(seconds))
    return it, it.train(rounds, work=Elsewhere(post, real=True)), post


def test_on_the_real_clock_rounds_of_all_are_the_same_model():
    it, there, _ = live(4, {0: 0.1}, schedule=Synchronous(1.0), optimizer=FedAdam(lr=0.05))
    here = it.train(4)
    assert there.state.server.params.tobytes() == here.state.server.params.tobytes()
    assert [record.clients for record in there.records] == [record.clients for record in here.records]
    assert all(0.1 <= record.clock - before <= 2 for record, before in zip(there.records, [0, *(r.clock for r in there.records)],
                                                                            strict=False))             # fmt: skip
    for span in there.records[0].spans:
        assert span.trained - span.downloaded >= (0.1 if span.client == 0 else 0.0)
        assert span.begun <= span.downloaded <= span.trained <= span.ended


def test_a_real_deadline_closes_a_round_and_late_answers_are_not_used():
    started = time.monotonic()
    _, history, _ = live(2, {0: None, 1: 0.6}, schedule=Synchronous(1.0, deadline=0.4))
    assert time.monotonic() - started < 5
    assert [len(record.clients) for record in history.records] == [4, 4]
    assert sum("too late" in event for event in history.records[0].events) == 2


def test_over_selection_steps_with_the_first_that_come():
    _, history, _ = live(1, {0: 5.0}, schedule=Synchronous(0.5, min_clients=5, over_selection=0.2))
    assert history.records[0].clients == (1, 2, 3, 4, 5)


def test_a_buffer_on_the_real_clock_takes_whoever_comes_and_counts_staleness():
    """One client takes as long as several steps of the others: its answer is used, late, and known to be stale."""
    _, history, _ = live(30, {0: 0.3, **dict.fromkeys(range(1, 6), 0.03)}, schedule=Buffered(6, 2))
    used = [pair for record in history.records for pair in zip(record.clients, record.staleness, strict=True)]
    assert all(len(record.clients) == 2 for record in history.records)
    assert next(stale for client, stale in used if client == 0) >= 2
    assert history.state.jobs                                           # clients are still at work when it ends
    assert all(a.clock < b.clock for a, b in zip(history.records, history.records[1:], strict=False))


def test_one_who_is_lost_does_not_hold_up_a_round_on_the_real_clock():
    it = experiment(schedule=Synchronous(1.0))
    post = Live(it, seconds={3: None})
    send = post.send

    def sends(orders):
        send(orders)
        post.out += [(time.monotonic() + 0.1, Answer(o.ticket, lost="its page was closed")) for o in orders if o.client == 3]

    post.send = sends
    history = it.train(2, work=Elsewhere(post, real=True))
    assert [len(record.clients) for record in history.records] == [5, 5]
    assert any("its page was closed" in event for event in history.records[0].events)
