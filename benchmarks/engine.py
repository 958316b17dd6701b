"""One round of FedAvg by this course's engines, by what one would write instead, and by Flower, pfl and FedJAX.

They must all end in the same model, or the run stops. `measure` returns rows for the table of docs/performance.md.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from fl_course.federation.evaluation import score

from .peers.environments import python_of
from .quiet import Block, block, busy_seconds, median, others, turns
from .work import Work, competitors, export

PEERS = ("flower", "pfl", "fedjax")
FOLDER = Path(__file__).parent / "peers"
SAME = 1e-4            # largest difference of a parameter between two who did the same work
SAME_ROUNDING = 1e-3   # … for convolutions: torch's own float32 is that far from its float64


class Peer:
    """A library in an environment and a process of its own."""

    def __init__(self, name: str, work: Path) -> None:
        """name: "flower", "pfl", "fedjax", or "flower noop", whose clients send the model back untrained."""
        which, *extra = name.split()
        command = [str(python_of(which)), str(FOLDER / f"{which}_peer.py"), str(work), "1", *extra]
        self.name, self.log = name, tempfile.TemporaryFile("w+")            # noqa: SIM115, closed with the peer
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True)
        try:
            self.hello = self.answer()
        except RuntimeError:
            self.close()
            raise

    def answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        told = json.loads(line) if line else {"error": "it ended without an answer"}
        if "error" in told:
            self.log.seek(0)
            raise RuntimeError(f"{self.name}: {told['error']}; its last words:\n{self.log.read()[-2000:]}")
        return told

    def ask(self, line: str) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.answer()

    def block(self, seconds: float) -> tuple[float, float]:
        """As quiet.block. The peer's own work is not "others"; it is told in hundredths of a second."""
        before = busy_seconds()
        told = self.ask(f"time {seconds}")
        return told["seconds"], others(busy_seconds() - before, told["all_cpu_seconds"], told["all_seconds"])

    def close(self) -> None:
        assert self.process.stdin is not None
        with suppress(OSError):                                    # it may have ended
            self.process.stdin.write("quit\n")
            self.process.stdin.close()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.log.close()


@contextmanager
def peers_of(work: Work, names: tuple[str, ...]) -> Iterator[dict[str, Peer]]:
    """The peers at this work, started one after the other."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        file, out = Path(folder) / "work.npz", {}
        if names:
            export(work, file)
        for name in names:
            out[name] = Peer(name, file)
            stack.callback(out[name].close)
        yield out


def check(work: Work, rounds: dict[str, Any], peers: dict[str, Peer]) -> None:
    """Everybody ends in the same model after one round, and in one equally accurate after five. Peers: for E = 1 alone,
    because they repeat the order of the first epoch."""
    assert not peers or work.epochs == 1
    first, data = work.first(), work.federation()
    results = {name: one_round(first) for name, one_round in rounds.items()}
    course, params = rounds["course"], first
    for _ in range(5):
        params = course(params)
    reached, _ = score(work.model, params, data.x_test, data.y_test)
    with tempfile.TemporaryDirectory() as folder:
        for name, peer in peers.items():
            if "noop" in name:
                continue
            peer.ask(f"train 1 {Path(folder) / 'one.npy'}")
            peer.ask(f"train 5 {Path(folder) / 'five.npy'}")
            results[name] = np.load(Path(folder) / "one.npy")
            theirs, _ = score(work.model, np.load(Path(folder) / "five.npy"), data.x_test, data.y_test)
            if abs(theirs - reached) > 0.02:
                raise AssertionError(f"{work}: {name} reaches accuracy {theirs:.3f}, the course {reached:.3f}")
    for name, result in results.items():
        gap, allowed = float(np.abs(result - results["course"]).max()), SAME_ROUNDING if work.model.alone else SAME
        if not gap < allowed:
            raise AssertionError(f"{work}: {name} ends {gap:.1e} from the course; they do not do the same work")


def measure(
    work: Work, names: tuple[str, ...] = (), seconds: float = 0.3, wanted: int = 5, limit: int = 15
) -> list[dict[str, Any]]:
    """For each competitor: median milliseconds a round, median ratios to the course and to the idiomatic loop, and what a
    peer says of itself."""
    rounds, first = competitors(work), work.first()
    with peers_of(work, names) as peers:
        check(work, rounds, peers)
        players: dict[str, Block] = {}
        for name, one_round in rounds.items():
            players[name] = lambda one_round=one_round: block(lambda: one_round(first), seconds)
        for name, peer in peers.items():
            players[name] = lambda peer=peer, name=name: peer.block(2.0 if "flower" in name else seconds)
        quiet = turns(players, wanted, limit)
        rows = []
        for name in players:
            told = peers[name].hello if name in peers else {}
            row = {"work": work.name, "clients": work.clients, "epochs": work.epochs, "batch": work.batch,
                   "ragged": work.ragged, "competitor": name, "ms": 1e3 * median(quiet, name),
                   "times the course": median(quiet, name, over="course"),
                   "times the whole loop": median(quiet, name, over="course, whole loop"),
                   "faster than idiomatic": median(quiet, "idiomatic loop", over=name), "turns": len(quiet),
                   "first round s": told.get("first_round"), "peak MB": told.get("peak_mb")}  # fmt: skip
            rows.append(row)
        return rows


def tell(work: Work, rows: list[dict[str, Any]]) -> None:
    print(f"{work}: {rows[0]['turns']} quiet turns" + ("" if rows[0]["turns"] else "; nothing to quote"), file=sys.stderr)
    for row in rows if rows[0]["turns"] else []:
        print(f"    {row['competitor']:20} {row['ms']:9.2f} ms {row['times the course']:7.2f}×", file=sys.stderr, flush=True)
