"""Pages that train: an explorer's recipe, what the page makes of it, and the page itself in a real Chromium."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from dataclasses import replace

import nbformat
import numpy as np
import pytest
from browsing import chromium

from fl_course import ConvNet, Coordinator, Dirichlet, FederatedData, LocalSGD, Synchronous, digits, logistic, mlp
from fl_course.core import stream
from fl_course.privacy.accounting import RDP, Gaussian, PoissonSampled, noise_for_budget
from fl_course.workbook.commands.export import to_html
from fl_course.workbook.page import HERE, engine, kernels
from fl_course.workbook.widgets import BarChart, Button, Chart, Choice, Explorer, Point, Slider
from fl_course.workbook.widgets import compression as chapter5
from fl_course.workbook.widgets import fraction as chapter1
from fl_course.workbook.widgets import sandwich as chapter3
from fl_course.workbook.widgets import tour as chapter0
from fl_course.workbook.widgets.cells import MARK, VIEW
from fl_course.workbook.widgets.recipe import By, Recipe
from fl_course.workbook.widgets.recipe_page import LIVING

NODE = shutil.which("node")
LESSONS = {"0": (chapter0.tour_explorer, chapter0.RECIPE),
           "1": (chapter1.client_fraction_explorer, chapter1.RECIPE),
           "3": (chapter3.privacy_sandwich_explorer, chapter3.RECIPE),
           "5": (chapter5.compression_explorer, chapter5.RECIPE)}  # fmt: skip


@pytest.fixture(scope="module")
def explorers():
    return {name: make() for name, (make, _) in LESSONS.items()}


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


# --- the recipe says what the experiment does -----------------------------------------------------------------------------


def positions(explorer, number, seed=0):
    """Some random places of the controls, as {name: index}, the start among them."""
    rng, controls = stream(seed, "places", number), explorer.live.controls
    yield {c.name: c.start for c in controls}
    for _ in range(number):
        yield {c.name: int(rng.integers(len(c.values))) for c in controls}


def at_values(explorer, at):
    return {c.name: c.values[at[c.name]] for c in explorer.live.controls}


def test_recipes_are_the_experiments_of_the_explorers(explorers):
    for at in positions(explorers["1"], 5):
        values = at_values(explorers["1"], at)
        training = LocalSGD(lr=0.1, epochs=values["epochs"], batch_size=10)
        data, schedule = chapter1.digit_clients(values["alpha"]), Synchronous(values["fraction"])
        assert chapter1.RECIPE.coordinator(**values) == Coordinator(data, mlp(64, 32, 10), training, schedule)
    for at in positions(explorers["5"], 12):
        values = at_values(explorers["5"], at)
        stages = chapter5.stack(values["percent"] / 100, values["bits"], values["feedback"])
        training, schedule = chapter5.TRAINING, Synchronous(chapter5.FRACTION)
        run = Coordinator(chapter5.two_shards(), chapter5.MODEL, training, schedule, stages=stages)
        assert chapter5.RECIPE.coordinator(**values) == run
    for at in positions(explorers["3"], 3):
        values = at_values(explorers["3"], at)
        rate = values["cohort"] / chapter3.CLIENTS
        z = noise_for_budget(values["epsilon"], chapter3.DELTA, chapter3.ROUNDS, rate, RDP())
        stage = chapter3.CentralDP(values["clip"], z, chapter3.DELTA, accountant=RDP(), noise_seed=0)
        assert chapter3.RECIPE.coordinator(**values) == chapter3.federation(values["cohort"], [stage])


    for at in positions(explorers["0"], 3):
        values = at_values(explorers["0"], at)
        stages = chapter0.stack(values["epsilon"], values["percent"], values["fraction"])
        mine, theirs = chapter0.RECIPE.coordinator(**values), chapter0.federation(values["fraction"], stages)
        assert replace(mine, fleet=theirs.fleet) == theirs                               # the fleet moves the clock alone


SHOP = """const posted = [];
    await new Promise((done) => {
      const hear = FL.workshop((message) => {
        posted.push(message);
        if (message.ready) { hear({ ticket: 1, at: data.places[0] }); hear({ ticket: 2, at: data.places[0] }); }
        if (message.ticket === 2 && message.point && posted.length < 20) hear({ ticket: 3, stop: true });
        if (message.ticket === 3) done();
      });
      hear({ recipe: data.recipe, counts: data.counts, simd: data.simd, at: data.places[0] });
    });
    return JSON.stringify(posted.map(({ ticket, point, end }) => [ticket ?? 0, point ? "point" : end ?? "ready"]));"""


def test_a_workshop_leaves_a_run_that_is_no_longer_wanted_at_once(explorers, play):
    """The wish before the newest costs one round at most, and a stop ends the run."""
    posted = play(chapter1.RECIPE, explorers["1"].live.controls, list(positions(explorers["1"], 0)), SHOP)
    assert posted[0] == [0, "ready"]
    assert posted.count([1, "point"]) <= 1
    assert 1 <= posted.count([2, "point"]) <= 2
    assert posted[-1] == [3, "stopped"]
    assert [2, "done"] not in posted


LOST = """const posted = [], hear = FL.workshop((message) => posted.push(message));
    await hear({ recipe: { ...data.recipe, x: "AA" }, counts: data.counts, simd: data.simd, at: data.places[0] });
    await hear({ ticket: 1, at: data.places[0] });
    await hear({ ticket: 2, at: data.places[0] });
    return JSON.stringify(posted);"""


def test_a_workshop_that_cannot_unpack_its_examples_says_so_at_every_wish(explorers, play):
    """A reader who moves a slider again reads why, not that something runs."""
    posted = play(chapter1.RECIPE, explorers["1"].live.controls, list(positions(explorers["1"], 0)), LOST)
    assert len(posted) == 3
    assert all(list(message) == ["failed"] and message["failed"] for message in posted)


def test_all_that_a_page_carries_is_read_there(explorers):
    script = (HERE / "recipe.js").read_text(encoding="utf-8")
    for name, (_, recipe) in LESSONS.items():
        unread = [key for key in recipe.plain(explorers[name].live.controls) if not re.search(rf"recipe\.{key}\b", script)]
        assert unread == []


class Play:
    """FL.play of a recipe in Node, or in a page: places of the controls → all points of each run."""

    def __init__(self, browser) -> None:
        self.page = None
        if NODE is None:
            self.page = browser.new_page()
            self.page.add_script_tag(content=engine("recipe.js"))

    def __call__(self, recipe, controls, places, body=""):
        data = {"recipe": recipe.plain(controls), "counts": {c.name: len(c.values) for c in controls}, "places": places,
                "simd": kernels()}  # fmt: skip
        body = body or """const world = await FL.unpack(data.recipe, FL.simdKernels(data.simd));
            return JSON.stringify(data.places.map((at) => [...FL.play(world, at, data.counts)]));"""
        if self.page is not None:
            function = f"async (text) => {{ const data = JSON.parse(text); {body} }}"
            return json.loads(self.page.evaluate(function, json.dumps(data)))
        function = f"(async (data) => {{ {body} }})({json.dumps(data)})"
        script = f"{engine('recipe.js')}\n{function}.then((text) => process.stdout.write(text, () => process.exit()));"
        done = subprocess.run([NODE, "-"], input=script, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-2000:]
        return json.loads(done.stdout)


@pytest.fixture(scope="module")
def play(request):
    return Play(request.getfixturevalue("browser") if NODE is None else None)


def lines_of(points):
    found: dict[str, list] = {}
    for point in points:
        for name, place in (point.lines if isinstance(point, Point) else point["lines"]).items():
            found.setdefault(name, []).append([float(f"{number:.6g}") for number in place])
    return {name: np.array(places) for name, places in found.items()}


def test_the_fraction_page_draws_what_python_draws(explorers, play):
    explorer, places = explorers["1"], list(positions(explorers["1"], 5))
    for at, points in zip(places, play(chapter1.RECIPE, explorer.live.controls, places), strict=True):
        python = list(chapter1.client_fraction(**at_values(explorer, at)))
        mine, theirs = lines_of(points), lines_of(python)
        assert mine.keys() == theirs.keys()
        for name in theirs:
            assert np.array_equal(mine[name][:, 0], theirs[name][:, 0])                # rounds, and bytes
            assert np.abs(mine[name][:, 1] - theirs[name][:, 1]).max() < 3 / 359       # a ReLU may flip
        assert np.mean(mine["accuracy by round"] == theirs["accuracy by round"]) > 0.9
        assert re.sub(r"[\d.]+%", "", points[-1]["text"]) == re.sub(r"[\d.]+%", "", python[-1].text)


def test_the_compression_page_weighs_and_learns_as_python_does(explorers, play):
    explorer = explorers["5"]
    whole = [{"percent": 12, "bits": 5, "feedback": 0}, {"percent": 12, "bits": 0, "feedback": 1}]
    places = [*positions(explorer, 5), *whole]
    for at, points in zip(places, play(chapter5.RECIPE, explorer.live.controls, places), strict=True):
        values = at_values(explorer, at)
        python = list(chapter5.compression(**values))
        mine, theirs = lines_of(points), lines_of(python)
        sent = mine["accuracy by MB"][:, 0] / theirs["accuracy by MB"][:, 0]
        assert np.abs(sent - 1).max() < (1e-9 if values["percent"] == 100 else 0.02), values
        bars, expected = (dict(some["bytes of one update"]) for some in (points[0]["bars"], python[0].bars))
        assert bars.keys() == expected.keys()
        for name in bars:
            assert bars[name] == pytest.approx(expected[name], rel=1e-6 if name == "formula" else 0.1), (name, values)
        last = [lines["accuracy by round"][-10:, 1].mean() for lines in (mine, theirs)]
        assert abs(last[0] - last[1]) < (0.02 if values["bits"] in (1, 32) else 0.1), values


def test_the_epsilon_page_prices_as_python_does_and_its_noise_is_as_strong(explorers, play):
    explorer = explorers["3"]
    places = [dict(zip(("epsilon", "clip", "cohort"), at, strict=True)) for at in ((3, 9, 3), (8, 4, 9), (0, 6, 1))]
    places.append({"epsilon": 13, "clip": 6, "cohort": 3})                                        # the image has come back
    for at, points in zip(places, play(chapter3.RECIPE, explorer.live.controls, places), strict=True):
        values = at_values(explorer, at)
        mine, theirs = lines_of(points), lines_of(chapter3.privacy_sandwich(**values))
        assert np.abs(mine["at most, by Rényi"] / theirs["at most, by Rényi"] - 1).max() < 2e-3        # z is known to 1e-4
        assert mine["at most, by Rényi"][-1, 1] <= values["epsilon"] * (1 + 1e-6)
        assert np.abs(mine["without clip and noise"] - theirs["without clip and noise"]).max() < 2 / 359
        assert points[0]["images"] == points[-1]["images"]
        assert abs(mine["with this noise"][-5:, 1].mean() - theirs["with this noise"][-5:, 1].mean()) < 0.12
        image, guess = (np.array(points[0]["images"][name]) for name in chapter3.RECIPE.picture)
        first = chapter3.tiny_clients().x[0].reshape(8, 8)
        assert np.abs(image - first).max() < 6e-4
        z = noise_for_budget(values["epsilon"], chapter3.DELTA, chapter3.ROUNDS, values["cohort"] / chapter3.CLIENTS, RDP())
        label, draw = int(chapter3.tiny_clients().y[0]), stream(0, "attack", "many")
        luck = [chapter3.psnr(first.ravel(), chapter3.attacked(first.ravel(), label, values["clip"], z, draw)) for _ in range(40)]
        assert min(luck) - 1 < chapter3.psnr(first, guess) < max(luck) + 1
        assert f"has {chapter3.psnr(first, guess):.0f} dB" in points[0]["text"]
        assert points[-1]["text"] == ""


def test_the_tour_moves_three_sliders_as_python_does(explorers, play):
    explorer, places = explorers["0"], [{"epsilon": 4, "percent": 3, "fraction": 3}, {"epsilon": 9, "percent": 6, "fraction": 9}]
    for at, points in zip(places, play(chapter0.RECIPE, explorer.live.controls, places), strict=True):
        mine, theirs = lines_of(points), lines_of(chapter0.tour(**at_values(explorer, at)))
        assert mine.keys() == theirs.keys()
        for name in (chapter0.POOLED, chapter0.ALONE):
            assert np.array_equal(mine[name], theirs[name])
        assert np.abs(mine["ε spent"] / theirs["ε spent"] - 1).max() < 2e-3
        assert np.abs(mine["accuracy by megabyte"][:, 0] / theirs["accuracy by megabyte"][:, 0] - 1).max() < 0.02
        assert abs(mine[chapter0.TOGETHER][-8:, 1].mean() - theirs[chapter0.TOGETHER][-8:, 1].mean()) < 0.06
    assert np.abs(mine[chapter0.TOGETHER][-1, 1] - theirs[chapter0.TOGETHER][-1, 1]) < 0.03                  # little noise


def test_noise_for_a_budget_is_the_librarys_to_its_tolerance(play):
    runs = ((1e-4, 15, 0.2), (1e-5, 100, 0.05), (1e-3, 5, 1))
    cases = [(eps, *run) for eps in (0.25, 2, 64, 1024) for run in runs]
    script = f"""{engine()}\nconsole.log(JSON.stringify({json.dumps(cases)}.map((c) => {{ const z = FL.noiseFor(...c);
        return [z, FL.epsilon(FL.renyi(c[3], z), c[2], c[1])]; }})));"""
    if NODE is None:
        pytest.skip("no Node here; the page's prices are tested above")
    got = json.loads(subprocess.run([NODE, "-"], input=script, capture_output=True, text=True, check=True).stdout)
    for (eps, delta, rounds, rate), (z, price) in zip(cases, got, strict=True):
        assert z == pytest.approx(noise_for_budget(eps, delta, rounds, rate, RDP()), rel=3e-4)
        assert eps * 0.998 < price <= eps * (1 + 1e-9)
        assert price == pytest.approx(RDP().epsilon([PoissonSampled(rate, Gaussian(z))] * rounds, delta), rel=1e-9)


# --- a stranger's own explorer ---------------------------------------------------------------------------------------------


def own(title="Mine", names=("Ana", "b</script>", 'c"'), **more):
    """Seven people with names, fractional pixels, one control that follows two at once."""
    rng = stream(3, "own")
    x, y = np.float32(rng.normal(size=(90, 5))), rng.integers(3, size=90)
    people = tuple(names) + tuple(range(7 - len(names)))
    rows = np.array_split(np.arange(80), 7)
    fed = FederatedData("own", x[:80], y[:80], 3, people, tuple(r[3:] for r in rows), tuple(r[:3] for r in rows), x[80:], y[80:])

    def experiment(rate, half, again):
        for _, record in recipe.coordinator(rate=rate, half=half).run(4):
            yield Point({"right": (record.version, record.metrics["accuracy"])}, text="Python's")

    recipe = Recipe(data=fed, model=mlp(5, 6, 3), rounds=4, epochs=2, batch_size=None, lines={"right": ("round", "accuracy")},
                    lr=By(("rate", "half"), of=lambda rate, half: rate / 10 * (0.5 if half == "half" else 1)), fraction=0.5,
                    text="Round {round}: {accuracy:.1%} with {planned} of us, rate {lr:.3f}", **more)  # fmt: skip
    controls = [Slider("rate", 1, 5, value=2, label="rate <b>"), Choice("half", ["whole", "half"]), Button("again", label="Go")]
    charts = [Chart("right", "round", "accuracy"), BarChart("nothing of it", "bytes")]
    return Explorer(experiment, controls, charts, title=title, recipe=recipe), recipe


def test_a_federation_of_named_clients_with_real_numbers_trains_alike(play):
    explorer, recipe = own()
    places = [{"rate": i, "half": j, "again": 0} for i in (0, 4) for j in (0, 1)]
    for at, points in zip(places, play(recipe, explorer.live.controls, places), strict=True):
        values = at_values(explorer, at)
        steps = [record for _, record in recipe.coordinator(**values).run(4)]
        assert [place[1] for place in lines_of(points)["right"]] == [float(f"{r.metrics['accuracy']:.6g}") for r in steps]
        assert points[0]["text"].endswith(f"with 4 of us, rate {values['rate'] / (20 if values['half'] == 'half' else 10):.3f}")


FED = digits().partition(Dirichlet(1.0), 30, seed=0)
GOOD = {"data": FED, "model": logistic(64, 10), "rounds": 3, "lines": {"a": ("round", "accuracy")}}


@pytest.mark.parametrize(("change", "words"), [
    ({"model": ConvNet(8, 10, widths=(4,))}, "dense networks with softmax"), ({"data": digits()}, "FederatedData"),
    ({"rounds": 0}, "whole number from 1"), ({"rounds": 2.5}, "whole number from 1"), ({"fraction": 2}, "in (0, 1]"),
    ({"epochs": 0}, "whole number from 1"), ({"lr": "fast"}, "positive, finite number"), ({"lr": float("nan")}, "positive"),
    ({"keep": 0.0}, "in (0, 1]"), ({"bits": 20}, "from 1 to 16, or 32"), ({"clip": -1}, "above 0"), ({"noise": np.inf}, "finite"),
    ({"feedback": 1}, "True or False"), ({"seed": 1.5}, "whole number"), ({"budget": 0}, "positive, finite epsilon"),
    ({"lines": {"a": ("round", "luck")}}, "'luck'; a page knows round"), ({"bars": {"b": ("mass",)}}, "'mass'; a page knows"),
    ({"text": "{accuracy} and {speed}"}, "speaks of 'speed'"), ({"text": "{accuracy:>9}"}, "as '>9'; a page can write"),
    ({"clip": 1.0, "noise": 1.0}, "poisson=True, uniform=True"), ({"clip": 1.0, "budget": 1.0}, "poisson=True, uniform=True"),
    ({"clip": 1.0, "noise": 1.0, "poisson": True, "uniform": True, "bits": 8}, "noise goes with keep alone"),
])  # fmt: skip
def test_what_no_page_can_train_is_refused_at_once(change, words):
    with pytest.raises((ValueError, TypeError), match=re.escape(words)):
        Recipe(**{**GOOD, **change})


@pytest.mark.parametrize(("change", "words"), [
    ({"lr": By("rat")}, "'rat'; there are rate, many"), ({"epochs": By("press")}, "'press'; there are rate, many"),
    ({"lr": By(("many", "rate"))}, "positions together; a page takes"),
    ({"lines": {"b": ("round", "accuracy")}}, "no chart of the explorer"),
    ({"model": logistic(63, 10)}, "64"),
    ({"clip": 2.0}, "use weights=Uniform()"),
])  # fmt: skip
def test_a_recipe_that_does_not_fit_its_explorer_is_refused_when_that_is_built(change, words):
    controls = [Slider("rate", 1, 100), Slider("many", 1, 100), Button("press")]
    with pytest.raises((ValueError, TypeError), match=re.escape(words)):
        Explorer(lambda rate, many, press: [], controls, [Chart("a", "x", "y")], eager=False, recipe=Recipe(**{**GOOD, **change}))
    with pytest.raises(TypeError, match=r"must be a Recipe\(…\), or None"):
        Explorer(lambda rate, many, press: [], controls, [Chart("a", "x", "y")], eager=False, recipe={"data": FED})


def test_a_position_at_which_a_setting_cannot_be_is_refused_when_the_page_is_made():
    controls = [Slider("rate", 0, 3, value=2)]
    recipe = Recipe(**{**GOOD, "lr": By("rate")})
    explorer = Explorer(lambda rate: [], controls, [Chart("a", "x", "y")], eager=False, recipe=recipe)
    with pytest.raises(ValueError, match=re.escape("lr must be a positive, finite number, or By(…) that returns such, not 0")):
        explorer._repr_mimebundle_()


def test_numpys_numbers_are_numbers():
    theirs = {"rounds": np.int64(3), "lr": By("rate", of=np.float32), "seed": np.int32(4), "feedback": np.bool_(False)}
    recipe = Recipe(**{**GOOD, **theirs})
    plain = recipe.plain([Slider("rate", 1, 2)])
    assert json.loads(json.dumps(plain))["tables"]["lr"]["at"] == [1.0, 2.0]


def test_other_examples_at_another_position_and_too_many_of_them_are_refused():
    other = FederatedData("other", FED.x[::-1], FED.y[::-1], 10, FED.ids, FED.train, FED.test, FED.x_test, FED.y_test)
    recipe = Recipe(**{**GOOD, "data": By("which", of=lambda which: other if which == 1 else FED)})
    with pytest.raises(ValueError, match="the same examples and clients"):
        recipe.plain([Slider("which", 0, 1)])
    x, y = np.float32(stream(0, "big").normal(size=(4000, 200))), np.zeros(4000, int)
    big = FederatedData("big", x, y, 2, (0,), (np.arange(4000),), (np.arange(0),), x[:5], y[:5])
    with pytest.raises(ValueError, match="a page takes 1,500,000 at most"):
        Recipe(**{**GOOD, "data": big, "model": logistic(200, 2)}).plain([])
    with pytest.raises(ValueError, match="has no recipe"):
        Explorer(lambda n: iter([{"a": (1, n)}]), [Slider("n", 1, 2)], [Chart("a", "x", "y")]).save_page("nowhere.html")


# --- the page ----------------------------------------------------------------------------------------------------------------


class Opened:
    """A page from a file, in a browser that tells every request and every error."""

    def __init__(self, browser, path, **more) -> None:
        self.errors, self.requests, self.context = [], [], browser.new_context(**more)
        self.page = self.context.new_page()
        self.page.set_default_timeout(30_000)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())

    def settled(self):
        self.page.wait_for_selector(".flx[data-settled='true']")
        return self

    @property
    def text(self) -> str:
        return self.page.locator(".flx-text").first.inner_text()

    def close(self) -> None:
        assert not self.errors, self.errors
        assert not [url for url in self.requests if not url.startswith(("file:", "blob:", "data:"))]
        self.context.close()


@pytest.fixture(scope="module")
def pages(explorers, tmp_path_factory):
    folder, found = tmp_path_factory.mktemp("pages"), {}
    for name, explorer in [*explorers.items(), ("own", own("</script><i>Mine")[0])]:
        found[name] = explorer.save_page(folder / f"{name}.html")
    return found


def test_pages_are_small_and_name_no_address(pages):
    for path in pages.values():
        page = path.read_text(encoding="utf-8")
        assert len(page.encode()) <= 300_000
        assert not re.search(r"""(?:src|href)=["']?(?:https?:)?//|@import|fetch\(|XMLHttpRequest""", page)


