"""The data of the four capstones: a hospital's patients, a bank's borrowers, what people write, what cars use.

    actg175()         2,139 patients of a clinical trial: did the disease progress?         a pool: who the clients are, you say
    german_credit()   1,000 loans of a bank: was it paid back?                              a pool, too
    shakespeare()     what 122 roles say: which character comes next?                       a client is a role
    vehicles()        kilometres of cars: how much energy?                                  a client is a car; generated

Numbers are scaled by the constants that stand here, which anybody may know; a mean over the patients would be a number that
somebody has to collect first. Origin and licence of the three files: datasets/SOURCES.md.
"""

from __future__ import annotations

import csv
import gzip
from importlib import resources

import numpy as np

from ..core import ClientId, is_whole, stream, whole
from .federated import Dataset, FederatedData, from_clients
from .recalled import recalled
from .sources import with_held_out

# A column of the trial: its name, what stands for 0, what stands for 1.
_TRIAL = (("age", 35, 10), ("wtkg", 75, 15), ("hemo", 0, 1), ("homo", 0, 1), ("drugs", 0, 1), ("karnof", 95, 10),
          ("oprior", 0, 1), ("z30", 0, 1), ("preanti", 365, 365), ("race", 0, 1), ("gender", 0, 1), ("str2", 0, 1),
          ("symptom", 0, 1), ("treat", 0, 1), ("cd40", 350, 100), ("cd80", 1000, 500))  # fmt: skip
ACTG175_COLUMNS = tuple(name for name, _, _ in _TRIAL)

# A column of the loans: its name and its codes (of which the first is the ordinary one, and gets no column of its own), or what
# stands for 0 and for 1. The codes are those of the file, without the A.
_LOANS: tuple[tuple[str, tuple[str, ...] | tuple[int, int]], ...] = (
    ("status", ("14", "11", "12", "13")), ("duration", (20, 12)), ("history", ("32", "30", "31", "33", "34")),
    ("purpose", ("43", "40", "41", "410", "42", "44", "45", "46", "48", "49")), ("amount", (3000, 3000)),
    ("savings", ("61", "62", "63", "64", "65")), ("employed", ("73", "71", "72", "74", "75")), ("rate", (3, 1)),
    ("sex", ("93", "91", "92", "94", "95")), ("others", ("101", "102", "103")), ("residence", (3, 1)),
    ("property", ("123", "121", "122", "124")), ("age", (35, 10)), ("plans", ("143", "141", "142")),
    ("housing", ("152", "151", "153")), ("credits", (1, 1)), ("job", ("173", "171", "172", "174")), ("dependants", (1, 1)),
    ("telephone", ("191", "192")), ("foreign", ("201", "202")),
)  # fmt: skip
_WOMEN = ("92", "95")          # of the codes of "sex", which are codes of sex and marital status together


def _loan_names() -> tuple[str, ...]:
    names = []
    for name, codes in _LOANS:
        if name == "sex":
            names.append("woman")
        else:
            names += [f"{name}={code}" for code in codes[1:]] if isinstance(codes[0], str) else [name]
    return tuple(names)


GERMAN_CREDIT_COLUMNS = _loan_names()

ALPHABET = "abcdefghijklmnopqrstuvwxyz '.,?!"       # 32 characters
_LIKE = str.maketrans({";": ",", ":": ","})

VEHICLES_COLUMNS = ("speed", "stops", "slope", "temperature", "load")
ROADS = ("city", "country", "motorway")
# Of each kind of road: mean and deviation of the speed (m/s), mean number of stops a kilometre, deviation of the slope.
_ROADS = {"city": (10.0, 2.0, 2.0, 0.01), "country": (20.0, 3.0, 0.4, 0.03), "motorway": (31.0, 4.0, 0.02, 0.015)}


def _lines(name: str) -> list[str]:
    packed = resources.files("fl_course").joinpath("data", "datasets", name).read_bytes()
    return gzip.decompress(packed).decode("utf-8").splitlines()


