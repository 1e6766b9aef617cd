"""The access log has one line for each request, whatever became of it: answered, refused, or never completed."""

import re
import socket
from collections.abc import Iterator

import pytest

from tests.support.load import get, until_closed
from tests.support.server import Server, connector

FORMAT = '|%(h)s "%(r)s" %(s)s %(b)s "%(f)s" "%(a)s" %(zz)s|'
OPTIONS = (
    "--limit-request-body",
    "1000",
    "--header-timeout",
    "0.3",
    "--body-min-rate",
    "100",
    "--header-map",
    "refuse",
)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server("-b", "127.0.0.1:0", "--access-logfile", "-", "--access-logformat", FORMAT, *OPTIONS, "web") as server:
        server.wait_ready()
        yield server


def address(server: Server) -> tuple[str, int]:
    found = server.wait_log(r"127\.0\.0\.1:(\d+)")
    return "127.0.0.1", int(found[1])


def send(server: Server, data: bytes) -> bytes:
    with socket.create_connection(address(server), timeout=15) as sock:
        sock.sendall(data)
        return until_closed(sock)


AGENT = b"Host: a\r\nUser-Agent: curl\r\n"


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b"GET / HTTP/1.1\r\n" + AGENT + b"Host: b\r\n\r\n", r'"GET / HTTP/1.1" 400 16 "-" "curl" -'),
        (b"GET /\x01 HTTP/1.1\r\n" + AGENT + b"\r\n", r'"GET /\x01 HTTP/1.1" 400 16 "-" "curl" -'),
        (b"GET /%s HTTP/1.1\r\n" % (b"a" * 9000), f'"GET /{"a" * 2040}..." 414 17 "-" "-" -'),
        (b"GET / HTTP/2.0\r\n" + AGENT + b"\r\n", '"GET / HTTP/2.0" 505 31 "-" "curl" -'),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", r'"\x16\x03\x01\x02\x00\x01\x00\x01\xfc" 400 16 "-" "-" -'),
        (b"GET /slow HTTP/1.1\r\n" + AGENT, '"GET /slow HTTP/1.1" 408 20 "-" "curl" -'),
        (
            b"POST /echo HTTP/1.1\r\n" + AGENT + b"Content-Length: 1001\r\n\r\n",
            '"POST /echo HTTP/1.1" 413 22 "-" "curl" -',
        ),
        (
            b"POST /echo HTTP/1.1\r\n" + AGENT + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n",
            '"POST /echo HTTP/1.1" 400 16 "-" "curl" -',
        ),
        (
            b"POST /echo HTTP/1.1\r\n" + AGENT + b"Content-Length: 900\r\n\r\nx",
            '"POST /echo HTTP/1.1" 408 20 "-" "curl" -',
        ),
        (
            b"GET /ok HTTP/1.1\r\n" + AGENT + b"X_A: 1\r\n\r\n",
            '"GET /ok HTTP/1.1" 400 16 "-" "curl" -',
        ),
    ],
    ids=[
        "two hosts",
        "a control",
        "too long",
        "HTTP/2.0",
        "TLS",
        "slow head",
        "large",
        "chunk",
        "slow body",
        "underscore",
    ],
)
def test_a_refused_request_is_on_record_with_what_is_known_of_it(server: Server, data: bytes, line: str) -> None:
    mark = server.mark
    status = line.split('" ')[1][:3]
    assert send(server, data).startswith(f"HTTP/1.1 {status} ".encode())
    server.wait_log(re.escape(f"|127.0.0.1 {line}|"), since=mark)
    get(connector(address(server)), "/hello")
    server.wait_log(r'"GET /hello HTTP/1.1"', since=mark)
    assert len(re.findall(r"^\|.*\|$", server.log[mark:], re.MULTILINE)) == 2


def test_what_is_no_atom_is_said_once_at_the_start(server: Server) -> None:
    server.wait_log(r"access_log_format: %\(zz\)s is not an atom")
    assert server.log.count("is not an atom") == 1


@pytest.mark.parametrize("app", ["plain:application", "plain_asgi"])
def test_a_refused_request_has_lasted_since_it_came(app: str) -> None:
    """And not since its connection did."""
    options = ("--access-logfile", "-", "--access-logformat", "took %(D)s of %(s)s")
    with Server("-b", "127.0.0.1:0", *options, app) as server:
        server.wait_ready()
        with socket.create_connection(address(server), timeout=15) as sock:
            sock.sendall(b"GET /sleep/0.5 HTTP/1.1\r\nHost: a\r\n\r\n")
            assert sock.recv(65536).startswith(b"HTTP/1.1 200 ")
            sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
            assert until_closed(sock).startswith(b"HTTP/1.1 400 ")
        assert int(server.wait_log(r"took (\d+) of 200")[1]) >= 500_000
        assert int(server.wait_log(r"took (\d+) of 400")[1]) < 250_000
