"""The SIMD kernels of the pages that train: fl_course/workbook/page/kernels.wat → kernels.wasm.txt, in base64.

    python tools/build_kernels.py            writes it
    python tools/build_kernels.py --check    fails if the text has changed since

Needs `pip install wasmtime`, which brings an assembler. What it makes is checked in, so nobody else does.
"""

from __future__ import annotations

import base64
import sys
from pathlib import Path

PAGE = Path(__file__).parents[1] / "fl_course" / "workbook" / "page"


def built() -> str:
    """The module of kernels.wat in base64, 76 letters a line."""
    from wasmtime import wat2wasm

    return base64.encodebytes(without_names(bytes(wat2wasm((PAGE / "kernels.wat").read_text(encoding="utf-8"))))).decode()


def without_names(module: bytes) -> bytes:
    """A module without its custom sections (kind 0): the names of locals, which no engine needs."""
    kept, at = module[:8], 8                                     # magic and version
    while at < len(module):
        size, shift, head = 0, 0, at + 1
        while True:                                              # LEB128
            byte, head = module[head], head + 1
            size, shift = size | (byte & 127) << shift, shift + 7
            if byte < 128:
                break
        kept += module[at : head + size] if module[at] else b""
        at = head + size
    return kept


def main(arguments: list[str]) -> int:
    stored, new = PAGE / "kernels.wasm.txt", built()
    if arguments == ["--check"]:
        if stored.read_text(encoding="utf-8") != new:
            print(f"{stored.name} is not what {PAGE / 'kernels.wat'} makes; run python tools/build_kernels.py")
            return 1
        return 0
    stored.write_text(new, encoding="utf-8")
    print(f"{stored}: {len(base64.b64decode(new))} bytes of WebAssembly")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
