"""What the workbook's verbs answer with: a card that says pass, fail or not yet in words, signs and colour."""

from __future__ import annotations

import json
import math
from contextlib import suppress
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

RESULT_MIME = "application/vnd.fl-course.result+json"
SIGNS = {"pass": "✓", "fail": "✗", "todo": "…", "info": "→"}
WORDS = {"pass": "PASS", "fail": "FAIL", "todo": "NOT YET", "info": "NOTE"}
# Borders only: the text keeps the page's own colour, so that the card can be read on a light and on a dark theme.
COLOURS = {"pass": "#009e73", "fail": "#d55e00", "todo": "#888888", "info": "#0072b2"}


@dataclass(frozen=True, repr=False)
class Result:
    """The answer of `check`: state is "pass", "fail" or "todo" (not written yet)."""

    name: str
    state: str
    message: str
    hint: str = ""                            # of the mistake that was recognised, or of none

    @property
    def passed(self) -> bool:
        return self.state == "pass"

    def __repr__(self) -> str:
        hint = f"\n  Hint: {self.hint}" if self.hint else ""
        return f"{SIGNS[self.state]} {WORDS[self.state]}  {self.name}: {self.message}{hint}"

    def _repr_html_(self) -> str:
        hint = f"<div><b>Hint.</b> {_paragraph(self.hint)}</div>" if self.hint else ""
        return card(self.state, self.name, f"<div>{_paragraph(self.message)}</div>{hint}")


@dataclass(frozen=True, repr=False)
class Note:
    """A text for the reader: a hint, a solution, a table of progress. `code` is shown as written."""

    title: str
    text: str
    code: str = ""

    def __repr__(self) -> str:
        return "\n".join(part for part in (f"{SIGNS['info']} {self.title}", self.text, self.code) if part)

    def _repr_html_(self) -> str:
        code = f'<pre style="margin:4px 0 0 0">{escape(self.code)}</pre>' if self.code else ""
        return card("info", self.title, f"<div>{_paragraph(self.text)}</div>{code}")


def card(state: str, title: str, body: str) -> str:
    """The HTML of a card; `body` is HTML already. role=status: a screen reader says it when it appears."""
    style = f"border-left:5px solid {COLOURS[state]};padding:4px 10px;margin:2px 0;color:inherit"
    return (
        f'<div role="status" style="{style}">'
        f'<b><span aria-hidden="true">{SIGNS[state]}</span> {WORDS[state]}</b> <code>{escape(title)}</code>{body}</div>'
    )


def report(**numbers: float | int | str | bool) -> Report:
    """Hand numbers to `fl-course sweep`: `report(accuracy=0.91, megabytes=3.2)` as the last line of a cell.

    The notebook shows them as text; a sweep gathers them from the outputs of all its notebooks into one table.
    """
    for name, value in numbers.items():
        if not isinstance(value, bool | int | float | str | np.generic) and not _scalar(value):
            raise TypeError(f"report({name}=…) takes a number or a text, not {type(value).__name__}")
    return Report({name: _jsonable(value) for name, value in numbers.items()})


@dataclass(frozen=True, repr=False)
class Report:
    """Numbers that a notebook reports; see `report`."""

    numbers: dict[str, Any]

    def __repr__(self) -> str:
        return "\n".join(f"{name} = {_show(value)}" for name, value in self.numbers.items())

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        return {"text/plain": repr(self), RESULT_MIME: dict(self.numbers)}


def reported(notebook: Any) -> dict[str, Any]:
    """All numbers that the outputs of a notebook report; a later report of the same name wins."""
    found: dict[str, Any] = {}
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            bundle = output.get("data", {}).get(RESULT_MIME, {})
            with suppress(ValueError, RecursionError):           # of somebody's own making: no report
                bundle = json.loads(bundle) if isinstance(bundle, str) else bundle
            for name, value in bundle.items() if isinstance(bundle, dict) else ():
                found[name] = float(value) if value in ("inf", "-inf", "nan") else value
    return found


def _scalar(value: Any) -> bool:
    return getattr(value, "ndim", None) == 0 and hasattr(value, "item")


def _jsonable(value: Any) -> Any:
    value = value.item() if hasattr(value, "item") else value
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value   # JSON knows no infinity


def _show(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _paragraph(text: str) -> str:
    return escape(text).replace("\n", "<br>")
