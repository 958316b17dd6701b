"""A real JupyterLab in a real Chromium: the slider is moved by mouse and by keyboard, and a federation is retrained.

The notebook under test is a parameter: a small one that is written here, and the first lesson where it is built.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from urllib.parse import quote

import nbclient
import nbformat
import pytest

pytestmark = pytest.mark.browser
playwright = pytest.importorskip("playwright.sync_api", reason="no playwright here (pip install -e .[browser])")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
LESSON = Path(__file__).parents[2] / "notebooks" / "01_fedavg.ipynb"
FLAGS = ["--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--no-sandbox"]

if CHROMIUM is None:
    pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)", allow_module_level=True)

SMALL = ["""\
import time
import numpy as np
from fl_course.workbook.widgets import BarChart, Button, Chart, Choice, Explorer, LogSlider, Point, Slider, Switch

rng = np.random.default_rng(0)
X, w = rng.normal(size=(200, 20)), np.arange(20.0)
y = X @ w

def descend(rounds, rate, start, fail, slow):
    "Least squares by gradient descent: small, real, and different for each value."
    theta = np.zeros(20) if start == "zero" else np.full(20, 30.0)
    for number in range(1, 200 if slow else rounds + 1):
        theta -= rate * X.T @ (X @ theta - y) / len(y)
        loss = float(np.mean((X @ theta - y) ** 2))
        if fail and number == 3:
            raise ValueError(f"a failure that was asked for in round {number}")
        if slow:
            time.sleep(0.02)
        bars = {"error of the first coordinates": [(f"w{i}", abs(theta[i] - w[i])) for i in range(4)]}
        yield Point({"loss": (number, loss), "size of the model": (number, np.linalg.norm(theta))}, bars,
                    f"round {number}: loss {loss:.4g}", number / 200 if slow else None)
""", """\
explorer = Explorer(
    descend,
    [Slider("rounds", 5, 40, 5, value=20, label="rounds T"),
     LogSlider("rate", 0.01, 1, 9, value=0.1, label="step size", unit="/s"),
     Choice("start", ["zero", "far away"], label="first model"), Switch("fail", label="fail in round 3"),
     Button("slow", label="Slow run")],
    [Chart("how it learns", x="round", y="value", lines=("loss", "size of the model"), y_log=True),
     BarChart("error of the first coordinates", y="distance", x="coordinate")],
    title="Gradient descent")
explorer""", """\
print("answer", 6 * 7, explorer.live.status)"""]


def small_notebook(folder: Path) -> Path:
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in SMALL])
    book.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    path = folder / "small.ipynb"
    nbformat.write(book, path)
    return path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A JupyterLab of its own: no token, no news, nothing of the user's settings; (address, its folder)."""
    home = tmp_path_factory.mktemp("lab")
    settings = home / ".settings" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True)
    quiet = {"fetchNews": "false", "checkForUpdates": False}
    (settings / "notification.jupyterlab-settings").write_text(json.dumps(quiet))
    port = free_port()
    folders = {"JUPYTER_CONFIG_DIR": ".config", "JUPYTER_DATA_DIR": ".data", "JUPYTER_RUNTIME_DIR": ".runtime",
               "JUPYTERLAB_SETTINGS_DIR": ".settings", "JUPYTERLAB_WORKSPACES_DIR": ".workspaces",
               "IPYTHONDIR": ".ipython"}
    env = {**os.environ, **{name: str(home / folder) for name, folder in folders.items()}, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}",
               "--IdentityProvider.token=", "--ServerApp.disable_check_xsrf=True",
               f"--ServerApp.root_dir={home}"]
    with open(home / "server.log", "w") as log, subprocess.Popen(command, env=env, stdout=log, stderr=log) as server:
        address = f"http://127.0.0.1:{port}"
        for _ in range(200):
            try:
                urllib.request.urlopen(f"{address}/api", timeout=1).close()
                break
            except OSError:
                time.sleep(0.3)
        else:
            raise RuntimeError((home / "server.log").read_text())
        yield address, home
        server.terminate()
        server.wait(30)


@pytest.fixture(scope="module")
def chromium():
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, headless=True, args=FLAGS)
        yield browser
        browser.close()


