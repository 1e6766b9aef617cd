"""What is still to be sent on one connection: bytes, pieces of files, and what was spilled for a slow reader.

An application that produces faster than its client reads must neither wait for the client nor fill the memory. What
the socket does not take is kept here; beyond `IN_MEMORY` bytes it goes to a temporary file, and the loop sends it when
the client is ready. A client that merely breathes gets a moment first (`PATIENCE`), so that a fast download never
touches the disk.
"""

import os
import select
import socket
import time
from collections import deque

from sdserve.gateway.response import ClientGone

IN_MEMORY = 256 * 1024
SPILL_LIMIT = 1 << 30  # bytes of disk for one response; then the application waits for its client
PATIENCE = 0.1  # seconds that one response may wait for its client before it is spilled
BREATH = 0.001  # seconds; a client that takes nothing for so long does not read, and others would wait with us
LESSON = 0.05  # seconds after a wait in vain without another: clients that do not read come in crowds
SENDFILE = 1 << 20  # bytes for one sendfile(2), so that one fast reader does not keep the loop


class Region:
    """`count` bytes of a file from `offset`. Owns its descriptor."""

    __slots__ = ("count", "fd", "offset")

    def __init__(self, fd: int, offset: int, count: int) -> None:
        self.fd = fd
        self.offset = offset
        self.count = count


class Outbox:
    """Made when a socket did not take everything; a response that was taken at once never needs one."""

    __slots__ = ("_parts", "_patience", "_sock", "_spill", "in_memory", "moved")
    _no_wait_before = 0.0  # monotonic seconds, for all of a process

    def __init__(self, sock: socket.SocketType) -> None:
        self._sock = sock
        self._parts: deque[memoryview | Region] = deque()
        self._spill: Region | None = None
        self._patience = PATIENCE
        self.in_memory = 0
        self.moved = 0  # bytes taken by the peer since the loop last asked

    @property
    def empty(self) -> bool:
        return not self._parts

    def push(self, data: bytes | memoryview, patience: float) -> None:
        """Keeps `data` behind what is there. `patience` bounds the wait when the disk is full of it, too: seconds.

        Raises ClientGone when the peer has gone, or took nothing for so long.
        """
        if self._spill is None and self.in_memory + len(data) > IN_MEMORY:
            self._wait_a_little()
            if self.in_memory + len(data) > IN_MEMORY and self._parts:
                self._begin_spill()
        if self._spill is not None:
            self._append_to_spill(data, patience)
            return
        self._parts.append(memoryview(data))
        self.in_memory += len(data)

    def push_file(self, fd: int, offset: int, count: int) -> None:
        """Sends a piece of a file when its turn comes; the descriptor is duplicated."""
        self._end_spill()
        self._parts.append(Region(os.dup(fd), offset, count))

    def flush(self) -> bool:
        """Sends what the socket takes; True when nothing is left. Raises ClientGone."""
        parts = self._parts
        try:
            while parts:
                part = parts[0]
                if isinstance(part, Region):
                    sent = os.sendfile(self._sock.fileno(), part.fd, part.offset, min(part.count, SENDFILE))
                    if not sent:
                        raise ClientGone("the file is shorter than it was")
                    part.offset += sent
                    part.count -= sent
                    self.moved += sent
                    if part.count:
                        return False  # the others' turn
                    self._drop(part)
                else:
                    sent = self._sock.send(part)
                    self.moved += sent
                    self.in_memory -= sent
                    if sent < len(part):
                        parts[0] = part[sent:]
                        return False
                    parts.popleft()
        except BlockingIOError:
            return False
        except OSError as error:
            raise ClientGone(str(error)) from error
        return True

    def close(self) -> None:
        while self._parts:
            part = self._parts.popleft()
            if isinstance(part, Region):
                os.close(part.fd)
        self._spill = None
        self.in_memory = 0

    def _drop(self, region: Region) -> None:
        self._parts.popleft()
        os.close(region.fd)
        if region is self._spill:
            self._spill = None

    def _wait_a_little(self) -> None:
        """Lets the peer catch up, as long as it does and `PATIENCE` lasts. Nothing else is served meanwhile."""
        while self._patience > 0 and self.in_memory and not self._spill:
            began = time.monotonic()
            if began < Outbox._no_wait_before:
                return
            poll = select.poll()
            poll.register(self._sock, select.POLLOUT)
            if poll.poll(BREATH * 1000):
                self._patience -= time.monotonic() - began
            else:
                self._patience = 0.0
                Outbox._no_wait_before = time.monotonic() + LESSON
            if self.flush():
                return

    def _begin_spill(self) -> None:
        import tempfile  # few workers ever need it, and all would wait for it at their start

        fd, path = tempfile.mkstemp(prefix="sdserve-answer-")
        os.unlink(path)
        self._spill = Region(fd, 0, 0)
        self._parts.append(self._spill)

    def _end_spill(self) -> None:
        self._spill = None  # later data goes behind the file that comes now

    def _append_to_spill(self, data: bytes | memoryview, patience: float) -> None:
        spill = self._spill
        assert spill is not None
        while spill.count > SPILL_LIMIT and not self.empty:
            poll = select.poll()
            poll.register(self._sock, select.POLLOUT)
            if not poll.poll(patience * 1000 if patience else None):
                raise ClientGone(f"the client read nothing for {patience:g} s")
            self.flush()
        if self._spill is None:  # all of it was taken meanwhile
            self._parts.append(memoryview(data))
            self.in_memory += len(data)
            return
        view = memoryview(data)
        at = spill.offset + spill.count
        while view:
            written = os.pwrite(spill.fd, view, at)
            view = view[written:]
            at += written
            spill.count += written
