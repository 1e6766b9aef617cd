"""Memory pressure, as systemd tells it since 254: watched from behind the locks of the unit; 252 tells nothing."""

import os

from sdserve.ops.units import drop_in
from tests.support.machine import Machine
from tests.support.service import deploy
from tests.support.waiting import eventually

STAND_IN = "[Service]\nMemoryPressureWatch=skip\nEnvironment=MEMORY_PRESSURE_WATCH=/srv/app/fifo\n"


def test_it_is_watched_where_systemd_tells_it(machine: Machine) -> None:
    service = deploy(machine, settings={"LOGLEVEL": "debug"}, drop_in="[Service]\nMemoryPressureWatch=on\n")
    service.wake()
    said = [line for line in machine.unit_messages(service.unit) if "emory pressure" in line]
    told = machine.systemd >= 254 and machine.path("/proc/pressure/memory").exists()
    assert said == ["Watching memory pressure"] * told, said


def gave_back(machine: Machine) -> int:
    return sum("gave back" in each for each in machine.messages())


def test_behind_all_locks_workers_give_back(machine: Machine) -> None:
    """Also without ctypes, which MemoryDenyWriteExecute= may refuse."""
    service = deploy(machine, drop_in=STAND_IN, start=False)
    machine.drop_in(service.unit, drop_in("strict"), "strict.conf")
    machine.reload_units()
    fifo = machine.path("/srv/app/fifo")
    os.mkfifo(fifo)
    fifo.chmod(0o644)
    machine.systemctl("start", service.socket)
    service.wake()
    workers = service.worker_pids()
    with open(fifo, "wb", buffering=0) as systemd:
        systemd.write(b"!")
        eventually(lambda: gave_back(machine) == len(workers), "all workers give back")
    assert service.ask().pid in workers
    assert not any("Traceback" in each for each in machine.messages())
