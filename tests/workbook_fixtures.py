"""What the tests of the workbook share: the tiny chapter 99, a workbook built from it, and small notebooks."""

import atexit
import functools
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
FIXTURES = Path(__file__).resolve().parent / "fixtures"

os.environ["FL_COURSE_CHAPTERS"] = str(FIXTURES / "chapters")    # kernels and graders find chapter 99 too
sys.path.insert(0, str(ROOT / "tools"))

import build_notebooks  # noqa: E402
import exercise_cells  # noqa: E402, F401
import glossary  # noqa: E402, F401
import lesson_rules  # noqa: E402, F401
import notebook_links  # noqa: E402, F401
import notebook_outputs  # noqa: E402, F401
import notebook_sources  # noqa: E402, F401

from fl_course.workbook import exercises  # noqa: E402
from fl_course.workbook.grading.checks import Exercise, examine  # noqa: E402

if str(FIXTURES / "chapters") not in exercises.__path__:
    exercises.__path__.append(str(FIXTURES / "chapters"))


@functools.cache
def built() -> Path:
    """A folder with the fixture's sources and the notebooks built from them. Built once; do not write into it."""
    root = Path(tempfile.mkdtemp(prefix="fl-course-built-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    shutil.copytree(FIXTURES / "source", root / "source")
    assert build_notebooks.main(["--root", str(root)]) == 0
    return root


def write_notebook(path: Path, *sources: str, parameters: str = "") -> Path:
    """A small notebook of code cells; `parameters` becomes a first cell with that tag."""
    cells = [nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]})] if parameters else []
    cells += [nbformat.v4.new_code_cell(source) for source in sources]
    node = nbformat.v4.new_notebook(cells=cells, metadata=dict(build_notebooks.METADATA))
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(node, path)
    return path


def with_small_files(limit: int, *words: object) -> subprocess.CompletedProcess[str]:
    """A command of fl-course, run where no file may have more bytes than this."""
    code = (
        "import resource, sys\nresource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)\n"
        "from fl_course.workbook.commands import cli\ncli.main(sys.argv[2:])"
    )
    return subprocess.run([sys.executable, "-c", code, str(limit), *map(str, words)], capture_output=True, text=True, check=False)


def gate(exercise: Exercise, seeds: int = 5) -> list[str]:
    """What is wrong with an exercise; empty if stub, mistakes and solution are each answered as they should be."""

    def stub(*args, **kwargs):
        raise NotImplementedError

    wrong = []
    for seed in range(seeds):
        if (state := examine(exercise, stub, np.random.default_rng(seed)).state) != "todo":
            wrong.append(f"{exercise.name}: the stub is answered {state!r} instead of 'todo'")
        result = examine(exercise, exercise.solution, np.random.default_rng(seed))
        if not result.passed:
            wrong.append(f"{exercise.name}: the solution does not pass: {result.message}")
        for mistake in exercise.mistakes:
            result = examine(exercise, mistake.fn, np.random.default_rng(seed))
            if result.state != "fail" or result.hint != mistake.hint:
                wrong.append(f"{exercise.name}: {mistake.fn.__name__} is not met with its own hint: {result!r}")
    return wrong
