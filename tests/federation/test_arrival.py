"""What may arrive: the experiment says it before anybody has answered, and a wrong answer costs itself and nothing else."""

from dataclasses import replace

import numpy as np
import pytest
from small import UNIFORM, Half, federation
from wire_hostile import replaced, scrambled

import fl_course.federation.arrival as arrival
import fl_course.federation.coordinator as coordinator
from fl_course import (
    QSGD,
    Adaptive,
    Buffered,
    ByExamples,
    CentralDP,
    Clip,
    Coordinator,
    Correction,
    FedAdagrad,
    FedAdam,
    FedAvg,
    FedAvgM,
    FederatedDropout,
    FedNova,
    FedYogi,
    LocalDP,
    LocalSGD,
    PowerSGD,
    RandomK,
    Rotate,
    Scaffold,
    SecureSum,
    SignSGD,
    Stage,
    Synchronous,
    Ternary,
    Threshold,
    TopK,
    WireError,
    mlp,
    stream,
)
from fl_course.federation.arrival import receive
from fl_course.wire.layer_payloads import LowRank, Submodel
from fl_course.wire.masked import Masked
from fl_course.wire.messages import decode_update, encode_update, frame, unframe
from fl_course.wire.payloads import Quantised, Sparse, on_values

MODEL = mlp(5, 4, 3)
D = MODEL.dim                                                            # 39
SGD = LocalSGD(lr=0.1, epochs=1, batch_size=8)
STACKS = {
    "plain": {},
    "extras of a correction": {"training": replace(SGD, correction=Scaffold()), "weights": UNIFORM},
    "extras of a stage": {"stages": [FedNova()]},
    "clipped": {"weights": UNIFORM, "stages": [Clip(1.0)]},
    "sparse": {"stages": [TopK(0.2)]},
    "sparse by a key": {"stages": [RandomK(0.2)]},
    "sparse of any length": {"stages": [Threshold(1e-3)]},
    "sparse and quantised": {"stages": [TopK(0.2), QSGD(4)]},
    "quantised": {"stages": [Rotate(), QSGD(4, block=8)]},
    "ternary": {"stages": [Ternary()]},
    "signs": {"stages": [SignSGD()]},
    "thin factors": {"stages": [PowerSGD(MODEL, rank=1)]},
    "sub-models": {"stages": [FederatedDropout(MODEL, 0.5)]},
    "masked": {"weights": UNIFORM, "stages": [SecureSum(1.0, round_seed=3)]},
    "on a grid": {"weights": UNIFORM, "stages": [SecureSum(1.0, masked=False)]},
    "locally private": {"weights": UNIFORM, "stages": [LocalDP(1.0, 1.0, noise_seed=1)]},
    "a residual of one's own": {"weights": UNIFORM, "stages": [Half()]},
}
pytestmark = pytest.mark.filterwarnings("ignore:.*not private.*", "ignore:.*no update was ever used.*:RuntimeWarning")


def build(name, **changes):
    parts = {"training": SGD, "schedule": Synchronous(1.0)} | STACKS[name] | changes
    return Coordinator(federation(), MODEL, **parts)


def intercept(monkeypatch, client, how):
    """From now on this client's messages are changed on their way. how: (message, rng) -> message."""
    def tampered(job, ctx, experiment):
        if job.client == client:
            job = replace(job, message=how(job.message, stream(7, "tamper", job.base.version)))
        return receive(job, ctx, experiment)

    monkeypatch.setattr(coordinator, "receive", tampered)


def refusals(record):
    return [event for event in record.events if "was refused" in event]


@pytest.mark.parametrize("name", STACKS)
def test_every_honest_answer_has_the_form_that_its_experiment_says(name):
    for record in build(name).train(3).records:
        assert len(record.clients) == 6
        assert refusals(record) == []


@pytest.mark.parametrize("name", ["plain", "sparse", "sparse and quantised", "thin factors"])
def test_answers_of_older_versions_too(name):
    for record in build(name, schedule=Buffered(4, 2)).train(6).records:
        assert refusals(record) == []


def body(change):
    """A change of the list (client, version, payload, weight, extras, metrics)."""
    def how(message, rng):
        fields = unframe(message, "update")
        change(fields)
        return frame("update", fields)

    return how


