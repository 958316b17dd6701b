# %% [markdown]
# # 3 · Differential privacy: clip, noise, account, audit
#
# The images stay on the phones. The *updates* do not, and an update can be turned back into the image it came from.
#
# **You will be able to**
# - read a digit off a client's update, and stop that with clipping and noise, in the right order;
# - say what ε a whole training run has, and why it is never "1 a round";
# - let a budget end the training, and audit a mechanism that claims too much.
#
# About 120 minutes for a newcomer, the exercises not counted. The noise seeds below are fixed so that your figures are those of
# the text; a run that means it leaves them out. In the library: `fl_course/privacy/mechanisms.py` (clip and noise),
# `fl_course/privacy/central.py` (the stage), `fl_course/privacy/accounting/rdp.py` (what it costs),
# `fl_course/privacy/auditing.py` (whether that is true).

# %% tags=["parameters"]
rounds: int = 30  # rounds of the longer experiments
trials: int = 1500  # releases in each world of the audit
seed: int = 0  # every random choice follows from it

# %%
import numpy as np
import pandas as pd
from scipy.stats import norm

from fl_course import *
from fl_course.core import Aggregate, Context
from fl_course.engine.training import Trainer
from fl_course.privacy.accounting import *
from fl_course.privacy.auditing import audit_two_worlds, check_noise, clopper_pearson
from fl_course.privacy.mechanisms import clip, gaussian_delta, gaussian_epsilon, gaussian_sigma
from fl_course.privacy.noise import impossible_outputs, tree_variance
from fl_course.workbook import report
from fl_course.workbook.lesson import canvas, refusal, show
from fl_course.workbook.widgets.sandwich import attacked, federation, psnr, read_off, tiny_clients

# %% [markdown]
# ## What does an update reveal?
#
# A client holds one image $x$ and takes one gradient step. In a dense layer the gradient of row $c$ of $W$ is $g_c\, x$, and that of
# its bias is the number $g_c$. Divide one by the other, and $x$ is on the table. It works through hidden layers, too. How near a
# guess is to the image is said in decibels (dB), by the PSNR.

# %%
x, y = digits().x[:400], digits().y[:400]
one_image = from_clients("one image", {"phone": (x[:1], y[:1])}, 10, x[100:200], y[100:200])
network, training = mlp(64, 32, 10), LocalSGD(lr=0.1, batch_size=None)
fed = Coordinator(one_image, network, training, Synchronous(1.0), seed=seed)
begin = fed.initial()
update = fed.train(1, begin).state.server.params - begin.server.params       # what the phone sent
image = x[0].ravel()
guess = read_off(update[: 32 * 65])                      # first layer: W (32, 64), then b (32,)
print(f"the reconstruction has {psnr(image, guess):.0f} dB; above 30 dB the eye sees no difference")

# %% tags=["proof"]
# Proof, open me: the image is read off exactly
assert psnr(image, guess) > 60

# %% [markdown]
# *Who sees this?* Whoever sees one client's update: without protection the server does.
#
# Now clip the update to norm 1 and add Gaussian noise of deviation $z$ to every coordinate. Clipping alone changes nothing: the
# direction is the image. How much noise is needed?

# %%
figure, axes = canvas(6, width=1.6, height=1.9)
axes[0].imshow(image.reshape(8, 8), cmap="gray_r")
axes[0].set_title("the image", fontsize=9)
quality = {}
for ax, z in zip(axes[1:], (0.0, 0.01, 0.03, 0.1, 1.0)):
    guess = attacked(image, int(y[0]), 1.0, z, stream(seed, "lesson attack"))
    quality[z] = psnr(image, guess)
    ax.imshow(guess.reshape(8, 8), cmap="gray_r", vmin=0, vmax=1)
    ax.set_title(f"z = {z:g}: {quality[z]:.0f} dB", fontsize=9)
for ax in axes:
    ax.set_axis_off()
show(figure, "03.attack")

# %% tags=["proof"]
# Proof, open me: a little noise stains the image, a tenth of a clip bound hides most of it
assert quality[0.0] > 60 and 20 < quality[0.01] < 40 and quality[0.01] > quality[0.03] > 15
assert quality[0.03] > max(quality[0.1], quality[1.0]) and quality[1.0] < 10

# %% [markdown]
# *Who sees this?* The noise is on **one update** here. Two attackers get to see that: the server, if each client adds its own noise
# ([[local DP]]), and somebody who sees only the noisy **sum** of a round but knows all *other* updates and takes them off. What is
# left to him is one update with all the noise of the sum. He is the attacker that differential privacy is measured against:
# he knows everything but this one client.
#
# At $z = 1$ the picture is gone. Does that make the update private? Not yet: *whether this person took part at all* can
# still be guessed better than with a coin. Differential privacy bounds even this guess.
#
# ## What does ε promise?
#
# Call $M$ the *mechanism*: all that happens between the clients' updates and what is released, here "clip, add up, add noise". Call
# two federations $D$ and $D'$ [[neighbours|neighbouring data sets]] if they differ in one client, who is in one of them and out
# of the other.
#
# > $M$ is **(ε, δ)-private** if for all neighbours $D$, $D'$ and every set $S$ of outcomes
# > $P[M(D) \in S] \leq e^{\varepsilon}\, P[M(D') \in S] + \delta$.
#
# Read it with δ = 0 first. An attacker thinks it fifty-fifty whether you are in. He sees the release. No outcome is more
# than $e^\varepsilon$ times as likely in one world as in the other, so the odds of "in" are at most $e^\varepsilon : 1$ now,
# whatever he saw. That is all that ε says, and it is a lot: it holds for every attacker and every question.

# %% tags=["nbval-check-output"]
for eps in (0.1, 0.5, 1.0, 2.0, 4.0, 8.0):
    odds = np.exp(eps)
    print(f"ε = {eps:3}: 50 % sure becomes at most {odds / (1 + odds):.2%} sure")

# %% [markdown]
# The smallest release is one number. All updates but yours are known and taken off; yours, clipped to 1, pushes in this
# direction as hard as it may. So the attacker sees $1 + N(0, z^2)$ if you are in, and $N(0, z^2)$ if you are out: two
# overlapping bells.

