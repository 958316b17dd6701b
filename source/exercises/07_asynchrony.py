# %% [markdown]
# # Exercises 7 · Asynchrony
#
# Eight functions, from five minutes to half an hour. Write each in its cell; the cell below it answers at once, offline, on fresh
# random inputs. Stuck? `hint("07.replay")` gives one step more at each call, three steps; `reveal(…)` shows a solution. No
# exercise needs the answer of another. A function leaves its arguments as they are: work on a copy.

# %%
import heapq

import numpy as np

from fl_course.workbook import check, hint, progress, reveal

# %% exercise 07.staleness_weight [markdown]
# How much an answer still counts that is `age` server steps old. Three curves are in use, and all are 1 at age 0. The *polynomial* is
# 1 + age to a negative power, of size a. The *exponential* loses the factor a with every step of age. The *hinge* is 1 as long as
# age ≤ b; after that it is one divided by a straight line that begins at 1 in b and rises by a a step.

# %% exercise 07.fedbuff_step [markdown]
# A buffer of K changes is full. Each was made for a model that is `age` steps old by now. Take the server's step as FedBuff does, with
# its own discount (the root) and the server's learning rate `lr`. Think of what the sum is divided by.

# %% exercise 07.bounded_delay [markdown]
# The server is at `version`. Answers come with the version of the model that they started from, and a length in bytes. Those that are
# more than `max_delay` steps old are refused, and so are those that claim to start from a version that does not exist yet. Which
# are used, and how many bytes were sent for nothing?

# %% exercise 07.replay [markdown]
# The clock of the lesson. All devices wait in a queue at first, 0 in front. At any time `at_work` of them have a job, as long as the
# queue has any; a job on device k takes `seconds[k]`, and whoever has answered joins the end of the queue. *Every* answer
# is a step of the server. Of those that finish at the same instant all are heard before anybody new is started, in the order of their
# *device* numbers (0 before 1), each with its own step. Say who answers when, and how stale: how many steps the server took between
# the job's start and the step that uses it. `heapq.heappush(heap, item)` and `heapq.heappop(heap)` keep the smallest item in front, `heap[0]`.

# %% exercise 07.delayed_walk [markdown]
# One parameter, and clients that all want the same: each sends the full change from the model that it saw to `target`. The change that
# the server uses in step t was made for the model of `delay` steps ago (in the first steps: for the start). The server adds
# `rate` times that change to today's model. Return all models. Then look for the largest rate with which a walk with delay 2 still
# arrives, to two digits (`steps=2000`): the lesson's 1/(delay + 1) is on the safe side. By how much?
#
# Answer: up to 0.618. Where it comes from: write the distance to the target as $z^t$. The rule then says $z^{\tau}(z - 1) = -\text{rate}$.
# The walk neither shrinks nor grows where $z$ is on the unit circle, $z = e^{i\varphi}$. There $|z - 1| = 2\sin(\varphi/2)$, and the
# angles agree first for $\varphi = \pi/(2\tau + 1)$. So the limit is $2\sin\frac{\pi}{2(2\tau+1)}$, which is 0.618 for τ = 2.

# %% exercise 07.throughput [markdown]
# Devices that never wait: each begins its next job when it has answered. How many answers does the server get in an hour, and which
# share of them is whose?

# %% exercise 07.read_timeline [markdown]
# A timeline in numbers: who was at work from when until when, and at which instants the server took a step. Every answer is used in the
# first step that is not before its end; every job given here ends no later than the last step, so each answer is used and no job is
# cut off. A job that begins at the instant of a step starts from the new model. How stale was each answer when it was
# used, and which share of the time until the last step was each device at work?

# %% exercise 07.serve [markdown]
# A colleague wrote FedBuff's server. It trains, and its curves look sober. (Our own rewrite of two slips that stand in a published
# engine.) What it should do: gather K answers; add $\frac{\eta}{K} \sum_i s(\tau_i)\,\Delta_i$ with
# $s(\tau) = (1 + \tau)^{-1/2}$; raise the version by 1. $\tau$ is the number of steps taken since the answer's model was sent. What does not
# fill a buffer waits. The oracle
# `weight_of` feeds a server with answers of zeros until one is `age` steps old, and measures how much it counts. It should say
# 1, 0.707, 0.577 and 0.5. Find out what is wrong, and write the server right.

# %% tags=["given"]
def careless_serve(w, answers, K, lr):
    version, buffer = 0, []
    for started, delta in answers:
        buffer.append((started, delta))
        if len(buffer) == K:
            version += 1
            for began, change in buffer:
                w = w + lr / K * change / (1 + np.sqrt(version - began))
            buffer = []
    return w


def weight_of(server, age):
    """How much an answer counts that is so many steps old: K = 1, learning rate 1, and a change of 1."""
    quiet = [(version, np.zeros(1)) for version in range(age)]
    return float(server(np.zeros(1), [*quiet, (0, np.ones(1))], 1, 1.0)[0])


for age in range(4):
    print(f"age {age}: counts {weight_of(careless_serve, age):.3f}")

# %% [markdown]
# ## How far have you come?

# %%
progress()