@recalled
def actg175() -> Dataset:
    """2,139 adults with HIV in the trial ACTG 175 (Hammer et al. 1996), as (16,); class 1: the disease progressed (24 %).

    Columns: ACTG175_COLUMNS, all known on the day when treatment began. Class 1 is a loss of half of the CD4 cells, AIDS or
    death during the trial; who left the trial before counts as 0, as in the file. One in five is held out. The file does not
    say which hospital a patient came from: a division into hospitals is simulated.
    """
    rows = list(csv.DictReader(_lines("actg175.csv.gz")))
    x = np.array([[(float(row[name]) - zero) / one for name, zero, one in _TRIAL] for row in rows])
    return with_held_out("actg175", x, np.array([int(row["cens"]) for row in rows]), classes=2)


@recalled
def german_credit() -> Dataset:
    """1,000 loans of a German bank (Statlog, Hofmann 1994), as (46,); class 1: it was not paid back (30 %).

    Columns: GERMAN_CREDIT_COLUMNS; "purpose=40" is 1 where the file's purpose is A40. The first code of an attribute is the
    ordinary case and has no column. "woman" is all that is left of sex and marital status; "age" is (years - 35) / 10.
    One loan in five is held out. All are of one bank: a division into banks or branches is simulated.
    """
    rows = [line.split() for line in _lines("german.data.gz")]
    columns: list[np.ndarray] = []
    for (name, codes), values in zip(_LOANS, zip(*rows, strict=True), strict=False):          # the last column is the class
        if name == "sex":
            columns.append(np.isin(np.array(values), [f"A{code}" for code in _WOMEN]).astype(float))
        elif isinstance(codes[0], str):
            columns += [(np.array(values) == f"A{code}").astype(float) for code in codes[1:]]
        else:
            columns.append((np.array(values, dtype=float) - codes[0]) / codes[1])
    unpaid = np.array([int(row[-1] == "2") for row in rows])
    return with_held_out("german credit", np.stack(columns, axis=1), unpaid, classes=2)


@recalled
def shakespeare(context: int = 4, share: float = 0.25) -> FederatedData:
    """What 122 roles in ten plays say, a client a role: from `context` characters to the next, classes are those of ALPHABET.

    An example is (context·32,): each character as a one among zeros, the last character last. share: of the text that the file
    has of each role (1,000 to 4,000 characters; the beginning). A client's test is the last fifth of that. Held out are 20
    further roles, every seventh of the file, undivided: people who were never asked.
    """
    if not is_whole(context, 1):
        raise ValueError(f"context = {context!r}; it must be a whole number of characters from 1")
    if not 0 < share <= 1:                                           # NaN fails this too
        raise ValueError(f"share = {share!r}; it must be in (0, 1], a share of each role's text")
    owned: dict[ClientId, tuple[np.ndarray, ...]] = {}
    strangers = []
    for number, line in enumerate(_lines("shakespeare.txt.gz")):
        play, role, said = line.split("\t")
        codes = encode_text(said[: round(share * len(said))])
        if len(codes) // 5 <= context:
            raise ValueError(f"share = {share:g} leaves {len(codes)} characters of {role} ({play}), and their last fifth is the "
                             f"test, which must be longer than context = {context}; take a larger share or a shorter context")
        if number % 7 == 6:
            strangers.append(_windows(codes, context))
        else:
            cut = len(codes) - len(codes) // 5
            owned[f"{role} ({play})"] = (*_windows(codes[:cut], context), *_windows(codes[cut:], context))
    x_test, y_test = (np.concatenate(part) for part in zip(*strangers, strict=True))
    return from_clients("shakespeare", owned, len(ALPHABET), x_test, y_test, made="a client a role")


def encode_text(text: str) -> np.ndarray:
    """(len(text),) int64: places in ALPHABET. Capitals become small letters, ; and : a comma, what is not in it a blank."""
    places = {letter: place for place, letter in enumerate(ALPHABET)}
    return np.array([places.get(letter, places[" "]) for letter in text.lower().translate(_LIKE)], dtype=np.int64)


