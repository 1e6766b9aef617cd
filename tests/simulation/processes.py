"""The processes of the simulated machine: masters, each with a real arbiter, and workers, which do as told."""

import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from sdserve.arbiter.arbiter import Arbiter
from sdserve.arbiter.hang import GRACE
from sdserve.config import Config
from sdserve.errors import Interruption
from sdserve.workers.base import Worker
from tests.simulation.descriptors import Channel, HandoverEnd, SimulatedListener

if TYPE_CHECKING:
    from tests.simulation.world import World

STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGRTMIN)


class Died(Interruption):
    """A master came to its end in the middle of its turn: what it would have done next is not done."""


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


class Storm(NamedTuple):
    """Rounds of boots in a row whose workers died early: how many, when the last was counted, until when to wait."""

    rounds: int = 0
    counted_at: float = 0.0
    until: float = 0.0


class WorkerProcess(Process):
    """A worker. `told` holds the signals that its master, or somebody else, sent it."""

    kind = "worker"

    def __init__(self, master: "MasterProcess", worker: Worker) -> None:
        super().__init__(master.world)
        self.master = master
        self.worker = worker
        self.channel = Channel(self)
        self.born = self.world.now
        self.told: set[int] = set()
        self.reaped = False
        self.changed: bool | None = None  # stopped or continued, and its master does not know yet
        self.booted: bool = False
        self.acknowledged: bool = False
        self.worn: bool = False
        self.mute: bool = False  # it has closed its channel
        self.ready_heard: float | None = None

    def hear(self, signum: int) -> None:
        self.told.add(signum)
        if signum == signal.SIGKILL:
            self.end(signum)

    def say(self, message: bytes) -> None:
        if not self.mute:
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
        return self.alive and not self.told_to_end

    @property
    def told_to_end(self) -> bool:
        return not self.told.isdisjoint((signal.SIGTERM, signal.SIGQUIT, signal.SIGABRT, signal.SIGKILL))

    @property
    def unnoticed(self) -> bool:
        """It lives, and has not been told that its time is over."""
        return self.alive and self.told.isdisjoint((signal.SIGQUIT, signal.SIGABRT, signal.SIGKILL))

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

    def __init__(
        self, world: "World", handover: HandoverEnd | None = None, passed: Sequence[SimulatedListener] = ()
    ) -> None:
        super().__init__(world)
        self.handover = handover
        if handover is not None:
            handover.user = self
        self.passed = list(passed)
        self.lines = [handover] if handover else []
        self.listeners: list[SimulatedListener] = []
        self.workers: list[WorkerProcess] = []
        self.host = world.host(self)
        self.arbiter: Arbiter | None = None
        self.said_ready = False
        self.unwritten = False  # its last attempt to write a pidfile failed
        self.hit_since = False  # the world took something of it, since it said that it serves
        self.told_to_leave = False  # by TERM, INT, QUIT, RTMIN or WINCH
        self.told_to_restart = False  # by RTMIN, and not by another one since
        self.waiting: list[int] = []  # signals since its last turn
        self.owes: set[str] = set()  # signals that want an act or an answer
        self.early_deaths: dict[int, Storm] = {}  # by generation
        self.questions = 0  # of sdservectl, without an answer yet
        self.loads = 0
        self.began: dict[int, int] = {}  # by generation: the number that was given last when it began
        self.promised = 0  # the same for the one that serves

    @property
    def unheard_successor(self) -> int:
        """The pid in a MAINPID= that systemd has not heard; 0 if there is none."""
        unsent = self.arbiter.manager.notifier.unsent if self.arbiter is not None else []
        return next((int(each.removeprefix("MAINPID=")) for each in unsent if each.startswith("MAINPID=")), 0)

    def start(self, cfg: Config, load: Callable[[], Config]) -> None:
        """The program runs."""

        def counted() -> Config:
            self.loads += 1
            self.owes.discard("HUP")
            self.world.lasts(self, self.host.limit)
            return load()

        self.arbiter = Arbiter(cfg, counted, self.host)
        with suppress(Died):
            self.arbiter.attempt(self.arbiter.start)

    def turn(self) -> None:
        """One turn of its loop."""
        assert self.arbiter is not None
        with suppress(Died):
            self.arbiter.attempt(self.arbiter.turn)

    def deliver(self, signum: int) -> None:
        """A signal reaches its handler, which notes it; the kernel writes to the wake-up pipe."""
        if self.arbiter is not None:
            self.arbiter.signals.pipe.wake()
            self.arbiter.signal(signum)

    def hear(self, signum: int) -> None:
        if signum == signal.SIGKILL or (self.arbiter is None and signum in STOPS):
            self.end(signum)
        elif signum == signal.SIGCONT:
            self.stopped = False
        elif self.arbiter is not None:
            if signum in (*STOPS, signal.SIGWINCH):
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

    def answer(self, answer: object) -> bool:
        """What sdservectl hears."""
        self.questions -= 1
        return False

    @property
    def has_handed_over(self) -> bool:
        """Another master is the main process, and waits for its end."""
        service = self.arbiter.service if self.arbiter else None
        handed_over = service is not None and service.handed_over and self.world.lives(service.reexec_pid)
        return handed_over and self is not self.world.promises.main

    @property
    def ready(self) -> bool:
        """Its loop would turn now."""
        if self.arbiter is None or not self.alive or self.stopped:
            return False
        return self.host.readable() or self.arbiter.loop.timeout() == 0

    @property
    def serving(self) -> int:
        return sum(worker.answers for worker in self.workers)
