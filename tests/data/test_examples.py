"""From what people have to what a model can use: nothing changes its meaning silently, and every refusal says what to do."""

import itertools
import re
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from fl_course import (
    IID,
    Coordinator,
    Dataset,
    Evaluation,
    FederatedData,
    LocalSGD,
    Synchronous,
    from_clients,
    logistic,
)
from fl_course.core import stream
from fl_course.data.examples import count_classes, examples, targets

X, Y = np.arange(12, dtype=float).reshape(6, 2) / 10, np.array([0, 1, 0, 1, 1, 0])


def owned(x, y=Y, classes=2, **more) -> FederatedData:
    """Client "ward 7" holds what is tried, client "b" something harmless."""
    width = np.shape(X)[1:]
    return from_clients("tried", {"b": (X, Y), "ward 7": (x, y)}, classes, np.zeros((1, *width)), [0], **more)


# --- the same numbers, or a refusal ----------------------------------------------------------------------------------------

kinds = st.sampled_from(["int64", "uint64", "int32", "float64", "object", "list", "table"])
wholes = st.integers(-(2**63), 2**63 - 1) | st.integers(-(2**26), 2**26) | st.builds(lambda k, s: s * 2**k, st.integers(0, 62),
                                                                                       st.sampled_from([1, -1, 3]))  # fmt: skip


@given(kinds, st.lists(wholes, min_size=2, max_size=6))
@settings(max_examples=300, deadline=None)
def test_a_whole_number_is_kept_or_refused_but_never_changed(kind, numbers):
    if kind == "uint64":
        numbers = [abs(n) for n in numbers]
    numbers = [n for n in numbers if kind != "int32" or abs(n) < 2**31] or [0]
    table = np.array(numbers, dtype=object)[:, None]
    given_ = {"object": lambda: table, "list": lambda: [[n] for n in numbers], "table": lambda: pd.DataFrame({"n": numbers})}
    value = given_[kind]() if kind in given_ else table.astype(kind)
    meant = [int(n) for n in np.asarray(value).ravel()]                 # float64 itself may have rounded: that was not us
    fits = [n for n in meant if (abs(n) >= 2**53 and kind == "float64") or int(np.float32(n)) == n]
    if len(fits) < len(meant):
        with pytest.raises(ValueError, match=r"which float32 turns into -?\d+; whole numbers beyond 2\^24"):
            examples(value, "x")
        return
    got = examples(value, "x")
    assert got.dtype == np.float32
    if kind != "float64":
        assert [int(v) for v in got.ravel()] == meant


@given(st.lists(st.floats(width=64), min_size=1, max_size=5), st.sampled_from([np.float64, np.longdouble]))
@settings(max_examples=200, deadline=None)
def test_a_real_number_is_rounded_and_what_float32_cannot_hold_is_said_truly(numbers, kind):
    try:
        got = examples(np.array(numbers, kind)[:, None], "x")
    except ValueError as error:
        says = str(error)
        assert ("NaN or Inf" in says) <= (not np.isfinite(numbers).all())      # a finite number is never called infinite
        if "ends at 3.4e38" in says:
            assert any(np.isfinite(v) and abs(v) > 3.4e38 for v in numbers)
        return
    for exact, close in zip(numbers, got.ravel(), strict=True):
        assert abs(Fraction(exact) - Fraction(float(close))) <= abs(Fraction(exact)) * Fraction(1, 2**24) + Fraction(1, 2**150)


@pytest.mark.parametrize("make", [
    list, tuple, np.array, torch.tensor, lambda x: torch.tensor(x, requires_grad=True), pd.DataFrame, lambda x: x.astype(object),
    lambda x: list(torch.tensor(x)), lambda x: [list(row) for row in x], lambda x: np.ma.masked_array(x, mask=False),
    lambda x: pd.DataFrame(x).astype("Float64"), lambda x: torch.tensor(x, dtype=torch.bfloat16) * 0 + torch.tensor(x).float(),
])  # fmt: skip
def test_whatever_holds_numbers_is_taken(make):
    data = Dataset("tried", make(X), Y, 2)
    assert np.array_equal(data.x, X.astype(np.float32))
    assert np.array_equal(owned(make(X)).x[6:], X.astype(np.float32))


