"""A client of the WSGI worker: the response that it waits for, and how long its call runs."""

import socket
from contextvars import Context
from time import monotonic_ns
from typing import Protocol

from sdserve.gateway.environ import Environ
from sdserve.gateway.response import Response
from sdserve.http.connection import Connection
from sdserve.workers.http.client import Client, Phase
from sdserve.workers.http.write_buffer import Store
from sdserve.workers.wsgi.fiber import Fiber
from sdserve.workers.wsgi.input import Incoming


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


class Handle(Protocol):
    """A connection as applications see it: see takeover.py."""

    def let_go(self) -> None:
        """It is of no use any more."""


class WSGIClient(Client):
    """`handle` is the socket that applications see; nobody else's than that of the request in hand."""

    __slots__ = ("handle", "reply", "response")

    def __init__(
        self, sock: socket.SocketType, conn: Connection, base: Environ, peer: tuple[str, str], store: Store
    ) -> None:
        super().__init__(sock, conn, base, peer, store)
        self.response: Response | None = None  # while the application has the request
        self.reply: Reply | None = None
        self.handle: Handle | None = None

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
    def own_thread(self) -> int:
        """The thread of a running call that has one of its own (fiber.py), else 0."""
        fiber = self.reply.fiber if self.reply is not None else None
        return fiber.thread if fiber is not None and not fiber.ended else 0

    @property
    def running_since(self) -> float:
        reply = self.reply  # another thread may be about to take it away
        return self.called if reply is None else reply.began

    @property
    def answers(self) -> bool:
        response = self.response
        return response is not None and bool(response.head_sent)

    def forget(self) -> None:
        self.request = self.response = None

    def describe(self, seconds: float) -> str:
        """A call that takes so long, for the log."""
        what, response = self.request_line, self.response
        if response is not None and response.taken is not None:
            return f"{what} has had its connection to itself for {seconds:.1f} s"
        sent = f" and sent {response.sent} bytes" if response and response.head_sent else ""
        return f"{what} has run for {seconds:.1f} s{sent}"

    def close(self) -> None:
        super().close()
        if self.reply is None:  # else it has to be ended first
            self.forget()
        if self.handle is not None:
            self.handle.let_go()
