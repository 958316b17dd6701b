"""The page that `fl-course run` leaves, and what becomes of a run whose folder cannot be written in the end."""

import base64
import os
import re
import shutil
from pathlib import Path

import nbformat
import pytest
from rich.console import Console
from workbook_fixtures import ROOT, built, with_small_files, write_notebook

import fl_course
from fl_course.federation.history import History
from fl_course.workbook.commands import cli, demo, front, places, runner

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
NUMBERS = "from fl_course.workbook import report\nreport(product=epsilon * rounds)"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder in which `fl-course run` has trained, two rounds."""
    out = tmp_path_factory.mktemp("trained")
    assert demo.run_demo(2, out, console=Console(quiet=True)) == 0
    return out


def text_of(path):
    return path.read_text(encoding="utf-8")


def images(page):
    return re.findall(r'<img src="data:image/png;base64,([^"]+)" alt="([^"]*)">', page)


# --- what stands on it ---


def test_the_page_says_what_was_run(trained, tmp_path):
    out = shutil.copytree(trained, tmp_path / "out")
    notebook = write_notebook(out / "mine.ipynb", NUMBERS, parameters="epsilon: float = 2.0\nrounds: int = 3")
    outcome = runner.run_notebook(notebook, tmp_path / "done" / "mine.ipynb", {"rounds": 5})
    page = text_of(front.front_page(out, [outcome]))
    history = History.from_json(out / "fedavg.json")
    for said in (f"fl_course {fl_course.__version__}", "seed", f"{history.last('accuracy'):.1%}", f"{history.megabytes:.1f} MB",
                 "rounds = 5", "epsilon = 2.0", "product = 10", "ok", "course.py lab", "fedavg.csv"):
        assert said in page, said
    assert re.search(r"<dt>seed</dt><dd>0</dd>", page)
    fed = demo.experiment()
    assert f"{len(fed.data.y):,} real handwritten digits at {len(fed.data)} clients" in page
    assert fed.schedule.fraction * len(fed.data) == 10


def test_every_chapter_has_its_card_and_the_page_stays_small(trained, tmp_path):
    out = shutil.copytree(trained, tmp_path / "out")
    path = front.front_page(out)
    page = text_of(path)
    assert path.stat().st_size < 1_500_000
    lessons = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
    assert len(images(page)) == 1 + len(lessons), "the training's picture, and one a chapter"
    assert all(len(alt) > 20 for _, alt in images(page))
    assert all(base64.b64decode(data).startswith(b"\x89PNG") for data, _ in images(page))
    for lesson in lessons:
        assert places.title(lesson).replace("&", "&amp;") in page
    assert not re.search(r"""(?:src|href)=["'](?:https?:)?//|<script|@import|url\(""", page)
    assert "prefers-color-scheme: dark" in page
    for name in re.findall(r'href="([^"#]+)"', page):
        assert (out / name).exists(), name


def test_one_notebook_shows_the_picture_above_its_numbers(tmp_path):
    picture = {key: base64.b64encode(b"\x89PNG" + key.encode()).decode() for key in "abc"}
    shown = [nbformat.v4.new_output("display_data", {"image/png": picture[key]}) for key in "abc"]
    cells = [nbformat.v4.new_code_cell(outputs=[output]) for output in shown]
    result = nbformat.v4.new_output("display_data", {front.RESULT_MIME: {"product": 6}})
    cells.insert(2, nbformat.v4.new_code_cell(outputs=[result]))
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "x.ipynb")
    outcome = runner.Outcome("x.ipynb", 4, 4, 1.0, "", tmp_path / "x.ipynb")
    assert [key for key in "abc" if picture[key] in text_of(front.front_page(tmp_path, [outcome]))] == ["b"]
    assert not any(picture[key] in text_of(front.front_page(tmp_path, [outcome, outcome])) for key in "abc")


