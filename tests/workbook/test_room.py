"""The federation of the room: the library's own run over pages that come, go, sleep, send rubbish, and whoever knocks."""

import asyncio
import json
import random
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import replace

import numpy as np
import pytest
from tornado.ioloop import IOLoop
from tornado.websocket import websocket_connect

from fl_course import History
from fl_course.core import FederatedError
from fl_course.federation.node import Node
from fl_course.federation.orders import Answer, decode_orders, encode_answers
from fl_course.wire.frames import frame, unframe
from fl_course.wire.messages import decode_update, encode_update
from fl_course.workbook.room import server as server_module
from fl_course.workbook.room.again import again
from fl_course.workbook.room.pages import PAGE
from fl_course.workbook.room.room import Room, checked
from fl_course.workbook.room.seats import LONGEST_NAME, MESSAGES, Patience, Refused, Seats

pytestmark = pytest.mark.timeout(120)


class Visitor:
    """A page in the hands of a test: what it is told is kept, what it says is up to the test."""

    def __init__(self, room, name="Ada", token=None, page=PAGE, path=None, obey=True):
        self.room, self.heard, self.orders, self.obey, self.share = room, [], [], obey, None
        self.loop, self.up = None, threading.Event()
        self.hello = {"say": "hello", "page": page, "name": name, "token": token}
        self.path = path or f"{room.url.replace('http', 'ws')}/ws"
        self.thread = threading.Thread(target=self._live, daemon=True)
        self.thread.start()
        assert self.up.wait(10)

    @classmethod
    def wall(cls, room):
        """The page on the wall: it does not say hello."""
        return cls(room, False, path=f"{room.projector_url.replace('http', 'ws')}/ws")

    def _live(self):
        self.loop = IOLoop(make_current=False)
        self.loop.run_sync(self._talk)
        self.loop.close()

    async def _talk(self):
        try:
            self.page = await websocket_connect(self.path)
        except Exception as why:
            self.heard.append({"say": "closed", "why": str(why)})
            self.up.set()
            return
        if self.hello["name"] is not False:
            await self.page.write_message(json.dumps(self.hello))
        while (message := await self.page.read_message()) is not None:
            if isinstance(message, str):
                self.heard.append(json.loads(message))
                self.up.set()
                continue
            if b"share" in message[:40]:
                self.share = unframe(message, "share")
            if b"orders" in message[:40]:
                self.orders += decode_orders(message)
                if self.obey:
                    self.answer()
        self.heard.append({"say": "closed"})
        self.up.set()
        self.page.close()
        await asyncio.sleep(0.02)

    def answer(self):
        node = Node(self.room.experiment, self.room.experiment.clients)
        for order in self.orders:
            self.say(encode_answers(node.obey([order])))
        self.orders = []

    def say(self, what):
        def write():
            with suppress(Exception):
                self.page.write_message(what if isinstance(what, bytes) else json.dumps(what), binary=isinstance(what, bytes))
        self.loop.add_callback(write)

    def go(self):
        with suppress(Exception):
            self.loop.add_callback(self.page.close)
        self.thread.join(10)

    def was_told(self, word, seconds=5):
        return until(lambda: next((said for said in self.heard if word in json.dumps(said)), None), seconds)


def until(thing, seconds=5):
    ends = time.monotonic() + seconds
    while not (found := thing()) and time.monotonic() < ends:
        time.sleep(0.01)
    return found


@pytest.fixture
def room():
    with Room(seats=8, share=14) as one:
        yield one


def in_background(work):
    done = {}
    thread = threading.Thread(target=lambda: done.update(history=work()), daemon=True)
    thread.start()
    return thread, done


# --- the run is the library's own ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{}, {"keep": 0.1, "bits": 4}, {"clip": 0.5, "noise": 0.0}], ids=str)
def test_twenty_pages_end_in_the_model_of_a_run_in_one_process(settings):
    with Room(seats=20, share=14, simulate=20) as room:
        history = room.train(20, **settings)
        alone = room.experiment.train(20)
        assert np.abs(history.state.server.params - alone.state.server.params).max() < 1e-6
        assert [r.bytes_up for r in history.records] == [r.bytes_up for r in alone.records]
        assert [r.clients for r in history.records] == [tuple(range(20))] * 20
        assert history.stopped == ""
        assert history.records[-1].metrics["accuracy"] > 0.5


