"""WSGI (PEP 3333): environ in, start_response and the iterable out.

`Gateway` makes environs and calls the application; `Response` is one answer: it checks what the application says,
decides the framing and writes to a sink. Whatever the application does, the bytes on the wire are a well-formed
response or an aborted one: too few bytes end the connection, too many are cut, an exception becomes a 500 or an abort.
"""

import os
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol
from urllib.parse import unquote_to_bytes

from sdserve import SERVER_SOFTWARE
from sdserve.gateway.forwarded import Forwarding
from sdserve.http.errors import BadRequest, HTTPError, InvalidResponse
from sdserve.http.request import CHUNKED, Request
from sdserve.http.response import NO_BODY, Head, HeadWriter
from sdserve.log import Logger

Environ = dict[str, Any]
ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None] | None
WSGIApp = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]


# Every environ has these; a connection's own part keeps a place for them.
PER_REQUEST = ["REQUEST_METHOD", "SERVER_PROTOCOL", "RAW_URI", "REQUEST_URI", "QUERY_STRING", "PATH_INFO", "wsgi.input"]
SPARE = 6  # makes the table the next size: room for some twenty headers


class ClientGone(ConnectionError):
    """The reader of a response has gone, or reads nothing any more."""


class Sink(Protocol):
    """Where a response goes. Both methods raise ClientGone."""

    def send(self, data: bytes) -> None: ...

    def send_file(self, fd: int, offset: int, count: int) -> None:
        """Sends `count` bytes of `fd` from `offset`; the descriptor may be closed as soon as this returns."""


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
        """(descriptor, offset, bytes) when this is a regular file, else None."""
        try:
            fd = self.file.fileno()
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode):
                return None
            offset = self.file.tell()
        except (AttributeError, OSError, ValueError):
            return None
        return fd, offset, max(0, found.st_size - offset)


@dataclass(frozen=True)
class Terms:
    """What the configuration says about environs. `header_map`: drop, refuse or dangerous; `forwarder`: the headers
    with underscores in their names that a trusted proxy may send, in capitals."""

    multithread: bool = False
    multiprocess: bool = True
    script_name: str = ""
    header_map: str = "drop"
    forwarder: frozenset[str] = frozenset(("SCRIPT_NAME", "PATH_INFO"))
    errors: Any = field(default_factory=lambda: sys.stderr)