@pytest.mark.slow
def test_earlier_runs_stay_on_the_page(run, tmp_path, monkeypatch):
    """One run after the other into one folder: each later page leads to what the earlier ones left."""
    monkeypatch.setattr(places, "course", built)
    other = write_notebook(tmp_path / "my & own.ipynb", NUMBERS, parameters="epsilon: float = 2.0\nrounds: int = 3")
    assert run("run", "99", "--out", "out")[0] == 0
    assert '<a href="99_tiny.html">' in text_of(Path("out/index.html"))
    code, said = run("run", other, "--out", "out")
    assert code == 0
    assert re.search(r"my & own\.ipynb +│ product +│ 6", said)
    (Path("out") / "grades").mkdir()
    (Path("out") / "grades" / "index.html").write_text("marks")
    code, said = run("run", "99", "--out", "out")
    page = text_of(Path("out/index.html"))
    assert "<dt>seed" not in page, "nothing was trained here"
    for link in ("99_tiny.html", "my%20%26%20own.html", "grades/index.html"):
        assert f'href="{link}"' in page
    assert not list(Path("out").glob(".*"))


@pytest.mark.parametrize("spoil", [
    lambda out: (out / "fedavg.json").write_text("{"), lambda out: (out / "fedavg.json").write_text('{"records": [3]}'),
    lambda out: (out / "fedavg.png").write_bytes(b"GIF89a"), lambda out: (out / "fedavg.png").unlink(),
    lambda out: (out / "fedavg.json").write_bytes(b"\xff\xfe"), lambda out: (out / "fedavg.json").write_text("[]"),
    lambda out: (out / "broken.ipynb").write_text("{") and (out / "broken.html").write_text("x"),
])  # fmt: skip
def test_what_was_cut_off_or_edited_is_left_out(trained, tmp_path, spoil):
    out = shutil.copytree(trained, tmp_path / "out")
    spoil(out)
    page = text_of(front.front_page(out))
    assert "The course" in page
    assert ("What was trained" in page) == (out / "broken.ipynb").exists()


def test_words_of_a_notebook_are_words(tmp_path):
    node = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# <script>alert(1)</script>")])
    nbformat.write(node, tmp_path / "a.ipynb")
    (tmp_path / "a.html").write_text("x")
    outcome = runner.Outcome("<b>.ipynb", 0, 1, 0.1, "<i>no</i>")
    page = text_of(front.front_page(tmp_path, [outcome]))
    assert not re.search("<script|<b>|<i>", page)
    assert "&lt;i&gt;no" in page


def test_the_legend_does_not_lie_over_the_curves(trained):
    figure = demo.picture(History.from_json(trained / "fedavg.json"))
    figure.canvas.draw()
    for ax in figure.axes:
        if (legend := ax.get_legend()) is not None:
            assert not legend.get_window_extent().overlaps(ax.get_window_extent())
    assert figure.axes[0].get_legend() is not None


# --- a folder that can no longer be written ---


def full(monkeypatch, after=0, everywhere=False):
    """From the (after + 1)-th file on the disk is full: that of the results, or every one."""
    left, opened = [after], os.open

    def open_(path, *how, **more):
        if str(path).endswith(".part") and (everywhere or Path(path).parent.name == "out"):
            left[0] -= 1
            if left[0] < 0:
                raise OSError(28, "No space left on device")
        return opened(path, *how, **more)

    monkeypatch.setattr(os, "open", open_)


def kept_in(said):
    return Path(re.search(r"is kept in (\S+)", said)[1].rstrip("│;"))


@pytest.mark.parametrize("after", [0, 1, 2])
def test_a_training_whose_folder_is_full_is_kept_elsewhere(run, tmp_path, monkeypatch, after):
    full(monkeypatch, after)
    code, said = run("train", "--rounds", "1", "--out", "out")
    assert code == 1
    assert "out cannot be written (No space left on device)" in said
    assert len(History.from_json(kept_in(said) / "fedavg.json")) == 1
    assert (kept_in(said) / "fedavg.png").read_bytes().startswith(b"\x89PNG")
    assert list(Path("out").iterdir()) == [], "all of it or nothing"
    shutil.rmtree(kept_in(said))


