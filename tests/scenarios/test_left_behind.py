"""What a request got reaches nobody once it is over: neither the next one of its connection, nor any other client.

Behind a proxy the next request of a connection is somebody else's.
"""

import json
import socket
from collections.abc import Callable

import pytest

from tests.support.load import ask
from tests.support.server import Server, answer, connector, free_port
from tests.support.waiting import eventually

ERRORS = {"OSError", "ValueError"}
WAYS = ("lists", "writes", "yields")
EXPECT = "Expect: 100-continue\r\nContent-Length: 4\r\n"


def is_an_error(tried: dict[str, str]) -> None:
    reading = tried.pop("read")  # of a small body: a buffer of its own
    assert reading in ("gave None", "ValueError")
    assert set(tried.values()) <= ERRORS, tried


@pytest.mark.parametrize("threads", ["1", "4"])
def test_what_was_kept_is_of_no_use(start: Callable[..., Server], threads: str) -> None:
    address = ("127.0.0.1", free_port())
    logs = ("--access-logfile", "/dev/null")
    server = start("-b", "{}:{}".format(*address), "--threads", threads, "--keep-alive", "20", *logs, "hoards")
    server.wait_ready()
    connect = connector(address)

    def all_over(count: int) -> None:
        """A client has its answer before the call that sent it is over."""
        eventually(lambda: int(answer(address, "/over").body) == count, f"{count} calls are over")

    with connect() as sock:
        for way in WAYS:
            assert ask(sock, f"/{way}").status == 200
            again = ask(sock, "/try")  # its answer is as it should be, whatever was tried while it was made
            assert again.status == 200
            for tried in json.loads(again.body):
                is_an_error(tried)
        all_over(len(WAYS))
        for tried in json.loads(answer(address, "/try").body):  # while that connection is idle
            is_an_error(tried)
        sock.sendall(f"PUT /lists HTTP/1.1\r\nHost: a\r\n{EXPECT}\r\n".encode())
        assert sock.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert ask_again(sock, b"body") == (200, b"listed")
        assert [part["read"] for part in json.loads(ask(sock, "/try").body)][-1] == "ValueError"
    assert (answer(address, "/fails").status, answer(address, "/closes").body) == (500, b"closed")

    all_over(len(WAYS) + 3)
    for tried in json.loads(answer(address, "/try").body):
        is_an_error(tried)


def ask_again(sock: socket.socket, body: bytes) -> tuple[int, bytes]:
    """Sends what a request was waiting for."""
    sock.sendall(body)
    got = b""
    while not got.endswith(b"listed"):
        got += sock.recv(65536)
    return int(got.split()[1]), got.partition(b"\r\n\r\n")[2]
