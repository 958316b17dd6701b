"""The page side of the widgets in a real Chromium, without Jupyter: the real module, and the kernel's side in this process.

What every host shares is tried here, quickly; what differs between hosts is in test_browser.py.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from fl_course import Coordinator, LocalSGD, Shards, Synchronous, digits, logistic
from fl_course.workbook.widgets import (
    BarChart,
    Button,
    Chart,
    Choice,
    Explorer,
    ImageChart,
    PlaneChart,
    Point,
    Slider,
    Switch,
    TimelineChart,
)
from fl_course.workbook.widgets.controls import show
from fl_course.workbook.widgets.dashboard import Dashboard
from fl_course.workbook.widgets.theatre import Theatre

pytestmark = pytest.mark.browser
playwright = pytest.importorskip("playwright.sync_api", reason="no playwright here (pip install -e .[browser])")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
if CHROMIUM is None:
    pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)", allow_module_level=True)

# A host as small as can be. Like anywidget it evaluates the module once a widget, so no module-wide counter is unique.
HOST = """() => {
  window.models = {};
  window.mount = async (key, state, module) => {
    const { default: widget } = await import(URL.createObjectURL(new Blob([module], { type: "text/javascript" })));
    const heard = {}, tell = (name, ...given) => (heard[name] ?? []).forEach((act) => act(...given));
    window.models[key] = { state, tell, set: (name, value) => { state[name] = value; tell("change:" + name); } };
    const model = { get: (name) => state[name], on: (name, act) => (heard[name] ??= []).push(act), off: () => {},
      send: (message) => window.kernel(key, JSON.stringify(message)) };
    const el = document.querySelector("main").appendChild(document.createElement("div"));
    window.models[key].end = widget.render({ model, el });
  };
}"""


class Page:
    """Some widgets on one page; `answer` carries what the kernel's side has to say."""

    def __init__(self, browser, *widgets, scheme: str = "light", width: int = 1200, style: str = "") -> None:
        self.widgets, self.errors, self.sent = dict(enumerate(widgets)), [], []
        self.page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.page.set_default_timeout(10_000)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.expose_function("kernel", lambda key, text: self.sent.append((key, json.loads(text))))
        sheets = "".join(dict.fromkeys(widget._css for widget in widgets))
        head = f"<head><title>Widgets</title><style>{sheets}{style}</style></head>"
        self.page.set_content(f"<!DOCTYPE html><html lang='en'>{head}<body><main><h1>Widgets</h1></main></body></html>")
        self.page.evaluate(HOST)
        for key, widget in self.widgets.items():
            state = {name: getattr(widget, name) for name in ("spec", "frame", "scene") if hasattr(widget, name)}
            self.page.evaluate("([key, state, module]) => mount(key, state, module)", [key, state, widget._esm])

    def answer(self, wait: float = 10) -> list[dict]:
        """Let the kernel hear what the page has sent, and the page what came of it; returns the messages."""
        self.page.wait_for_timeout(30)
        sent, self.sent = self.sent, []
        for key, message in sent:
            widget = self.widgets[key]
            widget._heard(None, message, [])
            if hasattr(widget, "live"):
                widget.live.wait(wait)
        for key, widget in self.widgets.items():
            for name in ("frame", "scene"):
                if hasattr(widget, name):
                    self.page.evaluate("([key, name, value]) => models[key].set(name, value)", [key, name, getattr(widget, name)])
        self.page.wait_for_timeout(60)
        return [message for _, message in sent]

    def close(self) -> None:
        self.page.close()
        assert not self.errors, self.errors


@pytest.fixture(scope="module")
def chromium():
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, headless=True, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


IMAGE = np.arange(12).reshape(3, 4) / 11
PLANE = PlaneChart("plane", "u", "v", lines=("walk",), marks=("optimum", "rest"), letters=("A",), outlines=("valley",))


