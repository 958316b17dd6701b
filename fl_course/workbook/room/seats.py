"""Who sits in the room, what each owes the server, and what happened. Plain data; server.py moves the bytes."""

from __future__ import annotations

import secrets
import time
import unicodedata
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from ...federation.orders import Order

LONGEST_NAME = 30
MESSAGES = 40            # that one page may send at once; as many more every ten seconds
LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"             # none that look alike


def code(length: int = 6) -> str:
    """A word for the address bar that nobody guesses and everybody can type."""
    return "".join(secrets.choice(LETTERS) for _ in range(length))


class Refused(Exception):
    """A sentence for the person in front of the page."""


@dataclass
class Seat:
    """A place in the room; `client` is its number among the clients of the experiment."""

    client: int
    name: str = ""
    token: str = ""                                       # by which the same page is known again
    page: Any = None                                      # the connection, while there is one
    owes: dict[int, Order] = field(default_factory=dict)  # ticket -> the order that it has not answered
    asked: int = 0
    answered: int = 0
    drawings: int = 0                                     # how many examples of its own the page says that it has
    measured: tuple[int, int, int] = (0, 0, 0)            # (version, right, of): the model on its own drawings, its word


@dataclass
class Seats:
    """The seats of a room. Methods are called in the server's thread; `here` may be read from any."""

    count: int
    seats: list[Seat] = field(init=False)
    here: frozenset[int] = field(default=frozenset(), init=False)
    events: deque[str] = field(default_factory=lambda: deque(maxlen=1000), init=False)

    def __post_init__(self) -> None:
        self.seats = [Seat(i) for i in range(self.count)]

    def sit(self, name: object, token: object, page: Any) -> tuple[Seat, Any]:
        """The seat of a page that says hello, and the connection that it takes the place of, if any. Refused, in a sentence."""
        known_by = token.encode(errors="replace") if isinstance(token, str) else b""
        for seat in self.seats:
            if seat.token and secrets.compare_digest(seat.token.encode(), known_by):
                before, seat.page = seat.page, page
                self.event(f"{seat.name!r} is back")
                self._count()
                return seat, before
        wanted = self.cleaned(name)
        free = next((seat for seat in self.seats if not seat.token), None)
        if free is None:                                  # then that of somebody who has long been gone
            free = next((seat for seat in self.seats if seat.page is None and not seat.owes), None)
        if free is None:
            raise Refused(f"All {self.count} seats are taken.")
        taken = {seat.name for seat in self.seats if seat is not free}
        numbered = (wanted if n == 1 else f"{wanted} {n}" for n in range(1, self.count + 2))
        shown = next(n for n in numbered if n not in taken)
        self.seats[free.client] = seat = Seat(free.client, shown, secrets.token_hex(16), page)
        self.event(f"{seat.name!r} has come and sits on seat {seat.client}")
        self._count()
        return seat, None

    def leave(self, seat: Seat, page: Any) -> bool:
        """Whether the page that has gone was the one on this seat (and not one that another has replaced)."""
        if seat.page is not page:
            return False
        seat.page = None
        self.event(f"{seat.name!r} has gone" + (" with an answer to give" if seat.owes else ""))
        self._count()
        return True

    def cleaned(self, name: object) -> str:
        """The name as it is shown. Refused if it is none."""
        if not isinstance(name, str):
            raise Refused("A name is a word.")
        if len(name) > LONGEST_NAME:
            self.event(f"somebody wanted a name of {len(name)} letters")
            raise Refused(f"A name has at most {LONGEST_NAME} letters; this one has {len(name)}.")
        shown, marks = "", 0
        for letter in unicodedata.normalize("NFC", name):
            kind = unicodedata.category(letter)[0]
            marks = marks + 1 if kind == "M" else 0           # vowels of many scripts; not towers of them
            shown += letter if kind != "C" and marks <= 2 else ""
        shown = " ".join(shown.split())
        if all(unicodedata.category(letter)[0] == "M" for letter in shown):
            raise Refused("Please say a name, so that the others see who you are.")
        return shown

    def event(self, text: str) -> None:
        self.events.append(text[:300])

    def taken(self) -> list[str]:
        """All events since the last call."""
        out = []
        while self.events:
            out.append(self.events.popleft())
        return out

    def _count(self) -> None:
        self.here = frozenset(seat.client for seat in self.seats if seat.page is not None)


@dataclass
class Patience:
    """How many messages a page may still send: a bucket that fills again; and what it was asked it may answer."""

    left: float = MESSAGES
    filled: float = field(default_factory=time.monotonic)

    def one_more(self) -> bool:
        now = time.monotonic()
        self.left = max(self.left, min(MESSAGES, self.left + (now - self.filled) * MESSAGES / 10))
        self.filled = now
        self.left -= 1
        return self.left >= 0
