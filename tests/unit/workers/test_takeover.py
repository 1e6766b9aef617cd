"""The socket that applications may take over: what a look is, what takes it, and what was read already comes first."""

import socket
from collections.abc import Iterator
from typing import Any, cast

import pytest

from sdserve.http.connection import Connection
from sdserve.http.limits import Limits
from sdserve.http.request import RequestReader
from sdserve.workers.stream import Stream
from sdserve.workers.takeover import GUNICORN, ClientSocket

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


class Client:
    """A stream with a request that the application has, its client, and the socket that the application sees."""

    def __init__(self, rest: bytes = b"") -> None:
        self.peer, inner = socket.socketpair()
        self.peer.settimeout(15)
        inner.setblocking(False)
        sock = socket.SocketType(fileno=inner.detach())
        conn = Connection(RequestReader(Limits()), Limits())
        conn.receive(REQUEST + rest)
        conn.next_request()
        self.stream = Stream(sock, conn, {}, "", cast(Any, 60.0))
        self.response = Response()
        self.stream.response = cast(Any, self.response)
        self.taken: list[Stream] = []
        self.sock = ClientSocket(self.stream, self.taken.append)
        self.stream.base[GUNICORN] = self.sock


@pytest.fixture
def client() -> Iterator[Client]:
    made = Client(b"hello")
    yield made
    made.stream.close()
    made.peer.close()


def test_looks_take_nothing(client: Client) -> None:
    assert client.sock.fileno() == client.stream.fd
    assert client.sock.family == socket.AF_UNIX
    assert client.sock.getpeername() == ""
    assert client.sock.recv(3, socket.MSG_PEEK) == b"hel"
    assert not hasattr(client.sock, "pending")
    assert callable(client.sock.settimeout)
    assert not client.taken and client.response.taken is None


@pytest.mark.parametrize("act", ["recv", "recv_into", "send", "sendall", "settimeout", "makefile", "close"])
def test_what_is_done_with_it_takes_it_over_once(client: Client, act: str) -> None:
    arguments: dict[str, tuple[Any, ...]] = {"recv": (1,), "recv_into": (bytearray(1),), "settimeout": (5,)}
    default = (b"x",) if act.startswith("send") else ()
    for _ in range(2 if act != "close" else 1):
        getattr(client.sock, act)(*arguments.get(act, default))
    assert client.taken == [client.stream] and client.response.taken is client.sock
    assert not client.stream.conn.rest, "nothing more is parsed"


def test_what_was_read_comes_first_and_then_what_comes(client: Client) -> None:
    client.peer.sendall(b" world")
    assert client.sock.recv(2) == b"he"
    assert client.sock.recv(9, socket.MSG_PEEK) == b"llo"
    buffer = bytearray(2)
    assert client.sock.recv_into(buffer) == 2 and buffer == b"ll"
    with client.sock.makefile("rb") as file:
        assert file.read(7) == b"o world"


def test_the_end_tells_what_was_sent_and_the_server_has_its_socket_back(client: Client) -> None:
    client.sock.sendall(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
    assert client.sock.send(b"ab") == 2
    client.sock.end(cast(Any, client.response))
    found = client.response
    assert (found.status, found.sent, found.keep_alive, found.broken) == ("101 Switching Protocols", 38, False, False)
    client.sock.recv(5)
    with pytest.raises(BlockingIOError):
        client.stream.sock.recv(1)


def test_after_the_connection_there_is_nothing_left_to_take() -> None:
    client = Client()
    client.stream.close()
    assert client.sock.fileno() == -1
    for act in (
        lambda: client.sock.recv(1),
        lambda: client.sock.sendall(b"x"),
        lambda: client.sock.recv(1, socket.MSG_PEEK),
    ):
        with pytest.raises(OSError, match="closed"):
            act()
    client.sock.early_hints([])
    client.peer.close()


def test_between_two_requests_nothing_can_be_taken(client: Client) -> None:
    client.stream.response = None
    with pytest.raises(OSError, match="is over"):
        client.sock.recv(1)


def test_who_still_reads_when_the_connection_is_closed_sees_its_end(client: Client) -> None:
    taken = client.sock.makefile("rb")
    client.sock.recv(5)
    client.stream.close()
    assert taken.read() == b""
    taken.close()
