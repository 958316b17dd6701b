"""The site: these pages, the lessons as they are stored, and the library's docstrings, built by Sphinx without a request.

    .venv/bin/python -m pip install -c constraints.txt -e ".[docs]"
    .venv/bin/python -m sphinx docs site            then open site/index.html
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

project = "fl_course"
author = "The fl_course authors"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.apidoc"]
LIBRARY = ROOT / "fl_course"
apidoc_modules = [{"path": str(LIBRARY), "destination": "api", "exclude_patterns": [str(LIBRARY / "workbook")],
                   "module_first": True, "automodule_options": {"members", "undoc-members"}}]  # fmt: skip
autodoc_default_options = {"ignore-module-all": True}        # the face re-exports; each name is shown where it lives
autodoc_member_order = "bysource"
highlight_language = "none"
html_theme = "furo"
html_title = "fl_course"
html_copy_source = False
suppress_warnings = ["misc.highlighting_failure"]            # the diagram of architecture.md is shown as its text


def plain(app, what, name, obj, options, lines):
    """Our docstrings are plain text. Prose becomes a paragraph, and what is set in columns or indented stays as it was typed."""
    paragraphs = re.split(r"\n\s*\n", "\n".join(lines).strip("\n"))
    lines[:] = []
    for paragraph in paragraphs:
        if re.search(r"^\s|\S {2,}\S|^- ", paragraph, re.M):
            lines += ["::", "", *("    " + line for line in paragraph.split("\n")), ""]
        else:
            pieces = re.split(r"`([^`]+)`", paragraph)                # every second one is code
            prose = [re.sub(r"([\\*_|`])", r"\\\1", piece) for piece in pieces[::2]]
            code = [f"\\ ``{piece}``\\ " for piece in pieces[1::2]] + [""]
            lines += ["".join(part for pair in zip(prose, code, strict=True) for part in pair).replace("\n", " "), ""]


def lessons():
    """The stored lessons, in order."""
    return sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))


def list_lessons(app, docname, source):
    """In place of the word LESSONS: a list that leads to each."""
    if docname == "index":
        from fl_course.workbook.commands import places

        items = "".join(f'<li><a href="lessons/{path.stem}.html">{places.title(path)}</a></li>' for path in lessons())
        source[0] = source[0].replace("LESSONS", f"<ul>{items}</ul>")


def write_lessons(app, error):
    if error is None:
        from fl_course.workbook.commands import export

        (Path(app.outdir) / "lessons").mkdir(exist_ok=True)
        for path in lessons():
            export.to_html(path, Path(app.outdir) / "lessons" / f"{path.stem}.html", {one.stem for one in lessons()})


def setup(app):
    app.connect("autodoc-process-docstring", plain)
    app.connect("source-read", list_lessons)
    app.connect("build-finished", write_lessons)
