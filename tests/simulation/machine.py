"""The simulated machine in a master's hands: what stands in for sdserve/arbiter/host.py.

All above it is the real thing. Processes and descriptors are in processes.py and descriptors.py; what happens is up to
world.py.
"""

import errno
import os
import selectors
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from logging import NullHandler
from typing import TYPE_CHECKING, Any, TypeVar

from sdserve.arbiter.adoption import Adoption
from sdserve.arbiter.host import Host
from sdserve.arbiter.loop import Pipe
from sdserve.arbiter.reexec import Reexec
from sdserve.arbiter.signals import Handler
from sdserve.arbiter.worker_handle import WorkerHandle
from sdserve.config import Config
from sdserve.errors import AddressInUse, PidfileError
from sdserve.events import Event
from sdserve.log import Destinations, Logger
from sdserve.process.counter_memory import CounterMemory
from sdserve.process.listeners import Listener
from sdserve.process.pidfile import Pidfile
from sdserve.process.program import Program
from sdserve.process.scoreboard import Scoreboard
from sdserve.systemd.notify import Notifier
from sdserve.systemd.watchdog import Watchdog
from sdserve.workers.base import Worker
from tests.simulation.descriptors import (
    ChildDescriptor,
    HandoverEnd,
    ProcessDescriptor,
    SimulatedBarrier,
    SimulatedListener,
    SimulatedPipe,
    SimulatedSelector,
)
from tests.simulation.processes import MasterProcess, WorkerProcess

if TYPE_CHECKING:
    from tests.simulation.world import World

T = TypeVar("T")

# What the story tells in its own words.
NOT_TOLD = ("Handling signal", "Hang up", "Starting sdserve", "Listening at", "Using worker")


class SimulatedPidfile(Pidfile):
    """A pidfile in a file system of two dozen bytes."""

    def __init__(self, fname: str, master: MasterProcess) -> None:
        super().__init__(fname)
        self._master = master
        self._world = master.world

    def _read(self, fname: str) -> int | None:
        return self._world.files.get(fname)

    def _moves(self, fname: str) -> bool:
        return False  # to another disk

    def _write(self, fname: str, pid: int) -> None:
        self._master.unwritten = self._world.disk_full > 0
        if self._world.disk_full:
            self._world.disk_full -= 1
            self._world.tell(f"{self._master} cannot write {fname}")
            raise PidfileError(f"cannot write the pidfile {fname}: {os.strerror(errno.ENOSPC)}")
        self._world.files[fname] = pid

    def _remove(self, fname: str) -> None:
        self._world.files.pop(fname, None)

    def _runs(self, pid: int) -> bool:
        return self._world.lives(pid)


class StoryLog(Logger):
    """A logger that writes into the world's story."""

    def is_enabled(self, level: str) -> bool:
        return False

    def __init__(self, process: MasterProcess) -> None:
        self._process = process

    def open(self, errorlog: str, accesslog: str | None, level: str, owner: object = None) -> Destinations:
        return Destinations(NullHandler(), NullHandler(), level)

    def use(self, destinations: Destinations) -> None:
        self.level = destinations.level

    def echo(self, wanted: bool) -> None:
        """The story is the only log."""

    def measure(self, statsd: object) -> None:
        """Nobody gathers figures."""

    def reopen_files(self) -> None:
        self._process.owes.discard("USR1")

    def info(self, msg: object, *args: object, **kwargs: Any) -> None:
        process, text = self._process, str(msg)
        if not text.startswith(NOT_TOLD):
            process.world.tell(process, text, *args)
        if text.startswith("HUP ignored"):
            process.owes.discard("HUP")
        elif text.startswith("USR2 signal ignored"):
            process.owes.discard("USR2")

    critical = error = warning = info

    def event(self, event: Event, *, level: int | None = None, exc_info: Any = False, **about: object) -> None:
        text = event.message % about if about else event.message
        self.exception(text) if exc_info else self.info(text.replace("%", "%%"))

    def exception(self, msg: object, *args: object, **kwargs: Any) -> None:
        self._process.world.unforeseen()

    def debug(self, msg: object, *args: object, **kwargs: Any) -> None:
        pass

    trace = debug


