# %% [markdown]
# # 0 · A tour: one federation, an idea a line
#
# Three hundred people have each written five digits or so, and nobody wants to show them to anybody. Can they still build a
# program together that reads everybody's handwriting?
#
# **You will be able to**
# - say what [[federated learning]] does, and what never leaves a person's device;
# - add privacy, secrecy or compression to it, a line each, and read the price;
# - find the chapter that you want.
#
# About 10 minutes, code included, and as long as you like for the sliders. You need a little Python. Run the
# cells from top to bottom (Shift + Enter). Folded cells prove what the text says.

# %% tags=["parameters"]
rounds: int = 30  # how often the model goes out and comes back
seed: int = 0  # every random choice follows from it

# %%
from dataclasses import replace

import numpy as np
import pandas as pd

from fl_course import *
from fl_course.workbook import report
from fl_course.workbook.lesson import canvas, refusal, show
from fl_course.workbook.widgets.tour import alone_and_pooled, draw_prices, draw_whole, tour_explorer

# %% [markdown]
# ## What is it, in one picture?
#
# Real digits, dealt out to 300 devices, the *clients*. A *model* is a list of numbers that turns an image into a guess;
# *training* changes the numbers so that the guesses get better. One *round*: a server sends the model out, some clients train it
# on their own images, and send back only [[by how much its numbers changed|delta]]. A step by the average of these changes makes
# the server's model better.

# %%
data = digits().partition(Dirichlet(1.0), clients=300, seed=seed)   # unevenly: a few kinds each
figure, (ax,) = canvas(1, width=9, height=4.4)
draw_whole(ax, np.stack([data.x[mine[:2]].reshape(2, 8, 8) for mine in data.train[:3]]))
show(figure, "00.whole")
print(f"{len(data.y):,} images at {len(data)} clients, {len(data.y_test)} more to judge by")

# %% [markdown]
# The circles are chapters:
#
# | | what happens there | chapter |
# |---|---|---|
# | 1 | the model goes out, changes come back | [FedAvg](01_fedavg.ipynb) |
# | 2 | clients differ, and pull the model apart | [Heterogeneity](02_heterogeneity.ipynb) |
# | 3 | noise on the sum hides each single person | [Differential privacy](03_privacy.ipynb) |
# | 4 | masks hide each change, and cancel in the sum | [Secure aggregation](04_secure_aggregation.ipynb) |
# | 5 | changes are sent in fewer bytes | [Compression](05_compression.ipynb) |
# | 6 | who is asked: the fast, the useful, or everybody | [Client selection](06_selection.ipynb) |
# | 7 | nobody waits for the slow; their answers come late | [Asynchrony](07_asynchrony.ipynb) |
# | 8 | each client keeps a model that fits it | [Personalisation](08_personalisation.ipynb) |
# | 9 | some clients lie, and the sum must bear it | [Attacks and defences](09_attacks.ipynb) |
# | 10 | all at once: hospitals, banks, keyboards, cars | [Four capstones](10_capstones.ipynb) |
# | 11 | the same federation on real machines | [Leaving the laptop](11_deploy.ipynb) |
# | 12 | the people in the room are the clients | [The room](12_room.ipynb) |
#
# ## What is a round, in numbers?
#
# One by hand: each client takes two training steps, and the server averages the changes; who has more images counts more. Then
# the same round by the library, where an experiment is one object:

# %%
from fl_course.micro import fedavg, local_sgd

model = logistic(64, 10)                        # 64 pixels -> 10 scores, by 650 numbers
one = Coordinator(data, model, LocalSGD(lr=0.3, epochs=2, batch_size=None), Synchronous(1.0))
before = one.initial().server.params
changes = [local_sgd(before, data.x[mine], data.y[mine], 0.3, [slice(None)] * 2)   # all, twice
           for mine in data.train]
by_hand = before + fedavg(changes, [len(mine) for mine in data.train])
gap = np.abs(by_hand - one.train(1).state.server.params).max()
print(f"{len(changes)} changes of {model.dim} numbers; by hand and by library they differ "
      f"by {gap:.0e} at most")

# %% tags=["proof"]
# Proof, open me: by hand and in the library, the same model
assert gap < 1e-6

# %% [markdown]
# ## Is it worth it?
#
# What does each person reach [[alone|local only]]? And what if all images lay [[in one place|pooled]], which nobody wants? We
# measure *accuracy*: of the images that nobody trains on, the share that is read rightly.

