"""The watchdog notices a master that is stuck, and leaves an idle service alone."""

import signal

from tests.support.machine import Machine
from tests.support.service import deploy
from tests.support.waiting import eventually

QUICK = "[Service]\nWatchdogSec=2\n"


def test_a_stopped_master_is_noticed(machine: Machine) -> None:
    service = deploy(machine, drop_in=QUICK + "Restart=no\n")
    service.wake()
    service.master.kill(signal.SIGSTOP)
    machine.wait_for(service.unit, ActiveState="failed", Result="watchdog")


def test_a_stopped_master_is_replaced(machine: Machine) -> None:
    service = deploy(machine, drop_in=QUICK)
    service.wake()
    main = service.main
    service.master.kill(signal.SIGSTOP)
    eventually(lambda: service.main not in (0, main), "a new master")
    assert service.ask().status == 200
    machine.wait_for(service.unit, NRestarts="1")


def test_an_idle_service_lives_and_so_does_its_successor(machine: Machine) -> None:
    service = deploy(machine, drop_in="[Service]\nWatchdogSec=1\n")
    service.wake()
    lives(machine, service.unit, service.main)
    new = service.upgrade()
    lives(machine, service.unit, new)
    assert service.ask().status == 200


def lives(machine: Machine, unit: str, main: int) -> None:
    """Three watchdog periods pass, counted in the signs of life that systemd took, without a change."""
    stamps: set[str] = set()

    def three_periods() -> bool:
        state = machine.show(unit, "MainPID", "ActiveState", "WatchdogTimestampMonotonic")
        assert int(state["MainPID"]) == main, state
        stamps.add(state["WatchdogTimestampMonotonic"])
        return int(max(stamps, key=int)) - int(min(stamps, key=int)) > 3_000_000

    eventually(three_periods, "signs of life")
    assert machine.get(unit, "NRestarts") == "0"


def test_workers_that_are_all_stuck_are_noticed(machine: Machine) -> None:
    service = deploy(machine, settings={"TIMEOUT": "0"}, drop_in=QUICK + "Restart=no\n")
    service.wake()
    service.check(workers=2)
    for worker in service.workers:
        worker.kill(signal.SIGSTOP)
    machine.wait_for(service.unit, ActiveState="failed", Result="watchdog")
