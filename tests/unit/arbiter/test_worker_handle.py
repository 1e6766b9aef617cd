"""What a worker tells its master, and what the master says of its end."""

import os
import signal
import socket

from sdserve.arbiter.worker_handle import MOST_SAID, WorkerHandle, describe
from sdserve.config import load
from sdserve.log import Logger
from sdserve.process.pidfd import UNKNOWN, Child
from sdserve.process.scoreboard import Scoreboard
from sdserve.workers.application import Application
from sdserve.workers.base import Worker
from sdserve.workers.told import BUSY, FAILED, LONGEST


class Chatterbox(socket.socket):
    """The end of a channel into which a worker speaks faster than its master hears."""

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        return BUSY


def handle_of(channel: socket.socket) -> tuple[WorkerHandle, Worker]:
    cfg = load(["app:app"], {})
    worker = Worker(1, os.getpid(), [], Application("app:app"), cfg.timeout, cfg, Logger())
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    return WorkerHandle(worker, Child.forked(pid), channel, Scoreboard(1).take(), lambda: 0.0), worker


def test_a_worker_that_speaks_without_end_keeps_its_master_for_a_moment_only() -> None:
    with Chatterbox() as channel:
        handle, _ = handle_of(channel)
        assert handle.messages() == [BUSY] * MOST_SAID
        handle.pidfd.reap()
        handle.pidfd.close()


def test_the_longest_reason_is_heard() -> None:
    """As far as a status line has room for it; a datagram of more than the kernel takes would not be heard at all."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        ours.setblocking(False)
        handle, worker = handle_of(ours)
        worker.channel = theirs
        assert worker.tell(FAILED + b"x" * 1_000_000)
        assert handle.messages() == [(FAILED + b"x" * LONGEST)[:LONGEST]]
        handle.pidfd.reap()
        handle.pidfd.close()


def test_only_a_kill_that_nobody_ordered_may_be_for_want_of_memory() -> None:
    assert describe(signal.SIGKILL) == "was sent SIGKILL! Perhaps out of memory?"
    assert describe(signal.SIGKILL, ordered=True) == "was sent SIGKILL!"
    assert describe(signal.SIGTERM) == "was sent SIGTERM!"
    assert describe(3 << 8) == "exited with code 3"
    assert "somebody else reaped it" in describe(UNKNOWN)