@pytest.mark.browser
def test_a_page_is_driven_by_keys_and_says_who_trains(browser, pages, explorers):
    view = Opened(browser, pages["1"]).settled()
    assert view.text == explorers["1"].live.shown.text                       # what Python has drawn, before anything is touched
    view.page.wait_for_selector("text=(SIMD kernels in a Worker)")
    slider = view.page.locator("input[type=range]").first
    slider.focus()
    for _ in range(3):
        view.page.keyboard.press("ArrowRight")
    view.settled()
    assert slider.get_attribute("aria-valuetext") == "0.25"
    expected = list(chapter1.client_fraction(0.25, 5, 1.0))[-1].text
    assert view.text == expected
    view.page.get_by_role("button", name="Pin").click()
    slider.focus()
    view.page.keyboard.press("End")
    view.settled()
    assert [row.inner_text().split("\t")[0] for row in view.page.locator("tbody tr").all()] == ["now", "pin 1"]
    assert "now: client fraction C = 1" in view.page.locator(".flx-legend").first.inner_text()
    assert view.page.locator("path[data-line='1']").count() == 2
    view.page.get_by_role("button", name="Reset").click()
    view.settled()
    assert view.page.locator("tbody tr").count() == 1
    assert view.text == explorers["1"].live.shown.text
    view.close()


