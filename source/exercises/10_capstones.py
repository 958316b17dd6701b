# %% [markdown]
# # Exercises 10 · Build the platform
#
# Seven functions, from ten to twenty-five minutes. Write each in its cell; the cell below it answers at once, offline, on
# fresh random inputs. Stuck? `hint("10.hospital_stack")` gives one step more at each call, three steps; `reveal(…)`, called twice,
# shows a solution. No exercise needs the answer of another. A function leaves its arguments as they are: work on a copy.
#
# Each is a piece of a platform that the lesson's four sectors need: a stack, its mending, a plan, a monitor, a choice, a schedule,
# a measure. Below each stands a *rubric*: what is judged, the points of ten, and how the check sees it. At the end wait two
# evenings: a platform of your own, and a library of your own, which the checks of chapters 1 to 5 judge.

# %%
from dataclasses import replace
from itertools import combinations

import numpy as np

from fl_course import *
from fl_course.privacy.accounting import RDP, noise_for_budget
from fl_course.workbook import check, hint, progress, reveal

# %% exercise 10.hospital_stack [markdown]
# Ten hospitals give you a budget: `epsilon` at `delta`, for the presence of one *patient*, over all rounds. Compose training and
# stages so that the server sees no single update, the published model keeps the budget, and the AUC is at
# least 0.01 above what a hospital reaches alone (ε is 2 to 4, and there are 20 to 30 rounds). Patients weigh; the largest
# hospital has `largest` of them. Every hospital is asked in every round, and takes part with all its patients.
#
# | what is judged | points | how the check sees it |
# |---|---|---|
# | a patient is hidden, by noise whose seed nobody knows | 2 | `DPSGD` in the training, without `noise_seed` |
# | the server sees the sum only | 2 | a masked `SecureSum`, without `round_seed` |
# | the parts go together | 2 | the library accepts the federation |
# | the budget is kept | 2 | by the formula of the lesson, for all releases together |
# | it is worth it | 2 | three runs on a fresh deal with fresh noise; their mean AUC beats *alone* by 0.01 |

# %% [markdown]
# What does your stack reach on the lesson's hospitals, and what does a hospital alone?

# %%
patients = actg175()
hospitals = patients.partition(QuantitySkew(2.0), clients=10, seed=0, test_fraction=0.0)


def auc_of(model, w, data):
    outputs = model.predict(w, data.x_test)
    scores = outputs[:, 1] - outputs[:, 0]
    ones, zeros = scores[data.y_test == 1][:, None], scores[data.y_test == 0]
    return (ones > zeros).mean() + (ones == zeros).mean() / 2


training, stages = hospital_stack(2.0, 1e-5, 20, int(max(hospitals.sizes)))
training = replace(training, private=replace(training.private, noise_seed=0))     # a seed: only to print this page twice
plain = Coordinator(hospitals, logistic(16, 2), LocalSGD(lr=0.3, batch_size=None), Synchronous(1.0))
mine = replace(plain, training=training, stages=stages)
print(f"alone     {np.mean([auc_of(plain.model, w, patients) for w in local_only(plain, 20)]):.2f}")
print(f"federated {auc_of(plain.model, plain.train(20).state.server.params, patients):.2f}")
print(f"at ε = 2  {auc_of(plain.model, mine.train(20).state.server.params, patients):.2f}")

# %% exercise 10.largest_stack [markdown]
# A slide shows a stack with everything in it, and the library refuses it. Which parts must go? `refused(names)` asks the
# library: it answers with its sentence, or with None if it accepts. Find the largest stack that holds all the `needed` parts and is
# not refused, in the order of `parts`. There is always one.
#
# | what is judged | points | how the check sees it |
# |---|---|---|
# | what the threat asks for stays | 3 | every needed part is in your stack |
# | it is accepted | 4 | the library builds a federation of it |
# | nothing else was thrown out | 3 | no accepted stack with the needed parts is larger |

