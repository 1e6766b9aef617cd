"""The open connections of a loop: which there are, what epoll is to report of each, and when each is due.

There are no timers. Each stream has a deadline, a number; the earliest is known, and all are looked at when it is due,
not before, so an idle worker sleeps without end.
"""

import select
from collections.abc import Iterator
from contextlib import suppress

from sdserve.workers.stream import NEVER, Stream

SWEEP = 0.25  # seconds between two looks at all deadlines, at least


class Register:
    """Streams by descriptor. `sweep` is due at `sweep_at` (monotonic seconds); subclasses say what expiry means."""

    def __init__(self, epoll: select.epoll) -> None:
        self._epoll = epoll
        self.open: dict[int, Stream] = {}
        self.sweep_at = NEVER

    def expired(self, stream: Stream, now: float) -> None:
        """The deadline of a stream has passed: it gets another one, or is closed."""
        self.close(stream)

    def fail(self, stream: Stream) -> None:
        """An exception, which is being handled, has come out of what was done with a stream."""
        self.close(stream)

    def __iter__(self) -> Iterator[Stream]:
        return iter(list(self.open.values()))

    def __len__(self) -> int:
        return len(self.open)

    def add(self, stream: Stream, now: float, patience: float) -> None:
        """A new stream, of which something is expected within `patience` seconds."""
        if stream.fd in self.open:  # the application has closed that descriptor, and the kernel has given it out again
            self._forget(self.open[stream.fd])
        self.open[stream.fd] = stream
        stream.began = now
        self.set_deadline(stream, now, patience)

    def close(self, stream: Stream) -> None:
        """Forgets a stream and closes its connection; nothing happens if that was done before."""
        if self.open.get(stream.fd) is not stream:
            return
        if stream.mask:
            stream.mask = 0
            with suppress(OSError):  # the application may have closed it
                self._epoll.unregister(stream.fd)
        del self.open[stream.fd]
        stream.close()

    def _forget(self, stream: Stream) -> None:
        """Lets go of a stream whose descriptor means something else by now."""
        del self.open[stream.fd]
        stream.mask = 0
        stream.sock.detach()
        stream.close()

    def poll_for(self, stream: Stream, mask: int) -> None:
        """Tells epoll what to report of a stream; 0: nothing."""
        if mask == stream.mask:
            return
        if not stream.mask:
            self._epoll.register(stream.fd, mask)
        elif mask:
            self._epoll.modify(stream.fd, mask)
        else:
            self._epoll.unregister(stream.fd)
        stream.mask = mask

    def set_deadline(self, stream: Stream, now: float, seconds: float) -> None:
        """What the stream does now must be done in `seconds`; 0: never mind."""
        stream.deadline = deadline = now + seconds if seconds else NEVER
        if deadline < self.sweep_at:
            self.sweep_at = deadline

    def sweep(self, now: float) -> None:
        """Looks at every deadline; the next time is when the earliest is due, but in `SWEEP` seconds at least."""
        for stream in [stream for stream in self.open.values() if stream.deadline <= now]:
            try:
                self.expired(stream, now)
            except BaseException:  # noqa: BLE001 - it would be the first one at each sweep
                self.fail(stream)
        earliest = min((stream.deadline for stream in self.open.values()), default=NEVER)
        self.sweep_at = max(earliest, now + SWEEP)
