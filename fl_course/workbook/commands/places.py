"""Where the workbook is: in the checkout, in the installed package, or in the folder that `fl-course start` made."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2]
FOLDERS = ("notebooks", "exercises")                             # what a student gets; solutions/ only when asked for
SANITIZE = "nbval_sanitize.cfg"


class NoWorkbook(Exception):
    """The notebooks cannot be found."""


def checkout() -> Path | None:
    """The root of the repository, if the package is used from one."""
    root = PACKAGE.parent
    return root if (root / "source").is_dir() and (root / "pyproject.toml").is_file() else None


def course() -> Path:
    """The folder that holds notebooks/, exercises/ and solutions/: the repository, or the copy inside the wheel."""
    root = checkout() or PACKAGE / "course"
    if not (root / "notebooks").is_dir():
        raise NoWorkbook(f"there are no notebooks in {root}; install fl-course again, or run it from the repository")
    return root


def sanitize_file() -> Path:
    """nbval's patterns for outputs that differ from run to run."""
    root = checkout()
    return root / "tests" / SANITIZE if root else PACKAGE / "course" / SANITIZE


def here() -> Path:
    """The reader's own copy if the current folder is one, else the course. Any other folder called notebooks/ is not ours."""
    return Path.cwd() if any(map(is_ours, (Path.cwd() / "notebooks").glob("[0-9]*.ipynb"))) else course()


def is_ours(notebook: Path) -> bool:
    """Whether the course's builder wrote this notebook: it leaves the fingerprint of the source in the metadata."""
    try:
        return "fl_course" in json.loads(notebook.read_text(encoding="utf-8"))["metadata"]
    except (OSError, ValueError, KeyError, TypeError):
        return False


def notebooks(*folders: str) -> list[Path]:
    """All notebooks of these folders (default: the lessons), in order."""
    root = here()
    return [path for folder in folders or ("notebooks",) for path in sorted((root / folder).glob("[0-9]*.ipynb"))]


def tour() -> Path:
    """The notebook to begin with: the tour, or the first lesson until there is one."""
    found = notebooks()
    if not found:
        raise NoWorkbook(f"no notebooks in {here() / 'notebooks'}; build them with: python tools/build_notebooks.py")
    return found[0]


def resolve(names: list[str]) -> list[Path]:
    """Notebooks by path, by name or by number: "notebooks/01_fedavg.ipynb", "01_fedavg", "01" are the same."""
    paths = []
    for name in names:
        known = notebooks("notebooks", "exercises", "solutions")
        matches = [path for path in known if path.stem == name or path.stem.partition("_")[0] == name]
        if Path(name).is_file():
            paths.append(Path(name).resolve())
        elif matches:
            paths.append(matches[0])
        else:
            there = ", ".join(dict.fromkeys(path.stem for path in known)) or "(none)"
            raise NoWorkbook(f"no notebook {name!r}; there are {there}")
    return paths


def copy_workbook(target: Path, solutions: bool = False, force: bool = False) -> tuple[int, list[Path]]:
    """Copy the workbook to a folder of the reader's own. Returns (files written, files that were there and kept)."""
    root, written, kept = course(), 0, []
    for folder in (*FOLDERS, *(["solutions"] if solutions else [])):
        (target / folder).mkdir(parents=True, exist_ok=True)
        for source in sorted((root / folder).glob("*.ipynb")):
            copy = target / folder / source.name
            if copy.exists() and not force:
                kept.append(copy)
                continue
            shutil.copyfile(source, copy)                        # contents only: a read-only original stays writable
            written += 1
    return written, kept
