"""Bad requests against the running server: the right status, once, a closed connection, the next client served.

Workers of both kinds have the same verdicts.
"""

import re
import socket
from collections.abc import Callable, Iterator

import pytest

from tests.support.load import until_closed
from tests.support.server import Server, answer, connector, free_port
from tests.unit.http.test_hostile import GOOD, ROWS

pytestmark = pytest.mark.once

Address = tuple[str, int]
SHORT = [pytest.param(*row[1:], id=row[0]) for row in ROWS if len(row[1]) < 150]
CASES = [pytest.param(*row[1:], id=row[0]) for row in ROWS]
HEADS = re.compile(rb"HTTP/1\.1 (\d{3}) ")


@pytest.fixture(scope="module", params=["web", "asgi_web"])
def address(request: pytest.FixtureRequest) -> Iterator[Address]:
    """Where one worker with one thread serves."""
    address = ("127.0.0.1", free_port())
    # A body limit that the rows exceed; the rest as it comes.
    with Server("-b", "{}:{}".format(*address), "--limit-request-body", "1048576", request.param) as server:
        server.wait_ready()
        yield address


def talk(address: Address, pieces: list[bytes]) -> bytes:
    """Sends the pieces, each after the one before was read; returns all that is answered until the server closes."""
    with socket.create_connection(address, timeout=20) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for number, piece in enumerate(pieces):
            if number:
                answer(address)  # one thread takes events in their order: what was sent before this was read before it
            try:
                sock.sendall(piece)
            except (BrokenPipeError, ConnectionResetError):
                break
        return until_closed(sock)


def statuses(data: bytes) -> list[int]:
    return [int(status) for status in HEADS.findall(data)]


@pytest.mark.parametrize(("data", "expected"), CASES)
def test_it_is_refused_and_nothing_behind_it_is_parsed(address: Address, data: bytes, expected: set[int]) -> None:
    got = talk(address, [data + GOOD])
    # A body is refused before the application is called, so there is one answer.
    assert len(statuses(got)) == 1
    assert statuses(got)[0] in expected
    assert b"Connection: close" in got
    assert b"Traceback" not in got
    assert answer(address).status == 200


@pytest.mark.parametrize(("data", "expected"), CASES)
def test_it_is_refused_as_a_pipelined_second_request(address: Address, data: bytes, expected: set[int]) -> None:
    got = statuses(talk(address, [GOOD + data + GOOD]))
    assert got[0] == 200
    assert len(got) == 2
    assert got[1] in expected


@pytest.mark.parametrize(("data", "expected"), SHORT)
def test_it_is_refused_at_every_split(address: Address, data: bytes, expected: set[int]) -> None:
    for at in range(1, len(data)):
        got = statuses(talk(address, [data[:at], data[at:]]))
        assert len(got) == 1, at
        assert got[0] in expected, at


def test_nothing_is_parsed_behind_connection_close(address: Address) -> None:
    last = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    assert statuses(talk(address, [GOOD + last + GOOD])) == [200, 200]
    assert statuses(talk(address, [b"GET / HTTP/1.0\r\n\r\n" + GOOD])) == [200]


def test_a_body_that_ends_before_its_end_is_aborted(address: Address) -> None:
    with socket.create_connection(address, timeout=20) as sock:
        sock.sendall(b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n")
        sock.shutdown(socket.SHUT_WR)
        assert not statuses(sock.recv(65536))


def test_http_1_9_is_answered_as_1_1(address: Address) -> None:
    last = b"Host: a\r\nConnection: close\r\n\r\n"
    assert statuses(talk(address, [b"GET / HTTP/1.9\r\n" + last])) == [200]


def test_headers_with_underscores_do_not_reach_the_application(address: Address) -> None:
    head = b"GET /environ HTTP/1.1\r\nHost: a\r\nX_Forwarded_For: 1.2.3.4\r\nContent_Length: 5\r\n"
    got = talk(address, [head + b"Connection: close\r\n\r\n"])
    assert statuses(got) == [200]
    assert b"1.2.3.4" not in got
    assert b"CONTENT_LENGTH" not in got


def test_a_proxy_that_contradicts_itself_is_refused(address: Address) -> None:
    head = b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Ssl: off\r\n\r\n"
    assert statuses(talk(address, [head])) == [400]


CONTRADICTION = b"Host: a\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Ssl: off\r\n"


@pytest.mark.parametrize("fields", [CONTRADICTION, b"", b"Host: a\r\nHost: b\r\n", b"Host: a\r\nX: " + b"x" * 300_000])
def test_the_refusal_of_head_has_no_body(address: Address, fields: bytes) -> None:
    """RFC 9110 section 9.3.2: what follows the head would be taken for the next answer."""
    head, _, body = talk(address, [b"HEAD / HTTP/1.1\r\n" + fields + b"\r\n"]).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 4")
    assert b"Content-Length: " in head
    assert body == b""


def test_a_flood_of_them_writes_a_few_lines(start: Callable[..., Server]) -> None:
    address = ("127.0.0.1", free_port())
    server = start("-b", "{}:{}".format(*address), "web").wait_ready()
    for _ in range(1000):
        assert statuses(talk(address, [b"GET / HTTP/1.1\r\n\r\n"])) == [400]
    assert answer(address).status == 200
    server.wait_log("400 Bad Request: no Host")
    assert server.log.count("400 Bad Request") < 200


@pytest.mark.parametrize(("request_", "status"), [("CONNECT a:1 HTTP/1.1", 501), ("GET / HTTP/2.0", 505)])
def test_what_is_a_clients_fault_is_no_error_of_the_server(
    start: Callable[..., Server], request_: str, status: int
) -> None:
    address = ("127.0.0.1", free_port())
    server = start("-b", "{}:{}".format(*address), "plain").wait_ready()
    with connector(address)() as sock:
        sock.sendall(f"{request_}\r\nHost: a\r\n\r\n".encode())
        assert sock.recv(100).startswith(f"HTTP/1.1 {status} ".encode())
    assert "[INFO]" in server.wait_log(f".* {status} .*")[0]
