# %% [markdown]
# # 5 · Compression
#
# An update is as large as the model, and phones upload slowly. Most of an update can be left out, if you know what to do with
# the rest.
#
# **You will be able to**
# - make an update 4 to 90 times smaller by sending fewer bits of each number, or fewer numbers, and count the true bytes;
# - say when compression is unbiased, when it is a contraction, and why the second kind needs a memory;
# - choose a compressor for a given uplink, and name the combinations that are unsound.
#
# About 100 minutes for a newcomer, the exercises not counted. You need chapter 1 (and chapters 3 and 4 for the end of
# "What goes wrong", which can be skipped). In the library: `fl_course/compression/feedback.py`
# (what is left out and remembered), `fl_course/compression/sparse.py` (fewer numbers), `fl_course/compression/quantisation.py` (fewer
# bits), `fl_course/wire/bits.py` (packing).

# %% tags=["parameters"]
rounds: int = 40  # rounds of the comparison of compressors
card_rounds: int = 100  # rounds of the reproduction card
repeats: int = 3  # federations that the card averages over
seed: int = 0  # every random choice follows from it

# %%
import numpy as np
import pandas as pd

from fl_course import *
from fl_course.engine.training import Trainer
from fl_course.workbook import report
from fl_course.workbook.lesson import canvas, refusal, show

# %% [markdown]
# ## What is in an update?
#
# Let a client train for five epochs, take its delta, and sort the numbers by magnitude. How much of the *energy*
# $\|\Delta\|^2$ do the largest few hold?

# %%
data = digits().partition(Shards(2), clients=100, seed=seed)
model, training = mlp(64, 64, 10), LocalSGD(lr=0.2, epochs=5, batch_size=10)
fed = Coordinator(data, model, training, Synchronous(0.1), seed=seed)
trainer, start = Trainer(training, model, data), fed.initial().server
update = trainer.train([Task(fed.clients[0], start, seed)])[0]
delta, d = update.delta, model.dim
energy = np.cumsum(np.sort(delta**2)[::-1]) / np.sum(delta**2)

# %%
figure, (left, right) = canvas(2)
left.hist(delta, bins=101)
left.set(xlabel="change of a parameter", ylabel="parameters", yscale="log",
         title=f"{d:,} numbers of one client")
share = np.arange(1, d + 1) / d
right.plot(share, energy, label="largest first")
right.plot(share, share, label="if all were equal")
right.set(xlabel="share of the numbers", ylabel="share of the energy", xscale="log", xlim=(1e-3, 1))
show(figure, "05.energy")

# %%
for part in (0.01, 0.1, 0.5):
    print(f"the largest {part:4.0%} hold {energy[round(part * d) - 1]:.0%} of the energy")

# %% tags=["proof"]
# Proof, open me: a tenth of the numbers holds more than 40 % of the energy
assert energy[round(0.1 * d) - 1] > 0.4

# %% [markdown]
# A tenth of the numbers does most of the work. So send only those: *top-k*.
#
# ## Does a zero cost nothing?
#
# The obvious program sets everything else to zero and sends the result. Count:

# %% tags=["nbval-check-output"]
from fl_course.wire.messages import encode_update

x = np.random.default_rng(0).standard_normal(4810).astype(np.float32)
k = 48
largest = np.sort(np.argsort(-np.abs(x), kind="stable")[:k])
zeroed = np.zeros_like(x)
zeroed[largest] = x[largest]
print("whole vector:      ", len(encode_update(Update(0, 0, x))), "bytes")
print("all but 48 zeroed: ", len(encode_update(Update(0, 0, zeroed))), "bytes")

# %% [markdown]
# Not a byte. A float32 zero takes four bytes like any other number. To save something, send *which* numbers and *their values*,
# and nothing else. By hand, with 16 bits for a position:

# %% tags=["nbval-check-output"]
message = largest.astype("<u2").tobytes() + x[largest].astype("<f4").tobytes()
positions = np.frombuffer(message[: 2 * k], "<u2")
values = np.frombuffer(message[2 * k :], "<f4")
decoded = np.zeros(4810, np.float32)
decoded[positions] = values
print(len(message), "bytes by hand; decoded wrongly:", np.count_nonzero(decoded != zeroed))

