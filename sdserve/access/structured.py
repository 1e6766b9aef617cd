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


def _of(name: str) -> str:
    return f'get("{name}", none)'


_USER = 'user(environ, none) if "HTTP_AUTHORIZATION" in environ else none'

# Field, its place in a template, its value as an expression, and what it is.
FIELDS: tuple[tuple[str, str, str, str], ...] = (
    ("time", '"%s"', "stamps[int(now() * 1000)]", "when the answer had left, RFC 3339 in UTC, with milliseconds"),
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
# A record without one of these is of what is no request; to write it may take longer.
EXPECTED = ("method", "target", "protocol")
OURS = ("time", "status", "bytes", "duration", "connection")


class Structured(Form):
    """Records in one of STRUCTURED."""

    def __init__(self, style: str) -> None:
        self._json = style == "json"
        self._colon, self._comma, around = (":", ",", "{%s}") if self._json else ("=", " ", "%s")
        self._absent = "null" if self._json else ""
        self._gap = f"{self._colon}{self._absent}{self._comma}"  # where something is absent; the last field never is
        pid = str(os.getpid())
        taken = [(field, place, expression) for field, place, expression, _ in FIELDS if expression]
        foreign = [field not in OURS for field, _, _ in taken]
        # What somebody else has chosen brings its quotes with it, or nothing is there.
        places = {field: "%s" if field not in OURS else place for field, place, _ in taken}
        template = around % self._joined(places | {"pid": pid})
        literal = self._joined({field: place for field, place, _ in taken} | {"pid": pid})
        super().__init__(template, [expression for _, _, expression in taken], foreign, literal)
        self._quick = self._compiled_lines(around, [(field, place) for field, place, _ in taken], pid)

    def _joined(self, values: dict[str, str]) -> str:
        """The fields of a record, or of what makes records, of each one's value."""
        quote = '"' if self._json else ""
        return self._comma.join(f"{quote}{field}{quote}{self._colon}{value}" for field, value in values.items())

    def _compiled_lines(
        self, around: str, places: Sequence[tuple[str, str]], pid: str
    ) -> Callable[[Sequence[Taken]], list[str]]:
        """What makes the records of a batch in which nothing must be escaped. Python's % would take twice as long.

        Nothing in it comes from a client, and a name of a field is one here, too.
        """
        values = {}
        for field, place in places:
            value = f"{{{field}}}" if place != "%.6f" else f"{{{field}:.6f}}"
            if place == '"%s"':
                value = f'"{value}"'
                if field not in (*OURS, *EXPECTED):
                    value = f"{{f'{value}' if {field} is not absent else {self._absent!r}}}"
            values[field] = value
        around = around.replace("{", "{{").replace("}", "}}")
        record = around % self._joined(values | {"pid": pid})
        code = f"def lines(batch):\n    return [f'''{record}''' for {', '.join(values)} in batch]\n"
        exec(code, {"absent": ABSENT}, found := dict[str, Any]())
        return found["lines"]  # type: ignore[no-any-return]

    def fast(self, batch: Sequence[Taken]) -> list[str] | None:
        found = self._quick(batch)
        text = "".join(found)
        # What only looks like a gap makes us expect fewer quotes than there are: it hides none, and costs others.
        fits = max(map(len, found)) <= LONGEST_FIELD and self.is_safe(text, len(batch), text.count(self._gap))
        return found if fits else None

    def escape(self, value: Any) -> str:
        text = str(value)
        return self._absent if text == ABSENT else f'"{_cut(text)}"'

    def unwritten(self, why: str) -> str:
        return f'{{"error":"{_quoted(why)}"}}' if self._json else f'error="{_quoted(why)}"'

    def names(self) -> dict[str, object]:
        known: dict[str, object] = {
            "none": ABSENT,
            "now": time.time,
            "stamps": _Stamps(),
            "codes": _Codes(),
            "ends": ENDS,
        }
        return super().names() | known


def _cut(text: str) -> str:
    """At most LONGEST_FIELD characters of ASCII."""
    with suppress(UnicodeError):
        text = text.encode("latin-1").decode()
    quoted = _quoted(text := text[: LONGEST_FIELD + 1])
    if len(quoted) <= LONGEST_FIELD:
        return quoted
    while len(quoted) > LONGEST_FIELD - len(CUT):
        text = text[: len(text) * (LONGEST_FIELD - len(CUT)) // len(quoted)]
        quoted = _quoted(text)
    return quoted + CUT


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


class _Stamps(dict[int, str]):
    """Times as text, each written once, by their milliseconds since the epoch."""

    _known = -1, ""

    def __missing__(self, when: int) -> str:
        second, milliseconds = divmod(when, 1000)
        known, text = self._known
        if known != second:
            text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
            self._known = second, text
        if len(self) >= 100:
            self.clear()
        return self.setdefault(when, f"{text}.{milliseconds:03d}Z")
