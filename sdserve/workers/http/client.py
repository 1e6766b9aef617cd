"""One client connection: its socket, its parser, what it still has to send, and how long it may take for what.

A client is touched by one thread at a time: by the leader, or, while `phase` is CALL, by the thread that serves its
request. It does no polling itself; `wants` says to the loop what to poll it for.
"""

import select
import socket
import struct
from collections.abc import Sequence
from contextvars import Context
from enum import IntEnum
from time import monotonic_ns
from typing import TYPE_CHECKING

from sdserve.gateway.response import ClientGone, Response
from sdserve.gateway.wsgi import Environ
from sdserve.http.connection import Connection
from sdserve.http.request import Request
from sdserve.workers.http.write_buffer import Store, WriteBuffer
from sdserve.workers.wsgi.body import Arrival, Body
from sdserve.workers.wsgi.takeover import GUNICORN

if TYPE_CHECKING:
    from sdserve.workers.wsgi.fiber import Fiber
    from sdserve.workers.wsgi.input import Incoming

RECEIVE = 65536  # bytes of a body for one recv(2)
HEADS = 16384  # bytes where heads are expected: so much a client that pipelines can have read ahead
PARTS = 64  # of a response in one sendmsg(2)
NEVER = float("inf")
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


WANTS = {
    Phase.PREFACE: EPOLLIN,
    Phase.HEAD: EPOLLIN,
    Phase.BODY: EPOLLIN,
    Phase.CALL: 0,
    Phase.FLUSH: EPOLLOUT,
    Phase.LINGER: EPOLLIN,
    Phase.CLOSED: 0,
    Phase.READ: EPOLLIN,
}


class Reply:
    """A response that is not over when its call ends: its client has not taken all of it, and the application may have
    more. What is left to do with the application is done in `thread`, in `context` (None: the thread's own), or in
    `fiber`, for a call that began before its body was there (`incoming`)."""

    __slots__ = ("began", "context", "environ", "fiber", "incoming", "lost", "response", "thread")

    def __init__(self, environ: Environ, response: Response, began: float, thread: int) -> None:
        self.environ = environ
        self.response = response
        self.began = began
        self.thread = thread
        self.context: Context | None = None
        self.fiber: Fiber | None = None
        self.incoming: Incoming | None = None
        self.lost = -1  # bytes that the client never took, -1: it has not gone

    @property
    def waits(self) -> bool:
        """Whether the application waits for more of its body."""
        return self.incoming is not None and self.incoming.waits


class Client:
    """`base` is what all environs of this connection share; `standing` says whether its peer may speak for others."""

    __slots__ = (
        "arrival",
        "base",
        "began",
        "body",
        "called",
        "close_after",
        "conn",
        "deadline",
        "failed",
        "fd",
        "last",
        "lingers",
        "listener",
        "mask",
        "peer",
        "phase",
        "preface",
        "proxied",
        "queued",
        "reply",
        "request",
        "reset",
        "response",
        "sent",
        "sock",
        "standing",
        "store",
        "unsent",
        "waited",
    )

    def __init__(self, sock: socket.SocketType, conn: Connection, base: Environ, peer: str, store: Store) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self.conn = conn
        self.base = base
        self.peer = peer
        self.store = store
        self.standing = 0  # gateway/wsgi.py: TRUSTED, UNNAMED
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
        self.response: Response | None = None  # while the application has the request
        self.body: Body | None = None
        self.arrival: Arrival | None = None
        self.unsent: WriteBuffer | None = None
        self.reply: Reply | None = None
        self.close_after = False  # the response being sent is the last
        self.lingers = True  # the peer may be sending still
        self.sent = 0  # body bytes of the last response
        self.failed = False  # it had a status of 500 or above
        self.reset = False  # and it was cut short where only a reset can say so
        self.preface = b""

    def fileno(self) -> int:
        return self.fd

    @property
    def progress(self) -> int:
        """How far the response of a running call has come: a number that grows, -1 before its head.

        What an application does with a connection that it took over is its own business: that never stands still.
        What yields and sends nothing is no hang either; the response itself sees to that.
        """
        response = self.response
        if response is None or not (response.head_sent or response.turns):
            return -1
        return monotonic_ns() if response.taken is not None else response.sent + response.turns

    @property
    def runs(self) -> bool:
        """Whether the application has the request, or goes on with it when it is its turn."""
        return self.phase is Phase.CALL or (self.phase is Phase.FLUSH and self.queued)

    @property
    def running_since(self) -> float:
        return self.called if self.reply is None else self.reply.began

    @property
    def own_thread(self) -> int:
        """The thread of a running call that has one of its own (fiber.py), else 0."""
        reply = self.reply
        fiber = reply.fiber if reply is not None else None
        return fiber.thread if fiber is not None and not fiber.ended else 0

    # --- Sink: how a response leaves --------------------------------------------------------------------------------

    @property
    def full(self) -> bool:
        """Whether the client has not taken yet what was sent."""
        return self.unsent is not None

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
            unsent.push(data)

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
        for part in parts:
            if sent < len(part):
                unsent.push(part, sent, whole=whole)
            sent = max(0, sent - len(part))

    def send_file(self, fd: int, offset: int, count: int) -> None:
        if self.unsent is None:
            self.unsent = WriteBuffer(self.sock, self.store)
        self.unsent.push_file(fd, offset, count)
        self.flush()

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

    def reset_at_close(self) -> None:
        """Has the end of this connection say that something is missing, where nothing else does."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)

    def close(self) -> None:
        """Closes the socket and lets go of everything. The caller has told epoll."""
        self.phase = Phase.CLOSED
        self.deadline = NEVER
        self.conn.close()
        if self.unsent is not None:
            self.unsent.close()
            self.unsent = None
        if self.body is not None:
            self.body.close()
            self.body = None
        seen = self.base.get(GUNICORN)
        if seen is not None:
            seen.let_go()
        self.sock.close()


def describe(client: Client, seconds: float) -> str:
    """A call that takes long, for the log."""
    request, response = client.request, client.response
    what = f"{request.method} {request.uri}" if request is not None else "a request"
    if response is not None and response.taken is not None:
        return f"{what} has had its connection to itself for {seconds:.1f} s"
    return f"{what} has run for {seconds:.1f} s" + (
        f" and sent {response.sent} bytes" if response and response.head_sent else ""
    )
