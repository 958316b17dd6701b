"""The federation of the room: an experiment of the library whose clients are pages, its rounds, and what is shown of it.

    room = Room()                     # opens the page; room.url goes on the wall, as text and as a QR picture
    history = room.train(rounds=10)   # with whoever is there; or from the projector's page: room.projector_url
    room.close()
"""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ... import (
    IID,
    Buffered,
    ByExamples,
    Coordinator,
    Elsewhere,
    History,
    LocalSGD,
    Synchronous,
    Uniform,
    digits,
    mlp,
)
from ...core import FederatedError
from ...data.groups import few_examples
from ...federation.history import describe
from ...federation.state import State
from ...robustness.inversion import unit_inputs
from ...wire.frames import frame
from ...wire.messages import decode_update, encode_model
from ...wire.payloads import numbers
from ..page import stages
from .pages import qr
from .pupils import Pupils
from .seats import Refused
from .server import Server

# What the projector can set, with what it begins, and what it may be.
RULES: dict[str, tuple[Any, float, float]] = {
    "rounds": (10, 1, 1000), "epochs": (2, 1, 50), "lr": (0.3, 1e-4, 5.0), "batch": (5, 1, 100), "fraction": (1.0, 0.01, 1.0),
    "deadline": (20.0, 0.1, 600.0), "over": (0.0, 0.0, 1.0), "buffer": (0, 0, 1000),        # 0: rounds, else FedBuff
    "keep": (1.0, 0.001, 1.0), "bits": (0, 0, 16), "clip": (0.0, 0.0, 1000.0), "noise": (0.0, 0.0, 100.0),      # 0: off
}  # fmt: skip
SIZES = (64, 32, 10)
UNITS = 8                # whose moves the projector shows


class Stopped(Exception):
    """Somebody asked for the end of a run."""


