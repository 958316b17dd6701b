"""Payloads: what the receiver decodes is what the sender computed, sums are sums, and damage is refused."""

import itertools
import math

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fl_course.compression.quantisation import quantise
from fl_course.core import Server, Update
from fl_course.engine.models import mlp
from fl_course.federation.aggregation import add_up
from fl_course.wire.layer_payloads import LowRank, Submodel, held
from fl_course.wire.messages import (
    LARGEST,
    PAYLOADS,
    WireError,
    check_update,
    decode_model,
    decode_update,
    encode_model,
    encode_update,
    frame,
    unframe,
)
from fl_course.wire.payloads import Quantised, Sparse, drawn, numbers, on_values, values_from_wire

few = settings(max_examples=60, deadline=None)


def vector(rng, d):
    """Numbers of all sizes: denormal, huge, zero, equal."""
    x = rng.standard_normal(d) * 10.0 ** rng.integers(-44, 38, d)
    x[rng.random(d) < 0.2] = 0
    return x.astype(np.float32)


def quantised(rng, d):
    levels = int(rng.choice([2, 3, 7, 255, 300, 65535]))
    return quantise(vector(rng, d), levels, rng.choice([None, 1, 5, 64]), rng)


def sparse(rng, d):
    k = int(rng.integers(0, d + 1))
    values = vector(rng, k) if rng.random() < 0.5 else quantised(rng, k)
    if rng.random() < 0.3:
        key = int(rng.integers(2**63))
        return Sparse(d, drawn(key, d, k), values, key)
    return Sparse(d, np.sort(rng.choice(d, k, replace=False)) if d else np.zeros(0, np.int64), values)


def lowrank(rng, d):
    m, n, r = (int(v) for v in rng.integers(1, 6, 3))
    factors = rng.standard_normal((m, r)).astype(np.float32), rng.standard_normal((n, r)).astype(np.float32)
    return LowRank((factors, vector(rng, d)))


def submodel(rng, d):
    sizes = [int(v) for v in rng.integers(1, 7, rng.integers(2, 5))]
    kept = [rng.random(size) < 0.6 for size in sizes[1:-1]]
    payload = Submodel.cut(sizes, kept, vector(rng, mlp(*sizes).dim))
    return payload if rng.random() < 0.5 else on_values(payload, lambda x: quantise(x, 255, 3, rng))


MAKERS = [quantised, sparse, lowrank, submodel]
cases = given(st.sampled_from(MAKERS), st.integers(0, 2**32), st.integers(0, 70))


def sent(payload):
    return decode_update(encode_update(Update(3, 1, payload))).delta


@few
@cases
def test_decoding_is_exact_and_encodes_the_same_again(make, seed, d):
    payload = make(np.random.default_rng(seed), d)
    back = sent(payload)
    assert type(back) is type(payload)
    assert back.size == payload.size == payload.dense().size
    assert back.dense().dtype == np.float32
    assert back.dense().tobytes() == payload.dense().tobytes()
    assert encode_update(Update(3, 1, back)) == encode_update(Update(3, 1, payload))


@few
@cases
def test_sums_are_the_sums_of_what_is_meant(make, seed, d):
    rng = np.random.default_rng(seed)
    a = make(rng, d)
    b = Quantised(np.full(a.size, 2, np.uint8), 3, np.array([0.5] * min(1, a.size), np.float32), max(1, a.size))
    with np.errstate(over="ignore"):
        want = a.dense().astype(np.float64) + b.dense() + b.dense()
        for total in (a + b + b, a + (b + b), add_up([a, b, b]), add_up([b.dense() + np.float64(0), b]) + a):
            assert total.dtype == np.float64
            assert np.allclose(total, want, rtol=1e-12, atol=0)
        assert np.array_equal(np.float32(0.5) * a, 0.5 * a.dense().astype(np.float64))
        assert np.array_equal(a * 2.0, 2.0 * a.dense().astype(np.float64))


def test_a_sum_of_other_lengths_is_refused_and_nothing_is_changed():
    a = Sparse(5, np.array([1]), np.array([2.0], np.float32))
    total = np.ones(5)
    assert np.array_equal(total + a, [1, 3, 1, 1, 1])
    assert np.array_equal(total, np.ones(5))
    with pytest.raises(ValueError, match="size 5"):
        np.ones(1) + a
    with pytest.raises(ValueError, match="size 5"):
        a + Sparse(6, np.array([1]), np.array([2.0], np.float32))