# %%
fed = Coordinator(
    data, model,
    LocalSGD(lr=0.3, epochs=3, batch_size=5),   # a client: three passes over its images
    Synchronous(0.2),                           # a round asks a fifth of the clients,
    PoissonSelection(),                         # each by the toss of its own coin
    Uniform(),                                  # all answers count the same: ε below needs that
    fleet=LogNormal(speed_spread=1.0),          # devices as unequal in speed as phones are
    seed=seed,
)
alone, pooled_accuracy = alone_and_pooled(fed, rounds)
history = fed.train(rounds)

# %%
figure, (ax,) = canvas(1, width=6)
history.plot(ax=ax, label="together: the federation")
for name, level in (("all images in one place", pooled_accuracy), ("alone, on average", alone)):
    ax.plot([1, rounds], [level, level], label=name)
ax.set_ylim(0, 1)
show(figure, "00.together")
print(f"alone {alone:.1%}, together {history.last('accuracy'):.1%}, "
      f"in one place {pooled_accuracy:.1%}")

# %% tags=["proof"]
# Proof, open me: together is far better than alone, and not better than all images in one place
if rounds >= 20:
    assert alone + 0.3 < history.last("accuracy") <= pooled_accuracy + 0.01

# %% [markdown]
# **Try it.** Ask everybody in each round: write `Synchronous(1.0)`. Does the model learn more in 30 rounds?
# Then write `0.2` again: what follows is reckoned for a fifth.
#
# Answer: hardly. With seed 0 the accuracy stays within two points, and five times as many answers have to be sent.
#
# ## What does each idea cost?
#
# An idea is a *field*: `replace(fed, field=…)` is the same experiment with one thing different. Each begins with the number
# of its chapter. Four prices: accuracy (mean of the last three rounds), megabytes that clients sent, seconds on a simulated clock, and ε,
# a bound on what the model tells about any one person: the odds of whatever somebody suspects move by a factor of $e^\varepsilon$
# at most (but for a chance of 1 in 1,000). At ε = 1 that is about 3, at ε = 4 about 55; `inf` is no bound.

# %%
from fl_course.privacy.accounting import RDP, noise_for_budget