def experiment(rate, rule, fast, again):
    turn = np.linspace(0, 2 * np.pi, 30)
    yield Point(images={"the image": IMAGE, "a guess": 1 - IMAGE},
                marks={"optimum": (0.2, 0.2), "rest": (0.4, 0), "A": (-0.5, 0.5)},
                outlines={"valley": [np.stack([np.cos(turn), np.sin(turn)], 1) * size for size in (0.3, 0.6)]})
    for number in range(1, 11):
        yield Point({"loss": (number, rate / number), "gap": (number, number), "walk": (number / 20, 0.1 * rate)},
                    {"shares": [("first", rate), ("second", 1.0)]}, f"round {number}")


def explorer(title="One", **more) -> Explorer:
    controls = [Slider("rate", 1, 9, label="learning rate"), Choice("rule", ["mean", "median"], label="rule"),
                Switch("fast", label="fast"), Button("again", label="Again")]
    charts = [Chart("how it learns", "round", "value", lines=("loss", "gap")), BarChart("shares", "share"),
              ImageChart("pictures", ("the image", "a guess")), PLANE]
    return Explorer(experiment, controls, charts, title=title, **more)


def axe(page, within: str = "body") -> list[str]:
    """Serious findings of axe-core inside a node, as sentences; a skip where it is not installed."""
    tool = pytest.importorskip("axe_playwright_python.sync_playwright", reason="no axe here (pip install -e .[browser])")
    found = tool.Axe().run(page, within).response["violations"]
    return [f"{v['id']}: {v['help']}: {[node['html'][:150] for node in v['nodes'][:3]]}" for v in found
            if v["impact"] in ("serious", "critical")]


def test_two_explorers_and_a_theatre_on_one_page_each_have_their_labels(chromium):
    """Each module is evaluated anew: ids that count from zero meet, and the second widget has no labels."""
    view = Page(chromium, explorer("One"), explorer("Two"), Theatre(), Theatre())
    for section in view.page.locator("section.flx").all():
        for control in section.locator("input, select").all():
            assert control.evaluate("e => e.labels.length") == 1
            assert control.evaluate("(e) => e.labels[0].closest('section') === e.closest('section')")
    ids = view.page.evaluate("[...document.querySelectorAll('[id]')].map((e) => e.id)")
    assert len(set(ids)) == len(ids)
    assert view.page.get_by_label("learning rate").count() == 2
    view.page.locator("section.flx").nth(1).get_by_text("fast", exact=True).click()    # the label operates its own switch
    assert [key for key, _ in view.sent] == [1]
    view.answer()
    assert view.widgets[0].live.values()["fast"] is False
    assert view.widgets[1].live.values()["fast"] is True
    view.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious_in_any_widget(chromium, scheme):
    view = Page(chromium, explorer(), Theatre({"B": "upload"}, "sets"), scheme=scheme)
    view.page.get_by_role("button", name="Pin").click()
    view.answer()
    view.page.get_by_role("button", name="end").click()
    assert axe(view.page) == []
    view.close()


def colours(page, within: str) -> list[tuple[str, str]]:
    """(text colour, nearest background that is not transparent) of every node with text of its own."""
    return page.evaluate("""(within) => [...document.querySelectorAll(within + ' *')].filter((e) => e.checkVisibility()
        && !e.closest('svg') && [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim())).map((e) => {
      let back = e;
      while (back && getComputedStyle(back).backgroundColor === 'rgba(0, 0, 0, 0)') back = back.parentElement;
      return [getComputedStyle(e).color, back ? getComputedStyle(back).backgroundColor : 'rgb(255, 255, 255)'];
    })""", within)


