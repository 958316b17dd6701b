"""The room's web server, in a thread of its own, so that a busy kernel does not hold it; and the `Post` that the loop uses.

A page says hello in JSON and gets a seat, the rules and its share. Then orders come (frame "orders", as to any node) and
answers go (frame "answers"). Whatever else a page sends costs it at most its own answer. Nothing is decoded before its size,
its pace and its seat are known. Loopback alone unless an address is named; a page must know the code that is in its address.
"""

from __future__ import annotations

import asyncio
import ipaddress
import queue
import secrets
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tornado.httpserver
import tornado.web

from ...core import ClientId
from ...federation.orders import Answer, Order, decode_answers, encode_orders
from .doors import Door, Nowhere, Page, Projector, Wall
from .seats import Seat, Seats, code

REFRESH = 0.25           # seconds between two looks at the room on the wall
GRACE = 3.0              # seconds in which a page that lost its connection may come back to its order
WRONG_CODES = 30         # a minute, from one address, which may be that of a whole class; then who comes from there has to
WAIT = 1.0               # wait so many seconds: nobody with the code is kept out, and guessing would take years


class Server:
    """seats: who can come; share(client) -> (x (n, *features), y (n,)) that a page begins with; rules: told to pages, see
    pages.py; command: called, in the server's thread, with what the projector wants, and says what it is answered; view(run,
    rounds of it that it knows): what it is shown."""

    def __init__(
        self, seats: int, share: Callable[[int], tuple[np.ndarray, np.ndarray]], rules: Callable[[], dict[str, Any]],
        command: Callable[[dict[str, Any]], dict[str, Any] | None], view: Callable[[int, int], dict[str, Any]],
        largest: int, lan: str = "", port: int = 0,
    ) -> None:  # fmt: skip
        self.seats, self.share, self.rules, self.command, self.view = Seats(seats), share, rules, command, view
        self.largest, self.code, self.key = largest, code(), secrets.token_urlsafe(16)
        self.inbox: queue.Queue[Answer] = queue.Queue()
        self.projectors: set[Projector] = set()
        self.wrong: dict[str, list[float]] = {}               # address -> when it said a wrong code
        self.looking = False                                  # the wall will be told of the room in a moment
        host = listens_at(lan)
        self.socket = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        self.socket.setblocking(False)
        self.port = self.socket.getsockname()[1]
        self.host = f"[{host}]" if ":" in host else host      # as it stands in an address
        self.names = {f"{name}:{self.port}" for name in (self.host, "localhost")} | ({self.host} if self.port == 80 else set())
        self.loop: asyncio.AbstractEventLoop | None = None
        self.ready = threading.Event()
        self.thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="room", daemon=True)

    # --- from the outside -------------------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}/{self.code}"

    @property
    def projector_url(self) -> str:
        return f"http://{self.host}:{self.port}/projector/{self.key}"

    def start(self) -> None:
        self.thread.start()
        self.ready.wait()

    def stop(self) -> None:
        """Say good-bye, close the port, end the thread. A second call does nothing."""
        if self.loop is not None and self.thread.is_alive():
            self.loop.call_soon_threadsafe(self.over.set)
            self.thread.join(10)

    def tell(self, what: Mapping[str, Any] | bytes, projector: bool = False) -> None:
        """To all pages, or to all projectors."""
        self._soon(lambda: [page.give(what) for page in (list(self.projectors) if projector else self._pages())])

    def show(self) -> None:
        """The wall sees the room as it is, a moment from now, however often this is called until then."""
        self._soon(self._show)

    # --- the Post of the loop (federation/orders.py); called in its thread -----------------------------------------------

    def here(self) -> set[ClientId]:
        return set(self.seats.here)

    def send(self, orders: Sequence[Order]) -> None:
        self._soon(lambda: self._deliver(orders))

    def answers(self, seconds: float) -> list[Answer]:
        try:
            found = [self.inbox.get(timeout=max(seconds, 0.001))]
        except queue.Empty:
            return []
        while not self.inbox.empty():
            found.append(self.inbox.get())
        return found

    def ask(self, what: str, questions: Mapping[ClientId, bytes]) -> Mapping[ClientId, bytes]:
        raise NotImplementedError("pages in the room answer orders and nothing else: secure sums need nodes, see deploy/")

    # --- in the server's thread -------------------------------------------------------------------------------------------

    async def _serve(self) -> None:
        self.loop, self.over = asyncio.get_running_loop(), asyncio.Event()
        routes = [
            (r"/([A-Z0-9]{1,40})", Door, {"server": self}), (r"/([A-Z0-9]{1,40})/ws", Page, {"server": self}),
            (r"/projector/([\w-]{1,60})", Wall, {"server": self}), (r"/projector/([\w-]{1,60})/ws", Projector, {"server": self}),
            (r"/.*", Nowhere, {"server": self}),
        ]  # fmt: skip
        app = tornado.web.Application(
            routes, websocket_max_message_size=self.largest, websocket_ping_interval=10, log_function=_quiet
        )
        http = Few(app, max_body_size=1000, idle_connection_timeout=60)
        http.most, http.seated = 2 * self.seats.count + 50, self._seated
        http.add_sockets([self.socket])
        self.ready.set()
        await self.over.wait()
        http.stop()
        for page in [*self._pages(), *self.projectors]:
            page.sorry("The room is closed.")
        await asyncio.sleep(0.05)
        await http.close_all_connections()

    def _show(self) -> None:
        def look() -> None:
            self.looking = False
            for projector in list(self.projectors):
                projector.show()

        if not self.looking and self.projectors and self.loop is not None:
            self.looking = True
            self.loop.call_later(REFRESH, look)

    def _soon(self, work: Callable[[], object]) -> None:
        if self.loop is not None and not self.loop.is_closed():
            self.loop.call_soon_threadsafe(work)

    def forget_orders(self) -> None:
        """A run begins: nobody owes anything of an earlier one."""
        def forget() -> None:
            for seat in self.seats.seats:
                seat.owes = {}

        self._soon(forget)

    def _pages(self) -> list[Page]:
        return [seat.page for seat in self.seats.seats if seat.page is not None]

    def _seated(self) -> set[Any]:
        """The connections of those who have said who they are."""
        return {page.ws_connection.stream for page in [*self._pages(), *self.projectors] if page.ws_connection is not None}

    def _deliver(self, orders: Sequence[Order]) -> None:
        for order in orders:
            seat = self.seats.seats[int(order.client)]
            seat.asked += 1
            seat.owes[order.ticket] = order
            if seat.page is None:
                self.lost(seat, "its page is gone")
            else:
                seat.page.give(encode_orders([order]))

    def lost_unless_back(self, seat: Seat) -> None:
        """A page has gone. It has a moment to come back."""
        assert self.loop is not None
        self.loop.call_later(GRACE, self.lost, seat, "its page is gone", True)

    def lost(self, seat: Seat, why: str, unless_back: bool = False) -> None:
        """What this seat owes will not come."""
        if unless_back and seat.page is not None:
            return
        for ticket in list(seat.owes):
            del seat.owes[ticket]
            self.inbox.put(Answer(ticket, lost=why))

    def take(self, seat: Seat, message: bytes) -> None:
        """An answer of a page. WireError if it is none; what nobody asked this seat is left where it is."""
        for answer in decode_answers(message):
            if seat.owes.pop(answer.ticket, None) is None:
                self.seats.event(f"{seat.name!r} answered what it was not asked, or twice")
            else:
                seat.answered += 1
                self.inbox.put(answer)
        self.show()

    def wait(self, address: str) -> float:
        """For how many seconds the door stays shut for who comes from this address: by how many wrong codes came from there."""
        since = time.monotonic() - 60
        late = {who: [when for when in times if when > since][-WRONG_CODES:] for who, times in self.wrong.items()}
        self.wrong = {who: times for who, times in late.items() if times}
        return WAIT if len(self.wrong.get(address, ())) >= WRONG_CODES else 0.0

    def knows(self, word: str, right: str, address: str) -> bool:
        """Whether the word is right. It is noted if not."""
        if secrets.compare_digest(word.encode(), right.encode()):
            return True
        self.wrong.setdefault(address, []).append(time.monotonic())
        return False


