"""Everything that the master waits for ends: who never comes, never leaves or never moves is waited for no longer."""

import signal
import time

from tests.support.machine import Machine
from tests.support.processes import Process
from tests.support.service import Service, deploy
from tests.support.waiting import eventually


def test_an_old_master_that_hangs_does_not_keep_the_unit_from_stopping(machine: Machine) -> None:
    service = deploy(machine, settings={"GRACEFUL_TIMEOUT": "3"})
    service.wake()
    old = service.master
    with service.load(clients=1, path="/sleep/30", requests=1):
        service.wait_busy(1)  # the old master drains for as long as it may
        service.upgrade()
        old.kill(signal.SIGSTOP)
        machine.systemctl("stop", service.unit)
    machine.wait_for(service.unit, ActiveState="inactive", Result="success", MainPID="0")
    assert any(f"(pid {old.inner}) has not ended" in line for line in machine.unit_messages(service.unit))


def test_an_old_master_that_hangs_is_ended_while_the_service_runs(machine: Machine) -> None:
    service = deploy(machine, settings={"GRACEFUL_TIMEOUT": "2"})
    service.wake()
    old = service.master
    with service.load(clients=1, path="/sleep/2", requests=1):
        service.wait_busy(1)
        new = service.upgrade()
        old.kill(signal.SIGSTOP)
        service.check(workers=2, main=new)  # and nobody else is left


def test_many_young_workers_that_die_together_are_replaced_together(machine: Machine) -> None:
    service = deploy(machine, settings={"WORKERS": "16"})
    service.wake()
    service.check(workers=16)
    died = time.monotonic()
    for worker in kill_all(service):
        worker.wait_gone()
    service.ask()
    print(f"16 workers killed at once: an answer after {time.monotonic() - died:.2f} s")
    service.check(workers=16)
    waits = [line for line in machine.unit_messages(service.unit) if "the next boots in" in line]
    assert not [line for line in waits if "in 0.0 s" not in line], waits


def kill_all(service: Service) -> list[Process]:
    workers = eventually(lambda: service.workers, "workers")
    for worker in workers:
        worker.kill(signal.SIGKILL)
    return workers
