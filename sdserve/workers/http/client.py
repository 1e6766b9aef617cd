"""One client connection: its socket, its parser, what it still has to send, and how long it may take for what.

A client is touched by one thread at a time: by the one that polls, or, while `phase` is CALL, by the one that serves
its request. It does no polling itself and decides nothing: clients.py moves it. Nothing here knows what a request
becomes; a worker class derives from this what it needs besides.
"""

import select
import socket
import struct
from collections.abc import Sequence
from contextlib import suppress
from enum import IntEnum
from operator import attrgetter
from typing import Any, TypeVar

from sdserve.gateway.environ import Environ
from sdserve.http.connection import Connection
from sdserve.http.request import Request
from sdserve.http.writer import ClientGone
from sdserve.immutable import Immutable
from sdserve.process import forked
from sdserve.workers.http.body import Body, WholeBody
from sdserve.workers.http.deadlines import NEVER, Arrival
from sdserve.workers.http.write_buffer import Store, WriteBuffer

RECEIVE = 65536  # bytes of a body for one recv(2)
HEADS = 16384  # bytes where heads are expected: so much a client that pipelines can have read ahead
PARTS = 64  # of a response in one sendmsg(2)
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: on, 0 seconds; close(2) then resets the connection
EPOLLIN, EPOLLOUT = select.EPOLLIN, select.EPOLLOUT


class Phase(IntEnum):
    """What a client is doing, and so what it is polled for and which deadline it has."""

    PREFACE = 0  # waiting for the PROXY header
    HEAD = 1  # idle, or receiving a head
    BODY = 2
    CALL = 3  # the application has it
    FLUSH = 4  # the peer has not taken yet what was sent; the application may have more to send
    LINGER = 5  # answered for the last time; what the peer still sends is read and dropped
    CLOSED = 6
    READ = 7  # the application has it, and waits for more of its body


# What each phase may be followed by, besides CLOSED. A client is new in HEAD.
MOVES: dict[Phase, tuple[Phase, ...]] = {
    Phase.PREFACE: (Phase.HEAD,),
    Phase.HEAD: (Phase.PREFACE, Phase.BODY, Phase.CALL, Phase.LINGER),
    Phase.BODY: (Phase.BODY, Phase.CALL),
    Phase.CALL: (Phase.HEAD, Phase.READ, Phase.FLUSH, Phase.LINGER),
    Phase.READ: (Phase.READ, Phase.CALL),
    Phase.FLUSH: (Phase.CALL,),
    Phase.LINGER: (),
    Phase.CLOSED: (),
}


class Running(Immutable):
    """A request that the application has, in words for the log. `stuck`: the thread or loop of the worker is in it."""

    text: str
    request: str
    client: str
    seconds: float
    stuck: bool = True

    def about(self, pid: int | str) -> dict[str, Any]:
        """What an event of it says, beside its own."""
        named = {"CALL": self.text, "REQUEST": self.request, "CLIENT": self.client, "WORKER_PID": pid}
        return named | {"SECONDS": round(self.seconds, 3)}