def test_buffered_rounds_over_pages():
    with Room(seats=6, share=14, simulate=6) as room:
        history = room.train(8, buffer=2)
        assert len(history.records) == 8
        assert all(len(record.clients) >= 2 for record in history.records)


def test_the_run_goes_on_whatever_pages_do(monkeypatch):
    """Twenty pages; five are closed in the middle of a round, two send noise, three come back under their names."""
    monkeypatch.setattr(server_module, "GRACE", 0.2)
    with Room(seats=24, share=14, simulate=14) as room:
        bad = [Visitor(room, f"Noise {i}", obey=False) for i in range(2)]
        sleepy = [Visitor(room, f"Sleepy {i}", obey=False) for i in range(3)]
        thread, done = in_background(lambda: room.train(4, deadline=4.0))
        assert until(lambda: all(visitor.orders for visitor in bad + sleepy))
        for number in range(5):
            room.pupils.go(number)
        rng = random.Random(0)
        for visitor in bad:
            visitor.say(rng.randbytes(300))
        tokens = [visitor.was_told("welcome")["token"] for visitor in sleepy]
        for visitor in sleepy:
            visitor.go()
        back = [Visitor(room, "somebody else", token) for token in tokens]
        thread.join(60)
        history = done["history"]
        assert len(history.records) == 4
        assert [visitor.was_told("welcome")["name"] for visitor in back] == ["Sleepy 0", "Sleepy 1", "Sleepy 2"]
        told = " ".join(event for record in history.records for event in record.events)
        assert "is back" in told
        assert told.count("has gone") >= 5
        assert "sent what is no answer" in told
        assert len(history.records[-1].clients) >= 9 + 3                     # the nine that stayed, and those that came back
        for visitor in bad + back:
            visitor.go()


@pytest.mark.parametrize("seed", range(3))
def test_fuzzed_answers_cost_their_own_answer_only(seed):
    """Right answers with bytes changed, cut, doubled, of other tickets, of another client: nobody else's is touched."""
    rng = random.Random(seed)
    with Room(seats=5, share=14, simulate=4) as room:
        liar = Visitor(room, "Liar", obey=False)
        thread, done = in_background(lambda: room.train(4, deadline=2.0))
        while thread.is_alive():
            if not until(lambda: liar.orders or not thread.is_alive(), 10) or not liar.orders:
                break
            order = liar.orders.pop()
            right = Node(room.experiment, room.experiment.clients).obey([order])[0]
            update = bytearray(right.message)
            place = rng.randrange(len(update))
            update[place] ^= 1 << rng.randrange(8)
            for answer in rng.sample([
                Answer(order.ticket, bytes(update)), Answer(order.ticket, b""), Answer(order.ticket + 1, right.message),
                Answer(order.ticket, right.message[:-5]), Answer(order.ticket, None, "no"),
            ], 2):  # fmt: skip
                liar.say(encode_answers([answer]))
        thread.join(30)
        history = done["history"]
        assert len(history.records) == 4
        assert all(set(record.clients) >= {0, 1, 2, 3} for record in history.records)
        liar.go()


@pytest.mark.parametrize("lie", [
    {"message": None, "lost": "ValueError: no", "bug": True}, {"says": {"ledger": 1.0, "known seed": 2.0, "x": np.inf}},
    {"message": b""}, {"message": b"x" * 60_000}, {"keeps": True},
], ids=repr)  # fmt: skip
@pytest.mark.parametrize("settings", [{}, {"clip": 1.0, "noise": 1.0}], ids=repr)
def test_a_page_alone_in_its_round_cannot_end_the_run(room, lie, settings):
    """Nobody else is asked, and all that the server hears is a lie about the program or the server's own notes."""
    liar = Visitor(room, "Liar", obey=False)
    thread, done = in_background(lambda: room.train(3, deadline=0.7, **settings))
    while thread.is_alive():
        if until(lambda: liar.orders, 0.1):
            order = liar.orders.pop()
            liar.say(encode_answers([replace(Node(room.experiment, room.experiment.clients).obey([order])[0], **lie)]))
    thread.join(10)
    assert len(done["history"].records) == 3
    assert not {"x", "known seed"} & done["history"].state.server.state.keys()
    liar.go()


