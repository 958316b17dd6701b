# %% [markdown]
# # 8 · Personalisation
#
# One model for everybody is a compromise. Sometimes a client is better off with a model of its own, sometimes with the model of
# all, and sometimes it should not have joined. How would it know?
#
# **You will be able to**
# - say for which data alone, together or in between is best, and how much of a difference is luck;
# - write personal layers, a rope, a mixture, groups and a model that is made to be adapted, and say what each of them sends;
# - evaluate such models fairly: each client's model on its own tests, the worst tenth, *local only* and *pooled* beside.
#
# About 130 minutes for a newcomer, the exercises not counted. You need chapters 1 and 2 (and chapters 3 and 4 for the end of
# "What goes wrong", which can be skipped). In the library: `fl_course/personalisation/split.py` and
# `fl_course/personalisation/layers.py` (which layers stay at home), `fl_course/personalisation/twins.py` (a whole model at home),
# `fl_course/personalisation/clusters.py` (groups), `fl_course/personalisation/meta.py` (made to be adapted),
# `fl_course/personalisation/evaluation.py` (who is better off).

# %% tags=["parameters"]
rounds: int = 50  # rounds of the federations on digits
card_rounds: int = 500  # rounds of the reproduction card on a shared base
problems: int = 2000  # independent estimation problems of the card on the rope
seed: int = 0  # every random choice follows from it

# %%
import numpy as np
import pandas as pd

from fl_course import *
from fl_course.engine.training import Trainer
from fl_course.workbook import report
from fl_course.workbook.lesson import canvas, refusal, show

# %% [markdown]
# | sign | what it is |
# |---|---|
# | $w$, $w^t$ | the model of all; as a client downloads it in round $t$ |
# | $v_k$ | the own model of client $k$, which never leaves it |
# | $L_k$ | the loss of client $k$ on its own training examples |
# | $\lambda$ | strength of the rope between $v_k$ and $w^t$ |
# | $\alpha$ | share of the own model in a mixture |
# | $\eta$ | learning rate; $\eta_i$ that of the inner step |
# | $B$, $h_k$ | the shared layers (the *base*); the layers of client $k$ alone (its *head*) |
#
# ## Alone, together, or one model in one place?
#
# Before any method, the case. Fifty clients share 4,000 images, each trains on 40 of its own and keeps 40 for a test of
# its own. They can differ in three ways: each writes in its *own hand* (slanted, bold, noisy); each has its *own taste* for
# digits (Dirichlet 0.3); or each knows about *two digits* only (shards).

# %%
deals = {"own hand": Writers(), "own taste": Dirichlet(0.3), "two digits": Shards(2)}
data = {name: mnist().partition(deal, clients=50, seed=seed, test_fraction=0.5)
        for name, deal in deals.items()}
model, training = mlp(784, 64, 10), LocalSGD(lr=0.1, epochs=2, batch_size=10)
start = model.init(stream(seed, "init"))
at_home = rounds * 2 // 5                # epochs: as many as a client trains in the federation, on average

def train_at_home(of, starts, epochs, lr=0.1):
    """Every client trains a model of its own, and nothing is sent. starts: K models (d,)."""
    trainer = Trainer(LocalSGD(lr, epochs, 10), model, of)
    tasks = [Task(client, Server(w), seed) for client, w in zip(of.ids, starts)]
    return [w + update.delta for w, update in zip(starts, trainer.train(tasks))]

def accuracies(of, models):
    """(K,) the accuracy of each client's model on the client's own test."""
    tests = [of.examples(client, "test") for client in of.ids]
    return np.array([(model.predict(w, x).argmax(1) == y).mean() for w, (x, y) in zip(models, tests)])

# %% [markdown]
# Three models for each client: the one it trains *alone*; the *global* one of all (FedAvg, 10 clients a round); and the one of
# somebody who holds everybody's examples in one place, *pooled*. All three are measured on the client's own tests.

# %%
def pool(of):
    """All examples at one client."""
    rows = [np.concatenate(part) for part in (of.train, of.test)]
    return FederatedData("pooled", of.x, of.y, 10, (0,), (rows[0],), (rows[1],))

def fedavg(of):
    how = {"evaluation": Evaluation(every=rounds), "seed": seed}
    return Coordinator(of, model, training, Synchronous(0.2), **how).train(rounds).state.server.params

alone = {name: train_at_home(of, [start] * 50, at_home) for name, of in data.items()}
together = {name: fedavg(of) for name, of in data.items()}
pooled = {name: train_at_home(pool(of), [start], at_home)[0] for name, of in data.items()}

# %%
base = {name: {"local only": accuracies(of, alone[name]),
               "global": accuracies(of, [together[name]] * 50),
               "pooled": accuracies(of, [pooled[name]] * 50)} for name, of in data.items()}
print(pd.DataFrame({name: {who: each.mean() for who, each in rows.items()}
                    for name, rows in base.items()}).round(3).to_string())

# %%
figure, axes = canvas(3, width=3.6)
for ax, (name, rows) in zip(axes, base.items()):
    for who, each in rows.items():
        ax.hist(each, bins=np.linspace(0.15, 1, 18), histtype="step", linewidth=1.6, label=who)
    ax.set(xlabel="accuracy on the own test", ylabel="clients", title=name)