class SimulatedNotifier(Notifier):
    """The line to the simulated systemd."""

    def __init__(self, process: MasterProcess, *, muted: bool) -> None:
        super().__init__("/notify" if process.world.systemd else None, muted=muted)
        self._process = process

    def barrier(self) -> Any:
        """systemd handles a message as soon as it hears it."""
        return SimulatedBarrier(self._process.world) if self.enabled else None

    def ready(self, status: str) -> None:
        """It is said now, whenever systemd hears of it."""
        process = self._process
        if not self.muted and not process.said_ready and process.handover is None:
            process.world.promises.says_ready(process)
        super().ready(status)

    def _deliver(self, message: str, fds: Sequence[int] = ()) -> bool:
        world = self._process.world
        if not self._process.alive:
            return True  # the dead say nothing
        if world.deaf:
            world.deaf -= 1
            world.promises.watchdog.misses(message)
            self.trouble = OSError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
            return False
        main = world.promises.main
        if main is not None and main is not self._process and main.unheard_successor:
            return True  # it does not hear whom it has not been told of
        world.promises.systemd_hears(self._process, message)
        return True


class Queue:
    """The adoption queue: nobody puts anything in."""

    def fds(self) -> tuple[int, int]:
        return 0, 0


class SimulatedAdoption(Adoption):
    """The queue as a master sees it; systemd keeps it."""

    def store(self, notifier: Notifier) -> None:
        """systemd has it already."""


