"""What unit tests of things that live on a loop share: turning it until something has happened, and a worker on it."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from sdserve.arbiter.children import Children
from sdserve.arbiter.lifecycle import WorkerEvent
from sdserve.arbiter.loop import Loop
from sdserve.arbiter.service import Service
from sdserve.arbiter.spawn import _channel
from sdserve.arbiter.worker_handle import WorkerHandle
from sdserve.config import load
from sdserve.descriptor import Descriptor
from sdserve.events import Event
from sdserve.log import Logger
from sdserve.process.counters import CounterCell
from sdserve.process.pidfd import Child
from sdserve.workers.application import Application
from sdserve.workers.base import Worker
from sdserve.workers.words import ASKED_STACKS

PATIENCE = 15  # seconds


class Turning:
    """Something with a loop of its own."""

    loop: Loop

    def turn_until(self, done: Callable[[], object]) -> None:
        """Turns the loop until `done`; fails, rather than sleep for ever, after a while."""
        late = time.monotonic() + PATIENCE
        overdue = self.loop.call_at(late, lambda: None)
        while not done():
            assert time.monotonic() < late, "nothing came of it"
            self.loop.turn()
        overdue.cancel()


class Noting(Logger):
    """A logger that notes events: the name of each."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[str] = []

    def event(self, event: Event, *, level: int | None = None, exc_info: object = False, **about: object) -> None:
        assert set(about) == event.parameters
        self.events.append(event.name)


class Family(Turning):
    """A master's children, of which there is one: a process that lives until it is killed. What it says, the test sends
    by `theirs`, its end of the channel.

    booted: it has said already that it serves
    timeout: the setting, in seconds
    clock: the loop's, in monotonic seconds
    service: whose child it is, with a loop and a configuration of its own
    """

    def __init__(
        self,
        *,
        booted: bool = False,
        timeout: int = 30,
        clock: Callable[[], float] = time.monotonic,
        service: Service | None = None,
    ) -> None:
        cfg = service.cfg if service else load(["app:app", "--timeout", str(timeout)], {})
        self.loop = service.loop if service else Loop(clock=clock)
        self.log = Noting()
        self.children = service.children if service else Children(self.loop, self.log)
        self.children.events = self
        self.heard: list[str] = []
        self.fails: list[Exception] = []  # what the next words of a worker lead to
        pid = _fork()  # before there is a channel: it has no end of it
        ours, self.theirs, lifeline = _channel()
        self._lifeline = Descriptor(lifeline)
        self.worker = Worker(1, os.getpid(), [], Application("app:app"), cfg.timeout, cfg, Logger())
        self.worker.channel = self.theirs
        self.worker.counters = CounterCell.private()  # the usual one is every worker's of this process
        self.worker.cell = cell = self.children.scoreboard.take()
        self.handle = WorkerHandle(self.worker, Child.forked(pid), ours, cell, self.loop.now)
        if booted:
            self.handle.advance(WorkerEvent.READY)
        self.children.add(self.handle)

    # --- what the master's pool would hear ----------------------------------------------------------------------------

    def worker_ready(self, handle: WorkerHandle) -> None:
        self.heard.append("ready")

    def worker_gone(self, handle: WorkerHandle, status: int) -> None:
        self.heard.append(f"ended by {os.WTERMSIG(status)}")

    def worker_decided(self, handle: WorkerHandle, using: str) -> None:
        if self.fails:
            raise self.fails.pop()
        self.heard.append(using)

    # --- the worker's end ---------------------------------------------------------------------------------------------

    def kill(self) -> None:
        """It has ended, and nobody has heard of it yet."""
        self.handle.send(signal.SIGKILL)
        assert self.handle.pidfd.ended(PATIENCE)

    def close(self) -> None:
        if self.handle.pid in self.children.handles:
            self.kill()
            self.children.reap(self.handle)
        self.theirs.close()
        self._lifeline.close()
        self.loop.close()


@contextmanager
def _heard(signum: int) -> Iterator[None]:
    """The signal ends no process that is forked meanwhile."""
    before = signal.signal(signum, lambda signum, frame: None)
    try:
        yield
    finally:
        signal.signal(signum, before)


def _fork() -> int:
    with _heard(ASKED_STACKS):
        if pid := os.fork():
            return pid
        with suppress(BaseException):
            signal.signal(signal.SIGABRT, signal.SIG_IGN)  # whose handler, of the tests', tells of a crash
            while True:
                signal.pause()
        os._exit(1)
