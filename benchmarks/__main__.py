"""The benchmarks: what the course says about speed was measured by them.

    python -m benchmarks performance             the engine against everybody and the machine; writes docs/performance.*
    python -m benchmarks performance --quick     one small work; nothing written: shows that the programs agree
    python -m benchmarks gpu                     a cohort on a GPU beside ordinary loops; adds the card's table
    python -m benchmarks.accounting              privacy accounting        python -m benchmarks.compression
    python -m benchmarks.dpsgd                   private SGD               python -m benchmarks.secure_aggregation
    python -m benchmarks.robust                  attacks and defences: reproduction cards, and robust rules beside byzfl and flwr
    python -m benchmarks.widget_latency          from a slider's move to the first new point
    python -m benchmarks.clock                   events a second on the simulated clock
    python -m benchmarks.grading                 what grading a class of 200 costs
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path

from . import engine, gpu, machine, report
from .work import Work, works


def performance(out: Path, peers: tuple[str, ...]) -> int:
    """Measure everything and write the page."""
    rows = []
    for work in works():
        names = peers if work.epochs == 1 and work.batch == 10 and not work.ragged and work.model.dim < 10**6 else ()
        if work.name == "2NN" and "flower" in names:
            names = (*names, "flower noop")
        slow = work.model.alone and (work.clients == 100 or work.model.dim > 10**6)
        measured = engine.measure(work, names, wanted=3 if slow else 5)
        engine.tell(work, measured)
        rows += measured
    small, large = (Work(name, machine.MODELS[name], 100) for name in ("logistic", "2NN"))
    few, few_large = replace(small, clients=10), replace(large, clients=10)
    tables = {
        "evaluation": machine.evaluation([work for work in works() if str(work).endswith("E=1, B=10")]),
        "limits": machine.limits([few, small, few_large, large, replace(few_large, epochs=5)]),
        "stages": [row for work in (few, small, large) for row in machine.stages(work)],
        "choices": machine.choices(),
        "neighbour": [row for work in (few, large) for row in machine.neighbour(work)],
        "growth": machine.growth(),
        "memory": machine.memory(),
        "many": [{"rounds": rounds, **machine.alone("many", str(rounds))} for rounds in (1000,)],
        "first": machine.first_round(),
    }
    report.write(out, rows, tables, os.cpu_count() or 1)
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("what", nargs="?", choices=["performance", "gpu"])
    parser.add_argument("--quick", action="store_true", help="one small work; writes nothing")
    parser.add_argument("--peers", nargs="*", default=list(engine.PEERS), metavar="NAME", help="libraries to ask; default: all")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "docs")
    args = parser.parse_args()
    if args.what is None:
        parser.print_help()
        return 0
    if args.what == "gpu":
        return gpu.main(args.out / "performance.md", args.quick)
    if args.quick:
        work = works()[0]
        engine.tell(work, engine.measure(work, seconds=0.05, wanted=3, limit=3))
        print("the programs agree")
        return 0
    return performance(args.out, tuple(args.peers))


if __name__ == "__main__":
    sys.exit(main())
