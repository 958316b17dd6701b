"""`Explorer`: controls, charts and a real training run behind them, in a notebook cell.

    def experiment(fraction, epochs):
        for state, record in Coordinator(…).run(20):
            yield Point({"accuracy by round": (record.version, record.metrics["accuracy"])})

    Explorer(experiment, [Slider("fraction", 0.1, 1.0, 0.1), Slider("epochs", 1, 5)],
             [Chart("accuracy by round", x="round", y="accuracy", x_range=(0, 20), y_range=(0, 1))])

The default run is made at once, in the cell that builds the explorer: its errors are the cell's errors, under nbval and
papermill too, and its picture is stored in the notebook. So the default run should take a second at most (`eager=False`
builds without it). Everything after that happens on a worker thread (live.py) while the notebook stays usable.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from ...files import write
from .cells import VIEW, display_stored, enter_cell
from .charts import MOST_LINES, SCRIPT, AnyChart, axes, page, settings, specification
from .controls import Control
from .live import MAX_PINS, Live, log
from .plots import DASHES, colour, explorer_png
from .points import Run
from .recipe import Recipe, checked
from .recipe_page import LIVING, living, standalone

FULL = 1.0                                     # seconds between two whole frames; in between only what is new is sent


class Explorer(anywidget.AnyWidget):
    """Controls, charts, and a real experiment that is made again whenever a control moves.

    run       generator function, one argument a control; yields a Point, or {line: (x, y)}, after each round
    controls  Slider, LogSlider, Choice, Switch, Button
    charts    Chart (its lines by name), BarChart, ImageChart, PlaneChart and TimelineChart, drawn side by side
    title     one line above the charts
    eager     make the default run now, in the caller's thread (see above)
    recipe    the experiment in plain data: exported pages then train it by themselves, where others show the picture

    Raises what the experiment raises in its default run; later errors are shown in red, logged, kept in `.error`, and
    raised by `.result()`.
    """

    _esm = page(*SCRIPT)
    _css = page("explorer.css")
    spec = traitlets.Dict().tag(sync=True)                  # what to build; never changes
    frame = traitlets.Dict().tag(sync=True)                 # what to show; only the kernel writes it

    def __init__(self, run: Callable[..., Iterable[Any]], controls: Sequence[Control],
                 charts: Sequence[AnyChart], title: str = "", eager: bool = True, recipe: Recipe | None = None) -> None:
        take_down = enter_cell()
        self.live = Live(run, controls, charts)             # refuses bad experiments before a comm is opened
        self.recipe = checked(recipe, controls, charts)
        if eager:
            self.live.run_here()
        look = {"palette": [colour(i) for i in range(MOST_LINES * (MAX_PINS + 1))],
                "dashes": [" ".join(map(str, dash)) for dash in DASHES]}
        self._last = {**self.live.frame(), "number": 0}     # what every page knows by now
        self._whole = time.monotonic()
        super().__init__(spec={**specification(title, controls, charts), **look}, frame=self._last)
        self.live.publish = self._publish
        self.on_msg(self._heard)
        take_down(self)

    # -- for the reader of the notebook ------------------------------------------------------------------------------

    @property
    def error(self) -> BaseException | None:
        return self.live.error

    def result(self, timeout: float | None = None) -> Run:
        """The finished run (`.values`, `.lines`, `.bars`), waiting for it; raises what the experiment raised."""
        return self.live.result(timeout)

    def save_page(self, path: Path | str) -> Path:
        """Write a page of its own, which trains without Python, opens from a file and asks nobody for anything: for a site, a
        phone, a colleague. ValueError if the explorer has no recipe."""
        path, (bundle, _) = Path(path), self._repr_mimebundle_()
        write(path, standalone(bundle, self.spec["title"]))
        return path

    def close(self) -> None:
        """Stop training and take the widget off the page."""
        if hasattr(self, "live"):                           # ipywidgets closes what a refused constructor left, too
            self.live.close()
            self.live.publish = lambda frame: None
            super().close()

    # -- between the page and the worker -----------------------------------------------------------------------------

    def _publish(self, frame: dict[str, Any]) -> None:
        """Called from whichever thread has news. The page never writes `frame`, so no echo can meet it.

        While a run grows, only its news are sent, as a message of their own; a whole frame follows once a second and at
        the end, for pages that were opened in between or missed a message.
        """
        frame, now = {**frame, "number": self._last["number"] + 1}, time.monotonic()
        news = growth(self._last, frame) if now - self._whole < FULL else None
        self._last = frame
        if news is not None:
            self.send(news)
        else:
            self._whole = now
            self.frame = frame

    def _heard(self, widget: Any, content: dict[str, Any], buffers: Any) -> None:
        """A message of the page: {"do": "move" | "pin" | "reset" | "stop", "move": its name, …}. Never waits."""
        try:
            match content:
                case {"do": "move", "at": dict() as at, "press": str() as press, "move": str() as move}:
                    self.live.move(at, press, move)
                case {"do": "pin" | "reset" | "stop" as verb, "move": str() as move}:
                    {"pin": self.live.pin, "reset": self.live.reset, "stop": self.live.stop}[verb](move)
                case _:
                    raise ValueError(f"the page sent {content!r}, which means nothing here")
        except Exception as error:
            self.live.error, self.live.status = error, "error"
            log.exception("the explorer could not do what the page asked")
            self.live.tell()

    # -- what a notebook stores --------------------------------------------------------------------------------------

    def _summary(self) -> str:
        """The same text for the same experiment: no measured number, no time, no address."""
        at = settings(self.live.controls, self.live.values())
        points = max([len(line) for line in self.live.shown.lines.values()], default=0)
        charts = "; ".join(chart.title + axes(chart) for chart in self.live.charts)
        return f"{self.spec['title'] or 'Explorer'}. At {at or 'its start'}: {charts}; {points} points."

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None, **kwargs: Any) -> tuple[dict, dict]:
        """The live view, and for every reader without a kernel a picture of the run on show and one line of text."""
        text, runs = self._summary(), self.live.frame()["runs"]
        caption = settings(self.live.controls, self.live.shown.values)
        picture = base64.b64encode(explorer_png(caption, self.live.charts, runs)).decode()
        view = {"version_major": 2, "version_minor": 0, "model_id": self.model_id}
        alive = {} if self.recipe is None else {LIVING: living(self.live, self.spec, self.recipe)}
        return {"text/plain": text, "image/png": picture, VIEW: view, **alive}, {"image/png": {"alt": text}}

    def _ipython_display_(self) -> None:
        display_stored(*self._repr_mimebundle_())

    def __repr__(self) -> str:
        return self._summary()


def growth(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any] | None:
    """How to make the frame `new` of `old`: what is small, and of each line how many points stay and which follow.

    None if that cannot be said shortly: a run began, ended or was pinned.
    """
    if not old["status"] == new["status"] == "running" or len(old["runs"]) != len(new["runs"]):
        return None
    before, after = old["runs"][0], new["runs"][0]
    lines = {}
    for name, points in after["lines"].items():
        known = before["lines"].get(name, [])
        stay = next((i for i, (a, b) in enumerate(zip(known, points, strict=False)) if a != b), min(len(known), len(points)))
        if stay < len(points) or stay < len(known):
            lines[name] = [stay, points[stay:]]
    rest = {key: value for key, value in after.items() if key != "lines" and value != before[key]}
    return {**{key: value for key, value in new.items() if key != "runs"}, "after": old["number"], "lines": lines,
            "gone": [name for name in before["lines"] if name not in after["lines"]],
            "rest": rest, "labels": [run["label"] for run in new["runs"]]}
