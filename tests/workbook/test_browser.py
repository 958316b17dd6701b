"""A real JupyterLab and a real Notebook 7 in a real Chromium: explorers are driven by mouse and by keyboard alone.

What differs between hosts is tried here: who gets a key, what is saved, what a reopened notebook shows, what is left of a
kernel that was restarted. What a widget does by itself is tried faster in test_page.py.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import nbclient
import nbformat
import pytest

pytestmark = pytest.mark.browser
playwright = pytest.importorskip("playwright.sync_api", reason="no playwright here (pip install -e .[browser])")
checker = pytest.importorskip("axe_playwright_python.sync_playwright", reason="no axe here (pip install -e .[browser])")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ROOT = Path(__file__).parents[2]
LESSON = ROOT / "notebooks" / "04_secure_aggregation.ipynb"
NO_NOTEBOOK = pytest.mark.skipif(importlib.util.find_spec("notebook") is None, reason="no Notebook 7 here (.[browser])")
HOSTS = ["lab", pytest.param("notebook", marks=NO_NOTEBOOK)]
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
explorer, another = (Explorer(
    descend,
    [Slider("rounds", 5, 40, 5, value=20, label="rounds T"),
     LogSlider("rate", 0.01, 1, 9, value=0.1, label="step size", unit="/s"),
     Choice("start", ["zero", "far away"], label="first model"), Switch("fail", label="fail in round 3"),
     Button("slow", label="Slow run")],
    [Chart("how it learns", x="round", y="value", lines=("loss", "size of the model"), y_log=True),
     BarChart("error of the first coordinates", y="distance", x="coordinate")],
    title=title) for title in ("Gradient descent", "Another"))
display(explorer, another)""", """\
from ipywidgets.widgets.widget import _instances
print("answer", 6 * 7, explorer.live.status, len(_instances), "widgets")"""]


def small_notebook(folder: Path, name: str = "small") -> Path:
    return written(folder, name, SMALL)


def written(folder: Path, name: str, cells: list[str]) -> Path:
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
    book.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    path = folder / f"{name}.ipynb"
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
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:                   # in the middle of a kernel's restart it may forget to end
            server.kill()


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
        self.page.on("pageerror", lambda error: self.errors.append(f"{error} {error.stack}"))
        self.page.on("console", lambda line: self.console.append(line.text) if line.type == "error" else None)
        self.page.on("request", lambda request: self.strangers.append(request.url)
                     if not request.url.startswith((address, "data:", "blob:")) else None)

    def open(self, name: str, host: str = "lab") -> None:
        place = f"lab/workspaces/{time.time_ns()}/tree" if host == "lab" else "notebooks"
        self.page.goto(f"{self.address}/{place}/{name}")
        self.page.locator(".jp-NotebookPanel").wait_for()
        if host == "lab":
            self.page.locator(".jp-StatusBar-TextItem", has_text="| Idle").first.wait_for()
        else:                                               # shows nothing that says so reliably: ask the server
            idle(self.page, self.address)
            self.page.wait_for_timeout(1000)

    def menu(self, name: str, *path: str) -> None:
        self.page.get_by_role("menuitem", name=name, exact=True).click()
        for entry in path:
            self.page.get_by_text(entry, exact=True).click()

    def save(self) -> None:
        self.page.keyboard.press("Control+s")
        self.page.locator(".jp-NotebookPanel .jp-mod-dirty").wait_for(state="detached")
        self.page.wait_for_timeout(1000)

    def settled(self, section):
        """The explorer's section, once it shows the end of what the reader asked for last."""
        self.page.wait_for_function("e => e.dataset.settled === 'true'", arg=section.element_handle())
        return section

    def curve(self, section) -> str:
        return self.settled(section).locator("path[data-line='0']").first.get_attribute("d")

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


