"""No descriptor is left behind: master, workers and systemd have as many after many deploys as before.

CYCLES says how many reloads, replacements and upgrades (default 6).
"""

import os
from collections.abc import Callable

import pytest

from sdserve.systemd import fdstore
from tests.support.load import ask
from tests.support.machine import Machine
from tests.support.service import Service, deploy
from tests.support.waiting import eventually

pytestmark = pytest.mark.once
CYCLES = int(os.environ.get("CYCLES", "6"))
STORED = len((*fdstore.NAMES, fdstore.PROOF, fdstore.COUNTERS))  # the queue's ends, their proof, the counters


@pytest.fixture
def service(machine: Machine) -> Service:
    limits = "[Unit]\nStartLimitIntervalSec=0\n"
    service = deploy(machine, settings={"KEEPALIVE": "60", "MAX_REQUESTS": "100000"}, drop_in=limits)
    service.wake()
    return service


def held(service: Service) -> tuple[list[int], int, int]:
    """Descriptors of master and workers, of PID 1, and in its store, when all is quiet."""
    service.check(workers=2)
    machine = service.machine
    stored = int(machine.get(service.unit, "NFileDescriptorStore"))
    ours = sorted(process.descriptors for process in [service.master, *service.workers])
    return ours, len(os.listdir(f"/proc/{machine.pid}/fd")), stored


def cycles(service: Service, deed: Callable[[], object]) -> None:
    """Does `deed` CYCLES times, each time with idle connections that are to be passed on and asked once more."""
    deed()  # what is opened once, at the first of each, is open before the count
    before = held(service)
    for _ in range(CYCLES):
        connections = [service.connect() for _ in range(5)]
        for connection in connections:
            ask(connection)
        deed()
        for connection in connections:
            assert ask(connection).status == 200
            connection.close()

    def none_left() -> bool:
        """Not more than before: a call of systemctl that had not quite ended may be in the first count."""
        ours, first, stored = held(service)
        pairs = [*zip(ours, before[0], strict=True), (first, before[1])]
        assert all(now <= then for now, then in pairs), f"{ours}, {first}, before {before}"
        assert stored == before[2] == STORED
        return True

    eventually(none_left, f"as few descriptors after {CYCLES} cycles", 30)
    print(f"{CYCLES} cycles: descriptors (master and workers, PID 1, store) {before} before and after")


def test_reloads(service: Service, machine: Machine) -> None:
    cycles(service, lambda: machine.systemctl("reload", service.unit))


def test_upgrades(service: Service) -> None:
    cycles(service, service.upgrade)


def test_restarts(service: Service, machine: Machine) -> None:
    cycles(service, lambda: machine.systemctl("restart", service.unit))


def test_failed_reloads(service: Service, machine: Machine) -> None:
    """What a reload opened before it was rolled back is closed again."""
    machine.write("/srv/app/plain.py", "import requirement_x\n")
    cycles(service, lambda: machine.systemctl("reload", service.unit, check=False))


def test_failed_upgrades(service: Service, machine: Machine) -> None:
    machine.write("/srv/app/plain.py", "import requirement_x\n")
    cycles(service, lambda: machine.run("/opt/sdserve/bin/sdservectl", "upgrade", check=False))


def test_replaced_workers(machine: Machine) -> None:
    """Each worker is worn by its first request, so each request leads to a replacement."""
    service = deploy(machine, settings={"MAX_REQUESTS": "1"})
    service.wake()

    def wear_out() -> None:
        pid = service.ask().pid
        eventually(lambda: pid not in service.worker_pids(), f"a replacement of {pid}")

    cycles(service, wear_out)
