"""What was handed in, read without trust: notebooks, Jupytext's scripts and texts, and what lies in zip archives.

An archive is never unpacked: its members are read one at a time, as if it were a folder, so that `a.zip/b.ipynb` is a path like
any other. Members that would lie outside, links, encrypted ones and what grows beyond all bounds are refused in a sentence.
"""

from __future__ import annotations

import datetime
import json
import re
import stat
import zipfile
from pathlib import Path, PurePosixPath

LARGEST = 64 << 20                            # bytes of one file, in an archive or not
ARCHIVE = 512 << 20                           # bytes of all that an archive holds
MEMBERS = 5000
MARK = re.compile(r"^# ?%%(.*)$", re.MULTILINE)                  # Jupytext's percent format: a cell begins
KINDS = re.compile(r"\[(markdown|md|raw)\]")
HEADER = re.compile(r"\A\s*# ---\n(?:#.*\n)*?# ---\n")            # Jupytext's own, in comments
FENCE = re.compile(r"^(```+|~~~+)\s*\{?(?:code-cell\s+)?(?:python|ipython)3?\b[^\n]*\n(.*?)^\1\s*$", re.MULTILINE | re.DOTALL)
OTHER = {
    ".doc", ".docx", ".odt", ".rtf", ".pages", ".pdf", ".rar", ".7z", ".tar", ".gz", ".tgz", ".jpg",
    ".jpeg", ".png", ".heic",
}  # fmt: skip


class Unreadable(OSError):
    """A file that cannot be read; the message says why."""


def is_archive(path: Path) -> bool:
    return path.suffix.lower() == ".zip" and path.is_file()


def archive_of(path: Path) -> Path | None:
    """The archive that a path leads into, if it leads into one."""
    return next((parent for parent in reversed(path.parents) if is_archive(parent)), None)


def read(path: Path) -> bytes:
    """The bytes of a file, or of a member of an archive on its way. OSError with a sentence for whatever is in the way."""
    archive = archive_of(path)
    if archive is not None:
        return _member(archive, path.relative_to(archive).as_posix())
    if path.exists() and not path.is_file():                     # a pipe or a device would wait for ever
        raise Unreadable("it is not an ordinary file")
    with path.open("rb") as file:
        data = file.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise Unreadable(f"it is larger than {LARGEST >> 20} MiB")
    return data


def code_cells(data: bytes) -> list[tuple[int, str]] | None:
    """(number of the cell, source) of a notebook's code cells, or None if the bytes are not a notebook."""
    try:
        found = json.loads(data)
        cells = found.get("cells")
        if cells is None and isinstance(found.get("worksheets"), list):      # format 3, of before 2015
            cells = [cell for sheet in found["worksheets"] for cell in sheet["cells"]]
    except (ValueError, AttributeError, RecursionError, TypeError, KeyError):
        return None
    if not isinstance(cells, list):
        return None
    code = []
    for number, cell in enumerate(cells, start=1):
        if isinstance(cell, dict) and cell.get("cell_type") == "code":
            source = cell.get("source", cell.get("input", ""))
            code.append((number, "".join(map(str, source)) if isinstance(source, list) else str(source)))
    return code


def cells_of(name: str, data: bytes) -> list[tuple[int, str]] | None:
    """The code cells of a notebook, of a script in cells (`# %%`) or of a text with blocks of Python; None if it is none."""
    found = code_cells(data)
    ending = PurePosixPath(name).suffix.lower()
    if found is not None or ending not in (".py", ".md", ".ipy"):
        return found
    try:
        text = data.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError:
        return None
    if "\0" in text:
        return None
    if ending == ".md":
        blocks = [match[2] for match in FENCE.finditer(text)]
        return list(enumerate(blocks, start=1)) if blocks else None
    first, *rest = MARK.split(HEADER.sub("", text))              # before the first mark; then its title, its cell, …
    cells = [("", first)] * bool(first.strip()) + list(zip(rest[::2], rest[1::2], strict=True))
    return [(number, source.strip("\n")) for number, (title, source) in enumerate(cells, start=1) if not KINDS.search(title)]


def members(archive: Path) -> tuple[list[Path], str]:
    """(the files in it, as paths below it; what is wrong with the archive as a whole, or "")."""
    try:
        with zipfile.ZipFile(archive) as opened:
            infos = [info for info in opened.infolist() if not _name(info).endswith("/")]
    except Exception as error:                # whatever a broken directory makes of it
        return [], f"not a zip archive that can be read: {error}"
    if len(infos) > MEMBERS:
        return [], f"the archive holds {len(infos)} files; more than {MEMBERS} are not looked at"
    if sum(info.file_size for info in infos) > ARCHIVE:
        return [], f"the archive would grow to more than {ARCHIVE >> 20} MiB and was not opened"
    names = [_name(info) for info in infos]
    bad = [name for name in names if not _inside(name)]
    said = f"the archive holds a path outside itself, which was passed over: {bad[0][:80]!r}" if bad else ""
    twice = len(names) - len(set(names))
    said = said or ("the archive holds two files of one name, of which the last counts" if twice else "")
    good = dict.fromkeys(name for name in names if _inside(name))
    return [archive / name for name in good if not any(part.startswith((".", "__MACOSX")) for part in name.split("/"))], said


def _inside(name: str) -> bool:
    parts = name.split("/")
    return bool(name) and not any(part in ("", ".", "..") for part in parts) and not re.search(r"\0|^[A-Za-z]:", name)


def _name(info: zipfile.ZipInfo) -> str:
    return info.filename.replace("\\", "/")   # as some packers of Windows divide folders


def _info(opened: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
    """The last member of a name, as `members` writes it."""
    return {_name(info): info for info in opened.infolist()}[name]


def _member(archive: Path, name: str) -> bytes:
    try:
        with zipfile.ZipFile(archive) as opened:
            info = _info(opened, name)
            if stat.S_ISLNK(info.external_attr >> 16):
                raise Unreadable("it is a link in an archive")
            if info.flag_bits & 1:
                raise Unreadable("it is encrypted")
            with opened.open(info) as file:
                data = file.read(LARGEST + 1)                    # what the archive says of its size need not be true
    except Unreadable:
        raise
    except Exception as error:                # each way of compressing has its own
        raise Unreadable(f"the archive is broken: {error}") from error
    if len(data) > LARGEST:
        raise Unreadable(f"it grows to more than {LARGEST >> 20} MiB")
    return data


def date(path: Path) -> float:
    """Seconds since 1970 at which a file, or a member of an archive, was last changed; 0 if nobody knows."""
    archive = archive_of(path)
    try:
        if archive is None:
            return path.stat().st_mtime
        with zipfile.ZipFile(archive) as opened:
            year, month, day, hour, minute, second = _info(opened, path.relative_to(archive).as_posix()).date_time
        return datetime.datetime(year, month, day, hour, minute, min(second, 59)).timestamp()
    except Exception:                         # a dangling link; a date that is none
        return 0.0
