"""An explorer with a recipe as a piece of HTML that trains by itself: the unchanged explorer.js, a host for it, the engine.

    living(…)                   all that such a piece holds, as JSON data: what a notebook stores beside the picture
    widget(data, picture)       the piece; the picture stays where there is no JavaScript
    head(), foot()              what a page needs once, however many pieces it has
    standalone(…)               a whole page

In any other site, a docs site say: `explorer.save_page("page.html")`, and link it, or show it in an <iframe>.
"""

from __future__ import annotations

import json
from dataclasses import replace
from html import escape
from typing import Any

from .. import page as engine_files
from .charts import SCRIPT, Chart, page, settings, specification, table_row
from .live import Live
from .recipe import By, Recipe

LIVING = "application/vnd.fl-course.living+json"             # the key of `living(…)` among a cell's outputs
SAME = ("It draws the same clients, batches and first model as the library and takes the same steps; sums are added up in "
        "another order, so last digits may differ.")
ROUNDED = "The dice of rounding are this page's own, not NumPy's."
NOISED = ("The noise is drawn in this page, by a generator that repeats it for the same setting: other dice than the library's, "
          "and no secret. Epsilon is that of the library's Rényi accountant, with its orders.")


def living(live: Live, spec: dict[str, Any], recipe: Recipe) -> dict[str, Any]:
    """What a page needs to go on from where an explorer stands: {spec, frame, recipe, how}. None of it is code."""
    run, charts = live.shown, [_part(chart, recipe) for chart in recipe.shown(live.charts)]
    picture = {**run.picture(), "marks": {}, "outlines": {}, "jobs": {}, "points": {}}
    for kind, mine in (("lines", recipe.lines), ("bars", recipe.bars), ("images", recipe.picture or ())):
        picture[kind] = {name: drawn for name, drawn in picture[kind].items() if name in mine}
    row = table_row(0, settings(live.controls, run.values), run.lines, charts)
    at = {c.name: 0 if c.kind == "button" else c.values.index(run.values[c.name]) for c in live.controls}
    frame = {"move": "", "at": at, "status": "done", "text": run.text, "progress": None, "error": "", "number": 0,
             "runs": [{"label": "now", **picture, "row": row}]}  # fmt: skip
    look = {name: spec[name] for name in ("palette", "dashes")}
    return {"spec": {**specification(spec["title"], live.controls, charts), **look}, "frame": frame,
            "recipe": recipe.plain(live.controls), "how": how(recipe)}  # fmt: skip


def _part(chart: Any, recipe: Recipe) -> Any:
    """A chart of lines without those that the page does not draw."""
    if not isinstance(chart, Chart):
        return chart
    return replace(chart, lines=tuple(name for name in chart.names if name in recipe.lines))


def how(recipe: Recipe) -> str:
    """What the page does otherwise than Python, in words."""
    rounds = recipe.bits != 32 if not isinstance(recipe.bits, By) else True
    noisy = bool(recipe.noise) or recipe.budget is not None
    return " ".join(part for part in (SAME, rounds * ROUNDED, noisy * NOISED, recipe.differs) if part)


def widget(data: dict[str, Any], picture: str, alt: str) -> str:
    """The piece of HTML. picture: the PNG in base64, which a reader without JavaScript sees."""
    held = json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    return (f'<div class="flx-living"><img alt="{escape(alt)}" src="data:image/png;base64,{picture}">'
            f'<script type="application/json">{held}</script></div>')


def head() -> str:
    return f"<style>{page('explorer.css')}</style>"


def foot() -> str:
    """Two scripts, at the end of the page: the engine, whose text a Worker is made of, and the explorers' host."""
    return (f'<script id="flx-engine" data-simd="{engine_files.kernels()}">{engine_files.engine("recipe.js")}</script>\n'
            f'<script type="module">{page(*SCRIPT)}\n{engine_files.text("live.js")}</script>')


def standalone(bundle: dict[str, Any], title: str) -> str:
    """A whole page with an explorer, of its outputs: it opens from a file, offline, on a phone, in light and dark."""
    if LIVING not in bundle:
        raise ValueError("this explorer has no recipe, so no page can train it: Explorer(…, recipe=Recipe(…))")
    title, piece = title or "Explorer", widget(bundle[LIVING], bundle["image/png"], bundle["text/plain"])
    meta = '<meta name="viewport" content="width=device-width"><meta name="color-scheme" content="light dark">'
    return (f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">{meta}<title>{escape(title)}</title>{head()}'
            f"<style>body {{ margin: 0 auto; max-width: 1180px; }} .flx-living img {{ max-width: 100%; }}</style></head>"
            f"<body><main>{piece}</main>{foot()}</body></html>\n")