show(figure, "08.three_deals")

# %% tags=["proof"]
# Proof, open me: with an own hand nobody should be alone, with two digits hardly anybody should be together
means = {name: {who: each.mean() for who, each in rows.items()} for name, rows in base.items()}
if rounds >= 50:
    assert means["own hand"]["local only"] < means["own hand"]["global"] - 0.15
    assert means["two digits"]["local only"] > means["two digits"]["pooled"] + 0.01
    assert means["two digits"]["local only"] > means["two digits"]["global"] + 0.05

# %% [markdown]
# Three deals, three answers. Who writes in an own hand needs the others: 40 images are too few to learn ten digits. Who knows
# two digits has an easy life alone, and a model that must tell ten digits apart disturbs it: *local only* beats even
# the pooled data. With an own taste it is a draw of sorts, and there a model in between might beat them all. A comparison of
# personalised models that leaves *local only* out says nothing about shards: near 96 % is what everybody gets there who does
# nothing.
#
# ## How much of that is luck?
#
# A client has 40 tests. A model that is right with probability $p$ is right on a share of $n$ tests that scatters by
# $\sqrt{p(1-p)/n}$ around $p$ (chapter 1). So even if all clients were served equally well, the histogram would have a width:

# %%
rows = {}
for name, each in base.items():
    p, n = each["global"].mean(), 40
    rng = np.random.default_rng(seed)
    equal = rng.binomial(n, p, size=(1000, 50)) / n            # 1,000 federations of equal clients
    rows[name] = {"mean": p, "luck of one client": np.sqrt(p * (1 - p) / n),
                  "seen spread": each["global"].std(),
                  "worst tenth, equal clients": np.sort(equal, axis=1)[:, :5].mean(),
                  "worst tenth, seen": np.sort(each["global"])[:5].mean(),
                  "luck of the mean": np.sqrt(p * (1 - p) / (50 * n))}
print(pd.DataFrame(rows).round(3).to_string())

# %% tags=["proof"]
# Proof, open me: the seen spread is wider than luck, and the formula is right
for name, row in rows.items():
    assert row["worst tenth, seen"] < row["worst tenth, equal clients"]
    assert row["seen spread"] > row["luck of one client"]
assert abs(equal.std() - rows["two digits"]["luck of one client"]) < 0.002

# %% [markdown]
# One client's accuracy says little: five or six points up or down are nothing. The *mean* over fifty clients is known to within a
# point (and a difference of two models on the *same* tests better than that). The worst tenth is always low, because it is chosen
# for being low: compare it with the worst tenth of another model, never with the mean.
#
# **Try it.** How many tests would a client need, so that its luck is one point at 90 %?
#
# Answer: $0.9 \cdot 0.1 / n = 0.01^2$, so 900. Nobody who has 900 examples to spare for a test needs a federation to learn digits.
#
# ## Fine-tuning: take the model home and train on
#
# The simplest personal model: download the global one, train a few epochs on your own examples, keep the result. Nothing more is
# sent. How many epochs?

# %%
steps = (0, 1, 2, 5, 10, 20)
tuned = {name: {0: base[name]["global"]} for name in data}
for name, of in data.items():
    for epochs in steps[1:]:
        own = train_at_home(of, [together[name]] * 50, epochs)
        tuned[name][epochs] = accuracies(of, own)

# %%
figure, axes = canvas(3, width=3.6)
for ax, (name, by_epochs) in zip(axes, tuned.items()):
    ax.plot(steps, [each.mean() for each in by_epochs.values()], "o-", label="fine-tuned, mean")
    ax.plot(steps, [np.sort(each)[:5].mean() for each in by_epochs.values()], "o--",
            label="fine-tuned, worst tenth")
    for who, style in (("local only", ":"), ("pooled", "-.")):
        ax.axhline(base[name][who].mean(), linestyle=style, color="grey", label=f"{who}, mean")
    ax.set(xlabel="epochs of fine-tuning", ylabel="accuracy", ylim=(0.5, 1), title=name)
show(figure, "08.fine_tuning")

# %%
gains = {}
for name, by_epochs in tuned.items():
    better = {epochs: each.mean() - base[name]["global"].mean() for epochs, each in by_epochs.items()}
    gains[name] = {"5 epochs gain": better[5], "20 epochs gain": better[20],
                   "clients that gain": np.mean(by_epochs[5] > base[name]["global"]),
                   "clients that lose": np.mean(by_epochs[5] < base[name]["global"])}
print(pd.DataFrame(gains).round(3).to_string())

# %% tags=["proof"]
# Proof, open me: it pays with an own taste, beyond the pooled data; with an own hand it does not
if rounds >= 50:
    assert tuned["own taste"][5].mean() > max(each.mean() for each in base["own taste"].values())
    assert tuned["own hand"][20].mean() < base["own hand"]["global"].mean()
    assert tuned["two digits"][20].mean() > base["two digits"]["local only"].mean() - 0.01

