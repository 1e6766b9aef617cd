"""Request bodies: small in memory, large on disk, awaited ones only when they are read."""

import os
import socket

import pytest

from sdserve.http.connection import Connection
from sdserve.http.errors import BadRequest, RequestTimedOut
from sdserve.http.limits import Limits, Times
from sdserve.http.request import RequestReader
from sdserve.workers.body import IN_MEMORY, AwaitedBody, Spool, too_slow
from sdserve.workers.stream import Stream


@pytest.mark.parametrize("size", [0, 10, IN_MEMORY, IN_MEMORY + 1, 3 * IN_MEMORY])
def test_a_body_is_read_back_as_it_came(size: int) -> None:
    before = set(os.listdir("/proc/self/fd"))
    data = os.urandom(size)
    spool = Spool()
    for at in range(0, size, 50_000):
        spool.append(data[at : at + 50_000])
    assert spool.size == size
    reader = spool.reader()
    assert reader.read(7) == data[:7]
    assert reader.read() == data[7:]
    assert (len(os.listdir("/proc/self/fd")) > len(before)) == (size > IN_MEMORY)
    spool.close()
    assert set(os.listdir("/proc/self/fd")) == before


def test_the_rate_counts_after_the_grace() -> None:
    times = Times(body_rate=100, body_grace=10)
    assert not too_slow(times, 0, 9)
    assert too_slow(times, 1000, 11)
    assert not too_slow(times, 1101, 11)
    assert not too_slow(Times(body_rate=0), 0, 1000)


def awaited(times: Times) -> tuple[AwaitedBody, socket.socket, list[str]]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.settimeout(20)
    conn = Connection(RequestReader(Limits()), Limits())
    conn.receive(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\nExpect: 100-continue\r\n\r\n")
    assert conn.next_request()
    arrived: list[str] = []
    return AwaitedBody(Stream(ours, conn, {}, "", 5), times, lambda: arrived.append("arrived")), theirs, arrived


def test_the_first_read_asks_and_waits() -> None:
    body, client, arrived = awaited(Times())
    client.setblocking(False)
    with pytest.raises(BlockingIOError):
        client.recv(100)
    client.setblocking(True)
    client.sendall(b"one\ntwo\nxx")
    assert body.readline() == b"one\n"
    assert client.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert list(body) == [b"two\n", b"xx"]
    assert body.read() == b""
    assert arrived == ["arrived"]
    client.close()


def test_a_client_that_is_asked_and_silent_is_timed_out() -> None:
    body, client, arrived = awaited(Times(body_rate=100, body_grace=0.2))
    with pytest.raises(RequestTimedOut):
        body.read()
    assert not arrived
    client.close()


def test_a_client_that_is_asked_and_leaves_is_noticed() -> None:
    body, client, _ = awaited(Times())
    client.sendall(b"12345")
    client.shutdown(socket.SHUT_WR)
    with pytest.raises(BadRequest):
        body.read()
    client.close()
