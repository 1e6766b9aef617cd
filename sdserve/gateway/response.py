"""One WSGI response: what the application says, in which order, and how it is written to a sink.

What goes on the wire is http/writer.py's. Here it is iterated as its client takes it, and as others have their turns.
"""

import io
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import attrgetter
from time import monotonic
from types import TracebackType
from typing import Any, Protocol

from sdserve import SERVER_SOFTWARE
from sdserve.http.errors import InvalidResponse
from sdserve.http.request import Request
from sdserve.http.response import Head, HeadWriter
from sdserve.http.writer import ClientGone, Parts, Writer
from sdserve.log import Logger

ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None] | None


OWN = 5.0  # seconds for which an iterable has its thread to itself, others may wait or not
SLICE = 0.02  # seconds for which it goes on at a time afterwards, while others wait
FIRST_PIECE = -1.0  # in the place of a time: it is not known yet whether there will be another one
ENDED = "the response to this request is over"
REAL_FILES = (io.BufferedReader, io.BufferedRandom, io.FileIO)


class NothingSent(Exception):
    """An iterable yields, and nothing of it can be sent."""


class Source(Protocol):
    """What makes responses, and says for all of them: see `Gateway` in wsgi.py."""

    pulls: bool
    timeout: float
    writer: HeadWriter
    log: Logger
    others_wait: Callable[[], bool]


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

    def send_file(self, fd: int, offset: int, count: int) -> None:
        """Sends `count` bytes of `fd` from `offset`; the descriptor must stay open until `full` is false."""


class Nowhere:
    """The sink of an answer that nobody reads."""

    full = False

    def gone(self, quiet: float) -> bool:
        return False

    def send(self, data: bytes) -> None: ...

    def send_parts(self, parts: Sequence[bytes], *, whole: bool) -> None: ...

    def send_file(self, fd: int, offset: int, count: int) -> None: ...


class Over:
    """The sink of an answer that is over, or was given up: whoever still has a part of it reaches no other client."""

    full = False

    def gone(self, quiet: float) -> bool:
        return True

    def send(self, data: bytes) -> None:
        raise ValueError(ENDED)

    def send_parts(self, parts: Sequence[bytes], *, whole: bool) -> None:
        self.send(b"")

    def send_file(self, fd: int, offset: int, count: int) -> None:
        self.send(b"")


class FileWrapper:
    """wsgi.file_wrapper: an iterable over a file, which the server may send without reading it."""

    def __init__(self, file: Any, block_size: int = 8192) -> None:
        self.file = file
        self.block_size = block_size
        if hasattr(file, "close"):
            self.close = file.close

    def __iter__(self) -> Iterator[bytes]:
        return iter(lambda: self.file.read(self.block_size), b"")

    def region(self) -> tuple[int, int, int] | None:
        """(descriptor, offset, bytes) when reading this would give the bytes of a regular file, else None."""
        file = self.file
        if type(file) not in REAL_FILES or not file.readable():  # GzipFile and text files have descriptors, too
            return None
        try:
            if file.writable():
                file.flush()
            fd = file.fileno()
            found = os.fstat(fd)
            offset = file.tell()
        except (OSError, ValueError):
            return None
        # A file of /proc or /sys is regular, says that it has no blocks, and only reading it shows how long it is.
        if not stat.S_ISREG(found.st_mode) or not found.st_blocks or found.st_size <= offset:
            return None
        return fd, offset, found.st_size - offset


OVER = Over()
NOTHING = iter(()).__next__


