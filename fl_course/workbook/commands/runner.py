"""Run notebooks in batch with papermill: one line each, the others go on when one fails."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...files import write_all
from ..grading.cards import reported
from .kernels import NAME, own_kernel


@dataclass(frozen=True)
class Outcome:
    """What became of one notebook."""

    notebook: str
    cells: int                                # code cells that ran to their end
    total: int                                # code cells
    seconds: float                            # of the wall clock
    error: str = ""                           # empty: it ran through
    output: Path | None = None                # the executed notebook
    numbers: dict[str, Any] = field(default_factory=dict)        # what it reported

    @property
    def ok(self) -> bool:
        return not self.error


def run_notebook(path: Path, output: Path, parameters: dict[str, Any] | None = None, timeout: int = 1800) -> Outcome:
    """Execute one notebook and write it, with its outputs, to `output` (also when it fails: then up to the failure).

    Checks are strict: an exercise that is not solved is a failure. Whatever goes wrong ends up in the outcome. If `output` cannot
    be written at the end, the executed notebook goes to a temporary folder, which the outcome names.
    """
    import nbformat
    import papermill
    from papermill import iorw
    from papermill.exceptions import PapermillExecutionError

    logging.getLogger("papermill").setLevel(logging.ERROR)
    start, error = time.monotonic(), ""
    saved = InMemory()
    iorw.papermill_io.register(saved.scheme, saved)
    try:
        with own_kernel(FL_COURSE_STRICT="1") as folder:
            papermill.execute_notebook(
                str(path), f"{saved.scheme}.ipynb", parameters or {}, kernel_name=NAME, progress_bar=False, cwd=str(folder),
                request_save_on_cell_execute=False, execution_timeout=timeout, start_timeout=120,
            )
    except PapermillExecutionError as failure:
        first = next((line for line in failure.source.splitlines() if line.strip()), "")
        error = f"cell [{failure.exec_count}] `{first.strip()[:60]}`: {failure.ename}: {failure.evalue}"
    except Exception as failure:              # a dead kernel, a broken file, a time-out: this notebook only
        error = f"{type(failure).__name__}: {str(failure).strip()[:400]}"
    finally:
        iorw.papermill_io._handlers.remove((saved.scheme, saved))
    if not saved.text:
        return Outcome(path.name, 0, 0, time.monotonic() - start, error or "nothing was executed")
    node = nbformat.reads(saved.text, as_version=4)
    code = [cell for cell in node.cells if cell.cell_type == "code" and cell.source]
    done = sum(cell.metadata.get("papermill", {}).get("status") == "completed" for cell in code)
    kept, trouble = keep({output.name: saved.text.encode()}, output.parent)
    error = "; ".join(filter(None, [error, trouble]))
    return Outcome(path.name, done, len(code), time.monotonic() - start, error, kept[0] if kept else None, reported(node))


class InMemory:
    """Where papermill saves what it has executed: no disk can be full before the last cell is done."""

    scheme = "memory:"

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str, path: str) -> None:
        self.text = text

    def pretty_path(self, path: str) -> str:
        return path


def keep(files: Mapping[str, bytes], out: Path) -> tuple[list[Path], str]:
    """Write files to `out`, all of them or none, each whole. Returns where they are and, if `out` could not be written, a
    sentence: then they are in a temporary folder, or nowhere if that is full, too."""
    try:
        return _write(files, out), ""
    except OSError as error:
        sentence = f"{out} cannot be written ({error.strerror or error}); "
    try:
        elsewhere = Path(tempfile.mkdtemp(prefix="fl-course-run-"))
        return _write(files, elsewhere), f"{sentence}what was computed is kept in {elsewhere}"
    except OSError as error:
        return [], f"{sentence}neither can {tempfile.gettempdir()} ({error.strerror or error}): make room, and run it again"


def _write(files: Mapping[str, bytes], out: Path) -> list[Path]:
    out.mkdir(parents=True, exist_ok=True)
    write_all({out / name: content for name, content in files.items()})
    return [out / name for name in files]
