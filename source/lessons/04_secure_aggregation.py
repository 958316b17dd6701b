# %% [markdown]
# # 4 · Secure aggregation
#
# The server of chapter 1 sees every client's update, and an update tells a lot about the data behind it (chapter 3 turned one
# back into a picture). But all that averaging needs is the *sum*. Can the server learn the sum and nothing else?
#
# **You will be able to**
# - hide vectors so that only their sum can be read, and say why the arithmetic must be modular;
# - explain each message of the protocol of Bonawitz et al. (2017), and what happens when somebody vanishes;
# - train a federation under secure aggregation, count what it costs, and say what it does *not* protect.
#
# About 100 minutes for a newcomer, the exercises not counted. In the library: `fl_course/secure_aggregation/masking.py` (keys,
# seeds, masks), `fl_course/secure_aggregation/shamir.py` (shares), `fl_course/secure_aggregation/rounds.py` (a round),
# `fl_course/secure_aggregation/stage.py` (the stage of the training loop).

# %% tags=["parameters"]
rounds: int = 8  # rounds of the federations
clients: int = 12  # clients of the federations; all of them are asked in every round
seed: int = 0  # every random choice follows from it, except secrets where it says so

# %%
import numpy as np
import pandas as pd
from scipy.stats import chisquare

from fl_course import *
from fl_course.secure_aggregation import PrimeField, reconstruct, run_round, share
from fl_course.workbook import report
from fl_course.workbook.lesson import canvas, refusal, show

rng = np.random.default_rng(seed)

# %% [markdown]
# ## Masks that cancel, by hand
#
# Three clients with four numbers each. Every *pair* agrees on a random vector; one of the two adds it, the other subtracts it.
# All arithmetic is modulo $R = 2^{16}$, where NumPy's `uint16` wraps around by itself.

# %% tags=["nbval-check-output"]
x = np.array([[12, 250, 3, 77], [100, 90, 80, 70], [255, 0, 255, 0]], dtype=np.uint16)
masks = np.random.default_rng(4)                   # made for statistics: never for secrets
sent = x.copy()
for u in range(3):
    for v in range(u + 1, 3):
        mask = masks.integers(0, 2**16, size=4, dtype=np.uint16)
        sent[u] += mask
        sent[v] -= mask
print("what is sent:", *sent, sep="\n  ")
total = lambda rows: rows.sum(axis=0, dtype=np.uint16)
print("their sum:", total(sent), " the true sum:", total(x))

# %% tags=["proof"]
# Proof, open me: the masks cancel, to the bit
assert np.array_equal(sent.sum(axis=0, dtype=np.uint16), x.sum(axis=0, dtype=np.uint16))

# %% [markdown]
# What one client sends is uniformly random, whatever it hides: for any $x$, the value $x + m \bmod R$ is reached by exactly one $m$,
# so if every $m$ is equally likely, so is every sum. The total is exact, to the bit, as long as it is below $R$.
#
# ## Why not simply floats?
#
# A tempting shortcut: add normal noise as a mask to float updates. It goes wrong twice. Large masks swallow the numbers:

# %%
update = rng.normal(0, 0.01, size=(2, 1000)).astype(np.float32)
for size in (1.0, 1e4, 1e8):
    mask = (size * rng.standard_normal(1000)).astype(np.float32)
    summed = (update[0] + mask) + (update[1] - mask)
    wrong = np.abs(summed - update.sum(axis=0)).max()
    print(f"masks of size {size:>11,.0f}: largest error {wrong:.1e}; the updates are about 0.01")

# %% [markdown]
# And small masks leak: no distribution on the real line is "uniform everywhere", so a masked value always says something.

# %%
for size in (0.1, 1.0, 10.0):
    a, b = size * rng.standard_normal((2, 20_000))     # for a client with a 0, and one with a 1
    guesses = np.concatenate([a < 0.5, b + 1 >= 0.5])
    print(f"masks of size {size:4}: 0 and 1 are told apart in {guesses.mean():.0%} of cases")

# %% [markdown]
# 50 % would be guessing; only an infinite mask would get there. Modulo $R$ there is a perfectly uniform one. So updates must become integers on a grid that all clients share: the library's
# `FixedPointGrid`. The code of $v$ is round((v + clip) / step), never negative; what lies outside ±clip is cut off, *saturated*. Each
# summand brings one offset, so decoding must know how many there are (`count`). The ring must have room for the largest possible sum,
# here 12 · 65,534, or a sum would wrap unseen; it refuses otherwise.

