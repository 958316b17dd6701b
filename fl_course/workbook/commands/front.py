"""The page that `fl-course run` leaves, reports/index.html: what was run, its picture and numbers, and the way into the course.

It is made of what lies in the folder, so that it also knows earlier runs. One file: pictures inside, no script, no request,
light and dark.
"""

from __future__ import annotations

import base64
import datetime
import io
import platform
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import nbformat

from ... import __version__
from ...federation.history import History
from ...files import write
from ..grading.cards import RESULT_MIME
from . import parameters, places
from .runner import Outcome
from .terminal import number

THUMB = (400, 250)                             # pixels at most
COLOURS = 64                                   # of a thumbnail
STYLE = """
:root { color-scheme: light dark; --ink: #1b1b1b; --soft: #565656; --page: #ffffff; --card: #f6f6f4; --line: #d4d4d0;
  --link: #005a8f; --mark: #009e73; }
@media (prefers-color-scheme: dark) { :root { --ink: #ececec; --soft: #b4b4b4; --page: #141414; --card: #1e1e1e;
  --line: #3c3c3c; --link: #6cc0f0; --mark: #2ec299; } }
* { box-sizing: border-box; }
body { margin: 0; color: var(--ink); background: var(--page); font: 1rem/1.55 system-ui, sans-serif; }
header, main, footer { max-width: 64rem; margin: 0 auto; padding: 0 1.25rem; }
header { padding-top: 2.5rem; }
h1 { font-size: 2.1rem; line-height: 1.2; margin: 0 0 .4rem; }
h2 { margin: 2.6rem 0 .6rem; padding-top: .5rem; border-top: 3px solid var(--mark); width: fit-content; }
a { color: var(--link); } p { max-width: 46rem; } .soft, small { color: var(--soft); }
figure { margin: 1rem 0; } figure img { max-width: 100%; height: auto; }
.figures { display: flex; flex-wrap: wrap; gap: .8rem; margin: 1rem 0; padding: 0; }
.figures div, .cards li, pre { background: var(--card); border: 1px solid var(--line); border-radius: .6rem; }
.figures div { padding: .6rem 1rem; min-width: 8rem; }
.figures dt { color: var(--soft); font-size: .9rem; } .figures dd { margin: 0; font-size: 1.5rem; font-weight: 600; }
.wide { overflow-x: auto; } table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid var(--line); overflow-wrap: anywhere; }
td.n, th.n { text-align: right; white-space: nowrap; } thead th { white-space: nowrap; } th[scope=row] { min-width: 7rem; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); gap: 1rem; padding: 0; list-style: none; }
.cards li { padding: .8rem; }
.cards img { width: 100%; height: 8.5rem; object-fit: contain; } .cards h3 { margin: .4rem 0 .2rem; font-size: 1.05rem; }
pre { padding: .7rem 1rem; white-space: pre-wrap; overflow-wrap: anywhere; } summary { cursor: pointer; }
footer { padding: 2rem 1.25rem 3rem; color: var(--soft); }
"""


def front_page(out: Path, outcomes: Sequence[Outcome] = ()) -> Path:
    """Write out/index.html about the runs whose results lie in `out`. `outcomes`: of the command that ends here."""
    chapters = places.notebooks()
    names = {path.stem for path in chapters}
    parts = [_training(out), _this_run(outcomes, out), _course(chapters, out), _others(out, names), _lab()]
    title = "A federation, trained on this machine"
    meta = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    now = datetime.datetime.now().astimezone().strftime("%d %B %Y, %H:%M")
    about = f"fl_course {__version__} · {now} · Python {platform.python_version()} on {platform.system()}"
    head = f"<head>{meta}<title>{title}</title><style>{STYLE}</style></head>"
    body = (f'<header><h1>{title}</h1><p>Federated learning sends the model to the data, and not the data to the model. What you '
            f'see here was trained, encoded and counted for real.</p><p class="soft">{escape(about)}</p></header>'
            f"<main>{''.join(parts)}</main><footer>This page is one file: it needs no network and tells nobody that you read it."
            "</footer>")  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    write(out / "index.html", f'<!DOCTYPE html>\n<html lang="en">{head}<body>{body}</body></html>\n')
    return out / "index.html"


