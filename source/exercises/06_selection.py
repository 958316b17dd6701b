# %% [markdown]
# # Exercises 6 · Devices and client selection
#
# Eight functions, from eight to twenty-five minutes. Write each in its cell; the cell below it answers at once, offline, on
# fresh random inputs. Stuck? `hint("06.spread_labels")` gives one step more at each call, three steps; `reveal(…)` shows a
# solution. No exercise needs the answer of another. A function leaves its arguments as they are: work on a copy. Where a
# generator `rng` is handed to you, draw from it and from nothing else. The last exercise is of a new kind: *what is wrong
# with this one?*

# %%
import numpy as np

from fl_course.workbook import check, hint, progress, reveal

# %% exercise 06.ask_fraction [markdown]
# Draw the clients of a round, as FedAvg does: a fraction C of *all* K clients, rounded to the nearest whole number (exact
# halves are not tried), but at least `min_clients`. Only those that are idle can be drawn; if there are too few of them, take
# all. No client twice, and every set of that size is equally likely.

# %% exercise 06.quality_score [markdown]
# One row a client, five columns, each from 0 to 1: data quality, compute, bandwidth, availability, staleness. The score of a
# client is the weighted sum of five parts: the first four columns, and 1 − staleness. What was never measured is NaN; then
# that part is `prior`.

# %% exercise 06.spread_labels [markdown]
# Choose k clients whose labels are as different as possible, greedily. Describe a client by the *shares* of its classes; the
# distance of two clients is the sum of the absolute differences of their shares. The first is the client with the most
# examples; after that, always the client whose *nearest* chosen one is the farthest away. Of equals take the lowest row.
# Every client has examples; nobody is chosen twice, also if all who are left are the twins of chosen ones.

# %% exercise 06.power_of_choice [markdown]
# Draw d of the K clients without replacement, each draw in proportion to `sizes`. Ask these d for their loss, each once and
# nobody else (a question costs a model on its way down). Choose the m with the largest losses.

# %% exercise 06.oort_utility [markdown]
# What is a client worth to Oort? $n\sqrt{\text{mean of the squared losses}}$, times $(T/t)^\alpha$ if it needs more than T
# seconds, plus $\sqrt{0.1 \ln R / L}$ in any case. Here t = `seconds`, T = `preferred`, R = `version` (this round, from 1)
# and L = `last` (the last round in which it took part). ln is the natural logarithm.

# %% exercise 06.selection_bias [markdown]
# How unfair is a way to choose, and how wrong? *gini*: the Gini coefficient of how often each of the K clients was in a
# cohort, $\sum_i \sum_j |c_i - c_j| \,/\, (2 K^2 \bar c)$. *bias*: the mean value of a round's cohort, averaged over the
# rounds, minus the mean value of all K clients.

# %% exercise 06.starve_nobody [markdown]
# Any score can be made to starve nobody. Who has waited `patience` rounds or longer is *late*, and goes first: the longest
# wait first, of equal waits the lower row. Then come the others, highest score first. Return the first k in this order.

# %% exercise 06.mended_choice [markdown]
# The function `choose` in the next cell is Power-of-Choice with old reports: d candidates are drawn uniformly, each is judged
# by the loss that it reported last, who has never reported counts as infinite, and the m largest are chosen (of several that
# never reported, any). It was written like published code. A federation that uses it trains without an error, and its
# accuracy rises. **What is wrong with it?** An oracle is handed out, too: it knows how often each client *must* be chosen, by
# counting all sets of candidates. Run it, read the table, find the fault, and write the function as it should be, under the
# name `mended_choice`.

# %% tags=["given"]
from itertools import combinations


def choose(idle, reports, d, m, rng):
    candidates = rng.choice(idle, size=d, replace=False)
    losses = [reports.get(int(name), np.inf) for name in candidates]
    best = np.argsort(losses)[::-1][:m]
    return [int(client) for client in best]


def oracle(choose, d=4, m=2, rounds=2000):
    """Ten clients; client k reported the loss k. How often is each chosen, and how often should it be?"""
    idle, reports = list(range(10)), {k: float(k) for k in range(10)}
    every = list(combinations(idle, d))                       # all sets of candidates, equally likely
    should = [np.mean([k in sorted(some)[-m:] for some in every]) for k in idle]
    rng = np.random.default_rng(0)
    chosen = np.bincount([k for _ in range(rounds) for k in choose(idle, reports, d, m, rng)], minlength=10)
    print("client   loss   chosen   should be")
    for k in idle:
        print(f"{k:6} {reports[k]:6.1f} {chosen[k] / rounds:8.3f} {should[k]:11.3f}")


oracle(choose)

# %% tags=["solution"]
oracle(mended_choice)

# %% [markdown]
# ## How far have you come?

# %%
progress()