@pytest.mark.browser
def test_the_latest_wish_wins_and_a_stop_keeps_what_is_drawn(browser, pages):
    view = Opened(browser, pages["1"]).settled()
    slider = view.page.locator("input[type=range]").nth(1)
    slider.focus()
    view.page.keyboard.press("End")
    for key in ["ArrowLeft"] * 4 + ["ArrowRight"] * 2:
        view.page.keyboard.press(key)
    view.settled()
    assert view.text == list(chapter1.client_fraction(0.1, 8, 1.0))[-1].text
    assert view.page.locator("figure").first.locator("circle[r='2.2']").count() == 20     # not a point of another run among them
    view.page.evaluate("""() => {
        const inputs = document.querySelectorAll("input[type=range]"), words = document.querySelector(".flx-text");
        for (const [input, to] of [[inputs[0], 19], [inputs[1], 9]]) {        // everybody, ten epochs: slow
          input.value = to;
          input.dispatchEvent(new Event("input"));
        }
        new MutationObserver((_, watch) => {
          if (!/After round [2345]:/.test(words.textContent)) return;
          watch.disconnect();
          document.querySelector("[data-do=stop]").click();
        }).observe(words, { childList: true, characterData: true, subtree: true }); }""")
    view.page.wait_for_selector(".flx[data-status='stopped']")
    assert 2 <= int(re.match(r"After round (\d+)", view.text)[1]) < 20
    view.close()


