# %% [markdown]
# # Exercises 3 · Differential privacy
#
# Eight functions, from one line to twenty minutes. Write each in its cell; the cell below it answers at once, offline, on
# fresh random inputs. Stuck? `hint("03.clip_update")` gives one step more at each call, three steps; `reveal(…)`, called twice,
# shows a solution. No exercise needs the answer of another.

# %%
import math

import numpy as np
from scipy.stats import beta, norm

from fl_course.privacy.auditing import check_noise
from fl_course.workbook import check, hint, progress, reveal

# %% exercise 03.clip_update [markdown]
# Scale an update down so that its L2 norm is at most `bound`. Shorter ones stay as
# they are, and the argument must not change.

# %% exercise 03.laplace_scale [markdown]
# Updates of d coordinates are clipped to *L2* norm `bound`, and somebody wants
# Laplace noise on their sum. Which scale b keeps (ε, 0) for one client in or out, whatever the clients send? (The lesson, "Which
# norm?": Laplace noise needs the L1 sensitivity, b = S₁/ε.)

# %% exercise 03.gaussian_sigma [markdown]
# The smallest σ for which Gaussian noise is (ε, δ)-private at sensitivity 1, by halving, for the exact condition of Balle & Wang
# (2018): with $\mu = 1/\sigma$,
#
# $$\delta = \Phi\left(\frac{\mu}{2} - \frac{\varepsilon}{\mu}\right) - e^{\varepsilon}\, \Phi\left(-\frac{\mu}{2} - \frac{\varepsilon}{\mu}\right).$$
#
# The textbook formula is not it. `norm.cdf` is Φ. A σ between 0.001 and 1,000 will do; at least six digits must be right.

# %% exercise 03.private_mean [markdown]
# A colleague wrote the heart of DP-FedAvg. It trains, and its noise is what it claims to be. Still one client can do what no ε
# allows: the noise is too small for that, by the size of the round. (Our own rewrite; Tramèr et al., arXiv:2202.12219, found noise
# that was too small by the batch size in published code.) Two oracles are handed out: `check_noise` of the lesson, fed with zeros, and `influence`, which lets one client shout and measures how far the
# *sum* moves, in clip bounds. Run them, find what is wrong, and write the round right; then its
# influence is 1. Draw the noise with one call, `rng.normal(size=d)`.

# %% tags=["given"]
def careless_mean(updates, bound, z, m, rng):
    mean = updates.sum(axis=0) / m                       # those who came, by the planned m
    mean = mean * min(1.0, bound / max(np.linalg.norm(mean), 1e-12))
    return mean + z * bound / m * rng.normal(size=mean.shape)


def influence(mean_of, n=50, d=20, bound=1.0):
    """How far one client who shouts moves the sum, in clip bounds; 1 is what the noise is made for."""
    rng = np.random.default_rng(0)
    others = rng.normal(size=(n, d)) / 10
    shout = 1000 * np.ones((1, d))
    there = mean_of(np.vstack([others, shout]), bound, 0.0, n, rng)
    gone = mean_of(others, bound, 0.0, n, rng)
    return n * np.linalg.norm(there - gone) / bound


rng = np.random.default_rng(1)
silence = [50 * careless_mean(np.zeros((50, 20_000)), 1.0, 1.0, 50, rng) for _ in range(3)]
print("noise: ", check_noise(silence, claimed_deviation=1.0))
print(f"influence of one client: {influence(careless_mean):.1f} clip bounds")

# %% exercise 03.composed_epsilon [markdown]
# The ε of Gaussian rounds with noise multipliers $z_1, z_2, …, z_T$, which may differ, without sampling: by Rényi DP in three lines
# as in the lesson, for the orders 2, 3, …, 199 and with the conversion $\rho(\alpha) + \ln(1/\delta)/(\alpha - 1)$ of Mironov (2017).

# %% exercise 03.amplified [markdown]
# A mechanism is ε-private (δ = 0). Now each client takes part only by its own secret coin of probability q. What is its ε?

# %% exercise 03.audited_epsilon [markdown]
# An attacker says "the canary was in". In `trials` runs with the canary he says so
# `hits` times, in `trials` runs without it `alarms` times. The definition demands
# $P[\text{hit}] \leq e^{\varepsilon} P[\text{alarm}] + \delta$. Which ε is proved at least, with a two-sided 95 % Clopper–Pearson
# interval (2.5 % on either side) for each rate? Its ends for k of n are `beta.ppf(0.025, k, n - k + 1)`, or 0 for k = 0, and
# `beta.ppf(0.975, k + 1, n - k)`, or 1 for k = n. If nothing is proved, the answer is 0. Then, not
# checked, try it on a mechanism of your own with half its noise.

# %% exercise 03.whole_promise [markdown]
# A program spends "ε = 1, δ = 1e-5" in every round and prints "ε = 1" at the end. What does basic composition say?

# %% [markdown]
# ## How far have you come?

# %%
progress()
