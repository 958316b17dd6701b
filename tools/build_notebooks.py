"""Build the notebooks from their text sources. Run it after every change under source/; CI runs it with --check.

    source/lessons/NN_name.py    ->  notebooks/NN_name.ipynb   executed, with outputs
    source/exercises/NN_name.py  ->  exercises/NN_name.ipynb   stubs, no outputs
                                     solutions/NN_name.ipynb   executed, with outputs
    source/glossary.md           ->  notebooks/glossary.md     symbols and words

Sources are py:percent text. An exercise is a line and its prose; the rest comes from fl_course/workbook/exercises (see
exercise_cells.py). A cell tagged `solution` exists in solutions/ only. Links, anchors and folded answers are put in
(notebook_links.py), and a lesson must keep the rules (lesson_rules.py). Two builds of the same source on the same machine
give the same bytes.

A built notebook carries two hashes: of the source it was built from, and of its outputs together with that source. So
--check finds a source that is newer and an output that was edited or deleted. It does not ask whether the library has
changed since: every comment would make every notebook stale. That is what nbval is for, which runs them all.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from pathlib import Path

import nbformat
from exercise_cells import MARKER, expanded, stubbed
from glossary import read_glossary
from lesson_rules import check_outputs, inspect_lesson
from notebook_links import check_links, furnished, link_files, link_papers, title_of
from notebook_outputs import Untidy, digest_of_outputs, tidy
from notebook_sources import SourceError, read, sources, tags

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("notebooks", "exercises", "solutions")
EXECUTED = ("notebooks", "solutions")
LIMIT = 8_000_000                                                # bytes, all built files together
GLOSSARY = Path("notebooks", "glossary.md")
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


# --- from a source to the cells of its notebooks ----------------------------------------------------------------------


def no_exercises(name: str, cells: list[nbformat.NotebookNode]) -> None:
    """A lesson has neither exercises nor solutions."""
    for number, cell in enumerate(cells, start=1):
        if MARKER.search(cell.source) or cell.metadata.get("title", "").startswith("exercise "):
            raise SourceError(f"{name}, cell {number}: an exercise belongs in source/exercises, its solution in its chapter")


def notebook(cells: list[nbformat.NotebookNode], stubs: bool) -> nbformat.NotebookNode:
    """An unexecuted notebook, as stubs if asked: stable cell ids, tags, and the fingerprint of what it was built from."""
    seen: dict[str, int] = {}
    out = []
    for cell in cells:
        make = nbformat.v4.new_code_cell if cell.cell_type == "code" else nbformat.v4.new_markdown_cell
        source = stubbed(cell.source) if stubs else cell.source
        seen[source] = seen.get(source, 0) + 1
        name = hashlib.sha256(f"{source}/{seen[source]}".encode()).hexdigest()[:12]
        out.append(make(source, metadata=metadata_of(cell), id=name))
    digest = hashlib.sha256(json.dumps([fingerprint(cell) for cell in out]).encode()).hexdigest()
    node = nbformat.v4.new_notebook(cells=out, metadata={**METADATA, "fl_course": {"source_sha256": digest}})
    nbformat.validate(node)
    return node


def metadata_of(cell: nbformat.NotebookNode) -> dict:
    """The tags; what nbgrader reads; a proof is folded, which JupyterLab reads from `jupyter`."""
    kept: dict = {"tags": tags(cell)} if tags(cell) else {}
    if "nbgrader" in cell.metadata:
        kept["nbgrader"] = dict(cell.metadata["nbgrader"])
    return {**kept, "jupyter": {"source_hidden": True}} if "proof" in tags(cell) else kept


def fingerprint(cell: nbformat.NotebookNode) -> list:
    return [cell.cell_type, cell.source, cell.get("id"), tags(cell)]


def derive(root: Path) -> dict[Path, nbformat.NotebookNode | str]:
    """Every notebook that the sources ask for, unexecuted, and the glossary; by the path relative to `root`."""
    cells: dict[Path, list[nbformat.NotebookNode]] = {}
    for path in sources(root / "source" / "lessons"):
        cells[Path("notebooks", f"{path.stem}.ipynb")] = lesson = read(path)
        no_exercises(path.name, lesson)
        inspect_lesson(path.stem, lesson)
    for path in sources(root / "source" / "exercises"):
        everything = expanded(read(path), path.name)
        cells[Path("exercises", f"{path.stem}.ipynb")] = [cell for cell in everything if "solution" not in tags(cell)]
        cells[Path("solutions", f"{path.stem}.ipynb")] = everything
    explained = root / "source" / "glossary.md"
    glossary = read_glossary(explained) if explained.exists() else None
    titles = {path: title for path, those in cells.items() if (title := title_of(those))}
    built: dict[Path, nbformat.NotebookNode | str] = {}
    for path, those in cells.items():
        those = furnished(path, those, titles, glossary, first_uses=path.parts[0] == "notebooks")
        built[path] = notebook(those, stubs=path.parts[0] == "exercises")
    pages = {path: [cell.source for cell in node.cells if cell.cell_type == "markdown"] for path, node in built.items()}
    if glossary is not None:
        built[GLOSSARY] = page = link_papers(link_files(glossary.page, "source/glossary.md"))
        pages[GLOSSARY] = [page]
    check_links(root, pages)
    return built


# --- what is stale, and building it -----------------------------------------------------------------------------------


def stale(path: Path, wanted: nbformat.NotebookNode | str, executed: bool) -> str:
    """Why the built file does not belong to its source; empty if it does."""
    if not path.exists():
        return "missing"
    if isinstance(wanted, str):
        return "" if path.read_bytes() == wanted.encode() else "differs from its source"
    try:
        found = nbformat.read(path, as_version=4)
        nbformat.validate(found)
    except Exception as error:                                   # whatever is wrong with it, it must be built again
        return f"unreadable ({type(error).__name__})"
    outputs = found.metadata.get("fl_course", {}).pop("outputs_sha256", None)
    if found.metadata != wanted.metadata:
        return "built from another version of its source"
    if len(found.cells) != len(wanted.cells):
        return f"{len(found.cells)} cells, its source has {len(wanted.cells)}"
    for number, (old, new) in enumerate(zip(found.cells, wanted.cells, strict=True), start=1):
        if fingerprint(old) != fingerprint(new) or old.metadata != new.metadata:
            return f"cell {number} differs from its source"
        if old.cell_type == "code" and executed and old.source and not old.execution_count:
            return f"cell {number} was not executed"
        if old.cell_type == "code" and not executed and (old.outputs or old.execution_count):
            return f"cell {number} has outputs"
        if any(output.output_type == "error" for output in old.get("outputs", [])):
            return f"cell {number} ends in an error"
    if executed and outputs != digest_of_outputs(found):
        return "its outputs are not those of its build (edited or deleted by hand?)"
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
            if name.startswith("notebooks/"):
                check_outputs(Path(name).stem, f"{name}, cell {number}", cell)
    node.metadata = nbformat.from_dict({**METADATA, "fl_course": node.metadata["fl_course"]})
    node.metadata["fl_course"]["outputs_sha256"] = digest_of_outputs(node)


def _failed(cell: nbformat.NotebookNode) -> bool:
    return any(output.output_type == "error" for output in cell.get("outputs", []))


def problems(root: Path, wanted: dict[Path, nbformat.NotebookNode | str]) -> list[str]:
    """All that --check complains about, one line each."""
    found = {path.relative_to(root) for folder in FOLDERS for path in (root / folder).glob("*.ipynb")}
    found |= {GLOSSARY} if (root / GLOSSARY).exists() else set()
    lines = [f"{path.as_posix()}: no source, remove it" for path in sorted(found - set(wanted))]
    for path, node in wanted.items():
        if reason := stale(root / path, node, path.parts[0] in EXECUTED):
            lines.append(f"{path.as_posix()}: {reason}")
    size = sum((root / path).stat().st_size for path in found)
    return lines if size < LIMIT else [*lines, f"the notebooks have {size:,} bytes together; stay below {LIMIT:,}"]


def build(root: Path, wanted: dict[Path, nbformat.NotebookNode | str], only: str, force: bool, run: bool) -> None:
    """Write every notebook that is stale (all with `force`); `only` restricts to sources whose name contains it."""
    for path, node in wanted.items():
        executed = path.parts[0] in EXECUTED
        if only not in path.stem or not (force or stale(root / path, node, executed)):
            continue
        start = time.monotonic()
        if isinstance(node, str):
            text, size = node, f"{len(node.splitlines())} lines"
        else:
            if executed and run:
                execute(node, path.as_posix())
            text, size = nbformat.writes(node).rstrip("\n") + "\n", f"{len(node.cells)} cells"
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(text.encode())
        print(f"built {path.as_posix()}  {size}  {time.monotonic() - start:.1f} s", flush=True)


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
        if args.only and not any(args.only in path.stem for path in wanted):
            there = ", ".join(dict.fromkeys(path.stem for path in wanted)) or "(none)"
            raise SourceError(f"no source has {args.only!r} in its name; there are {there}")
        if not args.check:
            build(args.root, wanted, args.only, args.force, not args.no_execute)
            return 0
        complaints = [line for line in problems(args.root, wanted) if args.only in line.partition(":")[0]]
    except SourceError as error:
        print(error, file=sys.stderr)
        return 1
    if complaints:
        print("\n".join([*complaints, "Run: python tools/build_notebooks.py"]), file=sys.stderr)
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
