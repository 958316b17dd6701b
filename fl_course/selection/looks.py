"""What a client works out about itself when a selector asks: losses, a measure, counts of labels."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..core import ClientId, CompositionError
from ..federation.interfaces import Experiment, Look, Reports

MOST_CLASSES = 100_000


def losses(look: Look, rows: np.ndarray | None = None) -> np.ndarray:
    """(n,) float64: the loss of each of its examples, or of these rows, under the model that it was sent."""
    x, y = (look.x, look.y) if rows is None else (look.x[rows], look.y[rows])
    return look.model.loss.judge(look.model.predict(look.server.params, x).astype(np.float64), y)[1]


def standing(look: Look) -> float:
    """How good the model that it was sent is on its examples: the accuracy, or another measure with the better on top."""
    loss = look.model.loss
    each = loss.judge(look.model.predict(look.server.params, look.x).astype(np.float64), look.y)[0]
    return float(loss.measured(np.mean(each))) * (1 if loss.rising else -1)


def label_counts(look: Look) -> np.ndarray:
    """(classes,) int64: how many of its examples each class has, as far as the largest that it holds."""
    return np.bincount(look.y)


def label_table(clients: Sequence[ClientId], reports: Reports) -> np.ndarray:
    """(n, classes) float64: the counts that these clients have answered, of which one may know fewer classes than another.

    ValueError, with the client's name, for an answer that is no list of counts.
    """
    answers = [reports[client]["probe_labels"] for client in clients]
    wrong = [not isinstance(row, np.ndarray) or row.ndim != 1 or not 0 < len(row) <= MOST_CLASSES for row in answers]
    if not any(wrong) and answers:
        lengths, flat = np.array([len(row) for row in answers]), np.concatenate(answers)
        table = np.zeros((len(answers), lengths.max()))
        if flat.dtype.kind in "iuf":
            table[np.arange(lengths.max()) < lengths[:, None]] = flat                     # row after row
            wrong = [not low >= 0 or high == np.inf for low, high in zip(table.min(1), table.max(1), strict=True)]     # NaN too
        else:
            wrong = [row.dtype.kind not in "iuf" for row in answers]
        if not any(wrong):
            return table
    if any(wrong):
        client, row = clients[wrong.index(True)], " ".join(repr(answers[wrong.index(True)]).split())[:200]
        raise ValueError(f"client {client!r} says {row} of its labels; they must be counts, one a class")
    return np.zeros((0, 0))


def label_shares(counts: np.ndarray) -> np.ndarray:
    """(n, classes): each row of counts divided by its sum; a row of zeros stays."""
    counts = np.asarray(counts, dtype=np.float64)
    return counts / np.maximum(counts.sum(1, keepdims=True), 1e-300)


def entropies(counts: np.ndarray) -> np.ndarray:
    """(n,) in [0, 1]: the entropy of each row of counts (n, classes), as a share of the largest possible, ln(classes)."""
    if counts.shape[1] < 2:
        return np.zeros(len(counts))
    shares = label_shares(counts)
    logs = np.log(shares, out=np.zeros_like(shares), where=shares > 0)
    return np.clip(-(shares * logs).sum(1) / math.log(counts.shape[1]), 0.0, 1.0)


def needs_classes(name: str, experiment: Experiment) -> None:
    if not experiment.data.classes:
        raise CompositionError(f"{name} compares how clients' labels are distributed, and these data hold numbers to hit, no "
                               "classes; use a selector that reads losses or updates, such as PowerOfChoice() or DivFL().")