@few
@cases
def test_truncated_or_altered_messages_are_refused(make, seed, d):
    rng = np.random.default_rng(seed)
    message = encode_update(Update(3, 1, make(rng, d)))
    with pytest.raises(WireError):
        decode_update(message[: int(rng.integers(0, len(message)))])
    i = int(rng.integers(len(message)))
    with pytest.raises(WireError):
        decode_update(message[:i] + bytes([message[i] ^ int(rng.integers(1, 256))]) + message[i + 1 :])


JUNK = [None, -1, 0, 1, 2**62, 1.5, True, "x", b"", b"\xff" * 9, [], [None], {}, np.zeros(2), np.zeros((2, 2), np.float32)]


@few
@cases
def test_a_stranger_with_a_right_checksum_cannot_crash_the_decoder(make, seed, d):
    """Every field of a payload in turn replaced by junk: refused, or decoded to finite numbers, and never another error."""
    wire = make(np.random.default_rng(seed), d).to_wire()
    places = [(i,) for i in range(len(wire))]
    places += [(i, j) for i in range(len(wire)) if isinstance(wire[i], list) for j in range(len(wire[i]))]
    for place, junk in itertools.product(places, JUNK):
        bad = [list(part) if isinstance(part, list) else part for part in wire]
        target = bad if len(place) == 1 else bad[place[0]]
        target[place[-1]] = junk
        message = frame("update", [3, 1, bad, 1.0, {}, {}])
        try:
            got = decode_update(message)
            check_update(got, 3, Server(np.zeros(4, np.float32), 1))      # asks its size before anybody asks its numbers
        except WireError:
            continue
        with np.errstate(over="ignore"):
            assert numbers(got.delta).size == 4


@pytest.mark.parametrize("wire", [
    ["unknown", 3], [], [["sparse"]], ["sparse"], ["sparse", 3], ["quantised", 4, 1, 4, b"\0" * 4, b""],
    ["quantised", 1, 3, 1, b"\0\0\x80\xbf", b"\0"],                       # a negative scale
    ["quantised", 1, 3, 1, b"\0\0\xc0\x7f", b"\0"],                       # NaN for a scale
    ["quantised", 2, 65537, 1, b"\0" * 8, b"\0" * 6],
    ["quantised", 2, 6, 2, b"\0" * 4, b"\x3f"],                           # a code of 7 where there are 6 levels
    ["quantised", 2, 256, 2, np.zeros((1, 4), np.uint8), b"\0\0"],        # an array has a length, too
    ["quantised", 2, 256, 2, b"\0" * 4, np.zeros((2, 1), np.uint8)],
    ["sparse", 1, 1, b"\0\0", b"\0" * 8],                                 # two values of one number
    ["submodel", [4], b"", b""], ["submodel", [2, 0, 2], b"", b""], ["submodel", [1, 1, 1], b"\x01", b"\0" * 12],
    ["lowrank", np.zeros((2, 2), np.float32)], ["lowrank", [np.zeros((2, 1), np.float32)] * 3],
    ["lowrank", [np.zeros((2, 1), np.float32), np.zeros((2, 2), np.float32)]], ["lowrank", np.zeros(2)],
])  # fmt: skip
def test_malformed_payloads_are_refused(wire):
    with pytest.raises(WireError):
        decode_update(frame("update", [3, 1, wire, 1.0, {}, {}]))


def test_altered_quantised_padding_does_not_pass_as_a_code():
    good = Quantised(np.array([5], np.uint8), 6, np.ones(1, np.float32), 1).to_wire()
    assert decode_update(frame("update", [3, 1, good, 1.0, {}, {}])).delta.dense() == 1
    with pytest.raises(WireError, match="beyond the 6 levels"):
        decode_update(frame("update", [3, 1, [*good[:-1], b"\x06"], 1.0, {}, {}]))


@pytest.mark.parametrize("make", MAKERS)
def test_a_payload_for_another_model_is_refused(make, monkeypatch):
    monkeypatch.setattr("fl_course.wire.messages.ABSURD", LARGEST)                 # the question is the length here
    update = Update(3, 1, make(np.random.default_rng(0), 30))
    check_update(update, 3, Server(np.zeros(update.delta.size, np.float32), 1))
    with pytest.raises(WireError, match="stands for"):
        check_update(update, 3, Server(np.zeros(update.delta.size + 1, np.float32), 1))


def test_the_table_of_payloads_is_complete():
    assert {tag: cls.tag for tag, cls in PAYLOADS.items()} == {tag: tag for tag in PAYLOADS}
    assert {Sparse, Quantised, LowRank, Submodel} <= set(PAYLOADS.values())


