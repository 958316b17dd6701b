# %% [markdown]
# # Exercises 5 · Compression
#
# Seven functions, from five to twenty minutes. Write each in its cell; the cell below it answers at once, offline, on fresh
# random inputs. Stuck? `hint("05.top_k")` gives one step more at each call, three steps; `reveal(…)` shows a solution. No
# exercise needs the answer of another.

# %%
import numpy as np

from fl_course.workbook import check, hint, progress, reveal

# %% [markdown] tags=["exercise"]
# ## 5.1 Top-k
# *Difficulty 1 of 5 · 5 minutes.* The positions and the values of the k entries of largest *magnitude*, positions rising. k may be 0.

# %% tags=["exercise"]
def top_k(x, k):
    """x: (d,), no two magnitudes equal; 0 <= k <= d. Returns positions (k,) rising and values (k,)."""
    ### BEGIN SOLUTION
    order = np.argsort(-np.abs(x))
    positions = np.sort(order[:k])
    return positions, x[positions]
    ### END SOLUTION

# %% tags=["check"]
check("05.top_k", top_k)

# %% [markdown] tags=["exercise"]
# ## 5.2 The residual
# *Difficulty 2 of 5 · 10 minutes.* One round of error feedback at a client: what is sent, and what is left for next time.
# `compress` is any function from (d,) to (d,).

# %% tags=["exercise"]
def error_feedback(delta, residual, compress):
    """delta, residual: (d,). Returns what is sent (d,) and the new residual (d,)."""
    ### BEGIN SOLUTION
    meant = delta + residual
    sent = compress(meant)
    return sent, meant - sent
    ### END SOLUTION

# %% tags=["check"]
check("05.error_feedback", error_feedback)

# %% [markdown] tags=["exercise"]
# ## 5.3 Dice that are right on average
# *Difficulty 2 of 5 · 15 minutes.* Round every entry to a multiple of `step`, up or down at random, so that its mean is the entry
# itself. `dice` holds one uniform random number in [0, 1) for each entry: go up where it is *below* the probability of going up.

# %% tags=["exercise"]
def unbiased_rounding(x, step, dice):
    """x, dice: (d,); step > 0. Returns multiples of step (d,)."""
    ### BEGIN SOLUTION
    lower = np.floor(x / step)
    up = dice < x / step - lower
    return step * (lower + up)
    ### END SOLUTION

# %% tags=["check"]
check("05.unbiased_rounding", unbiased_rounding)

# %% [markdown] tags=["exercise"]
# ## 5.4 Pack the bits
# *Difficulty 3 of 5 · 20 minutes.* Codes of b bits each, nothing wasted between them: the first code in the lowest bits of the first
# byte. `int.to_bytes(length, "little")` helps.

# %% tags=["exercise"]
def pack_bits(codes, bits):
    """codes: a list of whole numbers from 0 to 2**bits - 1. Returns bytes, ceil(len(codes)·bits / 8) of them."""
    ### BEGIN SOLUTION
    number = 0
    for i, code in enumerate(codes):
        number |= int(code) << (i * bits)
    return number.to_bytes((len(codes) * bits + 7) // 8, "little")
    ### END SOLUTION

# %% tags=["check"]
check("05.pack_bits", pack_bits)

# %% [markdown] tags=["exercise"]
# ## 5.5 Why zeroing entries saves no byte
# *Difficulty 1 of 5 · 5 minutes.* A message of a vector with zeros in it can be written in three ways: *dense*, four bytes for each of the
# d entries, zero or not; *list*, four bytes for each entry that is not zero and four for its position; *bitmap*, one bit for each of the
# d entries and four bytes for each that is not zero. How many whole bytes does each take?

# %% tags=["exercise"]
def message_bytes(x):
    """x: (d,). Returns three whole numbers: dense, list, bitmap."""
    ### BEGIN SOLUTION
    d, k = len(x), int(np.count_nonzero(x))
    return 4 * d, 8 * k, (d + 7) // 8 + 4 * k
    ### END SOLUTION

# %% tags=["check"]
check("05.message_bytes", message_bytes)

# %% [markdown] tags=["exercise"]
# ## 5.6 Sub-models: who holds a coordinate?
# *Difficulty 3 of 5 · 15 minutes.* In federated dropout each client holds each coordinate with the same known probability p and sends its
# delta there, zeros elsewhere. Estimate the mean delta of *all* clients so that it is right on average, whoever holds what.

# %% tags=["exercise"]
def mean_of_submodels(deltas, p):
    """deltas: (n, d), zero where a client does not hold the coordinate; p: (d,) in (0, 1]. Returns (d,)."""
    ### BEGIN SOLUTION
    return np.sum(deltas, axis=0) / (len(deltas) * p)
    ### END SOLUTION

# %% tags=["check"]
check("05.mean_of_submodels", mean_of_submodels)

# %% [markdown] tags=["exercise"]
# ## 5.7 Choose for a 1 Mbit/s uplink
# *Difficulty 2 of 5 · 15 minutes.* You know, for each compressor, how many rounds it needs to the target and how many bytes a client sends
# up a round. A round takes `compute` seconds, then the upload at `mbit` megabits (10^6 bits) a second. Which compressor is there first,
# and after how many seconds? `None` rounds: it never gets there.

# %% tags=["exercise"]
def fastest(options, compute, mbit):
    """options: name -> (rounds or None, bytes a round); compute: seconds; mbit: > 0. Returns (name, seconds)."""
    ### BEGIN SOLUTION
    seconds = {
        name: rounds * (compute + 8 * nbytes / (mbit * 1e6))
        for name, (rounds, nbytes) in options.items()
        if rounds is not None
    }
    best = min(seconds, key=lambda name: seconds[name])
    return best, seconds[best]
    ### END SOLUTION

# %% tags=["check"]
check("05.fastest", fastest)

# %% [markdown]
# ## How far have you come?

# %%
progress()
