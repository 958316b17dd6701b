"""SecureSum in the loop: to the bit the plain sum of integers, whoever drops out; and it refuses what it cannot protect."""

import dataclasses
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from scipy.stats import chisquare
from small import Half, InOrder, Lie, Spy, Timed, experiment, federation, final

import fl_course.secure_aggregation.stage as stage_module
from fl_course import (
    QSGD,
    Aggregate,
    Buffered,
    ByExamples,
    CentralDP,
    Clip,
    CompositionError,
    Context,
    Coordinator,
    Downlink,
    Equal,
    FedAvgM,
    FedNova,
    LocalSGD,
    PoissonSelection,
    Rotate,
    Scaffold,
    SecureSum,
    Stage,
    Synchronous,
    TopK,
    Uniform,
    Update,
    WeightedMean,
    load,
    save,
)
from fl_course.federation.aggregation import Discount
from fl_course.federation.interfaces import Aggregation
from fl_course.wire.masked import Masked
from fl_course.wire.messages import WireError, check_update, decode_update, encode_update

EVERYBODY = Synchronous(1.0)
SECURE = SecureSum(0.5, max_weight=8, round_seed=1)


def plain(stage):
    return dataclasses.replace(stage, masked=False)


def secure(data=None, stage=SECURE, before=(), **changes):
    return experiment(data, **({"schedule": EVERYBODY, "stages": [*before, stage]} | changes))


# --- the sum --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", [Uniform(), ByExamples()])
def test_the_sum_in_a_federation_is_the_sum_of_integers_computed_by_hand(weights):
    """Independently: round each update to the grid with Python's numbers, weigh, add, divide."""
    before, after = Spy(), Spy()
    sizes = (3, 8, 5, 6, 8, 4)
    it = secure(federation(sizes), dataclasses.replace(SECURE, bits=12), [after, before], weights=weights)
    state, _ = next(it.run(1))
    step = 0.5 / (2**11 - 1)
    total, weight = [0] * it.model.dim, 0
    for update in before.sent:
        n = int(update.weight)
        codes = [round(min(max(float(v) / n, -0.5), 0.5) / step) for v in update.delta]
        total, weight = [t + n * c for t, c in zip(total, codes, strict=True)], weight + n
    (aggregate,) = after.sums
    assert aggregate.weight == weight == (sum(sizes) if weights == ByExamples() else 6)
    assert np.array_equal(np.rint(aggregate.total / step).astype(int), total)
    np.testing.assert_allclose(aggregate.total, np.array(total) * step, rtol=1e-12)
    mean = (np.array(total) * step / weight).astype(np.float32)
    np.testing.assert_allclose(state.server.params, it.initial().server.params + mean, atol=1e-7)


@pytest.mark.parametrize("changes", [
    {},
    {"weights": Uniform(), "stage": SecureSum(0.5)},
    {"stage": SecureSum(0.5, max_weight=8, bits=8, ring_bits=0, rounding="toward zero")},
    {"stage": SecureSum(0.5, max_weight=8, degree=4)},
    {"stage": SecureSum(0.5, max_weight=8, bits=32, ring_bits=40)},
    {"before": [Rotate()]},
    {"before": [Downlink(8)]},
    {"before": [Clip(0.3)], "weights": Uniform()},
    {"fleet": Timed(dict.fromkeys(range(6), 1.0), gone=(2, 5)), "stage": SecureSum(0.5, max_weight=8, threshold=4)},
    {"schedule": Synchronous(0.67, over_selection=0.4), "fleet": Timed({k: 1.0 + k for k in range(6)}),
     "stage": SecureSum(0.5, max_weight=8, threshold=4)},
    {"schedule": Synchronous(1.0, deadline=4.5), "fleet": Timed({k: 1.0 + k for k in range(6)}),
     "stage": SecureSum(0.5, max_weight=8, threshold=4)},
])  # fmt: skip
def test_with_and_without_masks_the_model_is_the_same_bit_for_bit(changes):
    stage = changes.pop("stage", SECURE)
    masked, open_ = (secure(stage=s, **changes) for s in (stage, plain(stage)))
    assert final(masked) == final(open_) != masked.initial().server.params.tobytes()


def test_the_grid_is_fine_enough_to_train_as_without_it():
    a, b = secure(stage=SecureSum(0.5, 24, max_weight=8)).train(4), secure(stage=Stage()).train(4)
    np.testing.assert_allclose(a.state.server.params, b.state.server.params, atol=1e-5)