class Room(Server):
    """seats: how many can come; share: handwritten digits that each page is dealt; lan: an address of this machine by which
    others reach it, such as "192.168.1.20" (without it, only this machine can); simulate: pages that a program plays."""

    def __init__(self, seats: int = 30, share: int = 20, seed: int = 0, lan: str = "", port: int = 0, simulate: int = 0) -> None:
        for name, value, most in (("seats", seats, 500), ("share", share, 200), ("simulate", simulate, seats)):
            if type(value) is not int or not (name == "simulate" or value >= 1) or not 0 <= value <= most:
                raise ValueError(f"{name} must be a whole number up to {most}, not {value!r}")
        pool = digits()
        most = len(pool.y) // seats
        dealt = pool.partition(IID(), clients=seats, seed=seed, test_fraction=0.0)
        self.data = few_examples(dealt, min(share, max(1, most - 1)), seed)
        self.model, self.seed, self.settings = mlp(*SIZES), seed, {name: value for name, (value, _, _) in RULES.items()}
        self.experiment = self.federation(self.settings)
        self.runs: list[History] = []                         # of this room, the last one perhaps under way
        self.turn = threading.Lock()                          # held by the run that is under way: there is one at a time
        self.running: threading.Thread | None = None
        self.last: dict[Any, bytes] = {}                      # each client's last answer, as it came
        self.clients_of: dict[int, Any] = {}                  # ticket -> client, of all runs
        self.earlier = 0                                      # tickets of the runs before this one
        self.wanted = True                                    # nobody has asked for the end of the run
        largest = 65_536 + 8 * self.model.dim
        Server.__init__(self, seats, self._share, self._rules, self._command, self._view, largest, lan, port)
        self.start()
        self.pupils = Pupils(self, simulate) if simulate else None

    # --- a run ------------------------------------------------------------------------------------------------------------

    def federation(self, settings: Mapping[str, Any]) -> Coordinator:
        """The experiment of these settings. ValueError, with its sentence, for what does not go together."""
        s = settings
        if s["noise"] and not s["clip"]:
            raise ValueError("noise is told in clip bounds, and nothing is clipped: set clip as well")
        chain = stages(s["clip"] or math.inf, s["noise"], s["keep"], s["bits"] or 32, feedback=not s["clip"])
        fraction = s["fraction"]
        if (fraction < 1 or s["over"]) and self.here():       # a share of those who are here as the run begins
            fraction *= len(self.here()) / len(self.data.ids)
        schedule: Any = Synchronous(fraction, over_selection=s["over"], deadline=s["deadline"])
        if s["buffer"]:
            schedule = Buffered(concurrency=len(self.data.ids), buffer=s["buffer"])
        training = LocalSGD(lr=s["lr"], epochs=s["epochs"], batch_size=s["batch"])
        weights = Uniform() if s["clip"] else ByExamples()
        fed = Coordinator(self.data, self.model, training, schedule, weights=weights, stages=chain, seed=self.seed)
        if s["buffer"] and 0 < len(self.here()) < s["buffer"]:
            raise ValueError(f"{s['buffer']} answers a step never come from the {len(self.here())} pages that are here, "
                             "and each is asked once with the same model: wait for more people, or ask for fewer")  # fmt: skip
        return fed

    def train(self, rounds: int | None = None, state: State | None = None, **settings: Any) -> History:
        """Rounds with whoever is there. settings: see RULES. Ctrl-C, `stop_run` and the projector's button end it with the
        history so far."""
        return self._train(*self._begin(settings | ({} if rounds is None else {"rounds": rounds})), state)

    def _begin(self, settings: Mapping[str, Any]) -> tuple[dict[str, Any], Coordinator]:
        """It is this run's turn from now on: `_train` gives it back. What is refused changes nothing."""
        wanted = checked({**self.settings, **settings})
        fed = self.federation(wanted)
        if not self.thread.is_alive():
            raise FederatedError("this room is closed; Room() opens another")
        if not self.turn.acquire(blocking=False):
            raise FederatedError("a run is under way; wait for its end, or stop it first (stop_run(), or Stop on the wall)")
        self.wanted = True
        return wanted, fed

    def _train(self, wanted: dict[str, Any], fed: Coordinator, state: State | None = None) -> History:
        try:
            history = History(experiment=describe(fed), state=begun(state) if state else fed.initial())
            self.settings, self.experiment, self.earlier = wanted, fed, 1 + max(self.clients_of, default=-1)
            self.forget_orders()
            self.runs.append(history)
            self.tell({"say": "rules", "rules": self._rules()})
            for now, record in fed.run(self.settings["rounds"], history.state, work=Elsewhere(self, real=True, patience=3600.0)):
                record = replace(record, events=record.events + tuple(self.seats.taken()))
                history.records.append(record)
                history.state = now
                self.tell(frame("measure", [now.server.version, encode_model(now.server)]))
                self.show()
        except (Stopped, KeyboardInterrupt):
            history.stopped = "stopped"
        finally:
            self.turn.release()
            self.tell({"say": "pause"})
            self.show()
        return history

    @property
    def history(self) -> History | None:
        """Of the last run, also while it is under way."""
        return self.runs[-1] if self.runs else None

    def stop_run(self) -> None:
        self.wanted = False

    def answers(self, seconds: float) -> Any:
        if not self.wanted:
            raise Stopped
        found = [answer for answer in Server.answers(self, min(seconds, 0.25)) if answer.ticket >= self.earlier]
        for answer in found:
            if answer.message:
                self.last[self.clients_of[answer.ticket]] = answer.message
        # Whether the program has a bug, and what the server's stages should note, is not for a page to say.
        return [replace(answer, ticket=answer.ticket - self.earlier, bug=False, says={}) for answer in found]

    def send(self, orders: Any) -> None:
        """Each run numbers its jobs from the beginning. Here the numbers go on, so that an answer that is a run too late is
        nobody's."""
        past = self.earlier
        out = [replace(order, ticket=order.ticket + past, drawer=None if order.drawer is None else order.drawer + past)
               for order in orders]  # fmt: skip
        self.clients_of |= {order.ticket: order.client for order in out}
        Server.send(self, out)

    def close(self) -> None:
        """End the run, the simulated pages and the server. Nothing is left behind."""
        self.stop_run()
        if self.running is not None:
            self.running.join(5)
        if self.pupils is not None:
            self.pupils.close()
        self.stop()

    def _repr_html_(self) -> str:
        """In a notebook: where to go, as a link, a picture and text."""
        return (f'<p>On the phones: <a href="{self.url}" target="_blank" rel="noopener">{self.url}</a></p>'
                f'<div style="max-width: 220px">{qr(self.url)}</div>'
                f'<p>On the wall: <a href="{self.projector_url}" target="_blank" rel="noopener">{self.projector_url}</a></p>')

    def __repr__(self) -> str:
        return f"Room({self.seats.count} seats, {len(self.here())} here, {self.url})"

    def __enter__(self) -> Room:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def seen(self, client: int) -> dict[str, Any]:
        """What the server has of a client's last answer: the moves of the first layer's units, (k, 64), and beside them what
        can be read off each, dW_i / db_i: a mixture of the examples that moved it (chapters 3 and 9)."""
        message = self.last.get(client)
        if message is None:
            return {"client": client, "moves": [], "read": []}
        delta = numbers(decode_update(message).delta)
        read = unit_inputs(self.model, delta)[:UNITS]
        moves = delta[self.model.slices()["dense0.weight"]].reshape(SIZES[1], SIZES[0])
        strongest = np.argsort(-np.abs(delta[self.model.slices()["dense0.bias"]]), kind="stable")[:UNITS]
        if not (np.isfinite(moves).all() and np.isfinite(read).all()):
            raise ValueError(f"the last answer of client {client} is not made of numbers")
        return {"client": client, "moves": moves[strongest].astype(float).tolist(), "read": read.astype(float).tolist()}

    # --- what pages and the projector are told ------------------------------------------------------------------------------

    def _share(self, client: int) -> tuple[np.ndarray, np.ndarray]:
        return self.data.examples(client)

    def _rules(self) -> dict[str, Any]:
        """What a page must know to do as the experiment says."""
        s = self.settings
        same = {name: s[name] for name in ("epochs", "lr", "batch", "keep", "bits", "clip")}
        return {**same, "sizes": list(SIZES), "seed": self.seed, "uniform": bool(s["clip"]), "feedback": not s["clip"],
                "most": int(max(len(part) for part in self.data.train))}  # fmt: skip

    def _view(self, run: int, known: int) -> dict[str, Any]:
        """What a projector shows that has been told of so many rounds of that run: the seats, the rounds since, the settings."""
        runs = list(self.runs)                                # another may begin while this looks
        known = known if run == len(runs) else 0
        seats = [{"client": seat.client, "name": seat.name, "here": seat.page is not None, "owes": len(seat.owes),
                  "asked": seat.asked, "answered": seat.answered, "drawings": seat.drawings, "measured": list(seat.measured)}
                 for seat in self.seats.seats if seat.token]  # fmt: skip
        rounds = [{"version": r.version, "clock": r.clock, "accuracy": r.metrics.get("accuracy"), "clients": len(r.clients),
                   "up": sum(r.bytes_up.values()), "down": sum(r.bytes_down.values()), "events": list(r.events)[-8:]}
                  for r in (runs[-1].records[known:] if runs else [])]  # fmt: skip
        return {"seats": seats, "rounds": rounds, "settings": self.settings, "running": self.turn.locked(),
                "count": self.seats.count, "run": len(runs), "known": known}  # fmt: skip

    def _command(self, said: dict[str, Any]) -> dict[str, Any] | None:
        """What the projector's buttons do, and the answer to its question. ValueError, FederatedError: shown to who pressed."""
        if said["say"] == "stop":
            self.stop_run()
        elif said["say"] == "start":
            asked = self._begin(dict(said.get("settings") or {}))
            self.running = threading.Thread(target=self._run, args=asked, name="room run", daemon=True)
            self.running.start()
        elif said["say"] == "look" and type(said.get("client")) is int:
            try:
                return {"say": "seen", **self.seen(said["client"])}
            except (FederatedError, ValueError, IndexError) as why:                              # its last answer was rubbish
                raise Refused(f"The last answer of this client cannot be read: {why}") from why
        else:
            raise Refused("The room did not understand the projector. Please load the page again.")
        return None

    def _run(self, wanted: dict[str, Any], fed: Coordinator) -> None:
        try:
            self._train(wanted, fed)
        except Exception as why:
            self.tell({"say": "sorry", "why": f"The run has ended: {why}"[:500]}, projector=True)
            if not isinstance(why, FederatedError):           # nobody foresaw it: the terminal shows where it was
                raise


def begun(state: State) -> State:
    """To go on from, in a new run. What pages had put aside (top-k) went with the old one."""
    return replace(state, memory={}, jobs=())


def checked(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings, each a number of its kind within its bounds. ValueError says which is not."""
    out = {}
    for name, value in settings.items():
        if name not in RULES:
            raise ValueError(f"a room has no setting {name!r}; it has {', '.join(RULES)}")
        begin, least, most = RULES[name]
        whole = isinstance(begin, int)
        if isinstance(value, bool) or not isinstance(value, int if whole else int | float) or not least <= value <= most:
            raise ValueError(f"{name} must be a {'whole ' if whole else ''}number from {least:g} to {most:g}, not {value!r}")
        out[name] = value if whole else float(value)
    return out
