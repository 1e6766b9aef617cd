"""What epoll reports of a connection, and when a connection is due: looked at when the earliest is, and not before."""

import os
import select
import socket
from collections.abc import Iterator
from time import monotonic

import pytest

from sdserve.config import load
from sdserve.http.connection import Connection
from sdserve.http.limits import Limits
from sdserve.http.request import RequestReader
from sdserve.log import Logger
from sdserve.workers.base import NO_CELL
from sdserve.workers.http.client import EPOLLIN, EPOLLOUT, Client, Phase
from sdserve.workers.http.clients import Clients
from sdserve.workers.http.deadlines import NEVER, SWEEP
from sdserve.workers.http.spool import Quota
from sdserve.workers.http.write_buffer import Store
from sdserve.workers.options import Options


class Made(Clients[Client]):
    """Connections over socket pairs; `theirs` are the other ends."""

    def __init__(self) -> None:
        self.epoll = select.epoll()
        log = Logger("-", None, "critical")
        super().__init__(self.epoll, Options.of(load(["app"], {})), log, lambda now: None, lambda: None, NO_CELL)
        self.theirs: dict[Client, socket.socket] = {}

    def expired(self, client: Client, now: float) -> None:
        self.close(client)

    def one(self, patience: float = 0) -> Client:
        ours, theirs = socket.socketpair()
        client = Client(ours, Connection(RequestReader(Limits()), Limits()), {}, ("", ""), Store(Quota(0), print, 5))
        self.theirs[client] = theirs
        self.add(client, 100.0, patience)
        return client


@pytest.fixture
def made() -> Iterator[Made]:
    made = Made()
    yield made
    for client in made:
        made.close(client)
    for sock in made.theirs.values():
        sock.close()
    made.epoll.close()


def test_only_what_is_asked_for_is_reported(made: Made) -> None:
    client = made.one()
    made.theirs[client].send(b"x")
    for mask in (EPOLLIN, EPOLLOUT, EPOLLIN | EPOLLOUT, 0, 0, EPOLLIN):
        made.poll_for(client, mask)
        assert made.epoll.poll(0) == ([(client.fd, mask)] if mask else [])


def test_one_that_is_closed_is_forgotten(made: Made) -> None:
    client = made.one()
    made.poll_for(client, EPOLLIN)
    copy = socket.socket(fileno=os.dup(client.fd))  # as in the adoption queue: closing it does not take it out of epoll
    made.theirs[client].send(b"x")
    made.close(client)
    assert made.epoll.poll(0) == []
    assert (len(made), list(made), client.phase) == (0, [], Phase.CLOSED)
    assert copy.recv(1) == b"x"
    copy.close()


def test_each_is_closed_when_its_time_has_come(made: Made) -> None:
    late, soon, never = made.one(9), made.one(3), made.one()
    assert made.sweep_at == 103.0
    made.sweep(102.9)
    assert len(made) == 3
    made.sweep(103.0)
    assert list(made) == [late, never]
    assert soon.phase is Phase.CLOSED
    assert made.sweep_at == 109.0
    made.sweep(109.0)
    assert made.sweep_at == NEVER


def test_many_deadlines_in_a_row_are_looked_at_together(made: Made) -> None:
    for patience in range(1, 20):
        made.one(patience / 100)
    made.sweep(100.01)
    assert len(made) == 18
    assert made.sweep_at == 100.01 + SWEEP
    made.sweep(made.sweep_at)
    assert len(made) == 0


def test_who_is_in_a_hurry_reads_the_last_words_of_nobody_for_long(made: Made) -> None:
    """A client may keep its connection for as long as it likes after the last answer."""
    usual, late = made.one(), made.one()
    for client in made:
        client.sock.setblocking(False)
    made.end(usual)
    made.hurry(monotonic(), 5.0, 0.5)
    made.end(late)
    assert [client.phase for client in (usual, late)] == [Phase.LINGER] * 2
    assert late.deadline <= monotonic() + 0.5 < usual.deadline


def test_a_new_deadline_takes_the_place_of_the_old_one(made: Made) -> None:
    client = made.one(3)
    made.set_deadline(client, 101.0, 8)
    made.sweep(103.0)  # it was due for the old one
    assert (len(made), made.sweep_at) == (1, 109.0)


def test_one_whose_descriptor_was_closed_behind_our_back_can_be_closed(made: Made) -> None:
    client = made.one()
    made.poll_for(client, EPOLLIN)
    os.close(client.sock.detach())
    for _ in range(2):
        made.close(client)
    assert (len(made), client.phase, client.mask) == (0, Phase.CLOSED, 0)


def test_a_descriptor_that_was_given_out_again_means_the_new_connection(made: Made) -> None:
    """The application has closed the old one: what is done with that must not reach the new one."""
    old = made.one()
    made.poll_for(old, EPOLLIN)
    ours, theirs = socket.socketpair()
    with ours:
        os.dup2(ours.fileno(), old.fd)  # closes it, and gives its number to another connection
    new = Client(
        *(socket.socket(fileno=old.fd), Connection(RequestReader(Limits()), Limits()), {}, ("", "")),
        Store(Quota(0), print, 5),
    )
    made.theirs[new] = theirs
    made.add(new, 100.0, 5)
    made.poll_for(new, EPOLLIN)
    made.close(old)
    assert (list(made), old.phase) == ([new], Phase.CLOSED)
    theirs.send(b"x")
    assert made.epoll.poll(0) == [(new.fd, EPOLLIN)]


def test_one_that_cannot_be_judged_does_not_hold_up_the_others(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = made.one(1), made.one(1)
    judged = []

    def expired(client: Client, now: float) -> None:
        judged.append(client)
        if client is first:
            raise RuntimeError("nobody foresaw this")
        made.close(client)

    monkeypatch.setattr(made, "expired", expired)
    made.sweep(102.0)
    assert judged == [first, second]
    assert len(made) == 0