# --- what was run ---------------------------------------------------------------------------------------------------------


def _training(out: Path) -> str:
    """The federation of `fl-course train`, if its record is there and can be read."""
    record = out / "fedavg.json"
    try:
        history = History.from_json(record)
        picture = _image((out / "fedavg.png").read_bytes())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):          # none, or only the beginning of one
        return ""
    if not len(history):
        return ""
    last, seed = history.last, re.findall(r"\bseed=(\d+)", history.experiment)
    figures = {"rounds": f"{len(history)}", "accuracy": f"{last('accuracy'):.1%}", "loss": f"{last('loss'):.3f} nats",
               "worst tenth of the clients": f"{last('client_accuracy_worst10'):.1%}",
               "sent, both ways": f"{history.megabytes:.1f} MB", "seed": seed[-1] if seed else "?"}
    alt = (f"Left: accuracy by round. On all held-out images it goes from {history.series('accuracy')[0]:.0%} to "
           f"{last('accuracy'):.0%}; that of the worst tenth of the clients lies below. Right: the loss by megabytes sent, "
           f"at the end {last('loss'):.2f} after {history.megabytes:.0f} MB.")
    words = ("4,000 real handwritten digits at 100 clients, each of which has about two of the ten kinds. A round asks ten of "
             "them; each trains on its own images, and sends back only how the model changed.")
    return (f'<h2>What was trained</h2><p>{words} <span class="soft">Run on {_day(record)}.</span></p>'
            f'<figure><img src="{picture}" alt="{escape(alt)}"></figure><dl class="figures">{_figures(figures)}</dl>'
            f"<details><summary>The experiment, as it describes itself</summary><pre>{escape(history.experiment)}</pre></details>"
            '<p>Every round, for your own tools: <a href="fedavg.csv">fedavg.csv</a>, <a href="fedavg.json">fedavg.json</a>.</p>')


def _this_run(outcomes: Sequence[Outcome], out: Path) -> str:
    """A row a notebook that was executed just now; if there is one only, its picture too."""
    rows = []
    for one in outcomes:
        name = Path(one.notebook).stem
        link = f'<a href="{escape(quote(name))}.html">{escape(name)}</a>' if (out / f"{name}.html").is_file() else escape(name)
        numbers = ", ".join(f"{key} = {number(value)}" for key, value in one.numbers.items())
        said = "ok" if one.ok else f"failed: {one.error}"
        rows.append(f'<tr><th scope="row">{link}</th><td>{escape(_settings(one.output))}</td>'
                    f'<td class="n">{one.cells}/{one.total}</td><td class="n">{one.seconds:.1f}</td>'
                    f"<td>{escape(numbers)}</td><td>{escape(said)}</td></tr>")
    head = ('<tr><th scope="col">notebook</th><th scope="col">with</th><th scope="col" class="n">cells</th>'
            '<th scope="col" class="n">seconds</th><th scope="col">what it reports</th><th scope="col">result</th></tr>')
    wide = '<div class="wide" role="region" aria-label="What was executed" tabindex="0">'           # scrolls, also by keys
    body = f"{wide}<table><thead>{head}</thead><tbody>{''.join(rows)}</tbody></table></div>"
    picture = _headline(_read(outcomes[0].output)) if len(outcomes) == 1 else ""
    return f"<h2>What was executed</h2>{body}{picture}" if rows else ""


def _headline(node: Any) -> str:
    """The picture that a notebook shows last before it reports its numbers; empty if there is none."""
    before = ""
    for output in _outputs(node):
        before = _tag(output) or before
        if RESULT_MIME in output.get("data", {}):
            break
    return f"<figure>{before}</figure>" if before else ""


def _settings(path: Path | None) -> str:
    """"rounds = 30, seed = 0": the parameters that the notebook ran with."""
    node = _read(path)
    if node is None or path is None:
        return ""
    asked = node.metadata.get("papermill", {}).get("parameters", {})
    known = {name: parameter.default for name, parameter in parameters.inspect(path).items()}
    return ", ".join(f"{name} = {value}" for name, value in {**known, **asked}.items())


