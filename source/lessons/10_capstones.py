# %% [markdown]
# # 10 · Four capstones: hospitals, a bank group, keyboards, cars
#
# Nine chapters, many mechanisms. Which of them does *your* federation need? That is decided by three questions: who are the
# clients, what do they gain, and what do they fear? Four federations answer them, each on its own data, and each pays its own
# price.
#
# **You will be able to**
# - put together a stack for a given threat, and leave out what the threat does not ask for;
# - show beside every result what a client reaches alone and what all data in one place would give;
# - write down the bill: quality lost, privacy, bytes, seconds, and who pays.
#
# About 150 minutes for a newcomer; each of the four parts stands for itself. You need chapters 1 to 5, and for the parts in
# turn chapters 3 and 4 (hospitals), 9 (bank), 5, 6 and 8 (keyboards), 7 (cars). In the library: `fl_course/data/capstones.py`
# (the four data sets), `fl_course/privacy/dpsgd.py`, `fl_course/secure_aggregation/stage.py`, `fl_course/robustness/krum.py`,
# `fl_course/compression/sparse.py`, `fl_course/asynchrony/heard.py`.

# %% tags=["parameters"]
hospital_rounds: int = 20  # rounds of the hospitals
bank_rounds: int = 30  # rounds of the bank's branches
phone_rounds: int = 50  # rounds of the keyboards
car_rounds: int = 60  # rounds of the cars; three times as many steps without rounds
repeats: int = 3  # draws of the noise that a point of the privacy curve averages over
seed: int = 0  # every random choice follows from it

# %%
from dataclasses import replace

import numpy as np
import pandas as pd
from scipy.stats import norm

from fl_course import *
from fl_course.data.capstones import ACTG175_COLUMNS, ALPHABET, GERMAN_CREDIT_COLUMNS, encode_text
from fl_course.federation.evaluation import metrics_of
from fl_course.privacy.accounting import RDP, noise_for_budget
from fl_course.workbook import report
from fl_course.workbook.lesson import canvas, refusal, show
from fl_course.workbook.widgets.plots import PALETTE

bill = {}          # one line a sector, for the last page


def line(measured, history, epsilon=np.inf):
    """A row of a page: quality, privacy, bytes both ways (MB) and simulated seconds of a run."""
    return {"measure": measured, "ε": epsilon, "MB": history.megabytes,
            "seconds": history.records[-1].clock}

# %% [markdown]
# | sign | what it is |
# |---|---|
# | $K$, $n_k$ | number of clients; examples of client $k$ |
# | $T$ | rounds, and here also the number of noisy releases |
# | $C$, $z$ | clip bound; noise multiplier: the noise on a sum has the deviation $zC$ |
# | $\varepsilon$, $\delta$ | privacy budget; the probability for which it need not hold |
# | $\mu$ | $\sqrt T / z$: how many deviations of the noise one person or hospital moves what is released |
# | $\Phi$ | share of normally distributed numbers that lie below a value |
# | AUC | how often somebody of class 1 gets a higher score than somebody of class 0 |
# | $f$ | how many clients may lie, as far as a rule assumes |
#
# Every part has the same four rows: *alone* (each client trains by itself; the mean over clients), *federated* (FedAvg, nothing
# else), with *the stack*, and *pooled* (all examples in one place, which nobody is allowed to do). Alone and pooled take as
# many passes over the data as a client takes in the federation, on average.
#
# ## Hospitals: do ten of them learn more than each alone?
#
# **The data.** 2,139 people with HIV took part in a trial of four treatments (ACTG 175). From what was known on the first day
# (age, weight, blood counts, history, treatment) predict for whom the disease will progress: 24 in 100. The file does not say
# in which hospital a patient was, so our ten hospitals are *simulated*: patients are dealt out at random, hospitals are of
# unequal size.

# %%
patients = actg175()
hospitals = patients.partition(QuantitySkew(2.0), clients=10, seed=seed, test_fraction=0.0)
print(patients)
print("columns:", ", ".join(ACTG175_COLUMNS))
print(f"the disease progressed for {patients.y.mean():.0%}")
print("patients to train on, by hospital:", *sorted(hospitals.sizes))

# %% [markdown]
# Whoever says "nobody will get worse" is right for 76 in 100 and useless. What a hospital wants is an *order*: whom to see first.
# The [[AUC]] measures that: draw one patient who got worse and one who did not; how often has the first the higher score?
# By hand:

# %%
def auc(scores, labels):
    """How often class 1 is above class 0; a tie counts half."""
    ones, zeros = scores[labels == 1][:, None], scores[labels == 0]
    return (ones > zeros).mean() + (ones == zeros).mean() / 2


def odds(model, w, data):
    """(N,) the score of each held-out example: how much more the model believes in class 1."""
    outputs = model.predict(w, data.x_test)
    return outputs[:, 1] - outputs[:, 0]


def auc_of(w):
    """What a model for the hospitals is worth."""
    return auc(odds(order, w, patients), patients.y_test)


class Order(CrossEntropy):
    """The usual loss; the evaluation tells the AUC, too."""

    def extra(self, outputs, targets):
        return {"auc": auc(outputs[:, 1] - outputs[:, 0], targets)}


order = logistic(16, 2, loss=Order())
one_step = LocalSGD(lr=0.3, epochs=1, batch_size=None)      # one step on all patients of a hospital
office = LogNormal(examples_per_second=1000, down_mbit=100, up_mbit=50, seed=seed)
plain = Coordinator(hospitals, order, one_step, Synchronous(1.0), fleet=office, seed=seed)
together = plain.train(hospital_rounds)
single = np.array([auc_of(w) for w in local_only(plain, hospital_rounds)])
in_one_place = pooled(plain, hospital_rounds)
print(f"alone {single.mean():.3f} (from {single.min():.3f} to {single.max():.3f}), "
      f"federated {together.last('auc'):.3f}, pooled {auc_of(in_one_place):.3f}")

# %% tags=["proof"]
# Proof, open me: our AUC is scikit-learn's, and together they know more than alone
from sklearn.metrics import roc_auc_score

scores = odds(order, in_one_place, patients)
assert np.isclose(auc(scores, patients.y_test), roc_auc_score(patients.y_test, scores))
assert np.isclose(together.last("auc"), auc_of(together.state.server.params))
assert abs(together.last("auc") - auc_of(in_one_place)) < 0.01
if hospital_rounds >= 20:
    assert single.mean() + 0.01 < together.last("auc")

# %%
figure, (ax,) = canvas(1, width=6)
ax.plot(hospitals.sizes, single, "o", label="a hospital alone")
ax.axhline(together.last("auc"), linestyle="--", color=PALETTE[2], label="all ten, federated")
ax.axhline(0.5, linestyle=":", color="grey", label="a coin")
ax.set(xlabel="patients of the hospital", ylabel="AUC on held-out patients")
show(figure, "10.hospitals")

# %% [markdown]
# With one full step a round, weighted by patients, the federation *is* the pooled training: the weighted mean of the ten steps
# is the step on everybody. Alone, some hospitals do almost as well and others far worse; for the small ones it is luck which of
# the two. How sure is the gain, with 428 held-out patients? Draw the held-out patients again, with replacement, and look how far
# the difference scatters (a *bootstrap*):

# %%
rng = np.random.default_rng(seed)
models = [odds(order, w, patients) for w in local_only(plain, hospital_rounds)]
ours, y = odds(order, together.state.server.params, patients), patients.y_test
gains, values = [], []
for rows in rng.integers(0, len(y), (200, len(y))):
    values.append(auc(ours[rows], y[rows]))
    gains.append(values[-1] - np.mean([auc(each[rows], y[rows]) for each in models]))
print(f"federated {np.mean(values):.3f} ± {np.std(values):.3f}; "
      f"gain over alone {np.mean(gains):.3f} ± {np.std(gains):.3f}; "
      f"above 0 in {np.mean(np.array(gains) > 0):.0%} of the draws")

