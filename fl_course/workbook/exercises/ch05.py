"""The exercises of chapter 5: solutions, common mistakes and their hints. How one is written: workbook/grading/checks.py."""

import numpy as np

from fl_course.workbook.grading.checks import Exercise, Mistake, Wrong, agrees_with, expect
from fl_course.workbook.grading.compare import same, short

# --- 05.top_k --------------------------------------------------------------------------------------------------------


def top_k(x, k):
    """x: (d,), no two magnitudes equal; 0 <= k <= d. Returns positions (k,) rising and values (k,)."""
    order = np.argsort(-np.abs(x))
    positions = np.sort(order[:k])
    return positions, x[positions]


def largest_values(x, k):
    positions = np.sort(np.argsort(-x)[:k])
    return positions, x[positions]


def in_order_of_size(x, k):
    positions = np.argsort(-np.abs(x))[:k]
    return positions, x[positions]


def smallest(x, k):
    positions = np.sort(np.argsort(np.abs(x))[:k])
    return positions, x[positions]


def minus_zero(x, k):
    positions = np.sort(np.argsort(np.abs(x))[-k:])
    return positions, x[positions]


def magnitudes(x, k):
    positions, values = top_k(x, k)
    return positions, np.abs(values)


def values_first(x, k):
    return top_k(x, k)[::-1]


def zeros_kept(x, k):
    positions, values = top_k(x, k)
    whole = np.zeros_like(x)
    whole[positions] = values
    return positions, whole


def one_more(x, k):
    return top_k(x, min(k + 1, len(x)))


def sorted_apart(x, k):
    order = np.argsort(-np.abs(x))[:k]
    return np.sort(order), x[order]


def counted_from_one(x, k):
    positions, values = top_k(x, k)
    return positions + 1, values


def first_k(x, k):
    return np.arange(k), x[:k]


def unsorted_from_the_end(x, k):
    positions = np.argsort(np.abs(x))[-k:]
    return positions, x[positions]


def lowest_values(x, k):
    positions = np.sort(np.argsort(x)[:k])
    return positions, x[positions]


def positions_alone(x, k):
    return top_k(x, k)[0]


def values_alone(x, k):
    return top_k(x, k)[1]


def values_sorted(x, k):
    positions, values = top_k(x, k)
    return positions, np.sort(values)


def test_top_k(fn, rng):
    for k in (4, 1, 9, 0, 5):
        # The largest magnitude is negative and the next is not; the first entry is neither among the largest four nor the
        # smallest: so every slip shows at once.
        x = np.array([-5.0, *rng.permutation([1, 2, 3, 4, 6, 7, 8, 9])])
        x *= np.where(x == 9, -1, np.where((x == 8) | (x < 0), 1, rng.choice([-1.0, 1.0], size=9)))
        got, want = fn(x.copy(), k), top_k(x, k)
        pair = isinstance(got, (tuple, list)) and len(got) == 2
        expect(pair, True, f"x = {x.tolist()}, k = {k}: is the answer a pair (positions, values)")
        for what, mine, right in zip(("positions", "values"), got, want, strict=True):
            expect(np.asarray(mine), right, f"x = {x.tolist()}, k = {k}: the {what}")


# --- 05.error_feedback -----------------------------------------------------------------------------------------------


def error_feedback(delta, residual, compress):
    """delta, residual: (d,). Returns what is sent (d,) and the new residual (d,)."""
    meant = delta + residual
    sent = compress(meant)
    return sent, meant - sent


def forgets_the_past(delta, residual, compress):
    sent = compress(delta)
    return sent, delta - sent


def adds_too_late(delta, residual, compress):
    sent = compress(delta)
    return sent, delta + residual - sent


def residual_of_delta(delta, residual, compress):
    sent = compress(delta + residual)
    return sent, delta - sent


def wrong_sign(delta, residual, compress):
    sent = compress(delta + residual)
    return sent, sent - (delta + residual)


def residual_first(delta, residual, compress):
    return error_feedback(delta, residual, compress)[::-1]


def compressed_apart(delta, residual, compress):
    sent = compress(delta) + residual
    return sent, delta + residual - sent


def nothing_settled(delta, residual, compress):
    return compress(delta + residual), delta + residual


def starts_afresh(delta, residual, compress):
    return compress(delta + residual), np.zeros_like(residual)