class Page:
    """A browser page that remembers what went wrong in it."""

    def __init__(self, browser, address: str, shots: Path) -> None:
        self.page = browser.new_page(viewport={"width": 1300, "height": 1250})
        self.page.set_default_timeout(60_000)
        self.address, self.shots, self.errors, self.console, self.strangers = address, shots, [], [], []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda line: self.console.append(line.text) if line.type == "error" else None)
        self.page.on("request", lambda request: self.strangers.append(request.url)
                     if not request.url.startswith((address, "data:", "blob:")) else None)

    def open(self, name: str) -> None:
        self.page.goto(f"{self.address}/lab/workspaces/{time.time_ns()}/tree/{name}")
        self.page.locator(".jp-NotebookPanel").wait_for()
        self.page.locator(".jp-StatusBar-TextItem", has_text="| Idle").first.wait_for()

    def menu(self, name: str, *path: str) -> None:
        self.page.get_by_role("menuitem", name=name, exact=True).click()
        for entry in path:
            self.page.get_by_text(entry, exact=True).click()

    def save(self) -> None:
        self.page.keyboard.press("Control+s")
        self.page.locator(".jp-NotebookPanel .jp-mod-dirty").wait_for(state="detached")
        self.page.wait_for_timeout(1000)

    def settled(self):
        """The explorer's section, once it shows the end of what the reader asked for last."""
        section = self.page.locator(".flx[data-settled=true]").first
        section.wait_for()
        return section

    def curve(self) -> str:
        return self.settled().locator("path[data-line='0']").first.get_attribute("d")

    def row(self) -> list[str]:
        return self.settled().locator("tbody tr").first.locator("td").all_inner_texts()

    def picture(self):
        """The stored picture: the output before the mark in the explorer's cell."""
        return self.page.locator(".jp-OutputArea-child:has(+ .jp-OutputArea-child .flx-mark) img").first

    def theme(self, name: str) -> None:
        self.page.get_by_role("menuitem", name="Settings", exact=True).click()
        self.page.get_by_text("Theme", exact=True).hover()
        self.page.get_by_text(name, exact=True).click()
        self.page.wait_for_timeout(1500)

    def check_clean(self) -> None:
        assert not self.errors, self.errors
        assert not self.strangers, self.strangers
        ours = [line for line in self.console if any(word in line for word in ("explorer", "anywidget", "flx"))]
        assert not ours, ours


def notebooks():
    yield pytest.param("small", id="small")
    if LESSON.exists() and "xplorer(" in LESSON.read_text(encoding="utf-8"):
        yield pytest.param("lesson", id="lesson-01")


@pytest.mark.parametrize("which", list(notebooks()))
def test_slider_retrains_and_a_reopened_notebook_shows_the_picture(which, lab, chromium, tmp_path):
    address, home = lab
    name = small_notebook(home).name if which == "small" else shutil.copy(LESSON, home / LESSON.name).name
    view = Page(chromium, address, tmp_path)
    page = view.page
    view.open(name)
    view.menu("Run", "Run All Cells")
    slider = view.page.locator(".flx input[type=range]").first
    slider.wait_for(timeout=120_000)
    slider.scroll_into_view_if_needed()
    first, row = view.curve(), view.row()
    assert first.count("L") >= 4
    assert not view.picture().is_visible()                  # beside the living widget it would say everything twice

    # by mouse: along the whole track and back, as fast as the page takes it
    box = slider.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + box["height"] / 2)
    page.mouse.down()
    for step in range(40):
        page.mouse.move(box["x"] + box["width"] * (0.3 + 0.6 * step / 39), box["y"] + box["height"] / 2)
    page.mouse.up()
    by_mouse, moved = view.curve(), view.row()
    assert by_mouse != first
    assert moved[0] != row[0]

    # by keyboard: JupyterLab must not take the arrow keys
    slider.focus()
    before = slider.input_value()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    assert int(slider.input_value()) == int(before) - 2
    by_keyboard, pressed = view.curve(), view.row()
    assert by_keyboard not in (first, by_mouse)
    assert pressed[0] == slider.get_attribute("aria-valuetext") != moved[0]
    assert slider.get_attribute("aria-valuetext") == view.settled().locator("output").first.inner_text()

    # every control has a name; values can be read by hovering
    for control in page.locator(".flx :is(input, select, button)").all():
        assert control.evaluate("e => e.labels?.length ? e.labels[0].textContent : e.textContent").strip()
    page.locator(".flx-plot svg").first.hover()
    assert len(page.locator(".flx-tip").first.inner_text().splitlines()) >= 2

    # pin, compare, reset
    page.get_by_role("button", name="Pin").click()
    page.locator(".flx tbody tr").nth(1).wait_for()
    slider.focus()
    page.keyboard.press("Home")
    assert view.settled().locator("tbody tr").count() == 2
    page.screenshot(path=tmp_path / "light.png")
    view.theme("JupyterLab Dark")
    page.screenshot(path=tmp_path / "dark.png")
    view.theme("JupyterLab Light")
    page.get_by_role("button", name="Reset").click()
    page.locator(".flx tbody tr").nth(1).wait_for(state="detached")
    assert view.row() == row
    assert view.curve() == first

    if which == "small":
        errors_are_red_and_the_notebook_stays_usable(view)
        interrupt_and_run_again(view)
    view.save()
    view.check_clean()
    page.close()
    reopened(chromium, address, home / name, tmp_path)


