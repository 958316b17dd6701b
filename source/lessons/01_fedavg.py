# %% [markdown]
# # 1 · Federated averaging
#
# A hundred phones hold handwritten digits that must stay where they are. One model shall learn from all of them.
#
# **You will be able to**
# - write federated averaging (FedAvg) by hand, and read it in the library;
# - say what more local epochs (E), smaller batches (B) and more clients a round (C) buy and cost, in rounds and megabytes;
# - see when averaging breaks: clients whose data differ.
#
# About 70 minutes for a newcomer, the exercises not counted. Every curve below is trained while you look at it. In the library:
# `fl_course/federation/coordinator.py` (the loop), `fl_course/engine/local.py` (what a client does), `fl_course/data/partition.py`
# (who has what).

# %% tags=["parameters"]
rounds: int = 30  # rounds of the longer experiments
repeats: int = 2  # seeds averaged in the rounds-to-target tables
seed: int = 0  # every random choice follows from it

# %%
import numpy as np
import pandas as pd

from fl_course import *
from fl_course.workbook import report
from fl_course.workbook.lesson import canvas, refusal, show

# %% [markdown]
# ## Who has what?
#
# The data are 1,797 real 8×8 images of digits that ship with scikit-learn. A fifth is held out to judge the model; the rest is
# dealt to 100 clients, in three ways. *IID*: shuffled like cards. *Shards*: sorted by label, cut into 200 pieces, two a client
# (the "pathological non-IID" deal of the FedAvg paper). *Dirichlet(α)*: each client draws its own mix of digits at random; the
# smaller α, the more one digit dominates the mix, and α = 100 is nearly IID.

# %%
deals = {"IID": IID(), "two shards each": Shards(2), "Dirichlet(0.3)": Dirichlet(0.3)}
federations = {name: digits().partition(how, clients=100, seed=seed) for name, how in deals.items()}
figure, axes = canvas(3, width=3.6, height=3.6)
for ax, (name, data) in zip(axes, federations.items()):
    data.plot(ax)
    ax.set_title(name)
show(figure, "01.deals")

# %% [markdown]
# How many different digits does a client train on? Count them. (A shard cut across the border of two digits holds both, so that
# two shards can be three digits.)

# %% tags=["nbval-check-output"]
for name, data in federations.items():
    kinds = (data.label_counts() > 0).sum(axis=1)
    print(f"{name:16} digits per client: min {kinds.min()}, max {kinds.max()}")

# %% [markdown]
# ## The case: alone, pooled, together
#
# Why federate at all? Because a client alone trains on 11 images of two digits (three more it keeps for a test of its
# own), and pooling is forbidden. Both ends can be computed.
# The model is softmax regression: one score a digit, $x W^\top + b$ with $W$ (10, 64) and $b$ (10,), and softmax makes the
# scores probabilities. A training step goes against the gradient of the mean loss $-\log p_{\text{right digit}}$.

# %%
def local_training(W, b, x, y, epochs, lr):
    for _ in range(epochs):
        z = x @ W.T + b
        p = np.exp(z - z.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)          # softmax, (n, 10)
        p[np.arange(len(y)), y] -= 1               # gradient of the loss by the scores
        W, b = W - lr * p.T @ x / len(y), b - lr * p.mean(axis=0)
    return W, b

# %%
data = federations["two shards each"]
clients = [(data.x[rows], data.y[rows]) for rows in data.train]
pooled = tuple(np.concatenate(part) for part in zip(*clients))         # as if it were allowed
zeros = np.zeros((10, 64)), np.zeros(10)

def accuracy(W, b):
    return ((data.x_test @ W.T + b).argmax(axis=1) == data.y_test).mean()

alone = [accuracy(*local_training(*zeros, x, y, epochs=50, lr=0.5)) for x, y in clients]
together = accuracy(*local_training(*zeros, *pooled, epochs=500, lr=0.5))
print(f"a client alone: {np.mean(alone):.0%} on average, {max(alone):.0%} the best of the hundred")
print(f"all data in one place: {together:.0%}")

# %% [markdown]
# Nobody alone can do it: who has never seen a 7 cannot know one. Everybody together could. Federated learning asks how much of
# that distance can be had *without* moving an image.
#
# ## A federation by hand
#
# No library yet. A client starts from the broadcast model and makes E *epochs*, passes over its own examples. Here all of them
# are one batch (B = ∞), so an epoch is one gradient step: `local_training` above is `ClientUpdate` of the FedAvg paper. The
# server sends the model out, collects how each client *changed* it, and adds the average change. A client with more
# examples counts more: weight $n_k / n$. That is all of FedAvg.

