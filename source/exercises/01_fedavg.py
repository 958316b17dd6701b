# %% [markdown]
# # Exercises 1 · Federated averaging
#
# Seven functions, from three lines to twenty minutes. Write each in its cell; the cell below it answers at once, offline, on
# fresh random inputs. Stuck? `hint("01.weighted_average")` gives one step more at each call, three steps; `reveal(…)`, called
# twice, shows a solution. No exercise needs the answer of another.

# %%
import numpy as np

from fl_course.workbook import check, hint, progress, reveal

# %% [markdown] tags=["exercise"]
# ## 1.1 The average of FedAvg
# *Difficulty 1 of 5 · 5 minutes.* Average the clients' deltas, weighted by how many examples each trained on.

# %% tags=["exercise"]
def weighted_average(deltas, counts):
    """deltas: (n, d), one row a client; counts: (n,) examples. Returns the weighted mean (d,)."""
    ### BEGIN SOLUTION
    weights = np.asarray(counts) / np.sum(counts)
    return weights @ deltas
    ### END SOLUTION

# %% tags=["check"]
check("01.weighted_average", weighted_average)

# %% [markdown] tags=["exercise"]
# ## 1.2 One step of local training
# *Difficulty 2 of 5 · 15 minutes.* Softmax regression without a bias: one step of gradient descent on the mean cross-entropy of
# a batch. Do not change `W` in place: the server still needs the broadcast model.

# %% tags=["exercise"]
def local_step(W, x, y, lr):
    """W: (classes, features); x: (n, features); y: (n,) labels. Returns the new W, of the same shape."""
    ### BEGIN SOLUTION
    logits = x @ W.T
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p = p / p.sum(axis=1, keepdims=True)
    p[np.arange(len(y)), y] -= 1
    return W - lr * p.T @ x / len(y)
    ### END SOLUTION

# %% tags=["check"]
check("01.local_step", local_step)

# %% [markdown] tags=["exercise"]
# ## 1.3 Who takes part
# *Difficulty 1 of 5 · 5 minutes.* Choose m = max(C·K rounded, 1) different clients of 0 … K - 1, with the generator given.

# %% tags=["exercise"]
def sample_clients(clients, fraction, rng):
    """clients: K; fraction: C in (0, 1]; rng: numpy Generator. Returns m client numbers."""
    ### BEGIN SOLUTION
    m = max(round(fraction * clients), 1)
    return rng.choice(clients, size=m, replace=False)
    ### END SOLUTION

# %% tags=["check"]
check("01.sample_clients", sample_clients)

# %% [markdown] tags=["exercise"]
# ## 1.4 The pathological deal
# *Difficulty 3 of 5 · 20 minutes.* Sort the examples by label, cut them into clients·per_client equal pieces (*shards*), and deal
# the pieces at random, `per_client` to each client. Every example goes to exactly one client.

# %% tags=["exercise"]
def shards(labels, clients, per_client, rng):
    """labels: (N,). Returns a list with one array of row numbers for each client."""
    ### BEGIN SOLUTION
    by_label = np.argsort(labels, kind="stable")
    pieces = np.array_split(by_label, clients * per_client)
    deal = rng.permutation(len(pieces)).reshape(clients, per_client)
    return [np.concatenate([pieces[i] for i in mine]) for mine in deal]
    ### END SOLUTION

# %% tags=["check"]
check("01.shards", shards)

# %% [markdown] tags=["exercise"]
# ## 1.5 Rounds to a target
# *Difficulty 1 of 5 · 5 minutes.* The measure of the FedAvg paper (which also interpolates between two rounds; we do not): the
# first round, counted from 1, whose accuracy is at least the target; None if there is none.

# %% tags=["exercise"]
def rounds_to_target(accuracies, target):
    """accuracies: one a round. Returns a round number or None."""
    ### BEGIN SOLUTION
    for r, accuracy in enumerate(accuracies, start=1):
        if accuracy >= target:
            return r
    return None
    ### END SOLUTION

# %% tags=["check"]
check("01.rounds_to_target", rounds_to_target)

# %% [markdown] tags=["exercise"]
# ## 1.6 One full-batch step each is gradient descent
# *Difficulty 2 of 5 · 15 minutes.* If every client takes one step on all its examples (E = 1, B = ∞: FedSGD), the weighted average
# is *exactly* one step on the pooled data. Show it for linear regression, where a client's loss is the mean of (x·w - y)² / 2.

# %% tags=["exercise"]
def fedsgd_round(w, clients, lr):
    """w: (d,); clients: a list of (x, y), x: (n_k, d), y: (n_k,). Returns the new w (d,). The data stay in their pairs."""
    ### BEGIN SOLUTION
    n = sum(len(y) for _, y in clients)
    step = np.zeros_like(w)
    for x, y in clients:
        gradient = x.T @ (x @ w - y) / len(y)
        step += len(y) / n * gradient
    return w - lr * step
    ### END SOLUTION

# %% tags=["check"]
check("01.fedsgd_round", fedsgd_round)

# %% [markdown] tags=["exercise"]
# ## 1.7 Find the bug: the coordinator that forgets
# *Difficulty 2 of 5 · 10 minutes.* This coordinator was found in a design document. It runs without an error, but with a neural
# network it hardly ever does better than guessing. Clients send `delta = local - broadcast`. Write it right.
#
# ```python
# for cohort in deltas:                       # one round after the other
#     new_weights = np.average(cohort, axis=0, weights=counts)
#     model.set_weights(new_weights)
# ```

# %% tags=["exercise"]
def run_rounds(w, deltas, counts):
    """w: (d,) the first model; deltas: (rounds, n, d); counts: (n,) examples. Returns the model after the last round."""
    ### BEGIN SOLUTION
    for cohort in deltas:
        mean = np.average(cohort, axis=0, weights=counts)
        w = w + mean
    return w
    ### END SOLUTION

# %% tags=["check"]
check("01.run_rounds", run_rounds)

# %% [markdown]
# ## How far have you come?

# %%
progress()