# %%
z = 1.0
released = np.linspace(-4, 5, 300)
bell_in, bell_out = norm.pdf(released, 1, z), norm.pdf(released, 0, z)
figure, (left, right) = canvas(2)
left.plot(released, bell_out, label="out")
left.plot(released, bell_in, label="in")
left.set(xlabel="the number released, in clip bounds", ylabel="probability density", ylim=(0, 0.52))
right.plot(released, np.log(bell_in / bell_out), label="log odds of “in”")
right.axhspan(-1, 1, alpha=0.2, label="allowed by ε = 1, δ = 0")
right.set(xlabel="the number released, in clip bounds", ylabel="ln (in / out)", ylim=(-5, 6.5))
show(figure, "03.bells")

# %% [markdown]
# The logarithm of the odds is the **[[privacy loss]]** $L$ of that outcome. For two bells it is a straight line,
# $L = (2x - 1)/(2z^2)$, and leaves every band: no ε holds for *all* outcomes. That is what δ is for. Outcomes beyond the
# band are rare, and δ is by how much "in" exceeds $e^\varepsilon$ times "out" there, added up over all of them:
#
# $$\delta = \int \max(0,\; p_{in} - e^{\varepsilon} p_{out}) = E_{in}\left[\max(0,\; 1 - e^{\varepsilon - L})\right]$$
#
# Draw outcomes of the world "in", look at their privacy loss, and compare δ with the library's exact formula:

# %%
outcomes = 1 + z * stream(seed, "bells").standard_normal(1_000_000)
L = (2 * outcomes - 1) / (2 * z**2)
print(f"privacy loss: mean {L.mean():.3f}, variance {L.var():.3f}")
for eps in (0.5, 1.0, 2.0):
    by_hand = np.maximum(0, 1 - np.exp(eps - L)).mean()
    print(f"ε = {eps}: δ by a million draws {by_hand:.4f}, exact {gaussian_delta(z, eps):.4f}")

# %% tags=["proof"]
# Proof, open me: the draws have the mean 1/(2z²), the variance 1/z² and the exact delta
assert abs(L.mean() - 1 / (2 * z**2)) < 0.01 and abs(L.var() - 1 / z**2) < 0.01
assert abs(np.maximum(0, 1 - np.exp(1 - L)).mean() - gaussian_delta(z, 1.0)) < 1e-3

# %% [markdown]
# So in the world "in" the loss itself is a bell, with mean $1/(2z^2)$ and variance $1/z^2$. Keep that: all accounting below is about it.
# How well does the best attacker guess? He says "in" when the number is above the middle, 1/2:

# %% tags=["nbval-check-output"]
z_of_one = gaussian_sigma(1.0, 1e-5)                     # the noise that has ε = 1 at δ = 1e-5
for z in (0.5, 1.0, z_of_one):
    print(f"z = {z:.2f}: ε = {gaussian_epsilon(z, 1e-5):4.1f} at δ = 1e-5; "
          f"he is right in {norm.cdf(1 / (2 * z)):.0%} of the cases")

# %% [markdown]
# ε = 1 would allow him to be 73 % sure; here he is right in 55 % of the cases. ε is a bound for the worst outcome; on average
# the attacker does worse than it allows.
#
# **Try it.** Double the noise of the bells, $z = 2$. How often is the best guess right?
#
# Answer: `norm.cdf(1 / (2 * 2))` is 0.60: in 60 % of the cases, where a coin has 50 %. `gaussian_epsilon(2.0, 1e-5)` is 1.99.
#
# ## Clip, add up, noise, divide
#
# Noise can only hide a client whose influence is bounded. How far one client can move the sum is its [[sensitivity]] $S$. So: clip
# each update to norm $C$; add up; add $N(0, (zC)^2)$ to the **sum**; divide by $m$, the number of clients *planned*. That
# number is public; how many came is not. (DP-FedAvg, McMahan et al. 2018.) The federation below, and all that guards or
# attacks it, has δ = 1e-4: the promise may fail with that probability, so it must be well below one in the number of clients, here
# 700. What is reckoned without it takes 1e-5, as published tables do.

# %%
C, z, m = 1.0, 1.0, 140
fed = federation(m, [CentralDP(C, z, delta=1e-4, noise_seed=7)])   # 700 clients, 2 or 3 images each
start = fed.initial()
after, record = next(fed.run(1, start))

trainer = Trainer(fed.training, fed.model, fed.data)
updates = trainer.train([Task(k, start.server) for k in record.clients])
total = np.zeros(fed.model.dim)
for u in updates:
    total += u.delta * min(1.0, C / np.linalg.norm(u.delta))
total += z * C * stream(7, "central noise", 0).standard_normal(fed.model.dim)
by_hand = start.server.params + total / m
difference = np.abs(by_hand - after.server.params).max()
print(f"{len(updates)} clients came, {m} were planned; largest difference {difference:.1e}")

# %% tags=["proof"]
# Proof, open me: by hand and in the library, the same model
assert np.allclose(by_hand, after.server.params, atol=1e-6)

# %% [markdown]
# *Who sees what?* The server sees every clipped update and adds the noise: it is trusted. Everybody else sees the noisy models.
#
# The record says what this cost and what it does *not* cover. Read that, too.

# %%
names = ("epsilon", "delta", "clip", "noise_std")
print({name: float(f"{record.metrics[name]:.3g}") for name in names})
for event in record.events:
    print("·", event)
everybody = gaussian_epsilon(z, 1e-4)
print(f"sampled (each client came by a coin, q = 0.2): ε = {record.metrics['epsilon']:.2f}")
print(f"not sampled (all 700 come, the same z = {z:g}):   ε = {everybody:.2f}")

# %% [markdown]
# Two ε for one z: the first one is **sampled**, it counts on the attacker not knowing who came. How that works is said further down.
#
# **What if we add the noise first, and clip then?** Nothing crashes. But the clip cuts the noise off with the rest. Measure the noise
# itself: feed zeros, and look at what comes out.

