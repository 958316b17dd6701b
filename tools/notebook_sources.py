"""Sources: py:percent text in, cells out. What a file must be before anything can be built from it."""

from __future__ import annotations

import ast
import re
from itertools import pairwise
from pathlib import Path

import jupytext
import nbformat

BOM = b"\xef\xbb\xbf"
NAMED = re.compile(r"\d\d_[a-z0-9_]+\.py")


class SourceError(Exception):
    """A source that cannot be built; the message names the file and the cell."""


def sources(folder: Path) -> list[Path]:
    """The sources of a folder in the order of their numbers. SourceError for a name without one, or a number twice."""
    paths = sorted(folder.glob("*.py"))
    for path in paths:
        if not NAMED.fullmatch(path.name):
            raise SourceError(f"{path.name}: a source is named like 01_fedavg.py, two digits first: it is its chapter's number")
    for path, other in pairwise(paths):
        if path.name[:2] == other.name[:2]:
            raise SourceError(f"{path.name} and {other.name} have the same number; a chapter has one source in {folder.name}/")
    return paths


def text_of(path: Path) -> str:
    """The text of a source. SourceError says how to save it if it is not plain UTF-8."""
    raw = path.read_bytes()
    if raw.startswith(BOM):
        raise SourceError(f"{path.name}: begins with a byte-order mark; save it as UTF-8 without one")
    try:
        return raw.decode("utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise SourceError(f"{path.name}: line {line} is not UTF-8 (Latin-1, perhaps?); save the file as UTF-8") from error


def read(path: Path) -> list[nbformat.NotebookNode]:
    """The cells of one source, with no metadata but tags and, behind `# %%`, a title. SourceError for code that is no Python."""
    cells = []
    for number, cell in enumerate(jupytext.reads(text_of(path), "py:percent").cells, start=1):
        where = f"{path.name}, cell {number}"
        if cell.cell_type == "code":
            try:
                compile(cell.source, where, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT | ast.PyCF_ONLY_AST, dont_inherit=True)
            except SyntaxError as error:
                raise SourceError(f"{where}: {error.msg} in line {error.lineno}") from error
        make = nbformat.v4.new_code_cell if cell.cell_type == "code" else nbformat.v4.new_markdown_cell
        kept = {key: cell.metadata[key] for key in ("tags", "title") if cell.metadata.get(key)}
        cells.append(make(cell.source.rstrip(), metadata=kept))
    return cells


def tags(cell: nbformat.NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])
