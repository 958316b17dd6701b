"""What the documents point to exists: files, folders, and the classes of the design map."""

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PLACES = (ROOT, ROOT / "fl_course", ROOT / "fl_course" / "federation", ROOT / "fl_course" / "data" / "datasets", ROOT / "docs")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_files_that_are_named_exist(document):
    named = re.findall(r"`([\w./-]+/[\w./-]*|[\w/-]+\.(?:py|md|toml|txt))`", document.read_text(encoding="utf-8"))
    later = {"asynchrony/", "personalisation/", "robustness/", "selection/", "deploy/"}                # rooms of chapters to come
    made = {"reports/index.html", "reports/", ".bench/"}                                                # written by commands
    missing = [name for name in named if name not in later | made and not re.search(r"NN|chNN", name)
               and not any((place / name).exists() for place in PLACES)]  # fmt: skip
    assert missing == []


def rows():
    lines = (ROOT / "docs" / "design-map.md").read_text(encoding="utf-8").splitlines()
    return [line.split("|")[2] for line in lines if line.startswith("| ") and not line.startswith(("| system", "|---"))]


def resolve(words, found):
    for word in words:
        if word in getattr(found, "__dataclass_fields__", ()):                      # a field without a default is no attribute
            return found
        found = getattr(found, word)
    return found


@pytest.mark.parametrize("cell", rows())
def test_the_design_map_names_what_exists(cell):
    """A dotted name is a module, or something in one; a bare name is in the module, the room or the class named before it."""
    homes = []
    for name in re.findall(r"`([\w.]+)`", cell):
        words = name.split(".")
        for cut in range(len(words), 0, -1):
            path = ROOT / "fl_course" / Path(*words[:cut])
            if path.with_suffix(".py").exists() or (path / "__init__.py").exists():
                module = importlib.import_module(".".join(["fl_course", *words[:cut]]))
                room = importlib.import_module(module.__name__.rpartition(".")[0])
                homes = [resolve(words[cut:], module), module, room, importlib.import_module("fl_course")]
                break
        else:
            assert any(hasattr(home, words[0]) or words[0] in getattr(home, "__dataclass_fields__", ()) for home in homes), name