def test_a_late_page_costs_its_own_answer(room):
    slow, quick = Visitor(room, "Slow", obey=False), Visitor(room, "Quick")
    history = room.train(1, deadline=1.0)
    assert len(history.records[0].clients) == 1
    assert "too late" in " ".join(history.records[0].events)
    slow.answer()
    history = room.train(1, state=history.state, deadline=1.0)
    slow.go(), quick.go()


def test_an_answer_that_is_a_run_too_late_is_nobodys(room):
    slow, quick = Visitor(room, "Slow", obey=False), Visitor(room, "Quick")
    room.train(1, deadline=1.0)
    (order,) = slow.orders
    stale = Node(room.experiment, room.experiment.clients).obey([order])
    thread, done = in_background(lambda: room.train(1, deadline=2.0, epochs=5))
    assert until(lambda: len(slow.orders) == 2)
    assert slow.orders[1].ticket != order.ticket
    slow.say(encode_answers(stale))
    thread.join(10)
    assert done["history"].records[0].clients == (quick.was_told("welcome")["client"],)
    assert "was not asked" in " ".join(done["history"].records[0].events)
    slow.go(), quick.go()


def test_a_simulated_page_can_be_slow_and_gone():
    with Room(seats=4, share=14, simulate=4) as room:
        assert [seat.name for seat in room.seats.seats] == ["Pupil 1", "Pupil 2", "Pupil 3", "Pupil 4"]
        room.pupils.waits[2] = 60.0
        history = room.train(2, deadline=2.0)
        assert [record.clients for record in history.records] == [(0, 1, 3)] * 2
        room.pupils.go(2)
        assert until(lambda: room.here() == {0, 1, 3})
        assert room.train(1, deadline=20.0).records[0].clients == (0, 1, 3)


def test_the_share_of_clients_asked_is_of_those_who_are_here():
    with Room(seats=20, share=14, simulate=6) as room:
        room.pupils.waits[0] = 60.0
        history = room.train(3, fraction=0.5, deadline=2.0)
        assert all(len(record.clients) in (2, 3) for record in history.records)
        history = room.train(2, fraction=0.5, over=1.0, deadline=60.0)             # all six are asked, three are enough
        assert all(len(record.clients) >= 3 for record in history.records)
        assert history.records[-1].clock < 20


def test_a_run_goes_on_in_another_though_pages_have_put_nothing_aside():
    with Room(seats=3, share=14, simulate=3) as room:
        history = room.train(2, keep=0.1)
        history = room.train(2, state=history.state, keep=0.1)
        assert [record.clients for record in history.records] == [(0, 1, 2)] * 2
        assert history.state.server.version == 4


def test_the_wall_sees_who_comes_draws_and_measures_between_rounds(room):
    wall = Visitor.wall(room)
    page = Visitor(room, "Ada")

    def seen(**wanted):
        return until(lambda: any(wanted.items() <= seat.items() for seat in wall.heard[-1].get("seats", ())))

    assert seen(name="Ada", here=True)
    page.say({"say": "drawings", "count": 3})
    assert seen(drawings=3)
    page.say({"say": "measured", "version": 7, "right": 2, "of": 3})
    assert seen(measured=[7, 2, 3])
    views = len(wall.heard)
    for count in range(20):
        page.say({"say": "drawings", "count": count})
    assert seen(drawings=19)
    assert len(wall.heard) - views <= 4                                       # and is not told twenty times
    page.go()
    assert seen(here=False)
    wall.go()


def test_a_run_can_be_stopped_and_nothing_is_left():
    before = set(threading.enumerate())
    with Room(seats=3, share=5) as room:
        thread, done = in_background(lambda: room.train(5))                   # nobody is there
        time.sleep(0.2)
        room.stop_run()
        thread.join(5)
        assert done["history"].stopped == "stopped"
        port = room.port
    assert set(threading.enumerate()) - before <= {thread}
    with pytest.raises(OSError), socket.create_connection(("127.0.0.1", port), 1):
        pass
    room.close()                                                              # a second time does nothing


def test_settings_that_do_not_go_together_are_told_before_anybody_trains(room):
    before = dict(room.settings)
    for wrong in ({"noise": 1.0}, {"buffer": 9}):
        with pytest.raises(ValueError, match=r"set clip as well|never fills"):
            room.train(1, **wrong)
        assert room.settings == before
    for wrong in ({"lr": float("nan")}, {"rounds": 0}, {"bits": 2.5}, {"keep": True}, {"deadline": "soon"}, {"secret": 1}):
        with pytest.raises(ValueError, match=r"must be a|no setting"):
            checked(wrong)
    for wrong in ({"seats": 0}, {"seats": 2.0}, {"share": -1}, {"seats": 3, "simulate": 4}):
        with pytest.raises(ValueError, match="whole number"):
            Room(**wrong)