def contrast(a: str, b: str) -> float:
    def luminance(colour: str) -> float:
        rgb = [float(v) for v in colour[colour.index("(") + 1 : -1].replace("srgb", "").replace(",", " ").split()[:3]]
        rgb = rgb if "srgb" in colour else [v / 255 for v in rgb]
        return float(np.dot([c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb], [0.2126, 0.7152, 0.0722]))
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("style", [
    "", "body { background: #fff }", "body { background: #111; color: #eee }", ":root { --jp-ui-font-color1: #eee }",
    ":root { --jp-layout-color1: #fff }", ":root { --jp-ui-font-color1: #eee; --jp-layout-color1: #212121 }",
], ids=["bare", "white", "dark", "text only", "page only", "both"])  # fmt: skip
def test_text_can_be_read_in_any_host_and_any_system(chromium, scheme, style):
    view = Page(chromium, explorer(), scheme=scheme, style=style)
    pairs = colours(view.page, "section.flx")
    assert len(pairs) > 20
    assert min(contrast(*pair) for pair in pairs) > 4.5
    style = "e => [getComputedStyle(e).borderTopColor, getComputedStyle(e).backgroundColor]"
    edge = view.page.get_by_role("button", name="Pin").evaluate(style)
    assert contrast(*edge) > 3
    view.page.get_by_label("learning rate").focus()
    view.page.keyboard.press("Tab")
    ring, back = view.page.evaluate("""[getComputedStyle(document.activeElement).outlineColor,
      getComputedStyle(document.querySelector('.flx')).backgroundColor]""")
    assert contrast(ring, back) > 3
    view.close()


KEYS = ["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "Home", "End", "PageUp", "PageDown", "Escape", "Enter", "Space",
        "Delete", "a", "b", "d", "m", "x", "z", "0", "Shift+L", "Shift+Enter", "Backspace"]


def test_keys_are_ours_unless_ctrl_alt_or_meta_is_held_wherever_the_focus_is(chromium):
    """A host that listens in the capture phase, as Notebook 7 does, hears no key that is ours and every one that is its own."""
    view = Page(chromium, explorer(), Theatre())
    view.page.evaluate("""window.heard = []; for (const capture of [true, false])
      document.addEventListener('keydown', (e) => heard.push([e.key, capture]), capture)""")
    parts = view.page.locator("section.flx :is(input, select, button:enabled, [tabindex='0'])").all()
    assert len(parts) > 15
    for part in parts:
        part.evaluate("e => e.focus()")
        for key in KEYS if part.evaluate("e => e.tagName") not in ("SELECT", "BUTTON") else [*KEYS[:8], "b", "d"]:
            view.page.keyboard.press(key)
        assert view.page.evaluate("heard") == []
        for key in ("Control+s", "Alt+x", "Meta+z", "Control+Shift+c"):
            view.page.keyboard.press(key)
        assert len(view.page.evaluate("heard.splice(0).filter(([key]) => key.length === 1)")) == 8
    view.page.evaluate("document.querySelector('h1').tabIndex = 0; document.querySelector('h1').focus()")
    view.page.keyboard.press("b")
    assert len(view.page.evaluate("heard")) == 2            # outside of the widgets nothing is held back
    view.page.evaluate("models[0].end(); models[1].end()")  # and a widget that is gone holds nothing back either
    view.close()


def test_a_slider_moves_by_arrows_home_end_and_page(chromium):
    view = Page(chromium, explorer())
    slider = view.page.get_by_label("learning rate")
    slider.focus()
    keys = {"ArrowRight": 1, "ArrowUp": 2, "ArrowLeft": 1, "End": 8, "Home": 0, "PageUp": 1, "PageDown": 0}
    for key, value in keys.items():
        view.page.keyboard.press(key)
        assert int(slider.input_value()) == value
        assert slider.get_attribute("aria-valuetext") == str(value + 1)
    assert [message["at"]["rate"] for message in view.answer()] == [1, 2, 1, 8, 0, 1, 0]
    view.close()


