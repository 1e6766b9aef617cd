"""Request bodies on their way to the application: kept in memory while small, in a temporary file beyond that.

The application is called when its body has arrived, so a slow sender holds a buffer and no thread. That goes for
`Expect: 100-continue`, too: the body is asked for as soon as the head was found good (PEP 3333 leaves that to servers).
"""

import io
from typing import IO

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