def test_keyed_positions_travel_as_eight_bytes_and_are_no_others():
    key, k, d = 12345, 40, 5000
    values = np.arange(k, dtype=np.float32)
    keyed, spelt = Sparse(d, drawn(key, d, k), values, key), Sparse(d, drawn(key, d, k), values)
    assert np.array_equal(keyed.dense(), spelt.dense())
    assert np.array_equal(sent(keyed).positions, drawn(key, d, k))
    assert len(encode_update(Update(0, 0, keyed))) < len(encode_update(Update(0, 0, spelt))) - 30
    assert len(set(drawn(key, d, k).tolist())) == k
    assert not np.array_equal(drawn(key, d, k), drawn(key + 1, d, k))


def test_a_submodel_holds_exactly_the_weights_between_its_units():
    sizes, kept = (3, 4, 2), [np.array([True, False, True, False])]
    flat = np.arange(1, 27, dtype=np.float32)                              # (3+1)·4 + (4+1)·2 = 26
    payload = Submodel.cut(sizes, kept, flat)
    whole, part = flat.copy(), payload.dense()
    w1, b1, w2, b2 = whole[:12].reshape(4, 3), whole[12:16], whole[16:24].reshape(2, 4), whole[24:]
    for unit in (1, 3):
        w1[unit], b1[unit], w2[:, unit] = 0, 0, 0
    assert b2.all()
    assert np.array_equal(part, whole)
    assert payload.values.size == 2 * 3 + 2 + 2 * 2 + 2 == int(held(sizes, kept).sum())


def test_a_model_may_travel_as_a_payload():
    rng = np.random.default_rng(1)
    params = rng.standard_normal(26).astype(np.float32)
    payload = Submodel.cut((3, 4, 2), [np.array([True, False, True, True])], params)
    base = decode_model(encode_model(Server(payload, 7)))
    assert base.version == 7
    assert np.array_equal(base.params, payload.dense())
    assert np.array_equal(decode_model(encode_model(Server(params, 7))).params, params)
    with pytest.raises(WireError):
        decode_model(frame("model", [7, ["sparse", 3], {}]))


def test_formula_bound_and_length_agree_by_hand():
    k, d = 100, 10_000
    plain = Sparse(d, np.arange(0, d, 100), np.ones(k, np.float32))
    assert plain.formula() == (32 + 14) * k / 8
    assert plain.bound() == pytest.approx(4 * k + math.log2(math.comb(d, k)) / 8)
    codes = Quantised(np.tile([0, 1], 500).astype(np.uint8), 2, np.ones(1, np.float32), 1000)
    assert codes.formula() == codes.bound() == 129
    assert LowRank(((np.ones((5, 2), np.float32), np.ones((3, 2), np.float32)), np.ones(3, np.float32))).formula() == 4 * 19
    for payload in (plain, codes):
        length = len(msgpack.packb(payload.to_wire()))
        assert payload.bound() <= length <= payload.formula() * 1.02 + 40


def test_the_wire_form_is_plain_data():
    for make in MAKERS:
        payload = make(np.random.default_rng(5), 20)
        assert unframe(frame("x", payload.to_wire()), "x")[0] == payload.tag


def test_sums_leave_their_parts_alone_and_are_float64():
    a, total = Sparse(5, np.array([1]), np.array([2.0], np.float32)), np.ones(5)
    assert np.array_equal(a + total, [1, 3, 1, 1, 1])
    assert np.array_equal(total, np.ones(5))
    assert (a * 0.1).dtype == (0.1 * a).dtype == np.float64
    assert (a * 0.1)[1] == 0.2
    for other in (np.ones((5, 1)), np.ones((1, 5))):
        with pytest.raises(ValueError, match="size 5"):
            other + a


def test_the_places_that_a_key_names_are_part_of_the_format():
    """Another library, or a later version of this one, must draw the same."""
    assert drawn(12345, 50, 6).tolist() == [2, 14, 29, 32, 35, 47]
    assert (np.diff(drawn(7, 1000, 300)) > 0).all()


