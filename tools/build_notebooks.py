"""Build the notebooks from their text sources. Run it after every change under source/; CI runs it with --check.

    source/lessons/NN_name.py    ->  notebooks/NN_name.ipynb   executed, with outputs
    source/exercises/NN_name.py  ->  exercises/NN_name.ipynb   stubs, no outputs
                                     solutions/NN_name.ipynb   executed, with outputs

Sources are py:percent text. In an exercise, the lines from `### BEGIN SOLUTION` to `### END SOLUTION` become a stub; a
cell tagged `solution` exists in solutions/ only; a cell tagged `exercise` is followed by one tagged `check`.
Two builds of the same source on the same machine give the same bytes.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import re
import sys
import time
from pathlib import Path

import jupytext
import nbformat
from notebook_outputs import Untidy, tidy

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("notebooks", "exercises", "solutions")
EXECUTED = ("notebooks", "solutions")
LIMIT = 8_000_000                                                # bytes, all built files together
STUB = ("# YOUR CODE HERE", "raise NotImplementedError()")
BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"            # nbgrader's words: teachers can feed it these files
MARKER = re.compile(r"#\s*(begin|end)\s+solution", re.IGNORECASE)
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


class SourceError(Exception):
    """A source that cannot be built; the message names the file and the cell."""


# --- from a source to the cells of its notebooks ----------------------------------------------------------------------


def read(path: Path) -> list[nbformat.NotebookNode]:
    """The cells of one source, with no metadata but tags."""
    cells = []
    for cell in jupytext.reads(path.read_text(encoding="utf-8"), "py:percent").cells:
        make = nbformat.v4.new_code_cell if cell.cell_type == "code" else nbformat.v4.new_markdown_cell
        tags = cell.metadata.get("tags", [])
        cells.append(make(cell.source.rstrip(), metadata={"tags": tags} if tags else {}))
    return cells


def tags(cell: nbformat.NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


def inspect_source(path: Path, cells: list[nbformat.NotebookNode], exercises: bool) -> None:
    """Refuse marker mistakes, exercises without a check and code that is no Python, naming file and cell."""
    following = [*cells[1:], None]
    for number, (cell, after) in enumerate(zip(cells, following, strict=True), start=1):
        where = f"{path.name}, cell {number}"
        regions = count_regions(cell.source, where)
        if regions and (cell.cell_type != "code" or not exercises or "solution" in tags(cell)):
            raise SourceError(f"{where}: a solution region belongs in an exercise's code cell without tag `solution`")
        if cell.cell_type != "code":
            continue
        if (regions or "exercise" in tags(cell)) and (
            after is None or after.cell_type != "code" or "check" not in tags(after) or "check(" not in after.source
        ):
            raise SourceError(f"{where}: an exercise without a check; the next cell has tag `check` and calls check(…)")
        try:
            compile(stubbed(cell.source), where, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT | ast.PyCF_ONLY_AST)
        except SyntaxError as error:
            raise SourceError(f"{where}: {error.msg} in line {error.lineno} (as the student gets it)") from error


def count_regions(source: str, where: str) -> int:
    """How many solution regions a cell has. SourceError if they are nested, unbalanced or misspelt."""
    count, inside = 0, False
    for line in source.splitlines():
        word = line.strip()
        if MARKER.search(word) and word not in (BEGIN, END):
            raise SourceError(f"{where}: {word!r} looks like a marker; write {BEGIN!r} or {END!r} on a line of its own")
        if word == BEGIN and inside:
            raise SourceError(f"{where}: nested {BEGIN!r}")
        if word == END and not inside:
            raise SourceError(f"{where}: unbalanced, {END!r} without {BEGIN!r}")
        if word in (BEGIN, END):
            inside = word == BEGIN
            count += inside
    if inside:
        raise SourceError(f"{where}: unbalanced, {BEGIN!r} without {END!r}")
    return count


def stubbed(source: str) -> str:
    """The source with every solution region replaced by the stub, at the region's own indentation."""
    lines, inside = [], False
    for line in source.splitlines():
        if line.strip() == BEGIN:
            inside = True
            indent = line[: len(line) - len(line.lstrip())]
            lines += [indent + text for text in STUB]
        elif line.strip() == END:
            inside = False
        elif not inside:
            lines.append(line)
    return "\n".join(lines)


def unmarked(source: str) -> str:
    return "\n".join(line for line in source.splitlines() if line.strip() not in (BEGIN, END))


def notebook(cells: list[nbformat.NotebookNode], transform) -> nbformat.NotebookNode:
    """An unexecuted notebook: stable cell ids, tags, and the fingerprint of what it was built from."""
    seen: dict[str, int] = {}
    out = []
    for cell in cells:
        make = nbformat.v4.new_code_cell if cell.cell_type == "code" else nbformat.v4.new_markdown_cell
        source = transform(cell.source)
        seen[source] = seen.get(source, 0) + 1
        name = hashlib.sha256(f"{source}/{seen[source]}".encode()).hexdigest()[:12]
        out.append(make(source, metadata=dict(cell.metadata), id=name))
    digest = hashlib.sha256(json.dumps([fingerprint(cell) for cell in out]).encode()).hexdigest()
    node = nbformat.v4.new_notebook(cells=out, metadata={**METADATA, "fl_course": {"source_sha256": digest}})
    nbformat.validate(node)
    return node


def fingerprint(cell: nbformat.NotebookNode) -> list:
    return [cell.cell_type, cell.source, cell.get("id"), tags(cell)]