def test_a_round_seed_makes_every_byte_reproducible(monkeypatch):
    seen = []
    for seed in (1, 1, 2):
        sent = spied(monkeypatch)
        secure(stage=dataclasses.replace(SECURE, round_seed=seed)).train(2)
        seen.append([encode_update(update) for update in sent])
        monkeypatch.undo()
    assert seen[0] == seen[1]
    assert not set(seen[0]) & set(seen[2])


def test_the_hash_of_a_model_knows_its_numbers_and_its_version():
    server = experiment().initial().server
    later, other = dataclasses.replace(server, version=1), dataclasses.replace(server, params=server.params + np.float32(1e-3))
    assert len({stage_module.model_hash(each) for each in (server, later, other)}) == 3


def test_secrets_of_the_operating_system_change_every_message_and_not_the_model():
    stage = SecureSum(0.5, max_weight=8)
    real, rounds = stage_module.Round.open, []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage_module.Round, "open", lambda self: rounds.append(self) or real(self))
        runs = [secure(stage=stage).train(2) for _ in range(2)]
    assert not {m.data for m in rounds[0].messages} & {m.data for m in rounds[2].messages}
    assert runs[0].state.server.params.tobytes() == runs[1].state.server.params.tobytes()
    assert runs[0].records[-1].bytes_up == runs[1].records[-1].bytes_up


# --- drop-outs --------------------------------------------------------------------------------------------------------


def test_those_who_drop_out_are_not_in_the_sum_and_the_others_are():
    gone = Timed(dict.fromkeys(range(6), 1.0), gone=(1,))
    after = Spy()
    record = secure(before=[after], fleet=gone, weights=ByExamples()).train(1).records[0]
    assert record.clients == (0, 2, 3, 4, 5)
    assert after.sums[0].weight == 5 * 8
    assert "client 1 dropped out" in record.events
    assert record.bytes_up["unmask"] > 0


def test_below_the_threshold_nothing_is_opened_and_the_model_stays():
    gone = Timed(dict.fromkeys(range(6), 1.0), gone=(1, 3))
    it = secure(fleet=gone)                              # threshold floor(2·6/3) + 1 = 5, four answers
    history = it.train(2)
    assert history.state.server.params.tobytes() == it.initial().server.params.tobytes()
    assert history.state.server.version == 2
    assert "unmask" not in history.records[0].bytes_up
    assert any("aborted" in e and "fewer than the threshold 5" in e for e in history.records[0].events)
    assert final(secure(stage=dataclasses.replace(SECURE, threshold=4), fleet=gone)) != final(it)


def test_an_aborted_round_does_not_even_move_the_momentum():
    it = secure(fleet=Equal(drop=0.25), optimizer=FedAvgM(0.9))
    before, aborted = it.initial().server, []
    for state, record in it.run(12):
        if any("aborted" in event for event in record.events):
            aborted.append(record.version)
            assert state.server.params.tobytes() == before.params.tobytes()
            assert repr(state.server.state) == repr(before.state)
        before = state.server
    assert 1 < len(aborted) < 12
    assert max(aborted) > 1                              # with momentum in store


def test_a_late_answer_stays_hidden():
    """Over-selection: it was masked before the round closed, counts as a drop-out, and its seed is never asked for."""
    seen = []
    real = stage_module.Round.close

    def close(self, total=None, uploaders=()):
        result = real(self, total, uploaders)
        seen.append((set(uploaders), set(self.server.opened_seeds), set(self.server.opened_keys)))
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage_module.Round, "close", close)
        fleet = Timed({k: 1.0 + k for k in range(6)}, up=0.5)
        record = secure(schedule=Synchronous(0.8, over_selection=0.2), fleet=fleet, selection=InOrder()).train(1).records[0]
    ((uploaders, seeds, keys),) = seen
    assert uploaders == seeds == {0, 1, 2, 3, 4}
    assert keys == {5}
    assert "the answer of client 5 was too late" in record.events


def test_a_client_that_fails_is_a_drop_out():
    def broken(update):
        return dataclasses.replace(update, delta=update.delta * np.float32(np.inf))

    record = secure(before=[Lie(2, broken)]).train(1).records[0]
    assert record.clients == (0, 1, 3, 4, 5)
    assert any("refused before masking" in e for e in record.events)