def test_a_chart_is_read_by_keyboard_and_what_it_says_is_heard(chromium):
    view = Page(chromium, explorer())
    page, voice = view.page, view.page.get_by_role("status")
    lines, bars, pictures, plane = page.locator(".flx-plot > svg").all()
    lines.focus()
    page.keyboard.press("ArrowRight")
    assert voice.inner_text() == page.locator(".flx-tip").nth(0).inner_text().replace("\n", ", ") == "round 1, loss: 1, gap: 1"
    page.keyboard.press("End")
    assert voice.inner_text() == "round 10, loss: 0.1, gap: 10"
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowLeft")
    assert voice.inner_text() == "round 9, loss: 0.1111, gap: 9"
    page.keyboard.press("Escape")
    assert not page.locator(".flx-tip").nth(0).is_visible()
    bars.focus()
    page.keyboard.press("Home")
    assert voice.inner_text() == "first, share: 1"
    pictures.focus()
    page.keyboard.press("ArrowDown")
    assert voice.inner_text() == "the image, a picture of 3 by 4 grey tiles, 50 % black"
    plane.focus()
    page.keyboard.press("ArrowRight")
    assert voice.inner_text() == "optimum, u 0.2, v 0.2"                   # x and y
    page.keyboard.press("End")
    assert voice.inner_text() == "walk, point 9, u 0.5, v 0.1"
    view.close()


def test_bars_of_two_series_stand_side_by_side_and_are_read_by_name(chromium):
    def two(rate):
        yield Point(bars={"own": [("low", rate), ("high", 2)], "alone": [("low", 3), ("high", 4)]})

    chart = BarChart("clients", "clients", series=("own", "alone"))
    view = Page(chromium, Explorer(two, [Slider("rate", 1, 9, label="rate")], [chart]))
    plot = view.page.locator(".flx-plot > svg")
    assert [bar.get_attribute("data-bar") for bar in plot.locator("rect[data-bar]").all()] == ["0", "0", "1", "1"]
    assert view.page.locator(".flx-legend li").all_inner_texts() == ["own", "alone"]
    plot.focus()
    view.page.keyboard.press("End")
    assert view.page.get_by_role("status").inner_text() == "high, own: 2, alone: 4"
    view.close()


def test_a_mark_is_dragged_by_pointer_and_by_arrow_keys(chromium):
    """Its two sliders go to the positions nearest to the hand, and the experiment says where the mark stands."""
    def here(x, y):
        yield Point(marks={"thief": (x, y), "home": (0, 0)}, text=f"the thief is at {x:g}, {y:g}")

    plane = PlaneChart("plane", "u", "v", marks=("thief", "home"), drag=("thief", "x", "y"))
    sliders = [Slider("x", -1.0, 1.0, 0.1, value=0.0, label="across"), Slider("y", -1.0, 1.0, 0.1, value=0.0, label="upwards")]
    view = Page(chromium, Explorer(here, sliders, [plane]))
    page, chart = view.page, view.page.locator(".flx-plot > svg")
    assert "The arrow keys move thief, Page Up and Page Down read the points" in chart.get_attribute("aria-label")
    box = page.locator(".flx-symbol").first.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 60, y - 40, steps=4)
    view.answer()
    page.mouse.up()
    after = page.locator(".flx-symbol").first.bounding_box()
    assert abs(after["x"] - box["x"] - 60) < 9                             # half a position at most
    assert abs(after["y"] - box["y"] + 40) < 9
    at = view.widgets[0].live.values()
    assert at["x"] > 0.1
    assert at["y"] > 0.1
    assert float(page.get_by_label("across").get_attribute("aria-valuetext")) == pytest.approx(at["x"])
    page.mouse.move(x, y)                                                  # the hand is open: nothing moves
    assert view.answer() == []
    chart.focus()
    for key in ("ArrowLeft", "ArrowDown", "ArrowDown"):
        page.keyboard.press(key)
    view.answer()
    now = view.widgets[0].live.values()
    assert (now["x"], now["y"]) == (pytest.approx(at["x"] - 0.1), pytest.approx(at["y"] - 0.2))
    page.keyboard.press("End")
    assert page.get_by_role("status").inner_text() == "home, u 0, v 0"
    assert axe(page) == []
    view.close()