# %% exercise 10.rounds_that_fit [markdown]
# How many rounds may the keyboards train? Three budgets bind: `budget` = (ε, megabytes, seconds). `price(T)`
# is the ε of T rounds. `message` = (bytes up, bytes down) of one phone in one round; `phones` = (how many are asked in a round,
# seconds of computing, Mbit/s up, Mbit/s down). All phones of a round work at the same time: download, compute, upload; the next round
# begins when all are done. Return the most rounds that fit all three budgets; 0 if not even one does.
#
# | what is judged | points | how the check sees it |
# |---|---|---|
# | the privacy budget | 3 | a plan in which ε runs out first, at a price that is not a straight line |
# | bytes of all phones, both ways | 3 | a plan in which the megabytes run out first |
# | seconds | 3 | a plan in which the time runs out first |
# | no plan at all | 1 | one round is too dear already |

# %% exercise 10.planted_fault [markdown]
# A federation runs for weeks, and at most one thing goes wrong. Read its records, without `explain()`, and say
# what, and where:
#
# - `("over budget", version)`: the metric `epsilon` exceeds `budget`; the first version of which that is true;
# - `("diverged", version)`: the last measured `loss` is more than 1.5 times the smallest; the version of the smallest;
# - `("left out", client)`: the rule left out this client's answers in more than half of the records;
# - `("never heard", client)`: no answer of this client ever came to the rule, whether it was asked or not;
# - `("fine", None)`.
#
# A record has `version`, `metrics` (a dictionary; the loss is not measured in every round), `clients` (whose answers
# came in time, and to the rule) and `spans` (the jobs that ended, each with `client` and `fate`: "used", "left out", "too late", "failed"). Here is one of a real
# run, of the bank with a liar:
#
# | what is judged | points | how the check sees it |
# |---|---|---|
# | four faults | 8 | histories with one planted fault each, with the small troubles that every run has |
# | no false alarm | 2 | histories with small troubles only |

# %% tags=["given"]
branches = german_credit().partition(IID(), clients=10, seed=0, test_fraction=0.0)
bank = Coordinator(branches, logistic(46, 2), LocalSGD(lr=0.3, batch_size=None), Synchronous(1.0), weights=Uniform(),
                   aggregation=MultiKrum(2), attack=SignFlip((7,), 5.0))
record = bank.train(6).records[-1]
print("version", record.version, "  heard:", *record.clients)
print({name: round(value, 3) for name, value in record.metrics.items() if name in ("loss", "accuracy", "epsilon")})
print(*[(span.client, span.fate) for span in record.spans][:10])

# %% exercise 10.fair_rule [markdown]
# The bank has a table like the lesson's: for each rule and each lie the AUC, and the *gap*, by how much more often good payers of
# one group are refused than others (negative: less often). `bears[rule]` is the most liars for which a rule is made; fear `liars`
# of them. Nobody knows which lie will come, so a rule is worth its *worst* AUC. Choose the best among the rules that bear so many and
# whose gap is at most `widest`, to either side, under every lie. If there is none, say None.
#
# | what is judged | points | how the check sees it |
# |---|---|---|
# | safe | 4 | rules that shine in peace, or on average, and fall to one lie |
# | fair | 4 | rules that are better and favour a group, always, or under one lie only |
# | possible | 1 | a better rule that bears one liar too few |
# | honest | 1 | a table in which no rule is fair |

# %% exercise 10.whom_to_ask [markdown]
# Each minute some cars can be reached, and you ask `m` of them (all, if fewer are there). City and motorway are nearly always
# there, a country car one minute in sixteen, and one answer in ten is lost. No schedule can ask a car that is away; but when a rare one is
# there it must not be passed over. Write the choice.
#
# | what is judged | points | how the check sees it |
# |---|---|---|
# | only who is there, nobody twice, m of them | 3 | in each of 150 minutes |
# | nobody is starved | 4 | a country car that is there is asked four times in five, or more, from the 20th minute on |
# | the others share fairly | 3 | the least heard of city and motorway is heard 0.7 times as often as the most, or more |

