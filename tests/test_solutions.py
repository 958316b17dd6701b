"""An exercise is written once: what the student gets, what solutions/ shows and what the checks run is the same function."""

import ast
import inspect
import textwrap
from types import SimpleNamespace

import nbformat
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from workbook_fixtures import FIXTURES, ROOT, exercise_cells, notebook_sources

from fl_course.workbook.grading import checks

SourceError, read = notebook_sources.SourceError, notebook_sources.read
SOURCES = sorted((ROOT / "source" / "exercises").glob("*.py"))
TINY = (FIXTURES / "source" / "exercises" / "99_tiny.py").read_text(encoding="utf-8")


def function_of(source, name):
    return next(node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef) and node.name == name)


def expand(text, tmp_path, name="99_tiny.py"):
    (tmp_path / name).write_text(text, encoding="utf-8")
    return exercise_cells.expanded(read(tmp_path / name), name)


# --- the notebooks of this repository ---


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_the_built_notebooks_hold_the_function_of_the_chapter(source):
    built = {folder: nbformat.read(ROOT / folder / f"{source.stem}.ipynb", 4) for folder in ("exercises", "solutions")}
    code = {folder: [cell.source for cell in node.cells if cell.cell_type == "code"] for folder, node in built.items()}
    for exercise in checks.chapter(source.stem[:2]):
        name = exercise.solution.__name__
        reference = function_of(exercise_cells.text_of(exercise.solution), name)
        stub, solution = (function_of(next(text for text in code[folder] if f"def {name}(" in text), name) for folder in code)
        assert ast.unparse(solution) == ast.unparse(reference)
        assert ast.unparse(stub.args) == ast.unparse(reference.args)
        assert ast.get_docstring(stub) == ast.get_docstring(reference) == inspect.getdoc(exercise.solution)
        assert [ast.unparse(line) for line in stub.body[1:]] == ["raise NotImplementedError()"]


def test_what_is_made_of_one_line(tmp_path):
    heading, carelessly, function, check = expand(TINY, tmp_path)[5:9]
    assert heading.source == ("## 99.2 Sampling clients\n*Difficulty 1 of 5 · 5 minutes.* "
                              "Ask `count` different clients. The cell below asks without looking.")  # fmt: skip
    assert carelessly.source.startswith("def careless")
    assert carelessly.metadata == {}
    assert function.source.splitlines() == [
        "def sample_clients(clients, count, rng):",
        '    """`count` different numbers below `clients`."""',
        "    ### BEGIN SOLUTION",
        "    return rng.choice(clients, size=count, replace=False)",
        "    ### END SOLUTION",
    ]
    assert check.source == 'check("99.sample_clients", sample_clients)'
    assert [cell.metadata["tags"] for cell in (heading, function, check)] == [["exercise"], ["exercise"], ["check"]]


def test_prose_that_is_no_paragraph_keeps_its_line(tmp_path):
    made = expand(TINY.replace("# Make an update", "# - one\n# - two"), tmp_path)
    assert "*Difficulty 2 of 5 · 10 minutes.*\n\n- one\n- two" in "\n".join(cell.source for cell in made)


