"""A widget and its notebook cell: what the cell stores, what running it again closes, what an interrupt of the kernel stops."""

from __future__ import annotations

import re
import signal
import weakref
from collections.abc import Callable
from typing import Any

from IPython import get_ipython
from IPython.display import display
from ipywidgets import DOMWidget

from .live import stop_all

VIEW = "application/vnd.jupyter.widget-view+json"

# JupyterLab prefers the live view to the picture and, in a reopened notebook, prints "model not found" in its place.
# So the picture is an output of its own (hidden by explorer.css beside a living widget), and this one, which shows
# nothing itself, hides that message: a dead view is a node of class jupyter-widgets with no element in it.
MARK = """<span class="flx-mark"></span><style>
.jp-OutputArea-child:has(.flx-mark) { display: none }
.jp-OutputArea-child:has(.flx-mark) + .jp-OutputArea-child > .jupyter-widgets:not(:has(*)) { display: none }
</style>"""


def display_stored(data: dict[str, Any], metadata: dict[str, Any], name: str | None = None) -> None:
    """Picture, mark, view: three outputs, so that each reader finds the one that it can show (see MARK). name: under which
    update_display finds the picture later."""
    view = data.pop(VIEW)
    display(data, metadata=metadata, raw=True, **({} if name is None else {"display_id": name}))
    display({"text/html": MARK}, raw=True)
    display({VIEW: view, "text/plain": ""}, raw=True)              # the empty text is for readers without widgets


# -- running a cell again ----------------------------------------------------------------------------------------------

_cells: dict[str, tuple[Any, list[weakref.ref[DOMWidget]]]] = {}   # cell -> (its last execution, widgets made in it)


def enter_cell() -> Callable[[DOMWidget], None]:
    """Close the widgets of an earlier execution of this cell; returns what takes down a new one. Outside Jupyter: nothing.

    A host that does not say which cell runs (nbclient, Voila) runs each once, and two of its cells may hold the same text:
    there nothing is closed.
    """
    shell = get_ipython()
    if shell is None or not hasattr(shell, "get_parent"):
        return lambda widget: None
    _listen_for_interrupts(shell)
    parent = shell.get_parent() or {}
    cell, execution = parent.get("metadata", {}).get("cellId"), parent.get("header", {}).get("msg_id")
    if not cell:
        return lambda widget: None
    last, widgets = _cells.get(cell, (None, []))
    if last != execution:
        for old in filter(None, (reference() for reference in widgets)):
            close(old)
            _forget(shell, old)
        widgets = []
    _cells[cell] = (execution, widgets)
    return lambda widget: widgets.append(weakref.ref(widget))


def close(widget: DOMWidget) -> None:
    """Close the widget and the layout that ipywidgets made for it, whose comm would stay open."""
    layout = widget.layout
    widget.close()
    if layout is not None:
        layout.close()


def _forget(shell: Any, widget: DOMWidget) -> None:
    """Take a closed widget out of IPython's history of results (Out, _, __, ___, _7), or it lives as long as the kernel."""
    names, hook = getattr(shell, "user_ns", {}), getattr(shell, "displayhook", None)
    for name in [name for name, value in names.items() if value is widget and re.fullmatch(r"_{1,3}|_\d+", name)]:
        if name.strip("_"):
            del names[name]
        else:
            names[name] = ""
    for number in [number for number, value in names.get("_oh", {}).items() if value is widget]:
        del names["_oh"][number]
    for name in ("_", "__", "___"):
        if getattr(hook, name, None) is widget:
            setattr(hook, name, "")


# -- interrupting the kernel -------------------------------------------------------------------------------------------


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