def _windows(codes: np.ndarray, context: int) -> tuple[np.ndarray, np.ndarray]:
    """(n, context·32) float32 and (n,): every character of a text that has `context` characters before it."""
    before = np.lib.stride_tricks.sliding_window_view(codes[:-1], context)
    return np.eye(len(ALPHABET), dtype=np.float32)[before].reshape(len(before), -1), codes[context:]


@recalled
def vehicles(clients: int = 30, kilometres: int = 80, home: float = 0.9, habits: float = 0.3, seed: int = 0,
             test_fraction: float = 0.2) -> FederatedData:
    """Generated: cars on three kinds of road; from a kilometre's speed, stops, slope, temperature and load to its energy.

        E = [ ½ρ·c_w·A·v² + m·g·(0.01 + slope) + style·stops·½m·v²·0.4 / 1000 + 50·|T - 20| / v ] / 0.9     in N = J/m
        ρ = 1.2 kg/m³, c_w·A = 0.7 m², m = (1500 + load) kg, g = 9.81 m/s²; v in m/s, stops per km, T in °C

    Air, rolling and climbing; what brakes turn to heat (40 % of what moves; the rest is won back); heating or cooling (50 W a
    degree); 90 % efficiency; below zero, downhill, the battery is charged. Measured with a deviation of 20 N. Columns:
    VEHICLES_COLUMNS, scaled; the number to hit is E in units of 100 N (2.8 kWh per 100 km).

    Client k, "city 0", "country 1", "motorway 2", …, drives the share `home` of its kilometres on its own kind of road and the
    rest anywhere. style_k ~ lognormal(0, habits) is how hard it brakes: its own, and in no column. The held-out kilometres are
    half as many fresh ones from each car, one after the other, in turn on each kind of road, in the order of ROADS: where a
    model must go that leaves home.
    """
    for name, count in (("clients", clients), ("kilometres", kilometres)):
        if not is_whole(count, 1):
            raise ValueError(f"{name} = {count!r}; it must be a whole number >= 1")
    if not 0 <= home <= 1:
        raise ValueError(f"home = {home!r}; it must be in [0, 1], a share of the kilometres")
    if not (np.isfinite(habits) and habits >= 0):
        raise ValueError(f"habits = {habits!r}; it must be a finite number >= 0")
    clients, kilometres, seed = int(clients), int(kilometres), whole(seed, "seed")
    owned: dict[ClientId, tuple[np.ndarray, ...]] = {}
    held_out = []
    for client in range(clients):
        rng, own = stream(seed, "partition", "vehicles", client), client % len(ROADS)
        style, fresh = rng.lognormal(0.0, habits), -(-kilometres // 2)
        roads = np.where(rng.random(kilometres) < home, own, rng.integers(len(ROADS), size=kilometres))
        x, y = _drive(np.concatenate([roads, np.arange(fresh) % len(ROADS)]), style, rng)
        owned[f"{ROADS[own]} {client}"] = (x[:kilometres], y[:kilometres])
        held_out.append((x[kilometres:], y[kilometres:]))
    x_test, y_test = (np.concatenate(part) for part in zip(*held_out, strict=True))
    return from_clients("vehicles", owned, 0, x_test, y_test, test_fraction, seed, made=f"vehicles({clients}, {kilometres})")


def _drive(roads: np.ndarray, style: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(n, 5) and (n,): kilometres on these kinds of road (n,), places in ROADS, in one style."""
    mean, spread, halts, hills = np.array([_ROADS[road] for road in ROADS])[roads].T
    v, stops = np.maximum(rng.normal(mean, spread), 4.0), rng.poisson(halts)
    slope, celsius, load = rng.normal(0.0, hills), rng.uniform(-10, 35, len(roads)), rng.uniform(0, 400, len(roads))
    mass = 1500 + load
    force = 0.5 * 1.2 * 0.7 * v**2 + mass * 9.81 * (0.01 + slope)
    force += style * stops * 0.5 * mass * v**2 * 0.4 / 1000 + 50 * np.abs(celsius - 20) / v
    x = np.stack([(v - 20) / 10, stops - 1, slope / 0.02, (celsius - 12) / 12, (load - 200) / 120], axis=1)
    return x, (force / 0.9 + rng.normal(0.0, 20.0, len(roads))) / 100