# %% [markdown]
# The AUC itself is known to about three points (0.03) only. The *difference* on the same patients is known much better, because
# what is hard about a patient is hard for both models.
#
# ### What do hospitals fear?
#
# Two things. **The server** is run by somebody, and sees each hospital's update: how it differs from the others tells about its
# patients. Against that helps a secure sum (chapter 4). **The model** is published, and whoever reads it may learn who was
# in the data. Against that helps noise (chapter 3). But *whose* presence shall it hide?
#
# - a **patient's**: each hospital clips every patient's gradient and adds noise before it sends anything (`DPSGD`);
# - a whole **hospital's**: clip its update, and all hospitals together add noise to the sum (`DistributedNoise`).
#
# The price of $T$ Gaussian releases with noise multiplier $z$ can be written down. One patient, or one hospital, moves what is
# released by $\mu$ deviations of the noise, and then (Balle & Wang 2018; how many patients a hospital has counts as public)
#
# $$\delta = \Phi(\mu/2-\varepsilon/\mu)-e^{\varepsilon}\,\Phi(-\mu/2-\varepsilon/\mu),\qquad \mu = \sqrt T/z$$

# %%
def delta_of(epsilon, z, rounds):
    mu = np.sqrt(rounds) / z
    low, high = -epsilon / mu - mu / 2, -epsilon / mu + mu / 2
    return norm.cdf(high) - np.exp(epsilon) * norm.cdf(low)


target, delta = 4.0, 1e-5
z = noise_for_budget(target, delta, hospital_rounds, accountant=RDP())     # the library's answer
print(f"ε = {target:g} for {hospital_rounds} releases: z = {z:.2f}; "
      f"exactly, δ = {delta_of(target, z, hospital_rounds):.1e}")

# %% tags=["proof"]
# Proof, open me: the library's price is on the safe side of the exact one, and not far from it
assert delta_of(target, z, hospital_rounds) <= delta
assert delta_of(target, 0.85 * z, hospital_rounds) > delta

# %% [markdown]
# Now both stacks. Clipped gradients are short, so the steps that hide a patient are longer (`lr=1.0`). Fewer releases need less
# noise, so a hospital is hidden in five rounds of four steps, not in twenty of one. The curve is measured with `masked=False`:
# the same sums, sooner. The noise seed is fixed so that this page can be printed twice; a real run leaves it out, and a record
# with a known seed says `not private`.

# %%
def for_patients(epsilon, noise_seed, masked=True):
    """Every patient is hidden: noise within the hospitals, and a secure sum of what they send."""
    z = noise_for_budget(epsilon, delta, hospital_rounds, accountant=RDP())
    how = replace(one_step, lr=1.0, private=DPSGD(1.0, z, "shuffle", delta, noise_seed=noise_seed))
    masks = SecureSum(clip=2.0, max_weight=1711, masked=masked, round_seed=noise_seed)
    return replace(plain, training=how, stages=[masks]), hospital_rounds


def for_hospitals(epsilon, noise_seed, masked=True):
    """Every hospital is hidden: five rounds of four steps, noise on the secure sum."""
    z = noise_for_budget(epsilon, delta, 5, accountant=RDP())
    noise = DistributedNoise(0.3, z, delta, noise_seed=noise_seed)
    masks = SecureSum(clip=2.0, masked=masked, round_seed=noise_seed, noise=noise)
    how = {"training": replace(one_step, epochs=4), "weights": Uniform(), "stages": [masks]}
    return replace(plain, **how), 5


units = {"a patient": for_patients, "a hospital": for_hospitals}
runs = {unit: fed.train(rounds) for unit, (fed, rounds) in
        ((unit, make(target, seed)) for unit, make in units.items())}

# %%
budgets = (1, 2, 4, 8, 16)
curve = {unit: [[fed.train(rounds).last("auc") for fed, rounds in
                 (make(epsilon, seed + 100 * i, masked=False) for i in range(repeats))]
                for epsilon in budgets] for unit, make in units.items()}

# %%
figure, (ax,) = canvas(1, width=6)
for unit, values in curve.items():
    mean = np.mean(values, axis=1)
    ax.errorbar(budgets, mean, yerr=np.std(values, axis=1), marker="o", capsize=3,
                label=f"hides {unit}")
ax.axhline(together.last("auc"), linestyle="--", color="grey", label="federated, no noise")
ax.axhline(single.mean(), linestyle=":", color="grey", label="alone, mean")
ax.set(xscale="log", xlabel="ε", ylabel="AUC on held-out patients")
ax.set_xticks(budgets, [str(value) for value in budgets])
show(figure, "10.whom_epsilon_hides")

# %% [markdown]
# To hide a patient costs little here, and most of that is clipping: it stays when ε is large. To hide a hospital at a small ε
# costs most of what the federation gains, or all, or more. The reason is arithmetic: the noise that hides *one of 1,711* is shared
# by 1,711, the noise that hides *one of ten* by ten. Few large clients are the hard case of client-level privacy, and there "who
# is protected?" must be asked before "how much is ε?". Which hospitals took part is no secret: they are in the list of authors.
# Which patients took part is one.
#
# The page of the sector:

# %%
page = {"alone": {"measure": single.mean()}, "federated": line(together.last("auc"), together)}
masks = [SecureSum(clip=2.0, max_weight=1711, round_seed=seed)]
summed = replace(plain, stages=masks).train(hospital_rounds)
page["+ secure sum"] = line(summed.last("auc"), summed)
for unit, values in curve.items():
    page[f"+ noise that hides {unit}"] = line(np.mean(values[2]), runs[unit], target)
page["pooled"] = {"measure": auc_of(in_one_place)}
print(pd.DataFrame(page).T.rename(columns={"measure": "AUC"}).round(3).to_string(na_rep=""))
later = summed.records[-1].clock - together.records[-1].clock
print(f"keys and shares: {summed.megabytes - together.megabytes:.2f} MB, {later:.2f} s")
bill["hospitals"] = {"measure": "AUC", "stack": "secure sum + noise for patients", **{
    name: page[row]["measure"] for name, row in
    (("alone", "alone"), ("federated", "federated"), ("pooled", "pooled"))},
    "with stack": page["+ noise that hides a patient"]["measure"], **{
    name: page["+ noise that hides a patient"][name] for name in ("ε", "MB", "seconds")}}

# %% tags=["proof"]
# Report, open me: orderings, and what each protection costs
noisy = {unit: np.mean(values[2]) for unit, values in curve.items()}
books = runs["a patient"].state.memory
assert runs["a hospital"].last("epsilon") <= target + 1e-9
assert all("examples" in books[client]["books"] for client in hospitals.ids)
if hospital_rounds >= 20:
    assert abs(summed.last("auc") - together.last("auc")) < 0.002
    assert together.last("auc") - noisy["a patient"] < 0.02
    assert noisy["a patient"] > single.mean() + 0.01
    assert noisy["a patient"] > noisy["a hospital"] + 0.005
report(hospitals_alone=single.mean(), hospitals_federated=together.last("auc"),
       hospitals_pooled=auc_of(in_one_place), hospitals_stack=noisy["a patient"],
       hospitals_hidden=noisy["a hospital"])

# %% [markdown]
# The secure sum costs no quality and many more bytes: keys and shares for nine others are longer than a model of 34 numbers.
# (Hiding a hospital sends less because it takes five rounds, not twenty.) Keys and shares cost next to no seconds, see the line below the
# table, because these offices have quick lines and our clock has no delay for a message as such: on real networks the four more
# trips to the server and back that a secure round makes would be the larger part.
#
# What does the server see now? The sum of ten updates, each already noisy; not which hospital sent what. What ε does not cover: the table above, which was measured on patients' data, too.
#
# **Try it.** Take a hospital with 50 patients. What would noise for patients do to it, if it trained *alone* with `DPSGD` at
# the same ε?
#
# Answer: much more harm. Alone it adds noise of deviation $zC/n_k$ to its mean gradient. In the federation the noises of ten
# hospitals partly cancel: the deviation is $zC\sqrt{10}$ on a sum over 1,711 patients. With $n_k$ = 50 that is about
# $1711/(50\sqrt{10})$ = 11 times less.

