"""A process by pidfd (pidfd_open(2)): readable when it has ended, and never another process that got its number."""

import os
import signal


class PidFd:
    """A handle on a running process. Raises ProcessLookupError if there is none with that pid."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._fd = os.pidfd_open(pid)

    def fileno(self) -> int:
        return self._fd

    def send(self, signum: int) -> bool:
        """Sends a signal; false if the process has ended already."""
        try:
            signal.pidfd_send_signal(self._fd, signum)
        except ProcessLookupError:
            return False
        return True

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
