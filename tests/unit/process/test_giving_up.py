"""An address is given up: everybody who had arrived is in the queue, and nobody else arrives."""

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from sdserve.process import giving_up
from sdserve.process.adoption import SPREAD, AdoptionQueue, HandedConnection
from sdserve.process.giving_up import give_up, shut
from sdserve.process.listeners import Address, Listener, bind
from tests.support.between import at_each_line


@pytest.fixture
def opened() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def queue(opened: ExitStack) -> AdoptionQueue:
    queue = AdoptionQueue.new()
    opened.callback(queue.send_end.close)
    opened.callback(queue.receive_end.close)
    return queue


@pytest.fixture(params=["IPv4", "IPv6", "unix", "abstract"])
def address(request: pytest.FixtureRequest, short_path: Path) -> Address:
    path = str(short_path / "socket")
    by_kind: dict[str, Address] = {"IPv4": ("127.0.0.1", 0), "IPv6": ("::1", 0), "unix": path, "abstract": f"@{path}"}
    return by_kind[request.param]


@pytest.fixture
def listener(address: Address, opened: ExitStack) -> Listener:
    listener = bind(address, backlog=128)
    opened.callback(listener.close)
    return listener


def connection(where: object, stack: ExitStack) -> socket.socket | None:
    """A connection that the server's kernel has accepted; None if it refuses, or does not answer."""
    family = socket.AF_INET if isinstance(where, tuple) else socket.AF_UNIX
    if isinstance(where, tuple) and ":" in where[0]:
        family = socket.AF_INET6
    sock = stack.enter_context(socket.socket(family))
    sock.setblocking(False)
    if sock.connect_ex(where) not in (0, errno.EINPROGRESS):  # type: ignore[arg-type]
        return None
    try:
        sock.getpeername()  # a handshake on the loopback is over by now
    except OSError:
        return None
    return sock


def taken(queue: AdoptionQueue, stack: ExitStack) -> list[HandedConnection]:
    found: list[HandedConnection] = []
    while message := queue.take():
        found += message
    for each in found:
        each.sock.setblocking(True)
        stack.callback(each.sock.close)
    return found


def test_everybody_who_waits(listener: Listener, queue: AdoptionQueue, opened: ExitStack) -> None:
    clients = [connection(listener.sock.getsockname(), opened) for _ in range(SPREAD + 3)]
    assert give_up(listener, queue) is None
    listener.close()
    found = taken(queue, opened)
    assert [(each.listener, each.new, each.data) for each in found] == [(str(listener), True, b"")] * len(clients)
    for client, each in zip(clients, found, strict=True):
        assert client is not None
        client.send(b"?")
        assert each.sock.recv(1) == b"?"


def test_at_no_moment_somebody_arrives_and_is_lost(address: Address, queue: AdoptionQueue, opened: ExitStack) -> None:
    tried = []

    def tries() -> None:
        tried.append(connection(given_up.sock.getsockname(), opened))

    for _ in at_each_line(give_up, tries):
        given_up = bind(address, backlog=128)
        assert give_up(given_up, queue) is None
        given_up.unlink()
        given_up.close()
    arrived = [client for client in tried if client is not None]
    assert arrived, "before it was shut"
    assert len(arrived) < len(tried), "and after that"
    assert len(taken(queue, opened)) == len(arrived)
    for client in arrived:
        client.setblocking(False)
        with pytest.raises(BlockingIOError):  # neither an end nor a reset
            client.recv(1)


def test_whoever_has_a_copy_keeps_nobody_waiting(listener: Listener, queue: AdoptionQueue, opened: ExitStack) -> None:
    where, copy = listener.sock.getsockname(), opened.enter_context(listener.sock.dup())
    assert give_up(listener, queue) is None
    listener.close()
    with socket.socket(copy.family) as late, pytest.raises(ConnectionRefusedError):
        late.connect(where)
    with pytest.raises(OSError) as caught:
        copy.accept()
    assert caught.value.errno in (errno.EAGAIN, errno.EINVAL)


def test_who_had_arrived_when_it_was_shut_is_accepted(listener: Listener, opened: ExitStack) -> None:
    arrived = connection(listener.sock.getsockname(), opened)
    assert shut(listener)
    assert connection(listener.sock.getsockname(), opened) is None
    accepted, _ = listener.sock.accept()
    opened.enter_context(accepted)
    assert arrived is not None
    arrived.send(b"?")
    assert accepted.recv(1) == b"?"


def test_another_process_was_quicker(listener: Listener, queue: AdoptionQueue) -> None:
    assert give_up(listener, queue) is None
    assert give_up(listener, queue) is None


def test_a_kernel_without_filters(
    listener: Listener, queue: AdoptionQueue, opened: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(giving_up, "SO_ATTACH_FILTER", 9999)
    client = connection(listener.sock.getsockname(), opened)
    assert client is not None
    assert shut(listener) is (listener.family == socket.AF_UNIX)
    assert give_up(listener, queue) is None
    assert len(taken(queue, opened)) == 1


def test_a_queue_that_takes_no_more(listener: Listener, queue: AdoptionQueue, opened: ExitStack) -> None:
    connection(listener.sock.getsockname(), opened)
    queue.receive_end.close()
    trouble = give_up(listener, queue)
    assert trouble is not None
    assert trouble.errno == errno.ENOBUFS


def test_a_listener_that_is_none_any_more_is_named_and_stops_nobody(listener: Listener, queue: AdoptionQueue) -> None:
    with open(os.devnull) as other:
        os.dup2(other.fileno(), listener.sock.fileno())  # a preloaded application has closed it, and opened a file
    trouble = give_up(listener, queue)
    assert trouble is not None and trouble.errno == errno.ENOTSOCK
