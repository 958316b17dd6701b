"""Children that end when their parent is gone, whatever ended it: no kernels and servers that nobody has asked for any more.
And one that is left to end by itself.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

# Settings that Jupyter's server reads, and runs: it looks every second whether whoever started it still lives. Windows gives a
# process whose parent has died no new one, so there it cannot tell.
WATCH = """
import os
if os.name == "posix":
    import signal, threading, time
    def watch(parent={parent}):
        while os.getppid() == parent:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)   # it ends its kernels, then itself
        time.sleep(15)
        os._exit(1)
    threading.Thread(target=watch, daemon=True).start()
"""


def die_with_parent() -> None:
    """For a process of multiprocessing: when its parent ends, it ends, and with it what it has started."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        if os.name == "posix":
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)                     # its kernel is told to stop; it would see by itself that its parent is gone
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextlib.contextmanager
def watched_server() -> Iterator[dict[str, str]]:
    """Environment variables with which a server of Jupyter ends when this process has ended."""
    with TemporaryDirectory(prefix="fl-course-lab-", ignore_cleanup_errors=True) as folder:
        (Path(folder) / "jupyter_server_config.py").write_text(WATCH.format(parent=os.getpid()), encoding="utf-8")
        before = os.environ.get("JUPYTER_CONFIG_PATH")
        yield {"JUPYTER_CONFIG_PATH": os.pathsep.join(filter(None, [folder, before]))}


def hand_over(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run a program of the terminal, and leave Ctrl-C to it alone: JupyterLab asks whether it is meant, and subprocess would kill
    it while it waits. Returns its exit code, as a shell says it."""
    before = signal.signal(signal.SIGINT, lambda number, frame: None)        # a child does not inherit this, as it would SIG_IGN
    try:
        code = subprocess.call(command, env=environment)
    finally:
        signal.signal(signal.SIGINT, before)
    return 128 - code if code < 0 else code
