"""Secret sharing: the public test vector, a slow independent implementation, secrecy, refusals."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations, product
from math import comb

import numpy as np
import pytest
from scipy.stats import chi2

from fl_course.secure_aggregation import field as f
from fl_course.secure_aggregation.masking import insecure_random
from fl_course.secure_aggregation.shamir import LIMBS, reconstruct, reconstruct_keys, share, share_keys

F61 = f.PrimeField(f.P61)
VECTOR = [
    (1, 1029486787082784867), (2, 2281399857177673143), (3, 1449896201091211106), (4, 840818828037092707),
    (5, 454167738015317946),
]  # fmt: skip


def chi_square_p(observed: np.ndarray, expected: np.ndarray | float) -> float:
    statistic = float(((observed - expected) ** 2 / expected).sum())
    return float(chi2.sf(statistic, observed.size - 1))


# --- the field -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prime", [2, 3, 7, 101, f.P31])
def test_every_element_but_zero_has_an_inverse(prime):
    field = f.PrimeField(prime)
    for a in range(1, min(prime, 200)):
        assert a * field.inverse(a) % prime == 1
    with pytest.raises(ValueError, match="0 has no inverse"):
        field.inverse(0)
    for outside in (-1, prime):
        with pytest.raises(ValueError, match="outside the field"):
            field.inverse(outside)
    with pytest.raises(ValueError, match="at least one point"):
        field.points([])


def test_inverse_in_the_large_field_by_fermat():
    assert f.PrimeField(f.P521).inverse(123456789) == pow(123456789, f.P521 - 2, f.P521)


@pytest.mark.parametrize("composite", [0, 1, 4, 9, 91, 561, 2**61 - 3, 2**521 - 3, 3215031751])
def test_a_modulus_that_is_not_prime_is_refused(composite):
    with pytest.raises(ValueError, match="prime"):
        f.PrimeField(composite)


def test_lagrange_weights_equal_those_of_exact_fractions():
    field, xs = f.PrimeField(10007), [1, 4, 5, 9]
    for at in (0, 3):
        exact = []
        for x in xs:
            weight = Fraction(1)
            for other in xs:
                if other != x:
                    weight *= Fraction(at - other, x - other)
            exact.append(weight.numerator * field.inverse(weight.denominator % 10007) % 10007)
        assert field.lagrange(xs, at) == exact


def test_vectorised_arithmetic_equals_python_integers_at_the_edges():
    edge = [0, 1, 2, 3, f.P31 - 2, f.P31 - 1, 2**30, 2**16 + 1]
    a, b = (np.array(column, dtype=np.uint64) for column in zip(*product(edge, edge), strict=True))
    assert f.multiply31(a, b).tolist() == [x * y % f.P31 for x, y in product(edge, edge)]
    wide = [0, f.P31, 2 * f.P31, 2**62, 2**63 + 12345, 2**64 - 1]
    assert f.reduce31(np.array(wide, dtype=np.uint64)).tolist() == [x % f.P31 for x in wide]


def test_uniform_elements_reject_the_one_value_outside_the_field():
    words = iter([bytes.fromhex("ffffffff 05000000 ffffff7f"), bytes.fromhex("ffffff7f 07000080"), b"\x09\0\0\0"])
    assert f.uniform31(3, lambda n: next(words)).tolist() == [9, 5, 7]


# --- shares --------------------------------------------------------------------------------------------------------


def test_the_public_vector():
    shares = share(20240229, 3, 5, F61, coefficients=[918273645546372819, 111213141516171819])
    assert shares == VECTOR
    for chosen in combinations(VECTOR, 3):
        assert reconstruct(chosen, 3, F61) == 20240229
    assert reconstruct(VECTOR, 3, F61) == 20240229


@pytest.mark.parametrize("t", [1, 2, 3, 5, 6])
def test_any_t_of_n_reconstruct_a_256_bit_secret(t):
    secret = 2**256 - 189
    for chosen in combinations(share(secret, t, 6), t):
        assert reconstruct(chosen, t) == secret


def test_coefficients_are_fresh():
    assert share(5, 2, 3) != share(5, 2, 3)
    keys = [bytes(32)]
    assert (share_keys(keys, 2, 3) != share_keys(keys, 2, 3)).any()


KEYS = [bytes(32), b"\xff" * 32, bytes(range(32)), b"\x01" + bytes(31), bytes(31) + b"\x80"]


@pytest.mark.parametrize(("t", "n"), [(1, 1), (1, 3), (2, 2), (3, 5), (6, 6)])
def test_any_t_of_n_reconstruct_many_keys(t, n):
    shares = share_keys(KEYS, t, n)
    assert shares.shape == (n, len(KEYS), LIMBS)
    for rows in combinations(range(n), t):
        assert reconstruct_keys([row + 1 for row in rows], shares[list(rows)], t) == KEYS


def test_vectorised_shares_lie_on_one_polynomial_of_the_right_degree():
    """Limb by limb against Python integers, past several foldings of the difference engine."""
    t, n = 5, 130
    shares = share_keys([b"\xff" * 32], t, n, insecure_random(0)).astype(object)[:, 0, :]
    field = f.PrimeField(f.P31)
    for limb in range(LIMBS):
        # `reconstruct` also checks that the 125 spare shares lie on the polynomial through the first five.
        points = [(x + 1, int(shares[x, limb])) for x in range(n)]
        assert reconstruct(points, t, field) == (2**256 - 1) >> (30 * limb) & (2**30 - 1)
        with pytest.raises(ValueError, match="does not fit"):
            reconstruct(points, t - 1, field)


def test_the_difference_engine_equals_newtons_formula():
    """f(x) = Σ Δ^k f(0) · binomial(x, k), with the differences replayed from the same random bytes."""
    t, n, key = 51, 100, bytes(range(100, 132))
    d = f.uniform31(t * LIMBS, insecure_random(7)).reshape(t, LIMBS).tolist()
    number = int.from_bytes(key, "little")
    d[0] = [number >> (30 * i) & (2**30 - 1) for i in range(LIMBS)]
    slow = [[sum(d[k][j] * comb(x, k) for k in range(t)) % f.P31 for j in range(LIMBS)] for x in range(1, n + 1)]
    assert share_keys([key], t, n, insecure_random(7))[:, 0].tolist() == slow


def test_the_difference_engine_does_not_overflow_where_every_number_is_as_large_as_can_be():
    """All differences P31 − 1: they double in every step, and 64 bits hold 30 doublings, not 31."""
    t, n = 500, 600
    largest = (f.P31 - 1).to_bytes(4, "little")
    shares = share_keys([b"\xff" * 32], t, n, lambda count: largest * (count // 4))[:, 0, :]
    for limb, zeroth in ((0, 2**30 - 1), (8, 2**16 - 1)):
        row = [zeroth] + [f.P31 - 1] * (t - 1)
        for x in range(n):
            row = [(one + other) % f.P31 for one, other in zip(row, [*row[1:], 0], strict=True)]
            assert shares[x, limb] == row[0]


def test_limbs_that_form_no_key_are_none_and_not_another_spelling_of_one():
    """2^30 in one limb is 1 in the next: only one of the two is a key as `share_keys` writes it."""
    for limb, value in ((0, 1 << 30), (3, (1 << 31) - 2), (8, 1 << 16), (8, 1 << 29)):
        limbs = np.zeros((1, 1, LIMBS), np.uint32)
        limbs[0, 0, limb] = value
        assert reconstruct_keys([1], limbs, 1) == [None]
    limbs[0, 0, 8] = (1 << 16) - 1
    assert reconstruct_keys([1], limbs, 1) == [bytes(30) + b"\xff\xff"]


def test_a_wrong_share_gives_another_key_or_none_and_never_the_right_one():
    shares = share_keys(KEYS, 3, 5)
    shares[1, :, 0] ^= 1
    assert all(found != key for found, key in zip(reconstruct_keys([1, 2, 3], shares[:3], 3), KEYS, strict=True))
    assert reconstruct_keys([1, 3, 4], shares[[0, 2, 3]], 3) == KEYS
    with pytest.raises(ValueError, match="does not fit"):
        reconstruct([(1, 17), *VECTOR[1:]], 3, F61)


# --- secrecy -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prime", [5, 7])
@pytest.mark.parametrize("t", [2, 3])
def test_fewer_than_t_shares_are_independent_of_the_secret_exhaustively(prime, t):
    """Over all coefficients, every t − 1 shares take every combination of values equally often, for every secret."""
    field = f.PrimeField(prime)
    for places in combinations(range(4), t - 1):
        for secret in range(prime):
            seen: dict[tuple[int, ...], int] = {}
            for coefficients in product(range(prime), repeat=t - 1):
                shares = share(secret, t, 4, field, coefficients)
                values = tuple(shares[place][1] for place in places)
                seen[values] = seen.get(values, 0) + 1
            assert len(seen) == prime ** (t - 1)
            assert set(seen.values()) == {1}


def test_two_of_three_shares_look_uniform_whatever_the_secret():
    """3000 splits of 0 and of p − 1, threshold 3, 8 x 8 buckets; the shares come from the system's generator."""
    tables = []
    for secret in (0, f.P61 - 1):
        table = np.zeros((8, 8))
        for _ in range(3000):
            shares = share(secret, 3, 3, F61)
            table[8 * shares[0][1] // f.P61, 8 * shares[2][1] // f.P61] += 1
        tables.append(table)
        assert chi_square_p(table, 3000 / 64) > 1e-7
    both = tables[0] + tables[1]
    assert chi2.sf(float(((tables[0] - tables[1]) ** 2 / both).sum()), 63) > 1e-7


def test_vectorised_shares_look_uniform_whatever_the_secret():
    for key in (bytes(32), b"\xff" * 32):
        shares = share_keys([key] * 3000, 3, 3)[:, :, 0].astype(np.int64)
        table = np.zeros((8, 8))
        np.add.at(table, (8 * shares[0] // f.P31, 8 * shares[2] // f.P31), 1)
        assert chi_square_p(table, 3000 / 64) > 1e-7


def test_the_secrecy_test_can_fail():
    """With the highest coefficient always 0 two shares determine the secret, and the table shows it."""
    table = np.zeros((8, 8))
    rng = np.random.default_rng(0)
    for c in rng.integers(0, f.P61, 3000):
        shares = share(0, 3, 3, F61, [int(c), 0])
        table[8 * shares[0][1] // f.P61, 8 * shares[2][1] // f.P61] += 1
    assert chi_square_p(table, 3000 / 64) < 1e-7


# --- refusals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ((1, 4, 3), ValueError, "threshold = 4"),
        ((1, 0, 3), ValueError, "threshold = 0"),
        ((1, 2, 7, f.PrimeField(7)), ValueError, "n = 7"),
        ((7, 2, 3, f.PrimeField(7)), ValueError, "secret = 7"),
        ((-1, 2, 3), ValueError, "secret = -1"),
        ((f.P521, 2, 3), ValueError, "outside the field"),
        ((1.0, 2, 3), TypeError, "secret must be a whole number"),
        ((True, 2, 3), TypeError, "secret must be a whole number"),
        ((1, 2.0, 3), TypeError, "threshold"),
        ((1, 2, 3.0), TypeError, "n must be"),
        ((1, 3, 3, f.PrimeField(7), [1]), ValueError, "coefficients"),
        ((1, 2, 3, f.PrimeField(7), [9]), ValueError, "coefficient = 9"),
    ],
)
def test_share_refuses(arguments, error, match):
    with pytest.raises(error, match=match):
        share(*arguments)


@pytest.mark.parametrize(
    ("shares", "t", "error", "match"),
    [
        (VECTOR[:2], 3, ValueError, "2 shares are fewer"),
        ([], 1, ValueError, "fewer"),
        ([VECTOR[0], VECTOR[0], VECTOR[1]], 3, ValueError, "duplicate"),
        ([(0, 5), *VECTOR[:2]], 3, ValueError, "x = 0"),
        ([*VECTOR[:3], (0, 20240229)], 3, ValueError, "x = 0"),              # a spare share that would even fit
        ([*VECTOR[:3], VECTOR[1]], 3, ValueError, "duplicate"),
        ([(f.P61, 5), *VECTOR[:2]], 3, ValueError, "outside the field"),
        ([(1, f.P61), *VECTOR[1:3]], 3, ValueError, "outside the field"),
        ([(1, -1), *VECTOR[1:3]], 3, ValueError, "outside the field"),
        ([(1, 5.0), *VECTOR[1:3]], 3, TypeError, "whole number"),
        ([(1.0, 5), *VECTOR[1:3]], 3, TypeError, "whole number"),
        (VECTOR, 0, ValueError, "threshold = 0"),
    ],
)
def test_reconstruct_refuses(shares, t, error, match):
    with pytest.raises(error, match=match):
        reconstruct(shares, t, F61)


def test_vectorised_refusals():
    shares = share_keys(KEYS, 3, 5)
    with pytest.raises(ValueError, match="fewer"):
        reconstruct_keys([1, 2], shares[:2], 3)
    with pytest.raises(ValueError, match="duplicate"):
        reconstruct_keys([1, 1, 2], shares[:3], 3)
    with pytest.raises(ValueError, match="x = 0"):
        reconstruct_keys([0, 1, 2], shares[:3], 3)
    for spare, match in ((0, "x = 0"), (1, "duplicate"), (f.P31, "outside the field")):          # also beyond the threshold
        with pytest.raises(ValueError, match=match):
            reconstruct_keys([1, 2, 3, spare], shares[:4], 3)
    with pytest.raises(ValueError, match="points for"):
        reconstruct_keys([1, 2], shares[:3], 3)
    with pytest.raises(ValueError, match="threshold = 0"):
        reconstruct_keys([1, 2, 3], shares[:3], 0)
    with pytest.raises(TypeError, match="integers of shape"):
        reconstruct_keys([1, 2, 3], shares[:3].astype(float), 3)
    with pytest.raises(ValueError, match="outside the field"):
        reconstruct_keys([1, 2, 3], np.full((3, 1, LIMBS), f.P31), 3)
    with pytest.raises(ValueError, match="32 bytes"):
        share_keys([b"short"], 2, 3)
    with pytest.raises(ValueError, match="threshold = 4"):
        share_keys(KEYS, 4, 3)