# %% tags=["nbval-check-output"]
from fl_course.secure_aggregation import FixedPointGrid

grid = FixedPointGrid(clip=0.5, bits=16, clients=12)
codes, saturated = grid.encode(np.array([0.0, 0.25, -0.5, 0.7]))
print(f"codes {codes}, {saturated} saturated; step {grid.step:.2e}")
print(f"a ring of {grid.ring_bits} bits is enough for 12 clients")
print("back:", grid.decode(codes, count=1))
with refusal():
    FixedPointGrid(clip=0.5, bits=16, clients=12, ring_bits=18)
with refusal():
    grid.encode(np.array([0.1, np.nan]))           # an integer NaN would look like any number

# %% [markdown]
# ## What if somebody vanishes?
#
# Phones lose their connection. If client 2 never sends, its masks stay in the sum of the others:

# %% tags=["nbval-check-output"]
print("sum of clients 0 and 1 as sent:", total(sent[:2]), " should be", total(x[:2]))

# %% [markdown]
# The others must be able to rebuild client 2's masks, but not while it is still there. So each secret is cut into **shares**:
# any $t$ of them give it back, $t - 1$ tell nothing. Shamir's idea: hide the secret as $f(0)$ of a random polynomial of degree
# $t - 1$ modulo a prime; a share is a point of it. Three of five, modulo 97, by hand:

# %% tags=["nbval-check-output"]
p, secret, coefficients = 97, 42, (13, 88)                    # f(x) = 42 + 13 x + 88 x²
a, b = coefficients
shares = [(i, (secret + a * i + b * i**2) % p) for i in range(1, 6)]
print("shares:", shares)

def at_zero(points):
    total = 0
    for xi, yi in points:
        weight = 1
        for xj, _ in points:
            if xj != xi:
                weight = weight * xj * pow(xj - xi, -1, p) % p   # Lagrange; pow(·, -1, p) divides
        total = (total + yi * weight) % p
    return total

print("from shares 1, 3, 5:", at_zero(shares[::2]), " from 2, 3, 4:", at_zero(shares[1:4]))

# %% [markdown]
# What do *two* shares tell? Try every possible third share: each gives another secret, and every secret occurs exactly once.

# %% tags=["nbval-check-output"]
possible = {at_zero([*shares[:2], (3, y)]) for y in range(p)}
print(f"two shares fit {len(possible)} secrets, of {p} that there are, equally well")

# %% tags=["proof"]
# Proof, open me: every secret, each exactly once
assert possible == set(range(p))

# %% [markdown]
# The library does the same over larger primes, with coefficients from the operating system's generator (given here to compare):

# %% tags=["nbval-check-output"]
field = PrimeField(p)
print("the library's shares:", share(secret, 3, 5, field, coefficients))
with refusal():
    reconstruct(shares[:2], 3, field)

# %% tags=["proof"]
# Proof, open me: the same shares, and the secret back
assert share(secret, 3, 5, field, coefficients) == shares
assert reconstruct(shares[:3], 3, field) == secret

# %% [markdown]
# ## Where do two clients get a common mask?
#
# They have never met, and everything that they say passes through the server. Diffie and Hellman (1976): both know a prime $p$ and a
# base $g$; each keeps a number to itself and sends $g$ to the power of it. Modulo a small prime, in three lines:

# %% tags=["nbval-check-output"]
prime, g = 467, 2
alice, bob = 153, 401                              # private: each keeps its own
A, B = pow(g, alice, prime), pow(g, bob, prime)    # public: this is all that the server sees
print(f"sent: {A} and {B}; Alice computes {pow(B, alice, prime)}, Bob {pow(A, bob, prime)}")

# %% [markdown]
# Both have $g^{ab}$. The server would have to find $a$ from $g^a$: here 466 trials, with the library's keys (X25519, 256 bits) more than
# there will ever be. What they share is a *seed*, not yet a mask of $d$ numbers: a cipher that is keyed with it writes as many
# uniform numbers as are needed, the same ones for both. The library's does it with AES:

# %% tags=["nbval-check-output"]
from fl_course.secure_aggregation import mask

seed_of_both = bytes(32)                           # 32 bytes that both hold; here zeros, to be seen
print(mask(seed_of_both, 4, 16), "for Alice;", mask(seed_of_both, 4, 16), "for Bob")