REFUSALS = {"Workers": ("worker-src 'none'; script-src 'unsafe-inline' 'wasm-unsafe-eval'",
                        "SIMD kernels on this page’s own thread"),
            "WebAssembly": ("worker-src blob:; script-src 'unsafe-inline' blob:", "plain kernels in a Worker"),
            "both": ("worker-src 'none'; script-src 'unsafe-inline'", "plain kernels on this page’s own thread")}  # fmt: skip


@pytest.mark.browser
@pytest.mark.parametrize("refused", REFUSALS)
def test_where_a_policy_refuses_workers_or_webassembly_the_page_trains_all_the_same(browser, pages, refused, tmp_path):
    policy, words = REFUSALS[refused]
    path, meta = tmp_path / "strict.html", f'<head><meta http-equiv="Content-Security-Policy" content="{policy}">'
    path.write_text(pages["1"].read_text(encoding="utf-8").replace("<head>", meta), encoding="utf-8")
    view = Opened(browser, path).settled()
    view.page.wait_for_selector(f"text=({words})")
    view.page.locator("input[type=range]").first.focus()
    view.page.keyboard.press("ArrowRight")
    view.settled()
    assert view.text == list(chapter1.client_fraction(0.15, 5, 1.0))[-1].text
    view.close()


@pytest.mark.browser
def test_without_javascript_the_picture_stays(browser, pages):
    view = Opened(browser, pages["5"], java_script_enabled=False)
    assert view.page.locator(".flx-living img").is_visible()
    assert view.page.locator(".flx-living img").get_attribute("alt").startswith("Compressed updates")
    view.close()


