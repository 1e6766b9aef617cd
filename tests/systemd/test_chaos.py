"""Anything may happen at any time under load, and only requests inside a killed or stopped process may fail.

CHAOS_SECONDS says for how long (default 15), CHAOS_SEED repeats a run; both are printed with what was done.
"""

import os
import random
import signal
import threading
import time
from collections.abc import Callable

from tests.support.load import Failure
from tests.support.machine import Machine
from tests.support.mix import Mix
from tests.support.processes import Process
from tests.support.service import Service, deploy
from tests.support.waiting import eventually

SECONDS = float(os.environ.get("CHAOS_SECONDS", "15"))
TIMEOUT = 2  # seconds that a request may take, and so that a stopped worker is put up with
AFTERMATH = 0.5  # seconds after a kill in which its victims hear of it
IDLE_EXIT = 0.3  # seconds
CLIENTS = 24
pace = threading.Event()  # never set


class Chaos:
    """Does one thing after the other to a service, and remembers what was violent, and when."""

    def __init__(self, machine: Machine, service: Service, mix: Mix, seed: int) -> None:
        self._machine = machine
        self._service = service
        self._mix = mix
        self._random = random.Random(seed)
        self.done: list[str] = []
        self.violence: list[tuple[float, float]] = []  # from, until: when requests may fail

    def step(self) -> None:
        deeds: list[Callable[[], None]] = [
            *(self.reload, self.upgrade, self.restart, self.more, self.less),
            *(self.kill_worker, self.stop_worker, self.kill_master, self.idle),
        ]
        deed = self._random.choice(deeds)
        self.done.append(deed.__name__)
        with self._mix.diary.entry(deed.__name__):
            deed()

    def settled(self) -> None:
        """Waits until systemd and the service agree that all is well."""
        service = self._service
        self._machine.wait_for(service.unit, ActiveState="active", timeout=30)
        eventually(lambda: "Running" in service.status and service.main != 0, "a running service", timeout=30)

    def reload(self) -> None:
        self._machine.systemctl("reload", self._service.unit)

    def upgrade(self) -> None:
        self._service.upgrade()

    def restart(self) -> None:
        self._machine.systemctl("restart", self._service.unit)

    def more(self) -> None:
        self._service.master.kill(signal.SIGTTIN)

    def less(self) -> None:
        self._service.master.kill(signal.SIGTTOU)

    def idle(self) -> None:
        """All clients pause for about as long as the service puts up with: the next request may meet its exit."""
        self._mix.pause()
        pace.wait(IDLE_EXIT + self._random.uniform(0.0, 0.8))
        self._mix.resume()

    def kill_worker(self) -> None:
        self._violent(self._victim(), signal.SIGKILL, 0.0)

    def stop_worker(self) -> None:
        self._violent(self._victim(), signal.SIGSTOP, TIMEOUT + 1.0)

    def kill_master(self) -> None:
        master = self._service.master
        self._violent(master, signal.SIGKILL, 0.0)
        master.wait_gone()
        self._machine.wait_for(self._service.unit, ActiveState="active", timeout=30)

    def _victim(self) -> Process:
        return self._random.choice(eventually(lambda: self._service.workers, "a worker"))

    def _violent(self, victim: Process, number: signal.Signals, lasting: float) -> None:
        now = time.monotonic()
        victim.kill(number)
        self.violence.append((now, time.monotonic() + lasting + AFTERMATH))

    def excuses(self, failure: Failure) -> bool:
        """Whether the failed request may have been inside a process that was killed or stopped."""
        return any(since <= failure.at <= until for since, until in self.violence)


def test_only_victims_fail(machine: Machine) -> None:
    seed = int(os.environ.get("CHAOS_SEED", random.SystemRandom().randrange(10**6)))
    settings = {"WORKERS": "3", "THREADS": "16", "TIMEOUT": str(TIMEOUT), "KEEPALIVE": "5"}
    settings["IDLE_EXIT"] = str(IDLE_EXIT)
    limits = "[Unit]\nStartLimitIntervalSec=0\n[Service]\nRestartSec=50ms\n"
    service = deploy(machine, settings=settings, drop_in=limits)
    service.wake()
    until = time.monotonic() + SECONDS
    with Mix(service.connect, CLIENTS) as mix:
        chaos = Chaos(machine, service, mix, seed)
        while time.monotonic() < until:
            chaos.step()
            mix.wait_answers(1)
            chaos.settled()
    exits = sum("idle_exit" in line for line in machine.unit_messages(service.unit))
    story = f"CHAOS_SEED={seed}: {' '.join(chaos.done)}; {exits} idle exits; {mix.story()}"
    print(story)
    assert not [failure for _, failure in mix.lost if not chaos.excuses(failure)], story
    assert set(mix.record.statuses) == {200}, story
    assert len(mix.lost) <= 2 * CLIENTS * len(chaos.violence), story
