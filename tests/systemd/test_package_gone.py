"""The package is moved away under a running service: it serves, obeys and is supervised; an upgrade is backed out."""

import signal

import pytest

from tests.support.machine import Machine
from tests.support.service import Service, deploy
from tests.support.waiting import eventually

pytestmark = pytest.mark.once


def status_says(service: Service, word: str) -> None:
    eventually(lambda: word in service.status, f"{word} in the status", 30)


def test_the_service_goes_on_without_the_package(machine: Machine) -> None:
    service = deploy(machine)
    service.wake()
    main, workers = service.main, service.worker_pids()
    package = next(machine.path("/opt/sdserve/lib").glob("python3*/site-packages/sdserve"))
    away = package.with_name("sdserve-away")
    instead = package.with_name("sdserve.py")  # an environment for development would find the checkout's
    with service.load(clients=4) as load:
        load.wait_answers(20)
        package.rename(away)
        instead.write_text("raise ModuleNotFoundError(\"No module named 'sdserve'\", name='sdserve')\n")
        try:
            machine.systemctl("kill", "-s", "USR2", service.unit)
            status_says(service, "No module named 'sdserve'")
            service.check(workers=2, main=main)
            machine.systemctl("kill", "--kill-whom=main", "-s", "HUP", service.unit)
            eventually(lambda: not workers & service.worker_pids(), "a new generation")
            service.check(workers=2, main=main)
            service.workers[0].kill(signal.SIGKILL)
            service.check(workers=2, main=main)
            machine.systemctl("kill", "--kill-whom=main", "-s", "TTIN", service.unit)
            service.check(workers=3, main=main)
            machine.systemctl("kill", "--kill-whom=main", "-s", "TTOU", service.unit)
            service.check(workers=2, main=main)
        finally:
            instead.unlink()
            away.rename(package)
        load.wait_answers(20)
        service.upgrade()
        service.check(workers=2)
    assert machine.get(service.unit, "NRestarts") == "0"
    assert set(load.record.statuses) == {200}
    backed_out = [line for line in machine.unit_messages(service.unit) if "Upgrade backed out" in line]
    assert len(backed_out) == 1
    assert "No module named 'sdserve'" in backed_out[0]
