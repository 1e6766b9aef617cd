"""From the bytes of one complete head to a `Request` whose body framing is beyond doubt.

httptools (llhttp) does the reading. The request line is checked here, because llhttp is laxer (two spaces, `GET *`)
and narrower (unknown methods, HTTP/1.2) than wanted. The fields that decide where the message ends or whom it is for
are interpreted here, and only one way of saying each is accepted: a request that two parsers could read in two ways
is the raw material of request smuggling (RFC 9112 section 11.2).
"""

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
from sdserve.http.scan import Fields

CHUNKED = -1  # the length of a body that says its length as it goes

# Methods that llhttp knows from HTTP; any other token is shown to it as GET, which has the same grammar.
FAMILIAR = frozenset((b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH", b"TRACE"))
MINOR = {b"HTTP/1.1": b"1", b"HTTP/1.0": b"0"}

CLOSE = 1  # in the set of what was seen, beside 1 << each of these
HOST, LENGTH, TRANSFER, CONNECTION, EXPECT, TYPE, UPGRADE = range(1, 8)
_DECISIVE = {
    b"host": HOST,
    b"content-length": LENGTH,
    b"transfer-encoding": TRANSFER,
    b"connection": CONNECTION,
    b"expect": EXPECT,
    b"content-type": TYPE,
    b"upgrade": UPGRADE,
}
CODINGS = frozenset((b"gzip", b"x-gzip", b"deflate", b"compress", b"x-compress"))
# What is remembered is bounded in number and in bytes, and forgotten as a whole when there is too much of it: what one
# client fills it with is gone soon, and what is common is learned again at once.
REMEMBERED = 1000  # request lines of up to 100 bytes, hosts, spellings of names
HOST_BYTES = 255 + 6  # a domain name (RFC 1035) and a port
NAME_BYTES = 64
BLOCKS = 256  # header blocks remembered
BLOCK = 1024  # bytes of the longest one
ANY_BLOCK = b"\r\nHost: any\r\n\r\n"
MAX_LENGTH_DIGITS = 18  # what fits 63 bits, whatever the configured limit


# A request line taken apart: method, target, path, query, and the minor version (2 and above count as 1).
Line = tuple[str, str, str, str, int]


def split_line(method: bytes, target: bytes, minor: bytes) -> Line:
    uri = target.decode("ascii")
    path, _, query = uri.partition("?")
    if path == "*":  # the server as a whole has no path (RFC 9112 section 3.2.4)
        path = ""
    return method.decode("ascii"), uri, path, query, 0 if minor == b"0" else 1


class Block:
    """A header block that was read and judged: all that came behind some request line, and what it means.

    Clients repeat themselves: from one request to the next a browser, a proxy or a health check changes the request
    line, and rarely anything else (HPACK, RFC 7541, is built on that). `notes` is for those above who derive something
    from the fields alone and want to keep it.
    """

    __slots__ = ("fields", "host", "notes")

    def __init__(self, fields: Fields, host: bytes) -> None:
        self.fields = fields
        self.host = host
        self.notes: dict[Any, Any] = {}


class Request:
    """One request's head. Strings are latin-1, as PEP 3333 wants them.

    `length` is the body's length in bytes, or CHUNKED. `path` is still percent-encoded; for an absolute-form target
    it is the path of the URI. `fields` keep the order and spelling of the wire, without surrounding blanks. `block` is
    what other requests with the same fields share.
    """

    length = 0
    expect = False
    host = b""
    upgrade = b""
    fragment = ""  # gunicorn's hooks may look for it
    block: "Block | None" = None

    def __init__(self, line: Line, fields: Fields) -> None:
        self.method, self.uri, self.path, self.query, self.minor = line
        self.fields = fields
        self.keep_alive = self.minor == 1

    @property
    def version(self) -> tuple[int, int]:
        return (1, self.minor)

    @property
    def headers(self) -> list[tuple[str, str]]:
        """The fields as gunicorn's hooks know them: upper-case names, str values."""
        return [(name.decode("ascii").upper(), value.decode("latin-1")) for name, value in self.fields]


class RequestReader:
    """Reads heads, one at a time. One reader serves all connections of a loop.

    It remembers, in bounds, lines and blocks that it has read: they change how fast a head is read, never how.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._fields: Fields = []
        self._parser = httptools.HttpRequestParser(self)
        # Each spelling of a name that was seen, and what it means.
        self._meaning: dict[bytes, int] = dict(_DECISIVE)
        self._hosts: set[bytes] = set()
        # Lines and blocks that httptools accepted and `_interpret` had nothing special to say of: of HTTP/1.1, a path
        # for a target, no body. What holds for each of them holds for any two of them together.
        self._lines: dict[bytes, Line] = {}
        self._blocks: dict[bytes, Block] = {}
        self._plain = min(limits.field_size, limits.head)  # bytes of a head that no limit but on lines can refuse

    def on_header(self, name: bytes, value: bytes) -> None:
        self._fields.append((name, value.strip(b" \t")))

    def read(self, head: bytes) -> Request:
        """The request of a complete head, which ends with its empty line. Raises HTTPError."""
        end = head.find(b"\r\n")
        raw, rest = head[:end], head[end:]
        line = self._lines.get(raw)
        block = self._blocks.get(rest)
        if block is not None and len(head) <= self._plain and (line := line or self._known_line(raw)):
            request = Request(line, block.fields)
            request.host = block.host
            request.block = block
            return request
        return self._read(head, line, raw, rest)

    def _read(self, head: bytes, line: Line | None, raw: bytes, rest: bytes) -> Request:
        """A head that is not known in whole."""
        limits = self._limits
        if len(head) > self._plain:
            return self._slowly(head)
        line = line or self._line(raw)
        if line is None or not self._accepts(head):
            return self._slowly(head)
        fields = self._fields
        if len(fields) > limits.fields:
            self._renew()
            raise FieldsTooLarge(f"more than {limits.fields} header fields")
        request = Request(line, fields)
        if not request.minor:
            self._renew()
        try:
            self._interpret(request)
        except HTTPError:
            self._renew()
            raise
        if request.length or not request.keep_alive:
            self._renew()
        elif request.minor and line[1][0] == "/" and not request.upgrade:
            self._remember_line(raw, line)
            if len(rest) <= BLOCK:
                if len(self._blocks) >= BLOCKS:
                    self._blocks.clear()
                request.block = self._blocks[rest] = Block(fields, request.host)
        return request

    def _known_line(self, raw: bytes) -> Line | None:
        """A new request line before a block that is known. None when there is more to look at than the line."""
        line = self._line(raw)
        if line is None or line[1][0] != "/" or not line[4] or not self._accepts(raw + ANY_BLOCK):
            return None
        self._remember_line(raw, line)
        return line

    def _accepts(self, head: bytes) -> bool:
        """Whether httptools takes a head; `_fields` has its fields then, in a list of their own."""
        self._fields = []
        try:
            self._parser.feed_data(head)
        except httptools.HttpParserUpgrade:
            self._renew()
        except httptools.HttpParserError:
            # The fault may be the last head's: after one that closes its connection llhttp takes nothing more.
            self._renew()
            self._fields = []
            try:
                self._parser.feed_data(head)
            except (httptools.HttpParserUpgrade, httptools.HttpParserError):
                self._renew()
                return False
        return True

    def _line(self, raw: bytes) -> Line | None:
        """A request line without its end, None when the exact reader must decide. Raises HTTPError."""
        words = raw.split(b" ")
        if len(words) != 3 or len(raw) > self._limits.request_line:
            return None
        method, target, version = words
        minor = MINOR.get(version)
        if minor is None or method not in FAMILIAR or not scan.TARGET.fullmatch(target):
            return None  # a lone line feed, for one, would end the line for llhttp
        if target[:1] != b"/":
            scan.check_target(method, target)
        return split_line(method, target, minor)

    def _remember_line(self, raw: bytes, line: Line) -> None:
        if len(raw) <= 100:
            if len(self._lines) >= REMEMBERED:
                self._lines.clear()
            self._lines[raw] = line

    def _renew(self) -> None:
        """llhttp now waits for a body, or is in its error state; a new parser costs 0.2 microseconds."""
        self._parser = httptools.HttpRequestParser(self)

    def _slowly(self, head: bytes) -> Request:
        """Reads an unusual or refused head by the exact reader. httptools must agree about its fields.

        It is shown them without blanks around their values, since it takes no tab behind `chunked`.
        """
        (method, target, minor), fields = scan.verdict(head, self._limits)
        request = Request(split_line(method, target, minor), fields)
        self._interpret(request)
        self._fields = []
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

    def _learn(self, name: bytes) -> int:
        meaning = _DECISIVE.get(name.lower(), 0)
        if len(name) <= NAME_BYTES:
            if len(self._meaning) >= REMEMBERED:
                self._meaning = dict(_DECISIVE)
            self._meaning[name] = meaning
        return meaning

    def _interpret(self, request: Request) -> None:
        seen = 0
        meanings = self._meaning
        for name, value in request.fields:
            meaning = meanings.get(name)
            if meaning is None:
                meaning = self._learn(name)
            if not meaning:
                continue
            if meaning == HOST:
                if seen & 1 << HOST:
                    raise BadRequest("more than one Host")
                request.host = value
            elif meaning == CONNECTION:
                seen |= self._connection(request, value, seen)
            elif meaning == LENGTH:
                if seen & (1 << LENGTH | 1 << TRANSFER):
                    raise BadRequest("more than one Content-Length, or one beside Transfer-Encoding")
                request.length = self._length(value)
            elif meaning == TRANSFER:
                if seen & (1 << LENGTH | 1 << TRANSFER):
                    raise BadRequest("more than one Transfer-Encoding, or one beside Content-Length")
                request.length = self._transfer(request, value)
            elif meaning == EXPECT:
                if value.lower() != b"100-continue":
                    raise ExpectationFailed("an expectation other than 100-continue")
                request.expect = request.minor == 1
            elif meaning == TYPE:
                if seen & 1 << TYPE:
                    raise BadRequest("more than one Content-Type")
            elif meaning == UPGRADE:
                request.upgrade = value
            seen |= 1 << meaning
        host = request.host
        if host not in self._hosts:
            self._check_host(request, bool(seen & 1 << HOST))
        if request.uri[0] != "/":
            self._absolute(request)
        if not request.length:
            request.expect = False

    def _connection(self, request: Request, value: bytes, seen: int) -> int:
        """CLOSE once any of the fields says so, else 0: that wins over keep-alive, in whatever order they come."""
        options = {option.strip(b" \t") for option in value.lower().split(b",")}
        if b"close" in options or seen & CLOSE:
            request.keep_alive = False
            return CLOSE
        if b"keep-alive" in options and request.minor == 0:
            request.keep_alive = True
        return 0

    def _length(self, value: bytes) -> int:
        if not value.isdigit():
            raise BadRequest("Content-Length is not a number")
        limit = self._limits.body
        if len(value) > MAX_LENGTH_DIGITS or (limit and int(value) > limit):
            raise BodyTooLarge(f"the body is longer than {limit} bytes")
        return int(value)

    def _transfer(self, request: Request, value: bytes) -> int:
        if request.minor == 0:
            raise BadRequest("Transfer-Encoding in HTTP/1.0")
        value = value.lower()
        if value == b"chunked":
            return CHUNKED
        *codings, last = [coding.strip(b" \t") for coding in value.split(b",")]
        if last == b"chunked" and all(coding in CODINGS for coding in codings):
            raise MethodNotSupported(f"transfer coding {value.decode('latin-1')!r} is not understood")
        raise BadRequest("Transfer-Encoding is not chunked")

    def _check_host(self, request: Request, present: bool) -> None:
        if not present:
            if request.minor:
                raise BadRequest("no Host")
            return
        if request.host and not scan.is_host(request.host):
            raise BadRequest("Host is malformed")
        if 0 < len(request.host) <= HOST_BYTES:  # an empty Host is lawful, but none at all looks the same here
            if len(self._hosts) >= REMEMBERED:
                self._hosts.clear()
            self._hosts.add(request.host)

    def _absolute(self, request: Request) -> None:
        found = scan.ABSOLUTE.fullmatch(request.uri.encode("ascii"))
        if found is None:  # `OPTIONS *`
            return
        request.host = found[1]  # whatever Host said (RFC 9112 section 3.2.2)
        request.path, _, request.query = found[2].decode("ascii").partition("?")
        request.path = request.path or "/"