@pytest.mark.parametrize("make", [list, torch.tensor, pd.Series, lambda y: y.astype(bool), lambda y: y.astype(np.uint8),
                                  lambda y: y.astype(float), lambda y: pd.Series(y).astype("Int64"),
                                  lambda y: list(torch.tensor(y))])  # fmt: skip
def test_whatever_holds_labels_is_taken(make):
    data = Dataset("tried", X, make(Y), 2)
    assert data.y.dtype == np.int64
    assert np.array_equal(data.y, Y)


def test_a_fraction_beyond_2_24_is_rounded_like_any_other():
    large = np.array([[20_000_000.25], [1e20], [-3.7e9 - 0.5]])
    assert np.array_equal(examples(large, "x"), large.astype(np.float32))


def test_an_array_of_objects_may_hold_any_kind_of_number():
    mixed = np.array([[np.bool_(True), 2], [np.float32(0.5), Fraction(1, 4)]], dtype=object)
    assert examples(mixed, "x").tolist() == [[1.0, 2.0], [0.5, 0.25]]


# --- what is refused, and what to do -----------------------------------------------------------------------------------------

TABLE = pd.DataFrame({"age": [1.0, 2, 3, 4, 5, 6], "city": list("abcdef")})
PAIRS = torch.utils.data.TensorDataset(torch.tensor(X), torch.tensor(Y))
MASKED = np.ma.masked_array(X, mask=np.eye(6, 2, dtype=bool))


@pytest.mark.parametrize(("x", "says"), [
    (TABLE, "example 0 in x of client 'ward 7' holds 'a' in column 'city', which is no number; encode text"),
    (TABLE.to_numpy(), "holds 'a' in column 1, which is no number"),
    (np.array([["1", "2"]] * 6), "holds '1' in column 0, which is no number"),
    (TABLE.replace("c", np.nan).drop(columns="city").assign(n=[1, None, 3, None, 5, 6]),
     "example 1 in x of client 'ward 7' holds NaN or Inf in column 'n'"),
    (pd.DataFrame({"a": pd.array([1, None, 3, 4, 5, 6], dtype="Int64"), "b": range(6)}), "holds <NA> in column 'a'"),
    (X * 1e39 + 1e39, "example 0 in x of client 'ward 7' holds 1e+39 in column 0, and float32 ends at 3.4e38; scale it"),
    (np.where(X > 1, np.inf, X), "example 5 in x of client 'ward 7' holds NaN or Inf; every number must be finite"),
    (X.astype(np.int64) + 2**24 + 1, "of client 'ward 7' holds 16777217 in column 0, which float32 turns into 16777216"),
    (X * 0 + 1700000001.0, "give times from a day of yours"),
    (X.astype("M8[s]"), "x holds datetime64[s]; it must hold real numbers; for times: seconds"),
    (X + 1j, "x holds complex128"),
    (MASKED, "x has masked entries"),
    (sparse.csr_matrix(X), "hand over x.toarray()"),
    ([np.zeros((2, 2)), np.zeros((3, 2))] * 3, "different shapes, such as (2, 2) and (3, 2); bring them to one: resize"),
    ([torch.zeros(2), torch.zeros(3)] * 3, "different shapes, such as (2,) and (3,)"),
    (np.array([np.zeros((2, 2)), np.zeros((3, 2))] * 3, dtype=object), "holds arrays, of shape (2, 2) and (3, 2); bring them"),
    (pd.Series([np.zeros(2)] * 6), "holds arrays, of shape (2,); hand over np.stack(x)"),
    (X[:, 0], "x has shape (6,); examples come as (N, features), so one feature is x[:, None]"),
    (PAIRS, "x is a TensorDataset, which is no array; stack it: pairs = list(dataset)"),
    ({"a": X}, "x is of the kind dict"), ("text", "x is of the kind str"), (None, "x is None"), (3.0, "x is of the kind float"),
    ((row for row in X), "x is of the kind generator"),
])  # fmt: skip
def test_examples_that_would_lose_their_meaning_are_refused_by_client_and_column(x, says):
    with pytest.raises((ValueError, TypeError), match=re.escape(says)):
        owned(x)