# %% [markdown]
# ## The protocol
#
# Now put together what Bonawitz et al. (2017) did. Everything passes through the server, as bytes.
#
# Two words first. *Sign*: only the key's owner can make a signature, everybody can check it. *Encrypt*: only the key's holder can read it.
# Each client has a long-lived identity key to sign with; that these keys are known is assumed (see the end).
#
# 1. **Advertise**: each client sends two fresh public keys, one for masks and one for letters to other clients. Any two clients
#    compute the same secret from their own private and the other's public key (Diffie–Hellman): of the first kind, the seed of their
#    mask; of the second, a key to encrypt with. The server, who saw only public keys, cannot.
# 2. **Share**: each client cuts its private mask key, and the seed of a *self mask*, into shares, encrypted for each other client.
# 3. **Upload**: numbers + self mask ± pair masks.
# 4. **Consistency**: survivors sign the list of survivors.
# 5. **Unmask**: for each client in the sum the others hand in shares of its *self-mask seed*; for each that vanished, shares of its
#    *mask key*. Never both of the same client.
#
# Why the self mask? A server could *claim* that somebody vanished, collect the mask key, and then receive the late upload: without
# a second mask it would lie open.
#
# **Why $2t > n$.** A lying server could tell one half of the clients "2 has vanished, give me shares of its mask key", and the other
# half "2 is here, give me shares of its self-mask seed". With both secrets it could take both masks off 2's upload. It needs $t$
# answers to each story, from different clients, since nobody answers twice: $2t$ clients. If $2t > n$ there are not so many.
# That holds while no client helps the server: a helper answers both stories. Step 4 covers that: an honest client answers only after
# $t$ signatures under one and the same list, and refuses a second request by itself.
#
# One round of the library, with the numbers of above and two clients more:

# %% tags=["nbval-check-output"]
inputs = dict(enumerate([*x, *x[::-1][:2]]))                   # client -> (4,) integers
transcript = run_round(inputs, threshold=4, ring_bits=16, seed=1)   # with a seed: not secure
print(transcript.sum, "=", total(np.array(list(inputs.values()))))
rows = [(m.kind, m.receiver == "server", m.nbytes) for m in transcript.messages]
kinds = pd.DataFrame(rows, columns=["kind", "up", "bytes"]).groupby("kind", sort=False)
summary = kinds.agg(messages=("bytes", "size"), up=("up", "first"), bytes=("bytes", "sum"))
print(summary.to_string())

# %% [markdown]
# ## Drop a client at each stage
#
# Client 2 vanishes, in five ways. Is it in the sum? Which of its two secrets has the server opened?

# %% tags=["nbval-check-output"]
for stage in ("advertise", "share", "upload", "consistency", "unmask"):
    t = run_round(inputs, threshold=4, ring_bits=16, seed=1, drops={2: stage})
    secrets = {"seed of its self mask": t.opened_seeds, "mask key": t.opened_keys}
    opened = next((name for name, of in secrets.items() if 2 in of), "nothing")
    print(f"vanishes before {stage:12} in the sum: {2 in t.survivors!s:6} opened: {opened}")
t = run_round(inputs, threshold=4, ring_bits=16, seed=1, drops={1: "upload", 2: "upload"})
print("two vanish:", t.sum, "-", t.aborted)

# %% tags=["proof"]
# Proof, open me: the sum is exact over whoever is in it
for stage in ("advertise", "share", "upload", "consistency", "unmask"):
    t = run_round(inputs, threshold=4, ring_bits=16, seed=1, drops={2: stage})
    assert np.array_equal(t.sum, total(np.array([inputs[i] for i in t.survivors])))

# %% [markdown]
# The sum is exact whenever at least $t = 4$ are left; below that nothing is opened.
#
# **Try it.** Run the round in which two vanish with `threshold=3`. And with 2?
#
# Answer: with 3 the three that are left open the sum. A threshold of 2 is refused, because 2·2 is not more than 5: two halves of two
# clients each could be told two different stories.
#
# ## The theatre
#
# Step through the round. Let somebody vanish, at any stage. Then let the *server* lie, and find the check that stops it.

# %%
from fl_course.workbook.widgets.theatre import Theatre

Theatre(drops={"B": "upload"})