class Client:
    """`peer` and `port` are who is connected, or whom a PROXY header names; "" for a Unix socket. `standing` says
    whether the peer may speak for others (gateway/forwarded.py); `base` is what the environs of its requests share."""

    __slots__ = (
        *("sock", "fd", "conn", "base", "peer", "port", "listener", "proxied", "standing", "store", "preface"),
        *("given", "phase", "mask", "queued", "deadline", "began", "waited", "called", "last"),
        *("request", "body", "arrival", "unsent", "close_after", "lingers", "sent", "reset"),
        *("status", "started"),
    )

    waits_in_send = True  # what does not fit may wait for the client there for a moment (write_buffer.py)

    def __init__(
        self, sock: socket.SocketType, conn: Connection, base: Environ, peer: tuple[str, str], store: Store
    ) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self.conn = conn
        self.base = base
        self.peer, self.port = peer
        self.store = store
        self.standing = 0
        self.listener = ""  # where it came in
        self.proxied = False  # its peer's address came with the PROXY protocol
        self.phase = Phase.HEAD
        self.mask = 0  # what epoll is told now
        self.queued = False  # waits for its turn with what was received, and is not read from
        self.deadline = NEVER
        self.began = 0.0  # of the head or body that is arriving
        self.waited = 0.0  # seconds that another worker has waited for the body that is arriving
        self.called = 0.0  # when the application got the request
        self.last = 0.0  # when the last response was finished
        self.request: Request | None = None
        self.body: Body | WholeBody | None = None
        self.arrival: Arrival | None = None
        self.unsent: WriteBuffer | None = None
        self.close_after = False  # the response being sent is the last
        self.lingers = True  # the peer may be sending still
        self.sent = 0  # body bytes of the last response
        self.status = ""  # of the last response, "" where none had begun
        self.started = 0.0  # when its request had come
        self.given = False  # to another worker, which has it now
        self.reset = False  # and it was cut short where only a reset can say so
        self.preface = b""

    def fileno(self) -> int:
        return self.fd

    def name_peer(self, peer: tuple[str, str]) -> None:
        """A PROXY header says who is connected."""
        self.peer, self.port = peer
        self.proxied = True
        self.base["REMOTE_ADDR"], self.base["REMOTE_PORT"] = peer

    @property
    def runs(self) -> bool:
        """Whether the application has the request, or goes on with it when it is its turn."""
        return self.phase is Phase.CALL

    @property
    def running_since(self) -> float:
        return self.called

    @property
    def answers(self) -> bool:
        """Whether the answer of a running call has begun."""
        return False

    def forget(self) -> None:
        """Its request is over. A hook's request, for one, knows its client."""
        self.request = None

    def running(self, now: float) -> Running:
        """The call that runs."""
        seconds = now - self.running_since
        return Running(
            self.describe(seconds), self.request_line, self.peer or "unix", seconds, self.phase is Phase.CALL
        )

    @property
    def request_line(self) -> str:
        """What it has asked for, for the log."""
        return f"{self.request.method} {self.request.uri}" if self.request is not None else "a request"

    def describe(self, seconds: float) -> str:
        """A call that takes so long, for the log."""
        raise NotImplementedError

    def is_idle(self) -> bool:
        """Whether nothing of a request has been received, and none is being answered."""
        if self.phase is Phase.PREFACE:
            return not self.preface
        return self.phase is Phase.HEAD and not self.queued and not self.conn.buffered

    def has_news(self) -> bool:
        """Whether something has arrived that was not read yet: it is we who are late."""
        try:
            return bool(self.sock.recv(1, socket.MSG_PEEK))
        except OSError:
            return False

    # --- Sink: how a response leaves --------------------------------------------------------------------------------

    full = property(attrgetter("unsent"))  # asked twice for each piece of an answer: no frame for that

    def gone(self, quiet: float) -> bool:
        """Whether the connection is closed in both directions. Whoever has closed his own may still read: for as long
        as a client has that takes nothing."""
        poll = select.poll()
        poll.register(self.sock, 0)
        if poll.poll(0):
            return True
        try:
            return 0 < self.store.patience <= quiet and self.sock.recv(1, socket.MSG_PEEK) == b""
        except BlockingIOError:
            return False

    def send(self, data: bytes) -> None:
        unsent = self.unsent
        if unsent is None:
            try:
                sent = self.sock.send(data)
            except BlockingIOError:
                sent = 0
            except OSError as error:
                raise ClientGone(str(error)) from error
            if sent < len(data):
                self._keep((data,), sent)
        elif self.flush():
            self.send(data)
        else:
            unsent.push(data, whole=not self.waits_in_send)

    def send_parts(self, parts: Sequence[bytes], *, whole: bool) -> None:
        if self.unsent is not None and not self.flush():
            for part in parts:
                self.unsent.push(part, whole=whole)
            return
        try:
            sent = self.sock.sendmsg(parts if len(parts) <= PARTS else parts[:PARTS])
        except BlockingIOError:
            sent = 0
        except OSError as error:
            raise ClientGone(str(error)) from error
        if sent < sum(map(len, parts)):
            self._keep(parts, sent, whole=whole)
            if len(parts) > PARTS:
                self.flush()

    def _keep(self, parts: Sequence[bytes], sent: int, *, whole: bool = False) -> None:
        """What is behind the first `sent` bytes of `parts` waits for the client."""
        self.unsent = unsent = WriteBuffer(self.sock, self.store, self.called)
        whole = whole or not self.waits_in_send
        for part in parts:
            if sent < len(part):
                unsent.push(part, sent, whole=whole)
            sent = max(0, sent - len(part))

    def send_file(self, head: bytes, fd: int, offset: int, count: int) -> None:
        sent = 0
        if self.unsent is None:
            if head:
                sent = self._begin(head)
            self.unsent = WriteBuffer(self.sock, self.store)
        if sent < len(head):
            self.unsent.push(head, sent, whole=True)
        self.unsent.push_file(fd, offset, count)
        self.flush()

    def _begin(self, head: bytes) -> int:
        """Sends what a file follows at once, in one packet (MSG_MORE, send(2)). Returns what there was room for."""
        try:
            return self.sock.send(head, socket.MSG_MORE)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise ClientGone(str(error)) from error

    def flush(self) -> bool:
        """Sends what the peer takes now; True when nothing is left. Raises ClientGone."""
        if self.unsent is not None:
            if not self.unsent.flush():
                return False
            self.unsent.close()
            self.unsent = None
        return True

    def send_continue(self) -> None:
        """Asks a client that waits for that to send its body (RFC 9110 section 10.1.1)."""
        self.send(b"HTTP/1.1 100 Continue\r\n\r\n")

    def forget_unsent(self) -> None:
        """What the peer has not taken will not be sent."""
        if self.unsent is not None:
            self.unsent.close()
            self.unsent = None

    def forget_body(self) -> None:
        """The body was read, or nobody will read it."""
        if self.body is not None:
            self.body.close()
            self.body = self.arrival = None

    def reset_at_close(self) -> None:
        """Has the end of this connection say that something is missing, where nothing else does."""
        self.reset = True
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)

    def close(self) -> None:
        """Closes the socket and lets go of everything. The caller has told epoll."""
        self.phase = Phase.CLOSED
        self.deadline = NEVER
        self.conn.close()
        self.forget_unsent()
        self.forget_body()
        if forked.parent and not (self.given or self.reset):  # a child may have a copy, accepted as it was forked
            with suppress(OSError):  # it is gone already
                self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()


C = TypeVar("C", bound=Client)
