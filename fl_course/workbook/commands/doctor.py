"""What is wrong with this installation, and how to mend it."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from . import places
from .kernels import NAME, own_kernel

SPACE = 500_000_000                                              # bytes that reports and a data cache may take


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; `mend` is empty when it is fine."""

    subject: str
    found: str
    mend: str = ""

    @property
    def ok(self) -> bool:
        return not self.mend


def examine() -> Iterator[Finding]:
    """Look at everything, one finding after the other. A look that fails is a finding too."""
    looks: tuple[Callable[[], Iterator[Finding]], ...] = (_python, _packages, _threads, _places, _loopback, _kernel)
    for look in looks:
        try:
            yield from look()
        except Exception as error:
            yield Finding(look.__name__.strip("_"), f"{type(error).__name__}: {error}", "this should work, see there")


def _python() -> Iterator[Finding]:
    old = sys.version_info < (3, 11)
    where = "" if sys.prefix != sys.base_prefix else ", not in an environment of its own"
    found = f"{platform.python_version()} on {platform.system()} ({sys.executable}{where})"
    yield Finding("Python", found, "install Python 3.11 or newer" if old else "")


def _packages() -> Iterator[Finding]:
    from packaging.requirements import Requirement

    for line in metadata.requires("fl-course") or []:
        wanted = Requirement(line)
        if wanted.marker and not wanted.marker.evaluate({"extra": ""}):
            continue
        try:
            version = metadata.version(wanted.name)
        except metadata.PackageNotFoundError:
            yield Finding(wanted.name, "missing", f'python -m pip install "{wanted.name}{wanted.specifier}"')
            continue
        fits = wanted.specifier.contains(version, prereleases=True)
        yield Finding(wanted.name, version, "" if fits else f'python -m pip install "{wanted.name}{wanted.specifier}"')
    try:
        yield Finding("nbval", metadata.version("nbval"))
    except metadata.PackageNotFoundError:
        yield Finding("nbval", "not installed: `fl-course check` and `test` need it; python -m pip install nbval")


def _threads() -> Iterator[Finding]:
    import torch

    asked, threads = os.environ.get("OMP_NUM_THREADS"), torch.get_num_threads()
    mend = "set OMP_NUM_THREADS=1 before you start Python: small steps are far slower on several threads"
    found = f"{threads} of {os.cpu_count()} (OMP_NUM_THREADS={asked or 'not set'}); fl-course runs notebooks with 1"
    yield Finding("threads", found, mend if asked not in (None, "1") else "")


def _places() -> Iterator[Finding]:
    root = places.course()
    count = len(list((root / "notebooks").glob("*.ipynb")))
    mend = "" if count else "build them: python tools/build_notebooks.py"
    yield Finding("notebooks", f"{count} in {root / 'notebooks'}", mend)
    free = shutil.disk_usage(Path.cwd()).free
    mend = "" if free > SPACE else "free some space: reports need up to 500 MB"
    yield Finding("disk", f"{free / 1e9:.1f} GB free here", mend)
    try:
        with tempfile.TemporaryFile(dir=Path.cwd()):
            pass
        yield Finding("this folder", "can be written to")
    except OSError as error:
        yield Finding("this folder", str(error), "go to a folder of your own: fl-course start my-course")


def _loopback() -> Iterator[Finding]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname()[:2], timeout=5).close()
    yield Finding("loopback", "connections to 127.0.0.1 work")


def _kernel() -> Iterator[Finding]:
    import nbformat
    from nbclient import NotebookClient

    node = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("import sys, fl_course\nprint(sys.executable)")])
    with own_kernel() as folder:
        NotebookClient(node, kernel_name=NAME, timeout=60, resources={"metadata": {"path": str(folder)}}).execute()
    said = node.cells[0].outputs[0].text.strip()
    right = said == sys.executable
    mend = "" if right else "install the kernel again: python -m pip install --force-reinstall ipykernel"
    yield Finding("kernel", f"runs {said}", mend)
