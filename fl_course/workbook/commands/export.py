"""A notebook as one HTML file that opens offline: pictures inside, formulas drawn, not one request to a server."""

from __future__ import annotations

import base64
import io
import re
from functools import cache
from html import escape
from pathlib import Path

# The template of nbconvert without what it fetches from a CDN: require.js, MathJax, mermaid and the widget manager.
TEMPLATE = """{%- extends 'lab/index.html.j2' -%}
{% block html_head_js %}{% endblock %}
{% block jupyter_widgets %}{% endblock %}
{% block html_head_js_mathjax %}{% endblock %}
{% block html_head_js_mermaidjs %}{% endblock %}
"""
WIDGET = "application/vnd.jupyter.widget-view+json"              # needs a kernel; the picture beside it does not
FORMULA = re.compile(r"\$\$(?P<display>.+?)\$\$|(?<![\\$\w])\$(?P<inline>[^$\n]+?)\$(?![\w$])", re.S)
CODE = re.compile(r"(^```.*?^```|^~~~.*?^~~~|`[^`\n]+`)", re.S | re.M)
OUTSIDE = re.compile(r"""<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)=["']?(?:https?:)?//[^>]*>""", re.I)


def to_html(notebook: Path, output: Path) -> Path:
    """Write the notebook as HTML. ValueError if the page would load something from the network."""
    import nbformat
    from nbconvert import HTMLExporter

    node = nbformat.read(notebook, as_version=4)
    node.metadata.pop("widgets", None)
    for cell in node.cells:
        if cell.cell_type == "markdown":
            cell.source = draw_formulas(cell.source)
        for out in cell.get("outputs", []):
            if len(out.get("data", {})) > 1:
                out.data.pop(WIDGET, None)
    exporter = HTMLExporter(raw_template=TEMPLATE, embed_images=True)
    page, _ = exporter.from_notebook_node(node, {"metadata": {"name": notebook.stem, "path": str(notebook.parent)}})
    if found := OUTSIDE.search(page):
        raise ValueError(f"{notebook.name} would load {found[0][:120]!r} from the network; embed it")
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(page, encoding="utf-8")
    return output


def index_page(pages: list[tuple[str, str]], output: Path, title: str = "fl_course") -> Path:
    """A page of links, one a notebook: (file name, text beside the link)."""
    rows = "\n".join(f'<li><a href="{escape(name)}">{escape(name)}</a> {escape(text)}</li>' for name, text in pages)
    head = f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title></head>'
    output.write_text(f"{head}<body><h1>{escape(title)}</h1><ul>\n{rows}\n</ul></body></html>\n", encoding="utf-8")
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