# %% [markdown]
# The library's `TopK` is a stage: its client half makes a *payload*, an object that stands for a vector and brings its own
# bytes; the server decodes and adds up.

# %% tags=["nbval-check-output"]
from fl_course.federation.stages import client_half

ctx = Context(seed, Server(np.zeros(4810, np.float32)), client=0)
sparse = client_half([TopK(0.01)], Update(0, 0, x), ctx)
print(len(encode_update(sparse)), "bytes for the whole message,",
      "of which", round(wire_report(sparse)["payload"]), "are the payload")

# %% tags=["proof"]
# Proof, open me: by hand and in the library, the same vector
assert np.array_equal(sparse.delta.dense(), zeroed) and np.array_equal(decoded, zeroed)

# %% [markdown]
# As short as by hand, although around the payload it says who sends it, from which version, with what weight, and a checksum. How?
#
# ## What does it cost to say where?
#
# Naming k of d positions takes at least $\log_2 \binom{d}{k}$ bits, if every choice is equally likely. A *bitmap* takes d bits.
# Gaps between neighbouring positions are small numbers, and a *Rice code* writes small numbers short. Here are the bytes; the
# library takes the shorter of the last two:

# %% tags=["nbval-check-output"]
from fl_course.wire.bits import encode_positions, log2_choose