def test_a_poisson_cohort_may_be_too_small_and_the_next_one_is_not():
    it = secure(federation((8,) * 12), schedule=Synchronous(0.2), selection=PoissonSelection(), seed=5)
    history = it.train(12)
    small = [r for r in history.records if len(r.clients) < 2]
    assert small
    assert len(small) < 12
    for record in small:
        assert any("could not be opened" in e or "no update" in e for e in record.events)


def test_a_fixed_threshold_with_poisson_cohorts_is_checked_in_each_round():
    """2t > n keeps a server from asking two halves: a cohort that is too large for t = 3 is not opened either."""
    it = secure(federation((8,) * 12), dataclasses.replace(SECURE, threshold=3), schedule=Synchronous(0.4),
                selection=PoissonSelection(), seed=5)
    records = it.train(8).records
    opened = [r for r in records if not any("could not be opened" in e or "no update" in e for e in r.events)]
    assert 0 < len(opened) < 8
    assert all(3 <= len(r.clients) <= 5 for r in opened)


def test_a_client_that_received_another_model_does_not_take_part():
    class Liar(Stage):
        def begin(self, ctx):
            ctx.server = dataclasses.replace(ctx.server, params=ctx.server.params + 1)

    it = secure(before=[Liar()])                         # the hash in the round is not that of what the clients got
    _, record = next(it.run(1))
    assert record.clients == ()
    assert any("another model" in e for e in record.events)


# --- what travels ------------------------------------------------------------------------------------------------------


def test_the_bytes_by_purpose_are_those_of_the_messages(monkeypatch):
    rounds = []

    real = stage_module.Round.open
    monkeypatch.setattr(stage_module.Round, "open", lambda self: rounds.append(self) or real(self))
    record = secure(fleet=Timed(dict.fromkeys(range(6), 1.0), gone=(4,))).train(1).records[0]
    (messages,) = [r.messages for r in rounds]
    for kinds, purpose in ((("advertise",), "keys"), (("shares",), "shares"), (("consistent",), "consistency"),
                           (("unmasked",), "unmask")):
        assert record.bytes_up[purpose] == sum(m.nbytes for m in messages if m.kind[7:] in kinds and m.receiver == "server")
    for kind, purpose in (("roster", "keys"), ("inbox", "shares"), ("survivors", "consistency"), ("unmask", "unmask")):
        assert record.bytes_down[purpose] == sum(m.nbytes for m in messages if m.kind[7:] == kind)
    masked = [m for m in messages if m.kind == "secagg-masked"]
    assert len(masked) == 5
    assert record.bytes_up["update"] == sum(record.upload)
    assert set(record.bytes_up) == {"update", "keys", "shares", "consistency", "unmask"} | (
        {"evaluation"} & set(record.bytes_up))
    # The update message is the masked vector once, plus a head of some dozen bytes.
    for message, nbytes in zip(masked, record.upload, strict=True):
        assert abs(nbytes - message.nbytes) < 64


class Modems(Timed):
    """Client k sends so many bytes a second and hears three times as many."""

    def upload(self, client, nbytes):
        return nbytes / (1000 + 300 * client)

    def download(self, client, nbytes):
        return nbytes / (3000 + 900 * client)


def by_hand(messages, record, gone):
    """When the step is taken: every message by itself, and a server that waits for the last answer to each of its own."""
    def arrives(client, when, nbytes, up):
        rate = 1000 + 300 * client
        return when + Fraction(str(nbytes / (rate if up else 3 * rate)))

    def stage(when, down, up):
        ends = dict.fromkeys(range(6), when)
        for kind, goes_up in ((down, False), (up, True)):
            for m in messages:
                if m.kind == f"secagg-{kind}":
                    client = m.sender if goes_up else m.receiver
                    ends[client] = arrives(client, ends[client], m.nbytes, goes_up)
        return max(ends.values())

    when = stage(stage(stage(Fraction(0), None, "advertise"), "roster", "shares"), "inbox", None)
    updates = dict(zip(record.clients, record.upload, strict=True))
    model = record.bytes_down["model"] // 6
    ends = []
    for client in range(6):
        trained = arrives(client, when, model, False) + 1
        ends.append(trained if client in gone else arrives(client, trained, updates[client], True))
    return stage(stage(max(ends), "survivors", "consistent"), "unmask", "unmasked")