class Gateway:
    """Calls one application. `open` is False once the worker retires: every answer then closes its connection."""

    def __init__(self, app: WSGIApp, writer: HeadWriter, forwarding: Forwarding, terms: Terms, log: Logger) -> None:
        self.app = app
        self.writer = writer
        self.open = True
        self.log = log
        self._forwarding = forwarding
        self._terms = terms
        # Each spelling of a header name and its key; names that need a second look are never in it. Bounded.
        self._keys: dict[bytes, str] = {}

    def connection_environ(self, server: tuple[str, str], peer: tuple[str, str]) -> Environ:
        """What all environs of one connection have in common; `server` and `peer` are (address, port)."""
        terms = self._terms
        environ: Environ = {
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.errors": terms.errors,
            "wsgi.multithread": terms.multithread,
            "wsgi.multiprocess": terms.multiprocess,
            "wsgi.run_once": False,
            "wsgi.file_wrapper": FileWrapper,
            "wsgi.input_terminated": True,
            "SERVER_SOFTWARE": SERVER_SOFTWARE,
            "SERVER_NAME": server[0],
            "SERVER_PORT": server[1],
            "SCRIPT_NAME": terms.script_name,
            "REMOTE_ADDR": peer[0],
        }
        if peer[1]:
            environ["REMOTE_PORT"] = peer[1]
        # Copies are made for every request. What each of them gets has its place already, and the table is made to grow
        # here, with keys that go again, so that a copy does not grow when headers are added.
        environ |= dict.fromkeys(PER_REQUEST, "")
        spare = dict.fromkeys(map(str, range(SPARE)))
        environ |= spare
        for key in spare:
            del environ[key]
        return environ

    def environ(self, base: Environ, request: Request, trusted: bool) -> Environ:
        """The environ of one request, without wsgi.input. Raises BadRequest."""
        environ = base.copy()
        environ["REQUEST_METHOD"] = request.method
        environ["SERVER_PROTOCOL"] = "HTTP/1.1" if request.minor else "HTTP/1.0"
        environ["RAW_URI"] = environ["REQUEST_URI"] = request.uri
        environ["QUERY_STRING"] = request.query
        path = request.path
        environ["PATH_INFO"] = unquote_to_bytes(path).decode("latin-1") if "%" in path else path
        keys = self._keys
        second_look = False
        for name, value in request.fields:
            key = keys.get(name)
            if key is None:
                key = self._key(name, trusted)
                if not key:
                    continue
                second_look = True
            if key in environ:
                if key in base:
                    environ[key] = value.decode("latin-1")  # SCRIPT_NAME or PATH_INFO of a trusted forwarder
                else:
                    joint = "; " if key == "HTTP_COOKIE" else ","
                    environ[key] = f"{environ[key]}{joint}{value.decode('latin-1')}"
            else:
                environ[key] = value.decode("latin-1")
        if second_look and trusted:
            self._forwarding.apply(environ)
        if environ["SCRIPT_NAME"]:
            self._mount(environ)
        if request.uri[0] != "/" and request.host:
            environ["HTTP_HOST"] = request.host.decode("latin-1")
        return environ

    def _key(self, name: bytes, trusted: bool) -> str:
        """The environ key of a header, "" for one to be left out."""
        text = name.decode("ascii").upper()
        if "_" in text:
            # `X_Forwarded_For` would share its key with `X-Forwarded-For` and could stand in for it.
            if trusted and text in self._terms.forwarder:
                return text if text in ("SCRIPT_NAME", "PATH_INFO") else "HTTP_" + text
            if self._terms.header_map == "refuse":
                raise BadRequest(f"header {text} has an underscore in its name")
            if self._terms.header_map == "drop":
                return ""
        key = text.replace("-", "_")
        if key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            key = "HTTP_" + key
        if key not in self._forwarding.keys and len(self._keys) < 1000 and "_" not in text:
            self._keys[name] = key
        return key

    def _mount(self, environ: Environ) -> None:
        prefix = environ["SCRIPT_NAME"]
        path = environ["PATH_INFO"]
        if path != prefix and not path.startswith(prefix.rstrip("/") + "/"):
            raise BadRequest(f"the path is outside of SCRIPT_NAME {prefix!r}")
        environ["PATH_INFO"] = path[len(prefix) :]

    def call(self, environ: Environ, response: "Response") -> None:
        """Runs the application for one request and answers, whatever happens. Never raises an application's error."""
        result: Any = None
        try:
            result = self.app(environ, response.start_response)
            response.send_result(result)
        except BaseException as error:  # noqa: BLE001 - nothing that an application raises may end the worker
            self._failed(environ, response, error)
        if type(result) is not list and hasattr(result, "close"):
            try:
                result.close()
            except BaseException as error:  # noqa: BLE001 - as above
                self._failed(environ, response, error)

    def _failed(self, environ: Environ, response: "Response", error: BaseException) -> None:
        response.keep_alive = False
        what = f"{environ['REQUEST_METHOD']} {environ['RAW_URI']}"
        if isinstance(error, ClientGone):
            self.log.debug("%s: the client went away: %s", what, error)
            response.broken = True
            return
        if isinstance(error, HTTPError):  # the request's body, read by the application, was at fault
            self.log.info("%s: %s", what, error)
            answer = self.writer.error(error)
        else:
            self.log.error("Error handling request %s", what, exc_info=error)
            answer = self.writer.plain(500, "Internal Server Error", body=environ["REQUEST_METHOD"] != "HEAD")
        if response.head_sent:
            response.broken = not response.complete
            return
        response.fail(answer, error.status if isinstance(error, HTTPError) else 500)


