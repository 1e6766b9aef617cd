"""An idle keep-alive connection outlives reload, upgrade, restart and recycling: the same socket, another process."""

from collections.abc import Callable

import pytest

from tests.support.load import ask
from tests.support.machine import Machine
from tests.support.service import Service, deploy

CHANGES: dict[str, Callable[[Machine, Service], object]] = {
    "reload": lambda machine, service: machine.systemctl("reload", service.unit),
    "upgrade": lambda machine, service: service.upgrade(),
    "restart": lambda machine, service: machine.systemctl("restart", service.unit),
}


@pytest.mark.parametrize("change", CHANGES)
def test_idle_connections(machine: Machine, change: str) -> None:
    service = deploy(machine, settings={"KEEPALIVE": "60"})
    clients = [service.connect() for _ in range(24)]
    try:
        before = {ask(client).pid for client in clients}
        service.check(workers=2)

        CHANGES[change](machine, service)

        service.check(workers=2)
        after = {ask(client).pid for client in clients}
        assert not before & after
        assert after <= service.worker_pids()
    finally:
        for client in clients:
            client.close()


def test_a_restart_under_load_fails_nobody(machine: Machine) -> None:
    service = deploy(machine, settings={"=DELAY": "0.05", "THREADS": "8"})
    service.ask()
    service.check(workers=2)
    with service.load(clients=16) as load:
        for _ in range(3):
            load.wait_answers(60)
            machine.systemctl("restart", service.unit)
        load.wait_answers(60)
    assert not load.record.failures, load.record
    assert not load.record.stale, load.record
    service.check(workers=2)