@pytest.mark.parametrize("lesson", [path.name for path in sorted(LESSON.parent.glob("0[2-9]_*.ipynb"))])
def test_the_widgets_of_every_lesson_answer(lesson, lab, chromium, tmp_path):
    """Run the lesson, move each widget's first range by keyboard, and see its words and its drawing change."""
    address, home = lab
    view = Page(chromium, address, tmp_path)
    page = view.page
    view.open(shutil.copy(LESSON.parent / lesson, home / lesson).name)
    view.menu("Run", "Run All Cells")
    cells = json.loads((LESSON.parent / lesson).read_text(encoding="utf-8"))["cells"]
    shown = [cell for cell in cells if re.search(r"^(\w+_explorer\(|Theatre\()", "".join(cell["source"]), re.MULTILINE)]
    sections = page.locator("section.flx")
    for place in range(len(shown)):
        section = sections.nth(place)
        section.wait_for(timeout=180_000)
        picture = "e => [...e.querySelectorAll('svg')].map(s => s.outerHTML).join() + e.innerText"
        slider = section.locator("input[type=range]").first
        slider.scroll_into_view_if_needed()
        before = section.evaluate(picture)
        slider.focus()
        page.keyboard.press("ArrowRight")
        page.wait_for_timeout(3000)
        page.screenshot(path=tmp_path / f"{place}.png")
        assert section.evaluate(picture) != before, f"widget {place + 1} of {lesson} did not answer"
        assert not section.locator(".flx-error:visible").count()
    assert shown, f"{lesson} shows no widget"
    view.check_clean()
    page.close()


def errors_are_red_and_the_notebook_stays_usable(view: Page) -> None:
    page = view.page
    page.get_by_label("fail in round 3").check()
    problem = page.locator(".flx-error")
    problem.wait_for()
    assert problem.inner_text() == "ValueError: a failure that was asked for in round 3"
    red, green, blue = problem.evaluate("e => getComputedStyle(e).color.match(/[0-9]+/g).slice(0, 3).map(Number)")
    assert red > 1.5 * max(green, blue)
    page.screenshot(path=view.shots / "error.png")
    page.get_by_label("fail in round 3").uncheck()
    problem.wait_for(state="hidden")
    view.settled()

    page.get_by_role("button", name="Slow run").click()     # four seconds; meanwhile another cell runs
    page.locator(".flx[data-status=running] progress").wait_for()
    page.locator(".jp-CodeCell").nth(2).locator(".cm-content").click()
    page.keyboard.press("Control+Enter")
    page.locator(".jp-CodeCell").nth(2).get_by_text("answer 42 running").wait_for()
    assert page.locator(".flx").get_attribute("data-status") == "running"


