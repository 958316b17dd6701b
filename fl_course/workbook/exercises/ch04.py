"""The exercises of chapter 4: solutions, common mistakes and their hints. How one is written: workbook/grading/checks.py."""

import math
from functools import partial

import numpy as np

from fl_course.workbook.grading.checks import Exercise, Mistake, agrees_with, expect

PRIMES = (10007, 10009, 10037, 10039, 10061, 10067)
R = 2**10

# --- 04.share --------------------------------------------------------------------------------------------------------


def share(secret, coefficients, n, p):
    """secret: s; coefficients: [c1, c2, …], t - 1 of them; n: how many shares; p: a prime. Returns [(1, f(1)), …, (n, f(n))]."""
    return [(x, (secret + sum(c * x**k for k, c in enumerate(coefficients, start=1))) % p) for x in range(1, n + 1)]


def from_zero(secret, coefficients, n, p):
    return [(x, (secret + sum(c * x**k for k, c in enumerate(coefficients, start=1))) % p) for x in range(n)]


def not_reduced(secret, coefficients, n, p):
    return [(x, secret + sum(c * x**k for k, c in enumerate(coefficients, start=1))) for x in range(1, n + 1)]


def powers_from_zero(secret, coefficients, n, p):
    return [(x, (secret + sum(c * x**k for k, c in enumerate(coefficients))) % p) for x in range(1, n + 1)]


def highest_first(secret, coefficients, n, p):
    return share(secret, coefficients[::-1], n, p)


def without_x(secret, coefficients, n, p):
    return [y for _, y in share(secret, coefficients, n, p)]


def secret_left_out(secret, coefficients, n, p):
    return share(0, coefficients, n, p)


def one_short(secret, coefficients, n, p):
    return share(secret, coefficients, n - 1, p)


def exclusive_or(secret, coefficients, n, p):
    return [(x, (secret + sum(c * (x ^ k) for k, c in enumerate(coefficients, start=1))) % p) for x in range(1, n + 1)]


def straight_line(secret, coefficients, n, p):
    return [(x, (secret + sum(c * x for c in coefficients)) % p) for x in range(1, n + 1)]


def value_first(secret, coefficients, n, p):
    return [(y, x) for x, y in share(secret, coefficients, n, p)]


def from_zero_to_n(secret, coefficients, n, p):
    return [(0, secret), *share(secret, coefficients, n, p)]


def secret_not_reduced(secret, coefficients, n, p):
    return [(x, secret + y) for x, y in share(0, coefficients, n, p)]


def as_many_as_needed(secret, coefficients, n, p):
    return share(secret, coefficients, len(coefficients) + 1, p)


def draw_secret(rng):
    p = int(rng.choice(PRIMES))
    t = int(rng.integers(3, 6))
    coefficients = [int(c) for c in rng.integers(1, p, size=t - 1)]
    return int(rng.integers(1, p)), coefficients, int(rng.integers(t + 2, 9)), p


# --- 04.reconstruct --------------------------------------------------------------------------------------------------


def reconstruct(shares, p):
    """shares: [(x, y), …], as many as are needed, in any order; p: a prime. Returns the secret, an int in [0, p)."""
    secret = 0
    for x, y in shares:
        above, below = 1, 1
        for other, _ in shares:
            if other != x:
                above, below = above * -other % p, below * (x - other) % p
        secret += y * above * pow(below, -1, p)
    return secret % p


def float_division(shares, p):
    secret = 0.0
    for x, y in shares:
        weight = 1.0
        for other, _ in shares:
            if other != x:
                weight *= -other / (x - other)
        secret += y * weight
    return round(secret) % p