# %% [markdown]
# ## A bank group: can branches pool experience when two of them lie?
#
# **The data.** 1,000 loans of a German bank, 300 of them not paid back (Statlog's *German credit*). All come from one bank: the
# ten branches are *simulated* by a random deal, 80 loans each, and one loan in five is held out. The file comes with a bill: to
# lend to somebody who does not pay costs 5, to refuse somebody who would have paid costs 1.

# %%
loans = german_credit()
branches = loans.partition(IID(), clients=10, seed=seed, test_fraction=0.0)
women = loans.x_test[:, GERMAN_CREDIT_COLUMNS.index("woman")] == 1
young = np.round(10 * loans.x_test[:, GERMAN_CREDIT_COLUMNS.index("age")] + 35) <= 25
print(branches)
print(f"held out: {len(women)} loans, {women.sum()} to women, {young.sum()} to people up to 25")


good = loans.y_test == 0


def judged(model, w, data=loans):
    """What a model means for the bank and for those who would have paid back."""
    scores, bad = odds(model, w, data), ~good
    refused = scores > 0
    return {"AUC": auc(scores, loans.y_test), "accuracy": np.mean(refused == bad),
            "cost a loan": np.mean(5 * (bad & ~refused) + (good & refused)),
            "refused": refused.mean(),
            "gap women": refused[good & women].mean() - refused[good & ~women].mean(),
            "gap young": refused[good & young].mean() - refused[good & ~young].mean()}


# %% [markdown]
# A *gap* is the difference between two groups in the share of *good* payers who are refused (Hardt et al. 2016 ask for none).
# First the question that comes before any federation: what shall the model make small? The usual loss counts both mistakes
# alike, and there are fewer bad loans. [[Class weights]] of 1 and 5 put the bill into the loss.

# %%
usual = logistic(46, 2)
careful = logistic(46, 2, loss=CrossEntropy(class_weights=(1.0, 5.0)))


def bank(model, **how):
    """Ten branches, one full step twice a round; everything else is given."""
    train = LocalSGD(lr=0.3 if model is usual else 0.1, epochs=2, batch_size=None)
    every = Evaluation(every=bank_rounds)
    return Coordinator(how.pop("data", branches), model, train, Synchronous(1.0), fleet=office,
                       evaluation=every, seed=seed, **how)


rows = {"lend to everybody": {"accuracy": np.mean(loans.y_test == 0),
                              "cost a loan": 5 * np.mean(loans.y_test == 1), "refused": 0.0}}
for name, model in (("usual loss", usual), ("class weights", careful)):
    fed = bank(model)
    history = fed.train(bank_rounds)
    each = [judged(model, w) for w in local_only(fed, bank_rounds)]
    rows[f"{name}: alone"] = pd.DataFrame(each).mean().to_dict()
    rows[f"{name}: federated"] = judged(model, history.state.server.params)
    rows[f"{name}: pooled"] = judged(model, pooled(fed, bank_rounds))
print(pd.DataFrame(rows).T.round(3).to_string(na_rep=""))
plain_bank = history

# %% tags=["proof"]
# Proof, open me: together is better than alone, and class weights are what saves money
for name in ("usual loss", "class weights"):
    alone, fed, pool = (rows[f"{name}: {who}"] for who in ("alone", "federated", "pooled"))
    assert abs(fed["AUC"] - pool["AUC"]) < 0.01
    if bank_rounds >= 30:
        assert alone["AUC"] + 0.03 < fed["AUC"]
if bank_rounds >= 30:
    before, after = rows["usual loss: federated"], rows["class weights: federated"]
    assert after["cost a loan"] < 0.75 * before["cost a loan"]
    assert after["accuracy"] < before["accuracy"]

# %% [markdown]
# Read the columns against each other. By *accuracy* the class weights are a step back; by the bank's own bill they halve the
# cost. The order of the applicants (AUC) hardly changes: what moves is how many are refused. And together with it moves the
# gap: good payers who are young, or women, are refused more often than others, and the careful model makes the difference
# larger. Nobody told it to: it refuses more people, and refuses more where its doubts are.
#
# Would it help to hide the two columns?

# %%
hidden = [GERMAN_CREDIT_COLUMNS.index(name) for name in ("woman", "age")]


def blinded(x):
    return np.where(np.isin(np.arange(x.shape[1]), hidden), 0.0, x)


blind_loans = replace(branches, x=blinded(branches.x), x_test=blinded(loans.x_test))
blind = bank(careful, data=blind_loans).train(bank_rounds).state.server.params
both = {"sees sex and age": rows["class weights: federated"],
        "does not": judged(careful, blind, blind_loans)}
print(pd.DataFrame(both).T[["AUC", "cost a loan", "gap women", "gap young"]].round(3).to_string())

for name, group in (("women", women), ("young", young)):
    inside, outside = (good & group).sum(), (good & ~group).sum()
    luck_of_gap = np.sqrt(0.6 * 0.4 * (1 / inside + 1 / outside))     # 60 % of the good refused
    print(f"{name}: {inside} good payers against {outside}, luck of the gap {luck_of_gap:.2f}")

# %% [markdown]
# The blind model has about the same AUC and a higher bill. The gap of the women shrinks here, that of the young hardly: other
# columns know about age, too. Mind the luck (one standard deviation): the groups are small, so a gap of 0.1 may be none.
#
# ### What does a bank group fear?
#
# **A branch.** Two of the ten are run by people who want the model to fail, or to pass certain customers: they may send
# anything. Three lies of chapter 9: their update turned round and five times as long; training on flipped labels; and ALIE,
# which hides within the honest branches' scatter. Against them rules that do not average. What does each rule cost when nobody
# lies?

# %%
liars = (0, 1)
lies = {"nobody lies": None, "turned round ×5": SignFlip(liars, 5.0),
        "flipped labels": LabelFlip(liars), "ALIE": ALIE(liars)}
rules = {"mean": WeightedMean(), "median": CoordinateMedian(2), "trimmed mean": TrimmedMean(2),
         "Multi-Krum": MultiKrum(2), "geometric median": GeometricMedian(2)}
attacked = {(rule, lie): bank(careful, weights=Uniform(), aggregation=how, attack=attack)
            for rule, how in rules.items() for lie, attack in lies.items()}
ran = {key: fed.train(bank_rounds) for key, fed in attacked.items()}
verdicts = {key: judged(careful, run.state.server.params) for key, run in ran.items()}
table = pd.Series({key: each["AUC"] for key, each in verdicts.items()}).unstack(sort=False)
print(table.round(3).to_string())

# %%
figure, (ax,) = canvas(1, width=7)
for i, lie in enumerate(lies):
    ax.bar(np.arange(len(rules)) + 0.2 * i - 0.3, table[lie], 0.2, color=PALETTE[i], label=lie)
ax.axhline(0.5, linestyle=":", color="grey")
ax.set_xticks(range(len(rules)), list(rules))
ax.set(ylabel="AUC on held-out loans", ylim=(0.2, 1.0))
ax.legend(fontsize=8, ncol=2)
show(figure, "10.bank_rules")

# %% tags=["proof"]
# Proof, open me: two liars break the mean, no rule falls, and rules cost little in peace
if bank_rounds >= 30:
    assert table.loc["mean", "turned round ×5"] < 0.6
    assert table.drop("mean").min().min() > 0.68
    assert (table.loc["mean", "nobody lies"] - table["nobody lies"]).max() < 0.03
    assert table.loc["Multi-Krum"].min() > rows["class weights: alone"]["AUC"] + 0.02

