"""The only place where the master waits: one selector, one heap of deadlines.

Everything that the master reacts to is a readable descriptor or a point in time; nothing is polled, so an idle master
sleeps for as long as nothing happens. Callbacks must not block.

A callback that fails for a reason that nobody foresaw, such as a system call without memory, is called again a moment
later: neither the master nor what it watches is lost, and a fault that stays costs a line in the log, not a core.
"""

import heapq
import itertools
import math
import os
import selectors
import time
from collections.abc import Callable
from typing import Protocol
from weakref import WeakValueDictionary

from sdserve.descriptor import Descriptor
from sdserve.errors import BootError, Interruption

TRY_AGAIN = 0.5  # seconds between two calls of a callback that fails
KEPT = 64  # deadlines that are kept at least before those that were cancelled are looked for
LONGEST = 24 * 24 * 3600.0  # seconds that epoll_wait(2) waits at once: its milliseconds are an int


class Owned(Protocol):
    """What holds descriptors that forked children must not have: they call `close`, whether it was closed or not."""

    def close(self) -> None: ...


class Watched(Owned, Protocol):
    """What the loop can watch: sockets, pidfds, pipes."""

    def fileno(self) -> int: ...


class Deadline:
    """A callback at a point in time; `cancel()` forgets it."""

    def __init__(self, when: float, callback: Callable[[], None]) -> None:
        self.when = when
        self._callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self._callback = None

    @property
    def cancelled(self) -> bool:
        return self._callback is None

    def run(self) -> None:
        if self._callback is not None:
            self._callback()
            self._callback = None


NO_DEADLINE = Deadline(math.inf, lambda: None)
NO_DEADLINE.cancel()


class Pipe(Descriptor):
    """A non-blocking pipe whose reading end can be watched: how signal handlers wake the loop."""

    def __init__(self) -> None:
        ours, self.write_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        super().__init__(ours)

    def wake(self) -> None:
        try:
            os.write(self.write_fd, b"\0")
        except BlockingIOError:
            return  # full of wake-ups already: it will be read

    def drain(self) -> None:
        try:
            while len(os.read(self._fd, 4096)) == 4096:
                continue
        except BlockingIOError:
            return

    def close(self) -> None:
        super().close()
        fd, self.write_fd = self.write_fd, -1
        if fd >= 0:
            os.close(fd)


