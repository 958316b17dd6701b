"""The theatre: what it shows is what the protocol did, for every drop-out and every lie; and the page can be stepped through."""

from __future__ import annotations

import base64
import json
import re
import shutil

import numpy as np
import pytest

from fl_course.secure_aggregation import STAGES
from fl_course.workbook.lesson import canvas
from fl_course.workbook.widgets.cells import VIEW
from fl_course.workbook.widgets.lies import LIES
from fl_course.workbook.widgets.theatre import (
    CAST,
    INPUTS,
    LATER,
    THRESHOLD,
    WHY,
    Theatre,
    draw_round,
    play,
    summary,
)

KINDS = ["advertise", "roster", "shares", "inbox", "masked", "survivors", "consistent", "unmask", "unmasked"]


def client(scene, name):
    return next(c for c in scene["clients"] if c["name"] == name)


def events(scene):
    return [*scene["before"], *(event for step in scene["steps"] for event in step["events"])]


def test_an_honest_round_has_nine_kinds_of_messages_in_order():
    scene = play()
    assert list(dict.fromkeys(step["kind"] for step in scene["steps"])) == KINDS == list(WHY)
    assert len(scene["steps"]) == 9 * len(CAST)
    for step in scene["steps"]:
        assert "server" in (step["from"], step["to"])
        assert step["first"].startswith("46 4c 43 01")             # every message begins with FLC and the format
        assert step["bytes"] > 20
    assert scene["sum"] == np.sum(list(INPUTS.values()), axis=0, dtype=int).tolist() == scene["truth"]


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("name", CAST)
def test_any_one_client_may_vanish_at_any_stage(name, stage):
    scene = play({name: stage})
    inside = [c for c in CAST if c != name or stage in ("consistency", "unmask")]
    assert scene["sum"] == np.sum([INPUTS[c] for c in inside], axis=0, dtype=int).tolist()
    assert any(f"client '{name}' vanished before {stage}" in event for event in events(scene))
    gone = client(scene, name)
    after = scene["steps"][gone["gone"]:]
    assert gone["gone"] >= 0
    assert not [step for step in after if step["from"] == name]
    seed, key = "its self-mask seed" in gone["asked"], "its mask key" in gone["asked"]
    assert (seed, key) == (stage in ("consistency", "unmask"), stage == "upload")
    assert (gone["seen"] is None) == (name not in inside)


def test_the_server_holds_other_numbers_than_the_truth_from_the_upload_on():
    scene = play()
    for c in scene["clients"]:
        upload = scene["steps"][c["uploaded"]]
        assert (upload["kind"], upload["from"]) == ("masked", c["name"])
        assert c["seen"] != c["truth"]
        assert all(0 <= value < 2**16 for value in c["seen"])
        assert c["truth"] == INPUTS[c["name"]].tolist()


def test_too_few_answers_abort_and_open_nothing():
    for drops in ({"A": "upload", "B": "upload"}, {"A": "advertise", "E": "unmask"}, dict.fromkeys(CAST, "advertise")):
        scene = play(drops)
        assert scene["sum"] is scene["truth"] is None
        assert "aborted" in scene["outcome"]
        assert f"fewer than the threshold {THRESHOLD}" in scene["outcome"]


CHECKS = {                                     # lie -> the message that lies, and the check of the protocol that stops it
    "both": ("unmask", r"listed both as survivors and as dropped"),
    "sets": ("survivors", r"signed another set of survivors|survivors are fewer than|signatures of neighbours are fewer"),
    "key": ("roster", r"are not signed by"),
    "share": ("inbox", r"do not decrypt"),
    "model": (None, r"do not decrypt: .* another model"),
    "client": ("unmasked", r"do not open the seed"),
}


@pytest.mark.parametrize(("lie", "check", "aborts"), [
    ("both", "listed both as survivors and as dropped", True),
    ("sets", "signed another set of survivors: the server tells different stories", True),
    ("key", "not signed by 'A'", True),
    ("share", "do not decrypt", False),
    ("model", "another model", True),
])  # fmt: skip
def test_each_lie_of_the_server_meets_the_check_that_stops_it(lie, check, aborts):
    scene = play(lie=lie)
    assert any(check in event for event in events(scene))
    assert (scene["sum"] is None) == aborts
    assert scene["sum"] == scene["truth"]
    assert not any("ignored" in event for event in events(scene))          # a lying server does not catch itself


