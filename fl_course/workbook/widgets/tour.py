"""The tour, lesson 0: a picture of the whole, bars of prices, and one federation on which three sliders move at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch

from ...compression.sparse import TopK
from ...data.federated import FederatedData
from ...data.partition import Dirichlet
from ...data.sources import digits
from ...engine.local import LocalSGD
from ...engine.models import logistic
from ...federation.coordinator import Coordinator
from ...federation.fleet import LogNormal
from ...federation.interfaces import Stage
from ...federation.sampling import PoissonSelection
from ...federation.schedule import Synchronous
from ...federation.stages import Uniform
from ...personalisation.evaluation import local_only, pooled
from ...privacy.accounting import RDP, noise_for_budget
from ...privacy.central import CentralDP
from .charts import Chart
from .controls import Slider, Steps
from .explorer import Explorer
from .plots import PALETTE
from .points import Point
from .recipe import By, Recipe

CLIENTS, ROUNDS, FRACTION = 300, 30, 0.2                     # the set-up of the lesson's text
CLIP, DELTA = 0.5, 1e-3
MODEL = logistic(64, 10)
TRAINING = LocalSGD(lr=0.3, epochs=3, batch_size=5)
ALONE, TOGETHER, POOLED = "alone", "together", "all images in one place"


@lru_cache(maxsize=1)
def people() -> FederatedData:
    """1,797 handwritten digits among 300 people: four to learn from and one to be asked about, or so, each."""
    return digits().partition(Dirichlet(1.0), CLIENTS, seed=0)


def protection(epsilon: float, fraction: float) -> CentralDP:
    """Clip at CLIP, and as much noise on every sum as makes the whole run cost (epsilon, DELTA). The noise has a seed, so that
    the picture comes out again: not for real data."""
    z = noise_for_budget(epsilon, DELTA, ROUNDS, fraction, RDP())
    return CentralDP(CLIP, z, DELTA, accountant=RDP(), noise_seed=0)


def stack(epsilon: float, percent: float, fraction: float) -> list[Stage]:
    """What happens to an update at these positions of the sliders."""
    fewer: list[Stage] = [TopK(percent / 100, feedback=False)] if percent < 100 else []
    return [protection(epsilon, fraction), *fewer]


def federation(fraction: float, stages: Sequence[Stage] = ()) -> Coordinator:
    return Coordinator(people(), MODEL, TRAINING, Synchronous(fraction), PoissonSelection(), Uniform(), stages=stages,
                       fleet=LogNormal(speed_spread=1.0))


def alone_and_pooled(fed: Coordinator, rounds: int) -> tuple[float, float]:
    """Accuracy on everybody's held-out examples: of the models that clients train alone, on average, and of one model trained on
    all examples in one place; both for as many rounds as the federation has."""
    def right(theta: np.ndarray) -> float:
        return float(np.mean(fed.model.predict(theta, fed.data.x_test).argmax(axis=1) == fed.data.y_test))

    own = local_only(fed, rounds)
    return float(np.mean([right(theta) for theta in own if np.isfinite(theta).all()])), right(pooled(fed, rounds))


@lru_cache(maxsize=1)
def bounds() -> tuple[float, float]:
    return alone_and_pooled(federation(FRACTION), ROUNDS)


def tour(epsilon: float, percent: float, fraction: float) -> Iterator[Point]:
    """Accuracy by round and by megabyte sent up, and the privacy spent, all three sliders at work. percent: of the numbers."""
    fed, sent = federation(fraction, stack(epsilon, percent, fraction)), 0
    alone, in_one_place = bounds()
    for _, record in fed.run(ROUNDS):
        t, accuracy, spent = record.version, record.metrics["accuracy"], record.metrics["epsilon"]
        sent += sum(record.bytes_up.values())
        yield Point(
            {TOGETHER: (t, accuracy), POOLED: (t, in_one_place), ALONE: (t, alone),
             "accuracy by megabyte": (sent / 1e6, accuracy), "ε spent": (t, spent)},
            text=TEXT.format(round=t, accuracy=accuracy, MB_up=sent / 1e6, planned=round(fraction * CLIENTS), epsilon=spent),
        )


TEXT = ("After round {round}: {accuracy:.1%} of the held-out digits are read rightly, {MB_up:.3f} MB sent up by {planned} people "
        "a round or so, ε = {epsilon:.2f} spent.")
RECIPE = Recipe(                                             # the same for a page without Python
    data=By((), of=people), model=MODEL, rounds=ROUNDS, lr=TRAINING.lr, epochs=3, batch_size=5, poisson=True, uniform=True,
    fraction=By("fraction"), keep=By("percent", of=lambda percent: percent / 100), clip=CLIP, budget=By("epsilon"),
    delta=DELTA, text=TEXT,
    lines={TOGETHER: ("round", "accuracy"), POOLED: ("round", lambda: bounds()[1]), ALONE: ("round", lambda: bounds()[0]),
           "accuracy by megabyte": ("MB_up", "accuracy"), "ε spent": ("round", "epsilon")},
)  # fmt: skip


def tour_explorer() -> Explorer:
    """Lesson 0: ε, the share of the numbers that is sent, the share of the people who are asked."""
    return Explorer(
        tour,
        controls=[
            Steps("epsilon", (0.25, 0.5, 1, 2, 4, 8, 16, 64, 256, 1024), 4, "privacy ε"),
            Steps("percent", (1, 2, 5, 10, 20, 50, 100), 10, "numbers sent", "%"),
            Slider("fraction", 0.05, 0.5, 0.05, FRACTION, "people asked, of all"),
        ],
        charts=[
            Chart("accuracy by round", x="round", y="accuracy", x_range=(0, ROUNDS), y_range=(0, 1),
                  lines=(TOGETHER, POOLED, ALONE)),
            Chart("accuracy by megabyte", x="sent up", x_unit="MB", y="accuracy", x_range=(0, None), y_range=(0, 1)),
            Chart("ε spent", x="round", y="ε", x_range=(0, ROUNDS), y_range=(0, None)),
        ],
        title=f"{CLIENTS} people, {ROUNDS} rounds, three prices: retrained as you move",
        recipe=RECIPE,
    )


# --- the picture of the whole ---------------------------------------------------------------------------------------------

GREY = "#767676"                                             # reads on a white page and on a dark one
STOPS = {                                                    # chapter: (x, y) of its number in the picture, and a word for it
    2: (5.5, 42.3, "they differ"), 8: (19.5, 42.3, "models of their own"),
    4: (46.0, 30.5, "masked"), 5: (46.0, 24.5, "shorter"), 7: (46.0, 18.5, "late"),
    3: (66.0, 28.5, "noise"), 9: (66.0, 20.5, "liars"),
    6: (29.0, 7.6, "who is asked"), 1: (53.0, 7.6, "round after round"),
}


def draw_whole(ax: Axes, images: np.ndarray) -> None:
    """Data, client, bytes, sum, model, and back, with the numbers of the chapters. images: (3, 2, rows, columns), two of each
    of three clients."""
    ax.set(xlim=(0, 100), ylim=(2, 50), aspect="equal")
    ax.axis("off")
    blue, red, green, pink = PALETTE[:4]
    for two, y in zip(images, (31.0, 21.5, 12.0), strict=True):
        _box(ax, 1, y, 33, 8.4, GREY, dashed=True)
        for column, image in enumerate(two):
            ax.imshow(image, cmap="Greys", extent=(2.6 + 6.2 * column, 8.1 + 6.2 * column, y + 1.5, y + 7.0), zorder=3)
        _arrow(ax, (15.4, y + 4.2), (20.0, y + 4.2), blue)
        _box(ax, 20.6, y + 1.6, 11.8, 5.2, blue, "trains")
        _arrow(ax, (34.6, y + 4.2), (41.4, y + 4.2), blue)
    for left, colour, words in ((42, pink, "bytes"), (62, red, "sum"), (82, green, "new model")):
        _box(ax, left, 12.0, 16, 27.4, colour)
        ax.text(left + 8, 35.5, words, ha="center", va="center", fontsize=11, color=GREY)
    _arrow(ax, (58.6, 25.7), (61.4, 25.7), pink)
    _arrow(ax, (78.6, 25.7), (81.4, 25.7), red)
    for place, size in enumerate((3, 9, 5, 7, 8, 2, 6, 4, 5, 7, 3, 9, 6, 4, 8, 2)):          # a model is a table of numbers
        ax.add_patch(Circle((85.5 + 3 * (place % 4), 29.5 - 3.4 * (place // 4)), 0.13 * size, color=green, linewidth=0))
    ax.plot([90, 90, 17.5], [11.4, 4.6, 4.6], color=green, linewidth=1.8, solid_capstyle="round")
    _arrow(ax, (17.5, 4.6), (17.5, 11.2), green)
    for middle, words in ((17.5, "clients: the data stay here"), (50, "only changes travel"), (80, "the server")):
        ax.text(middle, 47.2, words, ha="center", va="center", fontsize=11, color=GREY)
    for chapter, (x, y, words) in STOPS.items():
        ax.add_patch(Circle((x, y), 1.9, facecolor="none", edgecolor=GREY, linewidth=1.1, zorder=4))
        ax.text(x, y - 0.1, str(chapter), ha="center", va="center", fontsize=9, color=GREY, zorder=5)
        ax.text(x + 2.8, y - 0.1, words, ha="left", va="center", fontsize=9.5, color=GREY)


def draw_prices(panels: Sequence[Axes], prices: Mapping[str, Mapping[str, float]], levels: Mapping[str, float]) -> None:
    """A bar an idea in each of three panels: accuracy, with two levels to compare it with, MB up and seconds."""
    for ax, column, colour in zip(panels, ("accuracy", "MB up", "seconds"), (PALETTE[0], PALETTE[1], PALETTE[3]), strict=True):
        ax.barh(range(len(prices)), [row[column] for row in prices.values()], color=colour, alpha=0.7)
        ax.invert_yaxis()
        ax.set_xlabel(column)
        ax.set_yticks(range(len(prices)), list(prices) if ax is panels[0] else [])
    for (name, level), dash in zip(levels.items(), (":", "--"), strict=True):
        panels[0].axvline(level, color=GREY, linestyle=dash, linewidth=2, label=name)
    panels[0].set_xticks([0, 0.5, 1])
    panels[0].legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, fontsize=8)


def _box(ax: Axes, x: float, y: float, width: float, height: float, colour: str, words: str = "", dashed: bool = False) -> None:
    ax.add_patch(FancyBboxPatch((x, y), width, height, boxstyle="round,pad=0,rounding_size=1.2", facecolor="none",
                                edgecolor=colour, linewidth=1.1 if dashed else 1.8, linestyle="--" if dashed else "-"))
    ax.text(x + width / 2, y + height / 2, words, ha="center", va="center", fontsize=10, color=GREY)


def _arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float], colour: str) -> None:
    ax.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=12, color=colour, linewidth=1.8,
                                 shrinkA=0, shrinkB=0))
