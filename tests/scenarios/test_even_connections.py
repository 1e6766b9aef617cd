"""Idle connections lie evenly with the workers, whatever has become of those that had accepted them.

A proxy keeps some tens of them. Whoever comes first could take them all, and the others would have nothing to do.
"""

import http.client
import signal
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.support.load import ask
from tests.support.server import Server, connector, free_port
from tests.support.waiting import eventually

CONNECTIONS = 40
APPS = pytest.mark.parametrize("app", ["plain:application", "plain_asgi:application"], ids=["wsgi", "asgi"])
Crowd = Callable[[int], list[socket.socket]]


@pytest.fixture
def crowd() -> Iterator[Crowd]:
    """Kept connections to a port, each of which has been answered once."""
    with ExitStack() as stack:

        def gather(port: int) -> list[socket.socket]:
            found = [stack.enter_context(connector(("127.0.0.1", port))()) for _ in range(CONNECTIONS)]
            assert all(ask(each).status == 200 for each in found)
            return found

        yield gather


def all_have_some(crowd: list[socket.socket], workers: int, but: set[int]) -> None:
    """Waits until each worker answers at least half of its share, and none of those that were there before."""

    def look() -> bool:
        counts = Counter(ask(each).pid for each in crowd)
        assert not counts.keys() & but, counts
        return len(counts) == workers and min(counts.values()) >= CONNECTIONS // workers // 2

    eventually(look, f"{workers} workers with their share of the connections")


@APPS
def test_a_worker_more_gets_its_share(start: Callable[..., Server], crowd: Crowd, app: str) -> None:
    port = free_port()
    server = start("-b", f"127.0.0.1:{port}", "-w", "1", "--keep-alive", "600", app).wait_ready()
    clients = crowd(port)
    for workers in (2, 3):
        server.kill(signal.SIGTTIN)
        all_have_some(clients, workers, but=set())


@APPS
def test_what_is_in_use_when_all_serve_is_shared_later(start: Callable[..., Server], crowd: Crowd, app: str) -> None:
    port = free_port()
    server = start("-b", f"127.0.0.1:{port}", "-w", "1", "--keep-alive", "600", app).wait_ready()
    clients = crowd(port)
    for each in clients:
        each.sendall(b"GET / HTTP/1.1\r\n")
    server.kill(signal.SIGTTIN)
    server.notify.wait(lambda message: "2 of 2 workers" in message.fields.get("STATUS", ""))
    for each in clients:
        each.sendall(b"Host: a\r\n\r\n")
        response = http.client.HTTPResponse(each)
        response.begin()
        assert response.status == 200
        response.read()
    all_have_some(clients, 2, but=set())


@APPS
def test_a_reload_and_an_upgrade_leave_them_even(start: Callable[..., Server], crowd: Crowd, app: str) -> None:
    port = free_port()
    options = ("-b", f"127.0.0.1:{port}", "-w", "3", "--keep-alive", "600", "--upgrade", "auto")
    server = start(*options, app).wait_ready()
    clients = crowd(port)
    for signum in (signal.SIGHUP, signal.SIGUSR2):
        before = {each.pid for each in server.workers}
        server.kill(signum)
        server.wait_log("Reloaded: " if signum is signal.SIGHUP else "has been promoted")
        all_have_some(clients, 3, but=before)


def test_a_worker_that_takes_the_place_of_a_dead_one_gets_its_share(start: Callable[..., Server], crowd: Crowd) -> None:
    port = free_port()
    server = start("-b", f"127.0.0.1:{port}", "-w", "2", "--keep-alive", "600", "plain:application").wait_ready()
    victim = server.workers[0].pid
    clients = crowd(port)
    left = [each for each in clients if ask(each).pid != victim]
    assert len(left) < CONNECTIONS
    server.kill(signal.SIGKILL, victim)
    eventually(lambda: len({ask(each).pid for each in left}) == 2, "the new worker answers some of them")
