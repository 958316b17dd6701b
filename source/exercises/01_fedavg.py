# %% [markdown]
# # Exercises 1 · Federated averaging
#
# Seven functions, from three lines to twenty minutes. Write each in its cell; the cell below it answers at once, offline, on
# fresh random inputs. Stuck? `hint("01.weighted_average")` gives one step more at each call, three steps; `reveal(…)`, called
# twice, shows a solution. No exercise needs the answer of another.

# %%
import numpy as np

from fl_course.workbook import check, hint, progress, reveal

# %% exercise 01.weighted_average [markdown]
# Average the clients' deltas, weighted by how many examples each trained on.

# %% exercise 01.local_step [markdown]
# Softmax regression without a bias: one step of gradient descent on the mean cross-entropy of
# a batch. Do not change `W` in place: the server still needs the broadcast model.

# %% exercise 01.sample_clients [markdown]
# Choose m = max(C·K rounded, 1) different clients of 0 … K - 1, with the generator given.

# %% exercise 01.shards [markdown]
# Sort the examples by label, cut them into clients·per_client equal pieces (*shards*), and deal
# the pieces at random, `per_client` to each client. Every example goes to exactly one client.

# %% exercise 01.rounds_to_target [markdown]
# The measure of the FedAvg paper (which also interpolates between two rounds; we do not): the
# first round, counted from 1, whose accuracy is at least the target; None if there is none.

# %% exercise 01.fedsgd_round [markdown]
# If every client takes one step on all its examples (E = 1, B = ∞: FedSGD), the weighted average
# is *exactly* one step on the pooled data. Show it for linear regression, where a client's loss is the mean of (x·w - y)² / 2.

# %% exercise 01.run_rounds [markdown]
# This coordinator was found in a design document. It runs without an error, but with a neural
# network it hardly ever does better than guessing. Clients send `delta = local - broadcast`. Write it right.
#
# ```python
# for cohort in deltas:                       # one round after the other
#     new_weights = np.average(cohort, axis=0, weights=counts)
#     model.set_weights(new_weights)
# ```

# %% [markdown]
# ## How far have you come?

# %%
progress()
