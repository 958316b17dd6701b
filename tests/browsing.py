"""A Chromium for tests of pages, or a skip that says why there is none."""

from __future__ import annotations

import shutil

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]


def chromium():
    """A context manager: a headless browser."""
    api = pytest.importorskip("playwright.sync_api", reason="no playwright here (pip install -e .[browser])")
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")
    return _Browser(api)


class _Browser:
    def __init__(self, api) -> None:
        self.api = api

    def __enter__(self):
        self.driver = self.api.sync_playwright().start()
        self.browser = self.driver.chromium.launch(executable_path=CHROMIUM, headless=True, args=FLAGS)
        return self.browser

    def __exit__(self, *why) -> None:
        self.browser.close()
        self.driver.stop()
