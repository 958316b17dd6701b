"""Which examples each client sees in which step: the batch plan of a cohort, made with a few vectorised lines.

A shuffle is a sort by random numbers. The random number of (seed, version, client, epoch, example) is a hash of exactly
these words, so a client's batches depend on nobody else: not on the cohort, the order, the chunking or the engine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from ..core import ClientId, fingerprint

U64 = np.uint64


@dataclass(frozen=True)
class Plan:
    """The steps of n clients, S = the largest number of steps, B = batch width. Clients are sorted, most steps first.

    Step t concerns the first `active[t]` clients; a batch that is not full is padded with examples of weight 0.
    """

    order: np.ndarray           # (n,) positions of the clients in the list that was planned
    examples: np.ndarray        # (n, M) int64: the examples of each client, M the largest number; then its first again
    place: np.ndarray           # (S, n, B) int64: which of them
    rows: np.ndarray            # (S, n, B) int64: the same, as examples of the pool
    weight: np.ndarray          # (S, n, B) float64: 1 / (examples in the batch), or 0 where padded
    count: np.ndarray           # (S, n) int64: examples in the batch, 0 after a client's last step
    active: tuple[int, ...]     # (S,) how many clients have a step t
    steps: np.ndarray           # (n,) steps of each client
    first: np.ndarray           # (S, n) bool: the step belongs to the client's first epoch
    last: np.ndarray            # (S, n) bool: … to its last epoch

    def part(self, start: int, stop: int) -> Plan:
        """The plan of the sorted clients start … stop - 1 alone."""
        some = slice(start, stop)
        t = slice(0, int(self.steps[start]))
        return Plan(
            order=self.order[some], examples=self.examples[some], place=self.place[t, some], rows=self.rows[t, some],
            weight=self.weight[t, some], count=self.count[t, some],
            active=tuple(min(max(a - start, 0), stop - start) for a in self.active[t]), steps=self.steps[some],
            first=self.first[t, some], last=self.last[t, some],
        )  # fmt: skip


def splitmix(x: np.ndarray) -> np.ndarray:
    """64 bits in, 64 well-mixed bits out, one to one (Steele, Lea & Flood 2014, "Fast splittable … generators")."""
    with np.errstate(over="ignore"):
        x = x + U64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> U64(30))) * U64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> U64(27))) * U64(0x94D049BB133111EB)
        return x ^ (x >> U64(31))


def client_keys(ids: Sequence[ClientId]) -> np.ndarray:
    """(K,) uint64: a hash of each client's name."""
    return np.array([int.from_bytes(fingerprint("client", client)[:8], "little") for client in ids], dtype=U64)


def round_key(seed: int, version: int) -> np.uint64:
    """A hash of the seed and the model version that a client starts from."""
    return U64(int.from_bytes(fingerprint(seed, "batches", version)[:8], "little"))


def width(examples: int, batch_size: int | None) -> int:
    """Slots in a batch of a client: the batch size, or the next power of two if that is less and holds all its examples.

    It depends on this client alone, and fewer than half of the slots stay empty. Clients of equal width train together.
    """
    power = 1 << (max(examples, 1) - 1).bit_length()
    return power if batch_size is None else min(power, batch_size)


@lru_cache(maxsize=8)
def _hashes(start: int, stop: int) -> np.ndarray:
    """(stop - start,) uint64: a hash of each number; the same few ranges are asked for in every round."""
    return splitmix(np.arange(start, stop, dtype=U64))


def shuffles(keys: np.ndarray, sizes: np.ndarray, epochs: int) -> np.ndarray:
    """(n, epochs, max size): for each client and epoch a permutation of its examples 0 … size - 1, then the padding.

    splitmix is one to one, so the numbers of one epoch all differ: there are no ties for a sort to break its own way.
    """
    longest = int(sizes.max())
    with np.errstate(over="ignore"):
        epoch_keys = splitmix(keys[:, None] + _hashes(1, epochs + 1))                                    # (n, epochs)
        draws = splitmix(epoch_keys[:, :, None] + _hashes(0, longest))
    if (sizes != longest).any():
        draws[np.broadcast_to(np.arange(longest) >= sizes[:, None, None], draws.shape)] = U64(2**64 - 1)  # sorts last
    return np.argsort(draws, axis=-1)


def plan_batches(examples: Sequence[np.ndarray], keys: np.ndarray, epochs: np.ndarray, batch: int) -> Plan:
    """Plan the local epochs of n clients.

    examples: for each client the indices of its examples (at least one each); keys: (n,) uint64, one a client and
    version; epochs: (n,) passes over the data, at least one each; batch: slots in a batch, see `width`.
    """
    sizes, epoch, column, rest = layout(tuple(len(part) for part in examples), tuple(epochs.tolist()), batch)
    order = rest["order"]
    table = np.empty((len(sizes), int(sizes.max())), dtype=np.int64)
    for row, k in zip(table, order, strict=True):
        row[: len(examples[k])], row[len(examples[k]) :] = examples[k], examples[k][0]
    shuffled = shuffles(keys[order], sizes, int(epochs.max()))            # (n, epochs, longest): places in the table
    client = np.arange(len(sizes))[None, :, None]
    place = shuffled[client, epoch[..., None], column]
    return Plan(examples=table, place=place, rows=table[client, place], **rest)


@lru_cache(maxsize=8)                       # equal clients have the same in every round
def layout(
    examples: tuple[int, ...], epochs: tuple[int, ...], batch: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
    """What a plan of clients with so many examples and epochs knows without its shuffles. Nobody writes to it.

    Returns, clients in the plan's order: sizes (n,); epoch (S, n), which of its epochs a client is in; column (S, n, B),
    which place of that epoch's shuffle, 0 where padded; and the fields of Plan that follow from them.
    """
    sizes, passes = np.array(examples), np.array(epochs)
    per_epoch = -(-sizes // batch)
    steps = per_epoch * passes
    order = np.argsort(-steps, kind="stable")
    sizes, per_epoch, steps, passes = sizes[order], per_epoch[order], steps[order], passes[order]

    t = np.arange(int(steps[0]))[:, None]                                 # (S, 1)
    epoch, begin = t // per_epoch, (t % per_epoch) * batch                # (S, n): which epoch, where the batch begins
    count = np.where(t < steps, np.minimum(sizes - begin, batch), 0)      # (S, n)
    slot = np.arange(batch)
    valid = slot < count[..., None]                                       # (S, n, B)
    rest = {
        "order": order, "steps": steps, "count": count, "weight": valid / np.maximum(count, 1)[..., None],
        "active": tuple((t < steps).sum(axis=1).tolist()),
        "first": (epoch == 0) & (t < steps), "last": (epoch == passes - 1) & (t < steps),
    }  # fmt: skip
    return sizes, np.minimum(epoch, passes - 1), np.where(valid, begin[..., None] + slot, 0), rest