def test_there_is_one_live_region_and_it_speaks_seldom(chromium):
    """201 announcements in a run of ten seconds, before: here a run of 30 frames, and the end is said."""
    one = explorer()
    view = Page(chromium, one)
    assert view.page.locator("[aria-live], [role=alert], [role=status], [role=log], output").count() == 1
    view.page.evaluate("""window.said = []; const voice = document.querySelector('.flx-voice');
      const all = { childList: true, characterData: true, subtree: true };
      new MutationObserver(() => said.push(voice.textContent)).observe(voice, all)""")
    view.page.get_by_label("learning rate").press("ArrowRight")
    for number in range(30):
        frame = {**one.frame, "number": number + 10, "status": "running", "text": f"round {number}"}
        view.page.evaluate("(frame) => models[0].set('frame', frame)", frame)
        view.page.wait_for_timeout(40)
    view.page.evaluate("(frame) => models[0].set('frame', frame)", {**one.frame, "number": 99, "text": "the last round"})
    view.page.wait_for_timeout(4200)
    said = view.page.evaluate("said")
    assert 1 <= len(said) <= 3
    assert said[-1] == "done. the last round"
    view.close()


def test_pictures_are_tiles_marks_are_symbols_and_the_table_has_settings_and_final_values(chromium):
    view = Page(chromium, explorer())
    page = view.page
    tiles = page.locator(".flx-chart").nth(2)
    assert tiles.locator(".flx-paper").count() == 2
    counted = "all => all.map((e) => [e.getAttribute('fill'), e.getAttribute('d').split('M').length - 1])"
    fills = tiles.locator(".flx-tile").evaluate_all(counted)
    assert sum(count for _, count in fills) == 22           # 2 × 12 tiles less the two white ones
    assert len({fill for fill, _ in fills}) == 11
    legend = page.locator(".flx-chart").nth(3).locator("li")
    assert legend.all_inner_texts() == ["valley", "walk", "optimum", "rest"]
    assert legend.nth(2).locator(".flx-symbol").count() == 1
    assert legend.nth(1).locator("line").count() == 1
    assert page.locator("thead th").all_inner_texts() == ["run", "settings", "loss", "gap"]
    page.get_by_role("button", name="Pin").click()
    view.answer()
    page.get_by_label("learning rate").press("ArrowRight")
    view.answer()
    rows = [row.locator("th, td").all_inner_texts() for row in page.locator("tbody tr").all()]
    assert rows == [["now", "learning rate = 2, rule = mean, fast = off", "0.2", "10"],
                    ["pin 1", "learning rate = 1, rule = mean, fast = off", "0.1", "10"]]
    drawn = page.locator(".flx-chart").nth(0).locator("path.flx-line")
    strokes = drawn.evaluate_all("all => all.map((e) => e.getAttribute('stroke'))")
    assert len(set(strokes)) == len(strokes) == 4
    legend = page.locator(".flx-chart").nth(0).locator("li").all_inner_texts()
    assert legend == ["loss, now", "gap, now", "loss, pin 1", "gap, pin 1"]
    view.close()