# %% exercise 10.mended_auc [markdown]
# A colleague measures personal models: each hospital scores its own test patients by *its own* model. All scores go into one list, and one
# AUC comes out. It runs without an error, and such numbers have been published (Forman & Scholz 2010 describe the mistake for the folds of
# a cross-validation). The oracle, in the next cell: add 10 to all scores of one hospital. No patient changes places with another of the
# same hospital, so nothing is better or worse; the number moves.
#
# Mend it: of all pairs of a sick (`label` 1) and a healthy patient *of the same hospital*, the share in which the sick one has the higher
# score; a tie is half. A hospital may have patients of one kind only.
#
# | what is judged | points | how the check sees it |
# |---|---|---|
# | scores of two models are never compared | 5 | models with other scales |
# | every pair counts the same | 3 | hospitals of unequal size and share of sick |
# | ties, and hospitals of one kind | 2 | both occur |

# %% tags=["given"]
def broken_auc(scores, labels):
    s, y = np.concatenate(scores), np.concatenate(labels)
    ones, zeros = s[y == 1][:, None], s[y == 0]
    return (ones > zeros).mean() + (ones == zeros).mean() / 2


rng = np.random.default_rng(0)
labels = [np.arange(20) < 4, np.arange(30) < 20]                     # 4 of 20 are sick, and 20 of 30
scores = [rng.normal(size=len(y)) + 1.5 * y for y in labels]
print(f"as it is: {broken_auc(scores, labels):.2f}   "
      f"one hospital + 10: {broken_auc([scores[0] + 10, scores[1]], labels):.2f}   "
      f"the other + 10: {broken_auc([scores[0], scores[1] + 10], labels):.2f}")

# %% [markdown]
# ## An evening: your own library
#
# *Difficulty 5 of 5.* Write federated learning yourself, in about 300 lines, as you like: functions, classes, several files. Then
# put nine functions in front of it, a thin adapter, and `judge` puts each of them through the check of its exercise in chapters 1 to 5:
#
# | part | the check | chapter |
# |---|---|---|
# | `average`, `local_step` | FedAvg's mean; a step of local training | 1 |
# | `clip`, `private_mean`, `epsilon` | the bound, the noise, and what many rounds cost | 3 |
# | `split`, `join` | shares of a secret | 4 |
# | `top_k`, `remember` | the largest numbers, and what was not sent | 5 |
#
# The folder that `fl-course start` makes has a template, `exercises/my_fl.py`: write there, and run `judge("my_fl.py")` in a cell here,
# or `fl-course judge exercises/my_fl.py` in a terminal. It reads the file anew each time, says what is missing, and never stops at
# the first failure. An object of your own will do as well, `judge(MyLibrary())`. Our `fl_course/micro.py` behind such an adapter, and
# a library of which only one part is there:

# %%
from fl_course.workbook.own import Micro, judge

print(judge(Micro()).summary)


class MyLibrary:
    def clip(self, update, bound):
        return np.clip(update, -bound, bound)


judge(MyLibrary(), rng=np.random.default_rng(0))                    # the same inputs each time: only to print this page twice

# %% [markdown]
# | what is judged | points | how |
# |---|---|---|
# | nine parts | 9 | one each, by `judge` |
# | one loop that runs them on `digits()`, alone / federated / pooled printed beside each other | 4 | read by a person |
# | every part in fewer lines than ours, or clearer | 3 | read by a person |
# | one test of your own that fails when you break the part | 4 | break it and see |
#
# ## An evening: your own platform
#
# *Not checked by machine.* Take a federation that you know, or one of the four on other data. Write two pages: its card and its
# threats; then its stack, in the library.
#
# | what is judged | points |
# |---|---|
# | who the clients are, what they gain: *alone* and *pooled* stand beside every number | 3 |
# | a table of threats: who sees what, who must be honest, what no part of the stack prevents | 4 |
# | every part answers a threat or a cost, and one is left out with its reason | 3 |
# | the bill: quality, ε with *for whom*, bytes both ways, seconds, and who pays | 4 |
# | what is measured by group, and what you would watch | 3 |
# | the stack runs, and a pair that does not go together is named with the library's sentence | 3 |

# %%
progress()

# %% [markdown]
# **References**: G. Forman, M. Scholz, *Apples-to-apples in cross-validation studies: pitfalls in classifier performance
# measurement*, SIGKDD Explorations 12(1), 2010, doi:10.1145/1882471.1882479.
