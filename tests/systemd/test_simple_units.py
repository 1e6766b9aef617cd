"""A unit that cannot be notified is told so, served all the same, and not led into an upgrade that would end it."""

from tests.support.machine import Machine
from tests.support.service import deploy
from tests.support.waiting import eventually

# The watchdog and the descriptor store would each bring notifications with them.
DEAF = """[Service]
Type=simple
NotifyAccess=none
WatchdogSec=0
FileDescriptorStoreMax=0
Environment=SDSERVE_FD_STORE=0
"""


def test_an_upgrade_is_refused_with_the_reason(machine: Machine) -> None:
    service = deploy(machine, drop_in=DEAF)
    assert service.ask().status == 200
    main = service.main
    eventually(lambda: any("Ready: Running" in line for line in machine.unit_messages(service.unit)), "a ready service")
    [warning] = [line for line in machine.unit_messages(service.unit) if "Type=notify" in line]
    assert "systemd does not hear when this service is ready" in warning

    machine.systemctl("kill", "-s", "USR2", service.unit)

    eventually(lambda: any("USR2 signal ignored" in line for line in machine.unit_messages(service.unit)), "a refusal")
    assert service.ask().status == 200
    assert service.main == main
