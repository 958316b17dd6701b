"""Children that end when their parent is gone, whatever ended it: no kernels and servers that nobody has asked for any more."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
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
