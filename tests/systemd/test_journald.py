"""journald stops, comes back, or stands still: the service goes on serving and being commanded, and is heard again."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.support.machine import Machine
from tests.support.service import Service, deploy
from tests.support.waiting import eventually

SOCKETS = ("systemd-journald.socket", "systemd-journald-dev-log.socket")
JOURNALD = "systemd-journald.service"
DROP_IN = "[Service]\nWatchdogSec=5\n"
SETTINGS = {"ACCESSLOG": "-"}


@contextmanager
def stopped(machine: Machine) -> Iterator[None]:
    machine.systemctl("stop", *SOCKETS, JOURNALD)
    try:
        yield
    finally:
        machine.systemctl("start", *SOCKETS, JOURNALD)


@contextmanager
def standing_still(machine: Machine) -> Iterator[None]:
    [journald] = machine.processes(JOURNALD)
    journald.kill(signal.SIGSTOP)
    try:
        yield
    finally:
        journald.kill(signal.SIGCONT)


def obeys(service: Service) -> None:
    """Requests, the death of a worker, reload and upgrade go as ever."""
    before, main = service.worker_pids(), service.main
    for _ in range(1000):  # access records that fill what a socket holds
        assert service.ask().status == 200
    service.workers[0].kill(signal.SIGKILL)
    service.check(workers=2, main=main)
    service.machine.systemctl("reload", service.unit)
    service.check(workers=2, main=main)
    assert not before & service.worker_pids()
    service.machine.run("/opt/sdserve/bin/sdservectl", "upgrade")
    service.check(workers=2)
    assert service.main != main
    assert service.machine.get(service.unit, "NRestarts") == "0"


@pytest.mark.parametrize("away", [stopped, standing_still])
def test_the_service_goes_on_and_is_heard_again(machine: Machine, away: object) -> None:
    service = deploy(machine, drop_in=DROP_IN, settings=SETTINGS)
    service.wake()
    with away(machine):  # type: ignore[operator]
        obeys(service)

    def heard() -> bool:
        assert service.ask("/heard-again").status == 200
        return any("/heard-again" in line for line in machine.unit_messages(service.unit))

    eventually(heard, "the access log in the journal", 30)
    main = service.main
    machine.systemctl("reload", service.unit)
    service.check(workers=2, main=main)
    reloaded = [each for each in machine.journal("-u", service.unit) if each["MESSAGE"].endswith("hang up: Master")]
    assert not reloaded  # priorities are taken off, and say how grave a line is
    said = [each for each in machine.journal("-u", service.unit) if "Handling signal: hup" in each["MESSAGE"]]
    assert not any(each["MESSAGE"].startswith("<") for each in said)