@pytest.mark.parametrize(("y", "says"), [
    (list("abcabc"), "example 0 in y of client 'ward 7' holds 'a', which is no number; number the classes: names, y ="),
    (pd.Series(list("abcabc")), "number the classes: names, y = np.unique(y, return_inverse=True)"),
    (Y[:, None], "y has shape (6, 1); labels are (N,), one whole number an example: np.ravel(y)"),
    (np.eye(2)[Y], "np.argmax(y, axis=1) if these are one-hot rows"),
    (Y + 0.5, "label 0.5 of example 0 in y of client 'ward 7'; labels are whole numbers from 0 to 1; for numbers to hit"),
    (np.where(Y, np.nan, 0), "label nan of example 1 in y of client 'ward 7'"),
    (Y + 1, "label 2 of example 1 in y of client 'ward 7'; labels are whole numbers from 0 to 1"),
    (-Y, "label -1 of example 1"), (Y.astype(np.uint64) * np.uint64(2**63), "of example 1 in y of client 'ward 7'"),
    ([0, 1, None, 0, 1, 0], "example 2 in y of client 'ward 7' holds None"),
])  # fmt: skip
def test_labels_that_are_none_are_refused_by_client(y, says):
    with pytest.raises((ValueError, TypeError), match=re.escape(says)):
        owned(X, y)


@pytest.mark.parametrize(("clients", "says"), [
    ([(X, Y)], "clients must be a mapping {client: (x, y)}, not a list; dict(enumerate(clients)) numbers them"),
    ({"a": PAIRS}, "client 'a' brings a TensorDataset; it must be (x, y), or (x, y, x_test, y_test)"),
    ({"a": X}, "client 'a' brings a ndarray"), ({"a": (X, Y, X)}, "client 'a' brings a tuple; it must be (x, y), or"),
    ({"a": (X, Y), "b": (X[:, :1], Y)}, "client 'b' has examples of shape (1,); those of 'a' have shape (2,)"),
    ({"a": (X, Y, X[:, :1], Y)}, "client 'a' has examples of shape (1,); those of 'a' have shape (2,)"),
    ({"a": (X, Y, X[:2], Y)}, "client 'a' has 2 examples and 6 labels"),
])  # fmt: skip
def test_clients_that_are_no_mapping_of_pairs_are_refused(clients, says):
    with pytest.raises((ValueError, TypeError), match=re.escape(says)):
        from_clients("tried", clients, 2)


@pytest.mark.parametrize(("make", "says"), [
    (lambda: Dataset("d", X, Y, 2.5), "classes = 2.5; it must be a whole number >= 1, 0 if y holds numbers to hit"),
    (lambda: Dataset("d", X, Y, float("nan")), "classes = nan"), (lambda: Dataset("d", X, Y, True), "classes = True"),
    (lambda: Dataset("d", X, Y, -1), "classes = -1"), (lambda: Dataset("d", X, Y, "2"), "classes = '2'"),
    (lambda: Dataset("d", X, Y, 2, X), "x_test and y_test belong together"),
    (lambda: Dataset("d", X, Y, 2, None, Y), "x_test and y_test belong together"),
    (lambda: Dataset("d", X, Y / 2, None), "their classes cannot be counted; say how many classes there are, or classes=0"),
    (lambda: Dataset("d", X, Y, 0, X, np.eye(6)), "y_test has 6 numbers an example, y has 1"),
    (lambda: Dataset("d", X, np.zeros((6, 1, 1)), 0), "y has shape (6, 1, 1); it must be (N,)"),
    (lambda: Dataset("d", X, np.zeros((6, 1, 1)), 2), "y has shape (6, 1, 1); it must be (N,)"),
    (lambda: Dataset("d", X, np.where(Y, np.inf, 0.0), 0), "example 1 in y holds NaN or Inf"),
    (lambda: FederatedData("f", X, Y, 2, ("a",), (Y == 1,), ([],)), "train must hold row numbers"),
    (lambda: FederatedData("f", X, Y, 2, ("a",), (Y == 1,), ([],)), "np.flatnonzero(mask) makes them of a mask"),
    (lambda: FederatedData("f", X, Y, 2, ("a",), ([0.5],), ([],)), "train must hold row numbers"),
    (lambda: FederatedData("f", X, Y, 2, ("a",), ([-1, 0],), ([],)), "a client holds rows -1..0; x has rows 0..5"),
])  # fmt: skip
def test_a_pool_that_says_nonsense_about_itself_is_refused(make, says):
    with pytest.raises(ValueError, match=re.escape(says)):
        make()


# --- classes counted, nothing held out, tests of one's own ---------------------------------------------------------------------


