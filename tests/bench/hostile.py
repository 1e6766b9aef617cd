"""Clients that are slow on purpose, in a process of their own: what they cost the server is what is looked at.

Eight connections with half a request, 500 that send a byte a second, and 500 that ask for a megabyte and never read.
Who is refused or cut off comes back. One reader after the other leaves and comes back, too, each after `STAY` seconds,
so the server has new ones all the time.
"""

import contextlib
import itertools
import socket
import subprocess
import sys
import time
from types import TracebackType

HALF_OPEN, DRIBBLERS, READERS = 8, 500, 500
STAY = 20.0  # seconds
HEAD = b"GET /tiny HTTP/1.1\r\nHost: bench\r\nX-Slow: "
ASK = b"GET /pieces HTTP/1.1\r\nHost: bench\r\n\r\n"
READY = "ready"


class Hostile:
    """All of them beside a measurement, inside a `with`."""

    def __init__(self, host: str, port: int) -> None:
        self._argv = [sys.executable, "-m", __name__, host, str(port)]

    def __enter__(self) -> "Hostile":
        self._process = subprocess.Popen(self._argv, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self._process.stdout.readline()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()


def _connect(address: tuple[str, int], sent: bytes, room: int = 0) -> socket.socket:
    sock = socket.socket()
    if room:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
    sock.settimeout(10)
    with contextlib.suppress(OSError):  # a server that does not take it now is asked again later
        sock.connect(address)
        sock.sendall(sent)
    sock.setblocking(False)
    return sock


def main(host: str, port: int) -> None:
    address = host, port
    half_open = [_connect(address, HEAD) for _ in range(HALF_OPEN)]
    dribblers = [_connect(address, HEAD) for _ in range(DRIBBLERS)]
    readers = [_connect(address, ASK, 4096) for _ in range(READERS)]
    print(READY, flush=True)
    began = time.monotonic()
    for step in itertools.count():
        number = step % DRIBBLERS
        try:
            dribblers[number].send(b"a")
        except OSError:
            dribblers[number].close()
            dribblers[number] = _connect(address, HEAD)
        if step * READERS / STAY / DRIBBLERS % 1 < READERS / STAY / DRIBBLERS:
            leaver = int(step * READERS / STAY / DRIBBLERS) % READERS
            readers[leaver].close()
            readers[leaver] = _connect(address, ASK, 4096)
        with contextlib.suppress(OSError):
            half_open[step % HALF_OPEN].recv(4096)
        time.sleep(max(0.0, began + step / DRIBBLERS - time.monotonic()))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