def test_a_timeline_tells_each_job_to_pointer_and_keys_and_crosses_what_was_lost(chromium):
    def two_devices():
        yield Point(jobs={"who works when": [
            ("fast", (0, 1, 3, 4), "used", ["fast", "from 0 s to 4 s", "used in step 1"]),
            ("slow", (0, 2, 9, 9), "dropped out", ["slow", "from 0 s to 9 s", "dropped out"]),
            ("fast", (4, 5, 7, 8), "used", ["fast", "from 4 s to 8 s", "used in step 2"]),
            ("", (4,), "", ["step 1", "at 4 s"]), ("", (8,), "", ["step 2", "at 8 s"])]})
    chart = TimelineChart("who works when", ("fast", "slow"), y="device", x_range=(0, 10))
    view = Page(chromium, Explorer(two_devices, [], [chart], title="Timeline"))
    page, voice = view.page, view.page.get_by_role("status")
    drawn = page.locator(".flx-plot > svg")
    assert drawn.locator("rect[data-phase]").count() == 3 + 2 + 3          # the lost one never sent
    fills = drawn.locator("rect[data-phase]").evaluate_all("all => all.map((e) => e.getAttribute('fill'))")
    assert fills.count("none") == 2
    assert drawn.locator("path[data-cross]").count() == 1
    assert drawn.locator("line.flx-instant").count() == 2
    legend = page.locator(".flx-legend li").all_inner_texts()
    assert legend == ["download", "training", "upload", "not used", "step of the server"]
    drawn.focus()
    page.keyboard.press("ArrowRight")
    assert voice.inner_text() == "fast, from 0 s to 4 s, used in step 1"
    page.keyboard.press("End")
    assert voice.inner_text() == "step 2, at 8 s"
    box = drawn.bounding_box()
    page.mouse.move(box["x"] + 0.85 * box["width"], box["y"] + 0.6 * box["height"])      # over the end of the slow one's bar
    assert page.locator(".flx-tip").inner_text().replace("\n", ", ") == "slow, from 0 s to 9 s, dropped out"
    assert axe(page) == []
    view.close()


def test_on_a_narrow_page_text_keeps_its_size_and_what_overflows_can_be_scrolled_by_keyboard(chromium):
    charts = [Chart("a chart", "round", "value", lines=tuple(f"a curve with the name {i}" for i in range(5)))]
    wide = Explorer(lambda rate: iter([{"a curve with the name 0": (1, 1000.0)}]), [Slider("rate", 1, 9)], charts)
    view = Page(chromium, wide, width=320)
    page = view.page
    page.wait_for_timeout(100)
    sizes = page.evaluate("""[...document.querySelectorAll('.flx-plot svg text')].map((e) =>
      parseFloat(getComputedStyle(e).fontSize) * Math.hypot(e.getScreenCTM().a, e.getScreenCTM().b))""")
    assert min(sizes) > 10.5
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
    table = page.locator(".flx-table")
    assert table.evaluate("e => e.scrollWidth > e.clientWidth")
    table.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_timeout(300)
    assert table.evaluate("e => e.scrollLeft") > 0
    view.close()


def test_a_kernel_that_does_not_answer_is_said_once_and_nothing_is_said_to_go_on(chromium):
    view = Page(chromium, explorer())
    page = view.page
    page.clock.install()
    page.get_by_label("learning rate").press("ArrowRight")
    assert page.locator(".flx-status").inner_text() == "training …"
    page.clock.run_for(6000)
    assert "The kernel has not answered yet" in page.locator(".flx-error").inner_text()
    assert page.locator(".flx-status").inner_text() == ""
    running = {**view.widgets[0].frame, "number": 5, "status": "running", "progress": 0.5}
    page.evaluate("(frame) => models[0].set('frame', frame)", running)
    page.clock.run_for(500)
    assert not page.locator(".flx-error").is_visible()
    assert page.locator(".flx-status").inner_text() == "training …"
    page.evaluate("models[0].tell('comm_live_update')")     # the kernel was restarted in the middle of a run
    assert "lost its kernel" in page.locator(".flx-error").inner_text()
    assert page.locator(".flx-status").inner_text() == ""
    assert not page.locator("progress").is_visible()
    page.evaluate("(frame) => models[0].set('frame', frame)", {**running, "number": 6})        # it was still on its way
    page.clock.run_for(500)
    assert "lost its kernel" in page.locator(".flx-error").inner_text()
    view.close()


