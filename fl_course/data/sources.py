"""Data that need no network: two pools of real images, and clients drawn from a stated model."""

from __future__ import annotations

from importlib import resources

import numpy as np

from ..core import ClientId, is_whole, stream, whole
from .federated import Dataset, FederatedData, from_clients
from .recalled import recalled


@recalled
def digits() -> Dataset:
    """1,797 images of 8 × 8 pixels that ship with scikit-learn, as (64,) in [0, 1]; one in five is held out."""
    from sklearn.datasets import load_digits  # here, because it takes longer to import than a federation to train

    bunch = load_digits()
    return with_held_out("digits", bunch.data / 16.0, bunch.target, classes=10)


@recalled
def mnist() -> Dataset:
    """5,000 real MNIST images of 28 × 28 pixels, as (784,) in [0, 1]; 1,000 of them are held out."""
    with resources.files("fl_course").joinpath("data", "datasets", "mnist5000.npz").open("rb") as file, np.load(file) as stored:
        return with_held_out("mnist", stored["images"].reshape(-1, 784) / np.float32(255), stored["labels"], classes=10)


@recalled
def synthetic(alpha: float, beta: float, clients: int = 30, dim: int = 60, classes: int = 10, seed: int = 0,
              test_fraction: float = 0.2, least: int = 50, log_mean: float = 4, log_std: float = 2) -> FederatedData:
    """Synthetic(alpha, beta) of Li et al. (2020, FedProx, sec. 5.1): every client has a model and inputs of its own.

        u_k ~ N(0, alpha)   W_k ~ N(u_k, 1) (dim, classes), b_k ~ N(u_k, 1) (classes,)   how far the models lie apart
        B_k ~ N(0, beta)    v_k ~ N(B_k, 1) (dim,), x ~ N(v_k, Σ), Σ_jj = j^-1.2         how far the inputs lie apart
        y = argmax softmax(x W_k + b_k);   examples a client: least + lognormal(log_mean, log_std)

    As published, alpha moves nothing: u_k shifts the scores of all classes alike, and the largest stays the largest. What
    makes the clients' models differ are the draws of W_k themselves, and what makes them drift is beta.

    alpha and beta are standard deviations, as in the authors' program; read as variances, as the paper's notation has
    it, they would be the squares of ours; at 0 and 1 the two readings agree. Our draws come from other random streams
    than the authors', and there is a global held-out set: a quarter as many fresh examples from each client.
    """
    for name, value in (("alpha", alpha), ("beta", beta), ("log_std", log_std)):
        if not (np.isfinite(value) and value >= 0):
            raise ValueError(f"{name} = {value!r}; it must be a finite number >= 0")
    for name, count, low in (("clients", clients, 1), ("dim", dim, 1), ("classes", classes, 2), ("least", least, 1)):
        if not is_whole(count, low):
            raise ValueError(f"{name} = {count!r}; it must be a whole number >= {low}")
    clients, dim, classes, least, seed = int(clients), int(dim), int(classes), int(least), whole(seed, "seed")
    owned: dict[ClientId, tuple[np.ndarray, np.ndarray]] = {}
    held_out = []
    for client in range(clients):
        rng = stream(seed, "partition", "synthetic", client)
        u, v = rng.normal(0.0, alpha), rng.normal(rng.normal(0.0, beta), 1.0, dim)
        w, b = rng.normal(u, 1.0, (dim, classes)), rng.normal(u, 1.0, classes)
        size = least + int(rng.lognormal(log_mean, log_std))
        x = v + rng.standard_normal((size + -(-size // 4), dim)) * np.arange(1, dim + 1) ** -0.6    # Σ^(1/2): j^-0.6
        y = np.argmax(x @ w + b, axis=1)                            # softmax keeps the order, so it is not needed
        owned[client] = (x[:size], y[:size])
        held_out.append((x[size:], y[size:]))
    x_test, y_test = (np.concatenate(part) for part in zip(*held_out, strict=True))
    return from_clients("synthetic", owned, classes, x_test, y_test, test_fraction, seed,
                        made=f"Synthetic({alpha:g}, {beta:g})")


def with_held_out(name: str, x: np.ndarray, y: np.ndarray, classes: int) -> Dataset:
    """Hold out one example in five of every class; always the same ones, whatever the seed of an experiment."""
    rng, held = stream(0, "held-out", name), np.zeros(len(y), dtype=bool)
    for label in range(classes):
        rows = rng.permutation(np.flatnonzero(y == label))
        held[rows[: round(0.2 * len(rows))]] = True
    kept, held = rng.permutation(np.flatnonzero(~held)), rng.permutation(np.flatnonzero(held))
    return Dataset(name, x[kept], y[kept], classes, x[held], y[held])
