"""The recipe of an experiment: so much of it, in plain data, that a page without Python can train it again (workbook/page).

    Recipe(data=By("alpha", of=digit_clients), model=mlp(64, 32, 10), rounds=20, lr=0.1,
           epochs=By("epochs"), fraction=By("fraction"),
           lines={"accuracy by round": ("round", "accuracy"), "accuracy by MB": ("MB", "accuracy")},
           text="After round {round}: {accuracy:.1%} of the held-out digits are read rightly.")

Every setting is a value, or follows controls: `By` says which, and what it is at each of their positions; Python works that out
beforehand. An `Explorer` that is given one is alive in exported pages. `coordinator(…)` is the same experiment in Python.
"""

from __future__ import annotations

import base64
import itertools
import math
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from ...core import is_whole
from ...data.federated import FederatedData
from ...engine.local import LocalSGD
from ...engine.models import Model, is_softmax_network
from ...federation.coordinator import Coordinator
from ...federation.interfaces import Stage
from ...federation.sampling import PoissonSelection, UniformSelection
from ...federation.schedule import Synchronous
from ...federation.stages import ByExamples, Uniform
from ..page import stages
from .charts import AnyChart, drawn_names
from .controls import Control

MOST = 4000                                    # positions of the controls that one setting may follow, taken together
ROOM = 1_500_000                               # bytes of examples and deals, packed, that a page may carry
NOBODY, TESTED = 0xFFFF, 0x8000                # in a deal: an example that no client has; one that its client tests on
QUANTITIES = ("round", "accuracy", "client_accuracy", "clients", "planned", "MB", "MB_up", "MB_down", "epsilon", "plain_accuracy",
              "formula", "bound", "encoded", "message", "psnr")


@dataclass(frozen=True)
class By:
    """A setting that follows one or more controls: of(their values), at each of their positions; alone, the value itself."""

    controls: str | Sequence[str]
    of: Callable[..., Any] = lambda value: value

    @property
    def names(self) -> tuple[str, ...]:
        return (self.controls,) if isinstance(self.controls, str) else tuple(self.controls)


