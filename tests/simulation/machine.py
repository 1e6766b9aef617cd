"""The simulated machine: processes, descriptors, files and systemd, as far as a master can tell the difference.

A `SimulatedHost` stands in for sdserve/arbiter/host.py; all above it is the real thing. Descriptors are readable or
not, processes live, end, and wait to be reaped, systemd listens to the main process. What happens is up to world.py.
"""

import errno
import os
import selectors
import signal
import socket
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from sdserve.arbiter.adoption import Adoption
from sdserve.arbiter.arbiter import Arbiter
from sdserve.arbiter.handle import Handle
from sdserve.arbiter.hang import GRACE
from sdserve.arbiter.host import Host
from sdserve.arbiter.launch import Launch
from sdserve.arbiter.loop import Pipe
from sdserve.arbiter.signals import Handler
from sdserve.config import Config
from sdserve.errors import ListenError
from sdserve.log import Logger
from sdserve.process.listeners import Listener
from sdserve.process.pidfile import Pidfile
from sdserve.process.scoreboard import Scoreboard
from sdserve.systemd.notify import Notifier
from sdserve.systemd.watchdog import Watchdog
from sdserve.workers.base import READY, Worker

if TYPE_CHECKING:
    from tests.simulation.world import World

# What the story tells in its own words.
NOT_TOLD = ("Handling signal", "Hang up", "Starting sdserve", "Listening at", "Using worker")
DEADLY = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)  # for a program that has just been executed


class Process:
    """Anything with a pid. `status` is the wait status (waitpid(2)) once it has ended."""

    kind = "process"

    def __init__(self, world: "World") -> None:
        self.world = world
        self.pid = world.number()
        self.alive = True
        self.stopped = False
        self.status = 0

    def __str__(self) -> str:
        return f"{self.kind} {self.pid}"

    def hear(self, signum: int) -> None:
        """A signal arrives."""
        raise NotImplementedError

    def end(self, status: int) -> None:
        self.alive = self.stopped = False
        self.status = status


class WorkerProcess(Process):
    """A worker. `told` holds the signals that its master, or somebody else, sent it."""

    kind = "worker"

    def __init__(self, master: "MasterProcess", worker: Worker) -> None:
        super().__init__(master.world)
        self.master = master
        self.worker = worker
        self.channel = Channel(self)
        self.told: set[int] = set()
        self.reaped = False
        self.changed: bool | None = None  # stopped or continued, and its master does not know yet
        self.booted = False
        self.heeded = False
        self.worn = False
        self.ready_heard: float | None = None

    def hear(self, signum: int) -> None:
        self.told.add(signum)
        if signum == signal.SIGKILL:
            self.end(signum)

    def say(self, message: bytes) -> None:
        self.channel.messages.append(message)

    def end(self, status: int) -> None:
        super().end(status)
        if self.master.alive:
            self.master.deliver(signal.SIGCHLD)

    def stop(self, stopped: bool) -> None:
        """SIGSTOP or SIGCONT."""
        self.stopped = self.changed = stopped
        self.master.deliver(signal.SIGCHLD)

    @property
    def untold(self) -> bool:
        """It lives, and nobody has told it to end."""
        return self.alive and not self.told & {signal.SIGTERM, signal.SIGQUIT, signal.SIGABRT, signal.SIGKILL}

    @property
    def answers(self) -> bool:
        """A client would be answered."""
        return self.booted and self.untold and not self.stopped and not self.hangs and self.master.alive

    @property
    def hangs(self) -> bool:
        """Its request takes longer than any may."""
        since = self.worker.cell.busy_since
        return bool(since) and self.world.now - since >= self.worker.cfg.timeout + GRACE - 1e-6


