"""`fl-course deploy`: an experiment as a Flower app, and a federation of real processes on this machine."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from .terminal import OUT, refuse, say, writable

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode="markdown",
    help="The same federation as processes of their own, by Flower: write the app, or run it on this machine.",
)
Experiment = Annotated[
    Path | None, typer.Option("--experiment", help="A Python file with a function `experiment()` that returns the Coordinator.")
]


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new folder, or an empty one.")],
    experiment: Experiment = None,
) -> None:
    """Write an experiment as a Flower app: without --experiment a small one on digits, to change.

    Example: `fl-course deploy export my-app`
    """
    from ...deploy import export as exporting

    try:
        made = exporting.export(folder, experiment)
    except (ValueError, FileExistsError) as why:
        refuse(str(why))
    (inside,) = made.glob("*/experiment.py")
    say(f"A Flower app is in {made}. What it trains is said in {inside}.")
    say(f"Run it here: fl-course deploy local {made} --clients 2")


@app.command()
def local(
    folder: Annotated[Path | None, typer.Argument(metavar="[APP]", help="What deploy export wrote; none: the example.")] = None,
    clients: Annotated[int, typer.Option("--clients", min=1, max=64, help="SuperNodes, who share the clients among them.")] = 2,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Server steps.")] = 3,
    tls: Annotated[bool, typer.Option("--tls", help="With a certificate authority and node keys for this run.")] = False,
    real: Annotated[bool, typer.Option("--real", help="On the real clock: answers count when they come.")] = False,
    experiment: Experiment = None,
    out: Annotated[Path, OUT] = Path("reports/deploy"),
) -> None:
    """Start a SuperLink and SuperNodes on this machine, run the app, and stop every process again.

    Examples: `fl-course deploy local` · `fl-course deploy local my-app --clients 4 --tls`
    """
    from ...deploy import environment
    from ...deploy import export as exporting
    from ...deploy.local import DeploymentError, Local

    if folder is not None and experiment is not None:
        refuse("an app has its experiment inside; give the one or the other")
    if folder is not None and not (folder / "pyproject.toml").is_file():
        refuse(f"{folder} is no Flower app (it has no pyproject.toml); make one: fl-course deploy export {folder}")
    writable(out)
    with tempfile.TemporaryDirectory(prefix="fl-course-") as room:
        try:
            app_folder = folder or exporting.export(Path(room) / "example", experiment)
            python = environment.flower(say)
            with Local(python, clients, tls, say=say) as here:
                here.run(app_folder, rounds=rounds, clock="real" if real else "simulated", out=out.resolve().as_posix())
        except KeyboardInterrupt:
            say("Stopped. Every process that was started has ended.")
            raise typer.Exit(1) from None
        except (environment.NoFlower, DeploymentError, ValueError) as why:
            say(f"fl-course: {why}")
            raise typer.Exit(1) from None
    say(f"Every process that was started has ended. The run: {out / 'history.json'} and {out / 'model.ckpt'}")
