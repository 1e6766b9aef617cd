"""What applications return, and what goes over the wire for it. The application is checked by wsgiref's validator."""

import http.client
import re
import socket
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import pytest

from tests.support.load import until_closed
from tests.support.server import APPS, Server, answer, connector, free_port

Address = tuple[str, int]


@pytest.fixture(scope="module", params=["1 thread", "4 threads", "ASGI"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One worker on a TCP and on a Unix socket."""
    port = free_port()
    path = tmp_path_factory.mktemp("http") / "socket"
    app = ["--asgi-sendfile", "asgi_web"] if request.param == "ASGI" else ["--threads", request.param[0], "web"]
    args = ["-b", f"127.0.0.1:{port}", "-b", f"unix:{path}", *app]
    with Server(*args) as server:
        server.wait_ready()
        server.address = ("127.0.0.1", port)  # type: ignore[attr-defined]
        server.path = str(path)  # type: ignore[attr-defined]
        server.asgi = request.param == "ASGI"  # type: ignore[attr-defined]
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[http.client.HTTPConnection]:
    host, port = server.address  # type: ignore[attr-defined]
    client = http.client.HTTPConnection(host, port, timeout=20)
    yield client
    client.close()


def ask(client: http.client.HTTPConnection, method: str, path: str, **kwargs: Any) -> http.client.HTTPResponse:
    client.request(method, path, **kwargs)
    return client.getresponse()


def raw(server: Server, data: bytes) -> bytes:
    """Everything that is answered until the server closes."""
    with socket.create_connection(server.address, timeout=20) as sock:  # type: ignore[attr-defined]
        sock.sendall(data)
        return until_closed(sock)


def next_body(stream: BinaryIO) -> bytes:
    """The body of the next response of several on one connection."""
    length, chunked = 0, False
    while (line := stream.readline().lower()) != b"\r\n":
        assert line, "the server closed"
        name, _, value = line.partition(b":")
        if name == b"content-length":
            length = int(value)
        chunked = chunked or (name == b"transfer-encoding" and value.strip() == b"chunked")
    body = stream.read(length)
    while chunked:
        size = int(stream.readline(), 16)
        body += stream.read(size)
        assert stream.readline() == b"\r\n"
        chunked = bool(size)
    return body


def test_one_connection_serves_every_kind(client: http.client.HTTPConnection) -> None:
    expected = {
        "/hello": b"hello",
        "/stream": b"0 1 2 3 4 ",
        "/write": b"one two three",
        "/file": (APPS / "web.py").read_bytes(),
        "/buffer": b"no file",
        "/nothing": b"",
        "/unchanged": b"",
    }
    client.connect()
    sock = client.sock
    for _ in range(2):
        for path, body in expected.items():
            response = ask(client, "GET", path)
            assert response.read() == body, path
            assert client.sock is sock, path
            assert re.fullmatch(r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT", response.headers["Date"])
            assert response.headers["Server"].startswith("sdserve/")


def test_head_has_no_body_and_the_length_of_get(client: http.client.HTTPConnection) -> None:
    for path in ("/hello", "/file", "/stream", "/write"):
        head = ask(client, "HEAD", path)
        assert head.read() == b""
        got = ask(client, "GET", path)
        got.read()
        assert head.headers["Content-Length"] == got.headers["Content-Length"], path


@pytest.mark.parametrize("path", ["/nothing", "/unchanged"])
def test_a_status_without_body_has_no_framing(server: Server, path: str) -> None:
    got = raw(server, f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
    head, _, body = got.partition(b"\r\n\r\n")
    assert body == b""
    assert b"Content-Length" not in head
    assert b"Transfer-Encoding" not in head


def test_bodies_by_length_and_by_chunks_are_the_same_to_the_application(client: http.client.HTTPConnection) -> None:
    body = bytes(range(256)) * 4000
    for kwargs in ({"body": body}, {"body": iter([body[:10], body[10:]]), "encode_chunked": True}):
        headers = {"Transfer-Encoding": "chunked"} if "encode_chunked" in kwargs else {}
        response = ask(client, "POST", "/echo", headers=headers, **kwargs)
        assert response.read() == body
        assert response.headers["X-Length"] == str(len(body))


@pytest.mark.parametrize("size", [0, 1, 16384, 16385, 3_000_000])
def test_answers_of_every_size_arrive_whole(client: http.client.HTTPConnection, size: int) -> None:
    for path in ("/echo", "/plain_echo"):
        body = b"0123456789abcde\n" * (size // 16) + b"x" * (size % 16)
        assert ask(client, "POST", path, body=body).read() == body


def test_a_body_that_nobody_reads_does_not_disturb_the_next_request(client: http.client.HTTPConnection) -> None:
    for _ in range(3):
        response = ask(client, "POST", "/ignore", body=b"GET /environ HTTP/1.1\r\n\r\n" * 10000)
        assert response.read() == b"hello"


def test_a_body_is_asked_for_when_it_is_waited_for(server: Server) -> None:
    with socket.create_connection(server.address, timeout=20) as sock:  # type: ignore[attr-defined]
        stream = sock.makefile("rb")
        head = b" HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
        for _ in range(3):
            sock.sendall(b"POST /echo" + head)
            assert stream.readline() == b"HTTP/1.1 100 Continue\r\n"
            assert stream.readline() == b"\r\n"
            assert answer(server.address).body == b"hello"  # type: ignore[attr-defined]  # no thread waits for it
            sock.sendall(b"hello")
            assert next_body(stream) == b"hello"
        sock.sendall(b"POST /echo" + head + b"hello")
        assert stream.readline() == b"HTTP/1.1 200 OK\r\n"  # who does not wait is not asked
        assert next_body(stream) == b"hello"
        sock.sendall(b"POST /ignore" + head)
        assert stream.readline() == b"HTTP/1.1 200 OK\r\n"  # nobody reads it, nobody asks for it
        assert next_body(stream) == b"hello"
        assert stream.read() == b""  # and what the client sends next could be anything


def test_a_body_is_not_asked_for_when_it_is_too_large(start: Callable[..., Server]) -> None:
    port = free_port()
    start("-b", f"127.0.0.1:{port}", "--limit-request-body", "4", "web").wait_ready()
    with connector(("127.0.0.1", port))() as sock:
        sock.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        assert sock.recv(100).startswith(b"HTTP/1.1 413 ")


def test_a_client_that_does_not_read_is_asked_for_the_body_when_it_does(server: Server) -> None:
    """Its 100 Continue waits behind answers that fill the buffers of the connection."""
    with connector(server.address)() as sock:  # type: ignore[attr-defined]
        stream = sock.makefile("rb")
        sock.sendall(b"GET /big?1 HTTP/1.1\r\nHost: a\r\n\r\n" * 8)
        sock.sendall(b"POST /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        for _ in range(8):
            assert len(next_body(stream)) == 1 << 20
        assert stream.readline() == b"HTTP/1.1 100 Continue\r\n"
        assert stream.readline() == b"\r\n"
        sock.sendall(b"hello")
        assert next_body(stream) == b"hello"


def test_http_1_0_is_closed_unless_it_asks(server: Server) -> None:
    got = raw(server, b"GET /stream HTTP/1.0\r\n\r\n")
    assert b"Transfer-Encoding" not in got
    assert got.endswith(b"\r\n\r\n0 1 2 3 4 ")
    got = raw(server, b"GET /hello HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /hello HTTP/1.0\r\n\r\n")
    assert got.count(b"200 OK") == 2
    assert got.count(b"Connection: keep-alive") == 1


def test_pipelined_requests_are_answered_in_order(server: Server) -> None:
    paths = ["/hello", "/stream", "/echo", "/file"] * 20
    data = b""
    for path in paths:
        body = b"12345" if path == "/echo" else b""
        data += f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    with connector(server.address)() as sock:  # type: ignore[attr-defined]
        sock.sendall(data)
        stream = sock.makefile("rb")
        for path in paths:
            assert len(next_body(stream)) == {"/hello": 5, "/stream": 10, "/echo": 5}.get(path, len(web()))


def web() -> bytes:
    return (APPS / "web.py").read_bytes()


def test_a_unix_socket_serves_too(server: Server) -> None:
    with connector(server.path)() as sock:  # type: ignore[attr-defined]
        sock.sendall(b"GET /environ HTTP/1.1\r\nHost: a\r\nX-Forwarded-Proto: https\r\n\r\n")
        response = http.client.HTTPResponse(sock)
        response.begin()
        lines = response.read().decode().splitlines()
    assert "wsgi.url_scheme=https" in lines  # whoever may open the file is trusted
    assert "REMOTE_ADDR=" in lines
    name = server.path if server.asgi else "a"  # type: ignore[attr-defined]
    assert f"SERVER_NAME={name}" in lines


def test_the_environ_is_pep_3333s(server: Server) -> None:
    got = raw(
        server,
        b"GET /environ?a=%20b HTTP/1.1\r\nHost: a:1\r\nX-A: 1\r\nX-A: 2\r\nCookie: a=1\r\nCookie: b=2\r\n"
        b"X-Forwarded-For: 6.6.6.6, 9.9.9.9\r\nConnection: close\r\n\r\n",
    )
    lines = got.decode().splitlines()
    for line in (
        *(
            "REQUEST_METHOD=GET",
            "PATH_INFO=/environ",
            "QUERY_STRING=a=%20b",
            "SERVER_PROTOCOL=HTTP/1.1",
            "SCRIPT_NAME=",
        ),
        *("HTTP_HOST=a:1", "HTTP_X_A=1,2", "HTTP_COOKIE=a=1; b=2", "wsgi.url_scheme=http", "REMOTE_ADDR=9.9.9.9"),
        "SERVER_NAME=127.0.0.1",
    ):
        assert line in lines, got
    assert f"SERVER_PORT={server.address[1]}" in lines  # type: ignore[attr-defined]


@pytest.mark.parametrize("path", ["/early", "/leave", "/bad_header", "/bad_status", "/mute"])
def test_an_application_that_fails_before_its_answer_gets_a_500(server: Server, path: str) -> None:
    mark = server.mark
    got = raw(server, f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    assert got.startswith(b"HTTP/1.1 500 ")
    assert b"forged" not in got
    assert b"Traceback" not in got
    server.wait_log(f"Error handling request GET {path}", since=mark)


def test_an_application_that_fails_during_its_answer_aborts_it(server: Server) -> None:
    mark = server.mark
    got = raw(server, b"GET /late HTTP/1.1\r\nHost: a\r\n\r\n")
    assert got.endswith(b"\r\n\r\n4\r\none \r\n")  # no last chunk
    server.wait_log("Error handling request GET /late", since=mark)
    with pytest.raises(ConnectionResetError):  # HTTP/1.0 has no other way to say that something is missing
        raw(server, b"GET /late HTTP/1.0\r\n\r\n")


def test_fewer_bytes_than_promised_close_the_connection(server: Server) -> None:
    mark = server.mark
    got = raw(server, b"GET /short HTTP/1.1\r\nHost: a\r\n\r\n")
    assert got.endswith(b"\r\n\r\nhello")
    server.wait_log("GET /short: the application sent 5 bytes less", since=mark)


def test_more_bytes_than_promised_are_cut(client: http.client.HTTPConnection, server: Server) -> None:
    mark = server.mark
    assert ask(client, "GET", "/long").read() == b"hello"
    assert ask(client, "GET", "/hello").read() == b"hello"
    server.wait_log("GET /long: the application sent more", since=mark)
