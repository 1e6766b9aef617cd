"""One client connection: its socket, its parser, what it still has to send, and how long it may take for what.

A stream is touched by one thread at a time: by the leader, or, while `phase` is CALL, by the thread that serves its
request. It does no polling itself; `wants` says to the loop what to poll it for.
"""

import select
import socket
import struct
from enum import IntEnum

from sdserve.gateway.response import ClientGone, Response
from sdserve.gateway.wsgi import Environ
from sdserve.http.connection import Connection
from sdserve.http.request import Request
from sdserve.workers.body import Arrival, Body
from sdserve.workers.outbox import Outbox

RECEIVE = 65536
NEVER = float("inf")
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: on, 0 seconds; close(2) then resets the connection
EPOLLIN, EPOLLOUT = select.EPOLLIN, select.EPOLLOUT


class Phase(IntEnum):
    """What a stream is doing, and so what it is polled for and which deadline it has."""

    PREFACE = 0  # waiting for the PROXY header
    HEAD = 1  # idle, or receiving a head
    BODY = 2
    CALL = 3  # the application has it
    FLUSH = 4  # the peer has not taken the whole response yet
    LINGER = 5  # answered for the last time; what the peer still sends is read and dropped
    CLOSED = 6


WANTS = {
    Phase.PREFACE: EPOLLIN,
    Phase.HEAD: EPOLLIN,
    Phase.BODY: EPOLLIN,
    Phase.CALL: 0,
    Phase.FLUSH: EPOLLOUT,
    Phase.LINGER: EPOLLIN,
    Phase.CLOSED: 0,
}


class Stream:
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
        "outbox",
        "patience",
        "peer",
        "phase",
        "preface",
        "proxied",
        "queued",
        "request",
        "reset",
        "response",
        "sent",
        "sock",
        "standing",
        "waited",
    )

    def __init__(self, sock: socket.SocketType, conn: Connection, base: Environ, peer: str, patience: float) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self.conn = conn
        self.base = base
        self.peer = peer
        self.patience = patience
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
        self.outbox: Outbox | None = None
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
        """How far the response of a running call has come: body bytes, -1 before its head."""
        response = self.response
        return response.sent if response is not None and response.head_sent else -1

    # --- Sink: how a response leaves --------------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        outbox = self.outbox
        if outbox is None:
            try:
                sent = self.sock.send(data)
            except BlockingIOError:
                sent = 0
            except OSError as error:
                raise ClientGone(str(error)) from error
            if sent == len(data):
                return
            outbox = self.outbox = Outbox(self.sock)
            outbox.push(memoryview(data)[sent:], self.patience)
            return
        if outbox.flush():
            self.outbox = None
            self.send(data)
        else:
            outbox.push(data, self.patience)

    def send_both(self, head: bytes, body: bytes) -> None:
        if self.outbox is not None:
            self.send(head + body)
            return
        try:
            sent = self.sock.sendmsg((head, body))
        except BlockingIOError:
            sent = 0
        except OSError as error:
            raise ClientGone(str(error)) from error
        if sent < len(head) + len(body):
            self.outbox = Outbox(self.sock)
            self.outbox.push(memoryview(head + body)[sent:], self.patience)

    def send_file(self, fd: int, offset: int, count: int) -> None:
        if self.outbox is None:
            self.outbox = Outbox(self.sock)
        self.outbox.push_file(fd, offset, count)
        self.flush()

    def flush(self) -> bool:
        """Sends what the peer takes now; True when nothing is left. Raises ClientGone."""
        if self.outbox is not None:
            if not self.outbox.flush():
                return False
            self.outbox = None
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
        if self.outbox is not None:
            self.outbox.close()
            self.outbox = None
        if self.body is not None:
            self.body.close()
            self.body = None
        self.sock.close()


def describe(stream: Stream, seconds: float) -> str:
    """A call that takes long, for the log."""
    request, sent = stream.request, stream.progress
    what = f"{request.method} {request.uri}" if request is not None else "a request"
    return f"{what} has run for {seconds:.1f} s" + (f" and sent {sent} bytes" if sent >= 0 else "")
