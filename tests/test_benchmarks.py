"""The benchmarks: everybody does the same work, nothing is quoted of a noisy machine. No time is asserted here."""

import io
import json
import math
import re
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import engine, gpu, machine, quiet, report
from benchmarks.engine import check
from benchmarks.peers import environments, protocol
from benchmarks.work import Work, batches, competitors, export, mcmahan_cnn, optimised, small_cnn, works
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
    before = torch.get_rng_state()
    assert np.array_equal(*(work.first() for work in (Work("", mcmahan_cnn(), 1), Work("", mcmahan_cnn(), 1))))
    assert torch.equal(torch.get_rng_state(), before)


def test_without_quiet_turns_nothing_is_quoted():
    noisy, silent, unknown = (lambda: (1.0, 0.5)), (lambda: (2.0, 0.0)), (lambda: (1.0, float("nan")))
    assert quiet.turns({"a": noisy, "b": silent}, wanted=3) == []
    assert quiet.turns({"a": silent, "b": noisy}, wanted=3) == []
    assert quiet.turns({"a": unknown, "b": silent}, wanted=3) == []    # unknown company is not quiet
    assert quiet.turns({"a": silent, "b": unknown}, wanted=3) == []
    assert math.isnan(quiet.median([], "a"))
    answers = iter([0.9, 0.0, 0.0, 0.3, 0.0, 0.0])
    kept = quiet.turns({"a": lambda: (1.0, next(answers)), "b": silent}, wanted=4, limit=6)
    assert len(kept) == 4
    assert quiet.median(kept, "b", over="a") == 2.0


def test_a_block_sees_the_work_of_others(monkeypatch):
    calls = []
    readings = iter([100.0, 100.0 + 0.06])
    monkeypatch.setattr(quiet, "busy_seconds", lambda: next(readings))
    monkeypatch.setattr(quiet.time, "process_time", lambda: 0.0)
    seconds, others = quiet.block(lambda: calls.append(1), 0.02)
    wall = seconds * (len(calls) - 1)                                  # the first call does not count
    assert wall >= 0.02
    assert others == pytest.approx(0.06 / wall)
    monkeypatch.setattr(quiet, "busy_seconds", lambda: float("nan"))
    assert math.isnan(quiet.block(lambda: None, 0.001)[1])


FAKE = """
import sys, time
import protocol
path, threads, rest = protocol.command_line()
if "dies" in rest:
    sys.exit("no such luck")
if "stops" in rest:
    protocol.timed = lambda *_: sys.exit("in the middle")
protocol.serve(0.0, lambda state: time.sleep(0.001) or state + 1, lambda state: [state])
"""


@pytest.fixture
def peer(monkeypatch, tmp_path):
    """A library that adds one to its model, as a peer in a process of its own."""
    (tmp_path / "protocol.py").write_text((ROOT / "benchmarks/peers/protocol.py").read_text(encoding="utf-8"), encoding="utf-8")
    (tmp_path / "fake_peer.py").write_text(FAKE, encoding="utf-8")
    monkeypatch.setattr(engine, "FOLDER", tmp_path)
    monkeypatch.setattr(engine, "python_of", lambda name: sys.executable)
    return lambda name: engine.Peer(name, tmp_path / "work.npz")


def test_a_peer_answers_and_its_own_work_is_not_that_of_others(peer, tmp_path, monkeypatch):
    fake = peer("fake")
    assert fake.hello["ready"]
    assert fake.ask(f"train 3 {tmp_path / 'out.npy'}") == {"saved": True}
    assert np.load(tmp_path / "out.npy").tolist() == [3.0]
    monkeypatch.setattr(engine, "busy_seconds", iter([7.0, 7.5]).__next__)
    monkeypatch.setattr(fake, "ask", lambda line: {"seconds": 0.5, "all_cpu_seconds": 0.4, "all_seconds": 2.5})
    seconds, others = fake.block(2.0)
    assert (seconds, others) == (0.5, pytest.approx((0.5 - 0.4) / 2.5))
    fake.close()
    assert fake.process.returncode == 0


