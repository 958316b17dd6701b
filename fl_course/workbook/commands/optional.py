"""What the doctor says of things that nobody needs to learn: extras, Flower's environment, a sandbox for grading.

Missing is fine, and said with the command that brings it. Only what is there and cannot serve is to be mended.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from importlib import metadata

from ...deploy import environment

EXTRAS = {"test": "`fl-course check` and `test`", "browser": "the tests in a browser", "docs": "the documents as a site"}
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
Said = tuple[str, str, str]                                      # subject, what was found, how to mend it: nothing if it is fine


def extras(requirements: Callable[[str], Iterable[tuple[str, str]]], fits: Callable[[str, str], bool]) -> Iterator[Said]:
    """`requirements(extra)` gives (name, versions asked for); `fits(versions, version)` says whether one is among them."""
    for extra, use in EXTRAS.items():
        there, missing, wrong = [], [], []
        for name, asked in requirements(extra):
            try:
                version = metadata.version(name)
            except metadata.PackageNotFoundError:
                missing.append(name)
                continue
            if fits(asked, version):
                there.append(f"{name} {version}")
            else:
                wrong.append(f"{name} {version} for {asked}")
        if extra == "browser" and there and not any(map(shutil.which, BROWSERS)):
            missing.append("Chromium (Debian: apt-get install chromium)")
        install = f'python -m pip install "fl-course[{extra}]", in the checkout -e ".[{extra}]"'
        parts = {"": there, "other versions than asked for: ": wrong, "not there: ": missing}
        found = "; ".join(label + ", ".join(names) for label, names in parts.items() if names)
        yield f"extra {extra}", f"for {use}: {found}" + (f"; to have it: {install}" if missing and not wrong else ""), \
            install if wrong else ""


def flower(fits: Callable[[str, str], bool]) -> Said:
    """Chapter 11's environment, which its command makes."""
    named, folder = os.environ.get(environment.VARIABLE), environment.place()
    if not named and not folder.exists():
        return "Flower", "not there; `fl-course deploy local` makes an environment of its own for it", ""
    python = named or str(environment.python_of(folder))
    probe = "from importlib import metadata; print(metadata.version('flwr'))"
    try:
        version = subprocess.run([python, "-c", probe], capture_output=True, text=True, timeout=60, check=False).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        version = ""
    if version and fits(environment.FLOWER.removeprefix("flwr"), version):
        return "Flower", f"{version} ({python})", ""
    cure = f"remove {folder}; `fl-course deploy local` makes it anew"
    if named:
        cure = f"unset {environment.VARIABLE}, or let it name a Python that has {environment.FLOWER}"
    return "Flower", f"{version or 'no flwr that runs'} ({python})", cure


def sandbox() -> Said:
    """What `fl-course grade --sandbox` stands on."""
    there = sys.platform.startswith("linux") and shutil.which("bwrap")
    found = f"{there}, for `fl-course grade --sandbox`" if there else \
        "none (it takes Linux and the package bubblewrap); `fl-course grade` works without, behind a lower fence"
    return "sandbox", found, ""