@pytest.mark.parametrize("lie", [lie for lie in LIES if lie])
@pytest.mark.parametrize("drops", [{}, *[{name: stage} for name in CAST for stage in STAGES],
                                   {"A": "upload", "B": "upload"}, {"C": "unmask", "D": "consistency"},
                                   dict.fromkeys(CAST, "share")], ids=str)  # fmt: skip
def test_every_lie_is_possible_where_it_is_offered_and_caught_by_those_who_catch_it(drops, lie):
    scene = play(drops, lie)
    _, text, reason = next(row for row in scene["lies"] if row[0] == lie)
    assert "{" not in text
    if reason:
        assert (reason, scene["lie"]) == (LATER, None)
        assert scene["outcome"].endswith(f"The lie was not told: {LATER}.")
        assert scene["steps"] == play(drops)["steps"]
        assert len(drops) > 1                               # one drop-out leaves room for every lie
        return
    kind, check = CHECKS[lie]
    told = [step for step in scene["steps"] if step["lie"]]
    assert {step["kind"] for step in told} == ({kind} if kind else set()) or lie == "sets"
    assert scene["lie"]["at"] == (scene["steps"].index(told[0]) if told else -1)
    assert scene["lie"]["text"] == text
    assert scene["lie"]["caught"]
    for who, step, why in scene["lie"]["caught"]:
        assert re.search(check, why), why
        assert step >= scene["lie"]["at"]
        if lie == "client":
            assert who == "the server"
        else:
            name = who.removeprefix("client ")
            assert scene["steps"][step]["to"] == name       # shown at the message that the client refused
            assert any(f"client '{name}' left: {why}" == event for event in scene["steps"][step]["events"])
    assert scene["sum"] is None or scene["sum"] == scene["truth"]
    assert not any("ignored" in event for event in events(scene))


def test_an_altered_share_is_refused_where_it_arrives_and_the_victim_is_gone_from_there():
    scene = play(lie="share")
    (at,) = [i for i, step in enumerate(scene["steps"]) if step["lie"]]
    step = scene["steps"][at]
    assert (step["kind"], step["to"], step["left"][:22]) == ("inbox", "B", "the shares from 'A' do")
    assert (client(scene, "B")["gone"], client(scene, "B")["left"]) == (at, True)


def test_a_lying_client_is_named_and_the_sum_is_right():
    scene = play(lie="client")
    assert "Shares of B were wrong" in scene["outcome"]
    assert scene["sum"] == scene["truth"] == play()["sum"]


def test_every_play_is_small_plain_data_and_always_the_same():
    for lie in LIES:
        scene = play({"D": "unmask"}, lie)
        assert json.loads(json.dumps(scene)) == scene == play({"D": "unmask"}, lie)
        assert len(json.dumps(scene)) < 20_000
        assert summary(scene).startswith(f"A round of secure aggregation: {len(scene['steps'])} messages")


def test_what_cannot_be_played_is_refused():
    with pytest.raises(ValueError, match="lie must be one of"):
        play(lie="nonsense")
    with pytest.raises(ValueError, match="drops: 'Z'"):
        play({"Z": "upload"})


def test_the_picture_has_an_arrow_a_message_and_a_cross_a_drop_out():
    scene = play({"B": "upload", "C": "unmask"})
    _, (ax,) = canvas()
    draw_round(ax, scene)
    assert len(ax.texts) == len(scene["steps"])
    assert sum(line.get_marker() == "x" for line in ax.lines) == 2
    draw_round(canvas()[1][0], play(dict.fromkeys(CAST, "advertise")))        # nobody ever says anything


# --- the widget ------------------------------------------------------------------------------------------------------------


def test_the_widget_stores_a_picture_and_a_text_for_readers_without_a_kernel():
    (first, metadata), (second, _) = Theatre({"B": "upload"})._repr_mimebundle_(), Theatre({"B": "upload"})._repr_mimebundle_()
    assert first.keys() == {"text/plain", "image/png", VIEW}
    assert first["image/png"] == second["image/png"]
    assert base64.b64decode(first["image/png"]).startswith(b"\x89PNG")
    assert "B vanishes" in first["text/plain"] == metadata["image/png"]["alt"]
    assert len(first["image/png"]) < 60_000


