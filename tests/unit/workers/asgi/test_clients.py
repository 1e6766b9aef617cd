"""What is done for a client during its call: which events are believed, and by when something has to happen.

An event may be of a connection that is closed, whose descriptor another client has by now: the socket is asked.
"""

import select
import socket
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from sdserve.http.connection import Connection
from sdserve.http.limits import Limits, Times
from sdserve.http.request import RequestReader
from sdserve.workers.asgi import clients, host
from sdserve.workers.asgi.client import ASGIClient
from sdserve.workers.asgi.clients import ASGIClients
from sdserve.workers.asgi.interest import BROKEN, EPOLLRDHUP
from sdserve.workers.http.client import EPOLLIN, EPOLLOUT, Phase
from sdserve.workers.http.deadlines import NEVER, Arrival
from sdserve.workers.http.spool import Quota
from sdserve.workers.http.write_buffer import Store

HUP = select.EPOLLHUP
ENDS = (HUP, BROKEN, HUP | EPOLLRDHUP | EPOLLIN, EPOLLRDHUP, EPOLLRDHUP | EPOLLIN)


class Told:
    """The clients of a worker, as far as one event needs them: `told` is what it comes to."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def gone(self, client: ASGIClient, why: Exception) -> None:
        self.told.append("gone")

    def _end_of(self, client: ASGIClient, call: object) -> None:
        self.told.append("end")

    def _pour(self, client: ASGIClient, call: object) -> None:
        self.told.append("room")

    def _take_in(self, client: ASGIClient, call: object) -> None:
        self.told.append("bytes")


def event(client: ASGIClient, polled: int, mask: int) -> list[str]:
    """What one event comes to, of a client in a call that is polled for something."""
    told: Any = Told()
    client.mask = polled
    ASGIClients._during_call(told, client, mask)
    found: list[str] = told.told
    return found


@pytest.fixture
def pair() -> Iterator[tuple[ASGIClient, socket.socket]]:
    ours, theirs = socket.socketpair()
    conn, store = Connection(RequestReader(Limits()), Limits()), Store(Quota(0), print, 5)
    client = ASGIClient(ours, conn, {}, ("", ""), store, ("", 0))
    client.phase = Phase.CALL
    client.call = SimpleNamespace()  # type: ignore[assignment]
    yield client, theirs
    ours.close()
    theirs.close()


@pytest.mark.parametrize("polled", [EPOLLRDHUP, EPOLLRDHUP | EPOLLOUT, BROKEN])
@pytest.mark.parametrize("mask", ENDS)
def test_what_has_ended_was_another_one(pair: tuple[ASGIClient, socket.socket], polled: int, mask: int) -> None:
    client, theirs = pair
    theirs.send(b"more")
    assert event(client, polled, mask) == []


@pytest.mark.parametrize("mask", ENDS)
def test_who_has_ended_has(pair: tuple[ASGIClient, socket.socket], mask: int) -> None:
    client, theirs = pair
    theirs.shutdown(socket.SHUT_WR)
    assert event(client, EPOLLRDHUP, mask) == ["end"]
    theirs.close()
    assert event(client, EPOLLRDHUP, mask) == ["gone"]


def test_room_is_for_who_has_asked_for_it(pair: tuple[ASGIClient, socket.socket]) -> None:
    client, _ = pair
    assert event(client, EPOLLIN, EPOLLOUT) == []
    assert event(client, EPOLLRDHUP | EPOLLOUT, EPOLLOUT) == ["room"]
    assert event(client, EPOLLIN | EPOLLOUT, EPOLLOUT | EPOLLIN) == ["room", "bytes"]


class Timed(ASGIClients):
    """As far as deadlines go: a body may pause for 30 s, an answer wait for its reader for 60 s."""

    def __init__(self) -> None:
        self._times = Times(body_rate=0, body_idle=30, send=60)
        self._settle = lambda: None

    def poll_for(self, client: ASGIClient, mask: int) -> None:
        client.mask = mask


class AnyCall:
    """A call, as far as deadlines go."""

    waits = ended = half_closed = False

    def __init__(self, client: ASGIClient) -> None:
        self.client = client

    def reads(self) -> bool:
        return True

    def goes_on(self) -> bool:
        return False

    def next_due(self, untaken: float) -> float:
        return untaken

    def news(self) -> None: ...


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    clock = SimpleNamespace(now=1000.0)
    for module in (clients, host):
        monkeypatch.setattr(module, "monotonic", lambda: clock.now)
    return clock


def test_a_body_has_its_time_when_what_was_sent_meanwhile_was_taken(
    pair: tuple[ASGIClient, socket.socket], clock: SimpleNamespace
) -> None:
    client, _ = pair
    host, call = Timed(), AnyCall(client)
    client.call, client.arrival = call, Arrival(host._times, clock.now)  # type: ignore[assignment]
    call.waits = True
    host.wants_body(call)  # type: ignore[arg-type]
    assert client.deadline == 1030
    clock.now += 10
    client.unsent = SimpleNamespace(left=1)  # type: ignore[assignment]
    host.wants_room(call)  # type: ignore[arg-type]
    assert client.deadline == 1070, "it may have to read before it sends more"
    clock.now += 5
    host.wants_room(call)  # type: ignore[arg-type]
    assert client.deadline == 1070, "asking again is no reason to wait longer"
    client.unsent = None
    host._go_on(client, call)  # type: ignore[arg-type]
    assert client.deadline == 1035
    call.waits = False
    host.wants_body(call)  # type: ignore[arg-type]
    assert client.deadline == NEVER


@pytest.mark.parametrize("waits", [True, False])
def test_what_comes_of_a_body_is_no_reason_to_wait_for_ever_for_who_does_not_read(
    pair: tuple[ASGIClient, socket.socket], clock: SimpleNamespace, waits: bool
) -> None:
    client, _ = pair
    host, call = Timed(), AnyCall(client)
    client.call, client.arrival = call, Arrival(host._times, clock.now)  # type: ignore[assignment]
    client.unsent = SimpleNamespace(left=1)  # type: ignore[assignment]
    host.wants_room(call)  # type: ignore[arg-type]
    clock.now += 10
    call.waits = waits
    host.wants_body(call)  # type: ignore[arg-type]
    assert client.deadline == 1060