class MasterProcess(Process):
    """A master; `arbiter` is the real one, once the program has started."""

    kind = "master"

    def __init__(self, world: "World", line: "Line | None" = None, passed: Sequence["SimulatedListener"] = ()) -> None:
        super().__init__(world)
        self.line = line
        if line is not None:
            line.user = self
        self.passed = list(passed)
        self.lines = [line] if line else []
        self.listeners: list[SimulatedListener] = []
        self.workers: list[WorkerProcess] = []
        self.host = SimulatedHost(self)
        self.arbiter: Arbiter | None = None
        self.said_ready = False
        self.hit_since = False  # the world took something of it, since it said that it serves
        self.told_to_leave = False  # by TERM, INT, QUIT or WINCH
        self.waiting: list[int] = []  # signals since its last turn
        self.owes: set[str] = set()  # signals that want an act or an answer
        self.early_deaths: dict[int, tuple[int, float]] = {}  # by generation: how many in a row, until when to wait
        self.questions = 0  # of sdservectl, without an answer yet
        self.loads = 0

    def start(self, cfg: Config, load: Callable[[], Config]) -> None:
        """The program runs."""

        def counted() -> Config:
            self.loads += 1
            self.owes.discard("HUP")
            return load()

        self.arbiter = Arbiter(cfg, counted, self.host)
        self.arbiter.attempt(self.arbiter.start)

    def turn(self) -> None:
        """One turn of its loop."""
        assert self.arbiter is not None
        self.arbiter.attempt(self.arbiter.turn)

    def deliver(self, signum: int) -> None:
        """A signal reaches its handler, which notes it; the kernel writes to the wake-up pipe."""
        if self.arbiter is not None:
            self.arbiter.signals.pipe.wake()
            self.arbiter.signal(signum)

    def hear(self, signum: int) -> None:
        if signum == signal.SIGKILL or (self.arbiter is None and signum in DEADLY):
            self.end(signum)
        elif self.arbiter is not None:
            if signum in (*DEADLY, signal.SIGWINCH):
                self.told_to_leave = True
            self.waiting.append(signum)
            self.deliver(signum)

    def end(self, status: int) -> None:
        super().end(status)
        for line in self.lines:
            line.holders -= 1
        self.lines.clear()
        for listener in self.listeners:
            listener.close()
        self.world.master_ended(self)

    def answer(self, answer: object) -> None:
        """What sdservectl hears."""
        self.questions -= 1

    @property
    def ready(self) -> bool:
        """Its loop would turn now."""
        if self.arbiter is None or not self.alive or self.stopped:
            return False
        return self.host.readable() or self.arbiter.loop.patience() == 0

    @property
    def serving(self) -> int:
        return sum(worker.answers for worker in self.workers)


# --- descriptors ------------------------------------------------------------------------------------------------------


class Descriptor:
    """Something with a number that the loop can watch."""

    def __init__(self, world: "World") -> None:
        self._number = world.number()
        self.closed = False

    def fileno(self) -> int:
        return self._number

    def readable(self) -> bool:
        raise NotImplementedError

    def close(self) -> None:
        self.closed = True


class SimulatedPipe(Descriptor, Pipe):
    """The wake-up pipe of one master."""

    def __init__(self, world: "World") -> None:
        Descriptor.__init__(self, world)
        self.full = False

    def readable(self) -> bool:
        return self.full

    def wake(self) -> None:
        self.full = True

    def drain(self) -> None:
        self.full = False


class Channel(Descriptor):
    """The master's end of the line to one worker."""

    def __init__(self, process: WorkerProcess) -> None:
        super().__init__(process.world)
        self.process = process
        self.messages: deque[bytes] = deque()

    def readable(self) -> bool:
        return bool(self.messages) or not self.process.alive

    def recv(self, size: int, /) -> bytes:
        if not self.messages:
            if self.process.alive:
                raise BlockingIOError
            return b""
        message = self.messages.popleft()
        if message == READY:
            self.process.ready_heard = self.process.world.now
        return message


class ProcessDescriptor(Descriptor):
    """A pidfd."""

    def __init__(self, process: Process) -> None:
        super().__init__(process.world)
        self.process = process
        self.pid = process.pid

    def readable(self) -> bool:
        return not self.process.alive

    def ended(self) -> bool:
        return not self.process.alive

    def send(self, signum: int) -> bool:
        process = self.process
        if self.closed:
            process.world.breaks("reaped", f"{process} is sent {signal.Signals(signum).name} after it was reaped")
        if not process.alive:
            return False
        process.world.tell(f"{process} is sent {signal.Signals(signum).name}")
        process.world.effects += 1
        process.hear(signum)
        return True


class ChildDescriptor(ProcessDescriptor):
    """A pidfd of a worker, in its parent's hands."""

    process: WorkerProcess

    def reap(self) -> int | None:
        process = self.process
        if process.reaped:
            process.world.breaks("reaped", f"{process} is reaped twice")
        if process.alive:
            return None
        process.reaped = True
        process.world.promises.worker_reaped(process)
        return process.status

    def stops(self) -> bool | None:
        changed, self.process.changed = self.process.changed, None
        return changed if self.process.alive else None


