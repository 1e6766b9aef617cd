"""Output that is lost rather than waited for: the standard streams and the log files.

Nothing that a server says about its work may decide whether the work is done. A reader that has gone (EPIPE), a full
disk (ENOSPC, EIO), a journald that does not read: what cannot be written is dropped and counted, and the next write
tries again. A slow reader gets `WRITE_TIMEOUT` seconds; once something was lost, nobody waits until a write succeeds.

The descriptors of the standard streams are shared with the service manager, a shell, the application's children: their
flags are not ours to change. So a socket is written to with MSG_DONTWAIT, and a pipe or a terminal through an open file
description of our own (proc(5), /proc/PID/fd).
"""

from __future__ import annotations

import fcntl
import io
import os
import select
import stat
import sys
from collections.abc import Callable
from time import monotonic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from socket import socket
    from typing import TextIO

    from _typeshed import ReadableBuffer

WRITE_TIMEOUT = 0.5  # seconds that a write waits for a reader that is slow
REOPEN_AFTER = 1.0  # seconds between two attempts to bring a dead stream back to life
ATOMIC = select.PIPE_BUF  # bytes that a pipe which polls as writable takes at once (pipe(7))

Identity = tuple[int, int]
Reopen = Callable[[int, Identity], bool]


class Output(io.RawIOBase):
    """Writes to what `fd` is; never raises, and never blocks for longer than `WRITE_TIMEOUT`.

    lost: how many writes have been lost since the last one that succeeded; `reason` says why
    name: of a standard stream, or the path of a file
    reopen: called when the stream is dead, with its number and its identity (device, inode); true if it lives again
    """

    def __init__(self, fd: int, name: str = "", reopen: Reopen | None = None) -> None:
        super().__init__()
        self.name = name
        self.lost = 0
        self.reason = ""
        self._fd = fd
        self._reopen = reopen
        self._reopen_at = 0.0
        self._torn = False  # the last thing written was half a line
        self._may_block = False
        self._socket: socket | None = None
        self._own = -1
        self._take()

    def put(self, data: bytes) -> bool:
        """Writes all of `data`; false if (some of) it was lost."""
        left = memoryview(b"\n" + data if self._torn else data)
        until = 0.0 if self.lost else monotonic() + WRITE_TIMEOUT
        while left:
            try:
                sent = self._send(left)
            except BlockingIOError:
                if self._wait(until):
                    continue
                return self._lose(left, data, "nobody reads")
            except (OSError, ValueError) as error:
                if self._revive():
                    continue
                return self._lose(left, data, getattr(error, "strerror", None) or str(error))
            left = left[sent:]
        self._torn = False
        return True

    def found_again(self) -> tuple[int, str] | None:
        """How many writes had been lost before the last one, which was not, and why; tells it once."""
        if not self.lost:
            return None
        told, self.lost = (self.lost, self.reason), 0
        return told

    def write(self, data: ReadableBuffer, /) -> int:
        data = bytes(data)
        self.put(data)
        return len(data)

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._fd

    def isatty(self) -> bool:
        return os.isatty(self._own)

    def close(self) -> None:
        if self.closed:
            return
        super().close()
        own, self._own = self._own, -1
        if self._socket is not None:
            self._socket.close()
        elif own >= 0:
            os.close(own)

    def _take(self) -> None:
        """Makes a descriptor of our own from what the number stands for.

        Another thread may be about to write to the one before: its number stays ours, and is never a client's.
        """
        new, self._may_block = self._opened()
        if self._own < 0:
            self._own = new
        else:
            os.dup2(new, self._own, inheritable=False)
            os.close(new)
        if self._socket is not None:
            self._socket.detach()
            self._socket = None
        if stat.S_ISSOCK(os.fstat(self._own).st_mode):
            import socket

            self._socket = socket.socket(fileno=self._own)

    def _opened(self) -> tuple[int, bool]:
        """A descriptor, and whether writing to it may block."""
        fifo = stat.S_ISFIFO(os.fstat(self._fd).st_mode)
        if fifo or os.isatty(self._fd):
            flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
            try:
                return os.open(f"/proc/self/fd/{self._fd}", flags), False
            except OSError:  # another user's, no /proc, or nobody reads: what can be had is a copy that may block
                pass
        return fcntl.fcntl(self._fd, fcntl.F_DUPFD_CLOEXEC, 3), fifo

    def _send(self, data: memoryview) -> int:
        if self._socket is not None:
            from socket import MSG_DONTWAIT, MSG_NOSIGNAL

            return self._socket.send(data, MSG_DONTWAIT | MSG_NOSIGNAL)
        if not self._may_block:
            return os.write(self._own, data)
        if not self._wait(0.0):
            raise BlockingIOError
        return os.write(self._own, data[:ATOMIC])

    def _wait(self, until: float) -> bool:
        poll = select.poll()
        poll.register(self._own, select.POLLOUT)
        return bool(poll.poll(max(0.0, until - monotonic()) * 1000))

    def _revive(self) -> bool:
        """Has a dead standard stream brought back to life, if that is possible and was not tried just now."""
        now = monotonic()
        if self._reopen is None or now < self._reopen_at:
            return False
        self._reopen_at = now + REOPEN_AFTER
        try:
            found = os.fstat(self._own)
            if not self._reopen(self._fd, (found.st_dev, found.st_ino)):
                return False
            self._take()
        except OSError:
            return False
        return True

    def _lose(self, left: memoryview, data: bytes, reason: str) -> bool:
        self._torn = self._torn or len(left) < len(data)
        self.lost += 1
        self.reason = reason
        return False


