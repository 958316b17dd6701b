"""What the commands of `fl-course` share: their options, and how they speak."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

DAY = 86_400                                   # seconds; no time limit is longer, since clocks overflow at some
OUT = typer.Option("--out", help="Folder of the results.")
Names = Annotated[list[str] | None, typer.Argument(help="Paths, names or numbers: a/b.ipynb, 01_fedavg, 01.")]
Pairs = Annotated[
    list[str] | None, typer.Option("-p", "--parameter", metavar="NAME VALUE", help="A parameter: -p rounds 3.")
]
Jobs = Annotated[int, typer.Option("--jobs", min=1, max=64, help="How many processes at a time.")]


def say(text: str) -> None:
    """One line to the terminal, as it is."""
    Console(highlight=False).print(text, markup=False, soft_wrap=True)


def table(title: str, columns: list[str], rows: list[tuple[Any, ...]]) -> None:
    drawn = Table(title=title)
    for column in columns:
        drawn.add_column(column, overflow="fold")
    for row in rows:
        drawn.add_row(*(escape(str(value)) for value in row))
    Console(highlight=False).print(drawn)


def counted(count: int, what: str) -> str:
    """"1 page", "2 pages"."""
    return f"{count} {what}{'' if count == 1 else 's'}"


def number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def writable(folder: Path) -> None:
    """Make the folder and try it, before anything takes time; refuse in a sentence if nothing can be written there."""
    from ..grading.gradebook import probe

    try:
        probe(folder)
    except OSError as error:
        refuse(f"{folder} cannot be written: {error.strerror or error}; name another folder")


def refuse(sentence: str) -> NoReturn:
    """Say what is wrong with the command and end with exit code 2."""
    say(f"fl-course: {sentence}")
    raise typer.Exit(2)
