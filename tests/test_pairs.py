"""Every two parts of the library together: refused with a sentence that teaches, or five rounds that keep what all runs promise.

    finite        five versions of a finite model; nobody failed, nobody was refused, nothing overflowed, no warning
    counted       bytes are the lengths of the messages that were encoded, and a state knows the sum of its records
    booked        a private run's epsilon never falls, and its books are complete
    resumed       cut after three rounds and loaded from a file, it goes on to the bit (looked at for a third of the pairs)
    limits        a part that has nothing to do is as if it were not there, whatever stands beside it: no die is moved

The parts and pairs are those of tools/compositions.py, which also writes docs/compositions.md.
"""

import math
import sys
from functools import cache
from itertools import combinations_with_replacement

import numpy as np
import pytest
from workbook_fixtures import ROOT

import fl_course as fl
from fl_course.federation import coordinator, work
from fl_course.federation.interfaces import PrivateTraining, ServerOptimizer
from fl_course.federation.state import Job
from fl_course.wire.messages import encode_update

sys.path.insert(0, str(ROOT / "tools"))
import compositions as tool

PAIRS = list(tool.pairs())
KINDS = [tuple(kinds) for kinds in combinations_with_replacement(tool.KINDS, 2)
         if any({a.kind, b.kind} == set(kinds) for a, b in PAIRS)]  # fmt: skip
ROUNDS, CUT = 5, 3
USED = ("used", "left out")                                              # left out: by a robust rule, once it was heard


def train(it, rounds, begin=None):
    with np.errstate(all="raise", under="ignore"):
        return it.train(rounds, begin)


def hold(it, monkeypatch, file):
    answers, jobs, broadcast = {}, [], coordinator.broadcast

    def encoded(update, *more):
        message = encode_update(update, *more)
        answers[update.client, update.version] = len(message)
        return message

    def sent(*arguments):
        for started in broadcast(*arguments):
            jobs.extend(part for part in started if isinstance(part, Job))
            yield started

    monkeypatch.setattr(work, "encode_update", encoded)
    monkeypatch.setattr(coordinator, "broadcast", sent)
    begin = train(it, CUT)
    history = train(it, ROUNDS - CUT, begin.state)
    finite(it, begin.records + history.records, history.state)
    counted(begin.records + history.records, history.state, answers, jobs)
    booked(it, begin.records + history.records, history.state)
    monkeypatch.undo()
    if file:
        fl.save(file, begin.state, it)
        again = train(it, ROUNDS - CUT, fl.load(file, it))
        assert again.records == history.records
        assert again.state.server.params.tobytes() == history.state.server.params.tobytes()


def finite(it, records, state):
    assert [record.version for record in records] == list(range(1, ROUNDS + 1))
    assert np.isfinite(state.server.params).all()
    assert not np.array_equal(state.server.params, it.initial().server.params)
    events = [event for record in records for event in record.events]
    assert not [event for event in events if "refused" in event or "failed" in event or "infinite" in event], events


def counted(records, state, answers, jobs):
    spans = [span for record in records for span in record.spans]
    for span in spans:
        assert span.nbytes in (0, answers.get((span.client, span.version)))
        assert span.fate in (*USED, "dropped out", "too late")
    used = sum(span.nbytes for span in spans if span.fate in USED)
    late = sum(span.nbytes for span in spans if span.fate == "too late")
    assert sum(record.bytes_up.get("update", 0) for record in records) == used == sum(sum(record.upload) for record in records)
    assert sum(record.bytes_up.get("late", 0) for record in records) <= late
    assert sum(record.bytes_down.get("model", 0) for record in records) == sum(job.received for job in jobs)
    assert len(jobs) == state.ticket == len(spans) + len(state.jobs)
    assert state.sent == sum(record.nbytes for record in records)


def booked(it, records, state):
    spent = [record.metrics["epsilon"] for record in records if "epsilon" in record.metrics]
    assert all(0 < before <= after < math.inf for before, after in zip(spent, [*spent[1:], *spent[-1:]], strict=True))
    if any(isinstance(stage, fl.CentralDP | fl.TreeDP | fl.LocalDP) for stage in it.stages):
        assert len(spent) == ROUNDS
    if any(stage.noisy for stage in it.stages):
        assert state.server.state["ledger"]["complete"] == ROUNDS
    for drawer in state.memory.values():
        books = drawer.get("books", {})
        for prices in ("messages", "examples"):
            assert prices not in books or books[prices]["complete"] == books["sent"]


def taught(sentence, pair):
    assert len(sentence) >= 40, sentence
    assert sentence.endswith(".") or "; " in sentence or ": " in sentence, sentence


