"""Which of the files in a folder are submissions, and what chapter each is about. What they may look like: intake.py."""

from __future__ import annotations

import functools
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from . import checks, intake

MENTION = re.compile(r"""\bcheck\(\s*["'](\d\d)\.[a-z]\w*["']""")
DEFINITION = re.compile(r"^\s*def\s+(\w+)\s*\(", re.MULTILINE)
OF_ONE = re.compile(r"_\d+_assignsubmission_")                   # a folder of Moodle's holds what one person has handed in


def submissions(folder: Path) -> list[Path]:
    """The files to grade: notebooks, scripts in cells, archives of them, and what was handed in instead of one.

    A path may lead into an archive: `a.zip/b.ipynb`. An archive that holds one notebook stands for it.
    """
    found: list[Path] = []
    groups: dict[Path, list[Path]] = {}
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if not hidden and (path.is_symlink() or not path.is_dir()):
            groups.setdefault(_home(path, folder), []).append(path)
    for home, paths in groups.items():
        if home != folder and OF_ONE.search(home.name):
            found += _of_one(paths) or paths[:1]                 # whoever handed in anything has a row
        else:
            good = _good(paths)
            found += [*good, *(path for path in paths if path not in good and path.suffix.lower() in intake.OTHER)]
            if not good and home != folder and not any(path in found for path in paths):
                found += paths[:1]
    return sorted(opened for path in found for opened in _opened(path))


def skipped(folder: Path, files: list[Path]) -> list[str]:
    """The other files of the folder, which are not graded: their names, relative to it."""
    known = {*files, *(parent for path in files for parent in path.parents)}
    others = (path for path in sorted(folder.rglob("*")) if not path.is_dir() and path not in known)
    names = (path.relative_to(folder) for path in others)
    return [name.as_posix() for name in names if not any(part.startswith(".") for part in name.parts)]


def cells(path: Path) -> tuple[list[tuple[int, str]] | None, str]:
    """(the code cells, or None; why there are none, or what is wrong with the archive that they lie in)."""
    try:
        about = (intake.archive_of(path) or path).stat()
    except OSError:
        return _cells(path, ())
    return _cells(path, (about.st_mtime_ns, about.st_ctime_ns, about.st_size, about.st_ino))


@functools.lru_cache(maxsize=2048)            # a class is asked about several times before it is run
def _cells(path: Path, version: tuple[int, ...]) -> tuple[list[tuple[int, str]] | None, str]:
    said = ""
    if intake.is_archive(path):
        names, said = intake.members(path)
        good = _good(names)
        if len(good) != 1:
            return None, said or "the archive holds no notebook"
        path = good[0]
    try:
        data = intake.read(path)
    except OSError as error:
        return None, f"the file cannot be read: {error.strerror or error}"
    found = intake.cells_of(path.name, data)
    if found is not None:
        return found, said
    kind = f"a file {path.suffix.lower()!r}" if path.suffix and ".ipynb" not in path.name.lower() else "the file"
    return None, f"not a notebook: {kind} cannot be read as JSON with cells"


def chapters_of(path: Path) -> set[str]:
    """The chapters of which a notebook calls a check, or defines a function with the name of an exercise."""
    text = _text(path)
    named = set(MENTION.findall(text)) & set(checks.chapters())
    if named:
        return named
    functions = set(DEFINITION.findall(text))
    return {n for n in checks.chapters() if functions & {item.solution.__name__ for item in checks.chapter(n)}}


def majority_chapter(files: list[Path]) -> str:
    """The chapter whose checks most files call. ValueError if none of them calls any."""
    votes: Counter[str] = Counter()
    for path in files:
        votes.update(set(MENTION.findall(_text(path))) & set(checks.chapters()))
    if not votes:
        raise ValueError(f"none of {len(files)} files calls a check of this course; name the chapter with --chapter")
    return votes.most_common(1)[0][0]


def _text(path: Path) -> str:
    """What the cells say; letters of another kind are those that Python takes them for."""
    return unicodedata.normalize("NFKC", "\n".join(source for _, source in cells(path)[0] or []))


def _home(path: Path, folder: Path) -> Path:
    """The folder below `folder` that the file lies in; `folder` itself if it lies in none."""
    first = path.relative_to(folder).parts[0]
    return folder if path == folder / first else folder / first


def _good(paths: Iterable[Path]) -> list[Path]:
    """Whatever is called a notebook or reads like one, and every archive; a script or a text if it is about the course."""
    good = []
    for path in paths:
        ending = path.suffix.lower()
        if ".ipynb" in path.name.lower() or ending == ".zip":
            good.append(path)
        elif ending in (".py", ".ipy", ".md"):
            good += [path] if chapters_of(path) else []
        elif path.is_file() or intake.archive_of(path):
            try:
                good += [path] if intake.code_cells(intake.read(path)) is not None else []
            except OSError:
                continue
    return good


def _of_one(paths: list[Path]) -> list[Path]:
    return _good(paths) or [path for path in paths if path.suffix.lower() in intake.OTHER]


def _opened(path: Path) -> list[Path]:
    """The file; or, if it is an archive of several notebooks, these, and the archive too if something is wrong with it."""
    if not intake.is_archive(path):
        return [path]
    names, said = intake.members(path)
    good = _good(names)
    return [path] if len(good) < 2 else [*good, *([path] if said else [])]
