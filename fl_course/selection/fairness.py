"""How evenly a selector chose: counts from a run's records, and their Gini coefficient."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from ..core import ClientId
from ..federation.history import History


def participation(history: History, clients: Iterable[ClientId]) -> dict[ClientId, int]:
    """How many of each client's answers were used; 0 for those of whom none was."""
    return _counted(clients, (client for record in history.records for client in record.clients))


def asked(history: History, clients: Iterable[ClientId]) -> dict[ClientId, int]:
    """How often each client was asked to train, as far as its jobs have ended: what the selector chose."""
    return _counted(clients, (span.client for record in history.records for span in record.spans))


def _counted(clients: Iterable[ClientId], named: Iterable[ClientId]) -> dict[ClientId, int]:
    counts = dict.fromkeys(clients, 0)
    for client in named:
        if client not in counts:
            raise ValueError(f"client {client!r} is in the history and not among the {len(counts)} clients that are counted")
        counts[client] += 1
    return counts


def gini(counts: Mapping[ClientId, float] | Iterable[float]) -> float:
    """0 if all are equal, (n - 1)/n if one has everything: half the mean difference of two, as a share of the mean.

    ValueError for an empty list, or a number that is negative or not finite. All zero is equal: 0.
    """
    values = np.sort(np.array(list(counts.values() if isinstance(counts, Mapping) else counts), dtype=np.float64))
    if not len(values) or not (np.isfinite(values).all() and values[0] >= 0):
        raise ValueError(f"gini needs at least one number, and all finite and from 0; these are {values[:5]}")
    n, total = len(values), values.sum()
    return float((2 * np.arange(1, n + 1) - n - 1) @ values / (n * total)) if total > 0 else 0.0
