"""Counters outlive masters: over reloads, upgrades, restarts and kill -9 under load none goes back, and totals are what
clients saw.

CYCLES says how many of each (default 1).
"""

import os
import signal

import pytest

from sdserve.process.counters import OUTCOMES, RELOADS, UPGRADES, Totals
from tests.support.counted import totals
from tests.support.load import Load
from tests.support.machine import Machine
from tests.support.service import Service, deploy
from tests.support.waiting import eventually

CYCLES = int(os.environ.get("CYCLES", "1"))
CLIENTS = 4


@pytest.fixture
def service(machine: Machine) -> Service:
    service = deploy(machine, drop_in="[Unit]\nStartLimitIntervalSec=0\n")
    service.wake()
    return service


def counted(service: Service, before: Totals) -> Totals:
    """What is counted now, which is never less than before."""
    after = totals(service.master.pid)
    assert all(then <= now for then, now in zip(before.words, after.words, strict=True))
    return after


def test_no_counter_goes_back(service: Service, machine: Machine) -> None:
    seen = totals(service.master.pid)
    first = seen.answers["2xx"].count
    with Load(service.connect, clients=CLIENTS, think=0.005) as load:
        for deed in ("reload", "upgrade", "restart") * CYCLES:
            if deed == "upgrade":
                service.upgrade()
            else:
                machine.systemctl(deed, service.unit)
            load.wait_answers(20)
            service.check(workers=2)
            seen = counted(service, seen)
        load.pause()

        def all_counted() -> bool:
            nonlocal seen
            seen = counted(service, seen)
            assert seen.answers["2xx"].count - first == len(load.record.answers)
            return True

        eventually(all_counted, "all answers are counted", 20)
        load.resume()
        service.master.kill(signal.SIGKILL)
        load.wait_answers(20)
    service.check(workers=2)
    seen = counted(service, seen)
    missing = len(load.record.answers) - (seen.answers["2xx"].count - first)
    assert abs(missing) <= CLIENTS, "what was in flight may count or not"
    assert seen.by_name(RELOADS, OUTCOMES) == {"succeeded": CYCLES, "failed": 0}
    assert seen.by_name(UPGRADES, OUTCOMES) == {"succeeded": CYCLES, "failed": 0}
