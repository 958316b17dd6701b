"""Run notebooks under nbval and sum up: which cells run, and do the exact ones come back to the letter."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from . import places
from .kernels import own_kernel

COLOUR = re.compile(r"(\x1b|#x1B)\[[0-9;]*m")


class NoValidator(Exception):
    """nbval is not installed."""


@dataclass(frozen=True)
class Verdict:
    """What nbval says of one notebook."""

    notebook: str
    passed: int                               # cells
    failed: int
    first: str = ""                           # the first failure, in a line or two

    @property
    def ok(self) -> bool:
        return not self.failed and self.passed > 0


def arguments(cell_timeout: int = 600) -> list[str]:
    """The options of pytest under which every notebook of the course must pass."""
    options = ["--nbval-lax", "--nbval-current-env", f"--nbval-cell-timeout={cell_timeout}"]
    return [*options, f"--nbval-sanitize-with={places.sanitize_file()}"]


def validate(notebook: Path, strict: bool = True, cell_timeout: int = 600) -> Verdict:
    """Run one notebook cell by cell in a fresh kernel. With `strict` an exercise that is not solved is a failure."""
    if find_spec("nbval") is None:
        raise NoValidator('nbval is not installed; python -m pip install "fl-course[test]"')
    with own_kernel() as folder:
        settings = folder / "pytest.ini"      # not those of the project around the notebook
        settings.write_text("[pytest]\n", encoding="utf-8")
        report = folder / "report.xml"
        command = [
            sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", str(settings),
            "--rootdir", str(folder), f"--junitxml={report}", *arguments(cell_timeout), str(notebook.resolve()),
        ]
        environment = {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"), "PYTHONHASHSEED": "0"}
        environment["FL_COURSE_STRICT"] = "1" if strict else "0"
        with tempfile.TemporaryFile() as said:
            subprocess.run(command, stdout=said, stderr=subprocess.STDOUT, env=environment, cwd=folder, check=False)
            said.seek(0)
            text = said.read().decode(errors="replace")
        if not report.exists():
            return Verdict(notebook.name, 0, 1, " ".join(text.split())[-300:])
        return _read(notebook.name, report)


def _read(name: str, report: Path) -> Verdict:
    cases = list(ElementTree.parse(report).iter("testcase"))
    failures = [(case.get("name", ""), node) for case in cases for node in case if node.tag in ("failure", "error")]
    first = ""
    if failures:
        cell, node = failures[0]
        text = COLOUR.sub("", node.text or "")
        lines = [line.strip() for line in text.splitlines() if line.strip("- \t")]
        first = f"{cell}: {lines[-1] if lines else node.get('message', '')}"[:400]
    return Verdict(name, len(cases) - len(failures), len(failures), first)