@pytest.mark.parametrize("gone", [(), (4,)])
def test_the_clock_waits_for_the_slowest_at_every_step_of_the_protocol(monkeypatch, gone):
    rounds = []
    real = stage_module.Round.open
    monkeypatch.setattr(stage_module.Round, "open", lambda self: rounds.append(self) or real(self))
    history = secure(fleet=Modems(dict.fromkeys(range(6), 1.0), gone=gone)).train(2)
    first, second = history.records
    assert first.clock == float(by_hand(rounds[0].messages, first, gone))
    assert min(span.begun for span in first.spans) > 0                     # the keys come before the model
    assert second.clock - first.clock == pytest.approx(float(by_hand(rounds[1].messages, second, gone)), abs=1e-9)


def test_who_sends_nothing_of_its_own_waits_for_nothing():
    fleet = Modems(dict.fromkeys(range(6), 1.0))
    for stages in ([], [plain(SECURE)]):
        (record,) = experiment(schedule=EVERYBODY, stages=stages, fleet=fleet).train(1).records
        assert record.clock == max(span.ended for span in record.spans)
        assert min(span.begun for span in record.spans) == 0
    equal = secure().train(2)
    assert [record.clock for record in equal.records] == [1.0, 2.0]        # transfers take no time there


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf"), Decimal("nan"), "long", None])
def test_a_stage_of_ones_own_that_says_nonsense_of_its_seconds_is_told_so(seconds):
    class Slow(Stage):
        def begin(self, ctx):
            ctx.meter.seconds = seconds

    with pytest.raises(ValueError, match=r"meter\.seconds"):
        experiment(stages=[Slow()]).train(1)


def test_the_seconds_of_a_stage_of_ones_own_are_on_the_clock():
    class Slow(Stage):
        def begin(self, ctx):
            ctx.meter.seconds += 0.1

        def server(self, aggregate, ctx):
            ctx.meter.seconds += 0.2
            return aggregate

    assert [record.clock for record in experiment(stages=[Slow()]).train(3).records] == [1.3, 2.6, 3.9]


def spied(monkeypatch):
    """The list to which every update is added as it leaves a client: SecureSum is the last stage."""
    sent, real = [], SecureSum.client
    monkeypatch.setattr(SecureSum, "client", lambda self, update, ctx: sent.append(real(self, update, ctx)) or sent[-1])
    return sent


@pytest.mark.parametrize("masked", [True, False])
def test_no_sample_count_and_no_loss_travels_in_the_clear(monkeypatch, masked):
    sent = spied(monkeypatch)
    record = secure(federation((3, 8, 5, 6, 8, 4)), dataclasses.replace(SECURE, masked=masked)).train(1).records[0]
    for update in sent:
        assert update.weight == 1.0
        assert update.metrics == {}
        assert update.extras == {}
        assert len(encode_update(update)) == record.upload[0]      # equally long, whatever it hides
    assert "train_loss_last" not in record.metrics


def test_what_the_server_sees_is_uniform_and_fresh_every_round(monkeypatch):
    sent = spied(monkeypatch)
    it = secure(federation((8,) * 6), SecureSum(0.5, max_weight=8, round_seed=3))
    it.train(60)
    high = np.concatenate([u.delta.vector >> np.uint32(28) for u in sent])
    low = np.concatenate([u.delta.vector & np.uint32(15) for u in sent])
    for part in (high, low):
        assert chisquare(np.bincount(part, minlength=16)).pvalue > 1e-6
    assert len({u.delta.round_id for u in sent}) == 60
    assert len({u.delta.vector.tobytes() for u in sent}) == len(sent)


def test_saturated_coordinates_are_counted():
    after = Spy()
    tight, wide = (secure(stage=SecureSum(c, max_weight=8), before=[after]).train(1).records[0] for c in (1e-3, 10.0))
    sent = [u.delta / u.weight for u in after.sent[:6]]
    assert tight.metrics["saturated"] == sum(int((np.abs(x) > 1e-3).sum()) for x in sent) > 0
    assert wide.metrics["saturated"] == 0
    assert np.abs(after.sums[0].total / after.sums[0].weight).max() <= 1e-3 * (1 + 1e-9)