class Loop:
    """Waits for descriptors and deadlines and runs their callbacks, one turn at a time.

    `now()` is the time in monotonic seconds, for all that happens in a master. `on_failure` is called inside of the
    `except` clause for each callback that failed. BootError is for the caller of `turn`: no worker can be had any more;
    so is what a signal handler raises to end this process.
    """

    def __init__(
        self,
        selector: selectors.BaseSelector | None = None,
        clock: Callable[[], float] = time.monotonic,
        on_failure: Callable[[], None] = lambda: None,
    ) -> None:
        self.now = clock
        self._on_failure = on_failure
        self._selector = selector or selectors.DefaultSelector()
        self._watched: dict[int, Watched] = {}
        self._owned: WeakValueDictionary[int, Owned] = WeakValueDictionary()  # by identity, while anybody holds it
        self._resting: dict[int, Deadline] = {}  # watched, and not registered until then
        self._full: set[int] = set()  # watched for room to write instead
        self._deadlines: list[tuple[float, int, Deadline]] = []
        self._sweep_at = KEPT  # so many deadlines: are there some that were cancelled?
        self._order = itertools.count()

    def watch(self, what: Watched, callback: Callable[[], None], *, full: bool = False) -> None:
        """Calls `callback` in each turn that finds `what` readable. It is this process's own from now on.

        full: it is `full`, and the callback is called when there is room to write again, or its other end is gone
        """
        self.own(what)
        self._watched[what.fileno()] = what
        (self._full.add if full else self._full.discard)(what.fileno())
        self._register(what, callback)

    def own(self, what: Owned) -> None:
        """Has `what` closed in forked children: it is this process's alone, watched or not."""
        self._owned[id(what)] = what

    def _register(self, what: Watched, callback: Callable[[], None]) -> None:
        event = selectors.EVENT_WRITE if what.fileno() in self._full else selectors.EVENT_READ
        try:
            self._selector.register(what, event, callback)
        except OSError:  # ENOMEM or ENOSPC, epoll_ctl(2): what a worker or a client says is heard a moment later
            self._on_failure()
            self._rest(what, callback)

    def _rest(self, what: Watched, callback: Callable[[], None]) -> None:
        """Looks away from `what`, which is not registered, for a moment: `unwatch` ends that, too."""
        fd = what.fileno()

        def watch_again() -> None:
            del self._resting[fd]
            self._register(what, callback)

        self._resting[fd] = self.call_at(self.now() + TRY_AGAIN, watch_again)

    def look_away(self, what: Watched) -> None:
        """Said by a callback that cannot do now what it is called for: it is called again a moment later."""
        self._rest(what, self._selector.unregister(what).data)

    def unwatch(self, what: Watched) -> None:
        """Stops watching; call it before `what` is closed."""
        fd = what.fileno()
        rests = self._resting.pop(fd, None)
        if rests is not None:
            rests.cancel()
        if self._watched.pop(fd, None) is not None and rests is None:
            self._selector.unregister(what)

    def drop(self, *what: Watched | None) -> None:
        """Stops watching, and closes."""
        for each in filter(None, what):
            self.unwatch(each)
            each.close()

    def call_at(self, when: float, callback: Callable[[], None]) -> Deadline:
        """Calls `callback` once, at `when` (monotonic seconds) or as soon after it as the loop turns."""
        deadline = Deadline(when, callback)
        if len(self._deadlines) >= self._sweep_at:
            self._forget_cancelled()
        heapq.heappush(self._deadlines, (when, next(self._order), deadline))
        return deadline

    def _forget_cancelled(self) -> None:
        """Those that were cancelled long before their time must not pile up. The rest may double before the next look,
        which so costs each of them little."""
        self._deadlines = [each for each in self._deadlines if not each[2].cancelled]
        heapq.heapify(self._deadlines)
        self._sweep_at = max(KEPT, 2 * len(self._deadlines))

    def turn(self) -> None:
        """Waits until something happens, then runs what is due: descriptors first, since they may cancel deadlines.

        Raises OSError when it cannot even wait.
        """
        for key, _ in self._selector.select(self.timeout()):
            what = self._watched.get(key.fd)
            # An earlier callback of this turn may have ended it, and its number may be another's by now.
            if what is None or what is not key.fileobj or self._succeeds(key.data):
                continue
            if self._watched.get(key.fd) is what:
                self._selector.unregister(what)
                self._rest(what, key.data)
        now = self.now()
        while self._deadlines and self._deadlines[0][0] <= now:
            deadline = heapq.heappop(self._deadlines)[2]
            if not self._succeeds(deadline.run):
                self.call_at(self.now() + TRY_AGAIN, deadline.run)

    def _succeeds(self, callback: Callable[[], None]) -> bool:
        try:
            callback()
        except (BootError, Interruption, SystemExit, KeyboardInterrupt):
            raise
        except BaseException:  # noqa: BLE001 - told by `on_failure`, and tried again
            self._on_failure()
            return False
        return True

    def timeout(self) -> float | None:
        """The seconds until the next deadline; None if there is none."""
        while self._deadlines and self._deadlines[0][2].cancelled:
            heapq.heappop(self._deadlines)
        if not self._deadlines:
            return None
        return min(max(0.0, self._deadlines[0][0] - self.now()), LONGEST)

    def end(self) -> None:
        """It turns no more: the descriptor that it waits by may be all that is left for the last things to do."""
        self._watched.clear()
        self._selector.close()

    def close(self) -> None:
        """Closes what the parent owns, in a forked child: it must hold no end of its siblings' channels, for one."""
        self._selector.close()
        for what in list(self._owned.values()):
            what.close()
        self._watched.clear()
        self._resting.clear()
        self._deadlines.clear()