def test_a_buffer_that_those_who_are_here_cannot_fill_is_told():
    with Room(seats=8, share=14, simulate=2) as room:
        with pytest.raises(ValueError, match="never come from the 2 pages that are here"):
            room.train(1, buffer=3)
        assert len(room.train(2, buffer=2)) == 2


# --- who knocks ----------------------------------------------------------------------------------------------------------


def get(url, host=None):
    request = urllib.request.Request(url, headers={"Host": host} if host else {})
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.status, answer.read().decode(), dict(answer.headers)
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(), {}


def test_only_the_code_opens_and_only_this_host_is_served(room):
    home = f"http://127.0.0.1:{room.port}"
    assert get(f"{home}/WRONG2")[0] == 404
    assert get(f"{home}/")[0] == 404
    assert get(f"{home}/projector/guess")[0] == 404
    assert get(room.url, host="evil.example")[0] == 403
    assert "no room of this code" in get(f"{home}/WRONG2")[1]


def test_codes_cannot_be_guessed_by_trying(room):
    for _ in range(server_module.WRONG_CODES):
        assert room.wait("192.168.1.66") == 0
        assert not room.knows("\u00df", room.code, "192.168.1.66")
    assert room.wait("192.168.1.66") == server_module.WAIT                    # a guess takes its time now,
    assert room.knows(room.code, room.code, "192.168.1.66")                   # which keeps nobody out who knows the code,
    assert room.wait("192.168.1.67") == 0                                     # and nobody else waits
    room.wrong["192.168.1.66"] = [when - 61 for when in room.wrong["192.168.1.66"]]
    assert room.wait("192.168.1.66") == 0
    assert room.wrong == {}


def test_a_class_behind_one_address_gets_in_while_one_of_it_guesses():
    with Room(seats=30, share=5) as room:
        home, done = f"http://127.0.0.1:{room.port}", threading.Event()

        def guess():
            while not done.is_set():
                get(f"{home}/WRONG2")

        for _ in range(server_module.WRONG_CODES):
            get(f"{home}/WRONG2")
        rascal = threading.Thread(target=guess, daemon=True)
        rascal.start()
        with ThreadPoolExecutor(30) as threads:
            begun = time.monotonic()
            loaded = list(threads.map(lambda _: get(room.url)[0], range(30)))
            pages = list(threads.map(lambda number: Visitor(room, f"pupil {number}"), range(30)))
            assert loaded == [200] * 30
            assert until(lambda: len(room.here()) == 30)
            assert time.monotonic() - begun > server_module.WAIT              # the rascal has cost them so much, and no more
        done.set()
        rascal.join(10)
        assert room.train(1, deadline=30.0, epochs=1).records[0].clients == tuple(range(30))
        for page in pages:
            page.go()


def test_who_has_a_wrong_code_and_says_hello_at_once_gets_no_seat(room):
    stranger = Visitor(room, "Eve", path=f"ws://127.0.0.1:{room.port}/WRONG2/ws")
    assert "no room of this code" in stranger.was_told("sorry")["why"]
    assert stranger.was_told("closed")                                        # what it said has arrived by now
    assert room.here() == set()
    stranger.go()


def test_two_rooms_have_two_codes(room):
    with Room(seats=1, share=5) as other:
        assert (room.code, room.key) != (other.code, other.key)


def served(url):
    try:
        return get(url)[0] == 200
    except OSError:
        return False


def own_addresses():
    """Of this machine, one of each kind, as the way to the outside would begin; loopback's others where there is no way."""
    found = []
    for family, far, near in ((socket.AF_INET, "198.51.100.1", "127.0.0.2"), (socket.AF_INET6, "2001:db8::1", "::1")):
        with socket.socket(family, socket.SOCK_DGRAM) as one:
            try:
                one.connect((far, 9))                                         # sends nothing
                found.append(one.getsockname()[0])
            except OSError:
                found.append(near)
    return found


def opened_at(address):
    try:
        return Room(seats=2, share=5, simulate=1, lan=address)
    except OSError as why:
        pytest.skip(f"nobody can listen at {address} here: {why}")


