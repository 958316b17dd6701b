"""The floors of the house: who may import whom. This list is the only place where the order is written down for machines.

Every import counts, also those under TYPE_CHECKING and inside functions: what a reader must open to understand a file.
"""

import ast
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "fl_course"

FLOORS = (                                     # a file imports from its own floor or from below, never from above
    ("core", "files", "micro"),                # micro: one file for reading, which imports nothing of the house
    ("wire", "data"),
    ("federation.interfaces",),
    ("engine",),
    ("federation",),
    ("drift",), ("privacy",), ("secure_aggregation",), ("compression",),        # chapters, in the order in which they are read
    ("selection",), ("asynchrony",), ("personalisation",), ("robustness",),
    ("fl_course",),                            # the face: every public name
    ("workbook", "deploy", "__main__"),
)  # fmt: skip
HEIGHT = {room: height for height, rooms in enumerate(FLOORS) for room in rooms}


def module_of(path, package=PACKAGE):
    """"privacy.accounting.rdp" for a file of the package; the face of the package is "fl_course"."""
    parts = list(path.relative_to(package).with_suffix("").parts)
    parts = parts[:-1] if parts[-1] == "__init__" else parts
    return ".".join(parts) or "fl_course"


def imports(path, package=PACKAGE):
    """The files of the package that a file names in any import, as modules."""
    here = path.relative_to(package).with_suffix("").parts
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name.split(".")[0] == "fl_course"]
            found |= {name.removeprefix("fl_course").lstrip(".") or "fl_course" for name in names}
        elif isinstance(node, ast.ImportFrom):
            words = (node.module or "").split(".") if node.module else []
            if node.level:
                base = [*here[: len(here) - node.level], *words]
            elif words and words[0] == "fl_course":
                base = words[1:]
            else:
                continue
            for alias in node.names:                          # `from .room import name`: a file of the room, or its face
                inner = package.joinpath(*base, alias.name)
                is_file = inner.with_suffix(".py").exists() or (inner / "__init__.py").exists()
                found.add(".".join([*base, alias.name] if is_file else base) or "fl_course")
    return found - {module_of(path, package)}


def room_of(module):
    parts = module.split(".")
    return next((room for room in (".".join(parts[:2]), parts[0]) if room in HEIGHT), None)


def graph(package=PACKAGE):
    return {module_of(path, package): imports(path, package) for path in sorted(package.rglob("*.py"))}


def circle(edges):
    """Some circle of modules, or an empty list: depth first, along the imports."""
    done, way = set(), []

    def walk(module):
        if module in way:
            return [*way[way.index(module):], module]
        if module in done:
            return []
        way.append(module)
        for other in sorted(edges.get(module, ())):
            if found := walk(other):
                return found
        done.add(way.pop())
        return []

    return next((found for module in sorted(edges) if (found := walk(module))), [])


def climbs(edges):
    """Imports from a lower room to a higher one, as sentences."""
    return [f"{module} (floor {HEIGHT[room_of(module)]}) imports {other} (floor {HEIGHT[room_of(other)]})"
            for module, others in edges.items() for other in sorted(others)
            if HEIGHT[room_of(other)] > HEIGHT[room_of(module)]]  # fmt: skip


def test_every_file_lives_in_a_room_with_a_floor():
    assert [module for module in graph() if room_of(module) is None] == []


def test_nothing_imports_upwards():
    assert climbs(graph()) == []


def test_no_circle_between_files():
    assert circle(graph()) == []


def test_the_library_never_imports_the_workbook():
    library = {module: others for module, others in graph().items() if room_of(module) not in ("workbook", "__main__")}
    assert [module for module, others in library.items() if any(room_of(other) == "workbook" for other in others)] == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("core.py", "from .federation.coordinator import Coordinator"),
        ("core.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .privacy import central"),
        ("wire/bits.py", "def late():\n    from ..engine.models import Model"),
        ("engine/models.py", "import fl_course.workbook.lesson"),
        ("privacy/noise.py", "from fl_course import Coordinator"),
    ],
)
def test_this_test_sees_a_climb(name, text, tmp_path):
    package = tmp_path / "fl_course"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("*.npz", "__pycache__"))
    (package / name).write_text(text, encoding="utf-8")
    assert climbs(graph(package))


def test_this_test_sees_a_circle():
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}}) == ["a", "b", "c", "a"]
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_a_file_is_one_sitting():
    """About 250 lines; what is longer is asked what it is really about. Tables of exercises are tables."""
    long = {module_of(path): len(path.read_text(encoding="utf-8").splitlines()) for path in PACKAGE.rglob("*.py")
            if path.parent.name != "exercises"}  # fmt: skip
    assert {module: lines for module, lines in long.items() if lines > 320} == {}