class Response(Writer):
    """One answer, as an application makes it and as hooks know it."""

    _advance: Callable[[], bytes] = NOTHING  # the next piece of the result
    result: Any = None  # what the application returned, while it has more to send
    error: BaseException | None = None  # what the application raised
    turns = 0  # slices of time that the iterable has used up
    _own_until = 0.0  # monotonic seconds; before, the iterable gives nobody else a turn
    _so_far: object = None  # what `_progress` was when `_quiet_since` was set
    _quiet_since = 0.0  # monotonic seconds
    taken: Any = None  # what has taken the connection over; nothing of this is sent then
    sent = 0
    status = ""
    headers: Sequence[tuple[str, str]] = ()

    def __init__(self, gateway: Source, sink: Sink, request: Request) -> None:
        self.heads = gateway.writer  # as Writer has it, but for a call in each request
        self.request = request
        self.keep_alive = request.keep_alive
        self._gateway = gateway
        self._sink = sink

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

    def start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: ExcInfo = None
    ) -> Callable[[bytes], None]:
        if exc_info is not None:
            try:
                if self.head_sent:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None  # no cycle through the traceback
        elif self.head is not None:
            raise AssertionError("start_response was called twice without exc_info")
        self.head = self.heads.head(status, headers)
        self.status = status
        self.headers = headers
        return self.write

    def send_result(self, result: Iterable[bytes]) -> bool:
        """Sends what the application returned, as far as the client has room. False: `go_on` when it has.

        Raises what iterating it raises, InvalidResponse, ClientGone.
        """
        kind = type(result)
        if (kind is list or kind is tuple) and not self.head_sent:
            if len(result) != 1:  # type: ignore[arg-type]
                for piece in result:
                    _demand_bytes(piece)
                self._send_whole(self.several(result))  # type: ignore[arg-type]
                return True
            body = result[0]  # type: ignore[index]
            if type(body) is not bytes:
                _demand_bytes(body)
            self._send_whole(self.whole(body))
            return True
        if kind is FileWrapper and not self.head_sent:
            region = result.region()  # type: ignore[attr-defined]
            if region is not None:
                return self._file(*region)
        self._advance = iter(result).__next__
        if not self.head_sent and _single(result):
            for piece in iter(self._advance, NOTHING):  # to the first one, if there is one
                if self.head is not None and type(piece) is bytes:
                    self._send_whole(self.whole(piece))
                    return True
                self.write(piece)
                break
        return self.go_on()

    def go_on(self) -> bool:
        """Sends what comes next of the result, as far as the client has room, or for one slice of time if others wait.

        True when that was the rest. Raises as `send_result` does, and NothingSent.
        """
        sink, pulls, advance = self._sink, self._gateway.pulls, self._advance
        until = monotonic() + SLICE if self.head_sent else 0.0
        while not (sink.full and pulls):
            try:
                piece = advance()
            except StopIteration:
                self._finish()
                return True
            self.write(piece)
            if self.bodyless:  # nothing of the rest would be sent
                self._finish()
                return True
            if not until:
                until = FIRST_PIECE  # most often the only one: it costs no look at the clock
            elif (now := monotonic()) >= until:
                if until != FIRST_PIECE and self._ends_turn(now) and pulls:
                    return False
                until = now + SLICE
        return False

    def _ends_turn(self, now: float) -> bool:
        """After a slice of time: whether it is the others' turn. Raises ClientGone, NothingSent.

        What takes seconds is let alone: others in the same thread might end what it needs (Django's connection).
        A client that is sent nothing is looked for here: no send can fail. And who yields all the time does not hang,
        so nobody else sees that nothing comes of it.
        """
        if self.taken is not None:
            return False
        self.turns += 1
        self._own_until = self._own_until or now + OWN
        gateway, so_far = self._gateway, self._progress()
        if so_far != self._so_far:
            self._so_far, self._quiet_since = so_far, now
        else:
            quiet = now - self._quiet_since
            if self._sink.gone(quiet):
                raise ClientGone("it has closed its connection")
            if 0 < gateway.timeout <= quiet:
                raise NothingSent(f"has sent nothing for {quiet:.1f} s, longer than timeout, though it yields")
        return now >= self._own_until and gateway.others_wait()

    def _progress(self) -> object:
        """Something that changes when the response, or what it waits for, goes on."""
        return self.sent

    def early_hints(self, fields: Iterable[tuple[str, str]]) -> None:
        """wsgi.early_hints: sends 103 (RFC 8297) ahead of the response, as gunicorn does. Raises InvalidResponse.

        Nothing happens in HTTP/1.0, and once the response has begun. Raises ValueError once it has ended.
        """
        if self.complete and self.taken is None:
            raise ValueError(ENDED)
        if self.request.minor and not self.head_sent:
            self._sink.send(self.heads.interim("103 Early Hints", fields))

    def divert(self, taken: Any) -> None:
        """The connection belongs to the application now: whatever it answers here goes nowhere."""
        self.taken = taken
        self.head_sent = self.complete = True
        self._sink = Nowhere()

    def let_go(self) -> None:
        """The exchange is over. What leads from here to its client, to the application's iterable, or by a traceback to
        whatever they hold, may lead back: a cycle, which would stay in memory until a garbage collection."""
        self._sink = OVER
        self._advance = NOTHING
        self.complete = True
        if self.taken is not None:
            self.taken = None
        if self.error is not None:
            self.error = None

    def write(self, data: bytes) -> None:
        """PEP 3333's write(), and one piece of an iterable. Raises ValueError once the response has ended."""
        if type(data) is not bytes:
            _demand_bytes(data)
        if self.head is None:
            raise InvalidResponse("the application did not call start_response before it sent data")
        if self.complete and self.taken is None:
            raise ValueError(ENDED)
        if not data:
            return
        parts = self.piece(data)
        if not isinstance(parts, bytes):
            self._sink.send_parts(parts, whole=False)
        elif parts:
            self._sink.send(parts)
        self.sent += self.size

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
        self._gateway.log.warning(
            "%s %s: the application sent more than its Content-Length; the rest is cut",
            *(self.request.method, self.request.uri),
        )

    def _file(self, fd: int, offset: int, count: int) -> bool:
        head = self.start(count)
        if self.bodyless:
            count = 0
        elif self.left < count:
            count = self.left
        self._sink.send(head)
        if count:
            self._sink.send_file(fd, offset, count)
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
            self._gateway.log.warning(
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


def _demand_bytes(data: object) -> None:
    if not isinstance(data, bytes):
        raise TypeError(f"the application returned {type(data).__name__}, not bytes")


def _single(result: Any) -> bool:
    """PEP 3333: an iterable of length 1 is the whole body."""
    try:
        return len(result) == 1
    except TypeError:
        return False
