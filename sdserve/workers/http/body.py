"""Request bodies on their way to the application: kept in memory while small, in a temporary file beyond that.

A body that is received before the application is called costs a slow sender's worker a buffer and no thread.
"""

import errno
import io
from typing import IO

from sdserve.http.errors import HTTPError, InsufficientStorage, Unavailable
from sdserve.workers.http.spool import LimitReached, Quota, SpoolFile, directory

IN_MEMORY = 256 * 1024


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


class WholeBody:
    """A body that came with its head: nothing of it is collected, or timed."""

    __slots__ = ("_data", "size")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size = len(data)

    def reader(self) -> IO[bytes]:
        return io.BytesIO(self._data)

    def close(self) -> None:
        """It holds nothing but memory."""


def no_room(error: OSError) -> HTTPError:
    """What the client of a body is told that could not be kept; the text is for the log."""
    if isinstance(error, LimitReached):
        return Unavailable("no room for the request's body: temporary files of this worker have reached spool_limit")
    text = f"no room for the request's body in {directory()}: {error.strerror}"
    if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
        return Unavailable(text)
    return InsufficientStorage(text)