@pytest.mark.parametrize("host", HOSTS)
def test_two_explorers_on_one_page_are_driven_by_keyboard_alone(host, lab, chromium, tmp_path):
    address, home = lab
    path = small_notebook(home, f"keys-{host}")
    view = Page(chromium, address, tmp_path)
    page = view.page
    view.open(path.name, host)
    view.menu("Run", "Run All Cells")
    sections = page.locator("section.flx")
    sections.nth(1).wait_for(timeout=120_000)
    one, two = sections.all()
    for section in (one, two):
        for control in section.locator("input, select").all():
            assert control.evaluate("e => e.labels.length === 1 && e.labels[0].closest('section') === e.closest('section')")
    cells = page.locator(".jp-Cell").count()

    # the second explorer's slider moves by arrows, Home, End and Page, and its own federation is trained
    slider = two.get_by_label("rounds T")
    slider.scroll_into_view_if_needed()
    slider.focus()
    first, still = view.curve(two), view.curve(one)
    for key, value in {"ArrowRight": 4, "ArrowLeft": 3, "Home": 0, "End": 7, "PageDown": 6, "ArrowDown": 5}.items():
        page.keyboard.press(key)
        assert int(slider.input_value()) == value, f"{key} in {host}"
    assert view.curve(two) != first
    assert view.curve(one) == still
    assert two.locator("tbody td").first.inner_text().startswith("rounds T = 30, ")
    assert slider.get_attribute("aria-valuetext") == "30"

    # a button is pressed by Enter and by Space; no letter reaches the host, whatever has the focus
    two.get_by_role("button", name="Pin").focus()
    page.keyboard.press("Enter")
    two.locator("tbody tr").nth(1).wait_for()
    for part in (two.get_by_role("button", name="Pin"), two.locator(".flx-plot > svg").first, two.locator(".flx-table"), slider):
        part.focus()
        for key in ("b", "d", "d", "a", "x", "m"):
            page.keyboard.press(key)
    page.wait_for_timeout(300)
    assert page.locator(".jp-Cell").count() == cells
    assert sections.count() == 2
    chart = two.locator(".flx-plot > svg").first
    chart.focus()
    page.keyboard.press("ArrowRight")
    assert two.locator(".flx-tip").first.is_visible()
    assert two.get_by_role("status").inner_text().startswith("round 1, ")
    page.keyboard.press("Escape")
    assert not two.locator(".flx-tip").first.is_visible()
    two.get_by_role("button", name="Reset").focus()
    page.keyboard.press("Space")
    two.locator("tbody tr").nth(1).wait_for(state="detached")
    page.keyboard.press("Shift+Tab")
    assert page.evaluate("document.activeElement.textContent") == "Pin"

    # Ctrl is the host's: save, with the focus on a slider
    slider.focus()
    before = path.stat().st_mtime_ns
    page.keyboard.press("Control+s")
    for _ in range(100):
        if path.stat().st_mtime_ns != before:
            break
        page.wait_for_timeout(100)
    assert path.stat().st_mtime_ns != before, f"Ctrl+S did not save in {host}"
    assert axe(page, "section.flx") == []
    page.screenshot(path=tmp_path / f"{host}.png")
    if host == "lab":
        by_mouse_and_in_the_dark(view, one)
        errors_are_red_and_the_notebook_stays_usable(view, one)
        interrupt_and_run_again(view, one)
        view.save()
    a_restarted_kernel_is_said(view, one)
    if host == "notebook":                                  # which has errors of its own; ours come from a module in a blob
        view.errors = [error for error in view.errors if "blob:" in error]
    view.check_clean()
    page.close()
    shut_down(address)
    if host == "lab":
        reopened(chromium, address, path, tmp_path)


def axe(page, within: str = "body") -> list[str]:
    """Serious findings of axe-core, as sentences."""
    return [f"{v['id']}: {v['help']}: {[node['html'][:150] for node in v['nodes'][:3]]}"
            for v in checker.Axe().run(page, within).response["violations"] if v["impact"] in ("serious", "critical")]


def by_mouse_and_in_the_dark(view: Page, one) -> None:
    page, slider = view.page, one.get_by_label("rounds T")
    first = view.curve(one)
    slider.scroll_into_view_if_needed()
    box = slider.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + box["height"] / 2)
    page.mouse.down()
    for step in range(40):                                  # along the whole track, as fast as the page takes it
        page.mouse.move(box["x"] + box["width"] * (0.3 + 0.6 * step / 39), box["y"] + box["height"] / 2)
    page.mouse.up()
    assert view.curve(one) != first
    assert one.locator("tbody td").first.inner_text().startswith("rounds T = 40, ")
    assert not view.picture().is_visible()                  # beside the living widget it would say everything twice
    one.locator(".flx-plot > svg").first.hover()
    assert len(one.locator(".flx-tip").first.inner_text().splitlines()) >= 2
    view.theme("JupyterLab Dark")
    assert axe(page, "section.flx") == []
    page.screenshot(path=view.shots / "dark.png")
    view.theme("JupyterLab Light")


WIDGETS = [("fraction", "client_fraction_explorer()"), ("drift", "drift_explorer()"), ("drift", "proximal_explorer()"),
           ("sandwich", "privacy_sandwich_explorer()"), ("theatre", 'Theatre({"B": "upload"})'),
           ("compression", "compression_explorer()"), ("personalisation", "personalisation_explorer()"),
           ("selection", "selection_explorer()"), ("asynchrony", "asynchrony_explorer()"),
           ("robustness", "playground_explorer()"), ("robustness", "attack_explorer()"),
           ("capstones", "hospitals_explorer()"), ("tour", "tour_explorer()"), ("scale", "scale_explorer()")]


