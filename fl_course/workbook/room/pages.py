"""The two pages of the room, each one text without requests: what a client opens, and what is on the wall."""

from __future__ import annotations

import json
from pathlib import Path

from ..page import engine, kernels

PAGE = 1                # a page of another number is asked to load again
HERE = Path(__file__).parent / "page"


def client_page() -> str:
    scripts = [engine(), f"const KERNELS = {json.dumps(kernels())}, PAGE = {PAGE};", _text("draw.js"), _text("client.js")]
    return _page("client.html", scripts)


def projector_page(url: str) -> str:
    """url: where clients go; as text and as a QR picture."""
    known = f"const URL_OF_ROOM = {json.dumps(url)}, QR = {json.dumps(qr(url))};"
    return _page("projector.html", [_text("draw.js"), known, _text("projector.js")])


def qr(url: str) -> str:
    """An SVG picture of an address, or "" without the library that draws it."""
    try:
        import segno
    except ImportError:
        return ""
    return str(segno.make(url, error="m", micro=False).svg_inline(scale=6, border=2, dark="#000", light="#fff", omitsize=True))


def _page(html: str, scripts: list[str]) -> str:
    code = "\n".join(scripts).replace("</", "<\\/")
    return _text(html).replace("/*CSS*/", _text("room.css")).replace("/*JS*/", code)


def _text(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")
