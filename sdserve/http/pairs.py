"""The reader of heads for who wants fields as pairs of bytes, names in lower case, as ASGI does.

What is accepted, and what it means, is `RequestReader`'s: a usual head is read here with the same questions asked,
every other one is read there. httptools (llhttp) judges a head, and puts its fields straight into a mapping: no code of
Python runs for each of them before they are known to be good.
"""

import re
from typing import TypeVar

from sdserve.http.errors import FieldsTooLarge, HTTPError
from sdserve.http.limits import Limits
from sdserve.http.names import NAME_BYTES, RARE, REMEMBERED, Names
from sdserve.http.request import HOST, SMALL, Fresh, Line, Request, RequestReader

NAME = re.compile(rb"[!#$%&'*+\-.^`|~0-9A-Za-z]+")  # a token without underscores, whose meaning depends on who sends it
LONGEST = 200  # bytes of a line that is remembered
V = TypeVar("V")


class _Fields:
    """What httptools tells about a head: its fields. Of those that came twice under one spelling it keeps the last."""

    def __init__(self) -> None:
        self.found: dict[bytes, bytes] = {}
        self.on_header = self.found.__setitem__


class PairsReader(RequestReader):
    """Requests that it has read have `pairs`, and `by_name` as no field came twice, if they are usual."""

    def __init__(self, limits: Limits, names: Names) -> None:
        self._fields = _Fields()
        super().__init__(limits, names)
        self._judge = self._fields  # type: ignore[assignment]
        self._renew()
        self._lines: dict[bytes, Line] = {}  # request lines
        self._lower: dict[bytes, bytes] = {}  # names that want no care
        self._host_names: dict[bytes, str] = {}  # that were checked
        # Heads that have come twice in a row: health checks and simple programs are like that.
        self._small: dict[bytes, tuple[Line, str, tuple[tuple[bytes, bytes], ...]]] = {}

    def read(self, head: bytes, fresh: Fresh | None = None) -> Request:
        if len(head) <= SMALL and (known := self._small.get(head)) is not None:
            request = Request(known[0], head)
            request.host, request.pairs, request.by_name = known[1], list(known[2]), dict(known[2])
            return request
        if len(head) > self._plain:
            self._fields.found.clear()
            return super().read(head, fresh)
        first = head[: head.index(b"\r\n")]
        line = self._lines.get(first)
        if line is None:
            line = self._line(first.decode("latin-1"))
            if line is None:
                return self._slowly(head, fresh)
            if len(first) <= LONGEST:
                _remember(self._lines, first, line)
        found = self._fields.found
        found.clear()
        if not self._accepts(head):
            return self._slowly(head, fresh)
        count = head.count(b"\r\n") - 2
        if count > self._limits.fields:
            self._renew()
            raise FieldsTooLarge(f"more than {self._limits.fields} header fields")
        lower = self._lower
        try:
            pairs = [(lower[name], value.strip()) for name, value in found.items()]
        except KeyError:
            if not self._learn(found):
                self._renew()
                return super().read(head, fresh)
            pairs = [(lower[name], value.strip()) for name, value in found.items()]
        by_name = dict(pairs)
        if len(by_name) != count:
            self._renew()
            return super().read(head, fresh)
        request = Request(line, head)
        request.pairs, request.by_name = pairs, by_name
        try:
            self._weigh(request, by_name)
        except HTTPError:
            self._renew()
            raise
        if request.length or not request.keep_alive:
            self._renew()
        elif len(head) <= SMALL:
            if head == self._again and request.minor and request.uri[0] == "/":
                _remember(self._small, head, (line, request.host, tuple(pairs)))
            self._again = head
        return request

    def _renew(self) -> None:
        self._fields.found.clear()  # whoever was refused leaves nothing here
        super()._renew()

    def _learn(self, fields: dict[bytes, bytes]) -> bool:
        """Remembers the names of fields; False where one of them wants care."""
        lower = self._lower
        if len(lower) + len(fields) > REMEMBERED:
            lower.clear()
        for name in fields:
            lowered = name.lower()
            if len(name) > NAME_BYTES or not NAME.fullmatch(name) or lowered.decode() in RARE:
                return False
            lower[name] = lowered
        return True

    def _weigh(self, request: Request, fields: dict[bytes, bytes]) -> None:
        """What decides, as `_interpret` reads it: whose the message is, where it ends, what comes after."""
        host = fields.get(b"host")
        known = None if host is None else self._host_names.get(host)
        if known is not None:
            request.host = known
        else:
            self._check_host(request, None if host is None else host.decode("latin-1"))
            if host and len(host) <= HOST:
                _remember(self._host_names, host, request.host)
        connection = fields.get(b"connection")
        if connection == b"keep-alive":
            request.keep_alive = True
        elif connection is not None:
            self._persistence(request, connection.decode("latin-1"))
        length = fields.get(b"content-length")
        if length is not None:
            request.length = self._size(length.decode("latin-1"))
        if request.uri[0] != "/":
            self._absolute(request)


def _remember(memory: dict[bytes, V], line: bytes, value: V) -> None:
    if len(memory) >= REMEMBERED:
        memory.clear()
    memory[line] = value
