"""Request bodies on their way to the application: kept in memory while small, in a temporary file beyond that.

The application is called when its body has arrived, so a slow sender holds a buffer and no thread. The one exception
is `Expect: 100-continue`: the client waits to be asked, and it is the application's first read that asks.
"""

import io
import select
import time
from collections.abc import Callable, Iterator
from typing import IO, Protocol

from sdserve.http.errors import RequestTimedOut
from sdserve.http.limits import Times

IN_MEMORY = 256 * 1024


class Spool:
    """A body that is being received."""

    __slots__ = ("_file", "_pieces", "size")

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._file: IO[bytes] | None = None
        self.size = 0

    def append(self, data: bytes) -> None:
        """Raises OSError when the temporary file cannot be written."""
        self.size += len(data)
        if self._file is not None:
            self._file.write(data)
            return
        self._pieces.append(data)
        if self.size > IN_MEMORY:
            import tempfile

            self._file = tempfile.TemporaryFile(prefix="sdserve-body-")  # noqa: SIM115 - closed by close()
            self._file.writelines(self._pieces)
            self._pieces.clear()

    def reader(self) -> IO[bytes]:
        """The complete body, from its first byte."""
        if self._file is not None:
            self._file.seek(0)
            return self._file
        pieces = self._pieces
        return io.BytesIO(pieces[0] if len(pieces) == 1 else b"".join(pieces))

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def too_slow(times: Times, received: int, seconds: float) -> bool:
    """Whether a body of which `received` bytes came in `seconds` is below the minimum rate."""
    return bool(times.body_rate) and seconds > times.body_grace and received < times.body_rate * seconds


class Source(Protocol):
    """The connection that a waited-for body comes from."""

    def fileno(self) -> int: ...

    def send_continue(self) -> None: ...

    def read_body(self) -> bytes | None:
        """b"" when nothing is there, None at the end. Raises HTTPError, and ConnectionError when the peer has gone."""


class AwaitedBody:
    """wsgi.input of a request that expects 100-continue: the first read asks for the body and waits for all of it.

    Reading raises RequestTimedOut and other HTTPErrors; uncaught they become the answer.
    """

    def __init__(self, source: Source, times: Times, arrived: Callable[[], None]) -> None:
        self._source = source
        self._times = times
        self._arrived = arrived
        self._reader: IO[bytes] | None = None

    def _read_all(self) -> IO[bytes]:
        if self._reader is not None:
            return self._reader
        source = self._source
        source.send_continue()
        spool = Spool()
        poll = select.poll()
        poll.register(source.fileno(), select.POLLIN)
        began = time.monotonic()
        while (data := source.read_body()) is not None:
            if data:
                spool.append(data)
                continue
            if too_slow(self._times, spool.size, time.monotonic() - began):
                raise RequestTimedOut("the body is slower than the minimum rate")
            poll.poll(1000 if self._times.body_rate else None)
        self._reader = spool.reader()
        self._arrived()
        return self._reader

    def read(self, size: int = -1) -> bytes:
        return self._read_all().read(size)

    def readline(self, size: int = -1) -> bytes:
        return self._read_all().readline(size)

    def readlines(self, hint: int = -1) -> list[bytes]:
        return self._read_all().readlines(hint)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._read_all())

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()
