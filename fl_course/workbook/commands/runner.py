"""Run notebooks in batch with papermill: one line each, the others go on when one fails."""

from __future__ import annotations

import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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

    @property
    def ok(self) -> bool:
        return not self.error


def run_notebook(path: Path, output: Path, parameters: dict[str, Any] | None = None, timeout: int = 1800) -> Outcome:
    """Execute one notebook and write it, with its outputs, to `output` (also when it fails: then up to the failure).

    Checks are strict: an exercise that is not solved is a failure. Whatever goes wrong ends up in the outcome.
    """
    import nbformat
    import papermill
    from papermill.exceptions import PapermillExecutionError

    logging.getLogger("papermill").setLevel(logging.ERROR)
    start, error = time.monotonic(), ""
    output.parent.mkdir(parents=True, exist_ok=True)
    part = output.with_suffix(".part.ipynb")
    part.unlink(missing_ok=True)              # of a run that was interrupted
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
        return Outcome(path.name, 0, 0, time.monotonic() - start, error or "nothing was written")
    os.replace(part, output)                  # a file of this name is a whole run, or the record of a failure
    code = [cell for cell in nbformat.read(output, as_version=4).cells if cell.cell_type == "code" and cell.source]
    done = sum(cell.metadata.get("papermill", {}).get("status") == "completed" for cell in code)
    return Outcome(path.name, done, len(code), time.monotonic() - start, error, output)
