# %% [markdown]
# # Exercises 3 · Differential privacy
#
# Eight functions, from one line to twenty minutes. Write each in its cell; the cell below it answers at once, offline, on
# fresh random inputs. Stuck? `hint("03.clip_update")` gives one step more at each call, three steps; `reveal(…)` shows a
# solution. No exercise needs the answer of another.

# %%
import math

import numpy as np
from scipy.stats import beta, norm

from fl_course.workbook import check, hint, progress, reveal

# %% exercise 03.clip_update [markdown]
# Scale an update down so that its L2 norm is at most `bound`. Shorter ones stay as
# they are, and the argument must not change.

# %% exercise 03.laplace_scale [markdown]
# Updates of d coordinates are clipped to *L2* norm `bound`, and somebody wants
# Laplace noise on their sum. Which scale b keeps pure epsilon, whatever the clients send?

# %% exercise 03.gaussian_sigma [markdown]
# The smallest sigma for which Gaussian noise is (epsilon, delta)-private at
# sensitivity 1, by bisection on the exact condition (Balle & Wang 2018). The classic formula is not it. `norm.cdf` is
# Φ.

# %% exercise 03.private_mean [markdown]
# The heart of DP-FedAvg. Draw the noise with one call, `rng.normal(size=d)`.

# %% exercise 03.composed_epsilon [markdown]
# The epsilon of `rounds` Gaussian rounds of noise multiplier z, without sampling, by
# Rényi DP: orders 2, 3, …, 199 and the conversion of Mironov (2017).

# %% exercise 03.amplified [markdown]
# A mechanism is epsilon-private (delta = 0). Now each client takes part only by its
# own secret coin of probability q. What is its epsilon?

# %% exercise 03.audited_epsilon [markdown]
# An attacker says "the canary was in". In `trials` runs with the canary he says so
# `hits` times, in `trials` runs without it `alarms` times. What epsilon is proved at least, with two-sided 95 %
# Clopper-Pearson intervals for each rate? Then try it on a mechanism of your own with half its noise.

# %% exercise 03.whole_promise [markdown]
# The design that this course grew out of spends "epsilon = 1" in every round and
# prints "epsilon = 1" at the end. What does basic composition say?

# %% [markdown]
# ## How far have you come?

# %%
progress()