class Response:
    """One answer. `keep_alive` and `broken` say what must become of the connection afterwards."""

    _head: Head | None = None
    _left = -1  # bytes that Content-Length still promises, -1: no promise
    _bodyless = False
    broken = False  # the answer is cut short: the connection must be aborted
    complete = False
    chunked = False
    head_sent = False
    sent = 0
    status = ""
    headers: Sequence[tuple[str, str]] = ()

    def __init__(self, gateway: Gateway, sink: Sink, request: Request) -> None:
        self._gateway = gateway
        self._sink = sink
        self._request = request
        self.keep_alive = request.keep_alive

    @property
    def headers_sent(self) -> bool:
        return self.head_sent

    @property
    def response_length(self) -> int | None:
        return self._head.length if self._head and self._head.length >= 0 else None

    @property
    def status_code(self) -> int:
        return self._head.code if self._head else int(self.status[:3] or 0)

    def start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: ExcInfo = None
    ) -> Callable[[bytes], None]:
        if exc_info is not None:
            try:
                if self.head_sent:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None  # no cycle through the traceback
        elif self._head is not None:
            raise AssertionError("start_response was called twice without exc_info")
        self._head = self._gateway.writer.head(status, headers)
        self.status = status
        self.headers = headers
        return self.write

    def send_result(self, result: Iterable[bytes]) -> None:
        """Sends what the application returned. Raises what iterating it raises, InvalidResponse, ClientGone."""
        kind = type(result)
        if (kind is list or kind is tuple) and not self.head_sent:
            body = result[0] if len(result) == 1 else b"".join(result)  # type: ignore[index,arg-type]
            if type(body) is not bytes:
                raise TypeError(f"the application returned {type(body).__name__}, not bytes")
            if self._head is not None and self._head.length == len(body) and self.keep_alive:
                self._usual(body)
            else:
                self._whole(body)
            return
        if kind is FileWrapper and not self.head_sent:
            region = result.region()  # type: ignore[attr-defined]
            if region is not None:
                self._file(*region)
                return
        only = _single(result)
        for piece in result:
            if only and not self.head_sent and self._head is not None and type(piece) is bytes:
                self._whole(piece)
                return
            self.write(piece)
            if self._bodyless:
                break  # nothing of the rest would be sent
        self._finish()

    def write(self, data: bytes) -> None:
        """PEP 3333's write(), and one piece of an iterable."""
        if not isinstance(data, bytes):
            raise TypeError(f"the application returned {type(data).__name__}, not bytes")
        if self._head is None:
            raise InvalidResponse("the application did not call start_response before it sent data")
        if not data:
            return
        head = b"" if self.head_sent else self._start(-1)
        if self._bodyless:
            data = b""
        elif self._left >= 0:
            data = self._bounded(data)
        if self.chunked and data:
            self._sink.send(b"%b%x\r\n%b\r\n" % (head, len(data), data))
        elif head or data:
            self._sink.send(head + data if head else data)
        self.sent += len(data)

    def _usual(self, body: bytes) -> None:
        """What most answers are: whole, of the length that was said. Does what `_whole` does, in one go."""
        head, request, gateway = self._head, self._request, self._gateway
        assert head is not None
        if not body or head.close or head.dated or head.served or not (gateway.open and request.minor):
            self._whole(body)
            return
        if head.code in NO_BODY or request.method == "HEAD":
            self._whole(body)
            return
        self.head_sent = True
        size = self.sent = len(body)
        self._sink.send(b"%bContent-Length: %d\r\n%b\r\n%b" % (head.start, size, gateway.writer.signature, body))
        self.complete = True

    def _whole(self, body: bytes) -> None:
        """The complete body is known: one head, one write."""
        head = self._start(len(body))
        if self._bodyless:
            body = b""
        elif self._left != len(body):
            body = self._bounded(body)
        else:
            self._left = 0
        self._sink.send(head + body)
        self.sent = len(body)
        self._end()

    def _start(self, total: int) -> bytes:
        """The head's bytes; `total` is the body's length if it is known, else -1. Decides framing and persistence."""
        head = self._head
        if head is None:
            raise InvalidResponse("the application did not call start_response")
        request = self._request
        length = head.length
        if head.code in NO_BODY:
            self._bodyless = True
            framing = b"Content-Length: %d\r\n" % length if head.code == 304 and length >= 0 else b""
        else:
            self._bodyless = request.method == "HEAD"
            if length < 0 and not (self._bodyless and not total):
                length = total
            if length >= 0:
                self._left = length
                framing = b"Content-Length: %d\r\n" % length
            elif self._bodyless:
                framing = b""
            elif request.minor:
                self.chunked = True
                framing = b"Transfer-Encoding: chunked\r\n"
            else:
                self.keep_alive = False
                framing = b""
        if head.close or not self._gateway.open:
            self.keep_alive = False
        if not self.keep_alive:
            framing += b"Connection: close\r\n"
        elif not request.minor:
            framing += b"Connection: keep-alive\r\n"
        self.head_sent = True
        return self._gateway.writer.framed(head, framing)

    def _bounded(self, data: bytes) -> bytes:
        """What of `data` Content-Length allows."""
        if len(data) > self._left:
            self._gateway.log.warning(
                "%s %s: the application sent more than its Content-Length; the rest is cut",
                *(self._request.method, self._request.uri),
            )
            data = data[: self._left]
        self._left -= len(data)
        return data

    def _file(self, fd: int, offset: int, count: int) -> None:
        head = self._start(count)
        if self._bodyless:
            count = 0
        elif self._left < count:
            count = self._left
        self._sink.send(head)
        if count:
            self._sink.send_file(fd, offset, count)
        self.sent = count
        if not self._bodyless:
            self._left -= count
        self._end()

    def _finish(self) -> None:
        if not self.head_sent:
            self._whole(b"")
            return
        if self.chunked:
            self._sink.send(b"0\r\n\r\n")
        self._end()

    def _end(self) -> None:
        self.complete = True
        if self._left > 0 and not self._bodyless:
            self._gateway.log.warning(
                "%s %s: the application sent %d bytes less than its Content-Length; the connection is closed",
                *(self._request.method, self._request.uri, self._left),
            )
            self.keep_alive = False
            self.broken = True

    def fail(self, answer: bytes, status: int) -> None:
        """Sends a ready-made answer instead of the application's."""
        self.status = answer[9:].partition(b"\r\n")[0].decode("ascii")
        self._head = Head(status)
        self.headers = []
        self.head_sent = self.complete = True
        try:
            self._sink.send(answer)
        except ClientGone:
            self.broken = True


def _single(result: Any) -> bool:
    """PEP 3333: an iterable of length 1 is the whole body."""
    try:
        return len(result) == 1
    except TypeError:
        return False


def set_body(environ: Environ, request: Request, body: Any, size: int) -> None:
    """Gives the application a body that was read to its end. A chunked one becomes one of known length.

    Frameworks that read CONTENT_LENGTH bytes and know nothing of wsgi.input_terminated then see chunked bodies too.
    """
    environ["wsgi.input"] = body
    if request.length == CHUNKED:
        environ.pop("HTTP_TRANSFER_ENCODING", None)
        environ["CONTENT_LENGTH"] = str(size)


class ErrorStream:
    """wsgi.errors: text goes where the error log goes, unchanged."""

    def __init__(self, log: Logger) -> None:
        self._log = log

    def write(self, text: str) -> int:
        for handler in self._log.error_log.handlers:
            stream = getattr(handler, "stream", None)
            if stream is not None:
                stream.write(text)
                stream.flush()
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Nothing is held back."""