# %% [markdown]
# With an own taste a few epochs take the mean past everything else, the pooled data included: nobody who holds all the
# examples in one place knows *who asks*, and the client does. With an own hand each epoch makes it worse. Forty images say
# little about a hand, and what they say by accident is learned as well. Fine-tuning is no gift: somebody loses
# everywhere, and "clients that gain" belongs into every table.
#
# In the library how a client gets its own model is a *method*, a part of the training: `LocalSGD(personal=FineTune(5))`. What
# travels is FedAvg, to the bit.

# %%
def federated(of, method, network=model, first=None):
    """A federation with a personal method: the experiment and its history. first: a trained model."""
    how = LocalSGD(lr=0.1, epochs=2, batch_size=10, personal=method)
    fed = Coordinator(of, network, how, Synchronous(0.2), evaluation=Evaluation(every=rounds), seed=seed)
    return fed, fed.train(rounds, None if first is None else handed_out(fed, first))

def own_accuracies(fed, history):
    """(K,) each client's own model on its own test."""
    return own_measure(fed, history.state)

taste = data["own taste"]
fed, history = federated(taste, FineTune(epochs=5))
by_library = own_accuracies(fed, history)
print(f"by hand {tuned['own taste'][5].mean():.4f}, by the library {by_library.mean():.4f}")

# %% tags=["proof"]
# Proof, open me: the global path is FedAvg to the bit, and the own models are as good as those by hand
assert np.array_equal(history.state.server.params, together["own taste"])
assert abs(by_library.mean() - tuned["own taste"][5].mean()) < 0.02

# %% [markdown]
# ## Which layers stay at home?
#
# A network is a chain. Its first layers turn pixels into features, its last layer turns features into an answer. Perhaps the
# features are everybody's and only the answers are personal? Then only the first layers need to travel. That is **FedPer**
# (Arivazhagan et al. 2019): train everything at once, and send the change of the shared layers only.
#
# A model here is one vector, so "which layers" is a mask over its numbers. One round with all clients, by hand:

# %%
stays = np.zeros(model.dim, dtype=bool)
for name, where in model.slices().items():
    stays[where] = name.startswith("dense1.")            # the last layer: its weights and its biases
print(f"{stays.sum():,} of {model.dim:,} numbers stay at home")

trained = np.array(train_at_home(taste, [start] * 50, epochs=2))        # (50, d)
shared = start[~stays] + np.mean(trained[:, ~stays] - start[~stays], axis=0)
heads = trained[:, stays]                                               # (50, 650): each its own

# %% [markdown]
# In the library the network says what stays, `Split(model, personal="dense1")`, and the method says how it is trained. To
# everything between the clients and the server the model *is* the shared part. A personal number cannot be sent by mistake:
# it is not in the vector that is sent.

# %%
split = Split(model, personal="dense1")
fed = Coordinator(taste, split, LocalSGD(lr=0.1, epochs=2, batch_size=10, personal=FedPer()),
                  Synchronous(1.0), seed=seed)
after = fed.train(1).state
print("shared, largest difference:", np.abs(after.server.params - shared).max())

# %% tags=["proof"]
# Proof, open me: by hand and in the library, the same base and the same heads
assert after.server.params.shape == ((~stays).sum(),)
assert np.allclose(after.server.params, shared, atol=1e-5)
for k, client in enumerate(taste.ids):
    assert np.allclose(after.memory[client]["personal"], heads[k], atol=1e-5)

# %% [markdown]
# **FedRep** (Collins et al. 2021) uses the same split in another order: first the head, with the base as it came, then
# the base under that head. **LG-FedAvg** (Liang et al. 2020) turns the split round: the *base* stays at home, the head is
# shared, and it is meant to start from a model that FedAvg has trained. All three on all deals, and how much they send:

# %%
runs = {}
for name, of in data.items():
    runs[name] = {"FedPer": federated(of, FedPer(), split),
                  "FedRep": federated(of, FedRep(head_epochs=5), split),
                  "LG-FedAvg": federated(of, LGFedAvg(), Split(model, personal="dense0"), together[name])}
own = {name: {method: own_accuracies(*run) for method, run in some.items()}
       for name, some in runs.items()}
table = pd.DataFrame({name: {method: each.mean() for method, each in some.items()}
                      for name, some in own.items()}).round(3)
table["bytes up, one client"] = [sum(history.records[-1].bytes_up.values()) // 10
                                 for _, history in runs["own taste"].values()]
print(table.to_string())

# %% [markdown]
# Compare with the first table. On two digits and with an own taste a personal head is a good thing; with an own hand it is not:
# a head has 650 numbers, and 40 images do not suffice for them. And look at the bytes: the base is nearly the whole model,
# so FedPer and FedRep save nothing; LG-FedAvg sends a head only.
#
# **Try it.** What does `Split(model, personal="dens1")` say? And `personal="dense"`?
#
# Answer: both are refused with the list of the layers. A prefix is made of whole words between dots, so `dense` is not `dense1`:
# a typing error that lets everything travel would be noticed by nobody.
#
# ### Reproduction card: a base that is found although all heads differ
#
# Collins et al. prove their claim for a linear model: client k answers $x$ with $x B^* h_k$; all share the base $B^*$
# (20 × 2), each has a head $h_k$ of its own, and ten examples. How far is a trained $B$ from $B^*$? Only the plane counts that its
# two columns span; the sine of the largest *principal angle* between the two planes is 0 if they are one and 1 if a direction is missed.
#
# | | the paper | here (the cells below) |
# |---|---|---|
# | claim | FedRep finds the base, at a rate as if the heads were known; FedAvg cannot | first number near 0, the others not |
# | set-up | linear, d = 20, k = 2, n = 100 clients, m = 10 examples, 500 rounds | the same; 10 clients a round, learning rate 0.1 |
# | what differs | the paper's head is the exact minimum | ten gradient steps on the head, then one on the base |