DRAW = """async (frame) => {
  const began = performance.now();
  for (let i = 0; i < 5; i++) {
    models[0].set('frame', { ...frame, number: i + 5 });
    await new Promise(requestAnimationFrame);
  }
  return (performance.now() - began) / 5;
}"""


def test_a_large_run_is_thinned_drawn_quickly_and_said_to_be_thinned(chromium):
    names = tuple("abcdefghijkl")

    def run(rate):
        for number in range(11_000):
            yield dict.fromkeys(names, (number, math.sin(number / 50) + rate))

    large = Explorer(run, [Slider("rate", 1, 9)], [Chart("c", "x", "y", lines=names)])
    view = Page(chromium, large)
    assert view.page.locator(".flx-note").inner_text().endswith("of 11,000 points of a line.")
    few = {name: line[:20] for name, line in large.frame["runs"][0]["lines"].items()}
    small = {**large.frame, "runs": [{**large.frame["runs"][0], "lines": few, "points": {}}]}
    took = [min(view.page.evaluate(DRAW, frame) for _ in range(2)) for frame in (small, large.frame)]
    assert took[1] < 12 * took[0] + 20                      # 3.8 seconds a frame, before; now a few times that of 20 points
    assert view.page.locator("circle").count() == 0
    view.close()


def test_news_are_put_together_by_the_page_as_the_kernel_means_them(chromium):
    """explorer.js: grown, against explorer.py: growth, on growing lines of random lengths."""
    page = chromium.new_page()
    page.set_content("<body></body>")
    load = "const { grown } = await import(URL.createObjectURL(new Blob([module], { type: 'text/javascript' })))"

    def run(rate, rule, fast, again):
        for number in range(900):
            yield {"loss": (number, number % 13)} if number % 3 else {"gap": (number, 1)}

    sent, one = [], explorer(eager=False)
    one.live.run, one.live.every, one.send = run, 0.0, sent.append
    first = one._last
    one._whole = time.monotonic() + 60                      # only news
    one.live.move({})
    one.live.wait(20)
    assert len(sent) > 100
    last = page.evaluate(f"""async ([module, frame, news]) => {{ {load};
      let missed = 0;
      for (const one of news) {{ const next = grown(frame, one); if (next) frame = next; else missed++; }}
      return [frame, missed, grown(frame, news[3])];
    }}""", [one._esm, {**first, "number": sent[0]["after"], "status": "running"}, sent])
    assert last[1:] == [0, None]
    assert last[0]["runs"][0]["lines"] == json.loads(json.dumps(one.frame["runs"][0]["lines"]))
    page.close()
    one.close()

