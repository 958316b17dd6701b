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
import re
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import anywidget
import numpy as np
import traitlets
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ...core import ClientId
from ...secure_aggregation import STAGES, Message, Round, Setup, insecure_random
from .cells import VIEW, display_stored, enter_cell
from .explorer import page
from .lies import LIES, SECRET, Lie, roles
from .plots import PALETTE

CAST, THRESHOLD, SERVER, RING = ("A", "B", "C", "D", "E"), 4, "server", 16
INPUTS: dict[ClientId, np.ndarray] = {name: np.array(row, np.uint16) for name, row in zip(
    CAST, [(12, 250, 3, 77), (100, 90, 80, 70), (1, 2, 3, 4), (255, 0, 255, 0), (33, 66, 99, 132)], strict=True)}
LATER = "this round ends before it comes to that"
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
    """One round as plain data. drops: client -> one of STAGES, before which it vanishes; lie: one of LIES.

    A lie that this round has no place for is not told, and the scene says so (`lies`: key, text, why not).
    """
    if lie not in LIES:
        raise ValueError(f"lie must be one of {', '.join(map(repr, LIES))}, not {lie!r}")
    drops = drops or {}
    honest, opened, _ = _round(drops, Lie(_setup(), "", "", ""))
    said, heard = _kinds(honest)
    parts = {key: roles(key, CAST, said, heard) for key in LIES if key}
    if opened is None:
        parts["client"] = None                              # nobody opens the shares that it would falsify
    who = parts.get(lie)
    told = Lie(_setup(), lie, *who) if who else Lie(_setup(), "", "", "")
    secure, total, before = _round(drops, told)
    seen = {name: view.tolist() for name, view in secure.server.view.items()}
    steps = [_step(message, number in told.told) for number, message in enumerate(secure.messages)]
    early = _place(secure.events, before, steps)
    scene = {
        "steps": steps,
        "clients": [_client(name, steps, drops, secure, seen) for name in CAST],
        "before": early,
        "lies": [[key, Lie(told.setup, key, *(parts.get(key) or CAST[:2])).text, "" if not key or parts[key] else LATER]
                 for key in LIES],
        "lie": {"text": told.text, "at": min(told.told, default=-1), "caught": _caught(secure, told, steps)} if who else None,
        "sum": None if total is None else total.tolist(),
        "truth": None if total is None else np.sum([INPUTS[n] for n in secure.server.survivors], axis=0, dtype=int).tolist(),
    }
    return {**scene, "outcome": _outcome(secure, scene, lie)}


def _setup() -> Setup:
    return Setup(insecure_random(SECRET, "theatre")(16), CAST, THRESHOLD, 4, RING)


def _round(drops: Mapping[Any, str], lie: Lie) -> tuple[Round, Any, list[int]]:
    """A whole round; its sum, or None; and for each message how many events there were before it."""
    before: list[int] = []

    def network(message: Message) -> bytes:
        before.append(len(secure.events))
        return lie.network(message)

    hashes: dict[ClientId, bytes] = {lie.victim: b"another"} if lie.key == "model" else {}
    secure = Round(lie.setup, drops, b"model", hashes, seed=SECRET, tamper=network)
    secure.open()
    for name in secure.ready:
        secure.upload(name, INPUTS[name])
    return secure, secure.close(), before


def _kinds(secure: Round) -> tuple[dict[str, set], dict[str, set]]:
    """kind of message -> who sent one, who received one."""
    said, heard = defaultdict(set), defaultdict(set)
    for message in secure.messages:
        said[message.kind.removeprefix("secagg-")].add(message.sender)
        heard[message.kind.removeprefix("secagg-")].add(message.receiver)
    return said, heard


def _step(message: Message, lie: bool) -> dict[str, Any]:
    kind = message.kind.removeprefix("secagg-")
    return {"from": str(message.sender), "to": str(message.receiver), "kind": kind, "stage": STAGE_OF[kind], "lie": lie,
            "bytes": message.nbytes, "first": message.data[:20].hex(" "), "why": WHY[kind], "events": [], "left": ""}


