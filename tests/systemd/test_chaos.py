"""Anything may happen at any time under load, and each request that fails is accounted for.

COSTS says which deed may cost which requests; everything beyond it fails the test. At the end the service is well: it
reloads, upgrades, and holds nothing that it did not hold at the beginning. CHAOS_SECONDS says for how long (else 15,
with one and the same seed), CHAOS_SEED repeats a run; both are printed with what was done, and what it cost.
CHAOS_DEEDS names the only deeds to do, where some are looked into.
"""

import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from tests.support.deeds import PATIENCE, Deeds
from tests.support.disk import Disk
from tests.support.machine import Machine
from tests.support.mix import KINDS, Mix
from tests.support.processes import spooled
from tests.support.service import Service, deploy
from tests.support.waiting import eventually

SECONDS = float(os.environ.get("CHAOS_SECONDS", "15"))
ONLY = os.environ.get("CHAOS_DEEDS", "").split()
WORKERS = 3
CLIENTS = 28
QUIET = 4  # clients before and after
DISK = "/run/disk"
ACCESSLOG = "access.log"
AFTERMATH = 0.5  # seconds after a fault or a death in which its victims hear of it
CUT = ("end of file", "ConnectionResetError", "BrokenPipeError", "IncompleteRead")  # no time-out, and no refusal
UPLOAD = b"beyond memory" * 100_000
UPLOADS = ("uploads", "uploads, new", "posts 300 kB in pieces, new")  # go to the disk
MIX: dict[str, tuple[int, dict[str, Any]]] = KINDS | {
    "uploads": (1, {"path": "/echo", "body": UPLOAD, "pieces": 16, "think": 0.4}),
    "uploads, new": (1, {"path": "/echo", "reuse": 0, "body": UPLOAD, "pieces": 16, "think": 0.4}),
    "downloads slowly": (2, {"path": f"/big/{8 << 20}", "sip": 1 << 16, "think": 0.2}),
}


@dataclass(frozen=True)
class Cost:
    """What a deed may cost: requests that are cut, or answers of these `statuses` to these kinds of clients."""

    cut: bool = False
    statuses: tuple[int, ...] = ()
    kinds: tuple[str, ...] = tuple(MIX)

    def covers(self, kind: str, outcome: str | int) -> bool:
        if kind not in self.kinds:
            return False
        return outcome in self.statuses if isinstance(outcome, int) else self.cut and outcome.endswith(CUT)


NOTHING = Cost()
COSTS = {
    "reload": NOTHING,
    "upgrade": NOTHING,
    "restart": NOTHING,
    # Of a service whose master was killed: KillMode=mixed has nobody to tell, so systemd kills at once who still works.
    "restarted orphans": Cost(cut=True),
    "more": NOTHING,
    "less": NOTHING,
    "idle": NOTHING,
    "kill_worker": NOTHING,  # but for its victim:
    "killed worker": Cost(cut=True),
    "stop_worker": NOTHING,
    "stopped worker": Cost(cut=True),
    "kill_master": NOTHING,
    "killed master": NOTHING,
    "master_stopped": NOTHING,
    "master_dead_by_watchdog": NOTHING,
    "master under watchdog": NOTHING,
    "old_master_stopped": NOTHING,
    "journald_stopped": NOTHING,
    "journald_standing_still": NOTHING,
    "disk_standing_still": NOTHING,
    "disk_full": Cost(statuses=(507,), kinds=UPLOADS),
    "worker_without_descriptors": Cost(statuses=(503,), kinds=UPLOADS),
    "master_without_descriptors": NOTHING,
    "no_processes": NOTHING,
}
VIOLENT = {name for name, cost in COSTS.items() if cost.cut}  # against some processes, and only what those answered


