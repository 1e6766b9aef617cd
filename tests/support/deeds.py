"""What can be done to a service: deploys, signals, kills, and faults of the machine that last for a while.

Each is written into the diary under its own name, from when to when: a kill until the victim is gone. A deed waits for
its outcome and demands it, unless a fault lasts: then nobody can say what a reload or an upgrade comes to.
"""

import random
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

from tests.support.disk import Disk
from tests.support.machine import Machine
from tests.support.mix import Mix
from tests.support.processes import Process
from tests.support.service import Service
from tests.support.waiting import eventually

PATIENCE = 60.0  # seconds until what was stopped, killed or restarted has to be over
JOURNALD = "systemd-journald.service"
JOURNALD_SOCKETS = ("systemd-journald.socket", "systemd-journald-dev-log.socket")
OPEN_FILES = ("Max open files", "nofile")
PROCESSES = ("Max processes", "nproc")
pace = threading.Event()  # never set: to let a fault last


class Deeds:
    """Everything that a random history may do, or `only` the deeds of these names."""

    def __init__(
        self,
        machine: Machine,
        service: Service,
        mix: Mix,
        disk: Disk,
        chance: random.Random,
        only: Sequence[str] = (),
    ) -> None:
        self._machine = machine
        self._service = service
        self._mix = mix
        self._disk = disk
        self._chance = chance
        self._fault = False
        self._killed = -1  # the last master that was killed
        self.victims: dict[int, str] = {}
        """The processes that were done away with, and by which entry of the diary."""
        self._watchers: list[threading.Thread] = []
        self.plain: list[Callable[[], None]] = [
            *(self.reload, self.upgrade, self.restart, self.more, self.less),
            *(self.kill_worker, self.stop_worker, self.kill_master),
        ]
        self.alone: list[Callable[[], None]] = [self.idle, self.old_master_stopped, self.master_dead_by_watchdog]
        if disk.can_stand_still:
            self.alone.append(self.disk_standing_still)
        self.faults: list[Callable[[], AbstractContextManager[None]]] = [
            *(self.journald_stopped, self.journald_standing_still, self.disk_full, self.master_stopped),
            *(self.worker_without_descriptors, self.master_without_descriptors, self.no_processes),
        ]
        if only:
            self.plain = [deed for deed in self.plain if deed.__name__ in only]
            self.alone = [deed for deed in self.alone if deed.__name__ in only]
            self.faults = [fault for fault in self.faults if fault.__name__ in only]

    def step(self) -> str:
        """One deed, or a fault and what is done while it lasts; returns their names."""
        kind = self._chance.random()
        if self.plain and (kind < 0.4 or not (self.alone or self.faults)):
            return self._do(self._chance.choice(self.plain))
        if self.alone and (kind < 0.55 or not self.faults):
            return self._do(self._chance.choice(self.alone))
        fault = self._chance.choice(self.faults)
        inner = self._chance.choices(self.plain, k=self._chance.randrange(3)) if self.plain else []
        with self._mix.diary.entry(fault.__name__), fault():
            self._fault = True
            try:
                done = [self._do(deed) for deed in inner]
                pace.wait(self._chance.uniform(0.2, 1.0))
            finally:
                self._fault = False
        return f"{fault.__name__}({' '.join(done)})"

    def settled(self) -> None:
        """Waits until systemd and the service agree that all is well."""

        def look() -> bool:
            seen = self._machine.show(self._service.unit, "ActiveState", "StatusText", "MainPID", "Job")
            assert seen.get("Job", "") in ("", "0"), seen
            assert (seen["ActiveState"], seen["StatusText"][:7]) == ("active", "Running"), seen
            return seen["MainPID"] != "0"

        eventually(look, "a running service", PATIENCE)

    def over(self) -> None:
        """Waits until everything that was killed is gone."""
        for watcher in self._watchers:
            watcher.join(PATIENCE)
            assert not watcher.is_alive(), f"{watcher.name} did not end it"

    def _do(self, deed: Callable[[], None]) -> str:
        with self._mix.diary.entry(deed.__name__):
            deed()
        return deed.__name__

    # -- deploys

    def reload(self) -> None:
        self._machine.systemctl("reload", *self._patience(), self._service.unit, check=not self._fault)

    def upgrade(self) -> None:
        if self._fault:
            self._machine.systemctl("kill", "-s", "USR2", self._service.unit, check=False)
        else:
            self._service.upgrade(PATIENCE)

    def restart(self) -> None:
        if self._service.main in (0, self._killed):  # its workers still finish requests: systemd kills them for this
            self._watch("restarted orphans", self._machine.processes(self._service.unit))
        self._machine.systemctl("restart", *self._patience(), self._service.unit)

    def more(self) -> None:
        self._signal_master("TTIN")

    def less(self) -> None:
        self._signal_master("TTOU")

    def idle(self) -> None:
        """All clients pause for about as long as the service puts up with: the next request may meet its exit."""
        self._mix.pause()
        pace.wait(self._chance.uniform(0.3, 1.1))
        self._mix.resume()

    def _patience(self) -> tuple[str, ...]:
        return ("--no-block",) if self._fault else ()

    def _signal_master(self, name: str) -> None:
        self._machine.systemctl("kill", "--kill-whom=main", "-s", name, self._service.unit, check=False)

    # -- kills

    def kill_worker(self) -> None:
        self._violent("killed worker", self._worker(), signal.SIGKILL)

    def stop_worker(self) -> None:
        self._violent("stopped worker", self._worker(), signal.SIGSTOP)

    def kill_master(self) -> None:
        master = self._master()
        self._killed = master.inner
        self._violent("killed master", master, signal.SIGKILL)
        if not self._fault:
            eventually(lambda: self._service.main not in (0, master.inner), "another master", PATIENCE)

    def master_dead_by_watchdog(self) -> None:
        """Stopped for good: systemd's watchdog ends it."""
        master = self._master()
        self._violent("master under watchdog", master, signal.SIGSTOP)
        eventually(lambda: self._service.main not in (0, master.inner), "another master", PATIENCE)

    def old_master_stopped(self) -> None:
        """An old master that stands still while it drains, for a moment or for good."""
        old = self._master()
        self._service.upgrade(PATIENCE)
        try:
            old.kill(signal.SIGSTOP)
            if self._chance.random() < 0.5:
                pace.wait(self._chance.uniform(0.2, 1.0))
                old.kill(signal.SIGCONT)
        except ProcessLookupError:  # it has drained already
            return
        old.wait_gone(PATIENCE)

    def _master(self) -> Process:
        return eventually(lambda: self._service.master, "a master", PATIENCE)

    def _worker(self) -> Process:
        return self._chance.choice(eventually(lambda: self._service.workers, "a worker", PATIENCE))

    def _violent(self, name: str, victim: Process, number: signal.Signals) -> None:
        """`name` stands in the diary from the signal until the victim's end."""
        self._watch(name, [victim])
        try:
            victim.kill(number)
        except ProcessLookupError:  # it had left by itself
            return

    def _watch(self, name: str, victims: list[Process]) -> None:
        """`name` stands in the diary from now on until all of them have ended."""
        begun = threading.Event()

        def watch() -> None:
            with self._mix.diary.entry(name):
                begun.set()
                for victim in victims:
                    victim.wait_gone(PATIENCE)

        inner = [victim.inner for victim in victims]
        self.victims.update(dict.fromkeys(inner, name))
        self._watchers.append(threading.Thread(target=watch, name=f"{name} {inner}", daemon=True))
        self._watchers[-1].start()
        begun.wait()

    # -- faults that last

    @contextmanager
    def journald_stopped(self) -> Iterator[None]:
        self._machine.systemctl("stop", *JOURNALD_SOCKETS, JOURNALD)
        try:
            yield
        finally:
            self._machine.systemctl("start", *JOURNALD_SOCKETS, JOURNALD)

    @contextmanager
    def journald_standing_still(self) -> Iterator[None]:
        [journald] = self._machine.processes(JOURNALD)
        with _standing_still(journald):
            yield

    @contextmanager
    def master_stopped(self) -> Iterator[None]:
        with _standing_still(self._master()):
            yield

    @contextmanager
    def disk_full(self) -> Iterator[None]:
        with self._disk.full():
            yield

    def disk_standing_still(self) -> None:
        with self._disk.standing_still():
            pace.wait(self._chance.uniform(0.2, 0.8))

    @contextmanager
    def worker_without_descriptors(self) -> Iterator[None]:
        with self._limited(OPEN_FILES, [self._worker()], lambda process: process.descriptors):
            yield

    @contextmanager
    def master_without_descriptors(self) -> Iterator[None]:
        with self._limited(OPEN_FILES, [self._master()], lambda process: process.descriptors):
            yield

    @contextmanager
    def no_processes(self) -> Iterator[None]:
        """No process of the service can start another, nor a thread."""
        with self._limited(PROCESSES, self._machine.processes(self._service.unit), lambda process: 1):
            yield

    @contextmanager
    def _limited(
        self, limit: tuple[str, str], concerned: list[Process], most: Callable[[Process], int]
    ) -> Iterator[None]:
        """A resource of these processes, and of those that they start, is used up."""
        name, option = limit
        before, _ = self._master().limits(name)
        for process in concerned:
            if process.alive:
                process.set_soft_limit(option, most(process))
        try:
            yield
        finally:
            eventually(lambda: not self._lift(limit, before), "processes without the limit", PATIENCE)

    def _lift(self, limit: tuple[str, str], soft: int) -> list[Process]:
        """Which processes had another limit, as what was started just now may have inherited it."""
        name, option = limit
        found = [p for p in self._machine.processes(self._service.unit) if p.limits(name)[0] != soft]
        for process in found:
            process.set_soft_limit(option, soft)
        return found


@contextmanager
def _standing_still(process: Process) -> Iterator[None]:
    process.kill(signal.SIGSTOP)
    try:
        yield
    finally:
        if process.alive:
            process.kill(signal.SIGCONT)