def text(output: Output) -> io.TextIOWrapper:
    """A text stream onto an Output."""
    return io.TextIOWrapper(output, encoding="utf-8", errors="backslashreplace", write_through=True)


def install(reopen: Reopen | None = None) -> None:
    """Puts streams that lose what they cannot write in the place of the interpreter's own sys.stdout and sys.stderr.

    Called again it follows what dup2(2) has made of the descriptors.
    """
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - as the interpreter's own
    if sys.stdout in (None, sys.__stdout__) or output_of(sys.stdout):
        sys.stdout = _stream(1, "<stdout>", sys.stdout, reopen)
    if sys.stderr in (None, sys.__stderr__) or output_of(sys.stderr):
        sys.stderr = _stream(2, "<stderr>", sys.stderr, reopen)


def _stream(fd: int, name: str, before: TextIO | None, reopen: Reopen | None) -> TextIO:
    flush(before)
    stream = io.TextIOWrapper(
        Output(fd, name, reopen),
        encoding=getattr(before, "encoding", None) or "utf-8",
        errors=getattr(before, "errors", None) or "backslashreplace",
        line_buffering=bool(getattr(before, "line_buffering", True)),
        write_through=bool(getattr(before, "write_through", False)),
    )
    setattr(stream, "mode", "w")  # noqa: B010 - as the interpreter does to its own
    return stream


def output_of(stream: TextIO) -> Output | None:
    """The Output beneath a stream that was made here; None beneath any other."""
    found = getattr(stream, "buffer", None)
    return found if isinstance(found, Output) else None


def flush_all() -> None:
    """Before a fork, and at the end: what is buffered would be written twice, or not at all."""
    for stream in (sys.stdout, sys.stderr):
        flush(stream)


def flush(stream: TextIO | None) -> None:
    """Flushes a stream, whoever made it; what cannot be written is lost."""
    try:
        if stream is not None:
            stream.flush()
    except Exception:  # noqa: BLE001 - an application's own stream may raise anything, and decides nothing here
        return


def abandon() -> None:
    """At the end of a process: has the interpreter's own last flush, whose failure is an exit status, meet no error."""
    flush_all()
    for fd, stream in ((1, sys.__stdout__), (2, sys.__stderr__)):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, fd)
            os.close(null)