# noise that makes all rounds together cost ε = 4, if a fifth of the clients is asked in each
noise = noise_for_budget(4, 1e-3, rounds, 0.2, RDP())            # RDP: how rounds are added up
private = CentralDP(0.5, noise, 1e-3, accountant=RDP(), noise_seed=seed)   # real noise has no seed
masks = SecureSum(clip=0.5, degree=12)          # numbers from -0.5 to 0.5, masks with 12 others
lies = SignFlip(range(len(data) // 10), 10)     # a tenth of the clients: the opposite, ten times
ideas = {
    "nothing added": fed,
    "2 pull corrected": replace(fed, training=replace(fed.training, correction=Scaffold())),
    "3 noise for ε = 4": replace(fed, stages=[private]),
    "4 a secret sum": replace(fed, stages=[masks]),
    "5 a tenth of the numbers": replace(fed, stages=[TopK(0.1)]),
    "6 fast and useful first": replace(fed, selection=Oort()),
    "7 nobody waits": replace(fed, selection=UniformSelection(), **fedbuff(60, 20)),
    "9 liars": replace(fed, attack=lies),
    "9 liars, robust rule": replace(fed, attack=lies, aggregation=GeometricMedian()),
}

# %%
def price(fed, steps):
    history = fed.train(steps)
    epsilon = history.last("epsilon")
    return {"accuracy": np.mean(history.series("accuracy")[-3:]),
            "MB up": sum(sum(record.bytes_up.values()) for record in history.records) / 1e6,
            "seconds": history.records[-1].clock,
            "ε": np.inf if np.isnan(epsilon) else epsilon}


steps = dict.fromkeys(ideas, rounds) | {"7 nobody waits": 3 * rounds}    # of 20 answers, not 60
prices = {name: price(ideas[name], steps[name]) for name in ideas}
table = pd.DataFrame(prices).T
print(table.round(2).to_string())

# %%
figure, panels = canvas(3, width=3.3, height=3.4)
draw_prices(panels, prices, {"alone": alone, "in one place": pooled_accuracy})
show(figure, "00.prices")

# %% tags=["proof"]
# Proof, open me: what the sentences below say of the prices, and the numbers for `fl-course sweep`
score, sent, seconds = table["accuracy"], table["MB up"], table["seconds"]
if rounds >= 20:
    plain = table.loc["nothing added"]
    assert table.loc["3 noise for ε = 4", "ε"] <= 4
    assert score["3 noise for ε = 4"] < plain["accuracy"] - 0.01
    assert abs(score["4 a secret sum"] - plain["accuracy"]) < 0.01
    assert sent["5 a tenth of the numbers"] < 0.2 * plain["MB up"]
    assert min(sent["4 a secret sum"], sent["2 pull corrected"]) > 1.5 * plain["MB up"]
    for quick in ("6 fast and useful first", "7 nobody waits"):
        assert seconds[quick] < 0.6 * plain["seconds"]
    assert score["9 liars"] < 0.5 < 0.8 < score["9 liars, robust rule"]
report(alone=alone, together=history.last("accuracy"), pooled=pooled_accuracy,
       private=score["3 noise for ε = 4"], shorter=sent["5 a tenth of the numbers"])

# %% [markdown]
# Noise takes some accuracy. The [[secret sum|secure aggregation]] and the corrected pull take bytes, leaving numbers out gives bytes
# back, asking the fast and not waiting give time back; what these two cost is in no bar (some people are heard less, and late
# answers are about an old model; chapters 6 and 7 measure it). Liars take everything, unless the [[rule is robust|robust rule]]. Chapter 8 is missing: a model of one's own
# must be judged by one's own digits.
#
# ## Three sliders, three prices
#
# Noise, numbers sent and people asked, all at once. Whenever you move a slider the federation is trained again. *Pin* a run to
# compare the next one with it.

# %%
tour_explorer()

# %% [markdown]
# **Try it.** Ask fewer people per round, down to 5 %, and leave the rest alone. What happens to the accuracy, and why?
#
# Answer: it falls. The noise must be about as large as one person's change, however many take part. In a sum of 15 changes it is
# heard four times as much as in a sum of 60 (chance hides who was asked, so a little less noise is needed, but not so much less).
# Privacy likes crowds; megabytes do not.
#
# ## What goes wrong
#
# Two good ideas can be unsound together, and training would not tell you. The library refuses to build such an experiment:

# %% tags=["nbval-check-output"]
with refusal():
    replace(fed, stages=[masks], aggregation=GeometricMedian())

# %% [markdown]
# ## Summary
#
# - Federated learning sends a model to the data. What comes back are changes; the data stay.
# - Together is far better than alone, and not quite as good as all data in one place.
# - Each idea is a field of one experiment, and its price can be measured.
#
# No magic is needed: `fl_course/micro.py` is a federation with privacy, a secret sum and compression in one short file, to print
# and argue with. The library's loop is `fl_course/federation/coordinator.py`.

# %% tags=["proof"]
# Proof, open me: the ε of that file is the library's, which only searches more finely
# (python -m fl_course.micro runs it)
from fl_course.micro import rdp_epsilon

excess = rdp_epsilon(0.2, noise, rounds, 1e-3) - table.loc["3 noise for ε = 4", "ε"]
assert 0 <= excess < 0.2

# %% [markdown]
# ## Recall
#
# **1.** What does a client send to the server?
#
# Answer: by how much the numbers of the model changed while it trained on its own images. No image leaves it.
#
# **2.** Which of the ideas made the messages longer, and which shorter?
#
# Answer: the masks of the secret sum and the correction of the pull made them longer, the tenth of the numbers shorter. The noise
# changes no length: the server adds it to the sum.
#
# **3.** Why are masks and a rule against liars refused together?
#
# Answer: behind masks the server sees only the sum, so it cannot tell one client's change from another's.
#
# **Where next.** Chapter 1 builds the loop by hand. If you came for one thing, take its chapter from the table; each says which
# others it needs.
#
# **References**: B. McMahan, E. Moore, D. Ramage, S. Hampson, B. Agüera y Arcas, *Communication-efficient learning of deep
# networks from decentralized data*, AISTATS 2017, arXiv:1602.05629. · P. Kairouz, B. McMahan et al., *Advances and open problems in
# federated learning*, 2021, arXiv:1912.04977.
