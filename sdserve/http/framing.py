"""Where a request's body ends: by length, or by chunks (RFC 9112 sections 6 and 7).

Both decoders are given what has arrived and say how much of it is body, so that the byte after the body is never
touched: it belongs to the next request. The chunk grammar is exact: no blanks around a size, no bare CR or LF anywhere,
sixteen hex digits at most, a bounded line; what other parsers forgive here, smugglers use.
"""

import re
from enum import IntEnum
from functools import cache

from sdserve.http import scan
from sdserve.http.errors import BadRequest, BodyTooLarge, FieldsTooLarge, HTTPError
from sdserve.http.limits import Limits
from sdserve.http.scan import Fields

# No group is possessive here: before Python 3.11.5 such a group may match what it should not (gh-106052).
# RFC 9112 section 7.1.1: names are tokens, values tokens or quoted strings, blanks stand around `;` and `=` only.
_EXTENSION = (
    rb"[ \t]*+;[ \t]*+" + scan.TOKEN + rb"++"
    rb"(?:[ \t]*+=[ \t]*+(?:" + scan.TOKEN + rb'++|"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*"))?'
)
CHUNK_LINE = rb"([0-9A-Fa-f]{1,16}+)(?:" + _EXTENSION + rb")*\r\n"

# What a trailer may not say (RFC 9110 section 6.5.1). Where the message ends and whom it is for: such a message has two
# meanings, and is refused.
REFUSED_TRAILERS = frozenset((b"content-length", b"transfer-encoding", b"host"))
# How it is to be read, who sent it, what the connection is to do: nobody could heed that any more, so it is dropped.
DROPPED_TRAILERS = frozenset(
    (
        *(b"trailer", b"te", b"connection", b"upgrade", b"expect", b"keep-alive", b"proxy-connection"),
        *(b"content-type", b"content-encoding", b"content-range", b"range", b"max-forwards", b"cache-control"),
        *(b"authorization", b"proxy-authorization", b"cookie"),
    )
)


class Sized:
    """A body of `length` bytes."""

    __slots__ = ("done", "left")

    trailers: Fields = []  # noqa: RUF012 - a sized body never has any

    def __init__(self, length: int) -> None:
        self.left = length
        self.done = length == 0

    def take(self, data: bytes, at: int) -> tuple[bytes, int]:
        """(body, where it ends) in `data` from `at`."""
        end = at + self.left
        if len(data) < end:
            self.left = end - len(data)
            return data[at:], len(data)
        self.left = 0
        self.done = True
        return data[at:end], end


@cache
def _chunk_line() -> re.Pattern[bytes]:
    """Compiled at its first use: it takes as long as the import of some modules, and bodies in chunks are rare."""
    return re.compile(CHUNK_LINE)


class Part(IntEnum):
    """Which part of a chunked body comes next."""

    SIZE = 0
    DATA = 1
    DATA_END = 2
    TRAILER = 3
    DONE = 4


class Chunked:
    """A chunked body. `trailers` are complete when `done` is true."""

    __slots__ = ("_left", "_limits", "_part", "_total", "_trailer_bytes", "done", "trailers")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._part = Part.SIZE
        self._left = 0
        self._total = 0
        self._trailer_bytes = 0
        self.done = False
        self.trailers: Fields = []

    def take(self, data: bytes, at: int) -> tuple[bytes, int]:
        """(body, where it ends) in `data` from `at`; what is behind must be given again, and more. Raises HTTPError.

        A fault is raised only when all body before it was given out, so what comes out does not depend on the splits.
        """
        pieces: list[bytes] = []
        try:
            while not self.done and (size := self._step(data, at, pieces)):
                at += size
        except HTTPError:
            if not pieces:
                raise
        return (pieces[0] if len(pieces) == 1 else b"".join(pieces)), at

    def _step(self, data: bytes, at: int, pieces: list[bytes]) -> int:
        """Takes the next element from `data[at:]`; its size, 0 when it is not complete."""
        part = self._part
        if part is Part.DATA:
            piece = data[at : at + self._left]
            if piece:
                pieces.append(piece)
                self._left -= len(piece)
                if not self._left:
                    self._part = Part.DATA_END
            return len(piece)
        if part is Part.DATA_END:
            end = data[at : at + 2]
            if not b"\r\n".startswith(end):
                raise BadRequest("chunk data is not followed by CRLF")
            if len(end) < 2:
                return 0
            self._part = Part.SIZE
            return 2
        line_end = data.find(b"\n", at)
        if line_end < 0:
            self._unfinished(len(data) - at)
            return 0
        line = data[at : line_end + 1]
        if part is Part.SIZE:
            self._size(line)
        else:
            self._trailer(line)
        return len(line)

    def _size(self, line: bytes) -> None:
        if len(line) - 2 > self._limits.chunk_line:
            raise BadRequest(f"a chunk's line is longer than {self._limits.chunk_line} bytes")
        found = _chunk_line().fullmatch(line)
        if found is None:
            raise BadRequest("a chunk's size is malformed")
        self._left = int(found[1], 16)
        self._total += self._left
        if self._limits.body and self._total > self._limits.body:
            raise BodyTooLarge(f"the body is longer than {self._limits.body} bytes")
        self._part = Part.DATA if self._left else Part.TRAILER

    def _trailer(self, line: bytes) -> None:
        if line == b"\r\n":
            self._part = Part.DONE
            self.done = True
            return
        total = self._trailer_bytes + len(line)
        if total > self._limits.head:
            raise FieldsTooLarge(f"the trailers are longer than {self._limits.head} bytes")
        name, value = scan.field_line(line, self._limits, len(self.trailers))
        if name.lower() in REFUSED_TRAILERS:
            raise BadRequest(f"{name.decode('ascii')} is not allowed in trailers")
        self._trailer_bytes = total  # not before: a line that is refused may be read again, see `take`
        if name.lower() not in DROPPED_TRAILERS:
            self.trailers.append((name, value))

    def _unfinished(self, size: int) -> None:
        if self._part is Part.SIZE:
            if size > self._limits.chunk_line + 1:
                raise BadRequest(f"a chunk's line is longer than {self._limits.chunk_line} bytes")
        elif size > self._limits.field_size + 1:
            raise FieldsTooLarge(f"a trailer field is longer than {self._limits.field_size} bytes")
        elif self._trailer_bytes + size > self._limits.head:
            raise FieldsTooLarge(f"the trailers are longer than {self._limits.head} bytes")
