"""The weighted mean, its discount, and that it does not depend on the order of the clients."""

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small import Lie, Timed, experiment, federation, final

from fl_course import ByExamples, Discount, LocalSGD, LogNormal, Synchronous, Uniform, WeightedMean
from fl_course.core import CompositionError, Context, Server, Update, stream
from fl_course.federation.aggregation import add_up, mean_of_extras
from fl_course.federation.interfaces import Stage


def update(client, delta, weight=1.0, **extras):
    return Update(client, 0, np.asarray(delta, np.float32), weight, extras, {"examples": weight})


def test_the_mean_is_the_weighted_mean_in_exact_arithmetic():
    rng = stream(0, "test")
    deltas, counts = rng.standard_normal((5, 7)).astype(np.float32), [3, 1, 40, 7, 0]
    ctx = Context(0, Server(np.zeros(7, np.float32)))
    weighed = [
        ByExamples().client(Update(k, 0, delta, 1.0, {}, {"examples": float(count)}), ctx)
        for k, (delta, count) in enumerate(zip(deltas, counts, strict=True))
    ]
    mean = WeightedMean().combine(weighed, [0] * 5).mean
    for j in range(7):
        exact = sum(Fraction(float(delta[j])) * count for delta, count in zip(deltas, counts, strict=True)) / sum(counts)
        assert mean[j] == pytest.approx(float(exact), abs=3e-7)
    assert mean.dtype == np.float32


def test_the_cap_bounds_a_clients_weight():
    ctx = Context(0, Server(np.zeros(1, np.float32)))
    capped = [ByExamples(cap=10).client(update(0, [1.0], n), ctx) for n in (4.0, 10.0, 1000.0)]
    assert [u.weight for u in capped] == [4.0, 10.0, 10.0]
    assert [float(u.delta[0]) for u in capped] == [4.0, 10.0, 10.0]


def test_uniform_weights_ignore_the_examples():
    sizes = (2, 30, 4)
    it = experiment(federation(sizes), weights=Uniform(), schedule=Synchronous(1.0))
    assert it.train(1).state.server.params.tobytes() != final(experiment(federation(sizes), schedule=Synchronous(1.0)), 1)


@settings(max_examples=15)
@given(st.permutations(range(6)))
def test_the_sum_is_the_same_to_the_bit_in_whatever_order_clients_are_listed(order):
    it = {"schedule": Synchronous(1.0), "training": LocalSGD(epochs=1, batch_size=4)}
    sizes = (8, 3, 12, 8, 1, 5)
    assert final(experiment(federation(sizes, order=order), **it), 2) == final(experiment(federation(sizes), **it), 2)


@pytest.mark.parametrize("size", [1.0, 1e25])
def test_nor_does_it_depend_on_who_answers_first(size):
    """Two enormous updates that cancel: in the sum, what comes between them is lost, so the order of the sum shows."""
    lies = [Lie(k, lambda u, sign=sign: replace(u, delta=u.delta * 0 + np.float32(sign * size))) for k, sign in ((1, 1), (3, -1))]
    it = {"schedule": Synchronous(1.0), "stages": lies}
    usual = final(experiment(**it))
    assert final(experiment(fleet=LogNormal(speed_spread=2.0), **it)) == usual
    assert final(experiment(fleet=Timed({k: 6.0 - k for k in range(6)}), **it)) == usual


def test_many_small_numbers_are_not_lost():
    updates = [np.full(1, 1.0, np.float32), *[np.full(1, 1e-8, np.float32)] * 1000]
    assert add_up(updates)[0] == pytest.approx(1 + 1e-5, abs=1e-12)          # in float32 the sum would stay 1
    assert updates[0][0] == 1


@pytest.mark.parametrize(
    ("discount", "values"),
    [
        (Discount("polynomial", a=0.5), [1, 2**-0.5, 3**-0.5, 0.5]),
        (Discount("polynomial", a=0.0), [1, 1, 1, 1]),
        (Discount("exponential", a=0.5), [1, 0.5, 0.25, 0.125]),
        (Discount("exponential", a=1.0), [1, 1, 1, 1]),
        (Discount("hinge", a=10.0, b=2), [1, 1, 1, 1 / 11]),
        (Discount("hinge", a=1.0, b=0), [1, 1 / 2, 1 / 3, 1 / 4]),
    ],
)
def test_discounts(discount, values):
    """Xie et al. (2019), section 5.2: s(0) = 1, and never rising."""
    assert [discount(age) for age in range(4)] == pytest.approx(values)


def test_a_discount_shortens_the_step_and_leaves_the_weight():
    updates = [update("a", [2.0, 0.0]), update("b", [0.0, 4.0])]
    aggregate = WeightedMean(Discount("exponential", 0.5)).combine(updates, [0, 2])
    assert aggregate.weight == 2
    np.testing.assert_allclose(aggregate.mean, [1.0, 0.5])
    plain = WeightedMean().combine(updates, [0, 2])
    np.testing.assert_array_equal(WeightedMean(Discount()).combine(updates, [0, 0]).total, plain.total)


def test_extras_are_plain_means():
    both = [update("a", [0], 9.0, c=np.array([1, 2], np.float32)), update("b", [0], 1.0, c=np.array([3, 6], np.float32))]
    np.testing.assert_array_equal(mean_of_extras(both)["c"], [2, 4])


def test_payloads_need_nothing_but_a_plus():
    class Pile:
        def __init__(self, *things):
            self.things = things

        def __add__(self, other):
            return Pile(*self.things, *other.things)

    assert add_up([Pile("a"), Pile("b"), Pile("c")]).things == ("a", "b", "c")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: add_up([]), "no update arrived"),
        (lambda: add_up([np.zeros(3), np.zeros(1)]), r"shape \(1,\) and \(3,\)"),
        (lambda: add_up([np.zeros(1), np.zeros(3)]), "shape"),
        (lambda: mean_of_extras([update("a", [0], c=np.zeros(1)), update("b", [0])]), "client 'b' sent extras"),
        (lambda: mean_of_extras([update("a", [0], c=np.zeros(2)), update("b", [0], c=np.zeros(1))]), "shape"),
        (lambda: Discount("linear"), "polynomial, exponential or hinge"),
        (lambda: Discount(a=-1), "a must be"),
        (lambda: Discount(a=math.nan), "a must be"),
        (lambda: Discount("exponential", a=1.5), "a must be"),
        (lambda: Discount("exponential", a=0), "a must be"),
        (lambda: Discount("hinge", a=1, b=-1), "b must be"),
        (lambda: Discount()(-1), "future: staleness -1"),
        (lambda: Discount()(0.5), "whole number of server steps"),
        (lambda: Discount()(math.nan), "whole number of server steps"),
        (lambda: Discount()(True), "whole number of server steps"),
        (lambda: Discount(a="0.5"), "a must be a number"),
        (lambda: Discount(a=True), "a must be a number"),
        (lambda: WeightedMean(0.5), "discount must be a Discount"),
        (lambda: ByExamples(cap=0), "cap must be"),
        (lambda: ByExamples(cap=math.nan), "cap must be"),
    ],
)
def test_refusals(make, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make()


def test_a_discount_on_masked_updates_is_refused():
    class Masked(Stage):
        masks = True

    experiment(stages=[Masked()])
    with pytest.raises(CompositionError, match="only readable as a sum"):
        experiment(stages=[Masked()], aggregation=WeightedMean(Discount()))