def test_rounding_toward_zero_never_lengthens():
    rng = np.random.default_rng(0)
    ctx = Context(0, None, cohort=(1, 2))
    for bits in (3, 8, 16):
        stage = SecureSum(1.0, bits, rounding="toward zero", masked=False)
        ctx.meter.notes["saturated"] = 0.0
        for _ in range(20):
            x = rng.uniform(-1, 1, 50).astype(np.float32)
            sent = stage.client(Update(1, 0, x), ctx).delta
            values, _ = stage.grid(2).decode_weighted(sent.vector)
            assert (np.abs(values) <= np.abs(x) * (1 + 1e-6)).all()
            assert np.abs(values - x).max() < stage.grid(2).step * 1.001


# --- the payload --------------------------------------------------------------------------------------------------------


def test_a_masked_payload_survives_the_wire_and_adds_modulo_the_ring():
    for bits, dtype in ((12, np.uint16), (32, np.uint32), (40, np.uint64)):
        top = np.array([(1 << bits) - 1, 5, 0], dtype)
        one = Masked(top, bits, b"r" * 16)
        again = decode_update(encode_update(Update(3, 0, one))).delta
        assert again.vector.tolist() == top.tolist()
        assert (again.bits, again.round_id) == (bits, b"r" * 16)
        assert (one + again).vector.tolist() == [(1 << bits) - 2, 10, 0]
        assert one.size == 2
        assert one.formula() == one.bound() == bits * 3 / 8


def test_a_masked_payload_can_only_be_added_to_its_own_kind():
    one = Masked(np.arange(3, dtype=np.uint32), 32, b"r" * 16)
    for wrong, error in ((np.ones(2), TypeError), (Masked(one.vector, 32, b"s" * 16), ValueError),
                         (Masked(one.vector, 31, b"r" * 16), ValueError), (Masked(one.vector[:2], 32, b"r" * 16), ValueError)):
        for add in (lambda a, b: a + b, lambda a, b: b + a):
            with pytest.raises(error, match="add"):
                add(one, wrong)
    for act in (one.dense, lambda: one * 2.0, lambda: 2.0 * one, lambda: one.add_to(np.zeros(2))):
        with pytest.raises(TypeError, match="cannot be read"):
            act()


@pytest.mark.parametrize("wire", [
    ["masked", b"r" * 16, 32, 3, bytes(11)], ["masked", b"r", 32, 1, bytes(4)], ["masked", b"", 99, 1, bytes(4)],
    ["masked", b"", 32, 0, b""], ["masked", b"", 32, "1", bytes(4)], ["masked", b"", 32], ["masked", b"", 32, True, bytes(4)],
    ["masked", b"", 32, 3, np.zeros((12, 1), np.uint8)], ["masked", b"", 32, 12, np.zeros(48, np.uint8)],
    ["masked", b"", 32, 2**40, bytes(4)], ["masked", np.zeros(16, np.uint8), 32, 1, bytes(4)],
    ["masked", b"", np.zeros(2), 1, bytes(4)], ["masked", b"", 32.0, 1, bytes(4)], ["masked", b"", True, 1, bytes(4)],
])  # fmt: skip
def test_what_is_not_a_masked_payload_is_refused(wire):
    class Raw(Masked):
        def to_wire(self):
            return wire

    with pytest.raises(WireError, match="masked payload"):
        decode_update(encode_update(Update(1, 0, Raw(np.zeros(1, np.uint32), 32))))


def test_a_payload_of_another_length_is_refused_on_receipt():
    server = experiment().initial().server
    with pytest.raises(WireError, match="stands for 2 numbers"):
        check_update(Update(1, 0, Masked(np.zeros(3, np.uint32), 32), 1.0), 1, server)


# --- refusals ------------------------------------------------------------------------------------------------------------


class Middle(Aggregation):
    def combine(self, updates, staleness, ctx=None):
        return Aggregate(np.median([u.delta for u in updates], axis=0), 1.0)


class Noise(Stage):
    noisy = True


class Doubles(Stage):
    """A server half alone."""

    def server(self, aggregate, ctx):
        return dataclasses.replace(aggregate, weight=aggregate.weight / 2)


