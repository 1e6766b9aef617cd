"""Files as bodies of responses: which bytes of which descriptor may be sent without reading them."""

import io
import os
import stat
from collections.abc import Iterator
from typing import Any

BUFFERED = (io.BufferedReader, io.BufferedRandom)


class FileWrapper:
    """wsgi.file_wrapper: an iterable over a file, which the server may send without reading it."""

    def __init__(self, file: Any, block_size: int = 8192) -> None:
        self.file = file
        self.block_size = block_size
        if hasattr(file, "close"):
            self.close = file.close

    def __iter__(self) -> Iterator[bytes]:
        return iter(lambda: self.file.read(self.block_size), b"")

    def region(self) -> tuple[int, int, int] | None:
        """(descriptor, offset, bytes) when reading this would give the bytes of a regular file, else None."""
        file = self.file
        try:
            inner = file.raw if type(file) in BUFFERED else file
            if type(inner) is not io.FileIO or not inner.readable():  # GzipFile and text files have descriptors, too
                return None
            if file.writable():
                file.flush()
            fd = file.fileno()
            found = os.fstat(fd)
            offset = file.tell()
        except (OSError, ValueError):  # it is closed, or detached from what it was around
            return None
        # A file of /proc or /sys is regular, says that it has no blocks, and only reading it shows how long it is.
        if not stat.S_ISREG(found.st_mode) or not found.st_blocks or found.st_size <= offset:
            return None
        return fd, offset, found.st_size - offset
