"""A notebook as one HTML file that opens offline: pictures inside, formulas drawn, not one request to a server.

An explorer that has a recipe trains in the page (widgets/recipe_page.py).
"""

from __future__ import annotations

import base64
import io
import posixpath
import re
from collections.abc import Collection
from functools import cache
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ...files import write
from ..widgets import recipe_page
from . import places

# The template of nbconvert without what it fetches from a CDN (require.js, MathJax, mermaid, the widget manager), and
# with the cells that only prove or report folded behind their first line.
TEMPLATE = """{%- extends 'lab/index.html.j2' -%}
{% block html_head_js %}{% endblock %}
{% block jupyter_widgets %}{% endblock %}
{% block html_head_js_mathjax %}{% endblock %}
{% block html_head_js_mermaidjs %}{% endblock %}
{% block html_head_css %}{{ super() }}<style>
/* Jupyter's colours of code and prompts, darkened to a contrast of 4.5:1 on their page; links are not told by colour alone. */
:root {
  --jp-mirror-editor-keyword-color: #006b00; --jp-mirror-editor-number-color: #006b00;
  --jp-mirror-editor-operator-color: #8500c8; --jp-mirror-editor-comment-color: #2b6767;
  --jp-cell-prompt-not-active-font-color: #595959; --jp-cell-prompt-not-active-opacity: 1;
}
.jp-RenderedHTMLCommon a:any-link { text-decoration: underline; }
</style>{% endblock %}
{% block input_group %}
{%- if cell.metadata.get('jupyter', {}).get('source_hidden') -%}
<details class="folded"><summary style="margin-left:calc(var(--jp-cell-prompt-width) + 10px)">
{{ cell.source.split('\\n')[0].lstrip('# ') | e }}</summary>
{{ super() }}
</details>
{%- else -%}
{{ super() }}
{%- endif -%}
{% endblock input_group %}
"""
WIDGET = "application/vnd.jupyter.widget-view+json"              # needs a kernel; the picture beside it does not
FORMULA = re.compile(r"\$\$(?P<display>.+?)\$\$|(?<![\\$\w])\$(?P<inline>[^$\n]+?)\$(?![\w$])", re.S)
LINK = re.compile(r"\[(?P<text>[^\]\[]*)\]\((?P<page>(?!https?:|mailto:)[^)\s#]+)(?P<place>#[^)\s]*)?(?P<tip> \"[^\"]*\")?\)")
GLOSSARY = "glossary"
FOLD = re.compile(r"<details>\s*<summary>(.*?)</summary>(.*?)</details>", re.S)
FENCED = re.compile(r"(^```.*?^```|^~~~.*?^~~~)", re.S | re.M)
CODE = re.compile(r"(^```.*?^```|^~~~.*?^~~~|`[^`\n]+`)", re.S | re.M)
OUTSIDE = re.compile(r"""<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)=["']?(?:https?:)?//[^>]*>""", re.I)


def to_html(notebook: Path, output: Path, beside: Collection[str] = ()) -> Path:
    """Write the notebook as HTML. ValueError if the page would load something from the network.

    `beside`: names of the pages (without .html) that are written to the same folder. A link to another notebook or to a
    file becomes plain text. The glossary is written along if the notebook has links to it.
    """
    import nbformat

    node = nbformat.read(notebook, as_version=4)
    words = places.glossary(notebook.parent)
    if words and any(f"{GLOSSARY}.md" in cell.source for cell in node.cells if cell.cell_type == "markdown"):
        beside = {*beside, GLOSSARY}
        page = nbformat.v4.new_markdown_cell(words.read_text(encoding="utf-8"))
        _write(nbformat.v4.new_notebook(cells=[page]), words, output.parent / f"{GLOSSARY}.html", beside)
    return _write(node, notebook, output, beside)


def _write(node: Any, notebook: Path, output: Path, beside: Collection[str]) -> Path:
    from nbconvert import HTMLExporter

    alive = False
    node.metadata.pop("widgets", None)
    for cell in node.cells:
        if cell.cell_type == "markdown":      # nbconvert would close <details> at once: it gets marks instead, see below
            cell.source = draw_formulas(link_pages(cell.source, beside))
            cell.source = FOLD.sub("\ue000\\1\n\n\\2\n\n\ue001", cell.source)
        for out in cell.get("outputs", []):
            if len(out.get("data", {})) > 1:
                out.data.pop(WIDGET, None)
            alive = enliven(out.get("data", {})) or alive
    exporter = HTMLExporter(raw_template=TEMPLATE, embed_images=True)
    page, _ = exporter.from_notebook_node(node, {"metadata": {"name": notebook.stem, "path": str(notebook.parent)}})
    page = re.sub("<p>\ue000(.*?)</p>", r"<details><summary>\1</summary>", page, flags=re.S)
    page = page.replace("<p>\ue001</p>", "</details>")
    if alive:
        page = page.replace("</head>", f"{recipe_page.head()}</head>", 1)
        before, end = page.rsplit("</body>", 1)
        page = f"{before}{recipe_page.foot()}</body>{end}"
    if found := OUTSIDE.search(page):
        raise ValueError(f"{notebook.name} would load {found[0][:120]!r} from the network; embed it")
    output.parent.mkdir(parents=True, exist_ok=True)
    write(output, page)
    return output


