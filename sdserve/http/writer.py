"""The sending half of one answer, without I/O: its head, where its body ends, and whether the connection goes on.

connection.py is the other half. Whatever an application says, what comes out is a well-formed answer or one that is
known to be cut short: a body longer than its Content-Length is cut, a shorter one ends the connection, and nothing
comes out before all of the head is known to be sendable. What has to be sent is one object, or several where a copy
would cost more than another part of sendmsg(2).
"""

from collections.abc import Iterable, Iterator, Sequence

from sdserve.http.errors import InvalidResponse
from sdserve.http.request import Request
from sdserve.http.response import NO_BODY, Head, HeadWriter

LARGE = 16384  # bytes of a body that is cheaper to send from where it is than to copy

Parts = bytes | Sequence[bytes]


class ClientGone(ConnectionError):
    """The reader of a response has gone, or reads nothing any more."""


class NoRoom(ClientGone):
    """What the application sends has no room, and its reader takes it too slowly to be waited for."""


class Writer:
    """One answer to `request`, whose `head` is to be set before its body comes. `keep_alive` and `broken` say what must
    become of the connection afterwards."""

    head: Head | None = None
    left = -1  # bytes that Content-Length still promises, -1: no promise
    bodyless = False  # no body is sent, or none of what comes now
    chunked = False
    head_sent = False
    complete = False
    broken = False  # the answer is cut short: the connection must be aborted
    size = 0  # bytes of the body in what was made last

    def __init__(self, heads: HeadWriter, request: Request) -> None:
        self.heads = heads
        self.request = request
        self.keep_alive = request.keep_alive

    def exceeded(self) -> None:
        """The application sends more than its Content-Length; the rest is cut. Said once."""

    def start(self, total: int) -> bytes:
        """The head's bytes; `total` is the body's length if it is known, else -1. Decides framing and persistence."""
        head, request = self.head, self.request
        if head is None:
            raise InvalidResponse("the application did not call start_response")
        length, framing = head.length, b""
        if head.code in NO_BODY:
            self.bodyless = True
            if head.code != 304:
                length = -1
        else:
            self.bodyless = request.method == "HEAD"
            if length < 0 and not (self.bodyless and not total):
                length = total
            self.left = length
        if length >= 0:
            framing = b"Content-Length: %d\r\n" % length
        elif not self.bodyless and request.minor:
            self.chunked = True
            framing = b"Transfer-Encoding: chunked\r\n"
        elif not self.bodyless:
            self.keep_alive = False
        if head.close or not self.heads.keeps:
            self.keep_alive = False
        if not self.keep_alive:
            framing += b"Connection: close\r\n"
        elif not request.minor:
            framing += b"Connection: keep-alive\r\n"
        self.head_sent = True
        return self.heads.framed(head, framing)

    def whole(self, body: bytes) -> Parts:
        """A complete answer: one head, one body."""
        head, heads, request = self.head, self.heads, self.request
        usual = head.usual if head is not None and head.length == len(body) and self.keep_alive and heads.keeps else b""
        if usual and request.minor and request.method != "HEAD":  # what `start` would come to, without its questions
            self.head_sent = True
            start = usual + heads.ending
        else:
            start = self.start(len(body))
            body = self._bounded(body)
        self.size = len(body)
        return (start, body) if len(body) > LARGE else start + body

    def several(self, pieces: Sequence[bytes]) -> Parts:
        """A complete answer in several pieces: large ones are sent from where they are."""
        total = sum(map(len, pieces))
        head = self.head
        if total <= LARGE or head is None or self.request.method == "HEAD" or head.length not in (-1, total):
            return self.whole(b"".join(pieces))
        start = self.start(total)
        if self.bodyless:
            self.size = 0
            return start
        self.left, self.size = 0, total
        return [start, *_blocks(pieces)]

    def piece(self, data: bytes) -> Parts:
        """One more piece of the body, behind the head if that was not sent yet. An empty one is no chunk: that would
        be the last."""
        start = b"" if self.head_sent else self.start(-1)
        size = len(data)
        if self.left >= size and not self.bodyless:  # as in `bounded`, without its two calls in each piece
            self.left -= size
        elif self.left >= 0 or self.bodyless:
            data = self._bounded(data)
            size = len(data)
        self.size = size
        if self.chunked:
            if size > LARGE:
                return b"%b%x\r\n" % (start, size), data, b"\r\n"
            return b"%b%x\r\n%b\r\n" % (start, size, data) if size else start
        if not start:
            return data
        return (start, data) if size > LARGE else start + data

    def end(self) -> bytes:
        """The body is over: what says so, b"" where its length did. It is `broken` where something is missing."""
        self.complete = True
        if self.left > 0 and not self.bodyless:
            self.keep_alive = False
            self.broken = True
        return b"0\r\n\r\n" if self.chunked else b""

    def bounded(self, count: int) -> int:
        """How many of `count` bytes that come next the head allows."""
        if self.bodyless:
            return 0
        if self.left >= 0:
            if count > self.left:
                self.exceeded()
                self.bodyless = True
                count = self.left
            self.left -= count
        return count

    def _bounded(self, data: bytes) -> bytes:
        """What of `data` the head allows."""
        allowed = self.bounded(len(data))
        return data if allowed == len(data) else data[:allowed]


def _blocks(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes, small pieces joined."""
    small: list[bytes] = []
    size = 0
    for piece in pieces:
        if len(piece) > LARGE:
            yield from (b"".join(small),) if small else ()
            small, size = [], 0
            yield piece
            continue
        small.append(piece)
        size += len(piece)
        if size > LARGE:
            yield b"".join(small)
            small, size = [], 0
    if small:
        yield b"".join(small)
