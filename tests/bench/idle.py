"""Connections that ask once and then only stay: what keep-alive clients of a browser or a proxy look like.

A server that says `Connection: close` is taken at its word: the client closes, too. Some servers wait for that.
"""

import socket
from types import TracebackType

from tests.bench.wrk import WrongAnswer

REQUEST = b"GET /tiny HTTP/1.1\r\nHost: bench\r\n\r\n"


class Idle:
    """`count` idle connections to a server on `host` and `port`, inside a `with`."""

    def __init__(self, host: str, port: int, count: int) -> None:
        self._socks: list[socket.socket] = []
        self._address = host, port
        self._count = count

    def __enter__(self) -> "Idle":
        try:
            for _ in range(self._count):
                sock = socket.create_connection(self._address, timeout=30)
                self._socks.append(sock)
                sock.sendall(REQUEST)
                answer = sock.recv(65536)
                if not answer.startswith(b"HTTP/1.1 200"):
                    raise WrongAnswer("an idle connection was not answered")
                if b"\r\nconnection: close\r\n" in answer.lower():
                    sock.close()
        except OSError as error:
            self._close()
            raise WrongAnswer(f"idle connection {len(self._socks)}: {error}") from error
        except WrongAnswer:
            self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def left(self) -> int:
        """How many the server has kept open."""
        return sum(1 for sock in self._socks if sock.fileno() >= 0 and _open(sock))

    def _close(self) -> None:
        for sock in self._socks:
            sock.close()


def _open(sock: socket.socket) -> bool:
    """Reads what is left of the answer, and looks whether an end of file is behind it."""
    sock.setblocking(False)
    try:
        while sock.recv(65536):
            pass
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
