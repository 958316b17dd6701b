"""Run notebooks in batch with papermill: one line each, the others go on when one fails."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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
    be written at the end, the executed notebook stays in a temporary folder, which the outcome names.
    """
    import nbformat
    import papermill
    from papermill.exceptions import PapermillExecutionError

    logging.getLogger("papermill").setLevel(logging.ERROR)
    start, error = time.monotonic(), ""
    part = Path(tempfile.mkdtemp(prefix="fl-course-run-")) / output.name
    try:
        with own_kernel(FL_COURSE_STRICT="1") as folder:
            papermill.execute_notebook(
                str(path), str(part), parameters or {}, kernel_name=NAME, progress_bar=False, cwd=str(folder),
                request_save_on_cell_execute=False, execution_timeout=timeout, start_timeout=120,
            )
    except PapermillExecutionError as failure:
        first = next((line for line in failure.source.splitlines() if line.strip()), "")
        error = f"cell [{failure.exec_count}] `{first.strip()[:60]}`: {failure.ename}: {failure.evalue}"
    except Exception as failure:              # a dead kernel, a broken file, a time-out: this notebook only
        error = f"{type(failure).__name__}: {str(failure).strip()[:400]}"
    if not part.exists():
        shutil.rmtree(part.parent, ignore_errors=True)
        return Outcome(path.name, 0, 0, time.monotonic() - start, error or "nothing was written")
    node = nbformat.read(part, as_version=4)
    code = [cell for cell in node.cells if cell.cell_type == "code" and cell.source]
    done = sum(cell.metadata.get("papermill", {}).get("status") == "completed" for cell in code)
    (kept,), trouble = bring([part], output.parent)
    error = "; ".join(filter(None, [error, trouble]))
    return Outcome(path.name, done, len(code), time.monotonic() - start, error, kept, reported(node))


def bring(files: Sequence[Path], out: Path) -> tuple[list[Path], str]:
    """Move finished files out of the temporary folder that they lie in, alone, to `out`, each whole or not at all.

    Returns where they are now and, if `out` could not be written, a sentence: then all of them are left where they were.
    """
    parts = [out / f".{file.name}.{os.getpid()}.part" for file in files]
    try:
        out.mkdir(parents=True, exist_ok=True)
        for file, part in zip(files, parts, strict=True):
            shutil.copyfile(file, part)
        for file, part in zip(files, parts, strict=True):
            os.replace(part, out / file.name)
    except OSError as error:
        return list(files), f"{out} cannot be written ({error.strerror or error}); what was computed is kept in {files[0].parent}"
    finally:
        for part in parts:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
    shutil.rmtree(files[0].parent, ignore_errors=True)
    return [out / file.name for file in files], ""
