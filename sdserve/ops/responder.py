"""A small server for scrapers and load balancers: one thread, no keep-alive, everything bounded.

Whoever reaches it may be hostile, so a connection costs a known amount: a head of 8 KiB that must have come within
`ASK_WITHIN`, one answer that must have been taken within `TAKE_WITHIN`. When `MOST` are open, the one that has been
asking for longest goes for the next: slow clients cannot keep quick ones out. Requests are read by the same reader that
workers use. Each answer is made in one step from memory, and waits for nobody.
"""

import selectors
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from time import monotonic

from sdserve.errors import NO_ROOM
from sdserve.http.connection import Connection
from sdserve.http.errors import BadRequest, HTTPError, MethodNotAllowed, RequestTimedOut
from sdserve.http.limits import Limits
from sdserve.http.request import Request, RequestReader
from sdserve.http.response import HeadWriter

MOST = 32  # connections
ASK_WITHIN = 3.0  # seconds
TAKE_WITHIN = 5.0
LINGER = 0.5  # for reading what a client sent behind its request: closing before that would reset its answer
RECEIVE = 8192
LIMITS = Limits(request_line=2048, fields=50, field_size=4096, head=8192, body=1, requests=1)
LAST_QUESTION = 0.25  # seconds for the requests of those who are connected, once it is over
LAST_ANSWER = 1.0  # seconds for their answers
PAUSE = 0.5  # seconds in which nobody is accepted, for want of memory or descriptors
READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE

Body = tuple[int, str, str, bytes]  # status, reason, content type, body
Route = Callable[[str], Body]  # gets the header field Accept
Line = Callable[[], bytes]


class Guest:
    """One connection. `conn` reads its request, None on a plain listener; `out` is what it has not taken."""

    def __init__(self, sock: socket.socket, conn: Connection | None, due: float) -> None:
        self.sock = sock
        self.conn = conn
        self.due = due
        self.out = b""
        self.answered = False

    def fileno(self) -> int:
        return self.sock.fileno()


