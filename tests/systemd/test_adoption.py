"""Idle keep-alive connections outlive the processes that accepted them: the same socket, answered by a new pid.

CONNECTIONS says how many (default 200; no more than this process may open descriptors).
"""

import ctypes
import os
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from tests.support.load import Load, ask
from tests.support.machine import Machine
from tests.support.service import Service, deploy
from tests.support.waiting import eventually

PIDFD_GETFD = 438
libc = ctypes.CDLL(None, use_errno=True)
CONNECTIONS = int(os.environ.get("CONNECTIONS", "200"))


def idle_connections(service: Service, number: int = CONNECTIONS) -> list[socket.socket]:
    connections = []
    for _ in range(number):
        connections.append(service.connect())
        assert ask(connections[-1]).status == 200
    return connections


def answered_by(connections: list[socket.socket]) -> set[int]:
    """The pids that answer on these connections; each must be open and answer."""
    return {ask(connection).pid for connection in connections}


pytestmark = pytest.mark.usefixtures("many_descriptors")


@pytest.fixture
def service(machine: Machine) -> Service:
    service = deploy(machine, settings={"KEEPALIVE": "3600"})
    service.wake()
    return service


def moved(service: Service, connections: list[socket.socket], what: str, deed: Callable[[], object]) -> None:
    """Does `deed` and asks on each connection: all are open, and answered by workers that were not there before."""
    old = service.workers
    before = {worker.inner for worker in old}
    began = time.monotonic()
    deed()
    took = time.monotonic() - began
    # An old worker that is told to leave answers until it hears that, also on what it is about to give away.
    eventually(lambda: not any(worker.alive for worker in old), "the old workers have left")
    now = answered_by(connections)
    assert not now & before
    print(f"{what}: {len(connections)} connections moved in {took:.2f} s, answered by {len(now)} new workers")


def test_across_a_reload(service: Service, machine: Machine) -> None:
    moved(service, idle_connections(service), "reload", lambda: machine.systemctl("reload", service.unit))


def test_across_a_rolling_reload(machine: Machine) -> None:
    service = deploy(machine, settings={"KEEPALIVE": "3600", "RELOAD_STRATEGY": "rolling"})
    service.wake()
    connections = idle_connections(service)
    moved(service, connections, "rolling reload", lambda: machine.systemctl("reload", service.unit))


def test_across_an_upgrade(service: Service) -> None:
    moved(service, idle_connections(service), "upgrade", service.upgrade)


def test_across_restarts(service: Service, machine: Machine) -> None:
    connections = idle_connections(service)
    for _ in range(3):
        moved(service, connections, "restart", lambda: machine.systemctl("restart", service.unit))
    assert (
        machine.get(service.unit, "NFileDescriptorStore") == "4"
    )  # both ends of the queue, the counters, and the proof


def test_after_a_restart_every_worker_has_some(machine: Machine) -> None:
    """All of them have waited for the first worker."""
    service = deploy(machine, settings={"KEEPALIVE": "3600", "WORKERS": "4"})
    service.wake()
    connections = idle_connections(service, 64)
    machine.systemctl("restart", service.unit)

    def look() -> bool:
        counts = Counter(ask(connection).pid for connection in connections)
        return len(counts) == 4 and min(counts.values()) >= 8

    eventually(look, "four workers with their share of the connections")


def test_across_recycling(machine: Machine) -> None:
    """All connections of the one worker at once: it answers max_requests, its replacement takes them over."""
    service = deploy(machine, settings={"KEEPALIVE": "3600", "WORKERS": "1", "MAX_REQUESTS": str(CONNECTIONS + 10)})
    service.wake()
    connections = idle_connections(service)

    def wear_out() -> None:
        worn = service.workers
        while worn[0].alive and service.ask().pid == worn[0].inner:
            continue
        service.check(workers=1)

    moved(service, connections, "recycling", wear_out)


def test_what_the_queue_does_not_take_is_closed_politely(machine: Machine) -> None:
    """More connections than may be on their way at a restart, and clients that write at any moment of it."""
    service = deploy(
        machine, settings={"KEEPALIVE": "3600", "WORKERS": "4"}, drop_in="[Unit]\nStartLimitIntervalSec=0\n"
    )
    service.wake()
    service.check(workers=4)
    active = Load(service.connect, clients=200, reuse=200, think=0.5)
    slow = Load(service.connect, clients=200, reuse=200, think=2.0)
    with active, slow:
        for load in (active, slow):
            load.wait(lambda record: len({a.client for a in record.answers}) == 200, "an answer for each client")
        for _ in range(3):
            for worker in service.workers:  # not those that come: who is full closes idle connections for new ones
                worker.set_soft_limit("nofile", 256)
            machine.systemctl("restart", service.unit)
            active.wait_answers(400)
            slow.wait_answers(200)
    for load in (active, slow):
        print(f"restarts with a queue that is too small: {load.record}")
        assert not load.record.lost, load.record
    again = sum(not answer.reused for answer in active.record.answers + slow.record.answers) - 400
    assert 0 < again < 3 * 400, f"{again} had to connect again"


