"""`systemctl status` tells what an operator asks first, and the service that is left alone sleeps."""

import pytest

from tests.support.machine import Machine
from tests.support.service import deploy
from tests.support.waiting import eventually

pytestmark = pytest.mark.once


def test_the_status_follows_traffic_and_reloads(machine: Machine) -> None:
    service = deploy(machine)
    service.wake()
    machine.systemctl("reload", service.unit)
    eventually(lambda: "; reload succeeded at 20" in service.status, "the outcome of the reload")
    with service.load():
        eventually(lambda: " requests/s, 99 % within " in service.status, "traffic in STATUS=")
        assert " threads busy" in service.status
    eventually(lambda: "no requests since 20" in service.status, "the last word")
    assert service.status.startswith("Running: 2 of 2 workers serving, generation 2; reload succeeded at 20")
