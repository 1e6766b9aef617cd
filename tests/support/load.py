"""Clients that notice everything: who answered what, how fast, and by name what went wrong.

A client is a thread with a blocking socket, one request at a time. Half of the clients open a connection for each
request, half keep theirs. They are well-behaved and unforgiving: nothing is ever sent twice. A connection that the
server closed is seen as such by a look at the socket before the next request is written, and no other thread runs
between the look and the write: with hundreds of them, the server had often closed meanwhile. Only what was written and
not answered is held against the server, under a name of its own if the connection was an old one (`stale`).
"""

import ctypes
import errno
import http.client
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType

Connect = Callable[[], socket.socket]

PAUSE = 0.005  # seconds between two pieces of a body
KERNEL = ctypes.PyDLL(None, use_errno=True)  # its functions keep the interpreter's lock


@dataclass(frozen=True)
class Answer:
    """One response; times in seconds, `at` on the monotonic clock when it was complete."""

    client: int
    status: int
    body: bytes
    pid: int
    """From the header X-Pid of the tests' applications, 0 without."""
    at: float
    latency: float
    reused: bool


@dataclass(frozen=True)
class Failure:
    """One request that was not answered as HTTP wants it."""

    client: int
    at: float
    name: str
    """The phase and the error: "connect: ConnectionRefusedError", "answer: end of file", …"""
    reused: bool
    pid: int = 0
    """Who had begun to answer, if anybody had."""
    detail: str = ""
    """The error in full, and the head of the answer where that was read."""


@dataclass
class Record:
    """What all clients saw."""

    answers: list[Answer] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    stale: list[Failure] = field(default_factory=list)
    """Requests written to an old connection that was closed without one byte of answer: the race of keep-alive."""
    closed_idle: int = 0
    """Old connections found closed before the next request was written: no failure."""

    @property
    def lost(self) -> list[Failure]:
        """Everything that was written and not answered, in order."""
        return sorted(self.failures + self.stale, key=lambda failure: failure.at)

    @property
    def pids(self) -> Counter[int]:
        return Counter(a.pid for a in self.answers)

    @property
    def statuses(self) -> Counter[int]:
        return Counter(a.status for a in self.answers)

    @property
    def names(self) -> Counter[str]:
        return Counter(f.name for f in self.failures + self.stale)

    def percentile(self, share: float) -> float:
        """The latency that `share` of the answers stayed under, in seconds."""
        latencies = sorted(a.latency for a in self.answers)
        return latencies[min(int(len(latencies) * share), len(latencies) - 1)]

    def __str__(self) -> str:
        return (
            f"{len(self.answers)} answers {dict(self.statuses)}, {len(self.failures)} failed and {len(self.stale)} "
            f"stale {dict(self.names)}, {self.closed_idle} closed while idle, {len(self.pids)} pids"
        )