# --- what is refused ---


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("exercise 99.clip [", "exercise 99.clipp [", "no exercise '99.clipp' in chapter 99; there are 99.weighted_average"),
        ("exercise 99.clip [", "exercise 01.shards [", "no exercise '01.shards' in chapter 99"),
        ("exercise 99.clip [", "exercise 99.weighted_average [", "stands here 2 times"),
        ("exercise 99.clip [markdown]", "exercize 99.clip [markdown]", "'99.clip' is missing"),
        ("# Make an update of norm at most `bound`.\n", "", "cell 6: exercise '99.clip' has no prose"),
        ("exercise 99.clip [markdown]", "exercise 99.clip", "`# %% exercise 99.clip [markdown]`"),
        ("exercise 99.clip [", "exercise 99.swap [", "no exercise '99.swap'"),
        ('# %% tags=["solution"]', '# %% tags=["exercise"]', "cell 7: tags `exercise` and `check`"),
        ('# %% tags=["solution"]', '# %% tags=["check"]', "cell 7: tags `exercise` and `check`"),
        ('# %% tags=["solution"]\n', '# %%\n1\n\n# %% tags=["given"]\n', "cell 8: `given` is for code cells"),
        ("print(", "### BEGIN SOLUTION\nprint(", "prose only"),
        ("print(", "# end solution\nprint(", "prose only"),
        ("import numpy as np\n", "", "exercise 99.weighted_average: its code uses np, which the notebook does not have"),
    ],
)
def test_refused(tmp_path, old, new, words):
    assert old in TINY
    with pytest.raises(SourceError) as refused:
        expand(TINY.replace(old, new), tmp_path)
    assert words in str(refused.value)
    assert str(refused.value).startswith("99_tiny.py")


@pytest.mark.parametrize(("said", "words"), [
    ("Three functions, from five to ten minutes.", ""), ("Three functions: average, draw, clip.", ""), ("A text.", ""),
    ("3 functions, from one line to 10 minutes.", ""), ("Two functions, from five to ten minutes.", "there are 3"),
    ("Three functions, from five minutes to half an hour.", "'half an hour', and the longest exercise takes 10 minutes"),
    ("Three functions, from ten to ten minutes.", "the shortest exercise takes 5 minutes"),
    ("Three functions, from five minutes to long.", "write a number of minutes"),
])  # fmt: skip
def test_the_first_cell_states_what_the_entries_state(tmp_path, said, words):
    text = TINY.replace("# # Three tiny exercises\n", f"# # Three tiny exercises\n#\n# {said} Write each in its cell.\n")
    assert text != TINY
    if words:
        with pytest.raises(SourceError, match=words):
            expand(text, tmp_path)
    else:
        assert expand(text, tmp_path)


def test_the_order_is_that_of_the_chapter(tmp_path):
    swapped = TINY.replace("99.clip", "99.x").replace("99.weighted_average", "99.clip").replace("99.x", "99.weighted_average")
    with pytest.raises(SourceError, match="the order is not that of EXERCISES"):
        expand(swapped, tmp_path)


def test_a_source_without_a_chapter(tmp_path):
    with pytest.raises(SourceError, match="no exercises for chapter '98'"):
        expand(TINY, tmp_path, "98_tiny.py")


# --- any function at all: the markers stand around the body, and only around it ---


def entry(monkeypatch, text, *helpers):
    """An exercise whose solution (and helpers) have this text, as the builder sees them."""
    texts = {"clip": text, **{function_of(helper, name).name: helper for name, helper in helpers}}
    monkeypatch.setattr(exercise_cells, "text_of", lambda function: textwrap.dedent(texts[function.__name__]).rstrip())
    solution, *given_above = (SimpleNamespace(__name__=name) for name in texts)
    return SimpleNamespace(name="99.clip", chapter="99", solution=solution, given=tuple(given_above))


SIGNATURES = st.sampled_from([
    "def f(x):", "def f(\n    x,\n    y=(1, 2),\n):", "def f(x: int = 3) -> int:", "@staticmethod\ndef f(*x, **y):",
])  # fmt: skip
DOCSTRINGS = st.sampled_from([
    '"""One line."""', '"""Two\n\n    paragraphs, with a def f(x): in it.\n    """', "'x: (d,).'", 'r"""\\mu"""',
])  # fmt: skip
STATEMENTS = st.sampled_from([
    "# a comment", "", "y = 1", "def g(z):\n        '''inner'''\n        return z", "return [i for i in x]",
    "s = '''\n  text\n'''", "if x:\n        pass\n    # at the end", "y = (1 +\n  2)",
])  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(SIGNATURES, DOCSTRINGS, st.lists(STATEMENTS, min_size=1, max_size=5), st.integers(0, 1))
def test_stub_and_solution_of_any_function(signature, docstring, statements, last):
    source = "\n    ".join([signature, docstring, *statements, *["return x"] * last]).rstrip()
    if len(function_of(source, "f").body) < 2:
        with pytest.raises(SourceError, match="and a body"):
            exercise_cells.marked(source, "here")
        return
    text = exercise_cells.marked(source, "here")
    lines = [line for line in text.splitlines() if line.strip() not in (exercise_cells.BEGIN, exercise_cells.END)]
    assert "\n".join(lines) == source
    stub, whole = function_of(exercise_cells.stubbed(text), "f"), function_of(source, "f")
    assert ast.unparse(stub.args) == ast.unparse(whole.args)
    assert ast.get_docstring(stub) == ast.get_docstring(whole)
    assert [ast.unparse(line) for line in stub.body[1:]] == ["raise NotImplementedError()"]


