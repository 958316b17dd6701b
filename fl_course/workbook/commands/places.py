"""Where the workbook is: in the checkout, in the installed package, or in the folder that `fl-course start` made."""

from __future__ import annotations

import json
import posixpath
import re
import sys
from pathlib import Path

from ...files import write

PACKAGE = Path(__file__).resolve().parents[2]
FOLDERS = ("notebooks", "exercises")                             # what a student gets; solutions/ only when asked for
LINK = re.compile(r"\[((?:[^\[\]]|\[[^\]]*\])*)\]\((\.\./[^)\s#]+)[^)]*\)")      # [text](../exercises/01_fedavg.ipynb)
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


def glossary(folder: Path) -> Path | None:
    """The page of symbols and words: beside the notebooks of this folder, else that of the course."""
    candidates = (folder, folder.parent / "notebooks", (checkout() or PACKAGE / "course") / "notebooks")
    return next((found / "glossary.md" for found in candidates if (found / "glossary.md").is_file()), None)


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


def readable(paths: list[Path]) -> list[Path]:
    """The same notebooks, when it is plain that each is one. NoWorkbook, before anything runs, names the first that is none."""
    import nbformat

    for path in paths:
        if path.suffix != ".ipynb":
            raise NoWorkbook(f"{path} is no notebook: its name does not end in .ipynb")
        try:
            nbformat.read(path, as_version=4)
        except OSError:
            raise
        except Exception as error:            # whatever a file holds that is none
            raise NoWorkbook(f"{path} is no notebook that can be read: it is empty, cut off, or no JSON with cells; copy or "
                             "save it once more") from error  # fmt: skip
    return paths


def copy_workbook(target: Path, solutions: bool = False, force: bool = False) -> tuple[int, list[Path]]:
    """Copy the workbook to a folder of the reader's own. Returns (notebooks written, those that were there and kept).

    Each file is there whole or not at all. One of which only the beginning is there, as an earlier copy to a full disk may have
    left it, is written again.
    """
    root, written, kept = course(), 0, []
    folders = (*FOLDERS, *(["solutions"] if solutions else []))
    for folder in folders:
        (target / folder).mkdir(parents=True, exist_ok=True)
        for source in sorted([*(root / folder).glob("*.ipynb"), *(root / folder).glob("*.md")]):
            copy = target / folder / source.name
            text = loosened(source.read_text(encoding="utf-8"), folder, folders)
            if copy.exists() and not force and not cut_off(copy, text):
                kept += [copy] if copy.suffix == ".ipynb" else []
                continue
            write(copy, text)
            written += copy.suffix == ".ipynb"
    own = (PACKAGE / "workbook" / "my_fl.py").read_text(encoding="utf-8")            # the template of "build your own"
    for page, text in ((target / "exercises" / "my_fl.py", own), (target / "README.md", welcome(target))):
        if (force and page.suffix == ".md") or not page.exists() or cut_off(page, text):
            write(page, text)
    return written, kept


def cut_off(copy: Path, text: str) -> bool:
    """Is the file a mere beginning of this text? What a reader has written is not."""
    try:
        found, whole = copy.read_bytes(), text.encode()
    except OSError:                           # a folder of that name, or no right to read it: leave it alone
        return False
    return len(found) < len(whole) and whole.startswith(found)


def loosened(text: str, folder: str, copied: tuple[str, ...]) -> str:
    """The text of a notebook in `folder`, whose links out of the copied folders are plain text: the library is not beside it."""

    def link(match: re.Match[str]) -> str:
        aim = posixpath.normpath(posixpath.join(folder, match[2]))
        return match[0] if aim.split("/")[0] in copied else match[1]

    return LINK.sub(link, text)


def welcome(target: Path) -> str:
    """The README of a reader's folder: how to begin, and a line a chapter."""
    rows = []
    for path in sorted((target / "notebooks").glob("[0-9]*.ipynb")):
        beside = [folder for folder in ("exercises", "solutions") if (target / folder / path.name).exists()]
        links = [f"[{folder}]({folder}/{path.name})" for folder in beside]
        rows.append(f"- {', '.join([f'[{title(path)}](notebooks/{path.name})', *links])}")
    words = "\nSigns and words that you do not know: [symbols and words](notebooks/glossary.md).\n"
    return f"""# Your copy of the federated-learning course

Change what you like: this folder is yours, and `fl-course start` never overwrites what is there (`--force` does).

    fl-course lab --dir .                  open the notebooks
    fl-course check exercises/NAME.ipynb   are all exercises of a notebook solved?
    fl-course start . --solutions          the solutions, afterwards

A terminal that does not know `fl-course` finds it in `{Path(sys.executable).parent}`.

Read a lesson, move its sliders, then do its exercises: each answers at once, `hint("…")` helps in three steps. A library of your
own goes behind `exercises/my_fl.py`; the exercises of chapter 10 say how it is judged.

{chr(10).join(rows)}
{words if (target / "notebooks" / "glossary.md").exists() else ""}
The lessons name files of the library, as `fl_course/core.py`. They are in `{PACKAGE}`.
"""


def title(path: Path) -> str:
    """The first heading of a notebook, or its name."""
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        first = "".join(cells[0]["source"]).partition("\n")[0]
    except (ValueError, LookupError, TypeError):                 # the reader's own file, whatever is in it
        return path.stem
    return first.removeprefix("# ").strip() if first.startswith("# ") else path.stem