def field(place, value):
    return body(lambda fields: fields.__setitem__(place, value))


def delta(value):
    return lambda message, rng: encode_update(replace(decode_update(message), delta=value))


F = np.float32
HOSTILE = {
    "1e300 in float64": delta(np.full(D, 1e300)),
    "1e39 in float64": delta(np.full(D, 1e39)),
    "NaN": delta(np.full(D, np.nan, F)),
    "minus infinity": delta(np.full(D, -np.inf, F)),
    "factors whose product overflows": delta(LowRank(((np.full((D, 1), 1e30, F), np.full((1, 1), 1e30, F)),))),
    "a sub-model that is the whole": delta(Submodel((5, 4, 3), (np.ones(4, bool),), np.full(D, 3e38, F))),
    "a masked vector": delta(Masked(np.ones(D + 1, np.uint32), 32, b"x" * 16)),
    "a masked vector of another ring": delta(Masked(np.ones(D + 1, np.uint16), 16)),
    "a sparse one with nothing in it": delta(Sparse(D, np.zeros(0, np.int64), np.zeros(0, F), None)),
    "a code of other levels": delta(Quantised(np.zeros(D, np.uint16), 60000, np.full(1, 3e38, F), D)),
    "a plain vector": delta(np.zeros(D, F)),
    "integers": delta(np.ones(D, np.int32)),
    "truth values": delta(np.ones(D, bool)),
    "a row": delta(np.ones((1, D), F)),
    "one number more": delta(np.ones(D + 1, F)),
    "a sparse one that claims a huge length": field(2, ["sparse", 2**40, 2, 5, b"\0" * 4]),
    "a two-dimensional string of bytes": field(2, ["sparse", D, 1, np.zeros((2, 3), np.uint8), b"\0" * 8]),
    "bytes that are an array": field(2, ["quantised", D, 256, D, np.zeros((1, 4), np.uint8), np.zeros((D, 1), np.uint8)]),
    "a payload of no class": field(2, ["pickle", b"x"]),
    "none": field(2, None),
    "another extra": body(lambda f: f[4].update(odd=np.zeros(3, F))),
    "an infinite extra": body(lambda f: f[4].update(control=np.full(D, 1e300))),
    "an extra without a shape": body(lambda f: f[4].update(work=np.float64(1.0), control=np.zeros((), F))),
    "a weight of 1e300": field(3, 1e300),
    "a weight that is true": field(3, True),
    "a weight next to nothing": body(lambda f: f.__setitem__(slice(2, 4), [np.full(D, 3e38, F), 1e-30])),
    "a client that is true": field(0, True),
    "a version that is false": field(1, False),
    "a metric that is NaN": field(5, {"examples": 8.0, "loss_last": float("nan")}),
    "a metric that is infinite": field(5, {"examples": 8.0, "loss_last": float("inf")}),
    "a metric of 1e300": field(5, {"examples": 1e300}),
    "a metric in words": field(5, {"examples": "8"}),
    "a metric that is an array": field(5, {"examples": np.ones(4)}),
    "ten thousand metrics": field(5, {str(i): 0.0 for i in range(10_000)}),
    "three hundred metrics": field(5, {str(i): 0.0 for i in range(300)}),
    "a metric with a long name": field(5, {"x" * 10_000: 0.0}),
    "a megabyte of nothing": field(5, {"x": [[]] * 1_000_000}),
    "nothing": lambda message, rng: b"",
    "noise": lambda message, rng: rng.bytes(300),
}
PLAIN = ("plain", "extras of a correction", "extras of a stage", "clipped", "locally private", "a residual of one's own")
HONEST = {("sparse", "a sparse one with nothing in it"), ("sparse of any length", "a sparse one with nothing in it"),
          *((name, "a plain vector") for name in PLAIN)}  # fmt: skip