@pytest.mark.parametrize("address", own_addresses())
def test_a_room_in_the_network_answers_at_its_address_and_under_its_name_alone(address):
    with opened_at(address) as room:
        name = f"[{address}]" if ":" in address else address
        assert room.url == f"http://{name}:{room.port}/{room.code}"
        assert get(room.url)[0] == 200
        assert get(room.url, host="evil.example")[0] == 403
        assert get(room.url, host=f"{name}:{room.port + 1}")[0] == 403
        assert json.dumps(room.url) in get(room.projector_url)[1]
        with pytest.raises(OSError), socket.create_connection(("127.0.0.1", room.port), 1):
            pass                                                              # it listens there and nowhere else
        page = Visitor(room, "Ada")
        assert room.train(1, deadline=10.0).records[0].clients == (0, 1)
        page.go()


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "[::]", "fe80::1%lo"])
def test_an_address_that_no_phone_can_open_is_told(address):
    with pytest.raises(ValueError, match="no phone can open"):
        Room(seats=1, share=5, lan=address)


def test_names_of_a_machine_are_written_as_browsers_write_them():
    assert server_module.listens_at("Laptop.Local") == "laptop.local"
    assert server_module.listens_at("[FD00:0:0::2]") == "fd00::2"
    assert server_module.listens_at("") == "127.0.0.1"


def test_a_page_that_says_nothing_is_sent_away(monkeypatch):
    with Room(seats=2, share=5) as room:
        kind = Visitor(room, "Kind")
        monkeypatch.setattr("fl_course.workbook.room.doors.HELLO", 0.1)       # too short for a page on a busy machine
        silent = Visitor(room, False)
        assert "has not said hello" in silent.was_told("sorry")["why"]
        room.loop.call_soon_threadsafe(room.seats.seats[0].page._or_go)       # its ten seconds are over, too
        assert room.train(1, deadline=10.0).records[0].clients == (0,)
        silent.go(), kind.go()


@pytest.mark.skipif(sys.platform != "linux", reason="one machine has many addresses of its own on Linux only")
def test_nobody_uses_up_the_connections_of_the_room():
    """One address opens as many as it can and never ends a request; others are served, and it is, too, when it lets go."""
    with Room(seats=2, share=5) as room, ExitStack() as opened:
        held = [opened.enter_context(socket.create_connection(("127.0.0.1", room.port), 5)) for _ in range(2 * 2 + 50 + 20)]
        for one in held:
            with suppress(OSError):
                one.sendall(b"GET / HTTP/1.1\r\nHost: ")

        def sent_away():
            count = 0
            for one in held:
                one.settimeout(0.001)
                try:
                    count += one.recv(1) == b""
                except TimeoutError:
                    pass
                except OSError:
                    count += 1
            return count

        assert until(lambda: sent_away() == 20)
        other = opened.enter_context(socket.socket())
        other.bind(("127.0.0.5", 0))
        other.connect(("127.0.0.1", room.port))
        other.sendall(f"GET /{room.code} HTTP/1.0\r\nHost: 127.0.0.1:{room.port}\r\n\r\n".encode())
        assert other.recv(12).endswith(b"200")
        opened.close()
        assert until(lambda: served(room.url))


def test_a_page_gets_in_from_an_address_that_hoards_connections():
    with Room(seats=2, share=5) as room, ExitStack() as opened:
        def hoard():
            for _ in range(2 * 2 + 50 + 5):
                opened.enter_context(socket.create_connection(("127.0.0.1", room.port), 5))

        hoard()
        assert get(room.url)[0] == 200
        page = Visitor(room, "Ada")
        assert page.was_told("welcome")
        hoard()                                                               # … and stays
        assert room.train(1, deadline=10.0).records[0].clients == (0,)
        page.go()


def test_another_site_cannot_open_a_connection(room):
    from tornado.httpclient import HTTPRequest

    async def knock():
        request = HTTPRequest(f"ws://127.0.0.1:{room.port}/{room.code}/ws", headers={"Origin": "http://evil.example"})
        with pytest.raises(Exception, match="403"):
            await websocket_connect(request)

    loop = IOLoop(make_current=False)
    loop.run_sync(knock)
    loop.close()