# %%
rng, d = stream(seed, "order"), 20_000
right = z * C * rng.standard_normal((3, d))              # clip(0) = 0, then noise
wrong = np.stack([clip(z * C * rng.standard_normal(d), C) for _ in range(3)])
for name, releases in (("clip, then noise", right), ("noise, then clip", wrong)):
    found = check_noise(releases, claimed_deviation=z * C)
    said = " ".join(found.problems)
    print(f"{name}: {found.ratio:.3f} of the noise that is claimed. {said}")

# %% tags=["proof"]
# Proof, open me: the right order has its noise, the wrong one nearly none
assert check_noise(right, z * C).problems == () and check_noise(wrong, z * C).ratio < 0.01

# %% [markdown]
# ### Which norm?
#
# A norm must be named, for noise comes in kinds. Gaussian noise asks how long the client's contribution is in L2, the root of the
# sum of squares. *Laplace* noise, whose density is $e^{-|x|/b}/2b$ in each coordinate, asks for L1, the sum of the
# absolute values: moving the result by $v$ changes the density by a factor $e^{\|v\|_1/b}$ at most, so $b = S_1/\varepsilon$ gives
# ε with δ = 0. The same vector can be short in one norm and long in the other:

# %% tags=["nbval-check-output"]
from fl_course.privacy.mechanisms import laplace_scale

for name, v in (("one coordinate", np.eye(100)[0]), ("all 100 alike", np.full(100, 0.1))):
    one, two = np.abs(v).sum(), np.sqrt((v**2).sum())
    print(f"{name}: L2 norm {two:.0f}, L1 norm {one:.0f}; "
          f"for ε = 1 Laplace noise needs b = {laplace_scale(1.0, one):.0f}")

# %% [markdown]
# A clip to L2 norm 1 allows both, and the noise must cover the worst. No vector of 100 coordinates is worse than the second
# (Cauchy and Schwarz: $\|v\|_1 \leq \sqrt{d}\, \|v\|_2$). That is why models, with thousands of coordinates, get Gaussian noise.
#
# ## How much noise for one release?
#
# The textbook formula $\sigma = \sqrt{2 \ln(1.25/\delta)}\, S / \varepsilon$ ($S$: how far one client can move the sum) is *proved*
# for ε ≤ 1. The exact condition (Balle & Wang 2018) is the δ of the two bells above, worked out, with $\mu = S/\sigma$ and the
# normal distribution function Φ:
#
# $$\delta = \Phi\left(\frac{\mu}{2} - \frac{\varepsilon}{\mu}\right) - e^{\varepsilon}\, \Phi\left(-\frac{\mu}{2} - \frac{\varepsilon}{\mu}\right)$$
#
# It cannot be solved for σ with pen and paper, but more noise always means less δ. So halve: keep a σ that is too small and one that
# is enough, try the middle, and let it replace one of the two.

# %% tags=["nbval-check-output"]
def delivered(sigma, eps):
    mu = 1 / sigma
    return norm.cdf(mu / 2 - eps / mu) - np.exp(eps) * norm.cdf(-mu / 2 - eps / mu)

for sigma, said in ((2.0, "too small"), (6.0, "enough"), (4.0, "enough: look below it"),
                    (3.0, "too small: look above it"), (3.5, "too small"), (3.75, "enough, …")):
    print(f"σ = {sigma:4}: δ = {delivered(sigma, 1.0):.1e} at ε = 1, wanted 1e-5: {said}")
print(f"the library, some 40 halvings later: {gaussian_sigma(1.0, 1e-5):.3f}")

# %% [markdown]
# Compare the two for $S = 1$, and ask what δ the textbook's σ really delivers.

# %% tags=["nbval-check-output"]
rows, delta = [], 1e-5
for eps in (0.2, 1.0, 2.0, 5.0, 10.0, 20.0):
    textbook = np.sqrt(2 * np.log(1.25 / delta)) / eps
    kept = "kept" if gaussian_delta(textbook, eps) <= delta else "BROKEN"
    promised = f"{delivered(textbook, eps):.1e}"
    rows.append((eps, gaussian_sigma(eps, delta), textbook, promised, kept))
columns = ["epsilon", "exact sigma", "textbook", "delta it delivers", "promise 1e-5"]
print(pd.DataFrame(rows, columns=columns).round(3).to_string(index=False))

# %% [markdown]
# Wherever the textbook keeps its promise it wastes noise. Its proof ends at ε = 1; the *formula* breaks later, at this δ somewhere
# between 5 and 10, and not at ε = 2. The library refuses it above 1 all the same: use the exact one.
#
# ## Why is "ε = 1 a round" not 1?
#
# Many programs print the ε of one round at the end of the whole run. But the same people are asked again and again, and leaks add
# up. The simplest theorem, *basic composition*, adds both numbers: promises $(\varepsilon_1, \delta_1)$ and
# $(\varepsilon_2, \delta_2)$ about the same people are together $(\varepsilon_1 + \varepsilon_2,\; \delta_1 + \delta_2)$.
# *Advanced* composition grows like $\sqrt{T}$ for T rounds of small ε: at most
# $\varepsilon\sqrt{2T\ln(1/\delta')} + T\varepsilon(e^\varepsilon - 1)$, with an extra $\delta'$ on top of all the δ.
#
# ### Rényi, in three lines
#
# Both throw away what the bells know. The privacy losses of independent rounds *add*, for the probabilities multiply. So
# measure the loss of a round by an average that adds as well (Mironov 2017), one for each *order* α > 1:
# $\rho(\alpha) = \ln E\left[e^{(\alpha-1)L}\right] / (\alpha - 1)$, over outcomes of the world "in".
#
# 1. One Gaussian round costs $\rho(\alpha) = \alpha/(2z^2)$. (Its loss is a bell with mean $1/(2z^2)$ and variance $1/z^2$, and a bell with
#    mean $a$ and variance $v$ has $\ln E[e^{tL}] = ta + t^2 v/2$. Put in $t = \alpha - 1$.)
# 2. Rounds add up, order by order.
# 3. Convert once, at the end: $\varepsilon = \rho(\alpha) + \ln(1/\delta)/(\alpha - 1)$ holds for *every* order, so take the smallest.
#    (That is Markov's inequality, $P[L > \varepsilon] \leq e^{(\alpha-1)(\rho-\varepsilon)}$, set equal to δ.)

