# %% [markdown]
# # 0 · A tour: one federation, five minutes
#
# Suppose that three hundred people have each written five digits or so, and that nobody wants to show them to anybody. Can they
# still build a program together that reads everybody's handwriting?
#
# **You will be able to**
# - say what [[federated learning]] does, and what never leaves a person's device;
# - add privacy, secrecy, compression and more to it, a line each, and read the price of each line;
# - find the chapter for whatever you want to understand better.
#
# About 5 minutes to read, and as long as you like for the sliders. You need to be able to read a little Python; words are
# explained where they first stand. Run the cells from top to bottom (Shift + Enter). Folded cells prove what the text says: open
# them if you doubt it. In the library: `fl_course/federation/coordinator.py` (the loop that runs all of this).

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
from fl_course.workbook.widgets.tour import alone_and_pooled, draw_whole, tour_explorer

# %% [markdown]
# ## What is it, in one picture?
#
# Real handwritten digits, dealt out to 300 devices, one for each person; a device that takes part is called a *client*. A *model* is a list of numbers
# that turns an image into a guess; *training* changes the numbers so that the guesses get better. One *round*: a server sends the
# model out, some clients train it on their own images, and send back only [[by how much its numbers changed|delta]]. The server adds up the
# changes and divides by how many they are: a step by this average makes its model better.

# %%
data = digits().partition(Dirichlet(1.0), clients=300, seed=seed)   # unevenly: a few kinds each
figure, (ax,) = canvas(1, width=9, height=4.4)
draw_whole(ax, np.stack([data.x[mine[:2]].reshape(2, 8, 8) for mine in data.train[:3]]))
show(figure, "00.whole")
print(f"{len(data.y):,} images at {len(data)} clients, {len(data.y_test)} more to judge by")

# %% [markdown]
# The circles are the chapters of this course:
#
# | | what happens there | chapter |
# |---|---|---|
# | 1 | the model goes out, changes come back, and so on | [FedAvg](01_fedavg.ipynb) |
# | 2 | clients differ, and pull the model apart | [Heterogeneity](02_heterogeneity.ipynb) |
# | 3 | noise on the sum hides each single person | [Differential privacy](03_privacy.ipynb) |
# | 4 | masks hide each change, and cancel in the sum | [Secure aggregation](04_secure_aggregation.ipynb) |
# | 5 | changes are sent in fewer bytes | [Compression](05_compression.ipynb) |
# | 6 | who is asked: the fast, the useful, or everybody in turn | [Client selection](06_selection.ipynb) |
# | 7 | nobody waits for the slow; their answers come late | [Asynchrony](07_asynchrony.ipynb) |
# | 8 | each client keeps a model that fits it | [Personalisation](08_personalisation.ipynb) |
# | 9 | some clients lie, and the sum must bear it | [Attacks and defences](09_attacks.ipynb) |
# | 10 | all of it at once: hospitals, banks, keyboards, cars | [Four capstones](10_capstones.ipynb) |
# | 11 | the same federation on real machines | [Leaving the laptop](11_deploy.ipynb) |
# | 12 | the people in the room are the clients | [The room](12_room.ipynb) |
#
# ## What is a round, in numbers?
#
# Here is one, by hand. `local_sgd` is what a client does: two training steps, each on all its images. `fedavg` is what the server does: the
# average of the changes, in which who has more images counts more. Both are a few lines long, and you will meet their file at the
# end of this page. Beside it the same round by the library, where an experiment is one object, the `Coordinator`:

# %%
from fl_course.micro import fedavg, local_sgd