# %%
def one_round(W, b, clients, epochs, lr):
    n = sum(len(y) for _, y in clients)
    dW, db = np.zeros_like(W), np.zeros_like(b)
    for x, y in clients:
        local_W, local_b = local_training(W, b, x, y, epochs, lr)
        dW += len(y) / n * (local_W - W)           # delta = local - broadcast
        db += len(y) / n * (local_b - b)
    return W + dW, b + db

# %%
W, b = zeros
for r in range(1, 11):
    W, b = one_round(W, b, clients, epochs=5, lr=0.5)
    if r in (1, 5, 10):
        print(f"round {r:2}: accuracy {accuracy(W, b):.3f} on images that nobody trained on")

# %% [markdown]
# Ten rounds, a hundred clients who each know about two digits, and a model that knows ten. Most of the distance between alone
# and pooled is made, and no image has moved.

# %% tags=["proof"]
# Proof, open me: alone < federated < pooled
assert np.mean(alone) < 0.3 < max(alone) + 0.1
assert accuracy(W, b) > 0.85 and together > accuracy(W, b)

# %% [markdown]
#
# ## The same in the library
#
# An experiment is an object: its fields are the configuration, its `repr` the description. C is the fraction of the clients that
# is asked in a round; C = 1 asks everybody, as we did by hand.

# %%
training = LocalSGD(lr=0.5, epochs=5, batch_size=None)
by_library = Coordinator(data, logistic(64, 10), training, Synchronous(fraction=1.0))
start = by_library.initial(np.zeros(650))          # 10 · 64 weights and 10 biases, all zero
history = by_library.train(10, start)
difference = np.abs(history.state.server.params - np.concatenate([W.ravel(), b])).max()
print(f"largest difference between the two models: {difference:.1e}")

# %% tags=["proof"]
# Proof, open me: by hand and in the library, the same model
assert difference < 1e-5

# %% [markdown]
# Equal, up to the rounding of 32-bit floats. From here on the library does the work, and you know what it does. Its one loop is
# a generator: it yields after every round, and what you want to do with a round is the body of your own `for`. The model is now
# a small network: `mlp(64, 64, 10)` takes 64 pixels, has one hidden layer of 64 and gives 10 scores (`logistic(64, 10)` above
# is softmax regression). Ten clients a round, batches of two examples:

# %%
training = LocalSGD(lr=0.1, epochs=5, batch_size=2)
fed = Coordinator(data, mlp(64, 64, 10), training, Synchronous(fraction=0.1), seed=seed)
for state, record in fed.run(10):
    reached = record.metrics["accuracy"]
    print(f"round {record.version}: clients {record.clients[:4]} …, accuracy {reached:.3f}")

# %% [markdown]
# **Try it.** Stop when the accuracy passes 0.6: one line in the loop.
#
# Answer: `if reached > 0.6: break`, after the `print`. With seed 0 the last line is then that of round 7. The state of that round
# is in `state`, and `fed.run(5, state)` would go on from it.
#
# ## Does it matter who has what?
#
# Same images, same model, same number of clients a round; only the deal differs.

# %%
curves = {}
for name, data in federations.items():
    fed = Coordinator(data, mlp(64, 64, 10), training, Synchronous(0.1), seed=seed)
    curves[name] = fed.train(rounds)
figure, (left, right) = canvas(2)
for name, history in curves.items():
    history.plot(ax=left, label=name)
    history.plot("drift", ax=right, label=name)
right.set_ylabel("client drift (0: agree, 1: cancel out)")
right.set_ylim(0, 1.02)
show(figure, "01.who_has_what")

# %%
final = {name: np.mean(history.series("accuracy")[-5:]) for name, history in curves.items()}
drift = {name: np.mean(history.series("drift")[:10]) for name, history in curves.items()}
print(pd.DataFrame({"accuracy, last 5 rounds": final, "drift, first 10 rounds": drift}).round(3))

# %% tags=["proof"]
# Proof, open me: IID ends higher, and its clients drift less at first
assert final["IID"] > final["two shards each"] and drift["IID"] < drift["two shards each"]

