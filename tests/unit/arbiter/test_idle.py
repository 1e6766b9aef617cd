"""Exit on idle: when a service counts as unused."""

import os
import signal
import socket

from sdserve.arbiter.idle import IdleExit
from sdserve.arbiter.lifecycle import Master, WorkerEvent
from sdserve.arbiter.loop import Loop
from sdserve.arbiter.service import Service
from sdserve.arbiter.worker_handle import WorkerHandle
from sdserve.config import load
from sdserve.log import Logger
from sdserve.process.pidfd import Child
from sdserve.workers.application import Application
from sdserve.workers.base import Worker


class Unheard:
    """Nobody replaces the worker here."""

    def worker_ready(self, handle: WorkerHandle) -> None: ...

    def worker_gone(self, handle: WorkerHandle, status: int) -> None: ...

    def worker_decided(self, handle: WorkerHandle, using: str) -> None: ...


def test_what_a_worker_that_has_gone_did_counts() -> None:
    now = 100.0
    loop = Loop(clock=lambda: now)
    cfg = load(["app:app", "--idle-exit", "10"], {})
    service = Service(cfg, loop, Logger(), os.getpid(), {})
    service.children.events = Unheard()
    service.state = Master.RUNNING
    left: list[float] = []
    IdleExit(service, lambda: left.append(now))

    if (pid := os.fork()) == 0:
        signal.pause()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    worker = Worker(1, os.getpid(), [], Application("app:app"), cfg.timeout, cfg, Logger())
    handle = WorkerHandle(worker, Child(pid), ours, service.children.scoreboard.take(), loop.now)
    handle.advance(WorkerEvent.READY)
    service.children.add(handle)
    handle.cell.begin(109.0)
    handle.cell.end()
    handle.send(signal.SIGKILL)
    assert handle.pidfd.ended(15.0)
    service.children.reap(handle)
    theirs.close()

    now = 110.0
    loop.turn()
    assert left == []
    now = 119.0
    loop.turn()
    assert left == [119.0]
    loop.close()