def enliven(data: dict[str, Any]) -> bool:
    """Of an explorer that has a recipe, make an output that trains by itself; others keep their picture."""
    held, picture = data.pop(recipe_page.LIVING, None), data.get("image/png", "")
    if held is None:
        return False
    alt = data.get("text/plain", "")
    data.clear()
    data["text/html"] = recipe_page.widget(held, picture.replace("\n", ""), alt)
    return True


def link_pages(text: str, beside: Collection[str]) -> str:
    """Markdown whose links to notebooks and texts lead to the pages made of them, or nowhere if there is no such page."""

    def link(match: re.Match[str]) -> str:
        folder, name = posixpath.split(match["page"])
        stem, kind = posixpath.splitext(name)
        if kind in (".ipynb", ".md") and stem in beside and (not folder or stem == GLOSSARY):
            return f"[{match['text']}]({stem}.html{match['place'] or ''}{match['tip'] or ''})"
        return match["text"]

    parts = FENCED.split(text)
    return "".join(part if i % 2 else LINK.sub(link, part) for i, part in enumerate(parts))


def index_page(pages: list[tuple[str, str]], output: Path, title: str = "fl_course") -> Path:
    """A page of links, one a notebook: (file name, title), the name beside the link if there is a title."""
    lines = []
    for name, text in pages:
        link = f'<a href="{escape(quote(name))}">{escape(text or name)}</a>'
        lines.append(f"<li>{link}{f' <small>{escape(name)}</small>' if text else ''}</li>")
    meta = '<meta name="viewport" content="width=device-width"><meta name="color-scheme" content="light dark">'
    head = f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">{meta}<title>{escape(title)}</title></head>'
    body = '<body style="font-family:sans-serif;max-width:50em;margin:1em auto;padding:0 1em">'
    rows = "\n".join(lines)
    output.parent.mkdir(parents=True, exist_ok=True)
    write(output, f"{head}{body}<h1>{escape(title)}</h1><ul>\n{rows}\n</ul></body></html>\n")
    return output


def draw_formulas(text: str) -> str:
    """Markdown with every $formula$ as a picture whose alternative text is the formula; code is left alone."""
    parts = CODE.split(text)                  # text, code, text, …
    return "".join(part if i % 2 else FORMULA.sub(_formula, part) for i, part in enumerate(parts))


def _formula(match: re.Match[str]) -> str:
    tex = (match["display"] or match["inline"]).strip()
    picture = _picture(tex)
    if picture is None:                       # beyond matplotlib's TeX: show it as written
        return f"\n```\n{tex}\n```\n" if match["display"] else f"`{tex}`"
    drawing, height, depth = picture
    place = "display:block;margin:.6em auto" if match["display"] else f"vertical-align:{-depth:.3f}em"
    source = f"data:image/svg+xml;base64,{drawing}"
    return f'<img alt="{escape(tex)}" style="height:{height:.3f}em;{place}" src="{source}">'


@cache
def _picture(tex: str, size: float = 10.0) -> tuple[str, float, float] | None:
    """(SVG in base64, height in em, depth in em) of one formula, or None if matplotlib cannot set it."""
    from matplotlib.figure import Figure
    from matplotlib.font_manager import FontProperties
    from matplotlib.mathtext import MathTextParser

    text = "$" + re.sub(r"\s+", " ", tex) + "$"
    try:
        font = FontProperties(size=size, math_fontfamily="cm")
        width, height, depth, _, _ = MathTextParser("path").parse(text, dpi=72, prop=font)
        figure = Figure(figsize=(width / 72, height / 72))
        figure.text(0, depth / height, text, fontproperties=font, color="black")
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    except Exception:                         # mathtext raises several types for what it does not know
        return None
    return base64.b64encode(buffer.getvalue()).decode(), height / size, depth / size