class Account:
    """All that was not answered with 200: by kind of client, time and deed.

    Where a process had begun to answer, it is known whose answer was cut, whenever a slow reader comes to see that.
    """

    def __init__(self, mix: Mix, victims: dict[int, str]) -> None:
        self._mix = mix
        self._victims = victims
        self.by_deed: Counter[tuple[str, str | int]] = Counter()
        self.unexplained: list[str] = []
        for kind, load in mix.loads.items():
            for failure in load.record.lost:
                self._book(kind, failure.at, failure.name, failure.pid)
            for answer in load.record.answers:
                if answer.status != 200:
                    self._book(kind, answer.at, answer.status)

    def _book(self, kind: str, at: float, outcome: str | int, pid: int = 0) -> None:
        diary = self._mix.diary
        deeds = {what for since, until, what in diary.deeds if since <= at <= until + AFTERMATH}
        if pid:
            deeds = (deeds - VIOLENT) | ({self._victims[pid]} if pid in self._victims else set())
        guilty = [deed for deed in sorted(deeds) if COSTS[deed].covers(kind, outcome)]
        if guilty:
            self.by_deed[guilty[0], outcome] += 1
        else:
            self.unexplained.append(f"{at - diary.deeds[0][0]:.3f} s: {kind}: {outcome}, {diary.at(at)}")

    def __str__(self) -> str:
        return "\n".join(f"  {deed}: {count} {what}" for (deed, what), count in sorted(self.by_deed.items(), key=str))


@pytest.fixture
def disk(machine: Machine) -> Iterator[Disk]:
    with Disk.mounted(machine, DISK, 64) as disk:
        yield disk
        machine.systemctl("stop", "sdserve.socket", "sdserve.service")


@contextmanager
def renewed(service: Service) -> Iterator[None]:
    """The service after a reload and an upgrade, as ever; a few clients keep it from its exit on idle.

    Their requests are long and overlap: who is quick to answer only may be too slow to ask, on a crowded machine.
    """
    with (
        service.load(clients=QUIET // 2, reuse=QUIET, path="/sleep/1") as load,
        service.load(clients=QUIET // 2, reuse=QUIET, path="/sleep/0.7"),
    ):
        load.wait_answers(1)
        service.machine.wait_for(service.unit, ActiveState="active")
        service.machine.systemctl("reload", service.unit)
        service.check(workers=WORKERS, main=service.upgrade(PATIENCE))
        yield


def held(service: Service, disk: Disk) -> tuple[int, int, int, set[str], str]:
    """What the service holds: descriptors of master and workers, bytes in temporary files, files, systemd's store."""
    processes = service.machine.processes(service.unit)
    return (
        *(service.master.descriptors, sum(worker.descriptors for worker in service.workers)),
        *(sum(spooled(process.pid) for process in processes), disk.names),
        service.machine.get(service.unit, "NFileDescriptorStore"),
    )


@pytest.mark.once
def test_each_failed_request_is_accounted_for(machine: Machine, disk: Disk) -> None:
    # Of the suite one and the same seed: what fails there is due to a change, not to the dice.
    dice = random.SystemRandom().randrange(10**6) if "CHAOS_SECONDS" in os.environ else 21
    seed = int(os.environ.get("CHAOS_SEED", dice))
    settings = {"WORKERS": str(WORKERS), "THREADS": "16", "TIMEOUT": "2", "GRACEFUL_TIMEOUT": "5", "KEEPALIVE": "5"}
    settings |= {"BOOT_TIMEOUT": "10", "ORPHAN_TIMEOUT": "3", "IDLE_EXIT": "0.3"}
    settings |= {"ACCESSLOG": f"{DISK}/{ACCESSLOG}", "=TMPDIR": DISK}
    drop_in = f"[Unit]\nStartLimitIntervalSec=0\n[Service]\nRestartSec=50ms\nWatchdogSec=5\nReadWritePaths={DISK}\n"
    service = deploy(machine, settings=settings, drop_in=drop_in)
    with renewed(service):
        before = held(service, disk)
    until = time.monotonic() + SECONDS
    done: list[str] = []
    with Mix(lambda: machine.connect(service.address, timeout=PATIENCE), CLIENTS, MIX) as mix:
        mix.wait_answers(1)
        deeds = Deeds(machine, service, mix, disk, random.Random(seed), ONLY)
        while time.monotonic() < until:
            done.append(deeds.step())
            mix.wait_answers(1, PATIENCE)
            deeds.settled()
        deeds.over()
    account = Account(mix, deeds.victims)
    exits = sum("idle_exit" in line for line in machine.unit_messages(service.unit))
    story = f"CHAOS_SEED={seed}: {' '.join(done)}; {exits} idle exits; {mix.story()}\n{account}"
    print(story)
    assert not account.unexplained, "\n".join([*account.unexplained, story])
    with renewed(service):
        eventually(lambda: held(service, disk) == before, f"{before} at the end as well", PATIENCE)
