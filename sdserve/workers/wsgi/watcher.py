"""The watcher among several threads: it sees calls that last or hang, and threads that are missing.

It is the main thread. The application never runs in it, so it is always free for signals, for calls that last too long,
for threads that have ended, and for the way out. While nothing is called it sleeps.
"""

import threading
from _thread import LockType, allocate_lock
from collections.abc import Callable
from time import monotonic

from sdserve.http.request import Request
from sdserve.immutable import Immutable
from sdserve.log import Logger
from sdserve.workers.http.deadlines import NEVER
from sdserve.workers.wsgi.calling_thread import CallingThread
from sdserve.workers.wsgi.client import WSGIClient
from sdserve.workers.wsgi.pace import IN_DEMAND, LOOK_EVERY, Pace, overstays
from sdserve.workers.wsgi.roster import Roster
from sdserve.workers.wsgi.running import Job, Run, Running, Seats

QUIET = 20  # looks of the watcher at an empty table before it sleeps
KEEN = 50  # closer looks after a call that lasted: they come together
SHORTEST = 0.0005  # seconds between two looks, at least
LOOKS = 4  # at a call that lasts, in each time-out: how far has its answer come?
JOB_WAITS = 30.0  # seconds that a job waits for its thread where no time-out is set
RETRY = 1.0  # seconds until a thread that could not be started is tried again; twice as long each time
RETRY_CEILING = 60.0


class Callbacks(Immutable):
    """What the loop is asked and told by the lead that it gave."""

    answer: Callable[[WSGIClient, Request, float], None]  # calls the application
    give_back: Callable[[WSGIClient, bool], None]  # a call or step has ended; in the leader's own thread?
    broken: Callable[[WSGIClient], None]  # it has raised, and this is its `except` block: the connection must end
    too_long: Callable[[WSGIClient, float, int], None]  # no progress for the time-out: seconds, and in which thread
    well: Callable[[float], None]  # all threads work and not all of them are stuck: that is no hang
    in_demand: Callable[[], bool]  # whether something is ready to be polled
    wake: Callable[[], None]  # ends a poll