class Responder:
    """Answers on HTTP listeners by `routes`, and on plain ones by `line`, until `lifeline` ends or nobody has come for
    `idle` seconds. `failed` is called inside of the `except` clause when an answer could not be made."""

    def __init__(
        self,
        routes: Mapping[str, Route],
        line: Line,
        server: str,
        lifeline: int,
        idle: float,
        failed: Callable[[], None],
    ) -> None:
        self._routes = routes
        self._line = line
        self._failed = failed
        self._heads = HeadWriter(server)
        self._reader = RequestReader(LIMITS)
        self._selector = selectors.DefaultSelector()
        self._selector.register(lifeline, READ)
        self._lifeline = lifeline
        self._idle = idle
        self._listeners: dict[int, tuple[socket.socket, bool]] = {}
        self._open = False  # whether listeners are polled
        self._open_again = 0.0
        self._guests: dict[int, Guest] = {}
        self._last = monotonic()
        self._ends = False
        self.on_end: Callable[[], None] = lambda: None

    def listen(self, sock: socket.socket, *, http: bool) -> None:
        """Serves this listener, which does not block."""
        self._listeners[sock.fileno()] = (sock, http)

    def run(self) -> None:
        """Serves; returns when it is over, and whoever was accepted has been answered."""
        self._poll_listeners(True)
        while not self._is_over():
            events = self._selector.select(self._timeout())
            self._heads.clock(monotonic())
            for key, mask in events:
                if key.fd == self._lifeline:
                    self._end()
                elif key.fd in self._listeners:
                    if not self._ends:  # else whoever answers next accepts
                        self._accept(*self._listeners[key.fd])
                elif (guest := self._guests.get(key.fd)) is not None and guest is key.fileobj:
                    self._step(guest, mask)  # else it has gone in this turn, and its number is another's
            self._sweep(monotonic())
            self._poll_listeners(not self._ends and monotonic() >= self._open_again)

    def _is_over(self) -> bool:
        if self._ends:
            return not any(guest.out or not guest.answered for guest in self._guests.values())
        return not self._guests and monotonic() >= self._last + self._idle

    def _end(self) -> None:
        """Nobody new is accepted, and who was has little time."""
        self._ends = True
        self.on_end()
        self._selector.unregister(self._lifeline)
        for guest in self._guests.values():
            guest.due = min(guest.due, monotonic() + (LAST_ANSWER if guest.answered else LAST_QUESTION))

    def _timeout(self) -> float:
        due = min([guest.due for guest in self._guests.values()] or [self._last + self._idle])
        if not self._open and not self._ends:
            due = min(due, self._open_again)
        return max(0.0, due - monotonic())

    def _poll_listeners(self, wanted: bool) -> None:
        if wanted is not self._open:
            self._open = wanted
            for fd in self._listeners:
                if wanted:
                    self._selector.register(fd, READ)
                else:
                    self._selector.unregister(fd)

    def _accept(self, listener: socket.socket, http: bool) -> None:
        try:
            sock, _ = listener.accept()
        except OSError as error:
            if error.errno in NO_ROOM:
                self._open_again = monotonic() + PAUSE
                self._poll_listeners(False)
            return  # else it went away again
        now = self._last = monotonic()
        if len(self._guests) >= MOST:
            self._close(min(self._guests.values(), key=lambda guest: (guest.answered, guest.due)))
        sock.setblocking(False)
        guest = Guest(sock, Connection(self._reader, LIMITS) if http else None, now + ASK_WITHIN)
        self._guests[sock.fileno()] = guest
        self._selector.register(guest, READ)
        if http:
            self._step(guest, READ)  # most have asked already
        else:
            self._answer(guest, self._made(lambda: self._line()))

    def _step(self, guest: Guest, mask: int) -> None:
        if mask & WRITE:
            self._send(guest)
        if mask & READ and guest.fileno() >= 0:
            self._read(guest)

    def _read(self, guest: Guest) -> None:
        try:
            data = guest.sock.recv(RECEIVE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            if not guest.out:
                self._close(guest)
            else:  # it has closed its half, and may wait for the answer all the same
                self._selector.modify(guest, WRITE)
        elif guest.conn is not None and not guest.answered:
            guest.conn.receive(data)
            try:
                request = guest.conn.next_request()
            except HTTPError as error:
                self._answer(guest, self._heads.error(error))
                return
            if request is not None:
                self._answer(guest, self._respond(request))

    def _respond(self, request: Request) -> bytes:
        has_body = request.method != "HEAD"
        if request.length:
            return self._heads.error(BadRequest("a body is not expected"), body=has_body)
        if request.method not in ("GET", "HEAD"):
            return self._heads.error(MethodNotAllowed("GET and HEAD only"), body=has_body)
        route = self._routes.get(request.path)
        if route is None:
            known = " ".join(sorted(self._routes))
            return self._whole((404, "Not Found", "text/plain", f"404 Not Found: try {known}\n".encode()), has_body)
        accept = b",".join(value for name, value in request.fields if name.lower() == b"accept").decode("latin-1")
        return self._made(lambda: self._whole(route(accept), has_body))

    def _made(self, make: Callable[[], bytes]) -> bytes:
        try:
            return make()
        except Exception:  # noqa: BLE001 - told by `failed`; the next one may succeed
            self._failed()
            return self._heads.plain(500, "Internal Server Error")

    def _whole(self, answer: Body, has_body: bool) -> bytes:
        status, reason, kind, body = answer
        head = b"HTTP/1.1 %d %b\r\n%bContent-Type: %b\r\nContent-Length: %d\r\nCache-Control: no-store\r\n" % (
            *(status, reason.encode("ascii"), self._heads.signature),
            *(kind.encode("latin-1"), len(body)),
        )
        return head + b"Connection: close\r\n\r\n" + (body if has_body else b"")

    def _answer(self, guest: Guest, answer: bytes) -> None:
        guest.answered = True
        guest.out = answer
        guest.due = monotonic() + (LAST_ANSWER if self._ends else TAKE_WITHIN)
        self._send(guest)

    def _send(self, guest: Guest) -> None:
        try:
            sent = guest.sock.send(guest.out)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._close(guest)
            return
        guest.out = guest.out[sent:]
        if guest.out:
            self._selector.modify(guest, READ | WRITE)
            return
        with suppress(OSError):  # it has gone
            guest.sock.shutdown(socket.SHUT_WR)
        guest.due = monotonic() + LINGER
        self._selector.modify(guest, READ)

    def _sweep(self, now: float) -> None:
        for guest in [guest for guest in self._guests.values() if guest.due <= now]:
            if guest.answered or guest.conn is None or not guest.conn.buffered:
                self._close(guest)
            else:
                self._answer(guest, self._heads.error(RequestTimedOut("the head did not arrive in time")))

    def _close(self, guest: Guest) -> None:
        self._guests.pop(guest.fileno(), None)
        self._selector.unregister(guest)
        guest.sock.close()
