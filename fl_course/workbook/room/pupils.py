"""Simulated pages: they come in by the door like everybody, and train in Python what a page trains in JavaScript."""

from __future__ import annotations

import asyncio
import json
import threading
from contextlib import suppress
from typing import Any

from tornado.websocket import websocket_connect

from ...federation.node import Node
from ...federation.orders import decode_orders, encode_answers
from ...wire.frames import unframe
from ...wire.messages import decode_model
from .pages import PAGE


class Pupils:
    """So many pages in a thread of their own. room: a room.Room, whose experiment says how they train.

    room.pupils.waits[3] = 1.5        # the page on seat 3 is slow from now on
    room.pupils.go(3)                 # and now it is gone
    """

    def __init__(self, room: Any, count: int) -> None:
        self.room, self.node, self.tasks = room, None, []     # type: Any, Node | None, list[Any]
        self.waits: dict[int, float] = {}                     # seat -> seconds that this page takes longer, each time
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, name="pupils", daemon=True)
        self.thread.start()
        self.come(count)

    def come(self, count: int) -> None:
        """So many more, and wait until they sit."""
        first = len(self.tasks)
        talks = [self._talk(f"Pupil {first + i + 1}") for i in range(count)]
        sit = asyncio.run_coroutine_threadsafe(self._all_sit(talks), self.loop)
        sit.result(60)

    def go(self, number: int) -> None:
        """This one closes its page."""
        self.loop.call_soon_threadsafe(self.tasks[number].cancel)

    def close(self) -> None:
        if self.thread.is_alive():
            asyncio.run_coroutine_threadsafe(self._all_go(), self.loop).result(10)
            self.loop.call_soon_threadsafe(self.loop.stop)
            self.thread.join(10)
            self.loop.close()

    async def _all_sit(self, talks: list[Any]) -> None:
        for talk in talks:                                    # one after the other: pupil 1 sits on the first free seat
            sits = self.loop.create_future()
            self.tasks.append(self.loop.create_task(talk(sits)))
            await asyncio.wait([sits, self.tasks[-1]], return_when=asyncio.FIRST_COMPLETED)

    async def _all_go(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    def _talk(self, name: str) -> Any:
        async def talk(sits: asyncio.Future[None]) -> None:
            page = await websocket_connect(f"{self.room.url.replace('http', 'ws')}/ws")
            try:
                await page.write_message(json.dumps({"say": "hello", "page": PAGE, "name": name}))
                while (message := await page.read_message()) is not None:
                    if isinstance(message, bytes):
                        await self._work(page, message)
                    elif json.loads(message)["say"] in ("welcome", "sorry") and not sits.done():
                        sits.set_result(None)
            finally:
                page.close()
                with suppress(TimeoutError):
                    await asyncio.wait_for(_until_closed(page), 2)

        return talk

    async def _work(self, page: Any, message: bytes) -> None:
        if message[4:40].find(b"orders") >= 0:
            experiment = self.room.experiment
            if self.node is None or self.node.experiment is not experiment:
                self.node = Node(experiment, experiment.clients)
            orders = decode_orders(message)
            answers = encode_answers(self.node.obey(orders))
            await asyncio.sleep(max(self.waits.get(int(order.client), 0.0) for order in orders))
            await page.write_message(answers, binary=True)
        elif message[4:40].find(b"measure") >= 0:
            version, model = unframe(message, "measure")
            decode_model(model, self.room.model.dim)
            await page.write_message(json.dumps({"say": "measured", "version": version, "right": 0, "of": 0}))


async def _until_closed(page: Any) -> None:
    while await page.read_message() is not None:
        pass