@pytest.mark.parametrize("kind", [np.int64, np.uint8, np.int16])
def test_classes_are_counted_over_everybody(kind):
    assert Dataset("d", X, Y.astype(kind), None, X, np.full(6, 4, kind)).classes == 5
    assert from_clients("d", {"a": (X, Y.astype(kind)), "b": (X, np.full(6, 7, kind))}).classes == 8
    assert from_clients("d", {"a": (X, Y, X, Y + 5)}, x_test=X, y_test=Y).classes == 7
    assert from_clients("d", {"a": (X, Y)}, x_test=X, y_test=Y + 3).classes == 5
    assert count_classes(np.int64(3), [Y]) == 3
    assert type(count_classes(np.int64(3), [Y])) is int
    assert targets(np.array([True, False]), "y", 2).tolist() == [1, 0]


def test_a_client_may_say_which_part_is_its_test():
    theirs = {"a": (X, Y, X[:2] + 9, Y[:2]), "b": (X, Y), "c": (X[:1], Y[:1], X[:0], Y[:0])}
    data = from_clients("own tests", theirs, 2, test_fraction=0.5)
    assert data.name == "own tests"
    x, y = data.examples("a", "test")
    assert np.array_equal(x, (X[:2] + 9).astype(np.float32))
    assert np.array_equal(y, Y[:2])
    assert np.array_equal(data.examples("a")[0], X.astype(np.float32))
    assert [len(part) for part in data.test] == [2, 3, 0]
    without = from_clients("own tests", {"b": (X, Y)}, 2, test_fraction=0.5)
    assert np.array_equal(data.examples("b")[0], without.examples("b")[0])      # nobody's test depends on the others'


@pytest.mark.parametrize("fraction", [0.0, 0.2, 0.5, 0.9])
@pytest.mark.parametrize("n", [1, 2, 3, 9, 12])
def test_a_client_tests_on_its_share_to_the_nearest_example_and_keeps_one_to_train_on(n, fraction):
    data = from_clients("d", {"a": (np.resize(X, (n, 2)), np.resize(Y, n))}, 2, test_fraction=fraction)
    (kept,), (held,) = data.train, data.test
    assert abs(len(held) - fraction * n) <= 0.5 or len(kept) == 1
    assert len(kept) >= 1
    assert sorted([*kept, *held]) == list(range(n))


def test_the_deal_is_that_of_its_own_named_stream():
    pool = Dataset("d", np.resize(X, (30, 2)), np.resize(Y, 30), 2)
    for seed in (0, 1):
        data = pool.partition(IID(), 3, seed=seed)
        parts = IID().split(pool.y, 3, stream(seed, "partition", "split"))
        for part, kept, held in zip(parts, data.train, data.test, strict=True):
            assert sorted(part) == sorted([*kept, *held])


def scored(data, **settings):
    model = logistic(2, 2)
    return Coordinator(data, model, LocalSGD(lr=0.1, epochs=2), Synchronous(1.0), **settings).train(4)


@pytest.mark.parametrize("every", [1, 2])
def test_without_a_held_out_set_the_run_goes_on_and_says_once_what_is_not_measured(every):
    data = from_clients("nothing held out", {"a": (X, Y), "b": (X, 1 - Y)}, 2)
    assert data.x_test.shape == (0, 2)
    assert "0 held out" in repr(data)
    history = scored(data, evaluation=Evaluation(every=every))
    told = [event for record in history.records for event in record.events]
    assert told == ["nothing is held out (x_test), so accuracy and loss are not measured"]
    assert "accuracy" not in history.records[-1].metrics
    assert history.last("client_accuracy") >= 0
    assert Dataset("d", X, Y, 2).y_test.shape == (0,)
    assert Dataset("d", X, Y / 2, 0).y_test.shape == (0, 1)


def test_features_that_were_never_scaled_are_said_once_if_nothing_is_learned():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 80)
    pixels = rng.integers(0, 256, (80, 2)) + 0.0
    told = lambda x, y: [e for r in scored(from_clients("d", {"a": (x, y)}, 2, x, y)).records for e in r.events]  # noqa: E731
    (event,) = told(pixels, y)
    assert re.fullmatch(r"the features reach 25\d and the model is no better than guessing: scale .*, e.g. x / 25\d", event)
    assert len(told(-pixels, y)) == 1
    assert told(pixels / 255, y) == []                                  # not learned, but not for that reason
    good = np.where(y[:, None] > 0, 60.0, -60.0) + rng.standard_normal((80, 2))
    assert told(good, y) == []                                          # unusual, but learned