@pytest.mark.parametrize("kinds", KINDS, ids=" and ".join)
def test_every_pair_is_refused_with_a_sentence_or_runs_and_keeps_its_promises(kinds, monkeypatch, tmp_path):
    ran = 0
    for pair in PAIRS:
        if {part.kind for part in pair} != set(kinds):
            continue
        if sentence := tool.refusal(*pair):
            taught(sentence, pair)
            continue
        try:
            hold(tool.build(*(part.changes for part in pair)), monkeypatch, None if ran % 3 else tmp_path / "run")
        except Exception as why:
            raise AssertionError(f"{pair[0]} and {pair[1]} were accepted: {type(why).__name__}: {why}") from why
        ran += 1
    assert ran


def test_every_part_of_the_library_is_among_them():
    sockets = (fl.Stage, fl.Selector, fl.Schedule, fl.Aggregation, ServerOptimizer, fl.Fleet, fl.Attack, fl.PersonalTraining,
               fl.Correction, PrivateTraining)  # fmt: skip
    kinds = {kind for kind in (getattr(fl, name) for name in fl.__all__) if isinstance(kind, type) and issubclass(kind, sockets)}
    abstract = {*sockets, fl.Robust}
    plain = {fl.Uniform, fl.UniformSelection, fl.FedAvg}
    there = set()
    for part in tool.PARTS:
        it = tool.build(part.changes)
        how = it.training
        there |= {type(value) for value in (*it.pipeline, it.schedule, it.selection, it.aggregation, it.optimizer, it.fleet,
                                            it.attack, how.personal, how.correction, how.private)}  # fmt: skip
    assert kinds - abstract - plain - there == set()


def test_the_page_says_what_is_so():
    """After a change: python tools/compositions.py --write"""
    assert tool.PAGE.read_text(encoding="utf-8") == tool.page()


# --- a part that has nothing to do ----------------------------------------------------------------------------------------

FULL, FREE = fl.Synchronous(1.0), fl.CentralDP(1e6, 0.0, **tool.PRICED)
NOTHING = {name: (tool.Part(kind, name), changes, without) for kind, name, changes, without in (
    ("stages", "Clip", {"stages": (fl.Clip(1e6),)}, {}),
    ("stages", "CentralDP", {"stages": (FREE,)}, {}),
    ("stages", "TopK", {"stages": (fl.TopK(1.0),)}, {}),
    ("stages", "TopK(no feedback)", {"stages": (fl.TopK(1.0, feedback=False),)}, {}),
    ("stages", "RandomK", {"stages": (fl.RandomK(1.0),)}, {}),
    ("stages", "Threshold", {"stages": (fl.Threshold(1e-30),)}, {}),
    ("stages", "FederatedDropout", {"stages": (fl.FederatedDropout(tool.NET, 0.0),)}, {}),
    ("training", "FedProx", {"correction": fl.FedProx(0.0)}, {}),
    ("training", "Stragglers", {"epochs": fl.Stragglers(0.0, 2)}, {"epochs": 2}),
    ("training", "momentum", {"momentum": 0.0}, {}),
    ("personal", "FedPer", {"personal": fl.FedPer(), "model": fl.Split(tool.NET)}, {}),
    ("personal", "LGFedAvg", {"personal": fl.LGFedAvg(), "model": fl.Split(tool.NET)}, {}),
    ("personal", "FineTune", {"personal": fl.FineTune()}, {}),
    ("personal", "Ditto", {"personal": fl.Ditto()}, {}),
    ("personal", "IFCA", {"personal": fl.IFCA(), "model": fl.Clusters(tool.NET, 1)}, {}),
    ("weights", "ByExamples", {"weights": fl.ByExamples()}, {}),                       # all have as many
    ("selection", "PoissonSelection", {"selection": fl.PoissonSelection(), "schedule": FULL}, {"schedule": FULL}),
    ("selection", "RoundRobin", {"selection": fl.RoundRobin(), "schedule": FULL}, {"schedule": FULL}),
    ("selection", "PowerOfChoice", {"selection": fl.PowerOfChoice(), "schedule": FULL}, {"schedule": FULL}),
    ("selection", "Oort", {"selection": fl.Oort(cutoff=0.0), "schedule": FULL}, {"schedule": FULL}),
    ("selection", "DivFL", {"selection": fl.DivFL(), "schedule": FULL}, {"schedule": FULL}),
    ("selection", "LabelDiversity", {"selection": fl.LabelDiversity(), "schedule": FULL}, {"schedule": FULL}),
    ("selection", "QualityScore", {"selection": fl.QualityScore(), "schedule": FULL}, {"schedule": FULL}),
    ("schedule", "SemiSynchronous", {"schedule": fl.SemiSynchronous(0.7)}, {}),
    ("schedule", "deadline", {"schedule": fl.Synchronous(0.7, deadline=1e9)}, {}),
    ("schedule", "over-selection", {"schedule": fl.Synchronous(0.7, over_selection=0.0)}, {}),
    ("aggregation", "WeightedMean(discount)", {"aggregation": fl.WeightedMean(fl.Discount(a=0.0))}, {}),
    ("aggregation", "Mixing", {"aggregation": fl.Mixing(1.0)}, {}),
    ("aggregation", "TrimmedMean", {"aggregation": fl.TrimmedMean(0)}, {}),
    ("aggregation", "MultiKrum", {"aggregation": fl.MultiKrum(0)}, {}),
    ("aggregation", "Bulyan", {"aggregation": fl.Bulyan(0)}, {}),
    ("aggregation", "CentredClipping", {"aggregation": fl.CentredClipping(1e6)}, {}),
    ("aggregation", "NormBound", {"aggregation": fl.NormBound(1e6)}, {}),
    ("aggregation", "OutlierRemoval", {"aggregation": fl.OutlierRemoval(cutoff=1e9)}, {}),
    ("aggregation", "Bucketing", {"aggregation": fl.Bucketing(fl.TrimmedMean(0))}, {}),
    ("aggregation", "NearestNeighbourMixing", {"aggregation": fl.NearestNeighbourMixing(fl.TrimmedMean(0))}, {}),
    ("optimizer", "FedAvgM", {"optimizer": fl.FedAvgM(1.0, 0.0)}, {}),
    ("fleet", "LogNormal", {"fleet": fl.LogNormal(jitter=0.5)}, {}),
    ("fleet", "Known", {"fleet": fl.Known({client: 0.5 + client / 2 for client in tool.DATA.ids})}, {}),
    ("attack", "Scaling", {"attack": fl.Scaling(tool.LIARS, 1.0)}, {}),
    ("attack", "Backdoor", {"attack": fl.Backdoor(tool.LIARS, trigger=fl.Trigger((0,)), versions=())}, {}),
    ("evaluation", "Evaluation(federated)", {"evaluation": fl.Evaluation(every=5, federated=True)}, {}),
)}  # fmt: skip