@pytest.mark.parametrize(("name", "sentence"), [
    ("x" * 10_000, f"at most {LONGEST_NAME} letters"), ("", "say a name"), ("\u202e\u200b", "say a name"), (None, "a word"),
    (7, "a word"), (["a"], "a word"), ({"a": 1}, "a word"), ("   ", "say a name"),
])  # fmt: skip
def test_a_name_that_is_none_is_told_so(room, name, sentence):
    visitor = Visitor(room, name)
    assert sentence in visitor.was_told("sorry")["why"]
    assert room.here() == set()
    assert len(" ".join(room.seats.events)) < 2000
    visitor.go()


def test_names_are_told_apart_and_escaped_by_those_who_show_them():
    seats = Seats(3)
    names = [seats.sit(name, None, object())[0].name for name in ("<b>Eve</b>", "<b>Eve</b>", "Z\u0430\u202ex")]
    assert names == ["<b>Eve</b>", "<b>Eve</b> 2", "Z\u0430x"]
    with pytest.raises(Refused, match="All 3 seats are taken"):
        seats.sit("Late", None, object())
    with pytest.raises(Refused, match="All 3 seats are taken"):
        seats.sit("Late", "\ud800", object())                                  # half a letter is nobody's token


def test_names_of_all_scripts_stay_names():
    seats = Seats(4)
    names = ("\u0928\u0947\u0939\u093e", "Jose\u0301", "\u0e1b\u0e39\u0e48", "Z" + "\u0301" * 20)        # Neha, José, Pu, a tower
    shown = [seats.sit(name, None, object())[0].name for name in names]
    assert shown == [names[0], "Jos\u00e9", names[2], "\u0179\u0301\u0301"]
    with pytest.raises(Refused, match="say a name"):
        seats.cleaned("\u0301\u0301")


@pytest.mark.parametrize("said", [
    b"", b"FLC", b"x" * 500, {"say": "dance"}, {"say": 3}, {"no": 1}, [], 7, frame("answers", []), frame("answers", 7),
    {"say": "measured", "version": -1, "right": 1, "of": 1}, {"say": "measured", "version": 0, "right": 2, "of": 1},
    {"say": "drawings", "count": 10**9},
    frame("answers", [[1, 2, 3]]), frame("model", [0, np.zeros(2, np.float32), {}]),
    frame("answers", [[5, b"", "", False, False, {}]] * 50),
    frame("answers", [[2**62, None, "x" * 5000, True, True, {"a": 1.0}]]),
], ids=lambda said: repr(said)[:40])  # fmt: skip
def test_rubbish_from_a_page_leaves_the_room_as_it_was(room, said):
    rude, kind = Visitor(room, "Rude"), Visitor(room, "Kind")
    rude.say(said)
    history = room.train(1, deadline=2.0)
    assert 1 in history.records[0].clients
    assert all(seat.drawings == 0 and seat.measured[1] <= seat.measured[2] for seat in room.seats.seats)
    rude.go(), kind.go()


def test_an_old_page_is_told_to_load_again(room):
    old = Visitor(room, "Old", page=PAGE + 1)
    assert "load it again" in old.was_told("sorry")["why"]
    old.go()


def test_too_much_at_once_and_too_much_in_one(room):
    eager = Visitor(room, "Eager")
    for _ in range(MESSAGES + 20):
        eager.say({"say": "drawings", "count": 1})
    assert "too much at once" in eager.was_told("sorry")["why"]
    fat = Visitor(room, "Fat")
    fat.say(b"x" * (room.largest + 1))
    assert fat.was_told("closed")
    other = Visitor(room, "Other")
    assert len(room.train(1, deadline=2.0).records[0].clients) == 1
    other.go()