# --- the course -----------------------------------------------------------------------------------------------------------


def _course(chapters: Sequence[Path], out: Path) -> str:
    cards = []
    for path in chapters:
        node, title, page = _read(path), escape(places.title(path)), out / f"{path.stem}.html"
        if page.is_file():
            link = f'<a href="{quote(page.name)}">{title}</a>'
            note = f"executed on {_day(page)}"
        else:
            link, note = title, f"<code>fl-course run {path.name[:2]}</code> makes its page"
        cards.append(f"<li>{_thumbnail(node)}<h3>{link}</h3><small>{note}</small></li>")
    words = "Each chapter is a notebook in which every number is computed and every slider trains again."
    return f'<h2>The course</h2><p>{words}</p><ul class="cards">{"".join(cards)}</ul>' if cards else ""


def _others(out: Path, chapters: set[str]) -> str:
    """Pages of other notebooks, and what other commands have left beside them."""
    pages = [page for page in sorted(out.glob("*.html")) if page.stem not in {*chapters, "index", "glossary"}
             and page.with_suffix(".ipynb").is_file()]  # fmt: skip
    found = [(page.name, places.title(page.with_suffix(".ipynb"))) for page in pages]
    found += [(f"{page.parent.name}/{page.name}", f"{page.parent.name}: a page") for page in sorted(out.glob("*/index.html"))]
    found += [(f"sweep/{table.name}", f"sweep of {table.stem}: a table") for table in sorted(out.glob("sweep/*.csv"))]
    lines = [f'<li><a href="{escape(quote(name))}">{escape(text)}</a> <small>{escape(name)}</small></li>' for name, text in found]
    return f"<h2>Also in this folder</h2><ul>{''.join(lines)}</ul>" if lines else ""


def _lab() -> str:
    lab = "python3 course.py lab      (in the folder of the course)" if places.checkout() else "fl-course lab"
    more = "<code>fl-course run 03 -p rounds 40</code>, or all of it: <code>fl-course run --all</code>"
    return ("<h2>Move the sliders yourself</h2><p>The lessons are live in JupyterLab, on this machine:</p>"
            f"<pre>{escape(lab)}</pre><p>To run more, and see it here: {more}.</p>")


def _thumbnail(node: Any) -> str:
    """The first picture that a notebook shows, small; empty if it shows none."""
    return next(filter(None, (_tag(output, small=True) for output in _outputs(node))), "")


def _outputs(node: Any) -> list[Any]:
    return [output for cell in node.cells for output in cell.get("outputs", [])] if node else []


def _tag(output: Any, small: bool = False) -> str:
    """The picture of an output with its own alternative text; empty if it is none."""
    encoded = output.get("data", {}).get("image/png")
    alt = " ".join(output.get("metadata", {}).get("image/png", {}).get("alt", "A picture of this notebook.").split())
    try:
        png = base64.b64decode(encoded or "")
        return f'<img src="{_image(_small(png) if small else png)}" alt="{escape(alt)}">'
    except (OSError, ValueError):              # no PNG after all
        return ""


def _small(png: bytes) -> bytes:
    from PIL import Image  # comes with matplotlib

    picture = Image.open(io.BytesIO(png)).convert("RGBA")
    picture.thumbnail(THUMB)
    out = io.BytesIO()
    picture.quantize(COLOURS, method=Image.Quantize.FASTOCTREE).save(out, format="PNG", optimize=True)
    return out.getvalue()


def _image(png: bytes) -> str:
    if not png.startswith(b"\x89PNG"):
        raise ValueError("this is no PNG")
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _figures(figures: dict[str, str]) -> str:
    return "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in figures.items())


def _day(path: Path) -> str:
    return datetime.datetime.fromtimestamp(path.stat().st_mtime).strftime("%d %B %Y, %H:%M")


def _read(path: Path | None) -> Any:
    """The notebook, or None if there is none that can be read."""
    try:
        return nbformat.read(path, as_version=4) if path is not None else None
    except Exception:                          # a reader's own file, whatever is in it
        return None