@pytest.mark.browser
def test_names_and_titles_of_strangers_are_text(browser, pages):
    view = Opened(browser, pages["own"]).settled()
    assert view.page.locator(".flx-title").inner_text() == "</script><i>Mine"
    view.page.get_by_role("button", name="Go").click()
    view.settled()
    assert view.text.startswith("Round 4: ")
    assert view.page.locator("figure").count() == 1                                  # the bars that it does not draw are left out
    view.close()


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", LESSONS)
def test_nothing_serious_is_found_and_a_phone_shows_all_of_it(browser, pages, name, scheme):
    tool = pytest.importorskip("axe_playwright_python.sync_playwright", reason="no axe here (pip install -e .[browser])")
    phone = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True, "color_scheme": scheme}
    view = Opened(browser, pages[name], **phone).settled()
    found = tool.Axe().run(view.page).response["violations"]
    assert not [v["id"] for v in found if v["impact"] in ("serious", "critical")]
    assert view.page.evaluate("document.documentElement.scrollWidth") <= 360
    touched = ".flx input[type=range], .flx button, .flx select, .flx-control, .flx-how summary"
    low = view.page.evaluate("""(touched) => [...document.querySelectorAll(touched)]
        .filter((node) => node.getBoundingClientRect().height < 44).map((node) => node.outerHTML.slice(0, 80))""", touched)
    assert low == []
    page, words = view.page.evaluate("""() => { const style = getComputedStyle(document.querySelector(".flx"));
        return [style.backgroundColor, style.color].map((c) => c.match(/\\d+/g).reduce((a, b) => a + Number(b), 0)); }""")
    assert (page > words) == (scheme == "light")
    view.page.locator("input[type=range]").first.tap()
    view.settled()
    view.close()


