"""The open connections of a loop: which there are, what epoll is to report of each, and when each is due.

There are no timers. Each client has a deadline, a number; the earliest is known, and all are looked at when it is due,
not before, so an idle worker sleeps without end.
"""

import select
from collections.abc import Iterator
from contextlib import suppress

from sdserve.workers.http.client import NEVER, Client

SWEEP = 0.25  # seconds between two looks at all deadlines, at least


class Clients:
    """WSGIClients by descriptor. `sweep` is due at `sweep_at` (monotonic seconds); subclasses say what expiry means."""

    def __init__(self, epoll: select.epoll) -> None:
        self._epoll = epoll
        self.open: dict[int, Client] = {}
        self.sweep_at = NEVER

    def expired(self, client: Client, now: float) -> None:
        """The deadline of a client has passed: it gets another one, or is closed."""
        self.close(client)

    def fail(self, client: Client) -> None:
        """An exception, which is being handled, has come out of what was done with a client."""
        self.close(client)

    def __iter__(self) -> Iterator[Client]:
        return iter(list(self.open.values()))

    def __len__(self) -> int:
        return len(self.open)

    def add(self, client: Client, now: float, patience: float) -> None:
        """A new client, of which something is expected within `patience` seconds."""
        if client.fd in self.open:  # the application has closed that descriptor, and the kernel has given it out again
            self._forget(self.open[client.fd])
        self.open[client.fd] = client
        client.began = now
        self.set_deadline(client, now, patience)

    def close(self, client: Client) -> None:
        """Forgets a client and closes its connection; nothing happens if that was done before."""
        if self.open.get(client.fd) is not client:
            return
        if client.mask:
            client.mask = 0
            with suppress(OSError):  # the application may have closed it
                self._epoll.unregister(client.fd)
        del self.open[client.fd]
        client.close()

    def _forget(self, client: Client) -> None:
        """Lets go of a client whose descriptor means something else by now."""
        del self.open[client.fd]
        client.mask = 0
        client.sock.detach()
        client.close()

    def poll_for(self, client: Client, mask: int) -> None:
        """Tells epoll what to report of a client; 0: nothing."""
        if mask == client.mask:
            return
        if not client.mask:
            self._epoll.register(client.fd, mask)
        elif mask:
            self._epoll.modify(client.fd, mask)
        else:
            self._epoll.unregister(client.fd)
        client.mask = mask

    def set_deadline(self, client: Client, now: float, seconds: float) -> None:
        """What the client does now must be done in `seconds`; 0: never mind."""
        client.deadline = deadline = now + seconds if seconds else NEVER
        if deadline < self.sweep_at:
            self.sweep_at = deadline

    def sweep(self, now: float) -> None:
        """Looks at every deadline; the next time is when the earliest is due, but in `SWEEP` seconds at least."""
        for client in [client for client in self.open.values() if client.deadline <= now]:
            try:
                self.expired(client, now)
            except BaseException:  # noqa: BLE001 - it would be the first one at each sweep
                self.fail(client)
        earliest = min((client.deadline for client in self.open.values()), default=NEVER)
        self.sweep_at = max(earliest, now + SWEEP)
