"""What threads without the lead do, and where each thread is: what leaders, followers and the watcher share.

All of it is touched under the one lock that the moves of the roster have.
"""

import threading
from _thread import LockType, allocate_lock
from collections.abc import Callable

from sdserve.workers.wsgi.client import WSGIClient
from sdserve.workers.wsgi.roster import Seat


class Job:
    """Work on a client that its own thread should do; since when it waits."""

    __slots__ = ("client", "since", "step")

    def __init__(self, client: WSGIClient, step: Callable[[], None], since: float) -> None:
        self.client = client
        self.step = step
        self.since = since


class Run:
    """A call without the lead. Its time-out counts from its beginning, or from when its answer last went on."""

    __slots__ = ("moved", "progress", "seat", "since")

    def __init__(self, since: float, seat: Seat[Job]) -> None:
        self.since = self.moved = since
        self.seat = seat
        self.progress = -1  # WSGIClient.progress when it moved


class Running:
    """Calls without the lead. `show` is told how many there are; calls that are answered at once do not show."""

    def __init__(self) -> None:
        self.calls: dict[WSGIClient, Run] = {}
        self.stuck: set[WSGIClient] = set()  # those that exceeded the time-out
        self.show: Callable[[int], None] = lambda calls: None

    def begin(self, client: WSGIClient, since: float, seat: Seat[Job]) -> None:
        """A call goes on, or begins, without the lead."""
        self.calls[client] = Run(since, seat)
        self.show(len(self.calls))

    def end(self, client: WSGIClient) -> Seat[Job] | None:
        """It has returned; the seat of a thread that was stuck in it."""
        run = self.calls.pop(client, None)
        if run is not None:
            self.show(len(self.calls))
        was_stuck = client in self.stuck
        self.stuck.discard(client)
        return run.seat if run is not None and was_stuck else None


class Seats:
    """Threads by their identity: the seat of each, the responses that it holds, and the bell that wakes it."""

    def __init__(self) -> None:
        self.by_thread: dict[int, Seat[Job]] = {}
        self.held: dict[int, set[object]] = {}  # responses that were begun there, and wait
        self._bells: dict[Seat[Job], LockType] = {}

    def own(self) -> Seat[Job] | None:
        """This thread's."""
        return self.by_thread.get(threading.get_ident())

    def enter(self, seat: Seat[Job]) -> LockType:
        """This thread takes it. Returns what it waits for when it rests."""
        thread = threading.get_ident()
        self._bells[seat] = bell = allocate_lock()
        bell.acquire()
        self.by_thread[thread], self.held[thread] = seat, seat.held
        return bell

    def leave(self, seat: Seat[Job]) -> None:
        thread = threading.get_ident()
        self.by_thread.pop(thread, None)
        self.held.pop(thread, None)
        self._bells.pop(seat, None)

    def ring(self, seats: list[Seat[Job]]) -> None:
        for seat in seats:
            self._bells[seat].release()
