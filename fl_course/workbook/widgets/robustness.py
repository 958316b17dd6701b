"""The explorers of lesson 9: a lie dragged among honest points, and attacks and rules on a federation that is retrained.

    draw_updates(ax, …)      points in a plane, attackers and answers: a pure function of plain data
    playground_explorer()    drag what the attackers send; every rule's answer moves; also on real updates
    attack_explorer()        attackers, attack, rule, what stands before the rule, Dirichlet alpha: accuracy and backdoor, live
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache

import numpy as np
from matplotlib.axes import Axes

from ...core import CompositionError, Record, Server, Task, stream
from ...data.federated import Dataset, FederatedData
from ...data.partition import Dirichlet
from ...data.sources import digits
from ...engine.local import LocalSGD
from ...engine.models import mlp
from ...engine.training import Trainer
from ...federation.aggregation import WeightedMean
from ...federation.coordinator import Coordinator
from ...federation.interfaces import Aggregation, Attack
from ...federation.schedule import Synchronous
from ...federation.stages import Uniform
from ...robustness.attacks import ALIE, IPM, GaussianNoise, LabelFlip, Mimic, Scaling, SignFlip
from ...robustness.backdoor import Backdoor
from ...robustness.before import Bucketing, NearestNeighbourMixing
from ...robustness.clipping import CentredClipping, NormBound
from ...robustness.coordinates import CoordinateMedian, TrimmedMean
from ...robustness.fltrust import FLTrust
from ...robustness.geometric import GeometricMedian
from ...robustness.krum import Bulyan, Krum, MultiKrum
from ...robustness.outliers import OutlierRemoval
from ...robustness.robust import Robust
from .charts import BarChart, Chart, PlaneChart
from .controls import Choice, LogSlider, Slider
from .explorer import Explorer
from .plots import MARKERS, colour
from .points import Point

MODEL, TRAINING = mlp(64, 32, 10), LocalSGD(lr=0.1, epochs=1, batch_size=10)
CLIENTS, ROUNDS, ROOT = 25, 30, 60             # ROOT: examples at the server

# --- the playground -----------------------------------------------------------------------------------------------------

HONEST, RADIUS = 12, 2.0                       # honest points; bound of norm bound and centred clipping
PLACES = ("a plane", "real updates")
LIE = "the attackers"
RULES: Mapping[str, Callable[[int], Robust]] = {
    "median": CoordinateMedian, "trimmed mean": TrimmedMean, "Krum": Krum, "Multi-Krum": MultiKrum, "Bulyan": Bulyan,
    "geometric median": GeometricMedian, "removal": lambda f: OutlierRemoval(f=f),
    "clipping": lambda f: CentredClipping(RADIUS, f=f), "norm bound": lambda f: NormBound(RADIUS, f=f),
}
ANSWERS = ("mean", *RULES)


def honest_points(seed: int = 0) -> np.ndarray:
    """(HONEST, 2): a cloud around the origin, about one unit to each side."""
    points = stream(seed, "playground").standard_normal((HONEST, 2))
    return points - points.mean(axis=0)


@lru_cache(maxsize=1)
def honest_updates() -> tuple[np.ndarray, np.ndarray]:
    """(HONEST, d) and (2, d): updates of one round on the digits less their mean, and their two principal directions; in
    units of the deviation along the first."""
    data = digits().partition(Dirichlet(0.5), HONEST, seed=0)
    start = Server(MODEL.init(stream(0, "init")))
    sent = Trainer(TRAINING, MODEL, data).train([Task(client, start) for client in data.ids])
    deltas = np.array([update.delta for update in sent], dtype=np.float64)
    deltas -= deltas.mean(axis=0)
    _, sizes, directions = np.linalg.svd(deltas, full_matrices=False)
    return deltas / (sizes[0] / np.sqrt(HONEST)), directions[:2]


def answers(honest: np.ndarray, lie: np.ndarray, f: int) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """What each rule makes of the honest rows (n, d) and f times the lie (d,): name -> (d,); and why others refuse."""
    x = np.vstack([honest, np.tile(lie, (f, 1))])
    found, refused = {"mean": x.mean(axis=0)}, {}
    for name, rule in RULES.items():
        try:
            found[name] = rule(f)(x)
        except ValueError as why:
            refused[name] = str(why)
    return found, refused


def playground(x: float, y: float, f: int, where: str) -> Iterator[Point]:
    """f attackers all send (x, y); in real updates the point in the plane of the two principal directions."""
    if where == PLACES[0]:
        honest, plane = honest_points(), np.eye(2)
    else:
        honest, plane = honest_updates()
    lie = np.array([x, y]) @ plane
    found, refused = answers(honest, lie, f)
    far = {name: float(np.linalg.norm(answer)) for name, answer in found.items()}
    nowhere = dict.fromkeys(refused, (np.nan, np.nan))
    seats = {name: tuple(plane @ answer) for name, answer in found.items()}
    turn = np.linspace(0, 2 * np.pi, 13)
    circle = 0.09 * np.stack([np.cos(turn), np.sin(turn)], axis=1)
    chosen = "Krum" in found and np.linalg.norm(found["Krum"] - lie) < 1e-9
    yield Point(
        marks={LIE: (x, y), **seats, **nowhere},
        outlines={"honest clients": [point + circle for point in honest @ plane.T]},
        bars={"how far from the honest mean": [(name, far.get(name, np.nan)) for name in ANSWERS]},
        text=f"{len(honest)} honest clients, {f} who lie. The mean is {far['mean']:.2f} from the mean of the honest"
             + (f", the coordinate-wise median {far['median']:.2f}." if "median" in far else ".")
             + (" Krum has chosen the lie." if chosen else "")
             + (f" Too many attackers for {', '.join(refused)}." if refused else ""),
    )


def playground_explorer() -> Explorer:
    """Lesson 9: drag the point that the attackers send."""
    return Explorer(
        playground,
        controls=[
            Slider("x", -6.0, 6.0, 0.25, value=4.0, label="the lie, across"),
            Slider("y", -4.5, 4.5, 0.25, value=2.5, label="the lie, upwards"),
            Slider("f", 1, HONEST, value=3, label="attackers f"),
            Choice("where", PLACES, label="points in"),
        ],
        charts=[
            PlaneChart("drag the attackers' point", x="first coordinate", y="second coordinate", x_range=(-6, 6),
                       y_range=(-4.5, 4.5), marks=(LIE, *ANSWERS), outlines=("honest clients",), drag=(LIE, "x", "y")),
            BarChart("how far from the honest mean", y="distance"),
        ],
        title=f"{HONEST} honest clients and some who all send the same lie: every rule's answer",
    )


def draw_updates(ax: Axes, honest: np.ndarray, lies: np.ndarray, found: Mapping[str, np.ndarray]) -> None:
    """Honest points (n, 2) as rings, lies (f, 2) as one cross, and each answer (2,) as a symbol of its own."""
    ax.plot(*honest.T, "o", color="#767676", fillstyle="none", label="honest")
    ax.plot(*lies.T, "x", color="#767676", markersize=10, markeredgewidth=2.5, label="attackers")
    for number, (name, place) in enumerate(found.items()):
        ax.plot(*place, MARKERS[number % len(MARKERS)], color=colour(number), markersize=10, label=name, markeredgecolor="white")
    ax.set(xlabel="first coordinate", ylabel="second coordinate")


# --- a federation under attack ------------------------------------------------------------------------------------------

ATTACKS: Mapping[str, Callable[[range], Attack]] = {
    "label flip": LabelFlip, "sign flip": lambda bad: SignFlip(bad, scale=3.0), "Gaussian noise": GaussianNoise,
    "scaling": Scaling, "ALIE": ALIE, "IPM": IPM, "mimic": Mimic, "backdoor": Backdoor,
}
IN_TRAINING: Mapping[str, Callable[[int], Robust]] = {
    **RULES, "clipping": lambda f: CentredClipping(0.3, f=f), "norm bound": lambda f: NormBound(0.5, f=f),
    "FLTrust": lambda f: FLTrust(root_set()),
}
BEFORE: Mapping[str, Callable[[Robust], Robust]] = {
    "nothing": lambda rule: rule, "bucketing, s = 2": Bucketing, "mixing": NearestNeighbourMixing,
}


@lru_cache(maxsize=4)
def few_clients(alpha: float) -> FederatedData:
    """The digits, less the ROOT that the server keeps, among CLIENTS clients; the smaller alpha, the fewer kinds each has."""
    pool = digits()
    rest = Dataset("digits", pool.x[ROOT:], pool.y[ROOT:], 10, pool.x_test, pool.y_test)
    return rest.partition(Dirichlet(alpha), CLIENTS, seed=0)


def root_set() -> Dataset:
    """The clean examples that the server keeps, for FLTrust."""
    pool = digits()
    return Dataset("root", pool.x[:ROOT], pool.y[:ROOT], 10)


def federation(f: int, attack: str, rule: str, before: str, alpha: float) -> Coordinator:
    """The experiment behind the controls; clients 0 … f - 1 lie. CompositionError where the rule cannot bear so many."""
    combine: Aggregation = WeightedMean() if rule == "mean" else BEFORE[before](IN_TRAINING[rule](f))
    return Coordinator(few_clients(alpha), MODEL, TRAINING, Synchronous(1.0), weights=Uniform(), aggregation=combine,
                       attack=ATTACKS[attack](range(f)) if f else None)


@lru_cache(maxsize=8)
def undisturbed(alpha: float) -> tuple[tuple[float, float], ...]:
    """(accuracy, that of the worst tenth of the clients) after each round, of the mean when everybody is honest."""
    return tuple((record.metrics["accuracy"], record.metrics["client_accuracy_worst10"])
                 for _, record in federation(0, "IPM", "mean", "nothing", alpha).run(ROUNDS))


def told(record: Record) -> str:
    """Whom the rule left out, by the record's own score."""
    found = [f"{name} {record.metrics[f'detection_{name}']:.0%}" for name in ("precision", "recall")
             if f"detection_{name}" in record.metrics]
    return f" Whom the rule left out, against the truth: {', '.join(found)}." if found else ""