def test_a_stop_closes_them(service: Service, machine: Machine) -> None:
    connections = idle_connections(service, 4)
    machine.systemctl("stop", service.unit)
    for connection in connections:
        assert connection.recv(1) == b""


def test_across_a_crash_of_the_master(service: Service, machine: Machine) -> None:
    """The workers hear that their master died, and leave their connections to the next start."""
    connections = idle_connections(service)
    moved(service, connections, "kill -9 of the master", lambda: service.master.kill(signal.SIGKILL))
    machine.wait_for(service.unit, ActiveState="active", NRestarts="1")


@pytest.mark.parametrize("how", ["restart", "crash"])
def test_who_still_asks_when_the_time_is_over_is_answered_by_the_next_start(machine: Machine, how: str) -> None:
    settings = {"KEEPALIVE": "3600", "GRACEFUL_TIMEOUT": "1", "ORPHAN_TIMEOUT": "1"}
    service = deploy(machine, settings=settings)
    service.wake()
    rest = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"  # what `ask` sends
    connections = idle_connections(service, 4)
    for connection in connections[:2]:
        connection.sendall(b"GET / HTTP/1.1\r\nX-Half: ")
    for connection in connections[2:]:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: %d\r\n\r\nhalf" % (4 + len(rest)))
    if how == "restart":
        moved(service, connections, how, lambda: machine.systemctl("restart", service.unit))
    else:
        moved(service, connections, how, lambda: service.master.kill(signal.SIGKILL))


def test_with_the_buffers_of_a_kernel_as_installed(service: Service, machine: Machine) -> None:
    """net.core.wmem_max is 212,992 there: that bounds what is on its way at one time, and no more than that."""
    connections = idle_connections(service)
    lower_the_buffer(service, 212_992)
    deeds: dict[str, Callable[[], object]] = {
        "reload": lambda: machine.systemctl("reload", service.unit),
        "upgrade": service.upgrade,
        "restart": lambda: machine.systemctl("restart", service.unit),
    }
    for what, deed in deeds.items():
        moved(service, connections, f"{what}, small buffers", deed)


@pytest.mark.parametrize("deed", ["reload", "upgrade"])
def test_more_than_may_be_on_their_way_is_given_bit_by_bit(machine: Machine, deed: str) -> None:
    """Successors take them out: what does not fit into the queue, or would exceed LimitNOFILE=, follows."""
    few = "[Service]\nLimitNOFILE=300\n"
    service = deploy(machine, settings={"KEEPALIVE": "3600", "WORKERS": "4"}, drop_in=few)
    service.wake()
    service.check(workers=4)
    connections = idle_connections(service, 500)
    lower_the_buffer(service, 1)  # the kernel makes that its least: a message or two at a time
    reload = lambda: machine.systemctl("reload", service.unit)  # noqa: E731
    moved(service, connections, deed, reload if deed == "reload" else service.upgrade)
    assert machine.get(service.unit, "NRestarts") == "0"
    assert str(service.main) in machine.run("/opt/sdserve/bin/sdservectl", "status").stdout, "its socket came along"


def lower_the_buffer(service: Service, size: int) -> None:
    """Gives the queue of a running service the send buffer that it would have got on another machine."""
    for fd in range(3, 30):
        with suppress(OSError), descriptor_of(service.master.pid, fd) as sock:
            if sock.family == socket.AF_UNIX and sock.type == socket.SOCK_SEQPACKET:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size)


@contextmanager
def descriptor_of(pid: int, fd: int) -> Iterator[socket.socket]:
    """A socket of another process (pidfd_getfd(2)). Raises OSError if it is none."""
    pidfd = os.pidfd_open(pid)
    try:
        copy = libc.syscall(PIDFD_GETFD, pidfd, fd, 0)
    finally:
        os.close(pidfd)
    if copy < 0:
        raise OSError(ctypes.get_errno(), "pidfd_getfd")
    try:
        sock = socket.socket(fileno=copy)
    except OSError:
        os.close(copy)
        raise
    with sock:
        yield sock