# %% [markdown]
# Two liars who turn their updates round bring the mean below a coin; the two quieter lies cost it a few hundredths. Every rule
# holds, and costs next to nothing when nobody lies, because the branches are alike; with branches that differ the price was higher (chapter 9). Multi-Krum leaves out whom it does not believe,
# so it can also be asked *whom*, here in the last round:

# %%
for lie in list(lies)[1:]:
    metrics = ran["Multi-Krum", lie].records[-1].metrics
    print(f"{lie:16} of the removed, liars: {metrics['detection_precision']:.0%}; "
          f"of the liars, removed: {metrics['detection_recall']:.0%}")

# %% [markdown]
# ALIE is not found: honest branches are thrown out in the liars' place. No rule does much better against it than the mean, and it
# does little harm here. The louder lies are found; what is still lost then are the loans of two branches.

# %%
chosen = ran["Multi-Krum", "nobody lies"]
page = {"alone": rows["class weights: alone"], "federated": rows["class weights: federated"],
        "federated, two liars": verdicts["mean", "turned round ×5"],
        "Multi-Krum, nobody lies": verdicts["Multi-Krum", "nobody lies"],
        "Multi-Krum, two liars": verdicts["Multi-Krum", "turned round ×5"],
        "pooled": rows["class weights: pooled"]}
print(pd.DataFrame(page).T.round(3).to_string())
bill["bank group"] = {"measure": "AUC", "stack": "class weights + Multi-Krum", **{
    name: page[name]["AUC"] for name in ("alone", "federated", "pooled")},
    "with stack": page["Multi-Krum, nobody lies"]["AUC"], "ε": np.inf,
    "MB": chosen.megabytes, "seconds": chosen.records[-1].clock}

# %% tags=["proof"]
# Report, open me: the bank's page
report(bank_alone=page["alone"]["AUC"], bank_federated=page["federated"]["AUC"],
       bank_pooled=page["pooled"]["AUC"], bank_attacked=page["federated, two liars"]["AUC"],
       bank_stack=page["Multi-Krum, two liars"]["AUC"], bank_cost=page["federated"]["cost a loan"],
       bank_gap_young=page["federated"]["gap young"])

# %% [markdown]
# What does the server see? Every branch's update, one by one: the rule must look at them. So the bank group cannot also have a
# secure sum (see "What goes wrong"): it trusts its server and not its branches, the hospitals the other way round. The liars do
# not pay, good payers in the refused groups do, and that is not mended by any rule of aggregation.
#
# **Try it.** `SignFlip((0, 1, 2, 3), 5.0)` with `MultiKrum(4)`. What happens, and why?
#
# Answer: it is refused: Krum needs $n \ge 2f+3$ updates, 11 for four liars, and there are ten branches. `CoordinateMedian(4)`
# accepts ten, and has only two honest votes to spare.

# %% [markdown]
# ## Keyboards: what do a hundred people who type little need?
#
# **The data.** What 122 roles say in ten of Shakespeare's plays, a client a role, a few hundred characters each; the last fifth
# of it is the client's own test. Twenty further roles were never asked. From four characters predict the fifth, one of 32.
# Nothing is simulated here but the phones.

# %%
roles = shakespeare(context=4)
typing = mlp(128, 48, 32)
print(roles)
print("three clients:", ", ".join(roles.ids[20:23]))
phones = LogNormal(examples_per_second=50, speed_spread=1.0, down_mbit=2, up_mbit=0.5, seed=seed)
fifth = LocalSGD(lr=0.5, epochs=2, batch_size=20)


