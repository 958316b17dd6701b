"""A federation in the reader's browser, without Python: the engine, in plain JavaScript that imports nothing.

    random.js        SHA-256, Philox and NumPy's doubles and permutations; the batch plan; dice for noise
    network.js       dense networks and their SGD; kernels.wat has the same three inner loops with SIMD
    wire.js          messages ⇄ bytes
    stages.js        top-k, rounding, signs, clip and noise
    accounting.js    Rényi DP
    federation.js    the loop

Read in this order they are one script, `engine()`, which defines `FL` and nothing else: for a page, a Worker or Node. Around it:

    recipe.js        an explorer's recipe → the points of a run, in a Worker
    live.js          the host of an explorer that has no kernel

widgets/recipe.py says what a recipe is, widgets/recipe_page.py makes the page.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ...federation.interfaces import Stage

HERE = Path(__file__).parent
ENGINE = ("random.js", "network.js", "wire.js", "stages.js", "accounting.js", "federation.js")


def text(*names: str) -> str:
    """Files of this folder, one after the other."""
    return "\n".join((HERE / name).read_text(encoding="utf-8") for name in names)


def engine(*more: str) -> str:
    """The whole engine as one classic script: `const FL = {trainer, federation, encode, …}`, see the end of federation.js.

    more: files that come last and use its parts, such as recipe.js.
    """
    return f'const FL = (() => {{\n"use strict";\n{text(*ENGINE, *more)}\nreturn FL;\n}})();\n'


def stages(clip: float, noise: float, keep: float, bits: int, feedback: bool, **central: Any) -> list[Stage]:
    """The stages of the library that `pipeline(…)` of stages.js carries out. clip: inf is off; keep: 1 is off; bits: 32 is off,
    1 signs; feedback: of the first stage that loses something; central: what else CentralDP takes."""
    from ...compression.quantisation import QSGD, SignSGD
    from ...compression.sparse import TopK
    from ...privacy.central import CentralDP

    out: list[Stage] = []
    if clip < math.inf:
        out.append(CentralDP(clip, noise, **central))
    if keep < 1:
        out.append(TopK(keep, feedback))
    if bits == 1:
        out.append(SignSGD(feedback and not keep < 1))
    elif bits < 32:
        out.append(QSGD(bits))
    return out


def kernels() -> str:
    """The SIMD kernels, WebAssembly in base64: what `FL.simdKernels` takes. Built by tools/build_kernels.py."""
    return "".join(text("kernels.wasm.txt").split())
