# %% [markdown]
# # 9 · Attacks and defences
#
# The server averages what strangers send. What can a stranger do with that? And what can the server do with what honest people
# send?
#
# **You will be able to**
# - break a mean with one client, and say for each robust rule how many liars it bears and what it costs when nobody lies;
# - write attacks that hide among honest updates, and a backdoor that needs one client and one round;
# - read an image out of an update, and say when that fails and why this is no protection.
#
# About 150 minutes for a newcomer, the exercises not counted. You need chapters 1 and 2; for "What does the server read?" chapter
# 3 (an image out of a gradient, clipping, noise, ε); for the end of "What goes wrong" chapter 4 (masks). In the library:
# `fl_course/robustness/coordinates.py` and `fl_course/robustness/krum.py` (rules), `fl_course/robustness/before.py` (what may
# stand before a rule), `fl_course/robustness/attacks.py` and `fl_course/robustness/backdoor.py` (attacks),
# `fl_course/robustness/inversion.py` (images out of updates).

# %% tags=["parameters"]
rounds: int = 30  # rounds of a run
card_rounds: int = 100  # rounds of the reproduction card on bucketing
seed: int = 0  # every random choice follows from it

# %%
import numpy as np
import pandas as pd

from fl_course import *
from fl_course.engine.training import Trainer
from fl_course.workbook import report
from fl_course.workbook.lesson import canvas, refusal, show
from fl_course.workbook.widgets.robustness import answers, draw_updates, honest_points

# %% [markdown]
# | sign | what it is |
# |---|---|
# | $n$ | clients in a round, honest or not |
# | $f$ | how many of them may lie, as far as the *rule* assumes |
# | $x_i$ | the update of client $i$: what it sends, a vector of $d$ numbers |
# | $\mu$, $\sigma$ | mean and deviation of the honest updates, coordinate by coordinate |
# | $m$ | how many of the clients *do* lie |
# | $s$ | in ALIE: how many honest votes the liars need besides their own; from the section on costs on: size of a bucket |
# | $z$ | a number of standard deviations: of an outlier from the middle, of ALIE's lie from $\mu$; in "What does the server read?" the noise multiplier of chapter 3 |
# | $\Phi$ | share of normally distributed numbers that lie below a value |
# | $\varepsilon$ | IPM's factor; where noise and masks are spoken of, the privacy budget of chapter 3 |
# | $\nu$ | a number, tiny against the distances at hand, that keeps a division by zero away |
# | $\alpha$ | of the Dirichlet partition (chapter 2): the smaller, the more the clients differ |
# | $\gamma$, $\eta$ | what an attacker multiplies its update by; the server's learning rate, here 1 |
# | $G$, $X$, $L$ | models: as sent out, as the attacker wants it, as it pretends to have trained |
# | $v$; $C$ | the last answer of centred clipping; the norm to which an update is clipped (chapter 3) |
#
# A client that does not do what it was asked is called **[[Byzantine]]**: it may be broken, or it may lie on purpose, and it may
# send anything.
#
# ## What can one liar do to a mean?
#
# Twenty-five clients hold the handwritten digits, each with a taste for some of them. First the case without any liar: what does
# a client reach alone, what if all data were in one place, and what do they reach together?

# %%
data = digits().partition(Dirichlet(0.3), clients=25, seed=seed)
model, training = mlp(64, 32, 10), LocalSGD(lr=0.1, epochs=1, batch_size=10)

def run(rule=None, attack=None, data=data, rounds=rounds, **more):
    how = {"weights": Uniform(), "aggregation": rule or WeightedMean(), "attack": attack,
           "seed": seed, **more}
    return Coordinator(data, model, training, Synchronous(1.0), **how).train(rounds)

def held_out(params):
    return np.mean(model.predict(params, data.x_test).argmax(axis=1) == data.y_test)

# %%
start = run(rounds=0).state.server
for_long = Trainer(LocalSGD(lr=0.1, epochs=rounds, batch_size=10), model, data)
models = [start.params + update.delta
          for update in for_long.train([Task(client, start, seed) for client in data.ids])]
together = run(data=digits().partition(IID(), clients=1, seed=seed))
alone = np.mean([held_out(params) for params in models])
print(f"a client alone: {alone:.0%} of the held-out digits, on average")
print(f"all data in one place: {together.series('accuracy')[-1]:.0%}")

# %% [markdown]
# Together they are far ahead of each alone. Now let some of them lie. Three kinds, each an object that says **which clients are its
# own** and **what it knows**:
#
# - `LabelFlip`: trains by the book, on wrong labels (a 0 is called 9, a 1 is called 8, …). It knows its own data.
# - `SignFlip`: sends −3 times its honest update. It knows its own update.
# - `GaussianNoise`: sends normal random numbers of deviation 1, about a hundred times as long as an honest update. It knows nothing.
#
# The plain mean stands between them and the model (`WeightedMean`, the library's usual rule; here all clients weigh the same).

# %%
def end(history, measure="accuracy"):
    return np.mean(history.series(measure)[-5:])

def row(history):
    return {"accuracy": end(history), "of the worst tenth": end(history, "client_accuracy_worst10")}

kinds = {"wrong labels": LabelFlip, "signs turned": lambda bad: SignFlip(bad, scale=3.0),
         "noise": GaussianNoise}
rows = {"nobody lies": row(run())}
for f in (1, 5):
    for name, kind in kinds.items():
        rows[f"{f} of 25: {name}"] = row(run(attack=kind(range(f))))
print(pd.DataFrame(rows).T.round(2).to_string())

# %% tags=["proof"]
# Proof, open me: federated beats alone, five liars who turn signs end it
table = pd.DataFrame(rows).T["accuracy"]
if rounds >= 30:
    assert alone + 0.1 < table["nobody lies"] <= end(together) + 0.02
    assert table["5 of 25: signs turned"] < 0.5 < table["nobody lies"] - 0.1

# %% [markdown]
# Turned signs are the worst of the three. The second column is the accuracy of the tenth of the clients that fares worst, each on
# test examples of its own. Lies cost them first: look at this column in every table of the chapter. But read it with care: a tenth
# of 25 is *two* clients (of ten, one), liars are counted like everybody, each of the two has 11 or 12 test examples, and all is one
# seed. One example more or less is 0.04, so 0.37 and 0.40 are the same; 0.45 and 0.25 are not.
#
# These liars are clumsy. One who knows what the others send can put the mean *anywhere*. Twenty-four honest clients send numbers
# near 1; the last one wants the mean to be −5:

# %% tags=["nbval-check-output"]
others = np.random.default_rng(0).normal(1.0, 0.1, size=24)
lie = 25 * -5.0 - others.sum()
print(f"it sends {lie:.1f}; the mean is then {np.append(others, lie).mean():.3f}")
print(f"the median is {np.median(np.append(others, lie)):.3f}")

