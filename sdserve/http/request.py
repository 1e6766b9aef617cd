"""From the bytes of one complete head to a `Request` whose body framing is beyond doubt.

httptools (llhttp) judges a head: whether it is one. Its fields are taken in bulk then, by one decoding and one split,
since behind a proxy hardly two heads are the same. The request line is checked here, because llhttp is laxer (two
spaces, `GET *`) and narrower (unknown methods, HTTP/1.2) than wanted. The fields that decide where the message ends or
whom it is for are interpreted here, and only one way of saying each is accepted: a request that two parsers could read
in two ways is the raw material of request smuggling (RFC 9112 section 11.2).
"""

from collections.abc import Callable
from typing import Any

import httptools

from sdserve.http import scan
from sdserve.http.errors import (
    BadRequest,
    BodyTooLarge,
    ExpectationFailed,
    FieldsTooLarge,
    HTTPError,
    MethodNotSupported,
)
from sdserve.http.limits import Limits
from sdserve.http.names import REMEMBERED, Names
from sdserve.http.scan import Fields

CHUNKED = -1  # the length of a body that says its length as it goes

# Methods that llhttp knows from HTTP; any other token is shown to it as GET, which has the same grammar.
FAMILIAR = frozenset(("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"))
MINOR = {"HTTP/1.1": 1, "HTTP/1.0": 0}
CODINGS = frozenset(("gzip", "x-gzip", "deflate", "compress", "x-compress"))
HEADS, SMALL = 64, 256  # heads that are remembered, and bytes of the longest one
HOST = 255 + 6  # characters of a host that is: a domain name (RFC 1035) and a port
MAX_LENGTH_DIGITS = 18  # what fits 63 bits, whatever the configured limit
BLANKS = " \t"

# A request line taken apart: method, target, path, query, and the minor version (2 and above count as 1).
Line = tuple[str, str, str, str, int]
Fresh = Callable[[], dict[str, Any]]


def split_line(method: str, target: str, minor: int) -> Line:
    path, _, query = target.partition("?")
    if path == "*":  # the server as a whole has no path (RFC 9112 section 3.2.4)
        path = ""
    return method, target, path, query, minor


class Request:
    """One request's head. Strings are latin-1, as PEP 3333 wants them.

    `length` is the body's length in bytes, or CHUNKED. `path` is still percent-encoded; for an absolute-form target
    it is the path of the URI. `fields` keep the order and spelling of the wire, without surrounding blanks. `named` has
    them under the names that the layer above gives them, in the mapping that it gave; where `odd` is set, fields whose
    names have no key are left to it.
    """

    length = 0
    expect = False
    host = ""
    upgrade = ""
    fragment = ""  # gunicorn's hooks may look for it
    odd = False
    named: dict[str, Any] | None = None
    pairs: Fields | None = None  # of pairs.py: the fields with names in lower case, if the head was usual,
    by_name: dict[bytes, bytes] | None = None  # and the same by name
    _fields: Fields | None = None

    def __init__(self, line: Line, head: bytes) -> None:
        self.method, self.uri, self.path, self.query, self.minor = line
        self.head = head
        self.keep_alive = self.minor == 1

    @property
    def version(self) -> tuple[int, int]:
        return (1, self.minor)

    @property
    def fields(self) -> Fields:
        found = self._fields
        if found is None:
            found = self._fields = _fields(self.head)
        return found

    @fields.setter
    def fields(self, fields: Fields) -> None:
        self._fields = fields

    @property
    def headers(self) -> list[tuple[str, str]]:
        """The fields as gunicorn's hooks know them: upper-case names, str values."""
        return [(name.decode("ascii").upper(), value.decode("latin-1")) for name, value in self.fields]


def _fields(head: bytes) -> Fields:
    """The fields of a head that was found well-formed."""
    parts = [line.partition(b":") for line in head.split(b"\r\n")[1:-2]]
    return [(name, value.strip(b" \t")) for name, _, value in parts]


class _Judge:
    """What httptools tells about a head: whether it is one, and nothing else."""


