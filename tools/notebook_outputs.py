"""Outputs of an executed cell, made reproducible: no addresses, no widget models, no dates inside pictures."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import struct

import nbformat

ADDRESS = re.compile(r"\b0x[0-9a-f]{6,16}\b", re.IGNORECASE)
CELL_FILE = re.compile(r"[^\s\"'<>]*ipykernel_\d+[\\/]\d+\.py")
WIDGET = "application/vnd.jupyter.widget-view+json"              # its model id is random; a picture stands beside it
PNG = b"\x89PNG\r\n\x1a\n"
PNG_NOTES = (b"tEXt", b"zTXt", b"iTXt", b"tIME", b"eXIf")        # who drew it, with what, and when


class Untidy(Exception):
    """An output that cannot be made reproducible."""


def tidy(cell: nbformat.NotebookNode, folder: str) -> None:
    """Rewrite the outputs of a code cell in place; `folder` is the temporary folder it ran in."""
    if cell.cell_type != "code":
        return
    kept = {key: value for key, value in cell.metadata.items() if key in ("tags", "jupyter", "nbgrader")}
    cell.metadata = nbformat.from_dict(kept)
    cell.outputs = merge_streams(cell.outputs)
    for output in cell.outputs:
        if output.output_type == "stream":
            if output.name == "stderr":
                raise Untidy(f"writes to stderr (a warning? a progress bar?): {output.text.strip()[:300]}")
            output.text = clean(output.text, folder)
        for mime in list(output.get("data", {})):
            if mime == WIDGET:
                del output.data[mime]
            elif mime == "image/png":
                output.data[mime] = plain_png(output.data[mime])
            elif isinstance(output.data[mime], str):
                output.data[mime] = clean(output.data[mime], folder)


def digest_of_outputs(node: nbformat.NotebookNode) -> str:
    """sha256 of all outputs with their cells' numbers, and of the source that they belong to."""
    source = node.metadata.get("fl_course", {}).get("source_sha256")
    shown = [[cell.get("execution_count"), cell.get("outputs")] for cell in node.cells if cell.cell_type == "code"]
    return hashlib.sha256(json.dumps([source, shown], sort_keys=True).encode()).hexdigest()


def merge_streams(outputs: list) -> list:
    """How a text was cut into messages is chance: neighbours of the same stream become one."""
    merged: list = []
    for output in outputs:
        last = merged[-1] if merged else None
        if last is not None and output.output_type == last.output_type == "stream" and output.name == last.name:
            last.text += output.text
        else:
            merged.append(output)
    return merged


def clean(text: str, folder: str) -> str:
    return CELL_FILE.sub("<cell>", ADDRESS.sub("0x…", text.replace(folder, "<folder>")))


def plain_png(encoded: str) -> str:
    """The same picture without its text and time chunks; base64 in, base64 out."""
    data = base64.b64decode(encoded)
    if not data.startswith(PNG):
        raise Untidy("an image/png output that is no PNG")
    kept, at = [PNG], len(PNG)
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        end = at + 12 + length                                   # length, kind, data, checksum
        if data[at + 4 : at + 8] not in PNG_NOTES:
            kept.append(data[at:end])
        at = end
    return base64.b64encode(b"".join(kept)).decode()
