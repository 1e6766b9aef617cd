"""However an exchange ends, nothing of it stays in memory until a garbage collection: nobody can fill a worker with it.

The application switches the collector off and counts what there is, before and after: connections, responses, requests
of the server, what its requests hold, exceptions and their tracebacks.
"""

import json
import socket
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.apps.ends import WAYS
from tests.support.server import Server, answer, connector, free_port
from tests.support.waiting import eventually

THREADS = pytest.mark.parametrize("threads", ["1", "4"])
End = Callable[["Exchange"], None]
RESET = struct.pack("ii", 1, 0)
HOOKS = "def pre_request(worker, req): req.headers\ndef post_request(worker, req, environ, resp): resp.status_code\n"


class Exchange:
    """The client's side of one exchange with `ends`."""

    def __init__(self, server: Server, address: tuple[str, int]) -> None:
        self.server = server
        self._address = address

    def ask(self, path: str, *fields: str, body: bytes = b"") -> socket.socket:
        sock = connector(self._address)()
        head = [f"GET /{path} HTTP/1.1", "Host: a", "Connection: close", *fields, "", ""]
        sock.sendall("\r\n".join(head).encode() + body)
        return sock

    def upload(self, path: str, sent: int, size: int = 1_000_000) -> socket.socket:
        sock = self.ask(path, "Expect: 100-continue", f"Content-Length: {size}")
        if sent:
            assert sock.recv(25) == b"HTTP/1.1 100 Continue\r\n\r\n"
            sock.sendall(bytes(sent))
        return sock

    def left(self) -> dict[str, int]:
        found: dict[str, int] = json.loads(answer(self._address, "/left").body)
        return found


def read(sock: socket.socket) -> None:
    """Reads to the end, in whatever way that comes, and leaves."""
    try:
        while sock.recv(1 << 20):
            pass
    except ConnectionResetError:
        pass
    sock.close()


def leave(sock: socket.socket) -> None:
    sock.recv(1000)
    sock.close()


def reset(sock: socket.socket) -> None:
    sock.recv(1000)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    sock.close()


def is_cut(client: Exchange) -> None:
    """Reads nothing until its response is given up."""
    since = client.server.mark
    sock = client.ask("writes")
    client.server.wait_log("GET /writes is cut", since)
    read(sock)


def reset_upload(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    sock.close()


def asked(end: Callable[[socket.socket], None], way: str, *fields: str, body: bytes = b"") -> End:
    return lambda client: end(client.ask(way, *fields, body=body))


def uploaded(end: Callable[[socket.socket], None], way: str, sent: int, size: int = 1_000_000) -> End:
    return lambda client: end(client.upload(way, sent, size))


CHUNKS = "Transfer-Encoding: chunked"
LONG = ("generator", "pieces", "file", "body")
ENDS: dict[str, End] = {
    **{f"read {way}": asked(read, way) for way in WAYS if way != "writes"},
    **{f"leave {way}": asked(leave, way) for way in LONG},
    **{f"reset {way}": asked(reset, way) for way in LONG},
    "cut": is_cut,
    "small body": asked(read, "reads", "Content-Length: 5", body=b"hello"),
    "late body": asked(read, "reads", "Content-Length: 5", body=b"hell"),
    "chunked": asked(read, "reads", CHUNKS, body=b"5\r\nhello\r\n0\r\n\r\n"),
    "bad chunk": asked(read, "reads", CHUNKS, body=b"5\r\nhello,"),
    "no request": asked(read, "short", "no field"),
    "upload": uploaded(read, "reads", 1_000_000),
    "refused upload": uploaded(read, "refuses", 0),
    **{f"stalled {way}": uploaded(read, way, 999_990) for way in ("reads", "reads_twice", "reads_as_it_goes")},
    "left upload": uploaded(socket.socket.close, "reads", 500_000),
    "reset upload": uploaded(reset_upload, "reads", 500_000),
    "upload, left in the answer": uploaded(leave, "reads_as_it_goes", 999_990, 50_000_000),
}


@pytest.mark.parametrize("hooks", [False, True], ids=["plain", "hooked"])
@THREADS
def test_an_exchange_leaves_nothing_however_it_ends(
    start: Callable[..., Server], tmp_path: Path, threads: str, hooks: bool
) -> None:
    address = ("127.0.0.1", free_port())
    (tmp_path / "conf.py").write_text(HOOKS if hooks else "")
    patience = ("--timeout", "2", "--body-timeout", "0.5", "--header-timeout", "2", "--keep-alive", "1")
    logs = ("--access-logfile", "/dev/null", "-c", f"{tmp_path}/conf.py", "--log-level", "debug")
    env = {"TMPDIR": "/nonexistent"}
    server = start("-b", "{}:{}".format(*address), "--threads", threads, *patience, *logs, "ends", env=env)
    client = Exchange(server.wait_ready(), address)
    (worker,) = server.workers

    def only_who_asks() -> dict[str, int] | None:
        found = client.left()
        return found if found["WSGIClient"] == 1 and found.get("Seat", 1) == int(threads) else None

    before = eventually(only_who_asks, "one client, and all threads have begun")
    remains = {}
    for name, end in ENDS.items():
        end(client)
        try:
            eventually(lambda: client.left().items() <= before.items())
        except AssertionError:
            left = client.left()
            remains[name] = {kind: count for kind, count in left.items() if count > before.get(kind, 0)}
            before.update(left)
    assert not remains
    assert server.workers == [worker]