@pytest.mark.parametrize(
    ("text", "strange"),
    [
        ("def clip(x):\n    '''x'''\n    return np.sum(x)", None),
        ("def clip(x):\n    '''x'''\n    return scipy.sum(x)", "scipy"),
        ("def clip(x):\n    '''x'''\n    def inner(y):\n        return PRIMES[y]\n    return inner(x)", "PRIMES"),
        ("def clip(x):\n    '''x'''\n    return [R for _ in x]", "R"),
        ("def clip(x, n=R):\n    '''x'''\n    return n", "R"),
        ("def clip(x: Vector):\n    '''x'''\n    return x", "Vector"),
        ("def clip(x):\n    '''x'''\n    R = 1\n    return R + len(x)", None),
        ("def clip(x):\n    '''x'''\n    return clip(x[1:])", None),
        ("def clip(x):\n    '''x'''\n    import math\n    return math.pi", None),
    ],
)
def test_a_solution_uses_only_what_the_notebook_has(monkeypatch, text, strange):
    exercise = entry(monkeypatch, text)
    if strange is None:
        assert len(exercise_cells._function_and_check(exercise, {"np"}, "99_tiny.py")) == 2
        return
    with pytest.raises(SourceError, match=f"its code uses {strange}, which the notebook does not have"):
        exercise_cells._function_and_check(exercise, {"np"}, "99_tiny.py")


def test_a_given_helper_stands_above_the_stub(monkeypatch):
    helper = ("norm", "def norm(x):\n    return np.sqrt(x @ x)")
    exercise = entry(monkeypatch, "def clip(x):\n    '''x: (d,).'''\n    return x / norm(x)", helper)
    function, _ = exercise_cells._function_and_check(exercise, {"np"}, "99_tiny.py")
    stub = "def clip(x):\n    '''x: (d,).'''\n    # YOUR CODE HERE\n    raise NotImplementedError()"
    assert exercise_cells.stubbed(function.source) == f"def norm(x):\n    return np.sqrt(x @ x)\n\n\n{stub}"
    with pytest.raises(SourceError, match="uses np"):
        exercise_cells._function_and_check(exercise, set(), "99_tiny.py")


def test_star_imports_and_earlier_exercises(tmp_path):
    assert {"Coordinator", "mlp"} <= exercise_cells.names_set("from fl_course import *", "x")
    cells = read_cells(tmp_path, TINY)
    assert "weighted_average" not in exercise_cells._defined(cells, "99"), "for the student an earlier exercise is a stub"


def read_cells(tmp_path, text):
    (tmp_path / "99_tiny.py").write_text(text, encoding="utf-8")
    return read(tmp_path / "99_tiny.py")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def clip(x):\n    return x", "docstring"),
        ("def clip(x):\n    '''x'''\n    ### END SOLUTION\n    return x", "no markers"),
    ],
)
def test_a_function_that_cannot_be_an_exercise(monkeypatch, text, words):
    with pytest.raises(SourceError, match=words):
        exercise_cells._function_and_check(entry(monkeypatch, text), set(), "99_tiny.py")
