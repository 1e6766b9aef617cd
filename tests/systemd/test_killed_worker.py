"""kill -9 of a worker under load: replaced at once, and only what was inside it fails.

KILLS says how many workers are killed (default 3).
"""

import os
import signal
import threading
import time

import pytest

from tests.support.load import Failure, Load
from tests.support.machine import Machine
from tests.support.mix import Mix
from tests.support.processes import Process
from tests.support.service import deploy
from tests.support.waiting import eventually

pytestmark = pytest.mark.once

KILLS = int(os.environ.get("KILLS", "3"))
AFTERMATH = 0.5  # seconds in which clients hear of the death
pace = threading.Event()  # never set


def held_by(load: Load, failure: Failure) -> int:
    """Who answered last on the connection of a failed request."""
    return next(a.pid for a in reversed(load.record.answers) if a.client == failure.client and a.at < failure.at)


def test_only_what_was_inside_it_fails(machine: Machine) -> None:
    service = deploy(machine, settings={"THREADS": "32", "PRELOAD_APP": "1"})
    service.wake()
    service.check(workers=2)
    killed: list[tuple[float, int]] = []
    replaced: list[float] = []
    with Mix(service.connect) as mix:
        for _ in range(KILLS):
            mix.wait_answers()
            pace.wait(1.1)  # a worker that served for a second is replaced at once, however many died before
            before = service.worker_pids()
            victim: Process = eventually(lambda: service.workers, "workers")[0]
            with mix.diary.entry(f"kill -9 {victim.inner}"):
                killed.append((time.monotonic(), victim.inner))
                victim.kill(signal.SIGKILL)
                while service.ask().pid in before:
                    continue
                replaced.append(time.monotonic() - killed[-1][0])
            service.check(workers=2)
        mix.wait_answers()
    print(f"{mix.story()}\nfirst answers of replacements after {[f'{each * 1e3:.0f} ms' for each in replaced]}")
    assert set(mix.record.statuses) == {200}
    for name, failure in mix.lost:
        victims = [pid for when, pid in killed if when <= failure.at <= when + AFTERMATH]
        assert victims, f"{name}: {failure}\n{mix.story()}"
        if failure.reused:
            assert held_by(mix.loads[name], failure) in victims, mix.story()
    assert mix.lost, "somebody was inside"