ONE, TWO = np.ones(1, np.float32), np.ones(2, np.float32)
GRID = Quantised(np.zeros(2, np.uint8), 3, ONE, 2)
FINER = Quantised(np.zeros(2, np.uint8), 7, ONE, 2)
KEPT = [np.array([True, False, True])]
OTHER_FORMS = [
    (Sparse(9, np.array([1, 2]), TWO), Sparse(9, drawn(1, 9, 2), TWO, 1)),
    (Sparse(9, np.array([1, 2]), TWO), Sparse(9, np.array([1, 2]), GRID)),
    (Sparse(9, np.array([1, 2]), GRID), Sparse(9, np.array([1, 2]), FINER)), (GRID, FINER),
    (LowRank((TWO, (np.ones((2, 1), np.float32), np.ones((3, 1), np.float32)))),
     LowRank((TWO, (np.ones((3, 1), np.float32), np.ones((2, 1), np.float32))))),
    (LowRank((TWO,)), LowRank((ONE, ONE))),
    (Submodel((2, 3, 2), tuple(KEPT), GRID), Submodel((2, 3, 2), (np.ones(3, bool),), GRID)),
    (Submodel((2, 3, 2), tuple(KEPT), GRID), Submodel((3, 3, 2), tuple(KEPT), GRID)),
    (Submodel((2, 3, 2), tuple(KEPT), GRID), Submodel((2, 3, 2), tuple(KEPT), TWO)),
    (Submodel((2, 3, 2), tuple(KEPT), GRID), Submodel((2, 3, 2), tuple(KEPT), FINER)),
]  # fmt: skip


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(("mine", "theirs"), OTHER_FORMS)
def test_a_payload_of_another_form_is_told_apart(mine, theirs, turned):
    mine, theirs = (theirs, mine) if turned else (mine, theirs)
    mine.check(mine)
    with pytest.raises(ValueError, match=r"others'? "):
        mine.check(theirs)


def test_the_same_form_with_other_numbers_and_places_passes():
    Sparse(9, np.array([1, 2]), TWO).check(Sparse(9, np.array([0, 8, 3]), np.zeros(3, np.float32)))
    Submodel((2, 3, 2), tuple(KEPT), TWO).check(Submodel((2, 3, 2), (np.array([True, True, False]),), 0 * TWO))
    GRID.check(Quantised(np.ones(9, np.uint8), 3, np.zeros(5, np.float32), 2))


@pytest.mark.parametrize("wire", [
    ["quantised", 1, 3, 1, b"\0" * 8, b"\0"],                             # two scales for one number
    ["quantised", 2, 65537, 1, b"\0" * 8, b"\0" * 5],                     # a level too many, in codes of the right length
    ["sparse", 8, 1, b"\0\x08", b"\0" * 4],                               # place 3 in two bytes: a bitmap takes one
    ["sparse", 4, 0, b"\x07", b"\0" * 8], ["sparse", 4, 0, b"\x03", b"\0\0\x80\x7f" * 2],      # three places, two values; inf
    ["sparse", True, 0, b"\x01", b"\0" * 4], ["sparse", 2**63, 2, 1, b"\0" * 4], ["sparse", 1, 2, 5, b"\0" * 8],
    ["submodel", [1, 1, 1], b"\x01", b"\0" * 20], ["submodel", [1, 2, 1], b"\x03", b"\0" * 24],  # a value too many, too few
    ["submodel", [2, 0, 2], b"", b"\0" * 8],                               # a layer without units
    ["lowrank", np.array([np.nan], np.float32)], ["lowrank", [np.full((2, 1), np.inf, np.float32), np.ones((2, 1), np.float32)]],
    ["sparse", 4, 0, np.zeros(1, np.uint8), b"\0" * 4],
])  # fmt: skip
def test_more_malformed_payloads_are_refused(wire):
    cls = PAYLOADS[wire[0]]
    with pytest.raises(ValueError, match=r".{10}"):
        cls.from_wire(wire)


@pytest.mark.parametrize("values", [TWO.tobytes(), GRID.to_wire()])
def test_more_values_than_there_is_room_for_are_refused_before_they_are_read(values):
    assert values_from_wire(values, 2).size == 2
    with pytest.raises(ValueError, match="2 values for a vector of 1"):
        values_from_wire(values, 1)


def test_what_payloads_claim_is_known_before_they_are_unpacked():
    for make in (quantised, sparse):
        payload = make(np.random.default_rng(2), 33)
        assert type(payload).claims(payload.to_wire()) == 33


def test_more_formulas_by_hand():
    ones = np.ones(8, np.float32)
    keyed = Sparse(1000, drawn(3, 1000, 8), ones, 3)
    assert keyed.formula() == keyed.bound() == 32 + 8
    ternary = Quantised(np.tile([0, 1, 2], 30).astype(np.uint8), 3, np.ones(2, np.float32), 45)
    assert ternary.formula() == pytest.approx(90 * math.log2(3) / 8 + 8)
    assert ternary.bound() == pytest.approx(90 * math.log2(3) / 8 + 8)
    part = Submodel.cut((2, 4, 3, 2), [np.array([1, 0, 0, 0], bool), np.array([1, 1, 0], bool)], np.ones(35, np.float32))
    assert part.formula() == 4 * part.values.size + 7 / 8
    assert part.bound() == pytest.approx(4 * part.values.size + (2 + math.log2(3)) / 8)
