# %% [markdown]
# # Exercises 9 · Attacks and defences
#
# Eight functions, from five to twenty-five minutes. Write each in its cell; the cell below it answers at once, offline, on
# fresh random inputs. Stuck? `hint("09.krum_scores")` gives one step more at each call, three steps; `reveal(…)`, called twice,
# shows a solution. No exercise needs the answer of another. A function leaves its arguments as they are: work on a copy.

# %%
import numpy as np

from fl_course.workbook import check, hint, progress, reveal

# %% exercise 09.coordinate_median [markdown]
# The simplest robust rule: each coordinate of the answer is the median of that coordinate over the
# clients. For an even number of clients the median is the mean of the two middle values. Sort; do not call `np.median`.

# %% exercise 09.krum_scores [markdown]
# Krum believes the update that has the closest company. The score of client $i$ is the sum of the
# *squared* distances to its $n - f - 2$ nearest other clients; the lowest score wins.

# %% exercise 09.breakdown_point [markdown]
# How many attackers does it take to break a rule? You get any rule as a function, honest updates, and
# the vector `far` that an attacker sends. Put `far` in the place of the first $f$ updates, $f = 1, 2, \dots$, and
# return the smallest $f$ for which the rule's answer is more than 1000 away (Euclidean distance) from its answer to the honest
# updates alone.

# %% exercise 09.bounded_mean [markdown]
# Model replacement puts a backdoor into the model in one round by sending an update that is $n$ times too
# long. Take the length away from the attacker: let no update be longer than the *median length* of the round, shorten those
# that are, and average. Some honest client may send an update of length 0 (it stays
# as it is); should the median length be 0, the answer is 0.

# %% [markdown]
# Does it stop a real backdoor? A rule of your own is a class with one method; here it calls your function:

# %%
from fl_course import *


class Mine(Aggregation):
    def combine(self, updates, staleness, ctx=None):
        answer = bounded_mean(np.array([update.delta for update in updates]))
        return Aggregate(answer * len(updates), len(updates))


ten = digits().partition(Dirichlet(100.0), clients=10, seed=0)
door = Backdoor([0], versions=(20,), share=0.3, epochs=10)               # one client, in one round
training = LocalSGD(lr=0.1, epochs=1, batch_size=10)
for rule in (WeightedMean(), Mine()):
    how = {"weights": Uniform(), "aggregation": rule, "attack": door}
    record = Coordinator(ten, mlp(64, 32, 10), training, Synchronous(1.0), **how).train(21).records[-1]
    print(f"{type(rule).__name__:13} accuracy {record.metrics['accuracy']:.0%}, "
          f"backdoor success {record.metrics['backdoor_success']:.0%}")

# %% exercise 09.reconstruct [markdown]
# A client took one step on one image. In the first layer, row $j$ of the weights moved by $-\eta\,g_j\,x$ and
# the bias of unit $j$ by $-\eta\,g_j$: get the image $x$ out. You know neither $\eta$ nor the $g_j$. The message has six
# decimals, and some units may have slept ($g_j = 0$, or nearly). Each pixel may be off by 0.001.

# %% exercise 09.other_median [markdown]
# Under the masks of chapter 4 the server sees the sum of the numbers, and nothing else. Show that no program can
# compute the median from that: for any `x`, make other numbers with the same sum and another median.

# %% exercise 09.mended_filter [markdown]
# A colleague removes outliers among the updates' lengths by the rule "more than three standard deviations from the
# mean". In rounds of ten clients it has never removed anybody. The oracle, in the next cell: plant a length of a million and
# look. It is less than three deviations away, because it has made the deviation itself: among $n$ numbers none can be more than
# $(n-1)/\sqrt n$ deviations from the mean.
#
# Mend it with the median and the MAD, the median of the distances from the median: keep what is at most
# $3 \cdot 1.4826 \cdot \text{MAD}$ from the median, to either side. Equal lengths must all be kept.

# %% tags=["given"]
def broken_filter(lengths):
    return np.abs(lengths - lengths.mean()) <= 3 * lengths.std(ddof=1)     # True: keep


lengths = np.array([1.0, 1.1, 0.9, 1.2, 1.0, 0.8, 1.1, 0.9, 1.0, 1e6])
z = (lengths - lengths.mean()) / lengths.std(ddof=1)
print("kept:", broken_filter(lengths))
print(f"deviations from the mean: {z.max():.4f}; (n - 1)/√n = {9 / np.sqrt(10):.4f}")

# %% exercise 09.mended_geometric_median [markdown]
# A colleague's geometric median trains, raises no error, and stops no attacker. The oracle, in the next cell: the point
# we look for has the smallest *sum of distances* to all updates. Is the answer any better than the mean by that measure?
#
# Find the reason, and write it so that the sum of distances is at most 1.00001 times the smallest possible: for updates of length
# 0.001 as for those of length 20, and also where four of seven are equal (that point is then the answer). Beside an update the
# iteration is slow: a thousand steps are no waste.

# %% tags=["given"]
def broken_geometric_median(points, nu=1.0, steps=100):
    z = points.mean(axis=0)
    for _ in range(steps):
        far = np.maximum(nu, np.linalg.norm(points - z, axis=1))
        z = (points / far[:, None]).sum(axis=0) / (1 / far).sum()
    return z


def sum_of_distances(z, points):
    return np.linalg.norm(points - z, axis=1).sum()


points = np.random.default_rng(0).normal(size=(7, 3)) * 0.01              # updates are short vectors
points[0] += 0.5                                                          # one is not
for name, z in (("the broken one", broken_geometric_median(points)), ("the mean", points.mean(axis=0)),
                ("the origin", np.zeros(3))):
    print(f"{name:15} {sum_of_distances(z, points):.4f}")

# %% [markdown]
# ## An evening: your own rule, your own attack
# *Not checked by machine.* A rule is a class with one method, `combine(updates, staleness, ctx)`, as in "Stop a backdoor" (the
# library's are frozen dataclasses); an attack is one with `clients` and `strike(tasks, updates, ctx)`. Write a rule that is better
# than removal in one column of the lesson's table and worse in none, then an attack that breaks it.
# Start from `fl_course/robustness/coordinates.py` and `fl_course/robustness/attacks.py`.

# %%
progress()
