"""Released if and only if charged: random runs that go on from one another's state, against books kept by hand."""

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
from small import UNIFORM, Half, InOrder, Timed, experiment, named

from fl_course import (
    DPSGD,
    Buffered,
    CentralDP,
    DistributedNoise,
    LocalDP,
    LocalSGD,
    LogNormal,
    PoissonSelection,
    SecureSum,
    Stage,
    Synchronous,
    TreeDP,
    load,
    save,
)
from fl_course.core import stream
from fl_course.privacy.accounting import (
    PLD,
    RDP,
    Gaussian,
    Ledger,
    NonPrivate,
    PoissonSampled,
    Repeated,
)
from fl_course.privacy.books import KNOWN_SEED, NOT_COVERED, opened, own_ledger, written

NOBODY = Timed(dict.fromkeys(range(6), 1.0), gone=tuple(range(6)))
ONE_IS_ENOUGH = dict.fromkeys(range(6), 1.0)


def private(stage, **changes):
    return experiment(**({"weights": UNIFORM, "stages": [stage]} | changes))


def noised(z, **changes):
    return private(SecureSum(0.5, noise=DistributedNoise(1.0, z), masked=False), **changes)


HOW = DPSGD(1.0, 1.3, accountant=RDP())
KINDS = {                                                        # name: (what a round releases, if somebody answers; the run)
    "plain": (NonPrivate(), experiment(weights=UNIFORM)),
    "nobody": (NonPrivate(), experiment(weights=UNIFORM, fleet=NOBODY)),
    "central": (Gaussian(1.0), private(CentralDP(1.0, 1.0, accountant=RDP()))),
    "short": (Gaussian(2.0), private(CentralDP(0.1, 2.0, accountant=RDP()))),
    "coins": (PoissonSampled(0.5, Gaussian(1.5)), private(CentralDP(1.0, 1.5, accountant=RDP()), selection=PoissonSelection())),
    "central, nobody": (Gaussian(1.0), private(CentralDP(1.0, 1.0, accountant=RDP()), fleet=NOBODY)),
    "buffered": (Gaussian(3.0), private(CentralDP(1.0, 3.0, accountant=RDP()), schedule=Buffered(4, 2), fleet=LogNormal())),
    "tree": ("tree", private(TreeDP(1.0, 4.0, 99, accountant=RDP()))),
    "loud tree": ("tree", private(TreeDP(1.0, 0.5, 99, accountant=RDP()))),
    "wide tree": ("tree", private(TreeDP(2.0, 4.0, 99, accountant=RDP()))),
    "shares": (Gaussian(2.0), noised(2.0)),
    "shares, aborted": (None, noised(2.0, fleet=Timed(ONE_IS_ENOUGH, gone=(1, 2, 3, 4, 5)))),
    "shares, nobody": (None, noised(2.0, fleet=NOBODY)),
    "local": (NonPrivate(), private(LocalDP(1.0, 3.0, accountant=RDP()))),
    "laplace": (NonPrivate(), private(LocalDP(1.0, 3.0, "laplace", accountant=RDP()))),
    "examples": (NonPrivate(), experiment(weights=UNIFORM, training=LocalSGD(lr=0.1, batch_size=4, private=HOW))),
}  # fmt: skip
OTHERS = [name for name in KINDS if name != "buffered"]
MESSAGES = {"local": KINDS["local"][1].stages[0].event, "laplace": KINDS["laplace"][1].stages[0].event}


def plan(number):
    """Some runs, one after the other: mostly of one family, so that an epsilon often stays finite for a while."""
    rng = stream(number, "books")
    families = [
        ["central", "short", "coins", "central, nobody", "buffered"], ["tree", "loud tree", "wide tree", "central"],
        ["shares", "shares, aborted", "shares, nobody", "central"], ["local", "laplace"], ["examples", "nobody"], OTHERS,
    ]  # fmt: skip
    family = families[number % len(families)]
    strangers = ["plain"] if "buffered" in family else OTHERS    # a plain message that is under way would puzzle a secure sum
    return [str(rng.choice(family if rng.random() < 0.93 else strangers)) for _ in range(int(rng.integers(2, 7)))], rng


