"""Data sets that need no network, and what each client holds of them.

    Dataset        a pool of labelled examples, before anybody owns them       digits(), mnist()
    FederatedData  the same examples with owners: training and test part of every client, and a global held-out set

    mnist().partition(Dirichlet(0.3), clients=100, seed=0)     a pool divided by a rule of partition.py
    synthetic(alpha=1.0, beta=1.0), from_clients(...)          data that were born at the clients
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from ..core import ClientId, is_whole, stream
from .examples import Brought, Where, brought, count_classes, examples, nowhere, rows_of, same_columns, targets
from .ids import client_ids
from .partition import Partitioner, image_side
from .recalled import recalled


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """A pool of labelled examples and, apart from it, examples that nobody trains on.

    x and y may be whatever holds numbers: NumPy, pandas, torch, lists; they are copied, so what is done to them later does
    not reach the data. classes=None counts whole-number labels; classes=0
    says that y holds numbers to hit, (N,) or (N, k), for a model with loss=SquaredError(). x_test and y_test may be None.
    """

    name: str
    x: np.ndarray                            # (N, *shape) float32
    y: np.ndarray                            # (N,) int64, 0..classes-1; or (N, k) float32, with classes = 0
    classes: int
    x_test: Any = None                       # (M, *shape) float32, the global held-out set
    y_test: Any = None                       # (M,) int64, or (M, k) float32
    source: ClassVar[str] = ""               # the call that made them, if known: see recalled.py

    def __post_init__(self) -> None:
        _bring_examples(self)

    def __repr__(self) -> str:
        return (f"Dataset({self.name!r}, {len(self.y):,} examples of shape {self.x.shape[1:]}, {_kind(self)}, "
                f"{len(self.y_test):,} held out)")

    @recalled
    def partition(self, how: Partitioner, clients: int | Sequence[ClientId], seed: int = 0,
                  test_fraction: float = 0.2) -> FederatedData:
        """Divide the pool among `clients`: their number (ids 0..K-1) or their ids.

        Each client keeps `test_fraction` of its share for a test of its own. The share goes with the position in
        `clients`; which part of it is the test, and how a writer writes, go with the id.
        """
        if not isinstance(how, Partitioner):
            raise TypeError(f"how must be a rule such as IID() or Shards(2), not {how!r}")
        if is_whole(clients, 1):
            clients = range(clients)
        if not isinstance(clients, Iterable) or isinstance(clients, str | bytes):
            raise ValueError(f"clients = {clients!r}; it must be a whole number >= 1, or the ids of the clients")
        ids = client_ids(clients)
        labels = self.y if self.classes else self.y[:, 0]
        parts = [np.sort(part) for part in how.split(labels, len(ids), stream(seed, "partition", "split"))]
        x = self.x
        for client, part in zip(ids, parts, strict=True):
            seen = how.view(self.x[part], stream(seed, "partition", "view", client))
            if not np.array_equal(seen, self.x[part]):
                x = x.copy() if x is self.x else x                  # the pool itself is never written to
                x[part] = seen
        train, test = _hold_back(ids, parts, seed, test_fraction)
        return FederatedData(self.name, brought(x), brought(self.y), self.classes, ids, train, test, brought(self.x_test),
                             brought(self.y_test), made=f"{how!r}, seed {seed}")


@dataclass(frozen=True, eq=False, repr=False)
class FederatedData:
    """Who holds what. The examples are stored once; client k is two arrays of row numbers into them.

    A client may have nothing to train on (its weight is then 0), but no example has two owners, or is both trained and
    tested on. x, y, classes, x_test, y_test: as in Dataset.
    """

    name: str
    x: np.ndarray                            # (N, *shape) float32: the examples of all clients
    y: np.ndarray                            # (N,) int64, 0..classes-1; or (N, k) float32, with classes = 0
    classes: int
    ids: tuple[ClientId, ...]                # (K,) names of the clients
    train: tuple[np.ndarray, ...]            # K arrays of rows of x: what client k trains on
    test: tuple[np.ndarray, ...]             # K arrays of rows of x: what measures a model at client k
    x_test: Any = None                       # (M, *shape) float32: the global held-out set, nobody's
    y_test: Any = None                       # (M,) int64, or (M, k) float32
    made: str = ""                           # how the examples were divided, in words for the repr
    source: ClassVar[str] = ""               # the call that made them, if known: see recalled.py

    def __post_init__(self) -> None:
        ids = client_ids(self.ids)
        object.__setattr__(self, "ids", ids)
        if not ids:
            raise ValueError("ids = (): a federation needs at least one client")
        if len(set(ids)) < len(ids):
            repeated = next(client for client in ids if ids.count(client) > 1)
            raise ValueError(f"client id {repeated!r} is given twice; ids must differ")
        for part in ("train", "test"):
            rows = tuple(rows_of(row, part) for row in getattr(self, part))
            if len(rows) != len(ids):
                raise ValueError(f"{part} has {len(rows)} arrays for {len(ids)} clients; it needs one a client")
            object.__setattr__(self, part, rows)
        _bring_examples(self, self._owner)
        self._check_owners()

    def _check_owners(self) -> None:
        owner = np.full(len(self.x), -1)
        for rows in (*self.train, *self.test):
            if len(rows) and not 0 <= rows.min() <= rows.max() < len(self.x):
                raise ValueError(f"a client holds rows {rows.min()}..{rows.max()}; x has rows 0..{len(self.x) - 1}")
        for part in (self.train, self.test):
            for place, rows in enumerate(part):
                taken = rows[owner[rows] >= 0]
                if len(taken) or len(np.unique(rows)) < len(rows):
                    first = f"client {self.ids[owner[taken[0]]]!r} and " if len(taken) else "twice to "
                    raise ValueError(f"an example is given to {first}client {self.ids[place]!r}; "
                                     "an example has one owner and is in train or in test, not in both")
                owner[rows] = place
        if not any(len(rows) for rows in self.train):
            raise ValueError("no client has a training example; at least one must")

    def _owner(self, row: int) -> str:
        for client, train, test in zip(self.ids, self.train, self.test, strict=True):
            if row in train or row in test:
                return f" of client {client!r}"
        return " of no client"

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        sizes, made = self.sizes, f"; {self.made}" if self.made else ""
        return (f"FederatedData({self.name!r}, {len(self)} clients with {sizes.min()}–{sizes.max()} training examples, "
                f"{sizes.sum():,} in all, {_kind(self)}, {len(self.y_test):,} held out{made})")

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one example."""
        return self.x.shape[1:]

    @property
    def sizes(self) -> np.ndarray:
        """(K,) int64: training examples of each client."""
        return np.array([len(rows) for rows in self.train], dtype=np.int64)

    def position(self, client: ClientId) -> int:
        """Where in `ids` a client stands."""
        if client not in self._places:
            some = ", ".join(repr(known) for known in self.ids[:5]) + (", …" if len(self) > 5 else "")
            raise ValueError(f"unknown client {client!r}; the {len(self)} clients are {some}")
        return self._places[client]

    @cached_property
    def reach(self) -> float:
        """The largest |x| of all examples."""
        return float(np.abs(self.x).max(initial=0.0))

    @cached_property
    def _places(self) -> dict[ClientId, int]:
        return {client: place for place, client in enumerate(self.ids)}

    def examples(self, client: ClientId, part: str = "train") -> tuple[np.ndarray, np.ndarray]:
        """(x (n, *shape), y (n,)) of one client; part is "train" or "test"."""
        if part not in ("train", "test"):
            raise ValueError(f"part = {part!r}; it must be 'train' or 'test'")
        rows = getattr(self, part)[self.position(client)]
        return self.x[rows], self.y[rows]

    def label_counts(self) -> np.ndarray:
        """(K, classes) int64: training examples of each client and class."""
        if not self.classes:
            raise ValueError("these data hold numbers to hit, so there are no classes to count; see `sizes`, or examples(client)")
        return np.stack([np.bincount(self.y[rows], minlength=self.classes) for rows in self.train])

    def plot(self, ax: Any = None) -> Any:
        """Draw who has what, a column a client and a row a class; white is none. Returns the axes."""
        import matplotlib.pyplot as plt  # here, because training needs no pictures

        ax = ax or plt.subplots(figsize=(9, 3.2), layout="constrained")[1]
        counts = self.label_counts().T
        image = ax.imshow(np.where(counts > 0, counts, np.nan), cmap="YlGnBu", vmin=0, aspect="auto",
                          interpolation="nearest")
        room = 20 if ax.get_position().width * ax.figure.get_size_inches()[0] > 4 else 5
        places = np.arange(0, len(self), max(1, -(-len(self) // room)))
        ax.set_xticks(places, [str(self.ids[place]) for place in places],
                      rotation=90 if max(len(str(client)) for client in self.ids) > 3 else 0)
        ax.set_yticks(np.arange(0, self.classes, max(1, -(-self.classes // 20))))
        ax.set(xlabel="client", ylabel="class", title=f"{self.name}: {self.made}" if self.made else self.name)
        ax.figure.colorbar(image, ax=ax, label="training examples")
        return ax

    def gallery(self, ax: Any = None, clients: int = 6, examples: int = 12) -> Any:
        """Draw the first images of the first clients, a row a client: how `Writers` differ. Returns the axes."""
        import matplotlib.pyplot as plt

        side = image_side(self.shape)
        clients = min(clients, len(self))
        sheet = np.full((clients * side, examples * side), np.nan)
        for row in range(clients):
            for column, image in enumerate(self.x[self.train[row][:examples]]):
                sheet[row * side:(row + 1) * side, column * side:(column + 1) * side] = image.reshape(side, side)
        ax = ax or plt.subplots(figsize=(0.6 * examples, 0.6 * clients), layout="constrained")[1]
        ax.imshow(sheet, cmap="gray_r", vmin=0, vmax=1)
        ax.set_xticks([])
        ax.set_yticks((np.arange(clients) + 0.5) * side - 0.5, [str(client) for client in self.ids[:clients]])
        ax.set(xlabel="training examples", ylabel="client")
        return ax


def from_clients(name: str, clients: Mapping[ClientId, tuple[Any, ...]], classes: int | None = None, x_test: Any = None,
                 y_test: Any = None, test_fraction: float = 0.2, seed: int = 0, made: str = "by owner") -> FederatedData:
    """Data that already have owners: {client: (x (n, *shape), y (n,))}, of which each keeps test_fraction for its own test.

    A client that says itself which part is its test brings four: (x, y, x_test, y_test). For classes, and the global
    held-out set x_test and y_test, see Dataset.
    """
    if not isinstance(clients, Mapping):
        raise TypeError(f"clients must be a mapping {{client: (x, y)}}, not a {type(clients).__name__}; "
                        "dict(enumerate(clients)) numbers them")
    for client, parts in clients.items():
        if not isinstance(parts, tuple | list) or len(parts) not in (2, 4):
            raise TypeError(f"client {client!r} brings a {type(parts).__name__}; it must be (x, y), or (x, y, x_test, y_test). "
                            "A torch Dataset is stacked first: pairs = list(dataset), x = np.stack([np.asarray(x) for x, _ in "
                            "pairs]), y = np.array([y for _, y in pairs])")
    labels = [part for parts in clients.values() for part in parts[1::2]]
    classes = count_classes(classes, labels if y_test is None else [*labels, y_test])
    ids = client_ids(clients)
    for i, letter in enumerate("xy"):
        tables = [(f"{letter} of client {client!r}", part) for client, parts in clients.items() for part in parts[i::2]]
        same_columns([*tables, ("the held-out set", (x_test, y_test)[i])])
    handed = {client: [_pair(client, parts[i], parts[i + 1], classes) for i in range(0, len(parts), 2)]
               for client, parts in zip(ids, clients.values(), strict=True)}        # one or two pairs (x, y) a client
    full = [(client, x) for client, pairs in handed.items() for x, _ in pairs if len(x)]
    if not full:
        raise ValueError(f"none of the {len(clients)} clients has an example; at least one must")
    held_out = x_test is not None and len(x_test) > 0
    like, whose = (np.shape(x_test)[1:], "the held-out set") if held_out else (full[0][1].shape[1:], repr(full[0][0]))
    for client, x in full:
        if x.shape[1:] != like:
            raise ValueError(f"client {client!r} has examples of shape {x.shape[1:]}; those of {whose} have shape {like}")
    ends = np.cumsum([len(x) for pairs in handed.values() for x, _ in pairs])
    rows = iter(np.split(np.arange(ends[-1]), ends[:-1]))
    train, test = [], []
    for client, pairs in handed.items():
        mine = [next(rows) for _ in pairs]
        kept, held = mine if len(mine) == 2 else [part[0] for part in _hold_back((client,), mine, seed, test_fraction)]
        train.append(kept)
        test.append(held)
    x, y = (np.concatenate([pair[i] for pairs in handed.values() for pair in pairs if len(pair[i])]) for i in (0, 1))
    return FederatedData(name, brought(x), brought(y), classes, ids, tuple(train), tuple(test), x_test, y_test,
                         made=f"{made}, seed {seed}")


def _pair(client: ClientId, x: Any, y: Any, classes: int) -> tuple[np.ndarray, np.ndarray]:
    def where(row: int) -> str:
        return f" of client {client!r}"

    x, y = examples(x, "x", where), targets(y, "y", classes, where)
    if len(x) != len(y):
        raise ValueError(f"client {client!r} has {len(x)} examples and {len(y)} labels; they must be as many")
    return x, y


def _hold_back(ids: tuple[ClientId, ...], parts: Sequence[np.ndarray], seed: int,
               test_fraction: float) -> tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...]]:
    """Split each client's rows into train and test; a client always keeps one example to train on."""
    if not 0.0 <= test_fraction < 1.0:                              # NaN fails this too
        raise ValueError(f"test_fraction = {test_fraction!r}; it must be in [0, 1)")
    train, test = [], []
    for client, rows in zip(ids, parts, strict=True):
        count = max(0, min(round(test_fraction * len(rows)), len(rows) - 1))
        shuffled = stream(seed, "partition", "test", client).permutation(rows)
        test.append(np.sort(shuffled[:count]))
        train.append(np.sort(shuffled[count:]))
    return tuple(train), tuple(test)


def _kind(data: Dataset | FederatedData) -> str:
    return f"{data.classes} classes" if data.classes else f"{data.y.shape[1]} numbers to hit"


def _bring_examples(data: Dataset | FederatedData, where: Where = nowhere) -> None:
    """Bring examples to float32 and labels to int64 (or float32), and refuse what no model could use."""
    if (data.x_test is None) != (data.y_test is None):
        raise ValueError("x_test and y_test belong together: give both, or neither if nothing is held out")
    for name in ("x", "y"):
        same_columns([(part, getattr(data, part)) for part in (name, f"{name}_test")])
    held = data.x_test is not None
    labels = [y.array if isinstance(y, Brought) else y for y in ([data.y, data.y_test] if held else [data.y])]
    object.__setattr__(data, "classes", count_classes(data.classes, labels))
    for x_name, y_name, whose in (("x", "y", where), ("x_test", "y_test", nowhere)):
        x, y = getattr(data, x_name), getattr(data, y_name)
        if x_name == "x_test" and (x is None or np.size(x) == np.size(y) == 0):
            x, y = data.x[:0], data.y[:0]                           # nobody is held out, in whatever shape
        else:
            x = x.array if isinstance(x, Brought) else examples(x, x_name, whose)
            y = y.array if isinstance(y, Brought) else targets(y, y_name, data.classes, whose)
        if len(x) != len(y):
            raise ValueError(f"{x_name} has shape {x.shape} and {y_name} {y.shape}; "
                             "they must be (N, ...) and (N,), with the same N")
        object.__setattr__(data, x_name, x)
        object.__setattr__(data, y_name, y)
    if data.x_test.shape[1:] != data.x.shape[1:]:
        raise ValueError(f"x_test has examples of shape {data.x_test.shape[1:]}; those of x have shape {data.x.shape[1:]}")
    if data.y_test.shape[1:] != data.y.shape[1:]:
        raise ValueError(f"y_test has {data.y_test.shape[1]} numbers an example, y has {data.y.shape[1]}")
