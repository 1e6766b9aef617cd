"""A body that arrives while the application reads it: what the call may touch while somebody waits for it."""

import socket
from collections.abc import Iterator
from contextlib import closing
from time import monotonic
from typing import Any, cast

import pytest

from sdserve.http.connection import Connection
from sdserve.http.limits import Limits, Times
from sdserve.http.request import RequestReader
from sdserve.workers.http.client import Client, Phase
from sdserve.workers.http.deadlines import Arrival
from sdserve.workers.wsgi.fiber import Fiber
from sdserve.workers.wsgi.input import Incoming, TooSlow

HEAD = b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n"


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        yield ours, theirs


def test_a_call_that_pauses_leaves_the_stream_to_its_resumer(pair: tuple[socket.socket, socket.socket]) -> None:
    """Were its phase another one before the loop has it back, the loop would handle it while its call is resumed."""
    ours, theirs = pair
    client = Client(ours, Connection(RequestReader(Limits()), Limits()), {}, ("", ""), cast(Any, None))
    client.conn.receive(HEAD)
    request = client.conn.next_request()
    assert request is not None
    client.phase = Phase.CALL
    incoming = Incoming(client, request, Arrival(Times(), monotonic()))
    got: list[bytes] = []
    fiber = incoming.fiber = Fiber()
    fiber.work = lambda: got.append(incoming.read(4) or b"")
    with closing(incoming):
        fiber.resume()
        assert (incoming.waits, client.phase, fiber.ended) == (True, Phase.CALL, False)
        theirs.sendall(b"body")
        fiber.resume()
        assert (incoming.waits, fiber.ended, got) == (False, True, [b"body"])


def test_a_body_that_is_too_slow_is_told_so_and_frameworks_know_that_reading_failed() -> None:
    error = TooSlow("the body is slower than it may be")
    assert isinstance(error, OSError) and (error.status, error.reason) == (408, "Request Timeout")