def test_patience_fills_again(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("fl_course.workbook.room.seats.time.monotonic", lambda: now[0])
    patience = Patience(filled=0.0)
    assert sum(patience.one_more() for _ in range(2 * MESSAGES)) == MESSAGES
    now[0] = 60.0
    assert patience.one_more()


def test_a_page_that_obeys_may_always_answer():
    """More rounds, and quicker, than messages that a page may send unasked."""
    with Room(seats=2, share=5, simulate=2) as room:
        history = room.train(2 * MESSAGES, epochs=1)
        assert all(record.clients == (0, 1) for record in history.records)
        assert room.here() == {0, 1}


@pytest.mark.parametrize("settings", [
    {}, {"deadline": 0.5}, {"fraction": 0.5, "over": 0.6}, {"buffer": 3, "rounds": 20}, {"buffer": 5, "rounds": 12, "keep": 0.2},
    {"buffer": 1, "rounds": 25}, {"keep": 0.1, "deadline": 0.5},
], ids=str)  # fmt: skip
def test_a_run_can_be_made_again_in_one_process(settings, tmp_path):
    with Room(seats=6, share=14, simulate=6) as room:
        room.pupils.waits |= {0: 0.02, 1: 0.03, 4: 0.1, 5: 0.8}
        history = room.train(**{"rounds": 4} | settings)
        repeated = again(room.experiment, history)
        assert np.array_equal(repeated.state.server.params, history.state.server.params)
        assert [sorted(r.clients) for r in repeated.records] == [sorted(r.clients) for r in history.records]
        history.to_json(tmp_path / "room.json")
        again(room.experiment, History.from_json(tmp_path / "room.json"))
        with pytest.raises(ValueError, match=r"another one|last model|made again"):
            again(replace(room.experiment, seed=5), history)


def test_what_cannot_be_made_again_is_told():
    with Room(seats=3, share=14, simulate=3) as room:
        history = room.train(1, clip=1.0, noise=1.0)
        with pytest.raises(ValueError, match="nobody can predict"):
            again(room.experiment, history)
        history = room.train(2, clip=0.0, noise=0.0)
        wrong = replace(history.records[1], clients=history.records[1].clients[:2], staleness=(0, 0))
        with pytest.raises(ValueError, match=r"another one|last model"):
            again(room.experiment, replace(history, records=[history.records[0], wrong]))
        with pytest.raises(ValueError, match="nobody was heard"):
            again(room.experiment, replace(history, records=[]))


def test_the_same_page_in_two_windows_is_one_client(room):
    first = Visitor(room, "Ada")
    token = first.was_told("welcome")["token"]
    second = Visitor(room, "Ada", token)
    assert "another window" in first.was_told("sorry")["why"]
    assert second.was_told("welcome")["client"] == 0
    assert room.here() == {0}
    second.go(), first.go()


def test_answers_of_another_seat_are_not_taken(room):
    """A page that answers its neighbour's order changes nothing."""
    thief, honest = Visitor(room, "Thief", obey=False), Visitor(room, "Honest", obey=False)
    thread, done = in_background(lambda: room.train(1, deadline=3.0))
    assert until(lambda: thief.orders and honest.orders)
    node = Node(room.experiment, room.experiment.clients)
    stolen = node.obey(honest.orders)[0]
    thief.say(encode_answers([stolen]))
    time.sleep(0.2)
    honest.answer()
    thread.join(10)
    assert done["history"].records[0].clients == (1,)
    assert "was not asked" in " ".join(done["history"].records[0].events)
    thief.go(), honest.go()


def test_a_page_is_handed_its_own_examples_and_no_others(room):
    visitor = Visitor(room, "Ada")
    visitor.was_told("welcome")
    assert until(lambda: visitor.share)
    count, pixels, labels = visitor.share
    x, y = room.data.examples(0)
    assert np.array_equal(pixels.reshape(count, 64), x.reshape(len(x), -1))
    assert labels == y.tolist()
    visitor.go()


def test_what_the_server_has_seen_of_a_client_is_its_update_and_a_mixture_of_its_examples(room):
    page = Visitor(room, "Ada")
    room.train(1, epochs=1, batch=100, deadline=5.0)
    seen = room.seen(0)
    assert np.shape(seen["moves"]) == np.shape(seen["read"]) == (8, 64)
    x = room.data.examples(0)[0].reshape(-1, 64)
    weights = np.linalg.lstsq(x.T.astype(float), np.array(seen["read"]).T, rcond=None)[0]
    assert np.abs(x.T @ weights - np.array(seen["read"]).T).max() < 1e-2      # of its own examples it is made
    assert room.seen(5) == {"client": 5, "moves": [], "read": []}
    page.go()


def test_the_projector_starts_stops_and_is_told_what_is_wrong(room):
    wall = Visitor.wall(room)
    page = Visitor(room, "Ada")
    assert wall.was_told("view")["count"] == 8
    wall.say({"say": "start", "settings": {"noise": 1.0}})
    assert "set clip" in wall.was_told("sorry")["why"]
    wall.say({"say": "start", "settings": {"rounds": 3, "deadline": 5.0}})
    assert until(lambda: room.history is not None and len(room.history.records) == 3)
    assert until(lambda: wall.heard[-1]["say"] == "view" and len(wall.heard[-1]["rounds"]) == 3)
    wall.say({"say": "start", "settings": {"rounds": 1000, "deadline": 5.0}})
    assert until(lambda: room.running.is_alive())
    wall.say({"say": "stop"})
    assert until(lambda: not room.running.is_alive())
    page.go(), wall.go()


def test_there_is_one_run_at_a_time(room):
    wall, page = Visitor.wall(room), Visitor(room, "Ada")
    wall.say({"say": "start", "settings": {"rounds": 1000, "deadline": 5.0}})
    assert until(lambda: room.history is not None and room.history.records)
    before = room.settings, room.experiment, room.earlier
    with pytest.raises(FederatedError, match="a run is under way"):
        room.train(1)
    assert (room.settings, room.experiment, room.earlier) == before
    wall.say({"say": "start"})
    assert "a run is under way" in wall.was_told("sorry")["why"]
    assert len(room.runs) == 1
    room.stop_run()
    assert until(lambda: not room.turn.locked())
    assert len(room.train(2, deadline=5.0)) == 2
    assert len(room.runs) == 2
    page.go(), wall.go()


def test_a_run_that_ends_as_nobody_foresaw_gives_its_turn_back_and_is_told(room, monkeypatch):
    wall, page = Visitor.wall(room), Visitor(room, "Ada")
    seen = []
    monkeypatch.setattr(threading, "excepthook", seen.append)
    with monkeypatch.context() as broken:
        broken.setattr(room, "send", lambda orders: 1 / 0)
        wall.say({"say": "start", "settings": {"rounds": 3}})
        assert "division by zero" in wall.was_told("The run has ended")["why"]
        assert until(lambda: seen)                                            # the terminal has where it was
        assert until(lambda: wall.heard[-1]["say"] == "view" and not wall.heard[-1]["running"])
        with pytest.raises(ZeroDivisionError):
            room.train(1)
    assert len(room.train(1, deadline=5.0)) == 1
    page.go(), wall.go()


def test_a_closed_room_trains_nobody():
    with Room(seats=2, share=5, simulate=2) as room:
        room.train(1)
    with pytest.raises(FederatedError, match="this room is closed"):
        room.train(1)


def test_the_wall_is_told_each_round_once_and_a_second_wall_all_of_them(room):
    walls = [Visitor.wall(room)]
    page = Visitor(room, "Ada")
    for run, rounds in ((1, 12), (2, 5)):
        room.train(rounds, deadline=5.0, epochs=1)
        walls.append(Visitor.wall(room))
        for wall in walls:
            def told(wall=wall, run=run):
                return [r["version"] for said in wall.heard if said.get("run") == run for r in said["rounds"]]
            assert until(lambda told=told, rounds=rounds: len(told()) >= rounds)
            assert told() == list(range(1, rounds + 1))
    page.go()
    for wall in walls:
        wall.go()


def test_a_run_that_begins_while_the_wall_is_told_loses_no_round(room):
    page = Visitor(room, "Ada")
    ended = room.train(3, deadline=5.0)

    class Begins(list):
        def __iter__(self):
            room.runs.append(replace(ended, records=[]))
            return list.__iter__(self)

    seats, room.seats.seats = room.seats.seats, Begins(room.seats.seats)
    now = room._view(1, 3)
    room.seats.seats = seats
    room.runs[1].records.append(ended.records[0])
    told = room._view(now["run"], now["known"] + len(now["rounds"]))["rounds"]
    assert [one["version"] for one in told] == [1]
    page.go()


def test_who_asks_for_a_client_is_answered_and_no_other_wall(room):
    walls = [Visitor.wall(room) for _ in range(2)]
    page = Visitor(room, "Ada")
    room.train(1, deadline=5.0)
    walls[0].say({"say": "look", "client": 0})
    assert walls[0].was_told("seen")["client"] == 0
    assert not walls[1].was_told('"seen"', seconds=0.3)
    update = decode_update(room.last[0])
    for rubbish in (np.full_like(update.delta, np.nan), np.full_like(update.delta, np.inf), update.delta[:7]):
        room.last[0] = encode_update(replace(update, delta=rubbish))
        walls[0].heard.clear()
        walls[0].say({"say": "look", "client": 0})
        assert "cannot be read" in walls[0].was_told("sorry")["why"]
    page.go(), walls[0].go(), walls[1].go()
