"""Federations in which one model for all is not the best that there is: divided data in, divided data out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from ..core import is_whole, stream
from .federated import FederatedData
from .ids import client_ids
from .partition import image_side
from .recalled import recalled


@recalled
def few_examples(data: FederatedData, train: int = 30, seed: int = 0) -> FederatedData:
    """Each client keeps so many training examples, drawn at random; all its others become test examples.

    So learning alone is hard, and measuring is not: with n test examples chance moves an accuracy by √(p(1 - p)/n).
    """
    _check_divided(data)
    if not is_whole(train, 1):
        raise ValueError(f"train must be a whole number of examples from 1, not {train!r}")
    kept, held = [], []
    for client, mine, test in zip(data.ids, data.train, data.test, strict=True):
        shuffled = stream(seed, "few", client).permutation(mine)
        kept.append(np.sort(shuffled[:train]))
        held.append(np.sort(np.concatenate([shuffled[train:], test])))
    return replace(data, train=tuple(kept), test=tuple(held), made=f"{data.made}; {train} to train on, the rest to test")


@recalled
def rotated(data: FederatedData, groups: int = 4) -> FederatedData:
    """The images of client number i, training and test, turned by (i mod groups)·360/groups degrees (IFCA's rotated digits).

    Quarter turns are exact; other angles are interpolated. The global held-out set stays upright: it is nobody's.
    """
    _check_divided(data)
    if not is_whole(groups, 1):
        raise ValueError(f"groups must be a whole number from 1, not {groups!r}")
    side, x = image_side(data.shape), data.x.copy()
    for i, rows in enumerate(np.concatenate(pair) for pair in zip(data.train, data.test, strict=True)):
        images = x[rows].reshape(-1, side, side)
        x[rows] = _turned(images, 360 * (i % groups) / groups).reshape(x[rows].shape)
    return replace(data, x=x, made=f"{data.made}; turned in {groups} groups")


def _turned(images: np.ndarray, degrees: float) -> np.ndarray:
    if degrees % 90 == 0:
        return np.rot90(images, round(degrees / 90), axes=(1, 2))
    from scipy import ndimage  # here, because it is slow to import

    return np.clip(ndimage.rotate(images, degrees, axes=(2, 1), reshape=False, order=1), 0.0, 1.0)


@recalled
def set_apart(data: FederatedData, clients: int | Iterable[object]) -> tuple[FederatedData, FederatedData]:
    """The federation without these clients (a number: so many of the last), and those clients alone: they never take part."""
    _check_divided(data)
    if is_whole(clients, 1):
        apart = set(range(len(data))[-clients:])
    elif isinstance(clients, Iterable) and not isinstance(clients, str | bytes):
        apart = {data.position(client) for client in client_ids(clients)}
    else:
        raise ValueError(f"clients = {clients!r}; it must be a whole number from 1, or the ids of those who are set apart")
    if not 0 < len(apart) < len(data):
        raise ValueError(f"{len(apart)} of {len(data)} clients cannot be set apart: somebody must, and somebody must stay")
    both = []
    for chosen in (sorted(set(range(len(data))) - apart), sorted(apart)):
        ids, train, test = tuple(data.ids[k] for k in chosen), [data.train[k] for k in chosen], [data.test[k] for k in chosen]
        both.append(replace(data, ids=ids, train=tuple(train), test=tuple(test)))
    return both[0], both[1]


def _check_divided(data: object) -> None:
    if not isinstance(data, FederatedData):
        raise TypeError(f"data must be divided among clients, as mnist().partition(IID(), 20) is, not {data!r}"[:200])
