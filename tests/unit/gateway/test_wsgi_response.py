"""From what an application says to bytes: framing, persistence, and everything that can be wrong."""

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from sdserve.gateway.response import Response
from sdserve.gateway.wsgi import Gateway
from sdserve.http.limits import Limits
from sdserve.http.request import Request, RequestReader
from sdserve.http.response import HeadWriter
from sdserve.http.writer import ClientGone
from sdserve.log import Logger

LOG = Logger("-", None, "critical")


class Wire:
    """A sink that remembers; `gone` makes it a client that has left."""

    def __init__(self, gone: bool = False, full: bool = False) -> None:
        self.data = b""
        self.left = gone
        self.full = full

    def gone(self, quiet: float) -> bool:
        return self.left

    def send(self, data: bytes) -> None:
        if self.left:
            raise ClientGone("gone")
        self.data += data

    def send_parts(self, parts: Sequence[bytes], *, whole: bool) -> None:
        self.send(b"".join(parts))

    def send_file(self, head: bytes, fd: int, offset: int, count: int) -> None:
        with open(fd, "rb", closefd=False) as file:
            file.seek(offset)
            self.send(head + file.read(count))


def read(data: bytes) -> Request:
    return RequestReader(Limits()).read(data)


GET = read(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
HEAD = read(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")
OLD = read(b"GET / HTTP/1.0\r\n\r\n")
OLD_KEPT = read(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")


def gateway(app: Callable[..., Any]) -> Gateway:
    writer = HeadWriter("test")
    writer.clock(1.0)
    return Gateway(app, writer, LOG)


def respond(app: Callable[..., Any], request: Request = GET, wire: Wire | None = None) -> tuple[bytes, bytes, Response]:
    """(head, body, response) of one call."""
    wire = wire or Wire()
    gate = gateway(app)
    response = Response(gate, wire, request)
    gate.call({"REQUEST_METHOD": request.method, "RAW_URI": "/"}, response)
    head, _, body = wire.data.partition(b"\r\n\r\n")
    return head, body, response


def saying(result: Any, status: str = "200 OK", headers: Any = ()) -> Callable[..., Any]:
    def app(environ: dict[str, Any], start_response: Any) -> Any:
        start_response(status, list(headers))
        return result

    return app


LENGTH = [("Content-Length", "5")]


@pytest.mark.parametrize("headers", [(), LENGTH])
@pytest.mark.parametrize("result", [[b"hello"], (b"hello",), [b"he", b"llo"], [b"", b"hello", b""]])
def test_a_list_has_a_length(result: Any, headers: Any) -> None:
    head, body, response = respond(saying(result, headers=headers))
    assert body == b"hello"
    assert head.count(b"Content-Length: 5") == 1
    assert response.keep_alive
    assert response.sent == 5


def test_an_iterator_is_chunked_and_empty_pieces_are_not_its_end() -> None:
    head, body, response = respond(saying(iter([b"he", b"", b"llo"])))
    assert b"Transfer-Encoding: chunked" in head
    assert body == b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"
    assert response.keep_alive


def test_an_iterator_with_a_length_is_not_chunked() -> None:
    head, body, _ = respond(saying(iter([b"he", b"llo"]), headers=LENGTH))
    assert b"chunked" not in head
    assert body == b"hello"


def test_http_1_0_ends_with_the_connection() -> None:
    head, body, response = respond(saying(iter([b"he", b"llo"])), OLD_KEPT)
    assert body == b"hello"
    assert b"Connection: close" in head
    assert not response.keep_alive
    head, _, response = respond(saying([b"hello"]), OLD_KEPT)
    assert b"Connection: keep-alive" in head
    assert response.keep_alive
    head, _, response = respond(saying([b"hello"]), OLD)
    assert b"Connection: close" in head


@pytest.mark.parametrize("result", [[b"hello"], iter([b"he", b"llo"])])
def test_head_has_no_body(result: Any) -> None:
    head, body, response = respond(saying(result, headers=LENGTH), HEAD)
    assert body == b""
    assert b"Content-Length: 5" in head
    assert response.keep_alive
    assert not response.broken


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_statuses_without_body(status: str) -> None:
    head, body, response = respond(saying([b"hello"], status))
    assert body == b""
    assert b"Content-Length" not in head
    assert b"Transfer-Encoding" not in head
    assert response.keep_alive
    assert (b"Content-Length: 5" in respond(saying([], status, LENGTH))[0]) == (status[:3] == "304")


def test_connection_fields_are_the_servers() -> None:
    fields = [("Connection", "close"), ("Transfer-Encoding", "chunked"), ("Keep-Alive", "x"), ("Upgrade", "y")]
    head, body, response = respond(saying([b"hello"], headers=fields))
    assert head.lower().count(b"connection: close") == 1
    assert b"chunked" not in head
    assert b"Keep-Alive" not in head
    assert body == b"hello"
    assert not response.keep_alive


def test_date_and_server_are_ours_unless_the_application_has_its_own() -> None:
    head, _, _ = respond(saying([b"hello"], headers=[("Server", "mine"), ("Date", "now")]))
    assert head.count(b"Server: ") == head.count(b"Date: ") == 1
    assert b"Server: mine\r\nDate: now" in head
    head, _, _ = respond(saying([b"hello"]))
    assert head.count(b"Server: test") == head.count(b"Date: ") == 1


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        ("200 OK\r\nA: b", []),
        ("OK", []),
        ("99 Low", []),
        ("101 Switching Protocols", []),
        (200, []),
        (b"200 OK", []),
        ("200 OK", [("A", "b\nc")]),
        ("200 OK", [("A", "b\x00")]),
        ("200 OK", [("A\r\nB", "c")]),
        ("200 OK", [("A B", "c")]),
        ("200 OK", [("", "c")]),
        ("200 OK", [("A", b"c")]),
        ("200 OK", [("A", 5)]),
        ("200 OK", [("A", "\u20ac")]),
        ("200 OK", [("A",)]),
        ("200 OK", [None]),
        ("200 OK", [("Content-Length", "5"), ("Content-Length", "6")]),
        ("200 OK", [("Content-Length", "-1")]),
        ("200 OK", [("Content-Length", "\u0665")]),
    ],
)
def test_what_cannot_be_sent_becomes_a_500(status: Any, headers: Any) -> None:
    for _ in range(2):
        head, body, response = respond(saying([b"hello"], status, headers))
        assert head.startswith(b"HTTP/1.1 500 ")
        assert body == b"500 Internal Server Error\n"
        assert not response.keep_alive
        assert response.status_code == 500


@pytest.mark.parametrize("result", [["hello"], "hello", [bytearray(b"hello")], [5], None, iter([b"", "x"]), 5])
def test_what_is_no_body_becomes_a_500(result: Any) -> None:
    assert respond(saying(result))[0].startswith(b"HTTP/1.1 500 ")


def test_start_response_may_be_called_again_only_with_an_error() -> None:
    def twice(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        start_response("200 OK", [])
        return [b""]

    assert respond(twice)[0].startswith(b"HTTP/1.1 500 ")

    def replaced(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        try:
            raise KeyError
        except KeyError as error:
            start_response("502 Bad", [("A", "b")], (type(error), error, error.__traceback__))
        return [b"bad"]

    head, body, _ = respond(replaced)
    assert head.startswith(b"HTTP/1.1 502 Bad\r\nA: b")
    assert body == b"bad"

    def too_late(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])(b"begun")
        try:
            raise KeyError
        except KeyError as error:
            start_response("502 Bad", [], (type(error), error, error.__traceback__))
        return [b"never"]

    _, body, response = respond(too_late)
    assert body == b"5\r\nbegun\r\n"
    assert response.broken


def test_an_iterable_is_closed_whatever_happens() -> None:
    class Body:
        closed = 0

        def __init__(self, fails: bool) -> None:
            self.fails = fails

        def __iter__(self) -> Any:
            yield b"a"
            if self.fails:
                raise ValueError

        def close(self) -> None:
            Body.closed += 1

    for fails, wire in ((False, Wire()), (True, Wire()), (False, Wire(gone=True))):
        respond(saying(Body(fails)), wire=wire)
    assert Body.closed == 3


def test_a_client_that_has_gone_is_no_error_of_the_application() -> None:
    _, _, response = respond(saying([b"hello"]), wire=Wire(gone=True))
    assert response.broken
    assert response.status == "200 OK"


class Endless:
    """An iterable without an end; `asked` says how often it was asked for more."""

    asked = closed = 0

    def __iter__(self) -> "Endless":
        return self

    def __next__(self) -> bytes:
        self.asked += 1
        return b"ab"

    def close(self) -> None:
        self.closed += 1


@pytest.mark.parametrize("request_", [GET, HEAD])
def test_what_is_longer_than_its_content_length_is_asked_for_no_more_and_named_once(request_: Request) -> None:
    said: list[Any] = []
    result, wire = Endless(), Wire()
    gate = gateway(saying(result, headers=[("Content-Length", "5")]))
    gate.log = cast(Any, SimpleNamespace(warning=lambda *args: said.append(args)))
    response = Response(gate, wire, request_)
    gate.call({"REQUEST_METHOD": request_.method, "RAW_URI": "/"}, response)
    sent = wire.data.partition(b"\r\n\r\n")[2]
    assert (result.asked, sent, len(said)) == ((3, b"ababa", 1) if request_ is GET else (1, b"", 0))
    assert (result.closed, response.complete, response.keep_alive) == (1, True, True)


def test_write_beyond_content_length_is_named_once() -> None:
    said: list[Any] = []

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        write = start_response("200 OK", [("Content-Length", "5")])
        for _ in range(100):
            write(b"ab")
        return [b"more"]

    wire, gate = Wire(), gateway(app)
    gate.log = cast(Any, SimpleNamespace(warning=lambda *args: said.append(args)))
    gate.call({"REQUEST_METHOD": "GET", "RAW_URI": "/"}, Response(gate, wire, GET))
    assert wire.data.endswith(b"\r\n\r\nababa")
    assert len(said) == 1


def test_one_piece_that_is_none_is_no_empty_answer() -> None:
    class One:
        def __len__(self) -> int:
            return 1

        def __iter__(self) -> Any:
            return iter([None])

    assert respond(saying(One()))[0].startswith(b"HTTP/1.1 500 ")


def test_very_many_headers_are_sent_in_their_order() -> None:
    """And copied once: added one by one, they would take seconds."""
    headers = [(f"X-{number}", "v" * 50) for number in range(20000)]
    head = respond(saying([b"x"], headers=headers))[0].decode()
    assert [line for line in head.split("\r\n") if line.startswith("X-")] == [f"{name}: {v}" for name, v in headers]


class Emptying:
    """An answer that takes the environ apart, and fails."""

    def __init__(self, environ: dict[str, Any]) -> None:
        self.environ = environ
        self.closed = 0

    def __iter__(self) -> "Emptying":
        return self

    def __next__(self) -> bytes:
        self.environ.clear()
        raise KeyError("user")

    def close(self) -> None:
        self.closed += 1


def test_what_fails_is_told_of_the_request_and_not_of_what_the_application_made_of_its_environ() -> None:
    answers = []

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [])
        answers.append(Emptying(environ))
        return answers[0]

    head, _, response = respond(app)
    assert head.startswith(b"HTTP/1.1 500 ")
    assert (answers[0].closed, type(response.error)) == (1, KeyError)

    def pretends(environ: dict[str, Any], start_response: Any) -> Any:
        environ["REQUEST_METHOD"] = "GET"
        raise KeyError("user")

    head, body, _ = respond(pretends, HEAD)
    assert head.startswith(b"HTTP/1.1 500 ")
    assert body == b""