# --- tables whose columns are named, arrays that somebody else holds, nobody held out --------------------------------------

NAMES = ["age", "dose", "mass"]


def table(names, rows=6):
    return pd.DataFrame({name: np.arange(rows) + 10.0 * NAMES.index(name[:4].strip()) for name in names})


@pytest.mark.parametrize("order", list(itertools.permutations(NAMES)))
@pytest.mark.parametrize("place", ["a client", "its test", "held out", "a pool's test", "a federation's test", "numbers to hit"])
def test_columns_in_another_order_are_never_joined_by_position(order, place):
    other, y = table(list(order)), list(Y)
    make = {
        "a client": lambda: from_clients("t", {"n": (table(NAMES), y), "s": (other, y)}, 2),
        "its test": lambda: from_clients("t", {"n": (table(NAMES), y, other, y)}, 2),
        "held out": lambda: from_clients("t", {"n": (table(NAMES), y)}, 2, other, y),
        "a pool's test": lambda: Dataset("t", table(NAMES), y, 2, other, y),
        "a federation's test": lambda: FederatedData("t", table(NAMES), y, 2, (0,), (range(6),), ([],), other, y),
        "numbers to hit": lambda: from_clients("t", {"n": (X, table(NAMES)), "s": (X, other)}, 0),
    }[place]
    if list(order) == NAMES:
        make()
        return
    with pytest.raises(ValueError, match=r"stand in another order.*bring every table to one list of names"):
        make()


@pytest.mark.parametrize("names", [["age", "dose"], ["age", "dose", "mass2"], ["age", "dose", "mass", "mass2"]])
def test_other_columns_are_refused_by_client_and_name(names):
    with pytest.raises(ValueError, match=re.escape("x of client 's'")):
        from_clients("t", {"n": (table(NAMES), Y), "s": (table(names), Y)}, 2)


def test_columns_without_names_are_joined_by_position():
    numbered, bare = pd.DataFrame(table(NAMES).to_numpy()), table(NAMES).to_numpy()
    data = from_clients("t", {"n": (table(NAMES), Y), "s": (numbered, Y), "w": (bare, Y)}, 2, numbered, Y)
    assert np.array_equal(data.x[:6], data.x[12:])


@pytest.mark.parametrize("kind", [np.array, torch.from_numpy, pd.DataFrame])
@pytest.mark.parametrize("maker", ["pool", "dealt", "clients", "federation"])
def test_what_is_done_to_an_array_later_does_not_reach_the_data(kind, maker):
    x, y, rows = X.astype(np.float32), Y.astype(np.int64), np.arange(6)
    hand = kind if kind is not np.array else (lambda array: array)
    data = {
        "pool": lambda: Dataset("t", hand(x), y, 2, hand(x), y),
        "dealt": lambda: Dataset("t", hand(x), y, 2, hand(x), y).partition(IID(), 2),
        "clients": lambda: from_clients("t", {0: (hand(x), y)}, 2, hand(x), y),
        "federation": lambda: FederatedData("t", hand(x), y, 2, (0,), (rows,), (rows[:0],), hand(x), y),
    }[maker]()
    arrays = [data.x, data.y, data.x_test, data.y_test, *(data.train if maker != "pool" else ())]
    before = [array.tobytes() for array in arrays]
    x *= 1000
    y[:] = 1 - y
    rows[:] = rows[::-1].copy()
    assert [array.tobytes() for array in arrays] == before


@pytest.mark.parametrize("empty", [[], np.zeros((0, 2)), np.zeros((0, 7)), pd.DataFrame({"a": [], "b": []}), torch.zeros(0, 2)])
def test_an_empty_held_out_set_is_none_in_whatever_shape(empty):
    clients = {"n": (X, Y), "s": (X, Y)}
    for data in (from_clients("t", clients, 2, empty, []), from_clients("t", clients, None, empty, []),
                 Dataset("t", X, Y, 2, empty, np.zeros(0)).partition(IID(), 2)):
        assert data.x_test.shape == (0, 2)
        assert data.y_test.shape == (0,)
    with pytest.raises(ValueError, match="x_test"):
        from_clients("t", clients, 2, empty, Y)