class ByHand:
    """What each version of the model and each message released, and the price of it all, by walking over the whole past."""

    def __init__(self):
        self.versions, self.messages = [], {client: [] for client in range(6)}

    def note(self, name, record, under_way):
        what = KINDS[name][0]
        what = what.event if under_way and isinstance(what, PoissonSampled) else what        # no coin was thrown for these
        self.versions.append((name, what))
        for client in record.clients:
            self.messages[client].append(name)

    def sums(self):
        """Epsilon of the models: a tree is one release for an unbroken stretch of its rounds."""
        events, tree = [], 0
        for i, (name, what) in enumerate(self.versions):
            if what == "tree":
                tree = tree + 1 if i and self.versions[i - 1][0] == name else 1
                last = i + 1 == len(self.versions) or self.versions[i + 1][0] != name
                if last:
                    how = KINDS[name][1].stages[0]
                    events.append(Gaussian(how.noise_multiplier / 99 / math.sqrt(math.floor(math.log2(tree)) + 1)))
            elif what is not None:
                events.append(what)
        return RDP().epsilon(events, 1e-5)

    def client(self, client, prices):
        names = self.messages[client]
        if prices == "messages":
            return RDP().epsilon([MESSAGES.get(name, NonPrivate()) for name in names], 1e-5)
        return RDP().epsilon([HOW.event(8, 4, 1) if name == "examples" else NonPrivate() for name in names], 1e-5)


@pytest.mark.parametrize("number", range(48))
def test_released_if_and_only_if_charged(number, tmp_path):
    names, rng = plan(number)
    state, books = None, ByHand()
    for name in names:
        it = KINDS[name][1]
        under_way = state is not None and bool(state.jobs)
        history = it.train(int(rng.integers(1, 4)), state)
        for record in history.records:
            books.note(name, record, under_way and record is history.records[0])
            if KINDS[name][0] not in (NonPrivate(), None):
                assert record.metrics["epsilon"] == pytest.approx(books.sums(), rel=1e-9), (names, name)
        state = history.state
        assert len(books.versions) == state.server.version
        for client in {c for record in history.records for c in record.clients}:
            kept = state.memory[client]["books"]
            assert kept["sent"] == len(books.messages[client]) + sum(job.sent for job in state.jobs if job.client == client)
            for prices, kinds in (("messages", MESSAGES), ("examples", ("examples",))):
                if name in kinds:
                    ledger = own_ledger(Ledger(None, 1e-5, RDP()), state.memory[client], prices)
                    assert ledger.spent() == pytest.approx(books.client(client, prices), rel=1e-9), (names, name)
        if name in MESSAGES:                                     # the largest of all, also of those who did not come today
            own = [books.client(c, "messages") for c in range(6) if books.messages[c]]
            others = any(kind not in MESSAGES for kind, _ in books.versions)
            assert record.metrics["epsilon"] == pytest.approx(math.inf if others else max(own))
        if rng.random() < 0.4:
            save(tmp_path / "file", state, it)
            state = load(tmp_path / "file", it)


def test_the_named_examples():
    plain, central = KINDS["plain"][1], KINDS["central"][1]
    state = central.train(1, plain.train(3, central.train(1).state).state)
    assert state.last("epsilon") == math.inf
    for name, prices in (("local", "messages"), ("examples", "examples")):
        after = KINDS[name][1].train(1, plain.train(4).state).state
        spent = [own_ledger(Ledger(None, 1e-5, RDP()), after.memory[c], prices).spent() for c in after.memory
                 if prices in after.memory[c]["books"]]
        assert spent == [math.inf] * 3
    loud, quiet = (private(TreeDP(1.0, z, 9)) for z in (0.01, 10.0))
    assert quiet.train(1, loud.train(1).state).last("epsilon") > 1000 > 4 > quiet.train(1).last("epsilon")
    aborted = KINDS["shares, aborted"][1].train(2)
    assert "epsilon" not in aborted.records[0].metrics
    noisy = KINDS["shares"][1].train(2, aborted.state)
    assert noisy.last("epsilon") == pytest.approx(RDP().epsilon(Repeated(Gaussian(2.0), 2), 1e-5))
    assert NOT_COVERED in noisy.records[0].events
    assert NOT_COVERED not in noisy.records[1].events