def test_every_widget_of_the_lessons_answers(lab, chromium, tmp_path):
    """All of them on one page: move the first range by keyboard, and see words and drawing change; look at both themes."""
    address, home = lab
    lessons = "".join(path.read_text("utf-8") for path in (ROOT / "source" / "lessons").glob("*.py"))
    shown = set(re.findall(r"^(\w+_explorer|Theatre)\(", lessons, re.MULTILINE))
    assert shown == {call.split("(")[0] for _, call in WIDGETS}
    cells = [f"from fl_course.workbook.widgets.{file} import {call.split('(')[0]}\n{call}" for file, call in WIDGETS]
    view = Page(chromium, address, tmp_path)
    page = view.page
    view.open(written(home, "widgets", cells).name)
    view.menu("Run", "Run All Cells")
    sections = page.locator("section.flx")
    picture = "e => [...e.querySelectorAll('svg')].map(s => s.outerHTML).join() + e.innerText"
    for place, (_, call) in enumerate(WIDGETS):
        section = sections.nth(place)
        section.wait_for(timeout=120_000)
        slider = section.locator("input[type=range]").first
        slider.scroll_into_view_if_needed()
        before = section.evaluate(picture)
        slider.focus()
        page.keyboard.press("ArrowRight")
        if "Theatre" not in call:
            view.settled(section)
        assert section.evaluate(picture) != before, f"{call} did not answer"
        assert not section.locator(".flx-error:visible").count()
        section.screenshot(path=tmp_path / f"{call.split('(')[0]}.png")
    assert axe(page, "section.flx") == []
    view.check_clean()
    page.close()
    shut_down(address)


def test_a_dashboard_runs_beside_the_notebook_and_is_stored_as_it_ended(lab, chromium, tmp_path):
    """Started in the page while other cells work; saved; opened again without a kernel: the picture of the whole run."""
    address, home = lab
    path = written(home, "dashboard", ["""\
from fl_course import *
from fl_course.workbook.widgets.dashboard import Dashboard
fed = Coordinator(digits().partition(Shards(1), 10), logistic(64, 10), LocalSGD(0.1, 20), Synchronous(0.5))
dashboard = Dashboard(fed, 60)
dashboard""", "print('answer', 6 * 7, dashboard.explorer.live.status)", "print('rounds', len(dashboard.wait(60)))"])
    (home / "02_heterogeneity.ipynb").write_text("{}")
    view = Page(chromium, address, tmp_path)
    page = view.page
    view.open(path.name)
    cells = page.locator(".jp-CodeCell")
    cells.first.locator(".cm-content").click()
    page.keyboard.press("Shift+Enter")
    section = page.locator("section.flx")
    section.wait_for(timeout=120_000)
    section.get_by_role("button", name="Start").press("Enter")
    page.locator(".flx[data-status=running] progress").wait_for()
    cells.nth(1).locator(".cm-content").click()
    page.keyboard.press("Shift+Enter")
    cells.nth(1).get_by_text("answer 42 running").wait_for()
    page.keyboard.press("Shift+Enter")
    cells.nth(2).get_by_text("rounds 60").wait_for()
    view.settled(section)
    link = section.locator(".flx-notes a", has_text="lesson 02")
    assert link.evaluate("a => a.href").endswith("/tree/02_heterogeneity.ipynb")
    assert axe(page, "section.flx") == []
    view.save()
    view.check_clean()
    page.close()
    shut_down(address)
    stored = json.loads(path.read_text("utf-8"))["cells"][0]["outputs"]
    assert "".join(stored[0]["data"]["text/plain"]).startswith("A federation at work: round 60 of 60, ")
    view = Page(chromium, address, tmp_path)
    view.open(path.name)
    picture = view.picture()
    picture.scroll_into_view_if_needed()
    assert picture.is_visible()
    assert picture.bounding_box()["width"] > 300
    view.check_clean()
    view.page.close()
    shut_down(address)


def test_a_lesson_page_with_a_widget_has_no_serious_finding(lab, chromium, tmp_path):
    address, home = lab
    view = Page(chromium, address, tmp_path)
    view.open(shutil.copy(LESSON, home / LESSON.name).name)
    view.menu("Run", "Run All Cells")
    section = view.page.locator("section.flx").first
    section.wait_for(timeout=180_000)
    section.scroll_into_view_if_needed()
    assert axe(view.page, "section.flx") == []
    view.check_clean()
    view.page.close()
    shut_down(address)


