"""The master's view of one worker: the process, the channel to it, and the phase of its life.

The worker object that hooks see is made before the fork and stays here as the master's copy; the handle adds what only
the master needs. Phases change through `advance` alone.
"""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, Protocol

from sdserve.arbiter.decide import LIVE, Member
from sdserve.arbiter.lifecycle import WORKER, Phase, WorkerEvent, advance
from sdserve.arbiter.loop import NO_DEADLINE, Deadline
from sdserve.descriptor import Descriptor
from sdserve.process.counters import GENERATION, INDEX, MASTER, OPEN, PID, SLOT, STOPPED, THREADS
from sdserve.process.pidfd import UNKNOWN, Child
from sdserve.process.proc import standing
from sdserve.process.scoreboard import REQUESTS, Cell
from sdserve.status import WorkerStatus
from sdserve.workers.base import Worker
from sdserve.workers.lasting import Lasting, decode
from sdserve.workers.words import LONGEST

NO_FILE = Descriptor(-1)
MOST_SAID = 512  # messages: more than the kernel has room for in one channel


class Channel(Protocol):
    """The master's end of the channel to a worker: a non-blocking socket."""

    def fileno(self) -> int: ...

    def recv(self, size: int, /) -> bytes: ...

    def send(self, data: bytes, /) -> int: ...

    def close(self) -> None: ...


class WorkerHandle:
    """One worker process. `deadline` (seconds on `clock`) ends the present phase if nothing else does."""

    def __init__(
        self, worker: Worker, process: Child, channel: Channel, cell: Cell, clock: Callable[[], float]
    ) -> None:
        self.worker = worker
        self.pid = process.pid
        self.pidfd = process
        self.channel = channel
        self._clock = clock
        boot_timeout = worker.cfg.boot_timeout
        self.cell = cell
        self.phase = Phase.BOOTING
        self.born = clock()
        self.killed_from_outside = False
        self.retired = False  # it was told to leave: its end is no failure
        self.deadline: float | None = clock() + boot_timeout if boot_timeout else None
        self.serving_since: float | None = None
        self.worn_at: float | None = None  # when it has served for long enough (max_age)
        self.worn = False
        self.mute = False  # it has closed its end of the channel: it ends, or says nothing any more
        self.hang: Deadline = NO_DEADLINE  # when its oldest request will have taken too long, while somebody watches
        self.look: Deadline = NO_DEADLINE  # when it will have shown that it polls, where that is to be seen
        self.silence: Deadline = NO_DEADLINE  # when it will have shown that it lives on without its channel
        self.stopped = False
        self.asks = False  # it leaves because somebody else told it to, and waits to hear whether others follow
        self.acknowledged = False  # it has said that it takes no more connections
        self.reason = ""  # why it cannot boot, in its own words
        self.asked = self.answered = 0.0  # when it was asked which requests last, and when it last said so
        self.lasting: tuple[Lasting, ...] = ()  # what it said

    @property
    def age(self) -> int:
        return self.worker.age

    @property
    def generation(self) -> int:
        return self.worker.generation

    def named(self) -> dict[str, Any]:
        """Which worker an event of it is about."""
        return {"WORKER_PID": self.pid, "SLOT": self.worker.slot, "GENERATION": self.generation}

    def member(self) -> Member:
        """The worker as the decisions see it."""
        who = self.worker.age, self.worker.slot, self.worker.generation
        return Member(*who, self.phase, self.deadline, self.worn, self.worn_at, self.stopped, self.serving_since)

    def advance(self, event: WorkerEvent, timeout: float | None = None) -> None:
        """Changes the phase; the new one ends after `timeout` seconds at the latest."""
        before = self.phase
        if event is WorkerEvent.READY and before is not Phase.BOOTING:
            return  # it said so before it heard that it should leave
        self.retired |= event is WorkerEvent.RETIRE and before in LIVE
        self.phase = advance(WORKER, self.phase, event)
        self.worker.counters.state = self.phase.value
        self.deadline = None if timeout is None else self._clock() + timeout
        if event is WorkerEvent.READY:
            self.serving_since = self._clock()
            self.worn_at = worn_at(self.serving_since, self.worker.cfg.max_age)
        if before is not self.phase:
            who = self.pid, self.worker.slot, self.worker.generation
            text = "worker %s: slot %s, generation %s: %s, now %s"
            self.worker.log.trace(text, *who, event.value, self.phase.value)

    def wears_out(self, served: float) -> None:
        """It serves, and is replaced when it has done so for `served` seconds, or as soon as it would be anyway."""
        assert self.serving_since is not None
        when = self.serving_since + served
        self.worn_at = when if self.worn_at is None else min(self.worn_at, when)

    def show(self) -> None:
        """Shows what the master knows of the worker to whoever reads the counters."""
        cell = self.worker.counters
        cell.set(PID, self.pid)
        cell.set(SLOT, self.worker.slot)
        cell.set(GENERATION, self.worker.generation)
        cell.set(INDEX, self.cell.index)
        cell.set(MASTER, self.worker.ppid)
        cell.born = self.born
        cell.state = self.phase.value

    @property
    def stacks(self) -> Descriptor:
        """The file in memory that the worker writes its stacks to, when it is asked."""
        return getattr(self.channel, "stacks", NO_FILE)  # spawn.py makes both

    def send(self, signum: int) -> None:
        """Sends a signal; nothing happens if the process has ended and only waits to be reaped."""
        self.pidfd.send(signum)

    def tell(self, message: bytes) -> bool:
        """One datagram to the worker; false if it was not sent, whatever the reason. Most have a signal that says the
        same."""
        with suppress(OSError):
            self.channel.send(message)
            return True
        return False

    def note_calls(self, said: bytes) -> None:
        """The worker says which requests last."""
        try:
            answered, self.lasting = decode(said)
        except ValueError as error:
            self.worker.log.debug("worker %s says nonsense: %s", self.pid, error)
        else:
            self.answered = min(answered, self._clock())

    def messages(self) -> Iterator[bytes]:
        """All that the worker said since the last call; of one that does not cease to speak, what the channel holds.

        Each is taken out when the one before was heard: if that fails, the others are still there.
        """
        for _ in range(MOST_SAID):
            try:
                message = self.channel.recv(LONGEST)
            except (BlockingIOError, ConnectionResetError):
                return
            if not message:
                self.mute = True
                return
            yield message

    def note_stops(self) -> bool:
        """Whether the process was stopped (SIGSTOP, a tracer), or goes on, since the last call.

        One that should serve may stay stopped for `timeout` seconds (0: for ever).
        """
        before, stopped = self.stopped, self.pidfd.stops()
        self.stopped = before if stopped is None else stopped
        self.worker.counters.set(STOPPED, self.stopped)
        if self.stopped is not before and self.phase is Phase.SERVING:
            timeout = self.worker.cfg.timeout
            self.deadline = self._clock() + timeout if self.stopped and timeout else None
        return self.stopped is not before

    def can_hang_at_rest(self) -> bool:
        """Whether anything but a request could keep the worker from polling: an event loop does what the application
        likes, and a thread that the application has begun may call C code that keeps the interpreter to itself."""
        own = self.worker.counters.get(THREADS)
        try:
            return not own or standing(self.pid).threads > (own + 1 if own > 1 else own)  # several have a watcher
        except OSError:
            return True

    @property
    def connections(self) -> int:
        """How many there are, at least. It counts them when it looks at its sockets, and not while it is busy."""
        return max(self.worker.counters.get(OPEN), 1 if self.cell.busy_since else 0)

    def status(self, now: float) -> WorkerStatus:
        """The worker as the scoreboard shows it at `now` (monotonic seconds)."""
        since = self.cell.busy_since
        return WorkerStatus(
            pid=self.pid,
            slot=self.worker.slot,
            generation=self.worker.generation,
            phase=self.phase.value,
            requests=self.cell.word(REQUESTS),
            busy=now - since if since else None,
        )

    def served(self) -> float | None:
        """For how many seconds it has served, None if it never did."""
        return None if self.serving_since is None else self._clock() - self.serving_since