@dataclass(frozen=True)
class Recipe:
    """FedAvg of a dense network with softmax, on whole-number labels; what a page can train by itself.

    data                  FederatedData, or By(…, of=…): the same examples in other hands
    fraction, epochs, lr, batch_size (None: B = ∞), rounds, seed        as in Synchronous and LocalSGD
    keep, bits, feedback  TopK(keep, feedback) below 1; QSGD(bits) below 32, SignSGD at 1 (its feedback only if nothing is sparse)
    clip, noise, delta    CentralDP(clip, noise, delta): L2 bound, noise multiplier; takes uniform=True
    budget                instead of noise: as much as makes the whole run cost (budget, delta)
    poisson, uniform      PoissonSelection() instead of UniformSelection(); Uniform() weights instead of ByExamples()

    lines   of charts: name → what is on x and on y, of QUANTITIES: the round, the accuracy, megabytes both ways, up or down, …,
            epsilon by Rényi, plain_accuracy (of the same run without clip and noise); or a number that Python knows, or a
            function without arguments that returns it
    bars    of bar charts: title → quantities; formula, bound, encoded and message are bytes of client 0's first update
    picture of an image chart: two names, for the first example, a square image, and for what the attacker of sandwich.py reads
            off one client's noisy update of it; psnr says in dB how well
    text    the line of text, for str.format: quantities and settings by their names
    differs what the page leaves out or does otherwise than the experiment in Python; what all pages do otherwise is said anyway

    Raises ValueError or TypeError for what no page can train. Charts and lines that it does not name are left out of the page.
    """

    data: FederatedData | By
    model: Model
    rounds: int | By
    lines: Mapping[str, tuple[Any, Any]]
    text: str = ""
    bars: Mapping[str, Sequence[str]] = field(default_factory=dict)
    picture: tuple[str, str] | None = None
    differs: str = ""
    fraction: float | By = 0.1
    epochs: int | By = 1
    lr: float | By = 0.1
    batch_size: int | By | None = 10
    keep: float | By = 1.0
    bits: int | By = 32
    feedback: bool | By = False
    clip: float | By = math.inf
    noise: float | By = 0.0
    delta: float = 1e-5
    budget: float | By | None = None
    poisson: bool = False
    uniform: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if not is_softmax_network(self.model):
            raise ValueError(f"a page trains dense networks with softmax, such as mlp(64, 32, 10), not {self.model!r}")
        for name in SETTINGS:
            if not isinstance(getattr(self, name), By):
                _check_setting(name, getattr(self, name))
        if not isinstance(self.data, FederatedData | By):
            raise TypeError(f"data must be FederatedData, or By(control, of=…) that returns it, not {self.data!r}")
        for place, quantity in [*((n, q) for n, pair in self.lines.items() for q in pair),
                                *((n, q) for n, some in self.bars.items() for q in some)]:
            if not (quantity in QUANTITIES or callable(quantity) or isinstance(quantity, int | float)):
                raise ValueError(f"{place!r} shows {quantity!r}; a page knows {', '.join(QUANTITIES)}")
        known = {*QUANTITIES, *SETTINGS}
        if strange := [name for name in re.findall(r"\{(\w*)[^}]*\}", self.text) if name not in known]:
            raise ValueError(f"the text speaks of {strange[0]!r}; a page knows {', '.join(sorted(known))}")
        written = re.findall(r"\{\w*:?([^}]*)\}", self.text)
        if strange := [spec for spec in written if not re.fullmatch(r"(,?(\.\d+)?[f%])?|,", spec)]:
            raise ValueError(f"the text writes a number as {strange[0]!r}; a page can write .1%, .2f, ,.0f and ,")
        pixels = self.model.sizes[0]                                                      # type: ignore[attr-defined]
        if self.picture is not None and (len(self.model.sizes) != 2 or math.isqrt(pixels) ** 2 != pixels):      # type: ignore[attr-defined]
            raise ValueError(f"the picture is read off a softmax regression of square images, not off {self.model!r}")
        noisy = bool(self.noise) or self.budget is not None
        if noisy and not (self.uniform and self.poisson):
            raise ValueError("noise in a page is priced for Poisson cohorts and equal weights: say poisson=True, uniform=True")
        if noisy and (self.feedback or self.bits != 32):
            raise ValueError("noise goes with keep alone in a page: a residual would carry what is not noised, and rounding "
                             "lengthens what is clipped; leave feedback and bits as they are")  # fmt: skip

    # -- in Python -----------------------------------------------------------------------------------------------------------

    def setting(self, name: str, values: Mapping[str, Any]) -> Any:
        """What a setting is where the controls stand at these values."""
        given = getattr(self, name)
        return given.of(*(values[control] for control in given.names)) if isinstance(given, By) else given

    def coordinator(self, **values: Any) -> Coordinator:
        """The experiment that the page trains, as the library has it."""
        now = {each.name: self.setting(each.name, values) for each in fields(self)}
        who = PoissonSelection() if self.poisson else UniformSelection()
        training = LocalSGD(now["lr"], now["epochs"], now["batch_size"])
        return Coordinator(now["data"], self.model, training, Synchronous(now["fraction"]), who,
                           Uniform() if self.uniform else ByExamples(), self._stages(now), seed=self.seed)  # fmt: skip

    def _stages(self, now: Mapping[str, Any]) -> list[Stage]:
        from ...privacy.accounting import RDP, noise_for_budget

        noise = now["noise"]
        if now["clip"] < math.inf and now["budget"] is not None:
            noise = noise_for_budget(now["budget"], now["delta"], now["rounds"], now["fraction"], RDP())
        return stages(now["clip"], noise, now["keep"], now["bits"], now["feedback"],
                      delta=now["delta"], accountant=RDP(), noise_seed=self.seed)  # fmt: skip

    # -- for the page --------------------------------------------------------------------------------------------------------

    def check(self, controls: Sequence[Control], charts: Sequence[AnyChart]) -> None:
        """Refuse a recipe that speaks of controls or charts that the explorer has not, or that is too much for a page."""
        counts = {control.name: len(control.values) for control in controls if control.kind != "button"}
        for name in (each.name for each in fields(self)):
            if isinstance(by := getattr(self, name), By):
                if strange := [control for control in by.names if control not in counts]:
                    raise ValueError(f"{name} follows the control {strange[0]!r}; there are {', '.join(counts)}")
                if (many := math.prod(counts[control] for control in by.names)) > MOST:
                    raise ValueError(f"{name} follows {' and '.join(by.names)}, which have {many:,} positions together; a page "
                                     f"takes {MOST:,} at most")  # fmt: skip
        drawn = drawn_names(charts)
        self.coordinator(**{control.name: control.values[control.start] for control in controls})      # refuses what cannot be
        mine = (("lines", self.lines), ("bars", self.bars), ("images", self.picture or ()))
        if strange := [name for kind, some in mine for name in some if name not in drawn[kind]]:
            raise ValueError(f"the recipe draws {strange[0]!r}, which no chart of the explorer does")

    def shown(self, charts: Sequence[AnyChart]) -> list[AnyChart]:
        """The charts of which the page draws something."""
        mine = {*self.lines, *self.bars, *(self.picture or ())}
        return [chart for chart in charts if mine & {name for names in chart.draws.values() for name in names}]

    def plain(self, controls: Sequence[Control]) -> dict[str, Any]:
        """All of it as JSON data. The settings that follow controls stand in tables, in the order of the positions, the last
        control fastest; examples and deals are deflated bytes in base64. ValueError if they are too much for a page."""
        known = {control.name: control for control in controls}
        constant, tables = {"sizes": list(self.model.sizes)}, {}                          # type: ignore[attr-defined]
        for name in SETTINGS:
            if isinstance(by := getattr(self, name), By):
                at = [by.of(*values) for values in itertools.product(*(known[control].values for control in by.names))]
                for value in at:
                    _check_setting(name, value)
                tables[name] = {"controls": by.names, "at": [_json(value) for value in at]}
            else:
                constant[name] = _json(getattr(self, name))
        by = self.data if isinstance(self.data, By) else By((), of=lambda: self.data)
        dealt = [by.of(*values) for values in itertools.product(*(known[control].values for control in by.names))]
        examples, first = _examples(dealt[0]), dealt[0]
        for other in dealt[1:]:
            if other.ids != first.ids or not (np.array_equal(other.x, first.x) and np.array_equal(other.y, first.y)):
                raise ValueError("data must be the same examples and clients wherever the controls stand, in other hands only")
        packed = {**examples, "deals": _planes(np.stack([_deal(each) for each in dealt]))}
        if (size := sum(len(each) for each in packed.values() if isinstance(each, str))) > ROOM:
            raise ValueError(f"examples and deals take {size:,} bytes; a page takes {ROOM:,} at most: fewer examples, please")
        lines = {name: [q() if callable(q) else q for q in pair] for name, pair in self.lines.items()}
        numbered = first.ids == tuple(range(len(first.ids)))
        return {"constant": constant, "tables": tables, **packed, "deal": by.names, "clients": len(first.ids),
                "ids": None if numbered else list(first.ids), "lines": lines, "bars": dict(self.bars),
                "picture": self.picture, "text": self.text}  # fmt: skip