# %% [markdown]
# ## What does the server see?
#
# A client that sends nothing but zeros, 4,000 of them: what arrives? Uniform numbers are equally often in each of 16 buckets; the
# χ² test asks whether the counts deviate more than chance does.

# %%
zeros = {i: np.zeros(4000, np.uint16) for i in range(5)}
seen = run_round(zeros, threshold=4, ring_bits=16, seed=2).server_view[0]
counts = np.bincount(seen >> 12, minlength=16)
figure, (ax,) = canvas(1, width=6, height=2.6)
ax.bar(range(16), counts)
ax.axhline(250, color="black", linewidth=0.8, label="uniform")
ax.set(xlabel="bucket of the value (0 … 65,535 in 16 buckets)", ylabel="how often")
ax.legend(loc="lower right")
show(figure, "04.masked_zeros")
print(f"χ² test against uniform: p = {chisquare(counts).pvalue:.2f}")

# %% tags=["proof"]
# Proof, open me: nothing but zeros looks uniform
assert chisquare(counts).pvalue > 1e-6

# %% [markdown]
# ## A federation that hides its updates
#
# In the training loop all this is one stage, `SecureSum`: the grid, the masks and the sum belong together. Clients weigh by examples,
# and the weights are masked too, so it needs a public bound on them.

# %%
data = digits().partition(Dirichlet(0.5), clients=clients, seed=seed)
bound = max(len(rows) for rows in data.train)

def federation(*stages, **more):
    training = LocalSGD(lr=0.1, epochs=3, batch_size=10)
    how = {"stages": stages, "seed": seed, **more}
    return Coordinator(data, mlp(64, 32, 10), training, Synchronous(1.0), **how)

plain = federation().train(rounds)
secure = federation(SecureSum(clip=0.5, max_weight=bound)).train(rounds)
same_grid = federation(SecureSum(clip=0.5, max_weight=bound, masked=False)).train(rounds)
different = (secure.state.server.params != same_grid.state.server.params).sum()
print(f"with and without masks: {different} of {secure.state.server.params.size} numbers differ")

# %% tags=["proof"]
# Proof, open me: the same model, to the last bit
assert secure.state.server.params.tobytes() == same_grid.state.server.params.tobytes()

# %%
accuracy = {"plain floats": plain.last("accuracy"), "secure": secure.last("accuracy")}
print({name: round(value, 3) for name, value in accuracy.items()})
print(f"saturated in the last round: {secure.last('saturated'):.0f} of {clients * 2410:,} numbers")

# %% tags=["proof"]
# Report, open me: masks and grid cost no accuracy
assert abs(accuracy["secure"] - accuracy["plain floats"]) < 0.03
report(accuracy_secure=accuracy["secure"], accuracy_plain=accuracy["plain floats"])

# %% [markdown]
# Masks cost no accuracy: they cancel exactly. The grid costs each number a rounding error of at most half a step. What else it costs is
# bytes; here they are by purpose, of one round of everybody, as encoded:

# %%
record, before = secure.records[-1], plain.records[-1]
table = pd.DataFrame({"up": record.bytes_up, "down": record.bytes_down,
                      "up, plain": before.bytes_up, "down, plain": before.bytes_down})
print(table.fillna(0).astype(int).to_string())

# %% [markdown]
# For so small a model that is a fifth more up and two fifths more down: keys and shares do not shrink with it. (The update itself is
# even a little shorter: masked clients send no reports with it.)
#
# Now each answer is lost with probability 1/5, and training goes on with the sum of the others. Where fewer than the threshold are left
# (two thirds and one more: nine of twelve), the round is aborted and the model stays.

# %%
shaky = federation(SecureSum(clip=0.5, max_weight=bound), fleet=Equal(drop=0.2)).train(rounds)
for record in shaky.records:
    aborted = "aborted" if any("aborted" in event for event in record.events) else ""
    reached = record.metrics["accuracy"]
    here = f"{len(record.clients):2} of {clients}"
    print(f"round {record.version}: {here} answered, accuracy {reached:.2f} {aborted}")

# %% [markdown]
# ## What does it cost when there are many?
#
# On the complete graph every client shares secrets with all others: its bytes grow with $n$. Bell et al. (2020) connect each client to
# only $k = O(\log n)$ others (SecAgg+). Six, in the picture, are too few to be safe; the table below says how many are needed.

