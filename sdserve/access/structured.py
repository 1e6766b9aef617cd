"""Access records as JSON or logfmt: one line each, the same fields, every text of a client between quotes.

As in formats.py records are made many at a time, and one look at all of them shows whether anything must be escaped.
What must is escaped as in JSON, in logfmt, too, and `<` with it: it may begin a priority where journald cuts a line.
All of a record is ASCII. Fields come in UTF-8 as a rule; what is not UTF-8 is shown byte by byte, as Latin-1.
"""

import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from json.encoder import encode_basestring_ascii
from typing import Any

from sdserve.access.formats import CUT, LONGEST_FIELD, Form, Taken

ABSENT = "\ufdd0"  # what is not there; no client can say it: what comes from one is Latin-1
MISSING = f'"{ABSENT}"'


def _of(name: str) -> str:
    return f'get("{name}", {ABSENT!r})'


_USER = 'user(environ, none) if "HTTP_AUTHORIZATION" in environ else none'

# Field, its place in a template, its value as an expression, and what it is.
FIELDS: tuple[tuple[str, str, str, str], ...] = (
    ("time", '"%s"', "stamp()", "when the answer had left, RFC 3339 in UTC, with milliseconds"),
    ("client", '"%s"', 'get("REMOTE_ADDR") or none', "its address, as a believed proxy names it"),
    ("user", '"%s"', _USER, "of basic authentication, as sent"),
    ("method", '"%s"', _of("REQUEST_METHOD"), "of the request"),
    ("target", '"%s"', _of("RAW_URI"), "what was asked for, with its query; of what is no HTTP its first line"),
    ("protocol", '"%s"', _of("SERVER_PROTOCOL"), "`HTTP/1.1`"),
    ("host", '"%s"', _of("HTTP_HOST"), "the field Host"),
    ("status", "%d", "codes[status]", "of the response, a number"),
    ("bytes", "%d", "sent", "of the body that left, a number"),
    ("duration", "%.6f", "seconds", "seconds from the request to the end of its answer, a number"),
    ("connection", '"%s"', "ends[ended]", "`kept`, `closed` after this, or `cut`: the response ended too early"),
    ("referer", '"%s"', _of("HTTP_REFERER"), "the field Referer"),
    ("user_agent", '"%s"', _of("HTTP_USER_AGENT"), "the field User-Agent"),
    ("request_id", '"%s"', _of("HTTP_X_REQUEST_ID"), "the field X-Request-ID, of a proxy as a rule"),
    ("traceparent", '"%s"', _of("HTTP_TRACEPARENT"), "the field traceparent (W3C Trace Context)"),
    ("pid", "%d", "", "of the worker, a number"),
)
ENDS = {"+": "kept", "-": "closed", "X": "cut"}
OURS = ("time", "status", "bytes", "duration", "connection")


class Structured(Form):
    """Records in one of STRUCTURED."""

    def __init__(self, style: str) -> None:
        self._json = style == "json"
        colon, comma, around = (":", ",", "{%s}") if self._json else ("=", " ", "%s")
        self._absent = "null" if self._json else ""
        places = {field: place for field, place, _, _ in FIELDS} | {"pid": str(os.getpid())}
        keys = [f'"{field}"' if self._json else field for field in places]
        pairs = [f"{key}{colon}{place}" for key, place in zip(keys, places.values(), strict=True)]
        template = around % comma.join(pairs)
        taken = [(field, expression) for field, _, expression, _ in FIELDS if expression]
        foreign = [field not in OURS for field, _ in taken]
        super().__init__(template, [expression for _, expression in taken], foreign, template)

    def lines(self, batch: Sequence[Taken]) -> list[str]:
        with suppress(Exception):  # as in formats.py
            found = [self._template % taken for taken in batch]
            if max(map(len, found)) <= LONGEST_FIELD:
                # What is not there loses its quotes; the length tells how often.
                text = "".join(found)
                shown = text.replace(MISSING, self._absent)
                absent = (len(text) - len(shown)) // (len(MISSING) - len(self._absent))
                if self.is_safe(shown, len(batch), absent):
                    return [line.replace(MISSING, self._absent) for line in found] if absent else found
        return [self._escaped(self._template, taken).replace(MISSING, self._absent) for taken in batch]

    def escape(self, value: Any) -> str:
        text = str(value)
        if text == ABSENT:
            return text
        with suppress(UnicodeError):
            text = text.encode("latin-1").decode()
        quoted = _quoted(text := text[: LONGEST_FIELD + 1])
        if len(quoted) <= LONGEST_FIELD:
            return quoted
        while len(quoted) > LONGEST_FIELD - len(CUT):
            text = text[: len(text) * (LONGEST_FIELD - len(CUT)) // len(quoted)]
            quoted = _quoted(text)
        return quoted + CUT

    def unwritten(self, why: str) -> str:
        return f'{{"error":"{_quoted(why)}"}}' if self._json else f'error="{_quoted(why)}"'

    def names(self) -> dict[str, object]:
        return super().names() | {"none": ABSENT, "stamp": _stamps(), "codes": _Codes(), "ends": ENDS}


def _quoted(text: str) -> str:
    return encode_basestring_ascii(text)[1:-1].replace("<", "\\u003c")


class _Codes(dict[str, int]):
    """Status codes by the status lines that applications have used."""

    def __missing__(self, status: str) -> int:
        code = status[:3]
        number = int(code) if code.isascii() and code.isdigit() else 0
        if len(self) < 100:
            self[status] = number
        return number


def _stamps() -> Callable[[], str]:
    """What tells the time of now, written anew once a millisecond."""
    known = 0, 0, "", ""

    def stamp() -> str:
        nonlocal known
        now = int(time.time() * 1000)
        then, second, day, text = known
        if now != then:
            if now // 1000 != second:
                second = now // 1000
                day = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
            text = f"{day}.{now % 1000:03d}Z"
            known = now, second, day, text
        return text

    return stamp
