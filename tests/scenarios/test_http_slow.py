"""Slow clients cost a buffer and no thread, and only for as long as they are allowed to."""

import contextlib
import http.client
import json
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.load import until_closed
from tests.support.server import Server, answer, connector, free_port

pytestmark = pytest.mark.once

Address = tuple[str, int]
GET = b"GET /hello HTTP/1.1\r\nHost: a\r\n\r\n"


Kind = tuple[str, ...]
ASGI = ("asgi_web",)
BOTH = pytest.mark.parametrize("kind", [("web",), ASGI], ids=["WSGI", "ASGI"])
THREADS = [("--threads", count, "web") for count in ("1", "2")]
ALL = pytest.mark.parametrize("kind", [*THREADS, ASGI], ids=["1 thread", "2 threads", "ASGI"])


def serve(start: Callable[..., Server], kind: Kind, *args: str) -> tuple[Server, Address]:
    address = ("127.0.0.1", free_port())
    server = start("-b", "{}:{}".format(*address), *args, *kind)
    return server.wait_ready(), address


def peak_memory(pid: int) -> int:
    """The most memory that a process has had, in bytes (proc(5), VmHWM)."""
    status = Path(f"/proc/{pid}/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


@ALL
def test_half_open_requests_starve_nobody(start: Callable[..., Server], kind: Kind) -> None:
    _, address = serve(start, kind)
    heads = [b"", b"G", b"GET / HTTP/1.1\r\nHost", b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n1234"]
    open_ones = [connector(address)() for _ in range(8)]
    for number, sock in enumerate(open_ones):
        sock.sendall(heads[number % 4])
    for _ in range(20):
        assert answer(address, "/hello").body == b"hello"
    open_ones[3].sendall(b"56789")
    assert open_ones[3].recv(65536).startswith(b"HTTP/1.1 200 OK")


@BOTH
def test_a_head_that_does_not_arrive_gets_408(start: Callable[..., Server], kind: Kind) -> None:
    _, address = serve(start, kind, "--header-timeout", "0.5", "--keep-alive", "20")
    with connector(address)() as idle, connector(address)() as part, connector(address)() as second:
        second.sendall(GET)
        assert second.recv(65536).endswith(b"hello")
        part.sendall(GET[:20])
        second.sendall(GET[:20])
        assert until_closed(part).startswith(b"HTTP/1.1 408 ")
        assert until_closed(second).startswith(b"HTTP/1.1 408 ")
        assert until_closed(idle) == b""  # it asked for nothing


@BOTH
def test_a_byte_at_a_time_does_not_extend_the_time(start: Callable[..., Server], kind: Kind) -> None:
    _, address = serve(start, kind, "--header-timeout", "1")
    with connector(address)() as head, connector(address)() as body:
        body.sendall(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n")
        for sock in (head, body):
            sock.settimeout(0.05)
            began = time.monotonic()
            got = b""
            while not got and time.monotonic() - began < 30:
                try:
                    sock.sendall(b"a")
                    got = sock.recv(65536)
                except TimeoutError:
                    continue
            assert got.startswith(b"HTTP/1.1 408 ")


@BOTH
def test_an_idle_connection_is_closed_in_time(start: Callable[..., Server], kind: Kind) -> None:
    _, address = serve(start, kind, "--keep-alive", "0.4")
    with connector(address)() as sock:
        sock.sendall(GET)
        began = time.monotonic()
        assert b"Connection: close" not in until_closed(sock)
        assert time.monotonic() - began > 0.3


@BOTH
def test_without_keep_alive_each_answer_says_so(start: Callable[..., Server], kind: Kind) -> None:
    _, address = serve(start, kind, "--keep-alive", "0")
    with connector(address)() as sock:
        sock.sendall(GET)
        assert b"Connection: close\r\n" in until_closed(sock)


@BOTH
def test_a_connections_requests_can_be_limited(start: Callable[..., Server], kind: Kind) -> None:
    _, address = serve(start, kind, "--keepalive-requests", "3")
    with connector(address)() as sock:
        sock.sendall(GET * 5)
        got = until_closed(sock)
    assert got.count(b"200 OK") == 3
    assert got.count(b"Connection: close") == 1


@ALL
def test_readers_that_do_not_read_hold_up_nobody(start: Callable[..., Server], kind: Kind) -> None:
    server, address = serve(start, kind)
    (worker,) = server.workers
    before = peak_memory(worker.pid)
    lazy = [connector(address)() for _ in range(4)]
    for sock in lazy:
        sock.sendall(b"GET /big?20 HTTP/1.1\r\nHost: a\r\n\r\n")
    for _ in range(20):
        assert answer(address, "/hello").body == b"hello"
    for sock in lazy:
        response = http.client.HTTPResponse(sock)
        response.begin()
        size = 0
        while piece := response.read(1 << 20):
            assert piece == b"x" * len(piece)
            size += len(piece)
        assert size == 20 << 20
    assert peak_memory(worker.pid) - before < 30 << 20


@BOTH
def test_large_bodies_do_not_fill_the_memory(start: Callable[..., Server], kind: Kind) -> None:
    server, address = serve(start, kind)
    (worker,) = server.workers
    before = peak_memory(worker.pid)
    client = http.client.HTTPConnection(address[0], address[1], timeout=60)
    client.request(
        "POST",
        "/swallow" if kind is ASGI else "/ignore",
        body=(b"x" * 65536 for _ in range(1600)),
        headers={"Content-Length": "104857600"},
    )
    assert client.getresponse().read() == b"hello"
    client.request("GET", "/big?100")
    response = client.getresponse()
    size = 0
    while piece := response.read(1 << 20):
        size += len(piece)
    assert size == 100 << 20
    client.close()
    assert peak_memory(worker.pid) - before < 16 << 20


@pytest.mark.parametrize("sent", [b"GET / HTTP/1.1\r\nHo", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n1"])
@BOTH
def test_another_worker_does_not_extend_the_time(start: Callable[..., Server], kind: Kind, sent: bytes) -> None:
    """Half a request changes workers at each reload, and is refused when it would have been without."""
    server, address = serve(start, kind, "--header-timeout", "3", "--preload")
    with connector(address)() as sock:
        sock.sendall(sent)
        began = time.monotonic()
        sock.settimeout(0.01)
        got = b""
        while not got and time.monotonic() - began < 30:
            mark = server.mark
            server.kill(signal.SIGHUP)
            server.wait_log("Reloaded", since=mark)
            with contextlib.suppress(TimeoutError):
                got = sock.recv(65536)
        assert got.startswith(b"HTTP/1.1 408 ")


@ALL
def test_pipelined_requests_wait_as_bytes_and_hold_up_nobody(start: Callable[..., Server], kind: Kind) -> None:
    server, address = serve(start, kind)
    (worker,) = server.workers
    before = peak_memory(worker.pid)
    with connector(address)() as sock:
        sender = threading.Thread(target=sock.sendall, args=(GET * 10_000,))
        sender.start()
        for _ in range(20):
            assert answer(address, "/hello").body == b"hello"
        answers, end = 0, b""
        while answers < 10_000:
            data = end + sock.recv(65536)
            assert len(data) > len(end)
            answers += data.count(b"\r\n\r\nhello")
            end = data[-8:]  # one byte less than what is counted
        sender.join()
    assert answers == 10_000
    assert peak_memory(worker.pid) - before < 4 << 20


@pytest.mark.parametrize("threads", ["1", "4"])
def test_who_sends_one_request_at_a_time_waits_for_few_of_those_that_pipeline(
    start: Callable[..., Server], threads: str
) -> None:
    address = ("127.0.0.1", free_port())
    start("-b", "{}:{}".format(*address), "--threads", threads, "crowd").wait_ready()
    crowd = [connector(address)() for _ in range(30)]
    for sock in crowd:
        sock.sendall(b"GET /crowd HTTP/1.1\r\nHost: a\r\n\r\n" * 200)
    for sock in crowd:
        answers = b""
        while answers.count(b"\r\n\r\n") < 200:
            data = sock.recv(65536)
            assert data
            answers += data
    waits = json.loads(answer(address, "/waits").body)
    settled = sorted(waits[len(waits) // 2 :])  # all have come by then
    # Not of every one: on a crowded machine the kernel takes its time to bring a packet from one end to the other.
    assert len(settled) > 10 and settled[len(settled) * 3 // 4] <= 4, waits


@BOTH
def test_clients_that_pipeline_cost_a_buffer_each(start: Callable[..., Server], kind: Kind) -> None:
    """Requests that wait behind others are not read ahead: they wait in the socket, at their client's expense."""
    server, address = serve(start, kind)
    (worker,) = server.workers
    socks = [connector(address)() for _ in range(50)]
    for sock in socks:
        sock.setblocking(False)
    before = peak_memory(worker.pid)
    answered = 0
    while answered < 1 << 20:
        for sock in socks:
            with contextlib.suppress(BlockingIOError):
                sock.send(GET * 10_000)
            with contextlib.suppress(BlockingIOError):
                answered += len(sock.recv(1 << 20))
    assert peak_memory(worker.pid) - before < 50 * 65536 + (4 << 20)
