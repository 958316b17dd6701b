"""What the room's web server does with whoever knocks: doors for people, connections for pages. No other host, no other site,
nobody without the code; every answer that cannot be understood is a sentence for the person in front of the page."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import tornado.web
import tornado.websocket

from ...core import FederatedError
from ...federation.orders import encode_orders
from ...wire.frames import WireError, frame
from .pages import PAGE, client_page, projector_page
from .seats import Patience, Refused, Seat

HELLO = 10.0            # seconds in which a page that connects says who it is


class Guarded(tornado.web.RequestHandler):
    """Abstract: asks for the name of this very host, so that no other site's name leads here, and forbids the page to ask
    for anything elsewhere."""

    def initialize(self, server: Any) -> None:
        self.server = server

    async def prepare(self) -> None:
        await asyncio.sleep(self.server.wait(self.request.remote_ip))
        if self.request.host not in self.server.names:
            self.set_status(403)
            self.finish("This is not the address of the room.")

    def set_default_headers(self) -> None:
        self.set_header("Content-Security-Policy", "default-src 'none'; script-src 'unsafe-inline' 'wasm-unsafe-eval' blob:; "
                        "worker-src blob:; style-src 'unsafe-inline'; img-src data: blob:; connect-src 'self'; "
                        "form-action 'none'; frame-ancestors 'none'; base-uri 'none'")  # fmt: skip
        self.set_header("Referrer-Policy", "no-referrer")
        self.set_header("Cache-Control", "no-store")
        self.set_header("X-Content-Type-Options", "nosniff")


class Door(Guarded):
    def get(self, word: str) -> None:
        if self.server.knows(word, self.server.code, self.request.remote_ip):
            self.finish(client_page())
        else:
            self.set_status(404)
            self.finish("There is no room of this code. Look at the projector again: no 0, O, 1 or I is in it.")


class Wall(Guarded):
    def get(self, word: str) -> None:
        if self.server.knows(word, self.server.key, self.request.remote_ip):
            self.finish(projector_page(self.server.url))
        else:
            self.set_status(404)
            self.finish("This is not the projector's address; the program that opened the room says it.")


class Nowhere(Guarded):
    def get(self) -> None:
        self.set_status(404)
        self.finish("Nothing is here. The address of the room ends with its code.")


class Talk(tornado.websocket.WebSocketHandler):
    """Abstract: a connection that the code opens."""

    shut = True                                                                      # what it says is not heard

    def initialize(self, server: Any) -> None:
        self.server, self.patience = server, Patience()

    async def prepare(self) -> None:
        await Guarded.prepare(self)                                                  # type: ignore[arg-type]

    def check_origin(self, origin: str) -> bool:
        return origin.removeprefix("http://") == self.request.host

    def give(self, what: Mapping[str, Any] | bytes) -> None:
        try:
            raw = isinstance(what, bytes)
            future = self.write_message(what if raw else json.dumps(what), binary=raw)                # type: ignore[arg-type]
            future.add_done_callback(lambda done: done.exception())                  # a page that has gone by now
        except tornado.websocket.WebSocketClosedError:
            pass

    def sorry(self, why: str) -> None:
        self.shut = True                                                             # it may send until it has read this
        self.give({"say": "sorry", "why": why})
        self.close(1000, why[:100])

    def hear(self, message: str | bytes) -> dict[str, Any]:
        """What a page says in JSON. Refused if it says nothing that can be read."""
        try:
            said = json.loads(message)
        except (ValueError, RecursionError):
            said = None
        if not isinstance(said, dict) or not isinstance(said.get("say"), str):
            raise Refused("The room did not understand this page. Please load it again.")
        return said


class Page(Talk):
    """A page of a client."""

    seat: Seat | None = None

    def open(self, word: str) -> None:
        if self.server.knows(word, self.server.code, self.request.remote_ip):
            self.shut = False
            self.server.loop.call_later(HELLO, self._or_go)
        else:
            self.sorry("There is no room of this code.")

    def _or_go(self) -> None:
        if self.seat is None:
            self.sorry("This page has not said hello.")

    def give(self, what: Mapping[str, Any] | bytes) -> None:
        if isinstance(what, bytes):                                                  # an order, or a model to measure
            self.patience.left += 1
        Talk.give(self, what)

    def on_message(self, message: str | bytes) -> None:
        if self.shut:
            return
        who = repr(self.seat.name) if self.seat else "somebody"
        try:
            if not self.patience.one_more():
                raise Refused("This page sends too much at once.")
            if isinstance(message, bytes):
                if self.seat is None:
                    raise Refused("Please say a name first.")
                self.server.take(self.seat, message)
            else:
                self._said(self.hear(message))
        except Refused as why:
            self.server.seats.event(f"{who} was told: {why}")
            self.sorry(str(why))
        except WireError as why:
            self.server.seats.event(f"{who} sent what is no answer: {why}")
            if self.seat is not None:                                                # … which costs its own
                self.server.lost(self.seat, f"it sent what is no answer: {why}"[:200])

    def _said(self, said: dict[str, Any]) -> None:
        seats = self.server.seats
        if self.seat is None:
            if said["say"] != "hello" or said.get("page") != PAGE:
                raise Refused("This page is of another version. Please load it again.")
            self.seat, before = seats.sit(said.get("name"), said.get("token"), self)
            if before is not None:
                before.seat = None
                before.sorry("You are here in another window.")
            x, y = self.server.share(self.seat.client)
            self.give({"say": "welcome", "client": self.seat.client, "name": self.seat.name, "token": self.seat.token,
                       "rules": self.server.rules()})  # fmt: skip
            self.give(frame("share", [len(y), x.reshape(-1), y.tolist()]))
            for order in self.seat.owes.values():
                self.give(encode_orders([order]))
            self.server.show()
        elif said["say"] == "drawings" and _count(said.get("count"), 1000):
            self.seat.drawings = said["count"]
            self.server.show()
        elif said["say"] == "measured" and all(_count(said.get(word), 10**6) for word in ("version", "right", "of")):
            if said["right"] <= said["of"]:
                self.seat.measured = said["version"], said["right"], said["of"]
                self.server.show()
        else:
            raise Refused("The room did not understand this page. Please load it again.")

    def on_close(self) -> None:
        if self.seat is not None and self.server.seats.leave(self.seat, self):
            self.server.lost_unless_back(self.seat)
            self.server.show()


class Projector(Talk):
    """The page on the wall: sees the room, starts and stops its rounds."""

    told = (0, 0)                                                                    # a run, and how many rounds of it

    def open(self, word: str) -> None:
        if self.server.knows(word, self.server.key, self.request.remote_ip):
            self.server.projectors.add(self)
            self.show()
        else:
            self.sorry("This is not the projector's address.")

    def show(self) -> None:
        """The room as it is, and those rounds of which this wall has not been told."""
        now = self.server.view(*self.told)
        self.told = now["run"], now["known"] + len(now["rounds"])
        self.give({"say": "view", **now})

    def on_message(self, message: str | bytes) -> None:
        if self not in self.server.projectors:
            return
        try:
            if (answer := self.server.command(self.hear(message))) is not None:
                self.give(answer)
        except (Refused, FederatedError, ValueError, TypeError) as why:
            self.give({"say": "sorry", "why": str(why)[:500]})

    def on_close(self) -> None:
        self.server.projectors.discard(self)


def _count(value: object, most: int) -> bool:
    return type(value) is int and 0 <= value <= most