def checked(recipe: object, controls: Sequence[Control], charts: Sequence[AnyChart]) -> Recipe | None:
    """The recipe, if it fits the explorer; None is none."""
    if recipe is not None and not isinstance(recipe, Recipe):
        raise TypeError(f"recipe must be a Recipe(…), or None, not {recipe!r}")
    if recipe is not None:
        recipe.check(controls, charts)
    return recipe


SETTINGS = {                                                 # what each must be, in words and as a test
    "rounds": ("a whole number from 1", lambda v: is_whole(v, 1)),
    "fraction": ("a number in (0, 1]", lambda v: 0 < v <= 1),
    "epochs": ("a whole number from 1", lambda v: is_whole(v, 1)),
    "lr": ("a positive, finite number", lambda v: 0 < v < math.inf),
    "batch_size": ("a whole number from 1, or None for all", lambda v: v is None or is_whole(v, 1)),
    "keep": ("a number in (0, 1]", lambda v: 0 < v <= 1),
    "bits": ("a whole number from 1 to 16, or 32", lambda v: is_whole(v, 1) and (v <= 16 or v == 32)),
    "feedback": ("True or False", lambda v: isinstance(v, bool | np.bool_)),
    "clip": ("a number above 0", lambda v: v > 0),
    "noise": ("a finite number from 0", lambda v: 0 <= v < math.inf),
    "delta": ("a number between 0 and 1", lambda v: 0 < v < 1),
    "budget": ("a positive, finite epsilon, or None", lambda v: v is None or 0 < v < math.inf),
    "poisson": ("True or False", lambda v: isinstance(v, bool)),
    "uniform": ("True or False", lambda v: isinstance(v, bool)),
    "seed": ("a whole number", is_whole),
}  # fmt: skip