model = logistic(64, 10)                        # 64 pixels -> 10 scores, by 650 numbers
one = Coordinator(data, model, LocalSGD(lr=0.3, epochs=2, batch_size=None), Synchronous(1.0))
before = one.initial().server.params
changes = [local_sgd(before, data.x[mine], data.y[mine], 0.3, [slice(None)] * 2)
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
# What could each person reach [[alone|local only]]? And what if all images lay [[in one place|pooled]], which nobody wants? The federation belongs
# between the two. We measure *accuracy*, the share of right guesses, on the images that are *held out*: nobody trains on them.

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
# Then write `0.2` again: the prices below are reckoned for a fifth.
#
# Answer: hardly. With seed 0 the accuracy stays within two points, and five times as many answers have to be sent.
#
# ## What does each idea cost?
#
# An experiment does not change. Another idea is another *field*: `replace(fed, field=…)` is the same experiment with one thing
# different; the field `stages` is what happens to a change on its way into the model. For each idea we print the accuracy (the mean
# of the last three rounds, which jumps less than the last alone), the megabytes that clients have sent, the privacy, and the seconds
# that it would have taken on such unequal devices (a simulated clock).

# %%
prices, runs = {}, {}

def price(name, fed, rounds=rounds):
    runs[name] = history = fed.train(rounds)
    accuracy = np.mean(history.series("accuracy")[-3:])          # of the last three rounds
    sent = sum(sum(record.bytes_up.values()) for record in history.records) / 1e6
    epsilon = history.last("epsilon")
    row = [accuracy, sent, np.inf if np.isnan(epsilon) else epsilon, history.records[-1].clock]
    prices[name] = dict(zip(("accuracy", "MB up", "ε", "seconds"), row))
    print(f"{name:22} accuracy {row[0]:.1%}  {row[1]:5.2f} MB up  "
          f"ε = {row[2]:.3g}  {row[3]:.0f} s".replace("inf", "∞"))

price("nothing added", fed)

# %% [markdown]
# **Privacy** ([chapter 3](03_privacy.ipynb)). A change can give away the image that it was made of. So each client [[shortens its change|clipping]] to length 0.5 at most, and the
# server adds noise to the sum. What is left to find out about any one person is bounded by a number, *ε*: whatever somebody
# believed about that person, the odds move by a factor of $e^\varepsilon$ at most (but for a chance δ, here 1 in 1,000). Small is private:
# at ε = 1 the factor is about 3, at ε = 4, which we take here, about 55. Without noise there is no bound, ε = ∞.

# %%
from fl_course.privacy.accounting import RDP, noise_for_budget

# how much noise makes all rounds together cost ε = 4, if a fifth of the clients is asked in each
noise = noise_for_budget(4, 1e-3, rounds, 0.2, RDP())            # RDP: how rounds are added up
private = CentralDP(0.5, noise, 1e-3, accountant=RDP(), noise_seed=seed)   # real noise has no seed
price("privacy", replace(fed, stages=[private]))

# %% [markdown]
# **Secrecy** ([chapter 4](04_secure_aggregation.ipynb)). Noise protects people from those who see the model. Who protects them from the server, which sees each change? Each
# client adds random numbers, *masks*, that cancel when all are added up. The server learns [[the sum and nothing else|secure aggregation]]. The masks
# change no result. They cost bytes, for the clients must agree on them.

# %%
masks = SecureSum(clip=0.5, degree=12)          # numbers from -0.5 to 0.5, masks with 12 others
price("a secret sum", replace(fed, stages=[masks]))

# %% [markdown]
# **Fewer bytes** ([chapter 5](05_compression.ipynb)). Of a change of 650 numbers send the 65 largest, and [[keep the rest in mind|error feedback]] for the next time.
# That takes more than a tenth of the bytes, for each number must say which of the 650 it is.

# %%
price("a tenth of the numbers", replace(fed, stages=[TopK(0.1)]))

# %% [markdown]
# **Clients that differ** ([chapter 2](02_heterogeneity.ipynb)). Each client pulls the model towards its own digits. It can be told where the others pull, and correct for
# that. The correction is as long as the model, so the messages double.

# %%
price("pull corrected", replace(fed, training=replace(fed.training, correction=Scaffold())))

# %% [markdown]
# **Who is asked** ([chapter 6](06_selection.ipynb)). A round is as slow as its slowest client. So ask those that answer soon and have much to teach. We also look at
# who is heard, and how evenly:

# %%
price("useful and fast first", replace(fed, selection=Oort()))
for name in ("nothing added", "useful and fast first"):
    often = [*participation(runs[name], fed.clients).values()]   # how often each was heard
    print(f"{name}: {np.count_nonzero(often)} of {len(data)} people were heard, "
          f"inequality {gini(often):.2f} (0: all equally often)")

# %% [markdown]
# **Nobody waits** ([chapter 7](07_asynchrony.ipynb)). Why have rounds at all? Sixty clients are at work at any time, and the model takes a step whenever twenty have
# answered. As many answers as before, in a fraction of the time:

# %%
price("nobody waits", replace(fed, selection=UniformSelection(), **fedbuff(60, 20)), 3 * rounds)

# %% [markdown]
# **Liars** ([chapter 9](09_attacks.ipynb)). A tenth of the clients send the opposite of what they learned, ten times as long. A sum believes them. A [[robust rule]]
# takes the point whose distances to all changes add up to the least; a few that are far away hardly move it:

# %%
attack = SignFlip(range(len(data) // 10), 10)
price("liars", replace(fed, attack=attack))
price("liars, robust rule", replace(fed, attack=attack, aggregation=GeometricMedian()))

# %% [markdown]
# **A model of one's own** ([chapter 8](08_personalisation.ipynb)). So far there is one model for all. A client can [[train it a little further|fine-tuning]] at home, and keep the result.
# Here we ask each about a digit of its *own* that it did not train on, since that is what its model is for:

# %%
own = replace(fed, training=replace(fed.training, personal=FineTune(lr=0.03)))
kinds = ("a model of one's own", "trained alone", "one model for all", "all in one place")
for kind, row in zip(kinds, compare(own, own.train(rounds)).rows()):
    print(f"{kind:20} {row['mean']:.1%} of the clients' own digits are read rightly")

# %% [markdown]
# Nothing is gained by that here: four images are too few. Chapter 8 shows when it pays. (Alone is better here than it was above,
# since nobody is asked about digits that others write.) All prices side by side:

# %%
table = pd.DataFrame(prices).T
figure, panels = canvas(3, width=3.3, height=3.4)
columns = {"accuracy": "#0072B2", "MB up": "#D55E00", "seconds": "#CC79A7"}
for ax, (column, colour) in zip(panels, columns.items()):
    ax.barh(list(prices), table[column], color=colour, alpha=0.7)
    ax.invert_yaxis()
    ax.set_xlabel(column)
    ax.set_yticks(range(len(prices)), list(prices) if ax is panels[0] else [])
for name, level, dash in (("alone", alone, ":"), ("in one place", pooled_accuracy, "--")):
    panels[0].axvline(level, color="#767676", linestyle=dash, linewidth=2, label=name)
panels[0].set_xticks([0, 0.5, 1])
panels[0].legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, fontsize=8)
show(figure, "00.prices")

# %% tags=["proof"]
# Proof, open me: what the sentences above say of the prices, and the numbers for `fl-course sweep`
if rounds >= 20:
    score, sent, seconds = table["accuracy"], table["MB up"], table["seconds"]
    plain_sent = sent["nothing added"]
    assert table.loc["privacy", "ε"] <= 4 and score["privacy"] < score["nothing added"]
    assert abs(score["a secret sum"] - score["nothing added"]) < 0.01
    assert sent["a tenth of the numbers"] < 0.2 * plain_sent
    assert min(sent["a secret sum"], sent["pull corrected"]) > 1.5 * plain_sent
    assert seconds["nobody waits"] < 0.6 * seconds["nothing added"]
    assert score["liars"] < 0.5 < 0.8 < score["liars, robust rule"]
report(alone=alone, together=history.last("accuracy"), pooled=pooled_accuracy,
       private=table["accuracy"]["privacy"], shorter=table["MB up"]["a tenth of the numbers"])

# %% [markdown]
# Few ideas are dear. Privacy takes some accuracy; secrecy and the corrected pull take bytes; leaving numbers out gives bytes back;
# asking the fast and not waiting give time back. What these two cost is in no bar: people are heard less evenly, and late answers
# are about a model that has moved on. Liars take everything, unless the rule is robust.
#
# ## Three sliders, three prices
#
# Privacy, compression and the number of people asked, all at once. Nothing here is looked up: whenever you move a slider the
# federation is trained again. *Pin* a run to compare the next one with it.

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
# Two good ideas can be unsound together, and training would not tell you. The library refuses such an experiment when it is built,
# and says why. Three of them (you need not know every word yet; the chapters explain them):

# %% tags=["nbval-check-output"]
with refusal():                                 # each client masks its own 65 places
    replace(fed, stages=[TopK(0.1), masks])
with refusal():                                 # what waits at home was never paid for
    replace(fed, stages=[private, TopK(0.1)])
with refusal():                                 # who is a liar, behind masks?
    replace(fed, stages=[masks], aggregation=GeometricMedian())

# %% [markdown]
# ## The whole story in one file
#
# All this needs no magic. `fl_course/micro.py` holds a federation with privacy, a secret sum in which people may vanish half-way, and
# compression; it uses NumPy and nothing of this library. Print it, read it, argue with it. This runs it, on 40 clients. (It counts
# the bytes of the changes only, not those for agreeing on masks. So its masked row is not longer, but shorter by those who vanish.)

# %%
from inspect import getsource

from fl_course import micro

print(f"{len(getsource(micro).splitlines())} lines, from top to bottom:\n")
micro.main()

# %% [markdown]
# Is it the same mathematics? The ε of our row "privacy", once by that file and once by the library, which searches more finely:

# %%
in_one_file = micro.rdp_epsilon(0.2, noise, rounds, 1e-3)
print(f"ε = {in_one_file:.3f} by the file, {prices['privacy']['ε']:.3f} by the library")

# %% tags=["proof"]
# Proof, open me: the same ε, but for the finer search of the library
assert 0 <= in_one_file - prices["privacy"]["ε"] < 0.05 * in_one_file

# %% [markdown]
# ## Summary
#
# - Federated learning sends a model to the data. What comes back are changes; the data stay.
# - Together is far better than alone, and not quite as good as all data in one place.
# - Privacy, secrecy, fewer bytes and all else are a field each of one experiment. Each has a price, and every price can be measured.
# - Not everything fits together; what does not is refused with a reason.
#
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
# **Where next.** Chapter 1 builds the loop by hand. If you came for one thing, take its chapter from the table at the top; each says
# which others it needs.
#
# **References**: B. McMahan, E. Moore, D. Ramage, S. Hampson, B. Agüera y Arcas, *Communication-efficient learning of deep
# networks from decentralized data*, AISTATS 2017, arXiv:1602.05629. · P. Kairouz, B. McMahan et al., *Advances and open problems in
# federated learning*, 2021, arXiv:1912.04977.
