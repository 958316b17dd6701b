"""Files that are whole. A crash, a full disk or a folder without rights leaves the file that was there before, or the new one.

    write("run.json", text)                    write_all({png: image, csv: table})        all of them, or none

Everything that the package leaves on a disk goes this way, except for lines that are added to a log.
"""

from __future__ import annotations

import os
import secrets
import shutil
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

Content = bytes | str


def write(path: str | Path, content: Content, secret: bool = False) -> None:
    """Write one file. secret: only its owner may read it. OSError, with the path, if it cannot be written."""
    write_all({Path(path): content}, secret)


def write_all(files: Mapping[Path, Content], secret: bool = False) -> None:
    """To files beside the targets first, flushed to the disk; then each takes the place of the older one.

    Text becomes UTF-8. A link is followed, and what it points to is replaced. A device or a pipe cannot be replaced, and is
    written to. The folders must be there.
    """
    parts: list[tuple[Path, Path]] = []
    path = Path()
    try:
        for path, content in files.items():
            data = content.encode("utf-8", "replace") if isinstance(content, str) else content
            target = Path(os.path.realpath(path))
            if target.exists() and not stat.S_ISREG(target.stat().st_mode):
                with open(target, "wb") as file:
                    file.write(data)
                continue
            part = target.with_name(f".{target.name[:40]}.{secrets.token_hex(4)}.part")
            handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600 if secret else 0o666)
            parts.append((part, target))
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            if not secret and target.exists():
                with suppress(OSError):
                    shutil.copymode(target, part)
        for part, path in parts:
            os.replace(part, path)
    except OSError as why:
        if why.errno is None:
            raise
        raise type(why)(why.errno, why.strerror, str(path)) from why               # not the part's name, which nobody knows
    finally:
        for part, _ in parts:
            with suppress(OSError):
                part.unlink(missing_ok=True)