# %% [markdown]
# With two digits a client, the clients of a round pull in different directions, and much of their work cancels in the average.
# [[Drift|client drift]] is that cancelling as a number: with $\bar\Delta$ the mean of the round's $n$ changes $\Delta_k$,
#
# $$\text{drift}^2 = \frac{\sum_k \|\Delta_k - \bar\Delta\|^2}{\sum_k \|\Delta_k\|^2} = 1 - \frac{\|\bar\Delta\|^2}{\frac1n\sum_k \|\Delta_k\|^2}$$
#
# 0 if all send the same, 1 if they cancel out. To read the scale: ten updates at right angles, which share nothing, have drift
# $\sqrt{1 - 1/10} \approx 0.95$. Once the model is good, what is left of an update is mostly the noise of a few examples, so
# all three curves end up there. By hand, for three small updates:

# %% tags=["nbval-check-output"]
deltas = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
apart = deltas - deltas.mean(axis=0)
print(f"drift {np.sqrt((apart**2).sum() / (deltas**2).sum()):.3f}")

# %% [markdown]
# And why is the line of the two shards so jagged? In many rounds nobody who was asked has, say, an 8. What does the new model
# know of the digits that nobody in its round has seen?

# %%
data = federations["two shards each"]
fed = Coordinator(data, mlp(64, 64, 10), training, Synchronous(0.1), seed=seed)
on_unseen, on_seen = [], []
for state, record in fed.run(15):
    seen = data.label_counts()[list(record.clients)].sum(axis=0) > 0          # (10,) digits
    right = fed.model.predict(state.server.params, data.x_test).argmax(axis=1) == data.y_test
    if not seen.all():
        on_unseen.append(right[~seen[data.y_test]].mean())
        on_seen.append(right[seen[data.y_test]].mean())
print(f"{len(on_unseen)} of 15 rounds lacked a digit; accuracy on it, round by round:")
print(np.round(on_unseen, 2))
print(f"mean {np.mean(on_unseen):.2f}, on the digits that were there {np.mean(on_seen):.2f}")

# %% tags=["proof"]
# Proof, open me: what nobody has seen is forgotten
assert np.mean(on_unseen) < np.mean(on_seen) - 0.2

# %% [markdown]
# Often it is 0: the average has *forgotten* the digit, until somebody who has it is asked again. Chapter 2 is about drift.
#
# ## What do E and B buy?
#
# More local work (more epochs E, smaller batches B) costs no communication. McMahan et al. (2017) count the *rounds until a
# target accuracy*. We do the same, at our scale: 90 % on the digits. What FedAvg is measured against is FedSGD, E = 1 and B = ∞:
# a client takes one gradient step a round, on all its examples.

# %%
def rounds_to_target(how, epochs, batch_size, rates, fraction=0.1, target=0.9, limit=60):
    data = digits().partition(how, clients=100, seed=seed, test_fraction=0.0)
    best = np.inf
    for lr in rates:                               # as in the paper, the best one counts
        training = LocalSGD(lr=lr, epochs=epochs, batch_size=batch_size)
        runs = [Coordinator(data, mlp(64, 64, 10), training, Synchronous(fraction), seed=seed + s)
                for s in range(repeats)]
        needed = [run.train(limit).rounds_to(target) or np.inf for run in runs]
        best = min(best, np.mean(needed))
    return best

# %%
settings = {"FedSGD (E=1, B=∞)": (1, None, (0.5, 1.0)), "E=5, B=∞": (5, None, (0.5,)),
            "E=1, B=2": (1, 2, (0.1, 0.3)), "FedAvg (E=5, B=2)": (5, 2, (0.1, 0.3))}
rows = {}
for name, how in settings.items():
    rows[name] = {deal: rounds_to_target(deals[deal], *how) for deal in ("IID", "two shards each")}
    print(f"{name}: done")
table = pd.DataFrame(rows).T
speedup = table.iloc[0] / table
both = {"rounds to 90 %": table.round(1), "times fewer than FedSGD": speedup.round(1)}
print(pd.concat(both, axis=1).to_string())

# %% [markdown]
# ### Reproduction card: local work saves rounds
#
# | | the paper (McMahan et al. 2017, table 2) | here (the cell above) |
# |---|---|---|
# | claim | FedAvg needs far fewer rounds than FedSGD; the gain is large for IID data and small for non-IID | the same, in shape |
# | IID | 626 rounds → 20 with E = 5, B = 10: 31.3× fewer | first column of the table |
# | non-IID, two shards | 483 → 229: 2.1× fewer | second column |
# | what differs | MNIST, a CNN, 600 examples a client, 99 % | digits, one hidden layer, 14 examples a client, 90 %, so B = 2 |
#
# And what did *not* come out alike, in the two rows between: in the paper E = 5 with B = ∞ makes non-IID training *slower* than
# FedSGD (0.5×), here it helps; and with E = 1 and small batches the paper gains far more for IID data, we do not.
#
# In a sentence, with the numbers of this run:

# %%
fedavg = speedup.loc["FedAvg (E=5, B=2)"]
print(f"FedAvg needs {fedavg['IID']:.1f}× fewer rounds than FedSGD for IID data, "
      f"{fedavg['two shards each']:.1f}× for two shards.")

# %% tags=["proof"]
# Report, open me: the bands that hold whenever this notebook runs
assert fedavg["IID"] >= 3 and fedavg["two shards each"] >= 1.5
assert fedavg["IID"] > fedavg["two shards each"]
report(speedup_iid=fedavg["IID"], speedup_shards=fedavg["two shards each"])

# %% [markdown]
# ## What does C buy?
#
# Asking more clients a round averages out their differences. Is it worth the traffic?

# %%
by_fraction = {}
data = federations["two shards each"]
for fraction in (0.05, 0.1, 0.3, 1.0):
    fed = Coordinator(data, mlp(64, 64, 10), training, Synchronous(fraction), seed=seed)
    by_fraction[f"C = {fraction}"] = fed.train(rounds)
figure, (left, right) = canvas(2)
for name, history in by_fraction.items():
    history.plot(ax=left, label=name)
    history.plot(ax=right, x="MB", label=name)
right.set_xscale("log")
show(figure, "01.fraction")

# %% [markdown]
# Per *round* more clients are better; per *megabyte* fewer are. The paper's table 1 agrees: there too, ten times as many clients
# (C = 0.1 → 1) save rounds, but far fewer than ten times. "C = 0.1" is a compromise, not a law.
#
# ## What is in a megabyte?
#
# Nothing here is estimated. Every message is encoded to bytes, counted, and decoded on the other side. Take one apart:

# %% tags=["nbval-check-output"]
from fl_course.wire.messages import WireError, decode_update, encode_update

update = Update(client=7, version=3, delta=np.linspace(-1, 1, 650, dtype=np.float32), weight=12.0)
message = encode_update(update)
print(f"{len(message):,} bytes, of which {update.delta.nbytes:,} are the 650 numbers")
print(f"it begins with {message[:8]}")

# %% tags=["proof"]
# Proof, open me: what comes out is what went in
assert np.array_equal(decode_update(message).delta, update.delta)

# %% tags=["nbval-check-output"]
damaged = message[:100] + b"\x00" + message[101:]
with refusal(WireError):
    decode_update(damaged)

# %%
history = by_fraction["C = 0.1"]
table = history.to_pandas()[["clients", "up_update", "down_model", "accuracy"]]
print(table.tail(3).to_string())
print(f"{history.megabytes:.2f} MB in all, both ways")

# %% [markdown]
# Chapter 5 makes the messages of the clients many times smaller.
#
# ## Is one accuracy enough?
#
# The held-out accuracy is an average over everybody. Each client also keeps a few examples of its own for a test: does the
# model serve all clients?

# %%
figure, (ax,) = canvas(1, width=6)
for name, history in curves.items():
    history.plot("client_accuracy_worst10", ax=ax, label=name)
ax.set_ylabel("accuracy of the worst tenth of clients")
show(figure, "01.worst_tenth")