def test_an_executed_notebook_whose_folder_is_full_is_kept_elsewhere(run, tmp_path, monkeypatch):
    notebook = write_notebook(tmp_path / "lesson.ipynb", NUMBERS, parameters="epsilon: float = 2.0\nrounds: int = 3")
    full(monkeypatch)
    code, said = run("run", notebook, "--out", "out")
    assert code == 1
    assert "FAILED: out cannot be written (No space left on device)" in said
    assert "Traceback" not in said
    assert re.search(r"product +│ 6", said), "the numbers are printed"
    node = nbformat.read(kept_in(said) / "lesson.ipynb", 4)
    assert node.metadata.papermill.parameters == {}
    assert not Path("out/lesson.ipynb").exists()
    shutil.rmtree(kept_in(said))


def test_where_every_disk_is_full_the_numbers_are_printed(run, tmp_path, monkeypatch):
    notebook = write_notebook(tmp_path / "lesson.ipynb", NUMBERS, parameters="epsilon: float = 2.0\nrounds: int = 3")
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    full(monkeypatch, everywhere=True)
    code, said = run("run", notebook, "--out", "out")
    assert code == 1
    assert re.search(r"neither can \S+ \(No space left on device\): make room", said)
    assert re.search(r"product +│ 6", said)
    code, said = run("train", "--rounds", "1", "--out", "out")
    assert code == 1
    assert "neither can" in said
    assert re.search(r"After 1 rounds: accuracy \d+\.\d%", said)


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="bounds on the size of files")
def test_a_run_whose_files_may_not_be_large(tmp_path):
    """For real: no file may have more than 60 kB, so the record of 30 rounds cannot be written anywhere."""
    done = with_small_files(60_000, "train", "--out", tmp_path / "out")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert "cannot be written (File too large)" in done.stdout
    assert re.search(r"After 30 rounds: accuracy \d+", done.stdout)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_page_that_cannot_be_written_costs_nothing_else(run, tmp_path, monkeypatch):
    notebook = write_notebook(tmp_path / "lesson.ipynb", NUMBERS, parameters="epsilon: float = 2.0\nrounds: int = 3")

    def shut(out, outcomes):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(front, "front_page", shut)
    code, said = run("run", notebook, "--out", "out")
    assert code == 1
    assert "out/index.html cannot be written: Permission denied" in said
    assert re.search(r"product +│ 6", said)
    assert Path("out/lesson.ipynb").exists()
    assert Path("out/lesson.html").exists()


def test_two_notebooks_of_one_name_and_one_in_the_way_are_refused(run, tmp_path):
    one, two = (write_notebook(tmp_path / folder / "a.ipynb", "1") for folder in ("x", "y"))
    before = one.read_bytes()
    code, said = run("run", one, two, "--out", "out")
    assert code == 2
    assert "two notebooks are called a.ipynb" in said
    code, said = run("run", one, "--out", "x")
    assert code == 2
    assert "would be written over" in said
    assert one.read_bytes() == before
    assert not Path("out").exists()


def test_a_wrong_parameter_is_told_before_anything_is_trained(run, monkeypatch, tmp_path):
    notebook = write_notebook(tmp_path / "lesson.ipynb", "1", parameters="rounds: int = 3")
    monkeypatch.setattr(places, "tour", lambda: notebook)
    monkeypatch.setattr(cli, "_demo", lambda rounds, out: pytest.fail("it was trained"))
    assert run("run", "-p", "round", "3")[0] == 2


# --- in a browser ---


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine (Debian: apt-get install chromium)")
def test_the_page_in_a_browser(trained, tmp_path):
    """Light and dark, wide and narrow: nothing that axe finds, no request, nothing wider than a phone."""
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright here (pip install -e .[browser])")
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="no axe here (pip install -e .[browser])")
    out = shutil.copytree(trained, tmp_path / "out")
    outcome = runner.Outcome("a_very_long_name_of_a_notebook.ipynb", 3, 3, 1.0, "", built() / "notebooks" / "99_tiny.ipynb")
    path = front.front_page(out, [outcome])
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        grounds, asked = set(), []
        for scheme, width in (("light", 1200), ("dark", 1200), ("light", 360)):
            page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
            page.on("request", lambda request: asked.append(request.url))
            page.goto(path.as_uri())
            assert [found["id"] for found in axe.Axe().run(page).response["violations"]] == []
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            grounds.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        assert {url for url in asked if not url.startswith("data:")} == {path.as_uri()}
        assert len(grounds) == 2
        browser.close()
