"""A connection in the application's hands: `environ["gunicorn.socket"]`, as Flask-Sock and simple-websocket use it.

Every environ has a `ClientSocket`. Looking at it costs nothing: at its addresses, at its descriptor, at what comes by
`recv` with MSG_PEEK. The first call that sends, receives or changes something takes the
connection over: from then on it is a blocking socket, with what the server had read of it already, and what the
application answers by WSGI goes nowhere. When the call returns, the server closes the connection.

It is that of one request, and of no use afterwards: behind a proxy the next one is somebody else's. Where nobody has
kept it, as its references tell (`UNKEPT`), the next request has it again: most applications never look at it.

A connection that was taken over may last: `timeout` does not count. A worker that must leave waits for it as for any
request, within `graceful_timeout`.
"""

import errno
import os
import re
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from sdserve.gateway.response import Response
from sdserve.workers.wsgi.client import WSGIClient

GUNICORN, WERKZEUG = "gunicorn.socket", "werkzeug.socket"
UNKEPT = 4  # references to a socket, as getrefcount() counts: two keys of `base`, its client, who asks
OVER = "the request of this socket is over"
VALUES = frozenset(("family", "type", "proto", "timeout"))
LOOKS = frozenset(("getpeername", "getsockname", "getsockopt", "gettimeout"))
STATUS_LINE = rb"HTTP/1\.[01] ([1-9][0-9]{2}[ -~]*)\r\n"


class ClientSocket:
    """The socket of a connection, as its applications see it. `on_take` hears of the client that was taken over."""

    __slots__ = ("_client", "_on_take", "_taken")

    def __init__(self, client: WSGIClient, on_take: Callable[[WSGIClient], None]) -> None:
        self._client: WSGIClient | None = client
        self._on_take = on_take
        self._taken: TakenSocket | None = None

    def __getattr__(self, name: str) -> Any:
        """What a socket has and this has not."""
        if name[:1] == "_" or not hasattr(socket.socket, name):
            raise AttributeError(name)
        if self._taken is not None or name in VALUES:
            return getattr(self._taken or self._now().sock, name)

        def method(*args: Any, **options: Any) -> Any:
            sock = self._taken or (self._now().sock if name in LOOKS else self._take())
            return getattr(sock, name)(*args, **options)

        return method

    def fileno(self) -> int:
        if self._taken is not None:
            return self._taken.fileno()
        client = self._client
        return -1 if client is None or client.response is None else client.fd

    def recv(self, size: int, flags: int = 0) -> bytes:
        if self._taken is None and flags & socket.MSG_PEEK:
            client = self._now()
            return client.conn.rest[:size] or client.sock.recv(size, flags)
        return (self._taken or self._take()).recv(size, flags)

    def end(self, response: Response) -> None:
        """The call that took the connection over has ended. Tells `response` what was sent."""
        taken = self._taken
        assert taken is not None
        if self._client is not None:
            self._client.sock.setblocking(False)
        found = re.match(STATUS_LINE, taken.start)
        if found is not None:
            response.status = found[1].decode("ascii")
        response.sent = taken.sent
        response.keep_alive = response.broken = False

    def let_go(self) -> None:
        """It is of no use any more. Who still reads from what was taken, in a thread of the application, wakes up."""
        self._client = None
        if self._taken is not None:
            with suppress(OSError):
                self._taken.shutdown(socket.SHUT_RDWR)

    def _now(self) -> WSGIClient:
        client = self._client
        if client is None or client.response is None:
            raise OSError(errno.EBADF, OVER)
        return client

    def _take(self) -> "TakenSocket":
        client = self._now()
        response = client.response
        if response is None or self._client is None:  # it has ended meanwhile, in its own thread
            raise OSError(errno.EBADF, OVER)
        if client.full:
            raise OSError(errno.EBUSY, "the client has not taken yet what was answered before")
        self._taken = taken = TakenSocket(os.dup(client.fd), client.conn.rest)
        client.conn.close()
        response.divert(self)
        self._on_take(client)
        return taken


def expose(client: WSGIClient, on_take: Callable[[WSGIClient], None]) -> None:
    """Shows a connection to the application, by what its next environ has."""
    if client.handle is not None:
        client.handle.let_go()
    client.base[GUNICORN] = client.base[WERKZEUG] = client.handle = ClientSocket(client, on_take)


class TakenSocket(socket.socket):
    """A blocking socket of its own (the server keeps one, too), which begins with bytes that were read already."""

    def __init__(self, fd: int, rest: bytes) -> None:
        super().__init__(fileno=fd)
        self.setblocking(True)
        self._rest = rest
        self.start = b""  # of what was sent
        self.sent = 0

    def recv(self, size: int, flags: int = 0) -> bytes:
        if not self._rest:
            return super().recv(size, flags)
        data = self._rest[:size]
        if not flags & socket.MSG_PEEK:
            self._rest = self._rest[size:]
        return data

    def recv_into(self, buffer: Any, size: int = 0, flags: int = 0) -> int:
        if not self._rest:
            return super().recv_into(buffer, size, flags)
        view = memoryview(buffer).cast("B")
        data = self.recv(size or len(view), flags)
        view[: len(data)] = data
        return len(data)

    def send(self, data: Any, flags: int = 0) -> int:
        sent = super().send(data, flags)
        self._note(data, sent)
        return sent

    def sendall(self, data: Any, flags: int = 0) -> None:
        super().sendall(data, flags)
        self._note(data, memoryview(data).nbytes)

    def _note(self, data: Any, sent: int) -> None:
        if not self.sent:
            self.start = bytes(memoryview(data)[:200])
        self.sent += sent
