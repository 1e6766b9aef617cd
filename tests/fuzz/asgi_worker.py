"""Fuzzes the loop of an ASGI worker: `python -m tests.fuzz.asgi_worker [--runs N] [--seed N]`.

Clients, faults and promises are those of worker.py. The event loop is asyncio's own: its selector takes the script's
next step where it would wait, and its clock is ours.
"""

import asyncio
import os
import random
import select
import selectors
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

from sdserve.workers.asgi import bursts, clients, exchange, host, loop, opening
from sdserve.workers.asgi.worker import ASGIWorker
from tests.fuzz import worker as fuzz

Scope = dict[str, Any]


async def application(
    scope: Scope, receive: Callable[[], Awaitable[Scope]], send: Callable[[Scope], Awaitable[None]]
) -> None:
    async def start(*fields: tuple[bytes, bytes]) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": fields})

    path = scope["path"]
    if path == "/echo":
        pieces, more = [], True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            pieces.append(message["body"])
            more = message["more_body"]
        body = b"".join(pieces)
        await start((b"Content-Length", b"%d" % len(body)))
        await send({"type": "http.response.body", "body": body})
    elif path == "/made":
        await start((b"Content-Length", b"%d" % len(fuzz.MADE)))
        large = 2 * bursts.BULK
        for at in range(0, large, bursts.BULK):  # they leave together
            await send({"type": "http.response.body", "body": fuzz.MADE[at : at + bursts.BULK], "more_body": True})
        for at in range(large, len(fuzz.MADE), 200):
            await asyncio.sleep(0)
            await send({"type": "http.response.body", "body": fuzz.MADE[at : at + 200], "more_body": True})
        await send({"type": "http.response.body"})
    elif path == "/file":
        await start()
        await send({"type": "http.response.pathsend", "path": str(fuzz.FILE_PATH)})
    else:
        await start((b"Content-Length", b"5"))
        await send({"type": "http.response.body", "body": fuzz.HELLO})


class Epoll:
    """An epoll whose calls may fail."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self.fileno, self.close = self._epoll.fileno, self._epoll.close

    def register(self, fd: int, mask: int) -> None:
        fuzz.FAULTS.at("register", fuzz.OWNERS.get(fd, fuzz.NOBODY))
        self._epoll.register(fd, mask)

    def modify(self, fd: int, mask: int) -> None:
        fuzz.FAULTS.at("modify", fuzz.OWNERS.get(fd, fuzz.NOBODY))
        self._epoll.modify(fd, mask)

    def unregister(self, fd: int) -> None:
        fuzz.FAULTS.at("unregister", fuzz.OWNERS.get(fd, fuzz.NOBODY))
        self._epoll.unregister(fd)

    def poll(self, timeout: float, most: int) -> list[tuple[int, int]]:
        fuzz.FAULTS.armed = True
        fuzz.FAULTS.at("poll")
        return self._epoll.poll(timeout, most)


class Script(selectors.EpollSelector):
    """What the event loop waits with."""

    def __init__(self, world: "World") -> None:
        super().__init__()
        self._world = world

    def select(self, timeout: float | None = None) -> Any:
        while True:
            self._world.ring()
            found = super().select(0)
            if found or (timeout is not None and timeout <= 0):
                return found
            if not self._world.step():
                self._world.waits(-1 if timeout is None else timeout)
                return []


class World(fuzz.World):
    """One run."""

    def ring(self) -> None:
        """The listener is readable while somebody waits at it."""
        fd = self.listener.fileno()
        if self.arrived:
            os.eventfd_write(fd, 1)
        else:
            with suppress(BlockingIOError):
                os.eventfd_read(fd)

    def waits(self, timeout: float) -> list[tuple[int, int]]:
        if self.loop._rests:  # after a failure: whatever else happens, it goes on when that is over
            fuzz.CLOCK.sleep(timeout)
            return []
        found = super().waits(timeout)
        if not fuzz.WORKER.alive:
            self.loop._settle_soon()
        return found

    def run(self) -> None:
        worker = fuzz.WORKER
        worker.alive, worker.quick, worker.drain_by = True, False, None
        events = asyncio.SelectorEventLoop(Script(self))
        events.time = fuzz.CLOCK  # type: ignore[method-assign]
        for made in ("exchange", "lifespan"):
            worker.__dict__.pop(made, None)
        worker.__dict__["event_loop"] = events
        loop.select = SimpleNamespace(epoll=Epoll, poll=select.poll, POLLIN=select.POLLIN)  # type: ignore[assignment]
        try:
            self.loop: Any = worker.make_loop()
            if fuzz.FAULTS.storm is not None:
                self.loop._clients._keepalive = 60.0  # its pauses are longer than the usual one
            self.loop.get_ready()
            self.loop.run()
        finally:
            for task in asyncio.all_tasks(events):
                task.cancel()
            events.call_soon(events.stop)
            events.run_forever()
            events.close()

    def problems(self) -> list[str]:
        found = super().problems()
        return found + [f"still runs: {call.request.uri}" for call in self.loop._exchange.running]


def prepare() -> None:
    fuzz.prepare(ASGIWorker, application, (clients, exchange, host, loop, opening))
    anchor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
    fuzz.LISTENER.fileno = lambda: anchor


def make(dice: random.Random) -> World:
    return World(dice)


if __name__ == "__main__":
    prepare()
    sys.exit(fuzz.main("asgi_worker", __doc__, make))
