"""Hung workers are noticed without a heartbeat, idle ones are left alone, and a wrong alarm is taken back."""

import math
import os
import socket
import time
from collections.abc import Iterator

import pytest

from sdserve.arbiter.hang import GRACE, HangWatch
from sdserve.arbiter.lifecycle import Phase, WorkerEvent
from sdserve.arbiter.loop import Loop
from sdserve.arbiter.worker_handle import WorkerHandle
from sdserve.config import load
from sdserve.log import Logger
from sdserve.process.pidfd import Child
from sdserve.process.scoreboard import WATCHED, Scoreboard
from sdserve.workers.application import Application
from sdserve.workers.base import Worker
from tests.unit.arbiter.turning import Turning

TIMEOUT = 1


class Watched(Turning):
    """One worker that serves, as the master sees it, and the watch over it."""

    def __init__(self, timeout: int = TIMEOUT) -> None:
        cfg = load(["app:app", "--timeout", str(timeout)], {})
        worker = Worker(1, os.getpid(), [], Application("app:app"), cfg.timeout, cfg, Logger())
        self.read, self.end = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:  # a process to have a handle on; it ends with the pipe
            os.close(self.end)
            os.read(self.read, 1)
            os._exit(0)
        os.close(self.read)
        ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.handle = WorkerHandle(worker, Child(self.pid), ours, Scoreboard(1).take(), time.monotonic)
        self.handle.advance(WorkerEvent.READY)
        self.loop = Loop()
        self.hung: list[float] = []
        self.watch = HangWatch(self.loop, lambda handle, seconds: self.hung.append(seconds))

    def busy_for(self, seconds: float) -> None:
        """The worker has been busy for so long, and says so now."""
        if self.handle.cell.begin(time.monotonic() - seconds):
            self.watch.busy(self.handle)

    def close(self) -> None:
        os.close(self.end)
        os.waitpid(self.pid, 0)
        self.handle.pidfd.close()
        self.handle.channel.close()
        self.theirs.close()
        self.loop.close()


@pytest.fixture
def watched() -> Iterator[Watched]:
    watched = Watched()
    yield watched
    watched.close()


def test_hung(watched: Watched) -> None:
    watched.busy_for(TIMEOUT + GRACE + 0.5)
    assert len(watched.hung) == 1
    assert watched.hung[0] >= TIMEOUT + GRACE


def test_hung_later(watched: Watched) -> None:
    watched.busy_for(TIMEOUT)
    assert watched.hung == []
    watched.turn_until(lambda: watched.hung)
    assert TIMEOUT + GRACE <= watched.hung[0] < TIMEOUT + GRACE + 10


def test_done_in_time(watched: Watched) -> None:
    """At the deadline the worker is idle: the master looks away, and is told of the next request."""
    watched.busy_for(TIMEOUT)
    watched.handle.cell.end()
    watched.turn_until(lambda: not watched.handle.cell.word(WATCHED))
    assert watched.hung == []
    watched.busy_for(TIMEOUT + GRACE)
    assert len(watched.hung) == 1


def test_looked_away_from_only_while_idle(watched: Watched) -> None:
    """And then no deadline is left: nothing wakes the master for it."""
    watched.busy_for(0.0)
    assert not watched.watch.rest(watched.handle)
    assert watched.handle.cell.word(WATCHED)
    watched.handle.cell.end()
    assert watched.watch.rest(watched.handle)
    assert not watched.handle.cell.word(WATCHED)
    assert watched.loop.timeout() is None
    for _ in range(3):  # however often it pauses, one deadline is enough
        watched.busy_for(0.0)
        watched.handle.cell.end()
        watched.handle.cell.set_word(WATCHED, 0)
    assert sum(not each.cancelled for _, _, each in watched.loop._deadlines) == 1


def test_busy_with_another_request_by_now(watched: Watched) -> None:
    watched.busy_for(TIMEOUT + GRACE - 0.05)
    younger = time.monotonic()
    watched.handle.cell.begin(younger)
    watched.turn_until(lambda: watched.hung)
    assert time.monotonic() >= younger + TIMEOUT + GRACE


@pytest.mark.parametrize("event", [WorkerEvent.HANG, WorkerEvent.KILL, WorkerEvent.EXIT])
def test_who_is_being_ended_is_not_ended_again(watched: Watched, event: WorkerEvent) -> None:
    watched.handle.advance(event)
    watched.busy_for(TIMEOUT + GRACE + 1)
    assert watched.hung == []


def test_a_worker_that_retires_may_hang_too(watched: Watched) -> None:
    watched.handle.advance(WorkerEvent.RETIRE)
    assert watched.handle.phase is Phase.RETIRING
    watched.busy_for(TIMEOUT + GRACE + 1)
    assert len(watched.hung) == 1


def test_without_a_time_out_nobody_hangs() -> None:
    watched = Watched(timeout=0)
    watched.busy_for(1e6)
    assert watched.hung == []
    watched.close()


@pytest.mark.parametrize("nonsense", [math.nan, math.inf, 1e300, -math.inf])
def test_a_time_that_a_broken_worker_has_written_ends_no_master(watched: Watched, nonsense: float) -> None:
    """It is watched from now on instead: what it does next is seen."""
    watched.handle.cell.begin(nonsense)
    watched.watch.busy(watched.handle)
    assert (watched.loop.timeout() or 0.0) <= TIMEOUT + GRACE, "nobody waits for a time that never comes"
    watched.busy_for(TIMEOUT + GRACE + 0.5)
    watched.watch.busy(watched.handle)
    assert watched.hung
