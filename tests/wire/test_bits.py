"""Packed bits, packed ternary digits and coded positions: exact round trips, lengths, and bytes that nobody wrote."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fl_course.wire.bits import (
    BITMAP,
    GAPS,
    decode_positions,
    encode_positions,
    entropy,
    log2_choose,
    pack,
    pack_ternary,
    packed_size,
    unpack,
    unpack_ternary,
)


def packed_by_hand(codes: list[int], bits: int) -> bytes:
    """One long number, the first code in its lowest bits."""
    number = sum(code << (bits * i) for i, code in enumerate(codes))
    return number.to_bytes(-(-len(codes) * bits // 8), "little")


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 32).flatmap(lambda b: st.tuples(st.just(b), st.lists(st.integers(0, 2**b - 1), max_size=40))))
def test_pack_is_one_long_number_and_comes_back(case):
    bits, codes = case
    array = np.array(codes, dtype=np.uint32)
    data = pack(array, bits)
    assert data == packed_by_hand(codes, bits)
    assert np.array_equal(unpack(data, bits, len(codes)), array)


@pytest.mark.parametrize("bits", [1, 3, 8, 11, 16])
@pytest.mark.parametrize("change", [-1, 1])
def test_unpack_refuses_another_length(bits, change):
    with pytest.raises(ValueError, match="take"):
        unpack(bytes(packed_size(21, bits) + change), bits, 21)


@pytest.mark.parametrize("bits", [0, -1, 33, 2.5, None, True])
def test_bits_must_be_a_whole_number(bits):
    with pytest.raises(ValueError, match="bits must be"):
        pack(np.zeros(3, np.uint8), bits)


numbers_of_any_kind = st.tuples(
    st.sampled_from(["i8", "u8", "i4", "u4", "u1"]), st.lists(st.integers(-(2**63), 2**64 - 1), min_size=1, max_size=20)
).map(lambda case: np.array([n & (2**64 - 1) for n in case[1]], np.uint64).astype(case[0]))


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 32), numbers_of_any_kind)
def test_a_number_that_does_not_fit_is_refused_and_never_written_into_its_neighbour(bits, codes):
    for width in (bits, 63):                                                 # all large; the first ones small
        given_codes = codes if width == 63 else (codes % np.array(3, codes.dtype))
        if all(0 <= int(code) < 2**bits for code in given_codes):
            assert pack(given_codes, bits) == packed_by_hand([int(code) for code in given_codes], bits)
        else:
            with pytest.raises(ValueError, match="the numbers span"):
                pack(given_codes, bits)


@pytest.mark.parametrize("wrong", [np.array([1.0, 2.0]), np.zeros((2, 2), np.uint8)])
def test_only_whole_numbers_in_a_row_are_packed(wrong):
    for act in (lambda: pack(wrong, 8), lambda: pack_ternary(wrong), lambda: encode_positions(wrong, 9)):
        with pytest.raises(TypeError, match="whole numbers"):
            act()


@pytest.mark.parametrize("digits", [[0, 3], [-1, 2], [255]])
def test_what_is_no_ternary_digit_is_refused(digits):
    with pytest.raises(ValueError, match="ternary digits hold 0 … 2"):
        pack_ternary(np.array(digits))


@pytest.mark.parametrize("positions", [[3, 3], [4, 2], [-1], [9], [0, 99]])
def test_positions_that_do_not_rise_or_lie_outside_are_refused(positions):
    with pytest.raises(ValueError, match=r"must rise|vectors of 9 numbers"):
        encode_positions(np.array(positions), 9)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 2), max_size=40))
def test_ternary_comes_back_five_a_byte(digits):
    data = pack_ternary(np.array(digits, dtype=np.uint8))
    assert len(data) == -(-len(digits) // 5)
    assert list(unpack_ternary(data, len(digits))) == digits
    by_hand = [sum(digit * 3**i for i, digit in enumerate(digits[a : a + 5])) for a in range(0, len(digits), 5)]
    assert list(data) == by_hand


@pytest.mark.parametrize(("data", "size"), [(b"\xf3", 5), (b"\x00\x00", 5), (b"", 1)])
def test_ternary_refuses_what_is_not_digits(data, size):
    with pytest.raises(ValueError, match="ternary digits"):
        unpack_ternary(data, size)


sizes_and_positions = st.integers(0, 500).flatmap(
    lambda d: st.tuples(st.just(d), st.sets(st.integers(0, max(0, d - 1)), max_size=d).map(sorted))
)


@settings(max_examples=60, deadline=None)
@given(sizes_and_positions)
def test_positions_come_back(case):
    d, positions = case
    code, data = encode_positions(np.array(positions, dtype=np.int64), d)
    assert decode_positions(code, data, d, len(positions)).tolist() == positions
    assert len(data) <= max(1, packed_size(d, 1))                     # never longer than the bitmap


@pytest.mark.parametrize(("k", "code"), [(10, GAPS), (100, GAPS), (1000, GAPS), (5000, BITMAP), (10_000, BITMAP)])
def test_the_shorter_code_is_chosen_and_is_near_the_entropy(k, code):
    d = 10_000
    positions = np.sort(np.random.default_rng(k).choice(d, k, replace=False))
    chosen, data = encode_positions(positions, d)
    assert chosen == code
    if k < d:
        assert log2_choose(d, k) / 8 <= len(data) <= 1.04 * log2_choose(d, k) / 8 + 4


def test_far_positions():
    positions = np.array([0, 2**33, 2**40], dtype=np.int64)
    code, data = encode_positions(positions, 2**41)
    assert decode_positions(code, data, 2**41, 3).tolist() == positions.tolist()


@settings(max_examples=60, deadline=None)
@given(sizes_and_positions.filter(lambda case: case[1]), st.data())
def test_altered_positions_are_refused_or_other_positions(case, data):
    d, positions = case
    code, good = encode_positions(np.array(positions, dtype=np.int64), d)
    i = data.draw(st.integers(0, len(good) - 1))
    bad = good[:i] + bytes([good[i] ^ data.draw(st.integers(1, 255))]) + good[i + 1 :]
    try:
        got = decode_positions(code, bad, d, len(positions))
    except ValueError:
        return
    assert len(got) == len(positions)
    assert (np.diff(got) > 0).all()
    assert got[0] >= 0
    assert got[-1] < d


@pytest.mark.parametrize("cut", [1, 5])
def test_truncated_positions_are_refused(cut):
    positions = np.arange(0, 10_000, 97)
    code, data = encode_positions(positions, 10_000)
    for bad in (data[:-cut], data + bytes(cut), b""):
        with pytest.raises(ValueError, match=r"take|gaps|code"):
            decode_positions(code, bad, 10_000, positions.size)
    with pytest.raises(ValueError, match="unknown code"):
        decode_positions(7, data, 10_000, positions.size)


def test_entropy_and_choices_by_hand():
    assert entropy(np.array([], np.uint8)) == 0
    assert entropy(np.full(9, 4, np.uint8)) == 0
    assert entropy(np.array([0, 1] * 8, np.uint8)) == pytest.approx(16)
    assert entropy(np.array([0, 0, 0, 1], np.uint8)) == pytest.approx(8 - 3 * math.log2(3))
    choices = Fraction(1)
    for i in range(30):
        choices *= Fraction(100 - i, i + 1)
    assert log2_choose(100, 30) == pytest.approx(math.log2(choices))
    assert log2_choose(7, 0) == pytest.approx(0, abs=1e-9)


def test_positions_are_as_many_as_was_said_and_below_the_size():
    """Codes that are well formed, for another size or another number of positions."""
    gaps = encode_positions(np.array([0, 50]), 6000)
    assert gaps[0] == GAPS
    assert decode_positions(*gaps, 51, 2).tolist() == [0, 50]
    one = bytes([2]) + pack(np.array([1, 2, 3], np.uint8), 2) + pack(np.array([1], np.uint8), 1)     # one high part, three low
    for code, data, size, count in ((*gaps, 50, 2), (GAPS, one, 100, 3),
                                    (BITMAP, pack(np.array([1, 1, 0, 1], np.uint8), 1), 4, 2)):  # fmt: skip
        with pytest.raises(ValueError, match="positions"):
            decode_positions(code, data, size, count)
    with pytest.raises(ValueError, match="vectors of 255 numbers"):
        encode_positions(np.array([255], np.uint8), 255)


def test_the_rice_parameter_is_the_best_of_all():
    for seed, spread in itertools.product(range(8), (3, 40, 900)):
        gaps = np.random.default_rng(seed).geometric(1 / spread, 60) - 1
        positions = np.cumsum(gaps + 1) - 1
        code, data = encode_positions(positions, 60 * spread * 4)
        if code == GAPS:
            best = min(packed_size(60, r) + packed_size(int((gaps >> r).sum()) + 60, 1) for r in range(20))
            assert len(data) == 1 + best


def test_no_entropy_is_plain_zero():
    assert math.copysign(1, entropy(np.full(9, 4, np.uint8))) == 1
