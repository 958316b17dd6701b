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
import signal
import weakref
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import anywidget
import traitlets
from IPython import get_ipython
from IPython.display import display

from .controls import BarChart, Button, Chart, Choice, Control, LogSlider, Slider, Switch, describe, specification
from .live import Live, Point, Run, log, stop_all
from .plots import DASHES, PALETTE, explorer_png

__all__ = ["BarChart", "Button", "Chart", "Choice", "Explorer", "LogSlider", "Point", "Slider", "Switch"]

VIEW = "application/vnd.jupyter.widget-view+json"

# JupyterLab prefers the live view to the picture and, in a reopened notebook, prints "model not found" in its place.
# So the picture is an output of its own (hidden by explorer.css beside a living widget), and this one, which shows
# nothing itself, hides that message: a dead view is a node of class jupyter-widgets with no element in it.
MARK = """<span class="flx-mark"></span><style>
.jp-OutputArea-child:has(.flx-mark) { display: none }
.jp-OutputArea-child:has(.flx-mark) + .jp-OutputArea-child > .jupyter-widgets:not(:has(*)) { display: none }
</style>"""


class Explorer(anywidget.AnyWidget):
    """Controls, charts, and a real experiment that is made again whenever a control moves.

    run       generator function, one argument a control; yields a Point, or {line: (x, y)}, after each round
    controls  Slider, LogSlider, Choice, Switch, Button
    charts    Chart (its lines by name) and BarChart, drawn side by side
    title     one line above the charts
    eager     make the default run now, in the caller's thread (see above)

    Raises what the experiment raises in its default run; later errors are shown in red, logged, kept in `.error`, and
    raised by `.result()`.
    """

    _esm = Path(__file__).with_name("explorer.js")
    _css = Path(__file__).with_name("explorer.css")
    spec = traitlets.Dict().tag(sync=True)                  # what to build; never changes
    frame = traitlets.Dict().tag(sync=True)                 # what to show; only the kernel writes it

    def __init__(self, run: Callable[..., Iterable[Any]], controls: Sequence[Control],
                 charts: Sequence[Chart | BarChart], title: str = "", eager: bool = True) -> None:
        siblings = _siblings()
        self.live = Live(run, controls, charts)             # refuses bad experiments before a comm is opened
        if eager:
            self.live.run_here()
        palette = {"palette": list(PALETTE), "dashes": [" ".join(map(str, dash)) for dash in DASHES]}
        super().__init__(spec={**specification(title, controls, charts), **palette}, frame=self.live.frame())
        self.live.publish = self._publish
        self.on_msg(self._heard)
        siblings.append(weakref.ref(self))

    # -- for the reader of the notebook ------------------------------------------------------------------------------

    @property
    def error(self) -> BaseException | None:
        return self.live.error

    def result(self, timeout: float | None = None) -> Run:
        """The finished run (`.values`, `.lines`, `.bars`), waiting for it; raises what the experiment raised."""
        return self.live.result(timeout)

    def close(self) -> None:
        """Stop training and take the widget off the page."""
        if hasattr(self, "live"):                           # ipywidgets closes what a refused constructor left, too
            self.live.close()
            super().close()

    # -- between the page and the worker -----------------------------------------------------------------------------

    def _publish(self, frame: dict[str, Any]) -> None:
        """Called from whichever thread has news. The page never writes this trait, so no echo can meet it."""
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
        run = self.live.frame()["runs"][0]
        controls = [c for c in self.live.controls if c.kind != "button"]
        at = ", ".join(describe(c, self.live.values()[c.name]) for c in controls)
        points = max([len(line) for line in run["lines"].values()], default=0)
        charts = "; ".join(f"{c.title} ({c.y}{f' against {c.x}' if c.x else ''})" for c in self.live.charts)
        return f"{self.spec['title'] or 'Explorer'}. At {at or 'its start'}: {charts}; {points} points."

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None, **kwargs: Any) -> tuple[dict, dict]:
        """The live view, and for every reader without a kernel a picture of the run on show and one line of text."""
        text = self._summary()
        controls = [c for c in self.live.controls if c.kind != "button"]
        frame = self.live.frame()
        caption = ", ".join(f"{c.label or c.name} = {v} {c.unit}".strip()
                            for c, v in zip(controls, frame["runs"][0]["values"], strict=True))
        picture = base64.b64encode(explorer_png(caption, self.live.charts, frame["runs"])).decode()
        view = {"version_major": 2, "version_minor": 0, "model_id": self.model_id}
        return {"text/plain": text, "image/png": picture, VIEW: view}, {"image/png": {"alt": text}}

    def _ipython_display_(self) -> None:
        """Picture, mark, view: three outputs, so that each reader finds the one that it can show (see MARK)."""
        data, metadata = self._repr_mimebundle_()
        view = data.pop(VIEW)
        display(data, metadata=metadata, raw=True)
        display({"text/html": MARK}, raw=True)
        display({VIEW: view, "text/plain": ""}, raw=True)          # the empty text is for readers without widgets

    def __repr__(self) -> str:
        return self._summary()


# -- running a cell again, interrupting the kernel -----------------------------------------------------------------

_cells: dict[str, tuple[Any, list[weakref.ref[Explorer]]]] = {}    # cell -> (its last execution, explorers made in it)


def _siblings() -> list[weakref.ref[Explorer]]:
    """The explorers of this cell's present execution; those of an earlier one are closed. Outside Jupyter: none."""
    shell = get_ipython()
    if shell is None or not hasattr(shell, "get_parent"):
        return []
    _listen_for_interrupts(shell)
    parent = shell.get_parent() or {}
    cell = parent.get("metadata", {}).get("cellId") or parent.get("content", {}).get("code", "")
    execution = parent.get("header", {}).get("msg_id")
    last, explorers = _cells.get(cell, (None, []))
    if last != execution:
        for old in filter(None, (reference() for reference in explorers)):
            old.close()
        explorers = []
    _cells[cell] = (execution, explorers)
    return explorers


def _listen_for_interrupts(shell: Any) -> None:
    """Between cells ipykernel ignores SIGINT, and training goes on between cells: so let it stop the training then.

    While a cell runs the interrupt belongs to the cell; `post_run_cell` sees how it ended, and hands the idle handler
    over once the kernel is back in its loop (ipykernel restores its own handler after the cell).
    """
    def idle() -> None:
        if signal.getsignal(signal.SIGINT) in (signal.SIG_IGN, None):
            signal.signal(signal.SIGINT, lambda number, stack: stop_all())

    def after_cell(result: Any) -> None:
        if isinstance(result.error_in_exec, KeyboardInterrupt):
            stop_all()
        loop = getattr(shell.kernel, "io_loop", None)
        if loop is not None:
            loop.call_later(0.2, idle)

    if not getattr(shell, "_flx_listens", False):
        shell._flx_listens = True
        shell.events.register("post_run_cell", after_cell)
