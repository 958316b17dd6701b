"""The kernel that notebooks are run in: this environment's own Python, one thread, nobody's personal settings."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NAME = "python3"
INLINE = "module://matplotlib_inline.backend_inline"
IPYTHON_SETTINGS = 'c.InlineBackend.figure_formats = {"png"}\nc.HistoryManager.enabled = False\n'


@contextmanager
def own_kernel(**extra: str) -> Iterator[Path]:
    """Within this block the kernel "python3" is this very interpreter; `extra` are environment variables for it.

    A kernel of that name may also be installed for the user or the whole machine, and may belong to another Python:
    JUPYTER_PATH is looked at first, so a specification written there wins. Start-up files and settings of the user's
    IPython and matplotlib are left out, so that a notebook gives the same output for everybody. Yields an empty folder
    to work in.
    """
    with tempfile.TemporaryDirectory(prefix="fl-course-") as folder:
        root = Path(folder)
        profile, work, spec = root / "ipython" / "profile_default", root / "work", root / "kernels" / NAME
        for path in (profile, work, spec):
            path.mkdir(parents=True)
        (profile / "ipython_kernel_config.py").write_text("c = get_config()\n" + IPYTHON_SETTINGS, encoding="utf-8")
        (root / "matplotlibrc").write_text("figure.dpi: 80\n", encoding="utf-8")
        environment = {
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),   # small steps are far slower on two threads
            "MPLBACKEND": INLINE,
            "MATPLOTLIBRC": str(root / "matplotlibrc"),
            "IPYTHONDIR": str(root / "ipython"),
            "PYTHONHASHSEED": "0",
            "PYDEVD_DISABLE_FILE_VALIDATION": "1",                       # else some Pythons print advice on debugging
            **extra,
        }
        command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}", "--log-level=50"]
        description = {"argv": command, "display_name": "Python 3", "language": "python", "env": environment}
        (spec / "kernel.json").write_text(json.dumps(description), encoding="utf-8")
        before = os.environ.get("JUPYTER_PATH")
        os.environ["JUPYTER_PATH"] = os.pathsep.join(filter(None, [str(root), before]))
        try:
            yield work
        finally:
            if before is None:
                del os.environ["JUPYTER_PATH"]
            else:
                os.environ["JUPYTER_PATH"] = before
