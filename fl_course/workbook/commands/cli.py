"""The command `fl-course`. Exit codes: 0 all is well, 1 something failed and is named, 2 not understood."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from . import classroom, deploy, desk
from .terminal import DAY, OUT, Jobs, Names, Pairs, counted, number, refuse, say, table, writable

app = typer.Typer(
    no_args_is_help=True, add_completion=False, rich_markup_mode="markdown", pretty_exceptions_enable=False,
    help="The federated-learning workbook: run, check and grade its notebooks.",
)


@app.command()
def train(
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of FedAvg.")] = 30,
    out: Annotated[Path, OUT] = Path("reports"),
) -> None:
    """Train FedAvg on MNIST at 100 clients and print a table, a row a round.

    Example: `fl-course train --rounds 5`
    """
    writable(out)
    raise typer.Exit(_demo(rounds, out))


@app.command()
def run(
    names: Names = None,
    everything: Annotated[bool, typer.Option("--all", help="All lessons.")] = False,
    parameters: Pairs = None,
    out: Annotated[Path, OUT] = Path("reports"),
    timeout: Annotated[int, typer.Option(min=1, max=DAY, help="Seconds for one cell.")] = 1800,
) -> None:
    """Execute notebooks and write them, with pictures, as pages that open offline; index.html leads to all of them. Without
    arguments: train a hundred clients on real images, then the tour.

    Examples: `fl-course run` · `fl-course run 01 03 -p rounds 3` · `fl-course run --all --out reports`
    """
    from . import export, front, places, runner
    from . import parameters as asked

    tour = not names and not everything
    paths = places.readable([places.tour()]) if tour else _notebooks("run", None if everything else names)
    chosen = asked.choose(paths, _pairs(parameters or []))
    _each_its_own_file(list(chosen), out)
    writable(out)
    code = _demo(30, out) if tour else 0
    outcomes = []
    for place, path in enumerate(chosen, start=1):
        say(f"[{place}/{len(chosen)}] {path.stem} …")
        outcome = runner.run_notebook(path, out / path.name, chosen[path], timeout)
        if outcome.output:
            try:
                export.to_html(outcome.output, out / f"{path.stem}.html", {one.stem for one in chosen})
            except Exception as error:        # a page that cannot be made is this notebook's failure, not the end
                outcome = dataclasses.replace(outcome, error=outcome.error or f"no page: {error}")
        said = "ok" if outcome.ok else f"FAILED: {outcome.error}"
        say(f"      {outcome.cells}/{outcome.total} cells, {outcome.seconds:.1f} s, {said}")
        outcomes.append(outcome)
    rows = [(o.notebook, f"{o.cells}/{o.total}", f"{o.seconds:.1f}", "ok" if o.ok else o.error) for o in outcomes]
    table("Notebooks", ["notebook", "cells", "seconds", "result"], rows)
    numbers = [(o.notebook, name, number(value)) for o in outcomes for name, value in o.numbers.items()]
    if numbers:
        table("What they report", ["notebook", "name", "number"], numbers)
    try:
        say(f"Pages: {front.front_page(out, outcomes)}")
    except OSError as error:                  # what was computed is there, or told above
        code = 1
        say(f"fl-course: {out / 'index.html'} cannot be written: {error.strerror or error}. The results are as said above.")
    raise typer.Exit(code or int(not all(outcome.ok for outcome in outcomes)))


@app.command()
def sweep(
    notebook: Annotated[str, typer.Argument(help="Path, name or number of one notebook.")],
    parameters: Pairs = None,
    jobs: Jobs = 2,
    out: Annotated[Path, OUT] = Path("reports/sweep"),
) -> None:
    """Run one notebook over a grid of parameters; one table and one figure. Run it again to resume.

    Example: `fl-course sweep 03 -p rounds 10,20,30 -p seed 0,1 --jobs 2`
    """
    from . import sweep as sweeping

    (path,) = _notebooks("sweep", [notebook])
    points = sweeping.grid(path, _pairs(parameters or []), out)
    writable(out)
    failures = []
    say(f"{counted(len(points), 'point')}, {sum(point.output.exists() for point in points)} of them finished before")
    for point, outcome in sweeping.run_points(path, points, jobs):
        label = ", ".join(f"{name} = {value}" for name, value in point.parameters.items())
        say(f"{label}: {outcome.seconds:.1f} s, {outcome.error or 'ok'}")
        failures += [] if outcome.ok else [f"{label}: {outcome.error}"]
    rows = sweeping.gather(points)
    swept = list(points[0].parameters)
    if not rows:
        say(f"No point ran through: {len(failures)} of {len(points)} failed. The first: {failures[0]}")
        raise typer.Exit(1)
    if not any(set(row) - set(swept) for row in rows):
        say("No numbers: the notebook must end a cell with fl_course.workbook.report(name=number).")
        raise typer.Exit(1)
    sweeping.write_table(rows, out / f"{path.stem}.csv")
    sweeping.draw(rows, swept, out / f"{path.stem}.png", path.stem)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    table(path.stem, columns, [tuple(number(row.get(name, "")) for name in columns) for row in rows])
    say(f"Table: {out / path.stem}.csv  Figure: {out / path.stem}.png")
    for failure in failures:
        say(f"Not in the table, it failed: {failure}")
    raise typer.Exit(int(bool(failures)))


@app.command()
def check(names: Names = None) -> None:
    """Run notebooks cell by cell under nbval: nothing may fail, exact outputs must come back, exercises must be solved.

    Without arguments all lessons and solutions. Example: `fl-course check my-course/exercises/01_fedavg.ipynb`
    """
    from . import validate

    verdicts = []
    for path in _notebooks("check", names, "notebooks", "solutions"):
        verdicts.append(validate.validate(path))
        say(f"{path.parent.name}/{path.name}: {'ok' if verdicts[-1].ok else 'FAILED'}")
    rows = [(v.notebook, v.passed, v.failed, v.first or ("ok" if v.ok else "no cells")) for v in verdicts]
    table("Check", ["notebook", "passed", "failed", "result"], rows)
    raise typer.Exit(int(not all(verdict.ok for verdict in verdicts)))


@app.command()
def export(names: Names = None, out: Annotated[Path, OUT] = Path("reports/html")) -> None:
    """Write notebooks as pages that open offline, without running them. Without arguments all lessons.

    Example: `fl-course export --out site`
    """
    from . import export as exporting
    from . import places

    paths = _notebooks("export", names)
    beside = {path.stem for path in paths}
    writable(out)
    pages = [(exporting.to_html(path, out / f"{path.stem}.html", beside).name, places.title(path)) for path in paths]
    say(f"{counted(len(pages), 'page')}: {exporting.index_page(pages, out / 'index.html')}")


def _notebooks(verb: str, names: list[str] | None, *folders: str) -> list[Path]:
    """Those that are named, else all of these folders (default: the lessons); each can be read."""
    from . import places

    paths = places.resolve(names) if names else places.notebooks(*folders)
    if not paths:
        refuse(f"there is nothing to {verb}: no notebooks here")
    return places.readable(paths)


def _each_its_own_file(paths: Sequence[Path], out: Path) -> None:
    """Refuse two notebooks of one name, of which only the later would be left, and one that would be written over itself."""
    names = [path.name for path in paths]
    for path in paths:
        if names.count(path.name) > 1:
            refuse(f"two notebooks are called {path.name}, and both would be written to {out}; run each with an --out of its own")
        if path.resolve() == (out / path.name).resolve():
            refuse(f"{path} lies in the folder of the results, and would be written over; name another folder with --out")


def _demo(rounds: int, out: Path) -> int:
    from .demo import run_demo

    return run_demo(rounds, out)


def _pairs(written: list[str]) -> list[tuple[str, str]]:
    """["rounds=3"] -> [("rounds", "3")]."""
    for text in written:
        if "=" not in text:
            refuse(f"-p takes a name and a value, as in -p rounds 3; got {text!r} alone")
    return [(name, value) for name, _, value in (text.partition("=") for text in written)]


def _joined(argv: Sequence[str]) -> list[str]:
    """`-p rounds 3` becomes `-p rounds=3`, which is what typer can read."""
    joined, rest = [], list(argv)
    while rest:
        word = rest.pop(0)
        joined.append(word)
        if word in ("-p", "--parameter") and len(rest) >= 2 and "=" not in rest[0]:
            joined.append(f"{rest.pop(0)}={rest.pop(0)}")
    return joined


app.command()(desk.grade)
app.command()(desk.start)
app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(desk.lab)
app.command()(desk.judge)
app.command()(desk.doctor)
app.command()(desk.test)
app.command()(classroom.classroom)
app.add_typer(deploy.app, name="deploy")


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point: what the user got wrong is one sentence, not a traceback. Always ends in SystemExit."""
    from .parameters import BadParameter
    from .places import NoWorkbook
    from .validate import NoValidator

    for stream in (sys.stdout, sys.stderr):
        getattr(stream, "reconfigure", dict)(errors="replace")   # a name or a sign that this terminal cannot write costs a "?"
    try:
        app(_joined(sys.argv[1:] if argv is None else argv))
    except (BadParameter, NoWorkbook, NoValidator) as error:
        sentence = str(error)
    except OSError as error:                  # a disk that is full, a folder that was taken away
        where = f" ({error.filename})" if error.filename else ""
        sentence = f"this could not be read or written: {error.strerror or error}{where}; what was finished before is kept"
    with suppress(OSError):                   # it may be the output itself that cannot be written
        say(f"fl-course: {sentence}")
    sys.exit(2)


if __name__ == "__main__":
    main()
