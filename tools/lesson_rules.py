"""What a machine can see of a lesson (CONTRIBUTING.md, "A lesson"). A lesson that breaks a rule is not built."""

from __future__ import annotations

import ast
import re

import nbformat
from notebook_links import FILE, PAPER
from notebook_sources import SourceError, tags

from fl_course.workbook import lesson

# Lessons of the first edition, which were written before these rules. To convert one, take its name out; no new one gets in.
FIRST_EDITION: set[str] = set()

WIDTH = 100                                                      # characters; what is longer is cut on a small screen
FOLDED = re.compile(r"# (Proof|Report), open me: \S.*")          # what JupyterLab shows of a folded cell is its first line
QUESTION = re.compile(r"^\*\*(\d)\.\*\* .*?\?", re.M | re.S)
RECALL = re.compile(r"^## Recall *$(.*?)(?=^## |^\*\*(?:Next|References)|\Z)", re.M | re.S)
REFERENCES = re.compile(r"^(?:## References *$|\*\*References\*\*:?)(.*?)(?=^## |\Z)", re.M | re.S)


def inspect_lesson(name: str, cells: list[nbformat.NotebookNode]) -> None:
    """Refuse a lesson (`name`: 02_heterogeneity) that breaks a rule, with a sentence that names the cell."""
    check_pictures(name, cells)
    if name in FIRST_EDITION:
        return
    for number, cell in enumerate(cells, start=1):
        where = f"{name}.py, cell {number}"
        if cell.cell_type == "code":
            check_proof(where, cell)
            check_width(where, cell.source)
        elif "proof" in tags(cell):
            raise SourceError(f"{where}: tag `proof` is for code")
        else:
            check_try_it(where, cell.source)
    check_recall(f"{name}.py", cells)
    check_references(f"{name}.py", cells)


# --- pictures ---------------------------------------------------------------------------------------------------------