# %%
def world(rng, d=20, k=2, n=100, m=10):
    base, heads = np.linalg.qr(rng.normal(size=(d, k)))[0], rng.normal(size=(n, k))
    x = rng.normal(size=(n, m, d))
    return base, x, np.einsum("nmd,dk,nk->nm", x, base, heads)

def sine(B, true):
    Q = np.linalg.qr(B)[0]
    return np.sqrt(max(0.0, 1 - np.linalg.svd(Q.T @ true, compute_uv=False).min() ** 2))

def steps_on(x, y, B, h, lr, head, base):
    """One gradient step of each client on the mean of ½ (x B h - y)². B: (n, d, k), h: (n, k)."""
    features = x @ B
    error = (np.einsum("nmk,nk->nm", features, h) - y) / y.shape[1]
    dB, dh = np.einsum("nmd,nm,nk->ndk", x, error, h), np.einsum("nmk,nm->nk", features, error)
    return B - lr * base * dB, h - lr * head * dh

# %%
def fedrep_rounds(rng, true, x, y, B, rounds):
    h, angles = np.zeros((len(x), B.shape[1])), []
    for _ in range(rounds):
        some = rng.choice(len(x), 10, replace=False)
        here, own = np.repeat(B[None], 10, axis=0), h[some]
        for _ in range(10):
            _, own = steps_on(x[some], y[some], here, own, 0.1, head=1, base=0)    # first the head
        here, _ = steps_on(x[some], y[some], here, own, 0.1, head=0, base=1)       # then the base
        h[some], B = own, here.mean(axis=0)                                        # the head stays
        angles.append(sine(B, true))
    return angles

def fedavg_rounds(rng, true, x, y, B, rounds, epochs):
    h, angles = rng.normal(0, 0.3, B.shape[1]), []
    for _ in range(rounds):
        some = rng.choice(len(x), 10, replace=False)
        here, theirs = np.repeat(B[None], 10, axis=0), np.repeat(h[None], 10, axis=0)
        for _ in range(epochs):
            here, theirs = steps_on(x[some], y[some], here, theirs, 0.1, head=1, base=1)
        B, h = here.mean(axis=0), theirs.mean(axis=0)                              # both are averaged
        angles.append(sine(B, true))
    return angles

# %%
true, x, y = world(np.random.default_rng(seed))
first = np.linalg.qr(np.random.default_rng(seed + 1).normal(size=(20, 2)))[0]
angles = {"FedRep": fedrep_rounds(np.random.default_rng(seed), true, x, y, first, card_rounds)}
for epochs in (1, 5):
    rng = np.random.default_rng(seed)
    angles[f"FedAvg, E = {epochs}"] = fedavg_rounds(rng, true, x, y, first, card_rounds, epochs)
figure, (ax,) = canvas(1, width=6)
for name, line in angles.items():
    ax.plot(np.arange(1, card_rounds + 1), line, label=name)
ax.set(xlabel="round", ylabel="sine of the principal angle", yscale="log")
show(figure, "08.principal_angle")
print({name: f"{line[-1]:.1e}" for name, line in angles.items()})

# %% tags=["proof"]
# Report, open me: the band of the card, and the library's FedRep makes the same step
from torch import nn

linear = nn.Sequential(nn.Linear(20, 2, bias=False), nn.Linear(2, 1, bias=False))
network = Split(Wrapped(linear, loss=SquaredError()), personal="1")
clients = {k: (x[k], y[k]) for k in range(100)}
of = from_clients("linear", clients, classes=0, test_fraction=0.0)
how = LocalSGD(lr=0.05, epochs=1, batch_size=None, personal=FedRep(head_epochs=10))   # its loss has no ½
fed = Coordinator(of, network, how, Synchronous(1.0), weights=Uniform())
begin = handed_out(fed, np.concatenate([first.T.ravel(), np.zeros(2)]).astype(np.float32))
by_library = fed.train(1, begin).state.server.params.reshape(2, 20).T
here, h = np.repeat(first[None], 100, axis=0), np.zeros((100, 2))
for _ in range(10):
    _, h = steps_on(x, y, here, h, 0.1, head=1, base=0)
by_hand = steps_on(x, y, here, h, 0.1, head=0, base=1)[0].mean(axis=0)
assert np.allclose(by_library, by_hand, atol=1e-5)
if card_rounds >= 500:
    assert angles["FedRep"][-1] < 1e-2 and angles["FedAvg, E = 1"][-1] > 0.9
    assert angles["FedAvg, E = 5"][-1] > 10 * angles["FedRep"][-1]
report(fedrep_angle=angles["FedRep"][-1], fedavg_angle=angles["FedAvg, E = 5"][-1])