# %%
def extra(n, degree=None, d=8):
    """Bytes of a client beside its masked vector, both ways."""
    holders = n if degree is None else degree + 1
    inputs = {1000 + i: np.zeros(d, np.uint32) for i in range(n)}
    t = run_round(inputs, 2 * holders // 3 + 1, degree=degree, seed=1, shared_work=True)
    return sum(m.nbytes for m in t.messages) / n - 4 * d

sizes = [8, 16, 24, 32]
complete, sparse = [extra(n) for n in sizes], [extra(n, degree=6) for n in sizes]
figure, (ax,) = canvas(1, width=5)
ax.plot(sizes, np.array(complete) / 1000, marker="o", label="complete graph")
ax.plot(sizes, np.array(sparse) / 1000, marker="s", label="6 neighbours")
ax.set(xlabel="clients n", ylabel="kB a client beside its vector", ylim=(0, None))
show(figure, "04.price")
slope, flat = (np.polyfit(sizes, cost, 1)[0] for cost in (complete, sparse))
print(f"complete graph: {slope:.0f} bytes more for every further client; 6 neighbours: {flat:.0f}")

# %% tags=["proof"]
# Proof, open me: with a fixed number of neighbours the bytes do not grow
assert flat < slope / 10

# %% tags=["nbval-check-output"]
from fl_course.secure_aggregation import recommended_degree

for n in (100, 1000, 10_000):
    degree, threshold = recommended_degree(n)
    print(f"n = {n:6,}: {degree} neighbours, threshold {threshold}")

# %% [markdown]
# That is against one client in five corrupt and one in five lost. At 100 clients it is nearly the complete graph; it pays at thousands.
#
# ### Reproduction card: the price in bytes
#
# Bonawitz et al. count, for one client, $2na_K + (5n - 4)a_S + d\lceil\log_2 R\rceil$ bits ($a_K = a_S = 256$), against $16\,d$ in the clear.

# %%
n, d = 2**10, 2**20
vector = d * (16 + 10) / 8                         # 16 bits, and 10 so that 1,024 of them fit
formula = (2 * n * 256 + (5 * n - 4) * 256) / 8 + vector
ours = np.polyval(np.polyfit(sizes, complete, 1), n) + vector
print(f"the paper's formula {formula / (2 * d):.2f}×")
print(f"ours, extrapolated from n ≤ {sizes[-1]}: {ours / (2 * d):.2f}×")

# %% tags=["proof"]
# Proof, open me: the paper's number, and the band of ours
assert round(formula / (2 * d), 2) == 1.73
assert 1.7 < ours / (2 * d) < 2.0

# %% [markdown]
# | | the paper (Bonawitz et al. 2017, abstract) | here (the cell above) |
# |---|---|---|
# | claim | 1.73× the bytes of sending in the clear, n = 2¹⁰ clients, d = 2²⁰ numbers of 16 bits | some more, 1.85×; *extrapolated*, not run |
# | what differs | semi-honest count without signatures | signed keys and survivors, names and checksums in every message |
#
# ## What goes wrong
#
# Whatever needs single updates, or other places or grids at each client, is refused when the experiment is built.

# %% tags=["nbval-check-output"]
hidden = SecureSum(clip=0.5, max_weight=200)
with refusal():
    federation(TopK(0.1), hidden)                  # each client would pick its own places
with refusal():
    federation(SecureSum(clip=0.5, max_weight=200, threshold=clients // 2))
with refusal():
    Coordinator(data, mlp(64, 32, 10), schedule=Buffered(6, 3), stages=[hidden])
with refusal():
    Coordinator(data, mlp(64, 32, 10), LocalSGD(correction=Scaffold()), stages=[hidden])

# %% [markdown]
# And what it does not promise at all: **the sum itself still tells something.** Ask the same clients twice, the second time without one of
# them, from the same model, and subtract:

# %% tags=["nbval-check-output"]
with_two = run_round(inputs, 4, ring_bits=16, seed=1)
without = run_round(inputs, 4, ring_bits=16, seed=2, drops={2: "share"})
print("difference of two sums:", with_two.sum - without.sum, " client 2's numbers:", inputs[2])

# %% [markdown]
# Each round kept its promise, and together they gave everything away. A sum of one survivor would be that client's update, which is
# another reason why at least $t$ are required. What bounds all such differences is noise: differential privacy, chapter 3.
#
# ## Noise that nobody has to be trusted with
#
# The two belong together (this part uses chapter 3: the noise multiplier $z$ is the deviation of the noise on the sum, in clip bounds).
# Every client adds a small *share* of noise to its integers before masking; every sum that can be opened has at least $t$ shares, which
# is enough, and no server has to be trusted to add any (Kairouz et al. 2021). The shares are discrete Gaussians, because the sum lives on a
# grid; the ledger is that of chapter 3, and rounding to the grid is paid for.

# %%
noise = DistributedNoise(norm=1.0, noise_multiplier=0.5, delta=1e-3, noise_seed=seed)  # a demo
noisy = federation(SecureSum(clip=0.5, noise=noise), weights=Uniform()).train(rounds)
deviation = noise.share(SecureSum(clip=0.5).grid(clients), 2410, "nearest", 2 * clients // 3 + 1)
step = SecureSum(clip=0.5).grid(clients).step
print(f"a client's share: {deviation:,.0f} steps of the grid, {deviation * step:.3f}; "
      f"nine of them: {3 * deviation * step:.2f}, which is z · clip bound")
print(f"accuracy {noisy.last('accuracy'):.2f}, epsilon {noisy.last('epsilon'):.0f}")

# %% [markdown]
# An ε that large promises next to nothing, and yet the noise is felt: twelve clients are far too few. To hide one of them with a small
# ε takes noise that drowns the other eleven. What would it take, and what would it do to the *mean*, in a cohort of a realistic size?

# %%
from fl_course.privacy.accounting import RDP, Gaussian, Repeated

for z in (0.5, 8.0):
    epsilon = RDP().epsilon(Repeated(Gaussian(z), rounds), 1e-3)
    print(f"z = {z}: epsilon {epsilon:.1f}; noise on the mean, in clip bounds: "
          f"{z / 12:.3f} among 12 clients, {z / 10_000:.5f} among 10,000")

# %% [markdown]
# The noise on the sum is the same for 12 clients and for ten thousand; on the mean it is divided by their number. Privacy wants large
# cohorts.
#
# ## What remains
#
# Nobody can see whether a hidden update is poisoned, either. And the server could invent clients: identity keys must come from somebody
# who is trusted, which a notebook cannot provide.
#
# ## Summary
#
# - Pair masks cancel in the sum; modulo R, a masked vector is uniform. Floats leak and lose.
# - Shamir shares let the others mend the sum when somebody vanishes; below the threshold nothing is opened.
# - Self masks protect late uploads; signatures stop a server that tells different stories.
# - On one grid the model with masks is the one without, bit for bit; the price is bytes: a client's grow with n, or with the degree k
#   of the graph.
# - The sum itself still leaks. Differential privacy bounds that, and each client can bring its share of the noise.
#
# ## Recall
#
# **1.** Two clients agree on a mask. Why does it not matter which of them adds it?
#
# Answer: one adds and the other subtracts it, so it cancels in the sum whichever does which; they only must not do the same.
#
# **2.** Client 2 vanishes before its upload. Which of its secrets do the others open, and why is that harmless?
#
# Answer: its mask key, so that its pair masks can be taken out of the sum. Nothing of its own was uploaded that they could uncover.
#
# **3.** Why is the self mask needed if pair masks already hide everything?
#
# Answer: for the late upload of a client that was declared gone: its pair masks are known by then, the self mask still covers it.
#
# **4.** What is the smallest threshold that a round of eight accepts?
#
# Answer: 5, because 2t must exceed n.
#
# **5.** The server knows two exact sums, with and without client 2. What does it know of client 2?
#
# Answer: everything: the difference is its update. Only noise bounds that.
#
# **References**: K. Bonawitz et al., *Practical secure aggregation for privacy-preserving machine learning*, CCS 2017,
# doi:10.1145/3133956.3133982. · J. Bell et al., *Secure single-server aggregation with (poly)logarithmic overhead*, CCS 2020,
# doi:10.1145/3372297.3417885. · A. Shamir, *How to share a secret*, CACM 1979, doi:10.1145/359168.359176. · W. Diffie, M. Hellman,
# *New directions in cryptography*, 1976, doi:10.1109/TIT.1976.1055638. · P. Kairouz, Z. Liu, T. Steinke, *The distributed discrete
# Gaussian mechanism for federated learning with secure aggregation*, ICML 2021, arXiv:2102.06387.
