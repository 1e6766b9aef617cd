"""The lead: which of several threads polls, and how it changes hands. Moves are roster.py's, the policy leaders.py's.

The leader owns all that the loop has. A call that lasts loses the lead to a follower; its thread then gives its client
back and does what was kept for it, or rests until it is woken. Each thread is woken for itself, by a lock of its own.

Some work belongs to one thread: a response that was suspended goes on where the application was called, because what
the application holds may belong to that thread (`resume`).

The watcher is the main thread. The application never runs in it, so it is always free for signals, for calls that last
too long, for threads that have ended, and for the way out.
"""

import threading
from _thread import LockType, allocate_lock
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple

from sdserve.http.request import Request
from sdserve.workers.http.deadlines import NEVER
from sdserve.workers.wsgi.client import WSGIClient
from sdserve.workers.wsgi.pace import IN_DEMAND, LOOK_EVERY, Pace, overstays
from sdserve.workers.wsgi.roster import Next, Roster, Seat

if TYPE_CHECKING:
    from sdserve.log import Logger

QUIET = 20  # looks of the watcher at an empty table before it sleeps
KEEN = 50  # closer looks after a call that lasted: they come together
SHORTEST = 0.0005  # seconds between two looks, at least
LOOKS = 4  # at a call that lasts, in each time-out: how far has its answer come?
JOB_WAITS = 30.0  # seconds that a job waits for its thread where no time-out is set
RETRY = 1.0  # seconds until a thread that could not be started is tried again; twice as long each time
RETRY_CEILING = 60.0


class Job(NamedTuple):
    """Work on a client that its own thread should do; since when it waits."""

    client: WSGIClient
    step: Callable[[], None]
    since: float


class Run(NamedTuple):
    """A call without the lead. Its time-out counts from its beginning, or from when its answer last went on."""

    since: float
    seat: "Seat[Job]"
    moved: float
    progress: int = -1  # WSGIClient.progress at that time


class Callbacks(NamedTuple):
    """What the loop is asked and told by the lead that it gave."""

    answer: Callable[[WSGIClient, Request, float], None]  # calls the application
    give_back: Callable[[WSGIClient, bool], None]  # a call or step has ended; in the leader's own thread?
    broken: Callable[[WSGIClient], None]  # it has raised, and this is its `except` block: the connection must end
    too_long: Callable[[WSGIClient, float, int], None]  # no progress for the time-out: seconds, and in which thread
    well: Callable[[float], None]  # all threads work and not all of them are stuck: that is no hang
    in_demand: Callable[[], bool]  # whether something is ready to be polled
    wake: Callable[[], None]  # ends a poll