# %% [markdown]
# Why? The heads point in all directions and their mean is close to nothing. FedAvg has one head for everybody, so in one step the
# base learns one direction, that of the mean head; with more local steps something of the others seeps in, more or less. FedRep's
# base is asked for by a hundred heads, which between them point everywhere.
#
# ## A model on a rope
#
# Now keep a *whole* model at home, beside the one that travels. **Ditto** (Li et al. 2021) lets it learn from the client's own
# examples, and ties it to the model as it was downloaded:
#
# $$v_k \leftarrow v_k - \eta\,\big(\nabla L_k(v_k) + \lambda\,(v_k - w^t)\big).$$
#
# The model that travels is trained as ever and does not know of $v_k$: what the server sees is FedAvg. With λ = 0 the client trains
# alone; with a huge λ the own model is the global one. So the first table has the two ends of a scale, and λ slides between
# them. How tight should the rope be?
#
# There is a case with an exact answer. Each of K = 16 clients wants to know its own mean $\mu_k$ from n = 30 numbers with
# noise of deviation σ = 0.8. The means themselves scatter by τ = 0.1 around a common one. Alone, a client takes the mean
# $\bar x_k$ of its numbers, with a squared error of σ²/n; the mean of all is nearly free of noise, but off by τ² from the own one.
# Ditto rests in between, at $(\bar x_k + \lambda w)/(1 + \lambda)$. By hand, a thousand such problems at once:

# %%
K, n, sigma, tau, tau_a = 16, 30, 0.8, 0.1, 0.5

def estimation(m, rng):
    """True means and what the clients see of them, (K, problems); the last m clients are malicious."""
    scatter = np.where(np.arange(K) < K - m, tau, tau_a)[:, None]
    truth = scatter * rng.normal(size=(K, problems))
    return truth, truth + sigma / np.sqrt(n) * rng.normal(size=(K, problems))

def ditto(seen, lam, lr=0.3, rounds=12, steps=5):
    w, v = np.zeros(problems), np.zeros((K, problems))
    for _ in range(rounds):
        local = np.tile(w, (K, 1))
        for _ in range(steps):
            v = v - min(lr, 1 / lam) * ((v - seen) + lam * (v - w))      # the own models
            local = local - lr * (local - seen)                          # what travels
        w = local.mean(axis=0)
    return v

# %% [markdown]
# How good is a rope? With m = 8 of the clients *malicious*, whose numbers scatter by $\tau_a$ = 0.5, the mean of all is a worse
# guide, and the rope should be looser. The error of the honest clients is $(a + b\lambda + c\lambda^2)/(1+\lambda)^2$, so a
# parabola through the measured errors, times $(1+\lambda)^2$, shows the lowest point between the λ that were tried:

# %%
ropes = np.array([0.2, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 6.0])

def lowest(errors):
    c, b, a = np.polyfit(ropes, (1 + ropes) ** 2 * errors, 2)
    return (2 * a - b) / (2 * c - b)

found, errors = {}, {}
for m in (0, 8):
    truth, seen = estimation(m, np.random.default_rng(seed))
    honest = slice(0, K - m)
    errors[m] = np.array([np.mean((ditto(seen, lam) - truth)[honest] ** 2) for lam in ropes])
    found[m] = lowest(errors[m])
print({m: f"best rope: {lam:.3f}" for m, lam in found.items()})

# %%
figure, (ax,) = canvas(1, width=6)
for m, name in ((0, "all honest"), (8, "half malicious")):
    ax.plot(ropes, 1000 * errors[m], "o-", label=name)
ax.axhline(1000 * sigma**2 / n, linestyle=":", color="grey", label="alone, σ²/n")
ax.set(xlabel="rope λ", ylabel="squared error of honest clients × 1,000", ylim=(0, 30))
show(figure, "08.ropes")

# %% [markdown]
# ### Reproduction card: how tight the rope should be
#
# | | the paper | here (the cell below) |
# |---|---|---|
# | claim | Li et al. 2021: the best rope is $\lambda^* = \frac{\sigma^2}{n} \cdot \frac{K}{K\tau^2 + m(\tau_a^2 - \tau^2)/(K-1)}$ | found by training, without the formula |
# | all honest | 2.1333 by the formula | first number |
# | half malicious | 1.185 by the formula | second number |
# | what differs | one problem, in expectation | 2,000 problems at once; over seeds 0 to 9 the numbers were SPREAD |

# %%
for m, name in ((0, "all honest"), (8, "half malicious")):
    formula = sigma**2 / n * K / (K * tau**2 + m * (tau_a**2 - tau**2) / (K - 1))
    print(f"{name:15} found {found[m]:.3f}, by the formula {formula:.4f}")

# %% tags=["proof"]
# Report, open me: the bands of the card, and the library's Ditto is ours
many = {k: (np.zeros((1, 1)), seen[None, k]) for k in range(K)}           # x = 0: only the bias is used
of = from_clients("means", many, classes=0, test_fraction=0.0)
half = problems / 2                            # the library's loss is the mean over outputs, without ½
how = LocalSGD(lr=0.3 * half, epochs=5, batch_size=None, personal=Ditto(lam=2.0 / half))
fed = Coordinator(of, logistic(1, problems, SquaredError()), how, Synchronous(1.0))
begin = fed.initial(np.zeros(2 * problems))
by_library = own_models(fed, fed.train(12, begin).state)[:, problems:]
assert np.abs(by_library - ditto(seen, 2.0)).max() < 1e-4
if problems >= 2000:
    assert abs(found[0] - 2.1333) < 0.15 and abs(found[8] - 1.185) < 0.08