rng, rows = np.random.default_rng(0), []
for k in (10, 100, 1000, 3000, 5000):
    chosen = np.sort(rng.choice(10_000, k, replace=False))
    code, coded = encode_positions(chosen, 10_000)
    bound = round(log2_choose(10_000, k) / 8)
    rows.append([k, 4 * k, 10_000 // 8, len(coded), ("bitmap", "gaps")[code], bound])
columns = ["k of 10,000", "4 bytes each", "bitmap", "library", "code", "entropy bound"]
print(pd.DataFrame(rows, columns=columns).to_string(index=False))

# %% [markdown]
# From 100 positions on, within 2 % of the bound: nobody can do much better for the positions. The *values*, four bytes each, are now the
# larger part, and we shall come back to them.
#
# **Random-k** sends random coordinates. Then the receiver can draw the positions itself: a key of eight bytes says them all.
#
# ## What about the rest?
#
# Top-k is *biased*: what is small is never sent, however often it is meant. A famous example (Beznosikov et al. 2020) has three
# clients and three parameters: $f_i(x) = \langle a_i, x\rangle^2 + \|x\|^2/4$ with $a_1 = (-3, 2, 2)$ and its rotations. Every
# client sends the largest entry of its gradient. The average of the three functions has its minimum at zero:

# %%
a = np.array([[-3, 2, 2], [2, -3, 2], [2, 2, -3]])

def largest_only(v):
    return np.where(np.arange(3) == np.abs(v).argmax(), v, 0)

def descend(remember, lr=0.05, steps=200):
    x, residual, norms = np.ones(3), np.zeros((3, 3)), []
    for _ in range(steps):
        meant = -lr * (2 * (a @ x)[:, None] * a + x / 2)          # (3, 3): one row a client
        meant = meant + remember * residual                       # what was left unsaid before
        sent = np.array([largest_only(row) for row in meant])
        residual = meant - sent
        x = x + sent.mean(axis=0)
        norms.append(np.linalg.norm(x))
    return norms

# %%
figure, (ax,) = canvas(1, width=6)
for name, remember in (("top-1, the rest is lost", 0), ("top-1, the rest is remembered", 1)):
    ax.plot(descend(remember), label=name)
ax.set(xlabel="step", ylabel="distance from the minimum", yscale="log")
show(figure, "05.memory")
print(f"after 200 steps: {descend(0)[-1]:.0f} without memory, {descend(1)[-1]:.1e} with")

# %% tags=["proof"]
# Proof, open me: one runs away, the other arrives
assert descend(0)[-1] > 1e4 and descend(1)[-1] < 1e-3

# %% [markdown]
# Without memory it runs *away* from the minimum: each client's largest entry points the wrong way, and the two smaller ones, which
# would mend it, are never heard. The cure is one line, `meant + residual`: **error feedback**. What is not sent waits at the client
# and is added to the next update. Nothing is lost, only late:
#
# $$\text{sum of all that was sent} + \text{residual} = \text{sum of all that was meant}.$$
#
# It needs a *contraction*, a compressor that leaves less than it was given (else the residual grows from round to round); for top-k
# $\|x - C(x)\|^2 \le (1 - k/d)\,\|x\|^2$ (Stich et al. 2018). In the library the residual lies in the client's own drawer, is
# saved with every checkpoint, and counts only if the answer really arrived. Check the balance over ten rounds:

# %%
memory, meant, sent = {}, np.zeros(d), np.zeros(d)
for version in range(10):
    delta = np.random.default_rng(version).standard_normal(d).astype(np.float32)
    ctx = Context(seed, Server(start.params, version), client=0, memory=memory)
    meant += delta
    sent += client_half([TopK(0.01)], Update(0, version, delta), ctx).delta.dense()
imbalance = np.abs(sent + memory["residual"] - meant).max()
print(f"largest imbalance: {imbalance:.1e}")

# %% tags=["proof"]
# Proof, open me: nothing is lost
assert imbalance < 1e-5

# %% [markdown]
# **Try it.** Replace `TopK(0.01)` by `RandomK(0.01)` in the cell of the balance. What happens to `memory["residual"]`?
#
# Answer: a KeyError: random-k keeps no residual, it is unbiased instead (scaled by d/k). `RandomK(0.01, feedback=True)` keeps one
# (and is then not scaled, so that it is a contraction), and the balance holds again.
#
# ## Fewer bits a number
#
# The other way to say less: round each number to a grid, and send the number of the grid point. With *nearest* rounding small
# numbers become zero, at every client alike, and no average brings them back. Throw dice instead: a number that lies a share
# *f* of a step above a grid point goes up with probability *f*. Its mean is then exactly itself.

# %%
def round_nearest(x, step):
    return step * np.round(x / step)

def round_dice(x, step, rng):
    return step * np.floor(x / step + rng.random(x.shape))   # up with probability y - floor(y)

clients, step, rng = 200, 0.5, np.random.default_rng(seed)
true = np.linspace(-1, 1, 81)
nearest = np.mean([round_nearest(true, step) for _ in range(clients)], axis=0)
dice = np.mean([round_dice(true, step, rng) for _ in range(clients)], axis=0)

# %%
figure, (left, right) = canvas(2)
left.plot(true, nearest, label="nearest")
left.plot(true, dice, label="by dice")
left.set(xlabel="true value", ylabel=f"mean of {clients} clients")
f = true / step - np.floor(true / step)
measured = np.var([round_dice(true, step, rng) for _ in range(2000)], axis=0)
right.plot(true, measured, label="measured")
right.plot(true, f * (1 - f) * step**2, label="f (1 - f) step²")
right.set(xlabel="true value", ylabel="variance of one rounding", ylim=(0, 0.095))
show(figure, "05.dice")

# %%
worst = {"nearest": np.abs(nearest - true).max(), "by dice": np.abs(dice - true).max()}
print({how: f"largest error of the mean {error:.3f}" for how, error in worst.items()})

# %% tags=["proof"]
# Proof, open me: dice average out, nearest does not
assert worst["by dice"] < 0.15 < worst["nearest"]

# %% [markdown]
# Unbiased: the more clients, the less error, no memory needed. This is **QSGD** (Alistarh et al. 2017; their theorems scale by $\|x\|_2$,
# their experiments by the maximum): here, for $b \geq 2$, $2^b - 1$ levels between $-\max|x|$ and $\max|x|$, so `bits=2` has three,
# $-m, 0, m$, known as *TernGrad* (Wen et al. 2017); `Ternary` packs five of them into a byte. One bit has two levels, $-m$ and $m$. Compare the library's rounding with the formula:

# %%
grid = QSGD(4)
small = Update(0, 0, true.astype(np.float32))
rounded = np.array([client_half([grid], small, Context(s, Server(true), client=0)).delta.dense()
                    for s in range(2000)])
step = 2 * np.abs(true).max() / (2**4 - 2)
f = true / step - np.floor(true / step)
print(f"largest error of the mean of 2,000: {np.abs(rounded.mean(0) - true).max():.4f}")
formula = (f * (1 - f) * step**2).sum()
print(f"variance: {rounded.var(0).sum():.3f} measured, {formula:.3f} by formula")

# %% tags=["proof"]
# Proof, open me: unbiased, with the variance of the formula
assert np.abs(rounded.mean(0) - true).max() < 5 * step / 2 / np.sqrt(2000)
assert np.isclose(rounded.var(0).sum(), (f * (1 - f) * step**2).sum(), rtol=0.05)

# %% [markdown]
# A number of 3 bits still sits in a byte, until you pack: the first code into the lowest three bits, the next into the following
# three. One long number, in fact:

# %% tags=["nbval-check-output"]
from fl_course.wire.bits import pack

codes = [5, 0, 7, 2, 6, 1, 3, 4]
number = sum(code << (3 * i) for i, code in enumerate(codes))
by_hand = number.to_bytes(3, "little")
print(f"{len(codes)} codes of 3 bits: {number:024b} = {len(by_hand)} bytes")
print("by the library the same:", by_hand == pack(np.array(codes), 3))

# %% [markdown]
# At one bit nothing but the sign is left. **signSGD** with one magnitude, mean |x|, for all is biased but a contraction: with error
# feedback it is sound (Karimireddy et al. 2019). A **rotation** before the quantiser (Suresh et al. 2017) spreads a few large numbers over
# all, so that $\max|x|$ and with it the step shrinks; the server turns the *sum* back. It costs no byte.
#
# **PowerSGD** (Vogels et al. 2019) looks at each weight matrix as a whole: instead of $m \times n$ numbers it sends two thin factors,
# $m \times r$ and $n \times r$, whose product comes close. That is biased, too: the rest waits in the residual.
#
# ## Formula, bound, wire
#
# Side by side, for the client's update of the first cell: the *formula* that papers count (for top 1 %: 48 values of 32 bits and 48
# positions of 13), the *bound* that no code can beat (the entropy of what is sent), the *payload* that is really sent, and the whole
# *message* around it:

# %%
stacks = {
    "float32": [], "top 1 %": [TopK(0.01)], "random 1 %": [RandomK(0.01)], "8 bits": [QSGD(8)],
    "4 bits": [QSGD(4)], "ternary": [Ternary()], "rotate, 1 bit": [Rotate(), QSGD(1)],
    "signs": [SignSGD()], "top 1 %, 4 bits": [TopK(0.01), QSGD(4)],
    "PowerSGD, rank 1": [PowerSGD(model, rank=1)],
}
reports = {}
for name, stack in stacks.items():
    ctx = Context(seed, start, client=0)
    reports[name] = wire_report(client_half([ByExamples(), *stack], update, ctx))
table = pd.DataFrame(reports).T
table["times smaller"] = table["float32"] / table["message"]
print(table.drop(columns="float32").round(0).astype(int).to_string())

# %% tags=["proof"]
# Proof, open me: nothing is shorter than its bound
assert (table["payload"] >= table["bound"] - 1).all()

# %% [markdown]
# Two lessons. The *bound* of 4 bits and of ternary lies far below what is sent: nearly all codes are zero, and an entropy coder
# behind the quantiser could use that (Alistarh et al. use Elias codes). And the smallest payload is hardly larger than what every message
# carries: client, version, weight, four metrics with their names, a checksum. Some 100 bytes, whatever you compress.
#
# ## Who gets furthest with a megabyte?
#
# The same federation, the same learning rate, one compressor after the other.

# %%
runs = {}
for name in ("float32", "8 bits", "ternary", "signs", "top 1 %", "random 1 %", "PowerSGD, rank 1"):
    fed = Coordinator(data, model, training, Synchronous(0.1), stages=stacks[name], seed=seed)
    runs[name] = fed.train(rounds)

# %%
def uplink(history):
    return np.cumsum([sum(record.bytes_up.values()) for record in history.records]) / 1e6

figure, (left, right) = canvas(2, width=5)
for name, history in runs.items():
    left.plot(history.series("accuracy"), label=name)
    right.plot(uplink(history), history.series("accuracy"), label=name)
left.set(xlabel="round", ylabel="accuracy")
right.set(xlabel="MB sent up", ylabel="accuracy", xscale="log")
show(figure, "05.by_megabyte")

# %%
last = {name: np.mean(history.series("accuracy")[-5:]) for name, history in runs.items()}
sent_up = {name: uplink(history)[-1] for name, history in runs.items()}
print(pd.DataFrame({"accuracy, last 5 rounds": last, "MB up": sent_up}).round(3).to_string())

# %% tags=["proof"]
# Proof, open me: ternary keeps up, random-k does not
if rounds >= 40:
    assert last["ternary"] > last["float32"] - 0.05 and last["random 1 %"] < last["top 1 %"]

# %% [markdown]
# Per round, compression does not help here; per megabyte it decides. Sound means that it arrives, not that it arrives fast: signs
# are still behind after 40 rounds, and ternary beats PowerSGD on both counts here. Random-k is unbiased and yet far behind top-k: scaled by d/k = 100,
# its variance is 99 times $\|x\|^2$. Unbiased is not enough, the variance counts.
#
# ## The other direction
#
# So far only the way up. The model on its way *down* can be rounded, too (`Downlink`): clients report how they changed the rounded
# model, so no error piles up. **Federated dropout** (Caldas et al. 2018) goes further: each client gets a *sub-model*, a random
# part of the hidden units, trains it and returns it. Smaller both ways, and on a real device less to compute. Our trainer computes with
# zeros in the place of the missing units. Why does it not touch them? Because a ReLU unit whose weights, in and out, and bias are all
# zero gets no gradient:

# %%
half = FederatedDropout(model, rate=0.5)
ctx = Context(seed, start, client=fed.clients[0])
sub = half.down(start, ctx).params
received = Server(sub.dense())
change = trainer.train([Task(fed.clients[0], received, seed)])[0].delta
touched = np.count_nonzero(change[sub.dense() == 0])
print(f"{sub.values.size:,} of {d:,} numbers are sent; {touched} of the others have changed")

# %% tags=["proof"]
# Proof, open me: what was not sent is not touched
assert touched == 0

# %% [markdown]
# The library's server divides each coordinate of the *sum* by the probability p that a client holds it, so that on average over the draws
# nothing shrinks: $\mathbb{E}\,[\text{mask}/p] = 1$. (What a sub-model learns is still not quite what the whole model would have learned.)
# Setting random entries of an update to zero, as is sometimes called federated dropout, is neither unbiased nor any shorter.

# %%
both = {"whole model": [], "sub-models": [half], "8 bits on the way down": [Downlink(8)],
        "all of it, 8 bits": [half, QSGD(8), Downlink(8)]}
rows = {}
for name, stages in both.items():
    fed = Coordinator(data, model, training, Synchronous(0.1), stages=stages, seed=seed)
    history = fed.train(rounds)
    record = history.records[-1]
    rows[name] = {"down, bytes": record.bytes_down["model"] // 10,
                  "up, bytes": record.bytes_up["update"] // 10,
                  "accuracy": f"{np.mean(history.series('accuracy')[-5:]):.3f}"}
print(pd.DataFrame(rows).T.to_string())

# %% tags=["proof"]
# Proof, open me: six times less down
assert rows["all of it, 8 bits"]["down, bytes"] < rows["whole model"]["down, bytes"] / 6

# %% [markdown]
# ## Move the sliders
#
# How many numbers, how many bits, and whether the rest is remembered: the federation of this chapter (10 of 100 clients a round, two
# shards each) is retrained as you move. Pin 1 % with memory, then switch the memory off. Then try 0.3 %. (One bit means signs.)

# %%
from fl_course.workbook.widgets.compression import compression_explorer

compression_explorer()

# %% [markdown]
# ### Reproduction card: top-k with memory
#
# | | the papers | here (the cells below) |
# |---|---|---|
# | claim | with error feedback a hundredth of the numbers suffices, and trains as well as all of them | 85 % accuracy with a small part of the bytes, and a better end than without memory; two points below all of them |
# | traffic | Aji and Heafield 2017: 99 % dropped, no loss in translation quality; Lin et al. 2018: 270 to 600 times smaller | first number of the last line; over seeds 0 to 9 it was 22 to 38 times fewer bytes up |
# | memory | Stich et al. 2018, figure 2: with memory top-k converges like plain SGD, without it stalls | second number; over seeds 0 to 9 it was 1.4 to 4.1 points |
# | what differs | translation, ImageNet, logistic regression; gradients every step | digits, two shards, 100 clients, 10 a round, E = 5, learning rate 0.5 and 100 rounds; whole updates, and bytes of whole messages |

# %%
card = {"float32": [], "top 1 %": [TopK(0.01)], "top 1 %, no memory": [TopK(0.01, feedback=False)]}
bytes_to_85, ends = ({name: [] for name in card} for _ in range(2))
for repeat in range(repeats):
    deal = digits().partition(Shards(2), clients=100, seed=seed + repeat)
    for name, stages in card.items():
        faster = LocalSGD(lr=0.5, epochs=5, batch_size=10)
        how = {"stages": stages, "seed": seed + repeat}
        history = Coordinator(deal, model, faster, Synchronous(0.1), **how).train(card_rounds)
        first = history.rounds_to(0.85)
        bytes_to_85[name].append(uplink(history)[first - 1] if first else np.inf)
        ends[name].append(np.mean(history.series("accuracy")[-10:]))
    print(f"federation {repeat + 1} of {repeats}: done")

# %%
table = pd.DataFrame({"MB up to 85 %": {n: np.mean(v) for n, v in bytes_to_85.items()},
                      "accuracy, last 10 rounds": {n: np.mean(v) for n, v in ends.items()}})
print(table.round(3).to_string())
fewer = table.iloc[0, 0] / table.iloc[1, 0]
gain = table.iloc[1, 1] - table.iloc[2, 1]
print(f"{fewer:.0f} times fewer bytes to 85 %; memory is worth {100 * gain:.1f} points")

# %% tags=["proof"]
# Report, open me: the bands of the card
if card_rounds >= 100 and repeats >= 3:
    assert fewer >= 20 and gain >= 0.01, "the claim did not reproduce"
report(times_fewer_bytes=fewer, memory_gain=gain)

# %% [markdown]
# ## What should a phone with 1 Mbit/s use?
#
# Bytes matter only as far as the network is slow. Give every device the same modest uplink and look at the simulated clock:

# %%
slow = LogNormal(examples_per_second=1000, speed_spread=0.0,
                 up_mbit=1.0, down_mbit=10.0, link_spread=0.0)
for name in ("float32", "8 bits", "ternary", "top 1 %"):
    how = {"stages": stacks[name], "fleet": slow, "seed": seed}
    history = Coordinator(data, model, training, Synchronous(0.1), **how).train(rounds)
    if first := history.rounds_to(0.8):
        clock = history.records[first - 1].clock
        print(f"{name:8} 80 % after {first:2} rounds, {clock:4.1f} seconds")
    else:
        print(f"{name:8} not in {rounds} rounds")

# %% [markdown]
# A toy model of 19 kB crosses 1 Mbit/s in 0.15 s, so once the uplink is compressed, computing and the downlink matter more, and top-1 %,
# which sends least and needs more rounds, is not the fastest. With ten million parameters a plain message takes 320 s up and 32 s down;
# after ternary or top-k the way *down* is the longer one. Compression is worth what the network makes of it: do the sum before you compress.
#
# ## What goes wrong
#
# Compressors meet the other chapters, and not all meetings go well.

# %% tags=["nbval-check-output"]
with refusal():
    QSGD(bits=33)
with refusal():
    Coordinator(data, model, stages=[TopK(0.01), QSGD(1)])         # a residual that grows
with refusal():
    Coordinator(data, model, stages=[QSGD(8), TopK(0.01)])         # the wrong order
with refusal():
    Coordinator(data, model, stages=[TopK(0.01), SignSGD()])       # two residuals for one rest

# %% [markdown]
# Secure sums (chapter 4) add integers on one grid that all clients share: positions that differ from client to client cannot be
# added under masks, and tell about the client's data. And noise for privacy (chapter 3) is scaled to a clip bound: what an
# update owes from earlier rounds must not slip past it.

# %% tags=["nbval-check-output"]
with refusal():
    Coordinator(data, model, weights=Uniform(), stages=[TopK(0.01), SecureSum(clip=1.0)])
private = CentralDP(clip=1.0, noise_multiplier=1.0)
with refusal():
    Coordinator(data, model, weights=Uniform(), stages=[TopK(0.01), private])
with refusal():
    Coordinator(data, model, weights=Uniform(), stages=[QSGD(8), private])

# %% [markdown]
# Rounding *after* the clip can lengthen the update again: a number of 0.1 steps may go up to a whole one. The sensitivity is that of
# what is on the wire, so a quantiser declares by how much it can stretch, and the noise grows with it. How much does that cost?

# %% tags=["nbval-check-output"]
for after in (None, QSGD(16), QSGD(8, block=64), QSGD(8), Ternary()):
    bound = after.longest(1.0, d) if after else 1.0
    print(f"clip 1, then {after!r:28}: noise is scaled to {bound:.3f}")

# %% [markdown]
# ## Summary
#
# - A zero costs four bytes; a position costs its share of $\log_2\binom{d}{k}$ bits. Count encoded messages, not formulas.
# - Biased compressors (top-k, signs) need a memory, and the memory needs a contraction. Unbiased ones (QSGD, random-k) need none, but
#   pay in variance.
# - Sparsify first, then quantise what is left; one residual serves both.
# - Shrink the way down as well: rounding, or sub-models.
#
# ## Recall
#
# **1.** You set 99 % of an update to zero and send it. How many bytes do you save?
#
# Answer: none. A zero takes four bytes like any other float32; positions and values must be sent instead.
#
# **2.** What does error feedback keep equal?
#
# Answer: the sum of all that was sent plus the residual, and the sum of all that was meant.
#
# **3.** Random-k is unbiased. Why is it so far behind top-k here?
#
# Answer: its variance: scaled by d/k = 100, it is 99 times the squared length of the update.
#
# **4.** A value lies 0.3 of a step above a grid point. How often does dice rounding send it up, and with which variance?
#
# Answer: in 30 % of the cases; 0.3 · 0.7 = 0.21 steps².
#
# **5.** Why must TopK stand before QSGD and not behind it?
#
# Answer: QSGD makes codes of all d numbers; there are no largest ones to pick any more. The other way round the quantiser rounds
# the few that were picked.
#
# **References**: F. Seide et al., *1-bit stochastic gradient descent and its application to data-parallel distributed training of speech
# DNNs*, Interspeech 2014, doi:10.21437/Interspeech.2014-274. · D. Alistarh et al., *QSGD*, NeurIPS 2017, arXiv:1610.02132. · W. Wen et al.,
# *TernGrad*, NeurIPS 2017, arXiv:1705.07878. · A. Aji, K. Heafield, *Sparse communication for distributed gradient descent*, EMNLP 2017,
# arXiv:1704.05021. · A. T. Suresh et al., *Distributed mean estimation with limited communication*, ICML 2017, arXiv:1611.00429. · Y. Lin
# et al., *Deep gradient compression*, ICLR 2018, arXiv:1712.01887. · S. Stich, J.-B. Cordonnier, M. Jaggi, *Sparsified SGD with memory*,
# NeurIPS 2018, arXiv:1809.07599. · S. Caldas et al., *Expanding the reach of federated learning by reducing client resource requirements*,
# 2018, arXiv:1812.07210. · S. P. Karimireddy et al., *Error feedback fixes SignSGD*, ICML 2019, arXiv:1901.09847. · T. Vogels et al.,
# *PowerSGD*, NeurIPS 2019, arXiv:1905.13727. · A. Beznosikov et al., *On biased compression for distributed learning*, 2020,
# arXiv:2002.12410.
