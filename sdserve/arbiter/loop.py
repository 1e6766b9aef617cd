"""The only place where the master waits: one selector, one heap of deadlines.

Everything that the master reacts to is a readable descriptor or a point in time; nothing is polled, so an idle master
sleeps for as long as nothing happens. Callbacks must not block.
"""

import heapq
import itertools
import os
import selectors
import time
from collections.abc import Callable
from typing import Protocol


class Watched(Protocol):
    """What the loop can watch: sockets, pidfds, pipes. `close` is called in forked children."""

    def fileno(self) -> int: ...

    def close(self) -> None: ...


class Deadline:
    """A callback at a point in time; `cancel()` forgets it."""

    __slots__ = ("_callback", "when")

    def __init__(self, when: float, callback: Callable[[], None]) -> None:
        self.when = when
        self._callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self._callback = None

    @property
    def cancelled(self) -> bool:
        return self._callback is None

    def run(self) -> None:
        callback, self._callback = self._callback, None
        if callback is not None:
            callback()


class Pipe:
    """A non-blocking pipe whose reading end can be watched: how signal handlers wake the loop."""

    def __init__(self) -> None:
        self._read, self.write_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def fileno(self) -> int:
        return self._read

    def wake(self) -> None:
        try:
            os.write(self.write_fd, b"\0")
        except BlockingIOError:
            return  # full of wake-ups already: it will be read

    def drain(self) -> None:
        try:
            while len(os.read(self._read, 4096)) == 4096:
                continue
        except BlockingIOError:
            return

    def close(self) -> None:
        os.close(self._read)
        os.close(self.write_fd)


class Loop:
    """Waits for descriptors and deadlines and runs their callbacks, one turn at a time.

    `now()` is the time in monotonic seconds, for all that happens in a master.
    """

    def __init__(
        self, selector: selectors.BaseSelector | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.now = clock
        self._selector = selector or selectors.DefaultSelector()
        self._watched: dict[int, Watched] = {}
        self._deadlines: list[tuple[float, int, Deadline]] = []
        self._order = itertools.count()

    def watch(self, what: Watched, callback: Callable[[], None]) -> None:
        """Calls `callback` in each turn that finds `what` readable."""
        self._selector.register(what, selectors.EVENT_READ, callback)
        self._watched[what.fileno()] = what

    def unwatch(self, what: Watched) -> None:
        """Stops watching; call it before `what` is closed."""
        if self._watched.pop(what.fileno(), None) is not None:
            self._selector.unregister(what)

    def call_at(self, when: float, callback: Callable[[], None]) -> Deadline:
        """Calls `callback` once, at `when` (monotonic seconds) or as soon after it as the loop turns."""
        deadline = Deadline(when, callback)
        heapq.heappush(self._deadlines, (when, next(self._order), deadline))
        return deadline

    def turn(self) -> None:
        """Waits until something happens, then runs what is due: descriptors first, since they may cancel deadlines."""
        for key, _ in self._selector.select(self.patience()):
            # An earlier callback of this turn may have ended it, and its number may be another's by now.
            if self._watched.get(key.fd) is key.fileobj:
                key.data()
        now = self.now()
        while self._deadlines and self._deadlines[0][0] <= now:
            heapq.heappop(self._deadlines)[2].run()

    def patience(self) -> float | None:
        """The seconds until the next deadline; None if there is none."""
        while self._deadlines and self._deadlines[0][2].cancelled:
            heapq.heappop(self._deadlines)
        if not self._deadlines:
            return None
        return max(0.0, self._deadlines[0][0] - self.now())

    def close(self) -> None:
        """Closes everything that is watched, in a forked child: it must hold no end of its siblings' channels."""
        self._selector.close()
        for what in self._watched.values():
            what.close()
        self._watched.clear()
        self._deadlines.clear()
