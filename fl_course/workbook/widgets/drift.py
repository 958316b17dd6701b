"""The pictures of lesson 2: where clients walk to, and where a federation comes to rest; and its two explorers.

    draw_drift(ax, bowls, …)     contours of the mean loss, trajectories, marked points: a pure function of plain data
    drift_explorer()             four methods on two bowls, live, with the closed-form resting points beside them
    proximal_explorer()          FedAvg, FedProx and SCAFFOLD on handwritten digits: mu, E and Dirichlet alpha
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes

from ...core import ClientId
from ...drift.methods import FedNova, FedProx, Scaffold
from ...drift.quadratics import Bowls, two_bowls
from ...engine.local import LocalSGD
from ...engine.models import mlp
from ...federation.coordinator import Coordinator
from ...federation.schedule import Synchronous
from .charts import Chart, PlaneChart
from .controls import LogSlider, Slider
from .explorer import Explorer
from .fraction import digit_clients
from .plots import MARKERS, colour, letter, line_style
from .points import Point

ROUNDS = 25
METHODS = ("FedAvg", "FedProx", "SCAFFOLD", "FedNova")
RESTS = ("the optimum", "FedAvg must rest", "FedProx must rest", "FedNova must rest")      # by the closed forms
LETTERS = ("A", "B")                           # the clients, at the bottom of their bowls
START = (-1.0, -2.7)
Paths = Mapping[str, np.ndarray]


def draw_drift(ax: Axes, bowls: Bowls, paths: Paths, marks: Paths, title: str = "") -> None:
    """Draw two-parameter bowls: paths, label -> (steps, 2), as lines; marks, label -> (2,), as large symbols.

    The grey contours are those of the mean loss over clients; a letter stands at each client's own minimum.
    """
    points = np.concatenate([bowls.centres, *map(np.atleast_2d, [*paths.values(), *marks.values()])])
    low, high = points.min(0) - 0.5, points.max(0) + 0.5
    grid = np.stack(np.meshgrid(np.linspace(low[0], high[0], 80), np.linspace(low[1], high[1], 80)), axis=-1)
    mean = bowls.losses(grid).mean(0)
    ax.contour(grid[..., 0], grid[..., 1], mean, levels=np.quantile(mean, np.linspace(0.02, 0.9, 9)), colors="#bbbbbb",
               linewidths=0.8)
    for number, (label, path) in enumerate(paths.items()):
        ax.plot(path[:, 0], path[:, 1], label=label, linewidth=1.6, marker="o", markersize=3, **line_style(number))
    for number, (label, (x, y)) in enumerate(marks.items()):
        ax.plot(x, y, label=label, linestyle="", marker=MARKERS[number % len(MARKERS)], markersize=11, zorder=4,
                color=colour(len(paths) + number), markeredgecolor="white")
    for k, place in enumerate(bowls.centres):
        letter(ax, chr(ord("A") + k), place)
    ax.set(xlabel="first parameter w₁", ylabel="second parameter w₂", title=title)
    ax.set_aspect("equal", adjustable="datalim")
    ax.legend(fontsize=8)


def method_runs(bowls: Bowls, epochs: tuple[int, int], lr: float, mu: float, methods: tuple[str, ...] = METHODS) -> dict:
    """The federations of the drift viewer by name: two clients, all take part, epochs: local steps of each."""
    work: dict[ClientId, int] = dict(enumerate(epochs))
    corrections = {"FedProx": FedProx(mu), "SCAFFOLD": Scaffold()}
    return {
        name: Coordinator(bowls.data(), bowls.model(), LocalSGD(lr, work, None, correction=corrections.get(name)),
                          Synchronous(1.0), stages=[FedNova()] if name == "FedNova" else [])
        for name in methods
    }


def rings(centre: np.ndarray, curvature: np.ndarray, levels: Sequence[float], n: int = 72) -> list[np.ndarray]:
    """Contours of a bowl, ½(w - m)ᵀA(w - m) = level: one closed curve (n + 1, 2) a level."""
    turn = np.linspace(0, 2 * np.pi, n + 1)
    values, vectors = np.linalg.eigh(curvature)
    unit = (vectors / np.sqrt(values)) @ np.stack([np.cos(turn), np.sin(turn)])
    return [(centre[:, None] + np.sqrt(2 * level) * unit).T for level in levels]


def still_life(bowls: Bowls, steps: tuple[int, int], lr: float, mu: float) -> Point:
    """What does not move in the plane: the clients' minima, the contours, and where the closed forms say the methods rest.

    The mean of two bowls is a bowl, too, around the optimum. With equal steps FedNova divides and multiplies by the same
    number: it is FedAvg, and has no mark and no line of its own.
    """
    rests = [bowls.optimum(), bowls.fixed_point(lr, steps), bowls.fixed_point(lr, steps, mu)]
    if steps[0] != steps[1]:
        rests.append(bowls.fixed_point(lr, steps, normalised=True))
    valley = rings(bowls.optimum(), bowls.curvatures.mean(0), [0.2 * k**2 for k in range(1, 7)])
    pairs = zip(bowls.centres, bowls.curvatures, strict=True)
    own = [ring for centre, bowl in pairs for ring in rings(centre, bowl, (0.05, 0.25))]
    return Point(marks={**dict(zip(RESTS, rests, strict=False)), **dict(zip(LETTERS, bowls.centres, strict=True))},
                 outlines={"average loss": valley, "A's and B's own loss": own})


def drift(distance: float, epochs_a: int, epochs_b: int, lr: float, mu: float) -> Iterator[Point]:
    """The methods on `two_bowls(distance)`, round by round, from one start; and where the closed forms say they rest."""
    bowls, steps = two_bowls(distance), (epochs_a, epochs_b)
    optimum = bowls.optimum()
    yield still_life(bowls, steps, lr, mu)
    methods = METHODS if epochs_a != epochs_b else METHODS[:3]
    yield Point(dict.fromkeys(methods, START))
    federations = method_runs(bowls, steps, lr, mu, methods)
    runs = [federation.run(ROUNDS, federation.initial(np.array(START))) for federation in federations.values()]
    for states in zip(*runs, strict=True):
        here = {name: state.server.params for name, (state, _) in zip(federations, states, strict=True)}
        gap = {name: max(float(np.linalg.norm(w - optimum)), 1e-6) for name, w in here.items()}
        version = states[0][1].version
        same = "" if "FedNova" in gap else " With equal steps FedNova is FedAvg."
        yield Point({**{name: (float(w[0]), float(w[1])) for name, w in here.items()},
                     **{f"{name}'s gap": (version, g) for name, g in gap.items()}},
                    text=f"Round {version}, distance from the optimum: "
                         + ", ".join(f"{name} {g:.3f}" for name, g in gap.items()) + f".{same}")


def drift_explorer() -> Explorer:
    """Lesson 2: two clients, two parameters; how far apart their minima lie, how much each works, lr and mu."""
    return Explorer(
        drift,
        controls=[
            Slider("distance", 0.0, 6.0, 0.5, value=4.0, label="distance of the minima"),
            Slider("epochs_a", 1, 30, value=10, label="local steps E of client A"),
            Slider("epochs_b", 1, 30, value=10, label="local steps E of client B"),
            Slider("lr", 0.05, 0.6, 0.05, value=0.5, label="learning rate"),
            Slider("mu", 0.0, 2.0, 0.1, value=0.5, label="proximal μ"),
        ],
        charts=[
            PlaneChart("the plane of the two parameters", x="w₁", y="w₂", x_range=(-4, 4), y_range=(-3, 3), lines=METHODS,
                       marks=RESTS, letters=LETTERS, outlines=("average loss", "A's and B's own loss")),
            Chart("distance from the optimum", x="round", y="distance", x_range=(0, ROUNDS), y_log=True,
                  lines=tuple(f"{name}'s gap" for name in METHODS)),
        ],
        title="Client drift on two bowls: the real trainer, with the closed form beside it",
    )


def proximal(mu: float, epochs: int, alpha: float) -> Iterator[Point]:
    """FedAvg, FedProx(mu) and SCAFFOLD on the digits, 10 of 100 clients a round: accuracy by round and by megabyte."""
    methods = {"FedAvg": None, "FedProx": FedProx(mu), "SCAFFOLD": Scaffold()}
    runs = [Coordinator(digit_clients(alpha), mlp(64, 32, 10), LocalSGD(0.1, epochs, 10, correction=correction),
                        Synchronous(0.1)).run(20) for correction in methods.values()]
    sent = dict.fromkeys(methods, 0.0)                      # MB, both ways
    for states in zip(*runs, strict=True):
        records = {name: record for name, (_, record) in zip(methods, states, strict=True)}
        for name, record in records.items():
            sent[name] += (sum(record.bytes_up.values()) + sum(record.bytes_down.values())) / 1e6
        text = ", ".join(f"{name} {record.metrics['accuracy']:.1%}" for name, record in records.items())
        yield Point({**{name: (r.version, r.metrics["accuracy"]) for name, r in records.items()},
                     **{f"{name} by MB": (sent[name], r.metrics["accuracy"]) for name, r in records.items()}},
                    text=f"Held-out accuracy after round {states[0][1].version}: {text}.")


def proximal_explorer() -> Explorer:
    """Lesson 2: the proximal term, the local work, and how different the clients are, on real digits."""
    names = ("FedAvg", "FedProx", "SCAFFOLD")
    return Explorer(
        proximal,
        controls=[
            Slider("mu", 0.0, 5.0, 0.1, value=1.0, label="proximal μ"),
            Slider("epochs", 1, 20, value=5, label="local epochs E"),
            LogSlider("alpha", 0.01, 100, 25, value=0.1, label="Dirichlet α"),
        ],
        charts=[
            Chart("accuracy by round", x="round", y="accuracy", x_range=(0, 20), y_range=(0, 1), lines=names),
            Chart("accuracy by megabyte", x="sent, both ways", x_unit="MB", y="accuracy", x_range=(0, None), y_range=(0, 1),
                  lines=tuple(f"{name} by MB" for name in names)),
        ],
        title="Digits, 10 of 100 clients a round: retrained as you move",
    )