class Watcher:
    """What is known of `threads` threads. A call without progress for `timeout` seconds is stuck; 0: never."""

    def __init__(
        self,
        threads: int,
        timeout: float,
        tell: Callbacks,
        log: Logger,
        mutex: LockType,
        roster: Roster[WSGIClient, Job],
        running: Running,
        seats: Seats,
        pace: Pace,
        live: Callable[[], None],
    ) -> None:
        self._threads = threads
        self._timeout = timeout
        self._tell = tell
        self._log = log
        self._mutex = mutex
        self._roster = roster
        self._table = roster.table
        self._running = running
        self._seats = seats
        self._pace = pace
        self._live = live
        self._alive = 0  # threads that were started and have not ended
        self._reinforced = False
        self._retry, self._retry_at = RETRY, 0.0  # when threads that are missing are started again
        self._due = NEVER  # when it must look for what takes too long
        self.parked = True  # it sleeps
        self._alarm = threading.Event()
        self._tick = allocate_lock()
        self._tick.acquire()

    def rouse(self) -> None:
        """Wakes the watcher."""
        if self.parked:
            self.parked = False
            self._alarm.set()

    def alarm(self) -> None:
        """The roster has stopped, or a thread has ended."""
        self._alarm.set()

    def began(self, since: float) -> None:
        """A call goes on without the lead; said under the lock."""
        if self._timeout and since + self._timeout / LOOKS < self._due:
            self._due = since + self._timeout / LOOKS
            self.rouse()

    def expect(self, since: float) -> None:
        """A job waits for its thread; said under the lock."""
        self._due = min(self._due, since + (self._timeout or JOB_WAITS))

    def lost_a_thread(self) -> None:
        """One has ended, and is replaced after a moment; said under the lock."""
        self._alive -= 1
        self._retry_at = monotonic() + RETRY
        self._due = min(self._due, self._retry_at)

    def watch_on(self) -> None:
        """Watches until the roster stops."""
        while not self._roster.stopped:
            try:
                self.watch()
            except Exception:  # noqa: BLE001 - the threads serve on, and somebody must watch them
                self._log.exception("Error in the thread that watches the others; it goes on")
                self._tick.acquire(timeout=RETRY)

    def watch(self) -> None:
        """Looks at the table every few milliseconds; sleeps while nothing is called, so an idle worker is not woken."""
        quiet = keen = 0
        while not self._roster.stopped:
            now = monotonic()
            if now >= self._due:
                self._inspect(now)
            since = self._since()
            if since:
                quiet = 0
                age = now - since
                if overstays(age, age >= IN_DEMAND and self._tell.in_demand()):
                    self._promote()
                    keen = KEEN
                    continue
                keen = max(0, keen - 1)
                self._tick.acquire(timeout=max(SHORTEST, (IN_DEMAND if keen else LOOK_EVERY) - age))
            elif quiet < QUIET:
                quiet += 1
                self._tick.acquire(timeout=LOOK_EVERY)
            else:
                quiet = 0
                self._park()

    def _park(self) -> None:
        self.parked = True
        if not self._table:
            due = self._due
            self._alarm.wait(None if due == NEVER else max(0.0, due - monotonic()) + 0.001)
        self._alarm.clear()
        self.parked = False

    def _since(self) -> float:
        """When the leader's call began, 0.0 when it is in none."""
        try:
            return next(iter(self._table.values()), 0.0)
        except RuntimeError:  # it was another one within this line
            return 0.0

    def _promote(self) -> None:
        """Takes the lead from a call that lasts, and gives it to a follower."""
        with self._mutex:
            taken, woken = self._roster.promote()
            if taken is None:  # it has returned just now
                return
            self._running.begin(taken.call, taken.since, taken.seat)
            self.began(taken.since)
            request = taken.call.request
            if request is not None:
                self._pace.was_slow(path_of(request))
            self._seats.ring(woken)

    def _inspect(self, now: float) -> None:
        """Looks for what takes too long, and for threads that are missing."""
        self._due = NEVER
        self.hire(now)
        patience = self._timeout or JOB_WAITS
        with self._mutex:
            stuck = self._find_stuck(now) if self._timeout else []
            late = {seat for seat in self._roster.seats if seat.jobs and now - seat.jobs[0].since >= patience}
            for seat in late:
                self._seats.ring(self._roster.share_out(seat))
            orphans = bool(self._roster.orphans)
            dues = [job.since + patience for job in self._roster.waiting()]
            if self._timeout:
                waits = [run.moved for client, run in self._running.calls.items() if client not in self._running.stuck]
                dues += [min(moved + self._timeout, now + self._timeout / LOOKS) for moved in waits]
            self._due = min([self._due, *dues])
            vacant = self._roster.leader is None
            lost = sum(seat.lost for seat in self._roster.seats)
        for client, run, thread in stuck:
            self._tell.too_long(client, now - run.since, thread)
        if lost >= self._threads and not self._reinforced:
            self._reinforced = True  # one more thread, for what else this worker holds
            self._threads += 1
            self.hire(now)
            lost -= 1
        if vacant and lost < self._threads:
            self._tell.well(now)
        elif orphans or self._running.calls:
            self._tell.wake()

    def _find_stuck(self, now: float) -> list[tuple[WSGIClient, Run, int]]:
        """Calls that exceed the time-out, each once."""
        found = []
        threads = {seat: thread for thread, seat in self._seats.by_thread.items()}
        for client, run in list(self._running.calls.items()):
            if client.progress > run.progress:
                run.moved, run.progress = now, client.progress
                continue
            if now - run.moved < self._timeout or client in self._running.stuck:
                continue
            self._running.stuck.add(client)
            self._seats.ring(self._roster.lose(run.seat))
            found.append((client, run, threads.get(run.seat, 0)))
        return found

    def hire(self, now: float) -> bool:
        """Starts the threads that are missing; False when none could be."""
        hired = True
        while self._alive < self._threads and now >= self._retry_at and not self._roster.stopped:
            with self._mutex:
                self._alive += 1
                number = self._alive
            try:
                CallingThread(target=self._live, name=f"sdserve-{number}").start()
            except (RuntimeError, MemoryError) as error:  # a limit of the system, of the unit, or of the user
                with self._mutex:
                    self._alive -= 1
                self._retry_at = now + self._retry
                self._retry = min(2 * self._retry, RETRY_CEILING)
                self._log.error(
                    "%s: %d of %d threads run; tried again in %g s, see TasksMax=, LimitNPROC= and LimitAS=",
                    *(error, self._alive, self._threads, self._retry_at - now),
                )
                hired = self._alive > 0
                break
            self._retry = RETRY
        if self._alive < self._threads:
            self._due = min(self._due, self._retry_at)
        return hired


def path_of(request: Request) -> str:
    """What the pace of a call is remembered by."""
    return f"{request.method} {request.path}"
