"""Idle keep-alive connections outlive the processes that accepted them: the same socket, answered by a new pid."""

import http.client
import signal
import socket

import pytest

from tests.support.load import ask
from tests.support.machine import Machine
from tests.support.service import Service, deploy
from tests.support.waiting import eventually

CONNECTIONS = 60


def idle_connections(service: Service, number: int = CONNECTIONS) -> list[socket.socket]:
    connections = [service.connect() for _ in range(number)]
    for connection in connections:
        assert ask(connection).status == 200
    return connections


def answered_by(connections: list[socket.socket]) -> set[int]:
    """The pids that answer on these connections; each must be open and answer."""
    return {ask(connection).pid for connection in connections}


@pytest.fixture
def service(machine: Machine) -> Service:
    service = deploy(machine, settings={"KEEPALIVE": "60"})
    service.wake()
    return service


def test_across_a_reload(service: Service, machine: Machine) -> None:
    connections = idle_connections(service)
    before = service.worker_pids()
    machine.systemctl("reload", service.unit)
    assert not answered_by(connections) & before


def test_across_an_upgrade(service: Service) -> None:
    connections = idle_connections(service)
    before = service.worker_pids()
    service.upgrade()
    assert not answered_by(connections) & before


def test_across_restarts(service: Service, machine: Machine) -> None:
    connections = idle_connections(service)
    for _ in range(3):
        before = service.worker_pids()
        machine.systemctl("restart", service.unit)
        assert not answered_by(connections) & before
    assert machine.get(service.unit, "NFileDescriptorStore") == "2"


def test_a_stop_closes_them(service: Service, machine: Machine) -> None:
    connections = idle_connections(service, 4)
    machine.systemctl("stop", service.unit)
    for connection in connections:
        assert connection.recv(1) == b""


def test_across_a_crash_of_the_master(service: Service, machine: Machine) -> None:
    """The workers hear that their master died and give their connections away, or are killed before: never both."""
    connections = idle_connections(service)
    master, workers = service.master, service.workers
    master.kill(signal.SIGKILL)
    for process in [master, *workers]:
        process.wait_gone()
    assert service.ask().status == 200
    machine.wait_for(service.unit, ActiveState="active", NRestarts="1")
    service.check(workers=2)
    for connection in connections:
        try:
            assert ask(connection).pid in service.worker_pids()
        except (EOFError, ConnectionError, http.client.HTTPException):
            continue  # systemd's KILL came before its worker could give it away


def test_no_descriptor_is_left_behind(service: Service) -> None:
    """Cycles of connections, reloads and upgrades leave every process with as many descriptors as before."""

    def settled() -> list[int]:
        service.check(workers=2)
        return sorted(process.descriptors for process in [service.master, *service.workers])

    service.upgrade()
    before = settled()
    for _ in range(5):
        connections = idle_connections(service, 20)
        service.upgrade()
        assert answered_by(connections)
        for connection in connections:
            connection.close()
    eventually(lambda: settled() == before, f"descriptors as before: {before}")