def _check_setting(name: str, value: Any) -> None:
    must, holds = SETTINGS[name]
    try:
        fits = holds(value)
    except TypeError:                                        # no number at all
        fits = False
    if not fits:
        raise ValueError(f"{name} must be {must}, or By(…) that returns such, not {value!r}")


def _json(value: Any) -> Any:
    """A setting in JSON, which has no infinity: None is B = ∞, and no clip."""
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and math.isinf(value) else value


def _examples(data: FederatedData) -> dict[str, Any]:
    """Examples and labels, those held out last. Whole multiples of 1/s travel as one byte each, other numbers as four."""
    if not data.classes or data.classes > 256 or data.x_test is None or not len(data.x_test):
        raise ValueError("a page measures the share of right answers: data must have 2 to 256 classes and held-out examples")
    x, y = np.concatenate([data.x, data.x_test]), np.concatenate([data.y, data.y_test])
    for scale in (1, 2, 4, 8, 15, 16, 64, 100, 128, 255):
        whole = np.rint(x * scale)
        if whole.min() >= 0 and whole.max() <= 255 and np.array_equal(np.float32(whole / scale), x):
            return {"x": _packed(whole.astype(np.uint8)), "scale": scale, "y": _packed(y.astype(np.uint8)), "pool": len(data.x)}
    return {"x": _packed(x.astype("<f4")), "scale": 0, "y": _packed(y.astype(np.uint8)), "pool": len(data.x)}


def _deal(data: FederatedData) -> np.ndarray:
    """(N,) uint16: whose each example is."""
    if len(data.ids) >= TESTED - 1:
        raise ValueError(f"a page takes {TESTED - 2:,} clients at most, not {len(data.ids):,}")
    deal = np.full(len(data.x), NOBODY, np.uint16)
    for k, (train, test) in enumerate(zip(data.train, data.test, strict=True)):
        if (np.diff(train) < 0).any() or (np.diff(test) < 0).any():
            raise ValueError(f"the rows of client {data.ids[k]!r} must rise, as those of partition(…) do")
        deal[train], deal[test] = k, k | TESTED
    return deal


def _planes(numbers: np.ndarray) -> str:
    """uint16 as two planes of bytes, low and high, which deflate better."""
    return _packed(np.stack([numbers & 255, numbers >> 8]).astype(np.uint8))


def _packed(array: np.ndarray) -> str:
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15, 9)
    return base64.b64encode(deflate.compress(np.ascontiguousarray(array).tobytes()) + deflate.flush()).decode()