def old_residual_kept(delta, residual, compress):
    return compress(delta + residual), residual


def subtracts_the_debt(delta, residual, compress):
    sent = compress(delta - residual)
    return sent, delta - residual - sent


def not_compressed(delta, residual, compress):
    return delta + residual, delta + residual - compress(delta + residual)


def two_parcels(delta, residual, compress):
    sent = compress(delta) + compress(residual)
    return sent, delta + residual - sent


def sent_alone(delta, residual, compress):
    return compress(delta + residual)


def halve_small(x):
    return np.where(np.abs(x) > 0.5, x, x / 2)


def keep_first(x):
    return np.where(np.arange(len(x)) < 2, x, 0)


def draw_feedback(rng):
    return rng.normal(size=6), rng.normal(size=6), halve_small


def draw_feedback_of_few(rng):
    return rng.normal(size=6), rng.normal(size=6), keep_first


def test_feedback(fn, rng):
    agrees_with(error_feedback, draw_feedback, 3)(fn, rng)         # not linear: to compress two parts apart is another thing
    agrees_with(error_feedback, draw_feedback_of_few, 3)(fn, rng)


# --- 05.unbiased_rounding --------------------------------------------------------------------------------------------


def unbiased_rounding(x, step, dice):
    """x, dice: (d,); step > 0. Returns multiples of step (d,)."""
    lower = np.floor(x / step)
    up = dice < x / step - lower
    return step * (lower + up)


def nearest(x, step, dice):
    return step * np.round(x / step)


def coin(x, step, dice):
    return step * (np.floor(x / step) + (dice < 0.5))


def towards_zero(x, step, dice):
    lower = np.trunc(x / step)
    return step * (lower + (dice < x / step - lower))


def other_way(x, step, dice):
    lower = np.floor(x / step)
    return step * (lower + (dice >= x / step - lower))


def grid_numbers(x, step, dice):
    lower = np.floor(x / step)
    return lower + (dice < x / step - lower)


def numbers_by_dice(x, step, dice):
    return np.floor(x / step + dice)


def cut_off(x, step, dice):
    return step * np.trunc(x / step + dice)


def whole_by_dice(x, step, dice):
    return np.floor(x + dice)


def one_up(x, step, dice):
    lower = np.floor(x / step)
    return step * lower + (dice < x / step - lower)


def dice_divided(x, step, dice):
    return step * np.floor((x + dice) / step)


def up_with_dice(x, step, dice):
    return step * np.ceil(x / step + dice)


def always_down(x, step, dice):
    return step * np.floor(x / step)


def always_up(x, step, dice):
    return step * np.ceil(x / step)


def share_in_units(x, step, dice):
    lower = np.floor(x / step)
    return step * (lower + (dice < x - step * lower))


def rounded_after_dice(x, step, dice):
    return step * np.round(x / step + dice)


def step_forgotten(x, step, dice):
    return np.floor(x) + (dice < x - np.floor(x))


def one_die(x, step, dice):
    return unbiased_rounding(x, step, dice[0])


def coin_times_share(x, step, dice):
    return x + step * (dice - 0.5)


def test_rounding(fn, rng):
    """Any rule passes that goes to a neighbour on the grid and is right on average: up at low dice, or high, or by magnitude."""
    for _ in range(4):
        step, whole = float(rng.uniform(0.3, 0.8)), rng.permutation([-3, -1, 0, 2])
        values = step * (whole + np.array([0.1, 0.3, 0.7, 0.9]) + rng.uniform(-0.05, 0.05, size=4))
        x = np.repeat(values, 200)
        dice = np.concatenate([rng.permutation((np.arange(200) + 0.5) / 200) for _ in values])
        order = rng.permutation(len(x))
        first = np.argmax(np.abs(dice[order] - 0.8) < 0.05)        # a die that would say down to three of the four values
        order[[0, first]] = order[[first, 0]]
        x, dice = x[order], dice[order]
        tried = f"x = {short(x)}, step = {step:.3f}, dice = {short(dice)}"
        answer = fn(x.copy(), step, dice.copy())
        expect(np.shape(answer) if answer is not None else None, x.shape, f"{tried}: the shape of the answer")
        got = np.asarray(answer, dtype=float)
        again = same(fn(x.copy(), step, dice.copy()), got)
        expect(again, True, f"{tried}: whether the same dice give the same answer (draw none yourself)")
        for mine, entry, die in zip(got, x, dice, strict=True):
            lower = np.floor(entry / step)
            if not np.isclose([lower, lower + 1], mine / step, atol=1e-4).any():
                between = f"{step * lower:.4f} or {step * (lower + 1):.4f}"
                raise Wrong(f"tried x = {entry:.3f}, step = {step:.3f}, die = {die:.4f}: expected {between}, got {mine:.4f}")
        for value in values:
            said = f"x = {value:.3f}, step = {step:.3f}, 200 dice spread evenly over [0, 1): the mean of the answers"
            expect(float(got[x == value].mean()), float(value), said, rtol=0, atol=step / 100)


