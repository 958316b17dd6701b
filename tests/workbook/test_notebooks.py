"""Notebooks run: lessons with small parameters, stubs with nothing but NotImplementedError; and the gate can turn red."""

import ast
import re

import nbformat
import pytest
from nbclient import NotebookClient
from workbook_fixtures import FIXTURES, ROOT, built, write_notebook

from fl_course.workbook.commands import parameters
from fl_course.workbook.commands.kernels import NAME, own_kernel
from fl_course.workbook.commands.runner import run_notebook
from fl_course.workbook.commands.validate import validate
from fl_course.workbook.grading import checks
from fl_course.workbook.grading.cards import reported

# The smallest parameters with which a lesson still makes sense; a lesson that is not named runs with its own.
SMALL: dict[str, dict] = {
    "00_tour": {"rounds": 3},
    "01_fedavg": {"rounds": 3, "repeats": 1},
    "02_heterogeneity": {"rounds": 3, "repeats": 1},
    "03_privacy": {"rounds": 4, "trials": 300},
    "04_secure_aggregation": {"rounds": 2, "clients": 5},
    "06_selection": {"rounds": 3, "card_rounds": 6, "repeats": 1},
    "07_asynchrony": {"rounds": 3, "repeats": 1},
    "09_attacks": {"rounds": 3, "card_rounds": 5},
    "10_capstones": {"hospital_rounds": 2, "bank_rounds": 2, "phone_rounds": 6, "car_rounds": 6, "repeats": 1},
    "11_deploy": {"rounds": 2},
    "12_room": {"pages": 8, "rounds": 3},
}
LESSONS = sorted((ROOT / "notebooks").glob("*.ipynb"))
STUBS = sorted((ROOT / "exercises").glob("*.ipynb"))
CALL = re.compile(r"""\bcheck\(\s*["']([^"']+)["']\s*,\s*(\w+)""")


def run_stubs(path):
    """(names of the errors that cells raised, text of all results) of a notebook that goes on after errors."""
    node = nbformat.read(path, as_version=4)
    with own_kernel(FL_COURSE_STRICT="0") as folder:
        resources = {"metadata": {"path": str(folder)}}
        NotebookClient(node, kernel_name=NAME, timeout=300, allow_errors=True, resources=resources).execute()
    outputs = [output for cell in node.cells if cell.cell_type == "code" for output in cell.outputs]
    errors = [output.ename for output in outputs if output.output_type == "error"]
    return errors, "\n".join(output.data.get("text/plain", "") for output in outputs if "data" in output)


@pytest.mark.slow
@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_lesson_runs_with_small_parameters(path, tmp_path):
    small = SMALL.get(path.stem, {})
    known = parameters.inspect(path)
    assert set(small) <= set(known), f"SMALL[{path.stem!r}] names parameters that the lesson has not"
    outcome = run_notebook(path, tmp_path / path.name, small)
    assert outcome.ok, outcome.error
    numbers = reported(nbformat.read(tmp_path / path.name, as_version=4))
    assert numbers, "a lesson ends one cell with report(name=number), so that `fl-course sweep` has something to gather"


@pytest.mark.slow
@pytest.mark.parametrize("path", [*STUBS, "99"], ids=lambda path: getattr(path, "stem", path))
def test_stubs_raise_nothing_but_not_implemented(path):
    path = built() / "exercises" / "99_tiny.ipynb" if path == "99" else path
    errors, text = run_stubs(path)
    assert set(errors) <= {"NotImplementedError"}
    assert "PASS" not in text, "a check passes on a stub"
    assert text.count("not written yet") >= 1


@pytest.mark.parametrize("path", [*STUBS, "99"], ids=lambda path: getattr(path, "stem", path))
def test_notebook_and_chapter_have_the_same_exercises(path):
    path = built() / "exercises" / "99_tiny.ipynb" if path == "99" else path
    code = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    asked = dict(match for source in code for match in CALL.findall(source))
    chapter = checks.chapter(path.stem[:2])
    assert list(asked) == [exercise.name for exercise in chapter]
    stubs = {node.name for source in code for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)}
    for exercise in chapter:
        assert asked[exercise.name] == exercise.solution.__name__
        assert exercise.solution.__name__ in stubs


# --- the gate can turn red ---


def test_a_broken_cell_turns_the_run_red(tmp_path):
    path = write_notebook(tmp_path / "broken.ipynb", "x = 1", "x / 0", "print('never')")
    outcome = run_notebook(path, tmp_path / "out.ipynb")
    assert not outcome.ok
    assert outcome.error == "cell [2] `x / 0`: ZeroDivisionError: division by zero"
    assert (outcome.cells, outcome.total) == (1, 3)


@pytest.mark.slow
def test_a_wrong_solution_turns_the_run_red(tmp_path):
    node = nbformat.read(built() / "solutions" / "99_tiny.ipynb", as_version=4)
    (cell,) = [cell for cell in node.cells if "def sample_clients" in cell.source]
    cell.source = cell.source.replace("replace=False", "replace=True")
    nbformat.write(node, tmp_path / "wrong.ipynb")
    outcome = run_notebook(tmp_path / "wrong.ipynb", tmp_path / "out.ipynb")
    assert "CheckFailed" in outcome.error
    assert "sample without replacement" in outcome.error


@pytest.mark.slow
def test_a_check_that_passes_on_a_stub_turns_the_gate_red(tmp_path, monkeypatch):
    source = (FIXTURES / "chapters" / "ch99.py").read_text(encoding="utf-8")
    lax = source.replace("test=agrees_with(clip, draw_delta, times=12)", "test=lambda fn, rng: None")
    assert lax != source
    (tmp_path / "ch99.py").write_text(lax, encoding="utf-8")
    monkeypatch.setenv("FL_COURSE_CHAPTERS", str(tmp_path))
    with pytest.raises(AssertionError, match="passes on a stub"):
        test_stubs_raise_nothing_but_not_implemented("99")


@pytest.mark.slow
def test_an_exact_output_must_come_back(tmp_path):
    node = nbformat.read(built() / "notebooks" / "99_tiny.ipynb", as_version=4)
    node.cells = node.cells[:4]               # parameters and the cell tagged nbval-check-output
    nbformat.write(node, tmp_path / "same.ipynb")
    assert validate(tmp_path / "same.ipynb").ok
    node.cells[3].outputs[0].text = node.cells[3].outputs[0].text.replace("6.0", "6.5")
    nbformat.write(node, tmp_path / "other.ipynb")
    verdict = validate(tmp_path / "other.ipynb")
    assert (verdict.passed, verdict.failed) == (1, 1)
