"""Who gets which examples: five ways to divide a pool of labelled examples among clients.

A partitioner is a frozen dataclass with two methods:

    split(labels (N,), clients K, rng)  ->  K arrays of positions 0..N-1; every position stands in exactly one of them
    view(x (n, *shape), rng)            ->  the examples as one client sees them; unchanged except for `Writers`

The first rng belongs to the division as a whole, the second to one client.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from ..core import is_whole

Rng = np.random.Generator


class Partitioner(ABC):
    """A rule that divides N examples among K clients, 1 <= K <= N. Every client gets at least one example."""

    @abstractmethod
    def split(self, labels: np.ndarray, clients: int, rng: Rng) -> list[np.ndarray]:
        """Labels (N,) int64 -> one int64 array of positions a client."""

    def view(self, x: np.ndarray, rng: Rng) -> np.ndarray:
        """Examples (n, *shape) -> the same examples as this client sees them."""
        return x


@dataclass(frozen=True)
class IID(Partitioner):
    """A shuffled pack of cards dealt round: sizes differ by one at most."""

    def split(self, labels: np.ndarray, clients: int, rng: Rng) -> list[np.ndarray]:
        _check_clients(clients, len(labels))
        return np.array_split(rng.permutation(len(labels)), clients)


@dataclass(frozen=True)
class Shards(Partitioner):
    """Sorted by label, cut into K·per_client equal shards, per_client of them a client (McMahan et al. 2017, sec. 3).

    A client sees at most 2·per_client labels, as long as a shard is not longer than the examples of a label.
    """

    per_client: int = 2

    def __post_init__(self) -> None:
        if not is_whole(self.per_client, 1):
            raise ValueError(f"per_client = {self.per_client!r}; it must be a whole number >= 1")
        object.__setattr__(self, "per_client", int(self.per_client))

    def split(self, labels: np.ndarray, clients: int, rng: Rng) -> list[np.ndarray]:
        _check_clients(clients, len(labels))
        count = clients * self.per_client
        if count > len(labels):
            raise ValueError(f"per_client = {self.per_client} for {clients} clients makes {count} shards; "
                             f"the pool has {len(labels)} examples, so per_client must be <= {len(labels) // clients}")
        shuffled = rng.permutation(len(labels))
        by_label = shuffled[np.argsort(labels[shuffled], kind="stable")]
        shards = np.array_split(by_label, count)
        deal = rng.permutation(count).reshape(clients, self.per_client)
        return [np.concatenate([shards[shard] for shard in hand]) for hand in deal]


@dataclass(frozen=True)
class Dirichlet(Partitioner):
    """Every client draws its own mix of classes, q_k ~ Dir(alpha·C·p): C classes, p their mix in the pool.

    This is the division of Hsu et al. (2019) on the scale of today's papers and libraries: in a balanced pool C·p is a
    row of ones, so q_k ~ Dir(alpha, …, alpha); the alpha of Hsu et al. is C times ours. alpha is in (0, inf): large
    gives every client the mix of the pool, small gives each about one class. All clients have the same number of
    examples (to one), so that label skew is not confused with quantity skew. Examples are given out without
    replacement; when a class has run out, the client goes on with the rest of its mix, and if nothing of its mix is
    left, it draws a new one over the classes that remain.
    """

    alpha: float

    def __post_init__(self) -> None:
        _check_positive("alpha", self.alpha)

    def split(self, labels: np.ndarray, clients: int, rng: Rng) -> list[np.ndarray]:
        _check_clients(clients, len(labels))
        if labels.dtype.kind == "f":
            raise ValueError("Dirichlet mixes classes, and these labels are numbers to hit; Shards deals them out in order of "
                             "size, IID and QuantitySkew do not look at them")
        order = rng.permutation(len(labels))
        values, counts = np.unique(labels, return_counts=True)
        stock = [order[labels[order] == value] for value in values]       # each class, shuffled
        prior, left = len(counts) * counts / counts.sum(), counts.copy()  # C·p
        sizes = [len(part) for part in np.array_split(order, clients)]
        parts: list[np.ndarray] = [order[:0]] * clients
        for client in rng.permutation(clients):                           # nobody is always served last
            taken = self._draw(sizes[client], prior, left, rng)
            left -= taken
            parts[client] = np.concatenate([pile[end:end + n] for pile, end, n in zip(stock, left, taken, strict=True)])
        return parts

    def _draw(self, size: int, prior: np.ndarray, left: np.ndarray, rng: Rng) -> np.ndarray:
        """How many of each class one client takes, (classes,): `size` in all, never more than are left."""
        taken, mix = np.zeros_like(left), np.zeros(len(left))
        while (missing := size - int(taken.sum())) > 0:
            open_ = taken < left
            mix = np.where(open_, mix, 0.0)
            if mix.sum() <= 0.0:
                mix[open_] = rng.dirichlet(np.maximum(self.alpha * prior[open_], 1e-300))
            mix = mix / mix.sum()
            taken += np.minimum(rng.multinomial(missing, mix), left - taken)
        return taken


@dataclass(frozen=True)
class QuantitySkew(Partitioner):
    """The same mix of classes for everybody, unequal amounts: shares ~ Dir(alpha), alpha in (0, inf), small is unequal.

    The shares are drawn as by Li, Diao, Chen & He (2022, "Federated learning on non-IID data silos: an experimental
    study"), except that one example each is set aside first, so that nobody is empty.
    """

    alpha: float

    def __post_init__(self) -> None:
        _check_positive("alpha", self.alpha)

    def split(self, labels: np.ndarray, clients: int, rng: Rng) -> list[np.ndarray]:
        _check_clients(clients, len(labels))
        shares = rng.dirichlet(np.full(clients, self.alpha))
        sizes = 1 + _round_to_sum(shares, len(labels) - clients)
        return np.split(rng.permutation(len(labels)), np.cumsum(sizes)[:-1])


@dataclass(frozen=True)
class Writers(Partitioner):
    """IID labels, but every client writes in its own hand: its images are slanted, thickened and noisy in its own way.

    slant      largest sideways shift per row of height (a tangent): a client draws from [-slant, slant]
    thickness  largest change of the stroke, as a share of one pixel, in [0, 1]: negative draws make it thinner
    noise      largest standard deviation of pixel noise, pixels being in [0, 1]: a client draws from [0, noise]

    Images are square, (n, side·side), (n, side, side) or (n, 1, side, side), with pixels in [0, 1]. Only the clients'
    own examples are changed; the global held-out set stays as it was.
    """

    slant: float = 0.5
    thickness: float = 0.8
    noise: float = 0.15

    def __post_init__(self) -> None:
        for name, top in (("slant", 2.0), ("thickness", 1.0), ("noise", 1.0)):
            if not 0.0 <= (value := getattr(self, name)) <= top:          # NaN fails this too
                raise ValueError(f"{name} = {value!r}; it must be in [0, {top}]")

    def split(self, labels: np.ndarray, clients: int, rng: Rng) -> list[np.ndarray]:
        return IID().split(labels, clients, rng)

    def view(self, x: np.ndarray, rng: Rng) -> np.ndarray:
        from scipy import ndimage  # here, because only this division needs it, and it is slow to import

        side = image_side(x.shape[1:])
        slant, thick = rng.uniform(-1.0, 1.0, size=2) * (self.slant, self.thickness)
        noise = rng.uniform(0.0, self.noise)
        images = x.reshape(-1, side, side)
        images = ndimage.affine_transform(                                # a shear about the middle row
            images, np.array([[1, 0, 0], [0, 1, 0], [0, slant, 1]]), offset=(0, 0, -slant * (side - 1) / 2), order=1)
        reach = ndimage.grey_dilation if thick > 0 else ndimage.grey_erosion
        images = (1 - abs(thick)) * images + abs(thick) * reach(images, size=(1, 3, 3))
        images = np.clip(images + noise * rng.standard_normal(images.shape), 0.0, 1.0)
        return images.reshape(x.shape).astype(np.float32)


def image_side(shape: tuple[int, ...]) -> int:
    """The height and width in pixels of a square grey image stored with this shape."""
    side = math.isqrt(math.prod(shape))
    if shape not in ((side * side,), (side, side), (1, side, side)):
        raise ValueError(f"examples of shape {shape} are not square grey images; "
                         "allowed are (side·side,), (side, side) and (1, side, side)")
    return side


def _round_to_sum(shares: np.ndarray, total: int) -> np.ndarray:
    """Whole numbers near shares·total that add up to total: the largest remainders are rounded up."""
    exact = shares * total
    whole = np.floor(exact).astype(np.int64)
    whole[np.argsort(whole - exact, kind="stable")[: total - int(whole.sum())]] += 1
    return whole


def _check_clients(clients: int, examples: int) -> None:
    if not is_whole(clients, 1) or clients > examples:
        raise ValueError(f"clients = {clients!r}; it must be a whole number from 1 to {examples}, the size of the pool")


def _check_positive(name: str, value: float) -> None:
    if not 0 < value <= 1e100:                                            # a sum of such numbers stays finite; NaN fails too
        raise ValueError(f"{name} = {value!r}; it must be a finite number > 0, and at most 1e100")