report(best_rope=found[0], best_rope_half_malicious=found[8])

# %% [markdown]
# **Try it.** What does the formula say if every client has 300 numbers instead of 30? And if all clients have the same mean, τ = 0,
# and nobody is malicious?
#
# Answer: a tenth, λ* = 0.2133: who has many examples needs little help. With τ = 0 the denominator is 0 and λ* infinite: the
# global model is the right one for everybody.
#
# On digits there is no formula, but a slider. Four ropes on the three deals, from loose to tight, with the ends beside:

# %%
lams = (0.01, 0.1, 1.0, 10.0)
roped = {name: [own_accuracies(*federated(of, Ditto(lam))).mean() for lam in lams]
         for name, of in data.items()}
figure, axes = canvas(3, width=3.6)
for ax, (name, line) in zip(axes, roped.items()):
    ax.plot(lams, line, "o-", label="Ditto")
    for who, style in (("local only", ":"), ("global", "--")):
        ax.axhline(base[name][who].mean(), linestyle=style, color="grey", label=who)
    ax.set(xlabel="rope λ", ylabel="mean accuracy", xscale="log", ylim=(0.5, 1), title=name)
show(figure, "08.ropes_on_digits")

# %% tags=["proof"]
# Proof, open me: the tight end is the global model, the loose one is training alone
tight = federated(taste, Ditto(1e6))
assert np.allclose(own_models(tight[0], tight[1].state), tight[1].state.server.params, atol=0.05)
assert np.array_equal(tight[1].state.server.params, together["own taste"])

# %% [markdown]
# TEXT
#
# ### A mixture, and a model that follows
#
# Two relatives. **APFL** (Deng et al. 2020) answers with a mixture $\bar v = \alpha v + (1-\alpha)\,w$ of an own model and the
# one that travels, trains v for the mixture's sake (its gradient is $\alpha\nabla L(\bar v)$), and learns even $\alpha$, by
# $\alpha \leftarrow \alpha - \eta\,\langle v - w, \nabla L(\bar v)\rangle$. **pFedMe** (Dinh et al. 2020) turns Ditto round: first the
# own model θ, near the minimum of $L(\theta) + \frac\lambda2\|\theta - w\|^2$, and then w follows it, $w \leftarrow w - \eta\lambda\,(w - \theta)$.

# %%
mixed = {name: federated(of, APFL(alpha=0.5)) for name, of in data.items()}
follow = {name: federated(of, PFedMe(lam=15.0, lr=0.1, steps=5)) for name, of in data.items()}
rows = {}
for name, of in data.items():
    alphas = [drawer["alpha"] for drawer in mixed[name][1].state.memory.values()]
    rows[name] = {"APFL": own_accuracies(*mixed[name]).mean(), "α learned, mean": np.mean(alphas),
                  "pFedMe": own_accuracies(*follow[name]).mean()}
print(pd.DataFrame(rows).round(3).to_string())

# %% [markdown]
# TEXT
#
# ## Not one model, not fifty: as many as there are kinds
#
# Forty clients hold their phones in four ways: their images are turned by 0, 90, 180 or 270 degrees, and nobody says who belongs
# to whom. **IFCA** (Ghosh et al. 2020) sends k models; each client takes the one with the lowest loss on its own *training*
# examples, trains that one, and the server averages each over those who chose it. By hand that is a choice and a mean:

# %%
turned = rotated(mnist().partition(IID(), clients=40, seed=seed, test_fraction=0.5), groups=4)
small, group = mlp(784, 32, 10), np.arange(40) % 4
how = LocalSGD(lr=0.1, epochs=2, batch_size=10)

def choices(models):
    """(K,) the number of the model with the lowest loss on each client's training examples."""
    losses = np.empty((len(turned), len(models)))
    for k, client in enumerate(turned.ids):
        x, y = turned.examples(client)
        for j, w in enumerate(models):
            z = small.predict(w, x)
            losses[k, j] = np.mean(np.log(np.exp(z).sum(axis=1)) - z[np.arange(len(y)), y])
    return losses.argmin(axis=1)

def ifca(models, rounds):
    trainer = Trainer(how, small, turned)
    for _ in range(rounds):
        chosen = choices(models)
        tasks = [Task(client, Server(models[j]), seed) for client, j in zip(turned.ids, chosen)]
        deltas = np.array([update.delta for update in trainer.train(tasks)])
        models = [w + deltas[chosen == j].mean(axis=0) if (chosen == j).any() else w
                  for j, w in enumerate(models)]
    return models

different = [small.init(stream(seed, "model", j)) for j in range(4)]
alike = [different[0]] * 4
print(pd.crosstab(group, choices(ifca(different, 10)), rownames=["turned"], colnames=["chose"]))

# %% [markdown]
# Every row has one entry: the groups have been found without being named. Does it matter where the k models begin?