# %% tags=["nbval-check-output"]
z, T, delta = 4.0, 100, 1e-5
alpha = np.arange(2, 200)
one_round = alpha / (2 * z**2)
total = T * one_round
by_hand = (total + np.log(1 / delta) / (alpha - 1)).min()
by_library = RDP("classic", tuple(alpha)).epsilon(Repeated(Gaussian(z), T), delta)
print(f"{T} rounds of z = {z:g}: by hand {by_hand:.4f}, by the library {by_library:.4f}")

# %% tags=["proof"]
# Proof, open me: equal; line 1 holds for the million draws above (z = 1, order 2)
assert abs(by_hand - by_library) < 1e-9
assert abs(np.log(np.exp(L).mean()) - 2 / 2) < 0.05

# %% [markdown]
# The library separates *what happened* (events) from *what it costs* (accountants). Ask five of them about the same rounds. "PLD"
# follows the whole distribution of the loss through all rounds, by computer, and is nearly exact; the "improved" Rényi
# accountant has a sharper line 3.

# %%
T = np.array([1, 2, 5, 10, 20, 50, 100])
one_round = Gaussian(gaussian_sigma(1.0, delta))         # exactly ε = 1 for a single round
judges = {"added up (basic)": Basic(), "advanced": Advanced(), "Rényi, classic": RDP("classic"),
          "Rényi, improved": RDP(), "exact (PLD)": PLD()}
price = {name: [judge.epsilon(Repeated(one_round, int(t)), delta) for t in T]
         for name, judge in judges.items()}
figure, (ax,) = canvas(1, width=6.2, height=3.4)
for name, line in price.items():
    ax.plot(T, line, marker=".", label=name)
ax.plot(T, np.ones(len(T)), label="ε of one round, printed", color="0.5")
ax.set(xscale="log", yscale="log", xlabel="rounds", ylabel="ε of all rounds, δ = 1e-5")
show(figure, "03.accountants")
print({name: round(line[-1], 1) for name, line in price.items()}, "after 100 rounds")

# %% tags=["proof"]
# Proof, open me: the order of the accountants after 100 rounds
last = {name: line[-1] for name, line in price.items()}
assert last["exact (PLD)"] < last["Rényi, improved"] < last["Rényi, classic"]
assert last["Rényi, classic"] < last["added up (basic)"] and last["exact (PLD)"] > 5

# %% [markdown]
# All five are *valid*: at most so much. A tighter one does not make the run more private, it only knows better. (The plain sum of 100
# rounds is above 100, for the deltas add up as well: each round gets a hundredth of δ, and its ε is more than 1 there. Advanced
# composition lies on top of it: it pays for small ε only, and 1 a round is not small.)
#
# And at the left end? After *one* round "added up" is exact, there is nothing to add, and Rényi lies above it: line 3, the
# conversion, loses a little, once. Over many rounds that little is nothing beside what adding up loses every time.

# %% tags=["proof"]
# Proof, open me: one round costs less by the sum, five rounds cost less by Rényi
assert price["added up (basic)"][0] < price["Rényi, improved"][0]
assert price["added up (basic)"][2] > price["Rényi, classic"][2]

# %% [markdown]
# ## What does sampling buy, and when?
#
# If every client comes by its own secret coin of probability q (*Poisson* sampling), an attacker cannot even be sure that it was there:
# the price falls steeply. That is called *amplification*. For a mechanism with δ = 0 it takes one line. With probability $1 - q$ nothing depends on the
# client; otherwise an outcome is at most $e^\varepsilon$ times as likely. Together the factor is at most
# $1 - q + q\, e^\varepsilon$, so ε becomes
#
# $$\ln(1 + q\,(e^{\varepsilon} - 1)).$$
#
# Try it on the smallest mechanism: it answers "yes" with probability $e^\varepsilon / (1 + e^\varepsilon)$ if the client is in the
# round, "no" with the same probability if not.

# %% tags=["nbval-check-output"]
eps, q = 2.0, 0.1
honest = np.exp(eps) / (1 + np.exp(eps))                 # 0.88
yes_in = q * honest + (1 - q) * (1 - honest)             # in the data, and in the round by a coin
yes_out = 1 - honest
formula = np.log(1 + q * (np.exp(eps) - 1))
print(f"by hand ε = {np.log(yes_in / yes_out):.4f}, by the formula {formula:.4f}")
print(f"q·ε would be {q * eps:.4f}: below the truth")

# %% [markdown]
# The theorem is about these coins. "Exactly m of n" is not Poisson, and "the m with the largest loss" is not even secret.

# %% tags=["nbval-check-output"]
release = Gaussian(1.8)
for name, cohort in (("every client by its own coin, q = 0.1", PoissonSampled(0.1, release)),
                     ("exactly 20 of 200", FixedSizeSampled(20, 200, release)),
                     ("the 20 with the largest loss", ChosenBy("loss", release))):
    print(f"{name:40} 50 rounds cost ε = {PLD().epsilon(Repeated(cohort, 50), 1e-5):6.2f}")

# %% [markdown]
# For "exactly 20 of 200" the library has no bound when a client is in or out, as here, so it prices it as if all took part: safe, and
# far too much. (When one client is *replaced* by another, it has a theorem.) It is not the Poisson figure: in a bad case (Lebeda
# et al. 2024: all others send −1, this client +1 or 0) the truth is twice that. Open the next cell for the sum.

# %% tags=["proof", "nbval-check-output"]
# Proof, open me: "exactly 20 of 200", a bad case computed; the Poisson figure by the same code
sigma = 1.8
grid = np.arange(-25, 25, 1e-3)

