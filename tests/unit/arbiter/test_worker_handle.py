"""What a worker tells its master, and what the master says of its end."""

import signal
import socket
from contextlib import closing

from sdserve.arbiter.worker_handle import MOST_SAID, describe
from sdserve.process.pidfd import UNKNOWN
from sdserve.workers.words import BUSY, FAILED, LONGEST
from tests.unit.arbiter.turning import Family


class Chatterbox(socket.socket):
    """The end of a channel into which a worker speaks faster than its master hears."""

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        return BUSY


def test_a_worker_that_speaks_without_end_keeps_its_master_for_a_moment_only() -> None:
    with closing(Family()) as family, Chatterbox() as channel:
        ours, family.handle.channel = family.handle.channel, channel
        assert list(family.handle.messages()) == [BUSY] * MOST_SAID
        family.handle.channel = ours


def test_the_longest_reason_is_heard() -> None:
    """As far as a status line has room for it; a datagram of more than the kernel takes would not be heard at all."""
    with closing(Family()) as family:
        assert family.worker.tell(FAILED + b"x" * 1_000_000)
        assert list(family.handle.messages()) == [(FAILED + b"x" * LONGEST)[:LONGEST]]


def test_only_a_kill_that_nobody_ordered_may_be_for_want_of_memory() -> None:
    assert describe(signal.SIGKILL) == "was sent SIGKILL! Perhaps out of memory?"
    assert describe(signal.SIGKILL, ordered=True) == "was sent SIGKILL!"
    assert describe(signal.SIGTERM) == "was sent SIGTERM!"
    assert describe(3 << 8) == "exited with code 3"
    assert "somebody else reaped it" in describe(UNKNOWN)
