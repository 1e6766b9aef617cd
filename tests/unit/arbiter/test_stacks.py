"""Stacks of workers: whoever asks hears of each worker, also of one that ends meanwhile."""

import os
import signal

from sdserve.arbiter.loop import Loop
from sdserve.arbiter.spawn import _channel
from sdserve.arbiter.stacks import LOOK_EVERY, Stacks
from sdserve.arbiter.worker_handle import WorkerHandle
from sdserve.config import load
from sdserve.log import Logger
from sdserve.process.pidfd import Child
from sdserve.process.scoreboard import Scoreboard
from sdserve.status import WorkerStacks
from sdserve.workers.application import Application
from sdserve.workers.base import Worker
from sdserve.workers.told import ASKED_STACKS


def test_a_worker_that_ends_while_it_is_asked_is_not_waited_for() -> None:
    now = 100.0
    loop = Loop(clock=lambda: now)
    cfg = load(["app:app"], {})
    ours, theirs, lifeline = _channel()
    before = signal.signal(ASKED_STACKS, lambda signum, frame: None)  # it writes nothing
    if (pid := os.fork()) == 0:
        while True:
            signal.pause()
    signal.signal(ASKED_STACKS, before)
    worker = Worker(1, os.getpid(), [], Application("app:app"), cfg.timeout, cfg, Logger())
    worker.slot = worker.generation = 0
    handle = WorkerHandle(worker, Child(pid), ours, Scoreboard(1).take(), loop.now)
    told: list[WorkerStacks] = []
    Stacks(loop).ask([handle], told.extend)
    now += LOOK_EVERY
    loop.turn()
    assert not told
    handle.send(signal.SIGKILL)
    assert handle.pidfd.ended(15.0)
    handle.pidfd.reap()
    ours.close()
    now += LOOK_EVERY
    loop.turn()
    assert [(each.pid, each.trouble, each.stacks) for each in told] == [(pid, "it has ended", "")]
    theirs.close()
    os.close(lifeline)
    handle.pidfd.close()