def test_exported_pages_feedback_and_index_have_no_serious_finding(chromium, tmp_path):
    from fl_course.workbook.commands.export import index_page, to_html
    from fl_course.workbook.grading.gradebook import Grade, feedback

    pages = [to_html(path, tmp_path / f"{path.parent.name}-{path.stem}.html")
             for path in (ROOT / "notebooks" / "05_compression.ipynb", ROOT / "exercises" / "01_fedavg.ipynb")]
    pages.append(index_page([(page.name, "a chapter") for page in pages], tmp_path / "index.html"))
    found = {name: {"state": state, "message": "expected 1, got 2", "hint": "Look at the axis."}
             for name, state in [("01.a", "pass"), ("01.b", "fail"), ("01.c", "todo")]}
    (tmp_path / "feedback.html").write_text(feedback(Grade("somebody.ipynb", found, 1.0)), "utf-8")
    page = chromium.new_page()
    for path in [*pages, tmp_path / "feedback.html"]:
        page.goto(path.as_uri())
        assert axe(page) == [], path.name
    page.close()


def errors_are_red_and_the_notebook_stays_usable(view: Page, one) -> None:
    page = view.page
    one.get_by_label("fail in round 3").check()
    problem = one.locator(".flx-error")
    problem.wait_for()
    assert problem.inner_text() == "ValueError: a failure that was asked for in round 3"
    red, green, blue = problem.evaluate("e => getComputedStyle(e).color.match(/[0-9]+/g).slice(0, 3).map(Number)")
    assert red > 1.5 * max(green, blue)
    page.screenshot(path=view.shots / "error.png")
    one.get_by_label("fail in round 3").uncheck()
    problem.wait_for(state="hidden")
    view.settled(one)

    one.get_by_role("button", name="Slow run").click()     # four seconds; meanwhile another cell runs
    page.locator(".flx[data-status=running] progress").first.wait_for()
    page.locator(".jp-CodeCell").nth(2).locator(".cm-content").click()
    page.keyboard.press("Control+Enter")
    page.locator(".jp-CodeCell").nth(2).get_by_text("answer 42 running").wait_for()
    assert one.get_attribute("data-status") == "running"


def interrupt_and_run_again(view: Page, one) -> None:
    page = view.page
    assert one.get_attribute("data-status") == "running"
    view.menu("Kernel", "Interrupt Kernel")
    page.locator(".flx[data-status=stopped]").wait_for()
    one.get_by_role("button", name="Slow run").click()
    page.locator(".flx[data-status=running] progress").first.wait_for()
    one.get_by_role("button", name="Stop").click()
    page.locator(".flx[data-status=stopped]").wait_for()

    one.get_by_role("button", name="Slow run").click()
    page.locator(".flx[data-status=running] progress").first.wait_for()
    page.locator(".jp-CodeCell").nth(1).locator(".cm-content").click()
    page.keyboard.press("Control+Enter")                    # the same cell again: the old run ends with its widget
    page.locator(".flx[data-status=done]").nth(1).wait_for()
    assert page.locator(".flx").count() == 2
    page.locator(".jp-CodeCell").nth(2).locator(".cm-content").click()
    page.keyboard.press("Control+Enter")
    page.locator(".jp-CodeCell").nth(2).get_by_text("answer 42 done 4 widgets").wait_for()     # two, with their layouts


def a_restarted_kernel_is_said(view: Page, one) -> None:
    """In the middle of a run: no "training …" that lasts for ever."""
    page = view.page
    one.scroll_into_view_if_needed()
    one.get_by_role("button", name="Slow run").click()
    page.locator(".flx[data-status=running] progress").first.wait_for()
    view.menu("Kernel", "Restart Kernel…")
    page.locator(".jp-Dialog-button.jp-mod-accept").click()
    page.locator(".flx[data-status=alone]").first.wait_for()
    assert "has lost its kernel" in one.locator(".flx-error").inner_text()
    assert one.locator(".flx-status").inner_text() == ""
    idle(page, view.address)


def idle(page, address: str) -> None:
    """Wait until the one kernel of the server is ready and a page is connected to it."""
    for _ in range(200):
        kernels = json.load(urllib.request.urlopen(f"{address}/api/kernels"))
        if [(kernel["execution_state"], kernel["connections"] > 0) for kernel in kernels] == [("idle", True)]:
            return
        page.wait_for_timeout(200)
    raise RuntimeError(f"no kernel is idle: {kernels}")


def shut_down(address: str) -> None:
    for session in json.load(urllib.request.urlopen(f"{address}/api/sessions")):
        request = urllib.request.Request(f"{address}/api/sessions/{session['id']}", method="DELETE")
        for _ in range(20):
            try:
                urllib.request.urlopen(request).close()
                break
            except urllib.error.HTTPError:                  # in the middle of a restart
                time.sleep(0.5)


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
