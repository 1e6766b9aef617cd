"""Response heads as bytes, from what an application says.

Nothing that an application passes reaches the wire unchecked: a status or a field with CR, LF or NUL in it would let
whoever controls its text forge a response. Checked and encoded lines are remembered, since applications repeat
themselves; the memory is bounded. Fields that belong to the connection (RFC 9110 section 7.6.1) are the server's.
"""

import re
import time
from collections.abc import Iterable
from functools import cache
from typing import Any

from sdserve.http.errors import HTTPError, InvalidResponse

compiled = cache(re.compile)  # at the first use: see is_name and is_value
NAME = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
VALUE = r"[\t -~\x80-\xff]*"

PLAIN, LENGTH, CONNECTION, DATE, SERVER, DROPPED = range(6)
_KINDS = {
    "content-length": LENGTH,
    "connection": CONNECTION,
    "date": DATE,
    "server": SERVER,
    "keep-alive": DROPPED,
    "proxy-connection": DROPPED,
    "te": DROPPED,
    "trailer": DROPPED,
    "transfer-encoding": DROPPED,
    "upgrade": DROPPED,
}
REMEMBERED = (
    1000  # of each kind; when there are so many, all are forgotten: what applications repeat is soon there again
)

# A checked field: its kind, its bytes if they are sent as they are, and what its value says (length, or close).
Line = tuple[int, bytes, int]
NO_BODY = (204, 304)


def decoded(field: Any) -> Any:
    """A field as text, where an application gives bytes; whatever else it is, unchanged."""
    if isinstance(field, tuple | list):
        return tuple(part.decode("latin-1") if isinstance(part, bytes) else part for part in field)
    return field


DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def http_date(wall: float) -> bytes:
    """IMF-fixdate of `wall` seconds since the epoch (RFC 9110 section 5.6.7), in no locale but its own."""
    year, month, day, hour, minute, second, weekday, *_ = time.gmtime(wall)
    date = f"{DAYS[weekday]}, {day:02} {MONTHS[month - 1]} {year} {hour:02}:{minute:02}:{second:02} GMT"
    return date.encode("ascii")


def is_name(text: str) -> bool:
    """Whether `text` is a token (RFC 9110 section 5.6.2)."""
    return (text.isascii() and text.replace("-", "").isalnum()) or bool(compiled(NAME).fullmatch(text))


def is_value(text: str) -> bool:
    """Whether `text` has no character that a field or a status must not have."""
    return (text.isascii() and text.isprintable()) or bool(compiled(VALUE).fullmatch(text))


def is_final(status: str) -> bool:
    """Whether `status` is a code of 200 or more, and perhaps a space and a reason."""
    code, after = status[:3], status[3:4]
    return len(code) == 3 and code.isdecimal() and code >= "200" and after in ("", " ") and is_value(status)


class Head:
    """A checked head without its framing: `start` is status line and fields, the rest says what is still open.

    Heads are remembered and shared: nobody changes one. `usual` is the head of most answers, without what the server
    adds: of one whose length is known and not 0, on a connection that stays; else it is b"".
    """

    __slots__ = ("close", "code", "dated", "length", "served", "start", "usual")

    def __init__(self, code: int) -> None:
        self.code = code
        self.start = self.usual = b""
        self.length = -1  # the application's Content-Length, -1: none
        self.close = False  # the application wants the connection closed
        self.dated = False  # it sent its own Date
        self.served = False  # it sent its own Server