def test_a_peer_that_dies_says_its_last_words(peer):
    with pytest.raises(RuntimeError, match=r"(?s)fake dies: it ended without an answer.*no such luck"):
        peer("fake dies")
    fake = peer("fake stops")
    with pytest.raises(RuntimeError, match="'what' is none of"):
        fake.ask("what")
    with pytest.raises(RuntimeError, match=r"(?s)it ended without an answer.*in the middle"):
        fake.block(0.01)
    fake.close()


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


@pytest.mark.parametrize("work", [Work("2NN", mlp(784, 200, 200, 10), 10), Work("logistic", logistic(784, 10), 4, epochs=2)])
def test_operations_are_those_of_the_programs(work):
    """Counted by torch while the products alone, and an ordinary loop with autograd, do a round."""
    flops, _ = machine.operations(work)
    rounds = machine.products(work), partial(optimised(work, work.federation()), work.first())
    def in_place(total, one, other, *_, **__):
        return 2 * math.prod(one) * other[-1]

    for one_round in rounds:
        with FlopCounterMode(display=False, custom_mapping={torch.ops.aten.baddbmm_: in_place}) as counter:
            one_round()
        assert counter.get_total_flops() == flops


def test_bytes_are_those_of_weights_that_are_read_and_written():
    _, moved = machine.operations(Work("2NN", mlp(784, 200, 200, 10), 10))
    weights = 784 * 200 + 200 * 200 + 200 * 10
    assert moved == 4 * 10 * 4 * (4 * weights - 784 * 200)             # read forward and back; the step reads and writes


def test_every_file_that_the_readme_names_is_there():
    named = re.findall(r"`((?:docs|tools|tests)/[\w./]+|[A-Z]+\.md)`", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert len(named) >= 3
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_the_page_is_made_of_the_rows(tmp_path):
    names = ["course", *report.SHOWN, "flower noop"]
    rows = [{"work": "logistic", "clients": clients, "epochs": 1, "batch": 10, "ragged": False, "competitor": name,
             "ms": 1.5 if clients == 10 else float("nan"), "times the course": 1.0 + k if clients == 10 else float("nan"),
             "times the whole loop": 0.25,
             "faster than idiomatic": 3.5, "turns": 5, "first round s": 7.25 if name == "flower" else None, "peak MB": None}
            for clients in (10, 100) for k, name in enumerate(names)]  # fmt: skip
    names = ("evaluation", "limits", "stages", "choices", "neighbour", "growth", "memory", "many", "first")
    tables = {name: [{"of": name, "ms": 0.125}] for name in names}
    report.write(tmp_path, rows, tables, cores=2)
    page = (tmp_path / "performance.md").read_text(encoding="utf-8")
    assert "| logistic, 10 clients, E=1, B=10 | 1.50 | 2.00 | 3.00 |" in page
    assert "| logistic, 10 clients, E=1, B=10 | 1.50 | 0.25 | 0.25 |" in page
    assert "| logistic, 100 clients, E=1, B=10 | – | – | – |" in page
    assert "logistic, 10 clients, E=1, B=10 | flower | 7.2" in page
    assert "{" not in page
    assert (tmp_path / "performance.png").stat().st_size > 5000
    assert (tmp_path / "performance.csv").read_text(encoding="utf-8").count("\n") == len(rows) + 1
    assert "limits" in (tmp_path / "performance_machine.csv").read_text(encoding="utf-8")


def test_a_card_has_one_table_on_the_page_and_others_stay(tmp_path):
    page = tmp_path / "performance.md"
    page.write_text("# Performance\n\nText.\n", encoding="utf-8")
    for card, ms in (("Card A", 1.0), ("Card B", 2.0), ("Card A", 3.0)):
        gpu.write(page, gpu.table([{"work": "logistic", "cohort": ms}], card), card)
    text = page.read_text(encoding="utf-8")
    assert text.startswith("# Performance\n\nText.\n\n## On a GPU\n")
    assert text.count("### Card A") == text.count("### Card B") == text.count(report.GPUS) == 1
    assert "| logistic | 3.0 |" in text
    assert "| logistic | 2.0 |" in text
    assert "| logistic | 1.0 |" not in text


def test_what_a_gpu_is_compared_with_does_the_same_work():
    row = gpu.measure("logistic", gpu.QUICK[0][1], 20, "cpu:0", turns=1)
    assert {"cohort", "whole loop", "module after module", "idiomatic, same device"} < row.keys()
