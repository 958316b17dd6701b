"""One private step on an MLP (784-200-10): the clipped sum of per-example gradients here, and Opacus beside it.

    python -m benchmarks.dpsgd --peer /path/to/python      an environment that has torch and opacus
    python -m benchmarks.dpsgd                             without Opacus: against one row of gradients an example

Both sides clip to norm 1 and add noise of multiplier 1, one thread, the same batch of random images. The peer is asked in
turns with us, and the median of the ratios is quoted.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time

import numpy as np

SIZES, CLIP, NOISE, LR = (784, 200, 10), 1.0, 1.0, 0.1

PEER = """
import sys, time, warnings
warnings.simplefilter("ignore")
import torch
from torch import nn
from opacus import PrivacyEngine
from torch.utils.data import DataLoader, TensorDataset
torch.set_num_threads(1)
batch, mode = int(sys.argv[1]), sys.argv[2]
x, y = torch.rand(4 * batch, 784), torch.randint(0, 10, (4 * batch,))
model = nn.Sequential(nn.Linear(784, 200), nn.ReLU(), nn.Linear(200, 10))
optimizer, loss = torch.optim.SGD(model.parameters(), lr=0.1), nn.CrossEntropyLoss()
loader = DataLoader(TensorDataset(x, y), batch_size=batch)
made = PrivacyEngine().make_private(module=model, optimizer=optimizer, data_loader=loader,
    noise_multiplier=1.0, max_grad_norm=1.0, poisson_sampling=False, grad_sample_mode=mode, criterion=loss)
model, optimizer = made[0], made[1]
loss = made[2] if mode == "ghost" else loss
def step():
    optimizer.zero_grad()
    loss(model(x[:batch]), y[:batch]).backward()
    optimizer.step()
for _ in range(5):
    step()
print("ready", flush=True)
for line in sys.stdin:
    began, steps = time.perf_counter(), 0
    while time.perf_counter() - began < 0.3:
        step()
        steps += 1
    print((time.perf_counter() - began) / steps, flush=True)
"""


def our_step(batch: int, rows: bool):
    """A function that makes one private step; rows=True keeps a gradient row for each example instead of ghost clipping."""
    import torch

    from fl_course import mlp, stream
    from fl_course.privacy.dpsgd import _factors, clipped_sum, example_gradients
    from fl_course.privacy.noise import gaussian_noise

    rng, model = stream(0, "benchmark"), mlp(*SIZES)
    x = torch.from_numpy(rng.random((batch, 784), dtype=np.float32))
    y = torch.from_numpy(rng.integers(0, 10, batch))
    theta = torch.from_numpy(model.init(rng))                                              # (d,)

    def total():
        if not rows:
            return clipped_sum(model, theta, x, y, CLIP)
        gradients = example_gradients(model, theta, x, y)                                   # (batch, d)
        return _factors(gradients.norm(dim=1), CLIP) @ gradients

    def step() -> None:
        noise = torch.from_numpy(gaussian_noise((model.dim,), NOISE * CLIP, rng)).to(theta.dtype)
        theta.sub_(LR * (total().reshape(-1) + noise) / batch)

    return step


def seconds(step, block: float = 0.3) -> float:
    began, steps = time.perf_counter(), 0
    while time.perf_counter() - began < block:
        step()
        steps += 1
    return (time.perf_counter() - began) / steps


def compare(batch: int, peer: str | None, turns: int) -> None:
    ours, rows = our_step(batch, rows=False), our_step(batch, rows=True)
    players = {"one row an example": lambda: seconds(rows)}
    processes = []
    for mode in ("hooks", "ghost") if peer else ():
        env = {**os.environ, "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen([peer, "-c", PEER, str(batch), mode], stdin=-1, stdout=-1, text=True, env=env)
        if next(iter(process.stdout or []), "").strip() != "ready":
            raise SystemExit(f"{peer} could not start Opacus in mode {mode}; its message is above")
        processes.append(process)
        players[f"Opacus, {mode}"] = lambda process=process: ask(process)
    ours()
    taken = [(seconds(ours), {name: play() for name, play in players.items()}) for _ in range(turns)]
    print(f"batch {batch:4}: {1e3 * float(np.median([mine for mine, _ in taken])):.2f} ms a step here; ", end="")
    print(", ".join(f"{name} {np.median([theirs[name] / mine for mine, theirs in taken]):.1f}× as long" for name in players))
    for process in processes:
        process.terminate()
        process.wait()


def ask(process: subprocess.Popen) -> float:
    process.stdin.write("go\n")
    process.stdin.flush()
    return float(process.stdout.readline())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", help="a Python whose environment has torch and opacus")
    parser.add_argument("--turns", type=int, default=7)
    args = parser.parse_args()
    for batch in (16, 64, 256):
        compare(batch, args.peer, args.turns)
    return 0


if __name__ == "__main__":
    sys.exit(main())