class RequestReader:
    """Reads heads, one at a time. One reader serves all connections of a loop.

    It remembers, in bounds, names, hosts and some small heads that it has read: they change how fast a head is read,
    never how. `names` says under which keys the layer above wants the fields.
    """

    def __init__(self, limits: Limits, names: Names | None = None) -> None:
        self._limits = limits
        self._names = names = names or Names()
        self._judge = _Judge()
        self._parser = httptools.HttpRequestParser(self._judge)
        self._host, self._length, self._connection = map(names.key, ("host", "content-length", "connection"))
        self._transfer, self._expect, self._upgrade = map(names.key, ("transfer-encoding", "expect", "upgrade"))
        self._once = {names.key(name): name for name in ("Host", "Content-Length", "Transfer-Encoding", "Content-Type")}
        self._hosts: set[str] = set()
        self._heads: dict[bytes, tuple[Line, str, dict[str, str]]] = {}
        self._again = b""  # the last small head
        self._plain = min(limits.field_size, limits.head)  # bytes of a head that no limit but on lines can refuse

    def read(self, head: bytes, fresh: Fresh | None = None) -> Request:
        """The request of a complete head, which ends with its empty line. Raises HTTPError.

        `fresh` makes the mapping that its fields are added to, which becomes the request's `named`.
        """
        if len(head) <= SMALL and (known := self._heads.get(head)) is not None:
            known_line, host, fields = known
            request = Request(known_line, head)
            request.host = host
            if fresh is not None:
                request.named = named = fresh()
                named |= fields
            return request
        if len(head) > self._plain:
            return self._slowly(head, fresh)
        text = head.decode("latin-1")
        lines = text.split("\r\n")
        line = self._line(lines[0])
        if line is None or not self._accepts(head):
            return self._slowly(head, fresh)
        count = len(lines) - 3
        if count > self._limits.fields:
            self._renew()
            raise FieldsTooLarge(f"more than {self._limits.fields} header fields")
        request = Request(line, head)
        named = fresh() if fresh is not None else {}
        # strip() knows more blanks than HTTP does. Of ASCII they are control characters, which llhttp does not take.
        expected = len(named) + count if text.isascii() else -1
        names = self._names.known
        try:
            for field in lines[1:-2]:
                name, _, value = field.partition(":")
                named[names[name]] = value.strip()
        except KeyError:  # a name that is new, or wants care
            expected = -1
        try:
            if len(named) != expected:  # or one that came more than once
                named = self._carefully(request, fresh)
            self._interpret(request, named)
        except HTTPError:
            self._renew()
            raise
        if fresh is not None:
            request.named = named
        if request.length or not request.keep_alive:
            self._renew()
        elif len(head) <= SMALL:
            self._remember(request, line)
        return request

    def _remember(self, request: Request, line: Line) -> None:
        """Remembers a small head that has come twice in a row: health checks and simple programs are like that."""
        head = request.head
        if head == self._again and request.minor and request.uri[0] == "/" and not (request.odd or request.upgrade):
            fields: dict[str, Any] = {}
            self._names.gather(request.fields, fields)
            if len(self._heads) >= HEADS:
                self._heads.clear()
            self._heads[head] = line, request.host, fields
        self._again = head

    def _accepts(self, head: bytes) -> bool:
        """Whether httptools takes a head."""
        try:
            self._parser.feed_data(head)
        except httptools.HttpParserUpgrade:
            self._renew()
        except httptools.HttpParserError:
            # The fault may be the last head's: after one that closes its connection llhttp takes nothing more.
            self._renew()
            try:
                self._parser.feed_data(head)
            except (httptools.HttpParserUpgrade, httptools.HttpParserError):
                self._renew()
                return False
        return True

    def _renew(self) -> None:
        """llhttp now waits for a body, or is in its error state; a new parser costs 0.2 microseconds."""
        self._parser = httptools.HttpRequestParser(self._judge)

    def _line(self, raw: str) -> Line | None:
        """A request line without its end, None when the exact reader must decide. Raises HTTPError."""
        try:
            method, target, version = raw.split(" ")
        except ValueError:
            return None
        minor = MINOR.get(version)
        if minor is None or method not in FAMILIAR or not target or len(raw) > self._limits.request_line:
            return None
        # A fragment is never sent (RFC 9112 section 3.2), and a lone line feed would end the line for llhttp.
        if not (target.isascii() and target.isprintable()) or "#" in target:
            return None
        if target[0] != "/":
            scan.check_target(method.encode("ascii"), target.encode("ascii"))
        return split_line(method, target, minor)

    def _slowly(self, head: bytes, fresh: Fresh | None) -> Request:
        """Reads an unusual or refused head by the exact reader. httptools must agree about its fields.

        It is shown them without blanks around their values, since it takes no tab behind `chunked`.
        """
        (method, target, minor), fields = scan.verdict(head, self._limits)
        line = split_line(method.decode("ascii"), target.decode("ascii"), 0 if minor == b"0" else 1)
        request = Request(line, head)
        request.fields = fields
        named = self._carefully(request, fresh)
        self._interpret(request, named)
        if fresh is not None:
            request.named = named
        self._renew()
        lines = [b"GET / HTTP/1.1", *(b"%b:%b" % field for field in fields), b"", b""]
        try:
            self._parser.feed_data(b"\r\n".join(lines))
        except httptools.HttpParserUpgrade:
            pass
        except httptools.HttpParserError as error:
            raise BadRequest(f"the head is malformed: {error}") from error
        finally:
            self._renew()
        return request

    def _carefully(self, request: Request, fresh: Fresh | None) -> dict[str, Any]:
        """The fields of a request by name, where some are new, rare, odd, or came more than once."""
        named = fresh() if fresh is not None else {}

        def odd(name: str) -> str:
            request.odd = True
            return ""

        repeated = self._names.gather(request.fields, named, odd)
        for key in repeated & self._once.keys():
            raise BadRequest(f"more than one {self._once[key]}")
        expectation = named.get(self._expect)
        if expectation is not None:
            said = expectation.lower().split(",") if self._expect in repeated else [expectation.lower()]
            if any(each != "100-continue" for each in said):
                raise ExpectationFailed("an expectation other than 100-continue")
            request.expect = request.minor == 1
        coding = named.get(self._transfer)
        if coding is not None:
            if self._length in named:
                raise BadRequest("Content-Length beside Transfer-Encoding")
            request.length = self._transfer_coding(request, coding)
        request.upgrade = named.get(self._upgrade, "")
        return named

    def _interpret(self, request: Request, named: dict[str, Any]) -> None:
        """What decides: whose the message is, where it ends, and whether the connection goes on."""
        host = named.get(self._host)
        if host in self._hosts:
            request.host = host
        else:
            self._check_host(request, host)
        connection = named.get(self._connection)
        if connection == "keep-alive":  # as most that say anything do, of HTTP/1.0 and of HTTP/1.1
            request.keep_alive = True
        elif connection is not None:
            self._persistence(request, connection)
        length = named.get(self._length)
        if length is not None:
            request.length = self._size(length)
        if request.expect and not request.length:
            request.expect = False
        if request.uri[0] != "/":
            self._absolute(request)

    def _persistence(self, request: Request, value: str) -> None:
        """`close` wins over `keep-alive`, in whatever order they come."""
        options = {option.strip(BLANKS) for option in value.lower().split(",")}
        if "close" in options:
            request.keep_alive = False
        elif "keep-alive" in options:
            request.keep_alive = True

    def _size(self, value: str) -> int:
        if not (value.isascii() and value.isdigit()):
            raise BadRequest("Content-Length is not a number")
        limit = self._limits.body
        if len(value) > MAX_LENGTH_DIGITS or (limit and int(value) > limit):
            raise BodyTooLarge(f"the body is longer than {limit} bytes")
        return int(value)

    def _transfer_coding(self, request: Request, value: str) -> int:
        if request.minor == 0:
            raise BadRequest("Transfer-Encoding in HTTP/1.0")
        value = value.lower()
        if value == "chunked":
            return CHUNKED
        *codings, last = [coding.strip(BLANKS) for coding in value.split(",")]
        if last == "chunked" and all(coding in CODINGS for coding in codings):
            raise MethodNotSupported(f"transfer coding {value!r} is not understood")
        raise BadRequest("Transfer-Encoding is not chunked")

    def _check_host(self, request: Request, host: str | None) -> None:
        if host is None:
            if request.minor:
                raise BadRequest("no Host")
            return
        if host and not scan.is_host(host.encode("latin-1")):
            raise BadRequest("Host is malformed")
        request.host = host
        if len(host) <= HOST:
            if len(self._hosts) >= REMEMBERED:
                self._hosts.clear()
            self._hosts.add(host)

    def _absolute(self, request: Request) -> None:
        found = scan.compiled(scan.ABSOLUTE).fullmatch(request.uri.encode("ascii"))
        if found is None:  # `OPTIONS *`
            return
        request.host = found[1].decode("ascii")  # whatever Host said (RFC 9112 section 3.2.2)
        request.path, _, request.query = found[2].decode("ascii").partition("?")
        request.path = request.path or "/"
