"""wsgi.input of a body that arrives while the application runs.

A client that sends `Expect: 100-continue` is asked for its body when the application first reads, and not before: who
is not allowed to upload sends nothing (RFC 9110 section 10.1.1). When nothing is there the call pauses (fiber.py), and
the loop serves others until something is. What bounds a body that is received before the call bounds this one, too.
"""

import io
import select
from collections.abc import Callable
from functools import partial
from threading import get_ident
from time import monotonic

from sdserve.gateway.response import Response
from sdserve.gateway.wsgi import Gateway
from sdserve.http.connection import State
from sdserve.http.errors import HTTPError, RequestTimedOut
from sdserve.http.request import Request
from sdserve.http.writer import ClientGone, Parts
from sdserve.workers.http.client import RECEIVE, Client, Phase
from sdserve.workers.http.deadlines import Arrival
from sdserve.workers.wsgi.fiber import Fiber


class TooSlow(RequestTimedOut, OSError):
    """As frameworks know it: reading has failed."""


class Incoming(io.RawIOBase):
    """The raw side; `io.BufferedReader` around it gives read, readline, readlines and iteration."""

    fiber: Fiber | None = None
    response: Response | None = None
    waits = False  # the call has paused, until there is more: whoever resumed it says so to the loop, nobody before

    def __init__(self, client: Client, request: Request, arrival: Arrival) -> None:
        self._client: Client | None = client
        self._expected = request.expect
        self._arrival = arrival
        self._left = b""
        self.given = monotonic()  # when the application got something
        # What each read raises anew. One exception for all of them would lead back here by its traceback: a cycle.
        self._failure: Callable[[], BaseException] | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self._left or self._next()
        size = min(len(data), len(buffer))
        buffer[:size] = data[:size]
        self._left = data[size:]
        self.given = monotonic()
        return size

    def finished(self) -> bool:
        """Whether all of the body has been received and read: what comes next is the next request."""
        client = self._client
        if client is None or self._left or self._failure is not None:
            return False
        if client.conn.state is State.BODY:
            self._left = client.conn.read_body() or b""
        return client.conn.state is not State.BODY

    def fail(self, error: BaseException) -> None:
        """Has the next read raise `error`, and each after it."""
        self._failure = partial(type(error), *error.args)

    def let_go(self) -> None:
        """The response is over: nobody reads anything of the next request from this."""
        self._client = self.fiber = self.response = None

    def _next(self) -> bytes:
        """What comes next, b"" at the end. Raises HTTPError, ClientGone."""
        self._arrival.excuse(monotonic() - self.given)
        while True:
            client = self._client
            if client is None:
                raise ValueError("the response to this request is over")
            if self._failure is not None:
                raise self._failure()
            if client.phase is Phase.CLOSED:
                raise ClientGone("the client has gone, or was too slow")
            if client.conn.state is not State.BODY:
                return b""
            try:
                data = client.conn.read_body()
            except HTTPError as error:
                self.fail(error)
                raise
            if data is None:
                return b""
            if data:
                self._expected = False
                return data
            self._receive(client)

    def _receive(self, client: Client) -> None:
        if self._expected:
            self._expected = False
            if self.response is not None and not self.response.head_sent:
                client.send_continue()
        try:
            data = client.sock.recv(RECEIVE)
        except BlockingIOError:
            self._wait(client)
            return
        except OSError as error:
            raise ClientGone(str(error)) from error
        if not data:
            raise ClientGone("the client closed in the middle of its body")
        self._arrival.received(len(data), monotonic())
        client.conn.receive(data)

    def _wait(self, client: Client) -> None:
        if self.fiber is not None and self.fiber.thread == get_ident():
            self.waits = True
            self.fiber.pause()
            self.waits = False
            return
        poll = select.poll()  # the application reads in a thread of its own
        poll.register(client.sock, select.POLLIN)
        if not poll.poll(max(0.0, min(self._arrival.due() - monotonic(), 3600.0)) * 1000):
            raise TooSlow("the body is slower than body_min_rate or body_timeout allow")


class EarlyResponse(Response):
    """A response that may begin before its request's body has been read. Then it is the last of its connection:
    nobody could tell whether the client still sends the body, or its next request."""

    def __init__(self, gateway: Gateway, client: Client, request: Request, incoming: Incoming) -> None:
        super().__init__(gateway, client, request)
        self._incoming = incoming

    def _progress(self) -> object:
        return self.sent, self._incoming.given

    def whole(self, body: bytes) -> Parts:
        self._settle()
        return super().whole(body)

    def start(self, total: int) -> bytes:
        self._settle()
        return super().start(total)

    def _settle(self) -> None:
        self.keep_alive = self.request.keep_alive and self._incoming.finished()