def worn_at(serving_since: float, max_age: float) -> float | None:
    """When a worker has served for `max_age` seconds (0: never), and a random tenth more: never all in step."""
    if not max_age:
        return None
    return serving_since + max_age * (1.0 + int.from_bytes(os.urandom(4)) / 2**32 / 10)


def cause_of_end(handle: WorkerHandle, status: int) -> str:
    """Why a worker has ended, as one of counters.CAUSES:

    told: a reload, an upgrade, a stop or a smaller pool; recycled: max_requests, max_age or max_memory, and it was
    replaced; timeout: a request took longer than `timeout`; late: it was told to leave and had not finished in time;
    killed: somebody else sent SIGKILL, as the OOM killer does; crashed: another signal, as SIGSEGV; exited: it ended by
    itself; boot: it never served.
    """
    if handle.serving_since is None and not handle.retired:
        return "boot"
    if handle.worker.aborted:
        return "timeout"
    if status != UNKNOWN and os.WIFSIGNALED(status):
        if handle.killed_from_outside:
            return "killed"
        return "late" if os.WTERMSIG(status) == signal.SIGKILL and handle.retired else "crashed"
    if handle.retired:
        return "recycled" if handle.worn else "told"
    return "exited"


def describe(status: int, *, ordered: bool = False) -> str:
    """A wait status in words; `ordered`: the master itself may have killed it."""
    if status == UNKNOWN:
        return "ended, and somebody else reaped it: a hook or the application ignores SIGCHLD or calls os.wait()"
    if os.WIFSIGNALED(status):
        try:
            name = signal.Signals(os.WTERMSIG(status)).name
        except ValueError:
            name = f"signal {os.WTERMSIG(status)}"
        return f"was sent {name}" + ("! Perhaps out of memory?" if name == "SIGKILL" and not ordered else "!")
    return f"exited with code {os.WEXITSTATUS(status)}"