def derive(root: Path) -> dict[Path, nbformat.NotebookNode]:
    """Every notebook that the sources ask for, unexecuted, by its path relative to `root`."""
    built: dict[Path, nbformat.NotebookNode] = {}
    for path in sorted((root / "source" / "lessons").glob("[0-9][0-9]_*.py")):
        cells = read(path)
        inspect_source(path, cells, exercises=False)
        built[Path("notebooks", f"{path.stem}.ipynb")] = notebook(cells, unmarked)
    for path in sorted((root / "source" / "exercises").glob("[0-9][0-9]_*.py")):
        cells = read(path)
        inspect_source(path, cells, exercises=True)
        for_students = [cell for cell in cells if "solution" not in tags(cell)]
        built[Path("exercises", f"{path.stem}.ipynb")] = notebook(for_students, stubbed)
        built[Path("solutions", f"{path.stem}.ipynb")] = notebook(cells, unmarked)
    return built


# --- what is stale, and building it -----------------------------------------------------------------------------------


def stale(path: Path, wanted: nbformat.NotebookNode, executed: bool) -> str:
    """Why the built file does not belong to its source; empty if it does."""
    if not path.exists():
        return "missing"
    try:
        found = nbformat.read(path, as_version=4)
    except Exception as error:                                   # whatever is wrong with it, it must be built again
        return f"unreadable ({type(error).__name__})"
    if found.metadata != wanted.metadata:
        return "built from another version of its source"
    if len(found.cells) != len(wanted.cells):
        return f"{len(found.cells)} cells, its source has {len(wanted.cells)}"
    for number, (old, new) in enumerate(zip(found.cells, wanted.cells, strict=True), start=1):
        if fingerprint(old) != fingerprint(new) or set(old.metadata) - {"tags"}:
            return f"cell {number} differs from its source"
        if old.cell_type == "code" and executed and old.source and not old.execution_count:
            return f"cell {number} was not executed"
        if old.cell_type == "code" and not executed and (old.outputs or old.execution_count):
            return f"cell {number} has outputs"
        if any(output.output_type == "error" for output in old.get("outputs", [])):
            return f"cell {number} ends in an error"
    return ""


def execute(node: nbformat.NotebookNode, name: str) -> None:
    """Run all cells in a fresh kernel of this interpreter and leave reproducible outputs."""
    import matplotlib.font_manager  # noqa: F401  (builds the font cache, so that no cell has to announce it)
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    from fl_course.workbook.commands.kernels import own_kernel

    with own_kernel(FL_COURSE_STRICT="1") as folder:
        resources = {"metadata": {"path": str(folder)}}
        client = NotebookClient(node, timeout=600, kernel_name="python3", resources=resources, record_timing=False)
        try:
            client.execute()
        except CellExecutionError as error:
            number = 1 + next(i for i, cell in enumerate(node.cells) if _failed(cell))
            raise SourceError(f"{name}, cell {number}: {error.ename}: {error.evalue}") from error
        for number, cell in enumerate(node.cells, start=1):
            try:
                tidy(cell, str(folder))
            except Untidy as error:
                raise SourceError(f"{name}, cell {number}: {error}") from error
    node.metadata = nbformat.from_dict({**METADATA, "fl_course": node.metadata["fl_course"]})


def _failed(cell: nbformat.NotebookNode) -> bool:
    return any(output.output_type == "error" for output in cell.get("outputs", []))


def problems(root: Path, wanted: dict[Path, nbformat.NotebookNode]) -> list[str]:
    """All that --check complains about, one line each."""
    found = {path.relative_to(root) for folder in FOLDERS for path in (root / folder).glob("*.ipynb")}
    lines = [f"{path.as_posix()}: no source, remove it" for path in sorted(found - set(wanted))]
    for path, node in wanted.items():
        if reason := stale(root / path, node, path.parts[0] in EXECUTED):
            lines.append(f"{path.as_posix()}: {reason}")
    size = sum((root / path).stat().st_size for path in found)
    return lines if size < LIMIT else [*lines, f"the notebooks have {size:,} bytes together; stay below {LIMIT:,}"]


def build(root: Path, wanted: dict[Path, nbformat.NotebookNode], only: str, force: bool, run: bool) -> None:
    """Write every notebook that is stale (all with `force`); `only` restricts to sources whose name contains it."""
    for path, node in wanted.items():
        executed = path.parts[0] in EXECUTED
        if only not in path.stem or not (force or stale(root / path, node, executed)):
            continue
        start = time.monotonic()
        if executed and run:
            execute(node, path.as_posix())
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes((nbformat.writes(node).rstrip("\n") + "\n").encode())
        print(f"built {path.as_posix()}  {len(node.cells)} cells  {time.monotonic() - start:.1f} s", flush=True)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Build the notebooks from source/.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a built notebook is stale")
    parser.add_argument("--only", default="", metavar="NAME", help="only sources whose name contains NAME")
    parser.add_argument("--force", action="store_true", help="also those that are up to date (after library changes)")
    parser.add_argument("--no-execute", action="store_true", help="for a look at the text: leave the outputs empty")
    parser.add_argument("--root", type=Path, default=ROOT, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    try:
        wanted = derive(args.root)
        if not args.check:
            build(args.root, wanted, args.only, args.force, not args.no_execute)
            return 0
        complaints = [line for line in problems(args.root, wanted) if args.only in line]
    except SourceError as error:
        print(error, file=sys.stderr)
        return 1
    if complaints:
        print("\n".join([*complaints, "Run: python tools/build_notebooks.py"]), file=sys.stderr)
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