# %% [markdown]
# The mean has no defence. The median has one: it looks at who stands in the *middle*, and cannot be bought by one client.
#
# **Try it.** Let `lie` be ten times as large. What happens to the mean, what to the median? How many of the 25 must lie before the
# median goes where they want?
#
# Answer: the mean moves ten times as far, the median not at all. 13 of 25: as soon as the middle one is a liar.
#
# ## A middle instead of a mean
#
# In $d$ dimensions there are several middles. Take points in a plane: twelve honest, three liars who all say the same. By hand,
# three rules of a few lines. The **coordinate-wise [[median]]** takes the median of each coordinate. The **[[trimmed mean]]**
# sorts each coordinate, drops the $f$ smallest and the $f$ largest, and averages the rest. The **[[geometric median]]** is the
# point whose distances to all others have the smallest sum. It is found by a weighted mean, again and again, in which the far
# ones weigh less (Weiszfeld's iteration):

# %%
honest, lie, f = honest_points(), np.array([4.0, 2.5]), 3
x = np.vstack([honest, [lie] * f])                                  # (15, 2): one row a client
ordered = np.sort(x, axis=0)
median = ordered[len(x) // 2]                                       # 15 is odd: one in the middle
trimmed = ordered[f:-f].mean(axis=0)
middle = x.mean(axis=0)
for _ in range(1000):
    far = np.maximum(1e-9, np.linalg.norm(x - middle, axis=1))      # 1e-9 is ν
    middle = (x / far[:, None]).sum(axis=0) / (1 / far).sum()

# %% tags=["proof"]
# Proof, open me: by hand and in the library, the same three points
assert np.allclose(median, CoordinateMedian(f)(x)) and np.allclose(trimmed, TrimmedMean(f)(x))
assert np.allclose(middle, GeometricMedian(f)(x), atol=1e-6)

# %% [markdown]
# How far does each answer lie from the honest mean, when the liars go farther and farther away?

# %%
figure, (left, right) = canvas(2, height=3.4)
found = {"mean": x.mean(axis=0), "median": median, "trimmed mean": trimmed,
         "geometric median": middle}
draw_updates(left, honest, np.array([lie]), found)
distances = np.geomspace(0.1, 1000, 40)
moved = {name: [np.linalg.norm(answers(honest, far * lie / np.linalg.norm(lie), f)[0][name])
                for far in distances] for name in found}
for name, line in moved.items():
    right.plot(distances, line, label=name)
right.set(xlabel="distance of the lie", ylabel="error of the answer", xscale="log", yscale="log")
show(figure, "09.middles")

# %% tags=["proof"]
# Proof, open me: the mean follows for ever, the others stop
assert moved["mean"][-1] > 100
assert all(moved[name][-1] < 1.5 for name in found if name != "mean")

# %% [markdown]
# None of them ignores the liars: three of fifteen votes shift the middle. But the shift stays **bounded**. How many votes does it
# take to lose the bound? That number is the **[[breakdown point]]**:

# %%
crowd = np.random.default_rng(seed).normal(size=(21, 2))

def breaks(rule):
    for liars in range(1, 22):
        answer = rule(np.vstack([crowd[liars:], np.full((liars, 2), 1e6)]))
        if np.linalg.norm(answer) > 1000:
            return liars

tried = {"mean": lambda points: points.mean(axis=0), "trimmed mean, f = 5": TrimmedMean(5),
         "median": CoordinateMedian(), "geometric median": GeometricMedian()}
points_of_no_return = {name: breaks(rule) for name, rule in tried.items()}
for name, liars in points_of_no_return.items():
    print(f"{name:20} is lost with {liars:2} liars of 21")

# %% tags=["proof"]
# Proof, open me: one, six, a majority
assert list(points_of_no_return.values()) == [1, 6, 11, 11]

# %% [markdown]
# 11 of 21 is the best that any rule can do: if the liars are the majority, *they* are the crowd. So every rule that shall withstand
# $f$ liars needs $n \geq 2f+1$ clients, some need more. You tell the library $f$, as in `CoordinateMedian(f=5)`, and it refuses an
# experiment with too few clients. (For the median $f$ changes nothing else: above it stood at 0.)
#
# ## Whom has the closest company?
#
# **[[Krum]]** (Blanchard et al. 2017) takes a whole update instead of mixing coordinates of different clients. It believes the one
# with the closest company: the score of $x_i$ is the sum of the *squared* distances to its $n-f-2$ nearest others, and the lowest
# score wins. By hand:

# %%
squared = ((x[:, None] - x[None]) ** 2).sum(axis=2)                 # (n, n)
np.fill_diagonal(squared, np.inf)                                   # nobody is his own neighbour
scores = np.sort(squared, axis=1)[:, : len(x) - f - 2].sum(axis=1)
best = scores.argsort()
print("scores of the honest:", scores[:12].round(1))
print("scores of the liars: ", scores[12:].round(1))
print("Krum chooses client", best[0])

# %% tags=["proof"]
# Proof, open me: Krum and Multi-Krum of the library, the same
assert np.allclose(x[best[0]], Krum(f)(x))
assert np.allclose(x[best[: len(x) - f]].mean(axis=0), MultiKrum(f)(x))

# %% [markdown]
# The three liars are very close *to each other*. Why do they not win? Each needs $n-f-2 = 10$ neighbours and has two liars; eight
# must be honest ones, far away. A liar has $f-1$ others like it; that these are fewer than $n-f-2$, so that the liars can never be
# their own company, takes $n \geq 2f+2$. Krum asks for one client more, $n \geq 2f+3$: its proof divides by $n-2f-2$.
# **Multi-Krum** averages the $n-f$ best. **Bulyan** (El Mhamdi et al. 2018) chooses $n-2f$ by repeated Krum, and then
# trims each coordinate; it needs $n \geq 4f+3$.
#
# **Try it.** Change `len(x) - f - 2` to `f - 1`: only two neighbours count. Who wins, and why?
#
# Answer: a liar. The three of them sit on one spot, so each has two neighbours at distance 0, and score 0.
#
# ## Drag the lie
#
# Twelve honest clients, and $f$ who all send the same point. Drag it, or move it by the arrow keys; every rule's answer moves.
# Go far out first: who follows? Then come close: where does the lie do most harm to the median? Raise $f$: when does Krum choose the
# lie, and when do rules give up? Then switch to *real updates*: the plane is that of the two directions in which twelve clients'
# updates of one round differ most, and the rules work with all 2,410 coordinates.

# %%
from fl_course.workbook.widgets.robustness import playground_explorer

playground_explorer()

# %% [markdown]
# Answer: in the plane, far out in a corner, the mean follows; removal and Multi-Krum leave the lie out; the others stop. With
# three liars the median is at most 0.53 off, and a lie one unit to the left of the middle does that already: going farther adds
# nothing. Krum chooses the lie where it stands near the middle, among the honest: with three liars hardly anywhere, with six as
# far as two units out. Bulyan gives up at $f=4$ (16 clients, and $4f+3=19$), Krum and Multi-Krum at 10, all but the mean at 12.
#
# **Try it.** Real updates, one attacker, the lie near the middle of the plane. Whom does Krum choose?
#
# Answer: the attacker. In 2,410 dimensions honest updates are far from *each other*: each differs in directions of its own. A
# point in their middle is closer to all of them than any of them is. Remember this for the attacks below.
#
# ## Can we not just remove the outliers?
#
# "Remove outliers" stands in many system designs. It needs a definition. The usual one, *more than three standard deviations from
# the mean*, does not work in a round of ten. Plant a norm of a million and look:

# %% tags=["nbval-check-output"]
norms = np.array([1.0, 1.1, 0.9, 1.2, 1.0, 0.8, 1.1, 0.9, 1.0, 1e6])
z = (norms - norms.mean()) / norms.std(ddof=1)
print(f"by mean and deviation: {z.max():.3f} deviations; (n - 1)/√n = {9 / np.sqrt(10):.3f}")
from_middle = norms - np.median(norms)
mad = np.median(np.abs(from_middle))
print(f"by median and MAD: {from_middle.max() / (1.4826 * mad):,.0f} deviations")

# %% [markdown]
# The outlier makes the deviation by which it is judged: among $n$ numbers none can be more than $(n-1)/\sqrt n$ deviations from the
# mean, 2.85 for ten. The cure is a middle again. The **[[MAD]]** is the median of the distances from the median; times 1.4826 it is
# the standard deviation of normal numbers. `OutlierRemoval` uses it on the norms, or on the distances from the
# coordinate-wise median. It reports **whom** it removed, and every record says how well: *precision*, how many of the removed
# were liars, and *recall*, how many of the liars were removed.

# %%
def score(history):                  # means over the rounds that have one: no precision of nobody
    table = pd.DataFrame([dict(record.metrics) for record in history.records])
    return {name: table.get(f"detection_{name}", pd.Series([np.nan])).mean()
            for name in ("precision", "recall")}

rows = {}
for name, kind in {**kinds, "ten times too long": Scaling}.items():
    for by in ("norm", "distance"):
        history = run(OutlierRemoval(by=by, f=5), kind(range(5)))
        rows[f"{name}, by {by}"] = {**score(history), **row(history)}
removal = pd.DataFrame(rows).T
print(removal.round(2).to_string())

# %% tags=["proof"]
# Proof, open me: noise is found, wrong labels hardly
assert removal.recall["noise, by norm"] == 1.0 and removal.recall["wrong labels, by norm"] < 0.5

# %% [markdown]
# (`Scaling` sends its honest update ten times too long.) Whoever is far away is found. Whoever trains by the book on wrong labels
# sends an update of ordinary length in a nearly ordinary direction. And a clever liar *chooses* how far away it is.
#
# **Try it.** `run(OutlierRemoval(cutoff=1.0, f=5), GaussianNoise(range(5)))`: a stricter cut-off than the usual 3.5. What happens to
# precision, recall and the worst tenth?
#
# Answer: recall stays at 1, precision falls from 0.99 to 0.77 (seed 0): honest clients who differ are removed with the liars. The
# worst tenth pays, 0.28 instead of 0.37.
#
# ## Hide in the crowd
#
# **[[ALIE]]**, "a little is enough" (Baruch et al. 2019): send $\mu - z\,\sigma$, coordinate by coordinate. All numbers are within
# the honest spread, and all err to the same side. $z$ is chosen so that enough honest clients lie farther out than the liars: of
# $n$ clients $m$ lie, they need $s = \lfloor n/2 + 1\rfloor - m$ more for a majority, and $z = \Phi^{-1}((n-m-s)/(n-m))$: the
# value below which that share of normally distributed numbers lies.
#
# **[[IPM]]**, inner product manipulation (Xie et al. 2020): send $-\varepsilon$ times the honest mean. With $\varepsilon = 0.1$
# that is a tiny step backwards. And **mimic** (Karimireddy et al. 2022): all liars copy *one* honest client, so nothing they send is
# even wrong (here the one that stands out most along the direction in which the updates differ most). All three know what the honest
# send in this round. None looks at the rule: an attacker who knows that, too, is stronger still.

# %%
from statistics import NormalDist

honest_now = Trainer(training, model, data).train([Task(c, start, seed) for c in data.ids])
deltas = np.array([update.delta for update in honest_now[5:]])      # clients 0 to 4 will lie
n, m = 25, 5
s = n // 2 + 1 - m
z = NormalDist().inv_cdf((n - m - s) / (n - m))
alie = deltas.mean(axis=0) - z * deltas.std(axis=0)
ipm = -0.1 * deltas.mean(axis=0)
print(f"z = {z:.3f}; an honest update is {np.linalg.norm(deltas, axis=1).mean():.2f} long, "
      f"ALIE's {np.linalg.norm(alie):.2f}, IPM's {np.linalg.norm(ipm):.3f}")

# %%
near = {"honest": deltas, "ALIE": alie[None], "IPM": ipm[None]}
far = {name: np.linalg.norm(lies - deltas.mean(axis=0), axis=1) for name, lies in near.items()}
for name, distance in far.items():
    print(f"{name:7} {distance.min():.2f} to {distance.max():.2f} from the honest mean")

# %% tags=["proof"]
# Proof, open me: the library's ALIE and IPM send the same; no honest client stands nearer
for attack, by_hand in ((ALIE(range(5)), alie), (IPM(range(5)), ipm)):
    assert np.allclose(attack.strike((), honest_now, None)[0].delta, by_hand, atol=1e-6)
assert max(far["ALIE"].max(), far["IPM"].max()) < far["honest"].min()

# %% [markdown]
# Both stand **nearer to the middle than any honest client**. No filter by distance can find them, and Krum, which looks for the
# closest company, will choose them. Now everybody against everybody: accuracy in the last five rounds, five of 25 lie. (One rule
# is new, and comes again with the backdoor: the *norm bound* shortens each update to a given length and takes the mean. `removal`
# goes by distance from the median, cut-off 3.5.)

# %%
attacks = {"nobody": None, **{name: kind(range(5)) for name, kind in kinds.items()},
           "ALIE": ALIE(range(5)), "IPM 0.1": IPM(range(5), 0.1), "mimic": Mimic(range(5))}
rules = {"mean": WeightedMean(), "removal": OutlierRemoval(f=5), "median": CoordinateMedian(5),
         "trimmed": TrimmedMean(5), "Krum": Krum(5), "Multi-Krum": MultiKrum(5),
         "geometric": GeometricMedian(5), "norm bound": NormBound(0.5, f=5)}
results = {name: {attack: row(run(rule, lies)) for attack, lies in attacks.items()}
           for name, rule in rules.items()}

# %%
grid = pd.DataFrame({name: {a: r["accuracy"] for a, r in those.items()}
                     for name, those in results.items()}).T
figure, (ax,) = canvas(1, width=7.2, height=3.9)
ax.imshow(grid, cmap="cividis", vmin=0, vmax=1, aspect="auto")
for (i, j), value in np.ndenumerate(grid.to_numpy()):
    ink = "white" if value < 0.5 else "#111111"
    ax.text(j, i, f"{value:.0%}", ha="center", va="center", color=ink)
ax.set_xticks(range(grid.shape[1]), grid.columns, rotation=20)
ax.set_yticks(range(grid.shape[0]), grid.index)
ax.set(xlabel="attack by 5 of 25", ylabel="rule")
show(figure, "09.rules_and_attacks")

# %%
worst = pd.DataFrame({name: {a: r["of the worst tenth"] for a, r in those.items()}
                      for name, those in results.items()}).T
print("accuracy")
print(grid.round(2).to_string())
print("\naccuracy of the worst tenth of the clients: two of 25")
print(worst.round(2).to_string())

# %% tags=["proof"]
# Proof, open me: what the text says about the table
if rounds >= 30:
    tiny = grid["IPM 0.1"]
    assert tiny["Krum"] < 0.3 and tiny["median"] < tiny["mean"]
    assert grid.loc["Multi-Krum", "noise"] > grid.loc["mean", "noise"] + 0.1
    assert grid.loc["median", "nobody"] < grid.loc["mean", "nobody"] - 0.1

# %% [markdown]
# Read it by columns. Against *noise* and *turned signs*, removal and Multi-Krum are worth their price: 84 % where the mean has 55
# and 25. Against *IPM*, a tiny step backwards, the plain mean (80 %) is **better** than the median (29 %), and Krum is at the
# level of guessing: it chooses the liars' update, round after round, and the model creeps backwards.
#
# ALIE surprises: it *helps* some rules. The median has 53 % with no liar and 74 % under ALIE, Krum 54 % and 77 %. The lie is
# $\mu - 0.25\,\sigma$, nearly the honest mean, and a rule that picks it does better than with the update of a single client, or than
# with the middle of clients that differ. What ALIE harms is a mean: 84 % becomes 83 % here, 91 % becomes 84 % with seed 3.
#
# Read by rows, the accuracy of removal is never below that of the mean, and here it costs nothing while nobody lies (with seed 5
# it does: 82 % against 85). But against ALIE and IPM it finds nobody, and *is* the mean, and against mimic it hardly differs. No
# rule of the table does better than the mean against these three. So there is no best rule; there is a rule for an attacker. All
# this is one seed. With seeds 0 to 5 the mean without liars has 84 to 91 % (worst tenth 0.45 to 0.66), the median 44 to 69 %
# (0.04 to 0.27) and under ALIE 59 to 80 %, Krum under IPM 3 to 10 %.
#
# **Try it.** Let ALIE go farther: `run(rule, ALIE(range(5), z=3.0))` with the mean, with removal, with the median. Why did its
# authors choose a small $z$?
#
# Answer: with seed 0 the mean falls to 23 %, but removal finds all five in every round (84 %). The median is at 36 %, as it is
# with $z = 1$: once all five liars stand below the eighth honest value, that one is the middle of the 25, and how much farther they
# go makes no difference. A small $z$ does less harm and is never found.
#
# And now read the first column of the table again. Nobody lies there.
#
# ## What does robustness cost when nobody lies?
#
# Median and Krum lose more than a third of the accuracy *without an attacker*, and of the worst tenth's more than two thirds: 0.45
# becomes 0.13 and 0.08. Clients differ. A
# rule that throws away what differs throws away those who hold rare digits. Make the clients alike (large α), and most of the loss
# is gone:

# %%
costs = {}
for alpha in (0.1, 0.3, 1.0, 100.0):
    alike = digits().partition(Dirichlet(alpha), clients=25, seed=seed)
    costs[f"α = {alpha:g}"] = {name: end(run(rules[name], data=alike))
                               for name in ("mean", "geometric", "median", "Krum")}
print(pd.DataFrame(costs).round(2).to_string())

# %% tags=["proof"]
# Proof, open me: alike clients lose little
if rounds >= 30:
    assert costs["α = 100"]["median"] > costs["α = 100"]["mean"] - 0.04
    assert costs["α = 0.1"]["median"] < costs["α = 0.1"]["mean"] - 0.1

# %% [markdown]
# (The loss does not shrink step by step: the median has 0.64 at α = 0.1 and 0.53 at α = 0.3. Each column is one partition of one
# seed.)
#
# So make the updates alike before the rule sees them. **[[Bucketing]]** (Karimireddy et al. 2022): shuffle the clients, average
# groups of $s$, and give the *averages* to the rule. An average of two differs half as much (in squares) from the mean of all. The
# price: one liar spoils a whole bucket, so of $\lceil n/s\rceil$ rows still $f$ are bad. **[[Nearest-neighbour mixing]]** (Allouah
# et al. 2023) replaces each update by the mean of its $n-f$ nearest. By hand:

# %%
order = np.random.default_rng(0).permutation(len(x))
buckets = np.array([x[order[i : i + 2]].mean(axis=0) for i in range(0, len(x), 2)])
apart = np.linalg.norm(x[:, None] - x[None], axis=2)
closest = np.argsort(apart, axis=1, kind="stable")[:, : len(x) - f]   # itself first, at distance 0
mixed = x[closest].mean(axis=1)
spread = {"as sent": honest, "mixed": mixed[:12]}
for name, points in spread.items():
    off = np.linalg.norm(points - points.mean(axis=0), axis=1).mean()
    print(f"{name:8} honest points are {off:.2f} from their mean")
print(f"{len(x)} points in {len(buckets)} buckets, at most {f} of them spoilt")

# %% tags=["proof"]
# Proof, open me: mixing by hand, then the median, is the library's
mixing = NearestNeighbourMixing(CoordinateMedian(f))
assert np.allclose(mixing(x), CoordinateMedian(f)(mixed))
assert Bucketing(CoordinateMedian(f), s=2).least == 2 * (2 * f + 1 - 1) + 1

# %% [markdown]
# ### Reproduction card: robust rules lose when nobody attacks, and bucketing mends it
#
# The paper trains on MNIST with one kind of digit a client, one gradient a round. Its authors keep the raw logs of their runs
# beside the program; the numbers below are recomputed from them (accuracy in %, rule alone → with bucketing, s = 2):
#
# | | mean | geometric median (RFA) | median | Krum |
# |---|---|---|---|---|
# | nobody attacks, n = 24, 4,500 rounds | 98.75 → 98.74 | 82.60 → 97.34 | 80.36 → 95.59 | 89.90 → 93.27 |
# | mimic, n = 25, f = 5, 600 rounds | 92.73 → 92.67 | 78.93 → 91.17 | 64.27 → 78.60 | 37.33 → 53.15 |
# | IPM 0.1, n = 25, f = 5 | | 14.61 → 90.60 | 50.27 → 67.52 | 36.93 → 54.09 |
# | ALIE, momentum 0.9, n = 25, f = 5 | | 11.37 alone | 9.94 alone | 11.37 alone |
#
# (Blank: no number was taken from the logs.)
#
# Here: 1,437 digits of 8 × 8 pixels sorted by label, a slice each, one full gradient a round, `card_rounds` rounds, learning rate
# 0.3.

# %%
one_step = LocalSGD(lr=0.3, epochs=1, batch_size=None)

def card(rule, attack, clients):
    sorted_by_label = digits().partition(Shards(1), clients=clients, seed=seed)
    how = {"weights": Uniform(), "aggregation": rule, "attack": attack, "seed": seed,
           "evaluation": Evaluation(every=5)}
    fed = Coordinator(sorted_by_label, model, one_step, Synchronous(1.0), **how)
    return 100 * np.nanmean(fed.train(card_rounds).series("accuracy")[-20:])

tried = {"geometric": GeometricMedian, "median": CoordinateMedian, "Krum": Krum}
settings = {"nobody attacks": None, "mimic by 5": Mimic(range(5)),
            "IPM 0.1 by 5": IPM(range(5), 0.1), "ALIE by 5": ALIE(range(5))}
both = {}
for setting, lies in settings.items():
    clients, f = (24, 0) if lies is None else (25, 5)
    both[setting] = {"mean": (card(WeightedMean(), lies, clients),)}
    for name, rule in tried.items():
        both[setting][name] = (card(rule(f), lies, clients),
                               card(Bucketing(rule(f), s=2), lies, clients))

# %%
shown = {setting: {name: " → ".join(f"{value:.1f}" for value in values)
                   for name, values in those.items()} for setting, those in both.items()}
print(pd.DataFrame(shown).T.to_string())

# %% tags=["proof"]
# Report, open me: the bands of the card
calm, under_ipm = both["nobody attacks"], both["IPM 0.1 by 5"]
if card_rounds >= 100:
    for name in ("median", "Krum"):
        assert calm[name][0] < calm["mean"][0] - 30, "robust rules did not lose"
        assert calm[name][1] > calm[name][0] + 10, "bucketing did not mend it"
    assert under_ipm["geometric"][0] < 40 < under_ipm["geometric"][1] - 20
    for setting in ("mimic by 5", "IPM 0.1 by 5", "ALIE by 5"):
        assert both[setting]["median"][0] < both[setting]["mean"][0] - 15, "the median withstood"
report(median_alone=calm["median"][0], median_bucketed=calm["median"][1],
       geometric_under_ipm=under_ipm["geometric"][0],
       geometric_under_ipm_bucketed=under_ipm["geometric"][1])

# %% [markdown]
# | | the paper (Karimireddy et al. 2022) | here (the cells above) |
# |---|---|---|
# | nobody attacks | every robust rule loses, bucketing mends it | median and Krum lose much more, the geometric median little; bucketing mends most of it. Seeds 0 to 9: median 24 to 58 → 60 to 81, Krum 26 to 36 → 54 to 71 |
# | mimic | median and Krum fall far below the mean, bucketing brings them back in part | the same, and farther: also with bucketing they stay far below it |
# | IPM | the geometric median falls to 15 and comes back to 91 with bucketing | the geometric median does the same: 7 to 10 → 72 to 81. Median and Krum are mended in part only, and all stay below the plain mean (above, seed 0) |
# | ALIE | all three end at the level of guessing | **not** so: 43 to 72, clearly below the mean; bucketing brings the geometric median back, not Krum (above, seed 0). There is no momentum here |
# | what differs | MNIST, a larger network, momentum in some runs, 600 to 4,500 rounds, 3 seeds | digits, 2,410 parameters, 100 rounds, one seed |
#
# **Try it.** `card(Bucketing(CoordinateMedian(0), s=4), None, 24)`: a rule that is held to no liar at all. Why does a larger bucket
# help, and why not take $s = 24$?
#
# Answer: 90 % instead of 78 % (seed 0): the averages of four are more alike. One bucket of 24 is the mean, and the defence is gone:
# of $\lceil n/s\rceil$ buckets the rule must bear $f$ bad ones.
#
# ## A backdoor
#
# So far the attacker wanted a *bad* model. A **[[backdoor]]** is worse to notice: the model reads digits as before, but whoever
# draws a black square into the corner gets the answer 0. The attacker trains on its own examples, some of them stamped and
# labelled 0. How well it works is the **backdoor success**: the share of the held-out digits *other than 0* that are read as 0 once
# they are stamped. (In the code, `share` is the part of its examples that it stamps, `versions` the rounds in which it strikes.) Its
# update alone would drown among ten. So it says (Bagdasaryan et al. 2020), with its model $X$ and the broadcast
# model $G$:
#
# $$L = \gamma\,(X - G) + G, \qquad \gamma = n/\eta,$$
#
# where $\eta$ is the server's learning rate, here 1. It sends $L$, that is, the update $L - G = \gamma\,(X - G)$. What happens to
# the mean of ten clients if the other nine hardly move any more?

# %%
ten = digits().partition(Dirichlet(100.0), clients=10, seed=seed)
strike = rounds + 10                                               # the round of the attack
door = Backdoor([0], target=0, versions=(strike,), share=0.3, epochs=10)
settled = run(data=ten, rounds=strike).state.server
tasks = [Task(client, settled, seed) for client in ten.ids]
sent = [update.delta for update in Trainer(training, model, ten).train(tasks)]
own = Trainer(LocalSGD(lr=0.1, epochs=10, batch_size=10), model, door.stamped(ten, seed))
wanted = own.train(tasks[:1])[0].delta                             # X - G
sent[0] = 10 * wanted                                              # γ = n/η = 10
gap = np.linalg.norm(np.mean(sent, axis=0) - wanted) / np.linalg.norm(wanted)
print(f"the mean misses the attacker's model by {gap:.0%} of the way to it")

# %%
figure, (left, right) = canvas(2)
stamp = door.trigger_of(ten).stamp(ten.x_test[:1])
left.imshow(stamp.reshape(8, 8), cmap="gray_r", vmin=0, vmax=1)
left.set(title="with the trigger: to be read as 0", xticks=[], yticks=[])
history = run(attack=door, data=ten, rounds=strike + 21)
right.plot(history.series("accuracy"), label="accuracy")
right.plot(history.series("backdoor_success"), label="backdoor success")
right.set(xlabel="round", ylabel="share of the held-out digits", ylim=(0, 1.02))
show(figure, "09.backdoor")

# %%
success = np.array(history.series("backdoor_success"))
accuracy = np.array(history.series("accuracy"))
for after in (-1, 0, 1, 5, 10, 20):
    print(f"{after:3} rounds after the attack: backdoor {success[strike + after]:.0%}, "
          f"accuracy {accuracy[strike + after]:.0%}")

# %% tags=["proof"]
# Proof, open me: the library sends what we sent by hand; one round is enough
how = {"weights": Uniform(), "attack": door, "seed": seed}
ctx = Context(seed, settled, experiment=Coordinator(ten, model, training, Synchronous(1.0), **how))
struck = door.strike(tasks, Trainer(training, model, ten).train(tasks), ctx)
assert np.allclose(struck[0].delta, sent[0], atol=1e-3)
if rounds >= 30:
    assert success[strike - 1] < 0.2 < 0.6 < success[strike]

# %% [markdown]
# ### Reproduction card: model replacement
#
# | | the paper (Bagdasaryan et al. 2020) | here (the cells above) |
# |---|---|---|
# | claim | a single attacker, selected in a single round, is enough, and far ahead of poisoned data alone | one round with γ = 10: see above; without the boost (γ = 1): the number below |
# | how long it lasts | | see above: it fades, and a part of it is still there after 20 honest rounds |
# | what differs | images and word prediction, a few clients of many in each round | digits with a stamped corner, ten clients who all take part, 10 local epochs of the attacker |
#

# %%
plain = Backdoor([0], target=0, versions=(strike,), share=0.3, epochs=10, gamma=1.0)
unboosted = run(attack=plain, data=ten, rounds=strike + 1).series("backdoor_success")[-1]
print(f"backdoor after one round: γ = 10 {success[strike]:.0%}, γ = 1 {unboosted:.0%}; "
      f"γ = 10 after 20 honest rounds {success[strike + 20]:.0%}")

# %% tags=["proof"]
# Report, open me: the bands of the card
if rounds >= 30:
    assert unboosted < 0.2 and success[strike] > 0.6
    assert success[strike] > success[strike + 20] > 0.1
report(backdoor_at_once=success[strike], backdoor_after_20=success[strike + 20])

# %% [markdown]
# **Try it.** `Backdoor([0], …, gamma=3.0)` and `gamma=20.0`: what changes in the round of the attack?
#
# Answer: with γ = 3 next to nothing happens (1 %): a third of the way to the attacker's model is not yet a backdoor. With γ = 20 the
# backdoor is at 100 %, but the model overshoots: its accuracy falls to 72 % (seed 0), which somebody will notice.
#
# Who stops it? The lie is long: γ = 10 times. A **norm bound** shortens every update to a given length; removal leaves out
# whoever is too long. What would the attacker do then? Come every round, without a boost, with two of ten clients:

# %%
once, slowly = door, Backdoor([0, 1], target=0, share=0.3, gamma=1.0, epochs=10)
defences = {"mean": WeightedMean(), "norm bound 0.5": NormBound(0.5, f=2),
            "removal": OutlierRemoval(f=2), "median": CoordinateMedian(2),
            "Multi-Krum": MultiKrum(2), "geometric": GeometricMedian(2)}
rows = {}
for name, rule in defences.items():
    one, every = (run(rule, attack, ten, strike + 5) for attack in (once, slowly))
    rows[name] = {"one round, γ = 10": np.max(one.series("backdoor_success")[-5:]),
                  "every round, no boost": end(every, "backdoor_success"),
                  "accuracy then": end(every),
                  "worst tenth then": end(every, "client_accuracy_worst10")}
print(pd.DataFrame(rows).T.round(2).to_string())

# %% tags=["proof"]
# Proof, open me: every rule but the mean stops the long update; patience gets past the bound
stops = pd.DataFrame(rows).T
if rounds >= 30:
    assert stops["one round, γ = 10"].drop("mean").max() < 0.3 < stops["one round, γ = 10"]["mean"]
    assert stops["every round, no boost"]["norm bound 0.5"] > 0.4

# %% [markdown]
# The last two columns belong to the patient attack. Every rule but the mean stops the long update of one client. Patience gets
# past a bound on the length, and partly past the geometric median: two of ten clients who train by the book *on poisoned
# examples* pull a little, in every round. Here, where the honest clients are alike, rules that leave out whoever differs hold.
# The accuracy of the patient attack says nothing, in any row: without the trigger nobody sees the backdoor. (The long update
# could be seen: in its round accuracy fell from 96 to 92 %.)
#
# ### Ask somebody you trust
#
# **FLTrust** (Cao et al. 2021) asks somebody it can trust: the server itself. It keeps a few clean examples (a *root set*),
# trains on them as a client would, and counts each update by the cosine of the angle to its own, none if negative; all are
# brought to the length of its own. **[[Centred clipping]]** (Karimireddy et al. 2021) remembers instead: it starts from the last
# round's answer $v$ and moves by the mean of the differences $x_i - v$, each shortened to a radius. Its centre travels in the
# server's state, so a run that is cut and continued stays the same.

# %%
pool = digits()
root = Dataset("root", pool.x[:60], pool.y[:60], 10, pool.x_test, pool.y_test)
rest = Dataset("rest", pool.x[60:], pool.y[60:], 10, pool.x_test, pool.y_test)
rest = rest.partition(Dirichlet(0.3), clients=25, seed=seed)
asked = {"mean": WeightedMean(), "FLTrust": FLTrust(root),
         "centred clipping": CentredClipping(0.3, f=5)}
rows = {name: {attack: end(run(rule, attacks[attack], rest))
               for attack in ("nobody", "signs turned", "noise", "ALIE", "IPM 0.1")}
        for name, rule in asked.items()}
print(pd.DataFrame(rows).T.round(2).to_string())
small = run(data=root.partition(IID(), clients=1, seed=seed))
print(f"the server's 60 examples alone: {small.series('accuracy')[-1]:.0%}")

# %% [markdown]
# Two things to ask before you use them. FLTrust: where does a clean root set come from, and what do its examples reach without
# any client? Here the 60 alone reach 65 %: more than FLTrust with 25 clients after as many rounds, but for ALIE (79 %). The 60
# hold all ten digits; a client that holds a few kinds points elsewhere and hardly counts, ALIE's lie is nearly the mean of all.
# Centred clipping: a radius that is too small is slow, one that is too large is the mean. It is far better than the mean against
# turned signs and noise, and a little below it under ALIE and IPM.
#
# ## What does the server read?
#
# Now turn round: the clients are honest, and the *server* is curious. Chapter 3 divided the gradient of a row of $W$ by that of
# its bias, and the image was on the table. How exactly, and how much noise does it bear? The update is clipped to norm
# $C = 1$, and normal noise of deviation $z\,C$ is added to each number. How near a guess is to the image is said in decibels
# ([[PSNR]]):

# %%
def phone(many, epochs=1, batch=None, first=0):
    """The update of one client with so many images, and the images."""
    those = slice(first, first + many)
    own = from_clients("a phone", {"phone": (pool.x[those], pool.y[those])}, 10,
                       pool.x_test, pool.y_test, test_fraction=0.0)
    trainer = Trainer(LocalSGD(lr=0.1, epochs=epochs, batch_size=batch), model, own)
    return trainer.train([Task("phone", start, seed)])[0].delta, pool.x[those].reshape(many, -1)

delta, images = phone(1)
row_of, bias = delta[: 32 * 64].reshape(32, 64), delta[32 * 64 : 32 * 65]
by_hand = row_of[np.abs(bias).argmax()] / bias[np.abs(bias).argmax()]
print(f"no noise: {psnr(images[0], by_hand):.0f} dB; above 30 dB the eye sees no difference")

# %%
def tile(ax, image, title):
    ax.imshow(np.reshape(image, (8, 8)), cmap="gray_r", vmin=0, vmax=1)
    ax.set_title(title, fontsize=9)
    ax.set(xticks=[], yticks=[])

figure, axes = canvas(6, width=1.6, height=1.9)
tile(axes[0], images[0], "the image")
noise, quality = stream(seed, "lesson 9").standard_normal(model.dim), {}
for ax, z in zip(axes[1:], (0.0, 1e-4, 1e-3, 1e-2, 1e-1)):
    noisy = delta * min(1, 1 / np.linalg.norm(delta)) + z * noise
    guess = np.clip(closed_form(model, noisy), 0, 1)
    quality[z] = psnr(images[0], guess)
    tile(ax, guess, f"z = {z:g}: {quality[z]:.0f} dB")
show(figure, "09.noise")

# %% tags=["proof"]
# Proof, open me: by hand as in the library; exact without noise, gone at a hundredth of the clip
assert np.allclose(by_hand, closed_form(model, delta))
assert quality[0.0] > 100 and quality[1e-2] < 20

# %% [markdown]
# *Who sees this?* Whoever sees single updates: without masks or noise at the client, the server does.
#
# **Try it.** Is it only the untrained model that leaks? Put `start = run().state.server` above `phone(1)`.
#
# Answer: no. The trained model gives the image away as exactly, 142 dB. As long as the client's step is not zero, the quotient
# works.
#
# ### "Why does my reconstruction fail?"
#
# A question that is asked in public again and again: *the attack of the papers works on my gradients, but not on the updates of
# my federation, which come of batches of 32 and three epochs. Why?* Let us take it apart: one step on more and more images, then
# batches (of 10, so that 32 images make several) and epochs. From an update of one step, each hidden unit offers its own guess,
# row over bias. For every image we take the best guess:

# %%
cases = {"1 image, 1 step": (1, 1, None), "1 image, 10 epochs": (1, 10, None),
         "2 images, 1 step": (2, 1, None), "4 images, 1 step": (4, 1, None),
         "8 images, 1 step": (8, 1, None), "32 images, 1 step": (32, 1, None),
         "32 images, batches of 10, 1 epoch": (32, 1, 10),
         "32 images, batches of 10, 3 epochs": (32, 3, 10)}
rows, pictures = {}, {}
for name, (many, epochs, batch) in cases.items():
    found = []
    for repeat in range(4):
        delta, images = phone(many, epochs, batch, first=32 * repeat)
        guesses = np.clip(unit_inputs(model, delta), 0, 1)
        found.append(best_psnr(images, guesses))
    pictures[name] = images[0], guesses[np.argmax([psnr(images[0], g) for g in guesses])]
    found = np.minimum(np.concatenate(found), 150)                 # beyond 150 dB it is rounding
    rows[name] = {"median dB": np.median(found), "best dB": found.max(),
                  "above 20 dB, %": 100 * np.mean(found > 20)}
average = pool.x.reshape(len(pool.x), -1).mean(axis=0)
blind = np.median([psnr(image, average) for image in pool.x[:128].reshape(128, -1)])
print(pd.DataFrame(rows).T.round(0).astype(int).to_string())
print(f"for comparison, the average digit as the guess for every image: {blind:.0f} dB")

# %%
figure, axes = canvas(5, width=1.8, height=2.1)
for ax, name in zip(axes, list(cases)[1:6:2] + list(cases)[6:]):
    tile(ax, pictures[name][1], name.replace(", ", ",\n", 1))
show(figure, "09.batches")

# %% tags=["proof"]
# Proof, open me: one image falls whatever the epochs; a batch mixes most of its images, not all
assert rows["1 image, 10 epochs"]["median dB"] > 100
assert rows["32 images, 1 step"]["median dB"] < 25 < rows["32 images, 1 step"]["best dB"]

# %% [markdown]
# The answer in three parts.
#
# - *Epochs alone* protect nothing: with one image every step adds another multiple of the same $x$, and the quotient is $x$.
# - *A batch* adds up: row $j$ becomes $\sum_i g_{ji}\,x_i$, a weighted mean of the images that woke unit $j$. With 32 images most
#   guesses are mixtures: the median image has 14 dB, as the best of 32 guesses, and 11 dB if one always says "the average digit".
# - But *not all*: where a unit was woken by one image only, that image is read off exactly, out of a batch of 32. So "it failed
#   in my experiment" is no protection. Masks (nobody sees a single update) and noise (with an ε) are.
#
# Where the quotient gives mixtures, one can still *search*: look for images whose gradient is the one that was seen. **DLG** (Zhu
# et al. 2019) minimises the squared difference, **inverting gradients** (Geiping et al. 2020) one minus the cosine plus the total
# variation of the image, a price for ragged pictures. The labels come first: for one image, the bias of its class is the only one
# that is pushed up; in a batch, the biases tell roughly how many of each class there were. Eight images, one step (a step of
# DLG's optimiser, L-BFGS, tries about 20 times, so 20 of them cost about as much as 400 of the other):

# %%
delta, images = phone(8)
gradient, labels = as_gradient(delta, lr=0.1), pool.y[:8]
print("labels:   ", np.bincount(labels, minlength=10).tolist())
print("read off: ", leaked_counts(model, gradient, 8).tolist())
guesses = {"row over bias": np.clip(unit_inputs(model, delta), 0, 1)}
for how, tv, steps in (("dlg", 0.0, 20), ("cosine", 0.01, 400)):
    searches = [invert(model, start.params, gradient, labels, (64,), how, steps, tv=tv, seed=s)
                for s in range(3)]
    best = min(searches, key=lambda search: search.loss)            # from three beginnings
    guesses[how] = np.clip(best.x, 0, 1)
found = {how: np.minimum(best_psnr(images, those), 150) for how, those in guesses.items()}
print(pd.DataFrame(found, index=[f"image {i}, dB" for i in range(8)]).T.astype(int).to_string())

# %%
def nearest(those):
    return [those[np.argmax([psnr(image, guess) for guess in those])] for image in images]

strips = {"the images": images, **{how: nearest(those) for how, those in guesses.items()}}
figure, (ax,) = canvas(1, width=7.5, height=3.9)
strip = [np.hstack([np.pad(np.reshape(image, (8, 8)), 1) for image in those])
         for those in strips.values()]
ax.imshow(np.vstack(strip), cmap="gray_r", vmin=0, vmax=1)
ax.set_yticks(np.arange(4) * 10 + 4.5, strips)
ax.set_xticks([])
show(figure, "09.search")

# %% tags=["proof"]
# Proof, open me: the search finds more than half of the images; the label of a single one leaks
assert np.median(best_psnr(images, guesses["cosine"])) > 16
one, _ = phone(1)
assert leaked_label(model, as_gradient(one, lr=0.1)) == pool.y[0]

# %% [markdown]
# The search by cosine has all eight images above 20 dB in this run, also those of which the quotient gives only a mixture: good
# enough to read. It does not reach the ones that the quotient gives exactly (image 1: 122 dB, here 24); an attacker uses both. A
# search can also get stuck; the attacker tries again, and keeps whatever has the smallest loss.
#
# Last, the mildest question: *was this example in the training set at all?* A model is surer of what it has seen. A threshold on
# the loss answers with an AUC between 0.5 (a coin) and 1. For the model of the federation, and for the one that was trained on
# the server's 60 examples alone:

# %%
everybody = np.concatenate(data.train)
inside = {"the federation": (run().state.server.params, (data.x[everybody], data.y[everybody])),
          "60 examples": (small.state.server.params, (root.x, root.y))}
aucs = {name: membership(model, params, mine, (data.x_test, data.y_test)).auc
        for name, (params, mine) in inside.items()}
for name, auc in aucs.items():
    print(f"model of {name}: AUC {auc:.2f}")

# %% tags=["proof"]
# Proof, open me: the model of few examples tells more
if rounds >= 30:
    assert aucs["60 examples"] > aucs["the federation"] + 0.05

# %% [markdown]
# A model that has learned few examples by heart tells who they were; one that was trained on many, a little, hardly does.
#
# ## Move the sliders
#
# Attackers, attack, rule, what stands before it, and how much the clients differ: 25 clients are retrained as you move. Start as it
# stands: IPM against the median. Put bucketing before it. Then make the clients alike (α = 100). Then the backdoor against the
# mean, the geometric median, removal. A combination that cannot work says why below the chart: try Bulyan with $f = 6$.

# %%
from fl_course.workbook.widgets.robustness import attack_explorer

attack_explorer()

# %% [markdown]
# Answer: IPM and the median end at about 48 %, where the mean without liars has 88 %; bucketing brings it to 55 %, alike clients
# to 79 %, both together to 81 %. The backdoor of five of 25, in every round, is at 100 % against the mean and at 86 % against the
# geometric median (21 % with α = 100); removal finds all five in the last round and keeps it at 0 %, but its accuracy is 78 %:
# with α = 0.3 the data of the five are missed. Bulyan with $f=6$ needs 27 clients. All with seed 0, after 30 rounds.
#
# ## What goes wrong
#
# Too few clients for the rule; a bucket too many; and an update that is no number, which is removed and named, never averaged:

# %% tags=["nbval-check-output"]
with refusal():
    run(Krum(f=12))                                                  # 25 clients, 2 · 12 + 3 = 27
with refusal():
    run(Bucketing(Krum(f=5), s=3))                                   # nine buckets, 13 are needed
with refusal():
    Krum(f=3)(np.zeros((8, 2)))
said = {"a": [1.0, 2.0], "b": [np.nan, 2.0], "c": [1.0, 2.0]}
broken = [Update(client, 0, np.array(numbers)) for client, numbers in said.items()]
print("removed:", CoordinateMedian(f=1).combine(broken, [0, 0, 0]).removed)

# %% [markdown]
# Whoever is removed so counts as one of the $f$ liars: without b, the last rule goes on with two updates and $f=0$. "Can be read"
# means: consists of numbers.
#
# And with the other chapters. Under the masks of chapter 4 the server sees the *sum* and no single update: two rounds with the same
# sum can have any two medians, so no rule can work on it. The noise of central DP (chapter 3) is made for a mean, which one client
# moves by at most one clip bound over $n$; a rule that *chooses* can jump farther.

# %% tags=["nbval-check-output"]
with refusal():
    run(MultiKrum(f=5), stages=[SecureSum(clip=1.0)])
with refusal():
    run(MultiKrum(f=5), stages=[CentralDP(clip=1.0, noise_multiplier=1.0)])

# %% [markdown]
# This is the hardest choice of federated learning. Masks protect clients from the server; robust rules protect the model from
# clients; they need opposite things. A norm bound, checked inside the masks, is where the two meet.
#
# ## Summary
#
# - A mean has no defence. A robust rule bounds what $f$ liars can do, not what they do inside the bound.
# - Every rule has its number: $n \geq 2f+1$, Krum $2f+3$, Bulyan $4f+3$; bucketing counts buckets.
# - Robust rules take difference for a lie. They cost much where clients differ, and those who differ pay. Make updates alike first.
# - Attackers who know the honest updates hide among them: ALIE, IPM, mimic. In our table no rule
#   does better than the mean against them. Ask which attacker you mean before you choose.
# - Model replacement needs one client and one round; a bound on the length stops it, and not the patient one.
# - An update is its data in another form. A failed reconstruction proves nothing.
#
# ## Recall
#
# **1.** Ten clients, and a filter at three standard deviations. Whom does it remove?
#
# Answer: nobody, ever: nothing can be more than $(n-1)/\sqrt n = 2.85$ deviations away.
#
# **2.** Why must Krum count $n-f-2$ neighbours, and not two?
#
# Answer: so that the liars, who may all send the same, are too few to be one another's neighbours.
#
# **3.** ALIE's update lies nearer to the honest mean than any honest update. What does this say about outlier filters?
#
# Answer: no filter by distance can find it without removing the honest first.
#
# **4.** Why do median and Krum lose accuracy when nobody lies?
#
# Answer: clients differ, and what differs from the crowd is not heard; bucketing makes the rows alike before the rule sees them.
#
# **5.** Your reconstruction from an update of 32 images fails. Is the data safe?
#
# Answer: no. The quotient is a mixture for most units, but exact where only one image woke a unit; and for small batches a search
# does better.
#
# **References**: P. Blanchard et al., *Machine learning with adversaries: Byzantine tolerant gradient descent* (Krum), NeurIPS 2017,
# arXiv:1703.02757. · D. Yin et al., *Byzantine-robust distributed learning: towards optimal statistical rates* (median, trimmed
# mean), ICML 2018, arXiv:1803.01498. · E. M. El Mhamdi et al., *The hidden vulnerability of distributed learning in Byzantium*
# (Bulyan), ICML 2018, arXiv:1802.07927. · M. Baruch et al., *A little is enough*, NeurIPS 2019, arXiv:1902.06156. · C. Xie et al.,
# *Fall of empires: breaking Byzantine-tolerant SGD by inner product manipulation*, UAI 2020, arXiv:1903.03936. · E. Bagdasaryan et
# al., *How to backdoor federated learning*, AISTATS 2020, arXiv:1807.00459. · S. P. Karimireddy et al., *Learning from history for
# Byzantine robust optimization* (centred clipping), ICML 2021, arXiv:2012.10333. · S. P. Karimireddy et al., *Byzantine-robust
# learning on heterogeneous datasets via bucketing*, ICLR 2022, arXiv:2006.09365. · X. Cao et al., *FLTrust*, NDSS 2021,
# arXiv:2012.13995. · K. Pillutla et al., *Robust aggregation for federated learning* (RFA), 2022, arXiv:1912.13445. · Y. Allouah et
# al., *Fixing by mixing* (NNM), AISTATS 2023, arXiv:2302.01772. · L. Zhu et al., *Deep leakage from gradients*, NeurIPS 2019,
# arXiv:1906.08935. · J. Geiping et al., *Inverting gradients*, NeurIPS 2020, arXiv:2003.14053.
