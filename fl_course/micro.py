"""Federated learning in one file, to be read from top to bottom, on paper: NumPy and Python, nothing else.

    python micro.py            four federations on the same 1,437 images: plain, private, private and masked, compressed

Everything here is in the library too, where it is faster, checked, and refuses what is unsound; a test holds each function
against it. This file is for reading, copying and arguing with. delta = local - broadcast, so that the server adds.
"""

import gzip
import hashlib
import importlib.util
import math
import secrets
from pathlib import Path

import numpy as np

# --- 1. The model: softmax regression. theta is (d,): W (classes, features) row by row, then b (classes,) ---------------

def scores(theta, x, classes=10):
    """(n, classes) log-probabilities of x (n, features), up to a constant a row; the largest is the answer."""
    return x @ theta[:-classes].reshape(classes, -1).T + theta[-classes:]


def gradient(theta, x, y, classes=10):
    """(d,) of the mean cross-entropy: (p - onehot)ᵀ x / n, where p = softmax(scores)."""
    s = scores(theta, x, classes)
    p = np.exp(s - s.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    p[np.arange(len(y)), y] -= 1
    return np.concatenate([(p.T @ x).ravel(), p.sum(axis=0)]) / len(y)


def accuracy(theta, x, y):
    return float((scores(theta, x).argmax(axis=1) == y).mean())


# --- 2. The client (McMahan et al. 2017, ClientUpdate) and the average ---------------------------------------------------

def local_sgd(theta, x, y, lr, batches):
    """The client's change of the model (d,) after one step a batch; batches: lists of positions of its examples."""
    local = theta
    for batch in batches:
        local = local - lr * gradient(local, x[batch], y[batch])
    return local - theta


def batches_of(n, epochs, size, rng):
    """E epochs of mini-batches of B, shuffled anew each time."""
    return [order[i : i + size] for order in (rng.permutation(n) for _ in range(epochs)) for i in range(0, n, size)]


def fedavg(deltas, examples):
    """Σ n_k·delta_k / Σ n_k: who has more examples counts more."""
    return sum(n * delta for n, delta in zip(examples, deltas, strict=True)) / sum(examples)


# --- 3. Privacy: clip, noise, and what it costs --------------------------------------------------------------------------

def clip(delta, bound):
    """At most this long (L2); never made longer. Now one client moves the sum by `bound` at most."""
    return delta * min(1.0, bound / max(float(np.linalg.norm(delta)), 1e-300))


def rdp_epsilon(q, sigma, rounds, delta):
    """ε after so many rounds, each client in a round by its own coin of probability q, noise of deviation sigma·bound.

    Mironov, Talwar & Zhang (2019), section 3.3, for whole orders a:
        (a - 1)·ρ(a) = ln Σ_k C(a, k) (1 - q)^(a-k) q^k exp(k(k - 1) / (2 sigma²)),
    rounds add up, and ε = ρ + ln((a - 1)/a) - (ln delta + ln a)/(a - 1) (Canonne, Kamath & Steinke 2020, prop. 12).
    """
    best = math.inf
    for a in range(2, 257):
        logs = [math.log(math.comb(a, k)) + k * math.log(q) + k * (k - 1) / (2 * sigma**2)
                + ((a - k) * math.log1p(-q) if q < 1 else 0.0) for k in (range(a + 1) if q < 1 else [a])]
        top = max(logs)
        rho = rounds * (top + math.log(sum(math.exp(v - top) for v in logs))) / (a - 1)
        best = min(best, rho + math.log((a - 1) / a) - (math.log(delta) + math.log(a)) / (a - 1))
    return max(best, 0.0)


# --- 4. A secure sum (Bonawitz et al. 2017): the server learns Σ x_k and no x_k, although some clients vanish ---------------

PRIME, P25519 = 2**521 - 1, 2**255 - 19      # shares are numbers modulo the one, points of the curve modulo the other


def share(secret, threshold, n):
    """Shamir (1979): points (x, f(x)) of a random polynomial of degree threshold - 1 with f(0) = secret."""
    poly = [secret] + [secrets.randbelow(PRIME) for _ in range(threshold - 1)]
    return [(x, sum(c * pow(x, i, PRIME) for i, c in enumerate(poly)) % PRIME) for x in range(1, n + 1)]


def reconstruct(shares):
    """f(0) by Lagrange: Σ y_i Π_{j≠i} x_j / (x_j - x_i). Too few shares give nonsense, not a part of the secret."""
    total = 0
    for i, (x, y) in enumerate(shares):
        for j, (other, _) in enumerate(shares):
            if i != j:
                y = y * other * pow(other - x, -1, PRIME) % PRIME
        total += y
    return total % PRIME


def x25519(key, point=9):
    """key·point on Curve25519 (RFC 7748, section 5). x25519(a, x25519(b)) == x25519(b, x25519(a)): a secret of two.

    For reading: how long it takes depends on the key, which a real one must not let happen.
    """
    key = key & ~7 & ((1 << 254) - 1) | (1 << 254)
    x2, z2, x3, z3, swapped = 1, 0, point, 1, 0
    for t in reversed(range(255)):
        bit = key >> t & 1
        if swapped ^ bit:
            x2, x3, z2, z3 = x3, x2, z3, z2
        swapped = bit
        a, b, c, d = x2 + z2, x2 - z2, x3 + z3, x3 - z3
        aa, bb, da, cb = a * a, b * b, d * a, c * b
        e = aa - bb
        x3, z3 = (da + cb) ** 2 % P25519, point * (da - cb) ** 2 % P25519
        x2, z2 = aa * bb % P25519, e * (aa + 121665 * e) % P25519
    x2, z2 = (x3, z3) if swapped else (x2, z2)
    return x2 * pow(z2, -1, P25519) % P25519


def mask(seed, d):
    """(d,) numbers modulo 2^32 that look random to everybody who does not know the seed."""
    return np.frombuffer(hashlib.shake_256(seed.to_bytes(66, "big")).digest(4 * d), dtype="<u4")


def masked(k, x, key, self_seed, public):
    """What client k sends: x + its own mask ± one mask a neighbour, which the neighbour adds with the other sign."""
    total = x + mask(self_seed, len(x))
    for j in public:
        if j != k:
            pair = mask(x25519(key, public[j]), len(x))
            total = total + pair if k < j else total - pair
    return total


def secure_sum(vectors, threshold, vanished=()):
    """Σ of the vectors (d,) uint32 of the clients that do not vanish, modulo 2^32. vectors: client -> vector.

    Played by one program: what belongs to client k has [k]. The shares would travel encrypted, through the server.
    """
    clients = sorted(vectors)
    key = {k: secrets.randbits(256) for k in clients}                                   # round 0: keys
    public = {k: x25519(key[k]) for k in clients}
    self_seed = {k: secrets.randbits(256) for k in clients}                             # round 1: shares of both secrets
    shares_of_key = {k: share(key[k], threshold, len(clients)) for k in clients}
    shares_of_seed = {k: share(self_seed[k], threshold, len(clients)) for k in clients}
    alive = [k for k in clients if k not in vanished]                                   # round 2: masked inputs
    total = sum(masked(k, vectors[k], key[k], self_seed[k], public) for k in alive)
    if len(alive) < threshold:
        raise ValueError(f"{len(alive)} clients are left, {threshold} must help to take the masks off")
    helpers = [clients.index(k) for k in alive[:threshold]]                             # round 3: unmasking
    for k in clients:                          # of nobody are both secrets told: that would uncover its vector
        if k in alive:
            total = total - mask(reconstruct([shares_of_seed[k][i] for i in helpers]), len(total))
        else:
            lost = reconstruct([shares_of_key[k][i] for i in helpers])
            for j in alive:                    # masks that the living have added and nobody takes away
                pair = mask(x25519(lost, public[j]), len(total))
                total = total - pair if j < k else total + pair
    return total


GRID = 2**20                                   # steps per unit; sums of ±2,047 clients' units fit 32 bits


def to_grid(delta):
    """Rounded towards zero, so that it gets no longer: the clip bound still holds for what is sent."""
    return np.trunc(delta * GRID).astype(np.int64).astype(np.uint32)


def from_grid(total):
    return total.astype(np.int32) / GRID


# --- 5. Compression: send the k largest numbers, remember the rest --------------------------------------------------------

def top_k(delta, memory, k):
    """(positions, values, new memory): what was not sent is added to what is meant next time (Stich et al. 2018)."""
    meant = delta + memory
    positions = np.sort(np.argsort(-np.abs(meant), kind="stable")[:k])
    left = meant.copy()
    left[positions] = 0
    return positions.astype(np.uint32), meant[positions], left


# --- 6. The loop ---------------------------------------------------------------------------------------------------------

def federate(train, test, rounds=20, fraction=0.4, lr=0.5, epochs=2, size=10, sigma=None, bound=1.0, secure=False,
             ratio=None, vanish=0.0, seed=0):
    """train: a list of (x, y), one a client. Returns (theta, accuracy a round, bytes sent up)."""
    rng, luck, noise = (np.random.default_rng([seed, i]) for i in range(3))      # one turned on does not move another's dice
    theta = np.zeros(train[0][0].shape[1] * 10 + 10)
    memory, curve, sent = [np.zeros_like(theta) for _ in train], [], 0
    for _ in range(rounds):
        cohort = np.flatnonzero(rng.random(len(train)) < fraction).tolist()             # select: a coin a client
        cohort = cohort if not secure or len(cohort) > 2 else []     # a sum of two tells each of them the other's vector
        deltas = {}
        for k in cohort:                                                                # local training
            x, y = train[k]
            deltas[k] = local_sgd(theta, x, y, lr, batches_of(len(y), epochs, size, rng))
            if sigma is not None:
                deltas[k] = clip(deltas[k], bound)
        total = np.zeros_like(theta)                                                    # what is sent, and added up
        if ratio is not None:
            for k, delta in deltas.items():
                positions, values, memory[k] = top_k(delta, memory[k], round(ratio * len(theta)))
                total[positions] += values
                sent += positions.nbytes + values.astype(np.float32).nbytes
        elif secure and cohort:
            gone = [k for k in cohort if luck.random() < vanish][: len(cohort) // 3]
            total = from_grid(secure_sum({k: to_grid(v) for k, v in deltas.items()}, 2 * len(cohort) // 3, gone))
            sent += 4 * len(theta) * (len(cohort) - len(gone))
        elif cohort:
            total = fedavg(list(deltas.values()), [1 if sigma else len(train[k][1]) for k in cohort]) * len(cohort)
            sent += 4 * len(theta) * len(cohort)
        if sigma is not None:                                                           # noise, once, on the sum
            total = total + noise.normal(0.0, sigma * bound, len(theta))
        theta = theta + total / (fraction * len(train))                                 # over a public number of clients
        curve.append(accuracy(theta, *test))
    return theta, curve, sent


def digits():
    """1,797 images of 8 × 8 pixels: the file that scikit-learn brings along, read without importing it."""
    if (found := importlib.util.find_spec("sklearn")) is None or found.origin is None:
        raise SystemExit("the images are a file of scikit-learn, which is not installed: pip install scikit-learn")
    with gzip.open(Path(found.origin).parent / "datasets" / "data" / "digits.csv.gz", "rt") as file:
        table = np.loadtxt(file, delimiter=",")
    return table[:, :-1] / 16.0, table[:, -1].astype(int)


def main(rounds=20, clients=40):
    x, y = digits()
    train, test = np.split(np.random.default_rng(1).permutation(len(y)), [1437])
    shards = [(x[part], y[part]) for part in np.array_split(train, clients)]
    epsilon = rdp_epsilon(0.4, 1.0, rounds, 1e-3)
    for name, how in [("plain", {}), (f"clip and noise, ε = {epsilon:.1f}, δ = 0.001", {"sigma": 1.0}),
                      ("the same, masked; one in ten vanishes", {"sigma": 1.0, "secure": True, "vanish": 0.1}),
                      ("a tenth of the numbers, with memory", {"ratio": 0.1})]:
        _, curve, sent = federate(shards, (x[test], y[test]), rounds, **how)
        print(f"{name:40} accuracy {curve[-1]:.3f}   {sent / 1e6:6.2f} MB up")


if __name__ == "__main__":
    main()