# %%
worst = {name: history.last("client_accuracy_worst10") for name, history in curves.items()}
mean = {name: history.last("client_accuracy") for name, history in curves.items()}
tests = np.array([len(rows) for rows in data.test])          # three examples a client
luck = {}
for name, share in mean.items():                             # a model that is equally good for all
    # stream(seed, name): a random generator that follows from the seed
    fair = stream(seed, "luck").binomial(tests, share, (1000, len(tests))) / tests
    luck[name] = np.sort(fair, axis=1)[:, : len(tests) // 10].mean()
columns = {"mean over clients": mean, "worst tenth": worst, "worst tenth by luck": luck}
print(pd.DataFrame(columns).round(2))

# %% [markdown]
# Report both, and be careful: a client has *three* test examples. The last column is the worst tenth of a model that serves
# all clients equally well; it looks bad too, for somebody always has bad luck. Only what lies well below it is unfairness. IID
# and Dirichlet lie close to it; two shards each lie a little below it with most seeds. In the field a model that is right on average
# can be useless for whole groups of clients: measure it with enough examples. A later chapter gives each client a model of its
# own.
#
# ## Not only classes
#
# The same loop learns numbers instead of classes: the model says which loss it has, and the evaluation follows. Here eight
# hospitals predict how far diabetes has progressed after a year, from ten measurements (442 patients; the data ship with
# scikit-learn). `rmse` is the typical error, in standard deviations; predicting the mean for everybody gives about 1.

# %%
from sklearn.datasets import load_diabetes

x, y = load_diabetes(return_X_y=True)
x, y = x * 20, (y - y.mean()) / y.std()                      # features and target of size 1
order = stream(seed, "hospitals").permutation(len(y))
held, rest = order[:80], order[80:]
hospitals = {f"hospital {k}": (x[rest[k::8]], y[rest[k::8]]) for k in range(8)}
data = from_clients("diabetes", hospitals, classes=0, x_test=x[held], y_test=y[held])
model = mlp(10, 1, loss=SquaredError())
fed = Coordinator(data, model, LocalSGD(lr=0.02, epochs=2), Synchronous(1.0), seed=seed)
print(f"federated: rmse {fed.train(rounds).last('rmse'):.2f}")

def rmse_of_fit(x, y):                                       # least squares, solved exactly
    w = np.linalg.lstsq(np.c_[x, np.ones(len(x))], y, rcond=None)[0]
    return np.sqrt(np.mean((data.x_test @ w[:-1] + w[-1] - data.y_test[:, 0]) ** 2))

alone = np.mean([rmse_of_fit(*hospital) for hospital in hospitals.values()])
print(f"a hospital alone: {alone:.2f} on average; pooled: {rmse_of_fit(x[rest], y[rest]):.2f}")

# %% [markdown]
# `BinaryCrossEntropy()` is the other common one: a single output, the logit of "yes". Class weights go into `CrossEntropy(…)`. All
# three are in `fl_course/engine/losses.py`.
#
# ## Move the sliders
#
# The next cell retrains a federation like those above (a smaller network, B = 10, a Dirichlet deal), for real, whenever you move a
# slider. Start with C, then raise E, then make the deal unfair (small α). *Pin* a run to compare the next one with it.

# %%
from fl_course.workbook.widgets.fraction import client_fraction_explorer

client_fraction_explorer()

# %% [markdown]
# ## What goes wrong
#
# The library refuses what makes no sense, when the experiment is built and not an hour later, and says what to change.

# %% tags=["nbval-check-output"]
data = federations["two shards each"]
with refusal():
    Synchronous(fraction=10)                       # ten clients, or ten times all of them?
with refusal():
    Coordinator(data, mlp(784, 64, 10))            # a model for 28×28 images, on 8×8 images
with refusal():
    Coordinator(data, mlp(64, 64, 10), stages=[Clip(1.0)])

# %% [markdown]
# The last one is subtle. `Clip(1.0)` shortens an update to length 1 at most (chapter 3 needs that). Data-size weights multiply
# each update by $n_k$, and clipping *after* that would punish clients for having data. Mechanisms that are each fine can be
# wrong together; you will meet this in every chapter.
#
# ## Summary
#
# - FedAvg: broadcast, train locally for E epochs, average the *changes*, weighted by examples.
# - Local work (E up, B down) saves rounds: much for IID data, less when clients differ.
# - C trades rounds against megabytes. Count real bytes, and look at the worst clients, not only the mean (and at how many
#   examples they were measured on).
#
# ## Recall
#
# **1.** What does a client send: its model, its data, or something else?
#
# Answer: The *change* of the model, delta = local − broadcast. The server adds the weighted mean of the changes to its model.
#
# **2.** Two clients with 10 and 30 examples send the changes 1.0 and 2.0. By how much does the model move?
#
# Answer: By 10/40 · 1.0 + 30/40 · 2.0 = 1.75.
#
# **3.** Which of E up, B down and C up costs traffic?
#
# Answer: Only C: more clients, more messages. E and B are work at the client; a round's messages stay the same.
#
# **4.** Why is the line of the shards jagged?
#
# Answer: A round's ten clients lack some digit, and the average forgets it until somebody who has it is asked.
#
# **5.** A client's accuracy is 1/3. Is the model unfair to it?
#
# Answer: With three test examples that says little: it may be bad luck. The last column of the table says how much luck alone
# does.
#
# **References**: B. McMahan, E. Moore, D. Ramage, S. Hampson, B. Agüera y Arcas, *Communication-efficient learning of deep
# networks from decentralized data*, AISTATS 2017, arXiv:1602.05629. · T.-M. H. Hsu, H. Qi, M. Brown, *Measuring the effects of
# non-identical data distribution for federated visual classification*, 2019 (the Dirichlet deal), arXiv:1909.06335.