@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_dashboard_is_started_paused_and_stopped_by_keyboard_and_its_alarms_have_links(chromium, scheme, tmp_path, monkeypatch):
    (tmp_path / "02_heterogeneity.ipynb").write_text("{}")
    monkeypatch.chdir(tmp_path)
    fed = Coordinator(digits().partition(Shards(1), 10), logistic(64, 10), LocalSGD(0.1, 20), Synchronous(0.5))
    dashboard = Dashboard(fed, 6)
    view = Page(chromium, dashboard.explorer, scheme=scheme)
    page = view.page
    assert page.locator(".flx-notes").is_hidden()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Start"
    page.keyboard.press("Enter")
    view.answer()
    section = page.locator("section.flx")
    assert section.locator(".flx-status").inner_text() == "done"
    assert section.locator(".flx-text").inner_text().startswith("round 6 of 6, ")
    assert len(dashboard.history) == 6
    assert section.locator(".flx-chart").count() == len(dashboard.watch.charts())
    assert section.locator("path.flx-line[d]").count() >= 8
    notes = section.locator(".flx-notes li")
    (with_link,) = [note for note in notes.all() if "lesson 02" in note.inner_text()]
    assert with_link.locator("a").get_attribute("href") == "02_heterogeneity.ipynb"
    assert all(not note.locator("a").count() for note in notes.all() if "lesson 02" not in note.inner_text())
    with_link.locator("a").focus()
    view.answer()
    assert page.evaluate("document.activeElement.textContent") == "lesson 02"     # the same words do not take the focus away
    page.get_by_role("button", name="Pause").focus()
    page.keyboard.press("Space")
    view.answer()
    assert section.locator(".flx-status").inner_text() == "done"                # nothing was left to pause
    chart = section.locator(".flx-plot > svg").first
    chart.focus()
    page.keyboard.press("ArrowRight")
    assert "held out" in section.locator(".flx-tip").first.inner_text()
    assert axe(page) == []
    dashboard.rounds = 400
    page.get_by_role("button", name="Start").focus()
    page.keyboard.press("Enter")
    page.wait_for_timeout(100)
    (_, message), view.sent = view.sent[-1], []
    dashboard.explorer._heard(None, message, [])                                # it runs while the page is asked to pause it
    page.get_by_role("button", name="Pause").focus()
    page.keyboard.press("Enter")
    view.answer()
    assert section.locator(".flx-status").inner_text() == "paused"
    assert "Start goes on from here" in section.locator(".flx-text").inner_text()
    done = len(dashboard.history)
    page.get_by_role("button", name="Start").press("Enter")
    page.wait_for_timeout(100)
    (_, message), view.sent = view.sent[-1], []
    dashboard.explorer._heard(None, message, [])
    for _ in range(200):
        if len(dashboard.history) > done:
            break
        time.sleep(0.02)
    dashboard.stop()
    assert dashboard.wait(20).stopped.startswith("stopped by hand after round")
    view.answer()
    assert section.locator(".flx-status").inner_text() == "stopped"
    view.close()


@pytest.mark.parametrize(("call", "answer"), [
    ("ticks(0, 1, false)", [0, 0.2, 0.4, 0.6, 0.8, 1]),
    ("ticks(0, 20, false)", [0, 5, 10, 15, 20]),
    ("ticks(1, 3, false, true)", [1, 2, 3]),
    ("ticks(-0.03, 0.03, false)", [-0.02, 0, 0.02]),
    ("ticks(1, 100, true)", [1, 2, 5, 10, 20, 50, 100]),
    ("ticks(0.001, 50, true)", [0.001, 0.01, 0.1, 1, 10]),
])
def test_axes_have_round_numbers(chromium, call, answer):
    page = chromium.new_page()
    load = "const { ticks } = await import(URL.createObjectURL(new Blob([text], { type: 'text/javascript' })))"
    assert page.evaluate(f"async (text) => {{ {load}; return {call}; }}", Explorer._esm) == pytest.approx(answer)
    page.close()


def test_the_page_writes_numbers_as_the_kernel_does(chromium):
    rng = np.random.default_rng(0)
    values = [0.0, 0.88346, 1234.5, 2e7, 1e-5, 1e-6, 99.996, -33000.0, 999.96, 1e9, 1e12]
    values += list(10.0 ** rng.uniform(-8, 11, 300) * rng.choice([-1, 1], 300))
    values = [float(f"{value:.6g}") for value in values]
    page = chromium.new_page()
    load = "const { show } = await import(URL.createObjectURL(new Blob([text], { type: 'text/javascript' })))"
    texts = page.evaluate(f"async ([text, values]) => {{ {load}; return values.map(show); }}", [Explorer._esm, values])
    assert [pair for pair in zip(values, texts, map(show, values), strict=True) if pair[1] != pair[2]] == []
    page.close()


def test_no_file_of_a_page_is_longer_than_one_sitting():
    folder = Path(__file__).parents[2] / "fl_course" / "workbook" / "widgets"
    assert {path.name: n for path in folder.glob("*.[jc]s*") if (n := len(path.read_text("utf-8").splitlines())) > 320} == {}
