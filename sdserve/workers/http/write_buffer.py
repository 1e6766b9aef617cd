"""What a client has not taken yet of its response: bytes where the application made them, and pieces of files.

Most of an answer that waits costs nothing here: an iterable is asked for more only when all before it has left, and a
body in one piece is sent from the application's own object. That object is kept in memory, as long as those of all
clients of a worker together are no more than `IN_MEMORY`. What write() pushes faster than its client reads may be
`PUSHED` bytes in memory. The rest goes to a temporary file (spool.py). A client that merely breathes gets a moment
before that (`PATIENCE`), so that a fast download never touches the disk. Where the disk has no room, a whole body that
nobody reads ends, and write() waits for its client, for as long as its thread may be missed (`Waits`).
"""

import math
import os
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable

from sdserve.http.writer import ClientGone, NoRoom
from sdserve.immutable import Immutable
from sdserve.workers.http.spool import Quota, SpoolFile

IN_MEMORY = 32 << 20  # bytes that the clients of a worker have not taken; an object many wait for counts once
PUSHED = 256 * 1024  # of them pushed by one response
TINY = 64  # bytes: not worth a file
PATIENCE = 0.1  # seconds that one response may wait for its client before it is spilled
BREATH = 0.001  # seconds; a client that takes nothing for so long does not read, and others would wait with us
LESSON = 0.05  # seconds after a wait in vain without another: clients that do not read come in crowds
LONGEST = 3600.0  # seconds of one poll(2)
SENDFILE = 1 << 20  # bytes for one sendfile(2), so that one fast reader does not keep the loop


class Memory:
    """The objects whose bytes clients wait for: how large they are together, each counted once."""

    def __init__(self, limit: int = IN_MEMORY) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._held: dict[int, int] = {}  # how often, by identity: who holds an object keeps it alive
        self.used = 0

    def hold(self, data: bytes, *, anyway: bool = False) -> bool:
        """Whether there is room for `data`, or it is here already; `anyway` does not ask."""
        key = id(data)
        with self._lock:
            times = self._held.get(key, 0)
            if not times:
                if self.used + len(data) > self._limit and not anyway and len(data) > TINY:
                    return False
                self.used += len(data)
            self._held[key] = times + 1
            return True

    def release(self, data: bytes) -> None:
        key = id(data)
        with self._lock:
            times = self._held[key] - 1
            if times:
                self._held[key] = times
            else:
                del self._held[key]
                self.used -= len(data)


class Waits(Immutable):
    """How long write() may wait for its client where nothing else has room, in seconds.

    `alone`: the worker has one thread, for which all others wait, so all waits of a call together. Else each for
    itself: a client that has taken everything by then is served on.
    """

    seconds: float
    alone: bool

    @classmethod
    def within(cls, send: float, timeout: float, *, alone: bool) -> "Waits":
        """As long as a reader may take nothing, and before a call of `timeout` seconds is one that hangs (0: never)."""
        return cls(min(send or math.inf, timeout / 2 or math.inf), alone)

    def until(self, called: float, now: float) -> float:
        """When the wait of a call ends that was `called` then."""
        return (called if self.alone and called else now) + self.seconds


PATIENT = Waits(60.0, alone=False)


class Store:
    """What the write buffers of a worker share; `say` hears of disks without room, not more than once a minute."""

    def __init__(self, disk: Quota, say: Callable[[str], None], patience: float, waits: Waits = PATIENT) -> None:
        self.disk = disk
        self.memory = Memory()
        self.patience = patience  # seconds for which a client may take nothing, 0: for ever
        self.waits = waits
        self.no_wait_before = 0.0  # monotonic seconds: somebody who was waited for did not read
        self._say = say
        self._quiet_until = 0.0

    def no_room(self, error: OSError) -> None:
        if time.monotonic() >= self._quiet_until:
            self._quiet_until = time.monotonic() + 60
            self._say(f"no room for responses that clients have not read: {error}; whole ones end, write() waits")


class Region:
    """`count` bytes of a file from `offset`; `spool` is set where the file is ours."""

    __slots__ = ("count", "fd", "offset", "spool")

    def __init__(self, fd: int, offset: int, count: int, spool: SpoolFile | None = None) -> None:
        self.fd = fd
        self.offset = offset
        self.count = count
        self.spool = spool


