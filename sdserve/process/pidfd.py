"""A process by pidfd (pidfd_open(2)): readable when it has ended, and never another process that got its number."""

import os
import select
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from os import waitpid  # the kernel's, whatever a hook or an application puts into its place
from typing import ClassVar
from weakref import WeakValueDictionary

from sdserve.descriptor import Descriptor

UNKNOWN = -1  # in the place of a wait status: the process has ended, and somebody else reaped it


@contextmanager
def room() -> Iterator[Callable[[], None]]:
    """Holds a descriptor for the pidfd of a process that is about to be made; what is yielded gives it free.

    A process whose pidfd cannot be opened would be nobody's: better none is made. Raises OSError when there is no room.
    """
    spare = Descriptor(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    try:
        yield spare.close
    finally:
        spare.close()


class PidFd(Descriptor):
    """A handle on a running process. Raises ProcessLookupError if there is none with that pid."""

    def __init__(self, pid: int) -> None:
        super().__init__(os.pidfd_open(pid))
        self.pid = pid

    def send(self, signum: int) -> bool:
        """Sends a signal; false if the process has ended already."""
        try:
            signal.pidfd_send_signal(self._fd, signum)
        except ProcessLookupError:
            return False
        return True

    def ended(self, timeout: float | None = 0.0) -> bool:
        """Whether the process has ended, reaped or not; waits for it for `timeout` seconds (None: for ever)."""
        poll = select.poll()
        poll.register(self, select.POLLIN)
        return bool(poll.poll(None if timeout is None else timeout * 1000))


class Child(PidFd):
    """A child of this process, of whom its parent alone may ask more. It keeps its wait status once that was read."""

    _living: ClassVar["WeakValueDictionary[int, Child]"] = WeakValueDictionary()  # by pid: those that were not reaped

    def __init__(self, pid: int) -> None:
        super().__init__(pid)
        self._status: int | None = None
        self._living[pid] = self

    @classmethod
    def living(cls, pid: int) -> "Child | None":
        """The child of that number for whom somebody waits."""
        return cls._living.get(pid)

    @classmethod
    def forked(cls, pid: int) -> "Child":
        """The handle on a child that has just been forked. Raises OSError when there is none to be had, nor a child."""
        try:
            return cls(pid)
        except OSError:  # nobody would hear of it
            os.kill(pid, signal.SIGKILL)
            waitpid(pid, 0)
            raise

    def send(self, signum: int) -> bool:
        """Sends a signal; false if the process has ended already, or this handle is closed."""
        if self._fd < 0 or self._status is not None:
            return False
        try:
            return super().send(signum)
        except OSError:  # no memory, say. Nobody else reaps it, so its number is its own still.
            os.kill(self.pid, signum)
            return True

    def reap(self) -> int | None:
        """The wait status (waitpid(2)) if the process has ended, or UNKNOWN."""
        if self._status is None:
            self._status = self._wait()
            if self._status is not None:
                self._living.pop(self.pid, None)
        return self._status

    def _wait(self) -> int | None:
        try:
            pid, status = waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:  # an application called os.wait() in this process, or ignores SIGCHLD
            return UNKNOWN if self.ended() else None
        return status if pid else None

    def stops(self) -> bool | None:
        """Whether it was stopped (SIGSTOP, a tracer) or goes on, since the last call; None if neither."""
        stopped: bool | None = None
        while True:
            try:
                change = os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WCONTINUED | os.WNOHANG)
            except ChildProcessError:  # it has ended
                return stopped
            if change is None or change.si_pid == 0:
                return stopped
            stopped = change.si_code != os.CLD_CONTINUED
