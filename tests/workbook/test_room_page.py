"""The room's two pages in a real browser: a page that trains ends in Python's model, drawings stay, the wall shows and starts."""

import json
import socket
import time

import numpy as np
import pytest
from browsing import chromium

from fl_course import digits
from fl_course.workbook.room.pages import HERE, client_page, projector_page
from fl_course.workbook.room.room import Room

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def browser():
    with chromium() as one:
        yield one


def arrive(browser, room, name, **context):
    place = browser.new_context(viewport={"width": 360, "height": 740}, **context)
    page = place.new_page()
    page.errors, page.asked = [], []
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.on("request", lambda request: page.asked.append(request.url))
    page.goto(room.url)
    page.fill("#name", name)
    page.click("text=Come in")
    page.wait_for_selector("#in:not([hidden])")
    return page


@pytest.mark.parametrize("settings", [{}, {"keep": 0.2, "bits": 1}, {"clip": 0.3}], ids=str)
def test_pages_end_in_pythons_model(browser, settings):
    with Room(seats=3, share=14) as room:
        pages = [arrive(browser, room, name) for name in ("Ada", "Ben", "Cy")]
        history = room.train(5, deadline=30.0, **settings)
        alone = room.experiment.train(5)
        assert [r.clients for r in history.records] == [(0, 1, 2)] * 5
        assert np.abs(history.state.server.params - alone.state.server.params).max() < 1e-6
        assert [r.bytes_up for r in history.records] == [r.bytes_up for r in alone.records]
        for page in pages:
            assert page.errors == []
            assert all(url.startswith((room.url, room.url.replace("http", "ws"), "data:", "blob:")) for url in page.asked)
            page.context.close()


def until(thing, seconds=5):
    ends = time.monotonic() + seconds
    while not (found := thing()) and time.monotonic() < ends:
        time.sleep(0.02)
    return found


def draw(page):
    box = page.locator("#pad").bounding_box()
    points = [(0.3, 0.2), (0.7, 0.2), (0.45, 0.8)]                            # a seven
    page.mouse.move(box["x"] + points[0][0] * box["width"], box["y"] + points[0][1] * box["height"])
    page.mouse.down()
    for px, py in points[1:]:
        page.mouse.move(box["x"] + px * box["width"], box["y"] + py * box["height"], steps=8)
    page.mouse.up()


def test_a_drawing_is_kept_in_the_page_and_learned_from(browser):
    with Room(seats=2, share=10, simulate=1) as room:
        page = arrive(browser, room, "<img src=x onerror=alert(1)>")
        page.click("#keep")
        assert "draw a digit first" in page.text_content("#voice")
        draw(page)
        page.click("#keep")
        assert "which digit" in page.text_content("#voice")
        page.click("#digits button:nth-child(8)")
        page.click("#keep")
        assert "stays in this page" in page.text_content("#voice")
        wall = page.context.new_page()
        wall.goto(room.projector_url)
        wall.wait_for_selector("#seats tr:nth-child(2)")
        room.train(2, deadline=20.0)
        wall.wait_for_selector("#numbers:has-text('of the 1 drawn here')")             # though it was counted after the last step
        seat = next(seat for seat in room.seats.seats if seat.drawings)
        until(lambda: seat.measured[2] == 1)
        assert (seat.drawings, seat.measured[2], seat.asked, seat.answered) == (1, 1, 2, 2)
        page.reload()                                                          # the same page is the same client
        page.wait_for_selector("#in:not([hidden])")
        assert f"client {seat.client}" in page.text_content("#voice")
        assert page.text_content("#facts tr:first-child td:last-child") == "1"             # … with the same drawing
        room.train(1, deadline=20.0)
        until(lambda: seat.measured[0] == 1)
        assert (seat.drawings, seat.measured[2]) == (1, 1)
        room.seats.seats[seat.client].token = "of somebody else"               # its seat is no more; what it drew is
        seat.drawings = 0
        page.reload()
        page.wait_for_selector(".sorry:has-text('say a name')")
        page.fill("#name", "Ada")
        room.seats.seats[seat.client].page = None
        page.click("text=Come in")
        page.wait_for_selector("#in:not([hidden])")
        assert until(lambda: room.seats.seats[seat.client].drawings == 1)
        assert page.errors == []
        page.context.close()


