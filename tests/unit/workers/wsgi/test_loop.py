"""How another thread has the leader turn, where that fails."""

import errno
import os
from types import SimpleNamespace
from typing import Any

import pytest

from sdserve.workers.wsgi import loop
from sdserve.workers.wsgi.loop import WSGILoop
from tests.support.between import at_each_line
from tests.support.processes import own_descriptors


def test_two_threads_that_cannot_wake_the_leader_leave_one_new_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    before = own_descriptors()
    threads: list[Any] = []

    def another() -> None:
        """What another thread does meanwhile, once."""
        while threads:
            end_poll(threads.pop())

    def fails(fd: int, value: int) -> None:
        another()
        os.fstat(fd)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    end_poll = WSGILoop._end_poll
    monkeypatch.setattr(loop, "eventfd_write", fails)
    for _ in at_each_line(end_poll, another):
        wake = os.eventfd(0)
        of_both: Any = SimpleNamespace(_wake=wake, _control={wake})
        of_both._add_control = of_both._control.add
        threads.append(of_both)
        end_poll(of_both)
        assert of_both._control == {of_both._wake}
        assert os.eventfd_read(of_both._wake) > 0
        os.close(of_both._wake)
        assert own_descriptors() == before
