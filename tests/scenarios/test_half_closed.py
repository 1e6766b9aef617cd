"""A client that has said all it has to say shuts its sending half: what it asked for is answered all the same.

RFC 9112 section 9.3.2: a server must not take the end of the client's data for the end of the connection, when requests
that arrived whole are still to be answered.
"""

import os
import re
import socket
from collections.abc import Iterator

import pytest

from tests.support.load import until_closed
from tests.support.processes import Process
from tests.support.server import Server, connector

pytestmark = pytest.mark.once

APP = """
import time

def application(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/pieces":
        start_response("200 OK", [])
        return (b"%07d\\n" % number for number in range(500_000))
    if path == "/large":
        start_response("200 OK", [("Content-Length", "8000000")])
        return [b"x" * 8_000_000]
    if path == "/wait":
        time.sleep(1)
    body = path.encode() + environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""

ASGI = """
import asyncio

async def application(scope, receive, send):
    assert scope["type"] == "http"
    async def answer(pieces, *fields):
        await send({"type": "http.response.start", "status": 200, "headers": fields})
        for piece in pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body"})

    path, body, more = scope["path"], b"", True
    if path == "/pieces":
        return await answer(b"%0799d\\n" % number for number in range(5000))
    if path == "/large":
        return await answer([b"x" * 8_000_000], (b"Content-Length", b"8000000"))
    if path == "/wait":
        await asyncio.sleep(1)
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body, more = body + message["body"], message["more_body"]
    body = path.encode() + body
    await answer([body], (b"Content-Length", b"%d" % len(body)))
"""


@pytest.fixture(params=["TCP", "Unix", "TCP, threads", "TCP, ASGI", "Unix, ASGI"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("app")
    (directory / "app.py").write_text(ASGI if "ASGI" in request.param else APP)
    bind = f"unix:{directory}/s" if "Unix" in request.param else "127.0.0.1:0"
    threads = "4" if "threads" in request.param else "1"
    with Server("-b", bind, "--threads", threads, "-w", "1", "app", cwd=directory) as server:
        server.wait_ready()
        found = re.search(r"127\.0\.0\.1:(\d+)", server.log)
        server.connect = connector(("127.0.0.1", int(found[1])) if found else f"{directory}/s")  # type: ignore[attr-defined]
        yield server


def ask(server: Server, data: bytes) -> socket.socket:
    sock: socket.socket = server.connect()  # type: ignore[attr-defined]
    sock.sendall(data)
    sock.shutdown(socket.SHUT_WR)
    return sock


def rest(sock: socket.socket) -> bytes:
    with sock:
        return until_closed(sock)


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode()


def test_all_pipelined_requests_are_answered(server: Server) -> None:
    got = rest(ask(server, b"".join(get(f"/{number}") for number in range(100))))
    assert re.findall(rb"^/(\d+)", got.replace(b"HTTP/1.1 200", b"\nHTTP/1.1 200"), re.MULTILINE) == [
        b"%d" % number for number in range(100)
    ]


def test_a_request_that_came_with_a_body_before_the_end_is_answered(server: Server) -> None:
    post = b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 300000\r\n\r\n" + b"x" * 300_000
    chunked = b"POST /b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nxyz\r\n0\r\n\r\n"
    got = rest(ask(server, post + chunked + get("/c")))
    assert got.count(b"HTTP/1.1 200 OK") == 3
    assert b"\r\n\r\n/a" + b"x" * 300_000 in got and b"/bxyz" in got and got.endswith(b"/c")


@pytest.mark.parametrize(("path", "size"), [("/pieces", 4_000_000), ("/large", 8_000_000)])
def test_an_answer_that_is_longer_than_any_buffer_comes_whole(server: Server, path: str, size: int) -> None:
    got = rest(ask(server, get(path) + get("/next")))
    assert len(got) > size and b"HTTP/1.1 200 OK" in got
    assert got.endswith(b"/next")


def test_what_is_incomplete_at_the_end_is_dropped(server: Server) -> None:
    for half in (b"GET / HT", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhel", b"\r\n"):
        got = rest(ask(server, get("/whole") + half))
        assert got.count(b"HTTP/1.1 200 OK") == 1 and got.endswith(b"/whole")


def test_the_end_of_the_data_wakes_nobody_while_an_answer_is_under_way(server: Server) -> None:
    """It stays readable: whoever polled for it would spin. One answer waits for its client, one for the application."""
    worker = Process.of(server.pid).children[0]
    unread = ask(server, get("/large"))
    assert unread.recv(1)
    before = worker.ticks
    waiting = ask(server, get("/wait"))
    assert rest(waiting).endswith(b"/wait")  # a second later
    spent = (worker.ticks - before) / os.sysconf("SC_CLK_TCK")
    assert spent < 0.5, f"{spent} s of CPU time within a second of waiting"
    assert len(rest(unread)) > 7_999_000
