"""What the master hears of its workers, and what becomes of those that cannot end."""

import os
import signal
import socket
import time
from collections.abc import Iterator

import pytest

from sdserve.arbiter.children import Children
from sdserve.arbiter.lifecycle import WorkerEvent
from sdserve.arbiter.loop import Loop
from sdserve.arbiter.worker_handle import WorkerHandle
from sdserve.config import load
from sdserve.log import Logger
from sdserve.process.pidfd import Child
from sdserve.process.scoreboard import Scoreboard
from sdserve.workers.application import Application
from sdserve.workers.base import Worker
from sdserve.workers.told import READY
from tests.unit.arbiter.turning import Turning


class Family(Turning):
    """A worker's process, which lives until it is killed, and the master's children, which tell what they hear."""

    def __init__(self) -> None:
        self.loop = Loop()
        ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        pid = os.fork()
        if pid == 0:
            self.theirs.close()
            signal.pause()
            os._exit(0)
        cfg = load(["app:app"], {})
        worker = Worker(1, os.getpid(), [], Application("app:app"), cfg.timeout, cfg, Logger())
        self.handle = WorkerHandle(worker, Child.forked(pid), ours, Scoreboard(1).take(), time.monotonic)
        self.heard: list[str] = []
        self.children = Children(self.loop, Logger())
        self.children.events = self
        self.children.add(self.handle)

    def worker_ready(self, handle: WorkerHandle) -> None:
        self.heard.append("ready")

    def worker_gone(self, handle: WorkerHandle, status: int) -> None:
        self.heard.append(f"ended by {os.WTERMSIG(status)}")

    def worker_decided(self, handle: WorkerHandle, using: str) -> None:
        self.heard.append(using)

    def turns_within(self, seconds: float) -> int:
        """How often the loop turns meanwhile."""
        over: list[bool] = []
        self.loop.call_at(self.loop.now() + seconds, lambda: over.append(True))
        turns = 0
        while not over:
            self.loop.turn()
            turns += 1
        return turns

    def close(self) -> None:
        self.handle.send(signal.SIGKILL)
        self.turn_until(lambda: not len(self.children))
        self.theirs.close()
        self.loop.close()


@pytest.fixture
def family() -> Iterator[Family]:
    found = Family()
    try:
        yield found
    finally:
        found.close()


def test_a_worker_that_has_closed_its_channel_and_does_not_end_keeps_nobody_awake(family: Family) -> None:
    """Its last words are heard, and so is its end, whenever that comes."""
    family.theirs.send(READY)
    family.theirs.close()
    assert family.turns_within(0.2) <= 4
    family.children.listen()
    assert family.turns_within(0.1) <= 2
    assert family.heard == ["ready"]
    family.handle.advance(WorkerEvent.RETIRE)
    family.handle.send(signal.SIGKILL)
    family.turn_until(lambda: not len(family.children))
    assert family.heard == ["ready", "ended by 9"]
