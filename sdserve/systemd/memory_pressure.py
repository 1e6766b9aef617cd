"""Notifications of memory pressure, as systemd offers them since 254 (systemd.exec(5), MEMORY_PRESSURE_WATCH=).

The variable names the control group's file of pressure stall information, or a FIFO or socket that somebody else writes
to. The kernel notifies whoever has written a threshold to that file (MEMORY_PRESSURE_WRITE, in base64). Older versions
of systemd set neither; /dev/null means that nobody will notify.
Protocol: "Memory Pressure Handling in systemd" (systemd.io).
"""

import os
import select
import socket
import stat
from collections.abc import Mapping


class MemoryPressure:
    """One descriptor to watch: readable whenever there is pressure. It is an epoll of its own, because the kernel's
    file reports EPOLLPRI, which loops that look for readable descriptors do not see."""

    def __init__(self, fd: int, events: int) -> None:
        self._fd = fd
        self._reads = events == select.EPOLLIN
        self._epoll = select.epoll()
        self._epoll.register(fd, events)

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> "MemoryPressure | None":
        """What the environment names, None if nothing. Raises OSError or ValueError if it cannot be used."""
        path = environ.get("MEMORY_PRESSURE_WATCH", "")
        if path in ("", "/dev/null"):
            return None
        from binascii import a2b_base64

        threshold = a2b_base64(environ.get("MEMORY_PRESSURE_WRITE", ""))
        kind = os.stat(path).st_mode
        if stat.S_ISSOCK(kind):
            fd = _connected(path)
        else:
            # A FIFO that is open for writing as well never reports that its other end has gone.
            fd = os.open(path, os.O_NONBLOCK | os.O_CLOEXEC | (os.O_RDWR if threshold else os.O_RDONLY))
        try:
            if threshold:
                os.write(fd, threshold)
            return cls(fd, select.EPOLLPRI if stat.S_ISREG(kind) else select.EPOLLIN)
        except BaseException:
            os.close(fd)
            raise

    def fileno(self) -> int:
        return self._epoll.fileno()

    def heard(self) -> bool:
        """Takes the notification that made it readable; false when no other will come. Never blocks."""
        for _, events in self._epoll.poll(0):
            if self._reads and events & select.EPOLLIN:
                try:
                    return bool(os.read(self._fd, 65536))
                except BlockingIOError:
                    return True
                except ConnectionResetError:  # the other end has gone without reading our threshold
                    return False
            elif events & (select.EPOLLERR | select.EPOLLHUP):
                return False
        return True

    def close(self) -> None:
        self._epoll.close()
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def _connected(path: str) -> int:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as sock:
        sock.connect(path)
        return sock.detach()