def keyboards(model=typing, train=fifth, **how):
    every = Evaluation(every=max(1, phone_rounds // 5))
    return Coordinator(roles, model, train, Synchronous(0.1), fleet=phones, evaluation=every,
                       seed=seed, **how)


simple = keyboards()
spoken = simple.train(phone_rounds)
beside = baselines(simple, phone_rounds, alone=max(1, phone_rounds // 10))
print(compare(simple, spoken, beside))

# %%
def continues(text, w, best=3):
    """The likeliest next characters after a text, and what the model believes of them."""
    x = np.eye(32, dtype=np.float32)[encode_text(text)[-4:]].reshape(1, -1)
    scores = typing.predict(w, x)[0]
    belief = np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()
    return ", ".join(f"{ALPHABET[i]!r} {belief[i]:.0%}" for i in np.argsort(-belief)[:best])


for text in ("o romeo, rome", "my lor", "to be or not t", "wherefore ar"):
    print(f"{text + '_':18}", continues(text, spoken.state.server.params))
strangers = metrics_of(typing, spoken.state.server.params, roles.x_test, roles.y_test)["accuracy"]
print(f"of what the twenty unknown roles say next: {strangers:.1%} right")

# %% tags=["proof"]
# Proof, open me: alone < federated, near pooled; and what was learned is English, not the clients
means = {name: np.nanmean(each) for name, each in beside.items()}
assert np.isclose(own_measure(simple, spoken.state).mean(), means["global"])
if phone_rounds >= 50:
    assert means["local only"] + 0.08 < means["global"] < means["pooled"] + 0.015
    assert means["global"] > means["pooled"] - 0.03
    assert abs(strangers - means["global"]) < 0.03

# %% [markdown]
# (*luck*: how far a client's number scatters because its test is short; *wins*: the share of clients that are better off than
# alone. Chapter 8.) Alone a role has a few hundred characters, too few to learn English from. Together the roles learn some, and
# it serves unknown roles as well as those that took part.
#
# ### What do phones fear?
#
# **The bill.** Slow links, little battery, long rounds: a round waits for its slowest phone. So: send less up (the largest tenth
# of the numbers, eight bits each, the rest remembered), send less down (eight bits), and think about whom to ask.

# %%
squeeze = {"plain": [], "TopK up": [TopK(0.1)], "TopK + QSGD up": [TopK(0.1), QSGD(8)],
           "… and 8 bits down": [TopK(0.1), QSGD(8), Downlink(8)]}
sent = {name: keyboards(stages=stages).train(phone_rounds) if stages else spoken
        for name, stages in squeeze.items()}


def up(history):
    return sum(sum(record.bytes_up.values()) for record in history.records) / 1e6


def on_own(fed, history):
    own = own_measure(fed, history.state)
    return {"accuracy": own.mean(), "worst tenth": np.sort(own)[:len(own) // 10].mean()}


cheap = {name: {**on_own(keyboards(stages=squeeze[name]), history), "MB up": up(history),
                "MB in all": history.megabytes} for name, history in sent.items()}
print(pd.DataFrame(cheap).T.round(3).to_string())

# %%
figure, (left, right) = canvas(2, width=4.4)
for name, history in sent.items():
    rounds, mb, total = [], [], 0.0
    for record in history.records:
        total += record.nbytes / 1e6
        if "accuracy" in record.metrics:
            rounds.append(record.version)
            mb.append(total)
    values = [value for value in history.series("accuracy") if value == value]
    left.plot(rounds, values, marker="o", markersize=3, label=name)
    right.plot(mb, values, marker="o", markersize=3, label=name)
left.set(xlabel="round", ylabel="accuracy, unknown roles")
right.set(xlabel="sent in all (MB)", xscale="log")
show(figure, "10.keyboards")

# %% [markdown]
# Compressing the way up only halves the bill, because the model still goes *down* to every phone. Count both ways.
#
# Whom to ask? Everybody by lot; in turn; or, as Oort does (chapter 6), those that are fast and have a large loss:

# %%
ways = {"by lot": UniformSelection(), "in turn": RoundRobin(), "Oort": Oort()}
asked = {name: keyboards(selection=how) for name, how in ways.items()}
heard_of = {name: (sent["plain"] if name == "by lot" else fed.train(phone_rounds))
            for name, fed in asked.items()}
rows = {}
for name, history in heard_of.items():
    counts = participation(history, roles.ids)
    rows[name] = {**on_own(asked[name], history), "seconds": history.records[-1].clock,
                  "Gini of being asked": gini(counts), "asked never or once": sum(
                      count <= 1 for count in counts.values())}
print(pd.DataFrame(rows).T.round(3).to_string())

# %% tags=["proof"]
# Proof, open me: what the phones' mechanisms buy and cost
last = "… and 8 bits down"
if phone_rounds >= 50:
    assert cheap["plain"]["MB in all"] > 5 * cheap[last]["MB in all"]
    assert cheap["TopK + QSGD up"]["MB in all"] > 0.45 * cheap["plain"]["MB in all"]
    assert 0 < cheap["plain"]["accuracy"] - cheap[last]["accuracy"] < 0.04
    assert rows["Oort"]["seconds"] < 0.5 * rows["by lot"]["seconds"]
    assert rows["Oort"]["Gini of being asked"] > rows["by lot"]["Gini of being asked"] + 0.2
    assert rows["in turn"]["Gini of being asked"] < 0.05

# %% [markdown]
# Oort is several times faster, and asks some phones again and again and others hardly ever. In turn is about as accurate as
# by lot and the fairest. Which is best is not a question of accuracy here.
#
# ### Are personal layers worth it?
#
# Keyboards are the textbook's case for personal layers (chapter 8): everybody types differently. Try it: the last layer at
# home; the last layer at home after half of the rounds with all; only its *biases* (how often I use each character); and
# fine-tuning.

# %%
def personal(part, warm=False):
    """FedPer with a part of the network at home; warm: begun from half a run of FedAvg."""
    fed = keyboards(Split(typing, personal=part), replace(fifth, personal=FedPer()))
    if not warm:
        return on_own(fed, fed.train(phone_rounds))
    half = keyboards().train(phone_rounds // 2).state.server.params
    return on_own(fed, fed.train(phone_rounds - phone_rounds // 2, handed_out(fed, half)))


tuned = keyboards(train=replace(fifth, personal=FineTune(1)))
mine = {"nothing": cheap["plain"], "last layer": personal("dense1"),
        "last layer, warm": personal("dense1", warm=True), "its biases": personal("dense1.bias"),
        "fine-tuned, 1 epoch": on_own(tuned, tuned.train(phone_rounds))}
print(pd.DataFrame(mine).T[["accuracy", "worst tenth"]].round(3).to_string())

# %% tags=["proof"]
# Proof, open me: on these data personal layers do not pay
if phone_rounds >= 50:
    for name in ("last layer", "last layer, warm", "fine-tuned, 1 epoch"):
        assert mine[name]["accuracy"] < mine["nothing"]["accuracy"], name
    assert abs(mine["its biases"]["accuracy"] - mine["nothing"]["accuracy"]) < 0.015

# %% [markdown]
# They do not pay. A last layer has $48 \cdot 32 + 32$ = 1,568 numbers, and a client has a few hundred characters to learn them
# from; and what one role has of its own is little beside what all share, English. The biases are few enough to be learned, and
# gain nothing. A mechanism that belongs to a sector by tradition belongs into *your* stack when your own table says so.
#
# ### Can noise hide each person?
#
# The bill is not all that a phone may fear: the model goes to everybody, and what one person typed may be read off it. A person
# is a client here, so the noise must hide a whole client, as it hid a hospital (chapter 3, [[client-level privacy|differential privacy]]): each
# client is asked by a coin of its own, which ε counts on; its update is clipped at length $C$; noise goes on the sum. What is left
# at ε = 4 (δ = 1 in 1,000)? The last row imitates a crowd: the same twelve answers a round, and noise on their
# mean that is a tenth as long beside $C$, as it would be if ten times as many people had taken part. ($C$ is 0.3, and 1 in the crowd.)

# %%
def hidden_people(share=0.1, rounds=phone_rounds, clip=0.3, crowd=1):
    """FedAvg with noise that hides every person: at ε = 4, if crowd is 1."""
    z = noise_for_budget(4.0, 1e-3, rounds, share, RDP())
    noise = CentralDP(clip, z / crowd, 1e-3, accountant=RDP(), noise_seed=seed)
    fed = replace(simple, schedule=Synchronous(share), selection=PoissonSelection(),
                  weights=Uniform(), stages=[noise], evaluation=Evaluation(every=rounds))
    history = fed.train(rounds)
    longest = share * len(roles.ids) * clip          # a sum of all answers, if all pull one way
    return {"accuracy": own_measure(fed, history.state).mean(), "MB": history.megabytes,
            "ε": history.last("epsilon") if crowd == 1 else np.nan,
            "noise / longest sum": noise.noise_multiplier * clip * typing.dim**0.5 / longest}


noisy_phones = {"noise": hidden_people(),
                "twice the people a round, twice the rounds": hidden_people(0.2, 2 * phone_rounds),
                "as if ten times as many typed": hidden_people(clip=1.0, crowd=10)}
print(pd.DataFrame({"alone": {"accuracy": means["local only"]}, "federated": {
    "accuracy": means["global"], "MB": spoken.megabytes}, **noisy_phones}).T.round(2).to_string(
        na_rep=""))

# %% tags=["proof"]
# Proof, open me: among so few the noise takes most of the gain; in a crowd most of it is back
if phone_rounds >= 50:
    gain = means["global"] - means["local only"]
    few, more, crowd = (row["accuracy"] - means["local only"] for row in noisy_phones.values())
    assert few < 0.25 * gain and more < 0.5 * gain < crowd
    assert noisy_phones["noise"]["noise / longest sum"] > 5
    assert max(row["ε"] for row in list(noisy_phones.values())[:2]) <= 4

# %% [markdown]
# The privacy of 122 people costs nearly all that they gain, and four times the megabytes bring back about a third of it. The last column
# says why: noise that hides one update has the deviation $zC$ in *every* one of the model's numbers, and is together several times
# as long as the longest sum of twelve updates. In a crowd the sum grows and the noise does not. Keyboards that really learn so do
# it with crowds (McMahan et al. 2018: "given a dataset with a sufficiently large number of users"). So we leave the noise out.
# That is the reason for ε = ∞ in this sector's line of the bill: nothing bounds what the model tells about a role.
#
# The page, with the stack that was worth it, and with personal biases beside it. We ask in turn, so that everybody is in the
# model, and compress both ways:

# %%
stack = {"selection": RoundRobin(), "stages": squeeze[last]}
final = keyboards(**stack)
typed = final.train(phone_rounds)
at_home = keyboards(Split(typing, personal="dense1.bias"), replace(fifth, personal=FedPer()),
                    **stack)
typed_home = at_home.train(phone_rounds)
page = {"alone": {"accuracy": means["local only"]},
        "federated": {**on_own(simple, spoken), **line(0, spoken)},
        "with the stack": {**on_own(final, typed), **line(0, typed)},
        "… and biases at home": {**on_own(at_home, typed_home), **line(0, typed_home)},
        "pooled": {"accuracy": means["pooled"]}}
columns = ["accuracy", "worst tenth", "MB", "seconds"]
print(pd.DataFrame(page).T[columns].round(3).to_string(na_rep=""))
bill["keyboards"] = {"measure": "accuracy", "stack": "in turn, TopK + QSGD, 8 bits down", **{
    name: page[name]["accuracy"] for name in ("alone", "federated", "pooled")},
    "with stack": page["with the stack"]["accuracy"], "ε": np.inf,
    "MB": typed.megabytes, "seconds": typed.records[-1].clock}

# %% tags=["proof"]
# Report, open me: the keyboards' page
if phone_rounds >= 50:
    assert page["alone"]["accuracy"] + 0.06 < page["with the stack"]["accuracy"]
    assert abs(page["… and biases at home"]["accuracy"] - page["with the stack"]["accuracy"]) < 0.02
report(keyboards_alone=means["local only"], keyboards_federated=means["global"],
       keyboards_pooled=means["pooled"], keyboards_stack=page["with the stack"]["accuracy"],
       keyboards_mb=typed.megabytes, keyboards_mb_plain=spoken.megabytes,
       keyboards_personal=mine["last layer, warm"]["accuracy"])

# %% [markdown]
# The bytes fall a lot and the seconds hardly: a round waits for slow computers, not for a model this small.
#
# What does the server see? Every phone's update, compressed. Small is not secret: for that a secure sum would be needed, which
# does not take sparse updates (see "What goes wrong"). If the server must not see what people type, take the sum and pay in bytes;
# if the model must not tell it either, take noise, too, and a crowd.
#
# **Try it.** `shakespeare(context=4, share=1.0)` gives everybody four times the text. What do you expect of *alone*,
# *federated* and the personal last layer?
#
# Answer: all rise. Alone gains most and stays far behind; federated and pooled are about equal; the personal last layer loses
# less than before, and still loses. (It takes four times as long.)

# %% [markdown]
# ## Cars: who is heard when half of them are in a tunnel?
#
# **The data** are *generated*, by a formula that stands in `fl_course/data/capstones.py`: energy for a kilometre from speed,
# stops, slope, temperature and load. Thirty cars, ten each of city, country and motorway, never leave their kind of road; and
# each brakes in a style of its own, which is in no column. The error is in units of 100 N, that is 2.8 kWh per 100 km. The
# held-out kilometres are on all three kinds of road alike: they stand for the day on which a car leaves home.

# %%
cars = vehicles(home=1.0, seed=seed)
energy = mlp(5, 32, 1, loss=SquaredError())
print(cars)
kinds = {road: [car for car in cars.ids if car.startswith(road)]
         for road in ("city", "country", "motorway")}
drive = LocalSGD(lr=0.05, epochs=2, batch_size=16)


place = np.tile(np.arange(40) % 3, 30)         # of a held-out kilometre: city, country, motorway


def error(w, kind=None):
    """Of a model on the held-out kilometres: all, or those on one kind of road."""
    rows = slice(None) if kind is None else place == kind
    return metrics_of(energy, w, cars.x_test[rows], cars.y_test[rows])["rmse"]


passes = max(1, car_rounds * 3 // 10)          # of everybody, where three in ten are asked
everybody = Coordinator(cars, energy, drive, Synchronous(1.0), evaluation=Evaluation(every=passes),
                        seed=seed)
lonely = [error(w) for w in local_only(everybody, passes)]
ideal = everybody.train(passes)
pool_error = error(pooled(everybody, passes))
print(f"always say the mean {cars.y_test.std():.2f}, alone {np.mean(lonely):.2f}, "
      f"federated {ideal.last('rmse'):.2f}, pooled {pool_error:.2f}")

# %% [markdown]
# Alone a car knows its own road, and is lost on the others: that is what it gains from the others. The pooled model takes many
# more steps in a pass, since a batch of 16 is a smaller part of it.
#
# ### What do cars fear?
#
# **Holes in the network.** A car in the city is reachable four minutes of five, on the motorway nine of ten, in the country one
# of fifteen. One job in ten is lost. Computers differ, too. All schedules below meet the *same* trace, the same computers, the
# same luck.

# %%
minutes = {"city": (4, 1), "country": (1, 14), "motorway": (9, 1)}     # reachable, not reachable


def coverage(car):
    """An hour of a car, again and again: when it comes and when it goes, exponential times."""
    mean, rng = minutes[car.split()[0]], stream(seed, "coverage", car)
    there, now, changes = rng.random() < mean[0] / sum(mean), 0.0, []
    while now < 3600:
        changes.append((now, float(there)))
        now += max(1.0, 60 * rng.exponential(mean[0 if there else 1]))
        there = not there
    return changes


trace = Trace({car: coverage(car) for car in cars.ids}, period=3600)
computers = LogNormal(examples_per_second=5, speed_spread=0.8, down_mbit=1, up_mbit=1, seed=seed)
road = Devices(computers, trace, failure=0.1, seed=seed)

# %%
figure, (ax,) = canvas(1, width=8, height=3.4)
for i, (kind, group) in enumerate(kinds.items()):
    for j, car in enumerate(group):
        ends = [*(time for time, _ in trace.events[car][1:]), 3600]
        for (start, there), end in zip(trace.events[car], ends):
            if there:
                ax.plot([start / 60, end / 60], [10 * i + j] * 2, color=PALETTE[i],
                        linestyle="-", linewidth=2)
ax.set(xlabel="minute of the hour", ylabel="cars; a line where one is there", yticks=[5, 15, 25],
       yticklabels=list(kinds))
show(figure, "10.tunnels")

# %% [markdown]
# Who is away is not asked, and a round waits for those who were asked and are slow. Four schedules, each with nine cars at
# work: rounds; rounds that close after 30 s; rounds that close after 20 s and hear the late ones later; and FedBuff, which has
# no rounds and steps at every third answer.

# %%
def on_road(steps, **parts):
    fed = Coordinator(cars, energy, drive, **{
        "fleet": road, "seed": seed, "evaluation": Evaluation(every=max(1, steps // 30)), **parts})
    return fed, fed.train(steps)


schedules = {"rounds": (car_rounds, {"schedule": Synchronous(0.3)}),
             "deadline 30 s": (car_rounds, {"schedule": Synchronous(0.3, deadline=30)}),
             "late ones later": (2 * car_rounds, {"schedule": SemiSynchronous(0.3, deadline=20)}),
             "FedBuff": (3 * car_rounds, fedbuff(concurrency=9, buffer=3, by_examples=True))}
drives = {name: on_road(steps, **parts) for name, (steps, parts) in schedules.items()}

# %%
figure, (left, right) = canvas(2, width=4.6)
rows = {}
for name, (fed, history) in drives.items():
    points = [(r.clock, r.metrics["rmse"]) for r in history.records if "rmse" in r.metrics]
    left.plot(*np.array(points).T, label=name)
    groups = heard(fed, history, list(kinds.values()))
    right.plot(range(3), [group.share for group in groups], "o", label=name)
    rows[name] = {"seconds to 1.2": getattr(reached(history, 1.2, "rmse"), "seconds", np.nan),
                  "seconds": history.records[-1].clock, "updates": sum(g.updates for g in groups),
                  "error": history.last("rmse"), "Gini": gini(participation(history, cars.ids)),
                  "country: share": groups[1].share, **{
                      f"error {kind}": error(history.state.server.params, i)
                      for i, kind in enumerate(kinds)}}
rows["all always there"] = {"error": ideal.last("rmse"), "country: share": 1 / 3, **{
    f"error {kind}": error(ideal.state.server.params, i) for i, kind in enumerate(kinds)}}
left.set(xlabel="simulated seconds", ylabel="error (100 N), all roads", xscale="log", yscale="log")
right.axhline(1 / 3, color="grey", linestyle=":")
right.set(xticks=range(3), xticklabels=list(kinds), ylabel="share of the updates", ylim=(0, 1))
show(figure, "10.cars")

# %%
print(pd.DataFrame(rows).T.round(2).to_string(na_rep=""))

# %% tags=["proof"]
# Proof, open me: without rounds it is faster, and the country is starved under every schedule
if car_rounds >= 60:
    assert rows["FedBuff"]["seconds to 1.2"] < 0.7 * rows["rounds"]["seconds to 1.2"]
    assert all(rows[name]["country: share"] < 0.15 for name in schedules)
    assert all(row["error"] < 0.75 * np.mean(lonely) for row in rows.values())
    assert pool_error < ideal.last("rmse") < 0.75 * np.mean(lonely)
    for name in ("rounds", "FedBuff"):
        row = rows[name]
        assert row["error country"] > 1.2 * max(row["error city"], row["error motorway"])
    there = rows["all always there"]
    assert there["error country"] < 1.2 * max(there["error city"], there["error motorway"])

# %% [markdown]
# A third of the cars gives a few updates in a hundred. No schedule mends that, because a car that cannot be reached cannot be
# asked. What suffers is what only they know, the hills: with rounds and with FedBuff the model errs most on country roads. Had
# all been there (last line), it would not. The mean over all roads hides this: by the mean the schedules with holes look about
# as good as the last line, or better, since they take more steps.
#
# ### Reproduction card: FedBuff against rounds, on a trace with holes
#
# | | the paper | here (the cells below) |
# |---|---|---|
# | claim | buffered asynchronous training is more efficient than rounds | the same, to an error of 1.2 |
# | number | Nguyen et al. 2022: "3.3x more efficient" (abstract, which does not say in what) | printed below: in seconds, a mean over three federations |
# | what differs | phones, larger models, images and text, many more at work at a time | thirty generated cars, 9 at work, buffer 3, one kind of car that is hardly ever there |
#
# More than twice the paper's number: why? Seconds are answers, times the seconds that an answer takes. Take the two apart. First
# the answers, and beside FedBuff one with a buffer of nine, which steps as seldom as a round:

# %%
def needed(steps, parts, again):
    """Seconds and answers to an error of 1.2; all luck but that of the devices is drawn again."""
    fed = replace(drives["rounds"][0], seed=again, evaluation=Evaluation(every=1), **parts)
    cost = reached(fed.train(steps), 1.2, "rmse")
    return (cost.seconds, cost.updates) if cost else (np.nan, np.nan)


racers = {**{name: schedules[name] for name in ("rounds", "FedBuff")},
          "FedBuff, buffer 9": (car_rounds, fedbuff(9, 9, by_examples=True))}
took = {name: np.array([needed(*how, seed + i) for i in range(3)]) for name, how in racers.items()}
factors, _ = (took["rounds"] / took["FedBuff"]).T
for name in list(racers)[1:]:
    seconds, answers = (took["rounds"] / took[name]).T
    print(f"rounds / {name}: seconds {np.round(seconds, 1)}, mean {seconds.mean():.1f}; "
          f"answers {np.round(answers, 1)}, mean {answers.mean():.1f}")

# %% [markdown]
# Then how fast answers come. For that nobody has to train: `rehearse` runs the clock alone. We make the computers less unequal, too:

# %%
def answers_a_second(spread, steps, parts):
    computing = replace(road, speed=replace(computers, speed_spread=spread))
    clock = rehearse(replace(drives["rounds"][0], fleet=computing, **parts), steps)
    return sum(len(record.clients) for record in clock.records) / clock.records[-1].clock


for spread in (0.8, 0.4, 0.0):
    slow, fast = (answers_a_second(spread, *racers[name]) for name in ("rounds", "FedBuff"))
    print(f"speeds spread by {spread}: rounds {slow:.2f} answers a second, FedBuff {fast:.2f}, "
          f"{fast / slow:.1f} times as many")

# %% [markdown]
# So our number is a product. Answers come about five times as fast, for no other reason than that a round waits for the slowest of
# nine computers: among computers half as unequal it is about twice, among equal ones not at all. And FedBuff needs fewer of them,
# because it steps three times where a round steps once; with a buffer of nine it needs *more* than rounds, since its answers are
# late, and the whole factor falls to about three. That this is near the paper's number is chance. Neither number is yours:
# both factors depend on the fleet and on the buffer, so measure them there.

# %%
fed, history = drives["FedBuff"]
page = {"alone": {"error": np.mean(lonely)}, "federated, all there": {"error": ideal.last("rmse")},
        "rounds, with holes": {"error": rows["rounds"]["error"], **line(0, drives["rounds"][1])},
        "FedBuff, with holes": {"error": rows["FedBuff"]["error"], **line(0, history)},
        "pooled": {"error": pool_error}}
columns = ["error", "MB", "seconds"]
print(pd.DataFrame(page).T[columns].round(2).to_string(na_rep=""))
bill["cars"] = {"measure": "error, 100 N", "stack": "FedBuff on a fleet with holes",
                "alone": np.mean(lonely), "federated": rows["rounds"]["error"],
                "pooled": pool_error, "with stack": rows["FedBuff"]["error"], "ε": np.inf,
                "MB": history.megabytes, "seconds": history.records[-1].clock}

# %% tags=["proof"]
# Report, open me: the cars' page, and the band of the card
if car_rounds >= 60:
    assert np.mean(factors) >= 1.5, "the claim did not reproduce"
report(cars_alone=np.mean(lonely), cars_federated=rows["rounds"]["error"], cars_pooled=pool_error,
       cars_stack=rows["FedBuff"]["error"], cars_faster=np.mean(factors),
       cars_country=rows["FedBuff"]["country: share"])

# %% [markdown]
# **Try it.** Give the country cars the city's coverage in `minutes`, and run the schedules again. What happens to their share,
# and to FedBuff's lead?
#
# Answer: their share rises to about a third. FedBuff stays ahead, because the lead comes from slow computers, not from holes: a
# round waits for the slowest car that was asked, and who is in a hole is not asked at all.

# %% [markdown]
# ## The bill
#
# The four sectors side by side. *Price* is what the stack costs in the sector's own measure, in the direction that hurts; the
# bank's row is the price when nobody lies, the cars' that of FedBuff on the same holes (a negative price is a gain). In
# the picture the bars of the first three do not begin at 0.

# %%
sheet = pd.DataFrame(bill).T
worse = np.where(sheet["measure"] == "error, 100 N", 1, -1)
sheet["price"] = worse * (sheet["with stack"] - sheet["federated"]).astype(float)
sheet["gain over alone"] = -worse * (sheet["with stack"] - sheet["alone"]).astype(float)
numbers = ["alone", "federated", "with stack", "pooled", "price", "gain over alone",
           "ε", "MB", "seconds"]
print(sheet[["measure", "stack"]].to_string(), "\n")
print(sheet[numbers].astype(float).round(3).to_string())

# %%
figure, axes = canvas(4, width=2.4, height=2.8)
for ax, (sector, row) in zip(axes, bill.items()):
    values = [row[name] for name in ("alone", "federated", "with stack", "pooled")]
    ax.bar(range(4), values, color=[PALETTE[i] for i in (3, 0, 1, 2)])
    ax.set_xticks(range(4), ["alone", "federated", "with stack", "pooled"], rotation=60)
    low = 0 if sector == "cars" else 0.9 * min(values)
    ax.set(title=sector, ylabel=row["measure"], ylim=(low, None))
show(figure, "10.bill")

# %% tags=["proof"]
# Proof, open me: in all four the stack beats alone, and pooled is the best within a band
for sector, row in bill.items():
    sign, band = (-1, 0.15) if sector == "cars" else (1, 0.015)
    full = {"hospitals": hospital_rounds >= 20, "bank group": bank_rounds >= 30,
            "keyboards": phone_rounds >= 50, "cars": car_rounds >= 60}[sector]
    if full:
        assert sign * row["alone"] < sign * row["federated"] <= sign * row["pooled"] + band, sector
        assert sign * row["alone"] < sign * row["with stack"], sector

# %% [markdown]
# | | who sees single updates | who must be honest | who pays the price |
# |---|---|---|---|
# | hospitals | nobody | the clients | everybody a little, as long as a patient is the unit |
# | bank group | the server | the server, and eight of ten branches | the branches, a little; and, stack or not, good payers of the groups that are refused more |
# | keyboards | the server | all | everybody a little, in accuracy |
# | cars | the server | all | the country |
#
# Three lines say ε = ∞: nothing bounds there what the *model* tells about those who trained it. For the keyboards you have seen
# why. The bank and the cars did not ask for it; whoever does, begins with noise within the branches, as within the hospitals.
#
# No stack has everything. Privacy by sums and robustness by looking exclude each other; fast and fair pull in different
# directions; and what a mechanism costs depends on who the clients are, more than on the mechanism.
#
# ## Try the hospitals yourself
#
# With how many hospitals does *alone* fall behind? How does the price of hiding a hospital change with their number, and that
# of hiding a patient? Change one thing at a time.

# %%
from fl_course.workbook.widgets.capstones import hospitals_explorer

hospitals_explorer()

# %% [markdown]
# **Try it.** At ε = 4, from how many hospitals on is it worth while to hide *hospitals*?
#
# Answer: from about twenty: there the federation ends well above what they reach alone. More hospitals help little more: what is left
# is the price of clipping and of equal weights, which no number takes away. To hide a *patient* gets dearer meanwhile, since every
# hospital adds its own noise, and at a small ε and eighty hospitals it is the dearer of the two.
#
# ## Watching a federation
#
# A federation that runs for weeks is watched. `explain` reads a history and says in sentences what is wrong with it, with the
# numbers and the chapter. Here it reads the bank with two liars under the mean, and the phones with Oort:

# %%
watched = replace(attacked["mean", "turned round ×5"], evaluation=Evaluation(every=1))
for name, (fed, history) in {"bank, liars, mean": (watched, watched.train(bank_rounds)),
                             "keyboards, Oort": (asked["Oort"], heard_of["Oort"])}.items():
    print(f"{name}:")
    for finding in history.explain(fed):
        print("  ", finding)

# %% [markdown]
# Take the sentences as symptoms, the likely cause first. The first one about the bank names who sent the longest step: a
# liar. The other liar's is as wrong and a little shorter, so it is not named. And the alarm sees the length and not the reason:
# a branch that is broken, or has far more loans, would look the same.
#
# A dashboard shows the same *while it runs*, beside the notebook and not in its way: quality, the losses of the clients, drift,
# norms, bytes, who takes part, what became of each job; below them the alarms, each with its lesson. *Pause* stops after the round
# at hand, and *Start* goes on from there, to the bit.

# %%
from fl_course.workbook.widgets.dashboard import Dashboard

dashboard = Dashboard(watched, rounds=bank_rounds, title="The bank, with two liars")
dashboard.start()

# %% [markdown]
# What it leaves is a history like any other: `save` it and go on tomorrow, or write it down as a notebook that makes the same run
# again, `history.to_notebook("run.ipynb", watched)`. Every random draw has a name, so a run can be replayed, and two runs can be
# held against each other message by message. Here the same bank without its liars and with them:

# %%
history = dashboard.wait()
history.replay(watched)                # a ValueError at the first round that differs
print(first_difference(replace(watched, attack=None), watched, rounds=2))

# %% tags=["proof"]
# Proof, open me: watching changes nothing, and the first message that differs is a liar's
assert history.records == watched.train(bank_rounds).records
parted = first_difference(replace(watched, attack=None), watched, rounds=2)
assert parted.version == 1 and parted.client in watched.attack.clients
if bank_rounds >= 30:
    assert history.explain(watched)[0].what == "much longer"

# %% [markdown]
# ## What goes wrong
#
# Stacks that look good on a slide and do not go together. A rule that must look at single updates, and a sum that hides them:

# %% tags=["nbval-check-output"]
with refusal():
    bank(careful, weights=Uniform(), aggregation=MultiKrum(2), stages=[SecureSum(clip=2.0)])

# %% [markdown]
# A secure sum needs the same coordinates from everybody, and everybody in one round. A client that keeps a layer at home cannot
# be asked how badly the server's model serves it. And four liars among ten are too many for Krum:

# %% tags=["nbval-check-output"]
with refusal():
    keyboards(weights=Uniform(), stages=[TopK(0.1), SecureSum(clip=2.0)])
with refusal():
    Coordinator(cars, energy, drive, stages=[SecureSum(clip=2.0)], **fedbuff(9, 3))
with refusal():
    keyboards(Split(typing, personal="dense1"), replace(fifth, personal=FedPer()),
              selection=PowerOfChoice(20))
with refusal():
    bank(careful, weights=Uniform(), aggregation=MultiKrum(4))

# %% [markdown]
# And mistakes that nobody refuses. A mean AUC of 0.69 without *alone* beside it. An ε without the word for *whom*. Megabytes
# counted one way. A mean over clients that hides the country. Accuracy where mistakes have different prices.
#
# ## Summary
#
# - Begin with alone and pooled: they say what a federation can be worth, and what it can cost.
# - Few large clients: hide the people in the data, not the clients; a secure sum costs bytes only.
# - Clients that may lie: a rule that looks at updates. It excludes a secure sum, and you must trust the server instead.
# - Many small clients: bytes both ways, and who is asked. Personal layers only if your own table says so; noise that hides people
#   only in a crowd.
# - Clients that come and go: no rounds, and a table by group, because the mean does not show who is missing.
#
# ## Recall
#
# **1.** Ten hospitals publish a model with ε = 4. What must you ask before you are impressed?
#
# Answer: for whom: a patient or a hospital, and at which δ. For one patient of 1,711 it was cheap, for one of ten hospitals it
# cost most or all of the gain.
#
# **2.** Why did class weights make the accuracy of the bank's model worse, and why is that right?
#
# Answer: accuracy counts both mistakes alike; the bank's bill counts a bad loan five times. The weights put the bill into the
# loss.
#
# **3.** Can the bank group have Multi-Krum and a secure sum at once?
#
# Answer: no. Krum compares single updates, and a secure sum shows none. Bound each update's length before the sum instead, or
# trust the server.
#
# **4.** A phone's upload is compressed twenty-fold. Why does the bill only halve?
#
# Answer: the model still goes down uncompressed, which is the other half. Eight bits down, too, and it falls to less than a
# sixth.
#
# **5.** The mean error of the cars does not rise when the country is missing. Is all well?
#
# Answer: no: on country roads it does rise. A mean over roads that others know well hides it; print the groups.
#
# **References**: S. M. Hammer et al., *A trial comparing nucleoside monotherapy with combination therapy in HIV-infected
# adults*, NEJM 1996, doi:10.1056/NEJM199610103351501. · H. Hofmann, *Statlog (German Credit Data)*, UCI Machine Learning
# Repository, 1994, doi:10.24432/C5NC77. · B. Balle, Y.-X. Wang, *Improving the Gaussian mechanism for differential privacy*,
# ICML 2018, arXiv:1805.06530. · M. Abadi et al., *Deep learning with differential privacy*, CCS 2016, arXiv:1607.00133. · B.
# McMahan, D. Ramage, K. Talwar, L. Zhang, *Learning differentially private recurrent language models*, ICLR 2018,
# arXiv:1710.06963. · K. Bonawitz et al., *Practical secure aggregation for privacy-preserving machine learning*, CCS 2017,
# doi:10.1145/3133956.3133982. · P. Kairouz, Z. Liu, T. Steinke, *The distributed discrete Gaussian mechanism for federated
# learning with secure aggregation*, ICML 2021, arXiv:2102.06387. · M. Hardt, E. Price, N. Srebro, *Equality of opportunity in
# supervised learning*, NeurIPS 2016, arXiv:1610.02413. · P. Blanchard et al., *Machine learning with adversaries: Byzantine
# tolerant gradient descent*, NeurIPS 2017, arXiv:1703.02757. · F. Lai et al., *Oort: efficient federated learning via guided
# participant selection*, OSDI 2021, arXiv:2010.06081. · M. Arivazhagan et al., *Federated learning with personalization
# layers*, 2019, arXiv:1912.00818. · J. Nguyen et al., *Federated learning with buffered asynchronous aggregation*, AISTATS
# 2022, arXiv:2106.06639.