def worlds(there, else_there):                           # q = 0.1: this client's coin moves the sum
    return [0.9 * norm.pdf(grid, 0, sigma) + 0.1 * norm.pdf(grid, at, sigma)
            for at in (there, else_there)]

def exact_epsilon(p, q, rounds, delta, width=1e-3, size=2**19):
    loss, mass = np.log(p / q), np.zeros(size)           # the distribution of the privacy loss …
    np.add.at(mass, np.rint(loss / width).astype(int) % size, p * 1e-3)
    mass = np.fft.ifft(np.fft.fft(mass) ** rounds).real  # … added up over the rounds
    loss = width * size * np.fft.fftfreq(size)
    low, high = 0.0, 60.0
    for _ in range(16):
        eps = (low + high) / 2
        enough = (mass * np.maximum(0, 1 - np.exp(np.minimum(eps - loss, 0)))).sum() <= delta
        low, high = (low, eps) if enough else (eps, high)
    return high

poisson = exact_epsilon(*worlds(1, 0), rounds=50, delta=1e-5)
fixed = exact_epsilon(*worlds(2, 1), rounds=50, delta=1e-5)      # takes the place of a -1: 2 or 1
print(f"coins {poisson:.2f}; exactly 20 of 200, bad case: {fixed:.2f}")
assert abs(poisson - 1.92) < 0.02 and fixed > 1.9 * poisson

# %% [markdown]
# Choose `PoissonSelection()` and the coins are real: cohorts differ in size, and an empty one still releases noise and is charged.
#
# ## A budget that ends the training
#
# The ledger is asked *before* each round. It travels in the server's state and is saved with it, so a resumed run cannot forget. (Two
# runs that go on from *one* saved file are another matter: each books its own rounds and knows nothing of the other's, so
# the true price is that of both together. Go on once.)

# %%
runs = {"no privacy": federation(m, []).train(rounds)}
for eps in (0.5, 2.0, 8.0):
    noise = noise_for_budget(eps, 1e-4, rounds, m / 700, RDP())
    private = CentralDP(C, noise, 1e-4, accountant=RDP(), noise_seed=seed)
    runs[f"ε = {eps:g}"] = federation(m, [private]).train(rounds)
figure, (left, right) = canvas(2, width=4.4)
for name, history in runs.items():
    history.plot(ax=left, label=name)
    if name == "no privacy":
        right.plot([], [])                               # keeps one colour a name in both panels
    else:
        history.plot("epsilon", ax=right, label=name)
right.set_ylabel("ε so far, δ = 1e-4")
show(figure, "03.budget")
final = {name: float(np.mean(history.series("accuracy")[-5:])) for name, history in runs.items()}
print("accuracy, last 5 rounds:", {name: round(a, 3) for name, a in final.items()})

# %% tags=["proof"]
# Report, open me: the bands that hold whenever this notebook runs
assert final["no privacy"] >= final["ε = 8"] - 0.02 and final["ε = 8"] > final["ε = 0.5"]
spent = [np.diff(run.series("epsilon")) for name, run in runs.items() if name != "no privacy"]
assert all(np.all(step > 0) for step in spent)
report(accuracy_free=final["no privacy"], accuracy_eps_2=final["ε = 2"])

# %% [markdown]
# *Who sees what?* As before: a trusted server, and everybody else the models. All ε here are *sampled*, with q = 0.2. A small ε
# costs accuracy; how much depends on the crowd, for the noise on the *mean* is $zC/m$, and 140 clients share it here. Now with a noise that is given, and a
# budget that is not known to last:

# %%
stage = CentralDP(C, 1.9, 1e-4, budget=3.0, accountant=RDP(), noise_seed=seed)
fed = federation(m, [stage])
history = fed.train(1000)
print(f"Stopped: {history.stopped}.")
columns = ["clients", "epsilon", "rounds_left", "accuracy"]
print(history.to_pandas()[columns].tail(3).round(3).to_string())
again = fed.train(10, history.state)
print(f"resumed: {len(again)} more rounds")

# %% tags=["proof"]
# Proof, open me: stopped within the budget, and stopped for good
assert 0 < len(history) < 1000 and history.last("epsilon") <= 3.0 and len(again) == 0

# %% [markdown]
# **Try it.** Halve the clip bound: `CentralDP(0.5, 1.9, …)` in the cell above. ε stays as it was (the noise shrinks with the bound);
# what does the accuracy do?
#
# Answer: It falls, from about 0.90 to about 0.86 (the last rows; over ten noise seeds it
# falls by 0.03 to 0.05). Most updates are longer than 0.5, so the model walks in
# shorter steps; the noise is shorter, too, but the 35 rounds that the budget pays for are over before it has arrived. With
# `CentralDP(2.0, …)` it is 0.91: the bound was too tight.
#
# `CentralDP(…, adaptive=Adaptive())` searches the bound while training, and pays for it out of the same z (Andrew et al. 2021).
#
# ## Can we trust the mechanism?
#
# An accountant believes what the code claims. An *audit* looks at what comes out: run the real stage with and without a
# [[canary]], a made-up client whose update is a thousand clip bounds long, many times, and see how well an attacker tells the two
# worlds apart. He picks a limit and says "in" above it. His *hits* and false *alarms* are rates, and the definition
# binds them: $P[\text{hit}] \leq e^\varepsilon P[\text{alarm}] + \delta$, so
#
# $$\varepsilon \geq \ln \frac{P[\text{hit}] - \delta}{P[\text{alarm}]}.$$
#
# But a rate that was *counted* may be luck. Clopper and Pearson (1934) give the interval of all probabilities that fit a count,
# with 2.5 % of error on either side. To be sure, take the *lower* end for the hits and the *upper* end for the alarms. (Both ends
# are quantiles of a beta distribution: `beta.ppf(0.025, k, n - k + 1)` and `beta.ppf(0.975, k + 1, n - k)` for k of n; the lower
# one is 0 for k = 0, the upper one 1 for k = n.) Both bells with z = 1 and the limit 2:

# %%
n, coin = 1000, stream(seed, "hits")
hits = int((1 + coin.standard_normal(n) > 2).sum())
alarms = int((coin.standard_normal(n) > 2).sum())
hit, alarm = clopper_pearson(hits, n), clopper_pearson(alarms, n)
print(f"{hits} hits in {n}: between {hit[0]:.3f} and {hit[1]:.3f}; "
      f"{alarms} alarms: between {alarm[0]:.3f} and {alarm[1]:.3f}")
proved = np.log((hit[0] - 1e-4) / alarm[1])
print(f"proved: ε ≥ {proved:.2f}; claimed: {gaussian_epsilon(1.0, 1e-4):.2f}")

# %% tags=["proof"]
# Proof, open me: the intervals are those of the beta distribution; a true claim stands
from scipy.stats import beta

assert np.isclose(hit[0], beta.ppf(0.025, hits, n - hits + 1))
assert np.isclose(alarm[1], beta.ppf(0.975, alarms + 1, n - alarms))
assert 0 < proved < gaussian_epsilon(1.0, 1e-4)

# %% [markdown]
# Counting has an end: even with *no* alarm and every hit, n trials cannot prove an alarm to be rarer than about 3.7/n.

# %% tags=["nbval-check-output"]
for n in (100, 1_500, 20_000):
    rarest = clopper_pearson(0, n)[1]
    surest = clopper_pearson(n, n)[0]
    print(f"{n:6} trials: the largest ε that can ever be proved is {np.log(surest / rarest):.1f}")

# %% [markdown]
# So an audit by counting *stalls*: it says "at least 5", and the truth may be 500. Who knows that the noise is Gaussian can do
# better, and estimate the bells' distance and width instead of counting tails. That must be declared, `gaussian=True`, for it is
# wrong for other noise. Below, somebody has made the noise half as large. *Who sees what?* The auditor sees the noisy sums,
# with everybody but the canary at zero.

# %%
class HalfTheNoise(CentralDP):
    def update_multiplier(self, experiment):
        return self.noise_multiplier / 2


def released(kind):
    fed = federation(m, [kind(C, 1.0, 1e-4, noise_seed=11)])
    canary = 1000 * np.ones(fed.model.dim, dtype=np.float32)

    def mechanism(present, trial):
        server = Server(np.zeros(fed.model.dim, np.float32), version=trial)
        ctx = Context(seed, server, experiment=fed)
        total = np.zeros(fed.model.dim)
        if present:
            total += fed.stages[0].client(Update("canary", trial, canary), ctx).delta
        return fed.stages[0].server(Aggregate(total, 1.0), ctx).total

    return mechanism, canary

# %%
claimed, caught = gaussian_epsilon(1.0, 1e-4), {}
for kind in (CentralDP, HalfTheNoise):
    found = audit_two_worlds(*released(kind), trials=trials, delta=1e-4, gaussian=True)
    caught[kind] = found.contradicts(claimed)
    verdict = "CAUGHT" if caught[kind] else "no contradiction"
    print(f"{kind.__name__:13} claims ε = {claimed:.2f} for this release; proved at least "
          f"{found.epsilon:.2f} by counting, {found.gaussian_epsilon:.2f} as Gaussian: {verdict}")

# %% tags=["proof"]
# Proof, open me: the bug is caught, the honest stage is not
assert caught[HalfTheNoise] and not caught[CentralDP]

# %% [markdown]
# (The claim is 3.80 and not the 1.87 of the record above: the canary is always there, so this release is *not sampled*.)
# Counting alone would not have caught it with so few trials; knowing the shape of the noise did.
#
# An audit that finds nothing proves little; one that contradicts the claim shows a bug, up to its margin of error (here about 1 in 2,000,
# if the noise is Gaussian). Such bugs are real: Tramèr et al. (2022) caught published code whose noise was too small by a factor of the
# batch size.
#
# ## Whom must we trust?
#
# | | the server sees | everybody else sees | the noise is added by |
# |---|---|---|---|
# | `CentralDP` | every clipped update, and their sum | noisy models | the server: it is trusted |
# | `LocalDP` | **noisy** updates | noisy models | each client: nobody is trusted |
# | with secure aggregation (chapter 4) | the sum alone | noisy models | server or clients |
#
# With `LocalDP` m noises are in the sum instead of one.

# %%
rows = {}
central = CentralDP(C, 2.0, 1e-4, accountant=RDP(), noise_seed=seed)
local = LocalDP(C, 2.0, delta=1e-4, noise_seed=seed)
for name, stage in (("central, sampled", central), ("local", local)):
    history = federation(m, [stage]).train(rounds)
    accuracy = np.mean(history.series("accuracy")[-5:])
    rows[name] = {"accuracy": accuracy, "epsilon": history.last("epsilon")}
print(pd.DataFrame(rows).T.round(2))

# %% tags=["proof"]
# Proof, open me: local is less accurate and less private
assert rows["central, sampled"]["accuracy"] > rows["local"]["accuracy"]
assert rows["local"]["epsilon"] > rows["central, sampled"]["epsilon"]

# %% [markdown]
# With the same z the local run is both less accurate and less private, for three reasons. The noise on the sum is about √140 times
# as large. The promise is about more: a message of norm at most C may become *any other*, which can be 2C away, where a sum
# moves by C when a client leaves it. And there is no amplification, since the server sees who speaks.
#
# The *unit* matters, too. Everything above hides a client. `DPSGD` hides one example of a client, inside its local training:

# %%
hospitals = digits().partition(IID(), clients=5, seed=seed)
private = DPSGD(clip=1.0, noise_multiplier=1.5, noise_seed=seed)
training = LocalSGD(lr=0.5, epochs=2, batch_size=32, private=private)
history = Coordinator(hospitals, logistic(64, 10), training, Synchronous(1.0), seed=seed).train(10)
spent = [said["epsilon"] for said in history.state.reports.values()]
print(f"accuracy {history.last('accuracy'):.3f}; each of {hospitals.sizes.min()} or more examples "
      f"a hospital is protected with ε ≤ {max(spent):.2f} at δ = {private.delta:g}")

# %% tags=["proof"]
# Proof, open me: it still learns
assert history.last("accuracy") > 0.7

