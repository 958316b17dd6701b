"""Batch plans: every example once an epoch, exact weights, fair and independent shuffles."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from fl_course.engine.batches import Plan, client_keys, plan_batches, round_key, shuffles, splitmix, width

FIELDS = ("rows", "weight", "count", "steps", "first", "last")


def owned(sizes) -> list[np.ndarray]:
    """For each client row numbers of its own, not in order and with gaps."""
    ends = np.cumsum(sizes)
    return [(np.arange(end - size, end)[::-1] * 3 + 1) for size, end in zip(sizes, ends, strict=True)]


def keys_of(ids, seed=0, version=0) -> np.ndarray:
    return splitmix(client_keys(ids) ^ round_key(seed, version))


def made(sizes, batch, epochs, ids=None, seed=0, version=0) -> Plan:
    ids = range(len(sizes)) if ids is None else ids
    return plan_batches(owned(sizes), keys_of(ids, seed, version), np.array(epochs), batch)


cohorts = st.lists(st.tuples(st.integers(1, 40), st.integers(1, 3)), min_size=1, max_size=6)


@given(cohorts, st.integers(1, 17))
@settings(max_examples=60, deadline=None)
def test_every_example_of_an_epoch_is_seen_exactly_once(cohort, batch):
    sizes, epochs = zip(*cohort, strict=True)
    plan, examples = made(sizes, batch, epochs), owned(sizes)
    assert sorted(plan.order) == list(range(len(sizes)))
    assert list(plan.steps) == sorted(plan.steps, reverse=True)
    for k, client in enumerate(plan.order):
        per_epoch = -(-sizes[client] // batch)
        assert plan.steps[k] == per_epoch * epochs[client]
        assert [t for t, a in enumerate(plan.active) if k < a] == list(range(plan.steps[k]))
        assert not plan.count[plan.steps[k]:, k].any()
        assert np.array_equal(plan.count[:, k] > 0, np.arange(len(plan.active)) < plan.steps[k])
        seen = [plan.rows[t, k, : plan.count[t, k]] for t in range(plan.steps[k])]
        for epoch in range(epochs[client]):
            here = seen[epoch * per_epoch:(epoch + 1) * per_epoch]
            assert [len(part) for part in here[:-1]] == [batch] * (per_epoch - 1)      # only the last may be short
            assert sorted(np.concatenate(here)) == sorted(examples[client])
        assert np.array_equal(np.flatnonzero(plan.first[:, k]), np.arange(per_epoch))
        assert np.array_equal(np.flatnonzero(plan.last[:, k]), np.arange(plan.steps[k] - per_epoch, plan.steps[k]))


@given(cohorts, st.integers(1, 17))
@settings(max_examples=40, deadline=None)
def test_weights_are_exactly_one_over_the_count_and_zero_where_padded(cohort, batch):
    sizes, epochs = zip(*cohort, strict=True)
    plan = made(sizes, batch, epochs)
    for t, k in np.ndindex(plan.count.shape):
        count = int(plan.count[t, k])
        assert plan.weight[t, k].tolist() == [1 / max(count, 1)] * count + [0.0] * (batch - count)
        assert np.isin(plan.rows[t, k], owned(sizes)[plan.order[k]]).all()             # padding shows its own examples


@given(cohorts, st.integers(1, 9), st.data())
@settings(max_examples=40, deadline=None)
def test_a_part_of_a_plan_is_the_plan_of_a_part(cohort, batch, data):
    sizes, epochs = zip(*cohort, strict=True)
    plan = made(sizes, batch, epochs)
    start = data.draw(st.integers(0, len(sizes) - 1))
    stop = data.draw(st.integers(start + 1, len(sizes)))
    part, some = plan.part(start, stop), plan.order[start:stop]
    direct = plan_batches([owned(sizes)[k] for k in some], keys_of(some), np.array(epochs)[some], batch)
    for name in FIELDS:
        assert np.array_equal(getattr(part, name), getattr(direct, name)), name
    assert part.active == direct.active
    assert np.array_equal(part.order, some)


def test_a_clients_batches_do_not_depend_on_the_others():
    sizes, epochs = (23, 7, 40, 7), (2, 1, 3, 4)
    together = made(sizes, 5, epochs)
    for k, client in enumerate(together.order):
        alone = plan_batches([owned(sizes)[client]], keys_of([client]), np.array([epochs[client]]), 5)
        real = slice(0, alone.steps[0])
        for name in ("rows", "weight", "count", "first", "last"):
            assert np.array_equal(getattr(together, name)[real, k], getattr(alone, name)[:, 0]), name


def test_shuffles_are_uniform_over_positions_and_pairs():
    size, many = 7, 6000
    orders = shuffles(keys_of(range(many)), np.full(many, size), 2)
    for epoch in (0, 1):
        for place in range(size):
            counts = np.bincount(orders[:, epoch, place], minlength=size)
            assert chisquare(counts).pvalue > 1e-4
    pairs = np.bincount(orders[:, 0, 0] * size + orders[:, 1, 0], minlength=size**2)    # epochs are independent
    assert chisquare(pairs).pvalue > 1e-4
    whole = np.unique(shuffles(keys_of(range(many)), np.full(many, 4), 1)[:, 0], axis=0, return_counts=True)[1]
    assert len(whole) == 24                                                             # all 4! orders, equally often
    assert chisquare(whole).pvalue > 1e-4


def test_shuffles_of_successive_versions_of_one_client_are_uniform_too():
    keys = np.array([keys_of([3], version=version)[0] for version in range(3000)])
    firsts = shuffles(keys, np.full(len(keys), 5), 1)[:, 0, 0]
    assert chisquare(np.bincount(firsts, minlength=5)).pvalue > 1e-4


def test_shuffles_differ_between_epochs_versions_clients_and_seeds():
    def order(client=0, seed=0, version=0, epoch=0):
        return tuple(shuffles(keys_of([client], seed, version), np.array([30]), 4)[0, epoch])

    seen = [order(client, seed, version, epoch) for client in (0, 1, "0", "1") for seed in (0, 1)
            for version in (0, 1) for epoch in range(4)]
    assert len(set(seen)) == len(seen)
    assert order(client=np.int64(1)) == order(client=1)
    # The traps of sums and of zero padding: (seed 1, version 0) is not (seed 0, version 1).
    assert order(seed=1, version=0) != order(seed=0, version=1)


def test_ragged_shuffles_are_those_of_each_size_alone():
    sizes = np.array([3, 11, 1])
    orders = shuffles(keys_of("abc"), sizes, 2)
    for k, size in enumerate(sizes):
        assert np.array_equal(orders[k, :, :size], shuffles(keys_of("abc")[k:k + 1], sizes[k:k + 1], 2)[0])
        assert sorted(orders[k, 0]) == list(range(11))                                  # then the padding, once each


def test_a_plan_shuffles_anew_for_every_epoch_and_version():
    epochs = made([30], 7, [3]).rows.reshape(3, 5, 7)
    orders = [tuple(epoch.ravel()[:30]) for epoch in (*epochs, *made([30], 7, [3], version=1).rows.reshape(3, 5, 7))]
    assert len(set(orders)) == 6


def test_splitmix_against_the_published_algorithm():
    # SplitMix64 seeded with 1234567: first outputs of the reference implementation (Vigna, splitmix64.c).
    state, expected = 1234567, [6457827717110365317, 3203168211198807973, 9817491932198370423]
    gamma = 0x9E3779B97F4A7C15
    inputs = np.array([(state + i * gamma) % 2**64 for i in range(3)], dtype=np.uint64)
    assert splitmix(inputs).tolist() == expected


@pytest.mark.parametrize(("examples", "batch_size", "slots"), [
    (40, 10, 10), (10, 10, 10), (9, 10, 10), (8, 10, 8), (5, 10, 8), (3, 10, 4), (1, 10, 1), (1, None, 1), (5, None, 8),
    (64, None, 64), (65, None, 128), (3, 2, 2), (1, 1, 1),
])  # fmt: skip
def test_width(examples, batch_size, slots):
    assert width(examples, batch_size) == slots


@given(st.integers(1, 5000), st.one_of(st.none(), st.integers(1, 700)))
def test_a_width_holds_one_batch_and_wastes_less_than_half(examples, batch_size):
    slots, batch = width(examples, batch_size), min(examples, batch_size or examples)
    assert batch <= slots < 2 * batch
    assert -(-examples // slots) == -(-examples // batch)                               # as many steps as B says


def test_the_rows_of_a_federation_are_not_written_to():
    examples = owned([9, 4])
    before = [part.copy() for part in examples]
    plan_batches(examples, keys_of([0, 1]), np.array([2, 2]), 3)
    assert all(np.array_equal(now, then) for now, then in zip(examples, before, strict=True))
