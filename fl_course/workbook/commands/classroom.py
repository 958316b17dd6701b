"""`fl-course classroom`: open the federation of the room, and keep it open until Ctrl-C."""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .terminal import refuse, say, writable

if TYPE_CHECKING:
    from ... import History


def classroom(
    seats: Annotated[int, typer.Option(min=1, max=500, help="How many can come in.")] = 30,
    share: Annotated[int, typer.Option(min=1, max=200, help="Handwritten digits that each page is dealt.")] = 20,
    lan: Annotated[str, typer.Option(metavar="ADDRESS", help="An address of this machine by which phones reach it.")] = "",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 0,
    simulate: Annotated[int, typer.Option(min=0, max=500, help="Pages that a program plays, to try it alone.")] = 0,
    seed: Annotated[int, typer.Option(help="Of the deal and of the first model.")] = 0,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Where histories go, as JSON: room-1.json, room-2.json, … "
                                             "for room.json.")] = None,
) -> None:
    """The people in the room are the clients: a page on every phone draws, trains and sends; the rest is the same federation.

    Examples: `fl-course classroom --simulate 10` · `fl-course classroom --lan 192.168.1.20`
    """
    from ..room.room import Room

    if out is not None:
        writable(out.parent)
    try:
        room = Room(seats, share, seed, lan, port, simulate)
    except ValueError as why:
        refuse(str(why))
    except OSError as why:
        refuse(f"nobody can listen at {lan or '127.0.0.1'}, port {port or 'any'}: {why.strerror or why}. --lan takes an address "
               "of this machine; `ip addr` (Windows: ipconfig) names them.")  # fmt: skip
    kept = 0                                                  # runs of which the history is written, as each ends
    with room:
        try:
            say(f"On the wall:    {room.projector_url}")
            say(f"On the phones:  {room.url}")
            if not lan:
                say("Only this machine can open them. For phones: --lan with an address of this machine in their network.")
            else:
                say("http is not encrypted: who listens in this network can read updates and the code. No secrets in this room.")
            say("Ctrl-C closes the room.")
            while True:
                time.sleep(0.2)
                while kept < len(room.runs) - room.turn.locked():
                    keep(room.runs[kept], out)
                    kept += 1
        except KeyboardInterrupt:
            say("The room is closed.")
    for history in room.runs[kept:]:
        keep(history, out)


def keep(history: History, out: Path | None) -> None:
    """Under the first name with a number that is free: what lies there from another lesson stays."""
    if out is not None and history.records:
        names = (out.with_name(f"{out.stem}-{number}{out.suffix}") for number in itertools.count(1))
        name = next(name for name in names if not name.exists())
        try:
            history.to_json(name)
            say(f"The history of a run: {name}")
        except OSError as why:                                # and the lesson goes on
            say(f"{name} cannot be written: {why.strerror or why}. The history of a run is lost.")
