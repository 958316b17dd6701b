"""The benchmarks: everybody does the same work, nothing is quoted of a noisy machine. No time is asserted here."""

import io
import json
import math
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import machine, quiet, report
from benchmarks.engine import check
from benchmarks.peers import environments, protocol
from benchmarks.work import Work, batches, competitors, export, mcmahan_cnn, small_cnn, works
from fl_course import logistic, mlp

ROOT = Path(__file__).parent.parent
LOGISTIC = Work("logistic", logistic(784, 10), 3)


def test_the_short_run_that_a_newcomer_tries():
    done = subprocess.run([sys.executable, "-m", "benchmarks", "performance", "--quick"], cwd=ROOT, capture_output=True,
                          text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "the programs agree" in done.stdout


@pytest.mark.parametrize("work", [LOGISTIC, Work("mlp", mlp(784, 80, 10), 3, epochs=3), Work("cnn", small_cnn(), 2),
                                  replace(LOGISTIC, ragged=True), replace(LOGISTIC, batch=32, epochs=2)], ids=str)
def test_everybody_ends_in_the_same_model(work):
    rounds = competitors(work)
    assert len(rounds) == (7 if work.ragged else 8)
    check(work, rounds, {})


def test_who_does_other_work_is_found_out():
    rounds = competitors(LOGISTIC)
    rounds["cheat"] = lambda params: rounds["course"](params) + np.float32(2e-4)
    with pytest.raises(AssertionError, match=r"logistic, 3 clients.*cheat ends 2.0e-04 from the course"):
        check(LOGISTIC, rounds, {})


def test_the_works_are_what_the_page_says():
    for work in works():
        sizes = [len(part) for part in work.federation().train]
        assert len(sizes) == 100
        assert (set(sizes) == {40}) is not work.ragged
        assert not work.ragged or max(sizes) > 10 * min(sizes)
    assert (small_cnn().dim, mcmahan_cnn().dim) == (9146, 1_663_370)


def test_without_quiet_turns_nothing_is_quoted():
    noisy, silent = (lambda: (1.0, 0.5)), (lambda: (2.0, 0.0))
    assert quiet.turns({"a": noisy, "b": silent}, wanted=3) == []
    assert math.isnan(quiet.median([], "a"))
    answers = iter([0.9, 0.0, 0.0, float("nan"), 0.0, 0.0])
    kept = quiet.turns({"a": lambda: (1.0, next(answers)), "b": silent}, wanted=4, limit=6)
    assert len(kept) == 4                                              # unknown company is not quiet
    assert quiet.median(kept, "b", over="a") == 2.0


def test_a_block_sees_the_work_of_others():
    seconds, others = quiet.block(lambda: None, 0.05)
    assert seconds < 0.01
    assert others >= 0 or math.isnan(others)


def test_the_work_that_peers_read_is_the_work(tmp_path):
    work = replace(LOGISTIC, ragged=True)
    export(work, tmp_path / "work.npz")
    read = protocol.load(str(tmp_path / "work.npz"))
    data = work.federation()
    assert [sorted(rows.tolist()) for rows in read.clients] == [sorted(part.tolist()) for part in data.train[:3]]
    for rows, planned in zip(read.clients, batches(work, data), strict=True):
        assert rows.tolist() == torch.cat(planned).tolist()
    assert (read.epochs, read.batch, read.lr, read.model) == (1, 10, 0.1, {"kind": "dense", "sizes": [784, 10]})
    assert np.array_equal(read.init, work.first())
    assert [part.shape for part in protocol.tensors(read.init, read.model)] == [(10, 784), (10,)]
    cnn = {"kind": "conv", "side": 28, "classes": 10, "channels": 1, "widths": [8, 16], "groups": 4}
    assert protocol.shapes(cnn) == list(small_cnn().shapes().values())


def test_a_peer_obeys_its_lines(monkeypatch, tmp_path):
    out = io.StringIO()
    monkeypatch.setattr(protocol, "_answers", out)
    lines = ["time 0.01", f"train 3 {tmp_path / 'with space.npy'}", "memory", "what", "quit", "memory"]
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(lines) + "\n"))
    protocol.serve(np.zeros(2), lambda state: state + 1, lambda state: state)
    hello, timed, saved, memory, error = map(json.loads, out.getvalue().splitlines())
    assert hello["ready"]
    assert timed["rounds"] >= 1
    assert timed["seconds"] * timed["rounds"] >= 0.01
    assert saved == {"saved": True}
    assert np.load(tmp_path / "with space.npy").tolist() == [3.0, 3.0]
    assert memory["peak_mb"] is None or memory["peak_mb"] > 1
    assert "none of: time S, train R PATH" in error["error"]


def test_an_environment_that_is_not_known_or_cannot_be_made_is_an_error_in_words(monkeypatch, tmp_path):
    with pytest.raises(ValueError, match="no environment 'fate'; there are flower, pfl, fedjax"):
        environments.python_of("fate", tmp_path)
    monkeypatch.setattr(environments, "_call", lambda name, command: (_ for _ in ()).throw(RuntimeError("pip said no")))
    with pytest.raises(RuntimeError, match="pip said no"):
        environments.python_of("pfl", tmp_path)
    assert not (tmp_path / "pfl" / "installed").exists()


def test_operations_are_those_of_the_products():
    work = Work("2NN", mlp(784, 200, 200, 10), 10)
    flops, moved = machine.operations(work)
    pairs = list(pairwise((784, 200, 200, 10)))
    by_step = sum(2 * 10 * i * o * (2 if l == 0 else 3) for l, (i, o) in enumerate(pairs))
    assert flops == by_step * 10 * 4                                   # clients, steps of ten images
    weights = sum(i * o for i, o in pairs)
    assert moved == 4 * 10 * 4 * (4 * weights - 784 * 200)             # read forward and back; the step reads and writes


def test_the_page_is_made_of_the_rows(tmp_path):
    names = ["course", *report.SHOWN, "flower noop"]
    rows = [{"work": "logistic", "clients": clients, "epochs": 1, "batch": 10, "ragged": False, "competitor": name,
             "ms": 1.5 if clients == 10 else float("nan"), "times the course": 1.0 + k if clients == 10 else float("nan"),
             "turns": 5, "first round s": 7.25 if name == "flower" else None, "peak MB": None}
            for clients in (10, 100) for k, name in enumerate(names)]  # fmt: skip
    names = ("limits", "stages", "neighbour", "growth", "memory", "many", "first")
    tables = {name: [{"of": name, "ms": 0.125}] for name in names}
    report.write(tmp_path, rows, tables, cores=2)
    page = (tmp_path / "performance.md").read_text(encoding="utf-8")
    assert "| logistic, 10 clients, E=1, B=10 | 1.50 | 2.00 | 3.00 |" in page
    assert "| logistic, 100 clients, E=1, B=10 | – | – | – |" in page
    assert "logistic, 10 clients, E=1, B=10 | flower | 7.2" in page
    assert "{" not in page
    assert (tmp_path / "performance.png").stat().st_size > 5000
    assert (tmp_path / "performance.csv").read_text(encoding="utf-8").count("\n") == len(rows) + 1
    assert "limits" in (tmp_path / "performance_machine.csv").read_text(encoding="utf-8")