# %%
print(pd.crosstab(group, choices(ifca(alike, 10)), rownames=["turned"], colnames=["chose"]))

# %% [markdown]
# From four equal models everybody takes the first; it is trained, the others are not, so it stays the best of all for everybody. The rich
# get richer, and IFCA has become FedAvg. It needs models that begin differently enough to suit somebody (the paper's theorem asks for
# a start near the truth; its experiments try several).
#
# ### Reproduction card: who belongs to whom
#
# | | the paper | here (the cell below) |
# |---|---|---|
# | claim | Ghosh et al. 2020: IFCA finds the groups of rotated digits, and one model for all is worse | share assigned rightly, first line; accuracies below |
# | bad start | its theorem needs a start near the groups' own models | from equal models one is used, second line |
# | what differs | 1,200 or more clients, k = 4 rotations of all of MNIST | 40 clients of 50 training images, 15 rounds, half of them a round |

# %%
def clustered(first=None):
    fed = Coordinator(turned, Clusters(small, k=4), LocalSGD(0.1, 2, 10, personal=IFCA()),
                      Synchronous(0.5), evaluation=Evaluation(every=15), seed=seed)
    history = fed.train(15, None if first is None else fed.initial(np.concatenate(first)))
    return fed, history

def rightly(chosen):
    """The share of the clients whose model is that of most of their group, if no two groups share one."""
    table = pd.crosstab(group, chosen)
    return table.max(axis=1).sum() / 40 if table.idxmax(axis=1).is_unique else 0.25

ifca_run, collapsed = clustered(), clustered(alike)
one = Coordinator(turned, small, how, Synchronous(0.5), evaluation=Evaluation(every=15), seed=seed).train(15)
assigned = assignments(ifca_run[0], ifca_run[1].state)
print(f"assigned rightly {rightly(assigned):.0%}")
print("models in use from equal ones:", len(set(assignments(collapsed[0], collapsed[1].state))))
print(f"own tests: IFCA {own_accuracies(*ifca_run).mean():.3f}, one model for all "
      f"{one.records[-1].metrics['client_accuracy']:.3f}, from equal models "
      f"{own_accuracies(*collapsed).mean():.3f}")