class Load:
    """`clients` clients that ask for `path` again and again from `start` to `stop`, or inside a `with`.

    connect    makes one connection, time-out set; called in the client's thread
    reuse      how many of the clients keep their connections (default: half)
    think      seconds between an answer and the client's next request
    body       posted with each request; what is answered must be it again (/echo), or that is a failure
    pieces     in how many pieces the body is sent, PAUSE seconds apart
    sip        how many bytes of an answer are read at a time, PAUSE seconds apart (default: all of them)
    requests   how many each client sends at most (default: until `stop`)
    """

    def __init__(
        self,
        connect: Connect,
        clients: int = 16,
        reuse: int | None = None,
        path: str = "/",
        think: float = 0.0,
        body: bytes = b"",
        pieces: int = 1,
        sip: int = 0,
        requests: int | None = None,
    ) -> None:
        self.record = Record()
        self._connect = connect
        self._think = think
        self._sip = sip
        self._requests = requests
        method = "POST" if body else "GET"
        self._head = f"{method} {path} HTTP/1.1\r\nHost: test\r\n"
        self._body = body
        size = -(-len(body) // pieces)
        self._pieces = [body[at : at + size] for at in range(0, len(body), size)] if pieces > 1 else []
        if body:
            self._head += f"Content-Length: {len(body)}\r\n"
        keeping = clients // 2 if reuse is None else reuse
        self._threads = [
            threading.Thread(target=self._client, args=(number, number < keeping), daemon=True)
            for number in range(clients)
        ]
        self._stopped = threading.Event()
        self._going = threading.Event()
        self._going.set()
        self._news = threading.Condition()

    def start(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def pause(self) -> None:
        """Have each client stay idle after its present request, its connection open."""
        self._going.clear()

    def resume(self) -> None:
        self._going.set()

    def stop(self) -> Record:
        """Let each client finish the request it has sent; return what was seen."""
        self._stopped.set()
        self.resume()
        for thread in self._threads:
            thread.join()
        return self.record

    def __enter__(self) -> "Load":
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def wait(self, seen: Callable[[Record], object], what: str = "", timeout: float = 30.0) -> None:
        """Wait until `seen(record)` is true; looked at after each answer and failure."""
        with self._news:
            if not self._news.wait_for(lambda: seen(self.record), timeout):
                raise AssertionError(f"not within {timeout:g} s: {what}; {self.record}")

    def wait_answers(self, more: int = 50) -> None:
        """Wait until `more` answers have come in from now on."""
        goal = len(self.record.answers) + more
        self.wait(lambda record: len(record.answers) >= goal, f"{more} more answers")

    def _client(self, number: int, reuse: bool) -> None:
        sock: socket.socket | None = None
        asked = 0
        while self._going.wait() and not self._stopped.is_set() and asked != self._requests:
            asked += 1
            sock = self._ask(number, sock, reuse)
            if self._think:
                self._stopped.wait(self._think)
        if sock is not None:
            sock.close()

    def _send(self, sock: socket.socket, head: bytes) -> OSError | None:
        """Returns the error of a server that takes no more: it may have answered before the whole body came."""
        try:
            if first := head + (b"" if self._pieces else self._body):
                sock.sendall(first)
            for piece in self._pieces:
                self._stopped.wait(PAUSE)
                sock.sendall(piece)
        except (BrokenPipeError, ConnectionResetError) as error:
            return error
        return None

    def _read(self, response: http.client.HTTPResponse) -> bytes:
        """The whole body, or nothing of one that is read slowly: it is only counted."""
        if not self._sip:
            return response.read()
        while response.read(self._sip):
            self._stopped.wait(PAUSE)
        if response.length:
            raise http.client.IncompleteRead(b"", response.length)
        return b""

    def _ask(self, number: int, sock: socket.socket | None, reuse: bool) -> socket.socket | None:
        """One request; returns the connection if the next may use it."""
        head = (self._head + ("\r\n" if reuse else "Connection: close\r\n\r\n")).encode()
        began = time.monotonic()
        sent = -1 if sock is None else _sent_unless_closed(sock, head)
        reused = sent >= 0
        if sock is not None and not reused:
            sock.close()
            sock = None
            with self._news:
                self.record.closed_idle += 1
        phase = "connect"
        began_answer = False
        pid = 0
        head_seen: list[tuple[str, str]] = []
        try:
            if sock is None:
                sock = self._connect()
            phase = "request"
            refused = self._send(sock, head[max(sent, 0) :])
            phase = "request" if refused else "answer"
            began_answer = bool(sock.recv(1, socket.MSG_PEEK))
            if not began_answer:
                raise refused or EOFError("end of file")
            response = http.client.HTTPResponse(sock)
            response.begin()
            pid = int(response.headers.get("X-Pid", 0))
            head_seen = response.headers.items()
            body = self._read(response)
            if self._body and response.status == 200:
                if body != self._body:
                    raise EOFError("not the body that was sent")
                body = self._body  # thousands of copies are not kept
        except (OSError, EOFError, http.client.HTTPException) as e:
            if sock is not None:
                sock.close()
            name = f"{phase}: {e if isinstance(e, EOFError) else type(e).__name__}"
            failure = Failure(number, time.monotonic(), name, reused, pid, f"{e!r} {head_seen}")
            gone = isinstance(e, (EOFError, ConnectionResetError, BrokenPipeError))
            with self._news:
                if reused and not began_answer and gone:
                    self.record.stale.append(failure)
                else:
                    self.record.failures.append(failure)
                self._news.notify_all()
            # A server that refuses at once would else be asked in a busy loop, and hide everything behind one failure.
            self._stopped.wait(0.05)
            return None
        now = time.monotonic()
        answer = Answer(number, response.status, body, pid, now, now - began, reused)
        with self._news:
            self.record.answers.append(answer)
            self._news.notify_all()
        if reuse and not response.will_close:
            return sock
        sock.close()
        return None


def _sent_unless_closed(sock: socket.socket, data: bytes) -> int:
    """Sends what this idle connection takes of `data` at once; -1 if the peer had closed it before."""
    fd, at_once = sock.fileno(), socket.MSG_DONTWAIT
    byte = ctypes.create_string_buffer(1)
    got: int = KERNEL.recv(fd, byte, 1, socket.MSG_PEEK | at_once)
    if got == 0 or (got < 0 and ctypes.get_errno() != errno.EAGAIN):
        return -1
    sent: int = KERNEL.send(fd, data, len(data), at_once | socket.MSG_NOSIGNAL)
    return max(0, sent)


def connected(sock: socket.socket, address: tuple[str, int] | str, timeout: float) -> socket.socket:
    """`sock`, connected within `timeout` seconds, and with that time-out; closed when that fails."""
    sock.settimeout(timeout)
    try:
        sock.connect(address)
    except BaseException:
        sock.close()
        raise
    return sock


def until_closed(sock: socket.socket) -> bytes:
    """All that comes until the server ends the connection."""
    got = []
    while data := sock.recv(65536):
        got.append(data)
    return b"".join(got)


def ask(sock: socket.socket, path: str = "/", method: str = "GET", headers: str = "", body: bytes = b"") -> Answer:
    """One request on a connection that stays open; `headers` are lines that end in CRLF."""
    began = time.monotonic()
    length = f"Content-Length: {len(body)}\r\n" if body else ""
    sock.sendall(f"{method} {path} HTTP/1.1\r\nHost: test\r\n{length}{headers}\r\n".encode() + body)
    response = http.client.HTTPResponse(sock, method=method)
    response.begin()
    content = response.read()
    now = time.monotonic()
    return Answer(0, response.status, content, int(response.headers.get("X-Pid", 0)), now, now - began, False)


def get(connect: Connect, path: str = "/") -> Answer:
    """One GET on a connection of its own."""
    with connect() as sock:
        return ask(sock, path, headers="Connection: close\r\n")