def under_attack(f: int, attack: str, rule: str, before: str, alpha: float) -> Iterator[Point]:
    """Accuracy on the held-out digits, and how often a stamped digit is read as the attacker wants, round by round."""
    try:
        experiment = federation(f, attack, rule, before, alpha)
    except CompositionError as why:
        yield Point(text=f"Refused: {why}")
        return
    for _, record in experiment.run(ROUNDS):
        accuracy, door = record.metrics["accuracy"], record.metrics.get("backdoor_success")
        lines = {"accuracy": (record.version, accuracy),
                 "worst tenth": (record.version, record.metrics["client_accuracy_worst10"])}
        if door is not None:
            lines["backdoor success"] = (record.version, door)
        yield Point(lines, text=f"After round {record.version}: {accuracy:.1%} of the held-out digits are read rightly"
                                + (f", and {door:.1%} of the stamped ones as the attacker wants." if door is not None else ".")
                                + told(record))
    for version, (accuracy, worst) in enumerate(undisturbed(alpha), start=1):
        yield Point({"mean, nobody lies": (version, accuracy), "worst tenth, nobody lies": (version, worst)})


def attack_explorer() -> Explorer:
    """Lesson 9: attackers, attack, rule, what stands before it, and how much the clients differ."""
    return Explorer(
        under_attack,
        controls=[
            Slider("f", 0, 8, value=5, label="attackers f"),
            Choice("attack", tuple(ATTACKS), value="IPM", label="attack"),
            Choice("rule", ("mean", *IN_TRAINING), value="median", label="rule"),
            Choice("before", tuple(BEFORE), label="before the rule"),
            LogSlider("alpha", 0.03, 100, 15, value=0.3, label="Dirichlet α"),
        ],
        charts=[
            Chart("accuracy and backdoor by round", x="round", y="share of the held-out digits", x_range=(0, ROUNDS),
                  y_range=(0, 1), lines=("accuracy", "backdoor success", "mean, nobody lies")),
            Chart("who is starved", x="round", y="accuracy of the worst tenth", x_range=(0, ROUNDS), y_range=(0, 1),
                  lines=("worst tenth", "worst tenth, nobody lies")),
        ],
        title=f"{CLIENTS} clients with handwritten digits, f of them lie: retrained as you move",
    )