@pytest.mark.browser
@pytest.mark.parametrize(("name", "rounds"), [("0", 20), ("1", 20), ("3", 15), ("5", 20)])
def test_a_first_point_comes_within_50_milliseconds_and_twenty_rounds_within_200(browser, pages, name, rounds):
    """The best of some tries: other programs may be at work on this machine."""
    view = Opened(browser, pages[name]).settled()
    view.page.wait_for_timeout(500)
    first, whole = [], []
    for number in range(12):
        took = view.page.evaluate("""([step, rounds]) => new Promise((found) => {
            const input = document.querySelector("input[type=range]"), words = document.querySelector(".flx-text");
            let began = 0, first = 0;
            new MutationObserver((_, watch) => {
              const round = Number(words.textContent.match(/After round (\\d+)/)[1]), now = performance.now() - began;
              if (!first && round < 12) first = now;
              if (first && round >= rounds) { watch.disconnect(); found([first, now]); }
            }).observe(words, { childList: true, characterData: true, subtree: true });
            input.value = Number(input.value) + step; began = performance.now(); input.dispatchEvent(new Event("input"));
        })""", [1 if number % 2 == 0 else -1, rounds])  # fmt: skip
        first.append(took[0])
        whole.append(took[1])
        view.settled()
        if min(first) <= 50 and min(whole) <= 200:
            break
    if (min(first) > 50 or min(whole) > 200) and os.getloadavg()[0] > (os.cpu_count() or 1):
        pytest.skip(f"this machine is busy: {min(first):.0f} and {min(whole):.0f} ms at a load of {os.getloadavg()[0]:.1f}")
    assert min(first) <= 50
    assert min(whole) <= 200
    view.close()