class Line(Descriptor):
    """One end of the line between two masters. `holders` is how many processes have it open."""

    def __init__(self, world: "World", maker: int) -> None:
        super().__init__(world)
        self.maker = maker
        self.holders = 1
        self.messages: deque[dict[str, Any]] = deque()
        self.other: Line
        self.user: MasterProcess | None = None

    def readable(self) -> bool:
        return bool(self.messages) or self.other.holders <= 0

    def peer_pid(self) -> int:
        return self.maker

    def send(self, type: str, fds: Sequence[int] = (), **fields: Any) -> bool:
        if type == "ready" and self.user is not None:
            self.user.world.promises.says_ready(self.user)
        if self.other.holders <= 0:
            return False
        self.other.messages.append({"type": type, **fields, "fds": list(fds) if type == "main" else []})
        return True

    def receive(self) -> dict[str, Any] | None:
        if self.messages:
            return self.messages.popleft()
        return {"type": "gone"} if self.other.holders <= 0 else None

    def close(self) -> None:
        self.holders -= 1


class SimulatedSocket(Descriptor):
    """A Unix socket that listens."""

    family = socket.AF_UNIX

    def __init__(self, world: "World", path: str) -> None:
        super().__init__(world)
        self._path = path
        world.open[self.fileno()] = path

    def getsockname(self) -> str:
        return self._path

    def readable(self) -> bool:
        return False


class SimulatedListener(Listener):
    """A listening socket, and whose it is."""

    def __init__(self, owner: MasterProcess, path: str, activated: bool, inode: Any) -> None:
        held = tuple(inode) if inode else None
        super().__init__(SimulatedSocket(owner.world, path), "", activated, held)  # type: ignore[arg-type]
        self.owner = owner
        owner.listeners.append(self)

    def readable(self) -> bool:
        return False

    def unlink(self) -> None:
        world = self.owner.world
        if self.inode is not None and world.sockets.get(str(self.address)) == self.inode:
            del world.sockets[str(self.address)]
            world.promises.socket_removed(self)

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)


class Key(NamedTuple):
    fd: int
    fileobj: Any
    data: Callable[[], None]


class SimulatedSelector(selectors.BaseSelector):
    """Knows what is readable and never waits."""

    def __init__(self) -> None:
        self.keys: dict[int, Key] = {}

    def register(self, fileobj: Any, events: int, data: Any = None) -> Any:
        self.keys[fileobj.fileno()] = Key(fileobj.fileno(), fileobj, data)

    def unregister(self, fileobj: Any) -> Any:
        return self.keys.pop(fileobj.fileno())

    def select(self, timeout: float | None = None) -> Any:
        return [(key, selectors.EVENT_READ) for key in self.keys.values() if key.fileobj.readable()]

    def get_map(self) -> Any:
        return self.keys


# --- files, logs, systemd ---------------------------------------------------------------------------------------------


class SimulatedPidfile(Pidfile):
    """A pidfile in a file system of two dozen bytes."""

    def __init__(self, fname: str, world: "World") -> None:
        super().__init__(fname)
        self._world = world

    def _read(self, fname: str) -> int | None:
        return self._world.files.get(fname)

    def _write(self, pid: int) -> None:
        self._world.files[self.fname] = pid

    def _remove(self, fname: str) -> None:
        self._world.files.pop(fname, None)

    def _runs(self, pid: int) -> bool:
        return self._world.lives(pid)


class StoryLog(Logger):
    """A logger that writes into the world's story."""

    def __init__(self, process: MasterProcess) -> None:
        self._process = process

    def setup(self, errorlog: str, accesslog: str | None, level: str) -> None:
        self.level = level

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

    def _deliver(self, message: str, fds: Sequence[int]) -> None:
        self._process.world.promises.systemd_hears(self._process, message)


class Queue:
    """The adoption queue: nobody puts anything in."""

    def fds(self) -> tuple[int, int]:
        return 0, 0