@pytest.mark.parametrize(("changes", "words"), [
    ({"schedule": Buffered(4, 2)}, "buffered schedule"),
    ({"aggregation": Middle()}, "single updates"),
    ({"aggregation": WeightedMean(Discount())}, "staleness discount"),
    ({"stages": [TopK(), SECURE]}, "places"),
    ({"stages": [QSGD(8), SECURE]}, "shared grid"),
    ({"stages": [SECURE, Half()]}, "Half after SecureSum"),
    ({"stages": [SECURE, Clip(1.0)], "weights": Uniform()}, "Clip after SecureSum"),
    ({"stages": [SECURE, Doubles()]}, "Doubles after SecureSum"),
    ({"stages": [dataclasses.replace(SECURE, max_weight=7)]}, "max_weight=8 or more"),
    ({"stages": [dataclasses.replace(SECURE, max_weight=4)], "weights": ByExamples(cap=5)}, "max_weight=5 or more"),
    ({"stages": [CentralDP(1.0, 1.0), SecureSum(0.5)], "weights": Uniform()}, "toward zero"),
    ({"stages": [SECURE, dataclasses.replace(SECURE)]}, "both mask"),
    ({"stages": [FedNova(), SECURE]}, "in the clear"),
    ({"training": LocalSGD(correction=Scaffold())}, "in the clear"),
    ({"stages": [Noise(), SECURE]}, "toward zero"),
    ({"stages": [SecureSum(0.5)]}, "max_weight=8 or more"),
    ({"weights": ByExamples(cap=2.5)}, "whole numbers"),
    ({"stages": [SecureSum(0.5, 16, max_weight=8, ring_bits=20)]}, "too small for 6 clients"),
    ({"stages": [SecureSum(0.5, threshold=3, max_weight=8)]}, "more than half"),
    ({"stages": [SecureSum(0.5, threshold=7, max_weight=8)]}, "exceeds the 6"),
    ({"stages": [SecureSum(0.5, degree=6, max_weight=8)]}, "neighbours"),
    ({"schedule": Synchronous(0.1)}, "at least 2"),
    ({"schedule": Synchronous(0.5, over_selection=1.0)}, "every round would be aborted"),
    ({"data": federation(ids=["server", *"abcde"])}, "'server'"),
])  # fmt: skip
def test_unsound_combinations_are_refused_at_construction(changes, words):
    with pytest.raises(CompositionError, match=words):
        experiment(changes.pop("data", None), **({"schedule": EVERYBODY, "stages": [SECURE]} | changes))


@pytest.mark.parametrize("bad", [
    {"clip": 0}, {"clip": float("nan")}, {"clip": 1.0, "bits": 1}, {"clip": 1.0, "threshold": 1}, {"clip": 1.0, "threshold": 2.5},
    {"clip": 1.0, "ring_bits": 65}, {"clip": 1.0, "max_weight": 0}, {"clip": 1.0, "rounding": "up"},
])  # fmt: skip
def test_bad_numbers_are_refused_at_once(bad):
    with pytest.raises((ValueError, TypeError)):
        SecureSum(**bad)


def test_extras_and_fractions_are_refused_when_a_client_comes_with_them():
    def extra(update):
        return dataclasses.replace(update, extras={"c": np.ones(2, np.float32)})

    for lie, error, words in ((extra, CompositionError, "no mask covers"),
                              (lambda u: dataclasses.replace(u, weight=1.5), ValueError, "whole numbers")):
        with pytest.raises(error, match=words):
            secure(before=[Lie(0, lie)], strict=True).train(1)
    with pytest.raises(TypeError, match="last stage"):
        SECURE.server(Aggregate(np.zeros(2), 1.0), Context(0, None))


def test_noise_goes_with_rounding_toward_zero():
    assert secure(stage=dataclasses.replace(SECURE, rounding="toward zero"), before=[Noise()])
    assert secure(stage=SecureSum(0.5, rounding="toward zero"), before=[CentralDP(1.0, 1.0)], weights=Uniform())
    assert secure(stage=dataclasses.replace(SECURE, max_weight=4), weights=ByExamples(cap=4))


# --- state ------------------------------------------------------------------------------------------------------------------


def test_a_saved_state_goes_on_as_if_nothing_had_happened(tmp_path):
    it = secure(stage=SecureSum(0.5, max_weight=8))      # secrets of the operating system
    whole = it.train(4).state.server.params.tobytes()
    save(tmp_path / "state", it.train(2).state, it)
    state = load(tmp_path / "state", it)
    assert it.train(2, state).state.server.params.tobytes() == whole
    assert not any("secure" in name for drawer in state.memory.values() for name in drawer)


def test_the_stage_is_frozen_and_running_twice_gives_the_same():
    it = secure()
    assert final(it) == final(it)
    assert it.stages[0] == SECURE
    assert isinstance(it, Coordinator)
    assert "SecureSum(clip=0.5" in repr(it)