def test_a_phone_in_the_network_draws_with_a_finger(browser):
    """At an address of this machine that others reach, 360 points wide: nothing is wider, nothing is too small for a finger,
    and a finger on the pad draws and does not scroll."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        try:
            one.connect(("198.51.100.1", 9))                                  # sends nothing
            address = one.getsockname()[0]
        except OSError:
            address = "127.0.0.2"
    try:
        room = Room(seats=2, share=10, simulate=1, lan=address)
    except OSError as why:
        pytest.skip(f"nobody can listen at {address} here: {why}")
    with room:
        page = arrive(browser, room, "W" * 30, has_touch=True, is_mobile=True, device_scale_factor=2)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        boxes = [button.bounding_box() for button in page.locator("#in button").all()]
        assert len(boxes) == 12
        assert all(one["width"] >= 44 and one["height"] >= 44 for one in boxes)
        box, finger = page.locator("#pad").bounding_box(), page.context.new_cdp_session(page)
        way = [("touchStart", [(0.3, 0.3)]), ("touchMove", [(0.7, 0.3)]), ("touchMove", [(0.5, 0.9)]), ("touchEnd", [])]
        for kind, spots in way:
            points = [{"x": box["x"] + x * box["width"], "y": box["y"] + y * box["height"]} for x, y in spots]
            finger.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
        assert page.evaluate("window.scrollY") == 0
        page.click("#digits button:nth-child(8)")
        page.click("#keep")
        until(lambda: "Welcome" not in page.text_content("#voice"))
        assert "stays in this page" in page.text_content("#voice")
        assert until(lambda: any(seat.drawings for seat in room.seats.seats))
        assert room.train(1, deadline=20.0).records[0].clients == (0, 1)
        wall = page.context.new_page()
        wall.goto(room.projector_url)
        wall.wait_for_selector("#who option:nth-child(2)", state="attached")
        wall.select_option("#who", label="W" * 30)
        assert wall.evaluate("document.documentElement.scrollWidth") <= 360
        assert page.errors == []
        assert all(url.startswith((room.url, room.url.replace("http", "ws"), "data:", "blob:")) for url in page.asked)
        page.context.close()


def test_a_drawn_digit_looks_like_those_of_the_data_set(browser):
    """Bitmaps made from the data's own 8 × 8 digits come back as what they were, but for the frame that is cut to fit."""
    page = browser.new_page()
    page.set_content(f"<script>{(HERE / 'draw.js').read_text(encoding='utf-8')}</script>")
    x = digits().x[:40].reshape(-1, 8, 8)
    gaps = []
    for image in x:
        ink = np.kron(image > 0.5, np.ones((32, 32))).astype(int)
        back = np.array(page.evaluate("ink => Array.from(toDigit(ink, 256))", ink.ravel().tolist())).reshape(8, 8)
        assert 0 <= back.min() <= back.max() <= 1
        assert back.sum() > 0
        rows, columns = np.nonzero(image > 0.5)
        if max(np.ptp(rows), np.ptp(columns)) == 7:                            # it fills the frame already
            shift = (rows.max() + rows.min() - 7, columns.max() + columns.min() - 7)
            if shift == (0, 0):
                gaps.append(np.abs(back - (image > 0.5)).max())
    assert gaps
    assert max(gaps) < 1e-9
    assert page.evaluate("() => toDigit(new Uint8Array(64 * 64), 64)") is None
    page.close()


@pytest.mark.parametrize("dark", ["light", "dark"])
def test_the_wall_shows_the_room_and_starts_a_run(browser, dark):
    with Room(seats=4, share=10, simulate=3) as room:
        place = browser.new_context(color_scheme=dark)
        wall = place.new_page()
        errors = []
        wall.on("pageerror", lambda error: errors.append(str(error)))
        wall.goto(room.projector_url)
        wall.wait_for_selector("#seats tr:nth-child(3)")
        assert room.url in wall.text_content("#address")
        wall.fill("input[name=rounds]", "4")
        wall.click("#start")
        wall.wait_for_selector("#numbers:has-text('After 4 steps')")
        wall.wait_for_selector("#moves canvas")
        assert wall.locator("#read canvas").count() == 8
        wall.fill("input[name=keep]", "7")
        wall.wait_for_selector("#start:enabled")
        wall.click("#start")
        wall.wait_for_selector("#voice:has-text('keep must be')")
        axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
        serious = [v["id"] for v in axe.run(wall).response["violations"] if v["impact"] in ("serious", "critical")]
        assert serious == []
        for width in (360, 1280):
            wall.set_viewport_size({"width": width, "height": 800})
            assert wall.evaluate("document.documentElement.scrollWidth") <= width
        assert errors == []
        place.close()


def test_the_pages_are_small_and_ask_for_nothing():
    for text in (client_page(), projector_page("http://127.0.0.1:1/ABC")):
        assert len(text) < 300_000
        assert json.dumps("http://cdn")[1:-1] not in text
        assert "<script src" not in text
        assert "/*CSS*/" not in text
        assert "/*JS*/" not in text