def test_a_new_tree_begins_at_its_own_first_step():
    """It must not take away the noise of nodes that it never added, nor draw again what an earlier tree has drawn."""
    first, second = (private(TreeDP(1e-9, z, 99, noise_seed=3)) for z in (1e9, 2e9))
    start = first.train(3).state
    before, noise = start.server.params, []
    for state, _ in second.run(4, start):
        noise.append(3 / 2 * (state.server.params - before))
    drawn = [3 * (s.server.params - first.initial().server.params) for s, _ in first.run(3)]
    for i, one in enumerate(noise):
        assert 0.4 * (i + 1).bit_count() < one.var() < 2.2 * (i + 1).bit_count()
        assert not any(np.allclose(one, other, atol=1e-3) for other in drawn)


def test_answers_under_way_were_clipped_to_what_was_said_when_they_left():
    wide, narrow = (private(CentralDP(clip, 1.0), schedule=Buffered(4, 2), fleet=LogNormal()) for clip in (100.0, 1.0))
    state = wide.train(3).state
    assert state.jobs
    assert narrow.train(1, state).last("noise_std") == pytest.approx(100.0 / 2)
    assert narrow.train(1).last("noise_std") == pytest.approx(1.0 / 2)
    there = private(CentralDP(1.0, 1.0)).train(2, state)                               # the last of them are in its first sum
    assert there.series("noise_std") == pytest.approx([100.0 / 3, 1.0 / 3])


# --- a ledger's own words -----------------------------------------------------------------------------------------------


def test_a_ledger_of_something_else_or_without_an_end_is_none():
    blank, full = Ledger(None, 1e-5), Ledger(None, 1e-5).charge(Gaussian(2.0), 3)
    assert opened(blank, written(full, "sums", 3), "sums", 3, "gap").events == full.events
    assert opened(blank, None, "sums", 0, "gap").events == ()
    for plain in (None, full.to_plain(), written(full, "messages", 3)):
        assert opened(blank, plain, "sums", 3, "gap").events == ((NonPrivate("gap"), 3),)
    assert opened(blank, written(full, "sums", 3), "sums", 5, "gap").events == (*full.events, (NonPrivate("gap"), 2))
    for complete in (4, -1, "3", None):
        with pytest.raises(ValueError, match="do not belong together"):
            opened(blank, written(full, "sums", complete), "sums", 3, "gap")


# --- what a client remembers --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Garbled(Stage):
    """Behind the back of the check: what client 1 sends is of another version, so the server refuses it."""

    def client(self, update, ctx):
        return replace(update, version=update.version + 1) if update.client == 1 else update


def behind(it, stage):
    object.__setattr__(it, "stages", (*it.stages, stage))
    return it


def test_a_client_whose_answers_are_refused_remembers_every_message():
    stage = LocalDP(1.0, 4.0, budget=3.5, noise_seed=1)
    allowed = Ledger(3.5, 1e-5).rounds_remaining(stage.event)
    history = behind(private(stage, selection=InOrder()), Garbled()).train(allowed + 3)
    refused = ["client 1 in version" in " ".join(r.events) and "refused" in " ".join(r.events) for r in history.records]
    assert refused == [True] * allowed + [False] * 3             # then its budget is spent, heard or not
    drawers = history.state.memory
    assert drawers[1]["books"] == drawers[0]["books"]
    assert set(drawers[1]) == {"books"}
    assert history.last("epsilon") == pytest.approx(PLD().epsilon(Repeated(stage.event, allowed), 1e-5))


