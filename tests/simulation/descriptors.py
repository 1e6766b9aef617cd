"""The descriptors of the simulated machine: readable or not, and never waited for."""

import os
import selectors
import signal
import socket
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from sdserve.arbiter.loop import Pipe
from sdserve.process.listeners import Listener
from sdserve.workers.words import READY

if TYPE_CHECKING:
    from tests.simulation.processes import MasterProcess, Process, WorkerProcess
    from tests.simulation.world import World


@contextmanager
def real_ones_closed() -> Iterator[None]:
    """A master holds its working directory and a spare descriptor, real ones, which nobody closes when it is killed."""
    before = _open_here()
    try:
        yield
    finally:
        for fd, path in _open_here() - before:
            if path in (os.getcwd(), os.devnull):
                os.close(fd)


def _open_here() -> set[tuple[int, str]]:
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # that of the listing
            found.add((int(name), os.readlink(f"/proc/self/fd/{name}")))
    return found


def name_of(signum: int) -> str:
    """SIGTERM, or "signal 35" for a real-time one."""
    return signal.Signals(signum).name if signum in set(signal.Signals) else f"signal {signum}"


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

    def __init__(self, process: "WorkerProcess") -> None:
        super().__init__(process.world)
        self.process = process
        self.messages: deque[bytes] = deque()

    def readable(self) -> bool:
        return bool(self.messages) or self.ended

    @property
    def ended(self) -> bool:
        return self.process.mute or not self.process.alive

    def recv(self, size: int, /) -> bytes:
        if not self.messages:
            if not self.ended:
                raise BlockingIOError
            return b""
        message = self.messages.popleft()
        if message == READY:
            self.process.ready_heard = self.process.world.now
        return message

    def send(self, data: bytes, /) -> int:
        """What the master says has a signal of the same meaning, and that is what simulated workers hear."""
        return len(data)


class ProcessDescriptor(Descriptor):
    """A pidfd."""

    def __init__(self, process: "Process") -> None:
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
            process.world.breaks("reaped", f"{process} is sent {name_of(signum)} after it was reaped")
        if not process.alive:
            return False
        process.world.tell(f"{process} is sent {name_of(signum)}")
        process.world.effects += 1
        process.hear(signum)
        return True


class ChildDescriptor(ProcessDescriptor):
    """A pidfd of a worker, in its parent's hands."""

    process: "WorkerProcess"

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


class HandoverEnd(Descriptor):
    """One end of the line between two masters. `holders` is how many processes have it open."""

    def __init__(self, world: "World", maker: int) -> None:
        super().__init__(world)
        self.maker = maker
        self.holders = 1
        self.messages: deque[dict[str, Any]] = deque()
        self.other: HandoverEnd
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
        if type == "stop" and (told := self.other.user) is not None:
            told.told_to_leave, told.told_to_restart = True, fields["restart"]
        self.other.messages.append({"type": type, **fields, "fds": list(fds) if type == "control" else []})
        return True

    def receive(self) -> dict[str, Any] | None:
        if self.messages:
            return self.messages.popleft()
        return {"type": "gone"} if self.other.holders <= 0 else None

    def close(self) -> None:
        self.holders -= 1


class SimulatedBarrier(Descriptor):
    """systemd has heard."""

    def readable(self) -> bool:
        return True


class SimulatedSocket(Descriptor):
    """A Unix socket that listens."""

    family = socket.AF_UNIX

    def __init__(self, world: "World", path: str) -> None:
        super().__init__(world)
        self._path = path
        world.open[self.fileno()] = path

    def getsockname(self) -> str:
        return self._path

    def shutdown(self, how: int) -> None:
        """Nobody arrives any more. Nobody ever does here."""

    def accept(self) -> Any:
        raise BlockingIOError

    def readable(self) -> bool:
        return False


class SimulatedListener(Listener):
    """A listening socket, and whose it is."""

    def __init__(self, owner: "MasterProcess", path: str, activated: bool, inode: Any) -> None:
        held = tuple(inode) if inode else None
        self.socket = SimulatedSocket(owner.world, path)
        super().__init__(self.socket, "", activated, held)  # type: ignore[arg-type]
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
