"""What lesson 11 watches: five deployments on this machine, played and recorded, or read from the recording in this folder.

    story = recorded()                        the one that comes with the course; says when, and with which versions, it was made
    story = play(flower())                    here and now: some minutes, a dozen processes

A scene is a dictionary: lines [[seconds, text], …], what the nodes' processes said, the history's records and the last model.
`tools/record_deployment.py` writes the recording.
"""

from __future__ import annotations

import base64
import datetime
import json
import os
import platform
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..compression.sparse import TopK
from ..core import Vector
from ..data.partition import Dirichlet
from ..data.sources import digits
from ..engine.local import LocalSGD
from ..engine.models import logistic
from ..federation.checkpoint import load
from ..federation.coordinator import Coordinator
from ..federation.history import History
from ..federation.schedule import Buffered, Synchronous
from ..federation.stages import Uniform
from ..secure_aggregation.stage import SecureSum
from .certificates import certificates
from .export import export
from .local import Local

RECORDING = Path(__file__).with_name("recording.json")
SOURCE = "from fl_course.deploy import scenes\n\n\ndef experiment():\n    return scenes.{name}()\n"


def _base(schedule: Any, **parts: Any) -> Coordinator:
    data = digits().partition(Dirichlet(0.5), clients=4, seed=0)
    return Coordinator(data, logistic(64, 10), LocalSGD(lr=0.1, epochs=1, batch_size=10), schedule, **parts)


def sparse() -> Coordinator:
    """Everybody, every round, a tenth of the update; the rest waits in a drawer at home."""
    return _base(Synchronous(1.0), stages=[TopK(0.1)])


def secure() -> Coordinator:
    return _base(Synchronous(1.0), weights=Uniform(), stages=[SecureSum(clip=0.5)])


def buffered() -> Coordinator:
    return _base(Buffered(4, 2))


def in_rounds() -> Coordinator:
    """What stands beside FedBuff: the same clients, seed and training, and a step when all four have answered."""
    return _base(Synchronous(1.0))


def play(python: str | Path, say: Callable[[str], None] = print) -> dict[str, Any]:
    """All scenes, one after the other, in one deployment with TLS and two registered nodes."""
    started = time.monotonic()
    heard: list[tuple[float, str]] = []

    def hear(line: str) -> None:
        heard.append((round(time.monotonic() - started, 1), line))
        say(line)

    def scene(name: str, rounds: int, watch: Callable[[str], None] | None = None, **config: Any) -> dict[str, Any]:
        say(f"--- {name}")
        heard.clear()
        source = room / f"{name}.py"
        source.write_text(SOURCE.format(name=name), encoding="utf-8")
        app = room / f"app_{name}_{len(story)}"
        export(app, source)
        begun, out = time.monotonic() - started, room / f"out_{name}_{len(story)}"
        before = _of_nodes(local)
        local.run(app, rounds=rounds, out=out, watch=watch, **config)
        state = load(out / "model.ckpt", globals()[name]())
        return {
            "lines": [[round(when - begun, 1), text] for when, text in heard],
            "nodes": {node: said[len(before[node]):] for node, said in _of_nodes(local).items()},
            "records": json.loads((out / "history.json").read_text(encoding="utf-8")),
            "model": base64.b64encode(state.server.params.astype("<f4").tobytes()).decode(),
        }

    version = "import importlib.metadata as m; print(m.version('flwr'), m.version('torch'))"
    flwr, torch = subprocess.run([str(python), "-c", version], capture_output=True, text=True, check=True).stdout.split()
    story: dict[str, Any] = {
        "made": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"), "flwr": flwr, "torch": torch,
        "python": platform.python_version(), "machine": f"{platform.system()} {platform.machine()}",
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
    }  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="fl-course-") as folder:
        room = Path(folder)
        with Local(python, nodes=2, tls=True, folder=room / "run", say=hear) as local:
            story["up"] = [list(pair) for pair in heard]
            story["sparse"] = scene("sparse", 3)
            story["strangers"] = _strangers(local, room)
            story["secure"] = scene("secure", 1)

            def dies(line: str) -> None:
                if line.startswith("round 1"):
                    local.kill_node(1)
                    hear("(here node 1 loses its power)")

            story["killed"] = scene("sparse", 3, watch=dies, lost_after=40)
            local.start_node(1)
            story["buffered"] = scene("buffered", 8, clock="real")
            story["in rounds"] = scene("in_rounds", 4, clock="real")
    return story


def _of_nodes(local: Local) -> dict[str, list[str]]:
    """What each node's processes have said so far, in the words of flower.py."""
    return {name: [text for line in local.log(name, 10**6).splitlines() if (text := line.partition("[fl-course] ")[2])]
            for name in ("node0", "node1")}                                         # fmt: skip


def _strangers(local: Local, room: Path) -> dict[str, list[str]]:
    """One node with a key that nobody registered, and one that trusts another authority: their own last words."""
    certificates(room / "others")
    local.start_node(7, registered=False)
    local.start_node(8, authority=room / "others" / "ca.pem")
    words = {}
    for name, node in (("key", "node7"), ("authority", "node8")):
        local.processes[node].wait(120)
        text = local.log(node, 400).splitlines()
        words[name] = [line.strip() for line in text if "ailed to" in line or "CERTIFICATE" in line or "could not" in line]
    words["server"] = [line.split("exception: ")[1] for line in local.log("server", 400).splitlines()
                       if "exception: No SuperNode" in line]                        # fmt: skip
    return words


def recorded() -> dict[str, Any]:
    """The recording that comes with the course."""
    return dict(json.loads(RECORDING.read_text(encoding="utf-8")))


def model_of(scene: dict[str, Any]) -> Vector:
    """(d,) the last model of a scene."""
    return np.frombuffer(base64.b64decode(scene["model"]), dtype="<f4").astype(np.float32)


def history_of(scene: dict[str, Any]) -> History:
    return History.from_json(json.dumps(scene["records"]))