class WriteBuffer:
    """Made when a socket did not take everything; a response that was taken at once never needs one."""

    __slots__ = ("_called", "_failure", "_parts", "_patience", "_sock", "_spill", "_store", "in_memory", "moved")

    def __init__(self, sock: socket.SocketType, store: Store, called: float = 0.0) -> None:
        self._sock = sock
        self._store = store
        self._called = called  # monotonic seconds; 0: nobody has called the application
        # Why something is missing: nothing may follow. No exception, whose traceback would lead back here: a cycle.
        self._failure = ""
        self._parts: deque[tuple[memoryview, bytes] | Region] = deque()
        self._spill: Region | None = None
        self._patience = PATIENCE
        self.in_memory = 0  # bytes not sent yet
        self.moved = 0  # bytes taken by the peer since the loop last asked

    @property
    def empty(self) -> bool:
        return not self._parts

    @property
    def left(self) -> int:
        """Bytes that the peer has not taken."""
        return self.in_memory + sum(part.count for part in self._parts if isinstance(part, Region))

    def push(self, data: bytes, start: int = 0, *, whole: bool = False) -> None:
        """Keeps `data` from `start` on behind what is there; `whole`: it is a part of a body that is complete.

        Raises ClientGone when the peer has gone, was waited for and took nothing for too long, or when there is room
        neither in memory nor on disk for what is left of a whole body.
        """
        if self._spill is None:
            if self._keep(data, start, whole):
                return
            if not whole:
                self._wait_a_little()
                if self._keep(data, start, whole):
                    return
        try:
            if self._spill is None:
                file = SpoolFile(self._store.disk)
                self._spill = Region(file.fd, 0, 0, file)
                self._parts.append(self._spill)
            spill = self._spill
            assert spill.spool is not None
            spill.spool.write(memoryview(data)[start:])
            spill.count += len(data) - start
        except OSError as error:
            self._store.no_room(error)
            if whole:  # waiting here would keep others waiting, and keeping it would have no bound
                self._failure = f"no room for a response that its client does not read: {error.strerror}"
                raise NoRoom(self._failure) from error
            self._wait_until_empty(error)
            self._hold(data, start)

    def push_file(self, fd: int, offset: int, count: int) -> None:
        """Sends a piece of a file when its turn comes. The descriptor stays its owner's, and open until then."""
        self._spill = None  # later data goes behind the file that comes now
        self._parts.append(Region(fd, offset, count))

    def flush(self) -> bool:
        """Sends what the socket takes; True when nothing is left. Raises ClientGone."""
        if self._failure:
            raise NoRoom(self._failure)
        parts = self._parts
        try:
            while parts:
                part = parts[0]
                if isinstance(part, Region):
                    if part.count:
                        sent = os.sendfile(self._sock.fileno(), part.fd, part.offset, min(part.count, SENDFILE))
                        if not sent:
                            raise ClientGone("the file is shorter than it was")
                        part.offset += sent
                        part.count -= sent
                        self.moved += sent
                        if part.count:
                            return False  # the others' turn
                    self._drop()
                else:
                    view, data = part
                    sent = self._sock.send(view)
                    self.moved += sent
                    self.in_memory -= sent
                    if sent < len(view):
                        parts[0] = (view[sent:], data)
                        return False
                    self._drop()
        except BlockingIOError:
            return False
        except OSError as error:
            raise ClientGone(str(error)) from error
        return True

    def close(self) -> None:
        while self._parts:
            self._drop()
        self.in_memory = 0

    def _drop(self) -> None:
        """Lets go of what is first."""
        part = self._parts.popleft()
        if isinstance(part, Region):
            if part is self._spill:
                self._spill = None
            if part.spool is not None:
                part.spool.close()
        else:
            self._store.memory.release(part[1])

    def _keep(self, data: bytes, start: int, whole: bool) -> bool:
        """Keeps `data` in memory if it may stay there."""
        size = len(data) - start
        if not whole and self._parts and size > TINY and self.in_memory + size > PUSHED:
            return False
        if not self._store.memory.hold(data):
            return False
        self._parts.append((memoryview(data)[start:], data))
        self.in_memory += size
        return True

    def _hold(self, data: bytes, start: int) -> None:
        self._store.memory.hold(data, anyway=True)
        self._parts.append((memoryview(data)[start:], data))
        self.in_memory += len(data) - start

    def _wait_a_little(self) -> None:
        """Lets the peer catch up, as long as it does and `PATIENCE` lasts. Nothing else is served meanwhile."""
        store = self._store
        while self._patience > 0 and self.in_memory:
            began = time.monotonic()
            if began < store.no_wait_before:
                return
            if self._is_ready(BREATH):
                self._patience -= time.monotonic() - began
            else:
                self._patience = 0.0
                store.no_wait_before = time.monotonic() + LESSON
            if self.flush():
                return

    def _wait_until_empty(self, error: OSError) -> None:
        began = time.monotonic()
        until = self._store.waits.until(self._called, began)
        while not self.flush():
            now = time.monotonic()
            if now >= until or not self._is_ready(until - now):
                self._failure = (
                    f"no room for what write() sends ({error.strerror}), "
                    f"and {time.monotonic() - began:.1f} s were not enough for its client to take it"
                )
                raise NoRoom(self._failure) from error

    def _is_ready(self, seconds: float) -> bool:
        poll = select.poll()
        poll.register(self._sock, select.POLLOUT)
        return bool(poll.poll(min(seconds, LONGEST) * 1000))