# --- 05.pack_bits ----------------------------------------------------------------------------------------------------


def pack_bits(codes, bits):
    """codes: a list of whole numbers from 0 to 2**bits - 1. Returns bytes, ceil(len(codes)·bits / 8) of them."""
    number = 0
    for i, code in enumerate(codes):
        number |= int(code) << (i * bits)
    return number.to_bytes((len(codes) * bits + 7) // 8, "little")


def byte_each(codes, bits):
    return b"".join(int(code).to_bytes((bits + 7) // 8, "little") for code in codes)


def first_on_top(codes, bits):
    number = 0
    for code in codes:
        number = number << bits | int(code)
    return number.to_bytes((len(codes) * bits + 7) // 8, "little")


def big_end(codes, bits):
    return pack_bits(codes, bits)[::-1]


def byte_too_many(codes, bits):
    return pack_bits(codes, bits) + (b"" if len(codes) * bits % 8 else b"\0")


def last_bits_lost(codes, bits):
    return pack_bits(codes, bits)[: len(codes) * bits // 8]


def as_a_number(codes, bits):
    return int.from_bytes(pack_bits(codes, bits), "little")


def as_a_list(codes, bits):
    return list(pack_bits(codes, bits))


def a_bit_apart(codes, bits):
    number = 0
    for i, code in enumerate(codes):
        number |= int(code) << i
    return number.to_bytes((len(codes) * bits + 7) // 8 + 2, "little")[: (len(codes) * bits + 7) // 8]


def highest_bits_first(codes, bits):
    size = (len(codes) * bits + 7) // 8
    text = "".join(format(code, f"0{bits}b") for code in codes).ljust(8 * size, "0")
    return int(text or "0", 2).to_bytes(size, "big")


def as_a_text(codes, bits):
    return "".join(format(code, f"0{bits}b") for code in codes)


def a_byte_apart(codes, bits):
    return sum(int(code) << (8 * i) for i, code in enumerate(codes)).to_bytes((len(codes) * bits + 7) // 8, "little")


def bytes_for_bits(codes, bits):
    return pack_bits(codes, bits).ljust(len(codes) * bits, b"\0")


def test_packing(fn, rng):
    for bits, n in ((5, 7), (3, 8), (1, 16), (11, 5), (8, 3), (4, 0)):
        codes = [int(code) for code in rng.integers(0, 2**bits, size=n)]
        if n:
            codes[0], codes[-1] = 2**bits - 1, 2 ** (bits - 1)
            codes[n // 2] = 0
        got, want = fn(list(codes), bits), pack_bits(codes, bits)
        tried = f"codes {codes} of {bits} bits"
        expect(isinstance(got, bytes | bytearray), True, f"{tried}: is the answer bytes")
        expect(len(got), len(want), f"{tried}: the number of bytes")
        expect(got.hex(), want.hex(), f"{tried}: the bytes in hexadecimal")


# --- 05.message_bytes ------------------------------------------------------------------------------------------------


def message_bytes(x):
    """x: (d,). Returns three whole numbers: dense, list, bitmap."""
    d, k = len(x), int(np.count_nonzero(x))
    return 4 * d, 8 * k, (d + 7) // 8 + 4 * k


def zeros_are_free(x):
    k = int(np.count_nonzero(x))
    return 4 * k, 8 * k, (len(x) + 7) // 8 + 4 * k


def no_positions(x):
    d, k = len(x), int(np.count_nonzero(x))
    return 4 * d, 4 * k, (d + 7) // 8 + 4 * k


def bits_for_bytes(x):
    d, k = len(x), int(np.count_nonzero(x))
    return 4 * d, 8 * k, d + 4 * k


def rounded_down(x):
    d, k = len(x), int(np.count_nonzero(x))
    return 4 * d, 8 * k, d // 8 + 4 * k


def short_positions(x):
    dense, _, bitmap = message_bytes(x)
    return dense, 6 * int(np.count_nonzero(x)), bitmap


def bitmap_alone(x):
    dense, listed, _ = message_bytes(x)
    return dense, listed, (len(x) + 7) // 8


def zeros_counted(x):
    d, k = len(x), int(np.sum(x == 0))
    return 4 * d, 8 * k, (d + 7) // 8 + 4 * k


def positive_ones(x):
    d, k = len(x), int(np.sum(x > 0))
    return 4 * d, 8 * k, (d + 7) // 8 + 4 * k


def doubles(x):
    d, k = len(x), int(np.count_nonzero(x))
    return 8 * d, 12 * k, (d + 7) // 8 + 8 * k


def bitmap_and_all(x):
    dense, listed, _ = message_bytes(x)
    return dense, listed, (len(x) + 7) // 8 + 4 * len(x)


def parts_of_a_byte(x):
    dense, listed, _ = message_bytes(x)
    return dense, listed, len(x) / 8 + 4 * int(np.count_nonzero(x))


def all_in_bits(x):
    dense, listed, _ = message_bytes(x)
    return 8 * dense, 8 * listed, len(x) + 4 * listed


def bitmap_second(x):
    dense, listed, bitmap = message_bytes(x)
    return dense, bitmap, listed


def everything_listed(x):
    return 4 * len(x), 8 * len(x), (len(x) + 7) // 8 + 4 * len(x)


def draw_sparse(rng):
    d = 8 * int(rng.integers(3, 9)) + int(rng.integers(1, 8))
    above, below = int(rng.integers(2, d // 4)), int(rng.integers(3, d // 4))      # more zeros than numbers of either sign
    signs = np.repeat([1.0, -1.0, 0.0], [above, below, d - above - below])
    return (rng.permutation(signs) * rng.uniform(0.1, 2, size=d).round(2),)


# --- 05.mean_of_submodels ---------------------------------------------------------------------------------------------


def mean_of_submodels(deltas, p):
    """deltas: (n, d), zero where a client does not hold the coordinate; p: (d,) in (0, 1]. Returns (d,)."""
    return np.sum(deltas, axis=0) / (len(deltas) * p)


def plain_mean(deltas, p):
    return np.mean(deltas, axis=0)


def times_p(deltas, p):
    return np.mean(deltas, axis=0) * p


def not_divided_by_n(deltas, p):
    return np.sum(deltas, axis=0) / p


def over_the_holders(deltas, p):
    return np.sum(deltas, axis=0) / np.maximum(1, np.count_nonzero(deltas, axis=0))


def other_axis(deltas, p):
    return np.mean(deltas, axis=1)


def divided_twice(deltas, p):
    return np.mean(deltas, axis=0) / p**2


def one_p_for_all(deltas, p):
    return np.mean(deltas, axis=0) / np.mean(p)


def root_of_p(deltas, p):
    return np.mean(deltas, axis=0) / np.sqrt(p)


def sum_only(deltas, p):
    return np.sum(deltas, axis=0)


def holders_and_p(deltas, p):
    return over_the_holders(deltas, p) / p


def not_added_up(deltas, p):
    return deltas / p


def sum_times_p(deltas, p):
    return np.sum(deltas, axis=0) * p


def divided_by_d(deltas, p):
    return np.sum(deltas, axis=0) / (deltas.shape[1] * p)


def draw_submodels(rng):
    p = rng.permutation([1.0, 0.5, 0.25, 0.4])         # of 7 clients never exactly 7·p: holders and expectation differ
    held = rng.random((7, 4)) < p
    held[0], held[1] = True, p == 1
    return rng.normal(size=(7, 4)) * held, p


# --- 05.fastest ------------------------------------------------------------------------------------------------------


def fastest(options, compute, mbit):
    """options: name -> (rounds or None, bytes a round); compute: seconds; mbit: > 0. Returns (name, seconds)."""
    seconds = {
        name: rounds * (compute + 8 * nbytes / (mbit * 1e6))
        for name, (rounds, nbytes) in options.items()
        if rounds is not None
    }
    best = min(seconds, key=lambda name: seconds[name])
    return best, seconds[best]


def fewest_bytes(options, compute, mbit):
    able = {name: option for name, option in options.items() if option[0] is not None}
    best = min(able, key=lambda name: able[name][0] * able[name][1])
    return best, able[best][0] * (compute + 8 * able[best][1] / (mbit * 1e6))


def fewest_rounds(options, compute, mbit):
    able = {name: option for name, option in options.items() if option[0] is not None}
    best = min(able, key=lambda name: able[name][0])
    return best, able[best][0] * (compute + 8 * able[best][1] / (mbit * 1e6))


def bytes_as_bits(options, compute, mbit):
    return fastest(options, compute, mbit * 8)


def megabytes(options, compute, mbit):
    return fastest(options, compute, mbit * 1.048576)


def name_only(options, compute, mbit):
    return fastest(options, compute, mbit)[0]


def seconds_first(options, compute, mbit):
    return fastest(options, compute, mbit)[::-1]


def first_word(options, compute, mbit):
    name, seconds = fastest(options, compute, mbit)
    return name.split()[0], seconds


def its_number(options, compute, mbit):
    name, seconds = fastest(options, compute, mbit)
    return list(options).index(name), seconds


def never_forgotten(options, compute, mbit):
    return min((rounds * (compute + 8 * nbytes / (mbit * 1e6)), name) for name, (rounds, nbytes) in options.items())


def never_is_at_once(options, compute, mbit):
    return fastest({name: (rounds or 0, nbytes) for name, (rounds, nbytes) in options.items()}, compute, mbit)


def one_round(options, compute, mbit):
    name, seconds = fastest(options, compute, mbit)
    return name, seconds / options[name][0]


def compute_once(options, compute, mbit):
    seconds = {n: compute + r * 8 * b / (mbit * 1e6) for n, (r, b) in options.items() if r is not None}
    best = min(seconds, key=lambda name: seconds[name])
    return best, seconds[best]


def upload_once(options, compute, mbit):
    seconds = {name: r * compute + 8 * b / (mbit * 1e6) for name, (r, b) in options.items() if r is not None}
    best = min(seconds, key=lambda name: seconds[name])
    return best, seconds[best]


def no_compute(options, compute, mbit):
    seconds = {name: r * 8 * b / (mbit * 1e6) for name, (r, b) in options.items() if r is not None}
    best = min(seconds, key=lambda name: seconds[name])
    return best, seconds[best]


def seconds_alone(options, compute, mbit):
    return fastest(options, compute, mbit)[1]


def fastest_round(options, compute, mbit):
    seconds = {name: compute + 8 * b / (mbit * 1e6) for name, (r, b) in options.items() if r is not None}
    best = min(seconds, key=lambda name: seconds[name])
    return best, seconds[best]


def not_a_million(options, compute, mbit):
    seconds = {name: r * (compute + 8 * b / mbit) for name, (r, b) in options.items() if r is not None}
    best = min(seconds, key=lambda name: seconds[name])
    return best, seconds[best]


def test_fastest(fn, rng):
    for _ in range(4):
        size = int(rng.integers(200_000, 400_000))
        options = {
            "float32": (10, 4 * size), "8 bits": (11, size), "4 bits": (15, size // 2), "top 1 %": (80, size // 20),
            "1 number": (None, 8),
        }  # fmt: skip
        for compute, mbit in ((float(rng.uniform(5, 9)), 1.0), (20.0, 100.0), (0.01, 0.5)):
            got, want = fn(dict(options), compute, mbit), fastest(options, compute, mbit)
            tried = f"{options}, {compute:.3g} s of computing, {mbit} Mbit/s"
            pair = isinstance(got, (tuple, list)) and len(got) == 2
            expect(pair, True, f"{tried}: is the answer a pair (name, seconds)")
            expect(got[0], want[0], f"{tried}: the fastest")
            expect(got[1], want[1], f"{tried}: its seconds")


EXERCISES = (
    Exercise(
        name="05.top_k",
        title="Top-k",
        difficulty=1,
        minutes=5,
        test=test_top_k,
        hints=(
            "Large negative numbers count as well: look at `np.abs(x)`.",
            "`np.argsort(-np.abs(x))` lists the positions, largest magnitude first.",
            "Take the first k, sort them, and return them with `x` at these positions.",
        ),
        solution=top_k,
        mistakes=(
            Mistake(largest_values, "A change of -9 is larger than one of 2: sort by magnitude, `np.abs(x)`."),
            Mistake(in_order_of_size, "Right entries, but the positions must rise (small gaps are cheap to write): sort them."),
            Mistake(smallest, "These are the smallest magnitudes. `np.argsort` sorts upwards."),
            Mistake(minus_zero, "For k = 0 the slice `[-0:]` is everything: nothing would be compressed. Count from the front."),
            Mistake(magnitudes, "The values lose their signs: return `x[positions]`."),
            Mistake(values_first, "The positions come first, then the values."),
            Mistake(zeros_kept, "The zeros are still in the values: return the k numbers alone, `x[positions]`."),
            Mistake(one_more, "One entry too many: `[:k]`."),
            Mistake(sorted_apart, "You sort the positions but not the values with them: take `x[positions]` after sorting."),
            Mistake(counted_from_one, "Positions count from 0, as NumPy does."),
            Mistake(unsorted_from_the_end, "The positions must rise; and the slice `[-0:]` is everything."),
            Mistake(lowest_values, "These are the lowest values. Magnitudes count, the largest first: `-np.abs(x)`."),
            Mistake(positions_alone, "The values are asked for, too: return (positions, values)."),
            Mistake(values_alone, "Nobody knows where these belong: return (positions, values)."),
            Mistake(values_sorted, "Sort the positions only: each value stands where its position does."),
            Mistake(first_k, "These are the first k entries, whatever is in them: look for the largest magnitudes."),
        ),
    ),
    Exercise(
        name="05.error_feedback",
        title="The residual",
        difficulty=2,
        minutes=10,
        test=test_feedback,
        hints=(
            "What does the client mean to say this time? Its delta, and what it still owes.",
            "Compress the sum of both.",
            "The new residual is what was meant minus what was sent.",
        ),
        solution=error_feedback,
        mistakes=(
            Mistake(forgets_the_past, "The old residual is dropped: what was not sent last time is lost for good."),
            Mistake(adds_too_late, "The residual only grows and is never sent: add it *before* compressing."),
            Mistake(residual_of_delta, "The old residual is sent but not settled: subtract what was sent from delta + residual."),
            Mistake(wrong_sign, "The residual has the wrong sign: meant - sent, so that sent + residual = meant."),
            Mistake(residual_first, "What is sent comes first, then the new residual."),
            Mistake(compressed_apart, "The residual is sent as it is, uncompressed. Add it before `compress`."),
            Mistake(nothing_settled, "What was sent must come off: else it is sent again in the next round."),
            Mistake(starts_afresh, "The new residual is not zero: what `compress` left out is still owed."),
            Mistake(old_residual_kept, "The residual is never brought up to date: it is meant - sent."),
            Mistake(subtracts_the_debt, "What is owed is added to the delta, not subtracted."),
            Mistake(two_parcels, "Compress the sum once, not each part: two compressed vectors are twice the message."),
            Mistake(sent_alone, "The new residual is asked for, too: return (sent, residual)."),
            Mistake(not_compressed, "You send all that was meant. Send `compress` of it."),
        ),
    ),
    Exercise(
        name="05.unbiased_rounding",
        title="Dice that are right on average",
        difficulty=2,
        minutes=15,
        test=test_rounding,
        hints=(
            "The grid point below x is step·floor(x / step).",
            "How far above it, as a share of a step? That is the probability of going up.",
            "`np.floor(x / step) + (dice < share)`, times step.",
        ),
        solution=unbiased_rounding,
        mistakes=(
            Mistake(nearest, "Nearest rounding ignores the dice: 0.2 steps become 0 at every client, and the mean with them."),
            Mistake(coin, "A fair coin is right only in the middle between two grid points: the share decides the probability."),
            Mistake(towards_zero, "For negative numbers `trunc` is the grid point *above*: use `np.floor`."),
            Mistake(other_way, "You go up where you should go down: the nearer to the upper point, the more likely up."),
            Mistake(grid_numbers, "These are the numbers of the grid points. Multiply by step to get values."),
            Mistake(numbers_by_dice, "Nearly: these are the numbers of the grid points. Times `step`."),
            Mistake(cut_off, "`int` and `trunc` cut towards zero, which is up for negative numbers: `np.floor`."),
            Mistake(whole_by_dice, "This rounds to whole numbers: divide by `step` first, and multiply at the end."),
            Mistake(one_up, "Up is one *step*, not 1: the brackets around lower + up are missing."),
            Mistake(dice_divided, "The dice are shares of a step already: add them after dividing x by `step`."),
            Mistake(up_with_dice, "`ceil(y + dice)` is a step too high on average. `floor(y + dice)` would be right."),
            Mistake(always_down, "Always down: the mean is half a step too small. Let the dice decide."),
            Mistake(always_up, "Always up: the mean is half a step too large. Let the dice decide."),
            Mistake(share_in_units, "The probability is the distance as a share of a *step*: divide by `step`."),
            Mistake(
                rounded_after_dice,
                "`round(y + dice)` is half a step too high on average. `floor(y + dice)` would be right.",
            ),
            Mistake(step_forgotten, "You round to whole numbers: the grid has the width `step`."),
            Mistake(one_die, "Every entry has its own die: compare entry by entry, not all with `dice[0]`."),
            Mistake(coin_times_share, "These are the entries with noise on top, not multiples of `step`: round up or down."),
        ),
    ),
    Exercise(
        name="05.pack_bits",
        title="Pack the bits",
        difficulty=3,
        minutes=20,
        test=test_packing,
        hints=(
            "Think of one long number that holds all codes, the first in its lowest bits.",
            "Code i is shifted left by i·bits.",
            "The length is (len(codes)·bits + 7) // 8 bytes, little end first.",
        ),
        solution=pack_bits,
        mistakes=(
            Mistake(byte_each, "A code of 3 bits takes a whole byte here, so nothing is saved. Let codes share bytes."),
            Mistake(first_on_top, "The *last* code is in the lowest bits. The first one belongs there: shift code i by i·bits."),
            Mistake(big_end, "The bytes are in reverse: the lowest bits come first, `\"little\"`."),
            Mistake(byte_too_many, "A byte too many when the bits fill the last byte exactly: round up with (bits + 7) // 8."),
            Mistake(last_bits_lost, "The last bits need a byte, too: round up, (len(codes)·bits + 7) // 8."),
            Mistake(as_a_number, "That is the long number. Write it as bytes: `number.to_bytes(length, 'little')`."),
            Mistake(as_a_list, "These are the bytes as a list of numbers: return `bytes`."),
            Mistake(a_bit_apart, "The codes overlap: code i is shifted by i·bits, not by i."),
            Mistake(
                highest_bits_first,
                "Your first code is in the *highest* bits of the first byte. It belongs in the lowest: shift code i by i·bits.",
            ),
            Mistake(as_a_text, "That is a text of digits, a byte each. Make one long number of the codes, and bytes of it."),
            Mistake(a_byte_apart, "The number does not fit: shift code i by i·bits, not more, and round the length up."),
            Mistake(bytes_for_bits, "len(codes)·bits are *bits*: an eighth of that in bytes, rounded up."),
        ),
    ),
    Exercise(
        name="05.message_bytes",
        title="Why zeroing entries saves no byte",
        difficulty=1,
        minutes=5,
        test=agrees_with(message_bytes, draw_sparse),
        hints=(
            "A dense message does not look at the values.",
            "`np.count_nonzero(x)` entries are listed, eight bytes each.",
            "d bits are (d + 7) // 8 whole bytes.",
        ),
        solution=message_bytes,
        mistakes=(
            Mistake(zeros_are_free, "A float32 zero takes four bytes like every number: 4·d, whatever is in it."),
            Mistake(no_positions, "The receiver must know *where* the listed values belong: four more bytes each."),
            Mistake(bits_for_bytes, "The bitmap has d *bits*: an eighth of that in bytes."),
            Mistake(rounded_down, "The last bits need a byte, too: round up, (d + 7) // 8."),
            Mistake(short_positions, "The lesson's positions had two bytes; here each has four."),
            Mistake(bitmap_alone, "The bitmap only says where. The values follow it, four bytes each."),
            Mistake(zeros_counted, "You count the zeros. Listed are the entries that are *not* zero."),
            Mistake(positive_ones, "Negative entries are not zero either: `np.count_nonzero`."),
            Mistake(doubles, "A value takes four bytes on the wire, not the eight of NumPy's float64."),
            Mistake(parts_of_a_byte, "There are no parts of a byte: round up, (d + 7) // 8."),
            Mistake(all_in_bits, "These are bits. Bytes are asked for."),
            Mistake(bitmap_second, "The order is dense, list, bitmap."),
            Mistake(everything_listed, "List and bitmap leave the zeros out: count the entries that are not zero."),
            Mistake(bitmap_and_all, "After the bitmap only the entries follow that are not zero."),
        ),
    ),
    Exercise(
        name="05.mean_of_submodels",
        title="Sub-models: who holds a coordinate?",
        difficulty=3,
        minutes=15,
        test=agrees_with(mean_of_submodels, draw_submodels),
        hints=(
            "Of n clients about n·p hold a coordinate; the others send zero.",
            "So the plain mean is p times too small, on average.",
            "Divide the sum by n·p.",
        ),
        solution=mean_of_submodels,
        mistakes=(
            Mistake(plain_mean, "The zeros of those who do not hold it pull the mean down to p times its value. Undo that."),
            Mistake(times_p, "Wrong way round: the mean is already p times too small. Divide by p."),
            Mistake(not_divided_by_n, "That estimates the *sum* of all clients. Divide by their number as well."),
            Mistake(over_the_holders, "The mean over the holders is sensible too, but needs a count for each coordinate, which a "
                    "sum under masks does not give. Use the known p."),
            Mistake(other_axis, "You average over the coordinates. The clients are the rows: `axis=0`."),
            Mistake(divided_twice, "Divided by p twice: of n clients about n·p hold a coordinate."),
            Mistake(one_p_for_all, "Each coordinate has its own p: divide by `p` entry by entry."),
            Mistake(root_of_p, "√p belongs to standard deviations. A mean shrinks by p."),
            Mistake(sum_only, "That is the sum of those who hold it. Divide it by how many do on average, n·p."),
            Mistake(not_added_up, "That is one row a client. Their mean is asked for, (d,)."),
            Mistake(sum_times_p, "Not times p, divided by it; and by the number of clients."),
            Mistake(divided_by_d, "n is the number of clients, `len(deltas)`, not the number of coordinates."),
            Mistake(holders_and_p, "The mean over the holders needs no p: you correct twice. Divide the *sum* by n·p."),
        ),
    ),
    Exercise(
        name="05.fastest",
        title="Choose for a 1 Mbit/s uplink",
        difficulty=2,
        minutes=15,
        test=test_fastest,
        hints=(
            "A round takes compute + bits / (bits a second).",
            "A byte has 8 bits, a megabit 10^6.",
            "Seconds = rounds · (compute + 8·bytes / (mbit·1e6)); leave out options without rounds; take the smallest.",
        ),
        solution=fastest,
        mistakes=(
            Mistake(fewest_bytes, "The fewest bytes are not the shortest time: rounds cost computing time as well."),
            Mistake(fewest_rounds, "The fewest rounds are not the shortest time: a round takes as long as its upload."),
            Mistake(bytes_as_bits, "A byte has 8 bits: the upload takes eight times as long."),
            Mistake(megabytes, "A megabit is 10^6 bits, as networks are sold, not 2^20."),
            Mistake(compute_once, "Every round has its computing time."),
            Mistake(name_only, "Right choice, but its seconds are asked for as well: return (name, seconds)."),
            Mistake(seconds_first, "The name comes first, then the seconds."),
            Mistake(first_word, "Right choice, but say the option's name as it stands in `options`, all of it."),
            Mistake(its_number, "Right choice, but its name is asked for, not its place in the list."),
            Mistake(never_forgotten, "`None` cannot be multiplied: leave options out that never get there."),
            Mistake(never_is_at_once, "An option without rounds never gets there; you let it win with 0 rounds. Leave it out."),
            Mistake(upload_once, "Every round has its upload."),
            Mistake(no_compute, "A round takes its computing time as well, before the upload."),
            Mistake(seconds_alone, "The name is asked for as well: return (name, seconds)."),
            Mistake(fastest_round, "That is the option with the shortest round. Multiply by the rounds before you choose."),
            Mistake(not_a_million, "A megabit is a million bits: divide by mbit·1e6."),
            Mistake(one_round, "These are the seconds of one round: multiply by the rounds."),
        ),
    ),
)  # fmt: skip
