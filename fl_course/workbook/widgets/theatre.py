"""The theatre of secure aggregation: a whole round of the real protocol, to step through message by message.

    play(drops, lie)      a round of five clients as plain data: every message, who sees what, which secrets are opened
    draw_round(ax, play)  the round as a ladder of arrows; a pure function of that data
    Theatre()             both in a notebook cell: step forward and back, let clients vanish, let the server lie

The protocol is that of `fl_course.secure_aggregation`, with vectors of four numbers modulo 2^16. Its secrets come from a
fixed seed, so that the stored picture is always the same: a stage, not a vault.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anywidget
import numpy as np
import traitlets
from IPython.display import display
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ...core import ClientId
from ...secure_aggregation import STAGES, Message, Round, Setup, insecure_random, messages
from .explorer import MARK, VIEW
from .plots import PALETTE

HERE = Path(__file__).parent
CAST, THRESHOLD, SERVER, RING = ("A", "B", "C", "D", "E"), 4, "server", 16
INPUTS: dict[ClientId, np.ndarray] = {name: np.array(row, np.uint16) for name, row in zip(
    CAST, [(12, 250, 3, 77), (100, 90, 80, 70), (1, 2, 3, 4), (255, 0, 255, 0), (33, 66, 99, 132)], strict=True)}
LIES = {
    "": "the server is honest",
    "both": "asks for both secrets of A",
    "sets": "tells B that A has dropped out",
    "key": "puts its own key in A's place",
    "share": "alters a share on its way to B",
    "model": "sends B another model",
    "client": "no, but client B sends wrong shares",
}
STAGE_OF = {
    "advertise": "advertise", "roster": "advertise", "shares": "share", "inbox": "share", "masked": "upload",
    "survivors": "consistency", "consistent": "consistency", "unmask": "unmask", "unmasked": "unmask",
}  # fmt: skip
WHY = {
    "advertise": "two fresh public keys, signed: one to encrypt shares, one to agree on masks",
    "roster": "everybody's public keys; from its own secret key and another's public key each pair computes the same mask seed",
    "shares": "Shamir shares of its self-mask seed and of its mask key, one encrypted pair of shares for each other client",
    "inbox": "the shares that the others made for this client; the server carries them and cannot open them",
    "masked": "its numbers plus its self mask plus or minus a mask for every pair: uniform, whatever the numbers were",
    "survivors": "the names of those whose masked numbers arrived",
    "consistent": "a signature of that list, so that the server cannot tell different lists to different clients",
    "unmask": "the request: self-mask seeds of those who are in the sum, mask keys of those who dropped, and never both",
    "unmasked": "one share for each name: of the seed or of the key, as asked",
}
Scene = dict[str, Any]


def play(drops: Mapping[Any, str] | None = None, lie: str = "") -> Scene:
    """One round as plain data. drops: client -> one of STAGES, before which it vanishes; lie: one of LIES."""
    if lie not in LIES:
        raise ValueError(f"lie must be one of {', '.join(map(repr, LIES))}, not {lie!r}")
    setup = Setup(insecure_random(1, "theatre")(16), CAST, THRESHOLD, 4, RING)
    heard: list[int] = []                                # events there were when each message was on its way

    def network(message: Message) -> bytes:
        heard.append(len(secure.events))
        return _tampered(message, setup, lie)

    hashes: dict[ClientId, bytes] = {"B": b"another"} if lie == "model" else {}
    secure = Round(setup, drops or {}, b"model", hashes, seed=1, tamper=network)
    secure.open()
    for name, numbers in INPUTS.items():
        secure.upload(name, numbers)
    total = secure.close()
    seen = {name: view.tolist() for name, view in secure.server.view.items()}
    ends = [*heard, len(secure.events)][1:]
    steps = [_step(message, secure.events[a:b]) for message, a, b in zip(secure.messages, heard, ends, strict=True)]
    return {
        "steps": steps,
        "clients": [_client(name, steps, drops or {}, secure, seen) for name in CAST],
        "before": secure.events[: heard[0]] if heard else list(secure.events),
        "outcome": _outcome(secure, total, lie),
        "sum": None if total is None else total.tolist(),
        "truth": None if total is None else np.sum([INPUTS[n] for n in secure.server.survivors], axis=0, dtype=int).tolist(),
    }


def _tampered(message: Message, setup: Setup, lie: str) -> bytes:
    kind, data = message.kind.removeprefix("secagg-"), message.data
    if lie == "both" and kind == "unmask":
        survivors, dropped, signatures = messages.decode_unmask(setup, data)
        return messages.encode_unmask(setup, survivors, dropped | {"A"}, signatures)
    if lie == "sets" and kind == "survivors" and message.receiver == "B":
        return messages.encode_survivors(setup, messages.decode_survivors(setup, data) - {"A"})
    if lie == "key" and kind == "roster" and message.receiver != "A":
        forged = messages.Keys("A", bytes(range(32)), bytes(range(1, 33)), bytes(64))
        return messages.encode_roster(setup, [forged if k.client == "A" else k for k in messages.decode_roster(setup, data)])
    if lie == "share" and kind == "inbox" and message.receiver == "B":
        boxes = messages.decode_inbox(setup, data)
        name, box = next(iter(boxes.items()))
        return messages.encode_inbox(setup, boxes | {name: bytes([box[0] ^ 1]) + box[1:]})
    if lie == "client" and kind == "unmasked" and message.sender == "B":
        sender, digest, seeds, keys = messages.decode_unmasked(setup, data)
        return messages.encode_unmasked(setup, sender, digest, {i: bytes([s[0] ^ 1]) + s[1:] for i, s in seeds.items()}, keys)
    return data


def _step(message: Message, events: list[str]) -> dict[str, Any]:
    kind = message.kind.removeprefix("secagg-")
    return {"from": str(message.sender), "to": str(message.receiver), "kind": kind, "stage": STAGE_OF[kind],
            "bytes": message.nbytes, "first": message.data[:20].hex(" "), "why": WHY[kind], "events": list(events)}


def _client(name: str, steps: list[dict], drops: Mapping[str, str], secure: Round, seen: Mapping[Any, list[int]]) -> dict:
    """What is known about a client and from which step on; -1: never. `asked`: which secret the server asks for, and why."""
    def first(found: Any) -> int:
        return next((i for i, step in enumerate(steps) if found(step)), -1)

    gone = first(lambda s: name in drops and STAGES.index(s["stage"]) >= STAGES.index(drops[name]))
    asked = "nothing: it is not part of this sum"
    if name in secure.server.survivors:
        asked = "its self-mask seed, because its numbers are in the sum"
    elif name in secure.server.dropped:
        asked = "its mask key, because it dropped and its pair masks are left in the sum of the others"
    return {
        "name": name, "truth": INPUTS[name].tolist(), "seen": seen.get(name), "gone": gone,
        "uploaded": first(lambda s: s["kind"] == "masked" and s["from"] == name) if name in seen else -1,
        "asked": asked, "asking": first(lambda s: s["kind"] == "unmask"),
    }  # fmt: skip


def _outcome(secure: Round, total: Any, lie: str) -> str:
    if total is None:
        return f"The round is aborted: {secure.aborted}."
    names = ", ".join(map(str, secure.server.survivors))
    text = f"The server has the sum of {names} and no single vector."
    if secure.server.liars:
        text += f" Shares of {', '.join(map(str, secure.server.liars))} were wrong: the commitment to the seed gave it away."
    return text


# --- pictures and text ----------------------------------------------------------------------------------------------------


def draw_round(ax: Axes, scene: Scene) -> None:
    """Messages from top to bottom, an arrow each, coloured by stage; × where a client has vanished."""
    places = {name: i for i, name in enumerate((*CAST, SERVER))}
    steps = scene["steps"]
    for client in scene["clients"]:
        end = client["gone"] if client["gone"] >= 0 else len(steps)
        ax.plot([places[client["name"]]] * 2, [-0.5, end - 0.5], color="#999999", linewidth=0.8)
        if client["gone"] >= 0:
            ax.plot(places[client["name"]], end - 0.5, marker="x", color="black", markersize=8)
    ax.plot([places[SERVER]] * 2, [-0.5, len(steps) - 0.5], color="#555555", linewidth=1.4)
    for i, step in enumerate(steps):
        number = STAGES.index(step["stage"])
        ax.annotate("", (places[step["to"]], i), (places[step["from"]], i),
                    arrowprops={"arrowstyle": "->", "color": PALETTE[number], "linewidth": 1.2, "shrinkA": 0, "shrinkB": 0})
    for number, stage in enumerate(STAGES):
        ax.plot([], [], color=PALETTE[number], label=stage)
    ax.set(xticks=range(len(places)), xticklabels=places, xlim=(-0.4, len(places) - 0.6), ylim=(max(len(steps), 1), -1),
           ylabel="message")
    ax.xaxis.tick_top()
    ax.spines[["top", "right", "bottom"]].set_visible(False)
    ax.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)


def summary(scene: Scene) -> str:
    """The round in a few sentences."""
    gone = [f"{c['name']} vanishes" for c in scene["clients"] if c["gone"] >= 0]
    total = sum(step["bytes"] for step in scene["steps"])
    drops = f" {', '.join(gone)}." if gone else ""
    return f"A round of secure aggregation: {len(scene['steps'])} messages, {total} bytes.{drops} {scene['outcome']}"


# --- the widget -----------------------------------------------------------------------------------------------------------


class Theatre(anywidget.AnyWidget):
    """A round to step through. The page asks for another play, the kernel runs the protocol; stepping needs no kernel."""

    _esm = HERE / "theatre.js"
    _css = (HERE / "explorer.css").read_text("utf-8") + (HERE / "theatre.css").read_text("utf-8")
    spec = traitlets.Dict().tag(sync=True)
    scene = traitlets.Dict().tag(sync=True)              # only the kernel writes it

    def __init__(self, drops: Mapping[str, str] | None = None, lie: str = "") -> None:
        first = {"drops": dict(drops or {}), "lie": lie}
        spec = {"clients": list(CAST), "stages": list(STAGES), "lies": [list(pair) for pair in LIES.items()],
                "threshold": THRESHOLD}
        super().__init__(spec={**spec, **first}, scene={**play(drops, lie), "move": 0})
        self.on_msg(self._heard)

    def _heard(self, widget: Any, content: dict[str, Any], buffers: Any) -> None:
        """{"do": "play", "drops": {client: stage}, "lie": …, "move": a number}; the answer carries the number."""
        try:
            self.scene = {**play(dict(content["drops"]), content["lie"]), "move": content["move"]}
        except (KeyError, TypeError, ValueError) as error:
            self.scene = {**self.scene, "outcome": f"The page asked for something that cannot be played: {error}"}

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None, **kwargs: Any) -> tuple[dict, dict]:
        """The live view, and for readers without a kernel a picture of the round and its summary."""
        text, scene = summary(self.scene), self.scene
        figure = Figure(figsize=(6.4, 0.6 + 0.13 * len(scene["steps"])), dpi=80, layout="constrained")
        FigureCanvasAgg(figure)
        draw_round(figure.add_subplot(), scene)
        png = io.BytesIO()
        figure.savefig(png, format="png", metadata={"Software": None})
        view = {"version_major": 2, "version_minor": 0, "model_id": self.model_id}
        picture = base64.b64encode(png.getvalue()).decode()
        return {"text/plain": text, "image/png": picture, VIEW: view}, {"image/png": {"alt": text}}

    def _ipython_display_(self) -> None:
        """Picture, mark, view: as `Explorer` does, and for the same readers."""
        data, metadata = self._repr_mimebundle_()
        view = data.pop(VIEW)
        display(data, metadata=metadata, raw=True)
        display({"text/html": MARK}, raw=True)
        display({VIEW: view, "text/plain": ""}, raw=True)

    def __repr__(self) -> str:
        return summary(self.scene)
