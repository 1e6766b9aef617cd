"""A client with a beat: requests at fixed times, whatever the server does, and how late each was answered.

A client that waits for one answer before it asks again asks less while a server stalls, and so hides the stall. Here a
request whose time has come is sent on whichever connection is free, or on a new one, and its latency counts from the
time that it was due. One request of FRESH has a connection of its own. Nothing is sent twice: what was written and not
answered is lost, and a connection that is found closed before anything was written is not.

    python -m tests.bench.pulse HOST PORT PATH RATE        until the end of its standard input; prints JSON

One thread and one epoll, some 50 us a request, so that it leaves the cores to the server.
"""

import gc
import json
import os
import select
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

FRESH = 8
PATIENCE = 10.0  # seconds after which an answer is not waited for any more
CHECKOUT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Beats:
    """What came of the requests. Times in seconds, on the monotonic clock, which all processes share."""

    answered: list[tuple[float, float]]
    """(when it was due, how long after that its answer was there), in order of the former."""
    lost: list[tuple[float, str]]
    """(when it was due, what happened)."""
    closed: int
    """Idle connections that the server closed."""

    def within(self, spans: Sequence[tuple[float, float]]) -> list[float]:
        """The latencies of what was due in one of the spans (from, until), sorted."""
        return sorted(latency for due, latency in self.answered if any(since <= due < until for since, until in spans))


def share(latencies: list[float], part: float) -> float:
    """What `part` of sorted latencies stayed under."""
    return latencies[min(int(len(latencies) * part), len(latencies) - 1)]


class Pulse:
    """The client in a process of its own, inside a `with`; `beats` is there after it."""

    def __init__(self, host: str, port: int, path: str, rate: int) -> None:
        self._argv = [sys.executable, "-m", "tests.bench.pulse", host, str(port), path, str(rate)]

    def __enter__(self) -> "Pulse":
        self._popen = subprocess.Popen(
            self._argv, cwd=CHECKOUT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        told, _ = self._popen.communicate(timeout=60)
        found = json.loads(told)
        answered = sorted((due, latency) for due, latency in found["answered"])
        self.beats = Beats(answered, [(due, what) for due, what in found["lost"]], found["closed"])


class Client:
    """The loop of the process."""

    def __init__(self, host: str, port: int, path: str, rate: int) -> None:
        self._address = host, port
        head = f"GET {path} HTTP/1.1\r\nHost: bench\r\n"
        self._kept, self._fresh = f"{head}\r\n".encode(), f"{head}Connection: close\r\n\r\n".encode()
        self._step = 1 / rate
        self._epoll = select.epoll()
        self._socks: dict[int, socket.socket] = {}
        self._free: deque[int] = deque()
        self._due: dict[int, tuple[float, bool, bytes]] = {}
        self._answered: list[tuple[float, float]] = []
        self._lost: list[tuple[float, str]] = []
        self._closed = 0

    def run(self, end: int) -> dict[str, object]:
        """Asks until the descriptor `end` is readable, then waits for what is still to be answered."""
        self._epoll.register(end, select.EPOLLIN)
        due, number, asking = time.monotonic(), 0, True
        until = float("inf")
        while asking or (self._due and time.monotonic() < until):
            wait = max(0.0, due - time.monotonic()) if asking else 0.1
            for fd, _ in self._epoll.poll(wait):
                if fd == end:
                    asking, until = False, time.monotonic() + PATIENCE
                    self._epoll.unregister(end)
                else:
                    self._readable(fd)
            while asking and due <= time.monotonic():
                number += 1
                self._ask(due, number % FRESH == 0)
                due += self._step
        self._lost += [(due, "no answer") for due, _, _ in self._due.values()]
        return {"answered": self._answered, "lost": self._lost, "closed": self._closed}

    def _ask(self, due: float, fresh: bool) -> None:
        try:
            fd = self._free.popleft() if self._free and not fresh else self._connect()
        except OSError as error:
            self._lost.append((due, f"connect: {type(error).__name__}"))
            return
        try:
            self._socks[fd].send(self._fresh if fresh else self._kept)
        except OSError as error:
            self._lost.append((due, f"request: {type(error).__name__}"))
            self._forget(fd)
            return
        self._due[fd] = due, fresh, b""

    def _connect(self) -> int:
        sock = socket.create_connection(self._address, timeout=PATIENCE)
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socks[sock.fileno()] = sock
        self._epoll.register(sock.fileno(), select.EPOLLIN)
        return sock.fileno()

    def _readable(self, fd: int) -> None:
        problem = "end of file"
        try:
            data = self._socks[fd].recv(65536)
        except OSError as error:
            data, problem = b"", type(error).__name__
        asked = self._due.pop(fd, None)
        if asked is None:  # idle: closed, as servers may
            self._closed += 1
            self._free.remove(fd)
            self._forget(fd)
            return
        due, fresh, before = asked
        if not data:
            self._lost.append((due, f"answer: {problem}"))
            self._forget(fd)
            return
        answer = before + data
        if not _complete(answer):
            self._due[fd] = due, fresh, answer
            return
        if answer.startswith(b"HTTP/1.1 200"):
            self._answered.append((due, time.monotonic() - due))
        else:
            self._lost.append((due, answer[9:12].decode(errors="replace")))
        if fresh or b"\r\nconnection: close\r\n" in answer.lower():
            self._forget(fd)
        else:
            self._free.append(fd)

    def _forget(self, fd: int) -> None:
        self._epoll.unregister(fd)
        self._socks.pop(fd).close()


def _complete(answer: bytes) -> bool:
    """Whether head and body are there; the servers here tell a length."""
    head, found, body = answer.partition(b"\r\n\r\n")
    if not found:
        return False
    lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    return bool(lengths) and len(body) >= int(lengths[0].partition(b":")[2])


if __name__ == "__main__":
    gc.disable()
    told = Client(sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])).run(sys.stdin.fileno())
    json.dump(told, sys.stdout)
    sys.stdout.flush()
    os._exit(0)