class Few(tornado.httpserver.HTTPServer):
    """Takes so many connections from one address and no more, so that nobody uses up those that the system lends. Many people may
    have one address: the oldest that is nobody's seat makes room, and who hoards connections keeps nobody out."""

    most = 0
    seated: Callable[[], set[Any]] = set
    streams: tuple[tuple[str, Any], ...] = ()

    def handle_stream(self, stream: Any, address: Any) -> None:
        self.streams = (*((who, one) for who, one in self.streams if not one.closed()), (address[0], stream))
        mine = [one for who, one in self.streams if who == address[0]]
        if len(mine) > self.most:
            seated = self.seated()
            next((one for one in mine if one not in seated), stream).close()
        if not stream.closed():
            tornado.httpserver.HTTPServer.handle_stream(self, stream, address)


def listens_at(lan: str) -> str:
    """The address to listen at, as a browser will write it. ValueError for one that leads nowhere."""
    host = (lan or "127.0.0.1").strip("[]").lower()
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host                                           # a name of this machine
    if address.is_unspecified or getattr(address, "scope_id", None):
        raise ValueError(f"no phone can open {lan}: lan takes one address of this machine, such as 192.168.1.20 or fd00::20")
    return str(address)


def _quiet(handler: tornado.web.RequestHandler) -> None:
    """The room writes no log of who came."""