# Where it is not, and should not be.
DENOMINATOR = ("PoissonSelection", "TiFL", "Equal(drop)", "LogNormal", "Devices(DayNight)")      # fewer come than are planned for
TIMES = ("Oort", "TiFL", "over-selection", "SemiSynchronous", "Buffered", "fedbuff", "fedasync")     # who is fast
PACKERS = ("Clip", "QSGD", "Ternary", "SignSGD(no feedback)")           # what they take away waits in the residual
VOTE = ("Buffered",)                                                    # two answers of one client are one vote for a robust rule
OTHERWISE = {
    "CentralDP": DENOMINATOR, "TopK": PACKERS, "Threshold": PACKERS, "LogNormal": TIMES, "Known": (*TIMES, "deadline"),
    "ByExamples": ("Threshold",),                                                 # in units of n_k·delta
    "IFCA": ("PowerSGD", "PowerSGD(no feedback)"),                                # whose dice are named after the layers
    "PowerOfChoice": ("Equal(drop)",),                                            # who vanishes when asked is not chosen
    "Mixing": ("Buffered",),                                                      # it takes back what a stale model has not heard
    "TrimmedMean": VOTE, "CentredClipping": VOTE, "NormBound": VOTE, "NearestNeighbourMixing": VOTE,
    "MultiKrum": (*VOTE, "TiFL", "Equal(drop)"), "Bulyan": (*VOTE, "TiFL", "Equal(drop)"),      # two answers are too few
    "Bucketing": (*VOTE, *DENOMINATOR, "over-selection"),                         # the last bucket is smaller, and counts as much
    "OutlierRemoval": (*VOTE, "Mimic"),                                           # beside equal updates, all others are outliers
}  # fmt: skip


@cache
def model_of(without, other):
    """The model (d,) after some rounds of the plain experiment with this one part."""
    return train(tool.build(dict(without), other.changes), CUT).state.server.params


@pytest.mark.parametrize("name", NOTHING)
def test_a_part_that_has_nothing_to_do_is_as_if_it_were_not_there(name):
    part, changes, without = NOTHING[name]
    ran, otherwise = 0, set()
    for pair in PAIRS:
        if part not in pair or pair[0] == pair[1]:
            continue
        other = pair[1] if pair[0] == part else pair[0]
        if other.changes.keys() & {*changes, *without} - {"stages"}:
            continue
        try:
            with_it = tool.build(*(changes if p == part else p.changes for p in pair))
            plain = model_of(tuple(without.items()), other)
        except (ValueError, TypeError):
            continue                                                  # one of the two is refused
        if not np.allclose(train(with_it, CUT).state.server.params, plain, rtol=0, atol=2e-6):
            otherwise.add(other.name)
        ran += 1
    assert otherwise == set(OTHERWISE.get(name, ()))
    assert ran >= 30
