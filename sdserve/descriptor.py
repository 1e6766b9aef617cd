"""A file descriptor that somebody owns: it is closed once, and not when its number is another's by then."""

import errno
import os


class Descriptor:
    """An open file descriptor."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def fileno(self) -> int:
        return self._fd

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


class Meaning:
    """What the number of a descriptor stands for. The application may close what is not its own, and the kernel gives
    the number out again: what is written to it then goes into a file or a socket of the application's."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._file = _file(fd)

    def demand(self) -> None:
        """Raises OSError, as where it is closed, when it stands for something else."""
        if _file(self._fd) != self._file:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))


def _file(fd: int) -> tuple[int, int]:
    found = os.fstat(fd)
    return found.st_dev, found.st_ino