def shown(tree: ast.AST) -> list[ast.expr | None]:
    """The descriptions handed to show(figure, description), None where there is none."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    return [call.args[1] if len(call.args) > 1 else next((k.value for k in call.keywords if k.arg == "description"), None)
            for call in calls if call.func.id == "show"]  # fmt: skip


def check_pictures(name: str, cells: list[nbformat.NotebookNode]) -> None:
    """Every key that is shown has a text in workbook/alt/NN.toml, every text there is shown, each is a sentence."""
    try:
        texts = lesson.descriptions(name[:2])
    except ValueError as error:
        raise SourceError(f"{name}.py: alt/{name[:2]}.toml cannot be read: {error}") from error
    used = set()
    for number, cell in enumerate(cells, start=1):
        if cell.cell_type != "code":
            continue
        where = f"{name}.py, cell {number}"
        for said in shown(ast.parse(cell.source)):
            text = said.value if isinstance(said, ast.Constant) and isinstance(said.value, str) else ""
            if match := lesson.KEY.fullmatch(text):
                if match[1] != name[:2] or match[2] not in texts:
                    raise SourceError(f"{where}: there is no text for {text!r} in fl_course/workbook/alt/{name[:2]}.toml")
                used.add(match[2])
            elif name not in FIRST_EDITION:
                raise SourceError(f'{where}: write show(figure, "{name[:2]}.some_key") with the text in '
                                  f"fl_course/workbook/alt/{name[:2]}.toml: what stands here gives the answer away")
    if unused := sorted(set(texts) - used):
        raise SourceError(f"{name}.py: alt/{name[:2]}.toml describes {', '.join(unused)}, which no cell shows")
    if short := [key for key, text in texts.items() if len(text) < lesson.SENTENCE]:
        raise SourceError(f"{name}.py: alt/{name[:2]}.toml: describe {short[0]!r} in a sentence")


def check_outputs(name: str, where: str, cell: nbformat.NotebookNode) -> None:
    """Every picture that an executed cell shows has an alternative text."""
    for output in cell.get("outputs", []):
        if "image/png" in output.get("data", {}) and name not in FIRST_EDITION:
            alt = output.get("metadata", {}).get("image/png", {}).get("alt", "")
            if len(alt) < lesson.SENTENCE:
                raise SourceError(f"{where}: a picture without an alternative text; draw on canvas() and show(figure, key)")


# --- cells ------------------------------------------------------------------------------------------------------------


def check_proof(where: str, cell: nbformat.NotebookNode) -> None:
    """What only proves or reports is folded, and says so in its first line."""
    first, tree = cell.source.partition("\n")[0], ast.parse(cell.source)
    if "proof" in tags(cell):
        if not FOLDED.fullmatch(first):
            raise SourceError(f"{where}: a cell tagged `proof` begins with `# Proof, open me: what it shows` (or `# Report, …`)")
        return
    for node in ast.walk(tree):
        calls_report = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "report"
        if isinstance(node, ast.Assert) or calls_report:
            what = "report(…)" if calls_report else "an assert"
            raise SourceError(f"{where}: {what} in line {node.lineno} stands in the reader's way; put it in a cell of its own "
                              "with tag `proof`")


def check_width(where: str, source: str) -> None:
    for number, line in enumerate(source.splitlines(), start=1):
        if len(line) > WIDTH:
            raise SourceError(f"{where}: line {number} has {len(line)} characters; {WIDTH} fit on a small screen")


def check_try_it(where: str, text: str) -> None:
    paragraphs = re.split(r"\n{2,}", text)
    for this, after in zip(paragraphs, [*paragraphs[1:], ""], strict=True):
        if "**Try it" in this and not after.startswith(("Answer: ", "<details>")):
            raise SourceError(f"{where}: `**Try it.**` without an answer; the next paragraph begins with `Answer: `")


# --- the end of a lesson ----------------------------------------------------------------------------------------------


def check_recall(where: str, cells: list[nbformat.NotebookNode]) -> None:
    """Three to five questions with folded answers, after the last code."""
    at = [i for i, cell in enumerate(cells) if cell.cell_type == "markdown" and RECALL.search(cell.source)]
    if not at:
        raise SourceError(f"{where}: no section `## Recall`, three to five questions with folded answers")
    if any(cell.cell_type == "code" for cell in cells[at[-1] :]):
        raise SourceError(f"{where}: `## Recall` comes at the end, after the last code")
    found = RECALL.search(cells[at[-1]].source)
    assert found is not None
    paragraphs = [text.strip() for text in re.split(r"\n{2,}", found[1]) if text.strip()]
    asked = [i for i, text in enumerate(paragraphs) if QUESTION.match(text)]
    if not 3 <= len(asked) <= 5:
        raise SourceError(f"{where}: `## Recall` has {len(asked)} questions (`**1.** …?`); three to five are asked for")
    for i in asked:
        if not (i + 1 < len(paragraphs) and paragraphs[i + 1].startswith(("Answer: ", "<details>"))):
            raise SourceError(f"{where}: question {paragraphs[i][2]} of `## Recall` has no answer; begin it with `Answer: `")


def check_references(where: str, cells: list[nbformat.NotebookNode]) -> None:
    """The lesson names the files of the library that it is about, and each paper by a link."""
    prose = "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    if not any(path.startswith("fl_course/") for path in FILE.findall(prose)):
        raise SourceError(f"{where}: name the files of the library that it is about, as in `fl_course/drift/methods.py`")
    found = REFERENCES.search(prose)
    if found is None:
        raise SourceError(f"{where}: no `**References**`")
    for entry in re.split(r"\s·\s|^[-*] ", found[1], flags=re.M):
        if entry.strip() and not (PAPER.search(entry) or "https://" in entry):
            raise SourceError(f"{where}: a reference without arXiv:…, doi:… or https://…: {' '.join(entry.split())[:70]}")
