"""Deploys that nobody notices: sixteen clients, five reloads and five upgrades at one a second, no failed request."""

import threading

from tests.support.machine import Machine
from tests.support.service import Service, deploy


def deploy_busy(machine: Machine) -> Service:
    """An application that takes 50 ms a request, with workers for all clients."""
    service = deploy(machine, settings={"=DELAY": "0.05", "WORKERS": "2", "THREADS": "8"})
    service.ask()
    service.check(workers=2)
    return service


def test_reloads_and_upgrades_under_load(machine: Machine) -> None:
    service = deploy_busy(machine)
    pace = threading.Event()
    masters = {service.main}
    with service.load(clients=16) as load:
        load.wait_answers(100)
        for _ in range(5):
            machine.systemctl("reload", service.unit)
            assert service.main in masters
            pace.wait(1.0)
        for _ in range(5):
            masters.add(service.upgrade())
            pace.wait(1.0)
        load.wait_answers(100)
    record = load.record

    assert len(masters) == 6
    assert not record.failures, record
    assert not record.stale, record
    assert set(record.statuses) == {200}
    assert len(record.pids) >= 22, "eleven generations of two workers answered"
    service.check(workers=2)