@pytest.mark.parametrize("name", STACKS)
def test_a_hostile_answer_costs_itself_and_nothing_else(name, monkeypatch):
    it = build(name)
    intercept(monkeypatch, 1, lambda message, rng: b"")
    without = it.train(1)
    for what in [what for what in HOSTILE if (name, what) not in HONEST]:
        intercept(monkeypatch, 1, HOSTILE[what])
        history = it.train(1)
        for record, wanted in zip(history.records, without.records, strict=True):
            assert len(refusals(record)) == 1, what
            assert refusals(record)[0].startswith("the answer of client 1 in version")
            assert len(refusals(record)[0]) < 700
            assert record.clients == wanted.clients == (0, 2, 3, 4, 5)
        assert history.state.server.params.tobytes() == without.state.server.params.tobytes(), what
        assert history.state.reports[1] == {"asked": 1, "asked_version": 0}


@pytest.mark.parametrize("name", ["plain", "extras of a correction", "quantised", "masked"])
def test_strict_raises_for_each_of_them(name, monkeypatch):
    for how in [HOSTILE[what] for what in HOSTILE if (name, what) not in HONEST]:
        intercept(monkeypatch, 1, how)
        with pytest.raises(WireError, match="the answer of client 1 in version 0 was refused"):
            build(name, strict=True).train(1)


@pytest.mark.parametrize("name", STACKS)
def test_any_change_of_any_message_is_refused_or_harmless(name, monkeypatch):
    """The fields of an honest answer, some of them replaced by junk: no error, nothing infinite, nobody else refused."""
    for trial in range(6):
        def how(message, rng, trial=trial):
            rng = stream(trial, "hostile", name, len(message))
            return replaced(message, "update", rng) if trial % 2 else scrambled(message, rng)

        intercept(monkeypatch, 1, how)
        history = build(name).train(2)
        assert np.isfinite(history.state.server.params).all()
        assert all(np.isfinite(extra).all() for extra in history.state.server.extras.values())
        for record in history.records:
            assert {0, 2, 3, 4, 5} <= set(record.clients)
        assert all(np.isfinite(list(report.values())).all() for report in history.state.reports.values())


@pytest.mark.parametrize("liar", range(6))
def test_the_first_to_answer_decides_nothing(liar, monkeypatch):
    for name in ("plain", "extras of a correction", "extras of a stage"):
        intercept(monkeypatch, liar, body(lambda f: f[4].update(odd=np.zeros(3, F))))
        (record,) = build(name).train(1).records
        assert record.clients == tuple(k for k in range(6) if k != liar)
        (event,) = refusals(record)
        assert "extras have shapes" in event
        assert "'odd': (3,)" in event


def test_a_part_that_does_not_say_what_it_sends_is_told_so_by_the_event():
    class Silent(Stage):
        def client(self, update, ctx):
            return replace(update, extras={"c": np.ones(2, F)})

    class Speaks(Silent):
        def sends(self, example, ctx):
            return replace(example, extras={"c": np.zeros(2, F)})

    class Method(Correction):
        def finish(self, task, delta, steps, lr, gradient):
            return {"c": np.ones(2, F)}

        def sends(self, server):
            return {"c": np.zeros(2, F)}

    (record,) = build("plain", stages=[Silent()]).train(1).records
    assert len(refusals(record)) == 6
    assert "`sends`" in refusals(record)[0]
    for parts in ({"stages": [Speaks()]}, {"training": replace(SGD, correction=Method())}):
        (record,) = build("plain", **parts).train(1).records
        assert len(record.clients) == 6


def test_a_secure_answer_of_another_round_or_in_the_clear_does_not_stop_the_run(monkeypatch):
    seen = []
    def again(message, rng):                                             # the answer of the first round, again and again
        seen.append(message)
        return frame("update", [*unframe(message, "update")[:2], unframe(seen[0], "update")[2], 1.0, {}, {}])

    intercept(monkeypatch, 1, again)
    first, second = build("masked").train(2).records
    assert len(first.clients) == 6
    assert "it is masked for round" in refusals(second)[0]
    assert second.clients == (0, 2, 3, 4, 5)


