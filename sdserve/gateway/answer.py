"""One answer, whatever kind of application makes it: where it goes, how it ends, and what hooks see of it.

What goes on the wire is http/writer.py's. How a WSGI application makes one is response.py's, an ASGI one asgi.py's.
"""

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any, Protocol

from sdserve import SERVER_SOFTWARE
from sdserve.http.request import Request
from sdserve.http.response import Head, HeadWriter
from sdserve.http.writer import ClientGone, Parts, Writer
from sdserve.log import Logger

NOTHING = iter(()).__next__
ENDED = "the response to this request is over"


class Sink(Protocol):
    """Where a response goes. All methods raise ClientGone."""

    @property
    def full(self) -> bool:
        """Whether something of what was sent still waits for the client."""

    def gone(self, quiet: float) -> bool:
        """Whether the client has gone, to whom nothing was sent for `quiet` seconds."""

    def send(self, data: bytes) -> None: ...

    def send_parts(self, parts: Sequence[bytes], *, whole: bool) -> None:
        """Sends one part after the other, without a copy; `whole`: nothing comes after them."""

    def send_file(self, head: bytes, fd: int, offset: int, count: int) -> None:
        """Sends `head` and `count` bytes of `fd` from `offset`; the descriptor must stay open until `full` is false."""


class Nowhere:
    """The sink of an answer that nobody reads."""

    full = False

    def gone(self, quiet: float) -> bool:
        return False

    def send(self, data: bytes) -> None: ...

    def send_parts(self, parts: Sequence[bytes], *, whole: bool) -> None: ...

    def send_file(self, head: bytes, fd: int, offset: int, count: int) -> None: ...


class Over:
    """The sink of an answer that is over, or was given up: whoever still has a part of it reaches no other client."""

    full = False

    def gone(self, quiet: float) -> bool:
        return True

    def send(self, data: bytes) -> None:
        raise ValueError(ENDED)

    def send_parts(self, parts: Sequence[bytes], *, whole: bool) -> None:
        self.send(b"")

    def send_file(self, head: bytes, fd: int, offset: int, count: int) -> None:
        self.send(b"")


OVER = Over()


class Answer(Writer):
    """One answer, as an application makes it and as hooks know it."""

    _advance: Callable[[], bytes] = NOTHING  # what gives its next piece, where it is made as it leaves
    error: BaseException | None = None  # what the application raised
    taken: Any = None  # what has taken the connection over; nothing of this is sent then
    sent = 0
    status = ""
    headers: Sequence[tuple[Any, Any]] = ()
    _sink: Sink

    def __init__(self, heads: HeadWriter, sink: Sink, request: Request, log: Logger) -> None:
        self.heads = heads  # as in Writer, without its call in each request
        self.request = request
        self.keep_alive = request.keep_alive
        self._sink = sink
        self._log = log

    # --- for hooks, by gunicorn's names -----------------------------------------------------------------------------

    version = SERVER_SOFTWARE
    upgrade = False
    req = property(attrgetter("request"))
    headers_sent = property(attrgetter("head_sent"))
    must_close = property(lambda self: not self.keep_alive)
    sock = property(lambda self: getattr(self._sink, "sock", None))
    cfg = property(lambda self: getattr(self.request, "cfg", None))
    response_length = property(lambda self: self.head.length if self.head and self.head.length >= 0 else None)

    def should_close(self) -> bool:
        return not self.keep_alive

    def force_close(self) -> None:
        """Closes the connection after this response, if its head is not under way."""
        self.keep_alive = False

    def is_chunked(self) -> bool:
        return self.chunked

    @property
    def status_code(self) -> int:
        return self.head.code if self.head else int(self.status[:3] or 0)

    # ----------------------------------------------------------------------------------------------------------------

    def let_go(self) -> None:
        """The exchange is over. What leads from here to its client, to the application's iterable, or by a traceback to
        whatever that holds, may lead back: a cycle, which would stay in memory until a garbage collection."""
        self._sink = OVER
        self._advance = NOTHING
        self.complete = True
        if self.taken is not None:
            self.taken = None
        if self.error is not None:
            self.error = None

    def _send_whole(self, parts: Parts) -> None:
        """The complete answer is known."""
        if isinstance(parts, bytes):
            self._sink.send(parts)
        else:
            self._sink.send_parts(parts, whole=True)
        self.sent = self.size
        if self.left > 0:
            self._end()
        else:
            self.complete = True

    def exceeded(self) -> None:
        self._log.warning(
            "%s %s: the application sent more than its Content-Length; the rest is cut",
            *(self.request.method, self.request.uri),
        )

    def _file(self, fd: int, offset: int, count: int) -> bool:
        head = self.start(count)
        if self.bodyless:
            count = 0
        elif self.left < count:
            count = self.left
        if count:
            self._sink.send_file(head, fd, offset, count)
        else:
            self._sink.send(head)
        self.sent = count
        if not self.bodyless:
            self.left -= count
        if self._sink.full:
            return False  # there is nothing more, but the file must stay open while it is sent
        self._finish()
        return True

    def _finish(self) -> None:
        if self.head_sent:
            self._end()
        else:
            self._send_whole(self.whole(b""))

    def _end(self) -> None:
        if last := self.end():
            self._sink.send(last)
        if self.broken:
            self._log.warning(
                "%s %s: the application sent %d bytes less than its Content-Length; the connection is closed",
                *(self.request.method, self.request.uri, self.left),
            )

    def fail(self, answer: bytes, status: int) -> None:
        """Sends a ready-made answer instead of the application's."""
        self.status = answer[9:].partition(b"\r\n")[0].decode("ascii")
        self.head = Head(status)
        self.headers = []
        self.sent = len(answer) - answer.index(b"\r\n\r\n") - 4
        self.head_sent = self.complete = True
        try:
            self._sink.send(answer)
        except ClientGone:
            self.broken = True
