"""Request bodies on their way to the application: kept in memory while small, in a temporary file beyond that.

A body that is received before the application is called costs a slow sender's worker a buffer and no thread. How slow
it may be is said here too: a body has to bring bytes all the time, and enough of them.
"""

import errno
import io
from typing import IO

from sdserve.http.errors import HTTPError, InsufficientStorage, Unavailable
from sdserve.http.limits import Times
from sdserve.workers.http.spool import LimitReached, Quota, SpoolFile, directory

IN_MEMORY = 256 * 1024
NEVER = float("inf")


class Body:
    """A body that is being received. `quota` bounds what lies on the disk."""

    __slots__ = ("_file", "_pieces", "_quota", "size")

    def __init__(self, quota: Quota) -> None:
        self._quota = quota
        self._pieces: list[bytes] = []
        self._file: SpoolFile | None = None
        self.size = 0

    def append(self, data: bytes) -> None:
        """Raises InsufficientStorage, or Unavailable where waiting may help."""
        self.size += len(data)
        pieces = self._pieces
        if self._file is None and self.size <= IN_MEMORY:
            if pieces and len(data) + len(pieces[-1]) < 16384:  # a body in tiny pieces is no list of tiny objects
                pieces[-1] += data
            else:
                pieces.append(data)
            return
        try:
            if self._file is None:
                self._file = SpoolFile(self._quota)
                self._file.write(b"".join(pieces))
                pieces.clear()
            self._file.write(data)
        except OSError as error:
            raise no_room(error) from error

    def reader(self) -> IO[bytes]:
        """The complete body, from its first byte; closed with this one. To be asked for once. Raises an HTTPError."""
        if self._file is not None:
            return self._file.reader()
        pieces = self._pieces
        return io.BytesIO(pieces[0] if len(pieces) == 1 else b"".join(pieces))

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def no_room(error: OSError) -> HTTPError:
    """What the client of a body is told that could not be kept; the text is for the log."""
    if isinstance(error, LimitReached):
        return Unavailable("no room for the request's body: temporary files of this worker have reached spool_limit")
    text = f"no room for the request's body in {directory()}: {error.strerror}"
    if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
        return Unavailable(text)
    return InsufficientStorage(text)


class Arrival:
    """How a body comes in, and when it will be too slow. All times are monotonic seconds.

    On average it must bring `times.body_rate`, once its grace is over. What came faster is remembered for as long as
    it may bring nothing at all, `times.body_idle`, and no longer: a fast beginning does not buy a day of silence.
    """

    __slots__ = ("_last", "_paid", "_times", "began")

    def __init__(self, times: Times, began: float) -> None:
        self._times = times
        self.began = self._last = began
        self._paid = 0.0  # seconds after `began` that the bytes so far are enough for

    def received(self, size: int, now: float) -> None:
        times = self._times
        self._last = now
        if times.body_rate:
            self._paid = min(
                self._paid + size / times.body_rate, now - self.began + max(times.body_idle, times.body_grace)
            )

    def excuse(self, seconds: float) -> None:
        """For so long nobody wanted to read."""
        self.began += seconds
        self._last += seconds

    def due(self) -> float:
        """When it is too slow unless more comes."""
        times = self._times
        slow = self.began + max(times.body_grace, self._paid) if times.body_rate else NEVER
        return min(slow, self._last + times.body_idle) if times.body_idle else slow