# %% [markdown]
# *Who sees what?* The server sees each hospital's update, which has its noise already. Five hospitals could never hide *each
# other*: there is no crowd. Their patients can.
#
# ## What if nobody can be sampled?
#
# Phones answer when they are idle and on a charger, not when a coin says so. Without amplification, fresh noise in every round is
# expensive: after T rounds the model carries T noises. DP-FTRL (Kairouz et al. 2021) adds noise that mostly cancels from round to round:
# one noise for each node of a binary tree, so that after T rounds the model carries at most log₂ T + 1 of them. Its price
# depends on how *often* a client may come, so that is part of the promise. The fair comparison has three lines:

# %%
steps, eps = np.arange(1, 257), 4.0
every = noise_for_budget(eps, 1e-5, 256, release=Gaussian)
twice = noise_for_budget(eps, 1e-5, 2, release=Gaussian)
tree = noise_for_budget(eps, 1e-5, 1, release=lambda z: TreeAggregation(z, 256, participations=2))
lines = {f"every round, fresh noise (z = {every:.1f})": every * np.sqrt(steps),
         f"twice, fresh noise (z = {twice:.1f})": twice * np.sqrt(steps),
         f"twice, tree (z = {tree:.1f} a node)":
             np.sqrt([tree_variance(int(t), tree) for t in steps])}
figure, (ax,) = canvas(1, width=6.2)
for name, line in lines.items():
    ax.plot(steps, line, label=name)
ax.set(xlabel="round", ylabel="noise on the model, in clip bounds", yscale="log", ylim=(1, 3000),
       title=f"ε = {eps:g}, δ = 1e-5; how often a client may come, and which noise")
show(figure, "03.tree")
print("largest so far:", {name: float(round(max(line), 1)) for name, line in lines.items()})

# %% tags=["proof"]
# Proof, open me: most of the gap is the bound on how often a client comes
most = [max(line) for line in lines.values()]
assert most[0] / most[1] > 10 and 1 < most[1] / most[2] < 2

# %% [markdown]
# *Who sees what?* The server is trusted with the updates; the noise in the picture is that on the released model.
#
# Read it honestly: most of the gap is not the tree. From 277 to 24.5 it is the **participation bound**, that a client comes twice and
# not 256 times; only from 24.5 to 18 is it the tree. How much the tree is worth depends on the length of the run:

# %% tags=["nbval-check-output"]
print("rounds   twice, fresh   twice, tree")
for T in (16, 64, 256, 1024, 4096):
    node = noise_for_budget(eps, 1e-5, 1, release=lambda z, T=T: TreeAggregation(z, T, 2))
    most = node * (T - 1).bit_length() ** 0.5     # worst round: T - 1, all bits 1
    print(f"{T:6} {twice * T**0.5:14.1f} {most:13.1f}")
for q in (0.01, 0.1):
    sampled = noise_for_budget(eps, 1e-5, 256, rate=q) * np.sqrt(256)
    print(f"sampled, by secret coins of {q:.0%}, fresh noise: {sampled:.0f} after 256 rounds")

# %% [markdown]
# Fresh noise grows like the root of the rounds, the tree's like their logarithm (more nodes hold a client, and more are added up): short runs lose
# by it, long ones win.
# Where secret coins are possible and draw few, fresh noise is better still.
#
# In the library the tree is `TreeDP(clip, noise_multiplier, participations=2)` (`fl_course/privacy/tree.py`), and each client counts
# how often it took part. Each node has a secret key of its own, drawn at the moment when the node begins. So a run that
# is restored after a crash draws new keys for the nodes that begin from there on: it never puts the same noise on other data.
#
# ## Is floating-point noise noise?
#
# The theorems speak of real numbers. A computer has gaps between its numbers, and the gaps show where the noise was added (Mironov 2012). Release 0
# or 1 with textbook Laplace noise: how many outputs of 0 could *never* have come from 1?

# %%
share = impossible_outputs(0.0, 1.0, 2000, stream(seed, "mironov"))
print(f"{share:.0%} of the releases of 0 are impossible for 1: whoever sees one knows. "
      "The formula says ε = 1.")

# %% tags=["proof"]
# Proof, open me: many releases give the secret away
assert share > 0.1

# %% [markdown]
# No choice of random generator mends that; noise on a grid does. The course's guarantees are those of real numbers. For
# classwork that is fine, for patients it is not.
#
# ## Move the sliders
#
# The sandwich: what accountants prove at most, what an audit proves at least, what it costs in accuracy, and what an attacker reads off
# one update, retrained whenever you move. (15 rounds; the picture is what is left to somebody who knows all others and takes
# them off the noisy sum.)

# %%
from fl_course.workbook.widgets.sandwich import audit_rounds, privacy_sandwich_explorer

privacy_sandwich_explorer()

# %% [markdown]
# Three things to see. In the *first* round "added up" lies below "by Rényi", also at the largest ε, and both are valid: one
# round has nothing to add up, and Rényi pays its conversion. The audit stalls near 5 however large ε becomes: of 3,000 trials in
# each world one half chooses the limit and the other 1,500 are counted, as in the table above. And the picture? Its quality, by ε:

# %%
label = int(y[0])
for eps in (0.25, 2.0, 16.0, 128.0, 512.0, 2048.0):
    z = noise_for_budget(eps, 1e-4, 15, 140 / 700, RDP())
    event = PoissonSampled(140 / 700, Gaussian(z))
    first = [judge.epsilon(event, 1e-4) for judge in (Basic(), RDP())]
    guesses = [attacked(image, label, 1.0, z, stream(s, "pictures"))
               for s in range(seed, seed + 10)]
    dB = np.mean([psnr(image, guess) for guess in guesses])
    proved = audit_rounds(z, 140 / 700, 15, 3000, seed)[-1]
    print(f"ε = {eps:7}: z = {z:4.2f}; round 1: {first[0]:6.2f} added up, {first[1]:6.2f} Rényi; "
          f"audit: at least {proved:.1f}; picture {dB:4.1f} dB")

