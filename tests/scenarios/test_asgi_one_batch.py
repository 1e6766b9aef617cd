"""Events that epoll has reported together: the call that one of them begins may change what another one is about.

The event loop is blocked until all of them have come.
"""

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.corners import LOOPS
from tests.support.frames import OPENING, exactly, masked
from tests.support.load import ask
from tests.support.server import Server
from tests.support.waiting import eventually

APP = """
import asyncio

ROOM, HEARD = set(), []

async def application(scope, receive, send):
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        ROOM.add(send)
        while (message := await receive())["type"] == "websocket.receive":
            HEARD.append(message["text"])
        HEARD.append(message["code"])
        return
    path = scope["path"]
    if path == "/block":
        with open("gate") as gate:
            gate.read()
    elif path == "/broadcast":
        for each in list(ROOM):
            try:
                await each({"type": "websocket.send", "bytes": bytes(SIZE)})
            except OSError:
                HEARD.append("gone")
    elif path == "/later":
        await asyncio.sleep(0)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": repr(HEARD).encode()})
"""
SIZE = 12_000_000


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode()


class Service:
    """A worker whose event loop can be blocked, and its clients."""

    def __init__(self, server: Server, directory: Path, stack: ExitStack) -> None:
        self.server = server
        self._directory = directory
        self._stack = stack

    def client(self) -> socket.socket:
        """A connection, which the worker has not seen."""
        sock = self._stack.enter_context(socket.socket(socket.AF_UNIX))
        sock.settimeout(20)
        sock.connect(f"{self._directory}/s")
        return sock

    def served(self) -> socket.socket:
        """One that the worker waits for."""
        sock = self.client()
        assert ask(sock, "/").status == 200
        return sock

    def websocket(self) -> socket.socket:
        sock = self.client()
        sock.sendall(OPENING.format("/room").encode())
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += sock.recv(1)
        assert head.startswith(b"HTTP/1.1 101 "), head
        return sock

    def block(self) -> int:
        """Blocks the event loop until what this returns is closed."""
        self.served().sendall(get("/block"))
        return os.open(self._directory / "gate", os.O_WRONLY)  # opens when the other end does

    def heard(self) -> bytes:
        return ask(self.client(), "/").body


@pytest.fixture(params=LOOPS)
def service(request: pytest.FixtureRequest, start: Callable[..., Server], short_path: Path) -> Iterator[Service]:
    (short_path / "app.py").write_text(APP.replace("SIZE", str(SIZE)))
    os.mkfifo(short_path / "gate")
    options = ("-w", "1", "-k", "asgi", "--asgi-loop", request.param, "-b", f"unix:{short_path}/s")
    server = start(*options, "app", cwd=short_path).wait_ready()
    with ExitStack() as stack:
        yield Service(server, short_path, stack)


def test_a_websocket_that_is_not_read_any_more_has_not_ended(service: Service) -> None:
    """It owes more than may wait, since a moment ago: what it has sent by then waits until it has taken that."""
    websocket, other = service.websocket(), service.served()
    gate = service.block()
    other.sendall(get("/broadcast"))
    websocket.sendall(masked(b"first"))
    os.close(gate)
    assert exactly(websocket, 10 + SIZE)[:2] == b"\x82\x7f"
    websocket.sendall(masked(b"second"))
    eventually(lambda: service.heard() == b"['first', 'second']", "both messages")


def test_what_is_reported_of_a_connection_is_not_of_the_next_one_with_its_descriptor(service: Service) -> None:
    websocket, other = service.websocket(), service.served()
    gate = service.block()
    other.sendall(get("/broadcast"))
    new = service.client()
    new.sendall(get("/later") * 2)
    websocket.close()
    os.close(gate)
    got = b""
    while got.count(b"HTTP/1.1 200 ") < 2:
        piece = new.recv(65536)
        assert piece, got
        got += piece
