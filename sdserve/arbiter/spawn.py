"""Forking one worker: the channel, the scoreboard cell, and what the child must not keep."""

import os
import socket
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Any

from sdserve.arbiter import signals
from sdserve.arbiter.worker_handle import Channel
from sdserve.descriptor import Descriptor
from sdserve.errors import BootError
from sdserve.process import output
from sdserve.process.pidfd import Child, room
from sdserve.process.scoreboard import WATCHED, Scoreboard
from sdserve.workers.base import Worker
from sdserve.workers.boot import become


def fork_worker(
    worker: Worker, server: Any, scoreboard: Scoreboard, close_in_child: Callable[[], None]
) -> tuple[Child, Channel]:
    """Forks `worker`, whose `slot` and `generation` are set; returns its process, and the master's end of its channel.

    `close_in_child` closes what belongs to the master alone. The child never returns from here. Raises OSError when
    there is no room for another process.
    """
    with room() as give_free, ExitStack() as undo:
        worker.cell = cell = scoreboard.take()
        undo.callback(scoreboard.give_back, cell)
        ours, worker.channel, worker.lifeline = _channel()
        worker.stacks = ours.stacks.fileno()
        undo.callback(ours.close)
        cell.set_word(WATCHED, 0 if worker.cfg.timeout else 1)  # without a time-out nobody needs to hear it is busy
        output.flush_all()
        signals.block_all()
        try:
            worker.pid = os.fork()
            if worker.pid == 0:
                try:
                    give_free()
                    close_in_child()
                    ours.stacks = Descriptor(-1)  # the same descriptor is the worker's
                    ours.close()  # with the lifeline's end
                    become(worker, server)
                finally:  # whatever happens, the child must not go on as a second master
                    os._exit(BootError.exit_code)
        finally:
            signals.unblock_all()
            with suppress(OSError):  # it is closed, whatever close(2) says: no reason to forget the worker
                worker.channel.close()
            os.close(worker.lifeline)
        give_free()
        process = Child.forked(worker.pid)
        undo.pop_all()
        return process, ours


class _MasterEnd(socket.socket):
    """The master's end of the channel; it takes the lifeline's end with it, and the file that stacks are written to."""

    lifeline = Descriptor(-1)
    stacks = Descriptor(-1)

    def close(self) -> None:
        super().close()
        self.lifeline.close()
        self.stacks.close()


def _channel() -> tuple[_MasterEnd, socket.socket, int]:
    """The channel's two ends, and what the worker has of the lifeline: a pipe that nothing is written to."""
    one, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours = _MasterEnd(one.family, one.type, one.proto, one.detach())
    with ExitStack() as undo:
        undo.callback(theirs.close)
        undo.callback(ours.close)
        lifeline, end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        ours.lifeline = Descriptor(end)
        undo.callback(os.close, lifeline)
        ours.stacks = Descriptor(os.memfd_create("stacks"))
        undo.pop_all()
    ours.setblocking(False)
    theirs.setblocking(False)
    return ours, theirs, lifeline