def test_nothing_but_the_books_is_kept_of_an_answer_that_is_refused():
    """A residual belongs to what the server has: what it refused must be sent again."""
    drawers = behind(experiment(weights=UNIFORM, stages=[Half()], selection=InOrder()), Garbled()).train(3).state.memory
    assert drawers[1] == {"books": {"sent": 3}}
    assert drawers[0]["times"] == drawers[0]["books"]["sent"] == 3


def test_an_example_ledger_and_a_tree_remember_refused_answers_too():
    how = LocalSGD(lr=0.1, batch_size=4, private=replace(HOW, noise_seed=1))
    it = behind(experiment(weights=UNIFORM, training=how, selection=InOrder()), Garbled())
    drawers = it.train(2).state.memory
    assert drawers[1]["books"] == drawers[0]["books"]
    tree = behind(private(TreeDP(1.0, 1.0, 2), selection=InOrder()), Garbled()).train(4)
    assert [r.events.count("client 1 failed in version 2: it has taken part 2 times, which is all that its privacy allows")
            for r in tree.records] == [0, 0, 1, 0]


@pytest.mark.parametrize("schedule", [
    Synchronous(0.7, over_selection=0.5), Synchronous(1.0, deadline=1.2), Buffered(5, 2, max_staleness=0), Buffered(4, 3),
], ids=named)  # fmt: skip
def test_messages_are_booked_when_they_leave_whatever_becomes_of_them(schedule):
    """Counted by a stage that sees every message; those that never left, since the round was over, are in nobody's books."""
    fleet, spied = Timed({k: 0.5 + 0.17 * k for k in range(6)}, up=0.3), []

    class Spy(Stage):
        def client(self, update, ctx):
            spied.append((update.client, update.version))
            return update

    it = behind(private(LocalDP(1.0, 3.0), schedule=schedule, fleet=fleet), Spy())
    state = it.train(6).state
    made = {client: [c for c, _ in spied].count(client) for client in range(6)}
    for client, drawer in state.memory.items():
        sent = drawer["books"]["sent"]
        ledger = own_ledger(Ledger(None, 1e-5), drawer, "messages")
        assert ledger.events == ((it.stages[0].event, sent),)
        assert 0 < sent <= made[client]
    uploads = sum(r.bytes_up.get("update", 0) + r.bytes_up.get("late", 0) > 0 for r in it.train(6).records)
    assert uploads == 6


# --- notes --------------------------------------------------------------------------------------------------------------


SEEDED = {
    "central": lambda seed: private(CentralDP(1.0, 1.0, noise_seed=seed)),
    "tree": lambda seed: private(TreeDP(1.0, 1.0, 9, noise_seed=seed)),
    "local": lambda seed: private(LocalDP(1.0, 1.0, noise_seed=seed)),
    "examples": lambda seed: experiment(training=LocalSGD(lr=0.1, private=DPSGD(1.0, 1.0, noise_seed=seed))),
    "shares": lambda seed: private(SecureSum(0.5, noise=DistributedNoise(1.0, 2.0, noise_seed=seed))),
}


@pytest.mark.parametrize("name", SEEDED)
def test_a_known_seed_is_said_once_and_noted_for_ever(name):
    secret, seeded = (SEEDED[name](seed) for seed in (None, 7))
    before = secret.train(2)
    assert all("not_private" not in r.metrics and KNOWN_SEED not in r.events for r in before.records)
    for start in (None, before.state):
        history = seeded.train(2, start)
        assert [r.metrics.get("not_private") for r in history.records] == [1.0, 1.0]
        assert [r.events.count(KNOWN_SEED) for r in history.records] == [1, 0]
    assert secret.train(1, history.state).last("not_private") == 1.0       # what is out is out
