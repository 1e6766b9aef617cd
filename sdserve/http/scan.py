"""The slow and exact reader of request heads: it names what is wrong, and it sees it as early as it can be seen.

httptools reads whole heads fast. This one reads them line by line, in two cases only: while a head is incomplete (a
TLS hello, a lone LF or an endless line must be refused now, not at the time-out), and when the fast reader refused
(to find the status that the fault deserves). A verdict depends on the bytes alone, never on how they were split:
each check is made on a complete line, or on a prefix that can never become right. Grammar: RFC 9112 sections 2 to 5.
"""

import re
import socket
from functools import cache

from sdserve.http.errors import (
    BadRequest,
    FieldsTooLarge,
    HTTPError,
    MethodNotSupported,
    TargetTooLong,
    VersionNotSupported,
)
from sdserve.http.limits import Limits

compiled = cache(re.compile)  # at the first use, for which no first client waits: most services never have one
TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
# A fragment is never sent (RFC 9112 section 3.2).
REQUEST_LINE_PREFIX = rb"(?:" + TOKEN + rb"++(?: (?:[!\"$-~]++(?: [!-~]*+(?:\r\n?)?)?)?)?)?"
REQUEST_LINE = rb"(" + TOKEN + rb"++) ([!\"$-~]++) HTTP/([0-9])\.([0-9])\r\n"
FIELD_LINE = rb"(" + TOKEN + rb"++):[ \t]*+([\t -~\x80-\xff]*+)\r\n"
# Host and authority (RFC 3986 section 3.2.2): a name, an IPv4 or a bracketed IPv6 address, and a port. No userinfo.
HOST = rb"(?:(?:[A-Za-z0-9\-._~!$&'()*+,;=]|%[0-9A-Fa-f]{2})+|\[(?P<ipv6>[0-9A-Fa-f:.]++)\])(?::(?P<port>[0-9]{0,5}+))?"
ABSOLUTE = rb"[Hh][Tt][Tt][Pp][Ss]?://([^/?#]*+)(.*)"

MADE_OUT = 16384  # bytes that are looked at of a head that was refused

Fields = list[tuple[bytes, bytes]]


class HeadScan:
    """Reads one head as it grows. `advance` is given all of it so far, from its first byte, each time."""

    __slots__ = ("_at", "_limits", "fields", "line")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._at = 0
        self.line: tuple[bytes, bytes, bytes] | None = None  # method, target, minor version
        self.fields: Fields = []

    def advance(self, head: bytes) -> bool:
        """True when the head is complete and well-formed, False when more is needed. Raises HTTPError."""
        while (end := head.find(b"\n", self._at)) >= 0:
            line = head[self._at : end + 1]
            if self.line is None:
                self._request_line(line)
            elif line == b"\r\n":
                return True
            else:
                if end >= self._limits.head:
                    raise FieldsTooLarge(f"the head is longer than {self._limits.head} bytes")
                self.fields.append(field_line(line, self._limits, len(self.fields)))
            self._at = end + 1
        self._unfinished(head[self._at :], len(head))
        return False

    def _request_line(self, line: bytes) -> None:
        self._request_line_prefix(line)
        self.line = request_line(line)

    def _request_line_prefix(self, line: bytes) -> None:
        # The fault that comes first in the line decides: a wrong byte, or the byte that is one too many.
        limit = self._limits.request_line
        found = compiled(REQUEST_LINE_PREFIX).match(line)
        good = found.end() if found else 0
        if good < len(line) and good <= limit:
            raise BadRequest(f"the request line is malformed at byte {good}")
        if len(line.rstrip(b"\r\n")) > limit:
            raise TargetTooLong(f"the request line is longer than {limit} bytes")

    def _unfinished(self, tail: bytes, total: int) -> None:
        if self.line is None:
            self._request_line_prefix(tail)
        elif len(tail) > self._limits.field_size + 1:
            raise FieldsTooLarge(f"a header field is longer than {self._limits.field_size} bytes")
        elif total > self._limits.head:
            raise FieldsTooLarge(f"the head is longer than {self._limits.head} bytes")


def request_line(line: bytes) -> tuple[bytes, bytes, bytes]:
    """Method, target and minor version of a complete request line. Raises HTTPError."""
    found = compiled(REQUEST_LINE).fullmatch(line)
    if found is None:
        raise BadRequest("the request line is malformed")
    method, target, major, minor = found.groups()
    if major != b"1":
        raise VersionNotSupported(f"version {major.decode()}.{minor.decode()} is not HTTP/1")
    check_target(method, target)
    return method, target, minor


def check_target(method: bytes, target: bytes) -> None:
    """Raises HTTPError unless `target` is a path, an http(s) URI, or `*` with OPTIONS (RFC 9112 section 3.2)."""
    if method == b"CONNECT":
        raise MethodNotSupported("CONNECT asks for a proxy, and this is not one")
    if target[:1] == b"/" or (target == b"*" and method == b"OPTIONS"):
        return
    found = compiled(ABSOLUTE).fullmatch(target)
    if found is None or not is_host(found[1]) or found[2][:1] not in (b"", b"/", b"?"):
        raise BadRequest("the target is neither a path nor an absolute URI")


def is_host(text: bytes) -> bool:
    """Whether `text` is a host that exists nowhere or somewhere, and a port that could: not `[:]`, not `h:99999`."""
    name, _, port = text.partition(b":")
    if name.translate(None, b".-").isalnum() and len(port) <= 5 and (port.isdigit() or not port):  # as most are
        return int(port or 0) <= 65535
    found = compiled(HOST).fullmatch(text)
    if found is None or int(found["port"] or 0) > 65535:
        return False
    if found["ipv6"] is None:
        return True
    try:
        socket.inet_pton(socket.AF_INET6, found["ipv6"].decode("ascii"))
    except OSError:
        return False
    return True


def split_host(text: str) -> tuple[str, str]:
    """Name and port of a host that `is_host`; "" for a port that is not there. IPv6 addresses keep their brackets."""
    name, colon, port = text.rpartition(":")
    return (name, port) if colon and not port.endswith("]") else (text, "")


def field_line(line: bytes, limits: Limits, count: int) -> tuple[bytes, bytes]:
    """Name and value of one complete field line, the `count`th before it. Raises HTTPError."""
    if len(line) - 2 > limits.field_size:
        raise FieldsTooLarge(f"a header field is longer than {limits.field_size} bytes")
    if count >= limits.fields:
        raise FieldsTooLarge(f"more than {limits.fields} header fields")
    found = compiled(FIELD_LINE).fullmatch(line)
    if found is None:
        raise BadRequest(f"malformed header field {line[:40]!r}")
    name, value = found.groups()
    return name, value.strip(b" \t")


def verdict(head: bytes, limits: Limits) -> tuple[tuple[bytes, bytes, bytes], Fields]:
    """Request line and fields of a complete head. Raises HTTPError for the first thing that is wrong with it."""
    scan = HeadScan(limits)
    if not scan.advance(head) or scan.line is None:
        raise HTTPError("the head is incomplete")
    return scan.line, scan.fields


def glimpse(head: bytes) -> tuple[bytes, Fields]:
    """The first line of a head that was refused, and what can be made out of its fields: for records, to be believed by
    nobody."""
    line, *rest = head[:MADE_OUT].split(b"\r\n")
    found = [compiled(FIELD_LINE).fullmatch(each + b"\r\n") for each in rest]
    return line, [(each[1], each[2].strip(b" \t")) for each in found if each is not None]
