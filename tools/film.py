"""The moving picture of the README: a real explorer in a real Chromium, its slider moved, each frame a real training run.

    .venv/bin/python tools/film.py            writes docs/explorer.gif (needs the extra `browser` and a Chromium)

The page's half of the widget is loaded into a bare page, the kernel's half runs in this process, as in Jupyter. Frames are
taken whenever the picture has changed, and shown at an even pace: the film says what happens, not how fast.
"""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from fl_course.workbook.widgets.explorer import Explorer
from fl_course.workbook.widgets.sandwich import privacy_sandwich_explorer

FILM = Path(__file__).parents[1] / "docs" / "explorer.gif"
MOVES = (64.0, 2048.0, 0.25, 2.0)                       # where ε goes, one after the other
WIDTH, HEIGHT = 1000, 440                               # pixels; the table below the charts is left out
FRAME, HOLD = 90, 1500                                  # milliseconds of a frame, and of the last one of a run
HOST = """async ([state, module]) => {
  const { default: widget } = await import(URL.createObjectURL(new Blob([module], { type: "text/javascript" })));
  const heard = {};
  window.tell = (name, value) => { state[name] = value; (heard["change:" + name] ?? []).forEach((act) => act()); };
  const model = { get: (name) => state[name], on: (name, act) => (heard[name] ??= []).push(act), off: () => {},
                  send: (message) => window.kernel(JSON.stringify(message)) };
  widget.render({ model, el: document.querySelector("main") });
}"""


def shot(page: Page, explorer: Explorer) -> Image.Image:
    """The widget as it stands now."""
    page.evaluate("(frame) => tell('frame', frame)", {**explorer.live.frame(), "number": explorer._last["number"] + 1})
    explorer._last = {**explorer._last, "number": explorer._last["number"] + 1}
    page.wait_for_timeout(40)
    return Image.open(io.BytesIO(page.screenshot(animations="disabled"))).convert("RGB")


def film(explorer: Explorer) -> tuple[list[Image.Image], list[int]]:
    """(pictures, milliseconds of each) of the first control on its way through MOVES."""
    with sync_playwright() as driver:
        program = shutil.which("chromium") or shutil.which("google-chrome")
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
        page.expose_function("kernel", lambda text: explorer._heard(None, json.loads(text), []))
        style = "body { margin: 0; padding: 6px; background: white; overflow: hidden } .flx-table { display: none }"
        page.set_content(f"<style>{explorer._css}{style}</style><main></main>")
        page.evaluate(HOST, [{"spec": explorer.spec, "frame": explorer.frame}, explorer._esm])
        pictures, times = [shot(page, explorer)], [HOLD]
        stops = explorer.live.controls[0]
        for value in MOVES:
            slider = page.locator("input[type=range]").first
            here, there = int(slider.input_value()), stops.values.index(value)  # type: ignore[attr-defined]
            for position in range(here, there, 1 if there > here else -1):
                slider.press("ArrowRight" if there > position else "ArrowLeft")
                pictures.append(shot(page, explorer))
                times.append(FRAME)
            for _ in range(400):
                done, picture = explorer.live.wait(0), shot(page, explorer)      # in this order, or the end is missed
                if picture.tobytes() != pictures[-1].tobytes():
                    pictures.append(picture)
                    times.append(FRAME)
                if done:
                    break
            times[-1] = HOLD
        browser.close()
    return pictures, times


def main() -> None:
    pictures, times = film(privacy_sandwich_explorer())
    some = pictures[:: max(1, len(pictures) // 8)]
    together = Image.new("RGB", (WIDTH, HEIGHT * len(some)))
    for number, picture in enumerate(some):
        together.paste(picture, (0, HEIGHT * number))
    colours = together.quantize(96)
    flat = [picture.quantize(palette=colours, dither=Image.Dither.NONE) for picture in pictures]
    flat[0].save(FILM, save_all=True, append_images=flat[1:], duration=times, loop=0, optimize=True)
    print(f"{FILM}: {len(pictures)} pictures, {FILM.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
