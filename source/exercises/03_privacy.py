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

# %% [markdown] tags=["exercise"]
# ## 3.1 Clip
# *Difficulty 1 of 5 · 5 minutes.* Scale an update down so that its L2 norm is at most `bound`. Shorter ones stay as
# they are, and the argument must not change.

# %% tags=["exercise"]
def clip_update(update, bound):
    """update: (d,); bound: the largest L2 norm allowed. Returns the clipped update (d,)."""
    ### BEGIN SOLUTION
    length = np.linalg.norm(update)
    return update * min(1.0, bound / length) if length > 0 else update.copy()
    ### END SOLUTION

# %% tags=["check"]
check("03.clip_update", clip_update)

# %% [markdown] tags=["exercise"]
# ## 3.2 Laplace noise for an L2 clip
# *Difficulty 2 of 5 · 10 minutes.* Updates of d coordinates are clipped to *L2* norm `bound`, and somebody wants
# Laplace noise on their sum. Which scale b keeps pure epsilon, whatever the clients send?

# %% tags=["exercise"]
def laplace_scale(epsilon, bound, d):
    """Returns the scale b of the noise on each coordinate of the sum."""
    ### BEGIN SOLUTION
    return math.sqrt(d) * bound / epsilon
    ### END SOLUTION

# %% tags=["check"]
check("03.laplace_scale", laplace_scale)

# %% [markdown] tags=["exercise"]
# ## 3.3 The exact Gaussian mechanism
# *Difficulty 3 of 5 · 20 minutes.* The smallest sigma for which Gaussian noise is (epsilon, delta)-private at
# sensitivity 1, by bisection on the exact condition (Balle & Wang 2018). The classic formula is not it. `norm.cdf` is
# Φ.

# %% tags=["exercise"]
def gaussian_sigma(epsilon, delta):
    """Returns the smallest sigma that keeps (epsilon, delta), for every epsilon > 0."""
    ### BEGIN SOLUTION
    def delivered(sigma):
        mu = 1 / sigma
        return norm.cdf(mu / 2 - epsilon / mu) - math.exp(epsilon) * norm.cdf(-mu / 2 - epsilon / mu)

    low, high = 1e-3, 1e3
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (low, middle) if delivered(middle) <= delta else (middle, high)
    return high
    ### END SOLUTION

# %% tags=["check"]
check("03.gaussian_sigma", gaussian_sigma)

# %% [markdown] tags=["exercise"]
# ## 3.4 Clip, add up, noise, divide: the order
# *Difficulty 2 of 5 · 15 minutes.* The heart of DP-FedAvg. Draw the noise with one call, `rng.normal(size=d)`.

# %% tags=["exercise"]
def private_mean(updates, bound, z, m, rng):
    """updates: (n, d), those who came; m: the planned cohort; noise of deviation z·bound on the sum. Returns (d,)."""
    ### BEGIN SOLUTION
    total = np.zeros(updates.shape[1])
    for update in updates:
        total += update * min(1.0, bound / np.linalg.norm(update))
    total += z * bound * rng.normal(size=total.shape)
    return total / m
    ### END SOLUTION

# %% tags=["check"]
check("03.private_mean", private_mean)

# %% [markdown] tags=["exercise"]
# ## 3.5 Many rounds, by Rényi
# *Difficulty 3 of 5 · 20 minutes.* The epsilon of `rounds` Gaussian rounds of noise multiplier z, without sampling, by
# Rényi DP: orders 2, 3, …, 199 and the conversion of Mironov (2017).

# %% tags=["exercise"]
def composed_epsilon(z, rounds, delta):
    """Returns the smallest epsilon at this delta that the integer orders 2 … 199 can prove."""
    ### BEGIN SOLUTION
    orders = np.arange(2, 200)
    rdp = rounds * orders / (2 * z**2)
    return float(np.min(rdp + np.log(1 / delta) / (orders - 1)))
    ### END SOLUTION

# %% tags=["check"]
check("03.composed_epsilon", composed_epsilon)

# %% [markdown] tags=["exercise"]
# ## 3.6 Hidden in the crowd
# *Difficulty 1 of 5 · 5 minutes.* A mechanism is epsilon-private (delta = 0). Now each client takes part only by its
# own secret coin of probability q. What is its epsilon?

# %% tags=["exercise"]
def amplified(epsilon, q):
    """Returns the amplified epsilon."""
    ### BEGIN SOLUTION
    return math.log(1 + q * (math.exp(epsilon) - 1))
    ### END SOLUTION

# %% tags=["check"]
check("03.amplified", amplified)

# %% [markdown] tags=["exercise"]
# ## 3.7 Audit a mechanism
# *Difficulty 3 of 5 · 20 minutes.* An attacker says "the canary was in". In `trials` runs with the canary he says so
# `hits` times, in `trials` runs without it `alarms` times. What epsilon is proved at least, with two-sided 95 %
# Clopper-Pearson intervals for each rate? Then try it on a mechanism of your own with half its noise.

# %% tags=["exercise"]
def audited_epsilon(hits, alarms, trials, delta):
    """Returns a lower bound on epsilon, 0 or more."""
    ### BEGIN SOLUTION
    hit = beta.ppf(0.025, hits, trials - hits + 1)              # Clopper-Pearson: at least this, at most that
    alarm = beta.ppf(0.975, alarms + 1, trials - alarms)
    return max(math.log((hit - delta) / alarm), 0.0) if hit > delta else 0.0
    ### END SOLUTION

# %% tags=["check"]
check("03.audited_epsilon", audited_epsilon)

# %% [markdown] tags=["exercise"]
# ## 3.8 What 'epsilon = 1 a round' adds up to
# *Difficulty 1 of 5 · 5 minutes.* The design that this course grew out of spends "epsilon = 1" in every round and
# prints "epsilon = 1" at the end. What does basic composition say?

# %% tags=["exercise"]
def whole_promise(epsilon, delta, rounds):
    """A round keeps (epsilon, delta). Returns the pair that `rounds` rounds keep by basic composition."""
    ### BEGIN SOLUTION
    return rounds * epsilon, rounds * delta
    ### END SOLUTION

# %% tags=["check"]
check("03.whole_promise", whole_promise)

# %% [markdown]
# ## How far have you come?

# %%
progress()
