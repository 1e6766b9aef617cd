"""Deploys that nobody notices: sixteen clients, reloads, upgrades and restarts, no failed request.

DEPLOYS says how many reloads and upgrades, at one a second (default 5 each, and half as many restarts).
"""

import os
import threading

from tests.support.machine import Machine
from tests.support.service import Service, deploy

DEPLOYS = int(os.environ.get("DEPLOYS", "5"))


def deploy_busy(machine: Machine) -> Service:
    """An application that takes 50 ms a request, with workers for all clients."""
    settings = {"=DELAY": "0.05", "WORKERS": "2", "THREADS": "8"}
    service = deploy(machine, settings=settings, drop_in="[Unit]\nStartLimitIntervalSec=0\n")
    service.ask()
    service.check(workers=2)
    return service


def test_reloads_and_upgrades_under_load(machine: Machine) -> None:
    service = deploy_busy(machine)
    pace = threading.Event()
    masters = {service.main}
    with service.load(clients=16) as load:
        load.wait_answers(100)
        for _ in range(DEPLOYS):
            machine.systemctl("reload", service.unit)
            assert service.main in masters
            pace.wait(1.0)
        for _ in range(DEPLOYS):
            masters.add(service.upgrade())
            pace.wait(1.0)
        load.wait_answers(100)
    record = load.record

    assert len(masters) == DEPLOYS + 1
    assert not record.failures, record
    assert not record.stale, record
    assert set(record.statuses) == {200}
    assert len(record.pids) >= 2 * (2 * DEPLOYS + 1), "every generation of two workers answered"
    service.check(workers=2)


def test_restarts_under_load(machine: Machine) -> None:
    service = deploy_busy(machine)
    with service.load(clients=16) as load:
        for _ in range(max(3, DEPLOYS // 2)):
            load.wait_answers(60)
            machine.systemctl("restart", service.unit)
        load.wait_answers(60)
    assert not load.record.failures, load.record
    assert not load.record.stale, load.record
    service.check(workers=2)
