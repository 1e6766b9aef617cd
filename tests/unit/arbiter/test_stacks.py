"""Stacks of workers: whoever asks hears of each worker, also of one that ends or is stopped meanwhile."""

import os
import signal
from collections.abc import Iterator

import pytest

from sdserve.arbiter.loop import Loop
from sdserve.arbiter.spawn import _channel
from sdserve.arbiter.stacks import LOOK_EVERY, Stacks
from sdserve.arbiter.worker_handle import WorkerHandle
from sdserve.config import load
from sdserve.log import Logger
from sdserve.process import proc
from sdserve.process.pidfd import Child
from sdserve.process.scoreboard import Scoreboard
from sdserve.status import WorkerStacks
from sdserve.workers.application import Application
from sdserve.workers.base import Worker
from sdserve.workers.told import ASKED_STACKS
from tests.support.waiting import eventually


class Silent:
    """A worker that writes nothing when it is asked for its stacks, and what is told of it."""

    def __init__(self) -> None:
        self.now = 100.0
        self.loop = Loop(clock=lambda: self.now)
        self._ours, self._theirs, self._lifeline = _channel()
        before = signal.signal(ASKED_STACKS, lambda signum, frame: None)
        if (pid := os.fork()) == 0:
            while True:
                signal.pause()
        signal.signal(ASKED_STACKS, before)
        cfg = load(["app:app"], {})
        worker = Worker(1, os.getpid(), [], Application("app:app"), cfg.timeout, cfg, Logger())
        worker.slot = worker.generation = 0
        self.handle = WorkerHandle(worker, Child(pid), self._ours, Scoreboard(1).take(), self.loop.now)
        self.told: list[WorkerStacks] = []
        Stacks(self.loop).ask([self.handle], self.told.extend)

    def look(self) -> list[tuple[str, str]]:
        """What has been told when the master has looked once more."""
        self.now += LOOK_EVERY
        self.loop.turn()
        return [(each.trouble, each.stacks) for each in self.told]

    def end(self) -> None:
        self.handle.send(signal.SIGKILL)
        assert self.handle.pidfd.ended(15.0)
        self.handle.pidfd.reap()
        self._ours.close()  # as the master does

    def close(self) -> None:
        if not self.handle.pidfd.ended(0.0):
            self.end()
        self._theirs.close()
        os.close(self._lifeline)
        self.handle.pidfd.close()


@pytest.fixture
def silent() -> Iterator[Silent]:
    worker = Silent()
    yield worker
    worker.close()


def test_a_worker_that_ends_while_it_is_asked_is_not_waited_for(silent: Silent) -> None:
    assert not silent.look()
    silent.end()
    assert silent.look() == [("it has ended", "")]


def test_neither_is_one_that_is_stopped_meanwhile(silent: Silent) -> None:
    assert not silent.look()
    silent.handle.send(signal.SIGSTOP)
    eventually(lambda: proc.standing(silent.handle.pid).stopped, "it is stopped")
    [(trouble, stacks)] = silent.look()
    assert trouble.startswith("it was stopped (SIGSTOP") and not stacks
