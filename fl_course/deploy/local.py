"""A federation of processes on this machine: a SuperLink, n SuperNodes, and a run. All on loopback, and all gone afterwards.

    with Local(flower(), nodes=2, tls=True) as local:
        local.run("my-app", rounds=3, out="reports/run")

Every process is started in a group of its own, and stop.py ends whatever has come of it, also after Ctrl-C or an error. With tls,
an authority is made for the day: the server shows its certificate, and every node the key that was registered for it. Who may
register a key, or start a run, Flower does not ask: whoever reaches the port, which here is everybody who uses this machine.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from ..core import FederatedError, is_whole
from .certificates import certificates, node_key
from .stop import MARK, WINDOWS, stop, tell

HOST = "127.0.0.1"
OFF = {  # nothing that Flower would ask of, or tell, the outside
    "FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1",
    "UV_OFFLINE": "1", "PIP_NO_INDEX": "1", "HF_HUB_OFFLINE": "1", "NO_PROXY": "*",
    "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1", "NO_COLOR": "1",
}  # fmt: skip


class DeploymentError(FederatedError):
    """The deployment did not start or did not finish; the message has the last lines of whoever failed."""


@dataclass
class Local:
    """python: the one that has Flower (environment.py); nodes: SuperNodes; folder: logs and keys, a temporary one if None."""

    python: str | Path
    nodes: int = 2
    tls: bool = False
    folder: Path | None = None
    say: Callable[[str], None] = print
    port: int = field(default=0, init=False)
    mark: str = field(default_factory=lambda: secrets.token_hex(16), init=False, repr=False)  # of all that is started
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict, init=False, repr=False)
    _cleanup: contextlib.ExitStack = field(default_factory=contextlib.ExitStack, init=False, repr=False)

    def __post_init__(self) -> None:
        if not is_whole(self.nodes, 1) or self.nodes > 64:
            raise ValueError(f"nodes must be a whole number from 1 to 64 on one machine, not {self.nodes!r}")
        self.nodes = int(self.nodes)

    # --- up and down -----------------------------------------------------------------------------------------------------

    def __enter__(self) -> Local:
        try:
            if self.folder is None:
                self.folder = Path(self._cleanup.enter_context(tempfile.TemporaryDirectory(prefix="fl-course-")))
            self.folder = Path(self.folder).resolve()
            (self.folder / "flwr").mkdir(parents=True, exist_ok=True)
            self._cleanup.enter_context(_ended_by_signals())
            self.start_server()
            for number in range(self.nodes):
                self.start_node(number)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            stop(self.processes.values(), mark=self.mark)
        except KeyboardInterrupt:               # a second Ctrl-C: nobody is asked any more
            stop(self.processes.values(), patient=0.0, mark=self.mark)
            raise
        finally:
            self._cleanup.close()

    def start_server(self) -> None:
        """The SuperLink. Returns when it takes connections."""
        assert self.folder is not None
        self.port = free_port()
        if self.tls:
            certificates(self.folder)
        keys = ["--ssl-ca-certfile", self._file("ca.pem"), "--ssl-certfile", self._file("server.pem"),
                "--ssl-keyfile", self._file("server.key"), "--enable-supernode-auth"]    # fmt: skip
        trust = f'root-certificates = "{Path(self._file("ca.pem")).as_posix()}"' if self.tls else "insecure = true"
        config = f'[superlink]\ndefault = "local"\n\n[superlink.local]\naddress = "{HOST}:{self.port}"\n{trust}\n'
        (self.folder / "flwr" / "config.toml").write_text(config, encoding="utf-8")
        self.start("server", "flower-superlink", *(keys if self.tls else ["--insecure"]), "--host", HOST,
                   "--port", str(self.port), "--disable-runtime-dependency-installation")                     # fmt: skip
        self._until(lambda: _listens(self.port), "server", 90)
        self.say(f"server: {'https' if self.tls else 'http'}://{HOST}:{self.port}")

    def start_node(self, number: int, *, registered: bool = True, authority: Path | None = None) -> None:
        """A SuperNode. registered=False: with a key that the server does not know; authority: whom it trusts instead of ours."""
        assert self.folder is not None
        name, keys = f"node{number}", ["--insecure"]
        if self.tls:
            private, public = node_key(self.folder, name)
            if registered:
                self.flwr("supernode", "register", str(public), "local")
            keys = ["--root-certificates", str(authority or self._file("ca.pem")), "--auth-supernode-private-key", str(private),
                    "--ssl-certfile", self._file("server.pem"), "--ssl-keyfile", self._file("server.key"),
                    "--ssl-ca-certfile", self._file("ca.pem")]                      # fmt: skip
        self.start(name, "flower-supernode", *keys, "--superlink", f"{HOST}:{self.port}", "--host", HOST, "--port",
                   str(free_port()), "--node-config", f"partition-id={number} num-partitions={self.nodes}")     # fmt: skip

    def kill_node(self, number: int) -> None:
        """As if its machine had lost power: nobody is told."""
        stop([self.processes.pop(f"node{number}")], patient=0.0)

    # --- a run -----------------------------------------------------------------------------------------------------------

    def run(
        self, app: str | Path, seconds: float = 3600.0, watch: Callable[[str], None] | None = None, **config: Any,
    ) -> list[str]:  # fmt: skip
        """Run a Flower app and say its lines as they come; returns them. config: of the run (export.py), lost_after for
        lost-after. DeploymentError if it does not finish."""
        told = {"nodes": self.nodes, **{name.replace("_", "-"): value for name, value in config.items()}}
        words = " ".join(f"{name}={_toml(value)}" for name, value in told.items())
        process = self.start("run", "flwr", "run", str(app), "local", "--stream", "-c", words, pipe=True)
        lines, all_lines, ends = [], [], time.monotonic() + seconds
        alarm = threading.Timer(seconds, tell, ([process.pid], True))       # a stream that says nothing more ends, too, …
        alarm.daemon = True
        alarm.start()
        assert process.stdout is not None
        try:
            for raw in process.stdout:                                      # … with whoever else holds it
                line = raw.decode(errors="replace").rstrip()
                all_lines.append(line)
                _, ours, text = line.partition("[fl-course] ")
                if ours:
                    lines.append(text)
                    self.say(text)
                    if watch is not None:
                        watch(text)
                if text == DONE or any(word in line for word in ("finished:failed", "stopped:")):
                    break
        finally:
            alarm.cancel()
        late = time.monotonic() > ends
        stop([self.processes.pop("run")])
        if DONE not in lines:
            when = f" in {seconds:g} seconds" if late else ""
            raise DeploymentError(f"the run did not finish{when}; its last words:\n" + "\n".join(all_lines[-25:]))
        return lines[:-1]

    def flwr(self, *words: str) -> str:
        """One command of Flower's tool, waited for."""
        tool = [*self._tool("flwr"), *words]
        try:
            done = subprocess.run(tool, env=self.environment(), capture_output=True, timeout=120, check=False)
        except subprocess.TimeoutExpired:
            raise DeploymentError(f"flwr {' '.join(words)} did not end in two minutes:\n{self.log('server')}") from None
        text = (done.stdout + done.stderr).decode(errors="replace")
        if done.returncode:
            raise DeploymentError(f"flwr {' '.join(words)} failed:\n{text[-1000:]}")
        return text

    # --- small parts -----------------------------------------------------------------------------------------------------

    def start(self, name: str, *command: str, pipe: bool = False) -> subprocess.Popen[bytes]:
        """A process in a group of its own. What it prints goes to NAME.log, or comes back through a pipe."""
        assert self.folder is not None
        words = [*self._tool(command[0]), *command[1:]]
        group: dict[str, Any] = {"creationflags": 0x200} if WINDOWS else {"start_new_session": True}
        with open(self.folder / f"{name}.log", "ab") as log:
            process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE if pipe else log,
                                       stderr=subprocess.STDOUT, env=self.environment(), **group)    # fmt: skip
        self.processes[name] = process
        return process

    def environment(self) -> Mapping[str, str]:
        """Ours, without what would send a request elsewhere, and with a home for Flower of its own."""
        assert self.folder is not None
        kept = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
        tools = str(Path(self.python).parent)
        path = tools + os.pathsep + kept.get("PATH", "")
        return {**kept, **OFF, MARK: self.mark, "FLWR_HOME": str(self.folder / "flwr"), "PATH": path}

    def log(self, name: str, lines: int = 15) -> str:
        """The last lines that a process has printed."""
        assert self.folder is not None
        path = self.folder / f"{name}.log"
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) if path.exists() else ""

    def _tool(self, name: str) -> list[str]:
        return [str(Path(self.python).parent / (name + (".exe" if WINDOWS else "")))]

    def _file(self, name: str) -> str:
        assert self.folder is not None
        return str(self.folder / name)

    def _until(self, so: Callable[[], bool], name: str, seconds: float) -> None:
        ends = time.monotonic() + seconds
        while not so():
            if self.processes[name].poll() is not None or time.monotonic() > ends:
                raise DeploymentError(f"the {name} did not start:\n{self.log(name)}")
            time.sleep(0.1)


DONE = "done"


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int | float) else '"' + str(value).replace("\\", "/").replace('"', "") + '"'


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _listens(port: int) -> bool:
    try:
        socket.create_connection((HOST, port), 1).close()
    except OSError:
        return False
    return True


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP end the deployment as Ctrl-C does, with everything that it started."""
    def raised(number: int, frame: Any) -> None:
        raise KeyboardInterrupt(signal.Signals(number).name)

    names = [name for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    try:
        before = {name: signal.signal(getattr(signal, name), raised) for name in names}
    except ValueError:                      # not the main thread, which is the only one that hears of signals
        before = {}
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(getattr(signal, name), handler)
