# %% [markdown]
# # Exercises 5 · Compression
#
# Seven functions, from five to twenty minutes. Write each in its cell; the cell below it answers at once, offline, on fresh
# random inputs. Stuck? `hint("05.top_k")` gives one step more at each call, three steps; `reveal(…)` shows a solution. No
# exercise needs the answer of another. A function leaves its arguments as they are: work on a copy.

# %%
import numpy as np

from fl_course.workbook import check, hint, progress, reveal

# %% exercise 05.top_k [markdown]
# The positions and the values of the k entries of largest *magnitude*, positions rising. k may be 0.

# %% exercise 05.error_feedback [markdown]
# One round of error feedback at a client: what is sent, and what is left for next time.
# `compress` is any function from (d,) to (d,).

# %% exercise 05.unbiased_rounding [markdown]
# Round every entry to a multiple of `step`, up or down at random, so that its mean is the entry
# itself. `dice` holds one uniform random number in [0, 1) for each entry: go up where it is *below* the probability of going up.
# (The lesson's `floor(y + dice)` goes up where it is high, with the same probability. That is as right, and passes.)

# %% exercise 05.pack_bits [markdown]
# Codes of b bits each, nothing wasted between them: the first code in the lowest bits of the first
# byte. `int.to_bytes(length, "little")` helps.

# %% exercise 05.message_bytes [markdown]
# A message of a vector with zeros in it can be written in three ways: *dense*, four bytes for each of the
# d entries, zero or not; *list*, four bytes for each entry that is not zero and four for its position; *bitmap*, one bit for each of the
# d entries and four bytes for each that is not zero. How many whole bytes does each take?

# %% exercise 05.mean_of_submodels [markdown]
# In federated dropout each client holds each coordinate with the same known probability p and sends its
# delta there, zeros elsewhere. Estimate the mean delta of *all* clients so that it is right on average, whoever holds what.

# %% exercise 05.fastest [markdown]
# You know, for each compressor, how many rounds it needs to the target and how many bytes a client sends
# up a round. A round takes `compute` seconds, then the upload at `mbit` megabits (10^6 bits) a second. Which compressor is there first,
# and after how many seconds? Answer with its name as it stands in `options`, and the seconds. `None` rounds: it never gets there.

# %% [markdown]
# ## How far have you come?

# %%
progress()
