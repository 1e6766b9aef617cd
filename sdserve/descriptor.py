"""A file descriptor that somebody owns: it is closed once, and not when its number is another's by then."""

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
