"""Temporary files of a worker: nameless, written without a buffer, and bounded all together.

Whatever can go wrong with a disk goes wrong where a file is made or written, as an OSError, and never when it is
closed: nothing is held back in between.
"""

import errno
import io
import os
import threading


class LimitReached(OSError):
    """All temporary files of this worker together have reached their limit."""

    def __init__(self) -> None:
        super().__init__(errno.EDQUOT, "spool_limit is reached")


class Quota:
    """An amount that all connections of a worker share; 0: no limit."""

    __slots__ = ("_limit", "_lock", "used")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self.used = 0

    def take(self, amount: int) -> bool:
        """Whether there was so much left."""
        with self._lock:
            if self._limit and self.used + amount > self._limit:
                return False
            self.used += amount
            return True

    def give_back(self, amount: int) -> None:
        with self._lock:
            self.used -= amount


def directory() -> str:
    """Where temporary files go. Python's own choice would leave a full directory for another one, unasked."""
    return os.environ.get("TMPDIR") or "/tmp"


class SpoolFile:
    """A file of `size` bytes that only grows."""

    __slots__ = ("_quota", "_reader", "fd", "size")

    def __init__(self, quota: Quota) -> None:
        """Raises OSError."""
        self._quota = quota
        self._reader: io.BufferedReader | None = None
        self.size = 0
        self.fd = _make(directory())

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Appends all of it. Raises OSError, LimitReached among them; then nothing of it counts as written."""
        if not self._quota.take(len(data)):
            raise LimitReached
        at, view = self.size, memoryview(data)
        try:
            while view:
                written = os.pwrite(self.fd, view, at)
                at += written
                view = view[written:]
        except OSError:
            self._quota.give_back(len(data))
            raise
        self.size = at

    def reader(self) -> io.BufferedReader:
        """A reader of the whole file, which ends with it: whoever keeps the reader reads nobody else's file."""
        self._reader = io.BufferedReader(io.FileIO(self.fd), 65536)  # at the start: pwrite(2) moves no offset
        return self._reader

    def close(self) -> None:
        """Gives the room back. May be called twice."""
        if self.fd < 0:
            return
        fd, self.fd = self.fd, -1
        self._quota.give_back(self.size)
        if self._reader is not None:
            self._reader.close()
        else:
            os.close(fd)


def _make(path: str) -> int:
    try:
        return os.open(path, os.O_TMPFILE | os.O_RDWR | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL):
            raise
    # A file system without O_TMPFILE. The module tempfile does no more, and its import half a megabyte of memory.
    name = os.path.join(path, f"sdserve-{os.urandom(8).hex()}")
    fd = os.open(name, os.O_CREAT | os.O_RDWR | os.O_EXCL | os.O_CLOEXEC, 0o600)
    os.unlink(name)
    return fd
