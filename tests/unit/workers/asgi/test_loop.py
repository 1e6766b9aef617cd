"""How much a worker does between two looks at its clients: who asks for little waits for a little of what others want.

All happens in one thread. The application is its own clients: each request has the next one sent, so every poll finds
something, and what lies between two requests is the same each time.
"""

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from sdserve.config import load
from sdserve.gateway.lifespan import Lifespan
from sdserve.log import Logger
from sdserve.process.listeners import bind
from sdserve.process.scoreboard import Scoreboard
from sdserve.workers.application import Application
from sdserve.workers.asgi import clients
from sdserve.workers.asgi.extra import new_event_loop
from sdserve.workers.asgi.loop import ASGILoop
from sdserve.workers.asgi.worker import ASGIWorker
from sdserve.workers.http.loop import BATCH

MANY = 8  # clients who want much
ROUNDS = 60  # requests of the client who sends one at a time
GET = b"GET /%s HTTP/1.1\r\nHost: here\r\n\r\n"
HANDSHAKE = b"Upgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
UPGRADE = b"GET /%d HTTP/1.1\r\nHost: here\r\nConnection: Upgrade\r\n" + HANDSHAKE
MESSAGE = bytes((0x81, 0x81, 0, 0, 0, 0)) + b"a"  # RFC 6455: a text of one byte, masked with zeros


class Bare(ASGIWorker):
    """Of a process whose signals are others'."""

    def control_fds(self) -> list[int]:
        return [self.channel.fileno()]


class House:
    """A worker, and `peers`, the other ends of its connections. `between`: what others got, before each request of the
    first peer."""

    def __init__(self, kind: str, path: str, stack: ExitStack) -> None:
        self.between: list[int] = []
        self._others = 0
        cfg, log = load(["app:app"], {}), Logger("-", None, "info")
        listener = stack.enter_context(closing(bind(path, backlog=64)))
        self.worker = worker = Bare(1, os.getppid(), [listener], Application("app:app"), cfg.timeout, cfg, log)
        worker.cell = Scoreboard(1).take()
        channels = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        _master, worker.channel = map(stack.enter_context, channels)
        worker.channel.setblocking(False)
        worker.wsgi = self.application
        worker.event_loop = stack.enter_context(closing(new_event_loop(kind, log)))
        worker.lifespan = Lifespan(self.application, "off", log)
        worker.booted = True
        self.peers = [stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(1 + MANY)]
        for peer in self.peers:
            peer.connect(path)
            peer.setblocking(False)

    def serve(self) -> ASGILoop:
        """Until the first peer has had all of its rounds."""
        self.peers[0].send(GET % b"0")
        loop = self.worker.make_loop()
        loop.get_ready()
        loop.run()
        return loop

    async def application(self, scope: Any, receive: Any, send: Any) -> None:
        number = int(scope["path"][1:])
        peer = self.peers[number]
        if scope["type"] == "websocket":
            await self._hear(peer, receive, send)
            return
        if number:
            self._others += 1
            self._drain(peer)
        else:
            self.between.append(self._others)
            self._others = 0
            self._drain(peer)
            peer.send(GET % b"0")
            if len(self.between) == ROUNDS:
                self.worker.alive, self.worker.quick = False, True
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body"})

    async def _hear(self, peer: socket.socket, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        peer.send(MESSAGE)
        while (await receive())["type"] == "websocket.receive":
            self._others += 1
            peer.send(MESSAGE)

    def _drain(self, peer: socket.socket) -> None:
        """Takes the answers before."""
        try:
            peer.recv(1 << 20)
        except BlockingIOError:
            return  # there are none


@pytest.fixture(params=["asyncio", "uvloop"])
def house(request: pytest.FixtureRequest, short_path: Path) -> Iterator[House]:
    if request.param == "uvloop":
        pytest.importorskip("uvloop")
    with ExitStack() as stack:
        yield House(request.param, str(short_path / "socket"), stack)


def test_who_sends_one_request_at_a_time_waits_for_one_batch_of_those_who_send_many(house: House) -> None:
    for number, peer in enumerate(house.peers[1:], 1):
        peer.send(GET % (b"%d" % number) * 200)
    house.serve()
    assert sum(house.between) > ROUNDS
    assert max(house.between[MANY:]) <= BATCH  # until then each of them had its first one


def test_who_asks_for_little_waits_for_one_long_message_of_those_who_go_on(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients, "SLOW", -1.0)  # seconds: every message is a long one
    for number, peer in enumerate(house.peers[1:], 1):
        peer.send(UPGRADE % number)
    house.serve()
    assert sum(house.between) > ROUNDS / 2
    assert max(house.between[MANY:]) <= 1


def test_however_much_waits_it_is_settled_once_in_each_turn(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = {"_turn": 0, "_settle": 0}

    def counted(name: str) -> Callable[[ASGILoop], None]:
        method: Callable[[ASGILoop], None] = getattr(ASGILoop, name)

        def call(self: ASGILoop) -> None:
            calls[name] += 1
            method(self)

        return call

    for name in calls:
        monkeypatch.setattr(ASGILoop, name, counted(name))
    for number, peer in enumerate(house.peers[1:], 1):
        peer.send(GET % (b"%d" % number) * 200)
    house.serve()
    assert calls["_turn"] >= ROUNDS
    assert calls["_settle"] <= calls["_turn"] + 2  # the first and the last