def test_the_page_can_ask_for_another_play_and_nonsense_changes_nothing():
    theatre = Theatre()
    theatre._heard(None, {"do": "play", "drops": {"C": "share"}, "lie": "", "move": 7}, [])
    assert theatre.scene == {**play({"C": "share"}), "move": 7}
    assert "C vanishes" in repr(theatre)
    for nonsense in ({}, {"drops": {"Z": "upload"}, "lie": "", "move": 8}, {"drops": 3, "lie": "", "move": 9}):
        theatre._heard(None, nonsense, [])
        assert "cannot be played" in theatre.scene["outcome"]
        assert theatre.scene["steps"] == play({"C": "share"})["steps"]


def test_the_page_requests_nothing_from_anywhere():
    for text in (Theatre._esm, Theatre._css):
        text = text.replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?:|import\s|fetch\(|url\((?!#)|@import", text)


@pytest.mark.browser
def test_the_page_steps_through_a_round():
    """A model of three functions stands for the kernel; the page is the real one, in a real browser."""
    browser_api = pytest.importorskip("playwright.sync_api", reason="no playwright here (pip install -e .[browser])")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")
    theatre, sent = Theatre({"B": "upload"}), []
    script = Theatre._esm.replace("export default", "window.page =").replace("export ", "")
    script += """
      const state = STATE, heard = {};
      window.model = { get: (name) => state[name], send: (message) => window.sent(JSON.stringify(message)),
        on: (name, act) => { heard[name] = act; }, off: () => {} };
      window.answer = (scene) => { state.scene = scene; heard["change:scene"](); };
      window.page.render({ model: window.model, el: document.body });
    """.replace("STATE", json.dumps({"spec": theatre.spec, "scene": theatre.scene}))
    with browser_api.sync_playwright() as play_:
        browser = play_.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page, errors = browser.new_page(), []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.set_content("<style>" + theatre._css + "</style><body></body>")
        page.expose_function("sent", lambda text: sent.append(json.loads(text)))
        page.evaluate(f"(() => {{ {script} }})()")
        said, past = page.locator(".flt-words"), page.locator(".flt-events")
        assert "Message 1 of 40, stage advertise: A to server" in said.inner_text()
        page.get_by_role("button", name="next ▶").click()
        assert "Message 2 of 40, stage advertise: B to server" in said.inner_text()
        assert page.get_by_role("status").inner_text() == said.inner_text()            # the one voice says what was asked for
        assert page.locator("[aria-live], [role=alert], [role=status], output").count() == 1
        page.get_by_role("slider", name="message").focus()
        page.keyboard.press("ArrowRight")
        assert "Message 3 of 40" in said.inner_text()
        for _ in range(2):
            page.get_by_role("button", name="next stage").click()
        assert "stage upload: A to server, masked" in said.inner_text()
        cells = page.locator("tbody tr").nth(0).locator("td")
        assert cells.nth(0).inner_text() == "12 250 3 77"
        assert cells.nth(1).inner_text() == " ".join(map(str, client(theatre.scene, "A")["seen"]))
        page.get_by_role("button", name="end").click()
        assert "sum of A, C, D, E" in said.inner_text()
        assert "vanished before upload" in past.inner_text()                           # and stays to the end
        page.get_by_label("client B").select_option("")
        page.get_by_label("who lies?").select_option("share")
        assert sent[-1] == {"do": "play", "drops": {}, "lie": "share", "move": 2}
        page.evaluate("answer(" + json.dumps({**play(lie="share"), "move": 2}) + ")")
        told = page.locator(".flt-told")
        assert "Caught by B at message 17: the shares from 'A' do not decrypt" in told.inner_text()
        assert "message 17: client 'B' left" in past.inner_text()
        page.get_by_role("slider", name="message").focus()
        page.keyboard.press("Home")
        assert "That comes at message 17" in told.inner_text()
        page.evaluate("answer(" + json.dumps({**play({"A": "upload", "B": "upload"}, "sets"), "move": 3}) + ")")
        option = page.locator("option[value=sets]")
        assert option.is_disabled()
        assert option.inner_text().endswith("this round ends before it comes to that")
        assert not told.is_visible()
        browser.close()
    assert errors == []
