"""A handle on a process, not on a number."""

import os
import select
import signal

import pytest

from sdserve.arbiter.host import Host
from sdserve.process.pidfd import UNKNOWN, Child, PidFd
from tests.support.children import in_a_child


def waiting_child() -> tuple[int, int]:
    """A child that waits for the end of a pipe: (pid, the end to close)."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(write)
        os.read(read, 1)
        os._exit(0)
    os.close(read)
    return pid, write


def test_readable_when_the_process_has_ended() -> None:
    pid, end = waiting_child()
    handle = PidFd(pid)
    assert select.select([handle], [], [], 0)[0] == []
    os.close(end)
    assert select.select([handle], [], [], 15)[0] == [handle]
    os.waitpid(pid, 0)
    handle.close()


def test_a_handle_that_was_closed_sends_nothing_to_whoever_has_the_number_now() -> None:
    pid, end = waiting_child()
    child = Child(pid)
    child.close()
    assert not child.send(signal.SIGKILL)
    os.close(end)
    assert os.waitpid(pid, 0)[1] == 0


def test_signals() -> None:
    pid, end = waiting_child()
    handle = PidFd(pid)
    assert handle.send(signal.SIGKILL)
    assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGKILL
    assert not handle.send(signal.SIGKILL)
    handle.close()
    handle.close()
    os.close(end)


def test_a_child_is_signalled_by_its_number_when_its_descriptor_fails() -> None:
    pid, end = waiting_child()
    handle = Child(pid)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, handle.fileno())  # EBADF, pidfd_send_signal(2): no pidfd
    os.close(null)
    assert handle.send(signal.SIGKILL)
    assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGKILL
    handle.close()
    os.close(end)


def test_a_process_that_is_none() -> None:
    pid, end = waiting_child()
    os.close(end)
    os.waitpid(pid, 0)
    with pytest.raises(ProcessLookupError):
        PidFd(pid)


def test_ended_before_and_after_it_was_reaped() -> None:
    pid, end = waiting_child()
    handle = Child(pid)
    assert not handle.ended() and handle.reap() is None
    os.close(end)
    assert handle.ended(timeout=15)
    assert handle.reap() == 0
    assert handle.ended()
    handle.close()


def test_a_child_that_is_stopped_goes_on_and_ends() -> None:
    pid, end = waiting_child()
    handle = Child(pid)
    assert handle.stops() is None
    handle.send(signal.SIGSTOP)
    os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOWAIT)
    assert handle.stops() is True and handle.stops() is None
    handle.send(signal.SIGCONT)
    os.waitid(os.P_PID, pid, os.WCONTINUED | os.WNOWAIT)
    assert handle.stops() is False
    os.close(end)
    os.waitpid(pid, 0)
    assert handle.stops() is None
    handle.close()


def test_a_child_that_somebody_else_reaped_has_ended_all_the_same() -> None:
    pid, end = waiting_child()
    handle = Child(pid)
    assert handle.reap() is None
    os.close(end)
    os.waitpid(pid, 0)
    assert handle.reap() == UNKNOWN
    handle.close()


def test_who_reaps_everybodys_orphans_keeps_the_status_of_a_child_for_who_asks() -> None:
    """PID 1 looks at all that have ended at once: an observer may be among them, and one orphan stands behind it."""

    def ends_with(code: int) -> int:
        pid = os.fork()
        if pid == 0:
            os._exit(code)
        return pid

    def reap() -> None:
        orphan, own, later = ends_with(1), Child.forked(ends_with(3)), ends_with(2)
        for each in PidFd(orphan), own, PidFd(later):
            assert each.ended(15)
        Host().reap_orphans()
        assert own.ended() and not own.send(signal.SIGKILL), "its number may be another's"
        assert own.reap() == own.reap() == 3 << 8
        with pytest.raises(ChildProcessError):
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG)

    assert in_a_child(reap) == 0