# --- in an exported notebook ---------------------------------------------------------------------------------------------


def notebook(folder, *explorers):
    """A notebook as Jupyter stores it: picture and recipe, mark, view."""
    cells = [nbformat.v4.new_markdown_cell("# A lesson")]
    for explorer in explorers:
        bundle, metadata = explorer._repr_mimebundle_()
        view = bundle.pop(VIEW)
        outputs = [(bundle, metadata), ({"text/html": MARK}, {}), ({VIEW: view, "text/plain": ""}, {})]
        cells.append(nbformat.v4.new_code_cell("explorer()", execution_count=1, outputs=[
            nbformat.v4.new_output("display_data", data=data, metadata=meta) for data, meta in outputs]))  # fmt: skip
    path = folder / "lesson.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    return path


def test_an_exported_notebook_lives_where_it_has_a_recipe_and_keeps_its_picture_elsewhere(explorers, tmp_path):
    still = Explorer(lambda n: iter([{"a": (1, n)}]), [Slider("n", 1, 2)], [Chart("a", "x", "y")], title="Still")
    page = to_html(notebook(tmp_path, still), tmp_path / "still.html").read_text(encoding="utf-8")
    assert "flx-engine" not in page
    assert page.count("<img") == 1
    page = to_html(notebook(tmp_path, explorers["1"], still, explorers["5"]), tmp_path / "alive.html").read_text(encoding="utf-8")
    assert page.count('id="flx-engine"') == 1
    assert page.count('class="flx-living"') == 2
    assert page.count("<img") == 3
    assert "vnd.fl-course" not in page


def test_a_stored_output_is_the_same_each_time_and_plain_data(explorers):
    one, two = (explorers["5"]._repr_mimebundle_()[0][LIVING] for _ in range(2))
    assert json.dumps(one, allow_nan=False) == json.dumps(two, allow_nan=False)


@pytest.mark.browser
def test_two_explorers_of_an_exported_notebook_train_side_by_side(browser, explorers, tmp_path):
    path = to_html(notebook(tmp_path, explorers["1"], explorers["5"]), tmp_path / "two.html")
    view = Opened(browser, path)
    view.page.wait_for_function("document.querySelectorAll('.flx').length === 2")
    for place in (0, 1):
        view.page.locator(".flx").nth(place).locator("input[type=range]").first.focus()
        view.page.keyboard.press("ArrowRight")
    view.page.wait_for_function("[...document.querySelectorAll('.flx')].every((e) => e.dataset.settled === 'true')")
    words = [each.inner_text() for each in view.page.locator(".flx-text").all()]
    assert words[0] == list(chapter1.client_fraction(0.15, 5, 1.0))[-1].text
    assert words[1].startswith("After round 40: ")
    view.close()