def interrupt_and_run_again(view: Page) -> None:
    page = view.page
    assert page.locator(".flx").get_attribute("data-status") == "running"
    view.menu("Kernel", "Interrupt Kernel")
    page.locator(".flx[data-status=stopped]").wait_for()
    page.get_by_role("button", name="Slow run").click()
    page.locator(".flx[data-status=running] progress").wait_for()
    page.get_by_role("button", name="Stop").click()
    page.locator(".flx[data-status=stopped]").wait_for()

    page.get_by_role("button", name="Slow run").click()
    page.locator(".flx[data-status=running] progress").wait_for()
    page.locator(".jp-CodeCell").nth(1).locator(".cm-content").click()
    page.keyboard.press("Control+Enter")                    # the same cell again: the old run ends with its widget
    page.locator(".flx[data-status=done]").wait_for()
    assert page.locator(".flx").count() == 1
    page.locator(".jp-CodeCell").nth(2).locator(".cm-content").click()
    page.keyboard.press("Control+Enter")
    page.locator(".jp-CodeCell").nth(2).get_by_text("answer 42 done").wait_for()


def shut_down(address: str) -> None:
    for session in json.load(urllib.request.urlopen(f"{address}/api/sessions")):
        request = urllib.request.Request(f"{address}/api/sessions/{session['id']}", method="DELETE")
        urllib.request.urlopen(request).close()


def stored_bytes(path: Path) -> int:
    """Bytes of the outputs of the cell that holds the explorer."""
    cells = [cell.get("outputs", []) for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]]
    return len(json.dumps(next(outputs for outputs in cells if "flx-mark" in json.dumps(outputs))))


def reopened(chromium, address: str, path: Path, shots: Path) -> None:
    """Saved, kernel gone, opened again: a picture and no dead view."""
    shut_down(address)
    assert stored_bytes(path) < 100_000
    view = Page(chromium, address, shots)
    view.open(path.name)
    picture = view.picture()
    picture.scroll_into_view_if_needed()
    view.page.wait_for_timeout(2000)                        # time enough for a dead view to say so
    picture.scroll_into_view_if_needed()
    view.page.screenshot(path=shots / "reopened.png")
    assert picture.is_visible()
    assert picture.bounding_box()["width"] > 300
    assert not [dead for dead in view.page.get_by_text("Error displaying widget").all() if dead.is_visible()]
    view.check_clean()
    view.page.close()
    shut_down(address)


def test_a_built_notebook_shows_the_picture_before_it_is_run(lab, chromium, tmp_path):
    """Executed elsewhere, so JupyterLab does not trust it: no script, no style, no view; the picture must do."""
    address, home = lab
    book = nbformat.read(small_notebook(tmp_path), as_version=4)
    nbclient.NotebookClient(book, timeout=120, kernel_name="python3", store_widget_state=False).execute()
    nbformat.write(book, home / "built.ipynb")
    view = Page(chromium, address, tmp_path)
    view.open("built.ipynb")
    picture = view.page.locator(".jp-RenderedImage img").first
    picture.wait_for()
    view.page.wait_for_timeout(2000)
    view.page.screenshot(path=tmp_path / "built.png")
    assert picture.is_visible()
    assert not [dead for dead in view.page.get_by_text("Error displaying widget").all() if dead.is_visible()]
    view.check_clean()
    view.page.close()
    shut_down(address)


@pytest.mark.parametrize(("call", "answer"), [
    ("ticks(0, 1, false)", [0, 0.2, 0.4, 0.6, 0.8, 1]),
    ("ticks(0, 20, false)", [0, 5, 10, 15, 20]),
    ("ticks(1, 3, false, true)", [1, 2, 3]),
    ("ticks(-0.03, 0.03, false)", [-0.02, 0, 0.02]),
    ("ticks(1, 100, true)", [1, 2, 5, 10, 20, 50, 100]),
    ("ticks(0.001, 50, true)", [0.001, 0.01, 0.1, 1, 10]),
    ("[0, 0.88346, 1234.5, 2e7, 1e-5, null].map(show)", ["0", "0.8835", "1234.5", "2.00e+7", "1.00e-5", "–"]),
])
def test_axes_have_round_numbers(chromium, call, answer):
    module = (Path(__file__).parents[2] / "fl_course" / "workbook" / "widgets" / "explorer.js").read_text(encoding="utf-8")
    page = chromium.new_page()
    load = "const { ticks, show } = await import('data:text/javascript,' + text)"
    script = f"async (text) => {{ {load}; return {call}; }}"
    assert page.evaluate(script, quote(module)) == (answer if "show" in call else pytest.approx(answer))
    page.close()