class HeadWriter:
    """Checks and encodes heads. One serves a whole process."""

    def __init__(self, server: str) -> None:
        self._server = f"Server: {server}\r\n".encode("latin-1")
        self._statuses: dict[str, tuple[int, bytes]] = {}
        self._lines: dict[tuple[str, str], Line] = {}
        self._heads: dict[tuple[object, ...], Head] = {}
        self.keeps = True  # False once the worker retires: every answer then closes its connection
        self.until = 0.0
        self._date = b""
        self.signature = self._server  # Date and Server
        self.ending = self._server + b"\r\n"  # the same, and the empty line

    def clock(self, now: float) -> None:
        """Keeps Date right: to be called once `now`, monotonic seconds, is `until` or later.

        Several threads may call it at once, and others answer meanwhile, without a lock: `until` comes last, for it
        says to them that the rest is there.
        """
        if now >= self.until:
            wall = time.time()
            date = self._date = b"Date: %b\r\n" % http_date(wall)
            signature = self.signature = date + self._server
            self.ending = signature + b"\r\n"
            self.until = now + 1 - wall % 1

    def head(self, status: str, fields: Iterable[tuple[str, str]]) -> Head:
        """Raises InvalidResponse when the status or a field cannot be sent."""
        key = None
        if type(fields) is list:
            try:
                key = (status, *fields)
                whole = self._heads.get(key)
            except TypeError:  # a field that is a list, or is not hashable in another way
                key = whole = None
            if whole is not None:
                return whole
        known = self._statuses.get(status)
        if known is None:
            known = self._status(status)
        found = Head(known[0])
        lines = [known[1]]
        remembered = self._lines
        for field in fields:
            try:
                line = remembered.get(field)
            except TypeError:  # a list, or another pair that is not hashable
                line = None
            if line is None:
                line = self._line(field)
            if line[0]:
                self._special(found, line)
            lines.append(line[1])
        found.start = start = b"".join(lines)
        if found.length > 0 and not (found.close or found.dated or found.served or found.code in NO_BODY):
            found.usual = b"%bContent-Length: %d\r\n" % (start, found.length)
        if key is not None and len(start) <= 500:
            if len(self._heads) >= REMEMBERED:
                self._heads.clear()
            self._heads[key] = found
        return found

    def framed(self, head: Head, framing: bytes) -> bytes:
        """The complete head: what was said, Date and Server, `framing` (whole lines), the empty line."""
        if head.dated or head.served:
            own = (b"" if head.dated else self._date) + (b"" if head.served else self._server)
            return b"%b%b%b\r\n" % (head.start, own, framing)
        return b"%b%b%b\r\n" % (head.start, self.signature, framing)

    def interim(self, status: str, fields: Iterable[Any]) -> bytes:
        """An answer before the answer (RFC 9110 section 15.2), of checked fields. Raises InvalidResponse."""
        return b"HTTP/1.1 %b\r\n%b\r\n" % (status.encode("ascii"), self.lines(fields))

    def lines(self, fields: Iterable[Any]) -> bytes:
        """Checked fields, as they are sent ahead of an answer or behind its body. Raises InvalidResponse."""
        return b"".join([self._line(field)[1] for field in fields])

    def switching(self, own: bytes, fields: Iterable[Any]) -> bytes:
        """101: another protocol follows (RFC 9110 section 15.2.2). `own` are its lines, whole; `fields` are checked.
        Raises InvalidResponse."""
        head = Head(101)
        head.start = b"HTTP/1.1 101 Switching Protocols\r\n" + own
        for field in fields:
            line = self._line(field)
            self._special(head, line)
            head.start += line[1]
        return self.framed(head, b"")

    def _status(self, status: str) -> tuple[int, bytes]:
        if not isinstance(status, str) or not is_final(status):
            raise InvalidResponse(f"{status!r} is not a status: use a string such as '200 OK'")
        text = status if len(status) > 3 else status + " "
        known = (int(status[:3]), b"HTTP/1.1 %b\r\n" % text.encode("latin-1"))
        if len(status) <= 100:
            if len(self._statuses) >= REMEMBERED:
                self._statuses.clear()
            self._statuses[status] = known
        return known

    def _text(self, field: Any) -> tuple[str, str]:
        """A field as text. Raises TypeError, ValueError, InvalidResponse."""
        name, value = field
        return name, value

    def _line(self, field: tuple[str, str]) -> Line:
        try:
            name, value = self._text(field)
        except InvalidResponse:
            raise
        except (TypeError, ValueError) as error:
            raise InvalidResponse(f"header {field!r} is not a (name, value) pair") from error
        if not isinstance(name, str) or not is_name(name):
            raise InvalidResponse(f"header name {name!r} is not a token string")
        if not isinstance(value, str) or not is_value(value):
            raise InvalidResponse(
                f"header {name} has the value {value!r}: not a latin-1 string without control characters"
            )
        kind = _KINDS.get(name.lower(), PLAIN)
        if kind == LENGTH and not (value.isascii() and value.isdigit() and len(value) < 19):
            raise InvalidResponse(f"Content-Length {value!r} is not a number")
        text = b"" if kind in (LENGTH, CONNECTION, DROPPED) else f"{name}: {value}\r\n".encode("latin-1")
        line = (kind, text, int(value) if kind == LENGTH else int("close" in value.lower()))
        if len(name) + len(value) <= 100 and type(field) is tuple:
            if len(self._lines) >= REMEMBERED:
                self._lines.clear()
            self._lines[field] = line
        return line

    def _special(self, head: Head, line: Line) -> None:
        kind, _, number = line
        if kind == LENGTH:
            length = number
            if head.length not in (-1, length):
                raise InvalidResponse(f"two Content-Length headers, {head.length} and {length}")
            head.length = length
        elif kind == CONNECTION:
            head.close = head.close or bool(number)
        elif kind == DATE:
            head.dated = True
        elif kind == SERVER:
            head.served = True

    def error(self, error: HTTPError, *, body: bool = True) -> bytes:
        """The whole answer to a request that could not be served. It names the status and nothing of the inside."""
        later = b"Retry-After: %d\r\n" % error.retry_after if error.retry_after else b""
        return self.plain(error.status, error.reason, body=body, fields=error.fields + later)

    def plain(self, status: int, reason: str, *, body: bool = True, fields: bytes = b"") -> bytes:
        """A whole plain-text answer that ends the connection; `fields` are whole lines."""
        text = f"{status} {reason}\n".encode("ascii")
        own = self.signature + fields
        return b"HTTP/1.1 %d %b\r\n%bContent-Type: text/plain\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b" % (
            *(status, reason.encode("ascii"), own),
            *(len(text), text if body else b""),
        )
