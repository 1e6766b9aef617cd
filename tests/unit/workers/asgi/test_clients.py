"""An event may be of a connection that is closed, whose descriptor another client has by now: the socket is asked."""

import select
import socket
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from sdserve.http.connection import Connection
from sdserve.http.limits import Limits
from sdserve.http.request import RequestReader
from sdserve.workers.asgi.client import ASGIClient
from sdserve.workers.asgi.clients import ASGIClients
from sdserve.workers.asgi.interest import BROKEN, EPOLLRDHUP
from sdserve.workers.http.client import EPOLLIN, EPOLLOUT, Phase
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
