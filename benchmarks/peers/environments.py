"""The environments of the three peers: one each, for they may exclude one another, and the course needs none of them.

    python -m benchmarks.peers.environments [name ...]       makes them (all of them) in .bench/, once
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TORCH = "torch>=2.6,<2.14"          # goes first and alone, as in course.py: this range takes the wheel for CPUs
ENVIRONMENTS = {
    "flower": [TORCH, "flwr[simulation]>=1.42,<1.43"],
    "pfl": [TORCH, "pfl[pytorch]>=0.6,<0.7"],
    # FedJAX's last release is older than this jax, but its federated averaging needs one old name of jax's only (see
    # fedjax_peer.py). An older jax would need older haiku, numpy, scipy, optax and chex as well.
    "fedjax": ["fedjax==0.0.17", "jax>=0.10,<0.11", "jaxlib>=0.10,<0.11", "dm-haiku==0.0.17", "optax>=0.2,<0.3"],
}


def python_of(name: str, folder: Path = ROOT / ".bench") -> Path:
    """The Python of the environment of this name. The first call makes the environment, in a few minutes."""
    if name not in ENVIRONMENTS:
        raise ValueError(f"there is no environment {name!r}; there are {', '.join(ENVIRONMENTS)}")
    venv = folder / name
    python = venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    stamp = venv / "installed"                          # written last, so an install that failed leaves none
    wanted = hashlib.sha256("\n".join([*ENVIRONMENTS[name], sys.version]).encode()).hexdigest()
    if stamp.is_file() and stamp.read_text() == wanted:
        return python
    _call(name, [sys.executable, "-m", "venv", "--clear", str(venv)])
    requirements = ENVIRONMENTS[name]
    for step in ([TORCH] if TORCH in requirements else [], requirements):
        if step:
            _call(name, [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *step])
    stamp.write_text(wanted)
    return python


def _call(name: str, command: list[str]) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        said = "\n".join(done.stdout.strip().splitlines()[-5:])
        raise RuntimeError(f"the environment {name!r} could not be made: `{' '.join(command)}` failed and said\n{said}")


if __name__ == "__main__":
    for which in sys.argv[1:] or ENVIRONMENTS:
        print(f"{which}: {python_of(which)}", flush=True)