def whole_division(shares, p):
    secret = 0
    for x, y in shares:
        above, below = math.prod(-o for o, _ in shares if o != x), math.prod(x - o for o, _ in shares if o != x)
        secret += y * (above // below)
    return secret % p


def sum_of_shares(shares, p):
    return sum(y for _, y in shares) % p


def sign_forgotten(shares, p):
    secret = 0
    for x, y in shares:
        above, below = math.prod(o for o, _ in shares if o != x), math.prod(x - o for o, _ in shares if o != x)
        secret += y * above * pow(below, -1, p)
    return secret % p


def upside_down(shares, p):
    secret = 0
    for x, y in shares:
        above, below = math.prod(-o for o, _ in shares if o != x), math.prod(x - o for o, _ in shares if o != x)
        secret += y * below * pow(above, -1, p)
    return secret % p


def multiplied_below(shares, p):
    secret = 0
    for x, y in shares:
        secret += y * math.prod(-o * (x - o) for o, _ in shares if o != x)
    return secret % p


def numbered_in_order(shares, p):
    return reconstruct([(i, y) for i, (_, y) in enumerate(shares, start=1)], p)


def values_left_out(shares, p):
    return reconstruct([(x, 1) for x, _ in shares], p)


def first_share(shares, p):
    return shares[0][1]


def at_one(shares, p):
    return reconstruct([(x - 1, y) for x, y in shares], p)


def real_sum(shares, p):
    return sum(y * math.prod(-o / (x - o) for o, _ in shares if o != x) for x, y in shares) % p


def whole_factors(shares, p):
    return sum(y * math.prod(-o // (x - o) for o, _ in shares if o != x) for x, y in shares) % p


def itself_included(shares, p):
    return sum(y * math.prod(-o * pow(x - o, -1, p) for o, _ in shares) for x, y in shares) % p


def first_two(shares, p):
    return reconstruct(shares[:2], p)


def own_x_above(shares, p):
    return sum(y * math.prod(x * pow(x - o, -1, p) for o, _ in shares if o != x) for x, y in shares) % p


def left_whole(shares, p):
    secret = 0
    for x, y in shares:
        above, below = math.prod(-o for o, _ in shares if o != x), math.prod(x - o for o, _ in shares if o != x)
        secret += y * above * pow(below, -1, p)
    return secret


def draw_shares(rng):
    p = int(rng.choice(PRIMES))
    t = 2 * int(rng.integers(2, 4))                    # 4 or 6: an odd number of factors, so that a lost sign shows
    points = sorted(int(x) for x in rng.permutation(np.arange(2, 12))[:t])
    points[-1] += 1                                    # never only neighbours: fractions must occur
    secret, coefficients = int(rng.integers(1, p)), [int(c) for c in rng.integers(1, p, size=t - 1)]
    every = dict(share(secret, coefficients, 13, p))
    return [(x, every[x]) for x in rng.permutation(points).tolist()], p


# --- 04.what_it_tells ------------------------------------------------------------------------------------------------


def what_it_tells(y, size):
    """y: what was sent; size: standard deviation of the mask. Returns the probability that the number was 1."""
    return 1 / (1 + np.exp(-(2 * y - 1) / (2 * size**2)))


def always_half(y, size):
    return 0.5


def variance_forgotten(y, size):
    return 1 / (1 + np.exp(-(2 * y - 1) / (2 * size)))


def likelihood(y, size):
    return np.exp(-((y - 1) ** 2) / (2 * size**2)) / (size * np.sqrt(2 * np.pi))


def of_the_zero(y, size):
    return 1 - what_it_tells(y, size)


def half_forgotten(y, size):
    return 1 / (1 + np.exp(-(2 * y - 1) / size**2))


def odds(y, size):
    return np.exp((2 * y - 1) / (2 * size**2))


def yes_or_no(y, size):
    return float(y > 0.5)


def not_divided(y, size):
    return np.exp(-((y - 1) ** 2) / (2 * size**2))


def around_zero(y, size):
    return 1 / (1 + np.exp(-2 * y / (2 * size**2)))


def size_left_out(y, size):
    return 1 / (1 + np.exp(-(2 * y - 1) / 2))


def half_of_it(y, size):
    return what_it_tells(y, size) / 2


def half_the_density(y, size):
    return likelihood(y, size) / 2


def bell_below(y, size):
    return (1 + math.erf((y - 0.5) / (size * math.sqrt(2)))) / 2


def draw_masked_number(rng):
    return float(rng.uniform(-0.5, 1.5)), float(rng.choice([0.6, 0.8, 1.5, 2.3, 3.0]))


# --- 04.mask_pairs ---------------------------------------------------------------------------------------------------


def mask_pairs(x, masks, R):
    """x: (n, d) integers; masks: {(u, v): (d,) integers} for u < v; R: the modulus. Returns what is sent, (n, d) in [0, R)."""
    sent = np.array(x)
    for (u, v), mask in masks.items():
        sent[u] += mask
        sent[v] -= mask
    return sent % R


def both_add(x, masks, R):
    sent = np.array(x)
    for (u, v), mask in masks.items():
        sent[u] += mask
        sent[v] += mask
    return sent % R


def no_modulus(x, masks, R):
    sent = np.array(x)
    for (u, v), mask in masks.items():
        sent[u] += mask
        sent[v] -= mask
    return sent


def only_one_pair(x, masks, R):
    sent = np.array(x)
    for (u, v), mask in masks.items():
        sent[u], sent[v] = x[u] + mask, x[v] - mask
    return sent % R


def other_sign(x, masks, R):
    sent = np.array(x)
    for (u, v), mask in masks.items():
        sent[u] -= mask
        sent[v] += mask
    return sent % R


def first_one_only(x, masks, R):
    sent = np.array(x)
    for (u, _), mask in masks.items():
        sent[u] += mask
    return sent % R


def both_subtract(x, masks, R):
    return (2 * np.array(x) - both_add(x, masks, R)) % R


def not_masked(x, masks, R):
    return np.array(x) % R


def one_less(x, masks, R):
    return no_modulus(x, masks, R) % (R - 1)


def masks_alone(x, masks, R):
    return mask_pairs(np.zeros_like(x), masks, R)


def already_added_up(x, masks, R):
    return np.sum(x, axis=0) % R


def second_one_only(x, masks, R):
    sent = np.array(x)
    for (_, v), mask in masks.items():
        sent[v] -= mask
    return sent % R


def not_a_copy(x, masks, R):
    for (u, v), mask in masks.items():
        x[u] += mask
        x[v] -= mask
    return x % R


def draw_masks(n, d, rng):
    return {(u, v): rng.integers(0, R, size=d) for u in range(n) for v in range(u + 1, n)}


def test_mask_pairs(fn, rng):
    for _ in range(5):
        n = int(rng.integers(3, 6))
        x, masks = rng.integers(0, R // n, size=(n, 3)), draw_masks(n, 3, rng)
        kept, tried = x.copy(), f"{n} clients with 3 numbers each, R = {R}"
        got = fn(x, {pair: mask.copy() for pair, mask in masks.items()}, R)
        expect(np.asarray(got).sum(axis=0) % R, kept.sum(axis=0) % R, f"{tried}: the sum of what is sent, modulo R")
        expect(got, mask_pairs(kept, masks, R), f"{tried}: what is sent")
        expect(x, kept, f"{tried}: the inputs afterwards, which must stay as they were")


# --- 04.recover ------------------------------------------------------------------------------------------------------


def recover(total, gone, survivors, masks, R):
    """total: (d,) sum modulo R; gone: a client; survivors: a list; masks: {(u, v): (d,)}, u < v. Returns the sum of inputs."""
    total = np.array(total)
    for u in survivors:
        if u < gone:
            total -= masks[u, gone]
        else:
            total += masks[gone, u]
    return total % R


def wrong_way(total, gone, survivors, masks, R):
    total = np.array(total)
    for u in survivors:
        total = total + masks[u, gone] if u < gone else total - masks[gone, u]
    return total % R


def always_minus(total, gone, survivors, masks, R):
    total = np.array(total)
    for u in survivors:
        total = total - masks[min(u, gone), max(u, gone)]
    return total % R


def not_repaired(total, gone, survivors, masks, R):
    return np.array(total) % R


def no_ring(total, gone, survivors, masks, R):
    total = np.array(total)
    for u in survivors:
        total = total - masks[u, gone] if u < gone else total + masks[gone, u]
    return total


def smaller_only(total, gone, survivors, masks, R):
    total = np.array(total)
    for u in survivors:
        if u < gone:
            total = total - masks[u, gone]
    return total % R


def larger_only(total, gone, survivors, masks, R):
    total = np.array(total)
    for u in survivors:
        if u > gone:
            total = total + masks[gone, u]
    return total % R


def every_pair(total, gone, survivors, masks, R):
    return (np.array(total) - sum(masks.values())) % R


def always_plus(total, gone, survivors, masks, R):
    return (np.array(total) + sum(masks[min(u, gone), max(u, gone)] for u in survivors)) % R


def one_survivor(total, gone, survivors, masks, R):
    return recover(total, gone, survivors[:1], masks, R)


def mean_of_them(total, gone, survivors, masks, R):
    return recover(total, gone, survivors, masks, R) / len(survivors)


def total_changed(total, gone, survivors, masks, R):
    for u in survivors:
        total += -masks[u, gone] if u < gone else masks[gone, u]
    return total % R


def larger_first(total, gone, survivors, masks, R):
    return sum(masks[u, gone] for u in survivors)


def draw_drop_out(rng):
    n = int(rng.integers(5, 8))
    x, masks = rng.integers(0, R // n, size=(n, 3)), draw_masks(n, 3, rng)
    gone = int(rng.integers(2, n - 2))                 # somebody with two neighbours or more on both sides
    survivors = [u for u in range(n) if u != gone]
    return mask_pairs(x, masks, R)[survivors].sum(axis=0) % R, gone, survivors, masks, R


# --- 04.vector_bytes -------------------------------------------------------------------------------------------------


def vector_bytes(n, d, bits):
    """n: clients; d: numbers of each; bits: of one number before masking. Returns whole bytes of one client's vector."""
    ring_bits = (n * (2**bits - 1)).bit_length()
    return math.ceil(d * ring_bits / 8)


def bits_of_all(n, d, bits):
    return math.ceil(d * n * bits / 8)


def no_room(n, d, bits):
    return math.ceil(d * bits / 8)


def whole_bytes(n, d, bits):
    return d * math.ceil((n * (2**bits - 1)).bit_length() / 8)


def bits_not_bytes(n, d, bits):
    return d * (n * (2**bits - 1)).bit_length()


def all_clients(n, d, bits):
    return n * vector_bytes(n, d, bits)


def bits_of_both(n, d, bits):
    return math.ceil(d * (bits + math.ceil(math.log2(n))) / 8)


def logarithm_of_the_sum(n, d, bits):
    return math.ceil(d * math.ceil(math.log2(n * (2**bits - 1))) / 8)


def rounded_down(n, d, bits):
    return d * (n * (2**bits - 1)).bit_length() // 8


def one_too_many(n, d, bits):
    return math.ceil(d * (n * 2**bits).bit_length() / 8)


def a_bit_for_each(n, d, bits):
    return math.ceil(d * (bits + n) / 8)


def half_a_bit(n, d, bits):
    return math.ceil(d * (bits + math.log2(n)) / 8)


def not_whole(n, d, bits):
    return d * (n * (2**bits - 1)).bit_length() / 8


def four_bytes_each(n, d, bits):
    return 4 * d


def test_vector_bytes(fn, rng):
    k = int(rng.integers(2, 8))
    cases = [
        (int(rng.integers(33, 61)), int(rng.choice([9, 11]))),     # a sum of 15 or 17 bits: every coarse slip shows
        (2**k, int(rng.integers(2, 13))),                          # as if a client could reach 2^bits: one bit too many
        (2 ** (k + 2) + 1, 3), (2**k + 1, 1),                      # the bits of n rounded up alone: one too many
        (2**k, 1),                                                 # the largest sum is a power of two: log2 is one short
    ]  # fmt: skip
    cases += [(int(rng.integers(2, 3000)), int(rng.integers(1, 21))) for _ in range(5)]
    for n, bits in cases:
        d = 8 * int(rng.integers(13, 120)) + int(rng.integers(1, 8))
        expect(fn(n, d, bits), vector_bytes(n, d, bits), f"n = {n}, d = {d}, bits = {bits}: bytes of one client")


# --- 04.open_input ---------------------------------------------------------------------------------------------------


def open_input(y, seed_shares, key_shares, p):
    """y: what was sent; seed_shares, key_shares: t shares (x, value) of self mask and pair mask; p: a prime. Returns x."""
    def at_zero(shares):
        total = 0
        for x, value in shares:
            weight = 1
            for other, _ in shares:
                if other != x:
                    weight = weight * other * pow(other - x, -1, p) % p
            total += value * weight
        return total

    return (y - at_zero(seed_shares) - at_zero(key_shares)) % p


def only_the_self_mask(y, seed_shares, key_shares, p):
    return (y - reconstruct(seed_shares, p)) % p


def only_the_pair_mask(y, seed_shares, key_shares, p):
    return (y - reconstruct(key_shares, p)) % p


def added_again(y, seed_shares, key_shares, p):
    return (y + reconstruct(seed_shares, p) + reconstruct(key_shares, p)) % p


def halves_together(y, seed_shares, key_shares, p):
    return (y - reconstruct([*seed_shares, *key_shares], p)) % p


def self_added(y, seed_shares, key_shares, p):
    return (y + reconstruct(seed_shares, p) - reconstruct(key_shares, p)) % p


def pair_added(y, seed_shares, key_shares, p):
    return (y - reconstruct(seed_shares, p) + reconstruct(key_shares, p)) % p


def shares_added_up(y, seed_shares, key_shares, p):
    return (y - sum_of_shares(seed_shares, p) - sum_of_shares(key_shares, p)) % p


def the_masks(y, seed_shares, key_shares, p):
    return (reconstruct(seed_shares, p) + reconstruct(key_shares, p)) % p


def first_values(y, seed_shares, key_shares, p):
    return (y - seed_shares[0][1] - key_shares[0][1]) % p


def left_unreduced(y, seed_shares, key_shares, p):
    return y - reconstruct(seed_shares, p) - reconstruct(key_shares, p)


def left_whole_with_masks(y, seed_shares, key_shares, p):
    return y - left_whole(seed_shares, p) - left_whole(key_shares, p)


def signs_forgotten(y, seed_shares, key_shares, p):
    return (y - sign_forgotten(seed_shares, p) - sign_forgotten(key_shares, p)) % p


def real_masks(y, seed_shares, key_shares, p):
    return (y - real_sum(seed_shares, p) - real_sum(key_shares, p)) % p


def real_division(y, seed_shares, key_shares, p):
    return (y - float_division(seed_shares, p) - float_division(key_shares, p)) % p


def draw_two_answers(rng, t):
    p = int(rng.choice(PRIMES))
    secrets = [int(s) for s in rng.choice(np.arange(1, p), size=2, replace=False)]
    shares = [share(s, [int(c) for c in rng.integers(1, p, size=t - 1)], 2 * t, p) for s in secrets]
    y = (int(rng.integers(1, p)) + sum(secrets)) % p
    half = rng.permutation(2 * t)                      # neighbours alone would have whole Lagrange weights
    return y, [shares[0][i] for i in half[:t]], [shares[1][i] for i in half[t:]], p


def test_open_input(fn, rng):
    for t in (3, 4):                                   # two factors in a weight, and three: then a lost sign shows
        agrees_with(open_input, partial(draw_two_answers, t=t), 3)(fn, rng)


EXERCISES = (
    Exercise(
        name="04.share",
        title="Cut a secret into shares",
        difficulty=1,
        minutes=10,
        test=agrees_with(share, draw_secret),
        hints=(
            "The secret is f(0). So it is the term without x, and no share may be made at x = 0.",
            "f(x) = secret + c₁·x + c₂·x² + …; the first coefficient belongs to x¹.",
            "For each x from 1 to n: (x, f(x) % p).",
        ),
        solution=share,
        mistakes=(
            Mistake(from_zero, "The first share is made at x = 0: it is the secret itself. Begin with x = 1."),
            Mistake(not_reduced, "Without the modulus the size of a share tells about the secret. Take everything modulo p."),
            Mistake(powers_from_zero, "The first coefficient is multiplied by x⁰. It belongs to x¹; x⁰ is the secret's place."),
            Mistake(highest_first, "The coefficients come lowest first: c1 belongs to x, c2 to x²."),
            Mistake(without_x, "A share is a point (x, f(x)): without its x nobody can put the secret together."),
            Mistake(secret_left_out, "The polynomial lacks its first term: f(0) must be the secret, here it is 0."),
            Mistake(one_short, "One share is missing: `range(1, n)` ends at n - 1."),
            Mistake(exclusive_or, "In Python `x ^ k` is not a power (it is the exclusive or of bits): write `x**k`."),
            Mistake(
                straight_line,
                "Every coefficient is multiplied by x: a straight line, which two shares give away. c2 belongs to x², and so on.",
            ),
            Mistake(from_zero_to_n, "There is a share too many, at x = 0: it is the secret itself. Begin with x = 1."),
            Mistake(secret_not_reduced, "The secret is added after the modulus: take the whole sum modulo p."),
            Mistake(as_many_as_needed, "That is t shares, as many as are needed. Asked for are n, so that some may be lost."),
            Mistake(value_first, "A share is (x, f(x)), in this order."),
        ),
    ),
    Exercise(
        name="04.reconstruct",
        title="Put a secret together again",
        difficulty=3,
        minutes=20,
        test=agrees_with(reconstruct, draw_shares, 8),
        hints=(
            "Lagrange: f(0) = Σ y_i · Π (0 - x_j) / (x_i - x_j), the product over all j other than i.",
            "There are no fractions modulo p: to divide by b is to multiply by `pow(b, -1, p)`.",
            "Multiply all (0 - x_j) and all (x_i - x_j), then add y · above · pow(below, -1, p), and take % p at the end.",
        ),
        solution=reconstruct,
        mistakes=(
            Mistake(float_division, "You divide real numbers, and get another number. Modulo p, a/b is a · pow(b, -1, p)."),
            Mistake(whole_division, "`//` throws the remainder away. Modulo p, a/b is a · pow(b, -1, p)."),
            Mistake(sum_of_shares, "Shares are points of a polynomial, not parts of a sum: weigh each with its Lagrange weight."),
            Mistake(sign_forgotten, "The factors above are 0 - x_j, not x_j: with an odd number of them the sign is wrong."),
            Mistake(upside_down, "The fraction stands on its head: (0 - x_j) above, (x_i - x_j) below."),
            Mistake(
                multiplied_below,
                "You multiply by x_i - x_j where you should divide: modulo p that is `pow(x_i - x_j, -1, p)`.",
            ),
            Mistake(
                numbered_in_order,
                "The x of a share is its first entry, not its place in the list: any shares may come, in any order.",
            ),
            Mistake(real_sum, "You divide real numbers with `/`. Modulo p, a/b is a · pow(b, -1, p), a whole number."),
            Mistake(whole_factors, "`//` in each factor throws its remainder away. Modulo p, a/b is a · pow(b, -1, p)."),
            Mistake(itself_included, "The product leaves out the share itself: x_i - x_i is 0, and has no inverse."),
            Mistake(first_two, "Two shares fix a straight line. Use all that were handed in."),
            Mistake(own_x_above, "Above stands 0 - x_j, with the x of the *other* share, not its own."),
            Mistake(left_whole, "Right but for the last step: take the sum modulo p."),
            Mistake(values_left_out, "The weights alone add up to 1. Multiply each with the y of its share."),
            Mistake(first_share, "One share alone tells nothing: every one has its weight in the sum."),
            Mistake(at_one, "That is f(1). The secret is f(0)."),
        ),
    ),
    Exercise(
        name="04.what_it_tells",
        title="What a float mask tells",
        difficulty=2,
        minutes=15,
        test=agrees_with(what_it_tells, draw_masked_number, 8),
        hints=(
            "Bayes: P(1 | y) = p(y | 1) / (p(y | 0) + p(y | 1)), since both were equally likely before.",
            "p(y | x) is the normal density at y - x; what is the same above and below cancels.",
            "The ratio p(y | 0) / p(y | 1) is exp(-(2y - 1) / (2·size²)); the answer is 1 / (1 + that).",
        ),
        solution=what_it_tells,
        mistakes=(
            Mistake(always_half, "That is the answer for a uniform mask modulo R. A normal mask says more: y = 5 speaks for 1."),
            Mistake(variance_forgotten, "`size` is a standard deviation: the exponent is divided by 2·size², not by 2·size."),
            Mistake(likelihood, "That is p(y | 1), a density. Divide it by p(y | 0) + p(y | 1)."),
            Mistake(of_the_zero, "That is the probability of 0. Asked for is the probability of 1."),
            Mistake(half_forgotten, "A factor 2: the normal density has 2·size² in its exponent."),
            Mistake(odds, "Those are the odds, p(y | 1) / p(y | 0). Of odds o the probability is o / (1 + o)."),
            Mistake(
                yes_or_no,
                "That is the best guess. Asked for is how likely it is to be right: a number between 0 and 1.",
            ),
            Mistake(not_divided, "That is p(y | 1) without its constant. Divide it by the same of 0 and 1 together."),
            Mistake(around_zero, "y = 0.5 must say nothing: it lies in the middle of 0 and 1."),
            Mistake(half_of_it, "The 1/2 from before stands above and below, and cancels: no factor 1/2 is left."),
            Mistake(half_the_density, "That is p(1)·p(y | 1). Divide it by the same of 0 and 1 together, which is p(y)."),
            Mistake(bell_below, "That is the part of a bell below y. Compare the *heights* of two bells at y, around 0 and 1."),
            Mistake(size_left_out, "The wider the mask, the less y tells: `size` must be in the answer."),
        ),
    ),
    Exercise(
        name="04.mask_pairs",
        title="Pairwise masks that cancel",
        difficulty=2,
        minutes=10,
        test=test_mask_pairs,
        hints=(
            "Copy x first. Then go through the pairs.",
            "The client with the smaller number adds the mask of the pair, the other subtracts it.",
            "sent[u] += mask; sent[v] -= mask; and everything modulo R at the end.",
        ),
        solution=mask_pairs,
        mistakes=(
            Mistake(both_add, "Both clients add the mask, so it is in the sum twice. One adds, the other subtracts."),
            Mistake(no_modulus, "The sum is right, but what is sent is not in [0, R), and its size tells: take it modulo R."),
            Mistake(only_one_pair, "Each new pair overwrites the masks of the pairs before. Add to what is already there."),
            Mistake(other_sign, "They cancel, but the other way round than agreed: u adds, v subtracts."),
            Mistake(first_one_only, "The client with the larger number does nothing: it must subtract the mask."),
            Mistake(both_subtract, "Both clients subtract the mask. One adds, the other subtracts."),
            Mistake(not_masked, "Nothing is hidden: each row is the client's input."),
            Mistake(one_less, "Modulo R, not R - 1: the largest number is R - 1."),
            Mistake(masks_alone, "These are the masks alone: begin with x."),
            Mistake(second_one_only, "The client with the smaller number does nothing: it must add the mask."),
            Mistake(not_a_copy, "You change the caller's `x`: begin with a copy, `sent = np.array(x)`."),
            Mistake(already_added_up, "That is what the server will learn. Asked for is what each client sends, (n, d)."),
        ),
    ),
    Exercise(
        name="04.recover",
        title="Recover from a drop-out",
        difficulty=3,
        minutes=15,
        test=agrees_with(recover, draw_drop_out),
        hints=(
            "What is left in the sum is what each survivor did with its mask of the pair with the client that is gone.",
            "A survivor u with u < gone has added masks[u, gone]; one with u > gone has subtracted masks[gone, u].",
            "Undo it: subtract the first kind, add the second, modulo R.",
        ),
        solution=recover,
        mistakes=(
            Mistake(wrong_way, "You do again what the survivors did. Undo it: subtract what was added."),
            Mistake(always_minus, "Survivors with a larger number than the lost client *subtracted* their mask: add it back."),
            Mistake(not_repaired, "The masks of the pairs with the lost client are still in the sum."),
            Mistake(no_ring, "Almost: the sum lives modulo R."),
            Mistake(
                smaller_only,
                "Those with a smaller number are mended. The others subtracted masks[gone, u]: add it back.",
            ),
            Mistake(larger_only, "Those with a larger number are mended. The others added masks[u, gone]: subtract it."),
            Mistake(every_pair, "The masks among survivors cancel already. Only the pairs with the lost client are left."),
            Mistake(always_plus, "Survivors with a smaller number than the lost client *added* their mask: subtract it."),
            Mistake(one_survivor, "Every survivor shares a mask with the lost client: mend all, not the first alone."),
            Mistake(total_changed, "`+=` and `-=` change the caller's array: begin with `total = np.array(total)`."),
            Mistake(larger_first, "A pair is (u, v) with u < v: the mask of 3 and 1 stands at masks[1, 3]."),
            Mistake(mean_of_them, "That is the mean. Asked for is the sum, modulo R."),
        ),
    ),
    Exercise(
        name="04.vector_bytes",
        title="Count the bytes",
        difficulty=2,
        minutes=10,
        test=test_vector_bytes,
        hints=(
            "How large can the sum of n numbers below 2^bits become?",
            "n·(2^bits - 1); the ring must have room for it, so it needs as many bits as that number has: `.bit_length()`.",
            "d numbers of that many bits, packed without gaps: ceil(d · ring_bits / 8).",
        ),
        solution=vector_bytes,
        mistakes=(
            Mistake(no_room, "A ring of `bits` bits holds one number; the sum of n would wrap around, and nobody would notice."),
            Mistake(whole_bytes, "Numbers can share a byte: pack all bits first, round up to whole bytes once."),
            Mistake(bits_not_bytes, "Those are bits. Eight of them are a byte."),
            Mistake(all_clients, "That is what all clients send together. Asked for is one client's vector."),
            Mistake(bits_of_both, "Rounding up the bits of n alone may give one too many: 17 · 7 = 119 fits into 7 bits."),
            Mistake(logarithm_of_the_sum, "ceil(log2(m)) is one short if the largest sum m is a power of two: 4 needs 3 bits."),
            Mistake(rounded_down, "The last bits need a byte, too: round up."),
            Mistake(one_too_many, "The largest number of a client is 2^bits - 1, not 2^bits: the largest sum is n·(2^bits - 1)."),
            Mistake(a_bit_for_each, "A further client does not take a further bit: twice as many clients do."),
            Mistake(bits_of_all, "A sum of n numbers is not n times as long: twice as many clients take one bit more."),
            Mistake(half_a_bit, "A number takes whole bits: round up for each number, and only then pack."),
            Mistake(not_whole, "Nobody sends a part of a byte: round up at the end."),
            Mistake(four_bytes_each, "That is a 32-bit number for each. Here b is as small as the largest sum allows."),
        ),
    ),
    Exercise(
        name="04.open_input",
        title="Break it with two answers",
        difficulty=4,
        minutes=25,
        test=test_open_input,
        hints=(
            "y = x + self mask + pair mask, modulo p. What do you have to take away?",
            "Each list of shares gives one of the two masks: Lagrange at zero, as in 4.2.",
            "x = (y - at_zero(seed_shares) - at_zero(key_shares)) % p.",
        ),
        solution=open_input,
        mistakes=(
            Mistake(only_the_self_mask, "The pair mask still hides it. That is why honest clients never give away both."),
            Mistake(only_the_pair_mask, "The self mask still hides it: this is what protects an upload that comes late."),
            Mistake(added_again, "The client added its masks. Take them away."),
            Mistake(halves_together, "The two lists are shares of two different secrets; put each together by itself."),
            Mistake(self_added, "The client *added* its self mask, too: take it away."),
            Mistake(pair_added, "The client *added* its pair mask, too: take it away."),
            Mistake(
                shares_added_up,
                "Shares are points of a polynomial, not parts of a sum: Lagrange at zero gives the mask.",
            ),
            Mistake(the_masks, "These are the two masks together. Take them away from y."),
            Mistake(left_unreduced, "Right but for the last step: take the difference modulo p, so that it lies in [0, p)."),
            Mistake(left_whole_with_masks, "Nothing was taken modulo p: do it at the end."),
            Mistake(signs_forgotten, "Lagrange at zero: the factors above are 0 - x_j, not x_j."),
            Mistake(real_masks, "You divide real numbers with `/`: an inverse modulo p is `pow(b, -1, p)`."),
            Mistake(real_division, "You divide real numbers. Modulo p, a/b is a · pow(b, -1, p), as in 4.2."),
            Mistake(first_values, "The value of one share is not the mask: all t of a list are needed, Lagrange at zero."),
        ),
    ),
)
