"""How a division is dealt: nobody's share or test depends on the order in which labels or examples lie in the pool."""

from __future__ import annotations

import numpy as np

from fl_course import IID, Shards, from_clients
from fl_course.core import stream
from fl_course.data.federated import Dataset

CLIENTS = 60


def first_labels(per_client: int, seed: int) -> np.ndarray:
    """(K,) the smallest label that each client holds, of ten equally frequent ones."""
    labels = np.arange(1200) % 10
    parts = Shards(per_client).split(labels, CLIENTS, stream(seed, "deal"))
    return np.array([labels[part].min() for part in parts])


def test_shards_are_dealt_at_random_not_in_the_order_of_their_labels():
    for per_client in (1, 2, 4):
        deals = [first_labels(per_client, seed) for seed in range(4)]
        for deal in deals:
            neighbours = np.diff(deal)
            assert (neighbours < 0).mean() > 0.15                        # dealt in order, no client begins below the one before
            assert abs(np.corrcoef(np.arange(CLIENTS), deal)[0, 1]) < 0.5
        assert len({deal.tobytes() for deal in deals}) == 4


def test_a_hand_of_shards_holds_labels_that_are_not_neighbours():
    labels = np.arange(1200) % 10
    parts = Shards(2).split(labels, CLIENTS, stream(0, "deal"))
    spans = [np.ptp(np.unique(labels[part])) for part in parts]
    assert np.mean([span > 1 for span in spans]) > 0.5


def test_the_test_part_of_a_client_is_drawn_at_random_from_its_examples():
    """Examples that lie sorted (by day, by label) are not split into an early and a late part."""
    n = 200
    x, y = np.arange(n, dtype=np.float32)[:, None], (np.arange(n) >= n // 2).astype(np.int64)
    fed = from_clients("sorted", {f"client {k}": (x, y) for k in range(20)}, 2, x, y, test_fraction=0.2)
    pool = Dataset("sorted", x, y, 2, x[:2], y[:2]).partition(IID(), 4, test_fraction=0.2)
    for data in (fed, pool):
        tests = [data.x[rows, 0] for rows in data.test]
        assert len({test.tobytes() for test in tests}) == len(tests)     # each client by its own stream
        for rows, test in zip(data.test, tests, strict=True):
            assert 0 < data.y[rows].mean() < 1                           # both halves of the pool are in it
            assert test.min() < n / 3
            assert test.max() > 2 * n / 3
        means = np.array([test.mean() for test in tests])
        assert abs(means.mean() - (n - 1) / 2) < 20                      # neither the first nor the last, on average
