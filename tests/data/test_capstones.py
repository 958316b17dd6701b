"""The data of the capstones: the files say what the docstrings say, and the generated cars obey the printed formula."""

import csv
import gzip
from importlib import resources

import numpy as np
import pytest

from fl_course import IID, actg175, german_credit, shakespeare, vehicles
from fl_course.data import capstones
from fl_course.data.capstones import (
    ACTG175_COLUMNS,
    ALPHABET,
    GERMAN_CREDIT_COLUMNS,
    ROADS,
    VEHICLES_COLUMNS,
    encode_text,
)


def lines(name):
    return gzip.decompress(resources.files("fl_course.data.datasets").joinpath(name).read_bytes()).decode().splitlines()


def everything(data):
    return np.concatenate([data.x, data.x_test]), np.concatenate([data.y, data.y_test])


@pytest.mark.parametrize(("make", "size", "held", "columns", "share"), [
    (actg175, 2139, 428, ACTG175_COLUMNS, 521 / 2139), (german_credit, 1000, 200, GERMAN_CREDIT_COLUMNS, 0.3),
])  # fmt: skip
def test_a_pool_has_the_size_and_the_classes_that_it_says(make, size, held, columns, share):
    data, again = make(), make()
    x, y = everything(data)
    assert (len(y), len(data.y_test), x.shape[1], data.classes) == (size, held, len(columns), 2)
    assert y.mean() == pytest.approx(share)
    assert data.y_test.mean() == pytest.approx(share, abs=0.01)
    assert len(set(columns)) == len(columns)
    assert data.x.tobytes() == again.x.tobytes()
    assert np.abs(data.x).max() < 50                                           # so that nobody is told to scale them
    assert len(data.partition(IID(), clients=10, seed=3)) == 10


def test_the_trial_is_the_file_without_what_nobody_knew_on_the_first_day():
    data = actg175()
    x, y = everything(data)
    rows = list(csv.DictReader(lines("actg175.csv.gz")))
    for name in ACTG175_COLUMNS:
        ((_, zero, one),) = [column for column in capstones._TRIAL if column[0] == name]
        assert np.allclose(np.sort(x[:, ACTG175_COLUMNS.index(name)] * one + zero),
                           np.sort([float(row[name]) for row in rows]), atol=1e-3), name
    later = {"pidnum", "offtrt", "cd420", "cd496", "r", "cd820", "cens", "days"}
    assert not later & set(ACTG175_COLUMNS)
    sick = {(float(row["age"]), float(row["cd40"]), float(row["cd80"]), int(row["cens"])) for row in rows}
    columns = [ACTG175_COLUMNS.index(name) for name in ("age", "cd40", "cd80")]
    for row, label in list(zip(x, y, strict=True))[::50]:           # a patient kept its own outcome
        age, cd4, cd8 = np.round(row[columns] * (10, 100, 500) + (35, 350, 1000))
        assert (age, cd4, cd8, label) in sick


def test_the_loans_are_the_file():
    data = german_credit()
    x, y = everything(data)
    rows = [line.split() for line in lines("german.data.gz")]
    at = GERMAN_CREDIT_COLUMNS.index
    assert x[:, at("woman")].sum() == sum(row[8] in ("A92", "A95") for row in rows) == 310
    assert np.array_equal(np.sort(np.round(x[:, at("age")] * 10 + 35)), np.sort([int(row[12]) for row in rows]))
    for name in GERMAN_CREDIT_COLUMNS:
        if "=" in name:
            attribute, code = name.split("=")
            place = [known for known, _ in capstones._LOANS].index(attribute)
            assert x[:, at(name)].sum() == sum(row[place] == f"A{code}" for row in rows), name
    seen = {(float(row[1]), float(row[4]), float(row[12]), int(row[20] == "2")) for row in rows}
    columns = [at("duration"), at("amount"), at("age")]
    for row, label in zip(x, y, strict=True):
        assert (*np.round(row[columns].astype(float) * (12, 3000, 10) + (20, 3000, 35)), label) in seen
    for (name, codes), values in zip(capstones._LOANS, zip(*rows, strict=True), strict=False):     # no code is forgotten
        assert not isinstance(codes[0], str) or {f"A{code}" for code in codes} >= set(values), name


