"""Divided data in which clients differ: few examples, turned images, clients set apart."""

import numpy as np
import pytest

from fl_course import IID, digits, few_examples, from_clients, rotated, set_apart, stream
from fl_course.core import whole

DATA = digits().partition(IID(), 8, seed=1)


def rows_of(data, k):
    return sorted([*data.train[k].tolist(), *data.test[k].tolist()])


def test_few_examples_keep_some_and_test_on_all_others():
    few = few_examples(DATA, 20)
    for k in range(8):
        assert len(few.train[k]) == 20
        assert set(few.train[k]) <= set(DATA.train[k])
        assert set(DATA.test[k]) <= set(few.test[k])
        assert rows_of(few, k) == rows_of(DATA, k)
    assert few.x is DATA.x or np.array_equal(few.x, DATA.x)
    again, other = few_examples(DATA, 20), few_examples(DATA, 20, seed=1)
    assert all(np.array_equal(a, b) for a, b in zip(few.train, again.train, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(few.train, other.train, strict=True))
    more = few_examples(DATA, 10_000)
    assert all(np.array_equal(a, b) for a, b in zip(more.train, DATA.train, strict=True))


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_images_are_turned_by_their_clients_group_and_no_other_changes(groups):
    turned = rotated(DATA, groups)
    for k in range(8):
        for rows in (DATA.train[k], DATA.test[k]):
            images = DATA.x[rows].reshape(-1, 8, 8)
            for _ in range(k % groups * 4 // groups):
                images = np.stack([np.array(list(zip(*image, strict=True))[::-1]) for image in images])       # a quarter turn
            np.testing.assert_array_equal(turned.x[rows].reshape(-1, 8, 8), images)
    assert np.array_equal(turned.y, DATA.y)
    assert np.array_equal(turned.x_test, DATA.x_test)
    assert DATA.x.tobytes() == digits().partition(IID(), 8, seed=1).x.tobytes()


def test_other_angles_are_interpolated_the_same_way_round():
    turned = rotated(DATA, 8)
    once = turned.x[DATA.train[1]].reshape(-1, 8, 8)
    assert once.min() >= 0
    assert once.max() <= 1
    from scipy import ndimage

    back = ndimage.rotate(once, -45, axes=(2, 1), reshape=False, order=1)[:, 2:6, 2:6]
    wrong = ndimage.rotate(once, 45, axes=(2, 1), reshape=False, order=1)[:, 2:6, 2:6]
    true = DATA.x[DATA.train[1]].reshape(-1, 8, 8)[:, 2:6, 2:6]
    assert np.abs(back - true).mean() < 0.6 * np.abs(wrong - true).mean()
    ninety = turned.x[DATA.train[2]].reshape(-1, 8, 8)
    np.testing.assert_array_equal(ninety, np.rot90(DATA.x[DATA.train[2]].reshape(-1, 8, 8), 1, (1, 2)))


@pytest.mark.parametrize("clients", [1, 3, [0, 5], ("7",), np.int64(2), np.array([1, 2])])
def test_clients_are_set_apart_with_all_that_they_hold(clients):
    named = from_clients("x", {str(k): (DATA.x[r], DATA.y[r]) for k, r in enumerate(DATA.train)}, 10)
    data = named if isinstance(clients, tuple) else DATA
    stay, apart = set_apart(data, clients)
    assert sorted(map(str, [*stay.ids, *apart.ids])) == sorted(map(str, data.ids))
    count = whole(clients, "n") if np.ndim(clients) == 0 else len(clients)
    assert len(apart) == count
    for part in (stay, apart):
        for k, client in enumerate(part.ids):
            assert rows_of(part, k) == rows_of(data, data.position(client))
    assert stay.x_test is data.x_test or np.array_equal(stay.x_test, data.x_test)


@pytest.mark.parametrize("clients", [0, -1, 8, 9, [], list(range(8)), 1.5, True, "3", None, [99], [0, 0, 99]])
def test_nobody_everybody_and_strangers_cannot_be_set_apart(clients):
    with pytest.raises((ValueError, TypeError)):
        set_apart(DATA, clients)


@pytest.mark.parametrize("ask", [
    lambda: few_examples(DATA, 0), lambda: few_examples(DATA, 1.5), lambda: few_examples(DATA, True), lambda: rotated(DATA, 0),
    lambda: rotated(DATA, 1.0), lambda: rotated(from_clients("x", {0: (stream(0, "x").standard_normal((9, 3)), [0] * 9)}, 2), 2),
])  # fmt: skip
def test_what_is_out_of_range_is_refused(ask):
    with pytest.raises(ValueError, match=r"must|square"):
        ask()


@pytest.mark.parametrize("ask", [few_examples, rotated, lambda data: set_apart(data, 2)])
@pytest.mark.parametrize("data", [digits(), None, "mnist", DATA.x])
def test_data_that_nobody_owns_yet_are_refused(ask, data):
    with pytest.raises(TypeError, match="partition"):
        ask(data)
