"""One HTTP/1.1 connection, server side, without I/O.

Bytes go in by `receive`. Out come a request by `next_request`, then the pieces of its body by `read_body` until that
says None, then the next request. Nothing is parsed ahead: pipelined requests wait as bytes, so a client cannot make
the server hold more than its buffer, and what follows an error or the last request is never looked at. Requests are
taken out of the buffer by moving an offset: a buffer full of small ones is not copied for each of them.

The states and every legal move:

    HEAD   --next_request--> HEAD (incomplete) | BODY (a body follows) | HEAD (none does) | CLOSED (it was the last one)
                             | LAST (likewise, but it asks for another protocol: what follows is kept for that)
    BODY   --read_body-----> BODY | HEAD (the body ended) | CLOSED (and the request was the last one)
    BODY   --whole_body----> BODY (it has not all come) | HEAD | CLOSED (likewise)
    any    --an error, close()--> CLOSED

The result depends only on the bytes, not on how they were split into `receive` calls.
"""

from enum import IntEnum

from sdserve.http.errors import HTTPError, IllegalMove
from sdserve.http.framing import Chunked, Sized
from sdserve.http.limits import Limits
from sdserve.http.request import CHUNKED, Fresh, Request, RequestReader
from sdserve.http.scan import Fields, HeadScan


class State(IntEnum):
    HEAD = 0
    BODY = 1
    CLOSED = 2
    LAST = 3


HEAD, CLOSED = State.HEAD, State.CLOSED


class Connection:
    """The reading side of one connection. `reader` may be shared by all connections of one thread; `fresh` makes the
    mappings that requests' fields are added to."""

    __slots__ = (
        "_at",
        "_blank",
        "_body",
        "_fresh",
        "_last",
        "_limits",
        "_reader",
        "_scan",
        "_searched",
        "buffered",
        "requests",
        "state",
    )

    def __init__(self, reader: RequestReader, limits: Limits, fresh: Fresh | None = None) -> None:
        self._reader = reader
        self._fresh = fresh
        self._limits = limits
        self.buffered = b""  # received; not empty means that something of it was not given out yet
        self._at = 0  # where in it that begins
        self._searched = 0  # the end of the head is not before this; 0 where no part of one was looked at
        self._scan: HeadScan | None = None
        self._body: Sized | Chunked | None = None
        self._blank = False  # one empty line before a request is forgiven (RFC 9112 section 2.2), not a second
        self._last = False
        self.requests = 0
        self.state = State.HEAD

    @property
    def trailers(self) -> Fields:
        """The trailer fields of the body that ended last."""
        return self._body.trailers if self._body else []

    @property
    def rest(self) -> bytes:
        """What was received and not given out."""
        return self.buffered[self._at :]

    @property
    def held(self) -> int:
        """The bytes that were received and not given out."""
        return len(self.buffered) - self._at

    def receive(self, data: bytes) -> None:
        """Takes what the socket gave. Ignored once the connection is closed."""
        if self.state is not CLOSED:
            if self.buffered:
                data = self.buffered[self._at :] + data
                self._at = 0
            self.buffered = data

    def next_request(self) -> Request | None:
        """The next request, or None while its head is incomplete. Raises HTTPError, and is CLOSED from then on."""
        if self.state is not HEAD:
            if self.state is State.BODY:
                raise IllegalMove("the body of the last request was not read to its end")
            return None
        buffer = self.buffered
        if not buffer:
            return None
        at = self._at
        if buffer[at] == 13 and not self._blank and not self._searched:
            if len(buffer) == at + 1:
                return None
            if buffer[at + 1] == 10:
                self._blank = True
                at += 2
                if at == len(buffer):
                    self.buffered, self._at = b"", 0
                    return None
                self._at = at
        end = buffer.find(b"\r\n\r\n", self._searched or at)
        if end < 0:
            self._incomplete(buffer[at:])
            return None
        end += 4
        try:
            request = self._reader.read(buffer[at:end], self._fresh)
        except HTTPError as error:
            error.head = buffer[at:end]
            self.close()
            raise
        if end == len(buffer):
            self.buffered = b""
            self._at = 0
        else:
            self._at = end
        self._searched = 0
        self._scan = None
        self._blank = False
        self.requests += 1
        if self.requests == self._limits.requests:
            request.keep_alive = False
        if request.length:
            self._body = Chunked(self._limits) if request.length == CHUNKED else Sized(request.length)
            self._last = not request.keep_alive
            self.state = State.BODY
        elif not request.keep_alive:
            if request.upgrade:
                self.state = State.LAST
            else:
                self.close()
        return request

    def _incomplete(self, buffer: bytes) -> None:
        """What was received ends within a head, `buffer`."""
        self.buffered, self._at = buffer, 0
        if self._scan is None:
            self._scan = HeadScan(self._limits)
        try:
            self._scan.advance(buffer)
        except HTTPError as error:
            error.head = buffer
            self.close()
            raise
        self._searched = max(0, len(buffer) - 3)

    def read_body(self) -> bytes | None:
        """What has arrived of the body, b"" if nothing has, None at its end. Raises HTTPError, and is CLOSED then."""
        if self.state is not State.BODY or self._body is None:
            raise IllegalMove("there is no body to read")
        body = self._body
        if not body.done:
            try:
                data, at = body.take(self.buffered, self._at)
            except HTTPError:
                self.close()
                raise
            if at == len(self.buffered):
                self.buffered, at = b"", 0
            self._at = at
            if data or not body.done:
                return data
        self._end_body()
        return None

    @property
    def missing(self) -> int:
        """The bytes of a body that have not come, where its length is known; else 0."""
        return self._body.left - self.held if type(self._body) is Sized else 0

    def whole_body(self) -> bytes | None:
        """All of the body where it came with its head, as small ones do. Else None: it is to be read piece by piece."""
        body = self._body
        if type(body) is not Sized or (end := self._at + body.left) > len(self.buffered):
            return None
        data = self.buffered[self._at : end]
        if end == len(self.buffered):
            self.buffered, end = b"", 0
        self._at = end
        self._end_body()
        return data

    def last_of_body(self, data: bytes) -> bytes:
        """All of the body, of which nothing was given out yet. `data` is what was missing of it."""
        whole = b"".join((memoryview(self.buffered)[self._at :], data))
        self.buffered, self._at = b"", 0
        self._end_body()
        return whole

    def _end_body(self) -> None:
        self.state = State.HEAD
        if self._last:
            self.close()

    def close(self) -> None:
        """Nothing more will be read, whatever was received."""
        self.state = State.CLOSED
        self.buffered = b""
        self._at = 0
        self._scan = None
