"""The socket that applications may take over: what a look is, what takes it, and what was read already comes first."""

import socket
from collections.abc import Iterator
from sys import getrefcount
from typing import Any, cast

import pytest

from sdserve.http.connection import Connection
from sdserve.http.limits import Limits
from sdserve.http.request import RequestReader
from sdserve.workers.wsgi.client import WSGIClient
from sdserve.workers.wsgi.takeover import GUNICORN, UNKEPT, ClientSocket, expose

REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


class Response:
    """What a takeover tells the response of its request."""

    taken: Any = None
    head_sent = False
    status = ""
    sent = 0
    keep_alive = broken = True

    def divert(self, taken: Any) -> None:
        self.taken = taken


class Call:
    """A client with a request that the application has, its call, and the socket that the application sees."""

    def __init__(self, rest: bytes = b"") -> None:
        self.peer, inner = socket.socketpair()
        self.peer.settimeout(15)
        inner.setblocking(False)
        sock = socket.SocketType(fileno=inner.detach())
        conn = Connection(RequestReader(Limits()), Limits())
        conn.receive(REQUEST + rest)
        conn.next_request()
        self.client = WSGIClient(sock, conn, {}, ("", ""), cast(Any, 60.0))
        self.response = Response()
        self.client.response = cast(Any, self.response)
        self.taken: list[WSGIClient] = []
        expose(self.client, self.taken.append)
        self.sock: ClientSocket = self.client.base[GUNICORN]


@pytest.fixture
def call() -> Iterator[Call]:
    made = Call(b"hello")
    yield made
    made.client.close()
    made.peer.close()


def test_looks_take_nothing(call: Call) -> None:
    assert call.sock.fileno() == call.client.fd
    assert call.sock.family == socket.AF_UNIX
    assert call.sock.getpeername() == ""
    assert call.sock.recv(3, socket.MSG_PEEK) == b"hel"
    assert not hasattr(call.sock, "pending")
    assert callable(call.sock.settimeout)
    assert not call.taken and call.response.taken is None


@pytest.mark.parametrize("act", ["recv", "recv_into", "send", "sendall", "settimeout", "makefile", "close"])
def test_what_is_done_with_it_takes_it_over_once(call: Call, act: str) -> None:
    arguments: dict[str, tuple[Any, ...]] = {"recv": (1,), "recv_into": (bytearray(1),), "settimeout": (5,)}
    default = (b"x",) if act.startswith("send") else ()
    for _ in range(2 if act != "close" else 1):
        getattr(call.sock, act)(*arguments.get(act, default))
    assert call.taken == [call.client] and call.response.taken is call.sock
    assert not call.client.conn.rest, "nothing more is parsed"


def test_what_was_read_comes_first_and_then_what_comes(call: Call) -> None:
    call.peer.sendall(b" world")
    assert call.sock.recv(2) == b"he"
    assert call.sock.recv(9, socket.MSG_PEEK) == b"llo"
    buffer = bytearray(2)
    assert call.sock.recv_into(buffer) == 2 and buffer == b"ll"
    with call.sock.makefile("rb") as file:
        assert file.read(7) == b"o world"


def test_the_end_tells_what_was_sent_and_the_server_has_its_socket_back(call: Call) -> None:
    call.sock.sendall(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
    assert call.sock.send(b"ab") == 2
    call.sock.end(cast(Any, call.response))
    found = call.response
    assert (found.status, found.sent, found.keep_alive, found.broken) == ("101 Switching Protocols", 38, False, False)
    call.sock.recv(5)
    with pytest.raises(BlockingIOError):
        call.client.sock.recv(1)


def test_after_the_connection_there_is_nothing_left_to_take() -> None:
    call = Call()
    call.client.close()
    assert call.sock.fileno() == -1
    for act in (
        lambda: call.sock.recv(1),
        lambda: call.sock.sendall(b"x"),
        lambda: call.sock.recv(1, socket.MSG_PEEK),
    ):
        with pytest.raises(OSError, match="is over"):
            act()
    call.peer.close()


def test_between_two_requests_nothing_can_be_taken(call: Call) -> None:
    call.client.response = None
    with pytest.raises(OSError, match="is over"):
        call.sock.recv(1)
    with pytest.raises(OSError, match="is over"):
        call.sock.recv(1, socket.MSG_PEEK)
    assert call.sock.fileno() == -1


def test_what_nobody_has_kept_serves_the_next_request_too(call: Call) -> None:
    """What is kept would be another one's: it is let go, and the next request has one of its own."""
    kept = call.sock
    del call.sock
    references = getrefcount(call.client.handle)
    assert references == UNKEPT + 1
    expose(call.client, call.taken.append)
    assert call.client.handle is not kept and kept.fileno() == -1
    references = getrefcount(call.client.handle)
    assert references == UNKEPT


def test_who_still_reads_when_the_connection_is_closed_sees_its_end(call: Call) -> None:
    taken = call.sock.makefile("rb")
    call.sock.recv(5)
    call.client.close()
    assert taken.read() == b""
    taken.close()