def _place(events: list[str], before: list[int], steps: list[dict]) -> list[str]:
    """Put each event at the message that made it; returns those of before the first message.

    Messages of one kind are delivered to all before the first client opens its own: a client that leaves does so at the last
    message *to* it, and one that is ignored at the last message *from* it.
    """
    early: list[str] = []
    for number, event in enumerate(events):
        last = bisect_right(before, number) - 1
        if found := re.match(r"client '(\w+)' left: (.*)", event):
            last = max(i for i in range(last + 1) if steps[i]["to"] == found[1])
            steps[last]["left"] = found[2]
        elif found := re.match(r"the server ignored a message of '(\w+)'", event):
            last = max(i for i in range(last + 1) if steps[i]["from"] == found[1])
        (steps[last]["events"] if last >= 0 else early).append(event)
    return early


def _client(name: str, steps: list[dict], drops: Mapping[str, str], secure: Round, seen: Mapping[Any, list[int]]) -> dict:
    """What is known about a client and from which step on; -1: never. `asked`: which secret the server asks for, and why."""
    def first(found: Any) -> int:
        return next((i for i, step in enumerate(steps) if found(step)), -1)

    left = first(lambda s: s["to"] == name and s["left"])
    gone = first(lambda s: name in drops and STAGES.index(s["stage"]) >= STAGES.index(drops[name])) if left < 0 else left
    asked = "nothing: it is not part of this sum"
    if name in secure.server.survivors:
        asked = "its self-mask seed, because its numbers are in the sum"
    elif name in secure.server.dropped:
        asked = "its mask key, because it dropped and its pair masks are left in the sum of the others"
    return {
        "name": name, "truth": INPUTS[name].tolist(), "seen": seen.get(name), "gone": gone, "left": left >= 0,
        "uploaded": first(lambda s: s["kind"] == "masked" and s["from"] == name) if name in seen else -1,
        "asked": asked, "asking": first(lambda s: s["kind"] == "unmask"),
    }  # fmt: skip


def _caught(secure: Round, lie: Lie, steps: list[dict]) -> list[list]:
    """Who sees through the lie, at which message, and what gives it away: clients; the server if it is a client that lies."""
    if lie.key == "client":
        wrong = "its shares do not open the seed that was committed to" if secure.aborted is None else secure.aborted
        return [["the server", len(steps) - 1, wrong]] if secure.server.liars or secure.aborted else []
    return [[f"client {step['to']}", i, step["left"]] for i, step in enumerate(steps) if step["left"]]


def _outcome(secure: Round, scene: Scene, wanted: str) -> str:
    if scene["sum"] is None:
        text = f"The round is aborted: {secure.aborted}."
    else:
        text = f"The server has the sum of {', '.join(map(str, secure.server.survivors))} and no single vector."
    if secure.server.liars:
        text += f" Shares of {', '.join(map(str, secure.server.liars))} were wrong: the commitment to the seed gave it away."
    if wanted and scene["lie"] is None:
        text += f" The lie was not told: {LATER}."
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
                    arrowprops={"arrowstyle": "->", "color": PALETTE[number], "linewidth": 1.2, "shrinkA": 0, "shrinkB": 0,
                                "linestyle": ":" if step["lie"] else "-"})
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

    _esm = page("page.js", "theatre.js")
    _css = page("explorer.css", "theatre.css")
    spec = traitlets.Dict().tag(sync=True)
    scene = traitlets.Dict().tag(sync=True)              # only the kernel writes it

    def __init__(self, drops: Mapping[str, str] | None = None, lie: str = "") -> None:
        first = {"drops": dict(drops or {}), "lie": lie}
        spec = {"clients": list(CAST), "stages": list(STAGES), "threshold": THRESHOLD}
        take_down = enter_cell()
        super().__init__(spec={**spec, **first}, scene={**play(drops, lie), "move": 0})
        self.on_msg(self._heard)
        take_down(self)

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
        display_stored(*self._repr_mimebundle_())

    def __repr__(self) -> str:
        return summary(self.scene)