def test_a_role_is_asked_for_the_next_character_of_its_own_text():
    data = shakespeare(context=3)
    assert len(data) == 122
    assert data.classes == len(set(ALPHABET)) == 32
    said = {f"{role} ({play})": text for play, role, text in (line.split("\t") for line in lines("shakespeare.txt.gz"))}
    assert len(said) == 142
    assert set(data.ids) < set(said)
    for client in data.ids[::20]:
        codes = encode_text(said[client][: round(0.25 * len(said[client]))])
        cut = len(codes) - len(codes) // 5
        for part, mine in (("train", codes[:cut]), ("test", codes[cut:])):
            x, y = data.examples(client, part)
            assert np.array_equal(y, mine[3:])
            letters = x.reshape(len(x), 3, 32)
            assert np.array_equal(letters.sum(axis=2), np.ones((len(x), 3)))
            for back in (1, 2, 3):
                assert np.array_equal(letters[:, 3 - back].argmax(axis=1), mine[3 - back : len(mine) - back])
    strangers = [text for name, text in said.items() if name not in data.ids]
    assert len(strangers) == 20
    assert len(data.y_test) == sum(len(text[: round(0.25 * len(text))]) - 3 for text in strangers)


def test_text_is_brought_to_the_alphabet():
    assert "".join(ALPHABET[code] for code in encode_text("Nay; answer me: un-fold\tÉ!")) == "nay, answer me, un fold  !"


def energy(x, style):
    """The printed formula, a kilometre at a time."""
    speed, stops, slope, celsius, load = x * (10, 1, 0.02, 12, 120) + (20, 1, 0, 12, 200)
    mass = 1500 + load
    newton = 0.5 * 1.2 * 0.7 * speed**2 + mass * 9.81 * (0.01 + slope) + style * stops * 0.5 * mass * speed**2 * 0.4 / 1000
    return (newton + 50 * abs(celsius - 20) / speed) / 0.9 / 100


def test_cars_obey_the_printed_formula():
    data = vehicles(clients=30, kilometres=60, habits=0.0, seed=1)
    left = np.array([energy(x, 1.0) for x in data.x.astype(float)]) - data.y[:, 0]
    assert abs(left.mean()) < 0.02
    assert left.std() == pytest.approx(0.2, rel=0.05)               # 20 N, in units of 100 N
    assert (data.classes, data.shape, data.sizes.tolist()) == (0, (len(VEHICLES_COLUMNS),), [48] * 30)
    assert data.ids[:4] == ("city 0", "country 1", "motorway 2", "city 3")
    assert len(data.y_test) == 30 * 30


def test_a_car_stays_at_home_and_brakes_in_its_own_style():
    data = vehicles(clients=9, kilometres=400, home=1.0, habits=0.5, seed=2)
    speeds = {road: np.concatenate([data.examples(c)[0][:, 0] for c in data.ids if c.startswith(road)]).mean() for road in ROADS}
    assert speeds["city"] < speeds["country"] < speeds["motorway"]
    styles = []
    for client in [client for client in data.ids if client.startswith("city")]:
        x, y = data.examples(client)
        even, hard = (np.array([energy(row, style) for row in x.astype(float)]) for style in (0.0, 1.0))
        styles.append(float(((y[:, 0] - even) @ (hard - even)) / ((hard - even) @ (hard - even))))
    assert np.std(styles) > 0.1
    assert vehicles(seed=3).x.tobytes() == vehicles(seed=3).x.tobytes() != vehicles(seed=4).x.tobytes()


@pytest.mark.parametrize(("make", "words"), [
    (lambda: shakespeare(context=0), "whole number of characters"), (lambda: shakespeare(context=2.5), "whole number"),
    (lambda: shakespeare(share=0), r"in \(0, 1\]"), (lambda: shakespeare(share=float("nan")), "share of each role"),
    (lambda: shakespeare(share=0.01), "a larger share"), (lambda: shakespeare(context=900, share=1.0), "or a shorter context"),
    (lambda: vehicles(clients=0), "whole number"), (lambda: vehicles(kilometres=True), "whole number"),
    (lambda: vehicles(home=1.1), "share of the kilometres"), (lambda: vehicles(habits=-1), "finite number >= 0"),
    (lambda: vehicles(habits=float("inf")), "finite number"),
    (lambda: vehicles(test_fraction=1), "test_fraction"),
])  # fmt: skip
def test_what_cannot_be_is_refused_in_a_sentence(make, words):
    with pytest.raises(ValueError, match=words):
        make()