@dataclass
class SimulatedHost(Host):
    """The machine as one simulated master sees it."""

    master: MasterProcess
    environ: dict[str, str] = field(default_factory=dict)  # type: ignore[assignment]

    @property
    def world(self) -> "World":
        return self.master.world

    def readable(self) -> bool:
        return any(key.fileobj.readable() for key in self._selector.keys.values())

    # --- this process -------------------------------------------------------------------------------------------------

    def pid(self) -> int:
        return self.master.pid

    def now(self) -> float:
        return self.master.world.now

    def selector(self) -> selectors.BaseSelector:
        self._selector = SimulatedSelector()
        return self._selector

    def pipe(self) -> Pipe:
        return SimulatedPipe(self.world)

    def catch_signals(self, handler: Handler, pipe: Pipe) -> None:
        pass

    def title(self, text: str) -> None:
        pass

    def daemonize(self) -> None:
        raise NotImplementedError

    def on_terminal(self) -> bool:
        return False

    # --- what it was given, and what it holds by name -----------------------------------------------------------------

    def line(self) -> Any:
        return self.master.line

    def found(
        self, described: Sequence[dict[str, Any]] | None, queue: list[int], kept: bool
    ) -> tuple[list[Listener], Adoption]:
        adoption = Adoption(Queue(), kept=False)  # type: ignore[arg-type]
        if described is None:
            return [self._listener("/socket", activated=True)] if self.world.systemd else [], adoption
        passed = zip(self.master.passed, described, strict=True)
        return [self._listener(str(each.address), told["activated"], told["inode"]) for each, told in passed], adoption

    def _listener(self, address: str, activated: bool = False, inode: Any = None) -> Listener:
        return SimulatedListener(self.master, address, activated, inode)

    def adopt(self, fd: int, name: str, told: dict[str, Any]) -> Listener:
        return self._listener(self.world.open[fd], told["activated"], told["inode"])

    def bind(self, address: Any, *, backlog: int, reuse_port: bool = False, socket_mode: int = 0o600) -> Listener:
        world, path = self.world, str(address)
        if path in world.sockets and world.listening(path):
            raise ListenError(f"cannot listen on unix:{path}: another process listens there")
        world.sockets[path] = inode = (0, world.number())
        return self._listener(path, inode=inode)

    def pidfile(self, path: str) -> Pidfile:
        return SimulatedPidfile(path, self.world)

    # --- whom it tells ------------------------------------------------------------------------------------------------

    def log(self, cfg: Config) -> Logger:
        return StoryLog(self.master)

    def notifier(self, muted: bool) -> Notifier:
        return SimulatedNotifier(self.master, muted=muted)

    def watchdog(self) -> Watchdog:
        return Watchdog(None)

    # --- other processes ----------------------------------------------------------------------------------------------

    def process(self, pid: int) -> Any:
        for each in self.world.masters:
            if each.pid == pid and each.alive:
                return ProcessDescriptor(each)
        raise ProcessLookupError

    def fork_worker(
        self, worker: Worker, server: Any, scoreboard: Scoreboard, title: str, forget: Callable[[], None]
    ) -> Handle:
        master = self.master
        self.world.effects += 1
        self.world.promises.about_to_fork(master, worker)
        if self.world.no_room:
            self.world.no_room -= 1
            self.world.promises.died_early(master, worker.generation)
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        process = WorkerProcess(master, worker)
        worker.cell = scoreboard.take()
        worker.pid = process.pid
        master.workers.append(process)
        self.world.tell(f"{master} forks {process}, slot {worker.slot}, generation {worker.generation}")
        child = ChildDescriptor(process)
        return Handle(worker, child, process.channel, worker.cell, self.now)  # type: ignore[arg-type]

    def line_pair(self) -> Any:
        ours, theirs = Line(self.world, self.master.pid), Line(self.world, self.master.pid)
        ours.other, theirs.other = theirs, ours
        self.master.lines.append(ours)
        return ours, theirs

    def execute(self, launch: Launch, passed: Any, line: Any) -> int:
        self.world.effects += 1
        self.master.owes.discard("USR2")
        if self.world.no_room:
            self.world.no_room -= 1
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        line.holders += 1
        return self.world.executes(self.master, line, passed).pid

    def await_ends(self, handles: Iterable[Handle], patience: float | None) -> list[Handle]:
        left = []
        for handle in handles:
            worker = next(each for each in self.master.workers if each.pid == handle.pid)
            if worker.alive and not worker.stopped and patience is not None:
                worker.end(0)
            if worker.alive:
                left.append(handle)
            else:
                worker.reaped = True
        return left

    def reap_orphans(self, children: Collection[int]) -> None:
        raise NotImplementedError
