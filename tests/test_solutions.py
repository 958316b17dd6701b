"""The solution that a learner reads in solutions/ is the one that `reveal` shows and that the checks compare with."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "source" / "exercises").glob("*.py"))


def functions(path):
    """Name -> statements of each function, without its docstring; comments and layout do not count."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            statements = node.body[1:] if ast.get_docstring(node) else node.body
            found[node.name] = [ast.unparse(statement) for statement in statements]
    return found


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_the_two_copies_of_a_solution_agree(source):
    chapter = functions(ROOT / "fl_course" / "workbook" / "exercises" / f"ch{source.stem[:2]}.py")
    written = functions(source)
    shared = written.keys() & chapter.keys()
    assert len(shared) >= 5
    for name in sorted(shared):
        assert written[name] == chapter[name], f"{name} differs between {source.name} and its chapter of checks"