@dataclass
class SimulatedHost(Host):
    """The machine as one simulated master sees it."""

    master: MasterProcess
    environ: dict[str, str] = field(default_factory=dict)
    limit: float = 0.0  # of the step under way

    @property
    def world(self) -> "World":
        return self.master.world

    def readable(self) -> bool:
        return any(key.fileobj.readable() for key in self._selector.keys.values())

    # --- this process -------------------------------------------------------------------------------------------------

    def pid(self) -> int:
        return self.master.pid

    def program(self) -> Program:
        return Program("/sdserve", ("/sdserve",))

    def now(self) -> float:
        return self.master.world.now

    def pause(self, seconds: float) -> None:
        """After an error that nobody foresaw, which the log has told to the promises."""

    def selector(self) -> selectors.BaseSelector:
        self._selector = SimulatedSelector()
        return self._selector

    def pipe(self) -> Pipe:
        return SimulatedPipe(self.world)

    def catch_signals(self, handler: Handler, pipe: Pipe) -> None:
        pass

    def title(self, text: str) -> None:
        pass

    def limited(self, seconds: float, work: Callable[[], T]) -> T:
        self.limit = seconds
        return work()

    def hook(self, name: str) -> None:
        """The configuration's hook of that name runs."""
        self.world.runs(self.master, name, self.limit)

    def hook_before_fork(self, worker: Worker) -> None:
        """As `hook`. Where it raises, that is a boot which failed."""
        try:
            self.hook("pre_fork")
        except Exception:
            self.world.promises.died_early(self.master, worker.generation, self.now(), False)
            raise

    def daemonize(self) -> None:
        raise NotImplementedError

    def on_terminal(self) -> bool:
        return False

    # --- what it was given, and what it holds by name -----------------------------------------------------------------

    def handover(self) -> Any:
        return self.master.handover

    def found(
        self, described: Sequence[dict[str, Any]] | None, queue: list[int], counters: list[int], kept: bool
    ) -> tuple[list[Listener], Adoption, tuple[CounterMemory, str]]:
        adoption = SimulatedAdoption(Queue(), kept=self.world.systemd)  # type: ignore[arg-type]
        if described is None:
            listeners = [self._listener("/socket", activated=True)] if self.world.systemd else []
            return listeners, adoption, (CounterMemory.private(), "")
        passed = zip(self.master.passed, described, strict=True)
        listeners = [self._listener(str(each.address), told["activated"], told["inode"]) for each, told in passed]
        return listeners, adoption, (CounterMemory.private(), "")

    def _listener(self, address: str, activated: bool = False, inode: Any = None) -> Listener:
        return SimulatedListener(self.master, address, activated, inode)

    def adopt(self, fd: int, name: str, told: Mapping[str, Any]) -> Listener:
        return self._listener(self.world.open[fd], told["activated"], told["inode"])

    def bind(self, address: Any, *, backlog: int, reuse_port: bool = False, socket_mode: int = 0o600) -> Listener:
        world, path = self.world, str(address)
        if path in world.sockets and world.listening(path):
            raise AddressInUse(f"cannot listen on unix:{path}: another process listens there")
        world.sockets[path] = inode = (0, world.number())
        return self._listener(path, inode=inode)

    def pidfile(self, path: str) -> Pidfile:
        return SimulatedPidfile(path, self.master)

    # --- whom it tells ------------------------------------------------------------------------------------------------

    def log(self, cfg: Config) -> Logger:
        return StoryLog(self.master)

    def notifier(self, muted: bool) -> Notifier:
        return SimulatedNotifier(self.master, muted=muted)

    def watchdog(self) -> Watchdog:
        seconds = self.world.plan.watchdog if self.world.systemd else 0
        return Watchdog(seconds * 1_000_000 or None)

    # --- other processes ----------------------------------------------------------------------------------------------

    def process(self, pid: int) -> Any:
        for each in self.world.masters:
            if each.pid == pid and each.alive:
                return ProcessDescriptor(each)
        raise ProcessLookupError

    def fork_worker(
        self, worker: Worker, server: Any, scoreboard: Scoreboard, close_in_child: Callable[[], None]
    ) -> tuple[Any, Any]:
        master = self.master
        self.world.effects += 1
        self.world.promises.about_to_fork(master, worker)
        if self.world.no_room:
            self.world.no_room -= 1
            self.world.promises.died_early(master, worker.generation, self.now(), True)
            number = (errno.EAGAIN, errno.ENOMEM)[self.world.no_room % 2]
            raise OSError(number, os.strerror(number))
        process = WorkerProcess(master, worker)
        worker.cell = scoreboard.take()
        worker.pid = process.pid
        master.workers.append(process)
        self.world.tell(f"{master} forks {process}, slot {worker.slot}, generation {worker.generation}")
        return ChildDescriptor(process), process.channel

    def handover_pair(self) -> Any:
        ours, theirs = HandoverEnd(self.world, self.master.pid), HandoverEnd(self.world, self.master.pid)
        ours.other, theirs.other = theirs, ours
        self.master.lines.append(ours)
        return ours, theirs

    def execute(self, reexec: Reexec, passed: Any, handover: Any) -> Any:
        self.world.effects += 1
        self.master.owes.discard("USR2")
        if self.world.no_room:
            self.world.no_room -= 1
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        handover.holders += 1
        return ProcessDescriptor(self.world.executes(self.master, handover, passed))

    def examine(self, loop: Any, program: Any, directory: str, environ: Any, on_reason: Callable[[str], None]) -> None:
        on_reason("it ended before it served")

    def fork_observer(self, service: Any, addresses: Any, lifeline: int) -> Any:
        raise AssertionError("nobody scrapes a simulated service")

    def moment(self, ago: float) -> str:
        return "some time ago"

    def end_leftovers(self) -> list[int]:
        return []

    def await_ends(self, handles: Iterable[WorkerHandle], timeout: float) -> list[WorkerHandle]:
        left = []
        for handle in handles:
            worker = next(each for each in self.master.workers if each.pid == handle.pid)
            if worker.alive and not worker.stopped:
                worker.end(0)
            if worker.alive:
                left.append(handle)
            else:
                worker.reaped = True
        return left

    def reap_orphans(self) -> None:
        raise NotImplementedError