@pytest.mark.parametrize("error", [TypeError, KeyError, ZeroDivisionError, MemoryError, RecursionError, AssertionError])
@pytest.mark.parametrize("where", ["decode_update", "check_update"])
def test_whatever_goes_wrong_while_an_answer_is_read_is_a_refusal(where, error, monkeypatch):
    def fails(*arguments):
        raise error("odd bytes")

    monkeypatch.setattr(arrival, where, fails)
    (record,) = build("plain").train(1).records
    assert len(refusals(record)) == 6
    assert f"it cannot be read: {error.__name__}: " in refusals(record)[0]


# --- how much one answer can do -----------------------------------------------------------------------------------------


WEIGHTS = {"uniform": (UNIFORM, (1.0, 1.0)), "capped": (ByExamples(cap=5), (0.0, 5.0)), "roomy": (ByExamples(cap=10), (0.0, 8.0)),
           "by examples": (ByExamples(), (0.0, 8.0))}  # fmt: skip


@pytest.mark.parametrize("name", WEIGHTS)
def test_nobody_weighs_more_than_the_experiment_says(name, monkeypatch):
    weights, (least, most) = WEIGHTS[name]
    it, rng = build("plain", weights=weights), stream(3, "weights")
    tried = [0.0, 1.0, 5.0, 5.001, 8.0, 8.001, 1e30, *(10 ** rng.uniform(-3, 38, 12)).tolist()]
    for weight in tried:
        intercept(monkeypatch, 1, body(lambda f, w=weight: f.__setitem__(slice(2, 4), [f[2] * F(1e-3) * F(min(w, 1.0)), w])))
        (record,) = it.train(1).records
        assert (refusals(record) == []) == (least <= weight <= most), weight


def test_a_masked_answer_shows_no_weight_but_one(monkeypatch):
    for weight in (0.0, 2.0, 1e30):
        intercept(monkeypatch, 1, field(3, weight))
        assert "weighs" in refusals(build("masked").train(1).records[0])[0]


ADAPTIVE = {"weights": UNIFORM, "stages": [CentralDP(1.0, 1.0, adaptive=Adaptive(count_noise=2.0), noise_seed=0)]}


@pytest.mark.parametrize("what", ["unclipped", "work"])
def test_numbers_beside_the_update_are_those_of_an_honest_client(what, monkeypatch):
    it = build("plain", **(ADAPTIVE if what == "unclipped" else {"stages": [FedNova()], "weights": UNIFORM}))
    honest = [[0.5], [-0.5]] if what == "unclipped" else [[1.0, 1.0]]
    odd = [3e38, -3e38, 1e4, 0.0, 0.49, -5.0, 1e-30]
    bad = [[x] for x in odd] if what == "unclipped" else [[x, y] for x in [*odd, 1.1, 2.0] for y in [*odd, 1.0]]
    for value in [*honest, *bad]:
        intercept(monkeypatch, 1, body(lambda f, v=value: f[4].update({what: np.array(v, F)})))
        history = it.train(2)
        assert len(history) == 2
        assert all((refusals(record) == []) == (value in honest) for record in history.records), value


@pytest.mark.parametrize("optimizer", [FedAvg(), FedAvg(lr=10.0), FedAvgM(), FedAdagrad(), FedAdam(), FedYogi()])
@pytest.mark.parametrize("name", ["plain", "extras of a correction", "extras of a stage", "sparse of any length", "signs"])
def test_no_size_of_one_answer_ends_the_run(name, optimizer, monkeypatch):
    it = build(name, optimizer=optimizer)
    for power in (14, 19, 25, 38):
        def huge(message, rng, power=power):
            update = decode_update(message)
            values, delta = np.full(D, 3 * 10.0**power, F), update.delta
            if isinstance(delta, Quantised):
                delta = replace(delta, scales=np.full_like(delta.scales, values[0]))
            else:
                delta = values if isinstance(delta, np.ndarray) else on_values(delta, lambda v: np.full_like(v, values[0]))
            extras = {key: np.full_like(x, values[0]) if key == "control" else x for key, x in update.extras.items()}
            return encode_update(replace(update, delta=delta, extras=extras))

        intercept(monkeypatch, 1, huge)
        history = it.train(4)
        assert (len(history), history.stopped) == (4, ""), power
        assert np.isfinite(history.state.server.params).all()
        if power > 15:
            assert all(len(refusals(record)) == 1 and len(record.clients) == 5 for record in history.records)