down = [sum(history.records[-1].bytes_down.values()) // 20 for history in (ifca_run[1], one)]
print(f"bytes down, one client: {down[0]:,} for k = 4 models, {down[1]:,} for one")

# %% tags=["proof"]
# Report, open me: the bands of the card
assert rightly(assigned) == 1.0
assert len(set(assignments(collapsed[0], collapsed[1].state))) == 1
assert own_accuracies(*ifca_run).mean() > one.records[-1].metrics["client_accuracy"] + 0.15
report(assigned_rightly=rightly(assigned))

# %% [markdown]
# ## A model that is good to start from
#
# So far the global model was trained to be good as it is, and adapted afterwards. **Per-FedAvg** (Fallah et al. 2020) trains it
# to be good *after* the client's adaptation: it wants $L_k(w - \eta_i\nabla L_k(w))$ to be small, the loss after one inner step. Its
# gradient is, by the chain rule,
#
# $$\big(I - \eta_i\,\nabla^2 L_k(w)\big)\;\nabla L_k\big(w - \eta_i\,\nabla L_k(w)\big).$$
#
# The *first-order* version leaves the bracket out. Is that the same? One parameter, two clients, a steep bowl at -1 and a flat one
# at +1; the inner step has $\eta_i$ = 0.8:

# %%
steep, middle, inner = np.array([1.0, 0.2]), np.array([-1.0, 1.0]), 0.8
shrink = 1 - inner * steep                        # what an inner step leaves of the distance
w = np.linspace(-1.4, 1.4, 200)[:, None]
before = (steep / 2 * (w - middle) ** 2).mean(axis=1)
after = (steep / 2 * (shrink * (w - middle)) ** 2).mean(axis=1)

def rest(factor):
    """Where Σ factor · (w - middle) is zero."""
    return (factor * middle).sum() / factor.sum()

rests = {"FedAvg": rest(steep), "first order": rest(steep * shrink), "exact": rest(steep * shrink**2)}

# %%
figure, (ax,) = canvas(1, width=6)
ax.plot(w, before, label="mean loss as downloaded")
ax.plot(w, after, label="mean loss after the inner step")
for (name, at), marker in zip(rests.items(), "osD"):
    here = (steep / 2 * (shrink * (at - middle)) ** 2).mean()
    ax.plot(at, here, marker, markersize=9, label=f"{name} rests at {at:.2f}")
ax.set(xlabel="w", ylabel="mean loss", ylim=(0, 0.5))
show(figure, "08.inner_step")

# %% tags=["proof"]
# Proof, open me: the library's gradients vanish at these places
where = {"first": rests["first order"], "exact": rests["exact"]}
line = logistic(1, 1, SquaredError())             # weight and bias; x = 0, so the bias is w
for order, at in where.items():
    total = 0.0
    for a, m in zip(steep, middle):               # loss (w - m)², curvature 2: scaled by a/2 in the sum
        scale = np.sqrt(a / 2)
        example = np.zeros((1, 1)), np.array([[m]])
        g = meta_gradient(line, np.array([0.0, at]), example, example, inner * a / 2, order)
        total += a / 2 * g[1]
    assert abs(total) < 1e-5

# %% [markdown]
# FedAvg rests near the steep client, whose loss is the larger one. But that client gets home in one inner step from anywhere; it is
# the flat one that needs a good start. The exact gradient knows this and rests on the flat client's side, first order half-way.
# Without adaptation ($\eta_i$ = 0) all three are one.
#
# The two gradients need care about *which* examples: the inner step learns from one part (*support*), the loss after it is
# measured on another (*query*). On the same part every overfitting looks good.
#
# **Newcomers** are the test of it: ten clients who never took part download the model, train for a moment, and are measured.

# %%
inside, outside = set_apart(taste, clients=10)
ways = {"FedAvg": FineTune(epochs=1), "Per-FedAvg, first order": PerFedAvg(0.1, order="first"),
        "Per-FedAvg, exact": PerFedAvg(0.1, order="exact")}
rows = {}
for name, method in ways.items():
    fed, history = federated(inside, method)
    rows[name] = {kind: each.mean() for kind, each in newcomers(fed, history.state, outside).items()}
print(pd.DataFrame(rows).T.round(3).to_string())

# %% [markdown]
# TEXT
#
# ## Adapters, and a trap
#
# A large model is adapted by a small addition: **LoRA** (Hu et al. 2021) keeps the weight matrix W and adds a product of two thin ones,
# $W + B_k A_k$, with r columns in $B_k$ and r rows in $A_k$. If the adapters stay at home, that is one more split.
# If they travel, the obvious server averages the $A_k$ and the $B_k$. Is that the average adapter?

# %%
rng = np.random.default_rng(seed)
A, B = rng.normal(size=(2, 1, 4)), rng.normal(size=(2, 3, 1))           # two clients, rank 1
mean_of_products = (B @ A).mean(axis=0)
product_of_means = B.mean(axis=0) @ A.mean(axis=0)
gap = mean_of_products - product_of_means
exactly = ((B - B.mean(axis=0)) @ (A - A.mean(axis=0))).mean(axis=0)
print(f"means differ by {np.abs(gap).max():.3f}; what is missing, by formula {np.abs(exactly).max():.3f}")
print("ranks:", np.linalg.matrix_rank(mean_of_products), np.linalg.matrix_rank(product_of_means))

# %% tags=["proof"]
# Proof, open me: what is missing is the covariance of the factors, and the library says the same
assert np.allclose(gap, exactly)
by_library = trap(A, B)
assert np.allclose(by_library[0] - by_library[1], gap)

# %% [markdown]
# The product of the means lacks the *covariance* of the factors, $\frac1n\sum_k (B_k-\bar B)(A_k-\bar A)$, and cannot have it: the mean of
# two rank-1 products has rank 2. Clients that adapt in the same direction with other signs show it worst: $(-B)(-A) = BA$, but the means
# of $\pm B$ and $\pm A$ are zero. Send one factor and keep the other fixed, or keep both at home:

# %%
adapted = LoRA(model, layers="dense0", rank=2)
kept = Split(adapted, personal=("dense0.lora_a", "dense0.lora_b"))
lora = {name: federated(of, FedPer(), kept) for name, of in data.items()}
print(f"{kept.dim:,} numbers travel; {adapted.dim - kept.dim:,} stay with each client")
print({name: round(own_accuracies(*run).mean(), 3) for name, run in lora.items()})

# %% [markdown]
# ## Move the sliders
#
# Which layers stay at home, how many epochs of fine-tuning at the end, and how tight a rope holds them. The bars are clients by the
# accuracy of their own model, beside what they reach alone. Start with an own taste and no fine-tuning; then try the deal
# of two digits, and find a setting in which fewer clients are left behind than alone. Then the own hand: is there any?

# %%
from fl_course.workbook.widgets.personalisation import personalisation_explorer

personalisation_explorer()

# %% [markdown]
# ## Who should do what?
#
# All methods on all deals, each client measured with its own model on its own tests: the mean, the worst tenth, and how many clients
# are better off than alone.

# %%
def judged(name, each):
    return {"mean": each.mean(), "worst tenth": np.sort(each)[:5].mean(),
            "gain over alone": np.mean(each > base[name]["local only"])}

final = {}
for name in data:
    rows = {**base[name], "fine-tuned, 5 epochs": tuned[name][5], **own[name],
            "Ditto, λ = 0.1": own_accuracies(*federated(data[name], Ditto(0.1))),
            "APFL": own_accuracies(*mixed[name]), "adapters at home": own_accuracies(*lora[name])}
    final[name] = pd.DataFrame({method: judged(name, each) for method, each in rows.items()}).T
print(pd.concat(final, axis=1).round(2).to_string())

# %% [markdown]
# TEXT
#
# ## What goes wrong

# %% tags=["nbval-check-output"]
with refusal():
    Split(model, personal="dens1")
with refusal():
    Coordinator(taste, model, LocalSGD(personal=FedRep(5)))                    # no layer is personal
with refusal():
    PFedMe(lam=15.0, lr=1.0)

# %% [markdown]
# ## Summary