# %% [markdown]
# **Try it.** Push ε up until *you* recognise the image, and find that ε in the table. Is a client whose image nobody can see safe?
#
# Answer: No. At the slider's end, 2,048, the shape is back (13 dB); at 512 hardly. But from 0.25 to 16 the image is equally gone,
# 6 dB, and of an attacker who asks "was he in?" the audit proves nothing with the one, and at least ε = 2.6 with the other: enough
# to be up to 93 % sure. That nobody can see the image is no measure of privacy.
#
# ## Reproduction card: the price of published runs
#
# | | published | here (the cell below) |
# |---|---|---|
# | Abadi et al. 2016: q = 0.01, z = 4, T = 10,000, δ = 1e-5 | 1.26 | Rényi, classic conversion |
# | TensorFlow Privacy, MNIST tutorial: q = 256/60,000, z = 1.1, 60 epochs, δ = 1e-5 | 3.01 | Rényi, classic conversion |
# | what differs | | nothing: arithmetic for Poisson coins. Later theorems prove a smaller ε for the *same* runs: the other columns |

# %% tags=["nbval-check-output"]
plans = {"Abadi et al.": (0.01, 4.0, 10_000), "TensorFlow Privacy": (256 / 60_000, 1.1, 14_063)}
judges = {"Rényi, classic": RDP("classic"), "Rényi, improved": RDP(), "PLD": PLD()}
card = {name: {judge: price.epsilon(Repeated(PoissonSampled(q, Gaussian(noise)), steps), 1e-5)
               for judge, price in judges.items()}
        for name, (q, noise, steps) in plans.items()}
print(pd.DataFrame(card).T.round(2).to_string())

# %% tags=["proof"]
# Proof, open me: the published figures
assert abs(card["Abadi et al."]["Rényi, classic"] - 1.26) < 0.01
assert abs(card["TensorFlow Privacy"]["Rényi, classic"] - 3.01) < 0.01

# %% [markdown]
# ## What goes wrong
#
# Each of these is quickly written, and would print an ε that is not true, or that nobody has proved.

# %% tags=["nbval-check-output"]
from fl_course.privacy.mechanisms import gaussian_sigma_classic


def build(**parts):
    usual = {"weights": Uniform(), "schedule": Synchronous(0.2)}
    return Coordinator(tiny_clients(), logistic(64, 10), **{**usual, **parts})


with refusal():
    gaussian_sigma_classic(epsilon=5.0, delta=1e-5)
with refusal():
    build(weights=ByExamples(), stages=[CentralDP(1.0, 1.0)])
with refusal():
    build(stages=[TopK(0.1), CentralDP(1.0, 1.0)])       # the residual carries data past the clip
with refusal():
    build(training=LocalSGD(correction=Scaffold()), stages=[CentralDP(1.0, 1.0)])
with refusal():
    GDP().epsilon(PoissonSampled(0.1, Gaussian(1.0)), 1e-5)

# %% [markdown]
# ## Summary
#
# - An update of one image *is* the image. Clip, then noise on the sum, then divide by a public number.
# - ε bounds the odds of any guess about one client by $e^\varepsilon$; the privacy loss is their logarithm, and losses add.
# - ε belongs to a whole run. It grows every round; the ledger stops before the budget is exceeded, and is saved.
# - The amplification above is for Poisson coins only. The accountant and the sampler must match.
# - Accountants prove "at most", audits "at least". Metrics, logs and floating-point gaps are not covered: say so.
#
# ## Recall
#
# **1.** An attacker is 50 % sure that you took part. The release has ε = 1 and δ = 0. How sure can he be at most, having seen it?
#
# Answer: 73 %: the odds 1 : 1 become at most e : 1, and e/(1 + e) = 0.73.
#
# **2.** Somebody adds the noise to each update and clips then. Which cell shows what is wrong, and what is it?
#
# Answer: The one with `check_noise`: the clip cuts the noise away, less than a hundredth of it is left.
#
# **3.** One Gaussian round has ρ(α) = α/(2z²). What have T rounds, and how does ε come of it?
#
# Answer: Tα/(2z²), and ε = Tα/(2z²) + ln(1/δ)/(α − 1), smallest over the orders α.
#
# **4.** The same z = 1 has ε = 1.87 in one cell and 3.80 in another (δ = 1e-4). Why?
#
# Answer: 1.87 is sampled: each client came by a secret coin with q = 0.2. 3.80 is for a client that is known to be there.
#
# **5.** An audit of 1,500 trials proves "ε at least 5". Is 5 the truth?
#
# Answer: No, it is a lower bound, and counting 1,500 trials can never prove more than 6.0: rarer alarms cannot be seen.
#
# **References**: M. Abadi et al., *Deep learning with differential privacy*, CCS 2016, arXiv:1607.00133. · B. McMahan et al.,
# *Learning differentially private recurrent language models*, ICLR 2018, arXiv:1710.06963. · I. Mironov, *Rényi differential
# privacy*, CSF 2017, arXiv:1702.07476. · I. Mironov, *On significance of the least significant bits for differential privacy*,
# CCS 2012, doi:10.1145/2382196.2382264. · B. Balle, Y.-X. Wang, *Improving the Gaussian mechanism*, ICML 2018, arXiv:1805.06530. ·
# C. Dwork, A. Roth, *The algorithmic foundations of differential privacy*, 2014, doi:10.1561/0400000042. · G. Andrew et al.,
# *Differentially private learning with adaptive clipping*, NeurIPS 2021, arXiv:1905.03871. · P. Kairouz et al., *Practical and
# private (deep) learning without sampling or shuffling*, ICML 2021, arXiv:2103.00039. · C. Lebeda, M. Regehr, G. Kamath,
# T. Steinke, *Avoiding pitfalls for privacy accounting of subsampled mechanisms under composition*, 2024, arXiv:2405.20769. ·
# C. Clopper, E. Pearson, *The use of confidence or fiducial limits*, Biometrika 1934, doi:10.1093/biomet/26.4.404. · F. Tramèr et
# al., *Debugging differential privacy: a case study for privacy auditing*, 2022, arXiv:2202.12219.
