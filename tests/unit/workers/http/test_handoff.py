"""Connections change workers between two requests, or with a part of one: never one that the application was given."""

import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from sdserve.http.connection import Connection
from sdserve.http.limits import Limits
from sdserve.http.request import RequestReader
from sdserve.process import rights
from sdserve.process.adoption import CARRIED, AdoptionQueue, HandedConnection
from sdserve.workers.http import handoff
from sdserve.workers.http.body import Body
from sdserve.workers.http.client import Client, Phase
from sdserve.workers.http.spool import Quota
from sdserve.workers.http.write_buffer import Store

LIMITS = Limits(field_size=1 << 20, head=1 << 20)
POST = b"POST /a?b HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nX-A:1\r\nx-a: \xff \r\nContent-Length: %d\r\n\r\n"
Make = Callable[..., Client]


@pytest.fixture
def opened() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def make(opened: ExitStack) -> Make:
    """A client as it is after `data` was received."""

    def make(data: bytes) -> Client:
        ours, theirs = socket.socketpair()
        opened.enter_context(ours)
        opened.enter_context(theirs)
        conn = Connection(RequestReader(LIMITS), LIMITS)
        client = Client(ours, conn, {}, ("", ""), Store(Quota(0), print, 5))
        conn.receive(data)
        client.request = conn.next_request()
        client.began = 10.0
        if client.request is not None:
            client.phase = Phase.BODY
            client.body = Body(Quota(0))
            while piece := conn.read_body():
                client.body.append(piece)
        return client

    return make


@pytest.fixture
def moved(opened: ExitStack) -> Callable[[Client], HandedConnection]:
    """What arrives of a client that is given away at second 12.5."""
    queue = AdoptionQueue.new()
    opened.callback(queue.send_end.close)
    opened.callback(queue.receive_end.close)

    def move(client: Client) -> HandedConnection:
        assert handoff.give_away(queue, [client], 12.5, 1) == ([client], False)
        [found] = queue.take() or []
        opened.callback(found.sock.close)
        return found

    return move


def test_an_idle_connection_has_nothing_with_it(make: Make, moved: Callable[[Client], HandedConnection]) -> None:
    found = moved(make(b""))
    assert (found.data, found.head, found.body) == (b"", 0.0, 0.0)


@pytest.mark.parametrize(("last", "since"), [(11.5, 12.0), (0.0, 10.0), (12.0, 12.0)])  # its last answer, or it came
def test_since_when_it_is_idle_goes_with_it(
    make: Make, moved: Callable[[Client], HandedConnection], last: float, since: float
) -> None:
    """In full seconds, so that a connection that moves again and again does not become younger."""
    client = make(b"")
    client.last = last
    assert moved(client).since == since


def test_half_a_head_goes_as_it_came(make: Make, moved: Callable[[Client], HandedConnection]) -> None:
    found = moved(make(POST[:30]))
    assert (found.data, found.head, found.body) == (POST[:30], 2.5, 0.0)


def test_half_a_body_goes_with_the_same_request(make: Make, moved: Callable[[Client], HandedConnection]) -> None:
    client = make(POST % 8 + b"1234")
    found = moved(client)
    assert (found.head, found.body) == (0.0, 2.5)
    conn = Connection(RequestReader(LIMITS), LIMITS)
    conn.receive(found.data + b"5678")
    before, after = client.request, conn.next_request()
    assert before is not None and after is not None
    assert (after.method, after.uri, after.minor, after.length) == (before.method, before.uri, 1, 8)
    assert after.fields == [field for field in before.fields if field[0] != b"Expect"]
    assert not after.expect  # it was asked for its body
    assert conn.read_body() == b"12345678"
    assert conn.read_body() is None


@pytest.mark.parametrize("phase", [Phase.PREFACE, Phase.CALL, Phase.FLUSH, Phase.LINGER, Phase.CLOSED])
def test_nothing_moves_that_is_under_way(make: Make, phase: Phase) -> None:
    client = make(b"")
    client.phase = phase
    assert not handoff.may_move(client)


def test_what_is_too_large_or_chunked_stays(make: Make) -> None:
    head = b"GET / HTTP/1.1\r\nHost: a\r\nX-A: "
    assert handoff.may_move(make(head.ljust(CARRIED, b"x")))
    assert not handoff.may_move(make(head.ljust(CARRIED + 1, b"x")))
    assert not handoff.may_move(make(POST % 100_000 + b"x" * CARRIED))
    assert not handoff.may_move(make(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel"))


def test_a_connection_that_ends_stays(make: Make) -> None:
    client = make(b"")
    client.close_after = True
    assert not handoff.may_move(client)


def test_thousands_that_are_idle_for_as_long_are_one_entry_of_a_message(make: Make, opened: ExitStack) -> None:
    """Else the queue would hold a few thousand only, for want of a larger send buffer."""
    queue = AdoptionQueue.new()
    opened.callback(queue.send_end.close)
    opened.callback(queue.receive_end.close)
    clients = [make(b"") for _ in range(100)]
    for number, client in enumerate(clients):
        client.last = 10.0 + (number * 37 % 100) / 50  # seconds, in any order
    gone, _ = handoff.give_away(queue, clients, 13.0, len(clients))
    assert len(gone) == len(clients)
    message, fds, _ = rights.receive(queue.receive_end, 65536)
    for fd in fds:
        os.close(fd)
    assert len(fds) == len(clients)
    assert len(json.loads(message)) == 3, "1, 2 and 3 seconds"
