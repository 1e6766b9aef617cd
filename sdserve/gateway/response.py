"""One WSGI response: what the application says, in which order. It is iterated as its client takes it, and as others
have their turns; how it is written is answer.py's.
"""

from collections.abc import Callable, Iterable
from time import monotonic
from types import TracebackType
from typing import Any, Protocol

from sdserve.gateway.answer import ENDED, NOTHING, Answer, Nowhere, Sink
from sdserve.gateway.files import FileWrapper
from sdserve.http.errors import InvalidResponse
from sdserve.http.request import Request
from sdserve.http.response import HeadWriter, decoded
from sdserve.http.writer import ClientGone
from sdserve.log import Logger

ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None] | None


OWN = 5.0  # seconds for which an iterable has its thread to itself, others may wait or not
SLICE = 0.02  # seconds for which it goes on at a time afterwards, while others wait
FIRST_PIECE = -1.0  # in the place of a time: it is not known yet whether there will be another one


class NothingSent(Exception):
    """An iterable yields, and nothing of it can be sent."""


class Source(Protocol):
    """What makes responses, and says for all of them: see `Gateway` in wsgi.py."""

    pulls: bool
    timeout: float
    writer: HeadWriter
    log: Logger
    others_wait: Callable[[], bool]


class Response(Answer):
    """One answer of a WSGI application, made while it runs or while it is iterated."""

    result: Any = None  # what the application returned, while it has more to send
    turns = 0  # slices of time that the iterable has used up
    _own_until = 0.0  # monotonic seconds; before, the iterable gives nobody else a turn
    _so_far: object = None  # what `_progress` was when `_quiet_since` was set
    _quiet_since = 0.0  # monotonic seconds

    def __init__(self, gateway: Source, sink: Sink, request: Request) -> None:
        self.heads = gateway.writer  # as in Answer, without its call in each request
        self.request = request
        self.keep_alive = request.keep_alive
        self._gateway = gateway
        self._sink = sink
        self._log = gateway.log

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
            self._sink.send(self.heads.interim("103 Early Hints", map(decoded, fields)))

    def divert(self, taken: Any) -> None:
        """The connection belongs to the application now: whatever it answers here goes nowhere."""
        self.taken = taken
        self.head_sent = self.complete = True
        self._sink = Nowhere()

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


def _demand_bytes(data: object) -> None:
    if not isinstance(data, bytes):
        raise TypeError(f"the application returned {type(data).__name__}, not bytes")


def _single(result: Any) -> bool:
    """PEP 3333: an iterable of length 1 is the whole body."""
    try:
        return len(result) == 1
    except TypeError:
        return False