class LeaderFollowers:
    """The lead among `threads` threads. A call without progress for `timeout` seconds is stuck; 0: never."""

    def __init__(self, threads: int, timeout: float, tell: Callbacks, log: "Logger") -> None:
        self._threads = threads
        self._timeout = timeout
        self._tell = tell
        self._answer = tell.answer
        self._log = log
        self._turns: Callable[[], None] = lambda: None
        self._mutex = allocate_lock()  # held for moves of the roster
        self._roster: Roster[WSGIClient, Job] = Roster()
        self._table = self._roster.table
        self._idle = self._roster.idle
        self._bells: dict[Seat[Job], LockType] = {}
        self._seats: dict[int, Seat[Job]] = {}  # by the thread's identity
        self._pace = Pace()
        self._alive = 0  # threads that were started and have not ended
        self._reinforced = False
        self._retry, self._retry_at = RETRY, 0.0  # when threads that are missing are started again
        self._due = NEVER  # when the watcher must look for what takes too long
        self._parked = True  # the watcher sleeps
        self._alarm = threading.Event()
        self._tick = allocate_lock()
        self._tick.acquire()
        self.running: dict[WSGIClient, Run] = {}
        self.stuck: set[WSGIClient] = set()  # those that exceeded the time-out

    @property
    def stopped(self) -> bool:
        return self._roster.stopped

    def share(self, turns: Callable[[], None]) -> None:
        """Has `turns` run by one thread at a time until `stop`. `turns` returns when its thread has lost the lead."""
        self._turns = turns
        if self._threads == 1:
            turns()
            return
        if self._hire(monotonic()):
            while not self._roster.stopped:
                try:
                    self._watch()
                except Exception:  # noqa: BLE001 - the threads serve on, and somebody must watch them
                    self._log.exception("Error in the thread that watches the others; it goes on")
                    self._tick.acquire(timeout=RETRY)
        else:
            self._live()  # without anybody to follow, and without a watcher

    def stop(self) -> None:
        """Said by the leader: nobody leads any more."""
        with self._mutex:
            self._ring_bells(self._roster.stop())
        self._alarm.set()

    def is_alone(self) -> bool:
        """Whether nobody polls, nor is about to, while this thread is in a call."""
        leader = self._roster.leader
        return leader is None or (not self._idle and leader is self._seats.get(threading.get_ident()))

    # --- what the leader does -----------------------------------------------------------------------------------------

    def call(self, client: WSGIClient, request: Request, now: float) -> bool:
        """Answers a request in this thread, with the lead as long as it lasts. False when the lead was lost."""
        pace, name = self._pace, ""
        if not pace.calm:
            name = _name(request)
            if self._idle and pace.remembers(name) and self._expects_slow(name):
                self._call_as_follower(client, request, now)
                return False
        table = self._table
        table[client] = now
        if self._parked:
            self._rouse()
        try:
            self._answer(client, request, now)
        except BaseException:  # noqa: BLE001 - one connection ends, nothing else
            self._tell.broken(client)
        if table.pop(client, None) is None:
            self._comes_back(client)
            return False
        if name and pace.remembers(name):
            with self._mutex:
                pace.was_quick(name)
        return True

    def resume(self, client: WSGIClient, owner: int, step: Callable[[], None]) -> bool:
        """Has `step` done by the thread `owner` (threading.get_ident()), and gives the client back to the leader then.

        At once where that is this thread, or where it is stuck or gone: then this is a call like any other. An idle
        thread is woken for it. One that is in a call does it when that returns; where that takes longer than the
        time-out, another thread does it. False when the lead was lost meanwhile; the client belongs to the step in
        any case, until it comes back.
        """
        now = monotonic()
        with self._mutex:
            here, woken = self._roster.assign(Job(client, step, now), self._seats.get(owner))
            self._ring_bells(woken)
            if not here:
                self._due = min(self._due, now + (self._timeout or JOB_WAITS))
        if not here:
            if not woken and self._parked:
                self._rouse()  # it must be seen that this waits
            return True
        self._table[client] = now
        if self._parked:
            self._rouse()
        self._step(client, step)
        if self._table.pop(client, None) is None:
            self._comes_back(client)
            return False
        self._tell.give_back(client, True)
        return True

    def take_orphan(self) -> bool:
        """Does one job whose thread is lost. False when the lead was lost."""
        with self._mutex:
            job = self._roster.orphans.popleft() if self._roster.orphans else None
        if job is None:
            return True
        self._tell.wake()  # there may be more
        return self.resume(job.client, 0, job.step)

    def leads(self) -> bool:
        """Whether this thread leads. Takes the token of a call that an exception has left behind off the table."""
        with self._mutex:
            if self._roster.leader is not self._seats.get(threading.get_ident()):
                return False
            self._table.clear()
            return True

    def _expects_slow(self, name: str) -> bool:
        with self._mutex:
            return self._pace.expect_slow(name)

    def _call_as_follower(self, client: WSGIClient, request: Request, now: float) -> None:
        """Gives up the lead before a call that is expected to last."""
        with self._mutex:
            seat = self._roster.leader
            assert seat is not None
            self._runs(client, now, seat)
            self._ring_bells(self._roster.pass_on())
        try:
            self._answer(client, request, now)
        except BaseException:  # noqa: BLE001 - as above
            self._tell.broken(client)
        self._comes_back(client)

    def _step(self, client: WSGIClient, step: Callable[[], None]) -> None:
        try:
            step()
        except BaseException:  # noqa: BLE001 - as above
            self._tell.broken(client)

    # --- what threads without the lead do -----------------------------------------------------------------------------

    def _comes_back(self, client: WSGIClient) -> None:
        """The end of a call or step without the lead."""
        with self._mutex:
            run = self.running.pop(client, None)
            if client in self.stuck:
                self.stuck.discard(client)
                if run is not None:
                    self._roster.found(run.seat)
        self._tell.give_back(client, False)

    def _live(self) -> None:
        """A thread's life: leads, does what was kept for it, rests."""
        seat: Seat[Job] = Seat()
        bell = allocate_lock()
        bell.acquire()
        roster, mutex = self._roster, self._mutex
        try:
            with mutex:
                self._seats[threading.get_ident()] = seat
                self._bells[seat] = bell
                roster.join(seat)
            while True:
                with mutex:
                    task = roster.rest(seat)
                    if isinstance(task, Job):
                        self._runs(task.client, monotonic(), seat)
                if task is Next.WAIT:
                    bell.acquire()
                elif task is Next.LEAD:
                    self._turns()
                elif isinstance(task, Job):
                    self._step(task.client, task.step)
                    self._comes_back(task.client)
                else:
                    return
        except BaseException:  # noqa: BLE001 - whatever ends a thread, the others go on
            self._log.exception("A thread has ended; another one takes its place")
        finally:
            with mutex:
                self._seats.pop(threading.get_ident(), None)
                self._bells.pop(seat, None)
                self._ring_bells(roster.leave(seat))
                self._alive -= 1
                self._retry_at = monotonic() + RETRY
                self._due = min(self._due, self._retry_at)
            self._alarm.set()

    # --- the watcher --------------------------------------------------------------------------------------------------

    def _rouse(self) -> None:
        """Wakes the watcher."""
        if self._parked:
            self._parked = False
            self._alarm.set()

    def _watch(self) -> None:
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
        self._parked = True
        if not self._table:
            due = self._due
            self._alarm.wait(None if due == NEVER else max(0.0, due - monotonic()) + 0.001)
        self._alarm.clear()
        self._parked = False

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
            if taken is None:
                return
            self._runs(taken.call, taken.since, taken.seat)
            request = taken.call.request
            if request is not None:
                self._pace.was_slow(_name(request))
            self._ring_bells(woken)

    def _runs(self, client: WSGIClient, since: float, seat: Seat[Job]) -> None:
        """A call goes on, or begins, without the lead."""
        self.running[client] = Run(since, seat, since)
        if self._timeout and since + self._timeout / LOOKS < self._due:
            self._due = since + self._timeout / LOOKS
            self._rouse()

    def _ring_bells(self, seats: list[Seat[Job]]) -> None:
        for seat in seats:
            self._bells[seat].release()

    def _inspect(self, now: float) -> None:
        """Looks for what takes too long, and for threads that are missing."""
        self._due = NEVER
        self._hire(now)
        patience = self._timeout or JOB_WAITS
        with self._mutex:
            stuck = self._find_stuck(now) if self._timeout else []
            late = {seat for seat in self._roster.seats if seat.jobs and now - seat.jobs[0].since >= patience}
            for seat in late:
                self._ring_bells(self._roster.share_out(seat))
            orphans = bool(self._roster.orphans)
            dues = [job.since + patience for job in self._roster.waiting()]
            if self._timeout:
                waits = [run.moved for client, run in self.running.items() if client not in self.stuck]
                dues += [min(moved + self._timeout, now + self._timeout / LOOKS) for moved in waits]
            self._due = min([self._due, *dues])
            vacant = self._roster.leader is None
            lost = sum(seat.lost for seat in self._roster.seats)
        for client, run, thread in stuck:
            self._tell.too_long(client, now - run.since, thread)
        if lost >= self._threads and not self._reinforced:
            self._reinforced = True  # one more thread, for what else this worker holds
            self._threads += 1
            self._hire(now)
            lost -= 1
        if vacant and lost < self._threads:
            self._tell.well(now)
        elif orphans or self.running:
            self._tell.wake()

    def _find_stuck(self, now: float) -> list[tuple[WSGIClient, Run, int]]:
        """Calls that exceed the time-out, each once."""
        found = []
        threads = {seat: thread for thread, seat in self._seats.items()}
        for client, run in list(self.running.items()):
            if client.progress > run.progress:
                self.running[client] = run._replace(moved=now, progress=client.progress)
                continue
            if now - run.moved < self._timeout or client in self.stuck:
                continue
            self.stuck.add(client)
            self._ring_bells(self._roster.lose(run.seat))
            found.append((client, run, threads.get(run.seat, 0)))
        return found

    def _hire(self, now: float) -> bool:
        """Starts the threads that are missing; False when none could be."""
        hired = True
        while self._alive < self._threads and now >= self._retry_at and not self._roster.stopped:
            with self._mutex:
                self._alive += 1
                number = self._alive
            try:
                threading.Thread(target=self._live, name=f"sdserve-{number}", daemon=True).start()
            except (RuntimeError, MemoryError) as error:  # a limit of the system, of the unit, or of the user
                with self._mutex:
                    self._alive -= 1
                self._retry_at = now + self._retry
                self._retry = min(2 * self._retry, RETRY_CEILING)
                self._log.error(
                    "%s: %d of %d threads run; tried again in %g s, see TasksMax= and LimitNPROC=",
                    *(error, self._alive, self._threads, self._retry_at - now),
                )
                hired = self._alive > 0
                break
            self._retry = RETRY
        if self._alive < self._threads:
            self._due = min(self._due, self._retry_at)
        return hired


def _name(request: Request) -> str:
    return f"{request.method} {request.path}"
